//! Bodies for what WebRTC transports parse before they know who sent it.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use weir_worker::time::Time;
use weir_worker::webrtc::budget::Budgets;
use weir_worker::webrtc::dtls::{
    Certificate, Clock, Context, DtlsRole, Fingerprint, FingerprintAlgorithm, RemoteParameters, Settings, State,
};
use weir_worker::webrtc::entropy::SystemEntropy;
use weir_worker::webrtc::framing::{FRAME_BYTES_MAX, PREFIX_BYTES, each_whole};
use weir_worker::webrtc::ice::{Credentials, Protocol, Tuple};
use weir_worker::webrtc::stun::{BINDING, Class, Key, MESSAGE_BYTES_MAX, Message, Writer, attribute};
use weir_worker::webrtc::transport::{Event, Received, TransportOutput, WebRtcTransport};

const PASSWORD: &str = "0123456789abcdef0123456789abcdef";

/// Any bytes as a STUN message: what is read can be written again, and nobody has guessed the password.
pub(crate) fn stun(data: &[u8]) {
    let Ok(message) = Message::parse(data) else {
        return;
    };
    assert!(!message.is_authentic(&Key::new(PASSWORD)));
    let mut again = Vec::new();
    let mut writer = Writer::new(&mut again, message.class, message.method, message.transaction);
    if let Some(username) = message.username {
        writer = writer.attribute(attribute::USERNAME, username);
    }
    if let Some(priority) = message.priority {
        writer = writer.attribute(attribute::PRIORITY, &priority.to_be_bytes());
    }
    let again = writer.integrity(&Key::new(PASSWORD)).fingerprint();
    if again.len() > MESSAGE_BYTES_MAX {
        return; // what was read was nearly as long as it may be
    }
    let Ok(read) = Message::parse(again) else {
        panic!("what was written is no message: {again:?}");
    };
    assert!(read.is_authentic(&Key::new(PASSWORD)) && read.is_intact());
    assert_eq!((read.class, read.method), (message.class, message.method));
    assert_eq!((read.username, read.priority), (message.username, message.priority));
}

/// Counts what a transport gives.
#[derive(Default)]
struct Outgoing {
    bytes: usize,
    connected: bool,
}

impl TransportOutput for Outgoing {
    fn send(&mut self, _: &Tuple, datagram: &[u8]) {
        self.bytes += datagram.len();
    }

    fn on_event(&mut self, event: Event) {
        self.connected |= matches!(
            event,
            Event::Dtls(weir_worker::webrtc::dtls::session::Event::Connected(_))
        );
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "an instant to count from; nothing depends on which"
)]
fn context() -> Arc<Context> {
    static CONTEXT: OnceLock<Arc<Context>> = OnceLock::new();
    let make = || {
        let now = Duration::from_secs(1_795_000_000);
        let Ok(certificate) = Certificate::generate(&mut SystemEntropy::new(), now) else {
            panic!("a certificate can be made");
        };
        let clock = Clock::new(Instant::now(), Time(0));
        Arc::new(Context::new(certificate, clock, Settings::default()))
    };
    Arc::clone(CONTEXT.get_or_init(make))
}

