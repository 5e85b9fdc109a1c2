//! A body for handshakes: two sessions, certificates that are long, odd or damaged, and a wire that does what the bytes say.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use weir_worker::boundary::{self, Parser};
use weir_worker::time::Time;
use weir_worker::webrtc::dtls::settings::CERTIFICATE_BYTES_MAX;
use weir_worker::webrtc::dtls::{
    Certificate, Clock, Context, DtlsRole, Fingerprint, FingerprintAlgorithm, RemoteParameters, Session, Settings,
    State,
};
use weir_worker::webrtc::entropy::SystemEntropy;

/// What a wire does next, and to what, as many times as the bytes say.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    /// The next byte; zeros when there are no more.
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *byte
    }

    fn number(&mut self) -> usize {
        usize::from(self.byte()) << 8 | usize::from(self.byte())
    }
}

/// Datagrams that a handshake may take: a flight of the longest certificate in pieces of a few bytes is not worth waiting for.
const STEPS_MAX: usize = 400;

/// Of two ends, and of somebody else.
fn certificates() -> &'static [Certificate; 3] {
    static MADE: OnceLock<[Certificate; 3]> = OnceLock::new();
    MADE.get_or_init(|| {
        [0, 1, 2].map(|_| {
            let Ok(certificate) = Certificate::generate(&mut SystemEntropy::new(), Duration::from_secs(1_795_000_000))
            else {
                panic!("a certificate can be made");
            };
            certificate
        })
    })
}

/// One end: the session, what it has sent, and whether it shows a certificate that is its own.
struct End {
    session: Session,
    sent: VecDeque<Vec<u8>>,
    fingerprint: Fingerprint,
    honest: bool,
    /// It shows somebody else's certificate.
    thief: bool,
}

#[expect(
    clippy::disallowed_methods,
    reason = "an instant to count from; nothing depends on which"
)]
fn end(certificate: &Certificate, script: &mut Script<'_>) -> End {
    let mut der = certificate.der().to_vec();
    let kind = script.byte() % 5;
    let honest = match kind {
        0 => true,
        // Longer, with anything behind it, up to what is too long.
        1 => {
            let fill = script.byte();
            der.resize(der.len() + script.number() % (CERTIFICATE_BYTES_MAX + 1_000), fill);
            der.len() <= CERTIFICATE_BYTES_MAX
        }
        // Cut short.
        2 => {
            der.truncate(script.number() % (der.len() + 1));
            false
        }
        // Somebody else's.
        3 => {
            der = certificates()[2].der().to_vec();
            false
        }
        // Damaged here and there.
        _ => {
            for _ in 0..=script.byte() % 8 {
                let at = script.number() % der.len();
                der[at] ^= script.byte();
            }
            false
        }
    };
    let shown = certificate.clone().showing(der);
    let fingerprint = Fingerprint::of(FingerprintAlgorithm::Sha256, shown.der());
    let clock = Clock::new(Instant::now(), Time(0));
    let settings = Settings {
        cookies: script.byte() & 1 == 0,
        ..Settings::default()
    };
    End {
        session: Session::new(Arc::new(Context::new(shown, clock, settings))),
        sent: VecDeque::new(),
        fingerprint,
        honest,
        thief: kind == 3,
    }
}

fn act(end: &mut End, act: impl FnOnce(&mut Session, &mut dyn FnMut(&[u8]))) {
    let sent = &mut end.sent;
    act(&mut end.session, &mut |datagram: &[u8]| {
        sent.push_back(datagram.to_vec())
    });
    assert!(sent.len() <= 200, "{} datagrams at once", sent.len());
}

