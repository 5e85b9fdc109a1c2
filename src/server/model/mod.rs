//! What is known of rooms and what is in them. Nothing here starts a task, holds a socket or talks to a worker; the floors
//! above do, and change what is known under the lock of the [`State`](state::State).

pub(crate) mod address;
pub(crate) mod audio_levels;
#[cfg(feature = "http")]
pub(crate) mod census;
pub(crate) mod client_json;
pub(crate) mod client_memory;
pub(crate) mod consumer;
pub(crate) mod desired;
pub(crate) mod error;
pub(crate) mod event;
pub(crate) mod event_bus;
pub(crate) mod held;
pub(crate) mod ids;
pub(crate) mod limits;
mod lock;
pub(crate) mod log_settings;
pub(crate) mod pause_state;
pub(crate) mod peer;
pub(crate) mod peer_notification;
pub(crate) mod producer;
pub(crate) mod record;
pub(crate) mod reports;
pub(crate) mod reservation;
pub(crate) mod room;
pub(crate) mod rtc_stats;
pub(crate) mod rtp_capabilities;
#[allow(dead_code, unused_imports, reason = "the protocol uses it")]
pub(crate) mod rtp_parameters;
pub(crate) mod settings;
pub(crate) mod shortage;
pub(crate) mod side;
pub(crate) mod state;
pub(crate) mod transport;

pub(crate) use self::lock::lock;
