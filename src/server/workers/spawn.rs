//! Making a worker process.
//!
//! A worker asks the kernel to be killed when its parent dies (PR_SET_PDEATHSIG); what the kernel watches for that is the
//! *thread* that forked, not the process. So all workers of a server are forked by one thread that lives as long as the
//! server: a tokio thread may end at any time.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use std::{env, thread};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use weir_channel::id::WorkerId;
use weir_channel::message::SandboxMode;
use weir_channel::page::Page;
use weir_channel::text::visible;
use weir_worker::process::{Arguments, SUBCOMMAND, WORKER_NAME};

use crate::server::model::error::StartError;
use crate::server::model::lock;
use crate::server::model::settings::Settings;
use crate::server::workers::allowance::{Allowance, LINE_COST, LOG, STDERR_THROWN_AWAY, Verdict};
use crate::server::workers::body::Body;
#[cfg(test)]
use crate::server::workers::simulated;
use crate::server::workers::{worker_log, worker_user};

/// A longer line of a worker's standard error is cut.
const LINE_MAX: usize = 4_096;

/// After this many bytes a line is taken for ended, so that one without an end is counted too.
const LINE_READ_MAX: usize = 64 << 10;

/// Of a worker that writes too much, a line is read this often and thrown away: it does not block at once, and costs
/// nothing.
const FLOOD_PAUSE: Duration = Duration::from_millis(1);

/// So many of the last lines are kept, to say of what a worker died.
const LAST_LINES_MAX: usize = 20;

/// What of the environment a worker gets. It needs none of it; these serve those who look for a fault.
const ENVIRONMENT: [&str; 3] = ["RUST_BACKTRACE", "RUST_LIB_BACKTRACE", "LLVM_PROFILE_FILE"];

/// Lets the C library ask for huge pages for its heap, if it is glibc 2.35 or later: a worker of 150 MB is gone 3 ms sooner when it dies, and its
/// successor has what it needs some 10 ms sooner. Where huge pages are switched off, nothing changes.
const HUGE_PAGES: &str = "glibc.malloc.hugetlb=1";

/// How glibc is told.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Makes worker processes, on a thread of its own.
#[derive(Debug)]
pub(crate) struct Spawner {
    orders: mpsc::Sender<Order>,
}

#[derive(Debug)]
struct Order {
    worker: WorkerId,
    cpu: Option<usize>,
    reserve: u64,
    channel: OwnedFd,
    /// `None` when there is no memory for one: then the worker's death costs more.
    page: Option<OwnedFd>,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// A worker process that has just been made.
#[derive(Debug)]
pub(crate) struct Process {
    /// Killed when dropped.
    pub(crate) child: Body,
    /// This end of its channel.
    pub(crate) channel: OwnedFd,
    /// What its successor reads, if it has one.
    pub(crate) page: Option<Page>,
    pub(crate) last_lines: LastLines,
    /// It has written more to its standard error than is borne.
    pub(crate) flooded: Arc<Notify>,
    /// The task that listens to its standard error, until that is closed.
    pub(crate) listener: JoinHandle<()>,
}

impl Spawner {
    /// Finds the worker program and starts the thread.
    pub(crate) fn new(settings: &Settings) -> Result<Self, StartError> {
        let program = find_program(settings)?;
        let no_runtime = |_| StartError::io("starting a server outside of a tokio runtime")(io::ErrorKind::NotFound);
        let runtime = Handle::try_current().map_err(no_runtime)?;
        if settings.sandbox == SandboxMode::Off {
            tracing::info!("sandbox: off"); // what workers say otherwise
        }
        let (orders, queue) = mpsc::channel();
        let common = Arguments {
            id: WorkerId(0), // each has its own, and its CPU
            cpu: None,
            reserve: 0, // each its own
            parent_pid: std::process::id(),
            sandbox: settings.sandbox,
            user: worker_user::find(settings)?,
            switches: settings.switches(),
        };
        thread::Builder::new()
            .name("weir-spawn".to_owned())
            .spawn(move || take_orders(&program, common, &runtime, &queue))
            .map_err(StartError::io("starting the thread that starts workers"))?;
        Ok(Self { orders })
    }

