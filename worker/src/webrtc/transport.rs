//! One peer's transport: it classifies what the peer sends, answers what must be answered, and lets media through once the
//! peer has proven who it is.
//!
//! Three gates stand before media, one behind the other. A tuple is valid after a check that was made with our password;
//! only then are its DTLS datagrams looked at. The handshake has ended with the certificate that the signalling
//! announced; only then are there keys, and only then is media from a valid tuple passed on. And media is sent to the
//! selected tuple, which nothing but checks and authentic traffic selects ([`choice`](super::ice::choice)), once it is proven that
//! what is sent there reaches the peer: by the handshake, if all of ours went there, or by an answer to a check of ours.
//!
//! DTLS is answered where it came from. A handshake in the clear proves nothing, so it moves no media; but who sends it from a
//! valid tuple waits there for the answer, and the tuple that was checked first may not even lead back.

mod kept;

use std::sync::Arc;

use weir_channel::message::DtlsRole;

use crate::time::Time;

use super::budget::{Budget, Budgets};
use super::demux::{self, Kind};
use super::dtls::{self, RefusedParameters, RemoteParameters, Role};
use super::ice::{self, Agent, Checked, Credentials, Refusal, Tuple};
use super::stun::Malformed;

use self::kept::LastFlight;

/// What changed on a transport.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// Everything is sent there from now on; `None`: nothing can be sent until a check arrives.
    SelectedTuple(Option<Tuple>),
    /// Nothing that arrives there counts any more. A TCP connection should be closed.
    ForgottenTuple(Tuple),
    /// The ICE state has changed.
    Ice(ice::State),
    /// The DTLS session went on. Keys come with [`dtls::session::Event::Connected`], once.
    Dtls(dtls::session::Event),
}

/// Takes a transport's output, in order.
pub trait TransportOutput {
    /// Sends one datagram, or one frame of a TCP connection (see [`prefix`](super::framing::prefix)).
    fn send(&mut self, tuple: &Tuple, datagram: &[u8]);

    /// Takes an event.
    fn on_event(&mut self, event: Event);
}

/// What a datagram was, for the caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Received {
    /// SRTP by the peer: to be unprotected and relayed.
    Rtp,
    /// SRTCP by the peer: to be unprotected and read.
    Rtcp,
    /// STUN or DTLS; it has been dealt with.
    Control,
    /// It was dropped.
    Dropped(Dropped),
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dropped {
    /// Neither STUN, DTLS, RTP nor RTCP.
    Unrecognised,
    /// STUN that is malformed, or that needs no answer.
    Stun,
    /// STUN that is longer than any message.
    StunTooLong,
    /// A check that came by another tuple before.
    StunReplayed,
    /// A STUN request that was not looked at, or refused without an answer, because there were too many.
    StunFlood,
    /// DTLS or media from a tuple without a valid check.
    UnknownTuple,
    /// DTLS beyond what a handshake needs.
    DtlsFlood,
    /// Media before the peer has proven who it is, or after the end.
    NotConnected,
}

/// What arrived on a transport, in datagrams.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Valid connectivity checks.
    pub checks: u64,
    /// STUN requests that were refused, answered or not.
    pub refusals: u64,
    /// Datagrams with DTLS that were processed.
    pub dtls: u64,
    refused: [u64; Refusal::ALL.len()],
}

impl Counters {
    /// STUN requests that were refused for this reason, answered or not.
    pub fn refused(&self, refusal: Refusal) -> u64 {
        self.refused[refusal as usize]
    }
}

/// One peer's transport.
#[derive(Debug)]
pub struct WebRtcTransport {
    ice: Agent,
    dtls: dtls::Session,
    /// Where the peer's part of the handshake came from last.
    dtls_from: Option<Tuple>,
    /// Likewise, of records that are protected already: of its end.
    dtls_protected_from: Option<Tuple>,
    /// What was sent since has not been answered in time.
    dtls_unanswered: bool,
    handshake_route: HandshakeRoute,
    /// Where what the peer answered when it ended the handshake was sent, and nowhere else.
    proven_by_handshake: Option<Tuple>,
    handshake_datagrams: Budget,
    counters: Counters,
    /// Where answers are written.
    answer: Vec<u8>,
    ice_end: IceEnd,
    last_flight: LastFlight,
}

