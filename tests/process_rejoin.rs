//! Clients that join anew under their names: after a goodbye, a reset, a silence; and strangers who would like their names.
//!
//! A page that is reloaded is a new client of its application, which knows nothing of the one before. What mediasoup v2's
//! applications expect is that it joins at once and that nobody sees a ghost.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod loopback;
mod signalling;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use weir::http::{ClientTakeover, Limits, SignallingOptions, serve, signalling as clients};
use weir::{CodecName, Room, RoomOptions, RtpCodecCapability, Server};

use control::{settings, soon};
use signalling::{Caller, create_microphone, create_transport, join_request};

/// A room whose clients come over TCP.
struct Meeting {
    server: Server,
    room: Room,
    address: String,
    close: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

type Client = Caller<TcpStream>;

impl Meeting {
    /// Nothing in it happens by the time that went by.
    async fn start(options: SignallingOptions) -> Self {
        let server = soon("the server", Server::start(settings(1))).await.unwrap();
        let options = SignallingOptions {
            grace: Duration::from_secs(3_600),
            ping: Duration::from_secs(3_600),
            idle: Duration::from_secs(3_600),
            ..options
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (close, closing) = watch::channel(false);
        let app = clients(server.clone(), options);
        let serving = tokio::spawn(serve(listener, app, Limits::default(), closing));
        let room = server.create_room(RoomOptions {
            media_codecs: Some(vec![RtpCodecCapability::new(CodecName::Opus)]),
            ..RoomOptions::default()
        });
        let room = soon("the room", room).await.unwrap();
        Self {
            server,
            room,
            address,
            close,
            serving,
        }
    }

    async fn connect(&self, name: &str, headers: &[(&'static str, &str)]) -> Client {
        let room = self.room.id().0;
        Caller::try_connect_tcp(&self.address, room, name, headers)
            .await
            .unwrap()
    }

    /// Somebody who sends, so that there is something to close.
    async fn sender(&self, name: &str) -> (Client, String) {
        let mut client = self.connect(name, &[]).await;
        let (_, token) = client.join(name, json!(1)).await;
        client.request(create_transport(1, "send")).await.unwrap();
        client.request(create_microphone(2, 1, 1_000)).await.unwrap();
        (client, token)
    }

    /// Bob, who sees who comes and goes, and has seen alice.
    async fn bob(&self) -> Client {
        let mut bob = self.connect("bob", &[]).await;
        let (answer, _) = bob.join("bob", Value::Null).await;
        assert_eq!(answer["peers"][0]["name"], "alice");
        bob
    }

    async fn close(self) {
        self.close.send_replace(true);
        soon("the server's end", self.server.close()).await;
        soon("the end of serving", self.serving).await.unwrap();
    }
}

/// The client is told next that alice is gone, with all that was hers.
async fn sees_her_go(client: &mut Client) {
    let mut told = Vec::new();
    while told.last() != Some(&json!("peerClosed")) {
        let message = client.told().await.unwrap();
        assert_eq!(
            message[if message["method"] == "peerClosed" {
                "name"
            } else {
                "peerName"
            }],
            "alice"
        );
        told.push(message["method"].clone());
    }
    assert_eq!(
        told,
        ["producerClosed", "peerClosed"].map(Value::from)[2 - told.len()..]
    );
}

/// The client is told next that alice is there again.
async fn sees_her_come(client: &mut Client, app_data: Value) {
    let met = client.told().await.unwrap();
    assert_eq!(
        (&met["method"], &met["name"], &met["appData"]),
        (&json!("newPeer"), &json!("alice"), &app_data)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_the_client_says_ends_its_session_at_once() {
    // RFC 6455 §7.4.1: 1000 "normal closure", 1001 "going away", as browsers say of a page that is left; nothing, as
    // `close()` of a page does.
    for code in [Some(1000), Some(1001), None] {
        let meeting = Meeting::start(SignallingOptions::default()).await;
        let (mut alice, token) = meeting.sender("alice").await;
        let mut bob = meeting.bob().await;
        alice.say_goodbye(code).await;
        // The reloaded page joins at once, and has nothing of what the one before had.
        let mut again = meeting.connect("alice", &[]).await;
        assert_ne!(again.cookie, alice.cookie);
        again.join("alice", json!(2)).await;
        sees_her_go(&mut bob).await;
        sees_her_come(&mut bob, json!(2)).await;
        // The goodbye was answered (§5.5.1), and the session cannot be come back to.
        assert_eq!(alice.end().await, code, "{code:?}");
        let mut late = meeting.connect("alice", &[]).await;
        let refused = late.ask("weir-resume", json!({"token": token})).await.unwrap_err();
        assert_eq!(refused.name, "InvalidStateError");
        assert_eq!(meeting.room.peers().len(), 2);
        meeting.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_close_with_another_code_is_a_lost_connection() {
    let meeting = Meeting::start(SignallingOptions::default()).await;
    let (mut alice, token) = meeting.sender("alice").await;
    let mut bob = meeting.bob().await;
    let seq = alice.seq;
    alice.say_goodbye(Some(4100)).await;
    assert_eq!(alice.end().await, Some(4100));
    let mut back = meeting.connect("alice", &[]).await;
    back.seq = seq;
    let come_back = json!({"token": token, "seq": seq});
    assert_eq!(back.ask("weir-resume", come_back).await, Ok(Value::Null));
    assert_eq!(back.told().await.unwrap()["name"], "bob");
    // Her producer is still hers, and nobody saw her go.
    let pause = json!({"method": "pauseProducer", "target": "peer", "notification": true, "id": 2});
    back.notify(pause).await;
    back.say_goodbye(Some(1000)).await;
    sees_her_go(&mut bob).await;
    meeting.close().await;
}

/// How a client's connection is lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Loss {
    /// The server is told by the other end's TCP.
    Reset,
    /// The server is told nothing, and takes the connection to be there.
    Silence,
}

/// How a client shows that it is the one that had the name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shown {
    Cookie,
    Token,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_lost_its_connection_joins_anew_under_its_name_at_once() {
    for loss in [Loss::Reset, Loss::Silence] {
        for shown in [Shown::Cookie, Shown::Token] {
            let meeting = Meeting::start(SignallingOptions::default()).await;
            let (alice, token) = meeting.sender("alice").await;
            let cookie = alice.cookie.clone().unwrap();
            let mut bob = meeting.bob().await;
            let mut silent = None;
            match loss {
                Loss::Reset => alice.reset(),
                Loss::Silence => silent = Some(alice),
            }
            let mut again = match shown {
                Shown::Cookie => meeting.connect("alice", &[("cookie", &cookie)]).await,
                Shown::Token => meeting.connect("alice", &[]).await,
            };
            assert_eq!(again.cookie.is_none(), shown == Shown::Cookie, "it has one already");
            let mut join = join_request("alice", json!(2));
            if shown == Shown::Token {
                join["resumeToken"] = token.clone().into();
            }
            let answer = again
                .request(join)
                .await
                .unwrap_or_else(|refused| panic!("{loss:?} {shown:?}: {refused:?}"));
            assert_eq!(answer["peers"][0]["name"], "bob");
            sees_her_go(&mut bob).await;
            sees_her_come(&mut bob, json!(2)).await;
            // Whoever is still there is told why, with the code after which protoo's client connects no more.
            if let Some(mut silent) = silent {
                assert_eq!(silent.end().await, Some(4000));
            }
            // The old token is worth nothing any more; the new session is as good as the first.
            let mut late = meeting.connect("alice", &[("cookie", &cookie)]).await;
            let refused = late.ask("weir-resume", json!({"token": token})).await.unwrap_err();
            assert_eq!(refused.name, "InvalidStateError");
            again.request(create_transport(1, "send")).await.unwrap();
            assert_eq!(meeting.room.peers().len(), 2);
            meeting.close().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_takes_nobodys_name() {
    let meeting = Meeting::start(SignallingOptions::default()).await;
    let (mut alice, token) = meeting.sender("alice").await;
    let (mut carol, carols) = meeting.sender("carol").await;
    let carols_cookie = carol.cookie.clone().unwrap();
    let guess = format!("weir-client={}", "0".repeat(32));
    let attempts = async |connected: bool| {
        for (cookie, token) in [
            (None, None),
            (Some(guess.as_str()), Some("0".repeat(32))),
            (Some("weir-client="), Some(String::new())),
            // Somebody else's secrets, which are good for somebody else's name only.
            (Some(carols_cookie.as_str()), Some(carols.clone())),
        ] {
            let headers: Vec<_> = cookie.iter().map(|cookie| ("cookie", *cookie)).collect();
            let mut stranger = meeting.connect("alice", &headers).await;
            let mut join = join_request("alice", json!("not her"));
            join["resumeToken"] = token.clone().into();
            let refused = stranger.request(join).await.unwrap_err();
            assert_eq!(
                refused.reason, "Error: duplicated Peer [peerName:\"alice\"]",
                "{cookie:?} {token:?}, connected: {connected}"
            );
        }
    };
    attempts(true).await;
    // She has not noticed.
    alice.request(create_transport(3, "recv")).await.unwrap();
    let seq = alice.seq;
    alice.reset();
    // The server hears of a reset when it looks at the connection, which every attempt makes it do.
    attempts(false).await;
    let mut back = meeting.connect("alice", &[]).await;
    back.seq = seq;
    let come_back = json!({"token": token, "seq": seq});
    assert_eq!(back.ask("weir-resume", come_back).await, Ok(Value::Null));
    back.request(create_transport(4, "recv")).await.unwrap();
    // Nobody has seen anything of it.
    carol.say_goodbye(Some(1000)).await;
    assert_eq!(meeting.room.peer("alice").map(|peer| peer.app_data()), Some(json!(1)));
    meeting.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_one_has_the_name_where_the_application_guards_it() {
    let meeting = Meeting::start(SignallingOptions {
        takeover: ClientTakeover::Any,
        ..SignallingOptions::default()
    })
    .await;
    let (mut alice, _) = meeting.sender("alice").await;
    let mut bob = meeting.bob().await;
    let mut again = meeting.connect("alice", &[]).await;
    again.join("alice", json!(2)).await;
    assert_eq!(alice.end().await, Some(4000));
    sees_her_go(&mut bob).await;
    sees_her_come(&mut bob, json!(2)).await;
    again.reset();
    let mut third = meeting.connect("alice", &[]).await;
    third.join("alice", json!(3)).await;
    sees_her_go(&mut bob).await;
    sees_her_come(&mut bob, json!(3)).await;
    // On the connection that it is joined on, it stays a mistake.
    let refused = third.request(join_request("alice", Value::Null)).await.unwrap_err();
    assert_eq!(refused.reason, "Error: duplicated Peer [peerName:\"alice\"]");
    meeting.close().await;
}

/// Peers that the application has made have no client to take the place of.
#[tokio::test(flavor = "multi_thread")]
async fn names_that_the_application_has_given_stay_taken() {
    let meeting = Meeting::start(SignallingOptions {
        takeover: ClientTakeover::Any,
        ..SignallingOptions::default()
    })
    .await;
    let capabilities = serde_json::from_value(json!({"codecs": []})).unwrap();
    meeting
        .room
        .join(weir::PeerOptions::new("alice", capabilities))
        .unwrap();
    let mut client = meeting.connect("alice", &[]).await;
    let refused = client.request(join_request("alice", Value::Null)).await.unwrap_err();
    assert_eq!(refused.reason, "Error: duplicated Peer [peerName:\"alice\"]");
    meeting.close().await;
}

/// Reload upon reload, each before the one before is dealt with.
#[tokio::test(flavor = "multi_thread")]
async fn a_page_may_be_reloaded_as_fast_as_it_can() {
    let meeting = Meeting::start(SignallingOptions::default()).await;
    let (alice, _) = meeting.sender("alice").await;
    let cookie = alice.cookie.clone().unwrap();
    let mut bob = meeting.bob().await;
    let mut before = alice;
    for round in 2..=50 {
        match round % 3 {
            0 => before.say_goodbye(Some(1001)).await,
            1 => before.reset(),
            _ => drop(before),
        }
        before = meeting.connect("alice", &[("cookie", &cookie)]).await;
        before.join("alice", json!(round)).await;
        sees_her_go(&mut bob).await;
        sees_her_come(&mut bob, json!(round)).await;
        before.request(create_transport(1, "send")).await.unwrap();
        before.request(create_microphone(2, 1, 1_000)).await.unwrap();
        let consumer = bob.told().await.unwrap();
        assert_eq!(consumer["method"], "newConsumer");
    }
    assert_eq!(meeting.room.peers().len(), 2);
    meeting.close().await;
}

/// Whoever asks again and again under a name that is being taken over is not faster than the client that has a right to it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_does_not_get_in_before_the_owner_while_a_session_is_taken_over() {
    let meeting = Meeting::start(SignallingOptions {
        join: Duration::from_secs(3_600),
        messages_per_second: u32::MAX,
        ..SignallingOptions::default()
    })
    .await;
    let (mut alice, _) = meeting.sender("alice").await;
    let cookie = alice.cookie.clone().unwrap();
    let mut strangers = Vec::new();
    for _ in 0..4 {
        let mut stranger = meeting.connect("alice", &[]).await;
        strangers.push(tokio::spawn(async move {
            loop {
                let refused = stranger.request(join_request("alice", json!("not her"))).await;
                assert_eq!(
                    refused.map_err(|refused| refused.reason),
                    Err("Error: duplicated Peer [peerName:\"alice\"]".to_owned())
                );
            }
        }));
    }
    for round in 2..=100 {
        let mut again = meeting.connect("alice", &[("cookie", &cookie)]).await;
        again.join("alice", json!(round)).await;
        assert_eq!(alice.end().await, Some(4000), "round {round}");
        again.request(create_transport(1, "send")).await.unwrap();
        again.request(create_microphone(2, 1, 1_000)).await.unwrap();
        alice = again;
    }
    for stranger in strangers {
        stranger.abort();
        assert!(soon("a stranger's end", stranger).await.unwrap_err().is_cancelled());
    }
    assert_eq!(meeting.room.peer("alice").map(|peer| peer.app_data()), Some(json!(100)));
    meeting.close().await;
}
