//! `weir doctor`: whether this machine, with these settings, can do what a server needs, and what to do where it cannot.
//!
//! Most of it is what a server finds out itself when it starts: one is started for a moment, with one worker, and what it warns of is
//! collected ([`trial`]). The rest is looked up ([`machine`]).

mod machine;
mod trial;

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use weir::settings::{Loaded, SettingsFlags};

use crate::cli::palette::{Palette, Tone};

/// The exit code for settings that cannot be used, as `weir serve`'s.
const USAGE: u8 = 2;

/// Looks for what would keep a server on this machine from working well: buffers, ports, limits, the kernel, addresses, the clock. Give
/// it the settings of the server. Fails if a server would not start or not serve.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    settings: SettingsFlags,
}

/// How bad something is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    /// As it should be.
    Ok,
    /// A server works, but not as well as it could.
    Warn,
    /// A server does not start, or does not serve.
    Fail,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
struct Finding {
    /// What was looked at.
    check: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl fmt::Display) -> Self {
        Self {
            check,
            verdict: Verdict::Ok,
            found: found.to_string(),
            advice: None,
        }
    }

    fn warn(check: &'static str, found: impl fmt::Display, advice: impl fmt::Display) -> Self {
        Self {
            verdict: Verdict::Warn,
            advice: Some(advice.to_string()),
            ..Self::ok(check, found)
        }
    }

    fn fail(check: &'static str, found: impl fmt::Display, advice: Option<String>) -> Self {
        Self {
            verdict: Verdict::Fail,
            advice,
            ..Self::ok(check, found)
        }
    }
}

/// All of it.
#[derive(Debug, Serialize)]
struct Report {
    /// A server starts and serves.
    ok: bool,
    findings: Vec<Finding>,
}

impl DoctorArgs {
    pub(crate) fn run(self) -> ExitCode {
        let settings = match Loaded::load(&self.settings) {
            Ok(loaded) => loaded.settings,
            Err(error) => {
                // There is nowhere to report that this failed.
                let _ = writeln!(std::io::stderr(), "weir: {error}");
                return ExitCode::from(USAGE);
            }
        };
        let mut findings = machine::look(&settings);
        findings.extend(trial::try_out(settings));
        let report = Report {
            ok: findings.iter().all(|finding| finding.verdict < Verdict::Fail),
            findings,
        };
        // Nobody has to read it.
        let _ = match self.json {
            true => serde_json::to_writer_pretty(std::io::stdout(), &report)
                .map_err(std::io::Error::from)
                .and_then(|()| writeln!(std::io::stdout())),
            false => std::io::stdout().write_all(shown(&report.findings, Palette::of_stdout()).as_bytes()),
        };
        match report.ok {
            true => ExitCode::SUCCESS,
            false => ExitCode::FAILURE,
        }
    }
}

/// A table, with what to do below each row that needs it.
fn shown(findings: &[Finding], palette: Palette) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding {
        check,
        verdict,
        found,
        advice,
    } in findings
    {
        let (word, tone) = match verdict {
            Verdict::Ok => ("ok  ", Tone::Good),
            Verdict::Warn => ("warn", Tone::Warning),
            Verdict::Fail => ("FAIL", Tone::Bad),
        };
        text += &format!("{}  {check:width$}  {found}\n", palette.paint(tone, word));
        if let Some(advice) = advice {
            text += &format!("      {:width$}  -> {advice}\n", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_do_is_below_what_was_found() {
        let findings = [
            Finding::ok("kernel", "Linux 6.18"),
            Finding::warn("clock source", "hpet", "use tsc"),
            Finding::fail("start", "no", None),
        ];
        let text = shown(&findings, Palette::Plain);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "ok    kernel        Linux 6.18",
                "warn  clock source  hpet",
                "                    -> use tsc",
                "FAIL  start         no"
            ]
        );
    }
}
