//! The relay over the loopback, beside the bare kernel: `weir load` for several numbers of consumers and sizes of trains.
//!
//! `cargo bench --bench loopback` prints tables and draws `loopback.svg` and `rooms.svg` in `target`; with `-- --out FOLDER` it draws there,
//! with `-- --quick` it measures only the corners, with `-- --rooms` only small rooms. Needs two CPUs to say anything of worth.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its results")]

#[path = "common/small_rooms.rs"]
mod small_rooms;

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use serde_json::Value;

const CONSUMERS: [u32; 5] = [1, 10, 100, 1_000, 5_000];
const BURSTS: [u32; 3] = [1, 8, 16];
const COLOURS: [&str; 3] = ["#c0392b", "#2471a3", "#1e8449"];

/// One run of `weir load`.
#[derive(Clone, Copy, Debug)]
struct Cell {
    consumers: u32,
    burst: u32,
    worker_ns: f64,
    raw_ns: f64,
    ratio: f64,
    forwarded_pps: f64,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loopback: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` runs benches to see that they start.
    if !arguments.iter().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let has = |option| arguments.iter().any(|argument| argument == option);
    let quick = has("--quick");
    let out = arguments
        .iter()
        .position(|argument| argument == "--out")
        .and_then(|at| arguments.get(at + 1))
        .map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let seconds = if quick { "2" } else { "6" };
    if !has("--rooms") {
        fan_out(&out.join("loopback.svg"), quick, seconds)?;
    }
    rooms(&out.join("rooms.svg"), quick, seconds)
}

fn fan_out(out: &Path, quick: bool, seconds: &str) -> Result<(), Box<dyn Error>> {
    let consumers: &[u32] = if quick { &[1, 100] } else { &CONSUMERS };

    println!(
        "{:>9} {:>5} {:>12} {:>12} {:>7} {:>14}",
        "consumers", "burst", "worker ns", "raw ns", "ratio", "forwarded/s"
    );
    let mut cells = Vec::new();
    for burst in BURSTS {
        for consumers in consumers.iter().copied() {
            let cell = measure(consumers, burst, seconds)?;
            println!(
                "{:>9} {:>5} {:>12.0} {:>12.0} {:>7.3} {:>14.0}",
                cell.consumers, cell.burst, cell.worker_ns, cell.raw_ns, cell.ratio, cell.forwarded_pps
            );
            cells.push(cell);
        }
    }
    std::fs::write(out, draw(&cells)?)?;
    println!("drawn: {}", out.display());
    Ok(())
}

/// Rooms whose frames are cut as browsers cut them, at the rates of real senders.
fn rooms(out: &Path, quick: bool, seconds: &str) -> Result<(), Box<dyn Error>> {
    println!(
        "{:>6} {:>15} {:>12} {:>12} {:>9} {:>9} {:>7} {:>9} {:>7}",
        "rooms", "", "forwarded/s", "worker ns", "p50 us", "p99 us", "CPU", "per turn", "lost"
    );
    let counts: &[u32] = if quick { &[15, 90] } else { &small_rooms::ROOMS };
    let mut rows = vec![Vec::new(); small_rooms::WINDOWS.len()];
    for rooms in counts {
        for ((window, name, _), row) in small_rooms::WINDOWS.into_iter().zip(&mut rows) {
            let options = [
                "--rooms",
                &rooms.to_string(),
                "--peers",
                "4",
                "--uneven",
                "--window",
                window,
            ];
            let report = load(&options, seconds)?;
            let number = |pointer: &str| {
                report
                    .pointer(pointer)
                    .and_then(Value::as_f64)
                    .ok_or(format!("no {pointer}"))
            };
            let point = small_rooms::Point {
                forwarded_pps: number("/measured_at_pps")?,
                worker_ns: number("/worker_ns_per_packet")?,
                p50_us: Some(number("/delay_us/p50")?),
                p99_us: Some(number("/delay_us/p99")?),
            };
            println!(
                "{rooms:>6} {name:>15} {:>12.0} {:>12.0} {:>9.0} {:>9.0} {:>6.0}% {:>9.1} {:>7}",
                point.forwarded_pps,
                point.worker_ns,
                number("/delay_us/p50")?,
                number("/delay_us/p99")?,
                number("/worker_cpu_share")? * 100.0,
                number("/packets_per_turn")?,
                number("/lost_packets")?,
            );
            row.push(point);
        }
    }
    std::fs::write(out, small_rooms::draw(&rows)?)?;
    println!("drawn: {}", out.display());
    Ok(())
}

/// What `weir load` reports.
fn load(options: &[&str], seconds: &str) -> Result<Value, Box<dyn Error>> {
    let output = Command::new(env!("CARGO_BIN_EXE_weir"))
        .args(["load", "--json", "--seconds", seconds])
        .args(options)
        .output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn measure(consumers: u32, burst: u32, seconds: &str) -> Result<Cell, Box<dyn Error>> {
    let options = ["--consumers", &consumers.to_string(), "--burst", &burst.to_string()];
    let report = load(&options, seconds)?;
    let number = |key: &str| report[key].as_f64().ok_or_else(|| format!("the report has no {key}"));
    Ok(Cell {
        consumers,
        burst,
        worker_ns: number("worker_ns_per_packet")?,
        // The cheaper one, which the ratio is to.
        raw_ns: number("raw_ns_per_packet")?.min(number("raw_shared_ns_per_packet")?),
        ratio: number("ratio")?,
        forwarded_pps: number("forwarded_pps")?,
    })
}

/// Where values lie on the drawing; both axes are logarithmic.
struct Axes {
    lowest_ns: f64,
    highest_ns: f64,
    most: f64,
}

impl Axes {
    const WIDTH: f64 = 760.0;
    const HEIGHT: f64 = 420.0;
    const LEFT: f64 = 70.0;
    const RIGHT: f64 = 150.0;
    const TOP: f64 = 40.0;
    const BOTTOM: f64 = 50.0;

    fn of(cells: &[Cell]) -> Self {
        let highest_ns = cells
            .iter()
            .map(|cell| cell.worker_ns.max(cell.raw_ns))
            .fold(1_000.0, f64::max)
            * 1.15;
        let lowest_ns = cells
            .iter()
            .map(|cell| cell.worker_ns.min(cell.raw_ns))
            .fold(highest_ns, f64::min)
            / 1.15;
        let most = cells.iter().map(|cell| f64::from(cell.consumers)).fold(10.0, f64::max);
        Self {
            lowest_ns,
            highest_ns,
            most,
        }
    }

    fn x(&self, consumers: f64) -> f64 {
        Self::LEFT + (Self::WIDTH - Self::LEFT - Self::RIGHT) * consumers.log10() / self.most.log10()
    }

    fn y(&self, ns: f64) -> f64 {
        let height = Self::HEIGHT - Self::TOP - Self::BOTTOM;
        Self::TOP + height * (self.highest_ns / ns).ln() / (self.highest_ns / self.lowest_ns).ln()
    }
}

/// Nanoseconds per packet over the number of consumers: a solid line for the worker and a dashed one for the bare kernel,
/// for each size of trains.
fn draw(cells: &[Cell]) -> Result<String, std::fmt::Error> {
    let axes = Axes::of(cells);
    let mut svg = String::new();
    draw_frame(&mut svg, &axes)?;
    for (burst, colour) in BURSTS.into_iter().zip(COLOURS) {
        let row: Vec<&Cell> = cells.iter().filter(|cell| cell.burst == burst).collect();
        let line = |value: fn(&Cell) -> f64| {
            row.iter()
                .map(|cell| format!("{:.1},{:.1}", axes.x(f64::from(cell.consumers)), axes.y(value(cell))))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let stroke = format!(r#"fill="none" stroke="{colour}" stroke-width="2""#);
        writeln!(svg, r#"<polyline points="{}" {stroke}/>"#, line(|cell| cell.worker_ns))?;
        writeln!(
            svg,
            r#"<polyline points="{}" {stroke} stroke-dasharray="5 4"/>"#,
            line(|cell| cell.raw_ns)
        )?;
        for cell in &row {
            let (x, y) = (axes.x(f64::from(cell.consumers)), axes.y(cell.worker_ns));
            writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#)?;
            writeln!(
                svg,
                r#"<text x="{:.1}" y="{:.1}" font-size="10" fill="{colour}">×{:.2}</text>"#,
                x + 6.0,
                y - 6.0,
                cell.ratio
            )?;
        }
        if let Some(last) = row.last() {
            let (x, y) = (axes.x(f64::from(last.consumers)) + 44.0, axes.y(last.worker_ns) + 4.0);
            writeln!(
                svg,
                r#"<text x="{x:.1}" y="{y:.1}" fill="{colour}">trains of {burst}</text>"#
            )?;
        }
    }
    writeln!(svg, "</svg>")?;
    Ok(svg)
}

fn draw_frame(svg: &mut String, axes: &Axes) -> std::fmt::Result {
    let (width, height, left, right) = (Axes::WIDTH, Axes::HEIGHT, Axes::LEFT, Axes::WIDTH - Axes::RIGHT);
    let bottom = Axes::HEIGHT - Axes::BOTTOM;
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">"#
    )?;
    writeln!(svg, r##"<rect width="{width}" height="{height}" fill="#fff"/>"##)?;
    writeln!(
        svg,
        r#"<text x="{left}" y="22" font-size="15">CPU per forwarded packet of 1,200 bytes: worker (solid), bare kernel (dashed)</text>"#
    )?;
    for ns in [250.0, 500.0, 1_000.0, 2_000.0, 4_000.0, 8_000.0, 16_000.0, 32_000.0] {
        if (axes.lowest_ns..=axes.highest_ns).contains(&ns) {
            let y = axes.y(ns);
            writeln!(
                svg,
                r##"<line x1="{left}" x2="{right}" y1="{y:.1}" y2="{y:.1}" stroke="#ddd"/>"##
            )?;
            writeln!(
                svg,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{ns} ns</text>"#,
                left - 8.0,
                y + 4.0
            )?;
        }
    }
    for consumers in CONSUMERS
        .map(f64::from)
        .into_iter()
        .filter(|consumers| *consumers <= axes.most)
    {
        let x = axes.x(consumers);
        writeln!(
            svg,
            r##"<line x1="{x:.1}" x2="{x:.1}" y1="{}" y2="{bottom}" stroke="#eee"/>"##,
            Axes::TOP
        )?;
        writeln!(
            svg,
            r#"<text x="{x:.1}" y="{}" text-anchor="middle">{consumers}</text>"#,
            bottom + 18.0
        )?;
    }
    let middle = (left + right) / 2.0;
    writeln!(
        svg,
        r#"<text x="{middle}" y="{}" text-anchor="middle">consumers</text>"#,
        height - 12.0
    )
}
