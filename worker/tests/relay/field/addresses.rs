//! Where gear that is not a browser sends from: it starts over on another port, reports from another port than it sends from,
//! and lives on links whose addresses are of one zone (RFC 3550 §11, RFC 4007 §6).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use weir_channel::id::{ConsumerId, TransportId};
use weir_channel::message::{CodecName, ComediaPolicy, Method, Notification, Profile, Remote, UnroutedReason};
use weir_worker::relay::Action;
use weir_worker::relay::sink::Port;

use crate::sim::stream::Packet;
use crate::sim::track::{MID, Track};
use crate::sim::{Sim, ms, reports, single, train, wire};

fn address(host: u8, port: u16) -> SocketAddr {
    SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host), port).into()
}

const D: &[Profile] = &[Profile::Default];
const OLD: fn() -> SocketAddr = || address(1, 5_000);
const NEW: fn() -> SocketAddr = || address(1, 5_010);

/// A comedia transport with a microphone, and a listener.
struct Call {
    sim: Sim,
    transport: TransportId,
    track: Track,
    consumer: ConsumerId,
}

impl Call {
    fn new(policy: ComediaPolicy, rtcp_mux: bool) -> Self {
        let mut sim = Sim::new(1);
        let room = sim.room();
        let transport = sim.transport_with(room, OLD(), |request| {
            request.comedia = true;
            request.comedia_policy = policy;
            request.rtcp_mux = rtcp_mux;
        });
        let track = sim.microphone(transport);
        let receiver = sim.transport(room);
        let consumer = sim.consumer(receiver, &track);
        Self {
            sim,
            transport,
            track,
            consumer,
        }
    }

    /// The same with a producer whose SSRC is not declared.
    fn nameless(policy: ComediaPolicy) -> Self {
        let mut call = Self::new(policy, true);
        let producer = call.track.id();
        call.sim.command(Method::CloseProducer { producer });
        call.track = call.sim.track(call.transport, CodecName::Opus, D, |request| {
            request.encodings[0].ssrc = None;
        });
        let receiver = call.sim.transport(call.track.request.room);
        call.consumer = call.sim.consumer(receiver, &call.track);
        assert!(call.hears(OLD()));
        call.learned();
        call
    }

    /// The sender is started again, and has drawn another SSRC, other numbers and another clock.
    fn reborn(&mut self) {
        let number = self.sim.stream_number();
        let stream = self.track.stream();
        (stream.number, stream.ssrc) = (number, stream.ssrc.wrapping_add(0x7001));
        stream.seq += 7_000;
        stream.timestamp += 1 << 31;
    }

    /// The stream's SSRC, and how often it has changed.
    fn ssrc(&mut self) -> (u32, u64) {
        let stats = self.sim.producer_stats(self.track.id()).streams.remove(0);
        (stats.ssrc, stats.ssrc_changes)
    }

    /// As the rest of this module begins: the old port has just been learned.
    fn begun(policy: ComediaPolicy, rtcp_mux: bool) -> Self {
        let mut call = Self::new(policy, rtcp_mux);
        assert!(call.hears(OLD()));
        call.learned();
        call
    }

    fn packet(&mut self) -> Packet {
        self.track.stream().sound()
    }

    fn deliver(&mut self, port: Port, source: SocketAddr, bytes: &[u8]) {
        self.sim.deliver(self.transport, port, &[single(source, bytes)]);
    }

    /// Whether the stream's next packet is relayed when it comes from there, or its next ones, if a stream has to be shown. Otherwise
    /// it is counted as a stranger's.
    fn hears(&mut self, source: SocketAddr) -> bool {
        let foreign = self.foreign();
        let before = self.sim.unrouted(self.transport, UnroutedReason::Unproven);
        let mut sent = Vec::new();
        loop {
            let packet = self.packet();
            self.deliver(Port::Rtp, source, &packet.bytes);
            sent.push(packet.mark);
            let relayed = self.sim.marks(self.consumer);
            let unproven = self.sim.unrouted(self.transport, UnroutedReason::Unproven);
            if !relayed.is_empty() {
                assert_eq!(relayed, sent, "what was held is relayed too");
                assert_eq!(unproven, before);
                return true;
            }
            if unproven == before {
                assert_eq!(self.foreign(), foreign + 1);
                return false;
            }
            assert_eq!(unproven, before + sent.len() as u64);
            assert!(sent.len() < 4);
        }
    }

