//! Against another implementation, in both directions: byte for byte the same packets, through wraps, losses and
//! reordering.

use proptest::prelude::*;
use rtc_srtp::context::Context;
use rtc_srtp::crypto::RTCCryptoProvider;
use rtc_srtp::crypto::providers::AwsLcRsProvider;
use rtc_srtp::protection_profile::ProtectionProfile;
use weir_worker::webrtc::srtp::{Inbound, MasterKey, Outbound, Profile, Repeats};

use crate::packets::{SSRC, Shape, any_profile, protect, protect_rtcp, rtcp, rtp};

/// One packet of a stream, and what the network does to it.
#[derive(Clone, Debug)]
struct Step {
    /// How far its index is from that of the packet before.
    ahead: u64,
    shape: Shape,
    payload: Vec<u8>,
    lost: bool,
    /// How many packets of the stream overtake it, about.
    late: usize,
}

fn any_step() -> impl Strategy<Value = Step> {
    // Most packets follow each other; some gaps reach almost half a cycle.
    let ahead = prop_oneof![20 => Just(1_u64), 3 => 1_u64..100, 1 => 1_000_u64..32_000];
    (
        ahead,
        Shape::any(),
        prop::collection::vec(any::<u8>(), 0..200),
        prop::bool::weighted(0.1),
        prop_oneof![4 => Just(0), 1 => 0_usize..20],
    )
        .prop_map(|(ahead, shape, payload, lost, late)| Step {
            ahead,
            shape,
            payload,
            lost,
            late,
        })
}

/// Keys for both implementations.
fn contexts(profile: Profile, seed: &[u8; 46]) -> (MasterKey, Context) {
    let (key, rest) = seed.split_at(profile.key_len());
    let salt = &rest[..profile.salt_len()];
    let theirs = match profile {
        Profile::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
        Profile::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
        Profile::Aes128CmSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
        Profile::Aes128CmSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
    };
    let provider = AwsLcRsProvider::new();
    let context = Context::new(key, salt, theirs, None, None, provider.crypto()).unwrap();
    (MasterKey::new(profile, key, salt).unwrap(), context)
}

/// Indices and plain packets, in the order of sending; and their places in that order, in the order of arrival.
fn stream(first: u64, steps: &[Step]) -> (Vec<(u64, Vec<u8>)>, Vec<usize>) {
    let mut index = first;
    let mut packets = Vec::new();
    let mut arrivals = Vec::new();
    for (at, step) in steps.iter().enumerate() {
        if at > 0 {
            index += step.ahead;
        }
        packets.push((index, rtp(SSRC, index, step.shape, &step.payload)));
        // The first one is where a receiver learns where the stream is.
        if at == 0 {
            arrivals.push((0, 0));
        } else if !step.lost {
            arrivals.push((at + step.late, at));
        }
    }
    arrivals.sort();
    // A packet that is further behind than the gap it was overtaken over allows would be in another cycle for anybody.
    // Theirs goes back to a packet that comes late, and looks for the next one from there.
    let (mut newest, mut theirs): (u64, u64) = (first, first);
    arrivals.retain(|(_, at)| {
        let index = packets[*at].0;
        let within = newest.saturating_sub(index) < 2_000 && index.saturating_sub(newest.min(theirs)) < 32_768;
        if within {
            newest = newest.max(index);
            theirs = index;
        }
        within
    });
    (packets, arrivals.into_iter().map(|(_, at)| at).collect())
}

proptest! {
    #[test]
    fn rtp_is_the_same_in_both_directions(
        profile in any_profile(),
        seed in prop::array::uniform32(any::<u8>()),
        first in prop_oneof![0_u64..1_000, 60_000_u64..65_536],
        steps in prop::collection::vec(any_step(), 2..60),
    ) {
        let mut seeds = [0; 46];
        seeds[..32].copy_from_slice(&seed);
        seeds[32..].copy_from_slice(&seed[4..18]);
        let (key, mut their_sender) = contexts(profile, &seeds);
        let (_, mut their_receiver) = contexts(profile, &seeds);
        let mut outbound = Outbound::new(&key);
        let stream_key = outbound.add_stream(SSRC, Repeats::Refused).unwrap();
        let mut inbound = Inbound::new(&key, 1);

        let (packets, arrivals) = stream(first, &steps);
        let mut protected = Vec::new();
        for (index, packet) in &packets {
            let ours = protect(&mut outbound, stream_key, *index, packet);
            let theirs = their_sender.encrypt_rtp(packet).unwrap();
            prop_assert_eq!(&ours[..], &theirs[..], "index {}", index);
            protected.push(ours);
        }
        for at in arrivals {
            let (index, packet) = &packets[at];
            let mut ours = protected[at].clone();
            let unprotected = inbound.unprotect_rtp(&mut ours);
            prop_assert_eq!(unprotected.map(|unprotected| (unprotected.ssrc, unprotected.index)), Ok((SSRC, *index)));
            prop_assert_eq!(&ours[..unprotected.unwrap().len], &packet[..]);
            let theirs = their_receiver.decrypt_rtp(&protected[at]).unwrap();
            prop_assert_eq!(&theirs[..], &packet[..]);
        }
    }

    #[test]
    fn rtcp_is_understood_in_both_directions(
        profile in any_profile(),
        seed in prop::array::uniform32(any::<u8>()),
        reports in prop::collection::vec((any::<u32>(), 0_u8..60), 1..20),
    ) {
        let mut seeds = [0; 46];
        seeds[..32].copy_from_slice(&seed);
        seeds[32..].copy_from_slice(&seed[4..18]);
        let (key, mut theirs) = contexts(profile, &seeds);
        let mut outbound = Outbound::new(&key);
        let mut inbound = Inbound::new(&key, 20);
        for (at, (ssrc, words)) in reports.iter().enumerate() {
            let packet = rtcp(*ssrc, *words);
            let ours = protect_rtcp(&mut outbound, &packet);
            prop_assert_eq!(&theirs.decrypt_rtcp(&ours).unwrap()[..], &packet[..]);

            let mut protected = theirs.encrypt_rtcp(&packet).unwrap().to_vec();
            let unprotected = inbound.unprotect_rtcp(&mut protected).unwrap();
            prop_assert_eq!(unprotected.ssrc, *ssrc);
            prop_assert_eq!(&protected[..unprotected.len], &packet[..]);
            // Ours counts from zero over all SSRCs, theirs from one for each.
            prop_assert_eq!(outbound.rtcp_next(), at as u64 + 1);
        }
    }
}
