//! What a worker does before its event loop: checks its parent, takes the channel, moves to its CPU, confines itself.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::socket::{AddressFamily, SockType, SockaddrLike, SockaddrStorage, getsockname, getsockopt, sockopt};
use nix::unistd::{Pid, close, dup2_stdin, dup2_stdout, getppid};
use weir_channel::message::Sandbox;
use weir_channel::page::Page;

use crate::boundary;
use crate::exit::Exit;
use crate::net::optional::Optional;
use crate::sandbox::{self, Confinement};

use super::arguments::Arguments;

/// How late a timer may be, in nanoseconds. The kernel's default of 50 µs is as long as a small coalescing window.
const TIMER_SLACK_NS: std::ffi::c_ulong = 1_000;

/// How much sooner than its supervisor a worker is ended where memory runs out, in thousandths of the memory there is (proc(5),
/// `oom_score_adj`). A worker that dies costs its rooms, and the supervisor makes them again; without the supervisor there are none.
const OOM_SCORE_ABOVE_SUPERVISOR: i32 = 300;

/// The kernel's own maximum.
const OOM_SCORE_MAX: i32 = 1_000;

/// Why a worker cannot start.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// The parent is not the supervisor any more.
    #[error("the supervisor is gone")]
    ParentGone,
    /// A system call failed.
    #[error("{call}: {errno}")]
    Os { call: &'static str, errno: Errno },
    /// The settings want more of the sandbox than there is.
    #[error(transparent)]
    Unconfined(#[from] sandbox::Incomplete),
}

/// Why descriptor 0 is not the channel.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoChannel {
    /// It is something else.
    #[error("descriptor 0 is not a Unix stream socket; a worker is started by its supervisor")]
    NotASocket,
    /// It cannot be moved away.
    #[error("descriptor 0 cannot be taken: {0}")]
    Io(#[from] io::Error),
}

/// Moves the channel from descriptor 0 to one that nothing mistakes for standard input and no child inherits.
pub(super) fn take_channel() -> Result<OwnedFd, NoChannel> {
    let stdin = io::stdin();
    let is_stream = getsockopt(&stdin, sockopt::SockType) == Ok(SockType::Stream);
    let is_unix = getsockname::<SockaddrStorage>(stdin.as_raw_fd())
        .is_ok_and(|address| address.family() == Some(AddressFamily::Unix));
    if !is_stream || !is_unix {
        return Err(NoChannel::NotASocket);
    }
    let channel = stdin.as_fd().try_clone_to_owned()?;
    dup2_stdin(File::open("/dev/null")?).map_err(io::Error::from)?;
    Ok(channel)
}

/// Moves the page from descriptor 1 to one that nothing mistakes for standard output; `None` if that is no page.
pub(super) fn take_page() -> io::Result<Option<Page>> {
    let Ok(page) = Page::recognize(io::stdout().as_fd().try_clone_to_owned()?) else {
        return Ok(None);
    };
    dup2_stdout(File::options().write(true).open("/dev/null")?)?;
    Ok(Some(page))
}

/// Closes every descriptor but the standard ones and those that are to be kept: whatever the supervisor's program, or the shell that
/// started it, has left open for its children. To be called before the worker opens anything.
pub(super) fn close_inherited(kept: &[BorrowedFd<'_>]) -> io::Result<()> {
    let descriptors = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|descriptor: &RawFd| *descriptor > 2 && kept.iter().all(|kept| kept.as_raw_fd() != *descriptor));
    for descriptor in descriptors.collect::<Vec<_>>() {
        // Fails for the one that read the folder, which is closed already.
        let _ = close(descriptor);
    }
    Ok(())
}

/// Ties the worker to its supervisor, gives up privileges, and makes the process fit for its work.
pub(super) fn set_up_process(arguments: &Arguments) -> Result<(), Refused> {
    let failed = |call| move |errno| Refused::Os { call, errno };
    tie_to_parent(arguments)?;
    // A terminal's Ctrl-C and a service's SIGTERM reach all processes of a group at once. The supervisor closes its rooms
    // in order and then ends its workers; until then they go on.
    let mut ignored = SigSet::empty();
    ignored.extend([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
    ignored.thread_block().map_err(failed("sigprocmask"))?;
    set_up_thread(arguments.cpu).map_err(failed("sched_setaffinity"))?;
    // Two descriptors for each transport.
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    Optional::OpenFiles.or_without(raised);
    Optional::OomScore.or_without(go_before_supervisor());
    Ok(())
}

/// Lets the kernel end this process before the one that has started it, whose value it has inherited. While it may open files.
fn go_before_supervisor() -> Result<(), Errno> {
    const FILE: &str = "/proc/self/oom_score_adj";
    let failed = |error: io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(0));
    let inherited = fs::read_to_string(FILE).map_err(failed)?;
    let inherited: i32 = inherited.trim().parse().map_err(|_| Errno::EINVAL)?;
    let raised = (inherited + OOM_SCORE_ABOVE_SUPERVISOR).min(OOM_SCORE_MAX);
    fs::write(FILE, raised.to_string()).map_err(failed)
}

/// Ends the worker when its supervisor ends.
fn tie_to_parent(arguments: &Arguments) -> Result<(), Refused> {
    // First the signal, then the check: if the supervisor dies before the first, the second sees it.
    // (Without the signal it is the end of the channel that ends the worker.)
    Optional::DeathSignal.or_without(prctl::set_pdeathsig(Signal::SIGKILL));
    if i32::try_from(arguments.parent_pid).map(Pid::from_raw) == Ok(getppid()) {
        Ok(())
    } else {
        Err(Refused::ParentGone)
    }
}

/// Puts the process into its sandbox. To be called when it has everything that it opens itself.
pub(super) fn confine(arguments: &Arguments) -> Result<Sandbox, Refused> {
    let mut confinement = Confinement::default();
    confinement.give_up_privileges(arguments.user);
    tie_to_parent(arguments)?;
    let sandbox = confinement.close();
    sandbox::check(&sandbox, arguments.sandbox)?;
    Ok(sandbox)
}

/// Asks the kernel for what is good for the calling thread and can be done without.
///
/// # Errors
///
/// If there is no such CPU: that is no refusal, but a mistake of whoever has chosen it.
pub(super) fn set_up_thread(cpu: Option<u32>) -> Result<(), Errno> {
    Optional::NoNewPrivileges.or_without(prctl::set_no_new_privs());
    Optional::TimerSlack.or_without(prctl::set_timerslack(TIMER_SLACK_NS));
    if let Some(cpu) = cpu {
        let mut set = CpuSet::new();
        let pinned = set
            .set(cpu as usize)
            .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set));
        if pinned == Err(Errno::EINVAL) {
            return Err(Errno::EINVAL);
        }
        Optional::Affinity.or_without(pinned);
    }
    Ok(())
}

