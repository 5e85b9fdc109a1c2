//! What a producer sends and what a consumer receives, in the JSON shape of mediasoup (spec §5), and how it becomes
//! what a worker understands.
//!
//! Everything is checked here, before a worker hears of it; an error says what to change. Codecs that are not media of
//! their own (`rtx`, `ulpfec`, `flexfec`, `red`, `CN`, `telephone-event`) are not relayed yet, and so are refused rather
//! than ignored. Unknown header extensions are fine: senders offer many, and those the worker does not know are simply
//! not relayed.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{
    Codec, CodecName, CreateConsumer, CreateProducer, Encoding, ExtensionUri, HeaderExtension, MediaKind, Profile,
};

/// How RTP is sent: the codecs and their payload types, the header extensions and their ids, the streams.
///
/// ```
/// use weir::{CodecName, RtpCodec, RtpEncoding, RtpParameters};
///
/// let camera = RtpParameters {
///     codecs: vec![RtpCodec::new(CodecName::Vp8, 96)],
///     encodings: vec![RtpEncoding::ssrc(0x5eed_0001)],
///     ..RtpParameters::default()
/// };
/// let json = serde_json::to_value(&camera)?;
/// assert_eq!(json["codecs"][0]["mimeType"], "video/VP8");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RtpParameters {
    /// The media id (RFC 8843 §15) that the packets may carry; 1 to 32 bytes. Needs the `sdes:mid` header extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mux_id: Option<String>,
    /// The codecs, 1 to 16, each under its own payload type.
    pub codecs: Vec<RtpCodec>,
    /// The header extensions (RFC 8285), each under its own id.
    #[serde(default)]
    pub header_extensions: Vec<RtpHeaderExtension>,
    /// The streams: one, or up to three simulcast layers with distinct profiles.
    pub encodings: Vec<RtpEncoding>,
    /// What holds for the RTCP of all streams.
    #[serde(default)]
    pub rtcp: RtcpParameters,
}

/// A codec under a payload type.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RtpCodec {
    /// `audio/` or `video/` and the media subtype, whatever its case, e.g. `video/VP8`.
    pub mime_type: String,
    /// 0..=127, except 64..=95 (RFC 5761 §4: those collide with RTCP).
    pub payload_type: u8,
    /// The RTP clock, in Hz.
    pub clock_rate: u32,
    /// Audio channels; opus always has 2 (RFC 7587 §7).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<u8>,
    /// Format parameters (`a=fmtp`), handed to consumers as they are.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub parameters: Map<String, Value>,
    /// The feedback the sender understands; `nack pli` and `ccm fir` make key frame requests possible.
    #[serde(default)]
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
}

fn mime_type(name: CodecName) -> String {
    format!("{}/{}", name.kind(), name.subtype())
}

fn clock_rate(name: CodecName) -> u32 {
    match name {
        CodecName::Opus => 48_000,
        CodecName::Pcmu | CodecName::Pcma | CodecName::G722 => 8_000,
        CodecName::Vp8 | CodecName::Vp9 | CodecName::H264 | CodecName::H265 | CodecName::Av1 => 90_000,
    }
}

/// A kind of RTCP feedback (`a=rtcp-fb`, RFC 4585 §4.2).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RtcpFeedback {
    /// E.g. `nack`, `ccm`, `goog-remb`, `transport-cc`.
    pub r#type: String,
    /// E.g. `pli`, `fir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parameter: Option<String>,
}

impl RtcpFeedback {
    /// Feedback with a parameter, e.g. `nack pli`.
    pub fn new(r#type: &str, parameter: &str) -> Self {
        Self {
            r#type: r#type.to_owned(),
            parameter: Some(parameter.to_owned()),
        }
    }

    fn is(&self, r#type: &str, parameter: &str) -> bool {
        self.r#type.eq_ignore_ascii_case(r#type)
            && self
                .parameter
                .as_ref()
                .is_some_and(|own| own.eq_ignore_ascii_case(parameter))
    }
}

/// A header extension under an id.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RtpHeaderExtension {
    /// What it means, as in `a=extmap`.
    pub uri: String,
    /// 1..=14.
    pub id: u8,
}

impl RtpHeaderExtension {
    /// An extension the worker knows, under an id.
    pub fn new(uri: ExtensionUri, id: u8) -> Self {
        Self {
            uri: uri.uri().to_owned(),
            id,
        }
    }
}

