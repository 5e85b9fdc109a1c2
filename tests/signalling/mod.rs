//! A client of the mediasoup protocol on a WebSocket.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::VecDeque;
use std::path::Path;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::control::soon;

/// What a server said when the connection became no WebSocket.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
}

/// A client.
pub(crate) struct Caller<S = UnixStream> {
    socket: WebSocketStream<S>,
    /// The subprotocol that the server has chosen.
    pub(crate) subprotocol: Option<String>,
    /// The cookie that the server has given to the browser, as it would be sent back.
    pub(crate) cookie: Option<String>,
    last_id: u64,
    /// Messages that came while something else was waited for.
    inbox: VecDeque<Value>,
    /// The number of the last message that has one.
    pub(crate) seq: u64,
    /// Why the server closed the connection.
    pub(crate) closed: Option<u16>,
}

/// A refused request.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Refusal {
    pub(crate) name: String,
    pub(crate) reason: String,
}

impl Caller {
    pub(crate) async fn connect(path: &Path, room: u64, name: &str) -> Self {
        Self::try_connect(path, room, name, &[]).await.unwrap()
    }

    pub(crate) async fn try_connect(
        path: &Path,
        room: u64,
        name: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Refused> {
        let stream = UnixStream::connect(path).await.unwrap();
        Self::over(stream, "weir", room, name, headers).await
    }
}

impl Caller<TcpStream> {
    /// On TCP, as a page would that has this address of the server.
    pub(crate) async fn try_connect_tcp(
        address: &str,
        room: u64,
        name: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Refused> {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(stream, address, room, name, headers).await
    }

    /// Ends the connection as a computer does that has lost all memory of it: with a reset.
    pub(crate) fn reset(self) {
        let stream = self.socket.into_inner();
        stream.set_zero_linger().unwrap();
        drop(stream);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Caller<S> {
    async fn over(
        stream: S,
        host: &str,
        room: u64,
        name: &str,
        headers: &[(&'static str, &str)],
    ) -> Result<Self, Refused> {
        let mut request = format!("ws://{host}/rooms/{room}/peers/{name}")
            .into_client_request()
            .unwrap();
        for (header, value) in headers {
            request.headers_mut().insert(*header, value.parse().unwrap());
        }
        match soon("the WebSocket", tokio_tungstenite::client_async(request, stream)).await {
            Ok((socket, response)) => Ok(Self {
                socket,
                subprotocol: response
                    .headers()
                    .get("sec-websocket-protocol")
                    .map(|value| value.to_str().unwrap().to_owned()),
                cookie: response.headers().get("set-cookie").map(|value| {
                    let cookie = value.to_str().unwrap();
                    cookie.split(';').next().unwrap().to_owned()
                }),
                last_id: 0,
                inbox: VecDeque::new(),
                seq: 0,
                closed: None,
            }),
            Err(Error::Http(response)) => Err(Refused {
                status: response.status().as_u16(),
            }),
            Err(error) => panic!("{error}"),
        }
    }

    /// Sends whatever is said.
    pub(crate) async fn say(&mut self, text: impl Into<String>) {
        soon("the socket", self.socket.send(Message::text(text.into())))
            .await
            .unwrap();
    }

    /// Sends a request under any method, and waits for its answer.
    pub(crate) async fn ask(&mut self, method: &str, data: Value) -> Result<Value, Refusal> {
        let id = self.begin(method, data).await;
        self.answer(id).await
    }

    /// Sends a request without waiting for its answer.
    pub(crate) async fn begin(&mut self, method: &str, data: Value) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        self.say(json!({"request": true, "id": id, "method": method, "data": data}).to_string())
            .await;
        id
    }

    /// The answer to a request.
    pub(crate) async fn answer(&mut self, id: u64) -> Result<Value, Refusal> {
        let message = self
            .find(|message| message["response"] == true && message["id"] == id)
            .await
            .unwrap_or_else(|| panic!("the connection ended ({:?}) before the answer", self.closed));
        match message["ok"] == true {
            true => Ok(message["data"].clone()),
            false => Err(Refusal {
                name: message["errorName"].as_str().unwrap_or_default().to_owned(),
                reason: message["errorReason"].as_str().unwrap_or_default().to_owned(),
            }),
        }
    }

    /// A mediasoup request.
    pub(crate) async fn request(&mut self, body: Value) -> Result<Value, Refusal> {
        self.ask("mediasoup-request", body).await
    }

    /// A mediasoup notification.
    pub(crate) async fn notify(&mut self, body: Value) {
        self.say(json!({"notification": true, "method": "mediasoup-notification", "data": body}).to_string())
            .await;
    }

    /// The next mediasoup notification; `None`: the connection has ended.
    pub(crate) async fn told(&mut self) -> Option<Value> {
        let message = self
            .find(|message| message["method"] == "mediasoup-notification")
            .await?;
        Some(message["data"].clone())
    }

    /// The next message, whatever it is.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        self.find(|_| true).await
    }

    /// Joins, and returns the answer and the token to come back with.
    pub(crate) async fn join(&mut self, name: &str, app_data: Value) -> (Value, String) {
        let room = self
            .request(json!({"method": "queryRoom", "target": "room"}))
            .await
            .unwrap();
        let mut join = join_request(name, app_data);
        join["rtpCapabilities"] = room["rtpCapabilities"].clone();
        let answer = self.request(join).await.unwrap();
        let session = self.find(|message| message["method"] == "weir-session").await.unwrap();
        (answer, session["data"]["resumeToken"].as_str().unwrap().to_owned())
    }

    /// Says that the connection is over, and waits for nothing.
    pub(crate) async fn say_goodbye(&mut self, code: Option<u16>) {
        let frame = code.map(|code| CloseFrame {
            code: code.into(),
            reason: "".into(),
        });
        soon("the socket", self.socket.send(Message::Close(frame)))
            .await
            .unwrap();
    }

    /// Waits for the connection's end, and returns the code with which the server closed it.
    pub(crate) async fn end(&mut self) -> Option<u16> {
        while self.receive().await.is_some() {}
        self.closed
    }

    /// Waits until the server has hung up, without reading anything.
    pub(crate) async fn until_hung_up(&mut self) {
        let pings = async { while self.socket.send(Message::Ping(Vec::new().into())).await.is_ok() {} };
        soon("the server to hang up", pings).await;
    }

    async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
        if let Some(index) = self.inbox.iter().position(&wanted) {
            return self.inbox.remove(index);
        }
        loop {
            let message = self.receive().await?;
            if wanted(&message) {
                return Some(message);
            }
            self.inbox.push_back(message);
        }
    }

    async fn receive(&mut self) -> Option<Value> {
        loop {
            match soon("a message", self.socket.next()).await? {
                Ok(Message::Text(text)) => {
                    let message: Value = serde_json::from_str(&text).unwrap();
                    if let Some(seq) = message["seq"].as_u64() {
                        assert_eq!(seq, self.seq + 1, "messages are numbered without a gap");
                        self.seq = seq;
                    }
                    return Some(message);
                }
                Ok(Message::Close(frame)) => self.closed = frame.map(|frame| frame.code.into()),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    }
}

/// A request to join, of somebody who can receive nothing.
pub(crate) fn join_request(name: &str, app_data: Value) -> Value {
    json!({
        "method": "join", "target": "room", "peerName": name, "rtpCapabilities": {"codecs": []},
        "spy": false, "appData": app_data
    })
}

/// A request for a plain transport.
pub(crate) fn create_transport(id: i64, direction: &str) -> Value {
    json!({
        "method": "createTransport", "target": "peer", "id": id, "direction": direction, "options": {},
        "plainRtpParameters": {}, "appData": {"media": direction}
    })
}

/// A request for a producer of opus.
pub(crate) fn create_microphone(id: i64, transport: i64, ssrc: u32) -> Value {
    json!({
        "method": "createProducer", "target": "peer", "id": id, "kind": "audio", "transportId": transport,
        "rtpParameters": {
            "muxId": "0",
            "codecs": [{"name": "opus", "mimeType": "audio/opus", "clockRate": 48000, "payloadType": 111, "channels": 2,
                        "rtcpFeedback": [], "parameters": {"useinbandfec": 1}}],
            "headerExtensions": [
                {"uri": "urn:ietf:params:rtp-hdrext:ssrc-audio-level", "id": 1},
                {"uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 2}
            ],
            "encodings": [{"ssrc": ssrc}],
            "rtcp": {"cname": "someone", "reducedSize": true, "mux": true}
        },
        "paused": false, "appData": {"what": "mic"}
    })
}

/// A request for a producer of VP8.
pub(crate) fn create_camera(id: i64, transport: i64, ssrc: u32) -> Value {
    json!({
        "method": "createProducer", "target": "peer", "id": id, "kind": "video", "transportId": transport,
        "rtpParameters": {
            "muxId": "1",
            "codecs": [
                {"name": "VP8", "mimeType": "video/VP8", "clockRate": 90000, "payloadType": 96, "parameters": {},
                 "rtcpFeedback": [{"type": "nack"}, {"type": "nack", "parameter": "pli"}, {"type": "goog-remb"}]},
                {"name": "rtx", "mimeType": "video/rtx", "clockRate": 90000, "payloadType": 97, "parameters": {"apt": 96}}
            ],
            "headerExtensions": [{"uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 2}],
            "encodings": [{"ssrc": ssrc, "rtx": {"ssrc": ssrc + 1}}],
            "rtcp": {"cname": "someone", "reducedSize": true, "mux": true}
        },
        "paused": false, "appData": {"what": "cam"}
    })
}

/// A request to receive a consumer.
pub(crate) fn enable_consumer(id: &Value, transport: i64) -> Value {
    json!({
        "method": "enableConsumer", "target": "peer", "id": id, "transportId": transport, "paused": false,
        "preferredProfile": "default"
    })
}
