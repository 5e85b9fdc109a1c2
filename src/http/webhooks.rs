//! Webhooks: chosen events are sent to URLs of the operator, each as `GET /events` would tell it, until it is taken.
//!
//! An endpoint is one more reader of [the log](EventLog), with a position of its own. So there is no second queue: what waits for an
//! endpoint that is away is bounded by the log, in bytes and in events, and what the log forgets meanwhile is counted and told.
//! Events go out one after the other, in their order. Nothing else of the server waits for them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use super::event_log::{EventLog, LoggedEvent};
use super::events::Filter;
use super::webhook_sender::{Post, Sender, Webhook};
use crate::server::{lock, random};

pub use super::webhook_sender::{WebhookSecrets, WebhookUrl};

/// What is sent if nobody has chosen: what applications keep books of.
const EVENTS: [&str; 7] = [
    "roomOpened",
    "roomClosed",
    "peerJoined",
    "peerClosed",
    "producerOpened",
    "producerClosed",
    "workerDied",
];

/// Stands for all types of events.
const ALL_EVENTS: &str = "*";

/// As many endpoints as make sense.
const URLS_MAX: usize = 8;

/// Events that an endpoint takes from the log at once; they are kept until they are sent.
const BATCH: usize = 16;

/// An endpoint has so much time for its answer. Those that need more take the event, and do their work afterwards.
const ATTEMPT_MAX: Duration = Duration::from_secs(10);

/// The first time between two attempts; each failure after that doubles it.
const BACK_OFF_MIN: Duration = Duration::from_secs(1);

/// The longest time between two attempts.
const BACK_OFF_MAX: Duration = Duration::from_secs(60);

/// So often an event is offered to an endpoint that answers that it does not want it. The others shall not wait for it for ever.
const REFUSALS_MAX: u32 = 5;

/// Where events are sent. Clones are the same.
#[derive(Clone, Default)]
pub struct Webhooks {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    endpoints: Vec<(WebhookUrl, Arc<Counters>)>,
    secrets: WebhookSecrets,
    filter: Filter,
    log: OnceLock<Arc<EventLog>>,
    tasks: Mutex<JoinSet<()>>,
}

/// What became of the events for an endpoint.
#[derive(Debug, Default)]
struct Counters {
    delivered: AtomicU64,
    failed: AtomicU64,
    given_up: AtomicU64,
    /// The number of the last event that was dealt with.
    position: AtomicU64,
}

/// What became of the events for one endpoint.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WebhookStats {
    /// The endpoint, without the rest of its URL, which may be secret.
    pub endpoint: String,
    /// The number of events that it has taken.
    pub delivered: u64,
    /// The number of attempts that failed.
    pub failed: u64,
    /// The number of events that it will not get: it refused them, or was away for so long that they were forgotten.
    pub given_up: u64,
    /// The number of events after the last one that was dealt with; some of them may be of types that are not sent.
    pub behind: u64,
}

impl std::fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let urls = self.shared.endpoints.iter().map(|(url, _)| url);
        f.debug_list().entries(urls).finish()
    }
}

impl Webhooks {
    /// Sends events of these types (empty: those that applications keep books of; `*`: all) to these URLs, signed with these secrets.
    ///
    /// # Errors
    /// There is no such type, there are too many URLs, or they cannot be used here.
    pub fn new(urls: Vec<WebhookUrl>, secrets: WebhookSecrets, events: &[String]) -> Result<Self, String> {
        if urls.len() > URLS_MAX {
            return Err(format!("there are at most {URLS_MAX} URLs, not {}", urls.len()));
        }
        let kinds = match events {
            [] => EVENTS.map(str::to_owned).to_vec(),
            events if events.iter().any(|kind| kind == ALL_EVENTS) => Vec::new(),
            events => events.to_vec(),
        };
        let filter = Filter::of_kinds(kinds).map_err(|error| error.message)?;
        if let Some(url) = urls.iter().find(|url| url.is_encrypted()) {
            url.check_authorities()?;
        }
        Ok(Self {
            shared: Arc::new(Shared {
                endpoints: urls.into_iter().map(|url| (url, Arc::default())).collect(),
                secrets,
                filter,
                log: OnceLock::new(),
                tasks: Mutex::default(),
            }),
        })
    }

