//! DTLS by OpenSSL, for peers whose certificates have RSA keys.
//!
//! OpenSSL reads the system's clock by itself, and sends a flight again a second after the last time, then after two, and so on;
//! the bindings let nobody change that. So its timers are polled while a handshake goes on, and a lost datagram costs
//! a second where it costs dimpl's peers 200 ms. It speaks DTLS 1.2 alone, as OpenSSL 3 has no other.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::sync::OnceLock;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::pkey::PKey;
use openssl::rand::rand_bytes;
use openssl::srtp::SrtpProfileId;
use openssl::ssl::{
    ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslOptions, SslStream, SslVerifyMode, SslVersion,
};
use openssl::x509::X509;

use crate::time::Time;
use crate::webrtc::dtls::Role;
use crate::webrtc::dtls::certificate::Certificate;
use crate::webrtc::dtls::keys::{SrtpKeys, SrtpProfile};
use crate::webrtc::dtls::session::{DATAGRAMS_HELD_MAX, Failure, HANDSHAKE_TIME_MAX, MTU_BYTES, Settings};

use super::{Engine, Output};

/// Between two looks at OpenSSL's timers.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Forward secrecy and authenticated encryption, for certificates of either kind; the last two are for gear without GCM.
const CIPHERS: &str = "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE-ECDSA-AES128-SHA:ECDHE-RSA-AES128-SHA";

/// What protects media, the one we like best first.
const SRTP_PROFILES: &str = "SRTP_AEAD_AES_256_GCM:SRTP_AEAD_AES_128_GCM:SRTP_AES128_CM_SHA1_80";

/// RFC 5764 §4.2.
const EXPORTER_LABEL: &str = "EXTRACTOR-dtls_srtp";

/// OpenSSL's reason for an alert of the peer's is this and the alert's number.
const ALERT_REASON_OFFSET: i32 = 1_000;

/// The most bytes of what a peer sends after the handshake that are taken at once, which nobody reads.
const DATA_BYTES: usize = 2_048;

pub(in crate::webrtc::dtls) struct Shared {
    /// An error is told by every session: a worker without DTLS still relays plain RTP.
    context: Result<SslContext, ErrorStack>,
}

impl Shared {
    pub(super) fn new(certificate: &Certificate, settings: Settings) -> Self {
        let context = context(certificate, settings);
        if let Err(error) = &context {
            tracing::error!(%error, "OpenSSL refuses our certificate or settings, and no WebRTC transport will connect");
        }
        Self { context }
    }

    pub(super) fn engine(&self, now: Time, role: Role) -> Result<Box<dyn Engine>, Failure> {
        let context = self.context.as_ref().map_err(|_| Failure::Protocol)?;
        let engine = OpenSsl::new(context, now, role).map_err(|_| Failure::Protocol)?;
        Ok(Box::new(engine))
    }
}

fn context(certificate: &Certificate, settings: Settings) -> Result<SslContext, ErrorStack> {
    let mut context = SslContextBuilder::new(SslMethod::dtls())?;
    context.set_min_proto_version(Some(SslVersion::DTLS1_2))?;
    context.set_cipher_list(CIPHERS)?;
    context.set_tlsext_use_srtp(SRTP_PROFILES)?;
    let x509 = X509::from_der(certificate.der())?;
    context.set_certificate(&x509)?;
    let key = PKey::private_key_from_der(certificate.private_key())?;
    context.set_private_key(&key)?;
    context.check_private_key()?;
    context.set_options(SslOptions::NO_QUERY_MTU | SslOptions::NO_TICKET | SslOptions::NO_RENEGOTIATION);
    // Nobody has signed it, and nobody need to: the session compares its fingerprint. That the peer has its key is OpenSSL's to see.
    context.set_verify_callback(SslVerifyMode::PEER | SslVerifyMode::FAIL_IF_NO_PEER_CERT, |_, _| true);
    if settings.cookies {
        context.set_options(SslOptions::COOKIE_EXCHANGE);
        context.set_cookie_generate_cb(|ssl, buffer| {
            let cookie = ssl.ex_data(cookie_index()?).ok_or_else(ErrorStack::get)?;
            buffer[..cookie.len()].copy_from_slice(cookie);
            Ok(cookie.len())
        });
        context.set_cookie_verify_cb(|ssl, cookie| {
            cookie_index().is_ok_and(|index| {
                ssl.ex_data(index)
                    .is_some_and(|ours| ours.len() == cookie.len() && openssl::memcmp::eq(ours, cookie))
            })
        });
    }
    Ok(context.build())
}

