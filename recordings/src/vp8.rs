//! VP8 in RTP (RFC 7741): the payload descriptor, and what the first bytes of a frame say.
//!
//! ```text
//!       0 1 2 3 4 5 6 7
//!      +-+-+-+-+-+-+-+-+
//!      |X|R|N|S|R| PID | (REQUIRED)
//!      +-+-+-+-+-+-+-+-+
//! X:   |I|L|T|K| RSV   | (OPTIONAL)
//!      +-+-+-+-+-+-+-+-+
//! I:   |M| PictureID   | (OPTIONAL)
//!      +-+-+-+-+-+-+-+-+
//!      |   PictureID   | (if M)
//!      +-+-+-+-+-+-+-+-+
//! L:   |   TL0PICIDX   | (OPTIONAL)
//!      +-+-+-+-+-+-+-+-+
//! T/K: |TID|Y| KEYIDX  | (OPTIONAL)
//!      +-+-+-+-+-+-+-+-+
//! ```

/// A parsed payload descriptor (RFC 7741 §4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// The packet is the first of a frame: S is set and the partition is the first one.
    pub starts_frame: bool,
    /// Counts frames.
    pub picture_id: Option<PictureId>,
    /// Counts frames of the base temporal layer.
    pub tl0_picture_index: Option<Tl0PictureIndex>,
    /// TID, if present.
    pub temporal_layer: Option<u8>,
    /// The descriptor's length; the frame's bytes follow.
    pub len: usize,
}

/// A picture id and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PictureId {
    /// Position in the payload.
    pub at: usize,
    /// 7 or 15.
    pub bits: u8,
    /// The id.
    pub value: u16,
}

impl PictureId {
    /// The id `frames` later; ids wrap at their width.
    pub fn advanced(self, frames: u64) -> u16 {
        let mask = (1u64 << self.bits) - 1;
        (u64::from(self.value).wrapping_add(frames) & mask) as u16
    }
}

/// A TL0PICIDX and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tl0PictureIndex {
    /// Position in the payload.
    pub at: usize,
    /// The index.
    pub value: u8,
}

/// Why a payload is no VP8.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Vp8Error {
    /// It ends inside its descriptor.
    #[error("{len} bytes are too few for this VP8 payload descriptor")]
    DescriptorCut {
        /// What there is.
        len: usize,
    },
    /// Nothing follows the descriptor.
    #[error("a VP8 payload descriptor with nothing behind it")]
    Empty,
    /// A key frame starts without the start code or the dimensions.
    #[error("a VP8 key frame without start code and dimensions")]
    KeyFrameHeader,
}

/// Width and height of a picture, in pixels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Resolution {
    /// Pixels across.
    pub width: u16,
    /// Pixels down.
    pub height: u16,
}

