//! What Landlock denies (landlock(7)): access to everything that has a name.
//!
//! Sockets and files that are open already are not affected. Restrictions of UDP, which Landlock has from version 10 of its interface,
//! are not used: transports connect their sockets to the peers that they learn.

use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope,
};

/// The version of the interface whose restrictions are asked for. Older kernels have fewer, which are used as far as they go.
const KNOWN: ABI = ABI::V7;

/// Denies files, TCP ports, abstract Unix sockets of others, and signals to others. Returns the version of the kernel's interface, of
/// those that the library knows.
///
/// # Errors
/// Why there is none of it, in words.
pub fn deny_all() -> Result<u8, String> {
    let status = restrict().map_err(|error| error.to_string())?;
    match (status.landlock, status.ruleset) {
        (LandlockStatus::NotEnabled, _) => Err("switched off when this system was booted".to_owned()),
        (LandlockStatus::NotImplemented, _) => Err("this kernel has none, it came with Linux 5.13".to_owned()),
        (_, RulesetStatus::NotEnforced) => Err("nothing of it could be used".to_owned()),
        (LandlockStatus::Available { effective_abi, .. }, _) => Ok(effective_abi as u8),
    }
}

/// Whether a version of the interface denies all that is to be denied. What an older one denies stays denied.
///
/// # Errors
/// What it leaves open, in words.
pub fn check_version(version: u8) -> Result<(), String> {
    match version >= ABI::V4 as u8 {
        true => Ok(()),
        false => Err(format!(
            "version {version} denies files, but not TCP, which it does from Linux 6.7 on"
        )),
    }
}

fn restrict() -> Result<landlock::RestrictionStatus, RulesetError> {
    Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .restrict_self()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leaves_tcp_open_is_no_whole_layer() {
        assert_eq!(
            [1, 3, 4, 7].map(|version| check_version(version).is_ok()),
            [false, false, true, true]
        );
    }
}
