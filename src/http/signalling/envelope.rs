//! What is around the protocol's messages on a WebSocket (pure): which request an answer belongs to, and the messages'
//! numbers. It is that of the protoo protocol, which mediasoup's own applications use.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::protocol::{ErrorClass, ProtocolError};

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
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Outgoing(Value);

impl Outgoing {
    pub(super) fn response(id: u64, result: Result<Value, ProtocolError>) -> Self {
        Self(match result {
            Ok(data) => json!({"response": true, "id": id, "ok": true, "data": data}),
            Err(error) => json!({
                "response": true,
                "id": id,
                "ok": false,
                "errorCode": code_of(error.class),
                "errorName": error.class.name(),
                "errorReason": error.to_string(),
            }),
        })
    }

    pub(super) fn notification(message: Value) -> Self {
        Self(json!({"notification": true, "method": NOTIFICATION, "data": message}))
    }

    /// How the client can come back.
    pub(super) fn session(token: &str, grace_ms: u64) -> Self {
        let data = json!({"resumeToken": token, "graceMs": grace_ms});
        Self(json!({"notification": true, "method": SESSION, "data": data}))
    }

    /// The text of a message that is one of the session's.
    pub(super) fn numbered(mut self, seq: u64) -> String {
        self.0["seq"] = seq.into();
        self.0.to_string()
    }

    /// The text of a message that belongs to the connection only.
    pub(super) fn unnumbered(self) -> String {
        self.0.to_string()
    }
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
    use super::*;

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
        let ok = Outgoing::response(3, Ok(json!({"peers": []}))).numbered(9);
        assert_eq!(
            serde_json::from_str::<Value>(&ok).unwrap(),
            json!({"response": true, "id": 3, "ok": true, "data": {"peers": []}, "seq": 9})
        );
        let error = ProtocolError {
            class: ErrorClass::TypeError,
            message: "not a request".to_owned(),
        };
        let refusal = Outgoing::response(4, Err(error)).unnumbered();
        assert_eq!(
            serde_json::from_str::<Value>(&refusal).unwrap(),
            json!({
                "response": true, "id": 4, "ok": false, "errorCode": 400, "errorName": "TypeError",
                "errorReason": "TypeError: not a request"
            })
        );
    }
}
