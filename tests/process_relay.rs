//! Packets through a real worker, set up and steered through the library.

#![allow(clippy::unwrap_used, reason = "tests")]

mod loopback;
mod processes;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::Value;
use tokio::net::UdpSocket;
use weir::{
    CodecName, Consumer, ConsumerOptions, ConsumerRtp, Counts, DropReason, EventKind, Family, MediaKind,
    PlainTransportOptions, Producer, ProducerOptions, Remote, Room, RoomOptions, RtpCodec, RtpEncoding, RtpParameters,
    Server, Settings, Transport, UnroutedReason,
};

use processes::{settings, soon};

const SSRC: u32 = 0x5eed;

/// An opus packet, as small as one can be.
fn packet(seq: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend(seq.to_be_bytes());
    packet.extend((u32::from(seq) * 960).to_be_bytes());
    packet.extend(SSRC.to_be_bytes());
    packet.extend([0xf8, 0xff, 0xfe, seq as u8]);
    packet
}

/// One microphone that sends to a room, one receiver that hears it.
struct Call {
    server: Server,
    room: Room,
    microphone: UdpSocket,
    sending: Transport,
    producer: Producer,
    receiver: UdpSocket,
    receiving: Transport,
    consumer: Consumer,
}

impl Call {
    async fn start(ip: IpAddr) -> Self {
        let server = Server::start(Settings {
            rtc_ipv6: Family::Address(Ipv6Addr::LOCALHOST.into()),
            ..settings(1)
        })
        .await
        .unwrap();
        let room = soon(server.create_room(RoomOptions::default())).await.unwrap();
        let microphone = UdpSocket::bind((ip, 0)).await.unwrap();
        let receiver = UdpSocket::bind((ip, 0)).await.unwrap();
        let sending = PlainTransportOptions {
            comedia: true,
            local_ip: Some(ip.into()),
            ..PlainTransportOptions::default()
        };
        let sending = soon(room.create_plain_transport(sending)).await.unwrap();
        let receiving = PlainTransportOptions {
            remote: Some(Remote {
                rtp: receiver.local_addr().unwrap(),
                rtcp: None,
            }),
            ..PlainTransportOptions::default()
        };
        let receiving = soon(room.create_plain_transport(receiving)).await.unwrap();
        let parameters = RtpParameters {
            codecs: vec![RtpCodec::new(CodecName::Opus, 111)],
            encodings: vec![RtpEncoding::ssrc(SSRC)],
            ..RtpParameters::default()
        };
        let producer = soon(sending.produce(ProducerOptions::new(MediaKind::Audio, parameters)))
            .await
            .unwrap();
        let options = ConsumerOptions {
            rtp: ConsumerRtp {
                payload_types: [(111, 100)].into(),
                ..ConsumerRtp::default()
            },
            ..ConsumerOptions::default()
        };
        let consumer = soon(receiving.consume(&producer, options)).await.unwrap();
        Self {
            server,
            room,
            microphone,
            sending,
            producer,
            receiver,
            receiving,
            consumer,
        }
    }

    async fn say(&self, seqs: impl IntoIterator<Item = u16>) {
        for seq in seqs {
            self.microphone
                .send_to(&packet(seq), address(&self.sending))
                .await
                .unwrap();
        }
    }

    /// The next packet the receiver gets: sequence number, and the last byte, which tells which one it was. It must look
    /// as the consumer's parameters say.
    async fn hear(&self) -> (u16, u8) {
        let mut buffer = [0; 2_000];
        let (len, from) = soon(self.receiver.recv_from(&mut buffer)).await.unwrap();
        assert_eq!(from, address(&self.receiving));
        let expected = self.consumer.rtp_parameters();
        assert_eq!(buffer[1] & 0x7f, expected.codecs[0].payload_type);
        let ssrc = u32::from_be_bytes(buffer[8..12].try_into().unwrap());
        assert_eq!(Some(ssrc), expected.encodings[0].ssrc);
        (u16::from_be_bytes([buffer[2], buffer[3]]), buffer[len - 1])
    }

