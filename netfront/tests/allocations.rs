//! Nothing is allocated for a packet. In a binary of its own, since it replaces the allocator.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use common::{frame, until, Back, World};
use netfront::engine::bottom_half::{BottomHalf, Budgets, Source, Visit, VisitEnd};
use netfront::engine::clock::Manual;
use netfront::engine::cores::{Controls, Cores, Desk, Origin, Work};
use netfront::engine::restart::Adaptive;
use netfront::engine::schedule::Completion;
use netfront::engine::steering::{
    lane, Bell, Connection, Endpoint, Kind, LaneReceiver, Spread, Steered, Steering, Store, Worker,
    COMMON_KEY,
};
use netfront::packet::INLINE_HEAD;
use netfront::watch::{Limits, TraceFormat, Watch};
use netfront::{Offload, OwnedPacket, Packet, Queue, QueueConfig};

const PACKETS: usize = 10_000;

/// Does the queue's work on some packets that wait in the rings, and tells the allocations of that.
fn work(queue: &mut Queue, sent: &[&[u8]], kept: &mut Vec<OwnedPacket>) -> u64 {
    allocation_counter::measure(|| rounds(queue, sent, kept)).count_total
}

fn rounds(queue: &mut Queue, sent: &[&[u8]], kept: &mut Vec<OwnedPacket>) {
    let deliver = |packet: &mut Packet<'_>| {
        // A kept copy of more than 256 bytes must live somewhere: such packets are only looked at.
        if packet.head().len() <= INLINE_HEAD {
            kept.push(packet.detach());
        }
    };
    queue.receive(64, deliver).expect("a sound rx ring");
    kept.clear();
    queue.reclaim().expect("a sound tx ring");
    for _ in 0..8 {
        queue.send(sent, Offload::default()).expect("room");
    }
    queue.flush().expect("flushed");
    queue.take_events().expect("events");
    queue.arm().expect("armed");
}

fn serve(back: &mut Back, frame: &[u8]) {
    for _ in 0..8 {
        back.deliver(frame);
    }
    while back.fetch().is_some() {}
    back.publish();
}

#[test]
fn nothing_is_allocated_for_ten_thousand_packets_received_kept_and_sent() {
    for (len, untrusted) in [(60, false), (1500, false), (9000, false), (1500, true)] {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig {
            untrusted,
            ..QueueConfig::default()
        });
        let bytes = frame(len, 1);
        let sent = [&bytes[..14], &bytes[14..]];
        let mut kept = Vec::with_capacity(64);
        let allocated: u64 = (0..PACKETS / 8)
            .map(|_| {
                serve(&mut back, &bytes);
                work(&mut queue, &sent, &mut kept)
            })
            .sum();
        assert_eq!(allocated, 0, "{len} bytes, untrusted: {untrusted}");
        assert!(queue.stats().snapshot().get("rx_packets") >= PACKETS as u64);
    }
}

/// Neither while packets are recorded nor after: the buffers belong to whoever writes them out.
#[test]
fn nothing_is_allocated_for_packets_that_are_captured_and_traced_nor_once_that_is_over() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let watch = std::sync::Arc::new(Watch::default());
    queue.watch_by(std::sync::Arc::clone(&watch));
    let bytes = frame(600, 1);
    let mut kept = Vec::with_capacity(64);
    let mut many = |queue: &mut Queue| -> u64 {
        let round = |_| {
            serve(&mut back, &bytes);
            work(queue, &[&bytes], &mut kept)
        };
        (0..1000).map(round).sum()
    };
    let capture = watch.capture(Limits::default()).expect("a capture");
    let format = TraceFormat::Json;
    let trace = watch.trace(format, Limits::default()).expect("a trace");
    assert_eq!(many(&mut queue), 0, "while it is recorded");
    assert!(capture.totals().dropped > 0, "nobody writes it out");
    assert!(trace.totals().recorded > 0);
    drop((capture, trace));
    assert_eq!(many(&mut queue), 0, "once it is over");
}

