//! One DTLS session: when it starts, whom it believes, and how it ends.
//!
//! ```text
//!     new ──▶ connecting ──▶ connected ──▶ closed
//!                  └────────────┴──▶ failed
//! ```
//!
//! It starts when ICE has a tuple. If the peer's parameters are not known by then, we wait as the server; a handshake may
//! even end before they are known, and then its keys stay here until the certificate has been compared.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use thiserror::Error;
use weir_channel::message::{DtlsRole, DtlsState as State};

use crate::boundary::{self, Panicked, Parser};
use crate::time::Time;
use crate::webrtc::residue::wipe_stack;
use crate::webrtc::srtp::KeyingMaterial;

use super::Role;
use super::certificate::{self, Certificate};
use super::clock::Clock;
use super::engine::{Engine, Output, dimpl, dtls12};
use super::failure::Failure;
use super::fingerprint::{Expected, Fingerprint, Unusable};
use super::settings::{CERTIFICATE_BYTES_MAX, Settings, Versions};

/// What a connected session gives.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Established {
    /// The keys for SRTP and SRTCP.
    pub keys: KeyingMaterial,
    /// The peer's certificate in PEM.
    pub remote_certificate: String,
    /// And in DER.
    pub remote_certificate_der: Vec<u8>,
}

/// A change of a session.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// The handshake has started.
    Connecting,
    /// The peer is who the signalling says.
    Connected(Box<Established>),
    /// The session has failed.
    Failed(Failure),
    /// One side has closed the session.
    Closed,
}

/// What the signalling says of the peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteParameters {
    /// The peer's role. If it may be either, we are the server, and choose how media is protected.
    pub role: DtlsRole,
    /// The fingerprints of its certificate.
    pub fingerprints: Vec<Fingerprint>,
}

/// Why what the signalling says of the peer is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RefusedParameters {
    /// They cannot tell whose certificate it is.
    #[error(transparent)]
    Fingerprints(#[from] Unusable),
    /// They have been given before.
    #[error("the remote DTLS parameters are set already")]
    AlreadySet,
    /// The session has failed or is closed.
    #[error("the DTLS session has ended")]
    Ended,
}

/// What all sessions of a worker share.
pub struct Context {
    dtls12: Arc<dtls12::Shared>,
    /// `None` if DTLS 1.3 is not spoken: it is not asked for, or our key is one that the library has no use for.
    dimpl: Option<dimpl::Shared>,
    certificate: Certificate,
    settings: Settings,
}

impl Context {
    /// For sessions with this certificate.
    pub fn new(certificate: Certificate, clock: Clock, settings: Settings) -> Self {
        let dimpl = match settings.versions {
            Versions::Dtls12 => None,
            Versions::Dtls12And13 => dimpl::Shared::new(&certificate, clock, settings),
        };
        Self {
            dtls12: Arc::new(dtls12::Shared::new(&certificate, settings, dimpl.is_some())),
            dimpl,
            certificate,
            settings,
        }
    }

    /// Our certificate.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    /// An engine for one session. A client that may speak DTLS 1.3 says so before it knows what its server speaks.
    fn engine(&self, now: Time, role: Role) -> Box<dyn Engine> {
        match (&self.dimpl, role) {
            (Some(dimpl), Role::Client) => dimpl.client(now),
            _ => self.dtls12.engine(now, role),
        }
    }

    /// An engine for a client whose hello was [`Output::Newer`].
    fn newer_engine(&self, now: Time) -> Result<Box<dyn Engine>, Failure> {
        Ok(self.dimpl.as_ref().ok_or(Failure::Internal)?.server(now))
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Context")
            .field("certificate", &self.certificate)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// Where a session's datagrams go.
pub type Wire<'a> = &'a mut dyn FnMut(&[u8]);

/// One DTLS session.
///
/// Invariant: keys leave it only in [`Event::Connected`], once, and only after the peer's certificate was found to have
/// an announced fingerprint and the peer has proven to own that certificate.
#[derive(Debug)]
pub struct Session {
    context: Arc<Context>,
    state: State,
    /// Ours, when it is decided.
    role: Option<Role>,
    expected: Option<Expected>,
    engine: Option<Box<dyn Engine>>,
    /// The peer's certificate in DER.
    peer: Option<Vec<u8>>,
    /// Of a handshake that has ended while the peer's fingerprint is not known yet.
    keys: Option<KeyingMaterial>,
    finished: bool,
    /// Another worker has begun it.
    is_resumed: bool,
    timeout: Option<Time>,
    events: VecDeque<Event>,
}

impl Session {
    /// A session that has not started.
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            state: State::New,
            role: None,
            expected: None,
            engine: None,
            peer: None,
            keys: None,
            finished: false,
            is_resumed: false,
            timeout: None,
            events: VecDeque::new(),
        }
    }

