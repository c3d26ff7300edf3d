//! The store in the test's hands: what a toolstack writes, and a backend's state by hand.

use hypervisor::{sim, GrantRef, Permission, Port, Rights, Store, StoreClient};
use netfront::queue::{Ports, QueueKeys};

use super::{until, World, BACK, FRONT};

/// The backend's directory.
pub const BACKEND: &str = "/local/domain/0/backend/vif/1/0";
/// The frontend's directory.
pub const FRONTEND: &str = "/local/domain/1/device/vif/0";

/// Domain 0 at the store.
pub struct Toolstack {
    store: Box<dyn Store>,
}

impl Toolstack {
    /// Speaks to the store of a world, and writes nothing.
    pub fn of(world: &World) -> Self {
        Self {
            store: sim::store(&world.socket(), BACK, StoreClient::Native).expect("a store"),
        }
    }

    /// A vif with a backend in InitWait that offers what every backend does.
    pub fn with_vif(world: &World) -> Self {
        let mut toolstack = Self::of(world);
        toolstack.create();
        toolstack
    }

    pub fn create(&mut self) {
        self.directory(BACKEND, BACK, FRONT);
        self.directory(FRONTEND, FRONT, BACK);
        self.back("frontend", FRONTEND);
        self.back("state", 2);
        self.back("feature-rx-copy", 1);
        self.front("backend", BACKEND);
        self.front("backend-id", 0);
        self.front("mac", "00:16:3e:01:02:03");
        self.front("state", 1);
    }

    fn directory(&mut self, path: &str, owner: hypervisor::DomId, reader: hypervisor::DomId) {
        self.store.write(path, "").expect("a directory");
        let entry = |domain, rights| Permission { domain, rights };
        let rights = [entry(owner, Rights::None), entry(reader, Rights::Read)];
        self.store
            .set_permissions(path, &rights)
            .expect("permissions");
    }

    pub fn back(&mut self, key: &str, value: impl ToString) {
        self.write(&format!("{BACKEND}/{key}"), value);
    }

    pub fn front(&mut self, key: &str, value: impl ToString) {
        self.write(&format!("{FRONTEND}/{key}"), value);
    }

    fn write(&mut self, path: &str, value: impl ToString) {
        self.store.write(path, &value.to_string()).expect("written");
    }

    pub fn remove_back(&mut self, key: &str) {
        self.store
            .remove(&format!("{BACKEND}/{key}"))
            .expect("removed");
    }

    pub fn remove_front(&mut self, key: &str) {
        self.store
            .remove(&format!("{FRONTEND}/{key}"))
            .expect("removed");
    }

    pub fn read_front(&mut self, key: &str) -> Option<String> {
        self.store.read(&format!("{FRONTEND}/{key}")).expect("read")
    }

    pub fn list_front(&mut self) -> Vec<String> {
        self.store.list(FRONTEND).expect("listed")
    }

    /// The frontend's state as it is in the store.
    pub fn front_state(&mut self) -> String {
        self.read_front("state").unwrap_or_default()
    }

    /// Waits until the frontend shows this state.
    pub fn wait_front(&mut self, state: &str) {
        until(&format!("frontend state {state}"), || {
            self.front_state() == state
        });
    }

    /// A number that the frontend published.
    pub fn number(&mut self, key: &str) -> u32 {
        let value = self.read_front(key).expect(key);
        value.parse().expect("a number")
    }

    /// What a frontend with one queue and one event channel published, as soon as it is Connected.
    pub fn published(&mut self) -> QueueKeys {
        self.wait_front("4");
        QueueKeys {
            tx_ring: GrantRef(self.number("tx-ring-ref")),
            rx_ring: GrantRef(self.number("rx-ring-ref")),
            ports: Ports::Shared(Port(self.number("event-channel"))),
        }
    }

    pub fn store(&mut self) -> &mut dyn Store {
        self.store.as_mut()
    }
}
