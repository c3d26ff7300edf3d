//! The baseline of a wake-up a packet: a bounded queue for each worker, as the engine's lanes are, and no bell that knows
//! whether the worker sleeps. Each packet costs whoever puts it there a system call to signal it, and the worker one to take the
//! signal.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::{Mutex, PoisonError};

use netfront::engine::steering::Connection;
use netfront::OwnedPacket;
use rustix::event::{eventfd, EventfdFlags};
use rustix::io::{read, retry_on_intr, write};

use crate::store::{worker_of, Store};

/// Packets that one worker's queue holds. An event core sends on until 256 wait, and then at most a visit's 64 more.
const ROOM: usize = 1024;

struct Worker {
    sender: SyncSender<OwnedPacket>,
    /// Only the worker takes it, so nobody waits for this lock.
    receiver: Mutex<Receiver<OwnedPacket>>,
    /// Counts the packets that were signalled; each read takes one away, and waits if there is none.
    signal: OwnedFd,
    sent: AtomicU64,
    taken: AtomicU64,
}

/// A queue and a signal for each worker.
pub struct SignalledStore {
    workers: Vec<Worker>,
    over: AtomicBool,
}

impl SignalledStore {
    /// For so many workers.
    ///
    /// # Errors
    /// The kernel gives no eventfd.
    pub fn new(workers: usize) -> io::Result<Self> {
        let worker = |_| {
            let (sender, receiver) = sync_channel(ROOM);
            Ok(Worker {
                sender,
                receiver: Mutex::new(receiver),
                signal: eventfd(0, EventfdFlags::SEMAPHORE)?,
                sent: AtomicU64::new(0),
                taken: AtomicU64::new(0),
            })
        };
        Ok(Self {
            workers: (0..workers).map(worker).collect::<io::Result<_>>()?,
            over: AtomicBool::new(false),
        })
    }
}

impl Worker {
    fn signal(&self) {
        // It fails only where the count is at its end, which takes more packets than there are.
        let _ = retry_on_intr(|| write(&self.signal, &1u64.to_ne_bytes()));
    }
}

impl Store for SignalledStore {
    fn put(&self, packet: OwnedPacket) {
        let worker = worker_of(Connection::of(packet.head()), self.workers.len());
        let Some(worker) = self.workers.get(worker) else {
            return;
        };
        // What finds no room is dropped, as by the engine, and not counted by anybody.
        if worker.sender.try_send(packet).is_ok() {
            worker.sent.fetch_add(1, Relaxed);
            worker.signal();
        }
    }

    fn take(&self, worker: usize) -> Option<OwnedPacket> {
        let worker = self.workers.get(worker)?;
        let receiver = worker.receiver.lock();
        let receiver = receiver.unwrap_or_else(PoisonError::into_inner);
        loop {
            retry_on_intr(|| read(&worker.signal, &mut [0; 8])).ok()?;
            if let Ok(packet) = receiver.try_recv() {
                worker.taken.fetch_add(1, Relaxed);
                return Some(packet);
            }
            // A signal without a packet is that of the end.
            if self.over.load(Acquire) {
                return None;
            }
        }
    }

    fn waiting(&self) -> usize {
        let depth = |worker: &Worker| {
            let sent = worker.sent.load(Relaxed);
            sent.saturating_sub(worker.taken.load(Relaxed)) as usize
        };
        self.workers.iter().map(depth).max().unwrap_or(0)
    }

    fn end(&self) {
        self.over.store(true, Release);
        self.workers.iter().for_each(Worker::signal);
    }

    fn wakes(&self) -> u64 {
        let signals = self.workers.iter().map(|worker| worker.sent.load(Relaxed));
        signals.sum()
    }
}
