//! A transport as the relay sees it: whose packets arrive on it, whose leave on it, and where the other end is.

use std::net::SocketAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use weir_channel::id::{RoomId, TransportId};
use weir_channel::message::{CreatePlainTransport, Remote, TransportStats, UnroutedReason};

use super::report::TransportReports;
use super::sink::{Port, TransportIx};
use super::slots::{ConsumerKey, ProducerKey};
use super::spent::SpentNumbers;
use super::twcc::TransportFeedback;

/// A path between the worker and one remote.
#[derive(Debug)]
pub(super) struct Transport {
    /// Its id.
    pub id: TransportId,
    /// The room it belongs to.
    pub room: RoomId,
    /// Its dense index.
    pub index: TransportIx,
    /// The other end, once known.
    pub remote: Option<Remote>,
    /// What it speaks.
    pub kind: TransportKind,
    /// Who receives what arrives under an SSRC: given at creation, or learned through MID and RID.
    pub ssrcs: HashMap<u32, (ProducerKey, u8), FixedState>,
    /// Which stream's retransmissions arrive under an SSRC: likewise.
    pub rtx_ssrcs: HashMap<u32, (ProducerKey, u8), FixedState>,
    /// Which consumer sends under an SSRC.
    pub consumer_ssrcs: HashMap<u32, ConsumerKey, FixedState>,
    /// Which consumer sends again under an SSRC. What receivers say of these streams means nothing for the media.
    pub consumer_rtx_ssrcs: HashMap<u32, ConsumerKey, FixedState>,
    /// How far the numbers of SSRCs are used that consumers of a WebRTC transport had.
    pub spent: SpentNumbers,
    /// Producers that arrive on it.
    pub producers: Vec<ProducerKey>,
    /// Consumers that leave on it.
    pub consumers: Vec<ConsumerKey>,
    /// What its reports need.
    pub reports: TransportReports,
    /// What its sender is told of all that arrives.
    pub feedback: TransportFeedback,
    /// SSRCs of producers that were closed, the latest last: whoever goes on sending under one means nobody else.
    pub closed_ssrcs: Vec<u32>,
    pub(super) counters: TransportCounters,
}

/// What a transport speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum TransportKind {
    /// RTP and RTCP as they are.
    Plain {
        /// Known from the beginning.
        remote: Option<Remote>,
        /// Learn the other end from the first valid packet.
        comedia: bool,
        /// RTP and RTCP share one port.
        rtcp_mux: bool,
    },
    /// SRTP and SRTCP on one port. The shell opens and seals them, and passes on nothing that is not the peer's; the remote
    /// is known while the peer is connected.
    WebRtc,
}

impl TransportKind {
    pub(super) fn of_plain(request: &CreatePlainTransport) -> Self {
        Self::Plain {
            remote: request.remote,
            comedia: request.comedia,
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

    pub(super) fn rtcp_mux(self) -> bool {
        matches!(self, Self::WebRtc | Self::Plain { rtcp_mux: true, .. })
    }
}

#[derive(Debug, Default)]
pub(super) struct TransportCounters {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) rtcp: u64,
    pub(super) rtcp_sent: u64,
    pub(super) unrouted: [u64; UnroutedReason::ALL.len()],
}

/// What to make of the address a packet came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SourceCheck {
    /// The remote.
    Remote,
    /// Might become the remote, if the packet is valid.
    Candidate,
    /// To be dropped.
    Refused(UnroutedReason),
}

impl Transport {
    /// Who a packet may be from. Without a remote, a `comedia` transport listens to anybody until somebody makes sense.
    pub(super) fn check_source(&self, port: Port, source: SocketAddr) -> SourceCheck {
        if self.kind == TransportKind::WebRtc {
            return match self.remote {
                Some(_) => SourceCheck::Remote,
                None => SourceCheck::Refused(UnroutedReason::NotConnected),
            };
        }
        let comedia = self.kind.comedia();
        let expected = self.remote.and_then(|remote| match port {
            Port::Rtp => Some(remote.rtp),
            Port::Rtcp => remote.rtcp,
        });
        match (expected, port) {
            (Some(expected), _) if expected == source => SourceCheck::Remote,
            (Some(_), _) => SourceCheck::Refused(UnroutedReason::ForeignSource),
            (None, Port::Rtp) if comedia && self.remote.is_none() => SourceCheck::Candidate,
            // A comedia remote's RTCP port is learned too, but only from the host that RTP was learned from.
            (None, Port::Rtcp) if comedia && self.remote.is_some_and(|remote| remote.rtp.ip() == source.ip()) => {
                SourceCheck::Candidate
            }
            (None, _) if self.remote.is_some() => SourceCheck::Refused(UnroutedReason::ForeignSource),
            (None, _) => SourceCheck::Refused(UnroutedReason::NoRemote),
        }
    }

    /// Locks on to the source of a valid packet.
    pub(super) fn learn(&mut self, port: Port, source: SocketAddr) -> Remote {
        let remote = match (port, self.remote) {
            (Port::Rtcp, Some(remote)) => Remote {
                rtcp: Some(source),
                ..remote
            },
            (Port::Rtp | Port::Rtcp, _) => Remote {
                rtp: source,
                rtcp: None,
            },
        };
        self.remote = Some(remote);
        remote
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
            packets_received: counters.packets,
            bytes_received: counters.bytes,
            packets_sent: 0,
            bytes_sent: 0,
            rtcp_received: counters.rtcp,
            rtcp_sent: counters.rtcp_sent,
            unrouted: UnroutedReason::ALL
                .into_iter()
                .map(|reason| (reason, counters.unrouted[reason as usize]))
                .filter(|(_, count)| *count > 0)
                .collect(),
            kernel_drops: 0,
            backlog_packets: 0,
            max_bitrate_bps: self.reports.max_bitrate,
            remote_bitrate_bps: self.reports.remote_bitrate,
            packets_mirrored: 0,
            mirror_failures: 0,
            webrtc: None,
        }
    }
}
