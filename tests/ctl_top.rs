//! `weir top`, where there is no terminal.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod loopback;

use std::path::Path;

use command::{Outcome, Scratch, outcome, weir};
use serde_json::Value;

async fn top(socket: &Path, args: &[&str]) -> Outcome {
    let mut command = weir(["top", "--control"]);
    command.arg(socket).args(args);
    outcome(command).await
}

#[tokio::test]
async fn a_picture_shows_workers_and_rooms() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    serve
        .say(r#"room create --app-data {"name":"\u001b[2J\u202estandup"}"#)
        .await;
    for args in [&["--once"][..], &[]] {
        let shown = top(&scratch.socket, args).await.succeeded("top");
        assert!(shown.starts_with("weir top: 2 workers, 1 rooms"), "{shown}");
        assert!(shown.contains("standup"), "{shown}");
        assert!(!shown.contains(['\u{1b}', '\u{202e}']), "{shown:?}");
    }
    let told = top(&scratch.socket, &["--json"]).await.succeeded("top --json");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["workers"].as_array().unwrap().len(), 2, "{told}");
    assert_eq!(told["rooms"]["items"][0]["id"], 1, "{told}");
    assert_eq!(told["stats"]["total"]["rooms"], 1, "{told}");
    serve.stop().await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error() {
    let scratch = Scratch::new();
    for args in [&["--once"][..], &["--json"]] {
        top(&scratch.socket, args).await.failed(3, "is `weir serve` running?");
    }
    top(&scratch.socket, &["--interval", "1ms"])
        .await
        .failed(2, "--interval");
}
