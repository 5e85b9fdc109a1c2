//! Which stream a packet belongs to: by SSRC, else by MID and RID, else, on a plain transport, by payload type.
//!
//! Devices that are no browsers leave their SSRC out of the signalling, or go over to another one: when a call is transferred,
//! or their program is started again; RFC 3550 §8.2 allows it at any time. Their streams are known by payload type alone, but
//! only on plain transports, whose packets come from one remote, and only where nothing else can be meant: the producer is
//! known by no MID and no RID and has one stream, and no other producer has the payload type. Packets that go along with a
//! codec (telephone events, forward error correction) never make a stream: they come under the SSRC of what they go along
//! with (RFC 4733 §2.1), or under one of their own that carries no media.

use weir_channel::message::{CreateProducer, Encoding, ExtensionUri, Notification, UnroutedReason, WorkerError};

use crate::rtp::extension::Values;
use crate::rtp::packet::Header;
use crate::time::Time;

use super::Relay;
use super::keys::{ProducerKey, TransportKey};
use super::packet::Rtp;
use super::parameters::invalid;
use super::producer::{Producer, Producers};
use super::ssrc_latch::{CHANGE_INTERVAL, Evidence};
use super::transport::{Origin, Transport, TransportKind};

/// What a packet's stream is to its producer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamKind {
    /// Its media.
    Media,
    /// Its media once more (RFC 4588).
    Rtx,
}

impl Relay {
    /// Whose a packet is: by SSRC, then MID, then RID (differences §2.5), then, on a plain transport, payload type.
    pub(super) fn find_stream(
        &mut self,
        origin: &Origin,
        packet: &Rtp<'_>,
    ) -> Result<(ProducerKey, u8, StreamKind), UnroutedReason> {
        let transport = &mut self.transports[origin.transport];
        if let Some((key, encoding)) = transport.ssrcs.find(packet.header.ssrc) {
            return Ok((key, encoding, StreamKind::Media));
        }
        if let Some((key, encoding)) = transport.find_rtx_route(&self.producers, self.ssrc, packet) {
            return Ok((key, encoding, StreamKind::Rtx));
        }
        let (key, encoding) = self.learn_route(origin, packet)?;
        Ok((key, encoding, StreamKind::Media))
    }

    /// Finds the producer of an SSRC that is not known yet, and remembers it. A sender may change its SSRC: the newest
    /// one that its MID or RID vouches for is the stream's.
    pub(super) fn learn_route(
        &mut self,
        origin: &Origin,
        packet: &Rtp<'_>,
    ) -> Result<(ProducerKey, u8), UnroutedReason> {
        let header = &packet.header;
        let transport = &self.transports[origin.transport];
        let named = transport.find_by_names(&self.producers, packet, &[ExtensionUri::RtpStreamId], |_| true);
        let Some((key, encoding)) = named else {
            return self.latch_ssrc(origin, header);
        };
        let producer = &mut self.producers[key];
        // Not its media: an RTX stream carries its MID too.
        if producer.codec(header.payload_type).is_none() {
            return Err(UnroutedReason::UnknownPayloadType);
        }
        let stream = &mut producer.streams[usize::from(encoding)];
        // A packet that the network held back must not make the stream start over twice.
        if stream.was_carried_by(header.ssrc, origin.now) {
            return Err(UnroutedReason::UnknownStream);
        }
        let transport = &mut self.transports[origin.transport];
        if let Some(old) = stream.ssrc {
            transport.ssrcs.remove(&old);
        }
        stream.on_new_ssrc(origin.now, header.ssrc);
        transport.ssrcs.insert(header.ssrc, (key, encoding));
        Ok((key, encoding))
    }

