//! Frames through the backend, both ways, over real rings on the simulated Xen.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::time::Duration;

use common::{until, Front, Shape, World, FRONT};
use netback_sim::peer::{Capture, Echo, Pace, Replay, Sink, Source};
use netback_sim::traffic::{Generator, Sizes, Verdict, Verifier};
use netback_sim::{Config, Features, State};
use xen_ring::{Checksum, Gso, GsoKind, Offload};

fn generator(sizes: Sizes) -> Generator {
    Generator::new(sizes, 3).unwrap()
}

/// Sends `count` frames in `slots` slots each and waits for all answers.
fn send_all(front: &mut Front, sizes: Sizes, slots: impl Fn(usize) -> usize, count: usize) {
    let mut generator = generator(sizes);
    let mut buffer = vec![0; 65_536];
    for i in 0..count {
        let len = generator.fill(&mut buffer).unwrap();
        until("room to send", || {
            front.reap();
            front.send(&buffer[..len], slots(i), &Offload::default())
        });
    }
    until("answers", || front.settled());
}

#[test]
fn frames_of_1_to_18_slots_arrive_whole_and_in_order() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let mut front = Front::connect(world.guest());
    // 18 slots of a 1518-byte frame are as legal as 18 of a large one.
    send_all(&mut front, Sizes::Fixed(1518), |i| i % 18 + 1, 180);
    assert_eq!(front.answers[1..], [0, 0, 0]);
    let summary = backend.stop().unwrap();
    let verified = summary.verified.unwrap();
    assert!(verified.is_clean(), "{verified:?}");
    assert_eq!((verified.frames, verified.foreign), (180, 0));
    assert_eq!(summary.counters.tx_packets, 180);
    assert_eq!(summary.counters.tx_bytes, 180 * 1518);
    assert_eq!(summary.counters.tx_slots, 10 * (1..=18).sum::<u64>());
}

#[test]
fn the_largest_frames_arrive_whole() {
    let world = World::new();
    let backend = world.serve(Sink::new());
    let mut front = Front::connect(world.guest());
    send_all(&mut front, Sizes::Large, |i| 17 + i % 2, 40);
    let verified = backend.stop().unwrap().verified.unwrap();
    assert!(verified.is_clean() && verified.frames == 40, "{verified:?}");
}

#[test]
fn the_guest_gets_every_generated_frame_whatever_its_size() {
    for (sizes, stagger) in [
        (Sizes::Fixed(64), true),
        (Sizes::Mix, true),
        (Sizes::Fixed(4090), true),
        (Sizes::Fixed(9000), false),
        (Sizes::Large, true),
    ] {
        let world = World::new();
        let count = 400;
        let pace = Pace {
            count,
            ..Pace::default()
        };
        let backend = world.serve_with(Config {
            stagger,
            ..Config::new(FRONT, Source::new(generator(sizes), pace))
        });
        let mut front = Front::connect(world.guest());
        front.post(Front::slots());
        let mut verifier = Verifier::new();
        until(&format!("{count} frames of {sizes}"), || {
            for (frame, _) in front.receive() {
                assert_eq!(verifier.check(&[&frame]), Verdict::Good);
            }
            verifier.counts().frames == count
        });
        assert!(verifier.counts().is_clean());
        until("the peer to be done", || backend.peer_finished());
        let counters = backend.stop().unwrap().counters;
        assert_eq!(counters.rx_packets, count);
        assert_eq!(counters.rx_copy_failed + counters.rx_unsupported, 0);
    }
}

#[test]
fn an_echo_returns_every_frame_with_what_was_said_about_it() {
    let world = World::new();
    let backend = world.serve(Echo::new());
    let mut front = Front::connect(world.guest());
    front.post(Front::slots());
    let large = Offload {
        checksum: Checksum::Blank,
        gso: Some(Gso {
            size: 1448,
            kind: GsoKind::TcpV4,
        }),
        hash: None,
    };
    let validated = Offload {
        checksum: Checksum::Validated,
        ..Offload::default()
    };
    let mut generator = generator(Sizes::Fixed(40_000));
    let mut buffer = vec![0; 65_536];
    let mut verifier = Verifier::new();
    for offload in [large, validated, Offload::default()] {
        let len = generator.fill(&mut buffer).unwrap();
        assert!(front.send(&buffer[..len], 12, &offload));
        let mut came = Vec::new();
        until("the echo", || {
            front.reap();
            came.extend(front.receive());
            !came.is_empty()
        });
        let (frame, said) = came.remove(0);
        assert_eq!(said, offload);
        assert_eq!(verifier.check(&[&frame]), Verdict::Good);
        assert_eq!((&frame[..6], &frame[6..12]), (&buffer[6..12], &buffer[..6]));
    }
    // The one that had an extra info got a NULL answer for it.
    until("answers", || front.settled());
    assert_eq!(front.answers, [36, 0, 1, 0]);
    assert_eq!(backend.peer_dropped(), 0);
}

