//! What it costs to understand a packet and to rewrite it: every function on the packet path of `weir_worker::rtp`, on
//! the recorded packets of `tests/media`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench is a program, and fails if it cannot go on"
)]

mod common;

use std::hint::black_box;
use std::process::ExitCode;

use common::Case;
use weir_channel::message::CodecName;
use weir_recordings::rtpdump::Rtpdump;
use weir_worker::rtp::extension::{Walk, elements, rename};
use weir_worker::rtp::rtcp::{self, PLI_LEN, write_pli};
use weir_worker::rtp::{Header, Seen, SeqExtender, TimestampExtender, classify, peek, rewrite};

/// Packets per pass: as many as a worker takes in at once, so that they are as warm as there.
const PACKETS: usize = 64;

/// The first packets of a recording.
fn packets(dump: &[u8]) -> Vec<Vec<u8>> {
    let packets: Vec<_> = Rtpdump::parse(dump)
        .unwrap()
        .records()
        .map(|record| record.unwrap().packet.to_vec())
        .take(PACKETS)
        .collect();
    assert_eq!(packets.len(), PACKETS);
    packets
}

fn video() -> Vec<Vec<u8>> {
    packets(include_bytes!("../tests/media/high.rtpdump"))
}

/// The same packets as a browser sends them, with MID, abs-send-time and a transport-wide number.
fn extended() -> Vec<Vec<u8>> {
    const EXTENSION: [u8; 16] = [0xbe, 0xde, 0, 3, 0x10, b'0', 0x22, 1, 2, 3, 0x31, 0, 7, 0, 0, 0];
    let mut packets = video();
    for packet in &mut packets {
        packet[0] |= 0x10;
        packet.splice(12..12, EXTENSION);
    }
    packets
}

fn payloads(dump: &[u8]) -> Vec<Vec<u8>> {
    packets(dump)
        .iter()
        .map(|packet| Header::parse(packet).unwrap().payload(packet).to_vec())
        .collect()
}

fn peek_case(name: &'static str, codec: CodecName, payloads: Vec<Vec<u8>>) -> Case {
    Case::new(name, PACKETS, move || {
        let payloads = payloads.clone();
        move || {
            for payload in &payloads {
                black_box(peek(black_box(codec), black_box(payload)));
            }
        }
    })
}

fn headers() -> Vec<Case> {
    let parse = |packets: fn() -> Vec<Vec<u8>>| {
        move || {
            let packets = packets();
            move || {
                for packet in &packets {
                    black_box(Header::parse(black_box(packet)).unwrap());
                }
            }
        }
    };
    vec![
        // What the others contain besides what they are called: the loop, and seeing to it that nothing is left out.
        Case::new("nothing", PACKETS, || {
            let packets = video();
            move || {
                for packet in &packets {
                    black_box(black_box(packet));
                }
            }
        }),
        Case::new("classify", PACKETS, || {
            let packets = video();
            move || {
                for packet in &packets {
                    black_box(classify(black_box(packet)));
                }
            }
        }),
        Case::new("header", PACKETS, parse(video)),
        Case::new("header_extended", PACKETS, parse(extended)),
        Case::new("rewrite", PACKETS, || {
            let mut packets = video();
            let mut seq = 0u16;
            move || {
                for packet in &mut packets {
                    seq = seq.wrapping_add(1);
                    rewrite(black_box(packet), 100, seq, u32::from(seq) * 3_000, 0x1234_5678);
                }
            }
        }),
        Case::new("extensions_walk", PACKETS, || {
            let packets = extended();
            move || {
                for packet in &packets {
                    let block = Header::parse(packet).unwrap().extension.unwrap();
                    elements(black_box(packet), block).for_each(|element| {
                        black_box(element);
                    });
                }
            }
        }),
        Case::new("extensions_rename", PACKETS, || {
            let mut packets = extended();
            move || {
                for packet in &mut packets {
                    let block = Header::parse(packet).unwrap().extension.unwrap();
                    let mut walk = Walk::through(block);
                    while let Some(element) = walk.next(packet) {
                        // Ids go round, from 1 to 6.
                        rename(packet, block.form, element, element.id % 6 + 1);
                    }
                }
            }
        }),
    ]
}

