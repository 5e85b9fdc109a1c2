//! The event loop's work at shared ports, which many WebRTC transports use (see [`net::sockets`](crate::net::sockets)).

use std::os::fd::OwnedFd;

use weir_channel::id::TransportId;
use weir_channel::message::{IceProtocol, IceTuple, OpenSharedPorts, Reply, WorkerError};

use crate::net::poll::{Interest, Source};
use crate::net::shell::{PollBackend, Shell};
use crate::net::sockets::{IceSockets, os};
use crate::relay::sink::TransportIx;
use crate::time::Time;

use super::event_loop::EventLoop;

impl<S: Shell> EventLoop<S> {
    pub(super) fn open_shared_ports(
        &mut self,
        request: &OpenSharedPorts,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, WorkerError> {
        self.egress.sockets.open_shared_ports(&request.protocols, descriptors)?;
        let mut result = Ok(());
        self.egress.sockets.each_shared_port(|number, socket| {
            let interest = self.interest_in_shared_port(number);
            let added = self.poller.add(socket, Source::SharedPort { number }, interest);
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
            return Err(WorkerError::descriptors(0, descriptors.len()));
        }
        match self.egress.sockets.has_shared_ports() {
            true => Ok(IceSockets::on_shared_ports()),
            false => Err(WorkerError::invalid(
                "a WebRTC transport without listeners needs a shared port to be reached through",
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
        let [socket] = <[OwnedFd; 1]>::try_from(descriptors)
            .map_err(|descriptors| WorkerError::descriptors(1, descriptors.len()))?;
        let index = self.index_of(transport)?;
        if !self.webrtc.wants_socket(index, tuple) {
            self.egress.sockets.leave_unused(index, tuple, socket);
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

    /// A shared port's socket is full: a transport's packets wait until it is writable.
    pub(super) fn wait_for_shared_port(&mut self, number: u8, transport: TransportIx) {
        let Some(waiting) = self.blocked_on_shared_port.get_mut(usize::from(number)) else {
            return;
        };
        if !waiting.contains(&transport) {
            waiting.push(transport);
        }
        if let [_] = waiting[..] {
            self.watch_shared_port(number);
        }
    }

    /// A shared port's socket is writable again: one transport after the other sends what waits, until it is full.
    pub(super) fn write_by_shared_port(&mut self, number: u8) {
        let Some(waiting) = self.blocked_on_shared_port.get_mut(usize::from(number)) else {
            return;
        };
        let mut waiting = std::mem::take(waiting);
        while let Some(transport) = waiting.pop() {
            // Who sends on another socket by now is waited for there.
            if self.egress.sockets.sends_through(transport) == Some(number) && self.egress.handle_writable(transport) {
                // The last one the next time, so that all have their turn.
                waiting.insert(0, transport);
                break;
            }
        }
        let is_done = waiting.is_empty();
        if let Some(place) = self.blocked_on_shared_port.get_mut(usize::from(number)) {
            *place = waiting;
        }
        if is_done {
            self.watch_shared_port(number);
        }
    }

    /// Whether shared ports are read. As long as a room is adopted, what comes there may be for somebody who is not there yet: it waits.
    pub(super) fn reads_shared_ports(&self) -> bool {
        self.adoptions.is_empty()
    }

    /// It may have changed whether they are read.
    pub(super) fn watch_shared_ports(&self) {
        self.egress
            .sockets
            .each_shared_port(|number, _| self.watch_shared_port(number));
    }

    /// What waits at shared ports is to be dropped when they are read.
    pub(super) fn drop_waiting_at_shared_ports(&mut self, now: Time) {
        let Self { egress, sieve, .. } = self;
        egress.sockets.each_shared_port(|number, _| {
            // Connections have begun only, and wait for an answer.
            if matches!(egress.sockets.shared_port_at(number), Some((IceProtocol::Udp, _))) {
                sieve.drop_waiting(now, Source::SharedPort { number });
            }
        });
    }

    fn watch_shared_port(&self, number: u8) {
        if let Some(socket) = self.egress.sockets.shared_port(number) {
            let interest = self.interest_in_shared_port(number);
            self.poller.rewatch(socket, Source::SharedPort { number }, interest);
        }
    }

    fn interest_in_shared_port(&self, number: u8) -> Interest {
        let blocked = self.blocked_on_shared_port.get(usize::from(number));
        let is_blocked = blocked.is_some_and(|blocked| !blocked.is_empty());
        match (self.reads_shared_ports(), is_blocked) {
            (true, false) => Interest::Read,
            (true, true) => Interest::ReadWrite,
            (false, true) => Interest::Write,
            (false, false) => Interest::Nothing,
        }
    }
}
