//! Event channels.

use std::os::fd::AsFd;
use std::time::Instant;

use hypervisor::{Access, DomId, Error, EventChannels, Port};
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use super::{Ground, DEADLINE};

/// An event channel with both ends bound; whatever the binding made pending is told and unmasked.
struct Channel {
    front: EventChannels,
    back: EventChannels,
    near: Port,
    far: Port,
}

fn channel(ground: &Ground) -> Channel {
    let mut front = ground.front.events().unwrap();
    let mut back = ground.back.events().unwrap();
    let near = front.bind_unbound(ground.back_id).unwrap();
    let far = back.bind_interdomain(ground.front_id, near).unwrap();
    for (events, port) in [(&mut front, near), (&mut back, far)] {
        if now(events).contains(&port) {
            events.unmask(port).unwrap();
        }
        assert_eq!(now(events), []);
    }
    Channel {
        front,
        back,
        near,
        far,
    }
}

fn now(events: &mut EventChannels) -> Vec<Port> {
    let mut ports = Vec::new();
    events.pending(&mut ports).unwrap();
    ports
}

fn is_readable(events: &EventChannels, seconds: i64) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN)];
    poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: seconds,
            tv_nsec: 0,
        }),
    )
    .unwrap()
        == 1
}

/// Waits for something to be pending and takes it.
fn wait(events: &mut EventChannels) -> Vec<Port> {
    assert!(is_readable(events, 30), "no event came");
    now(events)
}

pub(super) fn a_bound_port_is_pending_at_once(ground: &Ground) {
    let mut front = ground.front.events().unwrap();
    let mut back = ground.back.events().unwrap();
    let near = front.bind_unbound(ground.back_id).unwrap();
    let far = back.bind_interdomain(ground.front_id, near).unwrap();
    assert_eq!(wait(&mut back), [far]);
}

pub(super) fn an_event_reaches_the_other_end_both_ways(ground: &Ground) {
    let mut channel = channel(ground);
    channel.front.notify(channel.near).unwrap();
    assert_eq!(wait(&mut channel.back), [channel.far]);
    assert_eq!(now(&mut channel.front), []);
    channel.back.notify(channel.far).unwrap();
    assert_eq!(wait(&mut channel.front), [channel.near]);
}

pub(super) fn a_told_port_is_masked_until_it_is_unmasked(ground: &Ground) {
    let mut channel = channel(ground);
    channel.front.notify(channel.near).unwrap();
    assert_eq!(wait(&mut channel.back), [channel.far]);
    for _ in 0..3 {
        channel.front.notify(channel.near).unwrap();
        assert!(!is_readable(&channel.back, 0));
        assert_eq!(now(&mut channel.back), []);
    }
}

pub(super) fn an_event_that_comes_while_the_port_is_masked_is_not_lost(ground: &Ground) {
    let mut channel = channel(ground);
    channel.front.notify(channel.near).unwrap();
    assert_eq!(wait(&mut channel.back), [channel.far]);
    channel.front.notify(channel.near).unwrap();
    channel.front.notify(channel.near).unwrap();
    channel.back.unmask(channel.far).unwrap();
    // Two events while it was masked are one that is pending.
    assert_eq!(wait(&mut channel.back), [channel.far]);
    channel.back.unmask(channel.far).unwrap();
    assert_eq!(now(&mut channel.back), []);
}

pub(super) fn the_handle_is_readable_while_a_port_is_pending(ground: &Ground) {
    let mut channel = channel(ground);
    assert!(!is_readable(&channel.back, 0));
    channel.front.notify(channel.near).unwrap();
    assert!(is_readable(&channel.back, 30));
    assert!(is_readable(&channel.back, 0), "looking must not take it");
    now(&mut channel.back);
    assert!(!is_readable(&channel.back, 0));
}

pub(super) fn no_event_is_lost_under_load(ground: &Ground) {
    const ROUNDS: usize = 2000;
    let Channel {
        mut front,
        mut back,
        near,
        far,
    } = channel(ground);
    // Each end rings only when it was rung: one lost event would stop both.
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for _ in 0..ROUNDS {
                assert_eq!(wait(&mut back), [far]);
                back.unmask(far).unwrap();
                back.notify(far).unwrap();
            }
        });
        let started = Instant::now();
        for _ in 0..ROUNDS {
            front.notify(near).unwrap();
            assert_eq!(wait(&mut front), [near]);
            front.unmask(near).unwrap();
        }
        assert!(
            started.elapsed() < DEADLINE,
            "{ROUNDS} rounds took {:?}",
            started.elapsed()
        );
    });
}

