//! Metrics for Prometheus: over HTTP, or in a file for node_exporter's textfile collector. Off by default.

mod file;
mod http;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use netfront::stats::LEVELS;
use serde_json::Value;

use crate::control::Subject;
use crate::failure::Failure;
use crate::stats::{by_queue, flat, meanings};

/// Where metrics are given out.
#[derive(Debug, Clone, Args)]
pub struct MetricsOptions {
    /// Answer Prometheus over HTTP at this address (whoever reaches it may read; 127.0.0.1:9477 for this machine only; port 0:
    /// one that is free, which `netfront status` tells).
    #[arg(long, value_name = "ADDR:PORT")]
    pub metrics: Option<SocketAddr>,
    /// Write metrics to this file every 15 seconds, for node_exporter's textfile collector (name it *.prom).
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
}

/// Keeps metrics coming until it is dropped.
pub struct Metrics {
    _file: Option<file::MetricsFile>,
}

/// Starts what was asked for.
pub fn serve(options: &MetricsOptions, subject: &Arc<Subject>) -> Result<Metrics, Failure> {
    if let Some(address) = options.metrics {
        let bound = http::serve(address, Arc::clone(subject))?;
        // Set once: there is one such server.
        let _ = subject.metrics.set(bound);
    }
    let file = match &options.metrics_file {
        Some(path) => Some(file::MetricsFile::start(path, Arc::clone(subject))?),
        None => None,
    };
    Ok(Metrics { _file: file })
}

/// A report in Prometheus' text format (version 0.0.4).
fn text(report: &Value) -> String {
    let mut text = String::new();
    let vif = &report["vif"];
    let mut metric = |name: &str, is_level: bool, meaning: &str, value: String| {
        let (kind, suffix) = match is_level {
            true => ("gauge", ""),
            false => ("counter", "_total"),
        };
        text.push_str(&format!(
            "# HELP netfront_{name}{suffix} {meaning}\n# TYPE netfront_{name}{suffix} {kind}\n\
             netfront_{name}{suffix}{{vif=\"{vif}\"}} {value}\n"
        ));
    };
    for (name, meaning) in STATES {
        let value = match name {
            "carrier" => &report["link"]["carrier"],
            name => &report[name],
        };
        let value = u8::from(*value == true).to_string();
        metric(name, true, meaning, value);
    }
    let connections = report["connections"].to_string();
    metric(
        "connections",
        false,
        "Connections made since the start.",
        connections,
    );
    let process = &report["process"];
    for (name, is_level, meaning) in PROCESS {
        let value = &process[name];
        if value.is_number() {
            let name = format!("process_{name}");
            metric(&name, is_level, meaning, value.to_string());
        }
    }
    let meanings = meanings();
    for (name, value) in flat(report) {
        let meaning = meanings.iter().find(|(known, _)| *known == name);
        let meaning = meaning.map_or("", |(_, meaning)| meaning);
        let is_level = LEVELS.contains(&name.as_str());
        metric(&name, is_level, meaning, value.to_string());
    }
    queues(report, &mut text);
    text
}

/// The counters of each of several queues: under names of their own, since the sum over all series of a name must not count
/// a packet twice.
fn queues(report: &Value, text: &mut String) {
    let vif = &report["vif"];
    let queues = by_queue(report);
    for (name, _, meaning) in netfront::QueueStats::default().table() {
        let (kind, suffix) = match LEVELS.contains(&name) {
            true => ("gauge", ""),
            false => ("counter", "_total"),
        };
        let series = format!("netfront_queue_{name}{suffix}");
        let mut head = Some(format!(
            "# HELP {series} {meaning}\n# TYPE {series} {kind}\n"
        ));
        for (queue, counters) in &queues {
            if let Some((_, value)) = counters.iter().find(|(known, _)| *known == name) {
                text.push_str(&head.take().unwrap_or_default());
                text.push_str(&format!(
                    "{series}{{vif=\"{vif}\",queue=\"{queue}\"}} {value}\n"
                ));
            }
        }
    }
}

/// What is on (1) or off (0).
const STATES: [(&str, &str); 4] = [
    ("connected", "1 while there is a connection to a backend."),
    ("carrier", "1 while the cable is in."),
    ("paused", "1 while packets are left in the rings."),
    ("capturing", "1 while packets are captured."),
];

/// What the process takes: name, whether it is a level, and what it means.
const PROCESS: [(&str, bool, &str); 4] = [
    ("up_seconds", true, "Seconds since the start."),
    ("cpu_seconds", false, "Processor time, user and system."),
    ("resident_bytes", true, "Memory that is in use."),
    (
        "wakeups",
        false,
        "Times that a thread slept and was woken, of the threads there are.",
    ),
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_metric_has_a_name_of_its_own_a_kind_and_a_meaning() {
        let counters: serde_json::Map<String, Value> = netfront::QueueStats::default()
            .table()
            .into_iter()
            .map(|(name, ..)| (name.to_owned(), 5.into()))
            .collect();
        let report = json!({
            "vif": 1, "connected": true, "link": { "carrier": false }, "connections": 2,
            "counters": counters, "process": { "cpu_seconds": 0.25, "wakeups": 4 },
            "hypervisor": { "grants": 770 },
        });
        let text = text(&report);
        for wanted in [
            "# HELP netfront_rx_packets_total Packets received and delivered.\n# TYPE netfront_rx_packets_total \
             counter\nnetfront_rx_packets_total{vif=\"1\"} 5\n",
            "# TYPE netfront_pool_free gauge\nnetfront_pool_free{vif=\"1\"} 5\n",
            "netfront_connected{vif=\"1\"} 1\n",
            "netfront_carrier{vif=\"1\"} 0\n",
            "netfront_connections_total{vif=\"1\"} 2\n",
            "netfront_process_cpu_seconds_total{vif=\"1\"} 0.25\n",
            "netfront_hypervisor_grants_total{vif=\"1\"} 770\n",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
        let mut names: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        let all = names.len();
        names.sort();
        names.dedup_by_key(|line| line.split('{').next());
        assert_eq!(names.len(), all, "a metric stands there twice");
        assert!(!text.contains("netfront_queue_"), "one queue is the sum");
        let helpless = |line: &&str| line.starts_with("# HELP") && !line.ends_with('.');
        assert_eq!(text.lines().find(helpless), None);
    }
    #[test]
    fn several_queues_have_series_of_their_own_with_the_queue_as_a_label() {
        let queue = |number: u64| json!({ "queue": number, "counters": { "rx_packets": number + 3, "pool_free": 9 } });
        let report = json!({
            "vif": 1, "counters": { "rx_packets": 7 }, "queues": [queue(0), queue(1)],
        });
        let text = text(&report);
        for wanted in [
            "# TYPE netfront_queue_rx_packets_total counter\nnetfront_queue_rx_packets_total{vif=\"1\",queue=\"0\"} 3\n\
             netfront_queue_rx_packets_total{vif=\"1\",queue=\"1\"} 4\n",
            "# TYPE netfront_queue_pool_free gauge\nnetfront_queue_pool_free{vif=\"1\",queue=\"0\"} 9\n",
            "netfront_rx_packets_total{vif=\"1\"} 7\n",
        ] {
            assert!(text.contains(wanted), "{wanted}\n{text}");
        }
    }
}
