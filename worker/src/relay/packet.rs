//! One received packet as the relay thinks of it: where its bytes are, and its numbers without wrap-around.

use crate::rtp::extension::ExtensionBlock;

use super::withheld::{Counts, SLOTS};

/// What `decide` and `rewrite` need to know of a packet. Made once per packet, read once per consumer.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketMeta {
    /// Where the packet begins in its train's bytes.
    pub start: u32,
    /// How long it is.
    pub len: u32,
    /// Sequence number, extended.
    pub seq: u64,
    /// How many packets before it are withheld from consumers, by their slots.
    pub withheld: Counts,
    /// RTP timestamp, extended.
    pub timestamp: u64,
    /// Which of the producer's encodings it belongs to.
    pub encoding: u8,
    /// As the producer sent it.
    pub payload_type: u8,
    /// A stream may be joined now: with this packet all has come that it takes, or nothing more than a packet is needed.
    pub key_frame: bool,
    /// The packet that it begins with then; this one, or one from before.
    pub first: u64,
    /// Parameter sets that were overtaken may come yet, with lower numbers.
    pub may_be_preceded: bool,
    /// Changes when consumers must start anew: the stream restarted, or the producer was resumed.
    pub epoch: u32,
    /// Where the payload begins in the packet.
    pub payload_start: u16,
    /// How long the payload is, without padding.
    pub payload_len: u16,
    /// The picture ids of a VP8 packet.
    pub vp8: Option<Vp8Meta>,
    /// Where the header extensions are.
    pub extension: Option<ExtensionBlock>,
    /// The next packet of the same stream in this batch.
    pub next: u32,
}

impl PacketMeta {
    /// Its number as if nothing that is withheld from the consumers of a slot had ever been sent.
    #[inline]
    pub fn folded(&self, slot: u8) -> u64 {
        self.seq.wrapping_sub(self.withheld[usize::from(slot) % SLOTS])
    }
}

/// VP8 ids to be kept continuous, extended; offsets count from the payload's start.
#[derive(Clone, Copy, Debug)]
pub struct Vp8Meta {
    /// Picture id.
    pub picture_id: Option<PictureIdMeta>,
    /// (offset, TL0PICIDX).
    pub tl0: Option<(u8, u64)>,
}

/// Where a picture id is, and which.
#[derive(Clone, Copy, Debug)]
pub struct PictureIdMeta {
    /// From the payload's start.
    pub offset: u8,
    /// 15 bits, or 7.
    pub wide: bool,
    /// Extended.
    pub value: u64,
}
