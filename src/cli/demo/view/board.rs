//! The state of things as every view shows it.

use std::collections::VecDeque;
use std::fmt;

use serde::Serialize;
use weir::Profile;

use crate::cli::demo::receiver::Receiver;
use crate::cli::demo::reporter::{DemoEvent, DemoEventKind};
use crate::cli::demo::setup::Setup;

/// A bitrate is the mean over this long.
const RATE_WINDOW_MS: u64 = 1_000;

/// A step of the history.
const HISTORY_STEP_MS: u64 = 500;

/// Steps of the history that are kept.
const HISTORY_LEN: usize = 24;

/// A stream that was silent for this long does not flow. Frames come every 33 ms, opus packets every 20.
const SILENT_MS: u64 = 500;

/// What all consumers and producers are doing.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) producers: Vec<ProducerRow>,
    pub(super) consumers: Vec<ConsumerRow>,
}

/// A producer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProducerRow {
    pub(super) name: &'static str,
    pub(super) room: &'static str,
    /// The worker that relays it.
    pub(super) worker: u32,
    pub(super) paused: bool,
    /// Packets sent.
    pub(super) packets: u64,
    /// Bits per second.
    pub(super) bitrate: u64,
    pub(super) key_frame_requests: u64,
    #[serde(skip)]
    meter: Meter,
}

/// A consumer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ConsumerRow {
    pub(super) name: &'static str,
    /// The producer it consumes.
    pub(super) source: &'static str,
    pub(super) state: State,
    /// The highest profile that it should receive.
    pub(super) preferred_profile: Profile,
    /// What the receiver sees flowing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) profile: Option<Profile>,
    /// The picture's size in the last key frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resolution: Option<String>,
    /// Packets received.
    pub(super) packets: u64,
    /// Bits per second.
    pub(super) bitrate: u64,
    /// Whether it is video.
    #[serde(skip)]
    pub(super) video: bool,
    /// The last event of it, and when.
    #[serde(skip)]
    pub(super) last: Option<(u64, String)>,
    /// Whether it ever broke a promise.
    #[serde(skip)]
    pub(super) faulty: bool,
    #[serde(skip)]
    meter: Meter,
}

/// What a consumer is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum State {
    /// Packets come.
    Flowing,
    /// It is paused by itself.
    Paused,
    /// Whether its producer is paused.
    SourcePaused,
    /// Packets could come, but none do: it waits for a key frame, or has just begun.
    Waiting,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Flowing => "flowing",
            Self::Paused => "paused",
            Self::SourcePaused => "source paused",
            Self::Waiting => "waiting",
        })
    }
}

impl Board {
    /// Before the first packet.
    pub(super) fn new(setup: &Setup) -> Self {
        let producers = setup
            .sources
            .iter()
            .map(|source| ProducerRow::new(source.name, source.room, source.producer.room().worker().0));
        let consumers = setup.receivers.iter().map(|receiver| {
            let source = setup.sources[receiver.source].name;
            ConsumerRow::new(
                receiver.name,
                source,
                receiver.consumer.preferred_profile(),
                receiver.profiles.len() > 1,
            )
        });
        Self {
            producers: producers.collect(),
            consumers: consumers.collect(),
        }
    }

    /// Looks at everybody.
    pub(super) fn refresh(&mut self, setup: &Setup) {
        let now_ms = setup.elapsed().as_millis() as u64;
        for (row, source) in std::iter::zip(&mut self.producers, &setup.sources) {
            row.paused = source.producer.paused();
            row.packets = source.sent.packets();
            row.key_frame_requests = source.key_frame_requests.load(std::sync::atomic::Ordering::Relaxed);
            row.bitrate = row.meter.measure(now_ms, source.sent.bytes());
        }
        for (row, receiver) in std::iter::zip(&mut self.consumers, &setup.receivers) {
            let progress = receiver.progress();
            let (packets, bytes) = {
                let check = receiver.check();
                (check.packets(), check.bytes())
            };
            row.state = state(receiver, progress.last_packet_ms, now_ms);
            row.preferred_profile = receiver.consumer.preferred_profile();
            row.profile = progress.track.and_then(|track| receiver.profiles.get(track)).copied();
            row.resolution = progress.resolution.map(|resolution| resolution.to_string());
            row.packets = packets;
            row.measure(now_ms, bytes);
        }
    }

    /// Remembers the last event of each consumer.
    pub(super) fn note(&mut self, event: &DemoEvent) {
        let row = event
            .kind
            .target()
            .and_then(|name| self.consumers.iter_mut().find(|row| row.name == name));
        if let Some(row) = row {
            row.faulty |= matches!(event.kind, DemoEventKind::Fault { .. });
            row.last = Some((event.at_ms, event.kind.brief()));
        }
    }
}

