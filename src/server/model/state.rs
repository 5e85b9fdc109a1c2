//! The server's objects and what is known of them. One lock guards all of it.
//!
//! Invariant: what a worker serves changes here only when the worker has accepted a request, has told something unasked, or
//! has died; never in the hope that it will. The link to a worker applies its answers in the order they arrive, before it
//! resolves the caller, so a caller that gives up (or is dropped) changes nothing about what is known. What no worker
//! knows, such as a peer and its consumers that wait to be enabled, changes at once.

mod answer;
mod close;
mod credible;
mod notification;
mod open;
mod pausing;
mod restoring;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::Value;
use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
use weir_channel::message::Method;

use crate::server::model::audio_levels::Listeners;
use crate::server::model::client_memory::ClientMemory;
use crate::server::model::consumer::ConsumerNode;
use crate::server::model::desired::DesiredRoom;
use crate::server::model::event_bus::EventBus;
use crate::server::model::held::Held;
use crate::server::model::ids::Ids;
use crate::server::model::peer::{PeerEntry, PeerNode, Peers};
use crate::server::model::producer::ProducerNode;
use crate::server::model::room::RoomNode;
use crate::server::model::side::Side;
use crate::server::model::transport::{MirrorOutlet, TransportNode};

pub(crate) use self::credible::bounded_refusal;
pub(crate) use self::pausing::Pausable;

/// Everything that is known of rooms and what is in them.
#[derive(Debug)]
pub(crate) struct State {
    rooms: HashMap<RoomId, RoomEntry>,
    transports: HashMap<TransportId, Arc<TransportNode>>,
    producers: HashMap<ProducerId, Arc<ProducerNode>>,
    consumers: HashMap<ConsumerId, Arc<ConsumerNode>>,
    served: HashMap<WorkerId, Served>,
    ids: Arc<Ids>,
    /// What follows from the last change and only a worker can do. The link takes it, under the same lock.
    follow_ups: Vec<Command>,
    pub(crate) events: EventBus,
    pub(crate) client_memory: Arc<ClientMemory>,
    closed: bool,
}

/// How much a worker serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Served {
    pub(crate) rooms: usize,
    pub(crate) transports: usize,
    /// Producers, and consumers, also those that wait to be enabled.
    pub(crate) streams: usize,
}

#[derive(Debug)]
pub(crate) struct RoomEntry {
    pub(crate) node: Arc<RoomNode>,
    pub(crate) desired: DesiredRoom,
    pub(crate) peers: Peers,
    pub(crate) listeners: Listeners,
    /// The streamers' transports, each with its consumer.
    streamers: BTreeMap<TransportId, ConsumerId>,
    /// Those that peers' consumers are, or will be, sent under.
    ssrcs: HashSet<u32>,
    /// Peers' producers that were asked for and not answered; each will bring consumers.
    producers_on_their_way: usize,
    /// Consumers of nobody's that were asked for and not answered.
    consumers_on_their_way: usize,
}

/// A request on its way to a worker, with what the supervisor needs to apply the answer.
#[derive(Debug)]
pub(crate) struct Command {
    pub(crate) method: Method,
    pub(crate) on_accept: OnAccept,
}

/// What belongs to a request but is not the worker's business.
#[derive(Debug)]
pub(crate) enum OnAccept {
    None,
    /// On whose behalf, and for the event that tells of it.
    By(Side, Value),
    /// What will exist when the worker accepts.
    /// A room counts as on its way to its worker until this is dropped.
    Room(Arc<RoomNode>, Held),
    Transport(Arc<TransportNode>),
    Producer(Arc<ProducerNode>),
    Consumer(Arc<ConsumerNode>),
    /// As before, and the consumer is a streamer's.
    Streamer(Arc<ConsumerNode>),
    /// The consumer exists already; the worker gets to know it.
    Enable(Arc<ConsumerNode>),
    /// The consumer has this producer from then on.
    Source(Arc<ConsumerNode>, Arc<ProducerNode>),
    /// The peer is closed when all of its transports are.
    ClosePeer(Arc<PeerNode>),
    /// The mirror a transport will have.
    Mirror(MirrorOutlet),
    /// Nobody waits for it, so it is sent again if it came too late.
    FollowUp,
    /// It makes something again that the worker's last process had.
    Restored,
    /// It is for this one process of the worker, and nothing to its successor.
    OfProcess,
}

