//! The engine as a whole: with itself as the peer, over wires that cut, lose, repeat and reorder.

use super::*;
use crate::webrtc::entropy::SeededEntropy;
use crate::webrtc::srtp::KeyingMaterial;

const NOW: std::time::Duration = std::time::Duration::from_secs(1_795_000_000);

fn shared(seed: u64, cookies: bool) -> Arc<Shared> {
    let certificate = Certificate::generate(&mut SeededEntropy(seed), NOW).unwrap();
    let settings = Settings {
        cookies,
        ..Settings::default()
    };
    Arc::new(Shared::new(&certificate, settings, false))
}

/// One end and what it has given.
struct End {
    engine: Dtls12,
    sent: VecDeque<Vec<u8>>,
    certificate: Option<Vec<u8>>,
    finished: bool,
    keys: Option<KeyingMaterial>,
    goodbye: bool,
    failure: Option<Failure>,
    timeout: Option<Time>,
}

impl End {
    fn new(shared: &Arc<Shared>, role: Role) -> Self {
        let mut end = Self {
            engine: Dtls12::new(Arc::clone(shared), Time(0), role),
            sent: VecDeque::new(),
            certificate: None,
            finished: false,
            keys: None,
            goodbye: false,
            failure: None,
            timeout: None,
        };
        end.wait(Time(0));
        end
    }

    fn pair(client: &Arc<Shared>, server: &Arc<Shared>) -> [Self; 2] {
        [Self::new(client, Role::Client), Self::new(server, Role::Server)]
    }

    fn take(&mut self, datagram: &[u8]) {
        if self.failure.is_none() {
            let done = self.engine.handle_datagram(datagram);
            self.drain(done);
        }
    }

    fn wait(&mut self, now: Time) {
        if self.failure.is_none() {
            let done = self.engine.handle_time(now);
            self.drain(done);
        }
    }

    fn drain(&mut self, done: Result<(), Failure>) {
        if let Err(failure) = done {
            self.failure = Some(failure);
            return;
        }
        loop {
            match self.engine.poll() {
                Output::Datagram(datagram) => {
                    assert!(datagram.len() <= crate::webrtc::dtls::settings::MTU_BYTES);
                    self.sent.push_back(datagram);
                }
                Output::Certificate(der) => {
                    assert!(self.certificate.is_none() && !self.finished);
                    self.certificate = Some(der);
                }
                Output::Finished => self.finished = true,
                Output::Keys(keys) => self.keys = keys,
                Output::Goodbye => self.goodbye = true,
                Output::Failed(failure) => {
                    self.failure = Some(failure);
                    return;
                }
                Output::Idle(at) => {
                    self.timeout = at;
                    return;
                }
                Output::Newer(_) | Output::Nothing => panic!("not for us"),
            }
        }
    }
}

fn assert_connected([client, server]: &[End; 2]) {
    assert_eq!((client.failure, server.failure), (None, None));
    assert!(client.finished && server.finished);
    assert_eq!(
        client.certificate.as_deref(),
        Some(&server.engine.shared.certificate[..])
    );
    assert_eq!(
        server.certificate.as_deref(),
        Some(&client.engine.shared.certificate[..])
    );
    let (ours, theirs) = (client.keys.as_ref().unwrap(), server.keys.as_ref().unwrap());
    assert_eq!((&ours.outbound, &ours.inbound), (&theirs.inbound, &theirs.outbound));
    assert_ne!(ours.outbound, ours.inbound);
}

/// What a wire does to what goes over it.
struct Wire {
    random: SeededEntropy,
    /// In percent, each.
    lost: u8,
    repeated: u8,
    held_back: u8,
    /// Datagrams are cut into records with fragments of at most this many bytes, at other places each time.
    cut: Option<usize>,
    /// And many of those are in one datagram.
    joined: bool,
}

impl Wire {
    fn percent(&mut self, percent: u8) -> bool {
        self.number(100) < usize::from(percent)
    }

