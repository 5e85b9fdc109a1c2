//! The two who may do something.

use serde::{Deserialize, Serialize};

/// On whose behalf something is done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Side {
    /// The application's.
    #[default]
    Local,
    /// The remote client's.
    Remote,
}
