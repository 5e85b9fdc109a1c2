//! What a consumer that outlives its producers is sent under, whatever it is sent.

use weir_channel::id::TransportId;
use weir_channel::message::{ConsumerRtx, CreateConsumer, MediaKind};

use crate::server::model::error::Error;
use crate::server::model::producer::ProducerNode;
use crate::server::model::rtp_capabilities::{RtpCapabilities, receivable_parameters, receiver_parameters};
use crate::server::model::rtp_parameters::{ConsumerPlacement, ConsumerSsrcs, RtpParameters};

/// What a consumer will be sent under that outlives its producers, and may be there before the first of them
/// ([`Transport::reserve_consumer`](crate::Transport::reserve_consumer)): payload types, header extension ids, SSRCs and a canonical
/// name, all of which stay what they are.
#[derive(Clone, PartialEq, Debug)]
pub struct ConsumerReservation {
    pub(crate) transport: TransportId,
    kind: MediaKind,
    receiver: RtpCapabilities,
    pub(crate) ssrcs: ConsumerSsrcs,
    parameters: RtpParameters,
}

impl ConsumerReservation {
    /// `receiver`: what of all that the receiver knows the room relays.
    pub(crate) fn new(
        transport: TransportId,
        kind: MediaKind,
        receiver: RtpCapabilities,
        ssrcs: ConsumerSsrcs,
        cname: String,
    ) -> Self {
        let parameters = receivable_parameters(&receiver, cname).with_ssrcs(ssrcs);
        Self {
            transport,
            kind,
            receiver,
            ssrcs,
            parameters,
        }
    }

    /// Audio or video.
    pub fn kind(&self) -> MediaKind {
        self.kind
    }

    /// What the receiver can be sent, of what the room relays.
    pub fn receiver(&self) -> &RtpCapabilities {
        &self.receiver
    }

    /// What the receiver must expect: every payload type that it may be sent, those first that are preferred.
    pub fn rtp_parameters(&self) -> &RtpParameters {
        &self.parameters
    }

    /// The worker's request for a consumer of this producer.
    ///
    /// # Errors
    /// [`Error::InvalidParameters`]: the producer is of another kind, or has no codec that the receiver knows.
    pub(crate) fn request(
        &self,
        placement: ConsumerPlacement,
        producer: &ProducerNode,
    ) -> Result<CreateConsumer, Error> {
        if producer.kind != self.kind {
            return Err(Error::InvalidParameters(format!(
                "{} is {}, and what was reserved is {}",
                producer.id, producer.kind, self.kind
            )));
        }
        let (parameters, payload_types) = receiver_parameters(&producer.rtp_parameters, &self.receiver);
        let request = parameters
            .with_ssrcs(self.ssrcs)
            .consumer_request(placement, &payload_types);
        let mut request = request.map_err(Error::InvalidParameters)?;
        // Who is sent some codec again in a stream of its own has the SSRC of that stream all the time. A codec without such
        // would be sent again as it was, under numbers for which it might not be the same any more.
        if self.receiver.codecs.iter().any(|codec| codec.is_rtx()) {
            request.nack &= request.rtx.is_some();
            request.rtx.get_or_insert_with(|| ConsumerRtx {
                ssrc: self.ssrcs.rtx,
                payload_types: Vec::new(),
            });
        }
        request.lasting_cname.clone_from(&self.parameters.rtcp.cname);
        Ok(request)
    }
}
