//! What an attack costs: memory and CPU time of processes, as the kernel counts them.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// How often memory is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// The monotonic clock.
pub(crate) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap().into()
}

/// The resident memory of a process in bytes; 0 when there is none.
pub(crate) fn resident(pid: u32) -> u64 {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
    let pages: Option<u64> = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * 4_096
}

/// The CPU time that a process has used.
pub(crate) fn cpu(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name is in parentheses, and may itself have blanks.
    let numbers = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = numbers
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    // USER_HZ, which is the same everywhere.
    Duration::from_millis(ticks * 10)
}

/// The processes that a process has started and that run.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let lists = threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// The most memory that a server's supervisor and its workers (together) have had since the last reset, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    pub(crate) supervisor: u64,
    pub(crate) workers: u64,
}

impl Memory {
    /// What a server has now.
    pub(crate) fn of(supervisor: u32) -> Self {
        Self {
            supervisor: resident(supervisor),
            workers: children(supervisor).into_iter().map(resident).sum(),
        }
    }

    fn rise_to(&mut self, other: Self) {
        self.supervisor = self.supervisor.max(other.supervisor);
        self.workers = self.workers.max(other.workers);
    }
}

/// Watches a server's memory from a thread of its own.
pub(crate) struct Meter {
    peak: Arc<Mutex<Memory>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Meter {
    pub(crate) fn start(supervisor: u32) -> Self {
        let (peak, stop) = (
            Arc::new(Mutex::new(Memory::default())),
            Arc::new(AtomicBool::new(false)),
        );
        let (of_thread, stopped) = (Arc::clone(&peak), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let now = Memory::of(supervisor);
                of_thread.lock().unwrap().rise_to(now);
                thread::park_timeout(INTERVAL);
            }
        });
        Self {
            peak,
            stop,
            thread: Some(thread),
        }
    }

    /// Forgets what was before.
    pub(crate) fn reset(&self) {
        *self.peak.lock().unwrap() = Memory::default();
    }

    pub(crate) fn peak(&self) -> Memory {
        *self.peak.lock().unwrap()
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// CPU time of a server's supervisor and of its workers together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Work {
    supervisor: Duration,
    workers: BTreeMap<u32, Duration>,
    at: Duration,
}

impl Work {
    pub(crate) fn of(supervisor: u32) -> Self {
        Self {
            supervisor: cpu(supervisor),
            workers: children(supervisor).into_iter().map(|pid| (pid, cpu(pid))).collect(),
            at: now(),
        }
    }

    /// The share of one CPU since an earlier moment, of the supervisor and of the workers, in percent. What a worker did that has
    /// died since then is lost.
    pub(crate) fn since(&self, earlier: &Self) -> (f64, f64) {
        let passed = (self.at - earlier.at).as_secs_f64();
        let workers: Duration = self
            .workers
            .iter()
            .map(|(pid, cpu)| cpu.saturating_sub(earlier.workers.get(pid).copied().unwrap_or_default()))
            .sum();
        let share = |time: Duration| 100.0 * time.as_secs_f64() / passed;
        (
            share(self.supervisor.saturating_sub(earlier.supervisor)),
            share(workers),
        )
    }
}
