//! `weir ctl` against a running `weir serve`: what an operator types, and what comes back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod loopback;

use std::process::Stdio;

use command::{Scratch, Serve, outcome, outcome_of, soon, weir};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

/// A room with two transports, a camera on the first and a consumer of it on the second; all have the id 1, but the second
/// transport.
async fn furnish(serve: &Serve) {
    for args in [
        "room create",
        "transport create 1 --comedia",
        "transport create 1 --remote 127.0.0.1:5004",
        "producer create 1 --codec VP8 --payload-type 96 --simulcast 1111,2222,3333",
        "consumer create 2 1",
    ] {
        serve.say(args).await;
    }
}

/// The lines of a text, with runs of blanks as one.
fn squeezed(text: &str) -> Vec<String> {
    text.lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

#[tokio::test]
async fn a_session_from_the_room_to_its_end() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    let mut events = serve.follow("--room 1").await;

    assert_eq!(
        serve.say(r#"room create --app-data {"name":"lobby"}"#).await,
        "room 1 opened on worker 1\n"
    );
    let line = serve.say("transport create 1 --comedia").await;
    assert!(line.starts_with("transport 1 opened in room 1 at 127.0.0.1:"), "{line}");
    serve.say("transport create 1").await;
    assert_eq!(
        serve.say("transport remote 2 127.0.0.1:5004").await,
        "transport 2 sends to 127.0.0.1:5004\n"
    );
    let simulcast = "producer create 1 --codec vp8 --payload-type 96 --simulcast 11,22,33";
    assert_eq!(serve.say(simulcast).await, "producer 1 (video) opened on transport 1\n");
    assert_eq!(
        serve.say("consumer create 2 1").await,
        "consumer 1 of producer 1 opened on transport 2\n"
    );
    for (args, line) in [
        (r#"producer pause 1 --app-data "lunch""#, "producer 1 paused"),
        ("consumer pause 1", "consumer 1 paused"),
        ("consumer resume 1", "consumer 1 resumed; its producer is still paused"),
        ("producer resume 1", "producer 1 resumed"),
        ("producer profile 1 medium", "producer 1 prefers profile medium"),
        ("consumer profile 1 low", "consumer 1 prefers profile low"),
        ("consumer keyframe 1", "key frame requested for consumer 1"),
        ("consumer close 1", "consumer 1 closed"),
        ("producer close 1", "producer 1 closed"),
        ("transport close 1", "transport 1 closed"),
        ("room close 1", "room 1 closed"),
    ] {
        assert_eq!(serve.say(args).await, format!("{line}\n"), "{args}");
    }

    for expected in [
        r#"room 1 opened  appData={"name":"lobby"} worker=1"#,
        "transport 1 opened",
        "transport 2 opened",
        "transport 2 remote set",
        "producer 1 opened",
        "consumer 1 opened",
        "producer 1 paused  appData=\"lunch\" originator=local room=1",
        "consumer 1 paused  originator=source room=1",
        "consumer 1 paused  originator=local room=1",
        "consumer 1 resumed  originator=local room=1",
        "producer 1 resumed",
        "consumer 1 resumed  originator=source room=1",
        "producer 1 preferred profile set  profile=medium room=1",
        "consumer 1 preferred profile set  profile=low room=1",
        "consumer 1 closed  cause=(closed) originator=local room=1",
        "producer 1 closed",
        "transport 1 closed",
        "room 1 closed",
        "transport 2 closed  cause=(roomClosed)",
    ] {
        let event = events.next().await.unwrap();
        assert!(event.starts_with(expected), "{event:?} is not {expected:?}");
    }
    serve.stop().await;
    assert_eq!(events.next().await.as_deref(), Some("server closed"));
    assert_eq!(events.next().await, None);
    assert!(events.end().await.success());
}

#[tokio::test]
async fn lists_and_things_are_shown_as_tables() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    assert_eq!(serve.say("rooms").await, "no rooms\n");
    furnish(&serve).await;
    let rooms = "ROOM  WORKER  PEERS  TRANSPORTS  PRODUCERS  CONSUMERS  APP DATA\n   1       1      0           2          1          1\n";
    assert_eq!(serve.say("rooms").await, rooms);
    assert_eq!(serve.say("room list").await, rooms);
    let transports = squeezed(&serve.say("transports --room 1").await);
    assert_eq!(transports[0], "TRANSPORT ROOM KIND LOCAL REMOTE ICE DTLS APP DATA");
    assert!(
        transports[1].starts_with("1 1 plain 127.0.0.1:") && transports[1].ends_with(" learning - -"),
        "{transports:?}"
    );
    assert!(transports[2].ends_with(" 127.0.0.1:5004 - -"), "{transports:?}");
    serve.say("transport create 1 --comedia --comedia-from 192.0.2.7").await;
    let transports = squeezed(&serve.say("transports --room 1").await);
    assert!(transports[3].ends_with(" learning at 192.0.2.7 - -"), "{transports:?}");
    assert_eq!(serve.ask("transport show 3").await["comediaFrom"], "192.0.2.7");
    serve.say("transport close 3").await;
    serve.say("producer pause 1").await;
    assert_eq!(
        squeezed(&serve.say("producers").await),
        [
            "PRODUCER ROOM TRANSPORT KIND STATE PREFERRED APP DATA",
            "1 1 1 video paused default"
        ]
    );
    assert_eq!(
        squeezed(&serve.say("consumers --producer 1").await),
        [
            "CONSUMER ROOM TRANSPORT PRODUCER KIND STATE PREFERRED EFFECTIVE APP DATA",
            "1 1 2 1 video source paused default -"
        ]
    );
    let shown = squeezed(&serve.say("producer show 1").await);
    assert_eq!(shown[6], "codecs video/VP8 (96)");
    assert_eq!(shown[7], "streams low 1111, medium 2222, high 3333");
    for (args, rows) in [
        ("room show 1", 7),
        ("transport show 1", 7),
        ("consumer show 1", 11),
        ("worker show 1", 13),
        ("workers", 3),
        ("stats", 4),
        ("worker stats 1", 41),
        ("transport stats 1", 2),
        ("producer stats 1", 4),
        ("consumer stats 1", 2),
        ("room stats 1", 3 + 1 + 4 + 1 + 2),
    ] {
        let text = serve.say(args).await;
        assert_eq!(text.lines().count(), rows, "{args}:\n{text}");
        assert!(!text.contains('\x1b'), "no colours but on a terminal");
        assert!(text.lines().all(|line| line == line.trim_end()), "{text:?}");
    }
    serve.stop().await;
}

#[tokio::test]
async fn json_is_what_the_server_answers() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    furnish(&serve).await;
    assert_eq!(serve.ask("rooms").await[0]["id"], 1);
    assert_eq!(serve.ask("room create").await["id"], 2);
    assert_eq!(serve.ask("transports").await.as_array().unwrap().len(), 2);
    assert_eq!(serve.ask("producer pause 1").await["paused"], true);
    assert_eq!(
        serve.ask("producer show 1").await["rtpParameters"]["encodings"][2]["ssrc"],
        3333
    );
    assert_eq!(serve.ask("consumer show 1").await["sourcePaused"], true);
    assert_eq!(serve.ask("consumer stats 1").await["packetsIn"], 0);
    assert_eq!(serve.ask("room dump 1").await["consumers"][0]["consumer"], 1);
    assert_eq!(serve.ask("workers").await.as_array().unwrap().len(), 2);
    assert_eq!(serve.ask("stats").await["total"]["consumers"], 1);
    assert_eq!(serve.ask("health").await["status"], "ok");
    assert_eq!(serve.ask("consumer close 1").await, json!({"id": 1, "closed": true}));
    // Events are one object a line.
    let events = serve.say("events --json --kind roomOpened").await;
    let rooms: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["room"].take())
        .collect();
    assert_eq!(rooms, [1, 2]);
    let refused = serve.ctl("--json room show 9").await;
    assert_eq!((refused.code, refused.stdout.as_str()), (1, ""));
    assert_eq!(
        serde_json::from_str::<Value>(&refused.stderr).unwrap()["error"]["code"],
        "notFound"
    );
    serve.stop().await;
}

