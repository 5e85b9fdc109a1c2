//! TCP connections of WebRTC transports: who is let in, what they say, and when they are shown the door.

use std::time::Duration;

use nix::errno::Errno;
use tracing::{debug, warn};

use crate::net::poll::{Interest, Source};
use crate::net::sockets::{Accepted, CONNECTIONS_MAX, Connection, Side};
use crate::relay::datagram::Datagram;
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::framing::{FRAME_BYTES_MAX, PREFIX_BYTES};
use crate::webrtc::ice::{Protocol, Tuple};
use crate::webrtc::transport::Dropped;

use super::{Around, Member, WebRtc};

/// A connection without a check that counts is closed after this.
pub(super) const CHECK_TIME_MAX: Duration = Duration::from_secs(10);

/// Connections that are accepted at once. Others wait for the next turn.
pub(super) const ACCEPTED_MAX: usize = 4;

/// What is read of a connection at once: about 25 full packets, as of a socket for datagrams.
const READ_BYTES: usize = 32 << 10;

/// How long nobody is let in after the kernel had no room for connections.
pub(super) const REST: Duration = Duration::from_secs(1);

/// Room for what one reading brings.
#[derive(Default)]
pub(super) struct Frames {
    /// As read. Made with the first connection.
    stream: Vec<u8>,
    /// The packets in it, and the one that was begun before.
    packets: Vec<u8>,
    places: Vec<Datagram>,
}

impl WebRtc {
    /// Lets in who waits at a listener.
    pub(in crate::process) fn accept(
        &mut self,
        now: Time,
        around: &mut Around<'_>,
        transport: TransportIx,
        listener: u8,
    ) {
        for _ in 0..ACCEPTED_MAX {
            match around.egress.sockets.accept(now, transport, listener) {
                Ok(Accepted::None) => break,
                Ok(Accepted::Lost) => {}
                Ok(Accepted::Connection(number)) => {
                    self.watch_connection(around, transport, number);
                    self.make_room(around, transport, listener);
                }
                Err(errno) => {
                    self.rest_listeners(now, around, transport, errno);
                    break;
                }
            }
        }
        self.settle(now, around, transport);
    }

    /// If there are too many connections now, one that has not proven anything goes, the one that came first at first.
    pub(super) fn make_room(&mut self, around: &mut Around<'_>, transport: TransportIx, listener: u8) {
        let sockets = &mut around.egress.sockets;
        if sockets.connections_of(transport, listener).count() <= CONNECTIONS_MAX {
            return;
        }
        let idle = sockets
            .connections_of(transport, listener)
            .filter(|(_, one)| self.member(transport).is_none_or(|member| !member.is_proven(one)))
            .min_by_key(|(_, one)| one.accepted_at())
            .map(|(number, _)| number);
        if let Some(number) = idle {
            sockets.close_connection(transport, number);
        }
    }

    fn watch_connection(&mut self, around: &mut Around<'_>, transport: TransportIx, number: u8) {
        let Some(connection) = around.egress.sockets.connection(transport, number) else {
            return;
        };
        let source = Source::Connection { transport, number };
        if let Err(errno) = around.poller.add(connection.socket(), source, Interest::Read) {
            warn!(%errno, "epoll_ctl");
            around.egress.sockets.close_connection(transport, number);
        }
    }

    /// Takes in what a connection has brought. Says how many packets and bytes that was.
    pub(in crate::process) fn read_connection(
        &mut self,
        now: Time,
        around: &mut Around<'_>,
        transport: TransportIx,
        number: u8,
    ) -> (u64, u64) {
        let Some(connection) = around.egress.sockets.connection(transport, number) else {
            return (0, 0);
        };
        let tuple = tuple_of(connection);
        let mut frames = std::mem::take(&mut self.frames);
        frames.stream.resize(READ_BYTES, 0);
        frames.packets.clear();
        frames.places.clear();
        frames.packets.reserve(READ_BYTES + PREFIX_BYTES + FRAME_BYTES_MAX);
        let Frames {
            stream,
            packets,
            places,
        } = &mut frames;
        let result = around
            .egress
            .sockets
            .read_connection(transport, number, stream, |packet| {
                let len = packet.len() as u32;
                places.push(Datagram {
                    start: packets.len() as u32,
                    len,
                    segment: len.max(1),
                    source: tuple.remote,
                });
                packets.extend_from_slice(packet);
            });
        self.handle_datagrams(now, around, transport, tuple, packets, places);
        let brought = (places.len() as u64, packets.len() as u64);
        self.frames = frames;
        if let Err(ended) = result {
            debug!(transport = transport.0, %tuple, ?ended, "a connection has ended");
            // Unless what it has said just now has closed it, and somebody else has its number already.
            let sockets = &mut around.egress.sockets;
            if sockets.connection(transport, number).map(tuple_of) == Some(tuple) {
                sockets.close_connection(transport, number);
            }
            self.with(now, around, transport, |member, desk, _| {
                member.transport.handle_connection_closed(now, &tuple, desk);
            });
        }
        brought
    }

