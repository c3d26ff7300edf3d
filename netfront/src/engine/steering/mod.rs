//! From the cores that take events to the cores that work: packets of one connection to one worker, in order.
//!
//! ```text
//! event core f                                          worker s
//!   connection of the copied headers, its hash
//!   table    which worker; may it change now?
//!   lane[f][s] ------------------------------------->     store   by connection
//!   end of the round: each worker's bell, once  ----->     (woken only if it slept)
//!                                                        finished: a connection may move
//! ```
//!
//! Each event core has a [`Steering`] of its own, with a lane to each worker: so all state has one writer, and the only
//! words that two threads share are those of the lane, the count of finished packets, and the bell.
//!
//! Order is kept across three kinds of change. A connection that changes its worker waits for the old worker
//! ([`FlowTable`]). A queue that changes its event core waits until the old core has let go of it
//! ([`super::schedule`]) and what it has sent is finished ([`Drain`]).

mod activator;
mod bell;
mod binding;
mod connection;
mod hash;
mod lane;
mod progress;
mod reverse;
mod store;
mod table;

use std::sync::Arc;

pub use activator::Activator;
pub use bell::Bell;
pub use binding::{Binding, CoreId, Move, NoCore};
pub use connection::{Connection, Endpoint, Kind};
pub use hash::{Toeplitz, COMMON_KEY, KEY};
pub use lane::{lane, LaneReceiver, LaneSender};
pub use progress::Progress;
pub use reverse::{EventCore, ReversePath};
pub use store::Store;
pub use table::{FlowTable, TableCounters, TooMany, Way, MAPPING};

/// A packet in a lane.
#[derive(Debug, PartialEq, Eq)]
pub struct Steered<T> {
    /// What it belongs to; `None` for what is no IP.
    pub connection: Option<Connection>,
    /// The packet.
    pub packet: T,
}

/// A worker, as an event core reaches it.
#[derive(Debug)]
pub struct Worker<T> {
    /// The way to it.
    pub lane: LaneSender<Steered<T>>,
    /// Whether it sleeps.
    pub bell: Arc<Bell>,
}

/// How the worker of a connection is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spread {
    /// By the hash as network cards make it: the two directions of a connection may have two workers.
    Directed,
    /// By a hash that is the same for both directions.
    #[default]
    Symmetric,
}

/// What one event core counts of steering.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SteeringCounters {
    /// Packets that went into a lane.
    pub sent: u64,
    /// Packets that found their lane full.
    pub full: u64,
    /// Wake-ups: system calls that were due.
    pub wakes: u64,
    /// Rounds that ended with packets for a worker that ran, or was woken already.
    pub wakes_saved: u64,
    /// What the table counts.
    pub table: TableCounters,
}

/// The steering of one event core.
#[derive(Debug)]
pub struct Steering<T> {
    hash: Toeplitz,
    spread: Spread,
    table: FlowTable,
    workers: Vec<Worker<T>>,
    /// Workers that got something in this round.
    touched: Vec<bool>,
    counters: SteeringCounters,
}

impl<T> Steering<T> {
    /// To these workers, of which there must be one at least; up to `bound` connections can be bound by name.
    ///
    /// # Errors
    /// If there is no worker.
    pub fn new(
        workers: Vec<Worker<T>>,
        key: &[u8; KEY],
        spread: Spread,
        bound: usize,
    ) -> Result<Self, NoCore> {
        if workers.is_empty() {
            return Err(NoCore);
        }
        Ok(Self {
            hash: Toeplitz::new(key),
            spread,
            table: FlowTable::new(workers.len(), bound),
            touched: vec![false; workers.len()],
            workers,
            counters: SteeringCounters::default(),
        })
    }

    /// The hash that decides for this connection. All that is no IP shares one.
    pub fn hash(&self, connection: Option<&Connection>) -> u32 {
        match (connection, self.spread) {
            (None, _) => 0,
            (Some(connection), Spread::Directed) => self.hash.of(connection),
            (Some(connection), Spread::Symmetric) => self.hash.symmetric(connection),
        }
    }

    /// Sends a packet, whose copied first bytes are `head`, to its worker, and tells which. The worker hears of it
    /// with [`Self::end_round`].
    ///
    /// # Errors
    /// The packet, if the lane is full.
    pub fn send(&mut self, head: &[u8], packet: T) -> Result<usize, T> {
        self.send_of(Connection::of(head), packet)
    }

