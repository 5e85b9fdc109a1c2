//! Sockets and the network between them, in virtual time. Descriptors are real ones, bound and connected by the kernel, to which
//! nothing is ever sent: packets wait here, under the addresses that the kernel knows the sockets by.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, getpeername, getsockname};
use weir_worker::net::poll::{Event, Interest, Source};
use weir_worker::net::receive::Received;
use weir_worker::net::send::{Destination, Message, Route, SendBackend};
use weir_worker::net::shell::{PollBackend, ReceiveBackend, Shell};
use weir_worker::net::source::Side;
use weir_worker::page::memory::HeapPage;
use weir_worker::relay::datagram::Datagram;
use weir_worker::time::{Time, WallClock};

use super::sim::random::Random;
use crate::server::model::ids::seeded;
use crate::server::workers::simulated;

/// At the beginning of time it is 2026-01-01T00:00:00Z.
const WALL_CLOCK_NS: u64 = 1_767_225_600_000_000_000;

/// What time it is.
pub(super) fn now() -> Time {
    Time(simulated::now_ns().expect("a simulation runs on this thread"))
}

/// The ground that simulated workers stand on.
pub(super) struct Virtual;

impl Shell for Virtual {
    type Send = Sender;
    type Receive = Receiver;
    type Poll = Poll;

    fn monotonic() -> Time {
        now()
    }

    fn realtime_ns() -> u64 {
        WALL_CLOCK_NS + now().0
    }

    fn wall_clock() -> WallClock {
        WallClock::new(Time(0), WALL_CLOCK_NS)
    }

    fn seed() -> u64 {
        seeded::next().expect("a simulation runs on this thread")
    }
}

/// A packet that left a worker.
#[derive(Clone, Debug)]
pub(super) struct Left {
    pub(super) at: Time,
    pub(super) to: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// What waits in sockets, and what has left them.
#[derive(Debug, Default)]
pub(super) struct Network {
    /// By the address that they were sent to: from where, what.
    waiting: BTreeMap<SocketAddr, VecDeque<(SocketAddr, Vec<u8>)>>,
    /// What the connected sockets are connected to, as far as it was looked at.
    connected: BTreeMap<SocketAddr, Option<SocketAddr>>,
    left: VecDeque<Left>,
}

pub(super) type Shared = Rc<RefCell<Network>>;

/// A socket holds no more.
const WAITING_MAX: usize = 2_000;

impl Network {
    /// A packet arrives at a socket, whether anybody reads it or not.
    pub(super) fn deliver(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        let waiting = self.waiting.entry(to).or_default();
        if waiting.len() < WAITING_MAX {
            waiting.push_back((from, bytes));
        }
    }

    /// The next packet that has left.
    pub(super) fn next_left(&mut self) -> Option<Left> {
        self.left.pop_front()
    }

    /// Whether the connected one of a port's sockets has something, and the other one.
    fn readable(&self, local: SocketAddr) -> (bool, bool) {
        let peer = self.connected.get(&local).copied().flatten();
        let waiting = self.waiting.get(&local);
        let of_peer = waiting.map_or(0, |waiting| {
            waiting.iter().filter(|(from, _)| Some(*from) == peer).count()
        });
        (of_peer > 0, waiting.is_some_and(|waiting| waiting.len() > of_peer))
    }
}

fn address(stored: SockaddrStorage) -> Option<SocketAddr> {
    let v4 = stored.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| stored.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}

fn local_of(socket: RawFd) -> Option<SocketAddr> {
    getsockname::<SockaddrStorage>(socket).ok().and_then(address)
}

/// What a socket is connected to; one that is connected to itself is parked.
fn peer_of(socket: RawFd) -> Option<SocketAddr> {
    let peer = getpeername::<SockaddrStorage>(socket).ok().and_then(address)?;
    (Some(peer) != local_of(socket)).then_some(peer)
}

/// Takes packets to the network.
pub(super) struct Sender {
    pub(super) network: Shared,
    /// Whose death ends it all.
    pub(super) page: Arc<HeapPage>,
    /// Now and then a socket is full.
    pub(super) random: Random,
    pub(super) full: usize,
}

impl Sender {
    fn send(&mut self, socket: BorrowedFd<'_>, to: Option<&Destination>, bytes: &[u8]) -> Result<(), Errno> {
        if self.page.is_dead() {
            return Ok(());
        }
        if self.random.chance(self.full) {
            return Err(Errno::EAGAIN);
        }
        let to = match to {
            Some(destination) => destination.address(),
            None => peer_of(socket.as_raw_fd()).ok_or(Errno::EDESTADDRREQ)?,
        };
        let left = Left {
            at: now(),
            to,
            bytes: bytes.to_vec(),
        };
        self.network.borrow_mut().left.push_back(left);
        Ok(())
    }

