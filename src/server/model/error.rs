//! What can go wrong, in words an operator can act on and with a code a program can.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde::Serialize;
use weir_channel::id::{ConsumerId, RoomId, WorkerId};
use weir_channel::message::WorkerError;

use crate::server::model::settings::PortRange;
use crate::server::model::shortage::Shortage;

/// Why a call on a [`Server`](crate::Server) or one of its objects failed. Nothing was changed, except after
/// [`Error::Timeout`] and [`Error::WorkerDied`], where the worker may have acted before it fell silent: what it did act
/// on is told by the events that follow.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The object, or the server, is closed.
    #[error("{object} is closed")]
    InvalidState {
        /// The object, e.g. `consumer 7`.
        object: String,
    },
    /// The consumer has a transport already.
    #[error("{consumer} is enabled already")]
    AlreadyEnabled {
        /// The consumer.
        consumer: ConsumerId,
    },
    /// The consumer has no transport, so there is nothing that the worker could say of it, or do.
    #[error("{consumer} is not enabled")]
    NotEnabled {
        /// The consumer.
        consumer: ConsumerId,
    },
    /// A peer of this name is in the room.
    #[error("peer {name:?} is in {room} already; choose another name")]
    DuplicatePeer {
        /// The name.
        name: String,
        /// The room.
        room: RoomId,
    },
    /// A limit is reached.
    #[error("{owner} is at its limit of {limit} {noun}")]
    TooMany {
        /// The owner of the limit, e.g. `peer "alice"`.
        owner: String,
        /// What is limited, in the plural.
        noun: &'static str,
        /// The limit.
        limit: usize,
    },
    /// There is no such object.
    #[error("there is no {object}")]
    NotFound {
        /// The object, e.g. `room 3`.
        object: String,
    },
    /// An argument cannot be accepted; the text says what to do about it.
    #[error("{0}")]
    InvalidParameters(String),
    /// The worker refused.
    #[error("the worker refused: {0}")]
    Worker(#[source] WorkerError),
    /// The worker did not answer in time. If it answers late, what it did is applied and told by events.
    #[error("the worker did not answer within {}", humantime::format_duration(*.after))]
    Timeout {
        /// The time that it had.
        after: Duration,
    },
    /// The worker died before it answered.
    #[error("{worker} died: {cause}")]
    WorkerDied {
        /// The worker.
        worker: WorkerId,
        /// The cause of the worker's death.
        cause: DeathCause,
    },
    /// No worker can take the room now.
    #[error("no worker can take a room now: {0}; try again when one has been restarted")]
    NoWorker(String),
    /// Every port of the range is in use.
    #[error("no free port for {ip} in {range}; widen rtc_ports or close transports")]
    PortsExhausted {
        /// The local address.
        ip: IpAddr,
        /// The range that was searched.
        range: PortRange,
    },
    /// The requested port is in use.
    #[error(
        "port {port} of {ip} is in use; choose another one, close whatever uses it, or leave the port out to get a free one"
    )]
    PortTaken {
        /// The local address.
        ip: IpAddr,
        /// The port, or the one of a pair that is RTP's.
        port: u16,
    },
    /// The system has no more of something.
    #[error("{doing}: {shortage}")]
    Exhausted {
        /// What was being done.
        doing: String,
        /// What is missing.
        shortage: Shortage,
    },
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The worker's answer does not fit the request.
    #[error("{worker} broke the channel's protocol: {reason}")]
    Protocol {
        /// The worker.
        worker: WorkerId,
        /// What it did wrong.
        reason: String,
    },
}

impl Error {
    /// A stable word for programs; it never changes its meaning between versions.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidState { .. } | Self::AlreadyEnabled { .. } | Self::NotEnabled { .. } => "invalidState",
            Self::DuplicatePeer { .. } | Self::PortTaken { .. } => "conflict",
            Self::TooMany { .. } => "tooMany",
            Self::NotFound { .. } => "notFound",
            Self::InvalidParameters(_) => "invalidParameters",
            Self::Worker(error) => match error {
                WorkerError::UnknownRoom(_)
                | WorkerError::UnknownTransport(_)
                | WorkerError::UnknownProducer(_)
                | WorkerError::UnknownConsumer(_) => "notFound",
                WorkerError::DuplicateRoom(_)
                | WorkerError::DuplicateTransport(_)
                | WorkerError::DuplicateProducer(_)
                | WorkerError::DuplicateConsumer(_)
                | WorkerError::SsrcInUse { .. }
                | WorkerError::MidInUse { .. }
                | WorkerError::Mirrored(_)
                | WorkerError::DtlsParametersSet(_) => "conflict",
                WorkerError::OtherRoom { .. }
                | WorkerError::NotWebRtc(_)
                | WorkerError::NotPlain(_)
                | WorkerError::InvalidParameters(_) => "invalidParameters",
                WorkerError::DeadlinePassed => "timeout",
                WorkerError::TooMany { .. } => "tooMany",
                WorkerError::Descriptors { .. } | WorkerError::Os { .. } => "io",
            },
            Self::Timeout { .. } => "timeout",
            Self::WorkerDied { .. } => "workerDied",
            Self::NoWorker(_) => "noWorker",
            Self::PortsExhausted { .. } => "portsExhausted",
            Self::Exhausted { shortage, .. } => shortage.code(),
            Self::Io { .. } => "io",
            Self::Protocol { .. } => "protocol",
        }
    }

    pub(crate) fn closed(object: impl ToString) -> Self {
        Self::InvalidState {
            object: object.to_string(),
        }
    }

    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| match Shortage::of(&source) {
            Some(shortage) => Self::Exhausted { doing, shortage },
            None => Self::Io { doing, source },
        }
    }
}

