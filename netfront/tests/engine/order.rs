//! Packets of a connection keep their order over any changes of workers and event cores.

use std::collections::BTreeMap;
use std::sync::Arc;

use netfront::engine::steering::{
    lane, Bell, Binding, Connection, CoreId, Drain, Endpoint, Kind, LaneReceiver, Spread, Steered,
    Steering, Store, Worker, COMMON_KEY,
};
use proptest::prelude::*;

const QUEUES: usize = 4;
const CORES: usize = 2;
const WORKERS: usize = 3;
const CONNECTIONS: u16 = 6;
/// More than all packets of a run.
const STORE: usize = 512;

/// A connection by its number; 0 is what is no IP.
pub fn connection(number: u16) -> Option<Connection> {
    let end = |port| Endpoint {
        address: [9; 16],
        port,
    };
    (number > 0).then(|| Connection {
        kind: Kind::UdpV6,
        source: end(number),
        destination: end(7),
    })
}

/// What may happen next.
#[derive(Debug, Clone)]
enum Step {
    /// A packet of this connection comes.
    Packet(u16),
    /// A worker takes so many packets of one of its lanes into its store.
    Take(usize, usize, usize),
    /// Its application reads one packet of a connection, and is finished with it.
    Read(usize, u16),
    /// Connections are mapped to workers anew.
    Remap(usize),
    /// A connection is bound to a worker, or no longer.
    Bind(u16, usize),
    Unbind(u16),
    /// The queues are bound to one or both cores.
    Cores(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let number = 0..CONNECTIONS;
    prop_oneof![
        12 => number.clone().prop_map(Step::Packet),
        6 => (0..WORKERS, 0..CORES, 1..4usize).prop_map(|(w, c, n)| Step::Take(w, c, n)),
        8 => (0..WORKERS, number.clone()).prop_map(|(w, n)| Step::Read(w, n)),
        1 => (0..WORKERS).prop_map(Step::Remap),
        1 => (number.clone(), 0..WORKERS).prop_map(|(n, w)| Step::Bind(n, w)),
        1 => number.prop_map(Step::Unbind),
        1 => any::<bool>().prop_map(Step::Cores),
    ]
}

/// A packet in a worker's store: which lane it came by, its number within its connection.
type Held = (usize, u64);

struct Run {
    cores: Vec<Steering<u64>>,
    binding: Binding,
    /// Who has each queue now, and what has to be finished before.
    owners: Vec<(CoreId, Option<Drain>)>,
    /// By worker, by core.
    lanes: Vec<Vec<LaneReceiver<Steered<u64>>>>,
    stores: Vec<Store<Held>>,
    /// Packets of each lane that were finished out of turn: a lane is finished up to its oldest unread packet.
    read: Vec<Vec<Unread>>,
    sent: BTreeMap<u16, u64>,
    seen: BTreeMap<u16, u64>,
}

/// The packets of one lane that were taken, in order: connection, number, read or not.
type Unread = std::collections::VecDeque<(Option<Connection>, u64, bool)>;

impl Run {
    fn new() -> Self {
        let mut lanes: Vec<Vec<_>> = (0..WORKERS).map(|_| Vec::new()).collect();
        let mut cores = Vec::new();
        for _ in 0..CORES {
            let mut workers = Vec::new();
            for lanes in &mut lanes {
                let (sender, receiver) = lane(8);
                lanes.push(receiver);
                let bell = Arc::new(Bell::new());
                workers.push(Worker { lane: sender, bell });
            }
            cores.push(Steering::new(workers, &COMMON_KEY, Spread::Symmetric, 4).unwrap());
        }
        let binding = Binding::new(QUEUES, &[0, 1]).unwrap();
        Self {
            cores,
            owners: (0..QUEUES)
                .map(|q| (binding.core(q).unwrap(), None))
                .collect(),
            binding,
            lanes,
            stores: (0..WORKERS).map(|_| Store::new(STORE)).collect(),
            read: (0..WORKERS).map(|_| vec![Unread::new(); CORES]).collect(),
            sent: BTreeMap::new(),
            seen: BTreeMap::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Packet(number) => self.packet(number),
            Step::Take(worker, core, packets) => self.store(worker, core, packets),
            Step::Read(worker, number) => self.read(worker, number),
            Step::Remap(by) => {
                let workers = |place: usize| (place + by) % WORKERS;
                self.cores.iter_mut().for_each(|core| core.remap(workers));
            }
            Step::Bind(number, worker) => {
                for core in &mut self.cores {
                    // Some are refused: there may be four.
                    let _ = connection(number).map(|bound| core.bind(bound, worker));
                }
            }
            Step::Unbind(number) => {
                for core in &mut self.cores {
                    connection(number)
                        .iter()
                        .for_each(|bound| core.unbind(bound));
                }
            }
            Step::Cores(both) => {
                // A queue that is still on its way stays: one move after the other.
                if self.owners.iter().any(|(_, drain)| drain.is_some()) {
                    return;
                }
                let cores: &[CoreId] = if both { &[0, 1] } else { &[1] };
                self.binding.rebind(QUEUES, cores).unwrap();
                assert!(self.binding.spread() <= 1);
                for (queue, owner) in self.owners.iter_mut().enumerate() {
                    let to = self.binding.core(queue).unwrap();
                    if owner.0 != to {
                        let drain = self.cores[owner.0 as usize].drain();
                        *owner = (to, Some(drain));
                    }
                }
            }
        }
    }