/// The same handshake messages in fragments of other lengths.
fn recut(datagram: &[u8], limit: usize) -> Vec<Vec<u8>> {
    const RECORD: usize = 13;
    const FRAGMENT: usize = 12;
    let is_whole = datagram.len() > RECORD + FRAGMENT
        && datagram[0] == 22
        && datagram[3..5] == [0, 0]
        && usize::from(u16::from_be_bytes([datagram[11], datagram[12]])) + RECORD == datagram.len();
    if !is_whole {
        return vec![datagram.to_vec()];
    }
    let (header, body) = datagram[RECORD..].split_at(FRAGMENT);
    let offset = u32::from_be_bytes([0, header[6], header[7], header[8]]) as usize;
    let pieces = body.chunks(limit.max(1)).enumerate().map(|(at, piece)| {
        let mut out = datagram[..RECORD].to_vec();
        out[11..13].copy_from_slice(&((FRAGMENT + piece.len()) as u16).to_be_bytes());
        out.extend_from_slice(&header[..6]);
        out.extend_from_slice(&((offset + at * limit) as u32).to_be_bytes()[1..]);
        out.extend_from_slice(&(piece.len() as u32).to_be_bytes()[1..]);
        out.extend_from_slice(piece);
        out
    });
    pieces.collect()
}

/// Any bytes as what a wire does to a handshake between two ends with certificates of any kind: nothing panics, nothing grows without
/// bound, nobody is believed who has not the key of the certificate it shows, and whom nothing was done to, connects.
pub(crate) fn dtls_handshake(data: &[u8]) {
    let mut script = Script(data);
    let [client, server, _] = certificates();
    let mut ends = [end(client, &mut script), end(server, &mut script)];
    let before = boundary::panics(Parser::Dtls);
    let mut now = Time(0);
    let fingerprints = [ends[1].fingerprint, ends[0].fingerprint];
    let roles = [DtlsRole::Server, DtlsRole::Client];
    for ((end, fingerprint), role) in ends.iter_mut().zip(fingerprints).zip(roles) {
        let parameters = RemoteParameters {
            role,
            fingerprints: vec![fingerprint],
        };
        act(end, |session, send| {
            assert!(session.set_remote(now, &parameters, send).is_ok());
            session.start(now, send);
        });
    }
    let mut harmed = false;
    let mut held: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
    for _ in 0..STEPS_MAX {
        let from = usize::from(ends[0].sent.is_empty());
        let (to, mut datagram) = match ends[from].sent.pop_front() {
            Some(datagram) => (1 - from, datagram),
            None => match held.pop_back() {
                Some(held) => held,
                None => {
                    let Some(next) = ends.iter().filter_map(|end| end.session.poll_timeout()).min() else {
                        break;
                    };
                    now = now.max(next);
                    for end in &mut ends {
                        act(end, |session, send| session.handle_timeout(now, send));
                    }
                    continue;
                }
            },
        };
        let pieces = match script.byte() % 8 {
            0..=2 => vec![datagram],
            3 => recut(&datagram, 1 + script.number() % 600),
            4 => {
                held.push_front((to, datagram));
                continue;
            }
            5 => vec![datagram.clone(), datagram],
            // Lost, but not all: the bytes end.
            6 => continue,
            _ => {
                let at = script.number() % datagram.len();
                let flipped = script.byte();
                harmed |= flipped != 0;
                datagram[at] ^= flipped;
                vec![datagram]
            }
        };
        for piece in pieces {
            act(&mut ends[to], |session, send| {
                session.handle_datagram(now, &piece, send)
            });
        }
    }
    assert_eq!(boundary::panics(Parser::Dtls), before, "a panic was contained");
    let honest = ends.iter().all(|end| end.honest);
    for (end, other) in [(0, 1), (1, 0)] {
        // A damaged certificate may have its key all the same: what was damaged may not matter.
        if honest && !harmed && ends[end].session.state() == State::Failed {
            panic!("nobody has done anything, and it failed");
        }
        assert!(
            !ends[other].thief || ends[end].session.state() != State::Connected,
            "somebody was believed who has not the key"
        );
    }
    for end in &mut ends {
        act(end, |session, send| session.close(now, send));
        assert_eq!(end.session.state(), State::Closed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_handshakes(data in prop::collection::vec(any::<u8>(), 0..200)) {
            dtls_handshake(&data);
        }
    }
}
