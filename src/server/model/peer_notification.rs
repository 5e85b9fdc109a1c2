//! What a peer's client is told unasked (differences §1.4), and the queue in which it waits.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::Notify;
use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::{MediaKind, Profile};

use crate::server::model::client_memory::{ClientMemory, Share, bytes_of};
use crate::server::model::limits::{NOTIFICATION_BYTES_MAX, NOTIFICATIONS_MAX};
use crate::server::model::lock;
use crate::server::model::rtp_parameters::RtpParameters;

/// Something that a peer's client is told. Serialises to the body of the protocol's notification without `target` and
/// `notification`: `{"method":"producerPaused","id":7,"peerName":"alice","appData":null}`.
#[derive(Clone, PartialEq, Debug, Serialize)]
#[serde(tag = "method", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "fields are the ids and values that the variant's own line names"
)]
pub enum PeerNotification {
    /// The application has closed the peer, or its room. The last one.
    Closed { app_data: Value },
    /// The application has closed one of the peer's transports.
    TransportClosed {
        #[serde(rename = "id")]
        transport: TransportId,
        app_data: Value,
    },
    /// Periodic counters of one of the peer's transports.
    TransportStats {
        #[serde(rename = "id")]
        transport: TransportId,
        stats: Value,
    },
    /// The application has paused one of the peer's producers.
    ProducerPaused {
        #[serde(rename = "id")]
        producer: ProducerId,
        peer_name: Arc<str>,
        app_data: Value,
    },
    /// The application has resumed one of the peer's producers.
    ProducerResumed {
        #[serde(rename = "id")]
        producer: ProducerId,
        peer_name: Arc<str>,
        app_data: Value,
    },
    /// The application has closed one of the peer's producers.
    ProducerClosed {
        #[serde(rename = "id")]
        producer: ProducerId,
        peer_name: Arc<str>,
        app_data: Value,
    },
    /// Periodic counters of one of the peer's producers.
    ProducerStats {
        #[serde(rename = "id")]
        producer: ProducerId,
        stats: Value,
    },
    /// Another peer has joined. It has no producers yet, so it brings no consumers.
    NewPeer {
        name: Arc<str>,
        app_data: Arc<Value>,
        consumers: Vec<ConsumerInfo>,
    },
    /// Another peer is gone, with its producers.
    PeerClosed { name: Arc<str>, app_data: Arc<Value> },
    /// The peer has a consumer for a new producer of another peer; the client should enable it.
    NewConsumer(ConsumerInfo),
    /// One of the peer's consumers is closed.
    ConsumerClosed {
        #[serde(rename = "id")]
        consumer: ConsumerId,
        peer_name: Arc<str>,
    },
    /// One of the peer's consumers is paused, by the application or with its producer (then without app data).
    ConsumerPaused {
        #[serde(rename = "id")]
        consumer: ConsumerId,
        peer_name: Arc<str>,
        #[serde(skip_serializing_if = "Value::is_null")]
        app_data: Value,
    },
    /// One of the peer's consumers is resumed, by the application or with its producer (then without app data).
    ConsumerResumed {
        #[serde(rename = "id")]
        consumer: ConsumerId,
        peer_name: Arc<str>,
        #[serde(skip_serializing_if = "Value::is_null")]
        app_data: Value,
    },
    /// The application prefers another profile for one of the peer's consumers.
    ConsumerPreferredProfileSet {
        #[serde(rename = "id")]
        consumer: ConsumerId,
        peer_name: Arc<str>,
        profile: Profile,
    },
    /// One of the peer's consumers receives another profile; `None`: it receives nothing until a key frame of another
    /// profile arrives.
    ConsumerEffectiveProfileChanged {
        #[serde(rename = "id")]
        consumer: ConsumerId,
        peer_name: Arc<str>,
        profile: Option<Profile>,
    },
    /// Periodic counters of one of the peer's consumers.
    ConsumerStats {
        #[serde(rename = "id")]
        consumer: ConsumerId,
        peer_name: Arc<str>,
        stats: Value,
    },
}

