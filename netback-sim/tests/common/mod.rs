//! A small frontend for tests, and a simulated Xen as a thread: just enough of a guest to see what
//! the backend does, with every step of the handshake in the test's own hands.
#![allow(dead_code)]

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use hypervisor::sim::server::Options;
use hypervisor::{Access, Domain, EventChannels, Port, SharedPages, Store, StoreClient};
use netback_sim::traffic::{Generator, Sizes};
use netback_sim::{Backend, BackendHandle, Config, Peer, State};
use netfront_tests::stage::{Stage, BACK};
use xen_ring::{
    receive, transmit, FrontRing, Layout, Notify, Offload, Rx, RxPacket, Status, Tx, TxFragment,
    PAGE_SIZE,
};

pub use netfront_tests::stage::FRONT;
#[allow(unused_imports)] // Not every test has use for each.
pub use netfront_tests::{until, PATIENCE};

const SLOTS: usize = 256;

/// A simulated Xen with a domain 0.
pub struct World {
    pub back: Domain,
    stage: Stage,
}

impl World {
    pub fn new() -> World {
        World::with_grant_limit(1024)
    }

    /// The guest can share so many pages.
    pub fn with_grant_limit(pages: usize) -> World {
        let stage = Stage::with(Options::new().grant_limit(pages));
        World {
            back: stage.back.clone(),
            stage,
        }
    }

    /// The guest's domain: one process at a time can be it.
    pub fn guest(&self) -> Domain {
        self.stage.guest()
    }

    pub fn serve(&self, peer: impl Peer + 'static) -> BackendHandle {
        self.serve_with(Config {
            // Most tests stop while their frontend does nothing any more.
            close_patience: Duration::from_millis(50),
            ..Config::new(FRONT, peer)
        })
    }

    pub fn serve_with(&self, config: Config) -> BackendHandle {
        Backend::start(&self.back, config).expect("a backend")
    }

    pub fn store(&self) -> Box<dyn Store> {
        self.back.store_with(StoreClient::Native).expect("a store")
    }

    /// The simulated Xen, and with it the store, is gone from now on.
    pub fn end(&mut self) {
        self.stage.end();
    }

    /// A file beside the simulated Xen's socket.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.stage.path(name)
    }
}

/// What a frontend says of itself.
#[derive(Clone)]
pub struct Shape {
    pub split: bool,
    pub queue_directory: bool,
    pub keys: Vec<(&'static str, &'static str)>,
    pub state: State,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            split: true,
            queue_directory: false,
            keys: vec![
                ("request-rx-copy", "1"),
                ("feature-rx-notify", "1"),
                ("feature-sg", "1"),
                ("feature-gso-tcpv4", "1"),
                ("feature-gso-tcpv6", "1"),
                ("feature-ipv6-csum-offload", "1"),
            ],
            state: State::Connected,
        }
    }
}

/// The store as the guest sees it.
pub struct Keys {
    store: Box<dyn Store>,
}

impl Keys {
    pub fn new(domain: &Domain) -> Keys {
        Keys {
            store: domain.store_with(StoreClient::Native).expect("a store"),
        }
    }

    pub fn write(&mut self, key: &str, value: impl ToString) {
        let path = format!("device/vif/0/{key}");
        self.store.write(&path, &value.to_string()).unwrap();
    }

    pub fn remove(&mut self, key: &str) {
        self.store.remove(&format!("device/vif/0/{key}")).unwrap();
    }

    pub fn state(&mut self, state: State) {
        self.write("state", state.text());
    }

    pub fn back(&mut self, key: &str) -> Option<String> {
        let path = format!("/local/domain/0/backend/vif/1/0/{key}");
        // Before a toolstack has made it, a guest may not even know that it is not there.
        self.store.read(&path).ok().flatten()
    }

    pub fn back_state(&mut self) -> State {
        State::from_text(&self.back("state").unwrap_or_default())
    }

    pub fn wait(&mut self, state: State) {
        until(&format!("backend {state}"), || self.back_state() == state);
    }

