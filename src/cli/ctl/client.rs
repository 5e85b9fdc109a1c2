//! The other end of the control socket: HTTP/1.1 over a Unix socket, one request after the other.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use axum::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use nix::unistd::geteuid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::time::timeout;
use weir::http::ErrorBody;

/// Largest answer that is read. The largest the server gives, a page of a dump, stays under a tenth of it.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What can go wrong between the operator and the server.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The server said no.
    Refused {
        /// The cause, for programs.
        code: String,
        /// The cause, for people.
        message: String,
    },
    /// The command makes no sense.
    Usage(String),
    /// No server, or one that does not speak as expected.
    Unreachable(anyhow::Error),
    /// The server is there and says that it is not well; what it said is already printed.
    Unhealthy,
    /// The answer could not be printed.
    Output(io::Error),
}

impl Failure {
    /// 1: refused, 2: wrong usage, 3: no server.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Refused { .. } | Self::Unhealthy | Self::Output(_) => 1,
            Self::Usage(_) => 2,
            Self::Unreachable(_) => 3,
        })
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message } => write!(f, "{message} ({code})"),
            Self::Usage(message) => f.write_str(message),
            Self::Unreachable(error) => write!(f, "{error:#}"),
            Self::Unhealthy => f.write_str("the server is not healthy"),
            Self::Output(error) => write!(f, "cannot print: {error}"),
        }
    }
}

/// A server to ask.
#[derive(Debug)]
pub(crate) struct Client {
    path: PathBuf,
    patience: Duration,
    /// Whether the path was chosen by default. Then nobody vouches for who listens there.
    guessed: bool,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    /// A client of the server at `path`, or at the default path. Nothing is sent yet.
    pub(crate) fn new(path: Option<PathBuf>, patience: Duration) -> Self {
        Self {
            guessed: path.is_none(),
            path: path.unwrap_or_else(weir::http::default_path),
            patience,
            sender: None,
        }
    }

    /// Where the server is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// `GET`s a value.
    pub(crate) async fn get<T: DeserializeOwned>(&mut self, target: &str) -> Result<T, Failure> {
        let answer = self.ask(Method::GET, target, None).await?;
        self.read(answer)
    }

    /// Sends a command, with a body if there is one.
    pub(crate) async fn send(&mut self, method: Method, target: &str, body: Option<&Value>) -> Result<Value, Failure> {
        self.ask(method, target, body).await
    }

    /// The answer to a question that may be a "no" with something to say: its status and its body.
    pub(crate) async fn look(&mut self, target: &str) -> Result<(StatusCode, Value), Failure> {
        let (status, bytes) = self.exchange(Method::GET, target, None).await?;
        Ok((status, self.json(&bytes)?))
    }

    /// `GET`s something that goes on for ever, with its head's time limit only.
    pub(crate) async fn open(&mut self, target: &str, headers: &[(&'static str, &str)]) -> Result<Incoming, Failure> {
        let mut request = Request::get(target).header(header::HOST, "weir");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).map_err(|error| Failure::Usage(error.to_string()))?;
        let patience = self.patience;
        let sending = async {
            let sender = self.ready().await?;
            sender.send_request(request).await.map_err(anyhow::Error::from)
        };
        let answer = timeout(patience, sending).await;
        let answer = answer.map_err(|_| self.silent())?.map_err(|error| self.unreachable(error))?;
        if answer.status().is_success() {
            return Ok(answer.into_body());
        }
        let status = answer.status();
        let body = self.collect(answer.into_body()).await?;
        Err(self.refusal(status, &body))
    }

    /// Turns an answer into what it should be.
    pub(crate) fn read<T: DeserializeOwned>(&self, answer: Value) -> Result<T, Failure> {
        serde_json::from_value(answer)
            .map_err(|error| self.unreachable(anyhow!("its answer cannot be read, is it another version? {error}")))
    }

    async fn ask(&mut self, method: Method, target: &str, body: Option<&Value>) -> Result<Value, Failure> {
        let (status, bytes) = self.exchange(method, target, body).await?;
        if !status.is_success() {
            return Err(self.refusal(status, &bytes));
        }
        self.json(&bytes)
    }

    fn json(&self, bytes: &[u8]) -> Result<Value, Failure> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(bytes).map_err(|error| self.unreachable(anyhow!("its answer is not JSON: {error}")))
    }

    fn refusal(&self, status: StatusCode, bytes: &[u8]) -> Failure {
        match serde_json::from_slice::<ErrorBody>(bytes) {
            Ok(body) => Failure::Refused {
                code: body.error.code,
                message: body.error.message,
            },
            Err(_) => self.unreachable(anyhow!("it answered {status}, and not as Weir does")),
        }
    }

    async fn exchange(
        &mut self,
        method: Method,
        target: &str,
        body: Option<&(impl Serialize + ?Sized)>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = Request::builder().method(method).uri(target).header(header::HOST, "weir");
        let mut bytes = Vec::new();
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json");
            bytes = serde_json::to_vec(body).map_err(|error| Failure::Usage(error.to_string()))?;
        }
        let request = request
            .body(Full::from(bytes))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let patience = self.patience;
        let sending = async {
            let sender = self.ready().await?;
            sender.send_request(request).await.map_err(anyhow::Error::from)
        };
        let answer = timeout(patience, sending).await;
        let answer = answer.map_err(|_| self.silent())?.map_err(|error| self.unreachable(error))?;
        let status = answer.status();
        Ok((status, self.collect(answer.into_body()).await?))
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, Failure> {
        let collected = timeout(self.patience, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        match collected {
            Err(_) => Err(self.silent()),
            Ok(Err(error)) => Err(self.unreachable(anyhow!("its answer broke off: {error}"))),
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
        }
    }

    /// The connection, made if there is none that can be used.
    async fn ready(&mut self) -> anyhow::Result<&mut SendRequest<Full<Bytes>>> {
        let usable = match &mut self.sender {
            Some(sender) => sender.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            self.sender = Some(self.connect().await?);
        }
        self.sender.as_mut().ok_or_else(|| anyhow!("no connection"))
    }

    async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = UnixStream::connect(&self.path).await?;
        let server = stream.peer_cred()?.uid();
        // In a directory where everybody may write, anybody may have made the default socket.
        if self.guessed && server != geteuid().as_raw() && server != 0 {
            return Err(anyhow!("it is run by user {server}, not by you; name it with --control if that is right"));
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with its sender; what goes wrong with it, the request that waits for it is told.
        tokio::spawn(connection);
        Ok(sender)
    }

    fn unreachable(&self, error: anyhow::Error) -> Failure {
        let absent = error.downcast_ref::<io::Error>().is_some_and(|error| {
            use io::ErrorKind::{ConnectionRefused, NotFound};
            matches!(error.kind(), NotFound | ConnectionRefused)
        });
        let path = self.path.display();
        Failure::Unreachable(if absent {
            error.context(format!("cannot reach the server at {path}; is `weir serve` running? Use --control to name its socket"))
        } else {
            error.context(format!("cannot talk to the server at {path}"))
        })
    }

    fn silent(&self) -> Failure {
        let patience = humantime::format_duration(self.patience);
        self.unreachable(anyhow!("no answer within {patience} (--timeout)"))
    }
}
