//! The ways that the pool is compared with: same packets, other costs.

use netfront::pool::BATCH;
use netfront::{PoolPolicy, QueueConfig};

use crate::common::{count, detach_all, frame, receive_all, World, SLOTS};

fn config(policy: PoolPolicy) -> QueueConfig {
    QueueConfig {
        policy,
        ..QueueConfig::default()
    }
}

#[test]
fn every_policy_delivers_the_same_packets() {
    for policy in PoolPolicy::ALL {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&config(policy));
        for seed in 0..600 {
            let sent = frame(60 + (seed * 977) % 20_000, seed);
            back.deliver(&sent);
            if seed % 3 == 0 {
                let packet = detach_all(&mut queue).remove(0);
                assert_eq!(packet.to_vec(), sent, "{policy}");
            } else {
                assert_eq!(receive_all(&mut queue), [sent], "{policy}");
            }
            assert_eq!(back.take_posted(), SLOTS, "{policy}");
        }
    }
}

#[test]
fn copy_always_lends_no_page_and_grants_none() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&config(PoolPolicy::CopyAlways));
    let before = world.front.counters();
    for seed in 0..500 {
        back.deliver(&frame(9000, seed));
        let packet = detach_all(&mut queue).remove(0);
        assert_eq!((packet.head().len(), packet.fragments().len()), (9000, 0));
    }
    assert_eq!(world.front.counters().grants, before.grants);
    assert_eq!(count(&queue, "rx_copied_bytes"), 500 * 9000);
}

#[test]
fn per_packet_ends_the_grant_of_every_page_that_was_used() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&config(PoolPolicy::PerPacket));
    let gref = back.deliver(&frame(1000, 1))[0].gref;
    let kept = detach_all(&mut queue);
    assert!(
        back.read(gref, 0, 64).is_ok(),
        "lent, so it is still granted"
    );
    drop(kept);
    receive_all(&mut queue);
    back.take_posted();
    assert!(back.posted.iter().all(|posted| posted.gref != gref));
    assert!(back.read(gref, 0, 64).is_err(), "the grant has ended");
    assert_eq!(count(&queue, "rx_recycled"), 0);
}

#[test]
fn per_packet_grants_and_ends_one_page_for_each_packet_that_is_sent_too() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&config(PoolPolicy::PerPacket));
    let before = world.front.counters();
    for seed in 0..300 {
        queue
            .send(&[&frame(700, seed)], Default::default())
            .unwrap();
        queue.flush().unwrap();
        assert_eq!(back.fetch().unwrap().0, frame(700, seed));
        back.publish();
        assert_eq!(queue.reclaim().unwrap(), 1);
    }
    let after = world.front.counters();
    assert_eq!(
        (after.grants - before.grants, after.revokes - before.revokes),
        (300, 300)
    );
}

#[test]
fn no_recycle_uses_every_page_once_and_grants_by_batches() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&config(PoolPolicy::NoRecycle));
    let before = world.front.counters();
    for seed in 0..1000 {
        back.deliver(&frame(100, seed));
        receive_all(&mut queue);
        assert_eq!(back.take_posted(), SLOTS);
    }
    let after = world.front.counters();
    let grants = after.grants - before.grants;
    // 256 pages were in stock, the other 744 were granted.
    assert!((744..=1000).contains(&grants), "{grants}");
    assert_eq!(grants % BATCH as u64, 0);
    assert!(
        after.revokes - before.revokes >= grants - 4 * BATCH as u64,
        "freed as they are used"
    );
    assert_eq!(count(&queue, "rx_recycled"), 0);
}
