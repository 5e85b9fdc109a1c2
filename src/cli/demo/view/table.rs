//! A live table: what happens scrolls by above, and the state of everything is redrawn below.

use std::io::{self, Write};
use std::time::Duration;

use weir::WorkerInfo;

use super::board::{Board, ConsumerRow, ProducerRow, State, bitrate, count, seconds};
use super::write_verdict;
use crate::cli::demo::reporter::{DemoEvent, DemoEventKind};
use crate::cli::demo::setup::Setup;
use crate::cli::demo::verdict::Verdict;
use crate::cli::keyboard::Keyboard;
use crate::cli::palette::Palette;

/// What a terminal that does not tell its size is taken to have.
const COLUMNS: usize = 80;
const ROWS: usize = 24;

/// A terminal narrower than this has no room for the history of the bitrate.
const WIDTH_WITH_HISTORY: usize = 132;

/// A terminal narrower than this has no room for what happened last, which it has seen scroll by.
const WIDTH_WITH_LAST_EVENT: usize = 96;

/// Bars of the history, from nothing to the most.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws on the terminal.
#[derive(Debug)]
pub(in crate::cli::demo) struct LiveTable {
    board: Board,
    length: Duration,
    palette: Palette,
    keyboard: Keyboard,
    /// The lines of the last drawing. The cursor is below them.
    drawn: usize,
}

impl LiveTable {
    pub(in crate::cli::demo) fn new(setup: &Setup, length: Duration) -> io::Result<Self> {
        Ok(Self {
            board: Board::new(setup),
            length,
            palette: Palette::of_stdout(),
            keyboard: Keyboard::listen()?,
            drawn: 0,
        })
    }

    pub(super) fn open(&mut self, setup: &Setup) -> io::Result<()> {
        for worker in &setup.server().workers() {
            let rooms = self.rooms_of(worker);
            let pid = worker.pid.map_or("?".to_owned(), |pid| pid.to_string());
            let cpu = worker.cpu.map_or("any cpu".to_owned(), |cpu| format!("cpu {cpu}"));
            let text = format!("  {}  pid {pid}  {cpu}  {rooms}", worker.id);
            self.draw(Some(&[Span(DIM, text)]), Duration::ZERO)?;
        }
        self.refresh(setup)
    }

    fn rooms_of(&self, worker: &WorkerInfo) -> String {
        let mut rooms: Vec<&str> = Vec::new();
        for row in self.board.producers.iter().filter(|row| row.worker == worker.id.0) {
            if !rooms.contains(&row.room) {
                rooms.push(row.room);
            }
        }
        match rooms.is_empty() {
            true => "no room".to_owned(),
            false => format!("serves {}", rooms.join(" and ")),
        }
    }

    pub(super) fn show(&mut self, event: &DemoEvent, elapsed: Duration) -> io::Result<()> {
        self.board.note(event);
        // What the server says shows by itself, or in the verdict.
        let (Some(target), false) = (event.kind.target(), matches!(event.kind, DemoEventKind::Server { .. })) else {
            return Ok(());
        };
        let (style, bold) = match event.kind {
            DemoEventKind::Step { .. } => (YELLOW, "1;33"),
            DemoEventKind::Fault { .. } => (RED, "1;31"),
            _ => (PLAIN, BOLD),
        };
        let line = [
            Span(DIM, format!("{}  ", seconds(event.at_ms))),
            Span(bold, format!("{target:<13}")),
            Span(style, event.kind.words()),
        ];
        self.draw(Some(&line), elapsed)
    }

    pub(super) fn refresh(&mut self, setup: &Setup) -> io::Result<()> {
        self.board.refresh(setup);
        self.draw(None, setup.elapsed())
    }

    /// Ready when a key was pressed that means "enough".
    pub(super) async fn stopped(&self) {
        self.keyboard.enough().await;
    }

    pub(super) fn finish(mut self, elapsed: Duration, verdict: &Verdict) -> io::Result<()> {
        self.draw(None, elapsed)?;
        write_verdict(&mut io::stdout().lock(), elapsed, verdict, self.palette, size().0)
    }

    /// Draws the tables over the last ones, below a line that stays.
    fn draw(&mut self, above: Option<&[Span]>, elapsed: Duration) -> io::Result<()> {
        let (columns, rows) = size();
        let picture = Picture {
            board: &self.board,
            elapsed,
            length: self.length,
            columns,
        };
        let mut lines = picture.lines();
        // The cursor moves up to the first row at most: a line that has left the terminal cannot be drawn again.
        lines.truncate(rows.saturating_sub(1));
        // All at once, so that nobody sees half of it.
        let mut out = String::new();
        redraw(&mut out, self.drawn, above, &lines, (columns, self.palette));
        self.drawn = lines.len();
        let mut stdout = io::stdout().lock();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()
    }
}

/// Columns and rows of the terminal.
fn size() -> (usize, usize) {
    terminal_size::terminal_size().map_or((COLUMNS, ROWS), |(width, height)| (width.0.into(), height.0.into()))
}

