//! What the workers log: from which level on, and which of their parts.

use serde::{Deserialize, Serialize};
use weir_channel::message::LogLevel;
use weir_channel::words;

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

words!(LogTag { Process = "process", Channel = "channel", Net = "net", Rtp = "rtp", Relay = "relay" });

impl LogTag {
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

impl LogSettings {
    /// As a `tracing_subscriber` filter.
    pub(crate) fn directives(&self) -> String {
        if self.tags.is_empty() {
            return self.level.to_string();
        }
        let mut directives = LogLevel::Error.to_string();
        for tag in &self.tags {
            directives += &format!(",{}={}", tag.target(), self.level);
        }
        directives
    }
}
