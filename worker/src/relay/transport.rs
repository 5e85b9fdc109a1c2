//! A transport as the relay sees it: whose packets arrive on it, whose leave on it, and where the other end is.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_channel::id::{RoomId, TransportId};
use weir_channel::message::{ComediaPolicy, CreatePlainTransport, Remote, TransportStats, UnroutedReason, WorkerError};

use crate::page::Slot;
use crate::rtp::rtcp::reduced_size;
use crate::time::Time;

use super::arrivals::TransportFeedback;
use super::keys::{ConsumerKey, ProducerKey, TransportKey};
use super::newcomers::Newcomers;
use super::producer::Producer;
use super::routes::Routes;
use super::sink::{Port, Sink, TransportIx};
use super::slots::Slots;
use super::transport_reports::TransportReports;
use super::used_indices::{UsedIndices, before_first};

/// How long a remote must be silent before another port of its IP may take its place.
pub(super) const RELEARN_AFTER: Duration = Duration::from_secs(5);

/// For so long after a change of the remote, a BYE does not lead to another change.
const BYE_AFTER_RELEARN: Duration = Duration::from_secs(1);

/// So many SSRCs of closed producers are remembered for each transport.
const CLOSED_MAX: usize = 64;

/// A path between the worker and one remote. What every packet needs comes first, in two cache lines, with WebRTC in one.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Transport {
    /// The other end, once known.
    pub remote: Option<Remote>,
    /// When something last came from the remote, or when the remote was set.
    pub last_received: Time,
    /// Packets and bytes that were for somebody.
    pub(super) received: (u64, u64),
    /// The remote has sent a BYE (RFC 3550 §6.6), and no media since.
    pub said_bye: bool,
    /// What its kind is.
    is_webrtc: bool,
    /// There is nothing to report, so far as is known: neither has anything come nor left since the last report was begun, nor had
    /// that anything in it.
    pub is_quiet: bool,
    /// Who receives what arrives under an SSRC: given at creation, or learned through MID and RID.
    pub ssrcs: Routes,
    /// Its id.
    pub id: TransportId,
    /// The room it belongs to.
    pub room: RoomId,
    /// Its dense index.
    pub index: TransportIx,
    /// Where it is kept for a successor.
    pub page: Slot,
    /// When another port took the remote's place last.
    pub relearned_at: Option<Time>,
    /// What it speaks.
    pub kind: TransportKind,
    /// Which stream's retransmissions arrive under an SSRC: likewise.
    pub rtx_ssrcs: HashMap<u32, (ProducerKey, u8), FixedState>,
    /// Which consumer sends under an SSRC.
    pub consumer_ssrcs: HashMap<u32, ConsumerKey, FixedState>,
    /// Which consumer sends again under an SSRC. What receivers say of these streams means nothing for the media.
    pub consumer_rtx_ssrcs: HashMap<u32, ConsumerKey, FixedState>,
    /// How far the numbers of SSRCs are used that consumers of a WebRTC transport had.
    pub used_indices: UsedIndices,
    /// Producers that arrive on it.
    pub producers: Vec<ProducerKey>,
    /// Consumers that leave on it.
    pub consumers: Vec<ConsumerKey>,
    /// What its reports need.
    pub reports: TransportReports,
    /// What transport-wide feedback needs.
    pub feedback: TransportFeedback,
    /// SSRCs of producers that were closed, the latest last. Who goes on sending under one of them means no other producer.
    pub closed_ssrcs: Vec<u32>,
    /// Who may become the remote.
    pub newcomers: Option<Newcomers>,
    pub(super) counters: TransportCounters,
}

/// All of a worker's.
pub(super) type Transports = Slots<TransportKey, Transport>;

/// What a transport speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TransportKind {
    /// RTP and RTCP as they are.
    Plain {
        /// Known from the beginning.
        remote: Option<Remote>,
        /// Learn the other end from the first valid packet.
        comedia: bool,
        /// Whether it may be learned anew.
        policy: ComediaPolicy,
        /// The only IP that it may be learned at.
        comedia_from: Option<IpAddr>,
        /// RTP and RTCP share one port.
        rtcp_mux: bool,
    },
    /// SRTP and SRTCP on one port. The shell unprotects and protects them, and passes on nothing that is not the peer's; the remote
    /// is known while the peer is connected.
    WebRtc,
}

