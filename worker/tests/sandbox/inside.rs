//! What a process does that has confined itself.
#![expect(unsafe_code, reason = "system calls by number, with any arguments")]

use std::fs::File;
use std::hint::black_box;
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::fs::FileExt;
use std::process::{self, Command};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::prctl;
use nix::sys::signal::kill;
use nix::unistd::{Uid, geteuid, getppid, setuid};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter,
};
use weir_channel::message::{Sandbox, SandboxMode};
use weir_worker::boundary::{Parser, contain};
use weir_worker::process::exit_on_panic;
use weir_worker::sandbox::{self, Confinement, User, access, identity, limits};
use weir_worker::webrtc::dtls::Certificate;
use weir_worker::webrtc::entropy::{Entropy, SystemEntropy};

/// How a process ends that cannot try what it should on this kernel.
pub(crate) const NOT_HERE: i32 = 77;

/// As an argument of a call: the id of the process that makes it.
pub(crate) const OWN_PROCESS: i64 = i64::MIN;

/// What a process inside is to do.
#[derive(Debug)]
pub(crate) enum Act {
    /// Make a system call, and exit with its error.
    Call {
        number: c_long,
        arguments: [i64; 6],
    },
    /// Show what the kernel says of the process.
    Show,
    /// Show how much of the sandbox there is where the kernel refuses something.
    Refused {
        number: c_long,
        condition: Option<(u8, i32)>,
        errno: Errno,
    },
    /// Try what Landlock denies, with nothing but Landlock.
    Landlock,
    /// Try to get back what was given up, with nothing but that.
    Privileges,
    Memory,
    Keys,
    Panic,
    ContainedPanic,
    Abort,
    NoMemory,
    DeepRecursion,
}

impl Act {
    pub(crate) fn to_args(&self) -> Vec<String> {
        let mut args = vec![
            match self {
                Self::Call { .. } => "call",
                Self::Show => "show",
                Self::Refused { .. } => "refused",
                Self::Landlock => "landlock",
                Self::Privileges => "privileges",
                Self::Memory => "memory",
                Self::Keys => "keys",
                Self::Panic => "panic",
                Self::ContainedPanic => "contained-panic",
                Self::Abort => "abort",
                Self::NoMemory => "no-memory",
                Self::DeepRecursion => "deep-recursion",
            }
            .to_owned(),
        ];
        match self {
            Self::Call { number, arguments } => {
                args.push(number.to_string());
                args.extend(arguments.map(|argument| argument.to_string()));
            }
            Self::Refused {
                number,
                condition,
                errno,
            } => {
                args.push(number.to_string());
                args.push((*errno as i32).to_string());
                args.extend(
                    condition
                        .iter()
                        .flat_map(|(argument, value)| [argument.to_string(), value.to_string()]),
                );
            }
            _ => {}
        }
        args
    }
}

/// Does what the arguments say, and ends the process.
pub(crate) fn run(args: &[String]) -> ! {
    let numbers: Vec<i64> = args[1..].iter().map(|arg| arg.parse().unwrap()).collect();
    match (args[0].as_str(), numbers.as_slice()) {
        ("call", [number, arguments @ ..]) => call(*number, arguments.try_into().unwrap()),
        ("show", []) => show(),
        ("refused", [number, errno, condition @ ..]) => refused(*number, *errno, condition),
        ("landlock", []) => landlock(),
        ("privileges", []) => privileges(),
        ("memory", []) => memory(),
        ("keys", []) => keys(),
        ("panic", []) => {
            exit_on_panic();
            confine();
            panic_inside();
        }
        ("contained-panic", []) => {
            exit_on_panic();
            confine();
            assert!(contain(Parser::Stun, panic_inside).is_err());
        }
        ("abort", []) => {
            confine();
            process::abort();
        }
        ("no-memory", []) => {
            confine();
            drop(black_box(Vec::<u8>::with_capacity(1 << 60)));
        }
        ("deep-recursion", []) => {
            confine();
            black_box(depth(black_box(1)));
        }
        other => panic!("{other:?}"),
    }
    process::exit(0);
}

/// As a worker does.
fn confine() -> Sandbox {
    let mut confinement = Confinement::default();
    confinement.give_up_privileges(geteuid().is_root().then_some(User {
        uid: 65_534,
        gid: 65_534,
    }));
    confinement.close()
}

fn call(number: c_long, mut arguments: [i64; 6]) {
    let own = i64::from(process::id());
    arguments
        .iter_mut()
        .filter(|argument| **argument == OWN_PROCESS)
        .for_each(|argument| *argument = own);
    let [a, b, c, d, e, f] = arguments;
    confine();
    // SAFETY: what is allowed inside does nothing with these arguments, or ends the process.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    let code = if result == -1 { Errno::last_raw() } else { 0 };
    process::exit(code);
}

