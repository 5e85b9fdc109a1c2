//! What we say in one go, and say again until it is answered (RFC 6347 §4.2.4).

use std::time::Duration;

use crate::time::Time;

use super::message::{Kind, put_fragment};
use super::reassembly;
use super::record::{Content, RecordLayer};
use crate::webrtc::dtls::settings::{MTU_BYTES, RETRANSMISSION_TIME};

/// The longest time between two transmissions: somebody waits for sound and picture, and a flight is two datagrams.
const RETRANSMISSION_TIME_MAX: Duration = Duration::from_millis(3_200);

/// A flight that was sent this often in vain may be too long for the path (RFC 6347 §4.1.1.1).
const LONG_SENT_MAX: u32 = 4;

/// The longest datagram then: what every IPv4 host takes, less the headers of IP and UDP.
const SHORT_MTU_BYTES: usize = 548;

/// A request for a cookie is a fraction of the hello that it answers; this many are not more than three times as much,
/// if it is one that offers what we have.
const VERIFY_REQUESTS_MAX: u32 = 6;

/// One thing to say.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Item {
    Handshake {
        epoch: u16,
        kind: Kind,
        number: u16,
        body: Vec<u8>,
    },
    ChangeCipherSpec,
}

/// When a flight is sent again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Repeat {
    /// Until it is answered.
    UntilAnswered,
    /// A few times: a request for a cookie. RFC 6347 §4.2.1 would leave all repeating to the client, whose timer is a second and doubles;
    /// but a server that has checked the client by ICE has a state for it anyway, and peers drop the second as a repetition.
    FewTimes,
    /// When the peer says again what it answered: the last flight of all.
    WhenAsked,
}

/// What was said last.
#[derive(Debug)]
pub(super) struct Flight {
    items: Vec<Item>,
    repeat: Repeat,
    sent: u32,
    sent_at: Time,
    interval: Duration,
}

impl Flight {
    pub(super) fn new(items: Vec<Item>, repeat: Repeat) -> Self {
        Self {
            items,
            repeat,
            sent: 0,
            sent_at: Time(0),
            interval: RETRANSMISSION_TIME,
        }
    }

    /// When it must be sent again.
    pub(super) fn due(&self) -> Option<Time> {
        let repeats = match self.repeat {
            Repeat::UntilAnswered => true,
            Repeat::FewTimes => self.sent < VERIFY_REQUESTS_MAX,
            Repeat::WhenAsked => false,
        };
        repeats.then(|| self.sent_at + self.interval)
    }

    /// Whether a peer that has said something again gets this again. It may have lost it, or our answer is on its way.
    pub(super) fn may_answer_repetition(&self, now: Time) -> bool {
        let pause = match self.repeat {
            // A datagram of its flight each: a peer with a slow timer should not lose our last word twice.
            Repeat::WhenAsked => RETRANSMISSION_TIME / 20,
            Repeat::UntilAnswered | Repeat::FewTimes => RETRANSMISSION_TIME / 2,
        };
        now >= self.sent_at + pause
    }

