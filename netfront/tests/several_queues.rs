//! A vif with several queues: how many there are, packets by each of them, and that whatever is told to one or happens to
//! one reaches all. The keys in the store: `connection/queues.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use common::toolstack::Toolstack;
use common::{frame, until, Back, World, BACK, FRONT, PATIENCE};
use hypervisor::{Access, GrantRef, Port};
use netback_sim::peer::{Pace, Sink, Source};
use netback_sim::traffic::{Generator, Sizes};
use netback_sim::{Backend, BackendHandle, Config, Peer};
use netfront::consumer::{Consumer, Echo, Null};
use netfront::device::thread_name;
use netfront::engine::{serve, serve_queues, Service};
use netfront::queue::{Ports, QueueKeys, OTHER_VIF_PAGES};
use netfront::{Device, Error, Link, Packet, Queue};
use netfront_tests::stage::all_came;

/// Enough pages for four queues.
const ROOM: usize = 4096;

/// A backend that serves so many queues at most.
fn backend(world: &World, vif: u32, queues: u16, peer: impl Peer + 'static) -> BackendHandle {
    let mut config = Config::new(FRONT, peer);
    config.handle = vif;
    config.features.multi_queue_max = queues;
    Backend::start(&world.back, config).unwrap()
}

/// So many frames (0: without end) of 64 flows, which are found on each of a few queues.
fn frames(count: u64) -> Source {
    let generator = Generator::new(Sizes::Mix, 64).unwrap();
    let pace = Pace {
        rate: 5000,
        burst: 10,
        count,
    };
    Source::new(generator, pace)
}

/// A consumer for each queue but the first.
fn others<C: Consumer + Default + Send + 'static>(queues: usize) -> Vec<Box<dyn Consumer + Send>> {
    let one = || -> Box<dyn Consumer + Send> { Box::new(C::default()) };
    (1..queues).map(|_| one()).collect()
}

/// A vif in service by a thread for each queue.
struct Served {
    service: Arc<Service>,
    serving: JoinHandle<Result<(), Error>>,
}

impl Served {
    fn start<C: Consumer + Default + Send + 'static>(
        world: &World,
        vif: u32,
        queues: usize,
    ) -> Self {
        let service = Arc::<Service>::default();
        let (front, told) = (world.front.clone(), Arc::clone(&service));
        let work = move || {
            let stats = Arc::clone(told.all_stats());
            let builder = Device::builder(vif).queues(queues);
            let device = builder.connect_counting_each(&front, stats)?;
            serve_queues(device, &mut C::default(), &mut others::<C>(queues), &told)
        };
        let named = thread::Builder::new().name(thread_name(vif, 0));
        let serving = named.spawn(work).unwrap();
        let served = Self { service, serving };
        until("a connection", || served.service.link().is_some());
        served
    }

    fn queues(&self) -> usize {
        self.service.link().unwrap().queues
    }

    /// One counter of each queue.
    fn each(&self, name: &str) -> Vec<u64> {
        let queues = self.service.snapshots();
        queues.iter().map(|queue| queue.get(name)).collect()
    }

    fn stop(self) {
        self.service.stop();
        self.serving.join().unwrap().unwrap();
    }
}

/// The threads of this process that have this name.
fn threads(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.map(|task| std::fs::read_to_string(task.path().join("comm")));
    names
        .filter(|comm| comm.as_ref().is_ok_and(|comm| comm.trim() == name))
        .count()
}

/// netif.md 2.4: more queues than are offered are fatal, and without the key there is one.
#[test]
fn there_are_as_many_queues_as_are_wanted_or_as_the_backend_offers() {
    for (offered, wanted, found) in [(4, 2, 2), (2, 4, 2), (1, 4, 1), (0, 4, 1), (4, 0, 1)] {
        let world = World::with_grant_limit(ROOM);
        let backend = backend(&world, 0, offered, Sink::new());
        let builder = Device::builder(0).queues(wanted);
        let mut device = builder.connect(&world.front).unwrap();
        let what = format!("{offered} offered, {wanted} wanted");
        assert_eq!(device.link().queues, found, "{what}");
        assert_eq!(device.queues().count(), found, "{what}");
        device.close().unwrap();
        assert_eq!(backend.fault(), None, "{what}");
        let counters = world.front.counters();
        assert_eq!(counters.grants, counters.revokes, "{what}");
    }
}

