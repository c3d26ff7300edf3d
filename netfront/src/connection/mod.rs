//! The connection to a backend: both sides' states, what is offered, what is asked for.
//!
//! ```text
//!  frontend                                   backend
//!  (close cycle, if it is not in InitWait)
//!  Initialising ............................. InitWait      prepare()
//!  rings, channels, features, Connected  ---> maps, binds   publish()
//!                                        <--- Connected     wait_connected()
//!  ......................... traffic ........................
//!  Closing ------------------------------------> Closing    close()
//!  Closed  ------------------------------------> Closed
//!  (only now are the pages freed)
//! ```
//!
//! After a restore or a migration there is no goodbye: the backend is another one, in InitWait, in a
//! directory that knows nothing of us; see `restore`.
//!
//! Watch events are hints: whatever an event says, the key is read. Every wait has a deadline, and its
//! error names the key. Everything is written before `state` is, so no transaction is needed.

mod ends;
mod features;
pub(crate) mod keys;
mod offer;
mod publish;
mod restore;
mod state;
mod waiting;

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor::{Domain, Store};
use xen_ring::Corrupt;

pub use ends::Ends;
pub use features::{Features, Wants};
pub use offer::Offer;
use restore::Restore;
pub use state::XenbusState;
pub(crate) use waiting::Awaited;

use crate::control::ControlKeys;
use crate::Error;

/// How long a watch may be silent before the key is read anyway, the first time; then twice as long, and so on. An event can
/// be lost (xenstore-rs loses one that comes before the answer to its WATCH).
const REREAD: Duration = Duration::from_millis(500);
/// However long it is silent, it is read so often.
const RAREST: Duration = Duration::from_secs(60);
/// Events that are taken as one hint.
const MANY_EVENTS: usize = 64;

/// What the backend said while it was connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The backend is no longer connected. Everything must be negotiated anew.
    BackendLeft(XenbusState),
    /// The domain was restored or migrated: the event channels are dead, the backend is another one.
    /// Everything must be negotiated anew, without a goodbye.
    Restored,
    /// The cable was put in or pulled out (`carrier` or `disconnect`).
    Carrier(bool),
    /// The MTU changed.
    Mtu(u32),
    /// All multicast packets are wanted ([`crate::Queue::follow_multicast`]), and the backend, which has
    /// `feature-multicast-control` without `feature-dynamic-multicast-control`, filters until it connects anew. Until then some
    /// are missing; the next connection of the device asks for no filter.
    MulticastFilter,
    /// The network is said to be so fast now, in bits a second; `None`: the store says nothing of it any more.
    Speed(Option<u64>),
    /// The backend broke the contract of the control ring: close, and negotiate anew.
    Broken(Corrupt),
}

/// One vif's dealings with the store. It is used by one thread at a time and may wait.
pub struct Connection {
    store: Box<dyn Store>,
    vif: u32,
    frontend: String,
    /// The backend's directory, as last read: a restore or a new driver domain changes it.
    backend: String,
    /// The watches that are set.
    watched: Vec<String>,
    /// The control ring to publish, if there is to be one.
    control: Option<ControlKeys>,
    carrier: bool,
    mtu: u32,
    speed: Option<u64>,
    /// The backend was told state Connected and has not shown it, nor closed.
    told: bool,
    /// Our keys are in the frontend's directory.
    published: bool,
    drained: bool,
    interrupt: Arc<AtomicBool>,
    /// `None` for a connection that belongs to no domain value: then nobody looks for restores.
    restore: Option<Restore>,
}

impl Connection {
    /// Opens the store by its default client.
    ///
    /// # Errors
    /// If there is no store.
    pub fn open(domain: &Domain, vif: u32) -> Result<Self, Error> {
        let mut store = domain.store()?;
        let restore = Restore::new(domain, store.as_mut())?;
        Ok(Self {
            restore: Some(restore),
            ..Self::over(store, vif)
        })
    }

