//! docs/api.md is true: its examples are sent to a server, in order, and the answers are what it says.
//!
//! The commands are read here rather than given to curl, so that the test needs nothing installed; the few options of
//! curl that the examples use mean what curl's manual says.

mod control;

use control::{Control, settings};
use serde_json::Value;
use weir::http::{ControlOptions, Limits};

/// Members whose values differ from run to run; only their types are compared.
const VOLATILE: [&str; 19] = [
    "at",
    "bitrate",
    "cname",
    "cpu",
    "cpuNs",
    "localPort",
    "pid",
    "pingRttUs",
    "position",
    "receiveCalls",
    "requests",
    "residentBytes",
    "sendCalls",
    "seq",
    "turns",
    "waitCalls",
    "worker",
    "coalescedTurns",
    "gsoRefusals",
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
    let mut client = control.client().await;
    for example in examples {
        let request = Request::of(&example.command);
        let headers: &[_] = if request.json.is_some() {
            &[("content-type", "application/json")]
        } else {
            &[]
        };
        let body = request.json.unwrap_or_default();
        let answer = client.say(&request.method, &request.target, headers, body).await;
        let place = format!("docs/api.md, line {}", example.line);
        assert_eq!(answer.status, example.status, "{place}: {}", answer.text);
        compare(&example.answer, &answer.body, "", &place);
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

/// What a curl command sends.
#[derive(PartialEq, Eq, Debug)]
struct Request {
    method: String,
    target: String,
    json: Option<String>,
}

impl Request {
    fn of(command: &str) -> Self {
        let mut words = words(command).into_iter();
        assert_eq!(words.next().as_deref(), Some("curl"), "{command}");
        let (mut method, mut target, mut json, mut socket) = (None, None, None, None);
        while let Some(word) = words.next() {
            match word.as_str() {
                "--unix-socket" => socket = words.next(),
                "-X" => method = words.next(),
                "--json" => json = words.next(),
                url => {
                    let path = url
                        .strip_prefix("http://weir")
                        .unwrap_or_else(|| panic!("{url} in {command}"));
                    target = Some(path.to_owned());
                }
            }
        }
        assert_eq!(socket.as_deref(), Some("$WEIR_CONTROL"), "{command}");
        Self {
            method: method.unwrap_or_else(|| if json.is_some() { "POST" } else { "GET" }.to_owned()),
            target: target.unwrap_or_else(|| panic!("no URL in {command}")),
            json,
        }
    }
}

/// The words of a command as a shell takes them; of quoting the page needs only '…'.
fn words(command: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    for c in command.chars() {
        match c {
            '\'' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            c if c.is_whitespace() && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    assert!(!quoted, "{command}");
    words.extend(word);
    words
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

#[test]
fn commands_are_read_as_a_shell_reads_them() {
    let command = "curl --unix-socket $WEIR_CONTROL -X PUT 'http://weir/a?b=1&c=2' --json '{\n \"d\": 1}'\n";
    let request = Request {
        method: "PUT".to_owned(),
        target: "/a?b=1&c=2".to_owned(),
        json: Some("{\n \"d\": 1}".to_owned()),
    };
    assert_eq!(Request::of(command), request);
    assert_eq!(
        Request::of("curl --unix-socket $WEIR_CONTROL http://weir/").method,
        "GET"
    );
}
