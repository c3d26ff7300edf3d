//! `netfront status`: a picture of every vif that netfront drives here.

use std::collections::BTreeSet;
use std::fs;

use clap::Args;
use serde_json::{json, Value};

use crate::control::{self, Which, SCHEMA};
use crate::failure::Failure;
use crate::output::say;
use crate::stats::by_queue;
use crate::sysfs::Vif;

/// Which vifs are shown.
#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub which: Which,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// Cells of the picture of a pool.
const CELLS: u64 = 40;
/// Bytes of a page.
const PAGE: f64 = 4096.0;
/// Slots of a ring.
const SLOTS: u64 = 256;

/// Shows them.
pub fn status(args: &Status) -> Result<(), Failure> {
    let (mut reports, mut silent) = (Vec::new(), Vec::new());
    for place in args.which.places() {
        match control::order(&place.socket, "status") {
            Ok(report) => reports.push(report),
            Err(failure) => silent.push((place, failure)),
        }
    }
    let others = match args.which.sim {
        Some(_) => Vec::new(),
        None => others(&reports, args.which.vif),
    };
    if args.json {
        let report = json!({ "schema": SCHEMA, "vifs": reports, "others": others });
        say!("{report:#}");
    } else {
        for report in &reports {
            say!("{}", text(report));
        }
        for other in &others {
            say!(
                "vif {}: {}",
                other["vif"],
                other["text"].as_str().unwrap_or_default()
            );
        }
    }
    if let Some((_, failure)) = silent.into_iter().next() {
        return Err(failure);
    }
    if reports.is_empty() && others.is_empty() {
        return Err(Failure::NotHere(
            "no netfront runs here, and the kernel knows no vif: `netfront probe` says what is missing".into(),
        ));
    }
    Ok(())
}

/// The vifs that the kernel knows and no netfront answers for.
fn others(reports: &[Value], only: Option<u32>) -> Vec<Value> {
    let ours: BTreeSet<u64> = reports
        .iter()
        .filter_map(|report| report["vif"].as_u64())
        .collect();
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir("/sys/bus/xen/devices")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let number = name.strip_prefix("vif-").map(str::parse::<u32>);
        numbers.extend(number.and_then(Result::ok));
    }
    numbers
        .into_iter()
        .filter(|&vif| !ours.contains(&vif.into()) && only.is_none_or(|only| only == vif))
        .map(|vif| {
            let device = Vif::new(vif);
            let (driver, interface) = (device.driver(), device.interface());
            let text = match (&driver, &interface) {
                (Some(driver), Some(interface)) => {
                    format!("the kernel's driver {driver} has it, as {}", interface.name)
                }
                (Some(driver), None) => format!("the kernel's driver {driver} has it"),
                (None, _) => format!("nobody has it: `netfront run --vif {vif}`"),
            };
            json!({ "vif": vif, "kernel_driver": driver, "text": text })
        })
        .collect()
}

/// The picture of one vif.
fn text(report: &Value) -> String {
    let mut lines = vec![headline(report)];
    let mut line = |name: &str, text: String| lines.push(format!("  {name:<10}{text}"));
    line("ends", ends(&report["store"]));
    let link = &report["link"];
    if link.is_object() {
        line("features", features(report, link));
    }
    line("pool", pool(&report["counters"]));
    line("", pool_figures(&report["counters"]));
    let queues = report["queues"].as_array();
    line(
        "rings",
        rings(&report["counters"], queues.map_or(1, Vec::len)),
    );
    line("packets", packets(report));
    line("engine", engine(report));
    for (queue, counters) in by_queue(report) {
        line(&format!("queue {queue}"), one_queue(&counters));
    }
    line("process", process(&report["process"]));
    if let Some(address) = report["metrics"].as_str() {
        line("metrics", address.to_owned());
    }
    lines.join("\n")
}

