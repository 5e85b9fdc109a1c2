//! Why a packet is not protected or unprotected.

use thiserror::Error;

/// Why [`Inbound`](super::Inbound) did not unprotect a packet. The packet's bytes are then worthless, and nothing else has
/// changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum UnprotectError {
    /// Shorter than a header and a tag.
    #[error("{len} bytes are too short for a header and a tag")]
    TooShort {
        /// The packet's length in bytes.
        len: usize,
    },
    /// Not version 2, or a header that runs past the end.
    #[error("no RTP or RTCP header")]
    Malformed,
    /// The tag does not fit: forged, damaged, or protected with another key or another rollover counter.
    #[error("packet of SSRC {ssrc:#010x} is not authentic")]
    NotAuthentic {
        /// The SSRC in the packet.
        ssrc: u32,
    },
    /// The packet was taken before.
    #[error("packet {index} of SSRC {ssrc:#010x} was received before")]
    Replayed {
        /// The SSRC in the packet.
        ssrc: u32,
        /// The packet's index.
        index: u64,
    },
    /// Below the window, so nobody knows whether it was taken before.
    #[error("packet {index} of SSRC {ssrc:#010x} is too old to know whether it was received before")]
    TooOld {
        /// The SSRC in the packet.
        ssrc: u32,
        /// The packet's index.
        index: u64,
    },
    /// The stream has used up its indices; only new keys help.
    #[error("SSRC {ssrc:#010x} has used up its indices")]
    Exhausted {
        /// The SSRC in the packet.
        ssrc: u32,
    },
    /// One SSRC more than are allowed.
    #[error("SSRC {ssrc:#010x} would be one more than {streams_max}")]
    TooManyStreams {
        /// The SSRC in the packet.
        ssrc: u32,
        /// The most SSRCs that are allowed.
        streams_max: usize,
    },
}

/// Why [`Outbound`](super::Outbound) did not protect a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum ProtectError {
    /// No stream has this key; perhaps it was removed.
    #[error("no such stream")]
    UnknownStream,
    /// A stream of this SSRC is there already.
    #[error("SSRC {ssrc:#010x} is there already")]
    DuplicateStream {
        /// The SSRC.
        ssrc: u32,
    },
    /// So many SSRCs were used under this key that no more are kept in mind.
    #[error("SSRC {ssrc:#010x} would be one more than {ssrcs_max} under one key")]
    TooManyStreams {
        /// The SSRC.
        ssrc: u32,
        /// The most SSRCs that are allowed.
        ssrcs_max: usize,
    },
    /// The buffer behind the packet does not hold what SRTP adds.
    #[error("the buffer has {available} bytes, and {needed} are needed")]
    BufferTooSmall {
        /// What the protected packet takes, in bytes.
        needed: usize,
        /// The bytes that the buffer has.
        available: usize,
    },
    /// Not version 2, or a header that runs past the end.
    #[error("no RTP or RTCP header")]
    Malformed,
    /// The SSRC in the packet is not the stream's, or its sequence number not the low 16 bits of the index.
    #[error("the packet is not number {index} of SSRC {ssrc:#010x}")]
    Mismatch {
        /// The stream's SSRC.
        ssrc: u32,
        /// The index it was to be protected with.
        index: u64,
    },
    /// The index was used before, for other bytes or in a stream that repeats nothing.
    #[error("index {index} of SSRC {ssrc:#010x} was used before")]
    IndexReused {
        /// The stream's SSRC.
        ssrc: u32,
        /// The index.
        index: u64,
    },
    /// Below the window, so nobody knows whether the index was used before.
    #[error("index {index} of SSRC {ssrc:#010x} is too old to know whether it was used before")]
    IndexTooOld {
        /// The stream's SSRC.
        ssrc: u32,
        /// The index.
        index: u64,
    },
    /// The index has more than 48 bits (SRTP) or 31 (SRTCP): the key is used up, and only a new one helps.
    #[error("index {index} is beyond the last one of a key")]
    Exhausted {
        /// The index.
        index: u64,
    },
    /// The cipher refused. It does so only for lengths that no packet has.
    #[error("the cipher refused")]
    Cipher,
}

/// The cipher refused, or the tag does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failed;
