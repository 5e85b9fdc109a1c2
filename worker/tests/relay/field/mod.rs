//! What real senders and receivers do, one module for each kind: what a field trial found, with the clause that says what is
//! right.

mod addresses;
mod cname;
