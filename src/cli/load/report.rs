//! What the test says: progress on the way, and a table or one JSON object at the end.

use std::io::Write as _;

use serde::Serialize;
use weir_channel::message::{DropReason, Histogram};

use crate::cli::measuring::client::Protection;
use crate::cli::measuring::one_port::OnePort;

use super::window::Window;

/// The results.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Packets per second that arrived at the receivers, at the highest rate that was carried (or at `--rate`).
    pub forwarded_pps: f64,
    /// Packets that did not arrive during the alternating slices.
    pub lost_packets: u64,
    /// Worker CPU per packet sent.
    pub worker_ns_per_packet: f64,
    /// The share of one CPU that the worker took.
    pub worker_cpu_share: f64,
    /// CPU per packet of the same send calls without a relay, and with encryption of the bare cipher, through connected sockets.
    pub raw_ns_per_packet: f64,
    /// The same through one unconnected socket for all receivers.
    pub raw_shared_ns_per_packet: f64,
    /// Median over the rounds of the worker's to the cheaper of these two.
    pub ratio: f64,
    pub ratio_min: f64,
    pub ratio_max: f64,
    /// Calls into the kernel (receive, send, wait) per packet sent.
    pub syscalls_per_packet: f64,
    /// Packets that the worker received in one turn of its event loop.
    pub packets_per_turn: f64,
    /// How often in a second the worker slept and was woken.
    pub wakeups_per_s: f64,
    /// From the sender's call to the receiver's, as stamped in the payload.
    pub delay_us: Quantiles,
    /// Packets that this was read from; with encryption those of receivers that decrypt.
    #[serde(rename = "delay_packets")]
    pub delays: u64,
    /// The share of what was planned that the sender here could not send.
    pub sender_shortfall: f64,
    /// The sender here, not the worker, limits what is forwarded.
    #[serde(rename = "sender_is_the_limit")]
    pub is_sender_the_limit: bool,
    /// From a packet's arrival at the socket to its hand-over to the kernel, at `residence_at_pps`.
    pub residence_us: Quantiles,
    pub consumers: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
    /// Packets of a frame were only nearly equal.
    pub uneven: bool,
    pub seed: u64,
    /// The share of the maximum that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load: Option<f64>,
    /// Packets were kept to be sent again.
    pub nack: bool,
    pub producers: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rooms: Option<usize>,
    /// Of each room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bitrate_kbps: Option<u32>,
    pub payload_bytes: u32,
    pub window_us: Window,
    pub spin_us: u32,
    pub paused_share: f64,
    /// The rate of the alternating slices.
    pub measured_at_pps: f64,
    /// What the producers sent for that in a second; `--rate` with this number measures at the same rate again.
    pub measured_at_rate: f64,
    pub residence_at_pps: f64,
    pub loss: Loss,
    /// Send calls of the baseline that failed.
    pub raw_errors: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resident_bytes_per_consumer: Option<f64>,
    /// All of the worker's, at the end.
    pub worker_resident_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker_descriptors: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub one_port: Option<OnePort>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub srtp: Option<Encryption>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// Packets that arrived during the alternating slices.
    #[serde(rename = "received_packets")]
    pub forwarded: u64,
}

/// Where packets went that did not arrive.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Loss {
    /// The sender's socket did not take them.
    pub not_sent: u64,
    /// The worker's receive buffer was full.
    pub at_worker_socket: u64,
    /// The worker dropped them, by reason, over the whole run.
    pub in_worker: Vec<(DropReason, u64)>,
    /// The receivers' buffers were full.
    pub at_receivers: u64,
}

/// Of times, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct Quantiles {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
}

impl Quantiles {
    /// Of a histogram of nanoseconds.
    pub(super) fn of(histogram: &Histogram) -> Self {
        let us = |quantile| histogram.quantile(quantile).map_or(0.0, |ns| ns as f64 / 1_000.0);
        Self {
            p50: us(0.5),
            p99: us(0.99),
            p999: us(0.999),
        }
    }
}

impl std::fmt::Display for Quantiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs",
            self.p50, self.p99, self.p999
        )
    }
}

/// What clients that connect cost the worker.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Handshakes {
    pub count: u64,
    pub worker_cpu_ns: u64,
}

impl Handshakes {
    pub(super) fn worker_us(self) -> f64 {
        self.worker_cpu_ns as f64 / 1_000.0 / self.count.max(1) as f64
    }
}

/// How it was with encryption.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Encryption {
    pub profile: Protection,
    /// Clients that connected; all there are.
    pub handshakes: u64,
    /// Worker CPU from the first connectivity check to the keys, and telling the supervisor.
    pub worker_us_per_handshake: f64,
    /// Packets of the alternating slices that receivers opened and found to be what was sent.
    pub verified_packets: u64,
    /// Packets that they could not open, or that were something else.
    pub wrong_packets: u64,
}

/// Commands while relaying.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Control {
    pub commands_per_second: f64,
    pub relayed_pps: f64,
    pub lost_packets: u64,
}

impl Report {
    pub(super) fn forwarded_packets(&self) -> u64 {
        self.forwarded
    }

    /// The figures mean what they say: the baseline's calls worked, and what was encrypted could be decrypted.
    pub(super) fn is_sound(&self) -> bool {
        self.raw_errors == 0 && self.srtp.is_none_or(|srtp| srtp.wrong_packets == 0)
    }

