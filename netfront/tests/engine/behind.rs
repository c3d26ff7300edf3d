//! Workers that are behind: one of two, or both.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;

use netfront::engine::cores::{Controls, Cores, Desk, Origin, Work};
use netfront::engine::pressure::Limits;
use netfront::engine::steering::{Connection, Toeplitz, COMMON_KEY, MAPPING};
use netfront::{OwnedPacket, Queue, QueueConfig};

use crate::common::{count, until, Back, World};
use crate::cores::{datagram, parse, Stops};

/// Packets on their way to a worker, at which its queue may be held.
const HIGH: usize = 64;
/// Datagrams of each worker in a batch.
const BATCH: u64 = 8;

/// What one worker has seen. Whoever holds its gate keeps it.
#[derive(Default)]
struct Seen {
    gate: Mutex<()>,
    packets: AtomicU64,
    next: AtomicU64,
}

struct Gated<'s>(&'s Seen);

impl Work for Gated<'_> {
    fn work(&mut self, packet: OwnedPacket, _: &Origin, _: &mut Desk<'_>) {
        drop(self.0.gate.lock().unwrap());
        let (_, number) = parse(packet.head());
        let before = self.0.next.swap(number + 1, Relaxed);
        assert!(number >= before, "{number} after {before}");
        self.0.packets.fetch_add(1, Relaxed);
    }
}

/// A backend that sends datagrams of two flows, of which each worker has one.
struct Sender {
    back: Back,
    /// By worker.
    flows: [usize; 2],
    /// To each worker.
    sent: u64,
}

impl Sender {
    fn new(back: Back) -> Self {
        let hash = Toeplitz::new(&COMMON_KEY);
        let flow = |worker| {
            let is_its = |&flow: &usize| {
                let connection = Connection::of(&datagram(flow, 0)).unwrap();
                hash.symmetric(&connection) as usize % MAPPING % 2 == worker
            };
            (0..64).find(is_its).expect("a flow")
        };
        Self {
            back,
            flows: [flow(0), flow(1)],
            sent: 0,
        }
    }

    /// A batch for each worker, if so many pages are posted. They are long: to keep one takes its page.
    fn send(&mut self) {
        if self.back.take_posted() < 2 * BATCH as usize {
            return;
        }
        for number in self.sent..self.sent + BATCH {
            for flow in self.flows {
                let mut bytes = datagram(flow, number);
                bytes.resize(2000, 0);
                self.back.deliver(&bytes);
            }
        }
        self.sent += BATCH;
    }
}

/// Runs a queue on one event core and two workers.
fn with_two_workers(drive: impl FnOnce(&mut Sender, &[Seen; 2], &Controls)) -> Queue {
    let world = World::new();
    let (mut queue, back) = world.pair(&QueueConfig::default());
    let cores = Cores::default().workers(2).unpinned().limits(Limits {
        high: HIGH,
        // Longer than any test: time is not what lets packets be dropped here.
        hold: std::time::Duration::from_secs(3600),
    });
    let (seen, controls) = (<[Seen; 2]>::default(), Controls::default());
    std::thread::scope(|scope| {
        let mut works: Vec<_> = seen.iter().map(Gated).collect();
        let (own, queue) = (controls.clone(), &mut queue);
        let running = scope.spawn(move || cores.run(vec![queue], &mut works, &own));
        // A test that fails must not wait for the cores for ever.
        let stops = Stops(&controls);
        until("the cores", || !controls.cores().is_empty());
        drive(&mut Sender::new(back), &seen, &controls);
        drop(stops);
        running.join().unwrap().unwrap();
    });
    queue
}

/// K-6, S-3: packets of a worker that has room are not held up by one that has none, whose own are dropped and counted,
/// before their buffers are built.
#[test]
fn a_worker_that_is_behind_loses_its_own_packets_and_those_of_the_other_go_on() {
    let mut kept = 0;
    let mut dropped = 0;
    let queue = with_two_workers(|sender, seen, controls| {
        let core = &controls.cores()[0];
        let gate = seen[1].gate.lock().unwrap();
        until("many packets that were dropped", || {
            sender.send();
            // In the ring they stand behind those of the worker that is kept.
            until("the other's packets", || {
                seen[0].packets.load(Relaxed) == sender.sent
            });
            // The last one that was dropped is counted after that, at the end of its visit.
            until("all that was counted", || {
                core.packets.get() == 2 * sender.sent
            });
            core.dropped.get() > 200
        });
        assert_eq!(core.held.get(), 0, "one worker had room all the time");
        assert_eq!(seen[1].packets.load(Relaxed), 0);
        drop(gate);
        dropped = core.dropped.get();
        kept = sender.sent - dropped;
        until("what was kept for it", || {
            seen[1].packets.load(Relaxed) == kept
        });
        // A lane, and what the worker had taken out of it.
        let most = (2 * HIGH + 64) as u64;
        assert!((2 * HIGH as u64..=most).contains(&kept), "{kept}");
        // Now that it has caught up nothing more is lost.
        sender.send();
        until("the next batch", || {
            seen[1].packets.load(Relaxed) == kept + BATCH
        });
        kept += BATCH + sender.sent;
    });
    assert_eq!(count(&queue, "engine_dropped"), dropped);
    assert_eq!(count(&queue, "rx_detached"), kept, "no other was built");
}

/// S-3: while both are behind packets stay in the ring, and none is lost.
#[test]
fn packets_stay_in_the_ring_while_all_workers_are_behind() {
    with_two_workers(|sender, seen, controls| {
        let core = &controls.cores()[0];
        let gates = [seen[0].gate.lock().unwrap(), seen[1].gate.lock().unwrap()];
        until("a held queue", || {
            sender.send();
            core.held.get() > 0
        });
        drop(gates);
        until("all packets", || {
            seen.iter()
                .all(|own| own.packets.load(Relaxed) == sender.sent)
        });
        assert_eq!(core.dropped.get(), 0);
    });
}
