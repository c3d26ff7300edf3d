//! `netfront demo`: a simulated Xen, a backend and a frontend, each a process, and verified traffic both ways.
//!
//! One row for each policy. The processes talk to this one by lines on their pipes; see `child`.

pub mod back;
pub mod child;
pub mod front;
mod tap;

use std::io::{IsTerminal, Write};

use netfront::PoolPolicy;
use serde_json::{json, Value};

use crate::args::Demo;
use crate::failure::Failure;
use crate::ground::start_simulated_xen;
use crate::output::{per_packet, say, table};
use child::Child;

/// The part of a row's time that is not counted.
const WARM_UP: f64 = 0.2;

/// Runs the demo.
pub fn demo(args: &Demo) -> Result<(), Failure> {
    if args.tap {
        return tap::demo(args);
    }
    let directory = tempfile::tempdir().map_err(Failure::io("creating a temporary directory"))?;
    let socket = directory.path().join("xen");
    let _xen = start_simulated_xen(&socket)?;
    let policies = match args.policy {
        Some(policy) => vec![policy],
        None => PoolPolicy::ALL.to_vec(),
    };
    if !args.json {
        say!(
            "verified traffic both ways, {}-byte frames, on a simulated Xen: {} s in all",
            args.frames,
            args.seconds
        );
    }
    let seconds = args.seconds as f64 / policies.len() as f64;
    let mut rows = Vec::new();
    for policy in policies {
        let row = run_policy(args, &socket.to_string_lossy(), policy, seconds)?;
        rows.push(row);
    }
    let failures: Vec<String> = rows.iter().filter_map(judge).collect();
    if args.json {
        let report = json!({
            "schema": 1,
            "frames": args.frames.to_string(),
            "seconds": args.seconds,
            "ok": failures.is_empty(),
            "failures": failures,
            "rows": rows,
        });
        say!("{report:#}");
    } else {
        say!("\n{}", render(&rows));
        say!(
            "\nAll figures but packets, Mpps and Gbit/s are a packet, of the frontend's process \
             (allocations: of its queue's thread). CPU: seconds a million packets.\nOn a simulated Xen a grant costs what it costs the kernel \
             here (a mapping), a hypercall nothing."
        );
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failure::Verdict(failures.join("; ")))
    }
}

/// Runs both ends with one policy and returns the row.
fn run_policy(
    args: &Demo,
    socket: &str,
    policy: PoolPolicy,
    seconds: f64,
) -> Result<Value, Failure> {
    let frames = args.frames.to_string();
    let mut back = Child::start(
        "backend",
        &[
            "-q",
            "demo-back",
            "--sim",
            socket,
            "--frames",
            &frames,
            "--mac",
            "02:00:00:00:00:01",
        ],
    )?;
    back.wait_for("ready", |_| {})?;
    let (warm_up, counted) = (seconds * WARM_UP, seconds * (1.0 - WARM_UP));
    let (warm_up, counted) = (warm_up.to_string(), counted.to_string());
    let mut front_args = vec![
        "-q",
        "demo-front",
        "--sim",
        socket,
        "--policy",
        policy.name(),
        "--frames",
        &frames,
        "--warm-up",
        &warm_up,
        "--seconds",
        &counted,
    ];
    // One file, one policy: the next would overwrite it.
    let first = args.policy.unwrap_or(PoolPolicy::ALL[0]) == policy;
    let capture = args.capture.as_ref().filter(|_| first);
    let capture = capture.map(|path| path.to_string_lossy());
    if let Some(path) = &capture {
        front_args.extend(["--capture", path]);
    }
    let mut front = Child::start("frontend", &front_args)?;
    let live = !args.json;
    front.wait_for("measured", |progress| {
        if live {
            show(policy, progress);
        }
    })?;
    // First both stop sending, then each waits for what the other sent.
    back.send("stop")?;
    let sent = count(&back.wait_for("stopped", |_| {})?, "sent")?;
    front.send(&sent.to_string())?;
    let mut row = front.wait_for("done", |_| {})?;
    let from_front = count(&row, "sent_in_all")?;
    back.send(&from_front.to_string())?;
    let peer = back.wait_for("done", |_| {})?;
    let missing = sent.saturating_sub(count(&row, "received_in_all")?)
        + from_front.saturating_sub(count(&peer, "received")?);
    // A gap in the sequence and a frame that never came are the same loss seen twice: the larger counts.
    let lost = missing.max(count(&row, "lost")? + count(&peer, "lost")?);
    let corrupt = count(&row, "corrupt")? + count(&peer, "corrupt")?;
    let reordered = count(&row, "reordered")? + count(&peer, "reordered")?;
    row["policy"] = policy.name().into();
    row["lost"] = lost.into();
    row["corrupt"] = corrupt.into();
    row["reordered"] = reordered.into();
    row["backend_hypercalls"] = peer["hypercalls"].clone();
    if let Some(fields) = row.as_object_mut() {
        for internal in ["event", "sent_in_all", "received_in_all"] {
            fields.remove(internal);
        }
    }
    if live && std::io::stdout().is_terminal() {
        let _ = write!(std::io::stdout(), "\r\x1b[K");
    }
    Ok(row)
}

