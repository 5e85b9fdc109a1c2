//! The demo page over HTTP: what it is made of, its rooms, and whom it keeps out.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod control;
mod loopback;
mod signalling;

use command::{Scratch, outcome};
use control::{Answer, Client, settings, soon};
use serde_json::{Value, json};
use signalling::Caller;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir::http::{ControlOptions, Limits, app, demo_page, serve};
use weir::{RoomId, RoomOptions, Server};

struct Page {
    server: Server,
    address: String,
    close: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Page {
    async fn start() -> Self {
        let server = soon("the server", Server::start(settings(1))).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (close, closing) = watch::channel(false);
        let app = demo_page(server.clone(), app(server.clone(), ControlOptions::default()));
        let serving = tokio::spawn(serve(listener, app, Limits::default(), closing));
        Self {
            server,
            address,
            close,
            serving,
        }
    }

    /// Asks as a browser does that has opened the page.
    async fn ask(&self, method: &str, target: &str) -> Answer {
        let own = format!("http://{}", self.address);
        self.ask_with(method, target, &[("host", &self.address), ("origin", &own)])
            .await
    }

    async fn ask_with(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Answer {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        Client::over(stream).await.say(method, target, headers, "").await
    }

    async fn room(&self, name: &str) -> u64 {
        let room = self.ask("POST", &format!("/demo/rooms/{name}")).await.expect(200);
        room["id"].as_u64().unwrap()
    }

    async fn close(self) {
        self.close.send_replace(true);
        soon("the server's end", self.server.close()).await;
        soon("the end of serving", self.serving).await.unwrap();
    }
}

#[tokio::test]
async fn the_page_and_all_that_it_needs_come_from_the_program() {
    let page = Page::start().await;
    for (path, content_type, begins) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/demo/app.js", "text/javascript; charset=utf-8", "/* Built by"),
        ("/demo/app.css", "text/css; charset=utf-8", ":root"),
        ("/demo/icon.svg", "image/svg+xml", "<svg"),
        (
            "/demo/licenses.txt",
            "text/plain; charset=utf-8",
            "What app.js contains",
        ),
        ("/publish", "text/html; charset=utf-8", "<!doctype html>"),
        ("/watch", "text/html; charset=utf-8", "<!doctype html>"),
        ("/pages/publish.js", "text/javascript; charset=utf-8", "// Publishes"),
        ("/pages/watch.js", "text/javascript; charset=utf-8", "// Watches"),
        (
            "/pages/session.js",
            "text/javascript; charset=utf-8",
            "// What both pages",
        ),
        ("/pages/pages.css", "text/css; charset=utf-8", ":root"),
    ] {
        let answer = page.ask("GET", path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.headers["content-type"], content_type, "{path}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{path}");
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'; "),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert!(answer.text.starts_with(begins), "{path}");
    }
    let licences = page.ask("GET", "/demo/licenses.txt").await.text;
    for package in [
        "mediasoup-client 2.4.12 (ISC)",
        "sdp-transform",
        "bowser",
        "events",
        "debug",
    ] {
        assert!(licences.contains(package), "{package}");
    }
    page.close().await;
}

/// The pages beside it publish and watch there; what operators can ask is not served.
#[tokio::test]
async fn of_the_interface_it_serves_what_pages_publish_and_watch_with() {
    let page = Page::start().await;
    let answer = page.ask("POST", "/whep/stage").await;
    assert_eq!(answer.status, 415, "{}", answer.text);
    assert_eq!(page.ask("GET", "/whip/stage").await.status, 200);
    for path in ["/rooms", "/workers", "/openapi.json", "/whip"] {
        assert!(matches!(page.ask("GET", path).await.status, 404 | 405), "{path}");
    }
    // What looks like a way out is a room's name.
    assert_eq!(page.ask("GET", "/whep/../rooms").await.text, "");
    let stranger = [("host", page.address.as_str()), ("origin", "https://evil.example")];
    assert_eq!(page.ask_with("POST", "/whip/stage", &stranger).await.status, 403);
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_is_there_when_it_is_first_named_and_for_who_names_it_later() {
    let page = Page::start().await;
    let (lobby, attic) = (page.room("lobby").await, page.room("attic").await);
    assert_ne!(lobby, attic);
    assert_eq!(page.room("lobby").await, lobby);
    let room = page.server.room(RoomId(lobby)).unwrap();
    assert_eq!(*room.app_data(), json!({"demo": "lobby"}));

    let own = format!("http://{}", page.address);
    let mut alice = Caller::try_connect_tcp(&page.address, lobby, "alice", &[("origin", &own)])
        .await
        .unwrap();
    let (answer, _) = alice.join("alice", Value::Null).await;
    assert_eq!(answer, json!({"peers": []}));
    assert_eq!(page.room("lobby").await, lobby, "with somebody in it, too");

    soon("the room's end", room.close(Value::Null)).await.unwrap();
    let next = page.room("lobby").await;
    assert_ne!(next, lobby, "what was closed is not handed out");

    for name in ["", "a.b", "a%2Fb", "%C3%A4", &"x".repeat(41)] {
        let answer = page.ask("POST", &format!("/demo/rooms/{name}")).await;
        assert!(matches!(answer.status, 400 | 404), "{name}: {}", answer.text);
    }
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_are_bounded() {
    let page = Page::start().await;
    for number in 0..64 {
        page.room(&format!("room-{number}")).await;
    }
    let answer = page.ask("POST", "/demo/rooms/one-more").await;
    answer.refuses(503, "tooMany", "64");
    page.room("room-63").await;
    // Where one has ended, another one can be.
    let room = page.server.rooms().pop().unwrap();
    soon("the room's end", room.close(Value::Null)).await.unwrap();
    page.room("one-more").await;
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_else_of_the_server_is_reached_through_it() {
    let page = Page::start().await;
    let lobby = page.room("lobby").await;
    let other = soon("a room", page.server.create_room(RoomOptions::default())).await;
    let other = other.unwrap().id().0;
    for (method, target) in [
        ("GET", "/rooms".to_owned()),
        ("POST", "/rooms".to_owned()),
        ("GET", "/stats".to_owned()),
        ("GET", "/settings".to_owned()),
        ("DELETE", format!("/rooms/{lobby}")),
        ("GET", format!("/rooms/{lobby}/dump")),
    ] {
        page.ask(method, &target)
            .await
            .refuses(404, "unknownRoute", "demo page");
    }
    let refused = Caller::try_connect_tcp(&page.address, other, "alice", &[]).await;
    assert_eq!(refused.err().map(|refused| refused.status), Some(404));
    page.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_others_are_kept_out() {
    let page = Page::start().await;
    let lobby = page.room("lobby").await;
    let port = page.address.rsplit(':').next().unwrap();
    let rebound = (format!("evil.example:{port}"), format!("http://evil.example:{port}"));
    for headers in [
        [("host", page.address.as_str()), ("origin", "https://evil.example")],
        [("host", page.address.as_str()), ("origin", "null")],
        [("host", rebound.0.as_str()), ("origin", rebound.1.as_str())],
        [("host", page.address.as_str()), ("x-forwarded-for", "192.0.2.1")],
    ] {
        for (method, target) in [
            ("GET", "/"),
            ("POST", "/demo/rooms/lobby"),
            ("POST", "/demo/rooms/attic"),
        ] {
            let answer = page.ask_with(method, target, &headers).await;
            answer.refuses(403, "foreignOrigin", "for this machine");
        }
        let refused = Caller::try_connect_tcp(&page.address, lobby, "alice", &headers).await;
        assert_eq!(refused.err().map(|refused| refused.status), Some(403), "{headers:?}");
    }
    assert_eq!(page.server.rooms().len(), 1, "no attic");
    page.close().await;
}

#[tokio::test]
async fn it_is_for_loopback_addresses_only() {
    let scratch = Scratch::new();
    for (listen, says) in [
        ("0.0.0.0:4080", "loopback addresses only"),
        ("192.0.2.1:4080", "loopback addresses only"),
        ("everywhere", "127.0.0.1:4080"),
    ] {
        let mut command = scratch.serve();
        command.args(["--demo-page", listen]);
        outcome(command).await.failed(2, says);
    }
}
