//! GStreamer sends over a bad network to Weir, and Weir over another one to GStreamer: what is lost is asked for and sent
//! again on both, and sound and picture stay together.
//!
//! `cargo test --test e2e_repair -- --ignored`; without GStreamer it fails.

mod loopback;
#[path = "media/lossy.rs"]
mod lossy;
#[path = "media/programs.rs"]
#[expect(dead_code, reason = "no frames are compared here")]
mod programs;

use std::path::Path;

use loopback::free_ports;
use lossy::{Faults, Network, Seen};
use programs::{Program, bound};
use weir::{
    CodecName, Consumer, ConsumerOptions, ConsumerRtp, PlainTransportOptions, Producer, ProducerOptions, Remote, Room,
    RoomOptions, RtcpFeedback, RtpCodec, RtpEncoding, RtpParameters, RtxParameters, Server,
};

/// What the sender uses.
const VIDEO: u8 = 96;
const VIDEO_RTX: u8 = 97;
const AUDIO: u8 = 111;
/// What the receiver uses.
const VIDEO_OUT: u8 = 101;
const VIDEO_OUT_RTX: u8 = 102;

/// What is sent in each case.
const FRAMES: usize = 180;

/// One network on each side of Weir.
struct Case {
    name: &'static str,
    faults: Faults,
    /// Whether the receiver is sent RTX (RFC 4588), or the packets once more. GStreamer's sender always sends RTX.
    rtx: bool,
    /// The share of the sender's packets that must come out of the receiver's jitter buffer.
    share: f64,
}

const fn loss(loss: f64) -> Faults {
    Faults {
        loss,
        bursts: 0.0,
        duplicates: 0.0,
        reordered: 0.0,
    }
}

const CASES: [Case; 6] = [
    Case {
        name: "1 % lost",
        faults: loss(0.01),
        rtx: true,
        share: 0.999,
    },
    Case {
        name: "5 % lost",
        faults: loss(0.05),
        rtx: true,
        share: 0.999,
    },
    Case {
        name: "10 % lost",
        faults: loss(0.10),
        rtx: true,
        share: 0.999,
    },
    Case {
        name: "10 % lost, without RTX",
        faults: loss(0.10),
        rtx: false,
        share: 0.99,
    },
    Case {
        name: "20 % lost",
        faults: loss(0.20),
        rtx: true,
        share: 0.99,
    },
    Case {
        name: "bursts, repetitions, disorder",
        faults: Faults {
            loss: 0.02,
            bursts: 0.005,
            duplicates: 0.05,
            reordered: 0.05,
        },
        rtx: true,
        share: 0.999,
    },
];

fn gstreamer(directory: &Path, options: &str, pipeline: &str) -> Program {
    Program::start("gst-launch-1.0", directory, &format!("{options} {pipeline}"))
}

/// Six seconds of noise in pictures and sound: large, and no two packets alike.
async fn make(directory: &Path) {
    let picture = "videotestsrc num-buffers=180 pattern=snow ! video/x-raw,width=320,height=240,framerate=30/1,format=I420 !
        vp8enc deadline=1 cpu-used=8 keyframe-max-dist=60 target-bitrate=2000000 error-resilient=1 lag-in-frames=0 threads=1 !
        matroskamux ! filesink location=video.mkv";
    let sound =
        "audiotestsrc num-buffers=300 samplesperbuffer=960 wave=pink-noise ! audio/x-raw,rate=48000,channels=2 !
        opusenc frame-size=20 ! matroskamux ! filesink location=audio.mkv";
    for encode in [picture, sound] {
        gstreamer(directory, "-q", encode).output().await;
    }
}

struct Stage {
    server: Server,
    room: Room,
}

impl Stage {
    async fn set() -> Self {
        let server = Server::start(loopback::settings(1)).await.expect("the server starts");
        let room = server.create_room(RoomOptions::default()).await.expect("a room");
        Self { server, room }
    }

