//! The recorded media through the relay itself, on a virtual clock: what the demo shows with processes and sockets, held
//! here packet by packet, the same on every run.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{
    Codec, CodecName, ComediaPolicy, ConsumerStats, CreateConsumer, CreatePlainTransport, CreateProducer, Encoding,
    Method, Notification, ProducerStats, Profile, Remote, Reply, Scope,
};
use weir_recordings::check::{Arrival, Catalogue, Check, SentLog, StreamCheck};
use weir_recordings::{Recording, Replay};
use weir_worker::relay::Relay;
use weir_worker::relay::datagram::Datagram;
use weir_worker::relay::limits::Limits;
use weir_worker::relay::sink::{ConsumerIx, Port, Sent, Sink, TransportIx};
use weir_worker::time::Time;

const ROOM: RoomId = RoomId(1);
/// The replay starts at this time of the virtual clock, which is also what its wall clock shows.
const START: Duration = Duration::from_secs(1_000);

/// Keeps what the relay sends, by transport.
#[derive(Default)]
struct Outbox {
    rtp: BTreeMap<TransportIx, Vec<Vec<u8>>>,
    rtcp: BTreeMap<TransportIx, Vec<Vec<u8>>>,
    trains: usize,
}

impl Sink for Outbox {
    fn send(&mut self, transport: TransportIx, _owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        let packets: Vec<Vec<u8>> = train.chunks(segment.max(1)).map(<[u8]>::to_vec).collect();
        self.trains += usize::from(packets.len() > 1);
        let sent = Sent::all(packets.len());
        self.rtp.entry(transport).or_default().extend(packets);
        sent
    }

    fn gather(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        self.send(transport, owner, train, segment)
    }

    fn send_rtcp(&mut self, transport: TransportIx, packet: &[u8]) {
        self.rtcp.entry(transport).or_default().push(packet.to_vec());
    }

    fn resend(&mut self, transport: TransportIx, packet: &[u8]) -> bool {
        self.rtp.entry(transport).or_default().push(packet.to_vec());
        true
    }
}

struct Source {
    replay: Replay,
    catalogue: Arc<Catalogue>,
    sent: SentLog,
    address: SocketAddr,
    transport: TransportIx,
    producer: ProducerId,
    next_report: Duration,
}

struct Receiver {
    source: usize,
    transport: TransportIx,
    consumer: ConsumerId,
    check: StreamCheck,
    switches: Vec<(Option<usize>, usize)>,
}