#[tokio::test]
async fn events_can_be_looked_up() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    furnish(&serve).await;
    let opened = serve.say("events --json --kind transportOpened").await;
    let ids: Vec<String> = opened
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["id"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(ids.len(), 2);
    let since = serve.say(&format!("events --since {}", ids[1])).await;
    let since: Vec<&str> = since.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    assert!(since[0].starts_with("producer 1 opened"), "{since:?}");
    assert!(since[1].starts_with("consumer 1 opened"), "{since:?}");
    assert_eq!(since.len(), 2);
    assert_eq!(serve.say("events --room 77").await, "");
    serve
        .ctl("events --kind tea")
        .await
        .failed(1, "\"tea\" is no type of event");
    serve
        .ctl("events --follow --since x&y")
        .await
        .failed(1, "an event id looks like");
    serve.stop().await;
}

#[tokio::test]
async fn exit_codes_tell_who_is_at_fault() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    serve
        .ctl("room show 9")
        .await
        .failed(1, "weir: there is no room 9 (notFound)");
    serve.ctl("producer pause 9").await.failed(1, "there is no producer 9");
    for args in [
        "room show x",
        "explode",
        "producer profile 1 ultra",
        "transport create 1 --remote localhost:1",
        "transport create 1 --remote 127.0.0.1:1 --comedia",
        "transport create 1 --comedia-policy lock",
        "transport create 1 --comedia --comedia-policy sometimes",
        "transport create 1 --port 70000",
        "transport create 1 --webrtc --port 20000",
        "transport create 1 --remote [fe80::1%nowhere0]:1",
        "producer create 1",
        "producer create 1 --codec VP8 --ssrc 1",
        "producer create 1 --codec VP8 --payload-type 96",
        "producer create 1 --codec VP8 --payload-type 96 --ssrc some",
        "producer create 1 --codec audio/JPEG --payload-type 96 --ssrc any",
        "producer create 1 --codec VP8 --payload-type 96 --simulcast 1",
        "producer create 1 --rtp-parameters /nowhere/parameters.json",
        "consumer create 1 1 --payload-type 96",
        "transport create 1 --webrtc --comedia",
        "transport create 1 --webrtc --no-udp --no-tcp",
        "transport create 1 --no-udp",
        "transport create 1 --webrtc --prefer pigeon",
        "transport dtls 1",
        "transport dtls 1 --role active --fingerprint sha-256 AB",
        "transport dtls 1 --fingerprint sha-256",
        "transport dtls 1 --parameters {",
        "room create --app-data {",
        "log-level loud",
    ] {
        assert_eq!(serve.ctl(args).await.code, 2, "{args}");
    }
    serve.stop().await;
    let socket = scratch.socket.to_str().unwrap();
    let absent = scratch.ctl("rooms").await;
    absent.failed(
        3,
        &format!("cannot reach the server at {socket} (is `weir serve` running? use --control"),
    );
}

