//! Prometheus' own tool reads what is served, and the alerts.
//!
//! `cargo test --test e2e_metrics -- --ignored`; without promtool (Debian's `prometheus`) it fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod loopback;

use std::path::Path;
use std::process::{Command, Stdio};

use command::{Scratch, soon};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// What promtool says to this, which must be nothing bad.
#[track_caller]
fn promtool(args: &[&str], input: &[u8]) -> String {
    let mut child = Command::new("promtool")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is part of Debian's prometheus");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "promtool {args:?}: {said}");
    said
}

async fn get(address: &str, target: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {target} HTTP/1.1\r\nhost: {address}\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut said = String::new();
    soon("the numbers", stream.read_to_string(&mut said)).await.unwrap();
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    body.to_owned()
}

#[tokio::test]
#[ignore = "needs promtool"]
async fn promtool_finds_nothing_wrong() {
    let scratch = Scratch::new();
    let mut command = scratch.serve();
    command.args(["--metrics-listen", "127.0.0.1:0"]);
    let mut server = command.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let ready = soon("the server", lines.next_line()).await.unwrap().unwrap();
    let (_, after) = ready
        .split_once("metrics http://")
        .expect("it says where its metrics are");
    let (address, _) = after.split_once("/metrics").unwrap();

    scratch.ctl("room create").await;
    scratch.ctl("settings --measure-residence true").await;
    let text = get(address, "/metrics?rooms=5", "*/*").await;
    assert!(text.contains("weir_room_peers{"), "{text}");
    promtool(&["check", "metrics"], text.as_bytes());

    let deployed = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    let file = |name: &str| deployed.join(name).to_str().unwrap().to_owned();
    let said = promtool(&["check", "rules", &file("weir.rules.yml")], b"");
    assert!(said.contains("rules found"), "{said}");
    promtool(&["check", "config", &file("prometheus.yml")], b"");
    promtool(&["test", "rules", &file("weir.test.yml")], b"");
    server.kill().await.unwrap();
}
