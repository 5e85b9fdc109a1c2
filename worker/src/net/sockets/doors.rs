//! Doors: ports that all WebRTC transports share which have none of their own.
//!
//! A door is one unconnected UDP socket, or a listening TCP one. A transport sends through it, each message with its
//! destination, until it is given a socket of its own that is bound to the same port and connected to its peer; the kernel
//! then gives it that peer's packets, and saves the route lookup for those that are sent. Such a socket lives as long as its
//! tuple is the selected one.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, getpeername, recv};
use weir_channel::message::{IceProtocol, IceTuple, SHARED_SOCKETS_MAX, WorkerError};

use super::connections::{Connection, Someone, accept_at};
use super::ice::{address_of, check_tcp};
use super::{Path, Sockets, check_udp, drop_count, local_address, os, prepare, stamp_as_others};
use crate::net::send::{Destination, Route, is_pending_error};
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::framing::PREFIX_BYTES;

/// The longest first packet of a connection: a check is a few hundred bytes.
const FIRST_PACKET_BYTES_MAX: usize = 1_500;

/// One door.
#[derive(Debug)]
pub(super) struct Door {
    local: SocketAddr,
    kind: Kind,
    /// The last count seen.
    pub(super) drop_count: u32,
    pub(super) kernel_drops: u64,
}

#[derive(Debug)]
enum Kind {
    /// Shared with the paths that send through it.
    Udp {
        socket: Arc<OwnedFd>,
        is_v6: bool,
    },
    Tcp(OwnedFd),
}

/// A way out through a door.
#[derive(Debug)]
pub(super) struct Shared {
    door: Arc<OwnedFd>,
    number: u8,
    destination: Destination,
}

impl Shared {
    #[inline]
    pub(super) fn route(&self) -> Route<'_> {
        Route {
            socket: self.door.as_fd(),
            destination: Some(&self.destination),
        }
    }
}

/// What a transport at the doors has of its own.
#[derive(Debug, Default)]
pub(super) struct AtDoors {
    /// The connected socket that is its path at the moment.
    pub(super) path: Option<Connected>,
    /// The last count seen of that socket.
    pub(super) drop_count: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Connected {
    pub(super) door: u8,
    tuple: IceTuple,
}

impl AtDoors {
    /// Closes the connected socket, and stops sending through the door.
    pub(super) fn leave(&mut self, path: &mut Path) {
        self.path = None;
        path.socket = None;
        path.shared = None;
    }

    /// Sends through a door to a tuple's remote end from now on.
    pub(super) fn enter(&self, path: &mut Path, doors: &[Door], tuple: IceTuple) -> Result<(), Errno> {
        let (number, door) = udp_at(doors, tuple.local).ok_or(Errno::EADDRNOTAVAIL)?;
        path.shared = door.shared(number, tuple.remote).map(Box::new);
        Ok(())
    }
}

impl Door {
    fn adopt(protocol: IceProtocol, socket: OwnedFd) -> Result<Self, WorkerError> {
        if protocol == IceProtocol::Tcp {
            return Ok(Self {
                local: check_tcp(&socket)?,
                kind: Kind::Tcp(socket),
                drop_count: 0,
                kernel_drops: 0,
            });
        }
        check_udp(&socket)?;
        if getpeername::<SockaddrStorage>(socket.as_raw_fd()).is_ok() {
            return Err(WorkerError::InvalidParameters(
                "a door is connected; it must stay open to everybody".to_owned(),
            ));
        }
        prepare(socket.as_fd()).map_err(|errno| os("fcntl", errno))?;
        let bound = local_address(&socket)?;
        Ok(Self {
            local: address_of(&bound)?,
            // What was dropped before, when another worker had the socket, is not this worker's.
            drop_count: drop_count(socket.as_fd()),
            kind: Kind::Udp {
                socket: Arc::new(socket),
                is_v6: bound.as_sockaddr_in6().is_some(),
            },
            kernel_drops: 0,
        })
    }

    fn protocol(&self) -> IceProtocol {
        match self.kind {
            Kind::Udp { .. } => IceProtocol::Udp,
            Kind::Tcp(_) => IceProtocol::Tcp,
        }
    }

    fn socket(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Udp { socket, .. } => socket.as_fd(),
            Kind::Tcp(socket) => socket.as_fd(),
        }
    }