pub(super) fn a_port_that_does_not_exist_cannot_be_bound(ground: &Ground) {
    let mut back = ground.back.events().unwrap();
    assert!(back.bind_interdomain(ground.front_id, Port(4000)).is_err());
}

pub(super) fn a_port_meant_for_somebody_else_cannot_be_bound(ground: &Ground) {
    let mut front = ground.front.events().unwrap();
    let mut back = ground.back.events().unwrap();
    let port = front.bind_unbound(DomId(ground.back_id.0 + 77)).unwrap();
    assert!(back.bind_interdomain(ground.front_id, port).is_err());
}

pub(super) fn a_port_is_bound_once(ground: &Ground) {
    let mut channel = channel(ground);
    assert!(channel
        .back
        .bind_interdomain(ground.front_id, channel.near)
        .is_err());
}

pub(super) fn a_port_of_another_handle_is_refused(ground: &Ground) {
    let channel = channel(ground);
    let mut other = ground.back.events().unwrap();
    assert!(matches!(
        other.notify(channel.far),
        Err(Error::BadPort { .. })
    ));
    assert!(matches!(
        other.unbind(channel.far),
        Err(Error::BadPort { .. })
    ));
    assert!(matches!(
        other.unmask(channel.far),
        Err(Error::BadPort { .. })
    ));
    channel.back.notify(channel.far).unwrap();
}

pub(super) fn ringing_a_closed_end_is_silent(ground: &Ground) {
    let mut channel = channel(ground);
    channel.back.unbind(channel.far).unwrap();
    channel.front.notify(channel.near).unwrap();
    assert_eq!(now(&mut channel.front), []);
    assert_eq!(now(&mut channel.back), []);
    assert!(channel.back.notify(channel.far).is_err());
}

pub(super) fn a_closed_end_can_be_bound_again(ground: &Ground) {
    let mut channel = channel(ground);
    channel.back.unbind(channel.far).unwrap();
    let far = channel
        .back
        .bind_interdomain(ground.front_id, channel.near)
        .unwrap();
    assert_eq!(wait(&mut channel.back), [far]);
    channel.back.unmask(far).unwrap();
    channel.front.notify(channel.near).unwrap();
    assert_eq!(wait(&mut channel.back), [far]);
    now(&mut channel.front);
    channel.back.notify(far).unwrap();
}

pub(super) fn dropping_the_handle_closes_its_ports(ground: &Ground) {
    let Channel {
        front, back, near, ..
    } = channel(ground);
    drop(back);
    front.notify(near).unwrap();
    let mut back = ground.back.events().unwrap();
    back.bind_interdomain(ground.front_id, near).unwrap();
    drop(front);
    let mut other = ground.back.events().unwrap();
    assert!(other.bind_interdomain(ground.front_id, near).is_err());
}

pub(super) fn what_is_done_is_counted(ground: &Ground) {
    let mut channel = channel(ground);
    let before = ground.front.counters();
    channel.front.notify(channel.near).unwrap();
    let now = ground.front.counters();
    assert_eq!(now.notifications - before.notifications, 1);
    assert_eq!(now.hypercalls - before.hypercalls, 1);
    assert!(now.system_calls > before.system_calls);

    let before = ground.back.counters();
    assert_eq!(wait(&mut channel.back), [channel.far]);
    channel.back.unmask(channel.far).unwrap();
    let now = ground.back.counters();
    assert_eq!(now.hypercalls - before.hypercalls, 0);
    assert!(now.system_calls > before.system_calls);

    let before = ground.front.counters();
    drop(
        ground
            .front
            .share(ground.back_id, 8, Access::ReadWrite)
            .unwrap(),
    );
    let now = ground.front.counters();
    assert_eq!(
        (now.grants - before.grants, now.revokes - before.revokes),
        (8, 8)
    );
}
