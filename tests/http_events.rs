//! The stream of events: what is told, from where on, to whom, and what becomes of those who do not listen.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod loopback;

use control::{Client, Control, settings, soon};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use std::time::Duration;
use weir::http::{ControlOptions, Limits};

/// A stream of events, read part by part. Parts are separated by empty lines.
struct Stream {
    body: Incoming,
    text: String,
    /// Where it began.
    position: Option<String>,
    _client: Client,
}

/// One part of a stream: an event or a comment.
#[derive(Debug, Default)]
struct Part {
    id: Option<String>,
    event: Option<String>,
    data: Value,
    comment: Option<String>,
}

impl Stream {
    async fn open(control: &Control, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut client = control.client().await;
        let response = client.begin("GET", &format!("/events{query}"), headers, "").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = Self {
            body: response.into_body(),
            text: String::new(),
            position: None,
            _client: client,
        };
        let first = stream.part().await.unwrap();
        stream.position = first.id.clone();
        assert!(
            first.comment.as_deref() == Some("following") || first.event.as_deref() == Some("restarted"),
            "{first:?}"
        );
        stream
    }

    /// The next part, whatever it is; `None` at the stream's end.
    async fn part(&mut self) -> Option<Part> {
        while !self.text.contains("\n\n") {
            let frame = soon("a part of the stream", self.body.frame()).await?.unwrap();
            self.text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
        let (part, rest) = self.text.split_once("\n\n").unwrap();
        let mut parsed = Part::default();
        for line in part.lines() {
            let (field, value) = line.split_once(':').unwrap();
            let value = value.trim_start().to_owned();
            match field {
                "id" => parsed.id = Some(value),
                "event" => parsed.event = Some(value),
                "data" => parsed.data = serde_json::from_str(&value).unwrap(),
                "" => parsed.comment = Some(value),
                _ => panic!("{line}"),
            }
        }
        self.text = rest.to_owned();
        Some(parsed)
    }

    /// The next event that is no heartbeat.
    async fn event(&mut self) -> Option<Part> {
        loop {
            let part = self.part().await?;
            if part.comment.is_none() {
                return Some(part);
            }
        }
    }

    async fn kinds(&mut self, count: usize) -> Vec<String> {
        let mut kinds = Vec::new();
        for _ in 0..count {
            kinds.push(self.event().await.unwrap().event.unwrap());
        }
        kinds
    }
}

async fn start(options: ControlOptions) -> Control {
    Control::start_with(settings(1), Limits::default(), options).await
}

#[tokio::test]
async fn what_happens_is_told_in_order() {
    let control = start(ControlOptions::default()).await;
    let mut stream = Stream::open(&control, "", &[]).await;
    let mut client = control.client().await;
    let room = client.room().await;
    let (up, down) = (client.transport(room).await, client.transport(room).await);
    let producer = client.camera(up).await;
    client.consumer(down, producer).await;
    client
        .post(&format!("/producers/{producer}/pause"), json!({"appData": "lunch"}))
        .await
        .expect(200);
    client.delete(&format!("/rooms/{room}")).await.expect(200);
    let expected = [
        "roomOpened",
        "transportOpened",
        "transportOpened",
        "producerOpened",
        "consumerOpened",
    ];
    assert_eq!(stream.kinds(5).await, expected);
    let paused = stream.event().await.unwrap();
    assert_eq!(paused.event.as_deref(), Some("producerPaused"));
    assert_eq!(paused.id.as_deref(), paused.data["id"].as_str());
    assert_eq!(
        (
            &paused.data["type"],
            &paused.data["producer"],
            &paused.data["room"],
            &paused.data["appData"]
        ),
        (
            &json!("producerPaused"),
            &json!(producer),
            &json!(room),
            &json!("lunch")
        )
    );
    assert_eq!(stream.kinds(2).await, ["consumerPaused", "roomClosed"]);
    control.close().await;
}

#[tokio::test]
async fn filters_let_through_what_is_wanted() {
    let control = start(ControlOptions::default()).await;
    let mut by_room = Stream::open(&control, "?room=2", &[]).await;
    let mut by_kind = Stream::open(&control, "?kind=roomClosed,transportOpened", &[]).await;
    let mut by_both = Stream::open(&control, "?kind=roomClosed&room=2", &[]).await;
    let mut client = control.client().await;
    for room in [client.room().await, client.room().await] {
        client.transport(room).await;
        client.delete(&format!("/rooms/{room}")).await.expect(200);
    }
    assert_eq!(
        by_room.kinds(4).await,
        ["roomOpened", "transportOpened", "roomClosed", "transportClosed"]
    );
    let expected = ["transportOpened", "roomClosed", "transportOpened", "roomClosed"];
    assert_eq!(by_kind.kinds(4).await, expected);
    assert_eq!(by_both.event().await.unwrap().data["room"], 2);
    // Everybody hears of the end, and then the streams end.
    control.begin_close();
    soon("the server's end", control.server.close()).await;
    for stream in [&mut by_room, &mut by_kind, &mut by_both] {
        assert_eq!(stream.kinds(1).await, ["serverClosed"]);
        assert!(stream.event().await.is_none());
    }
    control.close().await;
}

#[tokio::test]
async fn a_client_goes_on_where_it_was() {
    let control = start(ControlOptions::default()).await;
    let mut client = control.client().await;
    let mut stream = Stream::open(&control, "", &[]).await;
    client.room().await;
    let seen = stream.event().await.unwrap().id.unwrap();
    drop(stream);
    client.room().await;
    client.room().await;
    let mut stream = Stream::open(&control, "", &[("last-event-id", &seen)]).await;
    let rooms = [
        stream.event().await.unwrap().data["room"].clone(),
        stream.event().await.unwrap().data["room"].clone(),
    ];
    assert_eq!(rooms, [2, 3]);
    // `after` says the same for those who cannot set headers, and what was seen counts for more.
    let mut stream = Stream::open(&control, &format!("?after={seen}"), &[]).await;
    assert_eq!(stream.event().await.unwrap().data["room"], 2);
    let mut stream = Stream::open(&control, "?after=0&kind=roomOpened", &[]).await;
    assert_eq!(stream.event().await.unwrap().data["room"], 1);
    let mut stream = Stream::open(&control, "?after=0", &[("last-event-id", &seen)]).await;
    assert_eq!(stream.event().await.unwrap().data["room"], 2);
    control.close().await;
}

#[tokio::test]
async fn a_stream_that_breaks_off_before_anything_happens_can_be_gone_on_with() {
    let control = start(ControlOptions::default()).await;
    let mut client = control.client().await;
    client.room().await;
    let stream = Stream::open(&control, "", &[]).await;
    let position = stream.position.clone().unwrap();
    drop(stream);
    client.room().await;
    let mut stream = Stream::open(&control, "?kind=roomOpened", &[("last-event-id", &position)]).await;
    assert_eq!(stream.event().await.unwrap().data["room"], 2);
    control.close().await;
}

#[tokio::test]
async fn a_learned_remote_is_told() {
    let control = start(ControlOptions::default()).await;
    let mut client = control.client().await;
    let mut stream = Stream::open(&control, "?kind=remoteLearned", &[]).await;
    let room = client.room().await;
    let transport = client
        .post(&format!("/rooms/{room}/transports"), json!({"comedia": true}))
        .await
        .expect(201);
    let id = transport["id"].as_u64().unwrap();
    let producer = json!({"kind": "audio", "rtpParameters": {
        "codecs": [{"mimeType": "audio/PCMU", "payloadType": 0, "clockRate": 8000}], "encodings": [{"ssrc": 7}]}});
    client
        .post(&format!("/transports/{id}/producers"), producer)
        .await
        .expect(201);
    let sender = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = transport["tuple"]["localPort"].as_u64().unwrap();
    // RFC 3550 §5.1: version 2, payload type 0, sequence number 1, timestamp 0, SSRC 7; then a sample.
    let packet = [0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0xff];
    sender.send_to(&packet, format!("127.0.0.1:{port}")).await.unwrap();
    let learned = stream.event().await.unwrap();
    let address = sender.local_addr().unwrap().to_string();
    assert_eq!(
        (&learned.data["transport"], &learned.data["remote"]["rtp"]),
        (&json!(id), &json!(address))
    );
    let shown = client.get(&format!("/transports/{id}")).await.expect(200);
    assert_eq!(shown["tuple"]["remote"], address);
    let stats = client.get(&format!("/transports/{id}/stats")).await.expect(200);
    assert_eq!(
        (&stats["packetsReceived"], &stats["remote"]["rtp"]),
        (&json!(1), &json!(address))
    );
    let stats = client.get("/producers/1/stats").await.expect(200);
    assert_eq!(stats["streams"][0]["packets"], 1);
    control.close().await;
}

#[tokio::test]
async fn a_client_of_another_server_is_told() {
    let control = start(ControlOptions::default()).await;
    let mut client = control.client().await;
    client.room().await;
    let mut stream = Stream::open(&control, "?kind=roomOpened", &[("last-event-id", "abc-77")]).await;
    assert_eq!(stream.event().await.unwrap().data["room"], 1);
    control.close().await;
}

#[tokio::test]
async fn recent_events_come_in_parts() {
    let control = start(ControlOptions::default()).await;
    let mut client = control.client().await;
    for _ in 0..5 {
        client.room().await;
    }
    let mut rooms = Vec::new();
    let mut query = "kind=roomOpened&limit=2".to_owned();
    loop {
        let recent = client.get(&format!("/events/recent?{query}")).await.expect(200);
        let items = recent["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        assert_eq!(recent["missed"], 0);
        rooms.extend(items.iter().map(|event| event["room"].as_u64().unwrap()));
        if recent["more"] == false {
            break;
        }
        query = format!("kind=roomOpened&limit=2&after={}", recent["position"].as_str().unwrap());
    }
    assert_eq!(rooms, [1, 2, 3, 4, 5]);
    control.close().await;
}

#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives() {
    let options = ControlOptions {
        heartbeat: Duration::from_millis(10),
        ..ControlOptions::default()
    };
    let control = start(options).await;
    let mut stream = Stream::open(&control, "", &[]).await;
    for _ in 0..3 {
        assert_eq!(stream.part().await.unwrap().comment.as_deref(), Some("heartbeat"));
    }
    control.close().await;
}

#[tokio::test]
async fn only_so_many_follow() {
    let options = ControlOptions {
        followers: 2,
        ..ControlOptions::default()
    };
    let control = start(options).await;
    let first = Stream::open(&control, "", &[]).await;
    let _second = Stream::open(&control, "", &[]).await;
    let mut client = control.client().await;
    client.get("/events").await.refuses(503, "tooManyStreams", "too many");
    drop(first);
    // The server finds out that the first has gone when it next writes to it or reads from it.
    soon("a free seat", async {
        loop {
            let mut client = control.client().await;
            if client.begin("GET", "/events", &[], "").await.status() == 200 {
                break;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    control.close().await;
}

#[tokio::test]
async fn who_does_not_listen_holds_nobody_up_and_is_told_what_was_missed() {
    let control = start(ControlOptions::default()).await;
    let mut stream = Stream::open(&control, "", &[]).await;
    let mut client = control.client().await;
    let room = client.room().await;
    let transport = client.transport(room).await;
    let producer = client.camera(transport).await;
    // Fills the socket, the server's buffers, and then the log, while nobody reads the stream.
    let note = "x".repeat(200_000);
    for _ in 0..60 {
        client
            .post(&format!("/producers/{producer}/pause"), json!({"appData": note}))
            .await
            .expect(200);
        client
            .post(&format!("/producers/{producer}/resume"), json!({"appData": note}))
            .await
            .expect(200);
    }
    let (mut events, mut missed) = (0, 0);
    // Three things were made, and 120 commands given.
    while events + missed < 123 {
        let event = stream.event().await.unwrap();
        match event.event.as_deref() {
            Some("lagged") => {
                assert!(event.id.is_none(), "the client's position stays");
                missed += event.data["count"].as_u64().unwrap();
            }
            _ => events += 1,
        }
    }
    assert!(missed > 0, "24 MB of events do not fit anywhere");
    assert_eq!(events + missed, 123);
    control.close().await;
}
