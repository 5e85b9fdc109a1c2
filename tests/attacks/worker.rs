//! A worker that has been taken over by whoever sent it a packet that it should not have read, against the supervisor and the
//! rooms of another worker. The worker itself is [`hostile`](crate::hostile). When it goes past a bound, it is replaced.

use std::time::Duration;

use serde_json::{Value, json};

use crate::Scale;
use crate::arena::{Arena, Figures, Site, number};
use crate::call;
use crate::control::Client;
use crate::flood::time;
use crate::hostile::{Deed, MANY_EVENTS};
use crate::innocents::numbered;
use crate::meters::now;

/// What the supervisor may write of a worker's words: in a second, and at once.
const LOG_PER_SECOND: f64 = 256.0 * 1024.0;
const LOG_AT_ONCE: f64 = 1024.0 * 1024.0;

/// What a line of a log must not have: the beginning of the line anew, text that reads backwards, commands of terminals.
pub(crate) const TERMINAL: [char; 3] = ['\r', '\u{202e}', '\u{1b}'];

/// A worker is replaced in this time after it has gone too far.
const REPLACED_AFTER: Duration = Duration::from_secs(60);

async fn open(scale: Scale, deed: Deed, options: &'static [&'static str]) -> (Arena, Client, u64) {
    let site = Site {
        hostile: Some(deed),
        options,
        ..Site::PLAIN
    };
    let arena = Arena::open_at(scale, site).await;
    let mut client = arena.client().await;
    let room = if deed == Deed::PingsOnly {
        0
    } else {
        call::room(&mut client, 1).await
    };
    (arena, client, room)
}

/// Waits until the first worker is replaced, which it must be with this in the event's reason, and a call goes through its
/// successor. Returns what it cost.
async fn close_replaced(arena: Arena, reason: &str) -> Figures {
    let began = now();
    let cause = loop {
        let events = arena.get("/events/recent?kind=workerDied").await;
        let mut events = events["items"].as_array().unwrap().iter();
        if let Some(event) = events.find(|event| event["worker"] == 1) {
            assert!(event["restartInMs"].is_u64(), "{event}");
            break event["cause"].clone();
        }
        assert!(now() - began < REPLACED_AFTER, "the worker goes on");
        arena.pass(Duration::from_millis(20)).await;
    };
    let replaced = now() - began;
    assert_eq!(cause["kind"], "misbehaved", "{cause}");
    assert!(cause["reason"].as_str().unwrap().contains(reason), "{cause}");
    call_through_successor(&arena).await;
    let figures = arena.close_with_replaced_workers().await;
    figures.with("ms until it was replaced", replaced.as_millis() as u64)
}

/// A new room of the first worker relays a call.
async fn call_through_successor(arena: &Arena) {
    const SSRC: u32 = 0x9000;
    let mut client = arena.client().await;
    let began = now();
    let room = loop {
        let room = client.post("/rooms", json!({"worker": 1})).await;
        if room.status == 201 {
            break number(&room.body["id"]);
        }
        assert!(now() - began < REPLACED_AFTER, "no successor: {}", room.text);
        arena.pass(Duration::from_millis(20)).await;
    };
    let (microphone, speaker) = (arena.home(), arena.home());
    speaker.set_nonblocking(true).unwrap();
    let remote = |socket: &std::net::UdpSocket| json!({"remote": {"rtp": socket.local_addr().unwrap()}});
    let (sender, sends) = call::plain(&mut client, room, remote(&microphone)).await;
    let (receiver, _) = call::plain(&mut client, room, remote(&speaker)).await;
    let producer = call::produce(&mut client, sender, call::microphone(SSRC)).await;
    call::consume(&mut client, receiver, producer, SSRC + 1).await;
    let mut number = 0;
    arena
        .until("a call through the successor", || {
            number += 1;
            let _ = microphone.send_to(&numbered(SSRC, number), sends);
            let mut bytes = [0; 2_000];
            speaker
                .recv(&mut bytes)
                .is_ok_and(|_| bytes[8..12] == (SSRC + 1).to_be_bytes())
        })
        .await;
}

