//! `weir serve`: the server, controlled through its control socket, until a signal ends it.

mod log;
mod memory;
mod ready;
mod reload;
mod signals;
mod watchdog;

use std::convert::Infallible;
use std::fmt::Display;
use std::future::pending;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tracing::{info, warn};
use weir::Server;
use weir::http::{self, ControlOptions, ControlSocket, Limits};
use weir::settings::{Loaded, SettingsFlags, TcpAccess, unknown_variables};

use log::{LogFormat, LogLevelHandle};
use reload::{MakeGuarded, Reloading};
use signals::{Heard, Signals};
use watchdog::Watchdog;

/// How much longer than its workers clients may take to read the last answers and events.
const CLIENTS_MARGIN: Duration = Duration::from_secs(5);

/// How much longer than its workers the server may take to close before it gives up.
const CLOSE_MARGIN: Duration = Duration::from_secs(10);

/// The exit code for settings that cannot be used, as clap's for arguments that cannot.
const USAGE: u8 = 2;

/// Arguments of `weir serve`.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The control socket [default: $XDG_RUNTIME_DIR/weir.sock, for root /run/weir.sock, else /tmp/weir-<uid>.sock]
    #[arg(long, value_name = "PATH", env = "WEIR_CONTROL")]
    control: Option<PathBuf>,

    /// The format of log lines on standard error
    #[arg(long, value_enum, value_name = "FORMAT", env = "WEIR_LOG_FORMAT", default_value_t = LogFormat::Text)]
    log_format: LogFormat,

    /// Serve the demo page, a video call for people on this machine, on this loopback address [without an address:
    /// 127.0.0.1:4080]
    #[arg(long, env = "WEIR_DEMO_PAGE", value_name = "IP:PORT", num_args = 0..=1, value_parser = loopback,
          default_missing_value = "127.0.0.1:4080")]
    demo_page: Option<SocketAddr>,

    #[command(flatten)]
    settings: SettingsFlags,
}

/// An address that only this machine reaches.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "write an address like 127.0.0.1:4080".to_owned())?;
    match address.ip().is_loopback() {
        true => Ok(address),
        false => Err("the demo page lets everybody in who reaches it, so it is for loopback addresses only".to_owned()),
    }
}

impl ServeArgs {
    /// Serves until a signal ends it. `weir` is the whole program's command line, which knows all variables.
    pub(crate) fn run(self, weir: &clap::Command) -> ExitCode {
        let loaded = match Loaded::load(&self.settings) {
            Ok(loaded) => loaded,
            Err(error) => {
                complain(&error);
                return ExitCode::from(USAGE);
            }
        };
        let log = log::init(self.log_format, &loaded.settings.log());
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        for warning in unknown_variables(weir, names) {
            warn!("{warning}");
        }
        let runtime = match Builder::new_multi_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                complain(&format_args!("cannot start: {error}"));
                return ExitCode::FAILURE;
            }
        };
        match runtime.block_on(serve(self.control, self.demo_page, self.settings, loaded, log)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                complain(&format_args!("{error:#}"));
                ExitCode::FAILURE
            }
        }
    }
}

fn complain(error: &dyn Display) {
    // There is nowhere to report that this failed.
    let _ = writeln!(std::io::stderr(), "weir: {error}");
}

