//! From a receive batch to packets of streams: who sent it, what it is, whose it is.

use std::ops::Range;

use weir_channel::message::{MediaKind, Notification, UnroutedReason};

use crate::boundary::{self, Parser};
use crate::rtp::continuity::Verdict;
use crate::rtp::packet::{Kind, classify, cut_opaque_extension};
use crate::rtp::rtcp::{self, RtcpItem};
use crate::time::Time;

use super::arrivals::TransportNumbered;
use super::cname::NAMES_MAX;
use super::datagram::Datagram;
use super::keys::{ProducerKey, TransportKey};
use super::limits::{BATCH_PACKETS_MAX, RING_CHUNK_BYTES, TRAIN_BYTES_MAX};
use super::losses::Noted;
use super::packet::{Route, Rtp};
use super::routing::StreamKind;
use super::sink::{Port, Sink, TransportIx};
use super::stream::{Accepted, Stream};
use super::transport::{Origin, SourceCheck};
use super::twcc::transport_seq;
use super::{Action, Relay};

/// Whether a packet was for somebody, or why not.
pub(super) type Routed = Result<(), UnroutedReason>;

/// SSRCs in the RTCP of somebody unknown that may show that it is the remote. A report of a receiver names its own and those of the first
/// streams that it gets from us.
const SSRCS_LOOKED_AT: usize = 8;

impl Relay {
    /// Takes in one receive batch of one port and sends what follows from it. `datagrams` lie in `bytes`, which are
    /// overwritten. [`Relay::keep_positions`] is to follow when all that the sink has gathered has left.
    pub fn handle_datagrams(
        &mut self,
        now: Time,
        transport: TransportIx,
        port: Port,
        bytes: &mut [u8],
        datagrams: &[Datagram],
        sink: &mut impl Sink,
    ) {
        let Some(transport) = self.transport_key(transport) else {
            return;
        };
        for datagram in datagrams {
            let begin = datagram.start as usize;
            let end = (begin + datagram.len as usize).min(bytes.len());
            let segment = if datagram.segment == 0 {
                datagram.len.max(1)
            } else {
                datagram.segment
            } as usize;
            let check = self.transports[transport].check_source(port, datagram.source);
            if let SourceCheck::Refused(reason) = check {
                self.transports[transport].count_unrouted(reason, datagram.packets());
                continue;
            }
            let mut origin = Origin {
                now,
                transport,
                port,
                source: datagram.source,
                check,
            };
            let mut start = begin;
            // An empty datagram is a packet too: it is malformed.
            loop {
                let packet = start..end.min(start + segment);
                start = packet.end;
                self.handle_packet(&mut origin, bytes, packet, sink);
                self.release_held(now, bytes, sink);
                self.nacks
                    .answer(now, &mut self.consumers, &self.producers, &self.page, sink);
                if self.workspace.batch.len() >= BATCH_PACKETS_MAX {
                    self.fan_out(now, bytes, sink);
                }
                if start >= end {
                    break;
                }
            }
        }
        self.fan_out(now, bytes, sink);
        self.send_key_frame_requests(sink);
    }

    fn handle_packet(&mut self, origin: &mut Origin, bytes: &mut [u8], range: Range<usize>, sink: &mut impl Sink) {
        let transport = &mut self.transports[origin.transport];
        let Some(packet) = bytes.get_mut(range.clone()) else {
            return;
        };
        let kind = classify(packet);
        if origin.check == SourceCheck::Remote && kind != Kind::Other && transport.is_at(origin.port, origin.source) {
            transport.on_received(origin.now, kind == Kind::Rtp);
        }
        let handled = match kind {
            Kind::Rtp if origin.port == Port::Rtp && origin.check == SourceCheck::Remote => {
                match Rtp::parse(packet, range.start) {
                    Ok(packet) => self.handle_rtp(origin, packet, sink),
                    Err(_) => Err(UnroutedReason::Malformed),
                }
            }
            Kind::Rtp if origin.port == Port::Rtp => self.handle_newcomer(origin, bytes, range.clone(), sink),
            Kind::Rtcp if origin.port == Port::Rtcp || transport.kind.rtcp_mux() => self.handle_rtcp(origin, packet),
            _ if origin.check == SourceCheck::Neighbour => Err(UnroutedReason::ForeignSource),
            _ => Err(UnroutedReason::Malformed),
        };
        let transport = &mut self.transports[origin.transport];
        match handled {
            Ok(()) => {
                self.accepted += 1;
                transport.received.0 += 1;
                transport.received.1 += range.len() as u64;
                if transport.is_quiet {
                    self.reports.schedule(origin.now, origin.transport, transport);
                }
            }
            Err(reason) => transport.count_unrouted(reason, 1),
        }
    }

