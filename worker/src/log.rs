//! A worker's log: `tracing` events become [`LogLine`]s, which the event loop puts on the channel.
//!
//! Nothing here blocks or fails: lines that find no room are counted, and the count is reported.

use std::collections::VecDeque;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::reload;
use weir_channel::log::bounded;
use weir_channel::message::{LogLevel, LogLine};

/// Lines that may wait for the end of the turn; the channel keeps about as many.
const LINES_MAX: usize = 1_000;

/// The longest list of directives, in bytes.
const DIRECTIVES_BYTES_MAX: usize = 1_000;

/// What a worker logs before it is told.
const DEFAULT_LEVEL: LevelFilter = LevelFilter::WARN;

/// Where lines wait for the event loop.
#[derive(Clone, Debug, Default)]
pub struct LogQueue(Arc<Mutex<Lines>>);

#[derive(Debug, Default)]
struct Lines {
    waiting: VecDeque<LogLine>,
    /// Dropped since the last [`LogQueue::take_dropped`].
    dropped: u64,
}

impl LogQueue {
    /// The oldest line.
    pub fn pop(&self) -> Option<LogLine> {
        self.lines().waiting.pop_front()
    }

    /// How many lines found no room since the last time.
    pub fn take_dropped(&self) -> u64 {
        std::mem::take(&mut self.lines().dropped)
    }

    fn push(&self, line: LogLine) {
        let mut lines = self.lines();
        if lines.waiting.len() < LINES_MAX {
            lines.waiting.push_back(bounded(line));
        } else {
            lines.dropped += 1;
        }
    }

    /// A worker has one thread, so nobody ever waits here.
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes what is logged, at run time.
pub struct LogFilterHandle(Box<dyn Fn(Targets) -> Result<(), reload::Error> + Send>);

impl LogFilterHandle {
    /// Takes `directives`, such as `warn,weir_worker::relay=debug`, from now on.
    ///
    /// # Errors
    /// A sentence that says what is wrong with them; the filter is as it was.
    pub fn set(&self, directives: &str) -> Result<(), String> {
        if directives.len() > DIRECTIVES_BYTES_MAX {
            return Err(format!(
                "{} bytes of log directives; at most {DIRECTIVES_BYTES_MAX} are allowed",
                directives.len()
            ));
        }
        let filter = match directives {
            "" => Targets::new().with_default(DEFAULT_LEVEL),
            _ if directives.split(',').any(|directive| directive.trim().is_empty()) => {
                return Err(format!("log directives {directives:?}: one is empty"));
            }
            _ => directives
                .parse()
                .map_err(|error| format!("log directives {directives:?}: {error}"))?,
        };
        (self.0)(filter).map_err(|error| format!("the log filter cannot be changed: {error}"))
    }
}

impl fmt::Debug for LogFilterHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogFilterHandle")
    }
}

/// A subscriber that logs warnings and errors into the queue until told otherwise.
pub fn subscriber() -> (impl Subscriber + Send + Sync + 'static, LogQueue, LogFilterHandle) {
    let queue = LogQueue::default();
    let filter = Targets::new().with_default(DEFAULT_LEVEL);
    let (filter, handle) = reload::Layer::new(filter);
    let layer = QueueLayer(queue.clone());
    let subscriber = tracing_subscriber::registry().with(filter).with(layer);
    let set = move |filter| handle.reload(filter);
    (subscriber, queue, LogFilterHandle(Box::new(set)))
}

/// Turns events into lines.
struct QueueLayer(LogQueue);

impl<S: Subscriber> Layer<S> for QueueLayer {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let metadata = event.metadata();
        let mut text = Text::default();
        event.record(&mut text);
        self.0.push(LogLine {
            level: match *metadata.level() {
                Level::ERROR => LogLevel::Error,
                Level::WARN => LogLevel::Warn,
                Level::INFO => LogLevel::Info,
                Level::DEBUG => LogLevel::Debug,
                Level::TRACE => LogLevel::Trace,
            },
            target: metadata.target().to_owned(),
            text: text.finish(),
        });
    }
}

/// The message of an event and then its fields.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn finish(self) -> String {
        // A message without fields, or fields without a message, need no space between them.
        if self.message.is_empty() {
            self.fields.trim_start().to_owned()
        } else {
            self.message + &self.fields
        }
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // A string takes all.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use tracing::{debug, error, info, warn};
    use weir_channel::log::TEXT_MAX;

    use super::*;

    fn lines(queue: &LogQueue) -> Vec<(LogLevel, String)> {
        std::iter::from_fn(|| queue.pop())
            .map(|line| (line.level, line.text))
            .collect()
    }

    #[test]
    fn events_become_lines_and_the_filter_can_be_changed() {
        let (subscriber, queue, filter) = subscriber();
        tracing::subscriber::with_default(subscriber, || {
            info!("not yet");
            warn!(port = 5004, reason = "busy", "cannot bind");
            error!(count = 3);
            assert_eq!(
                lines(&queue),
                [
                    (LogLevel::Warn, "cannot bind port=5004 reason=\"busy\"".to_owned()),
                    (LogLevel::Error, "count=3".to_owned()),
                ]
            );
            filter.set("error,weir_worker::log=debug").unwrap();
            debug!("now");
            warn!(target: "weir_worker::relay", "but not this");
            assert_eq!(lines(&queue), [(LogLevel::Debug, "now".to_owned())]);
            for bad in ["weir_worker=loud", "=====", &"x".repeat(1_001)] {
                assert!(filter.set(bad).is_err(), "{bad}");
            }
            debug!("the filter is as it was");
            assert_eq!(lines(&queue).len(), 1);
        });
    }

    #[test]
    fn what_is_too_much_is_cut_or_counted() {
        let (subscriber, queue, _filter) = subscriber();
        tracing::subscriber::with_default(subscriber, || {
            warn!(field = "y", "{}", "ä".repeat(3_000));
            let long = queue.pop().unwrap().text;
            assert_eq!(long, "ä".repeat(TEXT_MAX / 2));
            for number in 0..LINES_MAX + 5 {
                warn!(number);
            }
        });
        assert_eq!(queue.take_dropped(), 5);
        assert_eq!(queue.take_dropped(), 0);
        assert_eq!(lines(&queue).len(), LINES_MAX);
    }
}
