//! How the kernel's scheduler treats the worker: soon, and for short turns.
//!
//! A worker that other programs keep from its CPU for a time slice (3 to 4 ms) delays every packet by as much. Linux since 6.12
//! lets a thread ask for a shorter slice of its own: it then gets its CPU earlier, for less long at a time, and takes no more
//! of it. A better nice value is taken where the process may (CAP_SYS_NICE or RLIMIT_NICE). Real-time policies are not
//! used: an endless loop under one could not be ended by a supervisor on the same CPU.

use std::io;
use std::mem;
use std::time::Duration;

use nix::libc;

/// The slice asked for. The kernel's smallest is 100 µs.
const SLICE: Duration = Duration::from_micros(100);

/// The nice value asked for: ahead of ordinary programs, behind what an administrator put at the top.
const NICE: i32 = -10;

/// What the kernel granted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    /// The nice value, if it could be improved.
    pub nice: Option<i32>,
}

/// Asks for short slices and a better nice value for the calling thread.
///
/// # Errors
/// That of sched_setattr(2). An old kernel ignores the slice; one that forbids better nice values grants the slice alone.
pub fn prefer_latency() -> io::Result<Granted> {
    let mut attributes = get()?;
    attributes.sched_runtime = SLICE.as_nanos() as u64;
    attributes.sched_flags = 0;
    if attributes.sched_nice > NICE {
        let ordinary = attributes.sched_nice;
        attributes.sched_nice = NICE;
        match set(&attributes) {
            Ok(()) => return Ok(Granted { nice: Some(NICE) }),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => attributes.sched_nice = ordinary,
            Err(error) => return Err(error),
        }
    }
    set(&attributes).map(|()| Granted { nice: None })
}

fn get() -> io::Result<libc::sched_attr> {
    // SAFETY: the struct is plain numbers, for which zeros are a value.
    let mut attributes: libc::sched_attr = unsafe { mem::zeroed() };
    let size = size_of::<libc::sched_attr>() as libc::c_uint;
    // SAFETY: the kernel writes at most `size` bytes, and that many are there.
    let result = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if result == 0 {
        Ok(attributes)
    } else {
        Err(io::Error::last_os_error())
    }
}

fn set(attributes: &libc::sched_attr) -> io::Result<()> {
    let attributes = libc::sched_attr {
        size: size_of::<libc::sched_attr>() as u32,
        ..*attributes
    };
    // SAFETY: the kernel reads `size` bytes, and that many are there.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gets_what_it_asks_for() {
        // In a thread of its own: the test runner's others keep their slices.
        let granted = std::thread::spawn(|| {
            let before = get().unwrap();
            let granted = prefer_latency().unwrap();
            let after = get().unwrap();
            assert_eq!(after.sched_policy, before.sched_policy);
            assert_eq!(after.sched_nice, granted.nice.unwrap_or(before.sched_nice));
            // A kernel before 6.12 tells no slice.
            assert!([0, SLICE.as_nanos() as u64].contains(&after.sched_runtime), "{after:?}");
            granted
        });
        granted.join().unwrap();
    }
}
