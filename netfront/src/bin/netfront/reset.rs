//! `netfront reset`: a vif that a killed driver left connected is closed and left free.

use std::time::Duration;

use clap::Args;
use netfront::connection::Connection;
use serde_json::json;

use crate::args::Ground;
use crate::control;
use crate::failure::Failure;
use crate::ground::domain;
use crate::output::say;
use crate::sysfs::Vif;
use crate::takeover::Saved;

/// What `netfront reset` takes.
#[derive(Debug, Args)]
pub struct Reset {
    #[command(flatten)]
    pub ground: Ground,
    /// Number of the vif (device/vif/N in the store).
    #[arg(long, default_value_t = 0)]
    pub vif: u32,
    /// Seconds that the backend may take.
    #[arg(long, default_value_t = 10, value_name = "SECONDS",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub deadline: u64,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// Closes the vif, and leaves both sides at the start with nothing of ours in the store.
pub fn reset(args: &Reset) -> Result<(), Failure> {
    let sim = args.ground.sim.as_deref();
    if let Some(driver) = Vif::new(args.vif).driver().filter(|_| sim.is_none()) {
        return Err(Failure::NotHere(format!(
            "vif {} is the kernel's: its driver {driver} has it, and no crash of netfront left it connected",
            args.vif
        )));
    }
    let _held = control::alone(sim, args.vif)?;
    let mut connection = Connection::open(&domain(&args.ground)?, args.vif)?;
    connection.look(Duration::from_secs(1))?;
    let before = connection.backend_state()?;
    connection.hand_over(Duration::from_secs(args.deadline))?;
    let after = connection.backend_state()?;
    let saved = Saved::path(sim, args.vif);
    let left = saved.exists().then(|| saved.display().to_string());
    if args.json {
        let report = json!({
            "schema": 1, "vif": args.vif, "backend_before": before.to_string(), "backend": after.to_string(),
            "take_over_saved": left,
        });
        say!("{report:#}");
        return Ok(());
    }
    say!(
        "vif {}: free; the backend was in state {before} and is in state {after}",
        args.vif
    );
    if let Some(path) = left {
        say!(
            "vif {}: a take-over left {path}: `netfront give --vif {}` gives the vif to the kernel's driver and its \
             interface what it had",
            args.vif,
            args.vif
        );
    }
    Ok(())
}
