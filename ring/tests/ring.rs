//! The two ends of a ring: slots, indices, notifications, and peers that break them.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::atomic::Ordering::{Relaxed, Release};

use common::Pair;
use xen_ring::*;

const REQ_PROD: usize = 0;
const REQ_EVENT: usize = 4;
const RSP_PROD: usize = 8;
const RSP_EVENT: usize = 12;

fn request(gref: u32) -> TxRequest {
    TxRequest {
        gref,
        ..TxRequest::default()
    }
}

fn response(id: u16) -> TxResponse {
    TxResponse {
        id,
        status: Status::Okay,
    }
}

#[test]
fn a_new_ring_is_all_zero_but_for_the_events() {
    let page = Page::zeroed();
    page.fill(0, PAGE_SIZE, 0xa5);
    let _front = FrontRing::<Tx>::new(page.clone());
    let mut bytes = [0xff; PAGE_SIZE];
    page.copy_out(0, &mut bytes);
    let mut expected = [0; PAGE_SIZE];
    expected[REQ_EVENT] = 1;
    expected[RSP_EVENT] = 1;
    assert_eq!(bytes, expected);
}

#[test]
fn slots_start_at_byte_64_and_lie_close_together() {
    let mut pair = Pair::<Tx>::new();
    for gref in 1..=3 {
        pair.front.push(&request(gref)).unwrap();
    }
    for index in 0..3u8 {
        let word = pair
            .front
            .page()
            .load(64 + usize::from(index) * 12, Relaxed);
        assert_eq!(word, u32::from(index) + 1);
    }
}

#[test]
fn requests_are_invisible_until_they_are_published() {
    let mut pair = Pair::<Tx>::new();
    pair.front.push(&request(7)).unwrap();
    assert!(pair.back.pop().unwrap().is_none());
    let _ = pair.front.publish();
    assert_eq!(pair.back.pop().unwrap().unwrap().request().gref, 7);
}

#[test]
fn a_full_ring_takes_no_more_and_loses_nothing() {
    let mut pair = Pair::<Tx>::new();
    for gref in 0..256 {
        assert_eq!(pair.front.free_requests(), 256 - gref);
        assert_eq!(
            u32::from(pair.front.push(&request(gref)).unwrap()),
            gref % 256
        );
    }
    assert_eq!(pair.front.push(&request(999)), Err(Full { ring: "tx" }));
    let _ = pair.front.publish();
    for gref in 0..256 {
        assert_eq!(pair.back.pop().unwrap().unwrap().request().gref, gref);
    }
    assert!(pair.back.pop().unwrap().is_none());
    assert_eq!(pair.front.in_flight(), 256);
}

#[test]
fn a_response_needs_a_request_that_was_popped() {
    let mut pair = Pair::<Tx>::new();
    assert_eq!(pair.back.push(&response(0)), Err(Full { ring: "tx" }));
    pair.front.push(&request(0)).unwrap();
    let _ = pair.front.publish();
    assert!(pair.back.push(&response(0)).is_err());
    pair.back.pop().unwrap().unwrap();
    assert_eq!(pair.back.free_responses(), 1);
    pair.back.push(&response(0)).unwrap();
    assert!(pair.back.push(&response(0)).is_err());
}

#[test]
fn a_backend_attaches_where_the_last_one_stopped() {
    let mut pair = Pair::<Tx>::new();
    for gref in 0..3 {
        pair.front.push(&request(gref)).unwrap();
    }
    let _ = pair.front.publish();
    pair.back.pop().unwrap().unwrap();
    pair.back.push(&response(0)).unwrap();
    let _ = pair.back.publish();
    // This one is popped, never answered, and must be seen by the next backend.
    pair.back.pop().unwrap().unwrap();
    let mut next = BackRing::<Tx>::attach(pair.front.page().clone());
    assert_eq!(next.pop().unwrap().unwrap().request().gref, 1);
    assert_eq!(next.pop().unwrap().unwrap().request().gref, 2);
    assert!(next.pop().unwrap().is_none());
}

#[test]
fn only_the_first_batch_wakes_a_backend_that_sleeps() {
    let mut pair = Pair::<Tx>::new();
    pair.front.push(&request(0)).unwrap();
    assert_eq!(pair.front.publish(), Notify::Needed);
    assert_eq!(pair.front.publish(), Notify::NotNeeded, "nothing new");
    pair.front.push(&request(1)).unwrap();
    assert_eq!(pair.front.publish(), Notify::NotNeeded, "it is awake");
    while pair.back.pop().unwrap().is_some() {}
    assert!(!pair.back.final_check(1).unwrap());
    pair.front.push(&request(2)).unwrap();
    assert_eq!(pair.front.publish(), Notify::Needed);
}

