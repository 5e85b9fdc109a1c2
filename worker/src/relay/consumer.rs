//! A consumer as the relay sees it: what it should be sent, the numbers it is sent under, and where every packet went.

use std::num::NonZeroU8;

use weir_channel::id::{ConsumerId, RoomId};
use weir_channel::message::{ConsumerStats, CreateConsumer, DropReason, ExtensionUri, MediaKind, Profile};

use crate::page::layout::Table;
use crate::page::{Page, Slot};
use crate::rtp::extension::{ExtensionBlock, Walk, erase, rename};
use crate::time::Time;

use super::decide::{Flow, Overtaken};
use super::gop::GopCursor;
use super::keys::{ConsumerKey, ProducerKey, TransportKey};
use super::limits::ENCODINGS_MAX;
use super::producer::{Producer, ProducerCounters};
use super::profile::{Available, select};
use super::rate::Rate;
use super::repair::Repair;
use super::rewrite::Rewriter;
use super::rtt::RoundTrip;
use super::sink::TransportIx;
use super::slots::Slots;
use super::transmission::Transmission;

/// No payload type.
const NONE: u8 = u8::MAX;

/// A producer as somebody receives it. What every packet needs comes first, in three cache lines (`hot_lines.rs` counts them), as
/// in small rooms nothing of a consumer is in the near caches any more when its next packet comes.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct Consumer {
    /// Its own key, for the sink.
    pub key: ConsumerKey,
    /// What flows.
    pub flow: Flow,
    /// The SSRC it is sent under.
    pub ssrc: u32,
    /// Where it leaves.
    pub transport_index: TransportIx,
    /// Packets given to the transport.
    pub forwarded: u64,
    /// Payload bytes sent under the media's SSRC, without padding.
    pub octets: u64,
    /// The payload type of the packet before, as the producer sent it, and its own for it.
    last_mapping: [u8; 2],
    /// The producer's payload type of the packet sent last; 255: none was sent.
    pub last_payload_type: u8,
    /// Several consumers leave on its transport: their packets are gathered.
    pub gathered: bool,
    /// There are `renames`.
    pub has_renames: bool,
    /// It was no sender when the last report was made, and has sent nothing since.
    pub rests: bool,
    /// The numbers it flows under.
    pub rewriter: Rewriter,
    /// Bytes given to the transport, and bits per second.
    pub rate: Rate,

    /// Packets sent under the media's SSRC beside `forwarded`: again, or lost after the transport had taken them.
    pub sent_beside: u64,
    /// What of the flow's start was overtaken.
    pub overtaken: Overtaken,
    /// What its receiver calls the producer's extensions, if it calls one of them otherwise or does not know it.
    pub renames: Option<Box<[ExtensionFate]>>,
    /// Its payload types.
    pub payload_types: PayloadTypes,
    /// Packets not given to the transport.
    pub dropped: [u64; DropReason::ALL.len()],

    /// Its id.
    pub id: ConsumerId,
    /// The room it belongs to.
    pub room: RoomId,
    /// Where it leaves.
    pub transport: TransportKey,
    /// What it consumes.
    pub producer: ProducerKey,
    /// The profile that it prefers.
    pub preferred_profile: Profile,
    /// Paused by itself.
    pub paused: bool,
    /// What it is sent.
    pub effective: Option<u8>,
    /// The encoding that its owner was last notified of.
    pub last_notified: Option<u8>,
    /// It is in the relay's list of consumers whose owners are to be notified.
    pub is_notification_queued: bool,
    /// Its owner was notified lately, and is again when it is time to.
    pub notification_rests: bool,
    /// Its place in each stream's list of consumers.
    pub places: [Option<u32>; ENCODINGS_MAX],
    /// How many packets had been handed to each stream's consumers when it began to follow it.
    pub attached_from: [u64; ENCODINGS_MAX],
    /// And when it was made.
    created_at: [u64; ENCODINGS_MAX],
    /// Where it is in a group of pictures that it is sent after the event.
    pub catch_up: Option<GopCursor>,
    /// It outlives its producers.
    pub is_lasting: bool,
    /// Its place in its producer's list.
    pub place_in_producer: u32,
    /// Its place in its transport's list.
    pub place_in_transport: u32,
    /// Switches made.
    pub switches: u64,
    /// Picture loss indications received.
    pub pli_count: u64,
    /// Full intra requests received.
    pub fir_count: u64,
    /// From here to the receiver and back.
    pub round_trip: RoundTrip,
    /// What its reports say, and its receiver's.
    pub transmission: Transmission,
    /// Packets of negative acknowledgements received.
    pub nack_count: u64,
    /// The SSRC it is sent packets again under, if not its own.
    pub rtx_ssrc: Option<u32>,
    /// What it takes to send packets again; `None` if the receiver does not ask for any.
    pub repair: Option<Box<Repair>>,
    packets_in: u64,
    counted: ProducerCounters,
}

