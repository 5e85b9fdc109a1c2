//! ffmpeg sends VP8 and opus, Weir relays both to two ffmpeg receivers, and what these decode is, frame by frame and bit
//! by bit, what was sent.
//!
//! `cargo test --test e2e_ffmpeg -- --ignored`; without ffmpeg it fails.

mod loopback;

#[path = "media/programs.rs"]
mod programs;
#[path = "media/weir.rs"]
mod relay;

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use programs::{Program, assert_same, bound};
use relay::{AUDIO, Relay, Relayed, Track, VIDEO, free_ports, settings};

/// Four seconds of test picture, with a key frame every second.
const PICTURE: &str = "-f lavfi -i testsrc2=size=320x180:rate=30:duration=4 -pix_fmt yuv420p
    -c:v libvpx -deadline realtime -cpu-used 8 -auto-alt-ref 0 -lag-in-frames 0 -g 30 -b:v 500k";

/// Four seconds of a tone.
const TONE: &str = "-f lavfi -i sine=frequency=500:beep_factor=3:sample_rate=48000:duration=4 -ac 2
    -c:a libopus -frame_duration 20 -b:a 64k";

/// Prints the MD5 of each decoded frame, none dropped or repeated to fit a frame rate.
const CHECKSUMS: &str = "-fps_mode passthrough -f framemd5 -";

/// What is sent of a track, and the checksums of its decoded frames.
struct Sent {
    track: &'static Track,
    checksums: Vec<String>,
}

fn ffmpeg(directory: &Path, arguments: &str) -> Program {
    Program::start(
        "ffmpeg",
        directory,
        &format!("-hide_banner -loglevel error -nostdin {arguments}"),
    )
}

/// The last of the fields of each line of framemd5 that is no comment.
fn checksums(framemd5: &[String]) -> Vec<String> {
    let frames = framemd5.iter().filter(|line| !line.starts_with('#'));
    frames
        .filter_map(|line| line.split_whitespace().last())
        .map(str::to_owned)
        .collect()
}

async fn make(directory: &Path, track: &'static Track, encode: &str) -> Sent {
    let file = format!("{}.nut", track.name);
    ffmpeg(directory, &format!("{encode} {file}")).output().await;
    // One thread, so that no frame waits for a later one. The samples that an opus file asks to leave out at its start are
    // kept, as RTP does not know of them.
    let decode = format!("-threads 1 -flags2 +skip_manual -i {file} {CHECKSUMS}");
    let checksums = checksums(&ffmpeg(directory, &decode).output().await);
    // They must tell frames apart; otherwise a receiver could show anything.
    let distinct: HashSet<_> = checksums.iter().collect();
    assert!(
        distinct.len() * 10 > checksums.len() * 8,
        "{} distinct frames",
        distinct.len()
    );
    Sent { track, checksums }
}

/// A receiver that ends by itself when it has decoded as many frames as were sent.
async fn receive(directory: &Path, sent: &Sent, name: &str, relayed: &mut Relayed<'_>) -> Program {
    let (port, payload_type) = (free_ports(2), sent.track.payload_type_out);
    let (kind, codec, frames) = match sent.track.name {
        "video" => ("video", "VP8/90000", "-frames:v"),
        _ => ("audio", "opus/48000/2", "-frames:a"),
    };
    let sdp = format!(
        "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
         m={kind} {port} RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} {codec}\r\n"
    );
    fs::write(directory.join(name), sdp).expect("the file is written");
    let count = sent.checksums.len();
    let arguments = format!("-protocol_whitelist file,udp,rtp -threads 1 -i {name} {frames} {count} {CHECKSUMS}");
    let program = ffmpeg(directory, &arguments);
    bound(port).await;
    relayed.consume(port).await;
    program
}

fn send(directory: &Path, track: &Track, (rtp, rtcp): (u16, u16)) -> Program {
    let (name, payload_type, ssrc) = (track.name, track.payload_type_in, track.ssrc);
    let to = format!("rtp://127.0.0.1:{rtp}?rtcpport={rtcp}&pkt_size=1200");
    let arguments = format!("-re -i {name}.nut -c copy -f rtp -payload_type {payload_type} -ssrc {ssrc} {to}");
    ffmpeg(directory, &arguments)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs ffmpeg"]
async fn two_receivers_decode_what_was_sent() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let directory = directory.path();
    let video = make(directory, &VIDEO, PICTURE).await;
    let audio = make(directory, &AUDIO, TONE).await;
    assert_eq!(video.checksums.len(), 120);
    assert!(
        (200..=202).contains(&audio.checksums.len()),
        "{} frames of sound",
        audio.checksums.len()
    );

    // ffmpeg sends RTCP from another port than RTP, so it gets another port to send it to.
    let weir = Relay::start(settings(1), false).await;
    let (mut picture, mut tone) = (weir.produce(&VIDEO).await, weir.produce(&AUDIO).await);
    let mut receivers = Vec::new();
    for sdp in ["first", "second"] {
        let program = receive(directory, &video, &format!("{sdp}-video.sdp"), &mut picture).await;
        receivers.push((&video, program));
        let program = receive(directory, &audio, &format!("{sdp}-audio.sdp"), &mut tone).await;
        receivers.push((&audio, program));
    }

    let senders = [
        send(directory, &VIDEO, picture.ports()),
        send(directory, &AUDIO, tone.ports()),
    ];
    for sender in senders {
        sender.output().await;
    }
    for (sent, receiver) in receivers {
        assert_same(sent.track.name, &checksums(&receiver.output().await), &sent.checksums);
    }
    picture.assert_all_forwarded().await;
    tone.assert_all_forwarded().await;
    weir.close().await;
}
