//! A room with peers in a real worker: media from one client to the others, and everything that they do to it.

#![allow(clippy::unwrap_used, reason = "tests")]

mod loopback;
mod processes;

use std::net::SocketAddr;

use futures::future::join_all;
use serde_json::Value;
use tokio::net::UdpSocket;
use weir::{
    CodecName, Consumer, Direction, EnableOptions, MediaKind, Peer, PeerNotification, PeerNotifications, PeerOptions,
    PlainTransportOptions, ProducerOptions, Remote, Room, RoomOptions, RtpCodec, RtpEncoding, RtpParameters,
    RtpStreamerOptions, Server, Side, Transport,
};

use processes::{settings, soon};

const SSRC: u32 = 0x5eed;

/// Under the client's own payload type, not the room's.
const PAYLOAD_TYPE: u8 = 45;

/// An opus packet, as small as one can be.
fn packet(seq: u16) -> Vec<u8> {
    let mut packet = vec![0x80, PAYLOAD_TYPE];
    packet.extend(seq.to_be_bytes());
    packet.extend((u32::from(seq) * 960).to_be_bytes());
    packet.extend(SSRC.to_be_bytes());
    packet.extend([0xf8, 0xff, 0xfe, seq as u8]);
    packet
}

/// A peer and the client it stands for.
struct Client {
    peer: Peer,
    notifications: PeerNotifications,
    socket: UdpSocket,
    transport: Transport,
}

impl Client {
    async fn join(room: &Room, name: &str) -> Self {
        let options = PeerOptions::new(name, room.rtp_capabilities().clone());
        let peer = room.create_peer(options).unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let transport = Self::transport(&peer, &socket).await;
        Self {
            notifications: peer.notifications(),
            peer,
            socket,
            transport,
        }
    }

    async fn transport(peer: &Peer, socket: &UdpSocket) -> Transport {
        let options = PlainTransportOptions {
            remote: Some(Remote {
                rtp: socket.local_addr().unwrap(),
                rtcp: None,
            }),
            ..PlainTransportOptions::default()
        };
        soon(peer.create_plain_transport(options, Some(Direction::Recv)))
            .await
            .unwrap()
    }

    /// The consumer that the client is told of next.
    async fn offered(&mut self) -> Consumer {
        loop {
            if let PeerNotification::NewConsumer(info) = soon(self.notifications.next()).await.unwrap() {
                return self.peer.consumer(info.id).unwrap();
            }
        }
    }

    /// The next packet of a consumer: the last byte, which tells which one it was.
    async fn hear(&self, consumer: &Consumer) -> u8 {
        let mut buffer = [0; 2_000];
        loop {
            let (len, _) = soon(self.socket.recv_from(&mut buffer)).await.unwrap();
            let is_rtcp = (192..=223).contains(&buffer[1]);
            let expected = consumer.rtp_parameters();
            let ssrc = u32::from_be_bytes(buffer[8..12].try_into().unwrap());
            if !is_rtcp && Some(ssrc) == expected.encodings[0].ssrc {
                assert_eq!(buffer[1] & 0x7f, expected.codecs[0].payload_type);
                return buffer[len - 1];
            }
        }
    }
}

fn address(transport: &Transport) -> SocketAddr {
    let tuple = transport.tuple();
    SocketAddr::new(tuple.bound_ip, tuple.local_port)
}

