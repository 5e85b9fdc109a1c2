//! Log lines on their way from a worker into the supervisor's `tracing`.

use crate::id::WorkerId;
use crate::message::{LogLevel, LogLine};

/// The longest text of a line, in bytes.
pub const TEXT_MAX: usize = 4096;

/// The longest target of a line, in bytes.
pub const TARGET_MAX: usize = 256;

/// The line with its texts cut to their limits.
pub fn bounded(mut line: LogLine) -> LogLine {
    cut(&mut line.text, TEXT_MAX);
    cut(&mut line.target, TARGET_MAX);
    line
}

/// Cuts `text` to `max` bytes, between two characters.
fn cut(text: &mut String, max: usize) {
    let mut len = max.min(text.len());
    while !text.is_char_boundary(len) {
        len -= 1; // zero is a boundary
    }
    text.truncate(len);
}

/// Hands a worker's line to this process's `tracing`, under the target `weir_worker` with the worker's own target as the field
/// `origin`, since targets are fixed when a program is compiled.
///
/// A worker parses the network, so its lines are cut to their limits, and control characters, which could forge lines or drive
/// a terminal, arrive escaped.
pub fn emit(worker: WorkerId, line: LogLine) {
    let line = bounded(line);
    let (origin, text) = (printable(line.target), printable(line.text));
    macro_rules! at {
        ($level:ident) => {
            tracing::event!(target: "weir_worker", tracing::Level::$level, worker = worker.0, %origin, "{text}")
        };
    }
    match line.level {
        LogLevel::Error => at!(ERROR),
        LogLevel::Warn => at!(WARN),
        LogLevel::Info => at!(INFO),
        LogLevel::Debug => at!(DEBUG),
        LogLevel::Trace => at!(TRACE),
    }
}

/// The text with its control characters escaped.
fn printable(text: String) -> String {
    if !text.chars().any(char::is_control) {
        return text;
    }
    let mut printable = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character.is_control() {
            printable.extend(character.escape_default());
        } else {
            printable.push(character);
        }
    }
    printable
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What this process logs while it emits the lines.
    fn logged(lines: impl IntoIterator<Item = LogLine>) -> String {
        let output = Output::default();
        let writer = output.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .without_time()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            for line in lines {
                emit(WorkerId(4), line);
            }
        });
        let bytes = output.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    fn line(level: LogLevel, text: &str) -> LogLine {
        LogLine {
            level,
            target: String::from("weir_worker::relay"),
            text: text.to_owned(),
        }
    }

    #[test]
    fn lines_keep_level_worker_and_origin() {
        let levels = [
            LogLevel::Error,
            LogLevel::Warn,
            LogLevel::Info,
            LogLevel::Debug,
            LogLevel::Trace,
        ];
        assert_eq!(
            logged(levels.map(|level| line(level, "hello"))),
            "ERROR weir_worker: hello worker=4 origin=weir_worker::relay\n \
             WARN weir_worker: hello worker=4 origin=weir_worker::relay\n \
             INFO weir_worker: hello worker=4 origin=weir_worker::relay\n\
             DEBUG weir_worker: hello worker=4 origin=weir_worker::relay\n\
             TRACE weir_worker: hello worker=4 origin=weir_worker::relay\n"
        );
    }

    #[test]
    fn a_line_cannot_forge_another_nor_drive_a_terminal() {
        let text = logged([line(LogLevel::Info, "a\nERROR forged\r\u{1b}[2J")]);
        assert_eq!(text.lines().count(), 1);
        assert!(text.contains(r"a\nERROR forged\r\u{1b}[2J"), "{text}");
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let bounded = bounded(LogLine {
            level: LogLevel::Info,
            target: "é".repeat(TARGET_MAX),
            text: format!("x{}", "é".repeat(TEXT_MAX)),
        });
        assert_eq!((bounded.target.len(), bounded.text.len()), (TARGET_MAX, TEXT_MAX - 1));
    }
}
