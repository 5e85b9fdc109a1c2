//! Sockets of the other side of the wire: those of clients.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::Context as _;
use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// Receive buffer of each receiver, in bytes.
pub(super) const RECEIVER_BUFFER: usize = 4 << 20;

/// A socket on the loopback.
#[expect(
    clippy::disallowed_methods,
    reason = "the client's side of the wire; the server's sockets are the server's"
)]
pub(in crate::cli) fn local_socket() -> anyhow::Result<UdpSocket> {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).context("binding a socket on the loopback")
}

/// A socket with room for what comes while its owner is busy.
pub(in crate::cli) fn receiver_socket() -> anyhow::Result<UdpSocket> {
    let socket = local_socket()?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(RECEIVER_BUFFER)?;
    Ok(socket)
}

/// A read of it, or a write, that would wait says so instead.
pub(in crate::cli) fn never_block(socket: &UdpSocket) -> anyhow::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Ok(())
}
