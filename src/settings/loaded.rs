//! Settings as a server runs with them, and what is different when they are read again.

use super::{Access, SettingsError, SettingsFlags};
use crate::server::Settings;

/// What was given, with what the settings file and the files of tokens say at the moment.
#[derive(Clone, Debug)]
pub struct Loaded {
    flags: SettingsFlags,
    /// The server's.
    pub settings: Settings,
    /// Who is served, and how.
    pub access: Access,
}

impl Loaded {
    /// Reads the files that `given` names.
    ///
    /// # Errors
    /// When a file cannot be read or understood, or when the settings make no sense together.
    pub fn load(given: &SettingsFlags) -> Result<Self, SettingsError> {
        let flags = given.clone().with_file()?;
        let access = flags.access()?;
        Ok(Self {
            settings: flags.clone().settings()?,
            access,
            flags,
        })
    }

    /// Takes from `later` what a server can change while it runs. Returns the names of the settings that have changed thereby, and of
    /// those that are different in `later` and need a restart.
    pub fn follow(&mut self, later: &Self) -> (Vec<&'static str>, Vec<&'static str>) {
        let (before, file) = (self.clone(), &later.flags);
        self.settings = Settings {
            log_level: later.settings.log_level,
            log_tags: later.settings.log_tags.clone(),
            coalescing_us_max: later.settings.coalescing_us_max,
            spin_us_max: later.settings.spin_us_max,
            ..self.settings.clone()
        };
        if let (Some(own), Some(other)) = (&mut self.access.tcp, &later.access.tcp) {
            own.guard.operators.clone_from(&other.guard.operators);
            self.flags.http_token.clone_from(&file.http_token);
            self.flags.http_token_file.clone_from(&file.http_token_file);
        }
        let mut changed = self.differences(&before);
        // Who serves has clones, which are the same keys.
        if let (Some(own), Some(other)) = (&self.access.token_keys, &later.access.token_keys)
            && own.follow(other)
        {
            changed.push("token_keys");
        }
        (changed, self.differences(later))
    }

    fn differences(&self, other: &Self) -> Vec<&'static str> {
        let mut names = SettingsFlags::differences((&self.flags, &self.settings), (&other.flags, &other.settings));
        // The same file says something else.
        let operators = |loaded: &Self| loaded.access.tcp.as_ref().map(|tcp| tcp.guard.operators.clone());
        if operators(self) != operators(other) && !names.iter().any(|name| name.starts_with("http_")) {
            names.push("http_token_file");
        }
        let is_same = self.access.signalling.token == other.access.signalling.token;
        if !is_same && !names.iter().any(|name| name.starts_with("client_token")) {
            names.push("client_token_file");
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_can_change_does_and_what_cannot_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let text = |more: &str| {
            format!(
                "http_listen = \"127.0.0.1:8080\"\nhttp_token_file = {:?}\nclient_token_file = {:?}\n{more}",
                path("operators"),
                path("clients")
            )
        };
        let write = |operators: &str, clients: &str, more: &str| {
            fs::write(path("operators"), operators).unwrap();
            fs::write(path("clients"), clients).unwrap();
            fs::write(path("weir.toml"), text(more)).unwrap();
        };
        let (first, second, third) = ["0123456789abcdef", "fedcba9876543210", "00112233445566778899"].into();
        let given = SettingsFlags {
            config: Some(path("weir.toml")),
            ..SettingsFlags::default()
        };
        write(first, second, "workers = 2");
        let mut running = Loaded::load(&given).unwrap();
        let nothing: [&str; 0] = [];
        assert_eq!(
            running.follow(&Loaded::load(&given).unwrap()),
            (nothing.to_vec(), nothing.to_vec())
        );

        // A default that is written down is no change.
        write(
            third,
            second,
            "workers = 2\nspin_us_max = 7\nlog_level = \"info\"\nrtc_udp = true",
        );
        let (changed, left) = running.follow(&Loaded::load(&given).unwrap());
        assert_eq!(changed, ["log_level", "spin_us_max", "http_token_file"]);
        assert_eq!(left, nothing);
        assert_eq!(running.settings.spin_us_max, 7);
        let token = |loaded: &Loaded| loaded.access.tcp.clone().unwrap().guard.operators;
        assert_eq!(token(&running), Some(third.parse().unwrap()));

        // What cannot be changed is named each time, and holds as it was.
        write(
            third,
            "another-token-of-clients",
            "workers = 3\nwebrtc_port = 8443\nclients_max = 5",
        );
        for expected in [vec!["log_level", "spin_us_max"], Vec::new()] {
            let (changed, left) = running.follow(&Loaded::load(&given).unwrap());
            assert_eq!(changed, expected);
            assert_eq!(left, ["workers", "webrtc_port", "clients_max", "client_token_file"]);
        }
        assert_eq!(running.settings.workers.map(u32::from), Some(2));
        assert_eq!(running.access.signalling.token, Some(second.parse().unwrap()));

        // Nobody gets in who did not: without a token for clients, those of this machine would be let in, or everybody.
        let before = running.access.tcp.clone().unwrap().guard.clients;
        fs::write(
            path("weir.toml"),
            format!(
                "http_listen = \"127.0.0.1:8080\"\nhttp_token_file = {:?}\n",
                path("operators")
            ),
        )
        .unwrap();
        let (_, left) = running.follow(&Loaded::load(&given).unwrap());
        assert!(left.contains(&"client_token_file"), "{left:?}");
        assert_eq!(running.access.tcp.clone().unwrap().guard.clients, before);
        assert_eq!(running.access.signalling.token, Some(second.parse().unwrap()));

        // Keys of access tokens come and go. Those of another place need a restart.
        let keys = path("keys");
        fs::create_dir(&keys).unwrap();
        let add = |name: &str| {
            let file = keys.join(name);
            fs::write(&file, format!("{name}-secret-of-forty-characters-or-more")).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        };
        add("old.key");
        write(third, second, &format!("token_keys = {keys:?}"));
        let mut running = Loaded::load(&given).unwrap();
        let served = running.access.signalling.token_keys.clone().unwrap();
        let mut again = || running.follow(&Loaded::load(&given).unwrap()).0;
        assert_eq!(again(), nothing);
        add("new.key");
        assert_eq!(
            (again(), served.names()),
            (vec!["token_keys"], vec!["new".to_owned(), "old".to_owned()])
        );
        fs::remove_file(keys.join("old.key")).unwrap();
        assert_eq!((again(), served.names()), (vec!["token_keys"], vec!["new".to_owned()]));
        write(third, second, &format!("token_keys = {:?}", keys.join("new.key")));
        assert_eq!(
            running.follow(&Loaded::load(&given).unwrap()),
            (Vec::new(), vec!["token_keys"])
        );

        for bad in [
            "workers = many",
            "workers = 0",
            "coalescing_us_max = 99999",
            "http_token = \"0123456789abcdef\"",
        ] {
            fs::write(path("weir.toml"), text(bad)).unwrap();
            assert!(Loaded::load(&given).is_err(), "{bad}");
        }
    }
}
