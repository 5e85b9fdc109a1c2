//! WebRTC transports by HTTP alone: an application in any language, with signalling of its own, brings browsers together; and
//! what it must not say is refused.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod browser;
mod control;
mod loopback;

use browser::{Begins, Browser};
use control::{Client, Control, settings, soon};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use weir::Settings;
use weir::http::{BODY_BYTES_MAX, ControlOptions, Limits};

const JSON: (&str, &str) = ("content-type", "application/json");

/// The SSRC of the sender.
const SSRC: u32 = 1_000;

/// Opus, as the sender has it.
const THEIRS: u8 = 111;

/// The SSRC of the receiver's consumer.
const CONSUMER: u32 = 7_777;

/// Opus, as the receiver has it.
const RECEIVERS: u8 = 100;

/// Makes a transport in a room, or wherever the target says.
async fn create(client: &mut Client, target: &str, options: Value) -> Value {
    let answer = client.post(target, options).await;
    let place = answer.headers.get("location").cloned();
    let transport = answer.expect(201);
    assert_eq!(place.unwrap(), format!("/transports/{}", transport["id"]).as_str());
    transport
}

/// What a client must be told of a transport, under the names that the mediasoup protocol has for it.
fn introduction(transport: &Value) -> Value {
    let webrtc = &transport["webrtc"];
    json!({
        "iceParameters": webrtc["iceParameters"],
        "iceCandidates": webrtc["iceCandidates"],
        "dtlsParameters": webrtc["dtlsLocalParameters"],
    })
}

/// Tells a transport who its client is, and returns the transport.
async fn introduce(client: &mut Client, transport: &Value, dtls: Value) -> Value {
    let target = format!("/transports/{}/dtls", transport["id"]);
    client.put(&target, dtls).await.expect(200)
}

fn microphone() -> Value {
    json!({
        "kind": "audio",
        "rtpParameters": {
            "codecs": [{"mimeType": "audio/opus", "payloadType": THEIRS, "clockRate": 48000, "channels": 2}],
            "encodings": [{"ssrc": SSRC}],
        },
    })
}

/// What a stream of events tells from now on.
async fn follow(control: &Control, query: &str) -> UnboundedReceiver<Value> {
    let mut client = control.client().await;
    let response = client.begin("GET", &format!("/events?{query}"), &[], "").await;
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    let (sender, receiver) = unbounded_channel();
    let mut text = String::new();
    // The stream has begun when its first comment has come.
    while !text.contains("following") {
        text += &part(&mut body).await.unwrap();
    }
    tokio::spawn(async move {
        let _client = client;
        while let Some(more) = part(&mut body).await {
            text += &more;
            while let Some((event, rest)) = text.split_once("\n\n") {
                let member = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
                if let Some(data) = member("data: ") {
                    let data: Value = serde_json::from_str(data).unwrap();
                    assert_eq!(data["type"], member("event: ").unwrap());
                    sender.send(data).unwrap();
                }
                text = rest.to_owned();
            }
        }
    });
    receiver
}

async fn part(body: &mut Incoming) -> Option<String> {
    let frame = body.frame().await?.ok()?;
    frame
        .into_data()
        .ok()
        .map(|data| String::from_utf8(data.to_vec()).unwrap())
}

/// Lets a browser do one thing: take a datagram, or notice what time it is.
async fn turn(browser: &mut Browser) {
    let mut done = false;
    browser
        .run_until("its turn", |_| std::mem::replace(&mut done, true))
        .await;
}

