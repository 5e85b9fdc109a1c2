//! A server's life: what is called and what happens to its workers follows from a seed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use weir_channel::id::{ConsumerId, ProducerId, RoomId, WorkerId};
use weir_channel::message::{CodecName, MediaKind, Method, Profile, Remote, StatsPage};
use weir_worker::page::layout::Table;
use weir_worker::page::predecessor::Predecessor;
use weir_worker::time::Time;

use super::media::Media;
use super::network::{Shared, now};
use super::sim::ms;
use super::sim::random::Random;
use super::trace::Trace;
use super::worker::{Cradle, Process};
use crate::server::api::transport::ConsumerOptions;
use crate::server::fake;
use crate::server::model::ids::seeded;
use crate::server::workers::simulated::{self, Birth, Ground};
use crate::server::{
    Consumer, Direction, EnableOptions, Error, EventStream, Peer, PeerOptions, PlainTransportOptions, Producer,
    ProducerOptions, Room, RoomOptions, RtcpFeedback, RtpCodec, RtpEncoding, RtpParameters, Server, Settings,
    Transport, lock,
};

/// No call takes longer, whatever happens to workers.
const CALL_TIME_MAX: Duration = Duration::from_secs(40);

/// When nothing goes wrong any more, all workers serve within this time: the longest wait before a worker is replaced, and the time in
/// which a hang is noticed.
const RECOVERY_TIME_MAX: Duration = Duration::from_secs(25);

/// And then everybody is sent something within this time.
const FLOW_TIME_MAX: Duration = Duration::from_secs(2);

/// So many processes of a worker are killed before one of them has lived to serve: fewer than make the supervisor give up its rooms.
const UNSERVED_DEATHS_MAX: u32 = 4;

/// What came of a story.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Outcome {
    pub(super) digest: u64,
    pub(super) deaths: u64,
    pub(super) calls: u64,
    pub(super) packets: u64,
    /// How long it lasted, in its own time.
    pub(super) time: Duration,
}

/// Plays a story. If something is wrong it panics, and the story so far is printed.
pub(super) fn play(seed: u64) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    seeded::begin(Some(seed));
    let outcome = runtime.block_on(tell(seed));
    drop(runtime);
    simulated::stand_on(None);
    seeded::begin(None);
    outcome
}

async fn tell(seed: u64) -> Outcome {
    let mut random = Random::new(seed);
    let (births, mut to_bear) = mpsc::unbounded_channel();
    simulated::stand_on(Some(Ground {
        began: Instant::now(),
        births,
        last_pid: 100,
    }));
    let network = Shared::default();
    let mut cradle = Cradle {
        network: Rc::clone(&network),
        random: Random::new(random.next()),
        full: if random.chance(300) { 20 } else { 0 },
    };
    let world = Rc::new(World {
        seed,
        media: RefCell::new(Media::new(network, Random::new(random.next()))),
        trace: RefCell::default(),
        processes: RefCell::default(),
        changed: Notify::new(),
        calls: Cell::new(0),
    });
    let bearing = async {
        let mut lives = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                Some(birth) = to_bear.recv() => {
                    let birth: Birth = birth;
                    world.tell(&format_args!("process {} is made for {}", birth.pid, birth.worker));
                    let (process, life) = cradle.bear(birth);
                    world.processes.borrow_mut().push(process);
                    lives.push(life);
                }
                Some(()) = lives.next(), if !lives.is_empty() => {}
            }
            world.changed.notify_one();
        }
    };
    let sending = async {
        loop {
            world.look();
            let next = world.media.borrow().next_event();
            let next = next.map_or(ms(50), |next| next.since(now()).min(ms(50)));
            tokio::select! {
                biased;
                () = world.changed.notified() => {}
                () = sleep(next) => {}
            }
        }
    };
    tokio::select! {
        biased;
        () = async { tokio::join!(bearing, sending); } => unreachable!("they go on for ever"),
        outcome = Story::tell(Rc::clone(&world), random) => outcome,
    }
}

