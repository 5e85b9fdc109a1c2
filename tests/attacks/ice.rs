//! ICE and DTLS of WebRTC transports: checks (RFC 8445 §7.3, RFC 8489) of those who know the password and of those who do not,
//! and what comes before anybody has proven who they are (RFC 9147).

use std::time::Duration;

use serde_json::json;
use weir_worker::webrtc::stun::{BINDING, Class, Key, Writer, attribute};

use crate::Scale;
use crate::arena::{Arena, Figures, Site};
use crate::browser::{Begins, Browser};
use crate::call::{Browsers, THEIRS, WebRtc};
use crate::flood::{Came, Random, flood, send, take};
use crate::meters::now;

/// Media to an address that has answered no check of the server's.
const UNPROVEN_MAX: u64 = 10;

pub(crate) const BROWSERS: Site = Site {
    browsers: true,
    ..Site::PLAIN
};

/// A nominating check by somebody who has these credentials.
pub(crate) fn check(ufrag: &str, password: &str, transaction: u64) -> Vec<u8> {
    padded_check(ufrag, password, transaction, 0)
}

/// The same, with so many bytes that say nothing.
fn padded_check(ufrag: &str, password: &str, transaction: u64, padding: usize) -> Vec<u8> {
    let (mut bytes, mut id) = (Vec::new(), [7; 12]);
    id[..8].copy_from_slice(&transaction.to_be_bytes());
    let username = format!("{ufrag}:attacker");
    let mut writer = Writer::new(&mut bytes, Class::Request, BINDING, id)
        .attribute(attribute::USERNAME, username.as_bytes())
        .attribute(attribute::PRIORITY, &0x7eff_ffff_u32.to_be_bytes())
        .attribute(attribute::ICE_CONTROLLING, &[9; 8])
        .attribute(attribute::USE_CANDIDATE, &[]);
    if padding > 0 {
        // SOFTWARE (RFC 8489 §14.14).
        writer = writer.attribute(0x8022, &vec![b'x'; padding]);
    }
    writer.integrity(&Key::new(password)).fingerprint();
    bytes
}

/// How many packets of a transport were dropped for this reason.
async fn unrouted(arena: &Arena, transport: u64, reason: &str) -> u64 {
    let stats = arena.get(&format!("/transports/{transport}/stats")).await;
    stats["unrouted"][reason].as_u64().unwrap_or(0)
}

/// Sends media of a call, and returns how much of it the receiver gets.
async fn speak(arena: &Arena, call: &mut Browsers, ssrc: u32, seqs: std::ops::Range<u64>) -> usize {
    let expected = (seqs.end - seqs.start) as usize;
    for seq in seqs {
        call.sending.send(ssrc, THEIRS, seq, &[0; 100]);
        call.sending.run_until("what is in line", |_| true).await;
        arena.pass(Duration::from_millis(2)).await;
    }
    let end = now() + Duration::from_secs(5);
    call.receiving
        .run_until("what has come", |receiving| {
            receiving.packets.len() >= expected || now() >= end
        })
        .await;
    call.receiving.packets.drain(..).count()
}

pub(crate) async fn amplifying_to_a_victim(scale: Scale) -> Figures {
    amplifying_at(scale, BROWSERS).await
}

pub(crate) async fn amplifying_at(scale: Scale, site: Site) -> Figures {
    let arena = Arena::open_at(scale, site).await;
    let mut client = arena.client().await;
    let mut call = Browsers::connect(&mut client, arena.room, 0x6000, arena.family.home()).await;
    let victim = arena.victim();
    let (to, receives) = (call.receives.address("udp"), &call.receives);
    // As if it came from the victim, who knows nothing of it. The client itself is silent meanwhile.
    for transaction in 0..5 {
        send(&victim, &check(receives.ufrag(), receives.password(), transaction), to);
    }
    let packets = scale.of(200, 2_000) as u64;
    let mut got = Came::default();
    for seq in 0..packets {
        call.sending.send(0x6000, THEIRS, 10_000 + seq, &[0; 100]);
        call.sending.run_until("what is in line", |_| true).await;
        arena.pass(Duration::from_millis(2)).await;
        got += take(&victim);
    }
    assert!(got.media <= UNPROVEN_MAX, "the victim got {got:?}");
    // Answers to five checks, and checks of the server's own.
    assert!(got.bytes <= 16 * 1024, "the victim got {got:?}");
    let figures = arena.close().await;
    figures
        .with("packets of media sent", packets)
        .with("to the victim", got.media)
        .with("bytes to the victim", got.bytes)
}

pub(crate) async fn a_flood_of_valid_checks(scale: Scale) -> Figures {
    valid_checks_at(scale, BROWSERS).await
}

pub(crate) async fn valid_checks_at(scale: Scale, site: Site) -> Figures {
    let arena = Arena::open_at(scale, site).await;
    let mut client = arena.client().await;
    let transport = WebRtc::create(&mut client, arena.room, json!({})).await;
    let checks: Vec<_> = (0..1_000)
        .map(|transaction| check(transport.ufrag(), transport.password(), transaction))
        .collect();
    let sockets: Vec<_> = (0..8).map(|_| arena.stranger()).collect();
    let to = transport.address("udp");
    let sent = flood(scale, move |turn| {
        send(
            &sockets[turn as usize % sockets.len()],
            &checks[turn as usize % checks.len()],
            to,
        );
    })
    .await;
    let dropped = unrouted(&arena, transport.id, "flood").await;
    assert!(dropped > 0, "nothing was too much");
    arena
        .close()
        .await
        .with("checks", sent)
        .with("counted as flood", dropped)
}

