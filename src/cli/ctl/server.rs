//! `weir ctl workers`, `worker`, `health`, `stats`, `settings` and `log-level`.

use axum::http::Method;
use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use weir::http::{Health, HealthStatus, Listing, ServerStats};
use weir::{CounterKind, Residence, Sandbox, WorkerStats};

use super::client::{Client, Failure};
use super::object::{print_list, print_one};
use super::output::Output;
use super::table::{Cell, Table};
use super::units::{bytes, duration_ns};
use crate::cli::palette::Tone;

/// A worker, as far as it is shown.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Worker {
    id: u32,
    pid: Option<u32>,
    cpu: Option<usize>,
    state: State,
    rooms: usize,
    requests: usize,
    timeouts: u32,
    restarts: u64,
    restorations: u64,
    last_gap_ms: Option<u64>,
    quarantined: u64,
    last_exit: Option<Value>,
    ping_rtt_us: Option<u64>,
    sandbox: Option<Sandbox>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct State {
    name: String,
    after_ms: Option<u64>,
}

impl Worker {
    fn state(&self) -> Cell {
        match (self.state.name.as_str(), self.state.after_ms) {
            ("running", _) if self.timeouts > 0 => {
                Cell::new(format_args!("running, {} timeouts", self.timeouts), Tone::Warning)
            }
            ("running", _) => Cell::new("running", Tone::Good),
            (name, Some(after)) => Cell::new(format_args!("{name} after {after} ms"), Tone::Bad),
            (name, None) => Cell::new(name, Tone::Warning),
        }
    }

    fn last_exit(&self) -> Cell {
        self.last_exit
            .as_ref()
            .map_or_else(Cell::none, |cause| Cell::new(flat(cause), Tone::Warning))
    }

    fn last_gap(&self) -> Cell {
        Cell::or_none(self.last_gap_ms.map(|gap| format!("{gap} ms")))
    }

    fn ping(&self) -> Cell {
        Cell::or_none(self.ping_rtt_us.map(|us| duration_ns(us.saturating_mul(1_000))))
    }
}

/// `signalled name=SIGKILL signal=9`: an object with a `kind`, on one line.
pub(super) fn flat(value: &Value) -> String {
    let Some(members) = value.as_object() else {
        return value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    };
    let mut parts: Vec<String> = members.get("kind").map(flat).into_iter().collect();
    let others = members
        .iter()
        .filter(|(name, value)| *name != "kind" && !value.is_null());
    parts.extend(others.map(|(name, value)| match value {
        Value::Object(_) => format!("{name}=({})", flat(value)),
        _ => format!("{name}={}", flat(value)),
    }));
    parts.join(" ")
}

/// `weir ctl workers`
pub(super) async fn workers(client: &mut Client, output: &Output) -> Result<(), Failure> {
    let workers: Listing<Value> = client.get("/workers").await?;
    print_list(client, output, workers.items, "no workers", |worker: &Worker| {
        [
            (">WORKER", worker.id.into()),
            ("STATE", worker.state()),
            (">PROCESS", Cell::or_none(worker.pid)),
            (">CPU", Cell::or_none(worker.cpu)),
            (">ROOMS", worker.rooms.into()),
            (">RESTORED", Cell::alarming(worker.restorations)),
            (">LAST GAP", worker.last_gap()),
            (">QUARANTINED", Cell::alarming(worker.quarantined)),
            (">PING", worker.ping()),
            ("LAST EXIT", worker.last_exit()),
        ]
    })
}

/// `weir ctl worker …`
#[derive(Debug, Subcommand)]
pub(super) enum WorkerCommand {
    /// List the workers
    List,
    /// Show a worker
    Show {
        /// The worker's id
        worker: u32,
    },
    /// Show the counters of a worker
    Stats {
        /// The worker's id
        worker: u32,
    },
}

