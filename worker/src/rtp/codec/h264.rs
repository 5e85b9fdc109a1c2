//! H.264 (RFC 6184): which parts of a start a packet brings.

use super::parts::{Parts, has_recovery_point, parts_of_units};

const IDR: u8 = 5;
const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const MTAP16: u8 = 26;
const MTAP24: u8 = 27;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

/// The parts in this packet: a unit alone, all units of an aggregation packet, or the unit whose first fragment it is.
#[inline]
pub fn parts(payload: &[u8]) -> Parts {
    let &[indicator, ref rest @ ..] = payload else {
        return Parts::NONE;
    };
    match indicator & 0x1f {
        STAP_A => in_aggregate(rest, 0),
        // RFC 6184 §5.7.1, §5.7.2: the others have a decoding order number (16 bits) first. In front of each unit of a MTAP lie
        // its distance from that (8 bits) and its timestamp's (16 or 24 bits).
        STAP_B => in_aggregate(rest.get(2..).unwrap_or(&[]), 0),
        MTAP16 => in_aggregate(rest.get(2..).unwrap_or(&[]), 3),
        MTAP24 => in_aggregate(rest.get(2..).unwrap_or(&[]), 4),
        // RFC 6184 §5.8: the FU header is |S|E|R| type |, and a FU-B has the decoding order number behind it.
        fragment @ (FU_A | FU_B) => match rest {
            [header, rest @ ..] if header & 0x80 != 0 => {
                let body = rest.get(if fragment == FU_B { 2 } else { 0 }..).unwrap_or(&[]);
                part(header & 0x1f, body)
            }
            _ => Parts::NONE,
        },
        kind => part(kind, rest),
    }
}

/// The parts of an aggregation packet's units. RFC 6184 §5.7: a unit is its header and what follows.
fn in_aggregate(units: &[u8], between: usize) -> Parts {
    parts_of_units(units, between, |unit| match unit {
        [header, body @ ..] => part(header & 0x1f, body),
        [] => Parts::NONE,
    })
}

/// What a NAL unit of this type is, with this after its header.
fn part(kind: u8, body: &[u8]) -> Parts {
    match kind {
        // Slices, and the partitions of slices.
        1..=4 => Parts::OTHER,
        // A slice begins with first_mb_in_slice, Exp-Golomb coded: a leading 1 means macroblock 0, the picture's first.
        IDR if body.first().is_some_and(|byte| byte & 0x80 != 0) => Parts::PICTURE,
        SEI if has_recovery_point(body) => Parts::RECOVERY,
        SPS => Parts::SPS,
        PPS => Parts::PPS,
        _ => Parts::NONE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Parts = Parts::NONE;
    const SPS: Parts = Parts::SPS;
    const PPS: Parts = Parts::PPS;
    const PICTURE: Parts = Parts::PICTURE;
    const OTHER: Parts = Parts::OTHER;
    const RECOVERY: Parts = Parts::RECOVERY;

    #[test]
    fn parts_of_a_start() {
        let rows: &[(&[u8], Parts)] = &[
            // Single units: SPS, PPS, SEI, IDR (first slice and another one), non-IDR, data partitions, others.
            (&[0x67, 0x42], SPS),
            (&[0x67], SPS),
            (&[0x68, 0xce], PPS),
            (&[0x06, 0x05], NONE),
            (&[0x06, 0x06, 0x01, 0xc4, 0x80], RECOVERY),
            (&[0x65, 0x88], PICTURE),
            (&[0x65, 0x07], NONE),
            (&[0x65], NONE),
            (&[0x41, 0x9a], OTHER),
            (&[0x41, 0x02], OTHER),
            (&[0x42, 0x9a], OTHER),
            (&[0x44, 0x9a], OTHER),
            (&[0x09, 0x10], NONE),
            (&[0x6f, 0x42], NONE),
            (&[0x74, 0x42], NONE),
            // STAP-A: at the front, in the middle, at the end, nowhere.
            (&[0x18, 0, 2, 0x67, 0x42, 0, 1, 0x68], SPS | PPS),
            (&[0x18, 0, 1, 0x09, 0, 2, 0x67, 0x42, 0, 1, 0x68], SPS | PPS),
            (&[0x18, 0, 1, 0x06, 0, 2, 0x65, 0x88], PICTURE),
            (&[0x18, 0, 1, 0x67, 0, 1, 0x68, 0, 2, 0x65, 0x88], SPS | PPS | PICTURE),
            (&[0x18, 0, 1, 0x67, 0, 1, 0x68, 0, 2, 0x65, 0x08], SPS | PPS),
            (&[0x18, 0, 1, 0x67, 0, 1, 0x68, 0, 2, 0x41, 0x9a], SPS | PPS | OTHER),
            (&[0x18, 0, 2, 0x41, 0x9a, 0, 2, 0x41, 0x9a], OTHER),
            // An empty unit is passed over; one that is cut off ends the search.
            (&[0x18, 0, 0, 0, 2, 0x67, 0x42], SPS),
            (&[0x18, 0, 9, 0x67, 0x42], NONE),
            (&[0x18, 0, 1, 0x68, 0xff, 0xff, 0x67], PPS),
            (&[0x18, 0], NONE),
            (&[0x18], NONE),
            // STAP-B has two bytes more in front.
            (&[0x19, 0x67, 0x67, 0, 2, 0x67, 0x42], SPS),
            (&[0x19, 0, 2, 0x67, 0x42], NONE),
            (&[0x19, 0], NONE),
            // MTAPs have three or four more between size and unit.
            (
                &[0x1a, 0, 1, 0, 1, 9, 9, 9, 0x67, 0, 2, 9, 9, 9, 0x65, 0x88],
                SPS | PICTURE,
            ),
            (
                &[0x1b, 0, 1, 0, 1, 9, 9, 9, 9, 0x68, 0, 1, 9, 9, 9, 9, 0x41],
                PPS | OTHER,
            ),
            (&[0x1a, 0, 1, 0, 1, 9, 9], NONE),
            (&[0x1a, 0], NONE),
            // FU-A: only the first fragment, only of the first slice.
            (&[0x7c, 0x85, 0x88], PICTURE),
            (&[0x7c, 0x87, 0x42], SPS),
            (&[0x7c, 0x88, 0x42], PPS),
            (&[0x7c, 0x85, 0x07], NONE),
            (&[0x7c, 0x05, 0x88], NONE),
            (&[0x7c, 0x45, 0x88], NONE),
            (&[0x5c, 0x81, 0x88], OTHER),
            (&[0x5c, 0x01, 0x88], NONE),
            (&[0x7c, 0x85], NONE),
            (&[0x7c], NONE),
            // FU-B.
            (&[0x7d, 0x85, 0, 1, 0x88], PICTURE),
            (&[0x7d, 0x85, 0x88, 0x88], NONE),
            (&[0x7d, 0x85, 0], NONE),
            (&[], NONE),
        ];
        for (payload, expected) in rows {
            assert_eq!(parts(payload), *expected, "{payload:02x?}");
        }
    }
}