    /// A producer whose sender talks to Weir over a network.
    async fn produce(&self, network: &Network, parameters: RtpParameters) -> Producer {
        let options = PlainTransportOptions {
            comedia: true,
            ..PlainTransportOptions::default()
        };
        let transport = self.room.create_plain_transport(options).await.expect("a transport");
        network.connect(transport.tuple().local_port).await;
        let kind = match parameters.codecs[0].mime_type.starts_with("audio") {
            true => weir::MediaKind::Audio,
            false => weir::MediaKind::Video,
        };
        let options = ProducerOptions::new(kind, parameters);
        transport.produce(options).await.expect("a producer")
    }

    /// A consumer whose receiver talks to Weir over a network.
    async fn consume(&self, network: &Network, producer: &Producer, rtp: ConsumerRtp) -> Consumer {
        let remote = Remote {
            rtp: network.address,
            rtcp: None,
        };
        let options = PlainTransportOptions {
            remote: Some(remote),
            ..PlainTransportOptions::default()
        };
        let transport = self.room.create_plain_transport(options).await.expect("a transport");
        network.connect(transport.tuple().local_port).await;
        let options = ConsumerOptions {
            rtp,
            ..ConsumerOptions::default()
        };
        transport.consume(producer, options).await.expect("a consumer")
    }
}

/// What a GStreamer sender of pictures does.
fn picture(ssrc: u32, rtx: bool) -> RtpParameters {
    let mut codec = RtpCodec::new(CodecName::Vp8, VIDEO);
    codec.rtcp_feedback.push(RtcpFeedback::new("nack", ""));
    let repair = RtpCodec::rtx(VIDEO_RTX, &codec);
    let mut parameters = RtpParameters {
        codecs: vec![codec],
        encodings: vec![RtpEncoding::ssrc(ssrc)],
        ..RtpParameters::default()
    };
    if rtx {
        parameters.codecs.push(repair);
        parameters.encodings[0].rtx = Some(RtxParameters { ssrc: Some(ssrc + 1) });
    }
    parameters.rtcp.cname = Some("sender".to_owned());
    parameters
}

/// A GStreamer sender of pictures on a network: RTP with RTX, RTCP with what comes back. It prints a line for each frame,
/// and goes on answering when it has sent the last.
fn send_picture(directory: &Path, network: &Network, port: u16, ssrc: u32) -> Program {
    let (rtp, rtcp, own_rtcp, rtx_ssrc) = (network.rtp_port, network.rtcp_port, port + 1, ssrc + 1);
    gstreamer(
        directory,
        "-v",
        &format!(
            "rtpbin name=s rtp-profile=avpf
             filesrc location=video.mkv ! matroskademux ! identity name=frames sync=true silent=false !
             rtpvp8pay pt={VIDEO} ssrc={ssrc} mtu=1200 picture-id-mode=15-bit !
             application/x-rtp,rtcp-fb-nack=true,rtcp-fb-nack-pli=true !
             rtprtxsend max-size-packets=0 max-size-time=3000 payload-type-map=application/x-rtp-pt-map,{VIDEO}=(uint){VIDEO_RTX}
               ssrc-map=application/x-rtp-ssrc-map,{ssrc}=(uint){rtx_ssrc} !
             s.send_rtp_sink_0 s.send_rtp_src_0 ! udpsink host=127.0.0.1 port={rtp} sync=false
             s.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={rtcp} sync=false async=false
             udpsrc address=127.0.0.1 port={own_rtcp} ! s.recv_rtcp_sink_0"
        ),
    )
}

/// A GStreamer receiver of pictures on a network: it asks for what is missing, and prints a line for each packet that
/// leaves its jitter buffer.
fn receive_picture(directory: &Path, network: &Network, port: u16, ssrc: u32) -> Program {
    let (rtcp, own_rtcp) = (network.rtcp_port, port + 1);
    gstreamer(
        directory,
        "-v",
        &format!(
            "rtpsession name=s rtp-profile=avpf bandwidth=20000000 rtcp-fraction=1000000 rtcp-min-interval=20000000
             udpsrc address=127.0.0.1 port={port} buffer-size=2000000
               caps=application/x-rtp,media=video,clock-rate=90000,encoding-name=VP8,payload={VIDEO_OUT},rtcp-fb-nack=true,rtcp-fb-nack-pli=true !
             s.recv_rtp_sink s.recv_rtp_src !
             rtprtxreceive payload-type-map=application/x-rtp-pt-map,{VIDEO_OUT}=(uint){VIDEO_OUT_RTX} !
             rtpssrcdemux name=d d.src_{ssrc} !
             rtpjitterbuffer do-retransmission=true latency=1500 rtx-retry-timeout=60 rtx-min-retry-timeout=40 !
             identity name=out silent=false ! fakesink sync=false async=false
             udpsrc address=127.0.0.1 port={own_rtcp} ! s.recv_rtcp_sink
             s.send_rtcp_src ! udpsink host=127.0.0.1 port={rtcp} sync=false async=false"
        ),
    )
}

