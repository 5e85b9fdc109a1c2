//! What objects take, and that they give it back.
#![allow(dead_code, reason = "the clients can do more than is needed here")]
#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

#[path = "../../tests/allocator/mod.rs"]
mod allocator;
#[path = "net_webrtc/client.rs"]
mod client;
mod loopback;
#[path = "net_webrtc/room.rs"]
mod room;
mod sim;
mod supervisor;

use std::sync::Mutex;
use std::sync::atomic::Ordering;

use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::{
    Codec, CodecName, ConsumerRtx, CreateConsumer, CreateProducer, Encoding, Method, Profile, Reply,
};

use allocator::{BYTES, IS_OUTSIDE, OWN_BYTES};
use client::{Arrived, Client};
use loopback::Peer;
use room::{connected_client, plain_transport, room, stats};
use sim::Sim;
use supervisor::{ROOM, Supervisor, rtp, ssrc_of};

/// One test at a time: the bytes are everybody's.
static TURN: Mutex<()> = Mutex::new(());

/// What a producer takes that has lost nothing, in bytes, from `edit`ed requests.
fn bytes_of_a_producer(profiles: &[Profile], codec: CodecName) -> i64 {
    // One short of a power of two: what lists and tables keep in reserve is then least, and the same for all.
    const TRANSPORTS: usize = 8;
    const EACH: usize = 127;
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let mut sim = Sim::new(1);
    let room = sim.room();
    let transports: Vec<_> = (0..TRANSPORTS).map(|_| sim.transport(room)).collect();
    let mut bytes = 0;
    for transport in transports {
        for place in 0..EACH {
            let before = OWN_BYTES.get();
            let request = CreateProducer {
                room,
                transport,
                producer: ProducerId(sim.id()),
                kind: codec.kind(),
                mid: Some(format!("mid{place}")),
                codecs: vec![Codec {
                    nack: true,
                    ..sim::track::codec(codec)
                }],
                encodings: profiles
                    .iter()
                    .map(|profile| Encoding {
                        ssrc: Some(sim.stream_number()),
                        rid: None,
                        profile: *profile,
                        rtx_ssrc: None,
                    })
                    .collect(),
                header_extensions: vec![],
                preferred_profile: Profile::Default,
                paused: false,
                reduced_size: true,
            };
            let created = sim.relay.handle_command(sim.now, &Method::CreateProducer(request));
            assert_eq!(created, Ok(Reply::Done));
            bytes += OWN_BYTES.get() - before;
        }
    }
    bytes / (TRANSPORTS * EACH) as i64
}

#[test]
fn an_audio_producer_that_loses_nothing_takes_four_kilobytes_at_most() {
    let bytes = bytes_of_a_producer(&[Profile::Default], CodecName::Opus);
    assert!(bytes <= 4_000, "{bytes} bytes");
}

#[test]
fn a_video_producer_that_loses_nothing_takes_ten_kilobytes_at_most() {
    let layers = [Profile::Low, Profile::Medium, Profile::High];
    let bytes = bytes_of_a_producer(&layers, CodecName::Vp8);
    assert!(bytes <= 10 << 10, "{bytes} bytes with three layers");
    let bytes = bytes_of_a_producer(&[Profile::Default], CodecName::H264);
    assert!(bytes <= 4_000, "{bytes} bytes with one");
}

const TIMES: u64 = 5_000;

/// What stays of an SSRC that was sent under, until its transport is closed: how far its packet indices are used (RFC 3711
/// §9.1), at the relay and in the sender's SRTP.
const BYTES_OF_A_SENT_SSRC: i64 = 80;

/// What stays of an SSRC that was received: the same, for what comes again (RFC 3711 §3.3.2).
const BYTES_OF_A_RECEIVED_SSRC: i64 = 40;

/// For what is no SSRC's: lists that have once been longer, notifications, log lines.
const SLACK: i64 = 64 << 10;

struct Call {
    supervisor: Supervisor,
    plain: Peer,
    address: std::net::SocketAddr,
    client: Client,
    sent: u16,
}

impl Call {
    fn new() -> Self {
        let mut supervisor = room();
        let plain = Peer::new();
        let address = plain_transport(&mut supervisor, 1, &plain);
        let client = connected_client(&mut supervisor, 2);
        Self {
            supervisor,
            plain,
            address,
            client,
            sent: 0,
        }
    }

