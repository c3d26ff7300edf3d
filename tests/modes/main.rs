//! The modes of the receive engine beside each other; `ci/modes` calls it.

#![deny(unsafe_code)]

mod pinger;
mod run;

use std::process::ExitCode;
use std::time::Duration;

use netfront::engine::moderation::Mode;
use run::{Cost, Load, Plan, Seen, Trips};
use serde_json::{json, Value};

const USAGE: &str = "\
usage: ci/modes [--seconds N] [--low N] [--high N] [--dense N] [--burst N] [--json]

One vif of a simulated Xen that sends back what comes, in the modes interrupt, adaptive and poll: how long frames of 60 bytes take there
and back at several rates, and what the driver's packet thread takes of a processor meanwhile, and while nothing passes.

  --seconds N  each part takes so long (default 5)
  --low N      frames a second (default 100)
  --high N     frames a second (default 20000)
  --dense N    frames a second, one by one and in bursts (default 100000)
  --burst N    frames that are sent back to back in the last part (default 32)
  --json       the figures as JSON

A frame that comes alone costs one event in the modes interrupt and adaptive alike: adaptive looks by itself only where two or more come
at a time. So at a low rate what differs between these two is the machine, not the mode; at the dense rate adaptive sleeps less often.

The backend measures, in a thread of its own; it looks for 20 us before it sleeps. Times depend on the machine, and a machine of two
processors has none to spare for a thread that polls: compare rows of one run. Fails if at some rate no frame came back, if adaptive
was woken as often as interrupt at the dense rate, or if one of the two takes 1 % of a processor or wakes 5 times a second while nothing
passes. With bursts it may be woken one and a half times as often as interrupt at most.
";

const MODES: [Mode; 3] = [Mode::Interrupt, Mode::Adaptive, Mode::Poll];
/// The place of the load at which looking by itself has to spare wake-ups.
const DENSE: usize = 2;
/// That of the bursts, which are to be left to events.
const BURSTS: usize = 3;
/// Wake-ups a second from which on there is something to spare: at fewer the thread hardly slept.
const OFTEN: f64 = 1000.0;
/// What a mode that sleeps may take of a processor while nothing passes, in percent: a hundred times what was seen.
const IDLE_CPU: f64 = 1.0;
/// How often it may wake then, a second: the limit of `ci/idle` in `ci/full`.
const IDLE_WAKEUPS: f64 = 5.0;

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
    let faults = faults(&rows, plan);
    faults.iter().for_each(|fault| eprintln!("FAILED  {fault}"));
    match faults.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

fn name(load: &Load) -> String {
    match load.burst {
        0 | 1 => format!("{}/s", load.rate),
        burst => format!("{}/s in bursts of {burst}", load.rate),
    }
}

/// What must not be, whatever the machine: times of frames that never came back are no times.
fn faults(rows: &[(Mode, Seen)], plan: Plan) -> Vec<String> {
    let mut faults = Vec::new();
    for (mode, seen) in rows {
        for (load, trips) in plan.loads.iter().zip(&seen.loads) {
            if trips.frames == 0 {
                faults.push(format!("{mode}, {}: not one frame came back", name(load)));
            }
        }
        let Cost {
            cpu_percent,
            wakeups,
            ..
        } = seen.idle;
        if *mode != Mode::Poll && cpu_percent >= IDLE_CPU {
            faults.push(format!(
                "{mode}: idle it takes {cpu_percent:.2} % of a processor, less than {IDLE_CPU} are wanted"
            ));
        }
        if *mode != Mode::Poll && wakeups >= IDLE_WAKEUPS {
            faults.push(format!(
                "{mode}: idle it wakes {wakeups:.2} times a second, less than {IDLE_WAKEUPS} are wanted"
            ));
        }
    }
    for (load, most) in [(DENSE, 1.0), (BURSTS, 1.5)] {
        let woken = |wanted: Mode| {
            let row = rows.iter().find(|(mode, _)| *mode == wanted);
            row.map(|(_, seen)| seen.loads[load].cost.wakeups)
        };
        let (Some(interrupt), Some(adaptive)) = (woken(Mode::Interrupt), woken(Mode::Adaptive))
        else {
            continue;
        };
        if interrupt >= OFTEN && adaptive >= most * interrupt {
            faults.push(format!(
                "adaptive, {}: it wakes {adaptive:.0} times a second, fewer than {most} times the {interrupt:.0} of interrupt are wanted",
                name(&plan.loads[load])
            ));
        }
    }
    faults
}

