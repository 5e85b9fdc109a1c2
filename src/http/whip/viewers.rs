//! How many players watch whom.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::play::Wish;
use crate::RoomId;
use crate::server::lock;

/// Players that have connected, by whom they watch.
#[derive(Debug, Default)]
pub(super) struct Viewers {
    counts: Mutex<HashMap<(RoomId, Option<String>), usize>>,
}

/// One that counts.
pub(super) struct Viewer {
    viewers: Arc<Viewers>,
    watches: (RoomId, Option<String>),
}

impl Viewers {
    /// One more, until what it returns is dropped.
    pub(super) fn enter(self: &Arc<Self>, wish: &Wish) -> Viewer {
        let watches = key(wish);
        *lock(&self.counts).entry(watches.clone()).or_default() += 1;
        Viewer {
            viewers: Arc::clone(self),
            watches,
        }
    }

    /// How many watch the same.
    pub(super) fn count(&self, wish: &Wish) -> usize {
        lock(&self.counts).get(&key(wish)).copied().unwrap_or(0)
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        let mut counts = lock(&self.viewers.counts);
        if let Some(count) = counts.get_mut(&self.watches) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.watches);
            }
        }
    }
}

fn key(wish: &Wish) -> (RoomId, Option<String>) {
    (wish.room.id(), wish.peer.clone())
}
