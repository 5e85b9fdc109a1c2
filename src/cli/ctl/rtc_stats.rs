//! Statistics in the RTC shape, the same way for producers, consumers and transports.

use clap::Args;
use serde_json::Value;

use super::client::{Client, Failure};
use super::events::follow_live;
use super::object::print_list;
use super::output::Output;
use super::table::Cell;
use super::units::bitrate;

/// `weir ctl … rtc-stats`
#[derive(Debug, Args)]
pub(super) struct RtcStats {
    /// The id
    id: u64,
    /// Repeat this every so many milliseconds, at least 1000, until it closes
    #[arg(long, value_name = "MS")]
    every: Option<u64>,
}

impl RtcStats {
    /// `what` is the name of the list that it is in, e.g. `producers`.
    pub(super) async fn run(self, what: &str, client: &mut Client, output: &Output) -> Result<(), Failure> {
        let target = format!("/{what}/{}/rtc-stats", self.id);
        if let Some(ms) = self.every {
            return follow_live(client, output, &format!("{target}/stream?intervalMs={ms}"), line).await;
        }
        let stats: Vec<Value> = client.get(&target).await?;
        print_list(client, output, stats, "nothing flows", |each: &Value| {
            let member = |name: &str| match &each[name] {
                Value::Null => Cell::none(),
                Value::String(text) => text.into(),
                other => other.into(),
            };
            let packets = match each.get("packetCount") {
                Some(count) => count.into(),
                None => format!("{} in, {} out", each["packetsReceived"], each["packetsSent"]).into(),
            };
            [
                ("ID", member("id")),
                ("TYPE", member("type")),
                (">PACKETS", packets),
                (">BITRATE", Cell::or_none(each["bitrate"].as_u64().map(bitrate))),
                (">LOST", member("packetsLost")),
                (">REPAIRED", member("packetsRepaired")),
                (">JITTER MS", member("jitterMs")),
                (">RTT MS", member("roundTripTime")),
            ]
        })
    }
}

/// `in 1.2 Mbit/s, 3 lost; out 1.1 Mbit/s, 0 lost`
fn line(stats: &Value) -> String {
    let parts = stats.as_array().into_iter().flatten().map(|each| {
        let name = match each["type"].as_str() {
            Some("inbound-rtp") => "in",
            Some("outbound-rtp") => "out",
            _ => return format!("{} bytes in, {} bytes out", each["bytesReceived"], each["bytesSent"]),
        };
        let rate = bitrate(each["bitrate"].as_u64().unwrap_or_default());
        format!("{name} {rate}, {} lost", each["packetsLost"])
    });
    parts.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_says_what_flows() {
        let stats = json!([
            {"type": "inbound-rtp", "bitrate": 0, "packetsLost": 3},
            {"type": "transport", "bytesReceived": 1, "bytesSent": 2},
        ]);
        assert_eq!(
            line(&stats),
            format!("in {}, 3 lost; 1 bytes in, 2 bytes out", bitrate(0))
        );
    }
}
