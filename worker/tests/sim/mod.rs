//! The simulator: a relay, a virtual clock, senders, networks, and a sink that keeps everything.
//!
//! A test reads *send, advance, expect*. [`Sim`] is the relay with its clock and sink; [`stream`] makes packets, [`track`]
//! describes producers, [`live`] lets cameras run by themselves over lossy [`network`]s, [`judge`] holds what came out
//! against what went in, [`model`] is the relay's rules once more, as simply as can be.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of this")]

pub mod conference;
pub mod feedback;
pub mod judge;
pub mod live;
pub mod model;
pub mod network;
pub mod random;
pub mod recorder;
pub mod repair;
pub mod reports;
pub mod rtpdump;
pub mod stream;
pub mod succession;
pub mod track;
pub mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{
    ComediaPolicy, ConsumerStats, CreateConsumer, CreatePlainTransport, DropReason, HeaderExtension, Method,
    Notification, Page, ProducerStats, Profile, Remote, Reply, Scope, StatsPage, TransportStats, UnroutedReason,
    WorkerError,
};
use weir_worker::page::memory::HeapPage;
use weir_worker::relay::datagram::Datagram;
use weir_worker::relay::limits::Limits;
use weir_worker::relay::sink::{Port, TransportIx};
use weir_worker::relay::{Action, Relay};
use weir_worker::time::{Time, WallClock};

use self::judge::{Break, Delivery, Log};
use self::random::Random;
use self::recorder::Recorder;
use self::stream::{Mark, Packet};
use self::succession::{Desired, new_page};
use self::track::Track;
use self::wire::{Means, Rtp};

/// At the beginning of time it is 2026-01-01T00:00:00Z.
pub const WALL_CLOCK: WallClock = WallClock::new(Time(0), 1_767_225_600_000_000_000);

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Runs a property for several seeds: those of `SEED` in the environment, or `0..count`.
pub fn for_each_seed(count: u64, property: impl Fn(u64)) {
    match std::env::var("SEED") {
        Ok(seed) => property(seed.parse().expect("SEED is a number")),
        Err(_) => (0..count).for_each(property),
    }
}

/// A relay in a world of its own.
#[derive(Debug)]
pub struct Sim {
    pub relay: Relay,
    pub now: Time,
    pub sink: Recorder,
    pub random: Random,
    /// What the relay said since the last [`Sim::told`].
    pub notifications: Vec<Notification>,
    /// What it wanted done since the last [`Sim::wanted`].
    pub actions: Vec<Action>,
    /// Where each transport's packets come from.
    pub addresses: BTreeMap<TransportId, SocketAddr>,
    pub consumers: BTreeMap<ConsumerId, ConsumerInfo>,
    /// Everything that happened, for the [`judge`].
    pub log: Log,
    rooms: BTreeMap<TransportId, RoomId>,
    /// Trains looked through by [`Sim::received`].
    sorted: usize,
    inboxes: BTreeMap<ConsumerId, VecDeque<Received>>,
    lost: BTreeMap<(ConsumerId, DropReason), u64>,
    /// SSRC and sequence number of what [`Sim::take_sent`] has returned.
    forwarded: BTreeSet<(u32, u16)>,
    next_id: u64,
    next_stream: u32,
    pub seed: u64,
    limits: Limits,
    /// What the relay keeps for a successor.
    pub page: Arc<HeapPage>,
    /// What was accepted and makes the objects again.
    desired: Desired,
    /// Commands that were not answered, because the relay died.
    unanswered: Vec<Method>,
    /// How many relays have died.
    pub deaths: u64,
    /// A turn has several batches: what is gathered leaves at [`Sim::end_turn`]. Otherwise each call into the relay is a turn.
    pub has_turns: bool,
}

/// What a test knows of a consumer that it made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConsumerInfo {
    pub request: CreateConsumer,
    pub transport: TransportIx,
}

/// A packet that left for a consumer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Received {
    pub at: Time,
    pub bytes: Vec<u8>,
    pub rtp: Rtp,
    pub mark: Option<Mark>,
    /// Which call into the relay sent it.
    pub batch: usize,
    /// Which of the sink's trains brought it, and as which of its packets.
    pub train: usize,
    pub place: usize,
}

impl Received {
    /// The mark of a packet that has one.
    pub fn mark(&self) -> Mark {
        self.mark.expect("a whole packet of a simulated stream")
    }
}

