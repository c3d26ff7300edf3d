//! `netfront top`: what every vif carries a second, in a table that is drawn again and again.

mod engine;

use std::collections::BTreeMap;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{json, Value};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::control::{self, Which, SCHEMA};
use crate::failure::Failure;
use crate::output::table;
use crate::stats::by_queue;
use crate::status::drops;

/// What is shown, and how often.
#[derive(Debug, Args)]
pub struct Top {
    #[command(flatten)]
    pub which: Which,
    /// Seconds between two tables.
    #[arg(short, long, default_value_t = 1.0, value_name = "SECONDS", value_parser = interval)]
    pub interval: f64,
    /// End after so many tables.
    #[arg(short, long, value_name = "TABLES", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Show the receive engine in place of the traffic: for each queue its CPU, activations, rounds and how they ended, the restart
    /// limit now and lately, events and wake-ups.
    #[arg(long)]
    pub engine: bool,
    /// As JSON, a line for each table.
    #[arg(long)]
    pub json: bool,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if (0.1..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("wanted seconds, 0.1 to 3600".into()),
    }
}

/// The reports of all vifs at one moment.
struct Moment {
    at: Instant,
    /// By process and vif: a driver that was started anew has counted nothing yet.
    reports: BTreeMap<(u64, u64), Value>,
}

/// What one vif did between two moments.
#[derive(Debug, PartialEq)]
struct Row {
    vif: u64,
    state: &'static str,
    /// Packets, and megabits, a second.
    rx: (f64, f64),
    tx: (f64, f64),
    /// Packets lost a second.
    drops: f64,
    /// Times a second that the process was woken.
    wakeups: f64,
    /// Of one processor.
    cpu_percent: f64,
    resident_bytes: u64,
    pool_free: u64,
    pool_granted: u64,
    /// Where there are several.
    queues: Vec<QueueRow>,
}

/// What one of several queues did.
#[derive(Debug, PartialEq)]
struct QueueRow {
    queue: u64,
    /// As those of the vif.
    rx: (f64, f64),
    tx: (f64, f64),
    pool_free: u64,
    pool_granted: u64,
}

/// Draws tables until a signal comes, or there were as many as were wanted.
pub fn top(args: &Top) -> Result<(), Failure> {
    let bell = Bell::new()?;
    let screen = Screen::new(!args.json && std::io::stdout().is_terminal());
    let pause = Duration::from_secs_f64(args.interval);
    let mut before = look(&args.which)?;
    let mut shown = 0;
    while args.count.is_none_or(|count| shown < count) {
        if bell.rings_within(pause) {
            break;
        }
        let now = look(&args.which)?;
        let text = match args.engine {
            true => {
                let rows = engine::rows(&before, &now);
                match args.json {
                    true => engine::line(&rows, now.at - before.at),
                    false => engine::picture(&rows),
                }
            }
            false => {
                let rows = rows(&before, &now);
                match args.json {
                    true => line(&rows, now.at - before.at),
                    false => picture(&rows),
                }
            }
        };
        if !screen.show(&text) {
            // Whoever read the tables has gone.
            break;
        }
        before = now;
        shown += 1;
    }
    Ok(())
}

/// Asks all drivers. One that has just gone is left out; none at all is a failure.
fn look(which: &Which) -> Result<Moment, Failure> {
    let mut reports = BTreeMap::new();
    let mut silent = None;
    for place in which.places() {
        match control::order(&place.socket, "stats") {
            Ok(report) => {
                let number = |name: &str| report[name].as_u64().unwrap_or(0);
                reports.insert((number("vif"), number("pid")), report);
            }
            Err(failure) => silent = Some(failure),
        }
    }
    if reports.is_empty() {
        return Err(silent.unwrap_or_else(|| {
            Failure::NotHere("no netfront runs here: `netfront run` starts one".into())
        }));
    }
    Ok(Moment {
        at: Instant::now(),
        reports,
    })
}

/// What happened between two moments, by vif. A vif that was not there before has no rates yet.
fn rows(before: &Moment, now: &Moment) -> Vec<Row> {
    let seconds = (now.at - before.at).as_secs_f64().max(0.001);
    let row = |(key, report): (&(u64, u64), &Value)| {
        let earlier = before.reports.get(key).unwrap_or(report);
        row(earlier, report, seconds)
    };
    now.reports.iter().map(row).collect()
}

fn row(before: &Value, now: &Value, seconds: f64) -> Row {
    let rate = |section: &str, name: &str| {
        let value = |report: &Value| report[section][name].as_f64().unwrap_or(0.0);
        ((value(now) - value(before)) / seconds).max(0.0)
    };
    let counted = |packets: &str, bytes: &str| {
        let bits = rate("counters", bytes) * 8.0;
        (rate("counters", packets), bits / 1e6)
    };
    let level = |section: &str, name: &str| now[section][name].as_u64().unwrap_or(0);
    Row {
        vif: now["vif"].as_u64().unwrap_or(0),
        state: state(now),
        rx: counted("rx_packets", "rx_bytes"),
        tx: counted("tx_packets", "tx_bytes"),
        drops: drops(now).saturating_sub(drops(before)) as f64 / seconds,
        wakeups: rate("process", "wakeups"),
        cpu_percent: rate("process", "cpu_seconds") * 100.0,
        resident_bytes: level("process", "resident_bytes"),
        pool_free: level("counters", "pool_free"),
        pool_granted: level("counters", "pool_granted"),
        queues: queue_rows(before, now, seconds),
    }
}

