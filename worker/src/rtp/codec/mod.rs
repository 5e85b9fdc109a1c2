//! Peeks at payloads: as much of each codec's RTP payload format as the relay needs, and no more.

pub mod av1;
pub mod h264;
pub mod h265;
pub mod parts;
pub mod vp8;
pub mod vp9;

use weir_channel::message::CodecName;

pub use parts::Parts;

/// What the relay needs to know of a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peek {
    /// A decoder can start with this packet: it is the first of a key frame, as far as one packet can tell. Audio has no
    /// key frames. H.264 and H.265 may mark several packets of one key frame (its parameter sets, then its first slice):
    /// start at the first of them, and count them by timestamp.
    pub key_frame: bool,
    /// The counters of a VP8 payload descriptor; `None` for other codecs and for a descriptor that is cut off.
    pub vp8: Option<vp8::Ids>,
    /// Which parts of a start it brings.
    pub parts: Parts,
}

impl Peek {
    /// Of a codec whose key frames need nothing beside them.
    fn of_key_frame(key_frame: bool, vp8: Option<vp8::Ids>) -> Self {
        let parts = if key_frame { Parts::PICTURE } else { Parts::NONE };
        Self { key_frame, vp8, parts }
    }

    /// Of a codec with parameter sets, of which these mark a key frame.
    fn of_parts(parts: Parts, marks: Parts) -> Self {
        Self {
            key_frame: parts.intersects(marks | Parts::PICTURE),
            vp8: None,
            parts,
        }
    }
}

/// Looks into a payload of this codec. A payload that is cut off or makes no sense is no key frame.
#[inline]
pub fn peek(codec: CodecName, payload: &[u8]) -> Peek {
    match codec {
        CodecName::Vp8 => vp8::peek(payload),
        CodecName::Vp9 => Peek::of_key_frame(vp9::starts_key_frame(payload), None),
        CodecName::H264 => Peek::of_parts(h264::parts(payload), Parts::SPS),
        CodecName::H265 => Peek::of_parts(h265::parts(payload), Parts::VPS | Parts::SPS),
        CodecName::Av1 => Peek::of_key_frame(av1::starts_key_frame(payload), None),
        CodecName::Opus | CodecName::Pcmu | CodecName::Pcma | CodecName::G722 => Peek::default(),
        CodecName::OtherAudio | CodecName::OtherVideo | CodecName::AudioCompanion | CodecName::VideoCompanion => {
            Peek::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn audio_has_no_key_frames() {
        for codec in [CodecName::Opus, CodecName::Pcmu, CodecName::Pcma, CodecName::G722] {
            for first in 0..=255 {
                assert_eq!(peek(codec, &[first, 0x10, 0x88]), Peek::default(), "{codec:?}");
            }
        }
    }

    #[test]
    fn what_is_opaque_is_not_looked_into() {
        for codec in CodecName::OPAQUE {
            for first in 0..=255 {
                assert_eq!(peek(codec, &[first, 0x10, 0x88]), Peek::default(), "{codec:?}");
            }
        }
    }

    #[test]
    fn only_vp8_has_vp8_ids() {
        for codec in [CodecName::Vp9, CodecName::H264, CodecName::H265, CodecName::Av1] {
            assert_eq!(peek(codec, &[0x90, 0x80, 0x11, 0x10]).vp8, None, "{codec:?}");
        }
        assert!(peek(CodecName::Vp8, &[0x90, 0x80, 0x11, 0x10]).vp8.is_some());
    }

    #[test]
    fn key_frames_are_marked_by_their_pictures_and_sequence_parameter_sets() {
        let rows: &[(CodecName, &[u8], Parts, bool)] = &[
            (CodecName::Vp8, &[0x10, 0x10], Parts::PICTURE, true),
            (CodecName::Vp8, &[0x10, 0x11], Parts::NONE, false),
            (CodecName::Vp9, &[0x08, 0x82], Parts::PICTURE, true),
            (CodecName::Vp9, &[0x08, 0x86], Parts::NONE, false),
            (CodecName::H264, &[0x67, 0x42], Parts::SPS, true),
            (CodecName::H264, &[0x68, 0x42], Parts::PPS, false),
            (CodecName::H264, &[0x65, 0x88], Parts::PICTURE, true),
            (CodecName::H264, &[0x41, 0x88], Parts::OTHER, false),
            (CodecName::H265, &[0x40, 1], Parts::VPS, true),
            (CodecName::H265, &[0x42, 1], Parts::SPS, true),
            (CodecName::H265, &[0x44, 1], Parts::PPS, false),
            (CodecName::H265, &[0x26, 1, 0x80], Parts::PICTURE, true),
            (CodecName::H265, &[0x02, 1, 0x80], Parts::OTHER, false),
        ];
        for &(codec, payload, parts, key_frame) in rows {
            let expected = (parts, key_frame);
            let peek = peek(codec, payload);
            assert_eq!((peek.parts, peek.key_frame), expected, "{codec:?} {payload:02x?}");
        }
    }
}
