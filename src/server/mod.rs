//! The server: rooms and what is in them, and the worker processes that serve them. Three floors, and each knows only those
//! below it: [`model`] is what is known, [`workers`] are the processes and their sockets, [`api`] is what applications hold.

mod api;
#[cfg(any(test, fuzzing))]
#[cfg_attr(fuzzing, allow(dead_code, reason = "fuzzing needs less of it"))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
pub(crate) mod fake;
mod model;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what led there"
)]
mod simulation;
#[cfg(test)]
mod tests;
mod workers;

pub use self::api::active_speaker::{ActiveSpeaker, ActiveSpeakerDetector};
pub use self::api::audio_levels::{AudioLevelsStream, ProducerLevel};
pub use self::api::consumer::{Consumer, EnableOptions};
pub use self::api::dump::{PeerDump, RoomDump, ServerDump, WorkerDump};
pub use self::api::event_stream::EventStream;
#[cfg(feature = "http")]
pub(crate) use self::api::get_stats::wall_clock_ms;
pub use self::api::peer::{Joined, Peer};
pub use self::api::peer_notifications::PeerNotifications;
pub(crate) use self::api::periodic_stats::{STATS_INTERVAL_MAX, STATS_INTERVAL_MIN};
#[cfg(feature = "http")]
pub(crate) use self::api::periodic_stats::{StatsStream, Subject};
pub use self::api::producer::Producer;
pub use self::api::room::{PlainTransportOptions, Room, RoomOptions};
pub use self::api::rtp_streamer::{RtpStreamer, RtpStreamerOptions};
pub use self::api::server::Server;
pub use self::api::transport::{
    ConsumerOptions, MirrorOptions, ProducerOptions, Transport, WebRtcTransport, WebRtcTransportOptions,
};
pub use self::model::address::{IpFamily, Tuple};
#[cfg(feature = "http")]
pub(crate) use self::model::census::{
    CONSUMER_STATES, Census, DTLS_STATES, ICE_STATES, MEDIA_KINDS, PRODUCER_STATES, RoomCensus, TRANSPORT_KINDS,
};
pub(crate) use self::model::client_json::{known_capabilities, known_parameters};
#[cfg(feature = "http")]
pub(crate) use self::model::client_memory::{ClientMemory, HeldInCommon, Share};
pub use self::model::error::{DeathCause, Error, StartError};
pub use self::model::event::{AudioLevel, CloseCause, Event, EventKind, Originator};
pub(crate) use self::model::ids::random;
pub(crate) use self::model::lock;
pub use self::model::log_settings::{LogSettings, LogTag};
pub use self::model::peer::{PeerInfo, PeerOptions};
pub use self::model::peer_notification::{ConsumerInfo, PeerNotification};
pub(crate) use self::model::producer::Consumable;
#[cfg(feature = "http")]
pub(crate) use self::model::record::{Record, bytes_of_event};
pub use self::model::reservation::ConsumerReservation;
pub use self::model::rtc_stats::{
    InboundRtpStats, LocalBandwidth, OutboundRtpStats, RemoteBandwidth, RtcStats, RtcTransportStats, RtpStreamRtcStats,
};
pub use self::model::rtp_capabilities::{RtpCapabilities, RtpCodecCapability, RtpHeaderExtensionCapability};
pub use self::model::rtp_parameters::{
    ConsumerRtp, RtcpFeedback, RtcpParameters, RtpCodec, RtpEncoding, RtpHeaderExtension, RtpParameters, RtxParameters,
};
#[cfg(feature = "cli")]
pub(crate) use self::model::settings::server_settings;
pub use self::model::settings::{ConnectedSockets, Family, PortRange, Settings, SettingsUpdate};
pub use self::model::shortage::Shortage;
pub use self::model::side::Side;
pub use self::model::transport::{
    Direction, IceCandidate, IceCandidateType, IceParameters, IceTcpType, Mirroring, TransportKind,
};
#[cfg(feature = "http")]
pub(crate) use self::workers::descriptors::leave_reserve;
pub use self::workers::slot::{WorkerInfo, WorkerState};
