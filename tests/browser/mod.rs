//! What a browser is without its pictures: the ICE, DTLS and SRTP of another project, on a real socket, told about the
//! server by what the mediasoup protocol says.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::config::Fingerprint;
use str0m::format::{Codec, FormatParams};
use str0m::ice::IceCreds;
use str0m::media::{Direction, Frequency, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpPacket, RtpWrite, Ssrc};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcError};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout};

use crate::control::PATIENCE;

/// Whether the server begins the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Begins {
    Here,
    There,
}

/// One transport, as a browser has it.
pub(crate) struct Browser {
    rtc: Rtc,
    socket: UdpSocket,
    address: SocketAddr,
    begins: Begins,
    pub(crate) connected: bool,
    /// What went wrong in the handshake.
    pub(crate) refused: Option<String>,
    /// What arrived and was not taken yet.
    pub(crate) packets: Vec<RtpPacket>,
    /// What it has sent, as it was on the wire, if that is to be kept.
    pub(crate) recorded: Option<Vec<Vec<u8>>>,
    /// It keeps what it has to say in a DTLS handshake to itself.
    pub(crate) withholds_dtls: bool,
    /// What it has offered, and was not answered yet.
    offered: Option<(SdpPendingOffer, Mid)>,
}

impl Browser {
    /// One that knows opus under this payload type.
    pub(crate) async fn new(begins: Begins, opus: u8) -> Self {
        Self::new_at(Ipv4Addr::LOCALHOST.into(), begins, opus).await
    }