    pub(super) fn print(&self, json: bool) {
        let mut out = std::io::stdout().lock();
        let written = if json {
            serde_json::to_string(self)
                .map_err(Into::into)
                .and_then(|text| writeln!(out, "{text}"))
        } else {
            out.write_all(self.table().as_bytes())
        };
        // A reader that has gone away has seen what it wanted.
        let _ = written;
    }

    /// What was sent to whom.
    fn what(&self) -> String {
        let frames = match (self.burst, self.uneven) {
            (Some(packets), false) => format!("trains of {packets} × {} bytes", self.payload_bytes),
            (Some(packets), true) => format!("frames of {packets} packets of about {} bytes", self.payload_bytes),
            (None, is_uneven) => format!(
                "video of {} kbit/s in {} packets of at most {} bytes",
                self.bitrate_kbps.unwrap_or_default(),
                if is_uneven { "nearly equal" } else { "equal" },
                self.payload_bytes
            ),
        };
        let mut what = match (self.rooms, self.peers) {
            (Some(rooms), Some(peers)) => {
                format!("{rooms} rooms of {peers} peers, {} consumers, {frames}", self.consumers)
            }
            _ => format!("{} producers, {} consumers, {frames}", self.producers, self.consumers),
        };
        if self.nack {
            what += ", kept to be sent again";
        }
        if let Some(one_port) = self.one_port {
            what = format!("{what}, {}", one_port.what());
        }
        what
    }

    fn table(&self) -> String {
        let mut rows = vec![
            ("load", self.what()),
            ("forwarded", format!("{:.0} packets/s", self.forwarded_pps)),
            ("lost", format!("{} packets{}", self.lost_packets, self.loss)),
            (
                "worker CPU",
                format!(
                    "{:.0} ns per packet at {:.0} packets/s, {:.0} % of a CPU",
                    self.worker_ns_per_packet,
                    self.measured_at_pps,
                    self.worker_cpu_share * 100.0
                ),
            ),
            (
                "bare kernel",
                format!(
                    "{:.0} ns per packet for the same sends{} without a relay; {:.0} ns through one unconnected socket",
                    self.raw_ns_per_packet,
                    if self.srtp.is_some() { " and bare ciphers" } else { "" },
                    self.raw_shared_ns_per_packet
                ),
            ),
            (
                "ratio",
                format!(
                    "{:.3} to the cheaper of these (rounds from {:.3} to {:.3})",
                    self.ratio, self.ratio_min, self.ratio_max
                ),
            ),
            ("syscalls", format!("{:.4} per packet", self.syscalls_per_packet)),
            (
                "turns",
                format!(
                    "{:.1} packets each, {:.0} wake-ups/s",
                    self.packets_per_turn, self.wakeups_per_s
                ),
            ),
            (
                "delay",
                format!("{} from sender to receiver ({} packets)", self.delay_us, self.delays),
            ),
            (
                "residence",
                format!("{} at {:.0} packets/s", self.residence_us, self.residence_at_pps),
            ),
        ];
        if self.is_sender_the_limit {
            rows.push((
                "limit",
                format!(
                    "the sender here, not the worker: it sent {:.1} % less than planned",
                    self.sender_shortfall * 100.0
                ),
            ));
        }
        if let Some(srtp) = self.srtp {
            rows.push((
                "handshakes",
                format!(
                    "{}, {:.0} µs of worker CPU each: {:.0} per second and core",
                    srtp.handshakes,
                    srtp.worker_us_per_handshake,
                    1e6 / srtp.worker_us_per_handshake
                ),
            ));
            rows.push((
                "verified",
                format!("{} packets, {} wrong", srtp.verified_packets, srtp.wrong_packets),
            ));
        }
        if let Some(bytes) = self.resident_bytes_per_consumer {
            rows.push((
                "memory",
                format!(
                    "{bytes:.0} bytes resident per additional consumer, {:.0} MiB in all at the end{}",
                    self.worker_resident_bytes as f64 / f64::from(1 << 20),
                    self.worker_descriptors
                        .map(|count| format!("; {count} descriptors"))
                        .unwrap_or_default()
                ),
            ));
        }
        if let Some(control) = self.control {
            rows.push((
                "control",
                format!(
                    "{:.0} commands/s while relaying {:.0} packets/s, {} lost",
                    control.commands_per_second, control.relayed_pps, control.lost_packets
                ),
            ));
        }
        if self.raw_errors > 0 {
            rows.push((
                "unsound",
                format!("{} send calls of the baseline failed", self.raw_errors),
            ));
        }
        rows.into_iter()
            .map(|(name, value)| format!("{name:<12} {value}\n"))
            .collect()
    }
}

impl std::fmt::Display for Loss {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut places = vec![
            (self.not_sent, "not taken by the sender's socket".to_owned()),
            (self.at_worker_socket, "at the worker's socket".to_owned()),
            (self.at_receivers, "at the receivers' sockets".to_owned()),
        ];
        places.extend(
            self.in_worker
                .iter()
                .map(|(reason, count)| (*count, format!("in the worker ({reason:?})"))),
        );
        for (count, place) in places.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "; {count} {place}")?;
        }
        Ok(())
    }
}
