//! Statistics that are told every so often: to whom, when, and that nothing of it is left behind.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::time::Instant;

use super::stage::{Stage, Trio, audio, told, transport};
use crate::server::fake::soon;
use crate::server::{
    ConsumerOptions, Direction, EnableOptions, Error, EventKind, EventStream, PlainTransportOptions, RtcStats, Side,
};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

/// The next report, as `producer 1`.
async fn reported(events: &mut EventStream) -> (String, Vec<RtcStats>) {
    loop {
        let event = soon(events.next()).await.unwrap();
        match &event.kind {
            EventKind::TransportStats { transport, stats, .. } => return (transport.to_string(), stats.clone()),
            EventKind::ProducerStats { producer, stats, .. } => return (producer.to_string(), stats.clone()),
            EventKind::ConsumerStats { consumer, stats, .. } => return (consumer.to_string(), stats.clone()),
            _ => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_application_is_told_at_once_and_then_every_so_often() {
    let trio = Trio::new().await;
    let mut events = trio.stage.server.events();
    trio.sending.enable_stats(3 * SECOND).unwrap();
    let begin = Instant::now();
    for round in 0..3 {
        let (of, stats) = reported(&mut events).await;
        assert_eq!(of, trio.sending.id().to_string());
        assert!(matches!(stats[..], [RtcStats::Transport(_)]), "{stats:?}");
        assert_eq!(begin.elapsed().as_secs(), 3 * round);
        // Enabled already: this changes nothing.
        trio.sending.enable_stats(SECOND).unwrap();
    }
    trio.sending.disable_stats().unwrap();
    trio.sending.disable_stats().unwrap();

    trio.producer.enable_stats(SECOND).unwrap();
    let (of, _) = reported(&mut events).await;
    assert_eq!(of, trio.producer.id().to_string());
    trio.producer.disable_stats().unwrap();

    trio.of_bob.enable_stats(SECOND).unwrap();
    let (of, stats) = reported(&mut events).await;
    assert_eq!(of, trio.of_bob.id().to_string());
    assert!(matches!(stats[..], [RtcStats::OutboundRtp(_)]), "{stats:?}");
    assert_eq!(trio.told(), [""; 0], "who did not ask is not told");
}

#[tokio::test(start_paused = true)]
async fn a_client_is_told_what_it_asked_for_and_nobody_else() {
    let trio = Trio::new().await;
    let mut events = trio.stage.server.events();
    trio.of_bob.enable_stats_by(Side::Remote, SECOND).unwrap();
    let mut notifications = trio.bob.notifications();
    for _ in 0..2 {
        let told = serde_json::to_value(soon(notifications.next()).await.unwrap()).unwrap();
        assert_eq!(told["method"], "consumerStats");
        assert_eq!(
            (&told["id"], &told["peerName"]),
            (&json!(trio.of_bob.id()), &json!("alice"))
        );
        assert_eq!(told["stats"][0]["type"], "outbound-rtp");
    }
    // Each has its own: the application's does not end the client's.
    trio.of_bob.enable_stats(SECOND).unwrap();
    assert_eq!(reported(&mut events).await.0, trio.of_bob.id().to_string());
    trio.of_bob.disable_stats().unwrap();
    soon(notifications.next()).await.unwrap();
    trio.of_bob.disable_stats_by(Side::Remote).unwrap();
    told(&trio.bob);
    trio.producer.enable_stats(SECOND).unwrap();
    for _ in 0..3 {
        assert_eq!(reported(&mut events).await.0, trio.producer.id().to_string());
    }
    assert_eq!(trio.told(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn what_is_paused_or_not_enabled_has_nothing_to_tell() {
    let trio = Trio::new().await;
    let mut events = trio.stage.server.events();
    soon(trio.producer.pause(Value::Null)).await.unwrap();
    trio.producer.enable_stats(SECOND).unwrap();
    trio.of_bob.enable_stats(SECOND).unwrap();
    trio.of_carol.enable_stats(SECOND).unwrap();
    // The transport tells how time passes.
    trio.sending.enable_stats(SECOND).unwrap();
    let sending = trio.sending.id().to_string();
    for _ in 0..4 {
        assert_eq!(reported(&mut events).await.0, sending, "the source is paused");
    }
    soon(trio.producer.resume(Value::Null)).await.unwrap();
    soon(trio.of_bob.pause(Value::Null)).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..8 {
        heard.push(reported(&mut events).await.0);
    }
    assert!(heard.contains(&trio.producer.id().to_string()), "{heard:?}");
    assert!(!heard.contains(&trio.of_bob.id().to_string()), "{heard:?}");
    assert!(!heard.contains(&trio.of_carol.id().to_string()), "{heard:?}");
    soon(trio.of_bob.resume(Value::Null)).await.unwrap();
    while reported(&mut events).await.0 != trio.of_bob.id().to_string() {}
    // A consumer that waits to be enabled is asked for from the beginning.
    let receiving = transport(&trio.carol, Direction::Recv).await;
    soon(trio.of_carol.enable(&receiving, EnableOptions::default()))
        .await
        .unwrap();
    while reported(&mut events).await.0 != trio.of_carol.id().to_string() {}
}

#[tokio::test(start_paused = true)]
async fn no_timer_is_left_when_the_thing_is_closed() {
    let trio = Trio::new().await;
    let mut events = trio.stage.server.events();
    let tasks = Handle::current().metrics();
    let before = tasks.num_alive_tasks();
    trio.producer.enable_stats(DAY).unwrap();
    trio.producer.enable_stats_by(Side::Remote, DAY).unwrap();
    trio.of_bob.enable_stats(Duration::MAX).unwrap();
    trio.receiving.enable_stats(DAY).unwrap();
    trio.receiving.enable_stats_by(Side::Remote, DAY).unwrap();
    assert_eq!(tasks.num_alive_tasks(), before + 5);
    for _ in 0..3 {
        reported(&mut events).await;
    }
    let begin = Instant::now();
    soon(trio.producer.close(Value::Null)).await.unwrap();
    until(|| tasks.num_alive_tasks() == before + 2).await;
    soon(trio.bob.leave(Value::Null)).await.unwrap();
    until(|| tasks.num_alive_tasks() == before).await;
    assert!(begin.elapsed() < SECOND, "none waited for its time");
    let closed = [
        trio.producer.enable_stats(SECOND),
        trio.of_bob.enable_stats_by(Side::Remote, SECOND),
        trio.receiving.enable_stats(SECOND),
        trio.producer.disable_stats(),
        trio.of_bob.disable_stats(),
        trio.receiving.disable_stats_by(Side::Remote),
    ];
    for result in closed {
        assert!(matches!(result, Err(Error::InvalidState { .. })), "{result:?}");
    }
}

/// Lets the others go on until it is so.
async fn until(mut so: impl FnMut() -> bool) {
    soon(async {
        while !so() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn too_often_and_to_nobody_are_refused() {
    let stage = Stage::new().await;
    let transport = soon(stage.room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    let producer = soon(transport.produce(audio(1))).await.unwrap();
    let consumer = soon(transport.consume(&producer, ConsumerOptions::default()))
        .await
        .unwrap();
    let refused = [
        transport.enable_stats(Duration::from_millis(999)),
        producer.enable_stats(Duration::ZERO),
        consumer.enable_stats(Duration::from_millis(999)),
        transport.enable_stats_by(Side::Remote, SECOND),
        producer.enable_stats_by(Side::Remote, SECOND),
        consumer.enable_stats_by(Side::Remote, SECOND),
    ];
    for result in refused {
        assert!(matches!(result, Err(Error::InvalidParameters(_))), "{result:?}");
    }
    // The application may ask for what is nobody's.
    let mut events = stage.server.events();
    consumer.enable_stats(SECOND).unwrap();
    assert_eq!(reported(&mut events).await.0, consumer.id().to_string());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_away_is_not_given_up_for_statistics() {
    let trio = Trio::new().await;
    let mut events = trio.stage.server.events();
    trio.receiving.enable_stats_by(Side::Remote, SECOND).unwrap();
    trio.receiving.enable_stats(SECOND).unwrap();
    for _ in 0..1_100 {
        reported(&mut events).await;
    }
    assert_eq!(trio.bob.notifications_waiting(), 1_024);
    assert!(!trio.bob.overflowed());
}

#[tokio::test(start_paused = true)]
async fn what_one_client_is_told_of_is_bounded() {
    let stage = Stage::new().await;
    let [alice, bob] = ["alice", "bob"].map(|name| stage.join(name));
    let mut senders = Vec::new();
    let mut ssrc = 0;
    // Eight others of whom each sends 32 tracks, and one with one more.
    for sender in 0..9 {
        let sender = stage.join(&format!("sender {sender}"));
        let transport = transport(&sender, Direction::Send).await;
        let tracks = if senders.len() == 8 { 1 } else { 32 };
        for _ in 0..tracks {
            ssrc += 1;
            soon(transport.produce(audio(ssrc))).await.unwrap();
        }
        senders.push(sender);
    }
    let consumers = alice.consumers();
    let [tracked @ .., last] = &consumers[..] else {
        panic!("alice receives from nobody")
    };
    assert_eq!(tracked.len(), 256);
    for consumer in tracked {
        consumer.enable_stats_by(Side::Remote, SECOND).unwrap();
        // Once more takes no other place.
        consumer.enable_stats_by(Side::Remote, SECOND).unwrap();
    }
    let refused = last.enable_stats_by(Side::Remote, SECOND).unwrap_err();
    assert_eq!(
        (refused.code(), refused.to_string().as_str()),
        (
            "tooMany",
            r#"peer "alice" is at its limit of 256 reports of statistics"#
        )
    );
    // The application and other clients have their own.
    last.enable_stats(SECOND).unwrap();
    bob.consumers()[0].enable_stats_by(Side::Remote, SECOND).unwrap();
    // What ends leaves its place.
    tracked[0].disable_stats_by(Side::Remote).unwrap();
    until(|| last.enable_stats_by(Side::Remote, SECOND).is_ok()).await;
}
