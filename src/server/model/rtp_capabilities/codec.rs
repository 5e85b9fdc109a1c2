//! A codec that can be sent or received, and when two codecs are the same.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use weir_channel::message::{CodecName, MediaKind, any_case_if_any};

use crate::server::model::rtp_parameters::{
    Checked, RtcpFeedback, RtpCodec, clock_rate, number, parameter, split_mime_type,
};

/// A codec that can be sent or received. In JSON it also has its `mimeType`, which is kind and name; when read, either may be
/// left out, but they may not contradict.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(try_from = "CapabilityJson")]
pub struct RtpCodecCapability {
    /// Audio or video.
    pub kind: MediaKind,
    /// The media subtype, whatever its case, e.g. `VP8`, or `rtx`. Any will do: those that are not known are relayed as
    /// they are.
    pub name: String,
    /// The RTP clock, in Hz.
    pub clock_rate: u32,
    /// Audio channels, 1 to 64; opus always has 2 (RFC 7587 §7).
    pub channels: Option<u8>,
    /// Format parameters (`a=fmtp`). Those that tell formats apart are `packetization-mode` of H264, `profile-id` of VP9 and
    /// H265, `tx-mode` of H265, and `profile` of AV1.
    pub parameters: Map<String, Value>,
    /// The feedback that is understood.
    pub rtcp_feedback: Vec<RtcpFeedback>,
    /// Its payload type in the room.
    pub preferred_payload_type: Option<u8>,
}

impl RtpCodecCapability {
    /// The codec as [`RtpCapabilities::for_room`](super::RtpCapabilities::for_room) takes it.
    pub fn new(name: CodecName) -> Self {
        Self {
            kind: name.kind(),
            name: name.subtype().to_owned(),
            clock_rate: clock_rate(name),
            channels: (name == CodecName::Opus).then_some(2),
            parameters: Map::new(),
            rtcp_feedback: Vec::new(),
            preferred_payload_type: None,
        }
    }

    /// Kind and name, e.g. `video/VP8`.
    pub fn mime_type(&self) -> String {
        format!("{}/{}", self.kind, self.name)
    }

    /// Whether it carries retransmissions of another codec.
    pub fn is_rtx(&self) -> bool {
        self.name.eq_ignore_ascii_case("rtx")
    }

    /// The payload type that an `rtx` codec repairs.
    pub(super) fn apt(&self) -> Option<u8> {
        number(&self.parameters, "apt").and_then(|apt| u8::try_from(apt).ok())
    }

    fn format(&self) -> Format<'_> {
        Format {
            kind: self.kind,
            name: &self.name,
            clock_rate: self.clock_rate,
            channels: self.channels,
            parameters: &self.parameters,
        }
    }

    /// Whether both are the same format, so that who receives the one can receive the other.
    pub(super) fn is_same_format(&self, other: &Self) -> bool {
        self.format().is_same(other.format())
    }

    /// Whether a producer's codec is the same format.
    pub(super) fn is_format_of(&self, codec: &RtpCodec) -> bool {
        let Ok((kind, name)) = split_mime_type(&codec.mime_type) else {
            return false;
        };
        self.kind.to_string().eq_ignore_ascii_case(kind)
            && self.format().is_same(Format {
                kind: self.kind,
                name,
                clock_rate: codec.clock_rate,
                channels: codec.channels,
                parameters: &codec.parameters,
            })
    }

    /// Whether a codec of the same format has the same H264 profile, too (RFC 6184 §8.1: the first two bytes of
    /// `profile-level-id`; constrained baseline if there is none). Others have no such refinement.
    pub(super) fn has_profile_of(&self, parameters: &Map<String, Value>) -> bool {
        const LEVEL_DIGITS: usize = 2;
        let profile = |parameters: &Map<String, Value>| {
            let id = parameter(parameters, "profile-level-id")
                .and_then(Value::as_str)
                .unwrap_or("42e01f");
            id.get(..id.len().saturating_sub(LEVEL_DIGITS))
                .map(str::to_ascii_lowercase)
        };
        !self.name.eq_ignore_ascii_case("H264") || profile(&self.parameters) == profile(parameters)
    }
}

/// What makes a format.
#[derive(Clone, Copy)]
struct Format<'a> {
    kind: MediaKind,
    name: &'a str,
    clock_rate: u32,
    channels: Option<u8>,
    parameters: &'a Map<String, Value>,
}

