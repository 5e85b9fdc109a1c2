//! The figures of all attacks: as a table for people, and as JSON.

use std::time::Duration;

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
    format!("{:#}\n", Value::from(rows))
}
