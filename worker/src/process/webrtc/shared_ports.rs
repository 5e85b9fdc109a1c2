//! Finds the transport of what arrives at a shared port: of a check by the username fragment in it, of all else by its tuple.
//!
//! Of what is for no transport only a count is kept. Of connections whose transport is not known yet at most
//! [`UNASSIGNED_MAX`] are kept. A tuple is known from its first authenticated check until its transport forgets it; so the
//! map of tuples has at most [`TUPLES_MAX`](crate::webrtc::ice::TUPLES_MAX) entries per transport, and only those who know a
//! password make them.

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use weir_channel::message::{IceTuple, WorkerError};

use crate::boundary::{self, Parser};
use crate::net::sockets::UnassignedConnection;
use crate::relay::datagram::Datagram;
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::budget::Budget;
use crate::webrtc::stun;

use super::limits::CHECK_TIME_MAX;

/// The most connections of a worker whose transport is not known yet. One more replaces the oldest.
const UNASSIGNED_MAX: usize = 256;

/// How often a transport may request a socket: its peer decides how often it moves.
const SOCKET_REQUESTS: Budget = Budget::new(1, 4);

/// The transports that are reached through shared ports, and by what they are found.
#[derive(Default)]
pub(super) struct SharedPorts {
    /// By username fragment, the current one and the one before an ICE restart.
    pub(super) ufrags: HashMap<Box<[u8]>, TransportIx, RandomState>,
    pub(super) tuples: HashMap<IceTuple, TransportIx, RandomState>,
    pub(super) unassigned: Vec<Option<Box<UnassignedConnection>>>,
    /// When the oldest of them has waited for too long.
    unassigned_due: Option<Time>,
    /// Until when no connections are accepted, because the kernel could not take any more.
    pub(super) accept_paused_until: Option<Time>,
    /// Whether transports request connected sockets.
    pub(super) uses_connected: bool,
    pub(super) unrouted: u64,
    /// What is left of a batch after its checks, with the transport of each datagram.
    pub(super) rest: Vec<(TransportIx, Datagram)>,
    pub(super) group: Vec<Datagram>,
}

/// A transport's entry at the shared ports.
#[derive(Debug)]
pub(super) struct Registration {
    /// The username fragments under which it is known.
    ufrags: Vec<Box<[u8]>>,
    /// The connected socket that it requested last, and when.
    pub(super) requested: Option<(IceTuple, Time)>,
    pub(super) request_budget: Budget,
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            ufrags: Vec::with_capacity(2),
            requested: None,
            request_budget: SOCKET_REQUESTS,
        }
    }
}

impl SharedPorts {
    /// Checks that no other transport uses a username fragment.
    pub(super) fn check_ufrag(&self, of: Option<TransportIx>, ufrag: &str) -> Result<(), WorkerError> {
        match self.ufrags.get(ufrag.as_bytes()) {
            Some(other) if Some(*other) != of => Err(WorkerError::InvalidParameters(
                "the username fragment is in use by another transport; choose another".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// Registers a transport's username fragment. The one before it stays registered, for checks of before an ICE restart.
    pub(super) fn register(&mut self, transport: TransportIx, registration: &mut Registration, ufrag: &str) {
        let ufrag: Box<[u8]> = ufrag.as_bytes().into();
        registration.ufrags.retain(|other| *other != ufrag);
        if registration.ufrags.len() == 2 {
            self.ufrags.remove(&registration.ufrags.remove(0));
        }
        registration.ufrags.push(ufrag.clone());
        self.ufrags.insert(ufrag, transport);
    }

    /// Forgets a transport that is closed.
    pub(super) fn unregister(
        &mut self,
        transport: TransportIx,
        registration: &Registration,
        tuples: impl Iterator<Item = IceTuple>,
    ) {
        for ufrag in &registration.ufrags {
            self.ufrags.remove(ufrag);
        }
        for tuple in tuples {
            self.forget_tuple(transport, &tuple);
        }
    }

    /// Forgets a tuple that its transport has forgotten.
    pub(super) fn forget_tuple(&mut self, transport: TransportIx, tuple: &IceTuple) {
        if self.tuples.get(tuple) == Some(&transport) {
            self.tuples.remove(tuple);
        }
    }

    /// When [`SharedPorts::handle_timeout`] has something to do.
    pub(super) fn due(&self) -> Option<Time> {
        [self.unassigned_due, self.accept_paused_until]
            .into_iter()
            .flatten()
            .min()
    }

    /// Closes connections that were unassigned for too long. Whether to accept connections again.
    pub(super) fn handle_timeout(&mut self, now: Time) -> bool {
        if self.unassigned_due.is_some_and(|due| due <= now) {
            for place in &mut self.unassigned {
                if place
                    .as_ref()
                    .is_some_and(|one| now >= one.accepted_at() + CHECK_TIME_MAX)
                {
                    *place = None;
                    self.unrouted += 1;
                }
            }
            let first = self.unassigned.iter().flatten().map(|one| one.accepted_at()).min();
            self.unassigned_due = first.map(|accepted_at| accepted_at + CHECK_TIME_MAX);
        }
        self.accept_paused_until.take_if(|until| *until <= now).is_some()
    }

    /// The transport that a STUN packet is for.
    pub(super) fn transport_of_check(&self, tuple: &IceTuple, packet: &[u8]) -> Option<TransportIx> {
        // Anybody's bytes: if the parser panics on them, they are for no transport.
        match boundary::contain(Parser::Stun, || stun::username_of(packet)).unwrap_or(None) {
            Some(username) => {
                let colon = username.iter().position(|byte| *byte == b':')?;
                self.ufrags.get(&username[..colon]).copied()
            }
            // An indication, by which a peer keeps the bindings of its NAT.
            None => self.tuples.get(tuple).copied(),
        }
    }

    /// Keeps a connection until its transport is known, and returns its number.
    pub(super) fn keep_unassigned(&mut self, connection: UnassignedConnection) -> u16 {
        self.unassigned_due
            .get_or_insert(connection.accepted_at() + CHECK_TIME_MAX);
        let vacant = self.unassigned.iter().position(Option::is_none);
        let place = vacant.unwrap_or_else(|| {
            if self.unassigned.len() < UNASSIGNED_MAX {
                self.unassigned.push(None);
                return self.unassigned.len() - 1;
            }
            self.unrouted += 1;
            let accepted_at = |place: &usize| self.unassigned[*place].as_ref().map(|one| one.accepted_at());
            (0..UNASSIGNED_MAX).min_by_key(accepted_at).unwrap_or(0)
        });
        self.unassigned[place] = Some(Box::new(connection));
        place as u16
    }
}
