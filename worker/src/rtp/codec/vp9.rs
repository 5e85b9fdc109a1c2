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
//!      |   TL0PICIDX   |  L and not F
//!      +-+-+-+-+-+-+-+-+
//! P,F: | P_DIFF      |N|  P and F: up to three
//!      +-+-+-+-+-+-+-+-+
//! V:   | N_S |Y|G|-|-|-|  then, with Y, N_S + 1 times width and height (16 bits each);
//!      +-+-+-+-+-+-+-+-+  with G, N_G (8 bits), and N_G times |TID|U| R |-|-| and R times P_DIFF
//! ```

const I: u8 = 0x80;
const P: u8 = 0x40;
const L: u8 = 0x20;
const F: u8 = 0x10;
const B: u8 = 0x08;
const V: u8 = 0x02;
const M: u8 = 0x80;
const Y: u8 = 0x10;
const G: u8 = 0x08;

/// Whether this packet starts a key frame: it begins a frame (B) of the lowest spatial layer that was predicted from no
/// other picture (P is 0; RFC 9628 §4.2, the same in flexible and non-flexible mode), and the frame's own header does not
/// say otherwise. Some packetizers never set P, so that every frame of theirs looks like a key frame by its descriptor.
///
/// A frame that is encrypted from end to end (RFC 9605) has no header to be read, and its sender's descriptors are all
/// there is; vetoes are only for what can be a VP9 frame. Behind a bare descriptor, with nothing but B and E in it, only the
/// header counts: who encrypts frames for a relay writes more than that.
#[inline]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    let &[first, ref rest @ ..] = payload else {
        return false;
    };
    if first & (B | P) != B {
        return false;
    }
    let Some(frame) = frame(first, rest) else {
        return false;
    };
    match Frame::read(frame) {
        Frame::Key => true,
        Frame::Other | Frame::CutOff => false,
        Frame::Unreadable => first & (I | L | F | V) != 0,
    }
}

/// What the descriptor that begins with `first` describes, if that is of the lowest spatial layer. Without layer indices
/// there is one layer only.
fn frame(first: u8, mut rest: &[u8]) -> Option<&[u8]> {
    if first & I != 0 {
        let len = if rest.first()? & M != 0 { 2 } else { 1 };
        rest = rest.get(len..)?;
    }
    if first & L != 0 {
        if rest.first()? >> 1 & 0x07 != 0 {
            return None;
        }
        rest = rest.get(if first & F == 0 { 2 } else { 1 }..)?;
    }
    // There are no references to other pictures, because P is 0.
    if first & V != 0 {
        rest = skip_structure(rest)?;
    }
    Some(rest)
}

/// What follows a scalability structure (RFC 9628 §4.2.1).
fn skip_structure(structure: &[u8]) -> Option<&[u8]> {
    let (&first, mut rest) = structure.split_first()?;
    if first & Y != 0 {
        let layers = usize::from(first >> 5) + 1;
        rest = rest.get(4 * layers..)?;
    }
    if first & G != 0 {
        let (&pictures, mut described) = rest.split_first()?;
        for _ in 0..pictures {
            let references = usize::from(described.first()? >> 2 & 0x03);
            described = described.get(1 + references..)?;
        }
        rest = described;
    }
    Some(rest)
}

/// What the beginning of a frame says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Frame {
    Key,
    Other,
    /// There is nothing of it.
    CutOff,
    /// This is no VP9.
    Unreadable,
}

