//! The system calls that a worker may make, each with the reason.
//!
//! A call that is not here ends the worker: the kernel kills it with SIGSYS. The six *hot* calls, those of each packet, have no
//! conditions, so that they cost nothing (see [`seccomp`](super::seccomp)). Sockets cannot be made: those that a worker uses are
//! its supervisor's, which binds them and hands them over.

use nix::errno::Errno;
use nix::libc::{self, c_int};

use Condition::{Is, IsOwnProcess, Without};
use Verdict::{Allow, AllowIf, Answer};

/// A system call that a worker may make, or tries to make.
#[derive(Clone, Copy, Debug)]
pub struct SystemCall {
    /// Its number on this architecture.
    pub number: libc::c_long,
    /// Its name, as the C library has it.
    pub name: &'static str,
    /// What becomes of it.
    pub verdict: Verdict,
    /// When it is made.
    pub when: &'static str,
    /// What it is needed for.
    pub why: &'static str,
}

/// What becomes of a system call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is made.
    Allow,
    /// It is made if all the conditions of one of the lists hold, and otherwise ends the worker.
    AllowIf(&'static [&'static [Condition]]),
    /// It is not made, but answered by an error.
    Answer(Errno),
}

/// What an argument, counted from 0, must be. The lower 32 bits are looked at, as the kernel does for these.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// This value.
    Is(u8, c_int),
    /// None of these bits.
    Without(u8, c_int),
    /// The id of this process.
    IsOwnProcess(u8),
}

