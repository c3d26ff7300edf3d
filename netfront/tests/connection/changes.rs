//! What is reported while connected.

use std::time::{Duration, Instant};

use hypervisor::StoreClient;
use netback_sim::{peer, Backend, Config};
use netfront::connection::XenbusState;
use netfront::{Change, Device, Wake};
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use crate::common::toolstack::{Toolstack, BACKEND, FRONTEND};
use crate::common::{until, World, FRONT, PATIENCE};
use crate::{connected, vif, SHORT};

type Act = fn(&mut Toolstack);

#[test]
fn carrier_disconnect_and_mtu_are_reported_once_each() {
    let steps: [(Act, Option<Change>); 12] = [
        (|t| t.back("carrier", 0), Some(Change::Carrier(false))),
        (|t| t.front("disconnect", 1), None),
        (|t| t.back("carrier", 1), None),
        (|t| t.front("disconnect", 0), Some(Change::Carrier(true))),
        (
            |t| t.front("disconnect", "true"),
            Some(Change::Carrier(false)),
        ),
        (
            |t| t.remove_front("disconnect"),
            Some(Change::Carrier(true)),
        ),
        (|t| t.back("carrier", "0\n"), Some(Change::Carrier(false))),
        (|t| t.remove_back("carrier"), Some(Change::Carrier(true))),
        (|t| t.front("mtu", 9000), Some(Change::Mtu(9000))),
        (|t| t.front("mtu", 9000), None),
        (|t| t.front("mtu", "junk"), Some(Change::Mtu(1500))),
        (|t| t.front("unrelated", 1), None),
    ];
    for client in StoreClient::available() {
        let (world, mut toolstack) = vif();
        let mut connection = connected(&world, &mut toolstack, *client);
        assert_eq!(
            connection.next_change(SHORT).unwrap(),
            None,
            "nothing changed yet"
        );
        for (index, (act, expected)) in steps.iter().enumerate() {
            act(&mut toolstack);
            let patience = if expected.is_some() { PATIENCE } else { SHORT };
            assert_eq!(
                connection.next_change(patience).unwrap(),
                *expected,
                "step {index}"
            );
        }
        assert_eq!(connection.next_change(SHORT).unwrap(), None);
    }
}

#[test]
fn a_speed_that_changes_is_reported_once_and_one_that_makes_no_sense_is_none() {
    let gigabit = 1_000_000_000;
    let steps: [(Act, Option<Change>); 6] = [
        (
            |t| t.front("speed", "10G"),
            Some(Change::Speed(Some(10 * gigabit))),
        ),
        // The same in other words.
        (|t| t.front("speed", 10), None),
        (
            |t| t.front("speed", "100M"),
            Some(Change::Speed(Some(gigabit / 10))),
        ),
        (|t| t.front("speed", "fast"), Some(Change::Speed(None))),
        (|t| t.front("speed", 1), Some(Change::Speed(Some(gigabit)))),
        (|t| t.remove_front("speed"), Some(Change::Speed(None))),
    ];
    for client in StoreClient::available() {
        let (world, mut toolstack) = vif();
        let mut connection = connected(&world, &mut toolstack, *client);
        assert_eq!(connection.next_change(SHORT).unwrap(), None);
        for (index, (act, expected)) in steps.iter().enumerate() {
            act(&mut toolstack);
            let patience = if expected.is_some() { PATIENCE } else { SHORT };
            let change = connection.next_change(patience).unwrap();
            assert_eq!(change, *expected, "step {index}");
        }
        assert_eq!(connection.next_change(SHORT).unwrap(), None);
    }
}

#[test]
fn a_backend_that_leaves_is_reported_with_its_state() {
    let cases: [(Act, XenbusState); 8] = [
        (|t| t.back("state", 5), XenbusState::Closing),
        (|t| t.back("state", 6), XenbusState::Closed),
        (|t| t.back("state", 2), XenbusState::InitWait),
        (|t| t.remove_back("state"), XenbusState::Unknown),
        (|t| t.remove_front("backend"), XenbusState::Unknown),
        // The whole directory: what a detach leaves behind, of which the store refuses to say more.
        (|t| t.store().remove(BACKEND).unwrap(), XenbusState::Unknown),
        (
            |t| t.store().remove(FRONTEND).unwrap(),
            XenbusState::Unknown,
        ),
        (
            |t| t.front("backend", "/local/domain/3/backend/vif/1/0"),
            XenbusState::Unknown,
        ),
    ];
    for client in StoreClient::available() {
        for (index, (act, state)) in cases.iter().enumerate() {
            let (world, mut toolstack) = vif();
            let mut connection = connected(&world, &mut toolstack, *client);
            act(&mut toolstack);
            let change = connection.next_change(PATIENCE).unwrap();
            assert_eq!(change, Some(Change::BackendLeft(*state)), "case {index}");
        }
    }
}

