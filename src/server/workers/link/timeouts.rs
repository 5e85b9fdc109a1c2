//! Requests that a worker lets time out, although it answers pings.

use std::future::pending;
use std::time::Duration;

use tokio::time::sleep;
use weir_channel::id::RoomId;
use weir_channel::message::{Deadline, Method};

use super::{End, Link, Table};

/// A worker that lets so many requests in a row time out, and accepts none in between, is replaced...
const TIMEOUTS_MAX: u32 = 3;

/// ... when that has gone on for so long, after the first of them, in time in which this process itself ran.
const TIMEOUTS_TIME_MIN: Duration = Duration::from_secs(10);

/// The room that a worker is asked to open and close when it is to show whether it works again. No other has this id.
const PROBE: RoomId = RoomId(0);

impl Table {
    /// Counts requests that nobody has answered in time. A worker that was asked often and for long enough, and has done
    /// nothing, is to be replaced, although it answers pings.
    pub(super) fn count_timeouts(&mut self, now: Duration, expired: usize) -> Result<(), End> {
        if expired == 0 {
            return Ok(());
        }
        if self.timeouts == 0 {
            self.timeouts_since = now;
        }
        self.timeouts = self.timeouts.saturating_add(u32::try_from(expired).unwrap_or(u32::MAX));
        let passed = now.saturating_sub(self.timeouts_since);
        if self.timeouts < TIMEOUTS_MAX || passed < TIMEOUTS_TIME_MIN {
            return Ok(());
        }
        Err(End::Misbehaved(format!(
            "it answers pings, but has let {} requests in a row time out in {} s",
            self.timeouts,
            passed.as_secs()
        )))
    }
}

/// Asks a worker that has let a request time out for some work, again and again, until it accepts something: nobody else
/// may ask it, because it gets no new rooms meanwhile.
pub(super) async fn probe(link: &Link) -> End {
    let timeout = link.timeout.min(link.pulse.timeout);
    loop {
        link.late.notified().await;
        while link.timeouts() > 0 {
            let asked = [
                link.say(Method::CreateRouter { room: PROBE }, timeout),
                link.say(Method::CloseRouter { room: PROBE }, timeout),
            ];
            for answer in asked {
                match answer {
                    Ok(answer) => drop(answer.await),
                    // The conversation is ending otherwise.
                    Err(_) => return pending().await,
                }
            }
            sleep(link.pulse.interval).await;
        }
    }
}

/// When a worker need not begin any more with what is asked now.
pub(crate) fn deadline_after(timeout: Duration) -> Deadline {
    #[cfg(test)]
    if let Some(deadline) = super::super::simulated::deadline_after(timeout) {
        return deadline;
    }
    Deadline::after(timeout)
}
