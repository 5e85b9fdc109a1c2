//! Prometheus reads what is served, its own tool the alerts, and the queries of the dashboard are ones that it understands.
//!
//! `cargo test --test e2e_metrics -- --ignored`; without promtool and prometheus (Debian's `prometheus`) it fails.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod loopback;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use command::{Scratch, soon};
use loopback::free_ports;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;

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

/// A server that tells its numbers, and where.
async fn monitored(scratch: &Scratch) -> (Child, String) {
    let mut command = scratch.serve();
    command.args(["--metrics-listen", "127.0.0.1:0"]);
    let mut server = command.spawn().unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let ready = soon("the server", lines.next_line()).await.unwrap().unwrap();
    let (_, after) = ready
        .split_once("metrics http://")
        .expect("it says where its metrics are");
    let (address, _) = after.split_once("/metrics").unwrap();
    (server, address.to_owned())
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
    let (mut server, address) = monitored(&scratch).await;

    scratch.ctl("room create").await;
    scratch.ctl("settings --measure-residence true").await;
    let text = get(&address, "/metrics?rooms=5", "*/*").await;
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

/// What a Prometheus answers to a query: the results, which must be understood.
async fn query(prometheus: &str, expression: &str) -> Vec<Value> {
    let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = get(prometheus, &format!("/api/v1/query?query={encoded}"), "*/*").await;
    // It may come in chunks, whose lengths are lines of their own.
    let object = answer
        .find('{')
        .and_then(|from| Some(&answer[from..=answer.rfind('}')?]))
        .unwrap();
    let answer: Value = serde_json::from_str(object).unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert_eq!(answer["status"], "success", "{expression}: {answer}");
    answer["data"]["result"].as_array().unwrap().clone()
}

#[tokio::test]
#[ignore = "needs prometheus"]
async fn prometheus_scrapes_and_understands_what_the_dashboard_asks() {
    let scratch = Scratch::new();
    let (mut server, address) = monitored(&scratch).await;
    let folder = scratch.dir.path();
    let config = format!(
        "global: {{ scrape_interval: 1s }}\nscrape_configs: [{{ job_name: weir, static_configs: [{{ targets: [\"{address}\"] }}] }}]\n"
    );
    std::fs::write(folder.join("prometheus.yml"), config).unwrap();
    let own = format!("127.0.0.1:{}", free_ports(2));
    let mut prometheus = tokio::process::Command::new("prometheus")
        .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
        .arg(format!("--web.listen-address={own}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("prometheus is part of Debian's prometheus");
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    soon("Prometheus", async {
        while TcpStream::connect(&own).await.is_err() {
            ticks.tick().await;
        }
    })
    .await;
    // It asks for OpenMetrics, and takes all of an answer or nothing.
    soon("a scrape", async {
        while query(&own, "weir_ready == 1").await.is_empty() {
            ticks.tick().await;
        }
    })
    .await;
    assert_eq!(query(&own, "up{job=\"weir\"} == 1").await.len(), 1);
    assert_eq!(
        query(&own, "weir_packets_received_total").await.len(),
        2,
        "of two workers"
    );

    let dashboard: Value = serde_json::from_str(include_str!("../deploy/grafana/weir.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    let mut asked = 0;
    for target in targets {
        let expression = target["expr"].as_str().unwrap();
        // As Grafana fills them in.
        let expression = expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
        query(&own, &expression).await;
        asked += 1;
    }
    assert!(asked > 30, "{asked}");
    prometheus.kill().await.unwrap();
    server.kill().await.unwrap();
}
