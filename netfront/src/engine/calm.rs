//! How long the queue's thread sleeps while nothing happens.
//!
//! Events, pages that come home, changes of the link and whoever calls wake it at once. What is left for the clock:
//!
//! - pages that the pool grew by go back, a batch a second;
//! - a packet that the backend leaves unanswered is a reason to look at the store (see `silence`);
//! - a backend that forgot an event is found out, since each waking looks at the rings.
//!
//! So the first sleep after a packet is short, and each of which nothing comes is twice as long as the one before. A
//! ring that has run dry is looked at each second, as long as that lasts.

use std::time::Duration;

use crate::queue::Queue;

/// The first sleep, and that of a ring without pages.
const SHORTEST: Duration = Duration::from_secs(1);
/// A lost event costs so much at most.
const LONGEST: Duration = Duration::from_secs(16);

/// How long the next sleep may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Calm(Duration);

impl Default for Calm {
    fn default() -> Self {
        Self(SHORTEST)
    }
}

impl Calm {
    /// Packets passed.
    #[inline]
    pub fn end(&mut self) {
        self.0 = SHORTEST;
    }

    /// True once a sleep was of no use.
    pub fn is_deep(self) -> bool {
        self.0 > SHORTEST
    }

    /// The time for the next sleep, of which pages that come home are an end if it is a long one.
    pub fn time(self, queue: &mut Queue) -> Duration {
        if queue.is_starved() {
            return SHORTEST;
        }
        if self.is_deep() {
            queue.call_for_returns();
        }
        self.0
    }

    /// After a sleep that no packet ended: gives back pages of which there are too many.
    pub fn pass(&mut self, queue: &mut Queue) {
        let away = queue.stats().pool_leased.get();
        let freed = queue.idle();
        let happened = freed > 0 || queue.stats().pool_leased.get() != away;
        self.0 = match happened {
            true => SHORTEST,
            false => (self.0 * 2).min(LONGEST),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::sync::Arc;

    use hypervisor::sim::server::{self, Options, Running};
    use hypervisor::{DomId, Domain};
    use rustix::event::{poll, PollFd, PollFlags, Timespec};

    use super::*;
    use crate::pool::BATCH;
    use crate::queue::QueueConfig;

    struct Idle {
        queue: Queue,
        calm: Calm,
        _server: (Running, tempfile::TempDir),
    }

    impl Idle {
        fn new(config: &QueueConfig) -> Self {
            let dir = tempfile::tempdir().expect("a directory");
            let socket = dir.path().join("xen");
            let server = server::spawn(&socket, Options::new()).expect("a server");
            let domain = Domain::simulated(&socket, DomId(1)).expect("a domain");
            let queue = Queue::open(&domain, DomId(0), config, true, Arc::default());
            Self {
                queue: queue.expect("a queue"),
                calm: Calm::default(),
                _server: (server, dir),
            }
        }

        fn time(&mut self) -> Duration {
            self.calm.time(&mut self.queue)
        }

        fn pass(&mut self) {
            self.calm.pass(&mut self.queue);
        }

        fn is_called(&self) -> bool {
            let waker = self.queue.waker();
            let mut fds = [PollFd::from_borrowed_fd(waker.as_fd(), PollFlags::IN)];
            poll(&mut fds, Some(&Timespec::default())).expect("poll") > 0
        }
    }

    #[test]
    fn while_nothing_happens_each_sleep_is_twice_as_long_as_the_one_before_up_to_the_longest() {
        let mut idle = Idle::new(&QueueConfig::default());
        let mut seconds = Vec::new();
        for _ in 0..6 {
            seconds.push(idle.time().as_secs());
            idle.pass();
        }
        assert_eq!(seconds, [1, 2, 4, 8, 16, 16]);
        idle.calm.end();
        assert_eq!(idle.time(), SHORTEST);
    }

    #[test]
    fn a_page_that_comes_home_ends_a_long_sleep_and_only_a_long_one() {
        let mut idle = Idle::new(&QueueConfig::default());
        let lease = |idle: &mut Idle| {
            let pool = &mut idle.queue.pools()[0];
            let page = pool.take().expect("a page");
            pool.lease(page, 0, 0)
        };
        let first = lease(&mut idle);
        idle.queue.export();
        assert_eq!(idle.time(), SHORTEST);
        drop(first);
        assert!(
            !idle.is_called(),
            "a busy thread is not woken for each page"
        );
        let second = lease(&mut idle);
        idle.queue.export();
        idle.pass();
        assert!(idle.time() > SHORTEST);
        drop(second);
        assert!(idle.is_called());
        // More of them may follow.
        idle.pass();
        assert_eq!(idle.time(), SHORTEST);
        assert_eq!(idle.queue.stats().pool_leased.get(), 0);
    }

    #[test]
    fn a_ring_that_has_run_dry_is_looked_at_each_second() {
        let mut idle = Idle::new(&QueueConfig {
            rx_pages: 16,
            rx_limit: 16,
            ..QueueConfig::default()
        });
        for _ in 0..6 {
            idle.pass();
            assert_eq!(idle.time(), SHORTEST);
        }
    }

    #[test]
    fn a_pool_that_grew_gives_back_a_batch_a_second() {
        let mut idle = Idle::new(&QueueConfig {
            rx_pages: 256,
            rx_limit: 512,
            ..QueueConfig::default()
        });
        let pool = &mut idle.queue.pools()[0];
        let held: Vec<_> = (0..5 * BATCH).map_while(|_| pool.take()).collect();
        held.into_iter().for_each(|page| pool.put(page));
        idle.queue.export();
        let grown = idle.queue.stats().pool_grown.get();
        assert!(grown >= 4 * BATCH as u64, "{grown}");
        let mut sleeps = 0;
        loop {
            let before = idle.queue.stats().pool_grown.get();
            idle.pass();
            if idle.queue.stats().pool_grown.get() == before {
                break;
            }
            sleeps += 1;
            assert_eq!(idle.time(), SHORTEST, "after {sleeps}");
        }
        assert!(sleeps >= 3, "{sleeps}");
        assert!(idle.time() > SHORTEST, "nothing is left to give back");
    }
}
