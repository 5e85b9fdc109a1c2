//! Streamers: a consumer and a transport that close together, whichever goes first.

use serde_json::Value;
use weir_channel::message::{Method, WorkerError};

use super::stage::{Trio, told, video};
use crate::server::fake::{server, settings, soon};
use crate::server::{PlainTransportOptions, RoomOptions, RtpStreamer, RtpStreamerOptions};

fn options() -> RtpStreamerOptions {
    RtpStreamerOptions {
        remote_ip: [127, 0, 0, 1].into(),
        remote_port: 5_000,
        local_ip: None,
    }
}

async fn streamer(trio: &Trio) -> RtpStreamer {
    soon(trio.stage.room.create_rtp_streamer(&trio.producer, options()))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_producer_is_streamed_with_the_rooms_numbers() {
    let mut trio = Trio::new().await;
    let streamer = streamer(&trio).await;
    let requests = trio.stage.requests();
    let [
        Method::CreatePlainTransport(transport),
        Method::CreateConsumer(consumer),
    ] = requests.as_slice()
    else {
        panic!("{requests:?}");
    };
    assert_eq!(transport.remote.unwrap().rtp, "127.0.0.1:5000".parse().unwrap());
    let of_bob = trio.of_bob.rtp_parameters().codecs[0].payload_type;
    assert_eq!(consumer.payload_types, [(96, of_bob)]);
    assert!(streamer.consumer().enabled() && streamer.consumer().peer().is_none());
    assert!(streamer.consumer().receiver().is_none() && streamer.transport().peer().is_none());
    assert_eq!(
        trio.stage.events(),
        [
            "transportOpened transport=3",
            "consumerOpened transport=3 producer=1 consumer=3 sourcePaused=false",
            "rtpStreamerOpened transport=3 producer=1 consumer=3"
        ]
    );
    // Nobody's client has to do with it.
    soon(trio.producer.pause(Value::Null)).await.unwrap();
    assert_eq!(told(&trio.carol), Vec::<String>::new());

    // One that is nobody's comes as it is sent.
    let ingest = soon(trio.stage.room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    let nobodys = soon(ingest.produce(video(5))).await.unwrap();
    let streamed = soon(trio.stage.room.create_rtp_streamer(&nobodys, options()))
        .await
        .unwrap();
    assert_eq!(streamed.consumer().rtp_parameters().codecs[0].payload_type, 96);
}

#[tokio::test]
async fn it_closes_with_its_transport() {
    let mut trio = Trio::new().await;
    let streamer = streamer(&trio).await;
    trio.stage.forget(&[]);
    soon(streamer.close()).await.unwrap();
    soon(streamer.close()).await.unwrap();
    assert_eq!(trio.stage.requests().len(), 1);
    assert_eq!(
        trio.stage.events(),
        [
            "transportClosed transport=3 local",
            "rtpStreamerClosed transport=3 consumer=3",
            "consumerClosed consumer=3 local (transportClosed)"
        ]
    );
    assert!(streamer.closed() && trio.told().is_empty());
}

#[tokio::test]
async fn it_closes_with_its_consumer_and_with_its_producer() {
    let mut trio = Trio::new().await;
    let first = streamer(&trio).await;
    trio.stage.forget(&[]);
    let transport = first.transport().id();
    // The transport is closed by a request of its own, also if that has to be sent twice.
    let close = first.consumer().close(Value::Null);
    soon(close).await.unwrap();
    soon(trio.stage.until_closed(first.transport())).await;
    assert_eq!(
        trio.stage.requests(),
        [
            Method::CloseConsumer {
                consumer: first.consumer().id()
            },
            Method::CloseTransport { transport }
        ]
    );
    let second = streamer(&trio).await;
    trio.stage.forget(&[]);
    soon(trio.producer.close(Value::Null)).await.unwrap();
    assert!(second.closed());
    soon(trio.stage.until_closed(second.transport())).await;
    let events = trio.stage.events();
    assert!(
        events.contains(&"rtpStreamerClosed transport=4 consumer=4".to_owned()),
        "{events:?}"
    );
    assert_eq!(
        crate::server::lock(&trio.stage.server.shared().state).left_in(trio.stage.room.id())[1],
        0
    );
}

#[tokio::test]
async fn a_closing_that_came_too_late_is_asked_for_again() {
    let trio = Trio::new().await;
    let streamer = streamer(&trio).await;
    trio.stage.requests();
    // For the second request, the one that nobody waits for.
    trio.stage.refuse_second(WorkerError::DeadlinePassed);
    soon(streamer.consumer().close(Value::Null)).await.unwrap();
    soon(trio.stage.until_closed(streamer.transport())).await;
    let transport = streamer.transport().id();
    let closes = trio.stage.requests();
    assert_eq!(
        closes[1..],
        [
            Method::CloseTransport { transport },
            Method::CloseTransport { transport }
        ]
    );
}

#[tokio::test]
async fn a_streamer_that_fails_midway_leaves_nothing() {
    let mut trio = Trio::new().await;
    trio.stage
        .refuse_second(WorkerError::InvalidParameters("no".to_owned()));
    let failed = soon(trio.stage.room.create_rtp_streamer(&trio.producer, options())).await;
    assert_eq!(failed.unwrap_err().to_string(), "the worker refused: no");
    assert_eq!(
        trio.stage.events(),
        ["transportOpened transport=3", "transportClosed transport=3 local"]
    );
    soon(trio.producer.close(Value::Null)).await.unwrap();
    let failed = soon(trio.stage.room.create_rtp_streamer(&trio.producer, options())).await;
    assert_eq!(failed.unwrap_err().code(), "invalidState");
    assert_eq!(trio.stage.room.transports().len(), 2, "alice's and bob's");
}

#[tokio::test]
async fn a_streamer_that_is_given_up_midway_leaves_nothing() {
    let (server, mut fake) = server(settings()).await;
    let (room, _) = soon(async { tokio::join!(server.create_room(RoomOptions::default()), fake.accept()) }).await;
    let room = room.unwrap();
    let ingest = room.create_plain_transport(PlainTransportOptions::default());
    let (ingest, _) = soon(async { tokio::join!(ingest, fake.accept()) }).await;
    let ingest = ingest.unwrap();
    let (producer, _) = soon(async { tokio::join!(ingest.produce(video(1)), fake.accept()) }).await;
    let producer = producer.unwrap();
    {
        let create = room.create_rtp_streamer(&producer, options());
        tokio::pin!(create);
        soon(async {
            tokio::select! {
                _ = &mut create => panic!("the consumer was not answered"),
                () = async {
                    fake.accept().await;
                    let (request, _) = fake.request().await.unwrap();
                    assert!(matches!(request.method, Method::CreateConsumer(_)));
                    let reply = fake.oblige(&request.method);
                    // Given up before the answer is read.
                    fake.answer(&request, Ok(reply)).await;
                } => {}
            }
        })
        .await;
    }
    let closed = fake.accept().await;
    assert!(matches!(closed, Method::CloseTransport { .. }), "{closed:?}");
}
