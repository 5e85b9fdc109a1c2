//! DTLS-SRTP (RFC 5764): the handshake that proves who the peer is and yields the keys of its media.
//!
//! Records, messages and their order are an engine's (`engine`). Here is what the peer's certificate must be
//! ([`fingerprint`]), what ours is ([`certificate`]), when a session starts, fails and ends ([`session`]), and in which
//! form the keys leave it ([`keys`]).

pub mod certificate;
pub mod clock;
mod engine;
pub mod failure;
pub mod fingerprint;
pub mod keys;
pub mod session;
pub mod settings;
mod signature;

pub use certificate::{Certificate, InvalidCertificate};
pub use clock::Clock;
pub use failure::Failure;
pub use fingerprint::{Fingerprint, HashFunction};
pub use keys::{MasterKey, SrtpKeys, SrtpProfile};
pub use session::{Context, RefusedParameters, RemoteParameters, RemoteRole, Session, State};
pub use settings::{Settings, Versions};

/// The role in the DTLS handshake.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// The side that sends the first message (`setup:active`).
    Client,
    /// The side that waits for it (`setup:passive`), and that chooses how media is protected.
    Server,
}
