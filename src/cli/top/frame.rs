//! One picture: workers and rooms as text.

use std::io::{self, Write};
use std::time::Duration;

use weir::http::LIST_MAX;
use weir::{Counts, DropReason, WorkerStats};
use weir_channel::text::visible;

use super::snapshot::{Snapshot, Worker};
use crate::cli::ctl::client::Failure;
use crate::cli::ctl::table::{Cell, Table};
use crate::cli::ctl::units::bitrate;
use crate::cli::palette::{Palette, Tone};

/// Lines that are neither a worker nor a room: the heading, the two tables' titles, the two gaps, and that there are more rooms.
const OTHER_LINES: usize = 6;

/// How many rooms there is room for on a terminal with so many rows.
pub(super) fn rooms_that_fit(rows: usize, workers: usize) -> usize {
    rows.saturating_sub(workers + OTHER_LINES).clamp(1, LIST_MAX)
}

/// What is shown while no server answers.
pub(super) fn absence(failure: &Failure) -> Vec<u8> {
    format!("{}\ntrying again; q ends\n", visible(&failure.to_string())).into_bytes()
}

/// A look, and the one before it, if there was one.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    now: &'a Snapshot,
    before: Option<&'a Snapshot>,
}

impl<'a> Frame<'a> {
    pub(super) fn new(now: &'a Snapshot, before: Option<&'a Snapshot>) -> Self {
        Self { now, before }
    }

    /// Writes it in lines.
    pub(super) fn write_to(&self, out: &mut dyn Write, palette: Palette) -> io::Result<()> {
        let total = &self.now.stats.total;
        writeln!(
            out,
            "weir top: {} workers, {} rooms, {} transports, {} producers, {} consumers\n",
            self.now.workers(),
            total.rooms,
            total.transports,
            total.producers,
            total.consumers
        )?;
        let mut workers = Table::default();
        for worker in &self.now.workers {
            self.add_worker(&mut workers, worker);
        }
        workers.write_to(out, palette)?;
        writeln!(out)?;
        let mut rooms = Table::default();
        for room in &self.now.rooms.items {
            rooms.row([
                (">ROOM", room.id.0.into()),
                (">WORKER", room.worker.0.into()),
                (">PEERS", room.peers.into()),
                (">TRANSPORTS", room.transports.into()),
                (">PRODUCERS", room.producers.into()),
                (">CONSUMERS", room.consumers.into()),
                ("APP DATA", Cell::app_data(&room.app_data)),
            ]);
        }
        if rooms.is_empty() {
            return writeln!(out, "no rooms");
        }
        rooms.write_to(out, palette)?;
        if self.now.rooms.next.is_some() {
            writeln!(out, "and more rooms")?;
        }
        Ok(())
    }

    fn add_worker(&self, table: &mut Table, worker: &Worker) {
        let state = match worker.state.name.as_str() {
            "running" => Tone::Good,
            _ => Tone::Warning,
        };
        let stats = self.now.of(worker.id).map(|(_, stats)| stats);
        let rates = self.rates(worker.id);
        let count = |count: fn(&WorkerStats) -> u64| Cell::or_none(stats.map(count));
        let rate = |rate: fn(&Rates) -> String| Cell::or_none(rates.as_ref().map(rate));
        table.row([
            (">WORKER", worker.id.into()),
            ("STATE", Cell::new(&worker.state.name, state)),
            (">CORE", Cell::or_none(worker.cpu)),
            (">CPU", rate(|rates| format!("{:.1} %", rates.cpu_percent))),
            (">ROOMS", count(|stats| stats.rooms)),
            (">PRODUCERS", count(|stats| stats.producers)),
            (">CONSUMERS", count(|stats| stats.consumers)),
            (">IN/s", rate(|rates| rates.packets_in.to_string())),
            (">IN", rate(|rates| bitrate(rates.bits_in))),
            (">OUT/s", rate(|rates| rates.packets_out.to_string())),
            (">OUT", rate(|rates| bitrate(rates.bits_out))),
            (
                ">LAST GAP",
                Cell::or_none(worker.last_gap_ms.map(|gap| format!("{gap} ms"))),
            ),
            (
                "DROPPED/s",
                rates
                    .as_ref()
                    .map_or_else(Cell::none, |rates| Cell::reasons(&rates.dropped)),
            ),
        ]);
    }

    /// What a worker did per second since the look before. None for one that did not answer, or is another process by now.
    fn rates(&self, worker: u32) -> Option<Rates> {
        let before = self.before?;
        let ((pid, now), (pid_before, then)) = (self.now.of(worker)?, before.of(worker)?);
        if pid != pid_before {
            return None;
        }
        Rates::between(then, now, self.now.at.saturating_duration_since(before.at))
    }
}

