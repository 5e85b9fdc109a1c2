//! What is kept of an agent in the page, and how a successor's goes on from there.
//!
//! Paths are kept each in a place of their own, which they have for as long as they are known. What is said of them all is
//! stored behind them, and in front of what takes away those that are gone, so that it names none that is not there.

use crate::page::layout::webrtc::{
    AGENT, AgentRecord, PATHS, Pair, PathState, agent_flags, ice_states, path as place_of, path_flags,
};
use crate::page::predecessor::{Damaged, Predecessor};
use crate::page::{Page, Slot};
use crate::time::Time;

use super::super::choice::Choice;
use super::super::path::Path;
use super::super::{Credentials, Protocol, State, Tuple};
use super::Agent;

const _: () = assert!(PATHS == super::TUPLES_MAX, "each path has a place");

impl Agent {
    /// Keeps it, all but the current credentials.
    pub fn keep(&self, page: &Page, slot: Slot, connection_was_closed: bool) {
        if slot.is_none() {
            return;
        }
        for path in &self.paths {
            let (pair, state) = place_of(usize::from(path.place));
            page.store_sealed(slot, pair, &Pair::new(Some(&path.tuple), path.serial), || {
                page.store(slot, state, &path.kept());
            });
        }
        page.store_twin(slot, AGENT, &self.kept(connection_was_closed));
        for place in 0..PATHS {
            if self.paths.iter().all(|path| usize::from(path.place) != place) {
                page.break_seal(slot, place_of(place).0);
            }
        }
    }

    fn kept(&self, connection_was_closed: bool) -> AgentRecord {
        let serial = |tuple: Option<&Tuple>| self.path(tuple).map(|path| path.serial);
        let (selected, left) = (serial(self.choice.selected()), serial(self.choice.left()));
        let (is_confirmed, has_carried) = self.choice.traffic();
        let mut record = AgentRecord {
            generation: self.generation,
            nomination: self.nomination.unwrap_or(0),
            paths_made: self.paths_made,
            selected: selected.unwrap_or(0),
            left: left.unwrap_or(0),
            state: match self.state {
                State::New => ice_states::NEW,
                State::Connected => ice_states::CONNECTED,
                State::Completed => ice_states::COMPLETED,
                State::Disconnected | State::Closed => ice_states::DISCONNECTED,
            },
            shown_at: self.choice.shown_at().0,
            username_fragment: sum_of(self.credentials.username_fragment()),
            proven: Pair::new(self.proven_by_handshake.as_ref(), 0),
            ..AgentRecord::default()
        };
        let is_previous_kept = self
            .previous
            .as_ref()
            .is_some_and(|previous| keep_previous(&mut record, previous));
        for (is_set, flag) in [
            (selected.is_some(), agent_flags::SELECTED),
            (left.is_some(), agent_flags::LEFT),
            (self.nomination.is_some(), agent_flags::NUMBERED),
            (is_previous_kept, agent_flags::PREVIOUS),
            (self.proven_by_handshake.is_some(), agent_flags::HANDSHAKE),
            (self.asks, agent_flags::ASKS),
            (is_confirmed, agent_flags::CONFIRMED),
            (has_carried, agent_flags::CARRIED),
            (connection_was_closed, agent_flags::CONNECTION_CLOSED),
        ] {
            record.flags |= if is_set { flag } else { 0 };
        }
        record
    }

    /// Goes on where a worker's agent was that is dead; `None`: it has left nothing. `credentials` are those that the supervisor knows.
    /// Also says whether it was disconnected last because a connection was closed.
    ///
    /// # Errors
    /// What it has left cannot be true.
    pub fn resume(
        now: Time,
        credentials: &Credentials,
        page: &Predecessor,
        slot: Slot,
    ) -> Result<Option<(Self, bool)>, Damaged> {
        let Some(record) = page.twin(slot, AGENT)? else {
            return Ok(None);
        };
        let has = |flag: u32| record.flags & flag != 0;
        let mut agent = Self::new(credentials.clone());
        agent.generation = record.generation;
        agent.previous = has(agent_flags::PREVIOUS).then(|| previous_of(&record)).transpose()?;
        if record.username_fragment != sum_of(credentials.username_fragment()) {
            // They were replaced, and the supervisor does not know that yet: it will ask for it again.
            let of_before = agent.previous.as_ref().map(Credentials::username_fragment);
            if of_before == Some(credentials.username_fragment()) {
                agent.previous = None;
                agent.generation = agent.generation.saturating_sub(1);
            }
        }
        if agent.previous.is_some() && agent.generation == 0 {
            return Err(Damaged("its ICE has restarted more often than was asked"));
        }
        for place in 0..PATHS {
            let (pair, state) = place_of(place);
            if let Some(pair) = page.sealed(slot, pair)? {
                let tuple = pair.tuple().ok_or(Damaged("one end of a path is missing"))?;
                let state = page.record(slot, state);
                agent.paths.push(Path::resumed(
                    now,
                    tuple,
                    pair.serial,
                    place as u8,
                    agent.generation,
                    &state,
                ));
            }
        }
        agent.paths.sort_unstable_by_key(|path| path.serial);
        agent.state = match record.state {
            ice_states::NEW => State::New,
            ice_states::CONNECTED => State::Connected,
            ice_states::COMPLETED => State::Completed,
            _ => State::Disconnected,
        };
        agent.nomination = has(agent_flags::NUMBERED).then_some(record.nomination);
        agent.paths_made = record.paths_made;
        agent.asks = has(agent_flags::ASKS);
        agent.proven_by_handshake = has(agent_flags::HANDSHAKE).then(|| record.proven.tuple()).flatten();
        let tuple_of = |flag: u32, serial: u32| {
            let path = agent.paths.iter().find(|path| has(flag) && path.serial == serial);
            path.map(|path| path.tuple)
        };
        agent.choice = Choice::resumed(
            tuple_of(agent_flags::SELECTED, record.selected),
            Time(record.shown_at).min(now),
            tuple_of(agent_flags::LEFT, record.left),
            (has(agent_flags::CONFIRMED), has(agent_flags::CARRIED)),
        );
        if agent.choice.selected().is_none() && matches!(agent.state, State::Connected | State::Completed) {
            agent.use_best(now);
        }
        if agent.asks {
            agent.begin_asking(now);
        }
        Ok(Some((agent, has(agent_flags::CONNECTION_CLOSED))))
    }
}

