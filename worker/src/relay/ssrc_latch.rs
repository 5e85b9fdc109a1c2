//! Streams that are known by their payload types alone: gear that is no browser leaves its SSRC out, or goes over to another.
//!
//! It does so when a call is transferred, or its program is started again; RFC 3550 §8.2 allows it at any time.
//! Only on plain transports, whose packets come from one remote, and only where nothing else can be meant: the producer is
//! known by no MID and no RID and has one stream, and no other producer has the payload type. Packets that go along with a
//! codec (telephone events, forward error correction) never make a stream: they come under the SSRC of what they go along
//! with (RFC 4733 §2.1), or under one of their own that carries no media.

use std::time::Duration;

use weir_channel::message::{CreateProducer, Encoding, Notification, UnroutedReason, WorkerError};

use crate::rtp::packet::Header;
use crate::time::Time;

use super::Relay;
use super::keys::{ProducerKey, TransportKey};
use super::parameters::invalid;
use super::producer::Producer;
use super::receive::Origin;
use super::stream::Stream;
use super::transport::{Transport, TransportKind};

/// From one change of a stream's SSRC to the next, except for one that takes the last back. Two senders that contend for it
/// take turns no faster than this.
const CHANGE_INTERVAL: Duration = Duration::from_secs(1);

/// An SSRC that has been silent for this long is left: another one takes its place with its first packet, which may well be
/// of the only key frame for a long time. If the old one was not gone after all, it takes its place back.
const LEFT_AFTER: Duration = Duration::from_secs(1);

/// So many SSRCs of closed producers are remembered for each transport.
const CLOSED_MAX: usize = 64;

/// Otherwise the other one has to come for this long while nothing comes of the old one: ten packets of a call.
const PROBATION: Duration = Duration::from_millis(200);

/// What is known of a stream's SSRC beside the SSRC itself.
#[derive(Debug, Default)]
pub(super) struct SsrcLatch {
    /// What the SSRC was declared to be.
    declared_ssrc: Option<u32>,
    /// The payload type alone vouches for what it is.
    is_by_payload_type: bool,
    /// Another one that would take its place, and since when.
    contender: Option<(u32, Time)>,
    /// When its sender said goodbye.
    bye: Option<Time>,
    /// It is what it is because the one before was silent.
    is_doubtful: bool,
}

/// Why one SSRC may take the place of another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Evidence {
    /// The sender of the old one said goodbye.
    Bye,
    /// The old one has been silent for long.
    Silence,
    /// The new one has been coming, and the old one not.
    Probation,
    /// The new one is the one from before, which was only silent.
    Return,
}

impl SsrcLatch {
    /// Of a stream with this SSRC, if it was declared.
    pub(super) fn new(declared_ssrc: Option<u32>) -> Self {
        Self {
            declared_ssrc,
            ..Self::default()
        }
    }

    /// The sender says that it leaves (RFC 3550 §6.6).
    pub(super) fn on_bye(&mut self, now: Time) {
        self.bye = Some(now);
    }

    /// Another SSRC is the stream's, for a better reason than its payload type.
    pub(super) fn on_new_ssrc(&mut self) {
        *self = Self::new(self.declared_ssrc);
    }

    /// Why another SSRC may take the place of the present one, if it may. `last_packet`: of that; `last_change`: when it came.
    fn admit(
        &mut self,
        now: Time,
        ssrc: u32,
        last_packet: Option<Time>,
        last_change: Option<Time>,
    ) -> Option<Evidence> {
        if last_change.is_some_and(|last| now.since(last) < CHANGE_INTERVAL) {
            return None;
        }
        let none_since = |moment: Time| last_packet.is_none_or(|last| last <= moment);
        if self.bye.is_some_and(none_since) {
            return Some(Evidence::Bye);
        }
        if last_packet.is_some_and(|last| now.since(last) >= LEFT_AFTER) {
            return Some(Evidence::Silence);
        }
        match self.contender {
            Some((contender, since)) if contender == ssrc && none_since(since) => {
                (now.since(since) >= PROBATION).then_some(Evidence::Probation)
            }
            _ => {
                self.contender = Some((ssrc, now));
                None
            }
        }
    }
}

