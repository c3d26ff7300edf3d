//! The keys of several queues (netif.md, 2.4: one queue has them in the frontend's directory, several each in `queue-N`, and
//! there must be none of the other kind).

use hypervisor::{GrantRef, Port, StoreClient};
use netfront::connection::Wants;
use netfront::queue::{Ports, QueueKeys};
use netfront::Features;

use crate::common::toolstack::Toolstack;
use crate::common::PATIENCE;
use crate::{connection, keys, vif, SPLIT};

const FLAT: [&str; 5] = [
    "tx-ring-ref",
    "rx-ring-ref",
    "event-channel",
    "event-channel-tx",
    "event-channel-rx",
];

fn offer(max_queues: u32) -> Features {
    Features {
        max_queues,
        ..Features::default()
    }
}

/// What stands in the directory of a queue, by the names of [`FLAT`].
fn found(toolstack: &mut Toolstack, directory: &str) -> Vec<Option<String>> {
    let keys = FLAT.map(|key| toolstack.read_front(&format!("{directory}{key}")));
    keys.to_vec()
}

fn written(values: [Option<u32>; 5]) -> Vec<Option<String>> {
    let texts = values.map(|value| value.map(|value| value.to_string()));
    texts.to_vec()
}

#[test]
fn several_queues_have_directories_of_their_own_and_nothing_flat_is_left_of_an_earlier_driver() {
    let (world, mut toolstack) = vif();
    for key in FLAT {
        toolstack.front(key, 7);
    }
    // An earlier driver had more queues.
    toolstack.front("queue-5/tx-ring-ref", 7);
    let mut connection = connection(&world, StoreClient::Native);
    connection.prepare(PATIENCE).unwrap();
    let second = QueueKeys {
        tx_ring: GrantRef(201),
        rx_ring: GrantRef(202),
        ports: Ports::Shared(Port(21)),
    };
    connection
        .publish_queues(&[keys(SPLIT), second], &offer(4), &Wants::default())
        .unwrap();
    assert_eq!(found(&mut toolstack, ""), written([None; 5]));
    let split = [Some(101), Some(102), None, Some(12), Some(11)];
    assert_eq!(found(&mut toolstack, "queue-0/"), written(split));
    let shared = [Some(201), Some(202), Some(21), None, None];
    assert_eq!(found(&mut toolstack, "queue-1/"), written(shared));
    let number = toolstack.read_front("multi-queue-num-queues");
    assert_eq!(number.as_deref(), Some("2"));
    let names = toolstack.list_front();
    assert!(!names.iter().any(|name| name == "queue-5"), "{names:?}");
}

#[test]
fn one_queue_has_flat_keys_and_no_directory_is_left_of_an_earlier_driver() {
    let (world, mut toolstack) = vif();
    for queue in 0..2 {
        for key in FLAT {
            toolstack.front(&format!("queue-{queue}/{key}"), 7);
        }
    }
    toolstack.front("multi-queue-num-queues", 2);
    let mut connection = connection(&world, StoreClient::Native);
    connection.prepare(PATIENCE).unwrap();
    connection
        .publish(&keys(SPLIT), &offer(1), &Wants::default())
        .unwrap();
    let flat = [Some(101), Some(102), None, Some(12), Some(11)];
    assert_eq!(found(&mut toolstack, ""), written(flat));
    assert_eq!(toolstack.read_front("multi-queue-num-queues"), None);
    let names = toolstack.list_front();
    assert!(
        !names.iter().any(|name| name.starts_with("queue-")),
        "{names:?}"
    );
}

#[test]
fn with_the_goodbye_goes_what_the_next_driver_may_not_write() {
    let (world, mut toolstack) = vif();
    let mut connection = connection(&world, StoreClient::Native);
    connection.prepare(PATIENCE).unwrap();
    connection
        .publish_queues(&[keys(SPLIT), keys(SPLIT)], &offer(2), &Wants::default())
        .unwrap();
    toolstack.back("state", 6);
    connection.close(PATIENCE).unwrap();
    assert_eq!(toolstack.read_front("multi-queue-num-queues"), None);
}