#[test]
fn an_echo_loses_nothing_when_the_guest_posts_few_pages() {
    let world = World::new();
    let _backend = world.serve(Echo::new());
    let mut front = Front::connect(world.guest());
    front.post(3);
    let mut generator = generator(Sizes::Fixed(594));
    let mut buffer = vec![0; 1024];
    let mut verifier = Verifier::new();
    let mut sent = 0;
    until("500 echoes", || {
        front.reap();
        while sent < 500 {
            let len = generator.clone().fill(&mut buffer).unwrap();
            if !front.send(&buffer[..len], 1, &Offload::default()) {
                break;
            }
            generator.fill(&mut buffer);
            sent += 1;
        }
        for (frame, _) in front.receive() {
            verifier.check(&[&frame]);
        }
        verifier.counts().frames == 500
    });
    assert!(verifier.counts().is_clean());
}

#[test]
fn a_guest_that_posts_no_pages_holds_up_nobody_for_ever() {
    let world = World::new();
    let backend = world.serve(Echo::new());
    let shape = Shape {
        // Without feature-rx-notify frames wait for 30 ms, not for 10 s.
        keys: vec![("request-rx-copy", "1"), ("feature-sg", "1")],
        ..Shape::default()
    };
    let mut front = Front::connect_as(world.guest(), &shape);
    send_all(&mut front, Sizes::Fixed(64), |_| 1, 100);
    until("expiry", || backend.counters().rx_expired == 100);
    front.post(Front::slots());
    send_all(&mut front, Sizes::Fixed(64), |_| 1, 1);
    until("an echo", || !front.receive().is_empty());
}

#[test]
fn a_single_channel_and_a_queue_directory_work_as_well() {
    for (split, queue_directory) in [(false, false), (false, true), (true, true)] {
        let world = World::new();
        let backend = world.serve(Sink::new());
        let shape = Shape {
            split,
            queue_directory,
            ..Shape::default()
        };
        let mut front = Front::connect_as(world.guest(), &shape);
        send_all(&mut front, Sizes::Mix, |_| 1, 300);
        let verified = backend.stop().unwrap().verified.unwrap();
        assert!(
            verified.is_clean() && verified.frames == 300,
            "{verified:?}"
        );
    }
}

#[test]
fn a_feature_that_is_switched_off_is_absent_and_refused() {
    let world = World::new();
    let mut features = Features::default();
    for name in ["sg", "gso-tcpv4", "multi-queue", "split-event-channels"] {
        features.switch_off(name).unwrap();
    }
    let backend = world.serve_with(Config {
        features,
        ..Config::new(FRONT, Sink::new())
    });
    let mut front = Front::connect(world.guest());
    for key in [
        "feature-sg",
        "feature-gso-tcpv4",
        "multi-queue-max-queues",
        "feature-split-event-channels",
    ] {
        assert_eq!(front.keys.back(key), None, "{key}");
    }
    assert_eq!(front.keys.back("feature-gso-tcpv6").as_deref(), Some("1"));
    // Two slots, and a segment: neither was offered, both are refused, and the vif lives.
    let segment = Offload {
        checksum: Checksum::Blank,
        gso: Some(Gso {
            size: 100,
            kind: GsoKind::TcpV4,
        }),
        hash: None,
    };
    assert!(front.send(&[0; 2000], 2, &Offload::default()));
    assert!(front.send(&[0; 2000], 1, &segment));
    assert!(front.send(&[0; 2000], 1, &Offload::default()));
    until("answers", || front.settled());
    assert_eq!(front.answers, [1, 3, 1, 0]);
    let counters = backend.stop().unwrap().counters;
    assert_eq!((counters.tx_refused, counters.tx_packets), (2, 1));
}

#[test]
fn a_guest_without_scatter_gather_gets_no_frame_over_two_pages() {
    let world = World::new();
    let pace = Pace {
        count: 10,
        ..Pace::default()
    };
    let backend = world.serve(Source::new(generator(Sizes::Fixed(9000)), pace));
    let shape = Shape {
        keys: vec![("request-rx-copy", "1"), ("feature-sg", "0")],
        ..Shape::default()
    };
    let mut front = Front::connect_as(world.guest(), &shape);
    front.post(Front::slots());
    until("drops", || backend.counters().rx_unsupported == 10);
    assert!(front.receive().is_empty());
}

