//! The command line of `weir`: one module for each subcommand.

mod load;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An SFU media server
#[derive(Debug, Parser)]
#[command(name = "weir", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure the relay beside the bare kernel
    Load(load::LoadArgs),
}

impl Cli {
    /// Runs the subcommand.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Load(load) => load.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
