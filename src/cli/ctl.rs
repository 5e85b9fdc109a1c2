//! `weir ctl`: the operator's command, one request to the control socket at a time.

pub(super) mod client;
mod consumer;
mod events;
mod input;
mod object;
pub(super) mod output;
mod peer;
mod producer;
mod room;
mod rtc_stats;
mod server;
pub(super) mod table;
mod transport;
pub(super) mod units;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use clap_complete::Shell;
use tokio::runtime::Builder;

use client::{Client, Failure};
use output::Output;

/// Arguments of `weir ctl`.
#[derive(Debug, Args)]
pub(crate) struct CtlArgs {
    /// The server's control socket [default: $XDG_RUNTIME_DIR/weir.sock, for root /run/weir.sock, else
    /// /tmp/weir-<uid>.sock]
    #[arg(
        long,
        global = true,
        help_heading = "Common options",
        value_name = "PATH",
        env = "WEIR_CONTROL"
    )]
    control: Option<PathBuf>,

    /// Print JSON: the server's answer; for a list one array, for events one object per line
    #[arg(long, global = true, help_heading = "Common options")]
    json: bool,

    /// How long to wait for an answer
    #[arg(long, global = true, help_heading = "Common options", value_name = "TIME", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the rooms
    Rooms(room::List),
    /// Create, show, measure and close rooms
    #[command(subcommand)]
    Room(room::Command),
    /// List the peers of a room
    Peers(peer::List),
    /// Create, show and close peers
    #[command(subcommand)]
    Peer(peer::Command),
    /// List the transports
    Transports(transport::List),
    /// Create, show, connect, measure and close transports
    #[command(subcommand)]
    Transport(transport::Command),
    /// List the producers
    Producers(producer::List),
    /// Create, show, pause, resume, measure and close producers
    #[command(subcommand)]
    Producer(producer::Command),
    /// List the consumers
    Consumers(consumer::List),
    /// Create, show, pause, resume, measure and close consumers
    #[command(subcommand)]
    Consumer(consumer::Command),
    /// List the workers
    Workers,
    /// Show and measure workers
    #[command(subcommand)]
    Worker(server::WorkerCommand),
    /// Show whether the server is healthy; the exit code is 1 if it is not
    Health,
    /// Show the counters of all workers
    Stats,
    /// Print everything that is known about workers and rooms, as JSON
    Dump,
    /// Show what has happened
    Events(events::Events),
    /// Show the server's settings, or change those that can change while it runs
    Settings(server::Settings),
    /// Show or change what the server logs
    LogLevel(server::LogLevel),
    /// Print the completion script of a shell
    Completion {
        /// The shell
        shell: Shell,
    },
}

impl CtlArgs {
    /// Runs the command. `weir` is the whole program's command line, for the completion scripts.
    pub(crate) fn run(self, weir: clap::Command) -> ExitCode {
        let mut output = Output::new(self.json);
        let mut client = Client::new(self.control, self.timeout);
        let outcome = match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime.block_on(self.command.run(&mut client, &mut output, weir)),
            Err(error) => Err(Failure::Output(error)),
        };
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            // Whoever reads the output has seen enough, as `head` does.
            Err(Failure::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            Err(failure) => {
                output.fail(&failure);
                failure.exit_code()
            }
        }
    }
}

impl Command {
    async fn run(self, client: &mut Client, output: &mut Output, weir: clap::Command) -> Result<(), Failure> {
        match self {
            Self::Rooms(list) => list.run(client, output).await,
            Self::Room(command) => command.run(client, output).await,
            Self::Peers(list) => list.run(client, output).await,
            Self::Peer(command) => command.run(client, output).await,
            Self::Transports(list) => list.run(client, output).await,
            Self::Transport(command) => command.run(client, output).await,
            Self::Producers(list) => list.run(client, output).await,
            Self::Producer(command) => command.run(client, output).await,
            Self::Consumers(list) => list.run(client, output).await,
            Self::Consumer(command) => command.run(client, output).await,
            Self::Workers => server::workers(client, output).await,
            Self::Worker(command) => command.run(client, output).await,
            Self::Health => server::health(client, output).await,
            Self::Stats => server::stats(client, output).await,
            Self::Dump => output.json(&client.get::<serde_json::Value>("/dump").await?),
            Self::Events(events) => events.run(client, output).await,
            Self::Settings(settings) => settings.run(client, output).await,
            Self::LogLevel(log_level) => log_level.run(client, output).await,
            Self::Completion { shell } => completion(shell, weir, output),
        }
    }
}

fn completion(shell: Shell, mut weir: clap::Command, output: &mut Output) -> Result<(), Failure> {
    let name = weir.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut weir, name, &mut script);
    output.raw(&script)
}

/// The profiles there are.
fn parse_profile() -> impl TypedValueParser<Value = String> {
    PossibleValuesParser::new(["default", "low", "medium", "high"])
}
