//! What a client that connects costs a worker: from its first connectivity check to the keys of its media, all on the server's
//! side, in one thread and without sockets.
//!
//! `cargo bench --bench handshake` prints the processor's time per handshake, of the server and of the client; `-- --rounds N`
//! changes how many are made. What it costs a real worker, with sockets and a supervisor that is told, `weir load --srtp gcm`
//! says.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its results")]

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dimpl::{Config, Dtls, DtlsCertificate, Output};
use nix::time::{ClockId, clock_gettime};
use rcgen::{CertificateParams, KeyPair};
use weir_worker::net::clock;
use weir_worker::webrtc::budget::Budgets;
use weir_worker::webrtc::dtls::{
    self, Certificate, Clock, Context, DtlsRole, FingerprintAlgorithm, RemoteParameters, Settings,
};
use weir_worker::webrtc::entropy::SystemEntropy;
use weir_worker::webrtc::ice::{Credentials, Protocol, Tuple};
use weir_worker::webrtc::stun::{self, Class, Writer, attribute};
use weir_worker::webrtc::transport::{Event, TransportOutput, WebRtcTransport};

/// Handshakes of which one figure is made; the fastest and the median of the figures are shown.
const SAMPLE: usize = 25;

fn main() -> ExitCode {
    // `cargo test --benches` runs benches to see that they start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("handshake: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(name: &str, default: usize) -> Result<usize, Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.iter().position(|argument| argument == name) {
        Some(at) => Ok(arguments.get(at + 1).ok_or("a number is missing")?.parse()?),
        None => Ok(default),
    }
}

fn run() -> Result<(), Box<dyn Error>> {
    let samples = number("--rounds", 1_000)?.div_ceil(SAMPLE).max(1);
    let world = World::new()?;
    let mut figures = Vec::new();
    for _ in 0..samples {
        let mut cost = Cost::default();
        for _ in 0..SAMPLE {
            world.shake_hands(&mut cost)?;
        }
        figures.push(cost);
    }
    println!(
        "{:<8} {:>12} {:>12} {:>18}",
        "side", "fastest µs", "median µs", "per second (median)"
    );
    for (side, of) in [
        ("server", (|cost: &Cost| cost.server) as fn(&Cost) -> Duration),
        ("client", |cost| cost.client),
    ] {
        let mut each_us: Vec<f64> = figures
            .iter()
            .map(|cost| of(cost).as_secs_f64() * 1e6 / SAMPLE as f64)
            .collect();
        each_us.sort_by(f64::total_cmp);
        let median = each_us[each_us.len() / 2];
        println!("{side:<8} {:>12.0} {median:>12.0} {:>18.0}", each_us[0], 1e6 / median);
    }
    Ok(())
}

/// Processor time of one side and of the other.
#[derive(Clone, Copy, Default)]
struct Cost {
    server: Duration,
    client: Duration,
}

fn cpu() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// What the transport says, on its way to the client.
#[derive(Default)]
struct Outbox {
    sent: Vec<Vec<u8>>,
    is_connected: bool,
}

impl TransportOutput for Outbox {
    fn send(&mut self, _: &Tuple, datagram: &[u8]) {
        self.sent.push(datagram.to_vec());
    }

    fn on_event(&mut self, event: Event) {
        self.is_connected |= matches!(event, Event::Dtls(dtls::session::Event::Connected(_)));
    }
}

struct World {
    context: Arc<Context>,
    config: Arc<Config>,
    certificate: DtlsCertificate,
    clock: Clock,
    tuple: Tuple,
}

impl World {
    fn new() -> Result<Self, Box<dyn Error>> {
        let (instant, now) = clock::instant();
        let clock = Clock::new(instant, now);
        let since_epoch = Duration::from_nanos(clock::realtime_ns());
        let ours = Certificate::generate(&mut SystemEntropy::new(), since_epoch)?;
        let key = KeyPair::generate()?;
        let theirs = CertificateParams::default().self_signed(&key)?;
        Ok(Self {
            context: Arc::new(Context::new(ours, clock, Settings::default())),
            config: Arc::new(Config::default()),
            certificate: DtlsCertificate {
                certificate: theirs.der().to_vec(),
                private_key: key.serialize_der(),
            },
            clock,
            tuple: Tuple {
                protocol: Protocol::Udp,
                local: SocketAddr::from(([192, 0, 2, 1], 5_000)),
                remote: SocketAddr::from(([198, 51, 100, 7], 4_000)),
            },
        })
    }

    /// One client, from its first check on until both sides have keys.
    fn shake_hands(&self, cost: &mut Cost) -> Result<(), Box<dyn Error>> {
        let mut worker = Budgets::of_a_worker();
        let mut outbox = Outbox::default();
        let mut now = clock::monotonic();

        let began = cpu();
        let credentials = Credentials::generate(&mut SystemEntropy::new());
        let mut server = WebRtcTransport::new(credentials, Arc::clone(&self.context));
        let parameters = RemoteParameters {
            role: DtlsRole::Client,
            fingerprints: vec![dtls::Fingerprint::of(
                FingerprintAlgorithm::Sha256,
                &self.certificate.certificate,
            )],
        };
        server.set_remote_dtls(now, &parameters, &mut outbox)?;
        cost.server += cpu() - began;

        let began = cpu();
        let mut check = Vec::new();
        Writer::new(&mut check, Class::Request, stun::BINDING, [7; 12])
            .attribute(
                attribute::USERNAME,
                format!("{}:bench", server.credentials().username_fragment()).as_bytes(),
            )
            .attribute(attribute::PRIORITY, &[0, 0, 0, 1])
            .attribute(attribute::ICE_CONTROLLING, &[1; 8])
            .attribute(attribute::USE_CANDIDATE, &[])
            .integrity(server.credentials().key())
            .fingerprint();
        let mut client = Dtls::new_12(
            Arc::clone(&self.config),
            self.certificate.clone(),
            self.clock.instant(now),
        );
        client.set_active(true);
        cost.client += cpu() - began;

        let mut to_server = vec![check];
        let mut buffer = vec![0; 4_096];
        let mut has_keys = false;
        for _ in 0..10 {
            now = clock::monotonic();
            let began = cpu();
            for datagram in to_server.drain(..) {
                server.handle_datagram(now, self.tuple, &datagram, &mut worker, &mut outbox);
            }
            cost.server += cpu() - began;
            if has_keys && outbox.is_connected {
                return Ok(());
            }
            let began = cpu();
            client.handle_timeout(self.clock.instant(now))?;
            // The answer to the check comes first, and is none of the library's.
            for datagram in outbox.sent.drain(..).filter(|datagram| datagram[0] >= 20) {
                client.handle_packet(&datagram)?;
            }
            loop {
                match client.poll_output(&mut buffer) {
                    Output::Packet(datagram) => to_server.push(datagram.to_vec()),
                    Output::KeyingMaterial(..) => has_keys = true,
                    Output::Timeout(_) => break,
                    _ => {}
                }
            }
            cost.client += cpu() - began;
        }
        Err("the handshake did not come to its end".into())
    }
}
