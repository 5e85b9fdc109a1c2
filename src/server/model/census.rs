//! How many of everything there are, for metrics: one look at all of it.

use std::collections::BTreeMap;

use weir_channel::id::{RoomId, WorkerId};
use weir_channel::message::{DtlsState, IceState, MediaKind};

use crate::server::model::consumer::ConsumerNode;
use crate::server::model::lock;
use crate::server::model::state::State;
use crate::server::model::transport::TransportKind;

/// What is in the rooms of one worker.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Census {
    pub(crate) rooms: u64,
    pub(crate) peers: u64,
    pub(crate) transports: BTreeMap<&'static str, u64>,
    pub(crate) producers: BTreeMap<(&'static str, &'static str), u64>,
    pub(crate) consumers: BTreeMap<(&'static str, &'static str), u64>,
    /// WebRTC transports by the state of ICE.
    pub(crate) ice: BTreeMap<&'static str, u64>,
    /// And by that of DTLS.
    pub(crate) dtls: BTreeMap<&'static str, u64>,
    /// What is in each room.
    pub(crate) by_room: Vec<RoomCensus>,
}

/// What is in one room.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RoomCensus {
    pub(crate) room: RoomId,
    pub(crate) peers: u64,
    pub(crate) producers: u64,
    pub(crate) consumers: u64,
}

/// The kinds of media, as metrics name them.
pub(crate) const MEDIA_KINDS: [&str; 2] = ["audio", "video"];

/// The kinds of transports.
pub(crate) const TRANSPORT_KINDS: [&str; 2] = ["plain", "webrtc"];

/// What a producer can be.
pub(crate) const PRODUCER_STATES: [&str; 2] = ["active", "paused"];

/// What a consumer can be. One that waits is known to no worker yet.
pub(crate) const CONSUMER_STATES: [&str; 4] = ["active", "paused", "source_paused", "waiting"];

/// The states of ICE.
pub(crate) const ICE_STATES: [&str; 4] = ["new", "connected", "completed", "disconnected"];

/// The states of DTLS.
pub(crate) const DTLS_STATES: [&str; 5] = ["new", "connecting", "connected", "failed", "closed"];

impl State {
    /// What there is now, by worker.
    pub(crate) fn census(&self) -> BTreeMap<WorkerId, Census> {
        let mut all: BTreeMap<WorkerId, Census> = BTreeMap::new();
        let mut rooms: BTreeMap<RoomId, RoomCensus> = BTreeMap::new();
        for entry in self.rooms() {
            let census = all.entry(entry.node.worker).or_default();
            census.rooms += 1;
            census.peers += entry.peers.len() as u64;
            let room = RoomCensus {
                room: entry.node.id,
                peers: entry.peers.len() as u64,
                producers: 0,
                consumers: 0,
            };
            rooms.insert(room.room, room);
        }
        for node in self.transports() {
            let census = all.entry(node.room.worker).or_default();
            let webrtc = node.webrtc();
            let kind = webrtc.map_or(TransportKind::Plain, |_| TransportKind::WebRtc);
            add(&mut census.transports, TRANSPORT_KINDS[kind as usize]);
            if let Some(webrtc) = webrtc {
                let state = lock(&webrtc.state);
                if let Some(name) = name_of_ice(state.ice_state) {
                    add(&mut census.ice, name);
                }
                add(&mut census.dtls, name_of_dtls(state.dtls_state));
            }
        }
        for node in self.producers() {
            let census = all.entry(node.transport.room.worker).or_default();
            let is_paused = lock(&node.state).pause_state.paused();
            let state = PRODUCER_STATES[usize::from(is_paused)];
            add(&mut census.producers, (name_of_kind(node.kind), state));
            if let Some(room) = rooms.get_mut(&node.transport.room.id) {
                room.producers += 1;
            }
        }
        for node in self.consumers() {
            let census = all.entry(node.room.worker).or_default();
            add(&mut census.consumers, (name_of_kind(node.kind), state_of(node)));
            if let Some(room) = rooms.get_mut(&node.room.id) {
                room.consumers += 1;
            }
        }
        for room in rooms.into_values() {
            if let Some(entry) = self.room(room.room) {
                all.entry(entry.node.worker).or_default().by_room.push(room);
            }
        }
        all
    }
}

fn add<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    *counts.entry(key).or_default() += 1;
}

fn name_of_kind(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Audio => "audio",
        MediaKind::Video => "video",
    }
}

fn state_of(node: &ConsumerNode) -> &'static str {
    let state = lock(&node.state);
    match state.transport {
        None => "waiting",
        Some(_) if state.pause_state.paused() => "paused",
        Some(_) if state.source_paused => "source_paused",
        Some(_) => "active",
    }
}

/// `None`: it is closed, and about to be forgotten.
fn name_of_ice(state: IceState) -> Option<&'static str> {
    match state {
        IceState::New => Some("new"),
        IceState::Connected => Some("connected"),
        IceState::Completed => Some("completed"),
        IceState::Disconnected => Some("disconnected"),
        IceState::Closed => None,
    }
}

fn name_of_dtls(state: DtlsState) -> &'static str {
    match state {
        DtlsState::New => "new",
        DtlsState::Connecting => "connecting",
        DtlsState::Connected => "connected",
        DtlsState::Failed => "failed",
        DtlsState::Closed => "closed",
    }
}
