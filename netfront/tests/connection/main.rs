//! The store's side of a vif: both ends' states, with the backend's in the test's hands.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `handshake` | from any state of the backend to Connected, and what is written on the way |
//! | `offer` | what is read: features, defaults, addresses, missing keys |
//! | `queues` | the keys of several queues |
//! | `changes` | what is reported while connected |
//! | `closing` | the goodbye, and when pages are freed |
//! | `orders` | every pair of states, legal and illegal, from either side |
//! | `beginnings` | every pair of states during the handshake |
//! | `netback` | a backend that answers states as netback does |
//! | `service` | a device in service, whose backend breaks the contract or goes |
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod beginnings;
mod changes;
mod closing;
#[path = "../common/mod.rs"]
mod common;
mod handshake;
mod netback;
mod offer;
mod orders;
mod queues;
mod service;

use std::thread::{self, JoinHandle};
use std::time::Duration;

use hypervisor::{GrantRef, Port, StoreClient};
use netfront::connection::{Connection, Wants};
use netfront::queue::{Ports, QueueKeys};
use netfront::{Device, Error, Features};

use common::toolstack::Toolstack;
use common::{Back, World, PATIENCE};

/// For waits that end in vain, on purpose.
const SHORT: Duration = Duration::from_millis(300);

const SPLIT: Ports = Ports::Split {
    rx: Port(11),
    tx: Port(12),
};

fn keys(ports: Ports) -> QueueKeys {
    QueueKeys {
        tx_ring: GrantRef(101),
        rx_ring: GrantRef(102),
        ports,
    }
}

/// The driver's side of vif 0, by this store client.
fn connection(world: &World, client: StoreClient) -> Connection {
    Connection::over(world.front.store_with(client).unwrap(), 0)
}

/// A world with a vif whose backend waits.
fn vif() -> (World, Toolstack) {
    let world = World::new();
    let toolstack = Toolstack::with_vif(&world);
    (world, toolstack)
}

/// Does something with a connection in another thread, while the test plays the backend.
fn beside<T: Send + 'static>(
    mut connection: Connection,
    work: impl FnOnce(&mut Connection) -> Result<T, Error> + Send + 'static,
) -> JoinHandle<(Connection, Result<T, Error>)> {
    thread::spawn(move || {
        let result = work(&mut connection);
        (connection, result)
    })
}

/// A connection in state Connected, with a backend that is Connected.
fn connected(world: &World, toolstack: &mut Toolstack, client: StoreClient) -> Connection {
    let mut connection = connection(world, client);
    connection.prepare(PATIENCE).unwrap();
    connection
        .publish(&keys(SPLIT), &Features::default(), &Wants::default())
        .unwrap();
    toolstack.back("state", 4);
    connection.wait_connected(PATIENCE).unwrap();
    connection
}

/// Waits for a frontend to publish its keys, maps its rings, and connects.
fn attach(world: &World, toolstack: &mut Toolstack) -> Back {
    let back = world.attach(&toolstack.published());
    toolstack.back("state", 4);
    back
}

/// A connected device, and the backend that has mapped its rings.
fn device_and_back(world: &World, toolstack: &mut Toolstack) -> (Device, Back) {
    toolstack.front("state", 1);
    let front = world.front.clone();
    let connecting = thread::spawn(move || Device::builder(0).connect(&front).unwrap());
    let back = attach(world, toolstack);
    (connecting.join().unwrap(), back)
}