    fn foreign(&mut self) -> u64 {
        self.sim.unrouted(self.transport, UnroutedReason::ForeignSource)
    }

    fn remote(&mut self) -> Option<Remote> {
        self.sim.transport_stats(self.transport).remote
    }

    /// What has been learned since the last time: the shell connects there, and the supervisor is told.
    fn learned(&mut self) -> Vec<Remote> {
        let wanted = self.sim.wanted().into_iter().filter_map(|action| match action {
            Action::Connect { remote, .. } => Some(remote),
            _ => None,
        });
        let wanted: Vec<_> = wanted.collect();
        let told = self
            .sim
            .told()
            .into_iter()
            .filter_map(|notification| match notification {
                Notification::RemoteLearned { transport, remote } if transport == self.transport => Some(remote),
                _ => None,
            });
        assert_eq!(told.collect::<Vec<_>>(), wanted);
        wanted
    }

    fn relearned(&mut self) -> u64 {
        self.sim.transport_stats(self.transport).remotes_relearned
    }
}

fn rtp_only(rtp: SocketAddr) -> Remote {
    Remote { rtp, rtcp: None }
}

#[test]
fn a_sender_that_starts_over_on_another_port_is_heard_after_five_seconds_of_silence() {
    for rtcp_mux in [true, false] {
        let mut call = Call::begun(ComediaPolicy::Relearn, rtcp_mux);
        call.sim.advance(ms(4_999));
        assert!(!call.hears(NEW()));
        assert_eq!((call.learned(), call.relearned()), (vec![], 0));
        call.sim.advance(ms(1));
        assert!(call.hears(NEW()), "the packet that is believed is relayed");
        assert_eq!((call.learned(), call.relearned()), (vec![rtp_only(NEW())], 1));
        // From now on the new port is the remote, and the old one is another port of its IP.
        assert!(!call.hears(OLD()));
        assert!(call.hears(NEW()));
        call.sim.advance(ms(5_000));
        assert!(call.hears(OLD()));
        assert_eq!((call.learned(), call.relearned()), (vec![rtp_only(OLD())], 2));
        call.sim.check_accounts();
    }
}

#[test]
fn relearning_is_the_default_and_a_locked_address_stays() {
    assert_eq!(ComediaPolicy::default(), ComediaPolicy::Relearn);
    let mut call = Call::begun(ComediaPolicy::Lock, true);
    for _ in 0..10 {
        call.sim.advance(ms(60_000));
        assert!(!call.hears(NEW()));
    }
    // Not after a goodbye either.
    let bye = reports::bye(&[call.track.stream().ssrc]);
    call.deliver(Port::Rtp, OLD(), &bye);
    assert!(!call.hears(NEW()));
    assert!(call.hears(OLD()));
    assert_eq!((call.learned(), call.relearned()), (vec![], 0));
}

#[test]
fn another_ip_and_another_stream_never_take_the_place() {
    let mut call = Call::begun(ComediaPolicy::Relearn, true);
    call.sim.microphone(call.transport);
    call.sim.advance(ms(60_000));
    for stranger in [address(2, 5_000), address(2, 5_010)] {
        assert!(!call.hears(stranger));
    }
    // From the same IP: an SSRC that could be either one's of two, a payload type that is nobody's, what is no RTP; alone and in a train.
    let mut other = call.track.clone();
    other.stream().ssrc ^= 1;
    let mut wrong = call.track.clone();
    wrong.stream().payload_type = 50;
    let (other, wrong) = (other.stream().sound().bytes, wrong.stream().sound().bytes);
    for bytes in [&other[..], &wrong, b"noise", b"", &other[..8], &[0x80, 201, 0, 9]] {
        call.deliver(Port::Rtp, NEW(), bytes);
    }
    let mut stranger = call.track.clone();
    stranger.stream().ssrc ^= 1;
    let packets = [stranger.stream().sound(), stranger.stream().sound()];
    call.sim.deliver(call.transport, Port::Rtp, &[train(NEW(), &packets)]);
    assert_eq!((call.learned(), call.remote()), (vec![], Some(rtp_only(OLD()))));
    assert_eq!(call.sim.marks(call.consumer), []);
    // And the true one still may, after all that.
    assert!(call.hears(NEW()));
}

