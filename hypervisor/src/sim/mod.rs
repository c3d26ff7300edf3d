//! The simulated Xen: what stands in for hypervisor, guest kernel and xenstored on a machine
//! without them.
//!
//! It is a process of its own ([`server`]) that outlives both ends, or a thread of a test. A domain
//! attaches to it over a socket and then does most of its work alone, on memory that all share:
//!
//! | file | what is in it |
//! | --- | --- |
//! | `protocol` | what stands in for hypercalls: small messages, with descriptors |
//! | `attachment` | one domain's connection |
//! | `memory` | mappings of memory and grant tables: the only unsafe file |
//! | `table` | grant entries of version 1, and pins, with Xen's atomic rules |
//! | `shared` | own pages: choosing frames, granting, taking back |
//! | `foreign` | pages of others: mapping and copying |
//! | `events` | event channels on eventfds |
//! | [`server`] | domains, ports, death of a process; the store |
//!
//! # Invariants
//!
//! - A wrong, stale, foreign or read-only reference fails with the status that Xen gives.
//! - A page that a peer has mapped is not used again, whatever its owner does or dies of.
//! - Copies and maps are checked in the caller's library, since every domain can open the memory of
//!   every other: a test of correctness, not a security boundary.

pub(crate) mod attachment;
pub(crate) mod events;
pub(crate) mod foreign;
#[allow(unsafe_code)]
pub(crate) mod memory;
mod protocol;
pub mod server;
pub(crate) mod shared;
mod table;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::store::{self, Store, StoreClient};
use crate::{DomId, Error};
use protocol::Request;

/// How long a simulated Xen may take from its start until it listens.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// Sees to it that a simulated Xen listens on `socket`: when none does, has it started by `spawn`
/// and waits for it.
///
/// # Errors
///
/// When `spawn` fails, or nobody listens ten seconds later.
pub fn ensure_running(socket: &Path, spawn: impl FnOnce() -> io::Result<()>) -> Result<(), Error> {
    if is_running(socket)? {
        return Ok(());
    }
    spawn().map_err(|source| Error::system("start the simulated Xen", source))?;
    let until = Instant::now() + START_DEADLINE;
    while !is_running(socket)? {
        if Instant::now() > until {
            return Err(Error::TimedOut {
                waiting_for: format!("the simulated Xen on {}", socket.display()),
                after: START_DEADLINE,
            });
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether a simulated Xen listens on `socket`.
///
/// # Errors
///
/// When the path cannot be a socket or cannot be reached.
pub fn is_running(socket: &Path) -> Result<bool, Error> {
    match protocol::connect(socket) {
        Ok(_) => Ok(true),
        Err(Error::Unavailable { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A connection to the store as this domain, without standing on it: for tools that prepare or
/// look at domains, as a toolstack does. Domain 0 may do everything. The domain is made when it
/// does not exist.
///
/// # Errors
///
/// When no simulated Xen listens on `socket`.
pub fn store(socket: &Path, domain: DomId, client: StoreClient) -> Result<Box<dyn Store>, Error> {
    let control = protocol::connect(socket)?;
    protocol::ask(&control, Request::Introduce { domain: domain.0 })?.okay(domain)?;
    store::open(client, Some(&store_socket(socket, domain)))
}

/// Saves a domain, as `xl save` does: its body is destroyed, and nobody hears of its process until
/// [`Saved::restore`]. What a toolstack does with the directories of its devices is left to the caller.
///
/// # Errors
///
/// When no simulated Xen listens on `socket`, or there is no such domain, or it is saved already.
pub fn save(socket: &Path, domain: DomId) -> Result<Saved, Error> {
    let control = protocol::connect(socket)?;
    let request = Request::Save { domain: domain.0 };
    protocol::ask(&control, request)?.okay(domain)?;
    Ok(Saved { control, domain })
}

/// A domain that is saved.
#[derive(Debug)]
pub struct Saved {
    control: OwnedFd,
    domain: DomId,
}

impl Saved {
    /// Lets the domain go on under this number, which may be the one that it had: with dead event
    /// channels, with nothing granted, and with what is in the directory of that number by now.
    ///
    /// # Errors
    ///
    /// When a living process is attached to the number.
    pub fn restore(self, number: DomId) -> Result<(), Error> {
        let request = Request::Restore {
            domain: self.domain.0,
            number: number.0,
        };
        protocol::ask(&self.control, request)?.okay(number)?;
        Ok(())
    }
}

/// How often the kernel of some guest would have broken so far, since an event channel handle from before
/// a restore was used or closed. Right programs leave it at 0.
///
/// # Errors
///
/// When no simulated Xen listens on `socket`.
pub fn kernel_bugs(socket: &Path) -> Result<u32, Error> {
    let control = protocol::connect(socket)?;
    let (bugs, _) = protocol::ask(&control, Request::KernelBugs)?.okay(DomId(0))?;
    Ok(bugs)
}

/// Where the store listens for this domain: by the socket it knows who speaks.
pub(crate) fn store_socket(socket: &Path, domain: DomId) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(format!(".store-{domain}"));
    PathBuf::from(name)
}
