//! Handshake messages (RFC 5246 §7.4, RFC 6347 §4.2, RFC 8422 §5), as much of them as DTLS-SRTP needs.

use std::ops::Range;

use super::exchange::Group;
use super::suite::{SUITES, Suite};
use super::wire::{DTLS_1_2, Reader, put_numbers, put_vector};
use crate::webrtc::dtls::failure::Failure;
use crate::webrtc::dtls::settings::CERTIFICATE_BYTES_MAX;
use crate::webrtc::dtls::signature::Scheme;
use crate::webrtc::srtp::Profile;

/// The longest chain of certificates: one of the longest that is taken, with the lengths around it.
pub(super) const CERTIFICATES_LEN_MAX: usize = CERTIFICATE_BYTES_MAX + 64;

/// DTLS 1.3 in `supported_versions` (RFC 9147 §5.3).
const DTLS_1_3: u16 = 0xfefc;

/// What stands in a list of suites for an empty `renegotiation_info` (RFC 5746 §3.3).
const RENEGOTIATION_INFO_SCSV: u16 = 0x00ff;

/// Of a hello's random, in bytes.
pub(super) const RANDOM_LEN: usize = 32;

/// Of what a Finished message says, in bytes (RFC 5246 §7.4.9).
pub(super) const VERIFY_DATA_LEN: usize = 12;

/// The kinds of messages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    ClientHello = 1,
    ServerHello = 2,
    HelloVerifyRequest = 3,
    NewSessionTicket = 4,
    Certificate = 11,
    ServerKeyExchange = 12,
    CertificateRequest = 13,
    ServerHelloDone = 14,
    CertificateVerify = 15,
    ClientKeyExchange = 16,
    Finished = 20,
}

impl Kind {
    const ALL: [Self; 11] = [
        Self::ClientHello,
        Self::ServerHello,
        Self::HelloVerifyRequest,
        Self::NewSessionTicket,
        Self::Certificate,
        Self::ServerKeyExchange,
        Self::CertificateRequest,
        Self::ServerHelloDone,
        Self::CertificateVerify,
        Self::ClientKeyExchange,
        Self::Finished,
    ];

    pub(super) fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// Appends a fragment of a message, with its header (RFC 6347 §4.2.2).
pub(super) fn put_fragment(out: &mut Vec<u8>, kind: Kind, number: u16, body: &[u8], range: Range<usize>) {
    let u24 = |out: &mut Vec<u8>, number: usize| out.extend_from_slice(&(number as u32).to_be_bytes()[1..]);
    out.push(kind as u8);
    u24(out, body.len());
    out.extend_from_slice(&number.to_be_bytes());
    u24(out, range.start);
    u24(out, range.len());
    out.extend_from_slice(&body[range]);
}

mod extension {
    pub(super) const SUPPORTED_GROUPS: u16 = 10;
    pub(super) const EC_POINT_FORMATS: u16 = 11;
    pub(super) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(super) const USE_SRTP: u16 = 14;
    pub(super) const EXTENDED_MASTER_SECRET: u16 = 23;
    pub(super) const SUPPORTED_VERSIONS: u16 = 43;
    pub(super) const RENEGOTIATION_INFO: u16 = 0xff01;
}

/// Appends an extension.
fn put_extension(out: &mut Vec<u8>, id: u16, write: impl FnOnce(&mut Vec<u8>)) {
    put_numbers(out, [id]);
    put_vector(out, 2, write);
}

/// Appends `use_srtp` without a key identifier (RFC 5764 §4.1.1).
fn put_use_srtp(out: &mut Vec<u8>, profiles: &[Profile]) {
    put_extension(out, extension::USE_SRTP, |out| {
        put_vector(out, 2, |out| {
            put_numbers(out, profiles.iter().map(|profile| profile.id()))
        });
        out.push(0);
    });
}

/// The profiles of a `use_srtp` that we know, in its order, and its key identifier.
fn read_use_srtp(body: &[u8]) -> Result<(Vec<Profile>, &[u8]), Failure> {
    let mut reader = Reader::new(body);
    let profiles = reader.numbers()?;
    let key_identifier = reader.vector(1)?;
    reader.end()?;
    Ok((
        profiles.into_iter().filter_map(Profile::from_id).collect(),
        key_identifier,
    ))
}

/// The extensions of a hello. Without any there may be nothing at all (RFC 5246 §7.4.1.2).
fn each_extension<'a>(
    reader: &mut Reader<'a>,
    mut each: impl FnMut(u16, &'a [u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if reader.is_empty() {
        return Ok(());
    }
    let mut extensions = Reader::new(reader.vector(2)?);
    while !extensions.is_empty() {
        let id = extensions.u16()?;
        each(id, extensions.vector(2)?)?;
    }
    reader.end()
}

