//! Clients of rooms: those who say nothing, those who never read, and those whose frames are none (RFC 6455).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Scale;
use crate::arena::{Arena, Family, Figures, Site};
use crate::call;
use crate::control::soon;
use crate::flood::{Random, time};
use crate::http::connect;
use crate::meters::{Memory, now};
use crate::signalling::{Caller, join_request};
use crate::worker::TERMINAL;

/// What an idle connection may cost the server: its buffers, and the task that serves it.
const IDLE_MAX: u64 = 16 * 1024;

/// What 120 peers with large app data may cost, of whom each is told of all the others and keeps that in case its connection breaks.
const APP_DATA_MAX: u64 = 40 << 20;

/// What may be left in memory of those who are gone.
const LEFT_MAX: u64 = 16 << 20;

/// What clients must know over TCP.
const CLIENT_TOKEN: &str = "the-token-of-all-the-clients-0123";

impl Arena {
    fn memory(&self) -> u64 {
        Memory::of(self.supervisor()).supervisor
    }

    /// Waits until so much memory, and no more than may be left, is in use; how much more it is then.
    async fn memory_goes_back(&self, before: u64, during: u64) -> u64 {
        let began = now();
        let mut after = self.memory();
        while after > before + LEFT_MAX && now() - began < Duration::from_secs(30) {
            self.pass(Duration::from_millis(100)).await;
            after = self.memory();
        }
        let left = after.saturating_sub(before);
        assert!(
            left <= LEFT_MAX,
            "{} MB are left of {} MB",
            left >> 20,
            (during - before) >> 20
        );
        left
    }
}

pub(crate) async fn idle_connections(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let count = scale.of(300, 3_000);
    let before = arena.memory();
    let mut idle = Vec::new();
    for number in 0..count {
        idle.push(Caller::connect(&arena.socket, arena.room, &format!("idle {number}").replace(' ', "-")).await);
    }
    arena.pass(Duration::from_millis(200)).await;
    let each = arena.memory().saturating_sub(before) / count as u64;
    assert!(each <= IDLE_MAX, "{each} bytes for each connection");
    arena.close().await.with("connections", count).with("bytes each", each)
}

pub(crate) async fn peers_that_never_read(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let mut client = arena.client().await;
    let room = call::room(&mut client, arena.worker).await;
    let before = arena.memory();
    let app_data = json!("x".repeat(8_000));
    let mut peers = Vec::new();
    let (mut refused, began) = (0_u64, now());
    for number in 0..scale.of(120, 700) {
        let name = format!("peer-{number}");
        let Ok(mut peer) = Caller::try_connect(&arena.socket, room, &name, &[]).await else {
            refused += 1;
            continue;
        };
        let query = peer
            .request(json!({"method": "queryRoom", "target": "room"}))
            .await
            .unwrap();
        let join = json!({
            "method": "join", "target": "room", "peerName": name, "rtpCapabilities": query["rtpCapabilities"],
            "spy": false, "appData": app_data
        });
        // A room that is full of data takes no more of it.
        refused += u64::from(peer.request(join).await.is_err());
        peers.push(peer);
        if now() - began > 6 * time(scale) {
            break;
        }
    }
    let (joined, during) = (peers.len(), arena.memory());
    let in_use = during.saturating_sub(before);
    assert!(in_use <= APP_DATA_MAX, "{} MB are in use", in_use >> 20);
    drop(peers);
    client.delete(&format!("/rooms/{room}")).await.expect(200);
    let left = arena.memory_goes_back(before, during).await;
    arena
        .close()
        .await
        .with("peers", joined)
        .with("refused", refused)
        .with("MB in use", in_use >> 20)
        .with("MB left", left >> 20)
}

