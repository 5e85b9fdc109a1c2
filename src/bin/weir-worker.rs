//! The worker alone, for those who ship it apart. Its supervisor starts it.

use std::process::ExitCode;

fn main() -> ExitCode {
    weir_worker::process::main(std::env::args_os().skip(1)).into()
}
