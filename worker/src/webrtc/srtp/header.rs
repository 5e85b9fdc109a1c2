//! What of a packet is never encrypted, and the numbers in it that a cipher needs.
//!
//! [`rtp::Header`](crate::rtp::Header) does not serve here: it judges the padding, whose count is among the encrypted
//! bytes.

use crate::rtp::packet::FIXED_LEN;

/// What is never encrypted of an RTCP packet: the first header, and the sender's SSRC.
pub(super) const RTCP_CLEAR_LEN: usize = 8;

const VERSION: u8 = 2;

/// The clear part of an RTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RtpClear {
    /// Up to the payload, in bytes.
    pub(super) len: usize,
    pub(super) seq: u16,
    pub(super) ssrc: u32,
}

impl RtpClear {
    /// Fixed header, CSRCs and extension. `None`: not version 2, or it runs past the end.
    #[inline]
    pub(super) fn parse(packet: &[u8]) -> Option<Self> {
        let fixed = packet.first_chunk::<FIXED_LEN>()?;
        if fixed[0] >> 6 != VERSION {
            return None;
        }
        let mut len = FIXED_LEN + 4 * usize::from(fixed[0] & 0x0f);
        if fixed[0] & 0x10 != 0 {
            let words = packet.get(len + 2..len + 4)?;
            len += 4 + 4 * usize::from(u16::from_be_bytes([words[0], words[1]]));
        }
        (len <= packet.len()).then_some(Self {
            len,
            seq: u16::from_be_bytes([fixed[2], fixed[3]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
        })
    }
}

/// The SSRC of an RTCP packet's sender. `None`: not version 2, or too short to have one.
pub(super) fn rtcp_sender(packet: &[u8]) -> Option<u32> {
    let clear = packet.first_chunk::<RTCP_CLEAR_LEN>()?;
    (clear[0] >> 6 == VERSION).then(|| u32::from_be_bytes([clear[4], clear[5], clear[6], clear[7]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clear_part_ends_where_the_payload_begins() {
        let mut packet = [0; 40];
        packet[..12].copy_from_slice(&[0x80, 96, 1, 2, 0, 0, 0, 0, 0xa, 0xb, 0xc, 0xd]);
        let clear = RtpClear::parse(&packet).unwrap();
        assert_eq!((clear.len, clear.seq, clear.ssrc), (12, 0x0102, 0x0a0b_0c0d));
        packet[0] = 0x82;
        assert_eq!(RtpClear::parse(&packet).map(|clear| clear.len), Some(20));
        // Two CSRCs and an extension of three words; padding does not matter here.
        packet[0] = 0xb2;
        packet[20..24].copy_from_slice(&[0xbe, 0xde, 0, 3]);
        assert_eq!(RtpClear::parse(&packet).map(|clear| clear.len), Some(36));
        assert_eq!(RtpClear::parse(&packet[..36]).map(|clear| clear.len), Some(36));
        for len in [0, 11, 12, 20, 23, 24, 35] {
            assert_eq!(RtpClear::parse(&packet[..len]), None, "{len}");
        }
        packet[22] = 0xff;
        assert_eq!(RtpClear::parse(&packet), None);
        for first in [0x00, 0x40, 0xc0] {
            packet[0] = first;
            assert_eq!(RtpClear::parse(&packet), None);
        }
    }

    #[test]
    fn the_sender_of_a_control_packet() {
        assert_eq!(rtcp_sender(&[0x81, 200, 0, 1, 1, 2, 3, 4]), Some(0x0102_0304));
        assert_eq!(rtcp_sender(&[0x81, 200, 0, 1, 1, 2, 3]), None);
        assert_eq!(rtcp_sender(&[0x41, 200, 0, 1, 1, 2, 3, 4]), None);
    }
}
