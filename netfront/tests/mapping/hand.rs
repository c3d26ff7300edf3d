//! A backend whose control ring is in the test's hands.

use std::thread;

use hypervisor::{Access, EventChannels, GrantRef, MappedPages, Port};
use netfront::{Builder, Device, QueueConfig};
use xen_ring::{
    BackRing, Control, ControlMessage, ControlRequest, ControlResponse, ControlStatus, GrefEntry,
    Notify,
};

use crate::common::toolstack::Toolstack;
use crate::common::{frame, receive_all, until, Back, World, FRONT};

/// A backend whose control ring is in the test's hands.
pub struct Hand {
    pub ring: BackRing<Control>,
    pub events: EventChannels,
    pub port: Port,
    pub back: Back,
    _page: MappedPages,
}

impl Hand {
    /// Connects a device to it.
    pub fn meet(world: &World, queue: QueueConfig) -> (Device, Hand) {
        let mut toolstack = Toolstack::with_vif(world);
        Self::meet_by(world, &mut toolstack, Device::builder(0).queue(queue))
    }

    /// Connects a device of this kind to it, at a vif that is in the store already.
    pub fn meet_by(world: &World, toolstack: &mut Toolstack, builder: Builder) -> (Device, Hand) {
        toolstack.back("feature-ctrl-ring", 1);
        let front = world.front.clone();
        let connecting = thread::spawn(move || builder.connect(&front).unwrap());
        let mut back = world.attach(&toolstack.published());
        let ring = toolstack.number("ctrl-ring-ref");
        let port = toolstack.number("event-channel-ctrl");
        let page = back
            .memory
            .map(&[GrantRef(ring)], Access::ReadWrite)
            .unwrap();
        let mut events = world.back.events().unwrap();
        let port = events.bind_interdomain(FRONT, Port(port)).unwrap();
        let hand = Hand {
            ring: BackRing::attach(page.page(0)),
            events,
            port,
            back,
            _page: page,
        };
        toolstack.back("state", 4);
        (connecting.join().unwrap(), hand)
    }

    pub fn asked(&mut self) -> ControlRequest {
        let mut request = None;
        until("a question", || {
            request = self.ring.pop().unwrap();
            request.is_some() || self.ring.final_check(1).is_err()
        });
        request.unwrap().request()
    }

    pub fn say(&mut self, response: &ControlResponse) {
        self.ring.push(response).unwrap();
        if self.ring.publish() == Notify::Needed {
            self.events.notify(self.port).unwrap();
        }
    }

    pub fn answer(&mut self, request: &ControlRequest, status: ControlStatus, data: u32) {
        self.say(&ControlResponse::to(request, status, data));
    }

    /// Answers the question for the size, and all announcements up to `lists`.
    pub fn take(&mut self, lists: usize) -> Vec<GrefEntry> {
        let size = self.asked();
        assert_eq!(
            size.message,
            ControlMessage::GetGrefMappingSize { queue: 0 }
        );
        self.answer(&size, ControlStatus::Success, 4096);
        let mut all = Vec::new();
        for _ in 0..lists {
            let add = self.asked();
            let ControlMessage::AddGrefMapping { gref, entries, .. } = add.message else {
                panic!("{add:?}")
            };
            all.extend(self.list(gref, entries));
            self.answer(&add, ControlStatus::Success, 0);
        }
        all
    }

    pub fn list(&mut self, gref: u32, entries: u32) -> Vec<GrefEntry> {
        let bytes = self
            .back
            .read(GrantRef(gref), 0, entries as u16 * 8)
            .unwrap();
        let entries = bytes.chunks_exact(8);
        entries
            .map(|raw| GrefEntry::decode(raw.try_into().unwrap()))
            .collect()
    }

    /// A packet still goes through.
    pub fn carries(&mut self, device: &mut Device) {
        self.back.deliver(&frame(100, 1));
        assert_eq!(receive_all(device.queue()), [frame(100, 1)]);
    }
}
