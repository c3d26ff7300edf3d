//! H-1 to H-14: what a pool of granted pages must do.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use hypervisor::{Access, CopyStatus, DomId, Domain};
use netback_sim::{peer, Backend, Config};
use netfront::packet::HEADER_LIMIT;
use netfront::pool::{Pool, PoolConfig, BATCH};
use netfront::queue::Ports;
use netfront::{Device, Offload, PoolPolicy, QueueConfig, Wants};

use crate::common::{count, detach_all, frame, receive_all, World, BACK, FRONT, PATIENCE, SLOTS};

fn pool_config(capacity: usize, limit: usize) -> PoolConfig {
    let (access, policy) = (Access::ReadWrite, PoolPolicy::Pool);
    PoolConfig {
        capacity,
        limit,
        access,
        policy,
        scrub: false,
    }
}

/// H-1: after set-up the pool holds references of free pages that the driver domain may use already.
#[test]
fn at_the_start_every_page_is_free_zero_and_granted_to_the_driver_domain_alone() {
    let world = World::new();
    let stranger = Domain::simulated(&world.socket(), DomId(7)).unwrap();
    let mut pool = Pool::new(&world.front, BACK, pool_config(100, 100)).unwrap();
    let census = pool.census();
    assert_eq!((census.granted, census.free, census.posted), (100, 100, 0));
    let mut driver = world.back.foreign(FRONT).unwrap();
    let mut other = stranger.foreign(FRONT).unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..100 {
        let page = pool.take().unwrap();
        let gref = pool.reference(&page);
        assert!(seen.insert(gref), "{gref} is in the pool twice");
        let mapped = driver
            .map(&[gref], Access::ReadWrite)
            .expect("granted, writable");
        let mut bytes = [1; 4096];
        mapped.page(0).copy_out(0, &mut bytes);
        assert_eq!(bytes, [0; 4096], "a page is zero when it is shared");
        other
            .map(&[gref], Access::ReadOnly)
            .expect_err("granted to one domain only");
    }
}

/// H-2: a ring is established that both domains share. L-5: with one event channel, or one for each direction.
#[test]
fn both_rings_are_pages_that_the_driver_domain_maps_and_their_channels_ring() {
    let world = World::new();
    for split in [true, false] {
        let (mut queue, mut back) = world.pair_with(&QueueConfig::default(), split);
        assert_eq!(matches!(queue.keys().ports, Ports::Split { .. }), split);
        back.rung();
        queue.kick().unwrap();
        let mut ports = vec![back.rx_port, back.tx_port];
        ports.dedup();
        let mut rung = back.rung();
        rung.sort();
        ports.sort();
        assert_eq!(rung, ports);
        assert_eq!(back.take_posted(), SLOTS);
    }
}

/// H-3: when a packet is wanted a page is taken from the pool; nothing is granted or freed for it.
#[test]
fn ten_thousand_small_packets_cost_no_grant() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let before = world.front.counters();
    let mut received = 0;
    while received < 10_000 {
        for seed in 0..50 {
            back.deliver(&frame(64, seed));
        }
        received += receive_all(&mut queue).len();
    }
    let after = world.front.counters();
    assert_eq!(
        (after.grants, after.revokes),
        (before.grants, before.revokes)
    );
    queue.export();
    assert_eq!(
        (count(&queue, "grants"), count(&queue, "pool_grown_inline")),
        (0, 0)
    );
    assert_eq!(count(&queue, "rx_recycled"), received as u64);
}

/// H-4: the reference goes to the backend in a request message, and the packet is copied to that page.
#[test]
fn the_backend_copies_a_packet_to_the_page_that_the_request_names() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    assert_eq!(
        back.take_posted(),
        SLOTS,
        "the whole ring is posted before the first packet"
    );
    let posted = back.posted[0];
    let sent = frame(100, 4);
    assert_eq!(back.write(posted.gref, 512, &sent), CopyStatus::Okay);
    let answered = back.respond(|response| (response.offset, response.status) = (512, 100));
    back.publish();
    assert_eq!(answered, posted, "requests are answered in their order");
    assert_eq!(receive_all(&mut queue), [sent]);
}

/// H-5: a page is read only after its response was taken from the ring.
#[test]
fn nothing_is_read_from_a_page_before_its_response_is_published() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    back.take_posted();
    let gref = back.posted[0].gref;
    back.write(gref, 0, &frame(100, 1));
    assert_eq!(receive_all(&mut queue).len(), 0, "copied, but no response");
    back.respond(|response| response.status = 100);
    assert_eq!(
        receive_all(&mut queue).len(),
        0,
        "a response, but not published"
    );
    back.write(gref, 0, &frame(100, 2));
    back.publish();
    assert_eq!(
        receive_all(&mut queue),
        [frame(100, 2)],
        "what stood there at the response"
    );
}

