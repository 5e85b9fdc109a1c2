//! The command line of a worker: written by the supervisor, read by the worker, both with this type.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::str::FromStr;

use weir_channel::id::WorkerId;
use weir_channel::message::SandboxMode;

use crate::sandbox::User;
use crate::switches::Switches;
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
    /// How much of its sandbox must hold.
    pub sandbox: SandboxMode,
    /// The user and the group that it changes to; `None`: none.
    pub user: Option<User>,
    /// So many bytes of memory it takes at once: a spare, as many as the worker uses whose place it is to take.
    pub reserve: u64,
    /// Settings of the server.
    pub switches: Switches,
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
            versions: if self.switches.dtls_13 {
                Versions::Dtls12And13
            } else {
                Versions::Dtls12
            },
            weak_fingerprints: self.switches.dtls_weak_fingerprints,
            ..dtls::Settings::default()
        }
    }

    /// As a command line, without the program.
    pub fn to_args(&self) -> Vec<OsString> {
        let cpu = self.cpu.map_or_else(|| "none".to_owned(), |cpu| cpu.to_string());
        let mut options = vec![
            ("--id", self.id.0.to_string()),
            ("--cpu", cpu),
            ("--parent-pid", self.parent_pid.to_string()),
            ("--sandbox", self.sandbox.to_string()),
            (
                "--user",
                self.user.map_or_else(|| "same".to_owned(), |user| user.to_string()),
            ),
            ("--reserve", self.reserve.to_string()),
        ];
        let mut switches = self.switches;
        let said = |is_on: bool| if is_on { "yes" } else { "no" }.to_owned();
        options.extend(switches.options().map(|(option, is_on)| (option, said(*is_on))));
        options
            .into_iter()
            .flat_map(|(option, value)| [option.into(), value.into()])
            .collect()
    }

    /// Reads a command line, without the program.
    ///
    /// # Errors
    /// [`ArgumentError`], which names the argument.
    pub fn parse<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Result<Self, ArgumentError> {
        let mut switches = Switches::default();
        let known: Vec<_> = switches.options().map(|(option, _)| option).into();
        let known = [
            &["--id", "--cpu", "--parent-pid", "--sandbox", "--user", "--reserve"][..],
            &known,
        ]
        .concat();
        let mut given = BTreeMap::new();
        let mut args = args.into_iter();
        while let Some(arg) = args.next() {
            let option = arg.as_ref().to_string_lossy();
            let option = *known
                .iter()
                .find(|known| **known == option)
                .ok_or_else(|| ArgumentError::Unknown(option.into_owned()))?;
            let value = args.next().ok_or(ArgumentError::NoValue(option))?;
            if given
                .insert(option, value.as_ref().to_string_lossy().into_owned())
                .is_some()
            {
                return Err(ArgumentError::Repeated(option));
            }
        }
        let cpu = given.remove("--cpu").ok_or(ArgumentError::Missing("--cpu"))?;
        let arguments = Self {
            id: WorkerId(number("--id", given.remove("--id"))?),
            cpu: match cpu.as_str() {
                "none" => None,
                _ => Some(number("--cpu", Some(cpu))?),
            },
            parent_pid: number("--parent-pid", given.remove("--parent-pid"))?,
            sandbox: parsed("--sandbox", given.remove("--sandbox"), "require, auto or off")?,
            user: match given.remove("--user") {
                Some(same) if same == "same" => None,
                user => Some(parsed("--user", user, "same or UID:GID")?),
            },
            reserve: match given.remove("--reserve") {
                None => 0,
                bytes => parsed("--reserve", bytes, "a number of bytes")?,
            },
            switches,
        };
        for (option, is_on) in switches.options() {
            *is_on = is_yes(option, given.remove(option))?;
        }
        Ok(Self { switches, ..arguments })
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
    let expected = if option == "--cpu" { "a CPU or none" } else { "a number" };
    parsed(option, value, expected)
}

fn parsed<T: FromStr>(option: &'static str, value: Option<String>, expected: &'static str) -> Result<T, ArgumentError> {
    let value = value.ok_or(ArgumentError::Missing(option))?;
    value.parse().map_err(|_| ArgumentError::BadValue {
        option,
        value,
        expected,
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
                sandbox: if cpu.is_some() {
                    SandboxMode::Require
                } else {
                    SandboxMode::Off
                },
                user: cpu.map(|_| User {
                    uid: 65_534,
                    gid: 65_533,
                }),
                reserve: cpu.map_or(0, |cpu| 1 << 40 | u64::from(cpu)),
                switches: Switches {
                    dtls_13: cpu.is_some(),
                    dtls_weak_fingerprints: cpu.is_none(),
                    gop_cache: cpu == Some(0),
                    equalize_packets: cpu != Some(0),
                },
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
            error("--id 1 --cpu 1 --parent-pid 1 --sandbox yes --user same"),
            message("--sandbox \"yes\" is not require, auto or off")
        );
        assert_eq!(
            error("--id 1 --cpu 1 --parent-pid 1 --sandbox auto --user root"),
            message("--user \"root\" is not same or UID:GID")
        );
        assert_eq!(
            error("--id 1 --cpu 1 --parent-pid 1 --sandbox auto --user same --dtls-13 maybe"),
            message("--dtls-13 \"maybe\" is not yes or no")
        );
        assert_eq!(
            error("--id 1 --cpu 1 --parent-pid 1 --sandbox auto --user same --reserve some"),
            message("--reserve \"some\" is not a number of bytes")
        );
    }
}
