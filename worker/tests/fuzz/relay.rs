//! Operations on a relay, and what it is held to.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{
    Codec, CodecName, ComediaPolicy, ConsumerRtx, CreateConsumer, CreatePlainTransport, CreateProducer, DropReason,
    Encoding, ExtensionUri, HeaderExtension, MediaKind, Method, Page, Profile, Remote, Reply, Scope,
};
use weir_worker::relay::Relay;
use weir_worker::relay::datagram::Datagram;
use weir_worker::relay::limits::Limits;
use weir_worker::relay::sink::{ConsumerIx, Port, Sent, Sink, TransportIx};
use weir_worker::rtp::Header;
use weir_worker::rtp::extension::elements;
use weir_worker::time::Time;

const ROOM: RoomId = RoomId(1);
/// Producers live on the first two, consumers on all of them.
const TRANSPORTS: u64 = 4;
const PRODUCERS: u64 = 2;
/// A simulcast camera and a microphone.
const STREAMS: [(u64, u32, Profile); 4] = [
    (0, 10, Profile::Low),
    (0, 11, Profile::Medium),
    (0, 12, Profile::High),
    (1, 20, Profile::Default),
];
const PROFILES: [Profile; 4] = [Profile::Default, Profile::Low, Profile::Medium, Profile::High];
const CONSUMERS_MAX: usize = 24;
/// The bit that tells the SSRC of retransmissions from that of the media.
const RTX: u32 = 1 << 30;
/// The payload type of what goes along with the media; consumers with an even id have it.
const COMPANION: u8 = 101;
/// The id of the extension with the transport sequence number.
const TRANSPORT_CC: u8 = 4;

/// One step of [`relay_ops`]. Numbers are taken modulo what exists, so that most steps mean something.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub(crate) enum Operation {
    /// A frame of a producer's stream: that many packets of one size, the first of a key frame or not.
    Frame {
        stream: u8,
        packets: u8,
        bytes: u8,
        key_frame: bool,
        seq_step: u16,
    },
    /// A packet that was not made by a sender of ours, from the remote or from a stranger.
    Noise {
        transport: u8,
        first: [u8; 16],
        foreign: bool,
    },
    /// A picture loss indication for a consumer.
    Pli { consumer: u8 },
    /// Time goes by, in milliseconds.
    Wait { ms: u16 },
    /// A consumer is made.
    Consume {
        transport: u8,
        producer: u8,
        profile: u8,
        paused: bool,
    },
    /// Pauses or resumes a consumer.
    PauseConsumer { consumer: u8, pause: bool },
    /// Pauses or resumes a producer.
    PauseProducer { producer: u8, pause: bool },
    /// A consumer prefers a profile.
    Prefer { consumer: u8, profile: u8 },
    /// A producer prefers a profile.
    PreferProducer { producer: u8, profile: u8 },
    /// Closes a consumer.
    CloseConsumer { consumer: u8 },
    /// Closes a producer and makes it anew.
    ReplaceProducer { producer: u8 },
    /// A negative acknowledgement for a consumer: so far back from the last packet it was sent.
    Nack { consumer: u8, back: u16, blp: u16 },
    /// A retransmission of a stream's packet, so far back from its last one.
    Rtx { stream: u8, back: u16, bytes: u8 },
    /// The sink takes no more than so many packets of each train.
    Jam { packets: u8 },
    /// A consumer is given another producer, if it outlives its own.
    ChangeSource { consumer: u8, producer: u8 },
}

/// A list of operations on a relay with two producers. After each, every consumer's counters add up to what its producer
/// got, and nothing was sent twice under one sequence number. Returns how many packets were sent again.
pub(crate) fn relay_ops(operations: &[Operation]) -> u64 {
    Model::run(operations).sink.resent.values().sum()
}

/// Keeps what a checker needs of what was sent.
#[derive(Debug, Default)]
struct CheckingSink {
    taken: BTreeMap<u32, u64>,
    resent: BTreeMap<u32, u64>,
    /// Some packets were not taken; those may be sent again without having been sent.
    refused_any: bool,
    seqs: BTreeMap<u32, BTreeSet<u16>>,
    newest: BTreeMap<u32, u16>,
    limit: Option<usize>,
}