impl ProducerRow {
    /// Before the first packet.
    pub(super) fn new(name: &'static str, room: &'static str, worker: u32) -> Self {
        Self {
            name,
            room,
            worker,
            paused: false,
            packets: 0,
            bitrate: 0,
            key_frame_requests: 0,
            meter: Meter::default(),
        }
    }
}

impl ConsumerRow {
    /// Before the first packet.
    pub(super) fn new(name: &'static str, source: &'static str, preferred_profile: Profile, video: bool) -> Self {
        Self {
            name,
            source,
            state: State::Waiting,
            preferred_profile,
            profile: None,
            resolution: None,
            packets: 0,
            bitrate: 0,
            video,
            last: None,
            faulty: false,
            meter: Meter::default(),
        }
    }

    /// Takes note of how many bytes have come.
    pub(super) fn measure(&mut self, now_ms: u64, bytes: u64) {
        self.bitrate = self.meter.measure(now_ms, bytes);
    }

    /// Bits per second of the last few seconds, the oldest first.
    pub(super) fn history(&self) -> impl ExactSizeIterator<Item = u64> + '_ {
        self.meter.history.iter().copied()
    }
}

fn state(receiver: &Receiver, last_packet_ms: Option<u64>, now_ms: u64) -> State {
    if receiver.consumer.paused() {
        State::Paused
    } else if receiver.consumer.source_paused() {
        State::SourcePaused
    } else if last_packet_ms.is_some_and(|last| now_ms.saturating_sub(last) < SILENT_MS) {
        State::Flowing
    } else {
        State::Waiting
    }
}

/// Bitrates from a growing count of bytes.
#[derive(Debug, Default)]
struct Meter {
    /// (time, bytes), the oldest just before the window begins.
    samples: VecDeque<(u64, u64)>,
    history: VecDeque<u64>,
    next_step_ms: u64,
    step_began: (u64, u64),
}

impl Meter {
    fn measure(&mut self, now_ms: u64, bytes: u64) -> u64 {
        while self.samples.len() > 1 && now_ms.saturating_sub(self.samples[1].0) >= RATE_WINDOW_MS {
            self.samples.pop_front();
        }
        self.samples.push_back((now_ms, bytes));
        if now_ms >= self.next_step_ms {
            let rate = rate(self.step_began, (now_ms, bytes));
            self.history.push_back(rate);
            if self.history.len() > HISTORY_LEN {
                self.history.pop_front();
            }
            self.step_began = (now_ms, bytes);
            self.next_step_ms = now_ms + HISTORY_STEP_MS;
        }
        self.samples.front().map_or(0, |&oldest| rate(oldest, (now_ms, bytes)))
    }
}

/// Bits per second between two counts.
fn rate((then_ms, then_bytes): (u64, u64), (now_ms, now_bytes): (u64, u64)) -> u64 {
    let ms = now_ms.saturating_sub(then_ms);
    match ms {
        0 => 0,
        _ => now_bytes.saturating_sub(then_bytes) * 8_000 / ms,
    }
}

/// `1.24 Mbit/s`.
pub(super) fn bitrate(bits_per_second: u64) -> String {
    match bits_per_second {
        0 => "-".to_owned(),
        1..1_000 => format!("{bits_per_second} bit/s"),
        1_000..1_000_000 => format!("{} kbit/s", bits_per_second / 1_000),
        _ => format!("{:.2} Mbit/s", bits_per_second as f64 / 1e6),
    }
}

/// `12,345`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `12.3 s`, as the time of a line.
pub(super) fn seconds(ms: u64) -> String {
    format!("{:5.1} s", ms as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_people_read_them() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(count(number), text);
        }
        for (number, text) in [
            (0, "-"),
            (999, "999 bit/s"),
            (64_900, "64 kbit/s"),
            (1_239_000, "1.24 Mbit/s"),
        ] {
            assert_eq!(bitrate(number), text);
        }
        assert_eq!(seconds(12_345), " 12.3 s");
    }

    #[test]
    fn a_meter_shows_the_last_second() {
        let mut meter = Meter::default();
        let rates: Vec<u64> = (0..=30)
            .map(|tenth| meter.measure(tenth * 100, tenth * 1_000))
            .collect();
        // 1,000 bytes in 100 ms.
        assert_eq!(rates[0], 0);
        assert!(rates[1..].iter().all(|&rate| rate == 80_000), "{rates:?}");
        // Then nothing: the rate falls to zero within a second.
        let rates: Vec<u64> = (31..=41).map(|tenth| meter.measure(tenth * 100, 30_000)).collect();
        assert!(rates.windows(2).all(|pair| pair[1] <= pair[0]), "{rates:?}");
        assert_eq!(rates.last(), Some(&0));
        assert_eq!(meter.history.len(), 9);
        for tenth in 42..1_000 {
            meter.measure(tenth * 100, 30_000);
        }
        assert_eq!(meter.history.len(), HISTORY_LEN);
    }
}
