//! The sandbox around a worker: what is left to whoever takes it over by a packet.
//!
//! A worker has all that it needs when its event loop begins: its channel, its epoll, its memory. Sockets come over the channel.
//! So it gives up everything else before it reads the first byte of its supervisor's: its user, its capabilities, files, further
//! processes, and all system calls but those of a [list](system_calls). One that calls another is killed with SIGSYS.
//!
//! Each layer is independent of the others, and each is put on wherever the system has it; whether it is fatal that one is
//! missing, the server's settings say ([`SandboxMode`]).

pub mod access;
pub mod identity;
pub mod limits;
pub mod seccomp;
pub mod system_calls;

use std::backtrace::{Backtrace, BacktraceStatus};

use nix::errno::Errno;
use nix::sys::prctl;
use weir_channel::message::{Sandbox, SandboxLack, SandboxLayer, SandboxMode};

pub use self::identity::{NotAUser, User};

/// Layers that the settings require and the system does not have, in words.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the sandbox is required (--sandbox require), and a part of it is refused: {0}")]
pub struct Incomplete(String);

/// A process on its way into its sandbox. To be used while it has one thread.
#[derive(Debug, Default)]
pub struct Confinement(Sandbox);

impl Confinement {
    /// Gives up what the process was born with: its user, if it gets another one, and its capabilities.
    ///
    /// The kernel forgets the signal that a process gets when its parent dies (PR_SET_PDEATHSIG) when its user changes.
    pub fn give_up_privileges(&mut self, user: Option<User>) {
        load_names();
        // While it has the capability for that.
        let bounded = identity::empty_bounding_set();
        if let Some(user) = user {
            let changed = identity::change_user(user);
            self.0.user = changed.is_ok().then_some(user.uid);
            self.put_on(SandboxLayer::User, changed);
        }
        self.put_on(SandboxLayer::Capabilities, identity::drop_capabilities().and(bounded));
    }

    /// Gives up everything else.
    pub fn close(mut self) -> Sandbox {
        self.put_on(SandboxLayer::Limits, limits::forbid_cores_and_processes());
        // After the last change of credentials, which may reset it.
        let hidden = prctl::set_dumpable(false).map_err(failed("PR_SET_DUMPABLE"));
        self.put_on(SandboxLayer::NotDumpable, hidden);
        let bound = prctl::set_no_new_privs().map_err(failed("PR_SET_NO_NEW_PRIVS"));
        self.put_on(SandboxLayer::NoNewPrivileges, bound);
        let denied = access::deny_all();
        self.0.landlock_abi = denied.as_ref().ok().copied();
        self.put_on(SandboxLayer::Landlock, denied.and_then(access::check_version));
        // Last: afterwards nothing of the above is possible.
        self.put_on(SandboxLayer::Seccomp, seccomp::allow_only_listed());
        self.0
    }

    fn put_on(&mut self, layer: SandboxLayer, result: Result<(), String>) {
        match result {
            Ok(()) => self.0.holds.push(layer),
            Err(reason) => self.0.lacks.push(SandboxLack { layer, reason }),
        }
    }
}

/// Whether a sandbox is what the settings want.
///
/// # Errors
/// [`Incomplete`], with all that is missing.
pub fn check(sandbox: &Sandbox, mode: SandboxMode) -> Result<(), Incomplete> {
    if mode != SandboxMode::Require || sandbox.lacks.is_empty() {
        return Ok(());
    }
    let lacks: Vec<String> = sandbox
        .lacks
        .iter()
        .map(|lack| format!("{} ({})", lack.layer, lack.reason))
        .collect();
    Err(Incomplete(lacks.join(", ")))
}

/// Lets backtraces name functions, if the environment wants backtraces at all. The names are in the program's file, which can be read only
/// now; the standard library keeps what it has read for its first backtrace.
fn load_names() {
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        let _ = backtrace.to_string();
    }
}

/// Says which call was refused, and how.
fn failed(call: &'static str) -> impl Fn(Errno) -> String {
    move |errno| format!("{call}: {errno}")
}
