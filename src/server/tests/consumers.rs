//! Consumers of peers: they exist before they are enabled, and outlive their transports (differences §3.2).

use serde_json::{Value, json};
use weir_channel::message::{CodecName, CreateConsumer, MediaKind, Method, Profile, WorkerError};

use super::stage::{Stage, Trio, audio, told, transport, video};
use crate::server::fake::{server, settings, soon};
use crate::server::{
    ConsumerOptions, ConsumerReservation, Direction, EnableOptions, PeerOptions, PlainTransportOptions, RoomOptions,
    RtpCapabilities, RtpCodecCapability, Side, lock,
};

#[tokio::test]
async fn enabling_makes_it_known_to_the_worker_with_all_that_was_said_before() {
    let mut trio = Trio::new().await;
    let consumer = trio.of_carol.clone();
    assert!(!consumer.enabled() && consumer.transport().is_none());
    soon(consumer.pause(json!("early"))).await.unwrap();
    assert!(consumer.paused() && trio.stage.requests().is_empty(), "at once");
    assert_eq!(
        soon(consumer.request_key_frame()).await.unwrap_err().code(),
        "invalidState"
    );
    assert_eq!(
        soon(consumer.stats()).await.unwrap_err().to_string(),
        "consumer 2 is not enabled"
    );

    let receiving = transport(&trio.carol, Direction::Recv).await;
    trio.stage.forget(&[&trio.carol]);
    let options = EnableOptions {
        paused: true,
        preferred_profile: Some(Profile::Low),
    };
    soon(consumer.enable(&receiving, options)).await.unwrap();
    let requests = trio.stage.requests();
    let [Method::CreateConsumer(request)] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert!(request.paused);
    assert_eq!(request.preferred_profile, Profile::Low);
    assert_eq!(request.transport, receiving.id());
    assert_eq!(Some(request.ssrc), consumer.rtp_parameters().encodings[0].ssrc);
    let vp8 = trio
        .stage
        .room
        .rtp_capabilities()
        .codecs
        .iter()
        .find(|codec| codec.name == "VP8");
    let room_payload_type = vp8.and_then(|codec| codec.preferred_payload_type).unwrap();
    assert_eq!(
        request.payload_types,
        [(96, room_payload_type)],
        "from the producer's to the room's"
    );
    assert_eq!(consumer.rtp_parameters().codecs[0].payload_type, room_payload_type);
    assert_eq!(
        trio.stage.events(),
        [
            "consumerPaused consumer=2 remote",
            "consumerPreferredProfileSet consumer=2 low",
            "consumerHandled transport=3 consumer=2"
        ]
    );
    assert!(trio.told().is_empty());
    assert!(consumer.locally_paused() && consumer.remotely_paused());
    // One of two pauses is not the worker's business.
    soon(consumer.resume_by(Side::Remote, Value::Null)).await.unwrap();
    assert!(trio.stage.requests().is_empty());
    soon(consumer.resume(Value::Null)).await.unwrap();
    let id = consumer.id();
    assert_eq!(
        trio.stage.requests(),
        [Method::SetConsumerPaused {
            consumer: id,
            paused: false
        }]
    );
}

/// As in an offer, which says in numbers of its own what can be received.
#[tokio::test]
async fn who_says_what_it_can_receive_is_sent_that_under_its_own_numbers() {
    let mut trio = Trio::new().await;
    let receiver = |name: CodecName| RtpCapabilities {
        codecs: vec![RtpCodecCapability {
            preferred_payload_type: Some(120),
            ..RtpCodecCapability::new(name)
        }],
        ..RtpCapabilities::default()
    };
    let (vp8, h264) = (receiver(CodecName::Vp8), receiver(CodecName::H264));
    assert!(trio.producer.can_be_received_by(&vp8) && !trio.producer.can_be_received_by(&h264));
    trio.stage.forget(&[]);
    let as_offered = trio
        .receiving
        .consume_as(&trio.producer, &vp8, ConsumerOptions::default());
    let consumer = soon(as_offered).await.unwrap();
    assert_eq!(consumer.rtp_parameters().codecs[0].payload_type, 120);
    let requests = trio.stage.requests();
    let [Method::CreateConsumer(request)] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert_eq!(
        request.payload_types,
        [(96, 120)],
        "from the producer's to the receiver's"
    );
    let nothing_in_common = trio
        .receiving
        .consume_as(&trio.producer, &h264, ConsumerOptions::default());
    assert_eq!(soon(nothing_in_common).await.unwrap_err().code(), "invalidParameters");
    assert!(trio.stage.requests().is_empty());
}

