//! A lite agent: which of its peer's tuples have proven themselves, and which of them is used.
//!
//! ```text
//!              a check                      a check that nominates
//!     new ───────────────▶ connected ─────────────────────────────▶ completed
//!                             ▲  │ the last tuple is gone              │
//!                     a check │  ▼                                     │
//!                          disconnected ◀──────────────────────────────┘
//! ```
//!
//! A first check may nominate too, and then leads to completed at once. After a restart the first check with the new
//! credentials counts like a first check; until then everything stays as it was.

use std::collections::VecDeque;
use std::time::Duration;

use crate::time::Time;
use crate::webrtc::stun::{self, Class, Malformed, Message, Writer};

use super::credentials::Credentials;
use super::tuple::Tuple;

/// How long a tuple stays valid after a check (RFC 7675 §5.1). Browsers check every few seconds.
pub const CONSENT: Duration = Duration::from_secs(30);

/// Tuples that are remembered. A peer has a few networks with two address families each, and nothing to gain from more.
pub const TUPLES_MAX: usize = 8;

/// How far it got.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum State {
    /// No check has arrived yet.
    New,
    /// A tuple is selected, and not yet nominated.
    Connected,
    /// The peer nominated the tuple that is selected.
    Completed,
    /// There is no tuple any more; a check revives it.
    Disconnected,
    /// Closed for good.
    Closed,
}

/// What changed. A change of the tuple is told before the change of state that it causes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// What is sent goes there from now on; `None`: nothing may be sent.
    Selected(Option<Tuple>),
    /// The state is another.
    State(State),
    /// Nothing that arrives there counts any more; a TCP connection should be closed.
    Forgotten(Tuple),
}

/// Why a request was answered with an error (RFC 8445 §7.3, RFC 8489 §9.1.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Refusal {
    /// 400: another method, or something that a check must have is missing.
    BadRequest,
    /// 401: for another transport, or made with another password.
    Unauthenticated,
    /// 420: it has attributes that must be understood and are not.
    UnknownAttribute,
    /// 487: the peer believes to be controlled as well. We are lite, so it is the one to change.
    RoleConflict,
}

impl Refusal {
    /// All of them, in the order of their discriminants.
    pub const ALL: [Self; 4] = [
        Self::BadRequest,
        Self::Unauthenticated,
        Self::UnknownAttribute,
        Self::RoleConflict,
    ];

    /// ERROR-CODE.
    pub const fn code(self) -> u16 {
        match self {
            Self::BadRequest => 400,
            Self::Unauthenticated => 401,
            Self::UnknownAttribute => 420,
            Self::RoleConflict => 487,
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::BadRequest => "Bad Request",
            Self::Unauthenticated => "Unauthenticated",
            Self::UnknownAttribute => "Unknown Attribute",
            Self::RoleConflict => "Role Conflict",
        }
    }
}

/// What became of a STUN datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Checked {
    /// A check by somebody who knows the password. The answer must be sent.
    Accepted,
    /// A request that is refused. The answer may be sent.
    Refused(Refusal),
    /// Not a message; there is no answer.
    Malformed(Malformed),
    /// An indication, an answer to a question that was not asked, or anything after the end; there is no answer.
    Ignored,
}

/// A tuple from which a check came.
#[derive(Clone, Copy, Debug)]
struct Path {
    tuple: Tuple,
    /// Of which credentials the last check was.
    generation: u32,
    nominated: bool,
    checked_at: Time,
}

/// A lite agent.
///
/// Invariant: the selected tuple is one of the paths; it exists exactly when the state is connected or completed.
#[derive(Debug)]
pub struct Agent {
    credentials: Credentials,
    /// Those before the restart, until a check with the new ones arrives.
    previous: Option<Credentials>,
    generation: u32,
    state: State,
    /// At most [`TUPLES_MAX`].
    paths: Vec<Path>,
    selected: Option<Tuple>,
    /// The most recent nomination, where the peer numbers them.
    nomination: Option<u32>,
    events: VecDeque<Event>,
}