/// What a client offers.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct ClientHello {
    pub(super) version: [u8; 2],
    pub(super) random: [u8; RANDOM_LEN],
    pub(super) cookie: Vec<u8>,
    pub(super) suites: Vec<u16>,
    /// As the IANA numbers them; `None` if it does not say.
    pub(super) groups: Option<Vec<u16>>,
    pub(super) signatures: Vec<u16>,
    pub(super) srtp_profiles: Vec<Profile>,
    pub(super) extended_master_secret: bool,
    pub(super) renegotiation_info: bool,
    pub(super) point_formats: bool,
    /// It speaks DTLS 1.3 too.
    pub(super) speaks_1_3: bool,
}

impl ClientHello {
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        let mut reader = Reader::new(body);
        let mut hello = Self::default();
        hello.version.copy_from_slice(reader.take(2)?);
        hello.random.copy_from_slice(reader.take(RANDOM_LEN)?);
        reader.vector(1)?;
        hello.cookie = reader.vector(1)?.to_vec();
        hello.suites = reader.numbers()?;
        if !reader.vector(1)?.contains(&0) {
            return Err(Failure::Protocol);
        }
        hello.renegotiation_info = hello.suites.contains(&RENEGOTIATION_INFO_SCSV);
        each_extension(&mut reader, |id, body| {
            let mut body_reader = Reader::new(body);
            match id {
                extension::SUPPORTED_GROUPS => hello.groups = Some(body_reader.numbers()?),
                extension::SIGNATURE_ALGORITHMS => hello.signatures = body_reader.numbers()?,
                extension::USE_SRTP => hello.srtp_profiles = read_use_srtp(body)?.0,
                extension::EXTENDED_MASTER_SECRET => hello.extended_master_secret = true,
                extension::RENEGOTIATION_INFO => hello.renegotiation_info = true,
                extension::EC_POINT_FORMATS => hello.point_formats = true,
                extension::SUPPORTED_VERSIONS => {
                    let versions = body_reader.vector(1)?;
                    hello.speaks_1_3 = versions
                        .chunks_exact(2)
                        .any(|version| version == DTLS_1_3.to_be_bytes());
                }
                _ => {}
            }
            Ok(())
        })?;
        Ok(hello)
    }

    /// Ours: everything that we have.
    pub(super) fn write_ours(random: &[u8; RANDOM_LEN], cookie: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        out.extend_from_slice(&DTLS_1_2);
        out.extend_from_slice(random);
        put_vector(&mut out, 1, |_| {});
        put_vector(&mut out, 1, |out| out.extend_from_slice(cookie));
        put_vector(&mut out, 2, |out| put_numbers(out, SUITES.iter().map(|suite| suite.id)));
        put_vector(&mut out, 1, |out| out.push(0));
        put_vector(&mut out, 2, |out| {
            put_extension(out, extension::RENEGOTIATION_INFO, |out| out.push(0));
            put_extension(out, extension::EXTENDED_MASTER_SECRET, |_| {});
            put_extension(out, extension::SUPPORTED_GROUPS, |out| {
                put_vector(out, 2, |out| put_numbers(out, Group::ALL.map(Group::id)));
            });
            put_extension(out, extension::EC_POINT_FORMATS, |out| {
                put_vector(out, 1, |out| out.push(0))
            });
            put_extension(out, extension::SIGNATURE_ALGORITHMS, put_signatures);
            put_use_srtp(out, &Profile::NEGOTIATED);
        });
        out
    }
}

