//! DTLS 1.2 (RFC 6347), as much of it as DTLS-SRTP needs: a full handshake with ephemeral keys, certificates of any kind that peers
//! have, and a goodbye. No sessions taken up again, no renegotiation, no application data.
//!
//! The ciphers, signatures and key exchanges are aws-lc's; bytes, order and time are ours. What a peer sends may be cut into
//! fragments in any way ([`reassembly`]); what we send is repeated until it is answered ([`flight`]).
//!
//! Invariant: no keys leave an engine before its peer has signed the handshake with the key of the certificate that was given
//! out, and has said in the right Finished message that it has the keys.

mod client;
mod exchange;
mod flight;
mod message;
mod reassembly;
mod record;
mod schedule;
mod server;
mod suite;
mod wire;

use std::collections::VecDeque;
use std::sync::Arc;

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::time::Time;
use crate::webrtc::dtls::Role;
use crate::webrtc::dtls::certificate::Certificate;
use crate::webrtc::dtls::failure::Failure;
use crate::webrtc::dtls::settings::{HANDSHAKE_SILENCE_MAX, HANDSHAKE_TIME_MAX, Settings};
use crate::webrtc::dtls::signature::{PublicKey, Signer};
use crate::webrtc::entropy::{Entropy as _, SystemEntropy};
use crate::webrtc::srtp::Profile;

use self::exchange::Exchange;
use self::flight::{Flight, Item, Repeat};
use self::message::{Kind, RANDOM_LEN};
use self::reassembly::{Added, Message, Reassembly};
use self::record::{Content, Record, RecordLayer, Unprotected};
use self::schedule::{MasterSecret, Randoms};
use self::suite::Suite;

use super::{Engine, Output};

/// The longest datagram that is taken: no path carries longer ones. Certificates that need more come in fragments.
const DATAGRAM_BYTES_MAX: usize = 16_384;

/// Records that are kept until their keys are known: a Finished message that overtook what comes before it.
const EARLY_RECORDS_MAX: usize = 4;

/// The longest record of those, in bytes.
const EARLY_RECORD_LEN_MAX: usize = 256;

/// What the engines of a worker share.
#[derive(Debug)]
pub(in crate::webrtc::dtls) struct Shared {
    certificate: Vec<u8>,
    signer: Arc<Signer>,
    cookies: bool,
    /// Hellos of clients that speak DTLS 1.3 are for somebody else.
    passes_on_1_3: bool,
}

impl Shared {
    /// `passes_on_1_3`: clients that speak DTLS 1.3 are for somebody else.
    pub(in crate::webrtc::dtls) fn new(certificate: &Certificate, settings: Settings, passes_on_1_3: bool) -> Self {
        Self {
            certificate: certificate.der().to_vec(),
            signer: certificate.signer(),
            cookies: settings.cookies,
            passes_on_1_3,
        }
    }

    pub(in crate::webrtc::dtls) fn engine(self: &Arc<Self>, now: Time, role: Role) -> Box<dyn Engine> {
        Box::new(Dtls12::new(Arc::clone(self), now, role))
    }
}

/// What is waited for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Awaited {
    /// A client that has not begun waits for the time.
    Start,
    ServerHello,
    ServerCertificate,
    ServerKeyExchange,
    /// Or a CertificateRequest before it, whose signatures are kept.
    ServerHelloDone(Option<Vec<u16>>),
    ClientHello,
    ClientCertificate,
    ClientKeyExchange,
    CertificateVerify,
    Finished,
    /// Nothing: it has finished.
    Goodbye,
    /// Nothing: it has ended.
    Nothing,
}

/// What is known while a handshake goes on.
#[derive(Debug)]
struct Handshake {
    /// All messages so far, as if each had come in one fragment (RFC 6347 §4.2.6).
    transcript: Vec<u8>,
    randoms: Randoms,
    suite: &'static Suite,
    srtp_profile: Option<Profile>,
    extended_master_secret: bool,
    exchange: Option<Exchange>,
    /// The server's half of it, until the client's is made.
    peer_public: Vec<u8>,
    peer_key: Option<PublicKey>,
    master_secret: Option<MasterSecret>,
}

impl Handshake {
    fn new() -> Self {
        Self {
            transcript: Vec::new(),
            randoms: Randoms {
                client: [0; RANDOM_LEN],
                server: [0; RANDOM_LEN],
            },
            suite: &suite::SUITES[0],
            srtp_profile: None,
            extended_master_secret: false,
            exchange: None,
            peer_public: Vec::new(),
            peer_key: None,
            master_secret: None,
        }
    }