/// H-6: a reference that was taken is not in the pool, so that no page is used twice at once.
#[test]
fn a_page_that_is_with_a_consumer_is_never_posted() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let mut lent = BTreeSet::new();
    for seed in 0..20 {
        lent.extend(
            back.deliver(&frame(9000, seed))
                .iter()
                .map(|posted| posted.gref),
        );
    }
    let kept = detach_all(&mut queue);
    assert_eq!((kept.len(), lent.len()), (20, 60));
    for seed in 0..2000 {
        back.deliver(&frame(60 + seed % 3000, seed));
        receive_all(&mut queue);
        back.take_posted();
        let both = back
            .posted
            .iter()
            .find(|posted| lent.contains(&posted.gref));
        assert_eq!(both, None, "posted while it is lent");
    }
    for (seed, packet) in kept.iter().enumerate() {
        assert_eq!(
            packet.to_vec(),
            frame(9000, seed),
            "untouched by the packets after it"
        );
    }
}

/// H-7: a small packet is copied, delivered, its page cleared, and put back: in this order.
#[test]
fn a_small_packet_is_copied_then_delivered_then_its_page_is_cleared_then_posted_again() {
    for scrub in [true, false] {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig {
            scrub,
            ..QueueConfig::default()
        });
        let before = world.front.counters().grants;
        let sent = frame(200, 1);
        let gref = back.deliver_pieces(&[&sent], &Offload::default())[0].gref;
        let mut delivered = 0;
        queue
            .receive(64, |packet| {
                delivered += 1;
                // Copied before: what the backend writes now is not seen.
                let late = back.write(gref, 0, &[0xee; 200]);
                assert_eq!(late, CopyStatus::Okay);
                assert_eq!(packet.head(), sent);
                assert_eq!(packet.fragments().len(), 0);
                // Not cleared yet, and not returned yet.
                assert_eq!(back.read(gref, 0, 200).unwrap(), [0xee; 200]);
                back.take_posted();
                assert!(back.posted.iter().all(|posted| posted.gref != gref));
            })
            .unwrap();
        assert_eq!(delivered, 1);
        let left = if scrub { [0; 200] } else { [0xee; 200] };
        assert_eq!(back.read(gref, 0, 200).unwrap(), left, "scrub: {scrub}");
        queue.flush().unwrap();
        assert_eq!(back.take_posted(), SLOTS);
        assert!(
            back.posted.iter().any(|posted| posted.gref == gref),
            "the same page again"
        );
        assert_eq!(world.front.counters().grants, before);
    }
}

/// H-8: of a large packet only the header and the list of its pages are copied.
#[test]
fn a_large_packet_is_its_copied_header_and_the_granted_pages_themselves() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let sent = frame(20_000, 3);
    let pages = back.deliver(&sent);
    queue
        .receive(64, |packet| {
            assert_eq!(packet.len(), sent.len());
            assert_eq!(packet.head(), &sent[..HEADER_LIMIT]);
            assert_eq!(packet.slices().collect::<Vec<_>>().concat(), sent);
            assert_eq!(packet.fragments().len(), pages.len());
            // In place: what is written to the granted page now is seen in the fragment.
            back.write(pages[2].gref, 5, b"here");
            assert_eq!(&packet.fragments().nth(2).unwrap()[5..9], b"here");
        })
        .unwrap();
    assert_eq!(count(&queue, "rx_copied_bytes"), HEADER_LIMIT as u64);
    assert_eq!(
        (count(&queue, "rx_large"), count(&queue, "rx_small")),
        (1, 0)
    );
}

/// H-7 and H-8: the set value decides, to the byte.
#[test]
fn the_threshold_is_the_first_length_that_is_not_copied() {
    let world = World::new();
    for threshold in [100, 256, 1000] {
        let config = QueueConfig {
            threshold,
            ..QueueConfig::default()
        };
        let (mut queue, mut back) = world.pair(&config);
        for (len, large) in [(threshold - 1, 0), (threshold, 1), (threshold + 1, 2)] {
            back.deliver(&frame(len, 0));
            assert_eq!(receive_all(&mut queue), [frame(len, 0)]);
            assert_eq!(
                count(&queue, "rx_large"),
                large,
                "{len} bytes at {threshold}"
            );
        }
    }
}

/// H-9: the references of a large packet are not put back while somebody holds it.
#[test]
fn the_pages_of_a_large_packet_return_only_when_it_is_dropped() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let granted = queue.pools()[0].census().granted;
    back.deliver(&frame(5000, 1));
    let kept = detach_all(&mut queue);
    let census = queue.pools()[0].census();
    assert_eq!(
        (census.leased, census.posted, census.free),
        (2, SLOTS, granted - SLOTS - 2)
    );
    drop(kept);
    let census = queue.pools()[0].census();
    assert_eq!(
        (census.leased, census.posted, census.free),
        (0, SLOTS, granted - SLOTS)
    );
}