/// Lets both do what they have to do until the second has got a packet.
async fn heard(sending: &mut Browser, receiving: &mut Browser) {
    let both = async {
        while receiving.packets.is_empty() {
            turn(sending).await;
            turn(receiving).await;
        }
    };
    soon("the packet", both).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn media_goes_from_one_browser_to_another_and_http_is_all_that_was_said() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let kinds = "iceStateChanged,iceSelectedTupleChanged,dtlsStateChanged";
    let mut told = follow(&control, &format!("room={room}&kind={kinds}")).await;
    let target = format!("/rooms/{room}/webrtc-transports");

    // One side says who it is when it is told of its transport, the other one later; each begins the handshake once.
    let mut sending = Browser::new(Begins::There, THEIRS).await;
    let sends = create(&mut client, &target, json!({"appData": {"of": "alice"}})).await;
    assert_eq!((&sends["kind"], &sends["tuple"]), (&json!("webrtc"), &Value::Null));
    let sends = introduce(&mut client, &sends, sending.dtls_parameters()).await;
    assert_eq!(sends["webrtc"]["dtlsLocalParameters"]["role"], "client");
    sending.connect(&introduction(&sends));
    let mut receiving = Browser::new(Begins::Here, RECEIVERS).await;
    let receives = create(&mut client, &target, json!({"tcp": false})).await;
    receiving.connect(&introduction(&receives));
    turn(&mut receiving).await;
    let dtls = receiving.dtls_parameters();
    introduce(&mut client, &receives, dtls).await;

    let (sends, receives) = (
        format!("/transports/{}", sends["id"]),
        format!("/transports/{}", receives["id"]),
    );
    let producer = client
        .post(&format!("{sends}/producers"), microphone())
        .await
        .expect(201);
    let rtp = json!({"ssrc": CONSUMER, "payloadTypes": {"111": RECEIVERS}});
    let consumer = client
        .post(
            &format!("{receives}/consumers"),
            json!({"producer": producer["id"], "rtp": rtp}),
        )
        .await
        .expect(201);
    assert_eq!(consumer["transport"], 2);
    sending.declare_sent("0", SSRC);
    receiving.declare_received("0", CONSUMER);
    sending.run_until("the sender", |sending| sending.connected).await;
    receiving
        .run_until("the receiver", |receiving| receiving.connected)
        .await;

    // The stream of events has told it all, in an order that makes sense, when both are connected.
    let mut events: Vec<Value> = Vec::new();
    let is = |events: &[Value], transport: u64, kind: &str, state: &str| {
        let of = |event: &&Value| event["transport"] == transport && event["type"] == kind;
        events.iter().rfind(of).is_some_and(|event| event["state"] == state)
    };
    let connected = |events: &[Value], transport: u64| {
        is(events, transport, "dtlsStateChanged", "connected") && is(events, transport, "iceStateChanged", "completed")
    };
    soon("both connections", async {
        while !(1..=2).all(|transport| connected(&events, transport)) {
            turn(&mut sending).await;
            turn(&mut receiving).await;
            while let Ok(event) = told.try_recv() {
                events.push(event);
            }
        }
    })
    .await;
    for transport in 1..=2 {
        let own: Vec<&Value> = events.iter().filter(|event| event["transport"] == transport).collect();
        assert_eq!(own[0]["type"], "iceSelectedTupleChanged", "{own:?}");
        assert_eq!(own[0]["tuple"]["protocol"], "udp");
        assert_eq!(own[0]["room"], room);
        let states: Vec<&Value> = own
            .iter()
            .filter(|event| event["type"] == "dtlsStateChanged")
            .map(|event| &event["state"])
            .collect();
        assert_eq!(states, ["connecting", "connected"]);
        let dump = client.get(&format!("/transports/{transport}/dump")).await.expect(200);
        let webrtc = &dump["webrtc"];
        assert_eq!(
            (&webrtc["iceState"], &webrtc["dtlsState"]),
            (&json!("completed"), &json!("connected"))
        );
        assert_eq!(webrtc["iceRole"], "controlled");
        assert_eq!(
            dump["remote"]["rtp"],
            format!(
                "{}:{}",
                webrtc["iceSelectedTuple"]["remoteIP"].as_str().unwrap(),
                webrtc["iceSelectedTuple"]["remotePort"]
            )
        );
    }

    for seq in 1..=50_u8 {
        sending.send(SSRC, THEIRS, seq.into(), &[0xf8, 0xff, 0xfe, seq]);
        heard(&mut sending, &mut receiving).await;
        for packet in receiving.packets.drain(..) {
            assert_eq!(
                (*packet.header.ssrc, *packet.header.payload_type),
                (CONSUMER, RECEIVERS)
            );
            assert_eq!(packet.payload.last(), Some(&seq));
        }
    }

    // What is known of it afterwards.
    let shown = client.get(&sends).await.expect(200);
    let webrtc = &shown["webrtc"];
    assert_eq!(
        (&webrtc["iceRole"], &webrtc["iceState"], &webrtc["dtlsState"]),
        (&json!("controlled"), &json!("completed"), &json!("connected"))
    );
    let pem = webrtc["dtlsRemoteCert"].as_str().unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n"), "{pem}");
    let tuple = &webrtc["iceSelectedTuple"];
    assert_eq!(shown["tuple"]["localPort"], tuple["localPort"]);
    let remote = format!("{}:{}", tuple["remoteIP"].as_str().unwrap(), tuple["remotePort"]);
    assert_eq!(shown["tuple"]["remote"], remote.as_str());
    let stats = client.get(&format!("{receives}/stats")).await.expect(200);
    let webrtc = &stats["webrtc"];
    assert_eq!(
        (&webrtc["iceState"], &webrtc["dtlsState"], &webrtc["protectFailures"]),
        (&json!("completed"), &json!("connected"), &json!(0))
    );
    assert!(webrtc["srtpProfile"].as_str().unwrap().starts_with("AE"), "{webrtc}");
    assert!(webrtc["checks"].as_u64().unwrap() >= 1, "{webrtc}");
    assert!(webrtc["dtlsDatagrams"].as_u64().unwrap() >= 2, "{webrtc}");
    let shown = client.get(&receives).await.expect(200);
    assert_eq!(webrtc["iceSelectedTuple"], shown["webrtc"]["iceSelectedTuple"]);
    let all = client.get(&format!("/rooms/{room}/stats")).await.expect(200);
    let of_receiver = &all["transports"][1]["webrtc"];
    assert_eq!(of_receiver["iceSelectedTuple"], webrtc["iceSelectedTuple"]);
    let consumer = client.get("/consumers/1/stats").await.expect(200);
    assert_eq!(consumer["packetsForwarded"], 50);

    // New credentials do not disturb what flows, and the old ones are not shown any more.
    let restarted = client
        .send("POST", &format!("{sends}/ice-restart"), None)
        .await
        .expect(200);
    let shown = client.get(&sends).await.expect(200);
    assert_eq!(restarted, json!({"iceParameters": shown["webrtc"]["iceParameters"]}));
    sending.send(SSRC, THEIRS, 51, &[0xf8, 0xff, 0xfe, 51]);
    heard(&mut sending, &mut receiving).await;
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_speaks_for_peers_whose_clients_are_browsers() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let codecs =
        json!([{"kind": "audio", "name": "opus", "clockRate": 48000, "channels": 2, "preferredPayloadType": 100}]);
    let room = client.post("/rooms", json!({"mediaCodecs": codecs})).await.expect(201)["id"].clone();
    let capabilities = client.get(&format!("/rooms/{room}/rtp-capabilities")).await.expect(200);
    let mut browsers = Vec::new();
    for (name, direction, begins, opus) in [
        ("alice", "send", Begins::There, THEIRS),
        ("bob", "recv", Begins::Here, RECEIVERS),
    ] {
        let peer = json!({"name": name, "rtpCapabilities": capabilities});
        client.post(&format!("/rooms/{room}/peers"), peer).await.expect(201);
        let target = format!("/rooms/{room}/peers/{name}/webrtc-transports");
        let transport = create(&mut client, &target, json!({"direction": direction})).await;
        let mut browser = Browser::new(begins, opus).await;
        let transport = introduce(&mut client, &transport, browser.dtls_parameters()).await;
        browser.connect(&introduction(&transport));
        browsers.push(browser);
    }
    let [sending, receiving] = &mut browsers[..] else {
        panic!("two were made");
    };

    // What alice sends becomes a consumer of bob's by itself, which bob's browser is told of and which it takes.
    let producer = client.post("/transports/1/producers", microphone()).await.expect(201);
    assert_eq!(producer["peer"], "alice");
    let consumers = client
        .get(&format!("/consumers?room={room}&peer=bob"))
        .await
        .expect(200);
    let consumer = &consumers["items"][0]["id"];
    let enabled = client
        .post(&format!("/consumers/{consumer}/enable"), json!({"transport": 2}))
        .await
        .expect(200);
    assert_eq!((&enabled["enabled"], &enabled["transport"]), (&json!(true), &json!(2)));
    let shown = client.get(&format!("/consumers/{consumer}")).await.expect(200);
    let parameters = &shown["rtpParameters"];
    assert_eq!(parameters["codecs"][0]["payloadType"], RECEIVERS);
    let ssrc = u32::try_from(parameters["encodings"][0]["ssrc"].as_u64().unwrap()).unwrap();
    sending.declare_sent("0", SSRC);
    receiving.declare_received("0", ssrc);
    soon("both connections", async {
        while !(sending.connected && receiving.connected) {
            turn(sending).await;
            turn(receiving).await;
        }
    })
    .await;
    // The server knows bob when his first media is on its way; until then there is nowhere to send it.
    let mut seq = 0;
    soon("bob to hear alice", async {
        while receiving.packets.is_empty() {
            seq += 1;
            sending.send(SSRC, THEIRS, seq, &[0xf8, 0xff, 0xfe]);
            turn(sending).await;
            turn(receiving).await;
        }
    })
    .await;
    let packet = &receiving.packets[0];
    assert_eq!((*packet.header.ssrc, *packet.header.payload_type), (ssrc, RECEIVERS));
    let transport = client.get("/transports/2").await.expect(200);
    assert_eq!(
        (&transport["peer"], &transport["direction"]),
        (&json!("bob"), &json!("recv"))
    );
    assert_eq!(transport["webrtc"]["dtlsState"], "connected");
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_come_from_the_client_is_counted_by_its_reason() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let transport = create(&mut client, &format!("/rooms/{room}/webrtc-transports"), json!({})).await;
    let port = transport["webrtc"]["iceCandidates"][0]["port"].as_u64().unwrap();
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = format!("127.0.0.1:{port}");
    // RTP from somebody who was not found by ICE, and a binding request without any proof (RFC 8489 §5).
    let mut rtp = vec![0x80, 111, 0, 1];
    rtp.resize(40, 0);
    let mut check = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    check.resize(20, 7);
    for datagram in [rtp, check] {
        stranger.send_to(&datagram, &address).await.unwrap();
    }
    let stats = soon("both counters", async {
        loop {
            let stats = client.get("/transports/1/stats").await.expect(200);
            if stats["unrouted"].as_object().unwrap().len() == 2 {
                return stats;
            }
        }
    })
    .await;
    assert_eq!(stats["unrouted"]["badCheck"], 1, "{stats}");
    assert_eq!(stats["unrouted"]["foreignSource"], 1, "{stats}");
    let webrtc = &stats["webrtc"];
    assert_eq!((&webrtc["checks"], &webrtc["iceState"]), (&json!(0), &json!("new")));
    assert_eq!(
        (&webrtc["iceSelectedTuple"], &webrtc["srtpProfile"]),
        (&Value::Null, &Value::Null)
    );
    control.close().await;
}

