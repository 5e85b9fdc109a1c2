//! The worker process: start-up, the event loop, the end.
//!
//! `weir worker` and `weir-worker` both call [`main`]. What a worker gets from its supervisor is its command line
//! ([`Arguments`]), the channel as descriptor 0, its page as descriptor 1 (if it has one), and later the sockets of transports
//! over the channel. It opens no other file and no socket, and cannot: it runs in a [sandbox](crate::sandbox).

mod adoption;
pub mod arguments;
mod batch_limit;
mod channel;
pub mod coalesce;
mod commands;
mod ended;
pub mod event_loop;
mod ground;
mod probe;
mod receive;
mod rehearsal;
mod shared_ports;
mod sieve;
pub mod spin;
mod startup;
mod waiting;
mod webrtc;

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::AsFd;

use weir_channel::message::SandboxMode;

use crate::exit::Exit;
use crate::log;
use crate::net::{optional, scheduling};

pub use arguments::Arguments;
pub use ended::Ended;
pub use event_loop::{EventLoop, Start};
pub use probe::{Refusal, probe, probe_tcp};
pub use startup::exit_on_panic;

/// The version that a worker gives in its Hello.
pub const BUILD: &str = env!("CARGO_PKG_VERSION");

/// The subcommand of `weir` that is a worker. `weir-worker` takes it too, so that a supervisor need not know which of the
/// two its worker program is.
pub const SUBCOMMAND: &str = "worker";

/// The name that a worker is started under, whatever the file of its program is called.
pub const WORKER_NAME: &str = "weir-worker";

/// Runs a worker until it ends. To be called from a program's `main`, before it has started any thread, with the command
/// line without the program's name.
///
/// The supervisor must start workers from a thread that lives as long as itself: a worker is killed when the thread that
/// has started it ends (`prctl(2)`, PR_SET_PDEATHSIG).
pub fn main<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Exit {
    let arguments = match Arguments::parse(args) {
        Ok(arguments) => arguments,
        Err(error) => return report_exit(Exit::BadArguments, &error),
    };
    exit_on_panic();
    optional::leave_warnings_to_supervisor();
    let channel = match startup::take_channel() {
        Ok(channel) => channel,
        Err(error) => return report_exit(Exit::NoChannel, &error),
    };
    let page = match startup::take_page() {
        Ok(page) => page,
        Err(error) => return report_exit(Exit::Setup, &format_args!("descriptor 1: {error}")),
    };
    let kept: Vec<_> = [Some(channel.as_fd()), page.as_ref().map(AsFd::as_fd)]
        .into_iter()
        .flatten()
        .collect();
    if let Err(error) = startup::close_inherited(&kept) {
        return report_exit(Exit::Setup, &format_args!("/proc/self/fd: {error}"));
    }
    match startup::set_up_process(&arguments) {
        Ok(()) => {}
        Err(startup::Refused::ParentGone) => return Exit::ParentGone,
        Err(refused) => return report_exit(Exit::Setup, &refused),
    }
    let (subscriber, queue, filter) = log::subscriber();
    if let Err(error) = tracing::subscriber::set_global_default(subscriber) {
        return report_exit(Exit::Setup, &error);
    }
    match scheduling::prefer_latency() {
        Ok(granted) => tracing::debug!(nice = ?granted.nice, "scheduled in short slices"),
        Err(error) => startup::report_no_short_slices(&error),
    }
    let start = Start {
        channel,
        id: arguments.id,
        dtls: arguments.dtls(),
        log: queue,
        log_filter: filter,
    };
    let mut event_loop = match EventLoop::new(start) {
        Ok(event_loop) => event_loop,
        Err(error) => return report_exit(Exit::Setup, &error),
    };
    event_loop.obey(arguments.switches);
    if let Some(Err(errno)) = page.map(|page| event_loop.set_page(&page)) {
        return report_exit(Exit::Setup, &format_args!("mmap: {errno}"));
    }
    if arguments.sandbox != SandboxMode::Off {
        event_loop.prepare_webrtc();
        match startup::confine(&arguments) {
            Ok(sandbox) => event_loop.set_sandbox(sandbox),
            Err(startup::Refused::ParentGone) => return Exit::ParentGone,
            Err(refused) => return report_exit(Exit::Setup, &refused),
        }
    }
    let ended = event_loop.run();
    match ended.exit {
        Exit::Success | Exit::ChannelLost => ended.exit,
        exit => report_exit(exit, &ended.reason),
    }
}

/// Says on standard error, which the supervisor reads, why the worker ends.
fn report_exit(exit: Exit, reason: &dyn std::fmt::Display) -> Exit {
    // Nobody may be listening any more.
    let _ = writeln!(io::stderr(), "weir-worker: {exit}: {reason}");
    exit
}