macro_rules! system_calls {
    ($($(#[$if:meta])* $call:ident: $verdict:expr, $when:literal, $why:literal;)+) => {
        /// All of them.
        pub const SYSTEM_CALLS: &[SystemCall] = &[$(
            $(#[$if])*
            SystemCall {
                number: libc::$call,
                name: stringify!($call),
                verdict: $verdict,
                when: $when,
                why: $why,
            },
        )+];
    };
}

system_calls! {
    // Hot: the calls of each turn of the event loop.
    SYS_epoll_pwait2: Allow, "each turn", "waits for packets, requests and timers";
    SYS_recvmmsg: Allow, "each turn", "receives a batch of packets";
    SYS_sendmmsg: Allow, "each turn", "sends a batch of packets";
    SYS_sendmsg: Allow, "each train", "sends a train of packets as one; writes to the channel";
    SYS_sendto: Allow, "each single packet", "sends one packet, or a part of a TCP stream";
    SYS_recvmsg: Allow, "each request", "reads the channel, with the sockets that come over it";

    // Waiting, otherwise.
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait: Allow, "each turn before Linux 5.11", "waits where there is no epoll_pwait2";
    SYS_epoll_pwait: Allow, "each turn before Linux 5.11", "the same with other C libraries and architectures";
    SYS_ppoll: Allow, "under load", "lets packets gather for some microseconds; waits for the channel at the end";
    SYS_restart_syscall: Allow, "after SIGSTOP and SIGCONT", "the kernel goes on with a wait by it";
    SYS_epoll_ctl: Allow, "a transport or a connection comes or goes", "watches its sockets";

    // Sockets that were handed over.
    SYS_accept4: Allow, "a TCP connection comes", "accepts it";
    SYS_connect: Allow, "a transport learns its peer's address", "connects its UDP socket; TCP is denied by Landlock";
    SYS_recvfrom: Allow, "something comes by TCP", "reads it";
    SYS_close: Allow, "a transport or a connection goes", "closes its sockets";
    SYS_shutdown: Allow, "a TCP connection is closed; the channel breaks", "ends it, whoever has a copy";
    SYS_getpeername: Allow, "a socket is handed over or accepted", "finds out to whom it is connected";
    SYS_getsockname: Allow, "a socket is handed over", "finds out where it is bound";
    SYS_getsockopt: AllowIf(&[
        &[Is(1, libc::SOL_SOCKET), Is(2, libc::SO_TYPE)],
        &[Is(1, libc::SOL_SOCKET), Is(2, libc::SO_ACCEPTCONN)],
        &[Is(1, libc::SOL_SOCKET), Is(2, libc::SO_MEMINFO)],
        &[Is(1, libc::SOL_SOCKET), Is(2, libc::SO_COOKIE)],
        &[Is(1, libc::IPPROTO_TCP), Is(2, libc::TCP_INFO)],
    ]), "a socket is handed over; statistics", "checks what it is; reads how many packets it has dropped, and how far a stream has got";
    SYS_setsockopt: AllowIf(&[
        &[Is(1, libc::SOL_UDP), Is(2, libc::UDP_GRO)],
        &[Is(1, libc::SOL_UDP), Is(2, libc::UDP_SEGMENT)],
        &[Is(1, libc::SOL_SOCKET), Is(2, libc::SO_RXQ_OVFL)],
        &[Is(1, libc::SOL_SOCKET), Is(2, libc::SO_TIMESTAMPNS)],
        &[Is(1, libc::SOL_SOCKET), Is(2, libc::SO_SNDBUF)],
        &[Is(1, libc::SOL_SOCKET), Is(2, libc::SO_RCVLOWAT)],
        &[Is(1, libc::IPPROTO_TCP), Is(2, libc::TCP_NODELAY)],
    ]), "a socket is handed over or accepted", "trains, counts of drops, times of arrival, buffers, no delay";
    SYS_fcntl: AllowIf(&[
        &[Is(1, libc::F_GETFL)],
        &[Is(1, libc::F_SETFL)],
        &[Is(1, libc::F_GETFD)],
        &[Is(1, libc::F_GET_SEALS)],
        &[Is(1, libc::F_DUPFD_CLOEXEC)],
    ]), "a socket or a page is handed over, or closed in a debug build", "makes it non-blocking; Rust checks that it was open; the seals; a copy for the supervisor";
    SYS_ioctl: AllowIf(&[&[Is(1, libc::TIOCOUTQ as c_int)]]), "a TCP connection is handed over", "finds out how far it was written";
    SYS_lseek: Allow, "a page is handed over", "finds out its size";

    // Memory, which never becomes executable.
    SYS_brk: Allow, "memory is allocated or freed", "the allocator's heap";
    SYS_mmap: AllowIf(&[&[Without(2, libc::PROT_EXEC)]]), "much memory is allocated", "buffers";
    SYS_mprotect: AllowIf(&[&[Without(2, libc::PROT_EXEC)]]), "memory is allocated", "the allocators of other C libraries grow by it";
    SYS_mremap: Allow, "a large buffer grows", "grows it without copying";
    SYS_munmap: Allow, "much memory is freed", "gives it back";
    SYS_madvise: Allow, "memory is freed; the first random number", "gives it back; marks what no child inherits";
    SYS_futex: Allow, "a lock is contended; the first use of something", "locks of libraries";

    // Time, randomness, statistics.
    SYS_clock_gettime: Allow, "statistics; each turn where the clock is the kernel's", "CPU time; time";
    SYS_getrandom: Allow, "keys, and now and then", "seeds the generator of the cryptographic library";
    SYS_pread64: Allow, "statistics", "reads the resident memory from /proc/self/statm, which is open";
    SYS_getrusage: Allow, "statistics, without /proc", "reads the most resident memory there was";

    // The end, and what is said of it.
    SYS_write: Allow, "a panic", "says on standard error what has happened";
    SYS_writev: Allow, "the C library aborts", "the same";
    SYS_exit_group: Allow, "the end", "ends the process with its exit code";
    SYS_sigaltstack: Allow, "the end; a stack overflow", "the stack of Rust's handler for that";
    SYS_rt_sigaction: Allow, "an abort, a stack overflow", "brings back what the signal does by itself";
    SYS_rt_sigprocmask: Allow, "an abort", "lets its signal through";
    SYS_rt_sigreturn: Allow, "a fault", "returns from the handler";
    SYS_getpid: Allow, "an abort", "finds out whom to signal";
    SYS_gettid: Allow, "an abort", "finds out whom to signal";
    SYS_tgkill: AllowIf(&[&[IsOwnProcess(0)]]), "an abort", "signals itself";
    #[cfg(target_env = "musl")]
    SYS_tkill: AllowIf(&[&[IsOwnProcess(0)]]), "an abort", "the same with another C library; its only thread has the process's id";

    // Not made, but no reason to die either.
    SYS_newfstatat: Answer(Errno::ENOENT), "the first random number", "the cryptographic library looks for /dev/sysgenid";
    SYS_statx: Answer(Errno::ENOENT), "the first random number", "the same with other C libraries";
    #[cfg(target_arch = "x86_64")]
    SYS_stat: Answer(Errno::ENOENT), "the first random number", "the same with other C libraries";
    SYS_openat: Answer(Errno::EACCES), "a backtrace", "looks for the names of functions";
    #[cfg(target_arch = "x86_64")]
    SYS_open: Answer(Errno::EACCES), "a backtrace", "the same with other C libraries";
    SYS_readlinkat: Answer(Errno::EACCES), "a backtrace", "looks for the program's file";
    #[cfg(target_arch = "x86_64")]
    SYS_readlink: Answer(Errno::EACCES), "a backtrace", "the same with other C libraries";
    SYS_getcwd: Answer(Errno::ENOENT), "a backtrace", "shortens the names of files";
}