/// One stream.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RtpEncoding {
    /// Its SSRC, if known in advance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
    /// Its RTP stream id (RFC 8852); 1 to 32 letters, digits, `-` and `_`. Needs the `sdes:rtp-stream-id` header extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding_id: Option<String>,
    /// Which simulcast layer it is: `low`, `medium` or `high`. Not for a lone stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
}

impl RtpEncoding {
    /// The only stream of a track.
    pub fn ssrc(ssrc: u32) -> Self {
        Self {
            ssrc: Some(ssrc),
            ..Self::default()
        }
    }

    /// A simulcast layer known by its SSRC.
    pub fn layer(ssrc: u32, profile: Profile) -> Self {
        Self {
            ssrc: Some(ssrc),
            encoding_id: None,
            profile: Some(profile),
        }
    }
}

/// What holds for the RTCP of all streams.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RtcpParameters {
    /// The canonical name (RFC 3550 §6.5.1); 1 to 255 bytes. Made up if the producer does not give one; its consumers
    /// share it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cname: Option<String>,
}

/// How a consumer's receiver wants to be sent to, where it differs from how the producer sends.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConsumerRtp {
    /// The SSRC to send under; unique on its transport. Made up if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
    /// The producer's payload type → the consumer's. Only the codecs listed here are consumed; empty: all, under the
    /// producer's payload types.
    pub payload_types: BTreeMap<u8, u8>,
    /// The extensions the receiver understands, under its own ids; those the producer does not send are left out.
    /// Absent: the producer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_extensions: Option<Vec<RtpHeaderExtension>>,
}

/// Where a producer is made, and how it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProducerSeat {
    pub(crate) room: RoomId,
    pub(crate) transport: TransportId,
    pub(crate) producer: ProducerId,
    pub(crate) kind: MediaKind,
    pub(crate) preferred_profile: Profile,
    pub(crate) paused: bool,
}

/// Where a consumer is made, and how it starts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConsumerSeat {
    pub(crate) room: RoomId,
    pub(crate) transport: TransportId,
    pub(crate) producer: ProducerId,
    pub(crate) consumer: ConsumerId,
    pub(crate) preferred_profile: Profile,
    pub(crate) paused: bool,
}

/// What a check says when it fails: a sentence for [`Error::InvalidParameters`](super::Error::InvalidParameters).
type Checked<T> = Result<T, String>;

impl RtpParameters {
    /// Checks the parameters and turns them into the worker's request.
    pub(crate) fn create_producer(&self, seat: ProducerSeat) -> Checked<CreateProducer> {
        let codecs = self.check_codecs(seat.kind)?;
        let header_extensions = check_header_extensions(&self.header_extensions)?;
        let has = |uri| header_extensions.iter().any(|extension| extension.uri == uri);
        if let Some(mid) = &self.mux_id {
            if mid.is_empty() || mid.len() > 32 {
                return Err("muxId must have 1 to 32 bytes".to_owned());
            }
            if !has(ExtensionUri::Mid) {
                return Err(format!(
                    "muxId needs the header extension it travels in: add {}",
                    ExtensionUri::Mid.uri()
                ));
            }
        }
        let encodings = self.check_encodings(seat.kind)?;
        if encodings.iter().any(|encoding| encoding.rid.is_some()) && !has(ExtensionUri::RtpStreamId) {
            return Err(format!(
                "encodingId needs the header extension it travels in: add {}",
                ExtensionUri::RtpStreamId.uri()
            ));
        }
        if let Some(cname) = &self.rtcp.cname
            && (cname.is_empty() || cname.len() > 255)
        {
            return Err("rtcp.cname must have 1 to 255 bytes".to_owned());
        }
        Ok(CreateProducer {
            room: seat.room,
            transport: seat.transport,
            producer: seat.producer,
            kind: seat.kind,
            mid: self.mux_id.clone(),
            codecs,
            encodings,
            header_extensions,
            preferred_profile: seat.preferred_profile,
            paused: seat.paused,
            reduced_size: true,
        })
    }