/// A consumer, as its peer's client is told of it.
#[derive(Clone, PartialEq, Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConsumerInfo {
    /// Its id.
    pub id: ConsumerId,
    /// Audio or video.
    pub kind: MediaKind,
    /// The RTP parameters that the client needs.
    pub rtp_parameters: Arc<RtpParameters>,
    /// Whether it is paused: by the application, by the client, or because its producer is paused.
    pub paused: bool,
    /// The highest profile that it should receive.
    pub preferred_profile: Profile,
    /// The profile that it receives.
    pub effective_profile: Option<Profile>,
    /// Its producer's at the time when the consumer was made. All consumers that were made then share it.
    pub app_data: Arc<Value>,
    /// The name of the peer whose producer it consumes.
    pub peer_name: Arc<str>,
}

/// What waits for a peer's client.
///
/// It outlives the client's connection: what was not handed over is there for the client when it is back. A client that
/// stays away, or reads too slowly, for more than [`NOTIFICATIONS_MAX`] notifications, [`NOTIFICATION_BYTES_MAX`] or its share of
/// what waits for all clients, is given up: the queue is emptied and takes no more, for with a gap in it the client's picture of
/// the room would be wrong.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug)]
struct Waiting {
    /// Each with its bytes.
    queue: VecDeque<(usize, PeerNotification)>,
    share: Share,
    /// How many have been taken out, ever: the number of the first one in the queue.
    taken: u64,
    /// The latest reader; earlier ones have ended.
    reader: u64,
    overflowed: bool,
    ended: bool,
}

impl PeerNotification {
    /// About how much memory it takes. What many notifications share is not counted.
    fn bytes(&self) -> usize {
        let own = match self {
            Self::Closed { app_data }
            | Self::TransportClosed { app_data, .. }
            | Self::ProducerPaused { app_data, .. }
            | Self::ProducerResumed { app_data, .. }
            | Self::ProducerClosed { app_data, .. }
            | Self::ConsumerPaused { app_data, .. }
            | Self::ConsumerResumed { app_data, .. } => bytes_of(app_data),
            Self::TransportStats { stats, .. }
            | Self::ProducerStats { stats, .. }
            | Self::ConsumerStats { stats, .. } => bytes_of(stats),
            // When the consumer is closed, they are nobody else's any more.
            Self::NewConsumer(_) => CONSUMER_PARAMETERS_BYTES,
            Self::NewPeer { .. }
            | Self::PeerClosed { .. }
            | Self::ConsumerClosed { .. }
            | Self::ConsumerPreferredProfileSet { .. }
            | Self::ConsumerEffectiveProfileChanged { .. } => 0,
        };
        size_of::<Self>() + own
    }
}

/// For so many notifications an empty queue keeps its memory.
const QUEUE_KEPT: usize = 16;

/// About how much memory a consumer's RTP parameters take.
const CONSUMER_PARAMETERS_BYTES: usize = 768;

impl Outbox {
    pub(crate) fn new(client_memory: &Arc<ClientMemory>) -> Self {
        let waiting = Waiting {
            queue: VecDeque::new(),
            share: client_memory.share(),
            taken: 0,
            reader: 0,
            overflowed: false,
            ended: false,
        };
        Self {
            waiting: Mutex::new(waiting),
            changed: Notify::new(),
        }
    }

    /// Called under the lock of the server's state, which orders notifications and events alike.
    pub(crate) fn push(&self, notification: PeerNotification) {
        {
            let mut waiting = lock(&self.waiting);
            if waiting.ended || waiting.overflowed {
                return;
            }
            let bytes = notification.bytes();
            let all = waiting.share.held() + bytes;
            if waiting.queue.len() >= NOTIFICATIONS_MAX || all > NOTIFICATION_BYTES_MAX || all > waiting.share.allowed()
            {
                waiting.overflowed = true;
                waiting.queue = VecDeque::new();
                waiting.share.hold(0);
            } else {
                waiting.queue.push_back((bytes, notification));
                waiting.share.hold(all);
            }
        }
        self.changed.notify_waiters();
    }

