//! The data path of one connected vif: its rings, its event channels, and one thread's round over
//! them.
//!
//! A round takes a batch of frames from each queue's transmit ring ([`fetch`]) and puts a batch
//! from the peer into the receive rings ([`deliver`]). Each is one copy call at most, one publish and at
//! most one notification; nothing is allocated a packet, and no lock is taken. Pages that the guest has
//! announced ([`control`]) are mapped already and need no call ([`memory`], [`mappings`]).
//!
//! Invariants: every request that is popped is answered exactly once; what the guest can change is
//! looked at only after it was copied; a guest that breaks the protocol yields a [`Fault`], which
//! takes the vif down with its reason, and one that is merely gone yields counted failures.

mod control;
mod deliver;
mod fetch;
mod hash;
mod mappings;
mod memory;
mod stall;

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use hypervisor::{Access, Domain, EventChannels, Port};
use xen_ring::{BackRing, Control, Corrupt, Notify, Rx, Tx};

use crate::counters::Counters;
use crate::features::{Features, FrontFeatures};
use crate::frame::FrameBurst;
use crate::keys::{Channels, FrontKeys, Paths};
use crate::peer::Peer;
use crate::reach::Reach;

pub(crate) use deliver::Deliver;
pub(crate) use fetch::Fetch;
use hash::Hashing;
use memory::Memory;
use stall::StallWatch;

/// Multicast addresses that a guest may ask for (`XEN_NETBK_MCAST_MAX`).
const MULTICAST_MAX: usize = 64;

