//! Stores of the baselines, which stand in the place of the engine's lanes and bells, and the one behind one lock, as the
//! requirements could be read literally: every packet goes into a table by its connection, and whoever works on that
//! connection is signalled.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use netfront::engine::steering::Connection;
use netfront::OwnedPacket;

/// Where event cores put packets, and workers, told by their numbers, take them.
pub trait Store: Sync {
    /// Keeps a packet, and signals its worker.
    fn put(&self, packet: OwnedPacket);

    /// The next packet of a worker; waits for one. `None` when it is over.
    fn take(&self, worker: usize) -> Option<OwnedPacket>;

    /// Packets that wait: by these event cores are held back.
    fn waiting(&self) -> usize;

    /// Workers end when nothing is left.
    fn end(&self);

    /// Wake-ups of workers until now.
    fn wakes(&self) -> u64;
}

/// The worker of a packet. All packets of a connection have the same one.
pub fn worker_of(connection: Option<Connection>, workers: usize) -> usize {
    let port = connection.map_or(0, |connection| connection.source.port);
    usize::from(port) % workers.max(1)
}

/// Packets by connection, for a number of workers.
pub struct LockedStore {
    kept: Mutex<Kept>,
    /// By worker.
    bells: Vec<Condvar>,
    /// Times that a worker slept and woke.
    wakeups: AtomicU64,
}

#[derive(Default)]
struct Kept {
    packets: HashMap<Option<Connection>, VecDeque<OwnedPacket>>,
    /// By worker: its connections that have packets.
    turns: Vec<VecDeque<Option<Connection>>>,
    waiting: usize,
    over: bool,
}

impl LockedStore {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        Self {
            kept: Mutex::new(Kept {
                turns: (0..workers).map(|_| VecDeque::new()).collect(),
                ..Kept::default()
            }),
            bells: (0..workers).map(|_| Condvar::new()).collect(),
            wakeups: AtomicU64::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for LockedStore {
    fn put(&self, packet: OwnedPacket) {
        let connection = Connection::of(packet.head());
        let worker = worker_of(connection, self.bells.len());
        let mut kept = self.lock();
        kept.waiting += 1;
        let queue = kept.packets.entry(connection).or_default();
        let is_first = queue.is_empty();
        queue.push_back(packet);
        if let Some(turns) = kept.turns.get_mut(worker).filter(|_| is_first) {
            turns.push_back(connection);
        }
        drop(kept);
        if let Some(bell) = self.bells.get(worker) {
            bell.notify_one();
        }
    }

    fn take(&self, worker: usize) -> Option<OwnedPacket> {
        let mut kept = self.lock();
        loop {
            if let Some(packet) = kept.next(worker) {
                return Some(packet);
            }
            if kept.over {
                return None;
            }
            kept = self
                .bells
                .get(worker)?
                .wait(kept)
                .unwrap_or_else(PoisonError::into_inner);
            self.wakeups.fetch_add(1, Relaxed);
        }
    }

    fn waiting(&self) -> usize {
        self.lock().waiting
    }

    fn end(&self) {
        self.lock().over = true;
        self.bells.iter().for_each(Condvar::notify_all);
    }

    fn wakes(&self) -> u64 {
        self.wakeups.load(Relaxed)
    }
}

impl Kept {
    fn next(&mut self, worker: usize) -> Option<OwnedPacket> {
        let turns = self.turns.get_mut(worker)?;
        let connection = turns.pop_front()?;
        let queue = self.packets.get_mut(&connection)?;
        let packet = queue.pop_front()?;
        if !queue.is_empty() {
            turns.push_back(connection);
        }
        self.waiting -= 1;
        Some(packet)
    }
}