fn microphone() -> ProducerOptions {
    let parameters = RtpParameters {
        codecs: vec![RtpCodec::new(CodecName::Opus, PAYLOAD_TYPE)],
        encodings: vec![RtpEncoding::ssrc(SSRC)],
        ..RtpParameters::default()
    };
    ProducerOptions::new(MediaKind::Audio, parameters)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_says_all_hear_who_want_to() {
    let server = Server::start(settings(1)).await.unwrap();
    let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
    let alice = Client::join(&room, "alice").await;
    let mut bob = Client::join(&room, "bob").await;
    let mut carol = Client::join(&room, "carol").await;
    let producer = soon(alice.transport.produce(microphone())).await.unwrap();
    let (to_bob, to_carol) = (bob.offered().await, carol.offered().await);
    for (client, consumer) in [(&bob, &to_bob), (&carol, &to_carol)] {
        soon(consumer.enable(&client.transport, EnableOptions::default()))
            .await
            .unwrap();
    }
    let say = async |seq: u16| {
        let to = address(&alice.transport);
        alice.socket.send_to(&packet(seq), to).await.unwrap();
    };
    say(1).await;
    assert_eq!((bob.hear(&to_bob).await, carol.hear(&to_carol).await), (1, 1));

    // Two hold bob's consumer paused; he hears again when both have let go.
    soon(to_bob.pause(Value::Null)).await.unwrap();
    soon(to_bob.pause_by(Side::Remote, Value::Null)).await.unwrap();
    soon(to_bob.resume(Value::Null)).await.unwrap();
    say(2).await;
    assert_eq!(carol.hear(&to_carol).await, 2);
    soon(to_bob.resume_by(Side::Remote, Value::Null)).await.unwrap();
    say(3).await;
    assert_eq!((bob.hear(&to_bob).await, carol.hear(&to_carol).await), (3, 3));

    // Bob's transport is closed; he takes another one with the same consumer.
    soon(bob.transport.close(Value::Null)).await.unwrap();
    assert!(!to_bob.enabled() && !to_bob.closed());
    say(4).await;
    assert_eq!(carol.hear(&to_carol).await, 4);
    let other = Client::transport(&bob.peer, &bob.socket).await;
    soon(to_bob.enable(&other, EnableOptions::default())).await.unwrap();
    say(5).await;
    assert_eq!((bob.hear(&to_bob).await, carol.hear(&to_carol).await), (5, 5));

    // The producer is streamed elsewhere, too.
    let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let options = RtpStreamerOptions {
        remote_ip: [127, 0, 0, 1].into(),
        remote_port: elsewhere.local_addr().unwrap().port(),
        local_ip: None,
    };
    let streamer = soon(room.create_rtp_streamer(&producer, options)).await.unwrap();
    say(6).await;
    let mut buffer = [0; 2_000];
    let (len, from) = soon(elsewhere.recv_from(&mut buffer)).await.unwrap();
    assert_eq!((from, buffer[len - 1]), (address(streamer.transport()), 6));

    let dump = soon(bob.peer.dump()).await.unwrap();
    assert_eq!(
        (
            dump.transports.len(),
            dump.consumers.len(),
            dump.waiting_consumers.len()
        ),
        (1, 1, 0)
    );
    assert_eq!(dump.consumers[0].consumer, to_bob.id());
    let all = soon(server.dump()).await.unwrap();
    assert_eq!(all.workers[0].rooms[0].served.consumers.len(), 3);
    assert_eq!(soon(producer.dump()).await.unwrap().consumers.len(), 3);
    // Asked for alone, each says the same.
    let whole = soon(room.dump()).await.unwrap();
    for known in &whole.transports {
        let transport = server.transport(known.transport).unwrap();
        assert_eq!(&soon(transport.dump()).await.unwrap(), known);
    }
    assert_eq!(whole.producers, [soon(producer.dump()).await.unwrap()]);
    for known in &whole.consumers {
        let consumer = server.consumer(known.consumer).unwrap();
        assert_eq!(&soon(consumer.dump()).await.unwrap(), known);
    }

    // Alice leaves, and with her what she said.
    soon(alice.peer.leave(Value::Null)).await.unwrap();
    assert!(to_bob.closed() && to_carol.closed() && streamer.closed());
    let mut events = server.events();
    while !streamer.transport().closed() {
        soon(events.next()).await.unwrap();
    }
    let left = soon(room.dump()).await.unwrap();
    assert!(left.producers.is_empty() && left.consumers.is_empty());
    assert_eq!(left.transports.len(), 2);
    soon(server.close()).await;
}

/// As large as rooms get: fifty send sound and pictures to each other, everything enabled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_peers_receive_from_each_other() {
    let server = Server::start(settings(1)).await.unwrap();
    let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
    let begun = tokio::time::Instant::now();
    let peers: Vec<Peer> = (0..50)
        .map(|index| {
            let options = PeerOptions::new(format!("peer {index}"), room.rtp_capabilities().clone());
            room.create_peer(options).unwrap()
        })
        .collect();
    let camera = || {
        let parameters = RtpParameters {
            codecs: vec![RtpCodec::new(CodecName::Vp8, 96)],
            encodings: vec![RtpEncoding::ssrc(2)],
            ..RtpParameters::default()
        };
        ProducerOptions::new(MediaKind::Video, parameters)
    };
    let all = peers.iter().map(|peer| async move {
        let transport = peer
            .create_plain_transport(PlainTransportOptions::default(), None)
            .await;
        let transport = transport.unwrap();
        let (sound, pictures) = tokio::join!(transport.produce(microphone()), transport.produce(camera()));
        sound.unwrap();
        pictures.unwrap();
        transport
    });
    let transports = soon(join_all(all)).await;
    let enabled = peers.iter().zip(&transports).map(|(peer, transport)| async move {
        let consumers = peer.consumers();
        assert_eq!(consumers.len(), 98);
        let enabled = consumers
            .iter()
            .map(|consumer| consumer.enable(transport, EnableOptions::default()));
        join_all(enabled).await.into_iter().collect::<Result<Vec<()>, _>>()
    });
    for result in soon(join_all(enabled)).await {
        result.unwrap();
    }
    println!("4,900 consumers in {:?}", begun.elapsed());
    let dump = soon(room.dump()).await.unwrap();
    assert_eq!(
        (dump.transports.len(), dump.producers.len(), dump.consumers.len()),
        (50, 100, 4_900)
    );
    for result in soon(join_all(peers.iter().map(|peer| peer.close(Value::Null)))).await {
        result.unwrap();
    }
    let left = soon(room.dump()).await.unwrap();
    assert_eq!(
        (left.transports.len(), left.producers.len(), left.consumers.len()),
        (0, 0, 0)
    );
    soon(server.close()).await;
}
