//! A WebRTC transport of a worker that is dead: it goes on with the keys and paths that it had.

use weir_channel::message::{DtlsState, IceProtocol, IceTuple, Notification};

use crate::net::shell::Shell;
use crate::page::Page;
use crate::relay::sink::TransportIx;
use crate::time::Time;
use crate::webrtc::ice::State;
use crate::webrtc::succession::Rest;
use crate::webrtc::transport::Event;

use super::{IoContext, WebRtc};

impl WebRtc {
    /// Keeps how far peers' packets have come. To be called when what they have brought has left, and is kept: a packet that comes
    /// again is then wanted, or known by its number.
    pub(in crate::process) fn keep_positions(&mut self, page: &mut Page) {
        while let Some(transport) = self.unkept.pop() {
            let Some(Some(entry)) = self.transports.get_mut(transport.0 as usize) else {
                continue;
            };
            entry.is_unkept = false;
            if let Some(inbound) = &mut entry.inbound {
                entry.kept.keep_positions(page, entry.id, inbound);
            }
        }
    }

    /// What is kept of a transport is not enough for a successor, which must not find it.
    pub(in crate::process) fn forget_kept(&mut self, io: &mut IoContext<'_, impl Shell>, transport: TransportIx) {
        if let Some(Some(entry)) = self.transports.get_mut(transport.0 as usize) {
            // The place is somebody else's then.
            io.egress.forget_rtcp_count(transport);
            entry.kept.forget(io.relay.page_mut());
        }
    }

    /// Goes on with a transport that is in its place: sends what it has to, and says how it stands, which nobody may have been told.
    pub(super) fn go_on(&mut self, now: Time, io: &mut IoContext<'_, impl Shell>, transport: TransportIx, rest: Rest) {
        let Some(Some(entry)) = self.transports.get_mut(transport.0 as usize) else {
            return;
        };
        let id = entry.id;
        if let Some((inbound, outbound)) = rest.srtp() {
            entry.use_srtp(io, transport, inbound, outbound);
        }
        if entry.transport.selected_tuple().is_none() {
            // A socket may have been left connected to where the peer was.
            let _ = io.egress.select(transport, None);
        }
        for (tuple, datagram) in &rest.datagrams {
            let _ = io.egress.send_to(transport, *tuple, datagram);
        }
        if entry.registration.is_some() {
            for tuple in entry.transport.tuples() {
                self.shared_ports.note_tuple(transport, tuple);
            }
        }
        let (ice, dtls) = (entry.transport.ice_state(), entry.transport.dtls_state());
        if ice != State::New {
            let notifications = [
                Notification::IceSelectedTupleChanged {
                    transport: id,
                    tuple: entry.transport.selected_tuple().copied(),
                },
                Notification::IceStateChanged {
                    transport: id,
                    state: ice,
                    failure: entry.ice_failure(),
                },
            ];
            self.notifications.extend(notifications);
        }
        if dtls != DtlsState::New && !rest.events.iter().any(|event| matches!(event, Event::Dtls(_))) {
            self.notifications.push_back(Notification::DtlsStateChanged {
                transport: id,
                state: dtls,
                remote_certificate_pem: rest.remote_certificate_pem(),
                failure: None,
            });
        }
        let tuples: Vec<_> = entry.transport.tuples().collect();
        self.events.extend(rest.events);
        self.with(now, io, transport, |entry, output, _| {
            entry.transport.handle_events(now, output);
            // A connection has ended with the process that had it.
            let tcp = |tuple: &&IceTuple| tuple.protocol == IceProtocol::Tcp;
            for tuple in tuples.iter().filter(tcp) {
                if !output.egress.sockets.has_connection(transport, *tuple) {
                    entry.transport.handle_connection_closed(now, tuple, output);
                }
            }
        });
    }
}
