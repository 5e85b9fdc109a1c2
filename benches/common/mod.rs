//! The harness of the benches: time per operation, and instructions per operation.
//!
//! ```text
//! cargo bench --bench parse                         # nanoseconds
//! cargo bench --bench parse -- --instructions       # and instructions, which a busy machine does not change
//! cargo bench --bench relay -- rooms --cache        # and cache misses, as simulated
//! cargo bench --bench parse -- vp8 --json           # some cases, one JSON object per line
//! ```
//!
//! A bench is a list of [`Case`]s handed to [`run`]. A case is measured in passes of many operations. Time: samples of
//! some milliseconds each, of which the fastest and the median are shown. Instructions: the program runs itself under
//! `valgrind --tool=callgrind` twice, with different numbers of passes, and the difference is what the passes cost; what
//! happens before them cancels out. Cache misses likewise: of first-level caches of 32 KiB, and of a second level of 1 MiB, as
//! a core of a server has for itself; `weighed` is callgrind's estimate of cycles, instructions + 10 × first-level misses + 100 ×
//! second-level misses.
#![allow(dead_code, reason = "every bench is a crate of its own and uses what it needs")]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench reports to whoever started it"
)]

use std::collections::HashMap;
use std::fmt::Display;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};
use std::{env, fs};

/// How long one sample lasts at least: long against the clock's resolution, short against the scheduler's slices.
const SAMPLE_MIN: Duration = Duration::from_millis(2);

/// Samples per case. The median of so many is stable to about 1 % on an idle machine.
const SAMPLES: usize = 51;

/// Passes of the two counted runs.
const COUNTED_PASSES: [u64; 2] = [10, 110];

/// The caches that are simulated: bytes, ways, bytes of a line.
const CACHES: [&str; 3] = ["--I1=32768,8,64", "--D1=32768,8,64", "--LL=1048576,8,64"];

/// One thing to measure.
pub(crate) struct Case {
    name: &'static str,
    operations: u64,
    counted_passes: [u64; 2],
    prepare: Box<dyn Fn() -> Box<dyn FnMut()>>,
}

impl Case {
    /// `prepare` builds the state and returns the pass, which does `operations` operations each time it is called.
    pub(crate) fn new<Pass: FnMut() + 'static>(
        name: &'static str,
        operations: usize,
        prepare: impl Fn() -> Pass + 'static,
    ) -> Self {
        Self {
            name,
            operations: operations as u64,
            counted_passes: COUNTED_PASSES,
            prepare: Box::new(move || Box::new(prepare())),
        }
    }

    /// With other numbers of passes for the two counted runs, if a pass is long.
    pub(crate) fn counted_over(mut self, passes: [u64; 2]) -> Self {
        self.counted_passes = passes;
        self
    }
}

