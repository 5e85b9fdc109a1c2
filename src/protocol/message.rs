//! What clients say: the shapes of their requests and notifications, and what is wrong with those that have another.
//!
//! Members that are not known are passed over, as v2 does: clients put things of their own into their messages.

use std::io;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Error};
use serde_json::{Map, Value};
use weir_channel::message::Profile;

use super::ProtocolError;
use super::client_ids::ClientId;
use crate::Direction;

/// Declares messages of clients by their methods: an enum of what they say, and how to read one.
macro_rules! messages {
    ($(#[$meta:meta])+ $messages:ident: $envelope:ident { $($method:literal => $message:ident $(($shape:ty))?,)+ }) => {
        $(#[$meta])+
        #[derive(Debug)]
        pub(super) enum $messages {
            $($message $(($shape))?,)+
        }

        impl $messages {
            pub(super) fn parse(message: Value) -> Result<Self, ProtocolError> {
                let (method, message) = Envelope::$envelope.open(message)?;
                match method.as_str() {
                    $($method => Ok(Self::$message $((read::<$shape>(message)?))?),)+
                    _ => Err(Envelope::$envelope.unknown(&method)),
                }
            }
        }
    };
}

messages! {
    /// What a client asks of a room.
    RoomRequest: Request {
        "queryRoom" => QueryRoom,
        "join" => Join(Join),
    }
}

messages! {
    /// What a client asks of its peer.
    PeerRequest: Request {
        "createTransport" => CreateTransport(CreateTransport),
        "restartTransport" => RestartTransport(WithId),
        "createProducer" => CreateProducer(CreateProducer),
        "enableConsumer" => EnableConsumer(EnableConsumer),
    }
}

messages! {
    /// What a client tells its peer.
    ClientNotification: Notification {
        "leave" => Leave(Leave),
        "updateTransport" => UpdateTransport(UpdateTransport),
        "closeTransport" => CloseTransport(OfThing),
        "enableTransportStats" => EnableTransportStats(OfThing),
        "disableTransportStats" => DisableTransportStats(OfThing),
        "pauseProducer" => PauseProducer(OfThing),
        "resumeProducer" => ResumeProducer(OfThing),
        "closeProducer" => CloseProducer(OfThing),
        "enableProducerStats" => EnableProducerStats(OfThing),
        "disableProducerStats" => DisableProducerStats(OfThing),
        "pauseConsumer" => PauseConsumer(OfThing),
        "resumeConsumer" => ResumeConsumer(OfThing),
        "setConsumerPreferredProfile" => SetConsumerPreferredProfile(SetPreferredProfile),
        "enableConsumerStats" => EnableConsumerStats(OfThing),
        "disableConsumerStats" => DisableConsumerStats(OfThing),
    }
}

/// To become a peer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Join {
    #[serde(default)]
    pub(super) peer_name: Value,
    #[serde(default)]
    pub(super) rtp_capabilities: Value,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) spy: bool,
    #[serde(default, deserialize_with = "app_data")]
    pub(super) app_data: Value,
}

/// To have a transport.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateTransport {
    pub(super) id: Option<ClientId>,
    pub(super) direction: Option<Direction>,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) options: TransportOptions,
    /// Present, be it empty, for plain RTP.
    pub(super) plain_rtp_parameters: Option<PlainRtpParameters>,
    /// Who the client is, if it knows already. For WebRTC only.
    pub(super) dtls_parameters: Option<Value>,
    #[serde(default, deserialize_with = "app_data")]
    pub(super) app_data: Value,
}

/// How a transport should be reached. All else is the server's to decide: a client names no addresses and no ports.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TransportOptions {
    /// Unless it says no. WebRTC only, as the next and the last two.
    pub(super) udp: Option<bool>,
    pub(super) tcp: Option<bool>,
    /// For plain RTP, which family the transport shall have, when it has no remote yet.
    #[serde(default, rename = "preferIPv4", deserialize_with = "null_is_default")]
    pub(super) prefer_ipv4: bool,
    #[serde(default, rename = "preferIPv6", deserialize_with = "null_is_default")]
    pub(super) prefer_ipv6: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) prefer_udp: bool,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) prefer_tcp: bool,
}

/// Where a client receives plain RTP.
#[derive(Debug, Deserialize)]
pub(super) struct PlainRtpParameters {
    pub(super) ip: Option<String>,
    pub(super) port: Option<u16>,
}

/// Of something that the client numbered.
#[derive(Debug, Deserialize)]
pub(super) struct WithId {
    pub(super) id: ClientId,
}

/// To send a track.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CreateProducer {
    pub(super) id: Option<ClientId>,
    #[serde(default)]
    pub(super) kind: Value,
    #[serde(default)]
    pub(super) transport_id: Value,
    #[serde(default)]
    pub(super) rtp_parameters: Value,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) paused: bool,
    #[serde(default, deserialize_with = "app_data")]
    pub(super) app_data: Value,
}

