//! A connected vif: its queues, its link, and the control thread that watches the store.
//!
//! The thread that calls [`Builder::connect`] owns the queues. A control thread behind it watches the
//! backend's state, carrier, MTU and speed, grants more pages when a pool runs low, and wakes the owner when
//! something changed.
//!
//! There is one queue unless [`Builder::queues`] asks for more. [`crate::engine::serve_queues`] gives each a thread of its
//! own; a program that does so itself hands out the others by [`Device::take_queues`].

mod control;
mod queues;

use std::sync::atomic::AtomicBool;
use std::sync::Arc;
use std::time::Duration;

use hypervisor::Domain;

use crate::connection::{Change, Connection, Features, Offer, Wants};
use crate::queue::QueueConfig;
use crate::stats::{QueueStats, VifStats};
use crate::waker::Waker;
use crate::watch::Watch;
use crate::Error;

use crate::control::{ControlRing, HashConfig, Mapping};
use control::{Control, Held, Served};
pub use queues::thread_name;
use queues::Queues;

/// How long each step of the handshake may take, unless told otherwise.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// What was negotiated for a vif.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The address of the vif.
    pub mac: [u8; 6],
    /// Bytes of payload in a frame.
    pub mtu: u32,
    /// How fast the network is said to be, in bits a second; `None` if the store does not say.
    pub speed: Option<u64>,
    /// True if the cable is in and the backend is connected.
    pub carrier: bool,
    /// What the backend offers.
    pub features: Features,
    /// True if both directions have an event channel of their own.
    pub split_event_channels: bool,
    /// True if everything is copied out of shared memory before it is looked at.
    pub untrusted: bool,
    /// Queues of this connection: as many as were wanted, or as the backend and the limit of shared pages allow.
    pub queues: usize,
}

/// How to connect to a vif.
#[derive(Debug, Clone)]
pub struct Builder {
    vif: u32,
    queues: usize,
    queue: QueueConfig,
    wants: Wants,
    hash: Option<HashConfig>,
    deadline: Duration,
    interrupt: Arc<AtomicBool>,
    watch: Arc<Watch>,
}

impl Builder {
    /// The vif with this number, with all defaults.
    pub fn new(vif: u32) -> Self {
        Self {
            vif,
            queues: 1,
            queue: QueueConfig::default(),
            wants: Wants::default(),
            hash: None,
            deadline: HANDSHAKE,
            interrupt: Arc::default(),
            watch: Arc::default(),
        }
    }

    /// So many queues, if the backend serves as many and the limit of shared pages is enough for them; otherwise as many as
    /// it can be. 0 counts as 1.
    #[must_use]
    pub fn queues(mut self, most: usize) -> Self {
        self.queues = most.max(1);
        self
    }

    /// How each queue and its pools are made.
    #[must_use]
    pub fn queue(mut self, config: QueueConfig) -> Self {
        self.queue = config;
        self
    }

    /// What to ask the backend for.
    #[must_use]
    pub fn wants(mut self, wants: Wants) -> Self {
        self.wants = wants;
        self
    }

    /// Has the backend hash what it sends, if it offers a control ring and knows how; each packet tells its
    /// hash then ([`crate::Packet::offload`]). `hash_active` of the counters says whether it does.
    #[must_use]
    pub fn hash(mut self, config: Option<HashConfig>) -> Self {
        self.hash = config;
        self
    }

    /// How long each step of the handshake may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Setting this from another thread ends every wait of the handshake, also of later ones.
    #[must_use]
    pub fn interrupt(mut self, flag: Arc<AtomicBool>) -> Self {
        self.interrupt = flag;
        self
    }

    /// Lets captures and traces be started with this, also of later connections.
    #[must_use]
    pub fn watch(mut self, watch: Arc<Watch>) -> Self {
        self.watch = watch;
        self
    }

    /// Whether the backend may keep pages mapped. Pages that are freed after each packet are not worth it.
    fn maps(&self) -> bool {
        self.wants.grant_mapping && self.queue.policy.recycles()
    }

    /// Connects, and makes the calling thread the owner of the queue.
    ///
    /// # Errors
    /// Whatever step failed, with the key or the device it failed at.
    pub fn connect(&self, domain: &Domain) -> Result<Device, Error> {
        self.connect_counting(domain, Arc::default())
    }

    /// The same, with counters that somebody reads already.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_counting(
        &self,
        domain: &Domain,
        stats: Arc<QueueStats>,
    ) -> Result<Device, Error> {
        self.connect_counting_each(domain, Arc::new(VifStats::beginning_with(stats)))
    }

    /// The same for several queues.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub fn connect_counting_each(
        &self,
        domain: &Domain,
        stats: Arc<VifStats>,
    ) -> Result<Device, Error> {
        loop {
            let known = domain.look_for_restore()?;
            let connection = Connection::open(domain, self.vif)?;
            let error = match Device::establish(domain, self, connection, Arc::clone(&stats)) {
                Err(error) => error,
                connected => return connected,
            };
            // In the middle of the handshake: the vif is another one now, whatever went wrong with the old.
            if domain.look_for_restore()? == known {
                return Err(error);
            }
            tracing::info!(
                "the domain was restored in the middle of the handshake ({error}): connecting anew"
            );
        }
    }
}

