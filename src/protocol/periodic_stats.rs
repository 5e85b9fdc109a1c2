//! Reports of statistics that a client asked to be sent every so often.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::{MissedTickBehavior, interval};
use weir_channel::id::{ConsumerId, ProducerId, TransportId};

use crate::{Consumer, Error, Peer, PeerNotification, Producer, RtcStats, Transport};

/// What is reported on.
#[derive(Clone, Debug)]
pub(crate) enum Subject {
    Transport(Transport),
    Producer(Producer),
    Consumer(Consumer),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum SubjectId {
    Transport(TransportId),
    Producer(ProducerId),
    Consumer(ConsumerId),
}

impl Subject {
    fn id(&self) -> SubjectId {
        match self {
            Self::Transport(transport) => SubjectId::Transport(transport.id()),
            Self::Producer(producer) => SubjectId::Producer(producer.id()),
            Self::Consumer(consumer) => SubjectId::Consumer(consumer.id()),
        }
    }

    fn closed(&self) -> bool {
        match self {
            Self::Transport(transport) => transport.closed(),
            Self::Producer(producer) => producer.closed(),
            Self::Consumer(consumer) => consumer.closed(),
        }
    }

    /// Whether there is anything to tell.
    fn flows(&self) -> bool {
        match self {
            Self::Transport(_) => true,
            Self::Producer(producer) => !producer.paused(),
            Self::Consumer(consumer) => consumer.enabled() && !consumer.paused() && !consumer.source_paused(),
        }
    }

    async fn get_stats(&self) -> Result<Vec<RtcStats>, Error> {
        match self {
            Self::Transport(transport) => transport.get_stats().await,
            Self::Producer(producer) => producer.get_stats().await,
            Self::Consumer(consumer) => consumer.get_stats().await,
        }
    }

    fn notification(&self, stats: Value) -> PeerNotification {
        match self {
            Self::Transport(transport) => PeerNotification::TransportStats {
                transport: transport.id(),
                stats,
            },
            Self::Producer(producer) => PeerNotification::ProducerStats {
                producer: producer.id(),
                stats,
            },
            Self::Consumer(consumer) => PeerNotification::ConsumerStats {
                consumer: consumer.id(),
                peer_name: consumer.peer().map_or_else(|| "".into(), |peer| peer.name().into()),
                stats,
            },
        }
    }
}

/// A peer's reports, at most one for each thing.
#[derive(Debug, Default)]
pub(crate) struct PeriodicStats {
    reports: HashMap<SubjectId, AbortHandle>,
}

impl PeriodicStats {
    /// Reports at once and then every `every`, while the subject is there and flows. Does nothing if that is done already.
    pub(super) fn enable(&mut self, peer: &Peer, subject: Subject, every: Duration) {
        self.reports.retain(|_, report| !report.is_finished());
        self.reports.entry(subject.id()).or_insert_with(|| {
            let report = tokio::spawn(report(peer.clone(), subject, every));
            report.abort_handle()
        });
    }

    /// Stops reporting.
    pub(super) fn disable(&mut self, subject: &Subject) {
        if let Some(report) = self.reports.remove(&subject.id()) {
            report.abort();
        }
    }
}

async fn report(peer: Peer, subject: Subject, every: Duration) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if peer.closed() || subject.closed() {
            return;
        }
        if !subject.flows() {
            continue;
        }
        // A worker that does not answer now may do so the next time.
        if let Ok(stats) = subject.get_stats().await
            && let Ok(stats) = serde_json::to_value(stats)
        {
            peer.notify(subject.notification(stats));
        }
    }
}
