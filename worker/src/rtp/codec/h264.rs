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
