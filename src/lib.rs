//! Weir: an SFU media server. It relays live RTP from producers to consumers.
//!
//! This library is the *supervisor*: it owns the control plane, and starts and watches one *worker* process per CPU, which
//! owns the media plane. A [`Server`] holds [`Room`]s; a room lives in one worker and holds [`Transport`]s; a
//! [`Producer`] is a track that arrives on a transport, a [`Consumer`] is a producer as it leaves on another.
//!
//! What is known of these objects here changes only when the worker has accepted it, and every change is told by an
//! [`Event`]. Deliberately absent: packets. None ever passes through this process.

mod embed;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
#[path = "../tests/fuzz/protocol.rs"]
pub mod fuzz;
#[cfg(all(any(test, fuzzing), feature = "sdp"))]
#[doc(hidden)]
#[path = "../tests/fuzz/sdp.rs"]
pub mod fuzz_sdp;
#[cfg(feature = "http")]
pub mod http;
pub mod protocol;
#[cfg(feature = "sdp")]
pub mod sdp;
mod server;
#[cfg(feature = "cli")]
pub mod settings;

pub use embed::run_worker_if_started_as_one;
pub use server::{
    ActiveSpeaker, ActiveSpeakerDetector, AudioLevel, AudioLevelsStream, CloseCause, ConnectedSockets, Consumer,
    ConsumerInfo, ConsumerOptions, ConsumerReservation, ConsumerRtp, DeathCause, Direction, EnableOptions, Error,
    Event, EventKind, EventStream, Family, IceCandidate, IceCandidateType, IceParameters, IceTcpType, InboundRtpStats,
    IpFamily, Joined, LocalBandwidth, LogSettings, LogTag, MirrorOptions, Mirroring, Originator, OutboundRtpStats,
    Peer, PeerDump, PeerInfo, PeerNotification, PeerNotifications, PeerOptions, PlainTransportOptions, PortRange,
    Producer, ProducerLevel, ProducerOptions, RemoteBandwidth, Room, RoomDump, RoomOptions, RtcStats,
    RtcTransportStats, RtcpFeedback, RtcpParameters, RtpCapabilities, RtpCodec, RtpCodecCapability, RtpEncoding,
    RtpHeaderExtension, RtpHeaderExtensionCapability, RtpParameters, RtpStreamRtcStats, RtpStreamer,
    RtpStreamerOptions, RtxParameters, Server, ServerDump, Settings, SettingsUpdate, Shortage, Side, StartError,
    Transport, TransportKind, Tuple, WebRtcTransport, WebRtcTransportOptions, WorkerDump, WorkerInfo, WorkerState,
};
pub use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId, WorkerId};
pub use weir_channel::message::{
    Coalescing, CodecName, ComediaPolicy, ConsumerDump, ConsumerStats, Counter, CounterKind, Counts, DropReason,
    DtlsParameters, DtlsRole, DtlsState, DumpPage, ExtensionUri, Fingerprint, FingerprintAlgorithm, Histogram,
    IceProtocol, IceState, IceTuple, LogLevel, MediaKind, NotRepaired, ProducerDump, ProducerStats, Profile, Remote,
    Residence, ResidenceBucket, Sandbox, SandboxLack, SandboxLayer, SandboxMode, StatsPage, StreamStats, TransportDump,
    TransportStats, UnroutedReason, WebRtcFailure, WebRtcFailureReason, WebRtcStats, WorkerError, WorkerStats, Zoned,
};
