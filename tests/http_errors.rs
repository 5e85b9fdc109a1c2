//! Refusals: each class with its status, its code and a message that helps, and nothing that makes the server fall over.

mod control;
mod loopback;

use control::{Control, camera, settings, soon};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weir::Settings;
use weir::http::{BODY_BYTES_MAX, ControlOptions, Limits};

const JSON: (&str, &str) = ("content-type", "application/json");

#[tokio::test]
async fn what_does_not_exist_is_refused_by_name() {
    let control = Control::start().await;
    let mut client = control.client().await;
    for noun in ["room", "transport", "producer", "consumer", "worker"] {
        let message = format!("there is no {noun} 99");
        client
            .get(&format!("/{noun}s/99"))
            .await
            .refuses(404, "notFound", &message);
    }
    for (method, target) in [
        ("DELETE", "/rooms/99"),
        ("GET", "/rooms/99/stats"),
        ("GET", "/rooms/99/dump"),
        ("POST", "/rooms/99/transports"),
        ("DELETE", "/transports/99"),
        ("GET", "/transports/99/stats"),
        ("DELETE", "/producers/99"),
        ("POST", "/producers/99/pause"),
        ("POST", "/producers/99/resume"),
        ("GET", "/producers/99/stats"),
        ("DELETE", "/consumers/99"),
        ("POST", "/consumers/99/pause"),
        ("POST", "/consumers/99/resume"),
        ("POST", "/consumers/99/key-frame"),
        ("GET", "/consumers/99/stats"),
        ("GET", "/workers/99/stats"),
    ] {
        client.send(method, target, None).await.refuses(404, "notFound", "99");
    }
    let profile = json!({"profile": "low"});
    client
        .put("/producers/99/preferred-profile", profile.clone())
        .await
        .refuses(404, "notFound", "producer 99");
    client
        .put("/consumers/99/preferred-profile", profile)
        .await
        .refuses(404, "notFound", "consumer 99");
    client
        .put("/transports/99/remote", json!({"rtp": "127.0.0.1:9"}))
        .await
        .refuses(404, "notFound", "transport 99");
    client
        .post("/transports/99/producers", camera())
        .await
        .refuses(404, "notFound", "transport 99");
    client
        .post("/transports/99/consumers", json!({"producer": 1}))
        .await
        .refuses(404, "notFound", "transport 99");
    let room = client.room().await;
    let transport = client.transport(room).await;
    let consumer = json!({"producer": 99});
    client
        .post(&format!("/transports/{transport}/consumers"), consumer)
        .await
        .refuses(404, "notFound", "producer 99");
    control.close().await;
}

