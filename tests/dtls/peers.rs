//! Other people's DTLS: a program that holds many peers, and what it says of them.

use std::path::Path;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;

/// Whose DTLS it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Stack {
    OpenSsl,
    GnuTls,
}

impl Stack {
    fn script(self) -> &'static str {
        match self {
            Self::OpenSsl => "openssl.py",
            Self::GnuTls => "gnutls.py",
        }
    }
}

/// What a peer is to do.
#[derive(Serialize)]
pub(crate) struct Task {
    pub(crate) port: u16,
    pub(crate) role: &'static str,
    pub(crate) mtu: u16,
    pub(crate) certificate: std::path::PathBuf,
    pub(crate) key: std::path::PathBuf,
    /// Seconds.
    pub(crate) after: f64,
}

/// How a peer's handshake ended.
#[derive(Deserialize, Debug)]
pub(crate) struct Said {
    peer: usize,
    pub(crate) error: Option<String>,
    /// The SHA-256 of the certificate that it was shown.
    #[serde(default)]
    pub(crate) fingerprint: String,
    #[serde(default)]
    pub(crate) profile: String,
    /// Keying material by RFC 5764 §4.2, the client's key first.
    #[serde(default)]
    pub(crate) exported: String,
}

/// A program that holds many peers; they end with it.
pub(crate) struct Peers {
    _process: Child,
    _input: ChildStdin,
}

impl Peers {
    /// Starts them; each of the receivers hears how one of them ends.
    pub(crate) async fn start(stack: Stack, tasks: &[Task]) -> (Self, Vec<oneshot::Receiver<Said>>) {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
        let mut process = Command::new(tests.join("aiortc/.venv/bin/python"))
            .arg(tests.join("dtls").join(stack.script()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("this test needs what tests/aiortc/requirements.txt names in tests/aiortc/.venv");
        let mut input = process.stdin.take().expect("its input is piped");
        let line = serde_json::to_string(tasks).expect("tasks are JSON") + "\n";
        input.write_all(line.as_bytes()).await.expect("it reads");
        let mut lines = BufReader::new(process.stdout.take().expect("its output is piped")).lines();
        let (tell, told): (Vec<_>, Vec<_>) = tasks.iter().map(|_| oneshot::channel()).unzip();
        let mut tell: Vec<_> = tell.into_iter().map(Some).collect();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                let said: Said = serde_json::from_str(&line).expect("it prints JSON");
                if let Some(tell) = tell[said.peer].take() {
                    // Nobody listens any more where our end has given up.
                    let _ = tell.send(said);
                }
            }
        });
        let peers = Self {
            _process: process,
            _input: input,
        };
        (peers, told)
    }
}