/// One stream for its receiver, whoever sends it.
#[tokio::test]
async fn one_that_outlives_its_producers_waits_for_another_and_goes_on_as_it_was() {
    let mut trio = Trio::new().await;
    let codec = |name, payload_type| RtpCodecCapability {
        preferred_payload_type: Some(payload_type),
        ..RtpCodecCapability::new(name)
    };
    let receiver = RtpCapabilities {
        codecs: vec![
            codec(CodecName::H264, 119),
            codec(CodecName::Vp8, 120),
            codec(CodecName::OtherVideo, 121),
        ],
        ..RtpCapabilities::default()
    };
    let reserve = |first| trio.receiving.reserve_consumer(MediaKind::Video, &receiver, first);
    let numbers = |reservation: &ConsumerReservation| -> Vec<u8> {
        let codecs = reservation.rtp_parameters().codecs.iter();
        codecs.map(|codec| codec.payload_type).collect()
    };
    let preferred = reserve(Some(&trio.producer)).unwrap();
    assert_eq!(numbers(&preferred), [120, 119], "what is sent comes first");
    let reservation = reserve(None).unwrap();
    assert_eq!(numbers(&reservation), [120, 119], "as the room prefers");
    let nothing = trio
        .receiving
        .reserve_consumer(MediaKind::Video, &RtpCapabilities::default(), None);
    assert_eq!(nothing.unwrap_err().code(), "invalidParameters");

    trio.stage.forget(&[]);
    let options = ConsumerOptions::default;
    let elsewhere = trio.sending.consume_reserved(&reservation, &trio.producer, options());
    assert_eq!(soon(elsewhere).await.unwrap_err().code(), "invalidParameters");
    let made = trio.receiving.consume_reserved(&reservation, &trio.producer, options());
    let consumer = soon(made).await.unwrap();
    assert_eq!(consumer.rtp_parameters(), reservation.rtp_parameters());
    let requests = trio.stage.requests();
    let [Method::CreateConsumer(first)] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert_eq!(first.payload_types, [(96, 120)]);
    assert_eq!(first.lasting_cname, reservation.rtp_parameters().rtcp.cname);
    assert_ne!(first.lasting_cname.as_ref(), Some(&first.cname));
    assert!(!consumer.waits());

    // Its producer closes: it stays, as what the worker would be asked for again, too.
    trio.stage.forget(&[]);
    soon(trio.producer.close(Value::Null)).await.unwrap();
    assert!(consumer.waits() && !consumer.closed());
    let events = trio.stage.events();
    assert!(
        events.iter().any(|event| event.starts_with("consumerSourceChanged")),
        "{events:?}"
    );
    let (server, room) = (trio.stage.server.clone(), trio.stage.room.id());
    let replayed = || {
        let state = lock(&server.shared().state);
        let consumers = state.replay(room).filter_map(|replayed| match replayed.method {
            Method::CreateConsumer(request) => Some(request),
            _ => None,
        });
        consumers.collect::<Vec<_>>()
    };
    assert_eq!(replayed(), std::slice::from_ref(first));

    let sound = soon(trio.sending.produce(audio(2_000))).await.unwrap();
    assert_eq!(
        soon(consumer.set_source(&sound)).await.unwrap_err().code(),
        "invalidParameters"
    );
    let next = soon(trio.sending.produce(video(3_000))).await.unwrap();
    trio.stage.forget(&[]);
    soon(consumer.set_source(&next)).await.unwrap();
    assert!(!consumer.waits());
    assert_eq!(consumer.producer().id(), next.id());
    let expected = CreateConsumer {
        producer: next.id(),
        ..first.clone()
    };
    assert_eq!(trio.stage.requests(), [Method::SetConsumerSource(expected.clone())]);
    assert_eq!(replayed(), [expected]);
    let events = trio.stage.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].contains(&format!("producer={}", next.id().0)), "{events:?}");
    // It is the new one's now: what that does is what it hears.
    soon(next.pause(Value::Null)).await.unwrap();
    assert!(consumer.source_paused());
    soon(next.close(Value::Null)).await.unwrap();
    assert!(consumer.waits() && !consumer.source_paused());
    // Ordinary ones close with their producer.
    let ordinary = soon(trio.sending.produce(video(4_000))).await.unwrap();
    let of_bob = trio.bob.consumers().pop().unwrap();
    assert_eq!(
        soon(of_bob.set_source(&ordinary)).await.unwrap_err().code(),
        "invalidParameters"
    );
    // It goes with its transport, and with its room.
    let other = trio
        .receiving
        .reserve_consumer(MediaKind::Video, &receiver, None)
        .unwrap();
    let other = soon(trio.receiving.consume_reserved(&other, &ordinary, options()))
        .await
        .unwrap();
    soon(consumer.close(Value::Null)).await.unwrap();
    soon(ordinary.close(Value::Null)).await.unwrap();
    let last = other.set_source(&next);
    assert_eq!(soon(last).await.unwrap_err().code(), "notFound");
    soon(trio.stage.room.close(Value::Null)).await.unwrap();
    assert!(other.closed() && !other.waits());
}

