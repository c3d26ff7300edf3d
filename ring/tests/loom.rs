//! The notification handshake under the model checker: every interleaving and every reordering
//! that the memory model allows.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p xen-ring --release --test loom`.
//!
//! A lost wake-up shows as a deadlock: everyone sleeps. A slot that is read before it is written
//! shows as a collision on its words. The tests that must panic show that the checker would see it.
#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use std::sync::atomic::Ordering::{Acquire, Relaxed, SeqCst};
use std::sync::Arc;

use loom::sync::atomic::fence;
use loom::sync::Notify as Event;
use loom::thread;
use xen_ring::{BackRing, FrontRing, Page, Rx, RxResponse};

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const FIRST_SLOT: usize = 64;

/// All interleavings: no bound on preemptions. It takes some ten seconds.
fn model(run: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = None;
    builder.max_branches = 20_000;
    builder.check(run);
}

fn publish(ring: &mut FrontRing<Rx>, event: &Event) {
    if ring.publish().is_needed() {
        event.notify();
    }
}

/// Consumes `count` requests, sleeping by the rules in between.
fn consume(ring: &mut BackRing<Rx>, event: &Event, count: u32) {
    let mut next = 0;
    loop {
        while let Some(slot) = ring.pop().unwrap() {
            assert_eq!(slot.request().gref, 7 + next);
            next += 1;
        }
        if next == count {
            return;
        }
        if !ring.final_check(1).unwrap() {
            event.wait();
        }
    }
}

#[test]
fn no_wake_up_is_lost_from_the_frontend_to_the_backend() {
    model(|| {
        let page = Page::zeroed();
        let mut front = FrontRing::<Rx>::new(page.clone());
        let mut back = BackRing::<Rx>::attach(page);
        let event = Arc::new(Event::new());
        let wake = event.clone();
        let producer = thread::spawn(move || {
            front.post(7).unwrap();
            publish(&mut front, &wake);
            front.post(8).unwrap();
            front.post(9).unwrap();
            publish(&mut front, &wake);
        });
        consume(&mut back, &event, 3);
        producer.join().unwrap();
    });
}

#[test]
fn no_wake_up_is_lost_from_the_backend_to_the_frontend() {
    model(|| {
        let page = Page::zeroed();
        let mut front = FrontRing::<Rx>::new(page.clone());
        let mut back = BackRing::<Rx>::attach(page);
        for gref in 0..2 {
            front.post(gref).unwrap();
        }
        let _ = front.publish();
        let event = Arc::new(Event::new());
        let wake = event.clone();
        let producer = thread::spawn(move || {
            for id in 0..2 {
                back.pop().unwrap().unwrap();
                let status = 60;
                back.push(&RxResponse {
                    id,
                    status,
                    ..RxResponse::default()
                })
                .unwrap();
                if back.publish().is_needed() {
                    wake.notify();
                }
            }
        });
        let mut next = 0;
        while next < 2 {
            while let Some(slot) = front.pop().unwrap() {
                assert_eq!(slot.response().id, next);
                assert_eq!(slot.response().status, 60);
                next += 1;
            }
            if next < 2 && !front.final_check(1).unwrap() {
                event.wait();
            }
        }
        producer.join().unwrap();
    });
}

#[test]
fn a_slot_goes_there_and_back_with_both_ends_sleeping_in_between() {
    model(|| {
        let page = Page::zeroed();
        let mut front = FrontRing::<Rx>::new(page.clone());
        let mut back = BackRing::<Rx>::attach(page);
        let to_back = Arc::new(Event::new());
        let to_front = Arc::new(Event::new());
        let (wakes_back, wakes_front) = (to_back.clone(), to_front.clone());
        let backend = thread::spawn(move || {
            consume(&mut back, &to_back, 1);
            // The response overwrites the request in its slot.
            back.push(&RxResponse {
                status: 60,
                ..RxResponse::default()
            })
            .unwrap();
            if back.publish().is_needed() {
                wakes_front.notify();
            }
        });
        front.post(7).unwrap();
        publish(&mut front, &wakes_back);
        loop {
            if let Some(slot) = front.pop().unwrap() {
                assert_eq!(slot.response().status, 60);
                break;
            }
            if !front.final_check(1).unwrap() {
                to_front.wait();
            }
        }
        backend.join().unwrap();
    });
}

#[test]
fn a_held_off_wake_up_comes_with_the_slot_that_was_asked_for() {
    model(|| {
        let page = Page::zeroed();
        let mut front = FrontRing::<Rx>::new(page.clone());
        let mut back = BackRing::<Rx>::attach(page);
        let event = Arc::new(Event::new());
        let wake = event.clone();
        let producer = thread::spawn(move || {
            front.post(7).unwrap();
            publish(&mut front, &wake);
            front.post(8).unwrap();
            publish(&mut front, &wake);
        });
        // Sleeping is right as long as less is there than was asked for.
        while back.unconsumed_now().unwrap() < 2 {
            let _ = back.final_check(2).unwrap();
            if back.unconsumed().unwrap() < 2 {
                event.wait();
            }
        }
        consume(&mut back, &event, 2);
        producer.join().unwrap();
    });
}

/// A consumer that asks to be woken, but with `look` in place of the ring's own second look.
fn consume_wrongly(look: fn(&Page) -> bool) {
    model(move || {
        let page = Page::zeroed();
        let mut front = FrontRing::<Rx>::new(page.clone());
        let mut back = BackRing::<Rx>::attach(page);
        let event = Arc::new(Event::new());
        let wake = event.clone();
        let producer = thread::spawn(move || {
            for gref in 0..2 {
                front.post(gref).unwrap();
                publish(&mut front, &wake);
            }
        });
        let mut popped = 0;
        while popped < 2 {
            while back.pop().unwrap().is_some() {
                popped += 1;
            }
            if popped < 2 {
                back.page().store(REQ_EVENT, popped + 1, Relaxed);
                if !look(back.page()) {
                    event.wait();
                }
            }
        }
        producer.join().unwrap();
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_second_look_a_wake_up_is_lost() {
    consume_wrongly(|_page| {
        fence(SeqCst);
        false
    });
}

#[test]
#[should_panic(expected = "deadlock")]
fn without_the_fence_the_second_look_is_worth_nothing() {
    consume_wrongly(|page| page.load(REQ_PROD, Acquire) == 2);
}

#[test]
fn with_the_fence_the_same_second_look_is_enough() {
    consume_wrongly(|page| {
        fence(SeqCst);
        page.load(REQ_PROD, Acquire) == 2
    });
}

#[test]
#[should_panic(expected = "Causality violation")]
fn an_index_that_runs_ahead_of_its_slot_is_caught() {
    model(|| {
        let page = Page::zeroed();
        let _front = FrontRing::<Rx>::new(page.clone());
        let mut back = BackRing::<Rx>::attach(page.clone());
        let producer = thread::spawn(move || {
            page.write(FIRST_SLOT, &[1; 8]);
            // Relaxed in place of Release: the slot may come later than the index.
            page.store(REQ_PROD, 1, Relaxed);
        });
        if let Some(slot) = back.pop().unwrap() {
            assert_eq!(slot.bytes(), &[1; 8]);
        }
        producer.join().unwrap();
    });
}