#[test]
fn a_batch_that_jumps_over_the_event_index_wakes_too() {
    let mut pair = Pair::<Tx>::new();
    assert!(!pair.back.final_check(3).unwrap());
    for gref in 0..2 {
        pair.front.push(&request(gref)).unwrap();
    }
    assert!(!pair.front.publish().is_needed(), "two of three");
    for gref in 2..9 {
        pair.front.push(&request(gref)).unwrap();
    }
    assert!(pair.front.publish().is_needed(), "passed the third");
}

#[test]
fn a_final_check_sees_work_that_came_meanwhile() {
    let mut pair = Pair::<Tx>::new();
    assert!(pair.back.pop().unwrap().is_none());
    pair.front.push(&request(0)).unwrap();
    let _ = pair.front.publish();
    assert!(pair.back.final_check(1).unwrap());
    pair.back.pop().unwrap().unwrap();
    pair.back.push(&response(0)).unwrap();
    let _ = pair.back.publish();
    assert!(pair.front.final_check(1).unwrap());
}

#[test]
fn a_final_check_for_nothing_asks_for_the_next() {
    let mut pair = Pair::<Tx>::new();
    assert!(!pair.back.final_check(0).unwrap());
    assert_eq!(pair.front.page().load(REQ_EVENT, Relaxed), 1);
}

#[test]
fn the_known_producer_index_is_not_loaded_again() {
    let mut pair = Pair::<Tx>::new();
    for gref in 0..2 {
        pair.front.push(&request(gref)).unwrap();
    }
    let _ = pair.front.publish();
    pair.back.pop().unwrap().unwrap();
    // A wild index is not even looked at while known work is left.
    pair.front.page().store(REQ_PROD, 5000, Release);
    assert_eq!(pair.back.unconsumed(), Ok(1));
    assert!(pair.back.pop().unwrap().is_some());
    assert!(pair.back.pop().is_err());
}

#[test]
fn a_fresh_look_counts_what_was_posted_since() {
    let mut pair = Pair::<Rx>::new();
    pair.front.post(1).unwrap();
    let _ = pair.front.publish();
    assert_eq!(pair.back.unconsumed(), Ok(1));
    pair.front.post(2).unwrap();
    let _ = pair.front.publish();
    assert_eq!(pair.back.unconsumed(), Ok(1));
    assert_eq!(pair.back.unconsumed_now(), Ok(2));
    pair.back.pop().unwrap().unwrap();
    pair.back.push(&RxResponse::default()).unwrap();
    let _ = pair.back.publish();
    assert_eq!(pair.front.unconsumed_now(), Ok(1));
}

#[test]
fn a_backend_that_answers_more_than_was_asked_is_corrupt() {
    for start in [0, u32::MAX - 1] {
        let mut pair = Pair::<Tx>::starting_at(start);
        for gref in 0..3 {
            pair.front.push(&request(gref)).unwrap();
        }
        let _ = pair.front.publish();
        // Not published: nobody can have answered it.
        pair.front.push(&request(3)).unwrap();
        let claim = start.wrapping_add(4);
        pair.front.page().store(RSP_PROD, claim, Release);
        let error = pair.front.unconsumed().unwrap_err();
        assert_eq!(
            error.reason,
            CorruptReason::ProducerOverrun {
                producer: claim,
                consumer: start,
                claimed: 4,
                allowed: 3
            }
        );
        assert_eq!(error.ring, "tx");
        assert_eq!(pair.front.pop().unwrap_err(), error);
        assert_eq!(pair.front.final_check(1), Err(error));
    }
}

#[test]
fn a_backend_whose_index_goes_back_is_corrupt() {
    let mut pair = Pair::<Rx>::posted(8);
    pair.respond(&[[0; 8], [0; 8]]);
    assert!(pair.front.pop().unwrap().is_some());
    assert!(pair.front.pop().unwrap().is_some());
    pair.front.page().store(RSP_PROD, 1, Release);
    let error = pair.front.pop().unwrap_err();
    assert_eq!(error.reason.name(), "producer_overrun");
}

#[test]
fn a_frontend_that_overwrites_unanswered_requests_is_corrupt() {
    let mut pair = Pair::<Tx>::new();
    for gref in 0..256 {
        pair.front.push(&request(gref)).unwrap();
    }
    let _ = pair.front.publish();
    for _ in 0..256 {
        pair.back.pop().unwrap().unwrap();
    }
    pair.front.page().store(REQ_PROD, 257, Release);
    let error = pair.back.pop().unwrap_err();
    assert_eq!(
        error.reason,
        CorruptReason::ProducerOverrun {
            producer: 257,
            consumer: 256,
            claimed: 1,
            allowed: 0
        }
    );
    assert_eq!(
        error.to_string(),
        "the peer broke the tx ring: its producer index 257 is 1 slots ahead of consumer index \
         256, but at most 0 can be there; the device must be taken down"
    );
}

