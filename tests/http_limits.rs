//! Clients that take their time: each wait on a client ends, and what one holds on to the others can do without.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod loopback;

use std::time::Duration;

use control::{Control, settings, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use weir::http::{ControlOptions, Limits};

async fn start(limits: Limits) -> Control {
    Control::start_with(settings(1), limits, ControlOptions::default()).await
}

/// Everything the server says until it hangs up.
async fn until_hung_up(stream: &mut UnixStream) -> String {
    let mut said = Vec::new();
    // A reset says as much as an end.
    let _ = soon("the server to hang up", stream.read_to_end(&mut said)).await;
    String::from_utf8(said).unwrap()
}

#[tokio::test]
async fn a_head_that_does_not_end_is_hung_up_on() {
    let limits = Limits {
        head: Duration::from_millis(50),
        ..Limits::default()
    };
    let control = start(limits).await;
    let mut silent = control.raw().await;
    let mut slow = control.raw().await;
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: weir\r\nx-never-")
        .await
        .unwrap();
    let mut idle = control.raw().await;
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: weir\r\n\r\n")
        .await
        .unwrap();
    until_hung_up(&mut silent).await;
    until_hung_up(&mut slow).await;
    assert!(until_hung_up(&mut idle).await.starts_with("HTTP/1.1 200 OK\r\n"));
    control.close().await;
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused() {
    let control = start(Limits::default()).await;
    let mut stream = control.raw().await;
    let head = format!(
        "GET /health HTTP/1.1\r\nhost: weir\r\nx-long: {}\r\n\r\n",
        "x".repeat(64 * 1024)
    );
    // The server may hang up before all is written.
    let _ = stream.write_all(head.as_bytes()).await;
    assert!(until_hung_up(&mut stream).await.starts_with("HTTP/1.1 431 "));
    control.close().await;
}

#[tokio::test]
async fn what_is_no_http_is_refused() {
    let control = start(Limits::default()).await;
    for nonsense in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        &[0xff; 100],
    ] {
        let mut stream = control.raw().await;
        stream.write_all(nonsense).await.unwrap();
        stream.shutdown().await.unwrap();
        let said = until_hung_up(&mut stream).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{said}");
    }
    control.client().await.get("/health").await.expect(200);
    control.close().await;
}

#[tokio::test]
async fn a_connection_too_many_waits_for_its_turn() {
    let limits = Limits {
        connections: 2,
        ..Limits::default()
    };
    let control = start(limits).await;
    let mut first = control.client().await;
    let mut second = control.client().await;
    first.get("/health").await.expect(200);
    second.get("/health").await.expect(200);
    let mut third = control.client().await;
    let waiting = tokio::spawn(async move { third.get("/health").await.status });
    // The others are served meanwhile, and the third as soon as one has left.
    first.get("/health").await.expect(200);
    assert!(!waiting.is_finished());
    drop(second);
    assert_eq!(soon("the third one's turn", waiting).await.unwrap(), 200);
    control.close().await;
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_given_up() {
    let limits = Limits {
        connections: 1,
        stall: Duration::from_millis(50),
        ..Limits::default()
    };
    let control = start(limits).await;
    let mut stream = control.raw().await;
    // Asks again and again and never reads, until the answers fill the socket and the server hangs up.
    let request = b"GET /settings HTTP/1.1\r\nhost: weir\r\n\r\n";
    soon("the server to hang up", async {
        while stream.write_all(request).await.is_ok() {}
    })
    .await;
    // The only connection there can be is free again.
    control.client().await.get("/health").await.expect(200);
    control.close().await;
}

#[tokio::test]
async fn who_hangs_up_early_leaves_nothing_half_done() {
    let control = start(Limits::default()).await;
    let mut events = control.server.events();
    let mut stream = control.raw().await;
    let body = "{}";
    let request = format!(
        "POST /rooms HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    drop(stream);
    let opened = soon("the room", async {
        loop {
            let event = events.next().await.unwrap();
            if let weir::EventKind::RoomOpened { room, .. } = event.kind {
                return room;
            }
        }
    })
    .await;
    let rooms: Vec<_> = control.server.rooms().iter().map(weir::Room::id).collect();
    assert_eq!(rooms, [opened]);
    control.close().await;
}

#[tokio::test]
async fn requests_whose_end_is_not_clear_are_refused() {
    let control = start(Limits::default()).await;
    // RFC 9112 §6.1, §6.3, §7.1: each of them could end elsewhere for a server in front of this one.
    let rows = [
        (
            "content-length: 2\r\ntransfer-encoding: chunked",
            "2\r\n{}\r\n0\r\n\r\n",
            "400",
        ),
        (
            "Transfer-Encoding: chunked\r\nContent-Length: 2",
            "2\r\n{}\r\n0\r\n\r\n",
            "400",
        ),
        ("content-length: 2\r\ncontent-length: 3", "{} ", "400"),
        ("content-length: 2, 2", "{}", "400"),
        ("content-length: +2", "{}", "400"),
        ("content-length: 0x2", "{}", "400"),
        ("content-length : 2", "{}", "400"),
        ("content-length: 18446744073709551616", "{}", "400"),
        ("transfer-encoding: chunked, identity", "2\r\n{}\r\n0\r\n\r\n", "400"),
        ("transfer-encoding: xchunked", "2\r\n{}\r\n0\r\n\r\n", "400"),
        ("transfer-encoding: gzip, chunked", "2\r\n{}\r\n0\r\n\r\n", "501"),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
            "2\r\n{}\r\n0\r\n\r\n",
            "501",
        ),
        ("transfer-encoding: chunked", "-2\r\n{}\r\n0\r\n\r\n", "400"),
        ("transfer-encoding: chunked", "0x2\r\n{}\r\n0\r\n\r\n", "400"),
        (
            "transfer-encoding: chunked",
            "10000000000000002\r\n{}\r\n0\r\n\r\n",
            "400",
        ),
        ("transfer-encoding: chunked", "2\r\n{}x\r\n0\r\n\r\n", "400"),
    ];
    let smuggled = "POST /rooms HTTP/1.1\r\nhost: weir\r\ncontent-length: 0\r\n\r\n";
    let get = "GET /health HTTP/1.1\r\nhost: weir\r\n\r\n";
    for (head, body, status) in rows {
        for (before, answers) in [("", 1), (get, 2)] {
            let request = format!(
                "{before}POST /rooms HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\n{head}\r\n\r\n{body}"
            );
            let mut stream = control.raw().await;
            // The server may hang up before all is written.
            let _ = stream.write_all(format!("{request}{smuggled}").as_bytes()).await;
            let said = until_hung_up(&mut stream).await;
            let said: Vec<&str> = said
                .matches("HTTP/1.1 ")
                .zip(said.split("HTTP/1.1 ").skip(1))
                .map(|said| said.1)
                .collect();
            assert_eq!(said.len(), answers, "{head:?} {body:?}: {said:?}");
            assert!(said[answers - 1].starts_with(status), "{head:?} {body:?}: {said:?}");
        }
    }
    assert!(
        control.server.rooms().is_empty(),
        "nothing was made, and nothing smuggled in"
    );
    // What is clear is taken, the one kind after the other.
    let mut stream = control.raw().await;
    let head = "POST /rooms HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\n";
    for framed in [
        "content-length: 2\r\n\r\n{}",
        "transfer-encoding: chunked\r\n\r\n2;x=y\r\n{}\r\n0\r\n\r\n",
        "content-length: 2\r\n\r\n{}",
        "Transfer-Encoding: Chunked\r\nconnection: close\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
    ] {
        let rooms = control.server.rooms().len();
        stream.write_all(format!("{head}{framed}").as_bytes()).await.unwrap();
        soon("the room", async {
            while control.server.rooms().len() == rooms {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
    assert_eq!(until_hung_up(&mut stream).await.matches("HTTP/1.1 201 ").count(), 4);
    control.close().await;
}
