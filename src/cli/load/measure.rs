//! The order of measurements, and the arithmetic.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use weir::WorkerStats;
use weir_channel::message::{DropReason, Histogram};

use super::LoadArgs;
use super::driver::{DriveSlice, Order};
use super::raw::{self, RawSlice, Through};
use crate::cli::measuring::progress::Progress;

use super::report::{Control, Encryption, Loss, Quantiles, Report};
use super::search::Search;
use super::testbed::Testbed;
use super::traffic::Source;

/// A trial of a rate. Long enough that a backlog of a few percent shows.
const TRIAL: Duration = Duration::from_millis(700);
/// A slice of the alternating measurement: short, because the machine's speed drifts.
const SLICE: Duration = Duration::from_millis(250);
/// The same where the load is moderate: as long as `--seconds` allows up to this, because what a worker does to save work it does
/// only after it has seen a load for some time.
const LONG_SLICE: Duration = Duration::from_secs(1);
/// More loss than this is too much for a rate to count as carried.
const LOSS_MAX: f64 = 0.001;
/// Where the costs are compared, if nobody says: close to the maximum, with room for the machine's moods.
const SLICE_SHARE: f64 = 0.8;
/// Where residence times and commands are measured.
const HALF: f64 = 0.5;
const RESIDENCE_TIME: Duration = Duration::from_secs(2);
const CONTROL_TIME: Duration = Duration::from_secs(2);
/// If the sender falls short of the plan by more than this, it is the limit, not the worker. Less is a moment in which it was kept
/// from running.
const SHORTFALL_MAX: f64 = 0.1;

/// One slice of relaying: what was sent and received, and what it cost the worker.
#[derive(Clone, Debug)]
struct RelaySlice {
    drive: DriveSlice,
    packets: u64,
    packets_received: u64,
    turns: u64,
    /// How often the worker went to sleep.
    sleeps: u64,
    cpu_ns: u64,
    calls: u64,
    kernel_drops: u64,
}

impl RelaySlice {
    fn ns_per_packet(&self) -> f64 {
        self.cpu_ns as f64 / self.packets.max(1) as f64
    }
}

/// One round of the alternating measurement.
struct Round {
    relay: RelaySlice,
    connected: RawSlice,
    shared: RawSlice,
}

impl Round {
    /// Relay first, then the baselines, or the other way round.
    async fn run(testbed: &Testbed, scale: f64, duration: Duration, is_relay_first: bool) -> anyhow::Result<Self> {
        let baselines = || {
            anyhow::Ok((
                raw(testbed, Through::Connected, scale, SLICE)?,
                raw(testbed, Through::Shared, scale, SLICE)?,
            ))
        };
        let (relay, (connected, shared)) = match is_relay_first {
            true => (relay(testbed, scale, duration).await?, baselines()?),
            false => {
                let baselines = baselines()?;
                (relay(testbed, scale, duration).await?, baselines)
            }
        };
        Ok(Self {
            relay,
            connected,
            shared,
        })
    }
}

