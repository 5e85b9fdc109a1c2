//! A codec under a payload type: its JSON, and what of it a worker must know.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use weir_channel::message::{CodecName, MediaKind};

use super::Checked;

/// The most feedback of one codec. Browsers list seven kinds.
const FEEDBACK_MAX: usize = 16;

/// The most format parameters of one codec. H265 has 25 (RFC 7798 §7.1).
const FORMAT_PARAMETERS_MAX: usize = 32;

/// The most bytes in a format parameter that is a text: the parameter sets of H264 and H265, in base64, take hundreds.
const FORMAT_VALUE_BYTES_MAX: usize = 1_024;

/// The most channels of a codec that is not known: L16 and its like go up to some dozens (RFC 3190 §3).
const CHANNELS_MAX: u8 = 64;

/// The most bytes in a name: of a codec, of a kind of feedback, of a format parameter.
const TEXT_BYTES_MAX: usize = 64;

/// A codec under a payload type. In JSON it also has its `name`, which is the media subtype once more; when read, the name
/// may be left out but not contradict.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(try_from = "CodecJson")]
pub struct RtpCodec {
    /// `audio/` or `video/` and the media subtype, whatever its case, e.g. `video/VP8`. Any will do: those that are not known
    /// are relayed as they are (see `docs/api.md`).
    pub mime_type: String,
    /// 0..=127, except 64..=95 (RFC 5761 §4: those collide with RTCP).
    pub payload_type: u8,
    /// The RTP clock, in Hz.
    pub clock_rate: u32,
    /// Audio channels, 1 to 64; opus always has 2 (RFC 7587 §7).
    pub channels: Option<u8>,
    /// Format parameters (`a=fmtp`), handed to consumers as they are. Those of `rtx` must have `apt`, the payload type that
    /// it repairs.
    pub parameters: Map<String, Value>,
    /// The feedback the sender understands: `nack pli` and `ccm fir` make key frame requests possible, `nack` repairs,
    /// `goog-remb` limits of the bitrate.
    pub rtcp_feedback: Vec<RtcpFeedback>,
}

impl RtpCodec {
    /// The codec with its usual clock rate, channels and (for video) `nack pli` and `ccm fir`.
    pub fn new(name: CodecName, payload_type: u8) -> Self {
        let rtcp_feedback = match name.kind() {
            MediaKind::Audio => Vec::new(),
            MediaKind::Video => vec![RtcpFeedback::new("nack", "pli"), RtcpFeedback::new("ccm", "fir")],
        };
        Self {
            mime_type: mime_type(name),
            payload_type,
            clock_rate: clock_rate(name),
            channels: (name == CodecName::Opus).then_some(2),
            parameters: Map::new(),
            rtcp_feedback,
        }
    }

    /// The `rtx` codec (RFC 4588) that repairs another.
    pub fn rtx(payload_type: u8, repaired: &Self) -> Self {
        let kind = split_mime_type(&repaired.mime_type).map_or("video", |(kind, _)| kind);
        Self {
            mime_type: format!("{kind}/rtx"),
            payload_type,
            clock_rate: repaired.clock_rate,
            channels: None,
            parameters: Map::from_iter([("apt".to_owned(), repaired.payload_type.into())]),
            rtcp_feedback: Vec::new(),
        }
    }

    /// The payload type that it has by convention (RFC 3551 §6), if it has one.
    pub fn conventional_payload_type(&self) -> Option<u8> {
        let (kind, subtype) = split_mime_type(&self.mime_type).ok()?;
        let kind = kind.to_ascii_lowercase().parse().ok()?;
        conventional_payload_type(kind, subtype, self.clock_rate, self.channels.unwrap_or(1))
    }

    /// Whether it carries retransmissions of another codec.
    pub fn is_rtx(&self) -> bool {
        split_mime_type(&self.mime_type).is_ok_and(|(_, subtype)| subtype.eq_ignore_ascii_case("rtx"))
    }

    /// Whether it goes along with another codec and is none itself.
    pub(crate) fn is_companion(&self) -> bool {
        matches!(Subtype::parse(&self.mime_type), Ok(Subtype::Media(name)) if name.is_companion())
    }

    /// The payload type that an `rtx` codec repairs.
    pub(crate) fn apt(&self) -> Option<u8> {
        number(&self.parameters, "apt").and_then(|apt| u8::try_from(apt).ok())
    }