impl Relay {
    /// Gives an SSRC that no name vouches for to the only stream that its payload type can mean, if there is one.
    pub(super) fn latch_ssrc(&mut self, origin: &Origin, header: &Header) -> Result<(ProducerKey, u8), UnroutedReason> {
        let key = self.find_by_payload_type(origin.transport, header)?;
        let (now, ssrc) = (origin.now, header.ssrc);
        let producer = &mut self.producers[key];
        let stream = &mut producer.streams[0]; // OK: a claimant has one
        let previous = stream.ssrc;
        let mut evidence = None;
        let transport = &mut self.transports[origin.transport];
        if previous.is_some() {
            // An SSRC that was declared_ssrc on is what a comedia transport recognises its first remote by.
            let is_known_remote = transport.remote.is_some() || stream.latch.declared_ssrc.is_none();
            // A sender may not have heard yet that its producer is closed.
            let is_another = transport.closed_ssrcs.contains(&ssrc);
            let (last_packet, last_change) = (stream.last_packet, stream.last_ssrc_change());
            evidence = match stream.was_carried_by(ssrc, now) {
                true => stream.latch.is_doubtful.then_some(Evidence::Return),
                // What was declared is the stream's as soon as it comes, whoever has claimed its place meanwhile.
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

    /// The producer that a packet of an unknown SSRC can only be meant for.
    fn find_by_payload_type(&self, key: TransportKey, header: &Header) -> Result<ProducerKey, UnroutedReason> {
        let transport = &self.transports[key];
        if transport.kind == TransportKind::WebRtc || self.is_our_own(key, header.ssrc) {
            return Err(UnroutedReason::UnknownStream);
        }
        let (mut open, mut held) = (Candidates::None, Candidates::None);
        let (mut is_known, mut are_any_without, mut others) = (false, false, false);
        for key in &transport.producers {
            let producer = &self.producers[*key];
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
    pub(super) fn find_rtx_by_payload_type(&self, key: TransportKey, header: &Header) -> Option<(ProducerKey, u8)> {
        let transport = &self.transports[key];
        if transport.kind == TransportKind::WebRtc || self.is_our_own(key, header.ssrc) {
            return None;
        }
        let mut found = Candidates::None;
        for key in &transport.producers {
            let producer = &self.producers[*key];
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

    /// Whether a consumer sends under the SSRC, or we report under it: then somebody sends us our own packets back.
    fn is_our_own(&self, transport: TransportKey, ssrc: u32) -> bool {
        let transport = &self.transports[transport];
        ssrc == self.ssrc
            || transport.consumer_ssrcs.contains_key(&ssrc)
            || transport.consumer_rtx_ssrcs.contains_key(&ssrc)
    }

    /// That a producer without an SSRC can be told from the others of its transport that have none.
    pub(super) fn check_latch(&self, transport: TransportKey, request: &CreateProducer) -> Result<(), WorkerError> {
        let is_known = |encoding: &Encoding| encoding.ssrc.is_some() || encoding.rid.is_some();
        if request.mid.is_some() || request.encodings.iter().any(is_known) {
            return Ok(());
        }
        let others = self.transports[transport]
            .producers
            .iter()
            .map(|key| &self.producers[*key]);
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
    pub(super) fn is_latched(&self, transport: TransportKey, ssrc: u32) -> bool {
        let route = self.transports[transport].ssrcs.get(&ssrc);
        route.is_some_and(|(key, encoding)| {
            let stream = &self.producers[*key].streams[usize::from(*encoding)];
            stream.latch.is_by_payload_type
        })
    }

    /// Takes SSRCs, which are another producer's by what was declared, away from whoever has merely claimed them.
    pub(super) fn release_latches(&mut self, now: Time, transport: TransportKey, declared: &[u32]) {
        let closed = &mut self.transports[transport].closed_ssrcs;
        closed.retain(|closed| !declared.contains(closed));
        for ssrc in declared {
            if !self.is_latched(transport, *ssrc) {
                continue;
            }
            let transport = &mut self.transports[transport];
            let Some((key, encoding)) = transport.ssrcs.remove(ssrc) else {
                continue;
            };
            let stream = &mut self.producers[key].streams[usize::from(encoding)];
            let free = |declared_ssrc: &u32| {
                let (ours, again) = (&transport.consumer_ssrcs, &transport.consumer_rtx_ssrcs);
                let is_taken =
                    transport.ssrcs.contains_key(declared_ssrc) || transport.rtx_ssrcs.contains_key(declared_ssrc);
                !declared.contains(declared_ssrc)
                    && !is_taken
                    && !ours.contains_key(declared_ssrc)
                    && !again.contains_key(declared_ssrc)
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
    /// Remembers the SSRCs of a producer that is closed.
    pub(super) fn remember_closed(&mut self, producer: &Producer) {
        if self.kind == TransportKind::WebRtc {
            return;
        }
        let ssrcs = producer.streams.iter().filter_map(|stream| stream.ssrc);
        self.closed_ssrcs.extend(ssrcs);
        let excess = self.closed_ssrcs.len().saturating_sub(CLOSED_MAX);
        self.closed_ssrcs.drain(..excess);
    }
}

impl Stream {
    /// Whether its sender said goodbye, if it ever sent anything, and nothing has come since.
    pub(super) fn is_over(&self) -> bool {
        let bye = self.latch.bye;
        self.last_packet.is_none_or(|last| bye.is_some_and(|bye| last <= bye))
    }
}

impl Producer {
    /// Known by neither MID nor RID, and with one stream only.
    fn is_unnamed(&self) -> bool {
        self.mid.is_none() && self.streams.len() == 1 && self.streams[0].rid.is_none()
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

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: u32 = 1;
    const NEW: u32 = 2;

    /// When, of `new`, packets of `NEW` take over, while packets of the old one come at `old`; and why.
    fn admitted(latch: &mut SsrcLatch, new: &[u64], old: &[u64]) -> Option<(u64, Evidence)> {
        let last_packet = |at: u64| {
            old.iter()
                .rev()
                .find(|old| **old <= at)
                .map(|old| Time::from_millis(*old))
        };
        new.iter().find_map(|at| {
            let evidence = latch.admit(Time::from_millis(*at), NEW, last_packet(*at), None)?;
            Some((*at, evidence))
        })
    }

    #[test]
    fn a_silent_ssrc_is_succeeded_at_once_and_a_live_one_never() {
        let every_20 = |from: u64, to: u64| (from..to).step_by(20).collect::<Vec<_>>();
        let old = every_20(0, 1_000);
        assert_eq!(
            admitted(&mut SsrcLatch::new(Some(OLD)), &[1_980], &old),
            Some((1_980, Evidence::Silence))
        );
        assert_eq!(
            admitted(&mut SsrcLatch::new(Some(OLD)), &every_20(1_000, 2_000), &old),
            Some((1_200, Evidence::Probation))
        );
        assert_eq!(admitted(&mut SsrcLatch::default(), &every_20(510, 980), &old), None);
        // One that has never come may come yet.
        assert_eq!(
            admitted(&mut SsrcLatch::new(Some(OLD)), &every_20(0, 1_000), &[]),
            Some((200, Evidence::Probation))
        );
    }

    #[test]
    fn a_goodbye_counts_until_something_comes() {
        let mut latch = SsrcLatch::default();
        latch.on_bye(Time::from_millis(1_000));
        assert_eq!(admitted(&mut latch, &[1_010], &[1_020]), Some((1_010, Evidence::Bye)));
        let mut latch = SsrcLatch::default();
        latch.on_bye(Time::from_millis(1_000));
        assert_eq!(admitted(&mut latch, &[1_010], &[1_005]), None);
    }

    #[test]
    fn changes_are_a_second_apart() {
        let mut latch = SsrcLatch::default();
        latch.on_bye(Time::from_millis(1_000));
        let changed = Some(Time::from_millis(500));
        assert_eq!(latch.admit(Time::from_millis(1_499), NEW, None, changed), None);
        let bye = Some(Evidence::Bye);
        assert_eq!(latch.admit(Time::from_millis(1_500), NEW, None, changed), bye);
    }

    #[test]
    fn contenders_that_take_turns_get_nowhere() {
        let mut latch = SsrcLatch::default();
        let last = Some(Time::from_millis(0));
        for at in (10..990).step_by(10) {
            let contender = NEW + (at / 10 % 2) as u32;
            assert_eq!(
                latch.admit(Time::from_millis(at), contender, last, None),
                None,
                "at {at}"
            );
        }
    }
}
