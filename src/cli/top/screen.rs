//! The terminal's other screen, which leaves what was there before as it was.

use std::io::{self, Write};

use terminal_size::{Height, terminal_size};

/// Rows of a terminal that does not say how many it has (that of a VT100).
const ROWS_DEFAULT: usize = 24;

/// The other screen. Dropped, also by a panic, it gives the terminal back.
#[derive(Debug)]
pub(super) struct Screen(());

impl Screen {
    /// The other screen, without a cursor, and without lines that go on in the next row.
    pub(super) fn enter() -> io::Result<Self> {
        let screen = Self(());
        write_all(b"\x1b[?1049h\x1b[?25l\x1b[?7l")?;
        Ok(screen)
    }

    /// How many lines there is room for.
    pub(super) fn rows(&self) -> usize {
        terminal_size().map_or(ROWS_DEFAULT, |(_, Height(rows))| usize::from(rows))
    }

    /// Shows these lines, as many as there is room for, and nothing else.
    pub(super) fn draw(&mut self, text: &[u8]) -> io::Result<()> {
        write_all(&drawing(text, self.rows()))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // On the way out, there is nobody left to complain to.
        let _ = write_all(b"\x1b[?7h\x1b[?25h\x1b[?1049l");
    }
}

/// One write, so that no half of a picture is seen: each line over the old one, then nothing more.
fn drawing(text: &[u8], rows: usize) -> Vec<u8> {
    let mut picture = b"\x1b[H".to_vec();
    let lines = text.strip_suffix(b"\n").unwrap_or(text).split(|&byte| byte == b'\n');
    for (row, line) in lines.take(rows).enumerate() {
        if row > 0 {
            picture.extend(b"\r\n");
        }
        picture.extend(line);
        picture.extend(b"\x1b[K");
    }
    picture.extend(b"\x1b[J");
    picture
}

fn write_all(bytes: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_covers_the_one_before_and_does_not_scroll() {
        assert_eq!(drawing(b"a\nb\n", 5), b"\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(drawing(b"a\nb\nc\n", 2), b"\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
    }
}