struct World {
    relay: Relay,
    outbox: Outbox,
    elapsed: Duration,
    /// How much time passes at once: what is due in it comes as one batch.
    turn: Duration,
    sources: Vec<Source>,
    receivers: Vec<Receiver>,
    profiles: BTreeMap<ConsumerId, Vec<Option<Profile>>>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            relay: Relay::new(Limits::default(), seed),
            outbox: Outbox::default(),
            elapsed: Duration::ZERO,
            turn: Duration::from_millis(1),
            sources: Vec::new(),
            receivers: Vec::new(),
            profiles: BTreeMap::new(),
        };
        world.command(Method::CreateRouter { room: ROOM });
        world
    }

    fn now(&self) -> Time {
        Time::default() + START + self.elapsed
    }

    fn command(&mut self, method: Method) -> Reply {
        let now = self.now();
        let reply = self.relay.handle_command(now, &method);
        self.drain();
        reply.unwrap_or_else(|error| panic!("{method:?}: {error}"))
    }

    fn drain(&mut self) {
        while self.relay.poll_action().is_some() {}
        while let Some(notification) = self.relay.poll_notification() {
            if let Notification::EffectiveProfileChanged { consumer, profile } = notification {
                self.profiles.entry(consumer).or_default().push(profile);
            }
        }
    }

    fn transport(&mut self, address: SocketAddr) -> (TransportId, TransportIx) {
        let transport = TransportId((self.sources.len() * 100 + self.receivers.len() + 1) as u64);
        self.command(Method::CreatePlainTransport(CreatePlainTransport {
            room: ROOM,
            transport,
            remote: Some(Remote {
                rtp: address,
                rtcp: None,
            }),
            comedia: false,
            rtcp_mux: true,
            comedia_policy: ComediaPolicy::default(),
            comedia_from: None,
        }));
        (transport, self.relay.transport_index(transport).unwrap())
    }

    fn add_source(&mut self, tracks: Vec<Arc<Recording>>, profiles: &[Profile]) -> usize {
        let index = self.sources.len();
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + index as u16));
        let (transport_id, transport) = self.transport(address);
        let producer = ProducerId(index as u64 + 1);
        let codec = tracks[0].codec();
        self.command(Method::CreateProducer(CreateProducer {
            room: ROOM,
            transport: transport_id,
            producer,
            kind: codec.kind(),
            mid: None,
            codecs: vec![Codec {
                payload_type: tracks[0].payload_type(),
                name: codec,
                clock_rate: tracks[0].clock_rate(),
                pli: true,
                fir: false,
                nack: false,
                remb: false,
                rtx: None,
            }],
            encodings: std::iter::zip(&tracks, profiles)
                .map(|(track, &profile)| Encoding {
                    ssrc: Some(track.ssrc()),
                    rid: None,
                    profile,
                    rtx_ssrc: None,
                })
                .collect(),
            header_extensions: Vec::new(),
            preferred_profile: Profile::Default,
            paused: false,
            reduced_size: true,
        }));
        self.sources.push(Source {
            catalogue: Arc::new(Catalogue::new(&tracks)),
            sent: SentLog::new(&tracks),
            replay: Replay::new(tracks).unwrap(),
            address,
            transport,
            producer,
            next_report: Duration::ZERO,
        });
        index
    }

    fn add_receiver(&mut self, source: usize, preferred_profile: Profile) -> usize {
        let index = self.receivers.len();
        let (transport_id, transport) = self.transport(SocketAddr::from(([127, 0, 0, 1], 30_000 + index as u16)));
        let consumer = ConsumerId(index as u64 + 1);
        let (ssrc, payload_type) = (0xc0de_0000 + index as u32, 100 + index as u8);
        let catalogue = Arc::clone(&self.sources[source].catalogue);
        self.command(Method::CreateConsumer(CreateConsumer {
            room: ROOM,
            transport: transport_id,
            producer: self.sources[source].producer,
            consumer,
            ssrc,
            payload_types: vec![(catalogue.tracks()[0].payload_type(), payload_type)],
            header_extensions: Vec::new(),
            preferred_profile,
            paused: false,
            nack: false,
            rtx: None,
            cname: "weir".to_owned(),
            cname_is_made_up: false,
            lasting_cname: None,
        }));
        self.receivers.push(Receiver {
            source,
            transport,
            consumer,
            check: StreamCheck::new(catalogue, ssrc, payload_type),
            switches: Vec::new(),
        });
        index
    }

    /// Lets time pass, in turns: what is due goes in as one batch, and what comes out is judged.
    fn run(&mut self, duration: Duration) {
        let end = self.elapsed + duration;
        while self.elapsed < end {
            self.elapsed += self.turn;
            for source in 0..self.sources.len() {
                self.send_due(source);
            }
            let now = self.now();
            if self.relay.next_timeout().is_some_and(|due| due <= now) {
                self.relay.handle_timeout(now, &mut self.outbox);
            }
            self.drain();
            self.deliver();
        }
    }

    fn send_due(&mut self, index: usize) {
        let (now, elapsed) = (self.now(), self.elapsed);
        let source = &mut self.sources[index];
        let (mut bytes, mut datagrams) = (Vec::new(), Vec::<Datagram>::new());
        let mut add = |packet: &[u8]| {
            // What the kernel's UDP_GRO does: packets of one size make a train, and only its last may be shorter.
            let len = packet.len() as u32;
            match datagrams.last_mut() {
                Some(last) if last.len % last.segment == 0 && len <= last.segment && last.len / last.segment < 64 => {
                    last.len += len;
                }
                _ => datagrams.push(Datagram {
                    start: bytes.len() as u32,
                    len,
                    segment: len,
                    source: source.address,
                }),
            }
            bytes.extend_from_slice(packet);
        };
        while let Some(due) = source.replay.poll(elapsed) {
            source.sent.begin(due.origin, due.ordinal);
            source.sent.finish(due.bytes.len());
            add(due.bytes);
        }
        if elapsed >= source.next_report && source.sent.mark() > 0 {
            source.next_report += Duration::from_secs(1);
            for track in 0..source.replay.tracks().len() {
                let report = source
                    .replay
                    .sender_report(track, elapsed, START + elapsed, "tests@weir")
                    .unwrap();
                add(&report);
            }
        }
        let transport = source.transport;
        self.relay
            .handle_datagrams(now, transport, Port::Rtp, &mut bytes, &datagrams, &mut self.outbox);
    }

    fn deliver(&mut self) {
        for receiver in &mut self.receivers {
            let packets = self.outbox.rtp.remove(&receiver.transport).unwrap_or_default();
            let sent = &self.sources[receiver.source].sent;
            for packet in packets {
                match receiver.check.receive(&packet, sent) {
                    Arrival::Started { track } => receiver.switches.push((None, track)),
                    Arrival::Switched { from, to } => receiver.switches.push((Some(from), to)),
                    Arrival::Continued | Arrival::Wrong => {}
                }
            }
        }
        assert!(
            self.outbox.rtp.is_empty(),
            "packets for a transport that has no receiver"
        );
    }

    fn pause_producer(&mut self, source: usize, duration: Duration) {
        let producer = self.sources[source].producer;
        self.command(Method::SetProducerPaused { producer, paused: true });
        let mark = self.sources[source].sent.mark();
        let theirs = |receiver: &&mut Receiver| receiver.source == source;
        self.receivers
            .iter_mut()
            .filter(theirs)
            .for_each(|receiver| receiver.check.pause(mark));
        self.run(duration);
        let mark = self.sources[source].sent.mark();
        self.receivers
            .iter_mut()
            .filter(theirs)
            .for_each(|receiver| receiver.check.resume(mark));
        self.command(Method::SetProducerPaused {
            producer,
            paused: false,
        });
    }

    fn pause_consumer(&mut self, receiver: usize, duration: Duration) {
        let (consumer, source) = (self.receivers[receiver].consumer, self.receivers[receiver].source);
        self.command(Method::SetConsumerPaused { consumer, paused: true });
        self.receivers[receiver].check.pause(self.sources[source].sent.mark());
        self.run(duration);
        self.receivers[receiver].check.resume(self.sources[source].sent.mark());
        self.command(Method::SetConsumerPaused {
            consumer,
            paused: false,
        });
    }

    fn prefer(&mut self, receiver: usize, profile: Profile) {
        let consumer = self.receivers[receiver].consumer;
        self.command(Method::SetConsumerPreferredProfile { consumer, profile });
    }

    fn consumer_stats(&mut self, receiver: usize) -> ConsumerStats {
        let consumer = self.receivers[receiver].consumer;
        match self.command(Method::Stats(Scope::Consumer(consumer))) {
            Reply::Stats(mut page) => page.consumers.remove(0),
            other => panic!("{other:?}"),
        }
    }

    fn producer_stats(&mut self, source: usize) -> ProducerStats {
        let producer = self.sources[source].producer;
        match self.command(Method::Stats(Scope::Producer(producer))) {
            Reply::Stats(mut page) => page.producers.remove(0),
            other => panic!("{other:?}"),
        }
    }

    /// No check found a fault, and every packet is in exactly one counter.
    #[track_caller]
    fn assert_faultless(&mut self) {
        for index in 0..self.receivers.len() {
            let check = &self.receivers[index].check;
            for name in Check::ALL {
                let faults = check.faults(name);
                assert_eq!(
                    faults.count(),
                    0,
                    "receiver {index}: {name:?}: {:#?}",
                    faults.examples()
                );
            }
            let (received, source) = (check.packets(), self.receivers[index].source);
            let sent = self.sources[source].sent.packets();
            let stats = self.consumer_stats(index);
            let dropped: u64 = stats.dropped.iter().map(|(_, count)| count).sum();
            assert_eq!(stats.packets_in, sent, "receiver {index}");
            assert_eq!(stats.packets_forwarded + dropped, sent, "receiver {index}: {stats:?}");
            assert_eq!(stats.packets_forwarded, received, "receiver {index}");
            let streams = self.producer_stats(source).streams;
            assert_eq!(streams.iter().map(|stream| stream.packets).sum::<u64>(), sent);
            assert!(streams.iter().all(|stream| stream.packets_lost == 0), "{streams:?}");
        }
    }
}