/// A connected vif.
///
/// When its domain was restored or migrated, [`Self::change`] says [`Change::Restored`] and calls of the queue
/// fail with an error for which [`Error::is_restore`] is true, whichever comes first: then
/// [`Self::reconnect`]. [`crate::engine::serve`] does so by itself.
#[derive(Debug)]
pub struct Device {
    domain: Domain,
    builder: Builder,
    link: Link,
    // Before the queues: dropped first, it says goodbye to the backend while the pages are still granted.
    control: Control,
    queues: Queues,
    stats: Arc<VifStats>,
}

impl Device {
    /// How to connect to the vif with this number.
    pub fn builder(vif: u32) -> Builder {
        Builder::new(vif)
    }

    fn establish(
        domain: &Domain,
        builder: &Builder,
        mut connection: Connection,
        stats: Arc<VifStats>,
    ) -> Result<Self, Error> {
        connection.interrupt_by(Arc::clone(&builder.interrupt));
        let offer = connection.prepare(builder.deadline)?;
        let split = offer.features.split_event_channels && builder.queue.split_event_channels;
        let config = QueueConfig {
            untrusted: builder.queue.untrusted || !offer.trusted,
            ..builder.queue.clone()
        };
        let wants = Wants {
            // A chain of slots is what a packet larger than a page needs; so are large segments.
            gso: builder.wants.gso && builder.wants.sg,
            ..builder.wants
        };
        stats.first().restores.set(domain.restores());
        // First: its two pages are few, and the pools take what is left.
        let control_ring = open_control_ring(domain, builder, &offer);
        connection.control_ring(control_ring.as_ref().map(ControlRing::keys));
        let mut queues = Queues::open(domain, builder, &offer, &config, split, &stats)?;
        let met = connection
            .publish_queues(&queues.keys(), &offer.features, &wants)
            .and_then(|()| connection.wait_connected(builder.deadline))
            .and_then(|()| queues.kick());
        if let Err(error) = met {
            goodbye(connection, &mut queues, builder.deadline);
            return Err(error);
        }
        // A cable that is out, or an MTU or a speed that changed since the offer was read, will not be told again.
        let (carrier, mtu) = connection.link();
        let speed = connection.speed();
        let link = Link {
            mac: offer.mac,
            mtu,
            speed,
            carrier,
            features: offer.features,
            split_event_channels: split,
            untrusted: config.untrusted,
            queues: queues.count(),
        };
        tracing::info!(
            backend = %offer.backend_id,
            mtu,
            queues = link.queues,
            split,
            untrusted = config.untrusted,
            "vif {} is connected", builder.vif
        );
        let mapping = control_ring.map(|ring| {
            Mapping::new(ring, queues.announcements()).hashing(builder.hash.clone(), builder.maps())
        });
        let held = Held {
            connection,
            mapping,
        };
        let served = Served {
            owner: queues.first.waker(),
            growths: queues.all().map(|queue| queue.growth()).collect(),
            filter: queues.first.multicast_filter(),
            filters_for_good: wants.multicast_filter
                && offer.features.multicast_control
                && !offer.features.dynamic_multicast_control,
        };
        let control = match Control::start(domain, &offer, builder.vif, held, served) {
            Ok(control) => control,
            Err((error, held)) => {
                let Held {
                    connection,
                    mapping,
                } = *held;
                goodbye(connection, &mut queues, builder.deadline);
                drop(mapping);
                return Err(error);
            }
        };
        Ok(Self {
            domain: domain.clone(),
            builder: builder.clone(),
            link,
            control,
            queues,
            stats,
        })
    }

    /// The number of the vif.
    pub fn vif(&self) -> u32 {
        self.builder.vif
    }

    /// The counters of each queue, which go on over reconnects.
    pub fn stats(&self) -> &Arc<VifStats> {
        &self.stats
    }

    /// What was negotiated.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The next thing that changed, if anything did since the last call.
    pub fn change(&mut self) -> Option<Change> {
        let change = self.control.change()?;
        match change {
            Change::BackendLeft(_) | Change::Broken(_) | Change::Restored => {
                self.link.carrier = false;
            }
            // The next connection is to have all of it, and does not ask for a filter again: to lift one costs a reconnect,
            // and to filter too little loses nothing.
            Change::MulticastFilter => self.builder.wants.multicast_filter = false,
            Change::Carrier(carrier) => self.link.carrier = carrier,
            Change::Mtu(mtu) => self.link.mtu = mtu,
            Change::Speed(speed) => self.link.speed = speed,
        }
        Some(change)
    }

