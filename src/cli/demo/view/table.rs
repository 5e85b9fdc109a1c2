//! A live table: what happens scrolls by above, where everybody stands is redrawn below.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table, Widget};
use ratatui::{DefaultTerminal, Frame, TerminalOptions, Viewport};
use tokio::sync::Notify;
use weir::WorkerInfo;

use super::board::{Board, ConsumerRow, ProducerRow, State, bitrate, count, seconds};
use super::{Paint, write_verdict};
use crate::cli::demo::reporter::{DemoEvent, DemoEventKind};
use crate::cli::demo::setup::Setup;
use crate::cli::demo::verdict::Verdict;

/// Heights: the title, an empty line, the heads of the two tables with an empty line after the first, an empty line.
const LINES_AROUND_ROWS: usize = 6;

/// How long the thread that reads keys may take to notice that it is over.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// A terminal narrower than this has no room for the history of the bitrate.
const WIDTH_WITH_HISTORY: u16 = 132;

/// A terminal narrower than this has no room for what happened last, which it has seen scroll by.
const WIDTH_WITH_LAST_EVENT: u16 = 96;

/// Bars of the history, from nothing to the most.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Draws on the terminal.
#[derive(Debug)]
pub(in crate::cli::demo) struct LiveTable {
    board: Board,
    length: Duration,
    paint: Paint,
    terminal: DefaultTerminal,
    keys: Keys,
    restored: bool,
}

impl LiveTable {
    pub(in crate::cli::demo) fn new(setup: &Setup, length: Duration) -> io::Result<Self> {
        let board = Board::new(setup);
        let height = board.producers.len() + board.consumers.len() + LINES_AROUND_ROWS;
        let options = TerminalOptions {
            viewport: Viewport::Inline(height as u16),
        };
        let terminal = ratatui::try_init_with_options(options)?;
        Ok(Self {
            board,
            length,
            paint: Paint::of_terminal(),
            terminal,
            keys: Keys::listen(),
            restored: false,
        })
    }

    pub(super) fn open(&mut self, setup: &Setup) -> io::Result<()> {
        let workers = setup.server().workers();
        for worker in &workers {
            let rooms = self.rooms_of(worker);
            let pid = worker.pid.map_or("?".to_owned(), |pid| pid.to_string());
            let cpu = worker.cpu.map_or("any cpu".to_owned(), |cpu| format!("cpu {cpu}"));
            self.scroll(Line::from(format!("  {}  pid {pid}  {cpu}  {rooms}", worker.id)).style(self.dim()))?;
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

    pub(super) fn show(&mut self, event: &DemoEvent) -> io::Result<()> {
        self.board.note(event);
        // What the server says shows by itself, or in the verdict.
        let (Some(target), false) = (event.kind.target(), matches!(event.kind, DemoEventKind::Server { .. })) else {
            return Ok(());
        };
        let style = match event.kind {
            DemoEventKind::Step { .. } => self.style(Color::Yellow),
            DemoEventKind::Fault { .. } => self.style(Color::Red),
            _ => Style::new(),
        };
        let line = Line::from(vec![
            Span::styled(format!("{}  ", seconds(event.at_ms)), self.dim()),
            Span::styled(format!("{target:<13}"), style.add_modifier(Modifier::BOLD)),
            Span::styled(event.kind.words(), style),
        ]);
        self.scroll(line)
    }

    pub(super) fn refresh(&mut self, setup: &Setup) -> io::Result<()> {
        self.board.refresh(setup);
        self.draw(setup.elapsed())
    }

    /// Ready when a key was pressed that means "enough".
    pub(super) async fn stopped(&self) {
        self.keys.enough.notified().await;
    }

    pub(super) fn finish(mut self, elapsed: Duration, verdict: &Verdict) -> io::Result<()> {
        self.draw(elapsed)?;
        self.restore()?;
        // A terminal that does not tell its size gets what all of them had once.
        let columns = crossterm::terminal::size().map_or(80, |(columns, _)| columns.into());
        write_verdict(&mut io::stdout().lock(), elapsed, verdict, self.paint, columns)
    }

    /// Gives the terminal back, with the cursor below what was drawn.
    fn restore(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.restored, true) {
            return Ok(());
        }
        self.keys.stop();
        let area = self.terminal.get_frame().area();
        self.terminal.set_cursor_position(Position {
            x: 0,
            y: area.bottom().saturating_sub(1),
        })?;
        self.terminal.show_cursor()?;
        ratatui::try_restore()?;
        writeln!(io::stdout())
    }

    /// Puts a line above the tables.
    fn scroll(&mut self, line: Line<'_>) -> io::Result<()> {
        self.terminal
            .insert_before(1, |buffer| Paragraph::new(line).render(buffer.area, buffer))
    }

    fn draw(&mut self, elapsed: Duration) -> io::Result<()> {
        let (board, length, paint) = (&self.board, self.length, self.paint);
        self.terminal.draw(|frame| {
            Picture {
                board,
                elapsed,
                length,
                paint,
            }
            .draw(frame);
        })?;
        Ok(())
    }

    fn style(&self, color: Color) -> Style {
        coloured(self.paint, color)
    }

    fn dim(&self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }
}

impl Drop for LiveTable {
    fn drop(&mut self) {
        // On the way out of an error; whoever reports it needs the terminal as it was.
        let _ = self.restore();
    }
}

fn coloured(paint: Paint, color: Color) -> Style {
    match paint {
        Paint::Colours => Style::new().fg(color),
        Paint::None => Style::new(),
    }
}

/// One drawing of everything.
struct Picture<'a> {
    board: &'a Board,
    elapsed: Duration,
    length: Duration,
    paint: Paint,
}

