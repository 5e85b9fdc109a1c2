//! Reading the settings again while the server runs: SIGHUP.

use axum::Router;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::watch;
use tracing::{error, info, warn};
use weir::http::Guard;
use weir::settings::{Loaded, SettingsFlags};
use weir::{Coalescing, Server, SettingsUpdate};

use super::log::LogLevelHandle;
use super::ready;

/// What changes when the settings do.
pub(super) struct Reloading {
    /// On the command line and in the environment, which beat the file as they did at the start.
    pub(super) given: SettingsFlags,
    /// What holds.
    pub(super) running: Loaded,
    pub(super) server: Server,
    pub(super) log: LogLevelHandle,
    /// What is served over TCP, and what makes it for those whom a guard lets in.
    pub(super) tcp: Option<(watch::Sender<Router>, MakeGuarded)>,
}

pub(super) type MakeGuarded = Box<dyn Fn(Guard) -> Router + Send>;

impl Reloading {
    /// Reads them again, and does what they say as far as it can be done. If they are wrong, everything stays as it is. The service manager
    /// is told (sd_notify(3)).
    pub(super) async fn reload(&mut self) {
        ready::notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", monotonic_us()));
        match Loaded::load(&self.given) {
            Ok(later) => self.follow(&later).await,
            Err(error) => error!("the settings were read again and stay as they were: {error}"),
        }
        ready::notify("READY=1");
    }

    async fn follow(&mut self, later: &Loaded) {
        let (changed, left) = self.running.follow(later);
        if let (Some((app, guarded)), Some(tcp)) = (&self.tcp, &self.running.access.tcp)
            && changed.iter().any(|name| name.starts_with("http_token"))
        {
            drop(app.send_replace(guarded(tcp.guard.clone())));
        }
        // These may also have been changed by a command since.
        let settings = &self.running.settings;
        let coalescing = Coalescing {
            window_us_max: settings.coalescing_us_max,
            spin_us_max: settings.spin_us_max,
            ..self.server.coalescing()
        };
        let told = async {
            if coalescing != self.server.coalescing() {
                self.server.set_coalescing(coalescing).await?;
            }
            if settings.log() != self.server.log_settings() {
                let update = SettingsUpdate {
                    log_level: Some(settings.log_level),
                    log_tags: Some(settings.log_tags.clone()),
                };
                self.server.update_settings(update).await?;
            }
            Ok::<(), weir::Error>(())
        };
        let told = told.await;
        self.log.set(&self.server.log_settings());
        if let Err(error) = told {
            warn!(%error, "a worker has not taken over the settings");
        }
        info!(changed = list(&changed), "read the settings again");
        if !left.is_empty() {
            warn!(settings = list(&left), "these settings have changed and need a restart");
        }
    }
}

fn list(names: &[&str]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.join(", "),
    }
}

/// As systemd wants it: microseconds of CLOCK_MONOTONIC.
fn monotonic_us() -> i64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_sec() * 1_000_000 + now.tv_nsec() / 1_000)
}
