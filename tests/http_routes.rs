//! Each route of the control interface, with a real server and real workers behind it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod loopback;

use control::{Control, camera};
use serde_json::{Value, json};
use weir::http::{ControlOptions, LIST_MAX, Limits};

/// The ids of a list.
fn ids(list: &Value) -> Vec<u64> {
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["id"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn a_room_lives_and_ends() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let created = client.post("/rooms", json!({"appData": {"name": "Ada"}})).await;
    assert_eq!(created.headers["location"], "/rooms/1");
    let room = created.expect(201);
    assert_eq!(room["appData"], json!({"name": "Ada"}));
    assert_eq!(client.get("/rooms/1").await.expect(200), room);
    let listed = client.get("/rooms").await.expect(200);
    assert_eq!(listed, json!({"items": [room], "next": null}));
    let closed = client.delete("/rooms/1").await.expect(200);
    assert_eq!(closed, json!({"id": 1, "closed": true}));
    client
        .get("/rooms/1")
        .await
        .refuses(404, "notFound", "there is no room 1");
    client
        .delete("/rooms/1")
        .await
        .refuses(404, "notFound", "there is no room 1");
    assert_eq!(ids(&client.get("/rooms").await.expect(200)), [] as [u64; 0]);
    control.close().await;
}

#[tokio::test]
async fn a_room_goes_to_the_worker_that_is_asked_for() {
    let control = Control::start().await;
    let mut client = control.client().await;
    for worker in [2, 2, 1] {
        let room = client.post("/rooms", json!({"worker": worker})).await.expect(201);
        assert_eq!(room["worker"], worker);
    }
    client
        .post("/rooms", json!({"worker": 9}))
        .await
        .refuses(404, "notFound", "worker 9");
    control.close().await;
}

#[tokio::test]
async fn a_transport_lives_and_ends() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let created = client
        .post(&format!("/rooms/{room}/transports"), json!({"appData": 7}))
        .await;
    assert_eq!(created.headers["location"], "/transports/1");
    let transport = created.expect(201);
    assert_eq!(transport["room"], room);
    assert_eq!(transport["tuple"]["localIp"], "127.0.0.1");
    assert_eq!(transport["tuple"]["remote"], Value::Null);
    assert_eq!(transport["rtcpTuple"], Value::Null);
    assert_eq!(transport["appData"], 7);
    assert!(transport["tuple"]["localPort"].as_u64().unwrap() >= 10_000);
    assert_eq!(client.get("/transports/1").await.expect(200), transport);

    let connected = client
        .put("/transports/1/remote", json!({"rtp": "127.0.0.1:9"}))
        .await
        .expect(200);
    assert_eq!(connected["tuple"]["remote"], "127.0.0.1:9");
    assert_eq!(client.get("/transports/1").await.expect(200), connected);

    let stats = client.get("/transports/1/stats").await.expect(200);
    assert_eq!((&stats["transport"], &stats["packetsReceived"]), (&json!(1), &json!(0)));
    assert_eq!(stats["remote"]["rtp"], "127.0.0.1:9");

    let options = json!({"rtcpMux": false, "remote": {"rtp": "127.0.0.1:4000"}});
    let separate = client
        .post(&format!("/rooms/{room}/transports"), options)
        .await
        .expect(201);
    assert_eq!(separate["rtcpTuple"]["remote"], "127.0.0.1:4001");

    assert_eq!(ids(&client.get("/transports").await.expect(200)), [1, 2]);
    client.delete("/transports/1").await.expect(200);
    assert_eq!(
        ids(&client.get(&format!("/transports?room={room}")).await.expect(200)),
        [2]
    );
    control.close().await;
}

#[tokio::test]
async fn a_producer_lives_and_ends() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let transport = client.transport(room).await;
    let created = client
        .post(&format!("/transports/{transport}/producers"), camera())
        .await;
    assert_eq!(created.headers["location"], "/producers/1");
    let producer = created.expect(201);
    assert_eq!(
        producer["rtpParameters"]["encodings"],
        camera()["rtpParameters"]["encodings"]
    );
    assert_eq!(client.get("/producers/1").await.expect(200), producer);
    let listed = client.get("/producers").await.expect(200);
    assert!(listed["items"][0].get("rtpParameters").is_none(), "lists are short");

    let paused = client
        .post("/producers/1/pause", json!({"appData": "lunch"}))
        .await
        .expect(200);
    assert_eq!((&paused["id"], &paused["paused"]), (&json!(1), &json!(true)));
    // Pausing what is paused is fine, and a command needs no body.
    assert_eq!(
        client.send("POST", "/producers/1/pause", None).await.expect(200),
        paused
    );
    let resumed = client.send("POST", "/producers/1/resume", None).await.expect(200);
    assert_eq!(resumed["paused"], false);

    let preferring = client
        .put("/producers/1/preferred-profile", json!({"profile": "low"}))
        .await
        .expect(200);
    assert_eq!(preferring["preferredProfile"], "low");

    let stats = client.get("/producers/1/stats").await.expect(200);
    assert_eq!((&stats["producer"], &stats["paused"]), (&json!(1), &json!(false)));

    client
        .send("DELETE", "/producers/1", Some(json!({"appData": 1})))
        .await
        .expect(200);
    client.get("/producers/1").await.refuses(404, "notFound", "producer 1");
    control.close().await;
}