#[tokio::test]
async fn somebody_else_on_the_socket_is_not_believed() {
    let scratch = Scratch::new();
    let listener = tokio::net::UnixListener::bind(&scratch.socket).unwrap();
    let answers = [
        "SSH-2.0\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{]}",
        "HTTP/1.1 404 Gone\r\ncontent-length: 0\r\n\r\n",
    ];
    for answer in answers {
        let asking = scratch.ctl("rooms");
        let answering = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let length = stream.read(&mut head).await.unwrap();
            assert!(head[..length].starts_with(b"GET /rooms"));
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let (outcome, ()) = soon("an answer", async { tokio::join!(asking, answering) }).await;
        outcome.failed(3, "cannot talk to the server at");
    }
    // Nobody answers at all.
    scratch
        .ctl("--timeout 50ms rooms")
        .await
        .failed(3, "no answer within 50ms");
}

#[tokio::test]
async fn a_rooms_codecs_are_given_inline_by_file_or_on_standard_input() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    let codecs = r#"[{"kind":"audio","name":"opus","clockRate":48000,"channels":2}]"#;
    let path = scratch.dir.path().join("codecs.json");
    std::fs::write(&path, codecs).unwrap();
    for source in [codecs, path.to_str().unwrap()] {
        serve
            .say(&format!("room create --media-codecs {source} --app-data 7"))
            .await;
    }
    let create = |source: &str| {
        let mut command = weir(["ctl", "--control"]);
        command
            .arg(&scratch.socket)
            .args(["room", "create", "--media-codecs", source]);
        command
    };
    let made = outcome_of(create("-"), codecs.as_bytes()).await;
    assert!(made.succeeded("-").starts_with("room 3 opened on worker"));
    for room in 1..=3 {
        let lines = squeezed(&serve.say(&format!("room capabilities {room}")).await);
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].starts_with("audio opus "), "{lines:?}");
    }
    outcome(create("[{")).await.failed(2, "not JSON");
    outcome(create("/nowhere/codecs.json"))
        .await
        .failed(2, "cannot read /nowhere");
    outcome(create(r#"[{"kind":"audio"}]"#))
        .await
        .failed(1, "mediaCodecs[0]");
    serve.stop().await;
}

#[tokio::test]
async fn both_sides_pause_and_single_objects_are_dumped() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    furnish(&serve).await;
    for (args, line) in [
        ("consumer pause 1 --side remote", "consumer 1 paused"),
        ("producer pause 1 --side remote", "producer 1 paused"),
        ("producer pause 1", "producer 1 paused"),
        (
            "consumer resume 1",
            "consumer 1 resumed; its client still holds it paused",
        ),
        (
            "consumer resume 1 --side remote",
            "consumer 1 resumed; its producer is still paused",
        ),
        (
            "producer resume 1 --side remote",
            "producer 1 resumed; the application still holds it paused",
        ),
        ("producer resume 1 --side local", "producer 1 resumed"),
    ] {
        assert_eq!(serve.say(args).await, format!("{line}\n"), "{args}");
    }
    serve
        .ctl("producer pause 1 --side source")
        .await
        .failed(2, "local, remote");
    for what in ["transport", "producer", "consumer"] {
        let dump: Value = serde_json::from_str(&serve.say(&format!("{what} dump 1")).await).unwrap();
        assert_eq!(dump[what], 1);
    }
    serve.stop().await;
}

