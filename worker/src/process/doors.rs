//! The event loop at the worker's doors: ports that many WebRTC transports share (see [`net::sockets`](crate::net::sockets)).

use std::os::fd::OwnedFd;

use tracing::warn;
use weir_channel::id::TransportId;
use weir_channel::message::{IceProtocol, IceTuple, OpenSharedPort, Reply, WorkerError};

use crate::net::poll::{Interest, Source};
use crate::net::sockets::{IceSockets, os};
use crate::relay::sink::TransportIx;
use crate::time::Time;

use super::event_loop::EventLoop;

impl EventLoop {
    pub(super) fn open_doors(
        &mut self,
        request: &OpenSharedPort,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, WorkerError> {
        self.egress.sockets.open_doors(&request.sockets, descriptors)?;
        let mut result = Ok(());
        self.egress.sockets.each_door(|number, socket| {
            let added = self.poller.add(socket, Source::Door { number }, Interest::Read);
            result = result.clone().and(added.map_err(|errno| os("epoll_ctl", errno)));
        });
        if result.is_err() {
            self.egress.sockets.each_door(|_, socket| {
                // Those that are not watched cannot be removed, and need not.
                let _ = self.poller.remove(socket);
            });
            self.egress.sockets.close_doors();
        }
        self.webrtc.use_connected_sockets(request.connected);
        result.map(|()| Reply::Done)
    }

    /// For a transport that has no listeners of its own.
    pub(super) fn sockets_at_doors(&self, descriptors: &[OwnedFd]) -> Result<IceSockets, WorkerError> {
        if !descriptors.is_empty() {
            return Err(WorkerError::Descriptors {
                expected: 0,
                received: u8::try_from(descriptors.len()).unwrap_or(u8::MAX),
            });
        }
        match self.egress.sockets.has_doors() {
            true => Ok(IceSockets::at_doors()),
            false => Err(WorkerError::InvalidParameters(
                "a WebRTC transport without listeners needs a door to be reached through".to_owned(),
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
        if let Some((path, source)) = self.egress.sockets.sending_path(index)
            && let Err(errno) = self.poller.add(path, source, Interest::Read)
        {
            self.egress.sockets.give_up_connected(index);
            return Err(os("epoll_ctl", errno));
        }
        Ok(Reply::Done)
    }

    /// Takes one batch from a door, or lets somebody in.
    pub(super) fn receive_at_door(&mut self, now: Time, number: u8) {
        let Some((protocol, local)) = self.egress.sockets.door_at(number) else {
            return;
        };
        if protocol == IceProtocol::Tcp {
            let (webrtc, mut around) = self.webrtc_and_around();
            return webrtc.accept_at_door(now, &mut around, number);
        }
        let Some(socket) = self.egress.sockets.door(number) else {
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
            self.egress.sockets.note_drop_count(Source::Door { number }, count);
        }
        for datagram in received.datagrams {
            self.counters.packets_received += datagram.packets();
            self.counters.bytes_received += u64::from(datagram.len);
        }
        self.webrtc.count_strangers(received.truncated.into());
        let mut around = super::webrtc::Around {
            relay: &mut self.relay,
            egress: &mut self.egress,
            poller: &self.poller,
        };
        self.webrtc.handle_door_batch(now, &mut around, local, None, received);
        self.act();
    }

    /// Reads on in a connection that has not said for whom it is.
    pub(super) fn read_waiting(&mut self, now: Time, number: u16) {
        let (webrtc, mut around) = self.webrtc_and_around();
        let (packets, bytes) = webrtc.read_waiting(now, &mut around, number);
        self.counters.packets_received += packets;
        self.counters.bytes_received += bytes;
        self.act();
    }

    /// A door is full: a transport's packets wait until it is not.
    pub(super) fn wait_at_door(&mut self, number: u8, transport: TransportIx) {
        let Some(waiting) = self.at_doors.get_mut(usize::from(number)) else {
            return;
        };
        if !waiting.contains(&transport) {
            waiting.push(transport);
        }
        if let [_] = waiting[..] {
            self.watch_door(number, Interest::ReadWrite);
        }
    }

    /// A door has room again: one transport after the other sends what waits, until it is full.
    pub(super) fn write_by_door(&mut self, number: u8) {
        let Some(waiting) = self.at_doors.get_mut(usize::from(number)) else {
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
            self.watch_door(number, Interest::Read);
        }
        if let Some(place) = self.at_doors.get_mut(usize::from(number)) {
            *place = waiting;
        }
    }

    fn watch_door(&self, number: u8, interest: Interest) {
        if let Some(socket) = self.egress.sockets.door(number)
            && let Err(errno) = self.poller.modify(socket, Source::Door { number }, interest)
        {
            warn!(%errno, "epoll_ctl");
        }
    }
}
