//! Real worker processes die in every way, and the server lives on.

#![allow(clippy::unwrap_used, reason = "tests")]

mod loopback;
mod processes;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use weir::{
    CloseCause, CodecName, ConsumerOptions, DeathCause, EventKind, EventStream, MediaKind, PlainTransportOptions,
    ProducerOptions, Room, RoomOptions, RtpCodec, RtpEncoding, RtpParameters, Server, Settings, StartError, WorkerId,
    WorkerState,
};

use processes::{gone, is_alive, settings, soon};

fn pid_of(server: &Server, worker: WorkerId) -> u32 {
    let workers = server.workers();
    let worker = workers.iter().find(|info| info.id == worker);
    worker.and_then(|info| info.pid).expect("the worker has a process")
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).unwrap();
}

/// The first event that `pick` likes.
async fn event<T>(events: &mut EventStream, pick: impl Fn(&EventKind) -> Option<T>) -> T {
    soon(async {
        loop {
            let event = events.next().await.expect("the server lives");
            if let Some(picked) = pick(&event.kind) {
                return picked;
            }
        }
    })
    .await
}

async fn death(events: &mut EventStream) -> (WorkerId, DeathCause) {
    event(events, |kind| match kind {
        EventKind::WorkerDied { worker, cause, .. } => Some((*worker, cause.clone())),
        _ => None,
    })
    .await
}

async fn start(events: &mut EventStream) -> (WorkerId, u32) {
    event(events, |kind| match kind {
        EventKind::WorkerStarted { worker, pid } => Some((*worker, *pid)),
        _ => None,
    })
    .await
}

async fn room_on(server: &Server, worker: WorkerId) -> Room {
    let options = RoomOptions {
        worker: Some(worker),
        ..RoomOptions::default()
    };
    soon(server.create_room(options)).await.unwrap()
}

