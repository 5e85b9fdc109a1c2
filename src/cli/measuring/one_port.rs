//! How the WebRTC clients of a measured server share a port.

use std::net::{Ipv4Addr, TcpListener};
use std::num::NonZeroU16;

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;
use weir::{ConnectedSockets, Settings};

/// How transports share a port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::cli) enum OnePort {
    /// Each client has its own connected socket
    Connected,
    /// All clients share one unconnected socket
    Shared,
}

impl OnePort {
    /// The same settings, with a port that all transports of a worker share.
    pub(in crate::cli) fn set(self, settings: Settings) -> anyhow::Result<Settings> {
        Ok(Settings {
            webrtc_port: Some(free_port()?),
            webrtc_connected: match self {
                Self::Shared => ConnectedSockets::Never,
                Self::Connected => ConnectedSockets::Auto,
            },
            ..settings
        })
    }

    /// In words.
    pub(in crate::cli) fn what(self) -> &'static str {
        match self {
            Self::Connected => "one port, connected sockets",
            Self::Shared => "one port, one socket",
        }
    }
}

/// A port of UDP and TCP that was nobody's a moment ago.
fn free_port() -> anyhow::Result<NonZeroU16> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("looking for a free port")?;
    NonZeroU16::new(probe.local_addr()?.port()).context("a port of number 0")
}
