use std::collections::BTreeMap;

use weir_channel::message::{DtlsRole, FingerprintAlgorithm, IceProtocol};

use super::*;
use crate::{
    DtlsParameters, ExtensionUri, Fingerprint, IceCandidate, IceCandidateType, IceParameters, IceTcpType, IpFamily,
};

const CHROMIUM: &str = include_str!("../../tests/data/whip/whip-chromium-whip-whep.sdp");
const SIMULCAST: &str = include_str!("../../tests/data/whip/whip-chromium-simulcast.sdp");
const FFMPEG: &str = include_str!("../../tests/data/whip/whip-ffmpeg-8.1.2.sdp");
const OBS: &str = include_str!("../../tests/data/whip/whip-obs-shape-1-layer-a.sdp");
const OBS_LAYERS: &str = include_str!("../../tests/data/whip/whip-obs-shape-3-layers-a.sdp");

/// What clients have said, by the name of its file.
fn recorded(ending: &str) -> BTreeMap<String, Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/whip");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|own| own == ending));
    let named = files.map(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read(path).unwrap())
    });
    named.collect()
}

fn rtp(offer: &Offer, index: usize) -> &RtpSection {
    offer.media[index].rtp.as_ref().unwrap()
}

fn names(section: &RtpSection) -> Vec<String> {
    let codecs = section.codecs.iter();
    codecs
        .map(|codec| format!("{} {}", codec.payload_type, codec.mime_type))
        .collect()
}

#[test]
fn every_recorded_offer_is_read() {
    let recorded = recorded("sdp");
    assert_eq!(recorded.len(), 10);
    for (name, bytes) in recorded {
        let offer = Offer::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(offer.media.len(), 2, "{name}");
        let wanted = match name.starts_with("whip") {
            true => MediaDirection::SendOnly,
            false => MediaDirection::RecvOnly,
        };
        for section in &offer.media {
            let rtp = section.rtp.as_ref().unwrap();
            assert_eq!(rtp.direction, wanted, "{name}");
            assert!(section.mid.is_some() && !section.is_off && rtp.rtcp_mux, "{name}");
            assert!(!rtp.codecs.is_empty(), "{name}");
            let known = rtp.ssrcs.len() == 1 || !rtp.layers.is_empty() || wanted.receives();
            assert!(known, "{name}: {rtp:?}");
        }
        assert_eq!(offer.dtls.fingerprints.len(), 1, "{name}");
        assert_eq!(
            offer.dtls.fingerprints[0].algorithm,
            FingerprintAlgorithm::Sha256,
            "{name}"
        );
        let role = match name.contains("ffmpeg") {
            true => DtlsRole::Server,
            false => DtlsRole::Auto,
        };
        assert_eq!(offer.dtls.role, role, "{name}");
        assert!(!offer.ice_lite, "{name}");
        assert!(!format!("{:?}", offer.ice).contains(&offer.ice.password));
    }
}

#[test]
fn every_recorded_fragment_is_read() {
    let recorded = recorded("sdpfrag");
    assert_eq!(recorded.len(), 9);
    for (name, bytes) in recorded {
        let fragment = Fragment::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(fragment.ice().is_ok(), "{name}");
        // The last one of each client that restarts has nothing but credentials.
        let restarts = name.ends_with("up-7.sdpfrag") || name.ends_with("medwhip-3.sdpfrag");
        assert_eq!(fragment.candidates == 0 && !fragment.is_last, restarts, "{name}");
    }
}

