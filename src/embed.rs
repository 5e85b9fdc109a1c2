//! One program for both: how a program that uses this library is its own worker.

use std::env;
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};

use weir_worker::process::{SUBCOMMAND, WORKER_NAME};

/// This program starts with [`run_worker_if_started_as_one`].
static IS_OWN_WORKER: AtomicBool = AtomicBool::new(false);

/// Runs a worker, and ends with it, if a [`Server`](crate::Server) of this program has started this process as one.
/// Otherwise returns at once, and from then on servers start their workers from this very program: nothing else needs to
/// be installed.
///
/// To be called first thing in `main`, before there is a second thread (so not inside `#[tokio::main]`): a worker has only
/// one, and is small because nothing of the program has started in it.
///
/// ```no_run
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     weir::run_worker_if_started_as_one();
///     let runtime = tokio::runtime::Runtime::new()?;
///     runtime.block_on(async {
///         let server = weir::Server::start(weir::Settings::default()).await?;
///         server.close().await;
///         Ok(())
///     })
/// }
/// ```
pub fn run_worker_if_started_as_one() {
    let mut args = env::args_os();
    // A program may have a `worker` command of its own; it is not started under this name.
    let named = args.next().is_some_and(|name| name == WORKER_NAME);
    if named && args.next().is_some_and(|word| word == SUBCOMMAND) {
        let exit = weir_worker::process::main(args);
        process::exit(i32::from(exit.code()));
    }
    IS_OWN_WORKER.store(true, Ordering::Relaxed);
}

pub(crate) fn is_own_worker() -> bool {
    IS_OWN_WORKER.load(Ordering::Relaxed)
}
