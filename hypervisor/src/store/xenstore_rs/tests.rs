//! The adapter against a store that misbehaves on command. That it does what every client must do is
//! tested together with the other client, against the simulated store.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::store::wire::{strings, Framer, Kind, Message};

const SOON: Duration = Duration::from_secs(10);

/// How the store behaves.
#[derive(Default)]
struct Manners {
    nodes: BTreeMap<String, Vec<u8>>,
    /// Sends the first event of a watch before the answer to it.
    eager: bool,
    /// Sends no event for a watch that is set.
    lazy: bool,
    /// Answers nothing from now on, and keeps the connection.
    mute: bool,
    /// Closes the connection at the next question.
    hang_up: bool,
    /// What was asked, by kind and first string.
    asked: Vec<(u32, String)>,
    /// The live connections, with the watches of each.
    watches: Vec<(UnixStream, String, String)>,
}

struct FakeStore {
    folder: TempDir,
    manners: Arc<Mutex<Manners>>,
}

impl FakeStore {
    fn start(manners: Manners) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let manners = Arc::new(Mutex::new(manners));
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let shared = Arc::clone(&manners);
        thread::spawn(move || {
            for connection in listener.incoming() {
                let shared = Arc::clone(&shared);
                thread::spawn(move || serve(connection.unwrap(), &shared));
            }
        });
        FakeStore { folder, manners }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn client(&self) -> XenstoreRs {
        XenstoreRs::open(Some(self.socket())).unwrap()
    }

    /// A client that gives up sooner, for a store that is expected not to answer.
    fn impatient_client(&self) -> XenstoreRs {
        XenstoreRs::with_deadline(Some(self.socket()), Duration::from_secs(1)).unwrap()
    }

    fn set(&self, change: impl FnOnce(&mut Manners)) {
        change(&mut self.manners.lock().unwrap());
    }

    /// Fires all watches, each with this path.
    fn fire(&self, path: &str) {
        for (stream, _, token) in &mut self.manners.lock().unwrap().watches {
            let event = frame(Kind::WATCH_EVENT, 0, &wire::payload(&[path, token]));
            let _ = stream.write_all(&event);
        }
    }

    fn asked(&self, kind: Kind) -> usize {
        self.manners
            .lock()
            .unwrap()
            .asked
            .iter()
            .filter(|(asked, _)| *asked == kind.0)
            .count()
    }
}

fn frame(kind: Kind, request: u32, payload: &[u8]) -> Vec<u8> {
    Message {
        kind,
        request,
        transaction: 0,
        payload: payload.to_vec(),
    }
    .encode()
}