/// Runs all measurements.
pub(super) async fn run(args: &LoadArgs, testbed: &mut Testbed) -> anyhow::Result<Report> {
    let base: f64 = testbed.sources().iter().map(Source::packets_per_second).sum();
    // The first frames are key frames: all consumers start here.
    relay(testbed, 1.0, SLICE).await?;

    let (scale, max) = match (args.rate, args.load) {
        (Some(rate), _) => (rate / base, None),
        (None, None) if args.rooms().is_some() => (1.0, None),
        (None, load) => {
            let max = find_max(testbed).await?;
            (max.scale * load.unwrap_or(SLICE_SHARE), Some(max))
        }
    };

    let is_moderate = args.load.is_some() || args.rooms().is_some();
    let slice = match is_moderate {
        true => Duration::from_secs_f64(args.seconds / 4.0).clamp(SLICE, LONG_SLICE),
        false => SLICE,
    };
    let count = ((args.seconds / (2.0 * slice.as_secs_f64())).ceil() as usize).max(2);
    let progress = Progress::new("rounds", count as u64);
    let mut rounds = Vec::new();
    for number in 0..count {
        // Alternating, so that a drift favours neither.
        rounds.push(Round::run(testbed, scale, slice, number.is_multiple_of(2)).await?);
        progress.advance();
    }
    drop(progress);

    let half = match &max {
        Some(max) if !is_moderate => max.scale * HALF,
        _ => scale,
    };
    let residence_us = residence(testbed, half).await?;
    let control = if args.control {
        Some(control(testbed, half).await?)
    } else {
        None
    };
    let relayed = || rounds.iter().map(|round| &round.relay);
    let raw_ns = |of: fn(&Round) -> &RawSlice| median(rounds.iter().map(|round| of(round).ns_per_packet()));
    let (raw_connected_ns, raw_shared_ns) = (raw_ns(|round| &round.connected), raw_ns(|round| &round.shared));
    let cheaper: fn(&Round) -> &RawSlice = match raw_connected_ns <= raw_shared_ns {
        true => |round| &round.connected,
        false => |round| &round.shared,
    };
    let ratios = rounds
        .iter()
        .map(|round| round.relay.ns_per_packet() / cheaper(round).ns_per_packet());
    let ratios: Vec<f64> = ratios.collect();
    let reasons = worker_drops(testbed).await?;
    let drive = |of: fn(&DriveSlice) -> u64| relayed().map(|slice| of(&slice.drive)).sum::<u64>();
    let (expected, received) = (drive(|slice| slice.expected), drive(|slice| slice.received));
    let elapsed_ns = drive(|slice| slice.elapsed_ns);
    let total = |of: fn(&RelaySlice) -> u64| relayed().map(of).sum::<u64>();
    let mut delays = Histogram::default();
    relayed().for_each(|slice| delays.add(&slice.drive.delays));
    let seconds = elapsed_ns.max(1) as f64 / 1e9;
    let srtp = args.srtp.map(|protection| Encryption {
        profile: protection,
        handshakes: testbed.handshakes.count,
        worker_us_per_handshake: testbed.handshakes.worker_us(),
        verified_packets: drive(|slice| slice.looked_at) - drive(|slice| slice.wrong),
        wrong_packets: drive(|slice| slice.wrong),
    });
    let at_slices = received as f64 * 1e9 / elapsed_ns.max(1) as f64;

    let tracks = |peers: usize| if args.no_sound { peers } else { 2 * peers } as u64;

    Ok(Report {
        forwarded_pps: max.as_ref().map_or(at_slices, |max| max.forwarded_pps),
        measured_at_pps: at_slices,
        measured_at_rate: scale * base,
        lost_packets: expected.saturating_sub(received),
        loss: Loss {
            not_sent: drive(|slice| slice.unsent),
            at_worker_socket: total(|slice| slice.kernel_drops),
            in_worker: reasons,
            at_receivers: drive(|slice| slice.dropped_at_receivers),
        },
        worker_ns_per_packet: median(relayed().map(RelaySlice::ns_per_packet)),
        worker_cpu_share: total(|slice| slice.cpu_ns) as f64 / drive(|slice| slice.answered_ns).max(1) as f64,
        raw_ns_per_packet: raw_connected_ns,
        raw_shared_ns_per_packet: raw_shared_ns,
        ratio_min: ratios.iter().copied().fold(f64::MAX, f64::min),
        ratio_max: ratios.iter().copied().fold(0.0, f64::max),
        ratio: median(ratios.into_iter()),
        syscalls_per_packet: total(|slice| slice.calls) as f64 / total(|slice| slice.packets).max(1) as f64,
        packets_per_turn: total(|slice| slice.packets_received) as f64 / total(|slice| slice.turns).max(1) as f64,
        wakeups_per_s: total(|slice| slice.sleeps) as f64 / seconds,
        delay_us: Quantiles::of(&delays),
        delays: delays.total(),
        raw_errors: rounds
            .iter()
            .map(|round| round.connected.errors + round.shared.errors)
            .sum(),
        sender_shortfall: drive(|slice| slice.lag_ns) as f64 / elapsed_ns.max(1) as f64,
        is_sender_the_limit: max.as_ref().is_some_and(|max| max.is_of_the_sender)
            || drive(|slice| slice.lag_ns) as f64 > SHORTFALL_MAX * elapsed_ns as f64,
        residence_us,
        residence_at_pps: half * out_rate(testbed),
        consumers: args.rooms().map_or(u64::from(args.consumers), |(rooms, peers)| {
            rooms as u64 * tracks(peers) * (peers as u64 - 1)
        }),
        producers: args
            .rooms()
            .map_or(u64::from(args.producers), |(rooms, peers)| rooms as u64 * tracks(peers)),
        rooms: args.rooms().map(|(rooms, _)| rooms),
        peers: args.rooms().map(|(_, peers)| peers),
        bitrate_kbps: args.rooms().map(|_| args.bitrate),
        burst: args.rooms().is_none().then_some(args.burst),
        uneven: args.uneven,
        seed: args.seed,
        load: args.load,
        nack: args.nack,
        payload_bytes: args.payload,
        window_us: args.window,
        spin_us: args.spin,
        paused_share: args.paused,
        resident_bytes_per_consumer: testbed.resident_bytes_per_consumer,
        worker_resident_bytes: testbed.worker_stats().await?.resident_bytes,
        worker_descriptors: testbed.worker_descriptors(),
        one_port: args.one_port,
        srtp,
        forwarded: received,
        control,
    })
}

