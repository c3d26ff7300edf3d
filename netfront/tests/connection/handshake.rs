//! From any state of the backend to Connected.

use std::time::Instant;

use hypervisor::{Port, StoreClient};
use netback_sim::{peer, Backend, Config, State};
use netfront::connection::{Wants, XenbusState};
use netfront::queue::Ports;
use netfront::{Device, Error, Features};

use crate::common::toolstack::{BACKEND, FRONTEND};
use crate::common::{World, FRONT, PATIENCE};
use crate::{beside, connection, keys, vif, SHORT, SPLIT};

/// What drivers before us, of other kinds, may have left.
const STALE: [&str; 16] = [
    "tx-ring-ref",
    "rx-ring-ref",
    "event-channel",
    "event-channel-tx",
    "event-channel-rx",
    "feature-sg",
    "feature-gso-tcpv4",
    "feature-gso-tcpv6",
    "feature-no-csum-offload",
    "feature-ipv6-csum-offload",
    "multi-queue-num-queues",
    "request-multicast-control",
    "ctrl-ring-ref",
    "event-channel-ctrl",
    "xdp-headroom",
    "feature-persistent",
];

#[test]
fn who_sees_state_4_finds_every_key_and_no_stale_one() {
    for client in StoreClient::available() {
        for ports in [SPLIT, Ports::Shared(Port(13))] {
            let (world, mut toolstack) = vif();
            for key in STALE {
                toolstack.front(key, "stale");
            }
            let mut connection = connection(&world, *client);
            let offer = connection.prepare(PATIENCE).unwrap();
            toolstack.store().watch(FRONTEND, "all").unwrap();
            connection
                .publish(&keys(ports), &offer.features, &Wants::default())
                .unwrap();
            let mut expected = vec![
                ("tx-ring-ref", "101"),
                ("rx-ring-ref", "102"),
                ("request-rx-copy", "1"),
                ("feature-rx-notify", "1"),
                ("feature-sg", "1"),
                ("feature-gso-tcpv4", "1"),
                ("feature-gso-tcpv6", "1"),
                ("feature-ipv6-csum-offload", "1"),
                ("state", "4"),
                ("mac", "00:16:3e:01:02:03"),
                ("backend", BACKEND),
                ("backend-id", "0"),
            ];
            match ports {
                SPLIT => expected.extend([("event-channel-rx", "11"), ("event-channel-tx", "12")]),
                _ => expected.push(("event-channel", "13")),
            }
            for (key, value) in &expected {
                assert_eq!(toolstack.read_front(key).as_deref(), Some(*value), "{key}");
            }
            let mut found = toolstack.list_front();
            let mut wanted: Vec<_> = expected.iter().map(|(key, _)| key.to_string()).collect();
            found.sort();
            wanted.sort();
            assert_eq!(found, wanted, "nothing else is left there");
            // In which order it came: the state is the last of all.
            let mut order = Vec::new();
            while let Some(event) = toolstack.store().next_event(SHORT).unwrap() {
                order.push(event.path);
            }
            assert!(order.len() > expected.len(), "{order:?}");
            assert_eq!(
                order.last().unwrap(),
                &format!("{FRONTEND}/state"),
                "{order:?}"
            );
            let states = order.iter().filter(|path| path.ends_with("/state")).count();
            assert_eq!(states, 1, "{order:?}");
        }
    }
}

#[test]
fn what_is_not_wanted_is_not_asked_for() {
    let off = Wants {
        sg: false,
        ..Wants::default()
    };
    let no_gso = Wants {
        gso: false,
        ..Wants::default()
    };
    let no_csum = Wants {
        csum_offload: false,
        ..Wants::default()
    };
    for (wants, [sg, gso, ipv6], no_csum_offload) in [
        (off, ["0", "0", "1"], None),
        (no_gso, ["1", "0", "1"], None),
        (no_csum, ["1", "0", "0"], Some("1")),
        (Wants::default(), ["1", "1", "1"], None),
    ] {
        let (world, mut toolstack) = vif();
        let mut connection = connection(&world, StoreClient::Native);
        connection.prepare(PATIENCE).unwrap();
        connection
            .publish(&keys(SPLIT), &Features::default(), &wants)
            .unwrap();
        for (key, value) in [
            ("feature-sg", Some(sg)),
            ("feature-gso-tcpv4", Some(gso)),
            ("feature-gso-tcpv6", Some(gso)),
            ("feature-no-csum-offload", no_csum_offload),
            ("feature-ipv6-csum-offload", Some(ipv6)),
        ] {
            assert_eq!(
                toolstack.read_front(key).as_deref(),
                value,
                "{key}, {wants:?}"
            );
        }
    }
}

#[test]
fn the_number_of_queues_is_not_written_for_one() {
    for max in [None, Some(1), Some(4)] {
        let (world, mut toolstack) = vif();
        if let Some(max) = max {
            toolstack.back("multi-queue-max-queues", max);
        }
        let mut connection = connection(&world, StoreClient::Native);
        let offer = connection.prepare(PATIENCE).unwrap();
        assert_eq!(offer.features.max_queues, max.unwrap_or(1));
        connection
            .publish(&keys(SPLIT), &offer.features, &Wants::default())
            .unwrap();
        assert_eq!(toolstack.read_front("multi-queue-num-queues"), None);
    }
}

/// What the backend does when it sees the frontend in a state.
type Script = &'static [(&'static str, &'static str)];