    fn number(&mut self, below: usize) -> usize {
        let mut bytes = [0; 8];
        self.random.fill(&mut bytes);
        (u64::from_le_bytes(bytes) % below.max(1) as u64) as usize
    }

    /// The same messages in other fragments.
    fn recut(&mut self, datagram: &[u8], limit: usize) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        for record in record::records(datagram) {
            if record.content != Content::Handshake || record.epoch != 0 {
                pieces.push(record.to_bytes());
                continue;
            }
            for fragment in reassembly::fragments(record.fragment) {
                let (mut at, bytes) = (0, fragment.bytes);
                loop {
                    let len = (1 + self.number(limit)).min(bytes.len() - at);
                    let mut body = vec![0; fragment.length];
                    body[fragment.offset + at..][..len].copy_from_slice(&bytes[at..at + len]);
                    let mut piece = Vec::new();
                    let kind = Kind::of(fragment.kind).unwrap();
                    let from = fragment.offset + at;
                    message::put_fragment(&mut piece, kind, fragment.number, &body, from..from + len);
                    let mut out = Vec::new();
                    RecordLayer::default().write(Content::Handshake, 0, &piece, &mut out);
                    pieces.push(out);
                    // Sometimes the next one begins before this one ends.
                    at += if self.percent(30) { len.div_ceil(2) } else { len };
                    if at >= bytes.len() {
                        break;
                    }
                }
            }
        }
        if self.joined { vec![pieces.concat()] } else { pieces }
    }

    /// Lets two ends speak until both are connected or there is nothing more to wait for. Gives the time that it took.
    fn carry(&mut self, ends: &mut [End; 2]) -> Time {
        let mut now = Time(0);
        let mut held: Vec<(usize, Vec<u8>)> = Vec::new();
        loop {
            let mut arriving: Vec<(usize, Vec<u8>)> = std::mem::take(&mut held);
            for (from, end) in ends.iter_mut().enumerate() {
                while let Some(datagram) = end.sent.pop_front() {
                    let pieces = match self.cut {
                        Some(limit) => self.recut(&datagram, limit),
                        None => vec![datagram],
                    };
                    for piece in pieces {
                        if self.percent(self.lost) {
                            continue;
                        }
                        if self.percent(self.repeated) {
                            arriving.push((1 - from, piece.clone()));
                        }
                        if self.percent(self.held_back) {
                            held.push((1 - from, piece));
                        } else {
                            arriving.push((1 - from, piece));
                        }
                    }
                }
            }
            if arriving.is_empty() && held.is_empty() {
                if ends.iter().all(|end| end.finished) || ends.iter().any(|end| end.failure.is_some()) {
                    return now;
                }
                let Some(next) = ends.iter().filter_map(|end| end.timeout).min() else {
                    return now;
                };
                now = now.max(next);
                for end in ends.iter_mut() {
                    end.wait(now);
                }
            }
            if self.held_back > 0 {
                for at in (1..arriving.len()).rev() {
                    let other = self.number(at + 1);
                    arriving.swap(at, other);
                }
            }
            for (to, datagram) in arriving {
                ends[to].take(&datagram);
            }
        }
    }
}

fn wire(seed: u64) -> Wire {
    Wire {
        random: SeededEntropy(seed),
        lost: 0,
        repeated: 0,
        held_back: 0,
        cut: None,
        joined: false,
    }
}

#[test]
fn both_sides_come_to_the_same_keys() {
    for cookies in [true, false] {
        let mut ends = End::pair(&shared(1, true), &shared(2, cookies));
        assert_eq!(wire(1).carry(&mut ends), Time(0));
        assert_connected(&ends);
        let [client, server] = &mut ends;
        client.engine.close().unwrap();
        client.drain(Ok(()));
        let goodbye = client.sent.pop_front().unwrap();
        // Nobody else can say it.
        let mut forged = goodbye.clone();
        *forged.last_mut().unwrap() ^= 1;
        server.take(&forged);
        assert!(!server.goodbye);
        server.take(&goodbye);
        assert!(server.goodbye);
    }
}