/// A key frame request that left for a sender.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    pub at: Time,
    pub transport: TransportIx,
    pub ssrc: u32,
    pub means: Means,
}

/// What arrives in one receive batch: a datagram, or a train that the kernel joined.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arrival {
    pub source: SocketAddr,
    pub segment: usize,
    pub bytes: Vec<u8>,
}

impl Drop for Sim {
    #[allow(clippy::print_stderr, reason = "the harness shows it with the failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("seed {} at {:?}; SEED={} replays it", self.seed, self.now, self.seed);
        }
    }
}

impl Sim {
    pub fn new(seed: u64) -> Self {
        Self::with_limits(seed, Limits::default())
    }

    pub fn with_limits(seed: u64, limits: Limits) -> Self {
        let mut relay = Relay::new(limits, seed);
        relay.set_wall_clock(WALL_CLOCK);
        let page = new_page(&mut relay);
        Self {
            relay,
            now: Time::from_millis(1_000),
            sink: Recorder::of(page.clone()),
            random: Random::new(seed),
            notifications: Vec::new(),
            actions: Vec::new(),
            addresses: BTreeMap::new(),
            consumers: BTreeMap::new(),
            log: Log::default(),
            rooms: BTreeMap::new(),
            sorted: 0,
            inboxes: BTreeMap::new(),
            lost: BTreeMap::new(),
            forwarded: BTreeSet::new(),
            next_id: 1,
            next_stream: 1,
            seed,
            limits,
            page,
            desired: Desired::default(),
            unanswered: Vec::new(),
            deaths: 0,
            has_turns: false,
        }
    }

    pub fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Ids go on from here.
    pub fn skip_ids(&mut self, id: u64) {
        self.next_id = id;
    }

    /// A number for a [`stream::Stream`].
    pub fn stream_number(&mut self) -> u32 {
        self.next_stream += 1;
        self.next_stream - 1
    }

    /// The room of a transport that was made here.
    pub fn room_of(&self, transport: TransportId) -> RoomId {
        self.rooms[&transport]
    }

    // ---- Commands.

    /// Does a command and what follows from it.
    pub fn attempt(&mut self, method: Method) -> Result<Reply, WorkerError> {
        self.sink.now = self.now;
        let broken = match &method {
            Method::SetConsumerPaused { consumer, .. } => Some(Break::Consumer(*consumer)),
            Method::SetProducerPaused { producer, .. } => Some(Break::Producer(*producer)),
            _ => None,
        };
        self.log.breaks.extend(broken.map(|broken| (self.log.batch, broken)));
        let result = self.relay.handle_command(self.now, &method);
        if self.page.is_dead() {
            self.unanswered.push(method);
            return Ok(Reply::Done);
        }
        if result.is_ok() {
            self.desired.apply(&method);
        }
        self.drain();
        self.run_timeouts();
        result
    }

    /// A command that must succeed.
    #[track_caller]
    pub fn command(&mut self, method: Method) -> Reply {
        let shown = format!("{method:?}");
        self.attempt(method).unwrap_or_else(|error| panic!("{shown}: {error}"))
    }

    pub fn room(&mut self) -> RoomId {
        let room = RoomId(self.id());
        self.command(Method::CreateRouter { room });
        room
    }

    /// A transport whose remote is known from the start.
    pub fn transport(&mut self, room: RoomId) -> TransportId {
        let address = self.address();
        let remote = Remote {
            rtp: address,
            rtcp: None,
        };
        self.transport_with(room, address, |request| request.remote = Some(remote))
    }

    /// A transport that is told its remote later.
    pub fn unconnected_transport(&mut self, room: RoomId) -> TransportId {
        let address = self.address();
        self.transport_with(room, address, |_| {})
    }

    /// A transport as the test wants it; its packets will come from `address`.
    pub fn transport_with(
        &mut self,
        room: RoomId,
        address: SocketAddr,
        edit: impl FnOnce(&mut CreatePlainTransport),
    ) -> TransportId {
        let transport = TransportId(self.id());
        let mut request = CreatePlainTransport {
            room,
            transport,
            remote: None,
            comedia: false,
            rtcp_mux: true,
            comedia_policy: ComediaPolicy::default(),
            comedia_from: None,
        };
        edit(&mut request);
        self.command(Method::CreatePlainTransport(request));
        self.know_transport(room, transport, address);
        transport
    }

