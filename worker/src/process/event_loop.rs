//! The event loop. A turn: wait, receive and relay, send what was gathered, serve the channel, timers, notifications.
//!
//! Every part of a turn is bounded, so that neither media nor control can starve the other:
//!
//! * Sockets are read one batch each, and only until `MEDIA_TURN_MAX` has passed; those that were ready and not read come
//!   first in the next turn. After them come the sockets at which anybody is heard, which have `OPEN_TURN_MAX`, and smaller batches:
//!   garbage has no more than its share. What of it is not read in time the kernel drops and counts. The size of a batch adapts (`batch_limit`).
//! * Requests are served as many as `REQUESTS_PER_MS` allows for the time since they were served last, but at least
//!   `REQUESTS_MIN`.
//! * Once, when the process takes another one's place, its rooms come before all media, for a bounded time (`adoption`).

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use tracing::{info, warn};
use weir_channel::endpoint::WorkerEndpoint;
use weir_channel::error::ChannelError;
use weir_channel::id::WorkerId;
use weir_channel::message::{Hello, SHARED_PORTS_MAX, Sandbox};
use weir_channel::page::REST_MAX;

use crate::exit::Exit;
use crate::log::{LogFilterHandle, LogQueue};
use crate::net::egress::Egress;
use crate::net::poll::{Event, Interest, Source};
use crate::net::shell::{Backends, Kernel, PollBackend, Shell};
use crate::net::usage::Usage;
use crate::page::Page;
use crate::page::layout::Capacity;
use crate::page::memory::Memory;
use crate::relay::limits::Limits;
use crate::relay::sink::TransportIx;
use crate::relay::{Action, Relay};
use crate::switches::Switches;
use crate::time::Time;
use crate::webrtc::dtls;
use crate::webrtc::srtp::Spent;

use super::BUILD;
use super::adoption::Adoptions;
use super::batch_limit::BatchLimit;
use super::coalesce::Turn;
use super::ended::Ended;
use super::rehearsal::{Nowhere, Rehearsal};
use super::sieve::Sieve;
use super::waiting::{Wait, Waiting};
use super::webrtc::{IoContext, WebRtc};

/// Ready sockets that one wait reports, with a batch of at most 32 datagrams each. More than are ever ready at once in hundreds of rooms,
/// so that none waits for others to have had two turns.
pub(super) const EVENTS_MAX: usize = 1_024;

/// After so much time of relaying, sockets that are ready wait for the next turn, and the channel is served. The cost of
/// a turn beside relaying (a wait, the channel) is about 2 µs, so 500 µs spread it thin.
const MEDIA_TURN_MAX: Duration = Duration::from_micros(500);

/// The same while rooms are still adopted when their time before all media is over, one in each turn: enough for what has waited for
/// the last one.
const MEDIA_TURN_MAX_ADOPTING: Duration = Duration::from_millis(2);

/// So much time of a turn is for sockets at which anybody is heard; at least one is read. A fifth of what a busy turn takes, and more than
/// what those who come need.
const OPEN_TURN_MAX: Duration = Duration::from_micros(125);

/// How often the wall clock is read again, so that reports follow when it is set or slewed.
const WALL_CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Warnings about the same kind of trouble are this far apart.
const WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// What a worker begins with.
#[derive(Debug)]
pub struct Start {
    /// Its end of the channel.
    pub channel: OwnedFd,
    /// Which worker it is.
    pub id: WorkerId,
    /// What its DTLS obeys.
    pub dtls: dtls::Settings,
    /// Lines of its log, for the supervisor.
    pub log: LogQueue,
    /// Which lines those are.
    pub log_filter: LogFilterHandle,
}

/// A worker: relay, sockets and channel, and the loop that joins them.
pub struct EventLoop<S: Shell = Kernel> {
    pub(super) endpoint: WorkerEndpoint,
    pub(super) relay: Relay,
    pub(super) egress: Egress<S::Send>,
    pub(super) webrtc: WebRtc,
    pub(super) batch: S::Receive,
    pub(super) poller: S::Poll,
    pub(super) usage: Usage,
    pub(super) log_filter: LogFilterHandle,
    pub(super) waiting: Waiting,
    pub(super) counters: Counters,
    /// By shared port: the transports whose packets wait until it is writable.
    pub(super) blocked_on_shared_port: [Vec<TransportIx>; SHARED_PORTS_MAX],
    /// Answer what was asked, and leave.
    pub(super) is_leaving: bool,
    pub(super) log: LogQueue,
    /// What is ready; before `next_ready` it is served.
    ready: Vec<Event>,
    next_ready: usize,
    /// Likewise, of the sockets at which anybody is heard.
    open: Vec<Event>,
    next_open: usize,
    pub(super) channel_interest: Interest,
    pub(super) requests_served: Time,
    /// What confines the process, until the supervisor is told.
    pub(super) sandbox: Option<Sandbox>,
    /// Datagrams that a batch may bring.
    pub(super) batch_limit: BatchLimit,
    pub(super) adoptions: Adoptions,
    pub(super) rehearsal: Rehearsal,
    pub(super) sieve: Sieve,
    next_warning: Time,
    next_wall_clock: Time,
    pub(super) next_totals: Time,
    /// When the last turn did.
    turn_ended: Time,
}

