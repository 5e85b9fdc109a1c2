//! How the event loop ends.

use weir_channel::error::ChannelError;

use crate::exit::Exit;

/// How the loop ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ended {
    /// The exit code.
    pub exit: Exit,
    /// The reason in words.
    pub reason: String,
}

impl Ended {
    pub(super) fn new(exit: Exit, reason: impl ToString) -> Self {
        Self {
            exit,
            reason: reason.to_string(),
        }
    }
}

impl From<ChannelError> for Ended {
    fn from(error: ChannelError) -> Self {
        let exit = match error {
            ChannelError::Closed | ChannelError::ClosedInFrame { .. } => Exit::ChannelLost,
            ChannelError::VersionMismatch { .. } | ChannelError::WrongWorker { .. } => Exit::VersionMismatch,
            _ => Exit::ChannelBroken,
        };
        Self::new(exit, error)
    }
}
