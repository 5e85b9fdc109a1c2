//! ffmpeg sends H.264 with a key frame every ten seconds, whatever it is asked for; who joins in the middle of a group of
//! pictures sees that group from its start, at once, and is up to date before the next one.
//!
//! `cargo test --test e2e_join -- --ignored --nocapture` also prints how long another ffmpeg takes from joining to its first
//! decoded picture, with and without `gop_cache`; without ffmpeg it fails.

mod loopback;
#[path = "media/programs.rs"]
mod programs;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use std::{fs, iter, mem};

use loopback::free_ports;
use programs::{Program, assert_same, bound};
use tokio::net::UdpSocket;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::yield_now;
use tokio::time::{Instant, timeout};
use weir::{
    CodecName, Consumer, ConsumerOptions, MediaKind, PlainTransportOptions, Producer, ProducerOptions, Remote, Room,
    RoomOptions, RtpCodec, RtpEncoding, RtpParameters, Server, Settings,
};

/// Pictures of a group: ten seconds of them.
const GROUP: usize = 250;

/// How many of a group are sent when somebody joins.
const MISSED: usize = 125;

/// How many pictures of what it is sent the other ffmpeg decodes.
const DECODED: usize = 10;

/// Ticks of the RTP clock (RFC 6184 §8.1) from one picture to the next.
const STEP: u32 = 90_000 / 25;

/// Three groups and a little more.
const PICTURE: &str = "-f lavfi -i testsrc2=size=320x180:rate=25:duration=33 -pix_fmt yuv420p
    -c:v libx264 -preset veryfast -bf 0 -g 250 -keyint_min 250 -sc_threshold 0 -b:v 400k picture.ts";

/// Prints the MD5 of each decoded frame when it is decoded.
const CHECKSUMS: &str = "-fps_mode passthrough -flush_packets 1 -f framemd5 -";

/// How long to wait for what must come: the next group may be all there is.
const PATIENCE: Duration = Duration::from_secs(60);

/// RFC 6184 §5.4, §7.4.1 of H.264.
const PICTURE_DATA: u8 = 1;
const KEY_PICTURE: u8 = 5;
const SEQUENCE_PARAMETERS: u8 = 7;
const PICTURE_PARAMETERS: u8 = 8;

fn ffmpeg(directory: &Path, arguments: &str) -> Program {
    let quiet = "-hide_banner -loglevel error -nostdin";
    Program::start("ffmpeg", directory, &format!("{quiet} {arguments}"))
}

/// The checksum in a line of framemd5 that is no comment.
fn checksum(line: &str) -> Option<String> {
    let frame = Some(line).filter(|line| !line.starts_with('#'))?;
    frame.split_whitespace().last().map(str::to_owned)
}

/// A packet as a viewer sees it.
#[derive(Clone, Debug)]
struct Packet {
    seq: u16,
    timestamp: u32,
    /// It is the last one of its picture.
    marker: bool,
    payload: Vec<u8>,
}

impl Packet {
    /// Only what [`Room`] sends here: no extensions, no padding. RTCP is none (RFC 5761 §4).
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk::<12>()?;
        let [0x80, kind, s0, s1, t0, t1, t2, t3, ..] = *header else {
            return None;
        };
        (kind & 0x7f == 96).then(|| Self {
            seq: u16::from_be_bytes([s0, s1]),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            marker: kind & 0x80 != 0,
            payload: payload.to_vec(),
        })
    }

    /// The types of the units that begin in it.
    fn units(&self) -> Vec<u8> {
        let payload = &self.payload;
        match payload[0] & 0x1f {
            24 => {
                let mut units = vec![];
                let mut rest = &payload[1..];
                while let [l0, l1, unit, ..] = *rest {
                    units.push(unit & 0x1f);
                    rest = &rest[2 + usize::from(u16::from_be_bytes([l0, l1]))..];
                }
                units
            }
            28 if payload[1] & 0x80 == 0 => vec![],
            28 => vec![payload[1] & 0x1f],
            unit => vec![unit],
        }
    }

    fn begins_group(&self) -> bool {
        self.units().contains(&SEQUENCE_PARAMETERS)
    }
}

/// Somebody who sees packets.
struct Viewer {
    packets: UnboundedReceiver<Packet>,
    seen: Vec<Packet>,
    _consumer: Consumer,
}

impl Viewer {
    async fn join(scene: &Scene) -> Self {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a socket");
        let remote = socket.local_addr().expect("its address");
        let consumer = scene.consume(remote, None).await;
        let (sender, packets) = unbounded_channel();
        // What came is there when it is asked for, so that nothing is lost however busy the machine is.
        tokio::spawn(async move {
            let mut packet = [0; 2_048];
            while let Ok(len) = socket.recv(&mut packet).await {
                if let Some(packet) = Packet::parse(&packet[..len])
                    && sender.send(packet).is_err()
                {
                    break;
                }
            }
        });
        Self {
            packets,
            seen: vec![],
            _consumer: consumer,
        }
    }