/// Logs that the scheduler grants no short slices.
pub(super) fn report_no_short_slices(error: &io::Error) {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(0));
    Optional::ShortSlices.or_without::<()>(Err(errno));
}

/// Panics contained by a boundary that are all reported. Of further ones, which a peer may cause at will, a few are.
const CONTAINED_REPORTS_MAX: u64 = 16;

/// Makes a panic end the process with [`Exit::Panic`] after it was reported on standard error, which the supervisor reads; unless it is
/// one of a parser's that is [contained](boundary).
pub fn exit_on_panic() {
    static CONTAINED: AtomicU64 = AtomicU64::new(0);
    std::panic::set_hook(Box::new(|panic| {
        let mut stderr = io::stderr();
        if boundary::is_contained() {
            let before = CONTAINED.fetch_add(1, Ordering::Relaxed);
            if before < CONTAINED_REPORTS_MAX || before.is_power_of_two() {
                let _ = writeln!(
                    stderr,
                    "weir-worker: a parser has panicked, and nobody but its peer is harmed: {panic}"
                );
            }
            return;
        }
        let backtrace = Backtrace::capture();
        // Nobody may be listening any more.
        let _ = writeln!(stderr, "weir-worker: {panic}");
        if backtrace.status() == BacktraceStatus::Captured {
            let _ = writeln!(stderr, "{backtrace}");
        }
        process::exit(i32::from(Exit::Panic.code()));
    }));
}
