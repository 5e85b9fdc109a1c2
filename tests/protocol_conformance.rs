//! A conversation that was recorded with a real mediasoup 2.6.19, its own client and Chromium, held again with Weir.
//!
//! `tests/data/mediasoup-v2-transcript.jsonl` is the recording, one message a line, without times: what clients ask
//! (`request`) and tell (`tells`), what they are answered (`response`) and told (`told`), and what the application did in
//! between (`app`). Left out are messages that only WebRTC transports have, those that media must flow for (effective
//! profiles, statistics), and what a client asked after it had left; WebRTC transports are plain ones. Each client must see
//! the same messages in the same order. What may differ is in this file, and in docs/differences-from-mediasoup-v2.md.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod loopback;
mod signalling;

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};
use weir::{Consumer, ExtensionUri, Peer, Producer, Profile, Room, RoomOptions, Transport};

use control::{Control, soon};
use signalling::Caller;

/// Refusals that Weir words otherwise: v2's text, and the beginning of Weir's.
const REWORDED: [(&str, &str); 5] = [
    (
        "Error: invalid media kind [kind:depth]",
        "TypeError: unsupported kind: depth",
    ),
    ("TypeError: WebRtcTransport not found", "TypeError: Transport not found"),
    (
        "Error: empty rtpParameters.encodings",
        "Error: encodings must list 1 to 3 streams",
    ),
    (
        "Error: ssrc already exists in RTP listener [ssrc:3087771669]",
        "Error: the worker refused: SSRC 3087771669",
    ),
    (
        "Error: invalid single encoding with non default profile",
        "Error: a lone encoding must not carry a profile",
    ),
];

/// Whether a message is one of those that the recording is taken without.
fn is_left_out(message: &Value) -> bool {
    let method = |message: &Value| message["method"].as_str().unwrap_or_default().to_owned();
    method(message) == "weir-session" || method(&message["data"]) == "consumerEffectiveProfileChanged"
}

/// What differs on purpose, or from run to run, taken out of a message.
fn normal(mut message: Value) -> Value {
    forget(&mut message);
    message
}

fn forget(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(forget),
        Value::Object(members) => {
            for (name, member) in members.iter_mut() {
                match name.as_str() {
                    "ssrc" | "port" => *member = Value::Null,
                    // Consumers list only what is relayed.
                    "headerExtensions" => member.as_array_mut().unwrap().retain(|extension| {
                        let is_rid = extension["uri"] == "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
                        let is_consumers = !extension["id"].is_null();
                        !(is_rid && is_consumers)
                    }),
                    _ => forget(member),
                }
            }
        }
        _ => {}
    }
}

/// The recording's clients and things, as they are here.
struct Stage {
    control: Control,
    room: Option<Room>,
    clients: HashMap<String, Caller>,
    /// (client, the recording's id of a request) → the id here.
    requests: HashMap<(String, u64), u64>,
    /// The recording's consumers → those here.
    consumers: HashMap<u64, Value>,
    /// By client, the consumers that were told to be closed: there, and here. Their order within one cause differs.
    closed: HashMap<String, (BTreeSet<String>, BTreeSet<String>)>,
}

impl Stage {
    fn room(&self) -> &Room {
        self.room.as_ref().expect("the recording begins with a room")
    }

    fn peer(&self, name: &str) -> Peer {
        self.room().peer(name).unwrap_or_else(|| panic!("{name} is a peer"))
    }

    async fn client(&mut self, name: &str) -> &mut Caller {
        if !self.clients.contains_key(name) {
            let client = Caller::connect(&self.control.path, self.room().id().0, name).await;
            self.clients.insert(name.to_owned(), client);
        }
        self.clients.get_mut(name).unwrap()
    }

    async fn next(&mut self, name: &str) -> Value {
        loop {
            let message = self.client(name).await.next().await.expect("the client is connected");
            if !is_left_out(&message) {
                return message;
            }
        }
    }

    /// The same consumer here.
    fn consumer_id(&self, recorded: &Value) -> Value {
        let here = recorded.as_u64().and_then(|id| self.consumers.get(&id));
        here.unwrap_or(recorded).clone()
    }

