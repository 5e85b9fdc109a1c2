//! How the demo is shown: a live table on a terminal, lines elsewhere, JSON for programs.

mod board;
mod json;
mod lines;
mod table;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::{Context, Result};

use super::cast::Cast;
use super::story::Moment;
use super::verdict::Verdict;

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
    pub(super) fn new(json: bool, cast: &Cast, length: Duration) -> Result<Self> {
        let out = io::stdout();
        Ok(if json {
            Self::Json(Json::new(cast, length))
        } else if out.is_terminal() && io::stdin().is_terminal() {
            Self::Table(Box::new(LiveTable::new(cast, length)?))
        } else {
            Self::Lines(Lines::new(cast))
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
    pub(super) fn open(&mut self, cast: &Cast) -> Result<()> {
        match self {
            Self::Table(table) => table.open(cast),
            Self::Lines(lines) => lines.open(cast),
            Self::Json(json) => json.open(cast),
        }
        .context("cannot write")
    }

    /// Something happened.
    pub(super) fn tell(&mut self, moment: &Moment) -> Result<()> {
        match self {
            Self::Table(table) => table.tell(moment),
            Self::Lines(lines) => lines.tell(moment),
            Self::Json(json) => json.tell(moment),
        }
        .context("cannot write")
    }

    /// Time passed.
    pub(super) fn refresh(&mut self, cast: &Cast) -> Result<()> {
        match self {
            Self::Table(table) => table.refresh(cast),
            Self::Lines(lines) => lines.refresh(cast),
            Self::Json(json) => json.refresh(cast),
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

/// Writes the verdict for people. `paint` adds the colours of a terminal.
fn write_verdict(out: &mut impl Write, elapsed: Duration, verdict: &Verdict, paint: Paint) -> io::Result<()> {
    let passed = verdict.checks.iter().filter(|finding| finding.passed).count();
    let (total, seconds) = (verdict.checks.len(), elapsed.as_secs_f64());
    let (word, style) = match (verdict.passed(), verdict.interrupted) {
        (false, _) => ("FAILED", Tone::Bad),
        (true, true) => ("interrupted, all well until then", Tone::Plain),
        (true, false) => ("passed", Tone::Good),
    };
    writeln!(
        out,
        "\nVerdict after {seconds:.1} s: {}, {passed} of {total} checks hold\n",
        paint.on(style, word)
    )?;
    let width = verdict
        .checks
        .iter()
        .map(|finding| finding.name.len())
        .max()
        .unwrap_or(0);
    for finding in &verdict.checks {
        let (mark, tone) = if finding.passed {
            ("✓", Tone::Good)
        } else {
            ("✗", Tone::Bad)
        };
        writeln!(
            out,
            "  {} {:width$}  {}",
            paint.on(tone, mark),
            finding.name,
            finding.detail
        )?;
        for fault in &finding.faults {
            writeln!(out, "    {:width$}  {}", "", paint.on(Tone::Bad, fault))?;
        }
    }
    out.flush()
}

/// What a word means to the reader.
#[derive(Clone, Copy)]
enum Tone {
    Good,
    Bad,
    Plain,
}

/// Whether words have colours.
#[derive(Clone, Copy, Debug)]
enum Paint {
    Colours,
    None,
}

impl Paint {
    /// Colours, unless the user wants none (<https://no-color.org>).
    fn of_terminal() -> Self {
        match std::env::var_os("NO_COLOR") {
            Some(value) if !value.is_empty() => Self::None,
            _ => Self::Colours,
        }
    }

    fn on(self, tone: Tone, text: &str) -> String {
        let code = match (self, tone) {
            (Self::None, _) | (_, Tone::Plain) => return text.to_owned(),
            (Self::Colours, Tone::Good) => 32,
            (Self::Colours, Tone::Bad) => 31,
        };
        format!("\x1b[1;{code}m{text}\x1b[0m")
    }
}