/// Draws lines over the last ones, of which there were `drawn`, below a line that stays. The cursor is below them then.
fn redraw(
    out: &mut String,
    drawn: usize,
    above: Option<&[Span]>,
    lines: &[Vec<Span>],
    (columns, palette): (usize, Palette),
) {
    if drawn > 0 {
        out.push_str(&format!("\x1b[{drawn}A\r"));
    }
    for line in above.into_iter().chain(lines.iter().map(Vec::as_slice)) {
        // The line is cleared first: the cursor stays on the last column of a full one.
        out.push_str("\x1b[2K");
        write_line(out, line, columns, palette);
        out.push('\n');
    }
    if lines.len() < drawn {
        out.push_str("\x1b[J");
    }
}

/// How text looks: the parameters of a terminal's SGR sequence (ECMA-48 §8.3.117).
type Style = &'static str;

const PLAIN: Style = "";
const BOLD: Style = "1";
const DIM: Style = "2";
const RED: Style = "31";
const GREEN: Style = "32";
const YELLOW: Style = "33";
const CYAN: Style = "36";

/// A piece of a line.
#[derive(Debug)]
struct Span(Style, String);

/// Writes as much of a line as the terminal has columns for. Everything that is drawn here is one column wide.
fn write_line(out: &mut String, line: &[Span], columns: usize, palette: Palette) {
    let mut left = columns;
    for Span(style, text) in line {
        let shown: String = text.chars().take(left).collect();
        left -= shown.chars().count();
        // Who wants no colours has bold and dim text all the same.
        let style = match palette {
            Palette::Plain => style.split(';').find(|part| part.len() == 1).unwrap_or(PLAIN),
            Palette::Colour => style,
        };
        match style {
            PLAIN => out.push_str(&shown),
            style => out.push_str(&format!("\x1b[{style}m{shown}\x1b[0m")),
        }
    }
}

/// A line of a table: cells of these widths with a blank between them. What is longer is cut off.
fn row<const N: usize>(widths: [usize; N], cells: [Span; N]) -> Vec<Span> {
    let cells = widths.into_iter().zip(cells);
    let padded = cells.map(|(width, Span(style, text))| Span(style, format!("{text:<width$.width$} ")));
    padded.collect()
}

fn head<const N: usize>(widths: [usize; N], titles: [&str; N]) -> Vec<Span> {
    row(widths, titles.map(|title| Span(DIM, title.to_owned())))
}

fn plain(text: impl Into<String>) -> Span {
    Span(PLAIN, text.into())
}

/// One drawing of everything.
struct Picture<'a> {
    board: &'a Board,
    elapsed: Duration,
    length: Duration,
    columns: usize,
}

impl Picture<'_> {
    fn lines(&self) -> Vec<Vec<Span>> {
        let mut lines = vec![Vec::new(), self.title(), Vec::new()];
        let widths = [15, 15, 10, 8, 11, 14];
        let titles = ["  PRODUCER", "IN", "STATE", " PACKETS", "    BITRATE", "KEY FRAMES"];
        lines.push(head(widths, titles));
        lines.extend(self.board.producers.iter().map(|each| row(widths, producer(each))));
        lines.push(Vec::new());
        let history = if self.columns >= WIDTH_WITH_HISTORY { 24 } else { 0 };
        let last = if self.columns >= WIDTH_WITH_LAST_EVENT {
            self.columns
        } else {
            0
        };
        let widths = [10, 12, 15, 8, 11, history, 14, last];
        let titles = [
            "  CONSUMER",
            "OF",
            "STATE",
            " PACKETS",
            "    BITRATE",
            "",
            "PROFILE",
            "LAST EVENT",
        ];
        lines.push(head(widths, titles));
        lines.extend(
            self.board
                .consumers
                .iter()
                .map(|each| row(widths, consumer(each, history))),
        );
        lines
    }

    fn title(&self) -> Vec<Span> {
        let (elapsed, length) = (self.elapsed.as_secs_f64(), self.length.as_secs_f64());
        let bar_len = self.columns.saturating_sub(48).min(60);
        let done = ((elapsed / length).min(1.0) * bar_len as f64) as usize;
        vec![
            Span(BOLD, "  weir demo  ".to_owned()),
            Span(CYAN, "━".repeat(done)),
            Span(DIM, "─".repeat(bar_len - done)),
            plain(format!("  {elapsed:4.1} of {length:.0} s")),
            Span(DIM, "   q ends it".to_owned()),
        ]
    }
}

fn producer(row: &ProducerRow) -> [Span; 6] {
    let (word, color) = match row.paused {
        true => ("● paused", YELLOW),
        false => ("● relayed", GREEN),
    };
    let asked = match row.key_frame_requests {
        0 => "-".to_owned(),
        times => format!("{times} requested"),
    };
    [
        plain(format!("  {}", row.name)),
        plain(format!("{}, worker {}", row.room, row.worker)),
        Span(color, word.to_owned()),
        plain(format!("{:>8}", count(row.packets))),
        plain(format!("{:>11}", bitrate(row.bitrate))),
        plain(asked),
    ]
}