fn load(file: &[u8], codec: CodecName, clock_rate: u32) -> Arc<Recording> {
    Arc::new(Recording::from_rtpdump(file, codec, clock_rate).unwrap())
}

fn camera() -> Vec<Arc<Recording>> {
    [
        include_bytes!("low.rtpdump").as_slice(),
        include_bytes!("medium.rtpdump"),
        include_bytes!("high.rtpdump"),
    ]
    .map(|file| load(file, CodecName::Vp8, 90_000))
    .to_vec()
}

const LAYERS: [Profile; 3] = [Profile::Low, Profile::Medium, Profile::High];
const SECOND: Duration = Duration::from_secs(1);

#[test]
fn the_camera_and_the_microphone_through_pauses_and_switches() {
    let mut world = World::new(1);
    let camera = world.add_source(camera(), &LAYERS);
    let opus = load(include_bytes!("opus.rtpdump"), CodecName::Opus, 48_000);
    let microphone = world.add_source(vec![opus], &[Profile::Default]);
    let viewers = [Profile::Default, Profile::Low, Profile::Medium, Profile::High];
    let viewers = viewers.map(|profile| world.add_receiver(camera, profile));
    let listener = world.add_receiver(microphone, Profile::Default);

    world.run(7 * SECOND);
    world.pause_producer(camera, 3 * SECOND);
    world.pause_producer(microphone, SECOND);
    world.run(4 * SECOND);
    world.pause_consumer(viewers[1], 5 * SECOND);
    world.pause_consumer(listener, SECOND);
    for profile in [Profile::Low, Profile::High, Profile::Medium, Profile::Default] {
        world.prefer(viewers[0], profile);
        world.run(2 * SECOND);
    }
    // Several rounds of the recording, so that every number wraps and every seam is crossed.
    world.run(30 * SECOND);

    world.assert_faultless();
    // The first viewer starts at the top, as all layers begin with a key frame in one batch; so it does after the pause.
    // Then it does as it is told.
    let first = &world.receivers[viewers[0]];
    let expected = [
        (None, 2),
        (None, 2),
        (Some(2), 0),
        (Some(0), 2),
        (Some(2), 1),
        (Some(1), 2),
    ];
    assert_eq!(first.switches, expected);
    assert_eq!(world.receivers[viewers[1]].switches, [(None, 0), (None, 0), (None, 0)]);
    assert_eq!(world.receivers[listener].switches, [(None, 0), (None, 0), (None, 0)]);
    let told: Vec<_> = first
        .switches
        .iter()
        .filter_map(|&(from, to)| from.map(|_| Some(LAYERS[to])))
        .collect();
    let events = &world.profiles[&first.consumer];
    assert_eq!(events[1..], told, "an event for each switch, and none for the pause");
    assert!(world.outbox.trains > 1_000, "{} trains", world.outbox.trains);
}

