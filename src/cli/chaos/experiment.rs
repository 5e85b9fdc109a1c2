//! The order of what happens: find the load, then fault by fault, with a look at everything in between.

use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use futures::future::join_all;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout_at};
use weir::{PlainTransportOptions, Room, WorkerId, WorkerState};
use weir_worker::net::clock;

use crate::cli::measuring::progress::Progress;
use crate::cli::measuring::random::Random;

use super::ChaosArgs;
use super::driver::{Driver, Look};
use super::fault::{Fault, descriptors_of, memory_of};
use super::losses::Dropped;
use super::report::{Report, Strike};
use super::scene::Scene;

/// Packets a second out of each worker, to begin the search for the load with.
const FIRST_RATE: f64 = 20_000.0;

/// How long the load is looked at in one step of the search.
const STEP: Duration = Duration::from_millis(500);

const STEPS_MAX: usize = 14;

/// Steps in a row that make workers no busier, until that is believed: one alone may have met something else that took the CPU.
const STUCK_MAX: usize = 2;

/// The load that was asked for, nearly.
const NEARLY: f64 = 0.05;

/// Who gets nothing for so long after a fault will get nothing any more.
const FLOWS_AGAIN_WITHIN: Duration = Duration::from_secs(15);

/// A rate that is so much higher and makes workers no busier, by [`NEARLY`], is more than they can do.
const RAISED: f64 = 1.2;

const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Calls that one fault has kept waiting for longer have failed.
const CALLS_WITHIN: Duration = Duration::from_secs(20);

/// Calls go on for so long after a worker was struck, at least.
const CALLS_FOR: Duration = Duration::from_millis(200);

/// One experiment.
pub(super) struct Experiment<'a> {
    pub args: &'a ChaosArgs,
    pub scene: Scene,
    pub driver: Driver,
}

/// What was asked of the server while a worker died.
#[derive(Clone, Debug, Default)]
struct Calls {
    made: u64,
    failed: u64,
    /// What the first failure said.
    complaint: Option<String>,
}

impl Calls {
    fn count<T>(&mut self, result: Result<Result<T, weir::Error>, tokio::time::error::Elapsed>) -> Option<T> {
        self.made += 1;
        let complaint = match result {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {CALLS_WITHIN:?}"),
        };
        self.failed += 1;
        self.complaint.get_or_insert(complaint);
        None
    }

    fn add(&mut self, other: Self) {
        self.made += other.made;
        self.failed += other.failed;
        self.complaint = self.complaint.take().or(other.complaint);
    }
}

