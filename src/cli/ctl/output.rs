//! What a command prints, and in which form.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::Value;

use super::client::Failure;
use super::table::{Cell, Table, write_pairs};
use crate::cli::palette::Palette;
use weir_channel::text::{visible, visible_json};

/// Standard output, as text for people or as JSON.
#[derive(Debug)]
pub(crate) struct Output {
    json: bool,
    palette: Palette,
}

impl Output {
    /// Text, or JSON.
    pub(crate) fn new(json: bool) -> Self {
        Self {
            json,
            palette: Palette::of_stdout(),
        }
    }

    /// Whether JSON is asked for.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// How text looks.
    pub(crate) fn palette(&self) -> Palette {
        self.palette
    }

    /// Prints a table, or `none` where there is no row.
    pub(crate) fn table(&self, table: &Table, none: &str) -> Result<(), Failure> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        if table.is_empty() {
            writeln!(out, "{none}")?;
        } else {
            table.write_to(&mut out, self.palette)?;
        }
        Ok(out.flush()?)
    }

    /// Prints names and values of one thing.
    pub(crate) fn pairs<S: AsRef<str>>(&self, pairs: &[(S, Cell)]) -> Result<(), Failure> {
        Ok(write_pairs(&mut io::stdout().lock(), self.palette, pairs)?)
    }

    /// Prints a line of text.
    pub(crate) fn line(&self, text: impl std::fmt::Display) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", visible(&text.to_string()))?;
        Ok(out.flush()?)
    }

    /// Prints a line that is right as it is.
    pub(crate) fn painted(&self, line: &str) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        Ok(out.flush()?)
    }

    /// Prints JSON, indented.
    pub(crate) fn json(&self, value: &(impl Serialize + ?Sized)) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
        self.painted(&visible_json(&text))
    }

    /// Prints what a command did: its answer as JSON, or a line.
    pub(crate) fn done(&self, answer: &Value, line: impl std::fmt::Display) -> Result<(), Failure> {
        if self.json { self.json(answer) } else { self.line(line) }
    }

    /// Prints bytes.
    pub(crate) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        out.write_all(bytes)?;
        Ok(out.flush()?)
    }

    /// Says on standard error what does not belong to the output.
    pub(crate) fn remark(&self, text: impl std::fmt::Display) {
        // Nobody has to hear it.
        let _ = writeln!(io::stderr().lock(), "{}", visible(&text.to_string()));
    }

    /// Says on standard error why it did not work; in JSON too, if that is asked for.
    pub(crate) fn fail(&self, failure: &Failure) {
        let mut err = io::stderr().lock();
        // There is nowhere to report that this failed.
        let _ = match (self.json, failure) {
            (_, Failure::Unhealthy) => Ok(()),
            (true, Failure::Refused { code, message }) => {
                let error = serde_json::json!({"error": {"code": code, "message": message}});
                writeln!(err, "{}", visible_json(&error.to_string()))
            }
            _ => writeln!(err, "weir: {}", visible(&failure.to_string())),
        };
    }
}