/// L-7: a packet whose fate is decided before its buffer is built costs no allocation, however long it is: it is only lent.
#[test]
fn nothing_is_allocated_for_packets_that_a_program_drops_before_their_buffers_are_built() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let bytes = frame(9000, 1);
    let mut looked = 0;
    for _ in 0..200 {
        serve(&mut back, &bytes);
        let allocations = allocation_counter::measure(|| {
            let look =
                |packet: &mut Packet<'_>| looked += usize::from(packet.head()[0] == bytes[0]);
            queue.receive(64, look).expect("a sound rx ring");
            queue.flush().expect("flushed");
        });
        assert_eq!(allocations.count_total, 0);
        let [pool, _] = queue.pools();
        assert_eq!(pool.census().leased, 0);
    }
    assert_eq!(looked, 1600);
    assert_eq!(queue.stats().snapshot().get("rx_detached"), 0);
}

/// An event core and its worker in one: packets of ever new connections go through a lane into a store and out of it.
struct Steered64 {
    steering: Steering<u64>,
    lane: LaneReceiver<Steered<u64>>,
    store: Store<u64>,
    packets: u64,
}

impl Source for Steered64 {
    fn visit(&mut self, _queue: usize, weight: usize) -> Visit {
        for _ in 0..weight {
            self.packets += 1;
            let end = |port| Endpoint {
                address: [1; 16],
                port,
            };
            let connection = Connection {
                kind: Kind::UdpV6,
                source: end(self.packets as u16),
                destination: end(1),
            };
            if self.packets.is_multiple_of(5) {
                let _ = self.steering.bind(connection, 0);
            }
            self.steering
                .send_of(Some(connection), self.packets)
                .unwrap();
            self.steering.unbind(&connection);
        }
        while let Some(steered) = self.lane.take() {
            self.store.put(steered.connection, steered.packet).unwrap();
            self.store.take(&steered.connection).unwrap();
            self.lane.finish(1);
        }
        Visit {
            packets: weight,
            end: VisitEnd::More,
        }
    }

    fn complete(&mut self, _queue: usize) -> Completion {
        Completion::Idle
    }

    fn end_round(&mut self) {
        self.steering.end_round(|_| {});
    }

    fn waiting(&self) -> usize {
        0
    }
}

#[test]
fn the_engine_allocates_nothing_for_a_packet_nor_for_a_connection() {
    let (sender, lane) = lane(256);
    let bell = Arc::new(Bell::new());
    let worker = vec![Worker { lane: sender, bell }];
    let mut source = Steered64 {
        steering: Steering::new(worker, &COMMON_KEY, Spread::Symmetric, 16).unwrap(),
        lane,
        store: Store::new(256),
        packets: 0,
    };
    let mut core = BottomHalf::new(1, Budgets::default(), Adaptive::new());
    assert!(core.list(0));
    let clock = Manual::default();
    let allocations = allocation_counter::measure(|| {
        while source.packets < PACKETS as u64 * 10 {
            core.run(&mut source, &clock);
        }
    });
    assert_eq!(allocations.count_total, 0);
}

/// Sends every packet back, and counts what that allocates in the worker's thread.
struct Answers<'a>(&'a AtomicU64);

impl Work for Answers<'_> {
    fn work(&mut self, packet: OwnedPacket, origin: &Origin, desk: &mut Desk<'_>) {
        let allocations = allocation_counter::measure(|| {
            desk.send_slices(origin.queue, &[packet.head()], Offload::default())
                .expect("a way back");
        });
        self.0.fetch_add(allocations.count_total, Relaxed);
    }
}

/// K-13: a worker's frames are in buffers of those that were sent before.
#[test]
fn frames_of_a_worker_allocate_as_many_buffers_as_are_on_their_way_at_once() {
    const FRAMES: u64 = 4000;
    const AT_ONCE: u64 = 8;
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let (controls, allocated) = (Controls::default(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (own, mut works) = (controls.clone(), [Answers(&allocated)]);
        let running = scope.spawn(move || {
            let cores = Cores::default().workers(1).unpinned();
            cores.run(vec![&mut queue], &mut works, &own)
        });
        // A test that fails does not wait for the cores for ever.
        let stops = Stops(&controls);
        let bytes = frame(60, 1);
        let (mut sent, mut answers) = (0, 0);
        while answers < FRAMES {
            for _ in 0..AT_ONCE {
                back.deliver(&bytes);
            }
            sent += AT_ONCE;
            until("all answers", || {
                while back.fetch().is_some() {
                    answers += 1;
                }
                back.publish();
                answers == sent
            });
        }
        drop(stops);
        running.join().unwrap().unwrap();
    });
    let allocated = allocated.into_inner();
    assert!((1..=4 * AT_ONCE).contains(&allocated), "{allocated}");
}

struct Stops<'c>(&'c Controls);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
