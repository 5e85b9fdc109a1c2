//! Networks that only this program and those it starts have: whatever is sent in them meets nobody else, and there are addresses of
//! IPv6 enough for everybody to have a network of their own.

use std::iter::Peekable;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use crate::arena::NETWORKS;

/// By which the program knows that it is in its own networks, or that it could not get there.
const WITHIN: &str = "in-networks-of-its-own";
const WITHOUT: &str = "in-the-networks-of-all";

/// Has the loopback interface serve a whole network, as if each of its addresses were assigned.
const SET_UP: &str =
    "ip link set lo up && ip -6 route add local $0 dev lo && echo 1 >/proc/sys/net/ipv6/ip_nonlocal_bind";

/// Starts the program anew in networks of its own, and returns then and there `true`; or `false`, if this user may not have any.
pub(crate) fn enter(arguments: &mut Peekable<impl Iterator<Item = String>>) -> bool {
    if arguments.next_if(|first| first == WITHIN).is_some() {
        return true;
    }
    // Within a user's own namespace its workers would be other than they are: they see that they are root.
    let is_possible = nix::unistd::geteuid().is_root() && {
        let mut unshare = Command::new("unshare");
        unshare.args(["--net", "true"]).stderr(Stdio::null());
        unshare.status().is_ok_and(|status| status.success())
    };
    if arguments.next_if(|first| first == WITHOUT).is_some() || !is_possible {
        return false;
    }
    let networks = format!("{:x}:{:x}::/32", NETWORKS[0], NETWORKS[1]);
    let program = std::env::current_exe().unwrap();
    let script =
        format!("if sh -c '{SET_UP}' {networks}; then how={WITHIN}; else how={WITHOUT}; fi; exec \"$0\" $how \"$@\"");
    let mut command = Command::new("unshare");
    command
        .args(["--net", "sh", "-c", &script])
        .arg(program)
        .args(arguments);
    panic!("the program cannot be started anew: {}", command.exec());
}
