//! What can be looked up of a machine.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::thread::available_parallelism;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::resource::{Resource, getrlimit};
use weir::{Family, PortRange, Settings};

use super::Finding;

/// The first kernel that Weir supports, and the first that it recommends.
const KERNEL_MIN: (u32, u32) = (4, 18);
const KERNEL_GOOD: (u32, u32) = (6, 13);

/// What a transport takes of the server, and of its worker: a WebRTC transport over UDP and TCP.
const DESCRIPTORS_EACH: u64 = 3;

/// Fewer transports than a single CPU serves.
const TRANSPORTS_FEW: u64 = 1_000;

/// Looks at all of it.
pub(super) fn look(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![kernel(&read("/proc/sys/kernel/osrelease"), settings)];
    findings.push(cpus(settings, available_parallelism().map_or(1, usize::from)));
    findings.push(descriptors(
        getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(_, hard)| hard),
    ));
    findings.push(ports(
        settings.rtc_ports,
        &read("/proc/sys/net/ipv4/ip_local_port_range"),
        &read("/proc/sys/net/ipv4/ip_local_reserved_ports"),
    ));
    findings.push(buffers(
        "receive buffer",
        "rmem_max",
        &read("/proc/sys/net/core/rmem_max"),
        settings.socket_receive_buffer,
    ));
    findings.push(buffers(
        "send buffer",
        "wmem_max",
        &read("/proc/sys/net/core/wmem_max"),
        settings.socket_send_buffer,
    ));
    findings.push(address(settings, first_ipv4()));
    findings.push(clock(&read(
        "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    )));
    findings
}

/// What a file says; nothing if it cannot be read.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn kernel(release: &str, settings: &Settings) -> Finding {
    const CHECK: &str = "kernel";
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Finding::warn(
            CHECK,
            format_args!("unknown: {release:?}"),
            "Weir needs Linux 4.18 or later",
        );
    };
    let found = format!("Linux {release}");
    match (major, minor) {
        version if version < KERNEL_MIN => {
            Finding::fail(CHECK, found, Some("Weir supports Linux 4.18 or later".to_owned()))
        }
        version if version < KERNEL_GOOD && settings.webrtc_port.is_some() => {
            let advice = "with webrtc_port, Linux 6.13 or later gives each client its own socket buffer";
            Finding::warn(CHECK, found, advice)
        }
        _ => Finding::ok(CHECK, found),
    }
}

fn cpus(settings: &Settings, usable: usize) -> Finding {
    const CHECK: &str = "CPUs";
    match settings.workers.map(|workers| workers.get() as usize) {
        Some(workers) if workers > usable => Finding::warn(
            CHECK,
            format_args!("{workers} workers on {usable}"),
            "workers that share a CPU wait for each other: set `workers` to the number of CPUs, or leave it out",
        ),
        Some(workers) => Finding::ok(CHECK, format_args!("{workers} workers on {usable}")),
        None => Finding::ok(CHECK, format_args!("{usable}, with a worker on each")),
    }
}

fn descriptors(hard: u64) -> Finding {
    const CHECK: &str = "descriptors";
    let transports = hard / DESCRIPTORS_EACH;
    let found = format!("{hard} at most, for about {transports} transports");
    match transports {
        transports if transports < TRANSPORTS_FEW => {
            let advice = "raise LimitNOFILE in the unit file, or the hard limit of open files (ulimit -Hn)";
            Finding::warn(CHECK, found, advice)
        }
        _ => Finding::ok(CHECK, found),
    }
}

/// Two numbers with blanks between.
fn range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Whether `1000-2000,3000` has all ports of a range.
fn reserves(reserved: &str, (first, last): (u16, u16)) -> bool {
    reserved.split(',').any(|part| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        match (from.trim().parse::<u16>(), to.trim().parse::<u16>()) {
            (Ok(from), Ok(to)) => from <= first && last <= to,
            _ => false,
        }
    })
}

fn ports(own: PortRange, system: &str, reserved: &str) -> Finding {
    const CHECK: &str = "ports";
    let count = u32::from(own.max() - own.min()) + 1;
    let found = format!("{count} for media ({own})");
    let Some((first, last)) = range(system) else {
        return Finding::ok(CHECK, found);
    };
    let shared = (own.min().max(first), own.max().min(last));
    match shared.0 <= shared.1 && !reserves(reserved, shared) {
        // Those that others take are skipped.
        true => Finding::warn(
            CHECK,
            format_args!("{found}; the system gives {first}-{last} to whoever asks for any, so some may be taken"),
            format_args!(
                "sysctl net.ipv4.ip_local_reserved_ports={}-{}, or choose other rtc_ports",
                shared.0, shared.1
            ),
        ),
        false => Finding::ok(CHECK, found),
    }
}

fn buffers(check: &'static str, name: &str, max: &str, wanted: u32) -> Finding {
    match max.parse::<u32>() {
        // A server with CAP_NET_ADMIN gets more than that; whether it does, it says itself.
        Ok(max) if max < wanted => Finding::warn(
            check,
            format_args!("{max} bytes at most without CAP_NET_ADMIN; the settings want {wanted}"),
            format_args!("sysctl net.core.{name}={wanted}"),
        ),
        Ok(max) => Finding::ok(check, format_args!("{wanted} bytes of {max} at most")),
        Err(_) => Finding::ok(check, format_args!("{wanted} bytes; the system names no limit")),
    }
}

