//! WHIP and WHEP: clients of other people, that know nothing of Weir but an address, publish and watch; and whatever else is sent
//! to these addresses is refused in a sentence.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod browser;
mod control;
mod loopback;

use std::time::Duration;

use browser::{Begins, Browser};
use control::{Answer, Client, Control, settings, soon};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use str0m::media::{Direction, Mid};
use tokio::time::interval;
use weir::http::{ClientTakeover, ControlOptions, Limits, SignallingOptions, WhipOptions};
use weir::{
    Consumer, EventKind, MediaKind, PeerNotification, PeerOptions, Profile, Room, RoomOptions, RtpCapabilities, Server,
};

const SDP: (&str, &str) = ("content-type", "application/sdp");
const FRAGMENT: (&str, &str) = ("content-type", "application/trickle-ice-sdpfrag");

/// Opus, as the clients offer it.
const OPUS: u8 = 111;

const CHROMIUM: &str = include_str!("data/whip/whip-chromium-whip-whep.sdp");
const SIMULCAST: &str = include_str!("data/whip/whip-chromium-simulcast.sdp");
const FFMPEG: &str = include_str!("data/whip/whip-ffmpeg-8.1.2.sdp");
const OBS: &str = include_str!("data/whip/whip-obs-shape-1-layer-a.sdp");
const OBS_LAYERS: &str = include_str!("data/whip/whip-obs-shape-3-layers-a.sdp");
const WHEP: &str = include_str!("data/whip/whep-chromium-whip-whep.sdp");

async fn post(client: &mut Client, target: &str, offer: &str) -> Answer {
    client.say("POST", target, &[SDP], offer.to_owned()).await
}

/// Where a session is, and its answer. Checks what every client needs.
#[track_caller]
fn session(answer: &Answer) -> (String, String) {
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/sdp");
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    assert!(location.starts_with('/'), "{location}");
    let tag = answer.headers["etag"].to_str().unwrap();
    assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10, "{tag}");
    assert!(answer.text.len() < 8_192, "ffmpeg reads no more");
    assert!(answer.text.lines().count() == answer.text.matches("\r\n").count());
    (location, answer.text.clone())
}

/// Checks a refusal as publishers and players get it.
#[track_caller]
fn refuses(answer: &Answer, status: u16, code: &str, says: &str) {
    assert_eq!(answer.status, status, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], "application/problem+json");
    assert_eq!(
        (&answer.body["status"], &answer.body["code"]),
        (&json!(status), &json!(code)),
        "{}",
        answer.text
    );
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains(says), "{says:?} is not in {detail:?}");
}

/// Waits until something is so that nobody tells.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let mut again = interval(Duration::from_millis(20));
    let waited = async {
        while !is_so() {
            again.tick().await;
        }
    };
    soon(what, waited).await;
}

/// What players are sent. Peers that know no codec have consumers, too, which nobody enables.
fn sent_in(room: &Room) -> Vec<Consumer> {
    room.consumers().into_iter().filter(Consumer::enabled).collect()
}

/// The publisher sends until the player has heard five packets more; returns the number after the last one.
async fn hears(publisher: &mut Browser, player: &mut Browser, (sent, payload_type): (Mid, u8), mut seq: u64) -> u64 {
    let enough = player.packets.len() + 5;
    let hears = async {
        while player.packets.len() < enough {
            publisher.send_on(sent, payload_type, seq, b"sound");
            seq += 1;
            turn(publisher).await;
            turn(player).await;
        }
    };
    soon("sound", hears).await;
    seq
}

/// Everything that a player has heard was one stream, that of its answer.
#[track_caller]
fn judge_one_stream(player: &Browser, answer: &str) {
    let first = &player.packets[0].header;
    let mut seqs: Vec<u16> = Vec::new();
    for packet in &player.packets {
        let header = &packet.header;
        assert_eq!((header.ssrc, header.payload_type), (first.ssrc, first.payload_type));
        assert!(answer.contains(&format!("a=ssrc:{} cname:", *header.ssrc)));
        seqs.push(header.sequence_number);
    }
    seqs.sort_by_key(|seq| seq.wrapping_sub(first.sequence_number.wrapping_sub(100)));
    let mut steps = seqs.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]));
    // The socket may have lost some; nothing begins anew, and nothing comes twice.
    assert!(steps.all(|step| (1..100).contains(&step)), "{seqs:?}");
}

/// Lets a browser do one thing: take a datagram, or notice what time it is.
async fn turn(browser: &mut Browser) {
    let mut done = false;
    browser
        .run_until("its turn", |_| std::mem::replace(&mut done, true))
        .await;
}

