//! What of a WebRTC transport is kept in the [page](crate::page), and what a successor finds there: everything that its peer has agreed
//! on with it, so that the peer notices nothing.
//!
//! What follows from the transport's events is kept with them. How far the peer's packets have come is kept when all that they brought
//! has left and that is kept, too: a packet that comes again is either wanted, or known by its number. The
//! indices of what is sent are kept by those who number it, before they do.

use std::sync::Arc;

use weir_channel::id::TransportId;
use weir_channel::message::{Counts, DtlsState, IceTuple, WebRtcFailureReason};
use zeroize::Zeroize;

use crate::page::layout::Table;
use crate::page::layout::webrtc::{
    CERTIFICATE, KEYS, Overwritten, POSITIONS_MAX, Position, RemoteCertificate, SRTCP_SENT, SrtpKeys, position,
};
use crate::page::predecessor::{Damaged, Predecessor};
use crate::page::{Counter, Page, Slot};
use crate::time::Time;

use super::dtls::{Context, certificate};
use super::ice::Credentials;
use super::residue::without_residue;
use super::srtp::{Inbound, KeyingMaterial, MasterKey, Outbound, Profile};
use super::transport::{Event, TransportOutput, WebRtcTransport};

/// SSRCs that one peer may use in a session: as many as it can be sent. Of those that it does not use any more, an index
/// each is kept.
pub const PEER_SSRCS_MAX: usize = 1 << 16;

/// Where a transport is kept.
#[derive(Debug, Default)]
pub struct Kept {
    /// Its own slot, and those for the positions of many SSRCs.
    slots: Vec<Slot>,
    /// By the numbers of their positions.
    ssrcs: Vec<u32>,
}

/// What the last worker has left of a transport.
#[derive(Debug)]
pub struct Legacy {
    transport: WebRtcTransport,
    failures: Counts<WebRtcFailureReason>,
    keys: Option<KeyingMaterial>,
    /// Of SRTCP packets sent.
    srtcp_next: u64,
    /// Each SSRC with its next indices, SRTP and SRTCP.
    positions: Vec<(u32, u64, u64)>,
    certificate: Option<RemoteCertificate>,
    /// What it has to say.
    said: Said,
}

/// What a transport says before it has sockets.
#[derive(Default, Debug)]
struct Said {
    datagrams: Vec<(IceTuple, Vec<u8>)>,
    events: Vec<Event>,
}

impl TransportOutput for Said {
    fn send(&mut self, tuple: &IceTuple, datagram: &[u8]) {
        self.datagrams.push((*tuple, datagram.to_vec()));
    }

    fn on_event(&mut self, event: Event) {
        self.events.push(event);
    }
}

impl Kept {
    fn slot(&self) -> Slot {
        self.slots.first().copied().unwrap_or(Slot::NONE)
    }

    /// Takes a slot. Until the transport has been kept in it, nothing is there.
    pub fn begin(page: &mut Page, id: TransportId) -> Self {
        Self {
            slots: vec![page.take(Table::WebRtc, id.0, 0)],
            ssrcs: Vec::new(),
        }
    }

    /// Nothing is kept any more, and nothing is left of what was.
    pub fn forget(&mut self, page: &mut Page) {
        for slot in self.slots.drain(..) {
            page.wipe(Table::WebRtc, slot);
        }
    }

    /// Keeps how far an SSRC's packets have come.
    fn keep_position(&mut self, page: &mut Page, id: TransportId, (ssrc, rtp_next, rtcp_next): (u32, u64, u64)) {
        if self.slot().is_none() {
            return;
        }
        let known = self.ssrcs.iter().position(|known| *known == ssrc);
        let number = known.unwrap_or(self.ssrcs.len());
        if number >= POSITIONS_MAX {
            return;
        }
        let (place, at) = position(number);
        while self.slots.len() <= place {
            let detail = self.slots.len() as u64;
            self.slots.push(page.take(Table::WebRtc, id.0, detail));
        }
        if known.is_none() {
            self.ssrcs.push(ssrc);
        }
        // The word that says that it is there is the first one of the record, and what it is about must be there before.
        let record = Position::new(ssrc, rtp_next, rtcp_next);
        page.store_last_first(self.slots[place], at, &record);
    }

    /// Keeps how far the peer's packets have come of which something is new.
    pub fn keep_positions(&mut self, page: &mut Page, id: TransportId, inbound: &mut Inbound) {
        inbound.drain_news(|ssrc, rtp_next, rtcp_next| self.keep_position(page, id, (ssrc, rtp_next, rtcp_next)));
    }

    /// Keeps what a handshake has agreed on, whatever ends it, and the peer's certificate in DER.
    pub fn keep_keys(&self, page: &Page, keys: &KeyingMaterial, transport: &WebRtcTransport, certificate: &[u8]) {
        let slot = self.slot();
        if slot.is_none() {
            return;
        }
        transport.keep_last_flight(page, slot);
        let mut record = RemoteCertificate::default();
        if let Some(place) = record.der.get_mut(..certificate.len()) {
            place.copy_from_slice(certificate);
            record.len = certificate.len() as u16;
            page.store_sealed(slot, CERTIFICATE, &record, || ());
        }
        keep_keys(page, slot, keys);
    }

    /// There are no keys any more; nothing is left of them.
    pub fn wipe_keys(&self, page: &Page, transport: &WebRtcTransport) {
        transport.keep_dtls_progress(page, self.slot());
        page.wipe_sealed(self.slot(), KEYS);
    }

    /// Keeps all else.
    pub fn keep(&self, page: &Page, transport: &WebRtcTransport, failures: &Counts<WebRtcFailureReason>) {
        transport.keep(page, self.slot(), failures);
    }