    /// The one producer of a peer that its client gave this number. Numbers are the client's; here things are found by what
    /// only they have.
    fn producer(&self, name: &str, step: &Value) -> Producer {
        let wanted = match step["id"].as_u64().unwrap() {
            83_003_233 => json!({"what": "mic", "n": 0}),
            _ => return self.peer(name).producers().pop().unwrap(),
        };
        let mut producers = self.peer(name).producers().into_iter();
        producers.find(|producer| producer.app_data() == wanted).unwrap()
    }

    fn consumer(&self, name: &str, step: &Value) -> Consumer {
        let id = self.consumer_id(&step["id"]).as_u64().unwrap();
        self.peer(name).consumer(weir::ConsumerId(id)).unwrap()
    }

    fn transport(&self, name: &str) -> Transport {
        self.peer(name).transports().remove(0)
    }

    /// Does what the application did.
    async fn act(&mut self, action: &str, step: &Value) {
        let name = step["peer"].as_str().unwrap_or_default();
        let app_data = step["appData"].clone();
        let done = match action {
            "room.create" => {
                let codecs = json!([
                    {"kind": "audio", "name": "opus", "mimeType": "audio/opus", "clockRate": 48000, "channels": 2,
                     "parameters": {"useinbandfec": 1}},
                    {"kind": "video", "name": "VP8", "mimeType": "video/VP8", "clockRate": 90000},
                    {"kind": "video", "name": "H264", "mimeType": "video/H264", "clockRate": 90000, "parameters":
                        {"packetization-mode": 1, "profile-level-id": "42e01f", "level-asymmetry-allowed": 1}}
                ]);
                let options = RoomOptions {
                    media_codecs: Some(serde_json::from_value(codecs).unwrap()),
                    // v2's.
                    header_extensions: Some(vec![
                        ExtensionUri::AudioLevel,
                        ExtensionUri::TransmissionOffset,
                        ExtensionUri::AbsSendTime,
                        ExtensionUri::VideoOrientation,
                        ExtensionUri::Mid,
                        ExtensionUri::RtpStreamId,
                    ]),
                    ..RoomOptions::default()
                };
                self.clients.clear();
                let room = soon("the room", self.control.server.create_room(options)).await;
                self.room = Some(room.unwrap());
                Ok(())
            }
            "room.close" => self.room().close(app_data).await,
            "peer.close" => self.peer(name).close(app_data).await,
            "transport.close" => self.transport(name).close(app_data).await,
            "producer.pause" => self.producer(name, step).pause(app_data).await,
            "producer.resume" => self.producer(name, step).resume(app_data).await,
            "producer.close" => self.producer(name, step).close(app_data).await,
            "consumer.pause" => self.consumer(name, step).pause(app_data).await,
            "consumer.resume" => self.consumer(name, step).resume(app_data).await,
            "consumer.setPreferredProfile" => {
                let profile: Profile = serde_json::from_value(app_data).unwrap();
                self.consumer(name, step).set_preferred_profile(profile).await
            }
            other => panic!("{other}?"),
        };
        done.unwrap();
    }

