//! The verdict: what the receivers judged, what the script saw, and whether every packet is in exactly one place.

use anyhow::{Context, Result, bail};
use serde::Serialize;
use weir::{ConsumerStats, DropReason, WorkerState};
use weir_recordings::check::Check;

use super::finding::Finding;
use super::receiver::Receiver;
use super::script::{self, Outcome};
use super::setup::{Setup, Source};

/// What the demo came to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Verdict {
    pub(super) interrupted: bool,
    pub(super) checks: Vec<Finding>,
}

impl Verdict {
    /// Counts everything up. The senders have stopped.
    pub(super) async fn reach(setup: &Setup, senders: Result<()>, outcome: Outcome) -> Self {
        let mut checks = outcome.findings;
        checks.push(Finding::of(
            "received-by-workers",
            received_by_workers(setup, senders).await,
        ));
        let stats = consumer_stats(setup).await;
        checks.push(Finding::of("every-packet-accounted", accounted(setup, &stats)));
        checks.push(Finding::of(
            "forwarded-is-received",
            forwarded_is_received(setup, &stats).await,
        ));
        checks.extend(
            Check::ALL
                .into_iter()
                .map(|check| judged(setup, check, outcome.interrupted)),
        );
        checks.push(Finding::of("others-undisturbed", others_undisturbed(setup)));
        checks.push(Finding::of("workers-alive", workers_alive(setup)));
        Self {
            interrupted: outcome.interrupted,
            checks,
        }
    }

    /// Whether everything holds.
    pub(super) fn passed(&self) -> bool {
        self.checks.iter().all(|finding| finding.passed)
    }
}

/// Adds up what all receivers found of one promise. That nothing came at all is fine only if there was no time for it.
fn judged(setup: &Setup, check: Check, interrupted: bool) -> Finding {
    let (mut faults, mut count, mut packets) = (Vec::new(), 0, 0);
    for receiver in &setup.receivers {
        let judge = receiver.check();
        packets += judge.packets();
        let found = judge.faults(check);
        count += found.count();
        faults.extend(
            found
                .examples()
                .iter()
                .map(|example| format!("{}: {example}", receiver.name)),
        );
    }
    let passed = count == 0 && (packets > 0 || interrupted);
    Finding {
        name: check.name(),
        passed,
        detail: match (count, packets) {
            (0, 0) => "no packet came at all".to_owned(),
            (0, _) => check.sentence().to_owned(),
            (1, _) => format!("broken once: {}", check.sentence()),
            _ => format!("broken {count} times: {}", check.sentence()),
        },
        faults,
    }
}

/// Sent by the senders = received by the workers, stream by stream, with nothing lost, repeated or unrouted on the way.
async fn received_by_workers(setup: &Setup, senders: Result<()>) -> Result<String> {
    senders.context("a sender gave up")?;
    let mut total = 0;
    for source in &setup.sources {
        let sent = source.sent.packets();
        let arrived = script::received(&source.producer, sent).await;
        let stats = source.producer.stats().await?;
        let count: u64 = stats.streams.iter().map(|stream| stream.packets).sum();
        arrived.with_context(|| format!("{}: sent {sent}, received {count}", source.name))?;
        let lost: u64 = stats.streams.iter().map(|stream| stream.packets_lost).sum();
        let odd: u64 = stats
            .streams
            .iter()
            .map(|stream| stream.packets_discarded + stream.packets_duplicated)
            .sum();
        if (count, lost, odd) != (sent, 0, 0) || source.sent.failures() > 0 {
            let refused = source.sent.failures();
            bail!(
                "{}: sent {sent}, refused by the kernel {refused}, received {count}, lost {lost}, odd {odd}",
                source.name
            );
        }
        check_transport(source).await?;
        total += sent;
    }
    Ok(format!("{total} packets of {} producers", setup.sources.len()))
}

async fn check_transport(source: &Source) -> Result<()> {
    let transport = source.producer.transport().stats().await?;
    let unrouted: u64 = transport.unrouted.iter().map(|(_, count)| count).sum();
    if unrouted > 0 || transport.kernel_drops > 0 {
        bail!(
            "{}: unrouted {:?}, kernel drops {}",
            source.name,
            transport.unrouted,
            transport.kernel_drops
        );
    }
    Ok(())
}

async fn consumer_stats(setup: &Setup) -> Result<Vec<ConsumerStats>> {
    let stats = setup.receivers.iter().map(|receiver| receiver.consumer.stats());
    Ok(futures::future::try_join_all(stats).await?)
}