/// Asks a worker for the counters of a room, for which it has no end.
async fn ask_for_counters(scale: Scale, deed: Deed, reason: &str) -> Figures {
    let (arena, mut client, room) = open(scale, deed, &[]).await;
    call::plain(&mut client, room, json!({})).await;
    let answer = client.get(&format!("/rooms/{room}/stats")).await;
    assert_ne!(answer.status, 200, "{} bytes", answer.text.len());
    close_replaced(arena, reason).await
}

pub(crate) async fn counters_without_end(scale: Scale) -> Figures {
    ask_for_counters(scale, Deed::RisingCursor, "entries of a page").await
}

pub(crate) async fn pages_without_end(scale: Scale) -> Figures {
    ask_for_counters(scale, Deed::OneMorePage, "pages").await
}

/// Lets a worker talk, and returns how much of it the server has written down.
async fn talk(scale: Scale, deed: Deed, reason: &str) -> Figures {
    let (arena, mut client, room) = open(scale, deed, &[]).await;
    let (before, began) = (arena.logged(), now());
    call::plain(&mut client, room, json!({})).await;
    arena.until("the first lines", || arena.logged() > before + 1_000).await;
    arena.pass(time(scale)).await;
    let logged = arena.logged() - before;
    let passed = (now() - began).as_secs_f64();
    assert!(
        logged as f64 <= LOG_AT_ONCE + LOG_PER_SECOND * passed,
        "{logged} bytes in {passed} s"
    );
    let log = arena.log();
    assert!(!log.contains(TERMINAL), "what a worker says drives no terminal");
    assert!(log.contains("dropped"), "how much is not told is told");
    close_replaced(arena, reason).await.with("bytes logged", logged)
}

pub(crate) async fn a_log_without_end(scale: Scale) -> Figures {
    talk(scale, Deed::Log, "log lines without end").await
}

pub(crate) async fn an_error_output_without_end(scale: Scale) -> Figures {
    talk(scale, Deed::Stderr, "standard error without end").await
}

pub(crate) async fn events_without_end(scale: Scale) -> Figures {
    let (arena, mut client, room) = open(scale, Deed::Events, &[]).await;
    let target = format!("/rooms/{room}/webrtc-transports");
    // The worker may be gone by the time that it answers.
    client.post(&target, json!({})).await;
    arena.pass(time(scale)).await;
    // What happens to others keeps its place in the log.
    assert_others_are_told_of(&arena).await;
    let told = events_told(&arena, &mut "0".to_owned()).await;
    close_replaced(arena, "notifications without end")
        .await
        .with("events told", told)
}

