//! Access tokens: who may command the server, be in which room under which name, send and receive, over every interface.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod control;
mod loopback;
mod signalling;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use command::{Scratch, outcome, weir};
use control::{Answer, Client, Control, settings, soon};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use signalling::{Caller, create_microphone, create_transport};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir::RoomOptions;
use weir::http::{
    Claims, ClientsFrom, ControlOptions, Guard, KeyKind, Limits, SignallingOptions, SigningKey, TokenKeys, app,
    guarded, openapi, serve,
};

const OPERATORS: &str = "0123456789abcdefghijklmnop";
const CLIENTS: &str = "for-pages-and-apps-only";
const ORIGIN: &str = "https://app.example";
const OFFER: &str = include_str!("data/whip/whip-obs-shape-1-layer-a.sdp");
const PLAYER: &str = include_str!("data/whip/whep-chromium-whip-whep.sdp");

#[expect(clippy::disallowed_methods, reason = "tokens say until when they hold")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

/// A server on TCP with keys of access tokens, beside the tokens that are always the same.
struct Tcp {
    control: Control,
    address: String,
    keys: TempDir,
    close: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Tcp {
    async fn start() -> Self {
        let keys = tempfile::tempdir().unwrap();
        SigningKey::generate(KeyKind::Hs256, &keys.path().join("main")).unwrap();
        let token_keys = Some(TokenKeys::read(keys.path()).unwrap());
        let signalling = SignallingOptions {
            token: Some(CLIENTS.parse().unwrap()),
            token_keys: token_keys.clone(),
            origins: vec![ORIGIN.to_owned()],
            ..SignallingOptions::default()
        };
        let guard = Guard {
            operators: Some(OPERATORS.parse().unwrap()),
            token_keys,
            origins: signalling.origins.clone(),
            clients: ClientsFrom::Anywhere,
        };
        let control = Control::start_with(settings(1), Limits::default(), ControlOptions::default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let options = ControlOptions {
            signalling,
            ..ControlOptions::default()
        };
        let (close, closing) = watch::channel(false);
        let app = guarded(app(control.server.clone(), options), guard);
        let serving = tokio::spawn(serve(listener, app, Limits::default(), closing));
        Self {
            control,
            address,
            keys,
            close,
            serving,
        }
    }

    async fn client(&self) -> Client {
        Client::over(TcpStream::connect(&self.address).await.unwrap()).await
    }

    async fn room(&self) -> u64 {
        let room = self.control.server.create_room(RoomOptions::default());
        soon("the room", room).await.unwrap().id().0
    }

    /// A token that says this and, unless it says otherwise, expires in a minute.
    fn token(&self, claims: Value) -> String {
        sign(&self.keys.path().join("main.key"), claims)
    }

    /// The status with which a client is refused; `None`: it is let in.
    async fn refuses(&self, room: u64, name: &str, token: &str) -> Option<u16> {
        let offer = format!("protoo, bearer.{token}");
        let page = [("sec-websocket-protocol", offer.as_str())];
        let connected = Caller::try_connect_tcp(&self.address, room, name, &page).await;
        let by_page = connected.err().map(|refused| refused.status);
        let bearer = bearer(token);
        let app = [("authorization", bearer.as_str())];
        let connected = Caller::try_connect_tcp(&self.address, room, name, &app).await;
        assert_eq!(
            by_page,
            connected.err().map(|refused| refused.status),
            "however it is sent"
        );
        by_page
    }

    async fn connect(&self, room: u64, name: &str, claims: Value) -> Caller<TcpStream> {
        let bearer = bearer(&self.token(claims));
        Caller::try_connect_tcp(&self.address, room, name, &[("authorization", &bearer)])
            .await
            .unwrap()
    }

    async fn close(self) {
        self.close.send_replace(true);
        soon("the end of serving", self.serving).await.unwrap();
        self.control.close().await;
    }
}

fn sign(key: &Path, mut claims: Value) -> String {
    if claims["exp"].is_null() {
        claims["exp"] = (now() + 60).into();
    }
    let claims: Claims = serde_json::from_value(claims).unwrap();
    let key = SigningKey::read(key).unwrap();
    key.sign(&claims, key.name()).unwrap()
}

/// Tokens that let nobody in, whatever they are for, and what is wrong with them.
fn worthless(tcp: &Tcp, rights: &Value) -> Vec<(String, &'static str)> {
    let with = |name: &str, value: Value| {
        let mut claims = rights.clone();
        claims[name] = value;
        tcp.token(claims)
    };
    let strangers = tempfile::tempdir().unwrap();
    SigningKey::generate(KeyKind::Hs256, &strangers.path().join("main")).unwrap();
    let foreign = sign(&strangers.path().join("main.key"), rights.clone());
    vec![
        (with("exp", json!(now() - 60)), "has expired"),
        (with("nbf", json!(now() + 60)), "does not hold yet"),
        (with("exp", json!(now() + 400 * 24 * 3_600)), "later than in 366 days"),
        // Beside a token that is always the same nobody knows which of the two was meant.
        (foreign, "Bearer TOKEN"),
        ("a.b.c".to_owned(), "Bearer TOKEN"),
        ("x".repeat(10_000), "Bearer TOKEN"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_are_who_has_admin_or_the_token() {
    let tcp = Tcp::start().await;
    let mut client = tcp.client().await;
    let admin = json!({"admin": true});
    for (claims, code) in [
        (json!({}), "insufficientScope"),
        (
            json!({"room": "*", "publish": true, "subscribe": true}),
            "insufficientScope",
        ),
        (json!({"admin": true, "room": "stage"}), "insufficientScope"),
    ] {
        let answer = ask(&mut client, "GET", "/rooms", &tcp.token(claims.clone())).await;
        answer.refuses(403, code, "access token");
        assert_eq!(
            answer.headers["www-authenticate"], "Bearer error=\"insufficient_scope\"",
            "{claims}"
        );
    }
    for (token, says) in worthless(&tcp, &admin) {
        let answer = ask(&mut client, "POST", "/rooms", &token).await;
        answer.refuses(401, "unauthorized", says);
        let challenge = answer.headers["www-authenticate"].to_str().unwrap();
        assert!(challenge.starts_with("Bearer error=\"invalid_token\""), "{challenge}");
        // Where guessing is slow, each on a connection of its own.
        client = tcp.client().await;
    }
    assert!(tcp.control.server.rooms().is_empty(), "nothing was done");
    for token in [
        tcp.token(admin),
        tcp.token(json!({"admin": true, "room": "*"})),
        OPERATORS.to_owned(),
    ] {
        let answer = ask(&mut client, "POST", "/rooms", &token).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    ask(&mut client, "GET", "/health", CLIENTS)
        .await
        .refuses(401, "unauthorized", "Bearer");
    tcp.close().await;
}

async fn ask(client: &mut Client, method: &str, target: &str, token: &str) -> Answer {
    client
        .say(method, target, &[("authorization", &bearer(token))], "")
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_let_into_their_rooms_under_their_names() {
    let tcp = Tcp::start().await;
    let (room, other) = (tcp.room().await, tcp.room().await);
    let own = json!({"room": room.to_string(), "peer": "alice", "publish": true, "subscribe": true});
    let token = tcp.token(own.clone());
    assert_eq!(tcp.refuses(room, "alice", &token).await, None);
    assert_eq!(
        tcp.refuses(room, "bob", &token).await,
        Some(403),
        "nobody is somebody else"
    );
    assert_eq!(tcp.refuses(room, "Alice", &token).await, Some(403));
    assert_eq!(tcp.refuses(other, "alice", &token).await, Some(403));
    assert_eq!(
        tcp.refuses(99, "alice", &token).await,
        Some(403),
        "which rooms there are is not told"
    );
    let nameless = tcp.token(json!({"room": [room.to_string(), "stage"], "subscribe": true}));
    assert_eq!(tcp.refuses(room, "anybody", &nameless).await, None);
    assert_eq!(tcp.refuses(other, "anybody", &nameless).await, Some(403));
    let all = tcp.token(json!({"room": "*", "publish": true}));
    assert_eq!(tcp.refuses(other, "bob", &all).await, None);
    assert_eq!(tcp.refuses(99, "bob", &all).await, Some(404));
    assert_eq!(
        tcp.refuses(room, "bob", &tcp.token(json!({"admin": true}))).await,
        Some(403),
        "an operator is no client"
    );
    assert_eq!(
        tcp.refuses(room, "bob", CLIENTS).await,
        None,
        "the token that is always the same goes on"
    );
    for (token, says) in worthless(&tcp, &own) {
        assert_eq!(tcp.refuses(room, "alice", &token).await, Some(401), "{says}");
    }
    // The name in the address is the one to join with.
    let mut alice = tcp.connect(room, "alice", own).await;
    let mut join = signalling::join_request("bob", Value::Null);
    let refused = alice.request(join.clone()).await.unwrap_err();
    assert_eq!(refused.name, "TypeError");
    join["peerName"] = "alice".into();
    alice.request(join).await.unwrap();
    tcp.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_only_receive_sends_nothing_and_who_may_only_send_receives_nothing() {
    let tcp = Tcp::start().await;
    let room = tcp.room().await;
    let claims = |publish: bool, subscribe: bool| json!({"room": "*", "publish": publish, "subscribe": subscribe});
    let mut sender = tcp.connect(room, "sender", claims(true, false)).await;
    let mut receiver = tcp.connect(room, "receiver", claims(false, true)).await;
    let mut both = tcp.connect(room, "both", claims(true, true)).await;
    both.join("both", Value::Null).await;
    both.request(create_transport(1, "send")).await.unwrap();
    both.request(create_microphone(1, 1, 100)).await.unwrap();

    // What is there when they join.
    let (seen, _) = sender.join("sender", Value::Null).await;
    assert_eq!(
        seen["peers"],
        json!([{"name": "both", "appData": null, "consumers": []}])
    );
    let (seen, _) = receiver.join("receiver", Value::Null).await;
    let consumers = |seen: &Value| -> Vec<usize> {
        let peers = seen["peers"].as_array().unwrap().iter();
        peers.map(|peer| peer["consumers"].as_array().unwrap().len()).collect()
    };
    assert_eq!(consumers(&seen), [1, 0]);

    // What comes later.
    sender.request(create_transport(1, "send")).await.unwrap();
    sender.request(create_microphone(1, 1, 200)).await.unwrap();
    receiver.request(create_transport(1, "send")).await.unwrap();
    let refused = receiver.request(create_microphone(1, 1, 300)).await.unwrap_err();
    assert!(refused.reason.contains("may not create producers"), "{refused:?}");
    both.request(create_transport(2, "send")).await.unwrap();
    both.request(create_microphone(2, 2, 400)).await.unwrap();
    let room = tcp.control.server.room(weir::RoomId(room)).unwrap();
    let count = |name: &str| {
        let peer = room.peer(name).unwrap();
        (peer.producers().len(), peer.consumers().len())
    };
    assert_eq!(count("sender"), (1, 0));
    assert_eq!(count("receiver"), (0, 3));
    assert_eq!(count("both"), (2, 1));
    // Nor through the application, by mistake.
    let peer = room.peer("receiver").unwrap();
    let options = room.peer("both").unwrap().producers()[0].clone();
    let options = weir::ProducerOptions::new(options.kind(), options.rtp_parameters().clone());
    let refused = peer.transports()[0].produce(options).await.unwrap_err();
    assert!(refused.to_string().contains("may not send"), "{refused}");
    drop(room);
    tcp.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publishers_need_publish_and_players_subscribe() {
    let tcp = Tcp::start().await;
    let mut client = tcp.client().await;
    let publish = json!({"room": "stage", "peer": "alice", "publish": true});
    let subscribe = json!({"room": "stage", "subscribe": true});
    let rows = [
        ("/whip/stage", subscribe.clone(), 403, "(publish)"),
        ("/whip/other", publish.clone(), 403, "other (room)"),
        ("/whip/stage/bob", publish.clone(), 403, "another name (peer)"),
        ("/whep/stage", publish.clone(), 403, "(subscribe)"),
        ("/whep/other", subscribe.clone(), 403, "other (room)"),
        ("/whip/stage", json!({"admin": true}), 403, "(room)"),
    ];
    for (target, claims, status, says) in rows {
        let answer = post(&mut client, target, &tcp.token(claims)).await;
        refuses(&answer, status, "insufficientScope", says);
        assert_eq!(
            answer.headers["www-authenticate"],
            "Bearer error=\"insufficient_scope\""
        );
    }
    for (token, says) in worthless(&tcp, &publish) {
        let answer = post(&mut client, "/whip/stage", &token).await;
        refuses(&answer, 401, "unauthorized", says);
        client = tcp.client().await;
    }
    assert!(tcp.control.server.rooms().is_empty(), "nothing was made");

    // Who has a name publishes under it, without saying it again.
    let answer = post(&mut client, "/whip/stage", &tcp.token(publish)).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    let room = tcp.control.server.rooms()[0].clone();
    assert_eq!(room.peer("alice").unwrap().producers().len(), 2);
    let id = room.id().0;
    for (target, claims) in [
        // Whose name a player has restricts nobody whom it watches.
        (
            "/whep/stage/alice".to_owned(),
            json!({"room": "stage", "peer": "bob", "subscribe": true}),
        ),
        (
            format!("/whep/{id}"),
            json!({"room": id.to_string(), "subscribe": true}),
        ),
        ("/whip/stage/carol".to_owned(), json!({"room": "*", "publish": true})),
    ] {
        let answer = post(&mut client, &target, &tcp.token(claims)).await;
        assert_eq!(answer.status, 201, "{target}: {}", answer.text);
        // The session's URL is a secret, and needs no token.
        let location = answer.headers["location"].to_str().unwrap().to_owned();
        assert_eq!(client.say("DELETE", &location, &[], "").await.status, 200);
    }
    drop(room);
    tcp.close().await;
}

async fn post(client: &mut Client, target: &str, token: &str) -> Answer {
    let offer = match target.starts_with("/whip") {
        true => OFFER,
        false => PLAYER,
    };
    let bearer = bearer(token);
    let headers = [("content-type", "application/sdp"), ("authorization", bearer.as_str())];
    client.say("POST", target, &headers, offer).await
}

/// Checks a refusal as publishers and players get it.
#[track_caller]
fn refuses(answer: &Answer, status: u16, code: &str, says: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(answer.body["code"], code, "{}", answer.text);
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains(says), "{says:?} is not in {detail:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn preflights_need_no_token_on_any_route() {
    let tcp = Tcp::start().await;
    let mut client = tcp.client().await;
    let document = openapi();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 50);
    for path in paths.keys() {
        let target = path.replace("{id}", "1").replace(['{', '}'], "");
        for method in ["GET", "POST", "DELETE"] {
            let asks = ("access-control-request-method", method);
            let answer = client.say("OPTIONS", &target, &[("origin", ORIGIN), asks], "").await;
            assert!(matches!(answer.status, 200 | 204), "{target} {}", answer.text);
            assert_eq!(answer.headers["access-control-allow-origin"], ORIGIN, "{target}");
            let listed = answer.headers["access-control-allow-headers"].to_str().unwrap();
            assert!(listed.contains("authorization"), "{target}");
            let strange = [("origin", "https://evil.example"), asks];
            let answer = client.say("OPTIONS", &target, &strange, "").await;
            assert_eq!(answer.status, 403, "{target}");
            assert!(!answer.headers.contains_key("access-control-allow-origin"));
        }
    }
    // What is asked then, needs one; and the page can read why it was refused, and the answer.
    let page = ("origin", ORIGIN);
    let answer = client.say("GET", "/rooms", &[page], "").await;
    answer.refuses(401, "unauthorized", "Bearer");
    assert_eq!(answer.headers["access-control-allow-origin"], ORIGIN);
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    let admin = bearer(&tcp.token(json!({"admin": true})));
    let admin = ("authorization", admin.as_str());
    let answer = client.say("GET", "/rooms", &[page, admin], "").await;
    assert_eq!(
        (
            answer.status,
            answer.headers["access-control-allow-origin"].to_str().unwrap()
        ),
        (200, ORIGIN)
    );
    let answer = client
        .say("GET", "/rooms", &[("origin", "https://evil.example"), admin], "")
        .await;
    assert!(
        !answer.headers.contains_key("access-control-allow-origin"),
        "a page cannot read it"
    );
    // What is no preflight.
    for headers in [&[][..], &[page], &[("access-control-request-method", "GET")]] {
        let answer = client.say("OPTIONS", "/rooms", headers, "").await;
        assert_eq!(answer.status, 401, "{headers:?}");
    }
    tcp.close().await;
}

/// The text that a command prints.
async fn printed(args: &[&str]) -> String {
    let done = outcome(weir(args)).await;
    assert_eq!(done.code, 0, "{args:?}: {} {}", done.stdout, done.stderr);
    done.stdout.trim_end().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_from_the_command_line_open_a_server_and_are_in_no_log() {
    let scratch = Scratch::new();
    let dir = |name: &str| -> PathBuf {
        let path = scratch.dir.path().join(name);
        std::fs::create_dir(&path).unwrap();
        path
    };
    let (servers, issuers) = (dir("keys"), dir("issuer"));
    let shared = servers.join("shared");
    printed(&["token", "key", "generate", shared.to_str().unwrap()]).await;
    let pair = issuers.join("pair");
    let made = printed(&[
        "token",
        "key",
        "generate",
        "--algorithm",
        "eddsa",
        pair.to_str().unwrap(),
    ])
    .await;
    assert!(made.contains("pair.pub.pem"), "{made}");
    std::fs::copy(issuers.join("pair.pub.pem"), servers.join("pair.pub.pem")).unwrap();
    let (shared, pair) = (servers.join("shared.key"), issuers.join("pair.pem"));
    let secret = std::fs::read_to_string(&shared).unwrap().trim_end().to_owned();
    let create = async |key: &Path, args: &[&str]| {
        let command = ["token", "create", "--key", key.to_str().unwrap()];
        printed(&[&command[..], args].concat()).await
    };
    let admin = create(&shared, &["--admin", "--expires", "10m"]).await;
    let alice = create(&pair, &["--room", "1", "--peer", "alice", "--publish", "--subscribe"]).await;
    let publisher = create(&shared, &["--room", "stage", "--room", "1", "--publish"]).await;

    let mut command = scratch.serve();
    command
        .args(["--http-listen", "127.0.0.1:0", "--log-level", "trace", "--token-keys"])
        .arg(&servers);
    let mut serve = command.spawn().unwrap();
    let mut stderr = serve.stderr.take().unwrap();
    let log = tokio::spawn(async move {
        let mut log = String::new();
        stderr.read_to_string(&mut log).await.unwrap();
        log
    });
    let mut lines = BufReader::new(serve.stdout.take().unwrap()).lines();
    let line = soon("the server", lines.next_line()).await.unwrap().unwrap();
    let address = line.rsplit(" and ").next().unwrap();
    let mut client = Client::over(TcpStream::connect(address).await.unwrap()).await;
    ask(&mut client, "GET", "/rooms", &alice)
        .await
        .refuses(403, "insufficientScope", "operators");
    let created = ask(&mut client, "POST", "/rooms", &admin).await;
    assert_eq!(created.status, 201, "{}", created.text);
    let offer = format!("protoo, bearer.{alice}");
    let page = [("sec-websocket-protocol", offer.as_str())];
    let mut caller = Caller::try_connect_tcp(address, 1, "alice", &page).await.unwrap();
    caller.join("alice", Value::Null).await;
    let refused = Caller::try_connect_tcp(address, 1, "bob", &page).await;
    assert_eq!(refused.err().map(|refused| refused.status), Some(403));
    assert_eq!(post(&mut client, "/whip/stage", &publisher).await.status, 201);
    let wrong = format!("{publisher}wrong");
    assert_eq!(post(&mut client, "/whip/stage", &wrong).await.status, 401);
    let refused = ask(&mut client, "GET", "/rooms", &wrong).await;
    refused.refuses(401, "unauthorized", "not signed with a key of this server");
    kill(Pid::from_raw(serve.id().unwrap() as i32), Signal::SIGTERM).unwrap();
    assert!(soon("its end", serve.wait()).await.unwrap().success());
    let log = soon("its log", log).await.unwrap();
    assert!(
        log.contains("refused a wrong token") && log.contains("/whip/stage"),
        "{log}"
    );
    for token in [&admin, &alice, &publisher] {
        for part in token.split('.').skip(1) {
            assert!(!log.contains(part), "a part of a token is in the log");
        }
    }
    assert!(!log.contains(&secret));
}

#[tokio::test]
async fn the_command_line_makes_and_explains_tokens() {
    let scratch = Scratch::new();
    let path = |name: &str| scratch.dir.path().join(name).to_str().unwrap().to_owned();
    printed(&["token", "key", "generate", &path("main")]).await;
    printed(&["token", "key", "generate", &path("other")]).await;
    let (main, other) = (path("main.key"), path("other.key"));
    let args = [
        "token",
        "create",
        "--key",
        &main,
        "--room",
        "stage",
        "--peer",
        "alice",
        "--publish",
        "--expires",
        "1h",
    ];
    let token = printed(&args).await;
    let shown = printed(&["token", "show", "--key", &main, &token]).await;
    for line in [
        "key       main (HS256)",
        "room      stage",
        "peer      alice",
        "may       publish",
        "accepted  signed with main",
    ] {
        assert!(shown.lines().any(|own| own == line), "{line:?} is not in\n{shown}");
    }
    assert!(shown.contains("expires   2"), "{shown}");
    assert!(
        !printed(&["token", "show", &token]).await.contains("accepted"),
        "no key was named"
    );
    let done = outcome(weir(["token", "show", "--key", &other, &token])).await;
    assert_eq!(done.code, 1);
    assert!(
        done.stdout.contains("refused   the access token is not signed"),
        "{}",
        done.stdout
    );
    // What is in a token does not drive the terminal.
    let evil = sign(Path::new(&main), json!({"room": "\u{1b}[31m\u{9b}x", "peer": "\n"}));
    let shown = printed(&["token", "show", &evil]).await;
    assert!(
        !shown.contains(['\u{1b}', '\u{9b}']) && shown.contains(r"\u{1b}[31m"),
        "{shown}"
    );

    let create = |args: &'static str| {
        let command = ["token", "create", "--key", &main].map(str::to_owned);
        let args = args.split_whitespace().map(str::to_owned);
        weir(command.into_iter().chain(args))
    };
    for (args, complaint) in [
        ("", "--room"),
        ("--room stage", "--publish"),
        ("--admin --room stage", "whole server"),
        ("--admin --expires 400d", "366 days"),
        ("--admin --expires 0s", "--expires"),
        ("--publish", "--room"),
    ] {
        let done = outcome(create(args)).await;
        assert!(
            done.code != 0 && done.stderr.contains(complaint),
            "{args}: {}",
            done.stderr
        );
        assert_eq!(done.stdout, "");
    }
    let done = outcome(weir(["token", "key", "generate", &path("main")])).await;
    assert!(done.code != 0 && done.stderr.contains("main.key"), "{}", done.stderr);
    for wrong in ["", "a.b", "a.b.c", "🙂"] {
        let done = outcome(weir(["token", "show", wrong])).await;
        assert!(done.code != 0 && !done.stderr.is_empty(), "{wrong}");
    }
    assert_eq!(std::fs::metadata(&main).unwrap().permissions().mode() & 0o777, 0o600);
}
