//! What a datagram on a WebRTC transport is, told by its first bytes (RFC 7983 §7).

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

#[cfg(test)]
mod tests {
    use super::*;

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
