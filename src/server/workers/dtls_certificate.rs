//! The certificate that all workers show: from files, checked before any worker is started, or made here. It is one for all, and for
//! their successors, so that a client that has been told its fingerprints still believes a worker that has taken another's place.

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use weir_channel::message::DtlsCertificate;
use weir_worker::webrtc::dtls::Certificate;
use weir_worker::webrtc::entropy::SystemEntropy;

use crate::server::model::error::StartError;
use crate::server::model::settings::Settings;

/// A certificate and a key have some thousand bytes each.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// What the settings' files have, or a new one.
///
/// # Errors
/// When a file cannot be read, or when they are not a certificate and its key.
pub(crate) fn load_or_make(settings: &Settings) -> Result<DtlsCertificate, StartError> {
    if let Some(certificate) = load(settings)? {
        return Ok(certificate);
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the certificate says from when to when it is valid"
    )]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let made = Certificate::generate_pem(&mut SystemEntropy::new(), now);
    let (certificate_pem, private_key_pem) = made.map_err(|error| {
        let error = std::io::Error::other(error);
        StartError::io("making the certificate for DTLS")(error)
    })?;
    Ok(DtlsCertificate {
        certificate_pem,
        private_key_pem,
    })
}

/// What the settings' files have, if they name any.
fn load(settings: &Settings) -> Result<Option<DtlsCertificate>, StartError> {
    let (Some(certificate_file), Some(private_key_file)) =
        (&settings.dtls_certificate_file, &settings.dtls_private_key_file)
    else {
        return Ok(None);
    };
    let certificate = DtlsCertificate {
        certificate_pem: read("dtls_certificate_file", certificate_file)?,
        private_key_pem: read("dtls_private_key_file", private_key_file)?,
    };
    Certificate::from_pem(&certificate.certificate_pem, &certificate.private_key_pem).map_err(|error| {
        StartError::Settings(format!(
            "dtls_certificate_file {} and dtls_private_key_file {} cannot be used: {error}",
            certificate_file.display(),
            private_key_file.display()
        ))
    })?;
    Ok(Some(certificate))
}

fn read(setting: &str, path: &Path) -> Result<String, StartError> {
    let mut text = String::new();
    let failed = |reason: &dyn std::fmt::Display| {
        StartError::Settings(format!("{setting} {} cannot be read: {reason}", path.display()))
    };
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| failed(&error))?;
    match text.len() as u64 > FILE_BYTES_MAX {
        true => Err(failed(&format_args!("it has more than {FILE_BYTES_MAX} bytes"))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    /// What is said of these two files.
    fn loaded(certificate: Option<&[u8]>, key: Option<&[u8]>) -> Result<Option<DtlsCertificate>, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, bytes: Option<&[u8]>| -> Option<PathBuf> {
            let path = folder.path().join(name);
            if let Some(bytes) = bytes {
                std::fs::write(&path, bytes).unwrap();
            }
            Some(path)
        };
        let settings = Settings {
            dtls_certificate_file: file("certificate.pem", certificate),
            dtls_private_key_file: file("key.pem", key),
            ..Settings::default()
        };
        load(&settings).map_err(|error| error.to_string())
    }

    #[test]
    fn without_files_one_is_made_that_workers_can_use() {
        let made = load_or_make(&Settings::default()).unwrap();
        let read = Certificate::from_pem(&made.certificate_pem, &made.private_key_pem);
        assert!(read.is_ok(), "{read:?}");
        assert_ne!(load_or_make(&Settings::default()).unwrap(), made);
    }

    #[test]
    fn a_pair_is_taken_and_everything_else_named() {
        let new = || {
            let key = KeyPair::generate().unwrap();
            let certificate = CertificateParams::default().self_signed(&key).unwrap().pem();
            (certificate, key.serialize_pem())
        };
        let (certificate, key) = new();
        let taken = loaded(Some(certificate.as_bytes()), Some(key.as_bytes()))
            .unwrap()
            .unwrap();
        assert_eq!((&taken.certificate_pem, &taken.private_key_pem), (&certificate, &key));
        assert!(load(&Settings::default()).unwrap().is_none());

        let (_, other_key) = new();
        let huge = vec![b'x'; 100_000];
        type Content<'a> = Option<&'a [u8]>;
        let rows: [(Content<'_>, Content<'_>, &str); 6] = [
            (None, Some(key.as_bytes()), "dtls_certificate_file"),
            (Some(certificate.as_bytes()), None, "dtls_private_key_file"),
            (Some(b"hello"), Some(key.as_bytes()), "no readable certificate"),
            (
                Some(certificate.as_bytes()),
                Some(&[0xff, 0xfe]),
                "dtls_private_key_file",
            ),
            (
                Some(certificate.as_bytes()),
                Some(other_key.as_bytes()),
                "another private key",
            ),
            (Some(&huge), Some(key.as_bytes()), "more than 65536 bytes"),
        ];
        for (certificate, key, named) in rows {
            let error = loaded(certificate, key).unwrap_err();
            assert!(error.contains(named), "{named}: {error}");
        }
        let alone = Settings {
            dtls_private_key_file: Some("key.pem".into()),
            ..Settings::default()
        };
        assert!(alone.check().unwrap_err().contains("belong together"));
    }
}
