//! A server's life: what is called and what happens to its workers follows from a seed.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::{Notify, mpsc};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};
use weir_channel::id::WorkerId;

use super::faults::Blow;
use super::media::Media;
use super::network::{Shared, now};
use super::sim::ms;
use super::sim::random::Random;
use super::trace::Trace;
use super::worker::{Cradle, Process};
use crate::server::fake;
use crate::server::model::ids::seeded;
use crate::server::workers::simulated::{self, Birth, Ground};
use crate::server::{EventStream, Server, Settings};

/// No call takes longer, whatever happens to workers.
pub(super) const CALL_TIME_MAX: Duration = Duration::from_secs(40);

/// A short story has so many workers, and so many steps before something goes wrong.
const SHORT_WORKERS: Option<NonZeroU32> = NonZeroU32::new(2);
const SHORT_STEPS: usize = 24;

/// What came of a story.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Outcome {
    pub(super) digest: u64,
    pub(super) deaths: u64,
    pub(super) calls: u64,
    pub(super) packets: u64,
    /// Of these, media that was protected.
    pub(super) protected: u64,
    /// How long it lasted, in its own time.
    pub(super) time: Duration,
    /// Of a short one: how many bytes the worker had said that was cut off.
    pub(super) cut_of: u64,
}

/// Plays a story. If something is wrong it panics, and the story so far is printed.
pub(super) fn play(seed: u64) -> Outcome {
    play_with(seed, None)
}

/// Plays a short one, in which one thing goes wrong.
pub(super) fn play_short(seed: u64, blow: Blow) -> Outcome {
    play_with(seed, Some(blow))
}

fn play_with(seed: u64, blow: Option<Blow>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    seeded::begin(Some(seed));
    let outcome = runtime.block_on(tell(seed, blow));
    drop(runtime);
    simulated::stand_on(None);
    seeded::begin(None);
    outcome
}

async fn tell(seed: u64, blow: Option<Blow>) -> Outcome {
    let mut random = Random::new(seed);
    let (births, mut to_bear) = mpsc::unbounded_channel();
    simulated::stand_on(Some(Ground {
        began: Instant::now(),
        births,
        // Higher than those of processes can be.
        last_pid: 1 << 24,
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
        outcome = Story::tell(Rc::clone(&world), random, blow) => outcome,
    }
}

/// What everybody in a story shares.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) media: RefCell<Media>,
    pub(super) trace: RefCell<Trace>,
    pub(super) processes: RefCell<Vec<Rc<Process>>>,
    /// There may be something to look at.
    pub(super) changed: Notify,
    pub(super) calls: Cell<u64>,
}

impl World {
    pub(super) fn tell(&self, what: &dyn std::fmt::Display) {
        self.trace.borrow_mut().tell(what);
    }

    /// Lets remotes do what is due, and looks at what workers have sent.
    pub(super) fn look(&self) {
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

pub(super) type Call = Pin<Box<dyn Future<Output = ()>>>;

pub(super) struct Story {
    pub(super) world: Rc<World>,
    pub(super) random: Random,
    pub(super) server: Server,
    pub(super) events: EventStream,
    pub(super) calls: FuturesUnordered<Call>,
    /// Where consumers are sent to.
    pub(super) remotes: Rc<RefCell<BTreeMap<u64, std::net::SocketAddr>>>,
    pub(super) names: u64,
    /// Processes of a worker that were killed since one of them has served.
    pub(super) unserved_deaths: BTreeMap<WorkerId, u32>,
    pub(super) deaths: u64,
    /// How often something goes wrong, of a thousand steps.
    pub(super) faults: usize,
    /// How many of a thousand transports are of WebRTC.
    pub(super) webrtc: usize,
    pub(super) stats: BTreeMap<String, u64>,
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
    async fn tell(world: Rc<World>, mut random: Random, blow: Option<Blow>) -> Outcome {
        let mut settings = settings(&mut random);
        if blow.is_some() {
            settings.workers = SHORT_WORKERS;
        }
        let server = timeout(CALL_TIME_MAX, Server::start(settings));
        let server = server.await.expect("a server starts in time").expect("a server starts");
        let faults = random.pick(&[0, 20, 60, 150]);
        let webrtc = random.pick(&[0, 0, 300, 800]);
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
            webrtc,
            stats: BTreeMap::new(),
            world,
        };
        if let Some(blow) = blow {
            return story.tell_short(blow).await;
        }
        let steps = 60 + story.random.below(120);
        for step in 0..steps {
            story.step().await;
            if step % 40 == 39 {
                story.settle().await;
            }
        }
        story.end().await
    }

    /// Little happens, and then the one thing.
    async fn tell_short(mut self, blow: Blow) -> Outcome {
        self.faults = 0;
        for _ in 0..SHORT_STEPS {
            self.step().await;
        }
        let struck = self.strike(blow).await;
        for _ in 0..SHORT_STEPS / 4 {
            self.step().await;
        }
        let cut_of = struck.map_or(0, |process| process.cut_of.get());
        Outcome {
            cut_of,
            ..self.end().await
        }
    }

    pub(super) async fn step(&mut self) {
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
    pub(super) async fn meanwhile<T>(&mut self, what: impl Future<Output = T>) -> T {
        tokio::pin!(what);
        loop {
            tokio::select! {
                biased;
                done = &mut what => return done,
                Some(()) = self.calls.next(), if !self.calls.is_empty() => {}
            }
        }
    }
}
