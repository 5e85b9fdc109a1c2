//! docs/api.md is true: its commands are given to a shell, in order, and the answers are what it says.
//!
//! It needs `sh` and `curl`, and fails without them: what is tested is what a reader types.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod loopback;

use std::path::Path;

use control::{Control, settings, soon};
use serde_json::Value;
use tokio::process::Command;
use weir::http::{ControlOptions, Limits};

/// Members whose values differ from run to run; only their types are compared.
const VOLATILE: [&str; 30] = [
    "at",
    "bitrate",
    "cname",
    "cpu",
    "cpuNs",
    "localPort",
    "password",
    "pid",
    "pingRttUs",
    "port",
    "position",
    "receiveCalls",
    "requests",
    "residentBytes",
    "sandbox",
    "sendCalls",
    "seq",
    "timestamp",
    "turns",
    "usernameFragment",
    "value",
    "waitCalls",
    "worker",
    "coalescedTurns",
    "gsoRefusals",
    "closeTimeout",
    "pingTimeout",
    "requestTimeout",
    "startTimeout",
    "workerBinary",
];

/// A command and the answer it gets, as the page has them.
struct Example {
    line: usize,
    command: String,
    status: u16,
    answer: Value,
}

#[tokio::test]
async fn the_examples_of_the_page_are_true() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md")).unwrap();
    let examples = examples(&page);
    assert!(examples.len() > 20, "the page has examples");
    let control = Control::start_with(settings(2), Limits::default(), ControlOptions::default()).await;
    for example in examples {
        let place = format!("docs/api.md, line {}", example.line);
        let (status, answer) = typed(&example.command, &control.path, &place).await;
        assert_eq!(status, example.status, "{place}: {answer}");
        compare(&example.answer, &answer, "", &place);
    }
    control.close().await;
}

/// Each `sh` block and the `json` block that follows it.
fn examples(page: &str) -> Vec<Example> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String, String)> = None;
    for (index, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(info), None) => open = Some((index + 1, info.to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some((_, _, text))) => *text += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    let mut blocks = blocks.into_iter();
    let mut examples = Vec::new();
    while let Some((line, info, command)) = blocks.next() {
        assert_eq!(info, "sh", "line {line}: an example begins with a command");
        let (answer_line, info, answer) = blocks.next().expect("an answer follows each command");
        let status = info.strip_prefix("json ").and_then(|status| status.parse().ok());
        examples.push(Example {
            line,
            command,
            status: status.unwrap_or_else(|| panic!("line {answer_line}: ```json STATUS")),
            answer: serde_json::from_str(&answer).unwrap_or_else(|error| panic!("line {answer_line}: {error}")),
        });
    }
    examples
}

/// What a command of the page prints, with the status of the answer, which curl is asked for in addition.
async fn typed(command: &str, socket: &Path, place: &str) -> (u16, Value) {
    assert!(
        command.starts_with("curl --unix-socket $WEIR_CONTROL "),
        "{place}: {command}"
    );
    let asked = format!("{} -sS -w '\\n%{{http_code}}'", command.trim_end());
    let child = Command::new("sh")
        .args(["-c", &asked])
        .env("WEIR_CONTROL", socket)
        .output();
    let output = soon("curl", child).await.unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{place}: {}: {complaint}", output.status);
    let printed = String::from_utf8(output.stdout).unwrap();
    let (body, status) = printed.rsplit_once('\n').unwrap();
    let answer = serde_json::from_str(body).unwrap_or_else(|error| panic!("{place}: {error}: {body}"));
    (status.parse().unwrap(), answer)
}

/// Checks that both have the same members, of the same types, with the same values where these do not vary.
fn compare(page: &Value, answer: &Value, path: &str, place: &str) {
    match (page, answer) {
        (Value::Object(page), Value::Object(answer)) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(page), names(answer), "{place}: members of {path:?}");
            for (name, value) in page {
                compare(value, &answer[name], &format!("{path}.{name}"), place);
            }
        }
        (Value::Array(page), Value::Array(answer)) => {
            assert_eq!(page.len(), answer.len(), "{place}: length of {path:?}");
            for (index, (page, answer)) in page.iter().zip(answer).enumerate() {
                compare(page, answer, &format!("{path}[{index}]"), place);
            }
        }
        _ => {
            let name = path.rsplit('.').next().unwrap_or_default();
            let event_id = name == "id" && page.is_string();
            if !event_id && !VOLATILE.contains(&name) {
                assert_eq!(page, answer, "{place}: {path}");
                return;
            }
            // What is not known yet when the example runs may be a number or null.
            let alike = std::mem::discriminant(page) == std::mem::discriminant(answer);
            let unknown = page.is_null() || answer.is_null();
            assert!(alike || unknown, "{place}: {path} is {answer}, not like {page}");
        }
    }
}
