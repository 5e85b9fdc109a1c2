//! What clients are told unasked, as JSON.

use serde_json::{Map, Value};

use super::client_ids::ClientIds;
use crate::{ConsumerInfo, Peer, PeerNotification, TransportId};

impl Peer {
    /// A notification as the peer's client is told it: with `target` and `notification`, and with the client's own numbers
    /// for its transports and producers. What was done without app data is told without.
    pub fn client_message(&self, notification: &PeerNotification) -> Value {
        // Of types that all have a JSON form.
        let mut message = match serde_json::to_value(notification) {
            Ok(Value::Object(message)) => message,
            _ => Map::new(),
        };
        let number = {
            let mut ids = self.client_ids();
            if let Some(Value::Array(stats)) = message.get_mut("stats") {
                stats.iter_mut().for_each(|each| rename_transport(&mut ids, each));
            }
            match notification {
                PeerNotification::TransportClosed { transport, .. }
                | PeerNotification::TransportStats { transport, .. } => Some(ids.transports.number(*transport)),
                PeerNotification::ProducerPaused { producer, .. }
                | PeerNotification::ProducerResumed { producer, .. }
                | PeerNotification::ProducerClosed { producer, .. }
                | PeerNotification::ProducerStats { producer, .. } => Some(ids.producers.number(*producer)),
                _ => None,
            }
        };
        if let Some(number) = number {
            message.insert("id".to_owned(), number.0.into());
        }
        let is_new = matches!(
            notification,
            PeerNotification::NewPeer { .. } | PeerNotification::NewConsumer(_)
        );
        if !is_new && message.get("appData").is_some_and(Value::is_null) {
            message.remove("appData");
        }
        message.insert("target".to_owned(), "peer".into());
        message.insert("notification".to_owned(), true.into());
        Value::Object(message)
    }
}

/// Statistics name transports by the server's numbers; a client knows its own by others.
fn rename_transport(ids: &mut ClientIds, stats: &mut Value) {
    let member = match stats["type"].as_str() {
        Some("transport") => "id",
        _ => "transportId",
    };
    if let Some(id) = stats.get_mut(member)
        && let Some(transport) = id.as_u64()
    {
        *id = ids.transports.number(TransportId(transport)).0.into();
    }
}

/// A consumer as its client gets to know it when it joins. Whose it is, is said outside.
pub(crate) fn consumer_json(consumer: &ConsumerInfo) -> Value {
    serde_json::to_value(consumer).unwrap_or_default()
}