#[tokio::test]
async fn clients_are_told_the_announced_address_and_the_preferred_way_first() {
    let announced = "192.0.2.7";
    let settings = Settings {
        rtc_announced_ipv4: Some(announced.parse().unwrap()),
        ..settings(1)
    };
    let control = Control::start_with(settings, Limits::default(), ControlOptions::default()).await;
    let mut client = control.client().await;
    let room = client.room().await;
    let target = format!("/rooms/{room}/webrtc-transports");
    let first = |transport: &Value| {
        let candidates = transport["webrtc"]["iceCandidates"].as_array().unwrap();
        let first = candidates.iter().max_by_key(|candidate| candidate["priority"].as_u64());
        first.unwrap()["protocol"].as_str().unwrap().to_owned()
    };
    for (options, expected) in [(json!({"preferUdp": true}), "udp"), (json!({"preferTcp": true}), "tcp")] {
        let transport = create(&mut client, &target, options).await;
        assert_eq!(first(&transport), expected);
        for candidate in transport["webrtc"]["iceCandidates"].as_array().unwrap() {
            assert_eq!(
                (&candidate["ip"], &candidate["type"]),
                (&json!(announced), &json!("host"))
            );
            let passive = candidate["protocol"] == "tcp";
            assert_eq!(candidate["tcpType"] == "passive", passive, "{candidate}");
        }
    }
    control.close().await;
}

