//! Metrics as text, read; and the table of `docs/metrics.md`.

#![allow(dead_code, reason = "each test program uses its part")]

use std::collections::BTreeMap;

/// What a sample is of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
}

/// One answer of `/metrics`.
#[derive(Debug)]
pub(crate) struct Scrape {
    /// By name.
    pub(crate) kinds: BTreeMap<String, String>,
    pub(crate) samples: Vec<(Series, f64)>,
}

impl Scrape {
    /// Reads either format, and checks that each sample is of a metric that was described, and told once.
    #[track_caller]
    pub(crate) fn read(text: &str) -> Self {
        let mut scrape = Self {
            kinds: BTreeMap::new(),
            samples: Vec::new(),
        };
        for line in text.lines() {
            if let Some(described) = line.strip_prefix("# TYPE ") {
                let (name, kind) = described.split_once(' ').expect("a name and a kind");
                let before = scrape.kinds.insert(name.to_owned(), kind.to_owned());
                assert_eq!(before, None, "{name} is described twice");
            } else if !line.starts_with('#') {
                scrape.samples.push(sample(line));
            }
        }
        let mut seen: Vec<_> = scrape.samples.iter().map(|(series, _)| series).collect();
        seen.sort();
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "a series is told twice");
        for (series, _) in &scrape.samples {
            let family = scrape.family(series);
            assert!(family.is_some(), "{series:?} is not described");
        }
        scrape
    }

    fn family(&self, series: &Series) -> Option<&str> {
        let endings = ["", "_total", "_info", "_bucket", "_sum", "_count"];
        let mut found = endings
            .iter()
            .filter_map(|ending| self.kinds.get(series.name.strip_suffix(ending)?));
        found.next().map(String::as_str)
    }

    /// Whether its number never goes back.
    pub(crate) fn is_counter(&self, series: &Series) -> bool {
        self.family(series).is_some_and(|kind| kind != "gauge")
    }

    /// The one sample that has these labels, perhaps among others.
    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.matching(name, labels);
        let number = found.next()?;
        assert_eq!(found.next(), None, "{name} {labels:?} is several");
        Some(number)
    }

    #[track_caller]
    pub(crate) fn number(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let found = self.find(name, labels);
        found.unwrap_or_else(|| panic!("there is no {name} {labels:?}"))
    }

    /// All that have these labels, together.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).sum()
    }

    fn matching(&self, name: &str, labels: &[(&str, &str)]) -> impl Iterator<Item = f64> {
        let has = move |series: &Series| {
            let mut labels = labels.iter();
            series.name == name
                && labels.all(|(label, value)| series.labels.get(*label).is_some_and(|own| own == value))
        };
        self.samples
            .iter()
            .filter(move |(series, _)| has(series))
            .map(|(_, number)| *number)
    }
}

/// `name{label="value",…} number`; no value has a quote in it.
fn sample(line: &str) -> (Series, f64) {
    let (series, number) = line.rsplit_once(' ').expect("a name and a number");
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let labels = labels.strip_suffix('}').expect("labels in braces");
    let each = labels.split("\",").filter(|label| !label.is_empty());
    let labels = each.map(|label| {
        let (name, value) = label.split_once("=\"").expect("a label and its value");
        (name.to_owned(), value.trim_end_matches('"').to_owned())
    });
    let series = Series {
        name: name.to_owned(),
        labels: labels.collect(),
    };
    (series, number.parse().expect("a number"))
}

/// The kind of each metric in the tables of `docs/metrics.md`: rows of name, kind, labels and meaning.
pub(crate) fn documented(page: &str) -> BTreeMap<String, String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `weir_"));
    rows.map(|row| {
        let mut cells = row.split('|').map(str::trim);
        let name = cells.next().expect("a name").trim_end_matches('`');
        (format!("weir_{name}"), cells.next().expect("a kind").to_owned())
    })
    .collect()
}
