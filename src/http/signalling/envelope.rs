//! What is around the protocol's messages on a WebSocket (pure): which request an answer belongs to, and the messages'
//! numbers. It is that of the protoo protocol, which mediasoup's own applications use.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::text::{SharedTexts, Text, TextWriter};
use crate::protocol::{ErrorClass, ProtocolError, consumer_json};
use crate::{Peer, PeerInfo, PeerNotification};

/// The method under which mediasoup requests travel.
const REQUEST: &str = "mediasoup-request";
/// The method under which mediasoup notifications travel, both ways.
const NOTIFICATION: &str = "mediasoup-notification";
/// The method of a client that comes back.
const RESUME: &str = "weir-resume";
/// The method that tells a client how it can come back.
const SESSION: &str = "weir-session";

/// What a client says.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Incoming {
    /// To be answered under this id.
    Request { id: u64, request: Value },
    /// Not to be answered.
    Notification(Value),
    /// The client of a lost connection is back. `seq`: the number of the last message that it has; `None`: it does not
    /// count.
    Resume { id: u64, token: String, seq: Option<u64> },
    /// A request that is none of these.
    Unknown { id: u64, method: String },
}

#[derive(Deserialize)]
struct Message {
    #[serde(default)]
    request: bool,
    #[serde(default)]
    notification: bool,
    id: Option<u64>,
    method: Option<String>,
    #[serde(default)]
    data: Value,
}

#[derive(Deserialize)]
struct Resume {
    token: String,
    seq: Option<u64>,
}

impl Incoming {
    /// Reads a message; `Err` says why it is none.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let message: Message = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let method = message.method.ok_or("a message needs a method")?;
        match (message.request, message.notification) {
            (true, false) => {}
            (false, true) if method == NOTIFICATION => return Ok(Self::Notification(message.data)),
            (false, true) => return Err(format!("notifications are sent as {NOTIFICATION}")),
            _ => return Err("a message is either a request or a notification".to_owned()),
        }
        let id = message.id.ok_or("a request needs an id, a whole number")?;
        match method.as_str() {
            REQUEST => Ok(Self::Request {
                id,
                request: message.data,
            }),
            RESUME => {
                let Resume { token, seq } = Resume::deserialize(message.data).map_err(|error| error.to_string())?;
                Ok(Self::Resume { id, token, seq })
            }
            _ => Ok(Self::Unknown { id, method }),
        }
    }
}

/// What a client is told; becomes text with its number.
#[derive(Debug)]
pub(super) struct Outgoing {
    envelope: Map<String, Value>,
    data: Data,
}

/// The member `data`.
#[derive(Debug)]
enum Data {
    None,
    Value(Value),
    /// An object, and its member `appData`.
    Object(Map<String, Value>, Arc<Value>),
    /// The others in the room.
    Others(Vec<PeerInfo>),
}

impl Outgoing {
    fn new(envelope: Value, data: Data) -> Self {
        let envelope = match envelope {
            Value::Object(envelope) => envelope,
            _ => Map::new(),
        };
        Self { envelope, data }
    }

    pub(super) fn response(id: u64, result: Result<Value, ProtocolError>) -> Self {
        match result {
            Ok(data) => Self::new(json!({"response": true, "id": id, "ok": true}), Data::Value(data)),
            Err(error) => {
                let envelope = json!({
                    "response": true,
                    "id": id,
                    "ok": false,
                    "errorCode": code_of(error.class),
                    "errorName": error.class.name(),
                    "errorReason": error.to_string(),
                });
                Self::new(envelope, Data::None)
            }
        }
    }

    /// The answer to a client that has joined.
    pub(super) fn joined(id: u64, others: Vec<PeerInfo>) -> Self {
        Self::new(json!({"response": true, "id": id, "ok": true}), Data::Others(others))
    }

