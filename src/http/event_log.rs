//! The last events, kept so that a client that was away can catch up.
//!
//! One log serves all readers; each has only a position in it. A reader that does not read costs nothing and holds
//! nobody up: the log goes on, and what it forgets before the reader came is told as a number ([`Read::missed`]).

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::sync::watch;
use weir_channel::id::RoomId;

use crate::server::lock;

/// Events kept. A worker's death can close some thousands of objects at once.
const EVENTS_MAX: usize = 16_384;

/// Bytes of events kept; an event with a large `appData` has up to 256 KiB.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// An event in the form in which it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LoggedEvent {
    /// Its number.
    pub(super) seq: u64,
    /// Its `type`.
    pub(super) kind: String,
    /// The room it happened in; `None` for what concerns workers or the whole server.
    pub(super) room: Option<RoomId>,
    /// The event as JSON.
    pub(super) json: String,
}

impl LoggedEvent {
    /// Reads the parts that filters need from an event's JSON, `{"seq":…,"type":…,"room":…,…}`, and adds its id.
    fn new(mut event: Value, id: impl FnOnce(u64) -> EventId) -> Option<Self> {
        let seq = event.get("seq")?.as_u64()?;
        let kind = event.get("type")?.as_str()?.to_owned();
        let room = event.get("room").and_then(Value::as_u64).map(RoomId);
        event
            .as_object_mut()?
            .insert("id".to_owned(), id(seq).to_string().into());
        Some(Self {
            seq,
            kind,
            room,
            json: event.to_string(),
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
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Read {
    /// So many events before these were forgotten, or lost before they were logged; they may have been of any room and
    /// kind.
    pub(super) missed: u64,
    /// The next events, oldest first.
    pub(super) events: Vec<Arc<LoggedEvent>>,
}

/// The log.
#[derive(Debug)]
pub(super) struct EventLog {
    server: String,
    kept: Mutex<Kept>,
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

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Arc<LoggedEvent>>,
    bytes: usize,
    /// The number before the first event that is recorded. What happened before that, nobody was promised.
    origin: u64,
}

impl EventLog {
    /// An empty log of the server called `server` (letters and digits), which records what happens after event number
    /// `origin`.
    pub(super) fn new(server: String, origin: u64) -> Self {
        Self {
            server,
            kept: Mutex::new(Kept {
                origin,
                ..Kept::default()
            }),
            end: watch::Sender::new(End {
                newest: origin,
                closed: false,
            }),
        }
    }

    /// Adds an event as the server tells it, and forgets the oldest ones when there are too many. Numbers grow; a gap
    /// means lost events.
    pub(super) fn record(&self, event: Value) {
        if let Some(event) = LoggedEvent::new(event, |seq| self.id(seq)) {
            self.push(event);
        }
    }

    /// Says that no other event will come.
    pub(super) fn close(&self) {
        self.end.send_modify(|end| end.closed = true);
    }

    fn push(&self, event: LoggedEvent) {
        let seq = event.seq;
        let mut kept = lock(&self.kept);
        kept.bytes += event.json.len();
        kept.events.push_back(Arc::new(event));
        while kept.events.len() > EVENTS_MAX || (kept.bytes > BYTES_MAX && kept.events.len() > 1) {
            if let Some(oldest) = kept.events.pop_front() {
                kept.bytes -= oldest.json.len();
            }
        }
        drop(kept);
        self.end.send_modify(|end| end.newest = seq);
    }

    /// The id of event number `seq`.
    pub(super) fn id(&self, seq: u64) -> EventId {
        EventId {
            server: self.server.clone(),
            seq,
        }
    }

    /// Returns when event number `seq` has been recorded, or none will be any more.
    pub(super) async fn caught_up(&self, seq: u64) {
        // The log owns the sender, so it cannot be gone.
        let _ = self.watch().wait_for(|end| end.newest >= seq || end.closed).await;
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
        let after = after.max(kept.origin);
        // Numbers grow along the queue.
        let start = kept.events.partition_point(|event| event.seq <= after);
        let mut read = Read::default();
        for event in kept.events.range(start..).take(max) {
            let expected = read.events.last().map_or(after, |last| last.seq).saturating_add(1);
            if event.seq != expected {
                if !read.events.is_empty() {
                    break; // The next read begins with this gap, and tells of it.
                }
                read.missed = event.seq - expected;
            }
            read.events.push(Arc::clone(event));
        }
        read
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(seq: u64, bytes: usize) -> LoggedEvent {
        LoggedEvent {
            seq,
            kind: "roomOpened".to_owned(),
            room: Some(RoomId(seq)),
            json: "x".repeat(bytes),
        }
    }

    fn seqs(read: &Read) -> Vec<u64> {
        read.events.iter().map(|event| event.seq).collect()
    }

    #[test]
    fn readers_go_on_where_they_were() {
        let log = EventLog::new("a".to_owned(), 0);
        (1..=5).for_each(|seq| log.push(event(seq, 1)));
        assert_eq!(seqs(&log.read(0, 3)), [1, 2, 3]);
        assert_eq!(seqs(&log.read(3, 100)), [4, 5]);
        assert_eq!(log.read(5, 100), Read::default());
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
        (1..=total).for_each(|seq| log.push(event(seq, 1)));
        let read = log.read(4, 1);
        assert_eq!((read.missed, seqs(&read)), (6, vec![11]));
        assert_eq!(log.read(0, usize::MAX).events.len(), EVENTS_MAX);
    }

    #[test]
    fn what_was_never_logged_is_counted_too() {
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
        assert_eq!(read.events.len(), BYTES_MAX / (256 * 1024));
        assert_eq!(read.missed, 200 - read.events.len() as u64);
        log.push(event(201, BYTES_MAX + 1));
        assert_eq!(
            seqs(&log.read(0, usize::MAX)),
            [201],
            "the newest is kept, whatever its size"
        );
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
    fn filters_read_the_json() {
        let log = EventLog::new("abc".to_owned(), 6);
        log.record(json!({"seq": 7, "type": "producerPaused", "room": 3, "producer": 9}));
        log.record(json!({"seq": 8, "type": "workerStarted"}));
        log.record(json!({"type": "of no number"}));
        let read = log.read(6, 10);
        let parts: Vec<_> = read
            .events
            .iter()
            .map(|event| (event.kind.as_str(), event.room))
            .collect();
        assert_eq!(parts, [("producerPaused", Some(RoomId(3))), ("workerStarted", None)]);
        let json: Value = serde_json::from_str(&read.events[0].json).unwrap();
        assert_eq!(
            json,
            json!({"id": "abc-7", "seq": 7, "type": "producerPaused", "room": 3, "producer": 9})
        );
    }

    #[tokio::test]
    async fn who_needs_the_newest_event_waits_for_it() {
        let log = Arc::new(EventLog::new("a".to_owned(), 2));
        log.caught_up(2).await;
        let waiting = tokio::spawn({
            let log = Arc::clone(&log);
            async move { log.caught_up(4).await }
        });
        for seq in [3, 4] {
            tokio::task::yield_now().await;
            assert!(!waiting.is_finished());
            log.push(event(seq, 1));
        }
        waiting.await.unwrap();
        log.close();
        log.caught_up(99).await;
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
