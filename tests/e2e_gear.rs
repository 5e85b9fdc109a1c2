//! ffmpeg sends AAC, which Weir does not know, from a fixed port, and starts again under another SSRC; neither was declared. What
//! another ffmpeg decodes is, frame by frame, what was sent, both times.
//!
//! `cargo test --test e2e_gear -- --ignored`; without ffmpeg it fails.

mod loopback;
#[path = "media/programs.rs"]
mod programs;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use loopback::free_ports;
use programs::{Program, assert_same, bound};
use weir::{
    CodecName, ConsumerOptions, MediaKind, PlainTransportOptions, ProducerOptions, Remote, RoomOptions, RtpCodec,
    RtpEncoding, RtpParameters, Server,
};

/// Two seconds of a tone.
const TONE: &str =
    "-f lavfi -i sine=frequency=500:beep_factor=3:sample_rate=44100:duration=2 -ac 2 -c:a aac -aac_pns 0 -b:a 64k";

fn ffmpeg(directory: &Path, arguments: &str) -> Program {
    let quiet = "-hide_banner -loglevel error -nostdin";
    Program::start("ffmpeg", directory, &format!("{quiet} {arguments}"))
}

/// The checksums of decoded frames, as framemd5 prints them.
fn checksums(framemd5: &[String]) -> Vec<String> {
    let frames = framemd5.iter().filter(|line| !line.starts_with('#'));
    let last = frames.filter_map(|line| line.split_whitespace().last());
    last.map(str::to_owned).collect()
}

fn plain(port: u16) -> PlainTransportOptions {
    let address = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    PlainTransportOptions {
        remote: Some(Remote {
            rtp: address(port),
            rtcp: Some(address(port + 1)),
        }),
        rtcp_mux: false,
        ..PlainTransportOptions::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs ffmpeg"]
async fn a_sender_of_an_unknown_codec_that_starts_again_is_heard_again() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let directory = directory.path();
    ffmpeg(directory, &format!("{TONE} tone.nut")).output().await;
    let decode = "-flags2 +skip_manual -i tone.nut -f framemd5 -";
    let sent = checksums(&ffmpeg(directory, decode).output().await);
    assert!(sent.len() > 80, "{} frames", sent.len());

    let server = Server::start(loopback::settings(1)).await.expect("the server starts");
    let room = server.create_room(RoomOptions::default()).await.expect("a room");
    let (sender, receiver) = (free_ports(2), free_ports(2));
    let inward = room.create_plain_transport(plain(sender)).await.expect("a transport");
    let codec = RtpCodec {
        mime_type: "audio/mpeg4-generic".to_owned(),
        clock_rate: 44_100,
        channels: Some(2),
        ..RtpCodec::new(CodecName::Pcmu, 97)
    };
    let parameters = RtpParameters {
        codecs: vec![codec],
        encodings: vec![RtpEncoding::default()],
        ..RtpParameters::default()
    };
    let options = ProducerOptions::new(MediaKind::Audio, parameters);
    let producer = inward.produce(options).await.expect("a producer");
    let ports = (
        inward.tuple().local_port,
        inward.rtcp_tuple().map(|rtcp| rtcp.local_port),
    );
    let (rtp, Some(rtcp)) = ports else { panic!("{ports:?}") };
    let send = |more: &str| {
        let from = format!("localrtpport={sender}&localrtcpport={}", sender + 1);
        let to = format!("rtp://127.0.0.1:{rtp}?rtcpport={rtcp}&{from}&pkt_size=1200");
        let arguments = format!("-re -i tone.nut -c copy -f rtp -payload_type 97 {more} {to}");
        ffmpeg(directory, &arguments)
    };
    // What describes the stream to its receiver is written when something is sent, before anybody listens.
    send("-t 0.05 -sdp_file sent.sdp").output().await;
    let described = fs::read_to_string(directory.join("sent.sdp")).expect("a description");
    let described = described.replace(&format!("m=audio {rtp} "), &format!("m=audio {receiver} "));
    fs::write(directory.join("received.sdp"), described).expect("the file is written");

    // ffmpeg keeps back what does not fill a packet: the last frames of each time.
    let (kept_back, overlap) = (8, 2);
    let count = 2 * (sent.len() - kept_back);
    let arguments = format!(
        "-protocol_whitelist file,udp,rtp -flags2 +skip_manual -i received.sdp -frames:a {count} -f framemd5 -"
    );
    let listener = ffmpeg(directory, &arguments);
    bound(receiver).await;
    let outward = room.create_plain_transport(plain(receiver)).await.expect("a transport");
    let consumer = outward
        .consume(&producer, ConsumerOptions::default())
        .await
        .expect("a consumer");
    send("").output().await;
    // ffmpeg begins half a second ahead of time, and so ends ahead of time; its receiver leaves out what overlaps. So wait
    // until nothing has come for a second.
    while producer.stats().await.expect("counters").streams[0].bitrate > 0 {
        tokio::task::yield_now().await;
    }
    send("").output().await;
    let received = checksums(&listener.output().await);
    let differs = |(received, sent): (&String, &String)| received != sent;
    let seam = std::iter::zip(&received, &sent).position(differs).unwrap_or(sent.len());
    assert!(
        seam + kept_back >= sent.len(),
        "the first time: frame {seam} of {}",
        sent.len()
    );
    // A decoder adds the end of one frame to the next: the first ones after the seam are of both.
    let second = &received[seam + overlap..];
    assert_same("the second time", second, &sent[overlap..overlap + second.len()]);
    assert!(second.len() > sent.len() / 2);
    let stats = producer.stats().await.expect("counters").streams.remove(0);
    assert_eq!((stats.payload_type, stats.packets_lost), (Some(97), 0));
    assert!(stats.ssrc_changes >= 1, "{stats:?}");
    let forwarded = consumer.stats().await.expect("counters");
    assert_eq!(forwarded.packets_in, forwarded.packets_forwarded);
    server.close().await;
}
