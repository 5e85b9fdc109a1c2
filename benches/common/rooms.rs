//! Many small rooms in one relay: what a server does most of the time. Each peer sends sound and video, and receives all others of
//! its room over one transport. The peers' packets come in turns, so that whatever a packet needs was last used thousands of
//! packets ago and is in no near cache.

use std::net::SocketAddr;
use std::time::Duration;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{
    Codec, CodecName, ComediaPolicy, ConsumerRtx, CreateConsumer, CreatePlainTransport, CreateProducer, Encoding,
    ExtensionUri, HeaderExtension, MediaKind, Method, Profile, Remote,
};
use weir_worker::page::Page;
use weir_worker::relay::Relay;
use weir_worker::relay::datagram::Datagram;
use weir_worker::relay::limits::Limits;
use weir_worker::relay::sink::{Port, Sink, TransportIx};
use weir_worker::time::Time;

const PEERS: u64 = 4;

/// Packets of a frame of video, which come one by one and back to back.
const FRAME: u64 = 3;

const SOUND_LEN: usize = 160;
const VIDEO_LEN: usize = 1_180;

/// From one received packet to the next in the batch's memory.
const SLOT: usize = 2_048;

/// What comes in a pass, a tenth of a second: sound every 20 ms, and a frame every 33 ms.
const SCHEDULE: [MediaKind; 8] = {
    use MediaKind::{Audio, Video};
    [Audio, Video, Audio, Audio, Video, Audio, Audio, Video]
};

/// Packets that are forwarded in a pass, by the number of rooms.
pub(crate) const fn forwarded(rooms: u64) -> usize {
    (rooms * PEERS * (PEERS - 1) * (5 + 3 * FRAME)) as usize
}

/// The rooms, and what their peers send.
pub(crate) struct Rooms<S> {
    relay: Relay,
    sink: S,
    transports: Vec<TransportIx>,
    bytes: Vec<u8>,
    now: Time,
    /// Packets of sound, and frames, that each peer has sent.
    sent: [u64; 2],
    extends: bool,
}

impl<S: Sink> Rooms<S> {
    /// `is_browser`: packets carry header extensions, and may be asked for again. `page`: where is kept what a successor would need.
    pub(crate) fn new(rooms: u64, is_browser: bool, page: Page, sink: S) -> Self {
        let mut relay = Relay::new(Limits::default(), 1);
        relay.set_page(page);
        let mut command = |method: Method| {
            relay
                .handle_command(Time::default(), &method)
                .expect("a fixture is valid");
        };
        for room in 0..rooms {
            command(Method::CreateRouter { room: RoomId(room) });
            for peer in room * PEERS..(room + 1) * PEERS {
                command(transport(room, peer));
                command(producer(room, peer, MediaKind::Audio, is_browser));
                command(producer(room, peer, MediaKind::Video, is_browser));
            }
            for peer in room * PEERS..(room + 1) * PEERS {
                for other in (room * PEERS..(room + 1) * PEERS).filter(|other| *other != peer) {
                    command(consumer(room, peer, other, MediaKind::Audio, is_browser));
                    command(consumer(room, peer, other, MediaKind::Video, is_browser));
                }
            }
        }
        let transports = (0..rooms * PEERS).map(|peer| relay.transport_index(TransportId(peer)));
        let transports = transports.map(|transport| transport.expect("it was made")).collect();
        let mut fixture = Self {
            relay,
            sink,
            transports,
            bytes: vec![0; FRAME as usize * SLOT],
            now: Time::from_millis(1),
            sent: [0; 2],
            extends: is_browser,
        };
        fixture.pass(); // key frames: everybody starts
        fixture
    }

    /// A tenth of a second.
    pub(crate) fn pass(&mut self) {
        for kind in SCHEDULE {
            for peer in 0..self.transports.len() {
                self.send(peer, kind);
                // The turns of an event loop are as far from each other as this.
                if peer % 16 == 15 {
                    self.relay.handle_timeout(self.now, &mut self.sink);
                    while self.relay.poll_notification().is_some() {}
                }
            }
            self.sent[kind as usize] += 1;
            self.now = self.now + Duration::from_micros(12_500);
        }
    }