/// The first address that is not loopback's.
fn first_ipv4() -> Option<Ipv4Addr> {
    let mut interfaces = getifaddrs().ok()?.filter(|interface| {
        interface.flags.contains(InterfaceFlags::IFF_UP) && !interface.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    });
    interfaces.find_map(|interface| {
        let ip = interface.address?.as_sockaddr_in()?.ip();
        (!ip.is_link_local()).then_some(ip)
    })
}

fn address(settings: &Settings, first: Option<Ipv4Addr>) -> Finding {
    const CHECK: &str = "address";
    let local = match settings.rtc_ipv4 {
        Family::Off => return Finding::ok(CHECK, "no IPv4, by the settings"),
        Family::Address(ip) => ip,
        Family::Auto => match first {
            Some(ip) => ip,
            None => {
                let advice = "name one, e.g. rtc_ipv4 = \"127.0.0.1\", or rtc_ipv6";
                return Finding::warn(CHECK, "no network interface has an IPv4 address", advice);
            }
        },
    };
    if local.is_unspecified() {
        let advice = "name an address of this machine, or auto".to_owned();
        return Finding::fail(CHECK, format_args!("rtc_ipv4 = {local} is none"), Some(advice));
    }
    match settings.rtc_announced_ipv4 {
        Some(announced) => Finding::ok(CHECK, format_args!("{local}, announced as {announced}")),
        None if local.is_loopback() => Finding::warn(
            CHECK,
            format_args!("{local}: only this machine reaches it"),
            "set rtc_ipv4 to an address that clients reach, or leave it out",
        ),
        None if is_private(local) => Finding::warn(
            CHECK,
            format_args!("{local}, which is told to clients: the internet does not reach it"),
            "behind a NAT, set rtc_announced_ipv4 to its public address, and have it pass rtc_ports (or webrtc_port) on",
        ),
        None => Finding::ok(CHECK, IpAddr::from(local)),
    }
}

/// RFC 1918, or shared by a carrier's customers (RFC 6598).
fn is_private(ip: Ipv4Addr) -> bool {
    let [first, second, ..] = ip.octets();
    ip.is_private() || (first == 100 && second & 0xc0 == 64)
}

fn clock(source: &str) -> Finding {
    const CHECK: &str = "clock source";
    match source {
        // Each batch of packets is stamped: with these the kernel has to be called for it, or a device.
        "hpet" | "acpi_pm" | "xen" | "jiffies" | "refined-jiffies" => Finding::warn(
            CHECK,
            format_args!("{source}, which is slow to read"),
            "see /sys/devices/system/clocksource/clocksource0/available_clocksource for tsc, kvm-clock or arch_sys_counter",
        ),
        "" => Finding::ok(CHECK, "unknown"),
        source => Finding::ok(CHECK, source),
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU16, NonZeroU32};

    use super::super::Verdict;
    use super::*;

    #[test]
    fn each_thing_is_judged_and_what_is_wrong_comes_with_advice() {
        let settings = Settings::default();
        let one_port = Settings {
            webrtc_port: NonZeroU16::new(8443),
            ..Settings::default()
        };
        let many = Settings {
            workers: NonZeroU32::new(8),
            ..Settings::default()
        };
        let at = |local: &str, announced: Option<&str>| Settings {
            rtc_ipv4: Family::Address(local.parse().unwrap()),
            rtc_announced_ipv4: announced.map(|ip| ip.parse().unwrap()),
            ..Settings::default()
        };
        let range = |min, max| PortRange::new(min, max).unwrap();
        use Verdict::{Fail, Ok, Warn};
        for (finding, verdict) in [
            (kernel("6.18.0-1-cloud", &one_port), Ok),
            (kernel("6.12.3", &settings), Ok),
            (kernel("6.12.3", &one_port), Warn),
            (kernel("4.17.0", &settings), Fail),
            (kernel("", &settings), Warn),
            (cpus(&settings, 2), Ok),
            (cpus(&many, 8), Ok),
            (cpus(&many, 2), Warn),
            (descriptors(1_048_576), Ok),
            (descriptors(1_024), Warn),
            (ports(range(10_000, 59_999), "32768\t60999", ""), Warn),
            (ports(range(10_000, 59_999), "32768\t60999", "80,32768-60999"), Ok),
            (ports(range(10_000, 59_999), "32768\t60999", "40000-41000"), Warn),
            (ports(range(10_000, 20_000), "32768\t60999", ""), Ok),
            (ports(range(10_000, 59_999), "nonsense", "x-y"), Ok),
            (buffers("receive buffer", "rmem_max", "212992", 4 << 20), Warn),
            (buffers("receive buffer", "rmem_max", "4194304", 4 << 20), Ok),
            (buffers("receive buffer", "rmem_max", "", 4 << 20), Ok),
            (address(&settings, None), Warn),
            (address(&settings, Some(Ipv4Addr::new(203, 0, 113, 7))), Ok),
            (address(&at("192.168.1.5", None), None), Warn),
            (address(&at("100.64.1.5", None), None), Warn),
            (address(&at("192.168.1.5", Some("203.0.113.7")), None), Ok),
            (address(&at("127.0.0.1", None), None), Warn),
            (address(&at("0.0.0.0", None), None), Fail),
            (clock("tsc"), Ok),
            (clock("hpet"), Warn),
        ] {
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert_eq!(finding.advice.is_some(), verdict != Ok, "{finding:?}");
        }
    }
}
