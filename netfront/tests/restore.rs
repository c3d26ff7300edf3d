//! The domain is saved and restored, or migrated, while the driver runs: it connects anew, in order, and
//! no event channel handle from before is used or closed (that breaks a guest's kernel).
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::toolstack::Toolstack;
use common::{until, World, FRONT, PATIENCE};
use hypervisor::sim::{kernel_bugs, save};
use hypervisor::{DomId, StoreClient};
use netback_sim::traffic::Counts;
use netback_sim::{Backend, BackendHandle, Config};
use netfront::consumer::Echo;
use netfront::engine::{serve, Service};
use netfront::{Change, Device, Error};
use netfront_tests::stage::source;

const AFTER: DomId = DomId(7);

/// A backend that sends verifiable frames and judges what comes back.
fn backend(world: &World, number: DomId) -> BackendHandle {
    let mut config = Config::new(number, source("mix", 20_000, 0));
    config.close_patience = PATIENCE;
    Backend::start(&world.back, config).expect("a backend")
}

/// A vif in service, and the domain that it belongs to.
struct Vif {
    world: World,
    number: DomId,
    backend: Option<BackendHandle>,
    service: Arc<Service>,
    serving: Option<JoinHandle<Result<(), Error>>>,
}

impl Vif {
    fn new() -> Self {
        let world = World::new();
        let backend = backend(&world, FRONT);
        let service = Arc::new(Service::default());
        let serving = {
            let (front, service) = (world.front.clone(), Arc::clone(&service));
            std::thread::spawn(move || {
                let stats = Arc::clone(service.stats());
                let device = Device::builder(0).connect_counting(&front, stats)?;
                serve(device, &mut Echo::default(), &service)
            })
        };
        Self {
            world,
            number: FRONT,
            backend: Some(backend),
            service,
            serving: Some(serving),
        }
    }

    /// Waits until so many connections were made and frames come back through the present one.
    fn traffic(&self, connections: u64) -> Counts {
        until("the connection", || {
            self.service.connections.load(Ordering::Relaxed) == connections
        });
        let backend = self.backend.as_ref().expect("a backend");
        let judged = || backend.verified().unwrap_or_default();
        until("frames in both directions", || judged().frames > 2000);
        judged()
    }

    /// What `xl save` and `xl restore` do. The backend of before is just gone, and another one serves the
    /// new vif.
    fn restore(&mut self, number: DomId) {
        let saved = save(&self.world.socket(), self.number).expect("saved");
        if let Some(old) = self.backend.take() {
            old.abandon().expect("abandoned");
        }
        self.world.stage.remove_vifs_of(self.number);
        self.backend = Some(backend(&self.world, number));
        saved.restore(number).expect("restored");
        self.number = number;
    }

    fn stop(&mut self) -> Result<(), Error> {
        self.service.stop();
        self.serving.take().expect("once").join().expect("no panic")
    }

    /// Nothing is left, and no kernel broke.
    fn assert_clean(mut self) {
        // While the store still answers.
        drop(self.backend.take());
        let counters = self.world.front.counters();
        assert_eq!(counters.grants, counters.revokes, "pages are left over");
        assert_eq!(kernel_bugs(&self.world.socket()).unwrap(), 0);
    }
}

/// Frames may be lost with the rings that died, and only these: nothing is doubled, overtaken or damaged.
fn assert_ordered(counts: Counts) {
    let wrong = (counts.duplicate, counts.reordered, counts.corrupt);
    assert_eq!(wrong, (0, 0, 0), "{counts:?}");
}

fn pool(service: &Service) -> [u64; 5] {
    let stats = service.stats();
    [
        &stats.pool_granted,
        &stats.pool_free,
        &stats.pool_posted,
        &stats.pool_leased,
        &stats.pool_quarantined,
    ]
    .map(netfront::stats::Counter::get)
}

#[test]
fn traffic_in_both_directions_goes_on_after_each_of_several_restores() {
    let mut vif = Vif::new();
    assert_ordered(vif.traffic(1));
    // Another number, the first one again (as after a migration to another host), the same twice.
    for (round, number) in (1..).zip([AFTER, FRONT, FRONT, DomId(9)]) {
        vif.restore(number);
        assert_ordered(vif.traffic(round + 1));
        assert_eq!(vif.service.stats().restores.get(), round);
        until("a whole pool", || {
            let [granted, free, posted, leased, quarantined] = pool(&vif.service);
            granted > 0 && granted == free + posted + leased && quarantined == 0
        });
    }
    vif.stop().unwrap();
    vif.assert_clean();
}

