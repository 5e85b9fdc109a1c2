//! WebRTC transports in the table of all sockets: which of its sockets a transport sends on, and what it is asked to send.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, getpeername};
use weir_channel::message::{IceProtocol, IceTuple, LISTENERS_MAX};

use super::Sockets;
use super::ice::{IceSockets, Kind, side_of};
use super::options::{drop_count, may_segment, reconnect, stamp_as_others};
use super::path::Path;
use super::plain::is_connected_to;
use crate::net::send::{Destination, Route, SendBackend, is_pending_error};
use crate::net::source::Side;
use crate::relay::sink::TransportIx;

impl Sockets {
    /// Registers the sockets of a new WebRTC transport. It cannot send before [`Sockets::select`] and [`Sockets::open`].
    ///
    /// # Panics
    /// If the index is taken.
    pub fn attach_ice(&mut self, transport: TransportIx, sockets: IceSockets) {
        let index = transport.0 as usize;
        self.reserve(transport);
        assert!(!self.contains(transport), "the relay gave out an index twice");
        self.paths[index] = Path {
            is_protected: true,
            ..Path::vacant()
        };
        self.ice[index] = Some(Box::new(sockets));
        self.each_listener(transport, |_, _, socket| {
            stamp_as_others(socket, self.stamps_arrivals); // which a listening socket takes too
        });
    }

    /// As [`Sockets::begin_drop_counts`], of a WebRTC transport.
    pub(super) fn begin_listener_drop_counts(&mut self, transport: TransportIx) {
        let mut drop_counts = [[0; 2]; LISTENERS_MAX];
        self.each_listener(transport, |listener, side, socket| {
            drop_counts[usize::from(listener)][side_of(side)] = drop_count(socket);
        });
        if let Some(Some(ice)) = self.ice.get_mut(transport.0 as usize) {
            for (listener, counts) in drop_counts.into_iter().enumerate() {
                if let Some(udp) = ice.udp_mut(listener as u8) {
                    udp.drop_counts = counts;
                }
            }
        }
    }

    /// Whether a WebRTC transport has a path on which it sends.
    pub fn is_reached_by_ice(&self, transport: TransportIx) -> bool {
        self.ice(transport).is_some_and(|ice| ice.sending().is_some())
    }

    /// Calls `visit` with each socket of a WebRTC transport but those of connections. A listening one counts as unconnected.
    pub fn each_listener(&self, transport: TransportIx, mut visit: impl FnMut(u8, Side, BorrowedFd<'_>)) {
        for listener in 0..LISTENERS_MAX as u8 {
            for side in [Side::Unconnected, Side::Connected] {
                if let Some(socket) = self.listener(transport, listener, side) {
                    visit(listener, side, socket);
                }
            }
        }
    }

    /// One of a WebRTC transport's sockets. A TCP listener has a listening socket only, which counts as unconnected.
    pub fn listener(&self, transport: TransportIx, listener: u8, side: Side) -> Option<BorrowedFd<'_>> {
        let ice = self.ice(transport)?;
        if let Some(on_shared_ports) = &ice.on_shared_ports {
            let socket = on_shared_ports
                .socket
                .filter(|socket| socket.port == listener && side == Side::Connected);
            return socket.and(self.paths[transport.0 as usize].socket.as_ref().map(AsFd::as_fd));
        }
        let udp = match &ice.listeners.get(usize::from(listener))?.kind {
            Kind::Udp(udp) => udp,
            Kind::Tcp(socket) => return Some(socket.as_fd()).filter(|_| side == Side::Unconnected),
        };
        match (side, &udp.connected) {
            (Side::Unconnected, _) => Some(udp.unconnected.as_fd()),
            (Side::Connected, Some(connected)) => Some(connected.as_fd()),
            (Side::Connected, None) => Some(self.paths[transport.0 as usize].socket.as_ref()?.as_fd()),
        }
    }

    /// What a listener of a WebRTC transport is, and where it is bound to.
    pub fn listens_at(&self, transport: TransportIx, listener: u8) -> Option<(IceProtocol, SocketAddr)> {
        let ice = self.ice(transport)?;
        if ice.on_shared_ports.is_some() {
            return self.shared_port_at(listener);
        }
        let listener = ice.listeners.get(usize::from(listener))?;
        Some((listener.protocol(), listener.local))
    }

    /// Whether a listener of a WebRTC transport takes connections.
    pub fn is_tcp(&self, transport: TransportIx, listener: u8) -> bool {
        self.listens_at(transport, listener)
            .is_some_and(|(protocol, _)| protocol == IceProtocol::Tcp)
    }

    /// Whether a WebRTC transport has the connection between the two ends of a tuple.
    pub fn has_connection(&self, transport: TransportIx, tuple: IceTuple) -> bool {
        let ice = self.ice(transport);
        ice.is_some_and(|ice| ice.connection_between(tuple.local, tuple.remote).is_some())
    }

    /// The connection that a WebRTC transport sends on.
    #[inline]
    pub(in crate::net) fn stream(&self, transport: TransportIx) -> Option<u8> {
        self.ice(transport)?.stream
    }

