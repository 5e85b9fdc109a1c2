//! What the kernel knows of a TCP stream.

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

/// Of `struct tcp_info` (`include/uapi/linux/tcp.h`): its state is its first byte, and `tcpi_bytes_acked` lies there.
const BYTES_ACKED_AT: usize = 120;

/// TCP_ESTABLISHED (`include/net/tcp_states.h`).
const ESTABLISHED: u8 = 1;

/// The beginning of `struct tcp_info`.
fn info(socket: BorrowedFd<'_>) -> Result<[u8; BYTES_ACKED_AT + 8], Errno> {
    let mut info = [0; BYTES_ACKED_AT + 8];
    let len = option(socket, libc::IPPROTO_TCP, libc::TCP_INFO, &mut info)?;
    if len == info.len() {
        Ok(info)
    } else {
        Err(Errno::ENOSYS)
    }
}

/// Whether the other end writes nothing any more, or the stream is broken.
pub(super) fn is_finished(socket: BorrowedFd<'_>) -> bool {
    info(socket).is_ok_and(|info| info[0] != ESTABLISHED)
}

/// How many bytes the kernel has taken: those that the other end has acknowledged, and those that it has not. Nothing is written meanwhile.
///
/// # Errors
/// What the kernel says; ENOSYS before Linux 4.1.
pub(super) fn bytes_written(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
    // Between the two questions some may be acknowledged. That must not be counted twice, or not at all.
    let mut before = acked(socket)?;
    loop {
        let queued = queued(socket)?;
        let after = acked(socket)?;
        if before == after {
            return Ok(after + u64::from(queued));
        }
        before = after;
    }
}

fn acked(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
    let info = info(socket)?;
    Ok(info.last_chunk().map_or(0, |acked| u64::from_ne_bytes(*acked)))
}

/// Bytes that are written and not acknowledged (SIOCOUTQ).
fn queued(socket: BorrowedFd<'_>) -> Result<u32, Errno> {
    let mut queued: libc::c_int = 0;
    // SAFETY: the kernel writes an int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ as _, &raw mut queued) };
    Errno::result(result)?;
    Ok(u32::try_from(queued).unwrap_or(0))
}

/// What tells a socket from all others since the machine was started, whoever has it (SO_COOKIE).
pub(super) fn cookie_of(socket: BorrowedFd<'_>) -> Result<u64, Errno> {
    let mut cookie = [0; 8];
    option(socket, libc::SOL_SOCKET, libc::SO_COOKIE, &mut cookie)?;
    Ok(u64::from_ne_bytes(cookie))
}

/// From now on there is something to be read when so much has come, or nothing more will.
pub(super) fn wait_for_bytes(socket: BorrowedFd<'_>, bytes: usize) -> Result<(), Errno> {
    let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: the kernel reads an int.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    Errno::result(result).map(drop)
}

/// Reads an option; how many bytes it has.
fn option(socket: BorrowedFd<'_>, level: libc::c_int, name: libc::c_int, value: &mut [u8]) -> Result<usize, Errno> {
    let mut len = value.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to where there are so many.
    let result = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &mut len) };
    Errno::result(result).map(|_| len as usize)
}