async fn serve(
    control: Option<PathBuf>,
    demo_page: Option<SocketAddr>,
    given: SettingsFlags,
    loaded: Loaded,
    log: LogLevelHandle,
) -> anyhow::Result<()> {
    let Loaded { settings, access, .. } = loaded.clone();
    // Before anything is made that a signal would leave behind.
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let close_timeout = settings.close_timeout + CLOSE_MARGIN;
    let limits = Limits {
        close: settings.close_timeout + CLIENTS_MARGIN,
        ..Limits::default()
    };
    let path = control.unwrap_or_else(http::default_path);
    // Before the workers, because it is what fails when a server is running already.
    let (socket, listener) = ControlSocket::bind(&path)?;
    let tcp = match access.tcp {
        Some(TcpAccess { listen, guard }) => {
            let listener = TcpListener::bind(listen).await;
            Some((listener.with_context(|| format!("cannot listen on {listen}"))?, guard))
        }
        None => None,
    };
    let demo_page = match demo_page {
        Some(listen) => {
            let listener = TcpListener::bind(listen).await;
            Some(listener.with_context(|| format!("cannot serve the demo page on {listen}"))?)
        }
        None => None,
    };
    let metrics = http::Metrics::default();
    // Already while the workers start, and until they have ended: probes are told so.
    let (end_metrics, metrics_end) = watch::channel(false);
    let mut serving_metrics = None;
    let mut metrics_address = None;
    if let Some(listen) = access.metrics {
        let listener = TcpListener::bind(listen).await;
        let listener = listener.with_context(|| format!("cannot serve metrics on {listen}"))?;
        metrics_address = listener.local_addr().ok();
        let app = http::metrics(metrics.clone(), listen);
        let limits = http::metrics_limits(limits);
        serving_metrics = Some(tokio::spawn(http::serve(listener, app, limits, metrics_end)));
    }
    // With port 0 the system has chosen one.
    let demo_address = demo_page.as_ref().and_then(|listener| listener.local_addr().ok());
    let tcp_address = tcp.as_ref().and_then(|(listener, _)| listener.local_addr().ok());
    let server = tokio::select! {
        server = Server::start(settings) => server.context("cannot start")?,
        // The workers that are up by now end with what is dropped here.
        name = signals.next_end() => {
            info!(signal = name, "ended before the server was up");
            return Ok(());
        }
    };
    let (close, closing) = watch::channel(false);
    let webhooks = access.webhooks;
    let options = ControlOptions {
        on_log_settings: Some(Arc::new({
            let log = log.clone();
            move |settings| log.set(settings)
        })),
        signalling: access.signalling,
        whip: access.whip,
        webhooks: webhooks.clone(),
        metrics: metrics.clone(),
        ..ControlOptions::default()
    };
    let app = http::app(server.clone(), options);
    let mut reloading = Reloading {
        given,
        running: loaded,
        server: server.clone(),
        log,
        tcp: None,
    };
    let serving_tcp = tcp.map(|(listener, guard)| {
        let (metrics, app) = (metrics.clone(), app.clone());
        let guarded: MakeGuarded = Box::new(move |guard| metrics.counted(http::guarded(app.clone(), guard)));
        let (guarded_app, served) = watch::channel(guarded(guard));
        reloading.tcp = Some((guarded_app, guarded));
        tokio::spawn(http::serve(listener, served, limits, closing.clone()))
    });
    let serving_demo = demo_page.map(|listener| {
        let app = metrics.counted(http::demo_page(server.clone(), app.clone()));
        tokio::spawn(http::serve(listener, app, limits, closing.clone()))
    });
    let serving = tokio::spawn(http::serve(listener, metrics.counted(app), limits, closing));
    let all_serving = [
        Some(&serving),
        serving_tcp.as_ref(),
        serving_demo.as_ref(),
        serving_metrics.as_ref(),
    ];
    let all_serving = all_serving
        .into_iter()
        .flatten()
        .map(JoinHandle::abort_handle)
        .collect();
    let pages = [
        ("demo page", demo_address, ""),
        ("metrics", metrics_address, "/metrics"),
    ];
    announce(&server, &socket, tcp_address, &pages);
    let mut sign_of_life = pin!(show_life(server.clone(), all_serving));
    let mut memory = pin!(memory::give_back());

    let name = tokio::select! {
        name = serve_until_end(&mut signals, &mut reloading) => name,
        never = &mut memory => match never {},
        never = &mut sign_of_life => match never {},
    };
    info!(signal = name, "closing");
    ready::notify("STOPPING=1");
    close.send_replace(true);
    // Streams of events end after the server's last event, so the server closes first.
    let closed = async {
        server.close().await;
        webhooks.finish(CLIENTS_MARGIN).await;
        for also in [serving_tcp, serving_demo].into_iter().flatten() {
            also.await?;
        }
        let served = serving.await;
        end_metrics.send_replace(true);
        if let Some(serving_metrics) = serving_metrics {
            serving_metrics.await?;
        }
        served
    };
    tokio::select! {
        closed = timeout(close_timeout, closed) => match closed {
            Ok(served) => served.context("the control interface failed")?,
            Err(_) => bail!("not closed within {}; the system ends the rest", humantime::format_duration(close_timeout)),
        },
        name = signals.next_end() => {
            warn!(signal = name, "exiting at once");
            drop(socket);
            // The workers die with this process: each has asked the kernel for that (PR_SET_PDEATHSIG).
            std::process::exit(130);
        }
        never = &mut sign_of_life => match never {},
    }
    Ok(())
}

/// Reads the settings again whenever a signal says so; returns the name of the one that ends the server.
async fn serve_until_end(signals: &mut Signals, reloading: &mut Reloading) -> &'static str {
    loop {
        match signals.next().await {
            Heard::End(name) => return name,
            Heard::Reload => reloading.reload().await,
        }
    }
}

/// Gives signs of life to a service manager that wants them, as long as the server lives and whatever it serves is served.
async fn show_life(server: Server, serving: Vec<AbortHandle>) -> Infallible {
    let (Some(watchdog), Some(manager)) = (Watchdog::from_environment(), ready::Manager::from_environment()) else {
        return pending().await;
    };
    let prove_alive = async || {
        server.prove_alive().await;
        // They end only when the server closes, unless they have panicked.
        if !server.closed() && serving.iter().any(AbortHandle::is_finished) {
            pending().await
        }
    };
    watchdog.watch(manager, prove_alive).await
}

/// Says on standard output, and to the service manager if there is one, that clients can connect.
fn announce(
    server: &Server,
    socket: &ControlSocket,
    tcp: Option<SocketAddr>,
    pages: &[(&str, Option<SocketAddr>, &str)],
) {
    let workers = server.workers().len();
    let plural = if workers == 1 { "" } else { "s" };
    let version = env!("CARGO_PKG_VERSION");
    let path = socket.path().display();
    let also = tcp.map(|address| format!(" and {address}")).unwrap_or_default();
    let pages: String = pages
        .iter()
        .filter_map(|(name, address, path)| Some(format!(", {name} http://{}{path}", (*address)?)))
        .collect();
    info!(workers, control = %path, tcp = tcp.map(tracing::field::display), "ready");
    // Nobody has to read it.
    let _ = writeln!(
        std::io::stdout(),
        "weir {version} is ready: {workers} worker{plural}{pages}, control socket {path}{also}"
    );
    let _ = std::io::stdout().flush();
    ready::notify("READY=1");
}
