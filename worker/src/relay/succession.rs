//! What of the relay's objects is kept in the [page](crate::page), and how a successor takes it over.
//!
//! Commands make the objects again, with their requests; what follows from packets comes from the page of the worker that is
//! dead. An object of which the page knows nothing is new. What the page says and cannot be true makes the command fail.
//!
//! What a consumer may have been sent is never used again: its flow goes on behind the newest number in the page. A stream goes on
//! behind the last batch that was relayed wholly and has left; what was under way counts as not received, and is asked for again.

mod kept_consumer;
mod kept_stream;
mod kept_transport;
mod taking_up;

use std::net::SocketAddr;
use std::sync::Arc;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{CreateConsumer, Remote, WorkerError};

use crate::page::Page;
use crate::page::layout::connection::{StreamOut, WRITTEN};
use crate::page::layout::{
    FoldedOfStream, RemoteOfTransport, SocketCounts, StreamPosition, Table, consumer, stream, transport,
};
use crate::page::predecessor::{Damaged, Predecessor};
use crate::time::Time;

pub use self::taking_up::LeftOfSockets;

use self::kept_consumer::{ConsumerLegacy, NONE, of_no_source};
use self::kept_stream::StreamLegacy;
use self::kept_transport::TransportLegacy;

use super::keys::{ConsumerKey, ProducerKey, TransportKey};
use super::media_totals::Counted;
use super::parameters::invalid;
use super::producer::Producer;
use super::rewrite::Rewriter;
use super::sink::TransportIx;
use super::transport::TransportKind;
use super::withheld::InHand;
use super::{Action, Relay};

impl Relay {
    /// From now on what a successor needs is kept there. To be called before anything is made.
    pub fn set_page(&mut self, page: Page) {
        self.page = page;
    }

    /// Where what a successor needs is kept.
    pub fn page(&self) -> &Page {
        &self.page
    }

    /// As [`Relay::page`], for those who take slots of their own.
    pub fn page_mut(&mut self) -> &mut Page {
        &mut self.page
    }

    /// Of a room that is being adopted, what its last workers have left, the latest first. `None`: it is new.
    pub fn predecessors(&self, room: RoomId) -> Option<&[Arc<Predecessor>]> {
        self.predecessors.get(&room).map(Vec::as_slice)
    }

    /// What the last worker has left of a TCP connection of a room that is being adopted; `None`: nothing.
    ///
    /// # Errors
    /// It cannot be true.
    pub fn connection_legacy(
        &self,
        room: RoomId,
        transport: TransportId,
        cookie: u64,
    ) -> Result<Option<StreamOut>, Damaged> {
        let pages = self.predecessors.get(&room).map_or(&[][..], Vec::as_slice);
        latest(pages.iter(), |page: &Arc<Predecessor>| {
            match page.find(Table::Connections, transport.0, cookie) {
                Some(slot) => page.twin(slot, WRITTEN),
                None => Ok(None),
            }
        })
    }

    /// The packets that come next are from there: whoever looks for the cause of this worker's death finds it. `transport`: whose
    /// socket they came to, if it is one's.
    #[inline]
    pub fn note_suspect(&self, transport: Option<TransportIx>, source: SocketAddr) {
        let key = transport.and_then(|transport| self.transport_key(transport));
        let id = key.map_or(0, |key| self.transports[key].id.0);
        self.page.set_suspect(id, source);
    }

    /// Where a transport's other end is.
    pub fn remote_of(&self, transport: TransportIx) -> Option<Remote> {
        self.transports[self.transport_key(transport)?].remote
    }

    /// What the last worker has counted at the sockets of a transport of a room that is being adopted; `None`: it had none.
    pub fn socket_counts_left(&self, now: Time, room: RoomId, transport: TransportId) -> Option<SocketCounts> {
        let legacy = self.transport_legacy(now, room, transport).ok()??;
        Some(legacy.sockets)
    }

    /// Keeps what was counted at the sockets of a transport: whenever somebody sees it.
    pub fn keep_socket_counts(&self, transport: TransportIx, counts: &SocketCounts) {
        if let Some(key) = self.transport_key(transport) {
            self.transports[key].keep_socket_counts(&self.page, counts);
        }
    }

    /// A room's objects are about to be made again, whose last workers have left these pages, the latest first. There are several
    /// if one has died while it took the room over from another; the latest counts that knows of an object.
    pub fn begin_adoption(&mut self, room: RoomId, pages: Vec<Arc<Predecessor>>) {
        self.predecessors.insert(room, pages);
    }

    /// They have been.
    pub fn end_adoption(&mut self, room: RoomId) {
        self.predecessors.remove(&room);
    }