/// RFC 6347 §4.2.4: whatever is lost, repeated or out of order.
#[test]
fn a_bad_wire_only_takes_longer() {
    let (client, server) = (shared(1, true), shared(2, true));
    for seed in 0..200 {
        let mut ends = End::pair(&client, &server);
        let mut wire = Wire {
            lost: 20,
            repeated: 10,
            held_back: 20,
            ..wire(seed)
        };
        wire.carry(&mut ends);
        assert_connected(&ends);
    }
}

/// RFC 6347 §4.2.3: fragments of any length, cut at other places each time, overlapping, one or a hundred to a datagram.
#[test]
fn messages_in_any_fragments_are_put_together() {
    let (client, server) = (shared(1, true), shared(2, true));
    for seed in 0..60 {
        for joined in [false, true] {
            let mut ends = End::pair(&client, &server);
            let mut wire = Wire {
                lost: if joined { 0 } else { 20 },
                held_back: 20,
                cut: Some([5, 40, 231][seed as usize % 3]),
                joined,
                ..wire(seed)
            };
            wire.carry(&mut ends);
            assert_connected(&ends);
        }
    }
}

/// A peer whose timer doubles from a second on says everything again; what the last one to speak said is repeated for it, not for
/// ever and not by itself.
#[test]
fn the_last_flight_is_repeated_when_asked_for() {
    let mut ends = End::pair(&shared(1, true), &shared(2, true));
    let [client, server] = &mut ends;
    // Hello, request, hello, flight 4.
    for _ in 0..2 {
        server.take(&client.sent.pop_front().unwrap());
        client.take(&server.sent.pop_front().unwrap());
    }
    let flight = client.sent.pop_front().unwrap();
    server.take(&flight);
    assert!(server.finished && !client.finished);
    assert_eq!((server.sent.len(), server.timeout), (1, None));
    // Lost. At once is too soon, and a moment later is not.
    server.sent.clear();
    server.take(&flight);
    assert_eq!(server.sent.len(), 0);
    server.wait(Time::from_millis(50));
    server.take(&flight);
    assert_eq!(server.sent.len(), 1);
    client.take(&server.sent.pop_front().unwrap());
    assert_connected(&ends);
}

/// A Finished message that overtakes what it follows is kept for its keys.
#[test]
fn what_overtakes_is_not_lost() {
    let mut ends = End::pair(&shared(1, true), &shared(2, true));
    let [client, server] = &mut ends;
    for _ in 0..2 {
        server.take(&client.sent.pop_front().unwrap());
        client.take(&server.sent.pop_front().unwrap());
    }
    let mut flight: Vec<Vec<u8>> = record::records(&client.sent.pop_front().unwrap())
        .map(Record::to_bytes)
        .collect();
    flight.reverse();
    for record in flight {
        server.take(&record);
    }
    assert!(server.finished);
    client.take(&server.sent.pop_front().unwrap());
    assert_connected(&ends);
}

#[test]
fn it_gives_up_in_the_end() {
    for role in [Role::Client, Role::Server] {
        let mut end = End::new(&shared(1, true), role);
        let mut other = End::new(&shared(2, true), Role::Client);
        if role == Role::Server {
            // As long as nobody has said anything, there is no handshake.
            assert_eq!(end.timeout, None);
            end.take(&other.sent.pop_front().unwrap());
        }
        let mut sent = 0;
        while let Some(at) = end.timeout.filter(|_| end.failure.is_none()) {
            end.wait(at);
            sent += std::mem::take(&mut end.sent).iter().map(Vec::len).sum::<usize>();
            assert!(at <= Time(0) + HANDSHAKE_SILENCE_MAX);
        }
        assert_eq!(end.failure, Some(Failure::Timeout));
        let hello = 180;
        assert!(
            role == Role::Client || sent < 3 * hello,
            "a stranger's hello is answered with {sent} bytes"
        );
    }
}