fn consumer(row: &ConsumerRow, history: usize) -> [Span; 8] {
    let color = match row.state {
        State::Flowing => GREEN,
        State::Paused | State::SourcePaused => YELLOW,
        State::Waiting => CYAN,
    };
    let profile = match (row.profile, &row.resolution) {
        (Some(profile), Some(resolution)) if row.video => format!("{profile} {resolution}"),
        _ => "-".to_owned(),
    };
    let last = row.last.as_ref();
    let last = last.map_or(String::new(), |(at_ms, words)| format!("{} {words}", seconds(*at_ms)));
    [
        plain(format!("  {}", row.name)),
        plain(row.source),
        Span(color, format!("● {}", row.state)),
        plain(format!("{:>8}", count(row.packets))),
        plain(format!("{:>11}", bitrate(row.bitrate))),
        Span(color, bars(row, history)),
        plain(profile),
        Span(if row.faulty { RED } else { DIM }, last),
    ]
}

/// The history as bars, the newest to the right, each row against its own most.
fn bars(row: &ConsumerRow, width: usize) -> String {
    let most = row.history().max().unwrap_or(0).max(1);
    let skip = row.history().len().saturating_sub(width);
    let bar = |rate: u64| match rate {
        0 => ' ',
        _ => BARS[(rate * (BARS.len() as u64 - 1) / most) as usize],
    };
    let bars: String = row.history().skip(skip).map(bar).collect();
    format!("{bars:>width$}")
}

#[cfg(test)]
mod tests {
    use weir::Profile;

    use super::*;

    fn board() -> Board {
        let mut camera = ProducerRow::new("camera", "stage", 1);
        (camera.paused, camera.packets, camera.bitrate, camera.key_frame_requests) = (true, 12_345, 1_530_000, 2);
        let mut microphone = ProducerRow::new("microphone 2", "foyer", 2);
        (microphone.packets, microphone.bitrate) = (987, 64_200);

        let mut cleo = ConsumerRow::new("cleo", "camera", Profile::High, true);
        for half_second in 0..10 {
            cleo.measure(half_second * 500, half_second * half_second * 10_000);
        }
        (cleo.state, cleo.packets, cleo.bitrate) = (State::Flowing, 4_321, 1_010_000);
        (cleo.profile, cleo.resolution) = (Some(Profile::High), Some("640x360".to_owned()));
        cleo.last = Some((8_300, "low → high on a key frame".to_owned()));
        let mut ben = ConsumerRow::new("ben", "camera", Profile::Medium, true);
        (ben.state, ben.faulty) = (State::SourcePaused, true);
        ben.last = Some((12_000, "breaks sequence-unbroken".to_owned()));
        let dora = ConsumerRow::new("dora", "microphone 2", Profile::Default, false);
        Board {
            producers: vec![camera, microphone],
            consumers: vec![cleo, ben, dora],
        }
    }

    #[test]
    fn lines_are_drawn_over_the_last_ones_below_what_stays() {
        let line = |text: &str| vec![plain(text.to_owned())];
        let mut out = String::new();
        let style = (3, Palette::Plain);
        redraw(&mut out, 0, None, &[line("one"), line("two")], style);
        assert_eq!(out, "\x1b[2Kone\n\x1b[2Ktwo\n");
        out.clear();
        redraw(&mut out, 2, Some(&line("stays")), &[line("one"), line("two")], style);
        assert_eq!(out, "\x1b[2A\r\x1b[2Ksta\n\x1b[2Kone\n\x1b[2Ktwo\n");
        // The terminal was made smaller.
        out.clear();
        redraw(&mut out, 2, None, &[line("one")], style);
        assert_eq!(out, "\x1b[2A\r\x1b[2Kone\n\x1b[J");
    }

    /// The lines on a terminal of this width.
    fn drawn(width: usize, palette: Palette) -> String {
        let picture = Picture {
            board: &board(),
            elapsed: Duration::from_millis(12_300),
            length: Duration::from_secs(20),
            columns: width,
        };
        let mut text = String::new();
        for line in picture.lines() {
            write_line(&mut text, &line, width, palette);
            text.push('\n');
        }
        text
    }

    /// As somebody sees it who sees no colours.
    fn seen(width: usize) -> String {
        let text = drawn(width, Palette::Colour);
        let mut parts = text.split("\x1b[");
        let mut seen = parts.next().unwrap().to_owned();
        parts.for_each(|part| seen.push_str(part.split_once('m').unwrap().1));
        seen.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        insta::assert_snapshot!(seen(140));
    }

    #[test]
    fn a_narrow_terminal_shows_what_fits() {
        insta::assert_snapshot!(seen(80));
    }

    #[test]
    fn no_line_is_longer_than_the_terminal_is_wide() {
        for width in 0..160 {
            assert!(seen(width).lines().all(|line| line.chars().count() <= width), "{width}");
        }
    }

    #[test]
    fn who_wants_no_colours_gets_none() {
        let drawn = drawn(140, Palette::Plain);
        for color in [RED, GREEN, YELLOW, CYAN] {
            assert!(!drawn.contains(&format!("{color}m")), "{color}");
        }
        assert!(drawn.contains("\x1b[1m") && drawn.contains("\x1b[2m"));
    }
}
