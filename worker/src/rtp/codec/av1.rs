//! AV1 (the RTP payload format of the Alliance for Open Media): where key frames start.

const Z: u8 = 0x80;
const N: u8 = 0x08;

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;

/// Whether this packet is the first of a coded video sequence, which starts with a key frame. Its aggregation header
/// (§4.4) says so with N; its first OBU is then a sequence header, or a temporal delimiter from a sender that did not
/// remove it (§5).
#[inline]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    let &[aggregation, ref elements @ ..] = payload else {
        return false;
    };
    // |Z|Y| W |N|-|-|-|: Z continues an OBU of the packet before, W is the number of elements if not 0.
    if aggregation & (N | Z) != N {
        return false;
    }
    // The last of W elements has no size in front; all others have.
    let first = if aggregation >> 4 & 0x03 == 1 {
        elements
    } else {
        skip_leb128(elements)
    };
    // |forbidden| type (4) |extension|has size|reserved|
    let kind = first.first().map(|header| header >> 3 & 0x0f);
    matches!(kind, Some(SEQUENCE_HEADER | TEMPORAL_DELIMITER))
}

/// What follows a LEB128 number, which has at most eight bytes.
fn skip_leb128(bytes: &[u8]) -> &[u8] {
    let last = bytes.iter().take(8).position(|byte| byte & 0x80 == 0);
    last.and_then(|last| bytes.get(last + 1..)).unwrap_or(&[])
}

/// Whether a dependency descriptor (the header extension of appendix A) brings a template structure, as the first packet
/// of a key frame does. For payloads that cannot be looked into.
#[inline]
pub fn brings_structure(descriptor: &[u8]) -> bool {
    // |start of frame|end of frame| template id (6)| frame number (16)| then, optionally, |structure present|...
    matches!(descriptor, [first, _, _, flags, ..] if first & flags & 0x80 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_of_key_frames() {
        let rows: &[(&[u8], bool)] = &[
            // One element, without a size.
            (&[0x18, 0x08, 0x00], true),
            (&[0x18, 0x0a, 0x00], true),
            (&[0x18, 0x12, 0x00], true),
            (&[0x18, 0x30, 0x00], false),
            (&[0x58, 0x08], true),
            // Several, or an unknown number: the first has its size in front.
            (&[0x28, 0x02, 0x08, 0x00, 0x30], true),
            (&[0x28, 0x08, 0x30], false),
            (&[0x08, 0x02, 0x08, 0x00], true),
            (&[0x08, 0x82, 0x00, 0x08], true),
            (&[0x38, 0x81, 0x80, 0x80, 0x00, 0x0c], true),
            // N is missing, or Z contradicts it.
            (&[0x10, 0x08, 0x00], false),
            (&[0x98, 0x08, 0x00], false),
            // Cut off, and a size without end.
            (&[], false),
            (&[0x18], false),
            (&[0x08], false),
            (&[0x08, 0x02], false),
            (&[0x08, 0x80, 0x80], false),
            (
                &[0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01, 0x08],
                false,
            ),
        ];
        for (payload, expected) in rows {
            assert_eq!(starts_key_frame(payload), *expected, "{payload:02x?}");
        }
    }

    #[test]
    fn descriptors_with_a_structure() {
        let rows: &[(&[u8], bool)] = &[
            (&[0x80, 0, 1, 0x80], true),
            (&[0xc0, 0, 1, 0xc0, 0x12], true),
            (&[0x80, 0, 1, 0x40], false),
            (&[0x00, 0, 1, 0x80], false),
            (&[0x80, 0, 1], false),
            (&[], false),
        ];
        for (descriptor, expected) in rows {
            assert_eq!(brings_structure(descriptor), *expected, "{descriptor:02x?}");
        }
    }
}