    /// Begins to send what the log records from now on; of the first server that they are given to.
    pub(super) fn begin(&self, log: &Arc<EventLog>) {
        if self.shared.log.set(Arc::clone(log)).is_err() {
            return;
        }
        let mut tasks = lock(&self.shared.tasks);
        let position = log.end().newest;
        for (url, counters) in &self.shared.endpoints {
            counters.position.store(position, Ordering::Relaxed);
            let endpoint = Endpoint {
                name: url.to_string(),
                post: Sender::new(url.clone(), self.shared.secrets.clone()),
                log: Arc::clone(log),
                filter: self.shared.filter.clone(),
                counters: Arc::clone(counters),
                failures: 0,
                untold: 0,
            };
            tasks.spawn(endpoint.run(position));
        }
    }

    /// What became of the events.
    pub fn stats(&self) -> Vec<WebhookStats> {
        let endpoints = self.shared.endpoints.iter();
        let newest = self.shared.log.get().map_or(0, |log| log.end().newest);
        endpoints
            .map(|(url, counters)| {
                let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
                WebhookStats {
                    endpoint: url.to_string(),
                    delivered: get(&counters.delivered),
                    failed: get(&counters.failed),
                    given_up: get(&counters.given_up),
                    behind: newest.saturating_sub(get(&counters.position)),
                }
            })
            .collect()
    }

    /// When the server is closed: waits until the endpoints have its last events, for so long at most.
    pub async fn finish(&self, patience: Duration) {
        let mut tasks = std::mem::take(&mut *lock(&self.shared.tasks));
        let all = async { while tasks.join_next().await.is_some() {} };
        if timeout(patience, all).await.is_err() {
            for stats in self.stats().iter().filter(|stats| stats.behind > 0) {
                warn!(
                    endpoint = stats.endpoint,
                    events = stats.behind,
                    "the server ends before all webhooks are delivered"
                );
            }
        }
    }
}

/// An endpoint, and how far it is.
struct Endpoint<P> {
    name: String,
    post: P,
    log: Arc<EventLog>,
    filter: Filter,
    counters: Arc<Counters>,
    /// Since it last took an event.
    failures: u32,
    /// Events that it will not get, of which it was not told.
    untold: u64,
}

impl<P: Post> Endpoint<P> {
    /// Sends what comes after an event's number, until the server is closed.
    async fn run(mut self, mut after: u64) {
        let mut changes = self.log.watch();
        loop {
            let end = *changes.borrow_and_update();
            let read = self.log.read(after, BATCH);
            if read.missed > 0 {
                self.give_up(read.missed, "it was away for too long");
            }
            let is_over = read.events.is_empty();
            for event in read.events {
                if self.filter.admits(&event) {
                    self.deliver(&event).await;
                }
                after = event.seq();
                self.counters.position.store(after, Ordering::Relaxed);
            }
            // An error means that the log is gone, and with it the server.
            if is_over && (end.closed || changes.changed().await.is_err()) {
                return;
            }
        }
    }

    /// Sends an event; and before it, that there are others which it will not get.
    async fn deliver(&mut self, event: &LoggedEvent) {
        let id = self.log.id(event.seq()).to_string();
        let count = std::mem::take(&mut self.untold);
        if count > 0 {
            let gap = Webhook {
                id: format!("lagged-{id}"),
                body: json!({"type": "lagged", "count": count}).to_string().into(),
            };
            // Who does not want to know it does not know it.
            let _ = self.offer(&gap).await;
        }
        let webhook = Webhook {
            id,
            body: event.shown().json.clone().into(),
        };
        match self.offer(&webhook).await {
            Ok(()) => {
                self.counters.delivered.fetch_add(1, Ordering::Relaxed);
            }
            Err(refusal) => self.give_up(1, &refusal),
        }
    }

    /// Sends one until it is taken, or clearly not wanted; then why.
    async fn offer(&mut self, webhook: &Webhook) -> Result<(), String> {
        let mut refusals = 0;
        loop {
            let outcome = timeout(ATTEMPT_MAX, self.post.post(webhook)).await;
            let (failure, is_refusal) = match outcome {
                Ok(Ok(status)) if (200..300).contains(&status) => {
                    self.on_taken();
                    return Ok(());
                }
                // It is there and says no: not that it is busy, nor that it does not know yet whether it is (RFC 8470 §5.2).
                Ok(Ok(status)) => (
                    format!("it answers {status}"),
                    status < 500 && !matches!(status, 408 | 425 | 429),
                ),
                Ok(Err(error)) => (error, false),
                Err(_) => (format!("no answer within {} s", ATTEMPT_MAX.as_secs()), false),
            };
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            self.failures = self.failures.saturating_add(1);
            if self.failures == 1 {
                warn!(
                    endpoint = self.name,
                    failure, "a webhook was not delivered; it is sent again"
                );
            }
            refusals += u32::from(is_refusal);
            if refusals >= REFUSALS_MAX {
                return Err(failure);
            }
            sleep(back_off(self.failures, random())).await;
        }
    }

