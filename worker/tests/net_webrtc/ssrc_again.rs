//! An SSRC that was used before on its transport: the key is the same, so the packet index goes on where it stopped (RFC 3711
//! §3.2.1, §3.3.1, §9.1). What the client opens, it opens with another project's SRTP, which keeps the rollover counter that
//! it had for the SSRC.

use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::{ConsumerRtx, CreateConsumer, Method, Profile, Reply};

use crate::client::{Arrived, Client};
use crate::loopback::Peer;
use crate::room::{connected_client, plain_transport, room, webrtc_stats};
use crate::supervisor::{ROOM, Supervisor, rtp, ssrc_of};

const MEDIA: u32 = 0xdddd;
const AGAIN: u32 = 0xeeee;

/// How a consumer is made anew each time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Repair {
    None,
    /// The packet itself goes out again.
    Same,
    /// A packet of another SSRC does (RFC 4588).
    Rtx,
}

fn create(supervisor: &mut Supervisor, consumer: u64, repair: Repair, (media, again): (u32, u32)) {
    let request = CreateConsumer {
        room: ROOM,
        transport: TransportId(2),
        producer: ProducerId(1),
        consumer: ConsumerId(consumer),
        ssrc: media,
        payload_types: vec![(111, 96)],
        header_extensions: vec![],
        preferred_profile: Profile::Default,
        paused: false,
        nack: repair != Repair::None,
        rtx: (repair == Repair::Rtx).then(|| ConsumerRtx {
            ssrc: again,
            payload_types: vec![(96, 97)],
        }),
        cname: "weir".to_owned(),
        cname_is_made_up: false,
        lasting_cname: None,
    };
    let created = Reply::ConsumerCreated { source_paused: false };
    assert_eq!(supervisor.request(Method::CreateConsumer(request)), Ok(created));
}

fn seq_of(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

/// A negative acknowledgement of one packet (RFC 4585 §6.2.1).
fn nack(client: &mut Client, media: u32, seq: u16) {
    let mut packet = vec![0x81, 205, 0, 3];
    packet.extend(7_u32.to_be_bytes());
    packet.extend(media.to_be_bytes());
    packet.extend(seq.to_be_bytes());
    packet.extend([0, 0]);
    let protected = client.protect_rtcp(&packet);
    client.send(&protected);
}

fn rtp_of(client: &mut Client, ssrc: u32) -> Vec<u8> {
    client.receive(|arrived| match arrived {
        Arrived::Rtp(packet) if ssrc_of(packet) == ssrc => Some(packet.clone()),
        _ => None,
    })
}

/// Makes a consumer again and again, `rounds` times with the same SSRCs. `swap`: every second time with the two exchanged.
fn heard_each_time(rounds: u64, repair: Repair, swap: bool) {
    const PACKETS: u16 = 3;
    let mut supervisor = room();
    let plain = Peer::new();
    let address = plain_transport(&mut supervisor, 1, &plain);
    let mut client = connected_client(&mut supervisor, 2);
    supervisor.create_producer(1, 1, 0xcccc);
    let mut sent = 0_u16;
    let mut firsts = Vec::new();
    for round in 1..=rounds {
        let (media, again) = if swap && round % 2 == 0 {
            (AGAIN, MEDIA)
        } else {
            (MEDIA, AGAIN)
        };
        create(&mut supervisor, round, repair, (media, again));
        let mut last = None;
        for packet in 0..PACKETS {
            let payload = [round.to_be_bytes(), u64::from(packet).to_be_bytes()].concat();
            plain.send_to(address, &rtp(0xcccc, sent, &payload));
            sent = sent.wrapping_add(1);
            let heard = rtp_of(&mut client, media);
            assert_eq!(
                heard[12..],
                payload,
                "round {round}, {repair:?}: every packet, from the first on"
            );
            let seq = seq_of(&heard);
            assert!(last.is_none_or(|last: u16| last.wrapping_add(1) == seq));
            last = Some(seq);
            if packet == 0 {
                firsts.push((media, seq));
            }
            let asked = packet == PACKETS - 1 && repair != Repair::None;
            if asked {
                nack(&mut client, media, seq);
                let (ssrc, header) = if repair == Repair::Rtx {
                    (again, 14)
                } else {
                    (media, 12)
                };
                let repaired = rtp_of(&mut client, ssrc);
                assert_eq!(repaired[header..], payload, "round {round}: sent again");
            }
        }
        let consumer = ConsumerId(round);
        assert_eq!(supervisor.request(Method::CloseConsumer { consumer }), Ok(Reply::Done));
    }
    assert_eq!(webrtc_stats(&mut supervisor, 2).protect_failures, 0);
    assert_eq!(client.unprotect_failures, 0);
    // libsrtp and libwebrtc take it that a stream begins in its first cycle (RFC 3711 §3.3.1).
    assert!(firsts[0].1 < 0x8000 && firsts[0].1 > 0, "{}", firsts[0].1);
}

#[test]
fn a_consumer_with_an_ssrc_used_before_is_heard_from_its_first_packet() {
    heard_each_time(200, Repair::None, false);
}

#[test]
fn a_consumer_with_ssrcs_used_before_is_heard_and_repaired_by_rtx() {
    heard_each_time(200, Repair::Rtx, false);
}

#[test]
fn a_consumer_with_an_ssrc_used_before_is_heard_and_repaired_without_rtx() {
    heard_each_time(200, Repair::Same, false);
}

/// An SSRC is one stream of indices, whatever it is used for.
#[test]
fn an_ssrc_may_carry_media_after_retransmissions_and_the_other_way_round() {
    heard_each_time(50, Repair::Rtx, true);
}

/// The receiver counts rollovers, and nobody tells it that another consumer begins (RFC 3711 §3.3.1).
#[test]
fn consumers_with_one_ssrc_go_on_over_the_end_of_a_cycle() {
    const ROUNDS: u64 = 1_400;
    const PACKETS: u16 = 50;
    let mut supervisor = room();
    let plain = Peer::new();
    let address = plain_transport(&mut supervisor, 1, &plain);
    let mut client = connected_client(&mut supervisor, 2);
    supervisor.create_producer(1, 1, 0xcccc);
    let mut sent = 0_u16;
    let mut last = None;
    for round in 1..=ROUNDS {
        create(&mut supervisor, round, Repair::None, (MEDIA, AGAIN));
        for _ in 0..PACKETS {
            plain.send_to(address, &rtp(0xcccc, sent, b"one of seventy thousand"));
            sent = sent.wrapping_add(1);
        }
        for packet in 0..PACKETS {
            let seq = seq_of(&rtp_of(&mut client, MEDIA));
            assert!(
                last.is_none_or(|last: u16| last.wrapping_add(1) == seq),
                "round {round}, packet {packet}: {seq} after {last:?}"
            );
            last = Some(seq);
        }
        let consumer = ConsumerId(round);
        assert_eq!(supervisor.request(Method::CloseConsumer { consumer }), Ok(Reply::Done));
    }
    assert_eq!(webrtc_stats(&mut supervisor, 2).protect_failures, 0);
    assert_eq!(client.unprotect_failures, 0);
}
