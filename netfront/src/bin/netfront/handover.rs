//! `netfront take` and `netfront give`: the vif from the kernel's driver, and back.
//!
//! The kernel's device stays in its list when the driver lets go, so nothing takes the vif again behind
//! our back, short of somebody's `bind`, `drivers_probe` or a module that is loaded anew: what was
//! taken stays taken until then.

use std::time::{Duration, Instant};

use netfront::connection::{Connection, XenbusState};
use netfront::hypervisor::Domain;
use serde_json::{json, Value};

use crate::args::{Give, Ground, Take, Target};
use crate::control;
use crate::failure::Failure;
use crate::ground::{domain, store};
use crate::output::say;
use crate::sysfs::{Interface, Vif};
use crate::takeover::{self, Saved};

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
             or --force; `netfront run --vif {} --take-over` moves all that it has to the TAP instead",
            args.vif
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
    let Target { ground, vif } = &args.target;
    let given = give_back(ground, *vif, Duration::from_secs(args.deadline))?;
    let name = given.interface.as_deref();
    tell(args.json, *vif, "given", name, &given.text);
    Ok(())
}

/// A vif that the kernel's driver has again.
pub struct Given {
    /// The network interface that it has made.
    pub interface: Option<String>,
    /// What was done, for people.
    pub text: String,
}

/// Gives the vif to the kernel's driver, waits until that is connected, and puts back what a take-over saved.
///
/// # Errors
/// When another netfront drives the vif, or the backend or the kernel does not do its part in time.
pub fn give_back(ground: &Ground, number: u32, deadline: Duration) -> Result<Given, Failure> {
    let vif = known(number)?;
    let sim = ground.sim.as_deref();
    if let Some(driver) = vif.driver() {
        let text = format!("the kernel's driver {driver} has it");
        if Saved::path(sim, number).exists() {
            // Whoever gave it back did not live to restore what its interface had.
            let _held = control::alone(sim, number)?;
            let mut connection = connection(ground, number)?;
            connection.look(deadline)?;
            let connected = wait_connected(&vif, &mut connection, deadline);
            let given = restored(ground, &vif, number, text)?;
            return connected.map(|()| given);
        }
        let interface = vif.interface().map(|interface| interface.name);
        return Ok(Given { interface, text });
    }
    // A driver of ours that runs would be cut off, and would take the vif back.
    let _held = control::alone(sim, number)?;
    let mut connection = connection(ground, number)?;
    connection.hand_over(deadline)?;
    if !vif.driver_is_loaded() {
        vif.load_driver(deadline)?;
    }
    vif.bind(deadline)
        .map_err(|failure| hint(failure, number))?;
    let connected = wait_connected(&vif, &mut connection, deadline);
    // An interface that is not connected yet gets its addresses all the same: the backend may only be slow.
    let text = match vif.interface() {
        Some(interface) => format!("the kernel's driver has it again, as {}", interface.name),
        None => "the kernel's driver has it again".into(),
    };
    let given = restored(ground, &vif, number, text)?;
    connected.map(|()| given)
}

fn connection(ground: &Ground, number: u32) -> Result<Connection, Failure> {
    match ground.sim {
        // Who stands on a simulated Xen is alone there: the kernel's driver has to.
        Some(_) => Ok(Connection::over(store(ground)?, number)),
        None => Ok(Connection::open(&domain(ground)?, number)?),
    }
}

/// Puts back what a take-over saved, if one did and there is an interface.
fn restored(ground: &Ground, vif: &Vif, number: u32, text: String) -> Result<Given, Failure> {
    let name = || vif.interface().map(|interface| interface.name);
    let restored = match name() {
        Some(name) => takeover::restore(ground.sim.as_deref(), number, &name)?,
        None => None,
    };
    let text = match restored {
        Some(restored) => format!("{text}; {restored}"),
        None => text,
    };
    // Asked again: it may have got its old name back.
    let interface = name();
    Ok(Given { interface, text })
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
fn wait_connected(
    vif: &Vif,
    connection: &mut Connection,
    deadline: Duration,
) -> Result<(), Failure> {
    let start = Instant::now();
    loop {
        let (interface, state) = (vif.interface(), connection.backend_state()?);
        if let (Some(_), XenbusState::Connected) = (&interface, state) {
            return Ok(());
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
        say!("{:#}", report(vif, state, interface));
    } else {
        say!("vif {vif}: {text}");
    }
}

/// What `take` and `give` tell programs.
fn report(vif: u32, state: &str, interface: Option<&str>) -> Value {
    json!({ "schema": control::SCHEMA, "vif": vif, "state": state, "interface": interface })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn take_and_give_report_with_the_names_that_scripts_know() {
        let taken = r#"{"schema":1,"vif":1,"state":"taken","interface":null}"#;
        assert_eq!(report(1, "taken", None).to_string(), taken);
        let given = r#"{"schema":1,"vif":1,"state":"given","interface":"eth1"}"#;
        assert_eq!(report(1, "given", Some("eth1")).to_string(), given);
    }
}
