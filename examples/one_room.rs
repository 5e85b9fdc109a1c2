//! One room, one microphone, one listener: the whole of it, from start to end.
//!
//! ```console
//! $ cargo run --example one_room
//! ```

use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;
use tokio::net::UdpSocket;
use tokio::time::{interval, timeout};
use weir::{
    CodecName, ConsumerOptions, Family, MediaKind, PlainTransportOptions, ProducerOptions, Remote, RoomOptions,
    RtpCodec, RtpEncoding, RtpParameters, Server, Settings,
};

fn main() -> Result<(), Box<dyn Error>> {
    // The server starts its workers from this very program.
    weir::run_worker_if_started_as_one();
    tokio::runtime::Runtime::new()?.block_on(one_room())
}

#[expect(clippy::print_stdout, reason = "an example shows what it does")]
async fn one_room() -> Result<(), Box<dyn Error>> {
    // A server starts one worker process for each CPU. Everything in this example stays on this machine.
    let server = Server::start(Settings {
        rtc_ipv4: Family::Address([127, 0, 0, 1].into()),
        rtc_ipv6: Family::Off,
        ..Settings::default()
    })
    .await?;
    println!("{} workers are ready", server.workers().len());

    // Every change is told, to as many subscribers as like to hear.
    let mut events = server.events();
    let telling = tokio::spawn(async move {
        while let Some(event) = events.next().await {
            println!("  event {}", serde_json::to_string(&*event).unwrap_or_default());
        }
    });

    // A room lives in one worker. Those who talk and those who listen meet in it.
    let room = server
        .create_room(RoomOptions {
            app_data: json!({"name": "kitchen"}),
            ..RoomOptions::default()
        })
        .await?;

    // The microphone's transport learns where the microphone is from the first packet (`comedia`).
    let microphone = UdpSocket::bind("127.0.0.1:0").await?;
    let from_microphone = room
        .create_plain_transport(PlainTransportOptions {
            comedia: true,
            ..PlainTransportOptions::default()
        })
        .await?;
    let ingress = SocketAddr::new(from_microphone.tuple().local_ip, from_microphone.tuple().local_port);

    // The listener's is told where to send.
    let listener = UdpSocket::bind("127.0.0.1:0").await?;
    let to_listener = room
        .create_plain_transport(PlainTransportOptions {
            remote: Some(Remote {
                rtp: listener.local_addr()?,
                rtcp: None,
            }),
            ..PlainTransportOptions::default()
        })
        .await?;

    // What the microphone sends: opus, under payload type 111, with an SSRC known in advance.
    let voice = RtpParameters {
        codecs: vec![RtpCodec::new(CodecName::Opus, 111)],
        encodings: vec![RtpEncoding::ssrc(1_234)],
        ..RtpParameters::default()
    };
    let producer = from_microphone
        .produce(ProducerOptions::new(MediaKind::Audio, voice))
        .await?;
    let consumer = to_listener.consume(&producer, ConsumerOptions::default()).await?;
    println!(
        "the listener expects {}",
        serde_json::to_string(consumer.rtp_parameters())?
    );

    // A second of silence, 50 packets; the middle of it while the producer is paused.
    let mut ticks = interval(Duration::from_millis(20));
    for seq in 0..50_u16 {
        ticks.tick().await;
        match seq {
            20 => producer.pause(json!("a truck drives by")).await?,
            30 => producer.resume(json!("it is gone")).await?,
            _ => {}
        }
        microphone.send_to(&opus_packet(seq), ingress).await?;
    }

    // What came through: no gap in the sequence numbers, whatever was left out.
    let mut heard = 0;
    let mut buffer = [0; 1_500];
    while let Ok(received) = timeout(Duration::from_millis(200), listener.recv(&mut buffer)).await {
        received?;
        heard += 1;
    }
    let stats = consumer.stats().await?;
    println!("of 50 packets the listener heard {heard}");
    println!(
        "the worker forwarded {} and dropped {:?}",
        stats.packets_forwarded, stats.dropped
    );

    server.close().await;
    telling.await?;
    Ok(())
}

/// 20 ms of silence in an RTP packet (RFC 3550 §5.1, RFC 7587).
fn opus_packet(seq: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 111];
    packet.extend(seq.to_be_bytes());
    packet.extend((u32::from(seq) * 960).to_be_bytes());
    packet.extend(1_234_u32.to_be_bytes());
    packet.extend([0xf8, 0xff, 0xfe]);
    packet
}