/// Counters per second.
#[derive(Debug)]
struct Rates {
    cpu_percent: f64,
    packets_in: u64,
    bits_in: u64,
    packets_out: u64,
    bits_out: u64,
    dropped: Counts<DropReason>,
}

impl Rates {
    fn between(then: &WorkerStats, now: &WorkerStats, elapsed: Duration) -> Option<Self> {
        let seconds = elapsed.as_secs_f64();
        if seconds <= 0.0 {
            return None;
        }
        let rate = |then: u64, now: u64| (now.saturating_sub(then) as f64 / seconds).round() as u64;
        let mut dropped = Counts::default();
        for &(reason, count) in &now.dropped {
            match rate(then.dropped.of(reason), count) {
                0 => {}
                per_second => dropped.add(reason, per_second),
            }
        }
        Some(Self {
            cpu_percent: now.cpu_ns.saturating_sub(then.cpu_ns) as f64 / seconds / 1e7,
            packets_in: rate(then.packets_received, now.packets_received),
            bits_in: rate(then.bytes_received, now.bytes_received).saturating_mul(8),
            packets_out: rate(then.packets_sent, now.packets_sent),
            bits_out: rate(then.bytes_sent, now.bytes_sent).saturating_mul(8),
            dropped,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use tokio::time::Instant;
    use weir::http::{Listing, RoomView, ServerStats, StatsOfWorker};
    use weir::{RoomId, WorkerId};

    use crate::cli::top::snapshot::WorkerState;

    fn snapshot(at: Instant, pid: u32, stats: WorkerStats, app_data: Value) -> Snapshot {
        let room = RoomView {
            id: RoomId(7),
            worker: WorkerId(1),
            peers: 2,
            transports: 4,
            producers: 2,
            consumers: 2,
            app_data,
        };
        Snapshot {
            at,
            workers: vec![Worker {
                id: 1,
                pid: Some(pid),
                cpu: Some(0),
                state: WorkerState {
                    name: "running".to_owned(),
                },
                last_gap_ms: Some(31),
            }],
            stats: ServerStats {
                total: stats.clone(),
                workers: vec![StatsOfWorker {
                    worker: WorkerId(1),
                    stats: Some(stats),
                    error: None,
                }],
                webhooks: Vec::new(),
            },
            rooms: Listing {
                items: vec![room],
                next: Some(7),
            },
        }
    }

    fn stats(packets: u64) -> WorkerStats {
        let mut stats = WorkerStats {
            rooms: 1,
            transports: 4,
            producers: 2,
            consumers: 2,
            packets_received: packets,
            bytes_received: packets * 1_000,
            packets_sent: packets * 2,
            bytes_sent: packets * 2_000,
            cpu_ns: packets * 1_000_000,
            ..WorkerStats::default()
        };
        stats.dropped.add(DropReason::ConsumerPaused, packets / 2);
        stats
    }

    fn shown(pids: (u32, u32), counts: (u64, u64), app_data: Value) -> String {
        let at = Instant::now();
        let before = snapshot(at, pids.0, stats(counts.0), json!(null));
        let now = snapshot(at + Duration::from_secs(2), pids.1, stats(counts.1), app_data);
        let mut text = Vec::new();
        Frame::new(&now, Some(&before))
            .write_to(&mut text, Palette::Plain)
            .unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_was_counted_in_between_is_shown_per_second() {
        insta::assert_snapshot!(shown((5, 5), (100, 300), json!({"name": "standup"})));
    }

    #[test]
    fn the_counters_of_another_process_are_not_compared() {
        let text = shown((5, 6), (300, 10), json!(null));
        assert!(!text.contains("bit/s"), "{text}");
    }

    #[test]
    fn names_from_elsewhere_do_not_reach_the_terminal_raw() {
        let text = shown((5, 5), (0, 0), json!("\u{1b}[2J\u{7}\u{202e}\u{9b}31m\u{65e5}\u{672c}"));
        let raw = |c: char| c != '\n' && weir_channel::text::is_misleading(c);
        assert!(!text.contains(raw), "{text:?}");
        assert!(text.contains('\u{65e5}'), "{text}");
    }

    #[test]
    fn a_picture_fits_its_terminal() {
        for (rows, workers) in [(24, 1), (24, 2), (50, 40), (8, 1)] {
            let fits = rooms_that_fit(rows, workers);
            assert!(fits == 1 || fits + workers + OTHER_LINES == rows, "{rows} {workers}");
        }
        assert_eq!(rooms_that_fit(0, 0), 1);
        assert_eq!(rooms_that_fit(usize::MAX, 0), LIST_MAX);
    }
}