    /// Whether it lists feedback that has no parameter.
    pub(crate) fn has_feedback(&self, r#type: &str) -> bool {
        self.rtcp_feedback.iter().any(|feedback| feedback.is(r#type, ""))
    }

    /// Whether it lists feedback with this parameter.
    pub(crate) fn has_feedback_of(&self, r#type: &str, parameter: &str) -> bool {
        self.rtcp_feedback.iter().any(|feedback| feedback.is(r#type, parameter))
    }

    /// Checks it for a producer of this kind, apart from what depends on the other codecs.
    pub(super) fn check(&self, kind: MediaKind) -> Checked<Subtype> {
        check_payload_type(self.payload_type)?;
        let mime_type = &self.mime_type;
        check_text("mimeType", mime_type)?;
        check_format_parameters(&self.parameters)?;
        check_feedback(&self.rtcp_feedback)?;
        let (own_kind, _) = split_mime_type(mime_type)?;
        let subtype = Subtype::parse(mime_type)?;
        if !own_kind.eq_ignore_ascii_case(&kind.to_string()) {
            return Err(format!(
                "{mime_type} is not {kind}, but the producer's kind is; correct one of them"
            ));
        }
        let Subtype::Media(name) = subtype else {
            return Ok(subtype);
        };
        check_opaque(name, mime_type, self.clock_rate, self.channels)?;
        if CodecName::OPAQUE.contains(&name) {
            return Ok(subtype);
        }
        if self.clock_rate != clock_rate(name) {
            return Err(format!(
                "the clockRate of {mime_type} is {}, not {}",
                clock_rate(name),
                self.clock_rate
            ));
        }
        match (name, self.channels) {
            (_, None) | (CodecName::Opus, Some(2)) => {}
            (CodecName::Opus, Some(_)) => {
                return Err("opus always has 2 channels in RTP, even when it carries mono (RFC 7587)".to_owned());
            }
            (_, Some(_)) if kind == MediaKind::Video => {
                return Err(format!("{mime_type} has no channels; leave them out"));
            }
            (_, Some(1..=2)) => {}
            (_, Some(channels)) => return Err(format!("{mime_type} has 1 or 2 channels, not {channels}")),
        }
        Ok(subtype)
    }
}

/// What a codec is, by its media subtype.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Subtype {
    Media(CodecName),
    Rtx,
}

impl Subtype {
    /// What a MIME type says, if it is something that is relayed.
    pub(crate) fn parse(mime_type: &str) -> Checked<Self> {
        let (kind, subtype) = split_mime_type(mime_type)?;
        let Ok(kind) = kind.to_ascii_lowercase().parse::<MediaKind>() else {
            return Err(format!(
                "{mime_type:?} is neither audio nor video, and so is not relayed"
            ));
        };
        if subtype.eq_ignore_ascii_case("rtx") {
            return Ok(Self::Rtx);
        }
        match CodecName::from_subtype(subtype) {
            Some(name) if name.kind() == kind => Ok(Self::Media(name)),
            Some(name) => Err(format!(
                "{mime_type:?} is not a codec that is relayed; {} is",
                self::mime_type(name)
            )),
            None => {
                check_subtype(subtype)?;
                Ok(Self::Media(opaque(kind, subtype)))
            }
        }
    }
}

/// A kind of RTCP feedback (`a=rtcp-fb`, RFC 4585 §4.2).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RtcpFeedback {
    /// The type, e.g. `nack`, `ccm`, `goog-remb` or `transport-cc`.
    pub r#type: String,
    /// The parameter, e.g. `pli` or `fir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

impl RtcpFeedback {
    /// Feedback with a parameter, e.g. `nack pli`; none if that is empty, as in `nack`.
    pub fn new(r#type: &str, parameter: &str) -> Self {
        Self {
            r#type: r#type.to_owned(),
            parameter: (!parameter.is_empty()).then(|| parameter.to_owned()),
        }
    }

    /// Whether both are the same kind of feedback.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.is(&other.r#type, other.parameter.as_deref().unwrap_or_default())
    }

    fn is(&self, r#type: &str, parameter: &str) -> bool {
        let own = self.parameter.as_deref().unwrap_or_default();
        self.r#type.eq_ignore_ascii_case(r#type) && own.eq_ignore_ascii_case(parameter)
    }
}

/// A codec in a request.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CodecJson {
    name: Option<String>,
    mime_type: String,
    payload_type: u8,
    clock_rate: u32,
    channels: Option<u8>,
    #[serde(default)]
    parameters: Map<String, Value>,
    #[serde(default)]
    rtcp_feedback: Vec<RtcpFeedback>,
}

impl TryFrom<CodecJson> for RtpCodec {
    type Error = String;

    fn try_from(json: CodecJson) -> Checked<Self> {
        if let Some(name) = &json.name
            && let Ok((_, subtype)) = split_mime_type(&json.mime_type)
            && !subtype.eq_ignore_ascii_case(name)
        {
            return Err(format!("name {name:?} contradicts mimeType {:?}", json.mime_type));
        }
        Ok(Self {
            mime_type: json.mime_type,
            payload_type: json.payload_type,
            clock_rate: json.clock_rate,
            channels: json.channels,
            parameters: json.parameters,
            rtcp_feedback: json.rtcp_feedback,
        })
    }
}

/// A codec in an answer.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct WrittenCodec<'a> {
    name: &'a str,
    mime_type: &'a str,
    payload_type: u8,
    clock_rate: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<u8>,
    parameters: &'a Map<String, Value>,
    // As mediasoup writes it: retransmissions have none, media may have an empty list.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtcp_feedback: Option<&'a [RtcpFeedback]>,
}

