//! `netfront kick`, `pause`, `resume`, `mode`, `stop`: a word or two to a driver that runs.

use clap::Args;
use netfront::engine::moderation::Mode;
use serde_json::json;

use crate::control::{self, Which};
use crate::failure::Failure;
use crate::output::say;

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
        "kick" => say!("vif {vif}: the backend is notified, and the rings are looked at"),
        "pause" => say!("vif {vif}: packets stay in the rings until `netfront resume`"),
        "resume" => say!("vif {vif}: packets pass again"),
        _ => say!("vif {vif}: the driver says goodbye to its backend and ends"),
    }
    Ok(())
}
