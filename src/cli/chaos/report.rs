//! What came of it: a table, or one JSON object; and a picture of the gaps.

use std::fmt::Write as _;
use std::io::Write as _;

use serde::Serialize;

use crate::cli::measuring::one_port::OnePort;

use super::driver::Look;
use super::fault::Fault;
use super::judge::Counts;
use super::losses::{Dropped, Lost};
use super::{ChaosArgs, Over};

/// One fault and what it did.
#[derive(Clone, Debug)]
pub(super) struct Strike {
    pub fault: Fault,
    /// For each receiver its longest wait.
    pub waits_ns: Vec<u64>,
    /// Receivers that got nothing any more.
    pub silent: usize,
    pub calls: u64,
    pub calls_failed: u64,
    pub complaint: Option<String>,
    /// Of the server, the load and the workers together, a while after it.
    pub descriptors: usize,
    /// Likewise, in bytes.
    pub memory: u64,
}

/// Of times, in milliseconds.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize)]
pub(super) struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
}

impl Quantiles {
    fn of(waits_ns: &[u64]) -> Self {
        let mut sorted = waits_ns.to_vec();
        sorted.sort_unstable();
        let ms = |quantile: f64| {
            let place = (quantile * sorted.len() as f64).ceil() as usize;
            sorted.get(place.saturating_sub(1)).map_or(0.0, |ns| *ns as f64 / 1e6)
        };
        Self {
            p50: ms(0.5),
            p99: ms(0.99),
            max: ms(1.0),
        }
    }
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms",
            self.p50, self.p99, self.max
        )
    }
}

/// One kind of fault.
#[derive(Clone, Copy, Debug, Serialize)]
struct OfFault {
    fault: Fault,
    count: usize,
    gap_ms: Quantiles,
}

/// The results.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Faults that struck a worker.
    kills: usize,
    /// How long receivers waited for a packet that their source had sent, the longest time of each receiver and fault.
    gap_ms: Quantiles,
    /// The same by fault.
    by_fault: Vec<OfFault>,
    /// The same in a second without any fault.
    calm_gap_ms: Quantiles,
    rooms_lost: usize,
    /// Receivers that got nothing any more after a fault.
    receivers_lost: usize,
    /// Calls to the server while workers died.
    calls: u64,
    calls_failed: u64,
    /// What the first of those said.
    #[serde(skip_serializing_if = "Option::is_none")]
    complaint: Option<String>,
    /// Packets that came under an index, or sequence number, under which another one had come.
    indices_reused: u64,
    /// Packets of video that did not come within a second, although they were asked for, and those of sound that did not come.
    packets_lost_after_repair: u64,
    /// The same by what is known of them.
    lost: Lost,
    /// What the server says of what it did not relay, since the first fault.
    dropped: Dropped,
    /// Of the packets lost: for each fault and receiver.
    lost_per_receiver_and_fault: f64,
    packets_sent: u64,
    /// Packets that the kernel did not take.
    packets_unsent: u64,
    /// Packets that the server asked its senders for.
    packets_sent_again: u64,
    packets_received: u64,
    packets_repaired: u64,
    /// How often a receiver's sequence numbers went on elsewhere.
    renumbered: u64,
    /// Packets that could not be opened, or that held something else than what was sent.
    wrong_packets: u64,
    /// Packets over TCP of which a dead worker had written a part.
    packets_cut_off: u64,
    /// Connections of TCP that have ended.
    connections_lost: u64,
    key_frame_requests: u64,
    /// Descriptors more with each fault.
    descriptors_slope: f64,
    /// Bytes more with each fault, of server, load and workers together.
    memory_slope: f64,
    /// How busy workers were.
    load: f64,
    producers: u32,
    consumers: u32,
    rooms: u32,
    webrtc_share: f64,
    webrtc_over: Vec<Over>,
    #[serde(skip_serializing_if = "Option::is_none")]
    one_port: Option<OnePort>,
    seed: u64,
    #[serde(skip)]
    pub strikes: Vec<Strike>,
    #[serde(skip)]
    before: Look,
}

