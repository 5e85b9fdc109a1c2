//! SIGHUP: settings are read again while the server runs.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod loopback;

use std::fs;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use command::{Manager, Scratch, Serve, soon};
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const FIRST: &str = "a-token-of-the-first-day";
const SECOND: &str = "another-token-since-then";

struct Scene {
    scratch: Scratch,
    manager: Manager,
    file: PathBuf,
    serve: Serve,
}

impl Scene {
    async fn start(text: &str) -> Self {
        let scratch = Scratch::new();
        let manager = Manager::new(&scratch);
        let file = scratch.dir.path().join("weir.toml");
        fs::write(&file, text).unwrap();
        let mut command = scratch.serve();
        command.arg("--config").arg(&file).env("NOTIFY_SOCKET", &manager.name);
        let serve = Serve::start(command, &scratch.socket).await;
        assert_eq!(manager.told().await, "READY=1");
        Self {
            scratch,
            manager,
            file,
            serve,
        }
    }

    /// Returns when the server has read its settings again.
    async fn reload(&self) {
        self.serve.signal(Signal::SIGHUP);
        let told = self.manager.told().await;
        let since = told.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(
            since.is_some_and(|us| us.parse::<u64>().is_ok_and(|us| us > 0)),
            "{told}"
        );
        assert_eq!(self.manager.told().await, "READY=1");
    }

    async fn setting(&self, name: &str) -> serde_json::Value {
        self.serve.ask("settings").await[name].clone()
    }

    async fn end(self) -> String {
        self.serve.signal(Signal::SIGTERM);
        let (status, said) = self.serve.end().await;
        assert!(status.success(), "{status}: {said}");
        drop(self.scratch);
        said
    }
}

#[tokio::test]
async fn what_can_change_does_and_what_cannot_is_said_to_need_a_restart() {
    let scene = Scene::start("log_level = \"info\"\n").await;
    let workers = scene.serve.workers().await;
    fs::write(
        &scene.file,
        "log_level = \"debug\"\nlog_tags = [\"net\"]\ncoalescing_us_max = 300\nspin_us_max = 20\nclients_max = 7\nworkers = 5\n",
    )
    .unwrap();
    scene.reload().await;
    assert_eq!(scene.setting("logLevel").await, "debug");
    assert_eq!(scene.setting("logTags").await[0], "net");
    assert_eq!(scene.setting("coalescingUsMax").await, 300);
    assert_eq!(scene.setting("spinUsMax").await, 20);
    // The command line says two workers, and beats the file, now as at the start.
    assert_eq!(scene.setting("workers").await, 2);
    assert_eq!(scene.serve.workers().await, workers, "nobody was replaced");

    // What a command has changed meanwhile is what the file says again.
    scene.serve.say("log-level trace").await;
    scene.reload().await;
    assert_eq!(scene.setting("logLevel").await, "debug");
    let said = scene.end().await;
    let changed = said
        .lines()
        .find(|line| line.contains("read the settings again"))
        .unwrap();
    for name in ["log_level", "log_tags", "coalescing_us_max", "spin_us_max"] {
        assert!(changed.contains(name), "{changed}");
    }
    assert!(!changed.contains("clients_max"), "{changed}");
    let restart = said.lines().find(|line| line.contains("need a restart")).unwrap();
    assert!(
        restart.contains("clients_max") && !restart.contains("workers"),
        "{restart}"
    );
}

#[tokio::test]
async fn bad_settings_leave_everything_as_it_was() {
    let scene = Scene::start("log_level = \"info\"\nspin_us_max = 10\n").await;
    let before = scene.serve.ask("settings").await;
    for (text, says) in [
        ("log_level = \"debug\"\nspin_us_max = 1001\n", "1001"),
        ("log_level = \"debug\"\nspin_us_mx = 5\n", "spin_us_max"),
        ("log_level = \"loud\"\n", "loud"),
        (
            "log_level = \"debug\"\nhttp_listen = \"127.0.0.1:0\"\n",
            "needs a token",
        ),
        ("\u{0}", "line 1"),
    ] {
        fs::write(&scene.file, text).unwrap();
        scene.reload().await;
        assert_eq!(scene.serve.ask("settings").await, before, "{text}: {says}");
    }
    fs::remove_file(&scene.file).unwrap();
    scene.reload().await;
    assert_eq!(scene.serve.ask("settings").await, before);
    scene.serve.say("room create").await;
    let said = scene.end().await;
    let complaints: Vec<_> = said.lines().filter(|line| line.contains("stay as they were")).collect();
    assert_eq!(complaints.len(), 6, "{said}");
    for says in ["1001", "spin_us_max", "loud", "needs a token", "line 1", "weir.toml"] {
        assert!(
            complaints.iter().any(|line| line.contains(says)),
            "{says}: {complaints:?}"
        );
    }
}

