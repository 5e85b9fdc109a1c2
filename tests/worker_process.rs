//! The worker program as a process: what it needs to start, what it gives up, and how it ends.
#![allow(clippy::unwrap_used, reason = "a failure here is a failure of the test")]

use std::fs;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::unistd::geteuid;
use weir_channel::codec;
use weir_channel::frame::{self, Decoder};
use weir_channel::id::{RequestId, WorkerId};
use weir_channel::message::{
    Deadline, Hello, Message, Method, Notification, Reply, Request, Response, Sandbox, SandboxMode,
};
use weir_worker::exit::Exit;
use weir_worker::process::Arguments;
use weir_worker::sandbox::User;
use weir_worker::switches::Switches;

const PATIENCE: Duration = Duration::from_secs(30);

/// Whom a worker of root's becomes.
const NOBODY: User = User {
    uid: 65_534,
    gid: 65_534,
};

fn arguments() -> Arguments {
    Arguments {
        reserve: 0,
        id: WorkerId(3),
        cpu: None,
        parent_pid: std::process::id(),
        sandbox: SandboxMode::Auto,
        user: None,
        switches: Switches {
            gop_cache: true,
            ..Switches::default()
        },
    }
}

fn command(arguments: &Arguments, stdin: Stdio) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir-worker"));
    command.arg(weir_worker::process::SUBCOMMAND).args(arguments.to_args());
    command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A worker and the other end of its channel.
fn worker(arguments: &Arguments) -> (Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let child = command(arguments, OwnedFd::from(theirs).into()).spawn().unwrap();
    (child, ours)
}

fn send(channel: &mut UnixStream, message: &Message) {
    channel.write_all(&frame::encode(message).unwrap()).unwrap();
}

fn receive(channel: &mut UnixStream) -> Message {
    let mut decoder = Decoder::new();
    loop {
        let mut byte = [0];
        channel.read_exact(&mut byte).unwrap();
        if let Some(frame) = decoder.next_frame(&mut &byte[..]).unwrap() {
            return codec::decode(frame.body).unwrap();
        }
    }
}

fn exit_of(output: &Output) -> (Option<Exit>, String) {
    assert_eq!(output.stdout, b"");
    let code = output.status.code().expect("it exits, rather than be killed");
    (Exit::from_code(code), String::from_utf8(output.stderr.clone()).unwrap())
}

#[test]
fn it_says_what_is_wrong_with_its_command_line() {
    let output = Command::new(env!("CARGO_BIN_EXE_weir-worker"))
        .arg("--help")
        .output()
        .unwrap();
    let expected = "weir-worker: bad arguments: unknown argument \"--help\"; a worker is started by its supervisor\n";
    assert_eq!(exit_of(&output), (Some(Exit::BadArguments), expected.to_owned()));
}

#[test]
fn it_does_not_run_without_a_channel_or_without_its_parent() {
    let output = command(&arguments(), Stdio::null()).output().unwrap();
    let (exit, stderr) = exit_of(&output);
    assert_eq!(exit, Some(Exit::NoChannel));
    assert!(stderr.contains("descriptor 0 is not a Unix stream socket"), "{stderr}");

    let orphan = Arguments {
        parent_pid: 1,
        ..arguments()
    };
    let (child, _channel) = worker(&orphan);
    let expected = (Some(Exit::ParentGone), String::new());
    assert_eq!(exit_of(&child.wait_with_output().unwrap()), expected);

    let nowhere = Arguments {
        cpu: Some(1023),
        ..arguments()
    };
    let (child, _channel) = worker(&nowhere);
    let (exit, stderr) = exit_of(&child.wait_with_output().unwrap());
    assert_eq!(exit, Some(Exit::Setup));
    assert!(stderr.contains("sched_setaffinity"), "{stderr}");
}

/// The sandbox as it is reported, which is the first thing after the Hello.
fn sandbox_of(channel: &mut UnixStream) -> Sandbox {
    match receive(channel) {
        Message::Notification(Notification::Sandboxed(sandbox)) => sandbox,
        other => panic!("{other:?}"),
    }
}

