//! `netfront stats`: every counter of a running driver, in the form of `ethtool -S`.

use netfront::consumer::TapCounters;
use netfront::QueueStats;
use serde_json::{json, Map, Value};

use crate::args::Stats;
use crate::control::{self, SCHEMA};
use crate::failure::Failure;
use crate::output::say;

/// The parts of a report that hold counters, each with what stands before its names.
pub const SECTIONS: [(&str, &str); 3] = [
    ("counters", ""),
    ("tap", "tap_"),
    ("hypervisor", "hypervisor_"),
];

/// What the hypervisor's counters mean, in the order of the report.
const HYPERVISOR: [(&str, &str); 5] = [
    (
        "hypercalls",
        "Calls into the hypervisor that this process caused, by its own count.",
    ),
    ("notifications", "Events sent, on all channels."),
    ("grants", "Pages granted, from the start of the process on."),
    ("revokes", "Grants ended."),
    (
        "system_calls",
        "System calls on Xen's devices, the waits for events among them.",
    ),
];

/// Prints the counters of a running driver, or what each of them means.
pub fn stats(args: &Stats) -> Result<(), Failure> {
    if args.explain {
        explain(args.json);
        return Ok(());
    }
    let report = control::order(&args.which.one()?.socket, "stats")?;
    if args.json {
        say!("{report:#}");
    } else {
        say!("{}", text(&report));
    }
    Ok(())
}

/// Every counter's name with its value.
pub fn flat(report: &Value) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    for (section, prefix) in SECTIONS {
        for (name, value) in report[section].as_object().into_iter().flatten() {
            all.extend(
                value
                    .as_u64()
                    .map(|value| (format!("{prefix}{name}"), value)),
            );
        }
    }
    all
}

/// The counters of each queue, where there are several; otherwise [`flat`] has all that there is to tell.
pub fn by_queue(report: &Value) -> Vec<(u64, Vec<(&str, u64)>)> {
    let queues = report["queues"]
        .as_array()
        .filter(|queues| queues.len() > 1);
    let mut all = Vec::new();
    for queue in queues.into_iter().flatten() {
        let counters = queue["counters"].as_object().into_iter().flatten();
        let counters = counters.filter_map(|(name, value)| Some((name.as_str(), value.as_u64()?)));
        if let Some(number) = queue["queue"].as_u64() {
            all.push((number, counters.collect()));
        }
    }
    all
}

/// Every counter's name with what it means.
pub fn meanings() -> Vec<(String, &'static str)> {
    let queue = QueueStats::default().table();
    let tap = TapCounters::default().table();
    let queue = queue
        .into_iter()
        .map(|(name, _, meaning)| (name.to_owned(), meaning));
    let tap = tap
        .into_iter()
        .map(|(name, _, meaning)| (format!("tap_{name}"), meaning));
    let hypervisor = HYPERVISOR
        .into_iter()
        .map(|(name, meaning)| (format!("hypervisor_{name}"), meaning));
    queue.chain(tap).chain(hypervisor).collect()
}

/// As `ethtool -S` prints them, so that what reads one reads the other.
fn text(report: &Value) -> String {
    let state = match report["connected"].as_bool() {
        Some(true) => "connected",
        _ => "not connected",
    };
    let mut text = format!("vif {}, {state}\nNIC statistics:", report["vif"]);
    for (name, value) in flat(report) {
        text.push_str(&format!("\n     {name}: {value}"));
    }
    for (queue, counters) in by_queue(report) {
        for (name, value) in counters {
            text.push_str(&format!("\n     queue_{queue}_{name}: {value}"));
        }
    }
    text
}

fn explain(as_json: bool) {
    let meanings = meanings();
    if as_json {
        let meanings: Map<String, Value> = meanings
            .into_iter()
            .map(|(name, meaning)| (name, meaning.into()))
            .collect();
        let report = json!({ "schema": SCHEMA, "meanings": meanings });
        say!("{report:#}");
        return;
    }
    let width = meanings.iter().map(|(name, _)| name.len()).max();
    let width = width.unwrap_or_default();
    for (name, meaning) in meanings {
        say!("{name:<width$}  {meaning}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_printed_as_ethtool_does() {
        let report = json!({
            "vif": 2, "connected": true,
            "counters": { "rx_packets": 7, "rx_bytes": 420 },
            "tap": { "written": 7 },
        });
        assert_eq!(
            text(&report),
            "vif 2, connected\nNIC statistics:\n     rx_packets: 7\n     rx_bytes: 420\n     tap_written: 7"
        );
    }

    #[test]
    fn of_several_queues_each_is_told_after_the_sum() {
        let mut report = json!({
            "vif": 2, "connected": true, "counters": { "rx_packets": 7 },
            "queues": [{ "queue": 0, "counters": { "rx_packets": 7 } }],
        });
        let sum = "vif 2, connected\nNIC statistics:\n     rx_packets: 7";
        assert_eq!(text(&report), sum, "one queue is the sum");
        report["queues"] = json!([
            { "queue": 0, "counters": { "rx_packets": 5 } },
            { "queue": 1, "counters": { "rx_packets": 2 } },
        ]);
        let each = "\n     queue_0_rx_packets: 5\n     queue_1_rx_packets: 2";
        assert_eq!(text(&report), format!("{sum}{each}"));
    }

    #[test]
    fn no_meaning_is_missing_or_told_twice() {
        let meanings = meanings();
        let mut names: Vec<_> = meanings.iter().map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), meanings.len());
        assert!(meanings.iter().all(|(_, meaning)| meaning.ends_with('.')));
    }
}
