//! Who a process is for the kernel: its user, its groups, its capabilities (credentials(7), capabilities(7)).

use std::fmt;
use std::str::FromStr;

use nix::errno::Errno;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities,
};

use super::failed;

/// The user and the group that a worker runs as. Written `65534:65534`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct User {
    /// The user's id.
    pub uid: u32,
    /// The group's id.
    pub gid: u32,
}

/// A text is not a [`User`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("not the ids of a user and a group, UID:GID, without privileges")]
pub struct NotAUser;

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

impl FromStr for User {
    type Err = NotAUser;

    fn from_str(text: &str) -> Result<Self, NotAUser> {
        let id = |text: &str| {
            text.parse()
                .ok()
                .filter(|id| (1..u32::MAX).contains(id))
                .ok_or(NotAUser)
        };
        let (uid, gid) = text.split_once(':').ok_or(NotAUser)?;
        Ok(Self {
            uid: id(uid)?,
            gid: id(gid)?,
        })
    }
}

/// Changes the user and the group of the process, and takes its supplementary groups.
///
/// # Errors
/// What the kernel says, in words; the user is then the old one.
pub fn change_user(user: User) -> Result<(), String> {
    // The server has what this process has, and signals cross users by this capability only.
    if !held()?.effective.contains(CapabilitySet::KILL) {
        return Err("without CAP_KILL the server could not end its worker".to_owned());
    }
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    setgroups(&[]).map_err(failed("setgroups"))?;
    setresgid(gid, gid, gid).map_err(failed("setresgid"))?;
    setresuid(uid, uid, uid).map_err(failed("setresuid"))
}

/// Empties the set of the capabilities that may be gained by executing a file. Without CAP_SETPCAP nobody may; then
/// PR_SET_NO_NEW_PRIVS, the next layer, sees to it that none is gained.
///
/// # Errors
/// What the kernel says, in words.
pub fn empty_bounding_set() -> Result<(), String> {
    if !held()?.effective.contains(CapabilitySet::SETPCAP) {
        return Ok(());
    }
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(capability) {
            Ok(true) => remove_capability_from_bounding_set(capability).map_err(refused("PR_CAPBSET_DROP"))?,
            Ok(false) => {}
            Err(rustix::io::Errno::INVAL) => break, // the kernel has no more
            Err(errno) => return Err(refused("PR_CAPBSET_READ")(errno)),
        }
    }
    Ok(())
}

/// Gives up all capabilities.
///
/// # Errors
/// What the kernel says, in words.
pub fn drop_capabilities() -> Result<(), String> {
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    // The ambient set is never larger than the permitted and the inheritable one, so the second call alone empties it.
    let ambient = clear_ambient_capability_set().map_err(refused("PR_CAP_AMBIENT"));
    set_capabilities(None, none).map_err(refused("capset"))?;
    let left = held()?;
    match left.effective.is_empty() && left.permitted.is_empty() && left.inheritable.is_empty() {
        true => Ok(()),
        false => ambient.and(Err("capset: some are left".to_owned())),
    }
}

fn held() -> Result<CapabilitySets, String> {
    capabilities(None).map_err(refused("capget"))
}

fn refused(call: &'static str) -> impl Fn(rustix::io::Errno) -> String {
    move |errno| failed(call)(Errno::from_raw(errno.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_read_as_it_is_written_and_is_not_root() {
        let user = User { uid: 65_534, gid: 100 };
        assert_eq!(user.to_string().parse(), Ok(user));
        for text in ["", "1", "0:1", "1:0", "1:", "-1:1", "1:4294967295", "nobody:nogroup"] {
            assert_eq!(text.parse::<User>(), Err(NotAUser), "{text}");
        }
    }
}
