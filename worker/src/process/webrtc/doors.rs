//! Which transport something is for that has come by a door: a check by the name in it, all else by where it comes from.
//!
//! Of strangers nothing is kept but a count, and of connections that have not said for whom they are [`WAITING_MAX`]. A tuple is
//! known from its first authenticated check until its transport forgets it; so the map of tuples has at most
//! [`TUPLES_MAX`](crate::webrtc::ice::TUPLES_MAX) entries per transport, and only those who know a password make them.

use std::net::SocketAddr;
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use nix::errno::Errno;
use tracing::{debug, warn};
use weir_channel::message::{IceTuple, WorkerError};

use crate::boundary::{self, Parser};
use crate::net::poll::{Interest, Source};
use crate::net::receive::Received;
use crate::net::sockets::{AtDoor, FirstPacket, Waiting};
use crate::relay::datagram::Datagram;
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::budget::Budget;
use crate::webrtc::demux::{Kind, classify};
use crate::webrtc::ice::{Protocol, Tuple};
use crate::webrtc::stun;
use crate::webrtc::transport::Dropped;

use super::connections::{ACCEPTED_MAX, CHECK_TIME_MAX, REST};
use super::events::ice_tuple;
use super::{Around, Member, WebRtc};

/// Connections of a worker that have not said for whom they are. With one more, the one that came first goes.
const WAITING_MAX: usize = 256;

/// How often a transport may ask for a socket: its peer decides how often it moves.
const WISHES: Budget = Budget::new(1, 4);

/// Who was not given a socket may ask again after this.
const WISH_INTERVAL: Duration = Duration::from_secs(60);

/// What is known at the doors.
#[derive(Default)]
pub(super) struct Doors {
    /// By username fragment, the current one and the one before a restart.
    names: HashMap<Box<[u8]>, TransportIx, RandomState>,
    tuples: HashMap<Tuple, TransportIx, RandomState>,
    waiting: Vec<Option<Box<Waiting>>>,
    /// When one of those that wait has waited for too long.
    waiting_due: Option<Time>,
    /// Until when nobody is let in, because the kernel has no room for connections.
    rest_until: Option<Time>,
    /// Whether to ask for connected sockets.
    uses_connected: bool,
    strangers: u64,
    /// What is left of a batch when its checks are done, with whose it is.
    rest: Vec<(TransportIx, Datagram)>,
    group: Vec<Datagram>,
}

/// What a transport has that is reached through the doors.
#[derive(Debug)]
pub(super) struct Guest {
    /// The username fragments under which it is known.
    names: Vec<Box<[u8]>>,
    wish: Option<(Tuple, Time)>,
    wishes: Budget,
}

impl Default for Guest {
    fn default() -> Self {
        Self {
            names: Vec::with_capacity(2),
            wish: None,
            wishes: WISHES,
        }
    }
}

impl Doors {
    /// That a username fragment is nobody else's.
    pub(super) fn check_name(&self, of: Option<TransportIx>, name: &str) -> Result<(), WorkerError> {
        match self.names.get(name.as_bytes()) {
            Some(other) if Some(*other) != of => Err(WorkerError::InvalidParameters(
                "the username fragment is in use by another transport; choose another".to_owned(),
            )),
            _ => Ok(()),
        }
    }

    /// A transport has a name, or a new one beside the one that it had last.
    pub(super) fn rename(&mut self, transport: TransportIx, guest: &mut Guest, name: &str) {
        let name: Box<[u8]> = name.as_bytes().into();
        guest.names.retain(|other| *other != name);
        if guest.names.len() == 2 {
            self.names.remove(&guest.names.remove(0));
        }
        guest.names.push(name.clone());
        self.names.insert(name, transport);
    }

    /// A transport is closed.
    pub(super) fn forget(&mut self, transport: TransportIx, member: &Member) {
        for name in member.guest.iter().flat_map(|guest| &guest.names) {
            self.names.remove(name);
        }
        for tuple in member.transport.tuples() {
            self.forget_tuple(transport, &tuple);
        }
    }

