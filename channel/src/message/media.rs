//! The words of media: kinds, profiles, codecs, streams, header extensions.

use serde::{Deserialize, Serialize};

use crate::words;

/// Audio or video.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum MediaKind {
    /// Sound.
    Audio,
    /// Pictures.
    Video,
}

words!(MediaKind { Audio = "audio", Video = "video" });

/// A quality of a producer, or a preference for one, ordered from low to high.
///
/// As a quality, `Default` is the only stream of a producer without simulcast. As a preference, `Default` is the
/// highest available, and each other value is a maximum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// The only stream; as a preference, the highest quality.
    #[default]
    Default,
    /// The lowest of the simulcast layers.
    Low,
    /// The middle simulcast layer.
    Medium,
    /// The highest simulcast layer.
    High,
}

words!(Profile { Default = "default", Low = "low", Medium = "medium", High = "high" });

/// The codecs as a worker tells them apart. The first nine it knows by their payload formats; their names are the media
/// subtypes of those. All others it relays as opaque packets, and of them it need only know what each is for: their names
/// and parameters stay with the supervisor.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum CodecName {
    /// RFC 7587.
    Opus,
    /// RFC 3551 §4.5.14.
    Pcmu,
    /// RFC 3551 §4.5.14.
    Pcma,
    /// RFC 3551 §4.5.2; its RTP clock runs at 8,000 Hz although it samples at 16,000.
    G722,
    /// RFC 7741.
    Vp8,
    /// RFC 9628.
    Vp9,
    /// RFC 6184.
    H264,
    /// RFC 7798.
    H265,
    /// The AV1 RTP payload specification of the Alliance for Open Media.
    Av1,
    /// Any other codec of sound.
    OtherAudio,
    /// Any other codec of pictures. Which of its packets start a picture nobody knows, so consumers start with any of them.
    OtherVideo,
    /// What goes along with a codec of sound, and is none itself: telephone events (RFC 4733), comfort noise (RFC 3389).
    AudioCompanion,
    /// What goes along with a codec of pictures, and is none itself: forward error correction (RFC 5109, RFC 8627).
    VideoCompanion,
}

impl CodecName {
    /// Which kind of media it carries.
    pub fn kind(self) -> MediaKind {
        match self {
            Self::Opus | Self::Pcmu | Self::Pcma | Self::G722 | Self::OtherAudio | Self::AudioCompanion => {
                MediaKind::Audio
            }
            Self::Vp8 | Self::Vp9 | Self::H264 | Self::H265 | Self::Av1 | Self::OtherVideo | Self::VideoCompanion => {
                MediaKind::Video
            }
        }
    }

    /// Whether receivers may be given any packet of it first. Of pictures that are known, only one that starts a key frame.
    pub fn starts_anywhere(self) -> bool {
        self.kind() == MediaKind::Audio || self == Self::OtherVideo
    }

    /// Whether it goes along with another codec: a stream neither begins with it nor is known by it.
    pub fn is_companion(self) -> bool {
        matches!(self, Self::AudioCompanion | Self::VideoCompanion)
    }

    /// The media subtype as it is written in `a=rtpmap`, e.g. `VP8`; of those that are not known, what they are.
    pub fn subtype(self) -> &'static str {
        match self {
            Self::Opus => "opus",
            Self::Pcmu => "PCMU",
            Self::Pcma => "PCMA",
            Self::G722 => "G722",
            Self::Vp8 => "VP8",
            Self::Vp9 => "VP9",
            Self::H264 => "H264",
            Self::H265 => "H265",
            Self::Av1 => "AV1",
            Self::OtherAudio => "other-audio",
            Self::OtherVideo => "other-video",
            Self::AudioCompanion => "audio-companion",
            Self::VideoCompanion => "video-companion",
        }
    }

    /// The known codec with this subtype, whatever its case.
    pub fn from_subtype(subtype: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|codec| codec.subtype().eq_ignore_ascii_case(subtype))
    }

    /// Those that are known.
    pub const ALL: [Self; 9] = [
        Self::Opus,
        Self::Pcmu,
        Self::Pcma,
        Self::G722,
        Self::Vp8,
        Self::Vp9,
        Self::H264,
        Self::H265,
        Self::Av1,
    ];

    /// Those that stand for all others.
    pub const OPAQUE: [Self; 4] = [
        Self::OtherAudio,
        Self::OtherVideo,
        Self::AudioCompanion,
        Self::VideoCompanion,
    ];
}

