//! Sockets that another worker has left connected to a transport's peer: TCP connections, and the connected socket of a shared port.
//!
//! They go on if the transport's own state says that they are its peer's, and are closed if not. Until the adoption of the room ends,
//! nothing is read from them.

use std::os::fd::{AsFd, OwnedFd};

use tracing::{debug, warn};
use weir_channel::message::{CreateWebRtcTransport, IceProtocol, IceTuple, WorkerError};

use crate::net::shell::{PollBackend, Shell};
use crate::net::sockets::{Connection, os};
use crate::process::event_loop::EventLoop;
use crate::relay::sink::TransportIx;
use crate::time::Time;

use super::connections::{close_connection, keep_connection};
use super::{IoContext, WebRtc};

impl<S: Shell> EventLoop<S> {
    /// Takes over what another worker has left connected of a transport.
    pub(super) fn take_over_connected(
        &mut self,
        now: Time,
        request: &CreateWebRtcTransport,
        transport: TransportIx,
        connected: Vec<(IceTuple, OwnedFd)>,
    ) {
        let is_adopted = self.adoptions.contains(request.room);
        for (tuple, socket) in connected {
            let taken = match tuple.protocol {
                _ if !is_adopted => Err(WorkerError::invalid("its room is not being adopted")),
                IceProtocol::Udp => self.egress.sockets.take_over_connected(transport, tuple, socket),
                IceProtocol::Tcp => self.take_over_connection(now, request, (transport, tuple), socket),
            };
            if let Err(error) = taken {
                warn!(transport = request.transport.0, %tuple, %error, "a connection cannot be continued, and ends");
                self.egress.sockets.note_closed(transport, tuple);
            }
        }
    }

    fn take_over_connection(
        &mut self,
        now: Time,
        request: &CreateWebRtcTransport,
        (transport, tuple): (TransportIx, IceTuple),
        socket: OwnedFd,
    ) -> Result<(), WorkerError> {
        let listener = self.egress.sockets.tcp_at(transport, tuple.local);
        let listener = listener.ok_or_else(|| WorkerError::invalid("its transport has no listener there"))?;
        let cookie = Connection::cookie_of(socket.as_fd()).map_err(|errno| os("getsockopt", errno))?;
        let left = self
            .relay
            .connection_legacy(request.room, request.transport, cookie)
            .map_err(|damaged| WorkerError::invalid(damaged.to_string()))?
            .ok_or_else(|| WorkerError::invalid("nobody knows how far it was written"))?;
        let connection = Connection::resume(socket, (listener, tuple), &left, now)?;
        let number = self.egress.sockets.adopt_connection(transport, connection);
        let number = number.ok_or_else(|| WorkerError::invalid("its transport has too many"))?;
        keep_connection(&mut self.webrtc_and_io().1, (transport, request.transport), number);
        Ok(())
    }
}

impl WebRtc {
    /// All is as another worker has left it: watches what was taken over of a transport, and closes what is not its peer's.
    pub(in crate::process) fn end_take_over(&mut self, io: &mut IoContext<'_, impl Shell>, transport: TransportIx) {
        io.egress.sockets.end_take_over(transport);
        let numbers: Vec<u8> = io
            .egress
            .sockets
            .connections(transport)
            .map(|(number, _)| number)
            .collect();
        for number in numbers {
            let Some(connection) = io.egress.sockets.connection(transport, number) else {
                continue;
            };
            let source = connection.source(transport, number);
            let is_known = self.entry(transport).is_some_and(|entry| entry.is_proven(connection));
            let watched = is_known
                && match io.poller.add(connection.socket(), source, connection.interest()) {
                    Ok(()) => true,
                    Err(errno) => {
                        debug!(%errno, "epoll_ctl");
                        false
                    }
                };
            if !watched {
                close_connection(io, transport, number);
            }
        }
    }
}