#[tokio::test]
async fn who_publishes_is_seen_by_peers_and_heard_by_players() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let mut publisher = Browser::new(Begins::Here, OPUS).await;
    let offer = publisher.offer(Direction::SendOnly);
    let (publishing, answer) = session(&post(&mut client, "/whip/stage/alice", &offer).await);
    let sent = publisher.answered(&answer);
    publisher.run_until("its connection", |own| own.connected).await;

    // The room has come with the publisher, and who joins it finds the publisher there.
    let rooms = client.get("/rooms").await.expect(200);
    assert_eq!(rooms["items"][0]["appData"], json!({"name": "stage"}));
    let room = control.server.rooms()[0].clone();
    let joined = room
        .join(PeerOptions::new("bob", room.rtp_capabilities().clone()))
        .unwrap();
    assert_eq!(&*joined.others[0].name, "alice");
    assert_eq!(joined.others[0].consumers.len(), 1);
    let mut told = joined.peer.notifications();

    let mut player = Browser::new(Begins::Here, OPUS).await;
    let offer = player.offer(Direction::RecvOnly);
    let (watching, answer) = session(&post(&mut client, "/whep/stage/alice", &offer).await);
    assert!(answer.contains("a=sendonly") && answer.contains("a=ssrc:"), "{answer}");
    player.answered(&answer);
    player.run_until("its connection", |own| own.connected).await;
    let heard = async {
        let mut seq = 0;
        while player.packets.len() < 3 {
            publisher.send_on(sent, OPUS, seq, b"sound");
            seq += 1;
            turn(&mut publisher).await;
            turn(&mut player).await;
        }
    };
    soon("sound", heard).await;
    assert!(player.packets.iter().all(|packet| *packet.payload == *b"sound"));
    assert_eq!(*player.packets[0].header.payload_type, OPUS, "the player's own number");

    // An operator may read what the publisher would be told, and nothing ends.
    let alice = room.peer("alice").unwrap();
    let mut read = alice.notifications();
    let carol = PeerOptions::new("carol", room.rtp_capabilities().clone());
    room.create_peer(carol).unwrap();
    soon("the news", read.next()).await.unwrap();
    assert_eq!(client.say("GET", &publishing, &[], "").await.status, 200);

    // The player ends, of which nobody is told; the publisher ends, and the room stays, because somebody is in it.
    assert_eq!(client.say("DELETE", &watching, &[], "").await.status, 200);
    assert_eq!(client.say("DELETE", &publishing, &[], "").await.status, 200);
    let left = soon("the news", async {
        loop {
            if let PeerNotification::PeerClosed { name, .. } = told.next().await.unwrap() {
                return name;
            }
        }
    });
    assert_eq!(&*left.await, "alice");
    refuses(
        &client.say("DELETE", &publishing, &[], "").await,
        404,
        "notFound",
        "POST",
    );
    assert!(!room.closed());
    control.close().await;
}

#[tokio::test]
async fn a_room_of_sessions_only_ends_with_the_last_of_them() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let (first, _) = session(&post(&mut client, "/whip/stage", FFMPEG).await);
    let (second, _) = session(&post(&mut client, "/whip/stage", FFMPEG).await);
    let room = control.server.rooms()[0].clone();
    assert_eq!(
        (control.server.rooms().len(), room.peers().len()),
        (1, 2),
        "the name leads to one room"
    );
    client.say("DELETE", &first, &[], "").await;
    assert!(!room.closed());
    client.say("DELETE", &second, &[], "").await;
    until("the room's end", || room.closed()).await;
    // Who watches may come first, and leaves nothing either.
    let (watching, _) = session(&post(&mut client, "/whep/stage", WHEP).await);
    assert_eq!(control.server.rooms().len(), 1);
    client.say("DELETE", &watching, &[], "").await;
    until("the room's end", || control.server.rooms().is_empty()).await;
    control.close().await;
}

#[tokio::test]
async fn every_recorded_publisher_is_answered_as_it_needs() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = control.server.create_room(RoomOptions::default()).await.unwrap();
    let target = format!("/whip/{}", room.id().0);
    for (offer, setup) in [
        (CHROMIUM, "passive"),
        (SIMULCAST, "passive"),
        (FFMPEG, "active"),
        (OBS, "passive"),
        (OBS_LAYERS, "passive"),
    ] {
        let (location, answer) = session(&post(&mut client, &target, offer).await);
        for line in [
            format!("a=setup:{setup}"),
            "a=recvonly".to_owned(),
            "a=ice-lite".to_owned(),
            "a=rtcp-mux-only".to_owned(),
        ] {
            assert!(answer.contains(&format!("{line}\r\n")), "{line}: {answer}");
        }
        assert!(
            !answer.contains("a=sendonly") && !answer.contains(" 0 UDP/TLS"),
            "{answer}"
        );
        let candidate = answer.lines().find(|line| line.starts_with("a=candidate:")).unwrap();
        assert!(
            candidate.starts_with("a=candidate:1 1 udp ") && candidate.contains("127.0.0.1"),
            "{candidate}"
        );
        assert_eq!(answer.matches("a=fingerprint:sha-256 ").count(), 2);
        let producers = room.producers();
        assert_eq!(producers.len(), 2);
        if offer == OBS_LAYERS {
            assert!(answer.contains("a=simulcast:recv 0;1;2\r\n"));
            let layers: Vec<_> = producers[1]
                .rtp_parameters()
                .encodings
                .iter()
                .map(|own| own.profile.unwrap().to_string())
                .collect();
            assert_eq!(layers, ["high", "medium", "low"]);
        }
        assert_eq!(client.say("DELETE", &location, &[], "").await.status, 200);
        assert!(room.peers().is_empty() && room.producers().is_empty() && room.transports().is_empty());
    }
    assert!(!room.closed(), "it is the application's");
    control.close().await;
}

