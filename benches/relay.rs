//! What the relay core costs per forwarded packet, without a kernel: one producer, many consumers, a sink that takes
//! everything.
//!
//! `cargo bench --bench relay`, with `-- --instructions` to count instructions as well, or `-- --cache` cache misses too; see
//! `common`.

mod common;
#[path = "common/rooms.rs"]
mod rooms;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use common::Case;
use rooms::Rooms;
use weir_channel::frame;
use weir_channel::id::{ConsumerId, ProducerId, RequestId, RoomId, TransportId};
use weir_channel::message::{
    Codec, CodecName, ComediaPolicy, ConsumerRtx, CreateConsumer, CreatePlainTransport, CreateProducer, Encoding,
    MediaKind, Message, Method, Page as CounterPage, Profile, Remote, Reply, Response, Scope,
};
use weir_worker::page::Page;
use weir_worker::page::layout::Capacity;
use weir_worker::page::memory::Memory;
use weir_worker::relay::Relay;
use weir_worker::relay::datagram::Datagram;
use weir_worker::relay::limits::Limits;
use weir_worker::relay::sink::{ConsumerIx, Port, Sent, Sink, TransportIx};
use weir_worker::time::Time;

const PACKET: usize = 1_200;

/// Takes everything and does nothing.
struct Null;

impl Sink for Null {
    fn send(&mut self, _: TransportIx, _: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        Sent::all(std::hint::black_box(train).len().div_ceil(segment))
    }

    fn gather(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        self.send(transport, owner, train, segment)
    }

    fn send_rtcp(&mut self, _: TransportIx, _: &[u8]) {}

    fn resend(&mut self, _: TransportIx, packet: &[u8]) -> bool {
        !std::hint::black_box(packet).is_empty()
    }
}

/// A relay with one VP8 producer of `layers` streams, and its consumers.
struct Fixture {
    relay: Relay,
    sender: TransportIx,
    bytes: Vec<u8>,
    burst: usize,
    layers: u32,
    frame: u64,
    now: Time,
    /// A consumer goes over to another layer this often.
    switching: bool,
    consumers: u64,
}

impl Fixture {
    /// With `nack`, packets are kept to be sent again, and consumers are ready to ask for them.
    fn new(consumers: u64, paused: u64, burst: usize, layers: u32, nack: bool) -> Self {
        Self::keeping(Page::nowhere(), consumers, paused, burst, layers, nack)
    }

    /// As [`Fixture::new`], with a page in which is kept what a successor would need.
    fn keeping(page: Page, consumers: u64, paused: u64, burst: usize, layers: u32, nack: bool) -> Self {
        let mut relay = Relay::new(Limits::default(), 1);
        relay.set_page(page);
        let transport = |id: u64| {
            Method::CreatePlainTransport(CreatePlainTransport {
                room: RoomId(1),
                transport: TransportId(id),
                remote: Some(Remote {
                    rtp: SocketAddr::from(([127, 0, 0, 1], 5_000)),
                    rtcp: None,
                }),
                comedia: false,
                rtcp_mux: true,
                comedia_policy: ComediaPolicy::default(),
                comedia_from: None,
            })
        };
        let profiles = if layers == 1 {
            vec![Profile::Default]
        } else {
            vec![Profile::Low, Profile::High]
        };
        let producer = Method::CreateProducer(CreateProducer {
            room: RoomId(1),
            transport: TransportId(0),
            producer: ProducerId(1),
            kind: MediaKind::Video,
            mid: None,
            codecs: vec![Codec {
                payload_type: 96,
                name: CodecName::Vp8,
                clock_rate: 90_000,
                pli: true,
                fir: true,
                nack,
                remb: false,
                rtx: nack.then_some(97),
            }],
            encodings: (0..layers)
                .zip(profiles)
                .map(|(layer, profile)| Encoding {
                    ssrc: Some(1 + layer),
                    rid: None,
                    profile,
                    rtx_ssrc: None,
                })
                .collect(),
            header_extensions: Vec::new(),
            reduced_size: true,
            preferred_profile: Profile::Default,
            paused: false,
        });
        let mut methods = vec![Method::CreateRouter { room: RoomId(1) }, transport(0), producer];
        for consumer in 0..consumers {
            methods.push(transport(1 + consumer));
            methods.push(Method::CreateConsumer(CreateConsumer {
                room: RoomId(1),
                transport: TransportId(1 + consumer),
                producer: ProducerId(1),
                consumer: ConsumerId(consumer),
                ssrc: 77,
                payload_types: vec![(96, 101)],
                header_extensions: Vec::new(),
                preferred_profile: Profile::Default,
                paused: consumer < paused,
                nack,
                rtx: nack.then(|| ConsumerRtx {
                    ssrc: 78,
                    payload_types: vec![(101, 102)],
                }),
                cname: "weir".to_owned(),
                cname_is_made_up: false,
                lasting_cname: None,
            }));
        }
        for method in &methods {
            relay
                .handle_command(Time::default(), method)
                .expect("a fixture is valid");
        }
        let sender = relay.transport_index(TransportId(0)).expect("the sender's transport");
        let mut fixture = Self {
            relay,
            sender,
            bytes: vec![0; burst * PACKET],
            burst,
            layers,
            frame: 0,
            now: Time::from_millis(1),
            switching: false,
            consumers,
        };
        fixture.pass(); // a key frame: everybody starts
        fixture
    }