fn queue_rows(before: &Value, now: &Value, seconds: f64) -> Vec<QueueRow> {
    let earlier = by_queue(before);
    let count = |counters: &[(&str, u64)], wanted: &str| {
        let found = counters.iter().find(|(name, _)| *name == wanted);
        found.map_or(0, |&(_, value)| value)
    };
    let row = |(queue, counters): (u64, Vec<(&str, u64)>)| {
        // A queue that was not there before has no rates yet.
        let known = earlier.iter().find(|(number, _)| *number == queue);
        let then = known.map_or(&counters, |(_, then)| then);
        let rate = |name: &str| {
            let added = count(&counters, name).saturating_sub(count(then, name));
            added as f64 / seconds
        };
        QueueRow {
            queue,
            rx: (rate("rx_packets"), rate("rx_bytes") * 8.0 / 1e6),
            tx: (rate("tx_packets"), rate("tx_bytes") * 8.0 / 1e6),
            pool_free: count(&counters, "pool_free"),
            pool_granted: count(&counters, "pool_granted"),
        }
    };
    by_queue(now).into_iter().map(row).collect()
}

fn state(report: &Value) -> &'static str {
    if report["connected"] != true {
        "waiting"
    } else if report["paused"] == true {
        "paused"
    } else if report["link"]["carrier"] == false {
        "no carrier"
    } else {
        "up"
    }
}

/// The row of a vif, and below it one for each of several queues.
fn cells(row: &Row) -> Vec<Vec<String>> {
    let whole = |value: f64| format!("{value:.0}");
    let rates = |rx: (f64, f64), tx: (f64, f64)| {
        [
            whole(rx.0),
            format!("{:.2}", rx.1),
            whole(tx.0),
            format!("{:.2}", tx.1),
        ]
    };
    let mut vif = vec![row.vif.to_string(), row.state.to_owned()];
    vif.extend(rates(row.rx, row.tx));
    vif.extend([
        whole(row.drops),
        row.pool_free.to_string(),
        row.pool_granted.to_string(),
        format!("{:.1}", row.wakeups),
        format!("{:.1}", row.cpu_percent),
        format!("{:.1}", row.resident_bytes as f64 / f64::from(1 << 20)),
    ]);
    let queues = row.queues.iter().map(|queue| {
        let mut cells = vec![String::new(), format!("queue {}", queue.queue)];
        cells.extend(rates(queue.rx, queue.tx));
        let pages = [queue.pool_free, queue.pool_granted].map(|pages| pages.to_string());
        cells.push(String::new());
        cells.extend(pages);
        cells.resize(vif.len(), String::new());
        cells
    });
    let queues: Vec<_> = queues.collect();
    std::iter::once(vif).chain(queues).collect()
}

/// The table for people.
fn picture(rows: &[Row]) -> String {
    let header = [
        "vif",
        "state",
        "rx pkt/s",
        "rx Mbit/s",
        "tx pkt/s",
        "tx Mbit/s",
        "lost/s",
        "pool free",
        "of",
        "wakes/s",
        "CPU %",
        "MiB",
    ];
    let cells: Vec<Vec<String>> = rows.iter().flat_map(cells).collect();
    table(&header, &cells)
}

/// The table for programs, in one line.
fn line(rows: &[Row], time: Duration) -> String {
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let queue = |queue: &QueueRow| {
        json!({
            "queue": queue.queue,
            "rx_packets_per_second": round(queue.rx.0),
            "rx_mbit_per_second": round(queue.rx.1),
            "tx_packets_per_second": round(queue.tx.0),
            "tx_mbit_per_second": round(queue.tx.1),
            "pool_free": queue.pool_free,
            "pool_granted": queue.pool_granted,
        })
    };
    let vifs: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "vif": row.vif,
                "state": row.state,
                "rx_packets_per_second": round(row.rx.0),
                "rx_mbit_per_second": round(row.rx.1),
                "tx_packets_per_second": round(row.tx.0),
                "tx_mbit_per_second": round(row.tx.1),
                "lost_per_second": round(row.drops),
                "pool_free": row.pool_free,
                "pool_granted": row.pool_granted,
                "wakeups_per_second": round(row.wakeups),
                "cpu_percent": round(row.cpu_percent),
                "resident_bytes": row.resident_bytes,
                "queues": row.queues.iter().map(queue).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({ "schema": SCHEMA, "seconds": round(time.as_secs_f64()), "vifs": vifs }).to_string()
}

/// Signals as something to wait for.
struct Bell(UnixStream);

