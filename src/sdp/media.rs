//! A media section of an offer: codecs, header extensions and streams, in the types that producers are made with.

use serde_json::{Map, Value};
use weir_channel::message::MediaKind;

use super::{SdpError, has, malformed, shown, value, values};
use crate::{RtcpFeedback, RtpCodec, RtpHeaderExtension};

/// The most payload types of a section that are looked at; there are no more than 128, and browsers offer 25.
const CODECS_MAX: usize = 64;

/// The most header extensions of a section; browsers offer 15.
const EXTENSIONS_MAX: usize = 64;

/// The most streams (SSRCs) that are looked at.
const STREAMS_MAX: usize = 16;

/// The most simulcast layers that are looked at. How many of them can be relayed is for others to say.
const LAYERS_MAX: usize = 16;

/// The longest id of a section. A header extension of the one-byte form has room for 16.
const MID_BYTES_MAX: usize = 32;

/// A media section.
#[derive(Clone, PartialEq, Debug)]
pub struct OfferedMedia {
    /// Its id (`a=mid`).
    pub mid: Option<String>,
    /// The client does not want it: its port is 0, and it is not bundled.
    pub is_off: bool,
    /// The words of its `m=` line, which an answer repeats: media, protocol and formats.
    pub(super) line: [String; 3],
    /// What is in it, if it is audio or video over SRTP.
    pub rtp: Option<RtpSection>,
}

/// Who sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MediaDirection {
    /// The client only sends.
    SendOnly,
    /// The client only receives.
    RecvOnly,
    /// Both send.
    SendRecv,
    /// Nobody sends.
    Inactive,
}

impl MediaDirection {
    /// The name of its attribute.
    pub fn name(self) -> &'static str {
        match self {
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::SendRecv => "sendrecv",
            Self::Inactive => "inactive",
        }
    }

    /// Whether the client sends.
    pub fn sends(self) -> bool {
        matches!(self, Self::SendOnly | Self::SendRecv)
    }

    /// Whether the client receives.
    pub fn receives(self) -> bool {
        matches!(self, Self::RecvOnly | Self::SendRecv)
    }

    fn of(attributes: &[sdp_types::Attribute]) -> Option<Self> {
        let all = [Self::SendOnly, Self::RecvOnly, Self::SendRecv, Self::Inactive];
        all.into_iter().find(|direction| has(attributes, direction.name()))
    }
}

/// A section of audio or video.
#[derive(Clone, PartialEq, Debug)]
pub struct RtpSection {
    /// Audio or video.
    pub kind: MediaKind,
    /// Who sends; `sendrecv` where nothing is said (RFC 8866 §6.7).
    pub direction: MediaDirection,
    /// The codecs that it says enough of, in its order of preference, those of retransmissions among them. Format parameters are texts.
    pub codecs: Vec<RtpCodec>,
    /// The header extensions that go in its direction.
    pub header_extensions: Vec<RtpHeaderExtension>,
    /// The RIDs of the simulcast layers that it sends, in its order of preference (RFC 8853 §5.2). Of alternatives there is the first.
    pub layers: Vec<String>,
    /// The SSRCs of its streams, without those of retransmissions.
    pub ssrcs: Vec<u32>,
    /// Which SSRCs are retransmissions of which (`a=ssrc-group:FID`): the repaired one and the other.
    pub repairs: Vec<(u32, u32)>,
    /// The canonical name of its streams.
    pub cname: Option<String>,
    /// RTCP shares the port of RTP (RFC 5761).
    pub rtcp_mux: bool,
    /// RTCP may come outside of compound packets (RFC 5506).
    pub reduced_size: bool,
}

impl OfferedMedia {
    pub(super) fn read(media: &sdp_types::Media, of_session: &[sdp_types::Attribute]) -> Result<Self, SdpError> {
        let attributes = &media.attributes;
        let mid = value(attributes, "mid").filter(|mid| !mid.is_empty());
        if let Some(mid) = mid
            && (mid.len() > MID_BYTES_MAX || !mid.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return malformed(format!(
                "a=mid:{} has more than {MID_BYTES_MAX} bytes, or others than visible characters",
                shown(mid)
            ));
        }
        // RFC 4145 §4, RFC 5764 §8: RTP with feedback over DTLS. Some clients leave out what WebRTC implies.
        let is_secure = media.proto.contains("SAVP");
        let rtp = match media.media.parse::<MediaKind>() {
            Ok(kind) if is_secure => Some(RtpSection::read(kind, media, of_session)?),
            _ => None,
        };
        Ok(Self {
            mid: mid.map(str::to_owned),
            is_off: media.port == 0 && !has(attributes, "bundle-only"),
            line: [media.media.clone(), media.proto.clone(), media.fmt.clone()],
            rtp,
        })
    }