impl WorkerCommand {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        match self {
            Self::List => workers(client, output).await,
            Self::Show { worker } => {
                let print = |worker: Worker| {
                    output.pairs(&[
                        ("worker", worker.id.into()),
                        ("state", worker.state()),
                        ("process", Cell::or_none(worker.pid)),
                        ("cpu", Cell::or_none(worker.cpu)),
                        ("rooms", worker.rooms.into()),
                        ("requests waiting", worker.requests.into()),
                        ("restarts", Cell::alarming(worker.restarts)),
                        ("restorations", Cell::alarming(worker.restorations)),
                        ("last gap", worker.last_gap()),
                        ("quarantined", Cell::alarming(worker.quarantined)),
                        ("ping", worker.ping()),
                        ("last exit", worker.last_exit()),
                        ("sandbox", Cell::or_none(worker.sandbox)),
                    ])
                };
                print_one(client, output, &format!("/workers/{worker}"), print).await
            }
            Self::Stats { worker } => {
                let print = |stats: WorkerStats| output.pairs(&stats_pairs(&stats));
                print_one(client, output, &format!("/workers/{worker}/stats"), print).await
            }
        }
    }
}

/// `weir ctl health`
pub(super) async fn health(client: &mut Client, output: &Output) -> Result<(), Failure> {
    let answer = client.look("/health").await?;
    let health: Health = client.read(answer.clone())?;
    if output.is_json() {
        output.json(&answer)?;
    } else {
        let (word, tone) = match health.status {
            HealthStatus::Ok => ("ok", Tone::Good),
            HealthStatus::Degraded => ("degraded", Tone::Warning),
            HealthStatus::Down => ("down", Tone::Bad),
        };
        output.painted(&output.palette().paint(tone, word))?;
        for reason in &health.reasons {
            output.line(reason)?;
        }
    }
    match health.status {
        HealthStatus::Ok => Ok(()),
        HealthStatus::Degraded | HealthStatus::Down => Err(Failure::Unhealthy),
    }
}

/// `weir ctl stats`
pub(super) async fn stats(client: &mut Client, output: &Output) -> Result<(), Failure> {
    print_one(client, output, "/stats", |stats| print_stats(output, &stats)).await
}

fn print_stats(output: &Output, stats: &ServerStats) -> Result<(), Failure> {
    let mut table = Table::default();
    let mut row = |name: Cell, stats: &WorkerStats| {
        table.row([
            ("WORKER", name),
            (">ROOMS", stats.rooms.into()),
            (">TRANSPORTS", stats.transports.into()),
            (">PRODUCERS", stats.producers.into()),
            (">CONSUMERS", stats.consumers.into()),
            (">RECEIVED", stats.packets_received.into()),
            (">SENT", stats.packets_sent.into()),
            (">BYTES SENT", bytes(stats.bytes_sent).into()),
            (">KERNEL DROPS", Cell::alarming(stats.kernel_drops)),
            (">CPU TIME", duration_ns(stats.cpu_ns).into()),
            (">MEMORY", bytes(stats.resident_bytes).into()),
        ]);
    };
    for worker in &stats.workers {
        if let Some(stats) = &worker.stats {
            row(worker.worker.0.into(), stats);
        }
    }
    if stats.workers.len() != 1 {
        row(Cell::new("all", Tone::Title), &stats.total);
    }
    output.table(&table, "no workers")?;
    for worker in &stats.workers {
        if let Some(error) = &worker.error {
            output.line(format_args!("{}: {}", worker.worker, error.message))?;
        }
    }
    Ok(())
}

fn stats_pairs(stats: &WorkerStats) -> Vec<(String, Cell)> {
    let counters = stats.counters().map(|(counter, count)| {
        let cell = match counter.kind {
            CounterKind::Fault => Cell::alarming(count),
            _ if counter.name.contains("bytes") => bytes(count).into(),
            _ if counter.name.ends_with("_ns") => duration_ns(count).into(),
            _ => count.into(),
        };
        (counter.name.trim_end_matches("_ns").replace('_', " "), cell)
    });
    let residence = stats.residence.as_ref().map(|residence| {
        let Residence { p50, p99, p999, .. } = residence.residence();
        format!("{p50} µs (half), {p99} µs (99 %), {p999} µs (99.9 %)")
    });
    let others = [
        ("webrtc failures", Cell::reasons(&stats.webrtc_failures)),
        ("unrouted reasons", Cell::reasons(&stats.unrouted_reasons)),
        ("dropped", Cell::reasons(&stats.dropped)),
        ("not repaired", Cell::reasons(&stats.not_repaired)),
        ("transports unrouted", Cell::reasons(&stats.transports_unrouted)),
        ("residence", Cell::or_none(residence)),
    ];
    let others = others.map(|(name, cell)| (name.to_owned(), cell));
    counters.chain(others).collect()
}

