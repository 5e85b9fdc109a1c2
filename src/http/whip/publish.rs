//! Publishing: the producers that an offer asks for, and what is answered.

use weir_channel::message::MediaKind;

use crate::sdp::{AnsweredMedia, MediaDirection, Offer, RtpSection, SdpError};
use crate::server::Consumable;
use crate::{
    Error, ExtensionUri, ProducerOptions, Profile, RtcpFeedback, RtcpParameters, RtpCapabilities, RtpCodec,
    RtpEncoding, RtpHeaderExtension, RtpParameters, RtxParameters, WebRtcTransport,
};

/// The layers that a producer can have.
const LAYERS: [Profile; 3] = [Profile::Low, Profile::Medium, Profile::High];

/// Names of layers that say which is better, the lowest first.
const NAMED_LAYERS: [[&str; 3]; 6] = [
    ["q", "h", "f"],
    ["l", "m", "h"],
    ["low", "medium", "high"],
    ["low", "mid", "high"],
    ["lo", "mi", "hi"],
    ["r0", "r1", "r2"],
];

/// What is made of a section, and what is answered.
#[derive(Debug)]
pub(super) struct Track {
    options: ProducerOptions,
    answered: AnsweredMedia,
}

/// What to make of an offer in a room that relays this. `None`: a section that the client has switched off.
pub(super) fn plan(offer: &Offer, room: &RtpCapabilities) -> Result<Vec<Option<Track>>, SdpError> {
    let mut kinds: Vec<MediaKind> = Vec::new();
    let tracks: Vec<Option<Track>> = offer
        .media
        .iter()
        .map(|section| {
            if section.is_off {
                return Ok(None);
            }
            let Some(rtp) = &section.rtp else {
                return unsupported(format!(
                    "m={} is not relayed: offer audio and video over UDP/TLS/RTP/SAVPF only",
                    section.name()
                ));
            };
            let kind = rtp.kind;
            if !rtp.direction.sends() {
                return unsupported(format!(
                    "m={kind} is {}, but who publishes sends: make it sendonly (RFC 9725 §4.2), or watch at /whep/",
                    rtp.direction.name()
                ));
            }
            if kinds.contains(&kind) {
                return unsupported(format!(
                    "the offer has m={kind} twice; publish at most one audio and one video, the others in sessions of their own"
                ));
            }
            kinds.push(kind);
            Track::of(rtp, section.mid.as_deref(), room).map(Some)
        })
        .collect::<Result<_, _>>()?;
    match tracks.iter().any(Option::is_some) {
        true => Ok(tracks),
        false => unsupported("the offer has no media that is sent; add an audio or a video section"),
    }
}

/// Makes the producers.
pub(super) async fn produce(
    transport: &WebRtcTransport,
    plan: Vec<Option<Track>>,
) -> Result<Vec<Option<AnsweredMedia>>, Error> {
    let mut answered = Vec::with_capacity(plan.len());
    for track in plan {
        answered.push(match track {
            None => None,
            Some(track) => {
                transport.produce(track.options).await?;
                Some(track.answered)
            }
        });
    }
    Ok(answered)
}

fn unsupported<T>(message: impl Into<String>) -> Result<T, SdpError> {
    Err(SdpError::Unsupported(message.into()))
}