    /// It comes by the queue that the backend chose by its hash.
    fn packet(&mut self, number: u16) {
        let (core, drain) = &mut self.owners[usize::from(number) % QUEUES];
        if drain.as_ref().is_some_and(|drain| !drain.is_over()) {
            return; // It stays in the ring.
        }
        *drain = None;
        let next = self.sent.entry(number).or_default();
        if self.cores[*core as usize]
            .send_of(connection(number), *next)
            .is_ok()
        {
            *next += 1;
        }
    }

    fn store(&mut self, worker: usize, core: usize, packets: usize) {
        for _ in 0..packets {
            let Some(steered) = self.lanes[worker][core].take() else {
                return;
            };
            let Steered { connection, packet } = steered;
            self.read[worker][core].push_back((connection, packet, false));
            self.stores[worker]
                .put(connection, (core, packet))
                .expect("room");
        }
    }

    fn read(&mut self, worker: usize, number: u16) {
        let Some((core, packet)) = self.stores[worker].take(&connection(number)) else {
            return;
        };
        let seen = self.seen.entry(number).or_default();
        assert_eq!(packet, *seen, "connection {number} is out of order");
        *seen += 1;
        let unread = &mut self.read[worker][core];
        let own = unread
            .iter_mut()
            .find(|u| u.0 == connection(number) && u.1 == packet);
        own.expect("taken from this lane").2 = true;
        while unread.front().is_some_and(|first| first.2) {
            unread.pop_front();
            self.lanes[worker][core].finish(1);
        }
    }

    /// Everything is taken and read.
    fn end(&mut self) {
        for worker in 0..WORKERS {
            (0..CORES).for_each(|core| self.store(worker, core, 8));
            for number in (0..CONNECTIONS)
                .cycle()
                .take(STORE * usize::from(CONNECTIONS))
            {
                self.read(worker, number);
            }
        }
        self.sent.retain(|_, sent| *sent > 0);
        assert_eq!(self.sent, self.seen);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// K-3, K-6, K-7: each connection's packets are read in order and none is lost, whatever is bound anew meanwhile.
    #[test]
    fn connections_keep_their_order_over_any_changes(steps in prop::collection::vec(step(), 1..300)) {
        let mut run = Run::new();
        for step in &steps {
            run.take(step);
        }
        run.end();
    }
}

/// K-7: a connection stays with its worker until somebody binds it elsewhere, and then goes there.
#[test]
fn a_connection_changes_its_worker_only_when_it_is_told_to() {
    let mut run = Run::new();
    let sent_to = |run: &mut Run| {
        let packet = run.sent.entry(1).or_default();
        let worker = run.cores[0].send_of(connection(1), *packet).unwrap();
        *packet += 1;
        worker
    };
    let read_all = |run: &mut Run, worker| {
        run.store(worker, 0, 8);
        (0..8).for_each(|_| run.read(worker, 1));
    };
    let first = sent_to(&mut run);
    for _ in 0..20 {
        assert_eq!(sent_to(&mut run), first);
        read_all(&mut run, first);
    }
    let other = (first + 1) % WORKERS;
    sent_to(&mut run);
    run.cores[0].bind(connection(1).unwrap(), other).unwrap();
    assert_eq!(sent_to(&mut run), first, "a packet of it is on the old way");
    read_all(&mut run, first);
    assert_eq!(sent_to(&mut run), other);
    run.cores[0].unbind(&connection(1).unwrap());
    assert_eq!(sent_to(&mut run), other, "and back by the same rule");
    read_all(&mut run, other);
    assert_eq!(sent_to(&mut run), first);
    assert_eq!(run.cores[0].counters().table.moves_delayed, 2);
}