#[tokio::test]
async fn a_body_is_read_before_its_object_is_looked_for() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let long = format!("{}{{}}", " ".repeat(200_000));
    let refused = client.say("POST", "/rooms/99/transports", &[JSON], long).await;
    refused.refuses(404, "notFound", "room 99");
    // The connection goes on.
    let room = client.room().await;

    // What is closed while a body is on its way is not closed again.
    let mut slow = control.raw().await;
    let head = format!(
        "DELETE /rooms/{room} HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
         expect: 100-continue\r\nconnection: close\r\n\r\n"
    );
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut proceed = [0; 25];
    soon("the request for the body", slow.read_exact(&mut proceed))
        .await
        .unwrap();
    assert_eq!(&proceed, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.delete(&format!("/rooms/{room}")).await.expect(200);
    slow.write_all(b"{}").await.unwrap();
    let mut answer = String::new();
    soon("the answer", slow.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    control.close().await;
}

#[tokio::test]
async fn routes_and_methods_that_do_not_exist_are_refused_in_json() {
    let control = Control::start().await;
    let mut client = control.client().await;
    for target in ["/room", "/rooms/", "/rooms/1/2/3", "/producers/1/explode", "/%00", "//"] {
        client
            .get(target)
            .await
            .refuses(404, "unknownRoute", "there is no route");
    }
    client
        .get(&format!("/{}", "x".repeat(5_000)))
        .await
        .refuses(404, "unknownRoute", "xxx");
    for (method, target, allowed) in [
        ("PUT", "/rooms", "GET,HEAD,POST"),
        ("POST", "/rooms/1", "GET,HEAD,DELETE"),
        ("GET", "/producers/1/pause", "POST"),
        ("DELETE", "/settings", "GET,HEAD,PATCH"),
        ("BREW", "/health", "GET,HEAD"),
    ] {
        let answer = client.send(method, target, None).await;
        answer.refuses(405, "methodNotAllowed", method);
        assert_eq!(answer.headers["allow"], allowed, "{target}");
    }
    let head = client.send("HEAD", "/health", None).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
    control.close().await;
}

#[tokio::test]
async fn ids_that_are_none_are_refused() {
    let control = Control::start().await;
    let mut client = control.client().await;
    for id in [
        "x",
        "-1",
        "1.5",
        "18446744073709551616",
        "%F0%9F%92%A9",
        "1%2F2",
        "%20",
        "0x1",
    ] {
        for noun in ["rooms", "transports", "producers", "consumers", "workers"] {
            client
                .get(&format!("/{noun}/{id}"))
                .await
                .refuses(400, "invalidId", "is not an id");
        }
    }
    // Not UTF-8.
    client.get("/rooms/%FF").await.refuses(400, "invalidRequest", "");
    control.close().await;
}

#[tokio::test]
async fn bodies_are_refused_with_the_place_of_the_fault() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let transport = client.transport(room).await;
    client.camera(transport).await;
    let transports = format!("/rooms/{room}/transports");
    let producers = format!("/transports/{transport}/producers");
    let consumers = format!("/transports/{transport}/consumers");
    for (target, body, code, says) in [
        ("/rooms", "{\"appDate\":1}", "invalidBody", "unknown field `appDate`"),
        (
            "/rooms",
            "{\"worker\":\"one\"}",
            "invalidBody",
            "worker: invalid type: string",
        ),
        ("/rooms", "{", "malformedJson", "line 1 column 1"),
        ("/rooms", "\u{0}", "malformedJson", "line 1 column 1"),
        ("/rooms", "[]", "invalidBody", "JSON object"),
        ("/rooms", "null", "invalidBody", "line 1 column 4"),
        (
            &transports,
            "{\n\"comedia\": 1}",
            "invalidBody",
            "comedia: invalid type: integer `1`",
        ),
        (
            &transports,
            "{\"remote\":{\"rtp\":\"localhost:1\"}}",
            "invalidBody",
            "remote.rtp: invalid socket address",
        ),
        (
            &transports,
            "{\"remote\":{\"rtp\":\"127.0.0.1:1\",\"rtpc\":1}}",
            "invalidBody",
            "unknown field `rtpc`",
        ),
        (&producers, "{}", "invalidBody", "missing field `kind`"),
        (
            &producers,
            "{\"kind\":\"smell\"}",
            "invalidBody",
            "kind: unknown variant `smell`",
        ),
        (
            &producers,
            "{\"kind\":\"audio\",\"rtpParameters\":{\"codecs\":[{\"mimeType\":\"audio/opus\",\"payloadType\":256}]}}",
            "invalidBody",
            "rtpParameters.codecs[0].payloadType: invalid value: integer `256`",
        ),
        (
            &consumers,
            "{\"producer\":1,\"rtp\":{\"payloadTypes\":{\"x\":1}}}",
            "invalidBody",
            "rtp.payloadTypes",
        ),
        (&consumers, "{}", "invalidBody", "missing field `producer`"),
    ] {
        client.say("POST", target, &[JSON], body).await.refuses(400, code, says);
    }
    for (target, body, says) in [
        (
            "/producers/1/preferred-profile",
            "{\"profile\":\"none\"}",
            "unknown variant `none`",
        ),
        ("/producers/1/preferred-profile", "", "missing field `profile`"),
        (
            "/transports/1/remote",
            "{\"rtp\":\"127.0.0.1:1\",\"x\":1}",
            "unknown field `x`",
        ),
    ] {
        client
            .say("PUT", target, &[JSON], body)
            .await
            .refuses(400, "invalidBody", says);
    }
    let update = json!({"logLevel": "chatty"});
    client
        .send("PATCH", "/settings", Some(update))
        .await
        .refuses(400, "invalidBody", "chatty");
    client
        .say("POST", "/rooms", &[], "{}")
        .await
        .refuses(415, "unsupportedMediaType", "application/json");
    let form = ("content-type", "application/x-www-form-urlencoded");
    client
        .say("POST", "/rooms", &[form], "{}")
        .await
        .refuses(415, "unsupportedMediaType", "application/json");
    let charset = ("content-type", "Application/JSON; charset=utf-8");
    client.say("POST", "/rooms", &[charset], "{}").await.expect(201);
    control.close().await;
}

