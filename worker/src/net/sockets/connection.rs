//! TCP connections of WebRTC transports: who has come by a listening socket, what is still missing of a frame, and what the
//! connection has not taken yet.
//!
//! A connection is a stream, so a packet is written wholly or not at all: what the kernel does not take of the last one waits
//! here, and packets that find too much waiting are dropped. Memory of one connection: an incomplete frame each way, and
//! [`WAITING_BYTES_MAX`].

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, Shutdown, SockFlag, SockaddrStorage, accept4, getpeername, recvmsg, send, setsockopt, shutdown, sockopt,
};
use weir_channel::message::{IceProtocol, IceTuple};

use super::Sockets;
use super::check::address_of;
use crate::net::optional::Optional;
use crate::net::poll::{Interest, Source};
use crate::net::send::Message;
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::framing::{Deframer, Oversize, prefix};

/// Connections that one listener should have at a time. A browser opens one for each pair of candidates and network.
pub const CONNECTIONS_MAX: usize = 10;

/// What may wait for a connection, in bytes: as much as waits for a full socket of UDP.
pub const WAITING_BYTES_MAX: usize = 256 << 10;

/// What the kernel keeps of what was written, beside it. Media that is older than that is of no use.
const SEND_BUFFER_BYTES: usize = 256 << 10;

/// One of a transport's connections.
#[derive(Debug)]
pub struct Connection {
    socket: OwnedFd,
    listener: u8,
    /// Where the listener is bound to.
    local: SocketAddr,
    remote: SocketAddr,
    accepted_at: Time,
    /// A valid check has come by it.
    is_proven: bool,
    deframer: Deframer,
    /// Framed, from `written` on.
    waiting: Vec<u8>,
    written: usize,
    /// Writing has failed; reading will tell why.
    is_broken: bool,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, listener: u8, local: SocketAddr, remote: SocketAddr, accepted_at: Time) -> Self {
        Self {
            socket,
            listener,
            local,
            remote,
            accepted_at,
            is_proven: false,
            deframer: Deframer::new(),
            waiting: Vec::new(),
            written: 0,
            is_broken: false,
        }
    }

    /// The number of the listener, or of the shared port, that it came by.
    pub fn listener(&self) -> u8 {
        self.listener
    }

    /// Where that is bound to.
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

    /// What it is between.
    pub fn tuple(&self) -> IceTuple {
        IceTuple {
            protocol: IceProtocol::Tcp,
            local: self.local,
            remote: self.remote,
        }
    }

    /// What it is watched as, if it has this number.
    pub fn source(&self, transport: TransportIx, number: u8) -> Source {
        Source::Connection {
            transport,
            number,
            is_proven: self.is_proven,
        }
    }

    /// Its descriptor, to be watched.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Appends a packet to what waits; `false` if too much waits, or nobody reads it.
    fn push(&mut self, packet: &[u8]) -> bool {
        let Some(prefix) = prefix(packet.len()).filter(|_| !self.is_broken) else {
            return false;
        };
        if self.waiting.len() - self.written + prefix.len() + packet.len() > WAITING_BYTES_MAX {
            return false;
        }
        self.waiting.extend_from_slice(&prefix);
        self.waiting.extend_from_slice(packet);
        true
    }

    /// Writes what waits, as far as it goes; whether something still waits.
    fn flush(&mut self) -> bool {
        while self.written < self.waiting.len() && !self.is_broken {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), &self.waiting[self.written..], flags) {
                Ok(written) => self.written += written,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => break,
                Err(_) => self.is_broken = true,
            }
        }
        if self.written == self.waiting.len() || self.is_broken {
            self.waiting.clear();
            self.written = 0;
        } else if self.written >= WAITING_BYTES_MAX / 2 {
            self.waiting.drain(..self.written);
            self.written = 0;
        }
        !self.waiting.is_empty()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // The supervisor may have a copy for a little longer.
        if self.is_proven {
            // Fails only when it has ended already.
            let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
        }
    }
}

