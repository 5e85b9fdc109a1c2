//! How the demo is shown: a live table on a terminal, lines elsewhere, JSON for programs.

mod board;
mod json;
mod lines;
mod table;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result};

use super::reporter::DemoEvent;
use super::setup::Setup;
use super::verdict::Verdict;
use crate::cli::keyboard::is_interactive;
use crate::cli::palette::{Palette, Tone};

use json::Json;
use lines::Lines;
use table::LiveTable;

/// One way to show it.
#[derive(Debug)]
pub(super) enum View {
    /// On a terminal.
    Table(Box<LiveTable>),
    /// In a pipe or a file.
    Lines(Lines),
    /// For programs.
    Json(Json),
}

impl View {
    /// The way that fits where the output goes.
    pub(super) fn new(json: bool, setup: &Setup, length: Duration) -> Result<Self> {
        Ok(if json {
            Self::Json(Json::new(setup, length))
        } else if is_interactive() {
            Self::Table(Box::new(LiveTable::new(setup, length)?))
        } else {
            Self::Lines(Lines::new(setup))
        })
    }

    /// How often it wants to be refreshed.
    pub(super) fn interval(&self) -> Duration {
        match self {
            Self::Table(_) => Duration::from_millis(100),
            Self::Lines(_) | Self::Json(_) => Duration::from_secs(1),
        }
    }

    /// The first thing to show: who takes part.
    pub(super) fn open(&mut self, setup: &Setup) -> Result<()> {
        match self {
            Self::Table(table) => table.open(setup),
            Self::Lines(lines) => lines.open(setup),
            Self::Json(json) => json.open(setup),
        }
        .context("cannot write")
    }

    /// Something happened.
    pub(super) fn show(&mut self, event: &DemoEvent, elapsed: Duration) -> Result<()> {
        match self {
            Self::Table(table) => table.show(event, elapsed),
            Self::Lines(lines) => lines.show(event),
            Self::Json(json) => json.show(event),
        }
        .context("cannot write")
    }

    /// Time passed.
    pub(super) fn refresh(&mut self, setup: &Setup) -> Result<()> {
        match self {
            Self::Table(table) => table.refresh(setup),
            Self::Lines(lines) => lines.refresh(setup),
            Self::Json(json) => json.refresh(setup),
        }
        .context("cannot write")
    }

    /// Ready when the person at the terminal has had enough; never without a terminal.
    pub(super) async fn stopped(&self) {
        match self {
            Self::Table(table) => table.stopped().await,
            Self::Lines(_) | Self::Json(_) => std::future::pending().await,
        }
    }

    /// The last thing to show.
    pub(super) fn finish(self, elapsed: Duration, verdict: &Verdict) -> Result<()> {
        match self {
            Self::Table(table) => table.finish(elapsed, verdict),
            Self::Lines(lines) => lines.finish(elapsed, verdict),
            Self::Json(json) => json.finish(elapsed, verdict),
        }
        .context("cannot write")
    }
}

/// Says what kept the demo from its end.
pub(super) fn complain(error: &anyhow::Error) {
    // If even that cannot be said, the exit code says it.
    let _ = writeln!(io::stderr(), "weir demo: {error:#}");
}

/// Writes the verdict for people, in lines of at most `columns`.
fn write_verdict(
    out: &mut impl Write,
    elapsed: Duration,
    verdict: &Verdict,
    palette: Palette,
    columns: usize,
) -> io::Result<()> {
    let passed = verdict.checks.iter().filter(|finding| finding.passed).count();
    let (total, seconds) = (verdict.checks.len(), elapsed.as_secs_f64());
    let (word, style) = match (verdict.passed(), verdict.interrupted) {
        (false, _) => ("FAILED", Tone::Bad),
        (true, true) => ("interrupted, all well until then", Tone::Normal),
        (true, false) => ("passed", Tone::Good),
    };
    writeln!(
        out,
        "\nVerdict after {seconds:.1} s: {}, {passed} of {total} checks hold\n",
        palette.paint(style, word)
    )?;
    let width = verdict
        .checks
        .iter()
        .map(|finding| finding.name.len())
        .max()
        .unwrap_or(0);
    // "  ✓ name  detail"
    let indent = width + 6;
    for finding in &verdict.checks {
        let (mark, tone) = match finding.passed {
            true => ("✓", Tone::Good),
            false => ("✗", Tone::Bad),
        };
        write!(out, "  {} {:width$}", palette.paint(tone, mark), finding.name)?;
        let details = std::iter::once((Tone::Normal, &finding.detail));
        let faults = finding.faults.iter().map(|fault| (Tone::Bad, fault));
        let mut gap = 2;
        for (tone, text) in details.chain(faults) {
            for line in wrapped(text, columns.saturating_sub(indent)) {
                writeln!(out, "{:gap$}{}", "", palette.paint(tone, &line))?;
                gap = indent;
            }
        }
    }
    out.flush()
}

/// A text in lines of at most `columns`, broken between words. A word that is longer stays whole.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().filter(|line| {
            let len = line.chars().count() + 1 + word.chars().count();
            line.is_empty() || len <= columns
        });
        match line {
            Some(line) => {
                if !line.is_empty() {
                    line.push(' ');
                }
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::finding::Finding;

    fn verdict() -> Verdict {
        Verdict {
            interrupted: false,
            checks: vec![
                Finding {
                    name: "sequence-unbroken",
                    passed: false,
                    detail: "broken 2 times: sequence numbers go up by one".to_owned(),
                    faults: vec!["ben: sequence number 7 after 5: 1 missing".to_owned()],
                },
                Finding {
                    name: "workers-alive",
                    passed: true,
                    detail: "none of 2 worker processes died".to_owned(),
                    faults: Vec::new(),
                },
            ],
        }
    }

    fn written(verdict: &Verdict, palette: Palette, columns: usize) -> String {
        let mut out = Vec::new();
        write_verdict(&mut out, Duration::from_millis(12_340), verdict, palette, columns).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_verdict_fits_its_columns() {
        insta::assert_snapshot!(written(&verdict(), Palette::Plain, 48));
        let widest = written(&verdict(), Palette::Plain, usize::MAX);
        assert!(
            widest
                .lines()
                .any(|line| line.ends_with("sequence numbers go up by one")),
            "{widest}"
        );
    }

    #[test]
    fn colours_only_where_there_are_some() {
        assert!(!written(&verdict(), Palette::Plain, 80).contains('\x1b'));
        assert!(written(&verdict(), Palette::Colour, 80).contains("\x1b[31mFAILED\x1b[0m"));
    }

    #[test]
    fn words_that_are_too_long_stay_whole() {
        assert_eq!(wrapped("a bb ccc", 4), ["a bb", "ccc"]);
        assert_eq!(wrapped("a bb ccc", 0), ["a", "bb", "ccc"]);
        assert_eq!(wrapped("", 10), [""]);
    }
}
