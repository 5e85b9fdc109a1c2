//! RTCP: RFC 3550 §6, RFC 4585 §6, RFC 5104 §4.3.1 and RFC 5506, clause by clause, and against `rtcp-types`.

use proptest::prelude::*;
use rtcp_types::prelude::*;
use rtcp_types::{
    Compound, Fir, Nack, Packet, PayloadFeedback, Pli, ReceiverReport, Sdes, SenderReport, TransportFeedback,
};
use weir_worker::rtp::Malformed;
use weir_worker::rtp::rtcp::{FIR_LEN, PLI_LEN, ReportBlock, RtcpItem, parse, write_fir, write_pli};

fn told(compound: &[u8]) -> Result<Vec<RtcpItem>, Malformed> {
    let mut told = Vec::new();
    parse(compound, |feedback| told.push(feedback))?;
    Ok(told)
}

const PLI: [u8; 12] = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
const EMPTY_RR: [u8; 8] = [0x80, 201, 0, 1, 0, 0, 0, 1];

#[test]
fn rfc4585_6_3_1_pli_names_its_source_in_the_common_header() {
    assert_eq!(told(&PLI), Ok(vec![RtcpItem::Pli { media_ssrc: 2 }]));
}

#[test]
fn rfc5104_4_3_1_fir_names_its_sources_in_its_entries() {
    let fir = [
        0x84, 206, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, // the media source of the header is 0
        0, 0, 0, 7, 42, 0, 0, 0, // an entry
        0, 0, 0, 8, 255, 0, 0, 0, // and another
    ];
    assert_eq!(
        told(&fir),
        Ok(vec![
            RtcpItem::Fir { ssrc: 7, seq: 42 },
            RtcpItem::Fir { ssrc: 8, seq: 255 }
        ])
    );
    // It must have at least one.
    assert_eq!(
        told(&[0x84, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0]),
        Err(Malformed::TooShort)
    );
    assert_eq!(
        told(&[0x84, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7]),
        Err(Malformed::TooShort)
    );
}

#[test]
fn rfc4585_6_2_1_nack_is_a_list_of_pairs() {
    let nack = [
        0x81, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0x12, 0x34, 0x80, 0x01, 0xff, 0xff, 0, 0,
    ];
    assert_eq!(
        told(&nack),
        Ok(vec![
            RtcpItem::Nack {
                media_ssrc: 2,
                pid: 0x1234,
                blp: 0x8001,
                first: true,
            },
            RtcpItem::Nack {
                media_ssrc: 2,
                pid: 0xffff,
                blp: 0,
                first: false,
            },
        ])
    );
}

#[test]
fn rfc3550_6_4_1_sender_report_and_its_blocks() {
    let mut report = vec![0x81, 200, 0, 12, 0, 0, 0, 9];
    report.extend(0x1122_3344_5566_7788u64.to_be_bytes());
    for number in [90_000u32, 5, 6_000] {
        report.extend(number.to_be_bytes());
    }
    report.extend([0, 0, 0, 7, 64, 0xff, 0xff, 0xfe]);
    for number in [0x0001_ffffu32, 33, 0xaabb_ccdd, 65_536] {
        report.extend(number.to_be_bytes());
    }
    assert_eq!(
        told(&report),
        Ok(vec![
            RtcpItem::SenderReport {
                ssrc: 9,
                ntp: 0x1122_3344_5566_7788,
                rtp: 90_000,
                packets: 5,
                octets: 6_000
            },
            RtcpItem::ReceiverReport {
                ssrc: 9,
                block: ReportBlock {
                    ssrc: 7,
                    fraction_lost: 64,
                    packets_lost: -2, // 24 bits, signed: duplicates
                    highest_seq: 0x0001_ffff,
                    jitter: 33,
                    last_sender_report: 0xaabb_ccdd,
                    delay_since_last_sender_report: 65_536
                }
            }
        ])
    );
    // One block is promised and missing.
    let mut short = report[..28].to_vec();
    short[3] = 6;
    assert_eq!(told(&short), Err(Malformed::TooShort));
}

