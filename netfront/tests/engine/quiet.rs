//! What one queue goes through does not end the run of its cores, nor stop the other queues.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use netfront::engine::cores::{Controls, Cores, Desk, Origin, Work};
use netfront::{Offload, OwnedPacket, Queue, QueueConfig};

use crate::common::{count, frame, until, World};

/// Keeps what comes, or only counts it.
struct Keep<'k> {
    kept: Option<&'k Mutex<Vec<OwnedPacket>>>,
    packets: &'k AtomicU64,
}

impl Work for Keep<'_> {
    fn work(&mut self, packet: OwnedPacket, _: &Origin, _: &mut Desk<'_>) {
        if let Some(kept) = self.kept {
            kept.lock().unwrap().push(packet);
        }
        self.packets.fetch_add(1, Relaxed);
    }
}

/// Ends the cores, also when the test fails.
struct Stops<'c>(&'c Controls);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Runs one event core over these queues while `drive` plays the backends. Returns how often the run ended.
fn run(queues: &mut [Queue], mut work: Keep<'_>, drive: impl FnOnce(&Controls)) -> u64 {
    let (controls, runs) = (Controls::default(), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (own, counted) = (controls.clone(), &runs);
        let running = scope.spawn(move || {
            while !own.is_stopping() {
                let cores = Cores::default().unpinned();
                let works = std::slice::from_mut(&mut work);
                cores.run(queues.iter_mut().collect(), works, &own)?;
                counted.fetch_add(1, Relaxed);
            }
            Ok::<(), netfront::Error>(())
        });
        let stops = Stops(&controls);
        drive(&controls);
        drop(stops);
        running.join().unwrap().unwrap();
    });
    runs.into_inner()
}

/// Where packets took nearly all pages along, each page that comes home wakes the core. That is no call.
#[test]
fn pages_that_come_home_to_an_empty_ring_are_posted_and_end_no_run() {
    const PAGES: usize = 256;
    const PACKETS: usize = 60;
    // Two rings, the pages of one, and a batch for sending: the pool cannot grow.
    let world = World::with_grant_limit(2 + PAGES + 32);
    let (queue, mut back) = world.pair(&QueueConfig {
        rx_pages: PAGES,
        rx_limit: 2 * PAGES,
        tx_pages: 32,
        ..QueueConfig::default()
    });
    let stats = Arc::clone(queue.stats());
    let mut queues = [queue];
    let (kept, packets) = (Mutex::new(Vec::new()), AtomicU64::new(0));
    let work = Keep {
        kept: Some(&kept),
        packets: &packets,
    };
    let runs = run(&mut queues, work, |_| {
        let large = frame(4 * 4096, 1);
        let pieces: Vec<&[u8]> = large.chunks(4096).collect();
        back.take_posted();
        // All of them in one visit, before it can be short of pages.
        for _ in 0..PACKETS {
            back.put_pieces(&pieces, 0, &Offload::default());
        }
        back.publish();
        until("all packets", || packets.load(Relaxed) == PACKETS as u64);
        let leased = || -> usize {
            let kept = kept.lock().unwrap();
            kept.iter().map(|packet| packet.fragments().len()).sum()
        };
        let away = leased();
        assert!(
            away > PAGES - 32,
            "{away} pages are away: the ring is not dry"
        );
        until("the rest to be posted", || {
            back.take_posted() == PAGES - away
        });
        // One after the other, so that each finds the core asleep or about to sleep. With an eighth of the ring posted packets
        // can come again, and pages wake nobody.
        while back.take_posted() < 32 {
            drop(kept.lock().unwrap().pop());
            until("its pages", || back.take_posted() == PAGES - leased());
        }
    });
    assert_eq!(runs, 1, "only its stop ends the run");
    assert!(stats.snapshot().get("rx_starved") > 0);
}

#[test]
fn a_backend_that_rings_in_vain_is_answered_late_and_no_other_queue_waits_for_that() {
    let world = World::with_grant_limit(4096);
    let (bell, mut rings) = world.pair(&QueueConfig::default());
    let (busy, mut back) = world.pair(&QueueConfig::default());
    let stats = Arc::clone(bell.stats());
    let mut queues = [bell, busy];
    let packets = AtomicU64::new(0);
    let work = Keep {
        kept: None,
        packets: &packets,
    };
    let small = frame(60, 1);
    let mut sent = 0;
    run(&mut queues, work, |_| {
        until("a bell that is answered late", || {
            for _ in 0..100 {
                rings.events.notify(rings.rx_port).unwrap();
            }
            back.take_posted();
            back.deliver(&small);
            sent += 1;
            until("the other queue's packet", || packets.load(Relaxed) == sent);
            stats.snapshot().get("events_delayed") >= 20
        });
        // And a packet of its own is not lost over it.
        rings.take_posted();
        rings.deliver(&small);
        sent += 1;
        until("its own packet", || packets.load(Relaxed) == sent);
    });
    assert_eq!(count(&queues[1], "events_delayed"), 0);
}