#[test]
fn the_descriptor_is_readable_when_something_changed() {
    for client in StoreClient::available() {
        let (world, mut toolstack) = vif();
        let mut connection = connected(&world, &mut toolstack, *client);
        while connection.next_change(SHORT).unwrap().is_some() {}
        let readable = |connection: &netfront::connection::Connection, wait: Duration| {
            let mut fds = [PollFd::from_borrowed_fd(
                connection.event_fd(),
                PollFlags::IN,
            )];
            poll(&mut fds, Some(&Timespec::try_from(wait).unwrap())).unwrap() > 0
        };
        assert!(!readable(&connection, SHORT));
        toolstack.front("mtu", 2000);
        assert!(readable(&connection, PATIENCE));
        assert_eq!(
            connection.next_change(Duration::ZERO).unwrap(),
            Some(Change::Mtu(2000))
        );
    }
}

/// A device with its backend, and domain 0 at the store.
fn device(
    prepare: impl FnOnce(&mut Toolstack),
) -> (World, Toolstack, netback_sim::BackendHandle, Device) {
    let world = World::new();
    let backend = Backend::start(&world.back, Config::new(FRONT, peer::Echo::new())).unwrap();
    let mut toolstack = Toolstack::of(&world);
    prepare(&mut toolstack);
    let device = Device::builder(0).connect(&world.front).unwrap();
    (world, toolstack, backend, device)
}

/// Waits in the queue for the next change.
fn next(device: &mut Device) -> Change {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let wake = device.queue().wait(PATIENCE).unwrap();
        if let Some(change) = device.change() {
            return change;
        }
        assert!(Instant::now() < deadline, "no change, but {wake:?}");
    }
}

#[test]
fn a_device_wakes_its_owner_and_keeps_its_link_up_to_date() {
    let (_world, mut toolstack, backend, mut device) = device(|_| {});
    assert!(device.link().carrier);
    assert_eq!(device.queue().wait(SHORT).unwrap(), Wake::Timeout);
    toolstack.back("carrier", 0);
    assert_eq!(next(&mut device), Change::Carrier(false));
    assert!(!device.link().carrier);
    toolstack.back("carrier", 1);
    assert_eq!(next(&mut device), Change::Carrier(true));
    assert!(device.link().carrier);
    toolstack.front("mtu", 4000);
    assert_eq!(next(&mut device), Change::Mtu(4000));
    assert_eq!(device.link().mtu, 4000);
    toolstack.front("speed", "40G");
    let speed = Some(40_000_000_000);
    assert_eq!(next(&mut device), Change::Speed(speed));
    assert_eq!(device.link().speed, speed);
    let stopping = std::thread::spawn(move || backend.stop().unwrap());
    assert!(matches!(next(&mut device), Change::BackendLeft(_)));
    assert!(!device.link().carrier);
    device.close().unwrap();
    stopping.join().unwrap();
}

#[test]
fn a_cable_that_is_out_when_the_device_connects_is_out() {
    let pulled: [Act; 2] = [|t| t.back("carrier", 0), |t| t.front("disconnect", 1)];
    for pull in pulled {
        let (_world, mut toolstack, backend, mut device) = device(pull);
        assert!(!device.link().carrier);
        toolstack.back("carrier", 1);
        toolstack.front("disconnect", 0);
        assert_eq!(next(&mut device), Change::Carrier(true));
        device.close().unwrap();
        backend.stop().unwrap();
    }
}

#[test]
fn changes_that_come_one_after_the_other_are_all_told() {
    let (_world, mut toolstack, backend, mut device) = device(|_| {});
    toolstack.back("carrier", 0);
    toolstack.front("mtu", 3000);
    let mut told = Vec::new();
    until("both changes", || {
        told.extend(device.change());
        told.len() == 2
    });
    assert_eq!(told, [Change::Carrier(false), Change::Mtu(3000)]);
    device.close().unwrap();
    backend.stop().unwrap();
}
