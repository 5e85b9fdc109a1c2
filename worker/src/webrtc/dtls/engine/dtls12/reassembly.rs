//! Handshake messages out of their fragments (RFC 6347 §4.2.2, §4.2.3): in any cut, order and overlap, also when a
//! retransmission is cut in other places than what it repeats.

use super::message::{self, Kind};
use crate::webrtc::dtls::failure::Failure;

/// The longest message: a certificate of 32 KiB with what is around it.
pub(super) const MESSAGE_LEN_MAX: usize = message::CERTIFICATES_LEN_MAX;

/// How far ahead of the message that is waited for one may be: more than a flight has.
const AHEAD_MAX: u16 = 12;

/// What unfinished messages may claim together.
const CLAIMED_MAX: usize = 2 * MESSAGE_LEN_MAX;

/// A fragment's header, in bytes.
pub(super) const HEADER_LEN: usize = 12;

/// A part of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment<'a> {
    pub(super) kind: u8,
    /// Of the whole message.
    pub(super) length: usize,
    /// The message's number.
    pub(super) number: u16,
    pub(super) offset: usize,
    pub(super) bytes: &'a [u8],
}

/// The fragments of a handshake record; one that is damaged ends them.
pub(super) fn fragments(mut record: &[u8]) -> impl Iterator<Item = Fragment<'_>> {
    std::iter::from_fn(move || {
        let (header, rest) = record.split_at_checked(HEADER_LEN)?;
        let number =
            |at: usize| usize::from(header[at]) << 16 | usize::from(header[at + 1]) << 8 | usize::from(header[at + 2]);
        let (length, offset) = (number(1), number(6));
        let (bytes, rest) = rest.split_at_checked(number(9))?;
        record = rest;
        (offset + bytes.len() <= length).then_some(Fragment {
            kind: header[0],
            length,
            number: u16::from_be_bytes([header[4], header[5]]),
            offset,
            bytes,
        })
    })
}

/// A whole message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Message {
    pub(super) kind: Kind,
    pub(super) number: u16,
    pub(super) body: Vec<u8>,
}

/// A message that is not whole yet.
#[derive(Debug)]
struct Partial {
    kind: u8,
    number: u16,
    epoch: u16,
    bytes: Vec<u8>,
    /// One bit per byte that has come.
    has: Vec<u64>,
    missing: usize,
}

impl Partial {
    fn new(fragment: &Fragment<'_>, epoch: u16) -> Self {
        Self {
            kind: fragment.kind,
            number: fragment.number,
            epoch,
            bytes: vec![0; fragment.length],
            has: vec![0; fragment.length.div_ceil(64)],
            missing: fragment.length,
        }
    }

    fn is_of(&self, fragment: &Fragment<'_>, epoch: u16) -> bool {
        (self.kind, self.bytes.len(), self.epoch) == (fragment.kind, fragment.length, epoch)
    }

    /// What came first stays. Says whether there was anything new.
    fn add(&mut self, fragment: &Fragment<'_>) -> bool {
        let missing = self.missing;
        for (at, byte) in (fragment.offset..).zip(fragment.bytes) {
            let (word, bit) = (&mut self.has[at / 64], 1 << (at % 64));
            if *word & bit == 0 {
                *word |= bit;
                self.bytes[at] = *byte;
                self.missing -= 1;
            }
        }
        self.missing < missing
    }
}

/// What becomes of a fragment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Added {
    /// It had something new.
    New,
    /// Its message has been dealt with: the peer says it again.
    Repeated,
    /// It had nothing new, came too early, or from the wrong epoch.
    Ignored,
}

/// The messages of a peer.
#[derive(Default, Debug)]
pub(super) struct Reassembly {
    /// The number of the message that is waited for.
    next: u16,
    partials: Vec<Partial>,
}

impl Reassembly {
    /// Whether a fragment is of a message that has been dealt with.
    pub(super) fn is_repetition(&self, fragment: &Fragment<'_>) -> bool {
        fragment.number.wrapping_sub(self.next) >= 1 << 15
    }

    /// Forgets what is not whole: nothing more is waited for.
    pub(super) fn end(&mut self) {
        self.partials = Vec::new();
    }