    fn on_taken(&mut self) {
        let failures = std::mem::take(&mut self.failures);
        if failures > 0 {
            info!(endpoint = self.name, failures, "webhooks are delivered again");
        }
    }

    fn give_up(&mut self, count: u64, why: &str) {
        self.counters.given_up.fetch_add(count, Ordering::Relaxed);
        self.untold = self.untold.saturating_add(count);
        warn!(
            endpoint = self.name,
            events = count,
            why,
            "gave up sending events to a webhook"
        );
    }
}

/// How long to wait after so many failures in a row: twice as long each time, of which a random half is left out, so that endpoints
/// that come back are not called by all at once.
fn back_off(failures: u32, random: u64) -> Duration {
    let doubled = BACK_OFF_MIN.saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let half = doubled.min(BACK_OFF_MAX) / 2;
    let part = (random >> 32) as u32;
    half + half.mul_f64(f64::from(part) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::time::Instant;
    use weir_channel::id::{RoomId, WorkerId};

    use super::*;
    use crate::server::Record as _;
    use crate::{Event, EventKind};

    /// What an endpoint does with the next attempt.
    #[derive(Clone, Copy, Debug)]
    enum Does {
        Answers(u16),
        Breaks,
        Hangs,
    }

    /// An endpoint of a test: does as it is told, and takes everything after that.
    struct Fake {
        does: Arc<Mutex<VecDeque<Does>>>,
        heard: Arc<Mutex<Vec<(Duration, Webhook)>>>,
        began: Instant,
    }

    impl Post for Fake {
        async fn post(&mut self, webhook: &Webhook) -> Result<u16, String> {
            lock(&self.heard).push((self.began.elapsed(), webhook.clone()));
            let does = lock(&self.does).pop_front();
            match does {
                Some(Does::Answers(status)) => Ok(status),
                Some(Does::Breaks) => Err("it broke".to_owned()),
                Some(Does::Hangs) => std::future::pending().await,
                None => Ok(204),
            }
        }
    }

    struct Scene {
        log: Arc<EventLog>,
        heard: Arc<Mutex<Vec<(Duration, Webhook)>>>,
        counters: Arc<Counters>,
        running: tokio::task::JoinHandle<()>,
    }

    impl Scene {
        /// Events before this are none of the endpoint's.
        fn begin(does: &[Does], kinds: &[&str]) -> Self {
            let log = Arc::new(EventLog::new("a".to_owned(), 0));
            let (heard, counters) = (Arc::default(), Arc::new(Counters::default()));
            let endpoint = Endpoint {
                name: "test".to_owned(),
                post: Fake {
                    does: Arc::new(Mutex::new(does.iter().copied().collect())),
                    heard: Arc::clone(&heard),
                    began: Instant::now(),
                },
                log: Arc::clone(&log),
                filter: Filter::of_kinds(kinds.iter().map(|kind| (*kind).to_owned()).collect()).unwrap(),
                counters: Arc::clone(&counters),
                failures: 0,
                untold: 0,
            };
            let running = tokio::spawn(endpoint.run(0));
            Self {
                log,
                heard,
                counters,
                running,
            }
        }

        fn record(&self, kind: EventKind) {
            let seq = self.log.end().newest + 1;
            self.log.record(&Arc::new(Event::now(seq, kind)), Some(WorkerId(1)));
        }

        /// Lets it do everything, and returns what it was sent, each with its moment.
        async fn end(self) -> (Vec<(Duration, Webhook)>, [u64; 3]) {
            self.log.close();
            self.running.await.unwrap();
            let heard = lock(&self.heard).clone();
            let counters = [&self.counters.delivered, &self.counters.failed, &self.counters.given_up];
            (heard, counters.map(|counter| counter.load(Ordering::Relaxed)))
        }
    }

    fn room(id: u64, bytes: usize) -> EventKind {
        EventKind::RoomOpened {
            room: RoomId(id),
            worker: WorkerId(1),
            app_data: "x".repeat(bytes).into(),
        }
    }

    fn ids(heard: &[(Duration, Webhook)]) -> Vec<&str> {
        heard.iter().map(|(_, webhook)| webhook.id.as_str()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn each_event_is_sent_until_it_is_taken_and_in_order() {
        let scene = Scene::begin(
            &[Does::Answers(500), Does::Breaks, Does::Answers(200), Does::Answers(429)],
            &[],
        );
        for id in 1..=3 {
            scene.record(room(id, 1));
        }
        let (heard, counters) = scene.end().await;
        assert_eq!(ids(&heard), ["a-1", "a-1", "a-1", "a-2", "a-2", "a-3"]);
        assert_eq!(counters, [3, 3, 0]);
        let body: serde_json::Value = serde_json::from_slice(&heard[0].1.body).unwrap();
        assert_eq!(
            (&body["id"], &body["type"], &body["room"]),
            (&json!("a-1"), &json!("roomOpened"), &json!(1))
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_between_attempts_doubles_up_to_a_minute() {
        let scene = Scene::begin(&[Does::Breaks; 12], &[]);
        scene.record(room(1, 1));
        let (heard, counters) = scene.end().await;
        assert_eq!(counters, [1, 12, 0]);
        let waits: Vec<f64> = heard
            .windows(2)
            .map(|pair| (pair[1].0 - pair[0].0).as_secs_f64())
            .collect();
        for (index, wait) in waits.iter().enumerate() {
            let longest = (1 << index.min(6)).min(60) as f64;
            assert!(
                (longest / 2.0 - 0.01..=longest + 0.01).contains(wait),
                "{index}: {wait}"
            );
        }
        assert!(
            (0..100).any(|_| back_off(5, random()) != back_off(5, random())),
            "they differ"
        );
        assert!(back_off(u32::MAX, u64::MAX) <= BACK_OFF_MAX && back_off(0, 0) >= BACK_OFF_MIN / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_hangs_is_hung_up_on_and_called_again() {
        let scene = Scene::begin(&[Does::Hangs, Does::Hangs], &[]);
        scene.record(room(1, 1));
        let (heard, counters) = scene.end().await;
        assert_eq!((ids(&heard), counters), (vec!["a-1"; 3], [1, 2, 0]));
        assert!(heard[1].0 - heard[0].0 >= ATTEMPT_MAX && heard[1].0 - heard[0].0 <= ATTEMPT_MAX + BACK_OFF_MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_endpoint_refuses_does_not_hold_up_the_rest_and_it_is_told() {
        for status in [301, 400, 410] {
            let scene = Scene::begin(&[Does::Answers(status); 5], &[]);
            scene.record(room(1, 1));
            scene.record(room(2, 1));
            let (heard, counters) = scene.end().await;
            assert_eq!(
                ids(&heard),
                ["a-1", "a-1", "a-1", "a-1", "a-1", "lagged-a-2", "a-2"],
                "{status}"
            );
            assert_eq!(counters, [1, 5, 1]);
            assert_eq!(heard[5].1.body, json!({"type": "lagged", "count": 1}).to_string());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_and_what_was_forgotten_is_told() {
        let scene = Scene::begin(&[Does::Breaks; 3], &[]);
        scene.record(room(1, 1));
        // It has the first in hand.
        tokio::task::yield_now().await;
        let many = 40_000;
        for id in 2..=many {
            scene.record(room(id, 1));
        }
        let (heard, [delivered, _, given_up]) = scene.end().await;
        assert!(given_up > 20_000, "{given_up}");
        let gaps = heard.iter().filter(|(_, webhook)| webhook.id.starts_with("lagged-"));
        let told = gaps.map(|(_, gap)| {
            let body: serde_json::Value = serde_json::from_slice(&gap.body).unwrap();
            body["count"].as_u64().unwrap()
        });
        assert_eq!(told.sum::<u64>(), given_up);
        assert_eq!(delivered + given_up, many, "each is delivered or given up");
    }

    #[tokio::test(start_paused = true)]
    async fn only_chosen_events_are_sent_and_the_servers_end() {
        let scene = Scene::begin(&[], &["workerStarted"]);
        scene.record(room(1, 1));
        scene.record(EventKind::WorkerStarted {
            worker: WorkerId(1),
            pid: 7,
        });
        scene.record(EventKind::ServerClosed);
        let (heard, _) = scene.end().await;
        assert_eq!(ids(&heard), ["a-2", "a-3"]);
        assert!(Webhooks::new(Vec::new(), WebhookSecrets::default(), &["roomOpenned".to_owned()]).is_err());
        assert!(Webhooks::new(Vec::new(), WebhookSecrets::default(), &["*".to_owned()]).is_ok());
        assert!(
            Webhooks::new(Vec::new(), WebhookSecrets::default(), &[]).is_ok(),
            "the default has no misspelt type"
        );
    }
}
