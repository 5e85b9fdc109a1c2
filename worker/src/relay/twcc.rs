//! Transport-wide feedback: a transport's sender is told which of its packets have come, and when, so that it can find out
//! how much the way to us carries (draft-holmer-rmcat-transport-wide-cc-extensions-01).
//!
//! All packets of a transport share one space of numbers, which they carry in a header extension; having the extension
//! listed is all the negotiation there is. Every packet that the remote sent counts, also what nobody gets: retransmissions
//! that come too late, padding that only probes the way, and streams that no producer has, which are read with the
//! extension's id if the transport's producers agree on one.
//!
//! **When**: a packet waits for 50 ms at most to be reported, and feedback then covers all that has come; but as long as
//! what waits is so little that the feedback would be more than a twentieth of it, for 100 ms. (libwebrtc's receiver spends
//! the same share, at 50 to 250 ms.) Moments lie on a grid of 10 ms, as reports do, so that transports share turns. When the numbers have
//! moved on by half of those that are remembered, what waits is reported at once.
//!
//! **How exact**: a packet's arrival is the time that the relay is given with it, which is one for a whole receive batch:
//! packets that arrived while the worker was busy, or as one train, count as simultaneous, at the time of their reading.
//! So it is late by what a turn takes, usually far less than a millisecond. Feedback itself rounds to 250 µs.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use weir_channel::message::ExtensionUri;

use crate::rtp::extension::elements;
use crate::rtp::packet::Header;
use crate::rtp::rtcp::reduced_size;
use crate::rtp::rtcp::twcc::FeedbackWriter;
use crate::time::Time;

use super::Relay;
use super::keys::{ProducerKey, TransportKey};
use super::report::has_rtcp_remote;
use super::sink::Sink;
use super::transport::Transport;

/// How long a packet waits to be reported.
pub const INTERVAL: Duration = Duration::from_millis(50);

/// How long, while little comes.
pub const INTERVAL_MAX: Duration = Duration::from_millis(100);

/// What is little: twenty times the bytes of a feedback packet of a few statuses, as it is on the wire.
pub const LITTLE_BYTES: u32 = 20 * 68;

/// Moments of feedback are multiples of this.
const GRID_NS: u64 = 10_000_000;

/// Transports that are told in one turn: at 2 µs a packet, some 250 µs.
const TURN_TRANSPORTS_MAX: usize = 128;

/// The last numbers of which it is remembered whether and when they came. At 2,000 packets a second, half a second.
pub const ARRIVALS_MAX: usize = 1_024;

/// The most numbers that wait to be reported; the other half is for what comes late.
const WAITING_MAX: u64 = ARRIVALS_MAX as u64 / 2;

/// How far behind a number that is not believed the next one may be, so that both are.
const RESTART_STEP_MAX: u16 = 16;

const TICK_NS: u64 = 250_000;

/// What the feedback of all transports needs.
#[derive(Debug)]
pub(super) struct FeedbackQueue {
    /// When transports are due; those that are gone are passed over.
    due: BinaryHeap<Reverse<(Time, TransportKey)>>,
    /// Transports that have been told to listen.
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

/// What a transport's feedback needs.
#[derive(Debug, Default)]
pub(super) struct TransportFeedback {
    /// The extension's id in packets of unknown streams.
    shared_id: Option<u8>,
    /// Its senders take feedback that is not in a compound packet (RFC 5506).
    reduced_size: bool,
    /// Since the first producer that has the extension.
    arrivals: Option<Box<Arrivals>>,
}

impl TransportFeedback {
    /// Whether there may be something to note.
    #[inline]
    pub(super) fn is_listening(&self) -> bool {
        self.arrivals.is_some()
    }
}

/// A packet that carries a transport sequence number.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransportNumbered {
    pub number: u16,
    pub ssrc: u32,
    /// It is of a producer's media.
    pub is_media: bool,
    pub len: usize,
}

