//! `weir serve` as a process under somebody else's care: a service manager that wants signs of life, a shell that has it ignore signals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command;
mod loopback;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use command::{Manager, Scratch, Serve, in_shell, soon};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SIGN_OF_LIFE: &str = "WATCHDOG=1";

/// What the manager was told before `end`, which is the last thing that counts.
async fn told_before(manager: &Manager, end: &str) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        match manager.told().await {
            word if word == end => return told,
            word => told.push(word),
        }
    }
}

#[tokio::test]
async fn the_service_manager_is_told() {
    let scratch = Scratch::new();
    for manager in [Manager::new(&scratch), Manager::without_file(&scratch)] {
        let mut command = scratch.serve();
        command.env("NOTIFY_SOCKET", &manager.name);
        let serve = Serve::start(command, &scratch.socket).await;
        assert_eq!(manager.told().await, "READY=1");
        serve.stop().await;
        assert_eq!(manager.told().await, "STOPPING=1");
    }
}

// sd_watchdog_enabled(3): the service should send WATCHDOG=1 about every half of WATCHDOG_USEC.
#[tokio::test]
async fn a_manager_that_wants_signs_of_life_gets_them_from_the_start_to_the_stop() {
    let scratch = Scratch::new();
    for manager in [Manager::new(&scratch), Manager::without_file(&scratch)] {
        let mut command = scratch.serve();
        command
            .env("NOTIFY_SOCKET", &manager.name)
            .env("WATCHDOG_USEC", "20000");
        // It is the shell's own process that becomes the server.
        let command = in_shell("export WATCHDOG_PID=$$", &command);
        let serve = Serve::start(command, &scratch.socket).await;
        assert_eq!(manager.told().await, "READY=1");
        for _ in 0..20 {
            assert_eq!(manager.told().await, SIGN_OF_LIFE);
        }
        serve.stop().await;
        let told = told_before(&manager, "STOPPING=1").await;
        assert!(told.iter().all(|word| word == SIGN_OF_LIFE), "{told:?}");
    }
}

// sd_watchdog_enabled(3): signs are expected of a process if $WATCHDOG_PID is unset or names it.
#[tokio::test]
async fn signs_of_life_that_are_wanted_from_another_process_are_not_given() {
    let scratch = Scratch::new();
    for unwanted in [
        &[("WATCHDOG_USEC", "2000"), ("WATCHDOG_PID", "1")][..],
        &[("WATCHDOG_USEC", "0")],
        &[("WATCHDOG_USEC", "soon")],
        &[],
    ] {
        let manager = Manager::new(&scratch);
        let mut command = scratch.serve();
        command
            .env("NOTIFY_SOCKET", &manager.name)
            .envs(unwanted.iter().copied());
        let serve = Serve::start(command, &scratch.socket).await;
        // Each command takes longer than a sign of life would be away.
        for _ in 0..3 {
            serve.say("health").await;
        }
        serve.stop().await;
        assert_eq!(told_before(&manager, "STOPPING=1").await, ["READY=1"], "{unwanted:?}");
        std::fs::remove_file(scratch.dir.path().join("notify")).unwrap();
    }
}

// A server that does not run gives no sign of life: the manager restarts it.
#[tokio::test]
async fn a_stopped_server_gives_no_sign_of_life() {
    let scratch = Scratch::new();
    let manager = Manager::new(&scratch);
    let mut command = scratch.serve();
    command.env("NOTIFY_SOCKET", &manager.name).env("WATCHDOG_USEC", "2000");
    let serve = Serve::start(command, &scratch.socket).await;
    assert_eq!(manager.told().await, "READY=1");
    assert_eq!(manager.told().await, SIGN_OF_LIFE);
    serve.stall();
    manager.drain();
    // It would come within a millisecond.
    assert!(!manager.hears_within(Duration::from_millis(200)).await);
    serve.signal(Signal::SIGCONT);
    assert_eq!(manager.told().await, SIGN_OF_LIFE);
    serve.stop().await;
}

// POSIX: the utility that nohup invokes ignores SIGHUP; and (2.11, Signals and Error Handling) commands that a shell without job
// control runs in the background ignore SIGINT.
#[tokio::test]
async fn a_signal_that_it_was_told_to_ignore_does_not_end_it() {
    for (name, signal) in [("HUP", Signal::SIGHUP), ("INT", Signal::SIGINT)] {
        let scratch = Scratch::new();
        let mut command = scratch.serve();
        command.args(["--log-level", "info"]);
        let command = in_shell(&format!("trap '' {name}"), &command);
        let serve = Serve::start(command, &scratch.socket).await;
        serve.signal(signal);
        assert_eq!(serve.say("health").await, "ok\n");
        serve.signal(Signal::SIGTERM);
        let (status, said) = serve.end().await;
        assert!(status.success(), "{status}: {said}");
        assert!(said.contains("closing") && said.contains("SIGTERM"), "{said}");
        assert!(!said.contains(&format!("SIG{name}")), "{said}");
    }
}

// Whoever ignores SIGTERM in all that it starts must still be able to end a server in order.
#[tokio::test]
async fn sigterm_ends_it_also_where_it_was_ignored() {
    let scratch = Scratch::new();
    let command = in_shell("trap '' TERM", &scratch.serve());
    let serve = Serve::start(command, &scratch.socket).await;
    serve.stop().await;
}

/// Longer than a worker has for its answer.
const STOP: Duration = Duration::from_secs(7);

