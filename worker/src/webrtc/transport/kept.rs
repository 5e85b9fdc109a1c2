//! What is kept of a transport in the page beside its keys, and how a successor's goes on from there.

use std::sync::Arc;

use weir_channel::message::{Counts, WebRtcFailureReason};

use crate::page::layout::webrtc::{COUNTS, DTLS, DtlsProgress, FLIGHT, KEYS, REFUSALS, WebRtcCounts, progress};
use crate::page::layout::webrtc::{LastFlight as FlightRecord, SrtpKeys};
use crate::page::predecessor::{Damaged, Predecessor};
use crate::page::{Page, Slot};
use crate::time::Time;
use crate::webrtc::dtls::{self, Role, session};
use crate::webrtc::ice::{Agent, Credentials, Refusal};

use super::{IceEnd, TransportOutput, WebRtcTransport};

/// How long a peer goes on sending its part of the handshake if it does not receive the end of ours.
const FLIGHT_TIME: std::time::Duration = std::time::Duration::from_secs(60);

/// Our last flight of the handshake, if it is a single short datagram.
#[derive(Default, Debug)]
pub(super) struct LastFlight {
    sent_at: Time,
    datagram: Vec<u8>,
    datagrams: u32,
    /// The one that has sent it is dead, so that its DTLS can send it no more.
    is_resumed: bool,
}

impl LastFlight {
    pub(super) fn clear(&mut self) {
        self.datagrams = 0;
    }

    /// A part of what answers the peer was sent.
    pub(super) fn add(&mut self, now: Time, datagram: &[u8]) {
        self.datagrams += 1;
        self.sent_at = now;
        self.datagram.clear();
        self.datagram.extend_from_slice(datagram);
    }

    /// Whether it answers a datagram of a peer that has not received it.
    pub(super) fn answers(&self, now: Time, datagram: &[u8]) -> bool {
        self.is_resumed && now < self.sent_at + FLIGHT_TIME && session::is_plain_handshake(datagram)
    }

    pub(super) fn datagram(&self) -> &[u8] {
        &self.datagram
    }

    fn keep(&self, page: &Page, slot: Slot) {
        let mut record = FlightRecord::default();
        let place = record.datagram.get_mut(..self.datagram.len());
        if let (Some(place), 1) = (place, self.datagrams) {
            place.copy_from_slice(&self.datagram);
            record.len = self.datagram.len() as u16;
            record.sent_at = self.sent_at.0;
            page.store_sealed(slot, FLIGHT, &record, || ());
        }
    }

    fn resume(now: Time, record: &FlightRecord) -> Option<Self> {
        Some(Self {
            sent_at: Time(record.sent_at).min(now),
            datagram: record.datagram.get(..usize::from(record.len))?.to_vec(),
            datagrams: 1,
            is_resumed: true,
        })
    }
}

impl WebRtcTransport {
    /// Keeps all that is not kept when keys are agreed on, and counters of failures.
    pub fn keep(&self, page: &Page, slot: Slot, failures: &Counts<WebRtcFailureReason>) {
        if slot.is_none() {
            return;
        }
        self.keep_dtls_progress(page, slot);
        let counters = &self.counters;
        let counts = WebRtcCounts {
            checks: counters.checks,
            refusals: counters.refusals,
            refused: counters.refused,
            dtls: counters.dtls,
            failures: WebRtcFailureReason::ALL.map(|reason| failures.of(reason)),
        };
        page.store(slot, COUNTS, &counts);
        self.ice.keep(page, slot, self.ice_end == IceEnd::ConnectionClosed);
    }

    /// Keeps how far DTLS has got.
    pub fn keep_dtls_progress(&self, page: &Page, slot: Slot) {
        let has_begun = self.dtls_from.is_some() || self.dtls.role() == Some(Role::Client);
        let record = DtlsProgress {
            progress: match self.dtls.state() {
                dtls::State::New => progress::NEW,
                dtls::State::Connecting if has_begun => progress::SHAKING_HANDS,
                dtls::State::Connecting => progress::WAITING,
                dtls::State::Connected => progress::CONNECTED,
                dtls::State::Failed => progress::FAILED,
                dtls::State::Closed => progress::CLOSED,
            },
            role: match self.dtls.role() {
                None => 0,
                Some(Role::Client) => 1,
                Some(Role::Server) => 2,
            },
            spare: [0; 6],
        };
        page.store(slot, DTLS, &record);
    }

    /// Keeps what a peer needs that has not received the end of the handshake.
    pub fn keep_last_flight(&self, page: &Page, slot: Slot) {
        self.last_flight.keep(page, slot);
    }

    /// Goes on where a worker's transport was that is dead, with the failures that it had counted; `None`: it has left nothing. Whether
    /// there are keys is for the caller to see.
    ///
    /// # Errors
    /// What it has left cannot be true.
    pub fn resume(
        now: Time,
        credentials: &Credentials,
        context: Arc<dtls::Context>,
        (page, slot): (&Predecessor, Slot),
        output: &mut impl TransportOutput,
    ) -> Result<Option<(Self, Counts<WebRtcFailureReason>)>, Damaged> {
        let Some((ice, connection_was_closed)) = Agent::resume(now, credentials, page, slot)? else {
            return Ok(None);
        };
        let progress = page.record(slot, DTLS).progress;
        let has_keys = page.sealed::<SrtpKeys>(slot, KEYS)?.is_some();
        let state = match progress {
            progress::FAILED => dtls::State::Failed,
            progress::CLOSED => dtls::State::Closed,
            // The keys are stored before anything else says so.
            _ if has_keys => dtls::State::Connected,
            progress::CONNECTED => return Err(Damaged("its keys are not there")),
            progress::SHAKING_HANDS => dtls::State::Connecting,
            _ => dtls::State::New,
        };
        let mut transport = Self::new(credentials.clone(), context.clone());
        let to = ice.selected().copied();
        transport.dtls = dtls::Session::resume(context, state, &mut |bytes| {
            if let Some(tuple) = to {
                output.send(&tuple, bytes);
            }
        });
        transport.ice = ice;
        if connection_was_closed {
            transport.ice_end = IceEnd::ConnectionClosed;
        }
        let counts = page.counters(slot, COUNTS);
        let counters = &mut transport.counters;
        counters.checks = counts.checks;
        counters.refusals = counts.refusals;
        counters.refused = counts.refused;
        counters.dtls = counts.dtls;
        if let Some(flight) = page.sealed(slot, FLIGHT)? {
            transport.last_flight = LastFlight::resume(now, &flight).ok_or(Damaged("a flight is too long"))?;
        }
        // A peer that has begun with ICE and not with DTLS is waited for.
        if state == dtls::State::New && progress == progress::WAITING {
            transport.dtls.start(now, &mut |_| ());
        }
        let failures = WebRtcFailureReason::ALL.into_iter().zip(counts.failures).collect();
        Ok(Some((transport, failures)))
    }
}

const _: () = assert!(REFUSALS == Refusal::ALL.len(), "each reason has a place");
