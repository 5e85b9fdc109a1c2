//! What is dropped before anybody looks at it: packets of sources that are in quarantine.

use std::net::SocketAddr;

use weir_channel::message::{QUARANTINED_MAX, QuarantinedSource, Reply, UnroutedReason, WorkerError};

use crate::net::receive::Received;
use crate::net::shell::Shell;
use crate::net::sockets::Connection;
use crate::net::source::Source;
use crate::relay::Relay;
use crate::relay::sink::TransportIx;
use crate::time::Time;

use super::event_loop::EventLoop;
use super::webrtc::WebRtc;

/// Which packets are dropped.
#[derive(Debug, Default)]
pub(super) struct Sieve {
    quarantined: Vec<QuarantinedSource>,
}

impl Sieve {
    /// These sources are in quarantine from now on, and no others.
    pub(super) fn set_quarantine(&mut self, sources: &[QuarantinedSource]) -> Result<Reply, WorkerError> {
        if sources.len() > QUARANTINED_MAX {
            return Err(WorkerError::invalid(format!(
                "{} sources in quarantine, and there may be {QUARANTINED_MAX}",
                sources.len()
            )));
        }
        self.quarantined = sources.to_vec();
        Ok(Reply::Done)
    }

    /// Whether nothing is dropped.
    #[inline]
    pub(super) fn is_open(&self) -> bool {
        self.quarantined.is_empty()
    }

    /// Whether a source is in quarantine.
    pub(super) fn refuses(&self, remote: SocketAddr, source: Source) -> bool {
        let is_open = source.is_open();
        self.quarantined.iter().any(|one| one.covers(remote, is_open))
    }

    /// Leaves out of a batch what is to be dropped. Returns the number of packets.
    pub(super) fn sift(&self, received: &mut Received<'_>, source: Source) -> u64 {
        let mut dropped = 0;
        received.retain(|datagram, _| {
            let is_dropped = self.refuses(datagram.source, source);
            if is_dropped {
                dropped += datagram.packets();
            }
            !is_dropped
        });
        dropped
    }
}

/// Counts what was dropped of a socket's packets.
pub(super) fn count(relay: &mut Relay, webrtc: &mut WebRtc, owner: Option<TransportIx>, dropped: u64) {
    match owner {
        _ if dropped == 0 => {}
        Some(transport) => relay.count_unrouted(transport, UnroutedReason::Quarantined, dropped),
        None => webrtc.count_unrouted(UnroutedReason::Quarantined, dropped),
    }
}

impl<S: Shell> EventLoop<S> {
    /// Closes a connection before anything is read from it, if its other end is in quarantine. Else that is noted to be who comes next.
    pub(super) fn refuse_connection(&mut self, now: Time, source: Source, transport: TransportIx, number: u8) -> bool {
        let connection = self.egress.sockets.connection(transport, number);
        let Some(remote) = connection.map(Connection::remote) else {
            return false;
        };
        self.relay.note_suspect(Some(transport), remote);
        let is_refused = self.sieve.refuses(remote, source);
        if is_refused {
            let (webrtc, mut io) = self.webrtc_and_io();
            webrtc.refuse_connection(now, &mut io, transport, number);
        }
        is_refused
    }

    /// As [`EventLoop::refuse_connection`], while nobody knows for whom the connection is.
    pub(super) fn refuse_unassigned(&mut self, source: Source, number: u16) -> bool {
        let Some(remote) = self.webrtc.remote_of_unassigned(number) else {
            return false;
        };
        self.relay.note_suspect(None, remote);
        let is_refused = self.sieve.refuses(remote, source);
        if is_refused {
            self.webrtc.refuse_unassigned(number);
        }
        is_refused
    }
}
