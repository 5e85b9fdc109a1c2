//! Aligned columns for people: two spaces between them, nothing else.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use weir::Counts;
use weir_channel::text::visible;

/// Whether to use colours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Palette {
    /// Escape sequences for a terminal.
    Colour,
    /// Text alone.
    Plain,
}

impl Palette {
    /// What standard output can show.
    pub(crate) fn of_stdout() -> Self {
        let terminal = io::IsTerminal::is_terminal(&io::stdout());
        Self::choose(terminal, |name| std::env::var_os(name))
    }

    /// Colours on a terminal, unless `NO_COLOR` is set and not empty (no-color.org) or the terminal is dumb.
    fn choose(terminal: bool, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let no_color = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = variable("TERM").is_some_and(|term| term == "dumb");
        if terminal && !no_color && !dumb {
            Self::Colour
        } else {
            Self::Plain
        }
    }

    /// `text` in `tone`.
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        let sgr = match tone {
            Tone::Normal => None,
            Tone::Title => Some("1"),
            Tone::Faint => Some("2"),
            Tone::Good => Some("32"),
            Tone::Warning => Some("33"),
            Tone::Bad => Some("31"),
        };
        match (self, sgr) {
            (Self::Colour, Some(sgr)) => format!("\x1b[{sgr}m{text}\x1b[0m"),
            _ => text.to_owned(),
        }
    }
}

/// What a text means; the palette decides how that looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tone {
    Normal,
    Title,
    Faint,
    Good,
    Warning,
    Bad,
}

/// One entry of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A text in a tone. Control characters are shown, not obeyed: names come from elsewhere.
    pub(crate) fn new(text: impl std::fmt::Display, tone: Tone) -> Self {
        Self {
            text: visible(&text.to_string()).into_owned(),
            tone,
        }
    }

    /// `-`, for what is not known or does not apply.
    pub(crate) fn none() -> Self {
        Self::new("-", Tone::Faint)
    }

    /// A count that should be 0.
    pub(crate) fn alarming(count: u64) -> Self {
        Self::new(count, if count == 0 { Tone::Normal } else { Tone::Bad })
    }

    /// `otherProfile 10, duplicate 1`, the most frequent first, or `-`.
    pub(crate) fn reasons<R: Copy + Serialize>(counts: &Counts<R>) -> Self {
        let mut counts = counts.to_vec();
        counts.sort_by_key(|(_, count)| Reverse(*count));
        let name = |reason| serde_json::to_value(reason).unwrap_or_default();
        let shown: Vec<_> = counts
            .iter()
            .map(|(reason, count)| format!("{} {count}", name(reason).as_str().unwrap_or("?")))
            .collect();
        if shown.is_empty() {
            Self::none()
        } else {
            shown.join(", ").into()
        }
    }

    /// An application's own JSON, cut to what fits a line, or nothing where there is none.
    pub(crate) fn app_data(value: &Value) -> Self {
        const CHARS_MAX: usize = 40;
        if value.is_null() {
            return Self::new("", Tone::Normal);
        }
        let text = value.to_string();
        let mut shown: String = text.chars().take(CHARS_MAX).collect();
        if shown.len() < text.len() {
            shown.push('…');
        }
        Self::new(shown, Tone::Faint)
    }

    /// A value, or `-`.
    pub(crate) fn or_none(value: Option<impl std::fmt::Display>) -> Self {
        value.map_or_else(Self::none, |value| Self::new(value, Tone::Normal))
    }
}

impl<T: std::fmt::Display> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::new(text, Tone::Normal)
    }
}

/// Which side of its column a text keeps to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Side {
    Left,
    Right,
}

