//! Who sends, and who listens: remotes of plain and WebRTC transports, on the far side of the network.

use std::collections::{BTreeMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use weir_channel::id::{ConsumerId, ProducerId};
use weir_channel::message::CodecName;
use weir_worker::time::Time;
use weir_worker::webrtc::demux::{Kind, classify};

use super::client::{Came, Client};
use super::network::{Left, Shared, now};
use super::sim::judge::judge_numbers_with;
use super::sim::random::Random;
use super::sim::stream::{Mark, Stream};
use super::sim::wire::{self, Rtp};
use super::sim::{Received, ms};
use super::trace::Trace;
use crate::server::{Consumer, Producer, Transport, WebRtcTransport};

/// What a worker had in hand when it died may be missing: a batch has so many packets of a stream at most.
const IN_HAND_MAX: i128 = 64;

/// Packets of a stream that its sender can send again.
const HISTORY: usize = 400;

/// The network between remotes and workers. Chances in a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    pub(super) loss: usize,
    pub(super) duplicates: usize,
    pub(super) late: usize,
}

/// A producer's remote.
struct Source {
    producer: Producer,
    from: SocketAddr,
    to: SocketAddr,
    streams: Vec<Stream>,
    interval: Duration,
    wants_key: bool,
    /// It sends nothing until then.
    silent_until: Time,
    /// As they were sent: what is sent again is the same, also if it is protected.
    history: VecDeque<((u32, u16), Vec<u8>)>,
}

/// A consumer's remote.
pub(super) struct Listener {
    pub(super) consumer: Consumer,
    /// Where it listens, and for what.
    pub(super) flow: (SocketAddr, u32),
    codec: CodecName,
    /// It was paused, or closed, which everybody knows: nothing may come.
    pub(super) is_silenced: bool,
    /// How often somebody has begun to resume it.
    pub(super) resumes: u64,
}

/// What came at an address under an SSRC.
#[derive(Default)]
pub(super) struct Flow {
    received: Vec<Received>,
    used: BTreeMap<u16, Vec<u8>>,
    pub(super) count: u64,
}

enum Event {
    Frame(usize),
    Arrives {
        from: SocketAddr,
        to: SocketAddr,
        bytes: Vec<u8>,
    },
    Feedback(usize, Vec<u8>),
    /// Time has passed for the client at an address.
    Client(SocketAddr),
}

/// All remotes.
pub(super) struct Media {
    network: Shared,
    random: Random,
    pub(super) weather: Weather,
    events: BTreeMap<(Time, u64), Event>,
    serial: u64,
    sources: Vec<Source>,
    /// The remotes of WebRTC transports, by their addresses.
    clients: BTreeMap<SocketAddr, Client>,
    /// Those that have just got their keys.
    connected: Vec<(WebRtcTransport, SocketAddr)>,
    pub(super) listeners: BTreeMap<ConsumerId, Listener>,
    consumers: BTreeMap<(SocketAddr, u32), ConsumerId>,
    flows: BTreeMap<(SocketAddr, u32), Flow>,
    /// Producers that everybody knows to be paused.
    pub(super) silenced: BTreeMap<ProducerId, bool>,
    /// How often somebody has begun to resume a producer.
    pub(super) resumes: BTreeMap<ProducerId, u64>,
    addresses: u32,
    ssrcs: u32,
    /// Packets that left workers.
    pub(super) packets: u64,
    /// Of these, media that was protected.
    pub(super) protected: u64,
}

impl Media {
    pub(super) fn new(network: Shared, mut random: Random) -> Self {
        let weather = match random.below(3) {
            0 => Weather::default(),
            _ => Weather {
                loss: random.below(50),
                duplicates: random.below(30),
                late: random.below(50),
            },
        };
        Self {
            network,
            random,
            weather,
            events: BTreeMap::new(),
            serial: 0,
            sources: Vec::new(),
            clients: BTreeMap::new(),
            connected: Vec::new(),
            listeners: BTreeMap::new(),
            consumers: BTreeMap::new(),
            flows: BTreeMap::new(),
            silenced: BTreeMap::new(),
            resumes: BTreeMap::new(),
            addresses: 0,
            ssrcs: 0,
            packets: 0,
            protected: 0,
        }
    }