impl Sink for CheckingSink {
    fn send(&mut self, _: TransportIx, _: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        assert!(
            !train.is_empty() && segment > 0 && train.len() <= 65_507,
            "a train that no socket could carry"
        );
        let packets: Vec<&[u8]> = train.chunks(segment).collect();
        assert!(packets.len() <= 64, "a train that the kernel refuses");
        let accepted = self.limit.map_or(packets.len(), |limit| limit.min(packets.len()));
        for packet in &packets[..accepted] {
            let header = Header::parse(packet).expect("what the relay sends is RTP");
            let names_nothing = |block| elements(packet, block).next().is_none();
            assert!(header.extension.is_none_or(names_nothing), "a number of another hop");
            *self.taken.entry(header.ssrc).or_default() += 1;
            let newest = self.newest.entry(header.ssrc).or_insert(header.seq);
            if header.seq.wrapping_sub(*newest) < 1 << 15 {
                *newest = header.seq;
            }
            let seqs = self.seqs.entry(header.ssrc).or_default();
            assert!(
                seqs.len() == 1 << 16 || seqs.insert(header.seq),
                "{} was sent twice",
                header.seq
            );
        }
        self.refused_any |= accepted < packets.len();
        Sent {
            accepted,
            reason: DropReason::BacklogFull,
        }
    }

    fn gather(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        self.send(transport, owner, train, segment)
    }

    fn send_rtcp(&mut self, _: TransportIx, packet: &[u8]) {
        weir_worker::rtp::rtcp::parse(packet, |_| {}).expect("what the relay sends is RTCP");
    }

    fn resend(&mut self, _: TransportIx, packet: &[u8]) -> bool {
        let header = Header::parse(packet).expect("what the relay sends again is RTP");
        let is_taken = self.limit.is_none_or(|limit| limit > 0);
        *self.resent.entry(header.ssrc & !RTX).or_default() += u64::from(is_taken);
        if header.ssrc & RTX == 0 {
            let newest = self.newest.get(&header.ssrc);
            let is_old = newest.is_some_and(|newest| newest.wrapping_sub(header.seq) < 1 << 15);
            assert!(is_old || self.refused_any, "{} was never sent", header.seq);
        }
        is_taken
    }
}

struct Model {
    relay: Relay,
    sink: CheckingSink,
    now: Time,
    seqs: [u16; STREAMS.len()],
    /// The next transport sequence number of each sender.
    numbers: [u16; PRODUCERS as usize],
    consumers: Vec<(ConsumerId, u32)>,
    /// Those that outlive their producers, as they were asked for.
    lasting: BTreeMap<ConsumerId, CreateConsumer>,
    next_id: u64,
}

impl Model {
    fn run(operations: &[Operation]) -> Self {
        let mut model = Self::new();
        for operation in operations.iter().take(500) {
            model.step(*operation);
            model.check();
        }
        model.command(&Method::CloseRouter { room: ROOM });
        assert_eq!(model.relay.counts(), (0, 0, 0, 0), "closing a room leaves nothing");
        model
    }

    fn new() -> Self {
        let mut model = Self {
            relay: Relay::new(Limits::default(), 1),
            sink: CheckingSink::default(),
            now: Time::from_millis(1),
            seqs: [65_500; STREAMS.len()],
            numbers: [65_400; PRODUCERS as usize],
            consumers: Vec::new(),
            lasting: BTreeMap::new(),
            next_id: 0,
        };
        model.command(&Method::CreateRouter { room: ROOM });
        for transport in 0..TRANSPORTS {
            model.command(&Method::CreatePlainTransport(CreatePlainTransport {
                room: ROOM,
                transport: TransportId(transport),
                remote: Some(Remote {
                    rtp: remote(transport),
                    rtcp: None,
                }),
                comedia: false,
                rtcp_mux: true,
                comedia_policy: ComediaPolicy::default(),
                comedia_from: None,
            }));
        }
        for producer in 0..PRODUCERS {
            model.create_producer(producer);
        }
        model
    }

