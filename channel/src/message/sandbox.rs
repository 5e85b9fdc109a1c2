//! How a worker is confined: what its server wants, and what the worker reports.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::words;

/// How much of a worker's sandbox must hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxMode {
    /// All of it; otherwise the worker does not start.
    Require,
    /// As much as this system can do.
    #[default]
    Auto,
    /// Nothing: the worker may do what its server may.
    Off,
}

words!(SandboxMode { Require = "require", Auto = "auto", Off = "off" });

/// A layer of a worker's sandbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum SandboxLayer {
    /// A user and a group of its own, and no supplementary groups. Only where the server may change users.
    User,
    /// No capabilities: none permitted, effective, inheritable or ambient, and none that can be gained.
    Capabilities,
    /// No core dumps, and no further processes or threads (RLIMIT_CORE, RLIMIT_NPROC).
    Limits,
    /// Its memory can be read by nobody without CAP_SYS_PTRACE (PR_SET_DUMPABLE).
    NotDumpable,
    /// Nothing that it might execute would gain privileges (PR_SET_NO_NEW_PRIVS).
    NoNewPrivileges,
    /// No files, no TCP ports, no signals to others (Landlock).
    Landlock,
    /// No system calls but those of a list (seccomp).
    Seccomp,
}

impl SandboxLayer {
    /// All of them, in the order in which a worker puts them on.
    pub const ALL: [Self; 7] = [
        Self::User,
        Self::Capabilities,
        Self::Limits,
        Self::NotDumpable,
        Self::NoNewPrivileges,
        Self::Landlock,
        Self::Seccomp,
    ];
}

impl fmt::Display for SandboxLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "own user",
            Self::Capabilities => "no capabilities",
            Self::Limits => "no core dumps or processes",
            Self::NotDumpable => "not dumpable",
            Self::NoNewPrivileges => "no new privileges",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        })
    }
}

/// A layer that a worker wanted and does not have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SandboxLack {
    /// The layer.
    pub layer: SandboxLayer,
    /// Why this system does without it.
    pub reason: String,
}

/// What confines a worker.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Sandbox {
    /// The layers that hold.
    pub holds: Vec<SandboxLayer>,
    /// The layers that were wanted and that this system does not have.
    pub lacks: Vec<SandboxLack>,
    /// The id of its own user.
    pub user: Option<u32>,
    /// The version of Landlock's interface; later ones restrict more.
    pub landlock_abi: Option<u8>,
}

impl fmt::Display for Sandbox {
    /// `seccomp, landlock (ABI 7), …; not: user (…)`, the strongest layer first.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, layer) in self.holds.iter().rev().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            match (layer, self.user, self.landlock_abi) {
                (SandboxLayer::User, Some(user), _) => write!(f, "{separator}user {user}")?,
                (SandboxLayer::Landlock, _, Some(abi)) => write!(f, "{separator}landlock (ABI {abi})")?,
                _ => write!(f, "{separator}{layer}")?,
            }
        }
        if self.holds.is_empty() {
            f.write_str("none")?;
        }
        for (index, lack) in self.lacks.iter().enumerate() {
            let separator = if index == 0 { "; not: " } else { ", " };
            write!(f, "{separator}{} ({})", lack.layer, lack.reason)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_in_one_line() {
        let whole = Sandbox {
            holds: SandboxLayer::ALL.to_vec(),
            lacks: Vec::new(),
            user: Some(65_534),
            landlock_abi: Some(7),
        };
        assert_eq!(
            whole.to_string(),
            "seccomp, landlock (ABI 7), no new privileges, not dumpable, no core dumps or processes, no capabilities, user 65534"
        );
        let lack = |layer, reason: &str| SandboxLack {
            layer,
            reason: reason.to_owned(),
        };
        let partly = Sandbox {
            holds: vec![SandboxLayer::Capabilities, SandboxLayer::Seccomp],
            lacks: vec![
                lack(SandboxLayer::Landlock, "ENOSYS"),
                lack(SandboxLayer::User, "EPERM"),
            ],
            ..Sandbox::default()
        };
        assert_eq!(
            partly.to_string(),
            "seccomp, no capabilities; not: landlock (ENOSYS), own user (EPERM)"
        );
        assert_eq!(Sandbox::default().to_string(), "none");
    }
}
