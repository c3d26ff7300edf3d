//! A connected vif: its queue, its link, and the control thread that watches the store.
//!
//! The thread that calls [`Builder::connect`] owns the queue. A control thread behind it watches the
//! backend's state, carrier and MTU, grants more pages when the pool runs low, and wakes the owner when
//! something changed.

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::Arc;
use std::thread::{Builder as ThreadBuilder, JoinHandle};
use std::time::Duration;

use arrayvec::ArrayVec;
use hypervisor::{Access, DomId, Domain};
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use crate::connection::{Change, Connection, Features, Offer, Wants};
use crate::pool::Growth;
use crate::queue::{Queue, QueueConfig};
use crate::stats::QueueStats;
use crate::waker::Waker;
use crate::Error;

/// How long each step of the handshake may take, unless told otherwise.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// What was negotiated for a vif.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The address of the vif.
    pub mac: [u8; 6],
    /// Bytes of payload in a frame.
    pub mtu: u32,
    /// True if the cable is in and the backend is connected.
    pub carrier: bool,
    /// What the backend offers.
    pub features: Features,
    /// True if both directions have an event channel of their own.
    pub split_event_channels: bool,
    /// True if everything is copied out of shared memory before it is looked at.
    pub untrusted: bool,
}

/// How to connect to a vif.
#[derive(Debug, Clone)]
pub struct Builder {
    vif: u32,
    queue: QueueConfig,
    wants: Wants,
    deadline: Duration,
}

impl Builder {
    /// The vif with this number, with all defaults.
    pub fn new(vif: u32) -> Self {
        Self {
            vif,
            queue: QueueConfig::default(),
            wants: Wants::default(),
            deadline: HANDSHAKE,
        }
    }

    /// How the queue and its pools are made.
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

    /// How long each step of the handshake may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
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
        let connection = Connection::open(domain, self.vif)?;
        Device::establish(domain, self, connection, stats)
    }
}