    /// Whether the remote has left its port: it is silent, or has sent a BYE for each of its sources. Two that send at the same
    /// time so never take the place from each other.
    pub(super) fn may_relearn(&self, now: Time, key: TransportKey) -> bool {
        let transport = &self.transports[key];
        let is_over = |key: &ProducerKey| self.producers[*key].streams.iter().all(Stream::is_over);
        transport.kind.relearns()
            && (transport.is_silent(now) || transport.accepts_bye(now) && transport.producers.iter().all(is_over))
    }

    /// Routes one RTP packet, and queues it for the fan-out. A packet of the remote counts for transport-wide feedback, whether it
    /// is for somebody or not.
    pub(super) fn handle_rtp(&mut self, origin: &mut Origin, packet: Rtp<'_>, sink: &mut impl Sink) -> Routed {
        // IPv6 carries a little more than IPv4, over which a consumer may have to be reached.
        if packet.bytes.len() > TRAIN_BYTES_MAX {
            return Err(UnroutedReason::TooLong);
        }
        let stream = self.find_stream(origin, &packet);
        let id = match stream {
            Ok((key, ..)) => self.producers[key].transport_cc,
            Err(_) => self.transports[origin.transport].feedback.shared_id,
        };
        let numbered = if let Some(id) = id
            && self.transports[origin.transport].feedback.is_listening()
        {
            // To be read before the packet is changed.
            let number = transport_seq(id, &packet.header, packet.bytes);
            number.map(|number| TransportNumbered {
                number,
                ssrc: packet.header.ssrc,
                is_media: matches!(stream, Ok((.., StreamKind::Media))),
                len: packet.bytes.len(),
            })
        } else {
            None
        };
        let handled = match stream {
            Ok((key, encoding, StreamKind::Media)) => self.handle_media(origin, key, encoding, packet),
            Ok((key, encoding, StreamKind::Rtx)) => self.handle_rtx(origin, key, encoding, packet),
            Err(reason) => Err(reason),
        };
        if let (Some(numbered), SourceCheck::Remote) = (numbered, origin.check) {
            let transport = &mut self.transports[origin.transport];
            self.feedback
                .on_packet(origin.now, origin.transport, transport, numbered, &self.page, sink);
        }
        handled
    }

    fn handle_media(&mut self, origin: &mut Origin, key: ProducerKey, encoding: u8, packet: Rtp<'_>) -> Routed {
        let codec = self.producers[key].packet_codec(packet.header.payload_type);
        let (codec, _) = codec.ok_or(UnroutedReason::UnknownPayloadType)?;
        if origin.check == SourceCheck::Candidate {
            self.learn_remote(origin);
        }
        let route = Route {
            key,
            encoding,
            codec,
            is_rtx: false,
        };
        self.accept_or_hold(origin.now, route, packet);
        Ok(())
    }

    /// Takes in a packet whose stream is known, unless it goes on with nothing that the stream has sent: then it is held.
    /// A retransmission is what it says that it is.
    pub(super) fn accept_or_hold(&mut self, now: Time, route: Route, packet: Rtp<'_>) {
        let stream = &mut self.producers[route.key].streams[usize::from(route.encoding)];
        let verdict = if route.is_rtx {
            Verdict::Fits
        } else {
            stream.judge(now, route.codec.clock_rate, &packet.header, packet.bytes)
        };
        if verdict == Verdict::Fits {
            self.accept_packet(now, route, packet, false);
        } else {
            self.hold_or_resolve(now, route, packet, verdict);
        }
    }