    fn send_message(&mut self, route: Route<'_>, bytes: &[u8], message: Message) -> Result<(), Errno> {
        if self.random.chance(self.full) {
            return Err(Errno::EAGAIN);
        }
        // A message is taken whole or not at all.
        let full = std::mem::take(&mut self.full);
        let sent = message.singles().try_for_each(|single| {
            self.send(
                route.socket,
                route.destination,
                &bytes[single.start..single.start + single.len],
            )
        });
        self.full = full;
        sent
    }
}

impl SendBackend for Sender {
    fn send_packet<'a>(&mut self, route: impl Into<Route<'a>>, packet: &[u8]) -> Result<(), Errno> {
        let route = route.into();
        self.send(route.socket, route.destination, packet)
    }

    fn send_train<'a>(&mut self, route: impl Into<Route<'a>>, train: &[u8], segment: usize) -> Result<(), Errno> {
        self.send_message(route.into(), train, Message::whole(train.len(), segment))
    }

    fn send_batch<'a>(
        &mut self,
        route: impl Into<Route<'a>>,
        bytes: &[u8],
        messages: &[Message],
    ) -> Result<usize, Errno> {
        let route = route.into();
        for (sent, message) in messages.iter().enumerate() {
            match self.send_message(route, bytes, *message) {
                Err(errno) if sent == 0 => return Err(errno),
                Err(_) => return Ok(sent),
                Ok(()) => {}
            }
        }
        Ok(messages.len())
    }

    fn send_scattered(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
        messages: &[(Message, Destination)],
    ) -> Result<usize, Errno> {
        for (sent, (message, destination)) in messages.iter().enumerate() {
            let route = Route {
                socket,
                destination: Some(destination),
            };
            match self.send_message(route, bytes, *message) {
                Err(errno) if sent == 0 => return Err(errno),
                Err(_) => return Ok(sent),
                Ok(()) => {}
            }
        }
        Ok(messages.len())
    }
}

/// Takes packets from the network.
pub(super) struct Receiver {
    pub(super) network: Shared,
    pub(super) random: Random,
    bytes: Vec<u8>,
    datagrams: Vec<Datagram>,
    arrivals: Vec<u64>,
    calls: u64,
}

impl Receiver {
    pub(super) fn new(network: Shared, random: Random) -> Self {
        Self {
            network,
            random,
            bytes: Vec::new(),
            datagrams: Vec::new(),
            arrivals: Vec::new(),
            calls: 0,
        }
    }
}

impl ReceiveBackend for Receiver {
    fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> Result<Received<'_>, Errno> {
        self.calls += 1;
        self.bytes.clear();
        self.datagrams.clear();
        let local = local_of(socket.as_raw_fd()).ok_or(Errno::EBADF)?;
        let is_connected = getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok();
        let mut network = self.network.borrow_mut();
        let peer = network.connected.get(&local).copied().flatten();
        let waiting = network.waiting.entry(local).or_default();
        let mut left = VecDeque::new();
        for (from, packet) in std::mem::take(waiting) {
            let is_ours = (Some(from) == peer) == is_connected;
            if !is_ours || self.datagrams.len() >= limit {
                left.push_back((from, packet));
                continue;
            }
            // The kernel joins packets of one length that come one after the other.
            let joins = self.random.chance(500);
            let last = self.datagrams.last_mut().filter(|last| {
                joins
                    && last.source == from
                    && packet.len() as u32 <= last.segment
                    && last.len % last.segment == 0
                    && last.len + (packet.len() as u32) < 60_000
            });
            match last {
                Some(last) => last.len += packet.len() as u32,
                None => self.datagrams.push(Datagram {
                    start: self.bytes.len() as u32,
                    len: packet.len() as u32,
                    segment: (packet.len() as u32).max(1),
                    source: from,
                }),
            }
            self.bytes.extend_from_slice(&packet);
        }
        let is_full = !left.is_empty();
        *waiting = left;
        self.arrivals.clear();
        self.arrivals.resize(self.datagrams.len(), 0);
        Ok(Received {
            stride: self.bytes.len().max(1),
            bytes: &mut self.bytes,
            datagrams: &mut self.datagrams,
            arrivals: &mut self.arrivals,
            truncated: 0,
            drop_count: None,
            is_full,
        })
    }

    fn calls(&self) -> u64 {
        self.calls
    }
}

#[derive(Clone, Copy, Debug)]
struct Watched {
    descriptor: RawFd,
    local: Option<SocketAddr>,
    interest: Interest,
}

/// Which of a port's sockets it is, and the connected one of them.
fn sides(source: Source) -> Option<(Side, Source)> {
    match source {
        Source::Socket { transport, port, side } => {
            let connected = Source::Socket {
                transport,
                port,
                side: Side::Connected,
            };
            Some((side, connected))
        }
        Source::Listener {
            transport,
            listener,
            side,
        } => {
            let connected = Source::Listener {
                transport,
                listener,
                side: Side::Connected,
            };
            Some((side, connected))
        }
        _ => None,
    }
}

