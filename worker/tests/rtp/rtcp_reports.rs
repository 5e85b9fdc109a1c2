//! Extended reports (RFC 3611), REMB, and compound packets of reports: the bytes, clause by clause, and back again.

use proptest::prelude::*;
use rtcp_types::{Compound as Parsed, Packet};
use weir_worker::rtp::Malformed;
use weir_worker::rtp::rtcp::compound::{COMPOUND_BYTES_MAX, Compound, SenderInfo};
use weir_worker::rtp::rtcp::remb::{remb_len, write_remb};
use weir_worker::rtp::rtcp::xr::{
    DELAYS_MAX, Delay, REFERENCE_TIME_LEN, delays_len, write_delays, write_reference_time,
};
use weir_worker::rtp::rtcp::{ReportBlock, RtcpItem, parse};

fn told(compound: &[u8]) -> Result<Vec<RtcpItem>, Malformed> {
    let mut told = Vec::new();
    parse(compound, |feedback| told.push(feedback))?;
    Ok(told)
}

#[test]
fn rfc3611_4_4_a_reference_time() {
    let mut out = [0; REFERENCE_TIME_LEN];
    assert_eq!(write_reference_time(&mut out, 0x0a0b_0c0d, 0x0102_0304_0506_0708), 20);
    let expected = [0x80, 207, 0, 4, 10, 11, 12, 13, 4, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8];
    assert_eq!(out, expected);
    let reference = RtcpItem::ReferenceTime {
        ssrc: 0x0a0b_0c0d,
        ntp: 0x0102_0304_0506_0708,
    };
    assert_eq!(told(&expected), Ok(vec![reference]));
    assert_eq!(write_reference_time(&mut out[1..], 1, 2), 0, "no room");
}