impl Picture<'_> {
    fn draw(&self, frame: &mut Frame<'_>) {
        let [_, title, _, producers, _, consumers] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Length(self.board.producers.len() as u16 + 1),
            Constraint::Length(1),
            Constraint::Length(self.board.consumers.len() as u16 + 1),
        ])
        .areas(frame.area());
        frame.render_widget(self.title(title.width), title);
        frame.render_widget(self.producers(), producers);
        frame.render_widget(self.consumers(consumers), consumers);
    }

    fn title(&self, width: u16) -> Line<'static> {
        let (elapsed, length) = (self.elapsed.as_secs_f64(), self.length.as_secs_f64());
        let bar_len = usize::from(width).saturating_sub(48).min(60);
        let done = ((elapsed / length).min(1.0) * bar_len as f64) as usize;
        Line::from(vec![
            Span::styled("  weir demo  ", Style::new().add_modifier(Modifier::BOLD)),
            Span::styled("━".repeat(done), coloured(self.paint, Color::Cyan)),
            Span::styled("─".repeat(bar_len - done), dim()),
            Span::raw(format!("  {elapsed:4.1} of {length:.0} s")),
            Span::styled("   q ends it", dim()),
        ])
    }

    fn producers(&self) -> Table<'static> {
        let rows = self.board.producers.iter().map(|row| self.producer(row));
        let widths = [
            Constraint::Length(15),
            Constraint::Length(15),
            Constraint::Length(10),
            Constraint::Length(8),
            Constraint::Length(11),
            Constraint::Fill(1),
        ];
        Table::new(rows, widths)
            .header(head([
                "  PRODUCER",
                "IN",
                "STATE",
                " PACKETS",
                "    BITRATE",
                "KEY FRAMES",
            ]))
            .column_spacing(1)
    }

    fn producer(&self, row: &ProducerRow) -> Row<'static> {
        let (word, color) = match row.paused {
            true => ("● paused", Color::Yellow),
            false => ("● relayed", Color::Green),
        };
        let asked = match row.key_frame_requests {
            0 => "-".to_owned(),
            times => format!("{times} requested"),
        };
        Row::new([
            Cell::from(format!("  {}", row.name)),
            Cell::from(format!("{}, worker {}", row.room, row.worker)),
            Cell::from(Span::styled(word, coloured(self.paint, color))),
            Cell::from(format!("{:>8}", count(row.packets))),
            Cell::from(format!("{:>11}", bitrate(row.bitrate))),
            Cell::from(asked),
        ])
    }

    fn consumers(&self, area: Rect) -> Table<'static> {
        let history = if area.width >= WIDTH_WITH_HISTORY { 24 } else { 0 };
        let last = match area.width >= WIDTH_WITH_LAST_EVENT {
            true => Constraint::Fill(1),
            false => Constraint::Length(0),
        };
        let rows = self.board.consumers.iter().map(|row| self.consumer(row, history));
        let widths = [
            Constraint::Length(10),
            Constraint::Length(12),
            Constraint::Length(15),
            Constraint::Length(8),
            Constraint::Length(11),
            Constraint::Length(history),
            Constraint::Length(14),
            last,
        ];
        let heads = [
            "  CONSUMER",
            "OF",
            "STATE",
            " PACKETS",
            "    BITRATE",
            "",
            "PROFILE",
            "LAST EVENT",
        ];
        Table::new(rows, widths).header(head(heads)).column_spacing(1)
    }

    fn consumer(&self, row: &ConsumerRow, history: u16) -> Row<'static> {
        let color = match row.state {
            State::Flowing => Color::Green,
            State::Paused | State::SourcePaused => Color::Yellow,
            State::Waiting => Color::Cyan,
        };
        let profile = match (row.profile, &row.resolution) {
            (Some(profile), Some(resolution)) if row.video => format!("{profile} {resolution}"),
            _ => "-".to_owned(),
        };
        let last = row.last.as_ref();
        let last = last.map_or(String::new(), |(at_ms, words)| format!("{} {words}", seconds(*at_ms)));
        let last_style = if row.faulty {
            coloured(self.paint, Color::Red)
        } else {
            dim()
        };
        Row::new([
            Cell::from(format!("  {}", row.name)),
            Cell::from(row.source),
            Cell::from(Span::styled(format!("● {}", row.state), coloured(self.paint, color))),
            Cell::from(format!("{:>8}", count(row.packets))),
            Cell::from(format!("{:>11}", bitrate(row.bitrate))),
            Cell::from(Span::styled(bars(row, history.into()), coloured(self.paint, color))),
            Cell::from(profile),
            Cell::from(Span::styled(last, last_style)),
        ])
    }
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn head<const N: usize>(titles: [&'static str; N]) -> Row<'static> {
    Row::new(titles).style(dim())
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

/// Reads keys. A terminal in raw mode makes no signals of them.
#[derive(Debug)]
struct Keys {
    enough: Arc<Notify>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Keys {
    fn listen() -> Self {
        let (enough, over) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
        let (pressed, ended) = (Arc::clone(&enough), Arc::clone(&over));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                // A terminal that cannot be read has nobody at it.
                match event::poll(KEY_WAIT).and_then(|ready| ready.then(event::read).transpose()) {
                    Ok(Some(event)) if means_enough(&event) => pressed.notify_one(),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        });
        Self {
            enough,
            over,
            thread: Some(thread),
        }
    }

    fn stop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It does nothing that could panic.
            let _ = thread.join();
        }
    }
}

fn means_enough(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (control_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
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

    /// What stands on a terminal of this width.
    fn drawn(width: u16) -> String {
        let board = board();
        let height = (board.producers.len() + board.consumers.len() + LINES_AROUND_ROWS) as u16;
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let picture = Picture {
            board: &board,
            elapsed: Duration::from_millis(12_300),
            length: Duration::from_secs(20),
            paint: Paint::Colours,
        };
        terminal.draw(|frame| picture.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let mut text = String::new();
        for line in buffer.content().chunks(width.into()) {
            let line: String = line.iter().map(ratatui::buffer::Cell::symbol).collect();
            writeln!(text, "{}", line.trim_end()).unwrap();
        }
        text
    }

    #[test]
    fn a_wide_terminal_shows_everything() {
        insta::assert_snapshot!(drawn(140));
    }

    #[test]
    fn a_narrow_terminal_shows_what_fits() {
        insta::assert_snapshot!(drawn(80));
    }

    #[test]
    fn every_size_can_be_drawn() {
        for width in 1..60 {
            drawn(width);
        }
    }

    #[test]
    fn keys_that_mean_enough() {
        let key = |code, modifiers| Event::Key(event::KeyEvent::new(code, modifiers));
        assert!(means_enough(&key(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(means_enough(&key(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(means_enough(&key(KeyCode::Esc, KeyModifiers::NONE)));
        assert!(!means_enough(&key(KeyCode::Char('c'), KeyModifiers::NONE)));
        assert!(!means_enough(&Event::Resize(80, 25)));
    }
}
