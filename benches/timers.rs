//! What time costs the relay while nothing is relayed: the timers of ten thousand transports in one second of a virtual clock.
//!
//! `cargo bench --bench timers`, with `-- --instructions` to count instructions as well; see `common`. The relay is called whenever it
//! wants to be, as the event loop does. What the kernel takes to send the reports is not in it.

mod common;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use common::Case;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{
    Codec, CodecName, ComediaPolicy, CreateConsumer, CreatePlainTransport, CreateProducer, CreateWebRtcTransport,
    Encoding, IceCredentials, MediaKind, Method, Profile, Remote,
};
use weir_worker::relay::Relay;
use weir_worker::relay::datagram::Datagram;
use weir_worker::relay::limits::Limits;
use weir_worker::relay::sink::{ConsumerIx, Port, Sent, Sink, TransportIx};
use weir_worker::time::Time;

/// Transports of the cases whose names say ten thousand.
const MANY: u64 = 10_000;

/// A packet of each stream comes this often, where packets come: seldom, because their cost is not what is measured.
const PACKET_INTERVAL: Duration = Duration::from_millis(500);

const PACKET_BYTES: usize = 100;

/// Takes everything and does nothing.
struct Null;

impl Sink for Null {
    fn send(&mut self, _: TransportIx, _: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        Sent::all(std::hint::black_box(train).len().div_ceil(segment))
    }

    fn gather(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        self.send(transport, owner, train, segment)
    }

    fn send_rtcp(&mut self, _: TransportIx, packet: &[u8]) {
        std::hint::black_box(packet);
    }

    fn resend(&mut self, _: TransportIx, packet: &[u8]) -> bool {
        !std::hint::black_box(packet).is_empty()
    }
}

/// What the transports are there for.
#[derive(Clone, Copy)]
struct World {
    /// Each with a producer of so many streams.
    senders: u64,
    layers: u32,
    /// Each with a consumer of one of the producers, in turns.
    receivers: u64,
    /// WebRTC instead of plain.
    webrtc: bool,
    sends: Sends,
    /// Whether the relay is called when it wants to be. Without, what remains is the cost of the packets.
    is_timed: bool,
}

/// Which packets come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sends {
    Nothing,
    /// One packet of each stream, before anything is measured.
    Once,
    /// One of each stream in [`PACKET_INTERVAL`].
    Always,
}

/// A relay with its transports, and a clock.
struct Fixture {
    relay: Relay,
    world: World,
    bytes: Vec<u8>,
    senders: Vec<TransportIx>,
    seq: u16,
    now: Time,
}

impl Fixture {
    fn new(world: World) -> Self {
        let mut relay = Relay::new(Limits::default(), 1);
        let mut methods = vec![Method::CreateRouter { room: RoomId(1) }];
        for id in 0..world.senders {
            methods.push(transport(world, id));
            methods.push(producer(id, world.layers));
        }
        for id in 0..world.receivers {
            methods.push(transport(world, world.senders + id));
            methods.push(consumer(world.senders + id, id, id % world.senders));
        }
        // They came one by one, not all in the same instant.
        let interval = Duration::from_secs(10) / methods.len() as u32;
        let mut now = Time::default();
        for method in &methods {
            relay.handle_command(now, method).expect("a fixture is valid");
            now = now + interval;
        }
        let index = |id| relay.transport_index(TransportId(id)).expect("the transport exists");
        let transports: Vec<_> = (0..world.senders + world.receivers).map(index).collect();
        if world.webrtc {
            for transport in &transports {
                relay.set_peer(now, *transport, Some(address()));
            }
        }
        let mut fixture = Self {
            relay,
            world,
            bytes: vec![0; PACKET_BYTES],
            senders: transports[..world.senders as usize].to_vec(),
            seq: 0,
            now,
        };
        if world.sends == Sends::Once {
            fixture.send_packets();
        }
        // What the beginning causes is over then.
        (0..20).for_each(|_| fixture.pass_time(Duration::from_secs(1)));
        fixture
    }

    /// A second.
    fn pass(&mut self) {
        if self.world.sends != Sends::Always {
            return self.pass_time(Duration::from_secs(1));
        }
        for _ in 0..Duration::from_secs(1).as_nanos() / PACKET_INTERVAL.as_nanos() {
            self.send_packets();
            self.pass_time(PACKET_INTERVAL);
        }
    }

    /// Lets time pass, and calls the relay whenever it wants to be.
    fn pass_time(&mut self, time: Duration) {
        let end = self.now + time;
        while self.world.is_timed
            && let Some(due) = self.relay.next_timeout().filter(|due| *due < end)
        {
            self.now = self.now.max(due);
            self.relay.handle_timeout(self.now, &mut Null);
            while self.relay.poll_notification().is_some() {}
        }
        self.now = end;
    }

