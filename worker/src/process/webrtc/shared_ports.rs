//! Shared ports: finds the transport of what arrives there, and at the connected sockets beside them: of a check by the
//! username fragment in it, of all else by its tuple.
//!
//! Of what is for no transport only a count is kept. Of connections whose transport is not known yet at most
//! [`UNASSIGNED_MAX`] are kept. A tuple is known from its first authenticated check until its transport forgets it; so the
//! map of tuples has at most [`TUPLES_MAX`](crate::webrtc::ice::TUPLES_MAX) entries per transport, and only those who know a
//! password make them.

use std::net::SocketAddr;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use nix::errno::Errno;
use tracing::{debug, warn};
use weir_channel::message::{Counts, IceProtocol, IceTuple, UnroutedReason, WorkerError};

use crate::boundary::{self, Parser};
use crate::net::poll::{Interest, Source};
use crate::net::receive::Received;
use crate::net::shell::{PollBackend, Shell};
use crate::net::sockets::{Accepted, FirstPacket, UnassignedConnection};
use crate::relay::datagram::Datagram;
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::budget::Budget;
use crate::webrtc::demux::{Kind, classify};
use crate::webrtc::stun;
use crate::webrtc::transport::Dropped;

use super::connections::{ACCEPT_PAUSE, ACCEPTED_MAX, CHECK_TIME_MAX, close_connection, tuple_of};
use super::eviction::to_evict;
use super::{IoContext, TransportEntry, WebRtc};

/// The most connections of a worker whose transport is not known yet. One more replaces the oldest.
const UNASSIGNED_MAX: usize = 256;

/// How often a transport may request a socket: its peer decides how often it moves.
const SOCKET_REQUESTS: Budget = Budget::new(1, 4);

/// A transport that got no socket may request it again after this.
const SOCKET_REQUEST_INTERVAL: Duration = Duration::from_secs(60);

/// The transports that are reached through shared ports, and by what they are found.
#[derive(Default)]
pub(super) struct SharedPorts {
    /// By username fragment, the current one and the one before an ICE restart.
    ufrags: HashMap<Box<[u8]>, TransportIx, RandomState>,
    tuples: HashMap<IceTuple, TransportIx, RandomState>,
    unassigned: Vec<Option<Box<UnassignedConnection>>>,
    /// When the oldest of them has waited for too long.
    unassigned_due: Option<Time>,
    /// Until when no connections are accepted, because the kernel could not take any more.
    accept_paused_until: Option<Time>,
    /// Whether transports request connected sockets.
    pub(super) uses_connected: bool,
    unrouted: Counts<UnroutedReason>,
    /// What is left of a batch after its checks, with the transport of each datagram.
    rest: Vec<(TransportIx, Datagram)>,
    group: Vec<Datagram>,
}

/// A transport's entry at the shared ports.
#[derive(Debug)]
pub(super) struct Registration {
    /// The username fragments under which it is known.
    ufrags: Vec<Box<[u8]>>,
    /// The connected socket that it requested last, and when.
    requested: Option<(IceTuple, Time)>,
    request_budget: Budget,
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

    /// A transport is reached by a tuple, which nobody else is.
    pub(super) fn note_tuple(&mut self, transport: TransportIx, tuple: IceTuple) {
        self.tuples.entry(tuple).or_insert(transport);
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
                    .is_some_and(|one| now >= one.connection().accepted_at() + CHECK_TIME_MAX)
                {
                    *place = None;
                    self.unrouted.add(UnroutedReason::ConnectionSilent, 1);
                }
            }
            let waiting = self.unassigned.iter().flatten();
            let first = waiting.map(|one| one.connection().accepted_at()).min();
            self.unassigned_due = first.map(|accepted_at| accepted_at + CHECK_TIME_MAX);
        }
        self.accept_paused_until.take_if(|until| *until <= now).is_some()
    }

    /// The transport that a STUN packet is for.
    fn transport_of_check(&self, tuple: &IceTuple, packet: &[u8]) -> Option<TransportIx> {
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
    fn keep_unassigned(&mut self, connection: UnassignedConnection) -> u16 {
        self.unassigned_due
            .get_or_insert(connection.connection().accepted_at() + CHECK_TIME_MAX);
        let vacant = self.unassigned.iter().position(Option::is_none);
        let place = vacant.unwrap_or_else(|| {
            if self.unassigned.len() < UNASSIGNED_MAX {
                self.unassigned.push(None);
                return self.unassigned.len() - 1;
            }
            self.unrouted.add(UnroutedReason::ConnectionEvicted, 1);
            let all = self.unassigned.iter().flatten().map(|one| one.connection()).enumerate();
            to_evict(all.map(|(place, one)| (place, one.remote().ip(), one.accepted_at()))).unwrap_or(0)
        });
        self.unassigned[place] = Some(Box::new(connection));
        place as u16
    }
}

