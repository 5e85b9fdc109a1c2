//! What is known of a peer, and of a room's peers.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Semaphore;
use weir_channel::id::{ConsumerId, ProducerId, TransportId};

use crate::server::model::client_memory::ClientMemory;
use crate::server::model::error::Error;
use crate::server::model::ids::made_up_cname;
use crate::server::model::limits::{
    PEER_NAME_BYTES_MAX, PRODUCERS_PER_PEER_MAX, REPORTS_PER_PEER_MAX, TRANSPORTS_PER_PEER_MAX,
};
use crate::server::model::lock;
use crate::server::model::peer_notification::{ConsumerInfo, Outbox};
use crate::server::model::room::RoomNode;
use crate::server::model::rtp_capabilities::RtpCapabilities;
use crate::server::model::side::Side;

/// The options of a new peer.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PeerOptions {
    /// Its name, 1 to 255 bytes, unique in the room.
    pub name: String,
    /// What it can receive, with the room's payload types and header extension ids; a part of the room's capabilities.
    pub rtp_capabilities: RtpCapabilities,
    /// Whether it is a spy: it receives, it may not send, and the other peers do not know of it.
    #[serde(default)]
    pub spy: bool,
    /// Whether it may send media to the room.
    #[serde(default = "yes")]
    pub publish: bool,
    /// Whether it gets consumers of what the others send.
    #[serde(default = "yes")]
    pub subscribe: bool,
    /// Any data of the application or the client, kept with the peer. The other peers' clients see it.
    #[serde(default)]
    pub app_data: Value,
}

impl PeerOptions {
    /// A peer that can receive this.
    pub fn new(name: impl Into<String>, rtp_capabilities: RtpCapabilities) -> Self {
        Self {
            name: name.into(),
            rtp_capabilities,
            spy: false,
            publish: true,
            subscribe: true,
            app_data: Value::Null,
        }
    }
}

fn yes() -> bool {
    true
}

/// Another peer, as a joining client is told of it.
#[derive(Clone, PartialEq, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PeerInfo {
    /// Its name.
    pub name: Arc<str>,
    /// Its app data.
    pub app_data: Arc<Value>,
    /// The joining peer's consumers of its producers.
    pub consumers: Vec<ConsumerInfo>,
}

/// Counts a room's peers in the order in which they joined.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct PeerKey(u64);

pub(crate) struct PeerNode {
    pub(crate) key: PeerKey,
    pub(crate) name: Arc<str>,
    pub(crate) room: Arc<RoomNode>,
    pub(crate) rtp_capabilities: RtpCapabilities,
    pub(crate) spy: bool,
    /// Whether it may have producers. A spy may not, whatever this says.
    pub(crate) publish: bool,
    /// Whether it gets consumers of the other peers' producers.
    pub(crate) subscribe: bool,
    /// For producers that come without one: receivers keep in sync what has the same (RFC 3550 §6.5.1).
    pub(crate) cname: String,
    pub(crate) outbox: Outbox,
    /// What a floor above keeps with it, for as long as it lives.
    kept: OnceLock<Box<dyn Any + Send + Sync>>,
    /// A permit for each thing whose statistics its client is told.
    pub(crate) report_permits: Arc<Semaphore>,
    pub(crate) state: Mutex<PeerState>,
}

#[derive(Debug)]
pub(crate) struct PeerState {
    pub(crate) closed: bool,
    pub(crate) app_data: Arc<Value>,
    /// While its transports are being closed. It takes no more calls.
    pub(crate) closing: Option<Closing>,
    /// Asked for, and not answered.
    pub(crate) transports_on_their_way: BTreeSet<TransportId>,
    pub(crate) producers_on_their_way: usize,
}

/// A peer is closed when the worker has closed its transports, all of which were asked for at once.
#[derive(Debug)]
pub(crate) struct Closing {
    pub(crate) side: Side,
    pub(crate) app_data: Value,
    pub(crate) unanswered: usize,
    /// Those that are closed.
    pub(crate) closed: Vec<TransportId>,
    /// What the worker said, if it did not close one of them.
    pub(crate) refused: bool,
}

impl PeerNode {
    /// Only [`State`](super::state::State) does this, under its lock.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.closed = true;
        state.closing = None;
        drop(state);
        self.outbox.end();
    }

    /// What a floor above keeps with it. There is one such thing, so `T` is always the same.
    pub(crate) fn kept<T: Any + Default + Send + Sync>(&self) -> &T {
        let kept = self.kept.get_or_init(|| Box::new(T::default()));
        kept.downcast_ref().expect("one type is kept with peers")
    }

    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.state).closed
    }

    /// Whether it takes calls.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        let state = lock(&self.state);
        match state.closed || state.closing.is_some() {
            true => Err(Error::closed(self.describe())),
            false => Ok(()),
        }
    }

    pub(crate) fn describe(&self) -> String {
        format!("peer {:?}", self.name)
    }

    pub(crate) fn too_many(&self, noun: &'static str, limit: usize) -> Error {
        Error::TooMany {
            owner: self.describe(),
            noun,
            limit,
        }
    }
}

