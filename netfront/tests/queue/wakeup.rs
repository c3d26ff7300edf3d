//! Who is rung when; and that nobody sleeps while there is work.

use std::thread;
use std::time::{Duration, Instant};

use netfront::{Offload, Queue, QueueConfig, Wake};

use crate::common::{count, frame, receive_all, Back, World, PATIENCE};

fn notifications(world: &World) -> u64 {
    world.front.counters().notifications
}

#[test]
fn a_batch_is_notified_once_and_only_if_the_backend_asked() {
    for split in [true, false] {
        let world = World::new();
        let (mut queue, mut back) = world.pair_with(&QueueConfig::default(), split);
        let send = |queue: &mut Queue| {
            let before = notifications(&world);
            for seed in 0..10 {
                queue
                    .send(&[&frame(100, seed)], Offload::default())
                    .unwrap();
            }
            queue.flush().unwrap();
            notifications(&world) - before
        };
        assert_eq!(send(&mut queue), 1, "a fresh ring asks for the first");
        assert_eq!(send(&mut queue), 0, "nobody asked since");
        while back.fetch().is_some() {}
        assert!(!back.tx.final_check(1).unwrap(), "all was taken");
        assert_eq!(send(&mut queue), 1, "asked again");
        while back.fetch().is_some() {}
        assert!(!back.tx.final_check(15).unwrap());
        assert_eq!(send(&mut queue), 0, "not before the fifteenth");
        assert_eq!(send(&mut queue), 1);
        assert_eq!(count(&queue, "notify_sent"), 3);
    }
}

#[test]
fn a_flush_without_anything_new_notifies_nobody() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    back.tx.final_check(1).unwrap();
    back.take_posted();
    back.rx.final_check(1).unwrap();
    for _ in 0..10 {
        receive_all(&mut queue);
        queue.flush().unwrap();
    }
    assert_eq!(notifications(&world), 0);
}

#[test]
fn posted_pages_are_notified_only_to_a_backend_that_waits_for_pages() {
    for split in [true, false] {
        let world = World::new();
        let (mut queue, mut back) = world.pair_with(&QueueConfig::default(), split);
        back.rung();
        back.deliver(&frame(100, 1));
        receive_all(&mut queue);
        assert_eq!(notifications(&world), 0, "it had pages enough");
        back.take_posted();
        assert!(!back.rx.final_check(2).unwrap());
        for (seed, rung) in [(1, 0), (2, 1)] {
            back.deliver(&frame(100, seed));
            receive_all(&mut queue);
            assert_eq!(notifications(&world), rung);
        }
        assert_eq!(back.rung(), [back.rx_port]);
    }
}

#[test]
fn one_channel_is_rung_once_for_both_directions() {
    let world = World::new();
    let (mut queue, mut back) = world.pair_with(&QueueConfig::default(), false);
    back.take_posted();
    back.deliver(&frame(100, 1));
    back.rx.final_check(1).unwrap();
    back.tx.final_check(1).unwrap();
    queue.send(&[&frame(100, 1)], Offload::default()).unwrap();
    queue.receive(64, |_| {}).unwrap();
    queue.flush().unwrap();
    assert_eq!(notifications(&world), 1);
}

#[test]
fn the_top_half_takes_events_and_touches_no_packet() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    back.deliver(&frame(100, 1));
    assert_eq!(queue.take_events().unwrap(), 1);
    assert_eq!(
        (count(&queue, "events"), count(&queue, "rx_packets")),
        (1, 0)
    );
    assert_eq!(count(&queue, "events_spurious"), 0);
    // Masked: what rings now is told after the port is armed again.
    back.events.notify(back.rx_port).unwrap();
    assert_eq!(queue.take_events().unwrap(), 0);
    assert_eq!(receive_all(&mut queue).len(), 1);
    assert!(!queue.arm().unwrap());
    assert_eq!(queue.take_events().unwrap(), 1);
    assert_eq!(
        count(&queue, "events_spurious"),
        1,
        "there was nothing left"
    );
}

/// N-1: what the kernel suspends interrupts for, a process that polls by itself, takes no event here as long as it does not wait.
#[test]
fn a_program_that_polls_is_rung_for_nothing_until_it_waits() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let mut rung = 0;
    for seed in 0..200 {
        back.deliver(&frame(100, seed));
        rung += u64::from(back.notify[0] == xen_ring::Notify::Needed);
        receive_all(&mut queue);
    }
    assert_eq!(rung, 1, "the first, for which a fresh ring asks");
    // Looks that find nothing ask for none either, and what came after the last is found by the wait.
    assert!(receive_all(&mut queue).is_empty());
    back.deliver(&frame(100, 1));
    assert_eq!(back.notify[0], xen_ring::Notify::NotNeeded);
    assert_eq!(queue.wait(PATIENCE).unwrap(), Wake::Work);
    assert_eq!(receive_all(&mut queue).len(), 1);
    assert!(!queue.arm().unwrap());
    back.deliver(&frame(100, 1));
    assert_eq!(back.notify[0], xen_ring::Notify::Needed);
}