impl WebRtc {
    /// Sets whether transports on shared ports request connected sockets.
    pub(in crate::process) fn use_connected_sockets(&mut self, connected: bool) {
        self.shared_ports.uses_connected = connected;
    }

    /// Packets and connections that were for no transport.
    pub(in crate::process) fn unrouted(&self) -> &Counts<UnroutedReason> {
        &self.shared_ports.unrouted
    }

    /// Counts packets that were for no transport.
    pub(in crate::process) fn count_unrouted(&mut self, reason: UnroutedReason, more: u64) {
        self.shared_ports.unrouted.add(reason, more);
    }

    /// Whether a transport on shared ports still sends to this tuple.
    pub(in crate::process) fn wants_socket(&self, transport: TransportIx, tuple: IceTuple) -> bool {
        self.entry(transport)
            .is_some_and(|entry| entry.registration.is_some() && entry.route == Some(tuple))
    }

    /// Takes what arrived at a shared port, or at the socket on that port that is connected to the peer of `owner`.
    pub(in crate::process) fn handle_shared_port_batch(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        local: SocketAddr,
        owner: Option<TransportIx>,
        received: Received<'_>,
    ) {
        io.egress.begin_batch(&received);
        let Received { bytes, datagrams, .. } = received;
        let tuple = |remote| IceTuple {
            protocol: IceProtocol::Udp,
            local,
            remote,
        };
        let mut rest = std::mem::take(&mut self.shared_ports.rest);
        for datagram in datagrams.iter() {
            io.relay.note_suspect(owner, datagram.source);
            let has_checks = packets_of(datagram).any(|packet| is_check(bytes, &packet));
            if has_checks {
                for packet in packets_of(datagram) {
                    if !is_check(bytes, &packet) {
                        continue;
                    }
                    self.handle_check(now, io, tuple(datagram.source), bytes, packet);
                }
            }
            let whose = owner.or_else(|| self.shared_ports.tuples.get(&tuple(datagram.source)).copied());
            let others = packets_of(datagram).filter(|packet| !is_check(bytes, packet));
            match whose {
                None => {
                    let others = others.count() as u64;
                    self.shared_ports.unrouted.add(UnroutedReason::ForeignSource, others);
                }
                Some(transport) if has_checks => rest.extend(others.map(|packet| (transport, packet))),
                Some(transport) => rest.push((transport, *datagram)),
            }
        }
        let mut group = std::mem::take(&mut self.shared_ports.group);
        while let Some((transport, _)) = rest.first().copied() {
            group.clear();
            rest.retain(|(whose, datagram)| {
                let is_its = *whose == transport;
                if is_its {
                    group.push(*datagram);
                }
                !is_its
            });
            if let Some(first) = group.first() {
                io.relay.note_suspect(Some(transport), first.source);
            }
            // Each datagram has its own remote end.
            self.handle_datagrams(now, io, transport, tuple(local), bytes, &group);
        }
        (self.shared_ports.rest, self.shared_ports.group) = (rest, group);
        io.egress.end_batch();
    }

