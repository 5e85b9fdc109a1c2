//! Retransmissions as a stream of their own (RFC 4588): the original sequence number (OSN), then the original payload.

use super::packet::{FIXED_LEN, Header, PADDING_BIT};

/// How many bytes the original sequence number takes at the front of the payload.
pub const OSN_LEN: usize = 2;

/// The original sequence number in a retransmission; `None` if it is too short to have one (senders probe the path with
/// retransmissions of nothing but padding).
pub fn original_seq(header: &Header, packet: &[u8]) -> Option<u16> {
    let osn = header.payload(packet).first_chunk::<OSN_LEN>()?;
    Some(u16::from_be_bytes(*osn))
}

/// Turns a retransmission into the packet it is of, in place: the original begins [`OSN_LEN`] bytes into `packet`. Payload
/// type, sequence number and SSRC are still to be written. Returns its length, and the header that describes it.
///
/// RFC 4588 §4: the timestamp, marker and extensions are the original's already; padding is the retransmission's own, and
/// goes.
pub fn restore(header: &Header, packet: &mut [u8]) -> Option<(usize, Header)> {
    let seq = original_seq(header, packet)?;
    let payload_start = usize::from(header.payload_start);
    let len = payload_start + usize::from(header.payload_len) - OSN_LEN;
    packet.copy_within(..payload_start, OSN_LEN);
    let original = packet.get_mut(OSN_LEN..)?;
    *original.first_mut()? &= !PADDING_BIT;
    Some((
        len,
        Header {
            seq,
            payload_len: header.payload_len - OSN_LEN as u16,
            ..*header
        },
    ))
}

/// The reverse: `buffer` holds the original from its byte [`OSN_LEN`] on, and becomes a retransmission from its first.
/// Header fields other than the original sequence number stay as they are, except that padding goes. Returns the
/// retransmission's length; `None` if what is there is no packet.
pub fn wrap(buffer: &mut [u8], payload_start: usize, original_seq: u16) -> Option<usize> {
    let original = buffer.get(OSN_LEN..)?;
    if payload_start < FIXED_LEN || original.len() < payload_start {
        return None;
    }
    let padding = if original[0] & PADDING_BIT != 0 {
        usize::from(*original.last()?)
    } else {
        0
    };
    let len = buffer
        .len()
        .checked_sub(padding)
        .filter(|len| *len >= payload_start + OSN_LEN)?;
    buffer.copy_within(OSN_LEN..OSN_LEN + payload_start, 0);
    buffer[0] &= !PADDING_BIT;
    buffer[payload_start..payload_start + OSN_LEN].copy_from_slice(&original_seq.to_be_bytes());
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two CSRCs, an extension block, a payload of five bytes, and padding.
    const PACKET: [u8; 36] = [
        0xb2, 0xe0, 0x12, 0x34, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 1, 1, 2, 2, 2, 2, 0xbe, 0xde, 0, 1, 0x10, 9, 0, 0, 0xa1,
        0xa2, 0xa3, 0xa4, 0xa5, 0, 0, 3,
    ];

    #[test]
    fn what_is_wrapped_is_restored_without_its_padding() {
        let header = Header::parse(&PACKET).unwrap();
        let mut buffer = [&[0, 0], &PACKET[..]].concat();
        let len = wrap(&mut buffer, usize::from(header.payload_start), header.seq).unwrap();
        let rtx = &mut buffer[..len];
        let wrapped = Header::parse(rtx).unwrap();
        assert_eq!(wrapped.payload(rtx), [0x12, 0x34, 0xa1, 0xa2, 0xa3, 0xa4, 0xa5]);
        assert_eq!(original_seq(&wrapped, rtx), Some(0x1234));
        // In transit it got a number of its own.
        rtx[2..4].copy_from_slice(&[9, 9]);
        let wrapped = Header::parse(rtx).unwrap();
        let (len, restored) = restore(&wrapped, rtx).unwrap();
        let original = &rtx[OSN_LEN..OSN_LEN + len];
        assert_eq!(restored.seq, 0x1234);
        assert_eq!(restored.payload(original), [0xa1, 0xa2, 0xa3, 0xa4, 0xa5]);
        let mut expected = PACKET[..33].to_vec();
        expected[0] = 0x92;
        expected[2..4].copy_from_slice(&[9, 9]);
        assert_eq!(original, expected);
        assert_eq!(
            Header::parse(original).unwrap(),
            Header {
                seq: 0x0909,
                ..restored
            }
        );
    }

    #[test]
    fn too_short_for_a_number() {
        for payload in [&[][..], &[1]] {
            let mut packet = [&PACKET[..28], payload].concat();
            packet[0] &= !0x20;
            let header = Header::parse(&packet).unwrap();
            assert_eq!(original_seq(&header, &packet), None);
            assert_eq!(restore(&header, &mut packet), None);
        }
        assert_eq!(wrap(&mut [0; 8], 12, 1), None);
        assert_eq!(wrap(&mut [0; 14], 11, 1), None);
        // Padding that is longer than what it pads.
        let mut buffer = [0_u8; 20];
        (buffer[2], buffer[19]) = (0xa0, 99);
        assert_eq!(wrap(&mut buffer, 12, 1), None);
    }
}