/// Rows under titles.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Side)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// An empty table. A title that begins with `>` makes a column of numbers, aligned to the right.
    pub(crate) fn new<const N: usize>(titles: [&str; N]) -> Self {
        let columns = titles.into_iter().map(|title| match title.strip_prefix('>') {
            Some(title) => (title.to_owned(), Side::Right),
            None => (title.to_owned(), Side::Left),
        });
        Self {
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        debug_assert_eq!(N, self.columns.len(), "a cell for each column");
        self.rows.push(cells.into());
    }

    /// Whether there is no row.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Prints the titles and the rows.
    pub(crate) fn write_to(&self, out: &mut dyn Write, palette: Palette) -> io::Result<()> {
        let titles: Vec<Cell> = self
            .columns
            .iter()
            .map(|(title, _)| Cell::new(title, Tone::Title))
            .collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let lines = std::iter::once(&titles).chain(&self.rows);
                lines.map(|line| width(&line[column].text)).max().unwrap_or(0)
            })
            .collect();
        for line in std::iter::once(&titles).chain(&self.rows) {
            self.write_line(out, palette, line, &widths)?;
        }
        Ok(())
    }

    fn write_line(&self, out: &mut dyn Write, palette: Palette, line: &[Cell], widths: &[usize]) -> io::Result<()> {
        // Blanks are held back until a text follows them, so that no line ends with any.
        let mut blanks = 0;
        for (column, cell) in line.iter().enumerate() {
            let padding = widths[column] - width(&cell.text);
            if column > 0 {
                blanks += 2;
            }
            if self.columns[column].1 == Side::Right {
                blanks += padding;
            }
            if !cell.text.is_empty() {
                write!(out, "{:blanks$}{}", "", palette.paint(cell.tone, &cell.text))?;
                blanks = 0;
            }
            if self.columns[column].1 == Side::Left {
                blanks += padding;
            }
        }
        writeln!(out)
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// Names and values, one pair a line, for a single thing.
pub(crate) fn write_pairs<S: AsRef<str>>(out: &mut dyn Write, palette: Palette, pairs: &[(S, Cell)]) -> io::Result<()> {
    let widest = pairs.iter().map(|(name, _)| width(name.as_ref())).max().unwrap_or(0);
    for (name, cell) in pairs {
        let name = name.as_ref();
        let padding = widest - width(name);
        let nothing = Cell::none();
        let cell = if cell.text.is_empty() { &nothing } else { cell };
        let name = palette.paint(Tone::Title, name);
        writeln!(out, "{name}{:padding$}  {}", "", palette.paint(cell.tone, &cell.text))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use weir::DropReason;

    fn printed(table: &Table, palette: Palette) -> String {
        let mut out = Vec::new();
        table.write_to(&mut out, palette).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_line_up_and_no_line_ends_in_blanks() {
        let mut table = Table::new([">ID", "STATE", ">BITRATE", "NAME"]);
        table.row([7.into(), "paused".into(), "0".into(), "".into()]);
        table.row([1234.into(), "on".into(), "1.2 Mbit/s".into(), "Zoë".into()]);
        table.row([5.into(), "".into(), Cell::none(), "x".into()]);
        let expected = [
            "  ID  STATE      BITRATE  NAME\n",
            "   7  paused           0\n",
            "1234  on      1.2 Mbit/s  Zoë\n",
            "   5                   -  x\n",
        ];
        assert_eq!(printed(&table, Palette::Plain), expected.concat());
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let mut table = Table::new(["A", ">B"]);
        table.row([Cell::new("bad", Tone::Bad), 10.into()]);
        let coloured = printed(&table, Palette::Colour);
        assert!(coloured.contains("\x1b[31mbad\x1b[0m"), "{coloured:?}");
        let mut stripped = coloured;
        for sgr in ["0", "1", "31"] {
            stripped = stripped.replace(&format!("\x1b[{sgr}m"), "");
        }
        assert_eq!(stripped, printed(&table, Palette::Plain));
    }

    #[test]
    fn colours_are_for_terminals_that_want_them() {
        let check = |terminal, no_color: Option<&str>, term: Option<&str>, expected| {
            let palette = Palette::choose(terminal, |name| match name {
                "NO_COLOR" => no_color.map(OsString::from),
                "TERM" => term.map(OsString::from),
                _ => None,
            });
            assert_eq!(palette, expected, "{terminal} {no_color:?} {term:?}");
        };
        check(true, None, Some("xterm"), Palette::Colour);
        check(true, None, None, Palette::Colour);
        check(true, Some(""), Some("xterm"), Palette::Colour);
        check(true, Some("1"), Some("xterm"), Palette::Plain);
        check(true, None, Some("dumb"), Palette::Plain);
        check(false, None, Some("xterm"), Palette::Plain);
    }

    #[test]
    fn control_characters_are_shown() {
        let mut table = Table::new(["NAME"]);
        table.row(["a\x1b[2Jb\nc".into()]);
        assert_eq!(
            printed(&table, Palette::Colour),
            "\x1b[1mNAME\x1b[0m\na\\u{1b}[2Jb\\nc\n"
        );
    }

    #[test]
    fn reasons_come_by_frequency() {
        let counts = Counts::from([(DropReason::ConsumerPaused, 1), (DropReason::Padding, 20)]);
        assert_eq!(Cell::reasons(&counts), "padding 20, consumerPaused 1".into());
        assert_eq!(Cell::reasons(&Counts::<DropReason>::default()), Cell::none());
    }

    #[test]
    fn long_app_data_is_cut() {
        let cell = Cell::app_data(&Value::from("é".repeat(50)));
        assert_eq!(cell.text, format!("\"{}…", "é".repeat(39)));
        assert_eq!(Cell::app_data(&Value::Null).text, "");
    }

    #[test]
    fn pairs_line_up() {
        let mut out = Vec::new();
        let pairs = [("id", Cell::from(7)), ("remote", Cell::none()), ("a", "".into())];
        write_pairs(&mut out, Palette::Plain, &pairs).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "id      7\nremote  -\na       -\n");
    }
}
