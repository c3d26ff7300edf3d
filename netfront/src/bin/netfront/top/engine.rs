//! `netfront top --engine`: what the receive engine of each queue does a second.

use std::time::Duration;

use serde_json::{json, Value};

use super::Moment;
use crate::control::SCHEMA;
use crate::output::table;

/// The counters that are shown as rates: the column, the name in JSON, the counter.
const RATES: [(&str, &str, &str); 8] = [
    ("runs/s", "activations_per_second", "engine_activations"),
    ("rounds/s", "rounds_per_second", "engine_rounds"),
    (
        "full/s",
        "budget_squeezes_per_second",
        "engine_budget_squeezes",
    ),
    ("late/s", "time_squeezes_per_second", "engine_time_squeezes"),
    ("held/s", "held_per_second", "engine_held"),
    ("lost/s", "dropped_per_second", "engine_dropped"),
    ("events/s", "events_per_second", "events"),
    ("wakes/s", "wakeups_per_second", "wakeups"),
];

/// What the engine of one queue did between two moments.
#[derive(Debug, PartialEq)]
pub struct EngineRow {
    vif: u64,
    mode: String,
    queue: u64,
    cpu: Option<u64>,
    /// Both ways.
    packets: f64,
    /// In the order of [`RATES`].
    rates: [f64; RATES.len()],
    /// The restart limits lately, the last one is that of now.
    limits: Vec<u64>,
}

/// All queues of all vifs. One that was not there before has no rates yet.
pub fn rows(before: &Moment, now: &Moment) -> Vec<EngineRow> {
    let seconds = (now.at - before.at).as_secs_f64().max(0.001);
    let mut rows = Vec::new();
    for (key, report) in &now.reports {
        let earlier = before.reports.get(key);
        for queue in report["queues"].as_array().into_iter().flatten() {
            let then = earlier.and_then(|earlier| {
                let mut queues = earlier["queues"].as_array()?.iter();
                queues.find(|then| then["queue"] == queue["queue"])
            });
            rows.push(row(report, then.unwrap_or(queue), queue, seconds));
        }
    }
    rows
}

fn row(report: &Value, before: &Value, now: &Value, seconds: f64) -> EngineRow {
    let rate = |counter: &str| {
        let value = |queue: &Value| queue["counters"][counter].as_u64().unwrap_or(0);
        value(now).saturating_sub(value(before)) as f64 / seconds
    };
    let limits = now["limits"].as_array().into_iter().flatten();
    EngineRow {
        vif: report["vif"].as_u64().unwrap_or(0),
        mode: report["mode"].as_str().unwrap_or("?").to_owned(),
        queue: now["queue"].as_u64().unwrap_or(0),
        cpu: now["cpu"].as_u64(),
        packets: rate("rx_packets") + rate("tx_packets"),
        rates: RATES.map(|(_, _, counter)| rate(counter)),
        limits: limits.filter_map(Value::as_u64).collect(),
    }
}

impl EngineRow {
    /// Packets for each time that the thread slept and woke.
    fn packets_a_wakeup(&self) -> Option<f64> {
        let wakeups = self.rates.last().copied()?;
        (wakeups > 0.0).then(|| self.packets / wakeups)
    }

    fn cells(&self) -> Vec<String> {
        let mut cells = vec![
            self.vif.to_string(),
            self.queue.to_string(),
            self.cpu
                .map_or_else(|| "n/a".to_owned(), |cpu| cpu.to_string()),
            self.mode.clone(),
            format!("{:.0}", self.packets),
        ];
        cells.extend(self.rates.iter().map(|rate| format!("{rate:.0}")));
        let a_wakeup = self.packets_a_wakeup();
        cells.push(a_wakeup.map_or_else(|| "n/a".to_owned(), |packets| format!("{packets:.1}")));
        let ends = [
            self.limits.last(),
            self.limits.iter().min(),
            self.limits.iter().max(),
        ];
        cells.extend(ends.map(|limit| limit.map_or_else(|| "n/a".to_owned(), u64::to_string)));
        cells
    }
}

/// The table for people.
pub fn picture(rows: &[EngineRow]) -> String {
    let mut header = vec!["vif", "queue", "CPU", "mode", "pkt/s"];
    header.extend(RATES.map(|(column, ..)| column));
    header.extend(["pkt/wake", "limit", "least", "most"]);
    let cells: Vec<Vec<String>> = rows.iter().map(EngineRow::cells).collect();
    table(&header, &cells)
}

/// The table for programs, in one line.
pub fn line(rows: &[EngineRow], time: Duration) -> String {
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let queues = rows.iter().map(|row| {
        let mut queue = json!({
            "vif": row.vif,
            "queue": row.queue,
            "cpu": row.cpu,
            "mode": row.mode,
            "packets_per_second": round(row.packets),
        });
        for ((_, name, _), rate) in RATES.iter().zip(row.rates) {
            queue[*name] = round(rate).into();
        }
        queue["packets_per_wakeup"] = json!(row.packets_a_wakeup().map(round));
        queue["limits"] = json!(row.limits);
        queue
    });
    let queues: Vec<Value> = queues.collect();
    json!({ "schema": SCHEMA, "seconds": round(time.as_secs_f64()), "engine": queues }).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Instant;

    use super::*;

    fn moment(at: Instant, packets: u64) -> Moment {
        let report = json!({
            "vif": 3, "pid": 9, "mode": "adaptive",
            "queues": [{
                "queue": 0, "cpu": 1, "limits": [10, 20, 12],
                "counters": {
                    "rx_packets": packets, "tx_packets": packets, "engine_activations": packets / 100,
                    "engine_rounds": packets / 50, "engine_held": 4, "wakeups": packets / 400,
                },
            }],
        });
        Moment {
            at,
            reports: BTreeMap::from([((3, 9), report)]),
        }
    }

    #[test]
    fn each_queue_has_its_rates_and_its_limits() {
        let start = Instant::now();
        let rows = rows(
            &moment(start, 1000),
            &moment(start + Duration::from_secs(2), 21_000),
        );
        let wanted = "\
vif  queue  CPU  mode      pkt/s  runs/s  rounds/s  full/s  late/s  held/s  lost/s  events/s  wakes/s  pkt/wake  limit  least  most
---  -----  ---  --------  -----  ------  --------  ------  ------  ------  ------  --------  -------  --------  -----  -----  ----
  3      0    1  adaptive  20000     100       200       0       0       0       0         0       25     800.0     12     10    20";
        assert_eq!(picture(&rows), wanted);
        let value: Value =
            serde_json::from_str(&line(&rows, Duration::from_secs(2))).unwrap_or_default();
        let queue = &value["engine"][0];
        assert_eq!(queue["rounds_per_second"], 200.0);
        assert_eq!(queue["packets_per_wakeup"], 800.0);
        assert_eq!(queue["limits"], json!([10, 20, 12]));
    }

    #[test]
    fn what_is_not_known_is_not_invented() {
        let start = Instant::now();
        let mut now = moment(start + Duration::from_secs(1), 500);
        let report = now.reports.values_mut().next().unwrap();
        report["queues"][0]["cpu"] = Value::Null;
        report["queues"][0]["limits"] = json!([]);
        let before = Moment {
            at: start,
            reports: BTreeMap::new(),
        };
        let rows = rows(&before, &now);
        assert_eq!(rows[0].packets, 0.0, "it was not there before");
        let picture = picture(&rows);
        let last = picture.lines().last().unwrap();
        assert_eq!(
            last.split_whitespace()
                .filter(|word| *word == "n/a")
                .count(),
            5,
            "{picture}"
        );
    }
}
