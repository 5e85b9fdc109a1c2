//! Generic negative acknowledgements, written (RFC 4585 §6.2.1): which packets of a stream are missing.

use rtcp_types::{FciParser, RtcpPacket, TransportFeedback};

use super::rtcp::{PREFIX_LEN, write_prefix};

/// Pairs of one packet, which then stays below any path's MTU.
const PAIRS_MAX: usize = 256;

/// What stands before the pairs: the compound's prefix, the feedback header, and two SSRCs.
const HEAD_LEN: usize = PREFIX_LEN + 12;

/// How many packets one pair names at most: one by its number, 16 by a bit each.
pub const PAIR_PACKETS: u64 = 17;

/// A negative acknowledgement in the making: a compound packet in a fixed buffer.
#[derive(Debug)]
pub struct NackWriter {
    bytes: [u8; HEAD_LEN + 4 * PAIRS_MAX],
    len: usize,
    /// The extended number that the last pair begins with.
    pid: u64,
}

impl NackWriter {
    /// Names nothing yet.
    pub fn new(sender_ssrc: u32, media_ssrc: u32) -> Self {
        let mut bytes = [0; HEAD_LEN + 4 * PAIRS_MAX];
        let (prefix, nack) = bytes.split_at_mut(PREFIX_LEN);
        write_prefix(prefix, sender_ssrc);
        nack[..2].copy_from_slice(&[0x80 | rtcp_types::Nack::FCI_FORMAT, TransportFeedback::PACKET_TYPE]);
        nack[4..8].copy_from_slice(&sender_ssrc.to_be_bytes());
        nack[8..12].copy_from_slice(&media_ssrc.to_be_bytes());
        Self {
            bytes,
            len: HEAD_LEN,
            pid: 0,
        }
    }

    /// Names a missing packet by its extended number, which grows from call to call, and by its number on the wire.
    /// `false`: the packet is full, and does not name it.
    pub fn push(&mut self, ext: u64, wire: u16) -> bool {
        let bit = ext.wrapping_sub(self.pid).wrapping_sub(1);
        if !self.is_empty() && bit < PAIR_PACKETS - 1 {
            let byte = if bit < 8 { self.len - 1 } else { self.len - 2 };
            self.bytes[byte] |= 1 << (bit % 8);
            return true;
        }
        let Some(pair) = self.bytes.get_mut(self.len..self.len + 4) else {
            return false;
        };
        pair[..2].copy_from_slice(&wire.to_be_bytes());
        pair[2..].fill(0);
        self.len += 4;
        self.pid = ext;
        true
    }

    /// Whether it names nothing.
    pub fn is_empty(&self) -> bool {
        self.len == HEAD_LEN
    }

    /// The whole packet. Means nothing when it names nothing.
    pub fn packet(&mut self) -> &[u8] {
        let words = (self.len - PREFIX_LEN) / 4 - 1;
        self.bytes[PREFIX_LEN + 2..PREFIX_LEN + 4].copy_from_slice(&(words as u16).to_be_bytes());
        &self.bytes[..self.len]
    }

    /// Begins again, for the same stream.
    pub fn clear(&mut self) {
        self.len = HEAD_LEN;
    }
}

#[cfg(test)]
mod tests {
    use super::super::rtcp::{RtcpItem, parse};
    use super::*;

    fn named(packet: &[u8]) -> Vec<(u32, u16, u16)> {
        let mut pairs = Vec::new();
        parse(packet, |feedback| {
            if let RtcpItem::Nack {
                media_ssrc, pid, blp, ..
            } = feedback
            {
                pairs.push((media_ssrc, pid, blp));
            }
        })
        .expect("it is RTCP");
        pairs
    }

    #[test]
    fn numbers_are_packed_over_the_wrap() {
        let mut writer = NackWriter::new(1, 7);
        assert!(writer.is_empty());
        for ext in [65_530_u64, 65_531, 65_536, 65_538, 65_546, 65_547, 70_000] {
            assert!(writer.push(ext, ext as u16));
        }
        // 65,530 + 16 is the last one of its pair.
        let expected = [(7, 65_530, 0b1000_0000_1010_0001), (7, 11, 0), (7, 4_464, 0)];
        assert_eq!(named(writer.packet()), expected);
        writer.clear();
        assert!(writer.is_empty());
        assert!(writer.push(70_001, 4_465));
        assert_eq!(named(writer.packet()), [(7, 4_465, 0)]);
    }

    #[test]
    fn a_full_packet_says_so_and_fits_any_path() {
        let mut writer = NackWriter::new(1, 7);
        let mut count = 0;
        while writer.push(count * 20, (count * 20) as u16) {
            count += 1;
        }
        assert_eq!(count, PAIRS_MAX as u64);
        assert!(writer.packet().len() <= 1_200);
        assert_eq!(named(writer.packet()).len(), PAIRS_MAX);
    }
}