#[test]
fn what_obs_offers() {
    let offer = Offer::parse(OBS_LAYERS.as_bytes()).unwrap();
    assert!(offer.trickle);
    assert_eq!(offer.ice.username_fragment, "BLSR");
    let (audio, video) = (rtp(&offer, 0), rtp(&offer, 1));
    assert_eq!(names(audio), ["111 audio/opus"]);
    assert_eq!(
        (audio.ssrcs.as_slice(), audio.cname.as_deref()),
        (&[503_452_562][..], Some("cn"))
    );
    assert_eq!(audio.codecs[0].channels, Some(2));
    assert_eq!(audio.codecs[0].parameters["stereo"], "1");
    assert!(audio.header_extensions.is_empty() && audio.layers.is_empty());
    assert_eq!(names(video), ["96 video/H264"]);
    assert_eq!(video.layers, ["0", "1", "2"], "the best one first");
    let extensions: Vec<_> = video
        .header_extensions
        .iter()
        .map(|own| (own.id, own.uri.as_str()))
        .collect();
    assert_eq!(
        extensions,
        [(1, ExtensionUri::Mid.uri()), (2, ExtensionUri::RtpStreamId.uri())]
    );
    let feedback: Vec<_> = video.codecs[0]
        .rtcp_feedback
        .iter()
        .map(|own| own.r#type.as_str())
        .collect();
    assert_eq!(feedback, ["nack", "nack", "goog-remb"]);
    assert!(video.repair_of(96).is_none());
    assert_eq!(rtp(&Offer::parse(OBS.as_bytes()).unwrap(), 1).layers, [""; 0]);
}

#[test]
fn what_ffmpeg_offers() {
    let offer = Offer::parse(FFMPEG.as_bytes()).unwrap();
    let video = rtp(&offer, 1);
    assert_eq!(names(video), ["106 video/H264", "105 video/rtx"]);
    assert_eq!(video.repair_of(106).unwrap().payload_type, 105);
    assert_eq!(video.ssrcs, [878_074_414]);
    assert_eq!(video.repairs, [(878_074_414, 878_074_415)]);
    assert!(video.reduced_size && !rtp(&offer, 0).reduced_size);
}

#[test]
fn what_chromium_offers() {
    let offer = Offer::parse(SIMULCAST.as_bytes()).unwrap();
    let (audio, video) = (rtp(&offer, 0), rtp(&offer, 1));
    assert_eq!(video.layers, ["q", "h", "f"], "the page's order");
    assert_eq!(audio.codecs.len(), 8);
    // What has no `=`.
    assert_eq!(audio.codecs[1].parameters["111/111"], serde_json::Value::Null);
    assert_eq!(video.codecs.len(), 23);
    assert_eq!(video.codecs[0].mime_type, "video/VP8");
    assert_eq!(video.header_extensions.len(), 13);
    let single = Offer::parse(CHROMIUM.as_bytes()).unwrap();
    assert_eq!((rtp(&single, 1).ssrcs.len(), rtp(&single, 1).repairs.len()), (1, 1));
}

fn answer(offer: &Offer, candidates: &[IceCandidate], takes: &[bool]) -> String {
    let taken = |(section, takes): (&OfferedMedia, &bool)| {
        let rtp = section.rtp.as_ref()?;
        takes.then(|| AnsweredMedia {
            direction: MediaDirection::RecvOnly,
            codecs: rtp.codecs[..1].to_vec(),
            header_extensions: rtp.header_extensions.clone(),
            layers: rtp.layers.clone(),
            stream: None,
        })
    };
    let answer = Answer {
        session: 7,
        ice: ice(),
        candidates,
        dtls: DtlsParameters {
            role: DtlsRole::Client,
            fingerprints: [FingerprintAlgorithm::Sha512, FingerprintAlgorithm::Sha256]
                .map(|algorithm| Fingerprint {
                    algorithm,
                    value: format!("AB:{algorithm}"),
                })
                .into(),
        },
        media: offer.media.iter().zip(takes).map(taken).collect(),
    };
    answer.write(offer)
}

fn ice() -> IceParameters {
    IceParameters {
        username_fragment: "serverufrag".to_owned(),
        password: "serverpassword".to_owned(),
        ice_lite: true,
    }
}

fn candidate(protocol: IceProtocol, ip: &str) -> IceCandidate {
    let ip: std::net::IpAddr = ip.parse().unwrap();
    IceCandidate {
        foundation: "udpcandidate".to_owned(),
        priority: 5,
        family: if ip.is_ipv4() { IpFamily::Ipv4 } else { IpFamily::Ipv6 },
        ip,
        port: 4_000,
        protocol,
        kind: IceCandidateType::Host,
        tcp_type: (protocol == IceProtocol::Tcp).then_some(IceTcpType::Passive),
    }
}

fn candidates() -> [IceCandidate; 4] {
    [
        candidate(IceProtocol::Tcp, "192.0.2.1"),
        candidate(IceProtocol::Udp, "2001:db8::1"),
        candidate(IceProtocol::Tcp, "2001:db8::1"),
        candidate(IceProtocol::Udp, "192.0.2.1"),
    ]
}

#[test]
fn an_answer_is_what_every_client_can_read() {
    let offer = Offer::parse(OBS_LAYERS.as_bytes()).unwrap();
    let expected = "v=0\r\no=- 7 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\na=extmap-allow-mixed\r\n\
        a=msid-semantic:WMS *\r\na=ice-lite\r\n\
        m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:serverufrag\r\na=ice-pwd:serverpassword\r\n\
        a=fingerprint:sha-256 AB:sha-256\r\na=setup:active\r\na=rtcp-mux\r\na=mid:0\r\na=recvonly\r\na=rtcp-mux-only\r\n\
        a=rtpmap:111 opus/48000/2\r\n\
        a=fmtp:111 maxaveragebitrate=96000;minptime=10;sprop-stereo=1;stereo=1;useinbandfec=1\r\n\
        a=candidate:1 1 udp 5 192.0.2.1 4000 typ host\r\na=candidate:2 1 udp 5 2001:db8::1 4000 typ host\r\n\
        a=candidate:3 1 tcp 5 192.0.2.1 4000 typ host tcptype passive\r\n\
        a=candidate:4 1 tcp 5 2001:db8::1 4000 typ host tcptype passive\r\na=end-of-candidates\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:serverufrag\r\na=ice-pwd:serverpassword\r\n\
        a=fingerprint:sha-256 AB:sha-256\r\na=setup:active\r\na=rtcp-mux\r\na=mid:1\r\n\
        a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\na=extmap:2 urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id\r\n\
        a=recvonly\r\na=rtcp-mux-only\r\na=rtpmap:96 H264/90000\r\na=rtcp-fb:96 nack\r\n\
        a=rtcp-fb:96 nack pli\r\na=rtcp-fb:96 goog-remb\r\n\
        a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n\
        a=rid:0 recv\r\na=rid:1 recv\r\na=rid:2 recv\r\na=simulcast:recv 0;1;2\r\n";
    assert_eq!(answer(&offer, &candidates(), &[true, true]), expected);
}

#[test]
fn a_refused_section_has_no_port_and_is_not_bundled() {
    let offer = Offer::parse(FFMPEG.as_bytes()).unwrap();
    let text = answer(&offer, &candidates(), &[false, true]);
    assert!(text.contains("a=group:BUNDLE 1\r\n"), "{text}");
    assert!(text.contains("m=audio 0 UDP/TLS/RTP/SAVPF 111\r\n"), "{text}");
    let (audio, video) = text.split_once("m=video").unwrap();
    // Some clients look for these in every section.
    for line in [
        "a=ice-ufrag:",
        "a=ice-pwd:",
        "a=fingerprint:",
        "a=setup:",
        "a=rtcp-mux\r\n",
        "a=inactive",
    ] {
        assert!(audio.contains(line), "{line}: {audio}");
    }
    assert!(
        video.contains("a=candidate:1 1 udp"),
        "the transport is in the first section that is taken"
    );
    let nothing = answer(&offer, &candidates(), &[]);
    assert!(
        !nothing.contains("BUNDLE") && nothing.matches(" 0 UDP/TLS").count() == 2,
        "{nothing}"
    );
}

#[test]
fn a_restart_tells_of_one_candidate() {
    let text = Fragment::restarted(&ice(), &candidates(), Some("0"));
    assert_eq!(
        text,
        "a=ice-lite\r\na=ice-ufrag:serverufrag\r\na=ice-pwd:serverpassword\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n\
         a=candidate:1 1 udp 5 192.0.2.1 4000 typ host\r\na=end-of-candidates\r\n"
    );
    let read = Fragment::parse(text.as_bytes()).unwrap();
    assert_eq!((read.candidates, read.is_last), (1, true));
}

/// An offer with something changed, and what its refusal says.
#[test]
fn hostile_offers_are_refused_in_a_sentence() {
    let changed = |from: &str, to: &str| {
        assert!(OBS_LAYERS.contains(from), "{from}");
        OBS_LAYERS.replace(from, to)
    };
    let sections = |count: usize| format!("v=0\r\n{}", "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(count));
    let many_attributes = changed("a=mid:0", &"a=x\r\n".repeat(1_001));
    let many_fingerprints: String = (0..6)
        .map(|index| format!("a=fingerprint:sha-256 {index}{index}\r\n"))
        .collect();
    let rows: Vec<(String, bool, &str)> = vec![
        (String::new(), true, "not SDP"),
        ("hello".to_owned(), true, "not SDP"),
        ("v=1\r\n".to_owned(), true, "not SDP"),
        ("v=0\r\n".to_owned(), true, "1 to 16 media sections"),
        (sections(17), true, "not 17"),
        (sections(1), true, "no a=ice-ufrag"),
        (format!("v=0\r\n{}", "x".repeat(OFFER_BYTES_MAX)), true, "at most"),
        (many_attributes, true, "at most 1000 attributes"),
        (changed("a=ice-ufrag:BLSR\r\n", ""), true, "no a=ice-ufrag"),
        (
            changed("a=ice-pwd:AjBZ35B08AQ6f8qrRWGM+/\r\n", ""),
            true,
            "no a=ice-pwd",
        ),
        (changed("BLSR", "BLS"), true, "4 to 256"),
        (changed("AjBZ35B08AQ6f8qrRWGM+/", "short"), true, "22 to 256"),
        (changed("a=fingerprint:sha-256 93", "a=x:93"), true, "no a=fingerprint"),
        (
            changed("a=fingerprint:sha-256 ", "a=fingerprint:"),
            true,
            "name of a hash function",
        ),
        (
            changed("a=fingerprint:sha-256 ", "a=fingerprint:md5 "),
            false,
            "sha-256",
        ),
        (
            changed(
                "a=fingerprint:sha-256 93",
                &format!("{many_fingerprints}a=fingerprint:sha-256 93"),
            ),
            false,
            "not 7",
        ),
        (changed("a=setup:actpass", "a=setup:holdconn"), true, "holdconn"),
        (changed("BUNDLE 0 1", "BUNDLE 0"), false, "a=mid:1"),
        (changed("a=group:BUNDLE 0 1", "a=group:LS 0 1"), false, "one transport"),
        (changed("a=mid:1", "a=mid:0"), true, "two media sections have a=mid:0"),
        (
            changed("a=mid:1", &format!("a=mid:{}", "x".repeat(33))),
            true,
            "32 bytes",
        ),
        (changed("a=mid:1", "a=mid:\u{e9}"), true, "visible"),
        (
            changed("a=ssrc:503452563 cname", "a=ssrc:4294967296 cname"),
            true,
            "32 bits",
        ),
        (changed("a=extmap:1 ", "a=extmap:one "), true, "RFC 8285"),
        (changed("SAVPF 96", "SAVPF 96 96"), true, "twice"),
        (changed("SAVPF 96", "SAVPF 300"), true, "payload type"),
        (changed("H264/90000", "H264"), true, "clock rate"),
    ];
    for (text, is_malformed, says) in rows {
        let error = Offer::parse(text.as_bytes()).unwrap_err();
        assert_eq!(matches!(error, SdpError::Malformed(_)), is_malformed, "{says}: {error}");
        assert!(error.to_string().contains(says), "{says:?} is not in {error}");
        assert!(error.to_string().len() < 300, "{error}");
    }
}

#[test]
fn what_nobody_here_knows_is_passed_over() {
    let text = OBS_LAYERS
        .replace(
            "a=extmap:1 ",
            "a=extmap:4096 urn:x\r\na=extmap:0 urn:y\r\na=extmap:1/sendonly ",
        )
        .replace("a=simulcast:send 0;1;2", "a=simulcast:send ~0,9;1;1;77 recv 5")
        .replace("a=setup:actpass", "a=setup:active\r\na=cryptic")
        .replace("SAVPF 96", "SAVPF 96 35");
    let offer = Offer::parse(text.as_bytes()).unwrap();
    let video = rtp(&offer, 1);
    assert_eq!(
        video.layers,
        ["0", "1"],
        "the first of alternatives, what is declared, each once"
    );
    assert_eq!(video.header_extensions.len(), 2);
    assert_eq!(names(video), ["96 video/H264"], "35 is not described");
    assert_eq!(offer.dtls.role, DtlsRole::Client);
    // A section for data, and one that the client has switched off.
    let data = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n";
    let text = format!("{}{data}", OBS_LAYERS.replace("BUNDLE 0 1", "BUNDLE 0 1 2"));
    let offer = Offer::parse(text.as_bytes()).unwrap();
    assert_eq!(offer.media.len(), 3);
    assert!(offer.media[2].rtp.is_none() && offer.media[2].name() == "application");
    let off = OBS_LAYERS
        .replace("BUNDLE 0 1", "BUNDLE 0")
        .replace("m=video 9", "m=video 0");
    assert!(Offer::parse(off.as_bytes()).unwrap().media[1].is_off);
    // As GStreamer says it.
    let bundle_only = OBS_LAYERS
        .replace("m=video 9", "m=video 0")
        .replace("a=mid:1", "a=mid:1\r\na=bundle-only");
    assert!(!Offer::parse(bundle_only.as_bytes()).unwrap().media[1].is_off);
}

#[test]
fn hostile_fragments_are_refused_in_a_sentence() {
    for (text, says) in [
        ("", "neither"),
        ("a=ice-pwd:0123456789012345678901\r\n", "neither"),
        ("hello\r\n", "RFC 8840"),
        ("=\r\n", "RFC 8840"),
        ("a=ice-ufrag:abcd\r\na=ice-ufrag:efgh\r\n", "two values"),
        ("a=ice-pwd:abcd\na=ice-pwd:efgh\n", "two values"),
    ] {
        let error = Fragment::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
    assert!(Fragment::parse(&[0xff]).is_err());
    assert!(Fragment::parse(&vec![b'\n'; FRAGMENT_BYTES_MAX + 1]).is_err());
    let trickled = Fragment::parse(b"a=ice-ufrag:abcd\r\na=candidate:x\r\n").unwrap();
    assert!(trickled.ice().unwrap_err().to_string().contains("a=ice-pwd"));
    let short = Fragment::parse(b"a=ice-ufrag:abc\na=ice-pwd:0123456789012345678901").unwrap();
    assert!(short.ice().is_err());
}