/// For every consumer: what its producer sent = what it was sent + what it was not, each under a reason.
fn accounted(setup: &Setup, stats: &Result<Vec<ConsumerStats>>) -> Result<String> {
    let stats = known(stats)?;
    let (mut received, mut forwarded, mut reasons) = (0, 0, [0; DropReason::ALL.len()]);
    for (receiver, stats) in std::iter::zip(&setup.receivers, stats) {
        let sent = receiver.sent.packets();
        let dropped: u64 = stats.dropped.iter().map(|(_, count)| count).sum();
        if stats.packets_in != sent || stats.packets_forwarded + dropped != sent {
            bail!(
                "{}: sent {sent}, in {}, forwarded {}, dropped {:?}",
                receiver.name,
                stats.packets_in,
                stats.packets_forwarded,
                stats.dropped
            );
        }
        received += stats.packets_in;
        forwarded += stats.packets_forwarded;
        for &(reason, count) in &stats.dropped {
            reasons[reason as usize] += count;
        }
    }
    let mut detail = format!("{received} in = {forwarded} forwarded");
    for (reason, count) in std::iter::zip(DropReason::ALL, reasons).filter(|(_, count)| *count > 0) {
        detail.push_str(&format!(" + {count} {}", in_words(reason)));
    }
    Ok(detail)
}

/// For every consumer: what the worker gave to the kernel = what the receiver took.
async fn forwarded_is_received(setup: &Setup, stats: &Result<Vec<ConsumerStats>>) -> Result<String> {
    let mut total = 0;
    for (receiver, stats) in std::iter::zip(&setup.receivers, known(stats)?) {
        let forwarded = stats.packets_forwarded;
        let what = format!("{} to receive {forwarded} packets", receiver.name);
        let all = script::eventually(&what, || async { Ok(receiver.check().packets() >= forwarded) }).await;
        let received = receiver.check().packets();
        all.with_context(|| format!("{}: forwarded {forwarded}, received {received}", receiver.name))?;
        if received != forwarded {
            bail!("{}: forwarded {forwarded}, received {received}", receiver.name);
        }
        total += received;
    }
    Ok(format!("{total} packets by {} consumers", setup.receivers.len()))
}

fn known(stats: &Result<Vec<ConsumerStats>>) -> Result<&Vec<ConsumerStats>> {
    stats.as_ref().map_err(|error| anyhow::anyhow!("no counters: {error}"))
}

/// A stream starts once, and once more after each of its own pauses; it switches only if somebody asked for it.
fn others_undisturbed(setup: &Setup) -> Result<String> {
    let mut untouched = 0;
    for receiver in &setup.receivers {
        let pauses = receiver.check().pauses().len() as u64;
        let starts = receiver.progress().starts;
        // A pause that the end of the demo cut short has no start behind it.
        if starts > pauses + 1 {
            bail!("{}: {starts} starts with {pauses} pauses", receiver.name);
        }
        untouched += usize::from(pauses == 0);
    }
    let foyer: Vec<&str> = setup
        .receivers
        .iter()
        .filter(|receiver| in_foyer(setup, receiver))
        .map(|receiver| receiver.name)
        .collect();
    if let Some(disturbed) = setup
        .receivers
        .iter()
        .find(|receiver| in_foyer(setup, receiver) && receiver.progress().starts != 1)
    {
        bail!("{}: {} starts", disturbed.name, disturbed.progress().starts);
    }
    Ok(format!(
        "{untouched} consumers that nobody paused, {} of them in the other room, never stopped",
        foyer.len()
    ))
}

fn in_foyer(setup: &Setup, receiver: &Receiver) -> bool {
    setup.sources[receiver.source].room != setup.sources[0].room
}

fn workers_alive(setup: &Setup) -> Result<String> {
    let workers = setup.server().workers();
    let deaths = setup.worker_deaths();
    if let Some(worker) = workers
        .iter()
        .find(|worker| worker.state != WorkerState::Running || worker.restarts > 0)
    {
        bail!(
            "{} is {:?}, replaced {} times: {:?}",
            worker.id,
            worker.state,
            worker.restarts,
            worker.last_exit
        );
    }
    if deaths > 0 {
        bail!("{deaths} deaths");
    }
    Ok(match workers.len() {
        1 => "the worker process did not die".to_owned(),
        count => format!("none of {count} worker processes died"),
    })
}

/// A reason as part of a sentence.
fn in_words(reason: DropReason) -> &'static str {
    match reason {
        DropReason::ConsumerPaused => "consumer paused",
        DropReason::ProducerPaused => "producer paused",
        DropReason::OtherProfile => "of another profile",
        DropReason::AwaitingKeyFrame => "before a key frame",
        DropReason::BeforeSwitch => "before a switch",
        DropReason::Duplicate => "repeated",
        DropReason::BadSequence => "out of sequence",
        DropReason::UnsupportedPayloadType => "of another payload type",
        DropReason::NoRemote => "without a remote",
        DropReason::BacklogFull => "for a full backlog",
        DropReason::SendFailed => "refused by the kernel",
        DropReason::Padding => "nothing but padding",
    }
}
