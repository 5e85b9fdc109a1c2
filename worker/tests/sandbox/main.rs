//! The sandbox around a worker, tried from inside: each test starts this program again as a process that confines itself as a worker does
//! and then does what it is told, and looks at how that process ends.
//!
//! A test runner of its own, because a process with threads is confined differently from a worker, which has one.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failure here is a failure of the test, and what a child prints is read"
)]

mod inside;

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitCode, Output};
use std::{env, thread};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use weir_worker::exit::Exit;
use weir_worker::sandbox::system_calls::{Condition, SYSTEM_CALLS, SystemCall, Verdict};

use inside::{Act, NOT_HERE};

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    if args.next().as_deref() == Some(INSIDE) {
        inside::run(&args.collect::<Vec<_>>());
    }
    let trial = |name, run: fn()| {
        Trial::test(name, move || {
            run();
            Ok::<(), Failed>(())
        })
    };
    let trials = vec![
        trial(
            "each_call_has_the_verdict_of_its_rule",
            each_call_has_the_verdict_of_its_rule,
        ),
        trial("each_condition_of_a_rule_counts", each_condition_of_a_rule_counts),
        trial("what_an_attacker_needs_kills", what_an_attacker_needs_kills),
        trial("each_rule_has_its_reasons_once", each_rule_has_its_reasons_once),
        trial("nothing_of_the_process_is_left", nothing_of_the_process_is_left),
        trial("landlock_denies_by_itself", landlock_denies_by_itself),
        trial("lost_privileges_do_not_come_back", lost_privileges_do_not_come_back),
        trial("memory_comes_and_goes", memory_comes_and_goes),
        trial("keys_are_made_inside", keys_are_made_inside),
        trial("a_panic_is_told_from_inside", a_panic_is_told_from_inside),
        trial("a_contained_panic_ends_nothing", a_contained_panic_ends_nothing),
        trial("each_abort_is_told_from_inside", each_abort_is_told_from_inside),
        trial(
            "what_a_kernel_refuses_is_named_and_the_rest_holds",
            what_a_kernel_refuses_is_named_and_the_rest_holds,
        ),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The first argument of a process inside.
const INSIDE: &str = "inside";

/// Numbers of system calls that are tried: those of Linux 6.18 end at 470.
const NUMBERS: std::ops::Range<c_long> = 0..600;

fn child(act: &Act) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command.env_remove("RUST_BACKTRACE").arg(INSIDE).args(act.to_args());
    command
}

fn outcome(act: &Act) -> Output {
    child(act).output().unwrap()
}