#[tokio::test]
async fn it_is_enabled_once_and_on_its_peers_transports_only() {
    let trio = Trio::new().await;
    let again = soon(trio.of_bob.enable(&trio.receiving, EnableOptions::default())).await;
    let error = again.unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("invalidState", "consumer 1 is enabled already")
    );
    let elsewhere = soon(trio.of_carol.enable(&trio.receiving, EnableOptions::default())).await;
    assert_eq!(elsewhere.unwrap_err().code(), "invalidParameters");
    let nobodys = soon(trio.stage.room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    let elsewhere = soon(trio.of_carol.enable(&nobodys, EnableOptions::default())).await;
    assert_eq!(elsewhere.unwrap_err().code(), "invalidParameters");
    // Twice at once: the second is refused before the worker hears of it.
    let receiving = transport(&trio.carol, Direction::Recv).await;
    let (first, second) = soon(async {
        tokio::join!(
            trio.of_carol.enable(&receiving, EnableOptions::default()),
            trio.of_carol.enable(&receiving, EnableOptions::default())
        )
    })
    .await;
    first.unwrap();
    assert_eq!(second.unwrap_err().code(), "invalidState");
}

#[tokio::test]
async fn a_refused_enabling_changed_nothing_and_can_be_tried_again() {
    let mut trio = Trio::new().await;
    let receiving = transport(&trio.carol, Direction::Recv).await;
    trio.stage.forget(&[]);
    trio.stage.refuse(WorkerError::TooMany {
        noun: "consumers".to_owned(),
        limit: 1,
    });
    let options = EnableOptions {
        paused: true,
        preferred_profile: Some(Profile::High),
    };
    let refused = soon(trio.of_carol.enable(&receiving, options)).await;
    assert_eq!(refused.unwrap_err().code(), "tooMany");
    assert!(!trio.of_carol.enabled() && !trio.of_carol.paused());
    assert_eq!(trio.of_carol.preferred_profile(), Profile::Default);
    assert!(trio.stage.events().is_empty());
    soon(trio.of_carol.enable(&receiving, EnableOptions::default()))
        .await
        .unwrap();
    assert!(trio.of_carol.enabled());
}