/// All of a worker's.
pub(super) type Consumers = Slots<ConsumerKey, Consumer>;

/// What happens to an extension before its packet goes to a consumer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ExtensionFate {
    /// Its id with the producer.
    source: u8,
    /// Its id with the receiver, perhaps the same; `None`: the receiver does not know it.
    own: Option<NonZeroU8>,
}

/// A consumer's payload types, by the producer's.
#[derive(Debug)]
pub(super) struct PayloadTypes([u8; 128]);

impl PayloadTypes {
    fn of(request: &CreateConsumer) -> Self {
        let mut payload_types = [NONE; 128];
        for (source, own) in &request.payload_types {
            payload_types[usize::from(source & 0x7f)] = *own;
        }
        Self(payload_types)
    }

    /// Its own for a producer's.
    #[inline]
    pub(super) fn own(&self, source: u8) -> Option<u8> {
        let own = self.0[usize::from(source & 0x7f)];
        (own != NONE).then_some(own)
    }
}

impl Consumer {
    /// What every packet needs is in so many of its first bytes.
    pub(super) const HOT_BYTES: usize = std::mem::offset_of!(Self, rate) + Rate::HOT_BYTES;

    /// Where the fields lie that every packet needs.
    #[cfg(test)]
    pub(super) const HOT: [std::ops::Range<usize>; 3] = {
        use std::mem::offset_of;
        let rewriter = offset_of!(Self, rewriter);
        [
            0..rewriter,
            rewriter + Rewriter::HOT.start..rewriter + Rewriter::HOT.end,
            offset_of!(Self, rate)..Self::HOT_BYTES,
        ]
    };

    /// From a request whose parameters were checked.
    pub(super) fn new(
        request: &CreateConsumer,
        key: ConsumerKey,
        producer_key: ProducerKey,
        producer: &Producer,
        transport: TransportKey,
        connected: bool,
        rewriter: Rewriter,
    ) -> Self {
        let renames = renames(request, producer);
        // A name of its own is nobody else's.
        let (cname, cname_is_made_up) = match &request.lasting_cname {
            Some(own) => (own, false),
            None => (&request.cname, request.cname_is_made_up),
        };
        Self {
            key,
            flow: Flow::new(producer.kind == MediaKind::Video, connected),
            ssrc: request.ssrc,
            transport_index: transport.index(),
            forwarded: 0,
            octets: 0,
            last_mapping: [NONE; 2],
            last_payload_type: NONE,
            gathered: false,
            has_renames: renames.is_some(),
            rests: true,
            rewriter,
            rate: Rate::default(),
            sent_beside: 0,
            overtaken: Overtaken::default(),
            renames,
            payload_types: PayloadTypes::of(request),
            dropped: [0; DropReason::ALL.len()],
            id: request.consumer,
            room: request.room,
            transport,
            producer: producer_key,
            preferred_profile: request.preferred_profile,
            paused: request.paused,
            effective: None,
            last_notified: None,
            is_notification_queued: false,
            notification_rests: false,
            places: [None; ENCODINGS_MAX],
            attached_from: producer.counters.dispatched,
            created_at: producer.counters.dispatched,
            catch_up: None,
            is_lasting: request.lasting_cname.is_some(),
            place_in_producer: 0,
            place_in_transport: 0,
            switches: 0,
            pli_count: 0,
            fir_count: 0,
            round_trip: RoundTrip::default(),
            transmission: Transmission::new(cname, cname_is_made_up),
            nack_count: 0,
            rtx_ssrc: request.rtx.as_ref().map(|rtx| rtx.ssrc),
            repair: None,
            packets_in: 0,
            counted: producer.counters,
        }
    }

    /// Nothing of its producer flows to it any more. To be called before it leaves the producer's streams.
    pub(super) fn stop_flow(&mut self, counters: &ProducerCounters) {
        self.update_counters(counters);
        self.flow = Flow::new(self.flow.needs_key_frame, self.flow.connected);
        self.overtaken = Overtaken::default();
        self.catch_up = None;
        self.effective = None;
        // An encoding of another source is another one.
        self.last_notified = self.last_notified.map(|_| NONE);
        self.last_mapping = [NONE; 2];
        self.last_payload_type = NONE;
        self.rewriter.forget_clock();
        if let Some(repair) = &mut self.repair {
            repair.forget_starts();
        }
    }

