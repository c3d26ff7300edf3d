//! The goodbye, and when pages are freed.

use std::thread;
use std::time::Instant;

use hypervisor::StoreClient;
use netfront::connection::XenbusState;
use netfront::Error;

use crate::common::toolstack::BACKEND;
use crate::common::{until, PATIENCE};
use crate::{beside, connected, device_and_back, vif, SHORT};

#[test]
fn the_goodbye_goes_through_closing_and_closed_each_followed_by_the_backend() {
    for client in StoreClient::available() {
        let (world, mut toolstack) = vif();
        let connection = connected(&world, &mut toolstack, *client);
        let closing = beside(connection, |connection| connection.close(PATIENCE));
        toolstack.wait_front("5");
        toolstack.back("state", 5);
        toolstack.wait_front("6");
        thread::sleep(SHORT);
        assert!(!closing.is_finished(), "the backend may still hold pages");
        toolstack.back("state", 6);
        closing.join().unwrap().1.unwrap();
        assert_eq!(toolstack.front_state(), "6");
    }
}

#[test]
fn a_backend_that_jumps_to_closed_or_starts_anew_has_let_go() {
    for answer in [6, 2, 1] {
        let (world, mut toolstack) = vif();
        let connection = connected(&world, &mut toolstack, StoreClient::default());
        let closing = beside(connection, |connection| connection.close(PATIENCE));
        toolstack.wait_front("5");
        toolstack.back("state", answer);
        closing.join().unwrap().1.unwrap();
        assert_eq!(toolstack.front_state(), "6");
    }
}

#[test]
fn a_backend_that_is_gone_is_not_waited_for() {
    let (world, mut toolstack) = vif();
    let mut connection = connected(&world, &mut toolstack, StoreClient::default());
    toolstack.store().remove(BACKEND).unwrap();
    let start = Instant::now();
    connection.close(PATIENCE).unwrap();
    assert!(start.elapsed() < PATIENCE / 2);
    assert_eq!(toolstack.front_state(), "6");
}

#[test]
fn a_backend_that_does_not_follow_is_named_and_the_own_state_is_closed_all_the_same() {
    for (script, found) in [
        (None, XenbusState::Connected),
        (Some(5), XenbusState::Closing),
    ] {
        let (world, mut toolstack) = vif();
        let connection = connected(&world, &mut toolstack, StoreClient::default());
        let closing = beside(connection, |connection| connection.close(2 * SHORT));
        toolstack.wait_front("5");
        if let Some(state) = script {
            toolstack.back("state", state);
        }
        let error = closing.join().unwrap().1.unwrap_err();
        let Error::Deadline {
            key, found: state, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!((key, *state), (&format!("{BACKEND}/state"), found));
        assert_eq!(toolstack.front_state(), "6");
    }
}

#[test]
fn no_page_is_freed_before_the_backend_is_closed() {
    let (world, mut toolstack) = vif();
    let (device, back) = device_and_back(&world, &mut toolstack);
    let closing = thread::spawn(move || device.close());
    toolstack.wait_front("5");
    assert_eq!(world.front.counters().revokes, 0);
    toolstack.back("state", 5);
    toolstack.wait_front("6");
    thread::sleep(SHORT);
    assert_eq!(
        world.front.counters().revokes,
        0,
        "the backend has the rings mapped"
    );
    drop(back);
    toolstack.back("state", 6);
    closing.join().unwrap().unwrap();
    let counters = world.front.counters();
    assert_eq!(counters.revokes, counters.grants);
}

#[test]
fn a_backend_that_keeps_pages_mapped_does_not_get_them_with_other_contents() {
    let (world, mut toolstack) = vif();
    let (device, mut back) = device_and_back(&world, &mut toolstack);
    back.take_posted();
    let gref = back.posted[0].gref;
    let held = back
        .memory
        .map(&[gref], hypervisor::Access::ReadOnly)
        .unwrap();
    let closing = thread::spawn(move || device.close());
    toolstack.wait_front("5");
    toolstack.back("state", 6);
    closing.join().unwrap().unwrap();
    // The next connection's pages are others than the ones that are still mapped.
    toolstack.back("state", 2);
    let (device, mut next) = device_and_back(&world, &mut toolstack);
    next.take_posted();
    assert!(next.posted.iter().all(|posted| posted.gref != gref));
    drop((held, back));
    let closing = thread::spawn(move || device.close());
    toolstack.wait_front("5");
    drop(next);
    toolstack.back("state", 6);
    closing.join().unwrap().unwrap();
}

#[test]
fn a_device_that_is_dropped_leaves_no_thread_and_no_page_behind() {
    let (world, mut toolstack) = vif();
    let (device, back) = device_and_back(&world, &mut toolstack);
    drop(back);
    drop(device);
    until("every page taken back", || {
        let counters = world.front.counters();
        counters.grants == counters.revokes
    });
}
