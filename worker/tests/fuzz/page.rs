//! What a worker has left that had gone astray before it died.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{
    Codec, CodecName, ComediaPolicy, ConsumerRtx, CreateConsumer, CreatePlainTransport, CreateProducer, DropReason,
    Encoding, MediaKind, Method, Page as StatsPart, Profile, Remote, Reply, Scope,
};
use weir_worker::page::Page;
use weir_worker::page::layout::{Capacity, Table};
use weir_worker::page::memory::{HeapPage, Memory};
use weir_worker::page::predecessor::Predecessor;
use weir_worker::relay::Relay;
use weir_worker::relay::datagram::Datagram;
use weir_worker::relay::limits::Limits;
use weir_worker::relay::sink::{ConsumerIx, Port, Sent, Sink, TransportIx};
use weir_worker::time::Time;

const ROOM: RoomId = RoomId(1);
const SENDER: TransportId = TransportId(2);
const RECEIVER: TransportId = TransportId(3);

struct Nowhere;

impl Sink for Nowhere {
    fn send(&mut self, _: TransportIx, _: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        Sent::all(train.len().div_ceil(segment.max(1)))
    }

    fn gather(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        self.send(transport, owner, train, segment)
    }

    fn send_rtcp(&mut self, _: TransportIx, _: &[u8]) {}

    fn resend(&mut self, _: TransportIx, _: &[u8]) -> bool {
        let _ = DropReason::ALL;
        true
    }
}

fn remote(port: u16) -> Option<Remote> {
    Some(Remote {
        rtp: ([10, 0, 0, 1], port).into(),
        rtcp: None,
    })
}

fn commands() -> Vec<Method> {
    let transport = |transport, port| {
        Method::CreatePlainTransport(CreatePlainTransport {
            room: ROOM,
            transport,
            remote: if port == 0 { None } else { remote(port) },
            comedia: port == 0,
            rtcp_mux: true,
            comedia_policy: ComediaPolicy::default(),
            comedia_from: None,
        })
    };
    let codec = Codec {
        payload_type: 96,
        name: CodecName::Vp8,
        clock_rate: 90_000,
        pli: true,
        fir: true,
        nack: true,
        remb: false,
        rtx: None,
    };
    let consumer = |id: u64, rtx: bool| {
        Method::CreateConsumer(CreateConsumer {
            room: ROOM,
            transport: RECEIVER,
            producer: ProducerId(4),
            consumer: ConsumerId(id),
            ssrc: id as u32 * 2,
            payload_types: vec![(96, 96)],
            header_extensions: Vec::new(),
            preferred_profile: Profile::Default,
            paused: false,
            nack: true,
            rtx: rtx.then(|| ConsumerRtx {
                ssrc: id as u32 * 2 + 1,
                payload_types: vec![(96, 97)],
            }),
            cname: "x".to_owned(),
            cname_is_made_up: false,
            lasting_cname: None,
        })
    };
    vec![
        Method::CreateRouter { room: ROOM },
        transport(SENDER, 0),
        transport(RECEIVER, 5_000),
        Method::CreateProducer(CreateProducer {
            room: ROOM,
            transport: SENDER,
            producer: ProducerId(4),
            kind: MediaKind::Video,
            mid: None,
            codecs: vec![codec],
            encodings: vec![Encoding {
                ssrc: None,
                rid: None,
                profile: Profile::Default,
                rtx_ssrc: None,
            }],
            header_extensions: Vec::new(),
            preferred_profile: Profile::Default,
            paused: false,
            reduced_size: true,
        }),
        consumer(50, true),
        consumer(51, false),
    ]
}

/// Some packets of a camera, a NACK for them, and what time brings.
fn live(relay: &mut Relay, now: &mut Time, from: u16) {
    let sender = relay.transport_index(SENDER);
    let receiver = relay.transport_index(RECEIVER);
    for seq in (0..8).map(|offset| from.wrapping_add(offset)) {
        let mut packet = vec![0x80, 96];
        packet.extend_from_slice(&seq.to_be_bytes());
        packet.extend_from_slice(&(u32::from(seq) * 3_000).to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 9]);
        // VP8 with ids, a key frame now and then (RFC 7741 §4.2).
        let inter = u8::from(seq % 4 != 0);
        packet.extend_from_slice(&[
            0x90,
            0xe0,
            0x80 | (seq >> 8) as u8 & 0x7f,
            seq as u8,
            seq as u8,
            0x20,
            inter,
            0,
            0,
            0x9d,
            1,
            0x2a,
            0,
            1,
            0,
            1,
        ]);
        deliver(relay, *now, sender, ([10, 0, 0, 1], 4_000).into(), packet);
        *now = *now + std::time::Duration::from_millis(30);
        relay.handle_timeout(*now, &mut Nowhere);
        relay.keep_positions();
    }
    for ssrc in [100_u32, 102] {
        let mut nack = vec![0x81, 205, 0, 3, 0, 0, 0, 1];
        nack.extend_from_slice(&ssrc.to_be_bytes());
        nack.extend_from_slice(&[0, 1, 0xff, 0xff]);
        deliver(relay, *now, receiver, ([10, 0, 0, 1], 5_000).into(), nack);
    }
    let scope = Scope::Room {
        room: ROOM,
        page: StatsPart::default(),
    };
    let _ = relay.handle_command(*now, &Method::Stats(scope));
    while relay.poll_notification().is_some() || relay.poll_action().is_some() {}
}