fn numbers() -> Vec<Case> {
    vec![
        Case::new("sequence", PACKETS, || {
            let (mut seqs, mut seq) = (SeqExtender::default(), 0u16);
            move || {
                for _ in 0..PACKETS {
                    seq = seq.wrapping_add(1);
                    black_box(seqs.accept(black_box(seq)));
                }
            }
        }),
        Case::new("seen", PACKETS, || {
            let (mut seen, mut seq) = (Seen::default(), 0u64);
            move || {
                for _ in 0..PACKETS {
                    seq += 1;
                    black_box(seen.insert(black_box(seq)));
                }
            }
        }),
        Case::new("seen_with_gaps", PACKETS, || {
            let (mut seen, mut seq) = (Seen::default(), 0u64);
            move || {
                for at in 0..PACKETS as u64 {
                    seq += at % 8;
                    black_box(seen.insert(black_box(seq)));
                }
            }
        }),
        Case::new("timestamp", PACKETS, || {
            let (mut timestamps, mut ts) = (TimestampExtender::default(), 0u32);
            move || {
                for _ in 0..PACKETS {
                    ts = ts.wrapping_add(3_000);
                    black_box(timestamps.extend(black_box(ts)));
                }
            }
        }),
    ]
}

fn peeks() -> Vec<Case> {
    // AV1 and H.265 were not recorded: the first packet of a key frame, and packets that continue it.
    let made = |start: &[u8], next: &[u8]| {
        let mut payloads = vec![[next, &[0; 1_000]].concat(); PACKETS];
        payloads[0] = [start, &[0; 1_000]].concat();
        payloads
    };
    vec![
        peek_case(
            "peek_vp8",
            CodecName::Vp8,
            payloads(include_bytes!("../tests/media/high.rtpdump")),
        ),
        peek_case(
            "peek_vp9",
            CodecName::Vp9,
            payloads(include_bytes!("../tests/media/vp9.rtpdump")),
        ),
        peek_case(
            "peek_h264",
            CodecName::H264,
            payloads(include_bytes!("../tests/media/h264.rtpdump")),
        ),
        peek_case(
            "peek_h265",
            CodecName::H265,
            made(&[0x62, 1, 0x93, 0x80], &[0x62, 1, 0x13, 0x80]),
        ),
        peek_case("peek_av1", CodecName::Av1, made(&[0x68, 2, 0x0a, 0], &[0xd0, 0])),
        peek_case(
            "peek_opus",
            CodecName::Opus,
            payloads(include_bytes!("../tests/media/opus.rtpdump")),
        ),
    ]
}

fn control() -> Vec<Case> {
    let mut compound = [0; PLI_LEN];
    write_pli(&mut compound, 1, 2);
    vec![
        Case::new("rtcp_parse", PACKETS, move || {
            move || {
                for _ in 0..PACKETS {
                    rtcp::parse(black_box(&compound), |feedback| {
                        black_box(feedback);
                    })
                    .unwrap();
                }
            }
        }),
        Case::new("rtcp_write_pli", PACKETS, || {
            let mut out = [0; PLI_LEN];
            move || {
                for media_ssrc in 0..PACKETS as u32 {
                    write_pli(black_box(&mut out), 1, media_ssrc);
                }
            }
        }),
    ]
}

/// All that is done once for a VP8 packet that comes in.
fn receive() -> Case {
    Case::new("receive", PACKETS, || {
        let mut packets = video();
        let (mut seqs, mut seen, mut timestamps) =
            (SeqExtender::default(), Seen::default(), TimestampExtender::default());
        let mut seq = 0u16;
        move || {
            for packet in &mut packets {
                // A stream that never ends, rather than the same packets again.
                seq = seq.wrapping_add(1);
                packet[2..4].copy_from_slice(&seq.to_be_bytes());
                let packet = black_box(packet.as_slice());
                black_box(classify(packet));
                let header = Header::parse(packet).unwrap();
                if let weir_worker::rtp::Arrival::InOrder(ext) = seqs.accept(header.seq) {
                    black_box(seen.insert(ext));
                }
                black_box(timestamps.extend(header.timestamp));
                black_box(peek(black_box(CodecName::Vp8), header.payload(packet)));
            }
        }
    })
}

fn main() -> ExitCode {
    let mut cases = headers();
    cases.extend(numbers());
    cases.extend(peeks());
    cases.push(receive());
    cases.extend(control());
    common::run("parse", "packet", &cases)
}
