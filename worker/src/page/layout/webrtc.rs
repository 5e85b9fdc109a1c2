//! What a WebRTC transport has beside: keys, paths, and how far packets are numbered in both directions.

use super::super::record::{Record, records};
use super::*;

/// Paths of a transport.
pub const PATHS: usize = 8;

/// Reasons to refuse a check.
pub const REFUSALS: usize = 4;

/// SSRCs of which a transport's own slot keeps positions.
const POSITIONS: usize = 20;

/// And each further one of its slots.
const MORE_POSITIONS: usize = (Table::WebRtc.slot_words() - 2) / Position::WORDS;

/// Slots that a transport has at most: a peer decides under how many SSRCs it sends.
const SLOTS_MAX: usize = 3;

/// SSRCs of which positions are kept.
pub const POSITIONS_MAX: usize = POSITIONS + (SLOTS_MAX - 1) * MORE_POSITIONS;

/// How far DTLS has got.
pub const DTLS: At<DtlsProgress> = At::new(2, 3);
/// The number of SRTCP packets sent.
pub const SRTCP_SENT: Double = Double(3);
/// The keys.
pub const KEYS: Sealed<SrtpKeys> = Sealed::new(5, 18);
/// What ICE knows beside its paths. Stored last when a slot is taken: without it, nothing is there.
pub const AGENT: Twin<AgentRecord> = Twin::new(18, 72);
/// Counters.
pub const COUNTS: At<WebRtcCounts> = At::new(168, 196);
/// What ended the handshake, for a peer that has not received it.
pub const FLIGHT: Sealed<LastFlight> = Sealed::new(196, 216);
/// The peer's certificate.
pub const CERTIFICATE: Sealed<RemoteCertificate> = Sealed::new(216, 280);

/// Where a path is kept: what it is, and how it stands.
pub const fn path(place: usize) -> (Sealed<Pair>, At<PathState>) {
    let at = 72 + place * (Pair::WORDS + 1 + PathState::WORDS);
    (Sealed::new(at, 168), At::new(at + Pair::WORDS + 1, 168))
}

/// Where the positions of the SSRC with this number are kept: in which of the transport's slots, and where there.
pub const fn position(number: usize) -> (usize, At<Position>) {
    match number.checked_sub(POSITIONS) {
        None => (0, At::new(280 + number * Position::WORDS, 320)),
        Some(more) => (
            1 + more / MORE_POSITIONS,
            At::new(2 + more % MORE_POSITIONS * Position::WORDS, 320),
        ),
    }
}

