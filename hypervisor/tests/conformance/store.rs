//! The store, with every client that is compiled in.

use std::time::{Duration, Instant};

use hypervisor::{DomId, Error, Permission, Rights, Store, StoreClient};
use rustix::event::{poll, PollFd, PollFlags, Timespec};

use super::{eventually, Ground, DEADLINE};

/// A directory for one test, seen by the frontend's domain through each client in turn.
struct Room {
    client: StoreClient,
    store: Box<dyn Store>,
    /// Relative to the own directory.
    path: String,
}

impl Room {
    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }
}

/// Runs a test with each client, in a directory that is empty before and gone after it.
fn with_each_client(ground: &Ground, name: &str, test: impl Fn(&mut Room)) {
    for client in StoreClient::available() {
        let mut room = Room {
            client: *client,
            store: ground.front.store_with(*client).unwrap(),
            path: format!("data/conformance-{client}-{name}"),
        };
        room.store.remove(&room.path).unwrap();
        test(&mut room);
        room.store.remove(&room.path).unwrap();
    }
}

/// All events that are there, taken off.
fn drain(store: &mut dyn Store) -> Vec<String> {
    let mut paths = Vec::new();
    while let Some(event) = store.next_event(Duration::from_millis(100)).unwrap() {
        assert_eq!(event.token, "token");
        paths.push(event.path);
    }
    paths
}

/// Waits for an event of this path.
fn wait_for(store: &mut dyn Store, path: &str) {
    let until = Instant::now() + DEADLINE;
    loop {
        match store.next_event(DEADLINE).unwrap() {
            Some(event) if event.path == path => return,
            other => assert!(
                Instant::now() < until,
                "no event of {path}, the last was {other:?}"
            ),
        }
    }
}

pub(super) fn a_domain_knows_its_number(ground: &Ground) {
    assert_eq!(ground.front.id().unwrap(), ground.front_id);
    for client in StoreClient::available() {
        let mut store = ground.front.store_with(*client).unwrap();
        assert_eq!(
            store.read("domid").unwrap(),
            Some(ground.front_id.to_string())
        );
        let whole = format!("/local/domain/{}/domid", ground.front_id);
        assert_eq!(
            store.read(&whole).unwrap(),
            Some(ground.front_id.to_string())
        );
    }
}

pub(super) fn what_is_written_is_read_until_it_is_removed(ground: &Ground) {
    with_each_client(ground, "write", |room| {
        let path = room.path("a/b");
        room.store.write(&path, "one").unwrap();
        assert_eq!(room.store.read(&path).unwrap().as_deref(), Some("one"));
        room.store.write(&path, "two").unwrap();
        assert_eq!(room.store.read(&path).unwrap().as_deref(), Some("two"));
        room.store.remove(&room.path("a")).unwrap();
        assert_eq!(room.store.read(&path).unwrap(), None);
    });
}

pub(super) fn a_missing_node_is_no_error(ground: &Ground) {
    with_each_client(ground, "missing", |room| {
        let path = room.path("not/here");
        assert_eq!(room.store.read(&path).unwrap(), None);
        assert_eq!(room.store.list(&path).unwrap(), Vec::<String>::new());
        room.store.remove(&path).unwrap();
    });
}

pub(super) fn children_are_listed(ground: &Ground) {
    with_each_client(ground, "list", |room| {
        for name in ["c", "a", "b"] {
            room.store.write(&room.path(name), "").unwrap();
        }
        let mut names = room.store.list(&room.path).unwrap();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(
            room.store.list(&room.path("a")).unwrap(),
            Vec::<String>::new()
        );
    });
}

pub(super) fn a_long_value_comes_out_whole(ground: &Ground) {
    with_each_client(ground, "long", |room| {
        // A guest may not have more than 2048 bytes in a node.
        let value: String = ('a'..='z').cycle().take(1900).collect();
        room.store.write(&room.path("a"), &value).unwrap();
        assert_eq!(room.store.read(&room.path("a")).unwrap(), Some(value));
    });
}

pub(super) fn a_value_too_long_for_the_store_is_refused(ground: &Ground) {
    with_each_client(ground, "too-long", |room| {
        let path = room.path("a");
        assert!(room.store.write(&path, &"x".repeat(5000)).is_err());
        assert_eq!(
            room.store.read(&path).unwrap(),
            None,
            "the connection must live on"
        );
    });
}