    /// Whether a packet of an SSRC that is not known would be a stream's if its sender were the remote.
    pub(super) fn check_newcomer(&self, origin: &Origin, packet: &Rtp<'_>) -> Result<(), UnroutedReason> {
        let header = &packet.header;
        let transport = &self.transports[origin.transport];
        let named = transport.find_by_names(&self.producers, packet, &[ExtensionUri::RtpStreamId], |_| true);
        let (key, encoding) = match named {
            Some(named) => named,
            None => {
                let key = transport.find_by_payload_type(&self.producers, self.ssrc, header)?;
                let stream = &self.producers[key].streams[0]; // OK: a producer that is found by payload type has one
                // A declared SSRC is what the first remote is recognised by.
                if transport.remote.is_none() && stream.ssrc.is_some() && stream.latch.declared_ssrc.is_some() {
                    return Err(UnroutedReason::UnknownStream);
                }
                (key, 0)
            }
        };
        let producer = &self.producers[key];
        if producer.codec(header.payload_type).is_none() {
            return Err(UnroutedReason::UnknownPayloadType);
        }
        match producer.streams[usize::from(encoding)].was_carried_by(header.ssrc, origin.now) && named.is_some() {
            true => Err(UnroutedReason::UnknownStream),
            false => Ok(()),
        }
    }

    /// Gives an SSRC that no name vouches for to the only stream that its payload type can mean, if there is one.
    fn latch_ssrc(&mut self, origin: &Origin, header: &Header) -> Result<(ProducerKey, u8), UnroutedReason> {
        let key = self.transports[origin.transport].find_by_payload_type(&self.producers, self.ssrc, header)?;
        let (now, ssrc) = (origin.now, header.ssrc);
        let producer = &mut self.producers[key];
        let stream = &mut producer.streams[0]; // OK: a producer that is found by payload type has one
        let previous = stream.ssrc;
        let mut evidence = None;
        let transport = &mut self.transports[origin.transport];
        if previous.is_some() {
            // A declared SSRC is what a comedia transport recognises its first remote by.
            let is_known_remote = transport.remote.is_some() || stream.latch.declared_ssrc.is_none();
            // A sender may not know yet that its producer is closed.
            let is_another = transport.closed_ssrcs.contains(&ssrc);
            let (last_packet, last_change) = (stream.last_packet, stream.last_ssrc_change());
            evidence = match stream.was_carried_by(ssrc, now) {
                true => stream.latch.is_doubtful.then_some(Evidence::Return),
                // What was declared is the stream's as soon as it comes, whichever SSRC has latched its place meanwhile.
                false
                    if stream.latch.declared_ssrc == Some(ssrc)
                        && last_change.is_none_or(|last| now.since(last) >= CHANGE_INTERVAL) =>
                {
                    Some(Evidence::Return)
                }
                false if is_known_remote && !is_another => stream.latch.admit(now, ssrc, last_packet, last_change),
                false => None,
            };
            if evidence.is_none() {
                return Err(UnroutedReason::UnknownStream);
            }
        }
        if let Some(previous) = previous {
            transport.ssrcs.remove(&previous);
            // Its retransmissions have another one now, too.
            if let Some(rtx) = stream.rtx_ssrc.take() {
                transport.rtx_ssrcs.remove(&rtx);
            }
        }
        stream.on_new_ssrc(now, ssrc);
        stream.latch.is_by_payload_type = stream.latch.declared_ssrc != Some(ssrc);
        stream.latch.is_doubtful = evidence == Some(Evidence::Silence);
        transport.ssrcs.insert(ssrc, (key, 0));
        transport.closed_ssrcs.retain(|closed| *closed != ssrc);
        self.notifications.push_back(Notification::SsrcChanged {
            producer: producer.id,
            ssrc,
            previous,
        });
        Ok((key, 0))
    }

