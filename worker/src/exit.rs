//! How a worker ends: its exit codes, shared with the supervisor.

use std::fmt;
use std::process::ExitCode;

/// Why a worker process exited. The numbers are fixed; they keep clear of the shell's (126 and up) and, apart from
/// [`Exit::Panic`], of those that other programs use.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Exit {
    /// Asked to shut down, answered, done.
    Success = 0,
    /// The command line is not what a supervisor of this version writes.
    BadArguments = 64,
    /// Descriptor 0 is not one end of a Unix stream socketpair.
    NoChannel = 65,
    /// The supervisor's Hello names another protocol version, or another worker.
    VersionMismatch = 66,
    /// The supervisor was gone before the worker had started.
    ParentGone = 67,
    /// The supervisor has closed the channel, or died.
    ChannelLost = 68,
    /// What came over the channel made no sense, or nothing was read at the other end for too long.
    ChannelBroken = 69,
    /// The system refused something that a worker needs to start.
    Setup = 70,
    /// The system refused to wait for events.
    EventLoop = 71,
    /// A bug: the worker has panicked, and said where on its standard error. (The number is that of every Rust program.)
    Panic = 101,
}

impl Exit {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Success,
        Self::BadArguments,
        Self::NoChannel,
        Self::VersionMismatch,
        Self::ParentGone,
        Self::ChannelLost,
        Self::ChannelBroken,
        Self::Setup,
        Self::EventLoop,
        Self::Panic,
    ];

    /// The number that the process ends with.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// What a number means, if a worker uses it.
    pub fn from_code(code: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| i32::from(exit.code()) == code)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Success => "shut down as asked",
            Self::BadArguments => "bad arguments",
            Self::NoChannel => "no channel on its standard input",
            Self::VersionMismatch => "the supervisor has another version, or meant another worker",
            Self::ParentGone => "the supervisor was gone before it had started",
            Self::ChannelLost => "the supervisor closed the channel",
            Self::ChannelBroken => "the channel broke",
            Self::Setup => "it could not be set up",
            Self::EventLoop => "it could not wait for events",
            Self::Panic => "panic",
        })
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_mean_what_they_say() {
        for exit in Exit::ALL {
            assert_eq!(Exit::from_code(i32::from(exit.code())), Some(exit));
        }
        assert_eq!(Exit::from_code(1), None);
        assert_eq!(Exit::from_code(-1), None);
        assert_eq!(Exit::from_code(256), None);
    }
}
