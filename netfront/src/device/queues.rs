//! The queues of a connected vif: how many there are, and who owns them.

use std::sync::Arc;

use hypervisor::Domain;

use super::{Builder, Device};
use crate::connection::Offer;
use crate::control::Announcement;
use crate::queue::{open_queues, Named, Queue, QueueConfig, QueueKeys};
use crate::stats::VifStats;
use crate::Error;

/// The name of the thread that owns a queue, also of the queue's interrupt.
pub fn thread_name(vif: u32, queue: usize) -> String {
    format!("nf{vif}q{queue}")
}

/// All queues of a connection. The first is always there.
#[derive(Debug)]
pub(super) struct Queues {
    pub first: Queue,
    /// Without those that are with other threads.
    pub others: Vec<Queue>,
}

impl Queues {
    /// As many as are wanted, offered, and possible within the limit of shared pages.
    pub fn open(
        domain: &Domain,
        builder: &Builder,
        offer: &Offer,
        config: &QueueConfig,
        split: bool,
        stats: &Arc<VifStats>,
    ) -> Result<Self, Error> {
        let offered = usize::try_from(offer.features.max_queues).unwrap_or(usize::MAX);
        let wanted = builder.queues.min(offered.max(1));
        if wanted < builder.queues {
            tracing::info!(
                "{wanted} of {} queues: the backend serves no more",
                builder.queues
            );
        }
        let others = (1..wanted).map(|number| Named {
            thread: thread_name(builder.vif, number),
            stats: stats.of(number),
        });
        let first = Arc::clone(stats.first());
        let (first, others) = open_queues(
            domain,
            offer.backend_id,
            config,
            split,
            first,
            others.collect(),
        )?;
        let mut queues = Self { first, others };
        let several = queues.count() > 1;
        for (number, queue) in (0..).zip(queues.all()) {
            queue.watch_by(Arc::clone(&builder.watch));
            if several {
                queue.name_in_traces(number);
            }
        }
        stats.ends_at(queues.count());
        Ok(queues)
    }

    pub fn count(&self) -> usize {
        1 + self.others.len()
    }

    pub fn all(&mut self) -> impl Iterator<Item = &mut Queue> {
        std::iter::once(&mut self.first).chain(&mut self.others)
    }

    fn each(&self) -> impl Iterator<Item = &Queue> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// What to write to the store, in the order of their numbers.
    pub fn keys(&self) -> Vec<QueueKeys> {
        self.each().map(Queue::keys).collect()
    }

    /// What the control thread may tell a backend of their pages.
    pub fn announcements(&self) -> Vec<Announcement> {
        let announcement = |queue: &Queue| Announcement {
            pages: queue.announcement(),
            growth: queue.growth(),
            stats: Arc::clone(queue.stats()),
        };
        self.each().map(announcement).collect()
    }

    /// Has the backend look at all rings.
    pub fn kick(&mut self) -> Result<(), Error> {
        self.all().try_for_each(Queue::kick)
    }

    /// Ends the use of all rings.
    pub fn stop(&mut self) {
        self.all().for_each(Queue::stop);
    }
}

impl Device {
    /// The first queue, of which there is always one. Only the thread that connected may use it.
    pub fn queue(&mut self) -> &mut Queue {
        &mut self.queues.first
    }

    /// All queues, in the order of their numbers, without those that were taken by [`Self::take_queues`].
    ///
    /// A backend that spreads packets over queues expects each of them to be served.
    pub fn queues(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.queues.all()
    }

    /// The queues from the second on, for the threads that shall own them. The calling thread keeps the first, and
    /// with it the vif: it alone hears of changes. Name a thread by [`thread_name`], as its queue's interrupt is.
    ///
    /// Give them back with [`Self::give_queues`] before the device is closed or reconnected: what is dropped earlier is
    /// freed before the backend has let go of it.
    pub fn take_queues(&mut self) -> Vec<Queue> {
        std::mem::take(&mut self.queues.others)
    }

    /// The queues that [`Self::take_queues`] gave, in the same order.
    pub fn give_queues(&mut self, queues: Vec<Queue>) {
        self.queues.others = queues;
    }
}
