//! What is read from the store: features and defaults, addresses, keys that are not there.

use std::time::{Duration, Instant};

use hypervisor::{DomId, StoreClient};
use netfront::connection::XenbusState;
use netfront::{Error, Features};

use crate::common::toolstack::{Toolstack, BACKEND};
use crate::common::{World, PATIENCE};
use crate::{beside, connection, vif, SHORT};

fn look(world: &World) -> Result<netfront::connection::Offer, Error> {
    connection(world, StoreClient::default()).look(SHORT)
}

#[test]
fn absent_keys_mean_what_netif_says() {
    let (world, _toolstack) = vif();
    let offer = look(&world).unwrap();
    let features = Features {
        csum_offload: true,
        max_queues: 1,
        ..Features::default()
    };
    assert_eq!(
        offer.features, features,
        "only checksums are on unless they are switched off"
    );
    assert_eq!((offer.mtu, offer.trusted), (1500, true));
    assert_eq!(
        (offer.backend_id, offer.backend.as_str()),
        (DomId(0), BACKEND)
    );
}

#[test]
fn every_feature_is_read_from_its_own_key() {
    let features = |change: fn(&mut Features)| {
        let mut features = Features {
            csum_offload: true,
            max_queues: 1,
            ..Features::default()
        };
        change(&mut features);
        features
    };
    for (key, value, expected) in [
        ("feature-sg", "1", features(|f| f.sg = true)),
        ("feature-gso-tcpv4", "1", features(|f| f.gso_tcpv4 = true)),
        ("feature-gso-tcpv6", "1", features(|f| f.gso_tcpv6 = true)),
        (
            "feature-no-csum-offload",
            "1",
            features(|f| f.csum_offload = false),
        ),
        (
            "feature-ipv6-csum-offload",
            "1",
            features(|f| f.ipv6_csum_offload = true),
        ),
        (
            "feature-split-event-channels",
            "1",
            features(|f| f.split_event_channels = true),
        ),
        ("feature-ctrl-ring", "1", features(|f| f.ctrl_ring = true)),
        (
            "feature-multicast-control",
            "1",
            features(|f| f.multicast_control = true),
        ),
        (
            "feature-dynamic-multicast-control",
            "1",
            features(|f| f.dynamic_multicast_control = true),
        ),
        (
            "feature-xdp-headroom",
            "1",
            features(|f| f.xdp_headroom = true),
        ),
        (
            "multi-queue-max-queues",
            "8",
            features(|f| f.max_queues = 8),
        ),
        // Off in so many words, or nonsense: as if it were absent.
        ("feature-sg", "0", features(|_| {})),
        ("feature-sg", "yes", features(|_| {})),
        ("feature-sg", "", features(|_| {})),
        ("multi-queue-max-queues", "-3", features(|_| {})),
    ] {
        let (world, mut toolstack) = vif();
        toolstack.back(key, value);
        assert_eq!(
            look(&world).unwrap().features,
            expected,
            "{key} = {value:?}"
        );
    }
}

#[test]
fn the_mtu_and_the_trust_are_read_from_the_frontends_directory() {
    for (mtu, expected) in [
        ("9000", 9000),
        ("68", 68),
        ("67", 1500),
        ("99999", 1500),
        ("x", 1500),
    ] {
        let (world, mut toolstack) = vif();
        toolstack.front("mtu", mtu);
        assert_eq!(look(&world).unwrap().mtu, expected, "{mtu}");
    }
    for (trusted, expected) in [("1", true), ("0", false), ("0\n", false)] {
        let (world, mut toolstack) = vif();
        toolstack.front("trusted", trusted);
        assert_eq!(look(&world).unwrap().trusted, expected, "{trusted:?}");
    }
}