/// What a child printed that has ended well.
fn printed(act: &Act) -> String {
    let output = outcome(act);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{act:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn signal_of(output: &Output) -> Option<Signal> {
    output.status.signal().map(|signal| Signal::try_from(signal).unwrap())
}

/// How a call ended: by the kernel's killing the process, or by its return.
#[derive(PartialEq, Eq, Debug)]
enum Ended {
    Killed,
    Refused(Errno),
    Otherwise,
}

fn call(number: c_long, arguments: [i64; 6]) -> Ended {
    let output = outcome(&Act::Call { number, arguments });
    match (signal_of(&output), output.status.code()) {
        (Some(Signal::SIGSYS), _) => Ended::Killed,
        (None, Some(code)) if code > 0 => Ended::Refused(Errno::from_raw(code)),
        _ => Ended::Otherwise,
    }
}

/// Arguments that no call does anything with.
const NONSENSE: [i64; 6] = [-1; 6];

/// Does the same for each, on two threads.
fn on_two_threads<T: Sync>(items: &[T], check: impl Fn(&T) + Sync) {
    let (even, odd) = (items.iter().step_by(2), items.iter().skip(1).step_by(2));
    thread::scope(|scope| {
        let other = scope.spawn(|| odd.for_each(&check));
        even.for_each(&check);
        other.join().unwrap();
    });
}

/// What the kernel lets pass every filter, because its own probes make programs call it: uretprobe(2) and uprobe(2), which do nothing
/// outside of these.
#[cfg(target_arch = "x86_64")]
const OF_PROBES: [c_long; 2] = [335, 336];
#[cfg(not(target_arch = "x86_64"))]
const OF_PROBES: [c_long; 0] = [];

// The list is all that there is: whatever else the kernel has, and the same by another of its interfaces, kills.
fn each_call_has_the_verdict_of_its_rule() {
    let listed: BTreeMap<c_long, &SystemCall> = SYSTEM_CALLS.iter().map(|call| (call.number, call)).collect();
    let mut numbers: Vec<c_long> = NUMBERS.filter(|number| !OF_PROBES.contains(number)).collect();
    // x32: the same architecture, other numbers.
    #[cfg(target_arch = "x86_64")]
    numbers.extend(SYSTEM_CALLS.iter().map(|call| call.number | 0x4000_0000));
    on_two_threads(&numbers, |number| {
        let ended = call(*number, NONSENSE);
        match listed.get(number).map(|call| (call.name, call.verdict)) {
            Some((name, Verdict::Allow)) => assert_ne!(ended, Ended::Killed, "{name}"),
            Some((name, Verdict::Answer(errno))) => assert_eq!(ended, Ended::Refused(errno), "{name}"),
            // Nonsense meets no condition.
            Some((name, Verdict::AllowIf(_))) => assert_eq!(ended, Ended::Killed, "{name}"),
            None => assert_eq!(ended, Ended::Killed, "call {number}"),
        }
    });
}

fn each_condition_of_a_rule_counts() {
    let mut tried = Vec::new();
    for rule in SYSTEM_CALLS {
        let Verdict::AllowIf(alternatives) = rule.verdict else {
            continue;
        };
        for conditions in alternatives {
            let met = |arguments: &mut Vec<(usize, i64)>, condition: &Condition| match *condition {
                Condition::Is(argument, value) => arguments.push((argument.into(), value.into())),
                Condition::Without(argument, bits) => arguments.push((argument.into(), (!bits).into())),
                Condition::IsOwnProcess(argument) => arguments.push((argument.into(), inside::OWN_PROCESS)),
            };
            let mut all = Vec::new();
            conditions.iter().for_each(|condition| met(&mut all, condition));
            tried.push((rule, all.clone(), false));
            for (index, condition) in conditions.iter().enumerate() {
                let mut broken = all.clone();
                broken[index].1 = match *condition {
                    Condition::Is(_, value) => i64::from(value) ^ 0x4000,
                    Condition::Without(_, bits) => bits.into(),
                    Condition::IsOwnProcess(_) => i64::from(std::process::id()),
                };
                tried.push((rule, broken, true));
            }
        }
    }
    assert!(tried.len() > 20, "{}", tried.len());
    on_two_threads(&tried, |(rule, set, is_broken)| {
        let mut arguments = NONSENSE;
        set.iter().for_each(|(argument, value)| arguments[*argument] = *value);
        let ended = call(rule.number, arguments);
        assert_eq!(ended == Ended::Killed, *is_broken, "{} {arguments:?}", rule.name);
    });
}

/// What somebody would call who has taken a worker over, by what it would bring, with arguments that would work.
fn what_an_attacker_needs_kills() {
    const PROT_RWX: i64 = (libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC) as i64;
    let parent = i64::from(std::process::id());
    let number = |value: libc::c_int| i64::from(value);
    let attacks: Vec<(&str, c_long, [i64; 6])> = vec![
        ("code of their own", libc::SYS_mmap, [0, 4096, PROT_RWX, 0x22, -1, 0]),
        (
            "code of their own",
            libc::SYS_mprotect,
            [0x1000, 4096, PROT_RWX, 0, 0, 0],
        ),
        (
            "code of their own",
            libc::SYS_pkey_mprotect,
            [0x1000, 4096, PROT_RWX, -1, 0, 0],
        ),
        ("another program", libc::SYS_execve, [0; 6]),
        ("another program", libc::SYS_execveat, [0; 6]),
        ("another program", libc::SYS_memfd_create, [0; 6]),
        (
            "another process",
            libc::SYS_clone,
            [number(libc::SIGCHLD), 0, 0, 0, 0, 0],
        ),
        ("another process", libc::SYS_clone3, [0; 6]),
        ("another process's memory", libc::SYS_ptrace, [16, parent, 0, 0, 0, 0]),
        (
            "another process's memory",
            libc::SYS_process_vm_readv,
            [parent, 0, 0, 0, 0, 0],
        ),
        (
            "another process's memory",
            libc::SYS_process_vm_writev,
            [parent, 0, 0, 0, 0, 0],
        ),
        (
            "another process's sockets",
            libc::SYS_pidfd_open,
            [parent, 0, 0, 0, 0, 0],
        ),
        ("another process's sockets", libc::SYS_pidfd_getfd, [0; 6]),
        ("another process's end", libc::SYS_kill, [parent, 0, 0, 0, 0, 0]),
        ("another process's end", libc::SYS_tgkill, [parent, parent, 0, 0, 0, 0]),
        ("another process's end", libc::SYS_pidfd_send_signal, [0; 6]),
        (
            "a socket",
            libc::SYS_socket,
            [number(libc::AF_INET), number(libc::SOCK_STREAM), 0, 0, 0, 0],
        ),
        (
            "a socket",
            libc::SYS_socket,
            [number(libc::AF_INET), number(libc::SOCK_DGRAM), 0, 0, 0, 0],
        ),
        (
            "a socket",
            libc::SYS_socket,
            [number(libc::AF_UNIX), number(libc::SOCK_STREAM), 0, 0, 0, 0],
        ),
        (
            "a socket",
            libc::SYS_socket,
            [number(libc::AF_NETLINK), number(libc::SOCK_RAW), 0, 0, 0, 0],
        ),
        ("a socket", libc::SYS_socketpair, [1, 1, 0, 0, 0, 0]),
        ("a port", libc::SYS_bind, [0; 6]),
        ("a port", libc::SYS_listen, [0; 6]),
        (
            "a filter at a socket",
            libc::SYS_setsockopt,
            [0, 1, number(libc::SO_ATTACH_FILTER), 0, 0, 0],
        ),
        (
            "another interface",
            libc::SYS_setsockopt,
            [0, 1, number(libc::SO_BINDTODEVICE), 0, 0, 0],
        ),
        ("another descriptor", libc::SYS_dup, [0; 6]),
        (
            "another descriptor",
            libc::SYS_fcntl,
            [0, number(libc::F_DUPFD), 3, 0, 0, 0],
        ),
        (
            "signals to others",
            libc::SYS_fcntl,
            [0, number(libc::F_SETOWN), parent, 0, 0, 0],
        ),
        ("a file", libc::SYS_openat2, [0; 6]),
        ("a file", libc::SYS_open_by_handle_at, [0; 6]),
        ("a file", libc::SYS_unlinkat, [0; 6]),
        ("a file", libc::SYS_renameat2, [0; 6]),
        ("a file", libc::SYS_linkat, [0; 6]),
        ("a file", libc::SYS_fchmodat, [0; 6]),
        ("a file", libc::SYS_getdents64, [0; 6]),
        ("another view of the files", libc::SYS_mount, [0; 6]),
        ("another view of the files", libc::SYS_chroot, [0; 6]),
        ("another view of the files", libc::SYS_pivot_root, [0; 6]),
        (
            "another view of the system",
            libc::SYS_unshare,
            [number(libc::CLONE_NEWUSER), 0, 0, 0, 0, 0],
        ),
        ("another view of the system", libc::SYS_setns, [0; 6]),
        ("another user", libc::SYS_setuid, [0; 6]),
        ("another user", libc::SYS_setresuid, [0; 6]),
        ("capabilities", libc::SYS_capset, [0; 6]),
        (
            "to be dumped",
            libc::SYS_prctl,
            [number(libc::PR_SET_DUMPABLE), 1, 0, 0, 0, 0],
        ),
        ("other limits", libc::SYS_prlimit64, [0; 6]),
        ("other filters", libc::SYS_seccomp, [0; 6]),
        (
            "the kernel's newest corners",
            libc::SYS_io_uring_setup,
            [8, 0, 0, 0, 0, 0],
        ),
        ("the kernel's newest corners", libc::SYS_io_uring_enter, [0; 6]),
        ("the kernel's programs", libc::SYS_bpf, [0; 6]),
        ("the kernel's counters", libc::SYS_perf_event_open, [0; 6]),
        ("the kernel's keys", libc::SYS_keyctl, [0; 6]),
        ("the kernel's keys", libc::SYS_add_key, [0; 6]),
        ("the kernel's modules", libc::SYS_init_module, [0; 6]),
        ("the kernel", libc::SYS_kexec_load, [0; 6]),
        ("faults to win races with", libc::SYS_userfaultfd, [0; 6]),
        ("devices", libc::SYS_ioctl, [0; 6]),
        ("time", libc::SYS_clock_settime, [0; 6]),
        ("more of the processor", libc::SYS_sched_setattr, [0; 6]),
        ("more of the processor", libc::SYS_sched_setaffinity, [0; 6]),
    ];
    on_two_threads(&attacks, |(what, number, arguments)| {
        assert_eq!(call(*number, *arguments), Ended::Killed, "{what}: call {number}");
    });
}

fn each_rule_has_its_reasons_once() {
    let mut numbers: Vec<c_long> = SYSTEM_CALLS.iter().map(|call| call.number).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), SYSTEM_CALLS.len(), "a call is listed twice");
    for call in SYSTEM_CALLS {
        assert!(!call.when.is_empty() && !call.why.is_empty(), "{}", call.name);
    }
    for hot in ["epoll_pwait2", "recvmmsg", "sendmmsg", "sendmsg", "sendto", "recvmsg"] {
        let rule = SYSTEM_CALLS.iter().find(|call| call.name == format!("SYS_{hot}"));
        assert_eq!(rule.unwrap().verdict, Verdict::Allow, "{hot} costs nothing");
    }
}

