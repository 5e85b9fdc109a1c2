//! Whether a packet goes on with what its stream has sent, or begins something new: judged by number, timestamp and arrival
//! together, since none of them is enough by itself.
//!
//! RFC 3550 appendix A.1 goes by numbers alone: far away twice in a row is a restart. Real senders start over with numbers
//! *near* the old ones, so that the new run looks late, doubled, or ahead by a loss. What gives it away is its clock, which
//! begins anywhere (§5.1), or that other things than before come under its numbers.
//!
//! ```text
//!   fits ─────────────────────────────────────────────▶ Fits
//!   does not ──▶ Hold ──the next of its run──▶ Restart   (numbers elsewhere: joined to the old ones)
//!                  │                      └──▶ Clock     (numbers go on, the clock is another one)
//!                  ├──the stream goes on──▶ Passed       (it was an accident)
//!                  └──something else──────▶ Displaced
//! ```
//!
//! Whatever does not fit is held until it is believed or not, so that nothing of a new run is lost, least of all the head
//! of the key frame that opens it. Pure: packets are neither kept nor changed here.

use std::time::Duration;

use crate::time::Time;

use super::seq::{MAX_DROPOUT, MAX_MISORDER, distance, later, ticks_between};

/// The next packet in order may have a timestamp so much later, whatever time has gone by: a sender that was asleep, a seek.
/// A random one is so near in 3 of 100 cases.
const LEAP: i64 = 1 << 27;

/// How much faster than time a clock may go after a loss, in seconds: bursts, and what was queued on the path.
const AHEAD_SECS: i64 = 5;

/// How far timestamps go back in order, in seconds: pictures are sent in the order of decoding, sixteen before their turn at
/// most. A file that begins again goes back further.
const BACK_SECS: i64 = 1;

/// How late a packet may be, in seconds.
const LATE_SECS: i64 = 10;

/// A run has packets of these numbers from its newest one.
const RUN_GAP: i32 = 16;

/// A clock that goes back to where it began is the same file once more, also if so many packets before it are lost.
const LOOP_GAP: i32 = 100;

/// A packet that comes twice comes so soon after the newest. What comes later *looks* as if it had come before: a sixteenth
/// of all packets does ([`super::received::PayloadDigests`]), and files begin alike.
const DOUBLED_WITHIN: Duration = Duration::from_millis(200);

/// A sender that has been silent for so long,
const ALL_OVER_AFTER: Duration = Duration::from_secs(5);

/// and then sends so many packets in a row that have come before, sends the same file again from its beginning.
const ALL_OVER_PACKETS: u32 = 32;

/// Packets of a run may still come so long after the next one began.
const STRAGGLERS_FOR: Duration = Duration::from_secs(1);

/// What of a packet shows whether it continues its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PacketTiming {
    /// Its sequence number.
    pub seq: u16,
    /// Its timestamp, on the clock of the stream (see [`super::seq::MediaClock::shifted`]).
    pub timestamp: u32,
    /// When it came.
    pub at: Time,
}

/// What is known of a number that is not newer than the newest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Known {
    /// Nothing has come under it.
    New,
    /// This packet has.
    Same,
    /// Another packet has.
    Other,
    /// It is from long before the stream's first packet, or the last restart's.
    Foreign,
}

/// What a packet is to its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It goes on with it, or is late, or came before. What its number says holds.
    Fits,
    /// It does not fit, and the next packets will show what it is.
    Hold,
    /// It fits, and what was held was an accident: the stream has gone on. The held packets come first.
    Passed,
    /// It fits neither the stream nor what is held, which no packet has confirmed. Hold it instead.
    Displaced,
    /// The sender has started over with what was held, the first of it by its number; this packet goes on with it.
    Restart,
    /// The sender's clock is another one since what was held, which goes on with the stream's numbers, and so does this
    /// packet. So many ticks are to be added to their timestamps, modulo 2³², and to all that follow.
    Clock(u32),
    /// It is none of the stream's: from before it started over, or held already.
    Refuse,
}

/// The state from which the packets of one stream are judged. What every packet needs comes last.
#[derive(Clone, Debug, Default)]
#[repr(C)]
pub struct Continuity {
    /// The newest packet of the run before this one, and when this one was believed.
    previous_run: Option<(PacketTiming, Time)>,
    /// What is held; whether anything is, stands at its end.
    run: Option<Run>,
    /// The timestamp of the first packet since the sender or its clock has started over.
    begun: u32,
    /// The latest timestamp near that of the newest packet: pictures come in the order of decoding.
    highest: u32,
    /// Ticks from one number to the next, lately.
    pace: i32,
    /// Timestamp and arrival of the newest packet that fits.
    newest: Option<(u32, Time)>,
}

/// Packets that do not fit, but each other.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Run {
    /// By number.
    first: PacketTiming,
    newest: PacketTiming,
    packets: u32,
    /// Not all of them have come before.
    is_new: bool,
}