    fn create_producer(&mut self, producer: u64) {
        let (kind, name, companion, clock_rate) = match producer {
            0 => (MediaKind::Video, CodecName::Vp8, CodecName::VideoCompanion, 90_000),
            _ => (
                MediaKind::Audio,
                CodecName::OtherAudio,
                CodecName::AudioCompanion,
                48_000,
            ),
        };
        let encodings = STREAMS
            .iter()
            .filter(|(owner, ..)| *owner == producer)
            .map(|(_, ssrc, profile)| Encoding {
                // The microphone's is whatever comes.
                ssrc: (producer == 0).then_some(*ssrc),
                rid: None,
                profile: *profile,
                rtx_ssrc: (producer == 0).then_some(ssrc | RTX),
            });
        self.command(&Method::CreateProducer(CreateProducer {
            room: ROOM,
            transport: TransportId(producer),
            producer: ProducerId(producer),
            kind,
            mid: None,
            codecs: vec![
                Codec {
                    payload_type: COMPANION,
                    name: companion,
                    clock_rate: 8_000,
                    pli: false,
                    fir: false,
                    nack: false,
                    remb: false,
                    rtx: None,
                },
                Codec {
                    payload_type: 96,
                    name,
                    clock_rate,
                    pli: true,
                    fir: true,
                    nack: true,
                    remb: false,
                    rtx: Some(97),
                },
            ],
            encodings: encodings.collect(),
            header_extensions: vec![HeaderExtension {
                id: TRANSPORT_CC,
                uri: ExtensionUri::TransportWideCc,
            }],
            preferred_profile: Profile::Default,
            paused: false,
            reduced_size: producer == 0,
        }));
    }

    /// Everything that is asked here is valid.
    fn command(&mut self, method: &Method) -> Reply {
        let reply = self.relay.handle_command(self.now, method);
        self.drain();
        reply.unwrap_or_else(|error| panic!("{method:?}: {error}"))
    }

    fn drain(&mut self) {
        while self.relay.poll_action().is_some() {}
        while self.relay.poll_notification().is_some() {}
    }

    fn consumer(&self, index: u8) -> Option<ConsumerId> {
        let count = self.consumers.len();
        (count > 0).then(|| self.consumers[usize::from(index) % count].0)
    }