pub(crate) async fn answers_that_nobody_reads(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let mut client = arena.client().await;
    let room = call::room(&mut client, arena.worker).await;
    let before = arena.memory();
    let mut peers = Vec::new();
    for number in 0..scale.of(100, 300) {
        let name = format!("peer-{number}");
        let mut peer = Caller::connect(&arena.socket, room, &name).await;
        peer.join(&name, Value::Null).await;
        peers.push(peer);
    }
    let mut asked = 0_u64;
    for peer in &mut peers {
        let asks = async {
            for _ in 0..300 {
                peer.begin("mediasoup-request", json!({"method": "queryRoom", "target": "room"}))
                    .await;
                asked += 1;
            }
        };
        // Until the server reads no more of it.
        let _ = timeout(Duration::from_millis(50), asks).await;
    }
    arena.pass(time(scale)).await;
    let during = arena.memory();
    drop(peers);
    // The first connection has said nothing for so long that the server may have closed it.
    let mut client = arena.client().await;
    client.delete(&format!("/rooms/{room}")).await.expect(200);
    let left = arena.memory_goes_back(before, during).await;
    arena
        .close()
        .await
        .with("questions", asked)
        .with("MB in use", during.saturating_sub(before) >> 20)
        .with("MB left", left >> 20)
}

/// Holds a connection on which nobody joins, and another one when that is closed.
async fn hold_unjoined(to: SocketAddr, room: u64, opened: Arc<AtomicU64>) {
    let request = format!(
        "GET /rooms/{room}/peers/mallory HTTP/1.1\r\nhost: weir\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         authorization: Bearer {CLIENT_TOKEN}\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    loop {
        let Ok(mut stream) = connect(Family::V4.stranger(), to).await else {
            continue;
        };
        if stream.write_all(request.as_bytes()).await.is_err() {
            continue;
        }
        opened.fetch_add(1, Ordering::Relaxed);
        let mut answer = [0; 1_000];
        while stream.read(&mut answer).await.is_ok_and(|len| len > 0) {}
        // Attackers have to keep some time, too.
        let _ = timeout(Duration::from_millis(50), std::future::pending::<()>()).await;
    }
}

pub(crate) async fn connections_that_do_not_join(scale: Scale) -> Figures {
    let site = Site {
        tcp: true,
        options: &["--client-token", CLIENT_TOKEN, "--clients-max", "200"],
        ..Site::PLAIN
    };
    let arena = Arena::open_at(scale, site).await;
    let to = arena.tcp.unwrap();
    let opened = Arc::new(AtomicU64::new(0));
    let mut unjoined = JoinSet::new();
    for _ in 0..400 {
        unjoined.spawn(hold_unjoined(to, arena.room, Arc::clone(&opened)));
    }
    // As many as there are places.
    arena
        .until("connections", || opened.load(Ordering::Relaxed) > 200)
        .await;
    let tries = scale.of(3, 30);
    let authorization = format!("Bearer {CLIENT_TOKEN}");
    for number in 0..tries {
        let name = format!("honest-{number}");
        let headers = [("authorization", authorization.as_str())];
        let connected = Caller::try_connect_tcp(&to.to_string(), arena.room, &name, &headers).await;
        let mut honest = connected.expect("a place for who wants to join");
        honest.join(&name, Value::Null).await;
    }
    unjoined.shutdown().await;
    arena
        .close()
        .await
        .with("connections", opened.load(Ordering::Relaxed))
        .with("honest clients joined", tries)
}