impl JsonSchema for RtpCodec {
    fn schema_name() -> Cow<'static, str> {
        "RtpCodec".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        match generator.contract().is_deserialize() {
            true => CodecJson::json_schema(generator),
            false => WrittenCodec::json_schema(generator),
        }
    }
}

impl Serialize for RtpCodec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = split_mime_type(&self.mime_type).map_or(self.mime_type.as_str(), |(_, subtype)| subtype);
        let no_feedback = self.is_rtx() && self.rtcp_feedback.is_empty();
        let json = WrittenCodec {
            name,
            mime_type: &self.mime_type,
            payload_type: self.payload_type,
            clock_rate: self.clock_rate,
            channels: self.channels,
            parameters: &self.parameters,
            rtcp_feedback: (!no_feedback).then_some(&self.rtcp_feedback),
        };
        json.serialize(serializer)
    }
}

/// What a codec is that is not known by its payload format.
fn opaque(kind: MediaKind, subtype: &str) -> CodecName {
    /// RFC 4733, RFC 3389, and the forward error correction of RFC 2733, RFC 5109, RFC 8627 and what came before it.
    const SIGNALS: [&str; 3] = ["telephone-event", "tone", "CN"];
    const CORRECTION: [&str; 5] = ["parityfec", "ulpfec", "flexfec", "flexfec-03", "x-ulpfecuc"];
    let is_one_of = |names: &[&str]| names.iter().any(|name| name.eq_ignore_ascii_case(subtype));
    match kind {
        MediaKind::Audio if is_one_of(&SIGNALS) || is_one_of(&CORRECTION) => CodecName::AudioCompanion,
        MediaKind::Audio => CodecName::OtherAudio,
        MediaKind::Video if is_one_of(&CORRECTION) => CodecName::VideoCompanion,
        MediaKind::Video => CodecName::OtherVideo,
    }
}

/// Checks what is said of a codec that is not known.
pub(crate) fn check_opaque(name: CodecName, mime_type: &str, clock_rate: u32, channels: Option<u8>) -> Checked<()> {
    if !CodecName::OPAQUE.contains(&name) {
        return Ok(());
    }
    if clock_rate == 0 {
        return Err(format!("the clockRate of {mime_type} cannot be 0"));
    }
    match (name.kind(), channels) {
        (_, None) | (MediaKind::Audio, Some(1..=CHANNELS_MAX)) => Ok(()),
        (MediaKind::Video, Some(_)) => Err(format!("{mime_type} has no channels; leave them out")),
        (MediaKind::Audio, Some(channels)) => Err(format!(
            "{mime_type} can have 1 to {CHANNELS_MAX} channels, not {channels}"
        )),
    }
}

/// Checks that a media subtype is a name as there can be one (RFC 6838 §4.2).
fn check_subtype(subtype: &str) -> Checked<()> {
    check_text("the name of a codec", subtype)?;
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
    let is_name = subtype.bytes().all(is_allowed) && subtype.starts_with(|first: char| first.is_ascii_alphanumeric());
    match is_name {
        true => Ok(()),
        false => Err(format!(
            "{subtype:?} cannot be the name of a codec: letters, digits and !#$&-^_.+ (RFC 6838 §4.2)"
        )),
    }
}

/// The payload type that a codec has by convention (RFC 3551 §6).
pub(crate) fn conventional_payload_type(kind: MediaKind, subtype: &str, clock_rate: u32, channels: u8) -> Option<u8> {
    const AUDIO: [(&str, u32, u8, u8); 17] = [
        ("PCMU", 8_000, 1, 0),
        ("GSM", 8_000, 1, 3),
        ("G723", 8_000, 1, 4),
        ("DVI4", 8_000, 1, 5),
        ("DVI4", 16_000, 1, 6),
        ("LPC", 8_000, 1, 7),
        ("PCMA", 8_000, 1, 8),
        ("G722", 8_000, 1, 9),
        ("L16", 44_100, 2, 10),
        ("L16", 44_100, 1, 11),
        ("QCELP", 8_000, 1, 12),
        ("CN", 8_000, 1, 13),
        ("MPA", 90_000, 1, 14),
        ("G728", 8_000, 1, 15),
        ("DVI4", 11_025, 1, 16),
        ("DVI4", 22_050, 1, 17),
        ("G729", 8_000, 1, 18),
    ];
    const VIDEO: [(&str, u8); 7] = [
        ("CelB", 25),
        ("JPEG", 26),
        ("nv", 28),
        ("H261", 31),
        ("MPV", 32),
        ("MP2T", 33),
        ("H263", 34),
    ];
    match kind {
        MediaKind::Audio => {
            let mut rows = AUDIO.into_iter();
            rows.find(|(name, rate, count, _)| {
                name.eq_ignore_ascii_case(subtype) && (*rate, *count) == (clock_rate, channels)
            })
            .map(|(.., payload_type)| payload_type)
        }
        MediaKind::Video if clock_rate == 90_000 => {
            let mut rows = VIDEO.into_iter();
            rows.find(|(name, _)| name.eq_ignore_ascii_case(subtype))
                .map(|(_, payload_type)| payload_type)
        }
        MediaKind::Video => None,
    }
}