#[test]
fn two_that_send_at_the_same_time_do_not_take_the_place_from_each_other() {
    let mut call = Call::begun(ComediaPolicy::Relearn, true);
    for round in 0..1_000 {
        assert!(call.hears(OLD()), "{round}");
        call.sim.advance(ms(10));
        assert!(!call.hears(NEW()), "{round}");
        call.sim.advance(ms(10));
    }
    // However rarely the first one speaks.
    assert!(call.hears(OLD()));
    for round in 0..20 {
        call.sim.advance(ms(4_990));
        assert!(!call.hears(NEW()), "{round}");
        assert!(call.hears(OLD()), "{round}");
    }
    assert_eq!((call.learned(), call.relearned()), (vec![], 0));
}

/// RFC 3550 §8.2, §5.1: who is started again draws another SSRC, too. Where that can mean one stream only, it vouches for the port.
#[test]
fn a_sender_that_starts_over_on_another_port_under_another_ssrc_is_heard_after_the_same_silence() {
    for is_declared in [true, false] {
        let mut call = match is_declared {
            true => Call::begun(ComediaPolicy::Relearn, true),
            false => Call::nameless(ComediaPolicy::Relearn),
        };
        let first = call.track.stream().ssrc;
        call.reborn();
        call.sim.advance(ms(4_999));
        assert!(!call.hears(NEW()));
        assert_eq!((call.learned(), call.ssrc()), (vec![], (first, 0)));
        call.sim.advance(ms(1));
        assert!(call.hears(NEW()), "the packet that is believed is relayed");
        let second = call.track.stream().ssrc;
        assert_eq!((call.learned(), call.relearned()), (vec![rtp_only(NEW())], 1));
        assert_eq!(call.ssrc(), (second, 1));
        // And so each time; a goodbye ends the wait, but for the second that each SSRC has.
        assert!(!call.hears(OLD()));
        assert!(call.hears(NEW()));
        call.deliver(Port::Rtp, NEW(), &reports::bye(&[second]));
        call.reborn();
        assert!(!call.hears(OLD()));
        call.sim.advance(ms(1_000));
        assert!(call.hears(OLD()));
        assert_eq!((call.learned(), call.relearned()), (vec![rtp_only(OLD())], 2));
        assert_eq!(call.ssrc(), (call.track.stream().ssrc, 2));
        call.sim.check_accounts();
    }
}

#[test]
fn an_ssrc_that_is_not_taken_from_the_old_port_is_not_taken_from_another() {
    // The first address stays.
    for mut call in [
        Call::begun(ComediaPolicy::Lock, true),
        Call::nameless(ComediaPolicy::Lock),
    ] {
        call.reborn();
        call.sim.advance(ms(60_000));
        assert!(!call.hears(NEW()));
    }
    for mut call in [
        Call::begun(ComediaPolicy::Relearn, true),
        Call::nameless(ComediaPolicy::Relearn),
    ] {
        let before = call.ssrc();
        let closed = call.sim.track(call.transport, CodecName::Pcmu, D, |_| {});
        call.sim.command(Method::CloseProducer { producer: closed.id() });
        let own = call.track.clone();
        call.reborn();
        call.sim.advance(ms(60_000));
        // Another IP; a stranger's payload type; what is no RTP; a closed producer's SSRC; what is too long to be relayed.
        assert!(!call.hears(address(2, 5_000)));
        let mut wrong = call.track.clone();
        wrong.stream().payload_type = 50;
        let mut echo = call.track.clone();
        echo.stream().ssrc = closed.request.encodings[0].ssrc.expect("declared");
        let (wrong, echo) = (wrong.stream().sound().bytes, echo.stream().sound().bytes);
        let mut long = call.packet().bytes;
        long.resize(65_508, 0);
        for bytes in [&wrong[..], &echo, &long, b"noise", b"", &wrong[..8]] {
            call.deliver(Port::Rtp, NEW(), bytes);
        }
        // Two that it could be.
        let rival = call.sim.track(call.transport, CodecName::Opus, D, |_| {});
        assert!(!call.hears(NEW()));
        assert_eq!((call.learned(), call.ssrc()), (vec![], before));
        assert_eq!(call.sim.marks(call.consumer), []);
        call.sim.command(Method::CloseProducer { producer: rival.id() });
        assert!(call.hears(NEW()));
        // Nor is the old port heard again before the new one is silent.
        let again = std::mem::replace(&mut call.track, own);
        assert!(!call.hears(OLD()));
        call.track = again;
        assert!(call.hears(NEW()));
    }
}

