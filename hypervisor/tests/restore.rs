//! A domain is saved and restored: what dies, what goes on, and that no handle breaks the guest's kernel.

#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use hypervisor::sim::server::{self, Options, Running};
use hypervisor::sim::{self, kernel_bugs, save};
use hypervisor::{
    Access, Copy, CopyStatus, Direction, DomId, Domain, Error, EventChannels, LocalBuffer,
    Permission, Port, Rights, Store, StoreClient,
};

const PATIENCE: Duration = Duration::from_secs(20);
const BACK: DomId = DomId(0);
const GUEST: DomId = DomId(3);
const AFTER: DomId = DomId(5);
const MARK: &str = "data/netfront/restore-mark";

struct World {
    socket: PathBuf,
    guest: Domain,
    back: Domain,
    _server: Running,
    _folder: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("xen");
        let server = server::spawn(&socket, Options::new()).unwrap();
        World {
            guest: Domain::simulated(&socket, GUEST).unwrap(),
            back: Domain::simulated(&socket, BACK).unwrap(),
            socket,
            _server: server,
            _folder: folder,
        }
    }

    fn restore(&self, number: DomId) {
        save(&self.socket, GUEST).unwrap().restore(number).unwrap();
    }

    fn bugs(&self) -> u32 {
        kernel_bugs(&self.socket).unwrap()
    }

    fn bound(&self) -> (EventChannels, Port) {
        let mut events = self.guest.events().unwrap();
        let port = events.bind_unbound(BACK).unwrap();
        (events, port)
    }

    /// Takes from the guest the right to write below `data`.
    fn without_a_mark(&self) {
        let mut store = sim::store(&self.socket, BACK, StoreClient::Native).unwrap();
        let home = format!("/local/domain/{GUEST}");
        let entry = |domain, rights| Permission { domain, rights };
        let rights = [entry(BACK, Rights::None), entry(GUEST, Rights::Read)];
        store.set_permissions(&home, &rights).unwrap();
    }
}

/// Everything that a dead handle is asked.
fn assert_dead(events: &mut EventChannels, port: Port) {
    let restored = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Restored)));
    restored(events.notify(port));
    restored(events.unmask(port));
    restored(events.unbind(port));
    restored(events.bind_unbound(BACK).map(drop));
    restored(events.bind_interdomain(BACK, port).map(drop));
    restored(events.pending(&mut Vec::new()));
    assert!(events.is_dead());
}

#[test]
fn a_handle_from_before_a_restore_refuses_everything_is_parked_and_breaks_nothing() {
    for number in [AFTER, GUEST] {
        let world = World::new();
        let (mut old, port) = world.bound();
        assert_eq!(world.guest.look_for_restore().unwrap(), 0);
        world.restore(number);
        assert_eq!(world.guest.look_for_restore().unwrap(), 1, "as {number}");
        assert_eq!(world.guest.look_for_restore().unwrap(), 1, "counted twice");
        assert_eq!(world.guest.id().unwrap(), number);
        assert_dead(&mut old, port);
        let (mut new, port) = world.bound();
        new.notify(port).unwrap();
        drop(old);
        new.unbind(port).unwrap();
        drop(new);
        assert_eq!(world.bugs(), 0);
    }
}

#[test]
fn a_handle_finds_out_by_itself_before_it_binds_unbinds_or_is_closed() {
    type Touch = fn(&mut EventChannels, Port);
    let touches: [Touch; 4] = [
        |events, _| assert!(matches!(events.bind_unbound(BACK), Err(Error::Restored))),
        |events, port| assert!(matches!(events.unbind(port), Err(Error::Restored))),
        |events, port| {
            let bound = events.bind_interdomain(BACK, port);
            assert!(matches!(bound, Err(Error::Restored)));
        },
        // Only dropped.
        |_, _| {},
    ];
    for touch in touches {
        for number in [AFTER, GUEST] {
            let world = World::new();
            let (mut old, port) = world.bound();
            world.restore(number);
            touch(&mut old, port);
            drop(old);
            assert_eq!(world.bugs(), 0);
            assert_eq!(world.guest.restores(), 1);
        }
    }
}

#[test]
fn a_handle_without_a_port_is_closed_and_one_that_was_parked_stays_so_over_the_next_restore() {
    let world = World::new();
    let empty = world.guest.events().unwrap();
    let (first, _) = world.bound();
    world.restore(AFTER);
    drop(empty);
    drop(first);
    let (second, _) = world.bound();
    save(&world.socket, AFTER).unwrap().restore(GUEST).unwrap();
    drop(second);
    assert_eq!((world.bugs(), world.guest.restores()), (0, 2));
}

#[test]
fn domain_0_is_never_taken_for_restored_and_has_no_mark() {
    let world = World::new();
    let mut events = world.back.events().unwrap();
    events.bind_unbound(GUEST).unwrap();
    let mut store = world.back.native_store().unwrap();
    assert_eq!(store.read(MARK).unwrap(), None);
    assert!(world.back.is_marked());
    assert_eq!(world.back.look_for_restore().unwrap(), 0);
}

#[test]
fn all_processes_of_a_domain_share_one_mark() {
    let world = World::new();
    drop(world.bound());
    let mut store = world.guest.native_store().unwrap();
    let mark = store.read(MARK).unwrap().unwrap();
    drop(world.bound());
    assert_eq!(store.read(MARK).unwrap().unwrap(), mark);
    world.restore(GUEST);
    assert_eq!(store.read(MARK).unwrap(), None);
    drop(world.bound());
    assert_ne!(store.read(MARK).unwrap().unwrap(), mark);
}