#[tokio::test]
async fn what_a_peers_client_is_to_be_told_is_followed() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    for args in [
        "room create",
        "peer create 1 alice",
        "peer create 1 bob/é",
        "peer close 1 bob/é",
    ] {
        serve.say(args).await;
    }
    let mut command = weir(["ctl", "peer", "notifications", "1", "alice", "--control"]);
    let mut follower = command.arg(&scratch.socket).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let mut next = async || soon("a line", lines.next_line()).await.unwrap();
    let met = next().await.unwrap();
    assert!(met.starts_with("newPeer ") && met.contains("name=bob/é"), "{met}");
    assert_eq!(next().await.unwrap(), "peerClosed name=bob/é");
    serve.say("peer close 1 alice").await;
    assert_eq!(next().await.unwrap(), "closed");
    assert_eq!(next().await.unwrap(), "end reason=closed");
    assert_eq!(next().await, None);
    assert!(soon("its end", follower.wait()).await.unwrap().success());
    serve.stop().await;
}

#[tokio::test]
async fn producers_are_described_by_file_or_by_options() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    serve.say("room create").await;
    serve.say("transport create 1").await;
    let parameters = json!({
        "codecs": [{"mimeType": "audio/opus", "payloadType": 111, "clockRate": 48000, "channels": 2}],
        "encodings": [{"ssrc": 5}],
    });
    let file = scratch.dir.path().join("opus.json");
    std::fs::write(&file, parameters.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let line = serve.say(&format!("producer create 1 --rtp-parameters {}", file)).await;
    assert_eq!(line, "producer 1 (audio) opened on transport 1\n");

    let create = |args: &str| {
        let mut command = weir(["ctl", "--control"]);
        command
            .arg(&scratch.socket)
            .args(["producer", "create", "1"])
            .args(args.split_whitespace());
        command
    };
    let text = parameters.to_string().replace("\"ssrc\":5", "\"ssrc\":6");
    let outcome = outcome_of(create("--rtp-parameters - --paused"), text.as_bytes()).await;
    assert_eq!(outcome.succeeded("-"), "producer 2 (audio) opened on transport 1\n");
    assert_eq!(serve.ask("producer show 2").await["paused"], true);
    outcome_of(create("--rtp-parameters -"), b"{")
        .await
        .failed(2, "-: EOF while parsing");
    outcome_of(create("--rtp-parameters -"), b"{}")
        .await
        .failed(2, "say --kind");
    outcome_of(create("--rtp-parameters - --kind video"), text.as_bytes())
        .await
        .failed(1, "audio/opus is not video");

    let pcmu = serve.ask("producer create 1 --codec PCMU --ssrc 7 --profile low").await;
    assert_eq!(pcmu["rtpParameters"]["codecs"][0]["payloadType"], 0, "the static one");
    assert_eq!(
        (&pcmu["kind"], &pcmu["preferredProfile"]),
        (&json!("audio"), &json!("low"))
    );
    let av1 = serve
        .ask("producer create 1 --codec AV1 --payload-type 97 --simulcast 8,9")
        .await;
    assert_eq!(
        av1["rtpParameters"]["encodings"],
        json!([{"ssrc": 8, "profile": "low"}, {"ssrc": 9, "profile": "high"}])
    );
    let av1 = &av1["id"];
    let consumer = serve
        .ask(&format!(
            "consumer create 1 {av1} --ssrc 99 --payload-type 97:100 --paused"
        ))
        .await;
    assert_eq!(consumer["rtpParameters"]["codecs"][0]["payloadType"], 100);
    assert_eq!(
        (&consumer["rtpParameters"]["encodings"][0]["ssrc"], &consumer["paused"]),
        (&json!(99), &json!(true))
    );
    serve.stop().await;
}

