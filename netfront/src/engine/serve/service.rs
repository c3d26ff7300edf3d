//! What other threads may see of a vif in service, and tell it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::affinity::{Affinity, PlaceError, Placed};
use crate::device::{Device, Link};
use crate::engine::moderation::Mode;
use crate::engine::receiver::Tuning;
use crate::stats::{QueueStats, Snapshot, VifStats};
use crate::waker::Waker;

/// What another thread may see of a vif in service, and how it ends it.
#[derive(Debug, Default)]
pub struct Service {
    stop: Arc<AtomicBool>,
    /// Connections made so far.
    pub connections: AtomicU64,
    /// Attempts to connect again so far, and calls that were heard between two: while the backend is away, they are the sign that
    /// somebody is there.
    pub attempts: AtomicU64,
    /// What was negotiated, and since when there is a connection.
    link: Mutex<Option<(Link, Instant)>>,
    /// Of each queue of the connection, the first one first.
    wakers: Mutex<Vec<Arc<Waker>>>,
    /// Of the thread that waits for a backend.
    waiting: Mutex<Option<Arc<Waker>>>,
    paused: AtomicBool,
    /// How often [`Self::kick`] was called: each queue's thread sees by it whether it has done as it was told.
    kicks: AtomicU64,
    tuning: Arc<Tuning>,
    affinity: Affinity,
    stats: Arc<VifStats>,
}

impl Service {
    /// With a restart limit, a mode and bounds of one's own.
    pub fn tuned(tuning: Tuning) -> Self {
        Self {
            tuning: Arc::new(tuning),
            ..Self::default()
        }
    }

    /// How [`serve`](super::serve) learns of packets.
    pub fn mode(&self) -> Mode {
        self.tuning.mode.get()
    }

    /// Changes that for all queues, at once.
    pub fn set_mode(&self, mode: Mode) {
        self.tuning.mode.set(mode);
        self.wake();
    }

    /// What decides how packets are received.
    pub fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    pub(super) fn shared_tuning(&self) -> Arc<Tuning> {
        Arc::clone(&self.tuning)
    }

    /// Has the thread of a queue run on these CPUs, and the interrupts of its event channels come to them, while packets pass
    /// and in connections to come. Before there is a connection it is only remembered.
    ///
    /// # Errors
    /// If there is no such queue, no CPU is named, or the thread may run on none of them; then nothing has changed. That
    /// interrupts stay where they were is no error: [`Placed::refused`] says why.
    pub fn place(&self, queue: usize, cpus: &[usize]) -> Result<Placed, PlaceError> {
        let queues = self.wakers.lock().map_or(0, |wakers| wakers.len());
        let queues = match queues {
            0 => usize::MAX,
            queues => queues,
        };
        self.affinity.place(queue, cpus, queues)
    }

    /// [`Self::place`] for all queues: those that there are, and those that only a later connection has. Gives what became of
    /// each, in their order.
    ///
    /// # Errors
    /// If no CPU is named, or a thread may run on none of them.
    pub fn place_all(&self, cpus: &[usize]) -> Result<Vec<Placed>, PlaceError> {
        self.affinity.place_all(cpus)
    }

    /// The number by which the kernel knows the thread of a queue (/proc/self/task); `None` while it has none.
    pub fn thread(&self, queue: usize) -> Option<i32> {
        self.affinity.thread(queue)
    }

    pub(super) fn affinity(&self) -> &Affinity {
        &self.affinity
    }

    /// Asks [`serve`](super::serve) to say goodbye to the backend and return.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        self.wake();
    }

    /// Has [`serve`](super::serve) leave packets where they are, both ways: the rings fill up, and whoever sends has to wait.
    /// The connection stays. Returns before the last packets of a batch have passed.
    pub fn pause(&self) {
        self.paused.store(true, Ordering::Release);
        self.wake();
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.paused.store(false, Ordering::Release);
        self.wake();
    }

    /// True between [`Self::pause`] and [`Self::resume`].
    pub fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    /// Has [`serve`](super::serve) look at the rings now, and the backend too, whatever it asked for. Helps where an event
    /// was lost. While there is no connection: has it try now, and not when the store shows another state of the backend.
    pub fn kick(&self) {
        self.kicks.fetch_add(1, Ordering::Release);
        self.wake();
    }

    pub(super) fn kicks(&self) -> u64 {
        self.kicks.load(Ordering::Acquire)
    }

    /// Wakes the threads in [`serve`](super::serve), which show in their counters that they live: asleep, they may be so for
    /// many seconds.
    pub fn wake(&self) {
        if let Ok(wakers) = self.wakers.lock() {
            wakers.iter().for_each(|waker| waker.wake());
        }
        if let Ok(waiting) = self.waiting.lock() {
            waiting.iter().for_each(|waker| waker.wake());
        }
    }

    /// Between two connections: what [`Self::wake`] wakes.
    pub(super) fn wait_by(&self, waker: Option<Arc<Waker>>) {
        if let Ok(mut waiting) = self.waiting.lock() {
            *waiting = waker;
        }
    }

    /// True once [`Self::stop`] was called.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// For [`crate::Builder::interrupt`]: set by [`Self::stop`], so that it also ends a handshake.
    pub fn interrupt(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }

    /// What was negotiated; `None` while there is no connection.
    pub fn link(&self) -> Option<Link> {
        let link = self.link.lock().ok()?;
        link.map(|(link, _)| link)
    }

    /// How long there has been a connection; `None` while there is none.
    pub fn connected_for(&self) -> Option<Duration> {
        let link = self.link.lock().ok()?;
        link.map(|(_, since)| since.elapsed())
    }

    /// The counters of the first queue, which go on over reconnects.
    pub fn stats(&self) -> &Arc<QueueStats> {
        self.stats.first()
    }

    /// The counters of each queue, for [`crate::Builder::connect_counting_each`].
    pub fn all_stats(&self) -> &Arc<VifStats> {
        &self.stats
    }

    /// The sum of the counters over all queues.
    pub fn snapshot(&self) -> Snapshot {
        self.stats.snapshot()
    }

    /// The counters of each queue of the connection, or of the last one while there is none; one at least.
    pub fn snapshots(&self) -> Vec<Snapshot> {
        let queues = self.wakers.lock().map_or(1, |wakers| wakers.len().max(1));
        let all = self.stats.all();
        all.iter()
            .take(queues)
            .map(|queue| queue.snapshot())
            .collect()
    }

    pub(super) fn enter(&self, device: &mut Device) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.show(Some(*device.link()));
        if let Ok(mut wakers) = self.wakers.lock() {
            wakers.clear();
            wakers.extend(device.queues().map(|queue| queue.waker()));
        }
    }

    pub(super) fn show(&self, now: Option<Link>) {
        if let Ok(mut link) = self.link.lock() {
            let since = link.map_or_else(Instant::now, |(_, since)| since);
            *link = now.map(|now| (now, since));
        }
    }
}
