//! Tests of RTP parameters.

use proptest::prelude::*;
use serde_json::{Value, json};

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{
    Codec, CodecName, ConsumerRtx, CreateConsumer, CreateProducer, Encoding, ExtensionUri, HeaderExtension, MediaKind,
    Profile,
};

use super::*;
use crate::server::model::client_json::known_parameters;

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const ORIENTATION: &str = "urn:3gpp:video-orientation";

fn producer_placement(kind: MediaKind) -> ProducerPlacement {
    ProducerPlacement {
        room: RoomId(1),
        transport: TransportId(2),
        producer: ProducerId(3),
        kind,
        preferred_profile: Profile::Default,
        paused: false,
        is_plain: false,
    }
}

fn consume(parameters: &RtpParameters, wanted: &ConsumerRtp) -> Checked<(CreateConsumer, RtpParameters)> {
    let placement = ConsumerPlacement {
        room: RoomId(1),
        transport: TransportId(2),
        producer: ProducerId(3),
        consumer: ConsumerId(4),
        preferred_profile: Profile::Default,
        paused: false,
        cname_is_made_up: false,
    };
    parameters.create_consumer(placement, wanted, ConsumerSsrcs { media: 77, rtx: 78 })
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
            },
            {"mimeType": "video/rtx", "payloadType": 98, "clockRate": 90000, "parameters": {"apt": 96}}
        ],
        "headerExtensions": [
            {"uri": MID, "id": 1}, {"uri": RID, "id": 2}, {"uri": ORIENTATION, "id": 4},
            {"uri": "urn:example:unheard-of", "id": 9}
        ],
        "encodings": [
            {"encodingId": "low", "profile": "low"}, {"encodingId": "mid", "profile": "medium"},
            {"ssrc": 3003, "rtx": {"ssrc": 3004}, "profile": "high", "codecPayloadType": 96}
        ],
        "rtcp": {"cname": "camera@example", "reducedSize": true, "mux": true}
    })
}

fn produce(json: Value, kind: MediaKind) -> Checked<CreateProducer> {
    let parameters: RtpParameters = serde_json::from_value(json).map_err(|error| error.to_string())?;
    parameters.create_producer(producer_placement(kind))
}