    /// The whole cycle of closing, as a frontend that finds an old connection makes it.
    pub fn close_cycle(&mut self) {
        self.state(State::Closing);
        until("backend closing", || {
            matches!(self.back_state(), State::Closing | State::Closed)
        });
        self.state(State::Closed);
        self.wait(State::Closed);
        self.state(State::Initialising);
        self.wait(State::InitWait);
    }
}

/// A frame that came.
pub struct Received {
    pub bytes: Vec<u8>,
    pub offload: Offload,
    /// Bytes in each of its slots.
    pub slots: Vec<u16>,
}

/// A connected frontend.
pub struct Front {
    pub keys: Keys,
    pub tx: FrontRing<Tx>,
    pub rx: FrontRing<Rx>,
    pub events: EventChannels,
    pub tx_port: Port,
    pub rx_port: Port,
    pub tx_pages: SharedPages,
    pub rx_pages: SharedPages,
    _rings: SharedPages,
    free: Vec<u16>,
    /// Answers by status: okay, error, null, other.
    pub answers: [u64; 4],
    packet: RxPacket,
    pub domain: Domain,
}

/// Ring indices start near the wrap, at a different place each time.
static START: AtomicU32 = AtomicU32::new(u32::MAX - 300);

impl Front {
    pub fn connect(domain: Domain) -> Front {
        Front::connect_as(domain, &Shape::default())
    }

    pub fn connect_as(domain: Domain, shape: &Shape) -> Front {
        let mut front = Front::prepare(domain, shape);
        front.keys.wait(State::Connected);
        front
    }

    /// Everything but waiting for the backend to connect.
    pub fn prepare(domain: Domain, shape: &Shape) -> Front {
        Keys::new(&domain).wait(State::InitWait);
        Front::write_over(domain, shape)
    }

    /// The same without asking whether the backend waits for it.
    pub fn write_over(domain: Domain, shape: &Shape) -> Front {
        let keys = Keys::new(&domain);
        let rings = domain.share(BACK, 2, Access::ReadWrite).unwrap();
        let tx_pages = domain.share(BACK, SLOTS, Access::ReadOnly).unwrap();
        let rx_pages = domain.share(BACK, SLOTS, Access::ReadWrite).unwrap();
        let mut events = domain.events().unwrap();
        let tx_port = events.bind_unbound(BACK).unwrap();
        let rx_port = match shape.split {
            true => events.bind_unbound(BACK).unwrap(),
            false => tx_port,
        };
        let start = START.fetch_add(77, Ordering::Relaxed);
        let mut front = Front {
            keys,
            tx: FrontRing::starting_at(rings.page(0), start),
            rx: FrontRing::starting_at(rings.page(1), start),
            events,
            tx_port,
            rx_port,
            tx_pages,
            rx_pages,
            free: (0..SLOTS as u16).collect(),
            answers: [0; 4],
            packet: RxPacket::new(),
            domain,
            _rings: rings,
        };
        let place = if shape.queue_directory {
            "queue-0/"
        } else {
            ""
        };
        let reference = |i| front._rings.reference(i).0;
        let mut all = vec![("tx-ring-ref", reference(0)), ("rx-ring-ref", reference(1))];
        if shape.split {
            all.extend([
                ("event-channel-tx", tx_port.0),
                ("event-channel-rx", rx_port.0),
            ]);
        } else {
            all.push(("event-channel", tx_port.0));
        }
        for old in ["event-channel", "event-channel-tx", "event-channel-rx"] {
            front.keys.remove(old);
        }
        for (key, value) in all {
            front.keys.write(&format!("{place}{key}"), value);
        }
        for (key, value) in &shape.keys {
            front.keys.write(key, value);
        }
        front.keys.state(shape.state);
        front
    }

    pub fn ring(&self, port: Port, notify: Notify) {
        if notify == Notify::Needed {
            self.events.notify(port).unwrap();
        }
    }

