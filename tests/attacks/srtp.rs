//! SRTP (RFC 3711): what was recorded, and what was made up.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::Scale;
use crate::arena::{Arena, Figures, Site, number};
use crate::call::{Browsers, THEIRS};
use crate::flood::{Random, send};
use crate::meters::now;

const SSRC: u32 = 0x8000;

/// Hears what the receiver gets, until it has all that was said, or for a while.
async fn hear(call: &mut Browsers, seen: &mut BTreeSet<u64>, spoken: u64, time: Duration) {
    let end = now() + time;
    call.receiving
        .run_until("what has come", |receiving| {
            for packet in receiving.packets.drain(..) {
                let number = u64::from_be_bytes(*packet.payload.first_chunk().unwrap());
                assert!(seen.insert(number), "{number} came twice");
            }
            seen.len() as u64 >= spoken || now() >= end
        })
        .await;
}

pub(crate) async fn forging_and_replaying(scale: Scale) -> Figures {
    let site = Site {
        browsers: true,
        ..Site::PLAIN
    };
    let arena = Arena::open_at(scale, site).await;
    let mut client = arena.client().await;
    let mut call = Browsers::connect(&mut client, arena.room, SSRC, arena.family.home()).await;
    let (to, stranger) = (call.sends.address("udp"), arena.stranger());
    let (mut seen, mut random) = (BTreeSet::new(), Random::new(6));
    let (mut spoken, mut bad) = (0_u64, 0_u64);
    call.sending.recorded = Some(Vec::new());
    for _ in 0..scale.of(5, 50) {
        for _ in 0..20 {
            call.sending.send(SSRC, THEIRS, 10_000 + spoken, &spoken.to_be_bytes());
            call.sending.run_until("what is in line", |_| true).await;
            spoken += 1;
        }
        let recorded = call.sending.recorded.replace(Vec::new()).unwrap();
        for packet in recorded.iter().filter(|packet| (128..192).contains(&packet[0])) {
            // The same again, and with a bit, or many, changed: in the header, the payload and the tag.
            for turn in 0..20 {
                let mut packet = packet.clone();
                for _ in 0..turn % 5 {
                    let at = 1 + random.below(packet.len() as u64 - 1) as usize;
                    packet[at] ^= 1 << random.below(8);
                }
                call.sending.say(to, &packet).await;
                send(&stranger, &packet, to);
                bad += 2;
            }
        }
        arena.pass(Duration::from_millis(20)).await;
        hear(&mut call, &mut seen, spoken, Duration::from_secs(10)).await;
    }
    // What else has come by now would be too much.
    hear(&mut call, &mut seen, spoken + 1, Duration::from_millis(200)).await;
    assert_eq!(seen.len() as u64, spoken, "all that was said was heard, once");
    let stats = arena.get(&format!("/transports/{}/stats", call.sends.id)).await;
    let unrouted = &stats["unrouted"];
    let (replayed, forged) = (number(&unrouted["replayed"]), number(&unrouted["notAuthentic"]));
    let figures = arena.close().await;
    figures
        .with("packets", bad)
        .with("counted as replayed", replayed)
        .with("counted as notAuthentic", forged)
}
