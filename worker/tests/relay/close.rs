//! Closing, in every order: what goes with what, nothing left behind, nobody else touched. And reading a room in pages
//! while its members come and go.

use std::collections::{BTreeMap, BTreeSet};

use weir_channel::frame::{self, MAX_FRAME};
use weir_channel::id::{ConsumerId, ProducerId, RequestId, RoomId, TransportId};
use weir_channel::message::{
    CodecName, ComediaPolicy, CreatePlainTransport, DropReason, DumpPage, Message, Method, Page, Profile, Reply,
    Response, Scope, StatsPage, UnroutedReason, WorkerError,
};
use weir_worker::relay::Action;
use weir_worker::relay::limits::Limits;
use weir_worker::relay::sink::Port;

use crate::sim::track::Track;
use crate::sim::{Sim, for_each_seed, ms, single};

/// What is alive, by who it belongs to.
#[derive(Clone, Default)]
struct Alive {
    rooms: BTreeSet<RoomId>,
    transports: BTreeMap<TransportId, RoomId>,
    /// Their transport.
    producers: BTreeMap<ProducerId, TransportId>,
    /// Their producer, and their transport.
    consumers: BTreeMap<ConsumerId, (ProducerId, TransportId)>,
}

#[derive(Clone, Copy, Debug)]
enum Member {
    Room(RoomId),
    Transport(TransportId),
    Producer(ProducerId),
    Consumer(ConsumerId),
}

impl Member {
    fn close(self) -> Method {
        match self {
            Self::Room(room) => Method::CloseRouter { room },
            Self::Transport(transport) => Method::CloseTransport { transport },
            Self::Producer(producer) => Method::CloseProducer { producer },
            Self::Consumer(consumer) => Method::CloseConsumer { consumer },
        }
    }

    fn unknown(self) -> WorkerError {
        match self {
            Self::Room(id) => WorkerError::UnknownRoom(id),
            Self::Transport(id) => WorkerError::UnknownTransport(id),
            Self::Producer(id) => WorkerError::UnknownProducer(id),
            Self::Consumer(id) => WorkerError::UnknownConsumer(id),
        }
    }
}

impl Alive {
    fn has(&self, member: Member) -> bool {
        match member {
            Member::Room(id) => self.rooms.contains(&id),
            Member::Transport(id) => self.transports.contains_key(&id),
            Member::Producer(id) => self.producers.contains_key(&id),
            Member::Consumer(id) => self.consumers.contains_key(&id),
        }
    }

    /// A room takes its transports along, a transport its producers and consumers, a producer its consumers.
    fn close(&mut self, member: Member) {
        match member {
            Member::Room(id) => drop(self.rooms.remove(&id)),
            Member::Transport(id) => drop(self.transports.remove(&id)),
            Member::Producer(id) => drop(self.producers.remove(&id)),
            Member::Consumer(id) => drop(self.consumers.remove(&id)),
        }
        self.transports.retain(|_, room| self.rooms.contains(room));
        self.producers
            .retain(|_, transport| self.transports.contains_key(transport));
        self.consumers.retain(|_, (producer, transport)| {
            self.producers.contains_key(producer) && self.transports.contains_key(transport)
        });
    }

    fn counts(&self) -> (u64, u64, u64, u64) {
        (
            self.rooms.len() as u64,
            self.transports.len() as u64,
            self.producers.len() as u64,
            self.consumers.len() as u64,
        )
    }
}