    /// Takes a STUN packet. It is for the transport that it names, even if its tuple was another transport's before.
    fn handle_check(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        tuple: IceTuple,
        bytes: &mut [u8],
        packet: Datagram,
    ) {
        if packet.len as usize > stun::MESSAGE_BYTES_MAX {
            return self.count_unrouted(UnroutedReason::TooLong, 1);
        }
        let Some(transport) = self.shared_ports.transport_of_check(&tuple, &bytes[packet.range()]) else {
            return self.count_unrouted(UnroutedReason::BadCheck, 1);
        };
        // Who can write another client's address into its checks does not so take it away.
        let owner = self
            .shared_ports
            .tuples
            .get(&tuple)
            .filter(|owner| **owner != transport);
        let owner = owner.and_then(|owner| self.entry(*owner));
        if owner.is_some_and(|owner| owner.transport.keeps_tuple(now, &tuple)) {
            return self.count_unrouted(UnroutedReason::ForeignSource, 1);
        }
        self.handle_datagrams(now, io, transport, tuple, bytes, &[packet]);
        let is_valid = self
            .entry(transport)
            .is_some_and(|entry| entry.transport.admit_media(&tuple) != Err(Dropped::UnknownTuple));
        if !is_valid {
            return;
        }
        // Another peer has this address now, or the same peer has begun a new session.
        if let Some(before) = self.shared_ports.tuples.insert(tuple, transport)
            && before != transport
        {
            self.with(now, io, before, |entry, output, _| {
                entry.transport.handle_connection_closed(now, &tuple, output);
            });
        }
    }

    /// Accepts the connections that wait at a shared port.
    pub(in crate::process) fn accept_at_shared_port(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        port: u8,
    ) {
        for _ in 0..ACCEPTED_MAX {
            match io.egress.sockets.accept_at_shared_port(now, port) {
                Ok(Accepted::None) => break,
                Ok(Accepted::Lost) => {}
                Ok(Accepted::Connection(connection)) => {
                    let number = self.shared_ports.keep_unassigned(connection);
                    self.watch_unassigned(io, number);
                }
                Err(errno) => {
                    debug!(%errno, "no more connections can be accepted");
                    self.shared_ports.accept_paused_until = Some(now + ACCEPT_PAUSE);
                    // A listening socket is never writable.
                    watch_shared_ports(io, Interest::Write);
                    break;
                }
            }
        }
    }

    fn watch_unassigned(&mut self, io: &IoContext<'_, impl Shell>, number: u16) {
        let Some(Some(unassigned)) = self.shared_ports.unassigned.get(usize::from(number)) else {
            return;
        };
        let source = Source::Unassigned { number };
        if let Err(errno) = io.poller.add(unassigned.connection().socket(), source, Interest::Read) {
            warn!(%errno, "epoll_ctl");
            self.shared_ports.unassigned[usize::from(number)] = None;
        }
    }

    /// The other end of a connection whose transport is not known yet.
    pub(in crate::process) fn remote_of_unassigned(&self, number: u16) -> Option<SocketAddr> {
        let unassigned = self.shared_ports.unassigned.get(usize::from(number))?.as_ref()?;
        Some(unassigned.connection().remote())
    }

    /// Closes such a connection, whose other end is in quarantine.
    pub(in crate::process) fn refuse_unassigned(&mut self, number: u16) {
        if let Some(place) = self.shared_ports.unassigned.get_mut(usize::from(number)) {
            *place = None;
            self.count_unrouted(UnroutedReason::Quarantined, 1);
        }
    }

