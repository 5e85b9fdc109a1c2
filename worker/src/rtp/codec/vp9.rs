//! VP9 (RFC 9628): where key frames start.
//!
//! ```text
//!       0 1 2 3 4 5 6 7
//!      +-+-+-+-+-+-+-+-+
//!      |I|P|L|F|B|E|V|Z|
//!      +-+-+-+-+-+-+-+-+
//! I:   |M| PICTURE ID  |  M: 15 bits, in two bytes
//!      +-+-+-+-+-+-+-+-+
//! L:   | TID |U| SID |D|
//!      +-+-+-+-+-+-+-+-+
//! ```

const I: u8 = 0x80;
const P: u8 = 0x40;
const L: u8 = 0x20;
const F: u8 = 0x10;
const B: u8 = 0x08;
const V: u8 = 0x02;
const M: u8 = 0x80;

/// Whether this packet starts a key frame: it begins a frame (B) of the lowest spatial layer that was predicted from no
/// other picture (P is 0). RFC 9628 §4.2; the same in flexible and non-flexible mode.
///
/// Some packetizers (FFmpeg 5.1 is one) write nothing but B and E, so that every frame of theirs looks like that. Behind
/// such a bare descriptor the frame's own header decides.
#[inline]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    let &[first, ref rest @ ..] = payload else {
        return false;
    };
    if first & (B | P) != B {
        return false;
    }
    if first & (I | L | F | V) == 0 {
        return rest.first().is_some_and(|&header| is_key_frame_header(header));
    }
    spatial_layer(first, rest) == Some(0)
}

/// The spatial layer. Without layer indices there is one layer only.
fn spatial_layer(first: u8, rest: &[u8]) -> Option<u8> {
    let mut at = 0;
    if first & I != 0 {
        at = if rest.first()? & M != 0 { 2 } else { 1 };
    }
    if first & L == 0 {
        return Some(0);
    }
    Some(rest.get(at)? >> 1 & 0x07)
}

/// The first byte of a frame (VP9 bitstream specification §6.2, uncompressed_header): marker 2 (2 bits), profile
/// (low bit first, and a reserved 0 after profile 3), show_existing_frame, frame_type, of which 0 is a key frame.
fn is_key_frame_header(header: u8) -> bool {
    if header & 0x30 == 0x30 {
        header & 0xce == 0x80
    } else {
        header & 0xcc == 0x80
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_of_key_frames() {
        let rows: &[(&[u8], bool)] = &[
            // Flexible mode, with and without picture id and layers.
            (&[0x98, 0x05, 0xff], true),
            (&[0x98, 0x85, 0x01, 0xff], true),
            (&[0xb8, 0x05, 0x00], true),
            (&[0xb8, 0x85, 0x01, 0x10], true),
            (&[0xb8, 0x05, 0x02], false),
            (&[0xb8, 0x85, 0x01, 0xe6], false),
            // Non-flexible mode: TL0PICIDX behind the layers, and a scalability structure.
            (&[0xa8, 0x05, 0x00, 0x07], true),
            (&[0xaa, 0x05, 0x00, 0x07, 0x18], true),
            (&[0xa8, 0x05, 0x04, 0x07], false),
            (&[0x2a, 0x11, 0x00, 0x18], true),
            (&[0x0a, 0x18, 0x00], true),
            // Predicted, or not the beginning.
            (&[0xf8, 0x05, 0x00, 0x02], false),
            (&[0xe8, 0x05, 0x00, 0x07], false),
            (&[0xb0, 0x05, 0x00], false),
            (&[0x48, 0x82], false),
            (&[0x00, 0x82], false),
            // Cut off.
            (&[], false),
            (&[0x08], false),
            (&[0xa8], false),
            (&[0xa8, 0x05], false),
            (&[0xa8, 0x85, 0x01], false),
        ];
        for (payload, expected) in rows {
            assert_eq!(starts_key_frame(payload), *expected, "{payload:02x?}");
        }
    }

    #[test]
    fn behind_a_bare_descriptor_the_frame_decides() {
        // marker, profile (low bit first), show_existing_frame, frame_type.
        let rows = [
            (0b1000_0000, true),
            (0b1000_0011, true),
            (0b1000_0100, false),
            (0b1000_1000, false),
            (0b1010_0010, true),
            (0b1001_0110, false),
            (0b1011_0001, true),
            (0b1011_0010, false),
            (0b1011_0100, false),
            (0b1011_1000, false),
            (0b0100_0000, false),
            (0b1100_0000, false),
        ];
        for (header, expected) in rows {
            assert_eq!(starts_key_frame(&[0x08, header]), expected, "{header:08b}");
            assert_eq!(starts_key_frame(&[0x0d, header, 0xff]), expected, "{header:08b}");
        }
    }
}
