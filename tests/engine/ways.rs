//! The ways of packets that `many_cores` compares, and what is seen of each.

use super::random::Times;

/// How packets get to who works on them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Two event cores, two workers, steered by connection.
    Steered,
    /// The same, with queues, mappings and connections bound anew all the time.
    Rebound,
    /// Four cores that each take events and do the work of their queues.
    NoSteering,
    /// All queues on one event core, two workers.
    OneEventCore,
    /// As steered, but each packet is signalled by itself.
    WakePerPacket,
    /// As steered, with a lock taken on both sides of each packet's way. Its price is a parameter: cores that wait for it
    /// are not played.
    MutexStore,
    /// Any worker for any packet.
    RandomWorker,
}

/// All ways, as the table calls them.
pub const WAYS: [(&str, Way); 7] = [
    ("steered by connection", Way::Steered),
    ("the same, bound anew all the time", Way::Rebound),
    ("no steering: four cores do both", Way::NoSteering),
    ("all queues on one event core", Way::OneEventCore),
    ("a wake-up a packet", Way::WakePerPacket),
    ("a lock in place of lanes", Way::MutexStore),
    ("a random worker a packet", Way::RandomWorker),
];

/// What was seen, after the warm-up.
#[derive(Debug, Default)]
pub struct Seen {
    /// Packets that came.
    pub offered: u64,
    /// Packets that were worked on.
    pub delivered: u64,
    /// Packets that were sent to workers.
    pub sent: u64,
    /// System calls that woke a worker.
    pub wakes: u64,
    /// Packets that came after a later one of their connection.
    pub out_of_order: u64,
    /// The largest difference in queues of two event cores that were to have some, whenever all queues were where they were
    /// wanted.
    pub spread: usize,
    /// From coming to being worked on.
    pub latency: Times,
    /// Events on cores that work: of the way in which cores do both. Where they are apart there is no way for one to get there.
    pub events_on_workers: u64,
    /// How often something was bound anew.
    pub rebindings: u64,
    /// Connections that changed their worker, queues that changed their core.
    pub moves: u64,
    /// Time, in ns.
    pub time: u64,
}

impl Seen {
    /// Delivered, thousands a second.
    pub fn kpps(&self) -> f64 {
        self.delivered as f64 * 1e6 / self.time.max(1) as f64
    }

    /// Delivered of what was offered, in percent.
    pub fn percent(&self) -> f64 {
        100.0 * self.delivered as f64 / self.offered.max(1) as f64
    }

    /// Wake-ups for each packet that was sent to a worker.
    pub fn wakes_a_packet(&self) -> f64 {
        self.wakes as f64 / self.sent.max(1) as f64
    }
}