impl Track {
    fn of(rtp: &RtpSection, mid: Option<&str>, room: &RtpCapabilities) -> Result<Self, SdpError> {
        let kind = rtp.kind;
        if !rtp.rtcp_mux {
            return unsupported(format!("m={kind} needs a=rtcp-mux: RTP and RTCP share one port"));
        }
        let Some(codec) = rtp.codecs.iter().find(|codec| can_relay(kind, codec, room)) else {
            let names: Vec<&str> = rtp
                .codecs
                .iter()
                .map(|codec| codec.mime_type.as_str())
                .take(8)
                .collect();
            return unsupported(format!(
                "none of the codecs in m={kind} ({}) is one that the room relays; offer opus for audio and H264, VP8, VP9 or AV1 \
                 for video",
                names.join(", ")
            ));
        };
        let header_extensions: Vec<RtpHeaderExtension> = rtp
            .header_extensions
            .iter()
            .filter(|own| is_understood(own))
            .cloned()
            .collect();
        let has = |uri: ExtensionUri| {
            header_extensions
                .iter()
                .any(|own| own.uri.eq_ignore_ascii_case(uri.uri()))
        };
        // A lone layer with an SSRC needs no name.
        let layers: &[String] = match kind {
            MediaKind::Video if rtp.layers.len() > 1 || rtp.ssrcs.is_empty() => &rtp.layers,
            _ => &[],
        };
        if layers.len() > LAYERS.len() {
            return unsupported(format!(
                "simulcast has at most {} layers here, not {}; send fewer",
                LAYERS.len(),
                layers.len()
            ));
        }
        if !layers.is_empty() && !has(ExtensionUri::RtpStreamId) {
            return Err(SdpError::Malformed(format!(
                "simulcast needs the header extension in which a=rid travels: a=extmap with {}",
                ExtensionUri::RtpStreamId.uri()
            )));
        }
        let mid = mid.filter(|_| has(ExtensionUri::Mid));
        let ssrc = rtp.ssrcs.first().copied().filter(|_| layers.is_empty());
        let rtx_ssrc = rtp
            .repairs
            .iter()
            .find(|(repaired, _)| Some(*repaired) == ssrc)
            .map(|(_, ssrc)| *ssrc);
        if layers.is_empty() && ssrc.is_none() && mid.is_none() {
            return Err(SdpError::Malformed(format!(
                "the packets of m={kind} cannot be told from others: add a=ssrc, or a=extmap with {}",
                ExtensionUri::Mid.uri()
            )));
        }
        // Repairs that could not be told from other streams are of no use.
        let is_repaired = rtx_ssrc.is_some() || (!layers.is_empty() && has(ExtensionUri::RepairedRtpStreamId));
        let repair = rtp.repair_of(codec.payload_type).filter(|_| is_repaired);
        let codecs: Vec<RtpCodec> = [Some(codec), repair]
            .into_iter()
            .flatten()
            .map(with_own_feedback)
            .collect();
        let encodings = match layers {
            [] => vec![RtpEncoding {
                ssrc,
                rtx: rtx_ssrc.map(|ssrc| RtxParameters { ssrc: Some(ssrc) }),
                ..RtpEncoding::default()
            }],
            layers => layers
                .iter()
                .zip(profiles(layers))
                .map(|(rid, profile)| RtpEncoding {
                    encoding_id: Some(rid.clone()),
                    profile: (layers.len() > 1).then_some(profile),
                    rtx: repair.map(|_| RtxParameters::default()),
                    ..RtpEncoding::default()
                })
                .collect(),
        };
        let parameters = RtpParameters {
            mux_id: mid.map(str::to_owned),
            codecs: codecs.clone(),
            header_extensions: header_extensions.clone(),
            encodings,
            rtcp: RtcpParameters {
                cname: rtp.cname.clone(),
                reduced_size: rtp.reduced_size,
                mux: true,
            },
        };
        Ok(Self {
            options: ProducerOptions::new(kind, parameters),
            answered: AnsweredMedia {
                direction: MediaDirection::RecvOnly,
                codecs,
                header_extensions,
                // All of them, in the client's order: one that finds fewer than it has offered gives up.
                layers: layers.to_vec(),
                stream: None,
            },
        })
    }
}

/// Whether receivers in the room can be sent it.
fn can_relay(kind: MediaKind, codec: &RtpCodec, room: &RtpCapabilities) -> bool {
    let alone = || RtpParameters {
        codecs: vec![codec.clone()],
        ..RtpParameters::default()
    };
    !codec.is_rtx() && !codec.is_companion() && Consumable::derive(kind, &alone(), room).is_ok()
}

/// Those that receivers or the server itself can use.
fn is_understood(extension: &RtpHeaderExtension) -> bool {
    ExtensionUri::ALL
        .into_iter()
        .any(|uri| extension.uri.eq_ignore_ascii_case(uri.uri()))
}

