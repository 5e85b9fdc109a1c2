//! Serving HTTP/1.1 on the control socket, and on TCP: who may speak, how many at once, and how long each step may take.
//!
//! Owns the connections; knows nothing of what is served on them. Every wait on a client is bounded: for its request
//! head ([`Limits::head`]), for its body ([`super::extract`]), and for it to take an answer ([`Limits::stall`]).

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::unistd::geteuid;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::error::ApiError;
use super::framing::LengthLines;
use super::guesses::AnswerAfter;
use super::strangers::{Place, Places};
use crate::server::leave_reserve;

/// How much of the server clients can hold on to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once of callers who may command the server: on the control socket, where more wait in the kernel's
    /// queue, and over TCP with the token.
    pub connections: usize,
    /// Connections over TCP at once that have not sent the token, each until it becomes a WebSocket. For one more, the oldest one is
    /// closed of the network that has most of them, within the site that has most of them. A network: an IPv4 address, or the
    /// first 64 bits of an IPv6 address. A site: an IPv4 address, or the first 48 bits.
    pub strangers: usize,
    /// Those of one network.
    pub strangers_per_network: usize,
    /// From the connection's start, or the answer before, to the end of a request's head, on the control socket.
    pub head: Duration,
    /// The same over TCP.
    pub head_remote: Duration,
    /// For which a client may leave an answer unread.
    pub stall: Duration,
    /// For which connections may go on after the server began to close.
    pub close: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // An operator, a few scripts and a dashboard need ten; a descriptor and a few KiB each.
            connections: 256,
            // Who connects is one for two round trips. 500 of them at a time are thousands a second behind one address; at up
            // to 30 KiB each all of them hold 30 MiB.
            strangers: 1_024,
            strangers_per_network: 512,
            head: Duration::from_secs(10),
            head_remote: Duration::from_secs(5),
            stall: Duration::from_secs(30),
            close: Duration::from_secs(5),
        }
    }
}

/// An extension of answers to clients of rooms. They may ask as often as they like, so the log does not say each time that they did.
#[derive(Clone, Copy, Debug)]
pub(super) struct ToClient;

/// Largest request head; hyper answers 431 to a larger one.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// How long to leave the listener alone when the process has no descriptor left for another connection.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// Where connections come from.
pub trait Listen: Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Whose it is; `None`: somebody's who may not speak.
    fn caller(stream: &Self::Stream) -> Option<Caller>;
}

/// Who speaks on a connection, for the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// A process of this machine, if the kernel says which.
    Process(Option<i32>),
    /// Somebody on the network.
    Remote(SocketAddr),
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(Some(pid)) => pid.fmt(f),
            Self::Process(None) => f.write_str("-"),
            Self::Remote(address) => address.fmt(f),
        }
    }
}

/// The control socket: for its own user and root.
impl Listen for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<UnixStream> {
        Self::accept(self).await.map(|(stream, _)| stream)
    }

    fn caller(stream: &UnixStream) -> Option<Caller> {
        match stream.peer_cred() {
            Ok(peer) if permits(peer.uid(), geteuid().as_raw()) => return Some(Caller::Process(peer.pid())),
            Ok(peer) => warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "refused a control connection of another user"
            ),
            Err(error) => warn!(%error, "refused a control connection: cannot tell whose it is"),
        }
        None
    }
}

/// TCP: for everybody; what is served there must look after itself ([`guarded`](super::guarded)).
impl Listen for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = Self::accept(self).await?;
        // Operators on the control socket shall be let in when nobody else can be.
        leave_reserve(&stream)?;
        // Answers and events are written whole; there is nothing to wait for. A failure costs nothing but that.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    fn caller(stream: &TcpStream) -> Option<Caller> {
        // No address: it is gone already.
        stream.peer_addr().ok().map(Caller::Remote)
    }
}

/// What is served: the same all the time, or what was last sent.
#[derive(Clone, Debug)]
pub struct Served(watch::Receiver<Router>);

impl From<Router> for Served {
    fn from(app: Router) -> Self {
        Self(watch::channel(app).1)
    }
}

impl From<watch::Receiver<Router>> for Served {
    fn from(apps: watch::Receiver<Router>) -> Self {
        Self(apps)
    }
}

impl Served {
    fn now(&self) -> Router {
        self.0.borrow().clone()
    }
}

/// Serves `app` until `closing` becomes true (or its sender is gone), then lets requests that are under way finish, for
/// at most [`Limits::close`].
pub async fn serve<L: Listen>(listener: L, app: impl Into<Served>, limits: Limits, mut closing: watch::Receiver<bool>) {
    let app = app.into();
    let places = Places::new(&limits);
    let mut connections = JoinSet::new();
    let mut close = pin!(closed(closing.clone()));
    let mut is_refusing = false;
    loop {
        // Ended tasks are let go as others come, so that the set stays as small as the number of connections.
        while let Some(ended) = connections.try_join_next() {
            report(ended);
        }
        let accepted = tokio::select! {
            () = &mut close => break,
            accepted = accept(&listener, &places) => accepted,
        };
        match accepted {
            Ok(accepted) => {
                is_refusing = false;
                if let Some((stream, caller, place)) = accepted {
                    connections.spawn(connection(stream, caller, place, app.clone(), limits, closing.clone()));
                }
            }
            Err(error) => {
                if !std::mem::replace(&mut is_refusing, true) {
                    warn!(%error, "cannot accept control connections; said once, until it can");
                }
                sleep(ACCEPT_BACK_OFF).await;
            }
        }
    }
    drop(listener);
    closing.mark_unchanged();
    let finished = async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    };
    if timeout(limits.close, finished).await.is_err() {
        warn!("control connections did not end in time; cutting them");
        connections.shutdown().await;
    }
}

