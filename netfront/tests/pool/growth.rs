//! Growing in batches, inline and by the control thread; the limit; shrinking.

use std::sync::Arc;
use std::time::Duration;

use hypervisor::Access;
use netback_sim::{peer, Backend, Config};
use netfront::pool::{Pool, PoolConfig, BATCH};
use netfront::{Device, Offload, PoolPolicy, Queue, QueueConfig, Wake};

use crate::common::{
    count, detach_all, frame, receive_all, until, World, BACK, FRONT, PATIENCE, SLOTS,
};

fn pages(rx_pages: usize, rx_limit: usize) -> QueueConfig {
    QueueConfig {
        rx_pages,
        rx_limit,
        ..QueueConfig::default()
    }
}

fn pool(world: &World, capacity: usize, limit: usize) -> Pool {
    let (access, policy) = (Access::ReadWrite, PoolPolicy::Pool);
    let config = PoolConfig {
        capacity,
        limit,
        access,
        policy,
        scrub: false,
    };
    Pool::new(&world.front, BACK, config).unwrap()
}

/// H-10: the pool grows by batches, inline, when nobody else does it.
#[test]
fn a_pool_without_a_control_thread_grows_inline_by_whole_batches_and_counts_it() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&pages(SLOTS, 2 * SLOTS));
    let mut kept = Vec::new();
    for seed in 0..40 {
        back.deliver(&frame(1000, seed));
        kept.extend(detach_all(&mut queue));
        assert_eq!(back.take_posted(), SLOTS, "the ring stays full");
    }
    queue.export();
    let census = queue.pools()[0].census();
    assert_eq!((census.granted, census.leased), (SLOTS + 2 * BATCH, 40));
    assert_eq!(count(&queue, "pool_grown_inline"), 2 * BATCH as u64);
    assert_eq!(count(&queue, "grants"), 2 * BATCH as u64);
    assert_eq!(count(&queue, "rx_condensed"), 0);
}

/// H-10: the control thread grants before the pool is empty, so that the data path does not.
#[test]
fn the_control_thread_grows_a_pool_that_runs_low_before_it_is_empty() {
    let world = World::new();
    let pace = peer::Pace {
        rate: 2000,
        burst: 8,
        count: 0,
    };
    let source = peer::Source::new(
        netback_sim::traffic::Generator::new("1000".parse().unwrap(), 1).unwrap(),
        pace,
    );
    let backend = Backend::start(&world.back, Config::new(FRONT, source)).unwrap();
    let config = pages(SLOTS + 2 * BATCH, SLOTS + 8 * BATCH);
    let mut device = Device::builder(0)
        .queue(config)
        .connect(&world.front)
        .unwrap();
    let mut kept = Vec::new();
    while kept.len() < 5 * BATCH {
        let queue = device.queue();
        queue
            .receive(8, |packet| kept.push(packet.detach()))
            .unwrap();
        queue.flush().unwrap();
        // However slow the control thread is on this machine, it comes before the pool is empty.
        until("a stock of pages", || {
            queue.pools()[0].census().free >= BATCH
        });
        queue.wait(Duration::from_millis(50)).unwrap();
    }
    let queue = device.queue();
    queue.export();
    assert!(queue.pools()[0].census().granted >= SLOTS + 5 * BATCH);
    assert!(
        queue
            .growth()
            .pages
            .load(std::sync::atomic::Ordering::Relaxed)
            > 0
    );
    assert_eq!(
        count(queue, "pool_grown_inline"),
        0,
        "never in the data path"
    );
    drop(kept);
    device.close().unwrap();
    backend.stop().unwrap();
}

#[test]
fn at_its_limit_the_pool_copies_large_packets_and_receiving_never_stops() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&pages(SLOTS, SLOTS + BATCH));
    let mut kept = Vec::new();
    for seed in 0..300 {
        back.deliver(&frame(3000, seed));
        kept.extend(detach_all(&mut queue));
        assert_eq!(kept.len(), seed + 1, "every packet comes through");
        assert!(back.take_posted() >= SLOTS - BATCH);
    }
    let condensed = count(&queue, "rx_condensed");
    assert!(condensed > 200, "{condensed} were copied");
    let census = queue.pools()[0].census();
    assert!(census.granted <= SLOTS + BATCH, "{census:?}");
    for (seed, packet) in kept.iter().enumerate() {
        assert_eq!(packet.to_vec(), frame(3000, seed));
    }
    // With pages at home again, packets are lent again.
    drop(kept);
    receive_all(&mut queue);
    back.deliver(&frame(3000, 0));
    assert_eq!(detach_all(&mut queue)[0].fragments().len(), 1);
    assert_eq!(count(&queue, "rx_condensed"), condensed);
}

