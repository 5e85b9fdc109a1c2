//! The RTP packet (RFC 3550 §5.1): what a datagram is, where its parts lie, and its header rewritten in place.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |V=2|P|X|  CC   |M|     PT      |       sequence number         |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                           timestamp                           |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                             SSRC                              |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |   CSRC list (CC words), extension block if X, payload, padding if P
//! ```

use thiserror::Error;

use super::extension::{ExtensionBlock, Form};

/// The fixed part of the header, in bytes.
pub const FIXED_LEN: usize = 12;

/// Set in the first byte when padding stands at the end.
pub(super) const PADDING_BIT: u8 = 0x20;
const EXTENSION_BIT: u8 = 0x10;
const CSRC_COUNT: u8 = 0x0f;
const MARKER_BIT: u8 = 0x80;

/// Fields and offsets of one RTP packet, validated once. It borrows nothing: the bytes may be rewritten while it lives,
/// as long as no length in them changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The marker bit.
    pub marker: bool,
    /// The payload type, `0..=127`.
    pub payload_type: u8,
    /// The sequence number as it stands in the packet.
    pub seq: u16,
    /// The media timestamp as it stands in the packet.
    pub timestamp: u32,
    /// The synchronisation source.
    pub ssrc: u32,
    /// The header extension, if there is one, empty or not.
    pub extension: Option<ExtensionBlock>,
    /// Where the payload starts, in bytes from the start of the packet.
    pub payload_start: u16,
    /// How long the payload is, in bytes, without padding; a packet of nothing but padding has 0.
    pub payload_len: u16,
}

/// Why bytes are not the packet they should be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Error)]
pub enum Malformed {
    /// Fewer bytes than the fixed part of the header, or than a length in it promises.
    #[error("shorter than its header says")]
    TooShort,
    /// Not version 2.
    #[error("not version 2")]
    Version,
    /// The CSRC list runs past the end.
    #[error("CSRC list runs past the end")]
    CsrcList,
    /// The header extension runs past the end.
    #[error("header extension runs past the end")]
    Extension,
    /// The padding count is 0 or larger than what it could pad, or padding stands where none may be.
    #[error("padding count out of range")]
    Padding,
    /// Longer than any UDP datagram.
    #[error("longer than 65,535 bytes")]
    TooLong,
}

impl Header {
    /// Reads and checks the header of one RTP packet: RFC 3550 §5.1 and the checks of its appendix A.1 that concern a
    /// single packet. Payload type and SSRC are not judged.
    ///
    /// Appendix A.1 asks for a padding count *less* than what follows the header. Senders that probe the path send
    /// packets of padding only, so a count that leaves an empty payload is accepted.
    ///
    /// # Errors
    ///
    /// The first reason found; see [`Malformed`].
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let Some(fixed) = bytes.first_chunk::<FIXED_LEN>() else {
            return Err(Malformed::TooShort);
        };
        if fixed[0] >> 6 != 2 {
            return Err(Malformed::Version);
        }
        let Ok(len) = u16::try_from(bytes.len()) else {
            return Err(Malformed::TooLong);
        };
        let mut header = Self {
            marker: fixed[1] & MARKER_BIT != 0,
            payload_type: fixed[1] & !MARKER_BIT,
            seq: u16::from_be_bytes([fixed[2], fixed[3]]),
            timestamp: u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
            extension: None,
            payload_start: FIXED_LEN as u16,
            payload_len: len - FIXED_LEN as u16,
        };
        // Plain RTP senders set none of these bits.
        if fixed[0] & (PADDING_BIT | EXTENSION_BIT | CSRC_COUNT) != 0 {
            header.parse_variable_part(fixed[0], bytes)?;
        }
        Ok(header)
    }

    /// The CSRC list, the extension block and the padding. `self` describes a packet that has none of them.
    fn parse_variable_part(&mut self, first: u8, bytes: &[u8]) -> Result<(), Malformed> {
        let mut start = FIXED_LEN + 4 * usize::from(first & CSRC_COUNT);
        if start > bytes.len() {
            return Err(Malformed::CsrcList);
        }
        if first & EXTENSION_BIT != 0 {
            // RFC 3550 §5.3.1: a 16-bit profile, then the number of 32-bit words that follow, zero being valid.
            let Some(&[profile_high, profile_low, words_high, words_low]) = bytes.get(start..start + 4) else {
                return Err(Malformed::Extension);
            };
            start += 4;
            let len = 4 * usize::from(u16::from_be_bytes([words_high, words_low]));
            if len > bytes.len() - start {
                return Err(Malformed::Extension);
            }
            // Both numbers are at most the packet's length, which fits.
            self.extension = Some(ExtensionBlock {
                start: start as u16,
                len: len as u16,
                form: Form::of_profile(u16::from_be_bytes([profile_high, profile_low])),
            });
            start += len;
        }
        let mut len = bytes.len() - start;
        if first & PADDING_BIT != 0 {
            // RFC 3550 §5.1: the last byte counts the padding bytes, itself included.
            let padding = usize::from(*bytes.last().ok_or(Malformed::TooShort)?);
            if padding == 0 || padding > len {
                return Err(Malformed::Padding);
            }
            len -= padding;
        }
        self.payload_start = start as u16;
        self.payload_len = len as u16;
        Ok(())
    }

    /// Whether there is nothing but padding behind the header, as in packets that probe a path (RFC 3550 §5.1). `packet` is
    /// the one that was parsed. A packet that has not even padding says nothing about that.
    #[inline]
    pub fn is_padding(&self, packet: &[u8]) -> bool {
        self.payload_len == 0 && packet.first().is_some_and(|first| first & PADDING_BIT != 0)
    }

    /// The payload, without padding, of the packet this header was read from; empty if `bytes` is shorter than that.
    #[inline]
    pub fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let start = usize::from(self.payload_start);
        bytes.get(start..start + usize::from(self.payload_len)).unwrap_or(&[])
    }
}