    /// Writes what waits for a connection that has room again.
    pub(in crate::process) fn write_connection(&mut self, around: &mut Around<'_>, transport: TransportIx, number: u8) {
        if !around.egress.sockets.flush_connection(transport, number) {
            watch(around, transport, number, Interest::Read);
        }
    }

    /// Watches connections that have filled up for room to write.
    pub(in crate::process) fn watch_blocked(around: &mut Around<'_>) {
        while let Some((transport, number)) = around.egress.sockets.poll_blocked_connection() {
            watch(around, transport, number, Interest::ReadWrite);
        }
    }

    /// Closes connections that have been silent, and lets others in again, if it is time.
    pub(super) fn close_idle_connections(&mut self, now: Time, around: &mut Around<'_>, transport: TransportIx) {
        let Some(Some(member)) = self.transports.get_mut(transport.0 as usize) else {
            return;
        };
        if member.listeners_rest.is_some_and(|until| until <= now) {
            member.listeners_rest = None;
            watch_listeners(around, transport, Interest::Read);
        }
        loop {
            let idle = around
                .egress
                .sockets
                .connections(transport)
                .find(|(_, one)| now >= one.accepted_at() + CHECK_TIME_MAX && !member.is_proven(one))
                .map(|(number, _)| number);
            match idle {
                Some(number) => around.egress.sockets.close_connection(transport, number),
                None => return,
            }
        }
    }

    fn rest_listeners(&mut self, now: Time, around: &mut Around<'_>, transport: TransportIx, errno: Errno) {
        if let Some(Some(member)) = self.transports.get_mut(transport.0 as usize) {
            debug!(id = %member.id, %errno, "no room for connections");
            member.listeners_rest = Some(now + REST);
            // Nothing ever has room to write there.
            watch_listeners(around, transport, Interest::Write);
        }
    }
}

impl Member {
    /// Whether a check that counts has come by a connection, not too long ago.
    fn is_proven(&self, connection: &Connection) -> bool {
        self.transport.admit_media(&tuple_of(connection)) != Err(Dropped::UnknownTuple)
    }

    /// When a connection may have been silent for too long, or others are let in again.
    pub(super) fn connections_due(&self, around: &Around<'_>, transport: TransportIx) -> Option<Time> {
        let connections = around.egress.sockets.connections(transport);
        let silent = connections.filter(|(_, one)| !self.is_proven(one));
        silent
            .map(|(_, one)| one.accepted_at() + CHECK_TIME_MAX)
            .chain(self.listeners_rest)
            .min()
    }
}

/// Closes the connection that a tuple was.
pub(super) fn close_connection_of(around: &mut Around<'_>, transport: TransportIx, tuple: &Tuple) {
    let sockets = &mut around.egress.sockets;
    let number = sockets
        .connections(transport)
        .find(|(_, one)| tuple_of(one) == *tuple)
        .map(|(number, _)| number);
    if let Some(number) = number {
        sockets.close_connection(transport, number);
    }
}

fn tuple_of(connection: &Connection) -> Tuple {
    Tuple {
        protocol: Protocol::Tcp,
        local: connection.local(),
        remote: connection.remote(),
    }
}

fn watch(around: &Around<'_>, transport: TransportIx, number: u8, interest: Interest) {
    if let Some(connection) = around.egress.sockets.connection(transport, number) {
        let source = Source::Connection { transport, number };
        if let Err(errno) = around.poller.modify(connection.socket(), source, interest) {
            warn!(%errno, "epoll_ctl");
        }
    }
}

/// Changes what is waited for at a transport's listening sockets.
fn watch_listeners(around: &Around<'_>, transport: TransportIx, interest: Interest) {
    around
        .egress
        .sockets
        .each_listener(transport, |listener, side, socket| {
            let is_tcp = around.egress.sockets.is_tcp(transport, listener);
            let source = Source::Listener {
                transport,
                listener,
                side,
            };
            if is_tcp
                && side == Side::Door
                && let Err(errno) = around.poller.modify(socket, source, interest)
            {
                warn!(%errno, "epoll_ctl");
            }
        });
}