/// RFC 8843 §15.1: so does the name that it gives itself.
#[test]
fn a_sender_that_starts_over_on_another_port_may_be_known_by_its_mid() {
    let mut call = Call::new(ComediaPolicy::Relearn, true);
    call.track = call.sim.track(call.transport, CodecName::Opus, D, |request| {
        request.mid = Some("1".into());
    });
    let receiver = call.sim.transport(call.track.request.room);
    call.consumer = call.sim.consumer(receiver, &call.track);
    assert!(call.hears(OLD()));
    call.learned();
    call.reborn();
    call.track.announce();
    assert!(!call.hears(NEW()));
    call.sim.advance(ms(5_000));
    let own = std::mem::replace(&mut call.track.stream().extensions, vec![(MID, b"9".to_vec())]);
    assert!(!call.hears(NEW()));
    call.track.stream().extensions = own;
    assert!(call.hears(NEW()));
    assert_eq!((call.learned(), call.relearned()), (vec![rtp_only(NEW())], 1));
}

/// Whatever comes from the remote keeps its port: another producer's media, also behind a goodbye of the first one, and reports.
#[test]
fn a_port_that_somebody_still_sends_from_is_kept() {
    for has_new_ssrc in [true, false] {
        let mut call = Call::begun(ComediaPolicy::Relearn, true);
        let mut other = call.sim.track(call.transport, CodecName::Pcmu, D, |_| {});
        let first = call.track.stream().ssrc;
        if has_new_ssrc {
            call.reborn();
        }
        for round in 0..20 {
            let packet = other.stream().sound();
            call.deliver(Port::Rtp, OLD(), &packet.bytes);
            call.sim.advance(ms(1_000));
            if round % 5 == 4 {
                call.deliver(Port::Rtp, OLD(), &reports::bye(&[first]));
            }
            assert!(!call.hears(NEW()), "{round}");
        }
        for _ in 0..3 {
            call.sim.advance(ms(4_000));
            call.deliver(Port::Rtp, OLD(), &wire::sender_report(other.stream().ssrc, 1, 2));
            assert!(!call.hears(NEW()));
        }
        assert_eq!((call.learned(), call.relearned()), (vec![], 0));
        // Both have said goodbye.
        let both = reports::bye(&[first, other.stream().ssrc]);
        call.deliver(Port::Rtp, OLD(), &both);
        assert!(call.hears(NEW()));
    }
}

/// A declared SSRC says who the remote is until there is one.
#[test]
fn the_first_packet_of_all_has_to_have_the_ssrc_that_was_declared() {
    let mut call = Call::new(ComediaPolicy::Relearn, true);
    let own = call.track.clone();
    call.reborn();
    let stranger = call.packet();
    call.sim.advance(ms(60_000));
    call.deliver(Port::Rtp, NEW(), &stranger.bytes);
    assert_eq!((call.learned(), call.remote()), (vec![], None));
    call.track = own;
    assert!(call.hears(OLD()));
    assert_eq!((call.learned(), call.ssrc().1), (vec![rtp_only(OLD())], 0));
}

