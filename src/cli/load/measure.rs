//! The order of measurements, and the arithmetic.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;
use weir::WorkerStats;
use weir_channel::message::DropReason;

use super::LoadArgs;
use super::driver::{DriveSlice, Order};
use super::raw::{self, RawSlice};
use super::report::{Control, Encryption, Loss, Progress, Report, ResidenceUs};
use super::testbed::Testbed;

/// A trial of a rate. Long enough that a backlog of a few percent shows.
const TRIAL: Duration = Duration::from_millis(700);
/// A slice of the alternating measurement: short, because the machine's speed drifts.
const SLICE: Duration = Duration::from_millis(250);
/// More loss than this is too much for a rate to count as carried.
const LOSS_MAX: f64 = 0.001;
/// Between two rates of the search.
const STEP: f64 = 1.08;
/// Where the costs are compared: close to the maximum, with room for the machine's moods.
const SLICE_SHARE: f64 = 0.8;
/// Where residence times and commands are measured.
const HALF: f64 = 0.5;
const RESIDENCE_TIME: Duration = Duration::from_secs(2);
const CONTROL_TIME: Duration = Duration::from_secs(2);

/// One slice of relaying: what was sent and received, and what it cost the worker.
#[derive(Clone, Debug)]
struct RelaySlice {
    drive: DriveSlice,
    packets: u64,
    cpu_ns: u64,
    calls: u64,
    kernel_drops: u64,
}

impl RelaySlice {
    fn ns_per_packet(&self) -> f64 {
        self.cpu_ns as f64 / self.packets.max(1) as f64
    }
}

