//! Plain transports that learn where their client is: from whom, and from whom not.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Scale;
use crate::arena::{Arena, Figures, Site, number};
use crate::call;
use crate::control::{Client, soon};
use crate::flood::{Random, flood, send, take};
use crate::innocents::rtp;
use crate::signalling::{Caller, create_microphone, create_transport, enable_consumer};

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";

/// A receiver report (RFC 3550 §6.4.2) about nobody.
fn empty_report(sender: u32) -> Vec<u8> {
    let mut report = vec![0x80, 201, 0, 1];
    report.extend(sender.to_be_bytes());
    report
}

/// A receiver report about a stream.
pub(crate) fn report(sender: u32, about: u32) -> Vec<u8> {
    let mut report = vec![0x81, 201, 0, 7];
    report.extend(sender.to_be_bytes());
    report.extend(about.to_be_bytes());
    report.resize(32, 0);
    report
}

async fn remote(client: &mut Client, transport: u64) -> Value {
    let shown = client.get(&format!("/transports/{transport}")).await.expect(200);
    shown["tuple"]["remote"].clone()
}

/// Transports that only receive, and learn from where.
async fn receivers(arena: &Arena, client: &mut Client, count: u32) -> Vec<(u64, SocketAddr, u32)> {
    let mut receivers = Vec::new();
    for ssrc in 0x2000..0x2000 + count {
        let (transport, address) = call::plain(client, arena.room, json!({"comedia": true})).await;
        call::consume(client, transport, arena.producer, ssrc).await;
        receivers.push((transport, address, ssrc));
    }
    receivers
}

pub(crate) async fn reports_that_name_nobody(scale: Scale) -> Figures {
    reports_at(scale, Site::PLAIN).await
}

pub(crate) async fn reports_at(scale: Scale, site: Site) -> Figures {
    let arena = Arena::open_at(scale, site).await;
    let mut client = arena.client().await;
    let (transport, address, ssrc) = receivers(&arena, &mut client, 1).await[0];
    let stranger = arena.stranger();
    for number in 0..100 {
        send(&stranger, &empty_report(number), address);
        send(&stranger, &report(number, number), address);
        // It names the right stream, but ends in the middle (RFC 3550 §A.2).
        send(&stranger, &report(number, ssrc)[..20], address);
    }
    arena.pass(Duration::from_millis(500)).await;
    let stolen = take(&stranger);
    assert_eq!((stolen.media, remote(&mut client, transport).await), (0, Value::Null));
    // Who knows what it is sent has it, and the stranger never.
    let rightful = arena.home();
    arena
        .until("media", || {
            send(&rightful, &report(1, ssrc), address);
            take(&rightful).media > 0
        })
        .await;
    assert_eq!(take(&stranger).media, 0);
    arena.close().await.with("packets stolen", stolen.media)
}

pub(crate) async fn spraying_ports(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let mut client = arena.client().await;
    let receivers = receivers(&arena, &mut client, 20).await;
    let stranger = arena.stranger();
    let ip = receivers[0].1.ip();
    for port in 10_000..60_000 {
        send(&stranger, &empty_report(1), (ip, port).into());
    }
    arena.pass(Duration::from_millis(500)).await;
    let stolen = take(&stranger).media;
    assert_eq!(stolen, 0);
    for (transport, _, _) in receivers {
        assert_eq!(remote(&mut client, transport).await, Value::Null);
    }
    arena.close().await.with("ports", 50_000).with("packets stolen", stolen)
}

/// An opus packet with one header extension (RFC 8285 §4.2).
fn with_extension(ssrc: u32, seq: u16, id: u8, value: &str) -> Vec<u8> {
    let mut packet = rtp(ssrc, seq, u32::from(seq) * 960);
    packet[0] |= 0x10;
    let mut extension = vec![id << 4 | (value.len() as u8 - 1)];
    extension.extend(value.bytes());
    extension.resize(extension.len().next_multiple_of(4), 0);
    packet.extend([0xbe, 0xde, 0, extension.len() as u8 / 4]);
    packet.extend(extension);
    packet.extend([0xaa; 20]);
    packet
}

