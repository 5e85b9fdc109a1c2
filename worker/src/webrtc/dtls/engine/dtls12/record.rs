//! The record layer (RFC 6347 §4.1): records of a datagram, their protection, and which of them have been seen.

use super::suite::Cipher;
use super::wire::DTLS_1_2;
use crate::webrtc::srtp::{Verdict, Window};

/// Of a record's header, in bytes.
pub(super) const HEADER_LEN: usize = 13;

/// The most bytes of a record's fragment: 2^14 of content, and what protection may add (RFC 5246 §6.2.3).
const FRAGMENT_LEN_MAX: usize = (1 << 14) + 2_048;

/// What is in a record (RFC 5246 §6.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Content {
    ChangeCipherSpec = 20,
    Alert = 21,
    Handshake = 22,
}

impl Content {
    fn of(byte: u8) -> Option<Self> {
        Some(match byte {
            20 => Self::ChangeCipherSpec,
            21 => Self::Alert,
            22 => Self::Handshake,
            _ => return None,
        })
    }
}

/// A record as it came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record<'a> {
    pub(super) content: Content,
    pub(super) epoch: u16,
    /// Epoch and sequence number together, as they are in the header.
    number: [u8; 8],
    pub(super) fragment: &'a [u8],
}

impl Record<'_> {
    /// As a datagram of its own.
    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = vec![self.content as u8, DTLS_1_2[0], DTLS_1_2[1]];
        bytes.extend_from_slice(&self.number);
        bytes.extend_from_slice(&(self.fragment.len() as u16).to_be_bytes());
        bytes.extend_from_slice(self.fragment);
        bytes
    }

    fn sequence(&self) -> u64 {
        u64::from_be_bytes(self.number) & 0xffff_ffff_ffff
    }
}

/// The records of a datagram that matter to us, as many as there are. Where one is damaged, the rest cannot be found (RFC
/// 6347 §4.1.2.7: dropped silently); others (application data, later versions' records) are passed over.
pub(super) fn records(mut datagram: &[u8]) -> impl Iterator<Item = Record<'_>> {
    std::iter::from_fn(move || {
        loop {
            let (header, rest) = datagram.split_at_checked(HEADER_LEN)?;
            let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
            if header[1] != DTLS_1_2[0] || len > FRAGMENT_LEN_MAX {
                return None;
            }
            let (fragment, rest) = rest.split_at_checked(len)?;
            datagram = rest;
            let Some(content) = Content::of(header[0]) else {
                continue;
            };
            let mut number = [0; 8];
            number.copy_from_slice(&header[3..11]);
            return Some(Record {
                content,
                epoch: u16::from_be_bytes([header[3], header[4]]),
                number,
                fragment,
            });
        }
    })
}

/// Both directions' protection. Epoch 0 is in the clear, epoch 1 is protected, and there is no other.
#[derive(Default, Debug)]
pub(super) struct RecordLayer {
    /// Of the peer's records.
    read_cipher: Option<Cipher>,
    /// Of our records.
    write_cipher: Option<Cipher>,
    /// Which of the last 64 sequence numbers have been seen (RFC 6347 §4.1.2.6).
    window: Window<1>,
    /// The next of each epoch.
    sequences: [u64; 2],
}

/// What becomes of a record of the peer's.
pub(super) enum Unprotected {
    /// Its content.
    Content(Vec<u8>),
    /// Its key is not known yet.
    Early,
    /// Forged, damaged, seen before, or of an epoch that is not.
    Nothing,
}

impl RecordLayer {
    /// Sets the ciphers that protect the records of epoch 1.
    pub(super) fn set_ciphers(&mut self, read: Cipher, write: Cipher) {
        self.read_cipher = Some(read);
        self.write_cipher = Some(write);
    }

    pub(super) fn is_protected(&self) -> bool {
        self.write_cipher.is_some()
    }

    pub(super) fn unprotect(&mut self, record: &Record<'_>) -> Unprotected {
        match (record.epoch, &self.read_cipher) {
            (0, _) => Unprotected::Content(record.fragment.to_vec()),
            (1, None) => Unprotected::Early,
            (1, Some(cipher)) if self.window.verdict(record.sequence()) == Verdict::Fresh => {
                match cipher.unprotect(record.content as u8, &record.number, record.fragment) {
                    Some(content) => {
                        self.window.mark(record.sequence());
                        Unprotected::Content(content)
                    }
                    None => Unprotected::Nothing,
                }
            }
            _ => Unprotected::Nothing,
        }
    }

