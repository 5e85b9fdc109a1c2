//! `/health`, `/stats`, `/settings`, `/workers`

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use weir_channel::id::WorkerId;
use weir_channel::message::{Coalescing, LogLevel, WorkerStats};

use super::answer::Reply;
use super::error::{ApiError, ErrorInfo};
use super::extract::{Body, Id};
use super::openapi::WellOrNot;
use super::state::{App, unknown};
use super::view::Listing;
use super::webhooks::WebhookStats;
use crate::{LogTag, Server, ServerDump, Settings, SettingsUpdate, Shortage, WorkerInfo, WorkerState};

/// The health of a server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Health {
    /// The state of the server.
    pub status: HealthStatus,
    /// The reasons why `status` is not `ok`, one sentence each.
    pub reasons: Vec<String>,
}

/// The state of a server in one word.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum HealthStatus {
    /// All workers run and accept new rooms and transports.
    Ok,
    /// Some workers do not run or do not answer, or the system has no capacity for more transports. The rooms that exist work; a restart
    /// of the server would end them.
    Degraded,
    /// No worker runs.
    Down,
}

impl Health {
    /// That of a server.
    pub(super) fn of_server(server: &Server) -> Self {
        Self::of(&server.workers(), server.closed(), server.shortage())
    }

    fn of(workers: &[WorkerInfo], closed: bool, shortage: Option<Shortage>) -> Self {
        if closed {
            return Self {
                status: HealthStatus::Down,
                reasons: vec!["the server is closing".to_owned()],
            };
        }
        let running = workers
            .iter()
            .filter(|worker| worker.state == WorkerState::Running)
            .count();
        let status = match running {
            0 => HealthStatus::Down,
            _ if workers.iter().all(is_well) && shortage.is_none() => HealthStatus::Ok,
            _ => HealthStatus::Degraded,
        };
        let mut reasons: Vec<String> = workers.iter().filter_map(reason).collect();
        if workers.is_empty() {
            reasons.push("there is no worker".to_owned());
        }
        reasons.extend(shortage.map(|shortage| shortage.to_string()));
        Self { status, reasons }
    }
}

fn is_well(worker: &WorkerInfo) -> bool {
    worker.state == WorkerState::Running && worker.timeouts == 0
}

/// What is wrong with a worker, if anything is.
fn reason(worker: &WorkerInfo) -> Option<String> {
    let doing = match worker.state {
        WorkerState::Running if is_well(worker) => return None,
        WorkerState::Running => {
            return Some(format!(
                "{} answers pings, but not the last {} of its requests",
                worker.id, worker.timeouts
            ));
        }
        WorkerState::Starting => "is starting",
        WorkerState::Restarting { .. } => "waits to be restarted",
        WorkerState::Closed => "is closed",
    };
    Some(match &worker.last_exit {
        Some(cause) => format!("{} {doing}: {cause}", worker.id),
        None => format!("{} {doing}", worker.id),
    })
}

pub(super) async fn health(State(app): State<Arc<App>>) -> WellOrNot<Health> {
    let health = Health::of_server(&app.server);
    let status = match health.status {
        HealthStatus::Ok | HealthStatus::Degraded => StatusCode::OK,
        HealthStatus::Down => StatusCode::SERVICE_UNAVAILABLE,
    };
    WellOrNot(status, health)
}

pub(super) async fn workers(State(app): State<Arc<App>>) -> Json<Listing<WorkerInfo>> {
    // At most 1,024; no parts are needed.
    Json(Listing {
        items: app.server.workers(),
        next: None,
    })
}

pub(super) async fn worker(State(app): State<Arc<App>>, Id(id): Id<WorkerId>) -> Reply<WorkerInfo> {
    let mut workers = app.server.workers().into_iter();
    workers
        .find(|worker| worker.id == id)
        .map(Json)
        .ok_or_else(|| unknown(id))
}

pub(super) async fn worker_stats(State(app): State<Arc<App>>, Id(id): Id<WorkerId>) -> Reply<WorkerStats> {
    Ok(Json(app.server.worker_stats(id).await?))
}

/// The counters of all workers.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct ServerStats {
    /// The sum over all workers that answered.
    pub total: WorkerStats,
    /// The counters of each worker.
    pub workers: Vec<StatsOfWorker>,
    /// What became of the events for each webhook.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<WebhookStats>,
}

/// The counters of one worker, or the reason why there are none.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize, schemars::JsonSchema)]
pub struct StatsOfWorker {
    /// The worker.
    pub worker: WorkerId,
    /// Its counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stats: Option<WorkerStats>,
    /// The reason why the worker did not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ErrorInfo>,
}

pub(super) async fn stats(State(app): State<Arc<App>>) -> Json<ServerStats> {
    let asked = app
        .server
        .workers()
        .into_iter()
        .map(|worker| stats_of(&app.server, worker.id));
    let workers = futures::future::join_all(asked).await;
    let mut total = WorkerStats::default();
    for stats in workers.iter().filter_map(|worker| worker.stats.as_ref()) {
        total.add(stats);
    }
    Json(ServerStats {
        total,
        workers,
        webhooks: app.webhooks.stats(),
    })
}

