//! Requests: what is the process's own is done here, the rest is the relay's, with the sockets kept in step.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use tracing::debug;
use weir_channel::id::{RoomId, TransportId};
use weir_channel::message::{
    Coalescing, CreatePlainTransport, Method, Mirror, Remote, Reply, Request, Response, TransportStats, UnroutedReason,
    WorkerError, WorkerStats,
};

use crate::boundary::{self, Parser};
use crate::net::mirror::{MirrorSocket, MirrorStats};
use crate::net::poll::{Interest, Source};
use crate::net::shell::{PollBackend, ReceiveBackend, Shell};
use crate::net::sockets::{TransportSockets, os};
use crate::page::layout::SocketCounts;
use crate::relay::sink::{Sink as _, TransportIx};
use crate::relay::succession::LeftOfSockets;
use crate::time::Time;

use super::event_loop::EventLoop;

/// How often it is kept what was counted of everything together.
const TOTALS_INTERVAL: Duration = Duration::from_secs(1);

impl<S: Shell> EventLoop<S> {
    /// Does what is asked and answers. Descriptors that are not wanted are closed.
    pub(super) fn handle_request(&mut self, now: Time, request: Request, descriptors: Vec<OwnedFd>) -> Response {
        let result = if request.deadline.0 <= now.0 {
            Err(WorkerError::DeadlinePassed)
        } else {
            self.handle_method(now, &request.method, descriptors)
        };
        // What the relay wants done belongs to this request: the next one may reuse an index that this one has freed.
        self.handle_actions();
        Response { id: request.id, result }
    }

    fn handle_method(&mut self, now: Time, method: &Method, descriptors: Vec<OwnedFd>) -> Result<Reply, WorkerError> {
        if self.rehearsal.goes_on() {
            return self.handle_rehearsed(now, method, descriptors);
        }
        if let Method::CreatePlainTransport(request) = method {
            return self.create_transport(now, method, request, descriptors);
        }
        if let Method::CreateWebRtcTransport(request) = method {
            return self.create_webrtc_transport(now, method, request, descriptors);
        }
        if let Method::StartMirroring { transport, mirror } = method {
            return self.start_mirroring(*transport, *mirror, descriptors);
        }
        if let Method::OpenSharedPorts(request) = method {
            return self.open_shared_ports(request, descriptors);
        }
        if let Method::UseConnectedSocket { transport, tuple } = method {
            return self.use_connected_socket(*transport, *tuple, descriptors);
        }
        if let Method::UsePollers = method {
            return self.use_pollers(descriptors);
        }
        if let Method::Adopt { room, pages } = method {
            return self.adopt(now, *room, *pages, descriptors);
        }
        if !descriptors.is_empty() {
            return Err(WorkerError::descriptors(0, descriptors.len()));
        }
        match method {
            Method::Ping => Ok(Reply::Done),
            Method::SetLogFilter(filter) => {
                let set = self.log_filter.set(&filter.directives);
                set.map(|()| Reply::Done).map_err(WorkerError::InvalidParameters)
            }
            Method::SetCoalescing(coalescing) => self.set_coalescing(*coalescing),
            Method::SetRemote { transport, remote } => self.set_remote(now, method, *transport, *remote),
            Method::StopMirroring { transport } => {
                let index = self.index_of(*transport)?;
                self.egress.stop_mirror(index);
                Ok(Reply::Done)
            }
            Method::UseDtlsCertificate(certificate) => self.webrtc.use_certificate(certificate),
            Method::RestartIce { transport, ice } => {
                let whom = (self.index_of(*transport)?, *transport);
                let (webrtc, mut io) = self.webrtc_and_io();
                webrtc.restart_ice(now, &mut io, whom, ice)
            }
            Method::SetRemoteIce { transport, ice } => {
                let whom = (self.index_of(*transport)?, *transport);
                let (webrtc, mut io) = self.webrtc_and_io();
                webrtc.set_remote_ice(now, &mut io, whom, ice)
            }
            Method::SetDtlsParameters { transport, parameters } => {
                let whom = (self.index_of(*transport)?, *transport);
                let (webrtc, mut io) = self.webrtc_and_io();
                webrtc.set_dtls_parameters(now, &mut io, whom, parameters)
            }
            Method::AdoptionEnded { room } => self.end_adoption(now, *room),
            Method::DropWaiting { room } => self.drop_waiting(*room),
            Method::Rehearse => self.rehearse(),
            Method::TakeUp {
                room,
                transports,
                producers,
                consumers,
            } => self.take_up(now, *room, transports, (producers, consumers)),
            Method::SetQuarantine(sources) => self.sieve.set_quarantine(sources),
            Method::WorkerStats => Ok(Reply::WorkerStats(Box::new(self.worker_stats(now)))),
            Method::Shutdown => {
                self.is_leaving = true;
                Ok(Reply::Done)
            }
            _ => {
                self.put_away(method);
                let mut reply = self.relay.handle_command(now, method)?;
                match &mut reply {
                    Reply::Stats(page) => page.transports.iter_mut().for_each(|stats| self.complete(stats)),
                    Reply::Dump(page) => {
                        for dump in &mut page.transports {
                            let index = self.relay.transport_index(dump.transport);
                            dump.mirror = index.and_then(|index| self.egress.mirrors.remote(index));
                        }
                    }
                    _ => {}
                }
                Ok(reply)
            }
        }
    }

