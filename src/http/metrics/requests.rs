//! How many requests were answered, and how fast.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use tokio::time::Instant;

use super::family::{Family, Kind, Value, label};
use crate::server::lock;

/// The upper ends of the buckets of durations, in seconds.
const BUCKETS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.5, f64::INFINITY];

/// The route of what matches none.
const NO_ROUTE: &str = "none";

/// Requests by route.
#[derive(Debug, Default)]
pub(super) struct Requests(Mutex<BTreeMap<String, OfRoute>>);

#[derive(Debug, Default)]
struct OfRoute {
    answers: BTreeMap<(&'static str, u16), u64>,
    durations: [u64; BUCKETS.len()],
    took: Duration,
}

impl Requests {
    /// Answers a request, and counts it.
    pub(super) async fn count(&self, request: Request, next: Next) -> Response {
        let method = name_of(request.method());
        let route = request.extensions().get::<MatchedPath>().cloned();
        let began = Instant::now();
        let response = next.run(request).await;
        let route = route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str);
        self.note(route, method, response.status().as_u16(), began.elapsed());
        response
    }

    fn note(&self, route: &str, method: &'static str, status: u16, took: Duration) {
        let mut routes = lock(&self.0);
        if !routes.contains_key(route) {
            // There are as many as the program has.
            routes.insert(route.to_owned(), OfRoute::default());
        }
        if let Some(of_route) = routes.get_mut(route) {
            *of_route.answers.entry((method, status)).or_default() += 1;
            let bucket = BUCKETS.iter().position(|end| took.as_secs_f64() <= *end);
            of_route.durations[bucket.unwrap_or(BUCKETS.len() - 1)] += 1;
            of_route.took += took;
        }
    }

    pub(super) fn families(&self) -> [Family; 2] {
        let mut requests = Family::new(
            Kind::Counter,
            "weir_http_requests",
            "Requests answered, by the pattern of their route",
        );
        let mut durations = Family::new(
            Kind::Histogram,
            "weir_http_request_duration_seconds",
            "Time from a request to the head of its answer",
        );
        for (route, of_route) in &*lock(&self.0) {
            for ((method, status), count) in &of_route.answers {
                let labels = [
                    label("route", route.clone()),
                    label("method", *method),
                    label("status", status.to_string()),
                ];
                requests.push(labels, Value::Whole(*count));
            }
            let value = Value::Distribution {
                sum: of_route.took.as_secs_f64(),
                buckets: BUCKETS.into_iter().zip(of_route.durations).collect(),
            };
            durations.push([label("route", route.clone())], value);
        }
        [requests, durations]
    }
}

/// A method that there is; others are whatever somebody has made up.
fn name_of(method: &Method) -> &'static str {
    const KNOWN: [(Method, &str); 7] = [
        (Method::GET, "GET"),
        (Method::HEAD, "HEAD"),
        (Method::POST, "POST"),
        (Method::PUT, "PUT"),
        (Method::PATCH, "PATCH"),
        (Method::DELETE, "DELETE"),
        (Method::OPTIONS, "OPTIONS"),
    ];
    let found = KNOWN.iter().find(|(known, _)| known == method);
    found.map_or("other", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_route_and_what_nobody_knows_is_one() {
        let requests = Requests::default();
        requests.note("/rooms/{id}", "GET", 200, Duration::from_millis(3));
        requests.note("/rooms/{id}", "GET", 200, Duration::from_secs(60));
        requests.note("/rooms/{id}", "DELETE", 404, Duration::ZERO);
        assert_eq!(name_of(&"BREW".parse().unwrap()), "other");
        let [counted, durations] = requests.families();
        assert_eq!(counted.samples.len(), 2);
        assert_eq!(counted.samples[1].1, Value::Whole(2));
        let Value::Distribution { sum, buckets } = &durations.samples[0].1 else {
            panic!("{durations:?}");
        };
        assert!((*sum - 60.003).abs() < 1e-9, "{sum}");
        let filled: Vec<_> = buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(filled, [(0.001, 1), (0.005, 1), (f64::INFINITY, 1)]);
    }
}
