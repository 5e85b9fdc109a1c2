//! What a worker has accepted beside a transport's own traffic: the limit for its senders, and its mirror.

use weir_channel::message::Method;

use super::State;
use crate::server::model::transport::MirrorOutlet;

impl State {
    /// A transport's limit or mirror is another one.
    pub(super) fn change_outlet(&mut self, method: &Method, outlet: Option<MirrorOutlet>) {
        let (Method::SetMaxBitrate { transport, .. }
        | Method::StartMirroring { transport, .. }
        | Method::StopMirroring { transport }) = method
        else {
            return;
        };
        let Some(node) = self.transports.get(transport) else {
            return;
        };
        if let Some(entry) = self.rooms.get_mut(&node.room.id) {
            entry.desired.accept(method);
        }
        match method {
            Method::SetMaxBitrate { bitrate_bps, .. } => node.limited(*bitrate_bps),
            _ => node.mirrored(outlet),
        }
    }
}