/// Counters of the loop itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Counters {
    pub(super) turns: u64,
    pub(super) packets_received: u64,
    pub(super) bytes_received: u64,
    pub(super) log_lines_dropped: u64,
}

impl<S: Shell> EventLoop<S> {
    /// Hands on what the server's settings say.
    pub fn obey(&mut self, switches: Switches) {
        self.relay.obey(switches);
    }

    /// Makes what WebRTC transports share, instead of with the first of them. Libraries then have what they fetch from the system with
    /// their first use, which a confined process cannot.
    pub fn prepare_webrtc(&mut self) {
        // Without a certificate there are no WebRTC transports, which each is told.
        let _ = self.webrtc.context();
    }

    /// The memory, all zeroes, in which to keep what a successor needs. To be called before the first turn.
    pub fn keep_in(&mut self, memory: Memory) {
        self.relay.set_page(Page::new(memory, Capacity::WORKER, S::seed()));
    }

    /// Tells the supervisor what confines this process.
    pub fn set_sandbox(&mut self, sandbox: Sandbox) {
        self.sandbox = Some(sandbox);
    }

    /// As [`EventLoop::new`], on other backends.
    ///
    /// # Errors
    /// What they say, or the channel.
    pub fn on(backends: Backends<S>, start: Start) -> Result<Self, ChannelError> {
        let Backends { send, receive, poll } = backends;
        let Start {
            channel,
            id,
            dtls,
            log,
            log_filter,
        } = start;
        let endpoint = WorkerEndpoint::new(channel, Hello::new(BUILD, id))?;
        poll.add(endpoint.as_fd(), Source::Channel, Interest::Read)
            .map_err(|errno| ChannelError::Os {
                call: "epoll_ctl",
                errno,
            })?;
        let now = S::monotonic();
        Ok(Self {
            endpoint,
            relay: Relay::new(Limits::default(), S::seed() ^ u64::from(id.0) << 32),
            egress: Egress::with_backend(send),
            webrtc: WebRtc::new(dtls),
            batch: receive,
            poller: poll,
            turn_ended: now,
            usage: Usage::open(),
            log_filter,
            waiting: Waiting::default(),
            counters: Counters::default(),
            blocked_on_shared_port: Default::default(),
            is_leaving: false,
            log,
            ready: Vec::with_capacity(EVENTS_MAX),
            next_ready: 0,
            open: Vec::with_capacity(EVENTS_MAX),
            next_open: 0,
            channel_interest: Interest::Read,
            requests_served: now,
            sandbox: None,
            batch_limit: BatchLimit::new(),
            adoptions: Adoptions::default(),
            rehearsal: Rehearsal::default(),
            sieve: Sieve::default(),
            next_warning: Time::default(),
            next_wall_clock: Time::default(),
            next_totals: Time::default(),
        })
    }

    /// Runs until the supervisor asks to shut down, or is gone, or something breaks.
    pub fn run(&mut self) -> Ended {
        let mut result = self.begin();
        while result.is_ok() && !self.is_leaving {
            result = self.turn();
        }
        match result {
            Ok(()) => self.finish(),
            Err(ended) => ended,
        }
    }

    /// Says hello.
    ///
    /// # Errors
    /// Why it ends already.
    pub fn begin(&mut self) -> Result<(), Ended> {
        info!(build = BUILD, "started");
        self.turn_ended = S::monotonic();
        self.send_notifications()
    }

    /// Whether it was asked to leave: then [`EventLoop::finish`] comes next, and else another turn.
    pub fn is_leaving(&self) -> bool {
        self.is_leaving
    }

    /// When the next turn begins at the latest, whether anything comes before or not.
    pub fn next_timeout(&self) -> Time {
        let is_leftover = self.next_ready < self.ready.len() || self.has_more_to_do();
        let due = [
            self.relay.next_timeout(),
            self.webrtc.next_timeout(),
            self.adoptions.watching_due(),
        ];
        match is_leftover {
            true => self.turn_ended,
            false => due.into_iter().flatten().fold(self.turn_ended + REST_MAX, Time::min),
        }
    }

    /// Notes that it has nothing to do: who waits is not stuck. [`EventLoop::turn`] does so before it waits; who waits for it
    /// does so.
    pub fn rest(&mut self) {
        self.relay.page().set_rest(self.turn_ended);
    }

