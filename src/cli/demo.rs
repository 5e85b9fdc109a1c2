//! `weir demo`: recorded media through a real server, judged as it arrives.
//!
//! [`setup`] starts the server and everything that takes part; a [`sender`] for each producer replays recordings at their
//! true pace; a [`receiver`] for each consumer judges what comes; the [`script`] pauses, resumes and switches; [`view`]
//! shows it; the [`verdict`] adds it all up. All of them report what happens to the [`reporter`].

mod finding;
mod receiver;
mod recordings;
mod reporter;
mod script;
mod sender;
mod setup;
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

use reporter::{DemoEvent, Reporter};
use setup::Setup;
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
        let (reporter, events) = Reporter::new();
        let mut setup = Setup::assemble(self.workers, reporter).await?;
        let played = perform(&mut setup, self.json, Duration::from_secs(self.seconds), events).await;
        // Whatever happened, the workers end before we do.
        setup.close().await;
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
    setup: &mut Setup,
    json: bool,
    length: Duration,
    mut events: mpsc::Receiver<DemoEvent>,
) -> Result<Verdict> {
    let mut view = View::new(json, setup, length)?;
    let outcome = show(setup, &mut view, &mut events, length).await?;
    let senders = setup.stop_senders().await;
    let elapsed = setup.elapsed();
    let verdict = Verdict::reach(setup, senders, outcome).await;
    while let Ok(event) = events.try_recv() {
        view.show(&event, elapsed)?;
    }
    view.finish(elapsed, &verdict)?;
    Ok(verdict)
}

/// Plays the script and shows what happens, until it is over or somebody has had enough.
async fn show(
    setup: &mut Setup,
    view: &mut View,
    events: &mut mpsc::Receiver<DemoEvent>,
    length: Duration,
) -> Result<script::Outcome> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut server_events = setup.server().events();
    let mut tick = tokio::time::interval(view.interval());
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);

    setup.start_senders();
    let setup = &*setup;
    view.open(setup)?;
    let script = script::play(setup, length);
    tokio::pin!(script);
    loop {
        tokio::select! {
            outcome = &mut script => {
                return Ok(outcome);
            }
            Some(event) = events.recv() => view.show(&event, setup.elapsed())?,
            Some(event) = server_events.next() => view.show(&setup.on_event(&event), setup.elapsed())?,
            _ = tick.tick() => view.refresh(setup)?,
            () = view.stopped() => return Ok(script::Outcome::interrupted()),
            _ = interrupt.recv() => return Ok(script::Outcome::interrupted()),
            _ = terminate.recv() => return Ok(script::Outcome::interrupted()),
        }
    }
}
