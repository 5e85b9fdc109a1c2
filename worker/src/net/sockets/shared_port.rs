//! Shared ports: all WebRTC transports without ports of their own use them.
//!
//! A shared port is one unconnected UDP socket, or a listening TCP one. A transport sends through it, each message with its
//! destination, until it gets a socket of its own that is bound to the same port and connected to its peer. The kernel then
//! delivers that peer's packets to this socket, and needs no route lookup for what is sent. Such a socket lives as long as
//! its tuple is the selected one.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockaddrStorage, getpeername, recv};
use weir_channel::message::{IceProtocol, IceTuple, WorkerError};

use super::check::{address_of, check_tcp, check_udp, local_address, os};
use super::connection::Connection;
use super::options::{drop_count, prepare};
use super::path::{Path, SharedRoute};
use crate::net::send::Destination;
use crate::time::Time;
use crate::webrtc::framing::PREFIX_BYTES;

/// The longest first packet of a connection: a check is a few hundred bytes.
const FIRST_PACKET_BYTES_MAX: usize = 1_500;

/// One shared port.
#[derive(Debug)]
pub(super) struct SharedPort {
    pub(super) local: SocketAddr,
    pub(super) kind: Kind,
    /// The last count seen.
    pub(super) drop_count: u32,
    pub(super) kernel_drops: u64,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// Shared with the transports that send through it.
    Udp {
        socket: Arc<OwnedFd>,
        is_v6: bool,
    },
    Tcp(OwnedFd),
}

/// What a transport on shared ports has of its own.
#[derive(Debug, Default)]
pub(super) struct OnSharedPorts {
    /// The connected socket that it sends on at the moment.
    pub(super) socket: Option<OwnSocket>,
    /// The last count seen of that socket.
    pub(super) drop_count: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct OwnSocket {
    pub(super) port: u8,
    pub(super) tuple: IceTuple,
}

impl OnSharedPorts {
    /// Closes the connected socket, and stops sending through the shared port.
    pub(super) fn leave(&mut self, path: &mut Path) {
        self.socket = None;
        path.socket = None;
        path.shared = None;
    }

    /// Sends through a shared port to a tuple's remote end from now on.
    pub(super) fn enter(&self, path: &mut Path, shared_ports: &[SharedPort], tuple: IceTuple) -> Result<(), Errno> {
        let (number, port) = udp_at(shared_ports, tuple.local).ok_or(Errno::EADDRNOTAVAIL)?;
        path.shared = port.shared(number, tuple.remote).map(Box::new);
        Ok(())
    }
}

impl SharedPort {
    pub(super) fn adopt(protocol: IceProtocol, socket: OwnedFd) -> Result<Self, WorkerError> {
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
                "a shared port is connected; it must stay open to everybody".to_owned(),
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

    pub(super) fn protocol(&self) -> IceProtocol {
        match self.kind {
            Kind::Udp { .. } => IceProtocol::Udp,
            Kind::Tcp(_) => IceProtocol::Tcp,
        }
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        match &self.kind {
            Kind::Udp { socket, .. } => socket.as_fd(),
            Kind::Tcp(socket) => socket.as_fd(),
        }
    }

    pub(super) fn shared(&self, number: u8, remote: SocketAddr) -> Option<SharedRoute> {
        match &self.kind {
            Kind::Udp { socket, is_v6 } => Some(SharedRoute {
                port: Arc::clone(socket),
                number,
                destination: Destination::new(remote, *is_v6),
            }),
            Kind::Tcp(_) => None,
        }
    }
}

pub(super) fn udp_at(shared_ports: &[SharedPort], local: SocketAddr) -> Option<(u8, &SharedPort)> {
    let numbered = (0..).zip(shared_ports);
    let mut udp = numbered.filter(|(_, port)| port.protocol() == IceProtocol::Udp);
    udp.find(|(_, port)| port.local == local)
}

/// A connection to a shared port whose transport is not known yet. It is read up to the end of its first packet.
#[derive(Debug)]
pub struct UnassignedConnection {
    pub(super) socket: OwnedFd,
    pub(super) port: u8,
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) accepted_at: Time,
    pub(super) bytes: Vec<u8>,
}

/// How much of the first packet of an [`UnassignedConnection`] has arrived.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FirstPacket {
    /// A part of the packet is missing.
    Incomplete,
    /// The packet is complete.
    Complete,
    /// It never will be: the peer has closed the connection, or says more than a check does.
    Never,
}

impl UnassignedConnection {
    /// The number of the shared port that it came to.
    pub fn port(&self) -> u8 {
        self.port
    }

    /// The address of that port.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// The address of the other end.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// The time at which it was accepted.
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
        let connection = Connection::new(self.socket, self.port, self.local, self.remote, self.accepted_at);
        (connection, self.bytes)
    }
}