    /// Takes SSRCs, which are another producer's by what was declared, away from streams that have merely latched them.
    pub(super) fn release_latches(&mut self, now: Time, transport: TransportKey, declared: &[u32]) {
        let closed = &mut self.transports[transport].closed_ssrcs;
        closed.retain(|closed| !declared.contains(closed));
        for ssrc in declared {
            if !self.transports[transport].is_latched(&self.producers, *ssrc) {
                continue;
            }
            let transport = &mut self.transports[transport];
            let Some((key, encoding)) = transport.ssrcs.remove(ssrc) else {
                continue;
            };
            let stream = &mut self.producers[key].streams[usize::from(encoding)];
            let free = |ssrc: &u32| {
                !declared.contains(ssrc) && !transport.receives_under(*ssrc) && !transport.sends_under(*ssrc, self.ssrc)
            };
            match stream.latch.declared_ssrc.filter(free) {
                Some(declared_ssrc) => {
                    stream.on_new_ssrc(now, declared_ssrc);
                    transport.ssrcs.insert(declared_ssrc, (key, encoding));
                    self.notifications.push_back(Notification::SsrcChanged {
                        producer: self.producers[key].id,
                        ssrc: declared_ssrc,
                        previous: Some(*ssrc),
                    });
                }
                None => {
                    stream.ssrc = None;
                    stream.latch.on_new_ssrc();
                }
            }
        }
    }
}

impl Transport {
    /// By MID first, then by RID (differences §2.5), which stands in one of `rid_uris`. Every producer that is
    /// `eligible` reads the packet with its own extension ids, and two of one transport may use the same RIDs if their
    /// MIDs tell them apart. The packet is walked once, however many there are.
    fn find_by_names(
        &self,
        producers: &Producers,
        packet: &Rtp<'_>,
        rid_uris: &[ExtensionUri],
        eligible: impl Fn(&Producer) -> bool,
    ) -> Option<(ProducerKey, u8)> {
        let values = Values::read(packet.bytes, packet.header.extension?);
        let (mut by_rid, mut unsure) = (None, false);
        for key in &self.producers {
            let producer = &producers[*key];
            if !eligible(producer) {
                continue;
            }
            let rid = rid_uris.iter().find_map(|uri| producer.extension_value(*uri, &values));
            let encoding = rid.and_then(|rid| producer.encoding_of_rid(rid));
            match (&producer.mid, producer.extension_value(ExtensionUri::Mid, &values)) {
                (Some(own), Some(mid)) if own.as_bytes() == mid => {
                    let lone = producer.streams.len() == 1 && producer.streams[0].rid.is_none();
                    return encoding.or(lone.then_some(0)).map(|encoding| (*key, encoding));
                }
                // It says whose it is, and it is not this one's, whatever its RID.
                (Some(_), Some(_)) => {}
                _ => {
                    if let Some(encoding) = encoding {
                        unsure |= by_rid.is_some();
                        by_rid = Some((*key, encoding));
                    }
                }
            }
        }
        // Two producers would take it: neither is sure.
        by_rid.filter(|_| !unsure)
    }

    /// The stream that a packet of no media SSRC is a retransmission of: by its SSRC, else by what it says of itself. The
    /// repaired stream's id (RFC 8852 §3.2) names it; some senders give the stream's id itself, and with a lone stream the
    /// MID is enough, because the payload type distinguishes a retransmission from media. On a plain transport the payload type
    /// alone may be enough.
    fn find_rtx_route(&self, producers: &Producers, reporter: u32, packet: &Rtp<'_>) -> Option<(ProducerKey, u8)> {
        if let Some(route) = self.rtx_ssrcs.get(&packet.header.ssrc) {
            return Some(*route);
        }
        let rid_uris = [ExtensionUri::RepairedRtpStreamId, ExtensionUri::RtpStreamId];
        self.find_by_names(producers, packet, &rid_uris, |producer| {
            producer.codec_of_rtx(packet.header.payload_type).is_some()
        })
        .or_else(|| self.find_rtx_by_payload_type(producers, reporter, &packet.header))
    }

