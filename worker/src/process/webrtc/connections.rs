//! TCP connections of WebRTC transports: accepting, reading, writing and closing them.

use std::time::Duration;

use nix::errno::Errno;
use tracing::{debug, warn};
use weir_channel::id::TransportId;
use weir_channel::message::{IceTuple, Notification, UnroutedReason};

use crate::net::poll::{Interest, Source};
use crate::net::shell::{PollBackend, Shell};
use crate::net::sockets::{Accepted, CONNECTIONS_MAX, Connection, Side};
use crate::page::layout::Table;
use crate::relay::datagram::Datagram;
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::framing::{FRAME_BYTES_MAX, PREFIX_BYTES};
use crate::webrtc::transport::Dropped;

use super::eviction::to_evict;
use super::{Frames, IoContext, TransportEntry, WebRtc};

/// A connection is closed after this time without a valid check.
pub(super) const CHECK_TIME_MAX: Duration = Duration::from_secs(10);

/// Connections that are accepted at once, at a listener or a shared port. Others wait for the next turn.
pub(super) const ACCEPTED_MAX: usize = 4;

/// How long no connections are accepted after the kernel could not take any more.
pub(super) const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// What is read of a connection at once: about 25 full packets, as of a socket for datagrams.
const READ_BYTES: usize = 32 << 10;

/// The same, before a valid check has come by it: a check needs no more, and a stranger's frames are of one byte.
const UNPROVEN_READ_BYTES: usize = 512;

impl WebRtc {
    /// Accepts the connections that wait at a listener.
    pub(in crate::process) fn accept(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
        listener: u8,
    ) {
        for _ in 0..ACCEPTED_MAX {
            match io.egress.sockets.accept(now, transport, listener) {
                Ok(Accepted::None) => break,
                Ok(Accepted::Lost) => {}
                Ok(Accepted::Connection(number)) => {
                    self.watch_connection(io, transport, number);
                    self.limit_connections(io, transport, listener);
                }
                Err(errno) => {
                    self.pause_accepting(now, io, transport, errno);
                    break;
                }
            }
        }
        self.handle_events(now, io, transport);
    }

    /// If a listener has too many connections, closes one that no valid check has come by (see [`eviction`](super::eviction)).
    pub(super) fn limit_connections(
        &mut self,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
        listener: u8,
    ) {
        let sockets = &io.egress.sockets;
        if sockets.connections_of(transport, listener).count() <= CONNECTIONS_MAX {
            return;
        }
        let unproven = sockets
            .connections_of(transport, listener)
            .filter(|(_, one)| self.entry(transport).is_none_or(|entry| !entry.is_proven(one)))
            .map(|(number, one)| (number, one.remote().ip(), one.accepted_at()));
        if let Some(number) = to_evict(unproven) {
            close_connection(io, transport, number);
            io.relay.count_unrouted(transport, UnroutedReason::ConnectionEvicted, 1);
        }
    }

    fn watch_connection(&mut self, io: &mut IoContext<'_, impl Shell>, transport: TransportIx, number: u8) {
        let Some(connection) = io.egress.sockets.connection(transport, number) else {
            return;
        };
        let source = connection.source(transport, number);
        if let Err(errno) = io.poller.add(connection.socket(), source, Interest::Read) {
            warn!(%errno, "epoll_ctl");
            close_connection(io, transport, number);
        }
    }

    /// Takes what has arrived on a connection. Returns how many packets and bytes that was.
    pub(in crate::process) fn read_connection(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
        number: u8,
    ) -> (u64, u64) {
        let Some(connection) = io.egress.sockets.connection(transport, number) else {
            return (0, 0);
        };
        let tuple = tuple_of(connection);
        let is_open = connection.source(transport, number).is_open();
        let mut frames = std::mem::take(&mut self.frames);
        let room = if is_open { UNPROVEN_READ_BYTES } else { READ_BYTES };
        frames.stream.resize(room.max(connection.wanted()), 0);
        frames.packets.clear();
        frames.places.clear();
        frames.packets.reserve(READ_BYTES + PREFIX_BYTES + FRAME_BYTES_MAX);
        let Frames {
            stream,
            packets,
            places,
        } = &mut frames;
        let result = io.egress.sockets.read_connection(transport, number, stream, |packet| {
            let len = packet.len() as u32;
            places.push(Datagram {
                start: packets.len() as u32,
                len,
                segment: len.max(1),
                source: tuple.remote,
            });
            packets.extend_from_slice(packet);
        });
        self.handle_datagrams(now, io, transport, tuple, packets, places);
        self.trust_connection(io, transport, tuple, number);
        let brought = (places.len() as u64, packets.len() as u64);
        self.frames = frames;
        if let Err(ended) = result {
            debug!(transport = transport.0, %tuple, ?ended, "a connection has ended");
            // Unless what it said just now has closed it, and another connection has its number already.
            if io.egress.sockets.connection(transport, number).map(tuple_of) == Some(tuple) {
                close_connection(io, transport, number);
            }
            self.with(now, io, transport, |entry, output, _| {
                entry.transport.handle_connection_closed(now, &tuple, output);
            });
        }
        brought
    }

