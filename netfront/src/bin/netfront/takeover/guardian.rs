//! The process that takes the vif, has a child drive it, and gives it back when that ends, for whatever reason.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::watch::{watch, End, Signals, Times};
use super::{capture, saved::Saved, ties, Restored};
use crate::args::Run;
use crate::control;
use crate::failure::{code, Failure};
use crate::handover;
use crate::probe;
use crate::sysfs::Vif;

/// How long the driver may be silent after the time to confirm: it says that it ends within moments.
const GRACE: Duration = Duration::from_secs(10);
/// Attempts to give the vif back: without it the machine may be out of reach.
const ATTEMPTS: u32 = 5;
/// Between two of them.
const PAUSE: Duration = Duration::from_secs(2);

/// Takes the vif, has it driven, gives it back.
///
/// # Errors
/// Why it could not be taken, how the driver ended, or what could not be restored.
pub fn run(args: &Run) -> Result<(), Failure> {
    let signals = Signals::new()?;
    let path = Saved::path(args.ground.sim.as_deref(), args.vif);
    let earlier = path.exists();
    let saved = match take(args, &path) {
        Ok(saved) => saved,
        Err(failure) => {
            // The file was written: the interface is down, or gone, and whoever came through it cannot mend that.
            if !earlier && path.exists() {
                tracing::error!("{failure}: giving the vif back");
                give_back(args)?;
            }
            return Err(failure);
        }
    };
    let ended = match signals.came() {
        true => Ok(End {
            status: ExitStatus::from_raw(0),
            unconfirmed: false,
        }),
        false => drive(args, &signals),
    };
    if let Err(failure) = &ended {
        tracing::error!("{failure}: giving the vif back");
    }
    super::keep(&saved, args.ground.sim.as_deref(), args.vif);
    give_back(args)?;
    verdict(&ended?)
}

/// Reads what the interface has, keeps it in a file, and has the kernel's driver let go of the vif. Gives what was read: the file
/// may not be there any more when it is needed.
fn take(args: &Run, path: &Path) -> Result<Saved, Failure> {
    // What the driver would fail for is found out before anybody's session is touched, and before anything is said of a vif: off
    // Xen there is none, and no other command would connect it.
    probe::ready(&args.ground)?;
    let vif = Vif::new(args.vif);
    let _held = control::alone(args.ground.sim.as_deref(), args.vif)?;
    let Some(interface) = vif.interface().filter(|_| vif.driver().is_some()) else {
        return match Saved::read(path)? {
            Some(saved) if vif.driver().is_none() => {
                tracing::warn!(
                    "an earlier take-over of {} ended without giving it back: going on with what it saved",
                    saved.interface.name
                );
                Ok(saved)
            }
            _ if vif.interface_is_elsewhere() => Err(Failure::NotHere(format!(
                "the interface of {} is in another network namespace, and is taken over from there only",
                vif.name()
            ))),
            _ => Err(Failure::NotHere(format!(
                "the kernel's driver has made no interface of {}, so there is nothing to take over: `netfront run \
                 --vif {} --tap NAME` connects a free vif",
                vif.name(),
                args.vif
            ))),
        };
    };
    if path.exists() {
        return Err(Failure::NotHere(format!(
            "{} holds what an earlier take-over moved away and could not put back: `netfront give --vif {}` tries \
             again, and who does without it removes the file",
            path.display(),
            args.vif
        )));
    }
    let ties = ties::of(&interface.name)?;
    if let Some(refusal) = ties.refusal() {
        return Err(Failure::NotHere(refusal));
    }
    for lost in &ties.lost {
        tracing::warn!("not moved from {}: {lost}", interface.name);
    }
    let saved = capture(args.vif, &interface.name)?;
    saved.write(path)?;
    tracing::info!(
        "taking {} over: {} addresses, {} routes, {} neighbours, saved in {}",
        saved.interface.name,
        saved.addresses.len(),
        saved.routes.len(),
        saved.neighbours.len(),
        path.display()
    );
    for (address, seconds) in super::renewed::lifetimes(&saved) {
        tracing::warn!(
            "{address} of {0} runs out in {seconds} s unless it is renewed on the TAP: have the DHCP client that looks \
             after {0} go on with the TAP (start it again if it stopped)",
            saved.interface.name
        );
    }
    // Down first: no packet is on its way when the kernel's driver says goodbye.
    let taken = super::replay::down(&interface.name)
        .and_then(|()| vif.unbind(Duration::from_secs(args.deadline)));
    match (taken, vif.driver()) {
        (Ok(()), None) => Ok(saved),
        (Ok(()), Some(driver)) => Err(Failure::Verdict(format!(
            "{} was taken, and something gave it back to the driver {driver} at once: look for a udev rule; `netfront \
             give --vif {}` restores its interface",
            vif.name(),
            args.vif
        ))),
        (Err(failure), driver) => {
            if let (Some(_), Some(now)) = (driver, vif.interface()) {
                // The kernel's driver has kept it: its interface is to be as it was.
                let sim = args.ground.sim.as_deref();
                if let Restored::Partly(left) = super::restore(sim, args.vif, &now.name)? {
                    return Err(Failure::Verdict(format!("{failure}; {left}")));
                }
            }
            Err(failure)
        }
    }
}

