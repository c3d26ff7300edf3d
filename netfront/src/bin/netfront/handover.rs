//! `netfront take` and `netfront give`: the vif from the kernel's driver, and back.
//!
//! The kernel's device stays in its list when the driver lets go, so nothing takes the vif again behind
//! our back, short of somebody's `bind`, `drivers_probe` or a module that is loaded anew: what was
//! taken stays taken until then.

use std::time::{Duration, Instant};

use netfront::connection::{Connection, XenbusState};
use netfront::hypervisor::Domain;
use serde_json::json;

use crate::args::{Give, Ground, Take};
use crate::control;
use crate::failure::Failure;
use crate::ground::domain;
use crate::output::say;
use crate::sysfs::{Interface, Vif};
use crate::takeover;

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
    let ground = Ground {
        sim: None,
        domid: 1,
    };
    let given = give_back(&ground, args.vif, Duration::from_secs(args.deadline))?;
    let name = given.interface.as_deref();
    tell(args.json, args.vif, "given", name, &given.text);
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
    if let Some(driver) = vif.driver() {
        let interface = vif.interface().map(|interface| interface.name);
        let text = format!("the kernel's driver {driver} has it");
        return restored(ground, number, interface, text);
    }
    // A driver of ours that runs would be cut off, and would take the vif back.
    let _held = match ground.sim {
        Some(_) => None,
        None => Some(control::hold(number)?),
    };
    let mut connection = Connection::open(&domain(ground)?, number)?;
    connection.hand_over(deadline)?;
    if !vif.driver_is_loaded() {
        vif.load_driver(deadline)?;
    }
    vif.bind(deadline)
        .map_err(|failure| hint(failure, number))?;
    let name = connected(&vif, &mut connection, deadline)?;
    let text = format!("the kernel's driver has it again, as {name}");
    restored(ground, number, Some(name), text)
}

/// Puts back what a take-over saved, if one did.
fn restored(
    ground: &Ground,
    number: u32,
    interface: Option<String>,
    text: String,
) -> Result<Given, Failure> {
    let Some(name) = &interface else {
        return Ok(Given { interface, text });
    };
    let text = match takeover::restore(ground.sim.as_deref(), number, name)? {
        Some(restored) => format!("{text}; {restored}"),
        None => text,
    };
    // Its name is what it was before, too.
    let interface = Vif::new(number).interface().map(|interface| interface.name);
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