#[tokio::test]
async fn a_consumer_lives_and_ends() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let (up, down) = (client.transport(room).await, client.transport(room).await);
    let producer = client.camera(up).await;
    client
        .send("POST", &format!("/producers/{producer}/pause"), None)
        .await
        .expect(200);
    let body = json!({"producer": producer, "paused": true, "preferredProfile": "medium", "appData": [1],
        "rtp": {"ssrc": 77, "payloadTypes": {"96": 100}}});
    let created = client.post(&format!("/transports/{down}/consumers"), body).await;
    assert_eq!(created.headers["location"], "/consumers/1");
    let consumer = created.expect(201);
    assert_eq!(
        (&consumer["paused"], &consumer["sourcePaused"]),
        (&json!(true), &json!(true))
    );
    assert_eq!(consumer["preferredProfile"], "medium");
    assert_eq!(consumer["effectiveProfile"], Value::Null);
    assert_eq!(consumer["rtpParameters"]["codecs"][0]["payloadType"], 100);
    assert_eq!(consumer["rtpParameters"]["encodings"], json!([{"ssrc": 77}]));
    assert_eq!(client.get("/consumers/1").await.expect(200), consumer);

    let resumed = client
        .post("/consumers/1/resume", json!({"appData": 1}))
        .await
        .expect(200);
    assert_eq!(
        (&resumed["paused"], &resumed["sourcePaused"]),
        (&json!(false), &json!(true))
    );
    client
        .send("POST", &format!("/producers/{producer}/resume"), None)
        .await
        .expect(200);
    let paused = client.send("POST", "/consumers/1/pause", None).await.expect(200);
    assert_eq!(
        (&paused["paused"], &paused["sourcePaused"]),
        (&json!(true), &json!(false))
    );

    let capped = client
        .put("/consumers/1/preferred-profile", json!({"profile": "low"}))
        .await
        .expect(200);
    assert_eq!(capped["preferredProfile"], "low");
    assert_eq!(
        client.send("POST", "/consumers/1/key-frame", None).await.expect(200)["id"],
        1
    );
    let stats = client.get("/consumers/1/stats").await.expect(200);
    assert_eq!(
        (&stats["consumer"], &stats["packetsIn"], &stats["dropped"]),
        (&json!(1), &json!(0), &json!({}))
    );

    client.delete(&format!("/producers/{producer}")).await.expect(200);
    client.get("/consumers/1").await.refuses(404, "notFound", "consumer 1");
    control.close().await;
}

#[tokio::test]
async fn what_one_side_has_paused_the_other_does_not_resume() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let (up, down) = (client.transport(room).await, client.transport(room).await);
    let producer = client.camera(up).await;
    let consumer = client.consumer(down, producer).await;
    for target in [format!("/producers/{producer}"), format!("/consumers/{consumer}")] {
        let mut say = async |verb: &str, body: Value| {
            let view = client.post(&format!("{target}/{verb}"), body).await.expect(200);
            ["paused", "locallyPaused", "remotelyPaused"].map(|name| view[name].as_bool().unwrap())
        };
        assert_eq!(
            say("pause", json!({"side": "remote", "appData": 1})).await,
            [true, false, true]
        );
        assert_eq!(say("resume", json!({})).await, [true, false, true]);
        assert_eq!(say("pause", json!({"side": "local"})).await, [true, true, true]);
        assert_eq!(say("resume", json!({"side": "remote"})).await, [true, true, false]);
        assert_eq!(say("resume", json!({"side": "local"})).await, [false, false, false]);
        let neither = client.post(&format!("{target}/pause"), json!({"side": "source"})).await;
        neither.refuses(400, "invalidBody", "side");
    }
    let told = client
        .get("/events/recent?kind=producerPaused,producerResumed")
        .await
        .expect(200);
    let told: Vec<_> = told["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["originator"].clone())
        .collect();
    assert_eq!(told.first(), Some(&json!("remote")));
    control.close().await;
}