/// Starts the driver and waits for its end.
fn drive(args: &Run, signals: &Signals) -> Result<End, Failure> {
    let exe = std::env::current_exe().map_err(Failure::io("finding this program"))?;
    let failed = || Failure::io("starting the driver");
    let (line, theirs) = UnixStream::pair().map_err(failed())?;
    line.set_nonblocking(true).map_err(failed())?;
    let mut driver = Command::new(exe)
        .args(std::env::args_os().skip(1))
        .arg("--taken-over")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        // A group of its own: what a terminal or a shell sends to this one's is passed on in order.
        .process_group(0)
        .spawn()
        .map_err(failed())?;
    let times = Times {
        word: match args.confirm_within {
            0 => None,
            seconds => Some(Instant::now() + Duration::from_secs(seconds) + GRACE),
        },
        // It has several steps, each with this deadline.
        goodbye: Duration::from_secs(args.deadline.saturating_mul(3)),
    };
    let ended = watch(&mut driver, &line, &times, signals);
    if ended.is_err() {
        // Not watched, it must not go on: the vif is given back.
        let _ = driver.kill();
        let _ = driver.wait();
    }
    ended
}

fn give_back(args: &Run) -> Result<(), Failure> {
    let mut attempt = 1;
    loop {
        match handover::give_back(&args.ground, args.vif, Duration::from_secs(args.deadline)) {
            Ok(given) => {
                tracing::info!("vif {}: {}", args.vif, given.text);
                return Ok(());
            }
            Err(failure) if attempt < ATTEMPTS => {
                tracing::error!("giving the vif back failed, trying again: {failure}");
                attempt += 1;
                std::thread::sleep(PAUSE);
            }
            Err(failure) => {
                return Err(Failure::Verdict(format!(
                "the vif could not be given back as it was: {}. `netfront give --vif {}` tries again",
                failure.told(),
                args.vif
            )))
            }
        }
    }
}

/// The driver has said what went wrong; here it gets its exit code.
fn verdict(end: &End) -> Result<(), Failure> {
    let status = end.status;
    let (code, how) = match (status.code(), status.signal()) {
        _ if end.unconfirmed => (
            code::NOT_CONFIRMED,
            "only when it was killed, since nobody had confirmed in time".into(),
        ),
        (Some(0), _) => return Ok(()),
        (Some(code), _) => (
            u8::try_from(code).unwrap_or(code::FAILED),
            format!("with exit code {code}"),
        ),
        (None, Some(signal)) => (code::FAILED, format!("by signal {signal}")),
        (None, None) => (code::FAILED, "somehow".into()),
    };
    let text = format!("the driver ended {how}: the vif was given back");
    Err(Failure::Class { code, text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driver_that_had_to_be_killed_since_nobody_confirmed_ends_with_the_code_for_that() {
        let verdict = |status, unconfirmed| {
            let status = ExitStatus::from_raw(status);
            let end = End {
                status,
                unconfirmed,
            };
            verdict(&end).err().map(|failure| failure.code())
        };
        assert_eq!(verdict(0, false), None);
        assert_eq!(verdict(9, true), Some(75));
        assert_eq!(verdict(9, false), Some(1));
        assert_eq!(verdict(75 << 8, false), Some(75));
    }
}