/// Takes an extension that is none of RFC 8285's out of a packet, whole: what stands before it is moved up to what stands
/// behind it. Returns where the packet begins then, and what its header says; 0, and what it said, if it has no such
/// extension.
#[inline]
pub fn cut_opaque_extension(bytes: &mut [u8], header: &Header) -> (usize, Header) {
    match header.extension {
        Some(block) if block.form == Form::Unknown => cut_extension(bytes, header, block),
        _ => (0, *header),
    }
}

#[cold]
fn cut_extension(bytes: &mut [u8], header: &Header, block: ExtensionBlock) -> (usize, Header) {
    // The block has 4 bytes in front that say what it is.
    let cut = 4 + usize::from(block.len);
    let before = usize::from(block.start).saturating_sub(4);
    let Some(moved) = bytes.get_mut(..before + cut).filter(|_| before >= FIXED_LEN) else {
        debug_assert!(false, "a packet that was parsed has its header");
        return (0, *header);
    };
    moved.copy_within(..before, cut);
    moved[cut] &= !EXTENSION_BIT;
    let header = Header {
        extension: None,
        payload_start: before as u16,
        ..*header
    };
    (cut, header)
}

/// What a datagram on an RTP port is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// RTP, if it parses.
    Rtp,
    /// RTCP, if it parses.
    Rtcp,
    /// Neither.
    Other,
}

/// Whether a datagram is RTP, RTCP or something else, by its first two bytes. RFC 7983 §7: RTP and RTCP begin with 128..=191
/// (version 2); RFC 5761 §4: the second byte of RTCP is 192..=223, and RTP avoids payload types that look like it.
#[inline]
pub fn classify(bytes: &[u8]) -> Kind {
    match bytes {
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, _, ..] => Kind::Rtp,
        _ => Kind::Other,
    }
}

/// Gives an RTP packet another payload type, sequence number, timestamp and SSRC, in place. The marker bit and
/// everything else stay. Of the payload type the low seven bits count.
///
/// The packet has been parsed, so it has a fixed header; fewer bytes are left as they are.
#[inline]
pub fn rewrite(bytes: &mut [u8], payload_type: u8, seq: u16, timestamp: u32, ssrc: u32) {
    // One load and two stores: of the first word, and of the other two at once.
    if let Some((first, rest)) = bytes.split_first_chunk_mut::<4>()
        && let Some(others) = rest.first_chunk_mut::<8>()
    {
        let kept = u32::from_be_bytes(*first) & 0xff80_0000;
        let payload_type = u32::from(payload_type & !MARKER_BIT) << 16;
        *first = (kept | payload_type | u32::from(seq)).to_be_bytes();
        *others = (u64::from(timestamp) << 32 | u64::from(ssrc)).to_be_bytes();
    } else {
        debug_assert!(false, "rewrite wants a packet that was parsed");
    }
}