impl TransportKind {
    pub(super) fn of_plain(request: &CreatePlainTransport) -> Self {
        Self::Plain {
            remote: request.remote,
            comedia: request.comedia,
            policy: request.comedia_policy,
            comedia_from: request.comedia_from.map(|ip| ip.to_canonical()),
            rtcp_mux: request.rtcp_mux,
        }
    }

    pub(super) fn remote(self) -> Option<Remote> {
        match self {
            Self::Plain { remote, .. } => remote,
            Self::WebRtc => None,
        }
    }

    pub(super) fn comedia(self) -> bool {
        matches!(self, Self::Plain { comedia: true, .. })
    }

    /// The only IP that a remote may be learned at.
    pub(super) fn comedia_from(self) -> Option<IpAddr> {
        match self {
            Self::Plain { comedia_from, .. } => comedia_from,
            Self::WebRtc => None,
        }
    }

    /// Whether another port of the remote's IP may take its place.
    pub(super) fn relearns(self) -> bool {
        let policy = ComediaPolicy::Relearn;
        matches!(self, Self::Plain { comedia: true, policy: own, .. } if own == policy)
    }

    pub(super) fn rtcp_mux(self) -> bool {
        matches!(self, Self::WebRtc | Self::Plain { rtcp_mux: true, .. })
    }
}

#[derive(Debug, Default)]
pub(super) struct TransportCounters {
    pub(super) rtcp: u64,
    pub(super) rtcp_sent: u64,
    pub(super) relearned: u64,
    pub(super) unrouted: [u64; UnroutedReason::ALL.len()],
}

/// What to make of the address a packet came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SourceCheck {
    /// The remote.
    Remote,
    /// Might become the remote, if the packet is valid.
    Candidate,
    /// Another port of a sender's IP: its RTCP is accepted, as many senders report from another port than they send from, and
    /// after a silence it may become the remote ([`Relay::may_relearn`](super::Relay)).
    Neighbour,
    /// To be dropped.
    Refused(UnroutedReason),
}

/// Where a packet came from.
#[derive(Clone, Copy)]
pub(super) struct Origin {
    pub now: Time,
    pub transport: TransportKey,
    pub port: Port,
    pub source: SocketAddr,
    pub check: SourceCheck,
}

impl Transport {
    /// Where the fields lie that every packet needs.
    #[cfg(test)]
    pub(super) const HOT: [std::ops::Range<usize>; 2] = {
        use std::mem::offset_of;
        let ssrcs = offset_of!(Self, ssrcs);
        [
            0..offset_of!(Remote, rtp) + size_of::<SocketAddr>(),
            offset_of!(Self, last_received)..ssrcs + Routes::HOT.end,
        ]
    };

    /// A transport that nothing has come on yet.
    pub(super) fn new(
        id: TransportId,
        room: RoomId,
        index: TransportIx,
        kind: TransportKind,
        now: Time,
        hash: &FixedState,
    ) -> Self {
        Self {
            remote: kind.remote(),
            last_received: now,
            received: (0, 0),
            said_bye: false,
            is_webrtc: kind == TransportKind::WebRtc,
            is_quiet: false,
            ssrcs: Routes::new(hash),
            id,
            room,
            index,
            page: Slot::NONE,
            relearned_at: None,
            kind,
            rtx_ssrcs: HashMap::with_hasher(hash.clone()),
            consumer_ssrcs: HashMap::with_hasher(hash.clone()),
            consumer_rtx_ssrcs: HashMap::with_hasher(hash.clone()),
            used_indices: UsedIndices::new(hash.clone()),
            producers: Vec::new(),
            consumers: Vec::new(),
            reports: TransportReports::default(),
            feedback: TransportFeedback::default(),
            closed_ssrcs: Vec::new(),
            newcomers: None,
            counters: TransportCounters::default(),
        }
    }

    /// Who a packet may be from. Without a remote, a `comedia` transport listens to anybody until somebody makes sense.
    #[inline]
    pub(super) fn check_source(&self, port: Port, source: SocketAddr) -> SourceCheck {
        // What the shell hands on is authentic, also from a path that is not proven yet: then only nothing is sent there.
        let is_usual = || port == Port::Rtp && self.remote.is_some_and(|remote| remote.rtp == source);
        if self.is_webrtc || is_usual() {
            return SourceCheck::Remote;
        }
        self.check_other_source(port, source)
    }

