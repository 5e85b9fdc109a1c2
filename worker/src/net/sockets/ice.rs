//! The sockets of WebRTC transports: an unconnected and a connected one for each UDP listener, and a listening one for each
//! TCP listener.
//!
//! When the peer has selected a listener, that listener's connected socket is connected to the peer and sends for the
//! transport; those of the other listeners are parked. Answers to anybody else leave through the unconnected socket that the
//! question came in by, or over the TCP connection (see `connection.rs`).

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sys::socket::SockaddrStorage;
use weir_channel::message::{IceProtocol, LISTENERS_MAX, WorkerError};

use super::SocketCounters;
use super::check::{address_of, check_tcp};
use super::connection::{CONNECTIONS_MAX, Connection};
use super::options::reconnect;
use super::plain::{PortSockets, remote_of};
use super::shared_ports::OnSharedPorts;
use crate::net::source::Side;

/// The sockets of one WebRTC transport.
#[derive(Debug)]
pub struct IceSockets {
    pub(super) listeners: Vec<Listener>,
    /// By number.
    pub(super) connections: Vec<Option<Box<Connection>>>,
    /// The connection that is sent on.
    pub(super) stream: Option<u8>,
    /// It has no listeners of its own.
    pub(super) on_shared_ports: Option<OnSharedPorts>,
    pub(super) counters: SocketCounters,
}

#[derive(Debug)]
pub(super) struct Listener {
    pub(super) local: SocketAddr,
    pub(super) kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    Udp(Udp),
    Tcp(OwnedFd),
}

#[derive(Debug)]
pub(super) struct Udp {
    pub(super) unconnected: OwnedFd,
    /// `None` while it is the socket that the transport sends on.
    pub(super) connected: Option<OwnedFd>,
    pub(super) bound: SockaddrStorage,
    /// Where the connected socket is connected to; `None`: it is parked.
    pub(super) remote: Option<SocketAddr>,
    /// The last count seen of the unconnected socket and of the connected one.
    pub(super) drop_counts: [u32; 2],
}

impl IceSockets {
    /// Takes the descriptors of a new WebRTC transport, in the order of
    /// [`CreateWebRtcTransport`](weir_channel::message::CreateWebRtcTransport). They are closed if they are refused.
    ///
    /// # Errors
    /// [`WorkerError::Descriptors`] if it is not that many, [`WorkerError::InvalidParameters`] if they are not what the
    /// listeners say, or two of them are bound to the same address, [`WorkerError::Os`] if they cannot be set up.
    pub fn adopt(descriptors: Vec<OwnedFd>, listeners: &[IceProtocol]) -> Result<Self, WorkerError> {
        Self::take(descriptors, listeners, PortSockets::adopt)
    }

    /// As [`IceSockets::adopt`], but what is connected stays so: a worker that is dead had them, and what has come meanwhile is in
    /// them. [`Sockets::select`](super::Sockets::select) leaves alone the one that is connected to the right tuple.
    ///
    /// # Errors
    /// As there.
    pub fn take_over(descriptors: Vec<OwnedFd>, listeners: &[IceProtocol]) -> Result<Self, WorkerError> {
        Self::take(descriptors, listeners, PortSockets::take_over)
    }

    /// Finds out again where the sockets are connected to, which another worker had in the meantime.
    pub fn look_again(&mut self) {
        for listener in &mut self.listeners {
            if let Kind::Udp(udp) = &mut listener.kind {
                udp.remote = udp.connected.as_ref().and_then(|socket| remote_of(socket, &udp.bound));
            }
        }
    }

