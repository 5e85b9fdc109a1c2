//! What a worker may say, and what becomes of one that says more: a worker that was taken over must not have the
//! supervisor's memory, its log, or the rooms of others.

use tokio::time::sleep;
use weir_channel::message::{DtlsState, DumpPage, Fingerprint, FingerprintAlgorithm, IceState, LogLine, TransportDump};

use super::*;
use crate::server::fake::transport_stats;

/// Why the worker is gone.
async fn end_of(scene: &Scene) -> String {
    let mut events = scene.server.events();
    soon(async {
        while scene.server.workers()[0].last_exit.is_none() {
            events.next().await;
        }
    })
    .await;
    match &scene.server.workers()[0].last_exit {
        Some(DeathCause::Misbehaved { reason }) => reason.clone(),
        other => panic!("{other:?}"),
    }
}

/// What comes of asking for the counters of the room, if the worker answers with these pages.
async fn answered(scene: &mut Scene, page: impl Fn(u64) -> StatsPage) -> Result<StatsPage, Error> {
    let worker = async {
        for number in 0.. {
            let Some((request, _)) = scene.fake.request().await else {
                break;
            };
            assert!(matches!(request.method, Method::Stats(_)), "{request:?}");
            scene.fake.answer(&request, Ok(Reply::Stats(page(number)))).await;
        }
        // Who asked is told why.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        stats = soon(scene.room.stats()) => stats,
        () = worker => unreachable!("it waits for the end"),
    }
}

fn of_transports(ids: impl IntoIterator<Item = u64>, next: Option<u64>) -> StatsPage {
    StatsPage {
        transports: ids.into_iter().map(|id| transport_stats(TransportId(id))).collect(),
        next,
        ..StatsPage::default()
    }
}

#[tokio::test]
async fn pages_about_a_room_rise_and_end_and_name_what_is_in_it() {
    // The transport of the room is number 1.
    type Pages = fn(u64) -> StatsPage;
    let pages: [(Pages, &str); 8] = [
        (|_| of_transports([1], Some(1)), "do not go on"),
        (|number| of_transports([1], Some(9 - number)), "do not go on"),
        (|_| of_transports([], Some(1)), "is empty"),
        (|_| of_transports([1, 1], None), "twice"),
        (|_| of_transports(1..1_002, None), "1001 entries of a page"),
        (|number| of_transports([1], Some(number + 1)), "repeat each other"),
        // What is not known may have been closed, but not without end.
        (|number| of_transports([number + 2], Some(number + 1)), "do not end"),
        (
            |_| StatsPage {
                producers: vec![weir_channel::message::ProducerStats {
                    streams: vec![Default::default(); 17],
                    ..Default::default()
                }],
                ..StatsPage::default()
            },
            "17 streams of a producer",
        ),
    ];
    for (page, expected) in pages {
        let mut scene = scene().await;
        let error = answered(&mut scene, page).await.unwrap_err();
        assert_eq!(error.code(), "protocol", "{error}");
        let reason = end_of(&scene).await;
        assert!(reason.contains(expected), "{reason}: {expected}");
        assert!(error.to_string().contains(&reason), "{error}");
        assert!(scene.room.closed());
    }
}

#[tokio::test]
async fn pages_name_nothing_of_another_room() {
    let mut scene = scene().await;
    let other = accepted(&mut scene.fake, scene.server.create_room(RoomOptions::default()))
        .await
        .unwrap();
    let made = other.create_plain_transport(PlainTransportOptions::default());
    let foreign = accepted(&mut scene.fake, made).await.unwrap().id().0;
    let error = answered(&mut scene, |_| of_transports([1, foreign], None))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("answered about transport 2"), "{error}");
    assert!(end_of(&scene).await.contains("room 1"));
}

#[tokio::test]
async fn an_answer_about_one_thing_is_about_that() {
    let mut scene = scene().await;
    let answer = async {
        let (request, _) = scene.fake.request().await.unwrap();
        let page = of_transports([7], None);
        scene.fake.answer(&request, Ok(Reply::Stats(page))).await;
    };
    let (stats, ()) = soon(async { tokio::join!(scene.transport.stats(), answer) }).await;
    assert_eq!(stats.unwrap_err().code(), "protocol");
    assert!(end_of(&scene).await.contains("about another"));
}

#[tokio::test]
async fn lists_and_names_in_dumps_are_bounded() {
    let long = vec![("x".repeat(65), ProducerId(1))];
    let many: Vec<(u32, ProducerId)> = (0..1_001).map(|ssrc| (ssrc, ProducerId(1))).collect();
    for (mids, ssrcs, expected) in [
        (long, Vec::new(), "65 bytes of a name"),
        (Vec::new(), many, "1001 entries of a list"),
    ] {
        let mut scene = scene().await;
        let id = scene.transport.id();
        let answer = async {
            let (request, _) = scene.fake.request().await.unwrap();
            let dump = TransportDump {
                transport: id,
                remote: None,
                comedia: false,
                rtcp_mux: true,
                mirror: None,
                ssrcs,
                mids,
                rids: Vec::new(),
            };
            let page = DumpPage {
                transports: vec![dump],
                ..DumpPage::default()
            };
            scene.fake.answer(&request, Ok(Reply::Dump(page))).await;
        };
        let (dump, ()) = soon(async { tokio::join!(scene.transport.dump(), answer) }).await;
        assert_eq!(dump.unwrap_err().code(), "protocol");
        let reason = end_of(&scene).await;
        assert!(reason.contains(expected), "{reason}");
    }
}

