//! What happens in the play: the producer is paused and resumed, one consumer is paused and resumed, and the preferred profile
//! of another goes from high to low and back.
//!
//! No step is believed to have worked because it was answered: each waits until the receivers see it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::json;
use tokio::time::{sleep, sleep_until, timeout};
use weir::{Producer, Profile};

use super::finding::Finding;
use super::receiver::{Progress, Receiver};
use super::setup::{Setup, Source, name};

/// How long to wait for what must happen. Key frames come every two seconds; five times that is not patience but failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to ask for what cannot be waited on.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// When things happen, in shares of the whole length. Pausing a consumer and stepping another one's profile overlap: neither
/// may disturb the other, and a short demo has time for both.
mod schedule {
    pub(super) const PRODUCER_PAUSE: f64 = 0.20;
    pub(super) const PRODUCER_RESUME: f64 = 0.32;
    pub(super) const CONSUMER_PAUSE: f64 = 0.45;
    pub(super) const CONSUMER_RESUME: f64 = 0.60;
    pub(super) const STEP_DOWN: f64 = 0.50;
    pub(super) const STEP_UP: f64 = 0.75;
    pub(super) const END: f64 = 1.0;
}

/// How the play went.
#[derive(Debug)]
pub(super) struct Outcome {
    /// One for each step, as far as it came.
    pub(super) findings: Vec<Finding>,
    /// Somebody ended it early.
    pub(super) interrupted: bool,
}

impl Outcome {
    /// Nothing can be said about the steps.
    pub(super) fn interrupted() -> Self {
        Self {
            findings: Vec::new(),
            interrupted: true,
        }
    }
}

/// Plays it, from the first packet to the end of `length`.
pub(super) async fn play(setup: &Setup, length: Duration) -> Outcome {
    let script = Script {
        setup,
        start: tokio::time::Instant::now(),
        length,
    };
    let mut findings = vec![Finding::of("everyone-receives", script.everyone_receives().await)];
    findings.push(Finding::of("producer-pause", script.pause_producer().await));
    let (paused, stepped) = tokio::join!(script.pause_consumer(), script.step_profile());
    findings.push(Finding::of("consumer-pause", paused));
    findings.push(Finding::of("profile-steps", stepped));
    script.wait_for(schedule::END).await;
    Outcome {
        findings,
        interrupted: false,
    }
}

struct Script<'a> {
    setup: &'a Setup,
    start: tokio::time::Instant,
    length: Duration,
}

impl Script<'_> {
    async fn wait_for(&self, share: f64) {
        sleep_until(self.start + self.length.mul_f64(share)).await;
    }

    /// Everyone receives, and those who want the highest profile have it.
    async fn everyone_receives(&self) -> Result<String> {
        for receiver in &self.setup.receivers {
            let best = best_track(receiver);
            see(receiver, "its stream", |progress| progress.track == Some(best)).await?;
        }
        Ok(format!(
            "all {} consumers, each the profile it wants",
            self.setup.receivers.len()
        ))
    }

    async fn pause_producer(&self) -> Result<String> {
        let (index, source) = self.setup.source(name::CAMERA).context("there is no camera")?;
        let viewers: Vec<&Arc<Receiver>> = self
            .setup
            .receivers
            .iter()
            .filter(|receiver| receiver.source == index)
            .collect();
        self.wait_for(schedule::PRODUCER_PAUSE).await;

        source.producer.pause(json!({ "by": "demo" })).await?;
        self.setup
            .report(source.name, "is paused: nothing sent from now on may arrive");
        let pause = begin_pause(source, &viewers);
        self.wait_for(schedule::PRODUCER_RESUME).await;
        let withheld = end_pause(source, &viewers, pause).await?;
        let starts: Vec<u64> = viewers.iter().map(|receiver| receiver.progress().starts).collect();
        source.producer.resume(json!({ "by": "demo" })).await?;
        self.setup
            .report(source.name, "is resumed: pictures come from the next key frame on");

        for (receiver, starts) in std::iter::zip(&viewers, starts) {
            see(receiver, "its stream again", |progress| progress.starts > starts).await?;
        }
        if withheld == 0 {
            bail!("nothing was sent during the pause, so it shows nothing");
        }
        let viewers = viewers.len();
        Ok(format!(
            "{} paused: {withheld} packets withheld from each of {viewers} consumers, who all started again",
            source.name
        ))
    }

    async fn pause_consumer(&self) -> Result<String> {
        let receiver = self.setup.receiver(name::BEN).context("there is no ben")?;
        let source = &self.setup.sources[receiver.source];
        self.wait_for(schedule::CONSUMER_PAUSE).await;

        receiver.consumer.pause(json!({ "by": "demo" })).await?;
        self.setup
            .report(receiver.name, "is paused: nothing sent from now on may arrive");
        let pause = begin_pause(source, &[receiver]);
        self.wait_for(schedule::CONSUMER_RESUME).await;
        let withheld = end_pause(source, &[receiver], pause).await?;
        let starts = receiver.progress().starts;
        receiver.consumer.resume(json!({ "by": "demo" })).await?;
        self.setup
            .report(receiver.name, "is resumed: pictures come from the next key frame on");

        see(receiver, "its stream again", |progress| progress.starts > starts).await?;
        if withheld == 0 {
            bail!("nothing was sent during the pause, so it shows nothing");
        }
        Ok(format!(
            "{} paused: {withheld} packets of {} withheld, then it started again",
            receiver.name, source.name
        ))
    }

    async fn step_profile(&self) -> Result<String> {
        let receiver = self.setup.receiver(name::CLEO).context("there is no cleo")?;
        let mut sizes = vec![size(receiver)?];
        for (share, profile) in [(schedule::STEP_DOWN, Profile::Low), (schedule::STEP_UP, Profile::High)] {
            self.wait_for(share).await;
            let track = track_of(receiver, profile)?;
            let switches = receiver.progress().switches;
            receiver.consumer.set_preferred_profile(profile).await?;
            self.setup.report(
                receiver.name,
                format!("prefers {profile} now: it goes over with the next key frame"),
            );
            see(receiver, "the other profile", |progress| {
                progress.switches == switches + 1 && progress.track == Some(track)
            })
            .await?;
            sizes.push(size(receiver)?);
            // The event is on its way; the packet was faster.
            eventually(
                &format!("{} effective profile to be {profile}", receiver.name),
                || async { Ok(receiver.consumer.effective_profile() == Some(profile)) },
            )
            .await?;
        }
        let distinct = sizes.windows(2).all(|pair| pair[0] != pair[1]);
        if !distinct || sizes.first() != sizes.last() {
            bail!("the picture's size went {}", sizes.join(" → "));
        }
        Ok(format!(
            "{}: {}, each switch on a key frame",
            receiver.name,
            sizes.join(" → ")
        ))
    }
}

