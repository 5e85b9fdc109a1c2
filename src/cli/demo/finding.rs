//! One check of the demo, and what came of it.

use anyhow::Result;
use serde::Serialize;

/// One check and what came of it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Finding {
    /// A stable name.
    pub(super) name: &'static str,
    /// Whether it holds.
    pub(super) passed: bool,
    /// What was found, in one line.
    pub(super) detail: String,
    /// Where it does not hold: the first few places.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) faults: Vec<String>,
}

impl Finding {
    /// What a step or a count came to.
    pub(super) fn of(name: &'static str, result: Result<String>) -> Self {
        match result {
            Ok(detail) => Self {
                name,
                passed: true,
                detail,
                faults: Vec::new(),
            },
            Err(error) => Self {
                name,
                passed: false,
                detail: error.to_string(),
                faults: error.chain().skip(1).map(ToString::to_string).collect(),
            },
        }
    }
}
