//! What a worker accepts, its spare hears too: so it can have made the same rooms when the worker dies.

use std::collections::BTreeSet;
use std::sync::Mutex;

use tokio::sync::mpsc;
use weir_channel::id::RoomId;
use weir_channel::message::Method;

use super::Link;
use crate::server::model::lock;
use crate::server::model::state::State;

/// So many methods may wait for a spare. One that is further behind is of no use.
const WAITING_MAX: usize = 1 << 14;

/// Who hears what a worker accepts, if somebody does.
#[derive(Debug, Default)]
pub(super) struct Following(Mutex<Option<Follower>>);

#[derive(Debug)]
struct Follower {
    methods: mpsc::Sender<Method>,
    /// The rooms of which it knows all.
    rooms: BTreeSet<RoomId>,
}

impl Following {
    /// A method was accepted. Called with the state locked.
    pub(super) fn hear(&self, method: &Method) {
        let mut following = lock(&self.0);
        let Some(follower) = following.as_mut().filter(|_| method.is_rehearsed()) else {
            return;
        };
        match method {
            Method::CreateRouter { room } => _ = follower.rooms.insert(*room),
            Method::CloseRouter { room } => _ = follower.rooms.remove(room),
            _ => {}
        }
        if follower.methods.try_send(method.clone()).is_err() {
            *following = None;
        }
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
    pub(crate) fn follow(&self, state: &Mutex<State>) -> (mpsc::Receiver<Method>, Vec<RoomId>) {
        let state = lock(state);
        let (methods, heard) = mpsc::channel(WAITING_MAX);
        let rooms = BTreeSet::new();
        *lock(&self.following.0) = Some(Follower { methods, rooms });
        (heard, state.rooms_to_restore(self.worker))
    }

    /// What makes a room as it is now. `before`: called before anybody can hear of a later change. Empty if nobody follows any more, or there
    /// is no such room.
    pub(crate) fn rehearse_room(&self, state: &Mutex<State>, room: RoomId, before: impl FnOnce()) -> Vec<Method> {
        let state = lock(state);
        before();
        let mut following = lock(&self.following.0);
        let methods: Vec<_> = state.replay(room).map(|replayed| replayed.method).collect();
        match &mut *following {
            Some(follower) if !methods.is_empty() => {
                follower.rooms.insert(room);
                methods.into_iter().filter(Method::is_rehearsed).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Nobody follows any more.
    pub(crate) fn end_following(&self) {
        self.following.end();
    }
}
