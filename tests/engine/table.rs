//! The table that `ci/engine-table` prints: every scenario, every baseline.

use std::fmt::Write;

use netfront::engine::moderation::Mode;
use netfront::engine::restart::Policy;
use serde_json::{json, Value};

use super::many_cores;
use super::one_core::{run, Scenario, Seen};
use super::parameters::Parameters;
use super::scenarios::{at_load, capture, holding, holds, shared, stopping, with, LOADS, POLICIES};
use super::ways::{Way, WAYS};

/// One part of the table.
#[derive(Debug)]
pub struct Part {
    title: String,
    columns: Vec<String>,
    rows: Vec<(String, Vec<f64>)>,
    /// Digits after the point.
    digits: usize,
}

impl Part {
    fn text(&self) -> String {
        let first = self
            .rows
            .iter()
            .map(|(name, _)| name.len())
            .max()
            .unwrap_or(0);
        let mut text = format!("{}\n", self.title);
        let _ = write!(text, "  {:first$}", "");
        for column in &self.columns {
            let _ = write!(text, "  {column:>10}");
        }
        text.push('\n');
        for (name, values) in &self.rows {
            let _ = write!(text, "  {name:first$}");
            for value in values {
                let _ = write!(text, "  {value:>10.*}", self.digits);
            }
            text.push('\n');
        }
        text
    }

    fn json(&self) -> Value {
        let rows = self.rows.iter().map(|(name, values)| {
            let cells = self.columns.iter().zip(values);
            let cells = cells.map(|(column, value)| (column.clone(), json!(value)));
            json!({ "scenario": name, "values": cells.collect::<serde_json::Map<_, _>>() })
        });
        json!({ "title": self.title, "rows": rows.collect::<Vec<_>>() })
    }
}

/// All parts.
pub fn all(parameters: &Parameters) -> Vec<Part> {
    let mut parts = vec![captured(parameters)];
    parts.extend(sharing(parameters));
    parts.push(dropping(parameters));
    parts.extend(moderated(parameters));
    parts.extend(spread(parameters));
    parts
}

/// The table as text.
pub fn text(parts: &[Part]) -> String {
    let parts: Vec<String> = parts.iter().map(Part::text).collect();
    parts.join("\n")
}

/// The table as JSON.
pub fn json(parts: &[Part]) -> Value {
    json!({ "parts": parts.iter().map(Part::json).collect::<Vec<_>>() })
}

fn policies() -> Vec<String> {
    POLICIES.iter().map(Policy::to_string).collect()
}

fn captured(parameters: &Parameters) -> Part {
    let rows = capture(parameters).into_iter().map(|scenario| {
        let seen = POLICIES.map(|policy| run(parameters, &scenario, with(policy, true)).percent());
        (scenario.name, seen.to_vec())
    });
    Part {
        title: "Capturing beside a process that takes the core at each hand-over: captured, %"
            .into(),
        columns: policies(),
        rows: rows.collect(),
        digits: 1,
    }
}

/// What a part shows of a run.
type Column = (&'static str, fn(&Seen) -> f64);

fn sharing(parameters: &Parameters) -> Vec<Part> {
    let shows: [Column; 3] = [
        ("goodput of the application, kpps", Seen::kpps),
        ("thrown away of what was received, %", Seen::waste),
        ("99 % of packets delivered within, us", |seen| {
            seen.latency.quantile(990)
        }),
    ];
    let scenarios = shared(parameters);
    let runs = |pressure: bool| -> Vec<(&Scenario, [Seen; 7])> {
        let of =
            |scenario| POLICIES.map(|policy| run(parameters, scenario, with(policy, pressure)));
        scenarios
            .iter()
            .map(|scenario| (scenario, of(scenario)))
            .collect()
    };
    let mut parts = Vec::new();
    let (off, on) = (runs(false), runs(true));
    for (what, show) in shows {
        for (pressure, runs) in [("without back-pressure", &off), ("with back-pressure", &on)] {
            let row = |(scenario, seen): &(&Scenario, [Seen; 7])| {
                (scenario.name.clone(), seen.iter().map(show).collect())
            };
            parts.push(Part {
                title: format!("The application on the same core, {pressure}: {what}"),
                columns: policies(),
                rows: runs.iter().map(row).collect(),
                digits: 1,
            });
        }
    }
    parts
}

fn dropping(parameters: &Parameters) -> Part {
    let scenario = stopping(parameters);
    let rows = holds(parameters).map(|hold| {
        let seen = run(parameters, &scenario, holding(hold));
        let values = vec![
            seen.kpps(),
            seen.share(seen.lost),
            seen.share(seen.dropped),
            seen.waste(),
            seen.stood as f64 / 1000.0,
        ];
        (format!("{}, held for {hold:?}", scenario.name), values)
    });
    let columns = ["kpps", "lost %", "dropped %", "wasted %", "stood us"];
    Part {
        title: "The application on the same core takes nothing for a while: dropped after a time, or left to the backend".into(),
        columns: columns.map(String::from).into(),
        rows: rows.into(),
        digits: 1,
    }
}

fn moderated(parameters: &Parameters) -> Vec<Part> {
    let shows: [(Column, usize); 3] = [
        (("events a packet", Seen::events_a_packet), 4),
        (
            ("99 % of packets delivered within, us", |seen| {
                seen.latency.quantile(990)
            }),
            1,
        ),
        (("time of the core used, %", Seen::busy_percent), 1),
    ];
    let modes = [Mode::Interrupt, Mode::Adaptive, Mode::Poll];
    let runs = LOADS.map(|percent| modes.map(|mode| at_load(parameters, percent, mode)));
    let part = |((what, show), digits): (Column, usize)| Part {
        title: format!("A core that captures alone, by its load: {what}"),
        columns: vec!["interrupt".into(), "adaptive".into(), "poll".into()],
        rows: runs
            .iter()
            .map(|runs| {
                (
                    runs[0].0.clone(),
                    runs.iter().map(|(_, seen)| show(seen)).collect(),
                )
            })
            .collect(),
        digits,
    };
    shows.map(part).into()
}

fn spread(parameters: &Parameters) -> Vec<Part> {
    let row = |(name, way): (&str, Way)| {
        let seen = many_cores::run(parameters, way);
        let values = vec![
            seen.kpps(),
            seen.percent(),
            seen.wakes_a_packet(),
            seen.out_of_order as f64,
            seen.spread as f64,
            seen.latency.quantile(500),
            seen.latency.quantile(990),
            seen.events_on_workers as f64,
        ];
        (name.to_owned(), values)
    };
    let columns = [
        "kpps",
        "%",
        "wakes/pkt",
        "disordered",
        "spread",
        "p50 us",
        "p99 us",
        "ev.workers",
    ];
    vec![Part {
        title: "Four cores: two for events and two for work where nothing else is said".into(),
        columns: columns.map(String::from).into(),
        rows: WAYS.map(row).into(),
        digits: 3,
    }]
}
