//! Reports as bytes, written and read without the relay's own code.

use super::wire::rtcp_packets;

/// One thing said in a compound packet that is no feedback.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Said {
    SenderReport {
        ssrc: u32,
        ntp: u64,
        rtp: u32,
        packets: u32,
        octets: u32,
    },
    Block {
        reporter: u32,
        block: Block,
    },
    Name {
        ssrc: u32,
        cname: Vec<u8>,
    },
    Bye {
        ssrc: u32,
    },
    ReferenceTime {
        reporter: u32,
        ntp: u64,
    },
    Delay {
        ssrc: u32,
        reference: u32,
        since: u32,
    },
    Remb {
        reporter: u32,
        bps: u64,
        ssrcs: Vec<u32>,
    },
}

/// A report block (RFC 3550 §6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Block {
    pub ssrc: u32,
    pub fraction: u8,
    pub lost: i32,
    pub highest: u32,
    pub jitter: u32,
    pub last_report: u32,
    pub delay: u32,
}

impl Block {
    fn write(&self) -> Vec<u8> {
        let mut out = self.ssrc.to_be_bytes().to_vec();
        out.push(self.fraction);
        out.extend(&self.lost.to_be_bytes()[1..]);
        for word in [self.highest, self.jitter, self.last_report, self.delay] {
            out.extend(word.to_be_bytes());
        }
        out
    }

    fn read(bytes: &[u8]) -> Self {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let lost = word(4) & 0xff_ffff;
        Self {
            ssrc: word(0),
            fraction: bytes[4],
            lost: if lost >= 0x80_0000 {
                lost as i32 - 0x100_0000
            } else {
                lost as i32
            },
            highest: word(8),
            jitter: word(12),
            last_report: word(16),
            delay: word(20),
        }
    }
}

/// What a compound packet says, in its order. Panics on what is not well formed.
pub fn said(compound: &[u8]) -> Vec<Said> {
    let mut said = Vec::new();
    for packet in rtcp_packets(compound) {
        let word = |at: usize| u32::from_be_bytes([packet[at], packet[at + 1], packet[at + 2], packet[at + 3]]);
        let long = |at: usize| u64::from(word(at)) << 32 | u64::from(word(at + 4));
        let count = usize::from(packet[0] & 31);
        let blocks = match packet[1] {
            200 => {
                said.push(Said::SenderReport {
                    ssrc: word(4),
                    ntp: long(8),
                    rtp: word(16),
                    packets: word(20),
                    octets: word(24),
                });
                28
            }
            201 => 8,
            202 => {
                let mut at = 4;
                for _ in 0..count {
                    assert_eq!(packet[at + 4], 1, "a CNAME");
                    let len = usize::from(packet[at + 5]);
                    let cname = packet[at + 6..at + 6 + len].to_vec();
                    assert_eq!(packet[at + 6 + len], 0, "the end of the items");
                    said.push(Said::Name { ssrc: word(at), cname });
                    at = (at + 6 + len + 1).next_multiple_of(4);
                }
                assert_eq!(at, packet.len());
                continue;
            }
            203 => {
                assert_eq!(packet.len(), 4 + 4 * count);
                said.extend((0..count).map(|index| Said::Bye {
                    ssrc: word(4 + 4 * index),
                }));
                continue;
            }
            206 if count == 15 => {
                assert_eq!(&packet[12..16], b"REMB");
                let number = word(16);
                assert_eq!(packet.len(), 20 + 4 * (number >> 24) as usize);
                said.push(Said::Remb {
                    reporter: word(4),
                    bps: u64::from(number & 0x3_ffff) << (number >> 18 & 0x3f),
                    ssrcs: (20..packet.len()).step_by(4).map(word).collect(),
                });
                continue;
            }
            207 => {
                let mut at = 8;
                while at < packet.len() {
                    let end = at + 4 + 4 * (word(at) & 0xffff) as usize;
                    match packet[at] {
                        4 => said.push(Said::ReferenceTime {
                            reporter: word(4),
                            ntp: long(at + 4),
                        }),
                        5 => said.extend((at + 4..end).step_by(12).map(|at| Said::Delay {
                            ssrc: word(at),
                            reference: word(at + 4),
                            since: word(at + 8),
                        })),
                        other => panic!("a block of type {other}"),
                    }
                    at = end;
                }
                continue;
            }
            _ => continue,
        };
        assert_eq!(packet.len(), blocks + 24 * count);
        said.extend((0..count).map(|index| Said::Block {
            reporter: word(4),
            block: Block::read(&packet[blocks + 24 * index..]),
        }));
    }
    said
}

