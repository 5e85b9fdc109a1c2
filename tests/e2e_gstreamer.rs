//! GStreamer sends VP8 and opus, Weir relays both to two GStreamer receivers, and what these decode is, frame by frame
//! and bit by bit, what was sent.
//!
//! `cargo test --test e2e_gstreamer -- --ignored`; without GStreamer it fails.

mod loopback;

#[path = "media/programs.rs"]
mod programs;
#[path = "media/weir.rs"]
mod relay;

use std::collections::HashSet;
use std::path::Path;

use programs::{Program, assert_same, bound};
use relay::{AUDIO, Relay, Relayed, Track, VIDEO, free_ports, settings};

/// A track as GStreamer makes, packs and shows it.
struct Pipeline {
    track: &'static Track,
    encode: &'static str,
    pay: &'static str,
    caps: &'static str,
    decode: &'static str,
}

/// Four seconds of a moving ball, with a key frame every second.
const PICTURE: Pipeline = Pipeline {
    track: &VIDEO,
    encode: "videotestsrc num-buffers=120 pattern=ball ! video/x-raw,width=320,height=180,framerate=30/1,format=I420 !
        vp8enc deadline=1 cpu-used=8 keyframe-max-dist=30 target-bitrate=500000 auto-alt-ref=false lag-in-frames=0 threads=1",
    pay: "rtpvp8pay picture-id-mode=15-bit mtu=1200",
    caps: "application/x-rtp,media=video,clock-rate=90000,encoding-name=VP8",
    decode: "rtpvp8depay ! vp8dec",
};

/// Four seconds of noise, no two moments of which are alike.
const NOISE: Pipeline = Pipeline {
    track: &AUDIO,
    encode: "audiotestsrc num-buffers=200 samplesperbuffer=960 wave=pink-noise ! audio/x-raw,rate=48000,channels=2 !
        opusenc frame-size=20",
    pay: "rtpopuspay",
    caps: "application/x-rtp,media=audio,clock-rate=48000,encoding-name=OPUS",
    decode: "rtpopusdepay ! opusdec",
};

/// Prints the time and the SHA-1 of each decoded frame as soon as it is there.
const CHECKSUMS: &str = "checksumsink sync=false";

/// What is sent of a track, and the checksums of its decoded frames.
struct Sent {
    pipeline: &'static Pipeline,
    checksums: Vec<String>,
}

fn gstreamer(directory: &Path, pipeline: &str) -> Program {
    Program::start("gst-launch-1.0", directory, &format!("-q {pipeline}"))
}

fn checksum(line: &str) -> String {
    let checksum = line.split_whitespace().nth(1);
    checksum.unwrap_or_else(|| panic!("no checksum in {line:?}")).to_owned()
}

async fn make(directory: &Path, pipeline: &'static Pipeline) -> Sent {
    let Pipeline {
        track,
        encode,
        pay,
        decode,
        ..
    } = pipeline;
    let file = format!("{}.mkv", track.name);
    let encode = format!("{encode} ! matroskamux ! filesink location={file}");
    gstreamer(directory, &encode).output().await;
    // Through the same payloader and depayloader as later, with nothing in between.
    let decode = format!("filesrc location={file} ! matroskademux ! {pay} ! {decode} ! {CHECKSUMS}");
    let lines = gstreamer(directory, &decode).output().await;
    let checksums = lines.iter().map(|line| checksum(line)).collect();
    Sent { pipeline, checksums }
}

async fn receive(directory: &Path, sent: &Sent, relayed: &mut Relayed<'_>) -> Program {
    let Pipeline {
        track, caps, decode, ..
    } = sent.pipeline;
    let (port, payload_type) = (free_ports(2), track.payload_type_out);
    let program = gstreamer(
        directory,
        &format!(
            "udpsrc address=127.0.0.1 port={port} buffer-size=2000000 caps={caps},payload={payload_type} !
             rtpjitterbuffer ! {decode} ! {CHECKSUMS}"
        ),
    );
    bound(port).await;
    relayed.consume(port).await;
    program
}

fn send(directory: &Path, pipeline: &Pipeline, (port, _): (u16, u16)) -> Program {
    let Pipeline { track, pay, .. } = pipeline;
    let (name, payload_type, ssrc) = (track.name, track.payload_type_in, track.ssrc);
    gstreamer(
        directory,
        &format!(
            "filesrc location={name}.mkv ! matroskademux ! {pay} pt={payload_type} ssrc={ssrc} !
             udpsink host=127.0.0.1 port={port}"
        ),
    )
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs GStreamer"]
async fn two_receivers_decode_what_was_sent() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let directory = directory.path();
    let (video, audio) = (make(directory, &PICTURE).await, make(directory, &NOISE).await);
    assert_eq!(video.checksums.len(), 120);
    assert!(
        (200..=202).contains(&audio.checksums.len()),
        "{} frames of sound",
        audio.checksums.len()
    );
    for sent in [&video, &audio] {
        // Checksums must tell frames apart; otherwise a receiver could show anything.
        let distinct: HashSet<_> = sent.checksums.iter().collect();
        assert_eq!(distinct.len(), sent.checksums.len());
    }

    let weir = Relay::start(settings(1), true).await;
    let (mut picture, mut noise) = (weir.produce(&VIDEO).await, weir.produce(&AUDIO).await);
    let mut receivers = Vec::new();
    for _ in 0..2 {
        receivers.push((&video, receive(directory, &video, &mut picture).await));
        receivers.push((&audio, receive(directory, &audio, &mut noise).await));
    }

    let senders = [
        send(directory, &PICTURE, picture.ports()),
        send(directory, &NOISE, noise.ports()),
    ];
    for sender in senders {
        sender.output().await;
    }
    for (sent, mut receiver) in receivers {
        // A receiver does not know when it is over. It has seen everything when it has printed a line for each frame.
        let mut received = Vec::new();
        while received.len() < sent.checksums.len() {
            let line = receiver.next_line().await;
            received.push(checksum(&line.expect("a receiver ends only when it is told to")));
        }
        assert_same(sent.pipeline.track.name, &received, &sent.checksums);
    }
    picture.assert_all_forwarded().await;
    noise.assert_all_forwarded().await;
    weir.close().await;
}