/// What leaves the worker per second at a scale of 1.
fn out_rate(testbed: &Testbed) -> f64 {
    testbed
        .sources()
        .iter()
        .map(|source| source.packets_per_second() * source.fan_out as f64)
        .sum()
}

async fn relay(testbed: &Testbed, scale: f64, duration: Duration) -> anyhow::Result<RelaySlice> {
    let driver = testbed.driver()?;
    driver.slice(Order::KeepConsent)?;
    let before = (testbed.worker_stats().await?, testbed.worker_sleeps()?);
    let drive = driver.slice(Order::Drive { scale, duration })?;
    let sleeps = testbed.worker_sleeps()? - before.1;
    let (before, after) = (before.0, testbed.worker_stats().await?);
    let calls = |stats: &WorkerStats| stats.receive_calls + stats.send_calls + stats.wait_calls;
    Ok(RelaySlice {
        drive,
        packets: after.packets_sent - before.packets_sent,
        packets_received: after.packets_received - before.packets_received,
        turns: after.turns - before.turns,
        sleeps,
        cpu_ns: after.cpu_ns - before.cpu_ns,
        calls: calls(&after) - calls(&before),
        kernel_drops: after.kernel_drops - before.kernel_drops,
    })
}

fn raw(testbed: &Testbed, through: Through, scale: f64, duration: Duration) -> anyhow::Result<RawSlice> {
    let driver = testbed.driver()?;
    driver.begin(Order::Drain { duration })?;
    let slice = testbed.raw()?.slice(raw::Order {
        through,
        scale,
        duration,
    });
    driver.finish()?;
    slice
}

/// The highest rate that is carried.
struct Max {
    scale: f64,
    forwarded_pps: f64,
    /// The worker would carry more, but more cannot be sent.
    is_of_the_sender: bool,
}

