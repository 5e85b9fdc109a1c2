//! Clients of the mediasoup protocol on WebSockets, with real workers: what they may say, what they lose with their
//! connection and what not, and what they may not do to each other.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod loopback;
mod signalling;

use std::time::Duration;

use serde_json::{Value, json};
use weir::http::{ControlOptions, Limits, SignallingOptions};
use weir::{CodecName, Room, RoomOptions, RtpCodecCapability};

use control::{Control, settings, soon};
use signalling::{Caller, create_camera, create_microphone, create_transport, enable_consumer};

async fn serve(options: SignallingOptions) -> (Control, Room) {
    let options = ControlOptions {
        signalling: options,
        ..ControlOptions::default()
    };
    let control = Control::start_with(settings(1), Limits::default(), options).await;
    let room = control.server.create_room(RoomOptions {
        media_codecs: Some(vec![
            RtpCodecCapability::new(CodecName::Opus),
            RtpCodecCapability::new(CodecName::Vp8),
        ]),
        ..RoomOptions::default()
    });
    let room = soon("the room", room).await.unwrap();
    (control, room)
}

async fn caller(control: &Control, room: &Room, name: &str) -> Caller {
    Caller::connect(&control.path, room.id().0, name).await
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_meet_and_part() {
    let (control, room) = serve(SignallingOptions::default()).await;
    let mut alice = caller(&control, &room, "alice").await;
    let (answer, _) = alice.join("alice", json!({"displayName": "ALICE"})).await;
    assert_eq!(answer, json!({"peers": []}));
    let mut bob = caller(&control, &room, "bob").await;
    let (answer, _) = bob.join("bob", Value::Null).await;
    let alices = json!({"name": "alice", "appData": {"displayName": "ALICE"}, "consumers": []});
    assert_eq!(answer, json!({"peers": [alices]}));
    let met = json!({
        "method": "newPeer", "target": "peer", "notification": true, "name": "bob", "appData": null, "consumers": []
    });
    assert_eq!(alice.told().await, Some(met));

    // Both use the same numbers, which mean each their own.
    for client in [&mut alice, &mut bob] {
        let answer = client.request(create_transport(1, "send")).await.unwrap();
        assert_eq!(answer["plainRtpParameters"]["ip"], "127.0.0.1");
        assert!(answer["plainRtpParameters"]["port"].as_u64() > Some(0));
    }
    assert_eq!(alice.request(create_microphone(5, 1, 1_000)).await, Ok(Value::Null));
    let consumer = bob.told().await.unwrap();
    assert_eq!(consumer["method"], "newConsumer");
    assert_eq!(
        (&consumer["kind"], &consumer["peerName"]),
        (&json!("audio"), &json!("alice"))
    );
    assert_eq!(consumer["rtpParameters"]["codecs"][0]["payloadType"], 100);
    let enabled = bob.request(enable_consumer(&consumer["id"], 1)).await.unwrap();
    assert_eq!(
        enabled,
        json!({"paused": false, "preferredProfile": "default", "effectiveProfile": null})
    );
    let again = bob.request(enable_consumer(&consumer["id"], 1)).await.unwrap_err();
    assert_eq!(again.reason, "InvalidStateError: Consumer already enabled");

    // Bob cannot touch alice's producer, whichever number he says; alice can.
    bob.notify(json!({"method": "pauseProducer", "target": "peer", "notification": true, "id": 5}))
        .await;
    assert_eq!(
        bob.request(create_microphone(5, 1, 2_000)).await,
        Ok(Value::Null),
        "5 was free for bob"
    );
    alice
        .notify(json!({"method": "pauseProducer", "target": "peer", "notification": true, "id": 5}))
        .await;
    let paused = json!({
        "method": "consumerPaused", "target": "peer", "notification": true, "id": consumer["id"], "peerName": "alice"
    });
    assert_eq!(bob.told().await, Some(paused));

    bob.notify(json!({"method": "leave", "target": "peer", "notification": true, "appData": "bye"}))
        .await;
    assert_eq!(bob.end().await, Some(4000));
    let mut told = Vec::new();
    while told.last() != Some(&json!("peerClosed")) {
        told.push(alice.told().await.unwrap()["method"].clone());
    }
    assert_eq!(told[0], "newConsumer");
    assert_eq!(room.peers().len(), 1);

    soon("the room's end", room.close(json!("over"))).await.unwrap();
    assert_eq!(
        alice.told().await,
        Some(json!({"method": "closed", "target": "peer", "notification": true}))
    );
    assert_eq!(alice.end().await, Some(4002));
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_has_lost_nothing() {
    let (control, room) = serve(SignallingOptions::default()).await;
    let mut alice = caller(&control, &room, "alice").await;
    let (_, token) = alice.join("alice", Value::Null).await;
    alice.request(create_transport(1, "recv")).await.unwrap();
    let seq = alice.seq;
    drop(alice);

    // While she is away a peer comes and sends.
    let mut bob = caller(&control, &room, "bob").await;
    let (answer, _) = bob.join("bob", Value::Null).await;
    assert_eq!(answer["peers"][0]["name"], "alice", "she is still there");
    bob.request(create_transport(1, "send")).await.unwrap();
    bob.request(create_microphone(2, 1, 1_000)).await.unwrap();

    let come_back = json!({"token": token, "seq": seq});
    let mut alice = caller(&control, &room, "alice").await;
    alice.seq = seq;
    assert_eq!(alice.ask("weir-resume", come_back.clone()).await, Ok(Value::Null));
    assert_eq!(alice.told().await.unwrap()["method"], "newPeer");
    let consumer = alice.told().await.unwrap();
    assert_eq!(consumer["method"], "newConsumer");
    // Her transport and its number are still hers.
    alice.request(enable_consumer(&consumer["id"], 1)).await.unwrap();

    // A second connection takes over from a living one, and what the first was told is told again.
    let mut second = caller(&control, &room, "alice").await;
    second.seq = seq;
    assert_eq!(second.ask("weir-resume", come_back).await, Ok(Value::Null));
    assert_eq!(alice.end().await, Some(4001));
    assert_eq!(second.told().await.unwrap()["method"], "newPeer");
    assert_eq!(second.told().await, Some(consumer));

    let mut stranger = caller(&control, &room, "alice").await;
    let refused = stranger
        .ask("weir-resume", json!({"token": "guess", "seq": 0}))
        .await
        .unwrap_err();
    assert_eq!(refused.name, "InvalidStateError");
    let mut stranger = caller(&control, &room, "alice").await;
    let join = json!({"method": "join", "target": "room", "peerName": "alice", "rtpCapabilities": {"codecs": []}});
    let refused = stranger.request(join).await.unwrap_err();
    assert_eq!(refused.reason, "Error: duplicated Peer [peerName:\"alice\"]");
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_come_as_long_as_they_are_wanted_and_something_flows() {
    let (control, room) = serve(SignallingOptions::default()).await;
    let mut alice = caller(&control, &room, "alice").await;
    alice.join("alice", Value::Null).await;
    alice.request(create_transport(-1, "send")).await.unwrap();
    alice.request(create_camera(-2, -1, 1_000)).await.unwrap();
    let tell = |method: &str, id: i64| {
        json!({
            "method": method, "target": "peer", "notification": true, "id": id, "interval": 1
        })
    };
    alice.notify(tell("pauseProducer", -2)).await;
    alice.notify(tell("enableProducerStats", -2)).await;
    alice.notify(tell("enableTransportStats", -1)).await;
    let mut times = 0;
    while times < 2 {
        let told = alice.told().await.unwrap();
        assert_eq!(told["method"], "transportStats", "the producer is paused");
        assert_eq!(
            (&told["id"], &told["stats"][0]["type"]),
            (&json!(-1), &json!("transport"))
        );
        times += 1;
    }
    alice.notify(tell("disableTransportStats", -1)).await;
    alice.notify(tell("resumeProducer", -2)).await;
    loop {
        let told = alice.told().await.unwrap();
        if told["method"] == "producerStats" {
            assert_eq!((&told["id"], told["stats"].is_array()), (&json!(-2), true));
            break;
        }
    }
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_one_peers() {
    let (control, room) = serve(SignallingOptions::default()).await;
    let mut alice = caller(&control, &room, "alice").await;
    alice.join("alice", Value::Null).await;
    let join = json!({"method": "join", "target": "room", "peerName": "alice", "rtpCapabilities": {"codecs": []}});
    let refused = alice.request(join.clone()).await.unwrap_err();
    assert_eq!(refused.reason, "Error: duplicated Peer [peerName:\"alice\"]");
    // Nor when it leaves: its answer comes, if there is still a connection, before it is told that it has left.
    alice
        .notify(json!({"method": "leave", "target": "peer", "notification": true}))
        .await;
    alice.begin("mediasoup-request", join).await;
    while let Some(message) = alice.next().await {
        assert_ne!(message["ok"], true, "{message}");
    }
    assert_eq!(room.peers().len(), 0);
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_makes_too_many_consumers_is_slowed_down() {
    let (control, room) = serve(SignallingOptions::default()).await;
    for index in 0..500 {
        let capabilities = room.rtp_capabilities().clone();
        room.create_peer(weir::PeerOptions::new(format!("{index}"), capabilities))
            .unwrap();
    }
    let mut alice = caller(&control, &room, "alice").await;
    alice.join("alice", Value::Null).await;
    alice.request(create_transport(1, "send")).await.unwrap();
    let mut made = 0;
    let refused = loop {
        match alice.request(create_microphone(made, 1, 1_000)).await {
            Ok(_) => made += 1,
            Err(refused) => break refused,
        }
        let close = json!({"method": "closeProducer", "target": "peer", "notification": true, "id": made - 1});
        alice.notify(close).await;
        assert!(made < 1_000, "nobody is that slow");
    };
    assert!(made >= 10, "5,000 at once");
    assert!(
        refused.reason.contains("too many Producers in too short a time"),
        "{refused:?}"
    );
    // In time it may again.
    while alice.request(create_microphone(made, 1, 1_000)).await.is_err() {}
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_stays_away_is_gone() {
    let (control, room) = serve(SignallingOptions {
        grace: Duration::from_millis(1),
        ..SignallingOptions::default()
    })
    .await;
    let mut bob = caller(&control, &room, "bob").await;
    bob.join("bob", Value::Null).await;
    let mut alice = caller(&control, &room, "alice").await;
    let (_, token) = alice.join("alice", Value::Null).await;
    alice.request(create_transport(1, "send")).await.unwrap();
    drop(alice);
    assert_eq!(bob.told().await.unwrap()["method"], "newPeer");
    assert_eq!(
        bob.told().await,
        Some(json!({"method": "peerClosed", "target": "peer", "notification": true, "name": "alice"}))
    );
    assert_eq!(room.transports().len(), 0);
    let mut late = caller(&control, &room, "alice").await;
    assert!(late.ask("weir-resume", json!({"token": token})).await.is_err());
    assert_eq!(late.end().await, Some(4003));
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_let_go() {
    let (control, room) = serve(SignallingOptions {
        stall: Duration::from_millis(50),
        grace: Duration::from_millis(1),
        ..SignallingOptions::default()
    })
    .await;
    let mut deaf = caller(&control, &room, "deaf").await;
    deaf.join("deaf", Value::Null).await;
    let peer = room.peer("deaf").unwrap();
    // Until its socket and the server's are full; then it is lost, and soon gone.
    let stats = json!("x".repeat(10_000));
    while !peer.closed() {
        assert!(peer.notifications_waiting() <= 4_096);
        peer.notify(weir::PeerNotification::PeerClosed {
            name: "nobody".into(),
            app_data: stats.clone().into(),
        });
        tokio::task::yield_now().await;
    }
    assert_eq!(room.peers().len(), 0);
    drop(deaf);
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_nothing_is_let_go_with_its_room() {
    let (control, room) = serve(SignallingOptions {
        // It alone would do nothing for as long as this test lasts.
        stall: Duration::from_secs(3_600),
        ..SignallingOptions::default()
    })
    .await;
    let mut deaf = caller(&control, &room, "deaf").await;
    deaf.join("deaf", Value::Null).await;
    let peer = room.peer("deaf").unwrap();
    // More than its socket and the server's take.
    while peer.notifications_waiting() < 100 {
        peer.notify(weir::PeerNotification::PeerClosed {
            name: "nobody".into(),
            app_data: json!("x".repeat(10_000)).into(),
        });
        tokio::task::yield_now().await;
    }
    soon("the end of the room", room.close(Value::Null)).await.unwrap();
    deaf.until_hung_up().await;
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_ends_the_connection_and_what_is_wrong_does_not() {
    let (control, room) = serve(SignallingOptions {
        message_bytes_max: 2_000,
        ..SignallingOptions::default()
    })
    .await;
    for (text, code) in [
        ("hello".to_owned(), 1007),
        ("{}".to_owned(), 1007),
        (r#"{"request":true,"method":"mediasoup-request"}"#.to_owned(), 1007),
    ] {
        let mut client = caller(&control, &room, "someone").await;
        client.say(text.clone()).await;
        assert_eq!(client.end().await, Some(code), "{text}");
    }
    let mut client = caller(&control, &room, "someone").await;
    client.say(format!("\"{}\"", "x".repeat(2_000))).await;
    client.end().await;

    let mut client = caller(&control, &room, "someone").await;
    let rows = [
        (json!(null), "InvalidStateError: join first"),
        (
            json!({"method": "createTransport", "target": "peer"}),
            "InvalidStateError: join first",
        ),
        (json!({"target": "room"}), "TypeError: wrong/missing request method"),
        (
            json!({"method": 5, "target": "room"}),
            "TypeError: wrong/missing request method",
        ),
        (
            json!({"method": "queryRoom", "target": "room", "notification": true}),
            "TypeError: not a request",
        ),
        (
            json!({"method": "nope", "target": "room"}),
            "Error: unknown request method \"nope\"",
        ),
        (
            json!({"method": "join", "target": "room", "peerName": "other"}),
            "TypeError: peerName must be \"someone\", the name in the connection's address",
        ),
    ];
    for (request, reason) in rows {
        let refused = client.request(request.clone()).await.unwrap_err();
        assert_eq!(refused.reason, reason, "{request}");
    }
    let refused = client.ask("chat", Value::Null).await.unwrap_err();
    assert_eq!(refused.reason, "Error: unknown method \"chat\"");
    assert_eq!(room.peers().len(), 0);
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_connect_who_may() {
    let (control, room) = serve(SignallingOptions {
        token: Some("a-secret-of-enough-length".parse().unwrap()),
        origins: vec!["https://app.example".to_owned()],
        clients: 1,
        ..SignallingOptions::default()
    })
    .await;
    let token = ("authorization", "Bearer a-secret-of-enough-length");
    let id = room.id().0;
    let connect = async |room, headers: &[(&'static str, &str)]| {
        let connected = Caller::try_connect(&control.path, room, "a", headers).await;
        connected.map_err(|refused| refused.status)
    };
    assert_eq!(connect(id, &[]).await.err(), Some(401));
    assert_eq!(
        connect(id, &[("authorization", "Bearer wrong-but-long-enough")])
            .await
            .err(),
        Some(401)
    );
    assert_eq!(
        connect(id, &[token, ("origin", "https://evil.example")]).await.err(),
        Some(403)
    );
    assert_eq!(connect(id + 1, &[token]).await.err(), Some(404));
    let by_subprotocol = ("sec-websocket-protocol", "protoo, bearer.a-secret-of-enough-length");
    let browser = connect(id, &[by_subprotocol, ("origin", "https://app.example")]).await;
    assert!(browser.is_ok(), "{:?}", browser.err());
    assert_eq!(connect(id, &[token]).await.err(), Some(503), "one is the limit");
    drop(browser);
    control.close().await;
}

/// Every peer sends sound and a picture to all others; then all leave.
async fn crowd(control: &Control, room: &Room, count: usize) {
    let names: Vec<String> = (0..count).map(|index| format!("peer{index}")).collect();
    let clients = names.iter().enumerate().map(async |(index, name)| {
        let mut client = caller(control, room, name).await;
        client.join(name, Value::Null).await;
        client.request(create_transport(1, "send")).await.unwrap();
        client.request(create_transport(2, "recv")).await.unwrap();
        let ssrc = 10_000 * (u32::try_from(index).unwrap() + 1);
        client.request(create_microphone(3, 1, ssrc)).await.unwrap();
        client.request(create_camera(4, 1, ssrc + 1)).await.unwrap();
        client
    });
    let mut clients = futures::future::join_all(clients).await;
    let wanted = 2 * (count - 1);
    let enabling = clients.iter_mut().zip(&names).map(async |(client, name)| {
        let peer = room.peer(name).unwrap();
        let ids: Vec<_> = peer.consumers().iter().map(|consumer| consumer.id().0).collect();
        assert_eq!(ids.len(), wanted);
        let mut asked = Vec::new();
        for id in ids {
            asked.push(client.begin("mediasoup-request", enable_consumer(&json!(id), 2)).await);
        }
        for id in asked {
            client.answer(id).await.unwrap();
        }
    });
    futures::future::join_all(enabling).await;
    let consumers = room.consumers();
    assert_eq!(consumers.len(), count * wanted);
    assert!(consumers.iter().all(weir::Consumer::enabled));
    let stats = soon("the counters", room.stats()).await.unwrap();
    assert_eq!(stats.consumers.len(), count * wanted);
    let leaving = clients.iter_mut().map(async |client| {
        let leave = json!({"method": "leave", "target": "peer", "notification": true});
        client.notify(leave).await;
        assert_eq!(client.end().await, Some(4000));
    });
    futures::future::join_all(leaving).await;
    assert_eq!(room.peers().len(), 0);
    assert_eq!(
        room.transports().len() + room.producers().len() + room.consumers().len(),
        0
    );
    let stats = soon("the counters", room.stats()).await.unwrap();
    assert_eq!(
        stats.transports.len() + stats.producers.len() + stats.consumers.len(),
        0
    );
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

async fn crowds(count: usize, rounds: usize) {
    let (control, room) = serve(SignallingOptions::default()).await;
    crowd(&control, &room, count).await;
    let before = descriptors();
    for _ in 0..rounds {
        crowd(&control, &room, count).await;
    }
    // Connections that have ended may take a moment to be let go.
    soon("the descriptors' return", async {
        while descriptors() > before {
            tokio::task::yield_now().await;
        }
    })
    .await;
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn crowds_come_and_go_without_a_trace() {
    crowds(12, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "4,900 consumers at a time take a while; tests/process_meeting.rs has a hundred rounds of them"]
async fn large_crowds_come_and_go_without_a_trace() {
    crowds(50, 5).await;
}

/// A server that was stopped does not take the time for its clients' silence: the pings were its own to send, and what they said
/// meanwhile lies in their sockets.
#[tokio::test]
async fn a_server_that_was_stopped_for_long_has_lost_nobody() {
    let seconds = Duration::from_secs;
    for (idle, said_before) in [(seconds(30), false), (seconds(30), true), (seconds(5), true)] {
        let (control, room) = serve(SignallingOptions {
            ping: seconds(10),
            idle,
            ..SignallingOptions::default()
        })
        .await;
        let mut alice = caller(&control, &room, "alice").await;
        alice.join("alice", Value::Null).await;
        let mut said = None;
        if said_before {
            said = Some(alice.begin("mediasoup-request", create_transport(1, "send")).await);
        }
        // With this the clock goes on at once, and nothing runs until it has.
        tokio::time::pause();
        tokio::time::advance(seconds(3_600)).await;
        tokio::time::resume();
        if let Some(id) = said {
            alice.answer(id).await.unwrap();
        }
        alice.request(create_transport(2, "send")).await.unwrap();
        control.close().await;
    }
}

/// What a room declares and its clients have in common is what they are told of, be it known to the server or not.
#[tokio::test(flavor = "multi_thread")]
async fn a_phones_codecs_are_told_to_those_who_have_them() {
    let (control, _) = serve(SignallingOptions::default()).await;
    let codec = |name: &str, clock_rate| RtpCodecCapability {
        name: name.to_owned(),
        clock_rate,
        ..RtpCodecCapability::new(CodecName::Pcmu)
    };
    let room = control.server.create_room(RoomOptions {
        media_codecs: Some(vec![
            codec("G729", 8_000),
            codec("telephone-event", 8_000),
            codec("CN", 8_000),
        ]),
        ..RoomOptions::default()
    });
    let room = soon("the room", room).await.unwrap();
    let mut alice = caller(&control, &room, "alice").await;
    alice.join("alice", Value::Null).await;
    let mut bob = caller(&control, &room, "bob").await;
    bob.join("bob", Value::Null).await;
    alice.told().await;
    alice.request(create_transport(1, "send")).await.unwrap();
    let phone = json!({
        "method": "createProducer", "target": "peer", "id": 5, "kind": "audio", "transportId": 1,
        "rtpParameters": {
            "codecs": [
                {"mimeType": "audio/telephone-event", "clockRate": 8000, "payloadType": 96, "parameters": {"events": "0-15"}},
                {"mimeType": "audio/G729", "clockRate": 8000, "payloadType": 18}
            ],
            "encodings": [{}]
        },
        "paused": false
    });
    assert_eq!(alice.request(phone).await, Ok(Value::Null));
    let consumer = bob.told().await.unwrap();
    assert_eq!(consumer["method"], "newConsumer");
    let codecs = consumer["rtpParameters"]["codecs"].as_array().unwrap();
    let shown: Vec<_> = codecs
        .iter()
        .map(|codec| (&codec["mimeType"], &codec["payloadType"]))
        .collect();
    assert_eq!(
        shown,
        [
            (&json!("audio/telephone-event"), &json!(100)),
            (&json!("audio/G729"), &json!(18))
        ]
    );
    bob.request(create_transport(1, "recv")).await.unwrap();
    bob.request(enable_consumer(&consumer["id"], 1)).await.unwrap();
    control.close().await;
}
