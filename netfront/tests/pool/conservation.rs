//! Every page is in exactly one place, at every step, in whatever order things happen.

use netfront::{OwnedPacket, PoolPolicy, Queue, QueueConfig};
use proptest::prelude::*;

use crate::common::{frame, receive_all, Back, World};

/// What may happen next.
#[derive(Debug, Clone)]
enum Step {
    /// The backend sends packets of this length; the consumer keeps them or not.
    Receive {
        len: usize,
        packets: usize,
        keep: bool,
    },
    /// So many kept packets are dropped in another thread.
    Drop(usize),
    /// The guest sends packets of this length.
    Send { len: usize, packets: usize },
    /// The backend answers so many of them.
    Answer(usize),
    /// The guest is idle and gives back what it does not need.
    Idle,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![60..256usize, 256..4096usize, 4096..40_000usize];
    let send = prop_oneof![60..1500usize, 4096..65_000usize];
    prop_oneof![
        4 => (len, 1..6usize, any::<bool>())
            .prop_map(|(len, packets, keep)| Step::Receive { len, packets, keep }),
        2 => (1..8usize).prop_map(Step::Drop),
        2 => (send, 1..6usize).prop_map(|(len, packets)| Step::Send { len, packets }),
        2 => (1..8usize).prop_map(Step::Answer),
        1 => Just(Step::Idle),
    ]
}

/// A queue at work, with what the test knows of its pages from the other side.
struct Run {
    world: World,
    queue: Queue,
    back: Back,
    kept: Vec<OwnedPacket>,
    sent: usize,
    policy: PoolPolicy,
}

impl Run {
    fn new(config: &QueueConfig) -> Self {
        let world = World::new();
        let (queue, back) = world.pair(config);
        Self {
            world,
            queue,
            back,
            kept: Vec::new(),
            sent: 0,
            policy: config.policy,
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Receive { len, packets, keep } => {
                for seed in 0..packets {
                    // A page short: such a packet would wait in the backend.
                    if self.back.take_posted() >= len.div_ceil(4096) {
                        self.back.deliver(&frame(len, seed));
                    }
                }
                let kept = &mut self.kept;
                self.queue
                    .receive(64, |packet| {
                        assert_eq!(packet.len(), len);
                        if keep {
                            kept.push(packet.detach());
                        }
                    })
                    .unwrap();
            }
            Step::Drop(count) => {
                let gone: Vec<_> = self.kept.drain(..count.min(self.kept.len())).collect();
                std::thread::spawn(move || drop(gone)).join().unwrap();
                receive_all(&mut self.queue);
            }
            Step::Send { len, packets } => {
                for seed in 0..packets {
                    if self
                        .queue
                        .send(&[&frame(len, seed)], Default::default())
                        .is_ok()
                    {
                        self.sent += 1;
                    }
                }
            }
            Step::Answer(count) => {
                for _ in 0..count {
                    self.sent -= usize::from(self.back.fetch().is_some());
                }
                self.back.publish();
                self.queue.reclaim().unwrap();
            }
            Step::Idle => {
                self.queue.idle();
            }
        }
        self.queue.flush().unwrap();
        self.check();
    }

    /// The queue's own count against what the backend, the consumer and the hypervisor see.
    fn check(&mut self) {
        // Fails by itself when a page is posted twice.
        let posted = self.back.take_posted();
        let leased: usize = self
            .kept
            .iter()
            .map(|packet| packet.fragments().len())
            .sum();
        let counters = self.world.front.counters();
        let [rx, tx] = self.queue.pools();
        let (rx, tx) = (rx.census(), tx.census());
        for census in [rx, tx] {
            let places = census.free + census.posted + census.leased + census.quarantined;
            assert_eq!(places, census.granted, "{census:?}");
        }
        assert_eq!((rx.posted, rx.leased), (posted, leased), "{rx:?}");
        assert_eq!(tx.posted as u32, self.queue.unanswered(), "{tx:?}");
        if self.policy.recycles() {
            // Two pages are the rings. A batch is freed as one, so others count single pages late.
            let granted = counters.grants - counters.revokes;
            assert_eq!(granted, (rx.granted + tx.granted + 2) as u64);
        }
    }

    fn end(mut self) {
        let posted = self.back.take_posted();
        self.queue.stop();
        let [rx, tx] = self.queue.pools();
        let (rx, tx) = (rx.census(), tx.census());
        assert_eq!((rx.quarantined, rx.posted), (posted, 0), "{rx:?}");
        assert_eq!(tx.posted, 0, "{tx:?}");
        drop(self.queue);
        drop(self.back);
        for packet in &self.kept {
            assert!(!packet.is_empty(), "leases outlive their queue");
        }
        drop(self.kept);
        let counters = self.world.front.counters();
        assert_eq!(counters.grants, counters.revokes, "nothing stays granted");
    }
}

fn config(policy: PoolPolicy, pages: usize, untrusted: bool) -> QueueConfig {
    let (rx_pages, rx_limit) = (pages, pages + 128);
    QueueConfig {
        policy,
        rx_pages,
        rx_limit,
        untrusted,
        ..QueueConfig::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 24,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// H-6: no page is in two places, in any order of events; a second post fails in the backend.
    #[test]
    fn pages_are_conserved_in_any_order_of_events(
        steps in prop::collection::vec(step(), 1..40),
        pages in prop_oneof![Just(64usize), Just(256), Just(320)],
        policy in prop::sample::select(PoolPolicy::ALL.to_vec()),
        untrusted in prop::bool::weighted(0.2),
    ) {
        let mut run = Run::new(&config(policy, pages, untrusted));
        for step in &steps {
            run.take(step);
        }
        run.end();
    }
}

#[test]
fn a_disconnect_in_the_middle_of_everything_leaves_nothing_granted() {
    for policy in PoolPolicy::ALL {
        let mut run = Run::new(&config(policy, 320, false));
        run.take(&Step::Receive {
            len: 9000,
            packets: 5,
            keep: true,
        });
        run.take(&Step::Send {
            len: 30_000,
            packets: 5,
        });
        run.take(&Step::Answer(2));
        run.take(&Step::Receive {
            len: 100,
            packets: 5,
            keep: true,
        });
        run.end();
    }
}
