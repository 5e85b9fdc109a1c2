//! The `weir` command.

mod cli;

use std::env;
use std::process::ExitCode;

use clap::Parser;
use weir_worker::process;

fn main() -> ExitCode {
    // A worker must not have a second thread, so it starts before anything else; and it has its own command line.
    let mut args = env::args_os().skip(1).peekable();
    if args.next_if(|arg| arg == process::SUBCOMMAND).is_some() {
        return process::main(args).into();
    }
    cli::Cli::parse().run()
}