/// What a peer may say wrong, and what is said of it.
#[test]
fn every_fault_has_its_name() {
    type Fault = fn(&mut Vec<u8>);
    let faults: [(&str, usize, Fault, Failure); 5] = [
        (
            "version",
            1,
            |hello| hello[25..27].copy_from_slice(&[0xfe, 0xff]),
            Failure::Version,
        ),
        (
            "suites",
            0,
            |hello| replace(hello, &[0xc0, 0x2b, 0xc0, 0x2c, 0xcc, 0xa9], &[0; 6]),
            Failure::NothingInCommon,
        ),
        (
            "profiles",
            0,
            |hello| replace(hello, &[0, 8, 0, 7, 0, 1], &[0; 6]),
            Failure::NoSrtpProfile,
        ),
        (
            "chosen profile",
            1,
            |hello| replace(hello, &[0, 2, 0, 8, 0], &[0, 2, 0, 9, 0]),
            Failure::NoSrtpProfile,
        ),
        (
            "signature",
            1,
            |flight| *flight = damage_after(flight, &[4, 3, 0]),
            Failure::Signature,
        ),
    ];
    for (name, from, fault, expected) in faults {
        let mut ends = End::pair(&shared(1, true), &shared(2, false));
        let mut message = ends[0].sent.pop_front().unwrap();
        let to = 1 - from;
        if from == 1 {
            ends[1].take(&message);
            message = ends[1].sent.pop_front().unwrap();
        }
        fault(&mut message);
        ends[to].take(&message);
        assert_eq!(ends[to].failure, Some(expected), "{name}");
        assert!(ends[to].keys.is_none());
        assert!(ends[to].engine.abort(40));
        let Output::Datagram(alert) = ends[to].engine.poll() else {
            panic!("nothing is said");
        };
        ends[from].take(&alert);
        assert_eq!(ends[from].failure, Some(Failure::Alert(40)), "{name}");
    }
}

fn replace(bytes: &mut [u8], old: &[u8], new: &[u8]) {
    let at = bytes.windows(old.len()).position(|window| window == old).unwrap();
    bytes[at..at + new.len()].copy_from_slice(new);
}

fn damage_after(bytes: &[u8], mark: &[u8]) -> Vec<u8> {
    let at = bytes.windows(mark.len()).rposition(|window| window == mark);
    // The last such mark is in the certificate request; the one before is the signature's.
    let at = bytes[..at.unwrap()]
        .windows(mark.len())
        .rposition(|window| window == mark)
        .unwrap_or_else(|| at.unwrap());
    let mut damaged = bytes.to_vec();
    damaged[at + mark.len() + 20] ^= 1;
    damaged
}

/// Certificates of every kind that aws-lc signs with; what GnuTLS and OpenSSL have is in the tests with them.
#[test]
fn keys_of_every_kind_on_either_side() {
    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_RSA_SHA256};
    let shared: Vec<_> = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_RSA_SHA256]
        .into_iter()
        .map(|algorithm| {
            let key = KeyPair::generate_for(algorithm).unwrap();
            let certificate = CertificateParams::default().self_signed(&key).unwrap();
            let certificate = Certificate::from_pem(&certificate.pem(), &key.serialize_pem()).unwrap();
            Arc::new(Shared::new(&certificate, Settings::default(), false))
        })
        .collect();
    for client in &shared {
        for server in &shared {
            let mut ends = End::pair(client, server);
            wire(1).carry(&mut ends);
            assert_connected(&ends);
        }
    }
}