#[tokio::test]
async fn bodies_have_a_limit() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let body = |length: usize| {
        let frame = json!({"appData": ""}).to_string().len();
        json!({"appData": "x".repeat(length - frame)}).to_string()
    };
    client
        .say("POST", "/rooms", &[JSON], body(BODY_BYTES_MAX))
        .await
        .expect(201);
    let mut client = control.client().await;
    client
        .say("POST", "/rooms", &[JSON], body(BODY_BYTES_MAX + 1))
        .await
        .refuses(413, "bodyTooLarge", "256 KiB");
    // One that is announced as far too large is refused before it is sent.
    let mut client = control.client().await;
    client
        .say("POST", "/rooms", &[JSON], "x".repeat(16 * 1024 * 1024))
        .await
        .refuses(413, "bodyTooLarge", "256 KiB");
    control.close().await;
}

#[tokio::test]
async fn queries_are_refused_with_the_fault() {
    let control = Control::start().await;
    let mut client = control.client().await;
    for (target, says) in [
        ("/rooms?colour=red", "unknown field `colour`"),
        ("/rooms?limit=many", "invalid digit"),
        ("/rooms?limit=-1", "invalid digit"),
        ("/consumers?room=", "empty string"),
        ("/events?kind=producerPause", "\"producerPause\" is no type of event"),
        ("/events?kind=", "is no type of event"),
        ("/events?after=yesterday", "an event id looks like"),
        ("/events?limit=1", "/events/recent"),
        ("/events/recent?after=1", "an event id looks like"),
        ("/events/recent?room=x", "invalid digit"),
    ] {
        client.get(target).await.refuses(400, "invalidQuery", says);
    }
    control.close().await;
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let other_room = client.room().await;
    let transport = client.transport(room).await;
    let foreign = client.transport(other_room).await;
    let producer = client.camera(transport).await;
    let transports = format!("/rooms/{room}/transports");
    for (target, body, says) in [
        (
            &transports,
            json!({"comedia": true, "remote": {"rtp": "127.0.0.1:1"}}),
            "comedia",
        ),
        (
            &transports,
            json!({"remote": {"rtp": "127.0.0.1:1", "rtcp": "127.0.0.1:2"}}),
            "muxes RTCP",
        ),
        (&transports, json!({"remote": {"rtp": "[::1]:1"}}), "IPv6"),
        (&transports, json!({"localIp": "0.0.0.0"}), "wildcard"),
        // RFC 4007 §6: a link-local address alone says nothing of where it is.
        (&transports, json!({"localIp": "fe80::1"}), "link-local"),
        (
            &transports,
            json!({"localIp": "::1", "remote": {"rtp": "[fe80::1]:5004"}}),
            "fe80::1%eth0",
        ),
        (&transports, json!({"localPort": 99}), "one of rtc_ports"),
        (
            &transports,
            json!({"localPort": 65_535, "rtcpMux": false}),
            "one of rtc_ports",
        ),
        (&transports, json!({"localPort": 20_001, "rtcpMux": false}), "odd"),
        (
            &format!("/transports/{foreign}/consumers"),
            json!({"producer": producer}),
            "room",
        ),
    ] {
        client.post(target, body).await.refuses(400, "invalidParameters", says);
    }
    let mut colliding = camera();
    colliding["rtpParameters"]["codecs"][0]["payloadType"] = json!(70);
    let producers = format!("/transports/{transport}/producers");
    client
        .post(&producers, colliding)
        .await
        .refuses(400, "invalidParameters", "RTCP");
    // The same SSRCs on the same transport.
    client
        .post(&producers, camera())
        .await
        .refuses(409, "conflict", "SSRC 1111 is in use");
    client
        .put(&format!("/transports/{transport}/remote"), json!({"rtp": "0.0.0.0:1"}))
        .await
        .refuses(400, "invalidParameters", "0.0.0.0:1");
    control.close().await;
}