/// Appends the signatures that we can check.
fn put_signatures(out: &mut Vec<u8>) {
    put_vector(out, 2, |out| {
        put_numbers(out, Scheme::ALL.iter().map(|scheme| scheme.id))
    });
}

/// What a server has chosen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ServerHello {
    pub(super) version: [u8; 2],
    pub(super) random: [u8; RANDOM_LEN],
    pub(super) suite: u16,
    pub(super) srtp_profile: Option<Profile>,
    pub(super) extended_master_secret: bool,
}

impl ServerHello {
    pub(super) fn read(body: &[u8]) -> Result<Self, Failure> {
        let mut reader = Reader::new(body);
        let mut hello = Self {
            version: [0; 2],
            random: [0; RANDOM_LEN],
            suite: 0,
            srtp_profile: None,
            extended_master_secret: false,
        };
        hello.version.copy_from_slice(reader.take(2)?);
        hello.random.copy_from_slice(reader.take(RANDOM_LEN)?);
        reader.vector(1)?;
        hello.suite = reader.u16()?;
        if reader.u8()? != 0 {
            return Err(Failure::Protocol);
        }
        each_extension(&mut reader, |id, body| {
            match id {
                extension::USE_SRTP => match read_use_srtp(body)? {
                    // We have offered no key identifier, and a server that has one all the same would send it with every packet.
                    (profiles, []) if profiles.len() == 1 => hello.srtp_profile = profiles.first().copied(),
                    _ => return Err(Failure::NoSrtpProfile),
                },
                extension::EXTENDED_MASTER_SECRET => hello.extended_master_secret = true,
                _ => {}
            }
            Ok(())
        })?;
        Ok(hello)
    }

    /// Ours, to what a client offered. Its session has no identifier, because none is ever taken up again.
    pub(super) fn write(&self, offer: &ClientHello) -> Vec<u8> {
        let mut out = Vec::with_capacity(96);
        out.extend_from_slice(&self.version);
        out.extend_from_slice(&self.random);
        put_vector(&mut out, 1, |_| {});
        put_numbers(&mut out, [self.suite]);
        out.push(0);
        put_vector(&mut out, 2, |out| {
            if offer.renegotiation_info {
                put_extension(out, extension::RENEGOTIATION_INFO, |out| out.push(0));
            }
            if self.extended_master_secret {
                put_extension(out, extension::EXTENDED_MASTER_SECRET, |_| {});
            }
            if offer.point_formats {
                put_extension(out, extension::EC_POINT_FORMATS, |out| {
                    put_vector(out, 1, |out| out.push(0))
                });
            }
            put_use_srtp(out, self.srtp_profile.as_slice());
        });
        out
    }
}

/// A HelloVerifyRequest. Its version is 1.0 whatever is spoken then (RFC 6347 §4.2.1).
pub(super) fn write_hello_verify_request(cookie: &[u8]) -> Vec<u8> {
    let mut out = vec![0xfe, 0xff];
    put_vector(&mut out, 1, |out| out.extend_from_slice(cookie));
    out
}

/// A HelloVerifyRequest's cookie.
pub(super) fn read_hello_verify_request(body: &[u8]) -> Result<&[u8], Failure> {
    let mut reader = Reader::new(body);
    reader.take(2)?;
    let cookie = reader.vector(1)?;
    reader.end()?;
    Ok(cookie)
}

/// A Certificate message with one certificate in DER.
pub(super) fn write_certificate(der: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(der.len() + 6);
    put_vector(&mut out, 3, |out| put_vector(out, 3, |out| out.extend_from_slice(der)));
    out
}

/// The first certificate of a Certificate message, which is its sender's. What else is there is of nobody that we know.
pub(super) fn read_certificate(body: &[u8]) -> Result<&[u8], Failure> {
    let mut reader = Reader::new(body);
    let mut chain = Reader::new(reader.vector(3)?);
    reader.end()?;
    if chain.is_empty() {
        return Err(Failure::NoCertificate);
    }
    let certificate = chain.vector(3)?;
    if certificate.len() > CERTIFICATE_BYTES_MAX {
        return Err(Failure::CertificateTooLong);
    }
    Ok(certificate)
}