/// What everybody in a story shares.
struct World {
    seed: u64,
    media: RefCell<Media>,
    trace: RefCell<Trace>,
    processes: RefCell<Vec<Rc<Process>>>,
    /// There may be something to look at.
    changed: Notify,
    calls: Cell<u64>,
}

impl World {
    fn tell(&self, what: &dyn std::fmt::Display) {
        self.trace.borrow_mut().tell(what);
    }

    /// Lets remotes do what is due, and looks at what workers have sent.
    fn look(&self) {
        let mut media = self.media.borrow_mut();
        media.drain(&mut self.trace.borrow_mut());
        if media.run() {
            for process in self.processes.borrow().iter() {
                process.woken.notify_one();
            }
        }
        media.drain(&mut self.trace.borrow_mut());
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for line in self.trace.borrow().lines() {
                eprintln!("{line}");
            }
            eprintln!("SEED={} replays it", self.seed);
        }
    }
}

type Call = Pin<Box<dyn Future<Output = ()>>>;

struct Story {
    world: Rc<World>,
    random: Random,
    server: Server,
    events: EventStream,
    calls: FuturesUnordered<Call>,
    /// Where consumers are sent to.
    remotes: Rc<RefCell<BTreeMap<u64, std::net::SocketAddr>>>,
    names: u64,
    /// Processes of a worker that were killed since one of them has served.
    unserved_deaths: BTreeMap<WorkerId, u32>,
    deaths: u64,
    /// How often something goes wrong, of a thousand steps.
    faults: usize,
    stats: BTreeMap<String, u64>,
}

fn settings(random: &mut Random) -> Settings {
    Settings {
        workers: NonZeroU32::new(1 + random.below(2) as u32),
        rtc_tcp: false,
        coalescing_us_max: 0,
        ..fake::settings()
    }
}

impl Story {
    async fn tell(world: Rc<World>, mut random: Random) -> Outcome {
        let server = timeout(CALL_TIME_MAX, Server::start(settings(&mut random)));
        let server = server.await.expect("a server starts in time").expect("a server starts");
        let faults = random.pick(&[0, 20, 60, 150]);
        let mut story = Self {
            events: server.events(),
            server,
            random,
            calls: FuturesUnordered::new(),
            remotes: Rc::default(),
            names: 0,
            unserved_deaths: BTreeMap::new(),
            deaths: 0,
            faults,
            stats: BTreeMap::new(),
            world,
        };
        let steps = 60 + story.random.below(120);
        for step in 0..steps {
            story.step().await;
            if step % 40 == 39 {
                story.settle().await;
            }
        }
        story.end().await
    }

    async fn step(&mut self) {
        if self.random.chance(self.faults) {
            self.go_wrong().await;
        }
        if let Some(call) = self.call() {
            self.calls.push(call);
        }
        match self.random.below(10) {
            0..4 => {
                for _ in 0..self.random.below(12) {
                    self.meanwhile(yield_now()).await;
                }
            }
            4..9 => {
                let time = ms(1 + self.random.below(60) as u64);
                self.meanwhile(sleep(time)).await;
            }
            _ => {
                let time = ms(100 + self.random.below(900) as u64);
                self.meanwhile(sleep(time)).await;
            }
        }
        self.hear();
        self.know_consumers();
    }

