//! Dumps: what workers know of their objects, in the order of the objects here. For people; their shape may change.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;
use weir_channel::id::{ConsumerId, RoomId, WorkerId};
use weir_channel::message::{ConsumerDump, DumpPage, ProducerDump, TransportDump};

use crate::server::api::consumer::Consumer;
use crate::server::api::peer::Peer;
use crate::server::api::producer::Producer;
use crate::server::api::server::Server;
use crate::server::api::transport::Transport;
use crate::server::model::error::Error;
use crate::server::workers::slot::WorkerInfo;

/// Everything that is known about a server.
#[derive(Clone, PartialEq, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerDump {
    /// Its workers, by id.
    pub workers: Vec<WorkerDump>,
}

/// Everything that is known about a worker and its rooms.
#[derive(Clone, PartialEq, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkerDump {
    /// The process.
    pub worker: WorkerInfo,
    /// The rooms that it serves, by id.
    pub rooms: Vec<RoomDump>,
}

/// Everything that is known about a room.
#[derive(Clone, PartialEq, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoomDump {
    /// Its id.
    pub room: RoomId,
    /// The worker that serves it.
    pub worker: WorkerId,
    /// The names of its peers, in the order in which they joined.
    pub peers: Vec<Arc<str>>,
    /// The worker's part.
    pub served: DumpPage,
}

/// Everything that is known about a peer.
#[derive(Clone, PartialEq, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerDump {
    /// Its name.
    pub peer_name: Arc<str>,
    /// Whether the others do not see it.
    pub spy: bool,
    /// The app data that is kept with it.
    pub app_data: Value,
    /// The number of notifications that wait for its client.
    pub notifications_waiting: usize,
    /// The dumps of its transports.
    pub transports: Vec<TransportDump>,
    /// The dumps of its producers.
    pub producers: Vec<ProducerDump>,
    /// The dumps of its consumers.
    pub consumers: Vec<ConsumerDump>,
    /// Its consumers that the worker does not know, because they are not enabled.
    pub waiting_consumers: Vec<ConsumerId>,
}

impl Server {
    /// Everything that is known of its workers and rooms. Rooms that close meanwhile are left out.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed.
    pub async fn dump(&self) -> Result<ServerDump, Error> {
        if self.closed() {
            return Err(Error::closed("the server"));
        }
        let mut workers: Vec<WorkerDump> = self
            .workers()
            .into_iter()
            .map(|worker| WorkerDump {
                worker,
                rooms: Vec::new(),
            })
            .collect();
        for room in self.rooms() {
            let served = match room.dump().await {
                Ok(served) => served,
                Err(_) if room.closed() => continue,
                Err(error) => return Err(error),
            };
            let dump = RoomDump {
                room: room.id(),
                worker: room.worker(),
                peers: room.peers().iter().map(|peer| peer.name().into()).collect(),
                served,
            };
            if let Some(worker) = workers.iter_mut().find(|known| known.worker.id == dump.worker) {
                worker.rooms.push(dump);
            }
        }
        Ok(ServerDump { workers })
    }
}

impl Peer {
    /// Everything that is known of it and what is its own.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, and what keeps the worker from answering.
    pub async fn dump(&self) -> Result<PeerDump, Error> {
        if self.closed() {
            return Err(Error::closed(format!("peer {:?}", self.name())));
        }
        let served = self.room().dump().await?;
        let transports: BTreeSet<_> = self.transports().iter().map(Transport::id).collect();
        let producers: BTreeSet<_> = self.producers().iter().map(Producer::id).collect();
        let consumers: BTreeSet<_> = self.consumers().iter().map(Consumer::id).collect();
        let mut waiting = consumers.clone();
        for known in &served.consumers {
            waiting.remove(&known.consumer);
        }
        Ok(PeerDump {
            peer_name: self.name().into(),
            spy: self.spy(),
            app_data: self.app_data(),
            notifications_waiting: self.notifications_waiting(),
            transports: kept(served.transports, |each| transports.contains(&each.transport)),
            producers: kept(served.producers, |each| producers.contains(&each.producer)),
            consumers: kept(served.consumers, |each| consumers.contains(&each.consumer)),
            waiting_consumers: waiting.into_iter().collect(),
        })
    }
}

fn kept<T>(all: Vec<T>, keep: impl FnMut(&T) -> bool) -> Vec<T> {
    let mut all = all;
    all.retain(keep);
    all
}
