//! `netfront probe`: could a vif be used here, and if not, what is missing.

use std::fs;
use std::time::Duration;

use netfront::connection::Connection;
use netfront::hypervisor::{Domain, Store};
use netfront::QueueConfig;
use serde_json::{json, Value};

use crate::args::Probe;
use crate::control::mac_text;
use crate::failure::Failure;
use crate::ground::store;
use crate::output::say;
use crate::sysfs::Vif;

/// One line of the answer.
struct Finding {
    what: &'static str,
    /// `Ok`: what was found. `Err`: what is wrong, and the command or setting that mends it.
    found: Result<String, String>,
}

/// Looks at everything that a vif needs, without touching it.
pub fn probe(args: &Probe) -> Result<(), Failure> {
    let simulated = args.ground.sim.is_some();
    let mut findings = Vec::new();
    if !simulated {
        findings.push(hypervisor());
        for node in ["/dev/xen/evtchn", "/dev/xen/gntalloc", "/dev/xen/xenbus"] {
            findings.push(device_node(node));
        }
        findings.push(kernel_driver(args.vif));
    }
    findings.push(device_node("/dev/net/tun"));
    if !simulated {
        // The simulation's limit is known to who stands on it only.
        findings.extend(Domain::xen().ok().map(|domain| grants(&domain)));
    }
    match store(&args.ground) {
        Ok(store) => findings.extend(vif(store, args.vif)),
        Err(failure) => findings.push(Finding {
            what: "store",
            found: Err(failure.to_string()),
        }),
    }
    let good = findings.iter().all(|finding| finding.found.is_ok());
    if args.json {
        say!("{:#}", report(args.vif, good, &findings));
    } else {
        for Finding { what, found } in &findings {
            match found {
                Ok(text) => say!("ok       {what}: {text}"),
                Err(text) => say!("missing  {what}: {text}"),
            }
        }
    }
    if good {
        Ok(())
    } else if !simulated && findings[0].found.is_err() {
        Err(Failure::NotHere(
            "this is not a Xen guest: `netfront demo` shows the driver on a simulated Xen".into(),
        ))
    } else {
        Err(Failure::NotHere(format!(
            "vif {} cannot be used yet: see above",
            args.vif
        )))
    }
}

fn report(vif: u32, good: bool, findings: &[Finding]) -> Value {
    let lines: Vec<Value> = findings
        .iter()
        .map(|Finding { what, found }| {
            let (ok, text) = match found {
                Ok(text) => (true, text),
                Err(text) => (false, text),
            };
            json!({ "what": what, "ok": ok, "found": text })
        })
        .collect();
    json!({ "schema": 1, "vif": vif, "usable": good, "findings": lines })
}

fn hypervisor() -> Finding {
    let found = match fs::read_to_string("/sys/hypervisor/type") {
        Ok(text) if text.trim() == "xen" => {
            let version = ["major", "minor"]
                .map(|part| fs::read_to_string(format!("/sys/hypervisor/version/{part}")))
                .map(|part| part.map_or("?".into(), |text| text.trim().to_owned()));
            Ok(format!("Xen {}", version.join(".")))
        }
        Ok(text) => Err(format!(
            "/sys/hypervisor/type says {:?}, wanted xen",
            text.trim()
        )),
        Err(_) => Err("no /sys/hypervisor/type: not a Xen guest".into()),
    };
    Finding {
        what: "hypervisor",
        found,
    }
}

fn device_node(path: &'static str) -> Finding {
    let module = match path {
        "/dev/xen/evtchn" => "modprobe xen-evtchn",
        "/dev/xen/gntalloc" => "modprobe xen-gntalloc",
        "/dev/net/tun" => "modprobe tun",
        _ => "mount -t xenfs xenfs /proc/xen",
    };
    let open = fs::OpenOptions::new().read(true).write(true).open(path);
    let found = match open {
        Ok(_) => Ok("there, and may be opened".into()),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            Err("there, but this user may not open it: run as root".into())
        }
        Err(error) => Err(format!("{error}: {module}")),
    };
    Finding { what: path, found }
}

fn kernel_driver(vif: u32) -> Finding {
    let found = Vif::new(vif)
        .not_in_use()
        .map(|()| format!("none uses vif-{vif}"));
    Finding {
        what: "kernel driver",
        found,
    }
}

fn grants(domain: &Domain) -> Finding {
    let config = QueueConfig::default();
    let needed = config.rx_pages + config.tx_pages + 2;
    let found = match domain.grant_limit() {
        Ok(Some(limit)) if limit < needed => Ok(format!(
            "{limit} pages may be shared, {needed} are wanted: netfront raises \
             /sys/module/xen_gntalloc/parameters/limit if it may, or makes smaller pools"
        )),
        Ok(Some(limit)) => Ok(format!("{limit} pages may be shared, {needed} are wanted")),
        Ok(None) => Ok(format!("no limit is known, {needed} pages are wanted")),
        Err(error) => Err(error.to_string()),
    };
    Finding {
        what: "shared pages",
        found,
    }
}

fn vif(store: Box<dyn Store>, vif: u32) -> Vec<Finding> {
    let mut connection = Connection::over(store, vif);
    let looked = connection
        .look(Duration::from_secs(1))
        .and_then(|offer| Ok((connection.backend_state()?, offer)));
    match looked {
        Err(error) => vec![Finding {
            what: "vif",
            found: Err(error.to_string()),
        }],
        Ok((state, offer)) => {
            let on = |wanted: bool| {
                offer
                    .features
                    .table()
                    .into_iter()
                    .filter(|&(_, on)| on == wanted)
                    .map(|(name, _)| name)
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            let address = format!("{}, MTU {}", mac_text(offer.mac), offer.mtu);
            vec![
                Finding {
                    what: "vif",
                    found: Ok(address),
                },
                Finding {
                    what: "backend",
                    found: Ok(format!("domain {}, state {state}", offer.backend_id)),
                },
                Finding {
                    what: "backend offers",
                    found: Ok(on(true)),
                },
                Finding {
                    what: "backend lacks",
                    found: Ok(on(false)),
                },
            ]
        }
    }
}