    /// What the last worker has left of a consumer.
    pub(super) fn consumer_legacy(
        &self,
        now: Time,
        identity: ConsumerIdentity,
    ) -> Result<Option<ConsumerLegacy>, WorkerError> {
        let ConsumerIdentity {
            consumer: id,
            room,
            producer,
            ..
        } = identity;
        let Some(pages) = self.predecessors.get(&room) else {
            return Ok(None);
        };
        let read = |(place, page): (usize, &Arc<Predecessor>)| -> Result<_, Damaged> {
            let Some(slot) = page.find(Table::Consumers, id.0, 0) else {
                return Ok(None);
            };
            if page.detail(slot) != identity.detail() {
                return Err(Damaged("its SSRCs are others"));
            }
            let Some(mut flow) = page.twin(slot, consumer::FLOW)? else {
                // It was about to be made, and nobody has been told of it.
                return Ok(None);
            };
            // Its worker died before it could answer that it has another source, or the source cannot be made again.
            let is_source = page.record(slot, consumer::SOURCE).producer == producer.0
                && self.producer_of_id.contains_key(&producer);
            if identity.is_lasting && !is_source {
                flow = of_no_source(&flow);
            }
            let mut newest = page.record(slot, consumer::NEWEST);
            let seq = Rewriter::check_kept(&newest)?;
            newest.sent_at = newest.sent_at.min(now.0);
            let again = page.double(slot, consumer::AGAIN)?;
            if again.is_some_and(|again| again >= 1 << 48) {
                return Err(Damaged("its last number sent again is none"));
            }
            let streams = self.producer_of_id.get(&producer);
            let streams = streams.map_or(0, |key| self.producers[*key].streams.len());
            let is_there = |encoding: u8| encoding == NONE || usize::from(encoding) < streams;
            if ![flow.timeline, flow.current, flow.effective].into_iter().all(is_there) || flow.slot > 3 {
                return Err(Damaged("it was sent a stream that its producer has not got"));
            }
            // Each worker has counted anew.
            let (mut withheld, mut position, mut in_hand) = (None, None, None);
            for page in &pages[..=place] {
                if let Some(stream) = page.find(Table::Streams, producer.0, u64::from(flow.current))
                    && let Some(kept) = page.twin::<StreamPosition>(stream, stream::POSITION)?
                {
                    let own = kept.withheld[usize::from(flow.slot)];
                    withheld = Some(withheld.unwrap_or(0_u64).wrapping_add(own));
                    // Nothing of it has been relayed in between.
                    let position = position.get_or_insert(kept);
                    let folded = page.twin::<FoldedOfStream>(stream, stream::FOLDED)?;
                    in_hand = folded.and_then(|folded| InHand::of(&folded, flow.slot, position));
                }
            }
            Ok(Some(ConsumerLegacy {
                seq,
                newest,
                again,
                flow,
                start: page.record(slot, consumer::START).seq,
                counters: page.counters(slot, consumer::COUNTERS),
                withheld,
                in_hand,
            }))
        };
        latest(pages.iter().enumerate(), read).map_err(|damaged| invalid(format!("{id}: {damaged}")))
    }

    /// Gives a consumer that was just made its place in the page, and what the last worker has left of it; and then what should
    /// flow.
    pub(super) fn begin_consumer(
        &mut self,
        now: Time,
        key: ConsumerKey,
        identity: ConsumerIdentity,
        legacy: Option<ConsumerLegacy>,
    ) {
        let consumer = &mut self.consumers[key];
        if let Some(left) = legacy.as_ref().and_then(|legacy| legacy.in_hand)
            && let Some(current) = legacy.as_ref().map(|legacy| usize::from(legacy.flow.current))
            && let Some(stream) = self.producers[consumer.producer].streams.get_mut(current)
        {
            stream.resume_withheld(consumer.rewriter.slot(), left);
            stream.keep_folded(&self.page);
        }
        let producer = &self.producers[consumer.producer];
        let is_old = legacy.is_some();
        let start = legacy.as_ref().map(|legacy| legacy.start);
        if let Some(legacy) = legacy {
            consumer.resume(&legacy, producer);
            self.media_totals.on_taken_over(key, Counted::by_consumer(consumer));
        }
        let index = key.index().slot;
        let transport = &self.transports[consumer.transport];
        let protected_on = (transport.kind == TransportKind::WebRtc).then_some(transport.index);
        let slot = self
            .page
            .take_at(Table::Consumers, index, identity.consumer.0, identity.detail());
        if let Some(transport) = protected_on {
            if is_old {
                let used = consumer.spent().into_iter().flatten();
                let spent = used.map(|(ssrc, next)| Action::Spent { transport, ssrc, next });
                self.actions.extend(spent);
            }
            if slot.is_none() && self.page.is_somewhere() {
                self.actions.push_back(Action::Unkept { transport });
            }
        }
        consumer.keep_newest(&self.page);
        if let Some(rtx) = consumer.repair.as_ref().and_then(|repair| repair.rtx.as_ref()) {
            self.page.store_double(slot, consumer::AGAIN, rtx.seq);
        }
        consumer.keep_counters(&self.page, &producer.counters);
        if let Some(start) = start {
            consumer.keep_start(&self.page, start);
        }
        consumer.keep_source(&self.page, identity.producer);
        // This last: it makes the record whole.
        consumer.keep_flow(&self.page);
        self.select_layer(now, key);
        // Who has lost what flowed is sent the same stream again, from a key frame on.
        if is_old && self.consumers[key].flow.sync_required {
            self.request_key_frame_for(now, key);
        }
    }

