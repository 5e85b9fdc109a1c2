//! After its objects are made, relaying allocates nothing: a million relayed packets with trains, joins, switches, pauses and
//! key frame requests, and not one allocation in `handle_datagrams` and `handle_timeout`. Commands may allocate; they are
//! not counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{
    Codec, CodecName, CreateConsumer, CreatePlainTransport, CreateProducer, Encoding, ExtensionUri, HeaderExtension,
    MediaKind, Method, Profile, Remote,
};
use weir_worker::relay::Relay;
use weir_worker::relay::datagram::Datagram;
use weir_worker::relay::limits::Limits;
use weir_worker::relay::sink::{ConsumerIx, Port, Sent, Sink, TransportIx};
use weir_worker::time::Time;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: hands every call on to the system's allocator unchanged.
#[expect(unsafe_code, reason = "an allocator cannot be written without")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is the system allocator's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts what it is given.
#[derive(Default)]
struct CountingSink {
    packets: u64,
    rtcp: u64,
}

impl Sink for CountingSink {
    fn send(&mut self, _: TransportIx, _: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        let packets = train.len().div_ceil(segment.max(1));
        self.packets += packets as u64;
        Sent::all(packets)
    }

    fn gather(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        self.send(transport, owner, train, segment)
    }

    fn send_rtcp(&mut self, _: TransportIx, _: &[u8]) {
        self.rtcp += 1;
    }
}

const SENDER: &str = "127.0.0.1:5000";
const LAYERS: [(u32, Profile, usize); 3] = [
    (11, Profile::Low, 300),
    (12, Profile::Medium, 700),
    (13, Profile::High, 1_200),
];
const CONSUMERS: u64 = 16;
const BURST: usize = 4;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn transport(id: u64, remote: SocketAddr) -> Method {
    Method::CreatePlainTransport(CreatePlainTransport {
        room: RoomId(1),
        transport: TransportId(id),
        remote: Some(Remote {
            rtp: remote,
            rtcp: None,
        }),
        comedia: false,
        rtcp_mux: true,
    })
}

/// A three-layer camera, and consumers of which two share a transport and one has other extension ids.
fn populate(relay: &mut Relay) -> TransportIx {
    let now = Time::default();
    let extension = |id, uri| HeaderExtension { id, uri };
    let mut methods = vec![
        Method::CreateRouter { room: RoomId(1) },
        transport(1, address(SENDER)),
        Method::CreateProducer(CreateProducer {
            room: RoomId(1),
            transport: TransportId(1),
            producer: ProducerId(1),
            kind: MediaKind::Video,
            mid: None,
            codecs: vec![Codec {
                payload_type: 96,
                name: CodecName::Vp8,
                clock_rate: 90_000,
                pli: true,
                fir: true,
            }],
            encodings: LAYERS
                .iter()
                .map(|(ssrc, profile, _)| Encoding {
                    ssrc: Some(*ssrc),
                    rid: None,
                    profile: *profile,
                })
                .collect(),
            header_extensions: vec![
                extension(3, ExtensionUri::VideoOrientation),
                extension(4, ExtensionUri::Mid),
            ],
            preferred_profile: Profile::Default,
            paused: false,
        }),
    ];
    for consumer in 0..CONSUMERS {
        let own_transport = 10 + consumer.min(CONSUMERS - 2);
        if consumer < CONSUMERS - 1 {
            methods.push(transport(
                own_transport,
                SocketAddr::from(([127, 0, 0, 1], 6_000 + consumer as u16)),
            ));
        }
        methods.push(Method::CreateConsumer(CreateConsumer {
            room: RoomId(1),
            transport: TransportId(own_transport),
            producer: ProducerId(1),
            consumer: ConsumerId(consumer),
            ssrc: 100 + consumer as u32,
            payload_types: vec![(96, 101)],
            header_extensions: vec![extension(
                if consumer == 0 { 9 } else { 3 },
                ExtensionUri::VideoOrientation,
            )],
            preferred_profile: [Profile::Default, Profile::Low, Profile::Medium][consumer as usize % 3],
            paused: false,
        }));
    }
    for method in methods {
        relay.handle_command(now, &method).expect("accepted");
    }
    relay.transport_index(TransportId(1)).expect("the sender's transport")
}

