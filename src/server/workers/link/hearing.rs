//! What a worker says unasked: whether it may say so much, whether it can be true, and who hears of it.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};

use tokio::time::Instant;
use weir_channel::message::Notification;

use super::{End, Link};
use crate::server::model::lock;
use crate::server::model::state::State;
use crate::server::workers::allowance::{
    self, Allowance, LINE_COST, LOG, LOG_THROWN_AWAY, NOTIFICATIONS_THROWN_AWAY, Verdict,
};
use crate::server::workers::worker_log;

/// What the worker may still say.
#[derive(Debug)]
pub(super) struct Allowances {
    notifications: Allowance,
    log: Allowance,
    /// When this process was last seen to run.
    seen_at: Instant,
}

impl Allowances {
    pub(super) fn new(now: Instant) -> Self {
        let due = allowance::notifications(Default::default());
        Self {
            notifications: Allowance::new(due, Some(NOTIFICATIONS_THROWN_AWAY)),
            log: Allowance::new(LOG, Some(LOG_THROWN_AWAY)),
            seen_at: now,
        }
    }
}

impl Link {
    /// Hears something unasked, if it may be said.
    pub(super) fn hear(
        &self,
        state: &Mutex<State>,
        notification: Notification,
        descriptor: Option<OwnedFd>,
    ) -> Result<(), End> {
        let now = Instant::now();
        let outcome = {
            let mut allowances = self.allowances(now);
            match &notification {
                Notification::Log(line) => {
                    let bytes = line.text.len() + line.target.len();
                    let verdict = allowances.log.judge(now, LINE_COST + bytes as u64, || LOG);
                    (verdict, "log lines")
                }
                Notification::LogLinesDropped { .. } => (allowances.log.judge(now, LINE_COST, || LOG), "log lines"),
                _ => {
                    let due = || allowance::notifications(lock(state).served(self.worker));
                    (allowances.notifications.judge(now, 1, due), "notifications")
                }
            }
        };
        match outcome {
            (Verdict::Hear, _) => self.notice(state, notification, descriptor),
            (Verdict::ThrowAway, _) => {
                self.report_thrown_away(now);
                Ok(())
            }
            (Verdict::Enough, what) => Err(End::Misbehaved(format!("it sent {what} without end"))),
        }
    }

    fn notice(&self, state: &Mutex<State>, notification: Notification, descriptor: Option<OwnedFd>) -> Result<(), End> {
        let worker = self.worker;
        lock(state)
            .check_notification(worker, &notification)
            .map_err(End::Misbehaved)?;
        match notification {
            Notification::SocketWanted { transport, tuple } => self.give_socket(state, transport, tuple),
            Notification::ConnectionProven { transport, tuple } => {
                return self.keep_connection(state, transport, tuple, descriptor);
            }
            Notification::SocketClosed { transport, tuple } => self.close_socket(state, transport, tuple),
            Notification::Log(line) => worker_log::repeat(worker, &line),
            Notification::LogLinesDropped { count } => worker_log::report_dropped(worker, count),
            // Said once, at the start, by a worker that has read nothing yet. What it says later is worth nothing.
            Notification::Sandboxed(sandbox) => {
                let mut said = lock(&self.sandbox);
                if said.is_none() {
                    worker_log::report_sandbox(said.insert(sandbox));
                }
            }
            notification => lock(state).apply_notification(worker, notification),
        }
        Ok(())
    }

    fn allowances(&self, now: Instant) -> MutexGuard<'_, Allowances> {
        let mut allowances = lock(&self.allowances);
        let gap = now.saturating_duration_since(allowances.seen_at);
        allowances.seen_at = now;
        // Pings would have come by otherwise.
        if gap > self.pulse.interval + self.pulse.timeout {
            allowances.notifications.excuse(now, gap);
        }
        allowances
    }

    /// Says how much of what the worker said was thrown away, when it is time to.
    pub(super) fn report_thrown_away(&self, now: Instant) {
        let mut allowances = self.allowances(now);
        if let Some(count) = allowances.log.report(now) {
            worker_log::report_dropped(self.worker, count);
        }
        if let Some(count) = allowances.notifications.report(now) {
            worker_log::report_notifications_dropped(self.worker, count);
        }
    }
}