#[tokio::test]
async fn a_room_is_measured_and_dumped() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let (up, down) = (client.transport(room).await, client.transport(room).await);
    let producer = client.camera(up).await;
    let consumer = client.consumer(down, producer).await;
    let counts = client.get(&format!("/rooms/{room}")).await.expect(200);
    assert_eq!(
        (&counts["transports"], &counts["producers"], &counts["consumers"]),
        (&json!(2), &json!(1), &json!(1))
    );
    let stats = client.get(&format!("/rooms/{room}/stats")).await.expect(200);
    assert_eq!(stats["transports"].as_array().unwrap().len(), 2);
    assert_eq!(stats["producers"][0]["producer"], producer);
    assert_eq!(stats["consumers"][0]["consumer"], consumer);
    assert_eq!(stats["consumers"][0]["packetsForwarded"], 0);
    let dump = client.get(&format!("/rooms/{room}/dump")).await.expect(200);
    assert_eq!(dump["transports"].as_array().unwrap().len(), 2);
    assert_eq!(dump["producers"][0]["consumers"], json!([consumer]));
    assert_eq!(dump["consumers"][0]["syncRequired"], true);
    for (what, id, index) in [
        ("transport", down, 1),
        ("producer", producer, 0),
        ("consumer", consumer, 0),
    ] {
        let one = client.get(&format!("/{what}s/{id}/dump")).await.expect(200);
        assert_eq!(one[what], id);
        assert_eq!(one, dump[format!("{what}s")][index]);
        client
            .get(&format!("/{what}s/77/dump"))
            .await
            .refuses(404, "notFound", "77");
    }
    control.close().await;
}

#[tokio::test]
async fn workers_are_listed_and_measured() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let workers = client.get("/workers").await.expect(200);
    assert_eq!(ids(&workers), [1, 2]);
    assert_eq!(workers["items"][0]["state"]["name"], "running");
    assert!(workers["items"][0]["pid"].as_u64().unwrap() > 0);
    assert_eq!(client.get("/workers/2").await.expect(200)["id"], 2);
    client.get("/workers/3").await.refuses(404, "notFound", "worker 3");
    client.post("/rooms", json!({"worker": 2})).await.expect(201);
    assert_eq!(client.get("/workers/2/stats").await.expect(200)["rooms"], 1);
    client
        .get("/workers/3/stats")
        .await
        .refuses(404, "notFound", "worker 3");
    let stats = client.get("/stats").await.expect(200);
    assert_eq!(stats["total"]["rooms"], 1);
    assert_eq!(stats["workers"][1]["stats"]["rooms"], 1);
    assert_eq!(
        client.get("/health").await.expect(200),
        json!({"status": "ok", "reasons": []})
    );
    assert_eq!(client.get("/").await.expect(200)["name"], "weir");
    control.close().await;
}

#[tokio::test]
async fn the_log_level_changes_here_and_in_the_workers() {
    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let options = ControlOptions {
        on_log_settings: Some(std::sync::Arc::new(move |settings| {
            told.send(settings.clone()).unwrap()
        })),
        ..ControlOptions::default()
    };
    let control = Control::start_with(control::settings(1), Limits::default(), options).await;
    let mut client = control.client().await;
    assert_eq!(client.get("/settings").await.expect(200)["logLevel"], "warn");
    let update = json!({"logLevel": "debug", "logTags": ["relay"]});
    let settings = client.send("PATCH", "/settings", Some(update)).await.expect(200);
    assert_eq!(
        (&settings["logLevel"], &settings["logTags"]),
        (&json!("debug"), &json!(["relay"]))
    );
    assert_eq!(settings["rtcIpv4"], "127.0.0.1");
    let heard = hears.try_recv().unwrap();
    assert_eq!(
        (heard.level, heard.tags),
        (weir::LogLevel::Debug, vec![weir::LogTag::Relay])
    );
    assert_eq!(client.get("/settings").await.expect(200), settings);
    control.close().await;
}

#[tokio::test]
async fn coalescing_changes_in_the_workers() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let change = json!({"coalescingUsMax": 50, "measureResidence": true});
    let settings = client.send("PATCH", "/settings", Some(change)).await.expect(200);
    assert_eq!(
        (&settings["coalescingUsMax"], &settings["measureResidence"]),
        (&json!(50), &json!(true))
    );
    let settings = client
        .send("PATCH", "/settings", Some(json!({"measureResidence": false})))
        .await
        .expect(200);
    assert_eq!(
        (&settings["coalescingUsMax"], &settings["measureResidence"]),
        (&json!(50), &json!(false))
    );
    let change = json!({"coalescingUsMax": 1001, "logLevel": "trace"});
    client
        .send("PATCH", "/settings", Some(change))
        .await
        .refuses(400, "invalidParameters", "at most 1000");
    assert_eq!(
        client.get("/settings").await.expect(200),
        settings,
        "nothing has changed"
    );
    control.close().await;
}

