//! What is set at one socket, and what is asked of it.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{self, SockaddrIn6, SockaddrStorage, setsockopt, sockopt};

use crate::net::optional::Optional;

/// Makes a UDP socket fit for a [`ReceiveBatch`](crate::net::receive::ReceiveBatch): non-blocking, and where the kernel can do
/// that, trains received whole (UDP_GRO), drops by the kernel reported (SO_RXQ_OVFL).
///
/// # Errors
/// What the kernel says about what cannot be done without.
pub fn prepare(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    Optional::UdpGro.or_without(setsockopt(&socket, sockopt::UdpGroSegment, &true));
    learn_segmentation(socket);
    // At the end: see `is_prepared`.
    Optional::DropCounts.or_without(setsockopt(&socket, sockopt::RxqOvfl, &1));
    HAS_LEARNED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Whether a socket is known to be prepared. Options are the socket's, so those that another worker has set stay. The first
/// one is prepared all the same, because this process learns from it what the kernel can do.
pub(super) fn is_prepared(socket: &impl AsFd) -> bool {
    HAS_LEARNED.load(Ordering::Relaxed) && socket::getsockopt(socket, sockopt::RxqOvfl) == Ok(1)
}

/// Whether a socket was prepared in this process.
static HAS_LEARNED: AtomicBool = AtomicBool::new(false);

/// Whether the kernel takes trains to send.
static SEGMENTS: AtomicBool = AtomicBool::new(true);

/// Asks for no segmentation, which a kernel refuses that knows of none. Such a kernel does not refuse a train: it looks for no
/// UDP_SEGMENT beside it and sends the whole of it as one datagram.
fn learn_segmentation(socket: BorrowedFd<'_>) {
    let asked = Optional::UdpSegment.or_without(setsockopt(&socket, sockopt::UdpGsoSegment, &0));
    SEGMENTS.store(asked.is_some(), Ordering::Relaxed);
}

/// Whether a route should be tried with trains. The first train shows whether it takes them.
pub(crate) fn may_segment() -> bool {
    SEGMENTS.load(Ordering::Relaxed)
}

/// Starts or stops stamping the arrivals at a socket with the realtime clock (SO_TIMESTAMPNS).
///
/// # Errors
/// What the kernel says.
pub fn stamp_arrivals(socket: BorrowedFd<'_>, on: bool) -> Result<(), Errno> {
    setsockopt(&socket, sockopt::ReceiveTimestampns, &on)
}

/// Stamps the arrivals at a socket that has come, if those at the others are stamped, and the kernel can.
pub(super) fn stamp_as_others(socket: BorrowedFd<'_>, others: bool) {
    if others {
        Optional::ArrivalTimes.or_without(stamp_arrivals(socket, true));
    }
}

/// How many packets the kernel has dropped at a socket since it was made, modulo 2³²: what SO_RXQ_OVFL reports beside
/// the next packet, without waiting for one. 0 where the kernel does not tell (before Linux 4.12).
pub fn drop_count(socket: BorrowedFd<'_>) -> u32 {
    const DROPS: usize = libc::SK_MEMINFO_DROPS as usize;
    let mut memory = [0_u32; DROPS + 1];
    let mut len = size_of_val(&memory) as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to the array, which is that long.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            memory.as_mut_ptr().cast(),
            &mut len,
        )
    };
    let count = Errno::result(result).map(|_| memory[DROPS]);
    Optional::DropCountNow.or_without(count).unwrap_or(0)
}

/// Connects a socket that is bound to `local`; without a remote, parks it.
pub(super) fn reconnect(
    socket: BorrowedFd<'_>,
    local: SockaddrStorage,
    remote: Option<SocketAddr>,
) -> Result<(), Errno> {
    if is_wildcard(&local) {
        // It would keep the local address that its last connection chose, which can be wrong for another remote. (For a
        // moment anybody can reach it now. The relay looks at the source of every packet.)
        disconnect(socket)?;
    }
    match remote {
        None => socket::connect(socket.as_raw_fd(), &local),
        // A socket for both protocols names IPv4 addresses in their IPv6-mapped form.
        Some(SocketAddr::V4(v4)) if local.as_sockaddr_in6().is_some() => {
            let mapped = std::net::SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0);
            socket::connect(socket.as_raw_fd(), &SockaddrIn6::from(mapped))
        }
        Some(remote) => socket::connect(socket.as_raw_fd(), &SockaddrStorage::from(remote)),
    }
}

fn disconnect(socket: BorrowedFd<'_>) -> Result<(), Errno> {
    let unspecified = libc::sockaddr {
        sa_family: libc::AF_UNSPEC as libc::sa_family_t,
        sa_data: [0; 14],
    };
    // SAFETY: the kernel reads the address, whose true length it is given.
    let result = unsafe {
        libc::connect(
            socket.as_raw_fd(),
            ptr::from_ref(&unspecified),
            size_of_val(&unspecified) as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

pub(super) fn is_wildcard(address: &SockaddrStorage) -> bool {
    address.as_sockaddr_in().is_some_and(|v4| v4.ip().is_unspecified())
        || address.as_sockaddr_in6().is_some_and(|v6| v6.ip().is_unspecified())
}