/// Waits for so many lines that tell of a buffer going through the element `name`.
async fn passed(program: &mut Program, name: &str, count: usize) {
    let what = format!("GstIdentity:{name}: last-message = chain");
    let mut seen = 0;
    while seen < count {
        let line = program.next_line().await;
        seen += usize::from(line.expect("a program ends only when it is told to").contains(&what));
    }
}

async fn run(directory: &Path, stage: &Stage, index: usize, case: &Case) {
    let (name, ssrc, seed) = (case.name, 0x1000 + 16 * index as u32, 40 + index as u64);
    let (sender_port, receiver_port) = (free_ports(2), free_ports(2));
    let inbound = Network::start(sender_port, case.faults, seed).await;
    let outbound = Network::start(receiver_port, case.faults, seed + 100).await;
    let producer = stage.produce(&inbound, picture(ssrc, true)).await;
    let mut payload_types = vec![(VIDEO, VIDEO_OUT)];
    if case.rtx {
        payload_types.push((VIDEO_RTX, VIDEO_OUT_RTX));
    }
    let ssrc_out = ssrc + 8;
    let wanted = ConsumerRtp {
        ssrc: Some(ssrc_out),
        payload_types: payload_types.into_iter().collect(),
        ..ConsumerRtp::default()
    };
    let consumer = stage.consume(&outbound, &producer, wanted).await;
    let mut receiver = receive_picture(directory, &outbound, receiver_port, ssrc_out);
    bound(receiver_port).await;
    bound(receiver_port + 1).await;

    let mut sender = send_picture(directory, &inbound, sender_port, ssrc);
    passed(&mut sender, "frames", FRAMES).await;
    let sent = inbound.seen().into_weir[&ssrc].len();
    assert!(sent > 800, "{name}: a sender of {sent} packets proves little");
    let least = (sent as f64 * case.share).ceil() as usize;
    passed(&mut receiver, "out", least).await;

    let (from_sender, to_receiver) = (inbound.seen(), outbound.seen());
    assert!(
        from_sender.lost > 0 && to_receiver.lost > 0,
        "{name}: a network without faults"
    );
    let [nacked, _] = from_sender.nacks;
    assert!(nacked > 0, "{name}: Weir never asked the sender");
    let stats = consumer.stats().await.expect("counters");
    assert!(stats.packets_retransmitted > 0, "{name}: {stats:?}");
    let dropped: u64 = stats.dropped.iter().map(|(_, count)| count).sum();
    assert_eq!(stats.packets_in, stats.packets_forwarded + dropped, "{name}: {stats:?}");
    let streams = producer.stats().await.expect("counters").streams;
    assert!(streams[0].packets_repaired > 0, "{name}: {streams:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs GStreamer"]
async fn what_is_lost_is_repaired() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    make(directory.path()).await;
    let stage = Stage::set().await;
    let cases = CASES
        .iter()
        .enumerate()
        .map(|(index, case)| run(directory.path(), &stage, index, case));
    futures::future::join_all(cases).await;
    stage.server.close().await;
}