#[tokio::test]
async fn transports_are_made_as_asked() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    serve.say("room create").await;
    let separate = "transport create 1 --separate-rtcp --remote 127.0.0.1:5004 --remote-rtcp 127.0.0.1:6000";
    let transport = serve.ask(separate).await;
    assert_eq!(transport["rtcpMux"], false);
    assert_eq!(transport["rtcpTuple"]["remote"], "127.0.0.1:6000");
    let shown = serve.say("transport show 1").await;
    assert!(shown.contains("127.0.0.1:5004+6000"), "{shown}");
    assert!(shown.contains("on its own port"), "{shown}");
    serve.ctl("transport create 1 --family ipv6").await.failed(1, "no IPv6");
    let local = serve.ask("transport create 1 --local-ip 127.0.0.2").await;
    assert_eq!(local["tuple"]["boundIp"], "127.0.0.2");
    let line = serve.say("transport remote 1 127.0.0.1:7000 127.0.0.1:7001").await;
    assert_eq!(line, "transport 1 sends to 127.0.0.1:7000+7001\n");
    serve.stop().await;
}

/// The fingerprint of some certificate.
const SHA_256: &str = "00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF";

#[tokio::test]
async fn transports_for_browsers_are_made_introduced_and_restarted() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    serve.say("room create").await;
    let line = serve.say("transport create 1 --webrtc").await;
    let addresses = line.strip_prefix("transport 1 opened in room 1 at ").unwrap();
    let (udp, tcp) = addresses.trim_end().split_once(", ").unwrap();
    assert!(udp.starts_with("127.0.0.1:") && udp.ends_with("/udp"), "{line}");
    assert!(tcp.starts_with("127.0.0.1:") && tcp.ends_with("/tcp"), "{line}");
    let rows = squeezed(&serve.say("transports").await);
    assert_eq!(rows[1], format!("1 1 webrtc {udp}, {tcp} - new new"));

    let made = serve
        .ask("transport create 1 --webrtc --no-tcp --prefer ipv4,udp --app-data 7")
        .await;
    let candidates = made["webrtc"]["iceCandidates"].as_array().unwrap();
    assert_eq!(candidates.len(), 1);
    assert_eq!(
        (&candidates[0]["protocol"], &made["appData"]),
        (&json!("udp"), &json!(7))
    );
    serve.say("peer create 1 alice").await;
    let line = serve
        .say("peer transport 1 alice --direction recv --webrtc --no-udp")
        .await;
    assert!(
        line.starts_with("transport 3 of alice opened at 127.0.0.1:") && line.ends_with("/tcp\n"),
        "{line}"
    );
    assert_eq!(serve.ask("transport show 3").await["direction"], "recv");

    assert_eq!(
        serve
            .say(&format!(
                "transport dtls 1 --role client --fingerprint SHA-256 {SHA_256}"
            ))
            .await,
        "transport 1 knows its client\n"
    );
    let parameters = json!({"role": "server", "fingerprints": [{"algorithm": "sha-256", "value": SHA_256}]});
    let introduced = serve.ask(&format!("transport dtls 2 --parameters {parameters}")).await;
    assert_eq!(introduced["webrtc"]["dtlsLocalParameters"]["role"], "client");
    serve
        .ctl(&format!("transport dtls 2 --parameters {parameters}"))
        .await
        .failed(1, "transport 2 has its DTLS parameters already");
    let shown = squeezed(&serve.say("transport show 1").await);
    assert_eq!(shown.len(), 14, "{shown:?}");
    for line in [
        "kind webrtc",
        "remote -",
        "ice new",
        "dtls new",
        "dtls role server",
        "client -",
    ] {
        assert!(shown.contains(&line.to_owned()), "{line} is not in {shown:?}");
    }

    let ice = r#"{"usernameFragment":"a+/4","password":"its0own0secret0password0"}"#;
    assert_eq!(
        serve.say(&format!("transport ice 1 {ice}")).await,
        "transport 1 knows its client's ICE credentials\n"
    );

    let before = serve.ask("transport show 1").await["webrtc"]["iceParameters"].clone();
    let line = serve.say("transport restart-ice 1").await;
    let after = serve.ask("transport show 1").await["webrtc"]["iceParameters"].clone();
    assert_ne!(before, after);
    let word = |name: &str| after[name].as_str().unwrap().to_owned();
    assert_eq!(
        line,
        format!(
            "transport 1 has the username fragment {} and the password {} now\n",
            word("usernameFragment"),
            word("password")
        )
    );
    let restarted = serve.ask("transport restart-ice 2").await;
    assert_eq!(restarted["iceParameters"]["iceLite"], true);

    let stats = squeezed(&serve.say("transport stats 1").await);
    assert!(
        stats[0].contains("ICE DTLS SRTP UNROUTED") && stats[1].ends_with("new new - -"),
        "{stats:?}"
    );
    serve.say("transport create 1").await;
    for args in [
        "transport restart-ice 4".to_owned(),
        format!("transport ice 4 {ice}"),
        format!("transport dtls 4 --fingerprint sha-256 {SHA_256}"),
    ] {
        serve.ctl(&args).await.failed(1, "transport 4 is for plain RTP");
    }
    serve
        .ctl("transport remote 1 127.0.0.1:5004")
        .await
        .failed(1, "transport 1 is for WebRTC");
    serve
        .ctl("transport dtls 3 --fingerprint sha-257 AB")
        .await
        .failed(1, "unknown variant `sha-257`");
    serve.stop().await;
}