impl Bell {
    fn new() -> Result<Self, Failure> {
        let failed = || Failure::io("installing signal handlers");
        let (bell, ringer) = UnixStream::pair().map_err(failed())?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let ringer = ringer.try_clone().map_err(failed())?;
            signal_hook::low_level::pipe::register(signal, ringer).map_err(failed())?;
        }
        Ok(Self(bell))
    }

    fn rings_within(&self, time: Duration) -> bool {
        let _ = self.0.set_read_timeout(Some(time));
        matches!((&self.0).read(&mut [0; 1]), Ok(1))
    }
}

/// A terminal's second screen, on which the table is drawn over itself; anywhere else tables follow each
/// other. The first screen comes back at the end, with what was on it.
struct Screen(bool);

impl Screen {
    fn new(terminal: bool) -> Self {
        if terminal {
            // Second screen, cursor hidden.
            print(b"\x1b[?1049h\x1b[?25l");
        }
        Self(terminal)
    }

    /// False if nobody can see it.
    fn show(&self, text: &str) -> bool {
        if !self.0 {
            return print(format!("{text}\n").as_bytes());
        }
        // From the upper left; the rest of each line, and what is below, is cleared.
        let lines = text.replace('\n', "\x1b[K\n");
        print(format!("\x1b[H{lines}\x1b[K\n\x1b[J\nCtrl-C ends").as_bytes())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.0 {
            print(b"\x1b[?25h\x1b[?1049l");
        }
    }
}

fn print(bytes: &[u8]) -> bool {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(packets: u64, cpu: f64) -> Value {
        json!({
            "vif": 3, "pid": 9, "connected": true, "paused": false, "link": { "carrier": true },
            "counters": {
                "rx_packets": packets, "rx_bytes": packets * 1250, "rx_drop_too_short": packets / 10,
                "tx_packets": 0, "tx_bytes": 0, "pool_free": 500, "pool_granted": 768,
            },
            "process": { "cpu_seconds": cpu, "resident_bytes": 9_437_184, "wakeups": packets / 100 },
        })
    }

    fn moment(at: Instant, report: Value) -> Moment {
        let key = (3, report["pid"].as_u64().unwrap_or(0));
        Moment {
            at,
            reports: BTreeMap::from([(key, report)]),
        }
    }

    #[test]
    fn rates_are_what_came_between_two_moments() {
        let start = Instant::now();
        let before = moment(start, report(1000, 1.0));
        let now = moment(start + Duration::from_secs(2), report(21_000, 1.5));
        let wanted = "\
vif  state  rx pkt/s  rx Mbit/s  tx pkt/s  tx Mbit/s  lost/s  pool free   of  wakes/s  CPU %  MiB
---  -----  --------  ---------  --------  ---------  ------  ---------  ---  -------  -----  ---
  3  up        10000     100.00         0       0.00    1000        500  768    100.0   25.0  9.0";
        assert_eq!(picture(&rows(&before, &now)), wanted);
    }

    #[test]
    fn several_queues_have_rows_of_their_own_below_their_vif() {
        let start = Instant::now();
        let with = |packets: u64| {
            let counters = |packets: u64| json!({ "rx_packets": packets, "rx_bytes": packets * 1250, "pool_free": 9, "pool_granted": 384 });
            let mut report = report(packets, 1.0);
            report["queues"] = json!([
                { "queue": 0, "counters": counters(0) },
                { "queue": 1, "counters": counters(packets) },
            ]);
            report
        };
        let before = moment(start, with(0));
        let rows = rows(
            &before,
            &moment(start + Duration::from_secs(2), with(20_000)),
        );
        let rates: Vec<_> = rows[0].queues.iter().map(|queue| queue.rx).collect();
        assert_eq!(rates, [(0.0, 0.0), (10_000.0, 100.0)]);
        let text = picture(&rows);
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.contains("queue 1"), "{text}");
        let value: Value =
            serde_json::from_str(&line(&rows, Duration::from_secs(2))).unwrap_or_default();
        assert_eq!(
            value["vifs"][0]["queues"][1]["rx_packets_per_second"],
            10_000.0
        );
    }

    #[test]
    fn a_driver_that_was_started_anew_has_no_rates_yet() {
        let start = Instant::now();
        let before = moment(start, report(1000, 1.0));
        let mut fresh = report(50, 0.1);
        fresh["pid"] = 10.into();
        fresh["connected"] = false.into();
        let rows = rows(&before, &moment(start + Duration::from_secs(1), fresh));
        assert_eq!((rows[0].rx, rows[0].cpu_percent), ((0.0, 0.0), 0.0));
        assert_eq!(rows[0].state, "waiting");
    }

    #[test]
    fn json_is_one_line_a_table() {
        let start = Instant::now();
        let before = moment(start, report(0, 0.0));
        let now = moment(start + Duration::from_secs(1), report(100, 0.0));
        let line = line(&rows(&before, &now), Duration::from_secs(1));
        assert!(!line.contains('\n'));
        let value: Value = serde_json::from_str(&line).unwrap_or_default();
        assert_eq!(value["schema"], 1);
        assert_eq!(value["vifs"][0]["rx_packets_per_second"], 100.0);
    }
}