impl fmt::Debug for PeerNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.name)
            .field("room", &self.room.id)
            .finish_non_exhaustive()
    }
}

/// A room's peers, in the order in which they joined.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    entries: BTreeMap<PeerKey, PeerEntry>,
    names: HashMap<Arc<str>, PeerKey>,
    last_key: u64,
}

/// A peer, and what is its own.
#[derive(Debug)]
pub(crate) struct PeerEntry {
    pub(crate) node: Arc<PeerNode>,
    pub(crate) transports: BTreeSet<TransportId>,
    pub(crate) producers: BTreeSet<ProducerId>,
    pub(crate) consumers: BTreeSet<ConsumerId>,
}

impl Peers {
    /// Takes up a new peer, if its name is good and free.
    pub(crate) fn add(
        &mut self,
        room: &Arc<RoomNode>,
        options: PeerOptions,
        client_memory: &Arc<ClientMemory>,
    ) -> Result<Arc<PeerNode>, Error> {
        if options.name.is_empty() || options.name.len() > PEER_NAME_BYTES_MAX {
            return Err(Error::InvalidParameters(format!(
                "a peer's name has 1 to {PEER_NAME_BYTES_MAX} bytes, not {}",
                options.name.len()
            )));
        }
        if self.names.contains_key(options.name.as_str()) {
            return Err(Error::DuplicatePeer {
                name: options.name,
                room: room.id,
            });
        }
        self.last_key += 1;
        let node = Arc::new(PeerNode {
            key: PeerKey(self.last_key),
            name: options.name.into(),
            room: Arc::clone(room),
            rtp_capabilities: options.rtp_capabilities,
            spy: options.spy,
            publish: options.publish,
            subscribe: options.subscribe,
            cname: made_up_cname(),
            outbox: Outbox::new(client_memory),
            kept: OnceLock::new(),
            report_permits: Arc::new(Semaphore::new(REPORTS_PER_PEER_MAX)),
            state: Mutex::new(PeerState {
                closed: false,
                app_data: Arc::new(options.app_data),
                closing: None,
                transports_on_their_way: BTreeSet::new(),
                producers_on_their_way: 0,
            }),
        });
        self.names.insert(Arc::clone(&node.name), node.key);
        let entry = PeerEntry {
            node: Arc::clone(&node),
            transports: BTreeSet::new(),
            producers: BTreeSet::new(),
            consumers: BTreeSet::new(),
        };
        self.entries.insert(node.key, entry);
        Ok(node)
    }

    pub(crate) fn remove(&mut self, key: PeerKey) -> Option<PeerEntry> {
        let entry = self.entries.remove(&key)?;
        self.names.remove(&entry.node.name);
        Some(entry)
    }

    pub(crate) fn get(&self, key: PeerKey) -> Option<&PeerEntry> {
        self.entries.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: PeerKey) -> Option<&mut PeerEntry> {
        self.entries.get_mut(&key)
    }

    pub(crate) fn named(&self, name: &str) -> Option<&PeerEntry> {
        self.entries.get(self.names.get(name)?)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PeerEntry> + Clone {
        self.entries.values()
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }
}

/// Counts a transport that is asked for as on its way to its peer, if the peer may have it.
pub(crate) fn admit_transport(peer: &PeerNode, entry: Option<&PeerEntry>, transport: TransportId) -> Result<(), Error> {
    peer.check_open()?;
    let open = entry.map_or(0, |entry| entry.transports.len());
    let mut state = lock(&peer.state);
    if open + state.transports_on_their_way.len() >= TRANSPORTS_PER_PEER_MAX {
        return Err(peer.too_many("transports", TRANSPORTS_PER_PEER_MAX));
    }
    state.transports_on_their_way.insert(transport);
    Ok(())
}

/// Counts a producer that is asked for as on its way to its peer, if the peer may have it.
pub(crate) fn admit_producer(peer: &PeerNode, entry: Option<&PeerEntry>) -> Result<(), Error> {
    peer.check_open()?;
    let open = entry.map_or(0, |entry| entry.producers.len());
    let mut state = lock(&peer.state);
    if open + state.producers_on_their_way >= PRODUCERS_PER_PEER_MAX {
        return Err(peer.too_many("producers", PRODUCERS_PER_PEER_MAX));
    }
    state.producers_on_their_way += 1;
    Ok(())
}
