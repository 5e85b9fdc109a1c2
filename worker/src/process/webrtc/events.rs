//! What follows from a transport's events: keys, a route, a peer for the relay, and notifications for the supervisor.

use std::time::Duration;

use tracing::debug;
use weir_channel::message::{DtlsState, IceState, Notification, WebRtcFailure};

use crate::net::poll::Interest;
use crate::net::shell::Shell;
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::dtls::session::{Established, Event as DtlsEvent};
use crate::webrtc::srtp::{Inbound, KeyingMaterial, Outbound};
use crate::webrtc::succession::PEER_SSRCS_MAX;
use crate::webrtc::transport::Event;

use super::connections::close_connection_of;
use super::shared_ports::unwatch_connected;
use super::{IoContext, TransportEntry, WebRtc, failures};

/// A notification that was over the rate is sent after this time.
const ICE_NOTIFICATION_INTERVAL: Duration = Duration::from_millis(500);

impl WebRtc {
    /// Handles the events of a transport, and sets its timer.
    pub(super) fn handle_events(&mut self, now: Time, io: &mut IoContext<'_, impl Shell>, transport: TransportIx) {
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            self.on_event(now, io, transport, event);
        }
        self.events = events;
        let uses_connected = self.shared_ports.uses_connected;
        let Some(Some(entry)) = self.transports.get_mut(transport.0 as usize) else {
            return;
        };
        // What its peer may have been told is known before it can act upon more.
        entry.kept.keep(io.relay.page(), &entry.transport, &entry.failures);
        entry.follow_peer(now, io, transport);
        entry.await_echo(now, io, transport);
        if let Some(tuple) = entry.socket_to_request(now, io, transport, uses_connected) {
            self.notifications.push_back(Notification::SocketWanted {
                transport: entry.id,
                tuple,
            });
        }
        if entry.has_unreported_ice && entry.ice_budget.take(now) {
            entry.has_unreported_ice = false;
            let notifications = [
                Notification::IceSelectedTupleChanged {
                    transport: entry.id,
                    tuple: entry.transport.selected_tuple().copied(),
                },
                Notification::IceStateChanged {
                    transport: entry.id,
                    state: entry.transport.ice_state(),
                    failure: entry.ice_failure(),
                },
            ];
            self.notifications.extend(notifications);
        }
        for (failure, times) in entry.refusals.take(now, entry.transport.counters()) {
            entry.failures.add(failure.reason, times);
            self.failure_log.record(now, entry.id, &failure, times);
            self.notifications.push_back(failures::refused(entry.id, failure));
        }
        let refusals_due = entry.refusals.due(entry.transport.counters());
        let ice_due = entry.has_unreported_ice.then(|| now + ICE_NOTIFICATION_INTERVAL);
        let connections_due = entry.connections_due(io, transport);
        let due = [
            entry.transport.poll_timeout(),
            entry.echo_requests.due(),
            ice_due,
            refusals_due,
            connections_due,
        ];
        self.timers.set(transport, due.into_iter().flatten().min());
    }

    fn on_event(&mut self, now: Time, io: &mut IoContext<'_, impl Shell>, transport: TransportIx, event: Event) {
        let Some(Some(entry)) = self.transports.get_mut(transport.0 as usize) else {
            return;
        };
        let id = entry.id;
        let notification = match event {
            Event::SelectedTuple(tuple) => Notification::IceSelectedTupleChanged { transport: id, tuple },
            Event::Ice(state) => {
                let failure = entry.ice_failure();
                if let Some(failure) = &failure {
                    entry.failures.add(failure.reason, 1);
                    self.failure_log.record(now, id, failure, 1);
                }
                Notification::IceStateChanged {
                    transport: id,
                    state,
                    failure,
                }
            }
            Event::ForgottenTuple(tuple) => {
                self.shared_ports.forget_tuple(transport, &tuple);
                return close_connection_of(io, transport, &tuple);
            }
            Event::Dtls(event) => {
                let mut failure = None;
                let (state, remote_certificate_pem) = match event {
                    DtlsEvent::Connecting => (DtlsState::Connecting, None),
                    DtlsEvent::Connected(established) => {
                        let Established {
                            keys,
                            remote_certificate,
                            remote_certificate_der,
                        } = *established;
                        entry.use_keys(io, transport, &keys, &remote_certificate_der);
                        (DtlsState::Connected, Some(remote_certificate))
                    }
                    DtlsEvent::Failed(cause) => {
                        let cause = failures::of_dtls(cause);
                        entry.failures.add(cause.reason, 1);
                        self.failure_log.record(now, id, &cause, 1);
                        failure = Some(cause);
                        entry.forget_keys(io, transport);
                        (DtlsState::Failed, None)
                    }
                    DtlsEvent::Closed => {
                        entry.forget_keys(io, transport);
                        (DtlsState::Closed, None)
                    }
                };
                self.notifications.push_back(Notification::DtlsStateChanged {
                    transport: id,
                    state,
                    remote_certificate_pem,
                    failure,
                });
                return;
            }
        };
        if !entry.has_unreported_ice && entry.ice_budget.take(now) {
            self.notifications.push_back(notification);
        } else {
            entry.has_unreported_ice = true;
        }
    }
}