    /// What it is, as in its `m=` line: `audio`, `video`, `application`.
    pub fn name(&self) -> String {
        shown(&self.line[0])
    }
}

impl RtpSection {
    fn read(kind: MediaKind, media: &sdp_types::Media, of_session: &[sdp_types::Attribute]) -> Result<Self, SdpError> {
        let attributes = &media.attributes;
        let direction = MediaDirection::of(attributes).or_else(|| MediaDirection::of(of_session));
        let repairs = repairs(attributes);
        let is_repair = |ssrc: &u32| repairs.iter().any(|(_, repair)| repair == ssrc);
        let mut ssrcs: Vec<u32> = Vec::new();
        let mut cname = None;
        for text in values(attributes, "ssrc") {
            let (ssrc, rest) = text.split_once(' ').unwrap_or((text, ""));
            let Ok(ssrc) = ssrc.parse::<u32>() else {
                return malformed(format!(
                    "a=ssrc:{} does not begin with a number of 32 bits",
                    shown(text)
                ));
            };
            if !ssrcs.contains(&ssrc) && ssrcs.len() < STREAMS_MAX {
                ssrcs.push(ssrc);
            }
            cname = cname.or(rest.trim().strip_prefix("cname:").filter(|name| !name.is_empty()));
        }
        ssrcs.retain(|ssrc| !is_repair(ssrc));
        Ok(Self {
            kind,
            direction: direction.unwrap_or(MediaDirection::SendRecv),
            codecs: codecs(kind, &media.fmt, attributes)?,
            header_extensions: header_extensions(attributes)?,
            layers: layers(attributes),
            ssrcs,
            repairs,
            cname: cname.map(str::to_owned),
            rtcp_mux: has(attributes, "rtcp-mux") || has(attributes, "rtcp-mux-only"),
            reduced_size: has(attributes, "rtcp-rsize"),
        })
    }

    /// The codec that repairs the one under this payload type.
    pub fn repair_of(&self, payload_type: u8) -> Option<&RtpCodec> {
        let mut codecs = self.codecs.iter().filter(|codec| codec.is_rtx());
        codecs.find(|codec| codec.apt() == Some(payload_type))
    }
}

/// RFC 5576 §4.2, RFC 4588 §8.8.
fn repairs(attributes: &[sdp_types::Attribute]) -> Vec<(u32, u32)> {
    let groups = values(attributes, "ssrc-group").filter_map(|group| group.strip_prefix("FID "));
    let pairs = groups.filter_map(|group| {
        let mut ssrcs = group.split_ascii_whitespace().map(str::parse);
        Some((ssrcs.next()?.ok()?, ssrcs.next()?.ok()?))
    });
    pairs.take(STREAMS_MAX).collect()
}

/// RFC 8853 §5.1: `a=simulcast:send 0;1,2;~3 recv …`. Only what `a=rid` declares counts.
fn layers(attributes: &[sdp_types::Attribute]) -> Vec<String> {
    let declared = |rid: &str| {
        values(attributes, "rid").any(|line| {
            let mut words = line.split_ascii_whitespace();
            words.next() == Some(rid) && words.next() == Some("send")
        })
    };
    let mut words = value(attributes, "simulcast")
        .unwrap_or_default()
        .split_ascii_whitespace();
    let sent = words.find(|word| *word == "send").and_then(|_| words.next());
    let mut rids: Vec<String> = Vec::new();
    for layer in sent.into_iter().flat_map(|list| list.split(';')).take(LAYERS_MAX) {
        let first = layer.split(',').next().unwrap_or_default();
        let rid = first.strip_prefix('~').unwrap_or(first);
        if declared(rid) && !rids.iter().any(|other| other == rid) {
            rids.push(rid.to_owned());
        }
    }
    // A lone stream may have an id without being simulcast (RFC 8851 §4).
    if rids.is_empty() && sent.is_none() {
        let mut lines = values(attributes, "rid").filter_map(|line| line.split_once(' '));
        let sent = lines.find(|(_, rest)| rest.split_ascii_whitespace().next() == Some("send"));
        rids.extend(sent.map(|(rid, _)| rid.to_owned()));
    }
    rids
}

