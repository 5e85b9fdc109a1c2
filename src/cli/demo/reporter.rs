//! What is reported while the demo runs.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::mpsc;
use tokio::time::Instant;
use weir::{Event, Profile};
use weir_recordings::vp8::Resolution;

/// Events that may wait to be shown. They are few; if something breaks there are very many, and the first ones are enough.
const WAITING_MAX: usize = 1_024;

/// Reports events, each with its time. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Reporter {
    listener: mpsc::Sender<DemoEvent>,
    start: Arc<OnceLock<Instant>>,
}

impl Reporter {
    /// A reporter, and where to listen.
    pub(super) fn new() -> (Self, mpsc::Receiver<DemoEvent>) {
        let (listener, events) = mpsc::channel(WAITING_MAX);
        let start = Arc::default();
        (Self { listener, start }, events)
    }

    /// Times count from now on.
    pub(super) fn start(&self) {
        self.start.get_or_init(Instant::now);
    }

    /// How long ago that was; zero before.
    pub(super) fn elapsed(&self) -> Duration {
        self.start.get().map_or(Duration::ZERO, Instant::elapsed)
    }

    /// As [`Reporter::elapsed`], as events have it.
    pub(super) fn elapsed_ms(&self) -> u64 {
        self.elapsed().as_millis() as u64
    }

    /// Something that happens now.
    pub(super) fn event(&self, kind: DemoEventKind) -> DemoEvent {
        DemoEvent {
            at_ms: self.elapsed_ms(),
            kind,
        }
    }

    /// Reports an event. A listener that cannot keep up misses some; nothing waits for it.
    pub(super) fn report(&self, kind: DemoEventKind) {
        let _ = self.listener.try_send(self.event(kind));
    }
}

/// Something that happened.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DemoEvent {
    /// Counted from the first packet.
    pub(super) at_ms: u64,
    /// What.
    #[serde(flatten)]
    pub(super) kind: DemoEventKind,
}

/// What happened.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "type", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum DemoEventKind {
    /// The script did something.
    Step { target: &'static str, text: String },
    /// A consumer's stream began, or began again after a pause.
    Started {
        consumer: &'static str,
        profile: Profile,
        resolution: Option<String>,
    },
    /// A consumer's stream went over to another profile.
    Switched {
        consumer: &'static str,
        from: Profile,
        to: Profile,
        resolution: Option<String>,
    },
    /// A consumer's stream broke a promise; reported once for each promise.
    Fault {
        consumer: &'static str,
        check: &'static str,
        text: String,
    },
    /// The server says so.
    Server { event: Box<Event> },
}

impl DemoEventKind {
    /// Whom it is about.
    pub(super) fn target(&self) -> Option<&'static str> {
        match self {
            Self::Step { target, .. } => Some(target),
            Self::Started { consumer, .. } | Self::Switched { consumer, .. } | Self::Fault { consumer, .. } => {
                Some(consumer)
            }
            Self::Server { .. } => None,
        }
    }

    /// It in few words, without its target.
    pub(super) fn brief(&self) -> String {
        match self {
            // A step says what happens, then what that means.
            Self::Step { text, .. } => text.split(": ").next().unwrap_or(text).to_owned(),
            Self::Started { resolution: None, .. } => "starts".to_owned(),
            Self::Started { .. } => "starts on a key frame".to_owned(),
            Self::Switched { from, to, .. } => format!("{from} → {to} on a key frame"),
            Self::Fault { check, .. } => format!("breaks {check}"),
            Self::Server { .. } => self.words(),
        }
    }

    /// It in words, without its target.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Step { text, .. } => text.clone(),
            Self::Started {
                profile, resolution, ..
            } => match resolution {
                Some(resolution) => format!("starts on a key frame, {profile} {resolution}"),
                None => "starts".to_owned(),
            },
            Self::Switched {
                from, to, resolution, ..
            } => {
                let resolution = resolution.as_deref().unwrap_or("?");
                format!("switches from {from} to {to} on a key frame, {resolution}")
            }
            Self::Fault { check, text, .. } => format!("breaks {check}: {text}"),
            Self::Server { event } => format!("{:?}", event.kind),
        }
    }
}

/// A resolution as events have it.
pub(super) fn written(resolution: Option<Resolution>) -> Option<String> {
    resolution.map(|resolution| resolution.to_string())
}
