//! What the library promises, against a worker that does what the test says.

mod audio_levels;
mod bounds;
mod connected_sockets;
mod consumers;
mod model;
mod pausing;
mod peers;
mod periodic_stats;
mod rtp_streamers;
mod stage;
mod verdicts;
mod webrtc;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use serde_json::{Value, json};
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::{
    Coalescing, CodecName, LogFilter, LogLevel, MediaKind, Method, Notification, Profile, Remote, Reply, Scope,
    StatsPage, WorkerError,
};

use super::fake::{Fake, consumer_stats, obliging_server, server, settings, soon, transport_stats};
use super::*;

/// A server with one room, one transport, one video producer and one consumer of it.
struct Scene {
    server: Server,
    fake: Fake,
    room: Room,
    transport: Transport,
    producer: Producer,
    consumer: Consumer,
}

fn video() -> ProducerOptions {
    let rtp_parameters = RtpParameters {
        codecs: vec![RtpCodec::new(CodecName::Vp8, 96)],
        encodings: vec![RtpEncoding::ssrc(1_000)],
        ..RtpParameters::default()
    };
    ProducerOptions::new(MediaKind::Video, rtp_parameters)
}

/// Runs a call while the worker accepts the one request it makes.
async fn accepted<T>(fake: &mut Fake, call: impl Future<Output = T>) -> T {
    soon(async { tokio::join!(call, fake.accept()).0 }).await
}

async fn scene() -> Scene {
    scene_with(settings()).await
}

async fn scene_with(settings: Settings) -> Scene {
    let (server, mut fake) = server(settings).await;
    let room = accepted(&mut fake, server.create_room(RoomOptions::default()))
        .await
        .unwrap();
    let options = PlainTransportOptions::default();
    let transport = accepted(&mut fake, room.create_plain_transport(options)).await.unwrap();
    let producer = accepted(&mut fake, transport.produce(video())).await.unwrap();
    let consume = transport.consume(&producer, ConsumerOptions::default());
    let consumer = accepted(&mut fake, consume).await.unwrap();
    Scene {
        server,
        fake,
        room,
        transport,
        producer,
        consumer,
    }
}

/// The events so far, each as one line of JSON without its time.
fn lines(events: &mut EventStream) -> String {
    let mut lines = String::new();
    while let Some(Some(event)) = events.next().now_or_never() {
        let mut value = serde_json::to_value(&*event).unwrap();
        value.as_object_mut().unwrap().remove("at").unwrap();
        lines += &format!("{value}\n");
    }
    lines
}

