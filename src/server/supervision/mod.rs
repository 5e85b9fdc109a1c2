//! The worker processes: started, watched, replaced.
//!
//! ```text
//!            spawn, Hello                  the server closes
//!  Starting ─────────────► Running ────────────────────────► Closed
//!     ▲                       │ exits, is killed, hangs,        ▲
//!     │ after the back-off    ▼ breaks the protocol             │ the server closes
//!     └─────────────────── Restarting ──────────────────────────┘
//! ```
//!
//! Each worker has a *slot*, which outlives the processes in it: [`slot`] is what callers see, [`watch`] is the task that
//! keeps a process in it, [`spawn`] makes the process, [`link`] is the conversation with it. A first process that does not
//! come up fails the server's start; every later one is replaced.

mod backoff;
mod cpus;
mod link;
mod slot;
mod spawn;
mod watch;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{oneshot, watch as watch_channel};
use weir_channel::id::WorkerId;

pub(crate) use self::link::Link;
#[cfg(any(test, fuzzing))]
pub(crate) use self::link::{End, Pulse, converse};
pub(crate) use self::slot::{Placed, Slot};

use self::spawn::Spawner;
use super::error::{DeathCause, Error, StartError};
use super::placement::{self, Candidate};
use super::settings::Settings;
use super::state::State;
use super::{Shared, lock};

/// What is known of a worker.
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
    /// How often it was replaced.
    pub restarts: u64,
    /// Why the last process died.
    pub last_exit: Option<DeathCause>,
    /// The round-trip time of the last ping, in microseconds.
    pub ping_rtt_us: Option<u64>,
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

/// The workers of a server.
#[derive(Debug)]
pub(crate) struct Workers {
    slots: Vec<Arc<Slot>>,
    last_placed: Mutex<Option<WorkerId>>,
    spawner: Spawner,
    /// Becomes true when the server closes.
    closing: watch_channel::Sender<bool>,
    /// How many slots are still watched.
    watched: watch_channel::Sender<usize>,
}

impl Workers {
    /// The slots, on the CPUs this process may use, and all that is needed to fill them. Starts no worker yet.
    pub(crate) fn new(settings: &Settings) -> Result<Self, StartError> {
        let io = |doing: &str| {
            let doing = doing.to_owned();
            |source| StartError::Io { doing, source }
        };
        let cpus = cpus::usable().map_err(io("finding the CPUs this process may use"))?;
        let count = settings
            .workers
            .map_or(cpus::count(&cpus), |workers| workers.get() as usize);
        let slots = (0..count).map(|index| {
            let id = WorkerId(index as u32 + 1); // checked against 1,024 in `Settings::check`
            Arc::new(Slot::new(id, cpus.get(index % cpus.len().max(1)).copied()))
        });
        Ok(Self {
            slots: slots.collect(),
            last_placed: Mutex::new(None),
            spawner: Spawner::new(settings)?,
            closing: watch_channel::Sender::new(false),
            watched: watch_channel::Sender::new(0),
        })
    }

    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }

    pub(crate) fn slot(&self, id: WorkerId) -> Result<&Arc<Slot>, Error> {
        let index = (id.0 as usize).checked_sub(1);
        index
            .and_then(|index| self.slots.get(index))
            .ok_or_else(|| Error::NotFound { object: id.to_string() })
    }

    pub(crate) fn describe(&self, state: &State) -> Vec<WorkerInfo> {
        let describe = |slot: &Arc<Slot>| slot.describe(state.rooms_of(slot.id()));
        self.slots.iter().map(describe).collect()
    }

    /// Those that take commands now.
    pub(crate) fn running(&self) -> Vec<WorkerId> {
        let running = self.slots.iter().filter(|slot| slot.is_running());
        running.map(|slot| slot.id()).collect()
    }

    /// Finds a worker for a new room, or checks the one that is wanted, and counts the room as on its way to it.
    pub(crate) fn place(&self, state: &Mutex<State>, wanted: Option<WorkerId>) -> Result<Placed, Error> {
        if let Some(id) = wanted {
            let slot = self.slot(id)?;
            return match slot.is_running() {
                true => Ok(Placed::new(slot)),
                false => Err(Error::NoWorker(slot.describe_absence())),
            };
        }
        let state = lock(state);
        let mut last = lock(&self.last_placed);
        let candidates = self
            .slots
            .iter()
            .filter(|slot| slot.is_running())
            .map(|slot| Candidate {
                worker: slot.id(),
                rooms: state.rooms_of(slot.id()) + slot.rooms_on_their_way(),
            });
        let chosen = placement::choose(candidates, *last).ok_or_else(|| {
            let absences: Vec<String> = self.slots.iter().map(|slot| slot.describe_absence()).collect();
            Error::NoWorker(absences.join(", "))
        })?;
        *last = Some(chosen);
        Ok(Placed::new(self.slot(chosen)?))
    }

    pub(crate) fn begin_close(&self) {
        self.closing.send_replace(true);
    }

    /// Waits until no worker is left.
    pub(crate) async fn ended(&self) {
        // The sender lives as long as `self`.
        let _ = self.watched.subscribe().wait_for(|watched| *watched == 0).await;
    }
}

/// Fills all slots, and waits until every worker is ready. When one is not, all are ended again.
pub(crate) async fn start(shared: &Arc<Shared>) -> Result<(), StartError> {
    let mut ready = Vec::new();
    for slot in &shared.workers.slots {
        let (sender, receiver) = oneshot::channel();
        shared.workers.watched.send_modify(|watched| *watched += 1);
        tokio::spawn(watch::watch(Arc::clone(shared), Arc::clone(slot), sender));
        ready.push(receiver);
    }
    for (slot, receiver) in shared.workers.slots.iter().zip(ready) {
        let failure = match receiver.await {
            Ok(Ok(())) => continue,
            Ok(Err(failure)) => failure,
            // Its task was dropped: the runtime is shutting down.
            Err(_) => watch::StartFailure {
                cause: DeathCause::ServerClosed,
                stderr: Vec::new(),
            },
        };
        shared.begin_close();
        shared.workers.ended().await;
        return Err(StartError::Worker {
            worker: slot.id(),
            cause: failure.cause,
            stderr: failure.stderr,
        });
    }
    Ok(())
}
