//! What is kept of a transport, and how it goes on from there.

use weir_channel::message::Remote;

use crate::page::Page;
use crate::page::layout::{Feedback, RemoteOfTransport, SocketCounts, TransportCounts, transport};
use crate::time::Time;

use super::super::transport::Transport;

/// What is left of a transport.
pub(in super::super) struct TransportLegacy {
    pub(super) remote: RemoteOfTransport,
    pub(super) feedback: Feedback,
    pub(super) counts: TransportCounts,
    pub(super) sockets: SocketCounts,
}

impl TransportLegacy {
    /// Whether the other end was where it is said to be: nobody has learned anything else, or was about to hear it.
    pub(super) fn is_where_said(&self, transport: &Transport) -> bool {
        let kept = self.remote.rtp.address().map(|rtp| Remote {
            rtp,
            rtcp: self.remote.rtcp.address(),
        });
        !transport.kind.comedia() && self.remote.is_said != 0 && kept == transport.remote
    }
}

impl Transport {
    /// Keeps where the other end is.
    pub(in super::super) fn keep_remote(&self, page: &Page) {
        if self.page.is_none() {
            return;
        }
        let record = RemoteOfTransport {
            rtp: self.remote.map(|remote| remote.rtp.into()).unwrap_or_default(),
            rtcp: self
                .remote
                .and_then(|remote| remote.rtcp)
                .map(Into::into)
                .unwrap_or_default(),
            relearned_at: self.relearned_at.map_or(0, |at| at.0),
            is_said: u64::from(!self.kind.comedia()),
        };
        page.store_twin(self.page, transport::REMOTE, &record);
    }

    /// Keeps the counters.
    pub(in super::super) fn keep_counters(&self, page: &Page) {
        if self.page.is_none() {
            return;
        }
        let counters = &self.counters;
        let record = TransportCounts {
            packets: self.received.0,
            bytes: self.received.1,
            rtcp: counters.rtcp,
            rtcp_sent: counters.rtcp_sent,
            relearned: counters.relearned,
            unrouted: counters.unrouted,
        };
        page.store(self.page, transport::COUNTERS, &record);
    }

    /// Keeps what was counted at the sockets.
    pub(in super::super) fn keep_socket_counts(&self, page: &Page, counts: &SocketCounts) {
        page.store(self.page, transport::SOCKETS, counts);
    }

    /// Keeps the number of the feedback packet that comes next: before this one is sent.
    pub(in super::super) fn keep_feedback(&self, page: &Page, next: u8) {
        let count = u64::from(next);
        page.store(self.page, transport::FEEDBACK, &Feedback { count });
    }

    /// Goes on where its last worker has left it. What was learned counts, and not what its request says.
    pub(super) fn resume(&mut self, legacy: &TransportLegacy) {
        let (kept, counts) = (&legacy.remote, &legacy.counts);
        self.feedback.next = legacy.feedback.count as u8;
        if self.kind.comedia()
            && kept.is_said == 0
            && let Some(rtp) = kept.rtp.address()
        {
            self.remote = Some(Remote {
                rtp,
                rtcp: kept.rtcp.address(),
            });
            self.relearned_at = (kept.relearned_at != 0).then_some(Time(kept.relearned_at));
        }
        self.received = (counts.packets, counts.bytes);
        let own = &mut self.counters;
        own.rtcp = counts.rtcp;
        own.rtcp_sent = counts.rtcp_sent;
        own.relearned = counts.relearned;
        own.unrouted = counts.unrouted;
    }
}
