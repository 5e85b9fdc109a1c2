//! The records of a transport: where its other end is, and what was counted of it.

use weir_channel::message::{LISTENERS_MAX, UnroutedReason};

use super::{Address, At, Record, Twin};
use crate::page::record::records;

/// Where its other end is.
pub const REMOTE: Twin<RemoteOfTransport> = Twin::new(2, 24);
/// What transport-wide feedback goes on from.
pub const FEEDBACK: At<Feedback> = At::new(24, 25);
/// Counters.
pub const COUNTERS: At<TransportCounts> = At::new(30, 52);
/// What only its sockets count.
pub const SOCKETS: At<SocketCounts> = At::new(52, 64);

records! {
    /// Where the other end of a transport is.
    pub struct RemoteOfTransport {
        /// For RTP.
        pub rtp: Address,
        /// For RTCP, if it is known.
        pub rtcp: Address,
        /// When another port took its place last; 0: never.
        pub relearned_at: u64,
        /// It was not learned, but said by the application.
        pub is_said: u64,
    }

    /// Where transport-wide feedback has got to.
    pub struct Feedback {
        /// The number of the next packet; wraps at 256.
        pub count: u64,
    }

    /// What was counted of a transport.
    pub struct TransportCounts {
        /// Packets that were for somebody.
        pub packets: u64,
        /// Their bytes.
        pub bytes: u64,
        /// RTCP packets received.
        pub rtcp: u64,
        /// And sent.
        pub rtcp_sent: u64,
        /// Remotes learned anew.
        pub relearned: u64,
        /// Packets that were for nobody, by reason.
        pub unrouted: [u64; UnroutedReason::ALL.len()],
    }

    /// What was counted at the sockets of a transport.
    pub struct SocketCounts {
        /// What the kernel has said last of how much it has dropped: of each socket, in their order.
        pub drop_counts: [u32; 2 * LISTENERS_MAX],
        /// Packets that the kernel has dropped.
        pub kernel_drops: u64,
        /// Packets given to the kernel.
        pub packets_sent: u64,
        /// Their bytes.
        pub bytes_sent: u64,
        /// The RTCP packets among them.
        pub rtcp_sent: u64,
        /// Datagrams that were too long.
        pub truncated: u64,
        /// Copies sent to the mirror.
        pub mirrored: u64,
        /// Copies that the kernel did not take.
        pub mirror_failures: u64,
        /// Packets that could not be protected.
        pub protect_failures: u64,
    }
}