fn headline(report: &Value) -> String {
    let link = &report["link"];
    let mut text = format!("vif {}  ", report["vif"]);
    match link["connected_seconds"].as_u64() {
        Some(seconds) => text.push_str(&format!("connected for {}", duration(seconds as f64))),
        None => text.push_str("not connected: waiting for the backend"),
    }
    if link.is_object() {
        let carrier = match link["carrier"].as_bool() {
            Some(true) => "carrier on",
            _ => "carrier off",
        };
        let mac = link["mac"].as_str().unwrap_or("?");
        text.push_str(&format!(", {mac}, MTU {}, {carrier}", link["mtu"]));
        if let Some(speed) = link["speed"].as_u64() {
            text.push_str(&format!(", {}", bits_a_second(speed)));
        }
    }
    for (key, word) in [("paused", "PAUSED"), ("capturing", "capturing")] {
        if report[key] == true {
            text.push_str(&format!(", {word}"));
        }
    }
    text
}

/// In the largest unit of which there are whole ones, as a network card's speed is told.
fn bits_a_second(speed: u64) -> String {
    let units = [(1_000_000_000, "Gbit/s"), (1_000_000, "Mbit/s")];
    let whole = units
        .into_iter()
        .find(|(size, _)| speed.is_multiple_of(*size));
    let (size, unit) = whole.unwrap_or((1000, "kbit/s"));
    format!("{} {unit}", speed / size)
}

fn ends(store: &Value) -> String {
    if let Some(error) = store["error"].as_str() {
        return format!("unknown: {error}");
    }
    let word = |key: &str| store[key].as_str().unwrap_or("?").to_owned();
    let peer = match store["backend_domain"].as_u64() {
        Some(domain) => format!("domain {domain}"),
        None => "in no domain".into(),
    };
    format!(
        "frontend {}, backend {} in {peer}: {}",
        word("frontend"),
        word("backend"),
        word("backend_path")
    )
}

/// What is on, each way, and what is offered and not used.
fn features(report: &Value, link: &Value) -> String {
    let takes: Vec<&str> = link["backend_features"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, on)| **on == true)
        .map(|(name, _)| name.trim_start_matches("feature-"))
        .collect();
    let wants: Vec<&str> = report["wants"]
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(_, on)| **on == true)
        .map(|(name, _)| name.as_str())
        .collect();
    let list = |names: Vec<&str>| match names.is_empty() {
        true => "nothing".to_owned(),
        false => names.join(" "),
    };
    let channels = match link["split_event_channels"].as_bool() {
        Some(true) => "two event channels",
        _ => "one event channel",
    };
    let trust = match link["untrusted"].as_bool() {
        Some(true) => ", everything is copied (untrusted)",
        _ => "",
    };
    let mapped = report["counters"]["gref_mapped"].as_u64().unwrap_or(0);
    format!(
        "backend offers {}; we take {}; {channels}, {mapped} pages stay mapped{trust}",
        list(takes),
        list(wants)
    )
}

/// The shares of a pool as a bar: posted `#`, leased `=`, quarantined `!`, free `.`, room to grow blank.
fn pool(counters: &Value) -> String {
    let pages = |name: &str| counters[name].as_u64().unwrap_or(0);
    let whole = pages("pool_limit").max(pages("pool_granted")).max(1);
    let mut bar = String::new();
    let mut so_far = 0;
    for (name, cell) in [
        ("pool_posted", '#'),
        ("pool_leased", '='),
        ("pool_quarantined", '!'),
        ("pool_free", '.'),
    ] {
        so_far += pages(name);
        // Rounded at the borders, so that the cells of all shares together are never too many.
        let end = ((so_far * CELLS + whole / 2) / whole).min(CELLS) as usize;
        while bar.len() < end {
            bar.push(cell);
        }
    }
    format!("[{bar:<width$}]", width = CELLS as usize)
}

fn pool_figures(counters: &Value) -> String {
    let pages = |name: &str| counters[name].as_u64().unwrap_or(0);
    format!(
        "{} pages granted ({}): # {} posted, = {} leased, ! {} quarantined, . {} free; {} grown, limit {}",
        pages("pool_granted"),
        bytes(pages("pool_granted") as f64 * PAGE),
        pages("pool_posted"),
        pages("pool_leased"),
        pages("pool_quarantined"),
        pages("pool_free"),
        pages("pool_grown"),
        pages("pool_limit")
    )
}

fn rings(counters: &Value, queues: usize) -> String {
    let slots = |name: &str| counters[name].as_u64().unwrap_or(0);
    let all = SLOTS * queues.max(1) as u64;
    format!(
        "rx {} of {all} slots posted, tx {} of {all} unanswered",
        slots("ring_rx_posted"),
        slots("ring_tx_unanswered")
    )
}

