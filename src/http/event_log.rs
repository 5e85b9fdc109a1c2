//! The last events, kept so that a client that was away can catch up.
//!
//! One log serves all readers; each has only a position in it. A reader that does not read costs nothing and holds
//! nobody up: the log goes on, and what it forgets before the reader came is told as a number ([`Read::missed`]). Whose
//! events it forgets says [`FairLog`].

use std::sync::{Arc, Mutex, OnceLock};

use serde_json::json;
use tokio::sync::watch;
use tracing::warn;
use weir_channel::id::{RoomId, WorkerId};

use super::fair_log::{FairLog, Source};
use crate::Event;
use crate::server::{Record, bytes_of_event, lock};

/// Bytes of events kept; an event with a large `appData` has up to 256 KiB.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// A smaller event counts as so many bytes, so that no more than 16,384 are kept. A worker's death can close some thousands of
/// objects at once.
const EVENT_BYTES_MIN: usize = 1_024;

/// An event that is kept.
#[derive(Debug)]
pub(super) struct LoggedEvent {
    id: EventId,
    event: Arc<Event>,
    /// Made for the first who reads it.
    shown: OnceLock<Shown>,
}

/// An event in the form in which it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shown {
    /// Its `type`.
    pub(super) kind: String,
    /// The event as JSON.
    pub(super) json: String,
}

impl LoggedEvent {
    /// Its number.
    pub(super) fn seq(&self) -> u64 {
        self.id.seq
    }

    /// The room it happened in; `None` for what concerns workers or the whole server.
    pub(super) fn room(&self) -> Option<RoomId> {
        self.event.kind.room()
    }

    /// As JSON.
    pub(super) fn shown(&self) -> &Shown {
        self.shown.get_or_init(|| {
            let mut value = serde_json::to_value(&*self.event).unwrap_or_else(|error| {
                warn!(%error, seq = self.seq(), "an event cannot be shown as JSON");
                json!({"seq": self.seq()})
            });
            value["id"] = self.id.to_string().into();
            Shown {
                kind: value["type"].as_str().unwrap_or_default().to_owned(),
                json: value.to_string(),
            }
        })
    }
}

/// The position of an event across restarts of the server: `<server>-<seq>`.
///
/// A server's numbers begin anew, so that a number alone would point a client that comes back after a restart to the
/// wrong event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct EventId {
    server: String,
    seq: u64,
}

impl std::fmt::Display for EventId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.server, self.seq)
    }
}

impl std::str::FromStr for EventId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const SHAPE: &str = "an event id looks like 19a2b3c4d5e-17";
        let (server, seq) = text.rsplit_once('-').ok_or(SHAPE)?;
        if server.is_empty() || server.len() > 32 || !server.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(SHAPE);
        }
        Ok(Self {
            server: server.to_owned(),
            seq: seq.parse().map_err(|_| SHAPE)?,
        })
    }
}

/// What a reader gets at once.
#[derive(Clone, Debug, Default)]
pub(super) struct Read {
    /// So many events before these were forgotten; they may have been of any room and kind.
    pub(super) missed: u64,
    /// The next events, oldest first.
    pub(super) events: Vec<Arc<LoggedEvent>>,
}

/// The log.
#[derive(Debug)]
pub(super) struct EventLog {
    server: String,
    /// The number before the first event that is recorded. What happened before that, nobody was promised.
    origin: u64,
    kept: Mutex<FairLog<Arc<LoggedEvent>>>,
    /// Readers wait for it to change.
    end: watch::Sender<End>,
}

/// Where the log ends at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct End {
    /// The number of the newest event, 0 before the first.
    pub(super) newest: u64,
    /// No other will come.
    pub(super) closed: bool,
}

impl EventLog {
    /// An empty log of the server called `server` (letters and digits), which records what happens after event number
    /// `origin`.
    pub(super) fn new(server: String, origin: u64) -> Self {
        Self {
            server,
            origin,
            kept: Mutex::new(FairLog::new(BYTES_MAX)),
            end: watch::Sender::new(End {
                newest: origin,
                closed: false,
            }),
        }
    }

