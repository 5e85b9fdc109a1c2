//! WebRTC transports in the worker: the sans-IO transports of [`webrtc`](crate::webrtc), joined to sockets, keys and relay.
//!
//! [`WebRtc::handle_events`] carries out what a transport decides. It compares the present state with the wanted one: where the
//! sending path is connected to, whether it may be sent on, and what the relay knows of the peer.

mod commands;
mod connected;
mod connections;
mod echo;
mod events;
mod eviction;
mod failures;
mod receive;
mod shared_ports;
mod succession;
mod timers;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use weir_channel::id::TransportId;
use weir_channel::message::{Counts, IceTuple, Notification, WebRtcFailureReason, WebRtcStats, WorkerError};

use crate::net::egress::Egress;
use crate::net::poll::Interest;
use crate::net::send::SendBackend;
use crate::net::shell::{Kernel, PollBackend, Shell};
use crate::relay::Relay;
use crate::relay::datagram::Datagram;
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::budget::{Budget, Budgets};
use crate::webrtc::dtls::{self, Context};
use crate::webrtc::srtp::Inbound;
use crate::webrtc::succession::Kept;
use crate::webrtc::transport::{Event, TransportOutput, WebRtcTransport};

use self::echo::EchoRequests;
use self::failures::{FailureLog, Refusals};
use self::shared_ports::{Registration, SharedPorts};
use self::timers::Timers;

/// Packets of one batch that are unprotected before they are relayed.
const UNPROTECTED_MAX: usize = 1_024;

/// The rate at which the supervisor is notified of a transport's ICE. Beyond it only the latest state is sent, later: the
/// peer decides how often that changes.
const ICE_NOTIFICATIONS: Budget = Budget::new(10, 20);

/// What the transports receive for, send with, and are watched by.
pub(super) struct IoContext<'a, S: Shell = Kernel> {
    pub(super) relay: &'a mut Relay,
    pub(super) egress: &'a mut Egress<S::Send>,
    pub(super) poller: &'a S::Poll,
}

impl<S: Shell> IoContext<'_, S> {
    /// Changes what is waited for at a transport's sending path.
    pub(super) fn watch(&self, transport: TransportIx, interest: Interest) {
        if let Some((path, source)) = self.egress.sockets.sending_socket(transport) {
            self.poller.rewatch(path, source, interest);
        }
    }
}

/// Buffers for what one read brings.
#[derive(Default)]
struct Frames {
    /// As read. Made with the first connection.
    stream: Vec<u8>,
    /// The packets in it, and the one that was begun before.
    packets: Vec<u8>,
    places: Vec<Datagram>,
}

/// All WebRTC transports of a worker.
pub(super) struct WebRtc {
    /// By [`TransportIx`].
    transports: Vec<Option<Box<TransportEntry>>>,
    timers: Timers,
    settings: dtls::Settings,
    /// With the certificate of the transports that come. Made at the start, or with the first.
    context: Option<Arc<Context>>,
    budgets: Budgets,
    /// The events of the transport that was called last.
    events: Vec<Event>,
    /// The packets of the present batch that are unprotected.
    unprotected: Vec<Datagram>,
    /// The transports whose peers' packets have come further than is kept.
    unkept: Vec<TransportIx>,
    frames: Frames,
    shared_ports: SharedPorts,
    failure_log: FailureLog,
    notifications: VecDeque<Notification>,
    /// Of those notifications that one comes with.
    descriptors: VecDeque<OwnedFd>,
}

/// One WebRTC transport, with what the worker keeps for it.
struct TransportEntry {
    id: TransportId,
    transport: WebRtcTransport,
    /// Where it is kept for a successor.
    kept: Kept,
    /// Its peer's packets have come further than is kept.
    is_unkept: bool,
    /// The SRTP context that unprotects the peer's packets, while DTLS is connected.
    inbound: Option<Box<Inbound>>,
    /// The IANA's name of the SRTP profile.
    srtp_profile: Option<&'static str>,
    /// The tuple that it sends on.
    route: Option<IceTuple>,
    /// Where the relay believes its peer to be.
    peer: Option<SocketAddr>,
    /// Until when no connections are accepted, because the kernel could not take any more.
    accept_paused_until: Option<Time>,
    ice_budget: Budget,
    /// Its ICE has changed since the supervisor was notified last.
    has_unreported_ice: bool,
    echo_requests: EchoRequests,
    failures: Counts<WebRtcFailureReason>,
    refusals: Refusals,
    /// Its entry at the worker's shared ports, if it is reached through these.
    registration: Option<Registration>,
}

/// Sends a transport's datagrams at once, and keeps its events.
struct SocketOutput<'a, B> {
    egress: &'a mut Egress<B>,
    transport: TransportIx,
    events: &'a mut Vec<Event>,
}

impl<B: SendBackend> TransportOutput for SocketOutput<'_, B> {
    fn send(&mut self, tuple: &IceTuple, datagram: &[u8]) {
        // What is lost is asked for, or sent, again.
        let sent = self.egress.send_to(self.transport, *tuple, datagram);
        if let Err(errno) = sent {
            tracing::debug!(transport = self.transport.0, %tuple, %errno, "an answer could not be sent");
        }
    }

    fn on_event(&mut self, event: Event) {
        self.events.push(event);
    }
}