    /// A transport has forgotten a tuple.
    pub(super) fn forget_tuple(&mut self, transport: TransportIx, tuple: &Tuple) {
        if self.tuples.get(tuple) == Some(&transport) {
            self.tuples.remove(tuple);
        }
    }

    /// Whether transports ask for connected sockets.
    pub(super) fn uses_connected(&self) -> bool {
        self.uses_connected
    }

    /// When [`Doors::handle_timeout`] has something to do.
    pub(super) fn due(&self) -> Option<Time> {
        [self.waiting_due, self.rest_until].into_iter().flatten().min()
    }

    /// Closes connections that have not said for whom they are, and lets others in again, if it is time.
    pub(super) fn handle_timeout(&mut self, now: Time, around: &mut Around<'_>) {
        if self.rest_until.is_some_and(|until| until <= now) {
            self.rest_until = None;
            watch_doors(around, Interest::Read);
        }
        if self.waiting_due.is_some_and(|due| due <= now) {
            for place in &mut self.waiting {
                if place
                    .as_ref()
                    .is_some_and(|one| now >= one.accepted_at() + CHECK_TIME_MAX)
                {
                    *place = None;
                    self.strangers += 1;
                }
            }
            let first = self.waiting.iter().flatten().map(|one| one.accepted_at()).min();
            self.waiting_due = first.map(|accepted_at| accepted_at + CHECK_TIME_MAX);
        }
    }

    /// Whose a check is.
    fn asked(&self, tuple: &Tuple, packet: &[u8]) -> Option<TransportIx> {
        // Strangers' bytes: if they are a parser's mistake, they are for nobody.
        match boundary::contain(Parser::Stun, || stun::username_of(packet)).unwrap_or(None) {
            Some(username) => {
                let colon = username.iter().position(|byte| *byte == b':')?;
                self.names.get(&username[..colon]).copied()
            }
            // An indication, by which a peer keeps its way open.
            None => self.tuples.get(tuple).copied(),
        }
    }

    /// Keeps a connection until it has said for whom it is, in the place of this number.
    fn keep(&mut self, waiting: Waiting) -> u16 {
        self.waiting_due.get_or_insert(waiting.accepted_at() + CHECK_TIME_MAX);
        let vacant = self.waiting.iter().position(Option::is_none);
        let place = vacant.unwrap_or_else(|| {
            if self.waiting.len() < WAITING_MAX {
                self.waiting.push(None);
                return self.waiting.len() - 1;
            }
            self.strangers += 1;
            let accepted_at = |place: &usize| self.waiting[*place].as_ref().map(|one| one.accepted_at());
            (0..WAITING_MAX).min_by_key(accepted_at).unwrap_or(0)
        });
        self.waiting[place] = Some(Box::new(waiting));
        place as u16
    }
}

impl WebRtc {
    /// Whether transports at the doors ask for connected sockets.
    pub(in crate::process) fn use_connected_sockets(&mut self, connected: bool) {
        self.doors.uses_connected = connected;
    }

    /// Packets and connections that were for nobody.
    pub(in crate::process) fn strangers(&self) -> u64 {
        self.doors.strangers
    }

    /// Counts more of them.
    pub(in crate::process) fn count_strangers(&mut self, more: u64) {
        self.doors.strangers += more;
    }

    /// Whether a transport at the doors has its path through one, to this tuple.
    pub(in crate::process) fn wants_socket(&self, transport: TransportIx, tuple: IceTuple) -> bool {
        self.member(transport)
            .is_some_and(|member| member.guest.is_some() && member.route.as_ref().map(ice_tuple) == Some(tuple))
    }

