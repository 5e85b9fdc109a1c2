//! What a decoder needs to start a picture, and which of it a packet brings.

use std::ops::{BitOr, BitOrAssign};

/// A set of the parts that a start is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parts(u8);

impl Parts {
    /// Nothing that matters for a start: the middle of a picture, or sound.
    pub const NONE: Self = Self(0);
    /// A video parameter set (H.265 alone).
    pub const VPS: Self = Self(1);
    /// A sequence parameter set.
    pub const SPS: Self = Self(1 << 1);
    /// A picture parameter set.
    pub const PPS: Self = Self(1 << 2);
    /// The beginning of a picture that a decoder can start at: the first slice of an IDR picture (H.264) or IRAP picture
    /// (H.265), the first packet of a key frame (VP8, VP9, AV1).
    pub const PICTURE: Self = Self(1 << 3);
    /// The beginning of a slice that is not of such a picture: parameter sets that came before it were not for a start,
    /// unless [`Parts::RECOVERY`] says so.
    pub const OTHER: Self = Self(1 << 4);
    /// A recovery point (a SEI message of H.264 §D.2.8 and H.265 §D.3.8): the picture that follows is no IDR or IRAP picture,
    /// but a decoder can start at it all the same. Encoders that refresh their pictures bit by bit have nothing better.
    pub const RECOVERY: Self = Self(1 << 5);

    /// The parameter sets of all codecs.
    pub const SETS: Self = Self(Self::VPS.0 | Self::SPS.0 | Self::PPS.0);

    /// Whether all of `others` are in it.
    #[inline]
    pub const fn contains(self, others: Self) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether any of `others` is in it.
    #[inline]
    pub const fn intersects(self, others: Self) -> bool {
        self.0 & others.0 != 0
    }

    /// What is in it and in `others`.
    #[inline]
    pub const fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    /// What is in it but not in `others`.
    #[inline]
    pub const fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    /// Whether nothing is in it.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Parts {
    type Output = Self;

    #[inline]
    fn bitor(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl BitOrAssign for Parts {
    #[inline]
    fn bitor_assign(&mut self, others: Self) {
        self.0 |= others.0;
    }
}

/// The SEI payload type of a recovery point, the same in H.264 and H.265.
const RECOVERY_POINT: u32 = 6;

/// Whether a SEI unit, given without its NAL unit header, has a recovery point among its messages (H.264 §7.3.2.3.1, H.265
/// §7.3.5). Each message is its type, its size, and its payload; numbers of 255 and more go on in the next byte. Read
/// without regard for emulation prevention bytes: they can hide only what comes after a payload with zeros in it.
pub(super) fn has_recovery_point(mut messages: &[u8]) -> bool {
    // The last byte is rbsp_trailing_bits, never a message.
    while messages.len() > 1 {
        let (kind, rest) = ff_coded(messages);
        let (size, rest) = ff_coded(rest);
        if kind == RECOVERY_POINT {
            return true;
        }
        messages = rest.get(size as usize..).unwrap_or(&[]);
    }
    false
}

/// The parts of the units of an aggregation packet, each as `part` says. In front of each unit is its size (16 bits, of the
/// unit alone), and `between` bytes between the two. A unit that is cut off brings nothing.
pub(super) fn parts_of_units(mut units: &[u8], between: usize, part: impl Fn(&[u8]) -> Parts) -> Parts {
    let mut parts = Parts::NONE;
    while let [high, low, rest @ ..] = units {
        let size = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((unit, next)) = rest.get(between..).and_then(|rest| rest.split_at_checked(size)) else {
            break;
        };
        parts |= part(unit);
        units = next;
    }
    parts
}

/// A number that goes on as long as its bytes are 255, and what follows it.
fn ff_coded(bytes: &[u8]) -> (u32, &[u8]) {
    let ones = bytes.iter().take_while(|byte| **byte == 0xff).count();
    let (ones, rest) = bytes.split_at(ones);
    let (last, rest) = rest.split_first().unwrap_or((&0, &[]));
    (ones.len() as u32 * 255 + u32::from(*last), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets() {
        let both = Parts::SPS | Parts::PICTURE;
        assert!(both.contains(Parts::SPS) && both.contains(both) && both.contains(Parts::NONE));
        assert!(!both.contains(Parts::SPS | Parts::PPS));
        assert!(both.intersects(Parts::SPS | Parts::PPS) && !both.intersects(Parts::PPS));
        assert!(!both.intersects(Parts::NONE) && !both.is_empty() && Parts::NONE.is_empty());
        assert_eq!(both.without(Parts::SETS), Parts::PICTURE);
        assert_eq!(Parts::SETS, Parts::VPS | Parts::SPS | Parts::PPS);
    }

    #[test]
    fn recovery_points() {
        let rows: &[(&[u8], bool)] = &[
            (&[6, 1, 0xc4, 0x80], true),
            (&[5, 2, 0xff, 0xff, 6, 1, 0xc4, 0x80], true),
            (&[0xff, 0x01, 0, 6, 1, 0xc4, 0x80], true),
            (&[5, 1, 6, 0x80], false),
            (&[0xff, 6, 1, 0xc4, 0x80], false),
            // A size beyond the end, and nothing at all.
            (&[5, 0xff, 0xff, 9, 6, 1, 0xc4, 0x80], false),
            (&[0xff, 0xff, 0xff], false),
            (&[0x80], false),
            (&[], false),
        ];
        for (messages, expected) in rows {
            assert_eq!(has_recovery_point(messages), *expected, "{messages:02x?}");
        }
    }
}
