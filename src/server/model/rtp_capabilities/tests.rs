//! Capabilities, mapping and consumers' parameters, on what a real mediasoup 2.6.19 and Chromium said to each other.

use proptest::prelude::*;
use serde_json::{Value, json};
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{CodecName, ExtensionUri, MediaKind, Profile};

use super::*;
use crate::server::model::client_json::known_capabilities;
use crate::server::model::rtp_parameters::{
    ConsumerPlacement, ConsumerSsrcs, RtcpFeedback, RtpCodec, RtpEncoding, RtpHeaderExtension, RtpParameters,
};

fn media_codecs(json: Value) -> Vec<RtpCodecCapability> {
    serde_json::from_value(json).unwrap()
}

/// The codecs of the recorded room.
fn recorded_codecs() -> Vec<RtpCodecCapability> {
    media_codecs(json!([
        {"kind": "audio", "name": "opus", "mimeType": "audio/opus", "clockRate": 48000, "channels": 2,
         "parameters": {"useinbandfec": 1}},
        {"kind": "video", "name": "VP8", "mimeType": "video/VP8", "clockRate": 90000},
        {"kind": "video", "name": "H264", "mimeType": "video/H264", "clockRate": 90000,
         "parameters": {"packetization-mode": 1, "profile-level-id": "42e01f", "level-asymmetry-allowed": 1}}
    ]))
}

fn recorded_room() -> RtpCapabilities {
    RtpCapabilities::for_room(&recorded_codecs()).unwrap()
}

fn feedback() -> Value {
    json!([{"type": "nack"}, {"type": "nack", "parameter": "pli"}, {"type": "ccm", "parameter": "fir"}, {"type": "goog-remb"}])
}

/// What the client of the recording joined with: the room's codecs, with the browser's order of feedback.
fn recorded_peer() -> RtpCapabilities {
    let mut peer = recorded_room();
    for codec in &mut peer.codecs {
        codec.rtcp_feedback.reverse();
    }
    peer.header_extensions.retain(|extension| extension.preferred_id <= 6);
    peer
}