impl Report {
    pub(super) fn new(args: &ChaosArgs, load: f64, calm: &Look) -> Self {
        Self {
            kills: 0,
            gap_ms: Quantiles::default(),
            by_fault: Vec::new(),
            calm_gap_ms: Quantiles::of(&calm.waits_ns),
            rooms_lost: 0,
            receivers_lost: 0,
            calls: 0,
            calls_failed: 0,
            complaint: None,
            indices_reused: 0,
            packets_lost_after_repair: 0,
            lost: Lost::default(),
            dropped: Dropped::default(),
            lost_per_receiver_and_fault: 0.0,
            packets_sent: 0,
            packets_unsent: 0,
            packets_sent_again: 0,
            packets_received: 0,
            packets_repaired: 0,
            renumbered: 0,
            wrong_packets: 0,
            packets_cut_off: 0,
            connections_lost: 0,
            key_frame_requests: 0,
            descriptors_slope: 0.0,
            memory_slope: 0.0,
            load,
            producers: args.producers,
            consumers: args.consumers,
            rooms: args.rooms,
            webrtc_share: args.webrtc,
            webrtc_over: args.webrtc_over.clone(),
            one_port: args.one_port,
            seed: args.seed,
            strikes: Vec::new(),
            before: calm.clone(),
        }
    }

    /// Sums up.
    pub(super) fn finish(&mut self, after: &Look, dropped: Dropped, rooms_lost: usize) {
        let strikes = &self.strikes;
        let waits = |of: &dyn Fn(&Strike) -> bool| -> Vec<u64> {
            let strikes = strikes.iter().filter(|strike| of(strike));
            strikes.flat_map(|strike| strike.waits_ns.iter().copied()).collect()
        };
        self.kills = strikes.len();
        self.gap_ms = Quantiles::of(&waits(&|_| true));
        for fault in [Fault::Kill, Fault::Stop, Fault::Oom, Fault::Emfile] {
            let count = strikes.iter().filter(|strike| strike.fault == fault).count();
            if count > 0 {
                self.by_fault.push(OfFault {
                    fault,
                    count,
                    gap_ms: Quantiles::of(&waits(&|strike| strike.fault == fault)),
                });
            }
        }
        self.rooms_lost = rooms_lost;
        self.receivers_lost = strikes.last().map_or(0, |strike| strike.silent);
        self.calls = strikes.iter().map(|strike| strike.calls).sum();
        self.calls_failed = strikes.iter().map(|strike| strike.calls_failed).sum();
        self.complaint = strikes.iter().find_map(|strike| strike.complaint.clone());
        let Counts {
            received,
            repaired,
            lost,
            reused,
            renumbered,
            ..
        } = after.counts;
        let before = self.before.counts;
        self.indices_reused = reused;
        self.packets_lost_after_repair = lost - before.lost;
        self.lost = after.lost.since(self.before.lost);
        self.dropped = dropped;
        let chances = (self.kills * after.waits_ns.len()).max(1);
        self.lost_per_receiver_and_fault = self.packets_lost_after_repair as f64 / chances as f64;
        self.packets_sent = after.sent - self.before.sent;
        self.packets_unsent = after.unsent - self.before.unsent;
        self.packets_sent_again = after.traffic.sent_again - self.before.traffic.sent_again;
        self.packets_received = received - before.received;
        self.packets_repaired = repaired - before.repaired;
        self.renumbered = renumbered;
        self.wrong_packets = after.traffic.wrong;
        self.packets_cut_off = after.traffic.cut_off;
        self.connections_lost = after.traffic.connections_lost;
        self.key_frame_requests = after.key_frame_requests - self.before.key_frame_requests;
        let descriptors: Vec<f64> = strikes.iter().map(|strike| strike.descriptors as f64).collect();
        // Without what is kept here of each strike.
        let own = |place: usize| {
            strikes[..place]
                .iter()
                .map(|strike| size_of_val(&*strike.waits_ns))
                .sum::<usize>()
        };
        let memory = strikes.iter().enumerate();
        let memory: Vec<f64> = memory
            .map(|(place, strike)| strike.memory as f64 - own(place) as f64)
            .collect();
        self.descriptors_slope = slope(&descriptors);
        self.memory_slope = slope(&memory);
    }

    /// Whether nothing was lost that should not be.
    pub(super) fn is_sound(&self) -> bool {
        self.rooms_lost == 0
            && self.receivers_lost == 0
            && self.calls_failed == 0
            && self.indices_reused == 0
            && self.wrong_packets == 0
            && self.connections_lost == 0
    }

