//! `netfront run --take-over`: the vif of an interface that is in use, and everything that hangs on it.
//!
//! ```text
//!  guardian (run --take-over)               driver (the same program, its child)
//!  reads the interface, writes the file
//!  has the kernel's driver let go
//!  starts the driver ------------------->   TAP of the same name, MAC, MTU, addresses, routes
//!  waits for its end     <---------------   connects, serves, waits for `netfront confirm`: says so when it comes
//!                        <---------------   ends: told to (then it saves what the TAP has by now), not confirmed, failed, killed
//!  gives the vif back, restores, removes the file
//! ```
//!
//! Either of the two may be killed with -9. The guardian sees the driver's end; the driver holds the other end of a
//! socket and sees the guardian's, stops in order and gives back itself. A driver that is stopped, or hangs, and says nothing
//! when the time to confirm is over, the guardian kills. If both are killed, or the guardian before it has started the
//! driver, `netfront give` finds the file.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `netlink` | questions to the kernel and changes |
//! | `capture` | what an interface has |
//! | `saved` | the same as a file |
//! | `replay` | the same onto another interface |
//! | `renewed` | the same as the TAP has it when it ends in order |
//! | `ties` | what hangs on it and is not moved |
//! | `guardian` | takes, waits, gives back |
//! | `watch` | its wait for the driver's end |
//! | `driver` | what the driver does besides driving |
//! | `confirm` | `netfront confirm`, and the time for it |

mod capture;
pub mod confirm;
pub mod driver;
mod guardian;
mod netlink;
mod renewed;
mod replay;
mod saved;
#[cfg(test)]
mod tests;
pub mod ties;
mod watch;

use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::Arc;

use signal_hook::consts::{SIGHUP, SIGTSTP};

use crate::args::Run;
use crate::failure::Failure;
use crate::sysfs::Vif;

pub use capture::{addresses, capture};
pub use saved::Saved;

/// `netfront run --take-over`, as the guardian or as its driver.
///
/// # Errors
/// Why the vif could not be taken, what ended the driver, or what could not be restored.
pub fn run(args: Run) -> Result<(), Failure> {
    // The terminal may be a session through the very interface that is taken: its end ends nothing here.
    // Ctrl-Z would stop the guardian alone, and nobody would be left to give back what was not confirmed.
    for signal in [SIGHUP, SIGTSTP] {
        signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))
            .map_err(Failure::io("installing signal handlers"))?;
    }
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

/// What became of what a take-over saved.
pub enum Restored {
    /// It saved nothing.
    Nothing,
    /// All of it is there again, and the file is gone.
    All(String),
    /// The kernel refused some of it, and the file stays.
    Partly(String),
}

/// Before a vif is given back: sees to it that the file is there for whoever does. One that cannot be written keeps nobody from
/// giving back the vif itself.
fn keep(saved: &Saved, sim: Option<&Path>, vif: u32) {
    if Vif::new(vif).driver().is_some() {
        // Somebody was quicker, and the file went when all was there.
        return;
    }
    if let Err(failure) = saved.write_if_gone(&Saved::path(sim, vif)) {
        tracing::error!("{failure}: {} will miss what it had", saved.interface.name);
    }
}

/// Puts on the kernel's interface what was saved when its vif was taken, and forgets it when all of that is there.
///
/// # Errors
/// When the file makes no sense, or the interface is gone.
pub fn restore(sim: Option<&Path>, vif: u32, interface: &str) -> Result<Restored, Failure> {
    let path = Saved::path(sim, vif);
    let Some(saved) = Saved::read(&path)? else {
        return Ok(Restored::Nothing);
    };
    let name = &saved.interface.name;
    let refused = replay::replay(&saved, interface, name)?;
    if !refused.is_empty() {
        return Ok(Restored::Partly(format!(
            "the kernel refused on {name} what it had: {}; {} keeps it: `netfront give --vif {vif}` tries again, and \
             who does without it removes that file",
            refused.join("; "),
            path.display()
        )));
    }
    std::fs::remove_file(&path).map_err(Failure::io(format!("removing {}", path.display())))?;
    let has = match saved.carries().as_slice() {
        [] => "what it had".into(),
        some => some.join(", "),
    };
    Ok(Restored::All(format!("{name} has {has} again")))
}