    /// Gives a packet its place in its stream, and queues it for the fan-out. `is_odd`: its timestamp moves nothing.
    pub(super) fn accept_packet(&mut self, now: Time, route: Route, packet: Rtp<'_>, is_odd: bool) {
        let Route {
            key,
            encoding,
            codec,
            is_rtx,
        } = route;
        let producer = &mut self.producers[key];
        producer.counters.received += 1;
        // One opaque value, which nobody has declared: it goes whole, for what is left of it would be read as something else.
        let (cut, header) = &cut_opaque_extension(packet.bytes, &packet.header);
        let (packet, start) = (&mut packet.bytes[*cut..], packet.start + cut);
        if let Some(block) = header.extension {
            producer.strip_extensions(now, packet, block);
        }
        let kind = producer.kind;
        let (paused, is_active, is_lone) = (producer.paused, producer.is_active, producer.streams.len() == 1);
        // What is sent again comes without the padding that it had.
        let is_padding = header.is_padding(packet) || is_rtx && header.payload_len == 0;
        let withholding = producer.withholding(header.payload_type, is_padding);
        let stream = &mut producer.streams[usize::from(encoding)];
        if packet.len() > RING_CHUNK_BYTES {
            stream.counters.not_kept += 1;
        }
        let accepted = stream.accept(
            now,
            encoding,
            codec.name,
            header,
            start as u32,
            packet,
            (withholding, is_odd),
        );
        let came_back = !stream.available && stream.last_media == Some(now) && matches!(accepted, Accepted::Relay(_));
        // Or the beginning of one, which does not have to be asked for either.
        let key_frame = came_back
            && (matches!(&accepted, Accepted::Relay(meta) if meta.key_frame)
                || stream.key_frame_assembler.is_under_way());
        let noted = match &accepted {
            Accepted::Relay(meta) | Accepted::Padding(meta) => self.losses.on_packet(now, key, producer, meta, is_rtx),
            Accepted::Duplicate | Accepted::BadSequence => Noted::default(),
        };
        if noted.needs_key_frame {
            self.key_frame_requests.request(now, (key, encoding), producer, true);
        }
        let stream = &mut producer.streams[usize::from(encoding)];
        match &accepted {
            // It was lost on the path, and that is what reports are about.
            Accepted::Relay(_) | Accepted::Padding(_) if noted.is_repair => {}
            Accepted::Relay(meta) | Accepted::Padding(meta) => stream.reception.on_packet(
                now,
                stream.restarts,
                header.payload_type,
                header.seq,
                meta.timestamp,
                codec.clock_rate,
            ),
            Accepted::Duplicate => stream.reception.on_duplicate(header.seq),
            Accepted::BadSequence => {}
        }
        if stream.misses_for_good(kind) {
            self.key_frame_requests.request(now, (key, encoding), producer, true);
        }
        let stream = &mut producer.streams[usize::from(encoding)];
        if stream.becomes_unkept() {
            self.unkept.push((key, encoding));
        }
        let mut responsiveness_changed = false;
        if paused {
            stream.counters.paused += 1;
            producer.counters.paused += 1;
        } else {
            match accepted {
                Accepted::Relay(meta) => {
                    producer.meter.on_packet(packet, header.extension);
                    // Where every packet is a start, none is asked for.
                    if meta.key_frame && (producer.kind == MediaKind::Video || !is_lone) {
                        stream.key_frames.on_key_frame();
                        // Audio has no key frames, and is never asked for one.
                        let was_unresponsive = stream.responsiveness.is_unresponsive();
                        stream.responsiveness.on_key_frame(now);
                        responsiveness_changed = stream.responsiveness.is_unresponsive() != was_unresponsive;
                        // A consumer may switch here, and must get what came before on the stream it leaves. Streams go
                        // out one after the other; so all that came so far goes out as it is, before this.
                        if !is_lone {
                            producer.streams.iter_mut().for_each(|stream| stream.batch_tail = None);
                        }
                    }
                    let stream = &mut producer.streams[usize::from(encoding)];
                    self.workspace.push(key, stream, meta);
                }
                Accepted::Padding(_) => producer.counters.padding += 1,
                Accepted::Duplicate => producer.counters.duplicate += 1,
                Accepted::BadSequence => producer.counters.bad_sequence += 1,
            }
        }
        let stream = &mut producer.streams[usize::from(encoding)];
        let is_media = stream.last_media == Some(now);
        if responsiveness_changed {
            stream.refresh_gop(is_lone, &mut self.key_frame_requests.gops);
        }
        if !is_active && is_media {
            self.activity.on_active(now, key, producer);
        }
        if came_back {
            self.on_stream_available(now, key, encoding, key_frame);
        }
    }

