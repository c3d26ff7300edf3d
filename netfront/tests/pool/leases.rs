//! Pages that are away with consumers, and what a backend can still do to them.

use std::thread;

use hypervisor::CopyStatus;
use netback_sim::{peer, Backend, Config, Toolstack};
use netfront::{Device, OwnedPacket, QueueConfig};

use crate::common::{count, detach_all, frame, receive_all, until, Back, World, FRONT, SLOTS};

fn lend(queue: &mut netfront::Queue, back: &mut Back, packets: usize) -> Vec<OwnedPacket> {
    for seed in 0..packets {
        back.deliver(&frame(2000, seed));
    }
    detach_all(queue)
}

#[test]
fn a_lease_dropped_in_another_thread_brings_its_page_back_to_be_posted_again() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    back.deliver(&frame(2000, 0));
    back.take_posted();
    let kept = detach_all(&mut queue);
    assert_eq!(queue.pools()[0].census().leased, 1);
    queue.export();
    assert_eq!(count(&queue, "rx_recycled"), 0, "it is away");
    thread::spawn(move || drop(kept)).join().unwrap();
    assert_eq!(queue.pools()[0].census().leased, 0);
    queue.export();
    for name in ["rx_detached", "rx_recycled"] {
        assert_eq!(count(&queue, name), 1, "{name}");
    }
}

#[test]
fn many_threads_that_drop_leases_at_once_lose_none() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    for _ in 0..20 {
        let mut kept = lend(&mut queue, &mut back, 100);
        thread::scope(|scope| {
            while !kept.is_empty() {
                let part = kept.split_off(kept.len().saturating_sub(13));
                scope.spawn(move || drop(part));
            }
            // The owner collects while they come home.
            for _ in 0..50 {
                queue.pools()[0].collect();
            }
        });
        let census = queue.pools()[0].census();
        assert_eq!(
            (census.leased, census.posted, census.free),
            (0, SLOTS, SLOTS)
        );
    }
}

#[test]
fn leases_outlive_the_queue_and_what_they_hold_stays_readable() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let kept = lend(&mut queue, &mut back, 10);
    queue.stop();
    drop((queue, back));
    let counters = world.front.counters();
    assert!(
        counters.grants > counters.revokes,
        "a lent page stays granted"
    );
    for (seed, packet) in kept.iter().enumerate() {
        assert_eq!(packet.to_vec(), frame(2000, seed));
    }
    thread::spawn(move || drop(kept)).join().unwrap();
    let counters = world.front.counters();
    assert_eq!(counters.grants, counters.revokes);
}

#[test]
fn leases_outlive_the_device_and_its_next_connection() {
    let world = World::new();
    let backend = Backend::start(&world.back, Config::new(FRONT, peer::Echo::new())).unwrap();
    let mut device = Device::builder(0).connect(&world.front).unwrap();
    let mut sent = frame(1500, 5);
    sent[..12].fill(2);
    let echo = |device: &mut Device| {
        device.queue().send(&[&sent], Default::default()).unwrap();
        device.queue().flush().unwrap();
        let mut kept = Vec::new();
        until("an echo", || {
            kept.extend(detach_all(device.queue()));
            !kept.is_empty()
        });
        assert_eq!(kept[0].fragments().len(), 1);
        kept.remove(0)
    };
    let first = echo(&mut device);
    let mut device = device.reconnect().unwrap();
    let second = echo(&mut device);
    assert_eq!(
        device.queue().pools()[0].census().leased,
        1,
        "of this connection only"
    );
    device.close().unwrap();
    assert_eq!(first.to_vec(), second.to_vec());
    drop((first, second));
    let counters = world.front.counters();
    assert_eq!(counters.grants, counters.revokes);
    backend.stop().unwrap();
}