#[tokio::test]
async fn settings_are_shown_and_changed() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    let shown = squeezed(&serve.say("settings").await);
    assert!(shown.contains(&"coalescingUsMax 0".to_owned()), "{shown:?}");
    assert!(shown.contains(&"logTags -".to_owned()), "{shown:?}");
    let changed = squeezed(
        &serve
            .say("settings --coalescing-us-max 300 --measure-residence true")
            .await,
    );
    assert!(changed.contains(&"coalescingUsMax 300".to_owned()), "{changed:?}");
    assert!(changed.contains(&"measureResidence true".to_owned()), "{changed:?}");
    assert_eq!(serve.ask("settings").await["coalescingUsMax"], 300);
    serve.stop().await;
}

#[tokio::test]
async fn a_broken_stream_is_gone_on_with() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let scratch = Scratch::new();
    let listener = tokio::net::UnixListener::bind(&scratch.socket).unwrap();
    let following = scratch.ctl("events --follow --json --since 0");
    let answering = async {
        let mut asked = Vec::new();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        for part in [
            "id: a-1\n: following\n\n",
            "id: a-2\n: following\n\nid: a-3\ndata: {\"id\":\"a-3\",\"type\":\"x\"}\n\n",
            "",
        ] {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            asked.push(request.lines().next().unwrap().to_owned());
            stream.write_all(format!("{head}{part}").as_bytes()).await.unwrap();
        }
        asked
    };
    let (outcome, asked) = soon("the follower's end", async { tokio::join!(following, answering) }).await;
    // It goes on where each stream broke off, and gives up on one that says nothing.
    assert_eq!(
        asked,
        [
            "GET /events?after=0 HTTP/1.1",
            "GET /events?after=a-1 HTTP/1.1",
            "GET /events?after=a-3 HTTP/1.1"
        ]
    );
    outcome.failed(3, "the stream of events ended unexpectedly");
    assert_eq!(outcome.stdout, "{\"id\":\"a-3\",\"type\":\"x\"}\n");
}