/// DTLS datagrams of one transport's handshakes: a handshake takes a peer about 8, and as many for each retransmitted flight.
const HANDSHAKE_DATAGRAMS: Budget = Budget::new(50, 100);

/// Where our last flight of the handshake went. Who answers it has received it, and if all of it went to one tuple, then there. What was
/// said before does not matter: what is random in this one is as hard to guess.
#[derive(Clone, Copy, Default, Debug)]
struct HandshakeRoute {
    /// The highest number of a message that was sent. What begins with a higher one is said for the first time.
    newest: Option<u16>,
    to: Reached,
}

#[derive(Clone, Copy, Default, Debug)]
enum Reached {
    #[default]
    Nobody,
    One(Tuple),
    Several,
}

impl HandshakeRoute {
    fn add(&mut self, tuple: &Tuple, datagram: &[u8]) {
        let is_new = demux::handshake_messages(datagram).next() > self.newest;
        self.to = match self.to {
            Reached::Nobody => Reached::One(*tuple),
            _ if is_new => Reached::One(*tuple),
            Reached::One(before) if before == *tuple => self.to,
            Reached::One(_) | Reached::Several => Reached::Several,
        };
        self.newest = self.newest.max(demux::handshake_messages(datagram).max());
    }

    fn only(&self) -> Option<Tuple> {
        match self.to {
            Reached::One(tuple) => Some(tuple),
            Reached::Nobody | Reached::Several => None,
        }
    }
}

/// Why there is no tuple any more.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum IceEnd {
    /// No check came for so long that the peer must be taken for gone (RFC 7675).
    ConsentExpired,
    /// The last TCP connection is gone.
    ConnectionClosed,
}

impl WebRtcTransport {
    /// A transport that waits for its peer.
    pub fn new(credentials: Credentials, context: Arc<dtls::Context>) -> Self {
        Self {
            ice: Agent::new(credentials),
            dtls: dtls::Session::new(context),
            dtls_from: None,
            dtls_protected_from: None,
            dtls_unanswered: false,
            handshake_route: HandshakeRoute::default(),
            proven_by_handshake: None,
            handshake_datagrams: HANDSHAKE_DATAGRAMS,
            counters: Counters::default(),
            answer: Vec::new(),
            ice_end: IceEnd::ConsentExpired,
            last_flight: LastFlight::default(),
        }
    }

    /// Why ICE was disconnected, when it last was.
    pub fn ice_end(&self) -> IceEnd {
        self.ice_end
    }

    /// What the peer must know to have its checks answered.
    pub fn credentials(&self) -> &Credentials {
        self.ice.credentials()
    }

    /// Those before a restart, as long as they are good.
    pub fn previous_credentials(&self) -> Option<&Credentials> {
        self.ice.previous_credentials()
    }

    /// The state of ICE.
    pub fn ice_state(&self) -> ice::State {
        self.ice.state()
    }

    /// The state of DTLS.
    pub fn dtls_state(&self) -> dtls::State {
        self.dtls.state()
    }

    /// Our DTLS role, when it is decided.
    pub fn dtls_role(&self) -> Option<Role> {
        self.dtls.role()
    }

    /// Our certificate, for its fingerprints.
    pub fn certificate(&self) -> &dtls::Certificate {
        self.dtls.context().certificate()
    }

    /// The counters of what arrived.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The tuple that the peer uses, whether or not media may be sent.
    pub fn selected_tuple(&self) -> Option<&Tuple> {
        self.ice.selected()
    }