impl Run {
    /// Whether it is all that has come before once more, but from a sender that began again: a long run, after a long silence,
    /// at the pace of its own clock. What somebody repeats comes sooner, or faster, or is less.
    fn is_all_over(&self, before: PacketTiming, rate: i64) -> bool {
        let span = i64::from(ticks_between(self.first.timestamp, self.newest.timestamp));
        self.packets >= ALL_OVER_PACKETS
            && self.first.at.since(before.at) >= ALL_OVER_AFTER
            && (1..=2 * elapsed_ticks(self.first.at, self.newest.at, rate)).contains(&span)
    }
}

impl Continuity {
    /// Where the fields lie that every packet needs.
    #[cfg(test)]
    pub(crate) const HOT: std::ops::Range<usize> = std::mem::offset_of!(Self, begun) - 4..size_of::<Self>();

    /// Judges a packet of a stream whose newest number is `newest_seq`. `known` is asked for numbers that are not newer.
    #[inline]
    pub fn judge(
        &mut self,
        packet: PacketTiming,
        newest_seq: Option<u16>,
        clock_rate: u32,
        known: impl FnOnce() -> Known,
    ) -> Verdict {
        let (Some((newest, at)), Some(newest_seq)) = (self.newest, newest_seq) else {
            self.newest = Some((packet.timestamp, packet.at));
            self.highest = packet.timestamp;
            self.begun = packet.timestamp;
            self.pace = (clock_rate / 8) as i32;
            return Verdict::Fits;
        };
        let ahead = distance(newest_seq, packet.seq);
        let step = ticks_between(newest, packet.timestamp);
        let back = i64::from(clock_rate) * BACK_SECS;
        if ahead == 1 && self.run.is_none() && (-back..=LEAP).contains(&i64::from(step)) {
            let steady = i64::from(step).clamp(0, i64::from(clock_rate)) as i32;
            self.pace += (steady - self.pace) >> 4;
            self.go_on(packet, back);
            return Verdict::Fits;
        }
        let newest = PacketTiming {
            seq: newest_seq,
            timestamp: newest,
            at,
        };
        self.judge_other(packet, newest, i64::from(clock_rate), known)
    }

    /// The same for whatever is not simply the next one.
    fn judge_other(
        &mut self,
        packet: PacketTiming,
        newest: PacketTiming,
        rate: i64,
        known: impl FnOnce() -> Known,
    ) -> Verdict {
        let ahead = distance(newest.seq, packet.seq);
        let mut is_new = true;
        let fits = if (1..i32::from(MAX_DROPOUT)).contains(&ahead) {
            // After a silence both may be; then it goes on with what it is nearer to.
            let away = |from: PacketTiming| ticks_between(from.timestamp, packet.timestamp).unsigned_abs();
            let is_nearer = |run: Run| run.is_new && away(run.newest) < away(newest);
            self.is_later(newest, packet, rate) && !(self.run.is_some_and(is_nearer) && self.is_of_run(packet, rate))
        } else if (1 - i32::from(MAX_MISORDER)..=0).contains(&ahead) {
            match known() {
                Known::Foreign | Known::Other => false,
                Known::New => self.is_late(newest, packet, rate),
                Known::Same => {
                    is_new = false;
                    let is_soon = packet.at.since(newest.at) < DOUBLED_WITHIN;
                    is_soon && self.is_late(newest, packet, rate) && !self.is_of_run(packet, rate)
                }
            }
        } else {
            false
        };
        if fits && ahead <= 0 {
            return Verdict::Fits;
        }
        if fits {
            self.go_on(packet, rate * BACK_SECS);
            return if self.run.take().is_some() {
                Verdict::Passed
            } else {
                Verdict::Fits
            };
        }
        if self.is_straggler(packet, rate) || self.is_too_late(newest, packet, rate) {
            return Verdict::Refuse;
        }
        let run = Run {
            first: packet,
            newest: packet,
            packets: 1,
            is_new,
        };
        let Some(held) = self.run else {
            self.run = Some(run);
            return Verdict::Hold;
        };
        if held.newest.seq == packet.seq && held.newest.timestamp == packet.timestamp {
            return if is_new { Verdict::Refuse } else { Verdict::Fits };
        }
        if self.is_next(packet, held.newest, rate) {
            // In another order: it goes on with nothing yet.
            let is_first = distance(held.first.seq, packet.seq) < 0;
            self.run = Some(Run {
                first: if is_first { packet } else { held.first },
                is_new: held.is_new || is_new,
                ..held
            });
            return Verdict::Hold;
        }
        if !self.is_next(held.newest, packet, rate) {
            self.run = Some(run);
            return Verdict::Displaced;
        }
        let run = Run {
            newest: packet,
            packets: held.packets.saturating_add(1),
            is_new: held.is_new || is_new,
            ..held
        };
        if !run.is_new && !run.is_all_over(newest, rate) {
            self.run = Some(run);
            return Verdict::Hold;
        }
        self.accept_run(run, newest, rate)
    }

    /// A packet is the newest. `back`: how far timestamps go back in order.
    #[inline]
    fn go_on(&mut self, packet: PacketTiming, back: i64) {
        self.newest = Some((packet.timestamp, packet.at));
        let behind = i64::from(ticks_between(packet.timestamp, self.highest));
        if !(0..=back).contains(&behind) {
            self.highest = packet.timestamp;
        }
    }