    /// Posts pages until `count` are posted.
    pub fn post(&mut self, count: usize) {
        while (self.rx.in_flight() as usize) < count {
            let slot = usize::from(self.rx.next_slot());
            self.rx.post(self.rx_pages.reference(slot).0).unwrap();
        }
        let notify = self.rx.publish();
        self.ring(self.rx_port, notify);
    }

    /// Puts a frame into the ring in so many slots; false when there is no room now.
    pub fn send(&mut self, frame: &[u8], slots: usize, offload: &Offload) -> bool {
        let pieces: Vec<&[u8]> = frame.chunks(frame.len().div_ceil(slots)).collect();
        self.send_pieces(&pieces, offload)
    }

    /// Puts a frame into the ring, each piece in a slot of its own; false when there is no room now.
    pub fn send_pieces(&mut self, pieces: &[&[u8]], offload: &Offload) -> bool {
        let slots = pieces.len();
        if self.free.len() < slots || (self.tx.free_requests() as usize) < slots + 2 {
            return false;
        }
        let mut fragments = Vec::new();
        for (i, bytes) in pieces.iter().enumerate() {
            let id = self.free.pop().unwrap();
            let offset = (i * 64) % (PAGE_SIZE - bytes.len() + 1);
            self.tx_pages.page(usize::from(id)).copy_in(offset, bytes);
            fragments.push(TxFragment {
                id,
                gref: self.tx_pages.reference(usize::from(id)).0,
                offset: offset as u16,
                len: bytes.len() as u16,
            });
        }
        transmit::push(&mut self.tx, &fragments, offload).expect("room in the ring");
        let notify = self.tx.publish();
        self.ring(self.tx_port, notify);
        true
    }

    /// Takes the answers to what was sent.
    pub fn reap(&mut self) -> usize {
        let mut count = 0;
        while let Some(raw) = self.tx.pop().expect("a sound tx ring") {
            let answer = raw.response();
            count += 1;
            let place = match answer.status {
                Status::Okay => 0,
                Status::Error => 1,
                Status::Null => 2,
                _ => 3,
            };
            self.answers[place] += 1;
            if answer.status != Status::Null {
                self.free.push(answer.id);
            }
        }
        count
    }

    /// Everything was answered.
    pub fn settled(&mut self) -> bool {
        self.reap();
        self.tx.in_flight() == 0
    }

    /// Takes the frames that have come, and posts their pages again.
    pub fn receive(&mut self) -> Vec<(Vec<u8>, Offload)> {
        let frames = self.receive_slots().into_iter();
        frames
            .map(|received| (received.bytes, received.offload))
            .collect()
    }

    /// The same, with what lay in which slot.
    pub fn receive_slots(&mut self) -> Vec<Received> {
        let mut frames = Vec::new();
        while receive::next(&mut self.rx, &mut self.packet).expect("a sound rx ring") {
            if self.packet.fault.is_some() {
                continue;
            }
            let mut bytes = Vec::new();
            for fragment in &self.packet.fragments {
                let at = bytes.len();
                bytes.resize(at + usize::from(fragment.len), 0);
                let page = self.rx_pages.page(usize::from(fragment.slot));
                page.copy_out(usize::from(fragment.offset), &mut bytes[at..]);
            }
            frames.push(Received {
                bytes,
                offload: self.packet.offload,
                slots: self.packet.fragments.iter().map(|f| f.len).collect(),
            });
        }
        if !frames.is_empty() {
            self.post(SLOTS);
        }
        frames
    }

    pub fn slots() -> usize {
        Rx::SLOTS as usize
    }
}

/// Sends so many frames and waits until the backend has answered and taken them.
pub fn exchange(front: &mut Front, backend: &BackendHandle, count: u64) {
    let before = backend.counters().tx_packets;
    let mut generator = Generator::new(Sizes::Fixed(200), 1).unwrap();
    let mut buffer = [0; 256];
    for _ in 0..count {
        let len = generator.fill(&mut buffer).unwrap();
        until("room", || {
            front.reap();
            front.send(&buffer[..len], 1, &Offload::default())
        });
    }
    until("answers", || front.settled());
    assert_eq!(backend.counters().tx_packets, before + count);
}