#[test]
fn a_switch_inside_a_batch_loses_no_picture() {
    // A worker that was kept from running finds several pictures of all layers in one batch.
    for turn_ms in [20, 50, 70, 100, 150, 250, 330, 500, 1_000] {
        let mut world = World::new(3);
        world.turn = Duration::from_millis(turn_ms);
        let source = world.add_source(camera(), &LAYERS);
        let viewers = [Profile::Default, Profile::Low].map(|profile| world.add_receiver(source, profile));
        for _ in 0..5 {
            for profile in [Profile::Low, Profile::High, Profile::Medium] {
                world.prefer(viewers[0], profile);
                world.run(3 * SECOND);
            }
        }
        world.assert_faultless();
        assert!(world.receivers[viewers[0]].switches.len() > 10, "{turn_ms} ms");
    }
}

#[test]
fn every_single_stream_goes_through_unchanged() {
    for (file, codec, clock_rate) in [
        (include_bytes!("vp9.rtpdump").as_slice(), CodecName::Vp9, 90_000),
        (include_bytes!("h264.rtpdump"), CodecName::H264, 90_000),
        (include_bytes!("high.rtpdump"), CodecName::Vp8, 90_000),
        (include_bytes!("opus.rtpdump"), CodecName::Opus, 48_000),
    ] {
        let mut world = World::new(2);
        let source = world.add_source(vec![load(file, codec, clock_rate)], &[Profile::Default]);
        let receiver = world.add_receiver(source, Profile::Default);
        world.run(25 * SECOND);
        let relayed = world.receivers[receiver].check.packets();
        assert_eq!(
            relayed,
            world.sources[source].sent.packets(),
            "{codec:?}: from the first packet on"
        );
        assert_eq!(world.receivers[receiver].switches, [(None, 0)]);
    }
}

#[test]
fn the_same_seed_gives_the_same_packets() {
    let run = |seed| {
        let mut world = World::new(seed);
        let source = world.add_source(camera(), &LAYERS);
        let receiver = world.add_receiver(source, Profile::Default);
        let mut bytes = Vec::new();
        for _ in 0..3_000 {
            world.elapsed += Duration::from_millis(1);
            world.send_due(source);
            let transport = world.receivers[receiver].transport;
            bytes.extend(world.outbox.rtp.remove(&transport).unwrap_or_default().concat());
        }
        bytes
    };
    let first = run(7);
    assert!(first.len() > 300_000);
    assert_eq!(first, run(7));
    assert_ne!(first, run(8));
}