#[test]
fn it_settles_in_answers_and_leaves() {
    // A CPU that this process may use; which one is the machine's affair.
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = field(&status, "Cpus_allowed_list:");
    let cpu: u32 = allowed.split(['-', ',']).next().unwrap().parse().unwrap();
    for mode in [SandboxMode::Off, SandboxMode::Auto, SandboxMode::Require] {
        let pinned = Arguments {
            cpu: Some(cpu),
            sandbox: mode,
            user: geteuid().is_root().then_some(NOBODY),
            ..arguments()
        };
        let (child, mut channel) = worker(&pinned);
        let Message::Hello(hello) = receive(&mut channel) else {
            panic!("not a Hello")
        };
        assert_eq!((hello.worker, hello.pid), (WorkerId(3), child.id()));
        let proc = |file: &str| format!("/proc/{}/{file}", child.id());
        let status = fs::read_to_string(proc("status")).unwrap();
        assert_eq!(field(&status, "Cpus_allowed_list:"), cpu.to_string());
        assert_eq!(field(&status, "NoNewPrivs:"), "1");
        assert_eq!(field(&status, "Threads:"), "1");
        if mode == SandboxMode::Off {
            assert_eq!(field(&status, "Seccomp:"), "0");
        } else {
            let sandbox = sandbox_of(&mut channel);
            assert_eq!(sandbox.lacks, [], "this kernel has all of it");
            assert_eq!(field(&status, "Seccomp:"), "2");
            assert_eq!(field(&status, "CapPrm:"), "0000000000000000");
            // The files of a process that is not dumpable are root's.
            assert_eq!(fs::metadata(proc("status")).unwrap().uid(), 0);
            if geteuid().is_root() {
                assert_eq!(sandbox.user, Some(NOBODY.uid));
                assert_eq!(field(&status, "Uid:"), ["65534"; 4].join("\t"));
                assert_eq!(field(&status, "Groups:"), "");
            }
        }
        // What belongs to a process that is not dumpable is for root to see.
        if mode == SandboxMode::Off || geteuid().is_root() {
            let limits = fs::read_to_string(proc("limits")).unwrap();
            let files: Vec<_> = field(&limits, "Max open files").split_whitespace().collect();
            assert_eq!(files[0], files[1], "soft and hard limit");
            // Standard input is nothing now; the channel, two epolls (for those it knows and for all others) and its memory counter are all that
            // it has opened.
            let expected = [
                "/dev/null",
                &proc("statm"),
                "anon_inode",
                "anon_inode",
                "pipe",
                "pipe",
                "socket",
            ];
            assert_eq!(open_files(&proc("fd")), expected);
        }

        send(&mut channel, &Message::Hello(Hello::new("test", WorkerId(3))));
        for (id, method) in [Method::Ping, Method::Shutdown].into_iter().enumerate() {
            let id = RequestId(id as u64);
            let deadline = Deadline::after(PATIENCE);
            send(&mut channel, &Message::Request(Request { id, deadline, method }));
            let response = Response {
                id,
                result: Ok(Reply::Done),
            };
            assert_eq!(receive(&mut channel), Message::Response(response));
        }
        let expected = (Some(Exit::Success), String::new());
        assert_eq!(exit_of(&child.wait_with_output().unwrap()), expected);
    }
}

/// What the descriptors of a process are, without their numbers.
fn open_files(folder: &str) -> Vec<String> {
    let mut open: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            fs::read_link(entry.unwrap().path())
                .unwrap()
                .to_string_lossy()
                .into_owned()
        })
        .map(|target| target.split([':', '[']).next().unwrap().to_owned())
        .collect();
    open.sort();
    open
}

#[test]
fn it_ends_with_its_channel_and_tells_a_version_that_does_not_match() {
    let (child, channel) = worker(&arguments());
    drop(channel);
    let expected = (Some(Exit::ChannelLost), String::new());
    assert_eq!(exit_of(&child.wait_with_output().unwrap()), expected);

    let (child, mut channel) = worker(&arguments());
    let newer = Hello {
        protocol: 1_000,
        ..Hello::new("9.9", WorkerId(3))
    };
    send(&mut channel, &Message::Hello(newer));
    let (exit, stderr) = exit_of(&child.wait_with_output().unwrap());
    assert_eq!(exit, Some(Exit::VersionMismatch));
    assert!(stderr.contains("1000") && stderr.contains("9.9"), "{stderr}");
}

/// A Ctrl-C in the terminal reaches the workers too; the supervisor decides when they end.
#[test]
fn a_signal_meant_for_the_supervisor_does_not_end_it() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    let (mut child, mut channel) = worker(&arguments());
    receive(&mut channel);
    sandbox_of(&mut channel);
    send(&mut channel, &Message::Hello(Hello::new("test", WorkerId(3))));
    let pid = Pid::from_raw(child.id() as i32);
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        kill(pid, signal).unwrap();
    }
    let ping = Request {
        id: RequestId(1),
        deadline: Deadline::after(PATIENCE),
        method: Method::Ping,
    };
    send(&mut channel, &Message::Request(ping));
    assert!(matches!(receive(&mut channel), Message::Response(_)));
    kill(pid, Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().code(), None);
}

/// The rest of the line that begins with `name`.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line[name.len()..].trim()
}
