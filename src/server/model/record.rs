//! Who keeps events, and what they are told beside each: the worker that it comes from, so that no worker can push out what others
//! have to tell.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Weak};

use weir_channel::id::{RoomId, WorkerId};

use crate::server::model::client_memory::bytes_of;
use crate::server::model::event::{Event, EventKind};

/// Keeps events: told of each under the lock of the server's state, so that it misses none, and has it before anybody hears
/// of what it tells.
pub(crate) trait Record: Debug + Send + Sync {
    /// This has happened; `worker` serves the room that it happened in, if it did in one.
    fn record(&self, event: &Arc<Event>, worker: Option<WorkerId>);

    /// Nothing else will happen.
    fn close(&self);
}

/// Those who keep events.
#[derive(Debug, Default)]
pub(crate) struct Records {
    all: Vec<Weak<dyn Record>>,
    /// Who serves the rooms that are open.
    workers: HashMap<RoomId, WorkerId>,
    /// The room that was closed last, and who served it: what was in it goes after it.
    closed: Option<(RoomId, WorkerId)>,
}

impl Records {
    /// One more, as long as it exists.
    pub(crate) fn add<R: Record + 'static>(&mut self, record: &Arc<R>) {
        let record = Arc::downgrade(record);
        self.all.push(record);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Who serves the room that something happens in. To be called for each event, because rooms come and go by events.
    pub(crate) fn worker_of(&mut self, kind: &EventKind) -> Option<WorkerId> {
        match kind {
            EventKind::RoomOpened { room, worker, .. } => {
                self.workers.insert(*room, *worker);
                Some(*worker)
            }
            EventKind::RoomClosed { room, .. } => {
                let worker = self.workers.remove(room)?;
                self.closed = Some((*room, worker));
                Some(worker)
            }
            kind => {
                let room = kind.room()?;
                let of_closed = self.closed.filter(|(closed, _)| *closed == room);
                let worker = self.workers.get(&room).copied();
                worker.or(of_closed.map(|(_, worker)| worker))
            }
        }
    }

    /// Tells all of them.
    pub(crate) fn each(&mut self, act: impl Fn(&dyn Record)) {
        self.all.retain(|record| {
            let record = record.upgrade();
            if let Some(record) = &record {
                act(&**record);
            }
            record.is_some()
        });
    }
}

/// About how many bytes an event takes.
#[cfg_attr(
    not(feature = "http"),
    allow(dead_code, reason = "the control interface keeps events")
)]
pub(crate) fn bytes_of_event(kind: &EventKind) -> usize {
    use EventKind as Kind;
    let more = match kind {
        Kind::RoomOpened { app_data, .. }
        | Kind::RoomClosed { app_data, .. }
        | Kind::PeerClosed { app_data, .. }
        | Kind::TransportOpened { app_data, .. }
        | Kind::TransportClosed { app_data, .. }
        | Kind::ProducerPaused { app_data, .. }
        | Kind::ProducerResumed { app_data, .. }
        | Kind::ProducerClosed { app_data, .. }
        | Kind::ConsumerPaused { app_data, .. }
        | Kind::ConsumerResumed { app_data, .. }
        | Kind::ConsumerClosed { app_data, .. } => bytes_of(app_data),
        Kind::PeerJoined { app_data, .. }
        | Kind::ProducerOpened { app_data, .. }
        | Kind::ConsumerOpened { app_data, .. } => bytes_of(app_data),
        Kind::AudioLevels { levels, .. } => size_of_val(levels.as_slice()),
        Kind::TransportStats { stats, .. } | Kind::ProducerStats { stats, .. } | Kind::ConsumerStats { stats, .. } => {
            size_of_val(stats.as_slice())
        }
        _ => 0,
    };
    size_of::<Event>() + more
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::server::model::event::{CloseCause, Originator};

    #[test]
    fn what_happens_in_a_room_comes_from_who_serves_it_also_when_it_closes() {
        let mut records = Records::default();
        let opened = |room, worker| EventKind::RoomOpened {
            room: RoomId(room),
            worker: WorkerId(worker),
            app_data: Value::Null,
        };
        let closed = |room| EventKind::RoomClosed {
            room: RoomId(room),
            originator: Originator::Local,
            app_data: Value::Null,
            cause: CloseCause::Closed,
        };
        let within = |room| EventKind::AudioLevels {
            room: RoomId(room),
            levels: Vec::new(),
        };
        let mut worker_of = |kind: EventKind| records.worker_of(&kind).map(|worker| worker.0);
        assert_eq!(worker_of(opened(1, 7)), Some(7));
        assert_eq!(worker_of(opened(2, 8)), Some(8));
        assert_eq!((worker_of(within(1)), worker_of(within(2))), (Some(7), Some(8)));
        assert_eq!(worker_of(closed(1)), Some(7));
        assert_eq!((worker_of(within(1)), worker_of(within(2))), (Some(7), Some(8)));
        assert_eq!(worker_of(closed(2)), Some(8));
        assert_eq!((worker_of(within(1)), worker_of(within(2))), (None, Some(8)));
        assert_eq!(worker_of(EventKind::ServerClosed), None);
        assert!(records.workers.is_empty(), "a closed room leaves nothing behind");
    }

    #[test]
    fn an_event_counts_as_much_as_it_takes() {
        let event = |app_data| EventKind::RoomOpened {
            room: RoomId(1),
            worker: WorkerId(1),
            app_data,
        };
        let difference = bytes_of_event(&event(json!("x".repeat(1_000)))) - bytes_of_event(&event(json!("")));
        assert_eq!(difference, 1_000);
    }
}