#[test]
fn a_blank_checksum_is_filled_in_for_a_guest_that_does_not_do_it() {
    let world = World::new();
    let _backend = world.serve(Echo::new());
    let mut shape = Shape::default();
    shape.keys.push(("feature-no-csum-offload", "1"));
    let mut front = Front::connect_as(world.guest(), &shape);
    front.post(Front::slots());
    let mut frame = vec![0; 200];
    generator(Sizes::Fixed(200)).fill(&mut frame).unwrap();
    let blank = Offload {
        checksum: Checksum::Blank,
        ..Offload::default()
    };
    assert!(front.send(&frame, 1, &blank));
    let mut came = Vec::new();
    until("the echo", || {
        came.extend(front.receive());
        !came.is_empty()
    });
    let (frame, offload) = came.remove(0);
    assert_eq!(offload.checksum, Checksum::Validated);
    assert_ne!(frame[40..42], [0, 0], "the checksum field is still blank");
}

#[test]
fn multicast_frames_are_filtered_once_the_guest_asks_for_it() {
    use xen_ring::{transmit, Status};
    let world = World::new();
    let wanted = [0x01, 0x00, 0x5e, 0x01, 0x02, 0x03];
    let source = |to| generator(Sizes::Fixed(64)).between([2, 0, 0, 0, 0, 1], to);
    let pace = Pace {
        rate: 2000,
        burst: 1,
        count: 0,
    };
    let backend = world.serve(Source::new(source(wanted), pace));
    let mut front = Front::connect(world.guest());
    front.post(Front::slots());
    until("unfiltered frames", || !front.receive().is_empty());
    // Dynamic: at any time, without a reconnect.
    front.keys.write("request-multicast-control", 1);
    until("filtering", || backend.counters().rx_filtered > 10);
    assert_eq!(backend.counters().connects, 1);
    front.receive();

    transmit::push_multicast(&mut front.tx, 9, transmit::Multicast::Add(wanted)).unwrap();
    let notify = front.tx.publish();
    front.ring(front.tx_port, notify);
    let mut answers = Vec::new();
    until("an answer", || {
        while let Some(raw) = front.tx.pop().unwrap() {
            answers.push((raw.response().id, raw.response().status));
        }
        answers.len() == 2
    });
    assert_eq!(answers[0], (9, Status::Okay));
    until("wanted frames", || !front.receive().is_empty());
}

#[test]
fn a_capture_can_be_replayed() {
    let world = World::new();
    let file = world.path("capture.pcap");
    let backend = world.serve(Capture::new(Echo::new(), &file).unwrap());
    let mut front = Front::connect(world.guest());
    front.post(Front::slots());
    send_all(&mut front, Sizes::Fixed(300), |_| 1, 20);
    until("echoes", || backend.counters().rx_packets == 20);
    front.keys.state(State::Closing);
    backend.stop().unwrap();
    front.keys.state(State::Initialising);

    // Each frame is in it twice: as it came, and as it went.
    let pace = Pace::default();
    let backend = world.serve(Replay::new(&file, pace, false).unwrap());
    drop(front);
    let mut front = Front::connect(world.guest());
    front.post(Front::slots());
    let mut verifier = Verifier::new();
    until("40 frames", || {
        for (frame, _) in front.receive() {
            verifier.check(&[&frame]);
        }
        let counts = verifier.counts();
        (counts.frames, counts.duplicate) == (20, 20)
    });
    until("the end", || backend.peer_finished());
}

#[test]
fn a_rate_is_kept_over_the_long_run() {
    let world = World::new();
    let pace = Pace {
        rate: 1000,
        burst: 10,
        count: 200,
    };
    let begun = std::time::Instant::now();
    let backend = world.serve(Source::new(generator(Sizes::Fixed(64)), pace));
    let mut front = Front::connect(world.guest());
    front.post(Front::slots());
    let mut count = 0;
    until("200 frames", || {
        count += front.receive().len();
        count == 200
    });
    // 20 bursts are 19 gaps of 10 ms; slower is allowed, faster is not.
    assert!(begun.elapsed() >= Duration::from_millis(190));
    assert_eq!(backend.stop().unwrap().counters.rx_packets, 200);
}
