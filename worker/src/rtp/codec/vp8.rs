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
    Some(Peek {
        key_frame: first & (S | PID) == S && frame.is_some_and(|frame| frame & P == 0),
        vp8: Some(ids),
    })
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

/// Writes a TL0PICIDX over the one that lies at the start of `at`.
#[inline]
pub fn write_tl0_pic_idx(at: &mut [u8], value: u8) {
    match at {
        [byte, ..] => *byte = value,
        [] => debug_assert!(false, "the index was read from here"),
    }
}
