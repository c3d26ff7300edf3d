//! A backend that writes into a ring after it has answered: what was read is not read again.
//!
//! What it may still write into the pages of packets is looked at in `pool/leases.rs`.

use std::sync::atomic::{AtomicBool, Ordering};

use netfront::{Checksum, Offload, QueueConfig};
use xen_ring::{RxFlags, RxResponse, Status, TxResponse};

use crate::common::{count, frame, receive_all, World, SLOTS};
use crate::hostile::assert_down;

/// Where slots begin in a ring page, and how far apart those of the receive ring are (`xen/include/public/io/ring.h`).
const HEAD: usize = 64;
const RX_SLOT: usize = 8;

/// A transmit response as it stands in a slot: the id below, the status above.
fn word(id: u16, status: Status) -> u32 {
    u32::from(id) | (u32::from(status.to_raw() as u16) << 16)
}

#[test]
fn an_answer_that_is_changed_after_it_was_read_gives_no_page_back() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig {
        untrusted: true,
        ..QueueConfig::default()
    });
    for seed in 0..3 {
        let sent = frame(100, seed);
        queue.send(&[&sent], Offload::default()).unwrap();
    }
    queue.flush().unwrap();
    let requests: Vec<_> = std::iter::from_fn(|| back.tx.pop().unwrap()).collect();
    let ids: Vec<u16> = requests.iter().map(|raw| raw.request().id).collect();
    let status = Status::Okay;
    back.tx.push(&TxResponse { id: ids[0], status }).unwrap();
    back.publish();
    assert_eq!(queue.reclaim().unwrap(), 1);
    let page = back.tx.page().clone();
    for (id, status) in [
        (ids[1], Status::Okay),
        (ids[2], Status::Error),
        (ids[0], Status::Okay),
        (u16::MAX, Status::Null),
    ] {
        page.store(HEAD, word(id, status), Ordering::Release);
        assert_eq!(queue.reclaim().unwrap(), 0, "{id} {status:?}");
        assert_eq!(queue.pools()[1].census().posted, 2, "{id} {status:?}");
    }
    for id in &ids[1..] {
        back.tx.push(&TxResponse { id: *id, status }).unwrap();
    }
    back.publish();
    assert_eq!(queue.reclaim().unwrap(), 2);
    assert_eq!(count(&queue, "tx_errors"), 0);
    let pool = queue.pools()[1].census();
    assert_eq!((pool.posted, pool.free), (0, pool.granted));
}

/// While a packet is with its consumer its slot says something else: other bytes of the page, more slots, another id.
#[test]
fn a_response_that_is_changed_while_its_packet_is_delivered_changes_neither_packet_nor_ring() {
    for untrusted in [false, true] {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig {
            untrusted,
            ..QueueConfig::default()
        });
        let page = back.rx.page().clone();
        for (round, len) in [60, 300, 1500, 4000].into_iter().enumerate() {
            let sent = frame(len, round);
            let posted = back.deliver(&sent);
            // An id is its slot's number.
            let slot = posted[0].id;
            let late = RxResponse {
                id: slot ^ 1,
                offset: 2000,
                flags: RxFlags::MORE_DATA | RxFlags::CSUM_BLANK,
                status: 14,
            };
            queue
                .receive(64, |packet| {
                    let at = HEAD + RX_SLOT * usize::from(slot);
                    page.write(at, &late.encode());
                    assert_eq!(packet.len(), len);
                    assert_eq!(packet.offload().checksum, Checksum::None);
                    assert!(packet.slices().collect::<Vec<_>>().concat() == sent);
                })
                .unwrap();
            queue.flush().unwrap();
            assert_eq!(back.take_posted(), SLOTS, "{len} bytes");
        }
        assert!(receive_all(&mut queue).is_empty());
        assert_eq!(count(&queue, "rx_packets"), 4);
    }
}

/// Two requests are in flight, and the one answer names now the one, now the other: it is read once, so one page comes back,
/// with its own id. Checked and used by two reads, an id would be given out twice and a page lost.
#[test]
fn an_answer_that_changes_while_it_is_read_gives_one_page_back_and_no_id_twice() {
    for _ in 0..50 {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig {
            untrusted: true,
            ..QueueConfig::default()
        });
        for seed in 0..2 {
            let sent = frame(100, seed);
            queue.send(&[&sent], Offload::default()).unwrap();
        }
        queue.flush().unwrap();
        let requests: Vec<_> = std::iter::from_fn(|| back.tx.pop().unwrap()).collect();
        let ids: Vec<u16> = requests.iter().map(|raw| raw.request().id).collect();
        let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let page = back.tx.page().clone();
            let (begun, over, ids) = (&begun, &over, &ids);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    page.store(HEAD, word(ids[1], Status::Error), Ordering::Relaxed);
                    page.store(HEAD, word(ids[0], Status::Okay), Ordering::Relaxed);
                    begun.store(true, Ordering::Release);
                }
            });
            while !begun.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
            let _ = back.tx.push(&TxResponse {
                id: ids[0],
                status: Status::Okay,
            });
            let _ = back.tx.publish();
            let answers = queue.reclaim();
            // Before anything can fail: the thread is waited for.
            over.store(true, Ordering::Relaxed);
            assert_eq!(answers.unwrap(), 1);
        });
        assert_eq!(queue.pools()[1].census().posted, 1);
        // Every id is used: one given out twice would drop a page out of all counts.
        while queue.send(&[&frame(60, 1)], Offload::default()).is_ok() {}
        let pool = queue.pools()[1].census();
        assert_eq!(pool.free + pool.posted, pool.granted, "{pool:?}");
        assert_down(&world, queue, back, "an answer that changes");
    }
}
