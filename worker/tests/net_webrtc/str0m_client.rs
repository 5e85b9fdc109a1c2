//! A whole WebRTC client of others, as close to a browser as one gets without one.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use str0m::config::Fingerprint as TheirFingerprint;
use str0m::ice::IceCreds;
use str0m::media::{KeyframeRequestKind, MediaKind, Mid, Pt};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite, Ssrc};
use str0m::{Candidate, Event, Input, Output, Rtc};
use weir_channel::id::{ConsumerId, ProducerId, TransportId};
use weir_channel::message::{
    Codec, CodecName, CreateConsumer, CreateProducer, DtlsParameters, DtlsRole, DtlsState, Encoding, Fingerprint,
    FingerprintAlgorithm, IceCredentials, IceProtocol, MediaKind as Kind, Method, Profile, Reply,
};
use weir_worker::net::clock;
use weir_worker::webrtc::dtls::Clock;

use crate::loopback::{Peer, port};
use crate::room::{await_dtls, create_webrtc, ice_credentials, plain_transport, room, set_dtls_parameters, stats};
use crate::shared_port::SharedPort;
use crate::supervisor::{ROOM, Supervisor};

const PATIENCE: Duration = Duration::from_secs(30);

/// str0m's own number for VP8.
const VP8: u8 = 96;

struct Session {
    rtc: Rtc,
    wire: Peer,
    /// Where it believes to be: behind a NAT it is elsewhere after a while.
    address: SocketAddr,
    server: SocketAddr,
    clock: Clock,
    connected: bool,
    packets: Vec<RtpPacket>,
    asked: u32,
}

impl Session {
    fn new(supervisor: &mut Supervisor, transport: u64, is_active: bool) -> Self {
        let (unconnected, connected, server) = port();
        let fingerprints =
            create_webrtc(supervisor, transport, &[IceProtocol::Udp], &[unconnected, connected]).unwrap();
        Self::over(supervisor, transport, server, &fingerprints, is_active)
    }

    fn over(
        supervisor: &mut Supervisor,
        transport: u64,
        server: SocketAddr,
        fingerprints: &[Fingerprint],
        is_active: bool,
    ) -> Self {
        let ours = fingerprints
            .iter()
            .find(|one| one.algorithm == FingerprintAlgorithm::Sha256)
            .unwrap();
        let (instant, now) = clock::instant();
        let wire = Peer::new();
        let mut rtc = Rtc::builder().set_rtp_mode(true).build(instant);
        rtc.add_local_candidate(Candidate::host(wire.address, "udp").unwrap());
        rtc.add_remote_candidate(Candidate::host(server, "udp").unwrap());
        let ice = ice_credentials(transport, 0);
        let mut direct = rtc.direct_api();
        direct.set_ice_controlling(true);
        direct.set_remote_ice_credentials(IceCreds {
            ufrag: ice.username_fragment,
            pass: ice.password,
        });
        direct.set_remote_fingerprint(TheirFingerprint {
            hash_func: "sha-256".to_owned(),
            bytes: ours
                .value
                .split(':')
                .map(|pair| u8::from_str_radix(pair, 16).unwrap())
                .collect(),
        });
        let digits: Vec<String> = direct
            .local_dtls_fingerprint()
            .bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        direct.start_dtls(is_active).unwrap();
        let parameters = DtlsParameters {
            role: if is_active { DtlsRole::Client } else { DtlsRole::Server },
            fingerprints: vec![Fingerprint {
                algorithm: FingerprintAlgorithm::Sha256,
                value: digits.join(":"),
            }],
        };
        let ours = if is_active { DtlsRole::Server } else { DtlsRole::Client };
        let role = set_dtls_parameters(supervisor, transport, parameters);
        assert_eq!(role, Ok(Reply::DtlsRole(ours)));
        Self {
            rtc,
            address: wire.address,
            wire,
            server,
            clock: Clock::new(instant, now),
            connected: false,
            packets: Vec::new(),
            asked: 0,
        }
    }