/// What happened to the innocent is in the log of events from its first moment on.
async fn assert_others_are_told_of(arena: &Arena) {
    let of_room = arena.get(&format!("/events/recent?room={}", arena.room)).await;
    let types = |events: &Value| {
        let events = events["items"].as_array().unwrap().iter();
        events
            .map(|event| event["type"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let first = [
        "roomOpened",
        "transportOpened",
        "transportOpened",
        "producerOpened",
        "consumerOpened",
    ];
    assert!(types(&of_room).starts_with(&first.map(str::to_owned)), "{of_room}");
}

/// How many events there have been. Reads on from a position.
async fn events_told(arena: &Arena, position: &mut String) -> u64 {
    loop {
        let part = arena.get(&format!("/events/recent?after={position}")).await;
        *position = part["position"].as_str().unwrap().to_owned();
        if part["more"] == false {
            return position.rsplit('-').next().unwrap().parse().unwrap();
        }
    }
}

pub(crate) async fn events_within_bounds(scale: Scale) -> Figures {
    let (arena, mut client, room) = open(scale, Deed::ManyEvents, &[]).await;
    let target = format!("/rooms/{room}/webrtc-transports");
    // Who serves so much may tell as much as the log can keep.
    for _ in 0..MANY_EVENTS.transports {
        client.post(&target, json!({})).await.expect(201);
    }
    let (began, mut position) = (now(), "0".to_owned());
    let told = loop {
        let told = events_told(&arena, &mut position).await;
        if told >= MANY_EVENTS.events {
            break told;
        }
        assert!(now() - began < REPLACED_AFTER, "{told} events");
        arena.pass(Duration::from_millis(50)).await;
    };
    assert_others_are_told_of(&arena).await;
    arena.close().await.with("events told", told)
}

pub(crate) async fn a_huge_certificate(scale: Scale) -> Figures {
    let (arena, mut client, room) = open(scale, Deed::Certificate, &[]).await;
    let target = format!("/rooms/{room}/webrtc-transports");
    let transport = client.post(&target, json!({})).await;
    arena.pass(Duration::from_millis(300)).await;
    let shown = client.get(&format!("/transports/{}", transport.body["id"])).await;
    let kept = shown.body["webrtc"]["dtlsRemoteCert"].as_str().map_or(0, str::len);
    assert!(kept <= 64 * 1024, "{kept} bytes are kept");
    close_replaced(arena, "bytes of a certificate")
        .await
        .with("bytes kept", kept as u64)
}

pub(crate) async fn things_of_others(scale: Scale) -> Figures {
    let (arena, mut client, room) = open(scale, Deed::Others, &[]).await;
    let target = format!("/transports/{}", arena.sender);
    let before = client.get(&target).await.expect(200);
    call::plain(&mut client, room, json!({})).await;
    arena.pass(Duration::from_millis(300)).await;
    assert_eq!(client.get(&target).await.expect(200), before);
    let events = arena.get(&format!("/events/recent?room={}", arena.room)).await;
    let forged = [
        "remoteLearned",
        "iceStateChanged",
        "dtlsStateChanged",
        "producerSsrcChanged",
        "audioLevels",
    ];
    let is_forged = |event: &&Value| event["type"].as_str().is_some_and(|kind| forged.contains(&kind));
    let forged = events["items"].as_array().unwrap().iter().filter(is_forged).count();
    assert_eq!(forged, 0);
    close_replaced(arena, "it spoke of")
        .await
        .with("forged events", forged as u64)
}

/// Lets a worker hand over descriptors until it is replaced.
async fn hand_over(scale: Scale, deed: Deed, reason: &str) -> Figures {
    let (arena, mut client, room) = open(scale, deed, &[]).await;
    // The worker may be gone by the time that it answers.
    client
        .post(&format!("/rooms/{room}/webrtc-transports"), json!({}))
        .await;
    close_replaced(arena, reason).await
}

pub(crate) async fn connections_without_end(scale: Scale) -> Figures {
    hand_over(scale, Deed::Connections, "connections of one transport").await
}

pub(crate) async fn descriptors_that_nobody_wants(scale: Scale) -> Figures {
    hand_over(scale, Deed::Descriptors, "sent 1 file descriptors").await
}

/// Those who wait for a worker that does nothing do not wait for long.
const PINGS: &[&str] = &["--request-timeout", "1s", "--ping-interval", "100ms"];

pub(crate) async fn answering_pings_only(scale: Scale) -> Figures {
    let (arena, mut client, _) = open(scale, Deed::PingsOnly, PINGS).await;
    let mut failed = 0_u64;
    // Whoever operates it is told, or the worker is replaced.
    let mut noticed = false;
    for _ in 0..40 {
        let room = client.post("/rooms", json!({})).await;
        failed += u64::from(room.status != 201);
        let health = client.get("/health").await;
        let died = client.get("/events/recent?kind=workerDied").await.expect(200);
        noticed |= health.body["status"] != "ok" || died["items"] != json!([]);
        if noticed && failed > 10 {
            break;
        }
    }
    assert!(noticed, "nobody was told that {failed} of 40 rooms failed");
    assert!(failed <= 10, "{failed} rooms went to a worker that does nothing");
    close_replaced(arena, "answers pings")
        .await
        .with("rooms that failed", failed)
}