    /// The producer that a packet of an unknown SSRC can only be meant for.
    fn find_by_payload_type(
        &self,
        producers: &Producers,
        reporter: u32,
        header: &Header,
    ) -> Result<ProducerKey, UnroutedReason> {
        if self.kind == TransportKind::WebRtc || self.sends_under(header.ssrc, reporter) {
            return Err(UnroutedReason::UnknownStream);
        }
        let (mut open, mut held) = (Candidates::None, Candidates::None);
        let (mut is_known, mut are_any_without, mut others) = (false, false, false);
        for key in &self.producers {
            let producer = &producers[*key];
            let is_unnamed = producer.is_unnamed();
            are_any_without |= is_unnamed && producer.streams[0].latch.declared_ssrc.is_none();
            let Some(codec) = producer.codec(header.payload_type) else {
                continue;
            };
            is_known = true;
            match producer.streams[0].ssrc {
                _ if !is_unnamed => others = true,
                _ if codec.name.is_companion() => {}
                None => open.add(*key),
                Some(_) => held.add(*key),
            }
        }
        match (open, held) {
            // One that carries extensions may be a named one's.
            (Candidates::One(open), _) if !others || header.extension.is_none() => Ok(open),
            (Candidates::None, Candidates::One(held)) if !others => Ok(held),
            _ if !is_known && are_any_without => Err(UnroutedReason::UnknownPayloadType),
            _ => Err(UnroutedReason::UnknownStream),
        }
    }

    /// The producer whose retransmissions a payload type can only mean, of those whose SSRC is not known.
    fn find_rtx_by_payload_type(
        &self,
        producers: &Producers,
        reporter: u32,
        header: &Header,
    ) -> Option<(ProducerKey, u8)> {
        if self.kind == TransportKind::WebRtc || self.sends_under(header.ssrc, reporter) {
            return None;
        }
        let mut found = Candidates::None;
        for key in &self.producers {
            let producer = &producers[*key];
            if producer.codec_of_rtx(header.payload_type).is_some() {
                match producer.is_unnamed() && producer.streams[0].rtx_ssrc.is_none() {
                    true => found.add(*key),
                    false => found = Candidates::Several,
                }
            }
        }
        match found {
            Candidates::One(producer) => Some((producer, 0)),
            Candidates::None | Candidates::Several => None,
        }
    }

    /// Checks that a producer without an SSRC is distinguishable from the others of its transport that have none.
    pub(super) fn check_latch(&self, producers: &Producers, request: &CreateProducer) -> Result<(), WorkerError> {
        let is_known = |encoding: &Encoding| encoding.ssrc.is_some() || encoding.rid.is_some();
        if request.mid.is_some() || request.encodings.iter().any(is_known) {
            return Ok(());
        }
        let others = self.producers.iter().map(|key| &producers[*key]);
        for other in others.filter(|other| other.is_unnamed() && other.streams[0].latch.declared_ssrc.is_none()) {
            let shared = request.codecs.iter().find(|codec| {
                let theirs = other.codec(codec.payload_type);
                theirs.is_some_and(|theirs| !theirs.name.is_companion() || !codec.name.is_companion())
            });
            if let Some(shared) = shared {
                return Err(invalid(format!(
                    "payload type {} is of {} too, and neither has an SSRC; say the SSRC of one of them",
                    shared.payload_type, other.id
                )));
            }
        }
        Ok(())
    }

    /// Whether an SSRC is a stream's for no better reason than its payload type.
    pub(super) fn is_latched(&self, producers: &Producers, ssrc: u32) -> bool {
        let route = self.ssrcs.get(&ssrc);
        route.is_some_and(|(key, encoding)| {
            let stream = &producers[*key].streams[usize::from(*encoding)];
            stream.latch.is_by_payload_type
        })
    }
}

/// How many there are, as far as it matters.
#[derive(Clone, Copy)]
enum Candidates {
    None,
    One(ProducerKey),
    Several,
}

impl Candidates {
    fn add(&mut self, key: ProducerKey) {
        *self = match self {
            Self::None => Self::One(key),
            Self::One(_) | Self::Several => Self::Several,
        };
    }
}