    /// The id of event number `seq`.
    pub(super) fn id(&self, seq: u64) -> EventId {
        EventId {
            server: self.server.clone(),
            seq,
        }
    }

    /// Where the log ends now.
    pub(super) fn end(&self) -> End {
        *self.end.borrow()
    }

    /// The number after which a client that last saw `id` goes on, `now` being the number of the newest event; `None` when
    /// `id` is of another server.
    pub(super) fn resume(&self, id: &EventId, now: u64) -> Option<u64> {
        (id.server == self.server).then_some(id.seq.min(now))
    }

    /// Tells when the end has changed.
    pub(super) fn watch(&self) -> watch::Receiver<End> {
        self.end.subscribe()
    }

    /// Up to `max` events after number `after`, without a gap among them.
    pub(super) fn read(&self, after: u64, max: usize) -> Read {
        let kept = lock(&self.kept);
        let after = after.max(self.origin);
        let mut read = Read::default();
        for (seq, event) in kept.after(after).take(max) {
            let expected = read.events.last().map_or(after, |last| last.seq()).saturating_add(1);
            if seq != expected {
                if !read.events.is_empty() {
                    break; // The next read begins with this gap, and tells of it.
                }
                read.missed = seq - expected;
            }
            read.events.push(Arc::clone(event));
        }
        read
    }
}

impl Record for EventLog {
    fn record(&self, event: &Arc<Event>, worker: Option<WorkerId>) {
        let seq = event.seq;
        let source = Source {
            worker,
            room: event.kind.room(),
        };
        // It is kept as it is and, once somebody has read it, as JSON.
        let bytes = (2 * bytes_of_event(&event.kind)).max(EVENT_BYTES_MIN);
        let logged = Arc::new(LoggedEvent {
            id: self.id(seq),
            event: Arc::clone(event),
            shown: OnceLock::new(),
        });
        lock(&self.kept).push(seq, source, bytes, logged);
        self.end.send_modify(|end| end.newest = seq);
    }