async fn stats_of(server: &Server, worker: WorkerId) -> StatsOfWorker {
    let (stats, error) = match server.worker_stats(worker).await {
        Ok(stats) => (Some(stats), None),
        Err(error) => (None, Some(ApiError::from(error).into())),
    };
    StatsOfWorker { worker, stats, error }
}

/// The settings that the server was started with, and the current values of those that can change.
#[derive(Debug, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct SettingsView {
    #[serde(flatten)]
    settings: Settings,
    /// Whether workers measure the residence time of packets.
    measure_residence: bool,
}

impl From<&Server> for SettingsView {
    fn from(server: &Server) -> Self {
        let log = server.log_settings();
        let coalescing = server.coalescing();
        Self {
            settings: Settings {
                log_level: log.level,
                log_tags: log.tags,
                workers: u32::try_from(server.num_workers()).ok().and_then(NonZeroU32::new),
                coalescing_us_max: coalescing.window_us_max,
                spin_us_max: coalescing.spin_us_max,
                ..server.settings().clone()
            },
            measure_residence: coalescing.measure_residence,
        }
    }
}

pub(super) async fn dump(State(app): State<Arc<App>>) -> Reply<ServerDump> {
    Ok(Json(app.server.dump().await?))
}

pub(super) async fn settings(State(app): State<Arc<App>>) -> Json<SettingsView> {
    Json(SettingsView::from(&app.server))
}

/// The settings to change; absent settings stay as they are.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SettingsChange {
    log_level: Option<LogLevel>,
    log_tags: Option<Vec<LogTag>>,
    coalescing_us_max: Option<u32>,
    spin_us_max: Option<u32>,
    measure_residence: Option<bool>,
}

pub(super) async fn update_settings(
    State(app): State<Arc<App>>,
    Body(change): Body<SettingsChange>,
) -> Reply<SettingsView> {
    // First, because it can be refused; then nothing has changed.
    if [change.coalescing_us_max, change.spin_us_max]
        .iter()
        .any(Option::is_some)
        || change.measure_residence.is_some()
    {
        let now = app.server.coalescing();
        let coalescing = Coalescing {
            window_us_max: change.coalescing_us_max.unwrap_or(now.window_us_max),
            spin_us_max: change.spin_us_max.unwrap_or(now.spin_us_max),
            measure_residence: change.measure_residence.unwrap_or(now.measure_residence),
        };
        app.server.set_coalescing(coalescing).await?;
    }
    if change.log_level.is_some() || change.log_tags.is_some() {
        let update = SettingsUpdate {
            log_level: change.log_level,
            log_tags: change.log_tags,
        };
        let updated = app.server.update_settings(update).await;
        // Also after an error: it holds for the workers that are started later.
        if let Some(hook) = &app.on_log_settings {
            hook(&app.server.log_settings());
        }
        updated?;
    }
    Ok(Json(SettingsView::from(&app.server)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeathCause;

    fn worker(id: u32, state: WorkerState) -> WorkerInfo {
        WorkerInfo {
            id: WorkerId(id),
            pid: None,
            cpu: None,
            state,
            rooms: 0,
            requests: 0,
            timeouts: 0,
            restarts: 0,
            restorations: 0,
            last_gap_ms: None,
            quarantined: 0,
            last_exit: None,
            ping_rtt_us: None,
            sandbox: None,
        }
    }

    #[test]
    fn health_is_told_with_reasons() {
        let running = worker(1, WorkerState::Running);
        let mut dead = worker(2, WorkerState::Restarting { after_ms: 100 });
        dead.last_exit = Some(DeathCause::ChannelClosed);
        let check = |workers: &[WorkerInfo], closed, status, reasons: &[&str]| {
            let health = Health::of(workers, closed, None);
            assert_eq!(
                (health.status, health.reasons),
                (status, reasons.iter().map(|r| (*r).to_owned()).collect())
            );
        };
        let because = format!("worker 2 waits to be restarted: {}", DeathCause::ChannelClosed);
        check(
            &[running.clone(), worker(2, WorkerState::Running)],
            false,
            HealthStatus::Ok,
            &[],
        );
        check(
            &[running.clone(), dead.clone()],
            false,
            HealthStatus::Degraded,
            &[&because],
        );
        check(&[dead], false, HealthStatus::Down, &[&because]);
        check(
            &[worker(1, WorkerState::Starting)],
            false,
            HealthStatus::Down,
            &["worker 1 is starting"],
        );
        check(&[], false, HealthStatus::Down, &["there is no worker"]);
        let late = WorkerInfo {
            timeouts: 2,
            ..worker(2, WorkerState::Running)
        };
        let because = "worker 2 answers pings, but not the last 2 of its requests";
        check(&[running.clone(), late], false, HealthStatus::Degraded, &[because]);
        let short = Health::of(std::slice::from_ref(&running), false, Some(Shortage::Memory));
        assert_eq!(
            (short.status, short.reasons),
            (HealthStatus::Degraded, vec![Shortage::Memory.to_string()])
        );
        check(&[running], true, HealthStatus::Down, &["the server is closing"]);
    }
}
