//! Rooms that another worker has served, which is dead: between the two messages that begin and end it, what is made of such a
//! room continues what the other's page says. Until it ends, nothing is read from the room's sockets, and until the last one ends, nothing
//! from shared ports: what comes waits in them for those that it is for.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Weak};
use std::time::Duration;

use nix::errno::Errno;
use tracing::{debug, warn};
use weir_channel::id::RoomId;
use weir_channel::message::{Reply, WorkerError};
use weir_channel::page::Page;

use crate::net::page::MappedPage;
use crate::net::poll::{Interest, Source};
use crate::net::shell::{PollBackend, Shell};
use crate::net::sockets::{Side, os};
use crate::page::predecessor::{self, Predecessor, Unreadable};
use crate::relay::sink::TransportIx;
use crate::time::Time;

use super::event_loop::EventLoop;

/// So many sockets are begun to be watched in a turn, when that is not urgent: it takes some 100 µs.
const WATCHED_AT_ONCE_MAX: usize = 64;

/// For so long rooms are made before anything is relayed. What relays in between makes whoever comes last wait for the packets of all who were
/// first: on a CPU that is busy anyway several times as long as the making takes. When there is more to make than fits into this, the first
/// ones do not wait for the last.
const BEFORE_PACKETS_MAX: Duration = Duration::from_millis(60);

/// Sockets to which nothing comes but what receivers say are watched so long after the last room is there: what has waited is relayed by then.
const WATCHED_AFTER: Duration = Duration::from_millis(50);

/// The rooms that are being adopted.
#[derive(Debug, Default)]
pub(super) struct Adoptions {
    rooms: BTreeMap<RoomId, Adoption>,
    /// Until when making them comes before relaying.
    before_packets_until: Time,
    /// From when on sockets are watched that were left for later.
    watched_from: Time,
    /// Those whose sockets nobody has read for too long.
    stale: BTreeSet<RoomId>,
    /// Sockets that are watched when all rooms are there: strangers come to them, or nothing but what receivers say.
    later: Vec<Source>,
    /// And so nobody has read shared ports.
    are_shared_ports_stale: bool,
    /// The pages that are read, by their writers: hundreds of rooms come from one page, in which all objects were looked for once.
    pages: Vec<(u64, Weak<Predecessor>)>,
}

#[derive(Debug, Default)]
struct Adoption {
    /// The transports that were made of the room.
    transports: Vec<TransportIx>,
    /// Something that was left of it cannot be read, or nothing was left.
    is_incomplete: bool,
}

impl Adoptions {
    /// Whether no room is being adopted.
    pub(super) fn is_empty(&self) -> bool {
        self.rooms.is_empty()
    }

    /// Whether rooms are made before anything is relayed.
    pub(super) fn come_before_packets(&self, now: Time) -> bool {
        !self.rooms.is_empty() && now < self.before_packets_until
    }

    /// When sockets are to be watched that were left for later.
    pub(super) fn watching_due(&self) -> Option<Time> {
        (self.rooms.is_empty() && !self.later.is_empty()).then_some(self.watched_from)
    }

    /// Whether that is now.
    pub(super) fn has_to_watch(&self, now: Time) -> bool {
        self.watching_due().is_some_and(|due| due <= now)
    }

    /// Whether all can be read that was left of a room. If not, what was made of it before may look as if it had never been.
    pub(super) fn is_everything_read(&self, room: RoomId) -> bool {
        self.rooms.get(&room).is_some_and(|adoption| !adoption.is_incomplete)
    }

    /// Whether a room is being adopted.
    pub(super) fn contains(&self, room: RoomId) -> bool {
        self.rooms.contains_key(&room)
    }

    /// A transport was made: whether its sockets are to be left alone for now.
    pub(super) fn hold(&mut self, room: RoomId, transport: TransportIx) -> bool {
        let held = self.rooms.get_mut(&room);
        held.map(|adoption| adoption.transports.push(transport)).is_some()
    }

    /// A page, unless it cannot be read.
    fn read(&mut self, page: &Page) -> Result<Result<Arc<Predecessor>, Unreadable>, Errno> {
        let mapped = MappedPage::map(page)?;
        let writer = predecessor::writer_of(mapped.as_ref());
        self.pages.retain(|(_, page)| page.strong_count() > 0);
        let known = self.pages.iter().find(|(known, _)| *known == writer);
        if let Some(known) = known.and_then(|(_, page)| page.upgrade()) {
            return Ok(Ok(known));
        }
        let opened = Predecessor::open(Arc::new(mapped)).map(Arc::new);
        if let Ok(opened) = &opened {
            self.pages.push((writer, Arc::downgrade(opened)));
        }
        Ok(opened)
    }
}

