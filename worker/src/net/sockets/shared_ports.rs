//! Shared ports in the table of all sockets: opened, sent through, accepted at, and replaced by connected sockets.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{SockaddrStorage, getpeername};
use weir_channel::message::{IceProtocol, IceTuple, SHARED_PORTS_MAX, WorkerError};

use super::Sockets;
use super::check::{address_of, check_udp, local_address, os};
use super::connection::{Accepted, accept_at};
use super::options::{drop_count, prepare, stamp_as_others};
use super::shared_port::{Kind, OwnSocket, SharedPort, UnassignedConnection, udp_at};
use crate::net::send::{Route, is_pending_error};
use crate::relay::sink::TransportIx;
use crate::time::Time;

impl Sockets {
    /// Opens the shared ports of a worker, in the order of their descriptors, which are closed if they are refused.
    ///
    /// # Errors
    /// [`WorkerError::Descriptors`] if there are more or fewer than that, [`WorkerError::InvalidParameters`] if they are not
    /// what `protocols` says, or the worker has shared ports already, [`WorkerError::Os`] if they cannot be set up.
    pub fn open_shared_ports(
        &mut self,
        protocols: &[IceProtocol],
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), WorkerError> {
        let invalid = |reason: &str| Err(WorkerError::InvalidParameters(reason.to_owned()));
        if !self.shared_ports.is_empty() {
            return invalid("the shared ports are open already");
        }
        if protocols.is_empty() || protocols.len() > SHARED_PORTS_MAX {
            return invalid(&format!(
                "{} shared ports; a worker has 1 to {SHARED_PORTS_MAX}",
                protocols.len()
            ));
        }
        if protocols.len() != descriptors.len() {
            let count = |len: usize| u8::try_from(len).unwrap_or(u8::MAX);
            return Err(WorkerError::Descriptors {
                expected: count(protocols.len()),
                received: count(descriptors.len()),
            });
        }
        let mut shared_ports: Vec<SharedPort> = Vec::with_capacity(protocols.len());
        for (protocol, socket) in protocols.iter().zip(descriptors) {
            let port = SharedPort::adopt(*protocol, socket)?;
            stamp_as_others(port.socket(), self.stamps_arrivals);
            if shared_ports
                .iter()
                .any(|other| other.local == port.local && other.protocol() == *protocol)
            {
                return invalid("two shared ports are bound to the same address");
            }
            shared_ports.push(port);
        }
        self.shared_ports = shared_ports;
        Ok(())
    }

    /// Closes the shared ports, because they could not be watched.
    pub fn close_shared_ports(&mut self) {
        self.shared_ports.clear();
    }

    /// Whether the worker has shared ports.
    pub fn has_shared_ports(&self) -> bool {
        !self.shared_ports.is_empty()
    }

    /// Calls `visit` with the number and the socket of each.
    pub fn each_shared_port(&self, mut visit: impl FnMut(u8, BorrowedFd<'_>)) {
        for (number, port) in (0..).zip(&self.shared_ports) {
            visit(number, port.socket());
        }
    }

    /// The socket of a shared port.
    pub fn shared_port(&self, number: u8) -> Option<BorrowedFd<'_>> {
        Some(self.shared_ports.get(usize::from(number))?.socket())
    }

    /// The protocol and the address of a shared port.
    pub fn shared_port_at(&self, number: u8) -> Option<(IceProtocol, SocketAddr)> {
        let port = self.shared_ports.get(usize::from(number))?;
        Some((port.protocol(), port.local))
    }

    /// Whether a transport is reached through the shared ports.
    pub fn uses_shared_ports(&self, transport: TransportIx) -> bool {
        self.ice(transport).is_some_and(|ice| ice.on_shared_ports.is_some())
    }

    /// The shared port that a transport sends through, as long as it has no socket of its own for that.
    pub fn sends_through(&self, transport: TransportIx) -> Option<u8> {
        let path = self.paths.get(transport.0 as usize)?;
        let shared = path.shared.as_ref().filter(|_| path.socket.is_none())?;
        Some(shared.number)
    }

