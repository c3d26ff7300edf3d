//! The ground to stand on: the real Xen, or a simulated one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use netfront::hypervisor::{sim, DomId, Domain, Store, StoreClient};

use crate::args::Ground;
use crate::failure::Failure;

/// The domain that the command line asks for.
pub fn domain(ground: &Ground) -> Result<Domain, Failure> {
    match &ground.sim {
        Some(socket) => Ok(Domain::simulated(socket, DomId(ground.domid))?),
        None => Ok(Domain::xen()?),
    }
}

/// The store as the command line's domain sees it, without standing on the ground: beside a running
/// driver, too.
pub fn store(ground: &Ground) -> Result<Box<dyn Store>, Failure> {
    match &ground.sim {
        Some(socket) => Ok(sim::store(
            socket,
            DomId(ground.domid),
            StoreClient::default(),
        )?),
        None => Ok(Domain::xen()?.store()?),
    }
}

/// Where a running driver answers.
pub fn control_socket(sim: Option<&Path>, vif: u32) -> PathBuf {
    match sim {
        Some(socket) => {
            let mut name = socket.as_os_str().to_owned();
            name.push(format!(".vif{vif}-control"));
            name.into()
        }
        None => format!("/run/netfront/vif{vif}.sock").into(),
    }
}

/// Runs the simulated Xen until nobody has used it for a minute.
pub fn simulated_xen(socket: &Path) -> Result<(), Failure> {
    // Its own name: whoever kills the driver by name does not mean its hypervisor.
    let _ = rustix::thread::set_name(c"simulated-xen");
    let options = sim::server::Options::new().linger(Duration::from_secs(60));
    Ok(sim::server::run(socket, options)?)
}

/// A child process that is ended when this is dropped.
#[derive(Debug)]
pub struct Guarded(pub Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // Both fail only for a process that has gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts this program again with other arguments.
pub fn respawn(args: &[String], stdin: Stdio, stdout: Stdio) -> Result<Guarded, Failure> {
    let exe = std::env::current_exe().map_err(Failure::io("finding this program"))?;
    Command::new(exe)
        .args(args)
        .stdin(stdin)
        .stdout(stdout)
        .spawn()
        .map(Guarded)
        .map_err(Failure::io(format!("starting netfront {}", args.join(" "))))
}

/// Starts a simulated Xen of one's own at `socket` and waits until it answers.
pub fn start_simulated_xen(socket: &Path) -> Result<Guarded, Failure> {
    let args = ["-q", "simulated-xen", "--sim", &socket.to_string_lossy()].map(str::to_owned);
    let mut started = None;
    sim::ensure_running(socket, || {
        let child = respawn(&args, Stdio::null(), Stdio::null())
            .map_err(|failure| std::io::Error::other(failure.to_string()))?;
        started = Some(child);
        Ok(())
    })?;
    started.ok_or_else(|| {
        Failure::NotHere(format!(
            "a simulated Xen is already running at {}",
            socket.display()
        ))
    })
}