#[tokio::test]
async fn candidates_are_taken_whatever_tag_comes_with_them_and_restarts_only_with_the_right_one() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let opened = post(&mut client, "/whip/stage", CHROMIUM).await;
    let tag = opened.headers["etag"].to_str().unwrap().to_owned();
    let (location, _) = session(&opened);
    let ufrag = CHROMIUM
        .lines()
        .find_map(|line| line.strip_prefix("a=ice-ufrag:"))
        .unwrap();
    let trickled = format!(
        "a=ice-ufrag:{ufrag}\r\na=ice-pwd:0123456789012345678901\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\na=candidate:nonsense\r\n"
    );
    for tags in [
        &[][..],
        &[("if-match", "*")],
        &[("if-match", "\"stale\"")],
        &[("etag", "\"other\"")],
    ] {
        let headers: Vec<_> = [FRAGMENT].iter().chain(tags).copied().collect();
        let answer = client.say("PATCH", &location, &headers, trickled.clone()).await;
        assert_eq!((answer.status, answer.text.as_str()), (204, ""));
        assert!(!answer.headers.contains_key("etag"));
    }
    let restart = "a=ice-ufrag:another\r\na=ice-pwd:0123456789012345678901\r\n";
    let answer = client.say("PATCH", &location, &[FRAGMENT], restart).await;
    refuses(&answer, 428, "preconditionRequired", "if-match: *");
    let answer = client
        .say("PATCH", &location, &[FRAGMENT, ("if-match", "\"stale\"")], restart)
        .await;
    refuses(&answer, 412, "preconditionFailed", "if-match: *");
    let answer = client
        .say("PATCH", &location, &[FRAGMENT, ("if-match", "*")], restart)
        .await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(answer.headers["content-type"], FRAGMENT.1);
    let new_tag = answer.headers["etag"].to_str().unwrap().to_owned();
    assert_ne!(new_tag, tag);
    assert!(
        answer
            .text
            .contains(&format!("a=ice-ufrag:{}\r\n", new_tag.trim_matches('"'))),
        "{}",
        answer.text
    );
    assert_eq!(
        answer.text.matches("a=candidate:").count(),
        1,
        "a client joins more of them wrongly"
    );
    // The new credentials are those that candidates come for now.
    let answer = client
        .say(
            "PATCH",
            &location,
            &[FRAGMENT],
            "a=ice-ufrag:another\r\na=candidate:x\r\n",
        )
        .await;
    assert_eq!(answer.status, 204);
    let again = "a=ice-ufrag:third\r\na=ice-pwd:0123456789012345678901\r\n";
    let answer = client
        .say("PATCH", &location, &[FRAGMENT, ("if-match", &tag)], again)
        .await;
    refuses(&answer, 412, "preconditionFailed", "etag");
    let answer = client
        .say("PATCH", &location, &[FRAGMENT, ("if-match", &new_tag)], again)
        .await;
    assert_eq!(answer.status, 200);
    for (body, says) in [
        ("", "neither"),
        ("hello", "RFC 8840"),
        ("a=ice-ufrag:fourth\r\n", "a=ice-pwd"),
    ] {
        let answer = client
            .say("PATCH", &location, &[FRAGMENT, ("if-match", "*")], body)
            .await;
        refuses(&answer, 400, "invalidSdp", says);
    }
    let answer = client.say("PATCH", &location, &[SDP], again).await;
    refuses(&answer, 415, "unsupportedMediaType", "sdpfrag");
    control.close().await;
}