#[test]
fn a_limit_of_shared_pages_that_is_not_enough_for_all_makes_fewer_queues_that_work() {
    // Two queues, a control ring, and what is left for another vif.
    let two = 2 * 770 + 2 + OTHER_VIF_PAGES;
    for (limit, found) in [(two, 2), (two - 1, 1), (1024, 1), (772, 1), (300, 1)] {
        let world = World::with_grant_limit(limit);
        let backend = backend(&world, 0, 4, frames(400));
        let served = Served::start::<Echo>(&world, 0, 4);
        assert_eq!(served.queues(), found, "of {limit} pages");
        all_came(&backend, 400);
        served.stop();
    }
}

/// What a backend that hangs does not let go of may count against the limit (older kernels), and so do packets that somebody keeps.
/// The next connection has fewer queues then, and the one after it all of them.
#[test]
fn pages_that_are_held_from_an_earlier_connection_cost_queues_only_as_long_as_they_are_held() {
    let two = 2 * 770 + 2 + OTHER_VIF_PAGES;
    let world = World::with_grant_limit(two);
    let _backend = backend(&world, 0, 2, Sink::new());
    let device = Device::builder(0).queues(2).connect(&world.front).unwrap();
    assert_eq!(device.link().queues, 2);
    let pending = device.disconnect();
    let held = world.front.share(BACK, 32, Access::ReadWrite).unwrap();
    let device = pending.retry().unwrap();
    assert_eq!(device.link().queues, 1);
    drop(held);
    let device = device.reconnect().unwrap();
    assert_eq!(device.link().queues, 2);
    device.close().unwrap();
}

#[test]
fn packets_pass_by_each_queue_and_each_flow_keeps_its_order() {
    for queues in [2, 4] {
        let world = World::with_grant_limit(ROOM);
        let backend = backend(&world, 0, 4, frames(3000));
        let served = Served::start::<Echo>(&world, 0, queues);
        all_came(&backend, 3000);
        for name in ["rx_packets", "tx_packets", "events"] {
            let each = served.each(name);
            assert!(
                each.len() == queues && !each.contains(&0),
                "{name}: {each:?}"
            );
        }
        let sum: u64 = served.each("rx_packets").iter().sum();
        assert_eq!(
            (sum, served.service.snapshot().get("rx_packets")),
            (3000, 3000)
        );
        served.stop();
        backend.stop().unwrap();
    }
}

#[test]
fn each_queue_has_pages_of_its_own_that_the_backend_keeps_mapped() {
    let world = World::with_grant_limit(ROOM);
    let backend = backend(&world, 0, 2, frames(400));
    let served = Served::start::<Echo>(&world, 0, 2);
    until("all pages to be mapped", || {
        let (mapped, granted) = (served.each("gref_mapped"), served.each("pool_granted"));
        mapped == granted && mapped.len() == 2 && mapped.iter().all(|&pages| pages >= 768)
    });
    all_came(&backend, 400);
    served.stop();
}

#[test]
fn each_queue_has_a_thread_of_its_name_and_none_is_left_after_a_stop() {
    let (vif, world) = (41, World::with_grant_limit(ROOM));
    let backend = backend(&world, vif, 3, Sink::new());
    let served = Served::start::<Null>(&world, vif, 3);
    for queue in 0..3 {
        let name = thread_name(vif, queue);
        until(&name, || threads(&name) == 1);
    }
    served.stop();
    for queue in 0..3 {
        // The kernel forgets a thread a moment after it was waited for.
        until("the thread to go", || {
            threads(&thread_name(vif, queue)) == 0
        });
    }
    backend.stop().unwrap();
    let counters = world.front.counters();
    assert_eq!(counters.grants, counters.revokes);
}

#[test]
fn a_kick_reaches_all_queues_and_so_does_a_pause() {
    let world = World::with_grant_limit(ROOM);
    let backend = backend(&world, 0, 2, frames(0));
    let served = Served::start::<Echo>(&world, 0, 2);
    let received = |served: &Served| served.each("rx_packets");
    until("packets by both", || !received(&served).contains(&0));
    served.service.pause();
    // What was under way has passed by then.
    let mut before = received(&served);
    until("both to stand still", || {
        thread::sleep(Duration::from_millis(100));
        let now = received(&served);
        std::mem::replace(&mut before, now.clone()) == now
    });
    let events = served.each("notify_sent");
    served.service.kick();
    until("both to have told the backend", || {
        let now = served.each("notify_sent");
        now.iter().zip(&events).all(|(now, then)| now > then)
    });
    assert_eq!(received(&served), before, "a pause goes on");
    served.service.resume();
    until("packets by both again", || {
        let now = received(&served);
        now.iter().zip(&before).all(|(now, then)| now > then)
    });
    served.stop();
    drop(backend);
}

