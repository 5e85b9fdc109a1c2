//! The user that workers run as, where the server may change users.

use nix::unistd::{Uid, User as Account, geteuid};
use weir_channel::message::SandboxMode;
use weir_worker::sandbox::User;

use crate::server::model::error::StartError;
use crate::server::model::settings::Settings;

/// Whom workers of a server that is started as root run as.
const DEFAULT: &str = "nobody";

/// The kernel's own idea of nobody (`/proc/sys/kernel/overflowuid`), for systems that have no list of users.
const OVERFLOW: User = User {
    uid: 65_534,
    gid: 65_534,
};

/// The user of the settings, or the default; `None` if workers keep the server's.
///
/// # Errors
/// When there is no such user, or it is root.
pub(crate) fn find(settings: &Settings) -> Result<Option<User>, StartError> {
    if settings.sandbox == SandboxMode::Off {
        return Ok(None);
    }
    match &settings.sandbox_user {
        Some(text) => named(text).map(Some).map_err(StartError::Settings),
        None if geteuid().is_root() => Ok(Some(named(DEFAULT).unwrap_or(OVERFLOW))),
        None => Ok(None),
    }
}

fn named(text: &str) -> Result<User, String> {
    if let Ok(user) = text.parse() {
        return Ok(user);
    }
    let account =
        Account::from_name(text).map_err(|errno| format!("sandbox_user {text:?} cannot be looked up: {errno}"))?;
    match account {
        Some(account) if account.uid == Uid::from_raw(0) || account.gid.as_raw() == 0 => Err(format!(
            "sandbox_user {text:?} has root's privileges, which workers must not have; choose another user"
        )),
        Some(account) => Ok(User {
            uid: account.uid.as_raw(),
            gid: account.gid.as_raw(),
        }),
        None => Err(format!(
            "sandbox_user {text:?}: there is no such user; make one, or give the ids as UID:GID"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_or_by_its_ids_and_is_not_root() {
        assert_eq!(named("1000:100"), Ok(User { uid: 1_000, gid: 100 }));
        for (text, reason) in [
            ("root", "root's privileges"),
            ("0:0", "no such user"),
            ("nobody at all", "no such user"),
        ] {
            let error = named(text).unwrap_err();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn workers_keep_the_users_of_servers_without_a_sandbox() {
        let settings = Settings {
            sandbox: SandboxMode::Off,
            sandbox_user: Some("nobody at all".to_owned()),
            ..Settings::default()
        };
        assert_eq!(find(&settings).unwrap(), None);
    }
}
