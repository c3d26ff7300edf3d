//! The modes of the receive engine beside each other; `ci/modes` calls it.

#![deny(unsafe_code)]

mod pinger;
mod run;

use std::process::ExitCode;
use std::time::Duration;

use netfront::engine::moderation::Mode;
use run::{Plan, Seen, Trips};
use serde_json::{json, Value};

const USAGE: &str = "\
usage: ci/modes [--seconds N] [--low N] [--high N] [--json]

One vif of a simulated Xen that sends back what comes, in the modes interrupt, adaptive and poll: how long frames of 60 bytes take there
and back at a low and at a high rate, and what the driver's packet thread takes of a processor meanwhile, and while nothing passes.

  --seconds N  each part takes so long (default 5)
  --low N      frames a second (default 100)
  --high N     frames a second (default 20000)
  --json       the figures as JSON

The backend measures, in a thread of its own; it looks for 20 us before it sleeps. Times depend on the machine, and a machine of two
processors has none to spare for a thread that polls: compare rows of one run. Fails if at some rate no frame came back.
";

const MODES: [Mode; 3] = [Mode::Interrupt, Mode::Adaptive, Mode::Poll];

fn main() -> ExitCode {
    let (plan, as_json) = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprint!("modes: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut rows = Vec::new();
    for mode in MODES {
        match run::run(mode, plan) {
            Ok(seen) => rows.push((mode, seen)),
            Err(error) => {
                eprintln!("modes: {mode}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    match as_json {
        true => println!("{:#}", report(&rows, plan)),
        false => print!("{}", table(&rows, plan)),
    }
    let faults = faults(&rows);
    faults.iter().for_each(|fault| eprintln!("FAILED  {fault}"));
    match faults.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// What must not be, whatever the machine: times of frames that never came back are no times.
fn faults(rows: &[(Mode, Seen)]) -> Vec<String> {
    let mut faults = Vec::new();
    for (mode, seen) in rows {
        for (rate, trips) in [("low", &seen.low), ("high", &seen.high)] {
            if trips.frames == 0 {
                faults.push(format!(
                    "{mode}: at the {rate} rate not one frame came back"
                ));
            }
        }
    }
    faults
}

/// `None`: help is wanted.
fn options() -> Result<Option<(Plan, bool)>, String> {
    let mut plan = Plan {
        low: 100,
        high: 20_000,
        time: Duration::from_secs(5),
    };
    let mut as_json = false;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = |most: u64| -> Result<u64, String> {
            let found = words.next().unwrap_or_default();
            let number = found.parse().ok();
            let number = number.filter(|number| (1..=most).contains(number));
            number.ok_or(format!("{word}: wanted 1 to {most}, found {found:?}"))
        };
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--json" => as_json = true,
            "--seconds" => plan.time = Duration::from_secs(number(600)?),
            "--low" => plan.low = number(1_000_000)?,
            "--high" => plan.high = number(1_000_000)?,
            _ => return Err(format!("there is no option {word}")),
        }
    }
    Ok(Some((plan, as_json)))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn table(rows: &[(Mode, Seen)], plan: Plan) -> String {
    let [low, high] = [plan.low, plan.high].map(|rate| format!("{rate} frames/s"));
    let mut text = format!(
        "There and back, microseconds; CPU % and wake-ups a second of the packet thread; {} s each, {} processors\n\n\
         {:<10} {:>34}  {:>42}  {:>16}\n\
         {:<10} {:>8} {:>8} {:>7} {:>8}  {:>7} {:>8} {:>8} {:>7} {:>8}  {:>7} {:>8}\n",
        plan.time.as_secs(),
        processors(),
        "",
        low,
        high,
        "idle",
        "mode",
        "p50",
        "p99",
        "CPU %",
        "wakes/s",
        "back/s",
        "p50",
        "p99",
        "CPU %",
        "wakes/s",
        "CPU %",
        "wakes/s",
    );
    let trips = |trips: &Trips| {
        format!(
            "{:>8.1} {:>8.1} {:>7.1} {:>8.0}",
            trips.half, trips.most, trips.cost.cpu_percent, trips.cost.wakeups
        )
    };
    for (mode, seen) in rows {
        // Padded as text: its own way to be shown knows no width.
        let mode = mode.to_string();
        text.push_str(&format!(
            "{:<10} {}  {:>7.0} {}  {:>7.2} {:>8.2}\n",
            mode,
            trips(&seen.low),
            seen.high.frames as f64 / plan.time.as_secs_f64(),
            trips(&seen.high),
            seen.idle.cpu_percent,
            seen.idle.wakeups,
        ));
    }
    text
}

fn report(rows: &[(Mode, Seen)], plan: Plan) -> Value {
    let trips = |trips: &Trips| {
        json!({
            "frames": trips.frames,
            "p50_microseconds": trips.half,
            "p99_microseconds": trips.most,
            "cpu_percent": trips.cost.cpu_percent,
            "wakeups_per_second": trips.cost.wakeups,
        })
    };
    let rows = rows.iter().map(|(mode, seen)| {
        json!({
            "mode": mode.to_string(),
            "low": trips(&seen.low),
            "high": trips(&seen.high),
            "idle": {
                "cpu_percent": seen.idle.cpu_percent,
                "wakeups_per_second": seen.idle.wakeups,
            },
        })
    });
    let rows: Vec<Value> = rows.collect();
    json!({
        "schema": 1,
        "processors": processors(),
        "seconds": plan.time.as_secs(),
        "low_frames_per_second": plan.low,
        "high_frames_per_second": plan.high,
        "rows": rows,
    })
}
