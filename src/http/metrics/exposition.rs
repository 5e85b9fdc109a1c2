//! Metrics as text: OpenMetrics 1.0, or Prometheus' own older format.

use std::fmt::{self, Write as _};

use axum::http::{HeaderMap, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::family::{Family, Kind, Value};

/// How they are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Format {
    /// The [text format](https://prometheus.io/docs/instrumenting/exposition_formats/) of Prometheus, which everything reads.
    Classic,
    /// [OpenMetrics](https://prometheus.io/docs/specs/om/open_metrics_spec/), for those who ask for it, as Prometheus does.
    OpenMetrics,
}

impl Format {
    /// What a request accepts.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let accepted = headers.get_all(header::ACCEPT).iter();
        let mut accepted = accepted.filter_map(|value| value.to_str().ok());
        match accepted.any(|value| value.contains("application/openmetrics-text")) {
            true => Self::OpenMetrics,
            false => Self::Classic,
        }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Writes them.
pub(super) fn encode(families: &[Family], format: Format) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Families(families.to_vec())));
    let mut text = String::with_capacity(64 * 1024);
    // Nothing is refused by a string.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    match format {
        Format::OpenMetrics => text,
        Format::Classic => classic(&text),
    }
}

#[derive(Debug)]
struct Families(Vec<Family>);

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for family in &self.0 {
            let kind = match family.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
                Kind::Info => MetricType::Info,
                Kind::Histogram => MetricType::Histogram,
            };
            let mut metric = encoder.encode_descriptor(&family.name, family.help, None, kind)?;
            for (labels, value) in &family.samples {
                match (family.kind, labels.is_empty()) {
                    (Kind::Info, _) => metric.encode_info(labels)?,
                    (kind, true) => sample(&mut metric, kind, value)?,
                    (kind, false) => sample(&mut metric.encode_family(labels)?, kind, value)?,
                }
            }
        }
        Ok(())
    }
}

fn sample(metric: &mut MetricEncoder<'_>, kind: Kind, value: &Value) -> fmt::Result {
    match (kind, value) {
        (Kind::Counter, Value::Whole(number)) => metric.encode_counter::<NoLabelSet, u64, f64>(number, None),
        (Kind::Counter, Value::Real(number)) => metric.encode_counter::<NoLabelSet, f64, f64>(number, None),
        (_, Value::Whole(number)) => metric.encode_gauge(&i64::try_from(*number).unwrap_or(i64::MAX)),
        (_, Value::Real(number)) => metric.encode_gauge(number),
        (_, Value::Distribution { sum, buckets }) => {
            let count = buckets.iter().map(|(_, count)| count).sum();
            metric.encode_histogram::<NoLabelSet>(*sum, count, buckets, None)
        }
    }
}

/// The older format's text: it names counters and infos with their endings where it describes them, and has no end.
fn classic(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len() + 1024);
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ');
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            let (ending, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                other => ("", other),
            };
            let help = help.take().map_or("", |(_, help)| help);
            // Nothing is refused by a string.
            let _ = write!(text, "# HELP {name}{ending} {help}\n# TYPE {name}{ending} {kind}\n");
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::family::label;
    use super::*;

    fn families() -> Vec<Family> {
        let mut dropped = Family::new(Kind::Counter, "weir_dropped", "Packets");
        dropped.push(
            [label("worker", "1"), label("reason", "padding")],
            Value::Whole(u64::MAX),
        );
        let mut duration = Family::new(Kind::Histogram, "weir_duration_seconds", "Time");
        let buckets = vec![(0.5, 2), (f64::INFINITY, 1)];
        duration.push([label("route", "/")], Value::Distribution { sum: 3.5, buckets });
        let mut build = Family::new(Kind::Info, "weir_build", "The program");
        build.push([label("version", "1.2.3")], Value::Whole(1));
        vec![
            Family::new(Kind::Gauge, "weir_ready", "Whether").of(Value::Whole(1)),
            Family::new(Kind::Counter, "weir_cpu_seconds", "CPU time").of(Value::Real(0.25)),
            dropped,
            duration,
            build,
            Family::new(Kind::Gauge, "weir_nothing", "No samples"),
        ]
    }

    #[test]
    fn both_formats_say_the_same() {
        let open = encode(&families(), Format::OpenMetrics);
        assert!(open.ends_with("\n# EOF\n"), "{open}");
        let samples = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect()
        };
        let classic = encode(&families(), Format::Classic);
        assert_eq!(samples(&classic), samples(&open));
        assert_eq!(
            samples(&open),
            [
                "weir_ready 1",
                "weir_cpu_seconds_total 0.25",
                "weir_dropped_total{worker=\"1\",reason=\"padding\"} 18446744073709551615",
                "weir_duration_seconds_sum{route=\"/\"} 3.5",
                "weir_duration_seconds_count{route=\"/\"} 3",
                "weir_duration_seconds_bucket{le=\"0.5\",route=\"/\"} 2",
                "weir_duration_seconds_bucket{le=\"+Inf\",route=\"/\"} 3",
                "weir_build_info{version=\"1.2.3\"} 1",
            ]
        );
        assert!(open.contains("\n# TYPE weir_cpu_seconds counter\n") && open.contains("\n# TYPE weir_build info\n"));
        for line in [
            "# TYPE weir_cpu_seconds_total counter",
            "# TYPE weir_build_info gauge",
            "# TYPE weir_nothing gauge",
            "# TYPE weir_duration_seconds histogram",
        ] {
            assert!(classic.lines().any(|own| own == line), "{line}: {classic}");
        }
    }

    #[test]
    fn who_asks_for_open_metrics_gets_them() {
        let wanted = |accept: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(header::ACCEPT, accept.parse().unwrap());
            }
            Format::wanted(&headers)
        };
        assert_eq!(wanted(None), Format::Classic);
        assert_eq!(wanted(Some("*/*")), Format::Classic);
        assert_eq!(wanted(Some("text/plain;version=0.0.4;q=0.5")), Format::Classic);
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
        assert_eq!(wanted(Some(prometheus)), Format::OpenMetrics);
    }
}