#[test]
fn without_the_right_to_leave_a_mark_the_number_tells_and_who_knows_better_can_say_so() {
    let world = World::new();
    world.without_a_mark();
    let (old, _) = world.bound();
    assert!(!world.guest.is_marked());
    assert_eq!(world.guest.look_for_restore().unwrap(), 0);
    world.restore(AFTER);
    assert_eq!(world.guest.look_for_restore().unwrap(), 1);
    drop(old);
    assert_eq!(world.bugs(), 0);

    let world = World::new();
    world.without_a_mark();
    let (mut old, port) = world.bound();
    world.restore(GUEST);
    assert_eq!(world.guest.look_for_restore().unwrap(), 0);
    world.guest.assume_restored();
    assert_dead(&mut old, port);
    drop(old);
    assert_eq!((world.bugs(), world.guest.restores()), (0, 1));
}

#[test]
fn a_connection_to_the_store_goes_on_under_the_new_number_and_its_watches_fire() {
    for client in StoreClient::available() {
        let world = World::new();
        let mut store = world.guest.store_with(*client).unwrap();
        store.write("data/before", "1").unwrap();
        store.watch("domid", "number").unwrap();
        store.watch("device/vif/0/backend", "backend").unwrap();
        while store
            .next_event(Duration::from_millis(200))
            .unwrap()
            .is_some()
        {}
        let saved = save(&world.socket, GUEST).unwrap();
        let mut toolstack = sim::store(&world.socket, BACK, StoreClient::Native).unwrap();
        toolstack
            .write(&format!("/local/domain/{AFTER}/device/vif/0/backend"), "x")
            .unwrap();
        saved.restore(AFTER).unwrap();
        let mut tokens = Vec::new();
        while tokens.len() < 2 {
            let event = store.next_event(PATIENCE).unwrap().expect("an event");
            assert!(!event.path.starts_with('/'), "{}", event.path);
            if !tokens.contains(&event.token) {
                tokens.push(event.token);
            }
        }
        assert_eq!(store.read("domid").unwrap().as_deref(), Some("5"));
        assert_eq!(store.read("data/before").unwrap(), None);
        store.write("data/after", "2").unwrap();
        let found = toolstack.read(&format!("/local/domain/{AFTER}/data/after"));
        assert_eq!(found.unwrap().as_deref(), Some("2"));
        // A new connection by the old number is one of the same domain.
        let mut late = world.guest.store_with(*client).unwrap();
        assert_eq!(late.read("domid").unwrap().as_deref(), Some("5"));
    }
}

#[test]
fn a_transaction_from_before_a_restore_ends_as_if_it_had_met_another() {
    let world = World::new();
    let mut store = world.guest.native_store().unwrap();
    let mut transaction = store.transaction().unwrap();
    transaction.write("data/node", "1").unwrap();
    world.restore(GUEST);
    assert!(matches!(
        transaction.commit(),
        Err(Error::TransactionConflict)
    ));
}

#[test]
fn what_the_domain_granted_and_bound_is_gone_for_its_peer() {
    let world = World::new();
    let shared = world.guest.share(BACK, 2, Access::ReadWrite).unwrap();
    let (mut events, port) = world.bound();
    let mut back = world.back.events().unwrap();
    let far = back.bind_interdomain(GUEST, port).unwrap();
    let mut foreign = world.back.foreign(GUEST).unwrap();
    let mapped = foreign
        .map(&[shared.reference(0)], Access::ReadWrite)
        .unwrap();
    world.restore(AFTER);
    let mut operations = [Copy {
        gref: shared.reference(1),
        offset: 0,
        len: 8,
        local: 0,
        direction: Direction::ToDomain,
        status: CopyStatus::Okay,
    }];
    let mut local = LocalBuffer::new(8).unwrap();
    foreign.copy(&mut local, &mut operations).unwrap();
    assert!(!operations[0].status.is_okay());
    assert!(foreign
        .map(&[shared.reference(0)], Access::ReadOnly)
        .is_err());
    assert!(world.back.foreign(GUEST).is_err(), "nobody has that number");
    // As with a peer that is gone: dropped silently.
    back.notify(far).unwrap();
    // The owner may take back what it shared before, and share anew.
    drop(mapped);
    drop(shared);
    world.guest.look_for_restore().unwrap();
    assert_dead(&mut events, port);
    let again = world.guest.share(BACK, 2, Access::ReadWrite).unwrap();
    let mut foreign = world.back.foreign(AFTER).unwrap();
    foreign
        .map(&[again.reference(1)], Access::ReadWrite)
        .unwrap();
}

#[test]
fn who_is_saved_is_not_heard_until_it_is_restored() {
    let world = World::new();
    let saved = save(&world.socket, GUEST).unwrap();
    assert!(matches!(
        save(&world.socket, GUEST),
        Err(Error::NoSuchDomain { .. })
    ));
    let guest = world.guest.clone();
    let asking = std::thread::spawn(move || guest.native_store().unwrap().read("domid"));
    std::thread::sleep(Duration::from_millis(200));
    assert!(!asking.is_finished());
    saved.restore(AFTER).unwrap();
    assert_eq!(asking.join().unwrap().unwrap().as_deref(), Some("5"));
}
