//! Aligned columns for people: two spaces between them, nothing else.

use std::cmp::Reverse;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;
use weir::Counts;
use weir_channel::text::visible;

use crate::cli::palette::{Palette, Tone};

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
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Side)>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// Adds a row, of which each cell is beside the title of its column. A title that begins with `>` makes a column of
    /// numbers, aligned to the right.
    pub(crate) fn row<const N: usize>(&mut self, cells: [(&'static str, Cell); N]) {
        let (titles, cells): (Vec<_>, _) = cells.into_iter().unzip();
        let columns = titles.into_iter().map(|title| match title.strip_prefix('>') {
            Some(title) => (title, Side::Right),
            None => (title, Side::Left),
        });
        let columns: Vec<_> = columns.collect();
        debug_assert!(
            self.is_empty() || self.columns == columns,
            "rows of one table have the same titles"
        );
        self.columns = columns;
        self.rows.push(cells);
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
        let mut table = Table::default();
        for (id, state, bitrate, name) in [
            (7, "paused", "0".into(), ""),
            (1234, "on", "1.2 Mbit/s".into(), "Zoë"),
            (5, "", Cell::none(), "x"),
        ] {
            table.row([
                (">ID", id.into()),
                ("STATE", state.into()),
                (">BITRATE", bitrate),
                ("NAME", name.into()),
            ]);
        }
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
        let mut table = Table::default();
        table.row([("A", Cell::new("bad", Tone::Bad)), (">B", 10.into())]);
        let coloured = printed(&table, Palette::Colour);
        assert!(coloured.contains("\x1b[31mbad\x1b[0m"), "{coloured:?}");
        let mut stripped = coloured;
        for sgr in ["0", "1", "31"] {
            stripped = stripped.replace(&format!("\x1b[{sgr}m"), "");
        }
        assert_eq!(stripped, printed(&table, Palette::Plain));
    }

    #[test]
    fn control_characters_are_shown() {
        let mut table = Table::default();
        table.row([("NAME", "a\x1b[2Jb\nc".into())]);
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
