//! `weir top`: what a running server does, live on a terminal, once elsewhere.

mod frame;
mod screen;
mod snapshot;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::ctl::client::{Client, Failure};
use super::ctl::output::Output;
use super::keyboard::{Keyboard, is_interactive};
use super::palette::Palette;

use frame::{Frame, rooms_that_fit};
use screen::Screen;
use snapshot::Snapshot;

/// Rooms in what is printed once: a terminal's worth, and some more for those who read it from a pipe.
const ROOMS_ONCE: usize = 100;

/// Between two looks that are shown once. Workers are asked no more often than that.
const INTERVAL_MIN: Duration = Duration::from_millis(100);

/// Arguments of `weir top`.
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    /// The server's control socket [default: $XDG_RUNTIME_DIR/weir.sock, for root /run/weir.sock, else
    /// /tmp/weir-<uid>.sock]
    #[arg(long, value_name = "PATH", env = "WEIR_CONTROL")]
    control: Option<PathBuf>,

    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// The time between two looks, at least 100ms
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_interval)]
    interval: Duration,

    /// Print one picture as text, and end; this is the default without a terminal
    #[arg(long)]
    once: bool,

    /// Print the counters of one look as JSON, and end
    #[arg(long)]
    json: bool,
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(interval) if interval >= INTERVAL_MIN => Ok(interval),
        Ok(_) => Err("it must be 100ms or more".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

impl TopArgs {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        let output = Output::new(self.json);
        let outcome = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.show(&output)),
            Err(error) => Err(Failure::Output(error)),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads the output has seen enough, as `head` does.
            Err(Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(failure) => {
                output.fail(&failure);
                failure.exit_code()
            }
        }
    }

    async fn show(self, output: &Output) -> Result<(), Failure> {
        let mut client = Client::new(self.control, self.timeout);
        if self.json {
            return output.json(&Snapshot::take(&mut client, ROOMS_ONCE).await?);
        }
        if self.once || !is_interactive() {
            return once(&mut client, self.interval).await;
        }
        // Before the screen is drawn on, so that nothing ends this without its being restored.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let keyboard = Keyboard::listen()?;
        let mut screen = Screen::enter()?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            _ = hangup.recv() => Ok(()),
            () = keyboard.enough() => Ok(()),
            outcome = follow(&mut client, &mut screen, self.interval) => outcome,
        }
    }
}

/// Rates need two looks.
async fn once(client: &mut Client, interval: Duration) -> Result<(), Failure> {
    let before = Snapshot::take(client, ROOMS_ONCE).await?;
    sleep(interval).await;
    let now = Snapshot::take(client, ROOMS_ONCE).await?;
    let mut text = Vec::new();
    Frame::new(&now, Some(&before)).write_to(&mut text, Palette::of_stdout())?;
    let mut out = io::stdout().lock();
    out.write_all(&text)?;
    Ok(out.flush()?)
}

/// Looks again and again, one request after the other, until this is dropped or the terminal is gone.
async fn follow(client: &mut Client, screen: &mut Screen, interval: Duration) -> Result<(), Failure> {
    let mut before: Option<Snapshot> = None;
    loop {
        let workers = before.as_ref().map_or(0, Snapshot::workers);
        match Snapshot::take(client, rooms_that_fit(screen.rows(), workers)).await {
            Ok(now) => {
                let mut text = Vec::new();
                Frame::new(&now, before.as_ref()).write_to(&mut text, Palette::of_stdout())?;
                screen.draw(&text)?;
                before = Some(now);
            }
            // It may come back, and is another one then: its counters begin anew.
            Err(failure) => {
                before = None;
                screen.draw(&frame::absence(&failure))?;
            }
        }
        sleep(interval).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_asked_without_end() {
        assert_eq!(parse_interval("100ms"), Ok(INTERVAL_MIN));
        assert!(parse_interval("99ms").is_err());
        assert!(parse_interval("soon").is_err());
    }
}
