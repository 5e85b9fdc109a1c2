//! What a client is answered. Every client that is known can read it: lines end in CRLF, there is one fingerprint, foundations are numbers,
//! and the first candidate is one of UDP and IPv4.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Map, Value};
use weir_channel::message::{DtlsParameters, DtlsRole, FingerprintAlgorithm, IceProtocol};

use super::media::OfferedMedia;
use super::{MediaDirection, Offer};
use crate::{IceCandidate, IceParameters, IpFamily, RtpCodec, RtpHeaderExtension};

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer<'a> {
    /// A number for the session (`o=`).
    pub session: u64,
    /// The server's ICE credentials.
    pub ice: IceParameters,
    /// Where the server can be reached.
    pub candidates: &'a [IceCandidate],
    /// The server's role and the fingerprints of its certificate.
    pub dtls: DtlsParameters,
    /// The sections, in the offer's order; `None`: refused. What there are fewer of is refused, too.
    pub media: Vec<Option<AnsweredMedia>>,
}

/// A section that is not refused.
#[derive(Clone, PartialEq, Debug)]
pub struct AnsweredMedia {
    /// Who sends, as the server sees it: `recvonly` when the client publishes.
    pub direction: MediaDirection,
    /// The codecs, with the offer's payload types.
    pub codecs: Vec<RtpCodec>,
    /// The header extensions, with the offer's ids.
    pub header_extensions: Vec<RtpHeaderExtension>,
    /// The RIDs of the simulcast layers that are taken, as in the offer.
    pub layers: Vec<String>,
    /// What the server sends in it.
    pub stream: Option<AnsweredStream>,
}

/// What the server sends in a section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnsweredStream {
    /// Its SSRC.
    pub ssrc: u32,
    /// The SSRC of its retransmissions.
    pub rtx_ssrc: Option<u32>,
    /// Its canonical name.
    pub cname: String,
    /// The id of the stream to which browsers add it.
    pub stream_id: String,
    /// The id of the track.
    pub track_id: String,
}

impl Answer<'_> {
    /// Writes it.
    pub fn write(&self, offer: &Offer) -> String {
        let nobody = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let origin = sdp_types::Origin::with_ip_addr(self.session, 1, nobody);
        let mut session = sdp_types::Session::new(origin, "-");
        let answered = |index: usize| self.media.get(index).and_then(Option::as_ref);
        let mids = offer.media.iter().enumerate();
        let bundled: Vec<&str> = mids
            .filter(|(index, _)| answered(*index).is_some())
            .filter_map(|(_, section)| section.mid.as_deref())
            .collect();
        let mut lines = Lines(&mut session.attributes);
        if !bundled.is_empty() {
            lines.add("group", format!("BUNDLE {}", bundled.join(" ")));
        }
        lines.flag("extmap-allow-mixed");
        lines.add("msid-semantic", "WMS *");
        if self.ice.ice_lite {
            lines.flag("ice-lite");
        }
        // The transport is in the first section that is taken, and all others share it (RFC 9143 §7.3).
        let mut is_first = true;
        for (index, section) in offer.media.iter().enumerate() {
            let media = match answered(index) {
                Some(answered) => self.taken(section, answered, std::mem::take(&mut is_first)),
                None => self.refused(section),
            };
            session.medias.push(media);
        }
        let mut bytes = Vec::new();
        // A Vec takes everything, and all of it was text.
        let _ = session.write(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Where the server is and who it is, which every section says: some clients look into each, also into those that are refused.
    fn introduce(&self, lines: &mut Lines<'_>) {
        lines.add("ice-ufrag", &self.ice.username_fragment);
        lines.add("ice-pwd", &self.ice.password);
        let sha256 =
            |fingerprint: &&weir_channel::message::Fingerprint| fingerprint.algorithm == FingerprintAlgorithm::Sha256;
        let fingerprints = &self.dtls.fingerprints;
        if let Some(own) = fingerprints.iter().find(sha256).or(fingerprints.first()) {
            lines.add("fingerprint", format!("{} {}", own.algorithm, own.value));
        }
        lines.add(
            "setup",
            match self.dtls.role {
                DtlsRole::Client => "active",
                DtlsRole::Server | DtlsRole::Auto => "passive",
            },
        );
        lines.flag("rtcp-mux");
    }

    /// RFC 3264 §6: port 0, with the offer's formats.
    fn refused(&self, section: &OfferedMedia) -> sdp_types::Media {
        let formats = section.line[2].clone();
        let mut media = section_like(section, 0, formats);
        let mut lines = Lines(&mut media.attributes);
        if section.rtp.is_some() {
            self.introduce(&mut lines);
            lines.flag("inactive");
        }
        if let Some(mid) = &section.mid {
            lines.add("mid", mid);
        }
        media
    }

    fn taken(&self, section: &OfferedMedia, answered: &AnsweredMedia, has_candidates: bool) -> sdp_types::Media {
        let formats: Vec<String> = answered
            .codecs
            .iter()
            .map(|codec| codec.payload_type.to_string())
            .collect();
        // Port 9 stands for "see the candidates" (RFC 8840 §4.1.1).
        let mut media = section_like(section, 9, formats.join(" "));
        let mut lines = Lines(&mut media.attributes);
        self.introduce(&mut lines);
        if let Some(mid) = &section.mid {
            lines.add("mid", mid);
        }
        for extension in &answered.header_extensions {
            lines.add("extmap", format!("{} {}", extension.id, extension.uri));
        }
        lines.flag(answered.direction.name());
        if let Some(stream) = &answered.stream {
            lines.add("msid", format!("{} {}", stream.stream_id, stream.track_id));
        }
        lines.flag("rtcp-mux-only");
        if section.rtp.as_ref().is_some_and(|rtp| rtp.reduced_size) {
            lines.flag("rtcp-rsize");
        }
        for codec in &answered.codecs {
            lines.codec(codec);
        }
        for rid in &answered.layers {
            lines.add("rid", format!("{rid} recv"));
        }
        if !answered.layers.is_empty() {
            lines.add("simulcast", format!("recv {}", answered.layers.join(";")));
        }
        if let Some(stream) = &answered.stream {
            lines.stream(stream);
        }
        if has_candidates {
            for (index, own) in in_order(self.candidates).into_iter().enumerate() {
                lines.add("candidate", candidate(index + 1, own));
            }
            lines.flag("end-of-candidates");
        }
        media
    }
}

fn section_like(section: &OfferedMedia, port: u16, fmt: String) -> sdp_types::Media {
    let [name, proto, _] = &section.line;
    sdp_types::Media {
        media: name.clone(),
        port,
        num_ports: None,
        proto: proto.clone(),
        fmt,
        media_title: None,
        connections: vec![sdp_types::Connection::from_ip_addr(Ipv4Addr::UNSPECIFIED)],
        bandwidths: Vec::new(),
        key: None,
        attributes: Vec::new(),
    }
}

/// Candidates as clients want them: UDP first, and of each protocol IPv4 first, because some clients look at the first one only.
pub(super) fn in_order(candidates: &[IceCandidate]) -> Vec<&IceCandidate> {
    let mut ordered: Vec<&IceCandidate> = candidates.iter().collect();
    ordered.sort_by_key(|own| (own.protocol != IceProtocol::Udp, own.family != IpFamily::Ipv4));
    ordered
}

/// A candidate's line (RFC 8839 §5.1). The foundation is a number: a client looks for the word `udp` in the line.
pub(super) fn candidate(foundation: usize, own: &IceCandidate) -> String {
    let (protocol, passive) = match own.protocol {
        IceProtocol::Udp => ("udp", ""),
        IceProtocol::Tcp => ("tcp", " tcptype passive"),
    };
    format!(
        "{foundation} 1 {protocol} {} {} {} typ host{passive}",
        own.priority, own.ip, own.port
    )
}

/// The attributes of a section.
struct Lines<'a>(&'a mut Vec<sdp_types::Attribute>);

