//! Calls over paths that lose, reorder and repeat packets in both directions: what is lost is asked for, sent again, and
//! arrives as if nothing had happened.

use weir_channel::message::Profile;

use crate::sim::repair::{Call, Link};
use crate::sim::{for_each_seed, ms};

const LONE: &[Profile] = &[Profile::Default];
const LAYERS: &[Profile] = &[Profile::Low, Profile::High];

/// A minute, and some seconds for what is still missing then; returns how many of a thousand packets each receiver got.
#[track_caller]
fn permille(call: &mut Call) -> Vec<f64> {
    call.run(ms(60_000));
    let last = call.newest();
    call.run(ms(2_500));
    call.sim.check_accounts();
    (0..call.receivers.len())
        .map(|receiver| {
            call.judge(receiver);
            let (got, sent) = call.got_and_sent(receiver, last);
            assert!(sent > 5_000, "{sent} packets are few");
            got as f64 * 1_000.0 / sent as f64
        })
        .collect()
}

#[test]
fn random_loss_both_ways() {
    for (loss, at_least) in [(10, 999.9), (50, 999.5), (100, 999.0), (200, 995.0)] {
        for rtx in [true, false] {
            for_each_seed(2, |seed| {
                let mut call = Call::new(seed, LONE, 2, rtx, [Link::random(loss); 4]);
                let got = permille(&mut call);
                assert!(
                    got.iter().all(|got| *got >= at_least),
                    "{loss} permille lost, rtx {rtx}: {got:?} of a thousand arrived"
                );
                // It was hard work.
                let stream = call.sim.producer_stats(call.track.id()).streams.remove(0);
                let lost = stream.packets as usize * loss / 1_000;
                assert!(stream.packets_repaired as usize > lost / 2, "{stream:?}");
                assert!(stream.packets_lost < stream.packets / 100, "{stream:?}");
                assert!(stream.packets_nacked >= stream.packets_repaired, "{stream:?}");
                assert!(stream.nack_count > 0 && stream.nack_count <= stream.packets_nacked);
                for receiver in &call.receivers {
                    assert!(receiver.repaired as usize > lost / 2);
                }
                let consumer = call.receivers[0].consumer;
                let stats = call.sim.stats(consumer);
                assert!(stats.packets_retransmitted as usize > lost / 2, "{stats:?}");
                assert!(
                    stats.bytes_retransmitted > stats.packets_retransmitted * 50,
                    "{stats:?}"
                );
                assert!(stats.nack_count > 0, "{stats:?}");
            });
        }
    }
}

#[test]
fn bursts_reordering_and_duplication() {
    let bad = Link {
        loss: 20,
        burst: 5,
        burst_ms: 150,
        duplicate: 20,
        late: 50,
        late_ms: 60,
        delay_ms: 30,
        ..Link::default()
    };
    for rtx in [true, false] {
        for_each_seed(3, |seed| {
            let mut call = Call::new(seed, LONE, 2, rtx, [bad; 4]);
            let got = permille(&mut call);
            assert!(got.iter().all(|got| *got >= 999.0), "rtx {rtx}: {got:?}");
        });
    }
}

/// Packets that are only late, and never lost, cost few requests.
#[test]
fn a_little_reordering_is_not_loss() {
    let link = Link {
        late: 200,
        late_ms: 3,
        delay_ms: 20,
        ..Link::default()
    };
    let mut call = Call::new(1, LONE, 1, true, [link; 4]);
    assert_eq!(permille(&mut call), [1_000.0]);
    let stream = call.sim.producer_stats(call.track.id()).streams.remove(0);
    assert_eq!((stream.nack_count, stream.packets_lost), (0, 0), "{stream:?}");
}

/// Each receiver goes back and forth between two layers, and all it has is as it should be.
#[test]
fn switches_in_the_middle() {
    for rtx in [true, false] {
        for_each_seed(3, |seed| {
            let mut call = Call::new(seed, LAYERS, 3, rtx, [Link::random(80); 4]);
            for round in 0..40 {
                let receiver = call.receivers[round % 3].consumer;
                let profile = [Profile::Low, Profile::High][round / 3 % 2];
                call.sim.prefer(receiver, profile);
                call.run(ms(700));
            }
            call.run(ms(2_500));
            call.sim.check_accounts();
            for receiver in 0..3 {
                call.judge(receiver);
                let consumer = call.receivers[receiver].consumer;
                assert!(call.sim.stats(consumer).switches > 3);
                let packets = &call.receivers[receiver].packets;
                let first = packets.first_key_value().map_or(0, |(seq, _)| *seq);
                let last = packets.last_key_value().map_or(0, |(seq, _)| *seq);
                let expected = last - first + 1;
                // What the producer's side had not repaired when the receiver switched away stays lost.
                assert!(
                    packets.len() as u64 * 1_000 >= expected * 990,
                    "{} of {expected}",
                    packets.len()
                );
            }
        });
    }
}