    /// Closes a connection whose other end is in quarantine.
    pub(in crate::process) fn refuse_connection<S: Shell>(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, S>,
        transport: TransportIx,
        number: u8,
    ) {
        let Some(tuple) = io.egress.sockets.connection(transport, number).map(tuple_of) else {
            return;
        };
        close_connection(io, transport, number);
        io.relay.count_unrouted(transport, UnroutedReason::Quarantined, 1);
        self.with(now, io, transport, |entry, output, _| {
            entry.transport.handle_connection_closed(now, &tuple, output);
        });
    }

    /// If a valid check has come by a connection, watches it beside those that are known, and gives the supervisor a copy of it.
    pub(super) fn trust_connection(
        &mut self,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
        tuple: IceTuple,
        number: u8,
    ) {
        let Some(entry) = self.entry(transport) else {
            return;
        };
        let id = entry.id;
        let sockets = &mut io.egress.sockets;
        let is_it = |one: &Connection| tuple_of(one) == tuple && entry.is_proven(one);
        if !sockets.connection(transport, number).is_some_and(is_it) {
            return;
        }
        let Some(interest) = sockets.prove_connection(transport, number) else {
            return;
        };
        let Some(connection) = sockets.connection(transport, number) else {
            return;
        };
        let copy = connection.socket().try_clone_to_owned();
        let source = connection.source(transport, number);
        let rewatched = io
            .poller
            .remove(connection.socket())
            .and_then(|()| io.poller.add(connection.socket(), source, interest));
        if let Err(errno) = rewatched {
            warn!(%errno, "epoll_ctl");
            return close_connection(io, transport, number);
        }
        keep_connection(io, (transport, id), number);
        // One between the same addresses may have ended just now.
        self.tell_of_closed_sockets(io);
        // Without a copy it ends with this worker.
        if let Ok(copy) = copy {
            self.descriptors.push_back(copy);
            self.notifications
                .push_back(Notification::ConnectionProven { transport: id, tuple });
        }
    }

    /// Tells the supervisor which sockets are closed of those that it has a copy of.
    pub(in crate::process) fn tell_of_closed_sockets(&mut self, io: &mut IoContext<'_, impl Shell>) {
        while let Some((transport, tuple)) = io.egress.sockets.poll_closed() {
            if let Some(id) = self.entry(transport).map(|entry| entry.id) {
                self.notifications
                    .push_back(Notification::SocketClosed { transport: id, tuple });
            }
        }
    }

    /// Writes what waits for a connection that is writable again.
    pub(in crate::process) fn write_connection(
        &mut self,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
        number: u8,
    ) {
        if !io.egress.sockets.flush_connection(transport, number) {
            watch(io, transport, number, Interest::Read);
        }
    }

    /// Watches connections that are full until they are writable.
    pub(in crate::process) fn watch_blocked(io: &mut IoContext<'_, impl Shell>) {
        while let Some((transport, number)) = io.egress.sockets.poll_blocked_connection() {
            watch(io, transport, number, Interest::ReadWrite);
        }
    }

    /// Closes connections without a valid check, and accepts connections again, when it is time.
    pub(super) fn close_idle_connections(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
    ) {
        let Some(Some(entry)) = self.transports.get_mut(transport.0 as usize) else {
            return;
        };
        if entry.accept_paused_until.is_some_and(|until| until <= now) {
            entry.accept_paused_until = None;
            watch_listeners(io, transport, Interest::Read);
        }
        loop {
            let idle = io
                .egress
                .sockets
                .connections(transport)
                .find(|(_, one)| now >= one.accepted_at() + CHECK_TIME_MAX && !entry.is_proven(one))
                .map(|(number, _)| number);
            match idle {
                Some(number) => {
                    close_connection(io, transport, number);
                    io.relay.count_unrouted(transport, UnroutedReason::ConnectionSilent, 1);
                }
                None => return,
            }
        }
    }

