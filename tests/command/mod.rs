//! The real `weir`: servers started with it, and commands given to them.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::ffi::{OsStr, OsString};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdUnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixDatagram;
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

#[allow(unused_imports, reason = "each test file uses its own part")]
pub(crate) use crate::loopback::{PATIENCE, soon};

/// `weir` with these arguments, in an environment that has no settings.
pub(crate) fn weir<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command
        .args(args)
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

/// A scratch directory with a place for a socket.
pub(crate) struct Scratch {
    pub(crate) dir: TempDir,
    pub(crate) socket: PathBuf,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("weir.sock");
        Self { dir, socket }
    }

    /// The names of what is in it.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    /// `weir serve` on the socket, with media on loopback.
    pub(crate) fn serve(&self) -> Command {
        // A busy machine is not what is tested.
        self.serve_watching("60s")
    }

    /// The same, with workers that have so much time to answer.
    pub(crate) fn serve_watching(&self, ping_timeout: &str) -> Command {
        let mut command = weir([
            "serve",
            "--workers",
            "2",
            "--rtc-ipv4",
            "127.0.0.1",
            "--rtc-ipv6",
            "off",
        ]);
        command
            .args(["--start-timeout", "60s", "--ping-timeout", ping_timeout, "--control"])
            .arg(&self.socket);
        command
    }

    /// A running server.
    pub(crate) async fn start(&self) -> Serve {
        Serve::start(self.serve(), &self.socket).await
    }

    /// The outcome of `weir ctl` with these arguments, separated by blanks.
    pub(crate) async fn ctl(&self, args: &str) -> Outcome {
        ctl(&self.socket, args).await
    }
}

/// A service manager that wants to know how a server is.
pub(crate) struct Manager {
    /// What `NOTIFY_SOCKET` says.
    pub(crate) name: OsString,
    socket: UnixDatagram,
}

impl Manager {
    /// Its socket is a file.
    pub(crate) fn new(scratch: &Scratch) -> Self {
        let path = scratch.dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        Self {
            name: path.into(),
            socket,
        }
    }

    /// Its socket has a name that is in no file system (unix(7), abstract sockets).
    pub(crate) fn without_file(scratch: &Scratch) -> Self {
        let name = scratch.dir.path().join("notify").to_str().unwrap().to_owned();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = StdUnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self {
            name: format!("@{name}").into(),
            socket: UnixDatagram::from_std(socket).unwrap(),
        }
    }

    /// What it is told next.
    pub(crate) async fn told(&self) -> String {
        let mut told = [0; 64];
        let length = soon("word of the server", self.socket.recv(&mut told)).await.unwrap();
        String::from_utf8(told[..length].to_vec()).unwrap()
    }

    /// Forgets what it was told so far.
    pub(crate) fn drain(&self) {
        while self.socket.try_recv(&mut [0; 64]).is_ok() {}
    }

    /// Whether it is told anything in so much time.
    pub(crate) async fn hears_within(&self, time: Duration) -> bool {
        tokio::time::timeout(time, self.socket.readable()).await.is_ok()
    }
}