records! {
    /// How far DTLS has got.
    pub struct DtlsProgress {
        /// One of [`progress`].
        pub progress: u8,
        /// Our role: 0 not decided, 1 client, 2 server.
        pub role: u8,
        /// Zero.
        pub spare: [u8; 6],
    }

    /// What a handshake has agreed on.
    pub struct SrtpKeys {
        /// The keys of what is sent and of what is received; shorter ones have zeroes behind them.
        pub keys: [[u8; 32]; 2],
        /// Likewise, their salts.
        pub salts: [[u8; 14]; 2],
        /// The profile's number in DTLS's `use_srtp` extension.
        pub profile: u16,
        /// Zero.
        pub spare: [u8; 2],
    }

    /// The two ends of a path.
    pub struct Pair {
        /// Ours.
        pub local: Address,
        /// The peer's.
        pub remote: Address,
        /// Counts paths.
        pub serial: u32,
        /// It is a TCP connection.
        pub is_tcp: u8,
        /// Zero.
        pub spare: [u8; 3],
    }

    /// How a path stands. Each word makes sense by itself.
    pub struct PathState {
        /// Of which credentials the last check was.
        pub generation: u32,
        /// Some of [`path_flags`].
        pub flags: u32,
        /// The number of the nomination.
        pub nomination: u64,
        /// When it was last checked.
        pub checked_at: u64,
        /// When it last showed that the peer uses it; 0: never.
        pub shown_at: u64,
    }

    /// What ICE knows beside its paths.
    pub struct AgentRecord {
        /// Counts restarts.
        pub generation: u32,
        /// Some of [`agent_flags`].
        pub flags: u32,
        /// The most recent nomination.
        pub nomination: u32,
        /// How many paths there ever were.
        pub paths_made: u32,
        /// The number of the path that is used.
        pub selected: u32,
        /// Of the one before.
        pub left: u32,
        /// One of [`ice_states`].
        pub state: u8,
        /// The bytes of the username fragment before the last restart, and of its password.
        pub previous_lengths: [u8; 2],
        /// Zero.
        pub spare: [u8; 5],
        /// When the path that is used last showed that it is.
        pub shown_at: u64,
        /// Tells the current username fragment from others.
        pub username_fragment: u64,
        /// What the handshake has proven.
        pub proven: Pair,
        /// The username fragment before the last restart,
        pub previous_username_fragment: [u8; 32],
        /// and the password.
        pub previous_password: [u8; 64],
    }

    /// What was counted.
    pub struct WebRtcCounts {
        /// Valid checks.
        pub checks: u64,
        /// Checks refused.
        pub refusals: u64,
        /// Those, by reason.
        pub refused: [u64; REFUSALS],
        /// Datagrams with DTLS.
        pub dtls: u64,
        /// Failures, by reason.
        pub failures: [u64; WebRtcFailureReason::ALL.len()],
    }

    /// What ended the handshake.
    pub struct LastFlight {
        /// When.
        pub sent_at: u64,
        /// The bytes of the datagram.
        pub len: u16,
        /// The datagram.
        pub datagram: [u8; 134],
    }

    /// The peer's certificate.
    pub struct RemoteCertificate {
        /// Its bytes.
        pub len: u16,
        /// In DER.
        pub der: [u8; 494],
    }

    /// How far the packets of an SSRC have been received. Each word makes sense by itself.
    pub struct Position {
        /// The SSRC.
        pub ssrc: u32,
        /// One more than its newest SRTCP index, and a bit that says that there is an SSRC.
        pub rtcp_next: u32,
        /// One more than its newest SRTP index, in 49 bits, and what tells that nobody else has written it.
        pub rtp_next: u64,
    }
}

/// Something else was written where a position is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Overwritten;

/// How far DTLS has got.
pub mod progress {
    /// Nothing was sent.
    pub const NEW: u8 = 0;
    /// The peer may begin, and has not yet.
    pub const WAITING: u8 = 1;
    /// Each side has said something that the other one remembers.
    pub const SHAKING_HANDS: u8 = 2;
    /// There are keys.
    pub const CONNECTED: u8 = 3;
    /// It has failed.
    pub const FAILED: u8 = 4;
    /// One side has closed it.
    pub const CLOSED: u8 = 5;
}

/// How a path stands.
pub mod path_flags {
    /// The peer has nominated it,
    pub const NOMINATED: u32 = 1;
    /// with a number.
    pub const NUMBERED: u32 = 1 << 1;
    /// What is sent by it reaches the peer.
    pub const PROVEN: u32 = 1 << 2;
}

/// What is true of an agent.
pub mod agent_flags {
    /// There is a path that is used.
    pub const SELECTED: u32 = 1;
    /// Another one was used before.
    pub const LEFT: u32 = 1 << 1;
    /// The peer numbers its nominations, and has made one.
    pub const NUMBERED: u32 = 1 << 2;
    /// Credentials of before a restart are still good.
    pub const PREVIOUS: u32 = 1 << 3;
    /// A handshake has proven a path.
    pub const HANDSHAKE: u32 = 1 << 4;
    /// Paths are to be proven.
    pub const ASKS: u32 = 1 << 5;
    /// There has been traffic since the peer began.
    pub const CONFIRMED: u32 = 1 << 6;
    /// There has been traffic by the path that is used.
    pub const CARRIED: u32 = 1 << 7;
    /// Its last connection was closed when it was disconnected last.
    pub const CONNECTION_CLOSED: u32 = 1 << 8;
}

/// States of ICE.
pub mod ice_states {
    /// No check has come.
    pub const NEW: u8 = 0;
    /// One has.
    pub const CONNECTED: u8 = 1;
    /// A path is nominated.
    pub const COMPLETED: u8 = 2;
    /// The peer is gone.
    pub const DISCONNECTED: u8 = 3;
}