    /// A packet of each stream.
    fn send_packets(&mut self) {
        self.seq = self.seq.wrapping_add(1);
        for transport in &self.senders {
            for layer in 0..self.world.layers {
                write_packet(&mut self.bytes, self.seq, 1 + layer);
                let datagram = Datagram {
                    start: 0,
                    len: PACKET_BYTES as u32,
                    segment: PACKET_BYTES as u32,
                    source: address(),
                };
                self.relay
                    .handle_datagrams(self.now, *transport, Port::Rtp, &mut self.bytes, &[datagram], &mut Null);
            }
        }
        while self.relay.poll_notification().is_some() {}
    }
}

fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5_000))
}

/// A packet of VP8 in which a key frame starts.
fn write_packet(packet: &mut [u8], seq: u16, ssrc: u32) {
    packet[..2].copy_from_slice(&[0x80, 96]);
    packet[2..4].copy_from_slice(&seq.to_be_bytes());
    packet[4..8].copy_from_slice(&(u32::from(seq) * 45_000).to_be_bytes());
    packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
    packet[12..14].copy_from_slice(&[0x10, 0]);
}

fn transport(world: World, id: u64) -> Method {
    let (room, transport) = (RoomId(1), TransportId(id));
    if world.webrtc {
        return Method::CreateWebRtcTransport(CreateWebRtcTransport {
            room,
            transport,
            listeners: Vec::new(),
            connected: Vec::new(),
            ice: IceCredentials {
                username_fragment: "user".to_owned(),
                password: "a password that is long enough".to_owned(),
            },
        });
    }
    Method::CreatePlainTransport(CreatePlainTransport {
        room,
        transport,
        remote: Some(Remote {
            rtp: address(),
            rtcp: None,
        }),
        comedia: false,
        rtcp_mux: true,
        comedia_policy: ComediaPolicy::default(),
        comedia_from: None,
    })
}

fn producer(id: u64, layers: u32) -> Method {
    let profiles = match layers {
        1 => &[Profile::Default][..],
        _ => &[Profile::Low, Profile::Medium, Profile::High],
    };
    Method::CreateProducer(CreateProducer {
        room: RoomId(1),
        transport: TransportId(id),
        producer: ProducerId(id),
        kind: MediaKind::Video,
        mid: None,
        codecs: vec![Codec {
            payload_type: 96,
            name: CodecName::Vp8,
            clock_rate: 90_000,
            pli: true,
            fir: true,
            nack: true,
            remb: false,
            rtx: Some(97),
        }],
        encodings: (1..=layers)
            .zip(profiles)
            .map(|(ssrc, profile)| Encoding {
                ssrc: Some(ssrc),
                rid: None,
                profile: *profile,
                rtx_ssrc: Some(100 + ssrc),
            })
            .collect(),
        header_extensions: Vec::new(),
        reduced_size: true,
        preferred_profile: Profile::Default,
        paused: false,
    })
}

fn consumer(transport: u64, consumer: u64, producer: u64) -> Method {
    Method::CreateConsumer(CreateConsumer {
        room: RoomId(1),
        transport: TransportId(transport),
        producer: ProducerId(producer),
        consumer: ConsumerId(consumer),
        ssrc: 77,
        payload_types: vec![(96, 101)],
        header_extensions: Vec::new(),
        preferred_profile: Profile::Default,
        paused: false,
        nack: true,
        rtx: None,
        cname: "weir".to_owned(),
        cname_is_made_up: false,
        lasting_cname: None,
    })
}

fn case(name: &'static str, world: World) -> Case {
    Case::new(name, 1, move || {
        let mut fixture = Fixture::new(world);
        move || fixture.pass()
    })
}

fn main() -> ExitCode {
    let idle = World {
        senders: MANY,
        layers: 1,
        receivers: 0,
        webrtc: false,
        sends: Sends::Nothing,
        is_timed: true,
    };
    let simulcast = World { layers: 3, ..idle };
    let silent = World {
        sends: Sends::Once,
        ..simulcast
    };
    let sending = World {
        sends: Sends::Always,
        ..simulcast
    };
    let cases = [
        case("idle", idle),
        case("idle_webrtc", World { webrtc: true, ..idle }),
        case("idle_simulcast", simulcast),
        case("silent_simulcast", silent),
        // A hundred rooms of ten senders to ninety receivers.
        case(
            "receivers",
            World {
                senders: MANY / 10,
                receivers: MANY * 9 / 10,
                ..silent
            },
        ),
        case("sending_simulcast", sending),
        case(
            "sending_simulcast_no_timers",
            World {
                is_timed: false,
                ..sending
            },
        ),
    ];
    common::run("timers", "second of 10,000 transports", &cases)
}