    /// From now on, a transport that sends through a shared port to a tuple sends on this socket, which is connected to the
    /// same tuple. The socket is closed if it is refused.
    ///
    /// # Errors
    /// [`WorkerError::InvalidParameters`] if it is another socket, or not for this transport, [`WorkerError::Os`] if it cannot be set
    /// up.
    pub fn use_connected(
        &mut self,
        transport: TransportIx,
        tuple: IceTuple,
        socket: OwnedFd,
    ) -> Result<(), WorkerError> {
        check_udp(&socket)?;
        let remote = getpeername::<SockaddrStorage>(socket.as_raw_fd()).map_err(|errno| os("getpeername", errno))?;
        let (local, remote) = (address_of(&local_address(&socket)?)?, address_of(&remote)?);
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let number = self.sends_through(transport);
        let (Some(number), true) = (number, (local, remote) == (tuple.local, tuple.remote)) else {
            return Err(WorkerError::InvalidParameters(
                "a socket that is not connected to where its transport sends".to_owned(),
            ));
        };
        prepare(socket.as_fd()).map_err(|errno| os("fcntl", errno))?;
        stamp_as_others(socket.as_fd(), self.stamps_arrivals);
        let drops = drop_count(socket.as_fd());
        let on_shared_ports = self.ice.get_mut(transport.0 as usize);
        let Some(on_shared_ports) = on_shared_ports.and_then(|ice| ice.as_deref_mut()?.on_shared_ports.as_mut()) else {
            return Ok(());
        };
        on_shared_ports.socket = Some(OwnSocket { port: number, tuple });
        on_shared_ports.drop_count = drops;
        self.paths[transport.0 as usize].socket = Some(socket);
        Ok(())
    }

    /// Closes a transport's connected socket, and sends through the shared port again.
    pub fn give_up_connected(&mut self, transport: TransportIx) {
        if let Some(Some(ice)) = self.ice.get_mut(transport.0 as usize)
            && let Some(on_shared_ports) = &mut ice.on_shared_ports
        {
            on_shared_ports.socket = None;
            self.paths[transport.0 as usize].socket = None;
        }
    }

    /// Sends one datagram from a shared port to anybody, on the transport's own socket if that is connected so.
    pub(super) fn send_by_shared_port(
        &mut self,
        transport: TransportIx,
        local: SocketAddr,
        remote: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Errno> {
        let on_shared_ports = self.ice(transport).and_then(|ice| ice.on_shared_ports.as_ref());
        let is_own = on_shared_ports
            .and_then(|on_shared_ports| on_shared_ports.socket)
            .is_some_and(|socket| (socket.tuple.local, socket.tuple.remote) == (local, remote));
        let (number, port) = udp_at(&self.shared_ports, local).ok_or(Errno::EADDRNOTAVAIL)?;
        let shared;
        let route = match &self.paths[transport.0 as usize].socket {
            Some(socket) if is_own => Route::from(socket.as_fd()),
            _ => {
                shared = port.shared(number, remote).ok_or(Errno::EADDRNOTAVAIL)?;
                shared.route()
            }
        };
        match route.send(datagram) {
            Err(errno) if is_pending_error(errno) => route.send(datagram),
            result => result,
        }
    }

    /// Accepts the next connection at a shared port.
    ///
    /// # Errors
    /// What the kernel says if it cannot take any more connections (EMFILE, ENOBUFS …).
    pub fn accept_at_shared_port(&self, now: Time, number: u8) -> Result<Accepted<UnassignedConnection>, Errno> {
        let Some(SharedPort {
            local,
            kind: Kind::Tcp(listener),
            ..
        }) = self.shared_ports.get(usize::from(number))
        else {
            return Ok(Accepted::None);
        };
        Ok(accept_at(listener.as_fd())?.and_then(|(socket, remote)| {
            Some(UnassignedConnection {
                socket,
                port: number,
                local: *local,
                remote,
                accepted_at: now,
                bytes: Vec::new(),
            })
        }))
    }
}