    /// Notes a transport that was made by a command of the test's own.
    pub fn know_transport(&mut self, room: RoomId, transport: TransportId, address: SocketAddr) {
        self.addresses.insert(transport, address);
        self.rooms.insert(transport, room);
    }

    /// An address that nobody else has.
    pub fn address(&mut self) -> SocketAddr {
        let id = self.id() as u32;
        SocketAddrV4::new(Ipv4Addr::from(0x0a00_0000 + (id >> 8)), 10_000 + (id & 0xff) as u16).into()
    }

    /// A consumer with the payload types and extension ids of the producer.
    #[track_caller]
    pub fn consumer(&mut self, transport: TransportId, track: &Track) -> ConsumerId {
        self.consumer_with(transport, track, |_| {})
    }

    /// A consumer as the test wants it.
    #[track_caller]
    pub fn consumer_with(
        &mut self,
        transport: TransportId,
        track: &Track,
        edit: impl FnOnce(&mut CreateConsumer),
    ) -> ConsumerId {
        let request = self.consumer_request(transport, track, edit);
        let reply = self.command(Method::CreateConsumer(request.clone()));
        assert!(matches!(reply, Reply::ConsumerCreated { .. }), "{reply:?}");
        self.know_consumer(request)
    }

    /// A request for a consumer that may be refused.
    pub fn consumer_request(
        &mut self,
        transport: TransportId,
        track: &Track,
        edit: impl FnOnce(&mut CreateConsumer),
    ) -> CreateConsumer {
        let id = self.id();
        let mut request = CreateConsumer {
            room: track.request.room,
            transport,
            producer: track.id(),
            consumer: ConsumerId(id),
            ssrc: 0x2000_0000 + id as u32,
            payload_types: track
                .request
                .codecs
                .iter()
                .map(|codec| (codec.payload_type, codec.payload_type))
                .collect(),
            header_extensions: track
                .request
                .header_extensions
                .iter()
                .filter(|extension| extension.uri.is_relayed())
                .copied()
                .collect::<Vec<HeaderExtension>>(),
            preferred_profile: Profile::Default,
            paused: false,
            nack: false,
            rtx: None,
            cname: "weir".to_owned(),
            cname_is_made_up: false,
            lasting_cname: None,
        };
        edit(&mut request);
        request
    }

    /// Notes a consumer that was made by a command of the test's own.
    pub fn know_consumer(&mut self, request: CreateConsumer) -> ConsumerId {
        let consumer = request.consumer;
        let transport = self.index(request.transport);
        self.consumers.insert(consumer, ConsumerInfo { request, transport });
        consumer
    }

    pub fn pause(&mut self, consumer: ConsumerId) {
        self.command(Method::SetConsumerPaused { consumer, paused: true });
    }

    pub fn resume(&mut self, consumer: ConsumerId) {
        self.command(Method::SetConsumerPaused {
            consumer,
            paused: false,
        });
    }

    pub fn prefer(&mut self, consumer: ConsumerId, profile: Profile) {
        self.command(Method::SetConsumerPreferredProfile { consumer, profile });
    }

    pub fn pause_producer(&mut self, producer: ProducerId) {
        self.command(Method::SetProducerPaused { producer, paused: true });
    }

    pub fn resume_producer(&mut self, producer: ProducerId) {
        self.command(Method::SetProducerPaused {
            producer,
            paused: false,
        });
    }

    // ---- Packets in.

    pub fn index(&self, transport: TransportId) -> TransportIx {
        self.relay.transport_index(transport).expect("the transport is alive")
    }

    /// Packets that arrive one by one, in one receive batch, from the transport's remote.
    pub fn send(&mut self, transport: TransportId, packets: &[Packet]) {
        let source = self.addresses[&transport];
        let arrivals: Vec<_> = packets.iter().map(|packet| single(source, &packet.bytes)).collect();
        self.deliver(transport, Port::Rtp, &arrivals);
    }

    /// Packets of equal size, of which only the last may be shorter, that arrive as one train.
    pub fn send_train(&mut self, transport: TransportId, packets: &[Packet]) {
        let train = train(self.addresses[&transport], packets);
        self.deliver(transport, Port::Rtp, &[train]);
    }

