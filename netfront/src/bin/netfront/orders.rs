//! `netfront kick`, `pause`, `resume`, `mode`, `affinity`, `stop`: a word or two to a driver that runs.

use clap::Args;
use netfront::engine::cores::cpu_list;
use netfront::engine::moderation::Mode;
use serde_json::json;

use crate::control::{self, Which};
use crate::failure::Failure;
use crate::output::{say, table};

/// Which driver is told.
#[derive(Debug, Args)]
pub struct Order {
    #[command(flatten)]
    pub which: Which,
    /// As JSON, in one line.
    #[arg(long)]
    pub json: bool,
}

/// Which driver, and the mode that it gets.
#[derive(Debug, Args)]
pub struct ModeOrder {
    /// interrupt, adaptive or poll; without one it is only shown.
    #[arg(value_name = "MODE")]
    pub mode: Option<Mode>,
    #[command(flatten)]
    pub which: Which,
    /// As JSON, in one line.
    #[arg(long)]
    pub json: bool,
}

/// CPUs, as the kernel lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpus {
    /// At least one.
    pub list: Vec<usize>,
    text: String,
}

impl std::str::FromStr for Cpus {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match cpu_list(text) {
            Some(list) if !list.is_empty() => Ok(Self {
                list,
                text: text.to_owned(),
            }),
            _ => Err("wanted CPUs as in 0-3,8".into()),
        }
    }
}

/// Which driver, and where its packet threads go.
#[derive(Debug, Args)]
pub struct AffinityOrder {
    /// CPUs, as in 0-3,8; without them it is only shown where the threads are.
    #[arg(value_name = "CPUS")]
    pub cpus: Option<Cpus>,
    /// Only the thread of this queue, and its interrupts.
    #[arg(long, value_name = "N", requires = "cpus")]
    pub queue: Option<usize>,
    #[command(flatten)]
    pub which: Which,
    /// As JSON, in one line.
    #[arg(long)]
    pub json: bool,
}

/// Shows the CPUs of a driver's packet threads, or changes them.
pub fn affinity(args: &AffinityOrder) -> Result<(), Failure> {
    let place = args.which.one()?;
    let cpus = args.cpus.as_ref().map(|cpus| &cpus.text);
    let question = json!({ "command": "affinity", "cpus": cpus, "queue": args.queue });
    let reply = control::tell(&place.socket, &question)?;
    for warning in reply["warnings"].as_array().into_iter().flatten() {
        tracing::warn!("{}", warning.as_str().unwrap_or_default());
    }
    if args.json {
        say!("{reply}");
        return Ok(());
    }
    let rows = reply["queues"].as_array().into_iter().flatten();
    let rows = rows.map(|queue| {
        vec![
            reply["vif"].to_string(),
            queue["queue"].to_string(),
            queue["cpus"].as_str().unwrap_or("no thread").to_owned(),
            queue["cpu"]
                .as_u64()
                .map_or(String::new(), |cpu| cpu.to_string()),
        ]
    });
    let rows: Vec<Vec<String>> = rows.collect();
    say!("{}", table(&["vif", "queue", "CPUs", "now on"], &rows));
    Ok(())
}

/// Shows the mode of a driver, or changes it.
pub fn mode(args: &ModeOrder) -> Result<(), Failure> {
    let place = args.which.one()?;
    let mode = args.mode.map(|mode| mode.to_string());
    let question = json!({ "command": "mode", "mode": mode });
    let reply = control::tell(&place.socket, &question)?;
    match args.json {
        true => say!("{reply}"),
        false => {
            let mode = reply["mode"].as_str().unwrap_or("unknown");
            say!("vif {}: {mode}", reply["vif"]);
        }
    }
    Ok(())
}

/// Tells `command` to a driver.
pub fn order(args: &Order, command: &str) -> Result<(), Failure> {
    let place = args.which.one()?;
    let reply = control::order(&place.socket, command)?;
    if args.json {
        say!("{reply}");
        return Ok(());
    }
    let vif = &reply["vif"];
    match command {
        "kick" if reply["connected"] == false => {
            say!("vif {vif}: not connected: the driver tries to connect now");
        }
        "kick" => say!("vif {vif}: the backend is notified, and the rings are looked at"),
        "pause" => say!("vif {vif}: packets stay in the rings until `netfront resume`"),
        "resume" => say!("vif {vif}: packets pass again"),
        _ => say!("vif {vif}: the driver says goodbye to its backend and ends"),
    }
    Ok(())
}
