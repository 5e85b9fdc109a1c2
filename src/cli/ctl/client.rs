//! The other end of the control socket: HTTP/1.1 over a Unix socket, one request after the other.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::anyhow;
use axum::http::{Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use nix::unistd::geteuid;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixStream;
use tokio::time::timeout;
use weir::http::{ErrorBody, LIST_MAX, Listing};

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

    /// Sends a command that makes something.
    pub(crate) async fn post(&mut self, target: &str, body: &Value) -> Result<Value, Failure> {
        self.ask(Method::POST, target, Some(body)).await
    }

    /// Closes something, with the app data for its event.
    pub(crate) async fn close(&mut self, target: &str, app_data: Option<Value>) -> Result<Value, Failure> {
        let body = app_data.map(|app_data| json!({"appData": app_data}));
        self.ask(Method::DELETE, target, body.as_ref()).await
    }

    /// The whole of a list, which comes in parts.
    pub(crate) async fn list(&mut self, target: &str, filters: &[(&str, Option<u64>)]) -> Result<Vec<Value>, Failure> {
        let mut query = format!("limit={LIST_MAX}");
        for (name, value) in filters {
            if let Some(value) = value {
                query += &format!("&{name}={value}");
            }
        }
        let mut items = Vec::new();
        let mut after = None;
        loop {
            let position = after.map(|after: u64| format!("&after={after}")).unwrap_or_default();
            let part: Listing<Value> = self.get(&format!("{target}?{query}{position}")).await?;
            items.extend(part.items);
            // Ids grow from part to part, so a server that goes round in circles is found out.
            match part.next {
                Some(next) if after.is_none_or(|after| next > after) => after = Some(next),
                Some(_) => return Err(self.unreachable(anyhow!("its list does not end"))),
                None => return Ok(items),
            }
        }
    }

    /// `GET`s a value that comes with a status of its own: also a 503 says something.
    pub(crate) async fn look(&mut self, target: &str) -> Result<Value, Failure> {
        let (status, bytes) = self.exchange(Method::GET, target, None).await?;
        match status {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => self.json(&bytes),
            status => Err(self.refusal(status, &bytes)),
        }
    }

    /// `GET`s something that goes on for ever, with its head's time limit only.
    pub(crate) async fn open(&mut self, target: &str) -> Result<Incoming, Failure> {
        let answer = self.begin(Method::GET, target, None).await?;
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
            Err(_) => self.unreachable(anyhow!("it answered {status}, but not like Weir")),
        }
    }

    async fn exchange(
        &mut self,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let answer = self.begin(method, target, body).await?;
        let status = answer.status();
        Ok((status, self.collect(answer.into_body()).await?))
    }

    /// Sends a request and waits for the head of its answer.
    async fn begin(
        &mut self,
        method: Method,
        target: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .header(header::HOST, "weir");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request = request
            .body(Full::from(bytes))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        let patience = self.patience;
        let sending = async {
            let sender = self.ready().await?;
            sender.send_request(request).await.map_err(anyhow::Error::from)
        };
        let answer = timeout(patience, sending).await;
        answer
            .map_err(|_| self.silent())?
            .map_err(|error| self.unreachable(error))
    }

    async fn collect(&self, body: Incoming) -> Result<Bytes, Failure> {
        let collected = timeout(self.patience, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        match collected {
            Err(_) => Err(self.silent()),
            Ok(Err(error)) => Err(self.unreachable(anyhow!("its answer ended too early: {error}"))),
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
            return Err(anyhow!(
                "it is run by user {server}, not by you; name it with --control if that is right"
            ));
        }
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with its sender; the request that waits for it gets its errors.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Says that the server is not there, or not as it should be.
    pub(crate) fn unreachable(&self, error: anyhow::Error) -> Failure {
        let absent = error.downcast_ref::<io::Error>().is_some_and(|error| {
            use io::ErrorKind::{ConnectionRefused, NotFound};
            matches!(error.kind(), NotFound | ConnectionRefused)
        });
        let path = self.path.display();
        Failure::Unreachable(if absent {
            error.context(format!(
                "cannot reach the server at {path} (is `weir serve` running? use --control to name another socket)"
            ))
        } else {
            error.context(format!("cannot talk to the server at {path}"))
        })
    }

    fn silent(&self) -> Failure {
        let patience = humantime::format_duration(self.patience);
        self.unreachable(anyhow!("no answer within {patience} (--timeout)"))
    }
}
