//! What a process does before its time comes: it makes the rooms that another one serves, so that it need not when that is dead. It leaves
//! their sockets alone, sends nothing, tells nothing, and keeps nothing in its page, where a successor of its own would find what
//! nobody has ever been sent.

use std::collections::BTreeMap;
use std::mem::replace;
use std::os::fd::OwnedFd;

use weir_channel::id::{ConsumerId, ProducerId, RoomId, TransportId};
use weir_channel::message::{
    CreateWebRtcTransport, DtlsParameters, IceCredentials, Method, NotTakenUp, Reply, WorkerError,
};

use crate::net::shell::Shell;
use crate::net::sockets::{IceSockets, TransportSockets};
use crate::page::Page;
use crate::page::layout::Table;
use crate::relay::limits::ENCODINGS_MAX;
use crate::relay::sink::{ConsumerIx, Sent, Sink, TransportIx};
use crate::time::Time;

use super::event_loop::EventLoop;

/// The most slots of a table that are fetched beforehand.
const WARM_MAX: u32 = 1 << 16;

/// How far it is.
#[derive(Debug, Default)]
pub(super) struct Rehearsal {
    /// While it goes on: the page, which is for later.
    page: Option<Page>,
    /// What was rehearsed, and was not asked for since.
    transports: BTreeMap<TransportId, Laid>,
    /// How many WebRTC transports were rehearsed.
    webrtc: u64,
    /// The slots of the page whose memory is there, by table.
    warm: [u32; 4],
}

/// The sockets of a transport, laid out for later.
#[derive(Debug)]
pub(super) enum Laid {
    Plain(Box<TransportSockets>),
    WebRtc(Box<LaidWebRtc>),
    /// They are the worker's, or closed already.
    Nothing,
}

/// A WebRTC transport: its sockets, and what it is made with.
#[derive(Debug)]
pub(super) struct LaidWebRtc {
    pub(super) sockets: IceSockets,
    request: CreateWebRtcTransport,
    remote_ice: Option<IceCredentials>,
    dtls: Option<DtlsParameters>,
}

impl Rehearsal {
    pub(super) fn goes_on(&self) -> bool {
        self.page.is_some()
    }

    /// A transport is asked for: its sockets, if it was rehearsed. Then it is there, and from now on it is no rehearsal any more.
    pub(super) fn claim(&mut self, transport: TransportId) -> Option<Laid> {
        match self.goes_on() {
            true => None,
            false => self.transports.remove(&transport),
        }
    }
}

/// Where all goes that is sent in a rehearsal.
#[derive(Debug)]
pub(super) struct Nowhere;

impl Sink for Nowhere {
    fn send(&mut self, _: TransportIx, _: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        Sent::all(train.len().div_ceil(segment.max(1)))
    }

    fn gather(&mut self, transport: TransportIx, owner: ConsumerIx, train: &[u8], segment: usize) -> Sent {
        self.send(transport, owner, train, segment)
    }

    fn send_rtcp(&mut self, _: TransportIx, _: &[u8]) {}

    fn resend(&mut self, _: TransportIx, _: &[u8]) -> bool {
        false
    }
}

impl<S: Shell> EventLoop<S> {
    /// Begins one.
    pub(super) fn rehearse(&mut self) -> Result<Reply, WorkerError> {
        if self.rehearsal.goes_on() || self.relay.counts().0 > 0 {
            return Err(WorkerError::invalid("only a process without rooms can rehearse"));
        }
        self.rehearsal.page = Some(replace(self.relay.page_mut(), Page::nowhere()));
        Ok(Reply::Done)
    }

    /// Does what is asked of a process that rehearses.
    pub(super) fn handle_rehearsed(
        &mut self,
        now: Time,
        method: &Method,
        descriptors: Vec<OwnedFd>,
    ) -> Result<Reply, WorkerError> {
        let count = descriptors.len();
        let laid = match method {
            _ if count == 0 => Laid::Nothing,
            Method::CreatePlainTransport(request) => {
                let mut sockets = TransportSockets::take_over(descriptors, request.rtcp_mux)?;
                sockets.note_remotes();
                Laid::Plain(Box::new(sockets))
            }
            Method::CreateWebRtcTransport(request) => Laid::WebRtc(Box::new(LaidWebRtc {
                sockets: IceSockets::take_over(descriptors, &request.listeners)?,
                request: request.clone(),
                remote_ice: None,
                dtls: None,
            })),
            _ => return Err(WorkerError::descriptors(0, count)),
        };
        match method {
            Method::Ping => Ok(Reply::Done),
            Method::Shutdown => {
                self.is_leaving = true;
                Ok(Reply::Done)
            }
            Method::RehearsalEnded => {
                if let Some(page) = self.rehearsal.page.take() {
                    self.relay.set_page(page);
                }
                Ok(Reply::Done)
            }
            Method::RestartIce { transport, ice } => {
                self.note_rehearsed(*transport, |laid| laid.request.ice = ice.clone())
            }
            Method::SetRemoteIce { transport, ice } => {
                self.note_rehearsed(*transport, |laid| laid.remote_ice = Some(ice.clone()))
            }
            Method::SetDtlsParameters { transport, parameters } => {
                self.note_rehearsed(*transport, |laid| laid.dtls = Some(parameters.clone()))
            }
            method if method.is_rehearsed() => self.make_rehearsed(now, method, laid),
            _ => Err(WorkerError::invalid("this cannot be rehearsed")),
        }
    }

    /// What a request closes needs no sockets any more.
    pub(super) fn put_away(&mut self, method: &Method) {
        let laid = &mut self.rehearsal.transports;
        match method {
            Method::CloseRouter { room } => {
                for transport in self.relay.transports_of(*room) {
                    laid.remove(&transport);
                }
            }
            Method::CloseTransport { transport } => _ = laid.remove(transport),
            _ => {}
        }
    }

