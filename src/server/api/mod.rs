//! What applications hold: the server, handles on the objects in it, and streams of what happens to them.

pub(crate) mod active_speaker;
pub(crate) mod audio_levels;
#[cfg(feature = "http")]
pub(crate) mod census;
pub(crate) mod consumer;
pub(crate) mod dump;
pub(crate) mod event_stream;
pub(crate) mod get_stats;
mod handle;
mod pausing;
pub(crate) mod peer;
pub(crate) mod peer_notifications;
pub(crate) mod periodic_stats;
pub(crate) mod producer;
pub(crate) mod room;
pub(crate) mod rtp_streamer;
pub(crate) mod server;
mod stats;
pub(crate) mod transport;
