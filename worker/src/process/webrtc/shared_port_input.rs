//! What arrives at shared ports, and at the connected sockets beside them: passed to the transport that it is for.

use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use tracing::{debug, warn};
use weir_channel::message::{IceProtocol, IceTuple};

use crate::net::poll::{Interest, Source};
use crate::net::receive::Received;
use crate::net::sockets::{Accepted, FirstPacket};
use crate::relay::datagram::Datagram;
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::demux::{Kind, classify};
use crate::webrtc::transport::Dropped;

use super::limits::{ACCEPT_PAUSE, ACCEPTED_MAX};
use super::{IoContext, TransportEntry, WebRtc};

/// A transport that got no socket may request it again after this.
const SOCKET_REQUEST_INTERVAL: Duration = Duration::from_secs(60);

impl WebRtc {
    /// Sets whether transports on shared ports request connected sockets.
    pub(in crate::process) fn use_connected_sockets(&mut self, connected: bool) {
        self.shared_ports.uses_connected = connected;
    }

    /// Packets and connections that were for no transport.
    pub(in crate::process) fn unrouted(&self) -> u64 {
        self.shared_ports.unrouted
    }

    /// Counts packets and connections that were for no transport.
    pub(in crate::process) fn count_unrouted(&mut self, more: u64) {
        self.shared_ports.unrouted += more;
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
        io: &mut IoContext<'_>,
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
        for datagram in datagrams {
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
                None => self.shared_ports.unrouted += others.count() as u64,
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
            // Each datagram has its own remote end.
            self.handle_datagrams(now, io, transport, tuple(local), bytes, &group);
        }
        (self.shared_ports.rest, self.shared_ports.group) = (rest, group);
        io.egress.end_batch();
    }

    /// Takes a STUN packet. It is for the transport that it names, even if its tuple was another transport's before.
    fn handle_check(&mut self, now: Time, io: &mut IoContext<'_>, tuple: IceTuple, bytes: &mut [u8], packet: Datagram) {
        let Some(transport) = self.shared_ports.transport_of_check(&tuple, &bytes[packet.range()]) else {
            self.shared_ports.unrouted += 1;
            return;
        };
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
    pub(in crate::process) fn accept_at_shared_port(&mut self, now: Time, io: &mut IoContext<'_>, port: u8) {
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

    fn watch_unassigned(&mut self, io: &IoContext<'_>, number: u16) {
        let Some(Some(connection)) = self.shared_ports.unassigned.get(usize::from(number)) else {
            return;
        };
        let source = Source::Unassigned { number };
        if let Err(errno) = io.poller.add(connection.socket(), source, Interest::Read) {
            warn!(%errno, "epoll_ctl");
            self.shared_ports.unassigned[usize::from(number)] = None;
        }
    }

    /// Reads on in a connection whose transport is not known yet. Returns how many packets and bytes were handled.
    pub(in crate::process) fn read_unassigned(&mut self, now: Time, io: &mut IoContext<'_>, number: u16) -> (u64, u64) {
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
            FirstPacket::Never => None,
            FirstPacket::Complete => {
                let tuple = IceTuple {
                    protocol: IceProtocol::Tcp,
                    local: unassigned.local(),
                    remote: unassigned.remote(),
                };
                let packet = unassigned.packet_mut();
                let is_check = classify(packet) == Kind::Stun;
                self.shared_ports
                    .transport_of_check(&tuple, packet)
                    .filter(|_| is_check)
                    .map(|transport| (transport, tuple))
            }
        };
        let Some((transport, tuple)) = whose else {
            self.shared_ports.unrouted += 1;
            return (0, 0);
        };
        let port = unassigned.port();
        let (connection, mut packet) = unassigned.into_connection();
        let sockets = &mut io.egress.sockets;
        let Some(number) = sockets.adopt_connection(transport, connection) else {
            self.shared_ports.unrouted += 1;
            return (0, 0);
        };
        let source = Source::Connection { transport, number };
        let watched = sockets
            .connection(transport, number)
            .map_or(Err(Errno::EBADF), |connection| {
                io.poller.modify(connection.socket(), source, Interest::Read)
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
        self.handle_datagrams(now, io, transport, tuple, &mut packet, &[first]);
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
        io: &IoContext<'_>,
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
pub(super) fn unwatch_connected(io: &IoContext<'_>, transport: TransportIx) {
    if let Some((path, _)) = io.egress.sockets.sending_socket(transport)
        && let Err(errno) = io.poller.remove(path)
    {
        debug!(%errno, "epoll_ctl");
    }
}

/// Changes what is waited for at the shared TCP ports.
pub(super) fn watch_shared_ports(io: &IoContext<'_>, interest: Interest) {
    let sockets = &io.egress.sockets;
    sockets.each_shared_port(|number, socket| {
        let is_tcp = sockets
            .shared_port_at(number)
            .is_some_and(|(protocol, _)| protocol == IceProtocol::Tcp);
        if is_tcp && let Err(errno) = io.poller.modify(socket, Source::SharedPort { number }, interest) {
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