#[test]
fn a_camera_becomes_what_the_worker_understands() {
    let request = produce(camera(), MediaKind::Video).unwrap();
    let vp8 = Codec {
        payload_type: 96,
        name: CodecName::Vp8,
        clock_rate: 90_000,
        pli: true,
        fir: false,
        nack: true,
        remb: true,
        rtx: Some(98),
    };
    let h264 = Codec {
        payload_type: 97,
        name: CodecName::H264,
        pli: false,
        fir: true,
        nack: false,
        remb: false,
        rtx: None,
        ..vp8
    };
    assert_eq!(request.codecs, [vp8, h264]);
    let encoding = |ssrc: Option<u32>, rid: Option<&str>, profile| Encoding {
        ssrc,
        rid: rid.map(str::to_owned),
        profile,
        rtx_ssrc: ssrc.map(|ssrc| ssrc + 1),
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
        ("/codecs", json!([]), "1 to 16 codecs of media"),
        (
            "/codecs/0/rtcpFeedback",
            json!(vec![json!({"type": "nack"}); 17]),
            "at most 16, not 17",
        ),
        (
            "/codecs/0/rtcpFeedback/0/type",
            json!("x".repeat(65)),
            "at most 64 bytes",
        ),
        (
            "/codecs/0/parameters",
            json!({"x": "x".repeat(1_025)}),
            "more than 1024 bytes",
        ),
        (
            "/codecs/0/parameters",
            json!({"x": [1]}),
            "must be a text, a number or a boolean",
        ),
        ("/headerExtensions/0/uri", json!("x".repeat(257)), "at most 256 bytes"),
        ("/codecs/1/payloadType", json!(96), "payloadType 96 is listed twice"),
        ("/codecs/0/payloadType", json!(72), "collides with RTCP"),
        ("/codecs/0/payloadType", json!(64), "collides with RTCP"),
        ("/codecs/0/payloadType", json!(95), "collides with RTCP"),
        ("/codecs/0/payloadType", json!(128), "more than 7 bits"),
        ("/codecs/0/payloadType", json!(256), "invalid value"),
        ("/codecs/0/mimeType", json!("VP8"), "must look like video/VP8"),
        (
            "/codecs/0/mimeType",
            json!("audio/VP8"),
            "not a codec that is relayed; video/VP8 is",
        ),
        ("/codecs/0/mimeType", json!("text/t140"), "neither audio nor video"),
        ("/codecs/0/mimeType", json!("video/"), "cannot be the name of a codec"),
        (
            "/codecs/0/mimeType",
            json!("video/The ora"),
            "cannot be the name of a codec",
        ),
        (
            "/codecs/0/mimeType",
            json!("video/JP/EG"),
            "cannot be the name of a codec",
        ),
        (
            "/codecs/0/mimeType",
            json!("video/-JPEG"),
            "cannot be the name of a codec",
        ),
        (
            "/codecs/0/mimeType",
            json!(format!("video/{}", "x".repeat(65))),
            "at most 64 bytes",
        ),
        ("/codecs/0/mimeType", json!("video/rtx"), "needs parameters.apt"),
        ("/codecs/0/name", json!("H264"), "contradicts mimeType"),
        ("/codecs/2/parameters", json!({}), "needs parameters.apt"),
        (
            "/codecs/2/parameters/apt",
            json!(95),
            "repairs 95, which is not a listed media codec",
        ),
        (
            "/codecs/2/parameters/apt",
            json!(98),
            "repairs 98, which is not a listed media codec",
        ),
        ("/codecs/2/parameters/apt", json!(-1), "needs parameters.apt"),
        ("/codecs/2/clockRate", json!(8000), "the clockRate of what it repairs"),
        ("/codecs/2/payloadType", json!(97), "payloadType 97 is listed twice"),
        (
            "/codecs/3",
            json!({"mimeType": "video/RTX", "payloadType": 99, "clockRate": 90000, "parameters": {"apt": "96"}}),
            "96 is repaired by both 98 and 99",
        ),
        (
            "/encodings/2/rtx/ssrc",
            json!(3003),
            "ssrc 3003 is used by two encodings",
        ),
        ("/encodings/2/rtx/rate", json!(1), "unknown field `rate`"),
        ("/encodings/2/codecPayloadType", json!(98), "none of the media codecs"),
        ("/headerExtensions/0/encrypt", json!(true), "must not be encrypted"),
        (
            "/codecs/0/mimeType",
            json!("audio/opus"),
            "is not video, but the producer's kind is",
        ),
        ("/codecs/0/clockRate", json!(48000), "is 90000, not 48000"),
        ("/codecs/0/channels", json!(1), "has no channels"),
        ("/codecs/0/fmtp", json!("x"), "unknown field `fmtp`"),
        ("/headerExtensions/0/id", json!(0), "must be 1 to 255"),
        ("/headerExtensions/0/id", json!(256), "invalid value: integer `256`"),
        ("/headerExtensions/0/id", json!(2), "id 2 is used twice"),
        ("/headerExtensions/0/uri", json!(RID), "listed twice"),
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
        ("/mid", json!("1"), "muxId is \"0\" but mid is \"1\""),
        ("/mid", json!(1), "invalid type: integer `1`, expected a string"),
        (
            "/encodings/0/rid",
            json!("lo"),
            "encodingId is \"low\" but rid is \"lo\"",
        ),
        ("/encodings/1/bitrate", json!(1), "unknown field `bitrate`"),
        ("/headerExtensions/0/parameter", json!({}), "unknown field `parameter`"),
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
                match spoiled.pointer_mut(parent).unwrap() {
                    Value::Array(list) => list.push(value.clone()),
                    other => other[key] = value.clone(),
                }
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
        let request = parameters.create_producer(producer_placement(name.kind())).unwrap();
        assert_eq!(request.codecs[0].name, name);
    }
}