    /// Sends between the two ends of a tuple from now on: on the connected socket of the UDP listener at its local end, or
    /// over the TCP connection between them. The socket that was used before is parked. Nothing can be sent until
    /// [`Sockets::open`].
    ///
    /// # Errors
    /// What the kernel says, e.g. that there is no route, or [`Errno::EADDRNOTAVAIL`] if there is no such listener or
    /// connection. Nothing is sent then.
    pub fn select(&mut self, transport: TransportIx, tuple: Option<IceTuple>) -> Result<(), Errno> {
        let Some(Some(ice)) = self.ice.get_mut(transport.0 as usize) else {
            return Err(Errno::EBADF);
        };
        let path = &mut self.paths[transport.0 as usize];
        path.is_connected = false;
        // Another route: it may segment where the last one did not.
        path.uses_gso = may_segment();
        path.refusals = 0;
        path.is_stream = false;
        ice.stream = None;
        if let Some(on_shared_ports) = &mut ice.on_shared_ports {
            let closed = on_shared_ports.leave(path);
            self.closed.extend(closed.map(|tuple| (transport, tuple)));
            if let Some(tuple) = tuple.filter(|tuple| tuple.protocol == IceProtocol::Udp) {
                on_shared_ports.enter(path, &self.shared_ports, tuple)?;
                on_shared_ports.go_on(path, tuple);
                return Ok(());
            }
        }
        let by_udp = tuple.filter(|tuple| tuple.protocol == IceProtocol::Udp);
        let wanted = by_udp.and_then(|tuple| ice.udp_at(tuple.local)).map(|(index, _)| index);
        let sending = ice.sending();
        if let Some(sending) = sending.filter(|sending| Some(*sending) != wanted)
            && let Some(udp) = ice.udp_mut(sending)
            && let Some(socket) = path.socket.take()
        {
            // If it cannot be parked it goes on receiving from where it did, which everybody who reads it checks.
            udp.remote = udp
                .remote
                .filter(|_| reconnect(socket.as_fd(), udp.bound, None).is_err());
            udp.connected = Some(socket);
        }
        ice.park_others(wanted);
        let Some(IceTuple {
            protocol,
            local,
            remote,
        }) = tuple
        else {
            return Ok(());
        };
        if protocol == IceProtocol::Tcp {
            ice.stream = ice.connection_between(local, remote);
            path.is_stream = ice.stream.is_some();
            return ice.stream.map(drop).ok_or(Errno::EADDRNOTAVAIL);
        }
        let udp = wanted
            .and_then(|wanted| ice.udp_mut(wanted))
            .ok_or(Errno::EADDRNOTAVAIL)?;
        if let Some(socket) = udp.connected.take() {
            path.socket = Some(socket);
        }
        let socket = path.socket.as_ref().ok_or(Errno::EBADF)?;
        if is_connected_to(socket, &udp.bound, Some(remote)) {
            // Another worker has left it so. What has come is in it, and what comes meanwhile must not go elsewhere.
            udp.remote = Some(remote);
            return Ok(());
        }
        match reconnect(socket.as_fd(), udp.bound, Some(remote)) {
            Ok(()) => {
                udp.remote = Some(remote);
                Ok(())
            }
            Err(errno) => {
                // It is left unconnected, or connected to where it was.
                udp.remote = udp
                    .remote
                    .filter(|_| getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok());
                udp.connected = path.socket.take();
                Err(errno)
            }
        }
    }

    /// Allows or forbids a WebRTC transport to send media.
    pub fn open(&mut self, transport: TransportIx, is_open: bool) {
        if let Some(path) = self.paths.get_mut(transport.0 as usize) {
            path.is_connected = is_open && (path.route().is_some() || path.is_stream);
        }
    }

    /// Sends one datagram, which is neither RTP nor RTCP, between two addresses: on the socket that is connected so, else
    /// through the unconnected one, or over the TCP connection.
    ///
    /// # Errors
    /// What the kernel says, [`Errno::EADDRNOTAVAIL`] if there is no such listener or connection, [`Errno::EAGAIN`] if the
    /// connection is full.
    pub(in crate::net) fn send_to(
        &mut self,
        backend: &mut impl SendBackend,
        transport: TransportIx,
        tuple: IceTuple,
        datagram: &[u8],
    ) -> Result<(), Errno> {
        let IceTuple {
            protocol,
            local,
            remote,
        } = tuple;
        if protocol == IceProtocol::Tcp {
            let connection = self
                .ice(transport)
                .and_then(|ice| ice.connection_between(local, remote));
            let connection = connection.ok_or(Errno::EADDRNOTAVAIL)?;
            let taken = self.send_frames(transport, connection, datagram, datagram.len());
            return if taken == 1 { Ok(()) } else { Err(Errno::EAGAIN) };
        }
        if self.uses_shared_ports(transport) {
            return self.send_by_shared_port(transport, local, remote, datagram);
        }
        let (listener, udp) = self
            .ice(transport)
            .and_then(|ice| ice.udp_at(local))
            .ok_or(Errno::EADDRNOTAVAIL)?;
        let connected = self
            .listener(transport, listener, Side::Connected)
            .filter(|_| udp.remote == Some(remote));
        let destination;
        let route = match connected {
            Some(socket) => Route::from(socket),
            None => {
                destination = Destination::new(remote, udp.bound.as_sockaddr_in6().is_some());
                Route {
                    socket: udp.unconnected.as_fd(),
                    destination: Some(&destination),
                }
            }
        };
        match backend.send_packet(route, datagram) {
            // Of an earlier packet.
            Err(errno) if is_pending_error(errno) => backend.send_packet(route, datagram),
            result => result,
        }
    }

    pub(super) fn ice(&self, transport: TransportIx) -> Option<&IceSockets> {
        self.ice.get(transport.0 as usize)?.as_deref()
    }
}