impl Relay {
    /// A transport has another producer, or one less: what its packets' extensions mean has changed.
    pub(super) fn refresh_feedback(&mut self, key: TransportKey) {
        let transport = &mut self.transports[key];
        let producers = || transport.producers.iter().map(|key| &self.producers[*key]);
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
            self.feedback.listening += 1;
            self.feedback.due.reserve(self.feedback.listening);
        }
    }

    /// A transport is closed.
    pub(super) fn on_feedback_left(&mut self, transport: &Transport) {
        self.feedback.listening -= usize::from(transport.feedback.is_listening());
    }

    /// The transport sequence number of a packet, of a producer or of nobody.
    pub(super) fn transport_seq(
        &self,
        transport: TransportKey,
        producer: Option<ProducerKey>,
        header: &Header,
        packet: &[u8],
    ) -> Option<u16> {
        let id = match producer {
            Some(producer) => self.producers[producer].transport_cc,
            None => self.transports[transport].feedback.shared_id,
        }?;
        let element = elements(packet, header.extension?).find(|element| element.id == id)?;
        let number = element.value(packet).try_into().ok()?;
        Some(u16::from_be_bytes(number))
    }

    /// Notes that a packet has come.
    pub(super) fn on_transport_seq(
        &mut self,
        now: Time,
        key: TransportKey,
        packet: TransportNumbered,
        sink: &mut impl Sink,
    ) {
        let transport = &mut self.transports[key];
        let Some(mut arrivals) = transport.feedback.arrivals.take() else {
            return;
        };
        let place = arrivals.place(now, packet.number);
        if arrivals.would_forget(place) {
            report(&mut self.feedback.writer, transport, &mut arrivals, sink);
        }
        if arrivals.note(now, place, &packet) && !std::mem::replace(&mut arrivals.is_queued, true) {
            // Whether there is enough by then is seen then.
            let due = on_grid(arrivals.first_at + INTERVAL);
            self.feedback.due.push(Reverse((due, key)));
        }
        transport.feedback.arrivals = Some(arrivals);
    }

    /// Sends the feedback that is due, a turn's worth of it.
    pub(super) fn send_feedback(&mut self, now: Time, sink: &mut impl Sink) {
        for _ in 0..TURN_TRANSPORTS_MAX {
            let first = self.feedback.due.peek().copied();
            let Some(Reverse((_, key))) = first.filter(|Reverse((due, _))| *due <= now) else {
                return;
            };
            self.feedback.due.pop();
            let Some(transport) = self.transports.get_mut(key) else {
                continue;
            };
            let Some(mut arrivals) = transport.feedback.arrivals.take() else {
                continue;
            };
            // It is little, or what was queued first has been sent early.
            let due = arrivals.due();
            arrivals.is_queued = arrivals.waiting > 0 && due > now;
            if arrivals.is_queued {
                self.feedback.due.push(Reverse((due, key)));
            } else if arrivals.waiting > 0 {
                report(&mut self.feedback.writer, transport, &mut arrivals, sink);
            }
            transport.feedback.arrivals = Some(arrivals);
        }
    }
}

/// Tells a transport's sender what has come.
fn report(writer: &mut FeedbackWriter, transport: &mut Transport, arrivals: &mut Arrivals, sink: &mut impl Sink) {
    if has_rtcp_remote(transport) {
        arrivals.write(writer, |packet| {
            let packet = if transport.feedback.reduced_size {
                reduced_size(packet)
            } else {
                packet
            };
            transport.counters.rtcp_sent += 1;
            sink.send_rtcp(transport.index, packet);
        });
    }
    arrivals.on_reported();
}

fn on_grid(moment: Time) -> Time {
    Time(moment.0 - moment.0 % GRID_NS)
}

fn ticks(moment: Time) -> u32 {
    (moment.0 / TICK_NS) as u32 // modulo 2³², as it is written
}

/// When a transport's last packets came.
#[derive(Debug)]
struct Arrivals {
    /// By number modulo their count.
    ticks: [u32; ARRIVALS_MAX],
    /// Likewise, a bit each: it has come.
    came: [u64; ARRIVALS_MAX / 64],
    /// The newest number, extended; 0 before the first packet. The low 16 bits are always those of the packet.
    newest: u64,
    /// The next report begins with this one: behind the last one's end, or with what came late.
    from: u64,
    /// Packets that have come and were not reported.
    waiting: u32,
    /// Their bytes.
    waiting_bytes: u32,
    /// When the first of them came, and what the newest number was then.
    first_at: Time,
    first: u64,
    /// A number that is far from all others, and when it came.
    suspect: Option<(u16, Time)>,
    /// Feedback packets sent; wraps.
    count: u8,
    /// The last packet's SSRC, of media if there was any: senders look at feedback only if it names a stream of theirs.
    ssrc: u32,
    ssrc_is_media: bool,
    is_queued: bool,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            ticks: [0; ARRIVALS_MAX],
            came: [0; ARRIVALS_MAX / 64],
            newest: 0,
            from: 0,
            waiting: 0,
            waiting_bytes: 0,
            first_at: Time::default(),
            first: 0,
            suspect: None,
            count: 0,
            ssrc: 0,
            ssrc_is_media: false,
            is_queued: false,
        }
    }
}

/// Where a number lies among those that came before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Place {
    /// Newer than the newest.
    Ahead(u64),
    /// Among those that are remembered.
    Behind(u64),
    /// Far behind: the sender has begun anew, with this number and the one before it, which came then.
    Restart(u64, Option<(u64, Time)>),
    /// Far behind, and nothing else tells of that yet.
    Doubtful,
}

