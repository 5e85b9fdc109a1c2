//! The worker alone, for those who ship it apart. Its supervisor starts it.

use std::env;
use std::process::ExitCode;

use weir_worker::process;

fn main() -> ExitCode {
    let mut args = env::args_os().skip(1).peekable();
    args.next_if(|arg| arg == process::SUBCOMMAND);
    process::main(args).into()
}
