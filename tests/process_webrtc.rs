//! WebRTC transports with real workers: clients that speak the mediasoup protocol on WebSockets connect, prove who they are
//! and hear each other; those that are not who they said they were do not.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod browser;
mod control;
mod loopback;
mod signalling;

use rcgen::{CertificateParams, KeyPair};
use serde_json::{Value, json};
use weir::http::{ControlOptions, Limits};
use weir::{
    CodecName, ConnectedSockets, DtlsParameters, DtlsRole, DtlsState, EventKind, IceState, Room, RoomOptions,
    RtpCodecCapability, Settings, Transport, WebRtcFailureReason, WebRtcTransportOptions,
};

use browser::{Begins, Browser};
use control::{Control, free_ports, settings, soon};
use signalling::{Caller, create_microphone, enable_consumer};

const SSRC: u32 = 1_000;

/// Opus, as clients send it.
const THEIRS: u8 = 111;

/// Opus, as the room has it.
const ROOMS: u8 = 100;

async fn room(control: &Control) -> Room {
    let options = RoomOptions {
        media_codecs: Some(vec![RtpCodecCapability::new(CodecName::Opus)]),
        ..RoomOptions::default()
    };
    soon("the room", control.server.create_room(options)).await.unwrap()
}

async fn joined(control: &Control, room: &Room, name: &str) -> Caller {
    let mut caller = Caller::connect(&control.path, room.id().0, name).await;
    caller.join(name, Value::Null).await;
    caller
}

fn create_transport(id: i64, direction: &str, dtls: Option<Value>) -> Value {
    let mut request = json!({
        "method": "createTransport", "target": "peer", "id": id, "direction": direction,
        "options": {"udp": true, "tcp": true, "preferIPv4": false}, "appData": {}
    });
    if let Some(dtls) = dtls {
        request["dtlsParameters"] = dtls;
    }
    request
}

fn only_transport(room: &Room, name: &str) -> Transport {
    room.peer(name).unwrap().transports().remove(0)
}

