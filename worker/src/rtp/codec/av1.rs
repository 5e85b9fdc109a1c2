//! AV1 (the RTP payload format of the Alliance for Open Media): where key frames start.

const Z: u8 = 0x80;
const N: u8 = 0x08;

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const TILE_GROUP: u8 = 4;
const FRAME: u8 = 6;
const REDUNDANT_FRAME_HEADER: u8 = 7;

/// So many OBUs are looked at. A key frame begins with a temporal delimiter at most, a sequence header, some metadata.
const OBUS_MAX: usize = 16;

/// Whether this packet is the first of a coded video sequence, which starts with a sequence header and a key frame (AV1
/// bitstream specification §7.5).
///
/// Its aggregation header (§4.4) says so with N; but N alone is not believed, because a decoder can do nothing without the
/// sequence header: if the packet has a frame before one, or none, it is no start. A temporal delimiter from a sender that did
/// not remove it (§5) may go first, and if it is alone, the sequence header is still to come. A sender that never says N is
/// believed if the packet has both, a sequence header and the beginning of a key frame. What is behind the frame's first
/// bits is not looked at, nor are these if N is there: senders may encrypt frames from end to end and leave OBU headers readable.
#[inline]
pub fn starts_key_frame(payload: &[u8]) -> bool {
    let &[aggregation, ref elements @ ..] = payload else {
        return false;
    };
    // |Z|Y| W |N|-|-|-|: Z continues an OBU of the packet before, W is the number of elements if not 0.
    if aggregation & Z != 0 {
        return false;
    }
    let new_sequence = aggregation & N != 0;
    let count = usize::from(aggregation >> 4 & 0x03);
    let mut obus = Elements { count, rest: elements };
    let (mut delimiter, mut sequence_header) = (false, None);
    for obu in obus.by_ref().take(OBUS_MAX) {
        let Some((kind, body)) = split_obu(obu) else { continue };
        match kind {
            TEMPORAL_DELIMITER => delimiter = true,
            SEQUENCE_HEADER if new_sequence => return true,
            SEQUENCE_HEADER => sequence_header = Some(body),
            FRAME | FRAME_HEADER => return sequence_header.is_some_and(|header| is_key_frame(header, body)),
            TILE_GROUP | REDUNDANT_FRAME_HEADER => return false,
            _ => {}
        }
    }
    new_sequence && delimiter
}

/// Whether a key frame begins like this (AV1 bitstream specification §5.9.2): |show_existing_frame| frame_type (2)|, where 0
/// is a key frame; but a reduced header (§5.5.1: | seq_profile (3)|still_picture|reduced_still_picture_header|) has none but key
/// frames.
fn is_key_frame(sequence_header: &[u8], frame: &[u8]) -> bool {
    let is_reduced = sequence_header.first().is_some_and(|header| header & 0x08 != 0);
    is_reduced || frame.first().is_some_and(|header| header & 0xe0 == 0)
}

/// The OBU elements of a packet (§4.3). One that is cut off is what is there of it.
struct Elements<'a> {
    /// How many there are, counted down; 0: up to the end, each with its size.
    count: usize,
    rest: &'a [u8],
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        // The last of W elements has no size in front; all others have.
        if self.count == 1 {
            return Some(std::mem::take(&mut self.rest));
        }
        self.count = self.count.saturating_sub(1);
        let (size, rest) = leb128(self.rest)?;
        let (element, rest) = rest.split_at(size.min(rest.len()));
        self.rest = rest;
        Some(element)
    }
}

/// The type of an OBU and what follows its header (AV1 bitstream specification §5.3): |forbidden| type (4)
/// |extension|has size|reserved|, a byte if there is an extension, a size if it has one.
fn split_obu(obu: &[u8]) -> Option<(u8, &[u8])> {
    let (&header, mut body) = obu.split_first()?;
    if header & 0x04 != 0 {
        body = body.get(1..).unwrap_or(&[]);
    }
    if header & 0x02 != 0 {
        body = leb128(body).map_or(&[], |(_, body)| body);
    }
    Some((header >> 3 & 0x0f, body))
}

/// A LEB128 number, which has at most eight bytes, and what follows it.
fn leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let last = bytes.iter().take(8).position(|byte| byte & 0x80 == 0)?;
    let (number, rest) = bytes.split_at(last + 1);
    let number = number
        .iter()
        .rev()
        .fold(0_u64, |number, byte| number << 7 | u64::from(byte & 0x7f));
    Some((usize::try_from(number).unwrap_or(usize::MAX), rest))
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
            // N alone: a frame, a tile group, a frame behind a delimiter, or what is no beginning.
            (&[0x18, 0x30, 0x10, 0x00], false),
            (&[0x18, 0x20, 0x10], false),
            (&[0x28, 0x01, 0x10, 0x32, 0x02, 0x10, 0x00], false),
            (&[0x18, 0x2a, 0x01, 0x00], false),
            // A delimiter first, then a sequence header, with metadata between them and the frame, and extensions.
            (&[0x38, 0x01, 0x10, 0x02, 0x08, 0x00, 0x30, 0x10], true),
            (&[0x28, 0x02, 0x12, 0x00, 0x0a, 0x01, 0x00], true),
            (&[0x08, 0x01, 0x10, 0x02, 0x2c, 0x08, 0x03, 0x0c, 0x08, 0x00], true),
            // Without N: only a sequence header and a key frame. Then frames that are none, shown again, or cut off.
            (&[0x20, 0x02, 0x08, 0x00, 0x30, 0x10], true),
            (&[0x30, 0x01, 0x10, 0x02, 0x08, 0x00, 0x18, 0x10], true),
            (&[0x20, 0x03, 0x0a, 0x01, 0x00, 0x32, 0x01, 0x10], true),
            (&[0x20, 0x02, 0x08, 0x00, 0x34, 0x00, 0x10], true),
            (&[0x20, 0x02, 0x08, 0x00, 0x30, 0x30], false),
            (&[0x20, 0x02, 0x08, 0x00, 0x30, 0x80], false),
            (&[0x20, 0x02, 0x08, 0x00, 0x30], false),
            (&[0x20, 0x02, 0x08, 0x18, 0x30, 0x30], true), // reduced_still_picture_header
            (&[0x10, 0x30, 0x10], false),
            (&[0x20, 0x02, 0x30, 0x10, 0x08, 0x00], false),
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

    /// Many empty OBUs cost no more than a few.
    #[test]
    fn the_search_is_bounded() {
        let mut payload = vec![0x08];
        payload.extend([0x01, 0x28].repeat(OBUS_MAX - 1));
        payload.extend([0x02, 0x08, 0x00]);
        assert!(starts_key_frame(&payload));
        payload.splice(1..1, [0x01, 0x28]);
        assert!(!starts_key_frame(&payload));
    }
}
