//! Receiving in batches: up to a slot-full of datagrams, each a packet or a whole train, with one call.
//!
//! nix's recvmmsg is not used: it hands the kernel the lengths that the call before left in the headers, so a slot that
//! once held a datagram without control messages loses the train boundaries (UDP_GRO) of all that come after.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::{mem, ptr};

use nix::errno::Errno;
use nix::libc;

use super::address::{Name, UNSPECIFIED};
use super::send::is_pending_error;
use crate::relay::datagram::Datagram;

/// The longest datagram that UDP can carry (over IPv6: 65,535 bytes less the 8 of the UDP header).
pub const DATAGRAM_BYTES_MAX: usize = 65_527;

/// Slots of a worker's batch. Beyond 16 the cost of a call is spread thin enough (docs/kernel-costs.md: 535 ns a packet with 64
/// slots, 585 with 16); 32 slots of 65 KiB are 2 MiB, of which single packets touch 32 pages.
pub const SLOTS: usize = 32;

/// What is added to a slot so that the heads of neighbouring slots do not fall into the same cache sets: 21 lines of 64
/// bytes, one more than a packet of 1,280 bytes has, and odd, so that the slots of a batch use all sets of L1 and L2.
const SKEW: usize = 21 * 64;

/// Room for control messages of one datagram: UDP_GRO (24 bytes), SO_RXQ_OVFL (24), SO_TIMESTAMPNS (32), and as much
/// again as somebody may have asked for on the socket before it came here.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 160]);

/// Buffers for receiving. One serves any number of sockets, one call at a time. Nothing is allocated after
/// [`ReceiveBatch::new`].
pub struct ReceiveBatch {
    slot_bytes: usize,
    stride: usize,
    bytes: Box<[u8]>,
    names: Box<[Name]>,
    controls: Box<[Control]>,
    iovecs: Box<[libc::iovec]>,
    headers: Box<[libc::mmsghdr]>,
    datagrams: Vec<Datagram>,
    arrivals: Vec<u64>,
    calls: u64,
    pending_errors: u64,
}

// SAFETY: the raw pointers in `iovecs` and `headers` are written before each call and mean nothing after it; all that
// they point into is owned by the batch.
unsafe impl Send for ReceiveBatch {}

/// What one call of [`ReceiveBatch::receive`] brought. All lists are empty when nothing was waiting.
#[derive(Debug)]
pub struct Received<'a> {
    /// The buffer that the datagrams lie in.
    pub bytes: &'a mut [u8],
    /// In the order of their arrival.
    pub datagrams: &'a mut Vec<Datagram>,
    /// For each of `datagrams` its arrival at the socket on the realtime clock, in nanoseconds; 0 where the socket does
    /// not stamp (see [`sockets::stamp_arrivals`](super::sockets::stamp_arrivals)).
    pub arrivals: &'a mut Vec<u64>,
    /// The distance between the slots of `bytes`: `datagrams[i].start` lies in slot `start / stride`.
    pub stride: usize,
    /// Datagrams that are not in the list because they did not fit a slot, or because their control messages were cut
    /// and with them the boundaries of their packets.
    pub truncated: u32,
    /// How many packets the kernel had dropped at this socket when the last datagram came in, since the socket was made,
    /// modulo 2³² (SO_RXQ_OVFL); `None` while there were none.
    pub drop_count: Option<u32>,
    /// As many as were asked for: more may be waiting.
    pub is_full: bool,
}

impl Received<'_> {
    /// Leaves out the datagrams, each with its stamp, for which `is_kept` is false.
    pub fn retain(&mut self, mut is_kept: impl FnMut(&Datagram, u64) -> bool) {
        let mut kept = 0;
        for index in 0..self.datagrams.len() {
            let (datagram, stamp) = (self.datagrams[index], self.arrivals[index]);
            if is_kept(&datagram, stamp) {
                (self.datagrams[kept], self.arrivals[kept]) = (datagram, stamp);
                kept += 1;
            }
        }
        self.datagrams.truncate(kept);
        self.arrivals.truncate(kept);
    }
}

impl ReceiveBatch {
    /// Buffers for `slots` datagrams of at most `slot_bytes` each ([`DATAGRAM_BYTES_MAX`] takes everything).
    ///
    /// # Panics
    /// If `slots` is 0, or the buffers together exceed 4 GiB.
    pub fn new(slots: usize, slot_bytes: usize) -> Self {
        assert!(slots > 0, "a batch has slots");
        let stride = slot_bytes.next_multiple_of(4096) + SKEW;
        let length = stride * slots;
        assert!(u32::try_from(length).is_ok(), "offsets are 32 bit");
        // SAFETY: plain integers and null pointers, for which zero is a value.
        let (iovec, header) = unsafe { (mem::zeroed(), mem::zeroed()) };
        Self {
            slot_bytes,
            stride,
            bytes: vec![0; length].into_boxed_slice(),
            names: vec![Name::empty(); slots].into_boxed_slice(),
            controls: vec![Control([0; 160]); slots].into_boxed_slice(),
            iovecs: vec![iovec; slots].into_boxed_slice(),
            headers: vec![header; slots].into_boxed_slice(),
            datagrams: Vec::with_capacity(slots),
            arrivals: Vec::with_capacity(slots),
            calls: 0,
            pending_errors: 0,
        }
    }

