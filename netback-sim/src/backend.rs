//! A backend for one vif, on a thread of its own.
//!
//! [`Backend::start`] puts the vif into the store and serves it until it is told to stop. A
//! frontend may come, go, die and come back as often as it likes; so may the backend.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hypervisor::{DomId, Domain};
use rustix::event::{eventfd, poll, EventfdFlags, PollFd, PollFlags, Timespec};
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::counters::{Counters, Snapshot};
use crate::features::Features;
use crate::keys::{KeyError, Paths};
use crate::peer::Peer;
use crate::reach::Reach;
use crate::state::State;
use crate::toolstack::Toolstack;
use crate::traffic;
use crate::worker::Worker;

/// Why a backend could not start, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The hypervisor or the simulation.
    #[error(transparent)]
    Hypervisor(#[from] hypervisor::Error),
    /// The store, or what is in it.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The system gave no thread or no descriptor.
    #[error("starting the backend's thread failed: {0}")]
    Thread(#[from] std::io::Error),
    /// The thread died.
    #[error("the backend's thread panicked; its last messages say where")]
    Panicked,
}

/// What a backend is to serve, and how.
pub struct Config {
    /// The guest's domain.
    pub frontend: DomId,
    /// Which of its vifs.
    pub handle: u32,
    /// What is offered to it.
    pub features: Features,
    /// Write what a toolstack writes, as domain 0 of the simulated Xen. None: the vif's
    /// directories exist, as on Xen, and the toolstack's script says when the interface is in its
    /// place: Connected is shown only after that.
    pub toolstack: Option<Toolstack>,
    /// How pages are reached that the guest has not announced.
    pub reach: Reach,
    /// Start frames at different cache lines of their pages. netback starts them all at 0.
    pub stagger: bool,
    /// How long to look for work before sleeping: to be woken takes longer than that.
    pub spin: Duration,
    /// How long a frontend may take to close when the backend stops.
    pub close_patience: Duration,
    /// How long a frontend that was connected to an earlier backend may take to notice that it is
    /// gone. Until then the backend shows InitWait, and a frontend that sees it closes and comes
    /// back. After that its rings are taken over as they are. The kernel does only the latter,
    /// at once, when its module is loaded again while a guest is connected.
    pub stale_patience: Duration,
    /// A frame has waited for pages of the guest, and none could be given to it for so long: the carrier goes off, and frames
    /// are dropped until there are pages again (netback's `rx_stall_timeout_msecs`). Zero: never. As with netback, a frontend
    /// without `feature-rx-notify` is not watched for it.
    pub rx_stall_timeout: Duration,
    /// Answer the frontend's states as the kernel's netback does. Otherwise what netback would
    /// not forgive is forgiven: the state Initialised counts as Connected; new keys in state
    /// Connected make a new connection without a close between; a frontend whose `state` is gone
    /// may come back while the toolstack wants the vif; states that no frontend may show are passed
    /// over. A frontend that is tested with this off may not work on Xen.
    pub strict: bool,
    /// The other end of the wire.
    pub peer: Box<dyn Peer>,
}

impl Config {
    /// The defaults for the guest's first vif: netback's features, a toolstack's defaults.
    pub fn new(frontend: DomId, peer: impl Peer + 'static) -> Self {
        Config {
            frontend,
            handle: 0,
            features: Features::default(),
            toolstack: Some(Toolstack::default()),
            reach: Reach::default(),
            stagger: true,
            spin: Duration::from_micros(20),
            close_patience: Duration::from_secs(1),
            stale_patience: Duration::from_secs(5),
            rx_stall_timeout: Duration::from_secs(60),
            strict: true,
            peer: Box::new(peer),
        }
    }
}

/// What others may know of the backend and ask of it. The thread writes it at changes and before
/// it sleeps; only the counters are written with each batch, and they take no lock.
pub(crate) struct Shared {
    pub(crate) counters: Arc<Counters>,
    status: Mutex<Status>,
    changed: Condvar,
    request: AtomicU8,
    pub(crate) wake: OwnedFd,
    /// Readable since the peer has finished, or the thread has ended: for who sleeps until then.
    news: OwnedFd,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Status {
    pub(crate) own: State,
    pub(crate) front: State,
    pub(crate) fault: Option<String>,
    pub(crate) verified: Option<traffic::Counts>,
    pub(crate) finished: bool,
    pub(crate) dropped: u64,
    pub(crate) ended: bool,
}

/// What the thread was asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Request {
    Run,
    Stop,
    Abandon,
}

impl Shared {
    fn new() -> Result<Self, Error> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Shared {
            counters: Arc::default(),
            status: Mutex::default(),
            changed: Condvar::new(),
            request: AtomicU8::new(Request::Run as u8),
            wake: eventfd(0, flags).map_err(std::io::Error::from)?,
            news: eventfd(0, flags).map_err(std::io::Error::from)?,
        })
    }

    fn status(&self) -> MutexGuard<'_, Status> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        let mut status = self.status();
        let before = (status.finished, status.ended);
        change(&mut status);
        let is_news = (status.finished, status.ended) != before;
        drop(status);
        self.changed.notify_all();
        if is_news {
            // A full counter means that it is readable already.
            let _ = rustix::io::write(&self.news, &1u64.to_ne_bytes());
        }
    }

    pub(crate) fn request(&self) -> Request {
        match self.request.load(Ordering::Acquire) {
            1 => Request::Stop,
            2 => Request::Abandon,
            _ => Request::Run,
        }
    }

    fn ask(&self, request: Request) {
        self.request.store(request as u8, Ordering::Release);
        // A full counter means that it is readable already.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// Starts backends.
#[derive(Debug)]
pub enum Backend {}

impl Backend {
    /// Starts a backend on a new thread. When this returns, the vif is in the store and waits for
    /// its frontend.
    ///
    /// # Errors
    /// When the store cannot be reached or written.
    pub fn start(domain: &Domain, config: Config) -> Result<BackendHandle, Error> {
        let shared = Arc::new(Shared::new()?);
        let paths = Paths::new(domain.id()?, config.frontend, config.handle);
        let (began, beginning) = std::sync::mpsc::channel();
        let name = format!("vif{}.{}", config.frontend, config.handle);
        let thread = {
            let (domain, shared, paths) = (domain.clone(), shared.clone(), paths.clone());
            std::thread::Builder::new().name(name).spawn(move || {
                let result = Worker::begin(domain, config, paths, shared.clone());
                let result = result.and_then(|worker| {
                    // The caller may have gone; then the handle's drop asks to stop.
                    let _ = began.send(());
                    worker.run()
                });
                shared.update(|status| status.ended = true);
                result
            })?
        };
        let handle = BackendHandle {
            shared,
            paths,
            thread: Some(thread),
        };
        match beginning.recv() {
            Ok(()) => Ok(handle),
            // It ended before it began: the result says why.
            Err(_) => match handle.stop() {
                Err(error) => Err(error),
                Ok(_) => Err(Error::Panicked),
            },
        }
    }
}

/// What a backend did.
#[derive(Debug, Clone, Copy)]
pub struct Summary {
    /// Its counters.
    pub counters: Snapshot,
    /// What its peer found out about the guest's frames.
    pub verified: Option<traffic::Counts>,
    /// Frames dropped by the peer.
    pub peer_dropped: u64,
}

/// A running backend. Dropping it stops it, as [`BackendHandle::stop`] does.
pub struct BackendHandle {
    shared: Arc<Shared>,
    paths: Paths,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl BackendHandle {
    /// The counters as they stand.
    pub fn counters(&self) -> Snapshot {
        self.shared.counters.snapshot()
    }

    /// The state that the backend shows.
    pub fn state(&self) -> State {
        self.shared.status().own
    }

    /// The state of the frontend when it was last looked at.
    pub fn front_state(&self) -> State {
        self.shared.status().front
    }

    /// How the guest last broke the protocol, so that the vif was taken down or asked to close.
    pub fn fault(&self) -> Option<String> {
        self.shared.status().fault.clone()
    }

    /// What the peer found out about the guest's frames, if it verifies them. It may lag behind
    /// the counters while traffic flows; at rest it does not.
    pub fn verified(&self) -> Option<traffic::Counts> {
        self.shared.status().verified
    }

    /// The peer has made all the frames that it was to make.
    pub fn peer_finished(&self) -> bool {
        self.shared.status().finished
    }

    /// Frames that the peer dropped.
    pub fn peer_dropped(&self) -> u64 {
        self.shared.status().dropped
    }

    /// False when the thread has ended: the toolstack took the vif away, or the frontend's `state`
    /// is gone (while [`Config::strict`]), or the store is.
    pub fn is_running(&self) -> bool {
        !self.shared.status().ended
    }

    /// Sleeps until the peer has finished ([`Self::peer_finished`]) or the thread has ended ([`Self::is_running`]), one of which
    /// may have come since the last call; until `other` is readable, which the caller looks at; or until the time is over (`None`:
    /// for ever). It may return earlier.
    ///
    /// # Errors
    /// If the system cannot wait.
    pub fn wait_for_news(
        &self,
        other: BorrowedFd<'_>,
        time: Option<Duration>,
    ) -> Result<(), std::io::Error> {
        let mut fds = [
            PollFd::new(&self.shared.news, PollFlags::IN),
            PollFd::from_borrowed_fd(other, PollFlags::IN),
        ];
        let time = time.and_then(|time| Timespec::try_from(time).ok());
        match poll(&mut fds, time.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        // Nothing to read is no failure.
        let _ = rustix::io::read(&self.shared.news, &mut [0; 8]);
        Ok(())
    }

    /// The vif's directories in the store.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// Waits until the backend shows this state. False when it did not within `timeout`.
    pub fn wait_for(&self, state: State, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut status = self.shared.status();
        while status.own != state {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || status.ended {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(status, left);
            status = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Closes the vif in order and ends the thread.
    ///
    /// # Errors
    /// What ended the thread, if it was not this call.
    pub fn stop(mut self) -> Result<Summary, Error> {
        self.end(Request::Stop)
    }

    /// Ends the thread and leaves the store as it is: what a backend that is killed leaves behind.
    ///
    /// # Errors
    /// What ended the thread before.
    pub fn abandon(mut self) -> Result<Summary, Error> {
        self.end(Request::Abandon)
    }

    fn end(&mut self, request: Request) -> Result<Summary, Error> {
        self.shared.ask(request);
        if let Some(thread) = self.thread.take() {
            thread.join().map_err(|_| Error::Panicked)??;
        }
        let status = self.shared.status();
        Ok(Summary {
            counters: self.shared.counters.snapshot(),
            verified: status.verified,
            peer_dropped: status.dropped,
        })
    }
}

impl Drop for BackendHandle {
    fn drop(&mut self) {
        if self.thread.is_some() {
            if let Err(error) = self.end(Request::Stop) {
                tracing::warn!(%error, "the backend ended with an error");
            }
        }
    }
}
