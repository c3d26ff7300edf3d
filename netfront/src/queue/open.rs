//! Queues from nothing: rings, pools, event channels.
//!
//! All queues of a vif are opened together, since they share what the limit of shared pages leaves: their pools are
//! filled in turns, batch by batch, so that none finds the limit used up by another. If it is not enough for all of
//! them, there are fewer queues rather than many with rings that are half empty.

use std::sync::Arc;

use hypervisor::{Access, DomId, Domain, EventChannels, SharedPages};

use super::rx::{RxConfig, RxQueue};
use super::tx::TxQueue;
use super::{Ports, Queue, QueueConfig};
use crate::pool::{Pool, PoolConfig, PoolPolicy};
use crate::stats::QueueStats;
use crate::waker::Waker;
use crate::Error;

/// Pages for receiving that a further queue is worth having for: a full ring.
const RX_LEAST: usize = 256;
/// Pages for sending: three packets of the largest size, and some.
const TX_LEAST: usize = 64;

/// A further queue of a vif, as it is wanted.
pub(crate) struct Named {
    /// The name of the thread that will own it, and of its interrupt.
    pub thread: String,
    pub stats: Arc<QueueStats>,
}

/// What a queue takes of the limit of shared pages.
struct Parts {
    rings: [SharedPages; 2],
    rx: Pool,
    tx: Pool,
}

impl Parts {
    /// The rings, and the first batch of each pool.
    fn begin(domain: &Domain, peer: DomId, config: &QueueConfig) -> Result<Self, Error> {
        let tx_ring = domain.share(peer, 1, Access::ReadWrite)?;
        let rx_ring = domain.share(peer, 1, Access::ReadWrite)?;
        // A backend learns of our death by the byte and the event that the kernel leaves behind; netif
        // reserves no byte for it, so only the channel's end tells it.
        let tx = PoolConfig {
            capacity: config.tx_pages,
            limit: config.tx_pages,
            // The backend only reads what we send: it could not write to these pages if it wanted.
            access: Access::ReadOnly,
            policy: match config.policy {
                PoolPolicy::PerPacket | PoolPolicy::NoRecycle => config.policy,
                PoolPolicy::Pool | PoolPolicy::CopyAlways => PoolPolicy::Pool,
            },
            scrub: false,
        };
        let rx = PoolConfig {
            capacity: config.rx_pages,
            limit: config.rx_limit,
            access: Access::ReadWrite,
            policy: config.policy,
            scrub: config.scrub,
        };
        Ok(Self {
            rings: [tx_ring, rx_ring],
            rx: Pool::begin(domain, peer, rx)?,
            tx: Pool::begin(domain, peer, tx)?,
        })
    }

    /// Grants some batches more. False if the pools are full, or nothing more can be had.
    fn extend(&mut self) -> bool {
        // Two to one, as the defaults are: a packet that cannot be received is lost, one that cannot
        // be sent waits.
        let grown = [self.rx.extend(), self.rx.extend(), self.tx.extend()];
        grown.contains(&true)
    }

    fn is_enough(&self) -> bool {
        self.rx.has_at_least(RX_LEAST) && self.tx.has_at_least(TX_LEAST)
    }

    /// Binds the channels, and posts the first pages.
    fn finish(
        mut self,
        peer: DomId,
        config: &QueueConfig,
        split: bool,
        (mut events, interrupt): (EventChannels, String),
        stats: Arc<QueueStats>,
    ) -> Result<Queue, Error> {
        self.rx.settle();
        self.tx.settle();
        let tx = TxQueue::new(self.rings[0].page(0), self.tx);
        let rx = RxQueue::new(
            self.rings[1].page(0),
            self.rx,
            RxConfig {
                threshold: config.threshold,
                untrusted: config.untrusted,
                policy: config.policy,
            },
        );
        let ports = if split {
            Ports::Split {
                rx: events.bind_unbound(peer)?,
                tx: events.bind_unbound(peer)?,
            }
        } else {
            Ports::Shared(events.bind_unbound(peer)?)
        };
        let mut queue = Queue {
            rx,
            tx,
            rings: self.rings,
            events,
            ports,
            masked: Vec::with_capacity(2),
            waker: Arc::new(Waker::new()?),
            called: false,
            interrupt,
            stats,
            watch: Arc::default(),
            tx_answered: 0,
            answered_at_event: 0,
            spurious: 0,
            counted: [0; 3],
        };
        // Posted before the backend looks: its first packets find their pages.
        queue.rx.refill(&queue.stats);
        // Nobody is there yet to be notified.
        queue.rx.publish();
        queue.export();
        Ok(queue)
    }
}

impl Queue {
    /// Grants the rings and the pools to `peer` and binds the event channels.
    ///
    /// The calling thread becomes the owner. On Xen the interrupt carries its name, so that an
    /// administrator finds it in /proc/interrupts.
    ///
    /// # Errors
    /// When a page cannot be granted or a channel cannot be bound.
    pub fn open(
        domain: &Domain,
        peer: DomId,
        config: &QueueConfig,
        split: bool,
        stats: Arc<QueueStats>,
    ) -> Result<Self, Error> {
        let queues = open_queues(domain, peer, config, split, stats, Vec::new())?;
        Ok(queues.0)
    }
}

