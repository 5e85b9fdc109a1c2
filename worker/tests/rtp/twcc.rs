//! Transport-wide feedback packets: what is written is what an independent reader reads.

use proptest::prelude::*;
use rtcp_types::{Compound, Packet, Twcc, TwccPacketStatus};
use weir_worker::rtp::rtcp::twcc::FeedbackWriter;

/// Numbers with the ticks at which they came, as `rtcp_types` reads them; with the SSRCs and the count.
fn read(compound: &[u8]) -> (u32, u32, u8, Vec<(u16, Option<u32>)>) {
    let packets: Vec<_> = Compound::parse(compound)
        .expect("RTCP")
        .map(|packet| packet.expect("a packet"))
        .collect();
    let [Packet::Rr(report), Packet::Sdes(_), Packet::TransportFeedback(feedback)] = &packets[..] else {
        panic!("a compound packet with feedback, not {packets:?}")
    };
    assert_eq!(report.ssrc(), feedback.sender_ssrc());
    let twcc = feedback.parse_fci::<Twcc>().expect("transport-wide feedback");
    let mut time = twcc.reference_time().wrapping_mul(256);
    let statuses = twcc.packets().map(|status| match status.expect("a status") {
        (number, TwccPacketStatus::NotReceived) => (number, None),
        (number, TwccPacketStatus::Received { delta }) => {
            time = time.wrapping_add_signed(i32::from(delta));
            (number, Some(time))
        }
    });
    let statuses = statuses.collect();
    (
        feedback.sender_ssrc(),
        feedback.media_ssrc(),
        twcc.feedback_packet_count(),
        statuses,
    )
}

/// Statuses, as streaks of some kind: nothing, a burst, a stream, a shuffled one, leaps.
fn arrivals() -> impl Strategy<Value = Vec<Option<u32>>> {
    let streak = (0..5_u8, 1..400_usize, prop::collection::vec(any::<u16>(), 16));
    prop::collection::vec(streak, 1..12).prop_map(|streaks| {
        let mut time = 0x00ff_fff0_u32;
        let mut arrivals = Vec::new();
        for (kind, len, noise) in streaks {
            for index in 0..len {
                let noise = u32::from(noise[index % 16]) + index as u32 % 7;
                time = match kind {
                    0 => time,
                    1 => time.wrapping_add(noise % 8),
                    2 => time.wrapping_add(noise % 300),
                    3 => time.wrapping_add(noise % 100).wrapping_sub(50),
                    _ => time.wrapping_add(noise * 2_000),
                };
                let is_lost = kind == 0 && len > 200 || noise % 10 == u32::from(kind);
                arrivals.push((!is_lost).then_some(time));
            }
        }
        arrivals
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_written_is_what_rtcp_types_reads(
        base in any::<u16>(),
        shift in any::<u32>(),
        first_count in any::<u8>(),
        arrivals in arrivals(),
    ) {
        let arrivals: Vec<_> = arrivals.iter().map(|at| at.map(|at| at.wrapping_add(shift))).collect();
        let mut writer = FeedbackWriter::new(7);
        let (mut told, mut count) = (Vec::new(), first_count);
        let mut rest = &arrivals[..];
        while !rest.is_empty() {
            writer.begin(base.wrapping_add((arrivals.len() - rest.len()) as u16));
            let said = rest.iter().take_while(|arrival| writer.push(**arrival)).count();
            prop_assert!(said > 0, "no progress");
            rest = &rest[said..];
            if !writer.has_arrivals() {
                // Nothing has come: there is nothing to say it with.
                prop_assert!(rest.is_empty());
                told.resize(told.len() + said, None);
                continue;
            }
            let packet = writer.finish(9, count);
            prop_assert!(packet.len() <= 1_200 && packet.len().is_multiple_of(4));
            let (sender, media, read_count, statuses) = read(packet);
            prop_assert_eq!((sender, media, read_count), (7, 9, count));
            prop_assert_eq!(statuses.len(), said);
            for (number, status) in statuses {
                prop_assert_eq!(number, base.wrapping_add(told.len() as u16));
                told.push(status);
            }
            count = count.wrapping_add(1);
        }
        prop_assert_eq!(told, arrivals);
    }
}

/// Each packet is as short as its chunks allow.
#[test]
fn usual_streams_take_little() {
    let len = |arrivals: &[Option<u32>]| {
        let mut writer = FeedbackWriter::new(7);
        writer.begin(1);
        assert!(arrivals.iter().all(|arrival| writer.push(*arrival)));
        writer.finish(9, 0).len() - 32
    };
    // 400 packets a second for 50 ms.
    let steady: Vec<_> = (0..20).map(|index| Some(10 * index)).collect();
    assert_eq!(len(&steady), 20 + 2 + 20 + 2);
    // Every tenth is lost: two vectors.
    let lossy: Vec<_> = (0..20).map(|index| (index % 10 != 5).then_some(10 * index)).collect();
    assert_eq!(len(&lossy), 20 + 4 + 18 + 2);
    // A second of nothing between two.
    let mut gap = vec![None; 1_000];
    (gap[0], gap[999]) = (Some(1), Some(4_001));
    assert_eq!(len(&gap), 20 + 6 + 3 + 3);
}