impl WebRtc {
    /// No transports yet.
    pub(super) fn new(settings: dtls::Settings) -> Self {
        Self {
            transports: Vec::new(),
            timers: Timers::default(),
            context: None,
            settings,
            budgets: Budgets::of_a_worker(),
            events: Vec::new(),
            unprotected: Vec::with_capacity(UNPROTECTED_MAX),
            unkept: Vec::new(),
            frames: Frames::default(),
            shared_ports: SharedPorts::default(),
            failure_log: FailureLog::default(),
            notifications: VecDeque::new(),
            descriptors: VecDeque::new(),
        }
    }

    /// The next notification for the supervisor, and the descriptor that comes with it.
    pub(super) fn poll_notification(&mut self) -> Option<(Notification, Option<OwnedFd>)> {
        let notification = self.notifications.pop_front()?;
        let descriptor = match notification.descriptors() {
            0 => None,
            _ => self.descriptors.pop_front(),
        };
        Some((notification, descriptor))
    }

    /// When [`WebRtc::handle_timeout`] wants to be called.
    pub(super) fn next_timeout(&self) -> Option<Time> {
        [self.timers.next(), self.shared_ports.due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Lets time pass for those transports for which it matters.
    pub(super) fn handle_timeout(&mut self, now: Time, io: &mut IoContext<'_, impl Shell>) {
        if self.shared_ports.handle_timeout(now) {
            shared_ports::watch_shared_ports(io, Interest::Read);
        }
        while let Some(transport) = self.timers.pop(now) {
            self.close_idle_connections(now, io, transport);
            self.request_echo(now, io, transport);
            self.with(now, io, transport, |entry, output, _| {
                entry.transport.handle_timeout(now, output);
            });
        }
    }

    /// Sends nothing more to a peer that is not heard, until it is.
    pub(super) fn on_unheard(&mut self, now: Time, io: &mut IoContext<'_, impl Shell>, transport: TransportIx) {
        self.with(now, io, transport, |_, _, _| ());
    }

    /// Keeps no more of an SSRC that a peer sends under than its newest indices.
    pub(super) fn forget_stream(&mut self, transport: TransportIx, ssrc: u32) {
        let entry = self.transports.get_mut(transport.0 as usize).and_then(Option::as_mut);
        if let Some(inbound) = entry.and_then(|entry| entry.inbound.as_mut()) {
            inbound.retire(ssrc);
        }
    }

    /// What a transport's counters say of its ICE and DTLS; `None` if it is no WebRTC transport.
    pub(super) fn stats(&self, transport: TransportIx, egress: &Egress<impl SendBackend>) -> Option<WebRtcStats> {
        let entry = self.entry(transport)?;
        let counters = entry.transport.counters();
        Some(WebRtcStats {
            ice_state: entry.transport.ice_state(),
            ice_selected_tuple: entry.transport.selected_tuple().copied(),
            dtls_state: entry.transport.dtls_state(),
            srtp_profile: entry.srtp_profile.map(str::to_owned),
            checks: counters.checks,
            checks_refused: counters.refusals,
            dtls_datagrams: counters.dtls,
            protect_failures: egress.protect_failures(transport),
            failures: entry.failures.clone(),
        })
    }

    /// How often what failed, of all transports since the worker started.
    pub(super) fn failures(&self) -> Counts<WebRtcFailureReason> {
        self.failure_log.failures.clone()
    }

    /// Closes DTLS with a transport's peer, and forgets the transport.
    pub(super) fn close(&mut self, now: Time, io: &mut IoContext<'_, impl Shell>, transport: TransportIx) {
        if let Some(Some(mut entry)) = self.transports.get_mut(transport.0 as usize).map(Option::take) {
            self.timers.cancel(transport);
            entry.kept.forget(io.relay.page_mut());
            if let Some(registration) = &entry.registration {
                self.shared_ports
                    .unregister(transport, registration, entry.transport.tuples());
            }
            self.events.clear();
            let mut output = SocketOutput {
                egress: io.egress,
                transport,
                events: &mut self.events,
            };
            // Who closes it knows what becomes of it.
            entry.transport.close(now, &mut output);
            self.events.clear();
            connections::close_connections(io, transport);
        }
    }

    /// Closes DTLS with all peers.
    pub(super) fn close_all(&mut self, now: Time, io: &mut IoContext<'_, impl Shell>) {
        for index in 0..self.transports.len() as u32 {
            self.close(now, io, TransportIx(index));
        }
    }

    /// Whether a transport is one of them.
    pub(super) fn contains(&self, transport: TransportIx) -> bool {
        self.entry(transport).is_some()
    }

    fn entry(&self, transport: TransportIx) -> Option<&TransportEntry> {
        self.transports.get(transport.0 as usize)?.as_deref()
    }

    /// Calls `act` with a transport, and handles the events that follow. `None` if there is no such transport.
    fn with<S: Shell, T>(
        &mut self,
        now: Time,
        io: &mut IoContext<'_, S>,
        transport: TransportIx,
        act: impl FnOnce(&mut TransportEntry, &mut SocketOutput<'_, S::Send>, &mut Budgets) -> T,
    ) -> Option<T> {
        let entry = self.transports.get_mut(transport.0 as usize)?.as_deref_mut()?;
        let mut output = SocketOutput {
            egress: io.egress,
            transport,
            events: &mut self.events,
        };
        let done = act(entry, &mut output, &mut self.budgets);
        self.handle_events(now, io, transport);
        Some(done)
    }
}

fn not_webrtc(transport: TransportId) -> WorkerError {
    WorkerError::NotWebRtc(transport)
}