    /// Sees packets until this is so after one of them.
    async fn watch(&mut self, mut is_enough: impl FnMut(&[Packet]) -> bool) {
        while !is_enough(&self.seen) {
            let packet = timeout(PATIENCE, self.packets.recv()).await;
            self.seen
                .push(packet.expect("another packet comes").expect("it listens"));
        }
    }

    /// Sees what has come by now.
    fn catch_up(&mut self) {
        while let Ok(packet) = self.packets.try_recv() {
            self.seen.push(packet);
        }
    }
}

fn pictures(packets: &[Packet]) -> usize {
    packets.iter().filter(|packet| packet.marker).count()
}

fn groups(packets: &[Packet]) -> usize {
    packets.iter().filter(|packet| packet.begins_group()).count()
}

/// A server to which ffmpeg sends.
struct Scene {
    server: Server,
    room: Room,
    producer: Producer,
    _sender: Program,
}

impl Scene {
    async fn start(directory: &Path, gop_cache: bool) -> Self {
        let settings = Settings {
            gop_cache,
            ..loopback::settings(1)
        };
        let server = Server::start(settings).await.expect("the server starts");
        let room = server.create_room(RoomOptions::default()).await.expect("a room");
        let options = PlainTransportOptions {
            comedia: true,
            rtcp_mux: false,
            ..PlainTransportOptions::default()
        };
        let transport = room.create_plain_transport(options).await.expect("a transport");
        let parameters = RtpParameters {
            codecs: vec![RtpCodec::new(CodecName::H264, 96)],
            encodings: vec![RtpEncoding::ssrc(0x1001)],
            ..RtpParameters::default()
        };
        let options = ProducerOptions::new(MediaKind::Video, parameters);
        let producer = transport.produce(options).await.expect("a producer");
        let rtp = transport.tuple().local_port;
        let rtcp = transport.rtcp_tuple().expect("a port of its own").local_port;
        let to = format!("rtp://127.0.0.1:{rtp}?rtcpport={rtcp}&pkt_size=1200");
        let arguments = format!(
            "-re -i picture.ts -c copy -f rtp -payload_type 96 -ssrc {} {to}",
            0x1001
        );
        Self {
            server,
            room,
            producer,
            _sender: ffmpeg(directory, &arguments),
        }
    }

    async fn consume(&self, rtp: SocketAddr, rtcp: Option<SocketAddr>) -> Consumer {
        let options = PlainTransportOptions {
            remote: Some(Remote { rtp, rtcp }),
            rtcp_mux: rtcp.is_none(),
            ..PlainTransportOptions::default()
        };
        let transport = self.room.create_plain_transport(options).await.expect("a transport");
        let consumer = transport.consume(&self.producer, ConsumerOptions::default()).await;
        consumer.expect("a consumer")
    }

    /// Waits until so many packets have come from the sender.
    async fn sent(&self, packets: u64) {
        let sent = async {
            while self.producer.stats().await.expect("counters").streams[0].packets < packets {
                yield_now().await;
            }
        };
        timeout(PATIENCE, sent).await.expect("ffmpeg sends");
    }
}

/// An ffmpeg that waits for something to decode, once it has joined.
struct Decoder {
    program: Program,
    port: u16,
}

impl Decoder {
    async fn start(directory: &Path, name: &str) -> Self {
        let port = free_ports(2);
        let description = format!(
            "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
             m=video {port} RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\n"
        );
        fs::write(directory.join(name), description).expect("the file is written");
        let input = "-protocol_whitelist file,udp,rtp -analyzeduration 100000 -flags low_delay -threads 1";
        let program = ffmpeg(directory, &format!("{input} -i {name} -frames:v {DECODED} {CHECKSUMS}"));
        bound(port).await;
        Self { program, port }
    }

    /// Joins; the first pictures that it decodes, and how long the first took.
    async fn first_pictures(mut self, scene: &Scene) -> (Vec<String>, Duration) {
        let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let joined = Instant::now();
        let _consumer = scene.consume(address(self.port), Some(address(self.port + 1))).await;
        let first = loop {
            let line = self.program.next_line().await.expect("a picture");
            if let Some(checksum) = checksum(&line) {
                break checksum;
            }
        };
        let took = joined.elapsed();
        let rest = self.program.output().await;
        let rest = rest.iter().filter_map(|line| checksum(line));
        (iter::once(first).chain(rest).collect(), took)
    }
}

/// What somebody has seen who joined in the middle of the second group.
struct Joined {
    /// The second group, and the beginning of the third, as they were sent.
    live: Vec<Packet>,
    seen: Vec<Packet>,
    /// Whether the third had begun when its first picture was there.
    was_late: bool,
    decoded: Vec<String>,
    took: Duration,
}