/// The same command, after the shell has said this.
pub(crate) fn in_shell(before: &str, command: &Command) -> Command {
    let command = command.as_std();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("{before}; exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args())
        .env_clear()
        .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    shell
}

/// A running `weir serve`.
pub(crate) struct Serve {
    pub(crate) child: Child,
    pub(crate) socket: PathBuf,
    stderr: ChildStderr,
}

impl Serve {
    /// Starts it and returns when it says that it is ready.
    pub(crate) async fn start(mut command: Command, socket: &Path) -> Self {
        // Workers that lose their server become children of this process, which can then wait for their end.
        set_child_subreaper(true).unwrap();
        Self::follow_start(command.spawn().unwrap(), socket).await
    }

    /// Returns when a server that was just started says that it is ready.
    pub(crate) async fn follow_start(child: Child, socket: &Path) -> Self {
        let started = Self::try_follow_start(child, socket).await;
        started.unwrap_or_else(|said| panic!("the server did not start: {said}"))
    }

    /// The same; or what it said instead of being ready.
    pub(crate) async fn try_follow_start(mut child: Child, socket: &Path) -> Result<Self, String> {
        let mut stderr = child.stderr.take().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let Some(line) = soon("the server", stdout.next_line()).await.unwrap() else {
            let mut said = String::new();
            stderr.read_to_string(&mut said).await.unwrap();
            return Err(said);
        };
        assert!(line.contains("is ready: 2 workers"), "{line}");
        assert!(line.ends_with(socket.to_str().unwrap()), "{line}");
        Ok(Self {
            child,
            socket: socket.to_owned(),
            stderr,
        })
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().unwrap().try_into().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Stops it, and returns when it does not run any more. SIGCONT has it go on.
    pub(crate) fn stall(&self) {
        self.signal(Signal::SIGSTOP);
        let status = waitid(Id::Pid(self.pid()), WaitPidFlag::WSTOPPED | WaitPidFlag::WNOWAIT).unwrap();
        assert!(matches!(status, WaitStatus::Stopped(..)), "{status:?}");
    }

    /// How it ended, and what it said on standard error.
    pub(crate) async fn end(mut self) -> (ExitStatus, String) {
        let status = soon("the server's end", self.child.wait()).await.unwrap();
        let mut said = String::new();
        soon("the end of its log", self.stderr.read_to_string(&mut said))
            .await
            .unwrap();
        (status, said)
    }

    /// Ends it as an operator does.
    pub(crate) async fn stop(self) {
        self.signal(Signal::SIGTERM);
        let (status, said) = self.end().await;
        assert!(status.success(), "{status}: {said}");
    }

    /// The outcome of `weir ctl` with these arguments.
    pub(crate) async fn ctl(&self, args: &str) -> Outcome {
        ctl(&self.socket, args).await
    }

    /// What `weir ctl` with these arguments, which must succeed, prints.
    pub(crate) async fn say(&self, args: &str) -> String {
        self.ctl(args).await.succeeded(args)
    }

    /// What `weir ctl --json` with these arguments, which must succeed, prints.
    pub(crate) async fn ask(&self, args: &str) -> Value {
        serde_json::from_str(&self.say(&format!("--json {args}")).await).unwrap()
    }

    /// The process ids of its workers.
    pub(crate) async fn workers(&self) -> Vec<Pid> {
        let workers = self.ask("workers").await;
        let pids = workers
            .as_array()
            .unwrap()
            .iter()
            .map(|worker| worker["pid"].as_i64().unwrap());
        pids.map(|pid| Pid::from_raw(pid.try_into().unwrap())).collect()
    }

    /// The processes that wait to take a worker's place, when there is one for each.
    pub(crate) async fn spares(&self, workers: &[Pid]) -> Vec<Pid> {
        let own = self.pid().to_string();
        let is_child = |pid: &Pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            // The parent is the second field after the name, which is in parentheses.
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            after_name.split_whitespace().nth(1) == Some(own.as_str())
        };
        soon("the spare processes", async {
            loop {
                let processes = std::fs::read_dir("/proc").unwrap();
                let numbers = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
                let others = numbers.map(Pid::from_raw).filter(|pid| !workers.contains(pid));
                let spares: Vec<Pid> = others.filter(is_child).collect();
                if spares.len() == workers.len() {
                    return spares;
                }
                tokio::task::yield_now().await;
            }
        })
        .await
    }

    /// `weir ctl events --follow` with these arguments, when it hears whatever happens from now on.
    pub(crate) async fn follow(&self, args: &str) -> Follower {
        let mut command = weir(["ctl", "events", "--follow", "--control"]);
        let mut child = command.arg(&self.socket).args(args.split_whitespace()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = soon("the stream", stderr.next_line()).await.unwrap().unwrap();
        assert!(line.starts_with("following the events of "), "{line}");
        Follower {
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }
}

/// A running `weir ctl events --follow`.
pub(crate) struct Follower {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Follower {
    /// The next event, without its time.
    pub(crate) async fn next(&mut self) -> Option<String> {
        let line = soon("an event", self.lines.next_line()).await.unwrap()?;
        let (_, event) = line.split_once("  ").unwrap();
        Some(event.to_owned())
    }

    pub(crate) async fn end(mut self) -> ExitStatus {
        soon("the follower's end", self.child.wait()).await.unwrap()
    }
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    /// What it printed, if it succeeded.
    #[track_caller]
    pub(crate) fn succeeded(self, args: &str) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (0, ""), "{args}: {}", self.stdout);
        self.stdout
    }

    /// Checks that it failed with this exit code and said this.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, says: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.stderr.contains(says), "{says:?} is not in {:?}", self.stderr);
    }
}

/// The outcome of a command with nothing to read.
pub(crate) async fn outcome(command: Command) -> Outcome {
    outcome_of(command, b"").await
}

/// The outcome of a command that reads this.
pub(crate) async fn outcome_of(mut command: Command, input: &[u8]) -> Outcome {
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It need not read all of it.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    let output = soon("the command's end", child.wait_with_output()).await.unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

async fn ctl(socket: &Path, args: &str) -> Outcome {
    let mut command = weir(["ctl", "--control"]);
    command.arg(socket).args(args.split_whitespace());
    outcome(command).await
}

/// Returns when an orphaned worker has ended. This process has become its parent ([`Serve::start`]).
pub(crate) async fn ended(worker: Pid) {
    let (tell, told) = tokio::sync::oneshot::channel();
    // A thread rather than a task: should it wait for ever, it does not keep the test from failing.
    std::thread::spawn(move || tell.send(waitpid(worker, None)));
    let status = soon("the worker's end", told).await.unwrap();
    assert!(matches!(status, Ok(_) | Err(Errno::ECHILD)), "{status:?}");
    assert_eq!(kill(worker, None), Err(Errno::ESRCH), "it is gone");
}
