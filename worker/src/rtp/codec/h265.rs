//! H.265 (RFC 7798): which parts of a start a packet brings.
//!
//! Streams with decoding order numbers (`sprop-max-don-diff` above 0) and PACI packets are not looked into.

use super::parts::{Parts, has_recovery_point, parts_of_units};

/// Slices of pictures that a decoder cannot start at, and what is reserved for more of them.
const NON_IRAP: std::ops::RangeInclusive<u8> = 0..=15;
/// Pictures that a decoder can start at (IRAP): BLA, IDR and CRA.
const IRAP: std::ops::RangeInclusive<u8> = 16..=21;
const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const PREFIX_SEI: u8 = 39;
const AGGREGATION: u8 = 48;
const FRAGMENTATION: u8 = 49;

/// The parts in this packet: a unit alone, all units of an aggregation packet, or the unit whose first fragment it is.
#[inline]
pub fn parts(payload: &[u8]) -> Parts {
    let &[first, _, ref rest @ ..] = payload else {
        return Parts::NONE;
    };
    match kind_of(first) {
        // RFC 7798 §4.4.2.
        AGGREGATION => parts_of_units(rest, 0, |unit| match unit {
            [first, _, body @ ..] => part(kind_of(*first), body),
            _ => Parts::NONE,
        }),
        // RFC 7798 §4.4.3: the FU header is |S|E| type |.
        FRAGMENTATION => match rest {
            [header, body @ ..] if header & 0x80 != 0 => part(header & 0x3f, body),
            _ => Parts::NONE,
        },
        kind => part(kind, rest),
    }
}

/// RFC 7798 §1.1.4: the NAL unit header is |F| type (6) | layer id (6) | temporal id (3)|.
fn kind_of(first: u8) -> u8 {
    first >> 1 & 0x3f
}

/// What a NAL unit of this type is, with this after its header.
fn part(kind: u8, body: &[u8]) -> Parts {
    match kind {
        VPS => Parts::VPS,
        SPS => Parts::SPS,
        PPS => Parts::PPS,
        PREFIX_SEI if has_recovery_point(body) => Parts::RECOVERY,
        kind if NON_IRAP.contains(&kind) => Parts::OTHER,
        // A slice segment begins with first_slice_segment_in_pic_flag.
        kind if IRAP.contains(&kind) && body.first().is_some_and(|byte| byte & 0x80 != 0) => Parts::PICTURE,
        _ => Parts::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Parts = Parts::NONE;
    const VPS: Parts = Parts::VPS;
    const SPS: Parts = Parts::SPS;
    const PPS: Parts = Parts::PPS;
    const PICTURE: Parts = Parts::PICTURE;
    const OTHER: Parts = Parts::OTHER;
    const RECOVERY: Parts = Parts::RECOVERY;

    #[test]
    fn parts_of_a_start() {
        let rows: &[(&[u8], Parts)] = &[
            // Single units: VPS, SPS, PPS, SEI, then every slice type around the IRAP range, first slice and another.
            (&[0x40, 1, 0x0c], VPS),
            (&[0x42, 1], SPS),
            (&[0x44, 1, 0xc0], PPS),
            (&[0x4e, 1, 0x80], NONE),
            (&[0x4e, 1, 0x06, 0x01, 0xd0, 0x80], RECOVERY),
            (&[15 << 1, 1, 0x80], OTHER),
            (&[16 << 1, 1, 0x80], PICTURE),
            (&[19 << 1, 1, 0x80], PICTURE),
            (&[20 << 1, 1, 0xa0], PICTURE),
            (&[21 << 1, 1, 0x80], PICTURE),
            (&[21 << 1, 1, 0x7f], NONE),
            (&[21 << 1, 1], NONE),
            (&[22 << 1, 1, 0x80], NONE),
            (&[0x00, 1, 0x80], OTHER),
            (&[0x02, 1, 0x80], OTHER),
            (&[0x46, 1, 0x80], NONE),
            // AP: at the front, at the end, all of it, nowhere; an empty unit; cut off.
            (&[0x60, 1, 0, 2, 0x40, 1, 0, 2, 0x42, 1], VPS | SPS),
            (&[0x60, 1, 0, 3, 0x4e, 1, 0x80, 0, 3, 0x26, 1, 0x80], PICTURE),
            (
                &[
                    0x60, 1, 0, 2, 0x40, 1, 0, 2, 0x42, 1, 0, 2, 0x44, 1, 0, 3, 0x26, 1, 0x80,
                ],
                VPS | SPS | PPS | PICTURE,
            ),
            (&[0x60, 1, 0, 3, 0x02, 1, 0x80, 0, 3, 0x02, 1, 0x80], OTHER),
            (&[0x60, 1, 0, 0, 0, 1, 0x40, 0, 2, 0x40, 1], VPS),
            (&[0x60, 1, 0, 9, 0x40, 1], NONE),
            (&[0x60, 1, 0], NONE),
            (&[0x60, 1], NONE),
            // FU: only the first fragment, only of the first slice.
            (&[0x62, 1, 0x80 | 19, 0x80], PICTURE),
            (&[0x62, 1, 0x80 | 33, 0x01], SPS),
            (&[0x62, 1, 0x80 | 34, 0x01], PPS),
            (&[0x62, 1, 0x80 | 19, 0x40], NONE),
            (&[0x62, 1, 19, 0x80], NONE),
            (&[0x62, 1, 0x40 | 19, 0x80], NONE),
            (&[0x62, 1, 0x80 | 1, 0x80], OTHER),
            (&[0x62, 1, 1, 0x80], NONE),
            (&[0x62, 1, 0x80 | 19], NONE),
            (&[0x62, 1], NONE),
            (&[0x40], NONE),
            (&[], NONE),
        ];
        for (payload, expected) in rows {
            assert_eq!(parts(payload), *expected, "{payload:02x?}");
        }
    }
}