/// What one of several queues has carried, and has.
fn one_queue(counters: &[(&str, u64)]) -> String {
    let number = |wanted: &str| {
        let found = counters.iter().find(|(name, _)| *name == wanted);
        found.map_or(0, |&(_, value)| value)
    };
    format!(
        "in {} ({}), out {} ({}), {} of {} pages free, {} slots posted, {} unanswered",
        number("rx_packets"),
        bytes(number("rx_bytes") as f64),
        number("tx_packets"),
        bytes(number("tx_bytes") as f64),
        number("pool_free"),
        number("pool_granted"),
        number("ring_rx_posted"),
        number("ring_tx_unanswered")
    )
}

/// How packets are received: the mode, the restart limit now and lately, and how often rounds ended early.
fn engine(report: &Value) -> String {
    let number = |name: &str| report["counters"][name].as_u64().unwrap_or(0);
    let queues = report["queues"].as_array().into_iter().flatten();
    let limits = queues.flat_map(|queue| queue["limits"].as_array().into_iter().flatten());
    let limits: Vec<u64> = limits.filter_map(Value::as_u64).collect();
    let now = number("engine_limit");
    let (least, most) = (
        limits.iter().min().copied().unwrap_or(now),
        limits.iter().max().copied().unwrap_or(now),
    );
    format!(
        "{}, limit {now} rounds (lately {least} to {most}); of {} rounds {} out of budget, {} out of time; held {}",
        report["mode"].as_str().unwrap_or("?"),
        number("engine_rounds"),
        number("engine_budget_squeezes"),
        number("engine_time_squeezes"),
        number("engine_held"),
    )
}

fn packets(report: &Value) -> String {
    let counters = &report["counters"];
    let number = |name: &str| counters[name].as_u64().unwrap_or(0);
    format!(
        "in {} ({}), out {} ({}), dropped {}",
        number("rx_packets"),
        bytes(number("rx_bytes") as f64),
        number("tx_packets"),
        bytes(number("tx_bytes") as f64),
        drops(report)
    )
}

/// Packets lost here, for whatever reason.
pub fn drops(report: &Value) -> u64 {
    let counters = crate::stats::flat(report);
    let lost = |name: &str| name.contains("_drop_") || name == "tx_dropped" || name == "tx_errors";
    counters
        .iter()
        .filter(|(name, _)| lost(name))
        .map(|(_, value)| value)
        .sum()
}

fn process(process: &Value) -> String {
    let number = |name: &str| process[name].as_f64().unwrap_or(0.0);
    let up = number("up_seconds").max(0.001);
    format!(
        "pid {}, up {}, {} resident, {:.2} s of CPU ({:.2} %), {:.1} wake-ups/s, {} threads",
        process["pid"],
        duration(up),
        bytes(number("resident_bytes")),
        number("cpu_seconds"),
        number("cpu_seconds") / up * 100.0,
        number("wakeups") / up,
        process["threads"]
    )
}

/// `3 s`, `4 min`, `5 h`, `6 d`.
fn duration(seconds: f64) -> String {
    let (value, unit) = match seconds {
        s if s < 120.0 => (s, "s"),
        s if s < 7200.0 => (s / 60.0, "min"),
        s if s < 172_800.0 => (s / 3600.0, "h"),
        s => (s / 86_400.0, "d"),
    };
    format!("{} {unit}", value.floor())
}