    /// Calls go on meanwhile.
    async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> T {
        tokio::pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return done,
                Some(()) = self.calls.next(), if !self.calls.is_empty() => {}
            }
        }
    }

    // ---- What is called.

    /// Something that an application might want.
    fn call(&mut self) -> Option<Call> {
        let rooms = self.server.rooms();
        let dice = self.random.below(100);
        if rooms.is_empty() || (dice < 3 && rooms.len() < 3) {
            let server = self.server.clone();
            return Some(self.begin("create a room", async move {
                server.create_room(RoomOptions::default()).await.map(drop)
            }));
        }
        let room = self.pick(rooms)?;
        match dice {
            0..12 => self.join(&room),
            12..22 => self.open(&room),
            22..34 => self.produce(&room),
            34..52 => self.enable(&room),
            52..56 => self.consume(&room),
            56..68 => self.pause_consumer(&room),
            68..78 => self.pause_producer(&room),
            78..84 => self.prefer(&room),
            84..88 => self.ask(&room),
            88..96 => self.close(&room),
            96..99 => self.look_at(&room),
            _ if self.random.chance(200) => {
                Some(self.begin(
                    format!("close {}", room.id()),
                    async move { room.close(Value::Null).await },
                ))
            }
            _ => None,
        }
    }

    fn pick<T>(&mut self, mut items: Vec<T>) -> Option<T> {
        if items.is_empty() {
            return None;
        }
        let chosen = self.random.below(items.len());
        Some(items.swap_remove(chosen))
    }

    /// A call, which has one outcome, and that in time.
    fn begin(&self, what: impl std::fmt::Display, call: impl Future<Output = Result<(), Error>> + 'static) -> Call {
        self.begin_then(what, call, |_| {})
    }

    fn begin_then<T: 'static>(
        &self,
        what: impl std::fmt::Display,
        call: impl Future<Output = Result<T, Error>> + 'static,
        then: impl FnOnce(T) + 'static,
    ) -> Call {
        let (what, world) = (what.to_string(), Rc::clone(&self.world));
        world.calls.set(world.calls.get() + 1);
        let number = world.calls.get();
        world.tell(&format_args!("[{number}] {what}"));
        Box::pin(async move {
            let outcome = timeout(CALL_TIME_MAX, call).await;
            // What was sent until now was sent before anybody knew of the outcome.
            world.look();
            let outcome = outcome.unwrap_or_else(|_| panic!("[{number}] {what}: no outcome"));
            match outcome {
                Ok(value) => {
                    world.tell(&format_args!("[{number}] is done"));
                    then(value);
                }
                Err(error) => {
                    let is_expected = matches!(
                        error,
                        Error::InvalidState { .. }
                            | Error::AlreadyEnabled { .. }
                            | Error::NotEnabled { .. }
                            | Error::NotFound { .. }
                            | Error::TooMany { .. }
                    );
                    assert!(is_expected, "[{number}] {what}: {error}");
                    world.tell(&format_args!("[{number}] {error}"));
                }
            }
        })
    }

    fn join(&mut self, room: &Room) -> Option<Call> {
        if room.peers().len() >= 4 {
            return self.open(room);
        }
        self.names += 1;
        let name = format!("peer{}", self.names);
        self.world.tell(&format_args!("{name} joins {}", room.id()));
        let options = PeerOptions::new(name, room.rtp_capabilities().clone());
        let peer = room.create_peer(options).expect("a new name");
        Some(self.open_for(&peer, Direction::Send))
    }

    fn open(&mut self, room: &Room) -> Option<Call> {
        let peer = self.pick(room.peers())?;
        if peer.transports().len() >= 4 {
            return None;
        }
        let has_way_out = peer
            .transports()
            .iter()
            .any(|transport| transport.direction() == Some(Direction::Recv));
        let direction = if has_way_out && self.random.chance(500) {
            Direction::Send
        } else {
            Direction::Recv
        };
        Some(self.open_for(&peer, direction))
    }

    fn open_for(&mut self, peer: &Peer, direction: Direction) -> Call {
        let remote = self.world.media.borrow_mut().address();
        let comedia = direction == Direction::Send && self.random.chance(300);
        let rtcp_mux = self.random.chance(800);
        let options = PlainTransportOptions {
            remote: (!comedia).then_some(Remote {
                rtp: remote,
                rtcp: (!rtcp_mux).then(|| (remote.ip(), remote.port() + 1).into()),
            }),
            comedia,
            rtcp_mux,
            ..PlainTransportOptions::default()
        };
        let what = format!("open a transport ({direction:?}) for {}", peer.name());
        let (peer, remotes) = (peer.clone(), Rc::clone(&self.remotes));
        let call = async move { peer.create_plain_transport(options, Some(direction)).await };
        self.begin_then(what, call, move |transport: Transport| {
            remotes.borrow_mut().insert(transport.id().0, remote);
        })
    }

    fn way(&mut self, peer: &Peer, direction: Direction) -> Option<Transport> {
        let ways = peer.transports().into_iter();
        let ways = ways.filter(|transport| transport.direction() == Some(direction));
        self.pick(
            ways.filter(|transport| self.remotes.borrow().contains_key(&transport.id().0))
                .collect(),
        )
    }

    fn produce(&mut self, room: &Room) -> Option<Call> {
        let peer = self.pick(room.peers())?;
        if peer.producers().len() >= 3 {
            return None;
        }
        let transport = self.way(&peer, Direction::Send)?;
        let layers: &[Profile] = match self.random.below(4) {
            0 => &[Profile::Low, Profile::Medium, Profile::High],
            _ => &[Profile::Default],
        };
        let is_audio = layers.len() == 1 && self.random.chance(400);
        let ssrcs: Vec<u32> = layers.iter().map(|_| self.world.media.borrow_mut().ssrc()).collect();
        let (kind, codec, name) = match is_audio {
            true => (MediaKind::Audio, RtpCodec::new(CodecName::Opus, 111), CodecName::Opus),
            false => {
                let mut codec = RtpCodec::new(CodecName::Vp8, 96);
                if self.random.chance(500) {
                    codec.rtcp_feedback.push(RtcpFeedback::new("nack", ""));
                }
                (MediaKind::Video, codec, CodecName::Vp8)
            }
        };
        let encodings = match layers.len() {
            1 => vec![RtpEncoding::ssrc(ssrcs[0])],
            _ => ssrcs
                .iter()
                .zip(layers)
                .map(|(ssrc, layer)| RtpEncoding::layer(*ssrc, *layer))
                .collect(),
        };
        let options = ProducerOptions::new(
            kind,
            RtpParameters {
                codecs: vec![codec],
                encodings,
                ..RtpParameters::default()
            },
        );
        let from = self.remotes.borrow()[&transport.id().0];
        let what = format!("produce {name:?} ({} layers) on {}", layers.len(), transport.id());
        let world = Rc::clone(&self.world);
        Some(self.begin_then(
            what,
            async move { transport.produce(options).await },
            move |producer: Producer| {
                world.tell(&format_args!("it is {}", producer.id()));
                world.media.borrow_mut().send(producer, from, name, &ssrcs);
                world.changed.notify_one();
            },
        ))
    }

    fn enable(&mut self, room: &Room) -> Option<Call> {
        let peers = room.peers().into_iter();
        let waiting: Vec<_> = peers
            .flat_map(|peer| {
                peer.consumers()
                    .into_iter()
                    .map(move |consumer| (peer.clone(), consumer))
            })
            .filter(|(_, consumer)| !consumer.enabled())
            .collect();
        let (peer, consumer) = self.pick(waiting)?;
        let transport = self.way(&peer, Direction::Recv)?;
        let what = format!(
            "enable {} of {} on {}",
            consumer.id(),
            consumer.producer().id(),
            transport.id()
        );
        Some(self.begin(what, async move {
            consumer.enable(&transport, EnableOptions::default()).await
        }))
    }

    fn consume(&mut self, room: &Room) -> Option<Call> {
        let producer = self.pick(room.producers())?;
        let peer = self.pick(room.peers())?;
        let transport = self.way(&peer, Direction::Recv)?;
        let what = format!("consume {} on {}", producer.id(), transport.id());
        let options = ConsumerOptions::default();
        Some(self.begin(what, async move {
            transport.consume(producer.id(), options).await.map(drop)
        }))
    }

    fn enabled(&mut self, room: &Room) -> Option<Consumer> {
        let consumers = room.consumers().into_iter();
        self.pick(consumers.filter(Consumer::enabled).collect())
    }

    fn pause_consumer(&mut self, room: &Room) -> Option<Call> {
        let consumer = self.enabled(room)?;
        let (id, world) = (consumer.id(), Rc::clone(&self.world));
        if self.random.chance(600) {
            if let Some(listener) = world.media.borrow_mut().listeners.get_mut(&id) {
                listener.is_silenced = false;
            }
            return Some(self.begin(
                format!("resume {id}"),
                async move { consumer.resume(Value::Null).await },
            ));
        }
        let probe = consumer.clone();
        let call = async move { consumer.pause(Value::Null).await };
        Some(self.begin_then(format!("pause {id}"), call, move |()| {
            // Unless somebody has resumed it meanwhile, which may be under way.
            if let Some(listener) = world.media.borrow_mut().listeners.get_mut(&id)
                && probe.locally_paused()
            {
                listener.is_silenced = true;
            }
        }))
    }

    fn pause_producer(&mut self, room: &Room) -> Option<Call> {
        let producer = self.pick(room.producers())?;
        let (id, world) = (producer.id(), Rc::clone(&self.world));
        if self.random.chance(650) {
            world.media.borrow_mut().silenced.insert(id, false);
            return Some(self.begin(
                format!("resume {id}"),
                async move { producer.resume(Value::Null).await },
            ));
        }
        let probe = producer.clone();
        let call = async move { producer.pause(Value::Null).await };
        Some(self.begin_then(format!("pause {id}"), call, move |()| {
            if probe.locally_paused() {
                world.media.borrow_mut().silenced.insert(id, true);
            }
        }))
    }

    fn prefer(&mut self, room: &Room) -> Option<Call> {
        let profile = self
            .random
            .pick(&[Profile::Default, Profile::Low, Profile::Medium, Profile::High]);
        if self.random.chance(200) {
            let producer = self.pick(room.producers())?;
            let what = format!("{} prefers {profile:?}", producer.id());
            return Some(self.begin(what, async move { producer.set_preferred_profile(profile).await }));
        }
        let consumer = self.pick(room.consumers())?;
        let what = format!("{} prefers {profile:?}", consumer.id());
        Some(self.begin(what, async move { consumer.set_preferred_profile(profile).await }))
    }

    fn ask(&mut self, room: &Room) -> Option<Call> {
        let consumer = self.enabled(room)?;
        let what = format!("ask for a key frame for {}", consumer.id());
        Some(self.begin(what, async move { consumer.request_key_frame().await }))
    }

    fn close(&mut self, room: &Room) -> Option<Call> {
        match self.random.below(12) {
            0..5 => {
                let consumer = self.pick(room.consumers())?;
                let (id, world) = (consumer.id(), Rc::clone(&self.world));
                let call = async move { consumer.close(Value::Null).await };
                Some(self.begin_then(format!("close {id}"), call, move |()| {
                    if let Some(listener) = world.media.borrow_mut().listeners.get_mut(&id) {
                        listener.is_silenced = true;
                    }
                }))
            }
            5..8 => {
                let producer = self.pick(room.producers())?;
                let (id, world) = (producer.id(), Rc::clone(&self.world));
                let call = async move { producer.close(Value::Null).await };
                Some(self.begin_then(format!("close {id}"), call, move |()| {
                    world.media.borrow_mut().silenced.insert(id, true);
                }))
            }
            8..10 => {
                let transport = self.pick(room.transports())?;
                let what = format!("close {}", transport.id());
                Some(self.begin(what, async move { transport.close(Value::Null).await }))
            }
            _ => {
                let peer = self.pick(room.peers())?;
                let what = format!("close {}", peer.name());
                Some(self.begin(what, async move { peer.close(Value::Null).await }))
            }
        }
    }

    fn look_at(&mut self, room: &Room) -> Option<Call> {
        let room = room.clone();
        Some(self.begin(format!("statistics of {}", room.id()), async move {
            room.stats().await.map(drop)
        }))
    }

    // ---- What goes wrong.

    async fn go_wrong(&mut self) {
        let alive = self
            .world
            .processes
            .borrow()
            .iter()
            .filter(|process| !process.is_dead())
            .cloned()
            .collect();
        let Some(process) = self.pick::<Rc<Process>>(alive) else {
            return;
        };
        let until = now() + ms(50 + self.random.below(3_000) as u64);
        match self.random.below(10) {
            0 => {
                let chosen = self.random.below(100);
                self.world.media.borrow_mut().hold_breath(chosen, until);
                return;
            }
            1 | 2 => {
                let in_turn = self.random.chance(500);
                self.world.tell(&format_args!(
                    "process {} freezes until {until:?}, in a turn: {in_turn}",
                    process.pid
                ));
                if until.since(now()) < ms(900) || self.may_die(&process) {
                    process.freeze(until, in_turn);
                }
                return;
            }
            _ if !self.may_die(&process) => return,
            3..6 => {
                let most = self.random.pick(&[30, 1_000]);
                let stores = self.random.below(most) as u64;
                self.world
                    .tell(&format_args!("process {} dies after {stores} more stores", process.pid));
                process.kill_after_stores(stores);
            }
            6 | 7 => {
                let part = self.random.below(1_001) as u64;
                self.world.tell(&format_args!(
                    "process {} is cut off at {part} ‰ of what it says next",
                    process.pid
                ));
                process.cut_at.set(Some(part));
                process.woken.notify_one();
            }
            _ => {
                // Somewhere between two things that the supervisor awaits.
                for _ in 0..self.random.below(20) {
                    self.meanwhile(yield_now()).await;
                }
                self.world.tell(&format_args!("process {} dies", process.pid));
                process.kill();
            }
        }
        self.deaths += 1;
    }

    /// Whether a process may be killed, so that its worker's rooms are not given up. Counts its death.
    fn may_die(&mut self, process: &Process) -> bool {
        let slot = self.server.shared().workers.slot(process.worker).unwrap();
        let serves = slot.link().is_some_and(|link| link.served_since().is_some());
        let unserved = self.unserved_deaths.entry(process.worker).or_default();
        if serves {
            *unserved = 0;
        }
        *unserved += 1;
        *unserved <= UNSERVED_DEATHS_MAX
    }

    // ---- What is judged.

    /// What was told since.
    fn hear(&mut self) {
        while let Some(Some(event)) = self.events.next().now_or_never() {
            let value = serde_json::to_value(&*event).unwrap();
            let mut line = format!("event {}", value["type"].as_str().unwrap());
            for key in [
                "worker",
                "pid",
                "room",
                "transport",
                "producer",
                "consumer",
                "profile",
                "rooms",
                "lost",
                "gapMs",
            ] {
                if !value[key].is_null() {
                    line += &format!(" {key}={}", value[key]);
                }
            }
            let cause = value["cause"]["kind"].as_str().unwrap_or_default();
            let is_close = value["type"].as_str().unwrap().ends_with("Closed");
            line += &format!(" {cause}");
            self.world.tell(&line);
            assert!(
                !is_close || !["workerDied", "notRestored"].contains(&cause),
                "something was lost: {value}"
            );
            assert!(value["lost"].as_u64().unwrap_or(0) == 0, "something was lost: {value}");
        }
    }

    /// Notes where enabled consumers are sent to.
    fn know_consumers(&mut self) {
        for consumer in self.server.rooms().iter().flat_map(Room::consumers) {
            let Some(transport) = consumer.transport().filter(|_| consumer.enabled()) else {
                continue;
            };
            let remote = self.remotes.borrow().get(&transport.id().0).copied();
            let mut media = self.world.media.borrow_mut();
            if let Some(remote) = remote
                && media
                    .listeners
                    .get(&consumer.id())
                    .is_none_or(|listener| listener.flow.0 != remote)
            {
                media.listen(&consumer, remote);
            }
        }
    }

    /// Waits until nothing is under way, and looks whether all is as it should be.
    async fn settle(&mut self) {
        self.world.tell(&"quiet");
        for process in self.world.processes.borrow().iter() {
            process.disarm();
        }
        let began = now();
        while !self.calls.is_empty() || !self.all_serve() {
            self.meanwhile(sleep(ms(5))).await;
            let waited = now().since(began);
            assert!(waited < CALL_TIME_MAX + RECOVERY_TIME_MAX, "it does not come to rest");
        }
        self.meanwhile(sleep(ms(60))).await;
        self.hear();
        self.know_consumers();
        self.compare().await;
    }

    fn all_serve(&self) -> bool {
        self.server.shared().workers.slots.iter().all(|slot| {
            slot.is_running()
                && slot
                    .link()
                    .is_some_and(|link| link.served_since().is_some() && link.requests() == 0)
        })
    }

    /// What the supervisor wants is what the workers have; and the books are in order.
    async fn compare(&mut self) {
        for room in self.server.rooms() {
            let wanted = self.wanted(room.id());
            let dump = timeout(CALL_TIME_MAX, room.dump())
                .await
                .expect("in time")
                .expect("a dump");
            let transports = dump.transports.iter().map(|transport| transport.transport.to_string());
            let producers = dump.producers.iter();
            let producers = producers.map(|one| format!("{} {} {:?}", one.producer, one.paused, one.preferred_profile));
            let consumers = dump.consumers.iter();
            let consumers = consumers.map(|one| {
                format!(
                    "{} {} {:?} {:#x}",
                    one.consumer, one.paused, one.preferred_profile, one.ssrc
                )
            });
            let mut served: Vec<String> = transports.chain(producers).chain(consumers).collect();
            served.sort();
            assert_eq!(wanted, served, "what is wanted of {} and what is served", room.id());
            self.world.look();
            let left = self.world.media.borrow().counts();
            let stats = timeout(CALL_TIME_MAX, room.stats())
                .await
                .expect("in time")
                .expect("statistics");
            self.world.look();
            self.check_books(&stats, &left);
        }
    }

    fn wanted(&self, room: RoomId) -> Vec<String> {
        let state = lock(&self.server.shared().state);
        let mut wanted: Vec<String> = state
            .replay(room)
            .filter_map(|replayed| match replayed.method {
                Method::CreatePlainTransport(one) => Some(one.transport.to_string()),
                Method::CreateProducer(one) => {
                    Some(format!("{} {} {:?}", one.producer, one.paused, one.preferred_profile))
                }
                Method::CreateConsumer(one) => Some(format!(
                    "{} {} {:?} {:#x}",
                    one.consumer, one.paused, one.preferred_profile, one.ssrc
                )),
                _ => None,
            })
            .collect();
        wanted.sort();
        wanted
    }

    /// What came is what was forwarded or dropped by name, and nothing counts backwards.
    fn check_books(&mut self, stats: &StatsPage, left: &BTreeMap<ConsumerId, u64>) {
        let mut counts = Vec::new();
        let backlog: u64 = stats.transports.iter().map(|transport| transport.backlog_packets).sum();
        for consumer in &stats.consumers {
            let dropped: u64 = consumer.dropped.iter().map(|(_, count)| count).sum();
            assert_eq!(
                consumer.packets_in,
                consumer.packets_forwarded + dropped,
                "{consumer:?}"
            );
            // On another transport it counts anew.
            let place = self.world.media.borrow().place_of(consumer.consumer);
            counts.push((format!("{} in {place:?}", consumer.consumer), consumer.packets_in));
            counts.push((
                format!("{} out {place:?}", consumer.consumer),
                consumer.packets_forwarded,
            ));
            let before = left.get(&consumer.consumer).copied().unwrap_or(0);
            let after = self.world.media.borrow().count_of(consumer.consumer) + backlog;
            let forwarded = consumer.packets_forwarded;
            assert!(forwarded <= after, "{after} at most left for {consumer:?}");
            // What a worker has counted last may die with it.
            assert!(
                forwarded >= before || self.deaths > 0,
                "{before} at least left for {consumer:?}"
            );
        }
        for (producer, stream) in stats
            .producers
            .iter()
            .flat_map(|producer| producer.streams.iter().map(|stream| (producer.producer, stream)))
        {
            counts.push((format!("{producer} {:?}", stream.profile), stream.packets));
        }
        for (what, count) in counts {
            let before = self.stats.insert(what.clone(), count).unwrap_or(0);
            assert!(count >= before, "{what}: {count} after {before}");
        }
    }

    // ---- How it ends.

    async fn end(mut self) -> Outcome {
        self.faults = 0;
        self.settle().await;
        self.world.media.borrow_mut().breathe();
        self.flow().await;
        self.world.look();
        self.world.media.borrow().judge(self.deaths);
        self.close_all().await;
        let trace = self.world.trace.borrow();
        Outcome {
            digest: trace.digest(),
            deaths: self.deaths,
            calls: self.world.calls.get(),
            packets: self.world.media.borrow().packets,
            time: now().since(Time::from_millis(1_000)),
        }
    }

    /// Nothing goes wrong any more: whoever should be sent something is.
    async fn flow(&mut self) {
        let before: Vec<_> = {
            let media = self.world.media.borrow();
            let consumers = media.listeners.values().map(|listener| listener.consumer.clone());
            consumers
                .map(|consumer| (media.count_of(consumer.id()), consumer))
                .collect()
        };
        self.meanwhile(sleep(FLOW_TIME_MAX)).await;
        self.world.look();
        let media = self.world.media.borrow();
        for (count, consumer) in before {
            let producer: ProducerId = consumer.producer().id();
            let should_flow = !consumer.closed()
                && consumer.enabled()
                && !consumer.paused()
                && !consumer.source_paused()
                && media.is_sent(producer);
            if should_flow {
                let after = media.count_of(consumer.id());
                assert!(
                    after > count,
                    "{} is sent nothing of {producer} any more",
                    consumer.id()
                );
            }
        }
    }

    async fn close_all(&mut self) {
        for room in self.server.rooms() {
            let closed = timeout(CALL_TIME_MAX, room.close(Value::Null)).await;
            closed.expect("in time").expect("a room closes");
        }
        self.meanwhile(sleep(ms(100))).await;
        self.hear();
        for slot in &self.server.shared().workers.slots {
            let stats = timeout(CALL_TIME_MAX, self.server.worker_stats(slot.id())).await;
            let stats = stats.expect("in time").expect("statistics");
            let objects = [stats.rooms, stats.transports, stats.producers, stats.consumers];
            assert!(
                objects.iter().all(|count| *count == 0),
                "{objects:?} are left in {}",
                slot.id()
            );
        }
        for process in self
            .world
            .processes
            .borrow()
            .iter()
            .filter(|process| !process.is_dead())
        {
            assert_eq!(
                process.watching.borrow().sockets(),
                0,
                "process {} watches what is closed",
                process.pid
            );
            if let Ok(page) = Predecessor::open(Arc::clone(&process.page) as _) {
                let tables = [Table::Consumers, Table::Streams, Table::Transports, Table::WebRtc];
                let taken = tables.map(|table| page.taken(table));
                assert_eq!(taken, [0; 4], "slots of the page of process {}", process.pid);
            }
        }
        assert_eq!(self.server.shared().sockets.ports_taken(), 0, "ports are taken");
        let closed = timeout(CALL_TIME_MAX, self.server.close()).await;
        closed.expect("a server closes in time");
        self.hear();
        let alive = |process: &&Rc<Process>| !process.is_dead();
        let alive: Vec<u32> = self
            .world
            .processes
            .borrow()
            .iter()
            .filter(alive)
            .map(|process| process.pid)
            .collect();
        assert_eq!(alive, [0; 0], "processes are left");
    }
}