    /// The same over a store that is open already, by whichever client.
    pub fn over(store: Box<dyn Store>, vif: u32) -> Self {
        Self {
            store,
            vif,
            frontend: keys::frontend(vif),
            backend: String::new(),
            watched: Vec::new(),
            control: None,
            carrier: true,
            mtu: 0,
            speed: None,
            told: false,
            published: false,
            drained: true,
            interrupt: Arc::default(),
            restore: None,
        }
    }

    /// Brings both sides to the start: own state Initialising, backend in InitWait. A backend that is
    /// anywhere else (connected to a driver that died, or closed) is driven through the close cycle first.
    ///
    /// # Errors
    /// [`Error::Deadline`] names the key that did not move.
    pub fn prepare(&mut self, deadline: Duration) -> Result<Offer, Error> {
        let start = Instant::now();
        let end = start + deadline;
        loop {
            self.find_backend(end)?;
            if Instant::now() > end {
                // A backend that runs through its states for ever does not hold us.
                let (key, found) = (self.backend_key(keys::STATE), self.backend_state()?);
                let waited = start.elapsed();
                return Err(Error::Deadline {
                    key,
                    wanted: "InitWait (2)",
                    found,
                    waited,
                });
            }
            match self.backend_state()? {
                XenbusState::InitWait => {
                    self.set_state(XenbusState::Initialising)?;
                    return self.read_offer();
                }
                XenbusState::Closing => {
                    tracing::debug!("the backend closes, for an earlier driver");
                    let half = Instant::now() + end.saturating_duration_since(Instant::now()) / 2;
                    match self.close_until(half) {
                        // netback that has refused a state of an earlier driver shows Closing, and may be closed all the
                        // same: then our Closed changes nothing, and only a frontend that starts moves it.
                        Err(Error::Deadline { .. }) => {
                            self.set_state(XenbusState::Initialising)?;
                            self.wait_backend(end, "Closed (6)", |state| {
                                state != XenbusState::Closing
                            })?;
                        }
                        closed => closed?,
                    }
                }
                XenbusState::Connected
                | XenbusState::Initialised
                | XenbusState::Reconfiguring
                | XenbusState::Reconfigured => {
                    tracing::debug!(
                        "the backend still serves an earlier driver: closing that first"
                    );
                    self.close_until(end)?;
                }
                XenbusState::Closed => {
                    // netback leaves Closed for InitWait when it sees the frontend start.
                    self.set_state(XenbusState::Initialising)?;
                    self.wait_backend(end, "InitWait (2)", |state| state != XenbusState::Closed)?;
                }
                XenbusState::Unknown | XenbusState::Initialising => {
                    self.set_state(XenbusState::Initialising)?;
                    self.wait_backend(end, "InitWait (2)", |state| {
                        !matches!(state, XenbusState::Unknown | XenbusState::Initialising)
                    })?;
                }
            }
        }
    }

    /// Reads what is offered, and changes nothing of the vif.
    ///
    /// # Errors
    /// If there is no such vif, or a key makes no sense.
    pub fn look(&mut self, deadline: Duration) -> Result<Offer, Error> {
        self.find_backend(Instant::now() + deadline)?;
        self.read_offer()
    }

    /// Waits until the backend is Connected: it has mapped the rings and its hotplug script is done.
    ///
    /// # Errors
    /// [`Error::Deadline`], or [`Error::BackendLeft`] if it went elsewhere.
    pub fn wait_connected(&mut self, deadline: Duration) -> Result<(), Error> {
        let end = Instant::now() + deadline;
        let found = self.wait_backend(end, "Connected (4)", |state| {
            !matches!(state, XenbusState::InitWait | XenbusState::Initialised)
        })?;
        if found != XenbusState::Connected {
            return Err(Error::BackendLeft {
                key: self.backend_key(keys::STATE),
                found,
            });
        }
        // From here on a backend in InitWait is one that has started anew.
        self.told = false;
        self.carrier = self.read_carrier()?;
        self.mtu = self.read_mtu()?;
        self.speed = self.read_speed()?;
        Ok(())
    }

