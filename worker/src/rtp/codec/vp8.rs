//! VP8 (RFC 7741): the payload descriptor, with the two counters that a relay must keep continuous.
//!
//! ```text
//!       0 1 2 3 4 5 6 7
//!      +-+-+-+-+-+-+-+-+
//!      |X|R|N|S|R| PID |
//!      +-+-+-+-+-+-+-+-+
//! X:   |I|L|T|K| RSV   |
//!      +-+-+-+-+-+-+-+-+
//! I:   |M| PictureID   |  M: 15 bits, in two bytes
//!      +-+-+-+-+-+-+-+-+
//! L:   |   TL0PICIDX   |
//!      +-+-+-+-+-+-+-+-+
//! T/K: |TID|Y| KEYIDX  |
//!      +-+-+-+-+-+-+-+-+
//! ```

use super::Peek;

const X: u8 = 0x80;
const S: u8 = 0x10;
const PID: u8 = 0x07;
const I: u8 = 0x80;
const L: u8 = 0x40;
const T: u8 = 0x20;
const K: u8 = 0x10;
const M: u8 = 0x80;

/// The inverse key frame flag, the lowest bit of the frame's first byte (RFC 7741 §4.3).
const P: u8 = 0x01;

/// The counters in a payload descriptor. Both may be absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ids {
    /// Numbers frames.
    pub picture_id: Option<PictureId>,
    /// Numbers the frames of the lowest temporal layer.
    pub tl0_pic_idx: Option<Tl0>,
}

/// A picture id in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureId {
    /// Where it lies, in bytes from the start of the payload.
    pub offset: u8,
    /// The id, of 15 or 7 bits.
    pub value: u16,
    /// Two bytes rather than one.
    pub wide: bool,
}

/// A TL0PICIDX in a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tl0 {
    /// Where it lies, in bytes from the start of the payload.
    pub offset: u8,
    /// The index.
    pub value: u8,
}

/// Reads the payload descriptor. A key frame begins where S is 1, the partition is 0 and the frame's P bit is 0
/// (RFC 7741 §4.2, §4.3); no picture id is needed for that.
#[inline]
pub fn peek(payload: &[u8]) -> Peek {
    descriptor(payload).unwrap_or_default()
}

#[inline]
fn descriptor(payload: &[u8]) -> Option<Peek> {
    let first = *payload.first()?;
    let mut ids = Ids::default();
    let mut end = 1;
    if first & X != 0 {
        let flags = *payload.get(1)?;
        end = 2;
        if flags & I != 0 {
            let high = *payload.get(2)?;
            let wide = high & M != 0;
            let value = if wide {
                u16::from_be_bytes([high & !M, *payload.get(3)?])
            } else {
                u16::from(high)
            };
            ids.picture_id = Some(PictureId { offset: 2, value, wide });
            end = if wide { 4 } else { 3 };
        }
        if flags & L != 0 {
            ids.tl0_pic_idx = Some(Tl0 {
                offset: end as u8,
                value: *payload.get(end)?,
            });
            end += 1;
        }
        if flags & (T | K) != 0 {
            end += 1;
        }
    }
    let frame = payload.get(end..)?.first();
    let key_frame = first & (S | PID) == S && frame.is_some_and(|frame| frame & P == 0);
    Some(Peek::of_key_frame(key_frame, Some(ids)))
}

