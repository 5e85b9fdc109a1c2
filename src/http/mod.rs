//! The control interface: HTTP and JSON on a Unix socket, for operators and for programs beside the server.
//!
//! [`ControlSocket`] takes the socket's path, [`serve`] answers on it what [`app`] defines. The routes are described in
//! `docs/api.md`, whose examples a test runs.

mod error;
mod event_log;
mod extract;
mod listen;
mod socket;

pub use error::{ApiError, ErrorBody, ErrorInfo};
pub use extract::BODY_BYTES_MAX;
pub use listen::{Limits, serve};
pub use socket::{BindError, ControlSocket, default_path};
