//! The picture of small rooms: what a forwarded packet costs and how long it takes, over the load, and what other servers cost for
//! such work.

use std::error::Error;
use std::fmt::Write as _;

/// Rooms of 4 peers that are measured: from a tenth of a core to nearly all of it.
pub(crate) const ROOMS: [u32; 5] = [15, 45, 90, 135, 180];

/// What each row of points is measured with, and its colour.
pub(crate) const WINDOWS: [(&str, &str, &str); 2] = [
    ("0", "no window (default)", "#2471a3"),
    ("1000", "window of 1 ms", "#c0392b"),
];

/// One run of `weir load --rooms`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) forwarded_pps: f64,
    pub(crate) worker_ns: f64,
    /// From sender to receiver, if known.
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
}

/// A server, as it was measured on another machine.
struct Elsewhere {
    name: &'static str,
    colour: &'static str,
    points: &'static [Point],
}

const fn point(forwarded_pps: f64, worker_ns: f64, p50_us: Option<f64>, p99_us: Option<f64>) -> Point {
    Point {
        forwarded_pps,
        worker_ns,
        p50_us,
        p99_us,
    }
}

/// Side by side on 29 November 2026 on two cores of an Intel Xeon, rooms of 4 peers with 50 packets of sound and 90 of video a second
/// from each: the servers in turns, in the same minutes. Weir as it was that day, with its window of then. At 252,000 packets/s
/// mediasoup's cost is from Weir's and the ratio of both; at 336,000 it lost packets.
const ELSEWHERE: [Elsewhere; 3] = [
    Elsewhere {
        name: "mediasoup 3.27.1",
        colour: "#7d6608",
        points: &[
            point(75_600.0, 4_407.0, Some(47.0), Some(1_800.0)),
            point(184_800.0, 4_215.0, Some(67.0), Some(9_700.0)),
            point(252_000.0, 3_736.0, None, None),
        ],
    },
    Elsewhere {
        name: "Janus 1.1.2",
        colour: "#1e8449",
        points: &[point(75_600.0, 3_662.0, Some(45.0), Some(800.0))],
    },
    Elsewhere {
        name: "Weir of that day",
        colour: "#2471a3",
        points: &[
            point(75_600.0, 3_085.0, Some(45.0), Some(750.0)),
            point(184_800.0, 2_580.0, Some(561.0), Some(6_800.0)),
            point(252_000.0, 2_615.0, Some(1_081.0), None),
            point(336_000.0, 2_573.0, Some(12_300.0), None),
        ],
    },
];

const LEFT: f64 = 64.0;
const PANEL_WIDTH: f64 = 330.0;
const GAP: f64 = 70.0;
const TOP: f64 = 64.0;
const CPU_HEIGHT: f64 = 230.0;
const DELAY_HEIGHT: f64 = 170.0;
const BETWEEN: f64 = 46.0;

/// Draws what was measured here, by window, beside what was measured elsewhere.
pub(crate) fn draw(here: &[Vec<Point>]) -> Result<String, Box<dyn Error>> {
    let mut svg = String::new();
    let (width, height) = (
        LEFT + 2.0 * PANEL_WIDTH + GAP + 20.0,
        TOP + CPU_HEIGHT + BETWEEN + DELAY_HEIGHT + 88.0,
    );
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">"#
    )?;
    writeln!(svg, r##"<rect width="{width}" height="{height}" fill="#fff"/>"##)?;
    writeln!(
        svg,
        r#"<text x="{LEFT}" y="22" font-size="15">Small rooms: 4 peers each, sound and video, everybody to everybody</text>"#
    )?;
    let elsewhere = || ELSEWHERE.iter().flat_map(|server| server.points);
    let all = || here.iter().flatten().chain(elsewhere());
    let most_ns = all().map(|point| point.worker_ns).fold(5_000.0, f64::max) * 1.08;
    let most_pps = all().map(|point| point.forwarded_pps).fold(0.0, f64::max) * 1.06;
    let panels = [
        (LEFT, "on this machine"),
        (LEFT + PANEL_WIDTH + GAP, "on another machine, 29 November 2026"),
    ];
    for (left, title) in panels {
        let panel = Panel {
            left,
            most_pps,
            most_ns,
        };
        panel.frame(&mut svg, title)?;
        if left == LEFT {
            for (place, (points, (_, name, colour))) in here.iter().zip(WINDOWS).enumerate() {
                panel.row(&mut svg, points, colour)?;
                panel.legend(&mut svg, place, name, colour)?;
            }
        } else {
            for (place, server) in ELSEWHERE.iter().enumerate() {
                panel.row(&mut svg, server.points, server.colour)?;
                panel.legend(&mut svg, place, server.name, server.colour)?;
            }
        }
    }
    let note = TOP + CPU_HEIGHT + BETWEEN + DELAY_HEIGHT + 62.0;
    writeln!(
        svg,
        r##"<text x="{LEFT}" y="{note}" fill="#555">Compare lines of one side only: the machines differ. Delay: from sender to receiver, median (solid) and p99 (dashed).</text>"##
    )?;
    writeln!(svg, "</svg>")?;
    Ok(svg)
}

