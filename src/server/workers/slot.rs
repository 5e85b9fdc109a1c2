//! A worker as callers see it: a number that stays, whichever process has it.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use weir_channel::id::WorkerId;
use weir_channel::lanes::Lane;
use weir_channel::message::{QuarantinedSource, Reply, Sandbox};

use crate::server::model::error::{DeathCause, Error};
use crate::server::model::lock;
use crate::server::model::state::{Command, State};
use crate::server::workers::link::{Link, Restorations};
use crate::server::workers::totals::Totals;

/// The state of a worker process.
#[derive(Clone, PartialEq, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerInfo {
    /// Its number, from 1; a successor has the same number.
    pub id: WorkerId,
    /// Its process id, while it has a process.
    pub pid: Option<u32>,
    /// The CPU it is pinned to.
    pub cpu: Option<usize>,
    /// The state of the worker.
    pub state: WorkerState,
    /// The number of its rooms, with those that are being created.
    pub rooms: usize,
    /// The number of requests that it has not answered yet.
    pub requests: usize,
    /// The number of requests in a row that it has not answered in time; 0 again as soon as it accepts one. While there are
    /// any, it gets no new rooms if another worker can take them.
    pub timeouts: u32,
    /// The number of times that its process was replaced.
    pub restarts: u64,
    /// The number of times that a new process has taken up all that its predecessor had left.
    pub restorations: u64,
    /// How long that took the last time, from when the death was noticed, in milliseconds.
    pub last_gap_ms: Option<u64>,
    /// The number of sources that are in quarantine, because processes died of what looks like their packets.
    pub quarantined: usize,
    /// Why the last process died.
    pub last_exit: Option<DeathCause>,
    /// The round-trip time of the last ping, in microseconds.
    pub ping_rtt_us: Option<u64>,
    /// What confines its process; `null` if the settings want no sandbox, and while it has no process.
    pub sandbox: Option<Sandbox>,
}

/// The state of a worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, schemars::JsonSchema)]
#[serde(tag = "name", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum WorkerState {
    /// Its process is starting, and has not said hello yet.
    Starting,
    /// It runs.
    Running,
    /// It died; a successor will start after a delay.
    Restarting {
        /// The delay in milliseconds, counted from the death.
        after_ms: u64,
    },
    /// It has ended, because the server is closed.
    Closed,
}

impl WorkerInfo {
    /// How long the last ping took to come back.
    pub fn ping_rtt(&self) -> Option<Duration> {
        self.ping_rtt_us.map(Duration::from_micros)
    }
}

/// A worker's number, and what is known of the process that has it.
#[derive(Debug)]
pub(crate) struct Slot {
    id: WorkerId,
    cpu: Option<usize>,
    rooms_on_their_way: AtomicUsize,
    restorations: Arc<Restorations>,
    totals: Arc<Totals>,
    status: Mutex<Status>,
}

#[derive(Debug)]
struct Status {
    state: WorkerState,
    pid: Option<u32>,
    reserve: u64,
    restarts: u64,
    last_exit: Option<DeathCause>,
    ping_rtt: Option<Duration>,
    /// The conversation, whether there is a process at the moment or not; `None` if there has been none for long.
    link: Option<Arc<Link>>,
    quarantined: Vec<QuarantinedSource>,
}

impl Slot {
    pub(crate) fn new(id: WorkerId, cpu: Option<usize>) -> Self {
        Self {
            id,
            cpu,
            rooms_on_their_way: AtomicUsize::new(0),
            restorations: Arc::default(),
            totals: Arc::default(),
            status: Mutex::new(Status {
                state: WorkerState::Starting,
                pid: None,
                reserve: 0,
                restarts: 0,
                last_exit: None,
                ping_rtt: None,
                link: None,
                quarantined: Vec::new(),
            }),
        }
    }

    pub(crate) fn id(&self) -> WorkerId {
        self.id
    }

    pub(crate) fn cpu(&self) -> Option<usize> {
        self.cpu
    }

    /// Whether there is a process that takes commands.
    pub(crate) fn is_running(&self) -> bool {
        lock(&self.status).state == WorkerState::Running
    }

    /// Whether it takes commands, if only for a process that is still to come.
    pub(crate) fn takes_commands(&self) -> bool {
        self.link().is_some()
    }

    /// Whether it has not answered the last request in time, or has no process.
    pub(crate) fn is_late(&self) -> bool {
        !self.is_running() || self.link().is_some_and(|link| link.timeouts() > 0)
    }

    /// How often it was restored.
    pub(crate) fn restorations(&self) -> Arc<Restorations> {
        Arc::clone(&self.restorations)
    }

    /// What it has counted in all its processes.
    pub(crate) fn totals(&self) -> Arc<Totals> {
        Arc::clone(&self.totals)
    }

    pub(crate) fn rooms_on_their_way(&self) -> usize {
        self.rooms_on_their_way.load(Ordering::Relaxed)
    }