/// RFC 4855 §3: a media subtype is whatever was registered, or agreed on. The worker hears what it is for, not what it is called.
#[test]
fn any_codec_can_be_declared() {
    use CodecName::{AudioCompanion, OtherAudio, OtherVideo, VideoCompanion};
    let rows = [
        ("audio/mpeg4-generic", 44_100, Some(2), OtherAudio),
        ("audio/MP4A-LATM", 90_000, None, OtherAudio),
        ("audio/L16", 44_100, Some(2), OtherAudio),
        ("audio/L8", 8_000, Some(64), OtherAudio),
        ("audio/G729", 8_000, None, OtherAudio),
        ("audio/multiopus", 48_000, Some(6), OtherAudio),
        ("audio/iLBC", 8_000, None, OtherAudio),
        ("audio/SILK", 24_000, None, OtherAudio),
        ("audio/speex", 16_000, Some(1), OtherAudio),
        ("audio/red", 48_000, Some(2), OtherAudio),
        ("AUDIO/x-what_ever.1+2", 1, None, OtherAudio),
        ("audio/telephone-event", 48_000, None, AudioCompanion),
        ("audio/Telephone-Event", 8_000, None, AudioCompanion),
        ("audio/CN", 32_000, None, AudioCompanion),
        ("video/MP2T", 90_000, None, OtherVideo),
        ("video/JPEG", 90_000, None, OtherVideo),
        ("video/red", 90_000, None, OtherVideo),
        ("video/Theora", 90_000, None, OtherVideo),
        ("video/ulpfec", 90_000, None, VideoCompanion),
        ("video/flexfec-03", 90_000, None, VideoCompanion),
    ];
    for (mime_type, clock_rate, channels, expected) in rows {
        let (kind, main) = match expected.kind() {
            MediaKind::Audio => (MediaKind::Audio, RtpCodec::new(CodecName::Opus, 111)),
            MediaKind::Video => (MediaKind::Video, RtpCodec::new(CodecName::Vp8, 96)),
        };
        let declared = RtpCodec {
            mime_type: mime_type.to_owned(),
            clock_rate,
            channels,
            rtcp_feedback: vec![RtcpFeedback::new("nack", "pli")],
            ..RtpCodec::new(CodecName::Pcmu, 33)
        };
        let with = |codecs: Vec<RtpCodec>| RtpParameters {
            codecs,
            encodings: vec![RtpEncoding::ssrc(1)],
            ..RtpParameters::default()
        };
        let parameters = with(vec![declared.clone(), main]);
        let request = parameters.create_producer(producer_placement(kind)).unwrap();
        let expected = Codec {
            payload_type: 33,
            name: expected,
            clock_rate,
            pli: true,
            fir: false,
            nack: false,
            remb: false,
            rtx: None,
        };
        assert_eq!(request.codecs[0], expected, "{mime_type}");
        let (_, consumed) = consume(&parameters, &ConsumerRtp::default()).unwrap();
        assert_eq!(consumed.codecs[0], declared, "{mime_type}: as it was declared");
        // By itself it is what the producer is about.
        let alone = with(vec![declared.clone()])
            .create_producer(producer_placement(kind))
            .unwrap();
        assert!(!alone.codecs[0].name.is_companion(), "{mime_type}");

        let refusals = [
            (
                RtpCodec {
                    clock_rate: 0,
                    ..declared.clone()
                },
                "cannot be 0",
            ),
            (
                RtpCodec {
                    channels: Some(0),
                    ..declared.clone()
                },
                "channels",
            ),
            (
                RtpCodec {
                    channels: Some(65),
                    ..declared.clone()
                },
                "channels",
            ),
        ];
        for (codec, complaint) in refusals {
            let error = with(vec![codec]).create_producer(producer_placement(kind)).unwrap_err();
            assert!(error.contains(complaint), "{mime_type}: {error}");
        }
    }
}

