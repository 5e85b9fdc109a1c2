//! A worker that has been taken over by whoever sent it a packet that it should not have read, against the supervisor and the
//! rooms of another worker. The worker itself is [`hostile`].

use std::time::Duration;

use serde_json::{Value, json};

use crate::Scale;
use crate::arena::{Arena, Figures, Site};
use crate::call;
use crate::control::Client;
use crate::flood::time;
use crate::hostile::Deed;
use crate::meters::now;

/// What the supervisor may write of a worker's words: in a second, and at once.
const LOG_PER_SECOND: f64 = 256.0 * 1024.0;
const LOG_AT_ONCE: f64 = 1024.0 * 1024.0;

/// What a line of a log must not have: the beginning of the line anew, text that reads backwards, commands of terminals.
pub(crate) const TERMINAL: [char; 3] = ['\r', '\u{202e}', '\u{1b}'];

/// A worker is replaced in this time after it has gone too far.
const REPLACED_AFTER: Duration = Duration::from_secs(10);

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

/// Why the first worker was replaced, if it is within a while.
async fn replaced(arena: &Arena) -> Option<String> {
    let began = now();
    while now() - began < REPLACED_AFTER {
        let events = arena.get("/events/recent?kind=workerDied").await;
        if let Some(event) = events["items"]
            .as_array()
            .unwrap()
            .iter()
            .find(|event| event["worker"] == 1)
        {
            return Some(event["cause"].to_string());
        }
        arena.pass(Duration::from_millis(50)).await;
    }
    None
}

pub(crate) async fn counters_without_end(scale: Scale) -> Figures {
    let (arena, mut client, room) = open(scale, Deed::RisingCursor, &[]).await;
    call::plain(&mut client, room, json!({})).await;
    let answer = client.get(&format!("/rooms/{room}/stats")).await;
    assert_ne!(answer.status, 200, "{} bytes", answer.text.len());
    let reason = replaced(&arena).await;
    assert!(reason.is_some(), "the worker goes on");
    arena.close_with_replaced_workers().await
}

/// Lets a worker talk, and returns how much of it the server has written down.
async fn talk(scale: Scale, deed: Deed) -> Figures {
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
    let figures = arena.close_with_replaced_workers().await;
    figures.with("bytes logged", logged)
}

pub(crate) async fn a_log_without_end(scale: Scale) -> Figures {
    talk(scale, Deed::Log).await
}

pub(crate) async fn an_error_output_without_end(scale: Scale) -> Figures {
    talk(scale, Deed::Stderr).await
}

pub(crate) async fn events_without_end(scale: Scale) -> Figures {
    let (arena, mut client, room) = open(scale, Deed::Events, &[]).await;
    let target = format!("/rooms/{room}/webrtc-transports");
    // The worker may be gone by the time that it answers.
    client.post(&target, json!({})).await;
    arena.pass(time(scale)).await;
    // What happens to others keeps its place in the log.
    let events = arena.get(&format!("/events/recent?room={}", arena.room)).await;
    let events = events["items"].as_array().unwrap();
    assert!(
        events.iter().any(|event| event["type"] == "roomOpened"),
        "{} events",
        events.len()
    );
    let all = arena.get("/events/recent?limit=1").await;
    let position = all["position"]
        .as_str()
        .unwrap()
        .rsplit('-')
        .next()
        .unwrap()
        .parse::<u64>()
        .unwrap();
    let figures = arena.close_with_replaced_workers().await;
    figures.with("position in the log", position)
}

pub(crate) async fn a_huge_certificate(scale: Scale) -> Figures {
    let (arena, mut client, room) = open(scale, Deed::Certificate, &[]).await;
    let target = format!("/rooms/{room}/webrtc-transports");
    let transport = client.post(&target, json!({})).await;
    arena.pass(Duration::from_millis(300)).await;
    let shown = client.get(&format!("/transports/{}", transport.body["id"])).await;
    let kept = shown.body["webrtc"]["dtlsRemoteCert"].as_str().map_or(0, str::len);
    assert!(kept <= 64 * 1024, "{kept} bytes are kept");
    let figures = arena.close_with_replaced_workers().await;
    figures.with("bytes kept", kept as u64)
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
    arena
        .close_with_replaced_workers()
        .await
        .with("forged events", forged as u64)
}

pub(crate) async fn answering_pings_only(scale: Scale) -> Figures {
    let (arena, mut client, _) = open(scale, Deed::PingsOnly, &["--request-timeout", "200ms"]).await;
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
    let figures = arena.close_with_replaced_workers().await;
    figures.with("rooms that failed", failed)
}