async fn join(directory: Arc<Path>, gop_cache: bool) -> Joined {
    let scene = Scene::start(&directory, gop_cache).await;
    // In the middle of the first group somebody joins, whose requests nobody answers, and sees the second one.
    scene.sent(100).await;
    let mut first = Viewer::join(&scene).await;
    first.watch(|seen| pictures(seen) > 0).await;
    let decoder = Decoder::start(&directory, &format!("{gop_cache}.sdp")).await;
    first.watch(|seen| pictures(seen) >= MISSED).await;
    let mut second = Viewer::join(&scene).await;
    let watching = async {
        second.watch(|seen| pictures(seen) > 0).await;
        first.catch_up();
        let was_late = groups(&first.seen) > 1;
        let is_enough = |seen: &[Packet]| pictures(seen) > GROUP + 10;
        first.watch(is_enough).await;
        let last = first.seen.last().expect("there are some").payload.clone();
        second
            .watch(|seen| seen.last().is_some_and(|seen| seen.payload == last))
            .await;
        was_late
    };
    let (was_late, (decoded, took)) = tokio::join!(watching, decoder.first_pictures(&scene));
    scene.server.close().await;
    Joined {
        live: mem::take(&mut first.seen),
        seen: mem::take(&mut second.seen),
        was_late,
        decoded,
        took,
    }
}

/// Where the third group begins.
fn third(packets: &[Packet]) -> usize {
    let place = packets.iter().skip(1).position(Packet::begins_group);
    1 + place.expect("it begins")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs ffmpeg"]
async fn who_joins_a_sender_that_answers_no_requests_sees_the_group_that_is_under_way() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let directory: Arc<Path> = directory.path().into();
    ffmpeg(&directory, PICTURE).output().await;
    let decode = format!("-threads 1 -i picture.ts {CHECKSUMS}");
    let sent = ffmpeg(&directory, &decode).output().await;
    let sent: Vec<_> = sent.iter().filter_map(|line| checksum(line)).collect();
    assert!(sent.len() > 3 * GROUP, "{} frames", sent.len());

    let (with, without) = tokio::join!(join(directory.clone(), true), join(directory.clone(), false));
    println!(
        "from joining to the first decoded picture: {:.3} s with gop_cache, {:.3} s without",
        with.took.as_secs_f64(),
        without.took.as_secs_f64()
    );
    for (joined, group) in [(&with, 1), (&without, 2)] {
        let begins = sent.iter().position(|sent| *sent == joined.decoded[0]);
        assert_eq!(begins, Some(group * GROUP), "the picture that is decoded first");
        let sent = &sent[group * GROUP..][..DECODED];
        assert_same("what is decoded first", &joined.decoded, sent);
    }

    for joined in [&with, &without] {
        let first = &joined.live[0];
        assert!(first.begins_group(), "{:?}", first.units());
        assert_eq!(pictures(&joined.live[..third(&joined.live)]), GROUP);
        // A start is whole: parameter sets before the key picture that needs them.
        let units: Vec<_> = joined.seen.iter().flat_map(Packet::units).collect();
        let place = |unit| units.iter().position(|found| *found == unit).expect("it came");
        let order = [SEQUENCE_PARAMETERS, PICTURE_PARAMETERS, KEY_PICTURE, PICTURE_DATA].map(place);
        assert!(order.is_sorted(), "{units:?}");
    }
    assert!(!with.was_late, "the first picture came before the next group");
    assert!(without.was_late);

    // Every packet from the group's start to the last one that was sent, once, in order.
    let payloads = |packets: &[Packet]| packets.iter().map(|packet| packet.payload.clone()).collect::<Vec<_>>();
    assert!(payloads(&with.seen) == payloads(&with.live));
    assert!(payloads(&without.seen) == payloads(&without.live[third(&without.live)..]));
    for joined in [&with, &without] {
        let pairs = joined.seen.windows(2);
        assert!(pairs.clone().all(|pair| pair[1].seq == pair[0].seq.wrapping_add(1)));
        let mut steps = pairs.map(|pair| pair[1].timestamp.wrapping_sub(pair[0].timestamp));
        assert!(
            steps.all(|step| step <= STEP + 1),
            "time goes on, and never faster than it does"
        );
    }
    // What it had missed is shown faster than it was sent; before the next group begins it is up to date.
    let group = &with.seen[..third(&with.seen)];
    let shown = |pictures: &[Packet]| {
        let ends = (pictures.first(), pictures.last());
        let (Some(first), Some(last)) = ends else {
            panic!("{ends:?}")
        };
        last.timestamp.wrapping_sub(first.timestamp)
    };
    let (missed, rest) = group.split_at(group.len() / 4);
    let pictures_missed = pictures(missed) as u32;
    assert!(shown(missed) < pictures_missed * STEP / 2, "{} ticks", shown(missed));
    let lately = rest.iter().rev().take_while({
        let newest = group[group.len() - 1].timestamp;
        move |packet| newest.wrapping_sub(packet.timestamp) <= 25 * STEP
    });
    let lately = lately.filter(|packet| packet.marker).count();
    assert!((25..=26).contains(&lately), "{lately} pictures in the last second");
}