fn killed() -> DeathCause {
    DeathCause::Signalled {
        signal: 9,
        name: "SIGKILL".to_owned(),
        core_dumped: false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_while_requests_are_under_way() {
    let server = Server::start(Settings {
        ping_interval: Duration::from_secs(600), // so that what is under way is what the test asks
        ..settings(2)
    })
    .await
    .unwrap();
    let (first, second) = (WorkerId(1), WorkerId(2));
    let bystander = room_on(&server, second).await;
    let room = room_on(&server, first).await;
    let transport = soon(room.create_plain_transport(PlainTransportOptions::default()))
        .await
        .unwrap();
    let parameters = RtpParameters {
        codecs: vec![RtpCodec::new(CodecName::Opus, 111)],
        encodings: vec![RtpEncoding::ssrc(1)],
        ..RtpParameters::default()
    };
    let producer = soon(transport.produce(ProducerOptions::new(MediaKind::Audio, parameters)))
        .await
        .unwrap();
    let consumer = soon(transport.consume(&producer, ConsumerOptions::default()))
        .await
        .unwrap();
    let doomed = room_on(&server, first).await;
    let mut events = server.events();

    // A stopped worker answers nothing, so that these are under way when it is killed.
    let pid = pid_of(&server, first);
    signal(pid, Signal::SIGSTOP);
    let calls = tokio::spawn({
        let (producer, consumer, room, doomed) = (producer.clone(), consumer.clone(), room.clone(), doomed.clone());
        async move {
            tokio::join!(
                producer.pause(Value::Null),
                consumer.pause(Value::Null),
                room.stats(),
                room.create_plain_transport(PlainTransportOptions::default()),
                doomed.close(Value::Null)
            )
        }
    });
    let pending = async {
        while server.workers()[0].requests < 5 {
            tokio::task::yield_now().await;
        }
    };
    soon(pending).await;
    signal(pid, Signal::SIGKILL);

    let (pause, other_pause, stats, created, close) = soon(calls).await.unwrap();
    pause.unwrap();
    other_pause.unwrap();
    stats.unwrap();
    let created = created.unwrap();
    close.unwrap();
    assert!(doomed.closed() && producer.paused() && consumer.paused());
    assert_eq!(death(&mut events).await, (first, killed()));
    let (successor, new_pid) = start(&mut events).await;
    assert_eq!(successor, first);
    assert_ne!(new_pid, pid);
    let restored = event(&mut events, |kind| match kind {
        EventKind::RoomClosed { room: closed, .. } if *closed == room.id() => panic!("{closed} is closed"),
        EventKind::WorkerRestored {
            worker,
            pid,
            rooms,
            lost,
            ..
        } => Some((*worker, *pid, *rooms, *lost)),
        _ => None,
    })
    .await;
    assert_eq!(restored, (first, new_pid, 2, 0));
    // No zombie stays.
    gone(pid).await;
    assert!(!room.closed() && !transport.closed() && !producer.closed() && !consumer.closed());
    soon(created.close(Value::Null)).await.unwrap();
    soon(consumer.resume(Value::Null)).await.unwrap();
    soon(transport.close(Value::Null)).await.unwrap();

    // The other worker has noticed nothing.
    assert!(!bystander.closed());
    soon(bystander.stats()).await.unwrap();
    let info = server.workers().remove(0);
    assert_eq!(
        (info.restarts, info.restorations, info.state, info.last_exit),
        (1, 1, WorkerState::Running, Some(killed()))
    );
    assert!(info.last_gap_ms.is_some());
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_worker_is_noticed_killed_and_replaced() {
    let server = Server::start(Settings {
        // The pings are not what finds it.
        ping_interval: Duration::from_secs(600),
        ping_timeout: Duration::from_secs(2),
        ..settings(1)
    })
    .await
    .unwrap();
    let room = room_on(&server, WorkerId(1)).await;
    let mut events = server.events();
    let pid = pid_of(&server, WorkerId(1));
    signal(pid, Signal::SIGSTOP);
    let (worker, cause) = death(&mut events).await;
    assert_eq!(worker, WorkerId(1));
    assert!(
        // It has nothing to do; but four times a second it looks.
        matches!(
            cause,
            DeathCause::Frozen { rest_ms: 1_000 } | DeathCause::Stuck { turn_ms: 1_000 }
        ),
        "{cause}"
    );
    assert!(!is_alive(pid));
    let (_, successor) = start(&mut events).await;
    assert!(is_alive(successor));
    soon(room.stats()).await.unwrap();
    soon(server.close()).await;
    assert!(!is_alive(successor));
}

// What the kernel does to a worker that makes a system call which its sandbox forbids.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forbidden_system_call_is_told_as_such_and_the_worker_replaced() {
    let server = Server::start(settings(1)).await.unwrap();
    let mut events = server.events();
    signal(pid_of(&server, WorkerId(1)), Signal::SIGSYS);
    let (worker, cause) = death(&mut events).await;
    assert_eq!(worker, WorkerId(1));
    assert_eq!(cause.to_string(), "it was killed by SIGSYS, a forbidden system call");
    start(&mut events).await;
    room_on(&server, WorkerId(1)).await;
    server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_go_to_other_workers_while_one_is_away() {
    let server = Server::start(settings(2)).await.unwrap();
    let mut events = server.events();
    signal(pid_of(&server, WorkerId(1)), Signal::SIGKILL);
    death(&mut events).await;
    // Whether the first is back already or not, rooms can be made.
    for _ in 0..10 {
        soon(server.create_room(RoomOptions::default())).await.unwrap();
    }
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_ignores_the_shutdown_is_killed_at_the_deadline() {
    let server = Server::start(Settings {
        close_timeout: Duration::from_millis(300),
        ..settings(2)
    })
    .await
    .unwrap();
    let pids = [pid_of(&server, WorkerId(1)), pid_of(&server, WorkerId(2))];
    signal(pids[0], Signal::SIGSTOP);
    soon(server.close()).await;
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_and_sigint_to_the_whole_group_do_not_end_a_worker_before_its_supervisor_does() {
    let server = Server::start(settings(1)).await.unwrap();
    let pid = pid_of(&server, WorkerId(1));
    let own_group = nix::unistd::getpgrp();
    assert_ne!(
        nix::unistd::getpgid(Some(Pid::from_raw(pid as i32))).unwrap(),
        own_group
    );
    signal(pid, Signal::SIGTERM);
    signal(pid, Signal::SIGINT);
    let room = room_on(&server, WorkerId(1)).await;
    soon(room.stats()).await.unwrap();
    assert_eq!(pid_of(&server, WorkerId(1)), pid);
    soon(server.close()).await;
}

fn exited_71() -> DeathCause {
    DeathCause::Exited {
        code: 71,
        meaning: "it could not wait for events".to_owned(),
    }
}

/// The process that waits to take the place of a server's only worker.
async fn spare_of(worker: u32) -> u32 {
    let own = std::process::id().to_string();
    let children = || {
        let processes = std::fs::read_dir("/proc").unwrap();
        let numbers = processes.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<u32>().ok());
        numbers.filter(|pid| {
            // The parent is the second field after the name, which is in parentheses.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            let after_name = stat.rsplit(')').next().unwrap_or_default();
            after_name.split_whitespace().nth(1) == Some(&own)
        })
    };
    let arguments = |pid: u32| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    soon(async {
        loop {
            // Tests of this program have workers, too: it is of the same server if it is given the same arguments and program.
            let same = |pid: &u32| *pid != worker && arguments(*pid) == arguments(worker);
            match children().find(same) {
                Some(spare) => return spare,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await
}

/// A program that is no worker.
fn script(folder: &Path, text: &str) -> PathBuf {
    let path = folder.join("not-a-worker");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_exits_at_once_fails_the_start_with_its_last_words() {
    let folder = tempfile::tempdir().unwrap();
    let rows = [
        (
            "echo 'no memory for me' >&2; exit 70",
            "worker 1 did not start: it exited with code 70 (it could not be set up); its last log lines: no memory for me",
        ),
        (
            "exit 3",
            "worker 1 did not start: it exited with code 3 (not a code of a worker)",
        ),
        ("kill -TERM $$", "worker 1 did not start: it was killed by SIGTERM"),
        (
            "echo garbage garbage garbage >&0; exec sleep 1000",
            "worker 1 did not start: it broke the channel's protocol (",
        ),
    ];
    for (text, expected) in rows {
        let error = soon(Server::start(Settings {
            worker_binary: Some(script(folder.path(), text)),
            ..settings(2)
        }))
        .await
        .unwrap_err();
        let StartError::Worker { .. } = &error else {
            panic!("{error:?}");
        };
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_says_nothing_is_given_up_and_killed() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let text = format!("echo $$ > {}; exec sleep 1000", pid_file.display());
    let error = soon(Server::start(Settings {
        worker_binary: Some(script(folder.path(), &text)),
        start_timeout: Duration::from_secs(2),
        ..settings(1)
    }))
    .await
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "worker 1 did not start: it did not say hello within 2000 ms and was killed"
    );
    let pid = std::fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    assert!(!is_alive(pid));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_keeps_dying_is_restarted_ever_more_slowly_until_it_lives() {
    // The worker program is a link, so that it can be broken and mended while the server runs.
    let folder = tempfile::tempdir().unwrap();
    let broken = script(folder.path(), "exit 71");
    let program = folder.path().join("worker");
    let mend = |target: &Path| {
        let fresh = folder.path().join("fresh");
        std::fs::write(&fresh, format!("#!/bin/sh\nexec {} \"$@\"\n", target.display())).unwrap();
        std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::rename(fresh, &program).unwrap();
    };
    mend(Path::new(env!("CARGO_BIN_EXE_weir-worker")));
    let server = Server::start(Settings {
        worker_binary: Some(program.clone()),
        ..settings(1)
    })
    .await
    .unwrap();
    let room = room_on(&server, WorkerId(1)).await;
    let mut events = server.events();
    // The spare process that was made while all was well.
    let spare = spare_of(pid_of(&server, WorkerId(1))).await;
    mend(&broken);
    signal(spare, Signal::SIGKILL);
    gone(spare).await;
    signal(pid_of(&server, WorkerId(1)), Signal::SIGKILL);
    let waiting = tokio::spawn({
        let room = room.clone();
        async move { room.stats().await }
    });
    let mut waits = Vec::new();
    let mut closed = None;
    while waits.len() < 7 {
        let (cause, wait) = event(&mut events, |kind| match kind {
            EventKind::WorkerDied {
                cause, restart_in_ms, ..
            } => Some((cause.clone(), *restart_in_ms)),
            EventKind::RoomClosed { cause, .. } => Some((
                match cause {
                    CloseCause::WorkerDied { cause, .. } => cause.clone(),
                    other => panic!("{other:?}"),
                },
                None,
            )),
            _ => None,
        })
        .await;
        let Some(wait) = wait else {
            closed = Some((waits.len(), cause));
            continue;
        };
        if waits.is_empty() {
            assert_eq!(cause, killed());
        } else {
            assert_eq!(cause, exited_71());
        }
        waits.push(wait);
    }
    assert_eq!(waits, [0, 100, 200, 400, 800, 1_600, 3_200]);
    assert_eq!(
        closed,
        Some((6, exited_71())),
        "the rooms were kept until there was no hope"
    );
    assert!(room.closed());
    let _ = soon(waiting).await.unwrap();
    let error = soon(server.create_room(RoomOptions::default())).await.unwrap_err();
    assert_eq!(error.code(), "noWorker");
    assert!(error.to_string().contains("it exited with code 71"), "{error}");
    mend(Path::new(env!("CARGO_BIN_EXE_weir-worker")));
    start(&mut events).await;
    room_on(&server, WorkerId(1)).await;
    assert!(server.workers()[0].restarts >= 4);
    soon(server.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_does_not_wait_for_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(settings(1)).await.unwrap();
    let mut events = server.events();
    signal(pid_of(&server, WorkerId(1)), Signal::SIGKILL);
    death(&mut events).await;
    soon(server.close()).await;
    assert_eq!(server.workers()[0].state, WorkerState::Closed);
    drop(folder);
}

#[test]
fn a_runtime_that_ends_under_the_server_leaves_nobody_waiting() {
    let runtime = || tokio::runtime::Runtime::new().unwrap();
    let first = runtime();
    let server = first.block_on(Server::start(settings(1))).unwrap();
    let room = first.block_on(server.create_room(RoomOptions::default())).unwrap();
    let pid = pid_of(&server, WorkerId(1));
    drop(first);
    runtime().block_on(async {
        assert_eq!(soon(room.stats()).await.unwrap_err().code(), "invalidState");
        let error = soon(server.create_room(RoomOptions::default())).await.unwrap_err();
        assert!(["noWorker", "invalidState"].contains(&error.code()), "{error}");
        soon(server.close()).await;
        // It was killed; nobody is left to reap it but this process's end.
        soon(async {
            while std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z ")) {
                tokio::task::yield_now().await;
            }
        })
        .await;
    });
}
