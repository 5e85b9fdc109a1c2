//! The log of `weir serve`: its own lines and those of its workers, on standard error.

use std::fmt::Debug;
use std::io::{self, IsTerminal, stderr};

use clap::ValueEnum;
use tracing::Subscriber;
use tracing::field::Field;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};
use weir::{LogLevel, LogSettings};
use weir_channel::text::{visible, visible_json};

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
    let started = tracing_subscriber::registry()
        .with(filter)
        .with(lines(format, stderr, stderr().is_terminal()))
        .try_init();
    LogLevelHandle(started.is_ok().then_some(handle))
}

/// Writes each event as a line. Names and data come from clients: what could forge another line or drive a terminal is escaped.
fn lines<S, W>(format: LogFormat, writer: W, colours: bool) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = fmt::layer().with_ansi(colours);
    match format {
        LogFormat::Text => {
            let fields = debug_fn(|line: &mut Writer<'_>, field: &Field, value: &dyn Debug| {
                let text = format!("{value:?}");
                match field.name() {
                    "message" => write!(line, "{}", visible(&text)),
                    name => write!(line, "{name}={}", visible(&text)),
                }
            });
            lines.with_writer(writer).fmt_fields(fields.delimited(" ")).boxed()
        }
        LogFormat::Json => lines
            .with_writer(VisibleJson(writer))
            .json()
            .flatten_event(true)
            .boxed(),
    }
}

/// A writer of JSON whose misleading characters are escaped as JSON escapes them.
struct VisibleJson<W>(W);

impl<'a, W: MakeWriter<'a>> MakeWriter<'a> for VisibleJson<W> {
    type Writer = VisibleJson<W::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        VisibleJson(self.0.make_writer())
    }
}

impl<W: io::Write> io::Write for VisibleJson<W> {
    /// The layer writes each line at once.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0
            .write_all(visible_json(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
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
    use std::io::{Read as _, Seek as _};
    use std::sync::Arc;

    use weir_channel::text::is_misleading;

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

    /// What a subscriber of `format` writes while `log` runs.
    fn written(format: LogFormat, log: impl FnOnce()) -> String {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let subscriber = tracing_subscriber::registry().with(lines(format, file.clone(), false));
        tracing::subscriber::with_default(subscriber, log);
        let mut text = String::new();
        (&*file).rewind().unwrap();
        (&*file).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn no_name_forges_a_line_or_turns_the_words_around_it() {
        let name = "nimda\u{202e}\r\nERROR forged\u{1b}[2J";
        let log = || tracing::warn!(target: "weir", name, by_display = %name, by_debug = ?name, "peer {name} came");
        let text = written(LogFormat::Text, log);
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.trim_end_matches('\n').contains(is_misleading), "{text:?}");
        for shown in [
            r"peer nimda\u{202e}\r\nERROR forged\u{1b}[2J came",
            r"by_display=nimda\u{202e}\r\nERROR",
        ] {
            assert!(text.contains(shown), "{text}");
        }
        let json = written(LogFormat::Json, log);
        assert_eq!(json.lines().count(), 1, "{json}");
        assert!(!json.trim_end_matches('\n').contains(is_misleading), "{json:?}");
        let read: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(read["by_display"], name);
    }
}