/// The rest of the line that begins with `name`, its words with one space between them.
fn field(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line[name.len()..].split_whitespace().collect::<Vec<_>>().join(" ")
}

fn nothing_of_the_process_is_left() {
    let shown = printed(&Act::Show);
    let none = "0000000000000000";
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(field(&shown, set), none, "{set}");
    }
    assert_eq!(field(&shown, "NoNewPrivs:"), "1");
    assert_eq!(field(&shown, "Seccomp:"), "2", "a filter");
    assert_eq!(field(&shown, "Max core file size"), "0 0 bytes");
    assert_eq!(field(&shown, "Max processes"), "0 0 processes");
    if geteuid().is_root() {
        assert_eq!(field(&shown, "Uid:"), "65534 65534 65534 65534");
        assert_eq!(field(&shown, "Gid:"), "65534 65534 65534 65534");
        assert_eq!(field(&shown, "Groups:"), "");
        assert_eq!(field(&shown, "CapBnd:"), none);
    }
    let sandbox = field(&shown, "sandbox:");
    assert!(!sandbox.contains("not:"), "this kernel has all of it: {sandbox}");
}

fn landlock_denies_by_itself() {
    let output = outcome(&Act::Landlock);
    if output.status.code() == Some(NOT_HERE) {
        return; // nothing to be tried on this kernel
    }
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", output.status);
}