#[test]
fn rfc3550_6_4_2_receiver_report_may_be_empty_and_may_be_extended() {
    assert_eq!(told(&EMPTY_RR), Ok(vec![]));
    let extended = [0x80, 201, 0, 2, 0, 0, 0, 1, 9, 9, 9, 9];
    assert_eq!(told(&extended), Ok(vec![]));
}

#[test]
fn rfc3550_6_6_bye_names_all_that_leave() {
    let bye = [0x82, 203, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 3, b'o', b'u', b't'];
    assert_eq!(
        told(&bye),
        Ok(vec![RtcpItem::Bye { ssrc: 1 }, RtcpItem::Bye { ssrc: 2 }])
    );
    assert_eq!(told(&[0x80, 203, 0, 0]), Ok(vec![]));
    assert_eq!(told(&[0x82, 203, 0, 1, 0, 0, 0, 1]), Err(Malformed::TooShort));
}

#[test]
fn rfc3550_6_1_packets_of_unknown_type_are_passed_over() {
    // SDES without a canonical name, of which nothing is told; APP, an XR without blocks that we know, a transport-wide report, a
    // REMB that is cut off; and a PLI.
    let mut compound = vec![0x81, 202, 0, 2, 0, 0, 0, 1, 2, 1, b'm', 0];
    compound.extend([0x80, 204, 0, 2, 0, 0, 0, 1, b'w', b'e', b'i', b'r']);
    compound.extend([0x80, 207, 0, 3, 0, 0, 0, 1, 7, 0, 0, 1, 9, 9, 9, 9]);
    compound.extend([0x8f, 205, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
    compound.extend([0x8f, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B']);
    compound.extend(PLI);
    let mut expected = vec![RtcpItem::Other; 3];
    expected.push(RtcpItem::Pli { media_ssrc: 2 });
    assert_eq!(told(&compound), Ok(expected));
}

#[test]
fn rfc3550_6_5_chunks_say_names_until_they_make_no_sense() {
    let name = |ssrc, at, len| RtcpItem::Cname { ssrc, at, len };
    // Two chunks: a tool and then a name of 3 bytes that fills its word with the end; an empty name, and three zeros more.
    let mut description = vec![
        0x82, 202, 0, 6, 0, 0, 0, 7, 6, 1, b't', 1, 3, b'a', b'b', b'c', 0, 0, 0, 0,
    ];
    description.extend([0, 0, 0, 9, 1, 0, 0, 0]);
    assert_eq!(told(&description), Ok(vec![name(7, 13, 3), name(9, 26, 0)]));
    // Behind another packet, and in front of one.
    let compound = [EMPTY_RR.as_slice(), &description, &PLI].concat();
    let expected = vec![name(7, 21, 3), name(9, 34, 0), RtcpItem::Pli { media_ssrc: 2 }];
    assert_eq!(told(&compound), Ok(expected));
    // More chunks are counted than there are; an item longer than the packet; a chunk cut off behind its SSRC.
    description[0] = 0x9f;
    assert_eq!(told(&description), Ok(vec![name(7, 13, 3), name(9, 26, 0)]));
    description[12] = 200;
    assert_eq!(told(&description), Ok(vec![]));
    assert_eq!(told(&[0x81, 202, 0, 1, 0, 0, 0, 7]), Ok(vec![]));
    assert_eq!(told(&[0x81, 202, 0, 0]), Ok(vec![]));
}

#[test]
fn rfc5506_reduced_size_packets_are_taken() {
    assert!(told(&PLI).is_ok());
    assert!(told(&[EMPTY_RR.as_slice(), &PLI].concat()).is_ok());
}

#[test]
fn rfc3550_a_2_one_bad_frame_spoils_the_compound() {
    let bad: &[(&[u8], Malformed)] = &[
        (&[], Malformed::TooShort),
        (&[0x80], Malformed::TooShort),
        (&[0x80, 201, 0, 1], Malformed::TooShort),
        (&[0x80, 201, 0xff, 0xff, 0, 0, 0, 1], Malformed::TooShort),
        (&[0x40, 201, 0, 1, 0, 0, 0, 1], Malformed::Version),
        (&[0xc0, 201, 0, 1, 0, 0, 0, 1], Malformed::Version),
    ];
    for (frame, reason) in bad {
        assert_eq!(told(frame), Err(*reason), "{frame:?}");
        if !frame.is_empty() {
            // Nothing was told of what stands before it either.
            let compound = [&PLI, *frame].concat();
            let mut count = 0;
            assert_eq!(parse(&compound, |_| count += 1), Err(*reason));
            assert_eq!(count, 0);
        }
    }
}

#[test]
fn rfc3550_6_4_1_padding_stands_on_the_last_packet_and_is_not_content() {
    // What looks like a second pair is padding.
    let padded = [0xa1, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, 0, 5, 0, 0, 0, 0, 0, 4];
    let nack = RtcpItem::Nack {
        media_ssrc: 2,
        pid: 5,
        blp: 0,
        first: true,
    };
    assert_eq!(told(&padded), Ok(vec![nack]));
    let fir = [
        0xa4, 206, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 42, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8,
    ];
    assert_eq!(told(&fir), Ok(vec![RtcpItem::Fir { ssrc: 7, seq: 42 }]));
    let pli = [0xa1, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 4];
    assert_eq!(told(&pli), Ok(vec![RtcpItem::Pli { media_ssrc: 2 }]));
    let mut not_last = padded.to_vec();
    not_last.extend(PLI);
    assert_eq!(told(&not_last), Err(Malformed::Padding));
    // Zero, not whole words, and so much that the media source is not there any more.
    for count in [0, 3, 16, 20, 255] {
        let mut wrong = padded;
        wrong[19] = count;
        let expected = if count == 16 {
            Malformed::TooShort
        } else {
            Malformed::Padding
        };
        assert_eq!(told(&wrong), Err(expected), "{count}");
    }
    // A block that lies in the padding.
    let mut report = vec![0xa1, 201, 0, 7, 0, 0, 0, 1];
    report.extend([0; 23]);
    report.push(4);
    assert_eq!(told(&report), Err(Malformed::TooShort));
}

#[test]
fn rfc4585_3_1_requests_are_minimal_compound_packets() {
    let (mut pli, mut fir) = ([0; PLI_LEN], [0; FIR_LEN]);
    write_pli(&mut pli, 0x0102_03fe, 0x0a0b_0c0d);
    write_fir(&mut fir, 0x0102_03fe, 0x0a0b_0c0d, 9);
    for (written, format) in [(&pli[..], 1), (&fir[..], 4)] {
        let packets: Vec<Packet> = Compound::parse(written).unwrap().collect::<Result<_, _>>().unwrap();
        let [
            Packet::Rr(report),
            Packet::Sdes(description),
            Packet::PayloadFeedback(feedback),
        ] = &packets[..]
        else {
            panic!("{packets:?}");
        };
        assert_eq!((report.ssrc(), report.n_reports()), (0x0102_03fe, 0));
        let chunk = description.chunks().next().unwrap();
        assert_eq!((chunk.ssrc(), description.chunks().count()), (0x0102_03fe, 1));
        let items: Vec<_> = chunk
            .items()
            .map(|item| (item.type_(), item.value().to_vec()))
            .collect();
        assert_eq!(items, [(1, b"weir-010203fe".to_vec())]);
        assert_eq!((feedback.sender_ssrc(), feedback.count()), (0x0102_03fe, format));
    }
}

#[test]
fn requests_are_what_rtcp_types_would_write() {
    let prefix = || {
        let sdes = Sdes::builder().add_chunk(rtcp_types::SdesChunk::builder(0xffff_0000).add_item(
            rtcp_types::SdesItem::builder(rtcp_types::SdesItem::CNAME, "weir-ffff0000"),
        ));
        Compound::builder()
            .add_packet(ReceiverReport::builder(0xffff_0000))
            .add_packet(sdes)
    };
    let mut expected = [0; 100];
    let mut written = [0; 100];

    let pli = PayloadFeedback::builder_owned(Pli::builder())
        .sender_ssrc(0xffff_0000)
        .media_ssrc(3);
    let len = prefix().add_packet(pli).write_into(&mut expected).unwrap();
    assert_eq!(write_pli(&mut written, 0xffff_0000, 3), len);
    assert_eq!(written[..len], expected[..len]);
    assert_eq!(len, PLI_LEN);

    let fir = PayloadFeedback::builder_owned(Fir::builder().add_ssrc(3, 200)).sender_ssrc(0xffff_0000);
    let len = prefix().add_packet(fir).write_into(&mut expected).unwrap();
    assert_eq!(write_fir(&mut written, 0xffff_0000, 3, 200), len);
    assert_eq!(written[..len], expected[..len]);
    assert_eq!(len, FIR_LEN);
}

#[test]
fn a_request_that_does_not_fit_is_not_written() {
    let mut out = [0xee; PLI_LEN - 1];
    assert_eq!(write_pli(&mut out, 1, 2), 0);
    assert_eq!(write_fir(&mut out, 1, 2, 3), 0);
    assert!(out.iter().all(|byte| *byte == 0xee));
}

/// What `rtcp-types` reads out of a compound without padding, in our words.
fn told_by_rtcp_types(compound: &[u8]) -> Option<Vec<RtcpItem>> {
    let mut told = Vec::new();
    let block = |ssrc, block: rtcp_types::ReportBlock| RtcpItem::ReceiverReport {
        ssrc,
        block: ReportBlock {
            ssrc: block.ssrc(),
            fraction_lost: block.fraction_lost(),
            packets_lost: match block.cumulative_lost() as i32 {
                lost @ 0x80_0000.. => lost - 0x100_0000,
                lost => lost,
            },
            highest_seq: block.extended_sequence_number(),
            jitter: block.interarrival_jitter(),
            last_sender_report: block.last_sender_report_timestamp(),
            delay_since_last_sender_report: block.delay_since_last_sender_report_timestamp(),
        },
    };
    let mut next = 0;
    for packet in Compound::parse(compound).ok()? {
        let at = next;
        next += 4 * (usize::from(u16::from_be_bytes([compound[at + 2], compound[at + 3]])) + 1);
        match packet.ok()? {
            Packet::Sr(report) => {
                told.push(RtcpItem::SenderReport {
                    ssrc: report.ssrc(),
                    ntp: report.ntp_timestamp(),
                    rtp: report.rtp_timestamp(),
                    packets: report.packet_count(),
                    octets: report.octet_count(),
                });
                told.extend(report.report_blocks().map(|it| block(report.ssrc(), it)));
            }
            Packet::Rr(report) => told.extend(report.report_blocks().map(|it| block(report.ssrc(), it))),
            Packet::Bye(bye) => told.extend(bye.ssrcs().map(|ssrc| RtcpItem::Bye { ssrc })),
            // One chunk, with nothing but the name.
            Packet::Sdes(description) => {
                let chunk = description.chunks().next()?;
                told.push(RtcpItem::Cname {
                    ssrc: chunk.ssrc(),
                    at: at as u16 + 10,
                    len: chunk.items().next()?.value().len() as u8,
                });
            }
            Packet::PayloadFeedback(feedback) => {
                if feedback.parse_fci::<Pli>().is_ok() {
                    told.push(RtcpItem::Pli {
                        media_ssrc: feedback.media_ssrc(),
                    });
                } else if let Ok(fir) = feedback.parse_fci::<Fir>() {
                    told.extend(fir.entries().map(|entry| RtcpItem::Fir {
                        ssrc: entry.ssrc(),
                        seq: entry.sequence(),
                    }));
                } else {
                    told.push(RtcpItem::Other);
                }
            }
            _ => told.push(RtcpItem::Other),
        }
    }
    Some(told)
}

/// One packet as `rtcp-types` writes it, of the kinds that reach a relay.
fn packet() -> impl Strategy<Value = Vec<u8>> {
    fn written(packet: impl RtcpPacketWriterExt) -> Vec<u8> {
        let mut out = vec![0; 1_000];
        let len = packet.write_into(&mut out).expect("a packet this small can be written");
        out.truncate(len);
        out
    }
    let blocks = || prop::collection::vec((any::<u32>(), any::<u8>(), 0u32..1 << 24, any::<u32>()), 0..4);
    let block = |(ssrc, fraction, lost, number): (u32, u8, u32, u32)| {
        rtcp_types::ReportBlock::builder(ssrc)
            .fraction_lost(fraction)
            .cumulative_lost(lost)
            .extended_sequence_number(number)
            .interarrival_jitter(number / 3)
            .last_sender_report_timestamp(number / 5)
            .delay_since_last_sender_report_timestamp(number / 7)
    };
    prop_oneof![
        (any::<u32>(), any::<u64>(), any::<[u32; 3]>(), blocks()).prop_map(move |(ssrc, ntp, [a, b, c], blocks)| {
            let report = SenderReport::builder(ssrc)
                .ntp_timestamp(ntp)
                .rtp_timestamp(a)
                .packet_count(b)
                .octet_count(c);
            written(
                blocks
                    .into_iter()
                    .map(block)
                    .fold(report, |report, it| report.add_report_block(it)),
            )
        }),
        (any::<u32>(), blocks()).prop_map(move |(ssrc, blocks)| {
            let report = ReceiverReport::builder(ssrc);
            written(
                blocks
                    .into_iter()
                    .map(block)
                    .fold(report, |report, it| report.add_report_block(it)),
            )
        }),
        prop::collection::vec(any::<u32>(), 0..4).prop_map(|ssrcs| {
            let bye = rtcp_types::Bye::builder();
            written(ssrcs.into_iter().fold(bye, |bye, ssrc| bye.add_source(ssrc)))
        }),
        any::<[u32; 2]>().prop_map(|[sender, media]| {
            let pli = PayloadFeedback::builder_owned(Pli::builder());
            written(pli.sender_ssrc(sender).media_ssrc(media))
        }),
        prop::collection::vec(any::<(u32, u8)>(), 1..4).prop_map(|entries| {
            let fir = entries
                .into_iter()
                .fold(Fir::builder(), |fir, (ssrc, seq)| fir.add_ssrc(ssrc, seq));
            written(PayloadFeedback::builder_owned(fir))
        }),
        any::<u32>().prop_map(|ssrc| {
            let item = rtcp_types::SdesItem::builder(rtcp_types::SdesItem::CNAME, "somebody");
            written(Sdes::builder().add_chunk(rtcp_types::SdesChunk::builder(ssrc).add_item(item)))
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn compounds_say_to_us_what_they_say_to_rtcp_types(packets in prop::collection::vec(packet(), 1..6)) {
        let compound = packets.concat();
        prop_assert_eq!(told(&compound).ok(), told_by_rtcp_types(&compound));
    }

    #[test]
    fn missing_packets_are_those_that_rtcp_types_asked_for(
        media_ssrc in any::<u32>(),
        first in 0u16..60_000,
        missing in prop::collection::btree_set(0u16..200, 1..60),
    ) {
        let missing: Vec<u16> = missing.into_iter().map(|offset| first + offset).collect();
        let nack = missing.iter().fold(Nack::builder(), |nack, seq| nack.add_rtp_sequence(*seq));
        let feedback = TransportFeedback::builder_owned(nack).media_ssrc(media_ssrc);
        let mut compound = vec![0; feedback.calculate_size().unwrap()];
        feedback.write_into(&mut compound).unwrap();
        let mut asked = Vec::new();
        parse(&compound, |feedback| {
            let RtcpItem::Nack { media_ssrc: ssrc, pid, blp, .. } = feedback else { panic!("{feedback:?}") };
            assert_eq!(ssrc, media_ssrc);
            asked.push(pid);
            asked.extend((0..16).filter(|bit| blp >> bit & 1 == 1).map(|bit| pid + bit + 1));
        })
        .unwrap();
        prop_assert_eq!(asked, missing);
    }

    #[test]
    fn every_truncation_is_refused_unless_it_ends_with_a_packet(packets in prop::collection::vec(packet(), 1..4)) {
        let compound = packets.concat();
        let mut ends = vec![];
        for packet in &packets {
            ends.push(ends.last().unwrap_or(&0) + packet.len());
        }
        for len in 0..=compound.len() {
            prop_assert_eq!(told(&compound[..len]).is_ok(), ends.contains(&len), "{}", len);
        }
    }

    #[test]
    fn any_bytes_can_be_parsed(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = told(&bytes);
    }

    #[test]
    fn flipped_bytes_can_be_parsed(
        packets in prop::collection::vec(packet(), 1..4),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut compound = packets.concat();
        for (at, value) in flips {
            let at = at.index(compound.len());
            compound[at] = value;
        }
        let _ = told(&compound);
    }
}