    /// What a peer's client is told unasked.
    pub(super) fn notification(peer: &Peer, mut notification: PeerNotification) -> Self {
        let app_data = take_app_data(&mut notification);
        let data = match (peer.client_message(&notification), app_data) {
            (Value::Object(mut message), Some(app_data)) => {
                message.remove("appData");
                Data::Object(message, app_data)
            }
            (message, _) => Data::Value(message),
        };
        Self::new(json!({"notification": true, "method": NOTIFICATION}), data)
    }

    /// How the client can come back.
    pub(super) fn session(token: &str, grace_ms: u64) -> Self {
        let data = json!({"resumeToken": token, "graceMs": grace_ms});
        Self::new(json!({"notification": true, "method": SESSION}), Data::Value(data))
    }

    /// The text of a message that is one of the session's.
    pub(super) fn numbered(mut self, seq: u64, shared: &SharedTexts) -> Text {
        self.envelope.insert("seq".to_owned(), seq.into());
        self.unnumbered(shared)
    }

    /// The text of a message that belongs to the connection only.
    pub(super) fn unnumbered(self, shared: &SharedTexts) -> Text {
        let mut writer = TextWriter::new(shared);
        // Never empty, so what follows is one more member.
        let envelope = Value::Object(self.envelope).to_string();
        writer.raw(envelope.strip_suffix('}').unwrap_or_default());
        match self.data {
            Data::None => {}
            Data::Value(data) => _ = writer.raw(",\"data\":").value(&data),
            Data::Object(members, app_data) => _ = writer.raw(",\"data\":").object(&members, APP_DATA, &app_data),
            Data::Others(others) => write_others(writer.raw(",\"data\":"), &others),
        }
        writer.raw("}");
        writer.finish()
    }
}

const APP_DATA: &str = "appData";

/// Takes out of a notification the app data that other clients are told, too. Where there is none, the notification says itself whether
/// that is said.
fn take_app_data(notification: &mut PeerNotification) -> Option<Arc<Value>> {
    let app_data = match notification {
        PeerNotification::NewPeer { app_data, .. } | PeerNotification::PeerClosed { app_data, .. } => app_data,
        PeerNotification::NewConsumer(consumer) => &mut consumer.app_data,
        _ => return None,
    };
    (!app_data.is_null()).then(|| std::mem::take(app_data))
}

/// As [`RoomResponse`](crate::RoomResponse) has it.
fn write_others(writer: &mut TextWriter<'_>, others: &[PeerInfo]) {
    writer.raw("{\"peers\":[");
    for (index, other) in others.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        writer
            .raw(comma)
            .raw("{\"name\":")
            .value(&other.name)
            .raw(",\"consumers\":[");
        for (index, consumer) in other.consumers.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let app_data = Arc::clone(&consumer.app_data);
            let mut consumer = consumer.clone();
            consumer.app_data = Arc::default();
            let Value::Object(mut members) = consumer_json(&consumer) else {
                continue;
            };
            members.remove(APP_DATA);
            writer.raw(comma).object(&members, APP_DATA, &app_data);
        }
        writer.raw("],\"appData\":").shared(&other.app_data).raw("}");
    }
    writer.raw("]}");
}

/// As HTTP would say it.
fn code_of(class: ErrorClass) -> u16 {
    match class {
        ErrorClass::TypeError => 400,
        ErrorClass::InvalidStateError => 409,
        ErrorClass::Error => 500,
    }
}

#[cfg(test)]
mod tests {
    use weir_channel::id::ConsumerId;
    use weir_channel::message::{MediaKind, Profile};

    use super::*;
    use crate::ConsumerInfo;