    /// One turn.
    ///
    /// # Errors
    /// Why there is no next one.
    pub fn turn(&mut self) -> Result<(), Ended> {
        let ended_before = self.turn_ended;
        self.counters.turns += 1;
        let received_before = self.counters.packets_received;
        let is_leftover = self.next_ready < self.ready.len();
        let is_channel_ready = if is_leftover {
            true
        } else {
            self.rest();
            self.wait(ended_before)?
        };
        let woke = S::monotonic();
        self.relay.page().set_turn(woke);
        let is_asked = is_channel_ready || self.endpoint.has_buffered_input();
        let makes_rooms = is_asked && self.adoptions.come_before_packets(woke) && self.serve_channel(woke)? > 0;
        let mut now = woke;
        if !makes_rooms {
            now = self.serve_sockets(woke);
            if is_asked || self.endpoint.wants_write() {
                self.serve_channel(now)?;
            }
        }
        if self.adoptions.has_to_watch(now) {
            self.watch_later();
        }
        let has_relayed = self.counters.packets_received != received_before;
        let is_due = self.relay.next_timeout().is_some_and(|due| due <= now);
        if (is_due || has_relayed) && now >= self.next_wall_clock {
            self.next_wall_clock = now + WALL_CLOCK_INTERVAL;
            self.relay.set_wall_clock(S::wall_clock());
        }
        if is_due {
            match self.rehearsal.goes_on() {
                true => self.relay.handle_timeout(now, &mut Nowhere),
                false => self.relay.handle_timeout(now, &mut self.egress),
            }
        }
        if has_relayed {
            self.relay.report_early(now, &mut self.egress);
        }
        if self.webrtc.next_timeout().is_some_and(|due| due <= now) {
            let (webrtc, mut io) = self.webrtc_and_io();
            webrtc.handle_timeout(now, &mut io);
        }
        // Requests and timers send too, and nobody knows when the next turn comes.
        self.flush_gathered();
        self.egress.flush_mirrors();
        self.send_notifications()?;
        self.keep_totals_when_due(now);
        let ended = S::monotonic();
        self.waiting.window.on_turn(Turn {
            waited: woke.since(ended_before),
            worked: ended.since(woke),
            packets: self.counters.packets_received - received_before,
        });
        self.turn_ended = ended;
        Ok(())
    }

    /// Whether the last turn has left something.
    fn has_more_to_do(&self) -> bool {
        self.endpoint.has_buffered_input()
            || self.next_open < self.open.len()
            || self.adoptions.has_to_watch(self.turn_ended)
    }

    /// Waits for something to do, but not for so long that it would look as if it could not. Returns whether the channel has something.
    fn wait(&mut self, now: Time) -> Result<bool, Ended> {
        self.next_ready = 0;
        let has_more_to_do = self.has_more_to_do();
        let due = [
            self.relay.next_timeout(),
            self.webrtc.next_timeout(),
            self.adoptions.watching_due(),
            Some(now + REST_MAX),
        ];
        let mut kernel = Wait::<S> {
            poller: &mut self.poller,
            ready: &mut self.ready,
            channel: self.endpoint.as_fd(),
        };
        let result = match has_more_to_do {
            true => self.waiting.look(&mut kernel),
            false => self.waiting.wait(&mut kernel, now, due.into_iter().flatten().min()),
        };
        result.map_err(|errno| Ended::new(Exit::EventLoop, format!("epoll_wait: {errno}")))?;
        Ok(self.ready.iter().any(|event| event.source == Source::Channel))
    }

    /// Reads the sockets that are ready, and relays what they bring, until time is up. Returns what time it is then.
    fn serve_sockets(&mut self, began: Time) -> Time {
        let most = match self.adoptions.is_empty() {
            true => MEDIA_TURN_MAX,
            false => MEDIA_TURN_MAX_ADOPTING,
        };
        let mut now = began;
        while let Some(event) = self.ready.get(self.next_ready).copied() {
            self.next_ready += 1;
            now = self.serve_socket(now, event);
            if now.since(began) > most {
                break;
            }
        }
        now = self.serve_open_sockets(now);
        // What follows is everybody's.
        self.relay.page().clear_suspect();
        self.flush_gathered();
        now
    }

    /// Sends what was gathered, and then keeps how far that has come which brought it: a successor asks for what has not left.
    fn flush_gathered(&mut self) {
        self.egress.flush_gathered();
        self.relay.keep_positions();
        self.webrtc.keep_positions(self.relay.page_mut());
        self.handle_outputs();
    }

