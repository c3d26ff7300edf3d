//! The backend's thread: looks after the store when something changes there, and after the rings
//! all the time.

mod store;

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor::{Domain, Store, StoreClient};
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use crate::backend::{Config, Error, Request, Shared};
use crate::keys::Paths;
use crate::peer::Peer;
use crate::state::State;
use crate::vif::{Buffers, Vif};
use crate::xenbus::Step;

/// Rounds with work before everything else is looked at.
const ROUNDS: u32 = 64;
/// After how long the store is looked at unasked: not every client's descriptor tells that its connection died. While nothing
/// comes of it, twice as long each time.
const STORE_CHECK: Duration = Duration::from_secs(1);
/// It becomes no longer, and so is the longest sleep.
const STORE_CHECK_LONGEST: Duration = Duration::from_secs(16);

/// Everything the thread owns.
pub(crate) struct Worker {
    domain: Domain,
    config: Config,
    paths: Paths,
    shared: Arc<Shared>,
    /// None while it is lost.
    store: Option<Box<dyn Store>>,
    store_lost: Option<Instant>,
    retry_at: Option<Instant>,
    store_checked: Instant,
    /// How long after that it is looked at unasked.
    store_check: Duration,
    /// Events may be left in the store's queue, where its descriptor does not tell of them.
    store_pending: bool,
    own: State,
    /// The state of the frontend that was refused last: it is complained of once.
    refused: Option<State>,
    vif: Option<Vif>,
    /// Connected, but not shown as that: the toolstack's script has not said that the interface is in
    /// its place.
    hotplug_awaited: bool,
    buffers: Buffers,
    /// What the frontend wrote when we last connected, failed, or came: see [`Situation::fresh`](crate::xenbus::Situation::fresh).
    known: Option<String>,
    /// Until when a frontend of an earlier backend is waited for.
    stale_until: Option<Instant>,
    idle_since: Option<Instant>,
    finished: bool,
}

impl Worker {
    /// Puts the vif into the store.
    pub(crate) fn begin(
        domain: Domain,
        config: Config,
        paths: Paths,
        shared: Arc<Shared>,
    ) -> Result<Worker, Error> {
        let buffers = Buffers::new(config.stagger)?;
        if let Some(toolstack) = &config.toolstack {
            // Only this client can set permissions, and only a toolstack has to.
            let mut store = domain.store_with(StoreClient::Native)?;
            paths.create(store.as_mut(), toolstack)?;
        }
        let store = domain.store()?;
        let mut worker = Worker {
            domain,
            config,
            paths,
            shared,
            store: Some(store),
            store_lost: None,
            retry_at: None,
            store_checked: Instant::now(),
            store_check: STORE_CHECK,
            store_pending: false,
            own: State::Unknown,
            refused: None,
            vif: None,
            hotplug_awaited: false,
            buffers,
            known: None,
            stale_until: None,
            idle_since: None,
            finished: false,
        };
        worker.step(Step::Show(State::Initialising))?;
        worker.step(Step::Announce)?;
        // Before the state is shown: a frontend that is there already was connected to somebody
        // else, and has to notice that we are new.
        let front = worker.read_front(true)?;
        if worker.connects_at(front.state) {
            worker.known = Some(front.print());
            worker.stale_until = Some(Instant::now() + worker.config.stale_patience);
        }
        worker.step(Step::Show(State::InitWait))?;
        worker.watch()?;
        Ok(worker)
    }

    /// Serves the vif until it is told to stop, or the vif is gone.
    pub(crate) fn run(mut self) -> Result<(), Error> {
        let mut rounds = 0;
        self.take_store_events()?;
        while !self.finished {
            match self.shared.request() {
                Request::Run => {}
                Request::Stop => {
                    self.close();
                    break;
                }
                Request::Abandon => break,
            }
            self.check_deadlines()?;
            if self.round() {
                self.idle_since = None;
                rounds += 1;
                if rounds % ROUNDS == 0 {
                    self.publish();
                    self.sleep(Duration::ZERO)?;
                }
                continue;
            }
            if self.spin() || self.arm() {
                continue;
            }
            self.publish();
            self.shared.counters.sleeps.add(1);
            let timeout = self.timeout();
            self.sleep(timeout)?;
        }
        self.publish();
        Ok(())
    }