/// The next connection with a place to be served in; `None`: somebody's who may not speak. Who finds no place keeps the others in the
/// kernel's queue.
async fn accept<L: Listen>(listener: &L, places: &Places) -> io::Result<Option<(L::Stream, Caller, Arc<Place>)>> {
    let stream = listener.accept().await?;
    let Some(caller) = L::caller(&stream) else {
        return Ok(None);
    };
    let place = places.take(caller).await;
    Ok(place.map(|place| (stream, caller, place)))
}

/// Ends when the server closes.
async fn closed(mut closing: watch::Receiver<bool>) {
    // An error means that the sender is gone, and with it the server.
    let _ = closing.wait_for(|closing| *closing).await;
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        error!(%error, "a control connection panicked");
    }
}

/// A path as the log may show it: what follows the name of sessions is what only its client knows.
fn logged(path: &str) -> &str {
    const BEFORE_SECRET: &str = "/sessions/";
    let secret = path.find(BEFORE_SECRET).map(|at| at + BEFORE_SECRET.len());
    &path[..secret.unwrap_or(path.len())]
}

/// Whether a process of user `uid` may command a server of user `own`. The socket's mode says so already; this holds
/// when somebody has changed the mode.
fn permits(uid: u32, own: u32) -> bool {
    uid == own || uid == 0
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    caller: Caller,
    place: Arc<Place>,
    app: Served,
    limits: Limits,
    closing: watch::Receiver<bool>,
) {
    let stream = Impatient::new(stream, limits.stall);
    let framing = Arc::new(stream.lengths.checker());
    let of_requests = Arc::clone(&place);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(Arc::clone(&of_requests));
        // In a task of its own, a command that is under way goes on to its end when the client hangs up, and a panic
        // costs one answer. The task keeps the connection's place, so that clients that hang up early gain nothing.
        let (method, path) = (request.method().clone(), logged(request.uri().path()).to_owned());
        let refusal = framing.refuses(request.headers());
        // Also on a connection that was there before.
        let answer = TowerToHyperService::new(app.now()).call(request);
        let place = Arc::clone(&of_requests);
        let task = tokio::spawn(async move {
            let answer = match refusal {
                Some(refusal) => Ok(refusal),
                None => answer.await,
            };
            drop(place);
            answer
        });
        async move {
            let mut response = match task.await {
                Ok(Ok(response)) => response,
                Err(error) => {
                    error!(%error, "a control request was not answered");
                    ApiError::internal("the server failed to answer; see its log").into_response()
                }
            };
            if let Some(AnswerAfter(delay)) = response.extensions_mut().remove() {
                sleep(delay).await;
            }
            let status = response.status().as_u16();
            // Who changed what is worth knowing later; who looked at what is not, and strangers must not fill the log.
            let is_quiet = response.extensions_mut().remove::<ToClient>().is_some();
            if is_quiet || method.is_safe() || matches!(status, 401 | 403) {
                debug!(%method, path, status, %caller, "control request");
            } else {
                info!(%method, path, status, %caller, "control request");
            }
            Ok::<Response, Infallible>(response)
        }
    });
    let head = match caller {
        Caller::Process(_) => limits.head,
        Caller::Remote(_) => limits.head_remote,
    };
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades()
    );
    let mut close = pin!(closed(closing));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = place.evicted() => return debug!(%caller, "closed a connection whose place another one needs"),
        () = &mut close => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%error, "a control connection ended early");
    }
}

/// A stream that fails with `TimedOut` when a write makes no progress for long.
struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Runs while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
    /// What is read passes by here.
    lengths: LengthLines,
}

impl<S> Impatient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            deadline: None,
            lengths: LengthLines::default(),
        }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.deadline = None;
            return polled;
        }
        let patience = self.patience;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + patience)));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.lengths.look(&buf.filled()[before..]);
        polled
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[test]
    fn only_the_same_user_and_root_command() {
        assert!(permits(1000, 1000));
        assert!(permits(0, 1000));
        assert!(!permits(1001, 1000));
        assert!(!permits(1000, 0));
    }

    #[test]
    fn no_secret_of_a_path_is_logged() {
        assert_eq!(logged("/rooms/7"), "/rooms/7");
        assert_eq!(logged("/whip/stage/sessions/0123"), "/whip/stage/sessions/");
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_that_makes_no_progress_fails() {
        let (near, _far) = duplex(8);
        let mut near = Impatient::new(near, Duration::from_secs(30));
        let error = near.write_all(&[0; 9]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_progress_is_progress() {
        let (near, mut far) = duplex(8);
        let mut near = Impatient::new(near, Duration::from_secs(30));
        let reader = tokio::spawn(async move {
            let mut byte = [0];
            for _ in 0..16 {
                sleep(Duration::from_secs(20)).await;
                far.read_exact(&mut byte).await.unwrap();
            }
            far
        });
        near.write_all(&[0; 24]).await.unwrap();
        reader.await.unwrap();
    }
}