    /// An address that nobody else has.
    pub(super) fn address(&mut self) -> SocketAddr {
        self.addresses += 1;
        let [.., high, low] = self.addresses.to_be_bytes();
        SocketAddrV4::new(Ipv4Addr::new(127, 77, high, low), 40_000).into()
    }

    pub(super) fn ssrc(&mut self) -> u32 {
        self.ssrcs += 1;
        0x1000_0000 + self.ssrcs
    }

    /// A producer's remote begins to send.
    pub(super) fn send(&mut self, producer: Producer, from: SocketAddr, codec: CodecName, ssrcs: &[u32]) {
        let transport = producer.transport();
        let streams = ssrcs.iter().map(|ssrc| {
            let payload_type = if codec == CodecName::Opus { 111 } else { 96 };
            let mut stream = Stream::new(*ssrc, codec, payload_type, *ssrc, &mut self.random);
            stream.payload_len = 90 + self.random.below(300);
            stream
        });
        let source = Source {
            from,
            to: local_of(&transport),
            streams: streams.collect(),
            interval: ms(if codec == CodecName::Opus { 20 } else { 33 }),
            wants_key: true,
            silent_until: Time::default(),
            history: VecDeque::new(),
            producer,
        };
        self.sources.push(source);
        self.schedule(ms(1), Event::Frame(self.sources.len() - 1));
    }

    /// A client begins to connect to a transport.
    pub(super) fn connect(&mut self, transport: WebRtcTransport, from: SocketAddr) {
        self.clients.insert(from, Client::new(transport));
        self.schedule(ms(1), Event::Client(from));
    }

    /// A client that has connected since, and from where.
    pub(super) fn next_connected(&mut self) -> Option<(WebRtcTransport, SocketAddr)> {
        self.connected.pop()
    }

    fn send_as_client(&mut self, from: SocketAddr, datagrams: Vec<Vec<u8>>) {
        let to = self.clients[&from].to;
        for bytes in datagrams {
            self.schedule(ms(5), Event::Arrives { from, to, bytes });
        }
    }

    /// A consumer's remote begins to listen.
    pub(super) fn listen(&mut self, consumer: &Consumer, at: SocketAddr) {
        let parameters = consumer.rtp_parameters();
        let Some(ssrc) = parameters.encodings.first().and_then(|encoding| encoding.ssrc) else {
            return;
        };
        let codec = match consumer.kind() {
            weir_channel::message::MediaKind::Audio => CodecName::Opus,
            weir_channel::message::MediaKind::Video => CodecName::Vp8,
        };
        let listener = Listener {
            consumer: consumer.clone(),
            flow: (at, ssrc),
            codec,
            is_silenced: false,
            resumes: 0,
        };
        self.consumers.insert(listener.flow, consumer.id());
        self.listeners.insert(consumer.id(), listener);
    }

    /// Senders hold their breath for some time, or go on.
    pub(super) fn hold_breath(&mut self, chosen: usize, until: Time) {
        let count = self.sources.len();
        if count > 0 {
            self.sources[chosen % count].silent_until = until;
        }
    }

    /// Nobody holds their breath any more.
    pub(super) fn breathe(&mut self) {
        self.sources
            .iter_mut()
            .for_each(|source| source.silent_until = Time::default());
        self.weather = Weather::default();
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.serial += 1;
        self.events.insert((now() + after, self.serial), event);
    }

    /// When something happens next.
    pub(super) fn next_event(&self) -> Option<Time> {
        self.events.first_key_value().map(|((at, _), _)| *at)
    }