/// Has a WebRTC transport made by a worker that answers with these fingerprints.
async fn webrtc(scene: &mut Scene, fingerprints: Vec<Fingerprint>) -> Result<WebRtcTransport, Error> {
    let answer = async {
        let (request, _) = scene.fake.request().await.unwrap();
        let reply = Reply::WebRtcTransportCreated { fingerprints };
        scene.fake.answer(&request, Ok(reply)).await;
    };
    let made = scene.room.create_webrtc_transport(WebRtcTransportOptions::default());
    soon(async { tokio::join!(made, answer) }).await.0
}

fn fingerprint(bytes: usize) -> Fingerprint {
    Fingerprint {
        algorithm: FingerprintAlgorithm::Sha256,
        value: "x".repeat(bytes),
    }
}

#[tokio::test]
async fn fingerprints_of_a_worker_are_few_and_short() {
    for (fingerprints, expected) in [
        (vec![fingerprint(95); 6], "6 fingerprints"),
        (vec![fingerprint(192)], "192 bytes of a fingerprint"),
    ] {
        let mut scene = scene().await;
        webrtc(&mut scene, fingerprints).await.map(drop).unwrap_err();
        let reason = end_of(&scene).await;
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test]
async fn a_peers_certificate_is_as_long_as_a_worker_takes_one() {
    let mut scene = scene().await;
    let transport = webrtc(&mut scene, vec![fingerprint(95)]).await.unwrap();
    let connected = |pem| Notification::DtlsStateChanged {
        transport: transport.id(),
        state: DtlsState::Connected,
        remote_certificate_pem: Some(pem),
        failure: None,
    };
    let mut events = scene.server.events();
    let longest = weir_worker::webrtc::dtls::certificate::to_pem(&[7; 32_768]);
    scene.fake.notify(connected(longest.clone())).await;
    soon(events.next()).await.unwrap();
    assert_eq!(transport.dtls_remote_cert(), Some(longest));
    scene.fake.notify(connected("A".repeat(900_000))).await;
    assert!(end_of(&scene).await.contains("900000 bytes of a certificate"));
}

#[tokio::test]
async fn what_is_another_workers_is_not_spoken_of() {
    let settings = Settings {
        workers: std::num::NonZeroU32::new(2),
        ..settings()
    };
    let forged: [fn(&Scene) -> Notification; 5] = [
        |scene| Notification::RemoteLearned {
            transport: scene.transport.id(),
            remote: Remote {
                rtp: ([192, 0, 2, 1], 9).into(),
                rtcp: None,
            },
        },
        |scene| Notification::ProducerActivityChanged {
            producer: scene.producer.id(),
            active: false,
        },
        |scene| Notification::EffectiveProfileChanged {
            consumer: scene.consumer.id(),
            profile: None,
        },
        |scene| Notification::AudioLevels {
            room: scene.room.id(),
            levels: Vec::new(),
        },
        |scene| Notification::IceStateChanged {
            transport: scene.transport.id(),
            state: IceState::Connected,
            failure: None,
        },
    ];
    for forged in forged {
        let scene = scene_with(settings.clone()).await;
        let mut second = Fake::beside(&scene.server).await;
        second.notify(forged(&scene)).await;
        let other = || scene.server.workers().into_iter().nth(1).unwrap();
        soon(async {
            while other().last_exit.is_none() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        let cause = other().last_exit;
        assert!(
            matches!(&cause, Some(DeathCause::Misbehaved { reason }) if reason.contains("which worker 1 serves")),
            "{cause:?}"
        );
        assert_eq!(scene.transport.tuple().remote, None);
        assert!(!scene.room.closed(), "the others go on");
    }
}

#[tokio::test(start_paused = true)]
async fn notifications_without_end_are_thrown_away_and_the_worker_is_replaced() {
    let mut scene = scene().await;
    let transport = scene.transport.id();
    let mut events = scene.server.events();
    let mut told = 0_u64;
    for port in 1..60_000_u16 {
        let remote = Remote {
            rtp: ([192, 0, 2, 1], port).into(),
            rtcp: None,
        };
        if scene
            .fake
            .try_notify(Notification::RemoteLearned { transport, remote })
            .await
            .is_err()
        {
            break;
        }
    }
    assert!(end_of(&scene).await.contains("notifications without end"));
    loop {
        match soon(events.next()).await.unwrap().kind {
            EventKind::RemoteLearned { .. } => told += 1,
            EventKind::RoomClosed { .. } => break,
            _ => {}
        }
    }
    // 1,000 are anybody's; a transport has 100 more, a room, a producer and a consumer 20 each.
    assert_eq!(told, 1_160);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_serves_many_may_say_much_at_once() {
    let mut scene = scene().await;
    let mut consumers = Vec::new();
    for _ in 0..200 {
        let consume = scene.transport.consume(&scene.producer, ConsumerOptions::default());
        consumers.push(accepted(&mut scene.fake, consume).await.unwrap());
    }
    for profile in [Profile::Low, Profile::Medium, Profile::High]
        .into_iter()
        .cycle()
        .take(15)
    {
        for consumer in &consumers {
            let consumer = consumer.id();
            let profile = Some(profile);
            scene
                .fake
                .notify(Notification::EffectiveProfileChanged { consumer, profile })
                .await;
        }
    }
    let last = consumers.last().unwrap();
    soon(async {
        while last.effective_profile() != Some(Profile::High) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(scene.server.workers()[0].last_exit, None);
}

#[tokio::test(start_paused = true)]
async fn a_log_without_end_costs_no_worker_its_place_but_nobody_reads_it() {
    let mut scene = scene().await;
    let line = LogLine {
        level: LogLevel::Error,
        target: "weir_worker".to_owned(),
        text: "x".repeat(2_000),
    };
    for _ in 0..5_000 {
        scene.fake.notify(Notification::Log(line.clone())).await;
    }
    let pause = scene.producer.pause(Value::Null);
    accepted(&mut scene.fake, pause).await.unwrap();
    assert_eq!(scene.server.workers()[0].last_exit, None);
}

fn impatient() -> Settings {
    Settings {
        request_timeout: Duration::from_secs(5),
        ..settings()
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_answers_only_pings_is_told_of_and_replaced() {
    let scene = scene_with(impatient()).await;
    let mut fake = scene.fake;
    tokio::spawn(async move { while fake.request().await.is_some() {} });
    let error = scene.consumer.request_key_frame().await.unwrap_err();
    assert_eq!(error.code(), "timeout");
    assert_eq!(scene.server.workers()[0].timeouts, 1);
    let began = tokio::time::Instant::now();
    let mut events = scene.server.events();
    let event = soon(events.next()).await.unwrap();
    assert!(matches!(event.kind, EventKind::RoomClosed { .. }), "{event:?}");
    let took = began.elapsed();
    assert!((10..=30).contains(&took.as_secs()), "{took:?}");
    let cause = scene.server.workers()[0].last_exit.clone();
    assert!(
        matches!(&cause, Some(DeathCause::Misbehaved { reason }) if reason.contains("answers pings")),
        "{cause:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_late_is_well_again_when_it_accepts_something() {
    let scene = scene_with(impatient()).await;
    let mut fake = scene.fake;
    scene.consumer.request_key_frame().await.unwrap_err();
    assert_eq!(scene.server.workers()[0].timeouts, 1);
    let (request, _) = fake.request().await.unwrap();
    assert!(matches!(request.method, Method::RequestKeyFrame { .. }), "{request:?}");
    // Nobody asks it for anything but the supervisor itself.
    for _ in 0..2 {
        let (request, _) = soon(fake.request()).await.unwrap();
        assert!(
            matches!(request.method, Method::CreateRouter { .. } | Method::CloseRouter { .. }),
            "{request:?}"
        );
        fake.answer(&request, Ok(Reply::Done)).await;
    }
    tokio::spawn(async move { while fake.request().await.is_some() {} });
    sleep(Duration::from_secs(60)).await;
    let worker = &scene.server.workers()[0];
    assert_eq!((worker.timeouts, &worker.last_exit), (0, &None));
    assert_eq!((scene.server.rooms().len(), worker.rooms), (1, 1));
}

#[tokio::test]
async fn what_a_worker_serves_is_counted_until_it_is_closed() {
    let mut scene = scene().await;
    let served = |server: &Server| {
        let worker = server.workers()[0].id;
        let state = lock(&server.shared().state);
        let served = state.served(worker);
        (served.rooms, served.transports, served.streams)
    };
    assert_eq!(served(&scene.server), (1, 1, 2));
    accepted(&mut scene.fake, scene.producer.close(Value::Null))
        .await
        .unwrap();
    assert_eq!(served(&scene.server), (1, 1, 0));
    accepted(&mut scene.fake, scene.room.close(Value::Null)).await.unwrap();
    assert_eq!(served(&scene.server), (0, 0, 0));
}

#[tokio::test]
async fn reasons_of_a_worker_are_cut_and_drive_no_terminal() {
    let mut scene = scene().await;
    let refuse = async {
        let (request, _) = scene.fake.request().await.unwrap();
        let error = WorkerError::Os {
            call: "\u{1b}[2J\r".to_owned(),
            reason: "x".repeat(100_000),
        };
        scene.fake.answer(&request, Err(error)).await;
    };
    let (error, ()) = soon(async { tokio::join!(scene.producer.pause(Value::Null), refuse) }).await;
    let error = error.unwrap_err().to_string();
    assert!(error.len() < 1_100 && error.contains(r"\u{1b}[2J\r: x"), "{error:.40}");
}