    /// As [`EventLoop::serve_sockets`], for the sockets at which anybody is heard.
    fn serve_open_sockets(&mut self, began: Time) -> Time {
        if self.next_open >= self.open.len() {
            if !self.poller.is_open_ready() {
                return began;
            }
            self.next_open = 0;
            if let Err(errno) = self.poller.poll_open(&mut self.open) {
                self.warn(began, "epoll_wait", errno);
            }
        }
        let mut now = began;
        while let Some(event) = self.open.get(self.next_open).copied() {
            self.next_open += 1;
            now = self.serve_socket(now, event);
            if now.since(began) > OPEN_TURN_MAX {
                break;
            }
        }
        now
    }

    /// Writes to a socket what waits for it, and reads one batch. Returns what time it is then.
    fn serve_socket(&mut self, now: Time, event: Event) -> Time {
        match event.source {
            Source::Channel | Source::Open => return now,
            Source::Connection { transport, number, .. } if event.is_writable => {
                let (webrtc, mut io) = self.webrtc_and_io();
                webrtc.write_connection(&mut io, transport, number);
            }
            Source::Socket { transport, .. } | Source::Listener { transport, .. } if event.is_writable => {
                self.handle_writable(transport);
            }
            Source::SharedPort { number } if event.is_writable => self.write_by_shared_port(number),
            _ => {}
        }
        if !event.is_readable {
            return now;
        }
        let before = (self.counters.packets_received, self.relay.accepted());
        self.receive(now, event.source);
        let after = S::monotonic();
        let packets = self.counters.packets_received - before.0;
        let accepted = self.relay.accepted() - before.1;
        self.batch_limit.on_batch(after.since(now), packets, accepted);
        after
    }

    /// The WebRTC transports, and what they receive for and send with.
    pub(super) fn webrtc_and_io(&mut self) -> (&mut WebRtc, IoContext<'_, S>) {
        let io = IoContext {
            relay: &mut self.relay,
            egress: &mut self.egress,
            poller: &self.poller,
        };
        (&mut self.webrtc, io)
    }

    fn handle_writable(&mut self, transport: TransportIx) {
        if !self.egress.handle_writable(transport) {
            self.webrtc_and_io().1.watch(transport, Interest::Read);
        }
    }

    /// Handles what the egress and the relay report.
    pub(super) fn handle_outputs(&mut self) {
        while let Some(transport) = self.egress.poll_blocked() {
            match self.egress.sockets.sends_through(transport) {
                Some(port) => self.wait_for_shared_port(port, transport),
                None => self.watch_blocked(transport),
            }
        }
        let (webrtc, mut io) = self.webrtc_and_io();
        WebRtc::watch_blocked(&mut io);
        webrtc.tell_of_closed_sockets(&mut io);
        while let Some((transport, ssrc)) = self.egress.poll_begun() {
            if !self.relay.repeats_packets(transport, ssrc) {
                self.egress.refuse_repeats(transport, ssrc);
            }
        }
        while let Some(transport) = self.egress.poll_unheard() {
            let (webrtc, mut io) = self.webrtc_and_io();
            webrtc.on_unheard(S::monotonic(), &mut io, transport);
        }
        while let Some(lost) = self.egress.poll_lost() {
            self.relay.handle_lost(lost.owner, lost.reason, lost.packets);
        }
        self.handle_actions();
    }

    /// Carries out the actions of the relay.
    pub(super) fn handle_actions(&mut self) {
        if self.rehearsal.goes_on() {
            return self.drop_actions();
        }
        self.relay.send_pending_byes(&mut self.egress);
        while let Some(action) = self.relay.poll_action() {
            match action {
                Action::Connect { transport, remote } => {
                    if let Err(error) = self.egress.sockets.connect(transport, remote) {
                        warn!(%error, ?remote, "a learned remote cannot be connected to");
                    }
                }
                Action::Close { transport } => self.close(transport),
                Action::Retire { transport, ssrc } => self.egress.retire(transport, ssrc),
                Action::Spent { transport, ssrc, next } => self.egress.spend(transport, Spent { ssrc, next }),
                Action::Unkept { transport } => {
                    let (webrtc, mut io) = self.webrtc_and_io();
                    webrtc.forget_kept(&mut io, transport);
                }
                Action::Echoed { transport } => {
                    let (webrtc, mut io) = self.webrtc_and_io();
                    webrtc.on_echo(S::monotonic(), &mut io, transport);
                }
                Action::Forget { transport, ssrc } => self.webrtc.forget_stream(transport, ssrc),
            }
        }
    }

    pub(super) fn warn(&mut self, now: Time, call: &str, errno: Errno) {
        if now >= self.next_warning {
            self.next_warning = now + WARNING_INTERVAL;
            warn!(call, %errno, "the kernel refuses; further refusals are not logged for a minute");
        }
    }
}
