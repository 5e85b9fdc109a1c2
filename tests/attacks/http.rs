//! The control interface: those who have no token, and those whose requests are none.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::Scale;
use crate::arena::{Arena, Family, Figures, Site, TOKEN};
use crate::control::Client;
use crate::flood::time;
use crate::meters::now;

/// An operator who is not answered in this time is locked out.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest that anybody waits for an answer that must come.
const ANSWER: Duration = Duration::from_secs(20);

/// The head of a request that goes on and on.
pub(crate) const ENDLESS_HEAD: &str = "GET /health HTTP/1.1\r\nhost: weir\r\nx-never-";

pub(crate) const TCP: Site = Site {
    tcp: true,
    ..Site::PLAIN
};

/// A connection from one of this machine's addresses.
pub(crate) async fn connect(source: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = match to {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.bind(SocketAddr::new(source, 0))?;
    timeout(PATIENCE, socket.connect(to)).await?
}

/// Whether an operator with the token is served over TCP, from an address that is not the attacker's.
async fn operator_is_served(home: IpAddr, to: SocketAddr) -> bool {
    let call = async {
        let mut stream = connect(home, to).await.ok()?;
        let request = format!("GET /health HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.ok()?;
        (status == *b"HTTP/1.1 200").then_some(())
    };
    timeout(PATIENCE, call).await.is_ok_and(|served| served.is_some())
}

/// Holds a connection that says one thing and then almost nothing, and another one when that is closed.
async fn hold(family: Family, to: SocketAddr, says: &'static str, opened: Arc<AtomicU64>) {
    loop {
        let number = opened.fetch_add(1, Ordering::Relaxed);
        let Ok(mut stream) = connect(family.one_of_strangers(number), to).await else {
            continue;
        };
        if stream.write_all(says.as_bytes()).await.is_err() {
            continue;
        }
        let mut answer = [0; 1_000];
        loop {
            match timeout(Duration::from_secs(1), stream.read(&mut answer)).await {
                // Time for another byte.
                Err(_) if stream.write_all(b"x").await.is_ok() => {}
                Ok(Ok(len)) if len > 0 => {}
                _ => break,
            }
        }
        // Attackers have to keep some time, too.
        let _ = timeout(Duration::from_millis(50), std::future::pending::<()>()).await;
    }
}

/// Holds hundreds of slow connections while an operator tries to get in.
pub(crate) async fn slowly(scale: Scale, site: Site, says: &'static str) -> Figures {
    let arena = Arena::open_at(scale, site).await;
    let to = arena.tcp.unwrap();
    let opened = Arc::new(AtomicU64::new(0));
    let mut slow = JoinSet::new();
    for _ in 0..600 {
        slow.spawn(hold(arena.family, to, says, Arc::clone(&opened)));
    }
    // As many as a server takes at once.
    arena
        .until("connections", || opened.load(Ordering::Relaxed) > 300)
        .await;
    let mut served = 0;
    let tries = scale.of(3, 30);
    for _ in 0..tries {
        served += usize::from(operator_is_served(arena.family.home(), to).await);
        arena.pass(Duration::from_millis(100)).await;
    }
    slow.shutdown().await;
    assert_eq!(served, tries, "of the operator's calls");
    let figures = arena.close().await;
    figures
        .with("connections", opened.load(Ordering::Relaxed))
        .with("operator served", served)
}

pub(crate) async fn heads_that_do_not_end(scale: Scale) -> Figures {
    slowly(scale, TCP, ENDLESS_HEAD).await
}

pub(crate) async fn bodies_that_do_not_end(scale: Scale) -> Figures {
    let head = "POST /rooms HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer guessed-0123456789\r\n\
                content-type: application/json\r\ncontent-length: 10000\r\n\r\n{";
    slowly(scale, TCP, head).await
}

pub(crate) async fn guessing_tokens(scale: Scale) -> Figures {
    guessing_at(scale, TCP).await
}

pub(crate) async fn guessing_at(scale: Scale, site: Site) -> Figures {
    let arena = Arena::open_at(scale, site).await;
    let (to, logged) = (arena.tcp.unwrap(), arena.logged());
    let began = now();
    let (mut guesses, mut refused) = (0_u64, 0_u64);
    while now() - began < time(scale) {
        let Ok(stream) = connect(arena.family.one_of_strangers(guesses), to).await else {
            continue;
        };
        let (mut reader, mut writer) = stream.into_split();
        for _ in 0..50 {
            let request =
                format!("GET /rooms HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer guess-number-{guesses:08}\r\n\r\n");
            let mut answer = vec![0; 4_096];
            let call = async {
                writer.write_all(request.as_bytes()).await?;
                reader.read(&mut answer).await
            };
            guesses += 1;
            // Who guesses too much may be made to wait, or be hung up on.
            match timeout(Duration::from_secs(1), call).await {
                Ok(Ok(len)) if len >= 12 => {
                    let status = &answer[9..12];
                    assert!(
                        status == b"401" || status == b"429",
                        "{}",
                        String::from_utf8_lossy(&answer[..len])
                    );
                    refused += 1;
                }
                _ => break,
            }
        }
    }
    assert!(refused > 0 && operator_is_served(arena.family.home(), to).await);
    let log = arena.log();
    let guesser = arena.family.stranger().to_string();
    assert!(log.contains(&guesser), "whoever guesses is named");
    assert!(!log.contains("guess-number"), "what was guessed is not");
    let logged = arena.logged() - logged;
    assert!(logged <= 256 * 1024, "{logged} bytes of log");
    arena
        .close()
        .await
        .with("guesses", guesses)
        .with("bytes logged", logged)
}

/// What the server says to these bytes until it hangs up or has nothing more to say for a while.
async fn answer_to(arena: &Arena, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(&arena.socket).await.unwrap();
    let mut said = Vec::new();
    let call = async {
        // It may hang up before all is written.
        let _ = stream.write_all(bytes).await;
        let mut part = vec![0; 65_536];
        while let Ok(Ok(len)) = timeout(Duration::from_millis(200), stream.read(&mut part)).await
            && len > 0
        {
            said.extend_from_slice(&part[..len]);
        }
    };
    let _ = timeout(ANSWER, call).await;
    String::from_utf8_lossy(&said).into_owned()
}

async fn rooms(arena: &Arena) -> usize {
    let rooms = arena.client().await.get("/rooms?limit=1000").await.expect(200);
    rooms["items"].as_array().unwrap().len()
}

pub(crate) async fn two_lengths_at_once(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let before = rooms(&arena).await;
    let smuggled =
        "POST /rooms HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let heads = [
        // RFC 9112 §6.3: a message with both is an attempt at smuggling.
        "content-length: 5\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 5",
        "content-length: 5\r\ncontent-length: 6",
        "content-length: 5, 6",
        "content-length: +5",
        "content-length: 0x5",
        "transfer-encoding: chunked, identity",
        "transfer-encoding: xchunked\r\ncontent-length: 5",
    ];
    let mut refused = 0;
    for head in heads {
        let request = format!(
            "POST /nothing HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\n{head}\r\n\r\n0\r\n\r\n{smuggled}"
        );
        let said = answer_to(&arena, request.as_bytes()).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 400 "), "{head}: {said}");
        assert_eq!(
            said.matches("HTTP/1.1 ").count(),
            usize::from(!said.is_empty()),
            "{head}: {said}"
        );
        refused += 1;
    }
    assert_eq!(rooms(&arena).await, before, "nothing was smuggled in");
    // Refusals are quick, and the innocent have to call meanwhile.
    arena.pass(Duration::from_millis(500)).await;
    arena.close().await.with("refused", refused)
}

pub(crate) async fn too_deep_and_too_large(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let before = rooms(&arena).await;
    let deep = |depth: usize| format!("{}{}", r#"{"appData":"#, "[".repeat(depth));
    let mut refused = 0;
    for _ in 0..scale.of(3, 20) {
        let bodies = [
            deep(100_000),
            deep(200),
            format!(r#"{{"appData":"{}"}}"#, "x".repeat(1 << 20)),
            format!(r#"{{"appData":{}}}"#, "9".repeat(200_000)),
            format!("{{{}", r#""appData":1,"#.repeat(10_000)),
            "\u{0}".repeat(1_000),
        ];
        for body in bodies {
            let head = format!(
                "POST /rooms HTTP/1.1\r\nhost: weir\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            let said = answer_to(&arena, format!("{head}{body}").as_bytes()).await;
            // Who writes on after the refusal may find the connection reset.
            assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
            refused += 1;
        }
    }
    assert_eq!(rooms(&arena).await, before);
    arena.close().await.with("refused", refused)
}

pub(crate) async fn requests_in_a_row(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let row = "GET /settings HTTP/1.1\r\nhost: weir\r\n\r\n".repeat(1_000);
    let mut written = 0;
    let began = now();
    let mut streams = Vec::new();
    for _ in 0..20 {
        streams.push(UnixStream::connect(&arena.socket).await.unwrap());
    }
    while now() - began < time(scale) {
        for stream in &mut streams {
            // The first rows fill what the kernel holds; nobody reads an answer.
            if let Ok(len) = stream.try_write(row.as_bytes()) {
                written += len;
            }
        }
        arena.pass(Duration::from_millis(10)).await;
    }
    arena.close().await.with("bytes of requests", written as u64)
}

pub(crate) async fn followers_that_never_read(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let mut followers = Vec::new();
    for number in 0..scale.of(50, 150) {
        // Beyond what the server takes at once, the kernel refuses.
        let Ok(mut stream) = UnixStream::connect(&arena.socket).await else {
            continue;
        };
        let target = if number % 2 == 0 {
            "/events".to_owned()
        } else {
            format!("/rooms/{}/audio-levels", arena.room)
        };
        let request = format!("GET {target} HTTP/1.1\r\nhost: weir\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        followers.push(stream);
    }
    let mut client = arena.client().await;
    let app_data = json!("x".repeat(8_000));
    let events = scale.of(300, 5_000);
    for _ in 0..events {
        let room = client.post("/rooms", json!({"appData": app_data})).await.expect(201);
        client.delete(&format!("/rooms/{}", room["id"])).await.expect(200);
    }
    arena
        .close()
        .await
        .with("followers", followers.len())
        .with("rooms opened and closed", events)
}

pub(crate) async fn cursors_that_make_no_sense(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let mut client = arena.client().await;
    let position = client.get("/events/recent?limit=1").await.expect(200)["position"].clone();
    let position = position.as_str().unwrap();
    let (server, _) = position.split_once('-').unwrap();
    let mut asked = 0;
    for after in [
        "-1",
        "0",
        "18446744073709551615",
        "18446744073709551616",
        "%00",
        "x",
        "-",
        &format!("{server}-18446744073709551615"),
        &format!("{server}-99999999999999999999999"),
        &format!("{server}--1"),
        "ffffffffffffffffffffffffffffffff-5",
        &"9".repeat(8_000),
    ] {
        for query in [
            format!("after={after}"),
            format!("after={after}&limit=0"),
            format!("after={after}&limit=-1"),
        ] {
            let answer = client.get(&format!("/events/recent?{query}")).await;
            assert!(answer.status < 500, "{query}: {}", answer.text);
            asked += 1;
        }
        let mut follower = arena.client().await;
        let answer = follower.begin("GET", &format!("/events?after={after}"), &[], "").await;
        assert!(answer.status().as_u16() < 500, "{after}");
    }
    client.get("/events/recent").await.expect(200);
    arena.close().await.with("positions", asked)
}

pub(crate) async fn paths_that_are_not_what_they_seem(scale: Scale) -> Figures {
    let arena = Arena::open_at(scale, TCP).await;
    let to = arena.tcp.unwrap();
    let mut asked = 0;
    let peer = format!("/rooms/{}/peers/x", arena.room);
    for path in [
        "//rooms".to_owned(),
        "/./rooms".to_owned(),
        "/%72ooms".to_owned(),
        "/rooms%2f1".to_owned(),
        "/rooms/%2e%2e/settings".to_owned(),
        format!("{peer}/../../../../settings"),
        format!("{peer}/%2e%2e/%2e%2e/settings"),
        format!("{peer}%2f..%2f..%2f..%2fsettings"),
        format!("{peer}%00"),
        format!("{peer}?/settings"),
        format!("{peer}#/settings"),
        format!("{peer};/settings"),
        "http://weir/rooms".to_owned(),
        "*".to_owned(),
    ] {
        for (method, upgrade) in [("GET", false), ("GET", true), ("DELETE", true), ("POST", false)] {
            let upgrade = if upgrade {
                "connection: upgrade\r\nupgrade: websocket\r\n"
            } else {
                ""
            };
            let mut stream = connect(arena.family.stranger(), to).await.unwrap();
            let request = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{upgrade}\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = vec![0; 1_000];
            let len = timeout(ANSWER, stream.read(&mut answer)).await.unwrap().unwrap_or(0);
            let said = String::from_utf8_lossy(&answer[..len]);
            assert!(
                said.is_empty() || said.starts_with("HTTP/1.1 4"),
                "{method} {path}: {said}"
            );
            asked += 1;
        }
    }
    arena
        .client()
        .await
        .get(&format!("/rooms/{}", arena.room))
        .await
        .expect(200);
    arena.close().await.with("requests", asked)
}

pub(crate) async fn rooms_without_end(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let mut client = arena.client().await;
    let began = now();
    let (mut made, mut refused) = (0_u64, 0_u64);
    let most = scale.of(200, 4_000) as u64;
    while made < most && now() - began < 3 * time(scale) {
        let room = client.post("/rooms", Value::Object(Default::default())).await;
        if room.status != 201 {
            refused += 1;
            continue;
        }
        made += 1;
        let target = format!("/rooms/{}/transports", room.body["id"]);
        let transport = client.post(&target, json!({"comedia": true})).await;
        assert!(transport.status < 500 || transport.status == 503, "{}", transport.text);
        refused += u64::from(transport.status != 201);
    }
    close_all(&mut client).await;
    arena.close().await.with("rooms", made).with("refused", refused)
}

/// Closes the rooms but the first, which is that of the innocent.
async fn close_all(client: &mut Client) {
    loop {
        let rooms = client.get("/rooms?after=1&limit=1000").await.expect(200);
        let rooms = rooms["items"].as_array().unwrap().clone();
        if rooms.is_empty() {
            return;
        }
        for room in rooms {
            client.delete(&format!("/rooms/{}", room["id"])).await.expect(200);
        }
    }
}
