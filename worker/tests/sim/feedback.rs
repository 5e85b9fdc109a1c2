//! Transport-wide feedback, read without the relay's own code, and packets with transport sequence numbers.

use super::stream::Packet;
use super::wire::{Form, Rtp, rtcp_packets};

/// What one feedback packet says (draft-holmer-rmcat-transport-wide-cc-extensions-01 §3.1).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Feedback {
    pub reporter: u32,
    pub media: u32,
    pub base: u16,
    pub count: u8,
    /// From `base` on: when it came, in units of 250 µs modulo 2³².
    pub statuses: Vec<Option<u32>>,
}

impl Feedback {
    /// The numbers of those that have come.
    pub fn came(&self) -> Vec<u16> {
        (0..)
            .zip(&self.statuses)
            .filter(|(_, status)| status.is_some())
            .map(|(index, _)| self.base.wrapping_add(index))
            .collect()
    }
}

/// The feedback packets of a compound packet. Panics on what is not well formed.
pub fn feedback(compound: &[u8]) -> Vec<Feedback> {
    rtcp_packets(compound)
        .into_iter()
        .filter(|packet| packet[1] == 205 && packet[0] & 31 == 15)
        .map(read)
        .collect()
}

fn read(packet: &[u8]) -> Feedback {
    let half = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
    assert_eq!(packet[0], 0x8f, "no padding that RFC 3550 would count");
    let count = usize::from(half(14));
    let mut symbols = Vec::new();
    let mut at = 20;
    while symbols.len() < count {
        let chunk = half(at);
        at += 2;
        match chunk >> 14 {
            0 | 1 => symbols.extend(vec![chunk >> 13; usize::from(chunk & 0x1fff)]),
            2 => symbols.extend((0..14).rev().map(|bit| chunk >> bit & 1)),
            _ => symbols.extend((0..7).rev().map(|pair| chunk >> (2 * pair) & 3)),
        }
        let is_run = chunk >> 15 == 0;
        assert!(!is_run || symbols.len() <= count, "a run beyond the end");
    }
    assert!(symbols[count..].iter().all(|symbol| *symbol == 0));
    symbols.truncate(count);
    let mut time = (word(16) >> 8) * 256;
    let mut statuses = Vec::new();
    for symbol in symbols {
        match symbol {
            0 => {
                statuses.push(None);
                continue;
            }
            1 => {
                time = time.wrapping_add(u32::from(packet[at]));
                at += 1;
            }
            2 => {
                time = time.wrapping_add_signed(i32::from(half(at).cast_signed()));
                at += 2;
            }
            other => panic!("status {other} is reserved"),
        }
        statuses.push(Some(time));
    }
    assert_eq!(
        at.next_multiple_of(4),
        packet.len(),
        "as many deltas as packets that came"
    );
    assert!(packet[at..].iter().all(|byte| *byte == 0), "padding is zeros");
    Feedback {
        reporter: word(4),
        media: word(8),
        base: half(12),
        count: packet[19],
        statuses,
    }
}

/// A packet with a transport sequence number.
pub fn numbered(bytes: &[u8], id: u8, number: u16) -> Vec<u8> {
    let mut rtp = Rtp::read(bytes);
    let (_, elements) = rtp.extensions.get_or_insert((Form::OneByte, Vec::new()));
    elements.retain(|(other, _)| *other != id);
    elements.push((id, number.to_be_bytes().to_vec()));
    rtp.write()
}

/// Packets with transport sequence numbers from this one on, which then is the next one.
pub fn number(packets: &mut [Packet], id: u8, next: &mut u16) {
    for packet in packets {
        packet.bytes = numbered(&packet.bytes, id, *next);
        *next = next.wrapping_add(1);
    }
}