impl Format<'_> {
    fn is_same(self, other: Self) -> bool {
        self.kind == other.kind
            && self.name.eq_ignore_ascii_case(other.name)
            && self.clock_rate == other.clock_rate
            && self.channels() == other.channels()
            && distinctions(self.name).iter().all(|(key, default)| {
                let value = |format: Self| number(format.parameters, key).unwrap_or(*default);
                value(self) == value(other)
            })
            && (!self.name.eq_ignore_ascii_case("H265") || self.tx_mode() == other.tx_mode())
    }

    fn channels(self) -> Option<u8> {
        match self.kind {
            MediaKind::Video => None,
            MediaKind::Audio if self.name.eq_ignore_ascii_case(CodecName::Opus.subtype()) => {
                Some(self.channels.unwrap_or(2))
            }
            MediaKind::Audio => Some(self.channels.unwrap_or(1)),
        }
    }

    /// RFC 7798 §7.1.
    fn tx_mode(self) -> String {
        let mode = parameter(self.parameters, "tx-mode")
            .and_then(Value::as_str)
            .unwrap_or("SRST");
        mode.to_ascii_uppercase()
    }
}

/// The parameters that are numbers and tell two formats of a codec apart, with their values when absent. Codecs that are
/// not known are told apart by name, clock rate and channels; but for one, whose streams are of no use to whoever expects
/// others.
fn distinctions(name: &str) -> &'static [(&'static str, u64)] {
    if name.eq_ignore_ascii_case("multiopus") {
        return &[("num_streams", 0), ("coupled_streams", 0)];
    }
    match CodecName::from_subtype(name) {
        // RFC 6184 §8.1.
        Some(CodecName::H264) => &[("packetization-mode", 0)],
        // RFC 9628 §6.1.
        Some(CodecName::Vp9) => &[("profile-id", 0)],
        // RFC 7798 §7.1.
        Some(CodecName::H265) => &[("profile-id", 1)],
        // The AV1 RTP specification §7.2.1.
        Some(CodecName::Av1) => &[("profile", 0)],
        _ => &[],
    }
}

/// A codec capability in a request.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CapabilityJson {
    #[serde(default, deserialize_with = "any_case_if_any")]
    kind: Option<MediaKind>,
    name: Option<String>,
    mime_type: Option<String>,
    clock_rate: u32,
    channels: Option<u8>,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(default)]
    rtcp_feedback: Vec<RtcpFeedback>,
    preferred_payload_type: Option<u8>,
}

impl TryFrom<CapabilityJson> for RtpCodecCapability {
    type Error = String;

    fn try_from(json: CapabilityJson) -> Checked<Self> {
        let (kind, name) = match (&json.mime_type, json.kind, json.name) {
            (Some(mime_type), kind, name) => {
                let (own_kind, own_name) = split_mime_type(mime_type)?;
                let own_kind = own_kind.to_ascii_lowercase().parse::<MediaKind>();
                let own_kind = own_kind.map_err(|_| format!("mimeType {mime_type:?} is neither audio nor video"))?;
                if kind.is_some_and(|kind| kind != own_kind) {
                    return Err(format!("kind contradicts mimeType {mime_type:?}"));
                }
                if let Some(name) = name.filter(|name| !name.eq_ignore_ascii_case(own_name)) {
                    return Err(format!("name {name:?} contradicts mimeType {mime_type:?}"));
                }
                (own_kind, own_name.to_owned())
            }
            (None, Some(kind), Some(name)) => (kind, name),
            (None, _, _) => return Err("a codec needs a mimeType, or a kind and a name".to_owned()),
        };
        Ok(Self {
            kind,
            name,
            clock_rate: json.clock_rate,
            channels: json.channels,
            parameters: json.parameters,
            rtcp_feedback: json.rtcp_feedback,
            preferred_payload_type: json.preferred_payload_type,
        })
    }
}

/// A codec capability in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WrittenCapability<'a> {
    kind: MediaKind,
    name: &'a str,
    mime_type: String,
    clock_rate: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<u8>,
    parameters: &'a Map<String, Value>,
    // As for codecs under a payload type.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtcp_feedback: Option<&'a [RtcpFeedback]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_payload_type: Option<u8>,
}

impl JsonSchema for RtpCodecCapability {
    fn schema_name() -> Cow<'static, str> {
        "RtpCodecCapability".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        match generator.contract().is_deserialize() {
            true => CapabilityJson::json_schema(generator),
            false => WrittenCapability::json_schema(generator),
        }
    }
}

impl Serialize for RtpCodecCapability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let no_feedback = self.is_rtx() && self.rtcp_feedback.is_empty();
        let json = WrittenCapability {
            kind: self.kind,
            name: &self.name,
            mime_type: self.mime_type(),
            clock_rate: self.clock_rate,
            channels: self.channels,
            parameters: &self.parameters,
            rtcp_feedback: (!no_feedback).then_some(&self.rtcp_feedback),
            preferred_payload_type: self.preferred_payload_type,
        };
        json.serialize(serializer)
    }
}
