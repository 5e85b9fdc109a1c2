//! What the workers log: from which level on, and which of their parts.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use weir_channel::message::LogLevel;

/// What the workers log.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LogSettings {
    /// Lines below this level are not written.
    pub level: LogLevel,
    /// The parts of a worker whose lines below `error` are written; empty: all parts.
    pub tags: Vec<LogTag>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            level: LogLevel::Warn,
            tags: Vec::new(),
        }
    }
}

/// A part of a worker whose log lines can be switched on separately.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogTag {
    /// Start, end and event loop.
    Process,
    /// The channel to the supervisor.
    Channel,
    /// Sockets and calls into the kernel.
    Net,
    /// Packets and their parsing.
    Rtp,
    /// Routers, transports, producers, consumers.
    Relay,
}

impl LogTag {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Process, Self::Channel, Self::Net, Self::Rtp, Self::Relay];

    /// The word for it in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::Channel => "channel",
            Self::Net => "net",
            Self::Rtp => "rtp",
            Self::Relay => "relay",
        }
    }

    fn target(self) -> &'static str {
        match self {
            Self::Process => "weir_worker::process",
            Self::Channel => "weir_channel",
            Self::Net => "weir_worker::net",
            Self::Rtp => "weir_worker::rtp",
            Self::Relay => "weir_worker::relay",
        }
    }
}

impl fmt::Display for LogTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for LogTag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|tag| tag.name() == text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name);
            format!("{text:?} is not a log tag; choose from {}", names.join(", "))
        })
    }
}

impl LogSettings {
    /// As a `tracing_subscriber` filter.
    pub(crate) fn directives(&self) -> String {
        let level = level_name(self.level);
        if self.tags.is_empty() {
            return level.to_owned();
        }
        let mut directives = level_name(LogLevel::Error).to_owned();
        for tag in &self.tags {
            directives += &format!(",{}={level}", tag.target());
        }
        directives
    }
}

fn level_name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}
