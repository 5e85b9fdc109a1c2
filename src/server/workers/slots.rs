//! The workers of a server, one slot each.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use weir_channel::id::WorkerId;

use crate::server::model::error::{Error, StartError};
use crate::server::model::lock;
use crate::server::model::settings::Settings;
use crate::server::model::state::State;
use crate::server::workers::cpus;
use crate::server::workers::placement::{self, Candidate};
use crate::server::workers::slot::{Placed, Slot, WorkerInfo};
use crate::server::workers::spawn::Spawner;

/// The workers of a server.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) slots: Vec<Arc<Slot>>,
    last_placed: Mutex<Option<WorkerId>>,
    pub(crate) spawner: Spawner,
    /// Becomes true when the server closes.
    pub(crate) closing: watch::Sender<bool>,
    /// How many slots are still watched.
    pub(crate) watched: watch::Sender<usize>,
}

impl Workers {
    /// The slots, on the CPUs this process may use, and all that is needed to fill them. Starts no worker yet.
    pub(crate) fn new(settings: &Settings) -> Result<Self, StartError> {
        let cpus = cpus::usable().map_err(StartError::io("finding the CPUs this process may use"))?;
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
            closing: watch::Sender::new(false),
            watched: watch::Sender::new(0),
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
            return match slot.takes_commands() {
                true => Ok(Placed::new(slot)),
                false => Err(Error::NoWorker(slot.describe_absence())),
            };
        }
        let state = lock(state);
        let mut last = lock(&self.last_placed);
        let candidates = self
            .slots
            .iter()
            .filter(|slot| slot.takes_commands())
            .map(|slot| Candidate {
                worker: slot.id(),
                is_late: slot.is_late(),
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
