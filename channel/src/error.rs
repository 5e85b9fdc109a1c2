//! What can go wrong with a channel. Every one of these ends it.

use std::time::Duration;

use nix::errno::Errno;

use crate::codec::CodecError;
use crate::descriptors::DescriptorError;
use crate::frame::FrameError;
use crate::id::WorkerId;
use crate::message::Message;

/// Why a channel ended. Whoever meets the error first and whoever asks later get the same one.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The peer has closed its end, between two frames: it exited, or died.
    #[error("the peer closed the channel")]
    Closed,
    /// The peer's end closed while a frame was under way.
    #[error("the peer closed the channel inside a frame, after {received} of {expected} bytes")]
    ClosedInFrame {
        /// Bytes of the frame that came, its length prefix included.
        received: usize,
        /// Bytes that the frame has; that its length prefix has, when not even that had come.
        expected: usize,
    },
    /// This end was closed: all senders and the receiver are dropped.
    #[error("the channel is closed at this end")]
    ClosedHere,
    /// The peer sent a frame that is too long.
    #[error("refused the frame at byte {offset} of the stream: {error}")]
    Frame {
        /// The offset in the stream.
        offset: u64,
        /// The error.
        error: FrameError,
    },
    /// The peer sent a frame that is not a message.
    #[error("refused the frame at byte {offset} of the stream: {error}")]
    Codec {
        /// Where in the stream the frame starts.
        offset: u64,
        /// The error.
        error: CodecError,
    },
    /// The two ends speak different versions.
    #[error(
        "protocol version mismatch: this end speaks version {ours} (build {our_build}), \
         the peer version {theirs} (build {their_build})"
    )]
    VersionMismatch {
        /// Our protocol version.
        ours: u32,
        /// Our build.
        our_build: String,
        /// The peer's protocol version.
        theirs: u32,
        /// The peer's build.
        their_build: String,
    },
    /// The peer belongs to another channel.
    #[error("this is the channel of {expected}, the peer says {got}")]
    WrongWorker {
        /// The worker that the channel belongs to.
        expected: WorkerId,
        /// Who the peer says it is, or whom it takes us for.
        got: WorkerId,
    },
    /// The first frame was not a Hello.
    #[error("expected the peer's Hello as the first frame, got a {got}")]
    HelloExpected {
        /// The kind of message that came.
        got: &'static str,
    },
    /// No Hello came in time.
    #[error("no Hello came within {after:?}")]
    HelloTimeout {
        /// The time limit.
        after: Duration,
    },
    /// A message that only travels the other way, or a second Hello.
    #[error("a {sender} never sends a {kind} here")]
    WrongDirection {
        /// Who sent it: `worker` or `supervisor`.
        sender: &'static str,
        /// The kind of message that came.
        kind: &'static str,
    },
    /// Descriptors that cannot be matched to a frame.
    #[error(transparent)]
    Descriptors(#[from] DescriptorError),
    /// A worker sends one descriptor with a message that says so, and none with others.
    #[error("the worker sent {count} file descriptors with what has none, or has one")]
    DescriptorsFromWorker {
        /// The number of descriptors.
        count: usize,
    },
    /// The peer reads nothing, and this end may lose nothing.
    #[error("the peer does not read: {queued_bytes} bytes wait, and at most {max} are kept")]
    Overflow {
        /// Bytes that wait, the new frame included.
        queued_bytes: usize,
        /// The limit.
        max: usize,
    },
    /// The message to be sent does not fit a frame. The channel is not harmed.
    #[error("not sent: {0}")]
    Unsendable(FrameError),
    /// The system refused a call.
    #[error("{call}: {errno}")]
    Os {
        /// The system call.
        call: &'static str,
        /// The error that it returned.
        errno: Errno,
    },
}

/// The name of a message's kind, for errors.
pub(crate) fn kind_of(message: &Message) -> &'static str {
    match message {
        Message::Hello(_) => "Hello",
        Message::Request(_) => "Request",
        Message::Response(_) => "Response",
        Message::Notification(_) => "Notification",
    }
}
