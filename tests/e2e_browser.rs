//! People in Chromium and Firefox, with mediasoup's own client, on the demo page of a real server: they see and hear each other,
//! paused, resumed and switched, through lost connections and restarts.
//!
//! `cargo test --test e2e_browser -- --ignored`; without Chromium, Firefox, Node.js and what `npm ci` puts into
//! `tests/browser` it fails. `tests/browser/README.md` says how to play single scenarios.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::RwLock;

use serde_json::Value;

/// An address of a network of the test's own (RFC 5737), for browsers that send no media over loopback.
const ELSEWHERE: &str = "192.0.2.1";

/// Likewise (RFC 3849).
const ELSEWHERE_6: &str = "2001:db8::1";

/// Where everything else would be, if there were anything: Firefox uses addresses only that lead somewhere.
const BEYOND: &str = "192.0.2.2";
const BEYOND_6: &str = "2001:db8::2";

/// Held by tests that can be beside others, and by one that cannot.
static ALONE: RwLock<()> = RwLock::new(());

/// Where a program is.
fn program(name: &str) -> String {
    let places = std::env::var_os("PATH").unwrap_or_default();
    let mut found = std::env::split_paths(&places).map(|place| place.join(name));
    let found = found.find(|path| path.exists());
    let found = found.unwrap_or_else(|| panic!("this test needs {name}"));
    found.into_os_string().into_string().unwrap()
}

/// Plays scenarios; every one must hold, and there must be so many.
#[expect(clippy::print_stdout, reason = "a play of minutes says how far it is")]
fn play(mut command: Command, options: &[&str], scenarios_min: u64) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    assert!(
        folder.join("node_modules").exists(),
        "this test needs `npm ci` in tests/browser"
    );
    command
        .arg(program("node"))
        .arg(folder.join("run.mjs"))
        .args(["--weir", env!("CARGO_BIN_EXE_weir")])
        .args(["--chromium", &program("chromium"), "--firefox", &program("firefox-esr")])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut playing = command.spawn().unwrap();
    let mut failures = Vec::new();
    let mut passed = 0;
    // Each scenario has a bound of its own in run.mjs.
    for line in BufReader::new(playing.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        match told["ok"].as_bool() {
            Some(true) => println!("{:6.1} s  {}", told["seconds"].as_f64().unwrap(), told["scenario"]),
            Some(false) => failures.push(line),
            None => passed = told["passed"].as_u64().unwrap_or(passed),
        }
    }
    let status = playing.wait().unwrap();
    assert!(failures.is_empty(), "\n{}\n", failures.join("\n"));
    assert!(status.success(), "{status}");
    assert!(passed >= scenarios_min, "only {passed} scenarios were played");
}

#[test]
#[ignore = "needs Chromium and Node.js"]
fn people_in_chromium_meet_on_the_demo_page() {
    let _beside = ALONE.read();
    play(Command::new("env"), &["--at-once", "2"], 34);
}

/// In a network namespace that has nothing but loopback and one more address of each family, which lead nowhere else.
fn elsewhere() -> Command {
    let mut command = Command::new(program("unshare"));
    let script = format!(
        "ip link set lo up && ip link add weir0 type veth peer name weir1 && ip link set weir1 up && \
         ip address add {ELSEWHERE}/24 dev weir0 && ip address add {ELSEWHERE_6}/64 dev weir0 nodad && \
         ip link set weir0 up && ip route add default via {BEYOND} && ip -6 route add default via {BEYOND_6} && \
         exec \"$@\" --media {ELSEWHERE}"
    );
    command.args(["--map-root-user", "--net", "sh", "-c", &script, "sh"]);
    command
}

#[test]
#[ignore = "needs Chromium, Firefox and Node.js"]
fn people_in_firefox_meet_those_in_chromium() {
    let _beside = ALONE.read();
    play(elsewhere(), &["--at-once", "2"], 4);
}

/// The filter of the network is changed from scenario to scenario, so they are played one after the other.
#[test]
#[ignore = "needs Chromium, Firefox, Node.js and nft"]
fn people_in_both_meet_where_some_ways_do_not_lead_back() {
    let _beside = ALONE.read();
    program("nft");
    play(elsewhere(), &["--media6", ELSEWHERE_6], 4);
}

/// Likewise one after the other: they share the filter, and count what it drops.
#[test]
#[ignore = "needs Chromium, Firefox, Node.js and nft"]
fn both_shake_hands_a_hundred_times_of_a_hundred_where_a_fifth_is_lost() {
    let _beside = ALONE.read();
    program("nft");
    let only = "lossesInHandshakesOfChromium,lossesInHandshakesOfFirefox";
    play(elsewhere(), &["--media6", ELSEWHERE_6, "--only", only], 2);
}

/// One after the other, because a Firefox that is not in front shows no pictures.
#[test]
#[ignore = "needs Chromium, Firefox and Node.js"]
fn people_in_both_notice_nothing_when_their_worker_is_killed() {
    // Deaths of a worker beside browsers that need all of both CPUs make others give up that have nothing to do with it.
    let _alone = ALONE.write();
    let only = "deathsOverUdp,deathsOverTcp,deathsOverOnePort";
    play(elsewhere(), &["--only", only], 3);
}
