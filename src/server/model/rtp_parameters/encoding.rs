//! One stream of a producer, and how it is recognised.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use weir_channel::message::{Codec, Encoding, MediaKind, Profile};

use super::json::EncodingJson;
use super::{Checked, ProducerPlacement, RtpParameters};

/// One stream.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", try_from = "EncodingJson")]
pub struct RtpEncoding {
    /// Its SSRC, if known in advance. A single stream on a plain transport needs none: it takes the first stream with
    /// one of its payload types that belongs to no other producer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
    /// The stream of its retransmissions, if they have one (RFC 4588); ignored without an `rtx` codec.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtx: Option<RtxParameters>,
    /// Its RTP stream id (RFC 8852); 1 to 32 letters, digits, `-` and `_`. Needs the `sdes:rtp-stream-id` header extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encoding_id: Option<String>,
    /// The simulcast layer: `low`, `medium` or `high`; absent for a single stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,
    /// The payload type of its codec, one of those in `codecs`. It must be valid, but the payload types in the packets
    /// decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub codec_payload_type: Option<u8>,
}

/// The stream that carries the retransmissions of another stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RtxParameters {
    /// Its SSRC, if known in advance; else it is found by the repaired RTP stream id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
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
            profile: Some(profile),
            ..Self::default()
        }
    }
}

impl RtpParameters {
    /// Checks the streams against each other and against the (checked) codecs.
    pub(super) fn check_encodings(&self, placement: ProducerPlacement, codecs: &[Codec]) -> Checked<Vec<Encoding>> {
        let count = self.encodings.len();
        if count == 0 || count > 3 {
            return Err(format!("encodings must list 1 to 3 streams, not {count}"));
        }
        if count > 1 && placement.kind == MediaKind::Audio {
            return Err("an audio producer has one encoding; simulcast is for video".to_owned());
        }
        let repaired = codecs.iter().any(|codec| codec.rtx.is_some());
        let mut ssrcs = BTreeSet::new();
        let mut rids = BTreeSet::new();
        let mut profiles = BTreeSet::new();
        self.encodings
            .iter()
            .map(|encoding| {
                let profile = layer_of(encoding, count)?;
                if !profiles.insert(profile) {
                    return Err(format!("profile {profile} is used by two encodings; give each its own"));
                }
                let rtx_ssrc = encoding.rtx.and_then(|rtx| rtx.ssrc).filter(|_| repaired);
                for ssrc in [encoding.ssrc, rtx_ssrc].into_iter().flatten() {
                    if !ssrcs.insert(ssrc) {
                        return Err(format!("ssrc {ssrc} is used by two encodings; give each its own"));
                    }
                }
                if let Some(rid) = &encoding.encoding_id {
                    check_rid(rid)?;
                    if !rids.insert(rid) {
                        return Err(format!(
                            "encodingId {rid:?} is used by two encodings; give each its own"
                        ));
                    }
                }
                if let Some(payload_type) = encoding.codec_payload_type
                    && !codecs.iter().any(|codec| codec.payload_type == payload_type)
                {
                    return Err(format!(
                        "codecPayloadType {payload_type} is none of the media codecs listed"
                    ));
                }
                let recognisable = encoding.ssrc.is_some()
                    || encoding.encoding_id.is_some()
                    || (count == 1 && (self.mux_id.is_some() || placement.is_plain));
                if !recognisable {
                    return Err(
                        "an encoding needs an ssrc or an encodingId (a lone one may do with the muxId, and on a plain \
                         transport with its payload types)"
                            .to_owned(),
                    );
                }
                Ok(Encoding {
                    ssrc: encoding.ssrc,
                    rid: encoding.encoding_id.clone(),
                    rtx_ssrc,
                    profile,
                })
            })
            .collect()
    }
}

/// The profile of one of `count` streams.
fn layer_of(encoding: &RtpEncoding, count: usize) -> Checked<Profile> {
    match (count, encoding.profile) {
        (1, None) => Ok(Profile::Default),
        (1, Some(_)) => Err("a lone encoding must not carry a profile; leave it out".to_owned()),
        (_, None | Some(Profile::Default)) => {
            Err("with several encodings each needs a profile: low, medium or high".to_owned())
        }
        (_, Some(profile)) => Ok(profile),
    }
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
