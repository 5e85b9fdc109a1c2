//! Writing compound packets: reports first, then the source descriptions of all who report, then the rest (RFC 3550 §6.1).

use rtcp_types::prelude::*;
use rtcp_types::{ReceiverReport, Sdes, SdesItem, SenderReport};

use super::ReportBlock;

/// The longest compound packet that is written: what passes every path that media passes, with space for encryption and
/// tunnels.
pub const COMPOUND_BYTES_MAX: usize = 1_200;

/// Report blocks of one packet, and chunks of one source description: their counts have five bits (RFC 3550 §6.4.1, §6.5).
pub const ITEMS_MAX: usize = 31;

const SENDER_REPORT_LEN: usize = 28;
const RECEIVER_REPORT_LEN: usize = 8;
const BLOCK_LEN: usize = 24;
const HEADER_LEN: usize = 4;

/// What a sender says of its own stream (RFC 3550 §6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderInfo {
    /// Wall clock in 32.32 fixed point seconds since 1900.
    pub ntp: u64,
    /// The same instant on the media clock.
    pub rtp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Their payload bytes, without padding.
    pub octets: u32,
}

/// A compound packet in the making. What does not fit is refused, and then what there is must be written first. Nothing
/// is allocated after [`Compound::new`].
#[derive(Debug)]
pub struct Compound {
    reports: Part,
    names: Part,
    chunks: u8,
    /// Who was named last.
    named: Option<u32>,
    rest: Part,
}

#[derive(Debug)]
struct Part {
    bytes: Box<[u8]>,
    len: usize,
}

impl Part {
    fn new() -> Self {
        Self {
            bytes: vec![0; COMPOUND_BYTES_MAX].into_boxed_slice(),
            len: 0,
        }
    }

    /// The caller has made sure that they fit.
    fn push(&mut self, bytes: &[u8]) {
        let end = self.len + bytes.len();
        self.bytes[self.len..end].copy_from_slice(bytes);
        self.len = end;
    }

