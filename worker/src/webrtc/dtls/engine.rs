//! What speaks DTLS: an engine of our own for DTLS 1.2, and the dimpl crate for 1.3 (docs/decisions/0024-dtls-for-everybody.md).
//!
//! A session tells its engine the time and the datagrams that come, and takes everything that the engine has to give after
//! each of them. What is believed of the peer is the session's business alone; an engine only shows the peer's certificate,
//! before anything that answers it.

mod dimpl;
mod dtls12;

use std::fmt;
use std::sync::Arc;

use crate::time::Time;

use super::Role;
use super::certificate::Certificate;
use super::clock::Clock;
use super::failure::Failure;
use super::keys::SrtpKeys;
use super::session::{Settings, Versions};

pub(super) use self::dtls12::Signer;

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
    Keys(Option<SrtpKeys>),
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

/// What the engines of a worker share.
pub(super) struct Factory {
    dtls12: Arc<dtls12::Shared>,
    /// `None` if DTLS 1.3 is not spoken: it is not asked for, or our key is one that the library has no use for.
    dimpl: Option<dimpl::Shared>,
}

impl Factory {
    pub(super) fn new(certificate: &Certificate, clock: Clock, settings: Settings) -> Self {
        let dimpl = match settings.versions {
            Versions::Dtls12 => None,
            Versions::Dtls12And13 => dimpl::Shared::new(certificate, clock, settings),
        };
        Self {
            dtls12: Arc::new(dtls12::Shared::new(certificate, settings, dimpl.is_some())),
            dimpl,
        }
    }

    /// An engine for one session. A client that may speak DTLS 1.3 says so before it knows what its server speaks.
    pub(super) fn engine(&self, now: Time, role: Role) -> Result<Box<dyn Engine>, Failure> {
        match (&self.dimpl, role) {
            (Some(dimpl), Role::Client) => Ok(dimpl.client(now)),
            _ => Ok(self.dtls12.engine(now, role)),
        }
    }

    /// An engine for a client whose hello was [`Output::Newer`].
    pub(super) fn newer(&self, now: Time) -> Result<Box<dyn Engine>, Failure> {
        Ok(self.dimpl.as_ref().ok_or(Failure::Internal)?.server(now))
    }
}
