//! What a domain can rely on, tested the same way on every ground.
//!
//! Each test is written once, over a frontend's and a backend's domain. It runs on the simulated Xen
//! always. The tests of the real one are ignored off Xen; `ci/xen-lab/run conformance` runs them in dom0,
//! where both ends are the domain that the test runs in, which shares with itself.

#![allow(clippy::unwrap_used)]

mod domains;
mod events;
mod memory;
mod store;

use std::fmt::Debug;
use std::time::{Duration, Instant};

use hypervisor::{DomId, Domain};

/// How long anything may take that should happen at once.
const DEADLINE: Duration = Duration::from_secs(30);

/// Two domains, and what must outlive them.
struct Ground {
    front: Domain,
    back: Domain,
    front_id: DomId,
    back_id: DomId,
    #[cfg(feature = "sim")]
    _simulation: Option<Simulation>,
}

#[cfg(feature = "sim")]
struct Simulation {
    _server: hypervisor::sim::server::Running,
    _folder: tempfile::TempDir,
}

#[cfg(feature = "sim")]
fn simulated() -> Ground {
    use hypervisor::sim::server::{self, Options};
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("xen");
    let server = server::spawn(&socket, Options::new()).unwrap();
    // A driver domain, since domain 0 may do everything.
    let (front_id, back_id) = (DomId(5), DomId(2));
    Ground {
        front: Domain::simulated(&socket, front_id).unwrap(),
        back: Domain::simulated(&socket, back_id).unwrap(),
        front_id,
        back_id,
        _simulation: Some(Simulation {
            _server: server,
            _folder: folder,
        }),
    }
}

/// The domain that this test runs in, at both ends.
fn xen() -> Ground {
    let domain = Domain::xen().unwrap();
    let id = domain.id().unwrap();
    Ground {
        front: domain.clone(),
        back: domain,
        front_id: id,
        back_id: id,
        #[cfg(feature = "sim")]
        _simulation: None,
    }
}

/// Looks again and again until it is there.
fn eventually<T: Debug>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

macro_rules! on_every_ground {
    ($($room:ident { $($test:ident,)* })*) => {
        #[cfg(feature = "sim")]
        mod on_the_simulation {
            $(mod $room { $(
                #[test]
                fn $test() {
                    crate::$room::$test(&crate::simulated());
                }
            )* })*
        }
        mod on_xen {
            $(mod $room { $(
                #[test]
                #[ignore = "needs real Xen: ci/xen-lab/run conformance"]
                fn $test() {
                    crate::$room::$test(&crate::xen());
                }
            )* })*
        }
    };
}

on_every_ground! {
    memory {
        pages_are_zero_when_they_are_shared,
        pages_are_zero_again_when_they_are_shared_again,
        each_side_sees_what_the_other_writes,
        a_read_only_page_is_not_mapped_for_writing,
        a_read_only_page_is_not_written_by_a_copy,
        a_stale_reference_is_refused,
        a_page_shared_with_somebody_else_is_refused,
        a_reference_beyond_the_table_is_refused,
        a_mapping_is_all_or_none,
        a_page_stays_shared_as_long_as_somebody_has_it,
        a_page_that_the_peer_has_mapped_is_not_used_again,
        a_page_that_the_peer_lets_go_late_is_zero_when_it_is_shared_again,
        pages_are_unmapped_when_the_last_of_them_goes,
        a_batch_copies_both_ways,
        each_copy_of_a_batch_has_its_own_status,
        a_copy_that_leaves_the_local_buffer_is_never_made,
        a_page_may_be_mapped_twice,
        sharing_nothing_is_refused,
        a_close_notice_clears_its_byte_and_rings,
        a_close_notice_comes_too_late_for_a_page_that_is_known,
    }
    events {
        a_bound_port_is_pending_at_once,
        an_event_reaches_the_other_end_both_ways,
        a_told_port_is_masked_until_it_is_unmasked,
        an_event_that_comes_while_the_port_is_masked_is_not_lost,
        the_handle_is_readable_while_a_port_is_pending,
        no_event_is_lost_under_load,
        a_port_that_does_not_exist_cannot_be_bound,
        a_port_meant_for_somebody_else_cannot_be_bound,
        a_port_is_bound_once,
        a_port_of_another_handle_is_refused,
        ringing_a_closed_end_is_silent,
        a_closed_end_can_be_bound_again,
        dropping_the_handle_closes_its_ports,
        what_is_done_is_counted,
    }
    store {
        a_domain_knows_its_number,
        what_is_written_is_read_until_it_is_removed,
        a_missing_node_is_no_error,
        children_are_listed,
        a_long_value_comes_out_whole,
        a_value_too_long_for_the_store_is_refused,
        an_empty_value_is_a_value,
        a_watch_fires_once_when_it_is_set,
        a_watch_tells_of_what_others_write,
        a_watch_tells_of_removal,
        events_that_come_between_calls_are_kept,
        the_event_descriptor_wakes_a_waiter,
        waiting_for_no_event_ends,
        a_watch_taken_back_is_silent,
        what_belongs_to_others_is_not_written,
        a_strange_path_is_refused,
        rights_decide_who_reads,
        a_transaction_is_seen_all_at_once,
        a_transaction_that_was_dropped_did_nothing,
        a_transaction_that_met_a_change_is_refused,
    }
}
