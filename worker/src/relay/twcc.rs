//! Transport-wide feedback: a transport's sender learns which of its packets have come, and when, so that it can find out
//! how much the path to us carries (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! All packets of a transport share one space of numbers, which they carry in a header extension; having the extension
//! listed is all the negotiation there is. Every packet that the remote sent counts, also what nobody gets: retransmissions
//! that come too late, padding that only probes the path, and streams that no producer has, which are read with the
//! extension's id if the transport's producers agree on one.
//!
//! **When**: a packet waits for 50 ms at most to be reported, and feedback then covers all that has come; but as long as
//! what waits is so little that the feedback would be more than a twentieth of it, for 100 ms. (libwebrtc's receiver spends
//! the same share, at 50 to 250 ms.) Feedback is sent on a grid of 10 ms, as reports do, so that transports share turns. When the numbers have
//! moved on by half of those that are remembered, what waits is reported at once.
//!
//! **How exact**: a packet's arrival is the time that the relay is given with it, which is one for a whole receive batch:
//! packets that arrived while the worker was busy, or as one train, count as simultaneous, at the time of their reading.
//! So it is late by what a turn takes, usually far less than a millisecond. Feedback itself rounds to 250 µs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use weir_channel::message::ExtensionUri;

use crate::page::Page;
use crate::rtp::extension::elements;
use crate::rtp::packet::Header;
use crate::rtp::rtcp::twcc::FeedbackWriter;
use crate::time::Time;

use super::arrivals::{Arrivals, INTERVAL, TransportNumbered, on_grid};
use super::keys::TransportKey;
use super::producer::Producers;
use super::sink::Sink;
use super::transport::{Transport, Transports};

/// Transports that feedback is sent to in one turn: at 2 µs a packet, some 250 µs.
const TURN_TRANSPORTS_MAX: usize = 128;

/// What the feedback of all transports needs.
#[derive(Debug)]
pub(super) struct FeedbackQueue {
    /// When transports are due; those that are gone are passed over.
    due: BinaryHeap<Reverse<(Time, TransportKey)>>,
    /// Transports that collect arrivals.
    listening: usize,
    writer: FeedbackWriter,
}

impl FeedbackQueue {
    pub(super) fn new(ssrc: u32) -> Self {
        Self {
            due: BinaryHeap::new(),
            listening: 0,
            writer: FeedbackWriter::new(ssrc),
        }
    }

    pub(super) fn next_timeout(&self) -> Option<Time> {
        self.due.peek().map(|Reverse((due, _))| *due)
    }
}

impl FeedbackQueue {
    /// A transport has another producer, or one less: what its packets' extensions mean has changed.
    pub(super) fn refresh(&mut self, transport: &mut Transport, producers: &Producers) {
        let producers = || transport.producers.iter().map(|key| &producers[*key]);
        let mut ids = producers().filter_map(|producer| producer.transport_cc);
        let first = ids.next();
        // RFC 8843 §9.2 wants what shares a transport to agree on its ids. Who does not is understood as far as it goes.
        let is_shared = |id: &u8| {
            producers().all(|producer| {
                let meaning = producer.extension(*id);
                producer.transport_cc.is_none_or(|own| own == *id)
                    && meaning.is_none_or(|uri| uri == ExtensionUri::TransportWideCc)
            })
        };
        let shared_id = first.filter(is_shared);
        let reduced_size = producers()
            .filter(|producer| producer.transport_cc.is_some())
            .all(|producer| producer.reduced_size);
        transport.feedback.shared_id = shared_id;
        transport.feedback.reduced_size = reduced_size;
        if first.is_some() && !transport.feedback.is_listening() {
            transport.feedback.arrivals = Some(Box::default());
            // One entry for each, beside those of transports that are gone.
            self.listening += 1;
            self.due.reserve(self.listening);
        }
    }

    /// A transport is closed.
    pub(super) fn on_transport_left(&mut self, transport: &Transport) {
        self.listening -= usize::from(transport.feedback.is_listening());
    }

    /// A packet with a transport sequence number has come.
    pub(super) fn on_packet(
        &mut self,
        now: Time,
        key: TransportKey,
        transport: &mut Transport,
        packet: TransportNumbered,
        page: &Page,
        sink: &mut impl Sink,
    ) {
        let Some(mut arrivals) = transport.feedback.arrivals.take() else {
            return;
        };
        let place = arrivals.place(now, packet.number);
        if arrivals.would_forget(place) {
            report(&mut self.writer, transport, &mut arrivals, page, sink);
        }
        if arrivals.note(now, place, &packet) && !std::mem::replace(&mut arrivals.is_queued, true) {
            // Whether there is enough by then is seen then.
            let due = on_grid(arrivals.first_at + INTERVAL);
            self.due.push(Reverse((due, key)));
        }
        transport.feedback.arrivals = Some(arrivals);
    }

    /// Sends the feedback that is due, a turn's worth of it.
    pub(super) fn send(&mut self, now: Time, transports: &mut Transports, page: &Page, sink: &mut impl Sink) {
        for _ in 0..TURN_TRANSPORTS_MAX {
            let first = self.due.peek().copied();
            let Some(Reverse((_, key))) = first.filter(|Reverse((due, _))| *due <= now) else {
                return;
            };
            self.due.pop();
            let Some(transport) = transports.get_mut(key) else {
                continue;
            };
            let Some(mut arrivals) = transport.feedback.arrivals.take() else {
                continue;
            };
            // It is little, or what was queued first has been sent early.
            let due = arrivals.due();
            arrivals.is_queued = arrivals.waiting > 0 && due > now;
            if arrivals.is_queued {
                self.due.push(Reverse((due, key)));
            } else if arrivals.waiting > 0 {
                report(&mut self.writer, transport, &mut arrivals, page, sink);
            }
            transport.feedback.arrivals = Some(arrivals);
        }
    }
}

/// The transport sequence number of a packet, under the extension's id.
pub(super) fn transport_seq(id: u8, header: &Header, packet: &[u8]) -> Option<u16> {
    let element = elements(packet, header.extension?).find(|element| element.id == id)?;
    let number = element.value(packet).try_into().ok()?;
    Some(u16::from_be_bytes(number))
}

/// Sends a transport's sender what has come.
fn report(
    writer: &mut FeedbackWriter,
    transport: &mut Transport,
    arrivals: &mut Arrivals,
    page: &Page,
    sink: &mut impl Sink,
) {
    if transport.has_rtcp_remote() {
        let reduced_size = transport.feedback.reduced_size;
        arrivals.write(writer, transport.feedback.next, |packet, next| {
            transport.feedback.next = next;
            transport.keep_feedback(page, next);
            transport.send_rtcp(packet, reduced_size, sink);
        });
    }
    arrivals.on_reported();
}