    pub(super) fn print(&self, json: bool) {
        let text = match json {
            true => serde_json::to_string(self).unwrap_or_default() + "\n",
            false => self.table(),
        };
        // A reader that has gone away has seen what it wanted.
        let _ = std::io::stdout().lock().write_all(text.as_bytes());
    }

    /// What WebRTC clients came by, in words.
    fn over(&self) -> String {
        let names: Vec<&str> = self.webrtc_over.iter().map(|over| over.name()).collect();
        let names = names.join(" and ");
        match self.one_port {
            Some(one_port) => format!("{names}, {}", one_port.what()),
            None => names,
        }
    }

    fn table(&self) -> String {
        let mut rows = vec![
            (
                "scene",
                format!(
                    "{} rooms ({:.0} % of them WebRTC over {}), {} producers, {} consumers, workers {:.0} % busy",
                    self.rooms,
                    self.webrtc_share * 100.0,
                    self.over(),
                    self.producers,
                    self.consumers,
                    self.load * 100.0
                ),
            ),
            ("faults", format!("{}", self.kills)),
            ("gap", self.gap_ms.to_string()),
        ];
        let by_fault = self.by_fault.iter().filter(|_| self.by_fault.len() > 1);
        rows.extend(by_fault.map(|of| (of.fault.name(), format!("{} times: {}", of.count, of.gap_ms))));
        rows.extend([
            ("without faults", self.calm_gap_ms.to_string()),
            ("rooms lost", self.rooms_lost.to_string()),
            ("receivers", format!("{} get nothing any more", self.receivers_lost)),
            ("calls", {
                let complaint = self.complaint.as_ref().map(|complaint| format!(" ({complaint})"));
                format!(
                    "{} made, {} failed{}",
                    self.calls,
                    self.calls_failed,
                    complaint.unwrap_or_default()
                )
            }),
            (
                "packets",
                format!(
                    "{} came, {} of them repaired; {} lost, {:.3} for each receiver and fault; {} wrong, {} cut off",
                    self.packets_received,
                    self.packets_repaired,
                    self.packets_lost_after_repair,
                    self.lost_per_receiver_and_fault,
                    self.wrong_packets,
                    self.packets_cut_off
                ),
            ),
            ("lost", self.lost.what()),
            ("dropped", self.dropped.what()),
            ("connections", format!("{} lost", self.connections_lost)),
            (
                "senders",
                format!(
                    "{} packets sent, {} of them again, {} not taken by the kernel",
                    self.packets_sent + self.packets_sent_again,
                    self.packets_sent_again,
                    self.packets_unsent
                ),
            ),
            (
                "numbers",
                format!(
                    "{} used twice; {} times they went on elsewhere",
                    self.indices_reused, self.renumbered
                ),
            ),
            ("key frames", format!("asked for {} times", self.key_frame_requests)),
            (
                "growth",
                format!(
                    "{:.2} descriptors and {:.0} KiB with each fault",
                    self.descriptors_slope,
                    self.memory_slope / 1_024.0
                ),
            ),
        ]);
        rows.into_iter()
            .map(|(name, value)| format!("{name:<15} {value}\n"))
            .collect()
    }