#[test]
fn rtcp_of_the_remote_is_a_sign_of_life_and_a_strangers_is_none() {
    let mut call = Call::begun(ComediaPolicy::Relearn, true);
    let report = wire::sender_report(call.track.stream().ssrc, 1, 2);
    for _ in 0..5 {
        call.sim.advance(ms(4_000));
        call.deliver(Port::Rtp, OLD(), &report);
    }
    assert!(!call.hears(NEW()));
    // What another port of the IP says neither takes the place nor keeps the old one, and its goodbye is not the remote's.
    let bye = reports::bye(&[call.track.stream().ssrc]);
    for _ in 0..4 {
        call.sim.advance(ms(1_000));
        for packet in [&report, &wire::receiver_report(7), &bye] {
            call.deliver(Port::Rtp, NEW(), packet);
        }
    }
    assert_eq!(call.learned(), []);
    assert!(!call.hears(NEW()));
    call.sim.advance(ms(1_000));
    call.deliver(Port::Rtp, NEW(), &report);
    assert!(call.hears(NEW()));
}

#[test]
fn rfc3550_6_6_after_a_goodbye_nobody_has_to_wait() {
    for rtcp_mux in [true, false] {
        let mut call = Call::begun(ComediaPolicy::Relearn, rtcp_mux);
        let (port, from) = match rtcp_mux {
            true => (Port::Rtp, OLD()),
            false => (Port::Rtcp, address(1, 5_001)),
        };
        let ssrc = call.track.stream().ssrc;
        let bye = reports::bye(&[ssrc]);
        if !rtcp_mux {
            call.deliver(port, from, &wire::sender_report(ssrc, 1, 2));
            let both = Remote {
                rtp: OLD(),
                rtcp: Some(from),
            };
            assert_eq!(call.learned(), [both]);
        }
        // Not of somebody else, and not if media comes after it.
        call.deliver(port, from, &reports::bye(&[ssrc ^ 1]));
        assert!(!call.hears(NEW()));
        call.deliver(port, from, &bye);
        assert!(call.hears(OLD()));
        assert!(!call.hears(NEW()));
        call.deliver(port, from, &bye);
        assert!(call.hears(NEW()));
        assert_eq!((call.learned(), call.relearned()), (vec![rtp_only(NEW())], 1));
    }
}

/// RFC 3550 §11: also if the goodbye is the first that comes from its port for RTCP, where that is the one above; not from
/// another one.
#[test]
fn rfc3550_11_the_port_above_may_say_goodbye() {
    for (from, moves) in [(address(1, 5_001), true), (address(1, 5_003), false)] {
        let mut call = Call::begun(ComediaPolicy::Relearn, false);
        let bye = reports::bye(&[call.track.stream().ssrc]);
        call.deliver(Port::Rtcp, from, &bye);
        assert_eq!(call.hears(NEW()), moves, "{from}");
    }
}

#[test]
fn a_sender_that_starts_over_reports_from_another_port_too() {
    let mut call = Call::begun(ComediaPolicy::Relearn, false);
    let report = wire::sender_report(call.track.stream().ssrc, 1, 2);
    call.deliver(Port::Rtcp, address(1, 5_001), &report);
    let old = Remote {
        rtp: OLD(),
        rtcp: Some(address(1, 5_001)),
    };
    assert_eq!(call.learned(), [old]);
    call.sim.advance(ms(5_000));
    // It may report first; that is heard, and teaches nothing.
    call.deliver(Port::Rtcp, address(1, 5_011), &report);
    assert_eq!((call.learned(), call.remote()), (vec![], Some(old)));
    assert!(call.hears(NEW()));
    call.deliver(Port::Rtcp, address(1, 5_011), &report);
    let new = Remote {
        rtp: NEW(),
        rtcp: Some(address(1, 5_011)),
    };
    assert_eq!(call.learned(), [rtp_only(NEW()), new]);
}

/// RFC 3550 §11: reports may come from any port, and ffmpeg's come before its first packet. Of one that has started over they are
/// learned as the old sender's, of which none were known; that does not make the old port alive. Those from the port above do.
#[test]
fn reports_of_a_sender_that_starts_over_do_not_keep_its_old_port_alive() {
    for (from, moves) in [(address(1, 5_011), true), (address(1, 5_001), false)] {
        let mut call = Call::begun(ComediaPolicy::Relearn, false);
        let report = wire::sender_report(call.track.stream().ssrc, 1, 2);
        for _ in 0..4 {
            call.deliver(Port::Rtcp, from, &report);
            call.sim.advance(ms(1_250));
        }
        assert_eq!(call.remote().and_then(|remote| remote.rtcp), Some(from));
        assert_eq!(call.hears(NEW()), moves, "{from}");
    }
}