#[tokio::test]
async fn the_log_level_is_shown_and_changed() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    assert_eq!(serve.say("log-level").await, "the log level is warn\n");
    assert_eq!(
        serve.say("log-level info --tags relay,net").await,
        "the log level is info (relay, net only)\n"
    );
    assert_eq!(serve.say("log-level --tags all").await, "the log level is info\n");
    serve.ctl("log-level --tags kitchen").await.failed(1, "kitchen");
    serve.signal(nix::sys::signal::Signal::SIGTERM);
    let (status, said) = serve.end().await;
    assert!(status.success());
    // At the level it was started with it would have kept this to itself.
    assert!(said.contains("closing"), "{said}");
}

#[tokio::test]
async fn completion_scripts_are_complete() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = outcome(weir(["ctl", "completion", shell])).await.succeeded(shell);
        for word in ["weir", "serve", "ctl", "keyframe", "restart-ice"] {
            assert!(script.contains(word), "{word} is not in the script for {shell}");
        }
    }
    let script = outcome(weir(["ctl", "completion", "bash"]))
        .await
        .succeeded("completion");
    for option in ["--webrtc", "--fingerprint"] {
        assert!(script.contains(option), "{option} is not completed");
    }
    let mut bash = tokio::process::Command::new("bash");
    bash.arg("-n").stdout(Stdio::piped()).stderr(Stdio::piped());
    outcome_of(bash, script.as_bytes()).await.succeeded("bash -n");
}

#[tokio::test]
async fn a_reader_that_has_seen_enough_is_no_error() {
    let mut command = weir(["ctl", "completion", "zsh"]);
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = soon("the command's end", child.wait_with_output()).await.unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}