impl Sockets {
    /// Accepts the next connection of a listener, also beyond [`CONNECTIONS_MAX`]: the caller decides which one to close then.
    ///
    /// # Errors
    /// What the kernel says if it cannot take any more connections (EMFILE, ENOBUFS …).
    pub fn accept(&mut self, now: Time, transport: TransportIx, listener: u8) -> Result<Accepted<u8>, Errno> {
        let Some(Some(ice)) = self.ice.get_mut(transport.0 as usize) else {
            return Ok(Accepted::None);
        };
        let Some((socket, local)) = ice.tcp(listener) else {
            return Ok(Accepted::None);
        };
        let accepted = accept_at(socket)?;
        Ok(accepted.and_then(|(socket, remote)| ice.insert(Connection::new(socket, listener, local, remote, now))))
    }

    /// Keeps a connection that was accepted at a shared port, and returns its number; `None` if there are too many.
    pub fn adopt_connection(&mut self, transport: TransportIx, connection: Connection) -> Option<u8> {
        let ice = self.ice.get_mut(transport.0 as usize)?.as_deref_mut()?;
        ice.insert(connection)
    }

    /// A transport's connections, with their numbers.
    pub fn connections(&self, transport: TransportIx) -> impl Iterator<Item = (u8, &Connection)> {
        self.ice(transport).into_iter().flat_map(|ice| ice.connections())
    }

    /// Those that came by one listener.
    pub fn connections_of(&self, transport: TransportIx, listener: u8) -> impl Iterator<Item = (u8, &Connection)> {
        self.connections(transport)
            .filter(move |(_, one)| one.listener == listener)
    }

    /// One of them.
    pub fn connection(&self, transport: TransportIx, number: u8) -> Option<&Connection> {
        self.ice(transport)?.connection(number)
    }

    /// A valid check has come by a connection; whether that is news. Then it is to be watched as another
    /// [source](Connection::source), for this.
    pub fn prove_connection(&mut self, transport: TransportIx, number: u8) -> Option<Interest> {
        let connection = self.connection_mut(transport, number).filter(|one| !one.is_proven)?;
        connection.is_proven = true;
        Some(match connection.waiting.is_empty() {
            true => Interest::Read,
            false => Interest::ReadWrite,
        })
    }

    fn connection_mut(&mut self, transport: TransportIx, number: u8) -> Option<&mut Connection> {
        let ice = self.ice.get_mut(transport.0 as usize)?.as_deref_mut()?;
        ice.connection_mut(number)
    }

    /// Closes a connection.
    pub fn close_connection(&mut self, transport: TransportIx, number: u8) {
        let Some(Some(ice)) = self.ice.get_mut(transport.0 as usize) else {
            return;
        };
        if let Some(connection) = ice.connection(number).filter(|one| one.is_proven) {
            self.closed.push((transport, connection.tuple()));
        }
        if ice.remove(number)
            && let Some(path) = self.paths.get_mut(transport.0 as usize)
        {
            path.is_connected = false;
        }
    }

    /// A socket that is connected to a peer, which the supervisor may have a copy of, has been closed, and its transport has not.
    pub fn poll_closed(&mut self) -> Option<(TransportIx, IceTuple)> {
        self.closed.pop()
    }

    /// Reads what has come, at most `room`, and calls `take` with every packet that is complete. Says how many bytes came.
    ///
    /// # Errors
    /// Why the connection must be closed, after the packets before that.
    pub fn read_connection(
        &mut self,
        transport: TransportIx,
        number: u8,
        room: &mut [u8],
        take: impl FnMut(&[u8]),
    ) -> Result<usize, Ended> {
        let Some(connection) = self.connection_mut(transport, number) else {
            return Ok(0);
        };
        let socket = connection.socket.as_raw_fd();
        let len = loop {
            let mut parts = [IoSliceMut::new(room)];
            match recvmsg::<()>(socket, &mut parts, None, MsgFlags::MSG_DONTWAIT) {
                Ok(message) if message.bytes == 0 => return Err(Ended::Closed),
                Ok(message) => break message.bytes,
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(0),
                Err(errno) => return Err(Ended::Failed(errno)),
            }
        };
        connection.deframer.feed(&room[..len], take).map_err(Ended::Oversize)?;
        Ok(len)
    }