    fn send(&mut self, peer: usize, kind: MediaKind) {
        let source = source(peer as u64);
        let sent = self.sent[kind as usize];
        let (count, len) = match kind {
            MediaKind::Audio => (1, SOUND_LEN),
            MediaKind::Video => (FRAME, VIDEO_LEN),
        };
        let mut datagrams = [Datagram {
            start: 0,
            len: len as u32,
            segment: len as u32,
            source,
        }; FRAME as usize];
        for index in 0..count {
            let start = index as usize * SLOT;
            datagrams[index as usize].start = start as u32;
            let packet = &mut self.bytes[start..start + len];
            let seq = sent * count + index;
            let (payload_type, ticks) = match kind {
                MediaKind::Audio => (111, 960),
                MediaKind::Video => (96, 3_000),
            };
            let extends = u8::from(self.extends) << 4;
            packet[..2].copy_from_slice(&[0x80 | extends, payload_type]);
            packet[2..4].copy_from_slice(&(seq as u16).to_be_bytes());
            packet[4..8].copy_from_slice(&((sent * ticks) as u32).to_be_bytes());
            packet[8..12].copy_from_slice(&ssrc(peer as u64, kind).to_be_bytes());
            let mut payload = &mut packet[12..];
            if self.extends {
                // MID, abs-send-time, the transport's sequence number, the level of sound: as browsers send them.
                payload[..20].copy_from_slice(&[
                    0xbe, 0xde, 0, 4, 0x10, b'0', 0x22, 1, 2, 3, 0x31, 0, 0, 0x40, 30, 0, 0, 0, 0, 0,
                ]);
                payload = &mut payload[20..];
            }
            if kind == MediaKind::Video {
                let picture_id = (sent as u16 | 0x8000).to_be_bytes();
                let start = if index == 0 { 0x90 } else { 0x80 };
                let delta = u8::from(sent > 0);
                payload[..6].copy_from_slice(&[start, 0xc0, picture_id[0], picture_id[1], sent as u8, delta]);
            }
        }
        self.relay.handle_datagrams(
            self.now,
            self.transports[peer],
            Port::Rtp,
            &mut self.bytes,
            &datagrams[..count as usize],
            &mut self.sink,
        );
    }
}

fn source(peer: u64) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5_000 + peer as u16))
}

/// Spread out, as random ones are.
fn ssrc(peer: u64, kind: MediaKind) -> u32 {
    (peer as u32 * 2 + kind as u32 + 1).wrapping_mul(0x9e37_79b1)
}

fn id(peer: u64, kind: MediaKind) -> ProducerId {
    ProducerId(peer * 2 + kind as u64)
}

fn transport(room: u64, peer: u64) -> Method {
    Method::CreatePlainTransport(CreatePlainTransport {
        room: RoomId(room),
        transport: TransportId(peer),
        remote: Some(Remote {
            rtp: source(peer),
            rtcp: None,
        }),
        comedia: false,
        rtcp_mux: true,
        comedia_policy: ComediaPolicy::default(),
        comedia_from: None,
    })
}

fn extensions(is_browser: bool) -> Vec<HeaderExtension> {
    let uris = [
        ExtensionUri::Mid,
        ExtensionUri::AbsSendTime,
        ExtensionUri::TransportWideCc,
        ExtensionUri::AudioLevel,
    ];
    let extensions = (1..).zip(uris).map(|(id, uri)| HeaderExtension { id, uri });
    extensions.filter(|_| is_browser).collect()
}

fn producer(room: u64, peer: u64, kind: MediaKind, is_browser: bool) -> Method {
    let codec = match kind {
        MediaKind::Audio => Codec {
            payload_type: 111,
            name: CodecName::Opus,
            clock_rate: 48_000,
            pli: false,
            fir: false,
            nack: false,
            remb: false,
            rtx: None,
        },
        MediaKind::Video => Codec {
            payload_type: 96,
            name: CodecName::Vp8,
            clock_rate: 90_000,
            pli: true,
            fir: true,
            nack: is_browser,
            remb: false,
            rtx: is_browser.then_some(97),
        },
    };
    Method::CreateProducer(CreateProducer {
        room: RoomId(room),
        transport: TransportId(peer),
        producer: id(peer, kind),
        kind,
        mid: is_browser.then(|| (kind as u8).to_string()),
        codecs: vec![codec],
        encodings: vec![Encoding {
            ssrc: Some(ssrc(peer, kind)),
            rid: None,
            profile: Profile::Default,
            rtx_ssrc: None,
        }],
        header_extensions: extensions(is_browser),
        reduced_size: true,
        preferred_profile: Profile::Default,
        paused: false,
    })
}

fn consumer(room: u64, peer: u64, other: u64, kind: MediaKind, is_browser: bool) -> Method {
    let number = (peer * PEERS + other % PEERS) * 2 + kind as u64;
    let repairs = is_browser && kind == MediaKind::Video;
    let ssrc = (number as u32 + 1).wrapping_mul(0x85eb_ca6b);
    Method::CreateConsumer(CreateConsumer {
        room: RoomId(room),
        transport: TransportId(peer),
        producer: id(other, kind),
        consumer: ConsumerId(number),
        ssrc,
        payload_types: match kind {
            MediaKind::Audio => vec![(111, 111)],
            MediaKind::Video => vec![(96, 101)],
        },
        header_extensions: extensions(is_browser).split_off(usize::from(is_browser)),
        preferred_profile: Profile::Default,
        paused: false,
        nack: repairs,
        rtx: repairs.then(|| ConsumerRtx {
            ssrc: ssrc ^ 1,
            payload_types: vec![(101, 102)],
        }),
        cname: format!("peer{other}"),
        cname_is_made_up: false,
        lasting_cname: None,
    })
}