    fn create_transport(
        &mut self,
        now: Time,
        method: &Method,
        request: &CreatePlainTransport,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, WorkerError> {
        let is_adopted = self.adoptions.contains(request.room);
        let sockets = match is_adopted {
            true => TransportSockets::take_over(descriptors, request.rtcp_mux)?,
            false => TransportSockets::adopt(descriptors, request.rtcp_mux)?,
        };
        let reply = self.relay.handle_command(now, method)?;
        let counts = self.relay.socket_counts_left(now, request.room, request.transport);
        let left = counts.map(|counts| LeftOfSockets {
            counts,
            is_where_said: false, // nobody has noted where that is
        });
        self.use_sockets(now, (request.room, request.transport), sockets, request.remote, left)?;
        Ok(reply)
    }

    /// Has a plain transport that the relay has just made, or taken up, use its sockets. If that fails, it is closed.
    pub(super) fn use_sockets(
        &mut self,
        now: Time,
        (room, transport): (RoomId, TransportId),
        sockets: TransportSockets,
        remote: Option<Remote>,
        left: Option<LeftOfSockets>,
    ) -> Result<(), WorkerError> {
        let index = self.index_of(transport)?;
        // What was learned is in the page of the worker before.
        let remote = self.relay.remote_of(index).or(remote);
        let registered = self.register(room, index, sockets);
        self.go_on_counting(index, left.map(|left| left.counts));
        let is_noted = left.is_some_and(|left| left.is_where_said);
        let result = registered.and_then(|()| match (remote, self.adoptions.contains(room)) {
            (remote, true) => self.egress.sockets.resume(index, remote, is_noted),
            (Some(remote), false) => self.egress.sockets.connect(index, remote),
            (None, false) => Ok(()),
        });
        if result.is_err() {
            // It exists, so it can be closed; that closes its sockets too.
            let _ = self.relay.handle_command(now, &Method::CloseTransport { transport });
        }
        result
    }

    /// Puts a new transport's sockets into the table, and watches them.
    fn register(&mut self, room: RoomId, transport: TransportIx, sockets: TransportSockets) -> Result<(), WorkerError> {
        self.egress.sockets.attach(transport, sockets);
        if self.adoptions.hold(room, transport) {
            return Ok(());
        }
        let mut result = Ok(());
        self.egress.sockets.each(transport, |port, side, socket| {
            let source = Source::Socket { transport, port, side };
            let added = self.poller.add(socket, source, Interest::Read);
            result = result.clone().and(added.map_err(|errno| os("epoll_ctl", errno)));
        });
        result
    }

    fn set_remote(
        &mut self,
        now: Time,
        method: &Method,
        transport: TransportId,
        remote: Remote,
    ) -> Result<Reply, WorkerError> {
        let index = self.index_of(transport)?;
        if self.webrtc.contains(index) {
            return Err(WorkerError::NotPlain(transport));
        }
        let before = self.egress.sockets.remote(index);
        self.egress.sockets.connect(index, remote)?;
        self.relay.handle_command(now, method).inspect_err(|_| {
            // It was connected there a moment ago.
            let _ = self.egress.sockets.restore(index, before);
        })
    }

    fn start_mirroring(
        &mut self,
        transport: TransportId,
        mirror: Mirror,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, WorkerError> {
        let socket = MirrorSocket::adopt(descriptors)?;
        let index = self.index_of(transport)?;
        match self.egress.mirrors.start(index, mirror, socket) {
            Ok(()) => Ok(Reply::Done),
            Err(_) => Err(WorkerError::Mirrored(transport)),
        }
    }

    fn set_coalescing(&mut self, coalescing: Coalescing) -> Result<Reply, WorkerError> {
        self.waiting.set_max(coalescing)?;
        self.egress
            .sockets
            .stamp_arrivals(coalescing.measure_residence)
            .map_err(|errno| os("setsockopt(SO_TIMESTAMPNS)", errno))?;
        self.egress.measure_residence(coalescing.measure_residence);
        Ok(Reply::Done)
    }

    fn use_pollers(&mut self, descriptors: Vec<OwnedFd>) -> Result<Reply, WorkerError> {
        let pollers = descriptors.try_into();
        let pollers: [OwnedFd; 2] = pollers.map_err(|wrong: Vec<_>| WorkerError::descriptors(2, wrong.len()))?;
        self.poller
            .move_to(pollers, self.endpoint.as_fd(), self.channel_interest)
            .map_err(|errno| os("epoll_ctl", errno))?;
        Ok(Reply::Done)
    }

    /// Stops watching a transport's sockets, and closes them.
    pub(super) fn close(&mut self, transport: TransportIx) {
        self.sieve.forget(transport);
        let (webrtc, mut io) = self.webrtc_and_io();
        webrtc.close(S::monotonic(), &mut io, transport);
        // The supervisor holds the sockets too, so closing them would not take them out of the epoll.
        let remove = |socket: BorrowedFd<'_>| {
            if let Err(errno) = self.poller.remove(socket) {
                debug!(%errno, "epoll_ctl");
            }
        };
        self.egress.sockets.each(transport, |_, _, socket| remove(socket));
        self.egress
            .sockets
            .each_listener(transport, |_, _, socket| remove(socket));
        self.egress.detach(transport);
    }

    pub(super) fn index_of(&self, transport: TransportId) -> Result<TransportIx, WorkerError> {
        self.relay
            .transport_index(transport)
            .ok_or(WorkerError::UnknownTransport(transport))
    }

    /// The sockets of a new transport go on with what was counted at them, if another worker had them.
    pub(super) fn go_on_counting(&mut self, transport: TransportIx, counted: Option<SocketCounts>) {
        match counted {
            Some(counted) => self.egress.go_on_counting(transport, &counted),
            None => self.egress.sockets.begin_drop_counts(transport),
        }
        // With what the kernel has dropped before the transport was there.
        self.keep_socket_counts(transport);
    }

    /// Keeps what was counted at a transport's sockets: whoever sees it never sees less.
    fn keep_socket_counts(&self, transport: TransportIx) {
        self.relay
            .keep_socket_counts(transport, &self.egress.socket_counts(transport));
    }

    /// Adds what only the sockets know to a transport's counters.
    fn complete(&mut self, stats: &mut TransportStats) {
        let index = self.relay.transport_index(stats.transport);
        let Some(sockets) = index.and_then(|index| self.egress.sockets.stats(index)) else {
            return;
        };
        stats.webrtc = index.and_then(|index| self.webrtc.stats(index, &self.egress));
        let mirrored = index.map_or_else(MirrorStats::default, |index| self.egress.mirrors.stats(index));
        stats.packets_mirrored = mirrored.packets;
        stats.mirror_failures = mirrored.failures;
        stats.packets_sent = sockets.packets_sent;
        stats.bytes_sent = sockets.bytes_sent;
        stats.rtcp_sent = sockets.rtcp_sent;
        stats.kernel_drops = sockets.kernel_drops;
        stats.backlog_packets = sockets.backlog_packets;
        stats.unrouted.add(UnroutedReason::TooLong, sockets.truncated);
        if let Some(index) = index {
            self.keep_socket_counts(index);
        }
    }

    fn worker_stats(&mut self, now: Time) -> WorkerStats {
        self.relay.count_together_if_few(now);
        self.keep_totals();
        WorkerStats {
            resident_bytes: self.usage.resident_bytes(),
            residence: self
                .egress
                .residence()
                .map(|residence| residence.histogram())
                .filter(|histogram| histogram.total() > 0),
            ..self.totals()
        }
    }

    /// As [`EventLoop::keep_totals`], once in a while.
    pub(super) fn keep_totals_when_due(&mut self, now: Time) {
        self.relay.count_together(now);
        if now >= self.next_totals {
            self.next_totals = now + TOTALS_INTERVAL;
            self.keep_totals();
        }
    }

    /// Keeps what was counted of everything together, for the supervisor, if this process dies.
    fn keep_totals(&mut self) {
        self.relay.page().set_totals(&self.totals());
    }

    /// What was counted of everything together, and what there is; without what takes long to find out.
    fn totals(&self) -> WorkerStats {
        let (rooms, transports, producers, consumers) = self.relay.counts();
        let sent = self.egress.stats();
        let mut stats = WorkerStats {
            rooms,
            transports,
            producers,
            consumers,
            packets_received: self.counters.packets_received,
            bytes_received: self.counters.bytes_received,
            packets_sent: sent.packets_sent,
            bytes_sent: sent.bytes_sent,
            kernel_drops: self.egress.sockets.kernel_drops(),
            receive_calls: self.batch.calls(),
            send_calls: sent.send_calls,
            wait_calls: self.poller.calls() + self.waiting.counters.coalesced_turns,
            gso_refusals: sent.gso_refusals,
            packets_padded: sent.padded.packets,
            padding_bytes: sent.padded.bytes,
            log_lines_dropped: self.counters.log_lines_dropped + self.endpoint.log_lines_dropped(),
            turns: self.counters.turns,
            coalesced_turns: self.waiting.counters.coalesced_turns,
            spun_ns: self.waiting.counters.spun.as_nanos() as u64,
            cpu_ns: self.usage.cpu_ns(),
            unrouted: self.webrtc.unrouted().total(),
            unrouted_reasons: self.webrtc.unrouted().clone(),
            webrtc_failures: self.webrtc.failures(),
            contained_panics: Parser::ALL.into_iter().map(boundary::panics).sum(),
            ..self.relay.media_totals()
        };
        stats
            .transports_unrouted
            .add(UnroutedReason::TooLong, self.egress.sockets.truncated());
        stats
    }
}
