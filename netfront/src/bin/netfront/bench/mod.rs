//! `netfront bench`: the transport between two pinned processes, beside the limit of this machine.
//!
//! A row moves packets in one direction, in batches of 32. The sender fills its own buffer in full, the
//! transport copies it into the granted page, the receiver reads one line. The limit is the same work
//! over a bare ring with nothing to check: the same fill, the same copies, in the same run.

pub mod back;
pub mod front;
mod limit;

use std::io::{IsTerminal, Write};

use netfront::PoolPolicy;
use rustix::thread::{sched_setaffinity, CpuSet};
use serde_json::{json, Value};

use crate::args::Bench;
use crate::demo::child::Child;
use crate::failure::Failure;
use crate::ground::start_simulated_xen;
use crate::output::{say, table};

/// Packets that are published together.
pub const BATCH: usize = 32;

/// The processor of the frontend's end, and of the backend's.
pub const CPUS: [usize; 2] = [0, 1];

/// Binds the calling thread to a processor, if there is such a one.
pub fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    if let Err(error) = sched_setaffinity(None, &set) {
        tracing::warn!("not bound to CPU {cpu}: {error}: figures will vary");
    }
}

/// What the sender does for each packet before it hands it over: writes every byte.
pub fn fill(buffer: &mut [u8], number: u64) {
    buffer.fill(number as u8);
}

/// Runs the bench.
pub fn bench(args: &Bench) -> Result<(), Failure> {
    for &size in &args.sizes {
        if !(60..=65_535).contains(&size) {
            return Err(Failure::Verdict(format!(
                "no frame has {size} bytes: 60 to 65535 do"
            )));
        }
    }
    let directory = tempfile::tempdir().map_err(Failure::io("creating a temporary directory"))?;
    let socket = directory.path().join("xen");
    let _xen = start_simulated_xen(&socket)?;
    let socket = socket.to_string_lossy();
    let mut rows = Vec::new();
    for direction in ["rx", "tx"] {
        for &size in &args.sizes {
            tell(args, &format!("limit {direction} {size}"));
            // Pages that a packet fits in: the limit has one page a packet.
            let limit = if size <= xen_ring::PAGE_SIZE {
                Some(
                    pair(
                        args,
                        &socket,
                        size,
                        direction,
                        Run::Limit { prefetch: false },
                    )?
                    .max(pair(
                        args,
                        &socket,
                        size,
                        direction,
                        Run::Limit { prefetch: true },
                    )?),
                )
            } else {
                None
            };
            for &policy in &args.policies {
                tell(args, &format!("{policy} {direction} {size}"));
                let mpps = pair(args, &socket, size, direction, Run::Transport(policy))?;
                rows.push(json!({
                    "size": size,
                    "direction": direction,
                    "policy": policy.name(),
                    "mpps": mpps,
                    "gbps": mpps * size as f64 * 8.0 / 1000.0,
                    "limit_mpps": limit,
                    "ratio": limit.map(|limit| mpps / limit),
                }));
            }
        }
    }
    tell(args, "");
    if args.json {
        say!("{:#}", json!({ "schema": 1, "batch": BATCH, "rows": rows }));
    } else {
        say!("{}", render(&rows));
    }
    Ok(())
}

/// What two processes do.
#[derive(Clone, Copy)]
enum Run {
    /// The driver and the backend, with this policy.
    Transport(PoolPolicy),
    /// The same copies over a bare ring.
    Limit { prefetch: bool },
}

/// Runs both ends and returns millions of packets a second, as the frontend's end counted them.
fn pair(
    args: &Bench,
    socket: &str,
    size: usize,
    direction: &str,
    run: Run,
) -> Result<f64, Failure> {
    let (size, seconds) = (size.to_string(), args.seconds.to_string());
    let mut common = vec![
        "--sim",
        socket,
        "--size",
        &size,
        "--direction",
        direction,
        "--seconds",
        &seconds,
    ];
    match run {
        Run::Transport(policy) => common.extend(["--policy", policy.name()]),
        Run::Limit { prefetch: false } => common.push("--limit"),
        Run::Limit { prefetch: true } => common.extend(["--limit", "--prefetch"]),
    }
    let start = |name, command| {
        let mut all = vec!["-q", command];
        all.extend(&common);
        Child::start(name, &all)
    };
    let mut back = start("backend's end", "bench-back")?;
    let mut front = start("frontend's end", "bench-front")?;
    back.wait_for("ready", |_| {})?;
    if matches!(run, Run::Limit { .. }) {
        let shared = front.wait_for("shared", |_| {})?;
        back.send(&shared["references"].to_string())?;
    }
    let done = front.wait_for("done", |_| {})?;
    done["mpps"]
        .as_f64()
        .ok_or_else(|| Failure::Verdict("the frontend's end has no rate".into()))
}

fn tell(args: &Bench, what: &str) {
    if !args.json && std::io::stderr().is_terminal() {
        eprint!("\r{what}\x1b[K");
        let _ = std::io::stderr().flush();
    }
}

fn render(rows: &[Value]) -> String {
    let header = [
        "size",
        "direction",
        "policy",
        "Mpps",
        "Gbit/s",
        "limit Mpps",
        "ratio",
    ];
    let cells = rows.iter().map(|row| {
        let float = |key: &str| {
            row[key]
                .as_f64()
                .map_or("n/a".into(), |v| format!("{v:.2}"))
        };
        vec![
            row["size"].to_string(),
            row["direction"].as_str().unwrap_or_default().to_owned(),
            row["policy"].as_str().unwrap_or_default().to_owned(),
            float("mpps"),
            float("gbps"),
            float("limit_mpps"),
            float("ratio"),
        ]
    });
    table(&header, &cells.collect::<Vec<_>>())
}
