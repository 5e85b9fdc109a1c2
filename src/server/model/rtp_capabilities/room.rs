//! The capabilities of a room: what the server supports, and the numbers it gives to what the room wants of it.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use weir_channel::message::{CodecName, ExtensionUri, MediaKind};

use super::{RtpCapabilities, RtpCodecCapability, RtpHeaderExtensionCapability};
use crate::server::model::rtp_parameters::{
    Checked, RtcpFeedback, Subtype, check_feedback, check_format_parameters, check_opaque, check_payload_type,
    clock_rate, conventional_payload_type, set_parameter,
};

/// The most media codecs of a room: with their `rtx` they leave some of the payload types over.
const MEDIA_CODECS_MAX: usize = 32;

/// What a room announces, under which id, for which kinds. The first six are mediasoup's under mediasoup's ids, so that what
/// a client computed from the one fits the other; later ones follow. Transport-wide sequence numbers are understood but not
/// announced: the server's feedback about bitrates is REMB, which needs the time of sending. A room may announce less.
const ANNOUNCED: [(ExtensionUri, u8, &[MediaKind]); 10] = [
    (ExtensionUri::AudioLevel, 1, &[MediaKind::Audio]),
    (ExtensionUri::TransmissionOffset, 2, &[MediaKind::Video]),
    (ExtensionUri::AbsSendTime, 3, &[MediaKind::Audio, MediaKind::Video]),
    (ExtensionUri::VideoOrientation, 4, &[MediaKind::Video]),
    (ExtensionUri::Mid, 5, &[MediaKind::Audio, MediaKind::Video]),
    (ExtensionUri::RtpStreamId, 6, &[MediaKind::Video]),
    (ExtensionUri::RepairedRtpStreamId, 7, &[MediaKind::Video]),
    (ExtensionUri::AbsCaptureTime, 8, &[MediaKind::Audio, MediaKind::Video]),
    (ExtensionUri::PlayoutDelay, 9, &[MediaKind::Video]),
    (ExtensionUri::DependencyDescriptor, 10, &[MediaKind::Video]),
];

impl RtpCapabilities {
    /// Everything the server can relay, H264 in both packetization modes. Only what has a number by convention has one.
    pub fn supported() -> Self {
        let h264 = |mode: u64| {
            let mut codec = supported_codec(CodecName::H264);
            codec.parameters.insert("packetization-mode".to_owned(), mode.into());
            codec
        };
        let codecs = CodecName::ALL.into_iter().flat_map(|name| match name {
            CodecName::H264 => vec![h264(0), h264(1)],
            name => vec![supported_codec(name)],
        });
        Self {
            codecs: codecs.collect(),
            header_extensions: announced(),
            fec_mechanisms: Vec::new(),
        }
    }

    /// The capabilities of a room that relays these codecs and announces all header extensions: each gets a payload type (its conventional one, the one it asks
    /// for, or the next free one from 100 on), and each of video an `rtx` codec with the next. Codecs that are not known are
    /// announced as they are given, and have an `rtx` codec if they list `nack`.
    ///
    /// # Errors
    /// A sentence about the first codec that is not supported, is listed twice, or finds no payload type.
    pub fn for_room(media_codecs: &[RtpCodecCapability]) -> Result<Self, String> {
        if media_codecs.is_empty() || media_codecs.len() > MEDIA_CODECS_MAX {
            return Err(format!(
                "a room has 1 to {MEDIA_CODECS_MAX} media codecs, not {}",
                media_codecs.len()
            ));
        }
        let wanted = media_codecs.iter().map(merged).collect::<Checked<Vec<_>>>()?;
        let mut payload_types = PayloadTypes::default();
        for codec in &wanted {
            if let Some(payload_type) = codec.preferred_payload_type {
                payload_types.take(payload_type, &codec.name)?;
            }
        }
        let mut codecs: Vec<RtpCodecCapability> = Vec::new();
        for mut codec in wanted {
            if codecs.iter().any(|other| is_twice(other, &codec)) {
                return Err(format!(
                    "codec {} is listed twice with the same parameters",
                    codec.mime_type()
                ));
            }
            let payload_type = match codec.preferred_payload_type {
                Some(payload_type) => payload_type,
                None => payload_types.next(&codec.name)?,
            };
            codec.preferred_payload_type = Some(payload_type);
            let rtx = match is_repaired(&codec) {
                false => None,
                true => Some(rtx(payload_types.next("rtx")?, payload_type, codec.clock_rate)),
            };
            codecs.push(codec);
            codecs.extend(rtx);
        }
        Ok(Self {
            codecs,
            header_extensions: announced(),
            fec_mechanisms: Vec::new(),
        })
    }
}

fn announced() -> Vec<RtpHeaderExtensionCapability> {
    let all = ANNOUNCED.iter().flat_map(|(uri, id, kinds)| {
        let each = kinds.iter();
        each.map(|kind| RtpHeaderExtensionCapability::new(*kind, *uri, *id))
    });
    all.collect()
}