    fn filled(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Default for Compound {
    fn default() -> Self {
        Self::new()
    }
}

impl Compound {
    /// An empty one.
    pub fn new() -> Self {
        Self {
            reports: Part::new(),
            names: Part::new(),
            chunks: 0,
            named: None,
            rest: Part::new(),
        }
    }

    /// Whether nothing was said yet.
    pub fn is_empty(&self) -> bool {
        self.reports.len == 0
    }

    /// Adds a sender report without report blocks, and the sender's name. `false`: it does not fit, and nothing has
    /// changed.
    pub fn push_sender_report(&mut self, ssrc: u32, cname: &[u8], info: &SenderInfo) -> bool {
        if !self.push_name(ssrc, cname, SENDER_REPORT_LEN) {
            return false;
        }
        let mut report = [0; SENDER_REPORT_LEN];
        report[..4].copy_from_slice(&[0x80, SenderReport::PACKET_TYPE, 0, 6]);
        report[4..8].copy_from_slice(&ssrc.to_be_bytes());
        report[8..16].copy_from_slice(&info.ntp.to_be_bytes());
        report[16..20].copy_from_slice(&info.rtp.to_be_bytes());
        report[20..24].copy_from_slice(&info.packets.to_be_bytes());
        report[24..28].copy_from_slice(&info.octets.to_be_bytes());
        self.reports.push(&report);
        true
    }

    /// Adds the name of a source that does not report itself. A report must have been added before. `false`: it does not
    /// fit, and nothing has changed.
    pub fn push_source(&mut self, ssrc: u32, cname: &[u8]) -> bool {
        debug_assert!(!self.is_empty(), "RFC 3550 §6.1: a report comes first");
        self.push_name(ssrc, cname, 0)
    }

    /// Adds a receiver report with at most [`ITEMS_MAX`] blocks (more are left out), and the receiver's name. `false`:
    /// it does not fit, and nothing has changed.
    pub fn push_receiver_report(&mut self, ssrc: u32, cname: &[u8], blocks: &[ReportBlock]) -> bool {
        let blocks = &blocks[..blocks.len().min(ITEMS_MAX)];
        if !self.push_name(ssrc, cname, RECEIVER_REPORT_LEN + BLOCK_LEN * blocks.len()) {
            return false;
        }
        let words = 1 + 6 * blocks.len() as u8;
        self.reports
            .push(&[0x80 | blocks.len() as u8, ReceiverReport::PACKET_TYPE, 0, words]);
        self.reports.push(&ssrc.to_be_bytes());
        for block in blocks {
            self.reports.push(&block.to_bytes());
        }
        true
    }

    /// How many blocks a receiver report of this receiver can have in the space that is left.
    pub fn blocks_that_fit(&self, ssrc: u32, cname: &[u8]) -> usize {
        let taken = self.len_with(ssrc, cname) + RECEIVER_REPORT_LEN;
        (COMPOUND_BYTES_MAX.saturating_sub(taken) / BLOCK_LEN).min(ITEMS_MAX)
    }

    /// Adds a whole packet of another kind. A report must have been added before. `false`: it does not fit, and nothing
    /// has changed.
    pub fn push_packet(&mut self, packet: &[u8]) -> bool {
        debug_assert!(!self.is_empty(), "RFC 3550 §6.1: a report comes first");
        let fits = self.len() + packet.len() <= COMPOUND_BYTES_MAX;
        if fits {
            self.rest.push(packet);
        }
        fits
    }

    /// Writes the packet to `out`, which must have [`COMPOUND_BYTES_MAX`] bytes, returns its length, and begins another.
    pub fn write(&mut self, out: &mut [u8]) -> usize {
        let len = self.len();
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            out[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(self.reports.filled());
        if self.chunks > 0 {
            let words = (self.names.len / 4) as u16;
            let [high, low] = words.to_be_bytes();
            put(&[0x80 | self.chunks, Sdes::PACKET_TYPE, high, low]);
            put(self.names.filled());
        }
        put(self.rest.filled());
        self.clear();
        len
    }

    /// Forgets everything that was added.
    pub fn clear(&mut self) {
        self.reports.len = 0;
        self.names.len = 0;
        self.chunks = 0;
        self.named = None;
        self.rest.len = 0;
    }

    fn len(&self) -> usize {
        let header = if self.chunks > 0 { HEADER_LEN } else { 0 };
        self.reports.len + header + self.names.len + self.rest.len
    }

    /// How long it would be with this name in it.
    fn len_with(&self, ssrc: u32, cname: &[u8]) -> usize {
        let chunk = if self.named == Some(ssrc) { 0 } else { chunk_len(cname) };
        let header = if self.chunks == 0 { HEADER_LEN } else { 0 };
        self.len() + chunk + header
    }

    /// Adds a chunk with a CNAME (RFC 3550 §6.5.1), if it and `more` bytes fit.
    fn push_name(&mut self, ssrc: u32, cname: &[u8], more: usize) -> bool {
        if self.len_with(ssrc, cname) + more > COMPOUND_BYTES_MAX {
            return false;
        }
        if self.named == Some(ssrc) {
            return true;
        }
        if usize::from(self.chunks) == ITEMS_MAX {
            return false;
        }
        let cname = name_of(cname);
        let len = chunk_len(cname);
        self.names.push(&ssrc.to_be_bytes());
        self.names.push(&[SdesItem::CNAME, cname.len() as u8]);
        self.names.push(cname);
        // One to four zeros: the item that ends the list, and what fills the word.
        self.names.push(&[0; 4][..len - 6 - cname.len()]);
        self.chunks += 1;
        self.named = Some(ssrc);
        true
    }
}

/// What of a name fits into an item.
fn name_of(cname: &[u8]) -> &[u8] {
    &cname[..cname.len().min(255)]
}

fn chunk_len(cname: &[u8]) -> usize {
    (4 + 2 + name_of(cname).len() + 1).next_multiple_of(4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INFO: SenderInfo = SenderInfo {
        ntp: 0x0102_0304_0506_0708,
        rtp: 0x1112_1314,
        packets: 3,
        octets: 400,
    };

    #[test]
    fn rfc3550_6_reports_names_and_the_rest_in_their_order() {
        let mut compound = Compound::new();
        assert!(compound.push_sender_report(7, b"ab", &INFO));
        assert!(compound.push_packet(&[0x81, 203, 0, 1, 0, 0, 0, 7]));
        assert!(compound.push_receiver_report(9, b"abc", &[]));
        assert!(compound.push_receiver_report(9, b"abc", &[]), "named once");
        let mut out = [0; COMPOUND_BYTES_MAX];
        let len = compound.write(&mut out);
        #[rustfmt::skip]
        let expected = [
            0x80, 200, 0, 6, 0, 0, 0, 7, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0, 0, 0, 3, 0, 0, 1, 0x90,
            0x80, 201, 0, 1, 0, 0, 0, 9,
            0x80, 201, 0, 1, 0, 0, 0, 9,
            0x82, 202, 0, 6, 0, 0, 0, 7, 1, 2, b'a', b'b', 0, 0, 0, 0, 0, 0, 0, 9, 1, 3, b'a', b'b', b'c', 0, 0, 0,
            0x81, 203, 0, 1, 0, 0, 0, 7,
        ];
        assert_eq!(out[..len], expected);
        assert!(compound.is_empty());
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let mut compound = Compound::new();
        let mut count = 0;
        while compound.push_sender_report(count, b"somebody@somewhere", &INFO) {
            count += 1;
        }
        // 28 + 28 bytes each, and a header of 4.
        assert_eq!(count, 21);
        assert!(!compound.push_packet(&[0; 24]));
        assert!(compound.push_packet(&[0; 20]));
        let mut out = [0; COMPOUND_BYTES_MAX];
        assert_eq!(compound.write(&mut out), 1_200);

        // Names of any length fit, cut at 255 bytes; 31 chunks are the most.
        assert!(compound.push_sender_report(1, &[b'x'; 300], &INFO));
        assert_eq!(compound.write(&mut out), 28 + 4 + 264);
        let named = (0..40)
            .filter(|ssrc| compound.push_receiver_report(*ssrc, b"x", &[]))
            .count();
        assert_eq!(named, ITEMS_MAX);
    }
}