#[tokio::test]
async fn a_worker_that_hangs_or_dies_is_told_apart() {
    let settings = Settings {
        request_timeout: Duration::from_millis(200),
        ..settings(1)
    };
    let control = Control::start_with(settings, Limits::default(), ControlOptions::default()).await;
    let mut client = control.client().await;
    let room = client.room().await;
    let pid = client.get("/workers/1").await.expect(200)["pid"].as_i64().unwrap();
    let pid = Pid::from_raw(pid.try_into().unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    client
        .get(&format!("/rooms/{room}/stats"))
        .await
        .refuses(504, "timeout", "did not answer within");
    let stats = client.get("/stats").await.expect(200);
    assert_eq!(stats["workers"][0]["error"]["code"], "timeout");

    let mut events = control.server.events();
    let waiting = tokio::spawn(async move { client.get(&format!("/rooms/{room}/stats")).await });
    kill(pid, Signal::SIGKILL).unwrap();
    let answer = soon("an answer", waiting).await.unwrap();
    // The request may have timed out before a successor could answer it.
    assert!([200, 504].contains(&answer.status), "{}", answer.text);
    soon("the worker's successor", async {
        while let Some(event) = events.next().await {
            if matches!(event.kind, weir::EventKind::WorkerRestored { .. }) {
                return;
            }
        }
    })
    .await;
    let mut client = control.client().await;
    client.get(&format!("/rooms/{room}/stats")).await.expect(200);
    control.close().await;
}

#[tokio::test]
async fn a_closed_server_says_so() {
    let control = Control::start().await;
    let mut client = control.client().await;
    soon("the server's end", control.server.close()).await;
    let health = client.get("/health").await.expect(503);
    assert_eq!(health["status"], "down");
    client
        .post("/rooms", json!({}))
        .await
        .refuses(409, "invalidState", "the server is closed");
    control.close().await;
}

#[tokio::test]
async fn nonsense_never_stops_the_server() {
    let control = Control::start().await;
    let mut seed = 0x5eed_u64;
    let mut random = move || {
        // xorshift64, for the same nonsense in each run.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let targets = [
        "/rooms",
        "/rooms/1/transports",
        "/transports/1/producers",
        "/transports/1/consumers",
        "/settings",
    ];
    let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"];
    let mut client = control.client().await;
    for _ in 0..500 {
        let target = targets[random() as usize % targets.len()];
        let method = methods[random() as usize % methods.len()];
        let mut body = camera().to_string().into_bytes();
        for _ in 0..random() % 8 {
            let at = random() as usize % body.len();
            body[at] = random() as u8;
        }
        let answer = client.say(method, target, &[JSON], body).await;
        assert_ne!(answer.body, Value::Null, "{method} {target}: {}", answer.text);
        assert!(answer.status < 500, "{method} {target}: {}", answer.text);
    }
    client.get("/health").await.expect(200);
    control.close().await;
}