/// Opens the calling thread's queue, and as many of the others as the limit of shared pages is enough for.
///
/// # Errors
/// When a page of the first queue cannot be granted, or a channel cannot be bound.
pub(crate) fn open_queues(
    domain: &Domain,
    peer: DomId,
    config: &QueueConfig,
    split: bool,
    stats: Arc<QueueStats>,
    others: Vec<Named>,
) -> Result<(Queue, Vec<Queue>), Error> {
    let events = (domain.events()?, own_name());
    let mut first = Parts::begin(domain, peer, config)?;
    let mut more = Vec::with_capacity(others.len());
    for _ in &others {
        match Parts::begin(domain, peer, config) {
            Ok(parts) => more.push(parts),
            Err(Error::Hypervisor(hypervisor::Error::GrantLimit { .. })) => break,
            Err(error) => return Err(error),
        }
    }
    fill(&mut first, &mut more);
    while !more.is_empty() && !std::iter::once(&first).chain(&more).all(Parts::is_enough) {
        // Its pages are freed, for those that are left.
        drop(more.pop());
        for parts in std::iter::once(&mut first).chain(&mut more) {
            parts.rx.ask_again();
            parts.tx.ask_again();
        }
        fill(&mut first, &mut more);
    }
    let (wanted, found) = (others.len() + 1, more.len() + 1);
    if found < wanted {
        tracing::warn!(
            "{found} of {wanted} queues: the limit of shared pages is not enough for more; raise \
             /sys/module/xen_gntalloc/parameters/limit"
        );
    }
    // Said only now: as long as queues are given up for one another, a refusal is not the last word.
    let (granted, pages) = std::iter::once(&first)
        .chain(&more)
        .flat_map(|parts| [parts.rx.start(), parts.tx.start()])
        .fold((0, 0), |sum, pool| (sum.0 + pool.0, sum.1 + pool.1));
    if granted < pages {
        tracing::warn!(
            granted,
            wanted = pages,
            "pools start smaller, since no more pages can be shared; raise \
             /sys/module/xen_gntalloc/parameters/limit if it is that limit"
        );
    }
    let queue = first.finish(peer, config, split, events, stats)?;
    let mut queues = Vec::with_capacity(more.len());
    for (parts, named) in more.into_iter().zip(others) {
        let events = (events_of(domain, &named.thread)?, named.thread);
        queues.push(parts.finish(peer, config, split, events, named.stats)?);
    }
    Ok((queue, queues))
}

/// Grants what the pools start with, in turns.
fn fill(first: &mut Parts, more: &mut [Parts]) {
    loop {
        let mut grown = first.extend();
        for parts in &mut *more {
            grown |= parts.extend();
        }
        if !grown {
            break;
        }
    }
}

/// The name of the calling thread, as the kernel knows it; empty for one that is no text.
fn own_name() -> String {
    let name = rustix::thread::name().ok();
    let name = name.and_then(|name| name.into_string().ok());
    name.unwrap_or_default()
}

/// A handle for event channels that another thread will use: Linux names an interrupt after the thread that opened its
/// handle, so a thread of that name does.
///
/// # Errors
/// When there is no thread to be had, or no handle.
pub(crate) fn events_of(domain: &Domain, thread: &str) -> Result<EventChannels, Error> {
    std::thread::scope(|scope| {
        let opening = std::thread::Builder::new()
            .name(thread.to_owned())
            .spawn_scoped(scope, || domain.events())
            .map_err(Error::io("starting a thread"))?;
        let gone = || Error::io("opening event channels")(std::io::Error::other("it died"));
        Ok(opening.join().map_err(|_| gone())??)
    })
}

#[cfg(test)]
mod tests {
    use hypervisor::sim::server::{self, Options};

    use super::*;

    /// How many queues of `wanted` there are, and the pages of each one's pools, where so many pages may be shared.
    fn opened(limit: usize, wanted: usize, config: &QueueConfig) -> Vec<[usize; 2]> {
        let dir = tempfile::tempdir().expect("a directory");
        let socket = dir.path().join("xen");
        let options = Options::new().grant_limit(limit);
        let _server = server::spawn(&socket, options).expect("a server");
        let domain = Domain::simulated(&socket, DomId(1)).expect("a domain");
        let others = (1..wanted).map(|number| Named {
            thread: format!("nf0q{number}"),
            stats: Arc::default(),
        });
        let (mut first, mut more) = open_queues(
            &domain,
            DomId(0),
            config,
            true,
            Arc::default(),
            others.collect(),
        )
        .expect("queues");
        std::iter::once(&mut first)
            .chain(&mut more)
            .map(|queue| queue.pools().map(|pool| pool.census().granted))
            .collect()
    }

    #[test]
    fn where_there_is_room_each_queue_has_all_its_pages() {
        let config = QueueConfig::default();
        assert_eq!(opened(4096, 4, &config), [[512, 256]; 4]);
    }

    #[test]
    fn too_few_pages_for_all_are_divided_fairly_as_long_as_each_ring_can_be_full() {
        let pools = opened(1024, 2, &QueueConfig::default());
        assert_eq!(pools.len(), 2);
        for [rx, tx] in pools {
            assert!(
                (256..512).contains(&rx) && (64..256).contains(&tx),
                "{rx} {tx}"
            );
        }
    }

    #[test]
    fn too_few_pages_for_full_rings_make_fewer_queues_and_the_rest_has_what_the_others_gave_up() {
        let config = QueueConfig::default();
        assert_eq!(opened(1024, 4, &config).len(), 2);
        assert_eq!(opened(772, 4, &config), [[512, 256]]);
        // Not even one whole ring: the first queue works with what there is.
        assert_eq!(opened(200, 4, &config).len(), 1);
    }

    #[test]
    fn a_queue_that_is_made_small_is_enough_as_it_is() {
        let config = QueueConfig {
            rx_pages: 32,
            rx_limit: 32,
            tx_pages: 32,
            ..QueueConfig::default()
        };
        assert_eq!(opened(4 * 66, 4, &config), [[32, 32]; 4]);
    }
}
