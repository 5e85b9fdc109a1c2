//! Whether a worker lives: it is asked for a sign now and then.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use weir_channel::message::Method;

use super::{End, Link};
use crate::server::model::error::Error;

/// How a worker's liveness is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

/// Asks again and again, until an answer does not come in time.
pub(super) async fn ping(link: &Link, on_pulse: impl Fn(Duration)) -> End {
    loop {
        sleep(link.pulse.interval).await;
        link.report_thrown_away(Instant::now());
        let asked = Instant::now();
        let Ok(answer) = link.say(Method::Ping, link.pulse.timeout) else {
            return pending().await;
        };
        match answer.await {
            Ok(Ok(_)) => on_pulse(asked.elapsed()),
            // A refusal, most likely that it came late, is a sign of life all the same.
            Ok(Err(Error::Worker(_))) => {}
            Ok(Err(Error::Timeout { .. })) => return End::Hung,
            // The conversation is ending otherwise.
            Ok(Err(_)) | Err(_) => return pending().await,
        }
    }
}
