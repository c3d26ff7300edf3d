//! The process that takes the vif, has a child drive it, and gives it back when that ends, for whatever reason.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::process::{pidfd_open, Pid, PidfdFlags};
use signal_hook::consts::{SIGINT, SIGTERM};

use super::{capture, saved::Saved};
use crate::args::Run;
use crate::control;
use crate::failure::{code, Failure};
use crate::handover;
use crate::probe;
use crate::sysfs::Vif;

/// Tells the driver to stop, and that its guardian gives the vif back.
pub const STOP: u8 = b's';
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
    if let Err(failure) = take(args, &path) {
        // The file was written: the interface is down, or gone, and whoever came through it cannot mend that.
        if !earlier && path.exists() {
            tracing::error!("{failure}: giving the vif back");
            give_back(args)?;
        }
        return Err(failure);
    }
    let ended = match signals.came() {
        true => Ok(ExitStatus::from_raw(0)),
        false => drive(args, &signals),
    };
    if let Err(failure) = &ended {
        tracing::error!("{failure}: giving the vif back");
    }
    give_back(args)?;
    verdict(ended?)
}

/// Reads what the interface has, keeps it in a file, and has the kernel's driver let go of the vif.
fn take(args: &Run, path: &Path) -> Result<(), Failure> {
    let vif = Vif::new(args.vif);
    let _held = control::alone(args.ground.sim.as_deref(), args.vif)?;
    let Some(interface) = vif.interface().filter(|_| vif.driver().is_some()) else {
        return match Saved::read(path)? {
            Some(saved) if vif.driver().is_none() => {
                tracing::warn!(
                    "an earlier take-over of {} ended without giving it back: going on with what it saved",
                    saved.interface.name
                );
                Ok(())
            }
            _ => Err(Failure::NotHere(format!(
                "the kernel's driver has made no interface of {}, so there is nothing to take over: `netfront run \
                 --vif {} --tap NAME` connects a free vif",
                vif.name(),
                args.vif
            ))),
        };
    };
    let above = super::capture::built_on(&interface.name);
    if !above.is_empty() {
        return Err(Failure::NotHere(format!(
            "{} is built on {}, which would go with it: take that down first",
            above.join(", "),
            interface.name
        )));
    }
    // What the driver would fail for is found out before anybody's session is touched.
    probe::ready(&args.ground)?;
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
    // Down first: no packet is on its way when the kernel's driver says goodbye.
    let taken = super::replay::down(&interface.name)
        .and_then(|()| vif.unbind(Duration::from_secs(args.deadline)));
    match (taken, vif.driver()) {
        (Ok(()), None) => Ok(()),
        (Ok(()), Some(driver)) => Err(Failure::Verdict(format!(
            "{} was taken, and something gave it back to the driver {driver} at once: look for a udev rule; `netfront \
             give --vif {}` restores its interface",
            vif.name(),
            args.vif
        ))),
        (Err(failure), driver) => {
            if let (Some(_), Some(now)) = (driver, vif.interface()) {
                // The kernel's driver has kept it: its interface is to be as it was.
                super::restore(args.ground.sim.as_deref(), args.vif, &now.name)?;
            }
            Err(failure)
        }
    }
}

/// Starts the driver and waits for its end. Signals are passed on; who insists gets it killed.
fn drive(args: &Run, signals: &Signals) -> Result<ExitStatus, Failure> {
    let exe = std::env::current_exe().map_err(Failure::io("finding this program"))?;
    let mut driver = Command::new(exe)
        .args(std::env::args_os().skip(1))
        .arg("--taken-over")
        .stdin(Stdio::piped())
        // A group of its own: what a terminal or a shell sends to this one's is passed on in order.
        .process_group(0)
        .spawn()
        .map_err(Failure::io("starting the driver"))?;
    let mut pipe = driver.stdin.take();
    let ended = watch(args, &mut driver, &mut pipe, signals);
    if ended.is_err() {
        // Not watched, it must not go on: the vif is given back.
        let _ = driver.kill();
        let _ = driver.wait();
    }
    ended
}

fn watch(
    args: &Run,
    driver: &mut Child,
    pipe: &mut Option<ChildStdin>,
    signals: &Signals,
) -> Result<ExitStatus, Failure> {
    let failed = || Failure::io("waiting for the driver");
    let pidfd = pidfd_open(Pid::from_child(driver), PidfdFlags::empty())
        .map_err(|error| failed()(error.into()))?;
    // The goodbye has several steps, each with this deadline.
    let patience = Duration::from_secs(args.deadline.saturating_mul(3));
    let mut stopping = false;
    loop {
        match signals.or(&pidfd, stopping.then_some(patience))? {
            Woken::Ended => return driver.wait().map_err(failed()),
            Woken::Signal if !stopping => {
                stopping = true;
                if let Some(pipe) = pipe {
                    // A driver that has gone already is seen next.
                    let _ = pipe.write_all(&[STOP]);
                }
            }
            Woken::Signal | Woken::Timeout => {
                tracing::error!("the driver did not stop: killing it");
                driver.kill().map_err(failed())?;
            }
        }
    }
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
                "the vif could not be given back: {failure}. `netfront give --vif {}` tries again",
                args.vif
            )))
            }
        }
    }
}

/// The driver has said what went wrong; here it gets its exit code.
fn verdict(ended: ExitStatus) -> Result<(), Failure> {
    let (code, how) = match (ended.code(), ended.signal()) {
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

enum Woken {
    Signal,
    Ended,
    Timeout,
}

/// SIGINT and SIGTERM, as something to wait for.
struct Signals(UnixStream);

impl Signals {
    fn new() -> Result<Self, Failure> {
        let failed = || Failure::io("installing signal handlers");
        let (signals, ringer) = UnixStream::pair().map_err(failed())?;
        signals.set_nonblocking(true).map_err(failed())?;
        for signal in [SIGINT, SIGTERM] {
            let ringer = ringer.try_clone().map_err(failed())?;
            signal_hook::low_level::pipe::register(signal, ringer).map_err(failed())?;
        }
        Ok(Self(signals))
    }

    /// True if one came since the last look.
    fn came(&self) -> bool {
        (&self.0).read(&mut [0; 16]).is_ok_and(|read| read > 0)
    }

    /// Waits for a signal or the end of a process.
    fn or(&self, process: &OwnedFd, timeout: Option<Duration>) -> Result<Woken, Failure> {
        let timeout = timeout.and_then(|time| Timespec::try_from(time).ok());
        loop {
            let mut fds = [
                PollFd::new(process, PollFlags::IN),
                PollFd::new(&self.0, PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Woken::Timeout),
                Ok(_) if !fds[0].revents().is_empty() => return Ok(Woken::Ended),
                Ok(_) if self.came() => return Ok(Woken::Signal),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(Failure::io("waiting for the driver")(error.into())),
            }
        }
    }
}