    /// Makes a process, with one end of a new channel as its standard input, and a new page as its standard output. It takes
    /// `reserve` bytes of memory at once.
    pub(crate) async fn spawn(&self, worker: WorkerId, cpu: Option<usize>, reserve: u64) -> io::Result<Process> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, SockFlag::SOCK_CLOEXEC)?;
        let (reply, made) = oneshot::channel();
        let page = Page::create()
            .inspect_err(
                |errno| tracing::warn!(worker = worker.0, %errno, "a worker gets no page; its death will cost more"),
            )
            .ok();
        #[cfg(test)]
        if let Some(simulated) = simulated::spawn(worker, &theirs, &ours, page.as_ref()) {
            return Ok(Process {
                child: Body::Simulated(simulated),
                channel: ours,
                page,
                last_lines: LastLines::default(),
                flooded: Arc::default(),
                listener: tokio::spawn(async {}),
            });
        }
        let order = Order {
            worker,
            cpu,
            reserve,
            channel: theirs,
            page: page.as_ref().map(Page::try_clone).transpose()?,
            reply,
        };
        let gone = || io::Error::other("the thread that starts workers is gone");
        self.orders.send(order).map_err(|_| gone())?;
        let mut child = made.await.map_err(|_| gone())??;
        let (last_lines, flooded) = (LastLines::default(), Arc::new(Notify::new()));
        let listening = listen(worker, child.stderr.take(), last_lines.clone(), Arc::clone(&flooded));
        let listener = tokio::spawn(listening);
        Ok(Process {
            child: Body::Process(child),
            channel: ours,
            page,
            last_lines,
            flooded,
            listener,
        })
    }
}

/// The thread. It ends with the server, when nobody can order any more.
fn take_orders(program: &Path, common: Arguments, runtime: &Handle, queue: &mpsc::Receiver<Order>) {
    // tokio's children are waited for by the runtime.
    let _context = runtime.enter();
    while let Ok(order) = queue.recv() {
        let child = command(program, common, &order)
            .stdin(Stdio::from(order.channel))
            .stdout(order.page.map_or_else(Stdio::null, Stdio::from))
            .spawn();
        // An error says that the server has closed in the meantime. Then the child is dropped, and so killed.
        let _ = order.reply.send(child);
    }
}

fn command(program: &Path, common: Arguments, order: &Order) -> Command {
    let arguments = Arguments {
        id: order.worker,
        // The kernel counts CPUs in 32 bits.
        cpu: order.cpu.and_then(|cpu| u32::try_from(cpu).ok()),
        reserve: order.reserve,
        ..common
    };
    let mut command = Command::new(program);
    command
        .arg0(WORKER_NAME)
        .arg(SUBCOMMAND)
        .args(arguments.to_args())
        .env_clear()
        .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, env::var_os(name)?))))
        .env(TUNABLES, tunables(order.reserve))
        .stderr(Stdio::piped())
        // Ctrl-C in a terminal goes to the whole foreground group, but closing in order is the supervisor's business.
        .process_group(0)
        .kill_on_drop(true);
    command
}

/// How its C library manages the memory of a worker that reserves so many bytes: those it keeps.
fn tunables(reserve: u64) -> String {
    match reserve {
        0 => HUGE_PAGES.to_owned(),
        bytes => format!("{HUGE_PAGES}:glibc.malloc.trim_threshold={}", bytes.saturating_mul(2)),
    }
}