#[test]
fn a_backend_in_any_state_is_brought_to_init_wait() {
    const CYCLE: Script = &[("5", "5"), ("6", "6"), ("1", "2")];
    let scripts: [(&str, Script); 10] = [
        // Waiting already, and left alone.
        ("2", &[]),
        // Connected to a driver that died, or something like it.
        ("4", CYCLE),
        ("3", CYCLE),
        ("7", CYCLE),
        ("8", CYCLE),
        // Closing, closed.
        ("5", &[("6", "6"), ("1", "2")]),
        ("6", &[("1", "2")]),
        // It jumps to Closed when it is asked to close.
        ("4", &[("5", "6"), ("1", "2")]),
        // It starts anew instead of closing.
        ("4", &[("5", "1"), ("1", "2")]),
        // Not ready yet.
        ("1", &[("1", "2")]),
    ];
    for client in StoreClient::available() {
        for (first, script) in scripts {
            let (world, mut toolstack) = vif();
            toolstack.back("state", first);
            toolstack.front("state", "4");
            let connection = connection(&world, *client);
            let preparing = beside(connection, |connection| connection.prepare(PATIENCE));
            for (seen, answer) in script {
                toolstack.wait_front(seen);
                toolstack.back("state", answer);
            }
            let (_, offer) = preparing.join().unwrap();
            assert_eq!(offer.expect("prepared").mac, [0, 0x16, 0x3e, 1, 2, 3]);
            assert_eq!(toolstack.front_state(), "1", "from {first} by {script:?}");
        }
    }
}

#[test]
fn a_backend_that_never_closes_is_named_with_its_state_within_the_deadline() {
    for (stuck, wanted) in [
        ("4", "Closing (5)"),
        ("5", "Closed (6)"),
        ("6", "InitWait (2)"),
    ] {
        let (world, mut toolstack) = vif();
        toolstack.back("state", stuck);
        let start = Instant::now();
        let error = connection(&world, StoreClient::default())
            .prepare(SHORT)
            .unwrap_err();
        assert!(start.elapsed() < PATIENCE, "in time");
        let Error::Deadline { key, found, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(*key, format!("{BACKEND}/state"));
        assert_eq!(found.number().to_string(), stuck);
        let text = error.to_string();
        assert!(
            text.contains(wanted) && text.contains(key.as_str()),
            "{text}"
        );
        assert!(!error.is_peers_fault());
    }
}

#[test]
fn a_hotplug_script_that_never_ends_is_told_by_the_backends_state_key() {
    for client in StoreClient::available() {
        let (world, _toolstack) = vif();
        let mut connection = connection(&world, *client);
        connection.prepare(PATIENCE).unwrap();
        connection
            .publish(&keys(SPLIT), &Features::default(), &Wants::default())
            .unwrap();
        let start = Instant::now();
        let error = connection.wait_connected(SHORT).unwrap_err();
        assert!(start.elapsed() >= SHORT && start.elapsed() < PATIENCE);
        let Error::Deadline {
            key, found, waited, ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(*key, format!("{BACKEND}/state"));
        assert_eq!((*found, *waited >= SHORT), (XenbusState::InitWait, true));
        assert!(error.to_string().contains("hotplug"), "{error}");
    }
}

#[test]
fn a_backend_that_leaves_during_the_handshake_is_an_error_that_says_so() {
    for (state, left) in [("5", XenbusState::Closing), ("6", XenbusState::Closed)] {
        let (world, mut toolstack) = vif();
        let mut connection = connection(&world, StoreClient::default());
        connection.prepare(PATIENCE).unwrap();
        connection
            .publish(&keys(SPLIT), &Features::default(), &Wants::default())
            .unwrap();
        toolstack.back("state", state);
        let error = connection.wait_connected(PATIENCE).unwrap_err();
        let Error::BackendLeft { key, found } = &error else {
            panic!("{error}")
        };
        assert_eq!((key, *found), (&format!("{BACKEND}/state"), left));
        assert!(error.is_peers_fault());
    }
}

#[test]
fn a_device_uses_split_channels_only_if_both_sides_have_them() {
    for (offered, wanted) in [(true, true), (true, false), (false, true), (false, false)] {
        let world = World::new();
        let mut config = Config::new(FRONT, peer::Echo::new());
        config.features.split_event_channels = offered;
        let backend = Backend::start(&world.back, config).unwrap();
        let queue = netfront::QueueConfig {
            split_event_channels: wanted,
            ..Default::default()
        };
        let device = Device::builder(0)
            .queue(queue)
            .connect(&world.front)
            .unwrap();
        assert!(backend.wait_for(State::Connected, PATIENCE));
        assert_eq!(device.link().split_event_channels, offered && wanted);
        assert_eq!(device.link().features.split_event_channels, offered);
        device.close().unwrap();
        backend.stop().unwrap();
    }
}

#[test]
fn a_backend_with_nothing_but_what_is_needed_is_enough() {
    let world = World::new();
    let mut config = Config::new(FRONT, peer::Echo::new());
    config.features = netback_sim::Features::minimal();
    let backend = Backend::start(&world.back, config).unwrap();
    let device = Device::builder(0).connect(&world.front).unwrap();
    let expected = Features {
        csum_offload: true,
        max_queues: 1,
        ..Features::default()
    };
    assert_eq!(device.link().features, expected);
    device.close().unwrap();
    backend.stop().unwrap();
}

#[test]
fn a_failed_handshake_says_goodbye_and_frees_everything() {
    let (world, mut toolstack) = vif();
    let error = Device::builder(0)
        .deadline(SHORT)
        .connect(&world.front)
        .expect_err("no backend");
    assert!(matches!(error, Error::Deadline { .. }), "{error}");
    assert_eq!(toolstack.front_state(), "6");
    let counters = world.front.counters();
    assert!(counters.grants > 0);
    assert_eq!(counters.grants, counters.revokes);
}
