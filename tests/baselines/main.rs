//! The receive engine's ways beside each other on real threads; `ci/baselines` calls it.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `ways` | what is compared |
//! | `run` | one run: a backend that sends as fast as it can, the driver's threads, what was seen |
//! | `store` | the baseline of a store behind a lock |
//! | `signals` | the baseline of a wake-up a packet |

#![deny(unsafe_code)]

mod run;
mod signals;
mod store;
mod ways;

use std::process::ExitCode;
use std::time::Duration;

use run::{Load, Seen, EVEN, FLOWS, QUEUES};
use serde_json::{json, Value};
use ways::{HandOver, Way, WAYS};

const USAGE: &str = "\
usage: ci/baselines [--seconds N] [--work NS] [--json]

Packets of 64 connections come by 5 queues of a simulated Xen as fast as its backend can, to two event cores and two workers, and to
what they are compared with: no steering, all queues on one core, a wake-up for each packet (a system call to signal its worker, and one
of the worker to take it), a round for each packet, a store behind a lock, fixed restart limits. Packets carry numbers: any that comes after a later one of its connection is counted.

  --seconds N   count for so long, each way (default 2)
  --work NS     what is done with a packet takes so many nanoseconds (default 500)
  --json        the figures as JSON

Fails if no packet came, one was out of order, queues did not come evenly to the event cores that they were bound to (by what these count;
they are bound anew when they have come), workers of the first two rows were woken more than 0.05 times a packet, or those of the row that
is to wake them for each packet less than 0.9 times. Rates depend on the machine, and with fewer than five processors threads share them:
compare rows of one run.
";

/// Wake-ups of workers for each packet, at most.
const WAKES: f64 = 0.05;
/// Rows that this holds for.
const OURS: usize = 2;
/// Of the baseline that signals each packet, at least: one that does not would show nothing.
const SIGNALS: f64 = 0.9;

fn main() -> ExitCode {
    let (load, as_json) = match options() {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(why) => {
            eprint!("baselines: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let mut rows = Vec::new();
    for way in &WAYS {
        match run::run(way, load) {
            Ok(seen) => rows.push((way, seen)),
            Err(error) => {
                eprintln!("baselines: {}: {error}", way.name);
                return ExitCode::FAILURE;
            }
        }
    }
    match as_json {
        true => println!("{:#}", report(&rows, load)),
        false => print!("{}", table(&rows, load)),
    }
    let faults = faults(&rows);
    faults.iter().for_each(|fault| eprintln!("FAILED  {fault}"));
    match faults.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

/// `None`: help is wanted.
fn options() -> Result<Option<(Load, bool)>, String> {
    let mut load = Load {
        time: Duration::from_secs(2),
        work: Duration::from_nanos(500),
    };
    let mut as_json = false;
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = |least: u64, most: u64| -> Result<u64, String> {
            let found = words.next().unwrap_or_default();
            let number = found.parse().ok();
            let number = number.filter(|number| (least..=most).contains(number));
            number.ok_or(format!("{word}: wanted {least} to {most}, found {found:?}"))
        };
        match word.as_str() {
            "--help" | "-h" => return Ok(None),
            "--json" => as_json = true,
            "--seconds" => load.time = Duration::from_secs(number(1, 600)?),
            "--work" => load.work = Duration::from_nanos(number(0, 1_000_000)?),
            _ => return Err(format!("there is no option {word}")),
        }
    }
    Ok(Some((load, as_json)))
}

fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

type Row<'w> = (&'w Way, Seen);

fn table(rows: &[Row<'_>], load: Load) -> String {
    let most = rows.iter().map(|(_, seen)| seen.kpps()).fold(1.0, f64::max);
    let mut text = format!(
        "{FLOWS} connections, {QUEUES} queues, {} ns of work a packet, {} s each, {} processors{}\n\n{:<34} {:>8}  {:<20} {:>10} {:>6} {:>10} {:>10} {:>10} {:>9} {:>5}\n",
        load.work.as_nanos(),
        load.time.as_secs(),
        processors(),
        match processors() {
            0..=4 => ": the backend, two event cores and two workers share them",
            _ => "",
        },
        "",
        "kpps",
        "",
        "disordered",
        "spread",
        "wakes/pkt",
        "sleeps/pkt",
        "events/pkt",
        "yields/s",
        "limit",
    );
    for (way, seen) in rows {
        let bar = "#".repeat((seen.kpps() / most * 20.0).round() as usize);
        text.push_str(&format!(
            "{:<34} {:>8.1}  {bar:<20} {:>10} {:>6} {:>10.5} {:>10.5} {:>10.5} {:>9.0} {:>5}\n",
            way.name,
            seen.kpps(),
            seen.out_of_order,
            seen.spread,
            seen.a_packet(seen.wakes),
            seen.a_packet(seen.core_wakeups),
            seen.a_packet(seen.events),
            seen.hand_overs as f64 / seen.seconds.max(1e-9),
            seen.limit,
        ));
    }
    text.push_str(
        "\nwakes: of workers; sleeps: of event cores that ended; yields: activations that ended with packets left; limit: the restart limit at the end\n",
    );
    text
}

fn report(rows: &[Row<'_>], load: Load) -> Value {
    let rows = rows.iter().map(|(way, seen)| {
        json!({
            "way": way.name,
            "event_cores": way.event_cores,
            "workers": way.workers,
            "restart_limit": way.policy.to_string(),
            "packets": seen.packets,
            "seconds": seen.seconds,
            "packets_per_second": seen.kpps() * 1000.0,
            "out_of_order": seen.out_of_order,
            "spread": seen.spread,
            "settled": seen.settled,
            "changes": seen.changes,
            "wakes_per_packet": seen.a_packet(seen.wakes),
            "core_wakeups_per_packet": seen.a_packet(seen.core_wakeups),
            "events_per_packet": seen.a_packet(seen.events),
            "hand_overs": seen.hand_overs,
            "limit": seen.limit,
        })
    });
    let rows: Vec<Value> = rows.collect();
    json!({
        "schema": 1,
        "processors": processors(),
        "connections": FLOWS,
        "queues": QUEUES,
        "work_nanoseconds": load.work.as_nanos() as u64,
        "rows": rows,
    })
}

/// What must not be, whatever the machine.
fn faults(rows: &[Row<'_>]) -> Vec<String> {
    let mut faults = Vec::new();
    for (place, (way, seen)) in rows.iter().enumerate() {
        let name = way.name;
        if seen.packets == 0 {
            faults.push(format!("{name}: not one packet came"));
        }
        if seen.out_of_order > 0 {
            faults.push(format!(
                "{name}: {} packets out of order",
                seen.out_of_order
            ));
        }
        if seen.spread > EVEN {
            faults.push(format!("{name}: queues spread by {}", seen.spread));
        }
        if seen.settled == 0 {
            faults.push(format!(
                "{name}: queues were never found on the event cores that they are bound to"
            ));
        }
        let wakes = seen.a_packet(seen.wakes);
        if place < OURS && wakes > WAKES {
            faults.push(format!(
                "{name}: {wakes:.3} wake-ups a packet, at most {WAKES} are wanted"
            ));
        }
        if way.hand_over == HandOver::Signals && wakes < SIGNALS {
            faults.push(format!(
                "{name}: {wakes:.3} wake-ups a packet, at least {SIGNALS} are wanted"
            ));
        }
    }
    faults
}
