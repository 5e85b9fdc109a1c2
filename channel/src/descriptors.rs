//! Reading and writing the socket, with file descriptors beside the bytes (SCM_RIGHTS). The only `unsafe` of this crate.
//!
//! # Which frame a descriptor belongs to
//! A stream socket has no messages, but descriptors cling to bytes. On Linux (`net/unix/af_unix.c`):
//!
//! - The descriptors of a `sendmsg` ride on its first byte. If the kernel takes only some of the bytes, the descriptors
//!   are gone with the first of them, and the rest must be sent without; if it takes none, they have not been sent.
//! - A `recvmsg` may return bytes of earlier sends *and then* bytes of a send with descriptors, all in one; it never goes on
//!   to the bytes of a later send after it. It hands the descriptors over with the first byte that they ride on.
//!
//! So the sender gives each frame with descriptors a `sendmsg` of its own ([`send_with_descriptors`]), and the receiver
//! knows: descriptors that came with a read belong to **the last frame that starts in that read**. [`Arrivals`] is that rule.
//! It holds wherever the kernel cuts the stream, also on a kernel that ends a read before the bytes with descriptors.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use crate::message::CONNECTED_MAX;

/// The most descriptors that may travel with one frame: a WebRTC transport with all its listeners has two sockets for each of
/// two UDP ports, and two for TCP; and then those that another worker has left connected.
pub const MAX_DESCRIPTORS: usize = 6 + CONNECTED_MAX;

/// The most that may travel with a frame of a worker's.
pub const MAX_FROM_WORKER: usize = 1;

/// The kernel passes at most this many at once (SCM_MAX_FD in `include/net/scm.h`). The control buffer is large enough for all of
/// them, so that a peer that sends too many is found out and every one of them is closed, instead of being cut off.
const SCM_MAX_FD: usize = 253;

/// CMSG_SPACE(SCM_MAX_FD descriptors), in units of the alignment that `cmsghdr` needs.
const CONTROL_WORDS: usize = {
    // SAFETY: CMSG_SPACE only computes with its argument.
    let bytes = unsafe { libc::CMSG_SPACE((SCM_MAX_FD * size_of::<RawFd>()) as u32) } as usize;
    bytes.div_ceil(size_of::<u64>())
};

/// The result of one read.
#[derive(Debug)]
pub struct Received {
    /// This many bytes; zero means that the peer has closed its end.
    pub bytes: usize,
    /// The descriptors that came with them, each close-on-exec.
    pub descriptors: Vec<OwnedFd>,
}

/// Reads once, without blocking.
///
/// When this process has no descriptor numbers left, the kernel drops the descriptors that found none; then fewer come than
/// were sent, and whoever needed them will say so.
///
/// # Errors
/// `EAGAIN` when there is nothing to read; whatever else recvmsg(2) says. `EINTR` is retried.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<Received, Errno> {
    // nix's `recvmsg` is not used: after MSG_CTRUNC it hides the descriptors that did arrive, and they would leak.
    let mut control = [0_u64; CONTROL_WORDS];
    let mut slices = [IoSliceMut::new(buffer)];
    // SAFETY: msghdr is plain data of the C library, for which all zeroes is a valid value.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = slices.as_mut_ptr().cast(); // IoSliceMut is ABI compatible with iovec, as its documentation promises
    header.msg_iovlen = slices.len() as _;
    let bytes = loop {
        header.msg_control = control.as_mut_ptr().cast();
        header.msg_controllen = size_of_val(&control) as _;
        // SAFETY: the header points to `slices`, which borrows `buffer`, and to `control`; both outlive the call, and
        // the lengths given are theirs.
        let result = unsafe {
            libc::recvmsg(
                socket.as_raw_fd(),
                &mut header,
                libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC,
            )
        };
        match Errno::result(result) {
            Ok(bytes) => break bytes as usize,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    };
    let mut descriptors = Vec::new();
    // SAFETY: after a successful recvmsg the header describes the control messages that the kernel wrote to `control`, which
    // is aligned for `cmsghdr` and still alive; CMSG_FIRSTHDR and CMSG_NXTHDR stay within msg_controllen.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&header) };
    while !message.is_null() {
        // SAFETY: not null, so it points to a whole `cmsghdr` within `control`.
        let (level, kind, len) = unsafe { ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len) };
        if level == libc::SOL_SOCKET && kind == libc::SCM_RIGHTS {
            // SAFETY: CMSG_LEN only computes; CMSG_DATA points behind the header of this message, within `control`.
            let (data, header_len) = unsafe { (libc::CMSG_DATA(message), libc::CMSG_LEN(0)) };
            let count = len.saturating_sub(header_len as usize) / size_of::<RawFd>();
            for index in 0..count {
                // SAFETY: the kernel wrote `count` descriptors at `data`. Each is open, was made for this process by this
                // very call, and nobody else knows its number, so this is its one owner.
                let descriptor = unsafe { OwnedFd::from_raw_fd(data.cast::<RawFd>().add(index).read_unaligned()) };
                descriptors.push(descriptor);
            }
        }
        // SAFETY: as for CMSG_FIRSTHDR.
        message = unsafe { libc::CMSG_NXTHDR(&header, message) };
    }
    Ok(Received { bytes, descriptors })
}

