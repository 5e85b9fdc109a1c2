//! The certificates of other people: every kind of key, and more names than fit into a datagram.

#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use tempfile::TempDir;
use weir_worker::webrtc::dtls::{Fingerprint, FingerprintAlgorithm, certificate};

/// A certificate that a peer shows, and where it lies for programs.
pub(crate) struct Shown {
    /// What it is, for people.
    pub(crate) name: &'static str,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) der: Vec<u8>,
}

impl Shown {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(FingerprintAlgorithm::Sha256, &self.der)
    }

    pub(crate) fn pem(&self) -> String {
        certificate::to_pem(&self.der)
    }
}

/// A large certificate is as large as this at most, which is what Weir says that it takes, and little smaller.
const LARGE_BYTES: std::ops::RangeInclusive<usize> = 16_300..=16_384;

/// Made once, and kept while the tests run.
pub(crate) struct Certificates {
    all: Vec<Shown>,
    _folder: TempDir,
}

impl Certificates {
    pub(crate) fn all(&self) -> &[Shown] {
        &self.all
    }

    /// What WebRTC is made of: a key on the curve P-256, and a small certificate.
    pub(crate) fn usual(&self) -> &Shown {
        &self.all[0]
    }
}

pub(crate) static CERTIFICATES: LazyLock<Certificates> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("there is room for files");
    // Nine bytes of DER hold each name of seven, after some four hundred bytes of everything else.
    let names: Vec<String> = (0..1_774).map(|number| format!("DNS:{number:07}")).collect();
    let names = format!("subjectAltName={}", names.join(","));
    let kinds: [(&str, &[&str]); 7] = [
        ("P-256", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        ("P-384", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("P-521", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-521"]),
        ("P-224", &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-224"]),
        ("RSA-2048", &["-newkey", "rsa:2048"]),
        ("RSA-4096", &["-newkey", "rsa:4096"]),
        (
            "P-256, 16 KiB",
            &[
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-addext",
                &names,
            ],
        ),
    ];
    let all: Vec<Shown> = kinds
        .into_iter()
        .enumerate()
        .map(|(number, (name, options))| make(folder.path(), number, name, options))
        .collect();
    let large = all[6].der.len();
    assert!(LARGE_BYTES.contains(&large), "{large} bytes of certificate");
    Certificates { all, _folder: folder }
});

fn make(folder: &Path, number: usize, name: &'static str, options: &[&str]) -> Shown {
    let [certificate, key] = ["certificate", "key"].map(|what| folder.join(format!("{number}.{what}.pem")));
    let request = [
        "req",
        "-x509",
        "-nodes",
        "-sha256",
        "-days",
        "30",
        "-subj",
        "/CN=WebRTC",
    ];
    let files = [
        "-keyout".as_ref(),
        key.as_os_str(),
        "-out".as_ref(),
        certificate.as_os_str(),
    ];
    openssl(Command::new("openssl").args(request).args(options).args(files));
    let to_der = ["x509", "-outform", "der", "-in"];
    let der = openssl(Command::new("openssl").args(to_der).arg(&certificate));
    Shown {
        name,
        certificate,
        key,
        der,
    }
}

fn openssl(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("this test needs the program openssl");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl: {said}");
    output.stdout
}
