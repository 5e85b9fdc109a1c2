//! Views over bytes: RTP and RTCP packets, header extensions, sequence numbers, codec payload descriptors.
//!
//! Everything here takes bytes and numbers and gives back offsets and numbers. It is what stands between the network and
//! the relay, so any input is allowed and none panics, allocates or costs more than its length. Deliberately absent:
//! sockets, clocks, logging, policy.
//!
//! [`packet`] says what a datagram is and where its parts lie, and rewrites the fixed header in place; [`extension`]
//! walks RFC 8285 header extensions; [`seq`] is the only place with wrap-around arithmetic; [`continuity`] distinguishes a sender that starts over from packets that are
//! late, lost or duplicated; [`codec`] peeks at payloads
//! for key frames; [`rtcp`] reads compound packets and writes key frame requests, [`nack`] asks for packets again, and
//! [`rtx`] is how they come again.

pub mod bit_ring;
pub mod codec;
pub mod continuity;
pub mod extension;
pub mod nack;
pub mod packet;
pub mod received;
pub mod rtcp;
pub mod rtx;
pub mod seq;

pub use codec::{Parts, Peek, peek};
pub use continuity::{Continuity, Known, PacketTiming, Verdict};
pub use extension::{Element, ExtensionBlock, Form};
pub use packet::{Header, Kind, Malformed, classify, rewrite};
pub use received::Seen;
pub use seq::{Arrival, SeqExtender, TimestampExtender};