    /// Where the number of SRTCP packets is kept.
    pub fn rtcp_counter(&self, page: &Page) -> Counter {
        page.counter(self.slot(), SRTCP_SENT)
    }
}

/// What is still to be done for a transport when it is in its place.
#[derive(Debug)]
pub struct Rest {
    keys: Option<KeyingMaterial>,
    srtcp_next: u64,
    positions: Vec<(u32, u64, u64)>,
    certificate: Option<RemoteCertificate>,
    /// What is to be sent.
    pub datagrams: Vec<(IceTuple, Vec<u8>)>,
    /// What has changed.
    pub events: Vec<Event>,
}

impl Rest {
    /// What unprotects the peer's packets and protects those for it, if it is connected.
    pub fn srtp(&self) -> Option<(Inbound, Outbound)> {
        let keys = self.keys.as_ref()?;
        let mut inbound = Inbound::new(&keys.inbound, PEER_SSRCS_MAX);
        for (ssrc, rtp_next, rtcp_next) in &self.positions {
            // There are fewer of them than it takes.
            let _ = inbound.resume_rtp(*ssrc, *rtp_next);
            let _ = inbound.resume_rtcp(*ssrc, *rtcp_next);
        }
        // Whose consumers are made again say how far their packets are numbered.
        Some((inbound, Outbound::resume(&keys.outbound, self.srtcp_next, [])))
    }

    /// The peer's certificate in PEM, if it was not too long to be kept.
    pub fn remote_certificate_pem(&self) -> Option<String> {
        let kept = self.certificate.as_ref()?;
        kept.der.get(..usize::from(kept.len)).map(certificate::to_pem)
    }
}

impl Legacy {
    /// Reads what a page has of a transport; `None`: nothing.
    ///
    /// # Errors
    /// It cannot be true.
    pub fn read(
        now: Time,
        page: &Predecessor,
        id: TransportId,
        credentials: &Credentials,
        context: &Arc<Context>,
    ) -> Result<Option<Self>, Damaged> {
        let Some(slot) = page.find(Table::WebRtc, id.0, 0) else {
            return Ok(None);
        };
        let mut said = Said::default();
        let context = Arc::clone(context);
        let resumed = WebRtcTransport::resume(now, credentials, context, (page, slot), &mut said)?;
        let Some((mut transport, failures)) = resumed else {
            return Ok(None);
        };
        transport.handle_events(now, &mut said);
        let keys = match transport.dtls_state() {
            DtlsState::Connected => {
                let mut read = Ok(None);
                without_residue(|| read = read_keys(page, slot));
                read?
            }
            _ => None,
        };
        let mut positions = Vec::new();
        for number in 0..POSITIONS_MAX {
            let (detail, at) = position(number);
            let Some(slot) = page.find(Table::WebRtc, id.0, detail as u64) else {
                break;
            };
            let read = page.record(slot, at).read();
            match read.map_err(|Overwritten| Damaged("how far packets have come is no index"))? {
                Some(position) => positions.push(position),
                None => break,
            }
        }
        Ok(Some(Self {
            transport,
            failures,
            keys,
            srtcp_next: page.double(slot, SRTCP_SENT)?.unwrap_or(0),
            positions,
            certificate: page.sealed(slot, CERTIFICATE)?,
            said,
        }))
    }

    /// Takes a slot of one's own for it, and keeps everything there.
    pub fn keep(self, page: &mut Page, id: TransportId) -> (WebRtcTransport, Counts<WebRtcFailureReason>, Kept, Rest) {
        let mut kept = Kept::begin(page, id);
        let slot = kept.slot();
        for position in &self.positions {
            kept.keep_position(page, id, *position);
        }
        if self.srtcp_next > 0 {
            page.store_double(slot, SRTCP_SENT, self.srtcp_next);
        }
        if let Some(certificate) = &self.certificate {
            page.store_sealed(slot, CERTIFICATE, certificate, || ());
        }
        self.transport.keep_last_flight(page, slot);
        if let Some(keys) = &self.keys {
            keep_keys(page, slot, keys);
        }
        // This last: it makes the record whole.
        self.transport.keep(page, slot, &self.failures);
        let rest = Rest {
            keys: self.keys,
            srtcp_next: self.srtcp_next,
            positions: self.positions,
            certificate: self.certificate,
            datagrams: self.said.datagrams,
            events: self.said.events,
        };
        (self.transport, self.failures, kept, rest)
    }
}

fn keep_keys(page: &Page, slot: Slot, keys: &KeyingMaterial) {
    without_residue(|| {
        let mut record = SrtpKeys {
            profile: keys.outbound.profile().id(),
            ..SrtpKeys::default()
        };
        for (place, key) in [&keys.outbound, &keys.inbound].into_iter().enumerate() {
            record.keys[place][..key.key().len()].copy_from_slice(key.key());
            record.salts[place] = *key.salt();
        }
        page.store_sealed(slot, KEYS, &record, || ());
        record.keys.zeroize();
        record.salts.zeroize();
    });
}

fn read_keys(page: &Predecessor, slot: Slot) -> Result<Option<KeyingMaterial>, Damaged> {
    let Some(mut record) = page.sealed::<SrtpKeys>(slot, KEYS)? else {
        return Ok(None);
    };
    let profile = Profile::from_id(record.profile).ok_or(Damaged("its SRTP profile is none"))?;
    let key = |place: usize| {
        let (key, salt) = (&record.keys[place], &record.salts[place]);
        MasterKey::new(profile, &key[..profile.key_len()], &salt[..profile.salt_len()])
    };
    let keys = key(0)
        .zip(key(1))
        .map(|(outbound, inbound)| KeyingMaterial { outbound, inbound });
    record.keys.zeroize();
    record.salts.zeroize();
    Ok(keys)
}
