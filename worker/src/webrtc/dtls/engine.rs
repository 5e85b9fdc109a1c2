//! The library that speaks DTLS: dimpl, or OpenSSL where the feature `openssl` is on.
//!
//! A session tells its engine the time and the datagrams that come, and takes everything that the engine has to give after
//! each of them. What is believed of the peer is the session's business alone; an engine only shows the peer's certificate,
//! before anything that answers it.

mod dimpl;
#[cfg(feature = "openssl")]
mod openssl;

use std::fmt;

use crate::time::Time;

use super::Role;
use super::certificate::Certificate;
use super::clock::Clock;
use super::keys::SrtpKeys;
use super::session::{Failure, Settings};

/// Which library speaks DTLS.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Library {
    /// Written in Rust, on aws-lc-rs. It has no RSA.
    Dimpl,
    /// OpenSSL, for peers whose certificates have RSA keys.
    #[cfg(feature = "openssl")]
    OpenSsl,
}

impl Default for Library {
    /// OpenSSL where it was asked for when this was built.
    fn default() -> Self {
        #[cfg(feature = "openssl")]
        let library = Self::OpenSsl;
        #[cfg(not(feature = "openssl"))]
        let library = Self::Dimpl;
        library
    }
}

/// What an engine has to give.
pub(super) enum Output<'a> {
    /// To be sent to the peer.
    Datagram(&'a [u8]),
    /// The peer's certificate in DER. Comes before the datagrams that answer it.
    Certificate(&'a [u8]),
    /// The handshake has ended well.
    Finished,
    /// What it yielded for SRTP; `None` if it was a profile that we do not have.
    Keys(Option<SrtpKeys>),
    /// The peer said goodbye.
    Goodbye,
    /// Something that is not for us.
    Nothing,
    /// The buffer must have this many bytes for what comes next.
    NeedsRoom(usize),
    /// That was all, until [`Engine::handle_time`] at this moment.
    Idle(Option<Time>),
}

/// One end of one DTLS connection. After an error it is of no more use, but for an alert that [`Engine::poll`] may give.
pub(super) trait Engine: fmt::Debug {
    /// Takes one datagram of the peer's.
    fn handle_datagram(&mut self, datagram: &[u8]) -> Result<(), Failure>;

    /// Takes the time, which it must know before anything else, and sends again what was not answered.
    fn handle_time(&mut self, now: Time) -> Result<(), Failure>;

    /// Gives the next thing, which may lie in the buffer.
    fn poll<'a>(&mut self, buffer: &'a mut [u8]) -> Output<'a>;

    /// Says goodbye.
    fn close(&mut self) -> Result<(), Failure>;
}

/// What the engines of a worker share.
pub(super) enum Factory {
    Dimpl(dimpl::Shared),
    #[cfg(feature = "openssl")]
    OpenSsl(openssl::Shared),
}

impl Factory {
    pub(super) fn new(certificate: &Certificate, clock: Clock, settings: Settings) -> Self {
        match settings.library {
            Library::Dimpl => Self::Dimpl(dimpl::Shared::new(certificate, clock, settings)),
            #[cfg(feature = "openssl")]
            Library::OpenSsl => Self::OpenSsl(openssl::Shared::new(certificate, settings)),
        }
    }

    /// An engine for one session.
    pub(super) fn engine(&self, now: Time, role: Role) -> Result<Box<dyn Engine>, Failure> {
        match self {
            Self::Dimpl(shared) => Ok(shared.engine(now, role)),
            #[cfg(feature = "openssl")]
            Self::OpenSsl(shared) => shared.engine(now, role),
        }
    }
}