#[tokio::test]
async fn what_cannot_be_had_is_refused_and_leaves_nothing() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let room = control.server.create_room(RoomOptions::default()).await.unwrap();
    let id = room.id().0;
    let whip = format!("/whip/{id}");
    let audio_only = control.server.create_room(RoomOptions {
        media_codecs: Some(
            RtpCapabilities::supported()
                .codecs
                .into_iter()
                .filter(|codec| codec.name == "opus")
                .collect(),
        ),
        ..RoomOptions::default()
    });
    let audio_only = format!("/whip/{}", audio_only.await.unwrap().id().0);
    for (target, headers, body, status, code, says) in [
        (
            whip.as_str(),
            &[][..],
            OBS.to_owned(),
            415,
            "unsupportedMediaType",
            "application/sdp",
        ),
        (
            &whip,
            &[("content-type", "application/json")],
            "{}".to_owned(),
            415,
            "unsupportedMediaType",
            "application/sdp",
        ),
        (&whip, &[SDP], String::new(), 400, "invalidSdp", "not SDP"),
        (&whip, &[SDP], "x".repeat(65 * 1024), 413, "bodyTooLarge", "64 KiB"),
        (
            &whip,
            &[SDP, ("accept", "text/html, image/*")],
            OBS.to_owned(),
            406,
            "notAcceptable",
            "accept",
        ),
        (&whip, &[SDP], WHEP.to_owned(), 422, "unsupportedOffer", "/whep/"),
        (
            &whip,
            &[SDP],
            OBS.replace("a=ice-options", "a=ice-lite\r\na=ice-options"),
            422,
            "unsupportedOffer",
            "ICE-lite",
        ),
        (
            &audio_only,
            &[SDP],
            OBS.to_owned(),
            422,
            "unsupportedOffer",
            "video/H264",
        ),
        ("/whip/999", &[SDP], OBS.to_owned(), 404, "notFound", "no room 999"),
        ("/whip/a%20b", &[SDP], OBS.to_owned(), 400, "invalidId", "letters"),
        ("/whep/999", &[SDP], WHEP.to_owned(), 404, "notFound", "no room 999"),
        (
            &format!("/whep/{id}"),
            &[SDP],
            WHEP.replace("/90000", "/90001")
                .replace("/48000", "/48001")
                .replace("/8000", "/8001"),
            422,
            "unsupportedOffer",
            "the room relays no codec",
        ),
    ] {
        let answer = client.say("POST", target, headers, body).await;
        refuses(&answer, status, code, says);
        assert!(!answer.headers.contains_key("retry-after"));
        if status == 413 {
            client = control.client().await;
        }
    }
    for method in ["PATCH", "DELETE", "GET"] {
        let target = format!("/whip/{id}/sessions/0123456789abcdef");
        let answer = client.say(method, &target, &[FRAGMENT], "").await;
        refuses(&answer, 404, "notFound", "no such session");
    }
    // A name that is in use, also by somebody who came another way.
    room.create_peer(PeerOptions::new("alice", RtpCapabilities::default()))
        .unwrap();
    let answer = post(&mut client, &format!("{whip}/alice"), OBS).await;
    refuses(&answer, 409, "conflict", "alice");
    // What the publisher sends must be in the offer.
    session(&post(&mut client, &whip, OBS).await);
    let others = WHEP
        .replace("H264/90000", "theora/90000")
        .replace("m=audio 9 UDP/TLS/RTP/SAVPF 111", "m=audio 9 UDP/TLS/RTP/SAVPF");
    let answer = post(&mut client, &format!("/whep/{id}"), &others).await;
    refuses(&answer, 422, "unsupportedOffer", "audio/opus");
    let answer = post(&mut client, &format!("/whep/{id}"), OBS).await;
    refuses(&answer, 422, "unsupportedOffer", "recvonly");
    until("the end of what was begun", || room.peers().len() == 2).await;
    assert_eq!(room.transports().len(), 1);
    control.close().await;
}

/// A player whose publisher has no sound gets the pictures, and may be sent sound later; what the publisher sends comes first.
#[tokio::test]
async fn a_player_is_answered_all_that_it_may_be_sent() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let whole = FFMPEG
        .replace("m=audio 9", "m=audio 0")
        .replace("BUNDLE 0 1", "BUNDLE 1");
    session(&post(&mut client, "/whip/stage", &whole).await);
    let (_, answer) = session(&post(&mut client, "/whep/stage", WHEP).await);
    assert!(answer.contains("a=group:BUNDLE 0 1\r\n"), "{answer}");
    let (audio, video) = answer.split_once("m=video").unwrap();
    for line in ["a=sendonly", "a=ssrc:", "a=candidate:1 1 udp", "opus/48000/2"] {
        assert!(audio.contains(line), "{line}: {answer}");
    }
    for line in ["a=sendonly", "a=ssrc-group:FID ", "a=msid:", "VP8/90000"] {
        assert!(video.contains(line), "{line}: {answer}");
    }
    let name = "rtpmap:";
    let first = video.lines().find(|line| line.contains(name)).unwrap();
    assert!(first.ends_with(" H264/90000"), "{answer}");
    let room = control.server.rooms()[0].clone();
    let consumer = sent_in(&room).remove(0);
    let [media, repair] = [
        consumer.rtp_parameters().encodings[0].ssrc,
        consumer.rtp_parameters().encodings[0].rtx.unwrap().ssrc,
    ]
    .map(Option::unwrap);
    assert!(
        video.contains(&format!("a=ssrc-group:FID {media} {repair}\r\n")),
        "{answer}"
    );
    control.close().await;
}

