//! What a client may ask of a room before it is a peer, and how it becomes one.

use serde_json::{Value, json};

use super::ProtocolError;
use super::message::{Join, RoomRequest};
use super::outgoing::consumer_json;
use crate::server::known_capabilities;
use crate::{Peer, PeerInfo, PeerOptions, Room, RtpCapabilities};

/// The answer to a request to a room.
#[derive(Clone, Debug)]
pub struct RoomResponse {
    /// What the client is told.
    pub body: Value,
    /// Who it has become, if it asked to join.
    pub joined: Option<Peer>,
}

/// What a client may do in a room that it joins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Grants {
    /// It may send media to the room.
    pub(crate) publish: bool,
    /// It is sent what others send.
    pub(crate) subscribe: bool,
}

impl Grants {
    /// Everything.
    pub(crate) const ALL: Self = Self {
        publish: true,
        subscribe: true,
    };
}

/// The same before it is JSON: what many clients are told is in it once for all of them.
pub(crate) enum RoomAnswer {
    /// This is all.
    Told(Value),
    /// The client has become this peer, and is told of the others.
    Joined(Peer, Vec<PeerInfo>),
}

impl From<RoomAnswer> for RoomResponse {
    fn from(answer: RoomAnswer) -> Self {
        match answer {
            RoomAnswer::Told(body) => Self { body, joined: None },
            RoomAnswer::Joined(peer, others) => {
                let others = others.iter().map(|other| {
                    json!({
                        "name": other.name,
                        "appData": other.app_data,
                        "consumers": other.consumers.iter().map(consumer_json).collect::<Vec<_>>(),
                    })
                });
                Self {
                    body: json!({ "peers": others.collect::<Vec<_>>() }),
                    joined: Some(peer),
                }
            }
        }
    }
}

impl Room {
    /// Answers a client's request to the room: `queryRoom` or `join`.
    ///
    /// # Errors
    /// What the client is to be told instead.
    pub async fn receive_request(&self, request: Value) -> Result<RoomResponse, ProtocolError> {
        self.answer_request(request, Grants::ALL).await.map(RoomResponse::from)
    }

    /// The same, with an answer that is not written yet.
    pub(crate) async fn answer_request(&self, request: Value, grants: Grants) -> Result<RoomAnswer, ProtocolError> {
        if self.closed() {
            return Err(ProtocolError::invalid_state("Room closed"));
        }
        match RoomRequest::parse(request)? {
            RoomRequest::QueryRoom => Ok(RoomAnswer::Told(json!({
                "rtpCapabilities": self.rtp_capabilities(),
                "mandatoryCodecPayloadTypes": [],
            }))),
            RoomRequest::Join(join) => self.join_client(join, grants),
        }
    }

    fn join_client(&self, join: Join, grants: Grants) -> Result<RoomAnswer, ProtocolError> {
        let Value::String(name) = join.peer_name else {
            return Err(ProtocolError::type_error("peerName must be a string"));
        };
        if name.is_empty() {
            return Err(ProtocolError::type_error("peerName must not be empty"));
        }
        // Before what it can do, as v2: a client that is there twice should hear of that.
        if self.peer(&name).is_some() {
            return Err(ProtocolError::error(format!("duplicated Peer [peerName:\"{name}\"]")));
        }
        let capabilities = known_capabilities(join.rtp_capabilities);
        let rtp_capabilities: RtpCapabilities = serde_path_to_error::deserialize(capabilities).map_err(|error| {
            ProtocolError::type_error(format!("rtpCapabilities.{}: {}", error.path(), error.inner()))
        })?;
        let joined = self.join(PeerOptions {
            name,
            rtp_capabilities,
            spy: join.spy,
            publish: grants.publish,
            subscribe: grants.subscribe,
            app_data: join.app_data,
        })?;
        Ok(RoomAnswer::Joined(joined.peer, joined.others))
    }
}