    /// One that another worker has brought to this state. Of a handshake that had begun nothing can be made: the peer is told, and the
    /// session has failed.
    pub fn resume(context: Arc<Context>, state: State, send: Wire<'_>) -> Self {
        let mut session = Self {
            state,
            is_resumed: true,
            ..Self::new(context)
        };
        if let (State::Connecting, Some(alert)) = (state, Failure::WorkerDied.alert()) {
            send(&plain_alert(alert));
            session.end(State::Failed, Event::Failed(Failure::WorkerDied));
        }
        session
    }

    /// The state of the session.
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// Our role, when it is decided.
    pub fn role(&self) -> Option<Role> {
        self.role
    }

    /// Whether a handshake has ended, whoever the peer is.
    pub fn has_finished(&self) -> bool {
        self.finished
    }

    /// The context that all sessions share.
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Starts, now that datagrams can be exchanged. Later calls change nothing.
    pub fn start(&mut self, now: Time, send: Wire<'_>) {
        if self.state == State::New {
            self.state = State::Connecting;
            self.events.push_back(Event::Connecting);
            self.start_engine(now, send);
        }
    }

    fn start_engine(&mut self, now: Time, send: Wire<'_>) {
        let role = self.role.unwrap_or(Role::Server);
        self.drop_engine();
        match contain(|| Ok(self.context.engine(now, role))) {
            Ok(engine) => {
                self.engine = Some(engine);
                self.handle_time(now, send);
            }
            Err(failure) => self.end(State::Failed, Event::Failed(failure)),
        }
    }

    /// Takes what the signalling says of the peer, once, and says which role is ours.
    ///
    /// # Errors
    ///
    /// See [`RefusedParameters`]; nothing has changed then.
    pub fn set_remote(
        &mut self,
        now: Time,
        parameters: &RemoteParameters,
        send: Wire<'_>,
    ) -> Result<Role, RefusedParameters> {
        // What another worker was told is told once more.
        let is_told_again = self.is_resumed && self.expected.is_none();
        if matches!(self.state, State::Failed | State::Closed) && !is_told_again {
            return Err(RefusedParameters::Ended);
        }
        if self.expected.is_some() {
            return Err(RefusedParameters::AlreadySet);
        }
        let weak_allowed = self.context.settings.weak_fingerprints;
        self.expected = Some(Expected::new(&parameters.fingerprints, weak_allowed)?);
        let role = match parameters.role {
            DtlsRole::Server => Role::Client,
            DtlsRole::Client | DtlsRole::Auto => Role::Server,
        };
        self.role = Some(role);
        if self.engine.is_some() {
            if role == Role::Client {
                // We have waited as the server, for a peer that waits as well.
                self.peer = None;
                self.keys = None;
                self.finished = false;
                self.start_engine(now, send);
            } else {
                self.judge(send);
            }
        }
        Ok(role)
    }

    /// Takes one datagram of the peer's. Whoever calls has made sure that it comes from where ICE says.
    pub fn handle_datagram(&mut self, now: Time, datagram: &[u8], send: Wire<'_>) {
        if self.state == State::Connected && !is_late(datagram) {
            return;
        }
        if !self.advance(now, send) {
            return;
        }
        let Some(engine) = &mut self.engine else {
            return;
        };
        if let Err(failure) = contain(|| engine.handle_datagram(datagram)) {
            self.on_error(failure, send);
        }
        self.drain(now, send);
    }

    /// Sends again what was not answered, or gives up.
    pub fn handle_timeout(&mut self, now: Time, send: Wire<'_>) {
        if self.timeout.is_some_and(|timeout| timeout <= now) {
            self.handle_time(now, send);
        }
    }

    fn handle_time(&mut self, now: Time, send: Wire<'_>) {
        if self.advance(now, send) {
            self.drain(now, send);
        }
    }

    /// Tells the library the time, which it must know before anything else. Says whether it still runs.
    fn advance(&mut self, now: Time, send: Wire<'_>) -> bool {
        let Some(engine) = &mut self.engine else {
            return false;
        };
        if let Err(failure) = contain(|| engine.handle_time(now)) {
            self.on_error(failure, send);
        }
        self.engine.is_some()
    }