#[test]
fn a_lone_stream_of_a_plain_transport_may_be_recognised_by_its_payload_types_alone() {
    let mut parameters: RtpParameters = serde_json::from_value(camera()).unwrap();
    parameters.mux_id = None;
    let placement = ProducerPlacement {
        is_plain: true,
        ..producer_placement(MediaKind::Video)
    };
    let layers = vec![
        RtpEncoding::layer(1, Profile::Low),
        RtpEncoding {
            profile: Some(Profile::High),
            ..RtpEncoding::default()
        },
    ];
    for (encodings, expected) in [(vec![RtpEncoding::default()], Some(None)), (layers, None)] {
        parameters.encodings = encodings;
        let made = parameters.create_producer(placement).ok();
        assert_eq!(made.map(|request| request.encodings[0].ssrc), expected);
        assert!(
            parameters
                .create_producer(producer_placement(MediaKind::Video))
                .is_err()
        );
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
    let rtx = ConsumerRtx {
        ssrc: 78,
        payload_types: vec![(96, 98)],
    };
    assert_eq!((request.nack, request.rtx), (true, Some(rtx)));
    assert_eq!((request.ssrc, request.cname.as_str()), (77, "camera@example"));
    let orientation = HeaderExtension {
        id: 4,
        uri: ExtensionUri::VideoOrientation,
    };
    assert_eq!(request.header_extensions, [orientation]);
    assert_eq!(consumed.codecs, parameters.codecs);
    let encoding = RtpEncoding {
        rtx: Some(RtxParameters { ssrc: Some(78) }),
        ..RtpEncoding::ssrc(77)
    };
    assert_eq!(consumed.encodings, [encoding]);
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
            json!({"payloadTypes": {"99": 120}}),
            "names 99, which the producer does not send",
        ),
        (json!({"payloadTypes": {"96": 80}}), "collides with RTCP"),
        (
            json!({"payloadTypes": {"98": 120, "97": 121}}),
            "repairs 96, but not 96",
        ),
        (json!({"payloadTypes": {"98": 120}}), "repairs 96, but not 96"),
        (
            json!({"payloadTypes": {"96": 120, "97": 120}}),
            "gives 120 to two codecs",
        ),
        (json!({"headerExtensions": [{"uri": MID, "id": 0}]}), "must be 1 to 255"),
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
    // What follows from the rest is written out, and so are format parameters when there are none.
    expected["codecs"][0]["parameters"] = json!({});
    for (index, name) in ["VP8", "h264", "rtx"].into_iter().enumerate() {
        expected["codecs"][index]["name"] = json!(name);
    }
    assert_eq!(serde_json::to_value(&parameters).unwrap(), expected);
}

#[test]
fn retransmissions_follow_their_codec_to_other_numbers() {
    let parameters: RtpParameters = serde_json::from_value(camera()).unwrap();
    let wanted: ConsumerRtp =
        serde_json::from_value(json!({"payloadTypes": {"96": 110, "98": 111}, "rtxSsrc": 9})).unwrap();
    let (request, consumed) = consume(&parameters, &wanted).unwrap();
    assert_eq!(request.payload_types, [(96, 110)]);
    assert_eq!(request.rtx.map(|rtx| rtx.payload_types), Some(vec![(110, 111)]));
    assert_eq!(consumed.codecs[1].parameters["apt"], 110);

    let without: ConsumerRtp = serde_json::from_value(json!({"payloadTypes": {"96": 110}})).unwrap();
    let (request, consumed) = consume(&parameters, &without).unwrap();
    assert_eq!((request.nack, request.rtx), (true, None));
    assert_eq!(consumed.encodings, [RtpEncoding::ssrc(77)]);
}

#[test]
fn a_mux_id_without_its_extension_is_fine_when_every_stream_has_an_ssrc_or_a_rid() {
    let mut parameters = camera();
    parameters["headerExtensions"] = json!([]);
    parameters["encodings"] = json!([{"ssrc": 1}]);
    assert_eq!(produce(parameters.clone(), MediaKind::Video).unwrap().mid, None);
    parameters["encodings"] = json!([{}]);
    assert!(produce(parameters, MediaKind::Video).is_err());
    let mut parameters = camera();
    parameters["headerExtensions"] = json!([{"uri": RID, "id": 2}]);
    assert_eq!(produce(parameters.clone(), MediaKind::Video).unwrap().mid, None);
    parameters["headerExtensions"] = json!([{"uri": LEVEL, "id": 2}]);
    assert!(produce(parameters, MediaKind::Video).is_err());
}

