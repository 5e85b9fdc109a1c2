//! A transport, a client and the network between them, in virtual time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use weir_worker::time::Time;
use weir_worker::webrtc::budget::Budgets;
use weir_worker::webrtc::dtls::session::{self, Established};
use weir_worker::webrtc::dtls::{
    Certificate, Clock, Context, DtlsRole, Fingerprint, RefusedParameters, RemoteParameters, Role, Settings,
};
use weir_worker::webrtc::entropy::SystemEntropy;
use weir_worker::webrtc::ice::{Credentials, Protocol, Tuple};
use weir_worker::webrtc::transport::{Event, Received, TransportOutput, WebRtcTransport};

use crate::network::{Flight, Network, PERFECT, Quality};
use crate::peer::{DtlsPeer, Peer, certificate};

pub(crate) const SERVER: &str = "192.0.2.1:5000";
pub(crate) const CLIENT: &str = "198.51.100.7:4000";

/// What a transport gives.
#[derive(Default)]
pub(crate) struct Outbox {
    pub(crate) sent: Vec<(Tuple, Vec<u8>)>,
    pub(crate) events: Vec<Event>,
}

impl TransportOutput for Outbox {
    fn send(&mut self, tuple: &Tuple, datagram: &[u8]) {
        self.sent.push((*tuple, datagram.to_vec()));
    }

    fn on_event(&mut self, event: Event) {
        self.events.push(event);
    }
}

/// How a world begins.
#[derive(Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) quality: Quality,
    pub(crate) settings: Settings,
    /// What the peer is.
    pub(crate) peer_role: Role,
    /// The peer offers DTLS 1.3 too.
    pub(crate) peer_auto: bool,
    /// In its certificate; 43 bytes each.
    pub(crate) peer_names: usize,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            quality: PERFECT,
            settings: Settings::default(),
            peer_role: Role::Client,
            peer_auto: false,
            peer_names: 0,
        }
    }
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) server: WebRtcTransport,
    pub(crate) worker: Budgets,
    pub(crate) peer: Peer,
    pub(crate) network: Network,
    /// Everything that the transport reported.
    pub(crate) events: Vec<(Time, Event)>,
    /// What became of the datagrams that the transport received and that were not its own affair.
    pub(crate) received: Vec<Received>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "an instant to count from; nothing depends on which"
)]
pub(crate) fn clock() -> Clock {
    Clock::new(std::time::Instant::now(), Time(0))
}

pub(crate) fn context(clock: Clock, settings: Settings) -> Arc<Context> {
    let now = Duration::from_secs(1_795_000_000);
    let certificate = Certificate::generate(&mut SystemEntropy::new(), now).unwrap();
    Arc::new(Context::new(certificate, clock, settings))
}

pub(crate) fn tuple(remote: SocketAddr) -> Tuple {
    Tuple {
        protocol: Protocol::Udp,
        local: SERVER.parse().unwrap(),
        remote,
    }
}

impl World {
    pub(crate) fn new(setup: Setup) -> Self {
        let clock = clock();
        let now = Time(0);
        let credentials = Credentials::generate(&mut SystemEntropy::new());
        let server = WebRtcTransport::new(credentials, context(clock, setup.settings));
        let dtls = DtlsPeer::showing(
            certificate(setup.peer_names),
            clock,
            now,
            setup.peer_role,
            setup.peer_auto,
        );
        let (address, remote) = (CLIENT.parse().unwrap(), SERVER.parse().unwrap());
        let mut peer = Peer::new(clock, dtls, address, remote, server.credentials());
        let mut network = Network::new(setup.seed, setup.quality);
        peer.tick(now, &mut network);
        Self {
            now,
            server,
            worker: Budgets::of_a_worker(),
            peer,
            network,
            events: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Tells the transport what the signalling says.
    pub(crate) fn set_remote(&mut self, role: DtlsRole) -> Result<Role, RefusedParameters> {
        let fingerprints = vec![self.peer.dtls.fingerprint()];
        self.set_remote_with(role, fingerprints)
    }

    pub(crate) fn set_remote_with(
        &mut self,
        role: DtlsRole,
        fingerprints: Vec<Fingerprint>,
    ) -> Result<Role, RefusedParameters> {
        let parameters = RemoteParameters { role, fingerprints };
        self.with_server(|server, now, outbox| server.set_remote_dtls(now, &parameters, outbox))
    }

    /// Does something to the transport, and takes what it gives.
    pub(crate) fn with_server<T>(&mut self, act: impl FnOnce(&mut WebRtcTransport, Time, &mut Outbox) -> T) -> T {
        let mut outbox = Outbox::default();
        let done = act(&mut self.server, self.now, &mut outbox);
        self.take(outbox);
        done
    }

    /// Hands the transport a datagram.
    pub(crate) fn deliver(&mut self, tuple: Tuple, bytes: &[u8]) -> Received {
        let mut outbox = Outbox::default();
        let received = self
            .server
            .handle_datagram(self.now, tuple, bytes, &mut self.worker, &mut outbox);
        self.take(outbox);
        received
    }

    fn take(&mut self, outbox: Outbox) {
        self.events
            .extend(outbox.events.into_iter().map(|event| (self.now, event)));
        for (tuple, bytes) in outbox.sent {
            assert_eq!(tuple.local, SERVER.parse().unwrap());
            let flight = Flight {
                from: tuple.local,
                to: tuple.remote,
                bytes,
            };
            self.network.send(self.now, flight);
        }
    }

    /// Lets the next thing happen, unless that is later than `end`.
    fn step(&mut self, end: Time) -> bool {
        let next = [
            self.network.poll_timeout(),
            self.server.poll_timeout(),
            self.peer.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min();
        let Some(next) = next.filter(|next| *next <= end) else {
            self.now = end;
            return false;
        };
        // A client that is behind catches up, one step of time at a time.
        self.now = self.now.max(next) + Duration::from_nanos(1_000);
        while let Some(flight) = self.network.receive(self.now) {
            if flight.to == SERVER.parse().unwrap() {
                let received = self.deliver(tuple(flight.from), &flight.bytes);
                if received != Received::Control {
                    self.received.push(received);
                }
            } else {
                self.peer.handle(self.now, flight, &mut self.network);
            }
        }
        self.with_server(|server, now, outbox| server.handle_timeout(now, outbox));
        self.peer.tick(self.now, &mut self.network);
        true
    }

    /// Lets time pass until something is so; whether it became so in time.
    pub(crate) fn run_until(&mut self, limit: Duration, condition: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !condition(self) {
            if !self.step(end) {
                return condition(self);
            }
        }
        true
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// What the transport said when it was connected.
    pub(crate) fn established(&self) -> Option<&Established> {
        self.events.iter().find_map(|(_, event)| match event {
            Event::Dtls(session::Event::Connected(established)) => Some(&**established),
            _ => None,
        })
    }

    /// Events without their times.
    pub(crate) fn reported(&self) -> Vec<&Event> {
        self.events.iter().map(|(_, event)| event).collect()
    }
}
