//! The store, message by message, without a socket.

use proptest::prelude::*;

use super::*;
use crate::store::wire::Framer;

const FRONT: u64 = 1;
const BACK: u64 = 2;

/// A store with a client of domain 5 and one of domain 0.
fn store() -> StoreServer {
    let mut store = StoreServer::new();
    store.introduce(DomId(5));
    store.connect(FRONT, DomId(5));
    store.connect(BACK, DomId(0));
    store
}

fn received(store: &mut StoreServer, client: u64) -> Vec<Message> {
    let mut framer = Framer::default();
    framer.push(store.output(client));
    let waiting = store.waiting(client);
    store.sent(client, waiting);
    std::iter::from_fn(|| framer.next_message().unwrap()).collect()
}

fn ask_in(
    store: &mut StoreServer,
    client: u64,
    transaction: u32,
    kind: Kind,
    payload: &[u8],
) -> Result<String, String> {
    let payload = payload.to_vec();
    store.serve(
        client,
        &Message {
            kind,
            request: 42,
            transaction,
            payload,
        },
    );
    let answer = received(store, client)
        .into_iter()
        .find(|message| message.request == 42)
        .unwrap();
    let text = String::from_utf8(answer.payload).unwrap();
    if answer.kind == Kind::ERROR {
        return Err(text.trim_end_matches('\0').to_owned());
    }
    assert_eq!(answer.kind, kind);
    Ok(text)
}

fn ask(store: &mut StoreServer, client: u64, kind: Kind, payload: &[u8]) -> Result<String, String> {
    ask_in(store, client, 0, kind, payload)
}

fn events(store: &mut StoreServer, client: u64) -> Vec<String> {
    received(store, client)
        .into_iter()
        .filter(|message| message.kind == Kind::WATCH_EVENT)
        .map(|message| wire::strings(&message.payload).unwrap().join(" "))
        .collect()
}

#[test]
fn a_domain_finds_its_own_number_under_a_relative_path() {
    let mut store = store();
    assert_eq!(
        ask(&mut store, FRONT, Kind::READ, b"domid\0"),
        Ok("5".into())
    );
    assert_eq!(
        ask(&mut store, BACK, Kind::READ, b"/local/domain/5/domid\0"),
        Ok("5".into())
    );
    assert_eq!(
        ask(&mut store, FRONT, Kind::GET_DOMAIN_PATH, b"7\0"),
        Ok("/local/domain/7\0".into())
    );
    assert_eq!(
        ask(&mut store, BACK, Kind::IS_DOMAIN_INTRODUCED, b"5\0"),
        Ok("T\0".into())
    );
    assert_eq!(
        ask(&mut store, BACK, Kind::IS_DOMAIN_INTRODUCED, b"6\0"),
        Ok("F\0".into())
    );
}

#[test]
fn malformed_messages_are_answered_with_einval() {
    let mut store = store();
    for (kind, payload) in [
        (Kind::READ, &b"domid"[..]),
        (Kind::READ, b""),
        (Kind::READ, b"a\0b\0"),
        (Kind::READ, b"a//b\0"),
        (Kind::READ, b"\xff\xfe\0"),
        (Kind::WRITE, b"no end mark"),
        (Kind::WATCH, b"path\0"),
        (Kind::SET_PERMS, b"domid\0"),
        (Kind::SET_PERMS, b"domid\0x5\0"),
        (Kind::TRANSACTION_END, b"X\0"),
        (Kind::GET_DOMAIN_PATH, b"-1\0"),
    ] {
        assert_eq!(
            ask(&mut store, FRONT, kind, payload),
            Err("EINVAL".into()),
            "{kind:?} {payload:?}"
        );
    }
    assert_eq!(ask(&mut store, FRONT, Kind(999), b""), Err("ENOSYS".into()));
}

#[test]
fn a_watch_fires_once_at_its_setting_and_then_for_each_change_below() {
    let mut store = store();
    store.serve(
        FRONT,
        &Message {
            kind: Kind::WATCH,
            request: 1,
            transaction: 0,
            payload: wire::payload(&["device", "token"]),
        },
    );
    let kinds: Vec<Kind> = received(&mut store, FRONT)
        .iter()
        .map(|message| message.kind)
        .collect();
    assert_eq!(kinds, [Kind::WATCH, Kind::WATCH_EVENT]);
    ask(
        &mut store,
        BACK,
        Kind::WRITE,
        b"/local/domain/5/device/vif/0\x001",
    )
    .unwrap();
    ask(
        &mut store,
        BACK,
        Kind::WRITE,
        b"/local/domain/5/devices\x001",
    )
    .unwrap();
    assert_eq!(events(&mut store, FRONT), ["device/vif/0 token"]);
    ask(&mut store, FRONT, Kind::UNWATCH, b"device\0token\0").unwrap();
    ask(
        &mut store,
        BACK,
        Kind::WRITE,
        b"/local/domain/5/device/vif/0\x002",
    )
    .unwrap();
    assert_eq!(events(&mut store, FRONT), Vec::<String>::new());
}

#[test]
fn a_watch_of_what_the_client_may_not_read_stays_silent() {
    let mut store = store();
    ask(&mut store, FRONT, Kind::WATCH, b"/secret\0token\0").unwrap();
    ask(&mut store, BACK, Kind::WRITE, b"/secret\0value").unwrap();
    ask(&mut store, BACK, Kind::SET_PERMS, b"/secret\0n0\0").unwrap();
    events(&mut store, FRONT);
    ask(&mut store, BACK, Kind::WRITE, b"/secret\0other").unwrap();
    assert_eq!(events(&mut store, FRONT), Vec::<String>::new());
}