    /// What is held goes on with the stream by its number, and for long nothing has come that says otherwise: then its clock is
    /// another one.
    pub fn resolve_after_wait(&mut self, newest_seq: u16, clock_rate: u32) -> Option<Verdict> {
        let (timestamp, at) = self.newest?;
        let run = self.run.filter(|run| distance(newest_seq, run.first.seq) == 1)?;
        let newest = PacketTiming {
            seq: newest_seq,
            timestamp,
            at,
        };
        Some(self.accept_run(run, newest, i64::from(clock_rate)))
    }

    /// What was held is where the stream goes on.
    fn accept_run(&mut self, run: Run, newest: PacketTiming, rate: i64) -> Verdict {
        self.run = None;
        let ahead = distance(newest.seq, run.first.seq);
        let is_loop = (2..=LOOP_GAP).contains(&ahead)
            && i64::from(ticks_between(self.begun, run.first.timestamp)).abs() <= rate * BACK_SECS;
        if ahead != 1 && !is_loop {
            self.begun = run.first.timestamp;
            self.highest = run.newest.timestamp;
            self.newest = Some((run.newest.timestamp, run.newest.at));
            self.previous_run = Some((newest, run.newest.at));
            return Verdict::Restart;
        }
        // By the time that went by, as there is nothing else; and time never stands still. Behind all that came: what is shown
        // last may have come before what is shown first.
        let elapsed = elapsed_ticks(newest.at, run.first.at, rate).max(1) as u32;
        let goes_on_at = later(self.highest, elapsed);
        let by = ticks_between(run.first.timestamp, goes_on_at).cast_unsigned();
        self.begun = goes_on_at;
        self.highest = later(run.newest.timestamp, by);
        self.newest = Some((self.highest, run.newest.at));
        self.previous_run = None;
        Verdict::Clock(by)
    }

    /// Whether a packet of a later number has a timestamp that the stream may have come to.
    fn is_later(&self, newest: PacketTiming, packet: PacketTiming, rate: i64) -> bool {
        let ahead = distance(newest.seq, packet.seq);
        let elapsed = elapsed_ticks(newest.at, packet.at, rate);
        let mut latest = (rate * AHEAD_SECS).saturating_add(elapsed.max(self.paced(ahead)));
        if ahead == 1 {
            latest = latest.max(LEAP);
        }
        // After so long a silence the clock may have come to anything.
        let went_round = elapsed >= 1 << 31;
        let step = i64::from(ticks_between(newest.timestamp, packet.timestamp));
        went_round || (-rate * BACK_SECS..=latest).contains(&step)
    }

    /// Whether a packet of an earlier number has a timestamp that the stream may have had.
    fn is_late(&self, newest: PacketTiming, packet: PacketTiming, rate: i64) -> bool {
        let behind = distance(packet.seq, newest.seq);
        let step = i64::from(ticks_between(newest.timestamp, packet.timestamp));
        (-rate * LATE_SECS - self.paced(behind)..=rate * BACK_SECS).contains(&step)
    }

    /// Whether a packet is late as its timestamp says, but by more numbers than are believed: fast streams have thousands in a
    /// second.
    fn is_too_late(&self, newest: PacketTiming, packet: PacketTiming, rate: i64) -> bool {
        let limit = i32::from(MAX_MISORDER);
        (limit..=2 * limit).contains(&distance(packet.seq, newest.seq))
            && packet.at.since(newest.at) < DOUBLED_WITHIN
            && ticks_between(newest.timestamp, packet.timestamp) < 0
            && self.is_late(newest, packet, rate)
    }

    /// Whether a packet is the next one of a run, or one after.
    fn is_next(&self, newest: PacketTiming, packet: PacketTiming, rate: i64) -> bool {
        (1..=RUN_GAP).contains(&distance(newest.seq, packet.seq)) && self.is_later(newest, packet, rate)
    }

    /// Whether a packet is the next one of what is held, or one after.
    fn is_of_run(&self, packet: PacketTiming, rate: i64) -> bool {
        self.run.is_some_and(|run| self.is_next(run.newest, packet, rate))
    }

    /// Whether a packet is of the run before this one.
    fn is_straggler(&self, packet: PacketTiming, rate: i64) -> bool {
        self.previous_run.is_some_and(|(newest, until)| {
            packet.at.since(until) < STRAGGLERS_FOR
                && (0..i32::from(MAX_MISORDER)).contains(&distance(packet.seq, newest.seq))
                && self.is_late(newest, packet, rate)
        })
    }

    /// How far the clock may go over so many packets: four times as far as it went lately.
    fn paced(&self, packets: i32) -> i64 {
        (4 * i64::from(packets) * i64::from(self.pace)).min(LEAP)
    }
}

/// The time between two packets, in ticks.
fn elapsed_ticks(from: Time, to: Time, rate: i64) -> i64 {
    let ticks = to.since(from).as_nanos() * rate.unsigned_abs() as u128 / 1_000_000_000;
    i64::try_from(ticks).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
