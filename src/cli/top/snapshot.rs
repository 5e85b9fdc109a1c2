//! One look at a server.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use weir::WorkerStats;
use weir::http::{Listing, RoomView, ServerStats};

use crate::cli::ctl::client::{Client, Failure};

/// What is seen in one look. As much of it is asked for as is shown.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Snapshot {
    #[serde(skip)]
    pub(super) at: Instant,
    pub(super) workers: Vec<Worker>,
    pub(super) stats: ServerStats,
    pub(super) rooms: Listing<RoomView>,
}

/// A worker, as far as it is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Worker {
    pub(super) id: u32,
    pub(super) pid: Option<u32>,
    pub(super) cpu: Option<usize>,
    pub(super) state: WorkerState,
    pub(super) last_gap_ms: Option<u64>,
}

/// What a worker is doing, by its name in the API.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct WorkerState {
    pub(super) name: String,
}

impl Snapshot {
    /// Asks for the workers, and for at most `rooms_max` rooms: one request after the other.
    pub(super) async fn take(client: &mut Client, rooms_max: usize) -> Result<Self, Failure> {
        let workers: Listing<Worker> = client.get("/workers").await?;
        let rooms = client.get(&format!("/rooms?limit={rooms_max}")).await?;
        let stats = client.get("/stats").await?;
        Ok(Self {
            at: Instant::now(),
            workers: workers.items,
            stats,
            rooms,
        })
    }

    /// The number of workers.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// The process id and the counters of a worker, if it answered.
    pub(super) fn of(&self, worker: u32) -> Option<(Option<u32>, &WorkerStats)> {
        let pid = self.workers.iter().find(|each| each.id == worker)?.pid;
        let answered = self.stats.workers.iter().find(|each| each.worker.0 == worker)?;
        Some((pid, answered.stats.as_ref()?))
    }
}
