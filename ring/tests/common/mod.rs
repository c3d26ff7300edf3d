//! Both ends of a ring over one page, in one process.

use xen_ring::{BackRing, FrontRing, Layout, Page, Rx, Tx};

/// A frontend and a backend that know each other's page only.
pub struct Pair<L: Layout> {
    pub front: FrontRing<L>,
    pub back: BackRing<L>,
}

impl<L: Layout> Pair<L> {
    pub fn starting_at(start: u32) -> Self {
        let page = Page::zeroed();
        let front = FrontRing::starting_at(page.clone(), start);
        let back = BackRing::attach(page);
        Pair { front, back }
    }

    pub fn new() -> Self {
        Self::starting_at(0)
    }
}

#[allow(dead_code)]
impl Pair<Rx> {
    /// A receive ring with `count` posted pages, all of which the backend has popped.
    pub fn posted(count: u32) -> Self {
        let mut pair = Pair::new();
        pair.post(count);
        pair
    }

    pub fn post(&mut self, count: u32) {
        for gref in 0..count {
            self.front.post(gref).unwrap();
        }
        let _ = self.front.publish();
        for _ in 0..count {
            self.back.pop().unwrap().unwrap();
        }
    }

    /// Answers with these slots as they are, and publishes.
    pub fn respond(&mut self, slots: &[[u8; 8]]) {
        for raw in slots {
            self.back.push_raw(raw).unwrap();
        }
        let _ = self.back.publish();
    }
}

#[allow(dead_code)]
impl Pair<Tx> {
    /// A transmit ring with these slots as they are, published.
    pub fn requested(slots: &[[u8; 12]]) -> Self {
        let mut pair = Pair::new();
        pair.request(slots);
        pair
    }

    pub fn request(&mut self, slots: &[[u8; 12]]) {
        for raw in slots {
            self.front.push_raw(raw).unwrap();
        }
        let _ = self.front.publish();
    }
}
