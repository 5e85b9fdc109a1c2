//! Limits of the process's own (getrlimit(2)).

use nix::sys::resource::{Resource, setrlimit};

use super::failed;

/// Lets it leave no core dump, which would have keys in it, and make no process or thread.
///
/// # Errors
/// What the kernel says, in words.
pub fn forbid_cores_and_processes() -> Result<(), String> {
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("RLIMIT_CORE"))?;
    setrlimit(Resource::RLIMIT_NPROC, 0, 0).map_err(failed("RLIMIT_NPROC"))
}
