//! RTCP of a receiver who may send it, and means harm: to the server, or to the sender (RFC 3550 §6, RFC 4585, RFC 5104).

use std::net::{SocketAddr, UdpSocket};

use serde_json::json;

use crate::Scale;
use crate::arena::{Arena, Figures, number};
use crate::call;
use crate::comedia::report;
use crate::flood::{Random, flood, send, take};

/// The camera's SSRC, and under which it is received.
const CAMERA: u32 = 0x7000;
const RECEIVED: u32 = 0x7001;

/// A camera that sends to the attacker, who receives.
struct Call {
    arena: Arena,
    camera: UdpSocket,
    sends: SocketAddr,
    receiver: UdpSocket,
    receives: SocketAddr,
    consumer: u64,
    /// The number of the packet received last.
    seq: u16,
}

impl Call {
    async fn open(scale: Scale) -> Self {
        let arena = Arena::open(scale).await;
        let mut client = arena.client().await;
        let (camera, receiver) = (arena.stranger(), arena.stranger());
        let remote = |socket: &UdpSocket| json!({"remote": {"rtp": socket.local_addr().unwrap()}});
        let (sender, sends) = call::plain(&mut client, arena.room, remote(&camera)).await;
        let (transport, receives) = call::plain(&mut client, arena.room, remote(&receiver)).await;
        let producer = call::produce(&mut client, sender, call::camera(CAMERA)).await;
        let options = json!({"producer": producer, "rtp": {"ssrc": RECEIVED}});
        let consumer = client
            .post(&format!("/transports/{transport}/consumers"), options)
            .await;
        let mut call = Self {
            seq: 0,
            consumer: number(&consumer.expect(201)["id"]),
            arena,
            camera,
            sends,
            receiver,
            receives,
        };
        call.receiver.set_nonblocking(true).unwrap();
        // A key frame and what follows (RFC 7741 §4.2).
        let (mut seq, mut received) = (0_u16, 0);
        call.arena
            .until("pictures", || {
                let mut packet = vec![0x80, 0x80 | 96];
                packet.extend(seq.to_be_bytes());
                packet.extend((u32::from(seq) * 3_000).to_be_bytes());
                packet.extend(CAMERA.to_be_bytes());
                packet.extend([0x10, u8::from(seq % 100 > 0), 0, 0, 0x9d, 1, 0x2a, 0x80, 2, 0xe0, 1]);
                packet.resize(1_000, 0xaa);
                send(&call.camera, &packet, call.sends);
                seq += 1;
                let mut bytes = [0; 2_000];
                while call.receiver.recv(&mut bytes).is_ok() {
                    if bytes[1] & 0x7f == 96 {
                        received += 1;
                        call.seq = u16::from_be_bytes([bytes[2], bytes[3]]);
                    }
                }
                received >= 50
            })
            .await;
        take(&call.camera);
        call
    }

    /// Sends these again and again.
    async fn flood(&self, kinds: Vec<Vec<u8>>) -> u64 {
        let (receiver, to) = (self.receiver.try_clone().unwrap(), self.receives);
        flood(self.arena.scale, move |turn| {
            send(&receiver, &kinds[turn as usize % kinds.len()], to)
        })
        .await
    }

    async fn stats(&self) -> serde_json::Value {
        let mut client = self.arena.client().await;
        client
            .get(&format!("/consumers/{}/stats", self.consumer))
            .await
            .expect(200)
    }
}

/// Feedback (RFC 4585 §6.1) about the stream that the attacker receives.
fn feedback(format: u8, payload_type: u8, body: &[u8]) -> Vec<u8> {
    let words = 2 + body.len().div_ceil(4);
    let mut packet = vec![0x80 | format, payload_type, 0, words as u8];
    packet.extend(1_u32.to_be_bytes());
    packet.extend(RECEIVED.to_be_bytes());
    packet.extend(body);
    packet.resize(4 + 4 * words, 0);
    packet
}

