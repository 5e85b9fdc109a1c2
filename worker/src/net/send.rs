//! Handing packets to the kernel: the one small interface behind which a send back end sits, and the synchronous one.
//!
//! A back end takes bytes and a [`Route`], and returns when it has taken the bytes. It keeps no queue, counts
//! nothing and retries nothing but interrupted calls: [`Egress`](super::egress::Egress) does that for all back ends.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::{fmt, mem, ptr};

use nix::errno::Errno;
use nix::libc;

use super::address::Name;

/// Segments of a train that every kernel takes (UDP_MAX_SEGMENTS was 64 before Linux 6.9, 128 since).
pub const TRAIN_SEGMENTS_MAX: usize = 64;

/// Bytes of a train: what fits into one IPv4 packet with its UDP header.
pub const TRAIN_BYTES_MAX: usize = 65_507;

/// Messages of one [`SendBackend::send_batch`]. Beyond 16 there is nothing to gain (docs/kernel-costs.md).
pub const BATCH_MESSAGES_MAX: usize = 64;

/// One message of a batch: a packet, or a train of packets of `segment` bytes of which only the last may be shorter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Where it starts in the buffer of the batch.
    pub start: usize,
    /// Bytes of all its packets.
    pub len: usize,
    /// Bytes of each packet but the last; not less than `len` for a single packet.
    pub segment: usize,
}

impl Message {
    /// All of a buffer of `len` bytes: packets of `segment` bytes, at least 1, laid end to end.
    pub const fn whole(len: usize, segment: usize) -> Self {
        Self { start: 0, len, segment }
    }

    /// How many packets it holds, at least one.
    pub const fn packets(&self) -> usize {
        if self.is_train() {
            self.len.div_ceil(self.segment)
        } else {
            1
        }
    }

    /// Whether it holds more than one packet.
    pub const fn is_train(&self) -> bool {
        self.len > self.segment
    }

    /// Whether `next` can follow in the same train: all packets but the last of a train are equally long, and a train has
    /// limits.
    pub const fn can_append(&self, next: &Self) -> bool {
        let is_open = self.len > 0 && self.len.is_multiple_of(self.segment);
        let fits = next.segment == self.segment || (!next.is_train() && next.len < self.segment);
        is_open
            && fits
            && next.len > 0
            && self.packets() + next.packets() <= TRAIN_SEGMENTS_MAX
            && self.len + next.len <= TRAIN_BYTES_MAX
    }

    /// The messages that carry a train of any length.
    pub(super) fn parts(self) -> impl Iterator<Item = Self> {
        let packets = (TRAIN_BYTES_MAX / self.segment).clamp(1, TRAIN_SEGMENTS_MAX);
        let step = packets * self.segment;
        (0..self.len.div_ceil(step).max(1)).map(move |index| {
            let offset = index * step;
            let len = step.min(self.len - offset);
            Self {
                start: self.start + offset,
                len,
                segment: self.segment.min(len).max(1),
            }
        })
    }

    /// Its packets, one by one.
    pub fn singles(self) -> impl Iterator<Item = Self> {
        (0..self.packets()).map(move |index| {
            let offset = index * self.segment;
            let len = self.segment.min(self.len - offset);
            Self {
                start: self.start + offset,
                len,
                segment: len,
            }
        })
    }
}

/// Where an unconnected socket sends to.
#[derive(Clone, Copy)]
pub struct Destination {
    name: Name,
    len: libc::socklen_t,
}

impl Destination {
    /// An address, as a socket of IPv4, or one of IPv6, names it.
    pub fn new(address: SocketAddr, is_v6: bool) -> Self {
        let (name, len) = Name::of(address, is_v6);
        Self { name, len }
    }

    /// The address.
    pub fn address(&self) -> SocketAddr {
        self.name.address(self.len)
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address().fmt(formatter)
    }
}

/// What a message is sent on: a connected socket, or an unconnected one and a destination.
#[derive(Clone, Copy, Debug)]
pub struct Route<'a> {
    /// What it is sent on.
    pub socket: BorrowedFd<'a>,
    /// `None`: where the socket is connected to.
    pub destination: Option<&'a Destination>,
}