#[tokio::test]
async fn a_peers_transport_is_the_peers_and_lists_keep_secrets() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let peers = format!("/rooms/{room}/peers");
    let alice = json!({"name": "alice", "rtpCapabilities": {"codecs": []}});
    client.post(&peers, alice).await.expect(201);
    let target = format!("{peers}/alice/webrtc-transports");
    let options = json!({"direction": "recv", "udp": false, "appData": [1]});
    let transport = create(&mut client, &target, options).await;
    assert_eq!(
        (&transport["peer"], &transport["direction"], &transport["appData"]),
        (&json!("alice"), &json!("recv"), &json!([1]))
    );
    let candidates = transport["webrtc"]["iceCandidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 1);
    assert_eq!(candidates[0]["protocol"], "tcp");
    assert_eq!(client.get("/transports/1").await.expect(200), transport);

    let plain = client.transport(room).await;
    let listed = client.get("/transports").await.expect(200);
    let mut short = transport.clone();
    for member in [
        "iceParameters",
        "dtlsLocalParameters",
        "dtlsRemoteCert",
        "clientOptions",
    ] {
        assert!(
            short["webrtc"].as_object_mut().unwrap().remove(member).is_some(),
            "{member}"
        );
    }
    assert_eq!(listed["items"][0], short);
    assert_eq!(
        (&listed["items"][1]["id"], &listed["items"][1]["webrtc"]),
        (&json!(plain), &Value::Null)
    );
    assert_eq!(listed["items"][1]["kind"], "plain");

    // It goes with its peer.
    client.delete(&format!("{peers}/alice")).await.expect(200);
    client
        .get("/transports/1")
        .await
        .refuses(404, "notFound", "transport 1");
    client
        .send("POST", "/transports/1/ice-restart", None)
        .await
        .refuses(404, "notFound", "transport 1");
    control.close().await;
}

/// The fingerprint of some certificate, with a function that has so many bytes.
fn fingerprint(algorithm: &str, bytes: usize) -> Value {
    json!({"algorithm": algorithm, "value": vec!["aB"; bytes].join(":")})
}

