//! `netfront take` and `netfront give`: the vif from the kernel's driver, and back.
//!
//! The kernel's device stays in its list when the driver lets go, so nothing takes the vif again behind
//! our back, short of somebody's `bind`, `drivers_probe` or a module that is loaded anew: what was
//! taken stays taken until then.

use std::time::{Duration, Instant};

use netfront::connection::{Connection, XenbusState};
use netfront::hypervisor::Domain;
use serde_json::json;

use crate::args::{Give, Take};
use crate::control;
use crate::failure::Failure;
use crate::output::say;
use crate::sysfs::{Interface, Vif};

/// How often the kernel's progress is looked at.
const TICK: Duration = Duration::from_millis(20);

/// Takes the vif from the kernel's driver.
pub fn take(args: &Take) -> Result<(), Failure> {
    let vif = known(args.vif)?;
    let Some(driver) = vif.driver() else {
        tell(args.json, args.vif, "free", None, "no driver has it");
        return Ok(());
    };
    let interface = vif.interface();
    if let Some(Interface { name, up: true }) = interface.as_ref().filter(|_| !args.force) {
        return Err(Failure::NotHere(format!(
            "{name} is up, so somebody may be using it, an ssh session for one: `ip link set {name} down` first, \
             or --force"
        )));
    }
    vif.unbind(Duration::from_secs(args.deadline))
        .map_err(|failure| hint(failure, args.vif))?;
    if vif.driver().is_some() {
        return Err(Failure::Verdict(format!(
            "{} was taken from the driver {driver}, and something gave it back at once: look for a udev rule",
            vif.name()
        )));
    }
    let name = interface.map_or_else(|| "it".into(), |interface| interface.name);
    let text = format!("taken from the kernel's driver {driver}; {name} is gone");
    tell(args.json, args.vif, "taken", None, &text);
    Ok(())
}

/// Gives the vif back to the kernel's driver, and waits until that is connected.
pub fn give(args: &Give) -> Result<(), Failure> {
    let vif = known(args.vif)?;
    let deadline = Duration::from_secs(args.deadline);
    if let Some(driver) = vif.driver() {
        let name = vif.interface().map(|interface| interface.name);
        let text = format!("the kernel's driver {driver} has it");
        tell(args.json, args.vif, "given", name.as_deref(), &text);
        return Ok(());
    }
    // A driver of ours that runs would be cut off, and would take the vif back.
    let _held = control::hold(args.vif)?;
    let mut connection = Connection::open(&Domain::xen()?, args.vif)?;
    connection.hand_over(deadline)?;
    if !vif.driver_is_loaded() {
        vif.load_driver(deadline)?;
    }
    vif.bind(deadline)
        .map_err(|failure| hint(failure, args.vif))?;
    let name = connected(&vif, &mut connection, deadline)?;
    let text = format!("the kernel's driver has it again, as {name}");
    tell(args.json, args.vif, "given", Some(&name), &text);
    Ok(())
}

fn known(number: u32) -> Result<Vif, Failure> {
    let vif = Vif::new(number);
    if vif.exists() {
        return Ok(vif);
    }
    Err(Failure::NotHere(format!(
        "the kernel knows no {}: is this a Xen guest, and is there such a vif in its configuration?",
        vif.name()
    )))
}

/// Waits until the kernel's driver has made its interface and its backend is connected.
fn connected(
    vif: &Vif,
    connection: &mut Connection,
    deadline: Duration,
) -> Result<String, Failure> {
    let start = Instant::now();
    loop {
        let (interface, state) = (vif.interface(), connection.backend_state()?);
        if let (Some(interface), XenbusState::Connected) = (&interface, state) {
            return Ok(interface.name.clone());
        }
        if start.elapsed() >= deadline {
            let found = interface.map_or("no interface", |_| "an interface");
            return Err(Failure::Verdict(format!(
                "after {} s the kernel's driver has made {found} and the backend is in state {state}, wanted \
                 an interface and {}: dmesg may say why",
                deadline.as_secs(),
                XenbusState::Connected
            )));
        }
        std::thread::sleep(TICK);
    }
}

/// What the backend does is the first question when the kernel's driver hangs.
fn hint(failure: Failure, vif: u32) -> Failure {
    let state = Domain::xen()
        .map_err(netfront::Error::from)
        .and_then(|domain| Connection::open(&domain, vif))
        .and_then(|mut connection| {
            connection.look(Duration::from_secs(1))?;
            connection.backend_state()
        });
    match state {
        Ok(state) => Failure::Verdict(format!("{failure} (the backend is in state {state})")),
        Err(_) => failure,
    }
}

fn tell(as_json: bool, vif: u32, state: &str, interface: Option<&str>, text: &str) {
    if as_json {
        let report = json!({ "schema": 1, "vif": vif, "state": state, "interface": interface });
        say!("{report:#}");
    } else {
        say!("vif {vif}: {text}");
    }
}
