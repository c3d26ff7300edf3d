//! `netfront kick`, `pause`, `resume`, `stop`: one word to a driver that runs.

use clap::Args;

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