pub(crate) async fn enormous_checks(scale: Scale) -> Figures {
    let arena = Arena::open_at(scale, BROWSERS).await;
    let mut client = arena.client().await;
    let mut transports = Vec::new();
    for _ in 0..40 {
        let transport = WebRtc::create(&mut client, arena.room, json!({})).await;
        // With the password and without.
        let valid = padded_check(transport.ufrag(), transport.password(), 1, 64_800);
        let guessed = padded_check("guessed0guessed0", "0123456789abcdef0123456789abcdef", 1, 64_800);
        transports.push((transport.address("udp"), valid, guessed));
    }
    let stranger = arena.stranger();
    let of_flood = stranger.try_clone().unwrap();
    let most = scale.of(2_000, usize::MAX) as u64;
    let sent = flood(scale, move |turn| {
        if turn < most {
            let (to, valid, guessed) = &transports[turn as usize % transports.len()];
            send(&of_flood, if turn % 3 == 0 { valid } else { guessed }, *to);
        }
    })
    .await;
    let answers = take(&stranger).stun;
    assert_eq!(answers, 0, "no check is as long as that");
    arena
        .close()
        .await
        .with("checks", sent.min(most))
        .with("answers", answers)
}

pub(crate) async fn wrong_passwords(scale: Scale) -> Figures {
    wrong_passwords_at(scale, BROWSERS).await
}

pub(crate) async fn wrong_passwords_at(scale: Scale, site: Site) -> Figures {
    let arena = Arena::open_at(scale, site).await;
    let mut client = arena.client().await;
    let transport = WebRtc::create(&mut client, arena.room, json!({})).await;
    let guesses: Vec<_> = (0..1_000)
        .flat_map(|transaction| {
            let password = format!("0123456789abcdef0123456789ab{transaction:04}");
            let known = check(transport.ufrag(), &password, transaction);
            [known, check("guessed0guessed0", &password, transaction)]
        })
        .collect();
    let stranger = arena.stranger();
    let of_flood = stranger.try_clone().unwrap();
    let to = transport.address("udp");
    let sent = flood(scale, move |turn| {
        send(&of_flood, &guesses[turn as usize % guesses.len()], to)
    })
    .await;
    arena.pass(Duration::from_millis(100)).await;
    let answers = take(&stranger).stun;
    // A few are answered, for those who mistake their password.
    assert!(answers <= 200, "{answers} answers");
    let shown = arena.get(&format!("/transports/{}", transport.id)).await;
    assert_eq!(shown["webrtc"]["iceState"], "new");
    arena.close().await.with("guesses", sent).with("answers", answers)
}

pub(crate) async fn replayed_checks(scale: Scale) -> Figures {
    let arena = Arena::open_at(scale, BROWSERS).await;
    let mut client = arena.client().await;
    let mut call = Browsers::connect(&mut client, arena.room, 0x6000, arena.family.home()).await;
    let thief = arena.victim();
    let checks = call.receiving.recorded.take().unwrap();
    let checks: Vec<_> = checks.into_iter().filter(|bytes| bytes[0] < 4).collect();
    assert!(!checks.is_empty());
    for check in &checks {
        send(&thief, check, call.receives.address("udp"));
    }
    // As many as the receiver's socket keeps.
    let packets = 200;
    let heard = speak(&arena, &mut call, 0x6000, 10_000..10_000 + packets as u64).await;
    let stolen = take(&thief);
    assert!(stolen.media <= UNPROVEN_MAX, "{stolen:?}");
    assert!(
        heard + UNPROVEN_MAX as usize >= packets,
        "{heard} of {packets} were heard"
    );
    let figures = arena.close().await;
    figures
        .with("checks", checks.len())
        .with("packets stolen", stolen.media)
        .with("packets heard", heard as u64)
}

pub(crate) async fn garbage_as_dtls(scale: Scale) -> Figures {
    let arena = Arena::open_at(scale, BROWSERS).await;
    let mut client = arena.client().await;
    let transport = WebRtc::create(&mut client, arena.room, json!({})).await;
    // Its first hello is real.
    let mut browser = Browser::new(Begins::Here, THEIRS).await;
    browser.recorded = Some(Vec::new());
    transport.introduce(&mut client, &mut browser).await;
    let is_dtls = |bytes: &Vec<u8>| (20..64).contains(&bytes[0]);
    browser
        .run_until("a hello", |browser| {
            browser.recorded.as_ref().unwrap().iter().any(is_dtls)
        })
        .await;
    let hello = browser.recorded.take().unwrap().into_iter().find(is_dtls).unwrap();
    let mut random = Random::new(2);
    let mut kinds = vec![hello.clone(); 50];
    for _ in 0..450 {
        let mut broken = hello.clone();
        for _ in 0..=random.below(4) {
            let at = random.below(broken.len() as u64) as usize;
            broken[at] = random.next() as u8;
        }
        broken[0] = 20 + random.below(8) as u8;
        kinds.push(broken);
    }
    // From an address that a valid check has come from, and from others.
    let knows = arena.stranger();
    let to = transport.address("udp");
    send(&knows, &check(transport.ufrag(), transport.password(), 1), to);
    let stranger = arena.stranger();
    let sent = flood(scale, move |turn| {
        let from = if turn % 2 == 0 { &knows } else { &stranger };
        send(from, &kinds[turn as usize % kinds.len()], to);
    })
    .await;
    let mut refused = 0;
    for reason in ["flood", "notConnected", "malformed"] {
        refused += unrouted(&arena, transport.id, reason).await;
    }
    assert!(refused > 0);
    arena.close().await.with("datagrams", sent).with("refused", refused)
}
