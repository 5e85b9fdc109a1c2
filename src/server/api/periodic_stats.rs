//! Reports of statistics every so often, for whoever asked: the application by events, a client by notifications.
//!
//! Each of the two asks for itself, and gets what it asked for. Reports belong to the thing they are about and end with it, at once:
//! no timer outlives a closed transport, producer or consumer.

use std::time::Duration;

use serde_json::Value;
use tokio::task::AbortHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::server::api::consumer::Consumer;
use crate::server::api::peer::Peer;
use crate::server::api::producer::Producer;
use crate::server::api::transport::Transport;
use crate::server::model::error::Error;
use crate::server::model::event::EventKind;
use crate::server::model::held::Held;
use crate::server::model::lock;
use crate::server::model::peer_notification::PeerNotification;
use crate::server::model::reports::Reports;
use crate::server::model::rtc_stats::RtcStats;
use crate::server::model::side::Side;
use crate::server::workers::shared::Shared;

/// Statistics are not reported more often than this (differences §2.4).
pub(crate) const STATS_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Nor more seldom: who says more means never.
pub(crate) const STATS_INTERVAL_MAX: Duration = Duration::from_secs(86_400);

/// A client for which this many notifications wait gets no statistics: it is away, or too slow, and must not be given up
/// for numbers that nobody needs any more.
const WAITING_MAX: usize = 1_024;

/// A task that reports, until this is dropped.
struct Report(AbortHandle);

impl Drop for Report {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A handle on something that has statistics: what `reports!` makes the same for all of them.
pub(crate) trait Reported: Clone + Send + Sync + 'static {
    fn shared(&self) -> &Shared;

    /// Calls `change` with what reports on it, unless it is closed.
    fn with_reports(&self, change: impl FnOnce(&mut Reports) -> Result<(), Error>) -> Result<(), Error>;

    fn is_closed(&self) -> bool;

    fn rtc_stats(&self) -> impl Future<Output = Result<Vec<RtcStats>, Error>> + Send;
}

/// What each of them has of its own.
pub(crate) trait Subject: Reported {
    /// Whether there is anything to report at the moment: not while it is paused (differences §2.4, §3.3).
    fn flows(&self) -> bool;

    /// Whose client may ask for reports.
    fn client(&self) -> Option<Peer>;

    fn event(&self, stats: Vec<RtcStats>) -> EventKind;

    fn notification(&self, stats: Value) -> PeerNotification;
}

/// A subject's statistics, again and again.
#[derive(Debug)]
pub(crate) struct StatsStream<S> {
    subject: S,
    ticks: Interval,
}

impl<S: Subject> StatsStream<S> {
    /// At once and then every `every`. Must be called within a tokio runtime.
    pub(crate) fn new(subject: S, every: Duration) -> Self {
        // Bounded, also because the clock of the runtime could not count a longer one.
        let mut ticks = interval(every.clamp(STATS_INTERVAL_MIN, STATS_INTERVAL_MAX));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { subject, ticks }
    }

    /// The next ones; `None` when the subject is closed. Times at which nothing flows are passed over, and so are those at
    /// which the worker does not answer.
    pub(crate) async fn next(&mut self) -> Option<Vec<RtcStats>> {
        loop {
            self.ticks.tick().await;
            if self.subject.is_closed() {
                return None;
            }
            if self.subject.flows()
                && let Ok(stats) = self.subject.rtc_stats().await
                && self.subject.flows()
            {
                return Some(stats);
            }
        }
    }
}

fn enable<S: Subject>(subject: &S, side: Side, every: Duration) -> Result<(), Error> {
    if every < STATS_INTERVAL_MIN {
        return Err(Error::InvalidParameters(format!(
            "statistics are reported at most once a second, not every {} ms",
            every.as_millis()
        )));
    }
    let client = match side {
        Side::Local => None,
        Side::Remote => Some(subject.client().ok_or_else(|| {
            Error::InvalidParameters("there is no client to report to: this belongs to no peer".to_owned())
        })?),
    };
    let report = || {
        let permit = client.map(|client| client.report_permit()).transpose()?;
        let stats = subject.clone();
        let report = async move {
            let _permit = permit;
            let mut stats = StatsStream::new(stats, every);
            while let Some(next) = stats.next().await {
                deliver(&stats.subject, side, next);
            }
        };
        let task = subject.shared().runtime.spawn(report).abort_handle();
        Ok(Box::new(Report(task)) as Held)
    };
    subject.with_reports(|reports| reports.begin(side, report))
}