fn show() {
    // What was opened before is read after it.
    let (status, limits) = (
        File::open("/proc/self/status").unwrap(),
        File::open("/proc/self/limits").unwrap(),
    );
    let dumpable = || prctl::get_dumpable().unwrap();
    let mut confinement = Confinement::default();
    confinement.give_up_privileges(geteuid().is_root().then_some(User {
        uid: 65_534,
        gid: 65_534,
    }));
    assert!(dumpable() || geteuid().as_raw() == 65_534, "an ordinary program is");
    let sandbox = confinement.close();
    println!("sandbox: {sandbox}");
    for file in [status, limits] {
        let mut text = vec![0; 8_192];
        let len = file.read_at(&mut text, 0).unwrap();
        io::stdout().write_all(&text[..len]).unwrap();
    }
}

fn refused(number: c_long, errno: i64, condition: &[i64]) {
    let rules = match *condition {
        [argument, value] => {
            let value = value.cast_unsigned();
            let argument = argument.try_into().unwrap();
            let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, value);
            vec![SeccompRule::new(vec![condition.unwrap()]).unwrap()]
        }
        _ => Vec::new(),
    };
    let action = SeccompAction::Errno(errno.try_into().unwrap());
    let architecture = std::env::consts::ARCH.try_into().unwrap();
    let filter = SeccompFilter::new([(number, rules)].into(), SeccompAction::Allow, action, architecture);
    let program: BpfProgram = filter.unwrap().try_into().unwrap();
    apply_filter(&program).unwrap();
    let sandbox = confine();
    println!("sandbox: {sandbox}");
    assert!(sandbox::check(&sandbox, SandboxMode::Auto).is_ok());
    println!(
        "required: {}",
        sandbox::check(&sandbox, SandboxMode::Require).unwrap_err()
    );
}

#[expect(clippy::disallowed_methods, reason = "sockets that the process had before")]
fn landlock() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let peer = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let open = File::open("/proc/self/statm").unwrap();
    let Ok(abi) = access::deny_all() else {
        process::exit(NOT_HERE);
    };
    let denied = |result: io::Result<()>| assert_eq!(result.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    denied(File::open("/etc/passwd").map(drop));
    denied(File::create("/tmp/weir-sandbox-test").map(drop));
    denied(std::fs::read_dir("/").map(drop));
    denied(std::fs::create_dir("/tmp/weir-sandbox-test").map(drop));
    denied(Command::new("/bin/true").status().map(drop));
    if abi >= 4 {
        denied(TcpStream::connect(address).map(drop));
        denied(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map(drop));
    }
    if abi >= 6 {
        assert_eq!(kill(getppid(), None), Err(Errno::EPERM));
    }
    // What it has, it keeps.
    assert!(open.read_at(&mut [0; 100], 0).unwrap() > 0);
    socket.connect(peer.local_addr().unwrap()).unwrap();
    socket.send(b"to a peer").unwrap();
    assert_eq!(peer.recv(&mut [0; 100]).unwrap(), 9);
}

fn privileges() {
    identity::empty_bounding_set().unwrap();
    let was_root = geteuid().is_root();
    if was_root {
        identity::change_user(User {
            uid: 65_534,
            gid: 65_533,
        })
        .unwrap();
        assert_eq!(setuid(Uid::from_raw(0)), Err(Errno::EPERM));
    }
    identity::drop_capabilities().unwrap();
    limits::forbid_cores_and_processes().unwrap();
    // Before a program is executed there is a process to do it in; but the limit is not for the kernel's first user.
    if !geteuid().is_root() {
        let error = Command::new("/bin/true").status().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::EAGAIN as i32), "{error}");
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(line("CapEff:").ends_with("0000000000000000"), "{status}");
    if was_root {
        assert!(line("CapBnd:").ends_with("0000000000000000"), "{status}");
        assert_eq!(line("Uid:"), "Uid:\t65534\t65534\t65534\t65534");
        assert_eq!(line("Gid:"), "Gid:\t65533\t65533\t65533\t65533");
        assert_eq!(line("Groups:").trim(), "Groups:");
    }
}

fn memory() {
    confine();
    for bytes in [1 << 10, 1 << 16, 1 << 20, 64 << 20] {
        let mut buffers: Vec<Vec<u8>> = (0..4).map(|_| vec![7; bytes]).collect();
        for buffer in &mut buffers {
            buffer.resize(bytes * 2, 8);
            buffer.shrink_to(bytes / 2);
        }
        assert_eq!(
            buffers
                .iter()
                .map(|buffer| usize::from(buffer[bytes * 2 - 1]))
                .sum::<usize>(),
            32
        );
    }
    let mut impossible = Vec::<u8>::new();
    assert!(impossible.try_reserve(1 << 60).is_err());
}

/// The cryptographic library's first use is inside, which is worse than what a worker does.
fn keys() {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or(Duration::ZERO);
    confine();
    let mut bytes = [0; 64];
    SystemEntropy::new().fill(&mut bytes);
    assert_ne!(bytes, [0; 64]);
    for _ in 0..3 {
        Certificate::generate(&mut SystemEntropy::new(), now).unwrap();
    }
}

#[inline(never)]
pub(crate) fn panic_inside() {
    panic!("what went wrong");
}

#[expect(unconditional_recursion, reason = "that is the point")]
fn depth(level: u64) -> u64 {
    let frame = black_box([level; 64]);
    depth(level + 1) + black_box(frame)[7]
}
