//! Colours of a text, by what it means.

use std::ffi::OsString;
use std::io;

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