    /// Sends packets of `segment` bytes laid end to end over a connection, one frame each, and says how many were taken,
    /// counted from the first.
    pub(in crate::net) fn send_frames(
        &mut self,
        transport: TransportIx,
        number: u8,
        packets: &[u8],
        segment: usize,
    ) -> usize {
        let Some(connection) = self.connection_mut(transport, number) else {
            return 0;
        };
        let was_empty = connection.waiting.is_empty();
        let taken = Message::whole(packets.len(), segment.max(1))
            .singles()
            .take_while(|one| connection.push(&packets[one.start..one.start + one.len]))
            .count();
        if connection.flush() && was_empty {
            self.blocked.push((transport, number));
        }
        taken
    }

    /// Writes what waits for a connection that has room again; whether more waits.
    pub fn flush_connection(&mut self, transport: TransportIx, number: u8) -> bool {
        self.connection_mut(transport, number).is_some_and(Connection::flush)
    }

    /// A connection that has filled up: watch it for room to write, then call [`Sockets::flush_connection`].
    pub fn poll_blocked_connection(&mut self) -> Option<(TransportIx, u8)> {
        self.blocked.pop()
    }
}

/// Why a connection cannot be read any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ended {
    /// The peer has closed it.
    Closed,
    /// It says more than a frame may.
    Oversize(Oversize),
    /// Reading has failed.
    Failed(Errno),
}

/// Accepts the next connection of a listening socket: its descriptor, and the address of the other end.
pub(super) fn accept_at(listener: BorrowedFd<'_>) -> Result<Accepted<(OwnedFd, SocketAddr)>, Errno> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let accepted = match accept4(listener.as_raw_fd(), flags) {
        // SAFETY: the kernel has just made the descriptor for us, and nobody else knows of it.
        Ok(descriptor) => unsafe { OwnedFd::from_raw_fd(descriptor) },
        Err(Errno::EAGAIN) => return Ok(Accepted::None),
        Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOBUFS | Errno::ENOMEM)) => return Err(errno),
        // The peer, or the network, has given it up meanwhile.
        Err(_) => return Ok(Accepted::Lost),
    };
    let remote = getpeername::<SockaddrStorage>(accepted.as_raw_fd()).ok();
    let Some(remote) = remote.and_then(|remote| address_of(&remote).ok()) else {
        return Ok(Accepted::Lost);
    };
    Optional::NoDelay.or_without(setsockopt(&accepted, sockopt::TcpNoDelay, &true));
    Optional::SendBuffer.or_without(setsockopt(&accepted, sockopt::SndBuf, &SEND_BUFFER_BYTES));
    Ok(Accepted::Connection((accepted, unmapped(remote))))
}

/// What an attempt to accept a connection brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Accepted<T> {
    /// No connection is waiting.
    None,
    /// One was waiting, and is gone already, or could not be kept.
    Lost,
    /// A connection.
    Connection(T),
}

impl<T> Accepted<T> {
    /// Makes something of the connection; it is lost if that fails.
    pub(super) fn and_then<U>(self, keep: impl FnOnce(T) -> Option<U>) -> Accepted<U> {
        match self {
            Self::None => Accepted::None,
            Self::Lost => Accepted::Lost,
            Self::Connection(connection) => keep(connection).map_or(Accepted::Lost, Accepted::Connection),
        }
    }
}

/// IPv4 addresses as such.
pub(super) fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