    fn note(&mut self, kind: Kind, number: u16, body: &[u8]) {
        message::put_fragment(&mut self.transcript, kind, number, body, 0..body.len());
    }

    /// What the peer's signature over the two halves of the key exchange covers.
    fn signed_parameters(&self, parameters: &[u8]) -> Vec<u8> {
        [&self.randoms.client[..], &self.randoms.server, parameters].concat()
    }

    /// Ends the key exchange, when the transcript has the client's half of it.
    fn agree(&mut self, public: &[u8]) -> Result<(), Failure> {
        let exchange = self.exchange.take().ok_or(Failure::Internal)?;
        let premaster = exchange.agree(public)?;
        let transcript = self.extended_master_secret.then_some(&self.transcript[..]);
        self.master_secret = Some(MasterSecret::new(self.suite, self.randoms, &premaster, transcript)?);
        Ok(())
    }

    fn peer_key(&self) -> Result<&PublicKey, Failure> {
        self.peer_key.as_ref().ok_or(Failure::UnsupportedCertificate)
    }

    fn master_secret(&self) -> Result<&MasterSecret, Failure> {
        self.master_secret.as_ref().ok_or(Failure::Internal)
    }
}

/// One end of a connection.
#[derive(Debug)]
struct Dtls12 {
    shared: Arc<Shared>,
    role: Role,
    now: Time,
    /// When the handshake began: a server's with the first datagram.
    begun: Option<Time>,
    /// When it has failed, unless the peer says something.
    deadline: Option<Time>,
    awaited: Awaited,
    records: RecordLayer,
    reassembly: Reassembly,
    /// Records whose keys are not known yet.
    early: Vec<Vec<u8>>,
    /// The number of our next message.
    number: u16,
    flight: Option<Flight>,
    /// Gone when the handshake has ended.
    handshake: Box<Handshake>,
    cookie: [u8; 20],
    outputs: VecDeque<Output>,
    /// The peer's certificate has been given out, and nothing happens until it was looked at.
    awaits_verdict: bool,
    /// What we say now is protected.
    writes_protected: bool,
}

impl Dtls12 {
    fn new(shared: Arc<Shared>, now: Time, role: Role) -> Self {
        let mut cookie = [0; 20];
        SystemEntropy::new().fill(&mut cookie);
        Self {
            shared,
            role,
            now,
            begun: None,
            deadline: None,
            awaited: match role {
                Role::Client => Awaited::Start,
                Role::Server => Awaited::ClientHello,
            },
            records: RecordLayer::default(),
            reassembly: Reassembly::default(),
            early: Vec::new(),
            number: 0,
            flight: None,
            handshake: Box::new(Handshake::new()),
            cookie,
            outputs: VecDeque::new(),
            awaits_verdict: false,
            writes_protected: false,
        }
    }

    /// The handshake goes on.
    fn note_sign_of_life(&mut self) {
        let begun = *self.begun.get_or_insert(self.now);
        self.deadline = Some((self.now + HANDSHAKE_SILENCE_MAX).min(begun + HANDSHAKE_TIME_MAX));
    }

    fn on_record(&mut self, record: &Record<'_>, is_repetition: &mut bool) -> Result<(), Failure> {
        match self.records.unprotect(record) {
            Unprotected::Content(content) => self.on_content(record.content, record.epoch, &content, is_repetition),
            Unprotected::Early => {
                if self.early.len() < EARLY_RECORDS_MAX && record.fragment.len() <= EARLY_RECORD_LEN_MAX {
                    self.early.push(record.to_bytes());
                }
                Ok(())
            }
            Unprotected::Nothing => Ok(()),
        }
    }

    fn on_content(
        &mut self,
        content: Content,
        epoch: u16,
        bytes: &[u8],
        is_repetition: &mut bool,
    ) -> Result<(), Failure> {
        match content {
            // The epoch of what follows says the same, and proves it.
            Content::ChangeCipherSpec => Ok(()),
            Content::Alert => self.on_alert(epoch, bytes),
            Content::Handshake => {
                for fragment in reassembly::fragments(bytes) {
                    // When we have finished, the peer has nothing new to say.
                    if self.awaited == Awaited::Goodbye {
                        *is_repetition |= self.reassembly.is_repetition(&fragment);
                        continue;
                    }
                    let added = self.reassembly.add(epoch, &fragment)?;
                    *is_repetition |= added == Added::Repeated;
                    // Who says again what comes after the hellos has heard us, and tries to go on.
                    const HELLOS: [u8; 2] = [Kind::ClientHello as u8, Kind::HelloVerifyRequest as u8];
                    if added == Added::New || !HELLOS.contains(&fragment.kind) {
                        self.note_sign_of_life();
                    }
                }
                Ok(())
            }
        }
    }