    /// Anything, from the transport's remote.
    pub fn send_bytes(&mut self, transport: TransportId, bytes: &[u8]) {
        let source = self.addresses[&transport];
        self.deliver(transport, Port::Rtp, &[single(source, bytes)]);
    }

    /// One receive batch.
    pub fn deliver(&mut self, transport: TransportId, port: Port, arrivals: &[Arrival]) {
        let index = self.index(transport);
        self.deliver_at(index, port, arrivals);
    }

    /// One receive batch of a transport that may be gone.
    pub fn deliver_at(&mut self, transport: TransportIx, port: Port, arrivals: &[Arrival]) {
        self.log.batch += 1;
        let packets = arrivals
            .iter()
            .flat_map(|arrival| arrival.bytes.chunks(arrival.segment.max(1)));
        for (packet, mark) in packets.filter_map(|packet| Some((packet, Mark::read(packet)?))) {
            let batch = self.log.batch;
            self.log.deliveries.push(Delivery { batch, mark });
            if let Some(originals) = &mut self.log.originals {
                originals.insert((mark.stream, mark.seq), packet.to_vec());
            }
        }
        let (mut bytes, mut datagrams) = (Vec::new(), Vec::new());
        for arrival in arrivals {
            datagrams.push(Datagram {
                start: bytes.len() as u32,
                len: arrival.bytes.len() as u32,
                segment: arrival.segment as u32,
                source: arrival.source,
            });
            bytes.extend_from_slice(&arrival.bytes);
        }
        self.sink.now = self.now;
        self.sink.batch = self.log.batch;
        self.relay
            .handle_datagrams(self.now, transport, port, &mut bytes, &datagrams, &mut self.sink);
        self.drain();
        self.end_call();
        self.run_timeouts();
    }

    /// What was gathered leaves, and what it came of is kept as received.
    pub fn end_turn(&mut self) {
        self.run_timeouts();
        self.sink.send_gathered();
        self.relay.keep_positions();
    }

    fn end_call(&mut self) {
        if !self.has_turns {
            self.relay.keep_positions();
        }
    }

    /// RTCP from the transport's remote.
    pub fn send_rtcp(&mut self, transport: TransportId, packet: &[u8]) {
        self.send_bytes(transport, packet);
    }

    /// The consumer's receiver has lost a picture.
    pub fn pli(&mut self, consumer: ConsumerId) {
        let request = &self.consumers[&consumer].request;
        let (transport, packet) = (request.transport, wire::pli(1, request.ssrc));
        self.send_rtcp(transport, &packet);
    }

    // ---- Time.

