//! Pictures whose packets differ by a few bytes, in every codec that ffmpeg packs. Weir pads their packets, and what ffmpeg and
//! GStreamer decode of them is, frame by frame and bit by bit, what they decode of the same packets when it does not.
//!
//! `cargo test --test e2e_padding -- --ignored`; without ffmpeg and GStreamer it fails.

mod loopback;

#[path = "media/programs.rs"]
mod programs;
#[expect(dead_code, reason = "the tracks of others")]
#[path = "media/weir.rs"]
mod relay;

use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use programs::{Program, assert_same, bound};
use relay::{Relay, Track, free_ports, settings};
use weir::{CodecName, Settings};

/// Frames that are sent, and of these, frames that must be decoded: decoders keep some back.
const SENT: usize = 100;
const DECODED: usize = 90;

/// What ffmpeg and GStreamer need to know of a codec.
struct Codec {
    track: Track,
    encode: &'static str,
    /// As SDP calls it.
    name: &'static str,
    decode: &'static str,
}

const fn track(codec: CodecName) -> Track {
    Track {
        name: "picture",
        codec,
        payload_type_in: 96,
        payload_type_out: 101,
        ssrc: 0x1001,
    }
}

static CODECS: [Codec; 4] = [
    Codec {
        track: track(CodecName::Vp8),
        encode: "-c:v libvpx -deadline realtime -cpu-used 8 -auto-alt-ref 0 -lag-in-frames 0",
        name: "VP8",
        decode: "rtpvp8depay ! vp8dec",
    },
    Codec {
        track: track(CodecName::Vp9),
        encode: "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -auto-alt-ref 0 -lag-in-frames 0",
        name: "VP9",
        decode: "rtpvp9depay ! vp9dec",
    },
    // With the parameter sets before each key frame.
    Codec {
        track: track(CodecName::H264),
        encode: "-c:v libx264 -preset ultrafast -tune zerolatency -bsf:v dump_extra",
        name: "H264",
        decode: "rtph264depay ! avdec_h264",
    },
    Codec {
        track: track(CodecName::H265),
        encode: "-c:v libx265 -preset ultrafast -tune zerolatency -x265-params log-level=error -bsf:v dump_extra",
        name: "H265",
        decode: "rtph265depay ! avdec_h265",
    },
];

fn ffmpeg(directory: &Path, arguments: &str) -> Program {
    Program::start(
        "ffmpeg",
        directory,
        &format!("-hide_banner -loglevel error -nostdin {arguments}"),
    )
}

fn gstreamer(directory: &Path, pipeline: &str) -> Program {
    Program::start("gst-launch-1.0", directory, &format!("-q {pipeline}"))
}

#[expect(clippy::disallowed_methods, reason = "a socket of the test's own")]
fn socket() -> UdpSocket {
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket")
}

/// The frames that ffmpeg sends, each as its packets: small ones, so that each frame has many.
async fn frames(directory: &Path, codec: &Codec) -> Vec<Vec<Vec<u8>>> {
    let socket = socket();
    let port = socket.local_addr().expect("it is bound").port();
    let packets = tokio::task::spawn_blocking(move || {
        let mut packets: Vec<Vec<u8>> = Vec::new();
        let mut buffer = [0; 2_048];
        loop {
            let len = socket.recv(&mut buffer).expect("a packet");
            // RTCP comes to another port; a packet without header says that it is over.
            if len < 12 {
                return packets;
            }
            packets.push(buffer[..len].to_vec());
        }
    });
    let Codec { track, encode, .. } = codec;
    let (payload_type, ssrc) = (track.payload_type_in, track.ssrc);
    let picture = "-re -f lavfi -i testsrc2=size=320x180:rate=60";
    let to = format!("rtp://127.0.0.1:{port}?rtcpport={}&pkt_size=220", free_ports(2));
    let sending = format!(
        "{picture} -frames:v {SENT} -pix_fmt yuv420p {encode} -g 30 -b:v 1M -strict experimental
         -f rtp -payload_type {payload_type} -ssrc {ssrc} {to}"
    );
    ffmpeg(directory, &sending).output().await;
    send_from(&self::socket(), port, &[0]);
    let packets = packets.await.expect("it ends");
    let mut frames: Vec<Vec<Vec<u8>>> = Vec::new();
    for packet in packets {
        match frames.last_mut().filter(|frame| frame[0][4..8] == packet[4..8]) {
            Some(frame) => frame.push(packet),
            None => frames.push(vec![packet]),
        }
    }
    assert_eq!(frames.len(), SENT, "{}", codec.name);
    frames
}