impl Arrivals {
    /// Finds the place of a number.
    fn place(&mut self, now: Time, number: u16) -> Place {
        const REMEMBERED: u16 = ARRIVALS_MAX as u16;
        if self.newest == 0 {
            // So that what is older stays above 0.
            return Place::Restart(1 << 16 | u64::from(number), None);
        }
        let ahead = number.wrapping_sub(self.newest as u16);
        let suspect = self.suspect.take();
        if (1..1 << 15).contains(&ahead) {
            return Place::Ahead(self.newest + u64::from(ahead));
        }
        let behind = ahead.wrapping_neg();
        if behind < REMEMBERED {
            return Place::Behind(self.newest - u64::from(behind));
        }
        if let Some((first, at)) = suspect
            && (1..=RESTART_STEP_MAX).contains(&number.wrapping_sub(first))
        {
            // In a cycle that nothing was in.
            let first_ext = ((self.newest >> 16) + 2) << 16 | u64::from(first);
            let step = number.wrapping_sub(first);
            return Place::Restart(first_ext + u64::from(step), Some((first_ext, at)));
        }
        self.suspect = Some((number, now));
        Place::Doubtful
    }

    /// Whether something that was not reported could be forgotten. What came so late that it is forgotten all the same is
    /// worth no packet of its own.
    fn would_forget(&self, place: Place) -> bool {
        self.waiting > 0
            && match place {
                Place::Ahead(number) => number - self.first >= WAITING_MAX,
                Place::Restart(..) => true,
                Place::Behind(_) | Place::Doubtful => false,
            }
    }

    /// Notes a packet; whether there is something to report.
    fn note(&mut self, now: Time, place: Place, packet: &TransportNumbered) -> bool {
        if packet.is_media || !self.ssrc_is_media {
            self.ssrc = packet.ssrc;
            self.ssrc_is_media = packet.is_media;
        }
        let number = match place {
            Place::Ahead(number) => {
                self.move_to(number);
                number
            }
            Place::Behind(number) if !self.came(number) => {
                self.from = self.from.min(number);
                number
            }
            Place::Restart(number, before) => {
                self.came.fill(0);
                let (first, at) = before.unwrap_or((number, now));
                (self.newest, self.from) = (first, first);
                self.set(first, at);
                self.move_to(number);
                number
            }
            Place::Behind(_) | Place::Doubtful => return self.waiting > 0,
        };
        self.set(number, now);
        if self.waiting == 0 {
            self.first_at = now;
            self.first = self.newest;
            self.waiting_bytes = 0;
        }
        self.waiting += 1;
        self.waiting_bytes = self.waiting_bytes.saturating_add(packet.len as u32);
        true
    }

    /// Goes on to a newer number, and forgets what is further back than what is remembered.
    fn move_to(&mut self, number: u64) {
        if number - self.newest >= ARRIVALS_MAX as u64 {
            self.came.fill(0);
        } else {
            for passed in self.newest + 1..=number {
                self.came[word(passed)] &= !bit(passed);
            }
        }
        self.newest = number;
        self.from = self.from.max(number + 1 - ARRIVALS_MAX as u64);
    }

    fn set(&mut self, number: u64, at: Time) {
        self.came[word(number)] |= bit(number);
        self.ticks[number as usize % ARRIVALS_MAX] = ticks(at);
    }

    /// Whether a number that is remembered has come.
    fn came(&self, number: u64) -> bool {
        self.came[word(number)] & bit(number) != 0
    }

    /// When to report.
    fn due(&self) -> Time {
        let is_little = self.waiting_bytes < LITTLE_BYTES;
        on_grid(self.first_at + if is_little { INTERVAL_MAX } else { INTERVAL })
    }

    /// Writes what is to be reported, as one packet or several.
    fn write(&mut self, writer: &mut FeedbackWriter, mut each: impl FnMut(&[u8])) {
        let mut number = self.from;
        while number <= self.newest {
            writer.begin(number as u16);
            while number <= self.newest {
                let arrival = self.came(number).then(|| self.ticks[number as usize % ARRIVALS_MAX]);
                if !writer.push(arrival) {
                    break;
                }
                number += 1;
            }
            // A packet is full of arrivals, or ends with the newest number, which has come.
            if !writer.has_arrivals() {
                return;
            }
            each(writer.finish(self.ssrc, self.count));
            self.count = self.count.wrapping_add(1);
        }
    }

    fn on_reported(&mut self) {
        self.from = self.newest + 1;
        self.waiting = 0;
    }
}

fn word(number: u64) -> usize {
    number as usize % ARRIVALS_MAX / 64
}

fn bit(number: u64) -> u64 {
    1 << (number % 64)
}