pub(super) fn an_empty_value_is_a_value(ground: &Ground) {
    with_each_client(ground, "empty", |room| {
        room.store.write(&room.path("a"), "").unwrap();
        assert_eq!(
            room.store.read(&room.path("a")).unwrap().as_deref(),
            Some("")
        );
    });
}

pub(super) fn a_watch_fires_once_when_it_is_set(ground: &Ground) {
    with_each_client(ground, "watch-first", |room| {
        let path = room.path("not-yet");
        room.store.watch(&path, "token").unwrap();
        wait_for(&mut *room.store, &path);
        room.store.unwatch(&path, "token").unwrap();
    });
}

pub(super) fn a_watch_tells_of_what_others_write(ground: &Ground) {
    with_each_client(ground, "watch", |room| {
        let path = room.path("a");
        room.store.watch(&path, "token").unwrap();
        wait_for(&mut *room.store, &path);
        drain(&mut *room.store);
        let mut other = ground.front.store_with(room.client).unwrap();
        for value in ["one", "two"] {
            other.write(&path, value).unwrap();
            wait_for(&mut *room.store, &path);
            assert_eq!(room.store.read(&path).unwrap().as_deref(), Some(value));
        }
        other.write(&room.path("a/below"), "").unwrap();
        let below = room.path("a/below");
        wait_for(&mut *room.store, &below);
        room.store.unwatch(&path, "token").unwrap();
    });
}

pub(super) fn a_watch_tells_of_removal(ground: &Ground) {
    with_each_client(ground, "watch-remove", |room| {
        let path = room.path("a/b");
        room.store.write(&path, "").unwrap();
        room.store.watch(&path, "token").unwrap();
        wait_for(&mut *room.store, &path);
        drain(&mut *room.store);
        room.store.remove(&room.path("a")).unwrap();
        wait_for(&mut *room.store, &path);
        assert_eq!(room.store.read(&path).unwrap(), None);
        room.store.unwatch(&path, "token").unwrap();
    });
}

pub(super) fn events_that_come_between_calls_are_kept(ground: &Ground) {
    with_each_client(ground, "between", |room| {
        room.store.watch(&room.path.clone(), "token").unwrap();
        wait_for(&mut *room.store, &room.path.clone());
        drain(&mut *room.store);
        let mut other = ground.front.store_with(room.client).unwrap();
        for number in 0..50 {
            other.write(&room.path(&number.to_string()), "x").unwrap();
            // An answer is read past whatever events came before it.
            assert_eq!(
                room.store.read("domid").unwrap(),
                Some(ground.front_id.to_string())
            );
        }
        let last = room.path("49");
        let mut told = Vec::new();
        eventually("the last event", || {
            told.extend(drain(&mut *room.store));
            told.contains(&last).then_some(())
        });
        for number in 0..50 {
            assert!(
                told.contains(&room.path(&number.to_string())),
                "{number} is not in {told:?}"
            );
        }
        room.store.unwatch(&room.path.clone(), "token").unwrap();
    });
}

pub(super) fn the_event_descriptor_wakes_a_waiter(ground: &Ground) {
    with_each_client(ground, "descriptor", |room| {
        let path = room.path("a");
        room.store.watch(&path, "token").unwrap();
        wait_for(&mut *room.store, &path);
        drain(&mut *room.store);
        let mut other = ground.front.store_with(room.client).unwrap();
        other.write(&path, "x").unwrap();
        let mut fds = [PollFd::from_borrowed_fd(
            room.store.event_fd(),
            PollFlags::IN,
        )];
        let ready = poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 30,
                tv_nsec: 0,
            }),
        )
        .unwrap();
        assert_eq!(ready, 1);
        wait_for(&mut *room.store, &path);
        room.store.unwatch(&path, "token").unwrap();
    });
}

pub(super) fn waiting_for_no_event_ends(ground: &Ground) {
    with_each_client(ground, "no-event", |room| {
        assert_eq!(room.store.next_event(Duration::ZERO).unwrap(), None);
        assert_eq!(
            room.store.next_event(Duration::from_millis(20)).unwrap(),
            None
        );
    });
}