#[test]
fn the_address_may_be_in_the_backends_directory_only() {
    let (world, mut toolstack) = vif();
    toolstack.remove_front("mac");
    toolstack.back("mac", "00:16:3e:0a:0b:0c");
    assert_eq!(look(&world).unwrap().mac, [0, 0x16, 0x3e, 0x0a, 0x0b, 0x0c]);
    toolstack.front("mac", "00:16:3e:ff:ff:ff");
    assert_eq!(
        look(&world).unwrap().mac[3..],
        [0xff; 3],
        "the frontend's own comes first"
    );
}

#[test]
fn an_address_that_is_none_is_named_with_the_key_that_holds_it() {
    let (world, mut toolstack) = vif();
    toolstack.front("mac", "hello");
    let error = look(&world).unwrap_err();
    let Error::BadKey { key, found, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (key.as_str(), found.as_str()),
        ("device/vif/0/mac", "hello")
    );
    toolstack.remove_front("mac");
    toolstack.back("mac", "world");
    let error = look(&world).unwrap_err();
    let Error::BadKey { key, found, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!((key, found.as_str()), (&format!("{BACKEND}/mac"), "world"));
}

#[test]
fn a_missing_key_is_named() {
    for key in ["mac", "backend-id"] {
        let (world, mut toolstack) = vif();
        toolstack.remove_front(key);
        let error = look(&world).unwrap_err();
        let Error::NoVif { vif: 0, key: found } = &error else {
            panic!("{error}")
        };
        assert_eq!(*found, format!("device/vif/0/{key}"));
    }
    let (world, mut toolstack) = vif();
    toolstack.front("backend-id", "dom0");
    let error = look(&world).unwrap_err();
    assert!(
        matches!(&error, Error::BadKey { found, .. } if found == "dom0"),
        "{error}"
    );
}

#[test]
fn a_vif_without_a_backend_is_an_error_within_its_deadline_and_names_the_key() {
    for client in StoreClient::available() {
        let world = World::new();
        let start = Instant::now();
        let error = connection(&world, *client).prepare(SHORT).unwrap_err();
        assert!(start.elapsed() >= SHORT && start.elapsed() < PATIENCE);
        let Error::NoVif { vif: 0, key } = &error else {
            panic!("{error}")
        };
        assert_eq!(key, "device/vif/0/backend");
        assert!(error.to_string().contains("vif 0"), "{error}");
    }
}

#[test]
fn a_backend_directory_that_does_not_exist_is_an_error_within_its_deadline() {
    let (world, mut toolstack) = vif();
    toolstack.store().remove(BACKEND).unwrap();
    let error = connection(&world, StoreClient::default())
        .prepare(SHORT)
        .unwrap_err();
    let Error::Deadline { key, found, .. } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (key, *found),
        (&format!("{BACKEND}/state"), XenbusState::Unknown)
    );
}

#[test]
fn a_toolstack_that_comes_late_is_waited_for() {
    for client in StoreClient::available() {
        let world = World::new();
        let mut toolstack = Toolstack::of(&world);
        let preparing = beside(connection(&world, *client), |connection| {
            connection.prepare(PATIENCE)
        });
        std::thread::sleep(Duration::from_millis(100));
        toolstack.create();
        preparing.join().unwrap().1.expect("prepared");
    }
}

#[test]
fn a_backend_that_cannot_copy_is_refused_by_the_name_of_the_feature() {
    for value in [None, Some("0")] {
        let (world, mut toolstack) = vif();
        match value {
            None => toolstack.remove_back("feature-rx-copy"),
            Some(value) => toolstack.back("feature-rx-copy", value),
        }
        let error = connection(&world, StoreClient::default())
            .prepare(PATIENCE)
            .unwrap_err();
        let Error::MissingFeature { backend, feature } = &error else {
            panic!("{error}")
        };
        assert_eq!((backend.as_str(), *feature), (BACKEND, "feature-rx-copy"));
    }
}

#[test]
fn looking_changes_nothing() {
    let (world, mut toolstack) = vif();
    toolstack.back("state", 4);
    toolstack.front("state", 4);
    let before = toolstack.list_front();
    look(&world).unwrap();
    assert_eq!(toolstack.front_state(), "4");
    assert_eq!(toolstack.list_front(), before);
}