impl Route<'_> {
    /// As system calls want it; null where the socket is connected.
    fn name(&self) -> (*mut libc::c_void, libc::socklen_t) {
        match self.destination {
            None => (ptr::null_mut(), 0),
            // The kernel only reads it.
            Some(destination) => (ptr::from_ref(&destination.name).cast_mut().cast(), destination.len),
        }
    }

    /// Sends one packet.
    pub(super) fn send(&self, packet: &[u8]) -> Result<(), Errno> {
        let (name, name_len) = self.name();
        retry_interrupted(|| {
            // SAFETY: packet and name are borrowed for the call.
            unsafe {
                libc::sendto(
                    self.socket.as_raw_fd(),
                    packet.as_ptr().cast(),
                    packet.len(),
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                    name.cast_const().cast(),
                    name_len,
                )
            }
        })
        .map(drop)
    }

    /// Sends one packet, also if the kernel has an [error of an earlier one](is_pending_error) to report first.
    pub(super) fn send_despite_pending(&self, packet: &[u8]) -> Result<(), Errno> {
        match self.send(packet) {
            Err(errno) if is_pending_error(errno) => self.send(packet),
            result => result,
        }
    }
}

impl<'a> From<BorrowedFd<'a>> for Route<'a> {
    /// Where the socket is connected to.
    fn from(socket: BorrowedFd<'a>) -> Self {
        Self {
            socket,
            destination: None,
        }
    }
}

/// What carries messages to the kernel.
///
/// Every call but the last one's tail is all or nothing: UDP takes a message whole or not at all.
pub trait SendBackend {
    /// Sends one packet.
    ///
    /// # Errors
    /// Why the kernel did not take it.
    fn send_packet<'a>(&mut self, route: impl Into<Route<'a>>, packet: &[u8]) -> Result<(), Errno>;

    /// Sends packets of `segment` bytes laid end to end as one message (UDP_SEGMENT): at most [`TRAIN_SEGMENTS_MAX`] and
    /// [`TRAIN_BYTES_MAX`].
    ///
    /// # Errors
    /// Why the kernel did not take it.
    fn send_train<'a>(&mut self, route: impl Into<Route<'a>>, train: &[u8], segment: usize) -> Result<(), Errno>;

    /// Sends several messages, at most [`BATCH_MESSAGES_MAX`], and says how many the kernel took, counted from the first.
    ///
    /// # Errors
    /// Why the kernel did not take the first one.
    fn send_batch<'a>(
        &mut self,
        route: impl Into<Route<'a>>,
        bytes: &[u8],
        messages: &[Message],
    ) -> Result<usize, Errno>;

    /// Sends several messages, at most [`BATCH_MESSAGES_MAX`], through one unconnected socket, each to a destination of its own,
    /// and says how many the kernel took, counted from the first.
    ///
    /// # Errors
    /// Why the kernel did not take the first one.
    fn send_scattered(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
        messages: &[(Message, Destination)],
    ) -> Result<usize, Errno>;
}

/// Whether the error is not about this call: an earlier packet has provoked it (ICMP), and the kernel reports it in
/// place of doing what it is asked. The next call then works, unless the remote really cannot be reached, or (EMSGSIZE,
/// which also means "a router on the path has reported a smaller MTU") the message really is too long.
pub fn is_pending_error(errno: Errno) -> bool {
    matches!(
        errno,
        Errno::ECONNREFUSED
            | Errno::ECONNRESET
            | Errno::EHOSTUNREACH
            | Errno::EHOSTDOWN
            | Errno::ENETUNREACH
            | Errno::ENONET
            | Errno::ENOPROTOOPT
            | Errno::EPROTO
            | Errno::EACCES
            | Errno::EOPNOTSUPP
            | Errno::EMSGSIZE
    )
}

/// The synchronous back end: send for a packet, sendmsg with UDP_SEGMENT for a train, sendmmsg for several messages.
/// Nothing is allocated after [`KernelSend::new`].
pub struct KernelSend {
    controls: Box<[SegmentControl]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
}

// SAFETY: the raw pointers in `iovecs` and `headers` are written before each call and mean nothing after it; the
// controls that they point into are owned, and the packets borrowed for the call.
unsafe impl Send for KernelSend {}

/// A UDP_SEGMENT control message, as the kernel wants it laid out.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct SegmentControl {
    header: libc::cmsghdr,
    segment: u16,
    padding: [u8; 6],
}

const _: () = {
    // SAFETY: computes a length.
    assert!(size_of::<SegmentControl>() == unsafe { libc::CMSG_SPACE(2) } as usize);
    assert!(mem::offset_of!(SegmentControl, segment) == size_of::<libc::cmsghdr>());
};

impl SegmentControl {
    fn new(segment: u16) -> Self {
        // SAFETY: plain integers, for which zero is a value.
        let mut header: libc::cmsghdr = unsafe { mem::zeroed() };
        header.cmsg_level = libc::SOL_UDP;
        header.cmsg_type = libc::UDP_SEGMENT;
        // SAFETY: computes a length.
        header.cmsg_len = unsafe { libc::CMSG_LEN(2) } as _;
        Self {
            header,
            segment,
            padding: [0; 6],
        }
    }
}

