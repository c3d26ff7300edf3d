//! What the driver of a take-over does besides driving: it dresses its TAP as the interface whose place it takes, asks
//! to be confirmed, and looks after the vif if its guardian is killed.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use netfront::consumer::Tap;
use netfront::engine::Service;
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use super::confirm::Confirmation;
use super::renewed;
use super::replay::replay;
use super::saved::Saved;
use super::watch::STOP;
use crate::args::{Ground, Run};
use crate::failure::{code, Failure};
use crate::run;

/// A take-over, as its driver sees it.
pub struct Taken {
    saved: Mutex<Saved>,
    /// The file that holds the same.
    path: PathBuf,
    /// The TAP, once it has everything.
    tap: OnceLock<String>,
    /// What the TAP has is read once, while it is as it was used.
    renewed: AtomicBool,
    /// Whether somebody can still reach this machine.
    pub confirmation: Arc<Confirmation>,
    /// The guardian is gone: nobody else gives the vif back.
    alone: AtomicBool,
}

/// Drives the vif that the guardian took.
///
/// # Errors
/// As `netfront run`, and when nobody confirmed in time.
pub fn run(mut args: Run) -> Result<(), Failure> {
    let path = Saved::path(args.ground.sim.as_deref(), args.vif);
    let saved = Saved::read(&path)?
        .ok_or_else(|| Failure::Verdict(format!("{} is gone: who removed it?", path.display())))?;
    args.tap.get_or_insert_with(|| saved.interface.name.clone());
    let within = Duration::from_secs(args.confirm_within);
    let taken = Arc::new(Taken {
        saved: Mutex::new(saved),
        path,
        tap: OnceLock::new(),
        renewed: AtomicBool::new(false),
        confirmation: Arc::new(Confirmation::new(Instant::now(), within).telling(guardian())),
        alone: AtomicBool::new(false),
    });
    let (ground, vif) = (args.ground.clone(), args.vif);
    let (deadline, seconds) = (args.deadline, args.confirm_within);
    let done = run::drive(args, Some(&taken));
    taken.confirmation.end();
    if taken.alone.load(Ordering::Acquire) || guardian_is_gone() {
        super::keep(&taken.saved(), ground.sim.as_deref(), vif);
        return Err(become_give(&ground, vif, deadline));
    }
    if taken.confirmation.expired() {
        let text = format!("nobody confirmed within {seconds} s (`netfront confirm --vif {vif}`)");
        let code = code::NOT_CONFIRMED;
        return Err(Failure::Class { code, text });
    }
    done
}

/// The guardian is at the other end of our standard input.
fn guardian() -> Option<UnixStream> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    socket.ok().map(UnixStream::from)
}

/// Also where the driver failed before anybody watched: the other end of the socket is closed.
fn guardian_is_gone() -> bool {
    let stdin = std::io::stdin();
    let mut fds = [PollFd::new(&stdin, PollFlags::IN)];
    let looked = poll(&mut fds, Some(&Timespec::default()));
    looked.is_ok() && fds[0].revents().contains(PollFlags::HUP)
}

/// Goes on as `netfront give`, in place of this process: nothing of the driver is left then, not even a thread.
/// Returns only if that cannot be started.
fn become_give(ground: &Ground, vif: u32, deadline: u64) -> Failure {
    let mut give = Command::new("/proc/self/exe");
    give.args(["give", "--vif", &vif.to_string()]);
    give.args(["--deadline", &deadline.to_string()]);
    if let Some(socket) = &ground.sim {
        give.arg("--sim").arg(socket);
        give.args(["--domid", &ground.domid.to_string()]);
    }
    Failure::io("starting netfront give")(give.exec())
}

impl Taken {
    fn saved(&self) -> MutexGuard<'_, Saved> {
        self.saved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Saves what the TAP has now, before an end that was asked for: what was renewed or added there goes back with the vif. A
    /// take-over that nobody has confirmed yet is undone: all is to be as it was.
    pub fn renew(&self) {
        let Some(tap) = self.tap.get() else {
            return;
        };
        if self.confirmation.left(Instant::now()).is_some() {
            return;
        }
        // Held meanwhile: a second one to call must not go on, and so end the TAP, before it was read.
        let mut saved = self.saved();
        if self.renewed.swap(true, Ordering::AcqRel) {
            return;
        }
        let looked = renewed::look(&saved, tap);
        match looked.and_then(|now| now.write(&self.path).map(|()| now)) {
            Ok(now) => *saved = now,
            Err(failure) => tracing::warn!(
                "what {tap} has now is not saved ({failure}): what was saved at the start goes back"
            ),
        }
    }

    /// Gives the TAP everything that the interface had.
    ///
    /// # Errors
    /// When the kernel refuses an address or a route: better to give the vif back than to be half there.
    pub fn dress(&self, tap: &mut Tap) -> Result<(), Failure> {
        let saved = self.saved();
        let interface = &saved.interface;
        tap.keep(interface.mac, interface.mtu);
        let name = tap.name().to_owned();
        // Before the first connection: the stack uses it at once, and packets wait in its queue.
        let refused = replay(&saved, &name, &name)?;
        match refused.as_slice() {
            [] => {
                self.tap.get_or_init(|| name);
                Ok(())
            }
            lines => Err(Failure::Verdict(format!(
                "the kernel refused on {name} what {} had: {}",
                interface.name,
                lines.join("; ")
            ))),
        }
    }

    /// Stops the service when the time to confirm is over, the guardian says so, or it is gone.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn watch(self: &Arc<Self>, service: &Arc<Service>) -> Result<(), Failure> {
        let failed = || Failure::io("starting a thread of the take-over");
        let (taken, stopped) = (Arc::clone(self), Arc::clone(service));
        std::thread::Builder::new()
            .name("nfguardian".into())
            .spawn(move || {
                let mut word = [0];
                let told = std::io::stdin().read_exact(&mut word).is_ok() && word == [STOP];
                if !told {
                    tracing::error!("the guardian of the take-over is gone: giving the vif back");
                    taken.alone.store(true, Ordering::Release);
                }
                taken.renew();
                stopped.stop();
            })
            .map_err(failed())?;
        let (confirmation, stopped) = (Arc::clone(&self.confirmation), Arc::clone(service));
        std::thread::Builder::new()
            .name("nfconfirm".into())
            .spawn(move || {
                if confirmation.wait() {
                    tracing::error!("nobody confirmed in time: giving the vif back");
                    stopped.stop();
                }
            })
            .map_err(failed())?;
        Ok(())
    }
}