/// The guest broke the protocol: the vif goes down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// In a ring.
    #[error(transparent)]
    Ring(#[from] Corrupt),
    /// A ring's responses did not fit: more answers than questions, which is an error of ours.
    #[error("the {0} ring has no room for a response; this is an error of the backend")]
    NoRoom(&'static str),
}

impl From<xen_ring::Full> for Fault {
    fn from(full: xen_ring::Full) -> Self {
        Fault::NoRoom(full.ring)
    }
}

/// One queue: a ring for each direction, and who is to be rung for which.
struct Queue {
    tx: BackRing<Tx>,
    rx: BackRing<Rx>,
    tx_port: Port,
    rx_port: Port,
    /// Posted pages that the next frame waits for; 0 when none waits.
    wanted: u32,
    watch: StallWatch,
}

/// Multicast frames that the guest wants.
#[derive(Debug, Default)]
struct Multicast {
    filtering: bool,
    wanted: ArrayVec<[u8; 6], MULTICAST_MAX>,
}

/// A connected vif. Dropping it unmaps the rings and closes the event channels.
pub(crate) struct Vif {
    queues: Vec<Queue>,
    control: Option<(BackRing<Control>, Port)>,
    memory: Memory,
    /// The guest has been shown state Connected.
    connected: bool,
    events: EventChannels,
    pending: Vec<Port>,
    front: FrontFeatures,
    offered: Features,
    multicast: Multicast,
    hashing: Hashing,
    counters: Arc<Counters>,
    /// Since when frames wait for posted pages.
    blocked: Option<Instant>,
    /// How long a queue may be without pages for a frame; zero: for ever.
    stall_timeout: Duration,
    /// Said once: from now on copies fail or nobody hears the bell.
    said_gone: bool,
}

/// The buffers of the data path. They outlive a connection, so that frames that wait for the guest
/// are not lost with it.
pub(crate) struct Buffers {
    pub(crate) fetch: Fetch,
    pub(crate) deliver: Deliver,
    pub(crate) burst: FrameBurst,
}

impl Buffers {
    pub(crate) fn new(stagger: bool) -> Result<Self, hypervisor::Error> {
        Ok(Buffers {
            fetch: Fetch::new()?,
            deliver: Deliver::new(stagger),
            burst: FrameBurst::new()?,
        })
    }
}

impl Vif {
    /// Maps the rings and binds the channels that the frontend has named.
    pub(crate) fn connect(
        domain: &Domain,
        paths: &Paths,
        keys: &FrontKeys,
        offered: Features,
        reach: Reach,
        stall_timeout: Duration,
        counters: Arc<Counters>,
    ) -> Result<Vif, hypervisor::Error> {
        let remote = paths.front_domain();
        let mut foreign = domain.foreign(remote)?;
        let mut events = domain.events()?;
        let mut queues = Vec::with_capacity(keys.queues.len());
        for queue in &keys.queues {
            let pages = foreign.map(&[queue.tx, queue.rx], Access::ReadWrite)?;
            let (tx_port, rx_port) = match queue.channels {
                Channels::Single(port) => {
                    let port = events.bind_interdomain(remote, port)?;
                    (port, port)
                }
                Channels::Split { tx, rx } => (
                    events.bind_interdomain(remote, tx)?,
                    events.bind_interdomain(remote, rx)?,
                ),
            };
            queues.push(Queue {
                tx: BackRing::attach(pages.page(0)),
                rx: BackRing::attach(pages.page(1)),
                tx_port,
                rx_port,
                wanted: 0,
                watch: StallWatch::default(),
            });
        }
        let control = match keys.control {
            Some(control) => {
                let pages = foreign.map(&[control.ring], Access::ReadWrite)?;
                let port = events.bind_interdomain(remote, control.channel)?;
                Some((BackRing::attach(pages.page(0)), port))
            }
            None => None,
        };
        Ok(Vif {
            // Each queue has two ports at most, and the control ring one.
            pending: Vec::with_capacity(2 * queues.len() + 1),
            memory: Memory::new(foreign, queues.len(), reach, Arc::clone(&counters))?,
            connected: false,
            queues,
            control,
            events,
            front: keys.features,
            offered,
            multicast: Multicast {
                filtering: keys.features.multicast_control,
                ..Multicast::default()
            },
            hashing: Hashing::default(),
            counters,
            blocked: None,
            // Who does not say when it has posted pages is not watched: netback could not tell it from one that is slow.
            stall_timeout: match keys.features.rx_notify {
                true => stall_timeout,
                false => Duration::ZERO,
            },
            said_gone: false,
        })
    }

    /// One batch in each direction. True when something was done.
    pub(crate) fn round(
        &mut self,
        peer: &mut dyn Peer,
        buffers: &mut Buffers,
    ) -> Result<bool, Fault> {
        let mut worked = self.deliver(buffers)?;
        for index in 0..self.queues.len() {
            if peer.replies() && !buffers.burst.is_empty() {
                break;
            }
            worked |= self.fetch(index, peer, buffers)?;
        }
        if buffers.burst.is_empty() {
            peer.transmit(&mut buffers.burst);
        }
        worked |= self.deliver(buffers)?;
        if self.control.is_some() {
            worked |= self.serve_control()?;
        }
        Ok(worked)
    }

    /// Reads which channels rang, and lets them ring again.
    pub(crate) fn take_events(&mut self) {
        self.pending.clear();
        if let Err(error) = self.events.pending(&mut self.pending) {
            self.say_gone(&format!("reading events failed: {error}"));
        }
        self.counters.events.add(self.pending.len() as u64);
        for port in &self.pending {
            // Before the rings are looked at: an event that comes later must be told.
            if let Err(error) = self.events.unmask(*port) {
                tracing::debug!(%port, %error, "unmasking failed");
            }
        }
    }

    /// Asks to be woken for whatever can be worked on next. True: something is there already.
    pub(crate) fn arm(&mut self, peer: &dyn Peer, burst: &FrameBurst) -> Result<bool, Fault> {
        let mut ready = false;
        let taking = burst.is_empty() || !peer.replies();
        for queue in &mut self.queues {
            if taking {
                ready |= queue.tx.final_check(1)?;
            }
            if queue.wanted > 0 {
                let _ = queue.rx.final_check(queue.wanted)?;
                ready |= queue.rx.unconsumed()? >= queue.wanted;
            }
        }
        if let Some((ring, _)) = &mut self.control {
            ready |= ring.final_check(1)?;
        }
        Ok(ready)
    }

    /// What to poll to be woken.
    pub(crate) fn events(&self) -> &EventChannels {
        &self.events
    }

    /// What the frontend can take.
    pub(crate) fn front(&self) -> &FrontFeatures {
        &self.front
    }

    /// The guest sees state Connected from now on.
    pub(crate) fn shown_connected(&mut self) {
        self.connected = true;
    }

    /// The frontend switched its wish to filter multicast frames.
    pub(crate) fn filter_multicast(&mut self, on: bool) {
        self.multicast.filtering = on;
    }

    fn ring(&mut self, port: Port, notify: Notify) {
        if notify == Notify::NotNeeded {
            self.counters.notifications_saved.add(1);
            return;
        }
        match self.events.notify(port) {
            Ok(()) => self.counters.notifications.add(1),
            Err(error) => {
                self.counters.notifications_failed.add(1);
                self.say_gone(&format!("notifying through port {port} failed: {error}"));
            }
        }
    }

    /// A frontend that died cannot be told from one that is slow until the next one comes and
    /// closes the vif. So this is said once, and the vif stays.
    #[cold]
    fn say_gone(&mut self, what: &str) {
        if !self.said_gone {
            self.said_gone = true;
            tracing::warn!(
                "{what}; the frontend may be dead. The vif waits for the next one to close it"
            );
        }
    }
}