#[test]
fn when_the_hypervisor_refuses_more_grants_receiving_never_stops() {
    // 256 transmit pages, 2 rings, and room for 330 pages where 768 were asked for.
    let world = World::with_grant_limit(256 + 2 + 330);
    let (mut queue, mut back) = world.pair(&pages(320, 768));
    let mut kept = std::collections::VecDeque::new();
    for seed in 0..300 {
        assert!(
            back.take_posted() > 0,
            "the ring is empty after {seed} packets"
        );
        for _ in 0..back.posted.len().min(64) {
            back.deliver(&frame(2000, seed));
        }
        kept.extend(detach_all(&mut queue));
        // One comes home for each batch that leaves: the pool must not take that for plenty.
        kept.pop_front();
        // The counting before each sleep is when it is noticed.
        queue.export();
    }
    assert!(count(&queue, "rx_condensed") > 1000);
}

#[test]
fn a_ring_that_ran_empty_is_filled_when_pages_come_home_although_its_owner_sleeps() {
    let world = World::with_grant_limit(256 + 2 + SLOTS);
    for _ in 0..5 {
        let (mut queue, mut back) = world.pair(&pages(SLOTS, 768));
        // One burst takes all pages away before the pool learns that there are no more.
        for seed in 0..64 {
            back.deliver(&frame(4 * 4096, seed));
        }
        let kept = detach_all(&mut queue);
        assert_eq!((kept.len(), back.take_posted()), (64, 0));
        // Nothing is posted, so no packet and no event can come.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                drop(kept);
            });
            // From an eighth on packets come again, and with them events.
            while back.take_posted() < SLOTS / 8 {
                assert_ne!(queue.wait(PATIENCE).unwrap(), Wake::Timeout);
                receive_all(&mut queue);
            }
        });
        receive_all(&mut queue);
        assert_eq!(back.take_posted(), SLOTS);
    }
}

#[test]
fn pages_that_came_home_to_an_empty_ring_before_the_sleep_end_it_at_once() {
    let world = World::with_grant_limit(256 + 2 + SLOTS);
    let (mut queue, mut back) = world.pair(&pages(SLOTS, 768));
    for seed in 0..64 {
        back.deliver(&frame(4 * 4096, seed));
    }
    drop(detach_all(&mut queue));
    assert_eq!(back.take_posted(), 0);
    assert_eq!(queue.wait(PATIENCE).unwrap(), Wake::Work);
    receive_all(&mut queue);
    assert_eq!(back.take_posted(), SLOTS);
}

#[test]
fn a_pool_that_is_refused_its_pages_starts_smaller() {
    let world = World::with_grant_limit(100);
    let mut pool = pool(&world, 512, 768);
    assert_eq!(
        pool.census().granted,
        96,
        "whole batches, as many as there are"
    );
    let held: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
    assert_eq!(held.len(), 96);
    assert!(pool.is_short());
    let config = PoolConfig {
        capacity: 32,
        limit: 32,
        access: Access::ReadWrite,
        policy: PoolPolicy::Pool,
        scrub: false,
    };
    Pool::new(&world.front, BACK, config).expect_err("not even one batch");
}

#[test]
fn a_device_fits_its_pools_to_the_limit_of_grants() {
    for limit in [70, 100, 300, 500, 1024] {
        let world = World::with_grant_limit(limit);
        let backend = Backend::start(&world.back, Config::new(FRONT, peer::Echo::new())).unwrap();
        let mut device = Device::builder(0).connect(&world.front).unwrap();
        let mut sent = frame(3000, 1);
        sent[..12].fill(2);
        for _ in 0..20 {
            device.queue().send(&[&sent], Offload::default()).unwrap();
            device.queue().flush().unwrap();
            until("an echo", || {
                device.queue().reclaim().unwrap();
                receive_all(device.queue()).len() == 1
            });
        }
        let [rx, tx] = device.queue().pools().map(|pool| pool.census().granted);
        assert!(rx + tx + 2 <= limit, "{rx} + {tx} + 2 of {limit}");
        device.close().unwrap();
        backend.stop().unwrap();
    }
}

