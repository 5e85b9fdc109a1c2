//! The RTP header (RFC 3550 §5.1), as a sender of recordings and a judging receiver need it.

/// The fixed header's length.
pub const HEADER_LEN: usize = 12;
const SEQ_AT: usize = 2;
const TIMESTAMP_AT: usize = 4;

/// One parsed packet; borrows the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet<'a> {
    /// The marker bit.
    pub marker: bool,
    /// 7 bits.
    pub payload_type: u8,
    /// Sequence number.
    pub seq: u16,
    /// Media time, in units of the codec's clock.
    pub timestamp: u32,
    /// Which stream.
    pub ssrc: u32,
    /// Where the payload starts in the packet.
    pub payload_at: usize,
    /// Without the padding.
    pub payload: &'a [u8],
}

/// Why bytes are not an RTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum RtpError {
    /// Shorter than its headers say.
    #[error("{len} bytes are too few for this RTP packet's headers")]
    TooShort {
        /// What there is.
        len: usize,
    },
    /// Not version 2.
    #[error("RTP version {0}")]
    Version(u8),
    /// The payload type is one of RTCP's packet types (RFC 5761 §4).
    #[error("an RTCP packet")]
    Rtcp,
    /// The padding is longer than the payload, or zero.
    #[error("padding of {0} bytes")]
    Padding(u8),
}

/// Whether a datagram from a muxed port is RTCP (RFC 5761 §4: packet types 192 to 223).
pub fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [_, 192..=223, ..])
}

impl<'a> Packet<'a> {
    /// Parses a whole packet.
    ///
    /// # Errors
    /// When the bytes are not a well-formed RTP packet of version 2.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, RtpError> {
        let too_short = RtpError::TooShort { len: bytes.len() };
        let header: &[u8; HEADER_LEN] = bytes.first_chunk().ok_or(too_short)?;
        let version = header[0] >> 6;
        if version != 2 {
            return Err(RtpError::Version(version));
        }
        if is_rtcp(bytes) {
            return Err(RtpError::Rtcp);
        }
        let csrc_count = usize::from(header[0] & 0x0f);
        let mut payload_at = HEADER_LEN + 4 * csrc_count;
        if header[0] & 0x10 != 0 {
            // RFC 3550 §5.3.1: 16 bits of profile, 16 bits of length in 32-bit words.
            let extension = bytes.get(payload_at..payload_at + 4).ok_or(too_short)?;
            payload_at += 4 + 4 * usize::from(u16::from_be_bytes([extension[2], extension[3]]));
        }
        let mut payload = bytes.get(payload_at..).ok_or(too_short)?;
        if header[0] & 0x20 != 0 {
            // RFC 3550 §5.1: the last octet counts the padding, itself included.
            let padding = *payload.last().ok_or(too_short)?;
            let len = payload.len().checked_sub(usize::from(padding));
            payload = match len {
                Some(len) if padding > 0 => &payload[..len],
                _ => return Err(RtpError::Padding(padding)),
            };
        }
        Ok(Self {
            marker: header[1] & 0x80 != 0,
            payload_type: header[1] & 0x7f,
            seq: u16::from_be_bytes([header[2], header[3]]),
            timestamp: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
            ssrc: u32::from_be_bytes([header[8], header[9], header[10], header[11]]),
            payload_at,
            payload,
        })
    }
}

/// Gives a packet another sequence number. `packet` has been parsed before, so that its header is there.
pub fn write_seq(packet: &mut [u8], seq: u16) {
    packet[SEQ_AT..SEQ_AT + 2].copy_from_slice(&seq.to_be_bytes());
}

/// Gives a packet another timestamp. As [`write_seq`].
pub fn write_timestamp(packet: &mut [u8], timestamp: u32) {
    packet[TIMESTAMP_AT..TIMESTAMP_AT + 4].copy_from_slice(&timestamp.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One CSRC, an extension of one word, four bytes of payload, two of padding.
    const FULL: [u8; 12 + 4 + 8 + 6] = [
        0xb1, 0xe0, 0x12, 0x34, 1, 2, 3, 4, 0xca, 0xfe, 0xba, 0xbe, // header
        9, 9, 9, 9, // CSRC
        0xbe, 0xde, 0, 1, 0x10, 0xff, 0, 0, // extension
        5, 6, 7, 8, 0, 2,
    ];

    #[test]
    fn every_field_is_found() {
        let packet = Packet::parse(&FULL).unwrap();
        assert_eq!(
            packet,
            Packet {
                marker: true,
                payload_type: 96,
                seq: 0x1234,
                timestamp: 0x0102_0304,
                ssrc: 0xcafe_babe,
                payload_at: 24,
                payload: &[5, 6, 7, 8],
            }
        );
    }

    #[test]
    fn a_packet_cut_at_any_length_is_refused_or_loses_payload() {
        for len in 0..FULL.len() {
            match Packet::parse(&FULL[..len]) {
                Ok(packet) => assert!(packet.payload.len() < 6 && len > 24, "{len}"),
                Err(error) => assert!(
                    matches!(error, RtpError::TooShort { .. } | RtpError::Padding(_)),
                    "{len}: {error}"
                ),
            }
        }
        assert_eq!(Packet::parse(&[0x40; 12]), Err(RtpError::Version(1)));
        let mut rtcp = FULL;
        rtcp[1] = 200;
        assert_eq!(Packet::parse(&rtcp), Err(RtpError::Rtcp));
        assert!(is_rtcp(&rtcp) && !is_rtcp(&FULL) && !is_rtcp(&[]));
    }

    #[test]
    fn numbers_are_rewritten_in_place() {
        let mut bytes = FULL;
        write_seq(&mut bytes, 0xffff);
        write_timestamp(&mut bytes, 0xdead_beef);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.seq, packet.timestamp), (0xffff, 0xdead_beef));
        assert_eq!(bytes[8..], FULL[8..]);
    }
}