#[test]
fn two_restores_in_a_row_are_survived_whether_or_not_the_first_was_noticed() {
    for pause in [0, 1, 20, 200] {
        let mut vif = Vif::new();
        vif.traffic(1);
        vif.restore(AFTER);
        std::thread::sleep(Duration::from_millis(pause));
        vif.restore(AFTER);
        let frames = |vif: &Vif| {
            let verified = vif.backend.as_ref().and_then(BackendHandle::verified);
            verified.unwrap_or_default()
        };
        until("frames through the last backend", || {
            frames(&vif).frames > 1000
        });
        assert_ordered(frames(&vif));
        vif.stop().unwrap();
        vif.assert_clean();
    }
}

#[test]
fn a_driver_that_is_told_to_stop_right_before_or_after_a_restore_ends_without_harm() {
    for before in [true, false] {
        for number in [AFTER, FRONT] {
            let mut vif = Vif::new();
            vif.traffic(1);
            if before {
                vif.service.stop();
            }
            vif.restore(number);
            // Nobody answers the goodbye of before, if it had begun.
            let ended = vif.stop();
            assert!(before || ended.is_ok(), "{ended:?}");
            vif.assert_clean();
        }
    }
}

/// XSA-465's class: the three in any order, as close together as they come.
#[test]
fn restore_closing_backend_and_stop_may_come_in_any_order() {
    let orders = ["rbs", "rsb", "brs", "bsr", "srb", "sbr"];
    for order in orders {
        let mut vif = Vif::new();
        vif.traffic(1);
        let mut closing = Vec::new();
        for step in order.chars() {
            match step {
                'r' => vif.restore(AFTER),
                'b' => {
                    let backend = vif.backend.take().expect("a backend");
                    closing.push(std::thread::spawn(move || backend.stop()));
                }
                _ => vif.service.stop(),
            }
        }
        let ended = vif.stop();
        // A goodbye that was under way when its backend went may have nobody to answer it.
        assert!(
            matches!(ended, Ok(()) | Err(Error::Deadline { .. })),
            "{order}: {ended:?}"
        );
        drop(vif.backend.take());
        for one in closing {
            // Its vif may be gone under it.
            let _ = one.join().expect("no panic");
        }
        vif.assert_clean();
    }
}

#[test]
fn a_restore_in_the_middle_of_the_first_handshake_is_no_failure() {
    // Before the backend is ready, and after we have told it that we are.
    for (state, reached) in [(1, "1"), (2, "4")] {
        for number in [AFTER, FRONT] {
            let world = World::new();
            let mut toolstack = Toolstack::with_vif(&world);
            toolstack.back("state", state);
            let front = world.front.clone();
            let began = Instant::now();
            let connecting = std::thread::spawn(move || Device::builder(0).connect(&front));
            toolstack.wait_front(reached);
            let mut vif = Vif {
                world,
                number: FRONT,
                backend: None,
                service: Arc::default(),
                serving: None,
            };
            vif.restore(number);
            let device = connecting.join().expect("no panic").expect("connected");
            assert!(began.elapsed() < PATIENCE, "it waited for a dead backend");
            device.close().unwrap();
            vif.assert_clean();
        }
    }
}

#[test]
fn a_device_says_that_the_domain_was_restored_and_its_queue_is_of_no_more_use() {
    let world = World::new();
    let mut vif = Vif {
        backend: Some(backend(&world, FRONT)),
        world,
        number: FRONT,
        service: Arc::default(),
        serving: None,
    };
    let mut device = Device::builder(0).connect(&vif.world.front).unwrap();
    vif.restore(FRONT);
    until("the news", || device.change() == Some(Change::Restored));
    assert!(!device.link().carrier);
    let error = device.queue().kick().unwrap_err();
    assert!(error.is_restore(), "{error}");
    let device = device.reconnect().expect("connected again");
    drop(device);
    vif.assert_clean();
}

/// Where the domain may not leave a mark, our own keys tell.
#[test]
fn a_domain_that_may_not_leave_a_mark_notices_by_its_keys_that_it_was_restored() {
    for number in [AFTER, FRONT] {
        let world = World::new();
        let home = format!("/local/domain/{FRONT}");
        let mut store =
            hypervisor::sim::store(&world.socket(), DomId(0), StoreClient::Native).unwrap();
        let entry = |domain, rights| hypervisor::Permission { domain, rights };
        let rights = [
            entry(DomId(0), hypervisor::Rights::None),
            entry(FRONT, hypervisor::Rights::Read),
        ];
        store.set_permissions(&home, &rights).unwrap();
        let mut vif = Vif {
            backend: Some(backend(&world, FRONT)),
            world,
            number: FRONT,
            service: Arc::default(),
            serving: None,
        };
        let mut device = Device::builder(0).connect(&vif.world.front).unwrap();
        assert!(!vif.world.front.is_marked());
        vif.restore(number);
        until("the news", || device.change() == Some(Change::Restored));
        device.reconnect().unwrap().close().unwrap();
        vif.assert_clean();
    }
}