/// Alice sends opus, on a transport whose handshake the server begins, as Chromium's first transport does.
async fn alice_sends(control: &Control, room: &Room) -> (Caller, Browser) {
    let mut alice = joined(control, room, "alice").await;
    let mut sending = Browser::new(Begins::There, THEIRS).await;
    let dtls = sending.dtls_parameters();
    let answer = alice.request(create_transport(1, "send", Some(dtls))).await.unwrap();
    assert_eq!(answer["dtlsParameters"]["role"], "client");
    assert_eq!(answer["iceCandidates"].as_array().unwrap().len(), 2);
    sending.connect(&answer);
    sending.declare_sent("0", SSRC);
    assert_eq!(alice.request(create_microphone(5, 1, SSRC)).await, Ok(Value::Null));
    (alice, sending)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_connect_and_one_hears_the_other() {
    let control = Control::start().await;
    let room = room(&control).await;
    let mut events = control.server.events();
    let (mut alice, mut sending) = alice_sends(&control, &room).await;

    // Bob makes his transport first and says who he is later, as the client for browsers does.
    let mut bob = joined(&control, &room, "bob").await;
    let mut receiving = Browser::new(Begins::Here, ROOMS).await;
    let answer = bob.request(create_transport(2, "recv", None)).await.unwrap();
    assert_eq!(answer["dtlsParameters"]["role"], "auto");
    receiving.connect(&answer);
    let dtls = receiving.dtls_parameters();
    bob.notify(json!({
        "method": "updateTransport", "target": "peer", "notification": true, "id": 2, "dtlsParameters": dtls
    }))
    .await;
    let consumer = room.peer("bob").unwrap().consumers().remove(0);
    let answer = bob.request(enable_consumer(&json!(consumer.id().0), 2)).await.unwrap();
    assert_eq!(answer["paused"], false);
    let ssrc = consumer.rtp_parameters().encodings[0].ssrc.unwrap();
    receiving.declare_received("0", ssrc);

    sending.run_until("alice", |sending| sending.connected).await;
    receiving.run_until("bob", |receiving| receiving.connected).await;
    let transport = only_transport(&room, "alice").webrtc().unwrap();
    sending
        .run_until("the server to know alice", |_| {
            transport.dtls_state() == DtlsState::Connected && transport.ice_state() == IceState::Completed
        })
        .await;
    let of_bob = only_transport(&room, "bob").webrtc().unwrap();
    receiving
        .run_until("the server to know bob", |_| {
            of_bob.dtls_state() == DtlsState::Connected
        })
        .await;
    assert_eq!(of_bob.dtls_local_parameters().role, DtlsRole::Server);
    let pem = transport.dtls_remote_cert().unwrap();
    assert!(pem.starts_with("-----BEGIN CERTIFICATE-----\n"), "{pem}");

    let mut heard = 0;
    for seq in 1..=100_u8 {
        sending.send(SSRC, THEIRS, seq.into(), &[0xf8, 0xff, 0xfe, seq]);
        sending.run_until("what is in line", |_| true).await;
        receiving
            .run_until("the packet", |receiving| !receiving.packets.is_empty())
            .await;
        for packet in receiving.packets.drain(..) {
            assert_eq!((*packet.header.ssrc, *packet.header.payload_type), (ssrc, ROOMS));
            assert_eq!(packet.payload.last(), Some(&seq));
            heard += 1;
        }
    }
    assert_eq!(heard, 100);

    // What the server says of it, under mediasoup's names.
    let stats = soon("statistics", transport.get_stats()).await.unwrap();
    let stats = serde_json::to_value(&stats[0]).unwrap();
    assert_eq!(
        (&stats["type"], &stats["iceConnectionState"], &stats["dtlsState"]),
        (&json!("transport"), &json!("completed"), &json!("connected"))
    );
    assert_eq!(stats["iceSelectedTuple"]["protocol"], "udp");
    assert!(stats["bytesReceived"].as_u64() > Some(1_000));
    let stats = soon("statistics", of_bob.stats()).await.unwrap();
    let profile = stats.webrtc.unwrap().srtp_profile;
    assert!(
        profile.as_deref().is_some_and(|name| name.starts_with("AE")),
        "{profile:?}"
    );

    // New credentials do not disturb what flows.
    let answer = alice
        .request(json!({"method": "restartTransport", "target": "peer", "id": 1}))
        .await
        .unwrap();
    let now = serde_json::to_value(transport.ice_parameters()).unwrap();
    assert_eq!(answer, json!({ "iceParameters": now }));
    sending.send(SSRC, THEIRS, 101, &[0xf8, 0xff, 0xfe, 101]);
    sending.run_until("what is in line", |_| true).await;
    receiving
        .run_until("the packet", |receiving| !receiving.packets.is_empty())
        .await;

    // And how it came about, in order.
    let mut told = Vec::new();
    while told.len() < 5 {
        match soon("an event", events.next()).await.unwrap().kind.clone() {
            EventKind::IceSelectedTupleChanged {
                transport: of, tuple, ..
            } if of == transport.id() => {
                told.push(format!("tuple {}", tuple.is_some()));
            }
            EventKind::IceStateChanged {
                transport: of, state, ..
            } if of == transport.id() && state == IceState::Completed => {
                // Before or after DTLS, the client decides.
                told.push("ice completed".to_owned());
            }
            EventKind::DtlsStateChanged {
                transport: of, state, ..
            } if of == transport.id() => {
                told.push(format!("dtls {state:?}"));
                if state == DtlsState::Connected {
                    break;
                }
            }
            _ => {}
        }
    }
    assert_eq!(told.first().map(String::as_str), Some("tuple true"), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("dtls Connected"), "{told:?}");
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_with_another_certificate_hears_nothing() {
    let control = Control::start().await;
    let mut events = control.server.events();
    let room = room(&control).await;
    let (_alice, mut sending) = alice_sends(&control, &room).await;
    sending.run_until("alice", |sending| sending.connected).await;

    // Mallory has taken over bob's signalling, but not his key.
    let mut bob = joined(&control, &room, "bob").await;
    let mut mallory = Browser::new(Begins::Here, ROOMS).await;
    let bobs = Browser::new(Begins::Here, ROOMS).await.dtls_parameters();
    let answer = bob.request(create_transport(2, "recv", Some(bobs))).await.unwrap();
    mallory.connect(&answer);
    let consumer = room.peer("bob").unwrap().consumers().remove(0);
    bob.request(enable_consumer(&json!(consumer.id().0), 2)).await.unwrap();
    mallory.declare_received("0", consumer.rtp_parameters().encodings[0].ssrc.unwrap());
    let transport = only_transport(&room, "bob").webrtc().unwrap();
    mallory
        .run_until("the end", |_| transport.dtls_state() == DtlsState::Failed)
        .await;
    assert_eq!(transport.dtls_remote_cert(), None);
    // Whoever operates the server is told why, in events, on the transport and in the counters.
    let failure = transport.failure().unwrap();
    assert_eq!(failure.reason, WebRtcFailureReason::Fingerprint);
    assert!(failure.message.contains("fingerprint"), "{failure:?}");
    loop {
        let event = soon("the event", events.next()).await.unwrap();
        if let EventKind::DtlsStateChanged {
            transport: of,
            failure: Some(told),
            ..
        } = &event.kind
        {
            assert_eq!((*of, told), (transport.id(), &failure));
            break;
        }
    }
    mallory
        .run_until("the refusal", |mallory| mallory.refused.is_some())
        .await;
    for seq in 1..=20 {
        sending.send(SSRC, THEIRS, seq, &[0xf8, 0xff, 0xfe, 1]);
        sending.run_until("what is in line", |_| true).await;
    }
    let producer = room.peer("alice").unwrap().producers().remove(0);
    while soon("statistics", producer.stats()).await.unwrap().streams[0].packets < 20 {
        sending.run_until("what is in line", |_| true).await;
    }
    assert_eq!(soon("statistics", consumer.stats()).await.unwrap().packets_forwarded, 0);
    mallory.run_until("what is there", |_| true).await;
    assert!(mallory.packets.is_empty());
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_from_files_is_what_every_worker_shows() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        Some(path)
    };
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::default().self_signed(&key).unwrap();
    let settings = Settings {
        dtls_certificate_file: file("certificate.pem", certificate.pem()),
        dtls_private_key_file: file("key.pem", key.serialize_pem()),
        ..settings(2)
    };
    let control = Control::start_with(settings, Limits::default(), ControlOptions::default()).await;
    let mut shown = Vec::new();
    for _ in 0..2 {
        let room = room(&control).await;
        let made = room.create_webrtc_transport(WebRtcTransportOptions::default());
        let transport = soon("a transport", made).await.unwrap();
        shown.push((room.worker(), transport.dtls_local_parameters().fingerprints));
    }
    assert_ne!(shown[0].0, shown[1].0, "two workers");
    assert_eq!(shown[0].1, shown[1].1, "one certificate");
    let expected = weir_worker::webrtc::dtls::Certificate::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap();
    let expected: Vec<String> = expected.fingerprints().iter().map(ToString::to_string).collect();
    let values: Vec<&str> = shown[0].1.iter().map(|each| each.value.as_str()).collect();
    assert_eq!(values, expected);
    control.close().await;
}

/// A server with one worker, whose clients share a port.
async fn on_one_port(connected: ConnectedSockets) -> (Control, u16) {
    let port = free_ports(1);
    let settings = Settings {
        webrtc_port: std::num::NonZeroU16::new(port),
        webrtc_connected: connected,
        ..settings(1)
    };
    let control = Control::start_with(settings, Limits::default(), ControlOptions::default()).await;
    (control, port)
}

/// How many UDP sockets of a port are connected, as the kernel has it.
fn connected_sockets(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/udp").unwrap();
    let local = format!(":{port:04X}");
    let rows = table
        .lines()
        .skip(1)
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|words| words[1].ends_with(&local) && !words[2].ends_with(":0000"))
        .count()
}

