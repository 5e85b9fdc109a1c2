//! Why a packet is not protected or unprotected.

/// Why [`Inbound`](super::Inbound) did not unprotect a packet. The packet's bytes are then worthless, and nothing else has
/// changed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnprotectError {
    /// Shorter than a header and a tag.
    TooShort,
    /// Not version 2, or a header that runs past the end.
    Malformed,
    /// The tag does not fit: forged, damaged, or protected with another key or another rollover counter.
    NotAuthentic,
    /// The packet was taken before.
    Replayed,
    /// Below the window, so nobody knows whether it was taken before.
    TooOld,
    /// The stream has used up its indices; only new keys help.
    Exhausted,
    /// One SSRC more than are allowed.
    TooManyStreams,
}

/// Why [`Outbound`](super::Outbound) did not protect a packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ProtectError {
    /// No stream has this key; perhaps it was removed.
    UnknownStream,
    /// A stream of this SSRC is there already.
    DuplicateStream,
    /// So many SSRCs were used under this key that no more are kept in mind.
    TooManyStreams,
    /// The buffer does not hold the packet and what SRTP adds.
    BufferTooSmall,
    /// Not version 2, or a header that runs past the end.
    Malformed,
    /// The SSRC in the packet is not the stream's, or its sequence number not the low 16 bits of the index.
    Mismatch,
    /// The index was used before, for other bytes or in a stream that repeats nothing.
    IndexReused,
    /// Below the window, so nobody knows whether the index was used before.
    IndexTooOld,
    /// The index has more than 48 bits (SRTP) or 31 (SRTCP): the key is used up, and only a new one helps.
    Exhausted,
    /// The cipher refused. It does so only for lengths that no packet has.
    Cipher,
}

/// The cipher refused, or the tag does not fit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Failed;
