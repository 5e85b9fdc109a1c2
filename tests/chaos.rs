//! `weir chaos` as a program: workers really die, and what it prints can be relied on. How long a gap is, nobody asserts here.

use std::process::{Command, Output};

use serde_json::{Value, json};

fn chaos(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weir"))
        .arg("chaos")
        .args(arguments)
        .output()
        .expect("weir runs")
}

/// A small scene in which four workers are killed, one after the other; nobody may have lost anything.
fn nobody_loses_anything(further: &[&str]) -> Value {
    let output = chaos(
        &[
            &[
                "--json",
                "--kills",
                "4",
                "--rooms",
                "4",
                "--producers",
                "8",
                "--consumers",
                "24",
                "--load",
                "0.1",
            ][..],
            further,
        ]
        .concat(),
    );
    let errors = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8(output.stdout).expect("text");
    let report: Value = serde_json::from_str(text.lines().last().unwrap_or_default()).expect(&errors);
    assert!(output.status.success(), "{report}\n{errors}");
    assert_eq!(report["kills"], 4);
    for nothing in [
        "rooms_lost",
        "receivers_lost",
        "connections_lost",
        "calls_failed",
        "indices_reused",
        "wrong_packets",
        "renumbered",
    ] {
        assert_eq!(report[nothing], 0, "{nothing} in {report}");
    }
    for number in ["packets_lost_after_repair", "descriptors_slope", "memory_slope"] {
        assert!(report[number].is_number(), "{number} in {report}");
    }
    let lost = &report["lost"];
    let of_kinds = lost["sound"].as_u64().zip(lost["video"].as_u64());
    let of_kinds = of_kinds.map(|(sound, video)| sound + video);
    assert_eq!(of_kinds, report["packets_lost_after_repair"].as_u64(), "{report}");
    for reason in ["foreignSource", "badCheck", "connectionSilent", "stale"] {
        assert_eq!(
            report["dropped"]["unrouted"][reason],
            Value::Null,
            "{reason} in {report}"
        );
    }
    for quantile in ["p50", "p99", "max"] {
        assert!(report["gap_ms"][quantile].is_f64(), "{quantile} in {report}");
    }
    for something in ["packets_received", "packets_sent", "calls"] {
        assert!(report[something].as_u64() > Some(0), "{something} in {report}");
    }
    report
}

#[test]
fn nobody_loses_anything_but_a_moment_when_workers_are_killed() {
    let svg = std::env::temp_dir().join(format!("weir-chaos-{}.svg", std::process::id()));
    let path = svg.to_str().expect("a path in UTF-8");
    let report = nobody_loses_anything(&["--webrtc", "0.5", "--svg", path]);
    assert_eq!(report["webrtc_over"], json!(["udp", "tcp"]));
    let picture = std::fs::read_to_string(&svg).expect("a picture");
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"));
    std::fs::remove_file(&svg).expect("nobody else has removed it");
}

#[test]
fn nor_does_anybody_at_a_port_that_all_share() {
    for sockets in ["connected", "shared"] {
        let report = nobody_loses_anything(&["--webrtc", "1", "--one-port", sockets]);
        assert_eq!(report["one_port"], sockets);
    }
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    for (arguments, expected) in [
        (
            &["--load", "2"][..],
            "--load is a share of a CPU from 0.05 to 0.95, not 2",
        ),
        (&["--webrtc", "7"], "--webrtc is a share from 0 to 1, not 7"),
        (&["--rooms", "5", "--producers", "4"], "give fewer with --rooms"),
        (
            &["--consumers", "2900", "--producers", "1000"],
            "give fewer with --producers or --consumers",
        ),
        (&["--webrtc-over", "pigeons"], "possible values: udp, tcp"),
        (&["--faults", "earthquake"], "possible values: kill, stop, oom, emfile"),
    ] {
        let output = chaos(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && errors.contains(expected),
            "{arguments:?}: {errors}"
        );
    }
}