    fn shared(&self, number: u8, remote: SocketAddr) -> Option<Shared> {
        match &self.kind {
            Kind::Udp { socket, is_v6 } => Some(Shared {
                door: Arc::clone(socket),
                number,
                destination: Destination::new(remote, *is_v6),
            }),
            Kind::Tcp(_) => None,
        }
    }
}

fn udp_at(doors: &[Door], local: SocketAddr) -> Option<(u8, &Door)> {
    let numbered = (0..).zip(doors);
    let mut udp = numbered.filter(|(_, door)| door.protocol() == IceProtocol::Udp);
    udp.find(|(_, door)| door.local == local)
}

/// A connection that came by a door and has not said for whom. It is read no further than to the end of its first packet.
#[derive(Debug)]
pub struct Waiting {
    socket: OwnedFd,
    door: u8,
    local: SocketAddr,
    remote: SocketAddr,
    accepted_at: Time,
    bytes: Vec<u8>,
}

/// How far the first packet of a [`Waiting`] connection got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstPacket {
    /// Some of it is missing.
    Incomplete,
    /// It is there.
    Complete,
    /// It never will be: the peer has closed the connection, or says more than a check does.
    Never,
}

impl Waiting {
    /// Which door it came by.
    pub fn door(&self) -> u8 {
        self.door
    }

    /// Where that is bound to.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The other end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// When it was accepted.
    pub fn accepted_at(&self) -> Time {
        self.accepted_at
    }

    /// Its descriptor, to be watched.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The first packet, when it is complete.
    pub fn packet_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(PREFIX_BYTES..).unwrap_or_default()
    }

    /// Reads what has come, up to the end of the first packet.
    pub fn read(&mut self) -> FirstPacket {
        loop {
            let held = self.bytes.len();
            let wanted = match self.bytes.first_chunk::<PREFIX_BYTES>() {
                None => PREFIX_BYTES,
                Some(prefix) => {
                    let len = usize::from(u16::from_be_bytes(*prefix));
                    if len == 0 || len > FIRST_PACKET_BYTES_MAX {
                        return FirstPacket::Never;
                    }
                    PREFIX_BYTES + len
                }
            };
            if held == wanted {
                return FirstPacket::Complete;
            }
            self.bytes.resize(wanted, 0);
            let read = recv(self.socket.as_raw_fd(), &mut self.bytes[held..], MsgFlags::MSG_DONTWAIT);
            self.bytes.truncate(held + read.unwrap_or(0));
            match read {
                Ok(0) => return FirstPacket::Never,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return FirstPacket::Incomplete,
                Err(_) => return FirstPacket::Never,
            }
        }
    }

    /// As a transport's connection, and its first packet.
    pub fn into_connection(mut self) -> (Connection, Vec<u8>) {
        self.bytes.drain(..PREFIX_BYTES.min(self.bytes.len()));
        let connection = Connection::new(self.socket, self.door, self.local, self.remote, self.accepted_at);
        (connection, self.bytes)
    }
}