/// A server's half of the key exchange (RFC 8422 §5.4).
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerKeyExchange<'a> {
    /// What is signed after the two randoms.
    pub(super) parameters: &'a [u8],
    pub(super) group: u16,
    pub(super) public: &'a [u8],
    pub(super) signature: Signature<'a>,
}

/// What proves that somebody has a certificate's key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signature<'a> {
    pub(super) scheme: u16,
    pub(super) bytes: &'a [u8],
}

impl<'a> Signature<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, Failure> {
        let signature = Self {
            scheme: reader.u16()?,
            bytes: reader.vector(2)?,
        };
        reader.end()?;
        Ok(signature)
    }

    fn write(self, out: &mut Vec<u8>) {
        put_numbers(out, [self.scheme]);
        put_vector(out, 2, |out| out.extend_from_slice(self.bytes));
    }

    /// The body of a CertificateVerify.
    pub(super) fn read_verify(body: &'a [u8]) -> Result<Self, Failure> {
        Self::read(&mut Reader::new(body))
    }

    /// As the body of a CertificateVerify.
    pub(super) fn write_verify(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.bytes.len() + 4);
        self.write(&mut out);
        out
    }
}

/// A curve that has a name.
const NAMED_CURVE: u8 = 3;

impl<'a> ServerKeyExchange<'a> {
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Failure> {
        let mut reader = Reader::new(body);
        if reader.u8()? != NAMED_CURVE {
            return Err(Failure::NothingInCommon);
        }
        let group = reader.u16()?;
        let public = reader.vector(1)?;
        Ok(Self {
            parameters: &body[..4 + public.len()],
            group,
            public,
            signature: Signature::read(&mut reader)?,
        })
    }

    /// What is signed after the two randoms.
    pub(super) fn write_parameters(group: u16, public: &[u8]) -> Vec<u8> {
        let mut out = vec![NAMED_CURVE];
        put_numbers(&mut out, [group]);
        put_vector(&mut out, 1, |out| out.extend_from_slice(public));
        out
    }

    /// With what is written, and its signature.
    pub(super) fn write(mut parameters: Vec<u8>, signature: Signature<'_>) -> Vec<u8> {
        signature.write(&mut parameters);
        parameters
    }
}

/// Types of certificates (RFC 8422 §5.5, RFC 5246 §7.4.4): `ecdsa_sign`, which is Ed25519's too, and `rsa_sign`.
const CERTIFICATE_TYPES: [u8; 2] = [64, 1];

/// Asks a client for any certificate that we can check.
pub(super) fn write_certificate_request() -> Vec<u8> {
    let mut out = Vec::with_capacity(40);
    put_vector(&mut out, 1, |out| out.extend_from_slice(&CERTIFICATE_TYPES));
    put_signatures(&mut out);
    put_vector(&mut out, 2, |_| {});
    out
}

/// The signatures that a server can check.
pub(super) fn read_certificate_request(body: &[u8]) -> Result<Vec<u16>, Failure> {
    let mut reader = Reader::new(body);
    reader.vector(1)?;
    let signatures = reader.numbers()?;
    reader.vector(2)?;
    reader.end()?;
    Ok(signatures)
}

/// A client's half of the key exchange (RFC 8422 §5.7).
pub(super) fn write_client_key_exchange(public: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(public.len() + 1);
    put_vector(&mut out, 1, |out| out.extend_from_slice(public));
    out
}

/// The public key in a client's half of the key exchange.
pub(super) fn read_client_key_exchange(body: &[u8]) -> Result<&[u8], Failure> {
    let mut reader = Reader::new(body);
    let public = reader.vector(1)?;
    reader.end()?;
    Ok(public)
}