    /// Where checks came from, not too long ago; at most [`TUPLES_MAX`](ice::TUPLES_MAX).
    pub fn tuples(&self) -> impl Iterator<Item = Tuple> + '_ {
        self.ice.tuples()
    }

    /// Where media is sent; `None` as long as it may not be.
    pub fn media_tuple(&self) -> Option<&Tuple> {
        match self.dtls.state() {
            dtls::State::Connected => self.ice.proven(),
            _ => None,
        }
    }

    /// Whether media from `tuple` is the peer's. For a whole train at once; [`WebRtcTransport::handle_datagram`] asks too.
    ///
    /// # Errors
    ///
    /// Why it must be dropped; the caller counts.
    #[inline]
    pub fn admit_media(&self, tuple: &Tuple) -> Result<(), Dropped> {
        if !self.ice.is_valid(tuple) {
            Err(Dropped::UnknownTuple)
        } else if self.dtls.state() != dtls::State::Connected {
            Err(Dropped::NotConnected)
        } else {
            Ok(())
        }
    }

    /// Takes one datagram, or one frame of a TCP connection. `worker` is what all transports together may spend.
    pub fn handle_datagram(
        &mut self,
        now: Time,
        tuple: Tuple,
        datagram: &[u8],
        worker: &mut Budgets,
        output: &mut impl TransportOutput,
    ) -> Received {
        let media = |received| match self.admit_media(&tuple) {
            Ok(()) => received,
            Err(dropped) => Received::Dropped(dropped),
        };
        match demux::classify(datagram) {
            Kind::Rtp => media(Received::Rtp),
            Kind::Rtcp => media(Received::Rtcp),
            Kind::Stun => self.on_stun(now, tuple, datagram, worker, output),
            Kind::Dtls => self.on_dtls(now, &tuple, datagram, worker, output),
            Kind::Other => Received::Dropped(Dropped::Unrecognised),
        }
    }

    fn on_stun(
        &mut self,
        now: Time,
        tuple: Tuple,
        datagram: &[u8],
        worker: &mut Budgets,
        output: &mut impl TransportOutput,
    ) -> Received {
        match self.ice.handle_stun(now, tuple, datagram, &mut self.answer) {
            Checked::Accepted => self.counters.checks += 1,
            Checked::Refused(refusal) => {
                self.counters.refusals += 1;
                self.counters.refused[refusal as usize] += 1;
                if self.answer.is_empty() || !worker.stun_errors.take(now) {
                    return Received::Dropped(Dropped::StunFlood);
                }
            }
            Checked::Answered => {}
            Checked::Flood => return Received::Dropped(Dropped::StunFlood),
            Checked::Replayed => return Received::Dropped(Dropped::StunReplayed),
            Checked::Malformed(Malformed::TooLong) => return Received::Dropped(Dropped::StunTooLong),
            Checked::Malformed(_) | Checked::Ignored => return Received::Dropped(Dropped::Stun),
        }
        if !self.answer.is_empty() {
            output.send(&tuple, &self.answer);
        }
        self.on_ice_events(now, output);
        Received::Control
    }

    fn on_dtls(
        &mut self,
        now: Time,
        tuple: &Tuple,
        datagram: &[u8],
        worker: &mut Budgets,
        output: &mut impl TransportOutput,
    ) -> Received {
        if !self.ice.is_valid(tuple) {
            return Received::Dropped(Dropped::UnknownTuple);
        }
        let is_handshake = self.dtls.state() == dtls::State::Connecting;
        if !self.handshake_datagrams.take(now) || is_handshake && !worker.handshake_datagrams.take(now) {
            return Received::Dropped(Dropped::DtlsFlood);
        }
        self.counters.dtls += 1;
        if is_handshake {
            self.dtls_from = Some(*tuple);
            self.dtls_unanswered = false;
            if demux::has_protected_record(datagram) {
                self.dtls_protected_from = Some(*tuple);
            }
        }
        if self.last_flight.answers(now, datagram) {
            output.send(tuple, self.last_flight.datagram());
            return Received::Control;
        }
        // What answers this is not what it answers.
        let (answered, had_finished) = (self.handshake_route, self.dtls.has_finished());
        let (route, last_flight) = (&mut self.handshake_route, &mut self.last_flight);
        if is_handshake {
            last_flight.clear();
        }
        self.dtls.handle_datagram(now, datagram, &mut |bytes| {
            route.add(tuple, bytes);
            if is_handshake {
                last_flight.add(now, bytes);
            }
            output.send(tuple, bytes);
        });
        if self.dtls.has_finished() && !had_finished {
            self.proven_by_handshake = answered.only();
        }
        self.on_handshake(now, is_handshake, output);
        Received::Control
    }

    /// If the handshake has ended just now, its end was the first traffic of a peer that is proven.
    fn on_handshake(&mut self, now: Time, was_going_on: bool, output: &mut impl TransportOutput) {
        if was_going_on
            && self.dtls.state() == dtls::State::Connected
            && let Some(from) = self.dtls_protected_from.or(self.dtls_from)
        {
            if let Some(tuple) = self.proven_by_handshake {
                self.ice.prove(&tuple);
            }
            self.ice.on_traffic(now, &from);
            self.ice.begin_asking(now);
            self.on_ice_events(now, output);
        }
        self.on_dtls_events(output);
    }

    /// Notes that a packet of media from `tuple` was authentic, and the newest of its stream: the peer uses that tuple. Says
    /// whether that has changed where media is sent; then call [`WebRtcTransport::handle_events`].
    #[inline]
    pub fn on_authentic_media(&mut self, now: Time, tuple: &Tuple) -> bool {
        self.ice.on_traffic(now, tuple)
    }

    /// Outputs the events of what has changed.
    pub fn handle_events(&mut self, now: Time, output: &mut impl TransportOutput) {
        self.on_ice_events(now, output);
        self.on_dtls_events(output);
    }

    fn on_ice_events(&mut self, now: Time, output: &mut impl TransportOutput) {
        while let Some(event) = self.ice.poll_event() {
            output.on_event(match event {
                ice::Event::Selected(tuple) => Event::SelectedTuple(tuple),
                ice::Event::Forgotten(tuple) => Event::ForgottenTuple(tuple),
                ice::Event::State(state) => Event::Ice(state),
            });
            if matches!(event, ice::Event::State(ice::State::Connected | ice::State::Completed)) {
                let selected = self.ice.selected().copied();
                let route = &mut self.handshake_route;
                self.dtls
                    .start(now, &mut |bytes| send_to(output, selected, route, bytes));
                self.on_dtls_events(output);
            }
        }
        while let Some(tuple) = self.ice.poll_check(now, &mut self.answer) {
            output.send(&tuple, &self.answer);
        }
    }

    fn on_dtls_events(&mut self, output: &mut impl TransportOutput) {
        while let Some(event) = self.dtls.poll_event() {
            output.on_event(Event::Dtls(event));
        }
    }

    /// Takes what the signalling says of the peer's DTLS, once, and says which role is ours.
    ///
    /// # Errors
    ///
    /// See [`RefusedParameters`]; nothing has changed then.
    pub fn set_remote_dtls(
        &mut self,
        now: Time,
        parameters: &RemoteParameters,
        output: &mut impl TransportOutput,
    ) -> Result<Role, RefusedParameters> {
        let is_handshake = self.dtls.state() == dtls::State::Connecting;
        let from = self.dtls_from.filter(|tuple| self.ice.is_valid(tuple));
        let to = from.or(self.ice.selected().copied());
        let route = &mut self.handshake_route;
        if self.dtls.role().is_none() && parameters.role == DtlsRole::Server {
            // What was said as the server comes to nothing.
            *route = HandshakeRoute::default();
        }
        let role = self
            .dtls
            .set_remote(now, parameters, &mut |bytes| send_to(output, to, route, bytes));
        self.on_handshake(now, is_handshake, output);
        role
    }

    /// Whether the handshake has shown that the peer is at `tuple`, and it was there a moment ago.
    pub fn keeps_tuple(&self, now: Time, tuple: &Tuple) -> bool {
        self.ice.keeps(now, tuple)
    }

    /// The tuple of which the peer has not shown yet that it receives what is sent there, if media waits for that.
    pub fn awaited_tuple(&self, now: Time) -> Option<Tuple> {
        self.ice.awaited(now)
    }

    /// The peer has shown that it receives what is sent to this tuple.
    pub fn on_echo(&mut self, now: Time, tuple: &Tuple, output: &mut impl TransportOutput) {
        self.ice.on_proven(now, tuple);
        self.on_ice_events(now, output);
    }

    /// Takes the peer's ICE credentials. They count until [`WebRtcTransport::restart_ice`].
    pub fn set_remote_ice(&mut self, now: Time, credentials: Credentials, output: &mut impl TransportOutput) {
        self.ice.set_remote(now, credentials);
        self.on_ice_events(now, output);
    }

    /// Takes new ICE credentials, which the caller tells the peer too. Media goes on as before until the peer uses them.
    pub fn restart_ice(&mut self, credentials: Credentials) {
        self.ice.restart(credentials);
    }

    /// The tuple's TCP connection was closed, or somebody else is there now.
    pub fn handle_connection_closed(&mut self, now: Time, tuple: &Tuple, output: &mut impl TransportOutput) {
        self.ice_end = IceEnd::ConnectionClosed;
        self.ice.forget(now, tuple);
        self.on_ice_events(now, output);
    }

    /// When [`WebRtcTransport::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Time> {
        [self.ice.poll_timeout(), self.dtls.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Forgets tuples whose consent has expired, and sends again what lacks an answer.
    pub fn handle_timeout(&mut self, now: Time, output: &mut impl TransportOutput) {
        self.ice_end = IceEnd::ConsentExpired;
        self.ice.handle_timeout(now);
        self.on_ice_events(now, output);
        if self.dtls.poll_timeout().is_some_and(|due| due <= now) {
            self.retransmit(now, output);
        }
        self.on_dtls_events(output);
    }

    /// Sends a flight of the handshake again: where the peer's came from. If nothing has come yet, or nothing since the last
    /// time, by all tuples, for some may not lead back; the peer takes what comes twice for a retransmission.
    fn retransmit(&mut self, now: Time, output: &mut impl TransportOutput) {
        let from = self.dtls_from.filter(|tuple| self.ice.is_valid(tuple));
        // A server's flight is much longer than the check that made a tuple valid, so it goes where a cookie came from.
        let only = from.filter(|_| !self.dtls_unanswered || self.dtls.role() != Some(Role::Client));
        let (ice, route, mut has_sent) = (&self.ice, &mut self.handshake_route, false);
        self.dtls.handle_timeout(now, &mut |bytes| {
            has_sent = true;
            match only {
                Some(tuple) => send_to(output, Some(tuple), route, bytes),
                None => ice
                    .tuples()
                    .for_each(|tuple| send_to(output, Some(tuple), route, bytes)),
            }
        });
        self.dtls_unanswered |= has_sent;
    }

    /// Closes the transport, and sends a close alert to a peer that is connected.
    pub fn close(&mut self, now: Time, output: &mut impl TransportOutput) {
        let selected = self.ice.selected().copied();
        let route = &mut self.handshake_route;
        self.dtls
            .close(now, &mut |bytes| send_to(output, selected, route, bytes));
        self.ice.close();
        self.on_ice_events(now, output);
        self.on_dtls_events(output);
    }
}

/// Without a tuple there is nobody to send to; a retransmission makes up for it.
fn send_to(output: &mut impl TransportOutput, tuple: Option<Tuple>, route: &mut HandshakeRoute, datagram: &[u8]) {
    if let Some(tuple) = tuple {
        route.add(&tuple, datagram);
        output.send(&tuple, datagram);
    }
}

#[cfg(test)]
mod tests;
