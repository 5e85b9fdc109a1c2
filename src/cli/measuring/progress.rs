//! What is said on the error output on the way.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

/// A line on the error output that says how far things are; nothing when nobody watches.
pub(in crate::cli) struct Progress {
    noun: &'static str,
    total: u64,
    done: AtomicU64,
    live: bool,
}

impl Progress {
    /// `total` 0: it is not known.
    pub(in crate::cli) fn new(noun: &'static str, total: u64) -> Self {
        let progress = Self {
            noun,
            total,
            done: AtomicU64::new(0),
            live: std::io::stderr().is_terminal(),
        };
        progress.show(0);
        progress
    }

    pub(in crate::cli) fn advance(&self) {
        self.show(self.done.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// A line that stays.
    pub(in crate::cli) fn say(&self, line: &str) {
        let clear = if self.live { "\r\x1b[K" } else { "" };
        let _ = writeln!(std::io::stderr(), "{clear}{line}");
    }

    fn show(&self, done: u64) {
        if !self.live {
            return;
        }
        let of = if self.total > 0 {
            format!(" of {}", self.total)
        } else {
            String::new()
        };
        let _ = write!(std::io::stderr(), "\r\x1b[K{}: {done}{of}", self.noun);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.live {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Something that makes the figures worse than they need be.
pub(in crate::cli) fn warn(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "warning: {sentence}");
}

/// Ends a command: `print` shows what it has found, and says whether that is as it should be. Or there is only the reason why it found nothing.
pub(in crate::cli) fn conclude<Report>(
    command: &str,
    found: anyhow::Result<Report>,
    print: impl FnOnce(&Report) -> bool,
) -> ExitCode {
    match found.map(|report| print(&report)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            complain(command, &format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Why there are no figures.
fn complain(command: &str, sentence: &str) {
    let _ = writeln!(std::io::stderr(), "weir {command}: {sentence}");
}
