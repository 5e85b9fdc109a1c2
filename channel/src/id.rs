//! Identifiers that cross the channel.
//!
//! The supervisor makes all of them; a worker refuses one it already knows and one it does not know. They are unique
//! for the life of a server and never reused (differences §1.2: v2 drew them at random without a collision check, and
//! let clients choose some of them).

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $int:ty, $noun:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($noun, " {}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

id!(
    /// A worker process, numbered from 1 in its server. A worker that replaces a dead one has the same number.
    WorkerId, u32, "worker"
);
id!(
    /// A request on one channel, numbered from 1 by the supervisor; answered exactly once.
    RequestId, u64, "request"
);
id!(
    /// A room, and the router inside the worker that serves it.
    RoomId, u64, "room"
);
id!(
    /// A transport of a room.
    TransportId, u64, "transport"
);
id!(
    /// A producer of a room.
    ProducerId, u64, "producer"
);
id!(
    /// A consumer of a room.
    ConsumerId, u64, "consumer"
);