#[test]
fn a_limit_below_what_any_queue_needs_is_an_error_and_no_panic() {
    for limit in [1, 3, 16, 33, 40, 65] {
        let world = World::with_grant_limit(limit);
        let backend = Backend::start(&world.back, Config::new(FRONT, peer::Echo::new())).unwrap();
        let error = Device::builder(0)
            .connect(&world.front)
            .expect_err("too few");
        assert!(error.to_string().contains("limit"), "{error}");
        let counters = world.front.counters();
        assert_eq!(
            counters.grants, counters.revokes,
            "what was shared is taken back"
        );
        backend.abandon().unwrap();
    }
}

#[test]
fn growing_inline_and_by_the_control_thread_at_once_stays_within_the_limit() {
    let world = World::new();
    let backend = Backend::start(&world.back, Config::new(FRONT, peer::Sink::new())).unwrap();
    let limit = SLOTS + 2 * BATCH;
    for _ in 0..5 {
        let config = pages(SLOTS, limit);
        let mut device = Device::builder(0)
            .queue(config)
            .connect(&world.front)
            .unwrap();
        let pool = &mut device.queue().pools()[0];
        // Low, so the control thread is asked; and empty before it has answered.
        let mut held = Vec::new();
        for step in 0..100 {
            pool.collect();
            held.extend(pool.take());
            let census = pool.census();
            assert!(census.granted <= limit, "{census:?}");
            if step >= 2 * BATCH {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        assert_eq!(held.len(), 2 * BATCH);
        held.into_iter().for_each(|page| pool.put(page));
        device.close().unwrap();
    }
    backend.stop().unwrap();
}

#[test]
fn an_idle_queue_gives_back_what_it_grew_by_and_keeps_what_it_started_with() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&pages(SLOTS, 2 * SLOTS));
    for seed in 0..100 {
        back.deliver(&frame(1000, seed));
    }
    let kept = detach_all(&mut queue);
    let grown = queue.pools()[0].census().granted;
    assert_eq!(grown, SLOTS + 4 * BATCH);
    assert_eq!(queue.idle(), 0, "no batch is free as a whole");
    drop(kept);
    let before = world.front.counters().revokes;
    let mut freed = 0;
    loop {
        match queue.idle() {
            0 => break,
            pages => freed += pages,
        }
        assert_eq!(freed % BATCH, 0, "whole batches");
    }
    let census = queue.pools()[0].census();
    assert_eq!(census.granted, grown - freed);
    assert!(census.granted >= SLOTS, "{census:?}");
    assert!(freed > 0, "some batch was free");
    assert_eq!(world.front.counters().revokes - before, freed as u64);
    assert_eq!(back.take_posted(), SLOTS, "what is posted stays posted");
    back.deliver(&frame(1000, 1));
    assert_eq!(receive_all(&mut queue), [frame(1000, 1)]);
}

#[test]
fn pages_that_were_freed_can_be_granted_again_in_the_same_pool() {
    let world = World::new();
    let mut pool = pool(&world, BATCH, 4 * BATCH);
    for _ in 0..10 {
        let held: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(held.len(), 4 * BATCH);
        held.into_iter().for_each(|page| pool.put(page));
        while pool.shrink() > 0 {}
        assert_eq!(pool.census().granted, BATCH);
    }
}

#[test]
fn a_second_queue_at_the_default_limit_gets_a_smaller_pool_in_both_directions() {
    let world = World::with_grant_limit(1024);
    let config = QueueConfig::default();
    let open = || Queue::open(&world.front, BACK, &config, false, Arc::default());
    let mut first = open().expect("the first");
    let whole = first.pools().map(|pool| pool.census().granted);
    assert_eq!(whole, [config.rx_pages, config.tx_pages]);
    let mut second = open().expect("what is left is enough");
    let [rx, tx] = second.pools().map(|pool| pool.census().granted);
    assert!(rx >= 2 * BATCH && tx >= BATCH, "{rx} and {tx} pages");
    assert!(rx + tx + 2 <= 1024 - 770, "{rx} and {tx} pages");
}