    /// Reads on in a connection whose transport is not known yet. Returns how many packets and bytes were handled.
    pub(in crate::process) fn read_unassigned(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        number: u16,
    ) -> (u64, u64) {
        let Some(place) = self.shared_ports.unassigned.get_mut(usize::from(number)) else {
            return (0, 0);
        };
        let Some(mut unassigned) = place.take() else {
            return (0, 0);
        };
        let whose = match unassigned.read() {
            FirstPacket::Incomplete => {
                *place = Some(unassigned);
                return (0, 0);
            }
            FirstPacket::Never => {
                self.count_unrouted(UnroutedReason::ConnectionSilent, 1);
                return (0, 0);
            }
            FirstPacket::Complete => {
                let tuple = tuple_of(unassigned.connection());
                let packet = unassigned.packet_mut();
                let is_check = classify(packet) == Kind::Stun;
                self.shared_ports
                    .transport_of_check(&tuple, packet)
                    .filter(|_| is_check)
                    .map(|transport| (transport, tuple))
            }
        };
        let Some((transport, tuple)) = whose else {
            self.count_unrouted(UnroutedReason::BadCheck, 1);
            return (0, 0);
        };
        let port = unassigned.connection().listener();
        let (connection, mut packet) = unassigned.into_connection();
        let sockets = &mut io.egress.sockets;
        let Some(number) = sockets.adopt_connection(transport, connection) else {
            self.count_unrouted(UnroutedReason::ConnectionEvicted, 1);
            return (0, 0);
        };
        let watched = sockets
            .connection(transport, number)
            .map_or(Err(Errno::EBADF), |connection| {
                io.poller.remove(connection.socket())?;
                let source = connection.source(transport, number);
                io.poller.add(connection.socket(), source, Interest::Read)
            });
        if let Err(errno) = watched {
            warn!(%errno, "epoll_ctl");
            close_connection(io, transport, number);
            return (0, 0);
        }
        let len = packet.len() as u32;
        let first = Datagram {
            start: 0,
            len,
            segment: len.max(1),
            source: tuple.remote,
        };
        self.handle_datagrams(now, io, transport, tuple, &mut packet, &[first]);
        self.trust_connection(io, transport, tuple, number);
        self.limit_connections(io, transport, port);
        self.handle_events(now, io, transport);
        (1, u64::from(len))
    }
}

impl TransportEntry {
    /// The tuple for which a connected socket should be requested now: that of a peer that has proven who it is.
    pub(super) fn socket_to_request(
        &mut self,
        now: Time,
        io: &IoContext<'_, impl Shell>,
        transport: TransportIx,
        uses_connected: bool,
    ) -> Option<IceTuple> {
        let registration = self.registration.as_mut().filter(|_| uses_connected)?;
        let tuple = *self
            .transport
            .media_tuple()
            .filter(|tuple| tuple.protocol == IceProtocol::Udp)?;
        io.egress.sockets.sends_through(transport)?;
        let is_due = registration
            .requested
            .is_none_or(|(requested, at)| requested != tuple || now >= at + SOCKET_REQUEST_INTERVAL);
        if !is_due || !registration.request_budget.take(now) {
            return None;
        }
        registration.requested = Some((tuple, now));
        Some(tuple)
    }
}

/// Stops watching a transport's connected socket, which is about to be closed: the supervisor may hold it too for a moment.
pub(super) fn unwatch_connected(io: &IoContext<'_, impl Shell>, transport: TransportIx) {
    if let Some((path, _)) = io.egress.sockets.sending_socket(transport)
        && let Err(errno) = io.poller.remove(path)
    {
        debug!(%errno, "epoll_ctl");
    }
}

/// Changes what is waited for at the shared TCP ports.
pub(super) fn watch_shared_ports(io: &IoContext<'_, impl Shell>, interest: Interest) {
    let sockets = &io.egress.sockets;
    sockets.each_shared_port(|number, socket| {
        if matches!(sockets.shared_port_at(number), Some((IceProtocol::Tcp, _))) {
            io.poller.rewatch(socket, Source::SharedPort { number }, interest);
        }
    });
}

/// The packets of a datagram, each as one; also of an empty one.
fn packets_of(datagram: &Datagram) -> impl Iterator<Item = Datagram> + use<> {
    let whole = *datagram;
    let segment = whole.segment.max(1);
    (0..whole.len.div_ceil(segment).max(1)).map(move |index| {
        let offset = index * segment;
        let len = segment.min(whole.len - offset);
        Datagram {
            start: whole.start + offset,
            len,
            segment: len.max(1),
            source: whole.source,
        }
    })
}

fn is_check(bytes: &[u8], packet: &Datagram) -> bool {
    bytes
        .get(packet.range())
        .is_some_and(|packet| classify(packet) == Kind::Stun)
}
