//! `weir doctor`, on a machine as it is.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod loopback;

use command::{Outcome, in_shell, outcome, weir};
use serde_json::Value;

async fn doctor(args: &str) -> Outcome {
    let mut command = weir(["doctor", "--rtc-ipv6", "off", "--start-timeout", "60s"]);
    command.args(args.split_whitespace());
    outcome(command).await
}

/// The findings about one thing.
fn about<'a>(report: &'a Value, check: &str) -> Vec<&'a Value> {
    let findings = report["findings"].as_array().unwrap();
    findings.iter().filter(|finding| finding["check"] == check).collect()
}

#[tokio::test]
async fn a_machine_on_which_a_server_starts_passes() {
    let told = doctor("--rtc-ipv4 127.0.0.1 --json").await;
    assert_eq!(told.code, 0, "{told:?}");
    let report: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(report["ok"], true);
    for check in [
        "kernel",
        "CPUs",
        "descriptors",
        "ports",
        "address",
        "clock source",
        "start",
        "sandbox",
    ] {
        assert_eq!(about(&report, check).len(), 1, "{check}: {report}");
    }
    assert_eq!(about(&report, "start")[0]["verdict"], "ok");
    assert_eq!(
        about(&report, "address")[0]["verdict"],
        "warn",
        "nobody else reaches loopback"
    );
    for finding in report["findings"].as_array().unwrap() {
        assert_eq!(finding["verdict"] != "ok", finding["advice"].is_string(), "{finding}");
    }

    let shown = doctor("--rtc-ipv4 127.0.0.1").await;
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(
        shown.stdout.contains("a server starts, and its worker answers"),
        "{shown:?}"
    );
    assert!(!shown.stdout.contains('\x1b'), "no colours but on a terminal");
}

#[tokio::test]
async fn what_would_keep_a_server_from_starting_is_named() {
    let told = doctor("--rtc-ipv4 192.0.2.1 --json").await;
    assert_eq!(told.code, 1, "{told:?}");
    let report: Value = serde_json::from_str(&told.stdout).unwrap();
    assert_eq!(report["ok"], false);
    let start = about(&report, "start");
    assert_eq!(start[0]["verdict"], "fail");
    assert!(
        start[0]["found"].as_str().unwrap().contains("cannot be bound"),
        "{report}"
    );

    let told = doctor("--worker-binary /does/not/exist --rtc-ipv4 127.0.0.1").await;
    assert_eq!(told.code, 1, "{told:?}");
    assert!(told.stdout.contains("FAIL  start"), "{told:?}");
    doctor("--workers 0").await.failed(2, "workers");
    doctor("--rtc-ipv4 127.0.0.1 --spin-us-max 5000")
        .await
        .failed(2, "spin_us_max");
}

#[tokio::test]
async fn limits_that_are_low_come_with_what_to_do() {
    let mut command = weir([
        "doctor",
        "--rtc-ipv6",
        "off",
        "--rtc-ipv4",
        "127.0.0.1",
        "--start-timeout",
        "60s",
    ]);
    command.arg("--json");
    let told = outcome(in_shell("ulimit -n 512", &command)).await;
    assert_eq!(told.code, 0, "{told:?}");
    let report: Value = serde_json::from_str(&told.stdout).unwrap();
    let descriptors = about(&report, "descriptors")[0];
    assert_eq!(descriptors["verdict"], "warn");
    assert!(
        descriptors["advice"].as_str().unwrap().contains("LimitNOFILE"),
        "{descriptors}"
    );
}
