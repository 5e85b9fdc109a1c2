//! What workers log, in the supervisor's own tracing: with the worker's id and the module as fields, under the target
//! `weir::worker`, at the level the worker gave it.

use std::sync::Mutex;

use tracing::{Level, event};
use weir_channel::id::WorkerId;
use weir_channel::message::{LogLevel, LogLine, Sandbox};

use crate::server::model::lock;

/// A target of its own, so that a filter can let workers say more (or less) than the supervisor.
const TARGET: &str = "weir::worker";

/// Repeats a worker's line here.
pub(crate) fn repeat(worker: WorkerId, line: &LogLine) {
    // tracing fixes the level where the event is written, so each level has its own place.
    macro_rules! at {
        ($level:expr) => {
            event!(target: TARGET, $level, worker = worker.0, module = line.target, "{}", line.text)
        };
    }
    match line.level {
        LogLevel::Error => at!(Level::ERROR),
        LogLevel::Warn => at!(Level::WARN),
        LogLevel::Info => at!(Level::INFO),
        LogLevel::Debug => at!(Level::DEBUG),
        LogLevel::Trace => at!(Level::TRACE),
    }
}

/// Says that a worker had more to say.
pub(crate) fn report_dropped(worker: WorkerId, count: u64) {
    event!(target: TARGET, Level::WARN, worker = worker.0, count, "log lines were dropped");
}

/// Says that a worker has sent more notifications than are due to it, and that some were not heard.
pub(crate) fn report_notifications_dropped(worker: WorkerId, count: u64) {
    event!(target: TARGET, Level::WARN, worker = worker.0, count, "notifications were dropped, because there were too many");
}

/// Repeats a line that a worker wrote to its standard error: a panic, or something from before its channel was up.
pub(crate) fn repeat_stderr(worker: WorkerId, line: &str) {
    event!(target: TARGET, Level::ERROR, worker = worker.0, module = "stderr", "{line}");
}

/// Says that a worker had more to write to its standard error.
pub(crate) fn report_stderr_dropped(worker: WorkerId, count: u64) {
    event!(target: TARGET, Level::WARN, worker = worker.0, module = "stderr", count, "lines were dropped");
}

/// What was said of workers' sandboxes last.
static SANDBOX: Mutex<Option<Sandbox>> = Mutex::new(None);

/// Says what confines a worker, unless that was said of the one before.
pub(crate) fn report_sandbox(sandbox: &Sandbox) {
    let mut last = lock(&SANDBOX);
    if last.as_ref() == Some(sandbox) {
        return;
    }
    *last = Some(sandbox.clone());
    if sandbox.lacks.is_empty() {
        tracing::info!("sandbox: {sandbox}");
    } else {
        tracing::warn!("sandbox: {sandbox}");
    }
}