/// The player comes first, two encoders come and go, and the player hears one stream.
#[tokio::test]
async fn a_player_waits_and_goes_on_whoever_publishes() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let mut player = Browser::new(Begins::Here, OPUS).await;
    let offer = player.offer(Direction::RecvOnly);
    let (watching, answer) = session(&post(&mut client, "/whep/stage/alice", &offer).await);
    player.answered(&answer);
    player.run_until("its connection", |own| own.connected).await;
    let room = control.server.rooms()[0].clone();
    for round in 0..3 {
        let mut publisher = Browser::new(Begins::Here, OPUS - round).await;
        let offer = publisher.offer(Direction::SendOnly);
        let (publishing, answer) = session(&post(&mut client, "/whip/stage/alice", &offer).await);
        let sent = publisher.answered(&answer);
        publisher.run_until("its connection", |own| own.connected).await;
        hears(
            &mut publisher,
            &mut player,
            (sent, OPUS - round),
            1_000 * u64::from(round),
        )
        .await;
        assert_eq!(client.say("DELETE", &publishing, &[], "").await.status, 200);
        until("its end", || room.producers().is_empty()).await;
        let consumers = sent_in(&room);
        assert!(consumers.len() == 1 && consumers[0].waits());
        let shown = client
            .get(&format!("/consumers/{}", consumers[0].id().0))
            .await
            .expect(200);
        assert_eq!(shown["waits"], true, "{shown}");
    }
    judge_one_stream(&player, &answer);
    assert_eq!(client.say("GET", &watching, &[], "").await.status, 200);
    control.close().await;
}

/// Kills the process of the only worker, and waits until another one has taken up what it had.
async fn replace_worker(server: &Server) {
    let mut events = server.events();
    let pid = server.workers()[0].pid.unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    let restored = async {
        loop {
            if let EventKind::WorkerRestored { lost, .. } = events.next().await.unwrap().kind {
                break lost;
            }
        }
    };
    assert_eq!(soon("the next worker", restored).await, 0);
}

/// The worker dies while the player waits, and while it is sent something.
#[tokio::test]
async fn a_player_goes_on_whatever_happens_to_its_worker() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let mut player = Browser::new(Begins::Here, OPUS).await;
    let offer = player.offer(Direction::RecvOnly);
    let (_, answer) = session(&post(&mut client, "/whep/stage", &offer).await);
    player.answered(&answer);
    player.run_until("its connection", |own| own.connected).await;
    for round in 0..3 {
        let mut publisher = Browser::new(Begins::Here, OPUS).await;
        let offer = publisher.offer(Direction::SendOnly);
        let (publishing, answer) = session(&post(&mut client, "/whip/stage", &offer).await);
        let sent = publisher.answered(&answer);
        publisher.run_until("its connection", |own| own.connected).await;
        let seq = hears(&mut publisher, &mut player, (sent, OPUS), 1_000).await;
        if round > 0 {
            replace_worker(&control.server).await;
            hears(&mut publisher, &mut player, (sent, OPUS), seq).await;
        }
        client.say("DELETE", &publishing, &[], "").await;
        if round < 2 {
            replace_worker(&control.server).await;
        }
    }
    judge_one_stream(&player, &answer);
    control.close().await;
}

/// Whoever publishes something that a player does not know is not what it waits for.
#[tokio::test]
async fn a_player_waits_for_what_it_knows() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let vp8_only = WHEP.replace("H264/90000", "theora/90000");
    session(&post(&mut client, "/whep/stage", &vp8_only).await);
    let room = control.server.rooms()[0].clone();
    let (publishing, _) = session(&post(&mut client, "/whip/stage/first", OBS).await);
    until("the sound", || sent_in(&room).len() == 1).await;
    session(&post(&mut client, "/whip/stage/second", CHROMIUM).await);
    client.say("DELETE", &publishing, &[], "").await;
    until("sound and pictures of the second", || {
        let sources: Vec<_> = sent_in(&room)
            .iter()
            .map(|own| own.producer().peer().unwrap().name().to_owned())
            .collect();
        sources == ["second", "second"]
    })
    .await;
    control.close().await;
}