    /// How many receivers waited for how long, as SVG.
    pub(super) fn picture(&self) -> Result<String, std::fmt::Error> {
        const BARS: usize = 48;
        const WIDTH: usize = 760;
        const HEIGHT: usize = 260;
        const LEFT: usize = 60;
        const BOTTOM: usize = 210;
        const TOP: usize = 40;
        let waits: Vec<f64> = self
            .strikes
            .iter()
            .flat_map(|strike| strike.waits_ns.iter().map(|ns| *ns as f64 / 1e6))
            .collect();
        let longest = waits.iter().copied().fold(1.0, f64::max);
        let step = nice(longest / BARS as f64);
        let mut bars = vec![0_usize; (longest / step) as usize + 1];
        for wait in &waits {
            bars[(wait / step) as usize] += 1;
        }
        let highest = bars.iter().copied().max().unwrap_or(1).max(1);
        let bar_width = (WIDTH - LEFT - 20) as f64 / bars.len() as f64;
        let x_of = |ms: f64| LEFT as f64 + ms / step * bar_width;
        let mut svg = String::new();
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="11">"#
        )?;
        writeln!(svg, r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>"##)?;
        writeln!(
            svg,
            r#"<text x="{LEFT}" y="20" font-size="13">How long receivers waited when their worker died: {} faults, {} receivers, workers {:.0} % busy</text>"#,
            self.kills,
            self.consumers,
            self.load * 100.0
        )?;
        for (place, count) in bars.iter().enumerate() {
            let height = (BOTTOM - TOP) as f64 * *count as f64 / highest as f64;
            writeln!(
                svg,
                r##"<rect x="{:.1}" y="{:.1}" width="{:.1}" height="{height:.1}" fill="#2471a3"/>"##,
                x_of(place as f64 * step),
                BOTTOM as f64 - height,
                (bar_width - 1.0).max(0.5)
            )?;
        }
        writeln!(
            svg,
            r##"<path d="M{LEFT} {TOP}V{BOTTOM}H{}" fill="none" stroke="#333"/>"##,
            WIDTH - 20
        )?;
        writeln!(
            svg,
            r#"<text x="{}" y="{}" text-anchor="end">{highest}</text><text x="{}" y="{BOTTOM}" text-anchor="end">0</text>"#,
            LEFT - 5,
            TOP + 8,
            LEFT - 5
        )?;
        let apart = nice(longest / 8.0);
        let mut mark = 0.0;
        while mark <= longest {
            writeln!(
                svg,
                r#"<text x="{:.1}" y="{}" text-anchor="middle">{mark:.0} ms</text>"#,
                x_of(mark),
                BOTTOM + 15
            )?;
            mark += apart;
        }
        for (name, ms) in [("p50", self.gap_ms.p50), ("p99", self.gap_ms.p99)] {
            writeln!(
                svg,
                r##"<path d="M{0:.1} {TOP}V{BOTTOM}" stroke="#c0392b" stroke-dasharray="4 3"/><text x="{0:.1}" y="{1}" fill="#c0392b" text-anchor="middle">{name} {ms:.1} ms</text>"##,
                x_of(ms),
                TOP - 4
            )?;
        }
        writeln!(
            svg,
            r#"<text x="{LEFT}" y="{}">the longest wait of each receiver and fault for a packet that its source had sent; without faults: p99 {:.1} ms</text>"#,
            BOTTOM + 38,
            self.calm_gap_ms.p99
        )?;
        writeln!(svg, "</svg>")?;
        Ok(svg)
    }
}

/// The next larger of 1, 2, 5, 10, 20 …, or a tenth, hundredth of these.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.max(1e-3).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].into_iter().map(|step| step * power);
    steps.into_iter().find(|step| *step >= value).unwrap_or(10.0 * power)
}

/// By how much values grow from one to the next, by least squares. The first ones belong to warming up.
fn slope(values: &[f64]) -> f64 {
    let values = &values[values.len() / 10..];
    let count = values.len() as f64;
    if values.len() < 2 {
        return 0.0;
    }
    let middle = (count - 1.0) / 2.0;
    let mean = values.iter().sum::<f64>() / count;
    let pairs = values.iter().enumerate();
    let (mut above, mut below) = (0.0, 0.0);
    for (place, value) in pairs {
        let distance = place as f64 - middle;
        above += distance * (value - mean);
        below += distance * distance;
    }
    above / below
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_what_was_waited() {
        let waits: Vec<u64> = (1..=100).rev().map(|ms| ms * 1_000_000).collect();
        let expected = Quantiles {
            p50: 50.0,
            p99: 99.0,
            max: 100.0,
        };
        assert_eq!(Quantiles::of(&waits), expected);
        assert_eq!(Quantiles::of(&[]), Quantiles::default());
    }

    #[test]
    fn a_slope_is_what_each_step_adds() {
        let values: Vec<f64> = (0..50).map(|place| 7.0 + 3.0 * f64::from(place)).collect();
        assert!((slope(&values) - 3.0).abs() < 1e-9);
        assert_eq!(slope(&[5.0; 20]), 0.0);
        assert_eq!(slope(&[5.0]), 0.0);
        assert_eq!(slope(&[]), 0.0);
    }

    #[test]
    fn steps_are_round() {
        assert_eq!([0.3, 1.0, 3.0, 7.0, 45.0].map(nice), [0.5, 1.0, 5.0, 10.0, 50.0]);
    }
}