fn supported_codec(name: CodecName) -> RtpCodecCapability {
    let rtcp_feedback = match name.kind() {
        MediaKind::Audio => Vec::new(),
        MediaKind::Video => vec![
            RtcpFeedback::new("nack", ""),
            RtcpFeedback::new("nack", "pli"),
            RtcpFeedback::new("ccm", "fir"),
            RtcpFeedback::new("goog-remb", ""),
        ],
    };
    let channels = match name {
        CodecName::Opus => Some(2),
        _ if name.kind() == MediaKind::Audio => Some(1),
        _ => None,
    };
    RtpCodecCapability {
        channels,
        rtcp_feedback,
        preferred_payload_type: conventional_payload_type(name.kind(), name.subtype(), clock_rate(name), 1),
        ..RtpCodecCapability::new(name)
    }
}

/// Whether a room's codec has an `rtx` codec.
fn is_repaired(codec: &RtpCodecCapability) -> bool {
    let is_known = CodecName::from_subtype(&codec.name).is_some();
    let nack = RtcpFeedback::new("nack", "");
    codec.kind == MediaKind::Video && (is_known || codec.rtcp_feedback.iter().any(|feedback| feedback.is_same(&nack)))
}

/// A codec that is not known, as the application declares it.
fn opaque(wanted: &RtpCodecCapability) -> RtpCodecCapability {
    let RtpCodecCapability { kind, name, .. } = wanted;
    let convention = conventional_payload_type(*kind, name, wanted.clock_rate, wanted.channels.unwrap_or(1));
    RtpCodecCapability {
        preferred_payload_type: wanted.preferred_payload_type.or(convention),
        ..wanted.clone()
    }
}

/// What the server supports of a codec, with the application's parameters in place of its own.
fn merged(wanted: &RtpCodecCapability) -> Checked<RtpCodecCapability> {
    let mime_type = wanted.mime_type();
    check_format_parameters(&wanted.parameters)?;
    check_feedback(&wanted.rtcp_feedback)?;
    let name = match Subtype::parse(&mime_type)? {
        Subtype::Media(name) if CodecName::OPAQUE.contains(&name) => {
            check_opaque(name, &mime_type, wanted.clock_rate, wanted.channels)?;
            return Ok(opaque(wanted));
        }
        Subtype::Media(name) => name,
        Subtype::Rtx => {
            return Err(format!(
                "{mime_type} comes by itself for each codec of video; leave it out"
            ));
        }
    };
    let supported = RtpCapabilities::supported();
    let Some(own) = supported.codecs.iter().find(|own| same_apart_from_profile(own, wanted)) else {
        return Err(format!(
            "{mime_type} with clockRate {}, channels {} and these parameters is not relayed",
            wanted.clock_rate,
            wanted
                .channels
                .map_or("unsaid".to_owned(), |channels| channels.to_string())
        ));
    };
    let mut parameters = own.parameters.clone();
    for (name, value) in &wanted.parameters {
        set_parameter(&mut parameters, name, value.clone());
    }
    Ok(RtpCodecCapability {
        name: name.subtype().to_owned(),
        parameters,
        preferred_payload_type: wanted.preferred_payload_type.or(own.preferred_payload_type),
        ..own.clone()
    })
}

/// A room may relay any profile of VP9, H265 and AV1; packetization modes of H264 are what the list says.
fn same_apart_from_profile(own: &RtpCodecCapability, wanted: &RtpCodecCapability) -> bool {
    let bare = |codec: &RtpCodecCapability| RtpCodecCapability {
        parameters: match codec.name.eq_ignore_ascii_case(CodecName::H264.subtype()) {
            true => codec.parameters.clone(),
            false => Map::new(),
        },
        ..codec.clone()
    };
    bare(own).is_same_format(&bare(wanted))
}

/// Two H264 codecs may differ in their profile.
fn is_twice(one: &RtpCodecCapability, other: &RtpCodecCapability) -> bool {
    one.is_same_format(other) && one.has_profile_of(&other.parameters)
}

fn rtx(payload_type: u8, repaired: u8, clock_rate: u32) -> RtpCodecCapability {
    RtpCodecCapability {
        kind: MediaKind::Video,
        name: "rtx".to_owned(),
        clock_rate,
        channels: None,
        parameters: Map::from_iter([("apt".to_owned(), Value::from(repaired))]),
        rtcp_feedback: Vec::new(),
        preferred_payload_type: Some(payload_type),
    }
}

/// Which payload types a room has given away.
#[derive(Default)]
struct PayloadTypes {
    taken: BTreeSet<u8>,
}

impl PayloadTypes {
    /// The order in which they are given out. 77 to 95, which mediasoup uses after these, collide with RTCP (RFC 5761 §4).
    fn in_order() -> impl Iterator<Item = u8> {
        (100..=127).chain(96..=99).chain(35..=63)
    }

    fn take(&mut self, payload_type: u8, name: &str) -> Checked<()> {
        check_payload_type(payload_type)?;
        match self.taken.insert(payload_type) {
            true => Ok(()),
            false => Err(format!(
                "preferredPayloadType {payload_type} of {name} is another codec's; give each its own"
            )),
        }
    }

    fn next(&mut self, name: &str) -> Checked<u8> {
        let free = Self::in_order()
            .find(|payload_type| !self.taken.contains(payload_type))
            .ok_or_else(|| format!("no payload type is left for {name}; list fewer codecs"))?;
        self.taken.insert(free);
        Ok(free)
    }
}
