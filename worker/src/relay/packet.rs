//! One received packet as the relay thinks of it: where its bytes are, and its numbers without wrap-around.

use weir_channel::message::Codec;

use crate::rtp::extension::ExtensionBlock;
use crate::rtp::packet::{Header, Malformed, write_padding};
use crate::time::Time;

use super::keys::ProducerKey;
use super::limits::{RING_CHUNK_BYTES, TRAIN_BYTES_MAX, TRAIN_PADDING_MAX};
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
    /// How many bytes of padding it got here, so that it is as long as others of its train.
    pub padding_added: u8,
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

    /// Whether its picture id gets a second byte when it is sent. A sender that writes 7 bits may widen at any time, and a
    /// receiver that counts modulo 128 until then sees a jump; so consumers get 15 bits from the beginning (RFC 7741 §4.2 lets the
    /// sender choose). A packet as long as a packet can be stays as it is.
    #[inline]
    pub fn grows(&self) -> bool {
        let is_narrow = self.vp8.and_then(|vp8| vp8.picture_id).is_some_and(|id| !id.wide);
        is_narrow && (self.len as usize) < TRAIN_BYTES_MAX
    }

    /// How long it is when it is sent.
    #[inline]
    pub fn sent_len(&self) -> u32 {
        self.len + u32::from(self.grows())
    }

    /// How long it may become when it is sent, by padding. One without payload stays as it is: with padding it would be read
    /// as a packet that only probes the path. So does one that would be too long to be kept.
    #[inline]
    pub fn padded_len_max(&self) -> u32 {
        let len = self.sent_len();
        if self.payload_len == 0 || len as usize >= RING_CHUNK_BYTES {
            return len;
        }
        // RFC 3550 §5.1: a byte counts it all.
        let addable = u32::from(u8::MAX).saturating_sub(self.padding());
        (len + addable.min(TRAIN_PADDING_MAX)).min(RING_CHUNK_BYTES as u32)
    }

    /// The bytes of its padding.
    fn padding(&self) -> u32 {
        let padded_from = u32::from(self.payload_start) + u32::from(self.payload_len);
        self.len.saturating_sub(padded_from)
    }

    /// Makes it, which lies at the end of `out`, longer by padding, if it is shorter than `len`; [`PacketMeta::padded_len_max`] is the
    /// limit.
    pub fn pad(&mut self, out: &mut Vec<u8>, len: u32) {
        debug_assert!(len <= self.padded_len_max().max(self.len));
        let added = len.saturating_sub(self.len);
        if added > 0 {
            let start = self.start as usize;
            out.resize(start + len as usize, 0);
            write_padding(&mut out[start..], (self.padding() + added) as u8);
            self.len = len;
            self.padding_added = added as u8;
        }
    }

    /// Copies it from `bytes`, which its `start` counts in, to the end of `out`, with the second byte of its picture id if it
    /// is to get one; it is there from now on.
    pub fn move_to(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        let start = self.start as usize;
        let packet = &bytes[start..start + self.len as usize];
        let grows = self.grows();
        self.start = out.len() as u32;
        match self.vp8.as_mut() {
            Some(Vp8Meta {
                picture_id: Some(id),
                tl0,
                ..
            }) if grows => {
                let (before, behind) = packet.split_at(usize::from(self.payload_start) + usize::from(id.offset));
                out.extend_from_slice(before);
                out.push(0);
                out.extend_from_slice(behind);
                id.wide = true;
                if let Some((offset, _)) = tl0 {
                    *offset += 1;
                }
                self.len += 1;
                self.payload_len += 1;
            }
            _ => out.extend_from_slice(packet),
        }
    }
}

/// A packet that is kept, to be sent later, or again.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// As it was when it came; its `start` counts in the bytes that are kept.
    pub packet: PacketMeta,
    /// When it came.
    pub at: Time,
    /// Which one it was of all that were handed to the stream's consumers.
    pub ordinal: u64,
}

/// A received RTP packet, where it lies in its batch.
#[derive(Debug)]
pub(super) struct Rtp<'a> {
    pub header: Header,
    pub bytes: &'a mut [u8],
    /// Where it begins in the batch.
    pub start: usize,
}

impl<'a> Rtp<'a> {
    /// Reads the header of a packet that begins at `start` in its batch.
    #[inline]
    pub(super) fn parse(bytes: &'a mut [u8], start: usize) -> Result<Self, Malformed> {
        let header = Header::parse(bytes)?;
        Ok(Self { header, bytes, start })
    }
}

/// The stream that a packet belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Route {
    /// Its producer.
    pub key: ProducerKey,
    /// Its encoding.
    pub encoding: u8,
    /// The codec of its payload type.
    pub codec: Codec,
    /// It came as a retransmission, and is the original again.
    pub is_rtx: bool,
}

/// VP8 ids to be kept continuous, extended; offsets count from the payload's start.
#[derive(Clone, Copy, Debug)]
pub struct Vp8Meta {
    /// Picture id.
    pub picture_id: Option<PictureIdMeta>,
    /// (offset, TL0PICIDX).
    pub tl0: Option<(u8, u64)>,
    /// The picture id and TL0PICIDX that the stream will have next, which a flow goes on from that starts on a packet without
    /// them.
    pub upcoming: (u64, u64),
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
