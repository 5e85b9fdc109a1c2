//! Peeks at payloads: as much of each codec's RTP payload format as the relay needs, and no more.

pub mod av1;
pub mod h264;
pub mod h265;
pub mod vp8;
pub mod vp9;

use weir_channel::message::CodecName;

/// What the relay needs to know of a payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Peek {
    /// A decoder can start with this packet: it is the first of a key frame, as far as one packet can tell. Audio has no
    /// key frames. H.264 and H.265 may mark several packets of one key frame (its parameter sets, then its first slice):
    /// start at the first of them, and count them by timestamp.
    pub key_frame: bool,
    /// The counters of a VP8 payload descriptor; `None` for other codecs and for a descriptor that is cut off.
    pub vp8: Option<vp8::Ids>,
}

/// Looks into a payload of this codec. A payload that is cut off or makes no sense is no key frame.
#[inline]
pub fn peek(codec: CodecName, payload: &[u8]) -> Peek {
    let key_frame = match codec {
        CodecName::Vp8 => return vp8::peek(payload),
        CodecName::Vp9 => vp9::starts_key_frame(payload),
        CodecName::H264 => h264::starts_key_frame(payload),
        CodecName::H265 => h265::starts_key_frame(payload),
        CodecName::Av1 => av1::starts_key_frame(payload),
        CodecName::Opus | CodecName::Pcmu | CodecName::Pcma | CodecName::G722 => false,
        CodecName::OtherAudio | CodecName::OtherVideo | CodecName::AudioCompanion | CodecName::VideoCompanion => false,
    };
    Peek { key_frame, vp8: None }
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
}
