//! What a worker accepts, its spare hears too: so it can have made the same rooms when the worker dies.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use weir_channel::id::RoomId;
use weir_channel::message::Method;

use super::Link;
use crate::server::model::desired::{Replayed, SocketsOf};
use crate::server::model::lock;
use crate::server::model::state::{Command, OnAccept, State};

/// So many methods may wait for a spare. One that is further behind is of no use.
const WAITING_MAX: usize = 1 << 14;

/// Who hears what a worker accepts, if somebody does.
#[derive(Debug, Default)]
pub(super) struct Following(Mutex<Option<Follower>>);

#[derive(Debug)]
struct Follower {
    accepted: mpsc::Sender<Replayed>,
    /// How much of that it has not done yet.
    behind: Arc<AtomicUsize>,
    /// The rooms of which it knows all.
    rooms: BTreeSet<RoomId>,
}

/// Where is heard what a worker accepts.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) methods: mpsc::Receiver<Replayed>,
    behind: Arc<AtomicUsize>,
}

impl Accepted {
    /// One of them is done.
    pub(crate) fn done(&self) {
        self.behind.fetch_sub(1, Ordering::Release);
    }
}

impl Following {
    /// A command was accepted. Called with the state locked.
    pub(super) fn hear(&self, command: &Command) {
        let mut following = lock(&self.0);
        let method = &command.method;
        let Some(follower) = following.as_mut().filter(|_| method.is_rehearsed()) else {
            return;
        };
        match method {
            Method::CreateRouter { room } => _ = follower.rooms.insert(*room),
            Method::CloseRouter { room } => _ = follower.rooms.remove(room),
            _ => {}
        }
        let accepted = Replayed {
            method: method.clone(),
            sockets: match &command.on_accept {
                OnAccept::Transport(node) => SocketsOf::Transport(Arc::clone(node)),
                _ => SocketsOf::Nobody,
            },
        };
        follower.behind.fetch_add(1, Ordering::Release);
        if follower.accepted.try_send(accepted).is_err() {
            *following = None;
        }
    }

    /// Whether somebody follows who has not done yet what the worker has.
    pub(super) fn is_behind(&self) -> bool {
        let following = lock(&self.0);
        following
            .as_ref()
            .is_some_and(|follower| follower.behind.load(Ordering::Acquire) > 0)
    }

    /// Nobody follows any more. Returns the rooms of which everything was heard.
    pub(super) fn end(&self) -> BTreeSet<RoomId> {
        let follower = lock(&self.0).take();
        follower.map(|follower| follower.rooms).unwrap_or_default()
    }
}

impl Link {
    /// From now on somebody hears what the worker accepts, and nobody else does. Returns where it is heard, and the rooms that the worker has
    /// had before.
    pub(crate) fn follow(&self, state: &Mutex<State>) -> (Accepted, Vec<RoomId>) {
        let state = lock(state);
        let (accepted, methods) = mpsc::channel(WAITING_MAX);
        let behind = Arc::<AtomicUsize>::default();
        *lock(&self.following.0) = Some(Follower {
            accepted,
            behind: Arc::clone(&behind),
            rooms: BTreeSet::new(),
        });
        (Accepted { methods, behind }, state.rooms_to_restore(self.worker))
    }

    /// What makes a room as it is now. `before`: called before anybody can hear of a later change. Empty if nobody follows any more, or there
    /// is no such room.
    pub(crate) fn rehearse_room(&self, state: &Mutex<State>, room: RoomId, before: impl FnOnce()) -> Vec<Replayed> {
        let state = lock(state);
        before();
        let mut following = lock(&self.following.0);
        let is_rehearsed = |replayed: &Replayed| replayed.method.is_rehearsed();
        let made: Vec<_> = state.replay(room).filter(is_rehearsed).collect();
        match &mut *following {
            Some(follower) if !made.is_empty() => {
                follower.rooms.insert(room);
                made
            }
            _ => Vec::new(),
        }
    }

    /// Nobody follows any more.
    pub(crate) fn end_following(&self) {
        self.following.end();
    }

    /// Whether a spare has not done yet what the worker has, so that it has still sockets which nobody else has.
    pub(crate) fn is_spare_behind(&self) -> bool {
        self.following.is_behind()
    }
}