    /// Waits until the worker has dealt with this many packets for the consumer, and says why it dropped how many.
    async fn dropped(&self, packets_in: u64) -> Counts<DropReason> {
        loop {
            let stats = soon(self.consumer.stats()).await.unwrap();
            assert!(stats.packets_in <= packets_in, "{stats:?}");
            if stats.packets_in == packets_in {
                let dropped: u64 = stats.dropped.iter().map(|(_, count)| count).sum();
                assert_eq!(stats.packets_in, stats.packets_forwarded + dropped);
                return stats.dropped;
            }
        }
    }
}

fn address(transport: &Transport) -> SocketAddr {
    let tuple = transport.tuple();
    SocketAddr::new(tuple.bound_ip, tuple.local_port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_learned_remote_sends_is_heard_and_strangers_are_not() {
    for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let call = Call::start(ip).await;
        let mut events = call.server.events();
        call.say([1]).await;
        let (seq, which) = call.hear().await;
        assert_eq!(which, 1);
        let remote = call.microphone.local_addr().unwrap();
        loop {
            let event = soon(events.next()).await.unwrap();
            if let EventKind::RemoteLearned { remote: learned, .. } = &event.kind {
                assert_eq!(learned.rtp, remote);
                break;
            }
        }
        assert_eq!(call.sending.tuple().remote, Some(remote));

        let stranger = UdpSocket::bind((ip, 0)).await.unwrap();
        for seq in 2..12 {
            stranger.send_to(&packet(seq), address(&call.sending)).await.unwrap();
        }
        call.say([2]).await;
        assert_eq!(call.hear().await, (seq.wrapping_add(1), 2));
        let foreign = soon(async {
            loop {
                let stats = call.sending.stats().await.unwrap();
                let foreign = stats
                    .unrouted
                    .iter()
                    .find(|(reason, _)| *reason == UnroutedReason::ForeignSource);
                match foreign {
                    Some((_, 10)) => return stats,
                    _ => tokio::task::yield_now().await,
                }
            }
        });
        assert_eq!(foreign.await.packets_received, 2);
        assert_eq!(call.dropped(2).await, []);
        soon(call.server.close()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_heard_while_paused_and_every_packet_is_accounted_for() {
    let call = Call::start(Ipv4Addr::LOCALHOST.into()).await;
    call.say([1]).await;
    let (first, _) = call.hear().await;

    soon(call.producer.pause(Value::Null)).await.unwrap();
    call.say(2..12).await;
    assert_eq!(call.dropped(11).await, [(DropReason::ProducerPaused, 10)]);
    soon(call.consumer.pause(Value::Null)).await.unwrap();
    soon(call.producer.resume(Value::Null)).await.unwrap();
    call.say(12..17).await;
    let reasons = [(DropReason::ConsumerPaused, 5), (DropReason::ProducerPaused, 10)];
    assert_eq!(call.dropped(16).await, reasons);
    soon(call.consumer.resume(Value::Null)).await.unwrap();
    call.say([17]).await;
    assert_eq!(
        call.hear().await,
        (first.wrapping_add(1), 17),
        "no gap after the pauses"
    );

    // To another address, as when the receiver's network changes.
    let elsewhere = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let remote = Remote {
        rtp: elsewhere.local_addr().unwrap(),
        rtcp: None,
    };
    soon(call.receiving.set_remote(remote)).await.unwrap();
    call.say([18]).await;
    let mut buffer = [0; 100];
    let (_, from) = soon(elsewhere.recv_from(&mut buffer)).await.unwrap();
    assert_eq!((from, buffer[15]), (address(&call.receiving), 18));

    let stats = soon(call.room.stats()).await.unwrap();
    assert_eq!(
        (stats.transports.len(), stats.producers.len(), stats.consumers.len()),
        (2, 1, 1)
    );
    assert_eq!(stats.producers[0].streams[0].packets, 18);
    soon(call.server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_is_free_when_its_transport_is_closed_and_not_before() {
    let call = Call::start(Ipv4Addr::LOCALHOST.into()).await;
    let address = address(&call.sending);
    assert!(UdpSocket::bind(address).await.is_err());
    soon(call.sending.close(Value::Null)).await.unwrap();
    // The worker has closed its descriptors before it answered, and the supervisor its own before that was told.
    UdpSocket::bind(address).await.unwrap();
    assert!(call.producer.closed() && call.consumer.closed());
    soon(call.server.close()).await;
}