/// `weir ctl settings`
#[derive(Debug, Args)]
pub(super) struct Settings {
    /// How long packets may wait under load for others of their train, in microseconds, at most 1000; 0: not at all
    #[arg(long, value_name = "US")]
    coalescing_us_max: Option<u32>,
    /// How long workers look for packets before they sleep, while packets come that often, in microseconds, at most 1000; 0: not at all
    #[arg(long, value_name = "US")]
    spin_us_max: Option<u32>,
    /// Measure how long packets stay in the workers; this costs a clock read per packet
    #[arg(long, value_name = "BOOL")]
    measure_residence: Option<bool>,
}

impl Settings {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let mut change = json!({});
        if let Some(us) = self.coalescing_us_max {
            change["coalescingUsMax"] = us.into();
        }
        if let Some(us) = self.spin_us_max {
            change["spinUsMax"] = us.into();
        }
        if let Some(measure) = self.measure_residence {
            change["measureResidence"] = measure.into();
        }
        let answer = settings(client, &change).await?;
        if output.is_json() {
            return output.json(&answer);
        }
        let members = answer.as_object().into_iter().flatten();
        let pairs: Vec<_> = members.map(|(name, value)| (name.as_str(), setting(value))).collect();
        output.pairs(&pairs)
    }
}

/// The settings of the server, after this change if it is one.
async fn settings(client: &mut Client, change: &Value) -> Result<Value, Failure> {
    if *change == json!({}) {
        return client.get("/settings").await;
    }
    client.send(Method::PATCH, "/settings", Some(change)).await
}

fn setting(value: &Value) -> Cell {
    match value {
        Value::Null => Cell::none(),
        Value::Array(items) if items.is_empty() => Cell::none(),
        Value::Array(items) => items.iter().map(flat).collect::<Vec<_>>().join(", ").into(),
        _ => flat(value).into(),
    }
}

/// `weir ctl log-level`
#[derive(Debug, Args)]
pub(super) struct LogLevel {
    /// The new level
    #[arg(value_parser = ["error", "warn", "info", "debug", "trace"])]
    level: Option<String>,
    /// The parts of the workers that log below the level error, e.g. relay,net; `all`: all parts
    #[arg(long, value_name = "TAG,TAG", value_delimiter = ',')]
    tags: Vec<String>,
}

impl LogLevel {
    pub(super) async fn run(self, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let mut change = json!({});
        if let Some(level) = self.level {
            change["logLevel"] = level.into();
        }
        match self.tags.as_slice() {
            [] => {}
            [all] if all == "all" => change["logTags"] = json!([]),
            tags => change["logTags"] = json!(tags),
        }
        let answer = settings(client, &change).await?;
        let level = answer["logLevel"].as_str().unwrap_or("unknown");
        let tags = answer["logTags"].as_array().map_or(&[][..], Vec::as_slice);
        let tags: Vec<_> = tags.iter().filter_map(Value::as_str).collect();
        let about = if tags.is_empty() {
            String::new()
        } else {
            format!(" ({} only)", tags.join(", "))
        };
        output.done(&answer, format_args!("the log level is {level}{about}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_fit_a_line() {
        let check = |value: Value, expected: &str| assert_eq!(flat(&value), expected);
        check(json!({"kind": "closed"}), "closed");
        check(
            json!({"kind": "signalled", "signal": 9, "name": "SIGKILL"}),
            "signalled name=SIGKILL signal=9",
        );
        let nested = json!({"kind": "workerDied", "worker": 1, "cause": {"kind": "hung", "timeoutMs": 5}});
        check(nested, "workerDied cause=(hung timeoutMs=5) worker=1");
        check(json!("plain"), "plain");
    }
}