    fn step(&mut self, operation: Operation) {
        let producer = |index: u8| ProducerId(u64::from(index) % PRODUCERS);
        let profile = |index: u8| PROFILES[usize::from(index) % PROFILES.len()];
        match operation {
            Operation::Frame {
                stream,
                packets,
                bytes,
                key_frame,
                seq_step,
            } => {
                self.frame(
                    usize::from(stream) % STREAMS.len(),
                    packets % 70,
                    bytes,
                    key_frame,
                    seq_step,
                );
            }
            Operation::Noise {
                transport,
                first,
                foreign,
            } => {
                let transport = u64::from(transport) % TRANSPORTS;
                let source = if foreign {
                    SocketAddr::from(([127, 9, 9, 9], 9))
                } else {
                    remote(transport)
                };
                self.receive(transport, &mut first.to_vec(), first.len(), source);
            }
            Operation::Pli { consumer } => {
                if self.consumers.is_empty() {
                    return;
                }
                let (_, ssrc) = self.consumers[usize::from(consumer) % self.consumers.len()];
                let mut packet = [0; 128];
                let len = weir_worker::rtp::rtcp::write_pli(&mut packet, 1, ssrc);
                for transport in 0..TRANSPORTS {
                    self.receive(transport, &mut packet[..len].to_vec(), len, remote(transport));
                }
            }
            Operation::Nack { consumer, back, blp } => {
                if self.consumers.is_empty() {
                    return;
                }
                let (_, ssrc) = self.consumers[usize::from(consumer) % self.consumers.len()];
                let newest = self.sink.newest.get(&ssrc).copied().unwrap_or(0);
                let mut packet = [[0x81, 205, 0, 3], [0; 4], ssrc.to_be_bytes(), [0; 4]].concat();
                packet[12..14].copy_from_slice(&newest.wrapping_sub(back).to_be_bytes());
                packet[14..].copy_from_slice(&blp.to_be_bytes());
                for transport in 0..TRANSPORTS {
                    self.receive(transport, &mut packet.clone(), packet.len(), remote(transport));
                }
            }
            Operation::Rtx { stream, back, bytes } => {
                let stream = usize::from(stream) % STREAMS.len();
                let (owner, ssrc, _) = STREAMS[stream];
                let seq = self.seqs[stream].wrapping_sub(back);
                let mut packet = vec![0; 12 + usize::from(bytes)];
                packet[..2].copy_from_slice(&[0x80, 97]);
                packet[8..12].copy_from_slice(&(ssrc | RTX).to_be_bytes());
                if let Some(osn) = packet.get_mut(12..14) {
                    osn.copy_from_slice(&seq.to_be_bytes());
                }
                let len = packet.len();
                self.receive(owner, &mut packet, len, remote(owner));
            }
            Operation::Wait { ms } => {
                self.now = self.now + Duration::from_millis(u64::from(ms));
                self.relay.handle_timeout(self.now, &mut self.sink);
                self.drain();
            }
            Operation::Consume {
                transport,
                producer,
                profile: wish,
                paused,
            } => {
                if self.consumers.len() == CONSUMERS_MAX {
                    return;
                }
                self.next_id += 1;
                let ssrc = 1_000 + self.next_id as u32;
                self.consumers.push((ConsumerId(self.next_id), ssrc));
                let request = CreateConsumer {
                    room: ROOM,
                    transport: TransportId(u64::from(transport) % TRANSPORTS),
                    producer: ProducerId(u64::from(producer) % PRODUCERS),
                    consumer: ConsumerId(self.next_id),
                    ssrc,
                    payload_types: match self.next_id.is_multiple_of(2) {
                        true => vec![(96, 101), (COMPANION, 100)],
                        false => vec![(96, 101)],
                    },
                    header_extensions: Vec::new(),
                    preferred_profile: profile(wish),
                    paused,
                    nack: !self.next_id.is_multiple_of(4),
                    rtx: self.next_id.is_multiple_of(2).then(|| ConsumerRtx {
                        ssrc: ssrc | RTX,
                        payload_types: vec![(101, 102)],
                    }),
                    cname: "weir".to_owned(),
                    cname_is_made_up: false,
                    lasting_cname: self.next_id.is_multiple_of(3).then(|| "lasting".to_owned()),
                };
                self.command(&Method::CreateConsumer(request.clone()));
                if request.lasting_cname.is_some() {
                    self.lasting.insert(request.consumer, request);
                }
            }
            Operation::PauseConsumer { consumer, pause } => {
                let Some(consumer) = self.consumer(consumer) else {
                    return;
                };
                self.command(&Method::SetConsumerPaused {
                    consumer,
                    paused: pause,
                });
            }
            Operation::PauseProducer { producer: index, pause } => {
                let producer = producer(index);
                self.command(&Method::SetProducerPaused {
                    producer,
                    paused: pause,
                });
            }
            Operation::Prefer {
                consumer,
                profile: wish,
            } => {
                let Some(consumer) = self.consumer(consumer) else {
                    return;
                };
                self.command(&Method::SetConsumerPreferredProfile {
                    consumer,
                    profile: profile(wish),
                });
            }
            Operation::PreferProducer {
                producer: index,
                profile: wish,
            } => {
                let producer = producer(index);
                self.command(&Method::SetProducerPreferredProfile {
                    producer,
                    profile: profile(wish),
                });
            }
            Operation::CloseConsumer { consumer } => {
                let Some(consumer) = self.consumer(consumer) else {
                    return;
                };
                self.consumers.retain(|(id, _)| *id != consumer);
                self.command(&Method::CloseConsumer { consumer });
            }
            Operation::ReplaceProducer { producer: index } => {
                let producer = producer(index);
                self.command(&Method::CloseProducer { producer });
                self.create_producer(producer.0);
                let relay = &mut self.relay;
                let now = self.now;
                // Its consumers went with it.
                self.consumers.retain(|(consumer, _)| {
                    relay
                        .handle_command(now, &Method::Stats(Scope::Consumer(*consumer)))
                        .is_ok()
                });
            }
            Operation::ChangeSource {
                consumer,
                producer: index,
            } => {
                let request = self.consumer(consumer).and_then(|id| self.lasting.get(&id));
                if let Some(request) = request.cloned() {
                    let producer = producer(index);
                    self.command(&Method::SetConsumerSource(CreateConsumer { producer, ..request }));
                }
            }
            Operation::Jam { packets } => self.sink.limit = (packets < 64).then_some(usize::from(packets)),
        }
    }