/// To receive a track.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EnableConsumer {
    pub(super) id: ClientId,
    #[serde(default)]
    pub(super) transport_id: Value,
    #[serde(default, deserialize_with = "null_is_default")]
    pub(super) paused: bool,
    pub(super) preferred_profile: Option<Profile>,
}

/// That it is gone.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Leave {
    #[serde(default, deserialize_with = "app_data")]
    pub(super) app_data: Value,
}

/// Of a transport, a producer or a consumer.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OfThing {
    pub(super) id: ClientId,
    #[serde(default, deserialize_with = "app_data")]
    pub(super) app_data: Value,
    /// Between reports of statistics, in milliseconds.
    pub(super) interval: Option<f64>,
}

/// What it now knows of a transport.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UpdateTransport {
    pub(super) id: ClientId,
    pub(super) plain_rtp_parameters: Option<PlainRtpParameters>,
    pub(super) dtls_parameters: Option<Value>,
}

/// How much of a simulcast it wants.
#[derive(Debug, Deserialize)]
pub(super) struct SetPreferredProfile {
    pub(super) id: ClientId,
    pub(super) profile: Profile,
}

/// Which of the two a message should be.
#[derive(Clone, Copy)]
enum Envelope {
    Request,
    Notification,
}

impl Envelope {
    fn noun(self) -> &'static str {
        match self {
            Self::Request => "request",
            Self::Notification => "notification",
        }
    }

    /// The method of a message, and the message.
    fn open(self, message: Value) -> Result<(String, Map<String, Value>), ProtocolError> {
        let noun = self.noun();
        let Value::Object(mut message) = message else {
            return Err(ProtocolError::type_error(format!("wrong/missing {noun}")));
        };
        let is_notification = message.get("notification") == Some(&Value::Bool(true));
        if is_notification != matches!(self, Self::Notification) {
            return Err(ProtocolError::type_error(format!("not a {noun}")));
        }
        match message.remove("method") {
            Some(Value::String(method)) => Ok((method, message)),
            _ => Err(ProtocolError::type_error(format!("wrong/missing {noun} method"))),
        }
    }

    fn unknown(self, method: &str) -> ProtocolError {
        let shown: String = method.chars().take(SHOWN_CHARS_MAX).collect();
        ProtocolError::error(format!("unknown {} method \"{shown}\"", self.noun()))
    }
}

/// Names are shown only as far as it takes to recognise them.
const SHOWN_CHARS_MAX: usize = 64;

fn read<T: DeserializeOwned>(message: Map<String, Value>) -> Result<T, ProtocolError> {
    serde_path_to_error::deserialize(Value::Object(message)).map_err(|error| {
        let path = error.path().to_string();
        let shown: String = error.inner().to_string().chars().take(4 * SHOWN_CHARS_MAX).collect();
        match path.as_str() {
            "." => ProtocolError::type_error(shown),
            path => ProtocolError::type_error(format!("{path}: {shown}")),
        }
    })
}

/// Bytes of JSON that a client may keep with something. It is told to everybody else in the room, and kept with each.
const APP_DATA_BYTES_MAX: usize = 8_192;

/// Values in it: each number, text, list and object, whatever is inside of what. In memory each takes 32 bytes and more, so
/// that by bytes of JSON alone `[0,0,0,…]` would grow sixteenfold.
const APP_DATA_VALUES_MAX: usize = 1_000;

/// Counts bytes that are written, and keeps none.
struct Bytes(usize);

impl io::Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn app_data<'de, D: serde::Deserializer<'de>>(reader: D) -> Result<Value, D::Error> {
    let value = Value::deserialize(reader)?;
    let mut bytes = Bytes(0);
    serde_json::to_writer(&mut bytes, &value).map_err(D::Error::custom)?;
    if bytes.0 > APP_DATA_BYTES_MAX {
        return Err(D::Error::custom(format!(
            "has {} bytes of JSON; at most {APP_DATA_BYTES_MAX} are kept",
            bytes.0
        )));
    }
    match values(&value) {
        0..=APP_DATA_VALUES_MAX => Ok(value),
        more => Err(D::Error::custom(format!(
            "has {more} values; at most {APP_DATA_VALUES_MAX} are kept"
        ))),
    }
}

/// How many values there are in one, itself included.
fn values(value: &Value) -> usize {
    let mut count = 0;
    let mut unseen = vec![value];
    while let Some(value) = unseen.pop() {
        count += 1;
        match value {
            Value::Array(inner) => unseen.extend(inner),
            Value::Object(inner) => unseen.extend(inner.values()),
            _ => {}
        }
    }
    count
}

/// JavaScript writes null where it means that nothing is said.
fn null_is_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(reader: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(reader)?.unwrap_or_default())
}
