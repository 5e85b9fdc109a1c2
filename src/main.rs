//! The `weir` command.

mod cli;

use std::env;
use std::process::ExitCode;

use clap::Parser;
use weir_worker::process;

fn main() -> ExitCode {
    weir::run_worker_if_started_as_one();
    // With `worker_binary` a supervisor of another program starts this one under any name.
    let mut args = env::args_os().skip(1).peekable();
    if args.next_if(|arg| arg == process::SUBCOMMAND).is_some() {
        return process::main(args).into();
    }
    cli::Cli::parse().run()
}