/// H-10: if the pool has no free page, more are granted and put into it, and receiving goes on.
#[test]
fn taking_from_an_empty_pool_grants_a_batch_and_succeeds() {
    let world = World::new();
    let mut pool = Pool::new(&world.front, BACK, pool_config(BATCH, 3 * BATCH)).unwrap();
    let mut held: Vec<_> = (0..BATCH).map(|_| pool.take().unwrap()).collect();
    let before = world.front.counters();
    held.push(pool.take().expect("a page that was just granted"));
    let after = world.front.counters();
    assert_eq!(after.grants - before.grants, BATCH as u64, "one batch");
    assert_eq!(
        (pool.grown_inline, pool.grants),
        (BATCH as u64, BATCH as u64)
    );
    let gref = pool.reference(&held[BATCH]);
    world
        .back
        .foreign(FRONT)
        .unwrap()
        .map(&[gref], Access::ReadWrite)
        .expect("granted");
    while let Some(page) = pool.take() {
        held.push(page);
    }
    assert_eq!(held.len(), 3 * BATCH, "as far as its limit");
}

/// H-11: one unit takes and posts, the other takes the response and reads: both make one queue.
#[test]
fn packets_of_every_size_come_through_the_queue_in_order_and_unchanged() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let mut sizes = (0..400)
        .map(|step| 14 + step * 163)
        .filter(|len| *len <= 65_535);
    loop {
        let batch: Vec<usize> = sizes.by_ref().take(12).collect();
        if batch.is_empty() {
            break;
        }
        let sent: Vec<_> = batch.iter().map(|len| frame(*len, *len)).collect();
        sent.iter().for_each(|frame| drop(back.deliver(frame)));
        assert_eq!(receive_all(&mut queue), sent);
    }
}

/// A device that is connected to a backend of its own thread, which echoes.
fn with_echo(work: impl FnOnce(&World, &mut Device)) {
    let world = World::new();
    let backend = Backend::start(&world.back, Config::new(FRONT, peer::Echo::new())).unwrap();
    // Nothing is announced: when the backend has mapped what is, is up to its thread.
    let wants = Wants {
        grant_mapping: false,
        ..Wants::default()
    };
    let device = Device::builder(0).wants(wants);
    let mut device = device.connect(&world.front).unwrap();
    work(&world, &mut device);
    device.close().unwrap();
    backend.stop().unwrap();
}

/// Sends a frame and waits for its echo.
fn echoed(device: &mut Device, sent: &[u8]) -> Vec<u8> {
    let queue = device.queue();
    queue.send(&[sent], Offload::default()).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        queue.flush().unwrap();
        if let Some(frame) = receive_all(queue).pop() {
            queue.reclaim().unwrap();
            return frame;
        }
        assert!(Instant::now() < deadline, "no echo");
        queue.wait(Duration::from_secs(1)).unwrap();
    }
}

/// H-12: the device stands in a guest domain, beside a driver domain, on a hypervisor.
#[test]
fn a_packet_goes_from_the_guest_through_the_hypervisor_to_the_driver_domain_and_back() {
    with_echo(|_, device| {
        for len in [60, 1514, 1000] {
            let mut sent = frame(len, 8);
            // A group address would be filtered or flooded.
            sent[0] &= 0xfe;
            sent[6] &= 0xfe;
            let back = echoed(device, &sent);
            assert_eq!((&back[..6], &back[6..12]), (&sent[6..12], &sent[..6]));
            assert_eq!(back[12..], sent[12..]);
        }
    });
}

/// H-13: features by the store, packets by rings, signals by event channels, bytes by grant copies.
#[test]
fn a_connection_uses_the_store_rings_event_channels_and_grant_copies() {
    with_echo(|world, device| {
        assert!(device.link().features.sg && device.link().split_event_channels);
        let (front, back) = (world.front.counters(), world.back.counters());
        assert!(back.maps >= 2, "both rings are mapped");
        let mut sent = frame(60, 1);
        sent[..12].fill(2);
        echoed(device, &sent);
        let (front_now, back_now) = (world.front.counters(), world.back.counters());
        assert!(back_now.copies - back.copies >= 2, "one copy each way");
        assert!(
            front_now.notifications > front.notifications,
            "the guest rang"
        );
        assert_eq!(back_now.maps, back.maps, "no page is mapped for a packet");
        assert_eq!(
            front_now.grants, front.grants,
            "no page is granted for a packet"
        );
    });
}

/// H-14: the effect: what is done for every packet elsewhere, the pool does not do at all.
#[test]
fn the_pool_grants_nothing_where_granting_per_packet_grants_a_page_for_each() {
    const PACKETS: u64 = 1000;
    let spent = |policy| {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig {
            policy,
            ..QueueConfig::default()
        });
        let before = world.front.counters();
        for seed in 0..PACKETS as usize {
            back.deliver(&frame(1500, seed));
            assert_eq!(receive_all(&mut queue), [frame(1500, seed)]);
        }
        let after = world.front.counters();
        (after.grants - before.grants, after.revokes - before.revokes)
    };
    assert_eq!(spent(PoolPolicy::Pool), (0, 0));
    assert_eq!(spent(PoolPolicy::PerPacket), (PACKETS, PACKETS));
}