    /// The same with an address of its own.
    pub(crate) async fn new_at(ip: IpAddr, begins: Begins, opus: u8) -> Self {
        let socket = UdpSocket::bind((ip, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        let mut config = Rtc::builder().clear_codecs().set_rtp_mode(true);
        let (rate, format) = (Frequency::FORTY_EIGHT_KHZ, FormatParams::default());
        let codecs = config.codec_config();
        codecs.add_config(opus.into(), None, Codec::Opus, rate, Some(2), format);
        let mut rtc = config.build(Instant::now().into_std());
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        rtc.direct_api().set_ice_controlling(true);
        Self {
            rtc,
            socket,
            address,
            begins,
            connected: false,
            refused: None,
            packets: Vec::new(),
            recorded: None,
            withholds_dtls: false,
            offered: None,
        }
    }

    /// Sends bytes as they are, from its own address.
    pub(crate) async fn say(&self, to: SocketAddr, bytes: &[u8]) {
        self.socket.send_to(bytes, to).await.unwrap();
    }

    /// What it says of its DTLS.
    pub(crate) fn dtls_parameters(&mut self) -> Value {
        let fingerprint = self.rtc.direct_api().local_dtls_fingerprint().clone();
        let digits: Vec<String> = fingerprint.bytes.iter().map(|byte| format!("{byte:02X}")).collect();
        let role = match self.begins {
            Begins::Here => "client",
            Begins::There => "server",
        };
        json!({"role": role, "fingerprints": [{"algorithm": "sha-256", "value": digits.join(":")}]})
    }

    /// Offers to send sound, or to receive it, in SDP.
    pub(crate) fn offer(&mut self, direction: Direction) -> String {
        let mut change = self.rtc.sdp_api();
        let mid = change.add_media(MediaKind::Audio, direction, None, None, None);
        let (offer, pending) = change.apply().unwrap();
        self.offered = Some((pending, mid));
        offer.to_sdp_string()
    }

    /// Begins to connect as the answer says.
    pub(crate) fn answered(&mut self, answer: &str) -> Mid {
        let (pending, mid) = self.offered.take().unwrap();
        let answer = SdpAnswer::from_sdp_string(answer).unwrap();
        self.rtc.sdp_api().accept_answer(pending, answer).unwrap();
        mid
    }

    /// Puts a packet in line of what was offered.
    pub(crate) fn send_on(&mut self, mid: Mid, payload_type: u8, seq: u64, payload: &[u8]) {
        let ssrc = self.rtc.direct_api().stream_tx_by_mid(mid, None).unwrap().ssrc();
        self.send(*ssrc, payload_type, seq, payload);
    }

    /// Begins to connect to a transport, of which the server has said this.
    pub(crate) fn connect(&mut self, transport: &Value) {
        self.use_credentials(&transport["iceParameters"]);
        for candidate in transport["iceCandidates"].as_array().unwrap() {
            if candidate["protocol"] == "udp" {
                let ip = candidate["ip"].as_str().unwrap().parse().unwrap();
                let port = u16::try_from(candidate["port"].as_u64().unwrap()).unwrap();
                let candidate = Candidate::host(SocketAddr::new(ip, port), "udp").unwrap();
                self.rtc.add_remote_candidate(candidate);
            }
        }
        let fingerprints = transport["dtlsParameters"]["fingerprints"].as_array().unwrap();
        let sha256 = fingerprints.iter().find(|each| each["algorithm"] == "sha-256").unwrap();
        let pairs = sha256["value"].as_str().unwrap().split(':');
        let mut direct = self.rtc.direct_api();
        direct.set_remote_fingerprint(Fingerprint {
            hash_func: "sha-256".to_owned(),
            bytes: pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect(),
        });
        direct.start_dtls(self.begins == Begins::Here).unwrap();
    }

    fn use_credentials(&mut self, parameters: &Value) {
        self.rtc.direct_api().set_remote_ice_credentials(IceCreds {
            ufrag: parameters["usernameFragment"].as_str().unwrap().to_owned(),
            pass: parameters["password"].as_str().unwrap().to_owned(),
        });
    }

    /// It is going to send a track.
    pub(crate) fn declare_sent(&mut self, mid: &str, ssrc: u32) {
        let mid: Mid = mid.into();
        let mut direct = self.rtc.direct_api();
        direct.declare_media(mid, MediaKind::Audio);
        direct.declare_stream_tx(ssrc.into(), None, mid, None);
    }

    /// It is going to receive a track.
    pub(crate) fn declare_received(&mut self, mid: &str, ssrc: u32) {
        let mid: Mid = mid.into();
        let mut direct = self.rtc.direct_api();
        direct.declare_media(mid, MediaKind::Audio);
        direct.expect_stream_rx(ssrc.into(), None, mid, None);
    }

    /// Puts a packet in line.
    pub(crate) fn send(&mut self, ssrc: u32, payload_type: u8, seq: u64, payload: &[u8]) {
        let now = Instant::now().into_std();
        let timestamp = u32::try_from(seq).unwrap() * 960;
        let write = RtpWrite::new(
            payload_type.into(),
            seq.into(),
            timestamp,
            now,
            Arc::<[u8]>::from(payload),
        );
        let ssrc: Ssrc = ssrc.into();
        self.rtc.direct_api().stream_tx(&ssrc).unwrap().write_rtp(write);
    }

    /// Lets things happen until something is so.
    pub(crate) async fn run_until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            // What is in line goes when the time does.
            self.rtc
                .handle_input(Input::Timeout(Instant::now().into_std()))
                .unwrap();
            let next = self.drain().await;
            if condition(self) {
                return;
            }
            assert!(Instant::now() < end, "waited in vain for {what}");
            // Whatever is waited for may be somebody else's doing.
            let next = next.min(Instant::now() + Duration::from_millis(20));
            let mut bytes = vec![0; 2_000];
            if let Ok(received) = timeout(next - Instant::now(), self.socket.recv_from(&mut bytes)).await {
                let (len, source) = received.unwrap();
                let datagram = Receive::new(Protocol::Udp, source, self.address, &bytes[..len]).unwrap();
                let now = Instant::now().into_std();
                match self.rtc.handle_input(Input::Receive(now, datagram)) {
                    // Who is refused is told so.
                    Err(RtcError::Dtls(error)) => self.refused = Some(error.to_string()),
                    result => result.unwrap(),
                }
            }
        }
    }

    /// Says what there is to say, and returns when there will be more.
    async fn drain(&mut self) -> Instant {
        loop {
            match self.rtc.poll_output().unwrap() {
                // RFC 7983: what begins with 20 to 63 is DTLS.
                Output::Transmit(datagram)
                    if self.withholds_dtls && matches!(datagram.contents.first(), Some(20..=63)) => {}
                Output::Transmit(datagram) => {
                    self.socket
                        .send_to(&datagram.contents, datagram.destination)
                        .await
                        .unwrap();
                    if let Some(recorded) = &mut self.recorded {
                        recorded.push(datagram.contents.to_vec());
                    }
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::RtpPacket(packet)) => self.packets.push(packet),
                Output::Event(_) => {}
                Output::Timeout(next) => return Instant::from_std(next),
            }
        }
    }
}
