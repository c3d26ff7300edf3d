//! With a control ring in the test's hands: good answers, late ones, and nonsense.

use std::thread;
use std::time::Duration;

use hypervisor::GrantRef;
use netfront::pool::BATCH;
use netfront::{Change, QueueConfig};
use xen_ring::{ControlMessage, ControlResponse, ControlStatus};

use crate::common::toolstack::Toolstack;
use crate::common::{detach_all, frame, receive_all, until, World, SLOTS};
use crate::hand::Hand;
use crate::{mapped, wait_mapped, POOLS};

#[test]
fn pages_are_announced_each_once_with_the_rights_that_they_are_granted_with() {
    let world = World::new();
    let (mut device, mut hand) = Hand::meet(&world, QueueConfig::default());
    let all = hand.take(2);
    wait_mapped(&mut device, POOLS);
    let mut refs: Vec<_> = all.iter().map(|entry| entry.gref).collect();
    refs.sort_unstable();
    refs.dedup();
    assert_eq!(refs.len() as u64, POOLS);
    assert_eq!(all.iter().filter(|entry| entry.read_only).count(), 256);
    for entry in all {
        let written = hand.back.write(GrantRef(entry.gref), 4000, &[0]).is_okay();
        assert_eq!(written, !entry.read_only, "{entry:?}");
    }
}

#[test]
fn a_backend_that_keeps_fewer_pages_gets_so_many_and_one_that_refuses_more_is_left_alone() {
    let world = World::new();
    let (mut device, mut hand) = Hand::meet(&world, QueueConfig::default());
    let size = hand.asked();
    hand.answer(&size, ControlStatus::Success, 600);
    let first = hand.asked();
    hand.answer(&first, ControlStatus::Success, 0);
    let second = hand.asked();
    assert!(
        matches!(
            second.message,
            ControlMessage::AddGrefMapping { entries: 88, .. }
        ),
        "{second:?}"
    );
    hand.answer(&second, ControlStatus::InvalidParameter, 0);
    hand.carries(&mut device);
    wait_mapped(&mut device, 512);
    thread::sleep(Duration::from_millis(50));
    assert!(hand.ring.pop().unwrap().is_none(), "nothing more is asked");
    assert_eq!(device.change(), None);
}

#[test]
fn a_page_that_leaves_is_freed_only_after_the_backend_has_said_that_it_let_go() {
    let world = World::new();
    let queue = QueueConfig {
        rx_pages: SLOTS,
        rx_limit: SLOTS + 4 * BATCH,
        tx_pages: BATCH,
        ..QueueConfig::default()
    };
    for obeys in [true, false] {
        let (mut device, mut hand) = Hand::meet(&world, queue.clone());
        hand.take(1);
        // The pool grows by one batch after the other, and each is announced.
        let mut kept = Vec::new();
        for seed in 0..2 * BATCH {
            hand.back.deliver(&frame(1000, seed));
            kept.extend(detach_all(device.queue()));
        }
        let start = (SLOTS + BATCH) as u64;
        until("all grown pages to be announced", || {
            if let Some(raw) = hand.ring.pop().unwrap() {
                let add = raw.request();
                assert!(matches!(add.message, ControlMessage::AddGrefMapping { .. }));
                hand.answer(&add, ControlStatus::Success, 0);
            }
            let _ = hand.ring.final_check(1);
            device.queue().pools()[0].collect();
            let now = device.queue().pools()[0].census().granted as u64 + BATCH as u64;
            now >= start + 2 * BATCH as u64 && mapped(&mut device) == now
        });
        let grown = mapped(&mut device);
        drop(kept);
        receive_all(device.queue());
        let revokes = world.front.counters().revokes;
        let mut freed = 0;
        until("a batch to leave", || {
            freed = device.queue().idle();
            freed > 0
        });
        let del = hand.asked();
        let ControlMessage::DelGrefMapping { gref, entries, .. } = del.message else {
            panic!("{del:?}")
        };
        let list = hand.list(gref, entries);
        assert_eq!((freed, list.len()), (BATCH, BATCH));
        thread::sleep(Duration::from_millis(50));
        assert_eq!(
            world.front.counters().revokes,
            revokes,
            "not before the answer"
        );
        assert!(hand.back.read(GrantRef(list[0].gref), 0, 4).is_ok());
        let removed = if obeys { BATCH } else { BATCH - 1 };
        hand.answer(&del, ControlStatus::Success, removed as u32);
        if obeys {
            wait_mapped(&mut device, grown - BATCH as u64);
            until("the pages to go", || {
                world.front.counters().revokes - revokes == BATCH as u64
            });
            assert!(hand.back.read(GrantRef(list[0].gref), 0, 4).is_err());
        } else {
            // Which one is it that stays mapped? They are all kept until the connection is over.
            thread::sleep(Duration::from_millis(50));
            assert_eq!(world.front.counters().revokes, revokes);
            hand.carries(&mut device);
        }
        assert_eq!(device.change(), None);
        drop(hand);
        let mut toolstack = Toolstack::of(&world);
        toolstack.back("state", 6);
        let _ = device.disconnect();
        let counters = world.front.counters();
        assert_eq!(counters.grants, counters.revokes);
    }
}