fn serve(mut stream: UnixStream, manners: &Mutex<Manners>) {
    let (mut framer, mut bytes) = (Framer::default(), [0; 8192]);
    loop {
        match stream.read(&mut bytes) {
            Ok(0) | Err(_) => break,
            Ok(read) => framer.push(&bytes[..read]),
        }
        while let Some(message) = framer.next_message().unwrap() {
            let mut manners = manners.lock().unwrap();
            if manners.hang_up {
                manners.hang_up = false;
                return;
            }
            let parts: Vec<String> = message
                .payload
                .split(|byte| *byte == 0)
                .map(|part| String::from_utf8_lossy(part).into_owned())
                .collect();
            manners.asked.push((message.kind.0, parts[0].clone()));
            if manners.mute {
                continue;
            }
            let reply = |kind: Kind, payload: &[u8]| frame(kind, message.request, payload);
            let mut out = Vec::new();
            match message.kind {
                Kind::READ => {
                    out = match manners.nodes.get(&parts[0]) {
                        Some(value) => reply(Kind::READ, value),
                        None => reply(Kind::ERROR, b"ENOENT\0"),
                    }
                }
                Kind::WRITE if parts[0] == "forbidden" => out = reply(Kind::ERROR, b"EACCES\0"),
                Kind::WRITE if parts[0] == "full" => out = reply(Kind::ERROR, b"ENOSPC\0"),
                Kind::WRITE => {
                    manners
                        .nodes
                        .insert(parts[0].clone(), parts[1].clone().into_bytes());
                    out = reply(Kind::WRITE, b"OK\0");
                }
                Kind::RM => {
                    out = match manners.nodes.remove(&parts[0]) {
                        Some(_) => reply(Kind::RM, b"OK\0"),
                        None => reply(Kind::ERROR, b"ENOENT\0"),
                    }
                }
                Kind::DIRECTORY if parts[0] == "empty" => out = reply(Kind::DIRECTORY, b""),
                Kind::DIRECTORY if parts[0] == "some" => out = reply(Kind::DIRECTORY, b"a\0b\0"),
                Kind::DIRECTORY => out = reply(Kind::ERROR, b"ENOENT\0"),
                Kind::WATCH => {
                    let names = strings(&message.payload).unwrap();
                    let event = frame(Kind::WATCH_EVENT, 0, &wire::payload(&names));
                    let answer = reply(Kind::WATCH, b"OK\0");
                    out = match (manners.lazy, manners.eager) {
                        (true, _) => answer,
                        (_, true) => [event, answer].concat(),
                        _ => [answer, event].concat(),
                    };
                    let copy = stream.try_clone().unwrap();
                    manners
                        .watches
                        .push((copy, names[0].into(), names[1].into()));
                }
                Kind::UNWATCH => {
                    manners.watches.retain(|(_, _, token)| *token != parts[1]);
                    out = reply(Kind::UNWATCH, b"OK\0");
                }
                _ => out.extend(reply(Kind::ERROR, b"ENOSYS\0")),
            }
            if stream.write_all(&out).is_err() {
                return;
            }
        }
    }
}

fn event(path: &str, token: &str) -> WatchEvent {
    WatchEvent {
        path: path.into(),
        token: token.into(),
    }
}

#[test]
fn values_are_written_read_listed_and_removed() {
    let fake = FakeStore::start(Manners::default());
    let mut store = fake.client();
    assert_eq!(store.read("state").unwrap(), None);
    store.write("state", "4").unwrap();
    assert_eq!(store.read("state").unwrap().as_deref(), Some("4"));
    store.write("state", "").unwrap();
    assert_eq!(store.read("state").unwrap().as_deref(), Some(""));
    store.remove("state").unwrap();
    store.remove("state").unwrap();
    assert_eq!(store.read("state").unwrap(), None);
    assert_eq!(store.list("some").unwrap(), ["a", "b"]);
    assert!(store.list("empty").unwrap().is_empty());
    assert!(store.list("nowhere").unwrap().is_empty());
}

#[test]
fn a_refusal_keeps_the_code_of_the_store() {
    let fake = FakeStore::start(Manners::default());
    let mut store = fake.client();
    let error = store.write("forbidden", "x").unwrap_err();
    assert!(
        matches!(
            error,
            Error::StorePermission {
                operation: "write",
                ..
            }
        ),
        "{error}"
    );
    let error = store.write("full", "x").unwrap_err();
    assert!(
        matches!(&error, Error::StoreRefused { code, .. } if code == "ENOSPC"),
        "{error}"
    );
    // The connection has not suffered.
    store.write("state", "1").unwrap();
}

#[test]
fn a_value_that_is_no_text_is_an_error_and_harms_nothing() {
    let fake = FakeStore::start(Manners::default());
    fake.set(|manners| drop(manners.nodes.insert("odd".into(), vec![0xff, 0xfe])));
    let mut store = fake.client();
    assert!(matches!(
        store.read("odd").unwrap_err(),
        Error::BadAnswer { .. }
    ));
    assert_eq!(store.read("state").unwrap(), None);
}