/// Measures what the command line asks for. `operation` says what one operation is, e.g. "packet".
pub(crate) fn run(bench: &str, operation: &str, cases: &[Case]) -> ExitCode {
    match Options::parse(env::args().skip(1)).and_then(|options| options.run(bench, operation, cases)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{bench}: {error}");
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Options {
    /// Given by `cargo bench`; without it every pass runs once, to see that it runs.
    measure: bool,
    instructions: bool,
    /// Cache misses too.
    cache: bool,
    json: bool,
    filters: Vec<String>,
    /// Only run this case, so many passes, and measure nothing: what runs under callgrind.
    counted: Option<(String, u64)>,
}

struct Measured {
    fastest_ns: f64,
    median_ns: f64,
    counted: Option<Counted>,
}

/// What callgrind counts.
#[derive(Clone, Copy, Default)]
struct Counted {
    instructions: f64,
    /// First-level misses and second-level misses, if caches are simulated.
    misses: [f64; 2],
}

impl Counted {
    fn weighed(&self) -> f64 {
        self.instructions + 10.0 * self.misses[0] + 100.0 * self.misses[1]
    }
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self::default();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--bench" => options.measure = true,
                "--instructions" => options.instructions = true,
                "--cache" => (options.instructions, options.cache) = (true, true),
                "--json" => options.json = true,
                "--counted" => {
                    let case = args.next().ok_or("--counted wants a case")?;
                    let passes = args.next().and_then(|passes| passes.parse().ok());
                    options.counted = Some((case, passes.ok_or("--counted wants a number of passes")?));
                }
                flag if flag.starts_with('-') => {
                    return Err(format!(
                        "no option {flag}; there are --instructions, --cache and --json, and names of cases"
                    ));
                }
                filter => options.filters.push(filter.to_owned()),
            }
        }
        Ok(options)
    }

    fn run(&self, bench: &str, operation: &str, cases: &[Case]) -> Result<(), String> {
        if let Some((name, passes)) = &self.counted {
            let case = cases.iter().find(|case| case.name == name);
            let mut pass = (case.ok_or_else(|| format!("no case {name}"))?.prepare)();
            (0..*passes).for_each(|_| pass());
            return Ok(());
        }
        let chosen: Vec<&Case> = cases.iter().filter(|case| self.chooses(case)).collect();
        if chosen.is_empty() {
            let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
            return Err(format!("no such case; there are {}", names.join(", ")));
        }
        if !self.measure {
            for case in chosen {
                (case.prepare)()();
                println!("{bench} {}: runs", case.name);
            }
            return Ok(());
        }
        if self.instructions {
            check_valgrind()?;
        }
        if !self.json {
            let counted = match (self.instructions, self.cache) {
                (_, true) => format!(
                    "{:>13} {:>9} {:>9} {:>9}",
                    "instructions", "L1 misses", "L2 misses", "weighed"
                ),
                (true, false) => format!("{:>13}", "instructions"),
                (false, false) => format!("{:>13}", ""),
            };
            println!(
                "{bench:<23} {:>10} {:>10} {counted}   per {operation}",
                "median ns", "fastest ns"
            );
        }
        for case in chosen {
            let mut measured = time(case);
            if self.instructions {
                measured.counted = Some(count(case, self.cache)?);
            }
            self.report(bench, operation, case, &measured);
        }
        Ok(())
    }

    fn chooses(&self, case: &Case) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| case.name.contains(filter))
    }

    fn report(&self, bench: &str, operation: &str, case: &Case, measured: &Measured) {
        let Measured {
            fastest_ns,
            median_ns,
            counted,
        } = measured;
        let name = case.name;
        if self.json {
            let number = |count: Option<f64>| count.map_or("null".to_owned(), |count| format!("{count:.2}"));
            let instructions = number(counted.map(|counted| counted.instructions));
            let [l1, l2] =
                [0, 1].map(|level| number(counted.filter(|_| self.cache).map(|counted| counted.misses[level])));
            println!(
                r#"{{"bench":"{bench}","case":"{name}","per":"{operation}","median_ns":{median_ns:.3},"fastest_ns":{fastest_ns:.3},"instructions":{instructions},"l1_misses":{l1},"l2_misses":{l2}}}"#
            );
        } else {
            let counted = match counted {
                Some(counted) if self.cache => format!(
                    "{:>13.1} {:>9.2} {:>9.2} {:>9.1}",
                    counted.instructions,
                    counted.misses[0],
                    counted.misses[1],
                    counted.weighed()
                ),
                Some(counted) => format!("{:>13.1}", counted.instructions),
                None => String::new(),
            };
            println!("{name:<23} {median_ns:>10.2} {fastest_ns:>10.2} {counted}");
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "measuring time is what a bench is for")]
fn time(case: &Case) -> Measured {
    let mut pass = (case.prepare)();
    let mut sample = |passes: u64| {
        let start = Instant::now();
        (0..passes).for_each(|_| pass());
        start.elapsed()
    };
    let mut passes = 1;
    while sample(passes) < SAMPLE_MIN {
        passes *= 2;
    }
    let operations = (passes * case.operations) as f64;
    let mut samples: Vec<f64> = (0..SAMPLES)
        .map(|_| sample(passes).as_nanos() as f64 / operations)
        .collect();
    samples.sort_by(f64::total_cmp);
    Measured {
        fastest_ns: samples[0],
        median_ns: samples[SAMPLES / 2],
        counted: None,
    }
}

fn check_valgrind() -> Result<(), String> {
    match Command::new("valgrind").arg("--version").output() {
        Ok(output) if output.status.success() => Ok(()),
        _ => Err("--instructions needs valgrind, and there is none (Debian: apt-get install valgrind)".to_owned()),
    }
}

fn count(case: &Case, cache: bool) -> Result<Counted, String> {
    let [few, many] = case.counted_passes;
    let operations = ((many - few) * case.operations) as f64;
    let (few, many) = (counted_run(case, few, cache)?, counted_run(case, many, cache)?);
    let of = |events: &[&str]| {
        let sum = |run: &HashMap<String, u64>| events.iter().filter_map(|event| run.get(*event)).sum::<u64>();
        (sum(&many) as f64 - sum(&few) as f64) / operations
    };
    let counted = Counted {
        instructions: of(&["Ir"]),
        misses: [of(&["I1mr", "D1mr", "D1mw"]), of(&["ILmr", "DLmr", "DLmw"])],
    };
    if counted.instructions < 0.0 {
        return Err(format!("{}: more passes took fewer instructions", case.name));
    }
    Ok(counted)
}

/// What callgrind counts of a whole run with so many passes, by the names that it has for it.
fn counted_run(case: &Case, passes: u64, cache: bool) -> Result<HashMap<String, u64>, String> {
    let failed = |what: &dyn Display| format!("counting the instructions of {}: {what}", case.name);
    let this = env::current_exe().map_err(|error| failed(&error))?;
    let out = env::temp_dir().join(format!("weir-bench-{}.callgrind", std::process::id()));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--quiet"]);
    if cache {
        valgrind.arg("--cache-sim=yes").args(CACHES);
    }
    let output = valgrind
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(this)
        .args(["--counted", case.name, &passes.to_string()])
        .output()
        .map_err(|error| failed(&error))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr).trim()));
    }
    let profile = fs::read_to_string(&out).map_err(|error| failed(&error))?;
    let _ = fs::remove_file(&out);
    // "events: Ir Dr", and "summary: 123456 789" or "totals: 123456 789".
    let line = |names: &[&str]| {
        profile
            .lines()
            .find_map(|line| names.iter().find_map(|name| line.strip_prefix(name)))
    };
    let (events, counts) = line(&["events:"])
        .zip(line(&["summary:", "totals:"]))
        .ok_or_else(|| failed(&"callgrind wrote no summary"))?;
    let counts = counts.split_whitespace().map(|count| count.parse().unwrap_or(0));
    Ok(events.split_whitespace().map(str::to_owned).zip(counts).collect())
}