    /// Nothing comes any more; what waits can still be read.
    pub(crate) fn end(&self) {
        lock(&self.waiting).ended = true;
        self.changed.notify_waiters();
    }

    pub(crate) fn overflowed(&self) -> bool {
        lock(&self.waiting).overflowed
    }

    pub(crate) fn len(&self) -> usize {
        lock(&self.waiting).queue.len()
    }

    /// Another reader; those before it end. Returns its number.
    pub(crate) fn add_reader(&self) -> u64 {
        let reader = {
            let mut waiting = lock(&self.waiting);
            waiting.reader += 1;
            waiting.reader
        };
        self.changed.notify_waiters();
        reader
    }

    /// The first that waits, with its number; `None` when nothing comes any more for this reader.
    pub(crate) async fn peek(&self, reader: u64) -> Option<(u64, PeerNotification)> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on a change is not missed.
            changed.as_mut().enable();
            {
                let waiting = lock(&self.waiting);
                if waiting.reader != reader || waiting.overflowed {
                    return None;
                }
                if let Some((_, notification)) = waiting.queue.front() {
                    return Some((waiting.taken, notification.clone()));
                }
                if waiting.ended {
                    return None;
                }
            }
            changed.await;
        }
    }

    /// Takes out those up to this number, unless there is another reader.
    pub(crate) fn advance(&self, reader: u64, number: u64) {
        let mut waiting = lock(&self.waiting);
        while waiting.reader == reader
            && waiting.taken <= number
            && let Some((bytes, _)) = waiting.queue.pop_front()
        {
            waiting.taken += 1;
            let left = waiting.share.held() - bytes;
            waiting.share.hold(left);
        }
        // What a slow moment has made it grow to is not kept.
        if waiting.queue.is_empty() && waiting.queue.capacity() > QUEUE_KEPT {
            waiting.queue = VecDeque::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::model::limits::CLIENT_MEMORY_BYTES_MAX;

    fn stats(bytes: usize) -> PeerNotification {
        PeerNotification::TransportStats {
            transport: TransportId(1),
            stats: "x".repeat(bytes).into(),
        }
    }

    #[test]
    fn bytes_that_nobody_reads_are_bounded_like_their_number() {
        let client_memory = Arc::new(ClientMemory::default());
        let outbox = Outbox::new(&client_memory);
        let mut pushed = 0;
        while !outbox.overflowed() {
            outbox.push(stats(64 * 1024));
            pushed += 1;
            assert!(pushed <= NOTIFICATION_BYTES_MAX / (64 * 1024), "it is given up in time");
        }
        assert_eq!(
            (outbox.len(), lock(&outbox.waiting).share.held()),
            (0, 0),
            "nothing is kept"
        );
    }

    #[test]
    fn what_waits_for_all_is_bounded_and_those_who_read_go_on() {
        let client_memory = Arc::new(ClientMemory::default());
        let reader = Outbox::new(&client_memory);
        let number = reader.add_reader();
        let others: Vec<Outbox> = (0..200).map(|_| Outbox::new(&client_memory)).collect();
        let held = |outbox: &Outbox| lock(&outbox.waiting).share.held();
        for round in 0..100 {
            for outbox in &others {
                outbox.push(stats(32 * 1024));
            }
            reader.push(stats(8 * 1024));
            reader.advance(number, round);
            let all: usize = others.iter().map(held).sum();
            assert!(all <= 2 * CLIENT_MEMORY_BYTES_MAX, "{all} bytes wait");
        }
        let given_up = others.iter().filter(|outbox| outbox.overflowed()).count();
        assert!(given_up >= 150 && !reader.overflowed(), "{given_up} are given up");
        drop(others);
        assert_eq!((reader.len(), held(&reader)), (0, 0));
    }
}