/// A codec of a producer, under the producer's own payload type.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Codec {
    /// 0..=127, except 64..=95 (RFC 5761 §4: those collide with RTCP).
    pub payload_type: u8,
    /// Which codec.
    pub name: CodecName,
    /// RTP clock, in Hz.
    pub clock_rate: u32,
    /// The sender answers picture loss indications (RFC 4585 §6.3.1).
    pub pli: bool,
    /// The sender answers full intra requests (RFC 5104 §4.3.1).
    pub fir: bool,
    /// The sender sends packets again that it is told are missing (RFC 4585 §6.2.1).
    pub nack: bool,
    /// The sender heeds the receiver's estimate of the bitrate (REMB).
    pub remb: bool,
    /// The payload type under which it sends packets of this codec again (RFC 4588), if not under the codec's own.
    pub rtx: Option<u8>,
}

/// One stream of a producer, and how to recognise it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Encoding {
    /// Known in advance, or learned through `mid` or `rid`; on a plain transport also, of a lone encoding that has
    /// neither, through the payload types.
    pub ssrc: Option<u32>,
    /// The RTP stream id (RFC 8852), at most 32 bytes.
    pub rid: Option<String>,
    /// The SSRC of its retransmissions (RFC 4588), if they have one and it is known in advance; else it is learned through
    /// the repaired RTP stream id.
    pub rtx_ssrc: Option<u32>,
    /// Which profile the stream is.
    pub profile: Profile,
}

/// The RTP header extensions the worker knows (RFC 8285); others are never relayed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum ExtensionUri {
    /// `urn:ietf:params:rtp-hdrext:sdes:mid`; read for routing, never relayed.
    Mid,
    /// `urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id`; read for routing, never relayed.
    RtpStreamId,
    /// `urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id`; never relayed.
    RepairedRtpStreamId,
    /// `urn:ietf:params:rtp-hdrext:ssrc-audio-level` (RFC 6464).
    AudioLevel,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time`
    AbsSendTime,
    /// `urn:ietf:params:rtp-hdrext:toffset` (RFC 5450).
    TransmissionOffset,
    /// `urn:3gpp:video-orientation`
    VideoOrientation,
    /// `http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01`; hop by hop, never relayed.
    TransportWideCc,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time`
    AbsCaptureTime,
    /// `http://www.webrtc.org/experiments/rtp-hdrext/playout-delay`
    PlayoutDelay,
    /// The AV1 dependency descriptor.
    DependencyDescriptor,
}

impl ExtensionUri {
    /// All of them, in the order of the enum, so that `uri as usize` indexes tables.
    pub const ALL: [Self; 11] = [
        Self::Mid,
        Self::RtpStreamId,
        Self::RepairedRtpStreamId,
        Self::AudioLevel,
        Self::AbsSendTime,
        Self::TransmissionOffset,
        Self::VideoOrientation,
        Self::TransportWideCc,
        Self::AbsCaptureTime,
        Self::PlayoutDelay,
        Self::DependencyDescriptor,
    ];

    /// The URI as it is written in `a=extmap`.
    pub fn uri(self) -> &'static str {
        match self {
            Self::Mid => "urn:ietf:params:rtp-hdrext:sdes:mid",
            Self::RtpStreamId => "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id",
            Self::RepairedRtpStreamId => "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
            Self::AudioLevel => "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
            Self::AbsSendTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
            Self::TransmissionOffset => "urn:ietf:params:rtp-hdrext:toffset",
            Self::VideoOrientation => "urn:3gpp:video-orientation",
            Self::TransportWideCc => "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
            Self::AbsCaptureTime => "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
            Self::PlayoutDelay => "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
            Self::DependencyDescriptor => {
                "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension"
            }
        }
    }

    /// Whether its value means anything beyond the hop it arrived on.
    pub fn is_relayed(self) -> bool {
        !matches!(
            self,
            Self::Mid | Self::RtpStreamId | Self::RepairedRtpStreamId | Self::TransportWideCc
        )
    }
}

/// A header extension under a local identifier.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct HeaderExtension {
    /// 1..=255. Above 14, only packets in the two-byte form of RFC 8285 (§4.3) can carry it.
    pub id: u8,
    /// What it means.
    pub uri: ExtensionUri,
}