    fn make_rehearsed(&mut self, now: Time, method: &Method, laid: Laid) -> Result<Reply, WorkerError> {
        self.put_away(method);
        let reply = self.relay.handle_command(now, method)?;
        self.rehearsal.webrtc += u64::from(matches!(method, Method::CreateWebRtcTransport(_)));
        self.warm_page();
        let transports = &mut self.rehearsal.transports;
        match method {
            Method::CreatePlainTransport(request) => _ = transports.insert(request.transport, laid),
            // Its worker has connected it.
            Method::SetRemote { transport, .. } => {
                if let Some(Laid::Plain(sockets)) = transports.get_mut(transport) {
                    sockets.note_remotes();
                }
            }
            Method::CreateWebRtcTransport(request) => _ = transports.insert(request.transport, laid),
            _ => {}
        }
        Ok(reply)
    }

    /// Takes note of what a WebRTC transport is to be made with.
    fn note_rehearsed(
        &mut self,
        transport: TransportId,
        note: impl FnOnce(&mut LaidWebRtc),
    ) -> Result<Reply, WorkerError> {
        match self.rehearsal.transports.get_mut(&transport) {
            Some(Laid::WebRtc(laid)) => note(laid),
            // It will be asked for with all that.
            Some(Laid::Plain(_) | Laid::Nothing) => {}
            None => return Err(WorkerError::UnknownTransport(transport)),
        }
        Ok(Reply::Done)
    }

    /// What is made will be kept in the page, whose memory is fetched now and not when everybody waits.
    fn warm_page(&mut self) {
        let (_, transports, producers, consumers) = self.relay.counts();
        let wanted = [
            (Table::Transports, transports),
            (Table::WebRtc, self.rehearsal.webrtc),
            (Table::Streams, producers * ENCODINGS_MAX as u64),
            (Table::Consumers, consumers),
        ];
        let Some(page) = &self.rehearsal.page else { return };
        for ((table, count), warm) in wanted.into_iter().zip(&mut self.rehearsal.warm) {
            let count = u32::try_from(count).unwrap_or(u32::MAX).min(WARM_MAX);
            if *warm < count {
                page.warm(table, *warm..count);
                *warm = count;
            }
        }
    }

    /// A transport could not be taken up. What of it is there since the rehearsal is closed.
    pub(super) fn give_up_rehearsed(&mut self, now: Time, transport: TransportId) {
        // It may be closed already.
        let _ = self.relay.handle_command(now, &Method::CloseTransport { transport });
    }

    /// Takes up what was rehearsed of a room.
    pub(super) fn take_up(
        &mut self,
        now: Time,
        room: RoomId,
        transports: &[TransportId],
        (producers, consumers): (&[ProducerId], &[ConsumerId]),
    ) -> Result<Reply, WorkerError> {
        if !self.adoptions.contains(room) {
            return Err(WorkerError::invalid(format!("{room} is not being adopted")));
        }
        let mut others = Vec::new();
        for transport in transports {
            if let Err(error) = self.take_up_transport(now, room, *transport) {
                others.push((*transport, error));
            }
        }
        let laid = &mut self.rehearsal.transports;
        let unclaimed = self.relay.transports_of(room);
        let unclaimed: Vec<_> = unclaimed.filter(|transport| laid.remove(transport).is_some()).collect();
        for transport in unclaimed {
            self.relay.handle_command(now, &Method::CloseTransport { transport })?;
        }
        let not_taken_up = NotTakenUp {
            transports: others,
            ..self.relay.take_up(now, room, producers, consumers)?
        };
        Ok(Reply::TakenUp(not_taken_up))
    }

    fn take_up_transport(&mut self, now: Time, room: RoomId, transport: TransportId) -> Result<(), WorkerError> {
        match self.rehearsal.claim(transport) {
            Some(Laid::Plain(sockets)) => {
                let left = self.relay.take_up_transport(now, room, transport)?;
                self.use_sockets(now, (room, transport), *sockets, None, left)
            }
            Some(Laid::WebRtc(laid)) if laid.request.room == room => {
                let taken_up = self.take_up_webrtc(now, laid);
                taken_up.inspect_err(|_| self.give_up_rehearsed(now, transport))
            }
            Some(Laid::WebRtc(_) | Laid::Nothing) => {
                self.give_up_rehearsed(now, transport);
                Err(WorkerError::descriptors(2, 0))
            }
            None => Err(WorkerError::UnknownTransport(transport)),
        }
    }

    /// Makes a WebRTC transport with what was noted of it.
    fn take_up_webrtc(&mut self, now: Time, mut laid: Box<LaidWebRtc>) -> Result<(), WorkerError> {
        let (remote_ice, dtls) = (laid.remote_ice.take(), laid.dtls.take());
        let request = laid.request.clone();
        self.make_webrtc_transport(now, None, &request, Vec::new(), Some(Laid::WebRtc(laid)))?;
        let whom = (self.index_of(request.transport)?, request.transport);
        let (webrtc, mut io) = self.webrtc_and_io();
        if let Some(ice) = &remote_ice {
            webrtc.set_remote_ice(now, &mut io, whom, ice)?;
        }
        if let Some(parameters) = &dtls {
            webrtc.set_dtls_parameters(now, &mut io, whom, parameters)?;
        }
        Ok(())
    }

    /// What the relay wants done in a rehearsal is done by nobody.
    pub(super) fn drop_actions(&mut self) {
        self.relay.send_pending_byes(&mut Nowhere);
        while self.relay.poll_action().is_some() {}
        while self.relay.poll_notification().is_some() {}
    }
}