pub(crate) async fn names_that_write_on_terminals(scale: Scale) -> Figures {
    let site = Site {
        debug: true,
        ..Site::PLAIN
    };
    let arena = Arena::open_at(scale, site).await;
    let name: String = [&TERMINAL[..], &['x']].concat().into_iter().collect();
    // As it stands in a path.
    let escaped: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let mut tried = 0;
    let mut peers = Vec::new();
    if let Ok(mut peer) = Caller::try_connect(&arena.socket, arena.room, &escaped, &[]).await {
        let app_data = json!({"of": name, "file": format!("{name}\n{name}")});
        // Whether such names are refused is another matter.
        let _ = peer.request(join_request(&name, app_data)).await;
        let _ = peer.request(json!({"method": name, "target": "room"})).await;
        let _ = peer.ask(&name, json!(name)).await;
        peer.say(format!("{{\"{name}\"")).await;
        peers.push(peer);
        tried += 4;
    }
    let mut client = arena.client().await;
    client.say("POST", &format!("/{escaped}"), &[], name.clone()).await;
    for ctl in [&["peers", "1"][..], &["events"], &["peer", "show", "1", &name]] {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_weir"));
        command
            .args(["ctl", "--control"])
            .arg(&arena.socket)
            .args(ctl)
            .env_clear();
        let output = soon("weir ctl", command.output()).await.unwrap();
        for said in [output.stdout, output.stderr] {
            let said = String::from_utf8(said).unwrap();
            assert!(!said.contains(TERMINAL), "weir ctl {}: {said:?}", ctl.join(" "));
        }
        tried += 1;
    }
    drop(peers);
    arena.pass(Duration::from_millis(200)).await;
    let log = arena.log();
    let line = log.lines().find(|line| line.contains(TERMINAL));
    assert_eq!(line, None, "{line:?}");
    arena.close().await.with("ways", tried)
}

/// A WebSocket on which anything can be said.
async fn raw(arena: &Arena, name: &str) -> UnixStream {
    let mut stream = UnixStream::connect(&arena.socket).await.unwrap();
    let request = format!(
        "GET /rooms/{}/peers/{name} HTTP/1.1\r\nhost: weir\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
         sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        arena.room
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    stream
}

/// A masked frame (RFC 6455 §5.2), with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        len @ ..126 => frame.push(0x80 | len as u8),
        len @ ..65_536 => {
            frame.push(0x80 | 126);
            frame.extend((len as u16).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend((len as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

pub(crate) async fn frames_that_are_no_frames(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let mut random = Random::new(7);
    let huge = [&[0x81, 0xff][..], &(1_u64 << 62).to_be_bytes(), &[0; 4]].concat();
    let endless = [frame(0x01, &[b'x'; 1_000]), frame(0x00, &[b'x'; 1_000]).repeat(1_000)].concat();
    let kinds = [
        ("a length that nobody has", huge),
        ("fragments without end", endless),
        (
            "fragments of nothing",
            [frame(0x01, b""), frame(0x00, b"").repeat(50_000)].concat(),
        ),
        ("a message that is too large", frame(0x81, &vec![b'x'; 1 << 20])),
        ("no mask", vec![0x81, 5, b'h', b'e', b'l', b'l', b'o']),
        ("a reserved opcode", frame(0x83, b"x")),
        ("reserved bits", frame(0xf1, b"x")),
        ("a fragmented ping", frame(0x09, b"x")),
        ("a ping that is too long", frame(0x89, &[0; 126])),
        ("no UTF-8", frame(0x81, &[0xff; 100])),
        ("nested too deeply", frame(0x81, "[".repeat(60_000).as_bytes())),
        ("pings without end", frame(0x89, &[0; 125]).repeat(2_000)),
        ("noise", random.bytes(5_000)),
    ];
    let mut said = 0;
    for round in 0..scale.of(1, 20) {
        for (number, (what, bytes)) in kinds.iter().enumerate() {
            let mut stream = raw(&arena, &format!("mallory-{round}-{number}")).await;
            // The server may hang up in the middle, or wait until somebody reads.
            let _ = timeout(Duration::from_millis(300), stream.write_all(bytes)).await;
            let mut answer = vec![0; 65_536];
            let _ = timeout(Duration::from_millis(50), stream.read(&mut answer)).await;
            arena.client().await.get("/health").await.expect(200);
            assert!(arena.memory() < 200 << 20, "{what}");
            said += 1;
        }
    }
    arena.close().await.with("connections", said)
}