impl Path {
    fn kept(&self) -> PathState {
        let mut flags = 0;
        for (is_set, flag) in [
            (self.nominated, path_flags::NOMINATED),
            (self.nomination.is_some(), path_flags::NUMBERED),
            (self.is_proven(), path_flags::PROVEN),
        ] {
            flags |= if is_set { flag } else { 0 };
        }
        PathState {
            generation: self.generation,
            flags,
            nomination: u64::from(self.nomination.unwrap_or(0)),
            checked_at: self.checked_at.0,
            shown_at: self.shown_at.map_or(0, |at| at.0),
        }
    }

    fn resumed(now: Time, tuple: Tuple, serial: u32, place: u8, newest_generation: u32, state: &PathState) -> Self {
        let has = |flag: u32| state.flags & flag != 0;
        let generation = state.generation.min(newest_generation);
        let mut path = Self::new(Time(state.checked_at).min(now), tuple, serial, place, generation);
        path.nominated = has(path_flags::NOMINATED);
        path.nomination = has(path_flags::NUMBERED).then_some(state.nomination as u32);
        path.shown_at = (state.shown_at != 0).then_some(Time(state.shown_at).min(now));
        if has(path_flags::PROVEN) {
            path.prove();
        }
        path
    }
}

impl Pair {
    fn new(tuple: Option<&Tuple>, serial: u32) -> Self {
        tuple.map_or_else(Self::default, |tuple| Self {
            local: tuple.local.into(),
            remote: tuple.remote.into(),
            serial,
            is_tcp: u8::from(tuple.protocol == Protocol::Tcp),
            spare: [0; 3],
        })
    }

    fn tuple(&self) -> Option<Tuple> {
        Some(Tuple {
            protocol: if self.is_tcp == 0 { Protocol::Udp } else { Protocol::Tcp },
            local: self.local.address()?,
            remote: self.remote.address()?,
        })
    }
}

/// Whether they are short enough; all that are made here are.
fn keep_previous(record: &mut AgentRecord, previous: &Credentials) -> bool {
    let (fragment, password) = (previous.username_fragment().as_bytes(), previous.password().as_bytes());
    let (Some(fragment_place), Some(password_place)) = (
        record.previous_username_fragment.get_mut(..fragment.len()),
        record.previous_password.get_mut(..password.len()),
    ) else {
        return false;
    };
    fragment_place.copy_from_slice(fragment);
    password_place.copy_from_slice(password);
    record.previous_lengths = [fragment.len() as u8, password.len() as u8];
    true
}

fn previous_of(record: &AgentRecord) -> Result<Credentials, Damaged> {
    let [fragment, password] = record.previous_lengths.map(usize::from);
    let text = |bytes: Option<&[u8]>| {
        bytes
            .and_then(|bytes| std::str::from_utf8(bytes).ok())
            .map(str::to_owned)
    };
    let fragment = text(record.previous_username_fragment.get(..fragment));
    let password = text(record.previous_password.get(..password));
    let restored = fragment
        .zip(password)
        .and_then(|(fragment, password)| Credentials::restore(&fragment, &password).ok());
    restored.ok_or(Damaged("its ICE credentials of before a restart are none"))
}

/// What tells a username fragment from others.
fn sum_of(username_fragment: &str) -> u64 {
    let fold = |sum: u64, byte: u8| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    username_fragment.bytes().fold(0xcbf2_9ce4_8422_2325, fold)
}
