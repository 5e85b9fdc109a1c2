//! How loud a room is, for those who listen.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::server::model::event::AudioLevel;
use crate::server::model::producer::ProducerNode;

/// How many half seconds a listener may lag behind. What it misses is out of date.
const LAG_MAX: usize = 8;

pub(crate) type Levels = Arc<Vec<(Arc<ProducerNode>, AudioLevel)>>;

/// Those who listen to a room's levels.
#[derive(Debug)]
pub(crate) struct Listeners {
    pub(crate) sender: broadcast::Sender<Levels>,
    /// Those that there are, and those that the worker has yet to be asked for.
    pub(crate) count: usize,
}

impl Default for Listeners {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(LAG_MAX),
            count: 0,
        }
    }
}

impl Listeners {
    pub(crate) fn any(&self) -> bool {
        self.count > 0
    }

    pub(crate) fn tell(&self, levels: Vec<(Arc<ProducerNode>, AudioLevel)>) {
        // An error says that nobody listens yet.
        let _ = self.sender.send(Arc::new(levels));
    }
}