#[tokio::test]
async fn fingerprints_that_cannot_introduce_anybody_are_refused_and_change_nothing() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    create(&mut client, &format!("/rooms/{room}/webrtc-transports"), json!({})).await;
    let sha256 = || fingerprint("sha-256", 32);
    let value = |value: &str| json!({"fingerprints": [{"algorithm": "sha-256", "value": value}]});
    let long = "A".repeat(BODY_BYTES_MAX / 2);
    let pairs = vec!["AB"; 32];
    for (body, code, says) in [
        (json!({}), "invalidBody", "missing field `fingerprints`"),
        (json!([]), "invalidBody", "JSON object"),
        (
            json!({"fingerprints": null}),
            "invalidBody",
            "fingerprints: invalid type: null",
        ),
        (
            json!({"fingerprints": {"sha-256": "AB"}}),
            "invalidBody",
            "fingerprints: invalid type: map",
        ),
        (
            json!({"fingerprints": ["sha-256 AB"]}),
            "invalidBody",
            "fingerprints[0]: invalid type",
        ),
        (
            json!({"fingerprints": []}),
            "invalidParameters",
            "1 to 5 fingerprints are needed, not 0",
        ),
        (
            json!({"fingerprints": vec![sha256(); 6]}),
            "invalidParameters",
            "1 to 5 fingerprints are needed, not 6",
        ),
        (
            json!({"fingerprints": vec![sha256(); 17]}),
            "invalidParameters",
            "1 to 5 fingerprints are needed, not 17",
        ),
        (
            json!({"fingerprints": [fingerprint("md5", 16)]}),
            "invalidBody",
            "fingerprints[0].algorithm: unknown variant `md5`",
        ),
        (
            json!({"fingerprints": [{"algorithm": "sha-256"}]}),
            "invalidBody",
            "fingerprints[0]: missing field `value`",
        ),
        (
            json!({"fingerprints": [{"algorithm": "sha-256", "value": 7}]}),
            "invalidBody",
            "fingerprints[0].value: invalid type: integer",
        ),
        (
            json!({"fingerprints": [{"algorithm": "sha-256", "value": pairs.join(":"), "x": 1}]}),
            "invalidBody",
            "fingerprints[0].x: unknown field `x`",
        ),
        (value(""), "invalidParameters", "sha-256: a fingerprint is pairs"),
        (
            value(&pairs.concat()),
            "invalidParameters",
            "sha-256: a fingerprint is pairs",
        ),
        (
            value(&pairs[1..].join(":")),
            "invalidParameters",
            "as many as the hash has bytes",
        ),
        (
            value(&[&pairs[..], &["AB"]].concat().join(":")),
            "invalidParameters",
            "as many as",
        ),
        (
            value(&pairs.join(":").replacen("AB", "+B", 1)),
            "invalidParameters",
            "hexadecimal digits",
        ),
        (
            value(&pairs.join(":").replacen("AB", "GG", 1)),
            "invalidParameters",
            "hexadecimal digits",
        ),
        (
            value(&pairs.join(":").replacen("AB", "ÄB", 1)),
            "invalidParameters",
            "hexadecimal digits",
        ),
        (value(&pairs.join(" :")), "invalidParameters", "hexadecimal digits"),
        (value(&long), "invalidParameters", "hexadecimal digits"),
        (
            json!({"fingerprints": [sha256(), fingerprint("sha-512", 32)]}),
            "invalidParameters",
            "sha-512: a fingerprint is pairs",
        ),
        (
            json!({"fingerprints": [fingerprint("sha-1", 20)]}),
            "invalidParameters",
            "sha-256, sha-384 or sha-512 is needed",
        ),
        (
            json!({"fingerprints": [fingerprint("sha-1", 20), fingerprint("sha-224", 28)]}),
            "invalidParameters",
            "sha-256, sha-384 or sha-512 is needed",
        ),
        (
            json!({"role": "active", "fingerprints": [sha256()]}),
            "invalidBody",
            "role: unknown variant `active`, expected one of `auto`, `client`, `server`",
        ),
        (
            json!({"role": "Client", "fingerprints": [sha256()]}),
            "invalidBody",
            "role: unknown variant `Client`",
        ),
        (
            json!({"role": ["client"], "fingerprints": [sha256()]}),
            "invalidBody",
            "role: expected value",
        ),
        (
            json!({"role": null, "fingerprints": [sha256()]}),
            "invalidBody",
            "role: expected value",
        ),
        (
            json!({"fingerprints": [sha256()], "setup": "active"}),
            "invalidBody",
            "unknown field `setup`",
        ),
    ] {
        let answer = client.put("/transports/1/dtls", body).await;
        answer.refuses(400, code, says);
        assert!(
            answer.text.len() < 1_000,
            "not what was said back again: {}",
            answer.text.len()
        );
    }
    for body in [
        r#"{"fingerprints":[],"fingerprints":[]}"#,
        r#"{"role":"auto","role":"auto","fingerprints":[]}"#,
    ] {
        client
            .say("PUT", "/transports/1/dtls", &[JSON], body)
            .await
            .refuses(400, "invalidBody", "duplicate field");
    }
    client
        .say("PUT", "/transports/1/dtls", &[JSON], "{\"fingerprints\":[")
        .await
        .refuses(400, "malformedJson", "line 1");
    client
        .say("PUT", "/transports/1/dtls", &[], "{}")
        .await
        .refuses(415, "unsupportedMediaType", "application/json");
    let mut other = control.client().await;
    other
        .say("PUT", "/transports/1/dtls", &[JSON], " ".repeat(BODY_BYTES_MAX + 1))
        .await
        .refuses(413, "bodyTooLarge", "256 KiB");

    // After all that the transport is as it was, and can be told once.
    let shown = client.get("/transports/1").await.expect(200);
    assert_eq!(shown["webrtc"]["dtlsLocalParameters"]["role"], "auto");
    let good = json!({"fingerprints": [fingerprint("sha-1", 20), sha256()]});
    let told = client.put("/transports/1/dtls", good.clone()).await.expect(200);
    assert_eq!(
        told["webrtc"]["dtlsLocalParameters"]["role"], "server",
        "where it may choose"
    );
    client
        .put("/transports/1/dtls", good)
        .await
        .refuses(409, "conflict", "transport 1");
    control.close().await;
}