    /// Whether the cable is in, and the MTU, as they were last read.
    pub fn link(&self) -> (bool, u32) {
        (self.carrier, self.mtu)
    }

    /// How fast the network is said to be, in bits a second, as it was last read.
    pub fn speed(&self) -> Option<u64> {
        self.speed
    }

    /// Waits for the next thing that the backend or the toolstack says. `None` after `timeout`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn next_change(&mut self, timeout: Duration) -> Result<Option<Change>, Error> {
        let end = Instant::now() + timeout;
        loop {
            // All that is queued is one hint, and the keys are read once for it: whoever writes a key
            // without end must not hold us here.
            self.drained = self.drain()?;
            if self.restored()? {
                return Ok(Some(Change::Restored));
            }
            let backend_now = self.read(&keys::join(&self.frontend, keys::BACKEND))?;
            let state = self.backend_state()?;
            if state != XenbusState::Connected {
                return self.left(state).map(Some);
            }
            if backend_now.as_deref() != Some(&self.backend) {
                // Another backend, after a move of the vif.
                return self.left(XenbusState::Unknown).map(Some);
            }
            let carrier = self.read_carrier()?;
            if carrier != self.carrier {
                self.carrier = carrier;
                return Ok(Some(Change::Carrier(carrier)));
            }
            let mtu = self.read_mtu()?;
            if mtu != self.mtu {
                self.mtu = mtu;
                return Ok(Some(Change::Mtu(mtu)));
            }
            let speed = self.read_speed()?;
            if speed != self.speed {
                self.speed = speed;
                return Ok(Some(Change::Speed(speed)));
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() || self.store.next_event(left)?.is_none() {
                return Ok(None);
            }
        }
    }

    /// Why the backend is not what it was: the restore may have come between the look for it and the look
    /// at the backend.
    fn left(&mut self, state: XenbusState) -> Result<Change, Error> {
        Ok(match self.restored()? {
            true => Change::Restored,
            false => Change::BackendLeft(state),
        })
    }

    /// Says goodbye: Closing, Closed, each followed by the backend. Returns when the backend has let go
    /// of the pages.
    ///
    /// # Errors
    /// [`Error::Deadline`] if the backend does not follow; own state is Closed then all the same. Errors of
    /// the store leave it as it is. After a restore nothing is done: the directory is that of the next
    /// connection.
    pub fn close(&mut self, deadline: Duration) -> Result<(), Error> {
        if self.restored()? {
            return Ok(());
        }
        match self.close_until(Instant::now() + deadline) {
            Err(error) if error.is_restore() => Ok(()),
            closed => {
                let removed = self.remove_lasting_keys();
                closed.and(removed)
            }
        }
    }

    fn close_until(&mut self, end: Instant) -> Result<(), Error> {
        // A backend that was told Connected may have mapped the rings long before it shows it (its hotplug
        // script is slow): in between, InitWait does not mean that it has let go.
        let told = std::mem::take(&mut self.told);
        if matches!(self.backend_state()?, XenbusState::Unknown) {
            return self.set_state(XenbusState::Closed);
        }
        self.set_state(XenbusState::Closing)?;
        // A backend may jump straight to Closed, or come back fresh after a restart of its own.
        let gone = |state| {
            matches!(
                state,
                XenbusState::Closed | XenbusState::Unknown | XenbusState::Initialising
            )
        };
        let first = self.wait_backend(end, "Closing (5) or Closed (6)", |state| {
            gone(state)
                || state == XenbusState::Closing
                || (state == XenbusState::InitWait && !told)
        });
        if !matches!(&first, Err(error) if error.is_restore()) {
            self.set_state(XenbusState::Closed)?;
        }
        first?;
        self.wait_backend(end, "Closed (6)", |state| {
            gone(state) || state == XenbusState::InitWait
        })?;
        Ok(())
    }

