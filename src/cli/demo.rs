//! `weir demo`: recorded media through a real server, judged as it arrives.
//!
//! [`cast`] starts the server and everything that takes part; a [`sender`] for each producer replays recordings at their
//! true pace; a [`receiver`] for each consumer judges what comes; the [`script`] pauses, resumes and switches; [`view`]
//! shows it; the [`verdict`] adds it all up. Whoever takes part tells a [`story`].

mod cast;
mod receiver;
mod recordings;
mod script;
mod sender;
mod story;
mod verdict;
mod view;

use std::num::NonZeroU32;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use cast::Cast;
use story::{Moment, Teller};
use verdict::Verdict;
use view::View;

/// What a shell reports for a command that SIGINT ended.
const EXIT_INTERRUPTED: u8 = 130;

/// Relays recorded media through real worker processes, pauses, resumes and switches it, and judges every packet that
/// arrives. Ends with a verdict, and with failure if the verdict is bad.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Print JSON: one object per line for everything that happens; the last one is the verdict
    #[arg(long)]
    json: bool,

    /// About how many seconds it runs
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(8..=86_400))]
    seconds: u64,

    /// How many worker processes to run [default: one per CPU]
    #[arg(long, value_name = "N")]
    workers: Option<NonZeroU32>,
}

impl DemoArgs {
    /// Runs it. Succeeds if the verdict is good.
    pub(super) fn run(self) -> ExitCode {
        match self.play() {
            Ok(code) => code,
            Err(error) => {
                view::complain(&error);
                ExitCode::FAILURE
            }
        }
    }

    #[tokio::main]
    async fn play(self) -> Result<ExitCode> {
        let (teller, moments) = Teller::new();
        let mut cast = Cast::assemble(self.workers, teller).await?;
        let played = perform(&mut cast, self.json, Duration::from_secs(self.seconds), moments).await;
        // Whatever happened, the workers end before we do.
        cast.close().await;
        let verdict = played?;
        Ok(match (verdict.interrupted, verdict.passed()) {
            (_, false) => ExitCode::FAILURE,
            (true, true) => ExitCode::from(EXIT_INTERRUPTED),
            (false, true) => ExitCode::SUCCESS,
        })
    }
}

/// Plays, counts up, and shows both.
async fn perform(
    cast: &mut Cast,
    json: bool,
    length: Duration,
    mut moments: mpsc::Receiver<Moment>,
) -> Result<Verdict> {
    let mut view = View::new(json, cast, length)?;
    let outcome = show(cast, &mut view, &mut moments, length).await?;
    let senders = cast.stop_senders().await;
    let elapsed = cast.elapsed();
    let verdict = Verdict::reach(cast, senders, outcome).await;
    while let Ok(moment) = moments.try_recv() {
        view.tell(&moment)?;
    }
    view.finish(elapsed, &verdict)?;
    Ok(verdict)
}

/// Plays the script and shows what happens, until it is over or somebody has had enough.
async fn show(
    cast: &mut Cast,
    view: &mut View,
    moments: &mut mpsc::Receiver<Moment>,
    length: Duration,
) -> Result<script::Outcome> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut events = cast.server().events();
    let mut tick = tokio::time::interval(view.interval());
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);

    cast.start_senders();
    let cast = &*cast;
    view.open(cast)?;
    let script = script::play(cast, length);
    tokio::pin!(script);
    loop {
        tokio::select! {
            outcome = &mut script => {
                return Ok(outcome);
            }
            Some(moment) = moments.recv() => view.tell(&moment)?,
            Some(event) = events.next() => view.tell(&cast.on_event(&event))?,
            _ = tick.tick() => view.refresh(cast)?,
            () = view.stopped() => return Ok(script::Outcome::interrupted()),
            _ = interrupt.recv() => return Ok(script::Outcome::interrupted()),
            _ = terminate.recv() => return Ok(script::Outcome::interrupted()),
        }
    }
}
