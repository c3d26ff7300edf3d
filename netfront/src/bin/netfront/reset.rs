//! `netfront reset`: a vif that a killed driver left connected is closed and left free.

use std::time::Duration;

use clap::Args;
use netfront::connection::Connection;
use serde_json::json;

use crate::args::Target;
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
    pub target: Target,
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
    let Target { ground, vif } = &args.target;
    let (sim, vif) = (ground.sim.as_deref(), *vif);
    if let Some(driver) = Vif::new(vif).driver().filter(|_| sim.is_none()) {
        return Err(Failure::NotHere(format!(
            "vif {vif} is the kernel's: its driver {driver} has it, and no crash of netfront left it connected"
        )));
    }
    let _held = control::alone(sim, vif)?;
    let mut connection = Connection::open(&domain(ground)?, vif)?;
    connection.look(Duration::from_secs(1))?;
    let before = connection.backend_state()?;
    connection.hand_over(Duration::from_secs(args.deadline))?;
    let after = connection.backend_state()?;
    let saved = Saved::path(sim, vif);
    let left = saved.exists().then(|| saved.display().to_string());
    if args.json {
        let report = json!({
            "schema": control::SCHEMA, "vif": vif, "backend_before": before.to_string(), "backend": after.to_string(),
            "take_over_saved": left,
        });
        say!("{report:#}");
        return Ok(());
    }
    say!("vif {vif}: free; the backend was in state {before} and is in state {after}");
    if let Some(path) = left {
        say!(
            "vif {vif}: a take-over left {path}: `netfront give --vif {vif}` gives the vif to the kernel's driver and its \
             interface what it had"
        );
    }
    Ok(())
}