#[test]
fn rfc3611_4_5_delays_among_blocks_of_other_types() {
    let delay = |ssrc| Delay {
        ssrc,
        reference: 0x1111_2222,
        since: 65_536,
    };
    let mut out = [0; 100];
    let len = write_delays(&mut out, 9, &[delay(1), delay(2)]);
    assert_eq!(len, delays_len(2));
    #[rustfmt::skip]
    let expected = [
        0x80, 207, 0, 8, 0, 0, 0, 9, 5, 0, 0, 6,
        0, 0, 0, 1, 0x11, 0x11, 0x22, 0x22, 0, 1, 0, 0,
        0, 0, 0, 2, 0x11, 0x11, 0x22, 0x22, 0, 1, 0, 0,
    ];
    assert_eq!(out[..len], expected);
    assert_eq!(write_delays(&mut out, 9, &[]), 0);

    // A loss run length block, the delays, a statistics summary without content.
    let mut mixed = vec![0x80, 207, 0, 11, 0, 0, 0, 9, 1, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
    mixed.extend(&expected[8..]);
    mixed.extend([6, 0, 0, 0]);
    let answer = |ssrc| RtcpItem::DelaySinceReference {
        sender: 9,
        delay: delay(ssrc),
    };
    assert_eq!(told(&mixed), Ok(vec![answer(1), answer(2)]));
    // Blocks that run past the end, or past their own.
    for (at, words) in [(11, 2), (19, 8)] {
        let mut wrong = mixed.clone();
        wrong[at] = words;
        assert!(told(&wrong).is_err() || told(&wrong) != told(&mixed), "{at} {words}");
    }
    assert_eq!(told(&[0x80, 207, 0, 0]), Err(Malformed::TooShort));
    let short_reference = [0x80, 207, 0, 3, 0, 0, 0, 9, 4, 0, 0, 1, 1, 2, 3, 4];
    assert_eq!(told(&short_reference), Err(Malformed::TooShort));
}

#[test]
fn remb_section_2_2_a_mantissa_of_18_bits_and_an_exponent_of_6() {
    let mut out = [0; remb_len(2)];
    assert_eq!(write_remb(&mut out, 7, 0x3_ffff << 3 | 7, &[0xaa, 0xbb]), 28);
    #[rustfmt::skip]
    let expected = [
        0x8f, 206, 0, 6, 0, 0, 0, 7, 0, 0, 0, 0, b'R', b'E', b'M', b'B',
        2, 3 << 2 | 3, 0xff, 0xff, 0, 0, 0, 0xaa, 0, 0, 0, 0xbb,
    ];
    assert_eq!(out, expected);
    // Rounded down: a limit is not exceeded.
    assert_eq!(told(&expected), Ok(vec![RtcpItem::Remb { bps: 0x3_ffff << 3 }]));
    // More streams than there are, and more than 64 bits.
    let mut wrong = expected;
    wrong[16] = 3;
    assert_eq!(told(&wrong), Ok(vec![RtcpItem::Other]));
    let mut huge = expected;
    huge[17] = 63 << 2 | 3;
    assert_eq!(told(&huge), Ok(vec![RtcpItem::Remb { bps: u64::MAX }]));
    let mut nothing = expected;
    nothing[17..20].copy_from_slice(&[63 << 2, 0, 0]);
    assert_eq!(told(&nothing), Ok(vec![RtcpItem::Remb { bps: 0 }]));
    // Another application's message.
    let mut other = expected;
    other[12] = b'X';
    assert_eq!(told(&other), Ok(vec![RtcpItem::Other]));
}

fn block() -> impl Strategy<Value = ReportBlock> {
    (any::<(u32, u8)>(), -0x80_0000..0x80_0000, any::<(u32, u32, u32, u32)>()).prop_map(
        |((ssrc, fraction_lost), packets_lost, (highest_seq, jitter, last, delay))| ReportBlock {
            ssrc,
            fraction_lost,
            packets_lost,
            highest_seq,
            jitter,
            last_sender_report: last,
            delay_since_last_sender_report: delay,
        },
    )
}

proptest! {
    /// What is written is read back, by us and by `rtcp-types`, whatever is in it.
    #[test]
    fn compounds_are_read_back(
        senders in prop::collection::vec((any::<(u32, u64, u32, u32, u32)>(), "[a-z]{1,40}"), 0..12),
        blocks in prop::collection::vec(block(), 0..31),
        reference in any::<u64>(),
    ) {
        let mut compound = Compound::new();
        let (mut expected, mut names) = (Vec::new(), Vec::new());
        let reporter = 0x4000_0001;
        names.push((reporter, b"weir".to_vec()));
        prop_assert!(compound.push_receiver_report(reporter, b"weir", &blocks));
        expected.extend(blocks.iter().map(|block| RtcpItem::ReceiverReport { ssrc: reporter, block: *block }));
        for ((ssrc, ntp, rtp, packets, octets), cname) in senders {
            // `rtcp-types` takes an SSRC that begins with zeros for padding of the chunk before it.
            let ssrc = ssrc | 0x8000_0000;
            let info = SenderInfo { ntp, rtp, packets, octets };
            if compound.push_sender_report(ssrc, cname.as_bytes(), &info) {
                expected.push(RtcpItem::SenderReport { ssrc, ntp, rtp, packets, octets });
                if names.last().is_none_or(|(named, _)| *named != ssrc) {
                    names.push((ssrc, cname.into_bytes()));
                }
            }
        }
        let mut packet = [0; REFERENCE_TIME_LEN];
        write_reference_time(&mut packet, 1, reference);
        if compound.push_packet(&packet) {
            expected.push(RtcpItem::ReferenceTime { ssrc: 1, ntp: reference });
        }
        let mut out = [0; COMPOUND_BYTES_MAX];
        let len = compound.write(&mut out);
        let (said, others): (Vec<_>, Vec<_>) =
            told(&out[..len]).unwrap().into_iter().partition(|said| matches!(said, RtcpItem::Cname { .. }));
        let said: Vec<_> = said
            .into_iter()
            .filter_map(|said| match said {
                RtcpItem::Cname { ssrc, at, len } => {
                    Some((ssrc, out[usize::from(at)..usize::from(at) + usize::from(len)].to_vec()))
                }
                _ => None,
            })
            .collect();
        prop_assert_eq!(said, names);
        prop_assert_eq!(others, expected);
        let parsed: Result<Vec<_>, _> = Parsed::parse(&out[..len]).unwrap().collect();
        let names = parsed.unwrap().into_iter().filter(|packet| matches!(packet, Packet::Sdes(_))).count();
        prop_assert_eq!(names, 1);
    }

    #[test]
    fn bitrates_are_rounded_down_by_less_than_a_part_in_131072(bps in any::<u64>(), ssrcs in prop::collection::vec(any::<u32>(), 0..30)) {
        let mut out = [0; remb_len(30)];
        let len = write_remb(&mut out, 1, bps, &ssrcs);
        let Ok([RtcpItem::Remb { bps: read }]) = told(&out[..len]).as_deref().map(|told| <[RtcpItem; 1]>::try_from(told).unwrap()) else {
            return Err(TestCaseError::fail("no bitrate"));
        };
        prop_assert!(read <= bps && bps - read <= bps >> 17);
    }

    #[test]
    fn delays_are_read_back(delays in prop::collection::vec(any::<(u32, u32, u32)>(), 1..DELAYS_MAX)) {
        let delays: Vec<_> = delays.into_iter().map(|(ssrc, reference, since)| Delay { ssrc, reference, since }).collect();
        let mut out = [0; delays_len(DELAYS_MAX)];
        let len = write_delays(&mut out, 3, &delays);
        let expected = delays.into_iter().map(|delay| RtcpItem::DelaySinceReference { sender: 3, delay }).collect();
        prop_assert_eq!(told(&out[..len]), Ok(expected));
    }
}