#[test]
fn work_that_came_before_the_sleep_ends_it_at_once() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    back.deliver(&frame(100, 1));
    queue.take_events().unwrap();
    // The event is used up; only the look at the ring can tell.
    let start = Instant::now();
    assert_eq!(queue.wait(PATIENCE).unwrap(), Wake::Work);
    assert!(start.elapsed() < PATIENCE / 2);
    assert_eq!(receive_all(&mut queue).len(), 1);
    assert_eq!(queue.wait(Duration::from_millis(5)).unwrap(), Wake::Timeout);
}

#[test]
fn an_answer_to_a_sent_packet_ends_the_sleep() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    queue.send(&[&frame(100, 1)], Offload::default()).unwrap();
    queue.flush().unwrap();
    assert_eq!(queue.wait(Duration::from_millis(5)).unwrap(), Wake::Timeout);
    thread::scope(|scope| {
        scope.spawn(|| {
            back.fetch().expect("the packet");
            back.publish();
        });
        assert_eq!(queue.wait(PATIENCE).unwrap(), Wake::Work);
    });
    assert_eq!(queue.reclaim().unwrap(), 1);
}

#[test]
fn the_waker_ends_a_sleep_from_another_thread_and_before_it_begins() {
    let world = World::new();
    let (mut queue, _back) = world.pair(&QueueConfig::default());
    let waker = queue.waker();
    waker.wake();
    waker.wake();
    assert_eq!(queue.wait(PATIENCE).unwrap(), Wake::Called);
    assert_eq!(
        queue.wait(Duration::from_millis(5)).unwrap(),
        Wake::Timeout,
        "once for both"
    );
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(20));
            waker.wake();
        });
        assert_eq!(queue.wait(PATIENCE).unwrap(), Wake::Called);
    });
}

/// Random moments, the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// Lets some time go by, of very different lengths.
    fn pause(&mut self) {
        match self.below(40) {
            0 => thread::sleep(Duration::from_micros(self.below(300))),
            1..=5 => thread::yield_now(),
            6..=12 => (0..self.below(3000)).for_each(|_| std::hint::spin_loop()),
            _ => {}
        }
    }
}

const PACKETS: usize = 20_000;

/// Takes and gives packets at random moments, sleeping in between as a backend does.
fn serve(mut back: Back, seed: u64) {
    let mut random = Random(seed);
    let (mut given, mut taken) = (0, 0);
    while given < PACKETS || taken < PACKETS {
        let mut worked = false;
        for _ in 0..random.below(20) {
            if given < PACKETS && back.take_posted() > 0 {
                back.put_pieces(&[&frame(60, given)], 0, &Offload::default());
                given += 1;
                worked = true;
            }
        }
        for _ in 0..random.below(20) {
            if back.fetch().is_some() {
                taken += 1;
                worked = true;
            }
        }
        random.pause();
        back.publish();
        if !worked {
            let pages = given == PACKETS || back.posted.is_empty();
            let idle = !back.tx.final_check(1).unwrap()
                && pages
                && (given == PACKETS || !back.rx.final_check(1).unwrap());
            if idle && (given < PACKETS || taken < PACKETS) {
                assert!(back.sleep(PATIENCE), "lost: given {given}, taken {taken}");
            }
        }
        random.pause();
    }
}

#[test]
fn no_wake_up_is_lost_whenever_the_backend_answers() {
    for (split, seed) in [(true, 1), (false, 2), (true, 3), (false, 4)] {
        let world = World::new();
        let (mut queue, back) = world.pair_with(&QueueConfig::default(), split);
        let backend = thread::spawn(move || serve(back, seed));
        let mut random = Random(seed + 100);
        let (mut received, mut sent) = (0, 0);
        while received < PACKETS || sent < PACKETS || queue.unanswered() > 0 {
            let mut moved = queue
                .receive(64, |packet| {
                    assert_eq!(packet.head(), frame(60, received), "packet {received}");
                    received += 1;
                })
                .unwrap();
            moved += queue.reclaim().unwrap();
            for _ in 0..random.below(30) {
                if sent < PACKETS && queue.send(&[&frame(60, sent)], Offload::default()).is_ok() {
                    sent += 1;
                    moved += 1;
                }
            }
            queue.flush().unwrap();
            random.pause();
            if moved == 0 && (sent == PACKETS || !queue.can_send()) {
                let wake = queue.wait(PATIENCE).unwrap();
                let at = (received, sent, queue.unanswered());
                assert_ne!(wake, Wake::Timeout, "lost at {at:?}, split: {split}");
            }
        }
        backend.join().unwrap();
        assert!(count(&queue, "wakeups") > 10, "it slept at all");
    }
}
