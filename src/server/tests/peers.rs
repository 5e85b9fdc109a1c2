//! Peers: joining, producing for each other, leaving, and who hears of it in which order (differences §1.3 to §1.6).

use futures::FutureExt;
use futures::future::join_all;
use serde_json::{Value, json};
use weir_channel::message::{CodecName, MediaKind, Method, Notification, WorkerError};

use super::stage::{Stage, Trio, audio, told, transport, video};
use crate::protocol::{ErrorClass, PlainRemotes};
use crate::server::fake::{obliging_server, server, settings, soon};
use crate::server::{
    CloseCause, ConsumerOptions, Direction, EnableOptions, EventKind, PeerNotification, PeerOptions,
    PlainTransportOptions, ProducerOptions, RoomOptions, RtpCapabilities, RtpCodec, RtpCodecCapability, RtpEncoding,
    RtpParameters, lock,
};

#[tokio::test]
async fn who_joins_is_told_who_is_there_and_the_others_that_somebody_came() {
    let mut stage = Stage::new().await;
    let alice = stage.join("alice");
    assert_eq!(stage.events(), [r#"peerJoined peer=alice "ALICE""#]);
    let sending = transport(&alice, Direction::Send).await;
    for options in [audio(1), video(2)] {
        soon(sending.produce(options)).await.unwrap();
    }
    let bob = stage.join("bob");
    assert_eq!(told(&alice), [r#"alice: newPeer bob "BOB""#]);
    stage.forget(&[]);

    let joined = stage.room.join(stage.options("carol")).unwrap();
    assert!(told(&joined.peer).is_empty(), "the answer says it");
    let names: Vec<&str> = joined.others.iter().map(|other| &*other.name).collect();
    assert_eq!(names, ["alice", "bob"]);
    assert_eq!(*joined.others[0].app_data, json!("ALICE"));
    let kinds: Vec<_> = joined.others[0]
        .consumers
        .iter()
        .map(|consumer| consumer.kind)
        .collect();
    assert_eq!(format!("{kinds:?}"), "[Audio, Video]");
    assert!(joined.others[1].consumers.is_empty());
    assert_eq!(
        stage.events(),
        [
            r#"peerJoined peer=carol "CAROL""#,
            "consumerOpened peer=carol producer=1 consumer=3 sourcePaused=false",
            r#"consumerOpened peer=carol producer=2 consumer=4 sourcePaused=false "camera""#
        ]
    );
    assert_eq!(told(&bob), [r#"bob: newPeer carol "CAROL""#]);
    assert!(stage.requests().is_empty(), "no worker knows of peers");
    let carol = joined.peer;
    assert_eq!((carol.name(), carol.room().id()), ("carol", stage.room.id()));
    let ids: Vec<u64> = carol.consumers().iter().map(|consumer| consumer.id().0).collect();
    assert_eq!(ids, [3, 4]);
    assert_eq!(carol.consumers()[0].peer().unwrap().name(), "alice");
    assert_eq!(carol.consumers()[0].receiver().unwrap().name(), "carol");
    let all: Vec<String> = stage.room.peers().iter().map(|peer| peer.name().to_owned()).collect();
    assert_eq!(all, ["alice", "bob", "carol"]);
    assert!(stage.room.peer("bob").is_some() && stage.room.peer("dave").is_none());
}

#[tokio::test]
async fn names_and_capabilities_are_checked() {
    let stage = Stage::new().await;
    stage.join("alice");
    let twice = stage.room.create_peer(stage.options("alice")).unwrap_err();
    assert_eq!(twice.code(), "conflict");
    for name in [String::new(), "x".repeat(256)] {
        let error = stage.room.create_peer(stage.options(&name)).unwrap_err();
        assert_eq!(error.code(), "invalidParameters", "{error}");
    }
    stage.room.create_peer(stage.options(&"x".repeat(255))).unwrap();

    let only_audio = RoomOptions {
        media_codecs: Some(vec![RtpCodecCapability::new(CodecName::Opus)]),
        ..RoomOptions::default()
    };
    let room = soon(stage.server.create_room(only_audio)).await.unwrap();
    let everything = PeerOptions::new("alice", RtpCapabilities::supported());
    let error = room.create_peer(everything).unwrap_err();
    assert_eq!(error.code(), "invalidParameters", "{error}");
    let peer = PeerOptions::new("alice", room.rtp_capabilities().clone());
    let peer = room.create_peer(peer).unwrap();
    let sending = transport(&peer, Direction::Send).await;
    stage.requests();
    let error = soon(sending.produce(video(1))).await.unwrap_err();
    assert!(error.to_string().starts_with("wrong RTP parameters: "), "{error}");
    assert!(stage.requests().is_empty());
    let nothing = RoomOptions {
        media_codecs: Some(Vec::new()),
        ..RoomOptions::default()
    };
    let error = soon(stage.server.create_room(nothing)).await.unwrap_err();
    assert_eq!(error.code(), "invalidParameters", "{error}");
}

#[tokio::test]
async fn a_producer_is_everybodys_before_its_own_event() {
    let mut stage = Stage::new().await;
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| stage.join(name));
    let sending = transport(&alice, Direction::Send).await;
    stage.forget(&[&alice, &bob, &carol]);
    let producer = soon(sending.produce(video(7))).await.unwrap();
    assert!(
        matches!(stage.requests().as_slice(), [Method::CreateProducer(_)]),
        "no consumer yet"
    );
    assert_eq!(
        stage.events(),
        [
            r#"consumerOpened peer=bob producer=1 consumer=1 sourcePaused=false "camera""#,
            r#"consumerOpened peer=carol producer=1 consumer=2 sourcePaused=false "camera""#,
            r#"producerOpened peer=alice transport=1 producer=1 "camera""#
        ]
    );
    assert!(told(&alice).is_empty());
    assert_eq!(told(&bob), [r#"bob: newConsumer 1 of alice "camera""#]);
    assert_eq!(told(&carol), [r#"carol: newConsumer 2 of alice "camera""#]);
    assert_eq!(producer.peer().unwrap().name(), "alice");
    producer.set_app_data(json!("screen"));
    assert_eq!(producer.app_data(), json!("screen"));
    assert_eq!(
        bob.consumers()[0].app_data(),
        &json!("camera"),
        "a copy from the beginning"
    );
    let parameters = [&bob, &carol].map(|peer| peer.consumers()[0].rtp_parameters().clone());
    assert_ne!(parameters[0].encodings[0].ssrc, parameters[1].encodings[0].ssrc);
    assert!(parameters[0].rtcp.cname.is_some());
    assert_eq!(parameters[0].rtcp.cname, parameters[1].rtcp.cname);
    // All of a peer's tracks that come without a name share one, so that they are played in sync.
    soon(sending.produce(audio(8))).await.unwrap();
    let of_audio = bob.consumers()[1].rtp_parameters().rtcp.cname.clone();
    assert_eq!(of_audio, parameters[0].rtcp.cname);
}

#[tokio::test]
async fn what_belongs_to_nobody_is_consumed_by_nobody_by_itself() {
    let stage = Stage::new().await;
    let bob = stage.join("bob");
    let ingest = soon(stage.room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    let producer = soon(ingest.produce(video(1))).await.unwrap();
    assert!(producer.peer().is_none() && bob.consumers().is_empty() && told(&bob).is_empty());
    assert!(stage.join("carol").consumers().is_empty());
}

#[tokio::test]
async fn spies_receive_and_are_not_seen() {
    let mut stage = Stage::new().await;
    let alice = stage.join("alice");
    let sending = transport(&alice, Direction::Send).await;
    let spy = PeerOptions {
        spy: true,
        ..stage.options("spy")
    };
    let joined = stage.room.join(spy).unwrap();
    assert_eq!(joined.others.len(), 1);
    let spy = joined.peer;
    assert!(spy.spy() && told(&alice).is_empty());
    assert_eq!(
        stage.room.join(stage.options("erin")).unwrap().others.len(),
        1,
        "the spy is not listed"
    );
    soon(sending.produce(video(1))).await.unwrap();
    assert_eq!(told(&spy).len(), 2, "newPeer erin and newConsumer");
    let own = transport(&spy, Direction::Send).await;
    stage.requests();
    let error = soon(own.produce(video(2))).await.unwrap_err();
    assert_eq!(error.to_string(), "a spy peer cannot send media to the room");
    assert!(stage.requests().is_empty());
    stage.forget(&[&alice]);
    soon(spy.leave(json!("spybye"))).await.unwrap();
    assert!(told(&alice).is_empty());
    assert_eq!(
        stage.events(),
        [
            r#"peerClosed peer=spy remote "spybye""#,
            "consumerClosed consumer=1 remote (peerClosed)",
            "transportClosed transport=2 remote (peerClosed)"
        ]
    );
}

#[tokio::test]
async fn closing_a_peer_tells_its_client_then_the_others() {
    let mut trio = Trio::new().await;
    soon(trio.alice.close(json!({"k": 1}))).await.unwrap();
    assert_eq!(
        trio.stage.events(),
        [
            r#"peerClosed peer=alice local {"k":1}"#,
            "producerClosed producer=1 local (peerClosed)",
            "consumerClosed consumer=1 local (producerClosed)",
            "consumerClosed consumer=2 local (producerClosed)",
            "transportClosed transport=1 local (peerClosed)"
        ]
    );
    // No consumerClosed: peerClosed says it.
    assert_eq!(
        trio.told(),
        [
            r#"alice: closed {"k":1}"#,
            r#"bob: peerClosed alice {"k":1}"#,
            r#"carol: peerClosed alice {"k":1}"#
        ]
    );
    assert!(trio.alice.closed() && trio.producer.closed() && trio.sending.closed() && trio.of_bob.closed());
    soon(trio.alice.close(Value::Null)).await.unwrap();
    assert!(trio.stage.events().is_empty());
    let late = soon(
        trio.alice
            .create_plain_transport(PlainTransportOptions::default(), None),
    )
    .await;
    assert_eq!(late.unwrap_err().to_string(), r#"peer "alice" is closed"#);
    trio.stage.join("alice");
}

#[tokio::test]
async fn leaving_is_remote_and_the_leaver_is_not_told() {
    let mut trio = Trio::new().await;
    soon(trio.bob.leave(json!("bye"))).await.unwrap();
    assert_eq!(
        trio.stage.events(),
        [
            r#"peerClosed peer=bob remote "bye""#,
            "consumerClosed consumer=1 remote (peerClosed)",
            "transportClosed transport=2 remote (peerClosed)"
        ]
    );
    assert_eq!(
        trio.told(),
        [r#"alice: peerClosed bob "bye""#, r#"carol: peerClosed bob "bye""#]
    );
    // Carol has no transport: nobody needs to be asked.
    trio.stage.forget(&[&trio.alice]);
    soon(trio.carol.leave(Value::Null)).await.unwrap();
    assert!(trio.stage.requests().is_empty() && trio.carol.closed());
    assert_eq!(trio.told(), ["alice: peerClosed carol"]);
}

#[tokio::test]
async fn a_peer_is_closed_when_all_of_its_transports_are() {
    let (server, mut fake) = server(settings()).await;
    let (room, _) = soon(async { tokio::join!(server.create_room(RoomOptions::default()), fake.accept()) }).await;
    let room = room.unwrap();
    let options = PeerOptions::new("alice", room.rtp_capabilities().clone());
    let alice = room.create_peer(options).unwrap();
    let plain = PlainTransportOptions::default;
    let (first, _) = soon(async { tokio::join!(alice.create_plain_transport(plain(), None), fake.accept()) }).await;
    let first = first.unwrap();
    let mut events = server.events();

    // One transport is open, another on its way, when the peer is closed, by two at once.
    let worker = async {
        let (create, _) = fake.request().await.unwrap();
        let mut closes = Vec::new();
        for _ in 0..3 {
            closes.push(fake.request().await.unwrap().0);
        }
        assert!(matches!(create.method, Method::CreatePlainTransport(_)));
        fake.answer(&create, super::stage::done()).await;
        fake.answer(&closes[0], super::stage::done()).await;
        fake.answer(&closes[1], super::stage::done()).await;
        let Method::CloseTransport { transport } = closes[2].method else {
            panic!("{closes:?}");
        };
        fake.answer(&closes[2], Err(WorkerError::UnknownTransport(transport)))
            .await;
    };
    let calls = async {
        tokio::join!(
            alice.create_plain_transport(plain(), None),
            alice.close(json!("first")),
            alice.leave(json!("second")),
            alice.create_plain_transport(plain(), None),
            first.produce(video(1)),
        )
    };
    let (results, ()) = soon(async { tokio::join!(calls, worker) }).await;
    let second = results.0.unwrap();
    results.1.unwrap();
    results.2.unwrap();
    for error in [results.3.unwrap_err(), results.4.unwrap_err()] {
        assert_eq!(error.to_string(), r#"peer "alice" is closed"#);
    }
    assert!(first.closed() && second.closed() && alice.closed());
    let mut told = Vec::new();
    while let Some(Some(event)) = events.next().now_or_never() {
        told.push(super::stage::brief(&event));
    }
    assert_eq!(
        told,
        [
            "transportOpened peer=alice transport=2",
            r#"peerClosed peer=alice local "first""#,
            "transportClosed transport=1 local (peerClosed)",
            "transportClosed transport=2 local (peerClosed)"
        ]
    );
    assert_eq!(server.shared().sockets.ports_taken(), 0);
}

#[tokio::test]
async fn a_peer_that_cannot_be_closed_stays() {
    let trio = Trio::new().await;
    let more = transport(&trio.bob, Direction::Send).await;
    trio.stage.refuse(WorkerError::DeadlinePassed);
    let refused = soon(trio.bob.close(Value::Null)).await;
    assert_eq!(refused.unwrap_err().code(), "timeout");
    assert!(!trio.bob.closed());
    // The other one was closed, and that is known.
    assert!(!trio.receiving.closed() && more.closed());
    assert!(trio.told().contains(&"bob: transportClosed 3".to_owned()));
    assert!(trio.of_bob.enabled());
    soon(trio.bob.close(Value::Null)).await.unwrap();
    assert!(trio.bob.closed() && trio.receiving.closed());
}

#[tokio::test]
async fn a_client_aims_where_the_application_lets_it() {
    let trio = Trio::new().await;
    let aim = async |id: i64, ip: &str| {
        let request = json!({
            "method": "createTransport", "id": id, "direction": "recv", "plainRtpParameters": {"ip": ip, "port": 5_004}
        });
        soon(trio.bob.receive_request(request)).await.map(drop)
    };
    // The application looks after its clients itself.
    aim(1, "192.0.2.1").await.unwrap();
    trio.bob.set_plain_remotes(PlainRemotes::Only([127, 0, 0, 1].into()));
    assert_eq!(aim(2, "192.0.2.1").await.unwrap_err().class, ErrorClass::TypeError);
    aim(2, "127.0.0.1").await.unwrap();
    trio.bob.set_plain_remotes(PlainRemotes::None);
    assert_eq!(aim(3, "127.0.0.1").await.unwrap_err().class, ErrorClass::TypeError);
    assert_eq!(trio.bob.transports().len(), 3, "with the one it had");
}

#[tokio::test(start_paused = true)]
async fn a_peer_whose_client_is_gone_goes_in_the_end() {
    let trio = Trio::new().await;
    for _ in 0..3 {
        trio.stage.refuse(WorkerError::DeadlinePassed);
    }
    soon(trio.bob.leave_in_the_end()).await;
    assert!(trio.bob.closed() && trio.receiving.closed());
    assert_eq!(trio.stage.requests().len(), 4, "three refusals");
    // Also when it has gone otherwise.
    soon(trio.bob.leave_in_the_end()).await;
    trio.stage.refuse(WorkerError::DeadlinePassed);
    let gone = async { tokio::join!(trio.alice.leave_in_the_end(), trio.stage.room.close(Value::Null)) };
    let (_, closed) = soon(gone).await;
    closed.unwrap();
    assert!(trio.alice.closed());
}

#[tokio::test]
async fn a_rooms_peers_go_with_it_one_after_the_other() {
    let mut trio = Trio::new().await;
    soon(trio.stage.room.close(json!("end"))).await.unwrap();
    assert_eq!(trio.stage.requests().len(), 1);
    assert_eq!(
        trio.stage.events(),
        [
            r#"roomClosed local "end""#,
            "peerClosed peer=alice local (roomClosed)",
            "producerClosed producer=1 local (roomClosed)",
            "consumerClosed consumer=1 local (roomClosed)",
            "consumerClosed consumer=2 local (roomClosed)",
            "transportClosed transport=1 local (roomClosed)",
            "peerClosed peer=bob local (roomClosed)",
            "transportClosed transport=2 local (roomClosed)",
            "peerClosed peer=carol local (roomClosed)"
        ]
    );
    assert_eq!(
        trio.told(),
        [
            "alice: closed",
            "bob: peerClosed alice",
            "bob: closed",
            "carol: peerClosed alice",
            "carol: peerClosed bob",
            "carol: closed"
        ]
    );
    let error = trio.stage.room.create_peer(trio.stage.options("late")).unwrap_err();
    assert_eq!(error.code(), "invalidState");
}

#[tokio::test]
async fn a_workers_death_closes_its_peers() {
    let (server, mut fake) = server(settings()).await;
    let (room, _) = soon(async { tokio::join!(server.create_room(RoomOptions::default()), fake.accept()) }).await;
    let room = room.unwrap();
    let options = PeerOptions::new("alice", room.rtp_capabilities().clone());
    let alice = room.create_peer(options).unwrap();
    let create = alice.create_plain_transport(PlainTransportOptions::default(), None);
    let (sending, _) = soon(async { tokio::join!(create, fake.accept()) }).await;
    let sending = sending.unwrap();
    let (producer, _) = soon(async { tokio::join!(sending.produce(video(1)), fake.accept()) }).await;
    let producer = producer.unwrap();
    let mut events = server.events();
    let mut notifications = alice.notifications();
    let die = async {
        soon(fake.request()).await.unwrap();
        drop(fake);
    };
    let (closed, ()) = soon(async { tokio::join!(alice.close(Value::Null), die) }).await;
    closed.expect("closing what its worker's death has closed is fine");
    assert!(alice.closed() && producer.closed() && room.peers().is_empty());
    let closed = soon(notifications.next()).await.unwrap();
    assert_eq!(closed, PeerNotification::Closed { app_data: Value::Null });
    assert!(soon(notifications.next()).await.is_none());
    soon(events.next()).await.unwrap();
    let of_peer = soon(events.next()).await.unwrap();
    assert!(
        matches!(
            &of_peer.kind,
            EventKind::PeerClosed {
                cause: CloseCause::WorkerDied { .. },
                ..
            }
        ),
        "{of_peer:?}"
    );
    let error = soon(producer.pause(Value::Null)).await.unwrap_err();
    assert_eq!(error.code(), "invalidState");
}

#[tokio::test]
async fn what_a_peer_may_have_is_bounded() {
    let stage = Stage::new().await;
    let alice = stage.join("alice");
    let transports =
        soon(join_all((0..20).map(|_| {
            alice.create_plain_transport(PlainTransportOptions::default(), None)
        })))
        .await;
    let made: Vec<_> = transports.iter().flatten().collect();
    assert_eq!(made.len(), 16);
    let refused = transports.iter().find_map(|made| made.as_ref().err()).unwrap();
    assert_eq!(
        (refused.code(), refused.to_string().as_str()),
        ("tooMany", r#"peer "alice" is at its limit of 16 transports"#)
    );
    let producers = soon(join_all((0..40).map(|ssrc| made[0].produce(video(ssrc))))).await;
    assert_eq!(producers.iter().flatten().count(), 32);
    // A refused one does not count for ever.
    stage.refuse(WorkerError::InvalidParameters("no".to_owned()));
    soon(alice.producers()[0].close(Value::Null)).await.unwrap_err();
    soon(alice.producers()[0].close(Value::Null)).await.unwrap();
    stage.refuse(WorkerError::InvalidParameters("no".to_owned()));
    soon(made[0].produce(video(99))).await.unwrap_err();
    soon(made[0].produce(video(99))).await.unwrap();
    assert_eq!(soon(made[0].produce(video(100))).await.unwrap_err().code(), "tooMany");
}

#[tokio::test]
async fn a_rooms_consumers_are_bounded_with_those_on_their_way() {
    const SPIES: usize = 996;
    let stage = Stage::new().await;
    let senders = ["a", "b", "c", "d"].map(|name| stage.join(name));
    for spy in 0..SPIES {
        let name = format!("spy {spy}");
        let options = PeerOptions {
            spy: true,
            ..stage.options(&name)
        };
        stage.room.create_peer(options).unwrap();
    }
    let mut transports = Vec::new();
    for sender in &senders {
        transports.push(transport(sender, Direction::Send).await);
    }
    // Each producer brings 999 consumers: a hundred of them fit.
    let mut ssrc = 0;
    for transport in &transports[..3] {
        for _ in 0..32 {
            ssrc += 1;
            soon(transport.produce(audio(ssrc))).await.unwrap();
        }
    }
    let last = &transports[3];
    let produced = soon(join_all((1..=6).map(|ssrc| last.produce(audio(ssrc))))).await;
    assert_eq!(produced.iter().flatten().count(), 4, "all at once, before any answer");
    for refused in produced.iter().flat_map(|produced| produced.as_ref().err()) {
        assert_eq!(
            (refused.code(), refused.to_string().as_str()),
            ("tooMany", "room 1 is at its limit of 100000 consumers")
        );
    }
    // An application's own count, too, also on their way: 100 are left.
    let own = soon(stage.room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    let producer = senders[0].producers().remove(0);
    stage.refuse(WorkerError::InvalidParameters("no".to_owned()));
    soon(own.consume(&producer, ConsumerOptions::default()))
        .await
        .unwrap_err();
    let consumed = (0..110).map(|_| own.consume(&producer, ConsumerOptions::default()));
    let consumed = soon(join_all(consumed)).await;
    assert_eq!(consumed.iter().flatten().count(), 100);
    assert_eq!(stage.room.consumers().len(), 100_000);
    let left = lock(&stage.server.shared().state).left_in(stage.room.id());
    assert_eq!(left[3], 0, "nothing is on its way");
    // Who leaves makes room.
    soon(senders[3].leave(Value::Null)).await.unwrap();
    assert!(stage.room.create_peer(stage.options("e")).is_ok());
    assert_eq!(stage.room.consumers().len(), 100_000 - 4 * 999 - 96 + 96);
}

/// What a client keeps with something is there once, however many are told of it.
#[tokio::test]
async fn app_data_is_shared_by_all_who_are_told() {
    let stage = Stage::new().await;
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| stage.join(name));
    let sending = transport(&alice, Direction::Send).await;
    soon(sending.produce(video(1))).await.unwrap();
    let mut of_tracks = Vec::new();
    let mut of_peers = Vec::new();
    soon(alice.leave(json!("bye"))).await.unwrap();
    for peer in [&bob, &carol] {
        let mut notifications = peer.notifications();
        while let Some(Some(notification)) = notifications.next().now_or_never() {
            match notification {
                PeerNotification::NewConsumer(consumer) => of_tracks.push(consumer.app_data),
                PeerNotification::PeerClosed { app_data, .. } => of_peers.push(app_data),
                _ => {}
            }
        }
    }
    for told in [of_tracks, of_peers] {
        assert_eq!(told.len(), 2);
        assert!(std::sync::Arc::ptr_eq(&told[0], &told[1]), "{told:?}");
    }
}

#[tokio::test]
async fn tracks_that_come_without_a_name_share_that_of_their_peer() {
    let stage = Stage::new().await;
    let [alice, bob, carol] = ["alice", "bob", "carol"].map(|name| stage.join(name));
    let (of_alice, other_of_alice) = (
        transport(&alice, Direction::Send).await,
        transport(&alice, Direction::Send).await,
    );
    let of_bob = transport(&bob, Direction::Send).await;
    let mut named = audio(4);
    named.rtp_parameters.rtcp.cname = Some("studio".to_owned());
    let mut cnames = Vec::new();
    for (transport, options) in [
        (&of_alice, audio(1)),
        (&other_of_alice, video(2)),
        (&of_bob, audio(3)),
        (&of_bob, named),
    ] {
        let producer = soon(transport.produce(options)).await.unwrap();
        cnames.push(producer.rtp_parameters().rtcp.cname.clone().unwrap());
    }
    assert_eq!(cnames[0], cnames[1], "also on another transport");
    assert_ne!(cnames[0], cnames[2]);
    assert_eq!(cnames[3], "studio");
    let received = carol.consumers().into_iter().map(|consumer| {
        let cname = consumer.rtp_parameters().rtcp.cname.clone();
        cname.unwrap()
    });
    assert_eq!(received.collect::<Vec<_>>(), cnames, "consumers carry it");
    // What is nobody's has nothing that it could be in sync with.
    let own = soon(stage.room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    let mut apart = Vec::new();
    for ssrc in [1, 2] {
        let producer = soon(own.produce(audio(ssrc))).await.unwrap();
        let consumer = soon(own.consume(&producer, ConsumerOptions::default())).await.unwrap();
        let cname = producer.rtp_parameters().rtcp.cname.clone().unwrap();
        assert_eq!(consumer.rtp_parameters().rtcp.cname.as_ref(), Some(&cname));
        apart.push(cname);
    }
    assert_ne!(apart[0], apart[1]);
}

#[tokio::test]
async fn a_client_that_comes_back_goes_on_where_it_stopped() {
    let stage = Stage::new().await;
    let alice = stage.join("alice");
    for name in ["b", "c", "d"] {
        stage.join(name);
    }
    let mut first = alice.notifications();
    let (number, shown) = soon(first.peek()).await.unwrap();
    assert!(matches!(shown, PeerNotification::NewPeer { ref name, .. } if &**name == "b"));
    first.advance(number);
    // The connection is lost while the second is being sent: it is not advanced over.
    soon(first.peek()).await.unwrap();
    let mut second = alice.notifications();
    assert!(soon(first.peek()).await.is_none(), "taken over");
    first.advance(1);
    let (number, again) = soon(second.peek()).await.unwrap();
    assert!(matches!(again, PeerNotification::NewPeer { ref name, .. } if &**name == "c"));
    assert_eq!(number, 1);
    second.advance(number);
    soon(second.next()).await.unwrap();
    assert_eq!(alice.notifications_waiting(), 0);
    // One that waits already hears of the next, and of the end.
    let waiting = tokio::spawn(async move { (second.next().await, second.next().await, second.next().await) });
    tokio::task::yield_now().await;
    stage.join("e");
    soon(alice.close(Value::Null)).await.unwrap();
    let (third, end, nothing) = soon(waiting).await.unwrap();
    assert!(matches!(third, Some(PeerNotification::NewPeer { .. })));
    assert!(matches!(end, Some(PeerNotification::Closed { .. })));
    assert!(nothing.is_none());
}

#[tokio::test]
async fn the_app_data_of_a_room_is_bounded() {
    let stage = Stage::new().await;
    let join = |number: usize| {
        stage.room.create_peer(PeerOptions {
            app_data: "x".repeat(8_000).into(),
            ..stage.options(&format!("peer-{number}"))
        })
    };
    let peers: Vec<_> = (0..1_000).map_while(|number| join(number).ok()).collect();
    assert_eq!(peers.len(), 1024 * 1024 / 8_032);
    let refused = join(1_000).unwrap_err().to_string();
    assert!(
        refused.contains("at its limit of 1048576 bytes of app data"),
        "{refused}"
    );
    let sending = transport(&peers[0], Direction::Send).await;
    let camera = ProducerOptions {
        app_data: "x".repeat(8_000).into(),
        ..video(1)
    };
    let refused = soon(sending.produce(camera.clone())).await.unwrap_err().to_string();
    assert!(refused.contains("bytes of app data"), "{refused}");
    // What is gone makes room.
    soon(peers[1].leave(Value::Null)).await.unwrap();
    soon(sending.produce(camera)).await.unwrap();
    assert!(join(1_000).is_err());
    stage.join("modest");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up_and_disturbs_nobody() {
    let trio = Trio::new().await;
    for _ in 0..2_048 {
        soon(trio.of_bob.pause(Value::Null)).await.unwrap();
        soon(trio.of_bob.resume(Value::Null)).await.unwrap();
    }
    assert!(!trio.bob.overflowed());
    assert_eq!(trio.bob.notifications_waiting(), 4_096);
    let mut notifications = trio.bob.notifications();
    soon(notifications.peek()).await.unwrap();
    soon(trio.of_bob.pause(Value::Null)).await.unwrap();
    assert!(trio.bob.overflowed() && trio.of_bob.paused());
    assert_eq!(trio.bob.notifications_waiting(), 0, "nothing is kept");
    assert!(soon(notifications.next()).await.is_none());
    soon(trio.of_bob.resume(Value::Null)).await.unwrap();
    assert_eq!(trio.bob.notifications_waiting(), 0);
    soon(trio.bob.leave(Value::Null)).await.unwrap();
}

/// A hundred times a room of fifty, in which everybody sends sound and pictures to everybody, and nothing of it is left.
#[tokio::test]
async fn a_hundred_rooms_of_fifty_leave_nothing_behind() {
    let server = obliging_server(settings()).await;
    for round in 0..100 {
        let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
        let peers: Vec<_> = (0..50)
            .map(|index| {
                let options = PeerOptions::new(format!("peer {index}"), room.rtp_capabilities().clone());
                room.create_peer(options).unwrap()
            })
            .collect();
        let sending = soon(join_all(peers.iter().map(|peer| async move {
            let sending = transport(peer, Direction::Send).await;
            let (sound, pictures) = tokio::join!(sending.produce(audio(1)), sending.produce(video(2)));
            sound.unwrap();
            pictures.unwrap();
            sending
        })))
        .await;
        assert_eq!(room.consumers().len(), 50 * 49 * 2);
        let one = &peers[round % 50];
        let receiving = transport(one, Direction::Recv).await;
        let consumers = one.consumers();
        assert_eq!(consumers.len(), 98);
        let enabled = consumers
            .iter()
            .map(|consumer| consumer.enable(&receiving, EnableOptions::default()));
        for result in soon(join_all(enabled)).await {
            result.unwrap();
        }
        soon(receiving.consume(&one.producers()[0], ConsumerOptions::default()))
            .await
            .unwrap();
        // By every way out.
        match round % 4 {
            0 => soon(room.close(Value::Null)).await.unwrap(),
            1 => {
                for result in soon(join_all(peers.iter().map(|peer| peer.close(Value::Null)))).await {
                    result.unwrap();
                }
            }
            2 => {
                for result in soon(join_all(sending.iter().map(|sending| sending.close(Value::Null)))).await {
                    result.unwrap();
                }
                for peer in &peers {
                    soon(peer.leave(Value::Null)).await.unwrap();
                }
            }
            _ => {
                for peer in &peers {
                    for producer in peer.producers() {
                        soon(producer.close(Value::Null)).await.unwrap();
                    }
                    soon(peer.leave(Value::Null)).await.unwrap();
                }
            }
        }
        assert!(room.peers().is_empty() && room.consumers().is_empty(), "round {round}");
        let left = lock(&server.shared().state).left_in(room.id());
        assert_eq!(left, [0; 4], "round {round}");
        soon(room.close(Value::Null)).await.unwrap();
        assert_eq!(lock(&server.shared().state).entries(), [0; 5]);
        assert_eq!(server.shared().sockets.ports_taken(), 0);
    }
}

/// A phone on a plain transport: sound that the server does not know, an SSRC that nobody has said.
#[tokio::test]
async fn gear_that_names_no_ssrc_is_made_and_told_of() {
    let mut stage = Stage::new().await;
    let transport = soon(stage.room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    let codec = |mime_type: &str, payload_type| RtpCodec {
        mime_type: mime_type.to_owned(),
        ..RtpCodec::new(CodecName::Pcmu, payload_type)
    };
    let rtp_parameters = RtpParameters {
        codecs: vec![
            codec("audio/CN", 13),
            codec("audio/G729", 18),
            codec("audio/telephone-event", 101),
        ],
        encodings: vec![RtpEncoding::default()],
        ..RtpParameters::default()
    };
    let phone = ProducerOptions::new(MediaKind::Audio, rtp_parameters.clone());
    let producer = soon(transport.produce(phone.clone())).await.unwrap();
    assert_eq!(producer.rtp_parameters().codecs, rtp_parameters.codecs);
    let asked = stage.requests().into_iter().find_map(|method| match method {
        Method::CreateProducer(request) => Some(request),
        _ => None,
    });
    let asked = asked.unwrap();
    assert_eq!((asked.encodings[0].ssrc, asked.mid), (None, None));
    let names: Vec<CodecName> = asked.codecs.iter().map(|codec| codec.name).collect();
    let companion = CodecName::AudioCompanion;
    assert_eq!(names, [companion, CodecName::OtherAudio, companion]);
    stage.events();
    let heard = Notification::SsrcChanged {
        producer: producer.id(),
        ssrc: 7,
        previous: None,
    };
    assert_eq!(stage.hear(heard.clone()).await, "producerSsrcChanged producer=1");
    let mut events = stage.server.events();
    stage.say(heard);
    let event = serde_json::to_value(soon(events.next()).await.unwrap()).unwrap();
    assert_eq!(
        (&event["room"], &event["ssrc"], &event["previous"]),
        (&serde_json::json!(1), &serde_json::json!(7), &Value::Null)
    );
    // Of one that is gone there is nothing to tell.
    soon(producer.close(Value::Null)).await.unwrap();
    stage.events();
    let change = |producer, ssrc| Notification::SsrcChanged {
        producer,
        ssrc,
        previous: Some(7),
    };
    stage.say(change(producer.id(), 8));
    let another = soon(transport.produce(phone)).await.unwrap();
    stage.events();
    assert_eq!(
        stage.hear(change(another.id(), 9)).await,
        format!("producerSsrcChanged producer={}", another.id().0)
    );
}