/// Of a codec that is known.
pub(crate) fn mime_type(name: CodecName) -> String {
    format!("{}/{}", name.kind(), name.subtype())
}

pub(crate) fn clock_rate(name: CodecName) -> u32 {
    match name {
        CodecName::Opus => 48_000,
        CodecName::Pcmu | CodecName::Pcma | CodecName::G722 => 8_000,
        CodecName::Vp8 | CodecName::Vp9 | CodecName::H264 | CodecName::H265 | CodecName::Av1 => 90_000,
        // What most of them have (RFC 3551 §4.5, §5).
        CodecName::OtherAudio | CodecName::AudioCompanion => 8_000,
        CodecName::OtherVideo | CodecName::VideoCompanion => 90_000,
    }
}

pub(crate) fn split_mime_type(mime_type: &str) -> Checked<(&str, &str)> {
    mime_type
        .split_once('/')
        .ok_or_else(|| format!("mimeType {mime_type:?} must look like video/VP8"))
}

/// A format parameter. Their names have no case (RFC 4855 §3).
pub(crate) fn parameter<'a>(parameters: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let in_another_case = || parameters.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
    parameters
        .get(name)
        .or_else(|| in_another_case().map(|(_, value)| value))
}

/// Puts a format parameter in place of the one of this name.
pub(crate) fn set_parameter(parameters: &mut Map<String, Value>, name: &str, value: Value) {
    parameters.retain(|own, _| !own.eq_ignore_ascii_case(name));
    parameters.insert(name.to_owned(), value);
}

/// A format parameter that is a number. Some clients write numbers, some write them as in SDP.
pub(crate) fn number(parameters: &Map<String, Value>, key: &str) -> Option<u64> {
    match parameter(parameters, key)? {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

pub(crate) fn check_payload_type(payload_type: u8) -> Checked<()> {
    match payload_type {
        0..=63 | 96..=127 => Ok(()),
        64..=95 => Err(format!(
            "payloadType {payload_type} collides with RTCP (RFC 5761); use 96 to 127"
        )),
        128.. => Err(format!(
            "payloadType {payload_type} has more than 7 bits; use 96 to 127"
        )),
    }
}

/// Checks that feedback is no more than there can be.
pub(crate) fn check_feedback(feedback: &[RtcpFeedback]) -> Checked<()> {
    if feedback.len() > FEEDBACK_MAX {
        return Err(format!(
            "rtcpFeedback can list at most {FEEDBACK_MAX}, not {}",
            feedback.len()
        ));
    }
    for RtcpFeedback { r#type, parameter } in feedback {
        check_text("the type of rtcpFeedback", r#type)?;
        check_text(
            "the parameter of rtcpFeedback",
            parameter.as_deref().unwrap_or_default(),
        )?;
    }
    Ok(())
}

/// Checks that format parameters are few and flat.
pub(crate) fn check_format_parameters(parameters: &Map<String, Value>) -> Checked<()> {
    if parameters.len() > FORMAT_PARAMETERS_MAX {
        return Err(format!(
            "a codec can have at most {FORMAT_PARAMETERS_MAX} parameters, not {}",
            parameters.len()
        ));
    }
    for (name, value) in parameters {
        check_text("the name of a codec's parameter", name)?;
        match value {
            Value::String(text) if text.len() > FORMAT_VALUE_BYTES_MAX => {
                return Err(format!(
                    "parameter {name} of a codec has more than {FORMAT_VALUE_BYTES_MAX} bytes"
                ));
            }
            Value::Array(_) | Value::Object(_) => {
                return Err(format!(
                    "parameter {name} of a codec must be a text, a number or a boolean"
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks the length of a name.
pub(crate) fn check_text(what: &str, text: &str) -> Checked<()> {
    match text.len() {
        0..=TEXT_BYTES_MAX => Ok(()),
        len => Err(format!("{what} can have at most {TEXT_BYTES_MAX} bytes, not {len}")),
    }
}
