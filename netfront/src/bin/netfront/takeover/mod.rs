//! `netfront run --take-over`: the vif of an interface that is in use, and everything that hangs on it.
//!
//! ```text
//!  guardian (run --take-over)               driver (the same program, its child)
//!  reads the interface, writes the file
//!  has the kernel's driver let go
//!  starts the driver ------------------->   TAP of the same name, MAC, MTU, addresses, routes
//!  waits for its end                        connects, serves, waits for `netfront confirm`
//!                        <---------------   ends: told to, not confirmed, failed, killed
//!  gives the vif back, restores, removes the file
//! ```
//!
//! Either of the two may be killed with -9. The guardian sees the driver's end; the driver holds the other end of a
//! pipe and sees the guardian's, stops in order and gives back itself. If both are, or the guardian before it has started
//! the driver, `netfront give` finds the file.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `netlink` | questions to the kernel and changes |
//! | `capture` | what an interface has |
//! | `saved` | the same as a file |
//! | `replay` | the same onto another interface |
//! | `guardian` | takes, waits, gives back |
//! | `driver` | what the driver does besides driving |
//! | `confirm` | `netfront confirm`, and the time for it |

mod capture;
pub mod confirm;
pub mod driver;
mod guardian;
mod netlink;
mod replay;
mod saved;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use signal_hook::consts::SIGHUP;

use crate::args::Run;
use crate::failure::Failure;
use crate::sysfs::Vif;

pub use capture::capture;
pub use saved::Saved;

/// `netfront run --take-over`, as the guardian or as its driver.
///
/// # Errors
/// Why the vif could not be taken, what ended the driver, or what could not be restored.
pub fn run(args: Run) -> Result<(), Failure> {
    // The terminal may be a session through the very interface that is taken: its end ends nothing here.
    signal_hook::flag::register(SIGHUP, Arc::new(AtomicBool::new(false)))
        .map_err(Failure::io("installing signal handlers"))?;
    match args.taken_over {
        true => driver::run(args),
        false => guardian::run(&args),
    }
}

/// Refuses a vif that the kernel's driver has, and says what its interface carries. To connect it all the same
/// would cut off whoever uses it, an ssh session for one.
///
/// # Errors
/// The text, with the commands that take it.
pub fn not_in_use(number: u32) -> Result<(), String> {
    let vif = Vif::new(number);
    let refusal = match vif.not_in_use() {
        Ok(()) => return Ok(()),
        Err(refusal) => refusal,
    };
    let carried = vif
        .interface()
        .and_then(|interface| capture(number, &interface.name).ok())
        .map(|saved| saved.carries());
    let carried = match carried.as_deref() {
        None => "what its interface has".into(),
        Some([]) => "its interface, which has no address,".into(),
        Some(some) => format!("its interface, which has {},", some.join(", ")),
    };
    Err(format!(
        "{refusal}; `netfront run --vif {number} --take-over` moves {carried} to the TAP and gives it back at the end"
    ))
}

/// Puts on the kernel's interface what was saved when its vif was taken, and forgets it. `None` if nothing was.
///
/// # Errors
/// When the file makes no sense, or the interface is gone.
pub fn restore(sim: Option<&Path>, vif: u32, interface: &str) -> Result<Option<String>, Failure> {
    let path = Saved::path(sim, vif);
    let Some(saved) = Saved::read(&path)? else {
        return Ok(None);
    };
    let refused = replay::replay(&saved, interface, &saved.interface.name)?;
    std::fs::remove_file(&path).map_err(Failure::io(format!("removing {}", path.display())))?;
    for line in &refused {
        tracing::warn!("not restored on {}: {line}", saved.interface.name);
    }
    let has = match saved.carries().as_slice() {
        [] => "what it had".into(),
        some => some.join(", "),
    };
    Ok(Some(format!("{} has {has} again", saved.interface.name)))
}