/// What mediasoup-client 3 gives with `produce` for simulcast.
fn camera_of_mediasoup_3() -> Value {
    let encoding = |rid: &str, scale: u8| {
        json!({
            "rid": rid, "active": true, "dtx": false, "maxBitrate": 500_000, "maxFramerate": 30.5, "scalabilityMode": "L1T3",
            "scaleResolutionDownBy": scale, "priority": "high", "networkPriority": "low", "adaptivePtime": false,
            "rtx": {"ssrc": 1_000 + u32::from(scale)}
        })
    };
    let extension = |uri: &str, id: u8| json!({"uri": uri, "id": id, "encrypt": false, "parameters": {"vad": "on"}});
    json!({
        "mid": "0",
        "msid": "8b0c 4f2e",
        "codecs": [
            {
                "mimeType": "video/VP8", "payloadType": 96, "clockRate": 90000, "parameters": {},
                "rtcpFeedback": [
                    {"type": "goog-remb", "parameter": ""}, {"type": "nack", "parameter": ""},
                    {"type": "nack", "parameter": "pli"}, {"type": "ccm", "parameter": "fir"}
                ]
            },
            {
                "mimeType": "video/rtx", "payloadType": 97, "clockRate": 90000, "parameters": {"apt": 96},
                "rtcpFeedback": []
            }
        ],
        "headerExtensions": [extension(MID, 4), extension(RID, 10)],
        "encodings": [encoding("r0", 4), encoding("r1", 2), encoding("r2", 1)],
        "rtcp": {"cname": "", "reducedSize": true}
    })
}

#[test]
fn parameters_of_mediasoup_3_mean_what_they_say() {
    let request = produce(camera_of_mediasoup_3(), MediaKind::Video).unwrap();
    let encoding = |rid: &str, rtx_ssrc, profile| Encoding {
        ssrc: None,
        rid: Some(rid.to_owned()),
        profile,
        rtx_ssrc: Some(rtx_ssrc),
    };
    assert_eq!(
        request.encodings,
        [
            encoding("r0", 1_004, Profile::Low),
            encoding("r1", 1_002, Profile::Medium),
            encoding("r2", 1_001, Profile::High)
        ],
        "layers come from the lowest to the highest"
    );
    assert_eq!(request.mid.as_deref(), Some("0"));
    // As it is answered: under the names that answers have always had.
    let parameters: RtpParameters = serde_json::from_value(camera_of_mediasoup_3()).unwrap();
    assert_eq!(parameters.rtcp.cname, None, "an empty name is none");
    let answered = serde_json::to_value(&parameters).unwrap();
    assert_eq!(
        (&answered["muxId"], &answered["encodings"][0]["encodingId"]),
        (&json!("0"), &json!("r0"))
    );
    for path in [
        "/mid",
        "/msid",
        "/encodings/0/rid",
        "/encodings/0/dtx",
        "/headerExtensions/0/parameters",
    ] {
        assert_eq!(answered.pointer(path), None, "{path}");
    }
    assert_eq!(serde_json::from_value::<RtpParameters>(answered).unwrap(), parameters);
    // A lone stream has no profile, and some profiles are none.
    let mut lone = camera_of_mediasoup_3();
    lone["encodings"] = json!([{"ssrc": 7, "rtx": {"ssrc": 8}, "dtx": true}]);
    assert_eq!(
        produce(lone, MediaKind::Video).unwrap().encodings[0].profile,
        Profile::Default
    );
    let mut some = camera_of_mediasoup_3();
    some["encodings"][1]["profile"] = json!("high");
    assert!(
        produce(some, MediaKind::Video)
            .unwrap_err()
            .contains("each needs a profile")
    );
    // Both names, as of who speaks both.
    let mut both = camera_of_mediasoup_3();
    both["muxId"] = json!("0");
    both["encodings"][0]["encodingId"] = json!("r0");
    assert_eq!(produce(both, MediaKind::Video).unwrap(), request);
    // What is ignored may be anything, and too many are too many.
    let mut odd = camera_of_mediasoup_3();
    odd["msid"] = json!([{"a": 1}]);
    odd["encodings"][2]["maxBitrate"] = json!("much");
    odd["headerExtensions"][1]["parameters"] = json!("none");
    assert_eq!(produce(odd, MediaKind::Video).unwrap(), request);
    let mut many = camera_of_mediasoup_3();
    many["encodings"] = json!(
        (0..70_000)
            .map(|rid| json!({"rid": rid.to_string()}))
            .collect::<Vec<_>>()
    );
    assert!(
        produce(many, MediaKind::Video)
            .unwrap_err()
            .contains("1 to 3 streams, not 70000")
    );
}

