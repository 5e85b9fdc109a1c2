//! What the system has no more of: said with what to do about it, and until there is some again.

use std::fmt;
use std::io;
use std::sync::Mutex;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};

use crate::server::model::lock;

/// Something of the system that is used up. Its text says what to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Shortage {
    /// This process has as many descriptors (open files, sockets) as it may (EMFILE). Some are kept for the control interface and
    /// for the successors of workers, so that a server in need can be looked at and does not get worse.
    Descriptors {
        /// How many it may have.
        limit: u64,
    },
    /// All processes of the machine have (ENFILE).
    SystemDescriptors,
    /// A worker was handed descriptors that it has no room for.
    WorkerDescriptors,
    /// The kernel has no memory for more sockets (ENOBUFS, ENOMEM).
    Memory,
}

impl Shortage {
    /// What an error of the system says about it, if it is about that.
    pub(crate) fn of(error: &io::Error) -> Option<Self> {
        match Errno::from_raw(error.raw_os_error()?) {
            Errno::EMFILE => Some(Self::Descriptors {
                limit: descriptor_limit(),
            }),
            Errno::ENFILE => Some(Self::SystemDescriptors),
            Errno::ENOBUFS | Errno::ENOMEM => Some(Self::Memory),
            _ => None,
        }
    }

    /// A stable word for programs.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Descriptors { .. } | Self::SystemDescriptors | Self::WorkerDescriptors => "descriptorsExhausted",
            Self::Memory => "memoryExhausted",
        }
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Descriptors { limit } => write!(
                f,
                "the server has no descriptors left for transports (its limit is {limit}); raise LimitNOFILE in its unit file, or \
                 ulimit -n where it is started, or close transports"
            ),
            Self::SystemDescriptors => f.write_str(
                "the machine has no descriptors left; raise fs.file-max (sysctl), or end what holds so many open files",
            ),
            Self::WorkerDescriptors => f.write_str(
                "the worker has no descriptors left; raise LimitNOFILE in the server's unit file, or ulimit -n where it is started",
            ),
            Self::Memory => f.write_str(
                "the kernel has no memory left for sockets; lower socket_receive_buffer and socket_send_buffer, or close transports",
            ),
        }
    }
}

/// How many descriptors this process may have now; somebody may change that while it runs (prlimit(1)).
pub(crate) fn descriptor_limit() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft)
}

/// What is lacking, between the first that could not be made for it and the first look, or thing made, that shows that there is
/// enough again.
#[derive(Debug, Default)]
pub(crate) struct Lack {
    what: Mutex<Option<Lacking>>,
}

#[derive(Clone, Copy, Debug)]
struct Lacking {
    shortage: Shortage,
    /// How many descriptors were needed.
    need: usize,
}

impl Lacking {
    fn is_over(self) {
        tracing::warn!("there is enough again of what was lacking: {}", self.shortage.code());
    }
}

impl Lack {
    /// Something that needs so many descriptors could not be made because of this.
    pub(crate) fn note(&self, shortage: Shortage, need: usize) {
        let mut what = lock(&self.what);
        if what.is_none() {
            tracing::warn!("{shortage}; said once, until there is enough again");
        }
        *what = Some(Lacking { shortage, need });
    }

    /// Something that needed so many descriptors was made. Nobody need look for this to be noticed, so the next lack is told of too.
    pub(crate) fn made(&self, need: usize) {
        let mut what = lock(&self.what);
        if let Some(lacking) = what.take_if(|lacking| lacking.need <= need) {
            lacking.is_over();
        }
    }

    /// What is lacking now. `try_make` tries to have as many descriptors as it is told, and gives them back.
    pub(crate) fn look(&self, try_make: impl FnOnce(usize) -> io::Result<()>) -> Option<Shortage> {
        let mut what = lock(&self.what);
        let lacking = (*what)?;
        match try_make(lacking.need) {
            Ok(()) => {
                lacking.is_over();
                *what = None;
                None
            }
            Err(error) => Some(Shortage::of(&error).unwrap_or(lacking.shortage)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(errno: Errno) -> io::Error {
        errno.into()
    }

    #[test]
    fn each_shortage_has_a_code_and_says_what_to_do() {
        for (errno, code, says) in [
            (Errno::EMFILE, "descriptorsExhausted", "LimitNOFILE"),
            (Errno::ENFILE, "descriptorsExhausted", "fs.file-max"),
            (Errno::ENOBUFS, "memoryExhausted", "socket_receive_buffer"),
            (Errno::ENOMEM, "memoryExhausted", "socket_receive_buffer"),
        ] {
            let shortage = Shortage::of(&error(errno)).unwrap();
            assert_eq!(shortage.code(), code);
            assert!(shortage.to_string().contains(says), "{shortage}");
        }
        assert_eq!(Shortage::of(&error(Errno::EACCES)), None);
        assert_eq!(Shortage::of(&io::Error::other("no number")), None);
    }

    #[test]
    fn a_lack_lasts_until_as_much_is_there_as_was_needed() {
        let lack = Lack::default();
        assert_eq!(lack.look(|_| panic!("nobody lacked anything")), None);
        lack.note(Shortage::Memory, 2);
        lack.note(Shortage::SystemDescriptors, 12);
        // Another error is no reason to think that all is well.
        let refused = lack.look(|need| {
            assert_eq!(need, 12);
            Err(error(Errno::EACCES))
        });
        assert_eq!(refused, Some(Shortage::SystemDescriptors));
        assert_eq!(lack.look(|_| Err(error(Errno::ENOBUFS))), Some(Shortage::Memory));
        assert_eq!(lack.look(|_| Ok(())), None);
        assert_eq!(lack.look(|_| panic!("it is over")), None);
    }

    #[test]
    fn a_lack_is_over_when_as_much_as_was_needed_has_been_made_though_nobody_looks() {
        let lack = Lack::default();
        lack.made(4);
        lack.note(Shortage::SystemDescriptors, 4);
        lack.made(2);
        assert_eq!(
            lack.look(|_| Err(error(Errno::ENFILE))),
            Some(Shortage::SystemDescriptors),
            "half as much shows nothing"
        );
        lack.made(4);
        assert_eq!(lack.look(|_| panic!("it is over")), None);
        // And may begin anew.
        lack.note(Shortage::Memory, 2);
        assert_eq!(lack.look(|_| Err(error(Errno::ENOBUFS))), Some(Shortage::Memory));
    }
}
