//! What an object keeps for a floor above.

use std::any::Any;

/// Something that an object keeps while it is open: its sockets, or a task that reports on it. Dropping it ends that.
pub(crate) type Held = Box<dyn Any + Send>;
