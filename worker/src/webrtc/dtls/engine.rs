//! What speaks DTLS: an engine of our own for DTLS 1.2, and the dimpl crate for 1.3 (docs/decisions/0024-dtls-for-everybody.md).
//!
//! A session tells its engine the time and the datagrams that come, and takes everything that the engine has to give after
//! each of them. What is believed of the peer is the session's business alone; an engine only shows the peer's certificate,
//! before anything that answers it.

pub(super) mod dimpl;
pub(super) mod dtls12;

use std::fmt;

use crate::time::Time;
use crate::webrtc::srtp::KeyingMaterial;

use super::failure::Failure;

/// What an engine has to give.
#[derive(Debug)]
pub(super) enum Output {
    /// To be sent to the peer.
    Datagram(Vec<u8>),
    /// The peer's certificate in DER. Comes before the datagrams that answer it.
    Certificate(Vec<u8>),
    /// The handshake has ended well.
    Finished,
    /// What it yielded for SRTP; `None` if it was a profile that we do not have.
    Keys(Option<KeyingMaterial>),
    /// The peer said goodbye.
    Goodbye,
    /// The peer's hello, as a datagram: it speaks a version that another engine speaks. This one is done.
    Newer(Vec<u8>),
    /// Something that is not for us.
    Nothing,
    /// It went on, and failed.
    Failed(Failure),
    /// That was all, until [`Engine::handle_time`] at this moment.
    Idle(Option<Time>),
}

/// One end of one DTLS connection. After an error it is of no more use, but for an alert.
pub(super) trait Engine: fmt::Debug {
    /// Takes one datagram of the peer's.
    fn handle_datagram(&mut self, datagram: &[u8]) -> Result<(), Failure>;

    /// Takes the time, which it must know before anything else, and sends again what was not answered.
    fn handle_time(&mut self, now: Time) -> Result<(), Failure>;

    /// Gives the next thing.
    fn poll(&mut self) -> Output;

    /// Ends with an alert (RFC 5246 §7.2) that the next [`Engine::poll`] gives. Says whether it could.
    fn abort(&mut self, alert: u8) -> bool;

    /// Says goodbye.
    fn close(&mut self) -> Result<(), Failure>;
}