/// Runs all measurements.
pub(super) async fn run(args: &LoadArgs, testbed: &mut Testbed) -> anyhow::Result<Report> {
    let base: f64 = testbed
        .sources()
        .iter()
        .map(|source| source.trains_per_second * source.burst as f64)
        .sum();
    // The first trains are key frames: all consumers start here.
    relay(testbed, 1.0, SLICE).await?;

    let (scale, max) = match args.rate {
        Some(rate) => (rate / base, None),
        None => {
            let max = find_max(testbed).await?;
            (max.scale * SLICE_SHARE, Some(max))
        }
    };

    let pairs = ((args.seconds / (2.0 * SLICE.as_secs_f64())).ceil() as usize).max(2);
    let progress = Progress::new("slices", pairs as u64);
    let mut slices: Vec<(RelaySlice, RawSlice)> = Vec::new();
    for pair in 0..pairs {
        // Relay first, then the baseline, and the other way round, so that a drift favours neither.
        let slice = if pair % 2 == 0 {
            let relayed = relay(testbed, scale, SLICE).await?;
            (relayed, raw(testbed, scale, SLICE)?)
        } else {
            let raw = raw(testbed, scale, SLICE)?;
            (relay(testbed, scale, SLICE).await?, raw)
        };
        slices.push(slice);
        progress.advance();
    }
    drop(progress);

    let half = max.as_ref().map_or(scale, |max| max.scale * HALF);
    let residence_us = residence(testbed, half).await?;
    let control = if args.control {
        Some(control(testbed, half).await?)
    } else {
        None
    };
    let relayed = || slices.iter().map(|(relay, _)| relay);
    let ratios = slices
        .iter()
        .map(|(relay, raw)| relay.ns_per_packet() / raw.ns_per_packet());
    let ratios: Vec<f64> = ratios.collect();
    let reasons = worker_drops(testbed).await?;
    let drive = |of: fn(&DriveSlice) -> u64| relayed().map(|slice| of(&slice.drive)).sum::<u64>();
    let (expected, received) = (drive(|slice| slice.expected), drive(|slice| slice.received));
    let elapsed_ns = drive(|slice| slice.elapsed_ns);
    let packets: u64 = relayed().map(|slice| slice.packets).sum();
    let calls: u64 = relayed().map(|slice| slice.calls).sum();
    let srtp = args.srtp.map(|protection| Encryption {
        profile: protection,
        handshakes: testbed.handshakes.count,
        worker_us_per_handshake: testbed.handshakes.worker_us(),
        verified_packets: drive(|slice| slice.looked_at) - drive(|slice| slice.wrong),
        wrong_packets: drive(|slice| slice.wrong),
    });
    let at_slices = received as f64 * 1e9 / elapsed_ns.max(1) as f64;

    Ok(Report {
        forwarded_pps: max.as_ref().map_or(at_slices, |max| max.forwarded_pps),
        measured_at_pps: at_slices,
        lost_packets: expected.saturating_sub(received),
        loss: Loss {
            not_sent: drive(|slice| slice.unsent),
            at_worker_socket: relayed().map(|slice| slice.kernel_drops).sum(),
            in_worker: reasons,
            at_receivers: drive(|slice| slice.dropped_at_receivers),
        },
        worker_ns_per_packet: median(relayed().map(RelaySlice::ns_per_packet)),
        raw_ns_per_packet: median(slices.iter().map(|(_, raw)| raw.ns_per_packet())),
        ratio_min: ratios.iter().copied().fold(f64::MAX, f64::min),
        ratio_max: ratios.iter().copied().fold(0.0, f64::max),
        ratio: median(ratios.into_iter()),
        syscalls_per_packet: calls as f64 / packets.max(1) as f64,
        raw_errors: slices.iter().map(|(_, raw)| raw.errors).sum(),
        residence_us,
        residence_at_pps: half * out_rate(testbed),
        consumers: args
            .room
            .map_or(u64::from(args.consumers), |peers| u64::from(2 * peers * (peers - 1))),
        producers: args
            .room
            .map_or(u64::from(args.producers), |peers| u64::from(2 * peers)),
        room: args.room,
        burst: args.burst,
        nack: args.nack,
        payload_bytes: args.payload,
        window_us: args.window,
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
        .map(|source| source.trains_per_second * (source.burst * source.fan_out) as f64)
        .sum()
}

async fn relay(testbed: &Testbed, scale: f64, duration: Duration) -> anyhow::Result<RelaySlice> {
    let driver = testbed.driver()?;
    driver.slice(Order::KeepConsent)?;
    let before = testbed.worker_stats().await?;
    let drive = driver.slice(Order::Drive { scale, duration })?;
    let after = testbed.worker_stats().await?;
    let calls = |stats: &WorkerStats| stats.receive_calls + stats.send_calls + stats.wait_calls;
    Ok(RelaySlice {
        drive,
        packets: after.packets_sent - before.packets_sent,
        cpu_ns: after.cpu_ns - before.cpu_ns,
        calls: calls(&after) - calls(&before),
        kernel_drops: after.kernel_drops - before.kernel_drops,
    })
}

fn raw(testbed: &Testbed, scale: f64, duration: Duration) -> anyhow::Result<RawSlice> {
    let driver = testbed.driver()?;
    driver.begin(Order::Drain { duration })?;
    let slice = testbed.raw()?.slice(raw::Order { scale, duration });
    driver.finish()?;
    slice
}

/// The highest rate that is carried.
struct Max {
    scale: f64,
    forwarded_pps: f64,
}

/// Begins where the baseline says the limit is, and goes up or down in steps until the answer changes.
async fn find_max(testbed: &Testbed) -> anyhow::Result<Max> {
    let progress = Progress::new("trials", 0);
    let estimate = raw(testbed, 1.0, SLICE)?;
    let mut scale = 1e9 / estimate.ns_per_packet().max(100.0) / out_rate(testbed);
    let mut best: Option<Max> = None;
    let mut failed_above = false;
    for _ in 0..40 {
        progress.advance();
        let slice = relay(testbed, scale, TRIAL).await?;
        let forwarded_pps = slice.drive.received_in_time as f64 * 1e9 / slice.drive.elapsed_ns.max(1) as f64;
        let carried = slice.drive.loss_in_time() <= LOSS_MAX && slice.drive.unsent == 0;
        progress.say(&format!(
            "{:.0} packets/s asked, {forwarded_pps:.0} forwarded, loss {:.2} %{}",
            scale * out_rate(testbed),
            slice.drive.loss_in_time() * 100.0,
            if carried { "" } else { ": too much" },
        ));
        if carried {
            best = Some(Max { scale, forwarded_pps });
            if failed_above {
                break;
            }
            scale *= STEP;
        } else {
            if best.is_some() {
                break;
            }
            failed_above = true;
            scale /= STEP;
        }
    }
    best.context("no rate was carried without loss; is something else running on this machine?")
}

async fn residence(testbed: &Testbed, scale: f64) -> anyhow::Result<ResidenceUs> {
    testbed.measure_residence(true).await?;
    relay(testbed, scale, RESIDENCE_TIME).await?;
    let histogram = testbed.worker_stats().await?.residence;
    testbed.measure_residence(false).await?;
    let quantile = |quantile: f64| {
        histogram
            .as_ref()
            .and_then(|histogram| histogram.quantile(quantile))
            .map_or(0.0, |ns| ns as f64 / 1_000.0)
    };
    Ok(ResidenceUs {
        p50: quantile(0.5),
        p99: quantile(0.99),
        p999: quantile(0.999),
    })
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
    let stats = testbed.room().stats().await.context("asking for the room's counters")?;
    let mut drops: Vec<(DropReason, u64)> = Vec::new();
    for (reason, count) in stats.consumers.iter().flat_map(|consumer| &consumer.dropped) {
        match drops.iter_mut().find(|(known, _)| known == reason) {
            Some((_, total)) => *total += count,
            None => drops.push((*reason, *count)),
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