/// A receiver report.
pub fn receiver_report(reporter: u32, blocks: &[Block]) -> Vec<u8> {
    let mut out = vec![0x80 | blocks.len() as u8, 201, 0, 1 + 6 * blocks.len() as u8];
    out.extend(reporter.to_be_bytes());
    out.extend(blocks.iter().flat_map(Block::write));
    out
}

/// A sender report with report blocks.
pub fn sender_report(ssrc: u32, ntp: u64, rtp: u32, blocks: &[Block]) -> Vec<u8> {
    let mut out = vec![0x80 | blocks.len() as u8, 200, 0, 6 + 6 * blocks.len() as u8];
    out.extend(ssrc.to_be_bytes());
    out.extend(ntp.to_be_bytes());
    out.extend(rtp.to_be_bytes());
    out.extend([0; 8]);
    out.extend(blocks.iter().flat_map(Block::write));
    out
}

/// An extended report with a receiver's reference time.
pub fn reference_time(reporter: u32, ntp: u64) -> Vec<u8> {
    let mut out = vec![0x80, 207, 0, 4];
    out.extend(reporter.to_be_bytes());
    out.extend([4, 0, 0, 2]);
    out.extend(ntp.to_be_bytes());
    out
}

/// An extended report that answers one.
pub fn delay(sender: u32, ssrc: u32, reference: u32, since: u32) -> Vec<u8> {
    let mut out = vec![0x80, 207, 0, 5];
    out.extend(sender.to_be_bytes());
    out.extend([5, 0, 0, 3]);
    for word in [ssrc, reference, since] {
        out.extend(word.to_be_bytes());
    }
    out
}

/// An estimate of a mantissa and an exponent.
pub fn remb(reporter: u32, mantissa: u32, exponent: u32, ssrcs: &[u32]) -> Vec<u8> {
    let mut out = vec![0x8f, 206, 0, 4 + ssrcs.len() as u8];
    out.extend(reporter.to_be_bytes());
    out.extend([0; 4]);
    out.extend(b"REMB");
    out.extend(((ssrcs.len() as u32) << 24 | exponent << 18 | mantissa).to_be_bytes());
    out.extend(ssrcs.iter().flat_map(|ssrc| ssrc.to_be_bytes()));
    out
}

/// A receiver report without blocks, and a source description with the canonical name of each of `chunks`: (SSRC, name).
pub fn names(reporter: u32, chunks: &[(u32, &[u8])]) -> Vec<u8> {
    let mut out = super::wire::receiver_report(reporter);
    let mut body = Vec::new();
    for (ssrc, name) in chunks {
        body.extend(ssrc.to_be_bytes());
        body.extend([1, name.len() as u8]);
        body.extend(*name);
        body.push(0);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    out.extend([0x80 | chunks.len() as u8, 202]);
    out.extend((body.len() as u16 / 4).to_be_bytes());
    out.extend(body);
    out
}

/// A goodbye.
pub fn bye(ssrcs: &[u32]) -> Vec<u8> {
    let mut out = vec![0x80 | ssrcs.len() as u8, 203, 0, ssrcs.len() as u8];
    out.extend(ssrcs.iter().flat_map(|ssrc| ssrc.to_be_bytes()));
    out
}
