//! Audio levels: measured while somebody listens, and told to all who do.

use weir_channel::message::{Method, Notification, WorkerError};

use super::stage::{Stage, audio, transport};
use crate::server::Direction;
use crate::server::fake::soon;

#[tokio::test]
async fn the_worker_measures_while_somebody_listens() {
    let mut stage = Stage::new().await;
    let room = stage.room.id();
    let switch = |enabled| Method::SetAudioLevels { room, enabled };
    let alice = stage.join("alice");
    let sending = transport(&alice, Direction::Send).await;
    let producer = soon(sending.produce(audio(1))).await.unwrap();
    stage.forget(&[]);

    // Nobody has asked: a worker that tells all the same is not listened to.
    let levels = |producer| Notification::AudioLevels {
        room,
        levels: vec![(producer, -30), (weir_channel::id::ProducerId(99), -10)],
    };
    stage.say(levels(producer.id()));
    let mut first = soon(stage.room.audio_levels()).await.unwrap();
    assert_eq!(stage.requests(), [switch(true)]);
    let mut second = soon(stage.room.audio_levels()).await.unwrap();
    let event = stage.hear(levels(producer.id())).await;
    assert_eq!(event, r#"audioLevels levels=[{"levelDbov":-30,"producer":1}]"#);
    for stream in [&mut first, &mut second] {
        let heard = soon(stream.next()).await.unwrap();
        assert_eq!(heard.len(), 1, "a producer that nobody knows is left out");
        assert_eq!((heard[0].producer.id(), heard[0].level_dbov), (producer.id(), -30));
    }
    stage.requests();
    drop(first);
    stage.hear(levels(producer.id())).await;
    assert!(stage.requests().is_empty(), "the other one still listens");
    drop(second);
    // Another request is behind it in the queue.
    soon(producer.pause(serde_json::Value::Null)).await.unwrap();
    assert_eq!(stage.requests()[0], switch(false));

    let mut third = soon(stage.room.audio_levels()).await.unwrap();
    soon(stage.room.close(serde_json::Value::Null)).await.unwrap();
    assert!(soon(third.next()).await.is_none());
    let error = soon(stage.room.audio_levels()).await.unwrap_err();
    assert_eq!(error.code(), "invalidState");
}

#[tokio::test]
async fn one_who_was_refused_does_not_count() {
    let stage = Stage::new().await;
    let room = stage.room.id();
    stage.refuse(WorkerError::DeadlinePassed);
    let (refused, accepted) = soon(async { tokio::join!(stage.room.audio_levels(), stage.room.audio_levels()) }).await;
    assert_eq!(refused.unwrap_err().code(), "timeout");
    let accepted = accepted.unwrap();
    stage.join("alice");
    drop(accepted);
    let peer = stage.join("bob");
    transport(&peer, Direction::Send).await;
    let switched: Vec<Method> = stage
        .requests()
        .into_iter()
        .filter(|method| matches!(method, Method::SetAudioLevels { .. }))
        .collect();
    let switch = |enabled| Method::SetAudioLevels { room, enabled };
    assert_eq!(switched, [switch(true), switch(true), switch(false)]);
}