impl OnAccept {
    fn into_side(self) -> (Side, Value) {
        match self {
            Self::By(side, app_data) => (side, app_data),
            _ => (Side::Local, Value::Null),
        }
    }

    fn into_mirror(self) -> Option<MirrorOutlet> {
        match self {
            Self::Mirror(outlet) => Some(outlet),
            _ => None,
        }
    }
}

impl Command {
    pub(crate) fn new(method: Method) -> Self {
        Self {
            method,
            on_accept: OnAccept::None,
        }
    }

    pub(crate) fn by(side: Side, method: Method, app_data: Value) -> Self {
        Self {
            method,
            on_accept: OnAccept::By(side, app_data),
        }
    }
}

impl State {
    pub(crate) fn new(ids: Arc<Ids>) -> Self {
        Self {
            rooms: HashMap::new(),
            transports: HashMap::new(),
            producers: HashMap::new(),
            consumers: HashMap::new(),
            served: HashMap::new(),
            ids,
            follow_ups: Vec::new(),
            events: EventBus::new(),
            client_memory: Arc::default(),
            closed: false,
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed
    }

    pub(crate) fn room(&self, id: RoomId) -> Option<&RoomEntry> {
        self.rooms.get(&id)
    }

    pub(crate) fn room_mut(&mut self, id: RoomId) -> Option<&mut RoomEntry> {
        self.rooms.get_mut(&id)
    }

    pub(crate) fn rooms(&self) -> impl Iterator<Item = &RoomEntry> {
        self.rooms.values()
    }

    /// How many open rooms a worker serves.
    pub(crate) fn rooms_of(&self, worker: WorkerId) -> usize {
        self.served(worker).rooms
    }

    /// How much a worker serves.
    pub(crate) fn served(&self, worker: WorkerId) -> Served {
        self.served.get(&worker).copied().unwrap_or_default()
    }

    fn served_mut(&mut self, worker: WorkerId) -> &mut Served {
        self.served.entry(worker).or_default()
    }

    /// A peer with what is its own, while it is open.
    pub(crate) fn peer(&self, node: &PeerNode) -> Option<&PeerEntry> {
        self.rooms.get(&node.room.id)?.peers.get(node.key)
    }

    pub(crate) fn transport(&self, id: TransportId) -> Option<&Arc<TransportNode>> {
        self.transports.get(&id)
    }

    pub(crate) fn producer(&self, id: ProducerId) -> Option<&Arc<ProducerNode>> {
        self.producers.get(&id)
    }

    pub(crate) fn consumer(&self, id: ConsumerId) -> Option<&Arc<ConsumerNode>> {
        self.consumers.get(&id)
    }

    #[cfg(feature = "http")]
    pub(crate) fn transports(&self) -> impl Iterator<Item = &Arc<TransportNode>> {
        self.transports.values()
    }

    #[cfg(feature = "http")]
    pub(crate) fn producers(&self) -> impl Iterator<Item = &Arc<ProducerNode>> {
        self.producers.values()
    }

    #[cfg(feature = "http")]
    pub(crate) fn consumers(&self) -> impl Iterator<Item = &Arc<ConsumerNode>> {
        self.consumers.values()
    }

    /// What the link is to send, in this order, before it unlocks the state.
    pub(crate) fn take_follow_ups(&mut self) -> Vec<Command> {
        std::mem::take(&mut self.follow_ups)
    }

    /// A worker is to be told something that nobody waits for.
    pub(crate) fn follow_up(&mut self, method: Method) {
        self.follow_ups.push(Command {
            method,
            on_accept: OnAccept::FollowUp,
        });
    }
}

#[cfg(test)]
impl State {
    /// How many rooms, transports, producers and consumers it knows, and follow-ups that nobody has sent.
    pub(crate) fn entries(&self) -> [usize; 5] {
        [
            self.rooms.len(),
            self.transports.len(),
            self.producers.len(),
            self.consumers.len(),
            self.follow_ups.len(),
        ]
    }

    /// How many consumers, streamers, SSRCs and things on their way a room still counts.
    pub(crate) fn left_in(&self, room: RoomId) -> [usize; 4] {
        self.rooms.get(&room).map_or([0; 4], |entry| {
            let on_their_way = entry.producers_on_their_way + entry.consumers_on_their_way;
            let consumers = entry.desired.consumer_count();
            [consumers, entry.streamers.len(), entry.ssrcs.len(), on_their_way]
        })
    }
}