    /// One round over the rings. A guest that breaks them loses the vif.
    fn round(&mut self) -> bool {
        let Some(vif) = &mut self.vif else {
            return false;
        };
        match vif.round(self.config.peer.as_mut(), &mut self.buffers) {
            Ok(worked) => worked,
            Err(fault) => {
                self.fail(&fault);
                true
            }
        }
    }

    /// Nothing to do, but something may come at once: true while it is worth waiting awake.
    fn spin(&mut self) -> bool {
        if self.vif.is_none() || self.config.spin.is_zero() {
            return false;
        }
        let now = Instant::now();
        let since = *self.idle_since.get_or_insert(now);
        std::hint::spin_loop();
        now.duration_since(since) < self.config.spin
    }

    /// Asks for the events that will end the sleep. True: do not sleep, work is there.
    fn arm(&mut self) -> bool {
        self.idle_since = None;
        let Some(vif) = &mut self.vif else {
            return false;
        };
        match vif.arm(self.config.peer.as_ref(), &self.buffers.burst) {
            Ok(ready) => ready,
            Err(fault) => {
                self.fail(&fault);
                true
            }
        }
    }

    fn timeout(&self) -> Duration {
        if self.store_pending {
            return Duration::ZERO;
        }
        let due = match &self.vif {
            Some(_) if self.buffers.burst.is_empty() => self.config.peer.due(),
            // Frames that wait for the guest come first.
            Some(vif) => vif.expiry(),
            None => None,
        };
        [due, self.stale_until, self.retry_at]
            .into_iter()
            .flatten()
            .map(|at| at.saturating_duration_since(Instant::now()))
            .fold(self.store_check, Duration::min)
    }

    /// Sleeps until an event, at most this long, and takes the events.
    fn sleep(&mut self, timeout: Duration) -> Result<(), Error> {
        let (mut store, mut vif) = (false, false);
        {
            let mut fds = arrayvec::ArrayVec::<PollFd<'_>, 4>::new();
            fds.push(PollFd::new(&self.shared.wake, PollFlags::IN));
            let store_at = self.store.as_ref().map(|store| {
                fds.push(PollFd::from_borrowed_fd(store.event_fd(), PollFlags::IN));
                fds.len() - 1
            });
            let vif_at = self.vif.as_ref().map(|vif| {
                fds.push(PollFd::from_borrowed_fd(
                    vif.events().as_fd(),
                    PollFlags::IN,
                ));
                fds.len() - 1
            });
            // A peer is not asked for frames while older ones wait, so it must not wake us.
            if self.vif.is_some() && self.buffers.burst.is_empty() {
                if let Some(fd) = self.config.peer.fd() {
                    fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
                }
            }
            let limit = Timespec {
                tv_sec: timeout.as_secs() as i64,
                tv_nsec: i64::from(timeout.subsec_nanos()),
            };
            match poll(&mut fds, Some(&limit)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::Thread(errno.into())),
            }
            let ready = |at: Option<usize>| at.is_some_and(|at| !fds[at].revents().is_empty());
            store |= ready(store_at);
            vif |= ready(vif_at);
        }
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.shared.wake, &mut count);
        if vif {
            if let Some(vif) = &mut self.vif {
                vif.take_events();
            }
        }
        let is_told = store || self.store_pending;
        if is_told || self.store_checked.elapsed() >= self.store_check {
            self.store_check = match is_told {
                true => STORE_CHECK,
                false => (self.store_check * 2).min(STORE_CHECK_LONGEST),
            };
            self.take_store_events()?;
        }
        Ok(())
    }

    /// Tells what changes all the time, for those who look from outside.
    fn publish(&self) {
        let peer = &self.config.peer;
        let (verified, finished, dropped) = (peer.verified(), peer.finished(), peer.dropped());
        self.shared.update(|status| {
            status.verified = verified;
            status.finished = finished;
            status.dropped = dropped;
        });
    }
}