    /// Reads what a receiver says of its consumers, and a sender of its producers (RFC 3550 §6, RFC 4585, RFC 5104).
    fn handle_rtcp(&mut self, origin: &mut Origin, packet: &[u8]) -> Routed {
        // Where producers are expected, RTP alone says who the remote is: a sender's RTCP may come from another port.
        if origin.check == SourceCheck::Candidate
            && origin.port == Port::Rtp
            && !self.transports[origin.transport].producers.is_empty()
        {
            return Err(UnroutedReason::NoRemote);
        }
        let transport = origin.transport;
        let now = origin.now;
        // First parsed, then handled: what parses bytes from the network changes nothing, so it may stop anywhere.
        let mut said = std::mem::take(&mut self.said);
        said.clear();
        let mut read = boundary::contain(Parser::Rtcp, || rtcp::parse(packet, |feedback| said.push(feedback)))
            .map_or(Err(UnroutedReason::Malformed), |read| {
                read.map_err(|_| UnroutedReason::Malformed)
            });
        if read.is_ok() && origin.check == SourceCheck::Candidate && !self.shows_the_remote(origin, &said) {
            match origin.port {
                Port::Rtp => read = Err(UnroutedReason::Unproven),
                // It comes from the remote's IP, so it is heard, and nothing is learned.
                Port::Rtcp => origin.check = SourceCheck::Neighbour,
            }
        }
        if read.is_ok() {
            let mut names = 0;
            for feedback in said.drain(..) {
                if let RtcpItem::Cname { ssrc, at, len } = feedback {
                    let at = usize::from(at);
                    names += 1;
                    if let Some(name) = packet.get(at..at + usize::from(len)).filter(|_| names <= NAMES_MAX) {
                        // Each SSRC has its own. The name of one that sends nothing here means nothing.
                        let route = self.transports[transport].ssrcs.get(&ssrc).copied();
                        if let Some((key, encoding)) = route {
                            self.producers[key].on_cname(encoding, name, &mut self.reports.clocks);
                        }
                    }
                    continue;
                }
                if let RtcpItem::Bye { ssrc } = feedback {
                    self.transports[transport].on_bye(origin.check, origin.source, ssrc);
                }
                self.on_feedback(now, transport, feedback);
            }
        }
        self.said = said;
        read?;
        self.transports[transport].counters.rtcp += 1;
        if origin.check == SourceCheck::Candidate {
            self.learn_remote(origin);
        }
        Ok(())
    }

    /// Whether what RTCP says shows that it comes from the remote: it names an SSRC that only we and the remote know, or it comes
    /// from where the receiver is supposed to be, and there is nobody but that.
    fn shows_the_remote(&self, origin: &Origin, said: &[RtcpItem]) -> bool {
        let transport = &self.transports[origin.transport];
        let is_expected = transport.kind.comedia_from().is_some() && transport.producers.is_empty();
        is_expected
            || said
                .iter()
                .filter_map(|item| match item {
                    RtcpItem::ReceiverReport { block, .. } => Some(transport.has_consumer(block.ssrc)),
                    RtcpItem::Pli { media_ssrc: ssrc } | RtcpItem::Nack { media_ssrc: ssrc, .. } => {
                        Some(transport.has_consumer(*ssrc))
                    }
                    RtcpItem::Fir { ssrc, .. } => Some(transport.has_consumer(*ssrc)),
                    RtcpItem::SenderReport { ssrc, .. } | RtcpItem::Cname { ssrc, .. } | RtcpItem::Bye { ssrc } => {
                        Some(transport.receives_under(*ssrc))
                    }
                    _ => None,
                })
                // A datagram has space for thousands of guesses.
                .take(SSRCS_LOOKED_AT)
                .any(|is_ours| is_ours)
    }

    fn on_feedback(&mut self, now: Time, transport: TransportKey, feedback: RtcpItem) {
        match feedback {
            RtcpItem::Pli { media_ssrc: ssrc } | RtcpItem::Fir { ssrc, .. } => {
                let Some(key) = self.transports[transport].consumer_ssrcs.get(&ssrc).copied() else {
                    return;
                };
                let consumer = &mut self.consumers[key];
                match feedback {
                    RtcpItem::Fir { .. } => consumer.fir_count += 1,
                    _ => consumer.pli_count += 1,
                }
                self.request_key_frame_for(now, key);
            }
            RtcpItem::Nack {
                media_ssrc,
                pid,
                blp,
                first,
            } => {
                if let Some(key) = self.transports[transport].consumer_ssrcs.get(&media_ssrc) {
                    self.nacks.push(now, &mut self.consumers[*key], (pid, blp), first);
                }
            }
            _ => self.on_report(now, transport, feedback),
        }
    }

    fn learn_remote(&mut self, origin: &mut Origin) {
        let transport = &mut self.transports[origin.transport];
        let relearned = transport.counters.relearned;
        let remote = transport.learn(origin.port, origin.source);
        transport.newcomers = None;
        if transport.counters.relearned != relearned {
            transport.relearned_at = Some(origin.now);
        }
        transport.on_received(origin.now, origin.port == Port::Rtp);
        transport.keep_remote(&self.page);
        origin.check = SourceCheck::Remote;
        self.actions.push_back(Action::Connect {
            transport: transport.index,
            remote,
        });
        self.notifications.push_back(Notification::RemoteLearned {
            transport: transport.id,
            remote,
        });
        if origin.port == Port::Rtp {
            self.on_remote_known(origin.now, origin.transport);
        }
    }
}

#[cfg(test)]
mod tests;