impl From<WorkerError> for Error {
    fn from(error: WorkerError) -> Self {
        match error {
            // As many as it needs were sent. The kernel throws those away that find no room.
            WorkerError::Descriptors { expected, received } if received < expected => Self::Exhausted {
                doing: format!("only {received} of {expected} sockets reached the worker"),
                shortage: Shortage::WorkerDescriptors,
            },
            error => Self::Worker(error),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be used; the text names it and says what to do.
    #[error("{0}")]
    Settings(String),
    /// The kernel, or a sandbox around this process, refuses something that every transport needs.
    #[error(
        "the kernel, or what confines this process (seccomp, a sandbox), refuses what every transport needs: {0}; \
         docs/operations.md lists the kernels that Weir runs on, and what it asks of them"
    )]
    Kernel(String),
    /// No worker program was found.
    #[error(
        "no worker program: {0}; set worker_binary (--worker-binary, WEIR_WORKER_BINARY) to the path of weir or weir-worker"
    )]
    NoWorkerBinary(String),
    /// A worker did not come up.
    #[error("{worker} did not start: {cause}{}", last_lines(.stderr))]
    Worker {
        /// The worker.
        worker: WorkerId,
        /// Why it died.
        cause: DeathCause,
        /// The last lines it wrote to its standard error.
        stderr: Vec<String>,
    },
    /// The operating system refused something.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl StartError {
    pub(crate) fn io<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        |error| Self::Io {
            doing,
            source: error.into(),
        }
    }
}

fn last_lines(stderr: &[String]) -> String {
    if stderr.is_empty() {
        return String::new();
    }
    format!("; its last log lines: {}", stderr.join(" | "))
}

/// Why a worker process died.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, schemars::JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum DeathCause {
    /// The operating system did not start it.
    #[error("it could not be started: {reason}")]
    NotStarted {
        /// The system's error message.
        reason: String,
    },
    /// It did not say hello in time, and was killed.
    #[error("it did not say hello within {timeout_ms} ms and was killed")]
    NoHello {
        /// The time that it had.
        timeout_ms: u64,
    },
    /// It did not answer a ping in time, and was killed.
    #[error("it did not answer a ping within {timeout_ms} ms and was killed")]
    Hung {
        /// The time that it had.
        timeout_ms: u64,
    },
    /// A turn of its event loop did not end, and it was killed.
    #[error("a turn of its event loop lasted for more than {turn_ms} ms, and it was killed")]
    Stuck {
        /// The time that a turn may take.
        turn_ms: u64,
    },
    /// It did not wake up from waiting for something to do, as it does all the time, and was killed: it was stopped, or gets no CPU.
    #[error("it did not wake up for more than {rest_ms} ms, and was killed")]
    Frozen {
        /// The time in which it should have.
        rest_ms: u64,
    },
    /// It exited by itself.
    #[error("it exited with code {code} ({meaning})")]
    Exited {
        /// The exit code.
        code: i32,
        /// What the exit code means.
        meaning: String,
    },
    /// A signal ended it.
    #[error("it was killed by {name}{}{}", forbidden(*.signal), if *.core_dumped { " (core dumped)" } else { "" })]
    Signalled {
        /// The signal's number.
        signal: i32,
        /// The signal's name, e.g. `SIGKILL`.
        name: String,
        /// Whether it left a core dump.
        core_dumped: bool,
    },
    /// It broke the protocol of the channel, and was killed.
    #[error("it broke the channel's protocol ({reason}) and was killed")]
    Protocol {
        /// What it said.
        reason: String,
    },
    /// It said more than it may, or what cannot be true, or let requests time out, and was killed.
    #[error("it misbehaved ({reason}) and was killed")]
    Misbehaved {
        /// What it did, in a sentence.
        reason: String,
    },
    /// It closed its channel without exiting, and was killed.
    #[error("it closed its channel but did not exit, and was killed")]
    ChannelClosed,
    /// The server was closed.
    #[error("the server was closed")]
    ServerClosed,
}

impl DeathCause {
    /// Whether it was ended by the signal with which processes end themselves.
    pub(crate) fn is_abort(&self) -> bool {
        matches!(self, Self::Signalled { signal, .. } if *signal == Signal::SIGABRT as i32)
    }
}

/// What a signal says of a worker.
fn forbidden(signal: i32) -> &'static str {
    match Signal::try_from(signal) {
        Ok(Signal::SIGSYS) => ", a forbidden system call",
        _ => "",
    }
}