impl Lines<'_> {
    fn add(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(sdp_types::Attribute {
            attribute: name.to_owned(),
            value: Some(value.into()),
        });
    }

    fn flag(&mut self, name: &str) {
        self.0.push(sdp_types::Attribute {
            attribute: name.to_owned(),
            value: None,
        });
    }

    fn codec(&mut self, codec: &RtpCodec) {
        let payload_type = codec.payload_type;
        let name = codec.mime_type.split_once('/').map_or("", |(_, name)| name);
        let channels = match codec.channels {
            None | Some(1) => String::new(),
            Some(channels) => format!("/{channels}"),
        };
        self.add(
            "rtpmap",
            format!("{payload_type} {name}/{}{channels}", codec.clock_rate),
        );
        for feedback in &codec.rtcp_feedback {
            let parameter = feedback.parameter.as_deref().unwrap_or_default();
            let text = format!("{payload_type} {} {parameter}", feedback.r#type);
            self.add("rtcp-fb", text.trim_end());
        }
        if !codec.parameters.is_empty() {
            self.add(
                "fmtp",
                format!("{payload_type} {}", format_parameters(&codec.parameters)),
            );
        }
    }

    fn stream(&mut self, stream: &AnsweredStream) {
        if let Some(rtx) = stream.rtx_ssrc {
            self.add("ssrc-group", format!("FID {} {rtx}", stream.ssrc));
        }
        for ssrc in [Some(stream.ssrc), stream.rtx_ssrc].into_iter().flatten() {
            self.add("ssrc", format!("{ssrc} cname:{}", stream.cname));
            self.add("ssrc", format!("{ssrc} msid:{} {}", stream.stream_id, stream.track_id));
        }
    }
}

fn format_parameters(parameters: &Map<String, Value>) -> String {
    let parts = parameters.iter().map(|(name, value)| match value {
        Value::Null => name.clone(),
        Value::String(text) => format!("{name}={text}"),
        other => format!("{name}={other}"),
    });
    parts.collect::<Vec<_>>().join(";")
}
