//! News of rooms for players: that what is published there may have changed. One task listens to the server for all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::server::lock;
use crate::{EventKind, RoomId, Server};

/// Who wants to know of which room.
#[derive(Debug, Default)]
pub(super) struct News {
    rooms: Mutex<Rooms>,
}

#[derive(Debug, Default)]
struct Rooms {
    /// Somebody listens to the server.
    is_followed: bool,
    followed: HashMap<RoomId, watch::Sender<()>>,
}

impl News {
    /// From now on it changes whenever a producer of the room comes, goes, falls silent or sends again.
    pub(super) fn of(self: &Arc<Self>, server: &Server, room: RoomId) -> watch::Receiver<()> {
        let mut rooms = lock(&self.rooms);
        if !rooms.is_followed {
            rooms.is_followed = true;
            tokio::spawn(follow(Arc::clone(self), server.events()));
        }
        rooms.followed.entry(room).or_default().subscribe()
    }

    fn tell(&self, room: RoomId) {
        let mut rooms = lock(&self.rooms);
        let Some(sender) = rooms.followed.get(&room) else {
            return;
        };
        // An error says that nobody wants to know any more.
        if sender.send(()).is_err() {
            rooms.followed.remove(&room);
        }
    }

    fn tell_everybody(&self) {
        lock(&self.rooms).followed.retain(|_, sender| sender.send(()).is_ok());
    }
}

async fn follow(news: Arc<News>, mut events: crate::EventStream) {
    while let Some(event) = events.next().await {
        match &event.kind {
            EventKind::ProducerOpened { room, .. }
            | EventKind::ProducerClosed { room, .. }
            | EventKind::ProducerActivityChanged { room, .. } => news.tell(*room),
            EventKind::RoomClosed { room, .. } => drop(lock(&news.rooms).followed.remove(room)),
            // What was missed may have been for anybody.
            EventKind::Lagged { .. } => news.tell_everybody(),
            _ => {}
        }
    }
    lock(&news.rooms).is_followed = false;
}
