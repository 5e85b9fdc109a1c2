//! DTLS-SRTP (RFC 5764): the handshake that proves who the peer is and yields the keys of its media.
//!
//! Records, messages and their order are an engine's (`engine`). Here is what the peer's certificate must be
//! ([`fingerprint`]), what ours is ([`certificate`]), and when a session starts, fails and ends ([`session`]). What it yields is
//! SRTP's [`KeyingMaterial`](super::srtp::KeyingMaterial).

pub mod certificate;
pub mod clock;
mod engine;
pub mod failure;
pub mod fingerprint;
pub mod session;
pub mod settings;
mod signature;

pub use certificate::{Certificate, InvalidCertificate};
pub use clock::Clock;
pub use failure::Failure;
pub use fingerprint::Fingerprint;
pub use session::{Context, RefusedParameters, RemoteParameters, Session};
pub use settings::{Settings, Versions};

pub use super::srtp::Role;
pub use weir_channel::message::{DtlsRole, DtlsState as State, FingerprintAlgorithm};