/// A consumer that says what it is told.
#[derive(Default)]
struct Told {
    said: Arc<std::sync::Mutex<Vec<String>>>,
}

impl Told {
    fn say(&self, what: String) {
        self.said.lock().unwrap().push(what);
    }
}

impl Consumer for Told {
    fn link(&mut self, link: &Link) -> Result<(), Error> {
        self.say(format!("mtu {} {}", link.mtu, link.carrier));
        Ok(())
    }

    fn attend(&mut self, has_queue: bool) -> Result<(), Error> {
        self.say(format!("queue {has_queue}"));
        Ok(())
    }

    fn deliver(&mut self, _packet: &mut Packet<'_>) {}
}

#[test]
fn every_consumer_hears_of_the_link_and_whether_it_has_a_queue() {
    let world = World::with_grant_limit(ROOM);
    let backend = backend(&world, 0, 2, Sink::new());
    let service = Arc::<Service>::default();
    let (second, third) = (Told::default(), Told::default());
    let said = [Arc::clone(&second.said), Arc::clone(&third.said)];
    let (front, told) = (world.front.clone(), Arc::clone(&service));
    let serving = thread::spawn(move || {
        let device = Device::builder(0).queues(3).connect(&front)?;
        let mut others: Vec<Box<dyn Consumer + Send>> = vec![Box::new(second), Box::new(third)];
        serve_queues(device, &mut Null, &mut others, &told)
    });
    until("a connection", || service.link().is_some());
    Toolstack::of(&world).front("mtu", 1400);
    let last = |at: usize| said[at].lock().unwrap().last().cloned();
    until("the second to hear of it", || {
        last(0).as_deref() == Some("mtu 1400 true")
    });
    service.stop();
    serving.join().unwrap().unwrap();
    let second = said[0].lock().unwrap().clone();
    assert_eq!(second, ["queue true", "mtu 1500 true", "mtu 1400 true"]);
    let third = said[1].lock().unwrap().clone();
    assert_eq!(third, ["queue false", "mtu 1500 true"]);
    drop(backend);
}

#[test]
fn a_device_with_more_queues_than_consumers_is_connected_anew_with_as_many() {
    let world = World::with_grant_limit(ROOM);
    let backend = backend(&world, 0, 4, frames(0));
    let service = Arc::<Service>::default();
    let (front, told) = (world.front.clone(), Arc::clone(&service));
    let serving = thread::spawn(move || {
        let stats = Arc::clone(told.stats());
        let builder = Device::builder(0).queues(4);
        let device = builder.connect_counting(&front, stats)?;
        serve(device, &mut Echo::default(), &told)
    });
    until("a connection", || service.link().is_some());
    assert_eq!(service.link().unwrap().queues, 1);
    until("packets", || service.stats().tx_packets.get() > 100);
    service.stop();
    serving.join().unwrap().unwrap();
    drop(backend);
}

#[test]
fn other_threads_may_own_the_queues_that_a_program_takes() {
    let world = World::with_grant_limit(ROOM);
    let backend = backend(&world, 0, 2, frames(400));
    let mut device = Device::builder(0).queues(2).connect(&world.front).unwrap();
    let stats = Arc::clone(device.stats());
    let mut taken = device.take_queues();
    assert_eq!((taken.len(), device.queues().count()), (1, 1));
    let all = || stats.snapshot().get("rx_packets") == 400;
    let receive = |queue: &mut Queue| {
        until("all frames", || {
            queue.receive(64, |_| {}).unwrap();
            queue.flush().unwrap();
            all()
        });
    };
    let receive = &receive;
    thread::scope(|scope| {
        for queue in &mut taken {
            scope.spawn(move || receive(queue));
        }
        receive(device.queue());
    });
    assert!(stats.all().iter().all(|queue| queue.rx_packets.get() > 0));
    device.give_queues(taken);
    device.close().unwrap();
    backend.stop().unwrap();
}

/// Waits for a frontend with two queues to publish its keys, maps its rings, and connects.
fn attach(world: &World, toolstack: &mut Toolstack) -> Vec<Back> {
    toolstack.wait_front("4");
    let backs = (0..2).map(|queue| {
        let mut number = |key: &str| -> u32 {
            let key = format!("queue-{queue}/{key}");
            toolstack.read_front(&key).unwrap().parse().unwrap()
        };
        world.attach(&QueueKeys {
            tx_ring: GrantRef(number("tx-ring-ref")),
            rx_ring: GrantRef(number("rx-ring-ref")),
            ports: Ports::Shared(Port(number("event-channel"))),
        })
    });
    let backs = backs.collect();
    toolstack.back("state", 4);
    backs
}

#[test]
fn one_queue_whose_ring_is_broken_takes_the_whole_vif_down_and_all_queues_come_back() {
    for broken in 0..2 {
        let world = World::with_grant_limit(ROOM);
        let mut toolstack = Toolstack::with_vif(&world);
        toolstack.back("multi-queue-max-queues", 2);
        let service = Arc::<Service>::default();
        let (front, told) = (world.front.clone(), Arc::clone(&service));
        let serving = thread::spawn(move || {
            let stats = Arc::clone(told.all_stats());
            let builder = Device::builder(0).queues(2).deadline(PATIENCE);
            let device = builder.connect_counting_each(&front, stats)?;
            serve_queues(device, &mut Null, &mut others::<Null>(2), &told)
        });
        let receives = |backs: &mut [Back], packets: u64| {
            for (queue, back) in backs.iter_mut().enumerate() {
                back.deliver(&frame(100, queue));
                let stats = service.all_stats().of(queue);
                until("the packet", || stats.rx_packets.get() == packets);
            }
        };
        let close_and_wait = |toolstack: &mut Toolstack, backs: Vec<Back>| {
            toolstack.wait_front("5");
            toolstack.back("state", 5);
            toolstack.wait_front("6");
            drop(backs);
            toolstack.back("state", 6);
        };
        let mut backs = attach(&world, &mut toolstack);
        receives(&mut backs, 1);
        let back = &backs[broken];
        back.rx.page().store(8, 5000, Ordering::Release);
        back.events.notify(back.rx_port).unwrap();
        close_and_wait(&mut toolstack, backs);
        toolstack.wait_front("1");
        until("no link", || service.link().is_none());
        toolstack.back("state", 2);
        let mut backs = attach(&world, &mut toolstack);
        receives(&mut backs, 2);
        assert_eq!(service.connections.load(Ordering::Relaxed), 2);
        service.stop();
        close_and_wait(&mut toolstack, backs);
        serving.join().unwrap().unwrap();
        let counters = world.front.counters();
        assert_eq!(counters.grants, counters.revokes);
    }
}

/// Counts how often it is to announce its addresses.
struct Announcer(Arc<AtomicU64>);

impl Consumer for Announcer {
    fn deliver(&mut self, _packet: &mut Packet<'_>) {}

    fn announce(&mut self, _queue: &mut Queue) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn after_each_reconnect_and_not_before_the_first_queues_consumer_alone_announces_its_addresses() {
    let world = World::with_grant_limit(ROOM);
    let mut running = backend(&world, 0, 2, Sink::new());
    let service = Arc::<Service>::default();
    let announced = [Arc::<AtomicU64>::default(), Arc::default()];
    let now = || {
        announced
            .each_ref()
            .map(|count| count.load(Ordering::Relaxed))
    };
    let serving = {
        let (front, told) = (world.front.clone(), Arc::clone(&service));
        let [mut first, other] = announced.clone().map(Announcer);
        thread::spawn(move || {
            let device = Device::builder(0).queues(2).connect(&front)?;
            serve_queues(device, &mut first, &mut [Box::new(other)], &told)
        })
    };
    for reconnects in 0..3 {
        until("a connection", || {
            service.connections.load(Ordering::Relaxed) > reconnects && service.link().is_some()
        });
        until("the announcement", || now()[0] >= reconnects);
        assert_eq!(service.link().unwrap().queues, 2);
        assert_eq!(now(), [reconnects, 0]);
        running.stop().unwrap();
        running = backend(&world, 0, 2, Sink::new());
    }
    until("the last connection", || {
        service.connections.load(Ordering::Relaxed) > 3
    });
    service.stop();
    serving.join().unwrap().unwrap();
}
