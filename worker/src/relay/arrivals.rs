//! Which packets of a transport have come, and when: what transport-wide feedback says ([`twcc`](super::twcc)).

use std::time::Duration;

use crate::rtp::bit_ring::BitRing;
use crate::rtp::rtcp::twcc::FeedbackWriter;
use crate::time::Time;

/// How long a packet waits to be reported.
pub const INTERVAL: Duration = Duration::from_millis(50);

/// How long, while little comes.
pub const INTERVAL_MAX: Duration = Duration::from_millis(100);

/// What is little: twenty times the bytes of a feedback packet of a few statuses, as it is on the wire.
pub const LITTLE_BYTES: u32 = 20 * 68;

/// The times of feedback are multiples of this.
const GRID_NS: u64 = 10_000_000;

/// The last numbers of which it is remembered whether and when they came. At 2,000 packets a second, half a second.
pub const ARRIVALS_MAX: usize = 1_024;

/// The most numbers that wait to be reported; the other half is for what comes late.
const WAITING_MAX: u64 = ARRIVALS_MAX as u64 / 2;

/// How far behind a number that is not believed the next one may be, so that both are.
const RESTART_STEP_MAX: u16 = 16;

const TICK_NS: u64 = 250_000;

/// What a transport's feedback needs.
#[derive(Debug, Default)]
pub(super) struct TransportFeedback {
    /// The extension's id in packets of unknown streams.
    pub(super) shared_id: Option<u8>,
    /// Its senders take feedback that is not in a compound packet (RFC 5506).
    pub(super) reduced_size: bool,
    /// The number of the next feedback packet; wraps.
    pub(super) next: u8,
    /// Since the first producer that has the extension.
    pub(super) arrivals: Option<Box<Arrivals>>,
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

/// The last time up to this one at which feedback is sent.
pub(super) fn on_grid(time: Time) -> Time {
    Time(time.0 - time.0 % GRID_NS)
}

fn ticks(time: Time) -> u32 {
    (time.0 / TICK_NS) as u32 // modulo 2³², as it is written
}

/// When a transport's last packets came.
#[derive(Debug)]
pub(super) struct Arrivals {
    /// By number modulo their count.
    ticks: [u32; ARRIVALS_MAX],
    /// Likewise, a bit each: it has come.
    came: BitRing<{ ARRIVALS_MAX / 64 }>,
    /// The newest number, extended; 0 before the first packet. The low 16 bits are always those of the packet.
    newest: u64,
    /// The next report begins with this one: behind the last one's end, or with what came late.
    from: u64,
    /// Packets that have come and were not reported.
    pub(super) waiting: u32,
    /// The bytes of those packets.
    waiting_bytes: u32,
    /// When the first of them came, and what the newest number was then.
    pub(super) first_at: Time,
    first: u64,
    /// A number that is far from all others, and when it came.
    suspect: Option<(u16, Time)>,
    /// The last packet's SSRC, of media if there was any: senders look at feedback only if it names a stream of theirs.
    ssrc: u32,
    ssrc_is_media: bool,
    pub(super) is_queued: bool,
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            ticks: [0; ARRIVALS_MAX],
            came: BitRing::default(),
            newest: 0,
            from: 0,
            waiting: 0,
            waiting_bytes: 0,
            first_at: Time::default(),
            first: 0,
            suspect: None,
            ssrc: 0,
            ssrc_is_media: false,
            is_queued: false,
        }
    }
}

/// Where a number lies among those that came before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// Newer than the newest.
    Ahead(u64),
    /// Among those that are remembered.
    Behind(u64),
    /// Far behind: the sender has begun anew, with this number and the one before it, which came then.
    Restart(u64, Option<(u64, Time)>),
    /// Far behind, and no other packet confirms it yet.
    Doubtful,
}

impl Arrivals {
    /// Finds the place of a number.
    pub(super) fn place(&mut self, now: Time, number: u16) -> Place {
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
    pub(super) fn would_forget(&self, place: Place) -> bool {
        self.waiting > 0
            && match place {
                Place::Ahead(number) => number - self.first >= WAITING_MAX,
                Place::Restart(..) => true,
                Place::Behind(_) | Place::Doubtful => false,
            }
    }

    /// Notes a packet; whether there is something to report.
    pub(super) fn note(&mut self, now: Time, place: Place, packet: &TransportNumbered) -> bool {
        if packet.is_media || !self.ssrc_is_media {
            self.ssrc = packet.ssrc;
            self.ssrc_is_media = packet.is_media;
        }
        let number = match place {
            Place::Ahead(number) => {
                self.move_to(number);
                number
            }
            Place::Behind(number) if !self.came.contains(number) => {
                self.from = self.from.min(number);
                number
            }
            Place::Restart(number, before) => {
                self.came = BitRing::default();
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
        self.came.remove_range(self.newest + 1..number + 1);
        self.newest = number;
        self.from = self.from.max(number + 1 - ARRIVALS_MAX as u64);
    }

    fn set(&mut self, number: u64, at: Time) {
        self.came.insert(number);
        self.ticks[number as usize % ARRIVALS_MAX] = ticks(at);
    }

    /// When to report.
    pub(super) fn due(&self) -> Time {
        let is_little = self.waiting_bytes < LITTLE_BYTES;
        on_grid(self.first_at + if is_little { INTERVAL_MAX } else { INTERVAL })
    }

    /// Writes what is to be reported, as one packet or several. `next`: the number of the first one. `each` is given the number of the one
    /// after it, too.
    pub(super) fn write(&mut self, writer: &mut FeedbackWriter, mut next: u8, mut each: impl FnMut(&[u8], u8)) {
        let mut number = self.from;
        while number <= self.newest {
            writer.begin(number as u16);
            while number <= self.newest {
                let arrival = self
                    .came
                    .contains(number)
                    .then(|| self.ticks[number as usize % ARRIVALS_MAX]);
                if !writer.push(arrival) {
                    break;
                }
                number += 1;
            }
            // A packet is full of arrivals, or ends with the newest number, which has come.
            if !writer.has_arrivals() {
                return;
            }
            let packet = writer.finish(self.ssrc, next);
            next = next.wrapping_add(1);
            each(packet, next);
        }
    }

    pub(super) fn on_reported(&mut self) {
        self.from = self.newest + 1;
        self.waiting = 0;
    }
}
