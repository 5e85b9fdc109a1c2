//! Packets that senders send again as a stream of their own (RFC 4588): recognised, turned back into what they were, and
//! relayed as that.
//!
//! A retransmission that restores a packet which had not come is that packet, for everybody and in every counter. Any
//! other is counted as useless and is nothing else: consumers never hear of it.

use weir_channel::message::UnroutedReason;

use crate::rtp::packet::rewrite;
use crate::rtp::rtx::{OSN_LEN, original_seq, restore};

use super::Relay;
use super::keys::ProducerKey;
use super::packet::{Route, Rtp};
use super::receive::Routed;
use super::reception::Reception;
use super::transport::{Origin, SourceCheck};

impl Relay {
    /// Takes in a retransmission.
    pub(super) fn handle_rtx(&mut self, origin: &Origin, key: ProducerKey, encoding: u8, packet: Rtp<'_>) -> Routed {
        // Before any media, there is nothing to repair, and nothing that vouches for who sends it.
        if origin.check == SourceCheck::Candidate {
            return Err(UnroutedReason::NoRemote);
        }
        let Rtp { header, bytes, start } = packet;
        let producer = &mut self.producers[key];
        let codec = producer.codec_of_rtx(header.payload_type);
        let codec = *codec.ok_or(UnroutedReason::UnknownPayloadType)?;
        let stream = &mut producer.streams[usize::from(encoding)];
        let transport = &mut self.transports[origin.transport];
        if stream.rtx_ssrc != Some(header.ssrc) {
            // The newest one that its names vouch for.
            if let Some(old) = stream.rtx_ssrc.replace(header.ssrc) {
                transport.rtx_ssrcs.remove(&old);
            }
            transport.rtx_ssrcs.insert(header.ssrc, (key, encoding));
            stream.is_rtx_learned = true;
            (stream.rtx_reception, stream.rtx_report) = (Reception::default(), None);
        }
        // Timestamps are those of what is sent again, so they do not show how evenly these packets come: no clock, no jitter.
        stream
            .rtx_reception
            .on_packet(origin.now, 0, header.payload_type, header.seq, 0, 0);
        let is_useful = original_seq(&header, bytes).is_some_and(|seq| stream.lacks(seq));
        let restored = match (is_useful, stream.ssrc) {
            (true, Some(ssrc)) => restore(&header, bytes).map(|restored| (ssrc, restored)),
            _ => None,
        };
        let Some((ssrc, (len, mut original))) = restored else {
            stream.counters.rtx_useless += 1;
            return Ok(());
        };
        original.payload_type = codec.payload_type;
        original.ssrc = ssrc;
        let bytes = &mut bytes[OSN_LEN..OSN_LEN + len];
        rewrite(bytes, original.payload_type, original.seq, original.timestamp, ssrc);
        let route = Route {
            key,
            encoding,
            codec,
            is_rtx: true,
        };
        let packet = Rtp {
            header: original,
            bytes,
            start: start + OSN_LEN,
        };
        self.accept_or_hold(origin.now, route, packet);
        Ok(())
    }
}