/// By how many seconds the moment of a stream's newest report is later behind Weir than it was before, on the clocks of
/// Weir and of the sender.
fn delay(before: &Seen, after: &Seen, (ssrc_in, ssrc_out): (u32, u32), clock_rate: f64) -> f64 {
    let (ntp_in, rtp_in) = before.reports[&ssrc_in];
    let (ntp_out, rtp_out) = after.reports[&ssrc_out];
    let shift = before.timestamps[&ssrc_in]
        .iter()
        .find_map(|(payload, own)| Some(after.timestamps[&ssrc_out].get(payload)?.wrapping_sub(*own)))
        .expect("a packet that was seen on both sides");
    let ticks = rtp_in.wrapping_add(shift).wrapping_sub(rtp_out).cast_signed();
    let seconds = |ntp: u64| ntp as f64 / (1_u64 << 32) as f64;
    // The whole seconds first: a double has no room for both.
    let between = ntp_out.wrapping_sub(ntp_in).cast_signed() as f64 / (1_u64 << 32) as f64;
    assert!(seconds(ntp_in) > 0.0);
    between + f64::from(ticks) / clock_rate
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs GStreamer"]
async fn sound_and_picture_stay_together() {
    const SSRCS: [(u32, u32); 2] = [(0x2000, 0x2010), (0x3000, 0x3010)];
    let directory = tempfile::tempdir().expect("a temporary directory");
    let directory = directory.path();
    make(directory).await;
    let stage = Stage::set().await;
    let ports = [free_ports(2), free_ports(2)];
    let faults = Faults {
        loss: 0.02,
        reordered: 0.05,
        ..Faults::default()
    };
    let inbound = [
        Network::start(ports[0], faults, 1).await,
        Network::start(ports[1], faults, 2).await,
    ];
    // Nobody listens behind them; they write down what Weir sends.
    let outbound = [
        Network::start(free_ports(2), Faults::default(), 3).await,
        Network::start(free_ports(2), Faults::default(), 4).await,
    ];
    let mut sound = RtpParameters {
        codecs: vec![RtpCodec::new(CodecName::Opus, AUDIO)],
        encodings: vec![RtpEncoding::ssrc(SSRCS[1].0)],
        ..RtpParameters::default()
    };
    sound.rtcp.cname = Some("sender".to_owned());
    let producers = [
        stage.produce(&inbound[0], picture(SSRCS[0].0, false)).await,
        stage.produce(&inbound[1], sound).await,
    ];
    for (index, producer) in producers.iter().enumerate() {
        let wanted = ConsumerRtp {
            ssrc: Some(SSRCS[index].1),
            ..ConsumerRtp::default()
        };
        stage.consume(&outbound[index], producer, wanted).await;
    }
    let [video, audio] = &inbound;
    let mut sender = gstreamer(
        directory,
        "-v",
        &format!(
            "rtpbin name=s
             filesrc location=video.mkv ! matroskademux ! identity name=frames sync=true silent=false !
             rtpvp8pay pt={VIDEO} ssrc={} mtu=1200 picture-id-mode=15-bit ! s.send_rtp_sink_0
             filesrc location=audio.mkv ! matroskademux ! identity sync=true !
             rtpopuspay pt={AUDIO} ssrc={} ! s.send_rtp_sink_1
             s.send_rtp_src_0 ! udpsink host=127.0.0.1 port={} sync=false
             s.send_rtcp_src_0 ! udpsink host=127.0.0.1 port={} sync=false async=false
             s.send_rtp_src_1 ! udpsink host=127.0.0.1 port={} sync=false
             s.send_rtcp_src_1 ! udpsink host=127.0.0.1 port={} sync=false async=false",
            SSRCS[0].0, SSRCS[1].0, video.rtp_port, video.rtcp_port, audio.rtp_port, audio.rtcp_port
        ),
    );
    // It is not waited for to its end: with both cores busy one in five of these pipelines never ends.
    passed(&mut sender, "frames", FRAMES).await;
    let delays = [(0, 90_000.0), (1, 48_000.0)]
        .map(|(index, rate)| delay(&inbound[index].seen(), &outbound[index].seen(), SSRCS[index], rate));
    let offset_ms = (delays[0] - delays[1]) * 1_000.0;
    assert!(
        offset_ms.abs() < 5.0,
        "sound and picture are {offset_ms:.1} ms further apart behind Weir than before it: {delays:?} s"
    );
    stage.server.close().await;
}
