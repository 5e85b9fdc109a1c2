//! Streams over HTTP of what changes all the time: they begin, they tell, and they end with what they tell of.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod loopback;
mod signalling;

use axum::http::Response;
use control::{Control, camera, settings, soon};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use signalling::Caller;
use weir::http::{ControlOptions, Limits};

/// A stream that is being read.
struct Live {
    body: Incoming,
    text: String,
}

impl Live {
    fn new(response: Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self {
            body: response.into_body(),
            text: String::new(),
        }
    }

    /// The data of the next event with this name; `None` at the stream's end.
    async fn next(&mut self, name: &str) -> Option<Value> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if block.lines().any(|line| line.strip_prefix("event: ") == Some(name)) {
                    let data = block.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
                    return Some(serde_json::from_str(data).unwrap());
                }
            }
            let frame = soon("the stream", self.body.frame()).await?.unwrap();
            self.text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
    }
}

#[tokio::test]
async fn statistics_are_told_again_and_again_until_the_thing_is_closed() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let transport = client.transport(room).await;
    let producer = client.camera(transport).await;
    let target = format!("/producers/{producer}/rtc-stats/stream?intervalMs=1");
    let mut live = Live::new(control.client().await.begin("GET", &target, &[], "").await);
    for _ in 0..2 {
        let stats = live.next("stats").await.unwrap();
        assert_eq!(stats.as_array().unwrap().len(), 3, "a stream each: {stats}");
        assert_eq!(stats[0]["type"], "inbound-rtp");
    }
    client.delete(&format!("/producers/{producer}")).await.expect(200);
    assert_eq!(live.next("stats").await, None);
    client
        .get("/producers/77/rtc-stats/stream")
        .await
        .refuses(404, "notFound", "77");
    client
        .get("/transports/1/rtc-stats/stream?every=1")
        .await
        .refuses(400, "invalidQuery", "every");
    control.close().await;
}

#[tokio::test]
async fn levels_and_speakers_end_with_the_room() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let mut levels = Live::new(
        control
            .client()
            .await
            .begin("GET", &format!("/rooms/{room}/audio-levels"), &[], "")
            .await,
    );
    let mut speakers = Live::new(
        control
            .client()
            .await
            .begin("GET", &format!("/rooms/{room}/active-speaker"), &[], "")
            .await,
    );
    assert_eq!(levels.next("audioLevels").await, Some(json!([])), "nobody is there");
    client.delete(&format!("/rooms/{room}")).await.expect(200);
    while levels.next("audioLevels").await.is_some() {}
    assert_eq!(speakers.next("activeSpeakerChange").await, None);
    control.close().await;
}

#[tokio::test]
async fn what_a_peers_client_is_to_be_told_is_told_to_who_asks() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = client.room().await;
    let capabilities = client.get(&format!("/rooms/{room}/rtp-capabilities")).await.expect(200);
    let peers = format!("/rooms/{room}/peers");
    for name in ["alice", "bob"] {
        client
            .post(&peers, json!({"name": name, "rtpCapabilities": capabilities}))
            .await
            .expect(201);
    }
    let target = format!("{peers}/alice/notifications");
    let mut first = Live::new(control.client().await.begin("GET", &target, &[], "").await);
    let met = first.next("notification").await.unwrap();
    assert_eq!((&met["method"], &met["name"]), (&json!("newPeer"), &json!("bob")));
    let transport = client
        .post(&format!("{peers}/bob/transports"), json!({"comedia": true}))
        .await
        .expect(201);
    let producer = client.camera(transport["id"].as_u64().unwrap()).await;
    let told = first.next("notification").await.unwrap();
    assert_eq!(
        (&told["method"], &told["peerName"]),
        (&json!("newConsumer"), &json!("bob"))
    );
    let consumer = client.get(&format!("/consumers/{}", told["id"])).await.expect(200);
    assert_eq!(consumer["producer"], producer, "the ids are those of this interface");

    // A second reader goes on where the first one was, which ends.
    let mut second = Live::new(control.client().await.begin("GET", &target, &[], "").await);
    assert_eq!(first.next("end").await, Some(json!({"reason": "takenOver"})));
    assert_eq!(first.next("notification").await, None);
    client.delete(&format!("/producers/{producer}")).await.expect(200);
    let mut methods = Vec::new();
    while methods.last() != Some(&json!("consumerClosed")) {
        methods.push(second.next("notification").await.unwrap()["method"].clone());
    }
    client.delete(&format!("{peers}/alice")).await.expect(200);
    assert_eq!(second.next("notification").await.unwrap()["method"], "closed");
    assert_eq!(second.next("end").await, Some(json!({"reason": "closed"})));
    assert_eq!(second.next("end").await, None);
    client.get(&target).await.refuses(404, "notFound", "alice");

    // One whose client is connected is told there.
    let mut carol = Caller::connect(&control.path, room, "carol").await;
    carol.join("carol", Value::Null).await;
    let target = format!("{peers}/carol/notifications");
    client.get(&target).await.refuses(409, "conflict", "own client");
    client.delete(&format!("{peers}/bob")).await.expect(200);
    assert_eq!(carol.told().await.unwrap()["method"], "peerClosed");
    control.close().await;
}

#[tokio::test]
async fn streams_are_counted_and_their_places_given_back() {
    let options = ControlOptions {
        followers: 1,
        ..ControlOptions::default()
    };
    let control = Control::start_with(settings(1), Limits::default(), options).await;
    let mut client = control.client().await;
    let room = client.room().await;
    let transport = client.transport(room).await;
    client
        .post(&format!("/transports/{transport}/producers"), camera())
        .await
        .expect(201);
    let target = format!("/transports/{transport}/rtc-stats/stream");
    let mut live = Live::new(control.client().await.begin("GET", &target, &[], "").await);
    for other in [target.as_str(), "/events", &format!("/rooms/{room}/active-speaker")] {
        client.get(other).await.refuses(503, "tooManyStreams", "already");
    }
    client.delete(&format!("/transports/{transport}")).await.expect(200);
    while live.next("stats").await.is_some() {}
    let next = control.client().await.begin("GET", "/events", &[], "").await;
    assert_eq!(next.status(), 200);
    control.close().await;
}
