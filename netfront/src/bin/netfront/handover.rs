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
use crate::takeover::{self, Restored};

/// How often the kernel's progress is looked at.
const TICK: Duration = Duration::from_millis(20);
/// Attempts to put back what a take-over saved.
const ATTEMPTS: u32 = 3;
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(500);
/// How long udev may take to give a new interface its name.
const NAMING: Duration = Duration::from_secs(3);

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
    if vif.interface_is_elsewhere() && !args.force {
        return Err(Failure::NotHere(format!(
            "the interface of {} is in another network namespace, where somebody may be using it: --force takes it away",
            vif.name()
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

/// Gives the vif to the kernel's driver, waits until that is connected, and puts back what a take-over saved. Where the
/// kernel's driver has it already, an earlier attempt may have failed half way: the rest is done and looked at all the same.
///
/// # Errors
/// When another netfront drives the vif, or the backend or the kernel does not do its part in time.
pub fn give_back(ground: &Ground, number: u32, deadline: Duration) -> Result<Given, Failure> {
    give_to_kernel(&known(number)?, ground, number, deadline)
}

fn give_to_kernel(
    vif: &Vif,
    ground: &Ground,
    number: u32,
    deadline: Duration,
) -> Result<Given, Failure> {
    // A driver of ours that runs would be cut off, and would take the vif back.
    let _held = control::alone(ground.sim.as_deref(), number)?;
    let mut connection = connection(ground, number)?;
    let has = match vif.driver() {
        Some(driver) => {
            connection.look(deadline)?;
            format!("the kernel's driver {driver} has it")
        }
        None => {
            connection.hand_over(deadline)?;
            if !vif.driver_is_loaded() {
                vif.load_driver(deadline)?;
            }
            vif.bind(deadline)
                .map_err(|failure| hint(failure, number))?;
            "the kernel's driver has it again".into()
        }
    };
    let connected = wait_connected(vif, &mut connection, deadline);
    vif.wait_named(NAMING);
    // An interface that is not connected yet gets its addresses all the same: the backend may only be slow.
    let text = match vif.interface() {
        Some(interface) => format!("{has}, as {}", interface.name),
        None => has,
    };
    let given = restored(ground, vif, number, text)?;
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
    let restored = put_back(name, |name| {
        takeover::restore(ground.sim.as_deref(), number, name)
    })?;
    let text = match restored {
        Restored::Nothing => text,
        Restored::All(restored) => format!("{text}; {restored}"),
        Restored::Partly(left) => return Err(Failure::Verdict(format!("{text}; {left}"))),
    };
    Ok(Given {
        interface: name(),
        text,
    })
}

/// Has `put` do it for the interface that is called so, again where another attempt may do better.
fn put_back(
    name: impl Fn() -> Option<String>,
    mut put: impl FnMut(&str) -> Result<Restored, Failure>,
) -> Result<Restored, Failure> {
    let mut attempt = 1;
    loop {
        // Asked again each time: it may have got its old name back.
        let Some(now) = name() else {
            return Ok(Restored::Nothing);
        };
        match put(&now) {
            // A route may have to wait for an address, or for what somebody else is doing with the interface.
            Ok(Restored::Partly(_)) if attempt < ATTEMPTS => {}
            // udev has renamed it since it was asked for its name.
            Err(_) if attempt < ATTEMPTS && name().as_ref() != Some(&now) => {}
            done => return done,
        }
        attempt += 1;
        std::thread::sleep(PAUSE);
    }
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
    use std::path::PathBuf;

    use netback_sim::{peer, Backend, BackendHandle, Config};
    use netfront::hypervisor::sim::server::{self, Options, Running};
    use netfront::hypervisor::DomId;
    use netfront::Device;

    use super::*;

    /// A vif that the kernel's driver has as eth0, as far as sysfs says, and its backend on a simulated Xen.
    struct World {
        vif: Vif,
        _backend: BackendHandle,
        _back: Domain,
        _server: Running,
        folder: tempfile::TempDir,
    }

    impl World {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let device = folder.path().join("sys/bus/xen/devices/vif-0");
            let driver = folder.path().join("sys/bus/xen/drivers/vif");
            // A name that no interface of this machine has.
            std::fs::create_dir_all(device.join("net/eth-of-test")).expect("a device");
            std::fs::create_dir_all(&driver).expect("a driver");
            std::os::unix::fs::symlink(&driver, device.join("driver")).expect("a link");
            let socket = folder.path().join("xen");
            let server = server::spawn(&socket, Options::new()).expect("a simulated Xen");
            let back = Domain::simulated(&socket, DomId(0)).expect("a domain");
            let config = Config::new(DomId(1), peer::Sink::default());
            Self {
                vif: Vif::under(folder.path(), 0),
                _backend: Backend::start(&back, config).expect("a backend"),
                _back: back,
                _server: server,
                folder,
            }
        }

        fn ground(&self) -> Ground {
            Ground {
                sim: Some(self.socket()),
                domid: 1,
            }
        }

        fn socket(&self) -> PathBuf {
            self.folder.path().join("xen")
        }

        fn give(&self, deadline: Duration) -> Result<Given, Failure> {
            give_to_kernel(&self.vif, &self.ground(), 0, deadline)
        }
    }

    #[test]
    fn giving_again_what_the_kernel_could_not_connect_is_no_success() {
        let world = World::new();
        for _ in 0..2 {
            let failure = world.give(Duration::from_secs(1)).err();
            let text = failure.expect("it is not connected").to_string();
            assert!(text.contains("wanted an interface and Connected"), "{text}");
        }
        // As the kernel's driver does, late.
        let front = Domain::simulated(&world.socket(), DomId(1)).expect("a domain");
        let _device = Device::builder(0).connect(&front).expect("connected");
        let given = world.give(Duration::from_secs(30)).expect("given");
        assert_eq!(given.interface.as_deref(), Some("eth-of-test"));
        assert!(given.text.contains("driver vif has it"), "{}", given.text);
    }

    #[test]
    fn an_interface_that_udev_renames_between_two_looks_is_put_back_under_its_new_name() {
        let looks = std::cell::Cell::new(0);
        let name = || {
            looks.set(looks.get() + 1);
            let name = if looks.get() == 1 { "eth0" } else { "enX0" };
            Some(name.to_owned())
        };
        let mut asked = Vec::new();
        let restored = put_back(name, |name| {
            asked.push(name.to_owned());
            match name {
                "eth0" => Err(Failure::NotHere("there is no eth0".into())),
                _ => Ok(Restored::All("all".into())),
            }
        });
        assert!(matches!(restored, Ok(Restored::All(_))));
        assert_eq!(asked, ["eth0", "enX0"]);
    }

    #[test]
    fn a_failure_that_no_other_name_mends_is_the_answer_at_once() {
        let mut tries = 0;
        let restored = put_back(
            || Some("eth0".into()),
            |_| {
                tries += 1;
                Err(Failure::NotHere("the file makes no sense".into()))
            },
        );
        assert!(restored.is_err());
        assert_eq!(tries, 1);
    }

    #[test]
    fn take_and_give_report_with_the_names_that_scripts_know() {
        let taken = r#"{"schema":1,"vif":1,"state":"taken","interface":null}"#;
        assert_eq!(report(1, "taken", None).to_string(), taken);
        let given = r#"{"schema":1,"vif":1,"state":"given","interface":"eth1"}"#;
        assert_eq!(report(1, "given", Some("eth1")).to_string(), given);
    }
}