    /// Takes what waits at the socket, at most `limit` datagrams and as many as there are slots, without blocking.
    ///
    /// An error that an earlier packet of ours has caused (ICMP) is reported by the kernel in place of packets; it is
    /// counted and the call repeated.
    ///
    /// # Errors
    /// What recvmmsg says about the socket itself (EBADF, ENOTSOCK) or the machine (ENOMEM).
    pub fn receive(&mut self, socket: BorrowedFd<'_>, limit: usize) -> Result<Received<'_>, Errno> {
        let limit = limit.clamp(1, self.headers.len());
        let count = self.receive_headers(socket, limit)?;
        self.datagrams.clear();
        self.arrivals.clear();
        let mut truncated = 0;
        let mut drop_count = None;
        for slot in 0..count {
            let header = &self.headers[slot];
            // The kernel says how much it wrote; the bound keeps a surprise from reaching past the slot.
            let len = (header.msg_len as usize).min(self.slot_bytes) as u32;
            let controls = read_controls(&header.msg_hdr);
            drop_count = controls.drop_count.or(drop_count);
            if header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
                truncated += 1;
                continue;
            }
            let name_len = header.msg_hdr.msg_namelen;
            self.datagrams.push(Datagram {
                start: (slot * self.stride) as u32,
                len,
                segment: controls.segment.filter(|&segment| segment < len).unwrap_or(len).max(1),
                source: if name_len == 0 {
                    UNSPECIFIED
                } else {
                    self.names[slot].address(name_len)
                },
            });
            self.arrivals.push(controls.arrival_ns);
        }
        Ok(Received {
            bytes: &mut self.bytes,
            datagrams: &mut self.datagrams,
            arrivals: &mut self.arrivals,
            stride: self.stride,
            truncated,
            drop_count,
            is_full: count == limit,
        })
    }

    /// Calls into the kernel so far.
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// Errors caused by packets sent earlier that were met (and stepped over) while receiving.
    pub fn pending_errors(&self) -> u64 {
        self.pending_errors
    }

    /// How many datagrams the kernel wrote.
    fn receive_headers(&mut self, socket: BorrowedFd<'_>, limit: usize) -> Result<usize, Errno> {
        // A pending error is cleared by being reported, but the next one may come in at any time; a few rounds are
        // enough to get past it, and after them the socket will be reported as ready again.
        for _ in 0..4 {
            self.arm(limit);
            self.calls += 1;
            // SAFETY: `arm` has just pointed the first `limit` headers at buffers that outlive the call, with their true lengths.
            let count = unsafe {
                libc::recvmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr(),
                    limit as libc::c_uint,
                    libc::MSG_DONTWAIT,
                    ptr::null_mut(),
                )
            };
            match Errno::result(count) {
                Ok(count) => return Ok((count as usize).min(limit)),
                Err(Errno::EAGAIN) => return Ok(0),
                Err(Errno::EINTR) => {}
                Err(errno) if is_pending_error(errno) => self.pending_errors += 1,
                Err(errno) => return Err(errno),
            }
        }
        Ok(0)
    }

    /// Points the headers at their slots again. The kernel has overwritten the lengths and flags of those it used.
    fn arm(&mut self, limit: usize) {
        for (slot, ((header, iovec), (name, control))) in self
            .headers
            .iter_mut()
            .zip(self.iovecs.iter_mut())
            .zip(self.names.iter_mut().zip(self.controls.iter_mut()))
            .enumerate()
            .take(limit)
        {
            let start = slot * self.stride;
            iovec.iov_base = self.bytes[start..start + self.slot_bytes].as_mut_ptr().cast();
            iovec.iov_len = self.slot_bytes;
            let message = &mut header.msg_hdr;
            message.msg_name = ptr::from_mut(name).cast();
            message.msg_namelen = Name::LEN;
            message.msg_iov = iovec;
            message.msg_iovlen = 1;
            message.msg_control = control.0.as_mut_ptr().cast();
            message.msg_controllen = control.0.len() as _;
            message.msg_flags = 0;
            header.msg_len = 0;
        }
    }
}

/// What the control messages of one datagram say.
#[derive(Default)]
struct Controls {
    segment: Option<u32>,
    drop_count: Option<u32>,
    arrival_ns: u64,
}

fn read_controls(message: &libc::msghdr) -> Controls {
    let mut controls = Controls::default();
    // SAFETY: the kernel has just filled the control buffer that the header points to and set its length; the CMSG
    // macros walk within it.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(message) };
    while !next.is_null() {
        // SAFETY: not null, so it points to a whole header inside the control buffer, which is aligned for it.
        let (level, kind, data) = unsafe { ((*next).cmsg_level, (*next).cmsg_type, libc::CMSG_DATA(next)) };
        match (level, kind) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: the kernel puts an int there; the read does not ask for alignment.
                let segment = unsafe { data.cast::<libc::c_int>().read_unaligned() };
                controls.segment = u32::try_from(segment).ok().filter(|&segment| segment > 0);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                // SAFETY: the kernel puts a u32 there.
                controls.drop_count = Some(unsafe { data.cast::<u32>().read_unaligned() });
            }
            (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                // SAFETY: the kernel puts a timespec there.
                let stamp = unsafe { data.cast::<libc::timespec>().read_unaligned() };
                controls.arrival_ns = (stamp.tv_sec as u64)
                    .saturating_mul(1_000_000_000)
                    .saturating_add(stamp.tv_nsec as u64);
            }
            _ => {}
        }
        // SAFETY: as for the first.
        next = unsafe { libc::CMSG_NXTHDR(message, next) };
    }
    controls
}