impl Sockets {
    /// Opens the doors of a worker, in the order of their descriptors, which are closed if they are refused.
    ///
    /// # Errors
    /// [`WorkerError::Descriptors`] if there are more or fewer than that, [`WorkerError::InvalidParameters`] if they are not
    /// what `protocols` says, or the worker has doors already, [`WorkerError::Os`] if they cannot be set up.
    pub fn open_doors(&mut self, protocols: &[IceProtocol], descriptors: Vec<OwnedFd>) -> Result<(), WorkerError> {
        let invalid = |reason: &str| Err(WorkerError::InvalidParameters(reason.to_owned()));
        if !self.doors.is_empty() {
            return invalid("the doors are open already");
        }
        if protocols.is_empty() || protocols.len() > SHARED_SOCKETS_MAX {
            return invalid(&format!(
                "{} doors; a worker has 1 to {SHARED_SOCKETS_MAX}",
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
        let mut doors: Vec<Door> = Vec::with_capacity(protocols.len());
        for (protocol, socket) in protocols.iter().zip(descriptors) {
            let door = Door::adopt(*protocol, socket)?;
            stamp_as_others(door.socket(), self.stamps_arrivals);
            if doors
                .iter()
                .any(|other| other.local == door.local && other.protocol() == *protocol)
            {
                return invalid("two doors are bound to the same address");
            }
            doors.push(door);
        }
        self.doors = doors;
        Ok(())
    }

    /// Closes them again, for one who could not watch them.
    pub fn close_doors(&mut self) {
        self.doors.clear();
    }

    /// Whether there are any.
    pub fn has_doors(&self) -> bool {
        !self.doors.is_empty()
    }

    /// Calls `visit` with the number and the socket of each.
    pub fn each_door(&self, mut visit: impl FnMut(u8, BorrowedFd<'_>)) {
        for (number, door) in (0..).zip(&self.doors) {
            visit(number, door.socket());
        }
    }

    /// The socket of one.
    pub fn door(&self, number: u8) -> Option<BorrowedFd<'_>> {
        Some(self.doors.get(usize::from(number))?.socket())
    }

    /// What one of them is, and where it is bound to.
    pub fn door_at(&self, number: u8) -> Option<(IceProtocol, SocketAddr)> {
        let door = self.doors.get(usize::from(number))?;
        Some((door.protocol(), door.local))
    }

    /// Whether a transport is reached through the doors.
    pub fn is_at_doors(&self, transport: TransportIx) -> bool {
        self.ice(transport).is_some_and(|ice| ice.at_doors.is_some())
    }

    /// The door that a transport sends through, as long as it has no socket of its own for that.
    pub fn sends_through(&self, transport: TransportIx) -> Option<u8> {
        let path = self.paths.get(transport.0 as usize)?;
        let shared = path.shared.as_ref().filter(|_| path.socket.is_none())?;
        Some(shared.number)
    }

    /// Makes a socket that is connected to a tuple the path of a transport that sends through a door to the same tuple. The
    /// socket is closed if it is refused.
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
        let at_doors = self.ice.get_mut(transport.0 as usize);
        let Some(at_doors) = at_doors.and_then(|ice| ice.as_deref_mut()?.at_doors.as_mut()) else {
            return Ok(());
        };
        at_doors.path = Some(Connected { door: number, tuple });
        at_doors.drop_count = drops;
        self.paths[transport.0 as usize].socket = Some(socket);
        Ok(())
    }

    /// Gives a connected socket up again, and sends through the door.
    pub fn give_up_connected(&mut self, transport: TransportIx) {
        if let Some(Some(ice)) = self.ice.get_mut(transport.0 as usize)
            && let Some(at_doors) = &mut ice.at_doors
        {
            at_doors.path = None;
            self.paths[transport.0 as usize].socket = None;
        }
    }

    /// Sends one datagram from a door to anybody, on the transport's own socket if that is connected so.
    pub(super) fn send_by_door(
        &mut self,
        transport: TransportIx,
        local: SocketAddr,
        remote: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Errno> {
        let at_doors = self.ice(transport).and_then(|ice| ice.at_doors.as_ref());
        let is_own = at_doors
            .and_then(|at_doors| at_doors.path)
            .is_some_and(|path| (path.tuple.local, path.tuple.remote) == (local, remote));
        let (number, door) = udp_at(&self.doors, local).ok_or(Errno::EADDRNOTAVAIL)?;
        let shared;
        let route = match &self.paths[transport.0 as usize].socket {
            Some(socket) if is_own => Route::from(socket.as_fd()),
            _ => {
                shared = door.shared(number, remote).ok_or(Errno::EADDRNOTAVAIL)?;
                shared.route()
            }
        };
        match route.send(datagram) {
            Err(errno) if is_pending_error(errno) => route.send(datagram),
            result => result,
        }
    }

    /// Takes the next connection of a door.
    ///
    /// # Errors
    /// What the kernel says if it has no room for connections itself (EMFILE, ENOBUFS …).
    pub fn accept_at_door(&self, now: Time, number: u8) -> Result<AtDoor, Errno> {
        let Some(Door {
            local,
            kind: Kind::Tcp(listener),
            ..
        }) = self.doors.get(usize::from(number))
        else {
            return Ok(AtDoor::Nobody);
        };
        Ok(match accept_at(listener.as_fd())? {
            Someone::Nobody => AtDoor::Nobody,
            Someone::Gone => AtDoor::Gone,
            Someone::Here(socket, remote) => AtDoor::Here(Waiting {
                socket,
                door: number,
                local: *local,
                remote,
                accepted_at: now,
                bytes: Vec::new(),
            }),
        })
    }
}

/// Who waited at a door.
#[derive(Debug)]
pub enum AtDoor {
    /// Nobody.
    Nobody,
    /// Somebody who is not there any more.
    Gone,
    /// Somebody.
    Here(Waiting),
}