#[tokio::test]
async fn pages_of_permitted_origins_can_read_everything_and_others_nothing() {
    let origin = "https://app.example";
    let options = ControlOptions {
        signalling: SignallingOptions {
            token: Some("for-pages-and-apps-only".parse().unwrap()),
            origins: vec![origin.to_owned()],
            ..SignallingOptions::default()
        },
        whip: WhipOptions {
            ice_servers: vec![
                "stun:stun.example.org:3478".parse().unwrap(),
                "turn:turn.example.org?transport=udp al ice".parse().unwrap(),
            ],
            ..WhipOptions::default()
        },
        ..ControlOptions::default()
    };
    let control = Control::start_with(settings(1), Limits::default(), options).await;
    let mut client = control.client().await;
    let from = ("origin", origin);
    let bearer = ("authorization", "Bearer for-pages-and-apps-only");
    let preflight = [from, ("access-control-request-method", "POST")];
    let answer = client.say("OPTIONS", "/whip/stage", &preflight, "").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, ""));
    assert_eq!(answer.headers["access-control-allow-origin"], origin);
    assert_eq!(answer.headers["accept-post"], "application/sdp");
    let listed = |name: &str| answer.headers[name].to_str().unwrap().to_lowercase();
    assert!(listed("access-control-allow-methods").contains("patch"));
    for name in ["authorization", "content-type", "if-match", "etag"] {
        assert!(listed("access-control-allow-headers").contains(name));
    }
    for name in [
        "location",
        "etag",
        "link",
        "accept-post",
        "access-control-allow-methods",
    ] {
        assert!(listed("access-control-expose-headers").contains(name));
    }
    assert!(!answer.headers.contains_key("link"), "a preflight knows no token");
    let asked = client.say("OPTIONS", "/whip/stage", &[from, bearer], "").await;
    assert_eq!(asked.headers.get_all("link").iter().count(), 2);

    let answer = client.say("POST", "/whip/stage", &[SDP, from], OBS).await;
    refuses(&answer, 401, "unauthorized", "authorization: Bearer");
    assert_eq!(answer.headers["www-authenticate"], "Bearer");
    assert_eq!(
        answer.headers["access-control-allow-origin"], origin,
        "the page can read why"
    );
    let answer = client.say("POST", "/whip/stage", &[SDP, from, bearer], OBS).await;
    let links: Vec<&str> = answer
        .headers
        .get_all("link")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(
        links,
        [
            "<stun:stun.example.org:3478>; rel=\"ice-server\"",
            "<turn:turn.example.org?transport=udp>; rel=\"ice-server\"; username=\"al\"; credential=\"ice\"; credential-type=\"password\"",
        ]
    );
    let (location, _) = session(&answer);
    let stranger = ("origin", "https://evil.example");
    for (method, target) in [
        ("OPTIONS", "/whip/stage"),
        ("POST", "/whip/stage"),
        ("DELETE", location.as_str()),
    ] {
        let answer = client.say(method, target, &[SDP, stranger, bearer], OBS).await;
        refuses(&answer, 403, "foreignOrigin", "http_origins");
        assert!(!answer.headers.contains_key("access-control-allow-origin"));
    }
    assert_eq!(client.say("GET", "/whip/stage", &[], "").await.status, 200);
    let head = client.say("HEAD", "/whep/stage", &[], "").await;
    assert_eq!(
        (head.status, head.headers["content-type"].to_str().unwrap()),
        (200, "application/sdp")
    );
    assert_eq!(client.say("GET", &location, &[], "").await.status, 200);
    // Its URL is a secret, and the token is not asked for.
    assert_eq!(client.say("DELETE", &location, &[from], "").await.status, 200);
    control.close().await;
}

/// An encoder that has crashed comes again under its name; who is publishing is not driven away, unless anybody may do that.
#[tokio::test]
async fn a_name_is_taken_over_from_who_is_silent() {
    for takeover in [ClientTakeover::Own, ClientTakeover::Any] {
        let options = ControlOptions {
            signalling: SignallingOptions {
                takeover,
                ..SignallingOptions::default()
            },
            ..ControlOptions::default()
        };
        let control = Control::start_with(settings(1), Limits::default(), options).await;
        let mut client = control.client().await;
        let mut first = Browser::new(Begins::Here, OPUS).await;
        let offer = first.offer(Direction::SendOnly);
        let (crashed, answer) = session(&post(&mut client, "/whip/stage/alice", &offer).await);
        let sent = first.answered(&answer);
        first.run_until("its connection", |own| own.connected).await;
        let room = control.server.rooms()[0].clone();
        let before = room.producers()[0].id();
        if takeover == ClientTakeover::Own {
            // While it sends, it stays.
            let second = post(&mut client, "/whip/stage/alice", OBS);
            tokio::pin!(second);
            let mut seq = 0;
            let refused = async {
                loop {
                    tokio::select! {
                        answer = &mut second => break answer,
                        () = turn(&mut first) => {
                            first.send_on(sent, OPUS, seq, b"sound");
                            seq += 1;
                        }
                    }
                }
            };
            let refused = soon("the refusal", refused).await;
            refuses(&refused, 409, "conflict", "alice");
        }
        // It crashes, and the server hears nothing of that.
        drop(first);
        session(&post(&mut client, "/whip/stage/alice", OBS).await);
        assert_eq!(room.peers().len(), 1);
        assert!(room.producers().iter().all(|producer| producer.id() != before));
        refuses(&client.say("GET", &crashed, &[], "").await, 404, "notFound", "ended");
        control.close().await;
    }
}