impl TransportEntry {
    /// Why ICE is disconnected, if it is.
    pub(super) fn ice_failure(&self) -> Option<WebRtcFailure> {
        let is_disconnected = self.transport.ice_state() == IceState::Disconnected;
        is_disconnected.then(|| failures::of_ice_end(self.transport.ice_end()))
    }

    fn use_keys(
        &mut self,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
        keys: &KeyingMaterial,
        remote_certificate: &[u8],
    ) {
        // Before anything is protected with them.
        self.kept
            .keep_keys(io.relay.page(), keys, &self.transport, remote_certificate);
        let inbound = Inbound::new(&keys.inbound, PEER_SSRCS_MAX);
        self.use_srtp(io, transport, inbound, Outbound::new(&keys.outbound));
    }

    pub(super) fn use_srtp(
        &mut self,
        io: &mut IoContext<'_, impl Shell>,
        transport: TransportIx,
        inbound: Inbound,
        mut outbound: Outbound,
    ) {
        self.srtp_profile = Some(outbound.profile().name());
        self.inbound = Some(Box::new(inbound));
        outbound.keep_rtcp_count(self.kept.rtcp_counter(io.relay.page()));
        io.egress.start_protecting(transport, outbound);
    }

    fn forget_keys(&mut self, io: &mut IoContext<'_, impl Shell>, transport: TransportIx) {
        self.inbound = None;
        self.kept.wipe_keys(io.relay.page(), &self.transport);
        io.egress.stop_protecting(transport);
    }

    /// Connects the sending path to where the peer wants it, and tells the relay whether there is a peer.
    fn follow_peer(&mut self, now: Time, io: &mut IoContext<'_, impl Shell>, transport: TransportIx) {
        let selected = self.transport.selected_tuple().copied();
        if self.route != selected {
            self.route = selected;
            if self.registration.is_some() {
                unwatch_connected(io, transport);
            } else {
                // A path that is not the sending one any more has nothing to write.
                io.watch(transport, Interest::Read);
            }
            if let Err(errno) = io.egress.select(transport, selected) {
                debug!(id = %self.id, ?selected, %errno, "the selected tuple cannot be connected to");
            }
            io.egress.watch_backlog(transport);
        }
        let media = self.transport.media_tuple().filter(|_| self.inbound.is_some());
        io.egress.sockets.open(transport, media.is_some());
        // What a peer that is not there does not receive is not numbered, or it would not know the numbers when it is back.
        let peer = media
            .filter(|_| !io.egress.is_unheard(transport))
            .map(|tuple| tuple.remote);
        if self.peer != peer {
            self.peer = peer;
            io.relay.set_peer(now, transport, peer);
        }
    }
}
