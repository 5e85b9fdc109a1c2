//! The two ends of a channel, and what they share: reading messages, checking the Hello, writing the lanes.
//!
//! ```text
//!   supervisor (tokio)                                    worker (its own epoll loop)
//!   RequestSender ──┐                                                ┌─► poll_request
//!   RequestSender ──┴─► lanes ─► writer task ═══ socketpair ═══ read ┘
//!   WorkerReceiver ◄──────────────────────────── socketpair ═══ flush ◄── lanes ◄── push_response, push_notification, push_log
//! ```
//!
//! What the channel promises: a request, a response or an event that was accepted is delivered, in order within its lane,
//! or the channel ends with an error at both sides. Log lines may be lost, and then their number arrives. Nobody waits in
//! a system call for the other side.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{Shutdown, shutdown};

use crate::codec;
use crate::descriptors::{self, Arrivals, MAX_FROM_WORKER};
use crate::error::{ChannelError, kind_of};
use crate::frame::Decoder;
use crate::lanes::{Drained, Lanes};
use crate::message::{Hello, Message, PROTOCOL_VERSION};
use crate::text::cut;

pub use self::supervisor::{FromWorker, LANE_MAX, RequestSender, SupervisorEndpoint, WorkerReceiver};
pub use self::worker::{LOG_MAX, QUEUED_MAX, WorkerEndpoint};

mod supervisor;
mod worker;

/// How much one read takes: some three thousand pause commands, or a third of what the socket holds by default.
const CHUNK: usize = 64 << 10;

/// The longest name of a peer's build that is kept, in bytes.
const BUILD_MAX: usize = 64;

/// Reads messages off the socket, and checks that the first one is the right Hello.
#[derive(Debug)]
struct Inbound {
    chunk: Box<[u8]>,
    /// The part of `chunk` that the decoder has not consumed.
    unread: std::ops::Range<usize>,
    decoder: Decoder,
    arrivals: Arrivals,
    side: Side,
    ours: Hello,
    /// The peer's Hello, once it has come.
    peer: Option<Hello>,
}

/// Who reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    /// Gets a descriptor with some notifications.
    Supervisor,
    /// Gets descriptors with requests.
    Worker,
}

/// What [`Inbound::fill`] found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fill {
    /// There are bytes to decode.
    Bytes,
    /// The socket has none at the moment.
    WouldBlock,
}

impl Inbound {
    fn new(side: Side, ours: Hello) -> Self {
        Self {
            chunk: vec![0; CHUNK].into_boxed_slice(),
            unread: 0..0,
            decoder: Decoder::new(),
            arrivals: Arrivals::new(),
            side,
            ours,
            peer: None,
        }
    }

    /// Whether bytes have been read from the socket and not decoded yet. They may or may not hold a whole frame.
    fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// The next message among the bytes read so far, with its descriptors; `None` when [`Inbound::fill`] must be called. A Hello
    /// is checked and kept in `peer`, and is returned only for the first frame.
    fn next_message(&mut self) -> Result<Option<(Message, Vec<OwnedFd>)>, ChannelError> {
        let offset = self.decoder.offset();
        let mut input = &self.chunk[self.unread.clone()];
        let outcome = self.decoder.next_frame(&mut input);
        self.unread.start = self.unread.end - input.len();
        let frame = match outcome {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(error) => return Err(ChannelError::Frame { offset, error }),
        };
        let descriptors = self.arrivals.take(frame.start, frame.end)?;
        let decoded = match self.peer {
            None => codec::decode_first(frame.body),
            Some(_) => codec::decode(frame.body),
        };
        let mut message = decoded.map_err(|error| ChannelError::Codec {
            offset: frame.start,
            error,
        })?;
        if self.peer.is_none() {
            let Message::Hello(theirs) = &mut message else {
                return Err(ChannelError::HelloExpected { got: kind_of(&message) });
            };
            cut(&mut theirs.build, BUILD_MAX);
            check_hello(&self.ours, theirs)?;
            self.peer = Some(theirs.clone());
        }
        if self.side == Side::Supervisor && descriptors.len() > descriptors_of(&message) {
            let count = descriptors.len();
            return Err(ChannelError::DescriptorsFromWorker { count });
        }
        Ok(Some((message, descriptors)))
    }

    /// Reads once. Call when [`Inbound::next_message`] has returned `None`.
    fn fill(&mut self, socket: BorrowedFd<'_>) -> Result<Fill, ChannelError> {
        debug_assert!(!self.has_unread());
        let received = match descriptors::receive(socket, &mut self.chunk) {
            Ok(received) => received,
            Err(Errno::EAGAIN) => return Ok(Fill::WouldBlock),
            // A peer that dies with bytes unread resets the connection; what it sent before has been read by then.
            Err(Errno::ECONNRESET) => return Err(self.end_of_stream()),
            Err(errno) => return Err(ChannelError::Os { call: "recvmsg", errno }),
        };
        if received.bytes == 0 {
            return Err(self.end_of_stream());
        }
        if self.side == Side::Supervisor && received.descriptors.len() > MAX_FROM_WORKER {
            let count = received.descriptors.len();
            return Err(ChannelError::DescriptorsFromWorker { count });
        }
        let start = self.decoder.offset();
        self.arrivals
            .push(start, start + received.bytes as u64, received.descriptors)?;
        self.unread = 0..received.bytes;
        Ok(Fill::Bytes)
    }

    fn end_of_stream(&self) -> ChannelError {
        match self.decoder.incomplete() {
            None => ChannelError::Closed,
            Some((received, expected)) => ChannelError::ClosedInFrame { received, expected },
        }
    }
}

/// How many descriptors come with a worker's message.
fn descriptors_of(message: &Message) -> usize {
    match message {
        Message::Notification(notification) => notification.descriptors(),
        _ => 0,
    }
}

/// Whether the peer is the one this channel was made for.
fn check_hello(ours: &Hello, theirs: &Hello) -> Result<(), ChannelError> {
    if theirs.protocol != ours.protocol {
        return Err(ChannelError::VersionMismatch {
            ours: ours.protocol,
            our_build: ours.build.clone(),
            theirs: theirs.protocol,
            their_build: theirs.build.clone(),
        });
    }
    if theirs.worker != ours.worker {
        return Err(ChannelError::WrongWorker {
            expected: ours.worker,
            got: theirs.worker,
        });
    }
    Ok(())
}

impl Hello {
    /// The Hello of this process, in this protocol version.
    pub fn new(build: impl Into<String>, worker: crate::id::WorkerId) -> Self {
        Self {
            protocol: PROTOCOL_VERSION,
            build: build.into(),
            worker,
            pid: std::process::id(),
        }
    }
}

/// Writes the next batch of the lanes. `Ok(None)` when nothing waits.
fn write_batch(socket: BorrowedFd<'_>, lanes: &mut Lanes) -> Result<Option<Drained>, Errno> {
    let Some(batch) = lanes.next_batch() else {
        return Ok(None);
    };
    let written = match batch.slices() {
        [frame] if !batch.descriptors.is_empty() => {
            descriptors::send_with_descriptors(socket, frame, batch.descriptors)
        }
        slices => descriptors::send(socket, slices),
    }?;
    Ok(Some(lanes.advance(written)))
}

/// Ends the channel for the peer too, which can still read what was written.
fn shut_down(socket: BorrowedFd<'_>) {
    // Fails only when there is no peer any more.
    let _ = shutdown(socket.as_raw_fd(), Shutdown::Both);
}
