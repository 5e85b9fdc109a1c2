//! The event loop's work at shared ports, which many WebRTC transports use (see [`net::sockets`](crate::net::sockets)).

use std::os::fd::OwnedFd;

use tracing::warn;
use weir_channel::id::TransportId;
use weir_channel::message::{IceProtocol, IceTuple, OpenSharedPorts, Reply, UnroutedReason, WorkerError};

use crate::net::poll::{Interest, Source};
use crate::net::sockets::{IceSockets, os};
use crate::relay::sink::TransportIx;
use crate::time::Time;

use super::event_loop::EventLoop;

impl EventLoop {
    pub(super) fn open_shared_ports(
        &mut self,
        request: &OpenSharedPorts,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, WorkerError> {
        self.egress.sockets.open_shared_ports(&request.protocols, descriptors)?;
        let mut result = Ok(());
        self.egress.sockets.each_shared_port(|number, socket| {
            let added = self.poller.add(socket, Source::SharedPort { number }, Interest::Read);
            result = result.clone().and(added.map_err(|errno| os("epoll_ctl", errno)));
        });
        if result.is_err() {
            self.egress.sockets.each_shared_port(|_, socket| {
                // Those that are not watched cannot be removed, and need not.
                let _ = self.poller.remove(socket);
            });
            self.egress.sockets.close_shared_ports();
        }
        self.webrtc.use_connected_sockets(request.connected);
        result.map(|()| Reply::Done)
    }

    /// For a transport that has no listeners of its own.
    pub(super) fn sockets_on_shared_ports(&self, descriptors: &[OwnedFd]) -> Result<IceSockets, WorkerError> {
        if !descriptors.is_empty() {
            return Err(WorkerError::Descriptors {
                expected: 0,
                received: u8::try_from(descriptors.len()).unwrap_or(u8::MAX),
            });
        }
        match self.egress.sockets.has_shared_ports() {
            true => Ok(IceSockets::on_shared_ports()),
            false => Err(WorkerError::InvalidParameters(
                "a WebRTC transport without listeners needs a shared port to be reached through".to_owned(),
            )),
        }
    }

    /// Gives a transport the socket that it has asked for, if it still wants it.
    pub(super) fn use_connected_socket(
        &mut self,
        transport: TransportId,
        tuple: IceTuple,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, WorkerError> {
        let received = u8::try_from(descriptors.len()).unwrap_or(u8::MAX);
        let (Some(socket), 1) = (descriptors.into_iter().next(), received) else {
            return Err(WorkerError::Descriptors { expected: 1, received });
        };
        let index = self.index_of(transport)?;
        if !self.webrtc.wants_socket(index, tuple) {
            return Ok(Reply::Done);
        }
        self.egress.use_connected(index, tuple, socket)?;
        if let Some((path, source)) = self.egress.sockets.sending_socket(index)
            && let Err(errno) = self.poller.add(path, source, Interest::Read)
        {
            self.egress.sockets.give_up_connected(index);
            return Err(os("epoll_ctl", errno));
        }
        Ok(Reply::Done)
    }

    /// Receives one batch at a shared UDP port, or accepts connections at a shared TCP port.
    pub(super) fn receive_at_shared_port(&mut self, now: Time, number: u8) {
        let Some((protocol, local)) = self.egress.sockets.shared_port_at(number) else {
            return;
        };
        if protocol == IceProtocol::Tcp {
            let (webrtc, mut io) = self.webrtc_and_io();
            return webrtc.accept_at_shared_port(now, &mut io, number);
        }
        let Some(socket) = self.egress.sockets.shared_port(number) else {
            return;
        };
        let received = match self.batch.receive(socket, self.batch_limit) {
            Ok(received) => received,
            Err(errno) => {
                self.warn(now, "recvmmsg", errno);
                return;
            }
        };
        if let Some(count) = received.drop_count {
            self.egress
                .sockets
                .note_drop_count(Source::SharedPort { number }, count);
        }
        for datagram in received.datagrams {
            self.counters.packets_received += datagram.packets();
            self.counters.bytes_received += u64::from(datagram.len);
        }
        let truncated = received.truncated.into();
        self.webrtc.count_unrouted(UnroutedReason::TooLong, truncated);
        let mut io = super::webrtc::IoContext {
            relay: &mut self.relay,
            egress: &mut self.egress,
            poller: &self.poller,
        };
        self.webrtc
            .handle_shared_port_batch(now, &mut io, local, None, received);
        self.handle_actions();
    }

    /// Reads on in a connection whose transport is not known yet.
    pub(super) fn read_unassigned(&mut self, now: Time, number: u16) {
        let (webrtc, mut io) = self.webrtc_and_io();
        let (packets, bytes) = webrtc.read_unassigned(now, &mut io, number);
        self.counters.packets_received += packets;
        self.counters.bytes_received += bytes;
        self.handle_actions();
    }

    /// A shared port's socket is full: a transport's packets wait until it is writable.
    pub(super) fn wait_for_shared_port(&mut self, number: u8, transport: TransportIx) {
        let Some(waiting) = self.blocked_on_shared_port.get_mut(usize::from(number)) else {
            return;
        };
        if !waiting.contains(&transport) {
            waiting.push(transport);
        }
        if let [_] = waiting[..] {
            self.watch_shared_port(number, Interest::ReadWrite);
        }
    }

    /// A shared port's socket is writable again: one transport after the other sends what waits, until it is full.
    pub(super) fn write_by_shared_port(&mut self, number: u8) {
        let Some(waiting) = self.blocked_on_shared_port.get_mut(usize::from(number)) else {
            return;
        };
        let mut waiting = std::mem::take(waiting);
        while let Some(transport) = waiting.pop() {
            // Who has another way by now is waited for there.
            if self.egress.sockets.sends_through(transport) == Some(number) && self.egress.handle_writable(transport) {
                // The last one the next time, so that all have their turn.
                waiting.insert(0, transport);
                break;
            }
        }
        if waiting.is_empty() {
            self.watch_shared_port(number, Interest::Read);
        }
        if let Some(place) = self.blocked_on_shared_port.get_mut(usize::from(number)) {
            *place = waiting;
        }
    }

    fn watch_shared_port(&self, number: u8, interest: Interest) {
        if let Some(socket) = self.egress.sockets.shared_port(number)
            && let Err(errno) = self.poller.modify(socket, Source::SharedPort { number }, interest)
        {
            warn!(%errno, "epoll_ctl");
        }
    }
}
