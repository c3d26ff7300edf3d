//! Queues from nothing: rings, pools, event channels.
//!
//! All processes of a guest share one limit of shared pages, and nobody can ask what is left of it. So the law is one that
//! an administrator can predict: the first queue takes what it shall start with, or what there is; a further one is
//! opened only if it gets all of its pages, and as long as [`OTHER_VIF_PAGES`] are left for another vif. These are held
//! while queues are opened, which is the only way to see that they are there.
//!
//! Whatever else keeps a further queue from being opened makes fewer queues too, not a vif that does not connect.

use std::sync::Arc;

use hypervisor::{Access, DomId, Domain, EventChannels, SharedPages};

use super::config::OTHER_VIF_PAGES;
use super::rx::{RxConfig, RxQueue};
use super::shortage::Found;
use super::tx::TxQueue;
use super::{Ports, Queue, QueueConfig};
use crate::pool::{Pool, PoolConfig, PoolPolicy};
use crate::stats::QueueStats;
use crate::waker::Waker;
use crate::Error;

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

    /// Grants what the pools shall start with, or as much of it as there is.
    fn fill(&mut self) {
        // Two to one, as the defaults are: a packet that cannot be received is lost, one that cannot
        // be sent waits.
        while [self.rx.extend(), self.rx.extend(), self.tx.extend()].contains(&true) {}
    }

    /// Pages that the pools have, and that they shall start with.
    fn pages(&self) -> [usize; 2] {
        let ((rx, all_rx), (tx, all_tx)) = (self.rx.start(), self.tx.start());
        [rx + tx, all_rx + all_tx]
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
            counted: [0; 4],
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

/// Opens the calling thread's queue, and as many of the others as can be had.
///
/// # Errors
/// When a page of the first queue cannot be granted, a channel of it cannot be bound, or the domain was restored meanwhile.
pub(crate) fn open_queues(
    domain: &Domain,
    peer: DomId,
    config: &QueueConfig,
    split: bool,
    stats: Arc<QueueStats>,
    others: Vec<Named>,
) -> Result<(Queue, Vec<Queue>), Error> {
    let wanted = others.len() + 1;
    let events = (domain.events()?, own_name());
    let mut first = Parts::begin(domain, peer, config)?;
    first.fill();
    let pages = first.pages();
    let first = first.finish(peer, config, split, events, stats)?;
    let (more, shortage) = match others.is_empty() {
        true => (Vec::new(), None),
        // Its rings would be taken from the pages that the first has too few of.
        false if pages[0] < pages[1] => (Vec::new(), Some(Shortage::Pages)),
        false => match leave_room(domain, peer)? {
            None => (Vec::new(), Some(Shortage::Pages)),
            Some(_room) => as_many_as_can_be(others, |named| {
                let events = (events_of(domain, &named.thread)?, named.thread);
                let mut parts = Parts::begin(domain, peer, config)?;
                parts.fill();
                let [granted, all] = parts.pages();
                match granted < all {
                    true => Ok(None),
                    false => parts
                        .finish(peer, config, split, events, named.stats)
                        .map(Some),
                }
            })?,
        },
    };
    let found = Found {
        queues: [1 + more.len(), wanted],
        pages,
        all: config.pages_at_start() * wanted,
        limit: domain.grant_limit().ok().flatten(),
        simulated: domain.is_simulated(),
    };
    match &shortage {
        Some(Shortage::Failure(error)) => tracing::warn!(
            "{} of {wanted} queues: no further one can be opened: {error}",
            found.queues[0]
        ),
        Some(Shortage::Pages) => tracing::warn!("{found}"),
        None if pages[0] < pages[1] => tracing::warn!("{found}"),
        None => {}
    }
    Ok((first, more))
}

/// Pages for another vif, until they are dropped; `None` if there are not so many.
fn leave_room(domain: &Domain, peer: DomId) -> Result<Option<SharedPages>, Error> {
    match domain.share(peer, OTHER_VIF_PAGES, Access::ReadOnly) {
        Ok(room) => Ok(Some(room)),
        Err(hypervisor::Error::GrantLimit { .. }) => Ok(None),
        Err(error) => {
            let error = Error::from(error);
            match error.is_restore() {
                true => Err(error),
                false => {
                    tracing::debug!("no room for another vif: {error}");
                    Ok(None)
                }
            }
        }
    }
}

/// Why there are fewer queues than were wanted.
#[derive(Debug)]
enum Shortage {
    /// The limit of shared pages.
    Pages,
    Failure(Error),
}

/// Opens one after the other, up to the first that cannot be had: `None` if there are not enough pages for it.
///
/// # Errors
/// When the domain was restored: then nothing of what was opened is of use.
fn as_many_as_can_be<Q>(
    others: Vec<Named>,
    mut open: impl FnMut(Named) -> Result<Option<Q>, Error>,
) -> Result<(Vec<Q>, Option<Shortage>), Error> {
    let mut queues = Vec::with_capacity(others.len());
    for named in others {
        match open(named) {
            Ok(Some(queue)) => queues.push(queue),
            Ok(None) | Err(Error::Hypervisor(hypervisor::Error::GrantLimit { .. })) => {
                return Ok((queues, Some(Shortage::Pages)))
            }
            Err(error) if error.is_restore() => return Err(error),
            Err(error) => return Ok((queues, Some(Shortage::Failure(error)))),
        }
    }
    Ok((queues, None))
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

    /// Two queues, as they are by default, and what is left for another vif.
    const TWO: usize = 2 * 770 + OTHER_VIF_PAGES;

    #[test]
    fn a_further_queue_has_all_its_pages_and_leaves_room_for_another_vif_or_is_not_there() {
        let config = QueueConfig::default();
        for (limit, queues) in [(1024, 1), (TWO - 1, 1), (TWO, 2), (TWO + 769, 2), (4096, 4)] {
            assert_eq!(
                opened(limit, 4, &config),
                vec![[512, 256]; queues],
                "{limit}"
            );
        }
    }

    #[test]
    fn the_first_queue_takes_what_there_is_and_works_with_it() {
        let config = QueueConfig::default();
        assert_eq!(opened(770, 4, &config), [[512, 256]]);
        let pools = opened(400, 1, &config);
        assert_eq!(pools, opened(400, 4, &config), "no page goes to another");
        let [rx, tx] = pools[0];
        assert!(
            rx + tx > 400 - 2 * crate::pool::BATCH && rx > tx,
            "{rx} {tx}"
        );
    }

    #[test]
    fn what_the_queues_leave_is_enough_for_another_vif_to_start() {
        for wanted in [2, 4, 8] {
            let dir = tempfile::tempdir().expect("a directory");
            let socket = dir.path().join("xen");
            let options = Options::new().grant_limit(2048);
            let _server = server::spawn(&socket, options).expect("a server");
            let domain = Domain::simulated(&socket, DomId(1)).expect("a domain");
            let config = QueueConfig::default();
            let others = |wanted| {
                let named = |number| Named {
                    thread: format!("nf0q{number}"),
                    stats: Arc::default(),
                };
                (1..wanted).map(named).collect::<Vec<_>>()
            };
            let open = |wanted| {
                let stats = Arc::default();
                open_queues(&domain, DomId(0), &config, true, stats, others(wanted))
            };
            let first = open(wanted).expect("queues");
            assert_eq!(first.1.len(), 1);
            let (mut second, none) = open(wanted).expect("a queue of another vif");
            let [rx, tx] = second.pools().map(|pool| pool.census().granted);
            assert!(none.is_empty() && rx >= 256 && tx >= 64, "{rx} {tx}");
        }
    }

    #[test]
    fn a_queue_that_is_made_small_is_enough_as_it_is() {
        let config = QueueConfig {
            rx_pages: 32,
            rx_limit: 32,
            tx_pages: 32,
            ..QueueConfig::default()
        };
        let limit = 4 * 66 + OTHER_VIF_PAGES;
        assert_eq!(opened(limit, 4, &config), [[32, 32]; 4]);
    }

    #[test]
    fn whatever_keeps_a_further_queue_from_being_opened_makes_fewer_but_a_restore_ends_it_all() {
        let opened = |failure: fn() -> Error| {
            let named = |number| Named {
                thread: format!("nf0q{number}"),
                stats: Arc::default(),
            };
            let mut opened = 0;
            as_many_as_can_be((1..5).map(named).collect(), |named| {
                opened += 1;
                match opened {
                    3 => Err(failure()),
                    _ => Ok(Some(named.thread)),
                }
            })
        };
        let no_descriptor = || Error::io("opening")(rustix::io::Errno::MFILE.into());
        let (queues, shortage) = opened(no_descriptor).expect("fewer queues");
        assert_eq!(queues, ["nf0q1", "nf0q2"]);
        assert!(matches!(shortage, Some(Shortage::Failure(_))));
        let restored = || hypervisor::Error::Restored.into();
        assert!(opened(restored).is_err_and(|error| error.is_restore()));
    }
}