    fn take(
        descriptors: Vec<OwnedFd>,
        listeners: &[IceProtocol],
        port: impl Fn(OwnedFd, OwnedFd) -> Result<PortSockets, WorkerError>,
    ) -> Result<Self, WorkerError> {
        if listeners.is_empty() || listeners.len() > LISTENERS_MAX {
            return Err(WorkerError::invalid(format!(
                "{} listeners; a WebRTC transport has 1 to {LISTENERS_MAX}",
                listeners.len()
            )));
        }
        let needed = |protocol: &IceProtocol| match protocol {
            IceProtocol::Udp => 2,
            IceProtocol::Tcp => 1,
        };
        let expected: usize = listeners.iter().map(needed).sum();
        let wrong_number = WorkerError::descriptors(expected, descriptors.len());
        if descriptors.len() != expected {
            return Err(wrong_number);
        }
        let mut descriptors = descriptors.into_iter();
        let mut next = || descriptors.next().ok_or_else(|| wrong_number.clone());
        let mut adopted: Vec<Listener> = Vec::with_capacity(listeners.len());
        for protocol in listeners {
            let listener = match protocol {
                IceProtocol::Udp => Listener::udp(port(next()?, next()?)?)?,
                IceProtocol::Tcp => Listener::tcp(next()?)?,
            };
            let is_same = |other: &&Listener| other.local == listener.local && other.protocol() == *protocol;
            if adopted.iter().any(|other| is_same(&other)) {
                return Err(WorkerError::invalid("two listeners are bound to the same address"));
            }
            adopted.push(listener);
        }
        Ok(Self {
            listeners: adopted,
            ..Self::none()
        })
    }

    pub(super) fn none() -> Self {
        Self {
            listeners: Vec::new(),
            connections: Vec::new(),
            stream: None,
            on_shared_ports: None,
            counters: SocketCounters::default(),
        }
    }

    /// Those of a transport that is reached through the worker's shared ports.
    pub fn on_shared_ports() -> Self {
        Self {
            on_shared_ports: Some(OnSharedPorts::default()),
            ..Self::none()
        }
    }

    pub(super) fn udp_mut(&mut self, listener: u8) -> Option<&mut Udp> {
        match &mut self.listeners.get_mut(usize::from(listener))?.kind {
            Kind::Udp(udp) => Some(udp),
            Kind::Tcp(_) => None,
        }
    }

    /// A listening socket, and where it is bound to.
    pub(super) fn tcp(&self, listener: u8) -> Option<(BorrowedFd<'_>, SocketAddr)> {
        let listener = self.listeners.get(usize::from(listener))?;
        match &listener.kind {
            Kind::Tcp(socket) => Some((socket.as_fd(), listener.local)),
            Kind::Udp(_) => None,
        }
    }

    /// The connections, with their numbers.
    pub(super) fn connections(&self) -> impl Iterator<Item = (u8, &Connection)> {
        let numbered = self.connections.iter().zip(0..);
        numbered.filter_map(|(connection, number)| Some((number, connection.as_deref()?)))
    }

    pub(super) fn connection(&self, number: u8) -> Option<&Connection> {
        self.connections.get(usize::from(number))?.as_deref()
    }

    pub(super) fn connection_mut(&mut self, number: u8) -> Option<&mut Connection> {
        self.connections.get_mut(usize::from(number))?.as_deref_mut()
    }

    /// Keeps a connection, and returns its number; `None` if there are too many.
    pub(super) fn insert(&mut self, connection: Connection) -> Option<u8> {
        let vacant = self.connections.iter().position(Option::is_none);
        let number = vacant.unwrap_or(self.connections.len());
        if number >= LISTENERS_MAX * (CONNECTIONS_MAX + 1) {
            return None;
        }
        if number == self.connections.len() {
            self.connections.push(None);
        }
        self.connections[number] = Some(Box::new(connection));
        Some(number as u8)
    }

    /// Closes a connection; whether it was the one that is sent on.
    pub(super) fn remove(&mut self, number: u8) -> bool {
        if let Some(connection) = self.connections.get_mut(usize::from(number)) {
            *connection = None;
        }
        let was_sending = self.stream == Some(number);
        if was_sending {
            self.stream = None;
        }
        was_sending
    }

    pub(super) fn connection_between(&self, local: SocketAddr, remote: SocketAddr) -> Option<u8> {
        self.connections()
            .find(|(_, one)| one.local() == local && one.remote() == remote)
            .map(|(number, _)| number)
    }

