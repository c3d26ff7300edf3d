//! Where the guest is: on the simulated Xen, which is started if need be and where the vif is ours to
//! describe; or on Xen, where a toolstack makes the vif and the kernel must not take it first.

use std::error::Error;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hypervisor::{sim, DomId, Domain};
use netback_sim::keys::Paths;
use netback_sim::Toolstack;

use crate::args::Serve;

/// A simulated Xen that cannot start is gone after this.
const STILLBORN: Duration = Duration::from_millis(100);
/// So long a vif on Xen is waited for, and so often it is asked meanwhile whether to stop.
const VIF_PATIENCE: Duration = Duration::from_secs(60);
const TICK: Duration = Duration::from_millis(200);
/// The kernel's backends, and its netback among them.
const KERNEL: &str = "/sys/bus/xen-backend";

/// Our domain, the guest's, and what there is to say of the vif between them.
pub struct Ground {
    pub domain: Domain,
    pub frontend: DomId,
    pub vif: Toolstack,
}

/// The ground that the arguments name. None when it was to stop before the vif was there.
pub fn find(arguments: &Serve, stop: &AtomicBool) -> Result<Option<Ground>, Box<dyn Error>> {
    let frontend = DomId(arguments.vif.frontend_domid.unwrap_or(1));
    let Some(socket) = &arguments.ground.sim else {
        return on_xen(frontend, arguments.vif.handle, stop);
    };
    start_simulated_xen(socket)?;
    Ok(Some(Ground {
        domain: Domain::simulated(socket, DomId(0))?,
        frontend,
        vif: Toolstack {
            mac: arguments.vif.mac,
            mtu: arguments.vif.mtu,
            trusted: arguments.vif.trusted != 0,
        },
    }))
}

/// Waits for the vif. A toolstack that makes it waits in turn, for seconds only, until its backend
/// shows InitWait: so the backend is started first.
fn on_xen(
    frontend: DomId,
    handle: u32,
    stop: &AtomicBool,
) -> Result<Option<Ground>, Box<dyn Error>> {
    let domain = Domain::xen()?;
    let paths = Paths::new(domain.id()?, frontend, handle);
    let device = format!("vif-{frontend}-{handle}");
    let mut store = domain.store()?;
    store.watch(&paths.backend, "vif")?;
    let deadline = Instant::now() + VIF_PATIENCE;
    let mut said = false;
    loop {
        leave_to_us(Path::new(KERNEL), &device)?;
        if let Some(vif) = paths.read_toolstack(store.as_mut())? {
            return Ok(Some(Ground {
                domain,
                frontend,
                vif,
            }));
        }
        if !said {
            said = true;
            tracing::info!(vif = %paths.backend, "waiting for a toolstack to make the vif");
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        if Instant::now() >= deadline {
            return Err(format!(
                "no vif within {} s: `{}/frontend` is not in the store; make it with `xl \
                 network-attach`, or look for the domain and the handle with `xl network-list`",
                VIF_PATIENCE.as_secs(),
                paths.backend
            )
            .into());
        }
        store.next_event(TICK)?;
    }
}

/// Two backends on one vif would undo each other's work: an error if the kernel's netback has it, or
/// would take it as soon as it is there.
fn leave_to_us(kernel: &Path, device: &str) -> Result<(), String> {
    let driver = kernel.join("drivers/vif");
    if driver.join(device).exists() {
        return Err(format!(
            "the kernel's netback drives {device}; take it away with `echo {device} > \
             {}/unbind`, or all vifs with `modprobe -r xen-netback`",
            driver.display()
        ));
    }
    // Unbound by hand it stays in the list of devices, and the kernel does not look at it again.
    if driver.exists() && !kernel.join("devices").join(device).exists() {
        return Err(format!(
            "the kernel's netback is loaded and would take {device} before us; `modprobe -r \
             xen-netback` first, or make the vif and then `echo {device} > {}/unbind`",
            driver.display()
        ));
    }
    Ok(())
}

/// Starts this program again as the simulated Xen when nobody listens on the socket. It outlives
/// us: a guest must be able to see its backend die.
fn start_simulated_xen(socket: &Path) -> Result<(), Box<dyn Error>> {
    sim::ensure_running(socket, || {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["simulated-xen", "--sim"])
            .arg(socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A group of its own: Ctrl-C at the terminal is meant for us.
            .process_group(0)
            .spawn()?;
        std::thread::sleep(STILLBORN);
        match child.try_wait()? {
            // Another one may have been faster; then it listens.
            Some(status) if !status.success() && !sim::is_running(socket).unwrap_or(false) => {
                Err(std::io::Error::other(format!(
                    "it ended at once; `netback-sim simulated-xen --sim {}` says why",
                    socket.display()
                )))
            }
            _ => Ok(()),
        }
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vif_is_ours_only_if_the_kernel_neither_has_it_nor_would_take_it() {
        let kernel = tempfile::tempdir().unwrap();
        let make = |path: &str| std::fs::create_dir_all(kernel.path().join(path)).unwrap();
        let check = || leave_to_us(kernel.path(), "vif-3-0");
        assert_eq!(check(), Ok(()), "no netback");
        make("drivers/vif");
        let would = check().unwrap_err();
        assert!(would.contains("modprobe -r xen-netback"), "{would}");
        make("drivers/vif/vif-3-0");
        make("devices/vif-3-0");
        let has = check().unwrap_err();
        assert!(has.contains("echo vif-3-0 >"), "{has}");
        std::fs::remove_dir(kernel.path().join("drivers/vif/vif-3-0")).unwrap();
        assert_eq!(check(), Ok(()), "unbound");
    }
}