/// Under the lock that orders all events and notifications, so that there are no reports on what is closed.
fn deliver(subject: &impl Subject, side: Side, stats: Vec<RtcStats>) {
    let mut state = lock(&subject.shared().state);
    if subject.is_closed() {
        return;
    }
    match side {
        Side::Local => state.events.emit(subject.event(stats)),
        Side::Remote => {
            if let Some(peer) = subject.client()
                && peer.notifications_waiting() < WAITING_MAX
                && let Ok(stats) = serde_json::to_value(stats)
            {
                peer.push_notification(&mut state, subject.notification(stats));
            }
        }
    }
}

/// Gives a handle the methods by which reports on it begin and end.
macro_rules! reports {
    ($subject:ident, $event:ident, $period:literal) => {
        impl Reported for $subject {
            fn shared(&self) -> &Shared {
                &self.shared
            }

            fn with_reports(&self, change: impl FnOnce(&mut Reports) -> Result<(), Error>) -> Result<(), Error> {
                match &mut lock(&self.node.state).reports {
                    Some(reports) => change(reports),
                    None => Err(Error::closed(self.id())),
                }
            }

            fn is_closed(&self) -> bool {
                self.closed()
            }

            fn rtc_stats(&self) -> impl Future<Output = Result<Vec<RtcStats>, Error>> + Send {
                self.get_stats()
            }
        }

        impl $subject {
            #[doc = concat!("Reports its statistics to the application by [`EventKind::", stringify!($event), "`]: at once")]
            #[doc = concat!("and then every `interval`, ", $period, " that is disabled or it closes. Does nothing if that")]
            /// is enabled already; an interval of more than a day is one of a day.
            ///
            /// # Errors
            /// [`Error::InvalidParameters`] when the interval is less than a second, [`Error::InvalidState`] when it is closed.
            pub fn enable_stats(&self, interval: Duration) -> Result<(), Error> {
                self.enable_stats_by(Side::Local, interval)
            }

            #[doc = concat!("[`Self::enable_stats`]; for its client, which gets [`PeerNotification::", stringify!($event), "`].")]
            ///
            /// # Errors
            /// As [`Self::enable_stats`]; also [`Error::InvalidParameters`] when it has no client, [`Error::TooMany`].
            pub fn enable_stats_by(&self, side: Side, interval: Duration) -> Result<(), Error> {
                enable(self, side, interval)
            }

            /// Ends what [`Self::enable_stats`] began. Disabling what is not enabled does nothing.
            ///
            /// # Errors
            /// [`Error::InvalidState`] when it is closed.
            pub fn disable_stats(&self) -> Result<(), Error> {
                self.disable_stats_by(Side::Local)
            }

            /// Ends what [`Self::enable_stats_by`] began.
            ///
            /// # Errors
            /// As [`Self::disable_stats`].
            pub fn disable_stats_by(&self, side: Side) -> Result<(), Error> {
                self.with_reports(|reports| {
                    reports.end(side);
                    Ok(())
                })
            }
        }
    };
}

reports! { Producer, ProducerStats, "while it is not paused, until" }
reports! { Consumer, ConsumerStats, "while it is enabled and neither it nor its producer is paused, until" }
reports! { Transport, TransportStats, "until" }

impl Subject for Producer {
    fn flows(&self) -> bool {
        !self.paused()
    }

    fn client(&self) -> Option<Peer> {
        self.peer()
    }

    fn event(&self, stats: Vec<RtcStats>) -> EventKind {
        EventKind::ProducerStats {
            producer: self.id(),
            room: self.room().id(),
            stats,
        }
    }

    fn notification(&self, stats: Value) -> PeerNotification {
        PeerNotification::ProducerStats {
            producer: self.id(),
            stats,
        }
    }
}

impl Subject for Consumer {
    fn flows(&self) -> bool {
        self.enabled() && !self.paused() && !self.source_paused()
    }

    fn client(&self) -> Option<Peer> {
        self.receiver()
    }

    fn event(&self, stats: Vec<RtcStats>) -> EventKind {
        EventKind::ConsumerStats {
            consumer: self.id(),
            room: self.room().id(),
            stats,
        }
    }

    fn notification(&self, stats: Value) -> PeerNotification {
        PeerNotification::ConsumerStats {
            consumer: self.id(),
            peer_name: self.peer().map_or_else(|| "".into(), |peer| peer.name().into()),
            stats,
        }
    }
}

impl Subject for Transport {
    fn flows(&self) -> bool {
        true
    }

    fn client(&self) -> Option<Peer> {
        self.peer()
    }

    fn event(&self, stats: Vec<RtcStats>) -> EventKind {
        EventKind::TransportStats {
            transport: self.id(),
            room: self.room().id(),
            stats,
        }
    }

    fn notification(&self, stats: Value) -> PeerNotification {
        PeerNotification::TransportStats {
            transport: self.id(),
            stats,
        }
    }
}
