//! What encryption costs per packet of 1,200 bytes: protected on its way into another buffer, unprotected, and fanned out to 500
//! receivers with a key each; and sent by a worker's egress, all but the kernel.
//!
//! `cargo bench --bench srtp`, with `-- --instructions` to count instructions as well; see `common`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "a bench is a program, and fails if it cannot go on"
)]

mod common;

use std::hint::black_box;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::process::ExitCode;

use common::Case;
use nix::errno::Errno;
use socket2::{Domain, Socket, Type};
use weir_channel::message::{IceProtocol, IceTuple};
use weir_worker::net::egress::Egress;
use weir_worker::net::send::{Destination, Message, Route, SendBackend};
use weir_worker::net::sockets::IceSockets;
use weir_worker::relay::sink::{ConsumerIx, Sink, TransportIx};
use weir_worker::webrtc::srtp::{Inbound, MasterKey, Outbound, Profile, Repeats, StreamKey};

/// Bytes of a plain packet, header and all.
const PACKET: usize = 1_200;

/// Packets per pass, and of a key frame.
const BURST: usize = 64;

/// Packets that are unprotected per pass: so many that the keys and the windows, which each pass begins with anew, cost little of it,
/// and so few that they stay in the second cache.
const UNPROTECTED: usize = 256;

/// Packets of a train.
const TRAIN: usize = 8;

/// Receivers of the fan-out, each with keys of its own, so that none is still in the nearest cache.
const RECEIVERS: usize = 500;

const SSRC: u32 = 0x0a0b_0c0d;

fn key(profile: Profile, seed: usize) -> MasterKey {
    let byte = |at: usize| (at * 31 + seed * 7 + seed / 256) as u8;
    let key: Vec<u8> = (0..profile.key_len()).map(byte).collect();
    let salt: Vec<u8> = (50..50 + profile.salt_len()).map(byte).collect();
    MasterKey::new(profile, &key, &salt).unwrap()
}

fn sender(profile: Profile, seed: usize, repeats: Repeats) -> (Outbound, StreamKey) {
    let mut outbound = Outbound::new(&key(profile, seed));
    let stream = outbound.add_stream(SSRC, repeats).unwrap();
    (outbound, stream)
}

fn packet() -> Vec<u8> {
    let mut packet: Vec<u8> = (0..PACKET).map(|at| at as u8).collect();
    packet[..2].copy_from_slice(&[0x80, 96]);
    packet[8..12].copy_from_slice(&SSRC.to_be_bytes());
    packet
}

fn number(packet: &mut [u8], index: u64) {
    packet[2..4].copy_from_slice(&(index as u16).to_be_bytes());
}

fn protect(name: &'static str, profile: Profile, repeats: Repeats) -> Case {
    Case::new(name, BURST, move || {
        let (mut outbound, stream) = sender(profile, 0, repeats);
        let mut packet = packet();
        let mut room = vec![0; PACKET + Profile::RTP_OVERHEAD_MAX];
        let mut index = 0;
        move || {
            for _ in 0..BURST {
                number(&mut packet, index);
                let protected = outbound.protect_train(stream, index, &packet, PACKET, black_box(&mut room));
                assert_eq!(protected.packets, 1);
                index += 1;
            }
        }
    })
}

/// Unprotecting is in place, so this includes the copy of a protected packet.
fn unprotect(name: &'static str, profile: Profile) -> Case {
    Case::new(name, UNPROTECTED, move || {
        let (mut outbound, stream) = sender(profile, 0, Repeats::Refused);
        let key = key(profile, 0);
        let mut packet = packet();
        let protected: Vec<Vec<u8>> = (0..UNPROTECTED as u64)
            .map(|index| {
                let mut room = vec![0; PACKET + profile.rtp_overhead()];
                number(&mut packet, index);
                assert_eq!(
                    outbound
                        .protect_train(stream, index, &packet, PACKET, &mut room)
                        .packets,
                    1
                );
                room
            })
            .collect();
        let mut room = protected[0].clone();
        move || {
            let mut inbound = Inbound::new(&key, 4);
            for packet in &protected {
                room.copy_from_slice(packet);
                inbound.unprotect_rtp(black_box(&mut room)).unwrap();
            }
        }
    })
}

/// How one train becomes 500.
fn fan_out(name: &'static str, profile: Profile, train: usize) -> Case {
    Case::new(name, RECEIVERS * train, move || {
        let mut senders: Vec<_> = (0..RECEIVERS)
            .map(|seed| sender(profile, seed, Repeats::Refused))
            .collect();
        let mut bytes = packet().repeat(train);
        // One buffer for all, as the relay has: what is protected is handed over at once.
        let mut room = vec![0; train * (PACKET + profile.rtp_overhead())];
        let mut first = 0;
        move || {
            for (packet, index) in bytes.chunks_mut(PACKET).zip(first..) {
                number(packet, index);
            }
            for (outbound, stream) in &mut senders {
                let protected = outbound.protect_train(*stream, first, &bytes, PACKET, &mut room);
                assert_eq!(protected.packets, train);
                black_box(&mut room);
            }
            first += train as u64;
        }
    })
}

