//! Running other people's programs in tests: starting them, waiting for them, ending them, and what they print.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{sleep, timeout};

/// How long anything may take before the test fails: what waits for a program waits for its next
/// line. Nothing is measured by it.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often to look again at what cannot be waited on.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// A running program. It is killed when this is dropped.
pub(crate) struct Program {
    name: String,
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Program {
    /// Starts a program with arguments that are separated by white space.
    #[track_caller]
    pub(crate) fn start(name: &str, directory: &Path, arguments: &str) -> Self {
        let child = Command::new(name)
            .args(arguments.split_whitespace())
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => panic!("this test needs {name}, but it cannot be started: {error}"),
        };
        let out = BufReader::new(child.stdout.take().expect("its standard output is piped"));
        Self {
            name: name.to_owned(),
            child,
            out,
        }
    }

    /// The next line it prints, without its end; `None` when it has closed its output.
    pub(crate) async fn next_line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.out.read_line(&mut line)).await;
        let read = read.unwrap_or_else(|_| panic!("{} prints nothing more, and does not end", self.name));
        let len = read.expect("what it prints is text");
        (len > 0).then(|| line.trim_end().to_owned())
    }

    /// Waits for its end, which must be a success, and returns the lines it printed.
    pub(crate) async fn output(mut self) -> Vec<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.next_line().await {
            lines.push(line);
        }
        let ended = timeout(PATIENCE, self.child.wait()).await;
        let ended = ended.unwrap_or_else(|_| panic!("{} does not end", self.name));
        let status = ended.expect("it can be waited for");
        assert!(
            status.success(),
            "{} ended with {status}; it printed:\n{}",
            self.name,
            lines.join("\n")
        );
        lines
    }
}

/// Waits until somebody receives on a UDP port.
pub(crate) async fn bound(port: u16) {
    // "sl local_address ...": the address and port in hexadecimal. IPv6 sockets take IPv4 packets too.
    let wanted = format!(":{port:04X}");
    let is_bound = || {
        ["/proc/net/udp", "/proc/net/udp6"].iter().any(|table| {
            let table = std::fs::read_to_string(table).unwrap_or_default();
            table
                .lines()
                .filter_map(|line| line.split_whitespace().nth(1))
                .any(|local| local.ends_with(&wanted))
        })
    };
    let waiting = async {
        while !is_bound() {
            sleep(LOOK_AGAIN).await;
        }
    };
    assert!(
        timeout(PATIENCE, waiting).await.is_ok(),
        "nobody receives on port {port}"
    );
}

/// Fails, and says where, unless two lists of checksums are the same.
#[track_caller]
pub(crate) fn assert_same(what: &str, received: &[String], sent: &[String]) {
    let first_difference = std::iter::zip(received, sent).position(|(received, sent)| received != sent);
    assert_eq!(first_difference, None, "{what}: the first frame that differs");
    assert_eq!(received.len(), sent.len(), "{what}: frames received, frames sent");
}