impl<S: Shell> EventLoop<S> {
    /// What comes of this room until its adoption ends is continued.
    pub(super) fn adopt(
        &mut self,
        now: Time,
        room: RoomId,
        pages: u8,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, WorkerError> {
        if descriptors.len() != usize::from(pages) {
            return Err(WorkerError::descriptors(usize::from(pages), descriptors.len()));
        }
        if self.adoptions.contains(room) {
            return Err(WorkerError::invalid(format!("{room} is being adopted already")));
        }
        let (mut left, mut is_incomplete) = (Vec::with_capacity(descriptors.len()), descriptors.is_empty());
        for descriptor in descriptors {
            let page = Page::recognize(descriptor).map_err(|error| WorkerError::invalid(error.to_string()))?;
            match self.adoptions.read(&page).map_err(|errno| os("mmap", errno))? {
                Ok(predecessor) => left.push(predecessor),
                // A process that was killed as it began has left nothing, and need not have.
                Err(Unreadable::NeverBegun) => {}
                // Then its objects are made anew.
                Err(error) => {
                    is_incomplete = true;
                    warn!(%error, %room, "a page cannot be read");
                }
            }
        }
        self.relay.begin_adoption(room, left);
        let adoption = Adoption {
            transports: Vec::new(),
            is_incomplete,
        };
        let is_first = self.adoptions.is_empty();
        self.adoptions.rooms.insert(room, adoption);
        if is_first {
            self.adoptions.before_packets_until = now + BEFORE_PACKETS_MAX;
            self.watch_shared_ports();
        }
        Ok(Reply::Done)
    }

    /// What waits in the sockets of a room is to be dropped when they are read.
    pub(super) fn drop_waiting(&mut self, room: RoomId) -> Result<Reply, WorkerError> {
        if !self.adoptions.contains(room) {
            return Err(WorkerError::invalid(format!("{room} is not being adopted")));
        }
        self.adoptions.stale.insert(room);
        Ok(Reply::Done)
    }

    /// Nothing else comes of what the room was: what waits in its sockets is for those who are there now.
    pub(super) fn end_adoption(&mut self, now: Time, room: RoomId) -> Result<Reply, WorkerError> {
        let Some(Adoption { transports, .. }) = self.adoptions.rooms.remove(&room) else {
            return Err(WorkerError::invalid(format!("{room} is not being adopted")));
        };
        self.relay.end_adoption(room);
        self.adoptions.watched_from = now + WATCHED_AFTER;
        let is_stale = self.adoptions.stale.remove(&room);
        self.adoptions.are_shared_ports_stale |= is_stale;
        for transport in transports {
            let sockets = &self.egress.sockets;
            let is_reached = sockets.remote(transport).is_some();
            let is_sent_to = is_reached || sockets.is_reached_by_ice(transport);
            let only_receives = is_sent_to && !is_stale && !self.relay.has_producers(transport);
            let mut add = |socket: BorrowedFd<'_>, source| {
                if is_stale {
                    self.sieve.drop_waiting(now, source);
                }
                if let Err(errno) = self.poller.add(socket, source, Interest::Read) {
                    debug!(%errno, "epoll_ctl");
                }
            };
            // One that was closed meanwhile has no sockets any more.
            self.egress.sockets.each(transport, |port, side, socket| {
                let source = Source::Socket { transport, port, side };
                match only_receives || (is_reached && side == Side::Unconnected && !is_stale) {
                    true => self.adoptions.later.push(source),
                    false => add(socket, source),
                }
            });
            self.egress.sockets.each_listener(transport, |listener, side, socket| {
                let source = Source::Listener {
                    transport,
                    listener,
                    side,
                };
                match only_receives {
                    true => self.adoptions.later.push(source),
                    false => add(socket, source),
                }
            });
            let (webrtc, mut io) = self.webrtc_and_io();
            webrtc.end_take_over(&mut io, transport);
        }
        if self.reads_shared_ports() {
            if std::mem::take(&mut self.adoptions.are_shared_ports_stale) {
                self.drop_waiting_at_shared_ports(now);
            }
            self.watch_shared_ports();
        }
        Ok(Reply::Done)
    }

    /// Packets wait until a transport's socket is writable, which is watched already, or now.
    pub(super) fn watch_blocked(&mut self, transport: TransportIx) {
        let sending = self.egress.sockets.sending_socket(transport);
        let blocked = sending.map(|(_, source)| source);
        match self.adoptions.later.iter().position(|later| Some(*later) == blocked) {
            Some(place) => {
                let source = self.adoptions.later.swap_remove(place);
                self.watch_left(source, Interest::ReadWrite);
            }
            None => self.webrtc_and_io().1.watch(transport, Interest::ReadWrite),
        }
    }

    /// Watches some of the sockets that were left for later.
    pub(super) fn watch_later(&mut self) {
        for _ in 0..WATCHED_AT_ONCE_MAX {
            let Some(source) = self.adoptions.later.pop() else {
                return;
            };
            self.watch_left(source, Interest::Read);
        }
    }

    fn watch_left(&self, source: Source, interest: Interest) {
        let sockets = &self.egress.sockets;
        let socket = match source {
            Source::Socket { transport, port, side } => sockets.get(transport, port, side),
            Source::Listener {
                transport,
                listener,
                side,
            } => sockets.listener(transport, listener, side),
            _ => None,
        };
        // Of a transport that was closed meanwhile there is nothing left, or another one that is watched already.
        if let Some(socket) = socket
            && let Err(errno) = self.poller.add(socket, source, interest)
        {
            debug!(%errno, "epoll_ctl");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::layout::Capacity;
    use crate::page::memory::Memory;

    fn page(writer: u64) -> Page {
        let page = Page::create().unwrap();
        let memory = Memory::mapped(MappedPage::map(&page).unwrap().leak());
        crate::page::Page::new(memory, Capacity::WORKER, writer);
        page
    }

    #[test]
    fn rooms_of_one_page_read_it_once() {
        let mut adoptions = Adoptions::default();
        let (one, other) = (page(1), page(2));
        let first = adoptions.read(&one).unwrap().unwrap();
        let same = adoptions.read(&one).unwrap().unwrap();
        let different = adoptions.read(&other).unwrap().unwrap();
        assert!(Arc::ptr_eq(&first, &same) && !Arc::ptr_eq(&first, &different));
        drop((first, same));
        adoptions.read(&one).unwrap().unwrap();
        assert_eq!(adoptions.pages.len(), 2, "what nobody needs any more is forgotten");
        let never_begun = Page::create().unwrap();
        assert!(matches!(adoptions.read(&never_begun), Ok(Err(Unreadable::NeverBegun))));
    }
}