    fn pause_accepting(&mut self, now: Time, io: &mut IoContext<'_, impl Shell>, transport: TransportIx, errno: Errno) {
        if let Some(Some(entry)) = self.transports.get_mut(transport.0 as usize) {
            debug!(id = %entry.id, %errno, "no more connections can be accepted");
            entry.accept_paused_until = Some(now + ACCEPT_PAUSE);
            // A listening socket is never writable.
            watch_listeners(io, transport, Interest::Write);
        }
    }
}

impl TransportEntry {
    /// Whether a valid check has come by a connection, not too long ago.
    pub(super) fn is_proven(&self, connection: &Connection) -> bool {
        self.transport.admit_media(&tuple_of(connection)) != Err(Dropped::UnknownTuple)
    }

    /// When [`WebRtc::close_idle_connections`] may have something to do.
    pub(super) fn connections_due(&self, io: &IoContext<'_, impl Shell>, transport: TransportIx) -> Option<Time> {
        let connections = io.egress.sockets.connections(transport);
        let silent = connections.filter(|(_, one)| !self.is_proven(one));
        silent
            .map(|(_, one)| one.accepted_at() + CHECK_TIME_MAX)
            .chain(self.accept_paused_until)
            .min()
    }
}

/// Closes the connection that a tuple was.
pub(super) fn close_connection_of(io: &mut IoContext<'_, impl Shell>, transport: TransportIx, tuple: &IceTuple) {
    let number = io
        .egress
        .sockets
        .connections(transport)
        .find(|(_, one)| tuple_of(one) == *tuple)
        .map(|(number, _)| number);
    if let Some(number) = number {
        close_connection(io, transport, number);
    }
}

/// Gives a connection its place in the page. Without one, it ends with this worker.
pub(super) fn keep_connection(
    io: &mut IoContext<'_, impl Shell>,
    (transport, id): (TransportIx, TransportId),
    number: u8,
) {
    if let Some(connection) = io.egress.sockets.connection_mut(transport, number)
        && let Ok(cookie) = Connection::cookie_of(connection.socket())
    {
        let page = io.relay.page_mut();
        let slot = page.take(Table::Connections, id.0, cookie);
        connection.keep(page.kept(slot));
    }
}

/// Closes all connections of a transport.
pub(super) fn close_connections(io: &mut IoContext<'_, impl Shell>, transport: TransportIx) {
    let connections = io.egress.sockets.connections(transport);
    let numbers: Vec<u8> = connections.map(|(number, _)| number).collect();
    for number in numbers {
        close_connection(io, transport, number);
    }
}

/// Stops watching a connection, and closes it.
pub(super) fn close_connection(io: &mut IoContext<'_, impl Shell>, transport: TransportIx, number: u8) {
    if let Some(connection) = io.egress.sockets.connection(transport, number) {
        // The supervisor may have it too, so closing it would not take it out of the epoll.
        if let Err(errno) = io.poller.remove(connection.socket()) {
            debug!(%errno, "epoll_ctl");
        }
        io.relay.page_mut().leave(Table::Connections, connection.slot());
    }
    io.egress.sockets.close_connection(transport, number);
}

pub(super) fn tuple_of(connection: &Connection) -> IceTuple {
    connection.tuple()
}

fn watch(io: &IoContext<'_, impl Shell>, transport: TransportIx, number: u8, interest: Interest) {
    if let Some(connection) = io.egress.sockets.connection(transport, number) {
        let source = connection.source(transport, number);
        io.poller.rewatch(connection.socket(), source, interest);
    }
}

/// Changes what is waited for at a transport's listening sockets.
fn watch_listeners(io: &IoContext<'_, impl Shell>, transport: TransportIx, interest: Interest) {
    io.egress.sockets.each_listener(transport, |listener, side, socket| {
        let is_tcp = io.egress.sockets.is_tcp(transport, listener);
        let source = Source::Listener {
            transport,
            listener,
            side,
        };
        if is_tcp && side == Side::Unconnected {
            io.poller.rewatch(socket, source, interest);
        }
    });
}
