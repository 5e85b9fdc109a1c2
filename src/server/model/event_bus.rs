//! Where events go: to subscribers, and to those who keep them.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::server::model::event::{Event, EventKind};
use crate::server::model::record::{Record, Records};

/// How many events a subscriber may lag behind before it loses the oldest of them. A worker's death can close some
/// thousands of objects at once; with this a subscriber that is merely busy still sees each.
const LAG_MAX: usize = 16_384;

/// Numbers the events and hands each to every subscriber. Used under the lock of the server's state, which gives the
/// events one order that agrees with the state.
#[derive(Debug)]
pub(crate) struct EventBus {
    sender: Option<broadcast::Sender<Arc<Event>>>,
    seq: u64,
    records: Records,
}

impl EventBus {
    pub(crate) fn new() -> Self {
        Self {
            sender: Some(broadcast::Sender::new(LAG_MAX)),
            seq: 0,
            records: Records::default(),
        }
    }

    pub(crate) fn emit(&mut self, kind: EventKind) {
        self.seq += 1;
        let Some(sender) = &self.sender else {
            return;
        };
        let worker = self.records.worker_of(&kind);
        if self.records.is_empty() && sender.receiver_count() == 0 {
            return;
        }
        let event = Arc::new(Event::now(self.seq, kind));
        self.records.each(|record| record.record(&event, worker));
        // An error says that there are no subscribers.
        let _ = sender.send(event);
    }

    /// Has everything recorded that happens from now on, as long as the record exists. It is made with the number of the last
    /// event that is not in it.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "the control interface has one"))]
    pub(crate) fn record<R: Record + 'static>(&mut self, make: impl FnOnce(u64) -> Arc<R>) -> Arc<R> {
        let record = make(self.seq);
        if self.sender.is_none() {
            record.close();
        }
        self.records.add(&record);
        record
    }

    /// What follows, if anything can, and the number of the next event.
    pub(crate) fn subscribe(&self) -> (Option<broadcast::Receiver<Arc<Event>>>, u64) {
        let events = self.sender.as_ref().map(broadcast::Sender::subscribe);
        (events, self.seq + 1)
    }

    /// Emits the last event; every stream ends after it.
    pub(crate) fn close(&mut self) {
        if self.sender.is_some() {
            self.emit(EventKind::ServerClosed);
            self.sender = None;
            self.records.each(|record| record.close());
        }
    }
}
