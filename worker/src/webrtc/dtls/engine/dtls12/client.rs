//! The client's side of a handshake: it begins.

use super::*;
use crate::webrtc::dtls::engine::dtls12::exchange::Group;
use crate::webrtc::dtls::engine::dtls12::message::{ClientHello, ServerHello, ServerKeyExchange, Signature};
use crate::webrtc::dtls::engine::dtls12::wire::DTLS_1_2;

impl Dtls12 {
    /// Offers all that we have, with the cookie that the server asks for.
    pub(super) fn say_hello(&mut self, cookie: &[u8]) {
        // The random is the same both times (RFC 6347 §4.2.1), and the transcript begins with the last hello.
        if self.awaited == Awaited::Start {
            SystemEntropy::new().fill(&mut self.handshake.randoms.client);
        }
        self.handshake.transcript.clear();
        let hello = ClientHello::write_ours(&self.handshake.randoms.client, cookie);
        let mut items = Vec::new();
        self.say(&mut items, Kind::ClientHello, hello);
        self.awaited = Awaited::ServerHello;
        self.send(items, Repeat::UntilAnswered);
    }

    pub(super) fn on_hello_verify_request(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.expect(&Awaited::ServerHello, Awaited::ServerHello)?;
        let cookie = message::read_hello_verify_request(body)?;
        // A server that asks again and again does not end, but for the time that a handshake has.
        self.say_hello(cookie);
        Ok(())
    }

    pub(super) fn on_server_hello(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.expect(&Awaited::ServerHello, Awaited::ServerCertificate)?;
        let hello = ServerHello::read(body)?;
        if hello.version != DTLS_1_2 {
            return Err(Failure::Version);
        }
        let handshake = &mut self.handshake;
        handshake.suite = message::choose_suite(&[hello.suite], |_| true).ok_or(Failure::NothingInCommon)?;
        handshake.randoms.server = hello.random;
        handshake.extended_master_secret = hello.extended_master_secret;
        handshake.srtp_profile = Some(hello.srtp_profile.ok_or(Failure::NoSrtpProfile)?);
        Ok(())
    }

    pub(super) fn on_server_key_exchange(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.expect(&Awaited::ServerKeyExchange, Awaited::ServerHelloDone(None))?;
        let handshake = &mut self.handshake;
        let theirs = ServerKeyExchange::read(body)?;
        let group = Group::of_id(theirs.group).ok_or(Failure::NothingInCommon)?;
        let signed = handshake.signed_parameters(theirs.parameters);
        let key = handshake.peer_key()?;
        if key.kind() != handshake.suite.key {
            return Err(Failure::Protocol);
        }
        key.verify(&signed, theirs.signature.scheme, theirs.signature.bytes)?;
        handshake.exchange = Some(Exchange::new(group)?);
        handshake.peer_public = theirs.public.to_vec();
        Ok(())
    }

    pub(super) fn on_certificate_request(&mut self, body: &[u8]) -> Result<(), Failure> {
        let signatures = message::read_certificate_request(body)?;
        self.expect(
            &Awaited::ServerHelloDone(None),
            Awaited::ServerHelloDone(Some(signatures)),
        )
    }

    pub(super) fn on_server_hello_done(&mut self, body: &[u8]) -> Result<(), Failure> {
        let Awaited::ServerHelloDone(signatures) = std::mem::replace(&mut self.awaited, Awaited::Finished) else {
            return Err(Failure::Protocol);
        };
        if !body.is_empty() {
            return Err(Failure::Protocol);
        }
        let shared = Arc::clone(&self.shared);
        let mut items = Vec::new();
        let scheme = match signatures {
            // A server that does not want to know who we are trusts the signalling.
            None => None,
            Some(offered) => {
                let scheme = shared.signer.choose(&offered).ok_or(Failure::NothingInCommon)?;
                self.say(
                    &mut items,
                    Kind::Certificate,
                    message::write_certificate(&shared.certificate),
                );
                Some(scheme)
            }
        };
        let public = self
            .handshake
            .exchange
            .as_ref()
            .ok_or(Failure::Internal)?
            .public
            .clone();
        self.say(
            &mut items,
            Kind::ClientKeyExchange,
            message::write_client_key_exchange(&public),
        );
        let theirs = std::mem::take(&mut self.handshake.peer_public);
        self.handshake.agree(&theirs)?;
        if let Some(scheme) = scheme {
            let bytes = shared.signer.sign(scheme, &self.handshake.transcript)?;
            let signature = Signature {
                scheme: scheme.id,
                bytes: &bytes,
            };
            self.say(&mut items, Kind::CertificateVerify, signature.write_verify());
        }
        let (client, server) = self.handshake.master_secret()?.ciphers()?;
        self.records.set_ciphers(server, client);
        let items = self.finish(items)?;
        self.writes_protected = true;
        self.send(items, Repeat::UntilAnswered);
        Ok(())
    }
}
