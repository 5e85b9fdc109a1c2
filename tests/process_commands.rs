//! Commands through one channel to a real worker: many, at once, and in order.

#![allow(clippy::unwrap_used, reason = "tests")]

mod loopback;
mod processes;

use futures::future::join_all;
use serde_json::Value;
use weir::{
    CodecName, Consumer, ConsumerOptions, EventKind, MediaKind, PlainTransportOptions, Producer, ProducerOptions, Room,
    RoomOptions, RtpCodec, RtpEncoding, RtpParameters, Server, Transport,
};

use processes::{settings, soon};

/// A server with one room, one transport, one producer and this many consumers of it.
async fn scene(consumers: usize) -> (Server, Room, Transport, Producer, Vec<Consumer>) {
    let server = Server::start(settings(1)).await.unwrap();
    let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
    let transport = soon(room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    let parameters = RtpParameters {
        codecs: vec![RtpCodec::new(CodecName::Vp8, 96)],
        encodings: vec![RtpEncoding::ssrc(1)],
        ..RtpParameters::default()
    };
    let producer = soon(transport.produce(ProducerOptions::new(MediaKind::Video, parameters)))
        .await
        .unwrap();
    let consume = (0..consumers).map(|_| transport.consume(&producer, ConsumerOptions::default()));
    let consumers = soon(join_all(consume)).await.into_iter().collect::<Result<_, _>>();
    (server, room, transport, producer, consumers.unwrap())
}

/// Twenty thousand, of a hundred callers; what each of them sees and what everybody hears agrees with what was asked.
/// Prints how long it took, and asserts nothing about that: `weir load` measures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_pauses_and_resumes() {
    let (server, room, _transport, _producer, consumers) = scene(100).await;
    let mut events = server.events();
    let heard = tokio::spawn(async move {
        let mut heard = 0;
        while let Some(event) = events.next().await {
            match event.kind {
                EventKind::ConsumerPaused { .. } | EventKind::ConsumerResumed { .. } => heard += 1,
                EventKind::Lagged { count } => heard += count,
                _ => {}
            }
        }
        heard
    });
    let begun = tokio::time::Instant::now();
    let callers = consumers.iter().cloned().map(|consumer| {
        tokio::spawn(async move {
            for _ in 0..100 {
                consumer.pause(Value::Null).await.unwrap();
                assert!(consumer.paused());
                consumer.resume(Value::Null).await.unwrap();
                assert!(!consumer.paused());
            }
        })
    });
    let callers: Vec<_> = callers.collect();
    for caller in soon(join_all(callers)).await {
        caller.unwrap();
    }
    let took = begun.elapsed();
    println!("20,000 commands in {took:?}: {:.0}/s", 20_000.0 / took.as_secs_f64());
    let stats = soon(room.stats()).await.unwrap();
    assert_eq!(stats.consumers.len(), 100);
    assert!(stats.consumers.iter().all(|stats| !stats.paused));
    soon(server.close()).await;
    // Lost ones count too: the subscriber may have lagged, but each event was told. Closing added 103 others.
    let heard = soon(heard).await.unwrap();
    assert!((20_000..=20_103).contains(&heard), "{heard}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_called_at_once_supervisor_and_worker_agree_in_the_end() {
    let (server, room, transport, producer, consumers) = scene(20).await;
    let mut calls = Vec::new();
    for round in 0..50_usize {
        for (index, consumer) in consumers.iter().cloned().enumerate() {
            calls.push(tokio::spawn(async move {
                let result = match (round + index) % 5 {
                    0 | 1 => consumer.pause(Value::Null).await,
                    2 | 3 => consumer.resume(Value::Null).await,
                    _ if round == 49 => consumer.close(Value::Null).await,
                    _ => consumer.request_key_frame().await,
                };
                if let Err(error) = result {
                    assert_eq!(error.code(), "invalidState", "{error}");
                }
            }));
        }
        let producer = producer.clone();
        calls.push(tokio::spawn(async move {
            match round % 2 {
                0 => producer.pause(Value::Null).await.unwrap(),
                _ => producer.resume(Value::Null).await.unwrap(),
            }
        }));
    }
    for call in soon(join_all(calls)).await {
        call.unwrap();
    }
    let stats = soon(room.stats()).await.unwrap();
    assert_eq!(stats.producers[0].paused, producer.paused());
    let open: Vec<&Consumer> = consumers.iter().filter(|consumer| !consumer.closed()).collect();
    assert_eq!(open.len(), 16);
    assert_eq!(stats.consumers.len(), open.len());
    for consumer in open {
        let told = stats
            .consumers
            .iter()
            .find(|stats| stats.consumer == consumer.id())
            .unwrap();
        assert_eq!(
            (told.paused, told.source_paused),
            (consumer.paused(), consumer.source_paused())
        );
    }
    assert_eq!(room.consumers().len(), 16);
    let dump = soon(room.dump()).await.unwrap();
    assert_eq!(dump.transports[0].transport, transport.id());
    soon(server.close()).await;
}
