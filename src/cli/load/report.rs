//! What the test says: progress on the way, and a table or one JSON object at the end.

use std::io::{IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;
use weir_channel::message::DropReason;

use super::OnePort;
use super::client::Protection;

/// The results.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Report {
    /// Packets per second that arrived at the receivers, at the highest rate that was carried (or at `--rate`).
    pub forwarded_pps: f64,
    /// Packets that did not arrive during the alternating slices.
    pub lost_packets: u64,
    /// Worker CPU per packet sent.
    pub worker_ns_per_packet: f64,
    /// CPU per packet of the same send calls without a relay, and with encryption of the bare cipher.
    pub raw_ns_per_packet: f64,
    /// Median over pairs of slices of one to the other.
    pub ratio: f64,
    pub ratio_min: f64,
    pub ratio_max: f64,
    /// Calls into the kernel (receive, send, wait) per packet sent.
    pub syscalls_per_packet: f64,
    /// From a packet's arrival at the socket to its hand-over to the kernel, at `residence_at_pps`.
    pub residence_us: ResidenceUs,
    pub consumers: u64,
    pub burst: u32,
    /// Packets were kept to be sent again.
    pub nack: bool,
    pub producers: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<u32>,
    pub payload_bytes: u32,
    pub window_us: u32,
    pub paused_share: f64,
    /// The rate of the alternating slices.
    pub measured_at_pps: f64,
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

#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(super) struct ResidenceUs {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
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

    fn table(&self) -> String {
        let what = match self.room {
            Some(peers) => format!("{peers} peers, {} consumers", self.consumers),
            None => format!("{} producers, {} consumers", self.producers, self.consumers),
        };
        let mut rows = vec![
            (
                "load",
                format!(
                    "{what}, trains of {} × {} bytes{}",
                    self.burst,
                    self.payload_bytes,
                    match (self.nack, self.one_port) {
                        (true, _) => ", kept to be sent again",
                        (false, Some(OnePort::Connected)) => ", one port, connected sockets",
                        (false, Some(OnePort::Shared)) => ", one port, one socket",
                        (false, None) => "",
                    }
                ),
            ),
            ("forwarded", format!("{:.0} packets/s", self.forwarded_pps)),
            ("lost", format!("{} packets{}", self.lost_packets, self.loss)),
            (
                "worker CPU",
                format!(
                    "{:.0} ns per packet at {:.0} packets/s",
                    self.worker_ns_per_packet, self.measured_at_pps
                ),
            ),
            (
                "bare kernel",
                format!(
                    "{:.0} ns per packet for the same sends{} without a relay",
                    self.raw_ns_per_packet,
                    if self.srtp.is_some() { " and bare ciphers" } else { "" }
                ),
            ),
            (
                "ratio",
                format!(
                    "{:.3} (slices from {:.3} to {:.3})",
                    self.ratio, self.ratio_min, self.ratio_max
                ),
            ),
            ("syscalls", format!("{:.4} per packet", self.syscalls_per_packet)),
            (
                "residence",
                format!(
                    "p50 {:.0} µs, p99 {:.0} µs, p99.9 {:.0} µs at {:.0} packets/s",
                    self.residence_us.p50, self.residence_us.p99, self.residence_us.p999, self.residence_at_pps
                ),
            ),
        ];
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

/// A line on the error output that says how far things are; nothing when nobody watches.
pub(super) struct Progress {
    noun: &'static str,
    total: u64,
    done: AtomicU64,
    live: bool,
}

impl Progress {
    /// `total` 0: it is not known.
    pub(super) fn new(noun: &'static str, total: u64) -> Self {
        let progress = Self {
            noun,
            total,
            done: AtomicU64::new(0),
            live: std::io::stderr().is_terminal(),
        };
        progress.show(0);
        progress
    }

    pub(super) fn advance(&self) {
        self.show(self.done.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// A line that stays.
    pub(super) fn say(&self, line: &str) {
        let clear = if self.live { "\r\x1b[K" } else { "" };
        let _ = writeln!(std::io::stderr(), "{clear}{line}");
    }

    fn show(&self, done: u64) {
        if !self.live {
            return;
        }
        let of = if self.total > 0 {
            format!(" of {}", self.total)
        } else {
            String::new()
        };
        let _ = write!(std::io::stderr(), "\r\x1b[K{}: {done}{of}", self.noun);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.live {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Something that makes the figures worse than they need be.
pub(super) fn warn(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "warning: {sentence}");
}

/// Why there are no figures.
pub(super) fn complain(sentence: &str) {
    let _ = writeln!(std::io::stderr(), "weir load: {sentence}");
}
