//! A guest with a control ring, whose every message is in the test's hands.

use std::time::Duration;

use hypervisor::{Access, DomId, Domain, Port, SharedPages};
use netback_sim::{BackendHandle, Config, Peer, Reach, State};
use xen_ring::{
    Control, ControlMessage, ControlRequest, ControlStatus, FrontRing, GrefEntry, Offload,
};

use crate::common::{until, Front, Shape, World, FRONT};

pub const BACK: DomId = DomId(0);
pub const OK: ControlStatus = ControlStatus::Success;
pub const INVALID: ControlStatus = ControlStatus::InvalidParameter;

/// A guest with a control ring, whose every message is in the test's hands.
pub struct Guest {
    pub front: Front,
    ring: FrontRing<Control>,
    port: Port,
    pub list: SharedPages,
    next: u16,
    _page: SharedPages,
}

impl Guest {
    pub fn connect(domain: Domain) -> Guest {
        let mut guest = Guest::prepare(domain);
        guest.front.keys.state(State::Connected);
        guest.front.keys.wait(State::Connected);
        guest
    }

    /// Everything but the state.
    pub fn prepare(domain: Domain) -> Guest {
        let shape = Shape {
            state: State::Initialising,
            ..Shape::default()
        };
        let mut front = Front::prepare(domain.clone(), &shape);
        let page = domain.share(BACK, 1, Access::ReadWrite).unwrap();
        let port = front.events.bind_unbound(BACK).unwrap();
        front.keys.write("ctrl-ring-ref", page.reference(0).0);
        front.keys.write("event-channel-ctrl", port.0);
        Guest {
            ring: FrontRing::new(page.page(0)),
            list: domain.share(BACK, 1, Access::ReadWrite).unwrap(),
            front,
            port,
            next: 900,
            _page: page,
        }
    }

    pub fn ask(&mut self, message: ControlMessage) -> (ControlStatus, u32) {
        let id = self.next;
        self.next += 1;
        self.ring.push(&ControlRequest { id, message }).unwrap();
        let notify = self.ring.publish();
        self.front.ring(self.port, notify);
        let mut answer = None;
        until("an answer", || {
            answer = self.ring.pop().unwrap();
            answer.is_some()
        });
        let answer = answer.unwrap().response();
        assert_eq!((answer.id, answer.kind), (id, message.kind()));
        (answer.status, answer.data)
    }

    pub fn write(&self, entries: &[(u32, bool)]) {
        for (index, &(gref, read_only)) in entries.iter().enumerate() {
            // An old status must not be taken for a new one.
            let status = 0xabcd;
            let entry = GrefEntry {
                gref,
                read_only,
                status,
            };
            self.list.page(0).write(index * 8, &entry.encode());
        }
    }

    pub fn statuses(&self, count: usize) -> Vec<u16> {
        let entry = |index: usize| GrefEntry::decode(&self.list.page(0).read(index * 8));
        (0..count).map(|index| entry(index).status).collect()
    }

    pub fn add(&mut self, entries: &[(u32, bool)]) -> (ControlStatus, Vec<u16>) {
        self.write(entries);
        let message = ControlMessage::AddGrefMapping {
            queue: 0,
            gref: self.list.reference(0).0,
            entries: entries.len() as u32,
        };
        (self.ask(message).0, self.statuses(entries.len()))
    }

    pub fn del(&mut self, grefs: &[u32]) -> ((ControlStatus, u32), Vec<u16>) {
        let entries: Vec<_> = grefs.iter().map(|gref| (*gref, false)).collect();
        self.write(&entries);
        let message = ControlMessage::DelGrefMapping {
            queue: 0,
            gref: self.list.reference(0).0,
            entries: grefs.len() as u32,
        };
        (self.ask(message), self.statuses(grefs.len()))
    }

    pub fn refs(pages: &SharedPages) -> Vec<u32> {
        (0..pages.len())
            .map(|page| pages.reference(page).0)
            .collect()
    }

    /// Announces all pages of the data path: those to receive into, and those to send from, read-only.
    pub fn announce(&mut self) {
        for (refs, read_only) in [
            (Self::refs(&self.front.rx_pages), false),
            (Self::refs(&self.front.tx_pages), true),
        ] {
            let entries: Vec<_> = refs.into_iter().map(|gref| (gref, read_only)).collect();
            assert_eq!(self.add(&entries).0, OK);
        }
    }
}

pub fn serve(world: &World, peer: impl Peer + 'static, reach: Reach) -> BackendHandle {
    world.serve_with(Config {
        reach,
        close_patience: Duration::from_millis(50),
        ..Config::new(FRONT, peer)
    })
}

pub fn mapped(backend: &BackendHandle) -> u64 {
    backend.counters().gref_mapped
}

/// Sends frames of several slots and gets all of them back.
pub fn echo(front: &mut Front, count: usize) {
    front.post(256);
    for seed in 0..count {
        let slots = seed % 3 + 1;
        let mut frame: Vec<u8> = (0..200 + slots * 2000)
            .map(|at| (at * 7 + seed) as u8)
            .collect();
        frame[..12].fill(2);
        until("room", || {
            front.reap();
            front.send(&frame, slots, &Offload::default())
        });
        let mut back = Vec::new();
        until("the echo", || {
            back.extend(front.receive());
            !back.is_empty()
        });
        assert_eq!(back.len(), 1);
        assert!(back[0].0 == frame, "frame {seed} came back changed");
    }
    until("answers", || front.settled());
}
