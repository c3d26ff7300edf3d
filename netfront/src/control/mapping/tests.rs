//! What becomes of pages when the control ring is given up.

use std::sync::Arc;
use std::time::Duration;

use hypervisor::sim::server::{self, Options};
use hypervisor::GrantRef;

use super::*;
use crate::pool::Growth;
use crate::stats::QueueStats;

const PEER: DomId = DomId(0);

#[test]
fn after_a_fault_nothing_is_waited_for_and_pages_still_come_and_go() {
    let dir = tempfile::tempdir().expect("a directory");
    let socket = dir.path().join("xen");
    let _server = server::spawn(&socket, Options::new()).expect("a server");
    let domain = Domain::simulated(&socket, DomId(1)).expect("a domain");
    let ring = ControlRing::open(&domain, PEER, "nf0control").expect("a ring");
    let growth = Arc::new(Growth::new());
    let stats = Arc::<QueueStats>::default();
    let pages = writable(&[GrantRef(7)]);
    let queue = Announcement {
        pages,
        growth: Arc::clone(&growth),
        stats,
    };
    let mut mapping = Mapping::new(ring, vec![queue]);
    mapping.advance(&domain, PEER).expect("asked");
    assert!(mapping.fd().is_some() && mapping.deadline().is_some());
    mapping.fall(&Fault::Silent {
        kind: 8,
        waited: Duration::ZERO,
    });
    mapping.advance(&domain, PEER).expect("nothing to do");
    assert!(mapping.fd().is_none() && mapping.deadline().is_none());

    let shared = |pages| domain.share(PEER, pages, Access::ReadWrite).expect("pages");
    let before = domain.counters();
    let leaving = shared(2);
    growth.leave(Leaving::whole(&leaving));
    drop(leaving);
    mapping.advance(&domain, PEER).expect("nothing to ask");
    let now = domain.counters();
    assert_eq!(now.revokes - before.revokes, 2, "never announced: freed");
    assert!(mapping.held.is_empty());
}
