//! TCP connections of WebRTC transports: who has come by a listening socket, what is still missing of a frame, and what the
//! connection has not taken yet.
//!
//! A connection is a stream, so a packet is written wholly or not at all: what the kernel does not take of the last one waits
//! here, and packets that find too much waiting are dropped. Memory of one connection: an incomplete frame each way, and
//! [`WAITING_BYTES_MAX`].

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag, SockaddrStorage, accept4, getpeername, send, setsockopt, sockopt};

use super::check::address_of;
use crate::net::optional::Optional;
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
    pub(super) socket: OwnedFd,
    pub(super) listener: u8,
    /// Where the listener is bound to.
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) accepted_at: Time,
    pub(super) deframer: Deframer,
    /// Framed, from `written` on.
    pub(super) waiting: Vec<u8>,
    pub(super) written: usize,
    /// Writing has failed; reading will tell why.
    pub(super) is_broken: bool,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, listener: u8, local: SocketAddr, remote: SocketAddr, accepted_at: Time) -> Self {
        Self {
            socket,
            listener,
            local,
            remote,
            accepted_at,
            deframer: Deframer::new(),
            waiting: Vec::new(),
            written: 0,
            is_broken: false,
        }
    }

    /// Where the listener that it came by is bound to.
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

    /// Appends a packet to what waits; `false` if too much waits, or nobody reads it.
    pub(super) fn push(&mut self, packet: &[u8]) -> bool {
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
    pub(super) fn flush(&mut self) -> bool {
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
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
