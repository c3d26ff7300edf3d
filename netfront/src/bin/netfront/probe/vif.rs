//! The vif itself: who has it, and what its backend offers.

use std::time::Duration;

use netfront::connection::{Connection, Offer, XenbusState};

use super::finding::{Class, Finding};
use super::mend::Fix;
use crate::args::Ground;
use crate::control::{self, mac_text, Holder};
use crate::failure::{code, Failure};
use crate::ground::store;
use crate::sysfs::{Interface, Vif};
use crate::takeover::{capture, ties, Saved};

const WHO: &str = "who has the vif";

/// Who has the vif.
pub fn owner(number: u32) -> Finding {
    let what = WHO;
    let vif = Vif::new(number);
    if let Some(driver) = vif.driver() {
        return match vif.interface() {
            Some(interface) => in_use(number, &driver, &interface),
            None if vif.interface_is_elsewhere() => Finding::new(
                what,
                Class::InUse,
                format!(
                    "the kernel's driver {driver}, with an interface in another network namespace"
                ),
            )
            .by("look there who uses it"),
            None => Finding::new(
                what,
                Class::InUse,
                format!("the kernel's driver {driver}, without an interface"),
            )
            .by(format!("netfront take --vif {number}")),
        };
    }
    match control::holder(number) {
        Holder::Somebody => {
            return Finding::new(
                what,
                Class::InUse,
                "a netfront that runs (`netfront status` shows it)",
            )
            .by(format!("netfront stop --vif {number}"))
        }
        Holder::Unknown => {
            let found = "this user may not look whether a netfront has it";
            return Finding::new(what, Class::Warning, found).by("run this as root");
        }
        Holder::Nobody => {}
    }
    let saved = Saved::path(None, number);
    if saved.exists() {
        let found = format!("nobody, and a take-over left {}", saved.display());
        return Finding::new(what, Class::Warning, found).by(format!(
            "netfront give --vif {number}, for the interface as it was, or netfront run --vif {number} --take-over"
        ));
    }
    Finding::ok(what, "nobody")
}

/// The kernel has it: taken without asking is only what nobody can miss.
fn in_use(number: u32, driver: &str, interface: &Interface) -> Finding {
    let name = &interface.name;
    let carried = capture(number, name).map(|saved| saved.carries());
    let state = if interface.up { "up" } else { "down" };
    let has = match &carried {
        Ok(carried) if carried.is_empty() => "no address".into(),
        Ok(carried) => carried.join(", "),
        Err(failure) => failure.to_string(),
    };
    let mut found =
        format!("the kernel's driver {driver} as {name}, which is {state} and has {has}");
    let saved = Saved::path(None, number);
    if saved.exists() {
        found += &format!(
            "; a take-over could not put back all of {}",
            saved.display()
        );
        return Finding::new(WHO, Class::InUse, found).by(format!("netfront give --vif {number}"));
    }
    match ties::of(name) {
        Ok(ties) if ties.refusal().is_none() => {
            let is_idle = !interface.up && carried.is_ok_and(|carried| carried.is_empty());
            let finding = Finding::new(WHO, Class::InUse, found);
            match is_idle {
                true => finding.fixed_by(Fix::Take(number)),
                false => finding.by(format!("netfront run --vif {number} --take-over")),
            }
        }
        // What it is part of would lose it, also where nobody uses it just now.
        Ok(ties) => {
            found += &format!("; {}", ties.in_the_way.join("; "));
            Finding::new(WHO, Class::InUse, found).by(format!(
                "these commands, then netfront run --vif {number} --take-over"
            ))
        }
        Err(failure) => {
            found += &format!("; {failure}");
            Finding::new(WHO, Class::InUse, found)
        }
    }
}

/// The vif in the store and its backend, each line one thing.
pub fn backend(ground: &Ground, number: u32) -> Vec<Finding> {
    match look(ground, number) {
        Ok(seen) => seen.findings(ground, number),
        Err(failure) => vec![out_of_reach(&failure)],
    }
}

