//! H.264 (RFC 6184): where key frames start.

const IDR: u8 = 5;
const SPS: u8 = 7;
const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

/// Whether a key frame starts in this packet: with a sequence parameter set, or with the first slice of an IDR picture
/// where parameter sets travel out of band. Alone, anywhere in an aggregation packet, or in the first fragment.
#[inline]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    let &[indicator, ref rest @ ..] = payload else {
        return false;
    };
    match indicator & 0x1f {
        STAP_A => any_in_aggregate(rest),
        // RFC 6184 §5.7.1: STAP-B has a decoding order number (16 bits) first.
        STAP_B => rest.get(2..).is_some_and(any_in_aggregate),
        // RFC 6184 §5.8: the FU header is |S|E|R| type |, and a FU-B has the decoding order number behind it.
        fragment @ (FU_A | FU_B) => match rest {
            [header, rest @ ..] if header & 0x80 != 0 => {
                let slice = rest.get(if fragment == FU_B { 2 } else { 0 }..).unwrap_or(&[]);
                starts(header & 0x1f, slice)
            }
            _ => false,
        },
        kind => starts(kind, rest),
    }
}

/// RFC 6184 §5.7.1: each unit of an aggregation packet has its size (16 bits) in front.
fn any_in_aggregate(mut units: &[u8]) -> bool {
    while let [high, low, rest @ ..] = units {
        let Some((unit, next)) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low]))) else {
            return false;
        };
        if let [header, body @ ..] = unit
            && starts(header & 0x1f, body)
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
        SPS => true,
        // A slice begins with first_mb_in_slice, Exp-Golomb coded: a leading 1 means macroblock 0, the picture's first.
        IDR => body.first().is_some_and(|byte| byte & 0x80 != 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_of_key_frames() {
        let rows: &[(&[u8], bool)] = &[
            // Single units: SPS, PPS, SEI, IDR (first slice and another one), non-IDR.
            (&[0x67, 0x42], true),
            (&[0x67], true),
            (&[0x68, 0xce], false),
            (&[0x06, 0x05], false),
            (&[0x65, 0x88], true),
            (&[0x65, 0x07], false),
            (&[0x65], false),
            (&[0x41, 0x9a], false),
            // STAP-A: at the front, in the middle, at the end, nowhere.
            (&[0x18, 0, 2, 0x67, 0x42, 0, 1, 0x68], true),
            (&[0x18, 0, 1, 0x09, 0, 2, 0x67, 0x42, 0, 1, 0x68], true),
            (&[0x18, 0, 1, 0x06, 0, 2, 0x65, 0x88], true),
            (&[0x18, 0, 2, 0x41, 0x9a, 0, 2, 0x41, 0x9a], false),
            // An empty unit is passed over; one that is cut off ends the search.
            (&[0x18, 0, 0, 0, 2, 0x67, 0x42], true),
            (&[0x18, 0, 9, 0x67, 0x42], false),
            (&[0x18, 0, 1, 0x68, 0xff, 0xff, 0x67], false),
            (&[0x18, 0], false),
            (&[0x18], false),
            // STAP-B has two bytes more in front.
            (&[0x19, 0x67, 0x67, 0, 2, 0x67, 0x42], true),
            (&[0x19, 0, 2, 0x67, 0x42], false),
            (&[0x19, 0], false),
            // FU-A: only the first fragment, only of the first slice.
            (&[0x7c, 0x85, 0x88], true),
            (&[0x7c, 0x87, 0x42], true),
            (&[0x7c, 0x85, 0x07], false),
            (&[0x7c, 0x05, 0x88], false),
            (&[0x7c, 0x45, 0x88], false),
            (&[0x5c, 0x81, 0x88], false),
            (&[0x7c, 0x85], false),
            (&[0x7c], false),
            // FU-B.
            (&[0x7d, 0x85, 0, 1, 0x88], true),
            (&[0x7d, 0x85, 0x88, 0x88], false),
            (&[0x7d, 0x85, 0], false),
            (&[], false),
        ];
        for (payload, expected) in rows {
            assert_eq!(starts_key_frame(payload), *expected, "{payload:02x?}");
        }
    }
}