    /// Woken, the control thread reads the keys in the store, although no watch fired: for whoever finds that the
    /// backend does not answer. A restore or its end would be a reason.
    pub(crate) fn control_waker(&self) -> Arc<Waker> {
        self.control.waker()
    }

    /// Closes what is left of the connection, frees every page and negotiates everything anew: nothing is
    /// remembered, since the backend may be another. Counters go on.
    ///
    /// # Errors
    /// [`Reconnect`] carries what is needed for another attempt.
    pub fn reconnect(self) -> Result<Self, Box<Reconnect>> {
        self.disconnect().retry()
    }

    /// Ends the connection but keeps what is needed to make it again. After a restore of the domain there
    /// is no goodbye, and the event channels are parked, not closed.
    pub fn disconnect(self) -> Reconnect {
        let Self {
            domain,
            builder,
            mut queues,
            control,
            stats,
            ..
        } = self;
        queues.stop();
        let mut error = None;
        let mut held = control.stop();
        if let Some(Held { connection, .. }) = &mut held {
            // Whoever interrupts the handshake still wants a goodbye.
            connection.interrupt_by(Arc::default());
            if let Err(failed) = connection.close(builder.deadline) {
                tracing::debug!("closing: {failed}");
                error = Some(failed);
            }
        }
        // Freed only now: the backend has let go, or had its time. What it still maps the kernel keeps
        // from being used again.
        drop((queues, held));
        stats.first().restores.set(domain.restores());
        Reconnect {
            domain,
            builder,
            stats,
            most: usize::MAX,
            error,
        }
    }

    /// Says goodbye to the backend and frees everything.
    ///
    /// # Errors
    /// If the backend did not follow; everything is freed all the same.
    pub fn close(self) -> Result<(), Error> {
        self.disconnect().error.map_or(Ok(()), Err)
    }
}

/// The control ring, if it is offered and of use. Without one everything goes on, so a failure is only told.
fn open_control_ring(domain: &Domain, builder: &Builder, offer: &Offer) -> Option<ControlRing> {
    if builder.hash.is_some() && !offer.features.ctrl_ring {
        tracing::warn!("the backend has no control ring, so it cannot be asked for hashes");
    }
    let wanted = builder.maps() || builder.hash.is_some();
    if !wanted || !offer.features.ctrl_ring {
        return None;
    }
    let thread = control::thread_name(builder.vif);
    ControlRing::open(domain, offer.backend_id, &thread)
        .inspect_err(|error| tracing::warn!("doing without a control ring: {error}"))
        .ok()
}

/// After a handshake that failed. The backend may have mapped the rings: it lets go of them before they are
/// freed, and whoever interrupts the handshake waits for that.
fn goodbye(mut connection: Connection, queues: &mut Queues, deadline: Duration) {
    queues.stop();
    connection.interrupt_by(Arc::default());
    if let Err(error) = connection.close(deadline) {
        tracing::debug!("closing after a failed handshake: {error}");
    }
}

/// A vif that is not connected now: keeps its configuration and counters.
#[derive(Debug)]
pub struct Reconnect {
    domain: Domain,
    builder: Builder,
    stats: Arc<VifStats>,
    /// Queues of the next connection at most.
    most: usize,
    /// Why the last attempt failed, if it did.
    pub error: Option<Error>,
}

impl Reconnect {
    /// Tries once, within the handshake's deadline.
    ///
    /// # Errors
    /// Itself, for the next attempt, with the reason.
    pub fn retry(self) -> Result<Device, Box<Self>> {
        let builder = Builder {
            queues: self.builder.queues.min(self.most),
            ..self.builder.clone()
        };
        let attempt = Connection::open(&self.domain, self.builder.vif).and_then(|connection| {
            let stats = Arc::clone(&self.stats);
            Device::establish(&self.domain, &builder, connection, stats)
        });
        match attempt {
            Ok(mut device) => {
                // What was lacking may be there when this connection ends.
                device.builder.queues = self.builder.queues;
                Ok(device)
            }
            Err(error) => Err(Box::new(Self {
                error: Some(error),
                ..self
            })),
        }
    }

    /// The store, for who waits for a reason to try again.
    pub(crate) fn look(&self) -> Result<Connection, Error> {
        Connection::open(&self.domain, self.builder.vif)
    }

    /// Asks for so many queues at most from now on.
    pub(crate) fn at_most(&mut self, queues: usize) {
        self.builder.queues = self.builder.queues.min(queues.max(1));
    }

    /// Asks for so many queues at most for the next connection, and again for all for the one after it.
    pub(crate) fn next_at_most(&mut self, queues: usize) {
        self.most = queues.max(1);
    }

    /// The counters of the first queue, which go on with the next connection, as all do.
    pub fn stats(&self) -> &Arc<QueueStats> {
        self.stats.first()
    }
}