/// A session's cookie: drawn anew for each, and for one address only, because a session is.
type Cookie = [u8; 20];

/// Where OpenSSL keeps a session's cookie for us.
fn cookie_index() -> Result<Index<Ssl, Cookie>, ErrorStack> {
    static INDEX: OnceLock<Result<Index<Ssl, Cookie>, ErrorStack>> = OnceLock::new();
    INDEX.get_or_init(Ssl::new_ex_index).clone()
}

/// The wire as OpenSSL sees it: a read takes one datagram, a write makes one.
#[derive(Default)]
struct Wire {
    incoming: Option<Vec<u8>>,
    outgoing: VecDeque<Vec<u8>>,
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let datagram = self.incoming.take().ok_or(io::ErrorKind::WouldBlock)?;
        let length = datagram.len().min(buffer.len());
        buffer[..length].copy_from_slice(&datagram[..length]);
        Ok(length)
    }
}

impl Write for Wire {
    fn write(&mut self, datagram: &[u8]) -> io::Result<usize> {
        // More than a flight has: somebody makes us send without ever answering. What is lost is sent again.
        if self.outgoing.len() < DATAGRAMS_HELD_MAX {
            self.outgoing.push_back(datagram.to_vec());
        }
        Ok(datagram.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct OpenSsl {
    stream: SslStream<Wire>,
    role: Role,
    now: Time,
    /// When the handshake began: for a server, with the peer's first datagram.
    begun: Option<Time>,
    finished: bool,
    /// What is to be given before any datagram.
    certificate: Option<Vec<u8>>,
    certificate_given: bool,
    outputs: VecDeque<Event>,
}

enum Event {
    Finished,
    Keys(Option<SrtpKeys>),
    Goodbye,
}

impl OpenSsl {
    fn new(context: &SslContext, now: Time, role: Role) -> Result<Self, ErrorStack> {
        let mut ssl = Ssl::new(context)?;
        ssl.set_mtu(MTU_BYTES as u32)?;
        let mut cookie = Cookie::default();
        rand_bytes(&mut cookie)?;
        ssl.set_ex_data(cookie_index()?, cookie);
        match role {
            Role::Client => ssl.set_connect_state(),
            Role::Server => ssl.set_accept_state(),
        }
        Ok(Self {
            stream: SslStream::new(ssl, Wire::default())?,
            role,
            now,
            begun: None,
            finished: false,
            certificate: None,
            certificate_given: false,
            outputs: VecDeque::new(),
        })
    }

    /// Goes as far as it gets.
    fn advance(&mut self) -> Result<(), Failure> {
        if !self.finished {
            let result = self.stream.do_handshake();
            if !self.certificate_given
                && let Some(certificate) = self.stream.ssl().peer_certificate()
            {
                self.certificate = certificate.to_der().ok();
                self.certificate_given = true;
            }
            match result {
                Ok(()) => {
                    self.finished = true;
                    let keys = self.keys();
                    self.outputs.extend([Event::Finished, Event::Keys(keys)]);
                }
                Err(error) if error.code() == ErrorCode::WANT_READ => return Ok(()),
                Err(error) => return Err(failure(&error)),
            }
        }
        // What comes now are goodbyes, and last flights once more, which OpenSSL answers. Data is for nobody.
        let mut data = [0; DATA_BYTES];
        loop {
            match self.stream.ssl_read(&mut data) {
                Ok(_) => {}
                Err(error) if error.code() == ErrorCode::WANT_READ => return Ok(()),
                Err(error) if error.code() == ErrorCode::ZERO_RETURN => {
                    self.outputs.push_back(Event::Goodbye);
                    return Ok(());
                }
                Err(error) => return Err(failure(&error)),
            }
        }
    }

    fn keys(&self) -> Option<SrtpKeys> {
        let ssl = self.stream.ssl();
        let profile = profile_of(ssl.selected_srtp_profile()?.id())?;
        let mut material = zeroize::Zeroizing::new(vec![0; 2 * (profile.key_len() + profile.salt_len())]);
        ssl.export_keying_material(&mut material, EXPORTER_LABEL, None).ok()?;
        SrtpKeys::from_exported(profile, &material, self.role)
    }
}

impl Engine for OpenSsl {
    fn handle_datagram(&mut self, datagram: &[u8]) -> Result<(), Failure> {
        self.begun.get_or_insert(self.now);
        self.stream.get_mut().incoming = Some(datagram.to_vec());
        self.advance()
    }

    fn handle_time(&mut self, now: Time) -> Result<(), Failure> {
        self.now = now;
        if self.finished {
            return Ok(());
        }
        if self.role == Role::Client {
            self.begun.get_or_insert(now);
        }
        match self.begun {
            Some(begun) if now.since(begun) >= HANDSHAKE_TIME_MAX => Err(Failure::Timeout),
            Some(_) => self.advance(),
            None => Ok(()),
        }
    }

    fn poll<'a>(&mut self, buffer: &'a mut [u8]) -> Output<'a> {
        // The certificate before what answers it, and that before what tells that it is over.
        if let Some(certificate) = &self.certificate {
            if certificate.len() > buffer.len() {
                return Output::NeedsRoom(certificate.len());
            }
            let length = certificate.len();
            buffer[..length].copy_from_slice(certificate);
            self.certificate = None;
            return Output::Certificate(&buffer[..length]);
        }
        if let Some(datagram) = self.stream.get_mut().outgoing.pop_front() {
            let length = datagram.len();
            if length > buffer.len() {
                self.stream.get_mut().outgoing.push_front(datagram);
                return Output::NeedsRoom(length);
            }
            buffer[..length].copy_from_slice(&datagram);
            return Output::Datagram(&buffer[..length]);
        }
        match self.outputs.pop_front() {
            Some(Event::Finished) => Output::Finished,
            Some(Event::Keys(keys)) => Output::Keys(keys),
            Some(Event::Goodbye) => Output::Goodbye,
            None => Output::Idle((self.begun.is_some() && !self.finished).then(|| self.now + POLL_INTERVAL)),
        }
    }

    fn close(&mut self) -> Result<(), Failure> {
        self.stream.shutdown().map(drop).map_err(|error| failure(&error))
    }
}

impl fmt::Debug for OpenSsl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("OpenSsl")
            .field("role", &self.role)
            .field("state", &self.stream.ssl().state_string_long())
            .finish_non_exhaustive()
    }
}

/// What an error of OpenSSL's means for a session: an alert of the peer's, or that the two do not understand each other.
fn failure(error: &openssl::ssl::Error) -> Failure {
    let reasons = error.ssl_error().map_or(&[][..], ErrorStack::errors);
    reasons
        .iter()
        .filter_map(|error| u8::try_from(error.reason_code() - ALERT_REASON_OFFSET).ok())
        .map(Failure::Alert)
        .next()
        .unwrap_or(Failure::Protocol)
}

/// Our name of a profile; `None` for one that was not offered.
fn profile_of(profile: SrtpProfileId) -> Option<SrtpProfile> {
    match profile {
        SrtpProfileId::SRTP_AEAD_AES_256_GCM => Some(SrtpProfile::AeadAes256Gcm),
        SrtpProfileId::SRTP_AEAD_AES_128_GCM => Some(SrtpProfile::AeadAes128Gcm),
        SrtpProfileId::SRTP_AES128_CM_SHA1_80 => Some(SrtpProfile::Aes128CmSha1_80),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
