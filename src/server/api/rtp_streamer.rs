//! A streamer: a producer sent to an address of the application's choice.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use weir_channel::message::{Remote, Zoned};

use crate::server::api::consumer::Consumer;
use crate::server::api::producer::Producer;
use crate::server::api::room::{PlainTransportOptions, Room};
use crate::server::api::transport::Transport;
use crate::server::model::error::Error;

/// The address that a streamer sends to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RtpStreamerOptions {
    /// The address.
    #[schemars(with = "String")]
    pub remote_ip: Zoned,
    /// The port for RTP and RTCP.
    pub remote_port: u16,
    /// The local address; the default is the server's own of the same family.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub local_ip: Option<Zoned>,
}

/// A transport and a consumer on it that belong to no peer, and close together. Cheap to clone; dropping it closes nothing.
#[derive(Clone, Debug)]
pub struct RtpStreamer {
    consumer: Consumer,
    transport: Transport,
}

impl RtpStreamer {
    pub(crate) async fn create(room: &Room, producer: &Producer, options: RtpStreamerOptions) -> Result<Self, Error> {
        let transport = room
            .create_plain_transport(PlainTransportOptions {
                remote: Some(Remote {
                    rtp: options.remote_ip.at(options.remote_port),
                    rtcp: None,
                }),
                local_ip: options.local_ip,
                ..PlainTransportOptions::default()
            })
            .await?;
        let mut unfinished = Unfinished(Some(transport));
        let consumer = match &unfinished.0 {
            Some(transport) => transport.stream(producer).await,
            None => Err(Error::closed("the streamer")),
        };
        match (consumer, unfinished.0.take()) {
            (Ok(consumer), Some(transport)) => Ok(Self { consumer, transport }),
            (Err(error), Some(transport)) => {
                // Should it fail, the transport stays visible in the room, and goes with it.
                let _ = transport.close(Value::Null).await;
                Err(error)
            }
            (result, None) => Err(result.err().unwrap_or_else(|| Error::closed("the streamer"))),
        }
    }

    /// The consumer that is sent. It has the room's payload types if the producer belongs to a peer, otherwise the
    /// producer's own.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }

    /// The transport that it is sent on.
    pub fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Whether it is closed: by itself, with its consumer or its transport, or with its producer.
    pub fn closed(&self) -> bool {
        self.consumer.closed()
    }

    /// Closes it, with its transport and its consumer. Has no effect if it is closed already.
    pub async fn close(&self) -> Result<(), Error> {
        self.transport.close(Value::Null).await
    }
}

/// Closes the transport of a streamer that is given up while it is being made.
struct Unfinished(Option<Transport>);

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(transport) = self.0.take() {
            transport.abandon();
        }
    }
}