#[tokio::test]
async fn a_clients_credentials_are_what_ice_allows_and_are_never_said_back() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    create(&mut client, &format!("/rooms/{room}/webrtc-transports"), json!({})).await;
    let password = "its0own0secret0password0";
    for (body, code) in [
        (
            json!({"usernameFragment": "abc", "password": password}),
            "invalidParameters",
        ),
        (
            json!({"usernameFragment": "ab:d", "password": password}),
            "invalidParameters",
        ),
        (
            json!({"usernameFragment": "abcd", "password": "too-short"}),
            "invalidParameters",
        ),
        (
            json!({"usernameFragment": "abcd", "password": "a".repeat(257)}),
            "invalidParameters",
        ),
        (json!({"usernameFragment": "abcd"}), "invalidBody"),
        (
            json!({"usernameFragment": "abcd", "password": password, "iceLite": true}),
            "invalidBody",
        ),
    ] {
        let answer = client.put("/transports/1/ice", body).await;
        assert_eq!((answer.status, &answer.body["error"]["code"]), (400, &json!(code)));
        assert!(!answer.text.contains(password));
    }
    for _ in 0..2 {
        let body = json!({"usernameFragment": "a+/4", "password": password});
        let answer = client.put("/transports/1/ice", body).await;
        answer.expect(200);
    }
    for target in ["/transports/1", "/transports/1/dump", "/transports/1/stats"] {
        let answer = client.send("GET", target, None).await;
        assert!(answer.status == 200 && !answer.text.contains(password), "{target}");
    }
    control.close().await;
}

#[tokio::test]
async fn a_transport_of_the_other_kind_is_told_so() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let plain = client.transport(room).await;
    create(&mut client, &format!("/rooms/{room}/webrtc-transports"), json!({})).await;
    let dtls = json!({"fingerprints": [fingerprint("sha-256", 32)]});
    client
        .put(&format!("/transports/{plain}/dtls"), dtls.clone())
        .await
        .refuses(400, "invalidParameters", "transport 1 is for plain RTP");
    client
        .send("POST", &format!("/transports/{plain}/ice-restart"), None)
        .await
        .refuses(400, "invalidParameters", "transport 1 is for plain RTP");
    let ice = json!({"usernameFragment": "abcd", "password": "0123456789abcdefghijkl"});
    client
        .put(&format!("/transports/{plain}/ice"), ice.clone())
        .await
        .refuses(400, "invalidParameters", "transport 1 is for plain RTP");
    client
        .put("/transports/2/remote", json!({"rtp": "127.0.0.1:5004"}))
        .await
        .refuses(400, "invalidParameters", "transport 2 is for WebRTC");
    client
        .post("/transports/2/ice-restart", json!({"usernameFragment": "mine"}))
        .await
        .refuses(400, "invalidBody", "unknown field `usernameFragment`");
    for (method, target, body) in [
        ("PUT", "/transports/99/dtls", Some(dtls)),
        ("PUT", "/transports/99/ice", Some(ice)),
        ("POST", "/transports/99/ice-restart", None),
        ("POST", "/rooms/99/webrtc-transports", None),
        ("POST", "/rooms/99/peers/alice/webrtc-transports", None),
        ("POST", "/rooms/1/peers/alice/webrtc-transports", None),
    ] {
        let answer = client.send(method, target, body).await;
        assert_eq!(
            (answer.status, &answer.body["error"]["code"]),
            (404, &json!("notFound")),
            "{target}"
        );
    }
    control.close().await;
}