#[test]
fn a_successor_begins_with_what_was_learned_and_may_learn_anew() {
    for (policy, moves) in [(ComediaPolicy::Relearn, true), (ComediaPolicy::Lock, false)] {
        let mut call = Call::new(policy, true);
        let room = call.sim.room_of(call.transport);
        call.transport = call.sim.transport_with(room, OLD(), |request| {
            request.comedia = true;
            request.comedia_policy = policy;
            request.remote = Some(rtp_only(OLD()));
        });
        call.track = call.sim.microphone(call.transport);
        let receiver = call.sim.transport(room);
        call.consumer = call.sim.consumer(receiver, &call.track);
        assert!(!call.hears(NEW()));
        call.sim.advance(ms(5_000));
        assert_eq!(call.hears(NEW()), moves, "{policy:?}");
    }
}

#[test]
fn what_the_application_has_told_is_not_learned_anew() {
    let mut call = Call::begun(ComediaPolicy::Relearn, true);
    let transport = call.transport;
    let remote = rtp_only(address(3, 3_000));
    call.sim.command(Method::SetRemote { transport, remote });
    call.sim.advance(ms(60_000));
    assert!(!call.hears(address(3, 3_010)));
    assert!(call.hears(address(3, 3_000)));
    assert_eq!(call.learned(), []);
}

#[test]
fn rtcp_is_heard_from_every_port_of_the_remotes_ip() {
    for rtcp_mux in [true, false] {
        for comedia in [true, false] {
            let mut sim = Sim::new(2);
            let room = sim.room();
            let remote = Remote {
                rtp: OLD(),
                rtcp: (!rtcp_mux).then(|| address(1, 5_001)),
            };
            let transport = sim.transport_with(room, OLD(), |request| {
                request.comedia = comedia;
                request.rtcp_mux = rtcp_mux;
                request.remote = Some(remote);
            });
            // Somebody who sends and receives; who only receives, from where the application says, reports from there.
            sim.microphone(transport);
            let sender = sim.transport(room);
            let mut track = sim.camera(sender, CodecName::Vp8);
            sim.send(sender, &track.stream().key_frame(1));
            let consumer = sim.consumer(transport, &track);
            sim.send(sender, &track.stream().key_frame(1));
            sim.advance(ms(2_000));
            sim.asked();
            sim.told();
            sim.wanted();
            let port = if rtcp_mux { Port::Rtp } else { Port::Rtcp };
            let pli = wire::pli(1, sim.consumers[&consumer].request.ssrc);
            let shown = format!("mux {rtcp_mux}, comedia {comedia}");
            for (count, source) in [(1, address(1, 6_000)), (2, address(1, 5_000)), (3, address(1, 5_001))] {
                sim.deliver(transport, port, &[single(source, &pli)]);
                assert_eq!(sim.stats(consumer).pli_count, count, "{shown}, {source}");
                sim.advance(ms(1_100));
            }
            assert_eq!(sim.asked_ssrcs().len(), 3, "{shown}");
            let stats = sim.transport_stats(transport);
            assert_eq!((stats.rtcp_received, &stats.unrouted[..]), (3, &[][..]), "{shown}");
            // It teaches nothing, and another IP is not heard.
            assert_eq!(stats.remote, Some(remote));
            assert_eq!(sim.wanted(), []);
            sim.deliver(transport, port, &[single(address(2, 5_000), &pli)]);
            assert_eq!(sim.stats(consumer).pli_count, 3, "{shown}");
            assert_eq!(sim.unrouted(transport, UnroutedReason::ForeignSource), 1, "{shown}");
        }
    }
}

