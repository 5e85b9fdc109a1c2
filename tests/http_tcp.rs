//! The control interface on TCP: for operators who know their token, for clients of rooms who know theirs, and for nobody
//! else.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod control;
mod loopback;
mod signalling;

use command::{Outcome, Scratch, outcome};
use control::{Client, Control, settings, soon};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use signalling::{Caller, Refusal, create_transport};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::process::Child;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir::http::{
    ClientPlainRemotes, ClientsFrom, ControlOptions, Guard, Limits, SignallingOptions, app, guarded, serve,
};
use weir::{RoomOptions, UnroutedReason};

const TOKEN: &str = "0123456789abcdefghijklmnop";
const CLIENT_TOKEN: &str = "for-pages-and-apps-only";

async fn client(address: &str) -> Client {
    Client::over(TcpStream::connect(address).await.unwrap()).await
}

/// A server that listens on TCP, too.
struct Tcp {
    control: Control,
    address: String,
    close: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Tcp {
    async fn start(guard: Guard, signalling: SignallingOptions) -> Self {
        Self::start_with(guard, signalling, Limits::default()).await
    }

    async fn start_with(guard: Guard, signalling: SignallingOptions, limits: Limits) -> Self {
        let control = Control::start_with(settings(1), Limits::default(), ControlOptions::default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let options = ControlOptions {
            signalling,
            ..ControlOptions::default()
        };
        let app = guarded(app(control.server.clone(), options), guard);
        let (close, closing) = watch::channel(false);
        let serving = tokio::spawn(serve(listener, app, limits, closing));
        Self {
            control,
            address,
            close,
            serving,
        }
    }

    async fn room(&self) -> u64 {
        let room = self.control.server.create_room(RoomOptions::default());
        soon("the room", room).await.unwrap().id().0
    }

    /// The status with which a client is refused; `None`: it is let in.
    async fn refuses(&self, room: u64, headers: &[(&'static str, &str)]) -> Option<u16> {
        let connected = Caller::try_connect_tcp(&self.address, room, "alice", headers).await;
        connected.err().map(|refused| refused.status)
    }

    async fn close(self) {
        self.close.send_replace(true);
        soon("the end of serving", self.serving).await.unwrap();
        self.control.close().await;
    }
}

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

#[tokio::test]
async fn without_the_token_there_is_nothing_and_with_it_everything() {
    let guard = Guard {
        operators: Some(TOKEN.parse().unwrap()),
        clients: ClientsFrom::Anywhere,
        ..Guard::default()
    };
    let tcp = Tcp::start(guard, SignallingOptions::default()).await;
    let mut client = client(&tcp.address).await;
    let bearer = bearer(TOKEN);
    let wrong = format!("Bearer {}", TOKEN.to_uppercase());
    for headers in [&[][..], &[("authorization", wrong.as_str())]] {
        for (method, target) in [
            ("GET", "/"),
            ("GET", "/health"),
            ("POST", "/rooms"),
            ("GET", "/nothing"),
        ] {
            let answer = client.say(method, target, headers, "").await;
            answer.refuses(401, "unauthorized", "authorization: Bearer");
            // RFC 6750 §3.1: who sent nothing is told nothing of what was wrong with it.
            let challenge = match headers {
                [] => "Bearer",
                _ => "Bearer error=\"invalid_token\"",
            };
            assert_eq!(answer.headers["www-authenticate"], challenge);
        }
    }
    assert!(tcp.control.server.rooms().is_empty(), "nothing was done");
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let room = client
        .say("POST", "/rooms", &headers, r#"{"appData": 7}"#)
        .await
        .expect(201);
    // The same server as on its socket.
    let seen = tcp.control.client().await.get("/rooms/1").await.expect(200);
    assert_eq!((&room, &seen["appData"]), (&seen, &json!(7)));
    client
        .say("GET", "/nothing", &headers, "")
        .await
        .refuses(404, "unknownRoute", "/nothing");

    tcp.close().await;
}

/// A connection from one of this machine's addresses.
async fn connect_from(source: &str, to: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(format!("{source}:0").parse().unwrap()).unwrap();
    soon("a connection", socket.connect(to.parse().unwrap())).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_strangers_displace_each_other_and_nobody_else() {
    let guard = Guard {
        operators: Some(TOKEN.parse().unwrap()),
        clients: ClientsFrom::Anywhere,
        ..Guard::default()
    };
    let limits = Limits {
        connections: 2,
        strangers: 12,
        strangers_per_network: 8,
        ..Limits::default()
    };
    let tcp = Tcp::start_with(guard, SignallingOptions::default(), limits).await;
    let room = tcp.room().await;
    let bearer = bearer(TOKEN);
    let token = [("authorization", bearer.as_str())];
    let mut operator = client(&tcp.address).await;
    operator.say("GET", "/health", &token, "").await.expect(200);
    let mut alice = Caller::try_connect_tcp(&tcp.address, room, "alice", &[]).await.unwrap();
    let mut slow = Vec::new();
    for source in ["127.0.0.2", "127.0.0.3"] {
        for _ in 0..100 {
            let mut stream = connect_from(source, &tcp.address).await;
            let said = match slow.len() % 3 {
                0 => "",
                1 => "GET /health HTTP/1.1\r\nhost: weir\r\nx-never-",
                _ => "POST /rooms HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer guess\r\ncontent-length: 9\r\n\r\n{",
            };
            // It may be displaced already.
            let _ = stream.write_all(said.as_bytes()).await;
            slow.push(stream);
        }
    }
    // Those who are there stay, and those who come are let in.
    operator.say("GET", "/health", &token, "").await.expect(200);
    alice.join("alice", Value::Null).await;
    let mut other = client(&tcp.address).await;
    other.say("GET", "/health", &token, "").await.expect(200);
    let mut third = client(&tcp.address).await;
    third.say("GET", "/health", &token, "").await.expect(200);
    let mut bob = Caller::try_connect_tcp(&tcp.address, room, "bob", &[]).await.unwrap();
    bob.join("bob", Value::Null).await;
    tcp.control.client().await.get("/health").await.expect(200);
    // The oldest ones were closed, and the newest were not.
    for mut stream in slow.drain(..50) {
        let _ = soon("the end of a slow connection", stream.read_to_end(&mut Vec::new())).await;
    }
    tcp.close().await;
}

/// Who may have media sent to itself only is not led elsewhere by somebody else's packet: a transport that learns where its client is
/// learns it at the client's IP.
#[tokio::test(flavor = "multi_thread")]
async fn where_a_client_is_is_learned_at_its_own_address_only() {
    let guard = Guard {
        operators: None,
        clients: ClientsFrom::ThisMachine,
        ..Guard::default()
    };
    let tcp = Tcp::start(guard, SignallingOptions::default()).await;
    let room = tcp.room().await;
    let mut alice = Caller::try_connect_tcp(&tcp.address, room, "alice", &[]).await.unwrap();
    alice.join("alice", Value::Null).await;
    let answer = alice.request(create_transport(1, "recv")).await.unwrap();
    let port = answer["plainRtpParameters"]["port"].as_u64().unwrap() as u16;
    let room = tcp.control.server.room(weir::RoomId(room)).unwrap();
    let transport = room.peer("alice").unwrap().transports().remove(0);
    let report = [0x80, 201, 0, 1, 0, 0, 0, 1]; // from a receiver that has received nothing yet
    let stranger = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    stranger.send_to(&report, ("127.0.0.1", port)).await.unwrap();
    soon("the stranger's packet", async {
        while transport
            .stats()
            .await
            .unwrap()
            .unrouted
            .of(UnroutedReason::ForeignSource)
            == 0
        {}
    })
    .await;
    assert_eq!(transport.tuple().remote, None);
    let own = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    own.send_to(&report, ("127.0.0.1", port)).await.unwrap();
    let remote = own.local_addr().ok();
    soon("her own packet", async {
        while transport.tuple().remote != remote {
            transport.stats().await.unwrap();
        }
    })
    .await;
    tcp.close().await;
}

/// What a client is told that wants plain RTP sent to an address.
async fn aim(client: &mut Caller<TcpStream>, id: i64, ip: &str) -> Result<(), Refusal> {
    let mut request = create_transport(id, "recv");
    request["plainRtpParameters"] = json!({"ip": ip, "port": 5_004});
    client.request(request).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_may_have_media_sent_to_themselves_only() {
    let rows = [
        (ClientPlainRemotes::Own, true, false),
        (ClientPlainRemotes::Any, true, true),
        (ClientPlainRemotes::None, false, false),
    ];
    for (plain_remotes, own, others) in rows {
        let guard = Guard {
            operators: None,
            clients: ClientsFrom::ThisMachine,
            ..Guard::default()
        };
        let signalling = SignallingOptions {
            plain_remotes,
            ..SignallingOptions::default()
        };
        let tcp = Tcp::start(guard, signalling).await;
        let room = tcp.room().await;
        let mut alice = Caller::try_connect_tcp(&tcp.address, room, "alice", &[]).await.unwrap();
        let (_, token) = alice.join("alice", Value::Null).await;
        // The same after coming back.
        let mut second = Caller::try_connect_tcp(&tcp.address, room, "alice", &[]).await.unwrap();
        for (index, ip, permitted) in [(1, "127.0.0.1", own), (2, "127.0.0.2", others)] {
            match aim(&mut alice, index, ip).await {
                Ok(()) => assert!(permitted, "{plain_remotes:?} {ip}"),
                Err(refused) => {
                    assert!(!permitted, "{plain_remotes:?} {ip}: {refused:?}");
                    assert_eq!(refused.name, "TypeError");
                }
            }
        }
        alice.request(create_transport(3, "recv")).await.unwrap();
        let update = json!({
            "method": "updateTransport", "target": "peer", "notification": true, "id": 3,
            "plainRtpParameters": {"ip": "127.0.0.2", "port": 5_004}
        });
        alice.notify(update).await;
        // Notifications begin in the order in which they come, and this one is refused at once.
        alice.request(create_transport(4, "recv")).await.unwrap();
        let peer = tcp
            .control
            .server
            .room(weir::RoomId(room))
            .unwrap()
            .peer("alice")
            .unwrap();
        let aimed = || {
            let mut remotes = peer
                .transports()
                .into_iter()
                .filter_map(|transport| transport.tuple().remote);
            remotes.any(|remote| remote.ip().to_string() == "127.0.0.2")
        };
        assert_eq!(aimed(), others, "{plain_remotes:?}");
        second.seq = alice.seq;
        let come_back = json!({"token": token, "seq": alice.seq});
        assert_eq!(second.ask("weir-resume", come_back).await, Ok(Value::Null));
        assert_eq!(aim(&mut second, 5, "127.0.0.2").await.is_ok(), others);
        tcp.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_have_a_token_of_their_own() {
    let guard = Guard {
        operators: Some(TOKEN.parse().unwrap()),
        clients: ClientsFrom::Anywhere,
        ..Guard::default()
    };
    let signalling = SignallingOptions {
        token: Some(CLIENT_TOKEN.parse().unwrap()),
        origins: vec!["https://app.example".to_owned()],
        ..SignallingOptions::default()
    };
    let tcp = Tcp::start(guard, signalling).await;
    let room = tcp.room().await;
    let (theirs, operators) = (bearer(CLIENT_TOKEN), bearer(TOKEN));
    let offer = format!("protoo, bearer.{CLIENT_TOKEN}");
    let wrong_offer = format!("protoo, bearer.{TOKEN}");

    assert_eq!(tcp.refuses(room, &[]).await, Some(401));
    assert_eq!(
        tcp.refuses(room, &[("sec-websocket-protocol", "protoo")]).await,
        Some(401)
    );
    assert_eq!(
        tcp.refuses(room, &[("sec-websocket-protocol", &wrong_offer)]).await,
        Some(401)
    );
    assert_eq!(
        tcp.refuses(room, &[("authorization", &operators)]).await,
        Some(401),
        "an operator is no client"
    );
    assert_eq!(
        tcp.refuses(room + 1, &[]).await,
        Some(401),
        "strangers do not learn which rooms there are"
    );
    assert_eq!(tcp.refuses(room + 1, &[("authorization", &theirs)]).await, Some(404));
    let page = |origin| [("sec-websocket-protocol", offer.as_str()), ("origin", origin)];
    assert_eq!(tcp.refuses(room, &page("https://evil.example")).await, Some(403));
    assert_eq!(tcp.refuses(room, &page("https://app.example")).await, None);
    let own = format!("http://{}", tcp.address);
    assert_eq!(tcp.refuses(room, &page(&own)).await, None, "the server's own pages");
    assert_eq!(tcp.refuses(room, &[("authorization", &theirs)]).await, None);

    // As a page does it: no header of its own but the subprotocols.
    let connected = Caller::try_connect_tcp(&tcp.address, room, "alice", &page("https://app.example")).await;
    let mut alice = connected.unwrap();
    assert_eq!(alice.subprotocol.as_deref(), Some("protoo"));
    let (answer, _) = alice.join("alice", Value::Null).await;
    assert_eq!(answer, json!({"peers": []}));

    // What clients know opens nothing else, also not where they connect.
    let mut client = client(&tcp.address).await;
    let peer = format!("/rooms/{room}/peers/alice");
    let upgrade = [("upgrade", "websocket"), ("connection", "upgrade")];
    for (method, target) in [("GET", "/"), ("GET", &peer), ("DELETE", &peer), ("GET", "/nothing")] {
        for headers in [
            &[][..],
            &[("authorization", theirs.as_str())],
            &[("sec-websocket-protocol", wrong_offer.as_str())],
        ] {
            client
                .say(method, target, headers, "")
                .await
                .refuses(401, "unauthorized", "Bearer");
        }
    }
    // Nor does it to look like one who connects.
    for (method, target) in [
        ("DELETE", peer.as_str()),
        ("GET", "/rooms"),
        ("GET", &format!("{peer}/dump")),
    ] {
        let headers = [&upgrade[..], &[("authorization", theirs.as_str())]].concat();
        client
            .say(method, target, &headers, "")
            .await
            .refuses(401, "unauthorized", "server's token");
    }
    let answer = client.say("GET", &peer, &upgrade, "").await;
    answer.refuses(401, "unauthorized", "clients' token");
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    let shown = client
        .say("GET", &peer, &[("authorization", &operators)], "")
        .await
        .expect(200);
    assert_eq!(shown["name"], "alice");
    tcp.close().await;
}

/// A server on TCP that everybody may use who wants to join a room, with so many connections.
async fn with_places(clients: usize) -> (Tcp, u64) {
    let guard = Guard {
        operators: None,
        clients: ClientsFrom::Anywhere,
        ..Guard::default()
    };
    let options = SignallingOptions {
        clients,
        ..SignallingOptions::default()
    };
    let tcp = Tcp::start(guard, options).await;
    let room = tcp.room().await;
    (tcp, room)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_join_gives_way_to_others_of_its_network() {
    // Two of eight may be one network's.
    let (tcp, room) = with_places(8).await;
    let connect = async |name| Caller::try_connect_tcp(&tcp.address, room, name, &[]).await.unwrap();
    let mut alice = connect("alice").await;
    alice.join("alice", Value::Null).await;
    let (mut oldest, mut bob) = (connect("oldest").await, connect("bob").await);
    let _newest = connect("newest").await;
    assert_eq!(oldest.end().await, Some(4006));
    // Who has joined does not.
    bob.join("bob", Value::Null).await;
    let _another = connect("another").await;
    for one in [&mut alice, &mut bob] {
        let query = json!({"method": "queryRoom", "target": "room"});
        assert!(one.request(query).await.is_ok());
    }
    tcp.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_place_is_for_who_comes_rather_than_for_who_does_not_join() {
    let (tcp, room) = with_places(2).await;
    let connect = async |name| Caller::try_connect_tcp(&tcp.address, room, name, &[]).await;
    let mut alice = connect("alice").await.unwrap();
    alice.join("alice", Value::Null).await;
    let mut idle = connect("idle").await.unwrap();
    let mut bob = connect("bob").await.unwrap();
    assert_eq!(idle.end().await, Some(4006));
    bob.join("bob", Value::Null).await;
    let refused = connect("carol").await.err().map(|refused| refused.status);
    assert_eq!(refused, Some(503), "both have joined");
    tcp.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_clients_token_this_machine_is_served_and_nobody_else() {
    let guard = Guard {
        operators: None,
        clients: ClientsFrom::ThisMachine,
        ..Guard::default()
    };
    let tcp = Tcp::start(guard, SignallingOptions::default()).await;
    let room = tcp.room().await;
    assert_eq!(tcp.refuses(room, &[]).await, None);
    let own = format!("http://{}", tcp.address);
    assert_eq!(tcp.refuses(room, &[("origin", &own)]).await, None);
    for (header, value) in [
        ("origin", "http://localhost:1"),
        ("host", "rooms.example"),
        ("x-forwarded-for", "192.0.2.1"),
        ("forwarded", "for=192.0.2.1"),
    ] {
        assert_eq!(
            tcp.refuses(room, &[(header, value)]).await,
            Some(403),
            "{header}: {value}"
        );
    }
    // A page whose name leads here (DNS rebinding) has an origin that fits its name.
    let rebound = [("host", "evil.example:80"), ("origin", "http://evil.example:80")];
    assert_eq!(tcp.refuses(room, &rebound).await, Some(403));
    let mut client = client(&tcp.address).await;
    for headers in [&[][..], &[("authorization", bearer(TOKEN).as_str())]] {
        client
            .say("GET", "/rooms", headers, "")
            .await
            .refuses(403, "noOperators", "control socket");
    }
    tcp.close().await;
}

#[tokio::test]
async fn weir_serve_listens_with_a_token_only() {
    let scratch = Scratch::new();
    let mut command = scratch.serve();
    command.args(["--http-listen", "127.0.0.1:0"]);
    outcome(command).await.failed(2, "needs a token");
    let mut command = scratch.serve();
    command.args(["--http-listen", "127.0.0.1:0", "--http-token", "guess"]);
    outcome(command).await.failed(2, "16 to 1024 characters");

    for listen in ["0.0.0.0:0", "[::]:0"] {
        let mut command = scratch.serve();
        command.args(["--http-listen", listen, "--http-token", TOKEN]);
        outcome(command).await.failed(2, "clients_without_token = true");
    }
    assert!(scratch.files().is_empty(), "nothing was begun");

    let file = |name: &str, token: &str| {
        let path = scratch.dir.path().join(name);
        std::fs::write(&path, format!("{token}\n")).unwrap();
        path
    };
    let mut command = scratch.serve();
    command
        .args(["--http-listen", "127.0.0.1:0", "--http-token-file"])
        .arg(file("token", TOKEN))
        .arg("--client-token-file")
        .arg(file("client-token", CLIENT_TOKEN))
        .args(["--client-grace", "3s"]);
    let (mut serve, address) = started(command.spawn().unwrap()).await;
    let mut client = client(&address).await;
    client.get("/health").await.refuses(401, "unauthorized", "Bearer");
    let operator = bearer(TOKEN);
    let health = client.say("GET", "/health", &[("authorization", &operator)], "").await;
    assert_eq!(health.expect(200)["status"], "ok");
    let Outcome { code, stdout, .. } = scratch.ctl("room create").await;
    assert_eq!((code, stdout.starts_with("room 1 ")), (0, true), "{stdout}");
    let refused = Caller::try_connect_tcp(&address, 1, "alice", &[("authorization", &operator)]).await;
    assert_eq!(refused.err().map(|refused| refused.status), Some(401));
    let offer = format!("protoo, bearer.{CLIENT_TOKEN}");
    let connected = Caller::try_connect_tcp(&address, 1, "alice", &[("sec-websocket-protocol", &offer)]).await;
    let mut alice = connected.unwrap();
    let join = json!({"method": "join", "target": "room", "peerName": "alice", "rtpCapabilities": {"codecs": []}});
    alice.request(join).await.unwrap();
    let session = loop {
        let message = alice.next().await.unwrap();
        if message["method"] == "weir-session" {
            break message;
        }
    };
    assert_eq!(session["data"]["graceMs"], 3_000);
    // She may come back on the socket of the operators, which asks clients for their token, too.
    let token = [("authorization", bearer(CLIENT_TOKEN))];
    let headers = [(token[0].0, token[0].1.as_str())];
    let refused = Caller::try_connect(&scratch.socket, 1, "alice", &[]).await;
    assert_eq!(refused.err().map(|refused| refused.status), Some(401));
    let mut again = Caller::try_connect(&scratch.socket, 1, "alice", &headers)
        .await
        .unwrap();
    let resume = json!({"token": session["data"]["resumeToken"]});
    assert_eq!(again.ask("weir-resume", resume).await, Ok(Value::Null));
    kill(Pid::from_raw(serve.id().unwrap() as i32), Signal::SIGTERM).unwrap();
    let status = soon("its end", serve.wait()).await.unwrap();
    assert!(status.success(), "{status}");
}

/// A server that is ready, and its TCP address.
async fn started(mut serve: Child) -> (Child, String) {
    let mut lines = BufReader::new(serve.stdout.take().unwrap()).lines();
    let line = soon("the server", lines.next_line()).await.unwrap().unwrap();
    let address = line.rsplit(" and ").next().unwrap().to_owned();
    (serve, address)
}