/// The status of an answer, on a connection that stays.
async fn status(stream: &mut TcpStream, token: &str) -> String {
    let request = format!("GET /health HTTP/1.1\r\nhost: weir\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = [0; 4096];
    let length = soon("an answer", stream.read(&mut said)).await.unwrap();
    String::from_utf8_lossy(&said[9..length.min(12)]).into_owned()
}

#[tokio::test]
async fn an_operators_token_is_exchanged_also_for_who_is_connected() {
    let scratch = Scratch::new();
    let manager = Manager::new(&scratch);
    let token = scratch.dir.path().join("token");
    fs::write(&token, FIRST).unwrap();
    let mut command = scratch.serve();
    command
        .args(["--http-listen", "127.0.0.1:0", "--http-token-file"])
        .arg(&token);
    command.env("NOTIFY_SOCKET", &manager.name);
    let mut child = command.spawn().unwrap();
    let mut stdout = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut ready = String::new();
    let reading = tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut ready);
    soon("the server", reading).await.unwrap();
    let address = ready.trim_end().rsplit(" and ").next().unwrap().to_owned();
    assert_eq!(manager.told().await, "READY=1");

    let mut before = TcpStream::connect(&address).await.unwrap();
    assert_eq!(status(&mut before, FIRST).await, "200");
    fs::write(&token, SECOND).unwrap();
    assert_eq!(status(&mut before, FIRST).await, "200", "nobody has said so yet");
    let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGHUP).unwrap();
    assert!(manager.told().await.starts_with("RELOADING=1"));
    assert_eq!(manager.told().await, "READY=1");
    assert_eq!(status(&mut before, FIRST).await, "401");
    let mut after = TcpStream::connect(&address).await.unwrap();
    assert_eq!(status(&mut after, SECOND).await, "200");
    assert_eq!(status(&mut before, SECOND).await, "200");
    child.kill().await.unwrap();
}

/// What is written to a terminal, up to the line that has this in it.
async fn until_line(terminal: &PtyMaster, wanted: &'static str) {
    let mut terminal = fs::File::from(terminal.as_fd().try_clone_to_owned().unwrap());
    let reading = tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        let mut part = [0; 4096];
        while !String::from_utf8_lossy(&said).contains(wanted) {
            let length = terminal.read(&mut part).unwrap();
            said.extend(&part[..length]);
        }
    });
    soon(wanted, reading).await.unwrap();
}

// tty(4), credentials(7): whoever leads a session gets SIGHUP when its terminal is gone, and has no terminal then.
#[tokio::test]
async fn a_server_ends_with_the_terminal_that_it_was_started_from() {
    let scratch = Scratch::new();
    let serve = scratch.serve();
    // No other process gets this end.
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let mut slave = fs::OpenOptions::new();
    slave.read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits());
    let slave = slave.open(ptsname_r(&master).unwrap()).unwrap();
    let mut command = tokio::process::Command::new("setsid");
    command
        .arg("--ctty")
        .arg(serve.as_std().get_program())
        .args(serve.as_std().get_args());
    command.args(["--log-level", "info"]).kill_on_drop(true);
    command
        .stdin(slave.try_clone().unwrap())
        .stdout(slave.try_clone().unwrap())
        .stderr(slave);
    let mut server = command.spawn().unwrap();
    // It has the other ends.
    drop(command);
    until_line(&master, "is ready").await;
    let pid = Pid::from_raw(server.id().unwrap().try_into().unwrap());
    kill(pid, Signal::SIGHUP).unwrap();
    until_line(&master, "read the settings again").await;
    drop(master);
    let status = soon("the server's end", server.wait()).await.unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(scratch.files(), [] as [&str; 0], "no socket and no lock file");
}
