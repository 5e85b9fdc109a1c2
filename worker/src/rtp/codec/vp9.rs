//! VP9 (RFC 9628): where key frames start.

const I: u8 = 0x80;
const P: u8 = 0x40;
const L: u8 = 0x20;
const B: u8 = 0x08;
const M: u8 = 0x80;

/// Whether this packet starts a key frame: it begins a frame (B) of the lowest spatial layer that was predicted from no
/// other picture (P is 0). RFC 9628 §4.2; the same in flexible and non-flexible mode.
#[inline]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    spatial_layer_of_intra_start(payload) == Some(0)
}

/// The spatial layer of a packet with B = 1 and P = 0. Without layer indices there is one layer only.
fn spatial_layer_of_intra_start(payload: &[u8]) -> Option<u8> {
    let first = *payload.first()?;
    if first & (B | P) != B {
        return None;
    }
    let mut at = 1;
    if first & I != 0 {
        at += if payload.get(at)? & M != 0 { 2 } else { 1 };
    }
    if first & L == 0 {
        return Some(0);
    }
    // |  TID  |U|  SID  |D|
    Some(payload.get(at)? >> 1 & 0x07)
}
