//! A server with its control interface in this process, and a client of it.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use axum::http::{HeaderMap, Method, Request, header};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir::http::{ControlOptions, ControlSocket, Limits, app, serve};
use weir::{Server, Settings};

#[allow(unused_imports, reason = "each test file uses its own part")]
pub(crate) use crate::loopback::{PATIENCE, free_ports, settings, soon};

/// A server that can be controlled.
pub(crate) struct Control {
    pub(crate) server: Server,
    pub(crate) path: PathBuf,
    close: watch::Sender<bool>,
    serving: JoinHandle<()>,
    _socket: ControlSocket,
    _dir: TempDir,
}

impl Control {
    /// With two workers.
    pub(crate) async fn start() -> Self {
        Self::start_with(settings(2), Limits::default(), ControlOptions::default()).await
    }

    pub(crate) async fn start_with(settings: Settings, limits: Limits, options: ControlOptions) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.sock");
        let (socket, listener) = ControlSocket::bind(&path).unwrap();
        let server = soon("the server", Server::start(settings)).await.unwrap();
        let (close, closing) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, app(server.clone(), options), limits, closing));
        Self {
            server,
            path,
            close,
            serving,
            _socket: socket,
            _dir: dir,
        }
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.path).await
    }

    /// A connection on which anything can be said.
    pub(crate) async fn raw(&self) -> UnixStream {
        UnixStream::connect(&self.path).await.unwrap()
    }

    /// Stops accepting; connections end when their requests are answered.
    pub(crate) fn begin_close(&self) {
        self.close.send_replace(true);
    }

    /// Closes the server as `weir serve` does.
    pub(crate) async fn close(self) {
        self.begin_close();
        soon("the server's end", self.server.close()).await;
        soon("the control interface's end", self.serving).await.unwrap();
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Answer {
    /// The body, if the status is this.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.body
    }

    /// Checks that it is a refusal with this status, this code and a message that says this.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, code: &str, says: &str) {
        assert_eq!(self.status, status, "{}", self.text);
        let members: Vec<_> = self
            .body
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(members, ["error"], "{}", self.text);
        assert_eq!(self.body["error"]["code"], code, "{}", self.text);
        let message = self.body["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(says), "{says:?} is not in {message:?}");
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/json");
    }
}

/// HTTP over a Unix socket.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    pub(crate) async fn connect(path: &std::path::Path) -> Self {
        Self::over(UnixStream::connect(path).await.unwrap()).await
    }

    pub(crate) async fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S) -> Self {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        Self { sender }
    }

    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        self.send("GET", target, None).await
    }

    pub(crate) async fn post(&mut self, target: &str, body: Value) -> Answer {
        self.send("POST", target, Some(body)).await
    }

    pub(crate) async fn put(&mut self, target: &str, body: Value) -> Answer {
        self.send("PUT", target, Some(body)).await
    }

    pub(crate) async fn delete(&mut self, target: &str) -> Answer {
        self.send("DELETE", target, None).await
    }

    pub(crate) async fn send(&mut self, method: &str, target: &str, body: Option<Value>) -> Answer {
        let text = body.map(|body| body.to_string());
        let headers: &[_] = if text.is_some() {
            &[("content-type", "application/json")]
        } else {
            &[]
        };
        self.say(method, target, headers, text.unwrap_or_default()).await
    }

    /// Sends whatever is said.
    pub(crate) async fn say(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let response = self.begin(method, target, headers, body).await;
        let (parts, body) = response.into_parts();
        let bytes = soon("the answer's body", body.collect()).await.unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: serde_json::from_str(&text).unwrap_or(Value::Null),
            text,
        }
    }

    /// Sends a request and returns when its answer begins.
    pub(crate) async fn begin(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> axum::http::Response<Incoming> {
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(target);
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request = request.header(header::HOST, "weir");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        soon("a connection", self.sender.ready()).await.unwrap();
        soon("an answer", self.sender.send_request(request)).await.unwrap()
    }

    /// Makes a room and returns its id.
    pub(crate) async fn room(&mut self) -> u64 {
        let room = self.post("/rooms", json!({})).await.expect(201);
        room["id"].as_u64().unwrap()
    }

    /// Makes a transport that knows no remote and returns its id.
    pub(crate) async fn transport(&mut self, room: u64) -> u64 {
        let transport = self
            .post(&format!("/rooms/{room}/transports"), json!({}))
            .await
            .expect(201);
        transport["id"].as_u64().unwrap()
    }

    /// Makes a producer with the three layers 1111, 2222 and 3333 and returns its id.
    pub(crate) async fn camera(&mut self, transport: u64) -> u64 {
        let producer = self
            .post(&format!("/transports/{transport}/producers"), camera())
            .await
            .expect(201);
        producer["id"].as_u64().unwrap()
    }

    /// Makes a consumer and returns its id.
    pub(crate) async fn consumer(&mut self, transport: u64, producer: u64) -> u64 {
        let target = format!("/transports/{transport}/consumers");
        let consumer = self.post(&target, json!({"producer": producer})).await.expect(201);
        consumer["id"].as_u64().unwrap()
    }
}

/// A body for `POST /transports/{id}/producers`.
pub(crate) fn camera() -> Value {
    json!({
        "kind": "video",
        "rtpParameters": {
            "codecs": [{"mimeType": "video/VP8", "payloadType": 96, "clockRate": 90000,
                "rtcpFeedback": [{"type": "nack", "parameter": "pli"}]}],
            "encodings": [
                {"ssrc": 1111, "profile": "low"},
                {"ssrc": 2222, "profile": "medium"},
                {"ssrc": 3333, "profile": "high"},
            ],
        },
    })
}
