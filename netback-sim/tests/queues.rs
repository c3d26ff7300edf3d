//! Several queues, and the control ring.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashMap;

use common::{until, Front, Shape, World, FRONT};
use hypervisor::{Access, DomId};
use netback_sim::peer::{Pace, Sink, Source};
use netback_sim::traffic::{Generator, Sizes, Verdict, Verifier};
use netback_sim::{Config, Features, State};
use xen_ring::{
    receive, Control, ControlMessage, ControlRequest, ControlStatus, FrontRing, Rx, RxPacket, Tx,
};

fn features() -> Features {
    Features {
        multi_queue_max: 2,
        ..Features::default()
    }
}

/// Does everything but show its state.
fn unfinished(queue_directory: bool) -> Shape {
    Shape {
        queue_directory,
        state: State::Initialising,
        ..Shape::default()
    }
}

#[test]
fn flows_are_spread_over_two_queues_and_none_is_torn() {
    let world = World::new();
    let count = 600;
    let generator = Generator::new(Sizes::Mix, 12).unwrap();
    let pace = Pace {
        count,
        ..Pace::default()
    };
    let backend = world.serve_with(Config {
        features: features(),
        ..Config::new(FRONT, Source::new(generator, pace))
    });
    let guest = world.guest();
    let mut front = Front::prepare(guest.clone(), &unfinished(true));
    assert_eq!(
        front.keys.back("multi-queue-max-queues").as_deref(),
        Some("2")
    );
    let rings = guest.share(DomId(0), 2, Access::ReadWrite).unwrap();
    let pages = guest.share(DomId(0), 256, Access::ReadWrite).unwrap();
    let _tx = FrontRing::<Tx>::new(rings.page(0));
    let mut rx = FrontRing::<Rx>::new(rings.page(1));
    let port = front.events.bind_unbound(DomId(0)).unwrap();
    front.keys.write("multi-queue-num-queues", 2);
    front
        .keys
        .write("queue-1/tx-ring-ref", rings.reference(0).0);
    front
        .keys
        .write("queue-1/rx-ring-ref", rings.reference(1).0);
    // One with a channel for each direction, one with one for both: legal, if odd.
    front.keys.write("queue-1/event-channel", port.0);
    front.post(Front::slots());
    for slot in 0..256 {
        rx.post(pages.reference(slot).0).unwrap();
    }
    let _ = rx.publish();
    front.keys.state(State::Connected);
    front.keys.wait(State::Connected);

    let mut verifier = Verifier::new();
    let mut queue_of_flow = HashMap::new();
    let mut take = |queue: u8, frame: &[u8]| {
        assert_eq!(verifier.check(&[frame]), Verdict::Good);
        let flow = [frame[44], frame[45]];
        assert_eq!(*queue_of_flow.entry(flow).or_insert(queue), queue);
        verifier.counts().frames
    };
    let mut packet = RxPacket::new();
    let mut total = 0;
    until("600 frames", || {
        for (frame, _) in front.receive() {
            total = take(0, &frame);
        }
        while receive::next(&mut rx, &mut packet).unwrap() {
            let fragment = packet.fragments[0];
            let mut frame = vec![0; usize::from(fragment.len)];
            let page = pages.page(usize::from(fragment.slot));
            page.copy_out(usize::from(fragment.offset), &mut frame);
            total = take(1, &frame);
            for _ in 0..packet.slots().count() {
                let slot = usize::from(rx.next_slot());
                rx.post(pages.reference(slot).0).unwrap();
            }
        }
        if rx.publish() == xen_ring::Notify::Needed {
            front.events.notify(port).unwrap();
        }
        total == count
    });
    let queues: Vec<u8> = queue_of_flow.values().copied().collect();
    assert!(
        queues.contains(&0) && queues.contains(&1),
        "{queue_of_flow:?}"
    );
    assert_eq!(backend.counters().rx_packets, count);
}

/// netif.md 2.4: more queues than were offered are fatal.
#[test]
fn more_queues_than_were_offered_take_the_vif_down_and_the_reason_names_key_and_limit() {
    let world = World::new();
    let backend = world.serve_with(Config {
        features: features(),
        ..Config::new(FRONT, Sink::new())
    });
    let mut front = Front::prepare(world.guest(), &unfinished(true));
    front.keys.write("multi-queue-num-queues", 3);
    front.keys.state(State::Connected);
    until("a fault", || backend.fault().is_some());
    let fault = backend.fault().unwrap();
    let named = fault.contains("multi-queue-num-queues") && fault.contains("from 1 to 2");
    assert!(named, "{fault}");
}

#[test]
fn every_control_message_gets_an_answer() {
    let world = World::new();
    let backend = world.serve_with(Config {
        features: features(),
        ..Config::new(FRONT, Sink::new())
    });
    let guest = world.guest();
    let mut front = Front::prepare(guest.clone(), &unfinished(false));
    let page = guest.share(DomId(0), 1, Access::ReadWrite).unwrap();
    let mut ring = FrontRing::<Control>::new(page.page(0));
    let port = front.events.bind_unbound(DomId(0)).unwrap();
    front.keys.write("ctrl-ring-ref", page.reference(0).0);
    front.keys.write("event-channel-ctrl", port.0);
    front.keys.state(State::Connected);
    front.keys.wait(State::Connected);

    let messages = [
        ControlMessage::GetHashFlags,
        ControlMessage::SetHashAlgorithm(1),
        ControlMessage::Unknown {
            kind: 77,
            data: [1, 2, 3],
        },
    ];
    for (id, message) in messages.into_iter().enumerate() {
        let id = id as u16 + 500;
        ring.push(&ControlRequest { id, message }).unwrap();
    }
    assert_eq!(ring.publish(), xen_ring::Notify::Needed);
    front.events.notify(port).unwrap();
    let mut answers = Vec::new();
    until("three answers", || {
        while let Some(raw) = ring.pop().unwrap() {
            let answer = raw.response();
            answers.push((answer.id, answer.kind, answer.status));
        }
        answers.len() == 3
    });
    // As netback: of the flags it says nothing before there is an algorithm.
    let refused = ControlStatus::NotSupported;
    assert_eq!(
        answers,
        [
            (500, 1, refused),
            (501, 7, ControlStatus::Success),
            (502, 77, refused)
        ]
    );
    assert_eq!(backend.counters().control_messages, 3);
}
