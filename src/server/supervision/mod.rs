//! The worker processes: started, watched, replaced.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use weir_channel::id::WorkerId;
use weir_channel::message::Reply;

use super::error::{DeathCause, Error, StartError};
use super::placement::{self, Candidate};
use super::settings::Settings;
use super::state::{Command, State};
use super::{Shared, lock};
use std::os::fd::OwnedFd;

/// What is known of a worker.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkerInfo {
    /// Its number, from 1; a successor keeps it.
    pub id: WorkerId,
    /// Its process id, while it has a process.
    pub pid: Option<u32>,
    /// The CPU it is pinned to; `None` if it is not.
    pub cpu: Option<usize>,
    /// What it is doing.
    pub state: WorkerState,
    /// Its rooms, and those on their way to it.
    pub rooms: usize,
    /// How often it was replaced.
    pub restarts: u64,
    /// Of what the last one died.
    pub last_exit: Option<DeathCause>,
    /// How long the last ping took to come back, in microseconds.
    pub ping_rtt_us: Option<u64>,
}

/// What a worker is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "name", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum WorkerState {
    /// Its process has been started, but has not said hello.
    Starting,
    /// It takes and serves rooms.
    Running,
    /// It died, and a successor is started after this.
    Restarting {
        /// How long the wait is, in milliseconds, counted from the death.
        after_ms: u64,
    },
    /// The server is closed, and so is the worker.
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
}

/// A worker's number and whoever has it now.
#[derive(Debug)]
pub(crate) struct Slot {
    id: WorkerId,
}

pub(crate) async fn start(_shared: &Arc<Shared>) -> Result<(), StartError> {
    Err(StartError::NoWorkerBinary("the worker is not built yet".to_owned()))
}

impl Workers {
    pub(crate) fn new(_settings: &Settings) -> Result<Self, StartError> {
        Ok(Self {
            slots: Vec::new(),
            last_placed: Mutex::new(None),
        })
    }
    pub(crate) fn count(&self) -> usize {
        self.slots.len()
    }
    pub(crate) fn describe(&self) -> Vec<WorkerInfo> {
        Vec::new()
    }
    pub(crate) fn running(&self) -> Vec<WorkerId> {
        Vec::new()
    }
    pub(crate) fn slot(&self, id: WorkerId) -> Result<&Arc<Slot>, Error> {
        self.slots
            .iter()
            .find(|slot| slot.id == id)
            .ok_or_else(|| Error::NotFound { object: id.to_string() })
    }
    pub(crate) fn place(&self, _wanted: Option<WorkerId>) -> Result<Placed, Error> {
        let worker = placement::choose(
            self.slots.iter().map(|slot| Candidate {
                worker: slot.id,
                rooms: 0,
            }),
            *lock(&self.last_placed),
        );
        worker
            .map(Placed)
            .ok_or_else(|| Error::NoWorker("none is running".to_owned()))
    }
    pub(crate) fn begin_close(&self) {}
    pub(crate) async fn ended(&self) {}
}

pub(crate) struct Placed(WorkerId);
impl Placed {
    pub(crate) fn id(&self) -> WorkerId {
        self.0
    }
}

impl Slot {
    pub(crate) async fn call(
        &self,
        state: &Mutex<State>,
        _descriptors: Vec<OwnedFd>,
        plan: impl FnOnce(&mut State) -> Result<Option<Command>, Error>,
    ) -> Result<Reply, Error> {
        match plan(&mut lock(state))? {
            None => Ok(Reply::Done),
            Some(_) => Err(Error::NoWorker("none is running".to_owned())),
        }
    }
}
