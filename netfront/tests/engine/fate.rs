//! A program decides what becomes of a packet before its buffer is built, by the packet that is lent to it, and after, by the buffer.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, Sender};

use netfront::engine::cores::{Controls, Cores, Desk, Origin, Verdict, Work};
use netfront::pool::Census;
use netfront::{OwnedPacket, Packet, Queue, QueueConfig};

use crate::common::{count, frame, until, World, SLOTS};

/// The number of a packet's frame: see [`number`].
fn numbered(number: u8) -> Vec<u8> {
    let mut frame = frame(2000, 1);
    frame[0] = number;
    frame
}

fn number(head: &[u8]) -> u8 {
    head[0]
}

/// The pool of a queue whose pages are all home: nothing is away, and nothing was granted or lost.
fn assert_at_home(queue: &mut Queue, before: Census) {
    let now = queue.pools()[0].census();
    assert_eq!((now.leased, now.quarantined), (0, 0));
    assert_eq!(now.granted, before.granted);
    assert_eq!(now.free + now.posted, now.granted);
}

/// L-7: what is not detached was decided before: its page is posted again at once. What is detached is decided by whoever has
/// it: dropped here, or passed on, and its page comes home when the last one is done with it.
#[test]
fn a_packet_is_dropped_before_its_buffer_is_built_or_after_or_passed_on() {
    const PACKETS: u8 = 120;
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let before = queue.pools()[0].census();
    for packet in 0..PACKETS {
        back.deliver(&numbered(packet));
    }
    // Before: every third one stays what it is, lent.
    let mut built = Vec::new();
    let mut decide = |packet: &mut Packet<'_>| {
        if !number(packet.head()).is_multiple_of(3) {
            built.push(packet.detach());
        }
    };
    while queue.receive(64, &mut decide).unwrap() > 0 {}
    queue.flush().unwrap();
    assert_eq!(count(&queue, "rx_packets"), 120);
    assert_eq!(count(&queue, "rx_detached"), 80);
    assert_eq!(queue.pools()[0].census().leased, 80);
    assert_eq!(back.take_posted(), SLOTS, "the ring is full again");
    // After: half of those are dropped, the others go on.
    built.retain(|packet| number(packet.head()) % 3 == 1);
    assert_eq!(queue.pools()[0].census().leased, 40);
    let passed_on = std::thread::spawn(move || built.len()).join().unwrap();
    assert_eq!(passed_on, 40);
    assert_at_home(&mut queue, before);
}

/// Decides after the buffer was built: drops every other packet, passes the others on.
struct After<'a> {
    dropped: &'a AtomicU64,
    next: Sender<OwnedPacket>,
}

impl Work for After<'_> {
    fn work(&mut self, packet: OwnedPacket, _: &Origin, _: &mut Desk<'_>) {
        match number(packet.head()) % 2 {
            0 => {
                self.dropped.fetch_add(1, Relaxed);
            }
            _ => self.next.send(packet).expect("a next program"),
        }
    }
}

/// Runs these cores over a queue with a filter for every packet below 100, and gives it these packets.
fn run(cores: Cores, packets: u8) {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let before = queue.pools()[0].census();
    let cores = cores.unpinned().filter(|packet, queue| {
        assert_eq!(queue, 0);
        match number(packet.head()) < 100 {
            true => Verdict::Drop,
            false => Verdict::Pass,
        }
    });
    let (controls, dropped) = (Controls::default(), AtomicU64::new(0));
    let (next, passed) = mpsc::channel();
    let mut passed_on = Vec::new();
    std::thread::scope(|scope| {
        let dropped = &dropped;
        let mut works: Vec<_> = (0..cores.works())
            .map(|_| After {
                dropped,
                next: next.clone(),
            })
            .collect();
        let (own, queue) = (controls.clone(), &mut queue);
        let running = scope.spawn(move || cores.run(vec![queue], &mut works, &own));
        // A test that fails does not wait for the cores for ever.
        let stops = Stops(&controls);
        for packet in 0..packets {
            back.deliver(&numbered(packet));
        }
        let filtered = || {
            controls
                .cores()
                .iter()
                .map(|core| core.filtered.get())
                .sum()
        };
        until("all packets", || {
            passed_on.extend(passed.try_iter());
            let after = passed_on.len() as u64 + dropped.load(Relaxed);
            let before: u64 = filtered();
            before + after == u64::from(packets)
        });
        assert_eq!(filtered(), 100);
        drop(stops);
        running.join().unwrap().unwrap();
    });
    let after = u64::from(packets) - 100;
    assert_eq!(dropped.into_inner(), after / 2);
    assert_eq!(passed_on.len() as u64, after / 2);
    assert_eq!(count(&queue, "rx_packets"), u64::from(packets));
    assert_eq!(count(&queue, "rx_detached"), after, "no other was built");
    assert_eq!(queue.pools()[0].census().leased as u64, after / 2);
    assert!(passed_on
        .iter()
        .all(|packet| number(packet.head()) % 2 == 1));
    drop(passed_on);
    assert_at_home(&mut queue, before);
}

struct Stops<'c>(&'c Controls);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// L-7: also where packets go to workers: what the filter drops in the event core never goes to one.
#[test]
fn a_filter_decides_in_the_event_core_and_a_worker_after_it() {
    run(Cores::default().workers(1), 200);
}

/// L-7: and where the event core works on its packets itself.
#[test]
fn a_filter_decides_before_a_handler_of_the_same_core() {
    run(Cores::default(), 200);
}