pub(crate) async fn guessing_mids(scale: Scale) -> Figures {
    let arena = Arena::open(scale).await;
    let mut client = arena.client().await;
    let mut guesses = 0;
    for (uri, member, secret) in [(MID, "muxId", "42"), (RID, "encodingId", "17")] {
        let (transport, address) = call::plain(&mut client, arena.room, json!({"comedia": true})).await;
        let mut producer = call::microphone(1);
        let parameters = &mut producer["rtpParameters"];
        parameters["headerExtensions"] = json!([{"uri": uri, "id": 4}]);
        parameters["encodings"] = json!([{}]);
        match member {
            "muxId" => parameters["muxId"] = json!(secret),
            _ => parameters["encodings"] = json!([{"encodingId": secret}]),
        }
        call::produce(&mut client, transport, producer).await;
        let stranger = arena.stranger();
        for guess in 0..70 {
            send(
                &stranger,
                &with_extension(0x3000 + guess, 1, 4, &guess.to_string()),
                address,
            );
            guesses += 1;
        }
        arena.pass(Duration::from_millis(200)).await;
        assert_eq!(remote(&mut client, transport).await, Value::Null, "{member}");
        // Who really sends it goes on doing so.
        let rightful = arena.home();
        let expected = json!(rightful.local_addr().unwrap());
        let mut seq = 0;
        soon("the sender to be known", async {
            while remote(&mut client, transport).await != expected {
                send(&rightful, &with_extension(0x4000, seq, 4, secret), address);
                seq += 1;
            }
        })
        .await;
    }
    arena.close().await.with("guesses", guesses)
}

pub(crate) async fn reflecting_to_a_third_party(scale: Scale) -> Figures {
    let site = Site {
        tcp: true,
        ..Site::PLAIN
    };
    let arena = Arena::open_at(scale, site).await;
    let mut client = arena.client().await;
    let room = call::room(&mut client, arena.worker).await;
    let address = arena.tcp.unwrap().to_string();
    let join = async |name| {
        let mut caller = Caller::try_connect_tcp(&address, room, name, &[]).await.unwrap();
        let (answer, _) = caller.join(name, Value::Null).await;
        (caller, answer)
    };
    let served = async |client: &mut Client, name| {
        let listed = client
            .get(&format!("/transports?room={room}&peer={name}"))
            .await
            .expect(200);
        let tuple = &listed["items"][0]["tuple"];
        let port = number(&tuple["localPort"]) as u16;
        SocketAddr::from((
            tuple["localIp"].as_str().unwrap().parse::<std::net::IpAddr>().unwrap(),
            port,
        ))
    };
    let (mut alice, _) = join("alice").await;
    alice.request(create_transport(1, "send")).await.unwrap();
    alice.request(create_microphone(5, 1, 0x5000)).await.unwrap();
    let (mut bob, _) = join("bob").await;
    bob.request(create_transport(2, "recv")).await.unwrap();
    let consumers = client
        .get(&format!("/consumers?room={room}&peer=bob"))
        .await
        .expect(200);
    let consumer = &consumers["items"][0]["id"];
    bob.request(enable_consumer(consumer, 2)).await.unwrap();
    let shown = client.get(&format!("/consumers/{consumer}")).await.expect(200);
    let ssrc = number(&shown["rtpParameters"]["encodings"][0]["ssrc"]) as u32;
    let (of_alice, of_bob) = (served(&mut client, "alice").await, served(&mut client, "bob").await);

    // Bob names no address, but sends one packet with somebody else's.
    let victim = arena.stranger();
    let (microphone, speaker) = (arena.home(), arena.home());
    send(&victim, &report(1, ssrc), of_bob);
    let mut seq = 0;
    for _ in 0..100 {
        seq += 1;
        send(&microphone, &with_extension(0x5000, seq, 9, "x"), of_alice);
        arena.pass(Duration::from_millis(2)).await;
    }
    let reflected = take(&victim);
    assert_eq!(reflected.media, 0);
    // From his own he may.
    arena
        .until("media", || {
            seq += 1;
            send(&speaker, &report(1, ssrc), of_bob);
            send(&microphone, &with_extension(0x5000, seq, 9, "x"), of_alice);
            take(&speaker).media > 0
        })
        .await;
    assert_eq!(take(&victim).media, 0);
    arena.close().await.with("packets reflected", reflected.media)
}

pub(crate) async fn garbage_beside_a_call(scale: Scale) -> Figures {
    garbage_at(scale, Site::PLAIN).await
}

pub(crate) async fn garbage_at(scale: Scale, site: Site) -> Figures {
    let arena = Arena::open_at(scale, site).await;
    let target = format!("/transports/{}/stats", arena.sender);
    let before = arena.get(&target).await;
    let (sends, receives) = (arena.sends, arena.receives);
    let mut random = Random::new(1);
    let stranger = arena.stranger();
    let mut kinds: Vec<Vec<u8>> = (0..200).map(|len| random.bytes(len * 7)).collect();
    kinds.push(rtp(crate::arena::INNOCENT, 7, 7));
    kinds.push(report(1, crate::arena::INNOCENT + 1));
    let sent = flood(scale, move |turn| {
        let to = if turn % 2 == 0 { sends } else { receives };
        send(&stranger, &kinds[turn as usize % kinds.len()], to);
    })
    .await;
    let after = arena.get(&target).await;
    let foreign = number(&after["unrouted"]["foreignSource"]);
    assert!(foreign > 0, "{after}");
    assert!(number(&after["packetsReceived"]) > number(&before["packetsReceived"]));
    arena
        .close()
        .await
        .with("packets", sent)
        .with("counted as foreignSource", foreign)
}