pub(crate) async fn garbage_as_rtcp(scale: Scale) -> Figures {
    let call = Call::open(scale).await;
    let mut random = Random::new(4);
    let mut kinds = Vec::new();
    for _ in 0..1_000 {
        let len = random.below(200) as usize;
        let mut packet = random.bytes(12 + len);
        packet[0] = 0x80 | packet[0] & 0x3f;
        packet[1] = 192 + (random.below(32) as u8);
        if random.below(2) == 0 {
            let words = packet.len() as u16 / 4 - 1;
            packet[2..4].copy_from_slice(&words.to_be_bytes());
        }
        if random.below(2) == 0 {
            packet[8..12].copy_from_slice(&RECEIVED.to_be_bytes());
        }
        kinds.push(packet);
    }
    let sent = call.flood(kinds).await;
    call.arena.close().await.with("packets", sent)
}

pub(crate) async fn a_storm_of_requests(scale: Scale) -> Figures {
    let call = Call::open(scale).await;
    let mut kinds = Vec::new();
    for first in 0..64_u16 {
        // What came last (RFC 4585 §6.2.1), everything that there can be, and a key frame (§6.3.1; RFC 5104 §4.3.1).
        for seq in [call.seq.wrapping_sub(16), call.seq.wrapping_sub(33)] {
            kinds.push(feedback(1, 205, &[seq.to_be_bytes(), [0xff, 0xff]].concat()));
        }
        let lost: Vec<u8> = (0..61)
            .flat_map(|at| [((first * 61 + at).wrapping_mul(17)).to_be_bytes(), [0xff, 0xff]].concat())
            .collect();
        kinds.push(feedback(1, 205, &lost));
        kinds.push(feedback(1, 206, &[]));
        kinds.push(feedback(
            4,
            206,
            &[RECEIVED.to_be_bytes(), [first as u8, 0, 0, 0]].concat(),
        ));
    }
    let sent = call.flood(kinds).await;
    let stats = call.stats().await;
    let again = number(&stats["packetsRetransmitted"]);
    let requests = take(&call.camera).rtcp;
    assert!(again > 0, "{stats}");
    // Of some hundred packets each may be wanted a few times, and nobody can be asked for a key frame more than a few times a second.
    assert!(again <= 3_000, "{again} packets were sent again");
    assert!(
        requests <= 30 * scale.of(1, 10) as u64,
        "the sender was asked {requests} times"
    );
    assert!(number(&stats["pliCount"]) > 0, "{stats}");
    let figures = call.arena.close().await;
    figures
        .with("requests", sent)
        .with("packets sent again", again)
        .with("RTCP to the sender", requests)
}

pub(crate) async fn bandwidth_that_is_no_bandwidth(scale: Scale) -> Figures {
    let call = Call::open(scale).await;
    let mut random = Random::new(5);
    let mut kinds = Vec::new();
    for _ in 0..500 {
        // draft-alvestrand-rmcat-remb §2.2, with every exponent and number of SSRCs.
        let mut remb = b"REMB".to_vec();
        remb.push(random.next() as u8);
        let words = random.below(20) as usize;
        remb.extend(random.bytes(3 + 4 * words));
        kinds.push(feedback(15, 206, &remb));
        // draft-holmer-rmcat-transport-wide-cc-extensions §3.1: counts and chunks that do not fit each other.
        let len = 8 + random.below(60) as usize;
        kinds.push(feedback(15, 205, &random.bytes(len)));
        let mut overstated = report(1, RECEIVED);
        overstated[0] = 0x80 | random.below(32) as u8;
        let at = 12 + random.below(20) as usize;
        overstated[at] = random.next() as u8;
        kinds.push(overstated);
    }
    let sent = call.flood(kinds).await;
    let asked = take(&call.camera).rtcp;
    assert!(
        asked <= 50 * scale.of(1, 10) as u64,
        "the sender was told {asked} times"
    );
    call.arena
        .close()
        .await
        .with("packets", sent)
        .with("RTCP to the sender", asked)
}