    /// RFC 5246 §7.2.
    fn on_alert(&mut self, epoch: u16, bytes: &[u8]) -> Result<(), Failure> {
        const FATAL: u8 = 2;
        const CLOSE_NOTIFY: u8 = 0;
        let has_finished = self.awaited == Awaited::Goodbye;
        match *bytes {
            // Anybody who can write the peer's address could have said it.
            _ if has_finished && epoch == 0 => Ok(()),
            [_, CLOSE_NOTIFY] if has_finished => {
                self.outputs.push_back(Output::Goodbye);
                Ok(())
            }
            [_, CLOSE_NOTIFY] => Err(Failure::Alert(CLOSE_NOTIFY)),
            [FATAL, description] => Err(Failure::Alert(description)),
            _ => Ok(()),
        }
    }

    /// Goes as far as the peer's messages reach; whether that is any further.
    fn advance(&mut self) -> Result<bool, Failure> {
        let mut has_advanced = false;
        while !self.awaits_verdict {
            let Some(message) = self.reassembly.take()? else {
                break;
            };
            self.on_message(message)?;
            has_advanced = true;
        }
        if self.records.is_protected() && !self.early.is_empty() {
            for early in std::mem::take(&mut self.early) {
                for record in record::records(&early) {
                    self.on_record(&record, &mut false)?;
                }
            }
            has_advanced |= self.advance()?;
        }
        Ok(has_advanced)
    }

    fn on_message(&mut self, message: Message) -> Result<(), Failure> {
        let Message { kind, number, body } = message;
        match kind {
            // Each notes its message itself: what it says and hashes is what came before.
            Kind::ClientHello => return self.on_client_hello(number, &body),
            Kind::HelloVerifyRequest => return self.on_hello_verify_request(&body),
            Kind::CertificateVerify => self.on_certificate_verify(&body)?,
            Kind::Finished => return self.on_finished(number, &body),
            _ => {}
        }
        self.handshake.note(kind, number, &body);
        match kind {
            Kind::ServerHello => self.on_server_hello(&body),
            Kind::Certificate => self.on_certificate(&body),
            Kind::ServerKeyExchange => self.on_server_key_exchange(&body),
            Kind::CertificateRequest => self.on_certificate_request(&body),
            Kind::ServerHelloDone => self.on_server_hello_done(&body),
            Kind::ClientKeyExchange => self.on_client_key_exchange(&body),
            Kind::CertificateVerify => Ok(()),
            // Nobody has asked for a ticket.
            _ => Err(Failure::Protocol),
        }
    }

    /// Goes on to the next message, if this one was waited for.
    fn expect(&mut self, awaited: &Awaited, next: Awaited) -> Result<(), Failure> {
        if self.awaited != *awaited {
            return Err(Failure::Protocol);
        }
        self.awaited = next;
        Ok(())
    }

    fn on_certificate(&mut self, body: &[u8]) -> Result<(), Failure> {
        match self.role {
            Role::Client => self.expect(&Awaited::ServerCertificate, Awaited::ServerKeyExchange)?,
            Role::Server => self.expect(&Awaited::ClientCertificate, Awaited::ClientKeyExchange)?,
        }
        let der = message::read_certificate(body)?;
        self.outputs.push_back(Output::Certificate(der.to_vec()));
        self.awaits_verdict = true;
        // Whether it is whose we wait for comes first.
        self.handshake.peer_key = PublicKey::of_certificate(der).ok();
        Ok(())
    }

