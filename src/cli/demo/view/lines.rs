//! Lines: what happens as it happens, and now and then where everybody stands.

use std::io::{self, Write};
use std::time::Duration;

use super::board::{Board, State, bitrate, count, seconds};
use super::write_verdict;
use crate::cli::demo::reporter::{DemoEvent, DemoEventKind};
use crate::cli::demo::setup::Setup;
use crate::cli::demo::verdict::Verdict;
use crate::cli::palette::Palette;

/// Refreshes between two lines that say where everybody stands.
const REFRESHES_PER_LINE: u32 = 4;

/// Writes lines to standard output.
#[derive(Debug)]
pub(in crate::cli::demo) struct Lines {
    board: Board,
    refreshes: u32,
}

impl Lines {
    pub(in crate::cli::demo) fn new(setup: &Setup) -> Self {
        Self {
            board: Board::new(setup),
            refreshes: 0,
        }
    }

    pub(super) fn open(&self, setup: &Setup) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for worker in setup.server().workers() {
            let pid = worker.pid.map_or("none".to_owned(), |pid| pid.to_string());
            let cpu = worker.cpu.map_or("any".to_owned(), |cpu| cpu.to_string());
            writeln!(out, "{}: pid {pid}, cpu {cpu}, {} rooms", worker.id, worker.rooms)?;
        }
        for (source, row) in std::iter::zip(&setup.sources, &self.board.producers) {
            let layers = match source.tracks.len() {
                1 => String::new(),
                layers => format!(" in {layers} sizes"),
            };
            let (codec, room, worker) = (source.tracks[0].codec().subtype(), source.room, row.worker);
            writeln!(
                out,
                "{} sends {codec}{layers} into the {room} (worker {worker})",
                source.name
            )?;
        }
        for row in &self.board.consumers {
            let preference = match row.video {
                true => format!(", preferring {}", row.preferred_profile),
                false => String::new(),
            };
            writeln!(out, "{} consumes {}{preference}", row.name, row.source)?;
        }
        out.flush()
    }

    pub(super) fn show(&mut self, event: &DemoEvent) -> io::Result<()> {
        // What the server says shows by itself, or in the verdict.
        if let (Some(target), false) = (event.kind.target(), matches!(event.kind, DemoEventKind::Server { .. })) {
            writeln!(
                io::stdout(),
                "{}  {target} {}",
                seconds(event.at_ms),
                event.kind.words()
            )?;
        }
        Ok(())
    }

    pub(super) fn refresh(&mut self, setup: &Setup) -> io::Result<()> {
        self.board.refresh(setup);
        self.refreshes += 1;
        if !self.refreshes.is_multiple_of(REFRESHES_PER_LINE) {
            return Ok(());
        }
        let stand = self.board.consumers.iter().map(|row| match (row.state, row.profile) {
            (State::Flowing, Some(profile)) if row.video => format!("{} {profile} {}", row.name, bitrate(row.bitrate)),
            (State::Flowing, _) => format!("{} {}", row.name, bitrate(row.bitrate)),
            (state, _) => format!("{} {state}", row.name),
        });
        let stand = stand.collect::<Vec<_>>().join(" | ");
        let received = self.board.consumers.iter().map(|row| row.packets).sum();
        let at = seconds(setup.elapsed().as_millis() as u64);
        writeln!(io::stdout(), "{at}  [{} packets received] {stand}", count(received))
    }

    pub(super) fn finish(self, elapsed: Duration, verdict: &Verdict) -> io::Result<()> {
        write_verdict(&mut io::stdout().lock(), elapsed, verdict, Palette::Plain, usize::MAX)
    }
}