    /// Does what is due. Whether something has arrived somewhere.
    pub(super) fn run(&mut self) -> bool {
        let mut has_arrived = false;
        while let Some(entry) = self.events.first_entry().filter(|entry| entry.key().0 <= now()) {
            match entry.remove() {
                Event::Frame(source) => self.send_frame(source),
                Event::Arrives { from, to, bytes } => {
                    self.network.borrow_mut().deliver(from, to, bytes);
                    has_arrived = true;
                }
                Event::Feedback(source, rtcp) => self.on_feedback(source, &rtcp),
                Event::Client(at) => {
                    let mut out = Vec::new();
                    let next = self.clients.get_mut(&at).and_then(|client| client.on_time(&mut out));
                    self.send_as_client(at, out);
                    if let Some(after) = next {
                        self.schedule(after, Event::Client(at));
                    }
                }
            }
        }
        has_arrived
    }

    fn send_frame(&mut self, index: usize) {
        let source = &mut self.sources[index];
        if source.producer.closed() {
            return;
        }
        let interval = source.interval;
        let mut packets = Vec::new();
        if source.silent_until <= now() {
            let wanted = std::mem::take(&mut source.wants_key);
            for stream in &mut source.streams {
                if stream.codec == CodecName::Opus {
                    packets.push(stream.sound());
                } else {
                    let key = wanted || stream.frame % 90 == 0;
                    let count = 1 + self.random.below(if key { 8 } else { 4 });
                    packets.extend(stream.frame_of(count, key));
                }
            }
            for packet in &mut packets {
                let rtp = Rtp::read(&packet.bytes);
                if let Some(client) = self.clients.get_mut(&source.from) {
                    packet.bytes = client.protect(&packet.bytes).expect("it is connected");
                }
                source.history.push_back(((rtp.ssrc, rtp.seq), packet.bytes.clone()));
            }
            let excess = source.history.len().saturating_sub(HISTORY);
            source.history.drain(..excess);
        }
        for packet in packets {
            self.carry(index, packet.bytes);
        }
        self.schedule(interval, Event::Frame(index));
    }

    /// A packet of a source goes on its way.
    fn carry(&mut self, source: usize, bytes: Vec<u8>) {
        let (from, to) = (self.sources[source].from, self.sources[source].to);
        let copies = match () {
            () if self.random.chance(self.weather.loss) => 0,
            () if self.random.chance(self.weather.duplicates) => 2,
            () => 1,
        };
        for _ in 0..copies {
            let is_late = self.random.chance(self.weather.late);
            let delay = 5 + if is_late { self.random.below(30) as u64 } else { 0 };
            let bytes = bytes.clone();
            self.schedule(ms(delay), Event::Arrives { from, to, bytes });
        }
    }

    /// What a sender hears.
    fn on_feedback(&mut self, index: usize, rtcp: &[u8]) {
        let source = &mut self.sources[index];
        let is_own = |ssrc: u32| source.streams.iter().any(|stream| stream.ssrc == ssrc);
        source.wants_key |= wire::key_frame_requests(rtcp).iter().any(|(ssrc, _)| is_own(*ssrc));
        let missing: Vec<_> = wire::nacked(rtcp)
            .into_iter()
            .filter_map(|wanted| source.history.iter().find(|(known, _)| *known == wanted))
            .map(|(_, bytes)| bytes.clone())
            .collect();
        for bytes in missing {
            self.carry(index, bytes);
        }
    }

    /// Looks at what has left the workers since.
    #[track_caller]
    pub(super) fn drain(&mut self, trace: &mut Trace) {
        loop {
            let left = self.network.borrow_mut().next_left();
            let Some(left) = left else { return };
            self.packets += 1;
            let Some((left, protected)) = self.unprotect(left) else {
                continue;
            };
            trace.note_packet(&left);
            if matches!(left.bytes.get(1), Some(192..=223)) {
                let sources = 0..self.sources.len();
                let sources: Vec<_> = sources
                    .filter(|index| self.sources[*index].from.ip() == left.to.ip())
                    .collect();
                for source in sources {
                    self.schedule(ms(5), Event::Feedback(source, left.bytes.clone()));
                }
            } else {
                self.on_packet(left, protected);
            }
        }
    }