/// The codec with the feedback that the server sends, of what the client understands.
fn with_own_feedback(codec: &RtpCodec) -> RtpCodec {
    let own = [
        ("nack", ""),
        ("nack", "pli"),
        ("ccm", "fir"),
        ("goog-remb", ""),
        ("transport-cc", ""),
    ];
    let own = own.map(|(name, parameter)| RtcpFeedback::new(name, parameter));
    let mut codec = codec.clone();
    codec
        .rtcp_feedback
        .retain(|offered| own.iter().any(|own| own.is_same(offered)));
    codec.rtcp_feedback.dedup();
    codec
}

/// Which layer is which. Names that say it are believed; else the first is the best, as the order of preference says (RFC 8853 §5.2), and
/// as OBS offers them.
fn profiles(layers: &[String]) -> Vec<Profile> {
    let rank_in = |names: &[&str; 3], rid: &String| names.iter().position(|name| name.eq_ignore_ascii_case(rid));
    let named = NAMED_LAYERS
        .iter()
        .find(|names| layers.iter().all(|rid| rank_in(names, rid).is_some()));
    let rank = |index: usize, rid: &String| match named {
        Some(names) => rank_in(names, rid).unwrap_or_default(),
        None => layers.len() - index,
    };
    let ranks: Vec<usize> = layers.iter().enumerate().map(|(index, rid)| rank(index, rid)).collect();
    let place = |own: &usize| ranks.iter().filter(|other| *other < own).count();
    let profiles = ranks
        .iter()
        .map(|own| LAYERS.get(place(own)).copied().unwrap_or(Profile::High));
    profiles.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHROMIUM: &str = include_str!("../../../tests/data/whip/whip-chromium-whip-whep.sdp");
    const EYEVINN: &str = include_str!("../../../tests/data/whip/whip-chromium-eyevinn.sdp");
    const SIMULCAST: &str = include_str!("../../../tests/data/whip/whip-chromium-simulcast.sdp");
    const FFMPEG: &str = include_str!("../../../tests/data/whip/whip-ffmpeg-8.1.2.sdp");
    const OBS: &str = include_str!("../../../tests/data/whip/whip-obs-shape-1-layer-b.sdp");
    const OBS_LAYERS: &str = include_str!("../../../tests/data/whip/whip-obs-shape-3-layers-b.sdp");
    const WHEP: &str = include_str!("../../../tests/data/whip/whep-chromium-whip-whep.sdp");

    fn room() -> RtpCapabilities {
        RtpCapabilities::for_room(&RtpCapabilities::supported().codecs).unwrap()
    }

    fn planned(text: &str) -> Result<Vec<Track>, SdpError> {
        let tracks = plan(&Offer::parse(text.as_bytes())?, &room())?;
        Ok(tracks.into_iter().flatten().collect())
    }

    fn shape(track: &Track) -> String {
        let parameters = &track.options.rtp_parameters;
        let codecs: Vec<String> = parameters
            .codecs
            .iter()
            .map(|codec| format!("{}={}", codec.payload_type, codec.mime_type))
            .collect();
        let encodings: Vec<String> = parameters
            .encodings
            .iter()
            .map(|own| {
                let rid = own.encoding_id.as_deref().unwrap_or("-");
                let profile = own.profile.map_or("-".to_owned(), |profile| profile.to_string());
                format!(
                    "{rid}/{profile}/{}{}",
                    if own.ssrc.is_some() { "ssrc" } else { "" },
                    if own.rtx.is_some() { "+rtx" } else { "" }
                )
            })
            .collect();
        format!("{:?} {} {}", parameters.mux_id, codecs.join(" "), encodings.join(" "))
    }

    #[test]
    fn each_recorded_publisher_gets_what_it_can_send() {
        for (name, text, audio, video) in [
            (
                "OBS",
                OBS,
                "None 111=audio/opus -/-/ssrc",
                "Some(\"1\") 96=video/H264 -/-/ssrc",
            ),
            (
                "OBS with layers",
                OBS_LAYERS,
                "None 111=audio/opus -/-/ssrc",
                "Some(\"1\") 96=video/H264 0/high/ 1/medium/ 2/low/",
            ),
            (
                "FFmpeg",
                FFMPEG,
                "None 111=audio/opus -/-/ssrc",
                "None 106=video/H264 105=video/rtx -/-/ssrc+rtx",
            ),
            (
                "whip-whep",
                CHROMIUM,
                "Some(\"0\") 111=audio/opus -/-/ssrc",
                "Some(\"1\") 96=video/VP8 97=video/rtx -/-/ssrc+rtx",
            ),
            (
                "Eyevinn",
                EYEVINN,
                "Some(\"0\") 111=audio/opus -/-/ssrc",
                "Some(\"1\") 96=video/VP8 97=video/rtx -/-/ssrc+rtx",
            ),
            (
                "simulcast",
                SIMULCAST,
                "Some(\"0\") 111=audio/opus -/-/ssrc",
                "Some(\"1\") 96=video/VP8 97=video/rtx q/low/+rtx h/medium/+rtx f/high/+rtx",
            ),
        ] {
            let tracks = planned(text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!([shape(&tracks[0]), shape(&tracks[1])], [audio, video], "{name}");
            for track in &tracks {
                let ProducerOptions {
                    kind, rtp_parameters, ..
                } = &track.options;
                assert!(Consumable::derive(*kind, rtp_parameters, &room()).is_ok(), "{name}");
                assert_eq!(track.answered.direction, MediaDirection::RecvOnly);
            }
        }
        assert_eq!(planned(OBS_LAYERS).unwrap()[1].answered.layers, ["0", "1", "2"]);
    }

    #[test]
    fn what_nobody_can_use_is_not_taken() {
        let tracks = planned(CHROMIUM).unwrap();
        let answered = &tracks[1].answered;
        let uris: Vec<&str> = answered.header_extensions.iter().map(|own| own.uri.as_str()).collect();
        assert!(uris.contains(&ExtensionUri::TransportWideCc.uri()) && uris.contains(&ExtensionUri::Mid.uri()));
        assert!(!uris.iter().any(|uri| uri.contains("color-space")), "{uris:?}");
        let feedback: Vec<_> = answered.codecs[0]
            .rtcp_feedback
            .iter()
            .map(|own| own.r#type.as_str())
            .collect();
        assert_eq!(feedback, ["goog-remb", "transport-cc", "ccm", "nack", "nack"]);
    }

    #[test]
    fn what_cannot_be_published_is_refused_as_a_whole() {
        let twice = OBS
            .replace("m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=video 9 UDP/TLS/RTP/SAVPF 111")
            .replace("opus/48000/2", "VP8/90000");
        let data = format!(
            "{}m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n",
            OBS.replace("BUNDLE 0 1", "BUNDLE 0 1 2")
        );
        let four = OBS_LAYERS
            .replace("a=rid:2 send", "a=rid:2 send\r\na=rid:3 send")
            .replace("0;1;2", "0;1;2;3");
        for (text, says) in [
            (WHEP.to_owned(), "recvonly, but who publishes sends"),
            (OBS.replace("a=sendonly", "a=inactive"), "inactive"),
            (twice, "m=video twice"),
            (data, "m=application is not relayed"),
            (OBS.replace("H264/90000", "theora/90000"), "video/theora"),
            (OBS.replace("a=rtcp-mux\r\n", ""), "a=rtcp-mux"),
            (four, "at most 3 layers here, not 4"),
            (OBS_LAYERS.replace("a=extmap:2 ", "a=x:"), "rtp-stream-id"),
            (OBS.replace("a=ssrc:", "a=x:"), "cannot be told from others"),
        ] {
            let error = planned(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{says:?} is not in {error}");
        }
    }

    #[test]
    fn layers_are_ordered_by_their_names_or_the_best_comes_first() {
        use Profile::{High, Low, Medium};
        for (rids, expected) in [
            (&["0", "1", "2"][..], &[High, Medium, Low][..]),
            (&["f", "h", "q"], &[High, Medium, Low]),
            (&["q", "h", "f"], &[Low, Medium, High]),
            (&["h", "m", "l"], &[High, Medium, Low]),
            (&["r0", "r1", "r2"], &[Low, Medium, High]),
            (&["a", "b"], &[Medium, Low]),
            (&["h", "f"], &[Low, Medium]),
            (&["one"], &[Low]),
        ] {
            let rids: Vec<String> = rids.iter().map(|rid| (*rid).to_owned()).collect();
            assert_eq!(profiles(&rids), expected, "{rids:?}");
        }
    }
}
