//! An ICE-lite agent (RFC 8445 §2.5): it knows which of its peer's tuples are valid, and which of them is selected.
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
//!
//! Which of several nominated paths is used, what arrives by them decides: see [`choice`](super::choice). One that is proven is left for
//! another only when that is proven too: see `return_check`.

mod kept;
mod way_back;

use std::collections::VecDeque;
use std::time::Duration;

use crate::boundary::{self, Panicked, Parser};
use crate::time::Time;
use crate::webrtc::entropy::SystemEntropy;
use crate::webrtc::stun::{self, Class, Malformed, Message, Writer};

use self::way_back::Pending;

use super::check::{CheckBudgets, Checked, Refusal};
use super::choice::{Choice, Sign};
use super::credentials::Credentials;
use super::path::Path;
use super::return_check::{Remote, ReturnCheck};
use super::transactions::Transactions;
use super::{State, Tuple};

/// How long a tuple stays valid after a check (RFC 7675 §5.1). Browsers check every few seconds.
pub const CONSENT: Duration = Duration::from_secs(30);

/// Tuples that are remembered. A peer has a few networks with two address families each, and nothing to gain from more.
pub const TUPLES_MAX: usize = 8;

/// What changed. A change of the tuple is reported before the change of state that it causes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// What is sent goes there from now on; `None`: nothing may be sent.
    Selected(Option<Tuple>),
    /// The state has changed.
    State(State),
    /// Nothing that arrives there counts any more; a TCP connection should be closed.
    Forgotten(Tuple),
}

