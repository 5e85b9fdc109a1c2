//! A server that is started for a moment: what it does not get, and what it warns of.

use std::fmt::{Debug, Write as _};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::timeout;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};
use weir::{LogLevel, Server, Settings, WorkerInfo};

use super::Finding;

/// How long the worker may take to say what it lacks.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts a server with these settings, but one worker, and without the port that a server which runs already may have.
pub(super) fn try_out(settings: Settings) -> Vec<Finding> {
    let said = Said::default();
    let collector = Registry::default().with(said.clone());
    // If somebody collects already, nothing is said here.
    let _ = tracing::subscriber::set_global_default(collector);
    let runtime = Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(start(settings, &said)),
        Err(error) => vec![Finding::fail("start", error, None)],
    }
}

/// What was warned of.
fn warnings(said: &Said) -> impl Iterator<Item = Finding> {
    said.lines().into_iter().map(|line| {
        // `… refuses UDP_GRO, so: packets are received one at a time`; others say what to do after a colon.
        let parts = line.split_once(", so: ").or_else(|| line.split_once(": "));
        match parts {
            Some((found, advice)) => Finding::warn("server's log", found, advice),
            None => Finding::warn("server's log", &line, "docs/operations.md says more"),
        }
    })
}

async fn start(settings: Settings, said: &Said) -> Vec<Finding> {
    let settings = Settings {
        workers: NonZeroU32::new(1),
        webrtc_port: None,
        log_level: LogLevel::Warn,
        log_tags: Vec::new(),
        ..settings
    };
    let server = match Server::start(settings).await {
        Ok(server) => server,
        Err(error) => {
            let mut findings = vec![Finding::fail("start", error, None)];
            findings.extend(warnings(said));
            return findings;
        }
    };
    // Its answer comes behind what it has logged.
    let workers = server.workers();
    let mut findings = vec![Finding::ok("start", "a server starts, and its worker answers")];
    for worker in &workers {
        if timeout(PATIENCE, server.worker_stats(worker.id)).await.is_err() {
            findings = vec![Finding::fail("start", "the worker does not answer", None)];
        }
    }
    findings.extend(server.workers().iter().map(sandbox));
    // Before it is closed, which something may still not be ready for.
    findings.extend(warnings(said));
    server.close().await;
    findings
}

fn sandbox(worker: &WorkerInfo) -> Finding {
    const CHECK: &str = "sandbox";
    match &worker.sandbox {
        None => Finding::warn(
            CHECK,
            "off",
            "leave out `sandbox = \"off\"`: workers read what strangers send",
        ),
        Some(sandbox) if sandbox.lacks.is_empty() => Finding::ok(CHECK, sandbox),
        Some(sandbox) => {
            let lacks = sandbox
                .lacks
                .iter()
                .map(|lack| format!("{}: {}", lack.layer, lack.reason));
            Finding::warn(CHECK, sandbox, lacks.collect::<Vec<_>>().join("; "))
        }
    }
}

/// What was logged as a warning or an error, each once.
#[derive(Clone, Debug, Default)]
struct Said(Arc<Mutex<Vec<String>>>);

impl Said {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Said {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if *event.metadata().level() > Level::WARN {
            return;
        }
        let mut line = Line::default();
        event.record(&mut line);
        let line = format!("{}{}", line.message, line.fields);
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
}

/// A line of a log: the message, then the rest in parentheses.
#[derive(Debug, Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Nothing is refused by a string.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            "worker" | "pid" => Ok(()),
            name => write!(self.fields, " ({name} {value:?})"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_kept_once_and_chatter_is_not() {
        let said = Said::default();
        let collector = Registry::default().with(said.clone());
        tracing::subscriber::with_default(collector, || {
            for _ in 0..2 {
                tracing::warn!(errno = 92, "the kernel refuses UDP_GRO, so: it costs more");
                tracing::info!("ready");
            }
        });
        assert_eq!(
            said.lines(),
            ["the kernel refuses UDP_GRO, so: it costs more (errno 92)"]
        );
    }
}
