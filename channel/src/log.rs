//! Log lines on their way from a worker to the supervisor: how long they may be, and what may be in them.
//!
//! [`crate::endpoint::WorkerEndpoint::push_log`] cuts them, [`crate::endpoint::WorkerReceiver::next`] checks them again.

use crate::message::LogLine;
use crate::text::{cut, visible};

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

/// The line as it may be shown: a worker parses the network, so its texts are cut to their limits, and characters that could
/// forge lines or drive a terminal are escaped.
pub fn printable(line: LogLine) -> LogLine {
    let line = bounded(line);
    LogLine {
        level: line.level,
        target: visible(&line.target).into_owned(),
        text: visible(&line.text).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::LogLevel;

    fn line(target: &str, text: &str) -> LogLine {
        LogLine {
            level: LogLevel::Info,
            target: target.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn a_line_cannot_forge_another_nor_drive_a_terminal() {
        let shown = printable(line("a\tb", "a\nERROR forged\r\u{1b}[2J\u{9b}31m"));
        assert_eq!(shown, line(r"a\tb", r"a\nERROR forged\r\u{1b}[2J\u{9b}31m"));
        let harmless = line("weir_worker::relay", "naïve ☃ text");
        assert_eq!(printable(harmless.clone()), harmless);
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let bounded = bounded(line(&"é".repeat(TARGET_MAX), &format!("x{}", "é".repeat(TEXT_MAX))));
        assert_eq!((bounded.target.len(), bounded.text.len()), (TARGET_MAX, TEXT_MAX - 1));
    }
}