    /// Reads all counters of the room.
    fn read_stats(&mut self) {
        let mut page = CounterPage::default();
        loop {
            let method = Method::Stats(Scope::Room { room: RoomId(1), page });
            let result = self.relay.handle_command(self.now, &method);
            let Ok(Reply::Stats(stats)) = &result else {
                unreachable!("the room exists");
            };
            page.cursor = stats.next;
            let id = RequestId(1);
            std::hint::black_box(frame::encode(&Message::Response(Response { id, result })).expect("a page fits"));
            if page.cursor.is_none() {
                return;
            }
        }
    }

    /// A frame of each layer.
    fn pass(&mut self) {
        if self.switching {
            let consumer = ConsumerId(self.frame % self.consumers);
            let profile = if (self.frame / self.consumers).is_multiple_of(2) {
                Profile::Low
            } else {
                Profile::High
            };
            let method = Method::SetConsumerPreferredProfile { consumer, profile };
            self.relay
                .handle_command(self.now, &method)
                .expect("the consumer exists");
        }
        for layer in 0..self.layers {
            self.write_frame(1 + layer);
            let datagram = Datagram {
                start: 0,
                len: self.bytes.len() as u32,
                segment: PACKET as u32,
                source: SocketAddr::from(([127, 0, 0, 1], 5_000)),
            };
            self.relay.handle_datagrams(
                self.now,
                self.sender,
                Port::Rtp,
                &mut self.bytes,
                &[datagram],
                &mut Null,
            );
        }
        self.relay.handle_timeout(self.now, &mut Null);
        while self.relay.poll_notification().is_some() {}
        self.frame += 1;
        self.now = self.now + Duration::from_millis(33);
    }

    fn write_frame(&mut self, ssrc: u32) {
        let key_frame = self.frame == 0 || self.switching;
        for (index, packet) in self.bytes.chunks_mut(PACKET).enumerate() {
            let seq = self.frame * self.burst as u64 + index as u64;
            let picture_id = (self.frame as u16 | 0x8000).to_be_bytes();
            packet[..2].copy_from_slice(&[0x80, 96]);
            packet[2..4].copy_from_slice(&(seq as u16).to_be_bytes());
            packet[4..8].copy_from_slice(&((self.frame * 3_000) as u32).to_be_bytes());
            packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
            let start = if index == 0 { 0x90 } else { 0x80 };
            let delta = u8::from(!key_frame);
            packet[12..18].copy_from_slice(&[start, 0xc0, picture_id[0], picture_id[1], self.frame as u8, delta]);
        }
    }
}