/// Writes once, without blocking and without SIGPIPE. Returns how many bytes the kernel took.
///
/// # Errors
/// `EAGAIN` when it takes none; `EPIPE` or `ECONNRESET` when the peer is gone. `EINTR` is retried.
pub fn send(socket: BorrowedFd<'_>, slices: &[IoSlice<'_>]) -> Result<usize, Errno> {
    send_message(socket, slices, &[])
}

/// Writes the beginning of a frame together with its descriptors, without blocking. `frame` must be one frame from its
/// first byte. When this returns `Ok` (with how many bytes the kernel took, at least one), the descriptors are sent, and the
/// caller closes its own copies and sends the rest of the frame with [`send`].
///
/// # Errors
/// As [`send`], and `ETOOMANYREFS` when too many descriptors of this user are in flight (unread by their receivers): the
/// frame can be sent later.
pub fn send_with_descriptors(socket: BorrowedFd<'_>, frame: &[u8], descriptors: &[OwnedFd]) -> Result<usize, Errno> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    send_message(socket, &[IoSlice::new(frame)], &[ControlMessage::ScmRights(&numbers)])
}

fn send_message(
    socket: BorrowedFd<'_>,
    slices: &[IoSlice<'_>],
    control: &[ControlMessage<'_>],
) -> Result<usize, Errno> {
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), slices, control, flags, None) {
            Err(Errno::EINTR) => {}
            other => return other,
        }
    }
}

/// Why descriptors were refused. They are closed by then.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DescriptorError {
    /// More than [`MAX_DESCRIPTORS`] with one frame.
    #[error("{count} file descriptors came with one frame; at most {MAX_DESCRIPTORS} are allowed")]
    TooMany {
        /// The number of descriptors that came.
        count: usize,
    },
    /// They came with bytes among which no frame starts.
    #[error("file descriptors came in the middle of a frame")]
    Astray,
}

/// Descriptors that have been read but whose frame has not been taken from the decoder yet.
///
/// Call [`Arrivals::push`] after each read that brought descriptors, and [`Arrivals::take`] for each frame of that read, in
/// order, before the next read. Dropping it closes what it holds.
#[derive(Debug, Default)]
pub struct Arrivals {
    waiting: VecDeque<Arrival>,
}

#[derive(Debug)]
struct Arrival {
    /// The stream offsets of the read.
    start: u64,
    end: u64,
    descriptors: Vec<OwnedFd>,
}

impl Arrivals {
    /// Nothing waits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Descriptors came with a read that covered the stream offsets `start..end`.
    ///
    /// # Errors
    /// [`DescriptorError::TooMany`] at once; [`DescriptorError::Astray`] when the frame in progress has descriptors already
    /// and so have the reads since, of which a peer that keeps the rule causes one at most.
    pub fn push(&mut self, start: u64, end: u64, descriptors: Vec<OwnedFd>) -> Result<(), DescriptorError> {
        if descriptors.is_empty() {
            return Ok(());
        }
        if descriptors.len() > MAX_DESCRIPTORS {
            return Err(DescriptorError::TooMany {
                count: descriptors.len(),
            });
        }
        // One for the frame in progress, one for the frame that starts after it in this read.
        if self.waiting.len() >= 2 {
            return Err(DescriptorError::Astray);
        }
        self.waiting.push_back(Arrival {
            start,
            end,
            descriptors,
        });
        Ok(())
    }

    /// The descriptors of the frame at the stream offsets `start..end`; most often none.
    ///
    /// # Errors
    /// [`DescriptorError::Astray`] when descriptors came with a read in which no frame starts.
    pub fn take(&mut self, start: u64, end: u64) -> Result<Vec<OwnedFd>, DescriptorError> {
        match self.waiting.front() {
            // This frame reaches to the end of the read or beyond, so it is the last one that can start in it.
            Some(arrival) if end >= arrival.end => {
                if start < arrival.start || start >= arrival.end {
                    return Err(DescriptorError::Astray);
                }
                Ok(self
                    .waiting
                    .pop_front()
                    .map_or_else(Vec::new, |arrival| arrival.descriptors))
            }
            _ => Ok(Vec::new()),
        }
    }
}
