//! How many descriptors (open files, sockets) this process may have, and those that are kept free.

use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::server::model::shortage::descriptor_limit;

/// So many descriptors are kept free of media and of clients from the network. A new worker takes ten for a moment, whoever
/// commands the server one, and transports that are made at the same time as this one a few each.
const RESERVE: u64 = 64;

/// Lets this process have as many as the system allows it: a transport takes two or four.
pub(crate) fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft < hard {
            setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        } else {
            Ok(())
        }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files cannot be raised, so there may be fewer transports than ports");
    }
}

/// Refuses a descriptor that has just been made, as the kernel would if the limit were lower, if it is one of those that are kept.
///
/// # Errors
/// EMFILE.
pub(crate) fn leave_reserve(descriptor: &impl AsRawFd) -> io::Result<()> {
    let limit = descriptor_limit();
    let usable = limit - RESERVE.min(limit / 4);
    // The kernel gives the lowest number that is free (POSIX, 2.14), so as many as this one's number are in use.
    match u64::try_from(descriptor.as_raw_fd()) {
        Ok(number) if number < usable => Ok(()),
        _ => Err(Errno::EMFILE.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_kept() {
        struct Number(i32);
        impl AsRawFd for Number {
            fn as_raw_fd(&self) -> i32 {
                self.0
            }
        }
        let limit = i32::try_from(descriptor_limit()).unwrap_or(i32::MAX);
        assert!(leave_reserve(&Number(3)).is_ok());
        for number in [limit, limit - 1, -1] {
            assert_eq!(
                leave_reserve(&Number(number)).unwrap_err().raw_os_error(),
                Some(24),
                "{number}"
            );
        }
    }
}