/// Makes the last `padding` bytes of an RTP packet its padding: zeros, and their count in the last one (RFC 3550 §5.1). What
/// was padding before must be among them.
///
/// The packet has been parsed and its payload ends before them; 0 changes nothing.
pub fn write_padding(packet: &mut [u8], padding: u8) {
    let start = packet.len().saturating_sub(usize::from(padding)).max(FIXED_LEN);
    if let Some((last, others)) = packet.get_mut(start..).and_then(<[u8]>::split_last_mut) {
        others.fill(0);
        *last = padding;
        packet[0] |= PADDING_BIT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_counted_in_its_last_byte() {
        let plain = [0x80, 0x60, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xaa, 0xbb];
        for (before, padding, payload) in [
            (0, 1, 2),
            (0, 16, 2),
            (3, 4, 2),
            (0, 255, 2),
            (5, 5, 2),
            (0, 0, 2),
            (0, 9, 0),
        ] {
            let mut packet = plain[..FIXED_LEN + payload].to_vec();
            if before > 0 {
                packet[0] |= PADDING_BIT;
                packet.extend([7; 255]);
                packet.truncate(FIXED_LEN + payload + before);
                *packet.last_mut().unwrap() = before as u8;
            }
            packet.resize(FIXED_LEN + payload + usize::from(padding), 9);
            write_padding(&mut packet, padding);
            let header = Header::parse(&packet).unwrap();
            assert_eq!(header.payload(&packet), &plain[FIXED_LEN..FIXED_LEN + payload]);
            assert_eq!(packet[0] & PADDING_BIT != 0, padding > 0);
            let zeros = &packet[FIXED_LEN + payload..];
            assert!(
                zeros
                    .split_last()
                    .is_none_or(|(_, zeros)| zeros.iter().all(|byte| *byte == 0))
            );
        }
        write_padding(&mut [], 3);
        write_padding(&mut [0x80; 12], 3);
    }

    #[test]
    fn the_first_two_bytes_tell_rtp_from_rtcp() {
        let rows: &[(&[u8], Kind)] = &[
            (&[], Kind::Other),
            (&[0x80], Kind::Other),
            (&[0x80, 0], Kind::Rtp),
            (&[0x80, 0x60], Kind::Rtp),
            (&[0xbf, 0xe0], Kind::Rtp),
            (&[0x80, 191], Kind::Rtp),
            (&[0x80, 192], Kind::Rtcp),
            (&[0x81, 200], Kind::Rtcp),
            (&[0xbf, 223], Kind::Rtcp),
            (&[0x80, 224], Kind::Rtp),
            // STUN, ZRTP, DTLS, TURN channel; and what lies beyond RTP.
            (&[0, 1], Kind::Other),
            (&[16, 0], Kind::Other),
            (&[22, 254], Kind::Other),
            (&[64, 200], Kind::Other),
            (&[127, 200], Kind::Other),
            (&[192, 200], Kind::Other),
        ];
        for (bytes, kind) in rows {
            assert_eq!(classify(bytes), *kind, "{bytes:?}");
        }
    }

    #[test]
    fn a_header_is_small() {
        // It is copied about once per packet.
        assert!(size_of::<Header>() <= 24);
    }

    #[test]
    fn payload_of_other_bytes_is_empty() {
        let packet = [0x80, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xaa];
        let header = Header::parse(&packet).unwrap();
        assert_eq!(header.payload(&packet), [0xaa]);
        assert!(header.payload(&packet[..12]).is_empty());
        assert!(header.payload(&[]).is_empty());
    }

    #[test]
    fn rewrite_keeps_the_marker_and_seven_bits_of_the_payload_type() {
        for (before, payload_type, after) in [
            (0x60, 0x6f, 0x6f),
            (0xe0, 0x6f, 0xef),
            (0xe0, 0, 0x80),
            (0x00, 0xff, 0x7f),
        ] {
            let mut packet = [0x90, before, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];
            rewrite(&mut packet, payload_type, 0x1112, 0x1314_1516, 0x1718_191a);
            let expected = [
                0x90, after, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18, 0x19, 0x1a, 11,
            ];
            assert_eq!(packet, expected);
        }
    }
}
