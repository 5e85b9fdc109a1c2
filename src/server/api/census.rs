//! What metrics tell of a server.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::timeout;
use weir_channel::id::WorkerId;
use weir_channel::message::WorkerStats;

use crate::server::api::server::Server;
use crate::server::model::census::Census;
use crate::server::model::lock;

impl Server {
    /// What there is now, by worker. It looks at everything once, under the lock: call it seldom.
    pub(crate) fn census(&self) -> BTreeMap<WorkerId, Census> {
        lock(&self.shared().state).census()
    }

    /// A worker's counters; what it has told last, if it does not answer in this time. They never go back.
    pub(crate) async fn worker_totals(&self, worker: WorkerId, patience: Duration) -> Totals {
        if let Ok(Ok(stats)) = timeout(patience, self.worker_stats(worker)).await {
            return Totals { stats, is_now: true };
        }
        let slot = self.shared().workers.slot(worker);
        Totals {
            stats: slot.map_or_else(|_| WorkerStats::default(), |slot| slot.totals().told()),
            is_now: false,
        }
    }

    /// The ports for media, of UDP and of TCP.
    pub(crate) fn ports(&self) -> [Ports; 2] {
        let range = self.settings().rtc_ports;
        let each = u64::from(range.max() - range.min()) + 1;
        let sockets = &self.shared().sockets;
        [sockets.udp_ports_taken(), sockets.tcp_ports_taken()].map(|taken| Ports {
            used: taken.iter().sum(),
            free: each - taken.iter().max().copied().unwrap_or(0).min(each),
        })
    }
}

/// What a worker has counted.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) stats: WorkerStats,
    /// It has said so now. If it has not, there is no saying what it has at the moment.
    pub(crate) is_now: bool,
}

/// Ports for media of one protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ports {
    /// Those that transports have, of all local addresses.
    pub(crate) used: u64,
    /// Those that are left of the address that has fewest.
    pub(crate) free: u64,
}
