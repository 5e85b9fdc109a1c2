//! What is dropped before anybody looks at it: packets of sources that are in quarantine.

use std::net::SocketAddr;

use weir_channel::message::{QUARANTINED_MAX, QuarantinedSource, Reply, WorkerError};

use crate::net::receive::Received;
use crate::net::source::Source;

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