    /// What a consumer of a producer with these (checked) parameters is sent, and the worker's request for it.
    pub(crate) fn create_consumer(
        &self,
        seat: ConsumerSeat,
        wanted: &ConsumerRtp,
        ssrc: u32,
    ) -> Checked<(CreateConsumer, Self)> {
        let (payload_types, codecs) = self.consumed_codecs(&wanted.payload_types)?.into_iter().unzip();
        let extensions = self.consumed_header_extensions(wanted.header_extensions.as_deref())?;
        let request = CreateConsumer {
            room: seat.room,
            transport: seat.transport,
            producer: seat.producer,
            consumer: seat.consumer,
            ssrc,
            payload_types,
            header_extensions: extensions.clone(),
            preferred_profile: seat.preferred_profile,
            paused: seat.paused,
            nack: false,
            rtx: None,
            cname: self.rtcp.cname.clone().unwrap_or_else(|| "weir".to_owned()),
        };
        let parameters = Self {
            mux_id: None,
            codecs,
            header_extensions: extensions
                .into_iter()
                .map(|extension| RtpHeaderExtension::new(extension.uri, extension.id))
                .collect(),
            encodings: vec![RtpEncoding::ssrc(ssrc)],
            rtcp: self.rtcp.clone(),
        };
        Ok((request, parameters))
    }

    fn check_codecs(&self, kind: MediaKind) -> Checked<Vec<Codec>> {
        if self.codecs.is_empty() || self.codecs.len() > 16 {
            return Err(format!("codecs must list 1 to 16 codecs, not {}", self.codecs.len()));
        }
        let mut payload_types = BTreeSet::new();
        self.codecs
            .iter()
            .map(|codec| {
                check_payload_type(codec.payload_type)?;
                if !payload_types.insert(codec.payload_type) {
                    return Err(format!("payloadType {} is listed twice", codec.payload_type));
                }
                check_codec(codec, kind)
            })
            .collect()
    }

    fn check_encodings(&self, kind: MediaKind) -> Checked<Vec<Encoding>> {
        let count = self.encodings.len();
        if count == 0 || count > 3 {
            return Err(format!("encodings must list 1 to 3 streams, not {count}"));
        }
        if count > 1 && kind == MediaKind::Audio {
            return Err("an audio producer has one encoding; simulcast is for video".to_owned());
        }
        let mut ssrcs = BTreeSet::new();
        let mut rids = BTreeSet::new();
        let mut profiles = BTreeSet::new();
        self.encodings
            .iter()
            .map(|encoding| {
                let profile = match (count, encoding.profile) {
                    (1, None) => Profile::Default,
                    (1, Some(_)) => {
                        return Err("a lone encoding must not carry a profile; leave it out".to_owned());
                    }
                    (_, None | Some(Profile::Default)) => {
                        return Err("with several encodings each needs a profile: low, medium or high".to_owned());
                    }
                    (_, Some(profile)) => profile,
                };
                if !profiles.insert(profile) {
                    return Err(format!("profile {profile} is used by two encodings; give each its own"));
                }
                if let Some(ssrc) = encoding.ssrc
                    && !ssrcs.insert(ssrc)
                {
                    return Err(format!("ssrc {ssrc} is used by two encodings; give each its own"));
                }
                if let Some(rid) = &encoding.encoding_id {
                    check_rid(rid)?;
                    if !rids.insert(rid) {
                        return Err(format!(
                            "encodingId {rid:?} is used by two encodings; give each its own"
                        ));
                    }
                }
                let recognisable =
                    encoding.ssrc.is_some() || encoding.encoding_id.is_some() || (count == 1 && self.mux_id.is_some());
                if !recognisable {
                    return Err(
                        "an encoding needs an ssrc or an encodingId (a lone one may do with the muxId)".to_owned(),
                    );
                }
                Ok(Encoding {
                    ssrc: encoding.ssrc,
                    rid: encoding.encoding_id.clone(),
                    profile,
                    rtx_ssrc: None,
                })
            })
            .collect()
    }

    /// Each codec that is consumed, after (the producer's payload type, the consumer's).
    fn consumed_codecs(&self, wanted: &BTreeMap<u8, u8>) -> Checked<Vec<((u8, u8), RtpCodec)>> {
        let mut taken = BTreeSet::new();
        for (from, to) in wanted {
            if !self.codecs.iter().any(|codec| codec.payload_type == *from) {
                return Err(format!("payloadTypes names {from}, which the producer does not send"));
            }
            check_payload_type(*to)?;
            if !taken.insert(to) {
                return Err(format!("payloadTypes gives {to} to two codecs; give each its own"));
            }
        }
        Ok(self
            .codecs
            .iter()
            .filter_map(|codec| {
                let from = codec.payload_type;
                let to = if wanted.is_empty() { from } else { *wanted.get(&from)? };
                let codec = RtpCodec {
                    payload_type: to,
                    ..codec.clone()
                };
                Some(((from, to), codec))
            })
            .collect())
    }