    /// Takes in what a door has brought, or a socket of a door's port that is connected to the peer of `owner`.
    pub(in crate::process) fn handle_door_batch(
        &mut self,
        now: Time,
        around: &mut Around<'_>,
        local: SocketAddr,
        owner: Option<TransportIx>,
        received: Received<'_>,
    ) {
        around.egress.begin_batch(&received);
        let Received { bytes, datagrams, .. } = received;
        let tuple = |remote| Tuple {
            protocol: Protocol::Udp,
            local,
            remote,
        };
        let mut rest = std::mem::take(&mut self.doors.rest);
        for datagram in datagrams {
            let has_checks = packets_of(datagram).any(|packet| is_check(bytes, &packet));
            if has_checks {
                for packet in packets_of(datagram) {
                    if !is_check(bytes, &packet) {
                        continue;
                    }
                    self.handle_check(now, around, tuple(datagram.source), bytes, packet);
                }
            }
            let whose = owner.or_else(|| self.doors.tuples.get(&tuple(datagram.source)).copied());
            let others = packets_of(datagram).filter(|packet| !is_check(bytes, packet));
            match whose {
                None => self.doors.strangers += others.count() as u64,
                Some(transport) if has_checks => rest.extend(others.map(|packet| (transport, packet))),
                Some(transport) => rest.push((transport, *datagram)),
            }
        }
        let mut group = std::mem::take(&mut self.doors.group);
        while let Some((transport, _)) = rest.first().copied() {
            group.clear();
            rest.retain(|(whose, datagram)| {
                let is_its = *whose == transport;
                if is_its {
                    group.push(*datagram);
                }
                !is_its
            });
            // Each datagram has its own remote end.
            self.handle_datagrams(now, around, transport, tuple(local), bytes, &group);
        }
        (self.doors.rest, self.doors.group) = (rest, group);
        around.egress.end_batch();
    }

    /// Takes in a STUN packet: it is for the transport that it names, whoever had its tuple before.
    fn handle_check(&mut self, now: Time, around: &mut Around<'_>, tuple: Tuple, bytes: &mut [u8], packet: Datagram) {
        let Some(transport) = self.doors.asked(&tuple, &bytes[packet.range()]) else {
            self.doors.strangers += 1;
            return;
        };
        self.handle_datagrams(now, around, transport, tuple, bytes, &[packet]);
        let is_valid = self
            .member(transport)
            .is_some_and(|member| member.transport.admit_media(&tuple) != Err(Dropped::UnknownTuple));
        if !is_valid {
            return;
        }
        // Where one peer was there is another now; or it is the same one in a new session.
        if let Some(before) = self.doors.tuples.insert(tuple, transport)
            && before != transport
        {
            self.with(now, around, before, |member, desk, _| {
                member.transport.handle_connection_closed(now, &tuple, desk);
            });
        }
    }

    /// Lets in who waits at a door.
    pub(in crate::process) fn accept_at_door(&mut self, now: Time, around: &mut Around<'_>, door: u8) {
        for _ in 0..ACCEPTED_MAX {
            match around.egress.sockets.accept_at_door(now, door) {
                Ok(AtDoor::Nobody) => break,
                Ok(AtDoor::Gone) => {}
                Ok(AtDoor::Here(waiting)) => {
                    let number = self.doors.keep(waiting);
                    self.watch_waiting(around, number);
                }
                Err(errno) => {
                    debug!(%errno, "no room for connections");
                    self.doors.rest_until = Some(now + REST);
                    // Nothing ever has room to write there.
                    watch_doors(around, Interest::Write);
                    break;
                }
            }
        }
    }

    fn watch_waiting(&mut self, around: &Around<'_>, number: u16) {
        let Some(Some(waiting)) = self.doors.waiting.get(usize::from(number)) else {
            return;
        };
        let source = Source::Waiting { number };
        if let Err(errno) = around.poller.add(waiting.socket(), source, Interest::Read) {
            warn!(%errno, "epoll_ctl");
            self.doors.waiting[usize::from(number)] = None;
        }
    }