    /// Keeps of a consumer, to which nothing flows, what is new with another source.
    pub(super) fn keep_source(&mut self, key: ConsumerKey, request: &CreateConsumer) {
        let consumer = &mut self.consumers[key];
        consumer.keep_source(&self.page, request.producer);
        if let Some(rtx) = consumer.repair.as_ref().and_then(|repair| repair.rtx.as_ref()) {
            self.page
                .store_double(consumer.slot(&self.page), consumer::AGAIN, rtx.seq);
        }
        consumer.keep_counters(&self.page, &self.producers[consumer.producer].counters);
        consumer.keep_flow(&self.page);
    }

    /// What the last worker has left of a producer's streams, lowest profile first.
    pub(super) fn stream_legacies(
        &self,
        now: Time,
        room: RoomId,
        id: ProducerId,
        streams: usize,
    ) -> Result<Vec<Option<StreamLegacy>>, WorkerError> {
        let Some(pages) = self.predecessors.get(&room) else {
            return Ok(Vec::new());
        };
        let read = |encoding: usize, page: &Arc<Predecessor>| -> Result<_, Damaged> {
            let Some(slot) = page.find(Table::Streams, id.0, encoding as u64) else {
                return Ok(None);
            };
            let Some(mut position) = page.twin::<StreamPosition>(slot, stream::POSITION)? else {
                return Ok(None);
            };
            position.check()?;
            // Nothing has happened later than now.
            for time in [
                &mut position.previous_until,
                &mut position.asked_at,
                &mut position.report_arrived,
            ] {
                *time = (*time).min(now.0);
            }
            let counts = page.counters(slot, stream::COUNTERS);
            Ok(Some(StreamLegacy { position, counts }))
        };
        (0..streams)
            .map(|encoding| {
                latest(pages, |page| read(encoding, page)).map_err(|damaged| invalid(format!("{id}: {damaged}")))
            })
            .collect()
    }

    /// Gives the streams of a producer that was just made their places in the page, and what the last worker has left of them.
    pub(super) fn keep_new_producer(&mut self, now: Time, key: ProducerKey, legacies: Vec<Option<StreamLegacy>>) {
        let producer = &mut self.producers[key];
        let transport = &mut self.transports[producer.transport];
        let mut legacies = legacies.into_iter();
        for (encoding, stream) in producer.streams.iter_mut().enumerate() {
            if let Some(legacy) = legacies.next().flatten() {
                let free = |ssrc: u32| {
                    let owners = [transport.ssrcs.get(&ssrc), transport.rtx_ssrcs.get(&ssrc)];
                    let is_own = |owner: &(ProducerKey, u8)| *owner == (key, encoding as u8);
                    owners.into_iter().flatten().all(is_own) && !transport.has_consumer(ssrc) && ssrc != self.ssrc
                };
                let ssrcs =
                    [legacy.position.ssrc(), legacy.position.rtx_ssrc()].map(|ssrc| ssrc.filter(|ssrc| free(*ssrc)));
                for known in [stream.ssrc, stream.rtx_ssrc].into_iter().flatten() {
                    transport.ssrcs.remove(&known);
                    transport.rtx_ssrcs.remove(&known);
                }
                stream.resume(now, &legacy, ssrcs);
                self.media_totals.on_taken_over(key, Counted::by_stream(stream));
                if let Some(ssrc) = stream.ssrc {
                    transport.ssrcs.insert(ssrc, (key, encoding as u8));
                }
                if let Some(ssrc) = stream.rtx_ssrc {
                    transport.rtx_ssrcs.insert(ssrc, (key, encoding as u8));
                }
            }
            stream.page = self.page.take(Table::Streams, producer.id.0, encoding as u64);
            stream.keep_counters(&self.page);
            stream.keep_position(&self.page);
        }
        producer.is_active = producer.streams.iter().any(|stream| stream.last_media.is_some());
    }