#[test]
fn a_request_that_would_end_the_writer_of_the_crate_is_refused() {
    let fake = FakeStore::start(Manners::default());
    let mut store = fake.client();
    let error = store.write("state", &"x".repeat(4096)).unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    let error = store.write("a\0b", "x").unwrap_err();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    store.write("state", &"x".repeat(4090)).unwrap();
}

#[test]
fn a_watch_fires_at_once_whatever_the_order_of_event_and_answer() {
    for (eager, lazy) in [(true, false), (false, false), (false, true)] {
        let fake = FakeStore::start(Manners {
            eager,
            lazy,
            ..Manners::default()
        });
        let mut store = fake.client();
        store.watch("backend/state", "t").unwrap();
        let first = store.next_event(SOON).unwrap();
        assert_eq!(
            first,
            Some(event("backend/state", "t")),
            "eager {eager}, lazy {lazy}"
        );
    }
}

#[test]
fn events_carry_the_token_of_their_watch_and_wake_the_descriptor() {
    let fake = FakeStore::start(Manners {
        lazy: true,
        ..Manners::default()
    });
    let mut store = fake.client();
    store.watch("a", "one").unwrap();
    store.watch("b", "two").unwrap();
    assert_eq!(store.next_event(SOON).unwrap(), Some(event("a", "one")));
    assert_eq!(store.next_event(SOON).unwrap(), Some(event("b", "two")));
    assert_eq!(store.next_event(Duration::ZERO).unwrap(), None);
    store.unwatch("a", "one").unwrap();
    // Questions are answered in order, so the watch is gone once a later one came through.
    store.read("x").unwrap();
    assert_eq!(fake.asked(Kind::UNWATCH), 1);
    fake.fire("b/1");
    let woken = wait::ready(store.event_fd(), PollFlags::IN, Instant::now() + SOON).unwrap();
    assert_eq!(woken, Waited::Ready);
    assert_eq!(store.next_event(SOON).unwrap(), Some(event("b/1", "two")));
}

#[test]
fn a_watch_set_twice_or_taken_back_twice_is_refused() {
    let fake = FakeStore::start(Manners::default());
    let mut store = fake.client();
    store.watch("a", "t").unwrap();
    let error = store.watch("a", "t").unwrap_err();
    assert!(
        matches!(&error, Error::StoreRefused { code, .. } if code == "EEXIST"),
        "{error}"
    );
    store.unwatch("a", "t").unwrap();
    let error = store.unwatch("a", "t").unwrap_err();
    assert!(
        matches!(&error, Error::StoreRefused { code, .. } if code == "ENOENT"),
        "{error}"
    );
}

#[test]
fn asking_while_many_events_wait_does_not_stall() {
    let fake = FakeStore::start(Manners {
        lazy: true,
        ..Manners::default()
    });
    let mut store = fake.client();
    store.watch("a", "t").unwrap();
    for n in 0..100 {
        fake.fire(&format!("a/{n}"));
    }
    assert_eq!(store.read("state").unwrap(), None);
    // The one at once, and a hundred.
    for _ in 0..101 {
        assert!(store.next_event(SOON).unwrap().is_some());
    }
}

#[test]
fn a_store_that_never_answers_costs_a_deadline_and_then_a_new_connection() {
    let fake = FakeStore::start(Manners::default());
    let mut store = fake.impatient_client();
    fake.set(|manners| manners.mute = true);
    let error = store.read("state").unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    fake.set(|manners| manners.mute = false);
    assert_eq!(store.read("state").unwrap(), None);
}

#[test]
fn after_a_hang_up_watches_are_set_again_and_fire() {
    let fake = FakeStore::start(Manners {
        lazy: true,
        ..Manners::default()
    });
    let mut store = fake.impatient_client();
    store.watch("a", "t").unwrap();
    assert_eq!(store.next_event(SOON).unwrap(), Some(event("a", "t")));
    fake.set(|manners| manners.hang_up = true);
    assert!(store.read("state").is_err());
    assert_eq!(store.next_event(SOON).unwrap(), Some(event("a", "t")));
    assert_eq!(fake.asked(Kind::WATCH), 2);
    fake.fire("a/1");
    assert_eq!(store.next_event(SOON).unwrap(), Some(event("a/1", "t")));
}