/// A kernel that takes everything at once.
struct Nowhere;

impl SendBackend for Nowhere {
    fn send_packet<'a>(&mut self, _: impl Into<Route<'a>>, packet: &[u8]) -> Result<(), Errno> {
        black_box(packet);
        Ok(())
    }

    fn send_train<'a>(&mut self, _: impl Into<Route<'a>>, train: &[u8], _: usize) -> Result<(), Errno> {
        black_box(train);
        Ok(())
    }

    fn send_batch<'a>(&mut self, _: impl Into<Route<'a>>, bytes: &[u8], messages: &[Message]) -> Result<usize, Errno> {
        black_box(bytes);
        Ok(messages.len())
    }

    fn send_scattered(
        &mut self,
        _: BorrowedFd<'_>,
        bytes: &[u8],
        messages: &[(Message, Destination)],
    ) -> Result<usize, Errno> {
        black_box(bytes);
        Ok(messages.len())
    }
}

/// The sockets of a WebRTC transport, as the supervisor makes them.
fn sockets() -> (IceSockets, SocketAddr) {
    let bound = |address: SocketAddr| {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        socket.set_reuse_port(true).unwrap();
        socket.bind(&address.into()).unwrap();
        socket
    };
    let unconnected = bound(SocketAddr::from(([127, 0, 0, 1], 0)));
    let local = unconnected.local_addr().unwrap().as_socket().unwrap();
    let connected = bound(local);
    let sockets = IceSockets::adopt(vec![unconnected.into(), connected.into()], &[IceProtocol::Udp]).unwrap();
    (sockets, local)
}

/// As the worker sends: the stream is found, the train protected on its way into the message, the message handed over.
fn egress(name: &'static str, profile: Profile, receivers: u32, train: usize) -> Case {
    Case::new(name, receivers as usize * train, move || {
        let mut egress = Egress::with_backend(Nowhere);
        for transport in 0..receivers {
            let (sockets, local) = sockets();
            let tuple = IceTuple {
                protocol: IceProtocol::Udp,
                local,
                remote: SocketAddr::from(([127, 0, 0, 1], 9)),
            };
            let index = TransportIx(transport);
            egress.sockets.attach_ice(index, sockets);
            egress.select(index, Some(tuple)).unwrap();
            egress.start_protecting(index, Outbound::new(&key(profile, transport as usize)));
            egress.sockets.open(index, true);
        }
        let owner = ConsumerIx { slot: 0, generation: 0 };
        let mut bytes = packet().repeat(train);
        let mut first = 0;
        move || {
            for (packet, index) in bytes.chunks_mut(PACKET).zip(first..) {
                number(packet, index);
            }
            for transport in (0..receivers).map(TransportIx) {
                assert_eq!(egress.send(transport, owner, &bytes, PACKET).accepted, train);
            }
            first += train as u64;
        }
    })
}

fn control(name: &'static str, profile: Profile) -> Case {
    Case::new(name, BURST, move || {
        let mut outbound = Outbound::new(&key(profile, 0));
        let mut report = vec![0x80; 60 + Profile::RTCP_OVERHEAD_MAX];
        move || {
            for _ in 0..BURST {
                outbound.protect_rtcp(black_box(&mut report), 60).unwrap();
            }
        }
    })
}

fn main() -> ExitCode {
    use Profile::{AeadAes128Gcm as Gcm128, AeadAes256Gcm as Gcm256, Aes128CmSha1_32 as Cm32, Aes128CmSha1_80 as Cm80};
    let cases = [
        protect("protect-gcm128", Gcm128, Repeats::Refused),
        protect("protect-gcm128-repeats", Gcm128, Repeats::Identical),
        protect("protect-gcm256", Gcm256, Repeats::Refused),
        protect("protect-cm-sha1-80", Cm80, Repeats::Refused),
        protect("protect-cm-sha1-32", Cm32, Repeats::Refused),
        unprotect("unprotect-gcm128", Gcm128),
        unprotect("unprotect-gcm256", Gcm256),
        unprotect("unprotect-cm-sha1-80", Cm80),
        unprotect("unprotect-cm-sha1-32", Cm32),
        fan_out("500-on-the-way-gcm128", Gcm128, 1),
        fan_out("500x8-on-the-way-gcm128", Gcm128, TRAIN),
        fan_out("500-on-the-way-gcm256", Gcm256, 1),
        fan_out("500x8-on-the-way-gcm256", Gcm256, TRAIN),
        fan_out("500-on-the-way-cm-80", Cm80, 1),
        fan_out("500x8-on-the-way-cm-80", Cm80, TRAIN),
        egress("egress-100-gcm128", Gcm128, 100, 1),
        egress("egress-100x8-gcm128", Gcm128, 100, TRAIN),
        egress("egress-100x8-gcm256", Gcm256, 100, TRAIN),
        egress("egress-100x8-cm-80", Cm80, 100, TRAIN),
        control("rtcp-gcm128", Gcm128),
        control("rtcp-cm-sha1-80", Cm80),
    ];
    common::run("srtp", "packet", &cases)
}