#[tokio::test]
async fn it_loses_its_transport_and_gets_another_one() {
    let mut trio = Trio::new().await;
    soon(trio.of_bob.pause(Value::Null)).await.unwrap();
    let peerless = soon(trio.receiving.consume(&trio.producer, ConsumerOptions::default()))
        .await
        .unwrap();
    trio.stage.forget(&[&trio.alice, &trio.bob]);
    soon(trio.receiving.close(json!("rt"))).await.unwrap();
    let transport_id = trio.receiving.id();
    assert_eq!(
        trio.stage.requests(),
        [Method::CloseTransport {
            transport: transport_id
        }]
    );
    assert_eq!(
        trio.stage.events(),
        [
            r#"transportClosed transport=2 local "rt""#,
            "consumerUnhandled consumer=1",
            "consumerClosed consumer=3 local (transportClosed)"
        ]
    );
    assert_eq!(trio.told(), [r#"bob: transportClosed 2 "rt""#]);
    assert!(!trio.of_bob.closed() && !trio.of_bob.enabled() && trio.of_bob.paused());
    assert!(peerless.closed());
    assert!(trio.bob.transports().is_empty());

    let other = transport(&trio.bob, Direction::Recv).await;
    trio.stage.forget(&[]);
    soon(trio.of_bob.enable(&other, EnableOptions::default()))
        .await
        .unwrap();
    let requests = trio.stage.requests();
    let [Method::CreateConsumer(request)] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    assert_eq!((request.consumer, request.paused), (trio.of_bob.id(), true));
    assert_eq!(trio.of_bob.transport().unwrap().id(), other.id());
}

#[tokio::test]
async fn a_request_that_meets_a_closing_transport_takes_effect_all_the_same() {
    // The worker closes the transport first and then does not know the consumer any more; the wish is about the consumer.
    let (server, mut fake) = server(settings()).await;
    let worker = tokio::spawn(async move {
        let mut gone = false;
        let mut asked = Vec::new();
        while let Some((request, _)) = fake.request().await {
            let result = match &request.method {
                Method::CloseTransport { .. } => {
                    gone = true;
                    super::stage::done()
                }
                Method::SetConsumerPaused { consumer, paused: true }
                | Method::SetConsumerPreferredProfile { consumer, .. }
                | Method::CloseConsumer { consumer }
                    if gone =>
                {
                    Err(WorkerError::UnknownConsumer(*consumer))
                }
                method => Ok(fake.oblige(method)),
            };
            asked.push(request.method.clone());
            fake.answer(&request, result).await;
        }
        asked
    });
    let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
    let options = |name| PeerOptions::new(name, room.rtp_capabilities().clone());
    let alice = room.create_peer(options("alice")).unwrap();
    let bob = room.create_peer(options("bob")).unwrap();
    let sending = transport(&alice, Direction::Send).await;
    let receiving = transport(&bob, Direction::Recv).await;
    for ssrc in [1, 2] {
        soon(sending.produce(video(ssrc))).await.unwrap();
    }
    let consumers = bob.consumers();
    for consumer in &consumers {
        soon(consumer.enable(&receiving, EnableOptions::default()))
            .await
            .unwrap();
    }
    let results = soon(async {
        tokio::join!(
            receiving.close(Value::Null),
            consumers[0].pause(json!("now")),
            consumers[0].set_preferred_profile(Profile::Low),
            consumers[1].close(json!("too")),
        )
    })
    .await;
    results.0.unwrap();
    results.1.unwrap();
    results.2.unwrap();
    results.3.unwrap();
    assert!(consumers[0].paused() && !consumers[0].enabled() && !consumers[0].closed());
    assert_eq!(consumers[0].preferred_profile(), Profile::Low);
    assert!(consumers[1].closed());
    assert_eq!(bob.consumers().len(), 1);
    drop((server, room, alice, bob, sending, receiving, consumers));
    worker.abort();
}

#[tokio::test]
async fn it_closes_by_itself_whether_the_worker_knows_it_or_not() {
    let mut trio = Trio::new().await;
    soon(trio.of_carol.close(json!("w"))).await.unwrap();
    assert!(trio.stage.requests().is_empty());
    soon(trio.of_bob.close_by(Side::Remote, Value::Null)).await.unwrap();
    let consumer = trio.of_bob.id();
    assert_eq!(trio.stage.requests(), [Method::CloseConsumer { consumer }]);
    assert_eq!(
        trio.stage.events(),
        [
            r#"consumerClosed consumer=2 local "w""#,
            "consumerClosed consumer=1 remote"
        ]
    );
    assert_eq!(
        trio.told(),
        ["bob: consumerClosed 1 of alice", "carol: consumerClosed 2 of alice"]
    );
    assert!(trio.bob.consumers().is_empty() && trio.carol.consumers().is_empty());
    soon(trio.of_bob.close(Value::Null)).await.unwrap();
    assert!(trio.stage.events().is_empty());
}

#[tokio::test]
async fn closing_a_producer_closes_it_enabled_or_not() {
    let mut trio = Trio::new().await;
    soon(trio.producer.close(json!({"why": "app"}))).await.unwrap();
    let producer = trio.producer.id();
    assert_eq!(trio.stage.requests(), [Method::CloseProducer { producer }]);
    assert_eq!(
        trio.stage.events(),
        [
            r#"producerClosed producer=1 local {"why":"app"}"#,
            "consumerClosed consumer=1 local (producerClosed)",
            "consumerClosed consumer=2 local (producerClosed)"
        ]
    );
    assert_eq!(
        trio.told(),
        [
            r#"alice: producerClosed 1 of alice {"why":"app"}"#,
            "bob: consumerClosed 1 of alice",
            "carol: consumerClosed 2 of alice"
        ]
    );
}

#[tokio::test]
async fn a_client_that_closes_its_producer_is_not_told_so() {
    let mut trio = Trio::new().await;
    soon(trio.producer.close_by(Side::Remote, json!("bye"))).await.unwrap();
    assert_eq!(trio.stage.events()[0], r#"producerClosed producer=1 remote "bye""#);
    assert_eq!(
        trio.told(),
        ["bob: consumerClosed 1 of alice", "carol: consumerClosed 2 of alice"]
    );
}

#[tokio::test]
async fn a_transport_takes_its_producers_along_without_a_word_to_their_client() {
    let mut trio = Trio::new().await;
    soon(trio.sending.close(json!("st"))).await.unwrap();
    let transport = trio.sending.id();
    assert_eq!(trio.stage.requests(), [Method::CloseTransport { transport }]);
    assert_eq!(
        trio.stage.events(),
        [
            r#"transportClosed transport=1 local "st""#,
            "producerClosed producer=1 local (transportClosed)",
            "consumerClosed consumer=1 local (producerClosed)",
            "consumerClosed consumer=2 local (producerClosed)"
        ]
    );
    assert_eq!(
        trio.told(),
        [
            r#"alice: transportClosed 1 "st""#,
            "bob: consumerClosed 1 of alice",
            "carol: consumerClosed 2 of alice"
        ]
    );
    let trio = Trio::new().await;
    soon(trio.sending.close_by(Side::Remote, Value::Null)).await.unwrap();
    assert_eq!(
        trio.told(),
        ["bob: consumerClosed 1 of alice", "carol: consumerClosed 2 of alice"]
    );
}

#[tokio::test]
async fn a_peer_that_can_receive_nothing_of_it_has_a_consumer_that_cannot_be_enabled() {
    let stage = Stage::new().await;
    let alice = stage.join("alice");
    let deaf = PeerOptions::new("deaf", RtpCapabilities::default());
    let deaf = stage.room.create_peer(deaf).unwrap();
    let sending = transport(&alice, Direction::Send).await;
    soon(sending.produce(video(1))).await.unwrap();
    let consumer = deaf.consumers().remove(0);
    assert!(consumer.rtp_parameters().codecs.is_empty());
    assert_eq!(told(&deaf), [r#"deaf: newConsumer 1 of alice "camera""#]);
    let receiving = transport(&deaf, Direction::Recv).await;
    stage.requests();
    let error = soon(consumer.enable(&receiving, EnableOptions::default()))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "invalidParameters", "{error}");
    assert!(stage.requests().is_empty() && !consumer.enabled());
    soon(consumer.pause(Value::Null)).await.unwrap();
}
