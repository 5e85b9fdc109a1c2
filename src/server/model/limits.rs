//! How much of everything a room's peers may have. Clients are hostile: each thing that a client can ask for is counted.

/// Peers in one room. Each of them receives from all others, so a room's consumers grow with the square.
pub(crate) const PEERS_MAX: usize = 1_000;

/// Bytes in a peer's name.
pub(crate) const PEER_NAME_BYTES_MAX: usize = 255;

/// Transports of one peer, each of which holds ports and descriptors. Clients of mediasoup v2 make two.
pub(crate) const TRANSPORTS_PER_PEER_MAX: usize = 16;

/// Producers of one peer: a microphone, cameras and screens, with room to spare. Each costs every other peer a consumer.
pub(crate) const PRODUCERS_PER_PEER_MAX: usize = 32;

/// Consumers in one room, those included that producers on their way to it will bring. At about 1 KiB each, a room is held
/// to some 100 MiB.
pub(crate) const CONSUMERS_PER_ROOM_MAX: usize = 100_000;

/// Things whose statistics one client is told, each up to once a second and by a question or two to the worker: sound and
/// picture of a hundred others, and its own.
pub(crate) const REPORTS_PER_PEER_MAX: usize = 256;

/// Notifications that wait for a peer's client before it is given up. A client that joins the largest room that
/// [`CONSUMERS_PER_ROOM_MAX`] allows hears of each peer's two producers one by one and still fits in.
pub(crate) const NOTIFICATIONS_MAX: usize = 4_096;

/// Bytes of the notifications that wait for a peer's client before it is given up: 1 KiB for each of [`NOTIFICATIONS_MAX`].
pub(crate) const NOTIFICATION_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of the app data of a room's peers and of their producers, as they are in memory. Everybody who joins is sent all of it.
pub(crate) const APP_DATA_BYTES_PER_ROOM_MAX: usize = 1024 * 1024;

/// Bytes that wait for all clients of a server together, from which on each may have an equal share of it and no more: 6 KiB for
/// each of 10,000 clients.
pub(crate) const CLIENT_MEMORY_BYTES_MAX: usize = 64 * 1024 * 1024;