    fn run_until(&mut self, mut condition: impl FnMut(&mut Self) -> bool) {
        let end = clock::monotonic() + PATIENCE;
        while !condition(self) {
            assert!(clock::monotonic() < end, "it did not happen");
            self.drain();
            let mut wanted = [PollFd::new(self.wire.socket.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut wanted, PollTimeout::from(5_u8));
            let now = self.clock.instant(clock::monotonic());
            while let Some(datagram) = self.wire.try_receive() {
                // It knows no requests without credentials.
                if let Ok(receive) = Receive::new(Protocol::Udp, self.server, self.address, &datagram) {
                    self.rtc.handle_input(Input::Receive(now, receive)).unwrap();
                }
                self.drain();
            }
            self.rtc.handle_input(Input::Timeout(now)).unwrap();
        }
        self.drain();
    }

    /// Its NAT gives it another port, and what is sent to the old one gets nowhere.
    fn rebind(&mut self) {
        self.wire = Peer::new();
    }

    fn drain(&mut self) {
        loop {
            match self.rtc.poll_output().unwrap() {
                Output::Transmit(transmit) => self.wire.send_to(transmit.destination, &transmit.contents),
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::RtpPacket(packet)) => self.packets.push(packet),
                Output::Event(Event::KeyframeRequest(request)) => {
                    assert_eq!(request.kind, KeyframeRequestKind::Pli);
                    self.asked += 1;
                }
                Output::Event(_) => {}
                Output::Timeout(_) => return,
            }
        }
    }
}

#[test]
fn two_of_them_share_a_port_and_hear_each_other() {
    for connected in [false, true] {
        let mut supervisor = room();
        let port = SharedPort::open(&mut supervisor, connected);
        let mut sessions = [1, 2].map(|transport| {
            let fingerprints = create_webrtc(&mut supervisor, transport, &[], &[]).unwrap();
            let mut session = Session::over(&mut supervisor, transport, port.udp, &fingerprints, transport == 1);
            session.run_until(|session| session.connected);
            await_dtls(&mut supervisor, transport, DtlsState::Connected);
            if connected {
                port.give_socket(&mut supervisor, transport);
            }
            session
        });
        let [one, other] = &mut sessions;
        let (ours, theirs): (Ssrc, Ssrc) = (0xaaaa.into(), 0xdddd.into());
        let mid: Mid = "0".into();
        let mut direct = one.rtc.direct_api();
        direct.declare_media(mid, MediaKind::Video);
        direct.declare_stream_tx(ours, None, mid, None);
        let mut direct = other.rtc.direct_api();
        direct.declare_media(mid, MediaKind::Video);
        direct.expect_stream_rx(theirs, None, mid, None);
        relay(&mut supervisor, (1, 0xaaaa), (2, 0xdddd));
        for seq in 1..50 {
            let at = one.clock.instant(clock::monotonic());
            let payload = vp8(seq, seq == 1);
            let write = RtpWrite::new(
                Pt::from(VP8),
                u64::from(seq).into(),
                u32::from(seq) * 3_000,
                at,
                &payload[..],
            );
            one.rtc.direct_api().stream_tx(&ours).unwrap().write_rtp(write);
            one.run_until(|_| {
                let stats = stats(&mut supervisor, 1);
                stats.packets_received - stats.rtcp_received >= u64::from(seq)
            });
            other.run_until(|other| !other.packets.is_empty());
            let packet = other.packets.remove(0);
            assert_eq!((packet.header.ssrc, &packet.payload[..]), (theirs, &payload[..]));
        }
        assert_eq!(supervisor.stats().unrouted, 0);
    }
}

/// A video producer and its consumer, both of VP8.
fn relay(supervisor: &mut Supervisor, from: (u64, u32), to: (u64, u32)) {
    let id = from.0;
    let producer = CreateProducer {
        room: ROOM,
        transport: TransportId(from.0),
        producer: ProducerId(id),
        kind: Kind::Video,
        mid: None,
        codecs: vec![Codec {
            payload_type: VP8,
            name: CodecName::Vp8,
            clock_rate: 90_000,
            pli: true,
            fir: false,
            nack: true,
            remb: false,
            rtx: None,
        }],
        encodings: vec![Encoding {
            ssrc: Some(from.1),
            rid: None,
            profile: Profile::Default,
            rtx_ssrc: None,
        }],
        header_extensions: vec![],
        preferred_profile: Profile::Default,
        paused: false,
        reduced_size: true,
    };
    assert_eq!(supervisor.request(Method::CreateProducer(producer)), Ok(Reply::Done));
    let consumer = CreateConsumer {
        room: ROOM,
        transport: TransportId(to.0),
        producer: ProducerId(id),
        consumer: ConsumerId(id),
        ssrc: to.1,
        payload_types: vec![(VP8, VP8)],
        header_extensions: vec![],
        preferred_profile: Profile::Default,
        paused: false,
        nack: true,
        rtx: None,
        cname: "weir".to_owned(),
        cname_is_made_up: false,
        lasting_cname: None,
    };
    let created = supervisor.request(Method::CreateConsumer(consumer));
    assert_eq!(created, Ok(Reply::ConsumerCreated { source_paused: false }));
}