    /// Sends it, for the first time or again; `timer_fired` if nobody asked for it.
    pub(super) fn send(
        &mut self,
        now: Time,
        timer_fired: bool,
        records: &mut RecordLayer,
        mut send: impl FnMut(Vec<u8>),
    ) {
        if timer_fired {
            self.interval = (self.interval * 2).min(RETRANSMISSION_TIME_MAX);
        }
        let mtu = if self.sent < LONG_SENT_MAX {
            MTU_BYTES
        } else {
            SHORT_MTU_BYTES
        };
        self.sent += 1;
        self.sent_at = now;
        let mut datagram = Vec::with_capacity(mtu);
        let mut fragment = Vec::new();
        for item in &self.items {
            match item {
                Item::ChangeCipherSpec => {
                    if datagram.len() + records.overhead(0) + 1 > mtu {
                        send(std::mem::take(&mut datagram));
                    }
                    records.write(Content::ChangeCipherSpec, 0, &[1], &mut datagram);
                }
                Item::Handshake {
                    epoch,
                    kind,
                    number,
                    body,
                } => {
                    let overhead = records.overhead(*epoch) + reassembly::HEADER_LEN;
                    let mut at = 0;
                    loop {
                        let rest = body.len() - at;
                        // A fragment of a few bytes is not worth its headers.
                        if datagram.len() + overhead + rest.min(overhead) > mtu && !datagram.is_empty() {
                            send(std::mem::take(&mut datagram));
                            continue;
                        }
                        let len = rest.min(mtu - datagram.len() - overhead);
                        fragment.clear();
                        put_fragment(&mut fragment, *kind, *number, body, at..at + len);
                        records.write(Content::Handshake, *epoch, &fragment, &mut datagram);
                        at += len;
                        if at == body.len() {
                            break;
                        }
                    }
                }
            }
        }
        if !datagram.is_empty() {
            send(datagram);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reassembly::{Reassembly, fragments};
    use super::super::record::records;
    use super::*;

    fn item(kind: Kind, number: u16, len: usize) -> Item {
        Item::Handshake {
            epoch: 0,
            kind,
            number,
            body: (0..len).map(|at| at as u8).collect(),
        }
    }

    fn send(flight: &mut Flight, now: Time, layer: &mut RecordLayer) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        flight.send(now, true, layer, |datagram| sent.push(datagram));
        sent
    }

    #[test]
    fn a_flight_is_cut_to_fit_and_put_together_again() {
        for len in (0..3_000).step_by(7) {
            let items = vec![
                item(Kind::ServerHello, 0, 80),
                item(Kind::Certificate, 1, len),
                item(Kind::ServerHelloDone, 2, 0),
                Item::ChangeCipherSpec,
            ];
            let mut flight = Flight::new(items, Repeat::UntilAnswered);
            let mut layer = RecordLayer::default();
            for attempt in 0..6 {
                let mtu = if attempt < LONG_SENT_MAX {
                    MTU_BYTES
                } else {
                    SHORT_MTU_BYTES
                };
                let mut reassembly = Reassembly::default();
                let datagrams = send(&mut flight, Time(0), &mut layer);
                assert!(datagrams.len() <= len / (mtu - 50) + 2, "{len}: {}", datagrams.len());
                for datagram in &datagrams {
                    assert!(datagram.len() <= mtu);
                    for record in records(datagram).filter(|record| record.content == Content::Handshake) {
                        for fragment in fragments(record.fragment) {
                            reassembly.add(0, &fragment).unwrap();
                        }
                    }
                }
                let lens: Vec<usize> = std::iter::from_fn(|| reassembly.take().unwrap())
                    .map(|message| message.body.len())
                    .collect();
                assert_eq!(lens, [80, len, 0]);
            }
        }
    }

    /// RFC 6347 §4.2.4.1: the time doubles.
    #[test]
    fn it_is_sent_again_less_and_less_often() {
        let mut flight = Flight::new(vec![item(Kind::ClientHello, 0, 100)], Repeat::UntilAnswered);
        let mut layer = RecordLayer::default();
        let mut now = Time(0);
        flight.send(now, false, &mut layer, |_| {});
        let mut waits = Vec::new();
        for _ in 0..6 {
            let due = flight.due().unwrap();
            waits.push(due.since(now).as_millis());
            now = due;
            send(&mut flight, now, &mut layer);
        }
        assert_eq!(waits, [200, 400, 800, 1_600, 3_200, 3_200]);
        // Each time under new record numbers (RFC 6347 §4.2.4).
        let datagrams = send(&mut flight, now, &mut layer);
        assert_eq!(datagrams[0][10], 7);
    }

    #[test]
    fn requests_for_cookies_are_few_and_the_last_flight_waits_to_be_asked_for() {
        let mut flight = Flight::new(vec![item(Kind::HelloVerifyRequest, 0, 23)], Repeat::FewTimes);
        let mut layer = RecordLayer::default();
        let sent = std::iter::from_fn(|| {
            let due = flight
                .due()
                .filter(|_| flight.sent > 0)
                .or((flight.sent == 0).then_some(Time(0)))?;
            Some(send(&mut flight, due, &mut layer).len())
        });
        assert_eq!(sent.count(), VERIFY_REQUESTS_MAX as usize);
        let mut last = Flight::new(vec![Item::ChangeCipherSpec], Repeat::WhenAsked);
        send(&mut last, Time::from_millis(100), &mut layer);
        assert_eq!(last.due(), None);
        assert!(!last.may_answer_repetition(Time::from_millis(100)));
        assert!(last.may_answer_repetition(Time::from_millis(110)));
    }
}