impl Experiment<'_> {
    pub(super) async fn run(&mut self) -> anyhow::Result<Report> {
        let load = self.find_load().await?;
        let before = self.driver.look()?;
        sleep(Duration::from_secs(1)).await;
        let calm = self.driver.look()?;
        ensure!(
            calm.counts.received > before.counts.received,
            "no packet came through; `weir doctor` looks for what keeps a server on this machine from working"
        );
        let dropped = Dropped::read(&self.scene).await?;
        let mut report = Report::new(self.args, load, &calm);
        let progress = Progress::new("faults", u64::from(self.args.kills));
        let mut random = Random::new(self.args.seed);
        for number in 0..self.args.kills {
            let fault = self.args.faults[random.between([0, self.args.faults.len() - 1])];
            let worker = random.between([1, self.scene.server.num_workers()]) as u32;
            report
                .strikes
                .push(self.strike(number, fault, WorkerId(worker), &progress).await?);
            progress.advance();
            if self.scene.rooms.iter().all(Room::closed) {
                break;
            }
        }
        drop(progress);
        // What is missing now is repaired, or lost, by then.
        sleep(Duration::from_millis(1_500)).await;
        let dropped = Dropped::read(&self.scene).await?.since(&dropped);
        report.finish(&self.driver.look()?, dropped, self.rooms_lost());
        Ok(report)
    }

    fn rooms_lost(&self) -> usize {
        self.scene.rooms.iter().filter(|room| room.closed()).count()
    }

    /// Sends as much as makes the workers as busy as they should be. Returns how busy they are then, on average.
    async fn find_load(&self) -> anyhow::Result<f64> {
        let fan_out = f64::from(self.args.consumers) / f64::from(self.args.producers);
        let workers = self.scene.server.num_workers() as f64;
        let mut rate = FIRST_RATE * workers / fan_out;
        let mut load = 0.0;
        let progress = Progress::new("looking for the load, step", STEPS_MAX as u64);
        let mut before = (0.0, 0.0);
        let mut stuck = 0;
        for _ in 0..STEPS_MAX {
            self.driver.set_rate(rate)?;
            sleep(STEP / 2).await;
            let (cpu, at) = (self.cpu_ns().await?, Instant::now());
            sleep(STEP).await;
            load = (self.cpu_ns().await? - cpu) as f64 / at.elapsed().as_nanos() as f64 / workers;
            progress.advance();
            if (load - self.args.load).abs() <= NEARLY * self.args.load {
                break;
            }
            let (rate_before, load_before) = before;
            let is_stuck = rate > RAISED * rate_before && load_before > 0.0 && load < (1.0 + NEARLY) * load_before;
            stuck = if is_stuck { stuck + 1 } else { 0 };
            if stuck == STUCK_MAX {
                // What is sent beyond what they can do only waits.
                self.driver.set_rate(rate_before)?;
                progress.say(&format!(
                    "warning: the workers get no more than {:.0} % of a CPU; something else takes the rest, or they cannot be as busy",
                    load_before * 100.0
                ));
                return Ok(load_before);
            }
            if !is_stuck {
                before = (rate, load);
            }
            // Packets that come closer to each other cost less each, so this comes from below.
            rate *= (self.args.load / load.max(0.01)).clamp(0.3, 1.6);
        }
        Ok(load)
    }

    /// What all workers have used.
    async fn cpu_ns(&self) -> anyhow::Result<u64> {
        let mut sum = 0;
        for number in 1..=self.scene.server.num_workers() {
            let stats = self.scene.server.worker_stats(WorkerId(number as u32)).await;
            sum += stats.context("asking a worker for its counters")?.cpu_ns;
        }
        Ok(sum)
    }

    /// One fault, until everybody gets something again, and the worker has taken up all that its predecessor had.
    async fn strike(&self, number: u32, fault: Fault, worker: WorkerId, progress: &Progress) -> anyhow::Result<Strike> {
        let Some((Some(victim), restorations)) = self.process_of(worker) else {
            bail!("{worker} has no process");
        };
        self.driver.look()?;
        let calls = self.calls(number);
        let struck_ns = clock::monotonic().0;
        self.driver.note_struck(struck_ns);
        let (struck, calls) = tokio::join!(fault.strike(victim), calls);
        struck?;
        let end = Instant::now() + FLOWS_AGAIN_WITHIN;
        let mut waits_ns: Vec<u64> = Vec::new();
        let silent = loop {
            let look = self.driver.look()?;
            merge(&mut waits_ns, &look);
            let silent = look.newest_ns.iter().filter(|newest| **newest <= struck_ns).count();
            // A process that dies sooner than a second after it has taken up everything is not replaced at once.
            let is_restored = self.process_of(worker).is_none_or(|(_, now)| now != restorations);
            if silent == 0 && is_restored || self.scene.rooms.iter().all(Room::closed) {
                break silent;
            }
            if Instant::now() >= end {
                progress.say(&format!(
                    "{} number {}: {FLOWS_AGAIN_WITHIN:?} later {silent} of {} receivers have got nothing, {worker} is {}restored",
                    fault.name(),
                    number + 1,
                    look.newest_ns.len(),
                    if is_restored { "" } else { "not " }
                ));
                break silent;
            }
            sleep(LOOK_INTERVAL).await;
        };
        if fault == Fault::Stop {
            // If it was replaced, there is nobody to be woken.
            self.wake(victim);
        }
        sleep(Duration::from_secs_f64(self.args.interval)).await;
        merge(&mut waits_ns, &self.driver.look()?);
        let mut descriptors = descriptors_of(std::process::id())?;
        let mut memory = memory_of(std::process::id())?;
        for info in self.scene.server.workers() {
            if let (WorkerState::Running, Some(pid)) = (info.state, info.pid) {
                descriptors += descriptors_of(pid).unwrap_or_default();
                memory += memory_of(pid).unwrap_or_default();
            }
        }
        Ok(Strike {
            fault,
            waits_ns,
            silent,
            calls: calls.made,
            calls_failed: calls.failed,
            complaint: calls.complaint,
            descriptors,
            memory,
        })
    }

    /// A worker's process, and how many have taken over.
    fn process_of(&self, worker: WorkerId) -> Option<(Option<u32>, u64)> {
        let workers = self.scene.server.workers();
        let info = workers.into_iter().find(|info| info.id == worker)?;
        Some((info.pid, info.restorations))
    }

    fn wake(&self, pid: u32) {
        if let Ok(pid) = i32::try_from(pid) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGCONT);
        }
    }

    /// Asks for things in every room, from just before a worker dies until it should be back.
    async fn calls(&self, number: u32) -> Calls {
        let rooms = self.scene.rooms.iter().zip(&self.scene.toggled);
        let rooms = rooms.filter(|(room, _)| !room.closed());
        let each = rooms.map(|(room, consumer)| async move {
            let mut calls = Calls::default();
            let begun = Instant::now();
            let end = begun + CALLS_WITHIN;
            while begun.elapsed() < CALLS_FOR {
                calls.count(timeout_at(end, consumer.resume(Value::from(number))).await);
                calls.count(timeout_at(end, consumer.pause(Value::from(number))).await);
                let options = PlainTransportOptions::default();
                if let Some(transport) = calls.count(timeout_at(end, room.create_plain_transport(options)).await) {
                    calls.count(timeout_at(end, transport.close(Value::Null)).await);
                }
                sleep(LOOK_INTERVAL).await;
            }
            calls
        });
        let mut calls = Calls::default();
        join_all(each).await.into_iter().for_each(|of_room| calls.add(of_room));
        calls
    }
}

/// How many workers there are to be, so that a CPU is left for everything else.
pub(super) fn workers_for(cpus: usize) -> NonZeroU32 {
    let count = u32::try_from(cpus.saturating_sub(1)).unwrap_or(u32::MAX);
    NonZeroU32::new(count).unwrap_or(NonZeroU32::MIN)
}

/// Takes the longer wait of each receiver.
fn merge(waits_ns: &mut Vec<u64>, look: &Look) {
    waits_ns.resize(look.waits_ns.len(), 0);
    for (wait, other) in waits_ns.iter_mut().zip(&look.waits_ns) {
        *wait = (*wait).max(*other);
    }
}