    /// How many bytes a record of an epoch takes beside its content.
    pub(super) fn overhead(&self, epoch: u16) -> usize {
        let protection = self.write_cipher.as_ref().filter(|_| epoch == 1);
        HEADER_LEN + protection.map_or(0, Cipher::overhead)
    }

    /// Appends a record. Nothing is appended in an epoch whose key is not known.
    pub(super) fn write(&mut self, content: Content, epoch: u16, fragment: &[u8], out: &mut Vec<u8>) {
        let Some(sequence) = self.sequences.get_mut(usize::from(epoch)) else {
            return;
        };
        let number = (u64::from(epoch) << 48 | *sequence).to_be_bytes();
        *sequence += 1;
        let start = out.len();
        out.extend_from_slice(&[content as u8, DTLS_1_2[0], DTLS_1_2[1]]);
        out.extend_from_slice(&number);
        out.extend_from_slice(&[0, 0]);
        let written = match (epoch, &self.write_cipher) {
            (0, _) => {
                out.extend_from_slice(fragment);
                true
            }
            (_, Some(cipher)) => cipher.protect(content as u8, &number, fragment, out),
            (_, None) => false,
        };
        if !written {
            return out.truncate(start);
        }
        let len = (out.len() - start - HEADER_LEN) as u16;
        out[start + 11..start + HEADER_LEN].copy_from_slice(&len.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(content: Content, fragments: &[&[u8]]) -> Vec<u8> {
        let mut layer = RecordLayer::default();
        let mut out = Vec::new();
        for fragment in fragments {
            layer.write(content, 0, fragment, &mut out);
        }
        out
    }

    /// RFC 6347 §4.1.1: multiple records may be in a datagram, and no number is the limit.
    #[test]
    fn a_datagram_has_as_many_records_as_it_has() {
        let fragments: Vec<Vec<u8>> = (0..40_u8).map(|at| vec![at; usize::from(at)]).collect();
        let fragments: Vec<&[u8]> = fragments.iter().map(Vec::as_slice).collect();
        let datagram = plain(Content::Handshake, &fragments);
        let read: Vec<_> = records(&datagram).collect();
        assert_eq!(read.len(), 40);
        for (at, record) in read.iter().enumerate() {
            assert_eq!((record.content, record.epoch), (Content::Handshake, 0));
            assert_eq!((record.sequence(), record.fragment), (at as u64, fragments[at]));
        }
        for len in 0..datagram.len() {
            assert!(records(&datagram[..len]).count() < 40);
        }
    }

    #[test]
    fn records_of_others_are_passed_over_and_damage_ends_a_datagram() {
        let mut datagram = plain(Content::Handshake, &[b"a", b"b", b"c"]);
        datagram[14] = 23;
        let contents: Vec<_> = records(&datagram).map(|record| record.fragment).collect();
        assert_eq!(contents, [b"a", b"c"]);
        datagram[15] = 3;
        assert_eq!(records(&datagram).count(), 1);
        datagram[11] = 0xff;
        assert_eq!(records(&datagram).count(), 0);
    }

    #[test]
    fn each_number_counts_once() {
        let mut window = Window::<1>::default();
        let is_fresh = |window: &Window<1>, sequence| window.verdict(sequence) == Verdict::Fresh;
        for (sequence, fresh) in [
            (5, true),
            (5, false),
            (3, true),
            (3, false),
            (4, true),
            (100, true),
            (36, false),
            (37, true),
            (37, false),
        ] {
            assert_eq!(is_fresh(&window, sequence), fresh, "{sequence}");
            if fresh {
                window.mark(sequence);
            }
        }
        window.mark(1 << 47);
        assert!(is_fresh(&window, (1 << 47) - 1) && !is_fresh(&window, 1 << 47) && !is_fresh(&window, 100));
    }

    #[test]
    fn without_a_key_nothing_is_protected() {
        let mut layer = RecordLayer::default();
        let mut out = Vec::new();
        layer.write(Content::Alert, 1, &[1, 0], &mut out);
        layer.write(Content::Alert, 2, &[1, 0], &mut out);
        assert!(out.is_empty());
        let mut datagram = plain(Content::Handshake, &[b"finished"]);
        datagram[4] = 1;
        let record = records(&datagram).next().unwrap();
        assert!(matches!(layer.unprotect(&record), Unprotected::Early));
        datagram[4] = 2;
        let record = records(&datagram).next().unwrap();
        assert!(matches!(layer.unprotect(&record), Unprotected::Nothing));
    }
}
