//! The log of `weir serve`: its own lines and those of its workers, on standard error.

use std::io::{IsTerminal, stderr};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt};
use weir::{LogLevel, LogSettings};

/// How a log line looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(super) enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Changes how much is logged.
#[derive(Clone, Debug)]
pub(super) struct LogLevelHandle(Option<Handle<Targets, Registry>>);

impl LogLevelHandle {
    /// From now on as `settings` say.
    pub(super) fn set(&self, settings: &LogSettings) {
        if let Some(handle) = &self.0 {
            // It fails only when the subscriber is gone, and then nothing is logged at all.
            let _ = handle.reload(filter(settings));
        }
    }
}

/// Starts logging, unless somebody has started it already.
pub(super) fn init(format: LogFormat, settings: &LogSettings) -> LogLevelHandle {
    let (filter, handle) = reload::Layer::new(filter(settings));
    let lines = fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal());
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    LogLevelHandle(started.is_ok().then_some(handle))
}

/// This process logs at the workers' level. What the workers let through is not filtered again.
fn filter(settings: &LogSettings) -> Targets {
    let level = match settings.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        // Libraries have less to say that an operator wants to hear.
        .with_default(level.min(LevelFilter::WARN))
        .with_targets([
            ("weir", level),
            ("weir_channel", level),
            ("weir::worker", LevelFilter::TRACE),
        ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_heard_at_any_level() {
        for level in [
            LogLevel::Error,
            LogLevel::Warn,
            LogLevel::Info,
            LogLevel::Debug,
            LogLevel::Trace,
        ] {
            let settings = LogSettings {
                level,
                ..LogSettings::default()
            };
            let shown = filter(&settings).to_string();
            assert!(shown.contains("weir::worker=trace"), "{shown}");
        }
    }
}