    fn frame(&mut self, stream: usize, packets: u8, bytes: u8, key_frame: bool, seq_step: u16) {
        let len = 32 + usize::from(bytes) * 4;
        let (owner, ssrc, _) = STREAMS[stream];
        self.seqs[stream] = self.seqs[stream].wrapping_add(seq_step);
        let number = &mut self.numbers[owner as usize];
        *number = number.wrapping_add(seq_step);
        let mut train = vec![0; len * usize::from(packets)];
        for (index, packet) in train.chunks_mut(len).enumerate() {
            let payload_type = if index % 8 == 5 { COMPANION } else { 96 };
            packet[..2].copy_from_slice(&[0x90, payload_type]);
            packet[2..4].copy_from_slice(&self.seqs[stream].to_be_bytes());
            packet[4..8].copy_from_slice(&((self.now.0 / 11_111) as u32).to_be_bytes());
            packet[8..12].copy_from_slice(&ssrc.to_be_bytes());
            let first = index == 0;
            let start = if first { 0x90 } else { 0x80 };
            packet[12..17].copy_from_slice(&[0xbe, 0xde, 0, 1, TRANSPORT_CC << 4 | 1]);
            packet[17..19].copy_from_slice(&number.to_be_bytes());
            *number = number.wrapping_add(1);
            packet[20..26].copy_from_slice(&[start, 0xc0, 0x80, bytes, bytes, u8::from(!(key_frame && first))]);
            self.seqs[stream] = self.seqs[stream].wrapping_add(1);
        }
        self.receive(owner, &mut train, len, remote(owner));
    }

    fn receive(&mut self, transport: u64, bytes: &mut [u8], segment: usize, source: SocketAddr) {
        let Some(index) = self.relay.transport_index(TransportId(transport)) else {
            return;
        };
        let datagram = Datagram {
            start: 0,
            len: bytes.len() as u32,
            segment: segment as u32,
            source,
        };
        self.relay
            .handle_datagrams(self.now, index, Port::Rtp, bytes, &[datagram], &mut self.sink);
        self.drain();
    }

    fn check(&mut self) {
        let reply = self.command(&Method::Stats(Scope::Room {
            room: ROOM,
            page: Page::default(),
        }));
        let Reply::Stats(page) = reply else {
            panic!("statistics were asked for, not {reply:?}")
        };
        assert_eq!(page.consumers.len(), self.consumers.len());
        for stats in page.consumers {
            let dropped: u64 = stats.dropped.iter().map(|(_, count)| count).sum();
            assert_eq!(stats.packets_in, stats.packets_forwarded + dropped, "{stats:?}");
            let ssrc = self
                .consumers
                .iter()
                .find(|(id, _)| *id == stats.consumer)
                .map(|(_, ssrc)| *ssrc);
            let taken = ssrc.and_then(|ssrc| self.sink.taken.get(&ssrc)).copied().unwrap_or(0);
            assert_eq!(stats.packets_forwarded, taken, "{stats:?}");
            let resent = ssrc.and_then(|ssrc| self.sink.resent.get(&ssrc)).copied().unwrap_or(0);
            assert_eq!(stats.packets_retransmitted, resent, "{stats:?}");
        }
    }
}