/// RFC 3550 §11: RTCP goes to the port above RTP's, whether the sender has shown one of its own or not. (Where that is on the
/// network: `net_process.rs`.)
#[test]
fn rfc3550_11_a_sender_without_rtcp_of_its_own_is_asked_for_key_frames() {
    for rtcp_mux in [true, false] {
        let mut sim = Sim::new(3);
        let room = sim.room();
        let transport = sim.transport_with(room, OLD(), |request| {
            request.comedia = true;
            request.rtcp_mux = rtcp_mux;
        });
        let mut track = sim.camera(transport, CodecName::Vp8);
        let receiver = sim.transport(room);
        sim.consumer(receiver, &track);
        sim.asked();
        let delta = track.stream().delta_frame(1);
        sim.deliver(transport, Port::Rtp, &[single(OLD(), &delta[0].bytes)]);
        sim.advance(ms(1_500));
        let index = sim.index(transport);
        let asked = sim.sink.rtcp.iter().filter(|(_, to, _)| *to == index).count();
        assert!(asked > 1, "requests and reports");
        assert!(sim.asked_ssrcs().contains(&track.stream().ssrc));
    }
}

#[test]
fn rfc4007_6_a_link_local_address_is_another_one_in_each_zone() {
    let parse = |text: &str| text.parse::<SocketAddr>().unwrap();
    // (the remote, the source as the kernel names it, whether they are the same)
    let cases = [
        ("[fe80::1%2]:5000", "[fe80::1%2]:5000", true),
        ("[fe80::1%2]:5000", "[fe80::1%3]:5000", false),
        ("[fe80::1%2]:5000", "[fe80::1]:5000", false),
        ("[2001:db8::1]:5000", "[2001:db8::1]:5000", true),
        // The kernel names no zone of an address that needs none.
        ("[2001:db8::1%2]:5000", "[2001:db8::1]:5000", true),
        ("[2001:db8::1%2]:5000", "[2001:db8::2]:5000", false),
    ];
    for (remote, source, is_same) in cases {
        let mut call = Call::new(ComediaPolicy::Relearn, true);
        let (transport, remote) = (call.transport, rtp_only(parse(remote)));
        call.sim.command(Method::SetRemote { transport, remote });
        assert_eq!(call.hears(parse(source)), is_same, "{remote:?} {source}");
        call.sim.advance(ms(5_000));
    }
    // What is learned keeps its zone, and a neighbour is one of the same zone.
    let mut call = Call::new(ComediaPolicy::Relearn, true);
    assert!(call.hears(parse("[fe80::1%2]:5000")));
    assert_eq!(call.learned(), [rtp_only(parse("[fe80::1%2]:5000"))]);
    call.sim.advance(ms(5_000));
    assert!(!call.hears(parse("[fe80::1%3]:5010")));
    assert!(call.hears(parse("[fe80::1%2]:5010")));
}

/// What is longer than the ring's pieces is relayed and cannot be sent again: that is said.
#[test]
fn packets_too_long_to_be_kept_are_counted() {
    let mut call = Call::begun(ComediaPolicy::Relearn, true);
    let mut packet = call.packet();
    packet.bytes.resize(16 << 10, 0);
    call.deliver(Port::Rtp, OLD(), &packet.bytes);
    let count = |call: &mut Call| call.sim.producer_stats(call.track.id()).streams[0].packets_not_kept;
    assert_eq!(count(&mut call), 0);
    let mut packet = call.packet();
    packet.bytes.resize((16 << 10) + 1, 0);
    call.deliver(Port::Rtp, OLD(), &packet.bytes);
    assert_eq!(count(&mut call), 1);
    let lens: Vec<_> = call
        .sim
        .received(call.consumer)
        .iter()
        .map(|packet| packet.bytes.len())
        .collect();
    assert_eq!(lens, [16 << 10, (16 << 10) + 1]);
}

#[test]
fn goodbyes_over_and_over_move_nobody() {
    let mut call = Call::begun(ComediaPolicy::Relearn, true);
    let ssrc = call.track.stream().ssrc;
    let bye = reports::bye(&[ssrc]);
    let mut learned = 0;
    for round in 0..100u16 {
        let (from, to) = if round % 2 == 0 { (OLD(), NEW()) } else { (NEW(), OLD()) };
        call.deliver(Port::Rtp, from, &bye);
        let packet = call.packet();
        call.deliver(Port::Rtp, to, &packet.bytes);
        learned += call.learned().len();
    }
    assert!(learned <= 2, "{learned} remotes learned within no time");
}