/// Why the vif cannot be looked at: only where there is none, one is to be attached.
fn out_of_reach(failure: &Failure) -> Finding {
    let class = match failure.code() {
        code::NO_RIGHTS => Class::Rights,
        code::SETTING => Class::Setting,
        _ => Class::Missing,
    };
    let finding = Finding::new("vif", class, failure.told());
    match failure {
        Failure::Driver(netfront::Error::NoVif { .. }) => finding
            .by("a line vif = [...] in the guest's configuration, or xl network-attach in dom0"),
        _ => finding,
    }
}

struct Seen {
    offer: Offer,
    state: XenbusState,
    carrier: bool,
}

fn look(ground: &Ground, number: u32) -> Result<Seen, Failure> {
    let mut connection = Connection::over(store(ground)?, number);
    let offer = connection.look(Duration::from_secs(1))?;
    Ok(Seen {
        state: connection.backend_state()?,
        carrier: connection.carrier()?,
        offer,
    })
}

impl Seen {
    fn findings(&self, ground: &Ground, number: u32) -> Vec<Finding> {
        let offer = &self.offer;
        let address = format!("{}, MTU {}", mac_text(offer.mac), offer.mtu);
        let features = |wanted: bool| {
            let table = offer.features.table().into_iter();
            let names: Vec<_> = table
                .filter(|&(_, on)| on == wanted)
                .map(|(name, _)| name)
                .collect();
            match names.is_empty() {
                true => "nothing".into(),
                false => names.join(", "),
            }
        };
        vec![
            Finding::ok("vif", address),
            self.state_of_backend(ground, number),
            match self.carrier {
                true => Finding::ok("carrier", "the cable is in"),
                false => Finding::new("carrier", Class::Warning, "the cable is pulled out").by(
                    "in dom0: the backend's `carrier` or the frontend's `disconnect` in the store",
                ),
            },
            Finding::ok("backend offers", features(true)),
            Finding::ok("backend lacks", features(false)),
        ]
    }

    fn state_of_backend(&self, ground: &Ground, number: u32) -> Finding {
        let what = "backend";
        let found = format!("domain {}, state {}", self.offer.backend_id, self.state);
        let orphan = ground.sim.is_none()
            && Vif::new(number).driver().is_none()
            && control::holder(number) == Holder::Nobody;
        match self.state {
            XenbusState::Connected if orphan => {
                let found = format!("{found}: connected to a driver that is gone");
                Finding::new(what, Class::Warning, found).by(format!(
                    "netfront reset --vif {number}, or just run: it closes that first"
                ))
            }
            XenbusState::Unknown => {
                Finding::new(what, Class::Missing, format!("{found}: there is none"))
                    .by("in dom0: is xen-netback loaded, did the hotplug script run?")
            }
            _ => Finding::ok(what, found),
        }
    }
}

#[cfg(test)]
mod tests {
    use netfront::hypervisor::{Error, Lack};

    use super::*;

    #[test]
    fn only_a_vif_that_is_not_there_is_to_be_attached() {
        let (vif, key) = (3, "device/vif/3/backend".into());
        let missing = out_of_reach(&netfront::Error::NoVif { vif, key }.into());
        assert_eq!(missing.class, Class::Missing);
        assert!(missing
            .mend
            .is_some_and(|mend| mend.contains("network-attach")));
        for (lack, class) in [
            (Lack::Rights, Class::Rights),
            (Lack::Setting, Class::Setting),
            (Lack::Here, Class::Missing),
        ] {
            let error = Error::Unavailable {
                lack,
                wanted: "The store of Xen".into(),
                found: "nothing".into(),
                hint: "do something".into(),
            };
            let finding = out_of_reach(&error.into());
            assert_eq!((finding.class, finding.mend), (class, None));
        }
    }
}