/// Costs above, delays below, over the same loads.
struct Panel {
    left: f64,
    most_pps: f64,
    most_ns: f64,
}

impl Panel {
    fn x(&self, pps: f64) -> f64 {
        self.left + PANEL_WIDTH * pps / self.most_pps
    }

    fn y_cost(&self, ns: f64) -> f64 {
        TOP + CPU_HEIGHT * (1.0 - ns / self.most_ns)
    }

    /// Logarithmic, from 10 µs to 1 s.
    fn y_delay(us: f64) -> f64 {
        TOP + CPU_HEIGHT + BETWEEN + DELAY_HEIGHT * (1.0 - (us.clamp(10.0, 1e6) / 10.0).log10() / 5.0)
    }

    fn frame(&self, svg: &mut String, title: &str) -> std::fmt::Result {
        let (left, right) = (self.left, self.left + PANEL_WIDTH);
        let mut line = |y: f64, text: String| {
            writeln!(
                svg,
                r##"<line x1="{left}" x2="{right}" y1="{y:.1}" y2="{y:.1}" stroke="#e3e3e3"/>"##
            )?;
            writeln!(
                svg,
                r#"<text x="{}" y="{:.1}" text-anchor="end">{text}</text>"#,
                left - 6.0,
                y + 4.0
            )
        };
        let mut ns = 0.0;
        while ns <= self.most_ns {
            line(self.y_cost(ns), format!("{ns:.0}"))?;
            ns += 1_000.0;
        }
        for (us, text) in [
            (10.0, "10 µs"),
            (100.0, "100 µs"),
            (1e3, "1 ms"),
            (1e4, "10 ms"),
            (1e5, "100 ms"),
            (1e6, "1 s"),
        ] {
            line(Self::y_delay(us), text.to_owned())?;
        }
        let bottom = TOP + CPU_HEIGHT + BETWEEN + DELAY_HEIGHT;
        let mut pps = 100_000.0;
        while pps < self.most_pps {
            let x = self.x(pps);
            writeln!(
                svg,
                r##"<line x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}" stroke="#f0f0f0"/>"##
            )?;
            writeln!(
                svg,
                r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{:.0},000</text>"#,
                bottom + 16.0,
                pps / 1_000.0
            )?;
            pps += 100_000.0;
        }
        writeln!(
            svg,
            r#"<text x="{left}" y="{:.1}" font-weight="bold">{title}</text>"#,
            TOP - 20.0
        )?;
        writeln!(
            svg,
            r##"<text x="{left}" y="{:.1}" fill="#555">CPU per forwarded packet, ns</text>"##,
            TOP - 6.0
        )?;
        writeln!(
            svg,
            r##"<text x="{left}" y="{:.1}" fill="#555">delay</text>"##,
            TOP + CPU_HEIGHT + BETWEEN - 6.0
        )?;
        writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">forwarded packets per second</text>"#,
            left + PANEL_WIDTH / 2.0,
            bottom + 34.0
        )
    }

    fn row(&self, svg: &mut String, points: &[Point], colour: &str) -> std::fmt::Result {
        let mut line = |y: fn(&Self, &Point) -> Option<f64>, dashes: &str| {
            let places = points
                .iter()
                .filter_map(|point| Some((self.x(point.forwarded_pps), y(self, point)?)));
            let places: Vec<(f64, f64)> = places.collect();
            let list: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            writeln!(
                svg,
                r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>"#,
                list.join(" ")
            )?;
            for (x, y) in places {
                writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{colour}"/>"#)?;
            }
            Ok(())
        };
        line(|panel, point| Some(panel.y_cost(point.worker_ns)), "")?;
        line(|_, point| point.p50_us.map(Self::y_delay), "")?;
        line(|_, point| point.p99_us.map(Self::y_delay), r#" stroke-dasharray="5 4""#)
    }

    /// The name of a row, above the others' in the corner that costs leave free.
    fn legend(&self, svg: &mut String, place: usize, name: &str, colour: &str) -> std::fmt::Result {
        let (x, y) = (self.left + 8.0, TOP + CPU_HEIGHT - 12.0 - 16.0 * place as f64);
        writeln!(
            svg,
            r#"<line x1="{x}" x2="{}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>"#,
            x + 18.0
        )?;
        writeln!(
            svg,
            r#"<text x="{}" y="{}" fill="{colour}">{name}</text>"#,
            x + 24.0,
            y + 4.0
        )
    }
}