/// All pages of a room's dump, as one.
fn dump(sim: &mut Sim, room: RoomId) -> DumpPage {
    let mut all = DumpPage::default();
    let mut page = Page::default();
    loop {
        let Reply::Dump(read) = sim.command(Method::Dump(Scope::Room { room, page })) else {
            panic!("no dump");
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

/// The relay's tables are what is alive, and nothing in them points elsewhere.
#[track_caller]
fn check(sim: &mut Sim, alive: &Alive) {
    assert_eq!(sim.relay.counts(), alive.counts());
    let mut found = Alive::default();
    for room in &alive.rooms {
        found.rooms.insert(*room);
        let dump = dump(sim, *room);
        for transport in dump.transports {
            found.transports.insert(transport.transport, *room);
            let owners = transport.ssrcs.iter().map(|(_, owner)| owner);
            let owners = owners.chain(transport.mids.iter().map(|(_, owner)| owner));
            for owner in owners.chain(transport.rids.iter().map(|(_, owner)| owner)) {
                assert_eq!(
                    alive.producers.get(owner),
                    Some(&transport.transport),
                    "a route to {owner}"
                );
            }
        }
        for producer in dump.producers {
            let consumers: BTreeSet<_> = producer.consumers.into_iter().collect();
            let expected = alive
                .consumers
                .iter()
                .filter(|(_, (source, _))| *source == producer.producer);
            assert_eq!(consumers, expected.map(|(consumer, _)| *consumer).collect());
            found.producers.insert(producer.producer, producer.transport);
        }
        for consumer in dump.consumers {
            found
                .consumers
                .insert(consumer.consumer, (consumer.producer, consumer.transport));
        }
        let stats = sim.room_stats(*room);
        let own = alive.transports.iter().filter(|(_, owner)| *owner == room);
        assert_eq!(stats.transports.len(), own.count());
    }
    assert_eq!(found.transports, alive.transports);
    assert_eq!(found.producers, alive.producers);
    assert_eq!(found.consumers, alive.consumers);
}

/// Closes one after the other; those that have gone with another are not known any more.
fn close_all(sim: &mut Sim, alive: &mut Alive, order: &[Member]) {
    for member in order {
        let transports: BTreeSet<_> = alive.transports.keys().map(|transport| sim.index(*transport)).collect();
        let result = sim.attempt(member.close());
        if alive.has(*member) {
            assert_eq!(result, Ok(Reply::Done), "{member:?}");
        } else {
            assert_eq!(result, Err(member.unknown()));
        }
        alive.close(*member);
        // The shell closes the sockets of just those transports that went.
        let left: BTreeSet<_> = alive.transports.keys().map(|transport| sim.index(*transport)).collect();
        let closed: Vec<_> = sim
            .wanted()
            .into_iter()
            .map(|action| match action {
                Action::Close { transport } => transport,
                other => panic!("unexpected {other:?}"),
            })
            .collect();
        assert_eq!(closed.len(), closed.iter().collect::<BTreeSet<_>>().len());
        assert_eq!(closed.into_iter().collect::<BTreeSet<_>>(), &transports - &left);
        check(sim, alive);
    }
}

fn permutations(items: &[Member]) -> Vec<Vec<Member>> {
    let Some((first, rest)) = items.split_first() else {
        return vec![Vec::new()];
    };
    let mut all = Vec::new();
    for permutation in permutations(rest) {
        for place in 0..=permutation.len() {
            let mut longer = permutation.clone();
            longer.insert(place, *first);
            all.push(longer);
        }
    }
    all
}

/// Makes a room with this many senders (each with a microphone and a camera) and receivers of everything.
fn populate(sim: &mut Sim, alive: &mut Alive, senders: usize, receivers: usize) -> (Vec<Track>, Vec<Member>) {
    let room = sim.room();
    alive.rooms.insert(room);
    let mut members = vec![Member::Room(room)];
    let mut tracks = Vec::new();
    for _ in 0..senders {
        let sender = sim.transport(room);
        alive.transports.insert(sender, room);
        members.push(Member::Transport(sender));
        for track in [sim.microphone(sender), sim.simulcast(sender)] {
            alive.producers.insert(track.id(), sender);
            members.push(Member::Producer(track.id()));
            tracks.push(track);
        }
    }
    for _ in 0..receivers {
        let receiver = sim.transport(room);
        alive.transports.insert(receiver, room);
        members.push(Member::Transport(receiver));
        for track in &tracks {
            let consumer = sim.consumer(receiver, track);
            alive.consumers.insert(consumer, (track.id(), receiver));
            members.push(Member::Consumer(consumer));
        }
    }
    (tracks, members)
}

#[test]
fn every_order_of_closing() {
    let orders = {
        let placeholder = [
            Member::Room(RoomId(0)),
            Member::Transport(TransportId(0)),
            Member::Transport(TransportId(1)),
            Member::Producer(ProducerId(0)),
            Member::Consumer(ConsumerId(0)),
            Member::Consumer(ConsumerId(1)),
        ];
        permutations(&placeholder).len()
    };
    assert_eq!(orders, 720);
    for order in 0..orders {
        let mut sim = Sim::new(1);
        let mut alive = Alive::default();
        let room = sim.room();
        let sender = sim.transport(room);
        let receiver = sim.transport(room);
        let mut track = sim.simulcast(sender);
        // One leaves on the receiver's transport, one on the sender's own.
        let consumers = [sim.consumer(receiver, &track), sim.consumer(sender, &track)];
        alive.rooms.insert(room);
        alive.transports = BTreeMap::from([(sender, room), (receiver, room)]);
        alive.producers.insert(track.id(), sender);
        alive.consumers = BTreeMap::from([
            (consumers[0], (track.id(), receiver)),
            (consumers[1], (track.id(), sender)),
        ]);
        for stream in &mut track.streams {
            let frame = stream.key_frame(2);
            sim.send(sender, &frame);
        }
        let members = [
            Member::Room(room),
            Member::Transport(sender),
            Member::Transport(receiver),
            Member::Producer(track.id()),
            Member::Consumer(consumers[0]),
            Member::Consumer(consumers[1]),
        ];
        close_all(&mut sim, &mut alive, &permutations(&members)[order]);
        assert_eq!(sim.relay.counts(), (0, 0, 0, 0));
        // No timer is left either.
        sim.advance(ms(3_000));
        assert_eq!(sim.relay.next_timeout(), None);
    }
}

/// Rooms in which traffic goes on while members are closed in random orders; another room notices nothing.
#[test]
fn random_orders_of_closing_under_traffic() {
    for_each_seed(20, |seed| {
        let mut sim = Sim::new(seed);
        let mut alive = Alive::default();
        let (mut tracks, mut members) = populate(&mut sim, &mut alive, 2, 3);
        let (others, mut more) = populate(&mut sim, &mut alive, 1, 2);
        tracks.extend(others);
        members.append(&mut more);
        let mut untouched = Alive::default();
        let (mut bystanders, _) = populate(&mut sim, &mut untouched, 1, 1);
        alive.rooms.extend(untouched.rooms);
        alive.transports.extend(untouched.transports);
        alive.producers.extend(untouched.producers);
        alive.consumers.extend(untouched.consumers.clone());
        let mut random = sim.random.clone();
        random.shuffle(&mut members);
        let mut steady = 0;
        for member in members {
            for track in &mut tracks {
                let gone = !alive.producers.contains_key(&track.id());
                for stream in &mut track.streams {
                    let frame = stream.frame_of(2, random.chance(300));
                    if !gone {
                        sim.send(track.request.transport, &frame);
                    } else if alive.transports.contains_key(&track.request.transport) {
                        // A sender that has not heard of it yet.
                        let before = sim.unrouted(track.request.transport, UnroutedReason::UnknownStream);
                        sim.send(track.request.transport, &frame);
                        assert_eq!(
                            sim.unrouted(track.request.transport, UnroutedReason::UnknownStream),
                            before + 2
                        );
                    }
                }
            }
            for track in &mut bystanders {
                for stream in &mut track.streams {
                    let frame = stream.key_frame(1);
                    sim.send(track.request.transport, &frame);
                }
            }
            steady += 1;
            sim.advance(ms(20));
            close_all(&mut sim, &mut alive, &[member]);
        }
        for (consumer, (producer, _)) in &untouched.consumers {
            let streams = bystanders
                .iter()
                .find(|track| track.id() == *producer)
                .map(|track| track.streams.len());
            let stats = sim.stats(*consumer);
            assert_eq!(stats.packets_in, steady * streams.expect("it is one of them") as u64);
            assert!(stats.packets_forwarded >= steady);
        }
        assert_eq!(sim.relay.counts(), (1, 2, 2, 2));
    });
}

#[test]
fn indices_of_the_dead_do_no_harm() {
    let mut sim = Sim::new(2);
    let mut alive = Alive::default();
    let (mut tracks, members) = populate(&mut sim, &mut alive, 1, 2);
    let track = &mut tracks[1];
    let sender = track.transport();
    let source = sim.addresses[&sender];
    for stream in &mut track.streams {
        let frame = stream.key_frame(2);
        sim.send(sender, &frame);
    }
    let stale_consumers: BTreeSet<_> = sim.sink.trains.iter().map(|train| train.owner).collect();
    let stale_transports: Vec<_> = alive.transports.keys().map(|transport| sim.index(*transport)).collect();
    // A request that is held back still has its timer when its producer is gone.
    for consumer in alive.consumers.keys().copied().collect::<Vec<_>>() {
        sim.pli(consumer);
        sim.pli(consumer);
    }
    close_all(&mut sim, &mut alive, &members[..1]);
    let frame = track.streams[0].key_frame(1);
    for index in &stale_transports {
        sim.deliver_at(*index, Port::Rtp, &[single(source, &frame[0].bytes)]);
        sim.deliver_at(*index, Port::Rtcp, &[single(source, b"")]);
    }
    for owner in &stale_consumers {
        sim.relay.handle_lost(*owner, DropReason::SendFailed, 3);
    }
    sim.asked();
    sim.advance(ms(2_000));
    assert_eq!(sim.asked(), []);
    // Their slots are taken by others now: what is said of the dead is not laid to the living.
    sim.consumers.clear();
    let (_, _) = populate(&mut sim, &mut alive, 1, 2);
    let fresh: Vec<_> = alive.consumers.keys().copied().collect();
    for owner in &stale_consumers {
        sim.relay.handle_lost(*owner, DropReason::SendFailed, 3);
    }
    for consumer in fresh {
        assert_eq!(sim.stats(consumer).dropped, []);
    }
}

#[test]
fn ids_of_the_living_are_refused() {
    let mut sim = Sim::new(3);
    let mut alive = Alive::default();
    let (tracks, _) = populate(&mut sim, &mut alive, 1, 1);
    let (room, other_room) = (tracks[0].request.room, sim.room());
    alive.rooms.insert(other_room);
    let transport = tracks[0].transport();
    let consumer = *alive.consumers.keys().next().expect("there are two");
    let mut pattern = sim.consumers[&consumer].request.clone();
    pattern.ssrc += 1;
    let requests = [
        (Method::CreateRouter { room }, WorkerError::DuplicateRoom(room)),
        (
            Method::CreatePlainTransport(CreatePlainTransport {
                room: other_room,
                transport,
                remote: None,
                comedia: false,
                rtcp_mux: true,
                comedia_policy: ComediaPolicy::default(),
                comedia_from: None,
            }),
            WorkerError::DuplicateTransport(transport),
        ),
        (
            Method::CreateProducer(tracks[0].request.clone()),
            WorkerError::DuplicateProducer(tracks[0].id()),
        ),
        (
            Method::CreateConsumer(pattern.clone()),
            WorkerError::DuplicateConsumer(consumer),
        ),
    ];
    for (request, error) in requests {
        assert_eq!(sim.attempt(request), Err(error));
        check(&mut sim, &alive);
    }
    // Things of another room.
    let foreign = sim.transport(other_room);
    alive.transports.insert(foreign, other_room);
    let mut request = pattern.clone();
    (request.consumer, request.transport) = (ConsumerId(99_999), foreign);
    let error = WorkerError::OtherRoom {
        entity: foreign.to_string(),
        room,
    };
    assert_eq!(sim.attempt(Method::CreateConsumer(request.clone())), Err(error));
    request.room = other_room;
    let error = WorkerError::OtherRoom {
        entity: request.producer.to_string(),
        room: other_room,
    };
    assert_eq!(sim.attempt(Method::CreateConsumer(request)), Err(error));
    let mut request = tracks[0].request.clone();
    (request.producer, request.room) = (ProducerId(99_999), other_room);
    let error = WorkerError::OtherRoom {
        entity: transport.to_string(),
        room: other_room,
    };
    assert_eq!(sim.attempt(Method::CreateProducer(request)), Err(error));
    check(&mut sim, &alive);
}

#[test]
fn limits_are_kept_and_named() {
    let limits = Limits {
        rooms: 1,
        transports: 2,
        producers: 3,
        producers_per_transport: 2,
        consumers: 2,
    };
    let mut sim = Sim::with_limits(4, limits);
    let room = sim.room();
    let transports = [sim.transport(room), sim.transport(room)];
    let tracks = [sim.microphone(transports[0]), sim.microphone(transports[0])];
    let too_many = |noun: &str, limit| WorkerError::TooMany {
        noun: noun.into(),
        limit,
    };
    let attempt = |sim: &mut Sim, transport| sim.attempt_track(transport, CodecName::Opus, &[Profile::Default], |_| {});
    assert_eq!(
        attempt(&mut sim, transports[0]).expect_err("the third here"),
        too_many("producers on a transport", 2)
    );
    attempt(&mut sim, transports[1]).expect("the third in all");
    assert_eq!(
        attempt(&mut sim, transports[1]).expect_err("the fourth"),
        too_many("producers", 3)
    );
    sim.consumer(transports[1], &tracks[0]);
    sim.consumer(transports[1], &tracks[1]);
    let request = sim.consumer_request(transports[1], &tracks[0], |_| {});
    assert_eq!(
        sim.attempt(Method::CreateConsumer(request)),
        Err(too_many("consumers", 2))
    );
    let room = RoomId(77);
    assert_eq!(sim.attempt(Method::CreateRouter { room }), Err(too_many("rooms", 1)));
    let request = CreatePlainTransport {
        room: tracks[0].request.room,
        transport: TransportId(78),
        remote: None,
        comedia: false,
        rtcp_mux: true,
        comedia_policy: ComediaPolicy::default(),
        comedia_from: None,
    };
    assert_eq!(
        sim.attempt(Method::CreatePlainTransport(request)),
        Err(too_many("transports", 2))
    );
}

/// How long a reply is in its frame.
fn frame_len(reply: Reply) -> usize {
    let response = Response {
        id: RequestId(u64::MAX),
        result: Ok(reply),
    };
    frame::encode(&Message::Response(response))
        .expect("it fits a frame")
        .len()
}

/// A page with every counter as large as it can be, and every reason counted.
fn inflated(mut page: StatsPage) -> StatsPage {
    const MOST: u64 = u64::MAX;
    for transport in &mut page.transports {
        transport.unrouted = UnroutedReason::ALL.map(|reason| (reason, MOST)).into();
        for counter in [
            &mut transport.packets_received,
            &mut transport.bytes_received,
            &mut transport.packets_sent,
            &mut transport.bytes_sent,
            &mut transport.rtcp_received,
            &mut transport.rtcp_sent,
            &mut transport.kernel_drops,
            &mut transport.backlog_packets,
        ] {
            *counter = MOST;
        }
    }
    for stream in page.producers.iter_mut().flat_map(|producer| &mut producer.streams) {
        stream.ssrc = u32::MAX;
        for counter in [
            &mut stream.packets,
            &mut stream.bytes,
            &mut stream.bitrate,
            &mut stream.packets_lost,
            &mut stream.packets_discarded,
            &mut stream.packets_duplicated,
            &mut stream.key_frames,
            &mut stream.pli_count,
            &mut stream.packets_paused,
        ] {
            *counter = MOST;
        }
    }
    for consumer in &mut page.consumers {
        consumer.dropped = DropReason::ALL.map(|reason| (reason, MOST)).into();
        consumer.last_seq = Some(MOST);
        for counter in [
            &mut consumer.packets_in,
            &mut consumer.packets_forwarded,
            &mut consumer.bytes_forwarded,
            &mut consumer.bitrate,
            &mut consumer.switches,
            &mut consumer.pli_count,
        ] {
            *counter = MOST;
        }
    }
    page.next = Some(MOST);
    page
}

/// Thousands of consumers, of which some are closed and others made between two pages: whoever is there all the time is on
/// exactly one page, nobody is on two, and every page fits its frame even at its largest.
#[test]
fn pages_of_a_room_that_changes() {
    for_each_seed(3, |seed| {
        let mut sim = Sim::new(seed);
        sim.skip_ids(1 << 40);
        let room = sim.room();
        let mut tracks = Vec::new();
        for _ in 0..10 {
            let sender = sim.transport(room);
            tracks.push(sim.simulcast(sender));
        }
        let receivers: Vec<_> = (0..1_100).map(|_| sim.transport(room)).collect();
        for index in 0..4_000 {
            sim.consumer(receivers[index % receivers.len()], &tracks[index % tracks.len()]);
        }
        for dumped in [false, true] {
            let mut steady: BTreeSet<ConsumerId> = sim.consumers.keys().copied().collect();
            let mut seen = BTreeMap::new();
            let mut page = Page::default();
            let (mut pages, mut transports) = (0, 0);
            loop {
                let (consumers, next): (Vec<_>, _) = if dumped {
                    let Reply::Dump(read) = sim.command(Method::Dump(Scope::Room { room, page })) else {
                        panic!("no dump");
                    };
                    transports += read.transports.len();
                    assert!(frame_len(Reply::Dump(read.clone())) <= MAX_FRAME);
                    (
                        read.consumers.iter().map(|consumer| consumer.consumer).collect(),
                        read.next,
                    )
                } else {
                    let Reply::Stats(read) = sim.command(Method::Stats(Scope::Room { room, page })) else {
                        panic!("no statistics");
                    };
                    transports += read.transports.len();
                    assert!(frame_len(Reply::Stats(inflated(read.clone()))) <= MAX_FRAME);
                    (
                        read.consumers.iter().map(|consumer| consumer.consumer).collect(),
                        read.next,
                    )
                };
                pages += 1;
                for consumer in consumers {
                    *seen.entry(consumer).or_insert(0) += 1;
                }
                let Some(next) = next else { break };
                page.cursor = Some(next);
                for _ in 0..20 {
                    let consumers: Vec<_> = sim.consumers.keys().copied().collect();
                    let consumer = sim.random.pick(&consumers);
                    sim.command(Method::CloseConsumer { consumer });
                    sim.consumers.remove(&consumer);
                    steady.remove(&consumer);
                    let (receiver, track) = (sim.random.pick(&receivers), sim.random.below(tracks.len()));
                    sim.consumer(receiver, &tracks[track]);
                }
            }
            assert!(pages > 4, "{pages}");
            assert_eq!(transports, 1_110);
            assert!(seen.values().all(|times| *times == 1), "somebody is on two pages");
            assert!(
                steady.iter().all(|consumer| seen.contains_key(consumer)),
                "somebody is on none"
            );
        }
    });
}

/// A producer's dump names its consumers: fifty producers of a page with a thousand names each still fit a frame.
#[test]
fn pages_of_the_longest_entries_fit_a_frame() {
    let mut sim = Sim::new(5);
    sim.skip_ids(1 << 40);
    let room = sim.room();
    let transport = sim.transport(room);
    let tracks: Vec<_> = (0..50)
        .map(|index| {
            sim.track(
                transport,
                CodecName::Vp8,
                &[Profile::Low, Profile::Medium, Profile::High],
                |request| {
                    request.mid = Some(format!("{index:032}"));
                    for (place, encoding) in request.encodings.iter_mut().enumerate() {
                        encoding.rid = Some(format!("{place:032}"));
                    }
                },
            )
        })
        .collect();
    for track in &tracks {
        for _ in 0..1_001 {
            sim.consumer(transport, track);
        }
    }
    let mut page = Page::default();
    let mut longest = 0;
    let mut consumers = 0;
    loop {
        let Reply::Dump(read) = sim.command(Method::Dump(Scope::Room { room, page })) else {
            panic!("no dump");
        };
        consumers += read.consumers.len();
        let next = read.next;
        longest = longest.max(frame_len(Reply::Dump(read)));
        if next.is_none() {
            break;
        }
        page.cursor = next;
    }
    assert_eq!(consumers, 50 * 1_001);
    assert!(longest > MAX_FRAME / 4 && longest <= MAX_FRAME, "{longest}");
}

/// Cursors are a kind and an id in one number; ids that leave no room for the kind are refused.
#[test]
fn ids_that_no_cursor_can_name_are_refused() {
    let mut sim = Sim::new(6);
    let room = sim.room();
    let sender = sim.transport(room);
    let track = sim.microphone(sender);
    let mut attempts = Vec::new();
    for id in [1 << 62, (1 << 62) + 5, 2 << 62, u64::MAX] {
        let mut producer = track.request.clone();
        producer.producer = ProducerId(id);
        producer.encodings[0].ssrc = Some(4_711);
        attempts.push(Method::CreateProducer(producer));
        let consumer = sim.consumer_request(sender, &track, |request| request.consumer = ConsumerId(id));
        attempts.push(Method::CreateConsumer(consumer));
        attempts.push(Method::CreatePlainTransport(CreatePlainTransport {
            room,
            transport: TransportId(id),
            remote: None,
            comedia: false,
            rtcp_mux: true,
            comedia_policy: ComediaPolicy::default(),
            comedia_from: None,
        }));
    }
    for attempt in attempts {
        let result = sim.attempt(attempt.clone());
        assert!(
            matches!(result, Err(WorkerError::InvalidParameters(_))),
            "{attempt:?}: {result:?}"
        );
    }
    // The largest that is not refused can be read in pages like any other.
    for index in 0..120 {
        sim.command(Method::CreatePlainTransport(CreatePlainTransport {
            room,
            transport: TransportId((1 << 62) - 1 - index),
            remote: None,
            comedia: false,
            rtcp_mux: true,
            comedia_policy: ComediaPolicy::default(),
            comedia_from: None,
        }));
    }
    let dump = dump(&mut sim, room);
    assert_eq!((dump.transports.len(), dump.producers.len()), (121, 1));
    // Cursors that nobody gave out lead to nothing bad.
    for cursor in [0, 1, 1 << 62, 3 << 62, u64::MAX, u64::MAX >> 1] {
        let page = Page { cursor: Some(cursor) };
        sim.command(Method::Dump(Scope::Room { room, page }));
        sim.command(Method::Stats(Scope::Room { room, page }));
    }
}