    /// What the last worker has left of a transport.
    pub(super) fn transport_legacy(
        &self,
        now: Time,
        room: RoomId,
        id: TransportId,
    ) -> Result<Option<TransportLegacy>, WorkerError> {
        let Some(pages) = self.predecessors.get(&room) else {
            return Ok(None);
        };
        let read = |page: &Arc<Predecessor>| -> Result<_, Damaged> {
            let Some(slot) = page.find(Table::Transports, id.0, 0) else {
                return Ok(None);
            };
            let Some(mut remote) = page.twin::<RemoteOfTransport>(slot, transport::REMOTE)? else {
                return Ok(None);
            };
            remote.relearned_at = remote.relearned_at.min(now.0);
            Ok(Some(TransportLegacy {
                remote,
                feedback: page.record(slot, transport::FEEDBACK),
                counts: page.counters(slot, transport::COUNTERS),
                sockets: SocketCounts {
                    // These are no counters, but two numbers in a word.
                    drop_counts: page.record(slot, transport::SOCKETS).drop_counts,
                    ..page.counters(slot, transport::SOCKETS)
                },
            }))
        };
        latest(pages, read).map_err(|damaged| invalid(format!("{id}: {damaged}")))
    }

    /// Gives a transport that was just made its place in the page, and what the last worker has left of it.
    pub(super) fn keep_new_transport(&mut self, key: TransportKey, legacy: Option<TransportLegacy>) {
        let transport = &mut self.transports[key];
        transport.page = self.page.take(Table::Transports, transport.id.0, 0);
        if let Some(legacy) = legacy {
            transport.resume(&legacy);
            self.media_totals.on_taken_over(key, Counted::by_transport(transport));
            transport.keep_feedback(&self.page, transport.feedback.next);
            transport.keep_socket_counts(&self.page, &legacy.sockets);
        }
        transport.keep_counters(&self.page);
        transport.keep_remote(&self.page);
    }

    /// A stream is to be kept when what is being done is done, and what it brought has left.
    #[inline]
    pub(super) fn keep_later(&mut self, key: ProducerKey, encoding: u8) {
        let stream = &mut self.producers[key].streams[usize::from(encoding)];
        if stream.becomes_unkept() {
            self.unkept.push((key, encoding));
        }
    }

    /// Keeps how far streams were received of which something has come, or that were asked for something. To be called when all
    /// that they have brought has left: what is gathered in the sink when a worker dies is lost, and its successor has to ask for it.
    #[inline]
    pub fn keep_positions(&mut self) {
        while let Some((key, encoding)) = self.unkept.pop() {
            if let Some(producer) = self.producers.get_mut(key) {
                let stream = &mut producer.streams[usize::from(encoding)];
                stream.is_unkept = false;
                stream.keep_position(&self.page);
            }
        }
    }

    /// A producer is gone, and nothing of it is kept any more.
    pub(super) fn forget_kept_streams(&mut self, producer: &Producer) {
        for stream in &producer.streams {
            self.page.leave(Table::Streams, stream.page);
        }
    }
}

/// What the latest page says that says something.
fn latest<P, T>(
    pages: impl IntoIterator<Item = P>,
    mut read: impl FnMut(P) -> Result<Option<T>, Damaged>,
) -> Result<Option<T>, Damaged> {
    pages.into_iter().find_map(|page| read(page).transpose()).transpose()
}

/// By what a consumer is known in a page.
#[derive(Clone, Copy)]
pub(super) struct ConsumerIdentity {
    pub(super) consumer: ConsumerId,
    pub(super) room: RoomId,
    pub(super) producer: ProducerId,
    pub(super) ssrc: u32,
    pub(super) rtx_ssrc: Option<u32>,
    /// It outlives its producers.
    pub(super) is_lasting: bool,
}

impl ConsumerIdentity {
    /// Of the consumer that a request makes.
    pub(super) fn of(request: &CreateConsumer) -> Self {
        Self {
            consumer: request.consumer,
            room: request.room,
            producer: request.producer,
            ssrc: request.ssrc,
            rtx_ssrc: request.rtx.as_ref().map(|rtx| rtx.ssrc),
            is_lasting: request.lasting_cname.is_some(),
        }
    }

    /// What its slot says beside its id: its SSRCs.
    fn detail(self) -> u64 {
        u64::from(self.ssrc) | u64::from(self.rtx_ssrc.unwrap_or(0)) << 32
    }
}