#[tokio::test]
async fn options_that_cannot_be_are_refused() {
    let settings = Settings {
        rtc_tcp: false,
        ..settings(1)
    };
    let control = Control::start_with(settings, Limits::default(), ControlOptions::default()).await;
    let mut client = control.client().await;
    let room = client.room().await;
    let peers = format!("/rooms/{room}/peers");
    client
        .post(&peers, json!({"name": "alice", "rtpCapabilities": {"codecs": []}}))
        .await
        .expect(201);
    for target in [
        format!("/rooms/{room}/webrtc-transports"),
        format!("{peers}/alice/webrtc-transports"),
    ] {
        for (body, code, says) in [
            (
                json!({"udp": false}),
                "invalidParameters",
                "neither UDP nor TCP is left",
            ),
            (json!({"udp": 1}), "invalidBody", "udp: invalid type: integer"),
            (json!({"udp": "true"}), "invalidBody", "udp: invalid type: string"),
            (json!({"comedia": true}), "invalidBody", "unknown field `comedia`"),
            (
                json!({"remote": {"rtp": "127.0.0.1:1"}}),
                "invalidBody",
                "unknown field `remote`",
            ),
            (
                json!({"localIp": "127.0.0.1"}),
                "invalidBody",
                "unknown field `localIp`",
            ),
            (json!({"listenPort": 80}), "invalidBody", "unknown field `listenPort`"),
            (json!({"preferIpv4": true}), "invalidBody", "unknown field `preferIpv4`"),
            (
                json!({"dtlsParameters": {"fingerprints": []}}),
                "invalidBody",
                "unknown field `dtlsParameters`",
            ),
        ] {
            client.post(&target, body).await.refuses(400, code, says);
        }
        let transport = create(&mut client, &target, json!({})).await;
        let candidates = transport["webrtc"]["iceCandidates"].as_array().unwrap();
        assert!(candidates.iter().all(|candidate| candidate["protocol"] == "udp"));
    }
    client
        .post(
            &format!("{peers}/alice/webrtc-transports"),
            json!({"direction": "both"}),
        )
        .await
        .refuses(400, "invalidBody", "direction: unknown variant `both`");
    let shown = client.get("/settings").await.expect(200);
    assert_eq!(
        (&shown["rtcUdp"], &shown["rtcTcp"], &shown["dtlsCertificateFile"]),
        (&json!(true), &json!(false), &Value::Null)
    );
    control.close().await;
}

/// The parameters of a microphone as mediasoup-client 3 has them.
fn microphone_of_mediasoup_3() -> Value {
    json!({
        "mid": "0", "msid": "- 4f2e",
        "codecs": [{
            "mimeType": "audio/opus", "payloadType": THEIRS, "clockRate": 48000, "channels": 2,
            "parameters": {"useinbandfec": 1}, "rtcpFeedback": [{"type": "transport-cc", "parameter": ""}],
        }],
        "headerExtensions": [
            {"uri": "urn:ietf:params:rtp-hdrext:sdes:mid", "id": 4, "encrypt": false, "parameters": {}},
            {"uri": "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time", "id": 2, "encrypt": false, "parameters": {}},
        ],
        "encodings": [{"ssrc": SSRC, "dtx": false, "maxBitrate": 64_000}],
        "rtcp": {"cname": "", "reducedSize": true},
    })
}