/// Whether connected sockets of one port are found by both addresses: from Linux 6.13 on.
fn kernel_has_four_tuple_hash() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(13))
}

/// Alice sends and two others hear her, all on one port; whoever hears her, hears all of it.
async fn three_on_one_port(control: &Control, port: u16, connected: usize) {
    let room = room(control).await;
    let (_alice, mut sending) = alice_sends(control, &room).await;
    sending.run_until("alice", |sending| sending.connected).await;
    let mut receivers = Vec::new();
    for name in ["bob", "carol"] {
        let mut caller = joined(control, &room, name).await;
        let mut receiving = Browser::new(Begins::Here, ROOMS).await;
        let dtls = receiving.dtls_parameters();
        let answer = caller.request(create_transport(2, "recv", Some(dtls))).await.unwrap();
        for candidate in answer["iceCandidates"].as_array().unwrap() {
            assert_eq!(candidate["port"], port, "{answer}");
        }
        receiving.connect(&answer);
        let consumer = room.peer(name).unwrap().consumers().remove(0);
        caller
            .request(enable_consumer(&json!(consumer.id().0), 2))
            .await
            .unwrap();
        let ssrc = consumer.rtp_parameters().encodings[0].ssrc.unwrap();
        receiving.declare_received("0", ssrc);
        let transport = only_transport(&room, name).webrtc().unwrap();
        receiving
            .run_until(name, |receiving| {
                receiving.connected && transport.dtls_state() == DtlsState::Connected
            })
            .await;
        receivers.push((caller, receiving, ssrc));
    }
    sending
        .run_until("the connected sockets", |_| connected_sockets(port) == connected)
        .await;
    for seq in 1..=50_u8 {
        sending.send(SSRC, THEIRS, seq.into(), &[0xf8, 0xff, 0xfe, seq]);
        sending.run_until("what is in line", |_| true).await;
        for (_, receiving, ssrc) in &mut receivers {
            receiving
                .run_until("the packet", |receiving| !receiving.packets.is_empty())
                .await;
            let packet = receiving.packets.remove(0);
            assert_eq!((*packet.header.ssrc, packet.payload.last()), (*ssrc, Some(&seq)));
        }
    }
    let stats = soon("statistics", control.server.worker_stats(room.worker()))
        .await
        .unwrap();
    assert_eq!(stats.unrouted, 0);
    soon("the end of the room", room.close(Value::Null)).await.unwrap();
    sending
        .run_until("the sockets to go", |_| connected_sockets(port) == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_share_a_port_and_a_successor_of_the_worker_has_it_too() {
    for connected in [ConnectedSockets::Auto, ConnectedSockets::Never] {
        let (control, port) = on_one_port(connected).await;
        let expected = match connected {
            ConnectedSockets::Auto if kernel_has_four_tuple_hash() => 3,
            _ => 0,
        };
        three_on_one_port(&control, port, expected).await;
        let mut events = control.server.events();
        let pid = control.server.workers()[0].pid.unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(pid.try_into().unwrap()),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
        while !matches!(
            soon("a successor", events.next()).await.unwrap().kind,
            EventKind::WorkerStarted { .. }
        ) {}
        three_on_one_port(&control, port, expected).await;
        control.close().await;
    }
}

#[test]
fn a_port_that_somebody_has_is_told_by_the_command() {
    let somebody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = somebody.local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_weir"))
        .args([
            "serve",
            "--workers",
            "1",
            "--rtc-ipv4",
            "127.0.0.1",
            "--rtc-ipv6",
            "off",
        ])
        .args(["--webrtc-port", &port.to_string()])
        .arg("--control")
        .arg(folder.path().join("weir.sock"))
        .env_remove("WEIR_CONFIG")
        .output()
        .unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success(), "{error}");
    assert!(
        error.contains(&format!("TCP 127.0.0.1:{port}")) && error.contains("choose another webrtc_port"),
        "{error}"
    );
}

/// Whose certificate was announced by a weak fingerprint only is refused, unless the operator lets such ones in.
#[tokio::test]
async fn weak_fingerprints_are_taken_where_they_are_allowed() {
    for allowed in [false, true] {
        let settings = Settings {
            dtls_weak_fingerprints: allowed,
            dtls_13: allowed,
            ..settings(1)
        };
        let control = Control::start_with(settings, Limits::default(), ControlOptions::default()).await;
        let room = room(&control).await;
        let transport = soon(
            "a transport",
            room.create_webrtc_transport(WebRtcTransportOptions::default()),
        )
        .await;
        let value = vec!["AB"; 20].join(":");
        let parameters: DtlsParameters =
            serde_json::from_value(json!({"fingerprints": [{"algorithm": "sha-1", "value": value}]})).unwrap();
        let answer = soon("an answer", transport.unwrap().set_remote_dtls_parameters(parameters)).await;
        assert_eq!(answer.is_ok(), allowed, "{answer:?}");
        if let Err(error) = answer {
            assert!(
                error.to_string().contains("sha-256, sha-384 or sha-512 is needed"),
                "{error}"
            );
        }
        control.close().await;
    }
}