    /// It is a consumer of this producer from now on, in the slot in which is withheld what it lacks.
    pub(super) fn follow(&mut self, key: ProducerKey, producer: &Producer, slot: u8) {
        self.producer = key;
        self.flow.needs_key_frame = producer.kind == MediaKind::Video;
        self.rewriter.change_source(slot);
        self.attached_from = producer.counters.dispatched;
        self.created_at = producer.counters.dispatched;
        self.counted = producer.counters;
    }

    /// How it calls what the producer that it follows now sends.
    pub(super) fn rename(&mut self, request: &CreateConsumer, producer: &Producer) {
        self.payload_types = PayloadTypes::of(request);
        self.renames = renames(request, producer);
        self.has_renames = self.renames.is_some();
    }

    /// Its own payload type for that of a packet, which is mostly the one of the packet before.
    #[inline]
    pub(super) fn payload_type(&mut self, source: u8) -> Option<u8> {
        if self.last_mapping[0] == source {
            return Some(self.last_mapping[1]);
        }
        let own = self.payload_types.own(source)?;
        self.last_mapping = [source, own];
        Some(own)
    }

    /// Packets sent under the media's SSRC, also those that were sent again. What the socket had taken and lost after all is lost
    /// like what the network loses: this never goes back.
    pub(super) fn sent(&self) -> u64 {
        self.forwarded + self.sent_beside
    }

    /// The transport had taken packets but could not send them after all.
    pub(super) fn on_lost(&mut self, reason: DropReason, packets: u32) {
        let lost = u64::from(packets);
        let uncounted = lost.min(self.forwarded);
        self.forwarded -= uncounted;
        self.sent_beside += uncounted;
        self.dropped[reason as usize] += lost;
    }

    /// Packets that its producer received while it existed; `update_counters` first.
    pub(super) fn packets_in(&self) -> u64 {
        self.packets_in
    }

    /// Whether it is a sender now, and so sends sender reports; begins the next interval.
    pub(super) fn is_sender(&mut self) -> bool {
        let sent = self.sent();
        self.rests = !self.transmission.is_sender(sent);
        !self.rests
    }

    /// Whether it has rested, and sends something again. It says so once.
    #[inline]
    pub(super) fn wake(&mut self) -> bool {
        self.rests && self.wake_from_rest()
    }

    #[cold]
    fn wake_from_rest(&mut self) -> bool {
        let wakes = self.sent() != self.transmission.packets_before();
        self.rests = !wakes;
        wakes
    }

    /// Neither paused nor out of reach: a key frame would not be wasted on it.
    pub(super) fn can_be_sent(&self) -> bool {
        !self.paused && self.flow.connected
    }

    /// The SSRC it was sent packets again under, if any were and it is not its own.
    pub(super) fn begun_rtx_ssrc(&self) -> Option<u32> {
        self.repair.as_ref()?.begun_rtx_ssrc()
    }

    /// The SSRCs that it sent under, each with the last sequence number, extended.
    pub(super) fn used_indices(&self) -> impl Iterator<Item = (u32, u64)> + use<> {
        let media = self.rewriter.newest_seq().map(|last| (self.ssrc, last));
        let again = self.repair.as_ref().and_then(|repair| repair.last_rtx());
        [media, again].into_iter().flatten()
    }

    /// What it should be sent, of what is on offer.
    pub(super) fn selected(&self, producer: &Producer, available: Available) -> Option<u8> {
        select(available, self.preferred_profile, producer.preferred_profile)
            .and_then(|profile| producer.encoding_of(profile))
    }

    /// Books the packets it was not shown since the last time. To be called before anything changes that says which
    /// packets it is shown: its pause, and the streams it is attached to.
    pub(super) fn update_counters(&mut self, counters: &ProducerCounters) {
        let counted = std::mem::replace(&mut self.counted, *counters);
        // What was held and is taken in after all leaves the count that it was in.
        let add = |sum: &mut u64, now: u64, before: u64| *sum = sum.wrapping_add(now.wrapping_sub(before));
        add(&mut self.packets_in, counters.received, counted.received);
        let dropped = &mut self.dropped;
        if self.paused {
            let paused = &mut dropped[DropReason::ConsumerPaused as usize];
            add(paused, counters.received, counted.received);
            return;
        }
        for (reason, now, before) in [
            (DropReason::ProducerPaused, counters.paused, counted.paused),
            (DropReason::Duplicate, counters.duplicate, counted.duplicate),
            (DropReason::BadSequence, counters.bad_sequence, counted.bad_sequence),
            (DropReason::Padding, counters.padding, counted.padding),
        ] {
            add(&mut dropped[reason as usize], now, before);
        }
        for (encoding, place) in self.places.iter().enumerate() {
            if place.is_none() {
                dropped[DropReason::OtherProfile as usize] +=
                    counters.dispatched[encoding] - counted.dispatched[encoding];
            }
        }
    }