/// Makes packets longer by 0, 4, 8 or 12 bytes that receivers do not read: an empty block of header extensions (RFC 8285
/// §4.2), which may be zeros.
fn made_uneven(frames: &mut [Vec<Vec<u8>>]) {
    for (at, packet) in frames.iter_mut().flatten().enumerate() {
        if let Some(words) = (at * 7 % 5).checked_sub(2) {
            packet[0] |= 0x10;
            let block = [[0xbe, 0xde, 0, words as u8].as_slice(), &vec![0; 4 * words]].concat();
            packet.splice(12..12, block);
        }
    }
}

fn send_from(socket: &UdpSocket, port: u16, packet: &[u8]) {
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    socket.send_to(packet, to).expect("it is sent");
}

/// The next field of each line that a program prints of a frame.
async fn checksums(mut program: Program, field: usize) -> Vec<String> {
    let mut checksums = Vec::new();
    while checksums.len() < DECODED {
        let line = program
            .next_line()
            .await
            .expect("a receiver ends only when it is told to");
        if !line.starts_with('#') {
            let checksum = line.split_whitespace().nth(field);
            checksums.push(checksum.unwrap_or_else(|| panic!("no checksum in {line:?}")).to_owned());
        }
    }
    checksums
}

/// What ffmpeg and GStreamer decode of what Weir relays, and how many packets it padded.
async fn decoded(
    directory: &Path,
    codec: &'static Codec,
    frames: &[Vec<Vec<u8>>],
    equalize_packets: bool,
) -> ([Vec<String>; 2], u64) {
    let settings = Settings {
        equalize_packets,
        ..settings(1)
    };
    let weir = Relay::start(settings, true).await;
    let mut picture = weir.produce(&codec.track).await;
    let (name, payload_type) = (codec.name, codec.track.payload_type_out);

    let port = free_ports(2);
    let sdp = format!(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m=video {port} RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} {name}/90000\r\n"
    );
    let file = format!("{name}-{equalize_packets}.sdp");
    fs::write(directory.join(&file), sdp).expect("the file is written");
    // A line as soon as a frame is there.
    let show = "-fps_mode passthrough -flush_packets 1 -f framemd5 -";
    let input = format!("-protocol_whitelist file,udp,rtp -threads 1 -flags low_delay -i {file}");
    let of_ffmpeg = ffmpeg(directory, &format!("{input} -frames:v {DECODED} {show}"));
    bound(port).await;
    picture.consume(port).await;

    let port = free_ports(2);
    let caps = format!("application/x-rtp,media=video,clock-rate=90000,encoding-name={name},payload={payload_type}");
    let source = format!("udpsrc address=127.0.0.1 port={port} buffer-size=2000000 caps={caps}");
    let show = "video/x-raw ! checksumsink sync=false";
    let decode = codec.decode;
    let of_gstreamer = gstreamer(directory, &format!("{source} ! rtpjitterbuffer ! {decode} ! {show}"));
    bound(port).await;
    picture.consume(port).await;

    let (socket, (port, _)) = (socket(), picture.ports());
    // No faster than receivers read.
    let mut pace = tokio::time::interval(Duration::from_millis(15));
    for frame in frames {
        pace.tick().await;
        frame.iter().for_each(|packet| send_from(&socket, port, packet));
    }
    let decoded = [checksums(of_ffmpeg, 5).await, checksums(of_gstreamer, 1).await];
    picture.assert_all_forwarded().await;
    let workers = weir.server.workers();
    let stats = weir.server.worker_stats(workers[0].id).await.expect("counters");
    weir.close().await;
    (decoded, stats.packets_padded)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs ffmpeg and GStreamer"]
async fn padded_pictures_are_the_same_pictures() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let directory = directory.path();
    for codec in &CODECS {
        let mut frames = frames(directory, codec).await;
        made_uneven(&mut frames);
        let (plain, none) = decoded(directory, codec, &frames, false).await;
        let (padded, packets) = decoded(directory, codec, &frames, true).await;
        assert_eq!(none, 0);
        let all = frames.iter().map(Vec::len).sum::<usize>() as u64;
        assert!(
            packets > all / 5,
            "{}: {packets} packets padded, of {all} to two",
            codec.name
        );
        for (plain, padded) in plain.iter().zip(&padded) {
            assert_same(codec.name, padded, plain);
            let distinct: HashSet<_> = plain.iter().collect();
            assert!(distinct.len() > DECODED * 8 / 10, "{} distinct frames", distinct.len());
        }
    }
}