/// What came for the first consumer, what was sent to it, and what its sender's transport has got.
fn counted(relay: &mut Relay, now: Time) -> (u64, u64, u64) {
    let page = StatsPart::default();
    let stats = relay.handle_command(now, &Method::Stats(Scope::Room { room: ROOM, page }));
    let Ok(Reply::Stats(stats)) = stats else {
        panic!("{stats:?}");
    };
    let (consumer, transport) = (&stats.consumers[0], &stats.transports[0]);
    assert!(consumer.packets_in > 0, "{stats:?}");
    (
        consumer.packets_in,
        consumer.packets_forwarded,
        transport.packets_received,
    )
}

fn deliver(relay: &mut Relay, now: Time, to: Option<TransportIx>, source: std::net::SocketAddr, mut packet: Vec<u8>) {
    let Some(to) = to else { return };
    let datagram = Datagram {
        start: 0,
        len: packet.len() as u32,
        segment: 0,
        source,
    };
    relay.handle_datagrams(now, to, Port::Rtp, &mut packet, &[datagram], &mut Nowhere);
    relay.keep_positions();
}

/// Any words over what a worker has kept: the successor refuses what it does not believe, and lives with the rest. Each ten bytes
/// are a place and what is written there; the highest bit of the place: the checksums are made right again.
pub(crate) fn page(data: &[u8]) {
    let left = HeapPage::new(Capacity::SIMULATION.words());
    let mut relay = Relay::new(Limits::default(), 1);
    relay.set_page(Page::new(Memory::heap(left.clone()), Capacity::SIMULATION, 1));
    let mut now = Time::from_millis(1_000);
    for method in &commands() {
        relay.handle_command(now, method).expect("it is not refused");
    }
    live(&mut relay, &mut now, 65_530);

    let before = counted(&mut relay, now);

    // Where something is: the header, and the first slots of each table.
    let tables = [Table::Consumers, Table::Streams, Table::Transports];
    let words: Vec<usize> = (0..32)
        .chain(tables.into_iter().flat_map(|table| {
            let base = Capacity::SIMULATION.base(table);
            base..base + 2 * table.slot_words()
        }))
        .collect();
    for edit in data.chunks_exact(10) {
        let place = u16::from_le_bytes([edit[0], edit[1]]);
        let value = edit[2..].iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let word = words[usize::from(place & 0x7fff) % words.len()];
        (*left).as_ref()[word].store(value, Ordering::Relaxed);
        if place & 0x8000 != 0 {
            Page::mend(&left, Capacity::SIMULATION);
        }
    }

    let Ok(predecessor) = Predecessor::open(left) else {
        return;
    };
    let predecessor = Arc::new(predecessor);
    let mut relay = Relay::new(Limits::default(), 2);
    let own = HeapPage::new(Capacity::SIMULATION.words());
    relay.set_page(Page::new(Memory::heap(own), Capacity::SIMULATION, 1));
    relay.begin_adoption(ROOM, vec![predecessor]);
    for method in &commands() {
        let made = relay.handle_command(now, method);
        assert!(made.is_ok() || !data.is_empty(), "{method:?}: {made:?}");
    }
    relay.end_adoption(ROOM);
    if data.is_empty() {
        assert_eq!(counted(&mut relay, now), before, "what was counted is counted still");
    }
    for round in 0..3 {
        live(&mut relay, &mut now, 65_538_u32.wrapping_add(round * 8) as u16);
    }
}

#[test]
fn pages_of_workers_that_went_astray() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        seed = seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
        seed >> 32
    };
    page(&[]);
    for round in 0..2_000 {
        let edits = 1 + random() % 6;
        let mut data = Vec::new();
        for _ in 0..edits {
            let mend = if round % 2 == 0 { 0x8000 } else { 0 };
            data.extend_from_slice(&((random() as u16 & 0x7fff) | mend).to_le_bytes());
            let value = match random() % 6 {
                0 => u64::MAX,
                1 => 0,
                2 => 1 << (random() % 64),
                3 => random() & 0xff,
                4 => (1 << 63) | random(),
                _ => random() << 32 | random(),
            };
            data.extend_from_slice(&value.to_be_bytes());
        }
        page(&data);
    }
}
