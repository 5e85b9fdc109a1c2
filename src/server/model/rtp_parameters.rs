//! What a producer sends and what a consumer receives, in the JSON shape of mediasoup (differences §5). That of mediasoup 3 is
//! read as well.
//!
//! Everything is checked here, before a worker hears of it; an error says what to change. Codecs that are not known are
//! relayed as they are: their names and parameters stay here, and a worker hears what each is for. `rtx` repairs the codec
//! it names. Unknown header extensions are fine: senders offer many, and those the worker does not
//! know are simply not relayed.

mod codec;
mod encoding;
mod header_extension;
mod json;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::codec::{RtcpFeedback, RtpCodec};
pub(crate) use self::codec::{
    Subtype, check_feedback, check_format_parameters, check_opaque, check_payload_type, check_text, clock_rate,
    conventional_payload_type, number, parameter, set_parameter, split_mime_type,
};
pub use self::encoding::{RtpEncoding, RtxParameters};
pub use self::header_extension::RtpHeaderExtension;
pub(crate) use self::header_extension::{check_header_extensions, extension_uri};
pub(crate) use self::requests::{ConsumerPlacement, ConsumerSsrcs, ProducerPlacement};

/// What a check says when it fails: a sentence for [`Error::InvalidParameters`](super::error::Error::InvalidParameters).
pub(crate) type Checked<T> = Result<T, String>;

/// The RTP parameters of a producer or consumer: codecs with payload types, header extensions with ids, and streams.
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
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", try_from = "json::ParametersJson")]
pub struct RtpParameters {
    /// The media id (RFC 8843 §15) that the packets may carry; 1 to 32 bytes. Needs the `sdes:mid` header extension.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mux_id: Option<String>,
    /// The codecs, 1 to 16, each with its own payload type, and the `rtx` codecs that repair them, if any.
    pub codecs: Vec<RtpCodec>,
    /// The header extensions (RFC 8285), each with its own id.
    pub header_extensions: Vec<RtpHeaderExtension>,
    /// The streams: one, or up to three simulcast layers with distinct profiles.
    pub encodings: Vec<RtpEncoding>,
    /// The RTCP parameters of all streams.
    pub rtcp: RtcpParameters,
}

impl RtpParameters {
    /// Whether retransmissions travel as streams of their own (RFC 4588), for some codec at least.
    pub fn has_rtx(&self) -> bool {
        self.codecs.iter().any(RtpCodec::is_rtx)
    }

    /// These parameters with one stream under these SSRCs, that of retransmissions only where some codec has them.
    pub(crate) fn with_ssrcs(mut self, ssrcs: ConsumerSsrcs) -> Self {
        let rtx = self.has_rtx().then_some(RtxParameters { ssrc: Some(ssrcs.rtx) });
        self.encodings = vec![RtpEncoding {
            ssrc: Some(ssrcs.media),
            rtx,
            ..RtpEncoding::default()
        }];
        self
    }
}

/// The RTCP parameters of all streams.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RtcpParameters {
    /// The canonical name (RFC 3550 §6.5.1); 1 to 255 bytes. If the producer gives none, the server chooses one. All
    /// its consumers have the same one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cname: Option<String>,
    /// Whether the sender accepts feedback outside of compound packets (RFC 5506); the default is `true`.
    pub reduced_size: bool,
    /// RTCP shares the port of RTP (RFC 5761). This only informs the remote; the option of the transport decides.
    pub mux: bool,
}

impl Default for RtcpParameters {
    fn default() -> Self {
        Self {
            cname: None,
            reduced_size: true,
            mux: true,
        }
    }
}

/// The RTP parameters of a consumer's receiver, where they differ from the producer's.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ConsumerRtp {
    /// The SSRC, unique on its transport; the default is a random one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssrc: Option<u32>,
    /// The SSRC for retransmissions, unique on its transport; the default is a random one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtx_ssrc: Option<u32>,
    /// A map from the producer's payload types to the consumer's, with those of `rtx`. Only these codecs are consumed;
    /// an empty map means all codecs, with the producer's payload types.
    pub payload_types: BTreeMap<u8, u8>,
    /// The header extensions that the receiver understands, with its own ids; the default is the producer's. Extensions
    /// that the producer does not send are left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header_extensions: Option<Vec<RtpHeaderExtension>>,
}
