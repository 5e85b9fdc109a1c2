//! What leaves beside the media: reports, and copies for mirrors.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use weir_channel::message::{DropReason, IceProtocol, IceTuple, Remote, WorkerError};

use super::super::mirror::Flow;
use super::super::send::{Route, SendBackend, is_pending_error};
use super::super::transmit::{EgressStats, is_full};
use super::{Egress, note_lost};
use crate::relay::datagram::Datagram;
use crate::relay::sink::{Port, TransportIx};

impl<B: SendBackend> Egress<B> {
    /// Sends on a tuple of a WebRTC transport from now on; see [`Sockets::select`](crate::net::sockets::Sockets::select). What
    /// was kept for the old path is sent there; what waits goes on waiting, or is given up if there is no path any more.
    ///
    /// # Errors
    /// Why there is none.
    pub fn select(&mut self, transport: TransportIx, tuple: Option<IceTuple>) -> Result<(), Errno> {
        self.flush_transport(transport);
        let selected = self.sockets.select(transport, tuple);
        let by_path = tuple.is_some_and(|tuple| tuple.protocol == IceProtocol::Udp) && selected.is_ok();
        if !by_path && let Some(path) = self.sockets.paths.get_mut(transport.0 as usize) {
            while let Some(waiting) = self.backlog.pop(&mut path.backlog) {
                note_lost(&mut self.lost, waiting.owner, DropReason::NoRemote, 1);
            }
        }
        selected
    }

    /// Sends on a connected socket from now on, in place of the shared port; see
    /// [`Sockets::use_connected`](crate::net::sockets::Sockets::use_connected).
    ///
    /// # Errors
    /// Why not; nothing has changed then.
    pub fn use_connected(
        &mut self,
        transport: TransportIx,
        tuple: IceTuple,
        socket: OwnedFd,
    ) -> Result<(), WorkerError> {
        self.flush_transport(transport);
        self.sockets.use_connected(transport, tuple, socket)?;
        self.watch_backlog(transport);
        Ok(())
    }

    /// A transport has another socket: if packets wait, [`Egress::poll_blocked`] tells of it again.
    pub fn watch_backlog(&mut self, transport: TransportIx) {
        let path = self.sockets.paths.get(transport.0 as usize);
        if path.is_some_and(|path| !path.backlog.is_empty()) && !self.blocked.contains(&transport) {
            self.blocked.push(transport);
        }
    }

    /// Copies what has just been received on a WebRTC transport and unprotected, if somebody gets copies. Whichever of its
    /// addresses it came from, its source must be `peer`.
    pub fn mirror_unprotected(
        &mut self,
        transport: TransportIx,
        peer: SocketAddr,
        bytes: &[u8],
        datagrams: &[Datagram],
    ) {
        if self.mirrors.are_open() {
            let remote = Remote { rtp: peer, rtcp: None };
            let backend = &mut self.backend;
            self.mirrors
                .copy_received(transport, Port::Rtp, remote, bytes, datagrams, backend);
        }
    }

    /// Copies what has just been received, if somebody gets copies. To be called before the relay changes it.
    pub fn mirror_received(&mut self, transport: TransportIx, port: Port, bytes: &[u8], datagrams: &[Datagram]) {
        if self.mirrors.are_open()
            && let Some(remote) = self.sockets.remote(transport)
        {
            let backend = &mut self.backend;
            self.mirrors
                .copy_received(transport, port, remote, bytes, datagrams, backend);
        }
    }

    /// Sends the copies that were made. To be called at the end of each turn.
    pub fn flush_mirrors(&mut self) {
        self.mirrors.flush(&mut self.backend);
    }

    /// Ends a transport's mirror, if it has one.
    pub fn stop_mirror(&mut self, transport: TransportIx) {
        self.mirrors.stop(transport, &mut self.backend);
    }

    #[cold]
    pub(super) fn mirror_sent(&mut self, transport: TransportIx, train: &[u8], segment: usize, accepted: usize) {
        let len = train.len().min(accepted * segment.max(1));
        let segment = segment.clamp(1, len.max(1));
        self.mirrors
            .copy(transport, Flow::SendRtp, &train[..len], segment, &mut self.backend);
    }

    /// See [`Sink::send_rtcp`](crate::relay::sink::Sink::send_rtcp).
    pub(super) fn send_report(&mut self, transport: TransportIx, packet: &[u8]) {
        let is_connected = self
            .sockets
            .remote(transport)
            .is_some_and(|remote| self.sockets.has_rtcp_remote(transport, remote));
        let Some(socket) = self.sockets.rtcp_socket(transport).filter(|_| is_connected) else {
            return;
        };
        let result = send_with_retry(&mut self.backend, &mut self.stats, Route::from(socket), packet);
        self.on_report_sent(transport, result, packet.len(), packet);
    }

    /// Counts a report of `len` bytes that was sent, or not, and copies it for mirrors in the clear.
    pub(super) fn on_report_sent(
        &mut self,
        transport: TransportIx,
        result: Result<(), Errno>,
        len: usize,
        clear: &[u8],
    ) {
        match result {
            Ok(()) => {
                self.stats.packets_sent += 1;
                self.stats.bytes_sent += len as u64;
                self.sockets.note_rtcp_sent(transport, len);
                if self.mirrors.are_open() {
                    self.mirrors
                        .copy(transport, Flow::SendRtcp, clear, clear.len(), &mut self.backend);
                }
            }
            Err(errno) if is_full(errno) => self.stats.rtcp_lost += 1,
            Err(_) => self.stats.send_failures += 1,
        }
    }
}

/// Sends one packet, and once more if the kernel has reported an earlier packet's error in place of sending it.
pub(super) fn send_with_retry(
    backend: &mut impl SendBackend,
    stats: &mut EgressStats,
    route: Route<'_>,
    packet: &[u8],
) -> Result<(), Errno> {
    stats.send_calls += 1;
    match backend.send_packet(route, packet) {
        Err(errno) if is_pending_error(errno) => {
            stats.pending_errors += 1;
            stats.send_calls += 1;
            backend.send_packet(route, packet)
        }
        result => result,
    }
}
