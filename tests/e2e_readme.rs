//! The README's lines, typed as they stand into a server with default settings: a camera is relayed, and again after ffmpeg
//! was ended and its line typed once more.
//!
//! `cargo test --test e2e_readme -- --ignored`; without ffmpeg it fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod loopback;

use std::path::Path;
use std::process::Stdio;

use command::soon;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::UdpSocket;
use tokio::process::{Child, Command};

/// The README's line that starts a server, and the block that begins with this line.
fn lines() -> (String, Vec<String>) {
    let readme = include_str!("../README.md");
    let serve = readme.lines().find(|line| line.starts_with("weir serve "));
    let block = readme.lines().skip_while(|line| *line != "weir ctl room create");
    let block = block.take_while(|line| !line.starts_with("```"));
    (serve.unwrap().to_owned(), block.map(str::to_owned).collect())
}

/// A line as somebody types it who has the program in their path, and a runtime directory.
fn typed(line: &str, runtime: &Path) -> Command {
    let programs = Path::new(env!("CARGO_BIN_EXE_weir")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    shell
        .args(["-c", &format!("exec {line}")])
        .env_clear()
        .env("PATH", path)
        .env("XDG_RUNTIME_DIR", runtime)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    shell
}

async fn done(line: &str, runtime: &Path) -> String {
    let output = soon(line, typed(line, runtime).stderr(Stdio::inherit()).output())
        .await
        .unwrap();
    assert!(output.status.success(), "{line}");
    String::from_utf8(output.stdout).unwrap()
}

async fn end(mut child: Child, signal: Signal) {
    kill(Pid::from_raw(child.id().unwrap().try_into().unwrap()), signal).unwrap();
    soon("a program's end", child.wait()).await.unwrap();
}

/// Waits for so many packets of media.
async fn watch(screen: &UdpSocket, packets: usize) {
    let mut packet = [0; 2_048];
    let mut left = packets;
    while left > 0 {
        let len = soon("a picture", screen.recv(&mut packet)).await.unwrap();
        left -= usize::from(len > 12 && packet[1] & 0x7f == 96);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs ffmpeg"]
async fn the_readmes_lines_work_as_they_stand_and_ffmpegs_again() {
    let runtime = TempDir::new().unwrap();
    let runtime = runtime.path();
    let (serve, lines) = lines();
    let screen = UdpSocket::bind("127.0.0.1:5004").await.unwrap();
    let mut server = typed(&serve, runtime).spawn().unwrap();
    let mut said = BufReader::new(server.stdout.take().unwrap()).lines();
    let ready = soon("the server", said.next_line()).await.unwrap().unwrap();
    assert!(ready.contains("is ready"), "{ready}");

    let (ffmpeg, commands) = lines.split_last().unwrap();
    assert!(ffmpeg.starts_with("ffmpeg "), "{lines:?}");
    for command in commands {
        done(command, runtime).await;
    }
    let relearned = async || {
        let stats: Value = serde_json::from_str(&done("weir ctl --json transport stats 1", runtime).await).unwrap();
        stats["remotesRelearned"].as_u64().unwrap()
    };
    let first = typed(ffmpeg, runtime).spawn().unwrap();
    watch(&screen, 50).await;
    assert_eq!(relearned().await, 0);
    // Ended as people end it, it says goodbye, and who comes after it need not wait.
    end(first, Signal::SIGINT).await;
    let second = typed(ffmpeg, runtime).spawn().unwrap();
    watch(&screen, 100).await;
    assert_eq!(relearned().await, 1);
    // Without a goodbye, five seconds of silence end the waiting.
    end(second, Signal::SIGKILL).await;
    let third = typed(ffmpeg, runtime).spawn().unwrap();
    watch(&screen, 100).await;
    assert_eq!(relearned().await, 2);
    end(third, Signal::SIGINT).await;
    end(server, Signal::SIGTERM).await;
}