    /// Where it is kept for a successor: a consumer's slot is at its own index, so that no packet needs to look for it.
    #[inline]
    pub(super) fn slot(&self, page: &Page) -> Slot {
        page.slot(Table::Consumers, self.key.index().slot)
    }

    /// The packets that came are those that were counted since.
    pub(super) fn resume_packets_in(&mut self) {
        self.packets_in = self.forwarded + self.dropped.iter().sum::<u64>();
    }

    /// A packet goes out after all, which was withheld when it came, or came before the consumer followed its stream.
    pub(super) fn on_held_packet(&mut self, encoding: u8, ordinal: u64) {
        let encoding = usize::from(encoding);
        let counted = if ordinal >= self.attached_from[encoding] {
            &[DropReason::AwaitingKeyFrame, DropReason::NoRemote][..]
        } else if ordinal >= self.created_at[encoding] {
            &[DropReason::OtherProfile, DropReason::ConsumerPaused][..]
        } else {
            &[]
        };
        match counted.iter().find(|reason| self.dropped[**reason as usize] > 0) {
            Some(reason) => self.dropped[*reason as usize] -= 1,
            None => self.packets_in += 1,
        }
    }

    /// Gives the extensions of one packet the receiver's ids. The caller restores the bytes afterwards.
    pub(super) fn rename_extensions(&self, bytes: &mut [u8], block: ExtensionBlock) {
        if let Some(fates) = &self.renames {
            rename_extensions(fates, bytes, block);
        }
    }

    /// Its counters; `update_counters` first.
    pub(super) fn stats(&self, now: Time, producer: &Producer) -> ConsumerStats {
        let profile = |encoding: Option<u8>| {
            encoding
                .and_then(|encoding| producer.streams.get(usize::from(encoding)))
                .map(|stream| stream.profile)
        };
        let heard = self.transmission.last_report();
        ConsumerStats {
            consumer: self.id,
            paused: self.paused,
            source_paused: producer.paused,
            effective_profile: profile(self.effective),
            target_profile: profile(self.flow.target),
            packets_in: self.packets_in,
            packets_forwarded: self.forwarded,
            bytes_forwarded: self.rate.total(),
            bitrate: self.rate.bitrate(now),
            dropped: DropReason::ALL.into_iter().zip(self.dropped).collect(),
            switches: self.switches,
            last_seq: self.rewriter.newest_seq(),
            ssrc: self.ssrc,
            codec: producer.codec_name(Some(self.last_payload_type)),
            payload_type: producer
                .codec(self.last_payload_type)
                .and_then(|codec| self.payload_types.own(codec.payload_type)),
            packets_retransmitted: self.repair.as_ref().map_or(0, |repair| repair.packets),
            bytes_retransmitted: self.repair.as_ref().map_or(0, |repair| repair.bytes),
            not_repaired: self.repair.as_ref().map(|repair| repair.refusals()).unwrap_or_default(),
            nack_count: self.nack_count,
            pli_count: self.pli_count,
            fir_count: self.fir_count,
            packets_lost: heard.packets_lost,
            fraction_lost: heard.fraction_lost,
            jitter: heard.jitter,
            round_trip_us: self.round_trip.micros(),
        }
    }
}

/// Gives the extensions of one packet the ids of the receiver that has these names for them. An id that the packet's form
/// cannot carry (RFC 8285 §4.2: above 14 in the one-byte form) would need a longer packet: that extension is erased.
pub(super) fn rename_extensions(fates: &[ExtensionFate], bytes: &mut [u8], block: ExtensionBlock) {
    let mut walk = Walk::through(block);
    while let Some(element) = walk.next(bytes) {
        // A handful at most: each extension that is relayed stands there once.
        let fate = fates.iter().find(|fate| fate.source == element.id);
        match fate.and_then(|fate| fate.own) {
            Some(own) if own.get() == element.id => {}
            Some(own) => rename(bytes, block.form, element, own.get()),
            None => erase(bytes, element),
        }
    }
}

/// What happens to each of the producer's relayed extensions; `None` when all keep their ids.
fn renames(request: &CreateConsumer, producer: &Producer) -> Option<Box<[ExtensionFate]>> {
    let own = |uri: ExtensionUri| request.header_extensions.iter().find(|own| own.uri == uri);
    let relayed = ExtensionUri::ALL.into_iter().filter(|uri| uri.is_relayed());
    let fates: Box<[_]> = relayed
        .filter_map(|uri| {
            let source = producer.extension_id(uri)?;
            let own = own(uri).and_then(|own| NonZeroU8::new(own.id));
            Some(ExtensionFate { source, own })
        })
        .collect();
    let keeps = |fate: &ExtensionFate| fate.own.is_some_and(|own| own.get() == fate.source);
    (!fates.iter().all(keeps)).then_some(fates)
}