#[test]
fn of_what_a_client_says_the_unknown_is_left_out_and_nothing_else() {
    let everything = {
        let mut parameters = camera();
        parameters["codecs"][0]["name"] = json!("VP8");
        parameters["codecs"][0]["parameters"] = json!({"anything": {"is": "kept"}});
        parameters["codecs"][0]["channels"] = json!(1);
        parameters["headerExtensions"][0]["encrypt"] = json!(false);
        parameters
    };
    assert_eq!(known_parameters(everything.clone()), everything);
    let mut more = everything.clone();
    more["codecs"][0]["kind"] = json!("video");
    for path in [
        "",
        "/codecs/1",
        "/codecs/0/rtcpFeedback/0",
        "/headerExtensions/1",
        "/encodings/2",
        "/encodings/2/rtx",
        "/rtcp",
    ] {
        let place = more.pointer_mut(path).unwrap();
        place["newer"] = json!([1]);
    }
    more["encodings"][0]["ssrc"] = Value::Null;
    assert_eq!(known_parameters(more), everything);
    for odd in [
        json!(null),
        json!([1]),
        json!({"codecs": {"a": 1}}),
        json!({"codecs": [1, "x"]}),
    ] {
        let kept = known_parameters(odd.clone());
        assert!(serde_json::from_value::<RtpParameters>(kept).is_err(), "{odd}");
    }
}

/// Any JSON, mostly with the members that parameters have.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0_u8..130).prop_map(Value::from),
        prop::sample::select(vec![
            "video/VP8",
            "video/rtx",
            "audio/opus",
            "video/",
            "low",
            "high",
            MID,
            RID,
            "a"
        ])
        .prop_map(Value::from),
    ];
    let members = prop::sample::select(vec![
        "muxId",
        "mid",
        "msid",
        "rid",
        "codecs",
        "headerExtensions",
        "encodings",
        "rtcp",
        "mimeType",
        "name",
        "payloadType",
        "clockRate",
        "channels",
        "parameters",
        "apt",
        "rtcpFeedback",
        "type",
        "uri",
        "id",
        "ssrc",
        "rtx",
        "encodingId",
        "profile",
        "kind",
        "preferredPayloadType",
        "preferredId",
    ]);
    leaf.prop_recursive(5, 60, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(members.clone().prop_map(str::to_owned), inner, 0..8)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_makes_the_checks_panic(path in 0_usize..12, value in any_json()) {
        const PATHS: [&str; 12] = [
            "", "/muxId", "/codecs", "/codecs/0", "/codecs/0/payloadType", "/codecs/2/parameters", "/headerExtensions",
            "/headerExtensions/0", "/encodings", "/encodings/0", "/encodings/2/rtx", "/rtcp",
        ];
        let mut parameters = camera();
        *parameters.pointer_mut(PATHS[path]).unwrap() = value;
        for json in [parameters.clone(), known_parameters(parameters)] {
            let Ok(parameters) = serde_json::from_value::<RtpParameters>(json) else {
                continue;
            };
            for kind in [MediaKind::Audio, MediaKind::Video] {
                if let Ok(request) = parameters.create_producer(producer_placement(kind)) {
                    prop_assert!((1..=16).contains(&request.codecs.len()));
                    let _ = consume(&parameters, &ConsumerRtp::default());
                }
            }
        }
    }
}
