//! `netfront probe`: could a vif be used here, what is in the way, and what mends it.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `finding` | one line of the answer, its kind and its exit code |
//! | `distribution` | which package has a library |
//! | `machine` | Xen, device nodes, rights, libraries, limits: what no vif is needed for |
//! | `vif` | who has the vif, its backend, features, MTU, carrier |
//! | `mend` | what `--fix` does |

mod distribution;
mod finding;
mod machine;
mod mend;
mod vif;

use serde_json::{json, Value};

use crate::args::{Ground, Probe};
use crate::failure::{code, Failure};
use crate::output::say;
use finding::{exit_code, Finding};
pub use machine::LEAST_PAGES;

/// Modules, mounts, parameters and who has a vif are forgotten with the kernel that was told.
const LASTING: &str =
    "what was mended lasts until the guest reboots; the Debian package loads modules and sets the limit at each boot";

/// A look at one thing. It may be done again, after something was mended.
type Check<'a> = Box<dyn Fn() -> Vec<Finding> + 'a>;

/// Looks at everything that a vif needs. Without `--fix` nothing is touched.
pub fn probe(args: &Probe) -> Result<(), Failure> {
    let mut findings = Vec::new();
    let mut mended = Vec::new();
    if args.target.ground.sim.is_none() {
        let hypervisor = machine::hypervisor();
        let on_xen = hypervisor.is_ok();
        findings.push(hypervisor);
        if !on_xen {
            tell(args, &findings, &mended);
            return Err(Failure::NotHere(
                "this is not a Xen guest: `netfront demo` shows the driver on a simulated Xen"
                    .into(),
            ));
        }
    }
    for check in checks(args) {
        let mut found = check();
        if args.fix {
            let fixes: Vec<_> = found
                .iter_mut()
                .filter_map(|finding| finding.fix.take())
                .collect();
            for fix in &fixes {
                match fix.run() {
                    Ok(done) => mended.push(done),
                    Err(failure) => tracing::error!("mending failed: {failure}"),
                }
            }
            if !fixes.is_empty() {
                found = check();
            }
        }
        findings.extend(found);
    }
    tell(args, &findings, &mended);
    match exit_code(&findings) {
        None => Ok(()),
        Some(code) => Err(Failure::Class {
            code,
            text: format!("vif {} cannot be used yet: see above", args.target.vif),
        }),
    }
}

/// What a driver needs besides a vif: Xen, device nodes, rights and libraries.
///
/// # Errors
/// What is missing, with the exit code of its kind.
pub fn ready(ground: &Ground) -> Result<(), Failure> {
    let mut findings = vec![machine::device_node(&machine::TUN), machine::rights()];
    if ground.sim.is_none() {
        findings.push(machine::hypervisor());
        findings.extend(machine::XEN_NODES.iter().map(machine::device_node));
        findings.extend(machine::libraries());
    }
    let Some(code) = exit_code(&findings) else {
        return Ok(());
    };
    let wrong = findings.iter().filter(|finding| finding.is_in_the_way());
    let lines: Vec<String> = wrong.map(Finding::to_string).collect();
    let text = format!("{} (`netfront probe --fix` may help)", lines.join("; "));
    Err(Failure::Class { code, text })
}

/// In the order in which one needs the other.
fn checks(args: &Probe) -> Vec<Check<'_>> {
    let mut checks: Vec<Check<'_>> = Vec::new();
    if args.target.ground.sim.is_none() {
        for node in machine::XEN_NODES {
            checks.push(Box::new(|| vec![machine::device_node(node)]));
        }
    }
    checks.push(Box::new(|| {
        vec![machine::device_node(&machine::TUN), machine::rights()]
    }));
    if args.target.ground.sim.is_none() {
        // The simulation's limit is known to who stands on it only.
        checks.push(Box::new(machine::libraries));
        checks.push(Box::new(|| {
            vec![machine::shared_pages(), machine::panic_on_oops()]
        }));
        checks.push(Box::new(|| vec![vif::owner(args.target.vif)]));
    }
    checks.push(Box::new(|| {
        vif::backend(&args.target.ground, args.target.vif)
    }));
    checks
}

fn tell(args: &Probe, findings: &[Finding], mended: &[String]) {
    if args.json {
        say!("{:#}", report(args.target.vif, findings, mended));
        return;
    }
    for command in mended {
        say!("mended   {command}");
    }
    if !mended.is_empty() {
        say!("note     {LASTING}");
    }
    for finding in findings {
        say!("{finding}");
    }
}

fn report(vif: u32, findings: &[Finding], mended: &[String]) -> Value {
    let exit = exit_code(findings);
    let findings: Vec<Value> = findings.iter().map(Finding::json).collect();
    json!({
        "schema": 1,
        "vif": vif,
        "usable": exit.is_none(),
        "exit_code": exit.unwrap_or(code::SUCCESS),
        "mended": mended,
        "mended_until": (!mended.is_empty()).then_some("reboot"),
        "findings": findings,
    })
}