fn remote(transport: u64) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 5_000 + transport as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sources change, close and come again, while everything else happens, too.
    #[test]
    fn sources_change_at_any_time() {
        for seed in 0..400_u64 {
            let mut state = seed;
            let mut random = |end: u8| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                ((state >> 33) % u64::from(end)) as u8
            };
            let consume = |random: &mut dyn FnMut(u8) -> u8| Operation::Consume {
                transport: random(4),
                producer: random(2),
                profile: random(4),
                paused: random(4) == 0,
            };
            let mut operations: Vec<Operation> = (0..6).map(|_| consume(&mut random)).collect();
            for _ in 0..150 {
                let (consumer, producer) = (random(8), random(2));
                operations.push(match random(16) {
                    0..6 => Operation::Frame {
                        stream: random(4),
                        packets: 1 + random(8),
                        bytes: random(40),
                        key_frame: random(3) == 0,
                        seq_step: u16::from(random(10) / 8),
                    },
                    6..9 => Operation::ChangeSource { consumer, producer },
                    9 => Operation::ReplaceProducer { producer },
                    10 => Operation::Nack {
                        consumer,
                        back: u16::from(random(20)),
                        blp: 0x5555,
                    },
                    11 => Operation::PauseConsumer {
                        consumer,
                        pause: random(2) == 0,
                    },
                    12 => Operation::PauseProducer {
                        producer,
                        pause: random(3) == 0,
                    },
                    13 => Operation::Prefer {
                        consumer,
                        profile: random(4),
                    },
                    14 => match random(3) {
                        0 => Operation::CloseConsumer { consumer },
                        1 => consume(&mut random),
                        _ => Operation::Jam { packets: random(70) },
                    },
                    _ => Operation::Wait {
                        ms: u16::from(random(200)),
                    },
                });
            }
            relay_ops(&operations);
        }
    }

    #[test]
    fn a_day_in_the_life() {
        let frame = |stream, key_frame| Operation::Frame {
            stream,
            packets: 8,
            bytes: 20,
            key_frame,
            seq_step: 0,
        };
        let mut operations = vec![
            Operation::Consume {
                transport: 2,
                producer: 0,
                profile: 0,
                paused: false,
            },
            Operation::Consume {
                transport: 2,
                producer: 0,
                profile: 1,
                paused: false,
            },
            Operation::Consume {
                transport: 3,
                producer: 1,
                profile: 0,
                paused: true,
            },
        ];
        for round in 0..40 {
            operations.extend((0..4).map(|stream| frame(stream, round % 8 == 0)));
            operations.push(Operation::Frame {
                stream: round % 4,
                packets: 3,
                bytes: 9,
                key_frame: false,
                seq_step: 5,
            });
            operations.push(Operation::Wait { ms: 33 });
            operations.extend((4..8).map(|back| Operation::Rtx {
                stream: round % 4,
                back,
                bytes: back as u8 * 7 - 28,
            }));
            operations.extend((0..3).map(|consumer| Operation::Nack {
                consumer,
                back: u16::from(round),
                blp: 0x5555,
            }));
            operations.push(match round % 10 {
                0 => Operation::Pli { consumer: 0 },
                1 => Operation::PauseConsumer {
                    consumer: 1,
                    pause: true,
                },
                2 => Operation::PauseProducer {
                    producer: 0,
                    pause: true,
                },
                3 => Operation::PauseProducer {
                    producer: 0,
                    pause: false,
                },
                4 => Operation::PauseConsumer {
                    consumer: 1,
                    pause: false,
                },
                5 => Operation::Prefer {
                    consumer: 0,
                    profile: round,
                },
                6 => Operation::Jam { packets: 3 },
                7 => Operation::Jam { packets: 255 },
                8 => Operation::PauseConsumer {
                    consumer: 2,
                    pause: false,
                },
                _ => Operation::Noise {
                    transport: round,
                    first: [0x90; 16],
                    foreign: round % 20 == 9,
                },
            });
        }
        operations.push(Operation::PreferProducer {
            producer: 0,
            profile: 1,
        });
        operations.push(Operation::ReplaceProducer { producer: 0 });
        operations.push(Operation::CloseConsumer { consumer: 0 });
        let resent = relay_ops(&operations);
        assert!(resent > 100, "{resent}");
    }
}