/// A count that a child must have told: a missing one must not pass for none.
fn count(told: &Value, key: &str) -> Result<u64, Failure> {
    told[key].as_u64().ok_or_else(|| {
        Failure::Verdict(format!("a process of the demo did not tell {key}: {told}"))
    })
}

fn show(policy: PoolPolicy, progress: &Value) {
    let rate = |key: &str| progress[key].as_u64().unwrap_or(0) as f64 / 1e6;
    let line = format!(
        "{:<12} in {:.3} Mpps, out {:.3} Mpps",
        policy.name(),
        rate("rx"),
        rate("tx")
    );
    if std::io::stdout().is_terminal() {
        let _ = write!(std::io::stdout(), "\r{line}\x1b[K");
        let _ = std::io::stdout().flush();
    } else {
        say!("{line}");
    }
}

/// What is wrong with a row, if anything.
fn judge(row: &Value) -> Option<String> {
    let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    let mut wrong = Vec::new();
    let mut zero = vec!["lost", "corrupt", "reordered"];
    if row["policy"] == PoolPolicy::Pool.name() {
        zero.extend(["grants_per_packet", "allocations_per_packet"]);
    }
    for key in zero {
        // Also true for what is no number.
        if number(key) != 0.0 {
            wrong.push(format!("{key} is {}, wanted 0", row[key]));
        }
    }
    for key in ["rx_packets", "tx_packets"] {
        // Not `<`: what is no number is wrong too.
        if !matches!(row[key].as_u64(), Some(1..)) {
            wrong.push(format!("{key} is {}, wanted some", row[key]));
        }
    }
    (!wrong.is_empty()).then(|| format!("{}: {}", row["policy"], wrong.join(", ")))
}

fn render(rows: &[Value]) -> String {
    let header = [
        "policy",
        "packets",
        "Mpps",
        "Gbit/s",
        "hypercalls",
        "grants",
        "allocations",
        "syscalls",
        "copied B",
        "recycled",
        "CPU s",
        "lost",
        "corrupt",
    ];
    let cells = rows.iter().map(|row| {
        let float = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
        vec![
            row["policy"].as_str().unwrap_or_default().to_owned(),
            row["packets"].to_string(),
            format!("{:.3}", float("mpps")),
            format!("{:.2}", float("gbps")),
            per_packet(float("hypercalls_per_packet")),
            per_packet(float("grants_per_packet")),
            per_packet(float("allocations_per_packet")),
            per_packet(float("syscalls_per_packet")),
            per_packet(float("copied_bytes_per_packet")),
            format!("{:.0} %", float("recycle_share") * 100.0),
            format!("{:.3}", float("cpu_seconds_per_million_packets")),
            row["lost"].to_string(),
            row["corrupt"].to_string(),
        ]
    });
    table(&header, &cells.collect::<Vec<_>>())
}