    /// Parks the connected sockets that a worker has left connected, but the one of this listener.
    pub(super) fn park_others(&mut self, wanted: Option<u8>) {
        for (index, listener) in (0..).zip(&mut self.listeners) {
            if let Kind::Udp(udp) = &mut listener.kind
                && let Some(socket) = &udp.connected
                && Some(index) != wanted
                && udp.remote.is_some()
            {
                // As in `select`: if it cannot be parked, it goes on receiving.
                udp.remote = udp
                    .remote
                    .filter(|_| reconnect(socket.as_fd(), udp.bound, None).is_err());
            }
        }
    }

    /// The UDP listener that is bound to an address.
    pub(super) fn udp_at(&self, local: SocketAddr) -> Option<(u8, &Udp)> {
        self.listeners
            .iter()
            .zip(0..)
            .find_map(|(listener, index)| match &listener.kind {
                Kind::Udp(udp) if listener.local == local => Some((index, udp)),
                _ => None,
            })
    }

    /// The last drop count seen of a socket, and the sum of all of the transport.
    pub(super) fn drop_count_mut(&mut self, listener: u8, side: Side) -> Option<(&mut u32, &mut u64)> {
        if let Some(on_shared_ports) = &mut self.on_shared_ports {
            return Some((&mut on_shared_ports.drop_count, &mut self.counters.kernel_drops));
        }
        match &mut self.listeners.get_mut(usize::from(listener))?.kind {
            Kind::Udp(udp) => Some((&mut udp.drop_counts[side_of(side)], &mut self.counters.kernel_drops)),
            Kind::Tcp(_) => None,
        }
    }

    /// The last drop counts seen of the listeners' sockets, in their order; those of a shared port are not the transport's.
    pub(super) fn drop_counts(&self) -> [u32; 2 * LISTENERS_MAX] {
        let mut counts = [0; 2 * LISTENERS_MAX];
        for (counts, listener) in counts.as_chunks_mut::<2>().0.iter_mut().zip(&self.listeners) {
            if let Kind::Udp(udp) = &listener.kind {
                *counts = udp.drop_counts;
            }
        }
        counts
    }

    /// As [`IceSockets::drop_counts`], seen by another worker.
    pub(super) fn set_drop_counts(&mut self, seen: [u32; 2 * LISTENERS_MAX]) {
        for (listener, seen) in self.listeners.iter_mut().zip(seen.as_chunks::<2>().0) {
            if let Kind::Udp(udp) = &mut listener.kind {
                udp.drop_counts = *seen;
            }
        }
    }

    /// The UDP listener whose connected socket the transport sends on.
    pub(super) fn sending(&self) -> Option<u8> {
        if let Some(on_shared_ports) = &self.on_shared_ports {
            return on_shared_ports.socket.map(|socket| socket.port);
        }
        let lent = |listener: &Listener| matches!(&listener.kind, Kind::Udp(Udp { connected: None, .. }));
        self.listeners.iter().position(lent).map(|index| index as u8)
    }
}

impl Listener {
    pub(super) fn udp(port: PortSockets) -> Result<Self, WorkerError> {
        Ok(Self {
            local: address_of(&port.local)?,
            kind: Kind::Udp(Udp {
                remote: remote_of(&port.connected, &port.local),
                unconnected: port.unconnected,
                connected: Some(port.connected),
                bound: port.local,
                drop_counts: [0; 2],
            }),
        })
    }

    pub(super) fn tcp(socket: OwnedFd) -> Result<Self, WorkerError> {
        Ok(Self {
            local: check_tcp(&socket)?,
            kind: Kind::Tcp(socket),
        })
    }

    pub(super) fn protocol(&self) -> IceProtocol {
        match self.kind {
            Kind::Udp(_) => IceProtocol::Udp,
            Kind::Tcp(_) => IceProtocol::Tcp,
        }
    }
}

pub(super) const fn side_of(side: Side) -> usize {
    match side {
        Side::Unconnected => 0,
        Side::Connected => 1,
    }
}
