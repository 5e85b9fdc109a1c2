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
