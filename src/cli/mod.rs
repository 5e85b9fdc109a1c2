//! The command line of `weir`: one module for each subcommand.

mod chaos;
mod ctl;
mod demo;
mod doctor;
mod keyboard;
mod load;
mod measuring;
mod palette;
mod serve;
mod token;
mod top;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// An SFU media server
#[derive(Debug, Parser)]
#[command(name = "weir", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server until a signal ends it
    Serve(Box<serve::ServeArgs>),
    /// Command a running server
    Ctl(Box<ctl::CtlArgs>),
    /// Watch what a running server does, live
    Top(top::TopArgs),
    /// Make access tokens and the keys that they are signed with
    Token(token::TokenArgs),
    /// Relay recorded media through real workers, pause, resume and switch it, and check every packet
    Demo(demo::DemoArgs),
    /// Look for what would keep a server on this machine from working well
    Doctor(Box<doctor::DoctorArgs>),
    /// Measure the relay's speed, compared with the kernel alone
    Load(load::LoadArgs),
    /// Kill workers under load, and measure what their receivers notice
    Chaos(chaos::ChaosArgs),
}

impl Cli {
    /// Runs the subcommand.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Serve(serve) => serve.run(&Self::command()),
            Command::Ctl(ctl) => ctl.run(Self::command()),
            Command::Top(top) => top.run(),
            Command::Token(token) => token.run(),
            Command::Demo(demo) => demo.run(),
            Command::Doctor(doctor) => doctor.run(),
            Command::Load(load) => load.run(),
            Command::Chaos(chaos) => chaos.run(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
