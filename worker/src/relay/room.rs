//! A room as the relay sees it: what belongs to it.

use std::collections::BTreeSet;

use weir_channel::id::{ConsumerId, ProducerId, TransportId};

use crate::time::Time;

/// What belongs to a room; ordered, so that pages of it can be read while it changes.
#[derive(Debug, Default)]
pub(super) struct Room {
    pub(super) transports: BTreeSet<TransportId>,
    pub(super) producers: BTreeSet<ProducerId>,
    pub(super) consumers: BTreeSet<ConsumerId>,
    /// When its audio levels are due next, if anybody wants them.
    pub(super) levels_due: Option<Time>,
}
