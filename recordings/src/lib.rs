//! Recorded media: reading and writing rtpdump files, replaying them at their true pace, and judging what a relay made
//! of them.
//!
//! [`rtpdump`] is the file format. A [`Recording`] is one recorded stream, validated and measured; a [`Replay`] yields
//! the packets of several recordings of one source in due order, for as long as one likes: sequence numbers, timestamps
//! and picture ids go on across the seam as if the recording had no end. [`check`] is the other end: it recognises every
//! packet that arrives by its content and holds a relay to what it promises.
//!
//! Nothing here reads a clock, opens a socket or shares a parser with the relay: the judge must not repeat the mistakes
//! of the judged.

pub mod check;
pub mod recording;
pub mod replay;
pub mod rtp;
pub mod rtpdump;
pub mod vp8;

pub use check::{Catalogue, Check, SentLog, StreamCheck};
pub use recording::Recording;
pub use replay::Replay;