#[test]
fn nonsense_in_an_answer_ends_the_control_ring_and_not_the_traffic() {
    type Spoil = fn(&mut ControlResponse);
    let wrong: [(&str, Spoil); 5] = [
        ("an id that was not asked", |answer| answer.id ^= 0x55),
        ("another type", |answer| answer.kind = 9),
        ("a status that is none", |answer| {
            answer.status = ControlStatus::Other(77);
        }),
        ("too much data for a size", |answer| {
            answer.status = ControlStatus::BufferOverflow;
        }),
        ("a queue that is not there", |answer| {
            answer.status = ControlStatus::InvalidParameter;
        }),
    ];
    for (why, change) in wrong {
        let world = World::new();
        let (mut device, mut hand) = Hand::meet(&world, QueueConfig::default());
        let size = hand.asked();
        let mut answer = ControlResponse::to(&size, ControlStatus::Success, 4096);
        change(&mut answer);
        hand.say(&answer);
        hand.carries(&mut device);
        thread::sleep(Duration::from_millis(50));
        assert!(
            hand.ring.pop().unwrap().is_none(),
            "{why}: nothing more is asked"
        );
        assert_eq!(device.change(), None, "{why}");
        assert_eq!(mapped(&mut device), 0, "{why}");
    }
}

#[test]
fn a_backend_that_does_not_answer_and_rings_without_end_keeps_nobody_from_anything() {
    let world = World::new();
    let (mut device, mut hand) = Hand::meet(&world, QueueConfig::default());
    let _never = hand.asked();
    for _ in 0..200 {
        hand.events.notify(hand.port).unwrap();
        hand.carries(&mut device);
    }
    let mut toolstack = Toolstack::of(&world);
    toolstack.back("carrier", 0);
    until("the store is watched meanwhile", || {
        device.change() == Some(Change::Carrier(false))
    });
    // The goodbye does not wait for the answer either.
    drop(hand);
    toolstack.back("state", 6);
    let start = std::time::Instant::now();
    let _ = device.disconnect();
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn an_answer_that_comes_after_its_deadline_is_of_no_use_any_more() {
    let world = World::new();
    let (mut device, mut hand) = Hand::meet(&world, QueueConfig::default());
    let size = hand.asked();
    // The deadline is 5 s.
    thread::sleep(Duration::from_secs(6));
    hand.carries(&mut device);
    hand.answer(&size, ControlStatus::Success, 4096);
    thread::sleep(Duration::from_millis(200));
    assert!(
        hand.ring.pop().unwrap().is_none(),
        "nothing more is asked of one who answers too late"
    );
    assert_eq!((device.change(), mapped(&mut device)), (None, 0));
}

#[test]
fn a_control_ring_that_is_broken_ends_the_connection_with_its_name() {
    let world = World::new();
    let (mut device, mut hand) = Hand::meet(&world, QueueConfig::default());
    let _question = hand.asked();
    // More answers than questions: written where the index is.
    hand.ring
        .page()
        .store(8, 100, std::sync::atomic::Ordering::Release);
    hand.events.notify(hand.port).unwrap();
    let mut told = None;
    until("the news", || {
        told = device.change();
        told.is_some()
    });
    let Some(Change::Broken(corrupt)) = told else {
        panic!("{told:?}")
    };
    assert!(corrupt.to_string().contains("control ring"), "{corrupt}");
    assert!(!device.link().carrier);
    assert_eq!(device.change(), None, "told once");
}
