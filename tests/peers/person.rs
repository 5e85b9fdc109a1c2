//! A program with another stack, which speaks JSON in lines.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::control::soon;

/// Frames or packets that a peer must have got before it is believed to receive.
const RECEIVED: u64 = 30;

pub(crate) struct Person {
    process: Child,
    input: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Person {
    /// Starts a program with a script of this folder.
    pub(crate) fn start<S: AsRef<OsStr>>(program: &Path, script: &str, args: impl IntoIterator<Item = S>) -> Self {
        let mut process = Command::new(program)
            .arg(tests().join("peers").join(script))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("this test needs {}: {error}", program.display()));
        let input = process.stdin.take().expect("its input is piped");
        let said = BufReader::new(process.stdout.take().expect("its output is piped")).lines();
        Self { process, input, said }
    }

    pub(crate) async fn hear(&mut self, message: &Value) {
        let line = format!("{message}\n");
        self.input.write_all(line.as_bytes()).await.expect("it reads");
    }

    /// What it says next that has this member.
    pub(crate) async fn says(&mut self, member: &str) -> Value {
        soon(member, async {
            loop {
                let line = self.said.next_line().await.expect("it prints text");
                let line = line.expect("it says more before it ends");
                let said: Value = serde_json::from_str(&line).expect("it prints JSON");
                if said.get(member).is_some() {
                    return said;
                }
            }
        })
        .await
    }

    /// Waits until it has received enough. Returns its report of that.
    pub(crate) async fn receives(&mut self) -> Value {
        soon("what it is sent", async {
            loop {
                let report = self.says("received").await;
                if report["received"].as_u64() >= Some(RECEIVED) {
                    return report;
                }
            }
        })
        .await
    }

    /// Its input ends, so it does.
    pub(crate) async fn leave(mut self) {
        drop(self.input);
        let last_words = async { while self.said.next_line().await.is_ok_and(|line| line.is_some()) {} };
        soon("its last words", last_words).await;
        let status = soon("its end", self.process.wait())
            .await
            .expect("it can be waited for");
        assert!(status.success(), "it ends with {status}");
    }
}

/// The folder of the tests.
pub(crate) fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}