fn lost_privileges_do_not_come_back() {
    printed(&Act::Privileges);
}

fn memory_comes_and_goes() {
    printed(&Act::Memory);
}

fn keys_are_made_inside() {
    printed(&Act::Keys);
}

fn a_panic_is_told_from_inside() {
    let plain = outcome(&Act::Panic);
    let said = String::from_utf8(plain.stderr).unwrap();
    assert_eq!(plain.status.code(), Some(Exit::Panic.code().into()), "{said}");
    assert!(
        said.contains("weir-worker: panicked at") && said.contains("what went wrong"),
        "{said}"
    );

    let traced = child(&Act::Panic).env("RUST_BACKTRACE", "1").output().unwrap();
    let said = String::from_utf8(traced.stderr).unwrap();
    assert_eq!(traced.status.code(), Some(Exit::Panic.code().into()), "{said}");
    assert!(said.contains("what went wrong"), "{said}");
    assert!(said.contains("inside::panic_inside"), "functions have names: {said}");
}

fn a_contained_panic_ends_nothing() {
    let output = child(&Act::ContainedPanic).env("RUST_BACKTRACE", "1").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{}: {said}", output.status);
    assert!(said.contains("a parser has panicked"), "{said}");
}

fn each_abort_is_told_from_inside() {
    for (act, told) in [
        (Act::Abort, ""),
        (Act::NoMemory, "memory allocation of"),
        (Act::DeepRecursion, "has overflowed its stack"),
    ] {
        let output = outcome(&act);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(signal_of(&output), Some(Signal::SIGABRT), "{act:?}: {said}");
        assert!(said.contains(told), "{act:?}: {said}");
        assert!(!output.status.core_dumped(), "{act:?}");
    }
}

