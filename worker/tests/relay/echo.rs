//! Sender reports by whose answer it is known that what is sent to an address arrives there (RFC 3550 §6.4.1, LSR).

use std::collections::BTreeSet;

use weir_channel::id::{ConsumerId, TransportId};
use weir_worker::relay::Action;
use weir_worker::time::middle_of;

use crate::sim::reports::{self, Block, Said, said};
use crate::sim::track::Track;
use crate::sim::{Sim, ms};

/// A microphone and one listener.
fn call() -> (Sim, Track, TransportId, ConsumerId) {
    let mut sim = Sim::new(1);
    let room = sim.room();
    let sender = sim.transport(room);
    let track = sim.microphone(sender);
    let receiver = sim.transport(room);
    let consumer = sim.consumer(receiver, &track);
    (sim, track, receiver, consumer)
}

fn talk(sim: &mut Sim, track: &mut Track, packets: u64) {
    for _ in 0..packets {
        let packet = track.stream().sound();
        sim.send(track.request.transport, &[packet]);
        sim.advance(ms(20));
    }
}

/// NTP, RTP and SSRC of the first sender report in a packet.
fn report_in(packet: &[u8]) -> (u64, u32, u32) {
    let report = said(packet).into_iter().find_map(|said| match said {
        Said::SenderReport { ssrc, ntp, rtp, .. } => Some((ntp, rtp, ssrc)),
        _ => None,
    });
    report.expect("a sender report")
}

fn request(sim: &mut Sim, transport: TransportId, random: u32) -> Vec<u8> {
    let index = sim.index(transport);
    sim.relay.write_echo_request(sim.now, index, random).to_vec()
}

/// The receiver repeats this time.
fn answer(sim: &mut Sim, transport: TransportId, ssrc: u32, last_report: u32) -> bool {
    let block = Block {
        ssrc,
        last_report,
        ..Block::default()
    };
    sim.send_rtcp(transport, &reports::receiver_report(1, &[block]));
    let index = sim.index(transport);
    sim.wanted().contains(&Action::Echoed { transport: index })
}

#[test]
fn who_repeats_a_time_that_nobody_can_guess_has_received_it() {
    let (mut sim, mut track, receiver, _) = call();
    assert!(
        request(&mut sim, receiver, 1).is_empty(),
        "nothing was sent, so there is nothing to report"
    );
    talk(&mut sim, &mut track, 100);
    let ordinary: Vec<u32> = sim
        .sink
        .rtcp
        .iter()
        .flat_map(|(_, _, packet)| said(packet))
        .filter_map(|said| match said {
            Said::SenderReport { ntp, .. } => Some(middle_of(ntp)),
            _ => None,
        })
        .collect();
    assert!(!ordinary.is_empty());
    let (ntp, _, ssrc) = report_in(&request(&mut sim, receiver, 0x1234_5678));
    // What others are told is no answer, and no guess.
    for _ in 0..10 {
        for time in ordinary.iter().copied().chain([0]) {
            assert!(!answer(&mut sim, receiver, ssrc, time));
        }
    }
    assert!(!answer(&mut sim, receiver, ssrc ^ 1, middle_of(ntp)), "not of ours");
    assert!(answer(&mut sim, receiver, ssrc, middle_of(ntp)));
    assert!(!answer(&mut sim, receiver, ssrc, middle_of(ntp)), "once");
}

#[test]
fn after_four_guesses_nothing_is_an_answer() {
    let (mut sim, mut track, receiver, _) = call();
    talk(&mut sim, &mut track, 100);
    let (ntp, _, ssrc) = report_in(&request(&mut sim, receiver, 0x1234_5678));
    for guess in 1..=4 {
        assert!(!answer(&mut sim, receiver, ssrc, middle_of(ntp) ^ guess));
    }
    assert!(!answer(&mut sim, receiver, ssrc, middle_of(ntp)));
    // Elsewhere it begins anew.
    let index = sim.index(receiver);
    sim.relay.forget_echo_requests(index);
    let (ntp, _, ssrc) = report_in(&request(&mut sim, receiver, 0x8765_4321));
    assert!(answer(&mut sim, receiver, ssrc, middle_of(ntp)));
}

/// RFC 3550 §6.4.1: NTP and RTP timestamp are the same instant. Receivers keep sound and picture together by it.
#[test]
fn its_time_and_its_timestamp_are_one_instant() {
    let (mut sim, mut track, receiver, consumer) = call();
    talk(&mut sim, &mut track, 100);
    let rate = 48_000;
    let (_, _, last) = sim
        .sink
        .rtcp
        .iter()
        .rfind(|(_, _, packet)| packet[1] == 200)
        .cloned()
        .unwrap();
    let (told_ntp, told_rtp, _) = report_in(&last);
    let mut times = BTreeSet::new();
    for random in [0, 1 << 2, 1 << 20, 1 << 31, u32::MAX] {
        let (ntp, rtp, ssrc) = report_in(&request(&mut sim, receiver, random));
        assert_eq!(ssrc, sim.consumers[&consumer].request.ssrc);
        let before = told_ntp.wrapping_sub(ntp);
        assert!((50..5 * 3_600).contains(&(before >> 32)), "{} s ago", before >> 32);
        let ticks = ((u128::from(before) * rate) >> 32) as u32;
        let off = told_rtp.wrapping_sub(ticks).wrapping_sub(rtp).cast_signed();
        assert!(off.abs() <= 48, "{off} ticks");
        times.insert(middle_of(ntp));
    }
    assert_eq!(times.len(), 5);
}
