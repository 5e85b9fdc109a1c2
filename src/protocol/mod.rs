//! The mediasoup protocol: the requests and notifications by which a remote client controls its part of a room
//! (differences §1.4).
//!
//! [`Room::receive_request`](crate::Room::receive_request) takes what a client says to a room,
//! [`Peer::receive_request`](crate::Peer::receive_request) and
//! [`Peer::receive_notification`](crate::Peer::receive_notification) what it says as a peer of one, and
//! [`Peer::client_message`](crate::Peer::client_message) writes what it is told. How these messages travel is the
//! application's affair; `weir serve` carries them over WebSockets ([`crate::http`]).
//!
//! Clients choose numbers for their transports and producers. Each peer has a table of its own for them, so that whatever
//! number a client says, it can mean nothing but what is that client's.

mod client_ids;
mod dtls;
mod error;
mod fan_out;
mod message;
mod outgoing;
mod peer;
mod plain_remotes;
mod room;
#[cfg(test)]
mod tests;

pub(crate) use self::client_ids::ClientIds;
pub use self::error::{ErrorClass, ProtocolError};
pub(crate) use self::fan_out::FanOut;
#[cfg(feature = "http")]
pub(crate) use self::outgoing::consumer_json;
pub use self::plain_remotes::PlainRemotes;
pub use self::room::RoomResponse;
#[cfg(feature = "http")]
pub(crate) use self::room::{Grants, RoomAnswer};

use std::sync::Mutex;

use crate::Peer;

/// What the protocol keeps with each peer, for as long as the peer lives: longer than any one connection of its client.
#[derive(Debug, Default)]
struct ClientState {
    pub(crate) ids: Mutex<ClientIds>,
    pub(crate) plain_remotes: Mutex<PlainRemotes>,
    pub(crate) fan_out: Mutex<FanOut>,
}

impl Peer {
    fn client_state(&self) -> &ClientState {
        self.kept()
    }
}
