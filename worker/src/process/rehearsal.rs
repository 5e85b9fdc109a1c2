//! What a process does before its time comes: it makes the rooms that another one serves, so that it need not when that is dead. It has no
//! sockets for them, sends nothing, tells nothing, and keeps nothing in its page, where a successor of its own would find what
//! nobody has ever been sent.

use std::collections::BTreeSet;
use std::mem::replace;
use std::os::fd::OwnedFd;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{Method, Reply, WorkerError};

use crate::net::shell::Shell;
use crate::page::Page;
use crate::relay::sink::{ConsumerIx, Sent, Sink, TransportIx};
use crate::time::Time;

use super::event_loop::EventLoop;

/// How far it is.
#[derive(Debug)]
pub(super) enum Rehearsal {
    /// It goes on. The page is for later.
    GoesOn(Page),
    /// It is over, or there was none. What was rehearsed, and has not got its sockets yet.
    Over(BTreeSet<TransportId>),
}

impl Default for Rehearsal {
    fn default() -> Self {
        Self::Over(BTreeSet::new())
    }
}

impl Rehearsal {
    pub(super) fn goes_on(&self) -> bool {
        matches!(self, Self::GoesOn(_))
    }

    /// Whether a transport that is asked for was rehearsed. Then it is there, and from now on it is no rehearsal any more.
    fn claim(&mut self, transport: TransportId) -> bool {
        match self {
            Self::GoesOn(_) => false,
            Self::Over(unclaimed) => unclaimed.remove(&transport),
        }
    }
}

/// Where all goes that is sent in a rehearsal.
#[derive(Debug)]
pub(super) struct Nowhere;

impl Sink for Nowhere {
    fn send(&mut self, _: TransportIx, _: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        Sent::all(train.len().div_ceil(segment.max(1)))
    }

    fn gather(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        self.send(transport, owner, train, segment)
    }

    fn send_rtcp(&mut self, _: TransportIx, _: &[u8]) {}

    fn resend(&mut self, _: TransportIx, _: &[u8]) -> bool {
        false
    }
}

impl<S: Shell> EventLoop<S> {
    /// Begins one.
    pub(super) fn rehearse(&mut self) -> Result<Reply, WorkerError> {
        if self.rehearsal.goes_on() || self.relay.counts().0 > 0 {
            return Err(WorkerError::invalid("only a process without rooms can rehearse"));
        }
        self.rehearsal = Rehearsal::GoesOn(replace(self.relay.page_mut(), Page::nowhere()));
        Ok(Reply::Done)
    }

    /// Does what is asked of a process that rehearses.
    pub(super) fn handle_rehearsed(
        &mut self,
        now: Time,
        method: &Method,
        descriptors: &[OwnedFd],
    ) -> Result<Reply, WorkerError> {
        if !descriptors.is_empty() {
            return Err(WorkerError::descriptors(0, descriptors.len()));
        }
        match method {
            Method::Ping => Ok(Reply::Done),
            Method::Shutdown => {
                self.is_leaving = true;
                Ok(Reply::Done)
            }
            Method::RehearsalEnded => Ok(self.end_rehearsal()),
            method if method.is_rehearsed() => self.relay.handle_command(now, method),
            _ => Err(WorkerError::invalid("this cannot be rehearsed")),
        }
    }

    fn end_rehearsal(&mut self) -> Reply {
        let transports = self.relay.transport_ids().collect();
        if let Rehearsal::GoesOn(page) = replace(&mut self.rehearsal, Rehearsal::Over(transports)) {
            self.relay.set_page(page);
        }
        Reply::Done
    }

    /// Makes the relay's part of a transport, or takes up the one that is there since the rehearsal.
    pub(super) fn make_in_relay(
        &mut self,
        now: Time,
        method: &Method,
        room: RoomId,
        transport: TransportId,
    ) -> Result<(), WorkerError> {
        match self.rehearsal.claim(transport) {
            true => self.relay.take_up_transport(now, room, transport),
            false => self.relay.handle_command(now, method).map(drop),
        }
    }

    /// Takes up what is on a room's transports.
    pub(super) fn take_up(
        &mut self,
        now: Time,
        room: RoomId,
        producers: &[ProducerId],
        consumers: &[ConsumerId],
    ) -> Result<Reply, WorkerError> {
        if !self.adoptions.contains(room) {
            return Err(WorkerError::invalid(format!("{room} is not being adopted")));
        }
        let unclaimed: Vec<_> = match &mut self.rehearsal {
            Rehearsal::Over(unclaimed) => self
                .relay
                .transports_of(room)
                .filter(|transport| unclaimed.remove(transport))
                .collect(),
            Rehearsal::GoesOn(_) => Vec::new(),
        };
        for transport in unclaimed {
            self.relay.handle_command(now, &Method::CloseTransport { transport })?;
        }
        let not_taken_up = self.relay.take_up(now, room, producers, consumers)?;
        Ok(Reply::TakenUp(not_taken_up))
    }

    /// What the relay wants done in a rehearsal is done by nobody.
    pub(super) fn drop_actions(&mut self) {
        self.relay.send_pending_byes(&mut Nowhere);
        while self.relay.poll_action().is_some() {}
        while self.relay.poll_notification().is_some() {}
    }
}