impl Position {
    const IS_THERE: u32 = 1 << 31;
    const NEXT_BITS: u32 = 49;

    /// Of an SSRC with these next indices.
    pub fn new(ssrc: u32, rtp_next: u64, rtcp_next: u64) -> Self {
        let rtcp_next = rtcp_next.min(u64::from(Self::IS_THERE - 1)) as u32;
        Self {
            ssrc,
            rtcp_next: rtcp_next | Self::IS_THERE,
            rtp_next: rtp_next | u64::from(mark(ssrc, rtp_next)) << Self::NEXT_BITS,
        }
    }

    /// The SSRC with its next indices, SRTP and SRTCP, if there is one.
    ///
    /// # Errors
    /// Something else was written there.
    pub fn read(&self) -> Result<Option<(u32, u64, u64)>, Overwritten> {
        if self.rtcp_next & Self::IS_THERE == 0 {
            return Ok(None);
        }
        let rtp_next = self.rtp_next & ((1 << Self::NEXT_BITS) - 1);
        let is_intact = rtp_next <= 1 << 48 && self.rtp_next >> Self::NEXT_BITS == u64::from(mark(self.ssrc, rtp_next));
        let rtcp_next = u64::from(self.rtcp_next & !Self::IS_THERE);
        is_intact
            .then_some(Some((self.ssrc, rtp_next, rtcp_next)))
            .ok_or(Overwritten)
    }
}

/// 15 bits that another number would not have.
fn mark(ssrc: u32, next: u64) -> u16 {
    let mixed = (next ^ u64::from(ssrc) << 17 ^ 0x9e37_79b9).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 49) as u16
}

/// The records that are kept in two copies, and those that are sealed, with their words.
pub(in super::super) const SEALED: [(usize, usize); 3 + PATHS] = {
    let mut all = [(0, 0); 3 + PATHS];
    all[0] = (KEYS.0, SrtpKeys::WORDS);
    all[1] = (FLIGHT.0, LastFlight::WORDS);
    all[2] = (CERTIFICATE.0, RemoteCertificate::WORDS);
    let mut place = 0;
    while place < PATHS {
        all[3 + place] = (path(place).0.0, Pair::WORDS);
        place += 1;
    }
    all
};

/// What the layout's hash is of, too.
pub(super) const SHAPES: [&[(&str, usize, usize)]; 9] = [
    DtlsProgress::SHAPE,
    SrtpKeys::SHAPE,
    Pair::SHAPE,
    PathState::SHAPE,
    AgentRecord::SHAPE,
    WebRtcCounts::SHAPE,
    LastFlight::SHAPE,
    RemoteCertificate::SHAPE,
    Position::SHAPE,
];

pub(super) const PLACES: [usize; 9] = [
    DTLS.0,
    SRTCP_SENT.0,
    KEYS.0,
    AGENT.0,
    path(1).0.0,
    COUNTS.0,
    FLIGHT.0,
    CERTIFICATE.0,
    position(1).1.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_do_not_overlap() {
        assert_eq!(path(PATHS - 1).1.0 + PathState::WORDS, COUNTS.0);
        assert_eq!(position(POSITIONS - 1), (0, At::new(318, 320)));
        assert_eq!(position(POSITIONS), (1, At::new(2, 320)));
        let (slot, at) = position(POSITIONS_MAX - 1);
        assert_eq!((slot, at.0), (SLOTS_MAX - 1, 318));
    }

    #[test]
    fn a_position_is_read_as_it_was_written_and_nothing_else_is() {
        for (ssrc, rtp, rtcp) in [(0, 0, 0), (1, 1 << 48, 1 << 31), (u32::MAX, 0x1_2345, 7)] {
            let position = Position::new(ssrc, rtp, rtcp);
            assert_eq!(position.read(), Ok(Some((ssrc, rtp, rtcp.min((1 << 31) - 1)))));
            let refused = (0..64).filter(|bit| {
                let other = Position {
                    rtp_next: position.rtp_next ^ 1 << bit,
                    ..position
                };
                other.read().is_err()
            });
            assert_eq!(refused.count(), 64, "every bit tells");
        }
        assert_eq!(Position::default().read(), Ok(None));
    }
}