    pub(crate) fn describe(&self, rooms: usize) -> WorkerInfo {
        let status = lock(&self.status);
        let (restorations, last_gap) = self.restorations.read();
        WorkerInfo {
            id: self.id,
            pid: status.pid,
            cpu: self.cpu,
            state: status.state,
            rooms: rooms + self.rooms_on_their_way(),
            requests: status.link.as_ref().map_or(0, |link| link.requests()),
            timeouts: status.link.as_ref().map_or(0, |link| link.timeouts()),
            restarts: status.restarts,
            restorations,
            last_gap_ms: last_gap.map(|gap| u64::try_from(gap.as_millis()).unwrap_or(u64::MAX)),
            quarantined: status.quarantined.len(),
            last_exit: status.last_exit.clone(),
            ping_rtt_us: status
                .ping_rtt
                .map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            sandbox: status
                .link
                .as_ref()
                .filter(|_| status.state == WorkerState::Running)
                .and_then(|link| link.sandbox()),
        }
    }

    /// Why it takes no room, in words.
    pub(crate) fn describe_absence(&self) -> String {
        let status = lock(&self.status);
        let what = match status.state {
            WorkerState::Starting => "starting".to_owned(),
            WorkerState::Running => "running".to_owned(),
            WorkerState::Restarting { after_ms } => format!("restarted {after_ms} ms after its death"),
            WorkerState::Closed => "closed".to_owned(),
        };
        match &status.last_exit {
            Some(cause) => format!("{} is {what} ({cause})", self.id),
            None => format!("{} is {what}", self.id),
        }
    }

    /// See [`Shared::call`](super::shared::Shared::call).
    pub(crate) async fn call(
        &self,
        state: &Mutex<State>,
        lane: Lane,
        descriptors: Vec<OwnedFd>,
        plan: impl FnOnce(&mut State) -> Result<Vec<Command>, Error>,
    ) -> Result<Reply, Error> {
        let Some(link) = self.link() else {
            // What was the worker's is closed, which the plan finds out.
            let commands = plan(&mut lock(state))?;
            return match commands.is_empty() {
                true => Ok(Reply::Done),
                false => Err(self.death()),
            };
        };
        link.call(state, lane, descriptors, plan).await
    }

    fn death(&self) -> Error {
        let status = lock(&self.status);
        match (&status.last_exit, status.state) {
            (_, WorkerState::Closed) => Error::closed("the server"),
            (Some(cause), _) => Error::WorkerDied {
                worker: self.id,
                cause: cause.clone(),
            },
            (None, _) => Error::NoWorker(format!("{} is starting", self.id)),
        }
    }

    // What follows is for the task that watches the slot.

    /// The conversation, as long as there is hope for its rooms.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        lock(&self.status).link.clone()
    }

    /// The sources whose packets its process drops.
    pub(crate) fn quarantined(&self) -> Vec<QuarantinedSource> {
        lock(&self.status).quarantined.clone()
    }

    pub(crate) fn set_quarantined(&self, sources: Vec<QuarantinedSource>) {
        lock(&self.status).quarantined = sources;
    }

    pub(crate) fn set_starting(&self) {
        let mut status = lock(&self.status);
        status.state = WorkerState::Starting;
        status.restarts += u64::from(status.last_exit.is_some());
    }

    /// Its process, if it has one, and how much memory that has taken at once.
    pub(crate) fn process(&self) -> Option<(u32, u64)> {
        let status = lock(&self.status);
        Some((status.pid?, status.reserve))
    }

    pub(crate) fn set_process(&self, pid: u32, reserve: u64) {
        let mut status = lock(&self.status);
        status.pid = Some(pid);
        status.reserve = reserve;
    }

    pub(crate) fn set_running(&self, link: Arc<Link>) {
        let mut status = lock(&self.status);
        status.state = WorkerState::Running;
        status.link = Some(link);
    }

    pub(crate) fn set_ping_rtt(&self, rtt: Duration) {
        lock(&self.status).ping_rtt = Some(rtt);
    }

    /// The process is dead. Commands wait for the next one.
    pub(crate) fn set_died(&self, after_ms: u64, cause: DeathCause) {
        let mut status = lock(&self.status);
        status.state = WorkerState::Restarting { after_ms };
        status.pid = None;
        status.ping_rtt = None;
        status.last_exit = Some(cause);
    }

    /// No command reaches the process from now on.
    pub(crate) fn set_dead(&self, state: WorkerState, cause: DeathCause) {
        let mut status = lock(&self.status);
        status.state = state;
        status.pid = None;
        status.ping_rtt = None;
        status.link = None;
        status.last_exit = Some(cause);
    }

    pub(crate) fn set_closed(&self) {
        lock(&self.status).state = WorkerState::Closed;
    }
}

/// A worker that was chosen for a room; counts as one room until it is dropped, when the room exists or has failed.
#[derive(Debug)]
pub(crate) struct Placed {
    slot: Arc<Slot>,
}

impl Placed {
    pub(crate) fn new(slot: &Arc<Slot>) -> Self {
        slot.rooms_on_their_way.fetch_add(1, Ordering::Relaxed);
        Self { slot: Arc::clone(slot) }
    }

    pub(crate) fn worker(&self) -> WorkerId {
        self.slot.id
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        self.slot.rooms_on_their_way.fetch_sub(1, Ordering::Relaxed);
    }
}