    /// Lets time pass; the relay is called exactly when it wants to be.
    pub fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(due) = self
            .relay
            .next_timeout()
            .filter(|due| *due <= end && !self.page.is_dead())
        {
            self.now = self.now.max(due);
            self.run_timeouts();
        }
        self.now = end;
        self.run_timeouts();
    }

    /// As a worker does in a turn that has relayed packets.
    pub fn report_early(&mut self) {
        self.sink.now = self.now;
        self.relay.report_early(self.now, &mut self.sink);
        self.drain();
        self.end_call();
    }

    /// Does what is due now.
    fn run_timeouts(&mut self) {
        let mut calls = 0;
        while self.relay.next_timeout().is_some_and(|due| due <= self.now) {
            self.sink.now = self.now;
            self.relay.handle_timeout(self.now, &mut self.sink);
            self.drain();
            self.end_call();
            calls += 1;
            if self.page.is_dead() {
                return;
            }
            assert!(calls < 10, "a timeout is due again as soon as it was handled");
        }
    }

    fn drain(&mut self) {
        if self.page.is_dead() {
            return;
        }
        self.relay.send_pending_byes(&mut self.sink);
        while let Some(action) = self.relay.poll_action() {
            if matches!(action, Action::Close { .. } | Action::Retire { .. }) {
                self.sink.forget_owners();
            }
            self.actions.push(action);
        }
        while let Some(notification) = self.relay.poll_notification() {
            if let Notification::EffectiveProfileChanged {
                consumer,
                profile: None,
            } = notification
            {
                self.log.breaks.push((self.log.batch, Break::Consumer(consumer)));
            }
            self.notifications.push(notification);
        }
    }

    // ---- What came of it.

    /// What has left for a consumer since the last time.
    pub fn received(&mut self, consumer: ConsumerId) -> Vec<Received> {
        self.sort();
        self.inboxes.remove(&consumer).map(Vec::from).unwrap_or_default()
    }

    /// The marks of what has left for a consumer since the last time.
    pub fn marks(&mut self, consumer: ConsumerId) -> Vec<Mark> {
        self.received(consumer).iter().map(Received::mark).collect()
    }

    /// Puts what the sink took into the consumers' inboxes.
    fn sort(&mut self) {
        let consumers: BTreeMap<_, _> = self
            .consumers
            .iter()
            .map(|(consumer, info)| ((info.transport, info.request.ssrc), *consumer))
            .collect();
        for (index, train) in self.sink.trains.iter().enumerate().skip(self.sorted) {
            for (place, bytes) in train.packets.iter().enumerate() {
                let rtp = Rtp::read(bytes);
                let consumer = consumers
                    .get(&(train.transport, rtp.ssrc))
                    .unwrap_or_else(|| panic!("SSRC {:#x} on {:?} is nobody's", rtp.ssrc, train.transport));
                let mark = Mark::read(&rtp.payload);
                self.inboxes.entry(*consumer).or_default().push_back(Received {
                    at: train.at,
                    bytes: bytes.clone(),
                    rtp,
                    mark,
                    batch: train.batch,
                    train: index,
                    place,
                });
            }
        }
        self.sorted = self.sink.trains.len();
    }

    /// The trains since the last time. Not to be mixed with [`Sim::received`].
    pub fn trains(&mut self) -> Vec<recorder::Train> {
        self.sorted = 0;
        std::mem::take(&mut self.sink.trains)
    }

    /// What has left since the last time: the consumer's transport, the packet. What nobody has asked for again leaves under no number
    /// twice, whoever has died meanwhile, not even if the same bytes come out. Not to be mixed with [`Sim::trains`].
    #[track_caller]
    pub fn take_sent(&mut self) -> Vec<(TransportIx, Vec<u8>)> {
        let mut sent = Vec::new();
        for train in self.trains() {
            for packet in train.packets {
                let number = (ssrc_of(&packet), u16::from_be_bytes([packet[2], packet[3]]));
                let is_new = self.forwarded.insert(number);
                assert!(is_new, "number {} of {:#x} was forwarded twice", number.1, number.0);
                sent.push((train.transport, packet));
            }
        }
        let resent = self.sink.resent.drain(..);
        sent.extend(resent.map(|(_, transport, packet)| (transport, packet)));
        sent
    }

    /// The key frame requests sent since the last time.
    pub fn asked(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        for (at, transport, packet) in self.sink.rtcp.drain(..) {
            for (ssrc, means) in wire::key_frame_requests(&packet) {
                asks.push(Ask {
                    at,
                    transport,
                    ssrc,
                    means,
                });
            }
        }
        asks
    }

    /// The SSRCs asked for key frames since the last time.
    pub fn asked_ssrcs(&mut self) -> Vec<u32> {
        self.asked().iter().map(|ask| ask.ssrc).collect()
    }

    /// What the relay said since the last time.
    pub fn told(&mut self) -> Vec<Notification> {
        std::mem::take(&mut self.notifications)
    }

    /// Lets time pass until what has changed is told, and forgets it.
    pub fn settle(&mut self) {
        self.advance(ms(100));
        self.changes();
    }

    /// Changes of effective profiles since the last time; asserts that nothing else was said, but for who sends.
    pub fn changes(&mut self) -> Vec<(ConsumerId, Option<Profile>)> {
        self.told()
            .into_iter()
            .filter(|notification| !matches!(notification, Notification::ProducerActivityChanged { .. }))
            .map(|notification| match notification {
                Notification::EffectiveProfileChanged { consumer, profile } => (consumer, profile),
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    /// What the relay wanted done since the last time.
    pub fn wanted(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    // ---- Counters.

    #[track_caller]
    pub fn stats(&mut self, consumer: ConsumerId) -> ConsumerStats {
        let mut page = self.stats_page(Method::Stats(Scope::Consumer(consumer)));
        page.consumers.pop().expect("one entry")
    }

    #[track_caller]
    pub fn producer_stats(&mut self, producer: ProducerId) -> ProducerStats {
        let mut page = self.stats_page(Method::Stats(Scope::Producer(producer)));
        page.producers.pop().expect("one entry")
    }

    #[track_caller]
    pub fn transport_stats(&mut self, transport: TransportId) -> TransportStats {
        let mut page = self.stats_page(Method::Stats(Scope::Transport(transport)));
        page.transports.pop().expect("one entry")
    }

    #[track_caller]
    fn stats_page(&mut self, method: Method) -> StatsPage {
        match self.command(method) {
            Reply::Stats(page) => page,
            other => panic!("unexpected {other:?}"),
        }
    }

    /// How many packets of a consumer were dropped for a reason.
    #[track_caller]
    pub fn dropped(&mut self, consumer: ConsumerId, reason: DropReason) -> u64 {
        count_of(&self.stats(consumer).dropped, reason)
    }

    /// How many packets of a transport reached no producer, for a reason.
    #[track_caller]
    pub fn unrouted(&mut self, transport: TransportId, reason: UnroutedReason) -> u64 {
        count_of(&self.transport_stats(transport).unrouted, reason)
    }

    /// All pages of a room's statistics, as one.
    pub fn room_stats(&mut self, room: RoomId) -> StatsPage {
        let mut all = StatsPage::default();
        let mut page = Page::default();
        loop {
            let Reply::Stats(read) = self.command(Method::Stats(Scope::Room { room, page })) else {
                panic!("no statistics");
            };
            all.transports.extend(read.transports);
            all.producers.extend(read.producers);
            all.consumers.extend(read.consumers);
            if read.next.is_none() {
                return all;
            }
            page.cursor = read.next;
        }
    }

    /// The sink could not send a consumer's packets after all.
    pub fn lose(&mut self, consumer: ConsumerId, reason: DropReason, packets: u32) {
        let info = &self.consumers[&consumer];
        let (transport, ssrc) = (info.transport, info.request.ssrc);
        let owner = self
            .sink
            .trains
            .iter()
            .find(|train| train.transport == transport && train.packets.iter().any(|packet| ssrc_of(packet) == ssrc))
            .expect("the consumer was sent something")
            .owner;
        self.relay.handle_lost(owner, reason, packets);
        *self.lost.entry((consumer, reason)).or_default() += u64::from(packets);
    }

    /// Every living consumer's ledger adds up, and agrees with what the sink took.
    #[track_caller]
    pub fn check_accounts(&mut self) {
        for (consumer, info) in self.consumers.clone() {
            let Ok(Reply::Stats(page)) = self.attempt(Method::Stats(Scope::Consumer(consumer))) else {
                continue; // closed
            };
            let stats = &page.consumers[0];
            let dropped: u64 = stats.dropped.iter().map(|(_, count)| count).sum();
            assert_eq!(stats.packets_in, stats.packets_forwarded + dropped, "{stats:?}");
            let key = (info.transport, info.request.ssrc);
            let taken = self.sink.taken.get(&key).copied().unwrap_or(0);
            let mut lost = 0;
            for reason in [DropReason::BacklogFull, DropReason::SendFailed] {
                let refused = self.sink.refused.get(&(key.0, key.1, reason)).copied().unwrap_or(0);
                let lost_after = self.lost.get(&(consumer, reason)).copied().unwrap_or(0);
                assert_eq!(
                    count_of(&stats.dropped, reason),
                    refused + lost_after,
                    "{reason:?}: {stats:?}"
                );
                lost += lost_after;
            }
            assert_eq!(stats.packets_forwarded + lost, taken, "{stats:?}");
        }
    }
}

/// One packet as an arrival of its own.
pub fn single(source: SocketAddr, bytes: &[u8]) -> Arrival {
    Arrival {
        source,
        segment: bytes.len(),
        bytes: bytes.to_vec(),
    }
}

/// Packets as one train.
#[track_caller]
pub fn train(source: SocketAddr, packets: &[Packet]) -> Arrival {
    let segment = packets[0].bytes.len();
    let (last, full) = packets.split_last().expect("a train has packets");
    assert!(full.iter().all(|packet| packet.bytes.len() == segment) && last.bytes.len() <= segment);
    Arrival {
        source,
        segment,
        bytes: packets.iter().flat_map(|packet| packet.bytes.iter().copied()).collect(),
    }
}

pub fn ssrc_of(packet: &[u8]) -> u32 {
    u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]])
}

fn count_of<R: PartialEq>(counts: &[(R, u64)], reason: R) -> u64 {
    counts
        .iter()
        .find(|(other, _)| *other == reason)
        .map_or(0, |(_, count)| *count)
}
