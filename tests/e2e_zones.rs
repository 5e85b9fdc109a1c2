//! Media between link-local addresses (RFC 4007): a server that has nothing else, a sender and a receiver beside it, in a
//! network of their own.
//!
//! `cargo test --test e2e_zones -- --ignored`; it needs `unshare`, `ip` and Python.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;
use std::process::Command;

/// The zone is said by its name to the server and in a request, and as the kernel knows it to the sockets of the others.
const SCRIPT: &str = r#"
set -e
ip link set lo up
ip link add lan0 type veth peer name lan1
ip link set lan0 up
ip link set lan1 up
for host in a b; do ip -6 addr add fe80::$host/64 dev lan0 nodad; done
weir serve --rtc-ipv4 off --rtc-ipv6 fe80::a%lan0 >/dev/null &
server=$!
trap 'kill $server' EXIT
tries=0
until weir ctl health >/dev/null 2>&1; do
  tries=$((tries + 1))
  test $tries -lt 300
  sleep 0.1
done
weir ctl room create
weir ctl transport create 1 --comedia --port 20000
weir ctl producer create 1 --codec opus --payload-type 111 --ssrc 1111
weir ctl transport create 1 --remote '[fe80::b%lan0]:5004'
weir ctl consumer create 2 1
python3 - <<'END'
import socket, struct
zone = socket.if_nametoindex("lan0")
receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
receiver.bind(("fe80::b", 5004, 0, zone))
receiver.settimeout(30)
sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sender.bind(("fe80::b", 20002, 0, zone))
for number in range(10):
    packet = struct.pack(">BBHII", 0x80, 111, number, number * 960, 1111) + b"sound"
    sender.sendto(packet, ("fe80::a", 20000, 0, zone))
packet, source = receiver.recvfrom(2048)
assert packet[12:] == b"sound", packet
assert source[0] == "fe80::a" and source[3] == zone, source
END
weir ctl transport show 1
"#;

#[test]
#[ignore = "makes a network of its own"]
fn media_goes_between_link_local_addresses() {
    let runtime = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_weir")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", SCRIPT])
        .env_clear()
        .env("PATH", path)
        .env("XDG_RUNTIME_DIR", runtime.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    // What was learned is shown with its zone.
    assert!(said.contains("[fe80::b%") && said.contains("]:20002"), "{said}");
}
