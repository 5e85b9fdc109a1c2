//! `weir demo` as a program: what it prints, how it ends, and that its verdict can be bad.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A demo that is playing. It is killed when this is dropped, so that a failed test leaves nothing behind.
struct Demo {
    child: Child,
    out: BufReader<ChildStdout>,
    lines: Vec<Value>,
}

impl Demo {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("demo")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("weir starts");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        Self {
            child,
            out,
            lines: Vec::new(),
        }
    }

    /// Reads JSON lines up to one for which `wanted` says yes; `None` if the output ends before.
    fn find(&mut self, mut wanted: impl FnMut(&Value) -> bool) -> Option<Value> {
        let mut text = String::new();
        while self.out.read_line(&mut text).expect("its output is text") > 0 {
            let line: Value = serde_json::from_str(&text).expect("every line is JSON");
            text.clear();
            self.lines.push(line.clone());
            if wanted(&line) {
                return Some(line);
            }
        }
        None
    }

    /// Everything else it prints, and how it ends.
    fn end(mut self) -> (Vec<Value>, ExitStatus) {
        assert_eq!(self.find(|_| false), None);
        let status = self.child.wait().expect("it can be waited for");
        (std::mem::take(&mut self.lines), status)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is(kind: &str) -> impl Fn(&Value) -> bool + '_ {
    move |line| line["type"] == kind
}

fn worker_pids(setup: &Value) -> Vec<Pid> {
    let workers = setup["workers"].as_array().expect("workers");
    let pid = |worker: &Value| Pid::from_raw(worker["pid"].as_i64().expect("a pid") as i32);
    workers.iter().map(pid).collect()
}

fn is_gone(pid: &Pid) -> bool {
    kill(*pid, None) == Err(Errno::ESRCH)
}

/// Which checks of a verdict do not hold.
fn failed(verdict: &Value) -> Vec<&str> {
    let checks = verdict["checks"].as_array().expect("checks");
    assert!(!checks.is_empty());
    let failed = checks.iter().filter(|check| check["passed"] == false);
    failed.map(|check| check["name"].as_str().expect("a name")).collect()
}

#[test]
fn it_plays_and_finds_everything_in_order() {
    let mut demo = Demo::start(&["--json", "--seconds", "8", "--workers", "2"]);
    let setup = demo.find(|_| true).expect("it prints something");
    assert_eq!(setup["type"], "setup");
    assert_eq!(setup["workers"].as_array().map(Vec::len), Some(2));
    let streams = |producer: &Value| producer["streams"].as_array().map_or(0, Vec::len);
    let producers = setup["producers"].as_array().expect("producers");
    assert!(
        producers
            .iter()
            .any(|producer| producer["codec"] == "VP8" && streams(producer) == 3)
    );
    assert!(producers.iter().any(|producer| producer["codec"] == "opus"));
    let workers: std::collections::BTreeSet<_> = producers.iter().map(|one| one["worker"].as_u64()).collect();
    assert_eq!(workers.len(), 2, "both workers have something to do");
    assert!(
        setup["consumers"]
            .as_array()
            .is_some_and(|consumers| consumers.len() >= 4)
    );
    let pids = worker_pids(&setup);

    let (lines, status) = demo.end();
    let verdict = lines.last().expect("a verdict");
    assert_eq!(
        (verdict["type"].as_str(), failed(verdict)),
        (Some("verdict"), vec![]),
        "{verdict:#}"
    );
    assert_eq!(
        (verdict["passed"].as_bool(), verdict["interrupted"].as_bool()),
        (Some(true), Some(false))
    );
    assert!(status.success(), "{status}");
    assert!(pids.iter().all(is_gone), "no worker is left");

    // The story, as programs read it.
    assert!(!lines.iter().any(is("fault")));
    let of_cleo = |line: &&Value| line["consumer"] == "cleo" && line["type"] == "switched";
    let switches: Vec<_> = lines
        .iter()
        .filter(of_cleo)
        .map(|line| (&line["from"], &line["to"]))
        .collect();
    let last_two = &switches[switches.len() - 2..];
    assert_eq!(
        last_two,
        [(&"high".into(), &"low".into()), (&"low".into(), &"high".into())]
    );
    assert_eq!(lines.iter().filter(is_step("camera")).count(), 2);
    assert_eq!(lines.iter().filter(is_step("ben")).count(), 2);
    let samples: Vec<_> = lines.iter().filter(|line| is("sample")(line)).collect();
    assert!(samples.len() >= 6, "{} samples", samples.len());
    let paused = |line: &&&Value| line["consumers"].to_string().contains("sourcePaused");
    assert!(
        samples.iter().any(|line| paused(&line)),
        "the pause shows in the samples"
    );
    // Every event of the server is there, in order.
    let events: Vec<u64> = lines
        .iter()
        .filter(|line| is("server")(line))
        .filter_map(|line| line["event"]["seq"].as_u64())
        .collect();
    assert!(events.windows(2).all(|pair| pair[1] == pair[0] + 1), "{events:?}");
    assert!(lines.iter().any(|line| line["event"]["type"] == "producerPaused"));
}

fn is_step(target: &str) -> impl Fn(&&Value) -> bool + '_ {
    move |line| line["type"] == "step" && line["target"] == target
}

#[test]
fn lines_for_people_end_with_the_verdict() {
    let mut demo = Demo::start(&["--seconds", "8", "--workers", "1"]);
    let mut text = String::new();
    demo.out.read_to_string(&mut text).expect("its output is text");
    let status = demo.child.wait().expect("it can be waited for");
    assert!(status.success(), "{status}\n{text}");
    assert!(!text.contains('\x1b'), "no colours outside a terminal:\n{text}");
    for expected in [
        "camera sends VP8 in 3 sizes",
        "cleo consumes camera, preferring high",
        "camera is paused",
        "switches from high to low on a key frame, 160x90",
        "passed",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing from:\n{text}");
    }
    assert!(!text.contains('✗'), "{text}");
}

#[test]
fn an_interrupt_ends_it_in_order() {
    let mut demo = Demo::start(&["--json", "--seconds", "600"]);
    let setup = demo.find(is("setup")).expect("a setup line");
    demo.find(|line| line["type"] == "started").expect("somebody receives");
    kill(demo.pid(), Signal::SIGINT).expect("it is there");
    let (lines, status) = demo.end();
    let verdict = lines.last().expect("a verdict");
    assert_eq!(verdict["interrupted"], true);
    assert_eq!(failed(verdict), [""; 0], "what was relayed until then was right");
    assert_eq!(status.code(), Some(130));
    assert!(worker_pids(&setup).iter().all(is_gone), "no worker is left");
}

#[test]
fn a_worker_that_dies_costs_the_verdict() {
    let mut demo = Demo::start(&["--json", "--seconds", "8", "--workers", "2"]);
    let setup = demo.find(is("setup")).expect("a setup line");
    demo.find(|line| line["type"] == "started").expect("somebody receives");
    kill(worker_pids(&setup)[0], Signal::SIGKILL).expect("it is there");
    let (lines, status) = demo.end();
    let verdict = lines.last().expect("a verdict");
    assert_eq!(
        (verdict["type"].as_str(), verdict["passed"].as_bool()),
        (Some("verdict"), Some(false))
    );
    assert!(failed(verdict).contains(&"workers-alive"), "{verdict:#}");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_length_that_makes_no_sense_is_refused() {
    for arguments in [["--seconds", "7"], ["--seconds", "soon"], ["--workers", "0"]] {
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("demo")
            .args(arguments)
            .output()
            .expect("weir starts");
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(arguments[0]), "{said}");
    }
}
