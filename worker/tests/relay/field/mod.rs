//! What real senders and receivers do, one module for each kind: what a field trial found, with the clause that says what is
//! right.

mod activity;
mod addresses;
mod cname;
mod descriptors;
mod devices;
mod extensions;
mod filtered;
mod joins;
mod meetings;
mod picture_ids;
mod restarts;
mod starts;
mod unresponsive_senders;