    /// The peer has the keys, and has seen the same handshake as we.
    fn on_finished(&mut self, number: u16, body: &[u8]) -> Result<(), Failure> {
        self.expect(&Awaited::Finished, Awaited::Goodbye)?;
        let peer = match self.role {
            Role::Client => Role::Server,
            Role::Server => Role::Client,
        };
        let expected = self
            .handshake
            .master_secret()?
            .verify_data(peer, &self.handshake.transcript)?;
        verify_slices_are_equal(&expected, body).map_err(|_| Failure::Signature)?;
        self.handshake.note(Kind::Finished, number, body);
        self.flight = None;
        if self.role == Role::Server {
            self.writes_protected = true;
            let items = self.finish(Vec::new())?;
            self.send(items, Repeat::WhenAsked);
        }
        let handshake = std::mem::replace(&mut self.handshake, Box::new(Handshake::new()));
        let keys = match handshake.srtp_profile {
            Some(profile) => Some(handshake.master_secret()?.srtp_keys(profile, self.role)?),
            None => None,
        };
        self.deadline = None;
        self.reassembly.end();
        self.early = Vec::new();
        self.outputs.extend([Output::Finished, Output::Keys(keys)]);
        Ok(())
    }

    /// Adds a message of ours.
    fn say(&mut self, items: &mut Vec<Item>, kind: Kind, body: Vec<u8>) {
        self.handshake.note(kind, self.number, &body);
        items.push(Item::Handshake {
            epoch: u16::from(kind == Kind::Finished),
            kind,
            number: self.number,
            body,
        });
        self.number = self.number.wrapping_add(1);
    }

    /// Adds that we have finished.
    fn finish(&mut self, mut items: Vec<Item>) -> Result<Vec<Item>, Failure> {
        items.push(Item::ChangeCipherSpec);
        let data = self
            .handshake
            .master_secret()?
            .verify_data(self.role, &self.handshake.transcript)?;
        self.say(&mut items, Kind::Finished, data.to_vec());
        Ok(items)
    }

    /// Begins a flight.
    fn send(&mut self, items: Vec<Item>, repeat: Repeat) {
        self.flight = Some(Flight::new(items, repeat));
        self.send_again(false);
    }

    fn send_again(&mut self, timer_fired: bool) {
        if let Some(flight) = &mut self.flight {
            let outputs = &mut self.outputs;
            flight.send(self.now, timer_fired, &mut self.records, |datagram| {
                outputs.push_back(Output::Datagram(datagram));
            });
        }
    }

    fn alert(&mut self, level: u8, description: u8) {
        let mut datagram = Vec::new();
        let epoch = u16::from(self.writes_protected);
        self.records
            .write(Content::Alert, epoch, &[level, description], &mut datagram);
        self.outputs.push_back(Output::Datagram(datagram));
    }
}

impl Engine for Dtls12 {
    fn handle_datagram(&mut self, datagram: &[u8]) -> Result<(), Failure> {
        if self.awaited == Awaited::Nothing || datagram.len() > DATAGRAM_BYTES_MAX {
            return Ok(());
        }
        if self.begun.is_none() {
            self.note_sign_of_life();
        }
        let mut is_repetition = false;
        for record in record::records(datagram) {
            self.on_record(&record, &mut is_repetition)?;
        }
        // What leads on has an answer of its own.
        let has_advanced = self.advance()?;
        let asks_again = |flight: &Flight| flight.may_answer_repetition(self.now);
        if is_repetition && !has_advanced && self.flight.as_ref().is_some_and(asks_again) {
            self.send_again(false);
        }
        Ok(())
    }

    fn handle_time(&mut self, now: Time) -> Result<(), Failure> {
        self.now = now;
        if self.awaited == Awaited::Start {
            self.note_sign_of_life();
            self.say_hello(&[]);
        }
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return Err(Failure::Timeout);
        }
        if self.flight.as_ref().and_then(Flight::due).is_some_and(|due| due <= now) {
            self.send_again(true);
        }
        Ok(())
    }

    fn poll(&mut self) -> Output {
        if self.outputs.is_empty() && std::mem::take(&mut self.awaits_verdict) {
            // It was not refused.
            if let Err(failure) = self.advance() {
                return Output::Failed(failure);
            }
        }
        self.outputs.pop_front().unwrap_or_else(|| {
            let due = self.flight.as_ref().and_then(Flight::due);
            Output::Idle([due, self.deadline].into_iter().flatten().min())
        })
    }

    fn abort(&mut self, alert: u8) -> bool {
        const FATAL: u8 = 2;
        self.outputs.clear();
        self.flight = None;
        self.deadline = None;
        self.awaits_verdict = false;
        self.awaited = Awaited::Nothing;
        self.alert(FATAL, alert);
        true
    }

    fn close(&mut self) -> Result<(), Failure> {
        const WARNING: u8 = 1;
        const CLOSE_NOTIFY: u8 = 0;
        self.awaited = Awaited::Nothing;
        self.flight = None;
        self.alert(WARNING, CLOSE_NOTIFY);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