#[test]
fn no_old_byte_of_the_page_survives_in_a_written_slot() {
    fn slots<L: Layout>(page: &Page, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count * L::SLOT_SIZE];
        page.copy_out(64, &mut bytes);
        bytes
    }
    fn stain(page: &Page) {
        page.fill(64, PAGE_SIZE - 64, 0xa5);
    }
    let extras = [
        ExtraInfo::Gso {
            size: 1,
            kind: GsoKind::TcpV4,
        },
        ExtraInfo::McastAdd([0; 6]),
        ExtraInfo::McastDel([0; 6]),
        ExtraInfo::Hash {
            kind: 0,
            algorithm: 0,
            value: 0,
        },
        ExtraInfo::Xdp { headroom: 0 },
    ];

    let mut pair = Pair::<Tx>::new();
    stain(pair.front.page());
    pair.front.push(&TxRequest::default()).unwrap();
    for extra in &extras {
        pair.front.push_extra(extra, true).unwrap();
    }
    assert!(!slots::<Tx>(pair.front.page(), 6).contains(&0xa5));
    let _ = pair.front.publish();
    stain(pair.front.page());
    for _ in 0..6 {
        pair.back.pop().unwrap().unwrap();
        pair.back.push(&response(0)).unwrap();
    }
    assert!(!slots::<Tx>(pair.front.page(), 6).contains(&0xa5));

    let mut pair = Pair::<Rx>::new();
    stain(pair.front.page());
    for gref in 0..6 {
        pair.front.post(gref).unwrap();
    }
    assert!(!slots::<Rx>(pair.front.page(), 6).contains(&0xa5));
    let _ = pair.front.publish();
    stain(pair.front.page());
    for _ in 0..6 {
        pair.back.pop().unwrap().unwrap();
    }
    pair.back.push(&RxResponse::default()).unwrap();
    for extra in &extras {
        pair.back.push_extra(extra, true).unwrap();
    }
    assert!(!slots::<Rx>(pair.front.page(), 6).contains(&0xa5));

    let mut pair = Pair::<Control>::new();
    stain(pair.front.page());
    let question = ControlRequest {
        id: 0,
        message: ControlMessage::GetHashFlags,
    };
    pair.front.push(&question).unwrap();
    assert!(!slots::<Control>(pair.front.page(), 1).contains(&0xa5));
    let _ = pair.front.publish();
    stain(pair.front.page());
    pair.back.pop().unwrap().unwrap();
    let answer = ControlResponse::to(&question, ControlStatus::Success, 0);
    pair.back.push(&answer).unwrap();
    assert!(!slots::<Control>(pair.front.page(), 1).contains(&0xa5));
}

#[test]
fn a_control_question_is_answered_out_of_order() {
    let mut pair = Pair::<Control>::new();
    for id in 0..2 {
        let message = ControlMessage::GetGrefMappingSize { queue: id.into() };
        pair.front.push(&ControlRequest { id, message }).unwrap();
    }
    let _ = pair.front.publish();
    let first = pair.back.pop().unwrap().unwrap().request();
    let second = pair.back.pop().unwrap().unwrap().request();
    for question in [second, first] {
        let answer = ControlResponse::to(&question, ControlStatus::NotSupported, 0);
        pair.back.push(&answer).unwrap();
    }
    let _ = pair.back.publish();
    assert_eq!(pair.front.pop().unwrap().unwrap().response().id, 1);
    let last = pair.front.pop().unwrap().unwrap().response();
    assert_eq!((last.id, last.kind), (0, 8));
    assert_eq!(last.status, ControlStatus::NotSupported);
}

#[test]
fn a_slot_that_was_popped_does_not_change_any_more() {
    let mut pair = Pair::<Tx>::new();
    pair.front.push(&request(1)).unwrap();
    let _ = pair.front.publish();
    let slot = pair.back.pop().unwrap().unwrap();
    pair.front.page().fill(64, 12, 0xff);
    assert_eq!(slot.request(), request(1));
    assert_eq!(slot.request(), request(1));
}

#[test]
fn both_ends_print_their_private_indices() {
    let pair = Pair::<Tx>::starting_at(9);
    assert!(format!("{:?}", pair.front).contains("consumed: 9"));
    assert!(format!("{:?}", pair.back).starts_with("BackRing"));
}