pub(super) fn a_watch_taken_back_is_silent(ground: &Ground) {
    with_each_client(ground, "unwatch", |room| {
        let path = room.path("a");
        room.store.watch(&path, "token").unwrap();
        wait_for(&mut *room.store, &path);
        room.store.unwatch(&path, "token").unwrap();
        drain(&mut *room.store);
        room.store.write(&path, "x").unwrap();
        assert_eq!(drain(&mut *room.store), Vec::<String>::new());
    });
}

pub(super) fn what_belongs_to_others_is_not_written(ground: &Ground) {
    if ground.front_id == DomId(0) {
        return; // domain 0 may write everything
    }
    with_each_client(ground, "others", |room| {
        for path in ["/local/domain/0/conformance", "/conformance"] {
            let result = room.store.write(path, "x");
            assert!(
                matches!(result, Err(Error::StorePermission { .. })),
                "{result:?}"
            );
        }
    });
}

pub(super) fn a_strange_path_is_refused(ground: &Ground) {
    with_each_client(ground, "strange", |room| {
        // Not "/": the real xenstored lets domain 0 write there.
        for path in ["a//b", "white space", ""] {
            assert!(room.store.write(path, "x").is_err(), "{path:?}");
        }
        let path = room.path("a");
        room.store.write(&path, "fine").unwrap();
        assert_eq!(room.store.read(&path).unwrap().as_deref(), Some("fine"));
    });
}

pub(super) fn rights_decide_who_reads(ground: &Ground) {
    let mut own = ground.front.native_store().unwrap();
    let mut far = ground.back.native_store().unwrap();
    let path = "data/conformance-rights";
    let whole = format!("/local/domain/{}/{path}", ground.front_id);
    own.write(path, "mine").unwrap();
    if ground.back_id != ground.front_id && ground.back_id != DomId(0) {
        assert!(matches!(
            far.read(&whole),
            Err(Error::StorePermission { .. })
        ));
    }
    let permission = |domain, rights| Permission { domain, rights };
    own.set_permissions(
        path,
        &[
            permission(ground.front_id, Rights::None),
            permission(ground.back_id, Rights::Read),
        ],
    )
    .unwrap();
    assert_eq!(far.read(&whole).unwrap().as_deref(), Some("mine"));
    assert!(own.set_permissions(path, &[]).is_err());
    own.remove(path).unwrap();
}

pub(super) fn a_transaction_is_seen_all_at_once(ground: &Ground) {
    let mut store = ground.front.native_store().unwrap();
    let mut other = ground.front.native_store().unwrap();
    let [one, two] = ["data/conformance-all/one", "data/conformance-all/two"];
    let mut transaction = store.transaction().unwrap();
    transaction.write(one, "1").unwrap();
    transaction.write(two, "2").unwrap();
    assert_eq!(transaction.read(one).unwrap().as_deref(), Some("1"));
    assert_eq!(transaction.list("data/conformance-all").unwrap().len(), 2);
    assert_eq!(other.read(one).unwrap(), None);
    transaction.commit().unwrap();
    assert_eq!(other.read(one).unwrap().as_deref(), Some("1"));
    assert_eq!(other.read(two).unwrap().as_deref(), Some("2"));
    let mut transaction = store.transaction().unwrap();
    transaction.remove("data/conformance-all").unwrap();
    transaction.commit().unwrap();
    assert_eq!(other.read(two).unwrap(), None);
}

pub(super) fn a_transaction_that_was_dropped_did_nothing(ground: &Ground) {
    let mut store = ground.front.native_store().unwrap();
    let path = "data/conformance-dropped";
    store.transaction().unwrap().write(path, "x").unwrap();
    assert_eq!(store.read(path).unwrap(), None);
}

pub(super) fn a_transaction_that_met_a_change_is_refused(ground: &Ground) {
    let mut store = ground.front.native_store().unwrap();
    let mut other = ground.front.native_store().unwrap();
    let path = "data/conformance-conflict";
    store.write(path, "before").unwrap();
    let mut transaction = store.transaction().unwrap();
    assert_eq!(transaction.read(path).unwrap().as_deref(), Some("before"));
    transaction.write(path, "mine").unwrap();
    other.write(path, "theirs").unwrap();
    assert!(matches!(
        transaction.commit(),
        Err(Error::TransactionConflict)
    ));
    assert_eq!(store.read(path).unwrap().as_deref(), Some("theirs"));
    store.remove(path).unwrap();
}