/// The suite that a server of ours uses with a client: the first of ours that it offers and that goes with our key.
pub(super) fn choose_suite(offered: &[u16], is_ours: impl Fn(&Suite) -> bool) -> Option<&'static Suite> {
    SUITES
        .iter()
        .find(|suite| is_ours(suite) && offered.contains(&suite.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_hello_offers_all_that_we_have() {
        let hello = ClientHello::read(&ClientHello::write_ours(&[7; 32], b"cookie")).unwrap();
        assert_eq!((hello.version, hello.random), (DTLS_1_2, [7; 32]));
        assert_eq!(hello.cookie, b"cookie");
        assert_eq!(hello.suites, SUITES.iter().map(|suite| suite.id).collect::<Vec<_>>());
        assert_eq!(hello.groups, Some(Group::ALL.map(Group::id).to_vec()));
        assert_eq!(
            hello.signatures,
            Scheme::ALL.iter().map(|scheme| scheme.id).collect::<Vec<_>>()
        );
        assert_eq!(hello.srtp_profiles, Profile::NEGOTIATED);
        assert!(hello.extended_master_secret && hello.renegotiation_info && hello.point_formats);
        assert!(!hello.speaks_1_3);
    }

    #[test]
    fn hellos_cut_short_are_refused() {
        let hello = ClientHello::write_ours(&[7; 32], b"cookie");
        let without_extensions = 2 + 32 + 1 + 7 + 2 + 12 + 2;
        for len in 0..hello.len() {
            assert_eq!(
                ClientHello::read(&hello[..len]).is_ok(),
                len == without_extensions,
                "{len}"
            );
        }
        let chosen = ServerHello {
            version: DTLS_1_2,
            random: [9; 32],
            suite: 0xc02b,
            srtp_profile: Some(Profile::AeadAes128Gcm),
            extended_master_secret: true,
        };
        let hello = chosen.write(&ClientHello::read(&hello).unwrap());
        assert_eq!(ServerHello::read(&hello), Ok(chosen));
        for len in 0..hello.len() {
            assert_eq!(
                ServerHello::read(&hello[..len]).is_ok(),
                len == 2 + 32 + 1 + 2 + 1,
                "{len}"
            );
        }
    }

    /// RFC 5764 §4.1.1: a server chooses one profile, of those offered.
    #[test]
    fn a_server_chooses_one_srtp_profile() {
        let mut hello = vec![0xfe, 0xfd];
        hello.extend_from_slice(&[0; 32]);
        hello.extend_from_slice(&[0, 0xc0, 0x2b, 0]);
        let with = |profiles: &[Profile]| {
            let mut hello = hello.clone();
            put_vector(&mut hello, 2, |out| put_use_srtp(out, profiles));
            ServerHello::read(&hello).map(|hello| hello.srtp_profile)
        };
        assert_eq!(with(&[Profile::Aes128CmSha1_80]), Ok(Some(Profile::Aes128CmSha1_80)));
        assert_eq!(with(&[]), Err(Failure::NoSrtpProfile));
        assert_eq!(with(&Profile::NEGOTIATED), Err(Failure::NoSrtpProfile));
        assert_eq!(ServerHello::read(&hello).map(|hello| hello.srtp_profile), Ok(None));
    }

    #[test]
    fn the_first_certificate_is_its_senders() {
        assert_eq!(read_certificate(&write_certificate(b"der")), Ok(&b"der"[..]));
        assert_eq!(read_certificate(&[0, 0, 0]), Err(Failure::NoCertificate));
        let long = vec![0; CERTIFICATE_BYTES_MAX];
        assert_eq!(read_certificate(&write_certificate(&long)), Ok(&long[..]));
        let too_long = vec![0; CERTIFICATE_BYTES_MAX + 1];
        assert_eq!(
            read_certificate(&write_certificate(&too_long)),
            Err(Failure::CertificateTooLong)
        );
        let mut chain = Vec::new();
        put_vector(&mut chain, 3, |out| {
            put_vector(out, 3, |out| out.extend_from_slice(b"first"));
            put_vector(out, 3, |out| out.extend_from_slice(b"second"));
        });
        assert_eq!(read_certificate(&chain), Ok(&b"first"[..]));
    }
}