impl KernelSend {
    /// The buffers for [`BATCH_MESSAGES_MAX`] messages.
    pub fn new() -> Self {
        // SAFETY: plain integers and null pointers, for which zero is a value.
        let (iovec, header) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Self {
            controls: vec![SegmentControl::new(0); BATCH_MESSAGES_MAX].into_boxed_slice(),
            iovecs: vec![iovec; BATCH_MESSAGES_MAX].into_boxed_slice(),
            headers: vec![header; BATCH_MESSAGES_MAX].into_boxed_slice(),
        }
    }
}

impl Default for KernelSend {
    fn default() -> Self {
        Self::new()
    }
}

impl SendBackend for KernelSend {
    fn send_packet<'a>(&mut self, route: impl Into<Route<'a>>, packet: &[u8]) -> Result<(), Errno> {
        route.into().send(packet)
    }

    fn send_train<'a>(&mut self, route: impl Into<Route<'a>>, train: &[u8], segment: usize) -> Result<(), Errno> {
        let route = route.into();
        let mut control = SegmentControl::new(u16::try_from(segment).map_err(|_| Errno::EMSGSIZE)?);
        let mut iovec = iovec_of(train);
        // SAFETY: plain integers and null pointers, for which zero is a value.
        let mut message: libc::msghdr = unsafe { mem::zeroed() };
        (message.msg_name, message.msg_namelen) = route.name();
        message.msg_iov = &mut iovec;
        message.msg_iovlen = 1;
        message.msg_control = ptr::from_mut(&mut control).cast();
        message.msg_controllen = size_of::<SegmentControl>() as _;
        retry_interrupted(|| {
            // SAFETY: the message points at the train and the destination, borrowed for the call, and at locals that outlive
            // it; sendmsg only reads all of them.
            unsafe {
                libc::sendmsg(
                    route.socket.as_raw_fd(),
                    &message,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            }
        })
        .map(drop)
    }

    fn send_batch<'a>(
        &mut self,
        route: impl Into<Route<'a>>,
        bytes: &[u8],
        messages: &[Message],
    ) -> Result<usize, Errno> {
        let route = route.into();
        let count = messages.len().min(self.headers.len());
        for (place, message) in messages[..count].iter().enumerate() {
            self.arm(place, bytes, message, route.name())?;
        }
        self.send_armed(route.socket, count)
    }

    fn send_scattered(
        &mut self,
        socket: BorrowedFd<'_>,
        bytes: &[u8],
        messages: &[(Message, Destination)],
    ) -> Result<usize, Errno> {
        let count = messages.len().min(self.headers.len());
        for (place, (message, destination)) in messages[..count].iter().enumerate() {
            let route = Route {
                socket,
                destination: Some(destination),
            };
            self.arm(place, bytes, message, route.name())?;
        }
        self.send_armed(socket, count)
    }
}

impl KernelSend {
    /// Points a header at a message in `bytes`, and at its destination.
    fn arm(
        &mut self,
        place: usize,
        bytes: &[u8],
        message: &Message,
        name: (*mut libc::c_void, libc::socklen_t),
    ) -> Result<(), Errno> {
        let iovec = &mut self.iovecs[place];
        *iovec = iovec_of(&bytes[message.start..message.start + message.len]);
        let header = &mut self.headers[place];
        header.msg_len = 0;
        let header = &mut header.msg_hdr;
        (header.msg_name, header.msg_namelen) = name;
        header.msg_iov = iovec;
        header.msg_iovlen = 1;
        header.msg_flags = 0;
        if message.segment < message.len {
            let control = &mut self.controls[place];
            control.segment = u16::try_from(message.segment).map_err(|_| Errno::EMSGSIZE)?;
            header.msg_control = ptr::from_mut(control).cast();
            header.msg_controllen = size_of::<SegmentControl>() as _;
        } else {
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
        }
        Ok(())
    }

    /// Hands the first `count` headers to the kernel. What they point at must still be borrowed.
    fn send_armed(&mut self, socket: BorrowedFd<'_>, count: usize) -> Result<usize, Errno> {
        let headers = self.headers.as_mut_ptr();
        retry_interrupted(|| {
            // SAFETY: both callers have just written the first `count` headers, which point at what they borrow and at arrays of
            // this back end; sendmmsg writes nothing but the headers' `msg_len`.
            let sent = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers,
                    count as libc::c_uint,
                    libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
                )
            };
            sent as isize
        })
    }
}

/// The kernel only reads what it is given to send.
fn iovec_of(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

fn retry_interrupted(mut call: impl FnMut() -> isize) -> Result<usize, Errno> {
    loop {
        match Errno::result(call()) {
            Ok(result) => return Ok(result as usize),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
