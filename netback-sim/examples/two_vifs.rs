//! A guest with two vifs on a simulated Xen: each backend sends verifiable frames, and checks what comes from the
//! other through the guest.
//!
//! `two_vifs --sim SOCKET [--rate FRAMES]`
//!
//! The socket must not exist yet: the simulated Xen is this process too. It shows that one domain may have several
//! backends, each with a peer of its own; the other end is for instance netfront's example `forward`:
//!
//! ```sh
//! cargo run -p netback-sim --example two_vifs -- --sim /tmp/xen --rate 10000
//! cargo run -p netfront --example forward -- --sim /tmp/xen --vif 0 --to 1
//! ```

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use hypervisor::sim::server::{self, Options};
use hypervisor::{DomId, Domain};
use netback_sim::peer::{Pace, Source};
use netback_sim::traffic::Generator;
use netback_sim::{Backend, BackendHandle, Config};

/// The value behind an option.
fn option(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.nth(1)
}

/// A backend for the vif of this number of domain 1.
fn backend(domain: &Domain, vif: u32, rate: u64) -> Result<BackendHandle, Box<dyn Error>> {
    let pace = Pace {
        rate,
        ..Pace::default()
    };
    // Frames of all sizes, in four flows.
    let source = Source::new(Generator::new("mix".parse()?, 4)?, pace);
    let config = Config {
        handle: vif,
        ..Config::new(DomId(1), source)
    };
    Ok(Backend::start(domain, config)?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let socket = option("--sim").ok_or("give --sim SOCKET")?;
    let rate = option("--rate").map_or(Ok(1000), |rate| rate.parse())?;
    let _xen = server::spawn(Path::new(&socket), Options::new())?;
    let domain = Domain::simulated(socket.as_ref(), DomId(0))?;
    let backends = [backend(&domain, 0, rate)?, backend(&domain, 1, rate)?];
    println!("the vifs 0 and 1 of domain 1 wait for their frontends");
    while backends.iter().all(BackendHandle::is_running) {
        std::thread::sleep(Duration::from_secs(1));
        for (vif, backend) in backends.iter().enumerate() {
            let counts = backend.verified().unwrap_or_default();
            let state = backend.state();
            println!(
                "vif {vif}: {state}, {} frames whole, {} lost, {} damaged",
                counts.frames, counts.lost, counts.corrupt
            );
        }
    }
    Ok(())
}
