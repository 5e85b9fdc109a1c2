//! Records RTP streams from loopback into rtpdump files, until each has said goodbye (RTCP BYE).
//!
//! ```sh
//! record_rtp --dir tests/media low=6001,ts:4294537296 opus=6002,ts:1755034102
//! ```
//!
//! Each stream is `<name>=<port>`, RTP and RTCP muxed, followed by options:
//!
//! - `ts:<n>`: the first packet gets this timestamp and the others follow at their own distances. Senders start at
//!   a random one; layers of one picture must share it.
//! - `vp8:<picture id>/<tl0 picture index>`: replace each VP8 payload descriptor by the one a browser writes for two temporal
//!   layers (15-bit picture id, TL0PICIDX, TID), with these first values. Even frames are the base layer.
//!
//! All files share one start, so that their offsets can be compared. RTCP itself is not kept: a replay makes its own.

#![expect(clippy::print_stdout, reason = "a command talks to its user")]

use std::fs::File;
use std::io::BufWriter;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Parser;
use tokio::net::UdpSocket;
use weir_recordings::rtp::{self, Packet};
use weir_recordings::rtpdump::RtpdumpWriter;
use weir_recordings::vp8::{self, Descriptor};

#[derive(Parser)]
#[command(about = "Records RTP streams from loopback into rtpdump files")]
struct Args {
    /// Where to put the files, one `<name>.rtpdump` for each stream.
    #[arg(long)]
    dir: PathBuf,
    /// `<name>=<port>[,ts:<n>][,vp8:<picture id>/<tl0 picture index>]`
    #[arg(required = true)]
    streams: Vec<String>,
}

#[derive(Debug)]
struct Stream {
    name: String,
    port: u16,
    first_timestamp: Option<u32>,
    vp8: Option<Vp8Numbers>,
}

/// The numbers the next VP8 frame gets.
#[derive(Clone, Copy, Debug)]
struct Vp8Numbers {
    picture_id: u16,
    tl0_picture_index: u8,
    /// Frames seen since the last key frame, which starts the pattern of the temporal layers.
    since_key: u64,
    started: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let streams = args
        .streams
        .iter()
        .map(|text| parse_stream(text))
        .collect::<Result<Vec<_>>>()?;
    #[expect(
        clippy::disallowed_methods,
        reason = "a recorder is about the moments at which packets come"
    )]
    let (start, start_since_1970) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?);

    let mut recorders = tokio::task::JoinSet::new();
    for stream in streams {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, stream.port);
        let socket = UdpSocket::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let path = args.dir.join(format!("{}.rtpdump", stream.name));
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let writer = RtpdumpWriter::new(BufWriter::new(file), address, start_since_1970)?;
        recorders.spawn(record(stream, socket, writer, start));
    }
    println!("listening");
    while let Some(recorded) = recorders.join_next().await {
        println!("{}", recorded??);
    }
    Ok(())
}

fn parse_stream(text: &str) -> Result<Stream> {
    let mut parts = text.split(',');
    let (name, port) = parts
        .next()
        .and_then(|part| part.split_once('='))
        .with_context(|| format!("{text:?} is not <name>=<port>"))?;
    let mut stream = Stream {
        name: name.to_owned(),
        port: port.parse().with_context(|| format!("{port:?} is not a port"))?,
        first_timestamp: None,
        vp8: None,
    };
    for part in parts {
        match part.split_once(':') {
            Some(("ts", first)) => stream.first_timestamp = Some(first.parse()?),
            Some(("vp8", first)) => {
                let (picture_id, tl0) = first.split_once('/').context("vp8:<picture id>/<tl0 picture index>")?;
                stream.vp8 = Some(Vp8Numbers {
                    picture_id: picture_id.parse()?,
                    tl0_picture_index: tl0.parse()?,
                    since_key: 0,
                    started: false,
                });
            }
            _ => bail!("{part:?} is no option of a stream"),
        }
    }
    Ok(stream)
}

/// Writes one stream until its BYE; says what it got.
async fn record(
    mut stream: Stream,
    socket: UdpSocket,
    mut writer: RtpdumpWriter<BufWriter<File>>,
    start: Instant,
) -> Result<String> {
    let mut buffer = vec![0; 65_536];
    let mut timestamp_shift = None;
    let (mut packets, mut bytes) = (0u64, 0u64);
    loop {
        let len = socket.recv(&mut buffer).await?;
        let offset = start.elapsed();
        if rtp::is_rtcp(&buffer[..len]) {
            if holds_bye(&buffer[..len]) {
                break;
            }
            continue;
        }
        let packet = Packet::parse(&buffer[..len]).with_context(|| format!("{}: packet {packets}", stream.name))?;
        let (timestamp, payload_at, marker) = (packet.timestamp, packet.payload_at, packet.marker);
        let shift = *timestamp_shift
            .get_or_insert_with(|| stream.first_timestamp.map_or(0, |first| first.wrapping_sub(timestamp)));
        let mut out = buffer[..len].to_vec();
        rtp::write_timestamp(&mut out, timestamp.wrapping_add(shift));
        if let Some(numbers) = &mut stream.vp8 {
            let payload = browser_payload(&out[payload_at..], numbers, marker)
                .with_context(|| format!("{}: packet {packets}", stream.name))?;
            out.truncate(payload_at);
            out.extend_from_slice(&payload);
        }
        writer.write_rtp(offset, &out)?;
        packets += 1;
        bytes += out.len() as u64;
    }
    writer.finish()?;
    Ok(format!("{}: {packets} packets, {bytes} bytes", stream.name))
}

/// Whether a compound packet holds a BYE (RFC 3550 §6.1: packets of a compound carry their length in words, less one).
fn holds_bye(mut compound: &[u8]) -> bool {
    while let &[_, packet_type, high, low, ..] = compound {
        if packet_type == 203 {
            return true;
        }
        let len = 4 * (usize::from(u16::from_be_bytes([high, low])) + 1);
        compound = compound.get(len..).unwrap_or_default();
    }
    false
}

/// The payload under a descriptor as browsers write it; the frame's bytes stay as they are.
fn browser_payload(payload: &[u8], numbers: &mut Vp8Numbers, marker: bool) -> Result<Vec<u8>> {
    let descriptor = Descriptor::parse(payload)?;
    let frame = &payload[descriptor.len..];
    if descriptor.starts_frame && vp8::key_frame(frame)?.is_some() {
        numbers.since_key = 0;
    }
    let temporal_layer = (numbers.since_key % 2) as u8;
    if descriptor.starts_frame && temporal_layer == 0 && std::mem::replace(&mut numbers.started, true) {
        numbers.tl0_picture_index = numbers.tl0_picture_index.wrapping_add(1);
    }
    let [id_high, id_low] = (numbers.picture_id | 0x8000).to_be_bytes();
    // X and S; then I, L and T.
    let start = if descriptor.starts_frame { 0x90 } else { 0x80 };
    let mut out = vec![
        start,
        0xe0,
        id_high,
        id_low,
        numbers.tl0_picture_index,
        temporal_layer << 6,
    ];
    out.extend_from_slice(frame);
    if marker {
        numbers.picture_id = (numbers.picture_id + 1) & 0x7fff;
        numbers.since_key += 1;
    }
    Ok(out)
}