/// The mark at which a pause was confirmed.
#[derive(Clone, Copy)]
struct PauseMark(u64);

/// Tells the judges that nothing sent from now on may arrive. While all of them wait for it, so that a packet that was
/// sent later cannot have been taken before.
fn begin_pause(source: &Source, receivers: &[&Arc<Receiver>]) -> PauseMark {
    let mut checks: Vec<_> = receivers.iter().map(|receiver| receiver.check()).collect();
    let mark = source.sent.mark();
    for check in &mut checks {
        check.pause(mark);
    }
    PauseMark(mark)
}

/// Tells the judges up to where nothing may arrive: what the worker has received while still paused. Says how many packets
/// that are.
async fn end_pause(source: &Source, receivers: &[&Arc<Receiver>], from: PauseMark) -> Result<u64> {
    let to = source.sent.mark();
    received(&source.producer, to).await?;
    for receiver in receivers {
        receiver.check().resume(to);
    }
    Ok(to.saturating_sub(from.0))
}

/// Waits until the worker has received this many packets of a producer.
pub(super) async fn received(producer: &Producer, packets: u64) -> Result<()> {
    let what = format!("the worker to receive {packets} packets of {}", producer.id());
    eventually(&what, || async {
        let stats = producer.stats().await?;
        Ok(stats.streams.iter().map(|stream| stream.packets).sum::<u64>() >= packets)
    })
    .await
}

/// Asks until the answer is yes.
pub(super) async fn eventually<F: Future<Output = Result<bool>>>(what: &str, ask: impl Fn() -> F) -> Result<()> {
    let asking = async {
        while !ask().await? {
            sleep(ASK_AGAIN).await;
        }
        Ok(())
    };
    timeout(PATIENCE, asking)
        .await
        .with_context(|| format!("waited {} s for {what}", PATIENCE.as_secs()))?
}

/// Waits until a receiver sees something.
async fn see(receiver: &Receiver, what: impl fmt::Display, seen: impl Fn(&Progress) -> bool) -> Result<()> {
    let mut progress = receiver.watch();
    timeout(PATIENCE, progress.wait_for(|progress| seen(progress)))
        .await
        .with_context(|| format!("{} waited {} s for {what}", receiver.name, PATIENCE.as_secs()))?
        .context("the receiver is gone")?;
    Ok(())
}

fn size(receiver: &Receiver) -> Result<String> {
    let resolution = receiver.progress().resolution;
    let resolution = resolution.with_context(|| format!("{} has seen no key frame", receiver.name))?;
    Ok(resolution.to_string())
}

fn track_of(receiver: &Receiver, profile: Profile) -> Result<usize> {
    receiver
        .profiles
        .iter()
        .position(|own| *own == profile)
        .with_context(|| format!("{} has no profile {profile}", receiver.name))
}

/// The track a consumer is due: the highest that its preference allows.
fn best_track(receiver: &Receiver) -> usize {
    let preferred = receiver.consumer.preferred_profile();
    let allowed = |profile: &Profile| preferred == Profile::Default || *profile <= preferred;
    receiver.profiles.iter().rposition(allowed).unwrap_or(0)
}
