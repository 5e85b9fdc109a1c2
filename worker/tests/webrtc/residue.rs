//! How many copies of a key are in this process: its own memory is searched, as a core file would be.

use std::collections::VecDeque;
use std::fs::{File, read_to_string};
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::cipher::{AES_128, AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use weir_worker::time::Time;
use weir_worker::webrtc::dtls::session::Event;
use weir_worker::webrtc::dtls::{
    Certificate, Context, DtlsRole, Fingerprint, FingerprintAlgorithm, RemoteParameters, Session, Settings,
};
use weir_worker::webrtc::entropy::SystemEntropy;
use weir_worker::webrtc::srtp::{Inbound, KeyingMaterial, MasterKey, Outbound};

use crate::world::clock;

/// Held by whoever searches: what a search has read of memory is itself memory, with the keys that another test looks for in it.
static SEARCH: Mutex<()> = Mutex::new(());

/// A key that is looked for, written otherwise, so that it is not what is found.
struct Wanted(Vec<u8>);

impl Wanted {
    const MASK: u8 = 0xa5;

    fn new(key: &[u8]) -> Self {
        Self(key.iter().map(|byte| byte ^ Self::MASK).collect())
    }

    /// So often it is in memory that this process can write.
    fn copies(&self) -> usize {
        let _alone = SEARCH.lock().unwrap_or_else(PoisonError::into_inner);
        let memory = File::open("/proc/self/mem").unwrap();
        // What is read is memory, too, and must not be searched again.
        let mut part = vec![0; 1 << 20];
        let own = part.as_ptr().addr()..part.as_ptr().addr() + part.len();
        let mut found = 0;
        for line in read_to_string("/proc/self/maps").unwrap().lines() {
            let mut words = line.split(' ');
            let (Some(range), Some(access)) = (words.next(), words.next()) else {
                continue;
            };
            if !access.starts_with("rw") {
                continue;
            }
            let (from, to) = range.split_once('-').unwrap();
            let [mut at, end] = [from, to].map(|digits| usize::from_str_radix(digits, 16).unwrap());
            while at < end {
                if own.contains(&at) {
                    at = own.end;
                    continue;
                }
                let stop = if at < own.start { end.min(own.start) } else { end };
                let len = part.len().min(stop - at);
                // Some pages cannot be read, such as those of a thread that has just ended.
                let Ok(read) = memory.read_at(&mut part[..len], at as u64) else {
                    break;
                };
                found += self.in_bytes(&part[..read]);
                // A key may lie across two parts.
                at += if at + read < stop {
                    read - self.0.len() + 1
                } else {
                    read.max(1)
                };
            }
            part.fill(0);
        }
        found
    }

    fn in_bytes(&self, bytes: &[u8]) -> usize {
        let first = self.0[0] ^ Self::MASK;
        bytes
            .windows(self.0.len())
            .filter(|window| {
                window[0] == first && window.iter().zip(&self.0).all(|(byte, own)| byte ^ Self::MASK == *own)
            })
            .count()
    }
}

fn session(certificate: &Certificate) -> Session {
    let context = Context::new(certificate.clone(), clock(), Settings::default());
    Session::new(Arc::new(context))
}

/// Runs a handshake, and takes the keys of both sides.
fn handshake() -> [KeyingMaterial; 2] {
    let certificate = Certificate::generate(&mut SystemEntropy::new(), Duration::from_secs(1_795_000_000)).unwrap();
    let fingerprint = Fingerprint::of(FingerprintAlgorithm::Sha256, certificate.der());
    let mut ends = [DtlsRole::Server, DtlsRole::Client].map(|role| {
        let remote = RemoteParameters {
            role,
            fingerprints: vec![fingerprint],
        };
        (session(&certificate), remote)
    });
    let mut now = Time::from_millis(1_000);
    let mut wire: VecDeque<(usize, Vec<u8>)> = VecDeque::new();
    for (from, (session, remote)) in ends.iter_mut().enumerate() {
        let mut send = |datagram: &[u8]| wire.push_back((1 - from, datagram.to_vec()));
        session.set_remote(now, remote, &mut send).unwrap();
        session.start(now, &mut send);
    }
    while let Some((to, datagram)) = wire.pop_front() {
        now = now + Duration::from_millis(1);
        let mut send = |datagram: &[u8]| wire.push_back((1 - to, datagram.to_vec()));
        ends[to].0.handle_datagram(now, &datagram, &mut send);
    }
    ends.map(|(mut session, _)| {
        let mut events = std::iter::from_fn(|| session.poll_event());
        events
            .find_map(|event| match event {
                Event::Connected(established) => Some(established.keys),
                _ => None,
            })
            .expect("the handshake succeeds")
    })
}

/// The key that packets are encrypted with (RFC 3711 §4.3.1): the keystream from the salt on, with the label in its eighth byte.
fn session_key(master: &MasterKey, label: u8) -> Wanted {
    let mut counter = [0; 16];
    counter[..14].copy_from_slice(master.salt());
    counter[7] ^= label;
    let algorithm = if master.key().len() == 32 { &AES_256 } else { &AES_128 };
    let cipher = EncryptingKey::ctr(UnboundCipherKey::new(algorithm, master.key()).unwrap()).unwrap();
    // What is looked for, encrypted in place of zeros: the key itself is never there.
    let mut masked = vec![Wanted::MASK; master.key().len()];
    let context = EncryptionContext::Iv128(FixedLength::from(counter));
    cipher.less_safe_encrypt(&mut masked, context).unwrap();
    Wanted(masked)
}

/// Overwrites what this test itself left on the stack. What the product leaves is not for it to clean up.
#[inline(never)]
fn wipe_stack() {
    black_box(&mut [0_u8; 32 * 1024]);
}

#[test]
fn no_key_has_more_copies_than_are_in_use_and_none_is_left() {
    let keys = handshake();
    let [client, server] = &keys;
    assert_eq!(client.outbound, server.inbound);
    let masters = [&client.outbound, &client.inbound].map(|master| Wanted::new(master.key()));
    for master in &masters {
        assert_eq!(master.copies(), 2, "one at each end");
    }
    let sessions = [&client.outbound, &client.inbound].map(|master| [0, 3].map(|label| session_key(master, label)));
    wipe_stack();
    for wanted in sessions.iter().flatten() {
        assert_eq!(wanted.copies(), 0, "before it is used");
    }
    let transports = keys.map(|keys| (Inbound::new(&keys.inbound, 4), Outbound::new(&keys.outbound)));
    for master in &masters {
        assert_eq!(master.copies(), 0, "session keys are derived");
    }
    for wanted in sessions.iter().flatten() {
        let copies = wanted.copies();
        // AES's schedule begins with the key itself.
        assert!(
            (1..=2).contains(&copies),
            "{copies} copies of a session key, of which each end needs one"
        );
    }
    drop(transports);
    for wanted in sessions.iter().flatten().chain(&masters) {
        assert_eq!(wanted.copies(), 0, "after the transports are closed");
    }
}

#[test]
fn what_is_in_memory_is_found() {
    let key: Vec<u8> = (0..16_u8).map(|byte| byte.wrapping_mul(73) ^ 0x39).collect();
    let wanted = Wanted::new(&key);
    assert!(wanted.copies() >= 1);
    drop(key);
}
