//! Which worker a connection's packets go to, and when that may change.
//!
//! A connection's worker is found by its hash, in a table of 128 places as network cards have one, unless it was bound
//! to a worker by name. A change of either takes effect for a connection once the old worker has *finished* all of its
//! packets (the rule of the kernel's receive flow steering): until then they go the old way. So packets of one
//! connection are never with two workers, and keep their order.

use std::collections::HashMap;

use super::connection::Connection;

/// Places of the mapping from hash to worker, as in most cards and in netback.
pub const MAPPING: usize = 128;
/// Connections that share an entry move together; with so many entries few do.
const ENTRIES: usize = 4096;

/// The way that some connections take: the lane of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    worker: usize,
    /// What the lane's count of sent packets was after their last one.
    mark: u64,
}

impl Way {
    /// To this worker; nothing has gone there yet.
    pub(super) fn to(worker: usize) -> Self {
        Self { worker, mark: 0 }
    }

    /// The worker.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// A packet has gone this way; `sent` is the lane's count after it.
    pub fn sent(&mut self, sent: u64) {
        self.mark = sent;
    }

    /// True if the worker has finished all packets that went this way.
    fn is_finished(&self, finished: &impl Fn(usize) -> u64) -> bool {
        finished(self.worker) >= self.mark
    }
}

#[derive(Debug, Clone, Copy)]
struct Pin {
    way: Way,
    /// The entry that its connection would share.
    entry: usize,
    /// `None`: the binding was taken back, and what went its way is not finished.
    wanted: Option<usize>,
}

impl Pin {
    /// True if its connection can go on with the others of its entry: in the same lane it is behind its own packets,
    /// and elsewhere once those are finished.
    fn ends(&self, ways: &mut [Way], finished: &impl Fn(usize) -> u64) -> bool {
        let Some(shared) = ways.get_mut(self.entry).filter(|_| self.wanted.is_none()) else {
            return false;
        };
        if shared.worker == self.way.worker {
            shared.mark = shared.mark.max(self.way.mark);
            return true;
        }
        self.way.is_finished(finished)
    }
}

/// What a table counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableCounters {
    /// Connections, or groups of them, that changed their worker.
    pub moved: u64,
    /// Packets that went the old way, since the old worker had not finished those before.
    pub moves_delayed: u64,
}

/// No more connections can be bound by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{limit} connections are bound to workers already: take one back, or make the table with a larger limit")]
pub struct TooMany {
    /// The limit.
    pub limit: usize,
}

/// The workers of all connections, as one event core sees them.
#[derive(Debug)]
pub struct FlowTable {
    mapping: Box<[usize; MAPPING]>,
    ways: Box<[Way]>,
    pins: HashMap<Connection, Pin>,
    limit: usize,
    counters: TableCounters,
}

impl FlowTable {
    /// Spreads connections over `workers` workers; up to `limit` can be bound by name.
    pub fn new(workers: usize, limit: usize) -> Self {
        let mapping: Box<[usize; MAPPING]> =
            Box::new(std::array::from_fn(|place| place % workers.max(1)));
        let way = |entry: usize| Way::to(mapping[entry % MAPPING]);
        Self {
            ways: (0..ENTRIES).map(way).collect(),
            mapping,
            // Twice as many: then a table that entries come to and leave is put in order where it is.
            pins: HashMap::with_capacity(2 * limit),
            limit,
            counters: TableCounters::default(),
        }
    }

    /// Changes the mapping from places to workers.
    pub fn remap(&mut self, worker: impl Fn(usize) -> usize) {
        for (place, own) in self.mapping.iter_mut().enumerate() {
            *own = worker(place);
        }
    }

    /// Binds a connection, whose hash is this, to a worker. It moves there as soon as its order allows. `finished` is as in
    /// [`Self::way`].
    ///
    /// # Errors
    /// If as many connections are bound as may be.
    pub fn bind(
        &mut self,
        connection: Connection,
        hash: u32,
        worker: usize,
        finished: impl Fn(usize) -> u64,
    ) -> Result<(), TooMany> {
        let limit = self.limit;
        if self.pins.len() >= limit && !self.pins.contains_key(&connection) {
            // Those that were taken back and wait to be finished, since no packet has come to end them.
            let ways = &mut self.ways;
            self.pins.retain(|_, pin| !pin.ends(ways, &finished));
            if self.pins.len() >= limit {
                return Err(TooMany { limit });
            }
        }
        let entry = entry(hash);
        let (way, wanted) = (self.ways[entry], Some(worker));
        let pin = Pin { way, entry, wanted };
        self.pins.entry(connection).or_insert(pin).wanted = wanted;
        Ok(())
    }

    /// Takes a binding back: the hash decides again, as soon as the order allows.
    pub fn unbind(&mut self, connection: &Connection, finished: impl Fn(usize) -> u64) {
        let Some(pin) = self.pins.get_mut(connection) else {
            return;
        };
        pin.wanted = None;
        if pin.ends(&mut self.ways, &finished) {
            self.pins.remove(connection);
        }
    }

    /// The way of the next packet. `finished` tells of each worker how many packets of its lane it has finished. Once the
    /// packet is in the lane, [`Way::sent`] is due.
    pub fn way(
        &mut self,
        connection: Option<&Connection>,
        hash: u32,
        finished: impl Fn(usize) -> u64,
    ) -> &mut Way {
        let mapped = self.mapping[hash as usize % MAPPING];
        let counters = &mut self.counters;
        if let Some(connection) = connection.filter(|_| !self.pins.is_empty()) {
            let pin = self.pins.get(connection);
            if pin.is_some_and(|pin| pin.ends(&mut self.ways, &finished)) {
                self.pins.remove(connection);
            }
            if let Some(pin) = self.pins.get_mut(connection) {
                if let Some(wanted) = pin.wanted {
                    settle(&mut pin.way, wanted, &finished, counters);
                } else {
                    counters.moves_delayed += 1;
                }
                return &mut pin.way;
            }
        }
        let shared = &mut self.ways[entry(hash)];
        settle(shared, mapped, &finished, counters);
        shared
    }

    /// What was counted so far.
    pub fn counters(&self) -> TableCounters {
        self.counters
    }
}

fn entry(hash: u32) -> usize {
    hash as usize % ENTRIES
}

/// Changes a way's worker, if all that went to the old one is finished.
pub(super) fn settle(
    way: &mut Way,
    wanted: usize,
    finished: &impl Fn(usize) -> u64,
    counters: &mut TableCounters,
) {
    if way.worker == wanted {
        return;
    }
    if way.is_finished(finished) {
        way.worker = wanted;
        counters.moved += 1;
    } else {
        counters.moves_delayed += 1;
    }
}
