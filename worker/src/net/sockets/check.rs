//! Checks of descriptors that the supervisor has handed over.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    self, AddressFamily, SockType, SockaddrLike, SockaddrStorage, getpeername, getsockname, sockopt,
};
use weir_channel::message::WorkerError;

/// That a descriptor is a UDP socket over IP and not something that would answer reads and writes in other ways.
pub(in crate::net) fn check_udp(socket: &OwnedFd) -> Result<(), WorkerError> {
    let kind = socket::getsockopt(socket, sockopt::SockType);
    let is_ip = matches!(family(socket), Ok(AddressFamily::Inet | AddressFamily::Inet6));
    if is_ip && kind == Ok(SockType::Datagram) {
        Ok(())
    } else {
        Err(WorkerError::invalid("a descriptor is not a UDP socket"))
    }
}

pub(super) fn family(socket: &OwnedFd) -> Result<AddressFamily, Errno> {
    let address = getsockname::<SockaddrStorage>(socket.as_raw_fd())?;
    address.family().ok_or(Errno::EAFNOSUPPORT)
}

pub(super) fn local_address(socket: &OwnedFd) -> Result<SockaddrStorage, WorkerError> {
    let address = getsockname::<SockaddrStorage>(socket.as_raw_fd()).map_err(|errno| os("getsockname", errno))?;
    let port = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => v4.port(),
        (_, Some(v6)) => v6.port(),
        _ => 0,
    };
    if port == 0 {
        return Err(WorkerError::invalid("a socket is not bound to a port"));
    }
    Ok(address)
}

/// That a descriptor is a listening TCP socket, which does not block from now on; where it listens.
pub(super) fn check_tcp(socket: &OwnedFd) -> Result<SocketAddr, WorkerError> {
    let is_ip = matches!(family(socket), Ok(AddressFamily::Inet | AddressFamily::Inet6));
    let is_listening = socket::getsockopt(socket, sockopt::SockType) == Ok(SockType::Stream)
        && socket::getsockopt(socket, sockopt::AcceptConn) == Ok(true);
    if !is_ip || !is_listening {
        return Err(WorkerError::invalid("a descriptor is not a listening TCP socket"));
    }
    let local = address_of(&local_address(socket)?)?;
    let failed = |errno| os("fcntl", errno);
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL).map_err(failed)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(failed)?;
    Ok(local)
}

/// That a descriptor is a TCP connection to somebody, which does not block from now on.
pub(super) fn check_connection(socket: &OwnedFd, remote: SocketAddr) -> Result<(), WorkerError> {
    let is_stream = matches!(family(socket), Ok(AddressFamily::Inet | AddressFamily::Inet6))
        && socket::getsockopt(socket, sockopt::SockType) == Ok(SockType::Stream)
        && socket::getsockopt(socket, sockopt::AcceptConn) == Ok(false);
    let peer = getpeername::<SockaddrStorage>(socket.as_raw_fd()).map_err(|errno| os("getpeername", errno))?;
    let peer = address_of(&peer)?;
    if !is_stream || (peer.ip().to_canonical(), peer.port()) != (remote.ip().to_canonical(), remote.port()) {
        return Err(WorkerError::invalid(
            "a descriptor is not a connection to where it should be",
        ));
    }
    let failed = |errno| os("fcntl", errno);
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL).map_err(failed)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map_err(failed)?;
    Ok(())
}

/// An IP address as the kernel wrote it.
pub(super) fn address_of(storage: &SockaddrStorage) -> Result<SocketAddr, WorkerError> {
    match (storage.as_sockaddr_in(), storage.as_sockaddr_in6()) {
        (Some(v4), _) => Ok(SocketAddr::from((v4.ip(), v4.port()))),
        (_, Some(v6)) => Ok(std::net::SocketAddrV6::new(v6.ip(), v6.port(), 0, v6.scope_id()).into()),
        _ => Err(WorkerError::invalid("a socket is not bound")),
    }
}

/// The error of a system call, as it is reported to the supervisor.
pub(crate) fn os(call: &str, errno: Errno) -> WorkerError {
    WorkerError::Os {
        call: call.to_owned(),
        reason: errno.desc().to_owned(),
    }
}
