//! `weir serve` as a process: how it takes its socket, how it ends, and what it leaves behind.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod loopback;

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use command::{Manager, Scratch, Serve, ended, in_shell, outcome};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::test]
async fn a_signal_ends_it_and_leaves_nothing() {
    // A process that a script has started in the background has SIGINT ignored, and so would the server. What is heard here is
    // nothing that a child ignores.
    let _heard = signal(SignalKind::interrupt()).expect("signals can be heard");
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let scratch = Scratch::new();
        let serve = scratch.start().await;
        serve.say("room create").await;
        let workers = serve.workers().await;
        let mut events = serve.follow("").await;
        serve.signal(signal);
        let (status, said) = serve.end().await;
        assert!(status.success(), "{status}: {said}");
        assert_eq!(scratch.files(), [] as [&str; 0], "no socket and no lock file");
        for worker in workers {
            assert_eq!(kill(worker, None), Err(Errno::ESRCH), "no worker");
        }
        // Who follows sees it end.
        let mut last = None;
        while let Some(event) = events.next().await {
            last = Some(event);
        }
        assert_eq!(last.as_deref(), Some("server closed"));
        assert!(events.end().await.success());
    }
}

#[tokio::test]
async fn a_killed_server_leaves_no_worker_and_its_socket_is_taken_over() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    let workers = serve.workers().await;
    let mut events = serve.follow("").await;
    serve.signal(Signal::SIGKILL);
    let (status, _) = serve.end().await;
    assert_eq!(status.code(), None);
    for worker in workers {
        ended(worker).await;
    }
    assert_eq!(events.next().await, None);
    assert_eq!(events.end().await.code(), Some(3), "the stream broke off");
    assert!(scratch.socket.exists(), "nobody could remove it");
    scratch.ctl("rooms").await.failed(3, "is `weir serve` running?");
    let next = scratch.start().await;
    next.say("rooms").await;
    next.stop().await;
    assert_eq!(scratch.files(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_second_server_is_refused_and_does_not_disturb_the_first() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    let refused = outcome(scratch.serve()).await;
    let socket = scratch.socket.to_str().unwrap();
    refused.failed(
        1,
        &format!("{socket}: another server is running there (process {})", serve.pid()),
    );
    assert_eq!(refused.stdout, "");
    serve.say("rooms").await;
    serve.stop().await;
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let scratch = Scratch::new();
    std::fs::write(&scratch.socket, "precious").unwrap();
    outcome(scratch.serve()).await.failed(1, "exists and is not a socket");
    assert_eq!(std::fs::read_to_string(&scratch.socket).unwrap(), "precious");
}

#[tokio::test]
async fn a_leftover_socket_is_replaced() {
    let scratch = Scratch::new();
    drop(UnixListener::bind(&scratch.socket).unwrap());
    let serve = scratch.start().await;
    serve.say("health").await;
    serve.stop().await;
}

#[tokio::test]
async fn the_socket_is_private_whatever_the_umask() {
    let scratch = Scratch::new();
    let serve = scratch.serve();
    let serve = Serve::start(in_shell("umask 0", &serve), &scratch.socket).await;
    for file in ["weir.sock", "weir.sock.lock"] {
        let mode = std::fs::metadata(scratch.dir.path().join(file))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    serve.stop().await;
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let scratch = Scratch::new();
    let manager = Manager::new(&scratch);
    let mut command = scratch.serve();
    command
        .args(["--close-timeout", "1h"])
        .env("NOTIFY_SOCKET", &manager.name);
    let serve = Serve::start(command, &scratch.socket).await;
    assert_eq!(manager.told().await, "READY=1");
    let workers = serve.workers().await;
    // A worker that does not end keeps the server waiting.
    kill(workers[0], Signal::SIGSTOP).unwrap();
    serve.signal(Signal::SIGTERM);
    assert_eq!(manager.told().await, "STOPPING=1");
    serve.signal(Signal::SIGTERM);
    let (status, _) = serve.end().await;
    assert_eq!(status.code(), Some(130));
    assert!(!scratch.socket.exists());
    for worker in workers {
        ended(worker).await;
    }
}

#[tokio::test]
async fn a_worker_that_dies_is_told_and_replaced() {
    let scratch = Scratch::new();
    let serve = scratch.start().await;
    let workers = serve.workers().await;
    serve.say("room create --worker 1").await;
    let mut events = serve.follow("").await;
    kill(workers[0], Signal::SIGKILL).unwrap();
    let died = events.next().await.unwrap();
    assert!(
        died.starts_with("worker 1 died  ") && died.contains("name=SIGKILL"),
        "{died}"
    );
    let started = events.next().await.unwrap();
    assert!(started.starts_with("worker 1 started  "), "{started}");
    let restored = events.next().await.unwrap();
    assert!(
        restored.starts_with("worker 1 restored  ") && restored.contains("rooms=1"),
        "{restored}"
    );
    assert_eq!(serve.say("health").await, "ok\n");
    let shown = serve.ask("worker show 1").await;
    assert_eq!(
        (&shown["restarts"], &shown["restorations"], &shown["lastExit"]["name"]),
        (&1.into(), &1.into(), &"SIGKILL".into())
    );
    assert!(shown["lastGapMs"].is_u64(), "{shown}");
    serve.stop().await;
}

#[tokio::test]
async fn a_server_that_is_not_well_says_so() {
    let scratch = Scratch::new();
    // A worker program that starts well until the file appears, and then never.
    let (program, obstacle) = (scratch.dir.path().join("worker"), scratch.dir.path().join("obstacle"));
    let script = format!(
        "#!/bin/sh\ntest -e '{}' && exec sleep 3600\nexec '{}' \"$@\"\n",
        obstacle.display(),
        env!("CARGO_BIN_EXE_weir")
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = scratch.serve();
    command.arg("--worker-binary").arg(&program);
    let serve = Serve::start(command, &scratch.socket).await;
    assert_eq!(serve.say("health").await, "ok\n");
    let workers = serve.workers().await;
    let mut events = serve.follow("--kind workerDied").await;
    // The spare processes, which were made while all was well.
    let spares = serve.spares(&workers).await;
    std::fs::write(&obstacle, "").unwrap();
    for spare in spares {
        kill(spare, Signal::SIGKILL).unwrap();
        // The server waits for it.
        while kill(spare, None).is_ok() {
            tokio::task::yield_now().await;
        }
    }

    kill(workers[1], Signal::SIGKILL).unwrap();
    events.next().await.unwrap();
    let health = serve.ctl("health").await;
    assert_eq!((health.code, health.stderr.as_str()), (1, ""));
    assert!(health.stdout.starts_with("degraded\nworker 2 "), "{}", health.stdout);
    assert!(health.stdout.contains("SIGKILL"), "{}", health.stdout);
    serve.say("room create").await;

    kill(workers[0], Signal::SIGKILL).unwrap();
    events.next().await.unwrap();
    let health = serve.ctl("--json health").await;
    let health: serde_json::Value = serde_json::from_str(&health.stdout).unwrap();
    assert_eq!(
        (&health["status"], health["reasons"].as_array().unwrap().len()),
        (&"down".into(), 2)
    );
    // It waits for a worker to come.
    serve.ctl("--timeout 500ms room create").await.failed(3, "");
    serve.stop().await;
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_usage_errors() {
    let scratch = Scratch::new();
    let config = scratch.dir.path().join("weir.toml");
    std::fs::write(&config, "worker = 2\n").unwrap();
    let mut command = scratch.serve();
    outcome({
        command.arg("--config").arg(&config);
        command
    })
    .await
    .failed(2, "line 1: unknown key \"worker\"; did you mean \"workers\"?");
    let mut command = scratch.serve();
    command.args(["--rtc-ports", "1-2"]);
    outcome(command).await.failed(2, "ports below 1024");
    assert_eq!(scratch.files(), ["weir.toml"]);
}

#[tokio::test]
async fn the_default_socket_is_in_the_runtime_directory() {
    let scratch = Scratch::new();
    let mut command = command::weir([
        "serve",
        "--workers",
        "2",
        "--rtc-ipv4",
        "127.0.0.1",
        "--rtc-ipv6",
        "off",
    ]);
    command.env("XDG_RUNTIME_DIR", scratch.dir.path());
    let serve = Serve::start(command, &scratch.socket).await;
    let mut rooms = command::weir(["ctl", "rooms"]);
    rooms.env("XDG_RUNTIME_DIR", scratch.dir.path());
    assert_eq!(outcome(rooms).await.succeeded("rooms"), "no rooms\n");
    let mut rooms = command::weir(["ctl", "rooms"]);
    rooms.env("WEIR_CONTROL", &scratch.socket);
    assert_eq!(outcome(rooms).await.succeeded("rooms"), "no rooms\n");
    serve.stop().await;
}