    /// Reads on in a connection that has not said for whom it is. Says how many packets and bytes were taken in.
    pub(in crate::process) fn read_waiting(&mut self, now: Time, around: &mut Around<'_>, number: u16) -> (u64, u64) {
        let Some(place) = self.doors.waiting.get_mut(usize::from(number)) else {
            return (0, 0);
        };
        let Some(mut waiting) = place.take() else {
            return (0, 0);
        };
        let whose = match waiting.read() {
            FirstPacket::Incomplete => {
                *place = Some(waiting);
                return (0, 0);
            }
            FirstPacket::Never => None,
            FirstPacket::Complete => {
                let tuple = Tuple {
                    protocol: Protocol::Tcp,
                    local: waiting.local(),
                    remote: waiting.remote(),
                };
                let packet = waiting.packet_mut();
                let is_check = classify(packet) == Kind::Stun;
                self.doors
                    .asked(&tuple, packet)
                    .filter(|_| is_check)
                    .map(|transport| (transport, tuple))
            }
        };
        let Some((transport, tuple)) = whose else {
            self.doors.strangers += 1;
            return (0, 0);
        };
        let door = waiting.door();
        let (connection, mut packet) = waiting.into_connection();
        let sockets = &mut around.egress.sockets;
        let Some(number) = sockets.adopt_connection(transport, connection) else {
            self.doors.strangers += 1;
            return (0, 0);
        };
        let source = Source::Connection { transport, number };
        let watched = sockets
            .connection(transport, number)
            .map_or(Err(Errno::EBADF), |connection| {
                around.poller.modify(connection.socket(), source, Interest::Read)
            });
        if let Err(errno) = watched {
            warn!(%errno, "epoll_ctl");
            sockets.close_connection(transport, number);
            return (0, 0);
        }
        let len = packet.len() as u32;
        let first = Datagram {
            start: 0,
            len,
            segment: len.max(1),
            source: tuple.remote,
        };
        self.handle_datagrams(now, around, transport, tuple, &mut packet, &[first]);
        self.make_room(around, transport, door);
        self.settle(now, around, transport);
        (1, u64::from(len))
    }
}

impl Member {
    /// The tuple for which a connected socket should be asked now: that of a peer that has proven who it is.
    pub(super) fn wanted_socket(
        &mut self,
        now: Time,
        around: &Around<'_>,
        transport: TransportIx,
        uses_connected: bool,
    ) -> Option<IceTuple> {
        let guest = self.guest.as_mut().filter(|_| uses_connected)?;
        let tuple = *self
            .transport
            .media_tuple()
            .filter(|tuple| tuple.protocol == Protocol::Udp)?;
        around.egress.sockets.sends_through(transport)?;
        let is_due = guest
            .wish
            .is_none_or(|(wish, at)| wish != tuple || now >= at + WISH_INTERVAL);
        if !is_due || !guest.wishes.take(now) {
            return None;
        }
        guest.wish = Some((tuple, now));
        Some(ice_tuple(&tuple))
    }
}

/// Stops watching a transport's connected socket, which is about to be closed: the supervisor may hold it too for a moment.
pub(super) fn unwatch_connected(around: &Around<'_>, transport: TransportIx) {
    if let Some((path, _)) = around.egress.sockets.sending_path(transport)
        && let Err(errno) = around.poller.remove(path)
    {
        debug!(%errno, "epoll_ctl");
    }
}

/// Changes what is waited for at the doors for connections.
fn watch_doors(around: &Around<'_>, interest: Interest) {
    let sockets = &around.egress.sockets;
    sockets.each_door(|number, socket| {
        let is_tcp = sockets
            .door_at(number)
            .is_some_and(|(protocol, _)| protocol == weir_channel::message::IceProtocol::Tcp);
        if is_tcp && let Err(errno) = around.poller.modify(socket, Source::Door { number }, interest) {
            warn!(%errno, "epoll_ctl");
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