    /// Tells what a client told, and waits until that has come to something: nothing answers it.
    async fn tell(&mut self, name: &str, mut body: Value) {
        let method = body["method"].as_str().unwrap().to_owned();
        if method.ends_with("Consumer") || method == "setConsumerPreferredProfile" {
            body["id"] = self.consumer_id(&body["id"]);
        }
        if method == "updateTransport" {
            body["plainRtpParameters"]["port"] = json!(9);
        }
        self.client(name).await.notify(body.clone()).await;
        if body["notification"] != true || body["id"].as_u64() < Some(1_000) && method != "leave" {
            return;
        }
        let own = name != "bob" || body["_who"].is_null();
        let settled = || match method.as_str() {
            "pauseProducer" if own => self.producer(name, &body).remotely_paused(),
            "resumeProducer" if own => !self.producer(name, &body).remotely_paused(),
            "pauseConsumer" | "resumeConsumer" => {
                let id = weir::ConsumerId(body["id"].as_u64().unwrap());
                let consumer = self.peer(name).consumer(id).unwrap();
                consumer.remotely_paused() == (method == "pauseConsumer")
            }
            _ => true,
        };
        soon(&method, async {
            while !settled() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn ask(&mut self, name: &str, request: u64, mut body: Value) {
        if body["method"] == "enableConsumer" {
            body["id"] = self.consumer_id(&body["id"]);
        }
        let id = self.client(name).await.begin("mediasoup-request", body).await;
        self.requests.insert((name.to_owned(), request), id);
    }

    /// The client must be answered this next.
    async fn expect_response(&mut self, name: &str, request: u64, step: &Value) {
        let message = self.next(name).await;
        let id = self.requests[&(name.to_owned(), request)];
        assert_eq!(
            (&message["response"], &message["id"]),
            (&json!(true), &json!(id)),
            "{step}\n{message}"
        );
        if let Some(error) = step["error"].as_str() {
            let expected = REWORDED
                .iter()
                .find(|(theirs, _)| *theirs == error)
                .map_or(error, |(_, ours)| ours);
            let reason = message["errorReason"].as_str().unwrap_or_default();
            assert!(reason.starts_with(expected), "{step}\n{message}");
            return;
        }
        assert_eq!(message["ok"], true, "{step}\n{message}");
        let (mut expected, got) = (step["body"].clone(), message["data"].clone());
        for (index, peer) in expected
            .pointer_mut("/peers")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
            .enumerate()
        {
            for (place, consumer) in peer["consumers"].as_array_mut().into_iter().flatten().enumerate() {
                let here = got["peers"][index]["consumers"][place]["id"].clone();
                self.consumers.insert(consumer["id"].as_u64().unwrap(), here.clone());
                consumer["id"] = here;
            }
        }
        assert_eq!(normal(got), normal(expected), "the answer to {name}'s {request}");
    }

    /// The client must be told this next.
    async fn expect_told(&mut self, name: &str, mut expected: Value) {
        let message = self.next(name).await;
        let got = message["data"].clone();
        assert_eq!(
            message["method"], "mediasoup-notification",
            "{name}: {expected}\n{message}"
        );
        let method = expected["method"].as_str().unwrap().to_owned();
        if method == "newConsumer" {
            self.consumers
                .insert(expected["id"].as_u64().unwrap(), got["id"].clone());
        }
        if method == "consumerClosed" {
            assert_eq!(
                (&got["method"], &got["peerName"]),
                (&expected["method"], &expected["peerName"])
            );
            let expected = self.consumer_id(&expected["id"]).to_string();
            let (there, here) = self.closed.entry(name.to_owned()).or_default();
            there.insert(expected);
            here.insert(got["id"].to_string());
            return;
        }
        if method.contains("Consumer") || method.starts_with("consumer") {
            expected["id"] = self.consumer_id(&expected["id"]);
        }
        assert_eq!(normal(got), normal(expected), "what {name} is told");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_recorded_conversation_goes_the_same_way() {
    let recording = include_str!("data/mediasoup-v2-transcript.jsonl");
    let mut stage = Stage {
        control: Control::start().await,
        room: None,
        clients: HashMap::new(),
        requests: HashMap::new(),
        consumers: HashMap::new(),
        closed: HashMap::new(),
    };
    let mut compared = 0;
    for line in recording.lines() {
        let step: Value = serde_json::from_str(line).unwrap();
        let name = step["peer"].as_str().unwrap_or_default();
        if let Some(action) = step["app"].as_str() {
            stage.act(action, &step).await;
        } else if let Some(request) = step["request"].as_u64() {
            stage.ask(name, request, step["body"].clone()).await;
        } else if !step["tells"].is_null() {
            stage.tell(name, step["tells"].clone()).await;
        } else if let Some(request) = step["response"].as_u64() {
            stage.expect_response(name, request, &step).await;
            compared += 1;
        } else {
            stage.expect_told(name, step["told"].clone()).await;
            compared += 1;
        }
    }
    for (name, (there, here)) in &stage.closed {
        assert_eq!(there, here, "the consumers that {name} was told are closed");
    }
    assert!(compared > 100, "the recording is all there");
    stage.control.close().await;
}