#[test]
fn with_scrub_no_page_is_posted_with_what_a_packet_left_in_it() {
    let world = World::new();
    let config = QueueConfig {
        scrub: true,
        rx_pages: 320,
        rx_limit: 320,
        ..QueueConfig::default()
    };
    let (mut queue, mut back) = world.pair(&config);
    let clean = |queue: &mut netfront::Queue, back: &mut Back, what: &str| {
        receive_all(queue);
        back.take_posted();
        let posted = back.posted.clone();
        for page in posted {
            let bytes = back.read(page.gref, 0, 4096).unwrap();
            assert!(
                bytes.iter().all(|byte| *byte == 0),
                "{what}: page {}",
                page.gref
            );
        }
    };
    for len in [60, 255, 256, 4096, 20_000] {
        back.deliver(&frame(len, 1));
        clean(&mut queue, &mut back, "delivered");
    }
    // Lent and come home; until the pool is short, then copied.
    let mut kept = Vec::new();
    for seed in 0..40 {
        back.deliver(&frame(16_000, seed));
        kept.extend(detach_all(&mut queue));
    }
    assert!(count(&queue, "rx_condensed") > 0);
    clean(&mut queue, &mut back, "copied because the pool was short");
    drop(kept);
    clean(&mut queue, &mut back, "come home");
    // Kept, so that the pages that were lent before are the next to be posted.
    let mut kept = Vec::new();
    for seed in 0..20 {
        back.deliver(&frame(8000, seed));
        kept.extend(detach_all(&mut queue));
        clean(&mut queue, &mut back, "after that");
    }
}

/// Under `--untrusted` a backend that writes after its response is not noticed by anybody.
#[test]
fn an_untrusted_backend_cannot_change_a_packet_after_its_response() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig {
        untrusted: true,
        ..QueueConfig::default()
    });
    let mut kept = Vec::new();
    for len in [60, 1500, 20_000, 65_535] {
        let sent = frame(len, 9);
        let pages = back.deliver(&sent);
        queue
            .receive(64, |packet| {
                assert_eq!(packet.fragments().len(), 0, "nothing is looked at in place");
                for page in &pages {
                    assert_eq!(back.write(page.gref, 0, &[0xee; 4096]), CopyStatus::Okay);
                }
                assert_eq!(packet.head(), sent, "copied before it was delivered");
                kept.push((packet.detach(), sent.clone()));
            })
            .unwrap();
        queue.flush().unwrap();
    }
    for (packet, sent) in &kept {
        assert_eq!(packet.fragments().len(), 0, "nothing is lent");
        assert_eq!(packet.to_vec(), *sent);
    }
    assert_eq!(queue.pools()[0].census().leased, 0);
    assert_eq!(count(&queue, "rx_large"), 0);
}

#[test]
fn a_toolstack_that_says_trusted_0_makes_the_device_copy_everything() {
    for (trusted, untrusted) in [(true, false), (true, true), (false, false)] {
        let world = World::new();
        let mut config = Config::new(FRONT, peer::Echo::new());
        config.toolstack = Some(Toolstack {
            trusted,
            ..Toolstack::default()
        });
        let backend = Backend::start(&world.back, config).unwrap();
        let queue = QueueConfig {
            untrusted,
            ..QueueConfig::default()
        };
        let mut device = Device::builder(0)
            .queue(queue)
            .connect(&world.front)
            .unwrap();
        assert_eq!(device.link().untrusted, untrusted || !trusted);
        let mut sent = frame(1500, 5);
        sent[..12].fill(2);
        device.queue().send(&[&sent], Default::default()).unwrap();
        device.queue().flush().unwrap();
        until("an echo", || receive_all(device.queue()).len() == 1);
        let large = u64::from(trusted && !untrusted);
        assert_eq!(count(device.queue(), "rx_large"), large);
        device.close().unwrap();
        backend.stop().unwrap();
    }
}

#[test]
fn what_the_backend_has_not_answered_is_quarantined_when_the_queue_stops() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    back.deliver(&frame(9000, 1));
    let kept = detach_all(&mut queue);
    for _ in 0..5 {
        queue.send(&[&frame(100, 1)], Default::default()).unwrap();
    }
    queue.flush().unwrap();
    queue.stop();
    let [rx, tx] = queue.pools().map(|pool| pool.census());
    assert_eq!((rx.quarantined, rx.leased, rx.posted), (SLOTS, 3, 0));
    assert_eq!((tx.quarantined, tx.posted), (5, 0));
    assert_eq!(count(&queue, "pool_quarantined"), SLOTS as u64 + 5);
    // They are never given out again.
    drop(kept);
    let pool = &mut queue.pools()[1];
    let held: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(held.len(), 256 - 5);
}