#[test]
fn a_store_that_dies_while_nobody_asks_is_found_out() {
    let fake = FakeStore::start(Manners {
        lazy: true,
        ..Manners::default()
    });
    let mut store = fake.client();
    store.watch("a", "t").unwrap();
    assert!(store.next_event(SOON).unwrap().is_some());
    for (stream, ..) in fake.manners.lock().unwrap().watches.drain(..) {
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    // The probe comes after five seconds; the watch is set again and fires.
    let next = store.next_event(Duration::from_secs(60)).unwrap();
    assert_eq!(next, Some(event("a", "t")));
}

#[test]
fn a_socket_where_nobody_listens_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong");
    let error = XenstoreRs::open(Some(wrong.clone())).err().unwrap();
    assert!(
        error.to_string().contains(wrong.to_str().unwrap()),
        "{error}"
    );
    // The same with the file of a listener that has died.
    drop(UnixListener::bind(&wrong).unwrap());
    let error = XenstoreRs::open(Some(wrong.clone())).err().unwrap();
    assert!(
        error.to_string().contains(wrong.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_socket_whose_name_is_no_text_is_refused_and_not_taken_for_none() {
    let folder = tempfile::tempdir().unwrap();
    let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"odd-\xff"));
    let _listener = UnixListener::bind(&odd).unwrap();
    let error = XenstoreRs::open(Some(odd)).err().unwrap();
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
}

#[test]
fn without_a_store_the_error_says_where_it_was_looked_for() {
    let absent = |path: &str| !Path::new(path).exists();
    if absent("/run/xenstored/socket") && absent("/dev/xen/xenbus") {
        let error = XenstoreRs::open(None).err().unwrap().to_string();
        assert!(error.contains("/dev/xen/xenbus"), "{error}");
    }
}

#[test]
fn many_clients_may_be_opened_at_once() {
    let stores = [
        FakeStore::start(Manners::default()),
        FakeStore::start(Manners::default()),
    ];
    for (n, fake) in stores.iter().enumerate() {
        fake.set(|manners| drop(manners.nodes.insert("domid".into(), n.to_string().into())));
    }
    thread::scope(|scope| {
        for n in 0..8 {
            let fake = &stores[n % 2];
            scope.spawn(move || {
                let own = fake.client().read("domid").unwrap();
                assert_eq!(own, Some((n % 2).to_string()), "never the store of another");
            });
        }
    });
}

#[cfg(feature = "sim")]
#[test]
fn on_the_simulated_store_one_client_sees_what_another_writes() {
    use crate::sim::{self, server};
    use crate::{DomId, StoreClient};

    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xen");
    let _running = server::spawn(&socket, server::Options::new()).unwrap();
    let mut guest = sim::store(&socket, DomId(5), StoreClient::XenstoreRs).unwrap();
    let mut host = sim::store(&socket, DomId(0), StoreClient::XenstoreRs).unwrap();
    guest.watch("device", "front").unwrap();
    assert_eq!(
        guest.next_event(SOON).unwrap(),
        Some(event("device", "front"))
    );
    host.write("/local/domain/5/device/vif/0/state", "1")
        .unwrap();
    let deadline = Instant::now() + SOON;
    // Events are hints, and the first may come twice: only what is read counts.
    while guest.read("device/vif/0/state").unwrap().as_deref() != Some("1") {
        assert!(Instant::now() < deadline);
        guest
            .next_event(SOON)
            .unwrap()
            .expect("an event for what was written");
    }
    assert_eq!(guest.list("device/vif").unwrap(), ["0"]);
    assert_eq!(guest.read("domid").unwrap().as_deref(), Some("5"));
}