/// The last lines a worker wrote to its standard error.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    pub(crate) fn lines(&self) -> Vec<String> {
        lock(&self.0).iter().cloned().collect()
    }

    fn push(&self, line: String) {
        let mut lines = lock(&self.0);
        if lines.len() == LAST_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Repeats what a worker writes to its standard error, until it closes it. Says so if it is too much.
async fn listen(worker: WorkerId, stderr: Option<ChildStderr>, last_lines: LastLines, flooded: Arc<Notify>) {
    let Some(stderr) = stderr else {
        return;
    };
    let mut reader = BufReader::new(stderr);
    let mut allowance = Allowance::new(LOG, Some(STDERR_THROWN_AWAY));
    while let Ok(Some(line)) = next_line(&mut reader).await {
        let now = Instant::now();
        match allowance.judge(now, LINE_COST + line.len() as u64, || LOG) {
            Verdict::Hear => {
                worker_log::repeat_stderr(worker, &line);
                last_lines.push(line);
            }
            verdict => {
                if verdict == Verdict::Enough {
                    flooded.notify_one();
                }
                sleep(FLOOD_PAUSE).await;
            }
        }
        if let Some(count) = allowance.report(now) {
            worker_log::report_stderr_dropped(worker, count);
        }
    }
}

/// The next line, without its end, and cut after [`LINE_MAX`] bytes; `None` at the end.
async fn next_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut read = 0;
    loop {
        let bytes = reader.fill_buf().await?;
        if bytes.is_empty() {
            break;
        }
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        let kept = part.len().min(LINE_MAX - line.len());
        line.extend_from_slice(&part[..kept]);
        let consumed = end.map_or(bytes.len(), |end| end + 1);
        reader.consume(consumed);
        read += consumed;
        if end.is_some() || read >= LINE_READ_MAX {
            break;
        }
    }
    Ok((read > 0).then(|| visible(&String::from_utf8_lossy(&line)).into_owned()))
}

/// The program that workers run.
fn find_program(settings: &Settings) -> Result<PathBuf, StartError> {
    if let Some(path) = &settings.worker_binary {
        // Made absolute now: the working directory may change before the next worker is started.
        let found = path.canonicalize().ok().filter(|path| is_program(path));
        return found.ok_or_else(|| StartError::NoWorkerBinary(format!("{} cannot be run", path.display())));
    }
    let own = env::current_exe().map_err(StartError::io("finding this program's own file"))?;
    if crate::embed::is_own_worker() {
        // Not the path: when the file is replaced by a newer version, workers stay of the version of their supervisor.
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    // Cargo puts examples and tests one folder below the programs.
    let folders = own.ancestors().skip(1).take(2);
    folders
        .map(|folder| folder.join("weir-worker"))
        .find(|path| is_program(path))
        .ok_or_else(|| {
            StartError::NoWorkerBinary(format!(
                "this program is not its own (weir::run_worker_if_started_as_one was not called), and there is no weir-worker beside {}",
                own.display()
            ))
        })
}

fn is_program(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_cut_at_their_bound_and_the_last_needs_no_end() {
        let long = "x".repeat(3 * LINE_MAX);
        let text = format!("first\n\n{long}\nlast");
        // A small buffer, so that lines come in several pieces.
        let mut reader = BufReader::with_capacity(7, text.as_bytes());
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut reader).await.unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, ["first", "", &long[..LINE_MAX], "last"]);
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let last_lines = LastLines::default();
        for number in 0..100 {
            last_lines.push(number.to_string());
        }
        let lines = last_lines.lines();
        assert_eq!((lines.len(), lines[0].as_str()), (LAST_LINES_MAX, "80"));
    }

    #[test]
    fn a_program_that_cannot_be_run_is_refused_by_name() {
        let settings = Settings {
            worker_binary: Some(PathBuf::from("/nowhere/weir-worker")),
            ..Settings::default()
        };
        let error = find_program(&settings).unwrap_err().to_string();
        assert!(error.contains("/nowhere/weir-worker cannot be run"), "{error}");
        assert!(error.contains("--worker-binary"), "{error}");
    }
}