/// The payload of a VP8 packet: a descriptor, and the head of a key frame or of another one.
fn vp8(number: u8, is_key: bool) -> Vec<u8> {
    let mut payload = vec![0x10, u8::from(!is_key), 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00];
    payload.resize(200, number);
    payload
}

fn rtp(ssrc: u32, seq: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 0x80 | VP8];
    packet.extend(seq.to_be_bytes());
    packet.extend((u32::from(seq) * 3_000).to_be_bytes());
    packet.extend(ssrc.to_be_bytes());
    packet.extend(payload);
    packet
}

#[test]
fn it_publishes_and_receives_and_both_are_asked_for_key_frames() {
    for is_active in [true, false] {
        let mut supervisor = room();
        let plain = Peer::new();
        let address = plain_transport(&mut supervisor, 1, &plain);
        let mut session = Session::new(&mut supervisor, 2, is_active);
        let (ours, theirs): (Ssrc, Ssrc) = (0xaaaa.into(), 0xdddd.into());
        let mid: Mid = "0".into();
        let mut direct = session.rtc.direct_api();
        direct.declare_media(mid, MediaKind::Video);
        direct.declare_stream_tx(ours, None, mid, None);
        direct.expect_stream_rx(theirs, None, mid, None);
        // Consumers are there before anybody is connected.
        relay(&mut supervisor, (2, 0xaaaa), (1, 0xbbbb));
        relay(&mut supervisor, (1, 0xcccc), (2, 0xdddd));
        session.run_until(|session| session.connected);
        let certificate = await_dtls(&mut supervisor, 2, DtlsState::Connected).unwrap();
        assert!(
            certificate.starts_with("-----BEGIN CERTIFICATE-----\n"),
            "{certificate}"
        );

        // The plain sender hears that somebody needs a key frame: now that the client is connected.
        let is_pli =
            |packet: &[u8]| packet[0] & 0x1f == 1 && packet[1] == 206 && packet[8..12] == 0xcccc_u32.to_be_bytes();
        plain.send_to(address, &rtp(0xcccc, 1, &vp8(1, false)));
        while !is_pli(&plain.receive()) {}
        for seq in 2..50_u8 {
            plain.send_to(address, &rtp(0xcccc, seq.into(), &vp8(seq, seq == 2)));
        }
        session.run_until(|session| session.packets.len() == 48);
        for (packet, seq) in session.packets.drain(..).zip(2_u8..) {
            assert_eq!(
                (packet.header.ssrc, &packet.payload[..]),
                (theirs, &vp8(seq, seq == 2)[..])
            );
        }

        // And so does the client.
        let pt = Pt::from(VP8);
        let write = |session: &mut Session, seq: u8, is_key: bool| {
            let at = session.clock.instant(clock::monotonic());
            let payload = vp8(seq, is_key);
            let write = RtpWrite::new(pt, u64::from(seq).into(), u32::from(seq) * 3_000, at, &payload[..]);
            let mut direct = session.rtc.direct_api();
            direct.stream_tx(&ours).unwrap().write_rtp(write);
        };
        write(&mut session, 1, false);
        session.run_until(|session| session.asked > 0);
        for seq in 2..50 {
            write(&mut session, seq, seq == 2);
        }
        session.run_until(|_| stats_of(&mut supervisor) >= 49);
        let packets: Vec<_> = plain
            .drain()
            .into_iter()
            .filter(|packet| packet[1] & 0x7f == VP8 && packet[8..12] == 0xbbbb_u32.to_be_bytes())
            .collect();
        assert_eq!(packets.len(), 48);
        for (packet, seq) in packets.iter().zip(2_u8..) {
            // Behind header extensions that nobody has negotiated, and that were blanked.
            assert!(packet.ends_with(&vp8(seq, seq == 2)), "{packet:?}");
        }

        // A request of the client's for a key frame goes through to the plain sender.
        plain.drain();
        let mut direct = session.rtc.direct_api();
        direct
            .stream_rx(&theirs)
            .unwrap()
            .request_keyframe(KeyframeRequestKind::Pli);
        session.run_until(|_| plain.drain().iter().any(|packet| is_pli(packet)));
    }
}