/// `4.0 KiB`
fn bytes(mut value: f64) -> String {
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return match unit {
                "B" => format!("{value} B"),
                _ => format!("{value:.1} {unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Value {
        json!({
            "vif": 0, "connected": true, "paused": true, "capturing": false, "mode": "adaptive",
            "link": {
                "mac": "00:16:3e:00:00:01", "mtu": 1500, "carrier": true, "untrusted": false,
                "split_event_channels": true, "connected_seconds": 754,
                "backend_features": { "feature-sg": true, "feature-gso-tcpv4": true, "csum-offload": false },
            },
            "wants": { "sg": true, "gso": true, "csum_offload": false },
            "store": {
                "frontend": "Connected (4)", "backend": "Connected (4)", "backend_domain": 0,
                "backend_path": "/local/domain/0/backend/vif/1/0",
            },
            "counters": {
                "rx_packets": 10, "rx_bytes": 2048, "rx_drop_too_short": 2, "tx_packets": 1, "tx_bytes": 60,
                "tx_dropped": 1, "pool_granted": 768, "pool_free": 500, "pool_posted": 256, "pool_leased": 12,
                "pool_quarantined": 0, "pool_grown": 0, "pool_limit": 992,
                "ring_rx_posted": 250, "ring_tx_unanswered": 6, "gref_mapped": 768,
                "engine_limit": 20, "engine_rounds": 90, "engine_time_squeezes": 2, "engine_held": 1,
            },
            "queues": [{ "queue": 0, "limits": [10, 40, 20] }],
            "tap": { "drop_full": 4 },
            "process": {
                "pid": 7, "up_seconds": 800.0, "cpu_seconds": 0.4, "resident_bytes": 9_437_184,
                "threads": 4, "wakeups": 1200,
            },
        })
    }

    #[test]
    fn a_vif_is_shown_with_all_that_it_has() {
        let wanted = "\
vif 0  connected for 12 min, 00:16:3e:00:00:01, MTU 1500, carrier on, PAUSED
  ends      frontend Connected (4), backend Connected (4) in domain 0: /local/domain/0/backend/vif/1/0
  features  backend offers sg gso-tcpv4; we take sg gso; two event channels, 768 pages stay mapped
  pool      [##########=....................         ]
            768 pages granted (3.0 MiB): # 256 posted, = 12 leased, ! 0 quarantined, . 500 free; 0 grown, limit 992
  rings     rx 250 of 256 slots posted, tx 6 of 256 unanswered
  packets   in 10 (2.0 KiB), out 1 (60 B), dropped 7
  engine    adaptive, limit 20 rounds (lately 10 to 40); of 90 rounds 0 out of budget, 2 out of time; held 1
  process   pid 7, up 13 min, 9.0 MiB resident, 0.40 s of CPU (0.05 %), 1.5 wake-ups/s, 4 threads";
        assert_eq!(text(&report()), wanted);
    }

    #[test]
    fn a_speed_is_told_in_the_unit_in_which_it_was_meant() {
        let mut report = report();
        report["link"]["speed"] = json!(10_000_000_000_u64);
        assert!(text(&report).contains("carrier on, 10 Gbit/s, PAUSED"));
        assert_eq!(bits_a_second(2_500_000_000), "2500 Mbit/s");
        assert_eq!(bits_a_second(56_000), "56 kbit/s");
    }

    #[test]
    fn of_several_queues_each_has_a_line() {
        let mut report = report();
        let queue = |number: u64| {
            let counters = json!({
                "rx_packets": 5, "rx_bytes": 1024, "tx_packets": number, "tx_bytes": 30, "pool_free": 244,
                "pool_granted": 384, "ring_rx_posted": 125, "ring_tx_unanswered": 3,
            });
            json!({ "queue": number, "counters": counters })
        };
        report["queues"] = json!([queue(0)]);
        assert!(!text(&report).contains("queue 0"));
        report["queues"] = json!([queue(0), queue(1)]);
        let text = text(&report);
        assert!(
            text.contains("rx 250 of 512 slots posted, tx 6 of 512 unanswered"),
            "{text}"
        );
        let wanted =
            "  queue 1   in 5 (1.0 KiB), out 1 (30 B), 244 of 384 pages free, 125 slots posted, 3 unanswered";
        assert!(text.contains(wanted), "{text}");
    }

    #[test]
    fn what_is_not_known_is_not_invented() {
        let mut report = report();
        report["link"] = Value::Null;
        report["store"] = json!({ "error": "the store does not answer" });
        let text = text(&report);
        assert!(text.starts_with("vif 0  not connected: waiting for the backend"));
        assert!(text.contains("ends      unknown: the store does not answer"));
        assert!(!text.contains("features"));
    }

    #[test]
    fn the_bar_is_never_too_long_and_shows_what_is_withdrawn() {
        let counters = json!({
            "pool_granted": 100, "pool_posted": 33, "pool_leased": 33, "pool_quarantined": 33, "pool_free": 1,
        });
        let bar = pool(&counters);
        assert_eq!(bar.len() as u64, CELLS + 2);
        assert!(bar.contains('!'), "{bar}");
    }
}