/// Busy loops on one CPU, until they are dropped.
struct Busy {
    ended: Arc<AtomicBool>,
    loops: Vec<JoinHandle<()>>,
}

impl Busy {
    /// So many that a thread beside them that gives way gets next to nothing.
    const LOOPS: usize = 96;

    fn on(cpu: usize) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let loops = (0..Self::LOOPS).map(|_| {
            let ended = Arc::clone(&ended);
            std::thread::spawn(move || {
                confine(Pid::from_raw(0), cpu);
                while !ended.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        });
        Self {
            loops: loops.collect(),
            ended,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        for busy in self.loops.drain(..) {
            busy.join().unwrap();
        }
    }
}

fn confine(thread: Pid, cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu).unwrap();
    sched_setaffinity(thread, &set).unwrap();
}

/// How long a process's threads have been on a CPU (proc_pid_schedstat: the first number, in nanoseconds).
fn ran(process: Pid) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let of_thread = |thread: std::io::Result<std::fs::DirEntry>| {
        let told = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap_or_default();
        told.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.map(of_thread).sum())
}

// A supervisor that gets no CPU reads no answers: that says nothing of its workers.
#[tokio::test]
async fn workers_survive_a_server_that_is_starved_beside_busy_loops() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let cpus: Vec<usize> = (0..CpuSet::count())
        .filter(|cpu| allowed.is_set(*cpu).unwrap())
        .collect();
    let [of_worker, of_server, ..] = cpus[..] else {
        // On one CPU the workers starve as well, and time stands still for both.
        return;
    };
    let _alone = ALONE.lock().await;
    let scratch = Scratch::new();
    let mut command = scratch.serve_watching("5s");
    command.args(["--ping-interval", "50ms"]);
    let serve = Serve::start(command, &scratch.socket).await;
    serve.say("room create").await;
    let before = serve.workers().await;
    for worker in &before {
        confine(*worker, of_worker);
    }
    // The server gives way to everybody.
    let threads = std::fs::read_dir(format!("/proc/{}/task", serve.pid())).unwrap();
    let threads: Vec<String> = threads
        .map(|thread| thread.unwrap().file_name().into_string().unwrap())
        .collect();
    for thread in &threads {
        confine(Pid::from_raw(thread.parse().unwrap()), of_server);
    }
    let given_way = Command::new("renice")
        .args(["-n", "19", "-p"])
        .args(&threads)
        .output()
        .unwrap();
    assert!(given_way.status.success(), "{given_way:?}");
    // So that pings are under way when it begins, the workers are stopped until then.
    for worker in &before {
        kill(*worker, Signal::SIGSTOP).unwrap();
    }
    soon("pings", all_are_asked(&serve)).await;
    let ran_before = ran(serve.pid());
    let busy = Busy::on(of_server);
    for worker in &before {
        kill(*worker, Signal::SIGCONT).unwrap();
    }
    tokio::time::sleep(STOP).await;
    drop(busy);
    let ran = ran(serve.pid()) - ran_before;
    assert!(ran < STOP / 10, "it was not starved: it ran for {ran:?} of {STOP:?}");
    let workers = soon("an answer", serve.ask("workers")).await;
    for worker in workers.as_array().unwrap() {
        assert_eq!(
            (&worker["restarts"], &worker["lastExit"]),
            (&0.into(), &().into()),
            "{worker}"
        );
    }
    assert_eq!(serve.workers().await, before);
    assert!(serve.say("rooms").await.contains("1"), "the room is there");
    serve.stop().await;
}

/// Whose workers have little time is not played beside what takes their CPU away.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A ping is under way to each worker.
async fn all_are_asked(serve: &Serve) {
    loop {
        let workers = serve.ask("workers").await;
        if workers.as_array().unwrap().iter().all(|worker| worker["requests"] == 1) {
            return;
        }
    }
}

// The workers answer meanwhile; what they said lies in the channels.
#[tokio::test]
async fn workers_survive_a_stop_of_their_server() {
    let _alone = ALONE.lock().await;
    let scratch = Scratch::new();
    let mut command = scratch.serve_watching("5s");
    command.args(["--ping-interval", "50ms"]);
    let serve = Serve::start(command, &scratch.socket).await;
    serve.say("room create").await;
    let before = serve.workers().await;
    // So that pings are under way at the stop, the workers are stopped until it.
    for worker in &before {
        kill(*worker, Signal::SIGSTOP).unwrap();
    }
    soon("pings", all_are_asked(&serve)).await;
    serve.stall();
    for worker in &before {
        kill(*worker, Signal::SIGCONT).unwrap();
    }
    tokio::time::sleep(STOP).await;
    serve.signal(Signal::SIGCONT);
    // The answers of two more rounds.
    for _ in 0..2 {
        let answered = async {
            while serve
                .ask("workers")
                .await
                .as_array()
                .unwrap()
                .iter()
                .any(|worker| worker["requests"] != 0)
            {}
        };
        soon("answers", answered).await;
    }
    let workers = serve.ask("workers").await;
    for worker in workers.as_array().unwrap() {
        assert_eq!(
            (&worker["restarts"], &worker["lastExit"]),
            (&0.into(), &().into()),
            "{worker}"
        );
    }
    assert_eq!(serve.workers().await, before);
    assert!(serve.say("rooms").await.contains("1"), "the room is there");
    serve.stop().await;
}