/// Any bytes as the frames of a TCP connection whose peer has passed its checks: STUN, DTLS and media of any form. There
/// are no keys, and no more is answered than was asked for.
pub(crate) fn webrtc_transport(data: &[u8]) {
    let Ok(credentials) = Credentials::restore("fragment", PASSWORD) else {
        return;
    };
    let mut check = Vec::new();
    Writer::new(&mut check, Class::Request, BINDING, [0; 12])
        .attribute(attribute::USERNAME, b"fragment:theirs")
        .attribute(attribute::PRIORITY, &[0; 4])
        .integrity(credentials.key())
        .fingerprint();
    let mut transport = WebRtcTransport::new(credentials, context());
    let tuple = Tuple {
        protocol: Protocol::Tcp,
        local: ([192, 0, 2, 1], 5_000).into(),
        remote: ([198, 51, 100, 7], 4_000).into(),
    };
    let mut worker = Budgets::of_a_worker();
    let mut outgoing = Outgoing::default();
    let role = match data.first() {
        Some(byte) if byte & 1 == 1 => DtlsRole::Server,
        _ => DtlsRole::Client,
    };
    let parameters = RemoteParameters {
        role,
        fingerprints: vec![Fingerprint::of(FingerprintAlgorithm::Sha256, b"nobody's")],
    };
    let mut now = Time(0);
    assert!(transport.set_remote_dtls(now, &parameters, &mut outgoing).is_ok());
    let checked = transport.handle_datagram(now, tuple, &check, &mut worker, &mut outgoing);
    assert_eq!(checked, Received::Control);
    // As the client we have begun, unasked.
    let begun = outgoing.bytes;

    let mut frames = Vec::new();
    let stream = data.get(1..).unwrap_or_default();
    // As a worker reads, in parts, and leaves what is not whole; and all at once. Where the stream ends does not matter.
    let (mut whole, mut wanted) = (0, 1);
    for arrived in (0..=stream.len()).step_by(1 + stream.len() / 5) {
        if arrived < whole + wanted {
            continue;
        }
        match each_whole(&stream[whole..arrived], |frame| frames.push(frame.to_vec())) {
            Ok(cut) => {
                whole += cut.whole;
                wanted = cut.wanted;
                assert!(whole <= arrived && wanted <= PREFIX_BYTES + FRAME_BYTES_MAX);
            }
            Err(_) => break,
        }
    }
    let mut at_once = Vec::new();
    let _ = each_whole(stream, |frame| at_once.push(frame.to_vec()));
    assert!(at_once.starts_with(&frames), "the parts have other frames");
    let frames = at_once;
    let mut asked = 0;
    for frame in frames {
        assert!(!frame.is_empty() && frame.len() <= FRAME_BYTES_MAX);
        asked += frame.len();
        let received = transport.handle_datagram(now, tuple, &frame, &mut worker, &mut outgoing);
        assert!(
            !matches!(received, Received::Rtp | Received::Rtcp),
            "media without keys"
        );
        now = now + Duration::from_millis(1);
    }
    assert!(!outgoing.connected && transport.dtls_state() != State::Connected);
    assert_eq!(transport.media_tuple(), None);
    if role == DtlsRole::Client {
        assert!(
            outgoing.bytes - begun <= 3 * asked + 2_048,
            "{} for {asked}",
            outgoing.bytes - begun
        );
    }
    transport.close(now, &mut outgoing);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stun_messages() {
        stun(&[]);
        let mut bytes = Vec::new();
        Writer::new(&mut bytes, Class::Request, BINDING, [7; 12])
            .attribute(attribute::USERNAME, b"a:b")
            .attribute(attribute::PRIORITY, &[1, 2, 3, 4])
            .fingerprint();
        stun(&bytes);
        for len in 0..bytes.len() {
            stun(&bytes[..len]);
        }
    }

    /// Frames that begin like something.
    fn frame() -> impl Strategy<Value = Vec<u8>> {
        let begin = prop_oneof![
            Just(vec![0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42]),
            Just(vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 40, 1, 0, 0, 28, 0, 0]),
            Just(vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 1, 0, 40, 11, 0, 0, 28, 0, 1]),
            (20_u8..64, 0_u8..3).prop_map(|(kind, epoch)| vec![kind, 0xfe, 0xfd, 0, epoch, 0, 0, 0, 0, 0, 2, 0, 30]),
            Just(vec![0x80, 96]),
            Just(vec![]),
        ];
        (begin, prop::collection::vec(any::<u8>(), 0..60)).prop_map(|(begin, rest)| [begin, rest].concat())
    }

    proptest! {
        #[test]
        fn any_frames(first: u8, frames in prop::collection::vec(frame(), 0..12)) {
            let mut data = vec![first];
            for frame in frames {
                data.extend_from_slice(&(frame.len() as u16).to_be_bytes());
                data.extend_from_slice(&frame);
            }
            webrtc_transport(&data);
        }
    }
}
