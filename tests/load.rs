//! `weir load` as a program: what it prints can be relied on. How fast it is, nobody asserts here.

use std::process::{Command, Output};

use serde_json::Value;

fn load(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("load")
        .args(arguments)
        .output()
        .expect("weir runs")
}

fn report(arguments: &[&str]) -> Value {
    let output = load(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

/// The keys that other programs read, with figures that make sense together.
fn check(report: &Value) {
    for key in [
        "forwarded_pps",
        "worker_ns_per_packet",
        "raw_ns_per_packet",
        "ratio",
        "syscalls_per_packet",
    ] {
        assert!(
            report[key].as_f64().is_some_and(|value| value > 0.0),
            "{key} in {report}"
        );
    }
    for key in ["p50", "p99", "p999"] {
        assert!(
            report["residence_us"][key].as_f64().is_some_and(|value| value > 0.0),
            "{key} in {report}"
        );
    }
    assert!(report["lost_packets"].is_u64(), "{report}");
    assert!(report["raw_errors"] == 0, "{report}");
}

#[test]
fn producers_and_consumers() {
    let report = report(&[
        "--json",
        "--producers",
        "2",
        "--consumers",
        "6",
        "--burst",
        "4",
        "--payload",
        "300",
        "--rate",
        "2000",
        "--seconds",
        "1",
        "--paused",
        "0.34",
        "--control",
        "--nack",
    ]);
    check(&report);
    assert_eq!(report["consumers"], 6);
    assert_eq!(report["burst"], 4);
    assert_eq!(report["nack"], true);
    assert!(
        report["control"]["commands_per_second"]
            .as_f64()
            .is_some_and(|rate| rate > 0.0),
        "{report}"
    );
}

#[test]
fn a_conference() {
    let report = report(&[
        "--json",
        "--room",
        "3",
        "--burst",
        "3",
        "--rate",
        "1000",
        "--seconds",
        "1",
    ]);
    check(&report);
    assert_eq!(report["room"], 3);
    assert_eq!(
        report["consumers"],
        3 * 2 * 2,
        "each of three peers receives two tracks of the two others"
    );
}

/// What the clients of WebRTC transports got, with a rate that any machine carries.
fn check_encrypted(report: &Value, profile: &str, clients: u64) {
    check(report);
    let srtp = &report["srtp"];
    assert_eq!(srtp["profile"], profile, "{report}");
    assert_eq!(srtp["handshakes"], clients, "{report}");
    assert!(
        srtp["worker_us_per_handshake"].as_f64().is_some_and(|us| us > 0.0),
        "{report}"
    );
    assert_eq!(report["lost_packets"], 0, "{report}");
    assert_eq!(srtp["wrong_packets"], 0, "{report}");
}

#[test]
fn encrypted_packets_arrive_and_are_what_was_sent() {
    for profile in ["gcm", "cm"] {
        let report = report(&[
            "--json",
            "--srtp",
            profile,
            "--consumers",
            "6",
            "--verify",
            "6",
            "--burst",
            "4",
            "--payload",
            "300",
            "--rate",
            "1000",
            "--seconds",
            "1",
            "--nack",
        ]);
        check_encrypted(&report, profile, 7);
        // Every receiver looks at all that it gets in the slices.
        let verified = report["srtp"]["verified_packets"].as_u64();
        assert_eq!(verified, report["received_packets"].as_u64(), "{report}");
        assert!(verified > Some(0), "{report}");
    }
}

#[test]
fn an_encrypted_conference() {
    let report = report(&[
        "--json",
        "--srtp",
        "gcm",
        "--room",
        "3",
        "--verify",
        "3",
        "--burst",
        "3",
        "--rate",
        "1000",
        "--seconds",
        "1",
    ]);
    check_encrypted(&report, "gcm", 3);
    assert_eq!(
        report["srtp"]["verified_packets"], report["received_packets"],
        "{report}"
    );
}

#[test]
fn options_out_of_range_are_refused_with_a_reason() {
    for (arguments, expected) in [
        (["--burst", "0"], "1..=54"),
        (["--paused", "1.5"], "a share from 0 to 1"),
        (["--seconds", "0"], "1 to 3600"),
        (["--rate", "NaN"], "packets per second"),
        (["--window", "2000"], "0..=1000"),
        (["--srtp", "des"], "possible values: gcm, cm"),
        (["--verify", "2"], "--srtp <PROFILE>"),
    ] {
        let output = load(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    for (option, value, expected) in [
        ("--consumers", "2001", "at most 2000 consumers"),
        ("--payload", "1460", "of 1472 at most"),
        ("--burst", "54", "no room in a message of 65507"),
    ] {
        let output = load(&["--srtp", "gcm", option, value]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{option} {value}");
        assert!(errors.contains(expected), "{option} {value}: {errors}");
    }
}