/// What a worker watches.
#[derive(Debug, Default)]
pub(super) struct Watching(BTreeMap<Source, Watched>);

impl Watching {
    /// How many sockets, without the channel.
    pub(super) fn sockets(&self) -> usize {
        self.0.keys().filter(|source| **source != Source::Channel).count()
    }

    /// What is ready of the sockets.
    pub(super) fn ready(&self, network: &mut Network) -> Vec<Event> {
        let mut ready = Vec::new();
        for (source, watched) in &self.0 {
            let (Some(local), Some((side, connected))) = (watched.local, sides(*source)) else {
                continue;
            };
            let is_written = matches!(watched.interest, Interest::ReadWrite | Interest::Write);
            if network.waiting.get(&local).is_none_or(VecDeque::is_empty) && !is_written {
                continue;
            }
            let connected = self.0.get(&connected);
            let peer = connected.and_then(|connected| peer_of(connected.descriptor));
            network.connected.insert(local, peer);
            let (of_peer, of_others) = network.readable(local);
            let is_readable = match side {
                Side::Connected => of_peer,
                Side::Unconnected => of_others,
            };
            if is_readable || is_written {
                ready.push(Event {
                    source: *source,
                    is_readable,
                    is_writable: is_written,
                });
            }
        }
        ready
    }
}

/// Says what is ready, and never waits: whoever runs the worker does.
pub(super) struct Poll {
    pub(super) network: Shared,
    pub(super) watching: Rc<RefCell<Watching>>,
    open: Vec<Event>,
    calls: u64,
}

impl Poll {
    pub(super) fn new(network: Shared) -> Self {
        Self {
            network,
            watching: Rc::default(),
            open: Vec::new(),
            calls: 0,
        }
    }
}

impl PollBackend for Poll {
    fn add(&self, descriptor: BorrowedFd<'_>, source: Source, interest: Interest) -> Result<(), Errno> {
        let descriptor = descriptor.as_raw_fd();
        let mut watching = self.watching.borrow_mut();
        if watching.0.values().any(|watched| watched.descriptor == descriptor) {
            return Err(Errno::EEXIST);
        }
        let watched = Watched {
            descriptor,
            local: local_of(descriptor),
            interest,
        };
        watching.0.insert(source, watched);
        Ok(())
    }

    fn modify(&self, descriptor: BorrowedFd<'_>, source: Source, interest: Interest) -> Result<(), Errno> {
        let mut watching = self.watching.borrow_mut();
        let watched = watching.0.get_mut(&source);
        let watched = watched.filter(|watched| watched.descriptor == descriptor.as_raw_fd());
        watched.ok_or(Errno::ENOENT)?.interest = interest;
        Ok(())
    }

    fn rewatch(&self, descriptor: BorrowedFd<'_>, source: Source, interest: Interest) {
        let watched = self.modify(descriptor, source, interest);
        assert_eq!(watched, Ok(()), "{source:?} is not watched");
    }

    fn remove(&self, descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
        let mut watching = self.watching.borrow_mut();
        let before = watching.0.len();
        watching
            .0
            .retain(|_, watched| watched.descriptor != descriptor.as_raw_fd());
        if watching.0.len() == before {
            Err(Errno::ENOENT)
        } else {
            Ok(())
        }
    }

    /// It waits for nothing in the kernel.
    fn move_to(&mut self, _: [OwnedFd; 2], _: BorrowedFd<'_>, _: Interest) -> Result<(), Errno> {
        let watches_more = self.watching.borrow().0.keys().any(|source| *source != Source::Channel);
        if watches_more { Err(Errno::EBUSY) } else { Ok(()) }
    }

    fn wait(&mut self, _: Option<Duration>, ready: &mut Vec<Event>) -> Result<(), Errno> {
        self.calls += 1;
        let found = self.watching.borrow().ready(&mut self.network.borrow_mut());
        ready.clear();
        ready.push(Event {
            source: Source::Channel,
            is_readable: true,
            is_writable: true,
        });
        ready.extend(found.iter().filter(|event| !event.source.is_open()));
        self.open = found.into_iter().filter(|event| event.source.is_open()).collect();
        Ok(())
    }

    fn is_open_ready(&self) -> bool {
        !self.open.is_empty()
    }

    fn poll_open(&mut self, ready: &mut Vec<Event>) -> Result<(), Errno> {
        *ready = std::mem::take(&mut self.open);
        Ok(())
    }

    fn wait_for_channel(&self, _: BorrowedFd<'_>, _: Interest, _: Duration) {}

    fn calls(&self) -> u64 {
        self.calls
    }
}
