//! Everybody's DTLS: our end alone, without ICE and media, shakes hands with OpenSSL and GnuTLS over a network that loses a
//! fifth of everything, in both roles, with datagrams of 256 and of 1,200 bytes, and with every kind of certificate.
//!
//! `cargo test --test e2e_dtls -- --ignored`; it needs the program `openssl`, GnuTLS's library, and what
//! `tests/aiortc/requirements.txt` names in `tests/aiortc/.venv`, and fails without.
//!
//! Handshakes wait for each other's timers most of the time. So all of them run at once, whichever test asks first, and the
//! tests look at what became of those that they are about.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "the tables are what the tests are run for")]

mod dtls;

use std::fmt::Write as _;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use dtls::certificates::{CERTIFICATES, Shown};
use dtls::handshake::{Case, Epoch, Took, shake_hands};
use dtls::peers::{Peers, Stack, Task};
use tokio::net::UdpSocket;
use tokio::task::{LocalSet, spawn_local};
use weir_worker::webrtc::dtls::{Certificate, Context, Role, Settings};
use weir_worker::webrtc::entropy::SystemEntropy;

/// What a peer sends at most in one datagram, in bytes: what OpenSSL goes down to by itself, and what fits everywhere.
const MTUS: [u16; 2] = [256, 1_200];

const ROLES: [Role; 2] = [Role::Client, Role::Server];

/// Handshakes of one kind.
const HANDSHAKES: u64 = 100;

/// Between the beginnings of handshakes: computing is not what is tested.
const PACE: Duration = Duration::from_millis(25);

/// What a handshake is run for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Purpose {
    /// One of each certificate.
    Certificates,
    /// A hundred of the usual one.
    Reliability,
}

struct Outcome {
    stack: Stack,
    purpose: Purpose,
    case: Case,
    result: Result<Took, String>,
    counts: (u64, u64),
}

static OUTCOMES: LazyLock<Vec<Outcome>> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    // Sessions stay on the thread that made them, as in a worker.
    LocalSet::new().block_on(&runtime, async {
        let (openssl, gnutls) = tokio::join!(meet(Stack::OpenSsl), meet(Stack::GnuTls));
        openssl.into_iter().chain(gnutls).collect()
    })
});

fn cases(stack: Stack) -> Vec<(Purpose, Case)> {
    let mut cases = Vec::new();
    for role in ROLES {
        for mtu in MTUS {
            let case = |shown, seed| Case { role, mtu, shown, seed };
            let certificates = (1..)
                .zip(CERTIFICATES.all())
                .filter(|(_, shown)| can(stack, role, mtu, shown));
            cases.extend(certificates.map(|(seed, shown)| (Purpose::Certificates, case(shown, seed))));
            let usual = CERTIFICATES.usual();
            cases.extend((0..HANDSHAKES).map(|seed| (Purpose::Reliability, case(usual, 1_000 + seed))));
        }
    }
    cases
}

/// Whether the peer can do its part. GnuTLS 3.7 cuts no message into as many pieces as 16 KiB need with small datagrams, not
/// even for itself ("GnuTLS internal error"). OpenSSL 4 as the server offers nothing for the curves that RFC 8422 deprecates.
fn can(stack: Stack, role: Role, mtu: u16, shown: &Shown) -> bool {
    match stack {
        Stack::GnuTls => mtu == 1_200 || shown.der.len() < 8_000,
        Stack::OpenSsl => role == Role::Server || shown.name != "P-224",
    }
}

/// All handshakes with the peers of one stack.
async fn meet(stack: Stack) -> Vec<Outcome> {
    let epoch = Epoch::begin();
    let certificate = Certificate::generate(&mut SystemEntropy::new(), Duration::from_secs(1_795_000_000)).unwrap();
    let context = Arc::new(Context::new(certificate, epoch.clock(), Settings::default()));
    let cases = cases(stack);
    let mut sockets = Vec::new();
    let mut tasks = Vec::new();
    for (number, (_, case)) in (0_u32..).zip(&cases) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        tasks.push(Task {
            port: socket.local_addr().unwrap().port(),
            role: match case.role {
                Role::Client => "server",
                Role::Server => "client",
            },
            mtu: case.mtu,
            certificate: case.shown.certificate.clone(),
            key: case.shown.key.clone(),
            after: (PACE * number).as_secs_f64(),
        });
        sockets.push(socket);
    }
    let (_peers, told) = Peers::start(stack, &tasks).await;
    let handshakes =
        cases.iter().zip(sockets).zip(told).map(|(((_, case), socket), told)| {
            spawn_local(shake_hands(*case, epoch, Arc::clone(&context), socket, told))
        });
    let mut outcomes = Vec::new();
    for ((purpose, case), handshake) in cases.iter().zip(handshakes.collect::<Vec<_>>()) {
        let (result, counts) = handshake
            .await
            .unwrap_or_else(|panic| (Err(format!("our end panics: {panic}")), (0, 0)));
        outcomes.push(Outcome {
            stack,
            purpose: *purpose,
            case: *case,
            result,
            counts,
        });
    }
    outcomes
}