    fn check_other_source(&self, port: Port, source: SocketAddr) -> SourceCheck {
        let comedia = self.kind.comedia();
        let Some(remote) = self.remote else {
            let is_expected = |from: IpAddr| from == source.ip().to_canonical();
            return match port {
                Port::Rtp if comedia && self.kind.comedia_from().is_none_or(is_expected) => SourceCheck::Candidate,
                Port::Rtp if comedia => SourceCheck::Refused(UnroutedReason::ForeignSource),
                Port::Rtp | Port::Rtcp => SourceCheck::Refused(UnroutedReason::NoRemote),
            };
        };
        let expected = match port {
            Port::Rtp => Some(remote.rtp),
            Port::Rtcp => remote.rtcp,
        };
        let is_near = [Some(remote.rtp), remote.rtcp]
            .into_iter()
            .flatten()
            .any(|known| is_same_host(known, source));
        match expected {
            Some(expected) if expected.port() == source.port() && is_same_host(expected, source) => SourceCheck::Remote,
            // Its RTCP port is learned too, but only from the host that RTP was learned from.
            None if comedia && is_near => SourceCheck::Candidate,
            // A receiver's address is given to it, so that packets are accepted from there alone.
            _ if is_near && (comedia || !self.producers.is_empty()) => SourceCheck::Neighbour,
            _ => SourceCheck::Refused(UnroutedReason::ForeignSource),
        }
    }

    /// Whether nothing has come from the remote for so long that another port of its IP may take its place.
    pub(super) fn is_silent(&self, now: Time) -> bool {
        now.since(self.last_received) >= RELEARN_AFTER
    }

    /// Whether a BYE is believed: each change of the remote costs a notification, and something for each consumer.
    pub(super) fn accepts_bye(&self, now: Time) -> bool {
        self.said_bye
            && self
                .relearned_at
                .is_none_or(|last| now.since(last) >= BYE_AFTER_RELEARN)
    }

    /// Something came from the remote. RTCP may follow a BYE; media takes it back.
    pub(super) fn on_received(&mut self, now: Time, is_media: bool) {
        self.last_received = now;
        if is_media {
            self.said_bye = false;
        }
    }

    /// A source says that it leaves. That ends the wait for its successor if it comes from the remote, or from where the RTCP
    /// of the remote is supposed to come from.
    pub(super) fn on_bye(&mut self, check: SourceCheck, source: SocketAddr, ssrc: u32) {
        let is_remote = match check {
            SourceCheck::Remote => true,
            SourceCheck::Candidate => self.remote.and_then(|remote| remote.rtcp_or_next()) == Some(source),
            SourceCheck::Neighbour | SourceCheck::Refused(_) => false,
        };
        self.said_bye |= is_remote && self.ssrcs.contains_key(&ssrc);
    }

    /// Whether what comes from the remote shows that the remote is where its media came from. Its port for RTCP was perhaps learned
    /// from a successor, which reports before it is known; only the port above that of RTP is the same sender's for sure (RFC 3550 §11).
    pub(super) fn is_at(&self, port: Port, source: SocketAddr) -> bool {
        let rtp = self.remote.map(|remote| remote.rtp.port());
        port == Port::Rtp || rtp.and_then(|rtp| rtp.checked_add(1)) == Some(source.port())
    }

    /// The application has said where the remote is: that is not learned, and nothing else is.
    pub(super) fn set_remote_address(&mut self, now: Time, remote: Remote) -> Option<Remote> {
        if let TransportKind::Plain { comedia, .. } = &mut self.kind {
            *comedia = false;
        }
        // What others have sent so far was nobody's, and has been counted so.
        self.newcomers = None;
        self.on_received(now, true);
        self.remote.replace(remote)
    }

    /// Locks on to the source of a valid packet. Where a new sender's RTCP comes from is to be learned anew, too.
    pub(super) fn learn(&mut self, port: Port, source: SocketAddr) -> Remote {
        let remote = match (port, self.remote) {
            (Port::Rtcp, Some(remote)) => Remote {
                rtcp: Some(source),
                ..remote
            },
            (Port::Rtp | Port::Rtcp, before) => {
                self.counters.relearned += u64::from(before.is_some());
                Remote {
                    rtp: source,
                    rtcp: None,
                }
            }
        };
        self.remote = Some(remote);
        remote
    }