/// A page for what the fixtures have, in memory that stays.
fn page() -> Page {
    let capacity = Capacity([8_192, 4_096, 2_048, 0, 0]);
    let words: Vec<AtomicU64> = (0..capacity.words()).map(|_| AtomicU64::new(0)).collect();
    Page::new(Memory::mapped(words.leak()), capacity, 1)
}

fn case(name: &'static str, consumers: u64, paused: u64, burst: usize) -> Case {
    case_with(name, consumers, paused, burst, false)
}

fn case_with(name: &'static str, consumers: u64, paused: u64, burst: usize, nack: bool) -> Case {
    // An operation is a forwarded packet; a pass is a frame.
    let forwarded = (consumers - paused) as usize * burst;
    Case::new(name, forwarded, move || {
        let mut fixture = Fixture::new(consumers, paused, burst, 1, nack);
        move || fixture.pass()
    })
}

fn main() -> ExitCode {
    let mut cases = vec![
        case("1_burst_1", 1, 0, 1),
        case("1_burst_8", 1, 0, 8),
        case("10_burst_1", 10, 0, 1),
        case("10_burst_8", 10, 0, 8),
        case("100_burst_1", 100, 0, 1),
        case("100_burst_8", 100, 0, 8),
        case("100_burst_16", 100, 0, 16),
        case("100_burst_8_half_paused", 100, 50, 8),
        case("1000_burst_1", 1_000, 0, 1),
        case("1000_burst_8", 1_000, 0, 8),
        case("5000_burst_8", 5_000, 0, 8),
        case_with("1_burst_8_nack", 1, 0, 8, true),
        case_with("100_burst_1_nack", 100, 0, 1, true),
        case_with("100_burst_8_nack", 100, 0, 8, true),
        case_with("1000_burst_8_nack", 1_000, 0, 8, true),
    ];
    // The same with a page, as workers have it.
    for (name, consumers, burst, nack) in [
        ("1_burst_1_page", 1, 1, false),
        ("1_burst_8_page", 1, 8, false),
        ("10_burst_8_page", 10, 8, false),
        ("100_burst_1_page", 100, 1, false),
        ("100_burst_8_page", 100, 8, false),
        ("1000_burst_1_page", 1_000, 1, false),
        ("1000_burst_8_page", 1_000, 8, false),
        ("100_burst_8_nack_page", 100, 8, true),
    ] {
        cases.push(Case::new(name, consumers as usize * burst, move || {
            let mut fixture = Fixture::keeping(page(), consumers, 0, burst, 1, nack);
            move || fixture.pass()
        }));
    }
    // Two layers, and with every frame one of the hundred goes over to the other.
    cases.push(Case::new("100_burst_8_switching", 800, || {
        let mut fixture = Fixture::new(100, 0, 8, 2, false);
        fixture.switching = true;
        move || fixture.pass()
    }));
    // In turns, so that nothing of a peer is in the near caches any more when its next packet comes.
    for (name, is_browser, has_page) in [
        ("rooms_200_of_4", false, false),
        ("rooms_200_of_4_browsers", true, false),
        ("rooms_200_of_4_page", false, true),
        ("rooms_200_of_4_browsers_page", true, true),
    ] {
        let case = Case::new(name, rooms::forwarded(200), move || {
            let page = if has_page { page() } else { Page::nowhere() };
            let mut fixture = Rooms::new(200, is_browser, page, Null);
            move || fixture.pass()
        });
        cases.push(case.counted_over([2, 12]));
    }
    // Not a packet but a consumer's counters, read and encoded in pages as they travel, its transport's with them.
    cases.push(Case::new("stats_of_1000", 1_000, || {
        let mut fixture = Fixture::new(1_000, 0, 8, 1, false);
        fixture.pass();
        move || fixture.read_stats()
    }));
    common::run("relay", "forwarded packet", &cases)
}
