//! The command line of a worker: written by the supervisor, read by the worker, both with this type.

use std::ffi::{OsStr, OsString};

use weir_channel::id::WorkerId;

use crate::webrtc::dtls::{self, Versions};

/// The command line of a worker. It does not name the channel, which is descriptor 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arguments {
    /// The worker's id.
    pub id: WorkerId,
    /// The CPU it runs on; `None`: wherever the scheduler likes.
    pub cpu: Option<u32>,
    /// The process id of the supervisor. A worker whose parent is another process has lost it already.
    pub parent_pid: u32,
    /// Whether DTLS 1.3 is spoken with those who offer it.
    pub dtls_13: bool,
    /// Whether a peer is believed that has a SHA-1 or SHA-224 fingerprint only.
    pub dtls_weak_fingerprints: bool,
    /// Whether the last group of pictures is kept of senders that answer no key frame requests.
    pub gop_cache: bool,
}

/// What is wrong with a command line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ArgumentError {
    /// There is no such option.
    #[error("unknown argument {0:?}; a worker is started by its supervisor")]
    Unknown(String),
    /// An option came twice.
    #[error("{0} is given twice")]
    Repeated(&'static str),
    /// An option has no value.
    #[error("{0} needs a value")]
    NoValue(&'static str),
    /// An option's value is not of its kind.
    #[error("{option} {value:?} is not {expected}")]
    BadValue {
        /// The option.
        option: &'static str,
        /// The value that was given.
        value: String,
        /// What the value should be.
        expected: &'static str,
    },
    /// An option is missing.
    #[error("{0} is missing; a worker is started by its supervisor")]
    Missing(&'static str),
}

impl Arguments {
    /// How its WebRTC transports speak DTLS.
    pub(super) fn dtls(&self) -> dtls::Settings {
        dtls::Settings {
            versions: if self.dtls_13 {
                Versions::Dtls12And13
            } else {
                Versions::Dtls12
            },
            weak_fingerprints: self.dtls_weak_fingerprints,
            ..dtls::Settings::default()
        }
    }

    /// As a command line, without the program.
    pub fn to_args(&self) -> Vec<OsString> {
        let cpu = self.cpu.map_or_else(|| "none".to_owned(), |cpu| cpu.to_string());
        let id = self.id.0.to_string();
        let parent_pid = self.parent_pid.to_string();
        let yes_or_no = |yes| if yes { "yes" } else { "no" };
        [
            ["--id", &id],
            ["--cpu", &cpu],
            ["--parent-pid", &parent_pid],
            ["--dtls-13", yes_or_no(self.dtls_13)],
            ["--dtls-weak-fingerprints", yes_or_no(self.dtls_weak_fingerprints)],
            ["--gop-cache", yes_or_no(self.gop_cache)],
        ]
        .concat()
        .into_iter()
        .map(OsString::from)
        .collect()
    }

    /// Reads a command line, without the program.
    ///
    /// # Errors
    /// [`ArgumentError`], which names the argument.
    pub fn parse<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<Self, ArgumentError> {
        let (mut id, mut cpu, mut parent_pid) = (None, None, None);
        let (mut dtls_13, mut dtls_weak_fingerprints, mut gop_cache) = (None, None, None);
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let option = arg.as_ref().to_string_lossy();
            let (option, slot) = match option.as_ref() {
                "--id" => ("--id", &mut id),
                "--cpu" => ("--cpu", &mut cpu),
                "--parent-pid" => ("--parent-pid", &mut parent_pid),
                "--dtls-13" => ("--dtls-13", &mut dtls_13),
                "--dtls-weak-fingerprints" => ("--dtls-weak-fingerprints", &mut dtls_weak_fingerprints),
                "--gop-cache" => ("--gop-cache", &mut gop_cache),
                other => return Err(ArgumentError::Unknown(other.to_owned())),
            };
            let value = args.next().ok_or(ArgumentError::NoValue(option))?;
            let value = value.as_ref().to_string_lossy().into_owned();
            if slot.replace(value).is_some() {
                return Err(ArgumentError::Repeated(option));
            }
        }
        let cpu = cpu.ok_or(ArgumentError::Missing("--cpu"))?;
        Ok(Self {
            id: WorkerId(number("--id", id)?),
            cpu: match cpu.as_str() {
                "none" => None,
                _ => Some(number("--cpu", Some(cpu))?),
            },
            parent_pid: number("--parent-pid", parent_pid)?,
            dtls_13: is_yes("--dtls-13", dtls_13)?,
            dtls_weak_fingerprints: is_yes("--dtls-weak-fingerprints", dtls_weak_fingerprints)?,
            gop_cache: is_yes("--gop-cache", gop_cache)?,
        })
    }
}

/// What is not said is not so.
fn is_yes(option: &'static str, value: Option<String>) -> Result<bool, ArgumentError> {
    match value.as_deref() {
        Some("yes") => Ok(true),
        None | Some("no") => Ok(false),
        Some(other) => Err(ArgumentError::BadValue {
            option,
            value: other.to_owned(),
            expected: "yes or no",
        }),
    }
}

fn number(option: &'static str, value: Option<String>) -> Result<u32, ArgumentError> {
    let value = value.ok_or(ArgumentError::Missing(option))?;
    value.parse().map_err(|_| ArgumentError::BadValue {
        option,
        value,
        expected: if option == "--cpu" { "a CPU or none" } else { "a number" },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_supervisor_writes_the_worker_reads() {
        for cpu in [None, Some(0), Some(127)] {
            let arguments = Arguments {
                id: WorkerId(7),
                cpu,
                parent_pid: 4_194_304,
                dtls_13: cpu.is_some(),
                dtls_weak_fingerprints: cpu.is_none(),
                gop_cache: cpu == Some(0),
            };
            assert_eq!(Arguments::parse(arguments.to_args()), Ok(arguments));
        }
    }

    #[test]
    fn mistakes_are_named() {
        let error = |line: &str| Arguments::parse(line.split_whitespace()).map_err(|error| error.to_string());
        let message = |text: &str| Err(text.to_owned());
        assert_eq!(
            error(""),
            message("--cpu is missing; a worker is started by its supervisor")
        );
        assert_eq!(
            error("--cpu none --parent-pid 1"),
            message("--id is missing; a worker is started by its supervisor")
        );
        assert_eq!(error("--id"), message("--id needs a value"));
        assert_eq!(error("--id 1 --id 2"), message("--id is given twice"));
        assert_eq!(
            error("--verbose"),
            message("unknown argument \"--verbose\"; a worker is started by its supervisor")
        );
        assert_eq!(
            error("--id one --cpu 1 --parent-pid 1"),
            message("--id \"one\" is not a number")
        );
        assert_eq!(
            error("--id 1 --cpu all --parent-pid 1"),
            message("--cpu \"all\" is not a CPU or none")
        );
        assert_eq!(
            error("--id 1 --cpu 1 --parent-pid -1"),
            message("--parent-pid \"-1\" is not a number")
        );
        assert_eq!(
            error("--id 1 --cpu 1 --parent-pid 1 --dtls-13 maybe"),
            message("--dtls-13 \"maybe\" is not yes or no")
        );
    }
}