    /// False if the last [`Self::next_change`] left events behind: then the descriptor says nothing.
    pub fn is_drained(&self) -> bool {
        self.drained
    }

    /// Makes every wait end with [`Error::Interrupted`] soon after this is set.
    pub fn interrupt_by(&mut self, flag: Arc<AtomicBool>) {
        self.interrupt = flag;
    }

    /// Readable when [`Self::next_change`] may have something, after it has returned `None`.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.store.event_fd()
    }

    /// The state of the backend now.
    ///
    /// # Errors
    /// When the store fails.
    pub fn backend_state(&mut self) -> Result<XenbusState, Error> {
        let value = self.read(&self.backend_key(keys::STATE))?;
        Ok(XenbusState::from_store(value.as_deref()))
    }

    fn backend_key(&self, key: &str) -> String {
        keys::join(&self.backend, key)
    }

    /// A node that must not be read is as good as absent: when the toolstack removes a backend's directory,
    /// the store judges by the nearest parent that is left, which belongs to the driver domain, and
    /// refuses. Taken for a failure of the store, the backend's end would never be noticed.
    fn read(&mut self, path: &str) -> Result<Option<String>, Error> {
        match self.store.read(path) {
            Err(hypervisor::Error::StorePermission { .. }) => Ok(None),
            other => Ok(other?),
        }
    }

    fn set_state(&mut self, state: XenbusState) -> Result<(), Error> {
        let path = keys::join(&self.frontend, keys::STATE);
        // A write of what is there already still fires the backend's watch: needed after a crash of its own.
        Ok(self.store.write(&path, &keys::state_value(state))?)
    }

    /// Reads where the backend is and watches its state. Waits for the toolstack if it is not done.
    fn find_backend(&mut self, end: Instant) -> Result<(), Error> {
        while !self.follow_backend()? {
            if Instant::now() >= end {
                let key = keys::join(&self.frontend, keys::BACKEND);
                return Err(Error::NoVif { vif: self.vif, key });
            }
            self.sleep(end.min(Instant::now() + REREAD))?;
        }
        Ok(())
    }

    fn wait_backend(
        &mut self,
        end: Instant,
        wanted: &'static str,
        reached: impl Fn(XenbusState) -> bool,
    ) -> Result<XenbusState, Error> {
        let start = Instant::now();
        let mut silence = REREAD;
        loop {
            self.same_life()?;
            let found = self.backend_state()?;
            if reached(found) {
                return Ok(found);
            }
            let now = Instant::now();
            if now >= end {
                let key = self.backend_key(keys::STATE);
                return Err(Error::Deadline {
                    key,
                    wanted,
                    found,
                    waited: start.elapsed(),
                });
            }
            if !self.sleep(end.min(now + silence))? {
                // Each look costs ten wake-ups, and that an event is lost is rare.
                silence = (silence * 2).min(RAREST);
            }
        }
    }

    /// Sleeps until the store tells that something changed, or until this moment. False if it told nothing.
    fn sleep(&mut self, until: Instant) -> Result<bool, Error> {
        loop {
            if self.interrupt.load(Ordering::Acquire) {
                return Err(Error::Interrupted);
            }
            // In short pieces for the interrupt alone: they do not ask the store.
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            if self.store.next_event(left.min(REREAD))?.is_some() {
                // What we wrote ourselves comes back as an event a key, of which each alone is no reason to read.
                self.drain()?;
                return Ok(true);
            }
        }
    }

    /// Takes the events that are queued. False if there are still more of them.
    fn drain(&mut self) -> Result<bool, Error> {
        for _ in 0..MANY_EVENTS {
            if self.store.next_event(Duration::ZERO)?.is_none() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("vif", &self.vif)
            .field("backend", &self.backend)
            .finish_non_exhaustive()
    }
}