#[test]
fn a_node_that_goes_with_its_parent_is_told_to_its_watcher() {
    let mut store = store();
    ask(&mut store, FRONT, Kind::WRITE, b"a/b\x001").unwrap();
    ask(&mut store, FRONT, Kind::WATCH, b"a/b\0token\0").unwrap();
    events(&mut store, FRONT);
    ask(&mut store, BACK, Kind::RM, b"/local/domain/5/a\0").unwrap();
    assert_eq!(events(&mut store, FRONT), ["a/b token"]);
}

#[test]
fn a_watch_is_set_once_and_taken_back_once() {
    let mut store = store();
    ask(&mut store, FRONT, Kind::WATCH, b"a\0token\0").unwrap();
    assert_eq!(
        ask(&mut store, FRONT, Kind::WATCH, b"a\0token\0"),
        Err("EEXIST".into())
    );
    ask(&mut store, FRONT, Kind::UNWATCH, b"a\0token\0").unwrap();
    assert_eq!(
        ask(&mut store, FRONT, Kind::UNWATCH, b"a\0token\0"),
        Err("ENOENT".into())
    );
}

#[test]
fn a_transaction_is_seen_at_its_end_and_tells_its_watchers_then() {
    let mut store = store();
    ask(&mut store, BACK, Kind::WATCH, b"/local/domain/5/a\0token\0").unwrap();
    events(&mut store, BACK);
    let id = ask(&mut store, FRONT, Kind::TRANSACTION_START, b"\0").unwrap();
    let id: u32 = id.trim_end_matches('\0').parse().unwrap();
    ask_in(&mut store, FRONT, id, Kind::WRITE, b"a\x001").unwrap();
    assert_eq!(
        ask_in(&mut store, FRONT, id, Kind::READ, b"a\0"),
        Ok("1".into())
    );
    assert_eq!(
        ask(&mut store, FRONT, Kind::READ, b"a\0"),
        Err("ENOENT".into())
    );
    assert_eq!(events(&mut store, BACK), Vec::<String>::new());
    ask_in(&mut store, FRONT, id, Kind::TRANSACTION_END, b"T\0").unwrap();
    assert_eq!(ask(&mut store, FRONT, Kind::READ, b"a\0"), Ok("1".into()));
    assert_eq!(events(&mut store, BACK), ["/local/domain/5/a token"]);
}

#[test]
fn a_transaction_that_met_a_change_is_refused_and_leaves_nothing() {
    let mut store = store();
    ask(&mut store, FRONT, Kind::WRITE, b"a\x001").unwrap();
    let id = ask(&mut store, FRONT, Kind::TRANSACTION_START, b"\0").unwrap();
    let id: u32 = id.trim_end_matches('\0').parse().unwrap();
    ask_in(&mut store, FRONT, id, Kind::READ, b"a\0").unwrap();
    ask_in(&mut store, FRONT, id, Kind::WRITE, b"b\x002").unwrap();
    ask(&mut store, BACK, Kind::WRITE, b"/local/domain/5/a\x003").unwrap();
    assert_eq!(
        ask_in(&mut store, FRONT, id, Kind::TRANSACTION_END, b"T\0"),
        Err("EAGAIN".into())
    );
    assert_eq!(
        ask(&mut store, FRONT, Kind::READ, b"b\0"),
        Err("ENOENT".into())
    );
    assert_eq!(
        ask_in(&mut store, FRONT, id, Kind::READ, b"a\0"),
        Err("ENOENT".into())
    );
}

#[test]
fn a_list_that_fits_no_frame_is_too_big() {
    let mut store = store();
    for number in 0..3 {
        let path = format!("/big/{}-{number}\0", "n".repeat(1500));
        ask(&mut store, BACK, Kind::MKDIR, path.as_bytes()).unwrap();
    }
    assert_eq!(
        ask(&mut store, BACK, Kind::DIRECTORY, b"/big\0"),
        Err("E2BIG".into())
    );
}

#[test]
fn resetting_takes_all_watches_and_transactions() {
    let mut store = store();
    ask(&mut store, FRONT, Kind::WATCH, b"a\0token\0").unwrap();
    let id = ask(&mut store, FRONT, Kind::TRANSACTION_START, b"\0").unwrap();
    let id: u32 = id.trim_end_matches('\0').parse().unwrap();
    ask(&mut store, FRONT, Kind::RESET_WATCHES, b"\0").unwrap();
    ask(&mut store, FRONT, Kind::WRITE, b"a\x001").unwrap();
    assert_eq!(events(&mut store, FRONT), Vec::<String>::new());
    assert_eq!(
        ask_in(&mut store, FRONT, id, Kind::TRANSACTION_END, b"T\0"),
        Err("ENOENT".into())
    );
}

proptest! {
    #[test]
    fn any_message_is_answered_once_and_never_a_panic(
        messages in prop::collection::vec(
            (0u32..24, 0u32..3, prop::collection::vec(prop::sample::select(b"aT/@\0r5n0b\xff".to_vec()), 0..40)),
            1..40,
        ),
    ) {
        let mut store = store();
        for (kind, transaction, payload) in messages {
            store.serve(FRONT, &Message { kind: Kind(kind), request: 42, transaction, payload });
            let answers = received(&mut store, FRONT);
            let answers = answers.iter().filter(|message| message.request == 42).count();
            prop_assert_eq!(answers, 1);
        }
    }
}