/// A certificate of 32 KiB is taken, one that is longer is refused with its reason, and neither harms anybody.
#[test]
fn long_certificates_are_taken_up_to_the_limit() {
    use crate::webrtc::dtls::settings::CERTIFICATE_BYTES_MAX;
    use rcgen::{CertificateParams, KeyPair};
    let key = KeyPair::generate().unwrap();
    let long = |len: usize| {
        let mut der = CertificateParams::default().self_signed(&key).unwrap().der().to_vec();
        der.resize(len, 0);
        Arc::new(Shared {
            certificate: der,
            signer: Arc::new(Signer::read(&key.serialize_der()).unwrap()),
            cookies: true,
            passes_on_1_3: false,
        })
    };
    let short = shared(1, true);
    for len in [2_316, 2_616, 16_384, CERTIFICATE_BYTES_MAX] {
        for ends in [End::pair(&long(len), &short), End::pair(&short, &long(len))] {
            let mut ends = ends;
            let mut wire = Wire {
                lost: 10,
                held_back: 10,
                ..wire(len as u64)
            };
            wire.carry(&mut ends);
            assert_connected(&ends);
        }
    }
    for (mut ends, which) in [
        (End::pair(&long(CERTIFICATE_BYTES_MAX + 1), &short), 1),
        (End::pair(&short, &long(CERTIFICATE_BYTES_MAX + 1)), 0),
        (End::pair(&long(100_000), &short), 1),
    ] {
        wire(1).carry(&mut ends);
        assert_eq!(ends[which].failure, Some(Failure::CertificateTooLong));
        assert!(ends[which].certificate.is_none());
    }
}

/// The certificate is the right one and the key is not: nobody is believed, in either role.
#[test]
fn who_has_not_the_key_of_its_certificate_gets_no_keys() {
    let victim = shared(1, true);
    let honest = shared(2, true);
    let thief = Arc::new(Shared {
        certificate: victim.certificate.clone(),
        signer: Certificate::generate(&mut SeededEntropy(3), NOW).unwrap().signer(),
        cookies: true,
        passes_on_1_3: false,
    });
    for (mut ends, deceived) in [(End::pair(&thief, &honest), 1), (End::pair(&honest, &thief), 0)] {
        wire(1).carry(&mut ends);
        let end = &ends[deceived];
        assert_eq!(end.certificate.as_deref(), Some(&victim.certificate[..]));
        assert_eq!(end.failure, Some(Failure::Signature));
        assert!(!end.finished && end.keys.is_none());
    }
}

/// RFC 8446 §4.1.3: a client that speaks 1.3, and whose offer of it was taken out on the way, sees it.
#[test]
fn a_server_that_speaks_1_3_says_so_to_those_it_speaks_1_2_with() {
    for passes_on_1_3 in [true, false] {
        let mut server = Shared::new(
            &Certificate::generate(&mut SeededEntropy(2), NOW).unwrap(),
            Settings::default(),
            passes_on_1_3,
        );
        server.cookies = false;
        let mut ends = End::pair(&shared(1, true), &Arc::new(server));
        let hello = ends[0].sent.pop_front().unwrap();
        ends[1].take(&hello);
        let random = ends[1].engine.handshake.randoms.server;
        assert_eq!(random.ends_with(b"DOWNGRD\x01"), passes_on_1_3);
        let flight = ends[1].sent.pop_front().unwrap();
        ends[0].take(&flight);
        wire(1).carry(&mut ends);
        assert_connected(&ends);
    }
}

/// RFC 5764 §4.1.3: a server that wants a key identifier that nobody has offered would send it with every packet.
#[test]
fn a_server_with_a_key_identifier_of_its_own_is_refused() {
    let mut ends = End::pair(&shared(1, true), &shared(2, false));
    let hello = ends[0].sent.pop_front().unwrap();
    ends[1].take(&hello);
    let mut flight = ends[1].sent.pop_front().unwrap();
    // The last byte of the profile becomes the identifier's length, and the next extension, if any, is cut off.
    replace(
        &mut flight,
        &[0, 14, 0, 5, 0, 2, 0, 8, 0],
        &[0, 14, 0, 5, 0, 0, 2, 0, 8],
    );
    ends[0].take(&flight);
    assert_eq!(ends[0].failure, Some(Failure::NoSrtpProfile));
}
