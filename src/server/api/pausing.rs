//! Pausing and resuming, which producers and consumers have alike.

use serde_json::Value;

use crate::server::api::consumer::Consumer;
use crate::server::api::producer::Producer;
use crate::server::model::error::Error;
use crate::server::model::lock;
use crate::server::model::side::Side;
use crate::server::model::state::Pausable;

/// Gives a handle the methods that pause and resume, with what is said of each.
macro_rules! pausable {
    ($handle:ident, $pause:literal, $resume:literal) => {
        impl $handle {
            /// Whether the application has paused it.
            pub fn locally_paused(&self) -> bool {
                lock(&self.node.state).pause_state.is_paused_by(Side::Local)
            }

            /// Whether its client holds it paused.
            pub fn remotely_paused(&self) -> bool {
                lock(&self.node.state).pause_state.is_paused_by(Side::Remote)
            }

            #[doc = $pause]
            /// Pausing what is paused does nothing.
            ///
            /// Calls take effect in the order in which they are made (first polled): after concurrent pauses and resumes the
            /// state is that of the last one the worker accepted.
            ///
            /// # Errors
            /// [`Error::InvalidState`] when it is closed.
            pub async fn pause(&self, app_data: Value) -> Result<(), Error> {
                self.pause_by(Side::Local, app_data).await
            }

            #[doc = $resume]
            /// Resuming what is not paused does nothing. While its client holds it paused, too, it stays so.
            ///
            /// # Errors
            /// [`Error::InvalidState`] when it is closed.
            pub async fn resume(&self, app_data: Value) -> Result<(), Error> {
                self.resume_by(Side::Local, app_data).await
            }

            /// [`Self::pause`] for one of the two who may.
            pub async fn pause_by(&self, side: Side, app_data: Value) -> Result<(), Error> {
                self.set_paused(side, true, app_data).await
            }

            /// [`Self::resume`] for one of the two who may.
            pub async fn resume_by(&self, side: Side, app_data: Value) -> Result<(), Error> {
                self.set_paused(side, false, app_data).await
            }

            async fn set_paused(&self, side: Side, paused: bool, app_data: Value) -> Result<(), Error> {
                let changed = self.shared.call(self.worker(), |state| {
                    state.plan_pause(Pausable::$handle(self.node.id), side, paused, app_data)
                });
                changed.await.map(drop)
            }
        }
    };
}

pausable! { Producer,
    "Stops relaying it to anyone, for the application; its packets are still received and counted.",
    "Takes the application's pause back; video is relayed from its next key frame, which is asked for."
}

pausable! { Consumer,
    "Stops sending to it, for the application.",
    "Takes the application's pause back; video goes on from the next key frame, which is asked for."
}
