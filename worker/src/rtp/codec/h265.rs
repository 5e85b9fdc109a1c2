//! H.265 (RFC 7798): where key frames start.
//!
//! Streams with decoding order numbers (`sprop-max-don-diff` above 0) and PACI packets are not looked into.

/// Pictures that a decoder can start at (IRAP): BLA, IDR and CRA.
const IRAP: std::ops::RangeInclusive<u8> = 16..=21;
const VPS: u8 = 32;
const SPS: u8 = 33;
const AGGREGATION: u8 = 48;
const FRAGMENTATION: u8 = 49;

/// Whether a key frame starts in this packet: with a video or sequence parameter set, or with the first slice of an IRAP
/// picture. Alone, anywhere in an aggregation packet, or in the first fragment.
#[inline]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    let &[first, _, ref rest @ ..] = payload else {
        return false;
    };
    match kind_of(first) {
        AGGREGATION => any_in_aggregate(rest),
        // RFC 7798 §4.4.3: the FU header is |S|E| type |.
        FRAGMENTATION => match rest {
            [header, slice @ ..] if header & 0x80 != 0 => starts(header & 0x3f, slice),
            _ => false,
        },
        kind => starts(kind, rest),
    }
}

/// RFC 7798 §1.1.4: the NAL unit header is |F| type (6) | layer id (6) | temporal id (3)|.
fn kind_of(first: u8) -> u8 {
    first >> 1 & 0x3f
}

/// RFC 7798 §4.4.2: each unit of an aggregation packet has its size (16 bits) in front.
fn any_in_aggregate(mut units: &[u8]) -> bool {
    while let [high, low, rest @ ..] = units {
        let Some((unit, next)) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))) else {
            return false;
        };
        if let [first, _, body @ ..] = unit
            && starts(kind_of(*first), body)
        {
            return true;
        }
        units = next;
    }
    false
}

/// Whether a NAL unit of this type, with this after its header, starts a key frame.
fn starts(kind: u8, body: &[u8]) -> bool {
    match kind {
        VPS | SPS => true,
        // A slice segment begins with first_slice_segment_in_pic_flag.
        kind if IRAP.contains(&kind) => body.first().is_some_and(|byte| byte & 0x80 != 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_of_key_frames() {
        let rows: &[(&[u8], bool)] = &[
            // Single units: VPS, SPS, PPS, SEI, then every slice type around the IRAP range, first slice and another.
            (&[0x40, 1, 0x0c], true),
            (&[0x42, 1], true),
            (&[0x44, 1, 0xc0], false),
            (&[0x4e, 1, 0x80], false),
            (&[15 << 1, 1, 0x80], false),
            (&[16 << 1, 1, 0x80], true),
            (&[19 << 1, 1, 0x80], true),
            (&[20 << 1, 1, 0xa0], true),
            (&[21 << 1, 1, 0x80], true),
            (&[21 << 1, 1, 0x7f], false),
            (&[21 << 1, 1], false),
            (&[22 << 1, 1, 0x80], false),
            (&[0x02, 1, 0x80], false),
            // AP: at the front, at the end, nowhere; an empty unit; cut off.
            (&[0x60, 1, 0, 2, 0x40, 1, 0, 2, 0x42, 1], true),
            (&[0x60, 1, 0, 3, 0x4e, 1, 0x80, 0, 3, 0x26, 1, 0x80], true),
            (&[0x60, 1, 0, 3, 0x02, 1, 0x80, 0, 3, 0x02, 1, 0x80], false),
            (&[0x60, 1, 0, 0, 0, 1, 0x40, 0, 2, 0x40, 1], true),
            (&[0x60, 1, 0, 9, 0x40, 1], false),
            (&[0x60, 1, 0], false),
            (&[0x60, 1], false),
            // FU: only the first fragment, only of the first slice.
            (&[0x62, 1, 0x80 | 19, 0x80], true),
            (&[0x62, 1, 0x80 | 33, 0x01], true),
            (&[0x62, 1, 0x80 | 19, 0x40], false),
            (&[0x62, 1, 19, 0x80], false),
            (&[0x62, 1, 0x40 | 19, 0x80], false),
            (&[0x62, 1, 0x80 | 1, 0x80], false),
            (&[0x62, 1, 0x80 | 19], false),
            (&[0x62, 1], false),
            (&[0x40], false),
            (&[], false),
        ];
        for (payload, expected) in rows {
            assert_eq!(starts_key_frame(payload), *expected, "{payload:02x?}");
        }
    }
}