/// RFC 8285 §8: `a=extmap:1/sendonly URI parameters`. What is said twice is taken once.
fn header_extensions(attributes: &[sdp_types::Attribute]) -> Result<Vec<RtpHeaderExtension>, SdpError> {
    let mut found: Vec<RtpHeaderExtension> = Vec::new();
    for text in values(attributes, "extmap") {
        let mut words = text.split_ascii_whitespace();
        let id = words.next().map(|id| id.split('/').next().unwrap_or(id));
        let (Some(Ok(id)), Some(uri)) = (id.map(str::parse::<u16>), words.next()) else {
            return malformed(format!(
                "a=extmap:{} needs a number and a URI (RFC 8285 §8)",
                shown(text)
            ));
        };
        // Numbers from 4096 on are offers to agree on one (§8), which nobody makes.
        let Ok(id) = u8::try_from(id) else { continue };
        if id == 0 || found.len() == EXTENSIONS_MAX {
            continue;
        }
        let is_known = |other: &RtpHeaderExtension| other.id == id || other.uri.eq_ignore_ascii_case(uri);
        if !found.iter().any(is_known) {
            found.push(RtpHeaderExtension {
                uri: uri.to_owned(),
                id,
                encrypt: false,
            });
        }
    }
    Ok(found)
}

/// The codecs of the `m=` line that are described, or need no description.
fn codecs(kind: MediaKind, formats: &str, attributes: &[sdp_types::Attribute]) -> Result<Vec<RtpCodec>, SdpError> {
    let mut found: Vec<RtpCodec> = Vec::new();
    for format in formats.split_ascii_whitespace().take(CODECS_MAX) {
        let Ok(payload_type) = format.parse::<u8>() else {
            return malformed(format!("{:?} in m={kind} is not a payload type", shown(format)));
        };
        if found.iter().any(|codec| codec.payload_type == payload_type) {
            return malformed(format!("payload type {payload_type} stands twice in m={kind}"));
        }
        let Some(mut codec) = described(kind, payload_type, attributes)? else {
            continue;
        };
        codec.parameters = format_parameters(of(attributes, "fmtp", format).next().unwrap_or_default());
        let feedback = of(attributes, "rtcp-fb", format).chain(of(attributes, "rtcp-fb", "*"));
        codec.rtcp_feedback = feedback.filter_map(feedback_of).collect();
        found.push(codec);
    }
    Ok(found)
}

/// What attributes say of a payload type: the rest of `a=fmtp:96 …`.
fn of<'a>(attributes: &'a [sdp_types::Attribute], name: &'a str, format: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = values(attributes, name).filter_map(|line| line.split_once(' '));
    lines
        .filter(move |(own, _)| *own == format)
        .map(|(_, rest)| rest.trim())
}

/// The codec by its `a=rtpmap`, or by its number (RFC 3551 §6).
fn described(
    kind: MediaKind,
    payload_type: u8,
    attributes: &[sdp_types::Attribute],
) -> Result<Option<RtpCodec>, SdpError> {
    let number = payload_type.to_string();
    let map = of(attributes, "rtpmap", &number).next();
    let by_number = match (kind, payload_type) {
        (MediaKind::Audio, 0) => Some("PCMU/8000"),
        (MediaKind::Audio, 8) => Some("PCMA/8000"),
        (MediaKind::Audio, 9) => Some("G722/8000"),
        _ => None,
    };
    let Some(map) = map.or(by_number) else {
        return Ok(None);
    };
    let mut words = map.split('/');
    let (Some(name), Some(Ok(clock_rate))) = (words.next(), words.next().map(|rate| rate.trim().parse())) else {
        return malformed(format!(
            "a=rtpmap:{payload_type} {} needs a name and a clock rate",
            shown(map)
        ));
    };
    let channels = words.next().and_then(|count| count.trim().parse().ok());
    Ok(Some(RtpCodec {
        mime_type: format!("{kind}/{name}"),
        payload_type,
        clock_rate,
        channels: channels.filter(|_| kind == MediaKind::Audio),
        parameters: Map::new(),
        rtcp_feedback: Vec::new(),
    }))
}

/// `minptime=10;useinbandfec=1`; what has no value, as of `red` and `telephone-event`, is a name alone.
fn format_parameters(text: &str) -> Map<String, Value> {
    let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
    let parameters = parts.map(|part| match part.split_once('=') {
        Some((name, value)) => (name.trim().to_owned(), Value::String(value.trim().to_owned())),
        None => (part.to_owned(), Value::Null),
    });
    parameters.collect()
}

fn feedback_of(text: &str) -> Option<RtcpFeedback> {
    let mut words = text.splitn(2, ' ');
    let name = words.next().filter(|name| !name.is_empty())?;
    Some(RtcpFeedback::new(name, words.next().unwrap_or_default().trim()))
}
