//! Numbers as people read them.

/// `1.24 Mbit/s`: three figures, decimal prefixes, as networks are measured.
pub(crate) fn bitrate(bits_per_second: u64) -> String {
    scaled(bits_per_second, "bit/s")
}

/// `1.24 MB`, decimal.
pub(crate) fn bytes(bytes: u64) -> String {
    scaled(bytes, "B")
}

fn scaled(value: u64, unit: &str) -> String {
    const PREFIXES: [&str; 6] = ["k", "M", "G", "T", "P", "E"];
    if value < 1000 {
        return format!("{value} {unit}");
    }
    let mut scaled = value as f64 / 1000.0;
    let mut prefix = 0;
    // 999.5 would be shown as 1000 with three figures.
    while scaled >= 999.5 && prefix + 1 < PREFIXES.len() {
        scaled /= 1000.0;
        prefix += 1;
    }
    let decimals = match scaled {
        s if s < 9.995 => 2,
        s if s < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$} {}{unit}", PREFIXES[prefix])
}

/// `1.24 s`, `15 ms`: a duration in nanoseconds, for counters.
pub(crate) fn duration_ns(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1_000),
        1_000_000..1_000_000_000 => format!("{} ms", ns / 1_000_000),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_figures() {
        let rows = [
            (0, "0 bit/s"),
            (999, "999 bit/s"),
            (1_000, "1.00 kbit/s"),
            (9_994, "9.99 kbit/s"),
            (9_995, "10.0 kbit/s"),
            (99_949, "99.9 kbit/s"),
            (99_950, "100 kbit/s"),
            (999_499, "999 kbit/s"),
            (999_500, "1.00 Mbit/s"),
            (1_240_000, "1.24 Mbit/s"),
            (u64::MAX, "18.4 Ebit/s"),
        ];
        for (value, expected) in rows {
            assert_eq!(bitrate(value), expected, "{value}");
        }
        assert_eq!(bytes(1_500), "1.50 kB");
    }

    #[test]
    fn durations() {
        assert_eq!(duration_ns(999_999), "999 µs");
        assert_eq!(duration_ns(15_000_000), "15 ms");
        assert_eq!(duration_ns(1_240_000_000), "1.24 s");
    }
}
