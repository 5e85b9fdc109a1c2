//! What tests of real servers share: settings for a server on loopback, free ports, and a bound on waiting.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZeroU32;
use std::time::Duration;

use weir::{
    CodecName, Family, MediaKind, PlainTransportOptions, ProducerOptions, Remote, Room, RoomOptions, RtpCodec,
    RtpEncoding, RtpParameters, Settings, Transport, WorkerId,
};

/// A bound on waiting for what must happen, so that a fault fails a test instead of hanging it; nothing comes near it when all
/// is well.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for something that must happen.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Settings for a server on loopback, with the worker that was built with this test, and patience with a busy machine.
pub(crate) fn settings(workers: u32) -> Settings {
    Settings {
        workers: NonZeroU32::new(workers),
        rtc_ipv4: Family::Address(Ipv4Addr::LOCALHOST),
        rtc_ipv6: Family::Off,
        worker_binary: Some(env!("CARGO_BIN_EXE_weir-worker").into()),
        start_timeout: PATIENCE,
        ping_timeout: PATIENCE,
        ..Settings::default()
    }
}

/// A room that the first worker is to have.
pub(crate) fn on_first_worker() -> RoomOptions {
    RoomOptions {
        worker: Some(WorkerId(1)),
        ..RoomOptions::default()
    }
}

/// A plain transport to somebody.
pub(crate) async fn plain_to(room: &Room, rtp: SocketAddr) -> Transport {
    let options = PlainTransportOptions {
        remote: Some(Remote { rtp, rtcp: None }),
        ..PlainTransportOptions::default()
    };
    soon("a transport", room.create_plain_transport(options)).await.unwrap()
}

/// A producer of Opus.
pub(crate) fn opus(payload_type: u8, ssrc: u32) -> ProducerOptions {
    let parameters = RtpParameters {
        codecs: vec![RtpCodec::new(CodecName::Opus, payload_type)],
        encodings: vec![RtpEncoding::ssrc(ssrc)],
        ..RtpParameters::default()
    };
    ProducerOptions::new(MediaKind::Audio, parameters)
}

/// The first of so many ports in a row that nobody has now; it is even, as the one for RTP is where RTCP has the next
/// (RFC 3550 §11). They are below those that transports (from 10000) and the system (from 32768) draw from, so that only who
/// looks for ports in this way may take them before they are used.
pub(crate) fn free_ports(count: u16) -> u16 {
    loop {
        let random = RandomState::new().build_hasher().finish() % 7_900;
        let first = (2_000 + random as u16) & !1;
        if (first..first + count).all(is_free) {
            return first;
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a probe is none of the supervisor's sockets")]
fn is_free(port: u16) -> bool {
    let addresses: [SocketAddr; 2] = [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
    addresses
        .iter()
        .all(|address| TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok())
}