/// Packets received from the client.
fn stats_of(supervisor: &mut Supervisor) -> u64 {
    let stats = stats(supervisor, 2);
    stats.packets_received - stats.rtcp_received
}

/// It leaves requests without credentials unanswered. What it says of a sender report that went where it is now shows that it is there.
#[test]
fn a_receiver_whose_nat_rebinds_is_followed() {
    let mut supervisor = room();
    let plain = Peer::new();
    let address = plain_transport(&mut supervisor, 1, &plain);
    let mut session = Session::new(&mut supervisor, 2, true);
    let theirs: Ssrc = 0xdddd.into();
    let mid: Mid = "0".into();
    let mut direct = session.rtc.direct_api();
    direct.declare_media(mid, MediaKind::Video);
    direct.expect_stream_rx(theirs, None, mid, None);
    relay(&mut supervisor, (1, 0xcccc), (2, 0xdddd));
    session.run_until(|session| session.connected);
    await_dtls(&mut supervisor, 2, DtlsState::Connected);
    let mut seq = 0;
    let mut send = || {
        seq += 1;
        plain.send_to(address, &rtp(0xcccc, seq, &vp8(seq as u8, seq % 50 == 1)));
    };
    // Until it has something to report.
    session.run_until(|session| {
        send();
        session.packets.len() > 200
    });
    session.rebind();
    session.packets.clear();
    session.run_until(|session| {
        send();
        session.packets.len() > 20
    });
    assert_eq!(stats(&mut supervisor, 2).remote.unwrap().rtp, session.wire.address);
}

/// Who only sends reports nothing that it could have received. If its credentials are known, it answers a check.
#[test]
fn a_sender_whose_nat_rebinds_is_followed_if_its_credentials_are_known() {
    for shared in [false, true] {
        let mut supervisor = room();
        let plain = Peer::new();
        plain_transport(&mut supervisor, 1, &plain);
        let mut session = if shared {
            let port = SharedPort::open(&mut supervisor, false);
            let fingerprints = create_webrtc(&mut supervisor, 2, &[], &[]).unwrap();
            Session::over(&mut supervisor, 2, port.udp, &fingerprints, true)
        } else {
            Session::new(&mut supervisor, 2, true)
        };
        let IceCreds { ufrag, pass } = session.rtc.direct_api().local_ice_credentials();
        let method = Method::SetRemoteIce {
            transport: TransportId(2),
            ice: IceCredentials {
                username_fragment: ufrag,
                password: pass,
            },
        };
        assert_eq!(supervisor.request(method), Ok(Reply::Done));
        let ours: Ssrc = 0xaaaa.into();
        let mid: Mid = "0".into();
        let mut direct = session.rtc.direct_api();
        direct.declare_media(mid, MediaKind::Video);
        direct.declare_stream_tx(ours, None, mid, None);
        relay(&mut supervisor, (2, 0xaaaa), (1, 0xbbbb));
        session.run_until(|session| session.connected);
        await_dtls(&mut supervisor, 2, DtlsState::Connected);
        session.rebind();
        let mut seq = 0_u8;
        session.run_until(|session| {
            seq = seq.wrapping_add(1);
            let at = session.clock.instant(clock::monotonic());
            let payload = vp8(seq, seq == 1);
            let write = RtpWrite::new(
                Pt::from(VP8),
                u64::from(seq).into(),
                u32::from(seq) * 3_000,
                at,
                &payload[..],
            );
            session.rtc.direct_api().stream_tx(&ours).unwrap().write_rtp(write);
            let remote = stats(&mut supervisor, 2).remote;
            remote.is_some_and(|remote| remote.rtp == session.wire.address)
        });
    }
}