    /// Whether there is somebody to send RTCP to.
    pub(super) fn has_rtcp_remote(&self) -> bool {
        self.remote
            .is_some_and(|remote| self.kind.rtcp_mux() || remote.rtcp_or_next().is_some())
    }

    /// Sends a compound packet; `reduced`: only its feedback, as the remote takes reduced-size RTCP (RFC 5506).
    pub(super) fn send_rtcp(&mut self, compound: &[u8], reduced: bool, sink: &mut impl Sink) {
        self.counters.rtcp_sent += 1;
        let packet = if reduced { reduced_size(compound) } else { compound };
        sink.send_rtcp(self.index, packet);
    }

    /// Whether an SSRC is a producer's here, for media or retransmissions.
    pub(super) fn receives_under(&self, ssrc: u32) -> bool {
        self.ssrcs.contains_key(&ssrc) || self.rtx_ssrcs.contains_key(&ssrc)
    }

    /// Whether a consumer sends or sends again under an SSRC here.
    pub(super) fn has_consumer(&self, ssrc: u32) -> bool {
        self.consumer_ssrcs.contains_key(&ssrc) || self.consumer_rtx_ssrcs.contains_key(&ssrc)
    }

    /// Whether we send under an SSRC here. `reporter` is the SSRC of our reports.
    pub(super) fn sends_under(&self, ssrc: u32, reporter: u32) -> bool {
        ssrc == reporter || self.has_consumer(ssrc)
    }

    /// Whether packet indices are left under the SSRC.
    ///
    /// # Errors
    ///
    /// As [`UsedIndices::check`].
    pub(super) fn check_unused_index(&self, ssrc: u32) -> Result<(), WorkerError> {
        let live = self.consumer_ssrcs.len() + self.consumer_rtx_ssrcs.len();
        self.used_indices.check(ssrc, live, self.id)
    }

    /// The number before the first one of a consumer's SSRC.
    pub(super) fn before_first(&self, ssrc: u32, random: u64) -> u64 {
        match self.kind {
            TransportKind::WebRtc => self.used_indices.before_first(ssrc, random),
            TransportKind::Plain { .. } => before_first(random),
        }
    }

    /// Remembers the SSRCs of a producer that is closed.
    pub(super) fn remember_closed(&mut self, producer: &Producer) {
        if self.kind == TransportKind::WebRtc {
            return;
        }
        let ssrcs = producer.streams.iter().filter_map(|stream| stream.ssrc);
        self.closed_ssrcs.extend(ssrcs);
        let excess = self.closed_ssrcs.len().saturating_sub(CLOSED_MAX);
        self.closed_ssrcs.drain(..excess);
    }

    /// Counts packets that no producer gets.
    pub(super) fn count_unrouted(&mut self, reason: UnroutedReason, packets: u64) {
        self.counters.unrouted[reason as usize] += packets;
    }

    /// Its counters; those of its sockets (sent, kernel drops, backlog) are the shell's to fill in.
    pub(super) fn stats(&self) -> TransportStats {
        let counters = &self.counters;
        TransportStats {
            transport: self.id,
            remote: self.remote,
            packets_received: self.received.0,
            bytes_received: self.received.1,
            rtcp_received: counters.rtcp,
            rtcp_sent: counters.rtcp_sent,
            unrouted: UnroutedReason::ALL.into_iter().zip(counters.unrouted).collect(),
            max_bitrate_bps: self.reports.max_bitrate(),
            remote_bitrate_bps: self.reports.remote_bitrate,
            remotes_relearned: counters.relearned,
            ..TransportStats::default()
        }
    }
}

/// Whether two addresses are the same IP. RFC 4007 §6: a link-local one is another one in each zone; the others' zones, which
/// the kernel does not name, mean nothing.
fn is_same_host(known: SocketAddr, source: SocketAddr) -> bool {
    match (known, source) {
        (SocketAddr::V6(known), SocketAddr::V6(source)) => {
            known.ip() == source.ip() && (known.scope_id() == source.scope_id() || !source.ip().is_unicast_link_local())
        }
        _ => known.ip() == source.ip(),
    }
}