impl Agent {
    /// An agent that nobody has talked to.
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            previous: None,
            generation: 0,
            state: State::New,
            paths: Vec::with_capacity(TUPLES_MAX),
            selected: None,
            nomination: None,
            events: VecDeque::new(),
        }
    }

    /// How far it got.
    pub fn state(&self) -> State {
        self.state
    }

    /// Where to send.
    #[inline]
    pub fn selected(&self) -> Option<&Tuple> {
        self.selected.as_ref()
    }

    /// What the peer must know.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Where checks came from, not too long ago; at most [`TUPLES_MAX`].
    pub fn tuples(&self) -> impl Iterator<Item = Tuple> + '_ {
        self.paths.iter().map(|path| path.tuple)
    }

    /// Whether a check came from `tuple`, not too long ago.
    #[inline]
    pub fn is_valid(&self, tuple: &Tuple) -> bool {
        self.selected.as_ref() == Some(tuple) || self.paths.iter().any(|path| path.tuple == *tuple)
    }

    /// Takes one STUN datagram, and leaves the answer in `answer`, if there is one. Then [`Agent::poll_event`] until it
    /// has nothing more.
    pub fn handle_stun(&mut self, now: Time, tuple: Tuple, datagram: &[u8], answer: &mut Vec<u8>) -> Checked {
        if self.state == State::Closed {
            return Checked::Ignored;
        }
        let message = match Message::parse(datagram) {
            Ok(message) => message,
            Err(malformed) => return Checked::Malformed(malformed),
        };
        if message.class != Class::Request {
            return Checked::Ignored;
        }
        let generation = match self.judge(&message) {
            Ok(generation) => generation,
            Err((refusal, authentic)) => {
                self.write_refusal(&message, refusal, authentic, answer);
                return Checked::Refused(refusal);
            }
        };
        Writer::new(answer, Class::Success, message.method, message.transaction)
            .xor_mapped_address(tuple.remote)
            .integrity(self.credentials_of(generation).key())
            .fingerprint();
        self.on_check(now, tuple, generation, &message);
        Checked::Accepted
    }

    /// Of which credentials a request is, if it is a check that counts; else what is wrong with it, and of which
    /// credentials it is all the same.
    fn judge(&self, message: &Message<'_>) -> Result<u32, (Refusal, Option<u32>)> {
        let (true, true, stun::BINDING, Some(username), Some(_)) = (
            message.fingerprint,
            message.has_integrity(),
            message.method,
            message.username,
            message.priority,
        ) else {
            return Err((Refusal::BadRequest, None));
        };
        // The key is used only for those who know the name that belongs to it.
        let is_authentic =
            |credentials: &Credentials| credentials.are_named_by(username) && message.is_authentic(credentials.key());
        let generation = if is_authentic(&self.credentials) {
            self.generation
        } else if self.previous.as_ref().is_some_and(is_authentic) {
            self.generation - 1
        } else {
            return Err((Refusal::Unauthenticated, None));
        };
        let refused = |refusal| Err((refusal, Some(generation)));
        if !message.unknown().is_empty() {
            refused(Refusal::UnknownAttribute)
        } else if message.controlled && message.controlling {
            refused(Refusal::BadRequest)
        } else if message.controlled {
            refused(Refusal::RoleConflict)
        } else {
            Ok(generation)
        }
    }

    /// An error response; to a peer that has proven itself, an authenticated one (RFC 8489 §9.1.4).
    fn write_refusal(&self, message: &Message<'_>, refusal: Refusal, authentic: Option<u32>, answer: &mut Vec<u8>) {
        let mut writer = Writer::new(answer, Class::Error, message.method, message.transaction)
            .error_code(refusal.code(), refusal.reason());
        if refusal == Refusal::UnknownAttribute {
            writer = writer.unknown_attributes(message.unknown());
        }
        if let Some(generation) = authentic {
            writer = writer.integrity(self.credentials_of(generation).key());
        }
        writer.fingerprint();
    }

    /// The current credentials, or those before them.
    fn credentials_of(&self, generation: u32) -> &Credentials {
        match &self.previous {
            Some(previous) if generation != self.generation => previous,
            _ => &self.credentials,
        }
    }

    /// A check that counts.
    fn on_check(&mut self, now: Time, tuple: Tuple, generation: u32, message: &Message<'_>) {
        let restarted = generation == self.generation && self.previous.take().is_some();
        if restarted {
            self.nomination = None;
        }
        let nominates = match message.nomination {
            Some(nomination) => {
                let counts = self.nomination.is_none_or(|before| nomination >= before);
                if counts {
                    self.nomination = Some(nomination);
                }
                counts
            }
            None => message.use_candidate,
        };
        self.remember(now, tuple, generation, nominates);
        let first = matches!(self.state, State::New | State::Disconnected) || restarted;
        if first || nominates {
            self.select(tuple);
            self.enter(if nominates { State::Completed } else { State::Connected });
        }
    }

    /// Notes a check on `tuple`. If there is no room, the tuple that was checked longest ago makes some.
    fn remember(&mut self, now: Time, tuple: Tuple, generation: u32, nominates: bool) {
        if let Some(path) = self.paths.iter_mut().find(|path| path.tuple == tuple) {
            path.nominated = nominates || path.nominated && path.generation == generation;
            path.generation = generation;
            path.checked_at = path.checked_at.max(now);
            return;
        }
        if self.paths.len() >= TUPLES_MAX {
            let oldest = (0..self.paths.len())
                .filter(|at| Some(self.paths[*at].tuple) != self.selected)
                .min_by_key(|at| self.paths[*at].checked_at);
            if let Some(oldest) = oldest {
                let path = self.paths.remove(oldest);
                self.events.push_back(Event::Forgotten(path.tuple));
            }
        }
        self.paths.push(Path {
            tuple,
            generation,
            nominated: nominates,
            checked_at: now,
        });
    }

    fn select(&mut self, tuple: Tuple) {
        if self.selected != Some(tuple) {
            self.selected = Some(tuple);
            self.events.push_back(Event::Selected(self.selected));
        }
    }

    fn enter(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.events.push_back(Event::State(state));
        }
    }

    /// Takes new credentials. The old ones stay good, and the selected tuple selected, until a check is made with the new.
    pub fn restart(&mut self, credentials: Credentials) {
        if self.state == State::Closed {
            return;
        }
        let replaced = std::mem::replace(&mut self.credentials, credentials);
        // A restart that comes before the one before it was noticed replaces it.
        if self.previous.is_none() {
            self.generation += 1;
            self.previous = Some(replaced);
        }
    }

    /// The tuple is no more: its TCP connection was closed.
    pub fn forget(&mut self, tuple: &Tuple) {
        let before = self.paths.len();
        self.paths.retain(|path| path.tuple != *tuple);
        if self.paths.len() != before {
            self.on_paths_gone();
        }
    }

    /// Forgets tuples whose consent has expired. Then [`Agent::poll_event`].
    pub fn handle_timeout(&mut self, now: Time) {
        let before = self.paths.len();
        let events = &mut self.events;
        self.paths.retain(|path| {
            let valid = now < path.checked_at + CONSENT;
            if !valid {
                events.push_back(Event::Forgotten(path.tuple));
            }
            valid
        });
        if self.paths.len() != before {
            self.on_paths_gone();
        }
    }

    /// If the selected tuple is among those that are gone: the best of the others, or none. All of them have been checked.
    fn on_paths_gone(&mut self) {
        if self.paths.iter().any(|path| Some(path.tuple) == self.selected) || self.selected.is_none() {
            return;
        }
        let best = self
            .paths
            .iter()
            .max_by_key(|path| (path.generation, path.nominated, path.checked_at))
            .copied();
        match best {
            Some(path) => {
                self.select(path.tuple);
                self.enter(if path.nominated {
                    State::Completed
                } else {
                    State::Connected
                });
            }
            None => {
                self.selected = None;
                self.events.push_back(Event::Selected(None));
                self.enter(State::Disconnected);
            }
        }
    }

    /// When [`Agent::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.paths.iter().map(|path| path.checked_at + CONSENT).min()
    }

    /// What changed, in the order in which it did.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Ends it. Nothing is answered any more, and nothing told but this.
    pub fn close(&mut self) {
        self.paths.clear();
        self.previous = None;
        self.events.clear();
        self.selected = None;
        self.enter(State::Closed);
    }
}

#[cfg(test)]
mod tests;