impl std::fmt::Display for Resolution {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl Descriptor {
    /// Parses the descriptor at the start of an RTP payload.
    ///
    /// # Errors
    /// When the payload ends before something follows the descriptor.
    pub fn parse(payload: &[u8]) -> Result<Self, Vp8Error> {
        let byte = |at: usize| {
            payload
                .get(at)
                .copied()
                .ok_or(Vp8Error::DescriptorCut { len: payload.len() })
        };
        let first = byte(0)?;
        let mut descriptor = Self {
            starts_frame: first & 0x10 != 0 && first & 0x07 == 0,
            picture_id: None,
            tl0_picture_index: None,
            temporal_layer: None,
            len: 1,
        };
        if first & 0x80 != 0 {
            let present = byte(1)?;
            let mut at = 2;
            if present & 0x80 != 0 {
                let high = byte(at)?;
                descriptor.picture_id = Some(if high & 0x80 == 0 {
                    PictureId {
                        at,
                        bits: 7,
                        value: u16::from(high),
                    }
                } else {
                    PictureId {
                        at,
                        bits: 15,
                        value: u16::from_be_bytes([high & 0x7f, byte(at + 1)?]),
                    }
                });
                at += if high & 0x80 == 0 { 1 } else { 2 };
            }
            if present & 0x40 != 0 {
                descriptor.tl0_picture_index = Some(Tl0PictureIndex { at, value: byte(at)? });
                at += 1;
            }
            if present & 0x30 != 0 {
                let tid = byte(at)? >> 6;
                descriptor.temporal_layer = (present & 0x20 != 0).then_some(tid);
                at += 1;
            }
            descriptor.len = at;
        }
        match payload.len() {
            len if len < descriptor.len => Err(Vp8Error::DescriptorCut { len }),
            len if len == descriptor.len => Err(Vp8Error::Empty),
            _ => Ok(descriptor),
        }
    }
}

/// The dimensions in the header of a key frame; `None` for other frames. `frame` is what follows the descriptor of a
/// frame's first packet (RFC 6386 §9.1).
///
/// # Errors
/// When the frame claims to be a key frame and its header is not one.
pub fn key_frame(frame: &[u8]) -> Result<Option<Resolution>, Vp8Error> {
    match frame {
        [] => Err(Vp8Error::Empty),
        [tag, ..] if tag & 1 == 1 => Ok(None),
        [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1, ..] => Ok(Some(Resolution {
            // The upper two bits of each ask for upscaling.
            width: u16::from_le_bytes([*w0, *w1]) & 0x3fff,
            height: u16::from_le_bytes([*h0, *h1]) & 0x3fff,
        })),
        _ => Err(Vp8Error::KeyFrameHeader),
    }
}

/// Writes a picture id of the same width over the one at `id.at`.
pub fn write_picture_id(payload: &mut [u8], id: PictureId, value: u16) {
    if id.bits == 7 {
        payload[id.at] = (value & 0x7f) as u8;
    } else {
        payload[id.at..id.at + 2].copy_from_slice(&(value | 0x8000).to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY_FRAME: [u8; 10] = [0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x41];

    #[test]
    fn descriptors_of_every_shape() {
        let parse = |bytes: &[u8]| {
            let whole = [bytes, &[0xee]].concat();
            for len in 0..whole.len() {
                assert!(Descriptor::parse(&whole[..len]).is_err(), "{bytes:x?} cut to {len}");
            }
            Descriptor::parse(&whole).unwrap()
        };
        let bare = Descriptor {
            starts_frame: true,
            picture_id: None,
            tl0_picture_index: None,
            temporal_layer: None,
            len: 1,
        };
        assert_eq!(parse(&[0x10]), bare);
        assert!(!parse(&[0x00]).starts_frame);
        assert!(
            !parse(&[0x11]).starts_frame,
            "the start of a later partition starts no frame"
        );
        // What ffmpeg writes.
        let id = PictureId {
            at: 2,
            bits: 7,
            value: 0x7f,
        };
        assert_eq!(
            parse(&[0x90, 0x80, 0x7f]),
            Descriptor {
                picture_id: Some(id),
                len: 3,
                ..bare
            }
        );
        assert_eq!((id.advanced(1), id.advanced(0), id.advanced(128 * 5 + 3)), (0, 0x7f, 2));
        // What browsers write.
        let id = PictureId {
            at: 2,
            bits: 15,
            value: 0x7ffe,
        };
        assert_eq!(
            parse(&[0x90, 0xe0, 0xff, 0xfe, 0x33, 0x40]),
            Descriptor {
                picture_id: Some(id),
                tl0_picture_index: Some(Tl0PictureIndex { at: 4, value: 0x33 }),
                temporal_layer: Some(1),
                len: 6,
                ..bare
            }
        );
        assert_eq!(id.advanced(3), 1);
        // KEYIDX alone takes the same byte and says nothing about layers.
        assert_eq!(parse(&[0x90, 0x10, 0x41]), Descriptor { len: 3, ..bare });
    }

    #[test]
    fn key_frames_tell_their_size() {
        let resolution = Resolution {
            width: 640,
            height: 360,
        };
        assert_eq!(key_frame(&KEY_FRAME), Ok(Some(resolution)));
        for len in 1..KEY_FRAME.len() {
            assert_eq!(key_frame(&KEY_FRAME[..len]), Err(Vp8Error::KeyFrameHeader));
        }
        assert_eq!(key_frame(&[]), Err(Vp8Error::Empty));
        assert_eq!(key_frame(&[0x11]), Ok(None));
        assert_eq!(resolution.to_string(), "640x360");
    }

    #[test]
    fn picture_ids_keep_their_width() {
        let mut payload = [0x90, 0x80, 0x05, 0xee];
        let id = Descriptor::parse(&payload).unwrap().picture_id.unwrap();
        write_picture_id(&mut payload, id, 0x1ff);
        assert_eq!(payload, [0x90, 0x80, 0x7f, 0xee]);
        let mut payload = [0x90, 0x80, 0x85, 0x00, 0xee];
        let id = Descriptor::parse(&payload).unwrap().picture_id.unwrap();
        write_picture_id(&mut payload, id, 0x0102);
        assert_eq!(payload, [0x90, 0x80, 0x81, 0x02, 0xee]);
    }
}