/// What the browser of the recording sent as its camera.
fn recorded_camera() -> RtpParameters {
    let json = json!({
        "muxId": "1",
        "codecs": [
            {"name": "VP8", "mimeType": "video/VP8", "clockRate": 90000, "payloadType": 96, "rtcpFeedback": feedback(),
             "parameters": {}},
            {"name": "rtx", "mimeType": "video/rtx", "clockRate": 90000, "payloadType": 97, "parameters": {"apt": 96}}
        ],
        "headerExtensions": [
            {"uri": "urn:ietf:params:rtp-hdrext:toffset", "id": 14},
            {"uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 2},
            {"uri": "urn:3gpp:video-orientation", "id": 13},
            {"uri": "urn:ietf:params:rtp-hdrext:sdes:mid", "id": 4},
            {"uri": "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", "id": 10}
        ],
        "encodings": [{"ssrc": 3087771669_u32, "rtx": {"ssrc": 774222058}}],
        "rtcp": {"cname": "SLjtDZjyRf3DkBGd", "reducedSize": true, "mux": true}
    });
    serde_json::from_value(json).unwrap()
}

fn consumed(
    producer: &RtpParameters,
    kind: MediaKind,
    room: &RtpCapabilities,
    peer: &RtpCapabilities,
) -> RtpParameters {
    let mapping = ProducerMapping::derive(producer, room).unwrap();
    consumer_parameters(&mapping.consumable(kind, producer, room), peer)
}

fn placement() -> ConsumerPlacement {
    ConsumerPlacement {
        room: RoomId(1),
        transport: TransportId(2),
        producer: ProducerId(3),
        consumer: ConsumerId(4),
        preferred_profile: Profile::Default,
        paused: false,
        cname_is_made_up: false,
    }
}

#[test]
fn a_room_has_the_numbers_that_mediasoup_gave_it() {
    let mut json = serde_json::to_value(recorded_room()).unwrap();
    let extensions = json["headerExtensions"].as_array_mut().unwrap();
    let later = extensions.split_off(8);
    assert_eq!(
        json,
        json!({
            "codecs": [
                {"kind": "audio", "name": "opus", "mimeType": "audio/opus", "clockRate": 48000, "channels": 2,
                 "parameters": {"useinbandfec": 1}, "rtcpFeedback": [], "preferredPayloadType": 100},
                {"kind": "video", "name": "VP8", "mimeType": "video/VP8", "clockRate": 90000, "parameters": {},
                 "rtcpFeedback": feedback(), "preferredPayloadType": 101},
                {"kind": "video", "name": "rtx", "mimeType": "video/rtx", "clockRate": 90000, "parameters": {"apt": 101},
                 "preferredPayloadType": 102},
                {"kind": "video", "name": "H264", "mimeType": "video/H264", "clockRate": 90000,
                 "parameters": {"packetization-mode": 1, "profile-level-id": "42e01f", "level-asymmetry-allowed": 1},
                 "rtcpFeedback": feedback(), "preferredPayloadType": 103},
                {"kind": "video", "name": "rtx", "mimeType": "video/rtx", "clockRate": 90000, "parameters": {"apt": 103},
                 "preferredPayloadType": 104}
            ],
            "headerExtensions": [
                {"kind": "audio", "uri": "urn:ietf:params:rtp-hdrext:ssrc-audio-level", "preferredId": 1, "preferredEncrypt": false},
                {"kind": "video", "uri": "urn:ietf:params:rtp-hdrext:toffset", "preferredId": 2, "preferredEncrypt": false},
                {"kind": "audio", "uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "preferredId": 3, "preferredEncrypt": false},
                {"kind": "video", "uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "preferredId": 3, "preferredEncrypt": false},
                {"kind": "video", "uri": "urn:3gpp:video-orientation", "preferredId": 4, "preferredEncrypt": false},
                {"kind": "audio", "uri": "urn:ietf:params:rtp-hdrext:sdes:mid", "preferredId": 5, "preferredEncrypt": false},
                {"kind": "video", "uri": "urn:ietf:params:rtp-hdrext:sdes:mid", "preferredId": 5, "preferredEncrypt": false},
                {"kind": "video", "uri": "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", "preferredId": 6, "preferredEncrypt": false}
            ],
            "fecMechanisms": []
        })
    );
    assert!(
        later
            .iter()
            .all(|extension| extension["preferredId"].as_u64() > Some(6)),
        "{later:?}"
    );
    let again: RtpCapabilities = serde_json::from_value(serde_json::to_value(recorded_room()).unwrap()).unwrap();
    assert_eq!(again, recorded_room());
}

#[test]
fn conventional_and_wished_payload_types_are_kept_clear_of() {
    let room = RtpCapabilities::for_room(&media_codecs(json!([
        {"mimeType": "audio/PCMU", "clockRate": 8000},
        {"mimeType": "audio/opus", "clockRate": 48000, "preferredPayloadType": 101},
        {"kind": "audio", "name": "g722", "clockRate": 8000, "channels": 1},
        {"mimeType": "video/vp8", "clockRate": 90000}
    ])))
    .unwrap();
    let numbers: Vec<(&str, Option<u8>)> = room
        .codecs
        .iter()
        .map(|codec| (codec.name.as_str(), codec.preferred_payload_type))
        .collect();
    let expected = [("PCMU", 0), ("opus", 101), ("G722", 9), ("VP8", 100), ("rtx", 102)];
    assert_eq!(numbers, expected.map(|(name, number)| (name, Some(number))));
    assert_eq!(room.codecs[0].channels, Some(1));
}

#[test]
fn what_a_room_cannot_have_is_refused_with_the_reason() {
    let rows = [
        (json!([]), "1 to 32 media codecs"),
        (
            json!([{"mimeType": "audio/VP8", "clockRate": 90000}]),
            "not a codec that is relayed; video/VP8 is",
        ),
        (
            json!([{"mimeType": "video/rtx", "clockRate": 90000}]),
            "comes by itself",
        ),
        (
            json!([{"mimeType": "audio/opus", "clockRate": 44100}]),
            "is not relayed",
        ),
        (
            json!([{"mimeType": "audio/opus", "clockRate": 48000, "channels": 1}]),
            "channels 1",
        ),
        (
            json!([{"mimeType": "video/H264", "clockRate": 90000, "parameters": {"packetization-mode": 2}}]),
            "is not relayed",
        ),
        (
            json!([{"mimeType": "video/VP8", "clockRate": 90000}, {"mimeType": "video/VP8", "clockRate": 90000}]),
            "listed twice",
        ),
        (
            json!([{"mimeType": "video/VP8", "clockRate": 90000, "preferredPayloadType": 72}]),
            "collides with RTCP",
        ),
        (
            json!([
                {"mimeType": "video/VP8", "clockRate": 90000, "preferredPayloadType": 8},
                {"mimeType": "audio/PCMA", "clockRate": 8000}
            ]),
            "another codec's",
        ),
    ];
    for (codecs, complaint) in rows {
        let error = RtpCapabilities::for_room(&media_codecs(codecs.clone())).unwrap_err();
        assert!(error.contains(complaint), "{codecs}: {error}");
    }
    let many: Vec<RtpCodecCapability> = (0..32)
        .map(|profile| {
            let mut codec = RtpCodecCapability::new(CodecName::Vp9);
            codec.parameters.insert("profile-id".to_owned(), profile.into());
            codec
        })
        .collect();
    // 28 + 4 + 29 numbers for 64 codecs.
    let error = RtpCapabilities::for_room(&many).unwrap_err();
    assert!(error.contains("no payload type is left"), "{error}");
    assert!(RtpCapabilities::for_room(&many[..30]).is_ok());
}

#[test]
fn peers_may_know_less_than_the_room_but_nothing_else() {
    let room = recorded_room();
    assert_eq!(recorded_peer().check_subset_of(&room), Ok(()));
    assert_eq!(RtpCapabilities::default().check_subset_of(&room), Ok(()));
    assert_eq!(room.check_subset_of(&room), Ok(()));
    let rows = [
        (
            "/codecs/0/preferredPayloadType",
            json!(101),
            "no codec opus under preferredPayloadType 101",
        ),
        (
            "/codecs/0/preferredPayloadType",
            json!(null),
            "needs the preferredPayloadType",
        ),
        ("/codecs/0/channels", json!(1), "no codec opus"),
        ("/codecs/1/clockRate", json!(8000), "no codec VP8"),
        ("/codecs/2/parameters/apt", json!(103), "no codec rtx"),
        ("/codecs/3/parameters/packetization-mode", json!(0), "no codec H264"),
        ("/headerExtensions/0/preferredId", json!(2), "is 1 in this room, not 2"),
        (
            "/headerExtensions/0/uri",
            json!("urn:example:new"),
            "does not have header extension urn:example:new",
        ),
        (
            "/headerExtensions/0/kind",
            json!("video"),
            "does not have header extension",
        ),
    ];
    for (path, value, complaint) in rows {
        let mut peer = serde_json::to_value(recorded_peer()).unwrap();
        *peer.pointer_mut(path).unwrap() = value;
        let peer: RtpCapabilities = serde_json::from_value(known_capabilities(peer)).unwrap();
        let error = peer.check_subset_of(&room).unwrap_err();
        assert!(error.contains(complaint), "{path}: {error}");
    }
    let many = RtpCapabilities {
        fec_mechanisms: vec![String::new(); 129],
        ..RtpCapabilities::default()
    };
    assert!(many.check_subset_of(&room).is_err());
}

#[test]
fn of_a_clients_capabilities_the_unknown_is_left_out_and_nothing_else() {
    let room = serde_json::to_value(recorded_room()).unwrap();
    assert_eq!(known_capabilities(room.clone()), room);
    let mut more = room.clone();
    for path in ["", "/codecs/0", "/codecs/1/rtcpFeedback/0", "/headerExtensions/3"] {
        more.pointer_mut(path).unwrap()["newer"] = json!(1);
    }
    assert_eq!(known_capabilities(more), room);
}

#[test]
fn a_camera_is_consumed_as_it_was_in_the_recording() {
    let room = recorded_room();
    let camera = recorded_camera();
    let mapping = ProducerMapping::derive(&camera, &room).unwrap();
    assert_eq!(mapping.payload_types(), [(96, 101)]);
    let parameters = consumed(&camera, MediaKind::Video, &room, &recorded_peer());
    let parameters = parameters.with_ssrcs(ConsumerSsrcs {
        media: 23229757,
        rtx: 36490022,
    });
    let mut feedback = feedback();
    feedback.as_array_mut().unwrap().reverse();
    assert_eq!(
        serde_json::to_value(&parameters).unwrap(),
        json!({
            "codecs": [
                {"name": "VP8", "mimeType": "video/VP8", "clockRate": 90000, "payloadType": 101, "rtcpFeedback": feedback,
                 "parameters": {}},
                {"name": "rtx", "mimeType": "video/rtx", "clockRate": 90000, "payloadType": 102, "parameters": {"apt": 101}}
            ],
            // Unlike the recording without rtp-stream-id, which is the producer's affair and not relayed.
            "headerExtensions": [
                {"uri": "urn:ietf:params:rtp-hdrext:toffset", "id": 2},
                {"uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 3},
                {"uri": "urn:3gpp:video-orientation", "id": 4}
            ],
            "encodings": [{"ssrc": 23229757, "rtx": {"ssrc": 36490022}}],
            "rtcp": {"cname": "SLjtDZjyRf3DkBGd", "reducedSize": true, "mux": true}
        })
    );
    let request = parameters
        .consumer_request(placement(), mapping.payload_types())
        .unwrap();
    assert_eq!(request.payload_types, [(96, 101)]);
    assert_eq!(
        request.rtx.map(|rtx| (rtx.ssrc, rtx.payload_types)),
        Some((36490022, vec![(101, 102)]))
    );
    assert!(request.nack);
}

#[test]
fn a_peer_without_the_codec_gets_none_and_cannot_be_sent_to() {
    let room = recorded_room();
    let mut peer = recorded_peer();
    peer.codecs.retain(|codec| codec.preferred_payload_type != Some(101));
    let parameters = consumed(&recorded_camera(), MediaKind::Video, &room, &peer);
    assert_eq!(parameters.codecs, [], "not even the rtx of what it cannot receive");
    let parameters = parameters.with_ssrcs(ConsumerSsrcs { media: 1, rtx: 2 });
    assert_eq!(parameters.encodings, [RtpEncoding::ssrc(1)]);
    let error = parameters.consumer_request(placement(), &[(96, 101)]).unwrap_err();
    assert!(error.contains("no codec in common"), "{error}");
}

#[test]
fn formats_are_matched_by_what_tells_them_apart() {
    let room = RtpCapabilities::for_room(&media_codecs(json!([
        {"mimeType": "video/H264", "clockRate": 90000, "parameters": {"packetization-mode": 1, "profile-level-id": "42e01f"}},
        {"mimeType": "video/H264", "clockRate": 90000, "parameters": {"packetization-mode": 1, "profile-level-id": "640c1f"}},
        {"mimeType": "video/VP9", "clockRate": 90000},
        {"mimeType": "video/VP9", "clockRate": 90000, "parameters": {"profile-id": 2}},
        {"mimeType": "video/H265", "clockRate": 90000},
        {"mimeType": "video/AV1", "clockRate": 90000, "parameters": {"profile": 1}}
    ])))
    .unwrap();
    let mapped = |name: &str, parameters: Value| {
        let codec = json!({"mimeType": format!("video/{name}"), "payloadType": 96, "clockRate": 90000, "parameters": parameters});
        let parameters = RtpParameters {
            codecs: vec![serde_json::from_value(codec).unwrap()],
            ..RtpParameters::default()
        };
        ProducerMapping::derive(&parameters, &room).map(|mapping| mapping.payload_types()[0].1)
    };
    let rows = [
        (
            "H264",
            json!({"packetization-mode": 1, "profile-level-id": "42E034"}),
            Some(100),
        ),
        (
            "H264",
            json!({"packetization-mode": "1", "profile-level-id": "640c2a"}),
            Some(102),
        ),
        (
            "H264",
            json!({"packetization-mode": 1, "profile-level-id": "4d001f"}),
            Some(100),
        ),
        (
            "H264",
            json!({"packetization-mode": 1, "profile-level-id": "é"}),
            Some(100),
        ),
        ("H264", json!({}), None),
        ("VP9", json!({}), Some(104)),
        ("vp9", json!({"profile-id": "2"}), Some(106)),
        ("VP9", json!({"profile-id": 1}), None),
        ("H265", json!({"profile-id": 1, "tx-mode": "srst"}), Some(108)),
        ("H265", json!({"tx-mode": "MRST"}), None),
        ("AV1", json!({"profile": 1}), Some(110)),
        ("AV1", json!({}), None),
        ("VP8", json!({}), None),
    ];
    for (name, parameters, expected) in rows {
        let found = mapped(name, parameters.clone());
        assert_eq!(found.clone().ok(), expected, "{name} {parameters}");
        if let Err(error) = found {
            assert_eq!(error, format!("unsupported codec [name:{name}, payloadType:96]"));
        }
    }
}

/// A room of phones: sound that the server does not know, and what goes along with sound, at the clock rates that phones have.
fn phone_room() -> RtpCapabilities {
    RtpCapabilities::for_room(&media_codecs(json!([
        {"mimeType": "audio/opus", "clockRate": 48000, "channels": 2},
        {"mimeType": "audio/G729", "clockRate": 8000, "parameters": {"annexb": "no"}},
        {"mimeType": "audio/telephone-event", "clockRate": 8000, "parameters": {"events": "0-16"}},
        {"mimeType": "audio/telephone-event", "clockRate": 48000},
        {"mimeType": "audio/CN", "clockRate": 8000},
        {"mimeType": "audio/CN", "clockRate": 48000},
        {"mimeType": "video/MP2T", "clockRate": 90000},
        {"mimeType": "video/x-camera", "clockRate": 90000, "rtcpFeedback": [{"type": "nack"}]},
        {"mimeType": "video/ulpfec", "clockRate": 90000}
    ])))
    .unwrap()
}

#[test]
fn any_codec_that_a_room_declares_is_announced_as_it_is() {
    let room = phone_room();
    let shown: Vec<_> = room
        .codecs
        .iter()
        .map(|codec| {
            (
                codec.mime_type(),
                codec.clock_rate,
                codec.preferred_payload_type.unwrap(),
            )
        })
        .collect();
    let expected = [
        ("audio/opus", 48_000, 100),
        ("audio/G729", 8_000, 18),
        ("audio/telephone-event", 8_000, 101),
        ("audio/telephone-event", 48_000, 102),
        ("audio/CN", 8_000, 13),
        ("audio/CN", 48_000, 103),
        ("video/MP2T", 90_000, 33),
        ("video/x-camera", 90_000, 104),
        ("video/rtx", 90_000, 105),
        ("video/ulpfec", 90_000, 106),
    ];
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, rate, number)| ((*name).to_owned(), *rate, *number))
        .collect();
    assert_eq!(shown, expected, "repaired only what says that it can be");
    assert_eq!(room.codecs[1].parameters["annexb"], "no");
    let refusals = [
        (
            json!([{"mimeType": "audio/x y", "clockRate": 8000}]),
            "cannot be the name",
        ),
        (json!([{"mimeType": "audio/G729", "clockRate": 0}]), "cannot be 0"),
        (
            json!([{"mimeType": "audio/L16", "clockRate": 8000, "channels": 65}]),
            "1 to 64 channels",
        ),
        (
            json!([{"mimeType": "video/JPEG", "clockRate": 90000, "channels": 1}]),
            "has no channels",
        ),
        (
            json!([{"mimeType": "audio/G729", "clockRate": 8000, "parameters": {"x": [1]}}]),
            "must be a text",
        ),
        (
            json!([{"mimeType": "audio/iLBC", "clockRate": 8000}, {"mimeType": "audio/ilbc", "clockRate": 8000}]),
            "listed twice",
        ),
    ];
    for (codecs, complaint) in refusals {
        let error = RtpCapabilities::for_room(&media_codecs(codecs)).unwrap_err();
        assert!(error.contains(complaint), "{error}");
    }
}

/// What a receiver did not agree to it does not get (RFC 3264 §6.1), and that is no reason not to send it the rest.
#[test]
fn a_peer_gets_those_of_a_phones_codecs_that_it_has() {
    let room = phone_room();
    let phone = RtpParameters {
        codecs: serde_json::from_value(json!([
            {"mimeType": "audio/CN", "payloadType": 13, "clockRate": 8000},
            {"mimeType": "audio/telephone-event", "payloadType": 96, "clockRate": 8000},
            {"mimeType": "audio/telephone-event", "payloadType": 97, "clockRate": 48000},
            {"mimeType": "audio/G729", "payloadType": 18, "clockRate": 8000, "parameters": {"annexb": "yes"}}
        ]))
        .unwrap(),
        ..RtpParameters::default()
    };
    let mapping = ProducerMapping::derive(&phone, &room).unwrap();
    assert_eq!(mapping.payload_types(), [(13, 13), (96, 101), (97, 102), (18, 18)]);
    let request = |without: &[u8]| {
        let mut peer = room.clone();
        peer.codecs
            .retain(|codec| !without.contains(&codec.preferred_payload_type.unwrap()));
        peer.check_subset_of(&room).unwrap();
        let parameters =
            consumed(&phone, MediaKind::Audio, &room, &peer).with_ssrcs(ConsumerSsrcs { media: 1, rtx: 2 });
        let request = parameters.consumer_request(placement(), mapping.payload_types())?;
        Ok::<_, String>(request.payload_types)
    };
    assert_eq!(request(&[]).unwrap(), [(13, 13), (96, 101), (97, 102), (18, 18)]);
    assert_eq!(request(&[13, 101]).unwrap(), [(97, 102), (18, 18)]);
    assert_eq!(request(&[13, 101, 102]).unwrap(), [(18, 18)]);
    let error = request(&[18]).unwrap_err();
    assert!(
        error.contains("no codec in common"),
        "events and noise alone are of no use: {error}"
    );
    // A clock rate that the room does not have is another format.
    let mut other = phone;
    other.codecs[1].clock_rate = 16_000;
    let error = ProducerMapping::derive(&other, &room).unwrap_err();
    assert_eq!(error, "unsupported codec [name:telephone-event, payloadType:96]");
}

#[test]
fn multichannel_opus_is_told_apart_by_its_streams() {
    let codec = |streams: u64| json!({"mimeType": "audio/multiopus", "clockRate": 48000, "channels": 6, "parameters": {"num_streams": streams, "coupled_streams": 2}});
    let room = RtpCapabilities::for_room(&media_codecs(json!([codec(4), codec(5)]))).unwrap();
    let mapped = |streams| {
        let mut declared = codec(streams);
        declared["payloadType"] = json!(96);
        let parameters = RtpParameters {
            codecs: vec![serde_json::from_value(declared).unwrap()],
            ..RtpParameters::default()
        };
        ProducerMapping::derive(&parameters, &room).map(|mapping| mapping.payload_types()[0].1)
    };
    assert_eq!((mapped(4), mapped(5)), (Ok(100), Ok(101)));
    assert!(mapped(3).is_err());
}

/// What Chromium 156 offered when audio came first, and when video did (`a=extmap`), of what a room can announce.
const OFFERED_AUDIO_FIRST: [(ExtensionUri, u8); 8] = [
    (ExtensionUri::AudioLevel, 1),
    (ExtensionUri::AbsSendTime, 2),
    (ExtensionUri::Mid, 4),
    (ExtensionUri::PlayoutDelay, 5),
    (ExtensionUri::RtpStreamId, 10),
    (ExtensionUri::RepairedRtpStreamId, 11),
    (ExtensionUri::VideoOrientation, 13),
    (ExtensionUri::TransmissionOffset, 14),
];
const OFFERED_VIDEO_FIRST: [(&str, u8); 11] = [
    ("urn:ietf:params:rtp-hdrext:toffset", 1),
    ("http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", 2),
    ("urn:3gpp:video-orientation", 3),
    (
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
        4,
    ),
    ("http://www.webrtc.org/experiments/rtp-hdrext/playout-delay", 5),
    ("http://www.webrtc.org/experiments/rtp-hdrext/video-content-type", 6),
    ("http://www.webrtc.org/experiments/rtp-hdrext/video-timing", 7),
    ("http://www.webrtc.org/experiments/rtp-hdrext/color-space", 8),
    ("urn:ietf:params:rtp-hdrext:sdes:mid", 9),
    ("urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id", 10),
    ("urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id", 11),
];

#[test]
fn chromium_need_not_renumber_what_a_room_announces_by_itself() {
    // The client answers with the numbers of audio first, whichever came first, for what the room announces and the track
    // offers. None of them may be another one's.
    let is_renumbered = |announced: &[ExtensionUri]| {
        OFFERED_AUDIO_FIRST.iter().any(|(uri, answered)| {
            let offered = OFFERED_VIDEO_FIRST.iter().find(|(offered, _)| *offered == uri.uri());
            announced.contains(uri) && offered.is_some_and(|(_, offered)| offered != answered)
        })
    };
    assert!(!is_renumbered(&RtpCapabilities::BROWSER_EXTENSIONS));
    assert!(
        is_renumbered(&[ExtensionUri::AbsSendTime, ExtensionUri::Mid]),
        "as recorded"
    );
    for uri in ExtensionUri::ALL {
        let announced = recorded_room().extension(uri).is_some();
        let is_safe = !is_renumbered(&[uri]);
        assert_eq!(
            RtpCapabilities::BROWSER_EXTENSIONS.contains(&uri),
            announced && is_safe,
            "{uri:?}"
        );
    }
}

#[test]
fn a_room_announces_what_it_is_told_to() {
    let mut room = recorded_room();
    room.announce(&[ExtensionUri::Mid, ExtensionUri::AbsSendTime]).unwrap();
    let ids: Vec<u8> = room.header_extensions.iter().map(|own| own.preferred_id).collect();
    assert_eq!(ids, [3, 3, 5, 5], "each for audio and for video, under its number");
    room.announce(&[]).unwrap();
    assert!(room.header_extensions.is_empty());
    let mut room = recorded_room();
    let refused = [
        vec![ExtensionUri::TransportWideCc],
        vec![ExtensionUri::Mid, ExtensionUri::Mid],
    ];
    for wanted in refused {
        let reason = room.announce(&wanted).unwrap_err();
        assert!(reason.contains(wanted[0].uri()), "{reason}");
    }
}

#[test]
fn a_room_can_keep_to_a_few_header_extensions() {
    let mut room = recorded_room();
    room.keep_header_extensions(&[ExtensionUri::AudioLevel, ExtensionUri::AbsSendTime]);
    assert_eq!(room.header_extensions.len(), 3);
    let parameters = consumed(&recorded_camera(), MediaKind::Video, &room, &recorded_peer());
    assert_eq!(
        parameters.header_extensions,
        [RtpHeaderExtension::new(ExtensionUri::AbsSendTime, 3)]
    );
}

/// Some of the room's capabilities, as a peer may have them.
#[test]
fn what_a_peer_lists_is_bounded_and_only_the_rooms_feedback_is_kept() {
    let room = recorded_room();
    let with = |change: &dyn Fn(&mut RtpCodecCapability)| {
        let mut peer = recorded_peer();
        change(&mut peer.codecs[1]);
        peer
    };
    let refused = |what: &str, change: &dyn Fn(&mut RtpCodecCapability)| {
        let error = with(change).check_subset_of(&room).unwrap_err();
        assert!(error.contains(what) && error.len() < 200, "{error}");
    };
    let nack = RtcpFeedback::new("nack", "");
    refused("rtcpFeedback", &|codec| codec.rtcp_feedback = vec![nack.clone(); 17]);
    refused("rtcpFeedback", &|codec| {
        codec.rtcp_feedback = vec![RtcpFeedback::new(&"x".repeat(65), "")];
    });
    refused("rtcpFeedback", &|codec| {
        codec.rtcp_feedback = vec![RtcpFeedback::new("x", &"x".repeat(65))];
    });
    refused("parameter", &|codec| {
        codec
            .parameters
            .extend((0..33).map(|index| (index.to_string(), index.into())));
    });
    refused("parameter", &|codec| {
        codec.parameters.insert("x".repeat(65), 1.into());
    });
    refused("parameter", &|codec| {
        codec.parameters.insert("x".to_owned(), "x".repeat(1_025).into());
    });
    refused("parameter", &|codec| {
        codec.parameters.insert("x".to_owned(), json!([0, 0]));
    });
    let mut peer = recorded_peer();
    peer.fec_mechanisms = vec!["x".repeat(65)];
    assert!(peer.check_subset_of(&room).unwrap_err().contains("fecMechanism"));

    let peer = with(&|codec| {
        codec.rtcp_feedback = vec![RtcpFeedback::new("transport-cc", ""), RtcpFeedback::new("NACK", "pli")];
    });
    peer.check_subset_of(&room).unwrap();
    let mapping = ProducerMapping::derive(&recorded_camera(), &room).unwrap();
    let consumable = mapping.consumable(MediaKind::Video, &recorded_camera(), &room);
    let parameters = consumer_parameters(&consumable, &peer);
    assert_eq!(parameters.codecs[0].rtcp_feedback, [RtcpFeedback::new("NACK", "pli")]);
}

fn some_of(room: RtpCapabilities) -> impl Strategy<Value = RtpCapabilities> {
    let codecs = room.codecs.len();
    let extensions = room.header_extensions.len();
    let some = |len| prop::collection::vec(any::<bool>(), len);
    (some(codecs), some(extensions)).prop_map(move |(codecs, extensions)| {
        let mut peer = room.clone();
        let mut keep = codecs.into_iter();
        peer.codecs.retain(|_| keep.next() == Some(true));
        let mut keep = extensions.into_iter();
        peer.header_extensions.retain(|_| keep.next() == Some(true));
        peer
    })
}

/// A producer with any of the known codecs and extensions, under numbers of its own.
fn any_producer() -> impl Strategy<Value = RtpParameters> {
    let codecs = prop::sample::subsequence(CodecName::ALL.to_vec(), 1..=9);
    let extensions = prop::sample::subsequence(ExtensionUri::ALL.to_vec(), 0..=11);
    let payload_types = prop::sample::subsequence((96_u8..128).collect::<Vec<_>>(), 20).prop_shuffle();
    let ids = Just((1_u8..=14).collect::<Vec<_>>()).prop_shuffle();
    (codecs, extensions, payload_types, ids, any::<bool>()).prop_map(|(names, uris, payload_types, ids, repaired)| {
        let mut payload_types = payload_types.into_iter();
        let mut codecs = Vec::new();
        for name in names {
            let Some(media) = payload_types
                .next()
                .map(|payload_type| RtpCodec::new(name, payload_type))
            else {
                continue;
            };
            let rtx = payload_types
                .next()
                .filter(|_| repaired)
                .map(|payload_type| RtpCodec::rtx(payload_type, &media));
            codecs.push(media);
            codecs.extend(rtx);
        }
        RtpParameters {
            codecs,
            header_extensions: uris
                .into_iter()
                .zip(ids)
                .map(|(uri, id)| RtpHeaderExtension::new(uri, id))
                .collect(),
            ..RtpParameters::default()
        }
    })
}

/// A room that relays everything.
fn whole_room() -> RtpCapabilities {
    let mut supported = RtpCapabilities::supported().codecs;
    for codec in &mut supported {
        codec.preferred_payload_type = None;
    }
    RtpCapabilities::for_room(&supported).unwrap()
}

proptest! {
    #[test]
    fn consumers_get_what_both_sides_know_and_no_number_twice(
        producer in any_producer(),
        peer in some_of(whole_room()),
        kind in prop::sample::select(vec![MediaKind::Audio, MediaKind::Video]),
    ) {
        let room = whole_room();
        prop_assert_eq!(peer.check_subset_of(&room), Ok(()));
        let mapping = ProducerMapping::derive(&producer, &room).unwrap();
        let mut from: Vec<u8> = mapping.payload_types().iter().map(|pair| pair.0).collect();
        let mut to: Vec<u8> = mapping.payload_types().iter().map(|pair| pair.1).collect();
        for numbers in [&mut from, &mut to] {
            let count = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), count);
        }
        let parameters = consumer_parameters(&mapping.consumable(kind, &producer, &room), &peer);
        let mut payload_types = BTreeSet::new();
        for codec in &parameters.codecs {
            prop_assert!(payload_types.insert(codec.payload_type));
            prop_assert!(peer.has_payload_type(codec.payload_type));
            match codec.apt() {
                Some(apt) => prop_assert!(payload_types.contains(&apt), "rtx follows what it repairs"),
                None => prop_assert!(producer.codecs.iter().any(|own| own.mime_type == codec.mime_type)),
            }
        }
        let mut ids = BTreeSet::new();
        for extension in &parameters.header_extensions {
            prop_assert!(ids.insert(extension.id));
            prop_assert!(extension_uri(&extension.uri).is_some_and(ExtensionUri::is_relayed));
            prop_assert!(producer.header_extensions.iter().any(|own| own.uri == extension.uri));
            prop_assert!(peer.header_extensions.iter().any(|own| own.uri == extension.uri && own.preferred_id == extension.id));
        }
        let parameters = parameters.with_ssrcs(ConsumerSsrcs { media: 1, rtx: 2 });
        match parameters.consumer_request(placement(), mapping.payload_types()) {
            Ok(request) => {
                prop_assert!(!request.payload_types.is_empty());
                for (_, own) in &request.payload_types {
                    prop_assert!(payload_types.contains(own));
                }
            }
            Err(_) => prop_assert!(parameters.codecs.iter().all(RtpCodec::is_rtx)),
        }
    }

    #[test]
    fn rooms_never_give_a_number_twice(wishes in prop::collection::vec((0_usize..10, prop::option::of(0_u8..130)), 0..12)) {
        let supported = RtpCapabilities::supported().codecs;
        let codecs: Vec<RtpCodecCapability> = wishes
            .into_iter()
            .map(|(index, payload_type)| RtpCodecCapability {
                preferred_payload_type: payload_type,
                ..supported[index].clone()
            })
            .collect();
        if let Ok(room) = RtpCapabilities::for_room(&codecs) {
            let mut numbers: Vec<_> = room.codecs.iter().map(|codec| codec.preferred_payload_type).collect();
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), room.codecs.len());
            prop_assert!(!numbers.contains(&None));
        }
    }
}
