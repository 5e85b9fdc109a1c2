//! Who gets the statistics of a transport, producer or consumer every so often.

use crate::server::model::error::Error;
use crate::server::model::held::Held;
use crate::server::model::side::Side;

/// Who gets a thing's statistics. Kept with the thing, under its lock, and dropped when it is closed.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    application: Option<Held>,
    client: Option<Held>,
}

impl Reports {
    fn of(&mut self, side: Side) -> &mut Option<Held> {
        match side {
            Side::Local => &mut self.application,
            Side::Remote => &mut self.client,
        }
    }

    /// Does nothing if that side gets them already.
    pub(crate) fn begin(&mut self, side: Side, report: impl FnOnce() -> Result<Held, Error>) -> Result<(), Error> {
        let running = self.of(side);
        if running.is_none() {
            *running = Some(report()?);
        }
        Ok(())
    }

    pub(crate) fn end(&mut self, side: Side) {
        *self.of(side) = None;
    }
}
