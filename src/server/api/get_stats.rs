//! Asking for statistics in the RTC shape: `get_stats` of producers, consumers and transports.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::server::api::consumer::Consumer;
use crate::server::api::producer::Producer;
use crate::server::api::transport::Transport;
use crate::server::model::error::Error;
use crate::server::model::rtc_stats::{ConsumerFacts, ProducerFacts, RtcStats, of_consumer, of_producer, of_transport};

impl Producer {
    /// Its statistics: an `inbound-rtp` for each of its streams. [`Producer::stats`] has the worker's counters as they are.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, and what keeps the worker from answering.
    pub async fn get_stats(&self) -> Result<Vec<RtcStats>, Error> {
        let stats = self.stats().await?;
        Ok(of_producer(
            &stats,
            self.facts(),
            self.transport().id(),
            wall_clock_ms(),
        ))
    }

    fn facts(&self) -> ProducerFacts<'_> {
        ProducerFacts {
            producer: self.id(),
            kind: self.kind(),
            rtp_parameters: self.rtp_parameters(),
        }
    }
}

impl Consumer {
    /// Its statistics: an `outbound-rtp`, after the `inbound-rtp` of the stream that flows to it, if one does;
    /// nothing while it is not enabled. [`Consumer::stats`] has the worker's counters as they are.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, and what keeps the worker from answering.
    pub async fn get_stats(&self) -> Result<Vec<RtcStats>, Error> {
        let Some(transport) = self.transport().filter(|_| !self.closed()) else {
            return match self.closed() {
                true => Err(Error::closed(self.id())),
                false => Ok(Vec::new()),
            };
        };
        let producer = self.producer();
        let (stats, source) = tokio::join!(self.stats(), producer.stats());
        let stats = stats?;
        // The producer can close between the two answers; then this consumer does too, which is for the caller to find out.
        let source = source.ok();
        let facts = ConsumerFacts {
            consumer: self.id(),
            transport: transport.id(),
            rtp_parameters: self.rtp_parameters(),
            source: producer.facts(),
        };
        Ok(of_consumer(&stats, source.as_ref(), facts, wall_clock_ms()))
    }
}

impl Transport {
    /// Its statistics, as a list of one. [`Transport::stats`] has the worker's counters as they are.
    ///
    /// # Errors
    /// [`Error::InvalidState`] when it is closed, and what keeps the worker from answering.
    pub async fn get_stats(&self) -> Result<Vec<RtcStats>, Error> {
        let stats = self.stats().await?;
        Ok(vec![of_transport(&stats, &self.tuple(), wall_clock_ms())])
    }
}

/// Milliseconds since 1970; those of v2 were of a clock that began with the process.
pub(crate) fn wall_clock_ms() -> u64 {
    // The call cannot fail for this clock on Linux.
    let now = clock_gettime(ClockId::CLOCK_REALTIME).map_or(Duration::ZERO, Duration::from);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