    /// What a packet is to its receiver, and as what it was on the wire if it was protected; `None` if it is no media, or came before.
    fn unprotect(&mut self, left: Left) -> Option<(Left, Option<Vec<u8>>)> {
        let Some(client) = self.clients.get_mut(&left.to) else {
            return Some((left, None));
        };
        if matches!(classify(&left.bytes), Kind::Rtp) {
            let flow = self.flows.get(&(left.to, super::sim::ssrc_of(&left.bytes)));
            let seq = u16::from_be_bytes([left.bytes[2], left.bytes[3]]);
            if flow.and_then(|flow| flow.used.get(&seq)) == Some(&left.bytes) {
                // The same bytes once more tell nobody anything.
                return None;
            }
        }
        let mut out = Vec::new();
        let came = client.on_datagram(&left.bytes, &mut out);
        let transport = client.transport.clone();
        self.send_as_client(left.to, out);
        match came {
            Came::Nothing => None,
            Came::Connected => {
                self.connected.push((transport, left.to));
                None
            }
            Came::Rtp(bytes) | Came::Rtcp(bytes) => {
                self.protected += 1;
                let Left {
                    at,
                    to,
                    bytes: protected,
                } = left;
                Some((Left { at, to, bytes }, Some(protected)))
            }
        }
    }

    #[track_caller]
    fn on_packet(&mut self, left: Left, protected: Option<Vec<u8>>) {
        let rtp = Rtp::read(&left.bytes);
        let key = (left.to, rtp.ssrc);
        if let Some(listener) = self.consumers.get(&key).map(|consumer| &self.listeners[consumer]) {
            let (consumer, producer) = (listener.consumer.id(), listener.consumer.producer().id());
            assert!(
                !listener.is_silenced,
                "{consumer} was sent something after it was silenced"
            );
            let is_paused = self.silenced.get(&producer).copied().unwrap_or(false);
            assert!(
                !is_paused,
                "{consumer} was sent something of {producer}, which is paused"
            );
        }
        let flow = self.flows.entry(key).or_default();
        flow.count += 1;
        let on_the_wire = protected.unwrap_or_else(|| left.bytes.clone());
        if let Some(before) = flow.used.get(&rtp.seq) {
            assert_eq!(
                *before, on_the_wire,
                "number {} of {key:?} was used for two packets",
                rtp.seq
            );
            return;
        }
        flow.used.insert(rtp.seq, on_the_wire);
        flow.received.push(Received {
            at: left.at,
            mark: Mark::read(&rtp.payload),
            rtp,
            bytes: left.bytes,
            batch: 0,
            train: 0,
            place: 0,
        });
    }

    /// How much has come to a listener.
    pub(super) fn count_of(&self, consumer: ConsumerId) -> u64 {
        let flow = self
            .listeners
            .get(&consumer)
            .and_then(|listener| self.flows.get(&listener.flow));
        flow.map_or(0, |flow| flow.count)
    }

    /// Where a listener listens.
    pub(super) fn place_of(&self, consumer: ConsumerId) -> Option<SocketAddr> {
        Some(self.listeners.get(&consumer)?.flow.0)
    }

    /// How much has come to each listener.
    pub(super) fn counts(&self) -> BTreeMap<ConsumerId, u64> {
        self.listeners
            .keys()
            .map(|consumer| (*consumer, self.count_of(*consumer)))
            .collect()
    }

    /// All that came is numbered without a break, but for what workers had in hand when they died.
    #[track_caller]
    pub(super) fn judge(&self, deaths: u64) {
        for listener in self.listeners.values() {
            if let Some(flow) = self.flows.get(&listener.flow) {
                judge_numbers_with(&flow.received, listener.codec, IN_HAND_MAX * i128::from(deaths));
            }
        }
    }

    /// Whether somebody sends to a producer.
    pub(super) fn is_sent(&self, producer: ProducerId) -> bool {
        self.sources.iter().any(|source| source.producer.id() == producer)
    }
}

/// Where a transport's remote sends to.
pub(super) fn local_of(transport: &Transport) -> SocketAddr {
    if let Some(webrtc) = transport.webrtc() {
        let candidate = webrtc.ice_candidates().first().expect("a way to reach it");
        return SocketAddr::new(candidate.ip, candidate.port);
    }
    let tuple = transport.tuple();
    SocketAddr::new(tuple.bound_ip, tuple.local_port)
}
