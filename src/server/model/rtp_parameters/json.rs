//! Parameters as they are read: under the names of mediasoup 2, which the answers have, or under those of mediasoup 3, as its
//! clients give them to the application.
//!
//! What mediasoup 3 says of an encoding for its sender's encoder, and of a header extension, is of no use to a relay. It is
//! ignored by name, whatever it is; other members that are not known stay errors.

use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::IgnoredAny;
use weir_channel::message::Profile;

use super::{Checked, RtcpParameters, RtpCodec, RtpEncoding, RtpHeaderExtension, RtpParameters, RtxParameters};

/// The profiles of encodings that come in their order, from the lowest to the highest, and do not say theirs.
const PROFILES: [Profile; 3] = [Profile::Low, Profile::Medium, Profile::High];

/// The RTP parameters of a producer or consumer: codecs with payload types, header extensions with ids, and streams.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ParametersJson {
    /// The media id (RFC 8843 §15) that the packets may carry; 1 to 32 bytes. Needs the `sdes:mid` header extension.
    mux_id: Option<String>,
    /// The same as `muxId`, as mediasoup 3 calls it.
    mid: Option<String>,
    /// The ids of stream and track in SDP (RFC 8830), which mediasoup 3 sends; ignored.
    #[serde(rename = "msid")]
    #[schemars(with = "Option<String>")]
    _msid: Option<IgnoredAny>,
    /// The codecs, 1 to 16, each with its own payload type, and the `rtx` codecs that repair them, if any.
    codecs: Vec<RtpCodec>,
    /// The header extensions (RFC 8285), each with its own id.
    #[serde(default)]
    header_extensions: Vec<RtpHeaderExtension>,
    /// The streams: one, or up to three simulcast layers with distinct profiles. If no layer has a profile, they are `low`,
    /// `medium` and `high` in their order.
    encodings: Vec<RtpEncoding>,
    /// The RTCP parameters of all streams.
    #[serde(default)]
    rtcp: RtcpParameters,
}

impl TryFrom<ParametersJson> for RtpParameters {
    type Error = String;

    fn try_from(json: ParametersJson) -> Checked<Self> {
        let mut encodings = json.encodings;
        if encodings.len() > 1 && encodings.iter().all(|encoding| encoding.profile.is_none()) {
            for (encoding, profile) in encodings.iter_mut().zip(PROFILES) {
                encoding.profile = Some(profile);
            }
        }
        let mut rtcp = json.rtcp;
        // mediasoup 3's clients send an empty one if the browser's description has none.
        rtcp.cname = rtcp.cname.filter(|cname| !cname.is_empty());
        Ok(Self {
            mux_id: either(("muxId", json.mux_id), ("mid", json.mid))?,
            codecs: json.codecs,
            header_extensions: json.header_extensions,
            encodings,
            rtcp,
        })
    }
}

/// One stream.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct EncodingJson {
    /// Its SSRC, if known in advance. A single stream on a plain transport needs none: it takes the first stream with
    /// one of its payload types that belongs to no other producer.
    ssrc: Option<u32>,
    /// The stream of its retransmissions, if they have one (RFC 4588); ignored without an `rtx` codec.
    rtx: Option<RtxParameters>,
    /// Its RTP stream id (RFC 8852); 1 to 32 letters, digits, `-` and `_`. Needs the `sdes:rtp-stream-id` header extension.
    encoding_id: Option<String>,
    /// The same as `encodingId`, as mediasoup 3 calls it.
    rid: Option<String>,
    /// The simulcast layer: `low`, `medium` or `high`; absent for a single stream.
    profile: Option<Profile>,
    /// The payload type of its codec, one of those in `codecs`. It must be valid, but the payload types in the packets
    /// decide.
    codec_payload_type: Option<u8>,
    /// Whether its sender may pause when there is nothing to send; ignored.
    #[serde(rename = "dtx")]
    #[schemars(with = "Option<bool>")]
    _dtx: Option<IgnoredAny>,
    /// Whether its sender sends it from the start; ignored, the packets decide.
    #[serde(rename = "active")]
    #[schemars(with = "Option<bool>")]
    _active: Option<IgnoredAny>,
    /// Its sender's limit, in bits per second; ignored.
    #[serde(rename = "maxBitrate")]
    #[schemars(with = "Option<f64>")]
    _max_bitrate: Option<IgnoredAny>,
    /// Its sender's limit, in pictures per second; ignored.
    #[serde(rename = "maxFramerate")]
    #[schemars(with = "Option<f64>")]
    _max_framerate: Option<IgnoredAny>,
    /// Its spatial and temporal layers (W3C WebRTC-SVC), e.g. `L1T3`; ignored, all of them are relayed.
    #[serde(rename = "scalabilityMode")]
    #[schemars(with = "Option<String>")]
    _scalability_mode: Option<IgnoredAny>,
    /// By how much its sender makes the pictures smaller; ignored.
    #[serde(rename = "scaleResolutionDownBy")]
    #[schemars(with = "Option<f64>")]
    _scale_resolution_down_by: Option<IgnoredAny>,
    /// Its importance for its sender; ignored.
    #[serde(rename = "priority")]
    #[schemars(with = "Option<String>")]
    _priority: Option<IgnoredAny>,
    /// Its importance for its sender's network; ignored.
    #[serde(rename = "networkPriority")]
    #[schemars(with = "Option<String>")]
    _network_priority: Option<IgnoredAny>,
    /// Whether its sender may change how much audio is in a packet; ignored.
    #[serde(rename = "adaptivePtime")]
    #[schemars(with = "Option<bool>")]
    _adaptive_ptime: Option<IgnoredAny>,
}

impl TryFrom<EncodingJson> for RtpEncoding {
    type Error = String;

    fn try_from(json: EncodingJson) -> Checked<Self> {
        Ok(Self {
            ssrc: json.ssrc,
            rtx: json.rtx,
            encoding_id: either(("encodingId", json.encoding_id), ("rid", json.rid))?,
            profile: json.profile,
            codec_payload_type: json.codec_payload_type,
        })
    }
}

/// A header extension under an id.
#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct HeaderExtensionJson {
    /// The URI that says what it means, as in `a=extmap`.
    uri: String,
    /// 1..=255. Above 14, only packets in the two-byte form can carry it (RFC 8285 §4.3; `a=extmap-allow-mixed`).
    id: u8,
    /// Whether its value is encrypted (RFC 6904). Weir does not support this, because a relay could not read the value.
    #[serde(default)]
    encrypt: bool,
    /// Its own parameters, which mediasoup 3 sends; ignored.
    #[serde(rename = "parameters")]
    #[schemars(with = "Option<serde_json::Map<String, serde_json::Value>>")]
    _parameters: Option<IgnoredAny>,
}

impl From<HeaderExtensionJson> for RtpHeaderExtension {
    fn from(json: HeaderExtensionJson) -> Self {
        Self {
            uri: json.uri,
            id: json.id,
            encrypt: json.encrypt,
        }
    }
}

/// What may come under one of two names.
fn either(own: (&str, Option<String>), other: (&str, Option<String>)) -> Checked<Option<String>> {
    match (own, other) {
        ((name, Some(value)), (other_name, Some(other))) if value != other => Err(format!(
            "{name} is {value:?} but {other_name} is {other:?}: both mean the same; give one of them"
        )),
        ((_, own), (_, other)) => Ok(own.or(other)),
    }
}
