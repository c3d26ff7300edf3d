//! `netfront kick`, `pause`, `resume`, `stop`: one word to drivers that run.

use std::os::unix::net::UnixStream;

use clap::Args;

use crate::control::{self, Place, Which};
use crate::failure::Failure;
use crate::output::say;

/// Which driver is told.
#[derive(Debug, Args)]
pub struct Order {
    #[command(flatten)]
    pub which: Which,
    /// As JSON, a line for each driver.
    #[arg(long)]
    pub json: bool,
}

/// The one driver that a command is about: the only one there is, or the one that is named.
pub fn one(which: &Which) -> Result<Place, Failure> {
    let mut places = which.places();
    if places.len() > 1 {
        // A driver that was killed leaves its socket behind.
        places.retain(|place| UnixStream::connect(&place.socket).is_ok());
    }
    match places.len() {
        1 => Ok(places.remove(0)),
        0 => Err(Failure::NotHere(
            "no netfront runs here: `netfront run` starts one (its socket is /run/netfront/vifN.sock, or --sim)"
                .into(),
        )),
        _ => {
            let numbers: Vec<String> = places
                .iter()
                .filter_map(|place| place.vif)
                .map(|vif| vif.to_string())
                .collect();
            Err(Failure::Verdict(format!(
                "there are drivers of the vifs {}: say which with --vif",
                numbers.join(", ")
            )))
        }
    }
}

/// Tells `command` to a driver.
pub fn order(args: &Order, command: &str) -> Result<(), Failure> {
    let place = one(&args.which)?;
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