    /// Takes a fragment.
    ///
    /// # Errors
    ///
    /// [`Failure::CertificateTooLong`] or [`Failure::Protocol`] if its message claims more bytes than are taken.
    pub(super) fn add(&mut self, epoch: u16, fragment: &Fragment<'_>) -> Result<Added, Failure> {
        if self.is_repetition(fragment) {
            return Ok(Added::Repeated);
        }
        let ahead = fragment.number.wrapping_sub(self.next);
        // A server may ask for what goes on already (RFC 5246 §7.4.1.1: to be ignored), and such a message is not counted.
        const HELLO_REQUEST: u8 = 0;
        if fragment.kind == HELLO_REQUEST {
            return Ok(Added::Ignored);
        }
        // A message that is in the clear must not be where the peer proves that it has the keys, nor the other way around.
        if ahead > AHEAD_MAX || (epoch == 1) != (fragment.kind == Kind::Finished as u8) {
            return Ok(Added::Ignored);
        }
        if fragment.length > MESSAGE_LEN_MAX {
            return Err(if fragment.kind == Kind::Certificate as u8 {
                Failure::CertificateTooLong
            } else {
                Failure::Protocol
            });
        }
        if let Some(at) = self
            .partials
            .iter()
            .position(|partial| partial.number == fragment.number)
        {
            let partial = &mut self.partials[at];
            if partial.is_of(fragment, epoch) {
                return Ok(if partial.add(fragment) {
                    Added::New
                } else {
                    Added::Ignored
                });
            }
            // Two messages with one number: the first one stays, unless anybody could have written it and nobody the other.
            if epoch == 0 || partial.epoch == 1 {
                return Ok(Added::Ignored);
            }
            self.partials.swap_remove(at);
        }
        // Whatever has come early, there is room for the one that is waited for.
        let claimed: usize = self.partials.iter().map(|partial| partial.bytes.len()).sum();
        if ahead > 0 && claimed + fragment.length > CLAIMED_MAX {
            return Ok(Added::Ignored);
        }
        let mut partial = Partial::new(fragment, epoch);
        partial.add(fragment);
        self.partials.push(partial);
        Ok(Added::New)
    }