/// An ICE-lite agent (RFC 8445 §2.5).
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
    choice: Choice,
    /// The most recent nomination, where the peer numbers them.
    nomination: Option<u32>,
    /// The path that should be used as soon as it is proven; the selected one, which is proven, is used until then.
    pending: Option<Pending>,
    /// What the peer's own agent knows a request by, if the signalling has told.
    remote: Option<Box<Remote>>,
    /// The tuple that the handshake has proven, which it stays when it is forgotten and comes back.
    proven_by_handshake: Option<Tuple>,
    /// Media may be sent, so paths are to be proven.
    asks: bool,
    paths_made: u32,
    transactions: Transactions,
    budgets: CheckBudgets,
    entropy: SystemEntropy,
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
            choice: Choice::default(),
            nomination: None,
            pending: None,
            remote: None,
            proven_by_handshake: None,
            asks: false,
            paths_made: 0,
            transactions: Transactions::default(),
            budgets: CheckBudgets::new(),
            entropy: SystemEntropy::new(),
            events: VecDeque::new(),
        }
    }

    /// The state of the agent.
    pub fn state(&self) -> State {
        self.state
    }

    /// The selected tuple.
    #[inline]
    pub fn selected(&self) -> Option<&Tuple> {
        self.choice.selected()
    }

    /// The selected tuple, if what is sent there reaches the peer.
    pub fn proven(&self) -> Option<&Tuple> {
        self.selected().filter(|tuple| self.is_proven(tuple))
    }

    fn is_proven(&self, tuple: &Tuple) -> bool {
        self.path(Some(tuple)).is_some_and(Path::is_proven)
    }

    /// Our credentials, which the peer must know.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Those before a restart, as long as they are good.
    pub fn previous_credentials(&self) -> Option<&Credentials> {
        self.previous.as_ref()
    }

    /// Where checks came from, not too long ago; at most [`TUPLES_MAX`].
    pub fn tuples(&self) -> impl Iterator<Item = Tuple> + '_ {
        self.paths.iter().map(|path| path.tuple)
    }

    /// Whether a check came from `tuple`, not too long ago.
    #[inline]
    pub fn is_valid(&self, tuple: &Tuple) -> bool {
        self.selected() == Some(tuple) || self.paths.iter().any(|path| path.tuple == *tuple)
    }

    /// Takes one STUN datagram, and leaves the answer in `answer`, which is empty if there is none. Then [`Agent::poll_event`] and
    /// [`Agent::poll_check`] until they have nothing more.
    pub fn handle_stun(&mut self, now: Time, tuple: Tuple, datagram: &[u8], answer: &mut Vec<u8>) -> Checked {
        answer.clear();
        if self.state == State::Closed {
            return Checked::Ignored;
        }
        // What reads strangers' bytes changes nothing, and may so be stopped anywhere.
        let message = match boundary::contain(Parser::Stun, || Message::parse(datagram)) {
            Ok(Ok(message)) => message,
            Ok(Err(malformed)) => return Checked::Malformed(malformed),
            Err(Panicked) => return Checked::Ignored,
        };
        match message.class {
            Class::Request => self.handle_request(now, tuple, &message, answer),
            Class::Success | Class::Error => self.handle_answer(now, tuple, &message),
            Class::Indication => Checked::Ignored,
        }
    }

    /// Takes a request. What costs little is looked at first: the form, the user name, and only then what reads all of it.
    fn handle_request(&mut self, now: Time, tuple: Tuple, message: &Message<'_>, answer: &mut Vec<u8>) -> Checked {
        let (true, true, stun::BINDING, Some(username), Some(_)) = (
            message.has_fingerprint(),
            message.has_integrity(),
            message.method,
            message.username,
            message.priority,
        ) else {
            return self.refuse(now, message, Refusal::BadRequest, None, answer);
        };
        if !self.are_named_by(username) {
            return self.refuse(now, message, Refusal::Unauthenticated, None, answer);
        }
        let known = self.path(Some(&tuple)).map(|path| path.serial);
        let budget = match known {
            Some(_) => &mut self.budgets.of_valid,
            None => &mut self.budgets.of_new,
        };
        if !budget.take(now) {
            return Checked::Flood;
        }
        match boundary::contain(Parser::Stun, || message.is_intact()) {
            Ok(true) => {}
            Ok(false) => return Checked::Malformed(Malformed::Fingerprint),
            Err(Panicked) => return Checked::Ignored,
        }
        let generation = match boundary::contain(Parser::Stun, || self.judge(message, username)) {
            Ok(Ok(generation)) => generation,
            Ok(Err((refusal, authentic))) => return self.refuse(now, message, refusal, authentic, answer),
            Err(Panicked) => return Checked::Ignored,
        };
        if self.transactions.is_replayed(&message.transaction, known) {
            return Checked::Replayed;
        }
        Writer::new(answer, Class::Success, message.method, message.transaction)
            .xor_mapped_address(tuple.remote)
            .integrity(self.credentials_of(generation).key())
            .fingerprint();
        self.on_check(now, tuple, generation, message);
        Checked::Accepted
    }

    /// Whether a user name is for us, with the current credentials or those before them.
    fn are_named_by(&self, username: &[u8]) -> bool {
        self.credentials.are_named_by(username)
            || self
                .previous
                .as_ref()
                .is_some_and(|previous| previous.are_named_by(username))
    }

    /// Of which credentials a request is, if it is a check that counts; else what is wrong with it, and of which
    /// credentials it is all the same.
    fn judge(&self, message: &Message<'_>, username: &[u8]) -> Result<u32, (Refusal, Option<u32>)> {
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

    /// Writes an error response, if the budget allows; to a peer that has proven itself, an authenticated one (RFC 8489 §9.1.4).
    fn refuse(
        &mut self,
        now: Time,
        message: &Message<'_>,
        refusal: Refusal,
        authentic: Option<u32>,
        answer: &mut Vec<u8>,
    ) -> Checked {
        if !self.budgets.refusals.take(now) {
            return Checked::Refused(refusal);
        }
        match boundary::contain(Parser::Stun, || !message.has_fingerprint() || message.is_intact()) {
            Ok(true) => {}
            Ok(false) => return Checked::Malformed(Malformed::Fingerprint),
            Err(Panicked) => return Checked::Ignored,
        }
        let mut writer = Writer::new(answer, Class::Error, message.method, message.transaction)
            .error_code(refusal.code(), refusal.reason());
        if refusal == Refusal::UnknownAttribute {
            writer = writer.unknown_attributes(message.unknown());
        }
        if let Some(generation) = authentic {
            writer = writer.integrity(self.credentials_of(generation).key());
        }
        writer.fingerprint();
        Checked::Refused(refusal)
    }

    /// The current credentials, or those before them.
    fn credentials_of(&self, generation: u32) -> &Credentials {
        match &self.previous {
            Some(previous) if generation != self.generation => previous,
            _ => &self.credentials,
        }
    }

    /// Handles a valid check.
    fn on_check(&mut self, now: Time, tuple: Tuple, generation: u32, message: &Message<'_>) {
        let restarted = generation == self.generation && self.previous.take().is_some();
        if restarted {
            self.nomination = None;
        }
        let first = matches!(self.state, State::New | State::Disconnected) || restarted;
        if first {
            self.choice.begin();
        }
        let sign = self.remember(now, tuple, generation, message);
        let wins = sign.is_some_and(|sign| self.choice.is_won_by(now, tuple, sign, false));
        if first || wins {
            self.move_to(now, tuple);
        } else if self.choice.selected() == Some(&tuple) {
            self.enter_state_of(tuple);
        }
        self.ask(now, &tuple);
    }

    /// Notes a check on `tuple`, and returns what it shows. If there are too many tuples, the
    /// one that was checked longest ago is forgotten.
    fn remember(&mut self, now: Time, tuple: Tuple, generation: u32, message: &Message<'_>) -> Option<Sign> {
        let at = self.paths.iter().position(|path| path.tuple == tuple);
        let at = at.unwrap_or_else(|| {
            self.evict_oldest();
            let is_free = |place: &u8| self.paths.iter().all(|path| path.place != *place);
            let place = (0..TUPLES_MAX as u8).find(is_free).unwrap_or_default();
            let mut path = Path::new(now, tuple, self.paths_made, place, generation);
            if self.proven_by_handshake == Some(tuple) {
                path.prove();
            }
            self.paths_made = self.paths_made.wrapping_add(1);
            self.paths.push(path);
            self.paths.len() - 1
        });
        let path = &mut self.paths[at];
        self.transactions.remember(message.transaction, path.serial);
        path.begin_generation(generation);
        let is_retransmission = path.transaction == message.transaction;
        path.transaction = message.transaction;
        if !is_retransmission {
            self.choice.keep(now, &tuple);
        }
        path.checked_at = path.checked_at.max(now);
        let sign = match message.nomination {
            Some(nomination) if self.nomination.is_none_or(|before| nomination > before) => Some(Sign::Nomination),
            // As high as another path's: that one was there first.
            Some(nomination) if self.nomination != Some(nomination) || path.nomination != Some(nomination) => None,
            None if !message.use_candidate => None,
            None if !path.nominated => Some(Sign::Nomination),
            _ if is_retransmission => None,
            _ => Some(Sign::Renewal),
        };
        if sign.is_some() {
            path.nominated = true;
            path.shown_at = path.shown_at.max(Some(now));
            if message.nomination.is_some() {
                path.nomination = message.nomination;
                self.nomination = message.nomination;
            }
        }
        sign
    }

    fn evict_oldest(&mut self) {
        if self.paths.len() < TUPLES_MAX {
            return;
        }
        let oldest = (0..self.paths.len())
            .filter(|at| !self.choice.needs(&self.paths[*at].tuple))
            .min_by_key(|at| (self.paths[*at].is_proven(), self.paths[*at].checked_at));
        if let Some(oldest) = oldest {
            let path = self.paths.remove(oldest);
            self.pending.take_if(|pending| pending.tuple == path.tuple);
            self.events.push_back(Event::Forgotten(path.tuple));
        }
    }

    /// Traffic of the peer came by `tuple`, which was proven to be the peer's, and none that it sent later has come yet
    /// (as in RFC 9000 §9.3). Whether that has changed something; if so, [`Agent::poll_event`].
    #[inline]
    pub fn on_traffic(&mut self, now: Time, tuple: &Tuple) -> bool {
        // Where it comes from a thousand times a second.
        !self.choice.confirm(now, tuple) && self.on_traffic_elsewhere(now, tuple)
    }

    fn on_traffic_elsewhere(&mut self, now: Time, tuple: &Tuple) -> bool {
        let is_nominated = |path: &Path| path.nominated;
        let ranks_high = self.path(self.choice.selected()).is_some_and(is_nominated);
        // What comes by paths of before a restart was on its way.
        let current = self.generation - u32::from(self.previous.is_some());
        let known = self.paths.iter_mut().find(|path| path.tuple == *tuple);
        let Some(path) = known.filter(|path| path.generation == current) else {
            return false;
        };
        path.shown_at = path.shown_at.max(Some(now));
        if self.pending.is_some_and(|pending| pending.waits_for(now, tuple)) {
            return false; // its answer decides
        }
        let ranks_lower = ranks_high && !path.nominated;
        let wins = self.choice.is_won_by(now, *tuple, Sign::Traffic, ranks_lower);
        if wins {
            self.move_to(now, *tuple);
            self.choice.confirm(now, tuple);
        }
        wins
    }

    fn path(&self, tuple: Option<&Tuple>) -> Option<&Path> {
        self.paths.iter().find(|path| Some(&path.tuple) == tuple)
    }

    /// Uses a path, or, if another one is proven and it is not, as soon as it is. So the peer waits for a round trip, and who has
    /// only written its address into a check gets nothing.
    fn move_to(&mut self, now: Time, tuple: Tuple) {
        if self.proven().is_some() && !self.is_proven(&tuple) {
            self.pending = Some(Pending::new(now, tuple));
            self.ask(now, &tuple);
        } else {
            self.use_path(now, tuple);
        }
    }

    fn use_path(&mut self, now: Time, tuple: Tuple) {
        self.pending = None;
        self.select(Some(tuple), now);
        self.enter_state_of(tuple);
    }

    fn enter_state_of(&mut self, tuple: Tuple) {
        let is_nominated = self.path(Some(&tuple)).is_some_and(|path| path.nominated);
        self.enter(if is_nominated {
            State::Completed
        } else {
            State::Connected
        });
    }

    fn select(&mut self, tuple: Option<Tuple>, shown_at: Time) {
        if self.choice.selected() != tuple.as_ref() {
            let (left, left_at) = (self.choice.selected().copied(), self.choice.shown_at());
            if let Some(path) = self.paths.iter_mut().find(|path| Some(path.tuple) == left) {
                path.shown_at = path.shown_at.max(Some(left_at));
            }
            self.choice.select(tuple, shown_at);
            self.events.push_back(Event::Selected(tuple));
        }
    }

    fn enter(&mut self, state: State) {
        if self.state != state {
            self.state = state;
            self.events.push_back(Event::State(state));
        }
    }

    /// Takes new credentials. The old ones stay good, and the selected tuple selected, until a check is made with the new. The peer takes
    /// new ones as well (RFC 8839 §4.4.1.1.1), so those that are known of it are forgotten.
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
        self.forget_remote();
    }

    /// The tuple is no more: its TCP connection was closed.
    pub fn forget(&mut self, now: Time, tuple: &Tuple) {
        let before = self.paths.len();
        self.paths.retain(|path| path.tuple != *tuple);
        if self.paths.len() != before {
            self.on_paths_gone(now);
        }
    }

    /// Forgets tuples whose consent has expired. Then [`Agent::poll_event`] and [`Agent::poll_check`].
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
            self.on_paths_gone(now);
        }
    }

    /// If the selected tuple is among those that are gone: the best of the others, or none. All of them have been checked.
    fn on_paths_gone(&mut self, now: Time) {
        if self
            .pending
            .is_some_and(|pending| self.path(Some(&pending.tuple)).is_none())
        {
            self.pending = None;
        }
        if self.choice.selected().is_none() || self.path(self.choice.selected()).is_some() {
            return;
        }
        self.use_best(now);
    }

    /// Uses the best of the paths, if there is any.
    fn use_best(&mut self, now: Time) {
        let best = self.paths.iter().max_by_key(|path| {
            let is_proven = path.is_proven();
            (
                path.generation,
                is_proven,
                path.nominated,
                path.shown_at,
                path.checked_at,
            )
        });
        match best.map(|path| (path.tuple, path.shown_at.unwrap_or(path.checked_at))) {
            Some((tuple, shown_at)) => {
                self.pending = None;
                self.select(Some(tuple), shown_at);
                self.enter_state_of(tuple);
                self.ask(now, &tuple);
            }
            None => {
                self.select(None, Time::default());
                self.enter(State::Disconnected);
            }
        }
    }

    /// When [`Agent::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        let dues = self.paths.iter().map(|path| {
            let consent = path.checked_at + CONSENT;
            path.return_check()
                .and_then(ReturnCheck::due)
                .map_or(consent, |due| consent.min(due))
        });
        dues.min()
    }

    /// What changed, in the order in which it did.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Closes the agent. It answers nothing any more, and reports nothing but this.
    pub fn close(&mut self) {
        self.paths.clear();
        self.pending = None;
        self.previous = None;
        self.events.clear();
        self.choice = Choice::default();
        self.enter(State::Closed);
    }
}

#[cfg(test)]
mod tests;