    /// A consumer of the plain peer that is sent a packet, asks for it again, and is closed.
    fn consume(&mut self, consumer: u64, ssrc: u32, rtx: Option<u32>) {
        let request = CreateConsumer {
            room: ROOM,
            transport: TransportId(2),
            producer: ProducerId(1),
            consumer: ConsumerId(consumer),
            ssrc,
            payload_types: vec![(111, 96)],
            header_extensions: vec![],
            preferred_profile: Profile::Default,
            paused: false,
            nack: true,
            rtx: rtx.map(|ssrc| ConsumerRtx {
                ssrc,
                payload_types: vec![(96, 97)],
            }),
            cname: "weir".to_owned(),
            cname_is_made_up: true,
            lasting_cname: None,
        };
        let created = Reply::ConsumerCreated { source_paused: false };
        assert_eq!(self.supervisor.request(Method::CreateConsumer(request)), Ok(created));
        self.plain
            .send_to(self.address, &rtp(0xcccc, self.sent, b"for somebody"));
        self.sent = self.sent.wrapping_add(1);
        let heard = self.hear(ssrc);
        let nack = [
            &[0x81, 205, 0, 3][..],
            &7_u32.to_be_bytes(),
            &ssrc.to_be_bytes(),
            &heard[2..4],
            &[0, 0],
        ];
        let protected = self.client.protect_rtcp(&nack.concat());
        self.client.send(&protected);
        self.hear(rtx.unwrap_or(ssrc));
        let consumer = ConsumerId(consumer);
        assert_eq!(
            self.supervisor.request(Method::CloseConsumer { consumer }),
            Ok(Reply::Done)
        );
        self.supervisor.notifications.clear();
    }

    fn hear(&mut self, ssrc: u32) -> Vec<u8> {
        self.client.receive(|arrived| match arrived {
            Arrived::Rtp(packet) if ssrc_of(packet) == ssrc => Some(packet.clone()),
            _ => None,
        })
    }

    /// A producer of the client's that sends a packet and a report, and is closed.
    fn produce(&mut self, producer: u64, ssrc: u32) {
        self.supervisor.create_producer(producer, 2, ssrc);
        let before = stats(&mut self.supervisor, 2).packets_received;
        self.client.send_rtp(&rtp(ssrc, 1, b"for nobody"));
        let report = [&[0x80, 201, 0, 1][..], &ssrc.to_be_bytes()].concat();
        let protected = self.client.protect_rtcp(&report);
        self.client.send(&protected);
        while stats(&mut self.supervisor, 2).packets_received < before + 2 {}
        let producer = ProducerId(producer);
        assert_eq!(
            self.supervisor.request(Method::CloseProducer { producer }),
            Ok(Reply::Done)
        );
        self.supervisor.notifications.clear();
        self.client.step();
    }
}

#[test]
fn consumers_and_producers_by_the_thousand_leave_a_number_per_ssrc_behind() {
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    IS_OUTSIDE.set(true);
    let mut call = Call::new();
    call.supervisor.create_producer(1, 1, 0xcccc);
    for first in 1..=100 {
        call.consume(first, first as u32, Some(first as u32 | 1 << 16));
        call.produce(first + 1, first as u32 | 1 << 17);
    }
    let before = BYTES.load(Ordering::Relaxed);
    for next in 1_000..1_000 + TIMES {
        let ssrc = next as u32;
        // Half of them have no RTX.
        call.consume(next, ssrc, (next % 2 == 0).then_some(ssrc | 1 << 16));
    }
    let sent = BYTES.load(Ordering::Relaxed) - before;
    for next in 1_000..1_000 + TIMES {
        call.produce(next, next as u32 | 1 << 17);
    }
    let received = BYTES.load(Ordering::Relaxed) - before - sent;
    let (times, sent_ssrcs) = (TIMES as i64, TIMES as i64 * 3 / 2);
    println!(
        "{} bytes of each SSRC sent, {} of each received",
        sent / sent_ssrcs,
        received / times
    );
    assert!(
        sent <= sent_ssrcs * BYTES_OF_A_SENT_SSRC + SLACK,
        "{sent} bytes of {sent_ssrcs} SSRCs that were sent"
    );
    assert!(
        received <= times * 2 * BYTES_OF_A_RECEIVED_SSRC + SLACK,
        "{received} bytes of {times} SSRCs that were received"
    );
    // And with the transport, everything goes.
    let transport = TransportId(2);
    let closed = call.supervisor.request(Method::CloseTransport { transport });
    assert_eq!(closed, Ok(Reply::Done));
    let _ = call.supervisor.stats();
    let left = BYTES.load(Ordering::Relaxed) - before;
    assert!(left <= SLACK, "{left} bytes");
}
