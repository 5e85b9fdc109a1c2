//! The server's side of a handshake: it chooses.

use super::*;
use crate::webrtc::dtls::engine::dimpl;
use crate::webrtc::dtls::engine::dtls12::exchange::Group;
use crate::webrtc::dtls::engine::dtls12::message::{ClientHello, ServerHello, ServerKeyExchange, Signature};
use crate::webrtc::dtls::engine::dtls12::wire::DTLS_1_2;

/// The end of the random of a server that speaks DTLS 1.3 and was offered 1.2 (RFC 8446 §4.1.3).
const DOWNGRADED: [u8; 8] = *b"DOWNGRD\x01";

impl Dtls12 {
    pub(super) fn on_client_hello(&mut self, number: u16, body: &[u8]) -> Result<(), Failure> {
        let shared = Arc::clone(&self.shared);
        self.expect(&Awaited::ClientHello, Awaited::ClientHello)?;
        let offer = ClientHello::read(body)?;
        // Our messages go on from the client's: its first hello may have been answered by a request for a cookie (RFC 6347 §4.2.2).
        self.number = number;
        if offer.speaks_1_3 && shared.passes_on_1_3 {
            let hello = self.hello_datagram(number, body);
            if hello.len() > dimpl::DATAGRAM_BYTES_MAX {
                return Err(Failure::Protocol);
            }
            self.outputs.push_back(Output::Newer(hello));
            self.awaited = Awaited::Nothing;
            return Ok(());
        }
        // Later versions have smaller numbers.
        if offer.version[0] != DTLS_1_2[0] || offer.version[1] > DTLS_1_2[1] {
            return Err(Failure::Version);
        }
        if shared.cookies && verify_slices_are_equal(&self.cookie, &offer.cookie).is_err() {
            let mut items = Vec::new();
            let request = message::write_hello_verify_request(&self.cookie);
            self.say(&mut items, Kind::HelloVerifyRequest, request);
            self.handshake.transcript.clear();
            self.send(items, Repeat::FewTimes);
            return Ok(());
        }
        let suite = message::choose_suite(&offer.suites, |suite| suite.key == shared.signer.kind());
        let group = match &offer.groups {
            Some(groups) => Group::ALL.into_iter().find(|group| groups.contains(&group.id())),
            // RFC 8422 §4: a client that does not say may be sent any.
            None => Some(Group::P256),
        };
        let scheme = shared.signer.choose(&offer.signatures);
        let (Some(suite), Some(group), Some(scheme)) = (suite, group, scheme) else {
            return Err(Failure::NothingInCommon);
        };
        let profile = Profile::NEGOTIATED
            .into_iter()
            .find(|profile| offer.srtp_profiles.contains(profile))
            .ok_or(Failure::NoSrtpProfile)?;

        let handshake = &mut self.handshake;
        handshake.note(Kind::ClientHello, number, body);
        handshake.randoms.client = offer.random;
        SystemEntropy::new().fill(&mut handshake.randoms.server);
        if shared.passes_on_1_3 {
            // A client that speaks 1.3 sees that its offer was taken out on the way.
            handshake.randoms.server[RANDOM_LEN - DOWNGRADED.len()..].copy_from_slice(&DOWNGRADED);
        }
        handshake.suite = suite;
        handshake.srtp_profile = Some(profile);
        handshake.extended_master_secret = offer.extended_master_secret;
        let exchange = Exchange::new(group)?;
        let parameters = ServerKeyExchange::write_parameters(group.id(), &exchange.public);
        handshake.exchange = Some(exchange);
        let bytes = shared.signer.sign(scheme, &handshake.signed_parameters(&parameters))?;
        let signature = Signature {
            scheme: scheme.id,
            bytes: &bytes,
        };
        let hello = ServerHello {
            version: DTLS_1_2,
            random: handshake.randoms.server,
            suite: suite.id,
            srtp_profile: Some(profile),
            extended_master_secret: offer.extended_master_secret,
        };
        let mut items = Vec::with_capacity(5);
        self.say(&mut items, Kind::ServerHello, hello.write(&offer));
        self.say(
            &mut items,
            Kind::Certificate,
            message::write_certificate(&shared.certificate),
        );
        self.say(
            &mut items,
            Kind::ServerKeyExchange,
            ServerKeyExchange::write(parameters, signature),
        );
        self.say(
            &mut items,
            Kind::CertificateRequest,
            message::write_certificate_request(),
        );
        self.say(&mut items, Kind::ServerHelloDone, Vec::new());
        self.awaited = Awaited::ClientCertificate;
        self.send(items, Repeat::UntilAnswered);
        Ok(())
    }

    /// A hello as one datagram, for somebody who has not seen its fragments.
    fn hello_datagram(&self, number: u16, body: &[u8]) -> Vec<u8> {
        let mut fragment = Vec::new();
        message::put_fragment(&mut fragment, Kind::ClientHello, number, body, 0..body.len());
        let mut datagram = Vec::new();
        RecordLayer::default().write(Content::Handshake, 0, &fragment, &mut datagram);
        datagram
    }

    pub(super) fn on_client_key_exchange(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.expect(&Awaited::ClientKeyExchange, Awaited::CertificateVerify)?;
        self.handshake.agree(message::read_client_key_exchange(body)?)
    }

    /// Looks at the client's signature over all that was said before it.
    pub(super) fn on_certificate_verify(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.expect(&Awaited::CertificateVerify, Awaited::Finished)?;
        let signature = Signature::read_verify(body)?;
        let handshake = &self.handshake;
        let key = handshake.peer_key()?;
        key.verify(&handshake.transcript, signature.scheme, signature.bytes)?;
        // What it says from now on may be protected.
        let (client, server) = handshake.master_secret()?.ciphers()?;
        self.records.set_ciphers(client, server);
        Ok(())
    }
}