/// `None`: help is wanted.
fn options() -> Result<Option<(Plan, bool)>, String> {
    let (mut low, mut high, mut dense, mut burst) = (100, 20_000, 100_000, 32);
    let mut time = Duration::from_secs(5);
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
            "--seconds" => time = Duration::from_secs(number(600)?),
            "--low" => low = number(1_000_000)?,
            "--high" => high = number(1_000_000)?,
            "--dense" => dense = number(1_000_000)?,
            "--burst" => burst = number(256)?,
            _ => return Err(format!("there is no option {word}")),
        }
    }
    let alone = |rate| Load { rate, burst: 1 };
    let loads = [
        alone(low),
        alone(high),
        alone(dense),
        Load { rate: dense, burst },
    ];
    Ok(Some((Plan { loads, time }, as_json)))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn table(rows: &[(Mode, Seen)], plan: Plan) -> String {
    let mut text = format!(
        "There and back, microseconds; CPU %, wake-ups and events a second of the packet thread; {} s each, {} processors\n\n\
         {:<26} {:<10} {:>8} {:>9} {:>9} {:>7} {:>9} {:>9}\n",
        plan.time.as_secs(),
        processors(),
        "frames",
        "mode",
        "back/s",
        "p50",
        "p99",
        "CPU %",
        "wakes/s",
        "events/s",
    );
    for (place, load) in plan.loads.iter().enumerate() {
        text.push('\n');
        for (mode, seen) in rows {
            let Trips {
                frames,
                half,
                most,
                cost,
            } = seen.loads[place];
            // Padded as text: a mode's own way to be shown knows no width.
            text.push_str(&format!(
                "{:<26} {:<10} {:>8.0} {half:>9.1} {most:>9.1} {:>7.1} {:>9.0} {:>9.0}\n",
                name(load),
                mode.to_string(),
                frames as f64 / plan.time.as_secs_f64(),
                cost.cpu_percent,
                cost.wakeups,
                cost.events,
            ));
        }
    }
    text.push('\n');
    for (mode, seen) in rows {
        text.push_str(&format!(
            "{:<26} {:<10} {:>8} {:>9} {:>9} {:>7.2} {:>9.2} {:>9.2}\n",
            "none",
            mode.to_string(),
            "",
            "",
            "",
            seen.idle.cpu_percent,
            seen.idle.wakeups,
            seen.idle.events,
        ));
    }
    text
}

fn report(rows: &[(Mode, Seen)], plan: Plan) -> Value {
    let cost = |cost: &Cost| {
        json!({
            "cpu_percent": cost.cpu_percent,
            "wakeups_per_second": cost.wakeups,
            "events_per_second": cost.events,
        })
    };
    let trips = |(load, trips): (&Load, &Trips)| {
        json!({
            "frames_per_second": load.rate,
            "burst": load.burst,
            "frames": trips.frames,
            "p50_microseconds": trips.half,
            "p99_microseconds": trips.most,
            "cost": cost(&trips.cost),
        })
    };
    let rows = rows.iter().map(|(mode, seen)| {
        let loads = plan.loads.iter().zip(&seen.loads).map(trips);
        json!({
            "mode": mode.to_string(),
            "loads": loads.collect::<Vec<_>>(),
            "idle": cost(&seen.idle),
        })
    });
    let rows: Vec<Value> = rows.collect();
    json!({
        "schema": 2,
        "processors": processors(),
        "seconds": plan.time.as_secs(),
        "rows": rows,
    })
}