fn what_a_kernel_refuses_is_named_and_the_rest_holds() {
    let any: &[(u8, i32)] = &[];
    let mut rows = vec![
        (libc::SYS_seccomp, any, Errno::ENOSYS, vec!["seccomp"]),
        (libc::SYS_seccomp, any, Errno::EACCES, vec!["seccomp"]),
        (libc::SYS_landlock_create_ruleset, any, Errno::ENOSYS, vec!["landlock"]),
        (
            libc::SYS_landlock_create_ruleset,
            any,
            Errno::EOPNOTSUPP,
            vec!["landlock"],
        ),
        (libc::SYS_landlock_restrict_self, any, Errno::EPERM, vec!["landlock"]),
        (libc::SYS_capset, any, Errno::EPERM, vec!["no capabilities"]),
        (libc::SYS_capget, any, Errno::ENOSYS, vec!["no capabilities"]),
        (
            libc::SYS_prlimit64,
            any,
            Errno::EPERM,
            vec!["no core dumps or processes"],
        ),
        (
            libc::SYS_prctl,
            &[(0, libc::PR_SET_DUMPABLE)],
            Errno::EINVAL,
            vec!["not dumpable"],
        ),
        // The two others cannot be had without.
        (
            libc::SYS_prctl,
            &[(0, libc::PR_SET_NO_NEW_PRIVS)],
            Errno::EINVAL,
            vec!["no new privileges", "landlock", "seccomp"],
        ),
    ];
    if geteuid().is_root() {
        for call in [libc::SYS_setgroups, libc::SYS_setresgid, libc::SYS_setresuid] {
            rows.push((call, any, Errno::EPERM, vec!["own user"]));
        }
        rows[6].3.insert(0, "own user"); // who may not look at its capabilities does not know whether it can be ended
        rows.push((
            libc::SYS_prctl,
            &[(0, libc::PR_CAPBSET_DROP)],
            Errno::EPERM,
            vec!["no capabilities"],
        ));
    }
    on_two_threads(&rows, |(number, conditions, errno, missing)| {
        let act = Act::Refused {
            number: *number,
            condition: conditions.first().copied(),
            errno: *errno,
        };
        let shown = printed(&act);
        let sandbox = field(&shown, "sandbox:");
        let (holds, lacks) = sandbox.split_once("; not: ").unwrap();
        for name in [
            "seccomp",
            "landlock",
            "no new privileges",
            "not dumpable",
            "no core dumps or processes",
            "no capabilities",
        ] {
            let is_missing = missing.contains(&name);
            assert_eq!(holds.contains(name), !is_missing, "{name}: {sandbox}");
            assert_eq!(lacks.contains(&format!("{name} (")), is_missing, "{name}: {sandbox}");
        }
        assert_eq!(lacks.contains("own user ("), missing.contains(&"own user"), "{sandbox}");
        // The same, where all of it is required.
        let required = field(&shown, "required:");
        assert!(required.contains("--sandbox require"), "{required}");
        missing
            .iter()
            .for_each(|name| assert!(required.contains(name), "{name}: {required}"));
    });
}