#[tokio::test]
async fn clients_of_mediasoup_3_need_no_translation() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.post("/rooms", json!({})).await.expect(201)["id"].clone();
    let transports = format!("/rooms/{room}/webrtc-transports");
    let sending = create(&mut client, &transports, json!({})).await;
    let receiving = create(&mut client, &transports, json!({})).await;

    // createSendTransport and createRecvTransport take this as it is.
    let (webrtc, options) = (&sending["webrtc"], &sending["webrtc"]["clientOptions"]);
    assert_eq!(options["id"], sending["id"].to_string(), "as text");
    assert_eq!(options["iceParameters"], webrtc["iceParameters"]);
    assert_eq!(options["dtlsParameters"], webrtc["dtlsLocalParameters"]);
    let mut without_address = options["iceCandidates"].clone();
    for candidate in without_address.as_array_mut().unwrap() {
        let address = candidate.as_object_mut().unwrap().remove("address");
        assert_eq!(address.as_ref(), candidate.get("ip"));
    }
    assert_eq!(webrtc["iceCandidates"], without_address);
    let listed = client.get(&format!("/transports?room={room}")).await.expect(200);
    assert_eq!(
        listed["items"][0]["webrtc"].get("clientOptions"),
        None,
        "lists keep secrets"
    );

    let producers = format!("/transports/{}/producers", sending["id"]);
    let microphone = json!({"kind": "audio", "rtpParameters": microphone_of_mediasoup_3(), "appData": {}});
    let producer = client.post(&producers, microphone).await.expect(201)["id"].clone();

    // What `device.rtpCapabilities` says: the room's, and who sends what.
    let mut capabilities = client.get(&format!("/rooms/{room}/rtp-capabilities")).await.expect(200);
    for extension in capabilities["headerExtensions"].as_array_mut().unwrap() {
        extension["direction"] = json!("sendrecv");
    }
    let opus = capabilities["codecs"]
        .as_array()
        .unwrap()
        .iter()
        .find(|codec| codec["mimeType"] == "audio/opus");
    let payload_type = opus.unwrap()["preferredPayloadType"].clone();
    let consumers = format!("/transports/{}/consumers", receiving["id"]);
    let wanted = json!({"producer": producer.to_string(), "rtpCapabilities": capabilities, "paused": true});
    let consumer = client.post(&consumers, wanted.clone()).await.expect(201);
    let parameters = &consumer["rtpParameters"];
    assert_eq!(parameters["codecs"][0]["payloadType"], payload_type, "the receiver's");
    assert_eq!(parameters["codecs"].as_array().unwrap().len(), 1);
    assert_ne!(parameters["rtcp"]["cname"], "");
    assert_eq!(consumer["paused"], true);

    // A path into that request, what to put there, and what the refusal must say.
    let rows = [
        ("/rtp", json!({"payloadTypes": {"111": 100}}), "not both"),
        ("/rtp", json!({"headerExtensions": []}), "not both"),
        ("/rtpCapabilities", json!({"codecs": []}), "no codec in common"),
        ("/rtpCapabilities", json!([]), "rtpCapabilities"),
        (
            "/rtpCapabilities/codecs/0/preferredPayloadType",
            Value::Null,
            "needs a preferredPayloadType",
        ),
        (
            "/rtpCapabilities/codecs/0/preferredPayloadType",
            json!(70),
            "collides with RTCP",
        ),
        (
            "/rtpCapabilities/codecs/0/preferredPayloadType",
            payload_type.clone(),
            "listed twice",
        ),
        ("/rtpCapabilities/codecs/0/name", json!("x".repeat(100)), "name"),
        (
            "/rtpCapabilities/headerExtensions",
            json!(vec![json!({"uri": "a", "preferredId": 1}); 129]),
            "more than 128",
        ),
        (
            "/rtpCapabilities/headerExtensions/0/directions",
            json!("sendrecv"),
            "unknown field `directions`",
        ),
        ("/producer", json!("1x"), "an id is a whole number"),
        ("/producer", json!(""), "an id is a whole number"),
        ("/producer", json!("+1"), "an id is a whole number"),
        ("/producer", json!("01"), "an id is a whole number"),
        ("/producer", json!(-1), "an id is a whole number"),
        ("/producer", json!(1.5), "an id is a whole number"),
        ("/producer", json!([1]), "an id is a whole number"),
        ("/producer", json!("18446744073709551616"), "an id is a whole number"),
    ];
    for (path, value, why) in rows {
        let mut spoiled = wanted.clone();
        // Those of the producer's kind are read, and opus is the last of them.
        let codecs = capabilities["codecs"].as_array().unwrap();
        let audio = codecs.iter().filter(|codec| codec["kind"] == "audio").rev().cloned();
        spoiled["rtpCapabilities"]["codecs"] = audio.collect();
        let (place, name) = path.rsplit_once('/').unwrap();
        spoiled.pointer_mut(place).unwrap()[name] = value.clone();
        let refused = client.post(&consumers, spoiled).await;
        assert_eq!(refused.status, 400, "{path} {value}: {}", refused.text);
        assert!(refused.text.contains(why), "{path} {value}: {}", refused.text);
    }
    let unknown = json!({"producer": "77", "rtpCapabilities": capabilities});
    client.post(&consumers, unknown).await.expect(404);
    let all = client.get(&format!("/consumers?room={room}")).await.expect(200);
    assert_eq!(
        all["items"].as_array().unwrap().len(),
        1,
        "what was refused made nothing"
    );
    control.close().await;
}