/// Where the extensions of a player's session are, by the end of their names.
fn extensions(answer: &Answer) -> Vec<(String, String)> {
    let links = answer.headers.get_all("link").iter();
    links
        .filter_map(|link| {
            let (url, rest) = link.to_str().unwrap().strip_prefix('<')?.split_once('>')?;
            let name = rest.split_once("urn:ietf:params:whep:ext:core:")?.1.split_once('"')?.0;
            Some((name.to_owned(), url.to_owned()))
        })
        .collect()
}

/// The next event of a stream: its name and what it says. Comments are left out.
async fn event(body: &mut Incoming, text: &mut String) -> Option<(String, Value)> {
    loop {
        while !text.contains("\n\n") {
            let frame = soon("an event", body.frame()).await?.unwrap();
            *text += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
        let (part, rest) = text.split_once("\n\n").unwrap();
        let field = |name: &str| part.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let found =
            field("event:").map(|name| (name.to_owned(), serde_json::from_str(field("data:").unwrap()).unwrap()));
        *text = rest.to_owned();
        if found.is_some() {
            return found;
        }
    }
}

#[tokio::test]
async fn players_are_told_what_is_published_and_choose_layers() {
    let control = Control::start().await;
    let mut client = control.client().await;
    let opened = post(&mut client, "/whep/stage/alice", WHEP).await;
    let links = extensions(&opened);
    let (location, _) = session(&opened);
    let expected = [("layer", "layer"), ("server-sent-events", "sse")];
    let expected = expected.map(|(name, path)| (name.to_owned(), format!("{location}/{path}")));
    assert_eq!(links, expected);
    let [layer, events] = expected.map(|(_, url)| url);
    let json = [("content-type", "application/json")];
    let refused = client.say("POST", &events, &json, r#"["active","scte35"]"#).await;
    refuses(&refused, 400, "invalidEvents", "scte35");
    let refused = client.say("POST", &events, &json, "{").await;
    refuses(&refused, 400, "invalidJson", "JSON");
    let made = client
        .say("POST", &events, &json, r#"["inactive","active","layers"]"#)
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    let stream = made.headers["location"].to_str().unwrap().to_owned();
    let every = client.say("POST", &events, &[], "").await;
    assert_eq!(every.status, 201);
    let every = every.headers["location"].to_str().unwrap().to_owned();
    let refused = client.say("POST", &events, &[], "").await;
    refuses(&refused, 503, "tooMany", "DELETE");

    // Nobody publishes, which is not told in the beginning.
    let mut reader = control.client().await;
    let response = reader.begin("GET", &stream, &[], "").await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (mut body, mut text) = (response.into_body(), String::new());
    assert_eq!(
        event(&mut body, &mut text).await.unwrap(),
        ("layers".to_owned(), json!({}))
    );
    let mut other = control.client().await;
    let response = other.begin("GET", &every, &[], "").await;
    let (mut all, mut all_text) = (response.into_body(), String::new());
    assert_eq!(event(&mut all, &mut all_text).await.unwrap().0, "layers");
    let viewers = ("viewercount".to_owned(), json!({"viewercount": 0}));
    assert_eq!(event(&mut all, &mut all_text).await.unwrap(), viewers);

    // What is wanted before counts when somebody publishes.
    assert_eq!(client.say("POST", &layer, &json, r#"{"rid":"low"}"#).await.status, 200);
    let (publishing, _) = session(&post(&mut client, "/whip/stage/alice", SIMULCAST).await);
    assert_eq!(
        event(&mut body, &mut text).await.unwrap(),
        ("active".to_owned(), json!({}))
    );
    let layers = loop {
        let (name, layers) = event(&mut body, &mut text).await.unwrap();
        assert_eq!(name, "layers");
        if layers["1"].is_array() {
            break layers;
        }
    };
    let rids: Vec<&str> = layers["1"]
        .as_array()
        .unwrap()
        .iter()
        .map(|own| own["rid"].as_str().unwrap())
        .collect();
    assert_eq!(rids, ["q", "h", "f"], "{layers}");
    let room = control.server.rooms()[0].clone();
    let video = || {
        sent_in(&room)
            .into_iter()
            .find(|own| own.kind() == MediaKind::Video)
            .unwrap()
    };
    assert_eq!(video().preferred_profile(), Profile::Low);
    for (wish, profile) in [
        (r#"{"mediaId":"1","rid":"h"}"#, Profile::Medium),
        (r#"{"mediaId":1,"encodingId":"q"}"#, Profile::Low),
        (r#"{"maxSpatialLayerId":7}"#, Profile::High),
        (r#"{"spatialLayerId":1,"temporalLayerId":0}"#, Profile::Medium),
        (r#"{"mediaId":"1"}"#, Profile::Default),
    ] {
        let answer = client.say("POST", &layer, &json, wish).await;
        assert_eq!(answer.status, 200, "{wish}: {}", answer.text);
        assert_eq!(video().preferred_profile(), profile, "{wish}");
    }
    for (wish, says) in [
        (r#"{"rid":"x"}"#, "no layer x"),
        (r#"{"mediaId":"9"}"#, "section"),
        (r#"{"mediaId":[]}"#, "mediaId"),
        (r#"{"maxWidth":640}"#, "rid"),
    ] {
        let refused = client.say("POST", &layer, &json, wish).await;
        refuses(&refused, 422, "unsupportedLayer", says);
    }
    let of_publisher = format!("{publishing}/layer").replace("/whip/", "/whep/");
    let refused = client.say("POST", &of_publisher, &json, "{}").await;
    refuses(&refused, 404, "notFound", "only players");

    client.say("DELETE", &publishing, &[], "").await;
    let inactive = async {
        loop {
            let (name, _) = event(&mut body, &mut text).await.unwrap();
            if name == "inactive" {
                break;
            }
        }
    };
    soon("the publisher's end", inactive).await;
    // Who comes later reads on; and the stream ends for everybody.
    let mut later = control.client().await;
    let response = later.begin("GET", &stream, &[], "").await;
    soon("the end", async {
        while event(&mut body, &mut text).await.is_some() {}
    })
    .await;
    let (mut body, mut text) = (response.into_body(), String::new());
    assert_eq!(client.say("DELETE", &stream, &[], "").await.status, 200);
    soon("the end", async {
        while event(&mut body, &mut text).await.is_some() {}
    })
    .await;
    refuses(&client.say("GET", &stream, &[], "").await, 404, "notFound", "POST");
    client.say("DELETE", &location, &[], "").await;
    soon("the end", async {
        while event(&mut all, &mut all_text).await.is_some() {}
    })
    .await;
    control.close().await;
}

async fn with_sessions(sessions: usize, connect: Duration) -> Control {
    let whip = WhipOptions {
        sessions,
        connect,
        ..WhipOptions::default()
    };
    let options = ControlOptions {
        whip,
        ..ControlOptions::default()
    };
    Control::start_with(settings(1), Limits::default(), options).await
}

#[tokio::test]
async fn sessions_are_bounded() {
    // A quarter of all may be without media yet.
    let control = with_sessions(8, Duration::from_secs(3_600)).await;
    let mut client = control.client().await;
    let (location, _) = session(&post(&mut client, "/whip/stage", OBS).await);
    session(&post(&mut client, "/whip/stage", OBS).await);
    let refused = post(&mut client, "/whip/stage", OBS).await;
    refuses(&refused, 503, "tooMany", "whip_sessions_max");
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(client.say("DELETE", &location, &[], "").await.status, 200);
    // Its place is free when it has ended whole.
    let again = async { while post(&mut client, "/whip/stage", OBS).await.status != 201 {} };
    soon("a place", again).await;
    control.close().await;
}

#[tokio::test]
async fn sessions_that_never_connect_end() {
    let control = with_sessions(8, Duration::from_millis(1)).await;
    let mut client = control.client().await;
    let (location, _) = session(&post(&mut client, "/whip/stage", OBS).await);
    until("its end", || control.server.rooms().is_empty()).await;
    refuses(&client.say("GET", &location, &[], "").await, 404, "notFound", "ended");
    control.close().await;
}

#[test]
fn ice_servers_are_what_clients_can_take_apart() {
    for right in [
        "stun:stun.example.org",
        "stuns:192.0.2.1:5349",
        "turn:turn.example.org?transport=tcp name secret",
    ] {
        assert!(right.parse::<weir::http::IceServer>().is_ok(), "{right}");
    }
    for wrong in [
        "",
        "stun:",
        "http://x",
        "turn:x",
        "turn:x name",
        "stun:x name secret",
        "stun:x>",
        "turn:x a\"b c",
        "turn:x a, c",
    ] {
        let error = wrong.parse::<weir::http::IceServer>().unwrap_err();
        assert!(error.contains("ICE server"), "{wrong}: {error}");
    }
    let server: weir::http::IceServer = "turn:turn.example.org name secret".parse().unwrap();
    assert!(!format!("{server:?}").contains("secret"));
}