/// A connected vif.
#[derive(Debug)]
pub struct Device {
    domain: Domain,
    builder: Builder,
    queue: Queue,
    link: Link,
    control: Control,
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
        stats: Arc<QueueStats>,
    ) -> Result<Self, Error> {
        let offer = connection.prepare(builder.deadline)?;
        let split = offer.features.split_event_channels && builder.queue.split_event_channels;
        let config = QueueConfig {
            untrusted: builder.queue.untrusted || !offer.trusted,
            ..builder.queue.clone()
        };
        let config = fit_to_grant_limit(domain, config);
        let wants = Wants {
            // A chain of slots is what a packet larger than a page needs; so are large segments.
            gso: builder.wants.gso && builder.wants.sg,
            ..builder.wants
        };
        let mut queue = Queue::open(domain, offer.backend_id, &config, split, stats)?;
        connection.publish(&queue.keys(), &offer.features, &wants)?;
        if let Err(error) = connection.wait_connected(builder.deadline) {
            // The backend may have mapped the rings: it lets go of them before they are freed.
            queue.stop();
            if let Err(second) = connection.close(builder.deadline) {
                tracing::debug!("closing after a failed handshake: {second}");
            }
            return Err(error);
        }
        queue.kick()?;
        // A cable that is out, or an MTU that changed since the offer was read, will not be told again.
        let (carrier, mtu) = connection.link();
        let link = Link {
            mac: offer.mac,
            mtu,
            carrier,
            features: offer.features,
            split_event_channels: split,
            untrusted: config.untrusted,
        };
        tracing::info!(
            backend = %offer.backend_id,
            mtu,
            split,
            untrusted = config.untrusted,
            "vif {} is connected", builder.vif
        );
        let control = Control::start(domain, &offer, builder.vif, connection, &queue)?;
        Ok(Self {
            domain: domain.clone(),
            builder: builder.clone(),
            queue,
            link,
            control,
        })
    }

    /// The queue. Only the thread that connected may use it.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queue
    }

    /// What was negotiated.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The next thing that changed, if anything did since the last call.
    pub fn change(&mut self) -> Option<Change> {
        let change = self.control.changes.try_recv().ok()?;
        match change {
            Change::BackendLeft(_) => self.link.carrier = false,
            Change::Carrier(carrier) => self.link.carrier = carrier,
            Change::Mtu(mtu) => self.link.mtu = mtu,
        }
        Some(change)
    }

    /// Closes what is left of the connection, frees every page and negotiates everything anew: nothing is
    /// remembered, since the backend may be another. Counters go on.
    ///
    /// # Errors
    /// [`Reconnect`] carries what is needed for another attempt.
    pub fn reconnect(self) -> Result<Self, Box<Reconnect>> {
        self.disconnect().retry()
    }

    /// Ends the connection but keeps what is needed to make it again.
    pub fn disconnect(self) -> Reconnect {
        let Self {
            domain,
            builder,
            mut queue,
            control,
            ..
        } = self;
        let stats = Arc::clone(queue.stats());
        queue.stop();
        let mut error = None;
        if let Some(mut connection) = control.stop() {
            if let Err(failed) = connection.close(builder.deadline) {
                tracing::debug!("closing: {failed}");
                error = Some(failed);
            }
        }
        // Freed only now: the backend has let go, or had its time. What it still maps the kernel keeps
        // from being used again.
        drop(queue);
        Reconnect {
            domain,
            builder,
            stats,
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

/// A vif that is not connected now: keeps its configuration and counters.
#[derive(Debug)]
pub struct Reconnect {
    domain: Domain,
    builder: Builder,
    stats: Arc<QueueStats>,
    /// Why the last attempt failed, if it did.
    pub error: Option<Error>,
}

impl Reconnect {
    /// Tries once, within the handshake's deadline.
    ///
    /// # Errors
    /// Itself, for the next attempt, with the reason.
    pub fn retry(self) -> Result<Device, Box<Self>> {
        let attempt = Connection::open(&self.domain, self.builder.vif).and_then(|connection| {
            Device::establish(
                &self.domain,
                &self.builder,
                connection,
                Arc::clone(&self.stats),
            )
        });
        attempt.map_err(|error| {
            Box::new(Self {
                error: Some(error),
                ..self
            })
        })
    }

    /// The same with another deadline for each step.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.builder.deadline = deadline;
        self
    }

    /// The counters, which go on with the next connection.
    pub fn stats(&self) -> &Arc<QueueStats> {
        &self.stats
    }
}

/// gntalloc's limit holds for all processes together. A pool that cannot be had whole is made smaller, not
/// refused: the ring needs pages more than the pool needs spare ones.
fn fit_to_grant_limit(domain: &Domain, mut config: QueueConfig) -> QueueConfig {
    const RINGS: usize = 2;
    if let Ok(Some(limit)) = domain.grant_limit() {
        let room = limit.saturating_sub(RINGS);
        if config.rx_pages + config.tx_pages > room {
            config.tx_pages = config.tx_pages.min(room / 3).max(32);
            config.rx_pages = config
                .rx_pages
                .min(room.saturating_sub(config.tx_pages))
                .max(32);
            tracing::warn!(
                limit,
                rx_pages = config.rx_pages,
                tx_pages = config.tx_pages,
                "the limit of shared pages is below what was asked for: smaller pools; raise \
                 /sys/module/xen_gntalloc/parameters/limit"
            );
        }
        config.rx_limit = config
            .rx_limit
            .min(room.saturating_sub(config.tx_pages))
            .max(config.rx_pages);
    }
    config
}

/// The thread that watches the store.
#[derive(Debug)]
struct Control {
    thread: Option<JoinHandle<Connection>>,
    changes: Receiver<Change>,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

/// What the control thread works with.
struct ControlLoop {
    domain: Domain,
    peer: DomId,
    connection: Connection,
    growth: Arc<Growth>,
    queue: Arc<Waker>,
    changes: Sender<Change>,
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Control {
    fn start(
        domain: &Domain,
        offer: &Offer,
        vif: u32,
        connection: Connection,
        queue: &Queue,
    ) -> Result<Self, Error> {
        let (sender, changes) = mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let waker = Arc::new(Waker::new()?);
        let growth = queue.growth();
        growth.attend(Arc::clone(&waker));
        let work = ControlLoop {
            domain: domain.clone(),
            peer: offer.backend_id,
            connection,
            growth,
            queue: queue.waker(),
            changes: sender,
            stop: Arc::clone(&stop),
            waker: Arc::clone(&waker),
        };
        let thread = ThreadBuilder::new()
            .name(format!("nf{vif}control"))
            .spawn(move || work.run())
            .map_err(Error::io("starting the control thread"))?;
        Ok(Self {
            thread: Some(thread),
            changes,
            stop,
            waker,
        })
    }

    /// Ends the thread and gives the connection back. `None` if the thread has died.
    fn stop(mut self) -> Option<Connection> {
        self.end().and_then(|thread| thread.join().ok())
    }

    fn end(&mut self) -> Option<JoinHandle<Connection>> {
        self.stop.store(true, Ordering::Release);
        self.waker.wake();
        self.thread.take()
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        // A device that is dropped and not closed must not leave a thread behind.
        if let Some(thread) = self.end() {
            let _ = thread.join();
        }
    }
}

impl ControlLoop {
    /// How often the keys are read although no watch fired: an event can be lost.
    const REREAD: Duration = Duration::from_secs(2);

    fn run(mut self) -> Connection {
        let mut left = false;
        let mut said = false;
        while !self.stop.load(Ordering::Acquire) {
            self.growth
                .serve(&self.domain, self.peer, Access::ReadWrite);
            // A store that has failed is asked again later; its descriptor may be ready for ever.
            let mut listens = !left;
            if !left {
                match self.connection.next_change(Duration::ZERO) {
                    Ok(Some(change)) => {
                        left = matches!(change, Change::BackendLeft(_));
                        let _ = self.changes.send(change);
                        self.queue.wake();
                        continue;
                    }
                    Ok(None) => said = false,
                    Err(error) => {
                        listens = false;
                        if !std::mem::replace(&mut said, true) {
                            tracing::warn!("the store cannot be read, trying on: {error}");
                        }
                    }
                }
            }
            let mut fds = ArrayVec::<PollFd<'_>, 2>::new();
            fds.push(PollFd::from_borrowed_fd(self.waker.as_fd(), PollFlags::IN));
            if listens {
                let store = self.connection.event_fd();
                fds.push(PollFd::from_borrowed_fd(store, PollFlags::IN));
            }
            let timeout = Timespec::try_from(Self::REREAD).ok();
            let _ = poll(&mut fds, timeout.as_ref());
            drop(fds);
            self.waker.clear();
        }
        self.connection
    }
}