    #[test]
    fn what_clients_say_is_understood() {
        let check = |text: &str, expected: Incoming| assert_eq!(Incoming::parse(text), Ok(expected), "{text}");
        check(
            r#"{"request":true,"id":7,"method":"mediasoup-request","data":{"method":"queryRoom","target":"room"}}"#,
            Incoming::Request {
                id: 7,
                request: json!({"method": "queryRoom", "target": "room"}),
            },
        );
        check(
            r#"{"notification":true,"method":"mediasoup-notification","data":5,"more":1}"#,
            Incoming::Notification(json!(5)),
        );
        check(
            r#"{"request":true,"id":1,"method":"weir-resume","data":{"token":"t","seq":4}}"#,
            Incoming::Resume {
                id: 1,
                token: "t".to_owned(),
                seq: Some(4),
            },
        );
        check(
            r#"{"request":true,"id":1,"method":"chat","data":{}}"#,
            Incoming::Unknown {
                id: 1,
                method: "chat".to_owned(),
            },
        );
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        let rows = [
            ("", "EOF"),
            ("[1,2]", "invalid type"),
            ("{}", "needs a method"),
            (
                r#"{"method":"mediasoup-request"}"#,
                "either a request or a notification",
            ),
            (
                r#"{"request":true,"notification":true,"method":"mediasoup-request"}"#,
                "either a request or a notification",
            ),
            (r#"{"request":true,"method":"mediasoup-request"}"#, "needs an id"),
            (
                r#"{"request":true,"id":-1,"method":"mediasoup-request"}"#,
                "invalid value",
            ),
            (
                r#"{"request":true,"id":"7","method":"mediasoup-request"}"#,
                "invalid type",
            ),
            (r#"{"request":1,"id":7,"method":"mediasoup-request"}"#, "invalid type"),
            (
                r#"{"notification":true,"method":"chat"}"#,
                "sent as mediasoup-notification",
            ),
            (
                r#"{"request":true,"id":7,"method":"weir-resume","data":{}}"#,
                "missing field `token`",
            ),
            (
                r#"{"request":true,"id":7,"method":"weir-resume"}"#,
                "invalid type: null",
            ),
        ];
        for (text, complaint) in rows {
            let error = Incoming::parse(text).unwrap_err();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[test]
    fn answers_say_what_they_answer_and_refusals_why() {
        let shared = SharedTexts::new(&Arc::default());
        let ok = Outgoing::response(3, Ok(json!({"peers": []}))).numbered(9, &shared);
        assert_eq!(
            serde_json::from_str::<Value>(&ok.to_string()).unwrap(),
            json!({"response": true, "id": 3, "ok": true, "data": {"peers": []}, "seq": 9})
        );
        let error = ProtocolError {
            class: ErrorClass::TypeError,
            message: "not a request".to_owned(),
        };
        let refusal = Outgoing::response(4, Err(error)).unnumbered(&shared);
        assert_eq!(
            serde_json::from_str::<Value>(&refusal.to_string()).unwrap(),
            json!({
                "response": true, "id": 4, "ok": false, "errorCode": 400, "errorName": "TypeError",
                "errorReason": "TypeError: not a request"
            })
        );
    }

    #[test]
    fn who_joins_is_told_the_same_of_the_others_as_by_the_library() {
        let of = |name: &str, bytes: usize, consumers| PeerInfo {
            name: name.into(),
            app_data: Arc::new(json!({"is \"named\"": name, "and": "x".repeat(bytes)})),
            consumers,
        };
        let consumer = |id: u64, app_data: Value| ConsumerInfo {
            id: ConsumerId(id),
            kind: MediaKind::Audio,
            rtp_parameters: Arc::default(),
            paused: false,
            preferred_profile: Profile::High,
            effective_profile: None,
            app_data: Arc::new(app_data),
            peer_name: "b\u{202e}".into(),
        };
        let both = vec![consumer(1, json!("y".repeat(1_000))), consumer(2, Value::Null)];
        let shared = SharedTexts::new(&Arc::default());
        for others in [vec![], vec![of("a", 5, vec![]), of("b\u{202e}", 5_000, both)]] {
            let expected = others.iter().map(|other| {
                json!({
                    "name": other.name,
                    "appData": other.app_data,
                    "consumers": other.consumers.iter().map(consumer_json).collect::<Vec<_>>(),
                })
            });
            let data = json!({"peers": expected.collect::<Vec<_>>()});
            let text = Outgoing::joined(7, others).numbered(2, &shared);
            assert_eq!(
                serde_json::from_str::<Value>(&text.to_string()).unwrap(),
                json!({"response": true, "id": 7, "ok": true, "data": data, "seq": 2})
            );
        }
    }
}
