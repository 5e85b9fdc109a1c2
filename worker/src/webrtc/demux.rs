//! Classifies the datagrams of a WebRTC transport by their first bytes (RFC 7983 §7).

use crate::rtp;

/// The protocols that share a WebRTC transport's port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// STUN (RFC 8489): connectivity checks and consent.
    Stun,
    /// DTLS (RFC 6347): the handshake that yields the keys of SRTP.
    Dtls,
    /// RTP, or SRTP.
    Rtp,
    /// RTCP, or SRTCP.
    Rtcp,
    /// None of them: ZRTP, TURN channels, and everything that is too short for what it claims to be.
    Other,
}

/// A STUN header, in bytes.
const STUN_LEN_MIN: usize = 20;

/// Bytes 4 to 8 of every STUN message (RFC 8489 §5).
const STUN_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// A DTLS record header, in bytes.
const DTLS_LEN_MIN: usize = 13;

/// Tells what `datagram` claims to be. Whether it is that, its own parser says.
#[inline]
pub fn classify(datagram: &[u8]) -> Kind {
    match datagram.first() {
        Some(128..=191) => match rtp::classify(datagram) {
            rtp::Kind::Rtp => Kind::Rtp,
            rtp::Kind::Rtcp => Kind::Rtcp,
            rtp::Kind::Other => Kind::Other,
        },
        Some(0..=3) if datagram.len() >= STUN_LEN_MIN && datagram[4..8] == STUN_COOKIE => Kind::Stun,
        Some(20..=63) if datagram.len() >= DTLS_LEN_MIN => Kind::Dtls,
        _ => Kind::Other,
    }
}

/// Whether one of the DTLS records in `datagram` claims to be protected: those of an epoch after the first (RFC 6347 §4.1),
/// and those with the short header (RFC 9147 §4).
pub fn has_protected_record(mut datagram: &[u8]) -> bool {
    while let [kind, _, _, epoch_high, epoch_low, ..] = *datagram {
        if kind & 0b1110_0000 == 0b0010_0000 || (epoch_high, epoch_low) != (0, 0) {
            return true;
        }
        let Some([high, low]) = datagram.get(11..13) else {
            return false;
        };
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        datagram = datagram.get(DTLS_LEN_MIN + len..).unwrap_or_default();
    }
    false
}

/// The numbers of the handshake messages in a datagram of DTLS that are in the clear, wholly or in part (RFC 6347 §4.2.2, RFC 9147 §5.2). One
/// that is sent again has the same number.
pub fn handshake_messages(datagram: &[u8]) -> impl Iterator<Item = u16> {
    const HANDSHAKE: u8 = 22;
    let mut records = datagram;
    let mut fragments: &[u8] = &[];
    std::iter::from_fn(move || {
        loop {
            if let Some((header, rest)) = fragments.split_first_chunk::<12>() {
                let len = u32::from_be_bytes([0, header[9], header[10], header[11]]);
                fragments = rest.get(len as usize..).unwrap_or_default();
                return Some(u16::from_be_bytes([header[4], header[5]]));
            }
            let (header, rest) = records.split_first_chunk::<DTLS_LEN_MIN>()?;
            let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
            let (record, next) = rest.split_at_checked(len)?;
            records = next;
            if header[0] == HANDSHAKE && header[3..5] == [0, 0] {
                fragments = record;
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshake_messages_in_the_clear_are_found() {
        let message = |number: u8, len: u8| {
            let mut message = vec![11, 0, 0, len, 1, number, 0, 0, 0, 0, 0, len];
            message.resize(12 + usize::from(len), 7);
            message
        };
        let record = |kind: u8, epoch: u8, content: &[u8]| {
            let header = [kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 1, 0, content.len() as u8];
            [&header[..], content].concat()
        };
        let two = [message(2, 3), message(3, 0)].concat();
        let datagram = [
            record(22, 0, &message(1, 5)),
            record(20, 0, &[1]),
            record(22, 0, &two),
            record(22, 1, &message(4, 5)),
        ];
        let datagram = datagram.concat();
        let found = |datagram: &[u8]| handshake_messages(datagram).collect::<Vec<_>>();
        assert_eq!(found(&datagram), [0x101, 0x102, 0x103]);
        for len in 0..datagram.len() {
            assert!([0x101, 0x102, 0x103].starts_with(&found(&datagram[..len])));
        }
        assert_eq!(found(&[0x2f; 40]), Vec::<u16>::new());
    }

    #[test]
    fn protected_records_are_found_behind_others() {
        let record = |epoch: u8, len: u8| {
            let mut record = vec![22, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 1, 0, len];
            record.resize(DTLS_LEN_MIN + usize::from(len), 7);
            record
        };
        let rows = [
            (record(0, 20), false),
            (record(1, 20), true),
            ([record(0, 20), record(0, 1), record(1, 40)].concat(), true),
            ([record(0, 20), record(0, 1)].concat(), false),
            // One that says that it is longer than it is, and what is too short for a header.
            ([&record(0, 20)[..13], &[1; 5]].concat(), false),
            (vec![22, 0xfe, 0xfd, 0, 0, 0], false),
            (vec![22], false),
            (vec![], false),
            // DTLS 1.3, with and without the length.
            (vec![0b0010_1110, 0, 1, 0, 9, 1, 2, 3], true),
        ];
        for (datagram, expected) in rows {
            assert_eq!(has_protected_record(&datagram), expected, "{datagram:?}");
        }
    }

    /// A datagram of `len` bytes that begins with `first`, with the STUN cookie in its place.
    fn datagram(first: u8, second: u8, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        bytes[0] = first;
        bytes[1] = second;
        if len >= 8 {
            bytes[4..8].copy_from_slice(&STUN_COOKIE);
        }
        bytes
    }

    #[test]
    fn the_first_byte_decides() {
        for first in 0..=255 {
            let expected = match first {
                0..=3 => Kind::Stun,
                20..=63 => Kind::Dtls,
                128..=191 => Kind::Rtp,
                _ => Kind::Other,
            };
            assert_eq!(classify(&datagram(first, 96, 20)), expected, "{first}");
        }
        assert_eq!(classify(&datagram(0x81, 200, 20)), Kind::Rtcp);
        assert_eq!(classify(&datagram(0x80, 200, 2)), Kind::Rtcp);
    }

    #[test]
    fn what_is_too_short_is_nothing() {
        assert_eq!(classify(&[]), Kind::Other);
        assert_eq!(classify(&[0x80]), Kind::Other);
        assert_eq!(classify(&datagram(0, 1, 19)), Kind::Other);
        assert_eq!(classify(&datagram(22, 254, 12)), Kind::Other);
        assert_eq!(classify(&datagram(22, 254, 13)), Kind::Dtls);
    }

    #[test]
    fn stun_has_its_cookie() {
        let mut bytes = datagram(0, 1, 20);
        bytes[7] ^= 1;
        assert_eq!(classify(&bytes), Kind::Other);
    }
}