/// One frame of a layer: `BURST` packets with extensions and a VP8 descriptor.
fn write_frame(bytes: &mut [u8], ssrc: u32, len: usize, frame: u64, key_frame: bool) {
    for (index, packet) in bytes.chunks_mut(len).enumerate() {
        packet[..2].copy_from_slice(&[0x90, 96]);
        packet[2..4].copy_from_slice(&((frame * BURST as u64 + index as u64) as u16).to_be_bytes());
        packet[4..8].copy_from_slice(&((frame * 3_000) as u32).to_be_bytes());
        packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
        // RFC 8285 §4.2: two elements of one byte each, one to be relayed and one to be erased.
        packet[12..20].copy_from_slice(&[0xbe, 0xde, 0, 1, 0x30, 1, 0x40, b'v']);
        let picture_id = (frame as u16 & 0x7fff | 0x8000).to_be_bytes();
        packet[20..26].copy_from_slice(&[
            if index == 0 { 0x90 } else { 0x80 },
            0xc0,
            picture_id[0],
            picture_id[1],
            frame as u8,
            u8::from(!(key_frame && index == 0)),
        ]);
    }
}

#[test]
fn a_million_relayed_packets_allocate_nothing() {
    let mut relay = Relay::new(Limits::default(), 7);
    let sender = populate(&mut relay);
    let mut sink = CountingSink::default();
    let mut bytes = vec![0; 2 * BURST * 1_200];
    let mut now = Time::from_millis(1);
    let mut counted = 0;
    let mut frame = 0_u64;
    // The key frames and pauses of the first rounds are part of the count as well: nothing is warmed up.
    while sink.packets < 1_000_000 {
        let joined = frame.is_multiple_of(2);
        for (ssrc, _, len) in LAYERS {
            let total = BURST * len;
            write_frame(&mut bytes[..total], ssrc, len, frame, frame.is_multiple_of(50));
            // A train that the kernel has joined, or packets that arrived apart.
            let mut datagrams = [Datagram {
                start: 0,
                len: 0,
                segment: 1,
                source: address(SENDER),
            }; BURST];
            let datagrams: &[Datagram] = if joined {
                datagrams[0] = Datagram {
                    len: total as u32,
                    segment: len as u32,
                    ..datagrams[0]
                };
                &datagrams[..1]
            } else {
                for (index, datagram) in datagrams.iter_mut().enumerate() {
                    let start = ((BURST - 1 - index) * len) as u32;
                    *datagram = Datagram {
                        start,
                        len: len as u32,
                        segment: len as u32,
                        ..*datagram
                    };
                }
                &datagrams
            };
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            relay.handle_datagrams(now, sender, Port::Rtp, &mut bytes, datagrams, &mut sink);
            counted += ALLOCATIONS.load(Ordering::Relaxed) - before;
        }
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        relay.handle_timeout(now, &mut sink);
        while relay.poll_notification().is_some() {}
        while relay.poll_action().is_some() {}
        counted += ALLOCATIONS.load(Ordering::Relaxed) - before;

        let consumer = ConsumerId(frame % CONSUMERS);
        let method = match frame % 40 {
            3 => Method::PauseConsumer { consumer },
            9 => Method::ResumeConsumer {
                consumer: ConsumerId((frame - 6) % CONSUMERS),
            },
            15 => Method::SetConsumerPreferredProfile {
                consumer,
                profile: Profile::Low,
            },
            21 => Method::SetConsumerPreferredProfile {
                consumer,
                profile: Profile::High,
            },
            27 => Method::PauseProducer {
                producer: ProducerId(1),
            },
            28 => Method::ResumeProducer {
                producer: ProducerId(1),
            },
            _ => Method::RequestKeyFrame { consumer },
        };
        relay.handle_command(now, &method).expect("accepted");
        frame += 1;
        now = now + Duration::from_millis(33);
    }
    assert_eq!(counted, 0, "allocations while relaying {} packets", sink.packets);
    assert!(sink.rtcp > 100, "key frames were asked for");
}
