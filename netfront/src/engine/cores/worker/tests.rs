//! A worker without its thread: turns that the test makes.

use std::sync::Arc;
use std::time::Duration;

use super::super::controls::Controls;
use super::super::interrupts::Interrupts;
use super::super::kinds::{Signal, FRAMES};
use super::super::running::BACK;
use super::super::Cores;
use super::*;
use crate::engine::steering::{lane, EventCore, LaneSender};
use crate::packet::OwnedPacket;
use crate::Offload;

/// A worker of one queue and one event core, and the lane to it.
fn with_worker<W: Work>(
    cores: &Cores,
    work: &mut W,
    signal: &Arc<Signal>,
    test: impl FnOnce(Worker<'_, '_, W>, LaneSender<Steered<Arrived>>),
) {
    let interrupts = Interrupts::new(Vec::new(), Vec::new());
    let signals = vec![Arc::clone(signal)];
    let running = Running::new(cores, Controls::default(), signals, interrupts);
    let (to, from) = lane(WEIGHT);
    let (frames, _sent) = lane(BACK);
    let back = EventCore {
        lane: frames,
        bell: Arc::clone(&signal.bell),
        pending: Arc::clone(&signal.pending),
        kind: FRAMES,
    };
    let back = ReversePath::new(vec![back], &[0]);
    let (bell, stats) = (Arc::default(), Arc::default());
    let worker = Worker::new(work, &running, vec![from], bell, back, stats, 1);
    test(worker, to);
}

fn arrived(number: u64) -> Steered<Arrived> {
    Steered {
        connection: None,
        packet: Arrived {
            queue: 0,
            number,
            is_late: false,
            packet: OwnedPacket::of(&[0; 60]),
        },
    }
}

/// Drops its packets.
struct Nothing;

impl Work for Nothing {
    fn work(&mut self, _: OwnedPacket, _: &Origin, _: &mut Desk<'_>) {}
}

/// K-3: a packet that comes late is seen in its queue and, if that was asked for, in its connection.
#[test]
fn a_packet_that_comes_late_is_counted_once_however_many_look() {
    let signal = Arc::new(Signal::new().expect("a waker"));
    for cores in [Cores::default(), Cores::default().check_order()] {
        with_worker(&cores, &mut Nothing, &signal, |mut worker, mut lane| {
            for number in [1, 3, 2, 4] {
                assert!(lane.send(arrived(number)).is_ok());
            }
            assert_eq!(worker.turn(), 4);
            assert_eq!(worker.stats.order_violations.get(), 1, "{cores:?}");
        });
    }
}

/// Answers each packet, after a time that is long, and sees when the event core was told.
struct Slow<'a> {
    signal: &'a Signal,
    /// For each packet: whether something was raised since the one before.
    told: Vec<bool>,
}

impl Work for Slow<'_> {
    fn work(&mut self, _: OwnedPacket, origin: &Origin, desk: &mut Desk<'_>) {
        self.told.push(self.signal.pending.take_kind(FRAMES));
        std::thread::sleep(Duration::from_millis(1));
        desk.send_slices(origin.queue, &[&[0; 60]], Offload::default())
            .expect("room");
    }
}

/// K-13: the frames of a worker's first packets need not wait for its work on all others.
#[test]
fn the_frames_of_slow_work_are_told_of_before_the_turn_is_over() {
    let signal = Arc::new(Signal::new().expect("a waker"));
    signal.bell.rest();
    let told = Vec::new();
    let mut slow = Slow {
        signal: &signal,
        told,
    };
    with_worker(
        &Cores::default(),
        &mut slow,
        &signal,
        |mut worker, mut lane| {
            for number in 1..=6 {
                assert!(lane.send(arrived(number)).is_ok());
            }
            assert_eq!(worker.turn(), 6);
        },
    );
    assert_eq!(slow.told, [false, false, true, false, true, false]);
    assert!(signal.pending.take_kind(FRAMES), "the last two");
    assert!(signal.bell.resume(), "it slept, and was woken");
}