    /// The next message, when it is whole.
    ///
    /// # Errors
    ///
    /// [`Failure::Protocol`] if it is of no kind that there is.
    pub(super) fn take(&mut self) -> Result<Option<Message>, Failure> {
        let is_next = |partial: &Partial| partial.number == self.next && partial.missing == 0;
        let Some(at) = self.partials.iter().position(is_next) else {
            return Ok(None);
        };
        let partial = self.partials.swap_remove(at);
        self.next = self.next.wrapping_add(1);
        Ok(Some(Message {
            kind: Kind::of(partial.kind).ok_or(Failure::Protocol)?,
            number: partial.number,
            body: partial.bytes,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fragment(kind: Kind, number: u16, body: &[u8], offset: usize, len: usize) -> Vec<u8> {
        let mut out = Vec::new();
        message::put_fragment(&mut out, kind, number, body, offset..offset + len);
        out
    }

    fn add(reassembly: &mut Reassembly, epoch: u16, record: &[u8]) -> Vec<Result<Added, Failure>> {
        fragments(record)
            .map(|fragment| reassembly.add(epoch, &fragment))
            .collect()
    }

    fn body(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 7) as u8).collect()
    }

    /// RFC 6347 §4.2.3: "DTLS implementations MUST be able to handle overlapping fragment ranges", and retransmissions may be cut in
    /// other places.
    #[test]
    fn a_retransmission_with_other_boundaries_completes_a_message() {
        let body = body(1_000);
        let mut reassembly = Reassembly::default();
        for (offset, len) in [(0, 300), (600, 300), (250, 100), (0, 1), (340, 270), (890, 110)] {
            assert_eq!(reassembly.take(), Ok(None));
            let record = fragment(Kind::Certificate, 0, &body, offset, len);
            let expected = if len == 1 { Added::Ignored } else { Added::New };
            assert_eq!(add(&mut reassembly, 0, &record), [Ok(expected)]);
        }
        let message = reassembly.take().unwrap().unwrap();
        assert_eq!(
            (message.kind, message.number, message.body),
            (Kind::Certificate, 0, body.clone())
        );
        let again = fragment(Kind::Certificate, 0, &body, 0, 300);
        assert_eq!(add(&mut reassembly, 0, &again), [Ok(Added::Repeated)]);
    }

    #[test]
    fn messages_come_in_order_whatever_the_order_of_their_fragments() {
        let mut reassembly = Reassembly::default();
        let done = fragment(Kind::ServerHelloDone, 2, &[], 0, 0);
        let exchange = fragment(Kind::ServerKeyExchange, 1, b"exchange", 0, 8);
        let hello = fragment(Kind::ServerHello, 0, b"hello", 0, 5);
        for record in [&done, &exchange, &hello, &done] {
            add(&mut reassembly, 0, record);
        }
        let kinds: Vec<Kind> = std::iter::from_fn(|| reassembly.take().unwrap())
            .map(|message| message.kind)
            .collect();
        assert_eq!(
            kinds,
            [Kind::ServerHello, Kind::ServerKeyExchange, Kind::ServerHelloDone]
        );
    }

    #[test]
    fn what_may_be_kept_is_bounded() {
        let mut reassembly = Reassembly::default();
        let long = |number, kind: Kind, length: usize| {
            let mut record = fragment(kind, number, &body(10), 0, 10);
            record[1..4].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
            record
        };
        for (number, kind, length, expected) in [
            (
                0,
                Kind::Certificate,
                MESSAGE_LEN_MAX + 1,
                Err(Failure::CertificateTooLong),
            ),
            (0, Kind::ClientHello, MESSAGE_LEN_MAX + 1, Err(Failure::Protocol)),
            (0, Kind::Certificate, MESSAGE_LEN_MAX, Ok(Added::New)),
            (1, Kind::Certificate, MESSAGE_LEN_MAX, Ok(Added::New)),
            (2, Kind::Certificate, 10, Ok(Added::Ignored)),
            // Another length each time costs nothing.
            (1, Kind::Certificate, MESSAGE_LEN_MAX - 1, Ok(Added::Ignored)),
            (0, Kind::ServerHello, 10, Ok(Added::Ignored)),
            (AHEAD_MAX + 1, Kind::Certificate, 10, Ok(Added::Ignored)),
            (u16::MAX, Kind::Certificate, 10, Ok(Added::Repeated)),
        ] {
            assert_eq!(
                add(&mut reassembly, 0, &long(number, kind, length)),
                [expected],
                "{number} {length}"
            );
        }
    }

    /// What comes early, and is forged, leaves room for what is waited for, and is replaced by what only the peer can say.
    #[test]
    fn what_is_waited_for_always_finds_room() {
        let mut reassembly = Reassembly::default();
        let claim = |number: u16, length: usize| {
            let mut record = fragment(Kind::Certificate, number, &[], 0, 0);
            record[1..4].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
            record
        };
        for (number, length) in [
            (1, 1),
            (2, MESSAGE_LEN_MAX),
            (3, MESSAGE_LEN_MAX - 1),
            (4, 1),
            (1, 1),
            (1, 2),
        ] {
            add(&mut reassembly, 0, &claim(number, length));
        }
        let claimed: usize = reassembly.partials.iter().map(|partial| partial.bytes.len()).sum();
        assert_eq!(claimed, CLAIMED_MAX);
        assert_eq!(add(&mut reassembly, 0, &claim(5, 0)), [Ok(Added::New)]);
        assert_eq!(add(&mut reassembly, 0, &claim(5, 0)), [Ok(Added::Ignored)]);
        let body = body(MESSAGE_LEN_MAX);
        let record = fragment(Kind::Certificate, 0, &body, 0, MESSAGE_LEN_MAX);
        assert_eq!(add(&mut reassembly, 0, &record), [Ok(Added::New)]);
        assert_eq!(reassembly.take().unwrap().unwrap().body, body);
        let finished = fragment(Kind::Finished, 1, &[7; 12], 0, 12);
        assert_eq!(add(&mut reassembly, 1, &finished), [Ok(Added::New)]);
        assert_eq!(reassembly.take().unwrap().unwrap().body, [7; 12]);
    }

    /// Only who has the keys says that it has finished, and that is all that is said with them.
    #[test]
    fn a_message_counts_in_its_epoch_only() {
        let mut reassembly = Reassembly::default();
        let finished = fragment(Kind::Finished, 0, &[0; 12], 0, 12);
        assert_eq!(add(&mut reassembly, 0, &finished), [Ok(Added::Ignored)]);
        let exchange = fragment(Kind::ClientKeyExchange, 0, &[0; 12], 0, 12);
        assert_eq!(add(&mut reassembly, 1, &exchange), [Ok(Added::Ignored)]);
        assert_eq!(add(&mut reassembly, 1, &finished), [Ok(Added::New)]);
    }

    #[test]
    fn fragments_that_lie_are_none() {
        let good = fragment(Kind::Certificate, 0, &body(100), 50, 50);
        assert_eq!(fragments(&good).count(), 1);
        let mut beyond = good.clone();
        beyond[8] = 51;
        assert_eq!(fragments(&beyond).count(), 0);
        for len in 0..good.len() {
            assert_eq!(fragments(&good[..len]).count(), 0);
        }
    }

    proptest! {
        #[test]
        fn any_cut_in_any_order(
            len in 0_usize..3_000,
            cuts in prop::collection::vec((0.0..1.0_f64, 0.0..1.0_f64), 0..40),
            order: u64,
        ) {
            let body = body(len);
            let mut pieces: Vec<(usize, usize)> = cuts
                .into_iter()
                .map(|(from, part)| {
                    let from = (from * len as f64) as usize;
                    (from, (part * (len - from) as f64) as usize)
                })
                .collect();
            // And all of it once, in pieces.
            pieces.extend((0..=len / 200).map(|at| (at * 200, (len - at * 200).min(200))));
            let mut state = order;
            for at in (1..pieces.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                pieces.swap(at, (state >> 33) as usize % (at + 1));
            }
            let mut reassembly = Reassembly::default();
            for (offset, len) in pieces {
                add(&mut reassembly, 0, &fragment(Kind::Certificate, 0, &body, offset, len));
            }
            prop_assert_eq!(reassembly.take().unwrap().map(|message| message.body), Some(body));
        }
    }
}