#[tokio::test]
async fn lists_are_filtered() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let room = client.room().await;
        let (up, down) = (client.transport(room).await, client.transport(room).await);
        let producers = [client.camera(up).await, client.camera(down).await];
        for producer in producers {
            consumers.push((room, down, producer, client.consumer(down, producer).await));
        }
    }
    let (room, down, producer, consumer) = consumers[2];
    let check = async |client: &mut control::Client, target: String, expected: Vec<u64>| {
        assert_eq!(ids(&client.get(&target).await.expect(200)), expected, "{target}");
    };
    check(&mut client, "/consumers".to_owned(), vec![1, 2, 3, 4]).await;
    check(&mut client, format!("/consumers?room={room}"), vec![3, 4]).await;
    check(&mut client, format!("/consumers?transport={down}"), vec![3, 4]).await;
    check(&mut client, format!("/consumers?producer={producer}"), vec![consumer]).await;
    check(&mut client, format!("/consumers?room=1&producer={producer}"), vec![]).await;
    check(&mut client, format!("/producers?transport={down}"), vec![4]).await;
    check(&mut client, format!("/producers?room={room}&limit=1"), vec![3]).await;
    client.get("/consumers?room=9").await.refuses(404, "notFound", "room 9");
    client.get("/rooms?room=1").await.refuses(400, "invalidQuery", "room");
    client
        .get("/producers?producer=1")
        .await
        .refuses(400, "invalidQuery", "producer");
    control.close().await;
}

#[tokio::test]
async fn five_thousand_consumers_are_listed_and_measured() {
    const CONSUMERS: u64 = 5_000;
    let control = Control::start_with(control::settings(1), Limits::default(), ControlOptions::default()).await;
    let mut client = control.client().await;
    let room = client.room().await;
    let (up, down) = (client.transport(room).await, client.transport(room).await);
    let producer = client.camera(up).await;
    for _ in 0..CONSUMERS {
        client.consumer(down, producer).await;
    }
    let (mut seen, mut after) = (Vec::new(), 0);
    loop {
        let part = client
            .get(&format!("/consumers?limit={LIST_MAX}&after={after}"))
            .await
            .expect(200);
        seen.extend(ids(&part));
        match part["next"].as_u64() {
            Some(next) => after = next,
            None => break,
        }
    }
    assert_eq!(seen, (1..=CONSUMERS).collect::<Vec<_>>());
    let stats = client.get(&format!("/rooms/{room}/stats")).await.expect(200);
    assert_eq!(stats["consumers"].as_array().unwrap().len() as u64, CONSUMERS);
    let dump = client.get(&format!("/rooms/{room}/dump")).await.expect(200);
    assert_eq!(dump["consumers"].as_array().unwrap().len() as u64, CONSUMERS);
    control.close().await;
}

/// Gear that is no browser: any codec, and no SSRC where the transport is a plain one.
#[tokio::test]
async fn a_producer_of_any_codec_may_leave_its_ssrc_out() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let transport = client.transport(room).await;
    let gear = |mime_type: &str, payload_type: u8, clock_rate: u32| {
        let kind = mime_type.split('/').next().unwrap().to_owned();
        let codec = json!({"mimeType": mime_type, "payloadType": payload_type, "clockRate": clock_rate});
        json!({"kind": kind, "rtpParameters": {"codecs": [codec], "encodings": [{}]}})
    };
    let producers = format!("/transports/{transport}/producers");
    for (mime_type, payload_type, clock_rate) in [("video/MP2T", 33, 90_000), ("audio/G729", 18, 8_000)] {
        let made = client
            .post(&producers, gear(mime_type, payload_type, clock_rate))
            .await
            .expect(201);
        let parameters = &made["rtpParameters"];
        assert_eq!(parameters["codecs"][0]["mimeType"], mime_type);
        assert_eq!(parameters["encodings"], json!([{}]));
    }
    let stats = client.get("/producers/1/stats").await.expect(200);
    assert_eq!(stats["streams"][0]["ssrcChanges"], 0);
    client.post(&producers, gear("video/JPEG", 33, 90_000)).await.refuses(
        400,
        "invalidParameters",
        "payload type 33 is of producer 1 too",
    );
    client.post(&producers, gear("video/JPEG", 26, 0)).await.refuses(
        400,
        "invalidParameters",
        "the clockRate of video/JPEG cannot be 0",
    );
    client.post(&producers, gear("video/J PEG", 26, 90_000)).await.refuses(
        400,
        "invalidParameters",
        "cannot be the name of a codec",
    );
    let webrtc = client
        .post(&format!("/rooms/{room}/webrtc-transports"), json!({}))
        .await
        .expect(201);
    client
        .post(
            &format!("/transports/{}/producers", webrtc["id"]),
            gear("audio/G729", 18, 8_000),
        )
        .await
        .refuses(400, "invalidParameters", "an encoding needs an ssrc or an encodingId");
    control.close().await;
}