/// Begins where the baseline says the limit is.
async fn find_max(testbed: &Testbed) -> anyhow::Result<Max> {
    let progress = Progress::new("trials", 0);
    let estimate = raw(testbed, Through::Connected, 1.0, SLICE)?;
    let mut search = Search::new(1e9 / estimate.ns_per_packet().max(100.0) / out_rate(testbed));
    let mut best: Option<Max> = None;
    while let Some(scale) = search.next() {
        progress.advance();
        let slice = relay(testbed, scale, TRIAL).await?;
        let forwarded_pps = slice.drive.received_in_time as f64 * 1e9 / slice.drive.elapsed_ns.max(1) as f64;
        let is_carried = slice.drive.loss_in_time() <= LOSS_MAX && slice.drive.unsent == 0;
        let is_of_the_sender = is_carried && slice.drive.shortfall() > SHORTFALL_MAX;
        progress.say(&format!(
            "{:.0} packets/s asked, {forwarded_pps:.0} forwarded, loss {:.2} %{}",
            scale * out_rate(testbed),
            slice.drive.loss_in_time() * 100.0,
            match (is_carried, is_of_the_sender) {
                (false, _) => ": too much",
                (true, true) => ": more cannot be sent",
                (true, false) => "",
            },
        ));
        if is_carried {
            best = Some(Max {
                // What was not sent was not carried.
                scale: scale * (1.0 - slice.drive.shortfall().min(1.0)),
                forwarded_pps,
                is_of_the_sender,
            });
        }
        if is_of_the_sender {
            break;
        }
        search.on_trial(is_carried);
    }
    best.context("no rate was carried without loss; end what else runs on this machine, and try again")
}

async fn residence(testbed: &Testbed, scale: f64) -> anyhow::Result<Quantiles> {
    testbed.measure_residence(true).await?;
    relay(testbed, scale, RESIDENCE_TIME).await?;
    let histogram = testbed.worker_stats().await?.residence;
    testbed.measure_residence(false).await?;
    Ok(histogram.as_ref().map(Quantiles::of).unwrap_or_default())
}

/// Pauses and resumes through the channel while the worker relays.
async fn control(testbed: &Testbed, scale: f64) -> anyhow::Result<Control> {
    let running = AtomicBool::new(true);
    let commands = AtomicU64::new(0);
    let driver = testbed.driver()?;
    driver.begin(Order::Drive {
        scale,
        duration: CONTROL_TIME,
    })?;
    let toggles = futures::future::try_join_all(testbed.toggled().iter().map(|consumer| async {
        while running.load(Ordering::Relaxed) {
            consumer.resume(Value::Null).await?;
            consumer.pause(Value::Null).await?;
            commands.fetch_add(2, Ordering::Relaxed);
        }
        anyhow::Ok(())
    }));
    let stop = async {
        tokio::time::sleep(CONTROL_TIME).await;
        running.store(false, Ordering::Relaxed);
        anyhow::Ok(())
    };
    tokio::try_join!(toggles, stop)?;
    let slice = driver.finish()?;
    Ok(Control {
        commands_per_second: commands.load(Ordering::Relaxed) as f64 / CONTROL_TIME.as_secs_f64(),
        relayed_pps: slice.received as f64 * 1e9 / slice.elapsed_ns.max(1) as f64,
        lost_packets: slice.expected.saturating_sub(slice.received),
    })
}

/// Packets that the worker did not send although somebody should have had them.
async fn worker_drops(testbed: &Testbed) -> anyhow::Result<Vec<(DropReason, u64)>> {
    let mut drops: Vec<(DropReason, u64)> = Vec::new();
    for room in testbed.rooms() {
        let stats = room.stats().await.context("asking for a room's counters")?;
        for (reason, count) in stats.consumers.iter().flat_map(|consumer| &consumer.dropped) {
            match drops.iter_mut().find(|(known, _)| known == reason) {
                Some((_, total)) => *total += count,
                None => drops.push((*reason, *count)),
            }
        }
    }
    drops.retain(|(reason, _)| {
        !matches!(
            reason,
            DropReason::ConsumerPaused | DropReason::AwaitingKeyFrame | DropReason::OtherProfile
        )
    });
    Ok(drops)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[count / 2],
        count => (values[count / 2 - 1] + values[count / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert_eq!(median(std::iter::empty()), 0.0);
    }
}
