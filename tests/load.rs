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
    let output = String::from_utf8(output.stdout).expect("text");
    let last = output.lines().last().expect("a line");
    serde_json::from_str(last).expect("one JSON object on the last line")
}

/// The keys that other programs read, with figures that make sense together.
fn check(report: &Value) {
    for key in [
        "forwarded_pps",
        "worker_ns_per_packet",
        "raw_ns_per_packet",
        "raw_shared_ns_per_packet",
        "ratio",
        "syscalls_per_packet",
        "packets_per_turn",
        "wakeups_per_s",
        "measured_at_pps",
        "measured_at_rate",
        "delay_packets",
    ] {
        assert!(
            report[key].as_f64().is_some_and(|value| value > 0.0),
            "{key} in {report}"
        );
    }
    for times in ["residence_us", "delay_us"] {
        for key in ["p50", "p99", "p999"] {
            assert!(
                report[times][key].as_f64().is_some_and(|value| value > 0.0),
                "{times}.{key} in {report}"
            );
        }
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

/// At the rates of real senders, which any machine carries for so few.
#[test]
fn rooms() {
    for uneven in [false, true] {
        let mut arguments = vec!["--json", "--rooms", "2", "--peers", "3", "--seconds", "1"];
        arguments.extend(uneven.then_some("--uneven"));
        let report = report(&arguments);
        check(&report);
        assert_eq!((&report["rooms"], &report["peers"]), (&2.into(), &3.into()), "{report}");
        assert_eq!(report["uneven"], uneven, "{report}");
        assert_eq!(
            report["consumers"],
            2 * 3 * 2 * 2,
            "each of three peers receives two tracks of the two others"
        );
        // Six peers with 50 packets of sound, and 30 frames of 3 to 4 packets.
        let rate = report["measured_at_rate"].as_f64();
        assert!(rate.is_some_and(|rate| (700.0..1_100.0).contains(&rate)), "{report}");
        assert_eq!(report["delay_packets"], report["received_packets"], "{report}");
    }
}

#[test]
fn frames_whose_packets_differ_by_a_byte() {
    let report = report(&[
        "--json",
        "--uneven",
        "--consumers",
        "3",
        "--burst",
        "4",
        "--payload",
        "300",
        "--rate",
        "1000",
        "--seconds",
        "1",
        "--window",
        "auto",
        "--spin",
        "20",
    ]);
    check(&report);
    assert_eq!(report["uneven"], true);
    assert_eq!((&report["window_us"], &report["spin_us"]), (&"auto".into(), &20.into()));
}

#[test]
fn a_share_of_the_maximum() {
    let report = report(&[
        "--json",
        "--peers",
        "3",
        "--no-sound",
        "--payload",
        "300",
        "--bitrate",
        "200",
        "--load",
        "0.3",
        "--seconds",
        "1",
    ]);
    check(&report);
    assert_eq!(report["load"], 0.3);
    assert_eq!(report["producers"], 3, "{report}");
    let rates = ["measured_at_pps", "forwarded_pps"].map(|key| report[key].as_f64());
    assert!(rates[0] < rates[1], "{report}");
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
fn encrypted_rooms() {
    for (uneven, one_port) in [
        (None, None),
        (Some("--uneven"), Some("connected")),
        (Some("--uneven"), Some("shared")),
    ] {
        let mut arguments = vec![
            "--json",
            "--srtp",
            "gcm",
            "--rooms",
            "2",
            "--peers",
            "2",
            "--verify",
            "4",
            "--seconds",
            "1",
        ];
        arguments.extend(uneven);
        arguments.extend(one_port.into_iter().flat_map(|sockets| ["--one-port", sockets]));
        let report = report(&arguments);
        check_encrypted(&report, "gcm", 4);
        assert_eq!(
            report["srtp"]["verified_packets"], report["received_packets"],
            "{report}"
        );
        assert_eq!(report["delay_packets"], report["received_packets"], "{report}");
    }
}

#[test]
fn options_out_of_range_are_refused_with_a_reason() {
    for (arguments, expected) in [
        (["--burst", "0"], "1..=54"),
        (["--paused", "1.5"], "a share from 0 to 1"),
        (["--seconds", "0"], "1 to 3600"),
        (["--rate", "NaN"], "packets per second"),
        (["--window", "2000"], "microseconds in 0..=1000"),
        (["--window", "soon"], "`auto`"),
        (["--load", "1.5"], "a share of the maximum"),
        (["--load", "NaN"], "a share of the maximum"),
        (["--rooms", "0"], "1..=1000"),
        (["--peers", "1"], "2..=200"),
        (["--bitrate", "10"], "50..=20000"),
        (["--srtp", "des"], "possible values: gcm, cm"),
        (["--verify", "2"], "--srtp <PROFILE>"),
    ] {
        let output = load(&arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
    for (arguments, expected) in [
        (&["--no-sound"][..], "add --rooms or --peers"),
        (&["--rooms", "2", "--burst", "8"], "cannot be used with"),
        (&["--peers", "2", "--consumers", "8"], "cannot be used with"),
        (&["--load", "0.5", "--rate", "8"], "cannot be used with"),
        (&["--rooms", "1000", "--peers", "3"], "2000 are the most; give fewer"),
        (&["--rooms", "10", "--peers", "200"], "80000 are the most; give fewer"),
    ] {
        let output = load(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
    for (option, value, expected) in [
        ("--consumers", "2001", "at most 2000 consumers"),
        ("--payload", "1460", "of 1472 at most"),
    ] {
        let output = load(&["--srtp", "gcm", option, value]);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{option} {value}");
        assert!(errors.contains(expected), "{option} {value}: {errors}");
    }
}
