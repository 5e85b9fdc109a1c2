//! Sender reports whose answer shows that what is sent to an address arrives there.
//!
//! A receiver repeats the time of the last sender report that it got (RFC 3550 §6.4.1, LSR). If nobody can guess that time, and the report went
//! to one address alone, then who repeats it has received it there. So the time of such a report lies anywhere in the last hours, and its RTP
//! timestamp with it. It is as true as any other report, because it says of another instant where the media clock stood then, so receivers keep
//! sound and picture together by it.

use crate::rtp::rtcp::compound::SenderInfo;
use crate::time::{Time, middle_of};

use super::Relay;
use super::report::media_time;
use super::sink::TransportIx;

/// Times lie within 2^30 / 65,536 s, or 4.5 h. Receivers take timestamps for older ones within half of their 32 bits: 6.6 h of video.
const TIME_BITS: u32 = 30;

/// All of them are older than this, in 1/65,536 s: a minute. What is not is the time of a report that told the present, and no guess.
const AGE_MIN: u32 = 60 << 16;

/// The low 16 bits of a time, which are not repeated: half of them, so that what is, is the same however a receiver rounds.
const ROUNDED: u64 = 0x8000;

/// Reports that may be answered: with a second between them, as many as a slow link has under way.
const ANSWERABLE: usize = 5;

/// Times that were never sent to this remote. Who receives repeats none; who guesses finds the right one with a chance of 2^-26, and then
/// is believed no more until something is asked at another address.
const GUESSES_MAX: u8 = 4;

/// The most consumers whose reports are in one packet. Receivers answer for those that they have just heard.
const SOURCES_MAX: usize = 8;

/// Consumers looked at for them.
const CONSUMERS_LOOKED_AT: usize = 128;

/// What was asked at one address.
#[derive(Debug, Default)]
pub(super) struct Echo {
    /// The middle 32 bits of the reports' times; 0: none.
    times: [u32; ANSWERABLE],
    next: usize,
    guesses: u8,
}

impl Echo {
    fn on_sent(&mut self, time: u32) {
        self.times[self.next] = time;
        self.next = (self.next + 1) % ANSWERABLE;
    }

    /// Whether a time that a receiver repeats is one of them; `now` is an NTP time.
    pub(super) fn is_answered_by(&mut self, time: u32, now: u64) -> bool {
        let is_recent = middle_of(now).wrapping_sub(time) < AGE_MIN;
        if time == 0 || is_recent || self.guesses == GUESSES_MAX {
            return false;
        }
        let is_answered = self.times.contains(&time);
        if !is_answered {
            self.guesses += 1;
        }
        is_answered
    }
}

impl Relay {
    /// Writes a packet of sender reports that is to be sent to one address alone; it is empty if there is nothing to report. `random` must be
    /// such that nobody can guess it. When a receiver has answered, there is an [`Action::Echoed`](super::Action::Echoed).
    pub fn write_echo_request(&mut self, now: Time, transport: TransportIx, random: u32) -> &[u8] {
        let Some(key) = self.transport_key(transport) else {
            return &[];
        };
        let transport = &mut self.transports[key];
        let present = self.reports.wall_clock.ntp(now);
        let back = u64::from(AGE_MIN + (random >> (u32::BITS - TIME_BITS)));
        let ntp = present.wrapping_sub(back << 16) & !0xffff | ROUNDED;
        let mut sources = 0;
        for key in transport.consumers.iter().take(CONSUMERS_LOOKED_AT) {
            let consumer = &self.consumers[*key];
            let producer = &self.producers[consumer.producer];
            if consumer.sent() == 0 || consumer.paused || producer.paused {
                continue;
            }
            let Some(media) = media_time(now, &self.reports.clocks, consumer, producer) else {
                continue;
            };
            let rate = producer.main_codec(Some(consumer.last_payload_type)).clock_rate;
            let info = SenderInfo {
                ntp,
                rtp: media.wrapping_sub((back * u64::from(rate)) >> 16) as u32,
                packets: consumer.sent() as u32,
                octets: consumer.octets as u32,
            };
            let cname = consumer.transmission.cname(producer).as_bytes();
            if !self.reports.compound.push_sender_report(consumer.ssrc, cname, &info) {
                break;
            }
            sources += 1;
            if sources == SOURCES_MAX {
                break;
            }
        }
        if sources == 0 {
            return &[];
        }
        let echo = transport.reports.echo.get_or_insert_default();
        echo.on_sent(middle_of(ntp));
        self.reports.write_packet()
    }

    /// What was asked so far was asked at another address, or needs no answer any more.
    pub fn forget_echo_requests(&mut self, transport: TransportIx) {
        if let Some(key) = self.transport_key(transport) {
            self.transports[key].reports.echo = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 4_000_000_000 << 32;

    #[test]
    fn one_of_the_last_times_is_the_answer() {
        let mut echo = Echo::default();
        for time in 1..=7 {
            echo.on_sent(time);
        }
        assert!((3..=7).all(|time| echo.is_answered_by(time, NOW)));
        assert!(!echo.is_answered_by(2, NOW) && !echo.is_answered_by(0, NOW));
    }

    #[test]
    fn who_guesses_is_not_believed_when_it_is_right() {
        let mut echo = Echo::default();
        echo.on_sent(7);
        // What was told of the present by other reports is no guess.
        for ago in 0..59 {
            assert!(!echo.is_answered_by(middle_of(NOW) - (ago << 16), NOW));
        }
        for guess in 100..104 {
            assert!(!echo.is_answered_by(guess, NOW));
        }
        assert!(!echo.is_answered_by(7, NOW));
    }
}
