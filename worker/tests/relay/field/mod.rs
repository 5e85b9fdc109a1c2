//! What real senders and receivers do, one module for each kind: what a field trial found, with the clause that says what is
//! right.

mod activity;
mod addresses;
mod cname;
mod deaf_senders;
mod descriptors;
mod extensions;
mod filtered;
mod gear;
mod joins;
mod meetings;
mod picture_ids;
mod restarts;
mod starts;