/// Writes a picture id of the same width over the one that lies at the start of `at`. The M bit stays as `wide` says.
#[inline]
pub fn write_picture_id(at: &mut [u8], wide: bool, value: u16) {
    match (wide, at) {
        (true, [high, low, ..]) => {
            let [value_high, value_low] = value.to_be_bytes();
            *high = M | value_high;
            *low = value_low;
        }
        (false, [byte, ..]) => *byte = value as u8 & !M,
        _ => debug_assert!(false, "the picture id was read from here"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wide(value: u16) -> Option<PictureId> {
        Some(PictureId {
            offset: 2,
            value,
            wide: true,
        })
    }

    fn narrow(value: u16) -> Option<PictureId> {
        Some(PictureId {
            offset: 2,
            value,
            wide: false,
        })
    }

    fn tl0(offset: u8, value: u8) -> Option<Tl0> {
        Some(Tl0 { offset, value })
    }

    #[test]
    fn descriptors() {
        const KEY: u8 = 0x10;
        const DELTA: u8 = 0x11;
        type Row = (&'static [u8], Option<(Option<PictureId>, Option<Tl0>)>, bool);
        let rows: &[Row] = &[
            // No extension: all of it is one byte, and key frames show all the same.
            (&[0x10, KEY], Some((None, None)), true),
            (&[0x10, DELTA], Some((None, None)), false),
            // Not the start of a partition, another partition, both reserved bits and N set.
            (&[0x00, KEY], Some((None, None)), false),
            (&[0x11, KEY], Some((None, None)), false),
            (&[0x17, KEY], Some((None, None)), false),
            (&[0x78, KEY], Some((None, None)), true),
            // The extension's flags, one by one and all.
            (&[0x90, 0x00, KEY], Some((None, None)), true),
            (&[0x90, 0x80, 0x7f, KEY], Some((narrow(127), None)), true),
            (&[0x90, 0x80, 0xff, 0xff, KEY], Some((wide(32_767), None)), true),
            (&[0x90, 0x80, 0x80, 0x05, DELTA], Some((wide(5), None)), false),
            (&[0x90, 0x40, 9, KEY], Some((None, tl0(2, 9))), true),
            (&[0x90, 0xc0, 0x11, 9, KEY], Some((narrow(17), tl0(3, 9))), true),
            (&[0x90, 0xc0, 0x91, 0x22, 9, KEY], Some((wide(0x1122), tl0(4, 9))), true),
            (&[0x90, 0x20, DELTA, KEY], Some((None, None)), true),
            (&[0x90, 0x10, DELTA, KEY], Some((None, None)), true),
            (&[0x90, 0x30, DELTA, KEY], Some((None, None)), true),
            (
                &[0x90, 0xf0, 0x91, 0x22, 9, DELTA, KEY],
                Some((wide(0x1122), tl0(4, 9))),
                true,
            ),
            // Whole, with no frame behind it.
            (&[0x10], Some((None, None)), false),
            (
                &[0x90, 0xf0, 0x91, 0x22, 9, DELTA],
                Some((wide(0x1122), tl0(4, 9))),
                false,
            ),
            // Cut off.
            (&[], None, false),
            (&[0x90], None, false),
            (&[0x90, 0x80], None, false),
            (&[0x90, 0x80, 0xff], None, false),
            (&[0x90, 0x40], None, false),
            (&[0x90, 0xc0, 0x91, 0x22], None, false),
            (&[0x90, 0x20], None, false),
            (&[0x90, 0xf0, 0x91, 0x22, 9], None, false),
        ];
        for &(payload, ids, key_frame) in rows {
            let ids = ids.map(|(picture_id, tl0_pic_idx)| Ids {
                picture_id,
                tl0_pic_idx,
            });
            assert_eq!(peek(payload), Peek::of_key_frame(key_frame, ids), "{payload:02x?}");
        }
    }

    #[test]
    fn written_ids_are_read_back() {
        let mut payload = [0x90, 0xe0, 0x91, 0x22, 9, 0x40, 0x10, 0xee];
        write_picture_id(&mut payload[2..], true, 0x7654);
        assert_eq!(payload, [0x90, 0xe0, 0xf6, 0x54, 9, 0x40, 0x10, 0xee]);
        let mut payload = [0x90, 0x80, 0x11, 0x10];
        // The upper bits have no place and must not become an M bit.
        write_picture_id(&mut payload[2..], false, 0x7fff);
        assert_eq!(payload, [0x90, 0x80, 0x7f, 0x10]);
        write_picture_id(&mut payload[2..], false, 3);
        assert_eq!(peek(&payload).vp8.unwrap().picture_id, narrow(3));
    }
}