#[tokio::test]
async fn every_change_is_told_once_and_in_order() {
    let (server, mut fake) = server(settings()).await;
    let mut events = server.events();
    let options = RoomOptions {
        app_data: json!({"name": "lobby"}),
        ..RoomOptions::default()
    };
    let room = accepted(&mut fake, server.create_room(options)).await.unwrap();
    let transport = accepted(&mut fake, room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    let producer = accepted(&mut fake, transport.produce(video())).await.unwrap();
    accepted(&mut fake, producer.pause(json!("lunch"))).await.unwrap();
    let consumer = accepted(&mut fake, transport.consume(&producer, ConsumerOptions::default()))
        .await
        .unwrap();
    assert!(consumer.source_paused() && !consumer.paused());
    accepted(&mut fake, producer.resume(Value::Null)).await.unwrap();
    accepted(&mut fake, consumer.pause(Value::Null)).await.unwrap();
    accepted(&mut fake, consumer.set_preferred_profile(Profile::Low))
        .await
        .unwrap();
    accepted(&mut fake, room.close(json!("bye"))).await.unwrap();
    let port = transport.tuple().local_port.to_string();
    insta::assert_snapshot!(lines(&mut events).replace(&port, "PORT"), @r#"
    {"appData":{"name":"lobby"},"room":1,"seq":1,"type":"roomOpened","worker":1}
    {"appData":null,"kind":"plain","room":1,"seq":2,"transport":1,"tuple":{"boundIp":"127.0.0.1","localIp":"127.0.0.1","localPort":PORT,"remote":null},"type":"transportOpened"}
    {"appData":null,"media":"video","paused":false,"producer":1,"room":1,"seq":3,"transport":1,"type":"producerOpened"}
    {"appData":"lunch","originator":"local","producer":1,"room":1,"seq":4,"type":"producerPaused"}
    {"appData":null,"consumer":1,"media":"video","paused":false,"producer":1,"room":1,"seq":5,"sourcePaused":true,"transport":1,"type":"consumerOpened"}
    {"appData":null,"originator":"local","producer":1,"room":1,"seq":6,"type":"producerResumed"}
    {"appData":null,"consumer":1,"originator":"source","room":1,"seq":7,"type":"consumerResumed"}
    {"appData":null,"consumer":1,"originator":"local","room":1,"seq":8,"type":"consumerPaused"}
    {"consumer":1,"profile":"low","room":1,"seq":9,"type":"consumerPreferredProfileSet"}
    {"appData":"bye","cause":{"kind":"closed"},"originator":"local","room":1,"seq":10,"type":"roomClosed"}
    {"appData":null,"cause":{"kind":"roomClosed"},"originator":"local","producer":1,"room":1,"seq":11,"type":"producerClosed"}
    {"appData":null,"cause":{"kind":"roomClosed"},"consumer":1,"originator":"local","room":1,"seq":12,"type":"consumerClosed"}
    {"appData":null,"cause":{"kind":"roomClosed"},"originator":"local","room":1,"seq":13,"transport":1,"type":"transportClosed"}
    "#);
    assert!(room.closed() && transport.closed() && producer.closed() && consumer.closed());
    assert!(server.rooms().is_empty() && server.consumer(consumer.id()).is_none());
}

#[tokio::test]
async fn nothing_is_known_before_the_worker_has_accepted_it() {
    let mut scene = scene().await;
    let (paused, request) = soon(async {
        let pause = scene.producer.pause(Value::Null);
        tokio::pin!(pause);
        tokio::select! {
            result = &mut pause => panic!("answered by nobody: {result:?}"),
            request = scene.fake.request() => (scene.producer.paused(), request),
        }
    })
    .await;
    assert!(!paused, "optimistic");
    assert_eq!(
        request.unwrap().0.method,
        Method::SetProducerPaused {
            producer: scene.producer.id(),
            paused: true
        }
    );

    let pause = scene.consumer.pause(Value::Null);
    let refused = soon(async {
        let refuse = async {
            let (request, _) = scene.fake.request().await.unwrap();
            let result = Err(WorkerError::InvalidParameters("not today".to_owned()));
            scene.fake.answer(&request, result).await;
        };
        tokio::join!(pause, refuse).0
    })
    .await;
    assert_eq!(refused.unwrap_err().to_string(), "the worker refused: not today");
    assert!(!scene.consumer.paused());
}

#[tokio::test]
async fn what_is_so_already_is_not_asked_for() {
    let mut scene = scene().await;
    soon(scene.producer.resume(Value::Null)).await.unwrap();
    soon(scene.consumer.set_preferred_profile(Profile::Default))
        .await
        .unwrap();
    accepted(&mut scene.fake, scene.consumer.pause(Value::Null))
        .await
        .unwrap();
    soon(scene.consumer.pause(Value::Null)).await.unwrap();
    accepted(&mut scene.fake, scene.consumer.close(Value::Null))
        .await
        .unwrap();
    soon(scene.consumer.close(Value::Null)).await.unwrap();
    assert!(scene.fake.request().now_or_never().is_none(), "a needless request");
    let error = soon(scene.consumer.pause(Value::Null)).await.unwrap_err();
    assert_eq!(
        (error.code(), error.to_string().as_str()),
        ("invalidState", "consumer 1 is closed")
    );
}

#[tokio::test]
async fn concurrent_pauses_and_resumes_end_as_the_last_accepted_says() {
    let mut scene = scene().await;
    let mut events = scene.server.events();
    let calls = async {
        tokio::join!(
            scene.producer.pause(json!(1)),
            scene.producer.resume(json!(2)),
            scene.producer.pause(json!(3)),
            scene.producer.resume(json!(4)),
        )
    };
    let worker = async {
        for answer in [true, true, true, false] {
            let (request, _) = scene.fake.request().await.unwrap();
            let result = match answer {
                true => Ok(Reply::Done),
                false => Err(WorkerError::DeadlinePassed),
            };
            scene.fake.answer(&request, result).await;
        }
    };
    let (results, ()) = soon(async { tokio::join!(calls, worker) }).await;
    assert!(results.0.is_ok() && results.1.is_ok() && results.2.is_ok());
    assert_eq!(results.3.unwrap_err().code(), "timeout");
    assert!(scene.producer.paused(), "the last accepted was a pause");
    assert!(scene.consumer.source_paused());
    let told: Vec<Value> = lines(&mut events)
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["producer"] == 1)
        .map(|event| json!([event["type"], event["appData"]]))
        .collect();
    assert_eq!(
        told,
        [
            json!(["producerPaused", 1]),
            json!(["producerResumed", 2]),
            json!(["producerPaused", 3])
        ]
    );
}

#[tokio::test]
async fn a_caller_that_gives_up_changes_nothing_about_what_is_known() {
    let mut scene = scene().await;
    let request = {
        let pause = scene.producer.pause(Value::Null);
        tokio::pin!(pause);
        soon(async {
            tokio::select! {
                _ = &mut pause => unreachable!("nobody has answered"),
                request = scene.fake.request() => request.unwrap().0,
            }
        })
        .await
        // The call is dropped here.
    };
    let mut events = scene.server.events();
    scene.fake.answer(&request, Ok(Reply::Done)).await;
    let event = soon(events.next()).await.unwrap();
    assert!(matches!(event.kind, EventKind::ProducerPaused { .. }), "{event:?}");
    assert!(scene.producer.paused());
}

#[tokio::test]
async fn a_late_answer_is_an_error_for_the_caller_but_is_applied() {
    let mut scene = scene_with(Settings {
        request_timeout: Duration::from_millis(200),
        ..settings()
    })
    .await;
    let (result, request) = soon(async { tokio::join!(scene.consumer.pause(Value::Null), scene.fake.request()) }).await;
    let error = result.unwrap_err();
    assert_eq!(error.to_string(), "the worker did not answer within 200ms");
    assert!(!scene.consumer.paused());
    let mut events = scene.server.events();
    scene.fake.answer(&request.unwrap().0, Ok(Reply::Done)).await;
    soon(events.next()).await.unwrap();
    assert!(scene.consumer.paused());
}

#[tokio::test]
async fn death_resolves_all_who_wait_and_closes_the_rooms_with_its_cause() {
    let Scene {
        server,
        fake,
        room,
        producer,
        consumer,
        transport,
    } = scene().await;
    let mut events = server.events();
    let calls = async {
        tokio::join!(
            producer.pause(Value::Null),
            consumer.resume(Value::Null), // nothing to do, so it succeeds
            consumer.pause(Value::Null),
            room.stats(),
            room.close(Value::Null),
        )
    };
    let die = async {
        let mut fake = fake;
        soon(fake.request()).await.unwrap();
        drop(fake);
    };
    let (results, ()) = soon(async { tokio::join!(calls, die) }).await;
    for error in [results.0.unwrap_err(), results.2.unwrap_err(), results.3.unwrap_err()] {
        assert_eq!(error.code(), "workerDied", "{error}");
    }
    results.1.unwrap();
    results.4.expect("closing what its worker's death has closed is fine");
    let told = lines(&mut events);
    let types: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .inspect(|event| assert_eq!(event["cause"]["kind"], "workerDied"))
        .map(|event| event["type"].clone())
        .collect();
    assert_eq!(
        types,
        ["roomClosed", "producerClosed", "consumerClosed", "transportClosed"]
    );
    assert!(room.closed() && transport.closed() && producer.closed() && consumer.closed());
    let error = soon(consumer.pause(Value::Null)).await.unwrap_err();
    assert_eq!(error.code(), "invalidState");
    let error = soon(server.create_room(RoomOptions::default())).await.unwrap_err();
    assert_eq!(error.code(), "noWorker");
    assert_eq!(server.shared().sockets.ports_taken(), 0, "a port has leaked");
}

#[tokio::test]
async fn a_worker_that_does_not_answer_pings_is_hung() {
    let mut scene = scene_with(Settings {
        ping_interval: Duration::from_millis(10),
        ping_timeout: Duration::from_millis(100),
        ..settings()
    })
    .await;
    let mut events = scene.server.events();
    let (request, _) = soon(scene.fake.any_request()).await.unwrap();
    assert_eq!(request.method, Method::Ping);
    let event = soon(events.next()).await.unwrap();
    let cause = CloseCause::WorkerDied {
        worker: WorkerId(1),
        cause: DeathCause::Hung { timeout_ms: 100 },
    };
    assert!(
        matches!(&event.kind, EventKind::RoomClosed { cause: told, .. } if *told == cause),
        "{event:?}"
    );
}

#[tokio::test]
async fn pings_measure_the_round_trip() {
    let (server, mut fake) = server(Settings {
        ping_interval: Duration::from_millis(10),
        ..settings()
    })
    .await;
    for _ in 0..2 {
        let (request, _) = soon(fake.any_request()).await.unwrap();
        fake.answer(&request, Ok(Reply::Done)).await;
    }
    assert!(server.workers()[0].ping_rtt().is_some());
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_worker() {
    let mut scene = scene().await;
    let mut events = scene.server.events();
    let (request, _) = {
        let call = scene.consumer.request_key_frame();
        let (request, call) = soon(async { tokio::join!(scene.fake.request(), async { call.now_or_never() }) }).await;
        assert!(call.is_none());
        request.unwrap()
    };
    scene.fake.answer(&request, Ok(Reply::Done)).await;
    scene.fake.answer(&request, Ok(Reply::Done)).await;
    let event = soon(events.next()).await.unwrap();
    let json = serde_json::to_value(&*event).unwrap();
    assert_eq!(json["cause"]["cause"]["kind"], "protocol", "{json}");
}

#[tokio::test]
async fn news_right_behind_an_answer_finds_the_new_object() {
    let mut scene = scene().await;
    let consumer = ConsumerId(2);
    let worker = async {
        let (request, _) = scene.fake.request().await.unwrap();
        let created = Reply::ConsumerCreated { source_paused: false };
        scene.fake.answer(&request, Ok(created)).await;
        let profile = Some(Profile::Default);
        scene
            .fake
            .notify(Notification::EffectiveProfileChanged { consumer, profile })
            .await;
        let profile = Some(Profile::Low); // of somebody that does not exist
        let consumer = ConsumerId(77);
        scene
            .fake
            .notify(Notification::EffectiveProfileChanged { consumer, profile })
            .await;
    };
    let mut events = scene.server.events();
    let consume = scene.transport.consume(scene.producer.id(), ConsumerOptions::default());
    let (consumer, ()) = soon(async { tokio::join!(consume, worker) }).await;
    let consumer = consumer.unwrap();
    assert_eq!(consumer.id(), ConsumerId(2));
    assert!(matches!(
        soon(events.next()).await.unwrap().kind,
        EventKind::ConsumerOpened { .. }
    ));
    assert!(matches!(
        soon(events.next()).await.unwrap().kind,
        EventKind::ConsumerEffectiveProfileChanged {
            profile: Some(Profile::Default),
            ..
        }
    ));
    assert_eq!(consumer.effective_profile(), Some(Profile::Default));
}

#[tokio::test]
async fn closing_cascades_tell_each_object_once_parents_first() {
    let mut scene = scene().await;
    let fake = &mut scene.fake;
    // transport 1: producer 1 (consumed by 1 on transport 1, by 2 on transport 2); transport 2: producer 2 (consumed
    // by 3 on transport 1).
    let options = PlainTransportOptions::default();
    let other = accepted(fake, scene.room.create_plain_transport(options))
        .await
        .unwrap();
    accepted(fake, other.consume(&scene.producer, ConsumerOptions::default()))
        .await
        .unwrap();
    let producer = accepted(fake, other.produce(video())).await.unwrap();
    accepted(fake, scene.transport.consume(&producer, ConsumerOptions::default()))
        .await
        .unwrap();
    let mut events = scene.server.events();
    accepted(fake, scene.transport.close(json!("hang up"))).await.unwrap();
    insta::assert_snapshot!(lines(&mut events), @r#"
    {"appData":"hang up","cause":{"kind":"closed"},"originator":"local","room":1,"seq":9,"transport":1,"type":"transportClosed"}
    {"appData":null,"cause":{"kind":"transportClosed"},"originator":"local","producer":1,"room":1,"seq":10,"type":"producerClosed"}
    {"appData":null,"cause":{"kind":"producerClosed"},"consumer":1,"originator":"local","room":1,"seq":11,"type":"consumerClosed"}
    {"appData":null,"cause":{"kind":"producerClosed"},"consumer":2,"originator":"local","room":1,"seq":12,"type":"consumerClosed"}
    {"appData":null,"cause":{"kind":"transportClosed"},"consumer":3,"originator":"local","room":1,"seq":13,"type":"consumerClosed"}
    "#);
    accepted(fake, producer.close(json!("mute"))).await.unwrap();
    accepted(fake, scene.room.close(Value::Null)).await.unwrap();
    insta::assert_snapshot!(lines(&mut events), @r#"
    {"appData":"mute","cause":{"kind":"closed"},"originator":"local","producer":2,"room":1,"seq":14,"type":"producerClosed"}
    {"appData":null,"cause":{"kind":"closed"},"originator":"local","room":1,"seq":15,"type":"roomClosed"}
    {"appData":null,"cause":{"kind":"roomClosed"},"originator":"local","room":1,"seq":16,"transport":2,"type":"transportClosed"}
    "#);
    assert_eq!(scene.server.shared().sockets.ports_taken(), 0);
}

#[tokio::test]
async fn two_closes_at_once_are_one() {
    let mut scene = scene().await;
    let mut events = scene.server.events();
    let closes = async {
        tokio::join!(
            scene.producer.close(json!("first")),
            scene.producer.close(json!("second")),
            scene.producer.pause(Value::Null)
        )
    };
    let worker = async {
        for gone in [false, true, true] {
            let (request, _) = scene.fake.request().await.unwrap();
            let result = match gone {
                false => Ok(Reply::Done),
                true => Err(WorkerError::UnknownProducer(scene.producer.id())),
            };
            scene.fake.answer(&request, result).await;
        }
    };
    let (results, ()) = soon(async { tokio::join!(closes, worker) }).await;
    results.0.unwrap();
    results.1.unwrap();
    assert_eq!(results.2.unwrap_err().to_string(), "producer 1 is closed");
    let told = lines(&mut events);
    assert_eq!(
        told.matches("producerClosed").count(),
        1 + 1,
        "once as the type, once as a cause: {told}"
    );
    assert!(told.contains("first") && !told.contains("second"));
}

#[tokio::test]
async fn a_made_up_ssrc_that_is_in_use_is_replaced_and_a_wanted_one_is_not() {
    let mut scene = scene().await;
    let transport = scene.transport.id();
    let in_use = |ssrc| {
        Err(WorkerError::SsrcInUse {
            ssrc,
            owner: "consumer 1".to_owned(),
            transport,
        })
    };
    let worker = async {
        let mut ssrcs = Vec::new();
        for last in [false, false, true] {
            let (request, _) = scene.fake.request().await.unwrap();
            let Method::CreateConsumer(create) = &request.method else {
                panic!("{request:?}");
            };
            ssrcs.push(create.ssrc);
            let result = match last {
                false => in_use(create.ssrc),
                true => Ok(Reply::ConsumerCreated { source_paused: false }),
            };
            scene.fake.answer(&request, result).await;
        }
        ssrcs
    };
    let consume = scene.transport.consume(&scene.producer, ConsumerOptions::default());
    let (consumer, ssrcs) = soon(async { tokio::join!(consume, worker) }).await;
    assert_ne!(ssrcs[0], ssrcs[1]);
    assert_eq!(consumer.unwrap().rtp_parameters().encodings[0].ssrc, Some(ssrcs[2]));

    let wanted = ConsumerOptions {
        rtp: ConsumerRtp {
            ssrc: Some(5),
            ..ConsumerRtp::default()
        },
        ..ConsumerOptions::default()
    };
    let worker = async {
        let (request, _) = scene.fake.request().await.unwrap();
        scene.fake.answer(&request, in_use(5)).await;
    };
    let consume = scene.transport.consume(&scene.producer, wanted);
    let (refused, ()) = soon(async { tokio::join!(consume, worker) }).await;
    assert_eq!(refused.unwrap_err().code(), "conflict");
}

#[tokio::test]
async fn pages_of_counters_are_joined() {
    let mut scene = scene().await;
    let worker = async {
        for page in 0..3_u64 {
            let (request, _) = scene.fake.request().await.unwrap();
            let Method::Stats(Scope::Room { page: asked, .. }) = &request.method else {
                panic!("{request:?}");
            };
            assert_eq!(asked.cursor, (page > 0).then_some(page));
            let mut stats = StatsPage {
                next: (page < 2).then_some(page + 1),
                ..StatsPage::default()
            };
            match page {
                0 => stats.transports = vec![transport_stats(scene.transport.id())],
                1 => stats.consumers = vec![consumer_stats(scene.consumer.id())],
                // It has been closed already, and the worker does not know yet.
                _ => stats.consumers = vec![consumer_stats(ConsumerId(99))],
            }
            scene.fake.answer(&request, Ok(Reply::Stats(stats))).await;
        }
    };
    let (stats, ()) = soon(async { tokio::join!(scene.room.stats(), worker) }).await;
    let stats = stats.unwrap();
    assert_eq!(
        (stats.transports.len(), stats.consumers.len(), stats.next),
        (1, 1, None)
    );
    assert_eq!(stats.consumers[0].consumer, scene.consumer.id());
}

#[tokio::test]
async fn transports_come_with_their_sockets_and_their_remote_is_checked() {
    let mut scene = scene().await;
    let options = PlainTransportOptions {
        rtcp_mux: false,
        remote: Some(Remote {
            rtp: "127.0.0.1:5000".parse().unwrap(),
            rtcp: None,
        }),
        ..PlainTransportOptions::default()
    };
    let worker = async {
        let (request, descriptors) = scene.fake.request().await.unwrap();
        assert_eq!(descriptors.len(), 4);
        scene.fake.answer(&request, Ok(Reply::Done)).await;
        request.method
    };
    let create = scene.room.create_plain_transport(options);
    let (transport, method) = soon(async { tokio::join!(create, worker) }).await;
    let transport = transport.unwrap();
    let Method::CreatePlainTransport(request) = method else {
        panic!("{method:?}");
    };
    assert_eq!(request.remote.unwrap().rtcp, Some("127.0.0.1:5001".parse().unwrap()));
    let (rtp, rtcp) = (transport.tuple(), transport.rtcp_tuple().unwrap());
    assert_eq!((rtp.local_port % 2, rtcp.local_port), (0, rtp.local_port + 1));
    assert_eq!(rtcp.remote, Some("127.0.0.1:5001".parse().unwrap()));

    let learned = Remote {
        rtp: "127.0.0.1:7000".parse().unwrap(),
        rtcp: None,
    };
    let mut events = scene.server.events();
    let transport = scene.transport.id();
    let remote = learned;
    scene
        .fake
        .notify(Notification::RemoteLearned { transport, remote })
        .await;
    soon(events.next()).await.unwrap();
    assert_eq!(scene.transport.tuple().remote, Some(learned.rtp));

    // RFC 4007 §6: the zone of a link-local address goes all the way to the worker.
    let options = PlainTransportOptions {
        local_ip: Some("::1".parse().unwrap()),
        rtcp_mux: false,
        remote: Some(serde_json::from_value(json!({"rtp": "[fe80::9%lo]:5000"})).unwrap()),
        ..PlainTransportOptions::default()
    };
    let worker = async {
        let (request, _) = scene.fake.request().await.unwrap();
        scene.fake.answer(&request, Ok(Reply::Done)).await;
        request.method
    };
    let create = scene.room.create_plain_transport(options);
    let (zoned, method) = soon(async { tokio::join!(create, worker) }).await;
    let Method::CreatePlainTransport(request) = method else {
        panic!("{method:?}");
    };
    let remote = request.remote.unwrap();
    assert_eq!(
        (remote.rtp.to_string(), remote.rtcp.unwrap().to_string()),
        ("[fe80::9%1]:5000".to_owned(), "[fe80::9%1]:5001".to_owned())
    );
    let shown = serde_json::to_value(zoned.unwrap().tuple()).unwrap();
    assert_eq!(shown["remote"], json!("[fe80::9%1]:5000"));

    let refusals = [
        ("[::1]:9", None, "the IP families differ"),
        ("127.0.0.1:0", None, "not an address that media can be sent to"),
        ("0.0.0.0:9", None, "not an address that media can be sent to"),
        (
            "127.0.0.1:9",
            Some("127.0.0.1:10"),
            "leave out the remote's rtcp address",
        ),
    ];
    for (rtp, rtcp, complaint) in refusals {
        let remote = Remote {
            rtp: rtp.parse().unwrap(),
            rtcp: rtcp.map(|rtcp| rtcp.parse().unwrap()),
        };
        let error = soon(scene.transport.set_remote(remote)).await.unwrap_err();
        assert_eq!(error.code(), "invalidParameters");
        assert!(error.to_string().contains(complaint), "{error}");
    }
    let both = PlainTransportOptions {
        comedia: true,
        remote: Some(learned),
        ..PlainTransportOptions::default()
    };
    let error = soon(scene.room.create_plain_transport(both)).await.unwrap_err();
    assert!(
        error.to_string().contains("leave out one of comedia and remote"),
        "{error}"
    );
}

#[tokio::test]
async fn a_refused_transport_gives_its_port_back() {
    let (server, mut fake) = server(settings()).await;
    let room = accepted(&mut fake, server.create_room(RoomOptions::default()))
        .await
        .unwrap();
    let worker = async {
        let (request, _) = fake.request().await.unwrap();
        let result = Err(WorkerError::TooMany {
            noun: "transports".to_owned(),
            limit: 1,
        });
        fake.answer(&request, result).await;
    };
    let create = room.create_plain_transport(PlainTransportOptions::default());
    let (refused, ()) = soon(async { tokio::join!(create, worker) }).await;
    assert_eq!(refused.unwrap_err().code(), "tooMany");
    assert_eq!(server.shared().sockets.ports_taken(), 0);
}

#[tokio::test]
async fn a_slow_subscriber_loses_the_oldest_and_hears_how_many_and_disturbs_nobody() {
    let server = obliging_server(settings()).await;
    let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
    let transport = soon(room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    let producer = soon(transport.produce(video())).await.unwrap();
    let mut slow = server.events();
    let mut quick = server.events();
    let mut seen = 0;
    for round in 0..17_000_u32 {
        match round % 2 {
            0 => soon(producer.pause(Value::Null)).await.unwrap(),
            _ => soon(producer.resume(Value::Null)).await.unwrap(),
        }
        seen = soon(quick.next()).await.unwrap().seq;
    }
    let first = soon(slow.next()).await.unwrap();
    assert!(matches!(first.kind, EventKind::Lagged { count: 616 }), "{first:?}");
    let second = soon(slow.next()).await.unwrap();
    assert_eq!(second.seq, first.seq + 1);
    let mut last = second.seq;
    while last < seen {
        last += 1;
        assert_eq!(soon(slow.next()).await.unwrap().seq, last);
    }
    assert_eq!(last, seen);
}

#[tokio::test]
async fn many_commands_at_once_all_arrive_in_order() {
    let server = obliging_server(settings()).await;
    let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
    let transport = soon(room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    let producer = soon(transport.produce(video())).await.unwrap();
    let consumers = soon(join_all(
        (0..500).map(|_| transport.consume(&producer, ConsumerOptions::default())),
    ))
    .await;
    let consumers: Vec<Consumer> = consumers.into_iter().collect::<Result<_, _>>().unwrap();
    // More than wait in the queue at once, so that callers wait for their turn too.
    let calls = (0..10_000).map(|index| {
        let consumer = &consumers[index % consumers.len()];
        async move {
            match index / 500 % 2 {
                0 => consumer.pause(Value::Null).await,
                _ => consumer.resume(Value::Null).await,
            }
        }
    });
    let results = soon(join_all(calls)).await;
    assert!(results.iter().all(Result::is_ok));
    // 20 calls each, the last of them a resume.
    assert!(consumers.iter().all(|consumer| !consumer.paused()));
    assert_eq!(room.consumers().len(), 500);
    assert_eq!(server.workers()[0].rooms, 1);
}

#[tokio::test]
async fn objects_are_found_by_id_and_the_rest_is_not_found() {
    let mut scene = scene().await;
    let server = scene.server.clone();
    assert_eq!(server.room(RoomId(1)).unwrap().id(), RoomId(1));
    assert_eq!(server.transport(TransportId(1)).unwrap().room().id(), RoomId(1));
    assert_eq!(server.producer(ProducerId(1)).unwrap().transport().id(), TransportId(1));
    let consumer = server.consumer(ConsumerId(1)).unwrap();
    assert_eq!(
        (consumer.producer().id(), consumer.kind()),
        (ProducerId(1), MediaKind::Video)
    );
    assert!(server.room(RoomId(2)).is_none() && server.transport(TransportId(2)).is_none());

    let nowhere = soon(scene.transport.consume(ProducerId(9), ConsumerOptions::default())).await;
    assert_eq!(nowhere.unwrap_err().to_string(), "there is no producer 9");
    let wanted = RoomOptions {
        worker: Some(WorkerId(2)),
        ..RoomOptions::default()
    };
    assert_eq!(soon(server.create_room(wanted)).await.unwrap_err().code(), "notFound");
    assert_eq!(
        soon(server.worker_stats(WorkerId(0))).await.unwrap_err().code(),
        "notFound"
    );

    let other = accepted(&mut scene.fake, server.create_room(RoomOptions::default()))
        .await
        .unwrap();
    let options = PlainTransportOptions::default();
    let elsewhere = accepted(&mut scene.fake, other.create_plain_transport(options))
        .await
        .unwrap();
    let error = soon(elsewhere.consume(&scene.producer, ConsumerOptions::default()))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("must be in its producer's room"), "{error}");
}

#[tokio::test]
async fn settings_are_changed_in_all_workers_and_kept_for_the_next() {
    let (server, mut fake) = server(settings()).await;
    let update = SettingsUpdate {
        log_level: Some(LogLevel::Debug),
        log_tags: Some(vec![LogTag::Rtp]),
    };
    let (result, method) = soon(async { tokio::join!(server.update_settings(update), fake.accept()) }).await;
    result.unwrap();
    let directives = "error,weir_worker::rtp=debug".to_owned();
    let filter = Method::SetLogFilter(LogFilter { directives });
    assert_eq!(method, filter);
    assert_eq!(lock(&server.shared().live).startup_requests()[0], filter);
    assert_eq!(server.log_settings().tags, [LogTag::Rtp]);

    let coalescing = Coalescing {
        window_us_max: 1_001,
        spin_us_max: 0,
        measure_residence: true,
    };
    let error = soon(server.set_coalescing(coalescing)).await.unwrap_err();
    assert_eq!(error.code(), "invalidParameters");
}

#[tokio::test]
async fn a_closed_server_refuses_rooms_and_its_objects_are_closed() {
    let scene = scene().await;
    let mut events = scene.server.events();
    scene.server.shared().begin_close();
    assert!(scene.server.closed() && scene.room.closed() && scene.consumer.closed());
    let told = lines(&mut events);
    assert_eq!(told.matches(r#""kind":"serverClosed""#).count(), 4, "{told}");
    let error = soon(scene.server.create_room(RoomOptions::default()))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "the server is closed");
    drop(scene.fake);
    let shared = scene.server.shared();
    assert_eq!(shared.sockets.ports_taken(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_state_is_out_of_reach_does_not_prove_that_it_is_alive() {
    let server = obliging_server(settings()).await;
    soon(server.prove_alive()).await;
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let (reached, is_held) = tokio::sync::oneshot::channel();
    let shared = Arc::clone(server.shared());
    let holder = std::thread::spawn(move || {
        let state = lock(&shared.state);
        reached.send(()).unwrap();
        // Until the other end is dropped.
        let _ = held.recv();
        drop(state);
    });
    soon(is_held).await.unwrap();
    let proof = server.prove_alive();
    tokio::pin!(proof);
    assert_eq!((&mut proof).now_or_never(), None);
    // What asks for the state now waits, and with it the proof, however often the runtime looks.
    for _ in 0..100 {
        tokio::task::yield_now().await;
        assert_eq!((&mut proof).now_or_never(), None);
    }
    drop(hold);
    soon(proof).await;
    holder.join().unwrap();
}

#[tokio::test]
async fn a_shortage_is_over_when_there_is_enough_again_and_has_a_code_of_its_own() {
    let server = obliging_server(settings()).await;
    assert_eq!(server.shortage(), None);
    let error = server.shared().sockets.failed(4, "making something")(nix::errno::Errno::EMFILE.into());
    assert_eq!(error.code(), "descriptorsExhausted");
    assert!(
        error
            .to_string()
            .starts_with("making something: the server has no descriptors left"),
        "{error}"
    );
    // There are some.
    assert_eq!(server.shortage(), None);
    // Nobody need ask: making a transport shows it, and the next shortage is told of as the first was.
    let _ = server.shared().sockets.failed(2, "making something")(nix::errno::Errno::EMFILE.into());
    assert!(server.shared().sockets.lacks());
    let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
    soon(room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    assert!(!server.shared().sockets.lacks());
    // As told by a worker that has none.
    let error = Error::from(WorkerError::Descriptors {
        expected: 2,
        received: 0,
    });
    assert_eq!(error.code(), "descriptorsExhausted");
    let error = Error::from(WorkerError::Descriptors {
        expected: 2,
        received: 3,
    });
    assert_eq!(error.code(), "io");
}