/// The outcomes of a stack's handshakes for a purpose, and a table of them.
fn outcomes(stack: Stack, purpose: Purpose) -> impl Iterator<Item = &'static Outcome> {
    OUTCOMES
        .iter()
        .filter(move |outcome| outcome.stack == stack && outcome.purpose == purpose)
}

fn every_certificate(stack: Stack) {
    let mut table = String::new();
    let mut failed = 0;
    for outcome in outcomes(stack, Purpose::Certificates) {
        let Case { role, mtu, shown, .. } = outcome.case;
        let result = match &outcome.result {
            Ok(took) => format!(
                "{:.1} s, both {:.1} s",
                took.ours.as_secs_f32(),
                took.both.as_secs_f32()
            ),
            Err(error) => {
                failed += 1;
                format!("FAILED: {error}")
            }
        };
        writeln!(table, "we are {role:?}, MTU {mtu:>4}, {:13}: {result}", shown.name).unwrap();
    }
    println!("{stack:?}:\n{table}");
    assert_eq!(failed, 0, "failed with {stack:?}:\n{table}");
}

fn a_hundred_of_a_hundred(stack: Stack) {
    let mut table = String::new();
    let mut failed = 0;
    for role in ROLES {
        for mtu in MTUS {
            let of_kind = |outcome: &&Outcome| (outcome.case.role, outcome.case.mtu) == (role, mtu);
            let outcomes: Vec<_> = outcomes(stack, Purpose::Reliability).filter(of_kind).collect();
            let took = outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok());
            let (mut ours, mut both): (Vec<_>, Vec<_>) = took.map(|took| (took.ours, took.both)).unzip();
            ours.sort();
            both.sort();
            let (sent, lost) = outcomes.iter().fold((0, 0), |(sent, lost), outcome| {
                (sent + outcome.counts.0, lost + outcome.counts.1)
            });
            let middle = ours.get(ours.len() / 2).map_or(0.0, Duration::as_secs_f32);
            let [slowest, done] = [&ours, &both].map(|took| took.last().map_or(0.0, Duration::as_secs_f32));
            writeln!(
                table,
                "we are {role:?}, MTU {mtu:>4}: {} of {}; half within {middle:.1} s, all within {slowest:.1} s, the peers within \
                 {done:.1} s; {lost} of {sent} datagrams lost",
                ours.len(),
                outcomes.len()
            )
            .unwrap();
            failed += outcomes.len() - ours.len();
            for outcome in outcomes {
                if let Err(error) = &outcome.result {
                    writeln!(table, "    seed {}: {error}", outcome.case.seed).unwrap();
                }
            }
        }
    }
    println!("{stack:?}:\n{table}");
    assert_eq!(failed, 0, "failed with {stack:?}:\n{table}");
    let counts = outcomes(stack, Purpose::Reliability).map(|outcome| outcome.counts);
    let (sent, lost) = counts.fold((0, 0), |all, counts| (all.0 + counts.0, all.1 + counts.1));
    assert!(
        lost * 100 >= sent * 19,
        "the network is better than it should be: {lost} of {sent} datagrams lost"
    );
}

#[test]
#[ignore = "needs OpenSSL in Python"]
fn openssl_shakes_hands_with_every_certificate() {
    every_certificate(Stack::OpenSsl);
}

#[test]
#[ignore = "needs GnuTLS"]
fn gnutls_shakes_hands_with_every_certificate() {
    every_certificate(Stack::GnuTls);
}

/// RFC 6347 §4.2.3 and §4.2.4: fragments are put together whatever is lost, doubled and overtaken.
#[test]
#[ignore = "needs OpenSSL in Python"]
fn openssl_shakes_hands_a_hundred_times_of_a_hundred_where_a_fifth_is_lost() {
    a_hundred_of_a_hundred(Stack::OpenSsl);
}

/// RFC 6347 §4.2.3 and §4.2.4: fragments are put together whatever is lost, doubled and overtaken.
#[test]
#[ignore = "needs GnuTLS"]
fn gnutls_shakes_hands_a_hundred_times_of_a_hundred_where_a_fifth_is_lost() {
    a_hundred_of_a_hundred(Stack::GnuTls);
}