    fn consumed_header_extensions(&self, wanted: Option<&[RtpHeaderExtension]>) -> Checked<Vec<HeaderExtension>> {
        let sent = check_header_extensions(&self.header_extensions)?;
        let understood = match wanted {
            Some(wanted) => check_header_extensions(wanted)?,
            None => sent.clone(),
        };
        Ok(understood
            .into_iter()
            .filter(|extension| extension.uri.is_relayed())
            .filter(|extension| sent.iter().any(|sent| sent.uri == extension.uri))
            .collect())
    }
}

fn check_payload_type(payload_type: u8) -> Checked<()> {
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

fn check_codec(codec: &RtpCodec, kind: MediaKind) -> Checked<Codec> {
    let mime_type = &codec.mime_type;
    let (own_kind, subtype) = mime_type
        .split_once('/')
        .ok_or_else(|| format!("mimeType {mime_type:?} must look like video/VP8"))?;
    let name = CodecName::from_subtype(subtype)
        .filter(|name| name.kind().to_string().eq_ignore_ascii_case(own_kind))
        .ok_or_else(|| not_relayed(mime_type, subtype))?;
    if name.kind() != kind {
        return Err(format!(
            "{mime_type} is not {kind}, but the producer's kind is; correct one of them"
        ));
    }
    if codec.clock_rate != clock_rate(name) {
        return Err(format!(
            "the clockRate of {mime_type} is {}, not {}",
            clock_rate(name),
            codec.clock_rate
        ));
    }
    match (name, codec.channels) {
        (_, None) | (CodecName::Opus, Some(2)) => {}
        (CodecName::Opus, Some(_)) => {
            return Err("opus always has 2 channels in RTP, even when it carries mono (RFC 7587)".to_owned());
        }
        (_, Some(_)) if kind == MediaKind::Video => return Err(format!("{mime_type} has no channels; leave them out")),
        (_, Some(1..=2)) => {}
        (_, Some(channels)) => return Err(format!("{mime_type} has 1 or 2 channels, not {channels}")),
    }
    let has = |r#type, parameter| codec.rtcp_feedback.iter().any(|fb| fb.is(r#type, parameter));
    Ok(Codec {
        payload_type: codec.payload_type,
        name,
        clock_rate: codec.clock_rate,
        pli: has("nack", "pli"),
        fir: has("ccm", "fir"),
        nack: false,
        remb: false,
        rtx: None,
    })
}

fn not_relayed(mime_type: &str, subtype: &str) -> String {
    const COMPLEMENTARY: [&str; 7] = ["rtx", "ulpfec", "flexfec", "flexfec-03", "red", "CN", "telephone-event"];
    if COMPLEMENTARY.iter().any(|name| name.eq_ignore_ascii_case(subtype)) {
        return format!("{mime_type} is not relayed yet; leave it out of the codecs");
    }
    let known: Vec<String> = CodecName::ALL.into_iter().map(self::mime_type).collect();
    format!("{mime_type:?} is not a codec that is relayed: {}", known.join(", "))
}

fn check_header_extensions(extensions: &[RtpHeaderExtension]) -> Checked<Vec<HeaderExtension>> {
    if extensions.len() > 14 {
        return Err("headerExtensions can list at most 14, one for each id".to_owned());
    }
    let mut ids = BTreeSet::new();
    let mut uris = BTreeSet::new();
    let mut known = Vec::new();
    for RtpHeaderExtension { uri, id } in extensions {
        if !(1..=14).contains(id) {
            return Err(format!(
                "the id of header extension {uri} must be 1 to 14 (RFC 8285 §4.2), not {id}"
            ));
        }
        if !ids.insert(*id) {
            return Err(format!("header extension id {id} is used twice; give each its own"));
        }
        if !uris.insert(uri.to_ascii_lowercase()) {
            return Err(format!("header extension {uri} is listed twice"));
        }
        known.extend(extension_uri(uri).map(|uri| HeaderExtension { id: *id, uri }));
    }
    Ok(known)
}

/// The known extension with this URI. Schemes and hosts have no case, and senders differ in the rest (spec §5.7 lowers
/// it as well).
fn extension_uri(uri: &str) -> Option<ExtensionUri> {
    ExtensionUri::ALL
        .into_iter()
        .find(|known| known.uri().eq_ignore_ascii_case(uri))
}

fn check_rid(rid: &str) -> Checked<()> {
    // RFC 8851 §10: rid-id = 1*(alpha-numeric / "-" / "_"); RFC 8852 limits what fits a one-byte extension.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if rid.is_empty() || rid.len() > 32 || !rid.bytes().all(allowed) {
        return Err(format!(
            "encodingId {rid:?} must have 1 to 32 letters, digits, '-' and '_'"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
    const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
    const LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
    const ORIENTATION: &str = "urn:3gpp:video-orientation";

    fn producer_seat(kind: MediaKind) -> ProducerSeat {
        ProducerSeat {
            room: RoomId(1),
            transport: TransportId(2),
            producer: ProducerId(3),
            kind,
            preferred_profile: Profile::Default,
            paused: false,
        }
    }

    fn consume(parameters: &RtpParameters, wanted: &ConsumerRtp) -> Checked<(CreateConsumer, RtpParameters)> {
        let seat = ConsumerSeat {
            room: RoomId(1),
            transport: TransportId(2),
            producer: ProducerId(3),
            consumer: ConsumerId(4),
            preferred_profile: Profile::Default,
            paused: false,
        };
        parameters.create_consumer(seat, wanted, 77)
    }

    /// A good description of a simulcast camera, for tests to spoil.
    fn camera() -> Value {
        json!({
            "muxId": "0",
            "codecs": [
                {
                    "mimeType": "video/VP8", "payloadType": 96, "clockRate": 90000,
                    "rtcpFeedback": [{"type": "nack"}, {"type": "nack", "parameter": "pli"}, {"type": "goog-remb"}]
                },
                {
                    "mimeType": "video/h264", "payloadType": 97, "clockRate": 90000,
                    "parameters": {"packetization-mode": 1, "profile-level-id": "42e01f"},
                    "rtcpFeedback": [{"type": "ccm", "parameter": "fir"}]
                }
            ],
            "headerExtensions": [
                {"uri": MID, "id": 1}, {"uri": RID, "id": 2}, {"uri": ORIENTATION, "id": 4},
                {"uri": "urn:example:unheard-of", "id": 9}
            ],
            "encodings": [
                {"encodingId": "low", "profile": "low"}, {"encodingId": "mid", "profile": "medium"},
                {"ssrc": 3003, "profile": "high"}
            ],
            "rtcp": {"cname": "camera@example"}
        })
    }

    fn produce(json: Value, kind: MediaKind) -> Checked<CreateProducer> {
        let parameters: RtpParameters = serde_json::from_value(json).map_err(|error| error.to_string())?;
        parameters.create_producer(producer_seat(kind))
    }

    #[test]
    fn a_camera_becomes_what_the_worker_understands() {
        let request = produce(camera(), MediaKind::Video).unwrap();
        let codec = |payload_type, name, pli, fir| Codec {
            payload_type,
            name,
            clock_rate: 90_000,
            pli,
            fir,
            nack: false,
            remb: false,
            rtx: None,
        };
        assert_eq!(
            request.codecs,
            [
                codec(96, CodecName::Vp8, true, false),
                codec(97, CodecName::H264, false, true)
            ]
        );
        let encoding = |ssrc, rid: Option<&str>, profile| Encoding {
            ssrc,
            rid: rid.map(str::to_owned),
            profile,
            rtx_ssrc: None,
        };
        assert_eq!(
            request.encodings,
            [
                encoding(None, Some("low"), Profile::Low),
                encoding(None, Some("mid"), Profile::Medium),
                encoding(Some(3003), None, Profile::High)
            ]
        );
        let extension = |id, uri| HeaderExtension { id, uri };
        assert_eq!(
            request.header_extensions,
            [
                extension(1, ExtensionUri::Mid),
                extension(2, ExtensionUri::RtpStreamId),
                extension(4, ExtensionUri::VideoOrientation)
            ],
            "what the worker does not know is left out"
        );
        assert_eq!((request.mid.as_deref(), request.kind), (Some("0"), MediaKind::Video));
    }

    #[test]
    fn every_mistake_is_refused_with_what_to_do() {
        // A path into the good camera, what to put there, and what the refusal must say.
        let rows = [
            ("/muxId", json!(""), "1 to 32 bytes"),
            ("/muxId", json!("x".repeat(33)), "1 to 32 bytes"),
            ("/codecs", json!([]), "1 to 16 codecs"),
            ("/codecs/1/payloadType", json!(96), "payloadType 96 is listed twice"),
            ("/codecs/0/payloadType", json!(72), "collides with RTCP"),
            ("/codecs/0/payloadType", json!(64), "collides with RTCP"),
            ("/codecs/0/payloadType", json!(95), "collides with RTCP"),
            ("/codecs/0/payloadType", json!(128), "more than 7 bits"),
            ("/codecs/0/payloadType", json!(256), "invalid value"),
            ("/codecs/0/mimeType", json!("VP8"), "must look like video/VP8"),
            ("/codecs/0/mimeType", json!("audio/VP8"), "not a codec that is relayed"),
            ("/codecs/0/mimeType", json!("video/Theora"), "video/VP8, video/VP9"),
            (
                "/codecs/0/mimeType",
                json!("video/rtx"),
                "not relayed yet; leave it out",
            ),
            (
                "/codecs/0/mimeType",
                json!("audio/opus"),
                "is not video, but the producer's kind is",
            ),
            ("/codecs/0/clockRate", json!(48000), "is 90000, not 48000"),
            ("/codecs/0/channels", json!(1), "has no channels"),
            ("/codecs/0/fmtp", json!("x"), "unknown field `fmtp`"),
            ("/headerExtensions/0/id", json!(0), "must be 1 to 14"),
            ("/headerExtensions/0/id", json!(15), "must be 1 to 14"),
            ("/headerExtensions/0/id", json!(2), "id 2 is used twice"),
            ("/headerExtensions/0/uri", json!(RID), "listed twice"),
            (
                "/headerExtensions/0/uri",
                json!(LEVEL),
                "muxId needs the header extension",
            ),
            (
                "/headerExtensions/1/uri",
                json!(LEVEL),
                "encodingId needs the header extension",
            ),
            ("/encodings", json!([]), "1 to 3 streams"),
            ("/encodings", json!([{}, {}, {}, {}]), "1 to 3 streams, not 4"),
            (
                "/encodings",
                json!([{"ssrc": 1, "profile": "low"}]),
                "a lone encoding must not carry a profile",
            ),
            (
                "/encodings/0/profile",
                json!("default"),
                "each needs a profile: low, medium or high",
            ),
            (
                "/encodings/0",
                json!({"ssrc": 1}),
                "each needs a profile: low, medium or high",
            ),
            (
                "/encodings/0/profile",
                json!("high"),
                "profile high is used by two encodings",
            ),
            ("/encodings/0/profile", json!("none"), "unknown variant `none`"),
            ("/encodings/0/ssrc", json!(3003), "ssrc 3003 is used by two encodings"),
            ("/encodings/0/encodingId", json!("mid"), "is used by two encodings"),
            ("/encodings/0/encodingId", json!("l~w"), "letters, digits"),
            ("/encodings/0/encodingId", json!(""), "letters, digits"),
            (
                "/encodings/0",
                json!({"profile": "low"}),
                "needs an ssrc or an encodingId",
            ),
            ("/rtcp/cname", json!(""), "1 to 255 bytes"),
            ("/rtcp/cname", json!("x".repeat(256)), "1 to 255 bytes"),
            ("/rtcp/reduced", json!(true), "unknown field `reduced`"),
            ("/transport", json!(1), "unknown field `transport`"),
        ];
        for (path, value, complaint) in rows {
            let mut spoiled = camera();
            match spoiled.pointer_mut(path) {
                Some(place) => *place = value.clone(),
                None => {
                    let (parent, key) = path.rsplit_once('/').unwrap();
                    spoiled.pointer_mut(parent).unwrap()[key] = value.clone();
                }
            }
            let error = produce(spoiled, MediaKind::Video).unwrap_err();
            assert!(error.contains(complaint), "{path} = {value}: {error}");
        }
    }

    #[test]
    fn audio_has_one_stream_and_its_own_channels() {
        let microphone = |channels, encodings| {
            json!({
                "codecs": [{"mimeType": "audio/opus", "payloadType": 111, "clockRate": 48000, "channels": channels}],
                "encodings": encodings
            })
        };
        let lone = json!([{"ssrc": 1}]);
        assert!(produce(microphone(2, lone.clone()), MediaKind::Audio).is_ok());
        let mono = produce(microphone(1, lone.clone()), MediaKind::Audio).unwrap_err();
        assert!(mono.contains("always has 2 channels"), "{mono}");
        let layers = json!([{"ssrc": 1, "profile": "low"}, {"ssrc": 2, "profile": "high"}]);
        let simulcast = produce(microphone(2, layers), MediaKind::Audio).unwrap_err();
        assert!(simulcast.contains("simulcast is for video"), "{simulcast}");
        for name in CodecName::ALL {
            let parameters = RtpParameters {
                codecs: vec![RtpCodec::new(name, 0)],
                encodings: vec![RtpEncoding::ssrc(1)],
                ..RtpParameters::default()
            };
            let request = parameters.create_producer(producer_seat(name.kind())).unwrap();
            assert_eq!(request.codecs[0].name, name);
        }
    }

    #[test]
    fn a_lone_stream_may_be_recognised_by_its_mux_id_alone() {
        let mut parameters = camera();
        parameters["encodings"] = json!([{}]);
        assert!(produce(parameters.clone(), MediaKind::Video).is_ok());
        parameters.as_object_mut().unwrap().remove("muxId");
        assert!(produce(parameters, MediaKind::Video).is_err());
    }

    #[test]
    fn a_consumer_gets_the_producers_codecs_and_what_of_its_extensions_is_relayed() {
        let parameters: RtpParameters = serde_json::from_value(camera()).unwrap();
        let (request, consumed) = consume(&parameters, &ConsumerRtp::default()).unwrap();
        assert_eq!(request.payload_types, [(96, 96), (97, 97)]);
        let orientation = HeaderExtension {
            id: 4,
            uri: ExtensionUri::VideoOrientation,
        };
        assert_eq!(request.header_extensions, [orientation]);
        assert_eq!(consumed.codecs, parameters.codecs);
        assert_eq!(consumed.encodings, [RtpEncoding::ssrc(77)]);
        assert_eq!(
            consumed.header_extensions,
            [RtpHeaderExtension::new(ExtensionUri::VideoOrientation, 4)]
        );
        assert_eq!(
            (consumed.mux_id, consumed.rtcp.cname.as_deref()),
            (None, Some("camera@example"))
        );
    }

    #[test]
    fn a_consumer_may_have_its_own_numbers() {
        let parameters: RtpParameters = serde_json::from_value(camera()).unwrap();
        let wanted: ConsumerRtp = serde_json::from_value(json!({
            "payloadTypes": {"97": 120},
            "headerExtensions": [{"uri": ORIENTATION, "id": 7}, {"uri": LEVEL, "id": 1}, {"uri": MID, "id": 2}]
        }))
        .unwrap();
        let (request, consumed) = consume(&parameters, &wanted).unwrap();
        assert_eq!(request.payload_types, [(97, 120)]);
        assert_eq!(consumed.codecs.len(), 1);
        assert_eq!(
            (consumed.codecs[0].payload_type, consumed.codecs[0].mime_type.as_str()),
            (120, "video/h264")
        );
        let orientation = RtpHeaderExtension::new(ExtensionUri::VideoOrientation, 7);
        assert_eq!(
            consumed.header_extensions,
            [orientation],
            "the level is not sent, the MID not relayed"
        );

        let rows = [
            (
                json!({"payloadTypes": {"98": 120}}),
                "names 98, which the producer does not send",
            ),
            (json!({"payloadTypes": {"96": 80}}), "collides with RTCP"),
            (
                json!({"payloadTypes": {"96": 120, "97": 120}}),
                "gives 120 to two codecs",
            ),
            (json!({"headerExtensions": [{"uri": MID, "id": 15}]}), "must be 1 to 14"),
        ];
        for (wanted, complaint) in rows {
            let wanted: ConsumerRtp = serde_json::from_value(wanted).unwrap();
            let error = consume(&parameters, &wanted).unwrap_err();
            assert!(error.contains(complaint), "{wanted:?}: {error}");
        }
    }

    #[test]
    fn what_is_read_from_json_is_written_the_same() {
        let parameters: RtpParameters = serde_json::from_value(camera()).unwrap();
        let again: RtpParameters = serde_json::from_value(serde_json::to_value(&parameters).unwrap()).unwrap();
        assert_eq!(again, parameters);
        let mut expected = camera();
        // What may be left out is written out where it is a list.
        expected["codecs"][0]["rtcpFeedback"][2] = json!({"type": "goog-remb"});
        assert_eq!(serde_json::to_value(&parameters).unwrap(), expected);
    }
}