    /// As [`Self::send`], of a connection that is known.
    ///
    /// # Errors
    /// The packet, if the lane is full.
    pub fn send_of(&mut self, connection: Option<Connection>, packet: T) -> Result<usize, T> {
        self.send_made(connection, || packet).map_err(|make| make())
    }

    /// As [`Self::send_of`], of a packet that is made only if its worker has room: what is dropped has cost a look at its
    /// connection, and no page or allocation.
    ///
    /// # Errors
    /// What would have made the packet, if the lane is full.
    pub fn send_made<F: FnOnce() -> T>(
        &mut self,
        connection: Option<Connection>,
        make: F,
    ) -> Result<usize, F> {
        let hash = self.hash(connection.as_ref());
        let way = self
            .table
            .way(connection.as_ref(), hash, finished(&self.workers));
        let index = way.worker();
        let Some(worker) = self.workers.get_mut(index) else {
            return Err(make);
        };
        if !worker.lane.has_room() {
            self.counters.full += 1;
            return Err(make);
        }
        let packet = make();
        // Nobody else puts anything into this lane: it takes what it had room for.
        if worker.lane.send(Steered { connection, packet }).is_ok() {
            way.sent(worker.lane.sent());
            self.counters.sent += 1;
        }
        if let Some(touched) = self.touched.get_mut(index) {
            *touched = true;
        }
        Ok(index)
    }

    /// The round is over: calls `wake` for each worker that got packets and sleeps, once.
    pub fn end_round(&mut self, mut wake: impl FnMut(usize)) {
        for (index, (worker, touched)) in self.workers.iter().zip(&mut self.touched).enumerate() {
            if !std::mem::take(touched) {
                continue;
            }
            if worker.bell.ring() {
                self.counters.wakes += 1;
                wake(index);
            } else {
                self.counters.wakes_saved += 1;
            }
        }
    }

    /// Packets on their way to the worker that has most: how far the slowest is behind.
    pub fn depth(&self) -> usize {
        self.depths().max().unwrap_or(0)
    }

    /// Packets on their way to the worker that has fewest: for [`super::pressure::Pressure`]. As long as one has room the
    /// others must not hold up its packets, which may be anywhere in the ring.
    pub fn least_depth(&self) -> usize {
        self.depths().min().unwrap_or(0)
    }

    fn depths(&self) -> impl Iterator<Item = usize> + '_ {
        self.workers.iter().map(|worker| worker.lane.depth())
    }

    /// The least room of any lane.
    pub fn room(&self) -> usize {
        let rooms = self.workers.iter().map(|worker| worker.lane.room());
        rooms.min().unwrap_or(0)
    }

    /// Changes the mapping from hash to worker. A place that names no worker gets the first.
    pub fn remap(&mut self, worker: impl Fn(usize) -> usize) {
        let workers = self.workers.len();
        self.table.remap(|place| {
            Some(worker(place))
                .filter(|&own| own < workers)
                .unwrap_or(0)
        });
    }

    /// Binds a connection to a worker.
    ///
    /// # Errors
    /// If as many are bound as may be.
    pub fn bind(&mut self, connection: Connection, worker: usize) -> Result<(), TooMany> {
        let hash = self.hash(Some(&connection));
        let worker = worker.min(self.workers.len() - 1);
        self.table
            .bind(connection, hash, worker, finished(&self.workers))
    }

    /// Takes that back.
    pub fn unbind(&mut self, connection: &Connection) {
        self.table.unbind(connection, finished(&self.workers));
    }

    /// What has to be finished before another event core may send what came in one of this core's queues.
    pub fn drain(&self) -> Drain {
        let lanes = self.workers.iter();
        Drain(
            lanes
                .map(|worker| (worker.lane.progress(), worker.lane.sent()))
                .collect(),
        )
    }

    /// What was counted so far.
    pub fn counters(&self) -> SteeringCounters {
        SteeringCounters {
            table: self.table.counters(),
            ..self.counters
        }
    }
}

/// How many packets of its lane each worker has finished.
fn finished<T>(workers: &[Worker<T>]) -> impl Fn(usize) -> u64 + '_ {
    move |worker| {
        workers
            .get(worker)
            .map_or(u64::MAX, |own| own.lane.finished())
    }
}

/// Packets that are on their way from an event core which has given a queue away.
#[derive(Debug, Clone)]
pub struct Drain(Vec<(Progress, u64)>);

impl Drain {
    /// True if the workers have finished all of them.
    pub fn is_over(&self) -> bool {
        self.0
            .iter()
            .all(|(progress, sent)| progress.finished() >= *sent)
    }
}
