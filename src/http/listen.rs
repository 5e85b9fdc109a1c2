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
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tracing::{debug, error, info, warn};

use super::error::ApiError;
use crate::server::leave_reserve;

/// How much of the server clients can hold on to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's queue.
    pub connections: usize,
    /// From the connection's start, or the answer before, to the end of a request's head.
    pub head: Duration,
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
            head: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            close: Duration::from_secs(5),
        }
    }
}

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

/// Serves `app` until `closing` becomes true (or its sender is gone), then lets requests that are under way finish, for
/// at most [`Limits::close`].
pub async fn serve<L: Listen>(listener: L, app: Router, limits: Limits, mut closing: watch::Receiver<bool>) {
    let slots = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let mut close = pin!(closed(closing.clone()));
    let mut is_refusing = false;
    loop {
        // Ended tasks are let go as others come, so that the set stays as small as the number of connections.
        while let Some(ended) = connections.try_join_next() {
            report(ended);
        }
        let (slot, accepted) = tokio::select! {
            () = &mut close => break,
            accepted = accept(&listener, &slots) => accepted,
        };
        match accepted {
            Ok(stream) => {
                is_refusing = false;
                if let Some(caller) = L::caller(&stream) {
                    connections.spawn(connection(stream, caller, slot, app.clone(), limits, closing.clone()));
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

/// Waits for a free slot first: who finds none stays in the kernel's queue.
async fn accept<L: Listen>(
    listener: &L,
    slots: &Arc<Semaphore>,
) -> (Option<OwnedSemaphorePermit>, io::Result<L::Stream>) {
    // The semaphore is never closed, so there always is a permit in the end.
    let slot = Arc::clone(slots).acquire_owned().await.ok();
    (slot, listener.accept().await)
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

/// Whether a process of user `uid` may command a server of user `own`. The socket's mode says so already; this holds
/// when somebody has changed the mode.
fn permits(uid: u32, own: u32) -> bool {
    uid == own || uid == 0
}

async fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    caller: Caller,
    slot: Option<OwnedSemaphorePermit>,
    app: Router,
    limits: Limits,
    closing: watch::Receiver<bool>,
) {
    let slot = Arc::new(slot);
    let app = TowerToHyperService::new(app);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(caller);
        // In a task of its own, a command that is under way goes on to its end when the client hangs up, and a panic
        // costs one answer. The task keeps the connection's slot, so that clients that hang up early gain nothing.
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let answer = app.call(request);
        let slot = Arc::clone(&slot);
        let task = tokio::spawn(async move {
            let answer = answer.await;
            drop(slot);
            answer
        });
        async move {
            let response = match task.await {
                Ok(Ok(response)) => response,
                Err(error) => {
                    error!(%error, "a control request was not answered");
                    ApiError::internal("the server failed to answer; see its log").into_response()
                }
            };
            let status = response.status().as_u16();
            // Who changed what is worth knowing later; who looked at what is not.
            if method.is_safe() {
                debug!(%method, path, status, %caller, "control request");
            } else {
                info!(%method, path, status, %caller, "control request");
            }
            Ok::<Response, Infallible>(response)
        }
    });
    let io = TokioIo::new(Impatient::new(stream, limits.stall));
    let mut connection = pin!(
        hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(io, service)
            .with_upgrades()
    );
    let mut close = pin!(closed(closing));
    let ended = tokio::select! {
        ended = &mut connection => ended,
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
}

impl<S> Impatient<S> {
    fn new(stream: S, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            deadline: None,
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
        Pin::new(&mut self.stream).poll_read(cx, buf)
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