    /// When [`Session::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.timeout
    }

    /// What changed, in the order in which it did.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes everything that the engine has to give.
    fn drain(&mut self, now: Time, send: Wire<'_>) {
        let mut goodbye = false;
        loop {
            let Some(engine) = &mut self.engine else {
                return;
            };
            match contain(|| Ok(engine.poll())).unwrap_or_else(Output::Failed) {
                Output::Datagram(datagram) => send(&datagram),
                Output::Certificate(der) if der.len() > CERTIFICATE_BYTES_MAX => {
                    return self.fail(Failure::CertificateTooLong, send);
                }
                Output::Certificate(der) => {
                    // Before anything is answered: a stranger gets no further.
                    if self.expected.as_ref().is_some_and(|expected| !expected.matches(&der)) {
                        return self.fail(Failure::Fingerprint, send);
                    }
                    self.peer = Some(der);
                }
                Output::Finished => self.finished = true,
                Output::Keys(keys) => self.keys = keys,
                Output::Goodbye => goodbye = true,
                Output::Newer(hello) => {
                    self.drop_engine();
                    match contain(|| self.context.newer_engine(now)) {
                        Ok(newer) => self.engine = Some(newer),
                        Err(failure) => return self.fail(failure, send),
                    }
                    if let Some(engine) = &mut self.engine
                        && let Err(failure) =
                            contain(|| engine.handle_time(now).and_then(|()| engine.handle_datagram(&hello)))
                    {
                        return self.fail(failure, send);
                    }
                }
                Output::Nothing => {}
                Output::Failed(failure) => return self.on_error(failure, send),
                Output::Idle(at) => {
                    self.timeout = at;
                    break;
                }
            }
        }
        self.judge(send);
        if goodbye {
            self.end(State::Closed, Event::Closed);
        }
    }

    /// Whether a handshake that has ended makes the session connected.
    fn judge(&mut self, send: Wire<'_>) {
        if self.state != State::Connecting || !self.finished {
            return;
        }
        let (Some(peer), Some(_)) = (&self.peer, &self.keys) else {
            return self.fail(Failure::NoSrtpProfile, send);
        };
        let Some(expected) = &self.expected else {
            return;
        };
        if !expected.matches(peer) {
            return self.fail(Failure::Fingerprint, send);
        }
        if let Some(keys) = self.keys.take() {
            wipe_stack();
            self.state = State::Connected;
            self.events.push_back(Event::Connected(Box::new(Established {
                keys,
                remote_certificate: certificate::to_pem(peer),
                remote_certificate_der: peer.clone(),
            })));
        }
    }

    /// Every error of an engine means that it is of no more use.
    fn on_error(&mut self, failure: Failure, send: Wire<'_>) {
        if self.state == State::Connected && !matches!(failure, Failure::Alert(_)) {
            // The media's keys are agreed on, and what is left of DTLS is a goodbye. Who confuses the engine then, and that
            // may be anybody who can write the peer's address into a datagram, takes no more than this away.
            self.drop_engine();
            self.timeout = None;
        } else {
            self.fail(failure, send);
        }
    }

    /// Gives up, and tells a peer that still listens, so that it need not wait for its own timeout.
    fn fail(&mut self, failure: Failure, send: Wire<'_>) {
        if let (Some(engine), Some(alert)) = (&mut self.engine, failure.alert()) {
            // What broke has nothing more to say.
            let said = failure != Failure::Internal && contain(|| Ok(engine.abort(alert))) == Ok(true);
            if said {
                flush(engine.as_mut(), send);
            } else {
                send(&plain_alert(alert));
            }
        }
        self.end(State::Failed, Event::Failed(failure));
    }

    /// What panicked may do so again when it is dropped.
    fn drop_engine(&mut self) {
        let engine = self.engine.take();
        let _ = boundary::contain(Parser::Dtls, || drop(engine));
    }

    fn end(&mut self, state: State, event: Event) {
        self.drop_engine();
        self.keys = None;
        self.timeout = None;
        if !matches!(self.state, State::Failed | State::Closed) {
            self.state = state;
            self.events.push_back(event);
        }
    }

    /// Ends it, and says goodbye to a peer that it is connected to.
    pub fn close(&mut self, now: Time, send: Wire<'_>) {
        if self.state == State::Connected
            && self.advance(now, send)
            && let Some(engine) = &mut self.engine
            && contain(|| engine.close()).is_ok()
        {
            flush(engine.as_mut(), send);
        }
        if self.state == State::Failed {
            self.state = State::Closed;
            self.events.push_back(Event::Closed);
        }
        self.end(State::Closed, Event::Closed);
    }
}

/// A fatal alert in the clear, as everything is before a handshake has ended. Its sequence number is one that no handshake reaches.
fn plain_alert(alert: u8) -> [u8; 15] {
    [21, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 2, 2, alert]
}

/// Calls an engine: what the network says must not end more than one session, whatever mistake an engine has.
fn contain<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    boundary::contain(Parser::Dtls, call).unwrap_or_else(|Panicked| Err(Failure::Internal))
}

/// Sends what an engine has left to say.
fn flush(engine: &mut dyn Engine, send: Wire<'_>) {
    while let Ok(output) = contain(|| Ok(engine.poll())) {
        match output {
            Output::Datagram(datagram) => send(&datagram),
            Output::Idle(_) | Output::Failed(_) => return,
            _ => {}
        }
    }
}

/// Whether a datagram can still matter after the handshake: a protected record, or a peer's last flight once more, which
/// asks for ours. Everything else in the clear is noise, and the library would keep some of it.
fn is_late(datagram: &[u8]) -> bool {
    let is_plain = matches!(datagram, [20..=31, 0xfe, _, 0, 0, ..]);
    !is_plain || is_plain_handshake(datagram)
}

/// Whether a datagram begins with a message of a handshake in the clear.
pub fn is_plain_handshake(datagram: &[u8]) -> bool {
    const HANDSHAKE: u8 = 22;
    matches!(datagram, [HANDSHAKE, 0xfe, _, 0, 0, ..])
}

#[cfg(test)]
mod tests;
