//! What idle clients cost the server's memory, counted. A program of its own, because a program has one allocator.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod allocator;
mod control;
mod loopback;

use std::sync::atomic::Ordering;

use allocator::BYTES;
use control::{Control, settings, soon};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use weir::RoomOptions;
use weir::http::{ControlOptions, Limits};

/// What a connection may cost when nothing is said on it: its buffers, and the task that serves it.
const IDLE_BYTES_MAX: i64 = 16 * 1024;

const CLIENTS: i64 = 200;

/// A WebSocket as the client's part of it that costs next to nothing.
async fn connect(control: &Control, room: u64, name: &str) -> UnixStream {
    let mut stream = control.raw().await;
    let request = format!(
        "GET /rooms/{room}/peers/{name} HTTP/1.1\r\nhost: weir\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the answer", stream.read_u8()).await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

#[tokio::test]
async fn an_idle_websocket_costs_no_more_than_16_kib() {
    let control = Control::start_with(settings(1), Limits::default(), ControlOptions::default()).await;
    let room = soon("the room", control.server.create_room(RoomOptions::default()))
        .await
        .unwrap();
    let room = room.id().0;
    // What is made once is made.
    let mut streams = vec![connect(&control, room, "first").await];
    tokio::task::yield_now().await;
    let before = BYTES.load(Ordering::Relaxed);
    for number in 0..CLIENTS {
        streams.push(connect(&control, room, &number.to_string()).await);
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let each = (BYTES.load(Ordering::Relaxed) - before) / CLIENTS;
    assert!(
        (1_000..=IDLE_BYTES_MAX).contains(&each),
        "{each} bytes for each connection"
    );
    drop(streams);
    control.close().await;
}