impl Frame {
    /// VP9 bitstream specification §6.2, uncompressed_header: marker 2 (2 bits), profile (low bit first, and a reserved 0
    /// after profile 3), show_existing_frame, frame_type, of which 0 is a key frame.
    fn read(frame: &[u8]) -> Self {
        let Some(&header) = frame.first() else {
            return Self::CutOff;
        };
        let (reserved, show_existing, not_key) = if header & 0x30 == 0x30 {
            (0x08, 0x04, 0x02)
        } else {
            (0, 0x08, 0x04)
        };
        if header & 0xc0 != 0x80 || header & reserved != 0 {
            Self::Unreadable
        } else if header & show_existing != 0 {
            // Which one it shows is all there is, in the same byte or the next. Counters of encrypted frames (RFC 9605
            // §4.3) can look like this, but much follows them.
            if frame.len() <= 2 {
                Self::Other
            } else {
                Self::Unreadable
            }
        } else if header & not_key != 0 {
            Self::Other
        } else {
            // Its sync code would distinguish it from chance, but then the descriptor says the same.
            Self::Key
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first bytes of frames of profile 0.
    const KEY: u8 = 0x82;
    const INTER: u8 = 0x86;

    #[test]
    fn starts_of_key_frames() {
        let rows: &[(&[u8], bool)] = &[
            // Flexible mode, with and without picture id and layers.
            (&[0x98, 0x05, KEY], true),
            (&[0x98, 0x85, 0x01, KEY], true),
            (&[0xb8, 0x05, 0x00, KEY], true),
            (&[0xb8, 0x85, 0x01, 0x10, KEY], true),
            (&[0xb8, 0x05, 0x02, KEY], false),
            (&[0xb8, 0x85, 0x01, 0xe6, KEY], false),
            (&[0x18, KEY], true),
            // Non-flexible mode: TL0PICIDX behind the layers.
            (&[0xa8, 0x05, 0x00, 0x07, KEY], true),
            (&[0xa8, 0x05, 0x04, 0x07, KEY], false),
            (&[0x88, 0x05, KEY], true),
            // Predicted, or not the beginning.
            (&[0xf8, 0x05, 0x00, 0x02, KEY], false),
            (&[0xe8, 0x05, 0x00, 0x07, KEY], false),
            (&[0xb0, 0x05, 0x00, KEY], false),
            (&[0x48, KEY], false),
            (&[0x00, KEY], false),
            // Cut off, up to and including the frame's first byte.
            (&[], false),
            (&[0x08], false),
            (&[0x88], false),
            (&[0x88, 0x05], false),
            (&[0x88, 0x85], false),
            (&[0x88, 0x85, 0x01], false),
            (&[0xa8], false),
            (&[0xa8, 0x05], false),
            (&[0xa8, 0x05, 0x00], false),
            (&[0xa8, 0x05, 0x00, 0x07], false),
            (&[0xb8, 0x05, 0x00], false),
            (&[0x0a], false),
        ];
        for (payload, expected) in rows {
            assert_eq!(starts_key_frame(payload), *expected, "{payload:02x?}");
        }
    }

    /// Senders that never set P: the frame decides, wherever the descriptor ends (RFC 9628 §4.2).
    #[test]
    fn behind_any_descriptor_the_frame_decides() {
        let structures: &[&[u8]] = &[
            // Nothing; three layers with sizes; two pictures with one reference and three; both; pictures without references.
            &[0x00],
            &[0x40],
            &[0x50, 1, 64, 0, 180, 2, 128, 1, 104, 5, 0, 2, 208],
            &[0x08, 2, 0x04, 1, 0x2c, 1, 2, 3],
            &[0x18, 1, 64, 0, 180, 1, 0x04, 1],
            &[0x08, 0],
            &[0x08, 3, 0x00, 0x10, 0x20],
        ];
        let mut descriptors: Vec<Vec<u8>> = vec![
            vec![0x08],
            vec![0x0d],
            vec![0x88, 0x05],
            vec![0x98, 0x85, 0x01],
            vec![0xa8, 0x85, 0x01, 0x00, 0x07],
            vec![0xb8, 0x05, 0x20],
            vec![0x28, 0x00, 0x86],
            vec![0x38, 0x10],
        ];
        for structure in structures {
            for head in [
                &[0x0a][..],
                &[0x8a, 0x05],
                &[0xaa, 0x85, 0x01, 0x00, 0x07],
                &[0x3a, 0x00],
            ] {
                descriptors.push([head, structure].concat());
            }
        }
        for descriptor in &descriptors {
            let with = |frame: &[u8]| starts_key_frame(&[descriptor, frame].concat());
            assert!(with(&[KEY, 0x49, 0x83, 0x42]), "{descriptor:02x?}");
            assert!(!with(&[INTER, 0x00, 0x40, 0x92]), "{descriptor:02x?}");
            for len in 0..=descriptor.len() {
                assert!(!starts_key_frame(&descriptor[..len]), "{descriptor:02x?} cut at {len}");
            }
        }
    }

    #[test]
    fn first_bytes_of_frames() {
        // marker, profile (low bit first), show_existing_frame, frame_type.
        let rows = [
            (0b1000_0000, Frame::Key),
            (0b1000_0011, Frame::Key),
            (0b1000_0100, Frame::Other),
            (0b1000_1000, Frame::Other),
            (0b1010_0010, Frame::Key),
            (0b1001_0110, Frame::Other),
            (0b1011_0001, Frame::Key),
            (0b1011_0010, Frame::Other),
            (0b1011_0100, Frame::Other),
            (0b1011_1000, Frame::Unreadable),
            (0b0100_0000, Frame::Unreadable),
            (0b1100_0000, Frame::Unreadable),
        ];
        for (header, expected) in rows {
            assert_eq!(Frame::read(&[header]), expected, "{header:08b}");
            assert_eq!(Frame::read(&[header, 0xff]), expected, "{header:08b}");
            for descriptor in [0x08, 0x0d] {
                let is_key = expected == Frame::Key;
                assert_eq!(starts_key_frame(&[descriptor, header]), is_key, "{header:08b}");
                assert_eq!(starts_key_frame(&[descriptor, header, 0xff]), is_key, "{header:08b}");
            }
        }
        assert_eq!(Frame::read(&[]), Frame::CutOff);
    }

    /// What cannot be a VP9 frame is encrypted from end to end; then the descriptor is believed.
    #[test]
    fn encrypted_frames_start_where_the_descriptor_says() {
        // RFC 9605 §4.3: |X|  K  |Y|  C  |, with a key id in it or, X set, behind it, then the counter.
        for config in [0x00, 0x1b, 0x48, 0x7f, 0x80, 0x88, 0x8f, 0x98, 0xb8, 0xc0, 0xff] {
            let key = [0x98, 0x85, 0x01, config, 0x11, 0x22, 0x33];
            assert!(starts_key_frame(&key), "{config:02x}");
            let predicted = [0xd8, 0x85, 0x01, 0x02, config, 0x11, 0x22, 0x33];
            assert!(!starts_key_frame(&predicted), "{config:02x}");
        }
    }
}
