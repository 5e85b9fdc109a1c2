//! People with aiortc, a WebRTC stack of its own kind (libsrtp, OpenSSL, libvpx, x264): they speak the mediasoup protocol, send
//! pictures and a tone, and decode those of each other.
//!
//! `cargo test --test e2e_aiortc -- --ignored`; it needs `python3 -m venv tests/aiortc/.venv` and in it what
//! `tests/aiortc/requirements.txt` names, and fails without.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod control;
mod loopback;

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use weir::{DtlsState, MediaKind, Room, RoomOptions};

use control::{Control, soon};

/// A program with aiortc.
struct Person {
    process: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Person {
    fn start(control: &Control, room: &Room, name: &str, video: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/aiortc");
        let mut process = Command::new(folder.join(".venv/bin/python"))
            .arg(folder.join("peer.py"))
            .arg(&control.path)
            .args([&room.id().0.to_string(), name, "send", "receive", "--video"])
            .args(video)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("this test needs aiortc in tests/aiortc/.venv");
        let said = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, said }
    }

    /// What it says next of what it has decoded.
    async fn report(&mut self) -> Value {
        let line = soon("a report", self.said.next_line()).await.unwrap();
        serde_json::from_str(&line.expect("it ended")).unwrap()
    }

    /// Waits until it has decoded so much since then.
    async fn decodes(&mut self, what: &str, more: u64) -> Value {
        let count = |report: &Value| report[what].as_u64().unwrap();
        let before = count(&self.report().await);
        soon(what, async {
            loop {
                let report = self.report().await;
                if count(&report) >= before + more {
                    return report;
                }
            }
        })
        .await
    }

    /// Its input ends, so it leaves.
    async fn leave(mut self) {
        drop(self.process.stdin.take());
        let ending = async { while self.said.next_line().await.unwrap().is_some() {} };
        soon("its last words", ending).await;
        assert!(soon("its end", self.process.wait()).await.unwrap().success());
    }
}

/// What was decoded is what was sent: a bright bar on dark ground, and a tone of 440 Hz.
fn is_what_was_sent(report: &Value) {
    assert!(report["contrast"].as_u64() > Some(120), "{report}");
    assert!(report["loudness"].as_u64() > Some(2_000), "{report}");
    let pitch = report["pitch"].as_u64().unwrap();
    assert!((390..=490).contains(&pitch), "{report}");
}

async fn meet(control: &Control, video: &[&str]) -> (Room, Person, Person) {
    let room = soon("a room", control.server.create_room(RoomOptions::default()))
        .await
        .unwrap();
    let mut alice = Person::start(control, &room, "alice", video);
    alice.report().await;
    let mut bob = Person::start(control, &room, "bob", video);
    for person in [&mut alice, &mut bob] {
        person.decodes("video", 45).await;
        is_what_was_sent(&person.decodes("audio", 100).await);
    }
    (room, alice, bob)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs aiortc"]
async fn people_with_aiortc_see_each_other_by_vp8_and_a_pause_is_one() {
    let control = Control::start().await;
    let (room, alice, mut bob) = meet(&control, &["VP8"]).await;
    let peer = room.peer("alice").unwrap();
    for transport in peer.transports() {
        assert_eq!(transport.webrtc().unwrap().dtls_state(), DtlsState::Connected);
    }
    let mut producers = peer.producers();
    producers.retain(|producer| producer.kind() == MediaKind::Video);
    let picture = producers.remove(0);

    soon("the pause", picture.pause(Value::Null)).await.unwrap();
    // What was on its way may still be decoded; then the sound goes on alone.
    let mut seen = bob.report().await["video"].clone();
    soon("the last picture", async {
        loop {
            let report = bob.decodes("audio", 100).await;
            let now = report["video"].clone();
            if std::mem::replace(&mut seen, now) == seen {
                return;
            }
        }
    })
    .await;
    soon("the end of the pause", picture.resume(Value::Null)).await.unwrap();
    is_what_was_sent(&bob.decodes("video", 30).await);

    alice.leave().await;
    soon("the peer's end", async {
        while room.peer("alice").is_some() {
            bob.report().await;
        }
    })
    .await;
    bob.leave().await;
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs aiortc"]
async fn people_with_aiortc_see_each_other_by_h264() {
    let control = Control::start().await;
    let (_room, alice, bob) = meet(&control, &["H264"]).await;
    alice.leave().await;
    bob.leave().await;
    control.close().await;
}

/// Two people of the same kind meet and leave.
async fn meet_and_part(arguments: &[&str]) {
    let control = Control::start().await;
    let (_room, alice, bob) = meet(&control, arguments).await;
    alice.leave().await;
    bob.leave().await;
    control.close().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs aiortc"]
async fn people_who_wait_for_the_handshake_see_each_other_too() {
    meet_and_part(&["VP8", "--dtls=server"]).await;
}

/// Not as servers: OpenSSL 4, which is aiortc's, offers nothing for that curve then.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs aiortc"]
async fn people_with_p224_certificates_see_each_other_too() {
    meet_and_part(&["VP8", "--key=P-224"]).await;
}

/// Not as servers: aiortc has no cipher suite for a server with an RSA key.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs aiortc"]
async fn people_with_rsa_certificates_see_each_other_too() {
    meet_and_part(&["VP8", "--key=RSA-2048"]).await;
}
