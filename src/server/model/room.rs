//! What is known of a room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use weir_channel::id::{RoomId, WorkerId};

use crate::server::model::error::Error;
use crate::server::model::rtp_capabilities::RtpCapabilities;

#[derive(Debug)]
pub(crate) struct RoomNode {
    pub(crate) id: RoomId,
    pub(crate) worker: WorkerId,
    pub(crate) rtp_capabilities: RtpCapabilities,
    pub(crate) app_data: Value,
    closed: AtomicBool,
}

impl RoomNode {
    pub(crate) fn new(id: RoomId, worker: WorkerId, rtp_capabilities: RtpCapabilities, app_data: Value) -> Arc<Self> {
        Arc::new(Self {
            id,
            worker,
            rtp_capabilities,
            app_data,
            closed: AtomicBool::new(false),
        })
    }

    /// Only [`State`](super::state::State) does this, under its lock.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(crate) fn check_open(&self) -> Result<(), Error> {
        match self.is_closed() {
            true => Err(Error::closed(self.id)),
            false => Ok(()),
        }
    }
}
