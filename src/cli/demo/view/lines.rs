//! Lines: what happens as it happens, and now and then where everybody stands.

use std::io::{self, Write};
use std::time::Duration;

use super::board::{Board, State, bitrate, count, seconds};
use super::{Paint, write_verdict};
use crate::cli::demo::cast::Cast;
use crate::cli::demo::story::{Moment, MomentKind};
use crate::cli::demo::verdict::Verdict;

/// Refreshes between two lines that say where everybody stands.
const REFRESHES_PER_LINE: u32 = 4;

/// Writes lines to standard output.
#[derive(Debug)]
pub(in crate::cli::demo) struct Lines {
    board: Board,
    refreshes: u32,
}

impl Lines {
    pub(in crate::cli::demo) fn new(cast: &Cast) -> Self {
        Self {
            board: Board::new(cast),
            refreshes: 0,
        }
    }

    pub(super) fn open(&self, cast: &Cast) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for worker in cast.server().workers() {
            let pid = worker.pid.map_or("none".to_owned(), |pid| pid.to_string());
            let cpu = worker.cpu.map_or("any".to_owned(), |cpu| cpu.to_string());
            writeln!(out, "{}: pid {pid}, cpu {cpu}, {} rooms", worker.id, worker.rooms)?;
        }
        for (player, row) in std::iter::zip(&cast.players, &self.board.players) {
            let layers = match player.tracks.len() {
                1 => String::new(),
                layers => format!(" in {layers} sizes"),
            };
            let (codec, room, worker) = (player.tracks[0].codec().subtype(), player.room, row.worker);
            writeln!(
                out,
                "{} sends {codec}{layers} into the {room} (worker {worker})",
                player.name
            )?;
        }
        for row in &self.board.seats {
            let wish = match row.video {
                true => format!(", preferring {}", row.preferred_profile),
                false => String::new(),
            };
            writeln!(out, "{} consumes {}{wish}", row.name, row.source)?;
        }
        out.flush()
    }

    pub(super) fn tell(&mut self, moment: &Moment) -> io::Result<()> {
        // What the server says shows by itself, or in the verdict.
        if let (Some(target), false) = (moment.kind.target(), matches!(moment.kind, MomentKind::Server { .. })) {
            writeln!(
                io::stdout(),
                "{}  {target} {}",
                seconds(moment.at_ms),
                moment.kind.words()
            )?;
        }
        Ok(())
    }

    pub(super) fn refresh(&mut self, cast: &Cast) -> io::Result<()> {
        self.board.refresh(cast);
        self.refreshes += 1;
        if !self.refreshes.is_multiple_of(REFRESHES_PER_LINE) {
            return Ok(());
        }
        let stand = self.board.seats.iter().map(|row| match (row.state, row.profile) {
            (State::Flowing, Some(profile)) if row.video => format!("{} {profile} {}", row.name, bitrate(row.bitrate)),
            (State::Flowing, _) => format!("{} {}", row.name, bitrate(row.bitrate)),
            (state, _) => format!("{} {state}", row.name),
        });
        let stand = stand.collect::<Vec<_>>().join(" | ");
        let received = self.board.seats.iter().map(|row| row.packets).sum();
        let at = seconds(cast.elapsed().as_millis() as u64);
        writeln!(io::stdout(), "{at}  [{} packets received] {stand}", count(received))
    }

    pub(super) fn finish(self, elapsed: Duration, verdict: &Verdict) -> io::Result<()> {
        write_verdict(&mut io::stdout().lock(), elapsed, verdict, Paint::None, usize::MAX)
    }
}
