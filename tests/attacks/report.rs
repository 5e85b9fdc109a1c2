//! The figures of all attacks: as a table for people, as JSON, and from that in the page on security.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::Attack;
use crate::arena::Figures;
use crate::innocents::Felt;

fn megabytes(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn ms(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64() * 1e3)
}

/// A row for each attack, as Markdown.
pub(crate) fn table(rows: &[(&Attack, Figures)]) -> String {
    let mut table = String::from(
        "| attack | supervisor, MB before / peak / after | workers, MB | CPU, % supervisor / workers | innocent call: lost, p50, \
         p99 in ms (before) | browsers: lost, p99 in ms (before) | operator: longest wait, ms | |\n|---|---|---|---|---|---|---|---|\n",
    );
    for (attack, figures) in rows {
        let (before, peak, after) = (figures.before, figures.peak, figures.after);
        let browsers = figures.browsers.as_ref().map_or_else(
            || "-".to_owned(),
            |[before, during]| format!("{}, {} ({})", during.lost, ms(during.p99), ms(before.p99)),
        );
        let [calm, during] = &figures.plain;
        let notes: Vec<String> = figures
            .notes
            .iter()
            .map(|(note, value)| format!("{note}: {value}"))
            .collect();
        table += &format!(
            "| {} | {} / {} / {} | {} / {} / {} | {:.0} / {:.0} | {}, {}, {} ({}, {}) | {browsers} | {} | {} |\n",
            attack.what,
            megabytes(before.supervisor),
            megabytes(peak.supervisor),
            megabytes(after.supervisor),
            megabytes(before.workers),
            megabytes(peak.workers),
            megabytes(after.workers),
            figures.supervisor_cpu,
            figures.workers_cpu,
            during.lost,
            ms(during.p50),
            ms(during.p99),
            ms(calm.p50),
            ms(calm.p99),
            ms(figures.operator[1].max),
            notes.join(", "),
        );
    }
    table
}

fn felt(felt: &Felt) -> Value {
    let us = |time: Duration| time.as_micros() as u64;
    json!({"sent": felt.sent, "lost": felt.lost, "p50Us": us(felt.p50), "p99Us": us(felt.p99), "maxUs": us(felt.max)})
}

fn both([before, during]: &[Felt; 2]) -> Value {
    json!({"before": felt(before), "during": felt(during)})
}

pub(crate) fn json(rows: &[(&Attack, Figures)]) -> String {
    let rows = rows.iter().map(|(attack, figures)| {
        let memory = |of: fn(&crate::meters::Memory) -> u64| {
            json!({"before": of(&figures.before), "peak": of(&figures.peak), "after": of(&figures.after)})
        };
        let notes: serde_json::Map<String, Value> = figures
            .notes
            .iter()
            .map(|(note, value)| ((*note).to_owned(), json!(value)))
            .collect();
        json!({
            "attack": attack.name,
            "what": attack.what,
            "supervisorBytes": memory(|memory| memory.supervisor),
            "workersBytes": memory(|memory| memory.workers),
            "supervisorCpuPercent": figures.supervisor_cpu,
            "workersCpuPercent": figures.workers_cpu,
            "plain": both(&figures.plain),
            "browsers": figures.browsers.as_ref().map(both),
            "operator": both(&figures.operator),
            "notes": notes,
        })
    });
    let rows: Vec<Value> = rows.collect();
    format!("{:#}\n", json!({"at": today(), "machine": machine(), "attacks": rows}))
}

/// The day, as in RFC 3339.
#[expect(clippy::disallowed_methods, reason = "for people; nothing is decided by it")]
fn today() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.chars().take("2026-01-01".len()).collect()
}

/// What kind of machine this is.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let value = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split(':').nth(1))
            .map_or("unknown", str::trim)
            .to_owned()
    };
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = kernel.split(['-', '+']).next().unwrap_or_default().trim();
    format!("{cpus} CPUs ({}), Linux {version}", value("model name"))
}

/// The columns of the page on security that are figures.
const COLUMNS: &str = " supervisor, MB | workers, MB | CPU, % | p99, ms | lost |";

/// The line of the page that says where the figures are from begins so.
const OF: &str = "The figures are of ";

/// The page on security, with the figures of these runs as its table's last columns. A later run counts for more than an earlier
/// one; where there is none, a row says so.
pub(crate) fn page(page: &str, runs: &[Value]) -> String {
    let row = |name: &str| {
        let all = runs.iter().rev().filter_map(|run| run["attacks"].as_array());
        all.flatten().find(|attack| attack["attack"] == name)
    };
    let mut lines = Vec::new();
    for line in page.lines() {
        let name = line.strip_prefix("| `").and_then(|rest| rest.split_once("` |"));
        let cells: Vec<&str> = line.split(" | ").collect();
        lines.push(match name {
            Some((name, _)) if name.contains("::") && cells.len() >= 3 => {
                let bound = cells[2].trim_end_matches(" |");
                let figures = row(name).map_or_else(|| " - | - | - | - | - |".to_owned(), columns);
                format!("{} | {} | {bound} |{figures}", cells[0], cells[1])
            }
            _ if line.starts_with("| attack | what is tried | what bounds it |") => {
                format!("| attack | what is tried | what bounds it |{COLUMNS}")
            }
            _ if line.starts_with(OF) => {
                let of = |run: &Value| Some(format!("{}, {}", run["at"].as_str()?, run["machine"].as_str()?));
                let mut of: Vec<String> = runs.iter().filter_map(of).collect();
                of.dedup();
                format!("{OF}{}.", of.join("; "))
            }
            _ => line.to_owned(),
        });
        // What divides the head of a table from its body has as many columns.
        if lines.last().is_some_and(|line| line == "|---|---|---|") {
            let head = lines.iter().rev().nth(1).cloned().unwrap_or_default();
            if head.starts_with("| attack |") {
                *lines.last_mut().unwrap() = "|---|---|---|---|---|---|---|---|".to_owned();
            }
        }
    }
    lines.join("\n") + "\n"
}

/// An attack's figures.
fn columns(attack: &Value) -> String {
    let megabytes = |of: &str| megabytes(attack[of]["peak"].as_u64().unwrap_or(0));
    let percent = |of: &str| attack[of].as_f64().unwrap_or(0.0);
    let felt = |call: &str, when: &str, what: &str| attack[call][when][what].as_u64().unwrap_or(0);
    let p99 = |when: &str| felt("plain", when, "p99Us") as f64 / 1e3;
    let lost = felt("plain", "during", "lost") + felt("browsers", "during", "lost");
    format!(
        " {} | {} | {:.0} / {:.0} | {:.2} → {:.2} | {lost} |",
        megabytes("supervisorBytes"),
        megabytes("workersBytes"),
        percent("supervisorCpuPercent"),
        percent("workersCpuPercent"),
        p99("before"),
        p99("during"),
    )
}