    fn close(&self) {
        self.end.send_modify(|end| end.closed = true);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::Value;

    use super::*;
    use crate::EventKind;

    /// As many as there is room for.
    const EVENTS_MAX: usize = BYTES_MAX / EVENT_BYTES_MIN;

    fn event(seq: u64, bytes: usize) -> Arc<Event> {
        Arc::new(Event {
            seq,
            at: SystemTime::UNIX_EPOCH,
            kind: EventKind::RoomOpened {
                room: RoomId(seq),
                worker: WorkerId(1),
                app_data: "x".repeat(bytes).into(),
            },
        })
    }

    impl EventLog {
        fn push(&self, event: Arc<Event>) {
            self.record(&event, Some(WorkerId(1)));
        }
    }

    fn seqs(read: &Read) -> Vec<u64> {
        read.events.iter().map(|event| event.seq()).collect()
    }

    #[test]
    fn readers_go_on_where_they_were() {
        let log = EventLog::new("a".to_owned(), 0);
        (1..=5).for_each(|seq| log.push(event(seq, 1)));
        assert_eq!(seqs(&log.read(0, 3)), [1, 2, 3]);
        assert_eq!(seqs(&log.read(3, 100)), [4, 5]);
        let nothing = log.read(5, 100);
        assert_eq!((nothing.missed, seqs(&nothing)), (0, vec![]));
        assert_eq!(
            log.end(),
            End {
                newest: 5,
                closed: false
            }
        );
    }

    #[test]
    fn what_is_forgotten_is_counted() {
        let log = EventLog::new("a".to_owned(), 0);
        let total = EVENTS_MAX as u64 + 10;
        let in_one_room = |seq| {
            let kind = EventKind::AudioLevels {
                room: RoomId(1),
                levels: Vec::new(),
            };
            let at = SystemTime::UNIX_EPOCH;
            log.push(Arc::new(Event { seq, at, kind }));
        };
        (1..=total).for_each(in_one_room);
        let read = log.read(4, 1);
        assert_eq!((read.missed, seqs(&read)), (6, vec![11]));
        assert_eq!(log.read(0, usize::MAX).events.len(), EVENTS_MAX);
    }

    #[test]
    fn gaps_are_told_one_after_the_other() {
        let log = EventLog::new("a".to_owned(), 0);
        [1, 2, 6, 7].into_iter().for_each(|seq| log.push(event(seq, 1)));
        assert_eq!(seqs(&log.read(0, 10)), [1, 2]);
        let read = log.read(2, 10);
        assert_eq!((read.missed, seqs(&read)), (3, vec![6, 7]));
    }

    #[test]
    fn what_was_before_the_log_is_not_missed() {
        let log = EventLog::new("a".to_owned(), 2);
        log.push(event(3, 1));
        log.push(event(5, 1));
        let read = log.read(0, 10);
        assert_eq!((read.missed, seqs(&read)), (0, vec![3]));
        assert_eq!(log.read(3, 10).missed, 1);
    }

    #[test]
    fn large_events_are_bounded_by_bytes() {
        let log = EventLog::new("a".to_owned(), 0);
        (1..=200).for_each(|seq| log.push(event(seq, 256 * 1024)));
        let read = log.read(0, usize::MAX);
        let kept = read.events.len();
        // As they are, and as JSON.
        assert!((28..=32).contains(&kept), "{kept}");
        assert_eq!(read.missed, 200 - kept as u64);
        let bytes: usize = read.events.iter().map(|event| event.shown().json.len()).sum();
        assert!(bytes <= BYTES_MAX / 2, "{bytes}");
    }

    #[test]
    fn positions_outlive_the_server() {
        let log = EventLog::new("abc".to_owned(), 0);
        (1..=5).for_each(|seq| log.push(event(seq, 1)));
        let parse = |text: &str| text.parse::<EventId>();
        assert_eq!(log.id(3).to_string(), "abc-3");
        assert_eq!(log.resume(&parse("abc-3").unwrap(), 5), Some(3));
        let future = log.resume(&parse("abc-99").unwrap(), 5);
        assert_eq!(future, Some(5), "nothing is skipped later");
        assert_eq!(log.resume(&parse("xyz-3").unwrap(), 5), None);
        for bad in [
            "",
            "3",
            "-3",
            "a-",
            "a-x",
            "a b-3",
            "a--3",
            &format!("{}-1", "a".repeat(33)),
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_shown_has_an_id() {
        let log = EventLog::new("abc".to_owned(), 6);
        log.push(event(7, 1));
        log.record(
            &Arc::new(Event {
                seq: 8,
                at: SystemTime::UNIX_EPOCH,
                kind: EventKind::WorkerStarted {
                    worker: WorkerId(2),
                    pid: 9,
                },
            }),
            None,
        );
        let read = log.read(6, 10);
        let parts: Vec<_> = read
            .events
            .iter()
            .map(|event| (event.shown().kind.as_str(), event.room()))
            .collect();
        assert_eq!(parts, [("roomOpened", Some(RoomId(7))), ("workerStarted", None)]);
        let value: Value = serde_json::from_str(&read.events[1].shown().json).unwrap();
        assert_eq!(
            value,
            json!({"id": "abc-8", "seq": 8, "at": "1970-01-01T00:00:00.000Z", "type": "workerStarted", "worker": 2, "pid": 9})
        );
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let log = EventLog::new("a".to_owned(), 0);
        let mut end = log.watch();
        let waiting = tokio::spawn(async move {
            let first = end.changed().await.map(|()| *end.borrow_and_update());
            let second = end.changed().await.map(|()| *end.borrow_and_update());
            (first.unwrap(), second.unwrap(), end)
        });
        tokio::task::yield_now().await;
        log.push(event(1, 1));
        tokio::task::yield_now().await;
        log.close();
        let (first, second, _) = waiting.await.unwrap();
        assert_eq!(
            first,
            End {
                newest: 1,
                closed: false
            }
        );
        assert_eq!(
            second,
            End {
                newest: 1,
                closed: true
            }
        );
    }
}
