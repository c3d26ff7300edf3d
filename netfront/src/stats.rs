//! Every counter, once. Text, JSON and whatever comes later are views of this table.
//!
//! A counter has one writer, the thread that owns the queue (of `gref_mapped` and `hash_active` the control thread); others read. So adding is a load and a
//! store, not an atomic read-modify-write.

mod vif;

use std::sync::atomic::{AtomicU64, Ordering};

use xen_ring::{Checksum, GsoKind, Offload, PacketFault};

pub use vif::VifStats;

/// A counter with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owner of the queue calls this.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Sets the value: for what is a level, not a count.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The present value.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A struct of counters that can tell their names and what they mean; what else is to be seen may stand at its end.
macro_rules! counters {
    (
        $(#[doc = $about:literal])+ $table:ident: $($(#[doc = $doc:literal])+ $name:ident),+ $(,)?
        $(; $(#[doc = $also:literal])+ $other:ident: $kind:ty)?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Default)]
        pub struct $table {
            $($(#[doc = $doc])+ pub $name: $crate::stats::Counter,)+
            $($(#[doc = $also])+ pub $other: $kind,)?
        }

        impl $table {
            /// Every counter with its name and what it means, in the order of the tables.
            pub fn table(&self) -> Vec<(&'static str, u64, &'static str)> {
                vec![$((stringify!($name), self.$name.get(), concat!($($doc),+).trim_ascii()),)+]
            }

            /// Every counter with its name.
            pub fn snapshot(&self) -> $crate::stats::Snapshot {
                $crate::stats::Snapshot(vec![$((stringify!($name), self.$name.get()),)+])
            }
        }
    };
}
pub(crate) use counters;

counters! {
    /// What one queue counts.
    QueueStats:
    /// Packets received and delivered.
    rx_packets,
    /// Bytes of those packets.
    rx_bytes,
    /// Ring slots that received packets took.
    rx_slots,
    /// Received packets copied out whole: below the threshold, or all if the backend is not trusted.
    rx_small,
    /// Received packets handed up in their granted pages.
    rx_large,
    /// Bytes copied out of granted pages.
    rx_copied_bytes,
    /// Pages posted again after use.
    rx_recycled,
    /// Large packets copied because the pool was short of pages.
    rx_condensed,
    /// Packets that the consumer kept.
    rx_detached,
    /// Times that the receive ring had fewer than an eighth of its slots posted.
    rx_starved,
    /// Batches before which the backend had filled every slot that was posted: it had none left, and waited or dropped packets.
    rx_ring_empty,
    /// Packets dropped: a response with an error status.
    rx_drop_negative_status,
    /// Packets dropped: offset and length left the page.
    rx_drop_beyond_page,
    /// Packets dropped: more slots than a packet may have.
    rx_drop_too_many_slots,
    /// Packets dropped: a slot promised another that was not there.
    rx_drop_chain_cut,
    /// Packets dropped: GSO of size 0 or an unknown kind.
    rx_drop_bad_gso,
    /// Packets dropped: an extra info of an unknown type.
    rx_drop_unknown_extra,
    /// Packets dropped: an extra info that has no place here.
    rx_drop_unexpected_extra,
    /// Packets dropped: extra infos without an end.
    rx_drop_extra_loop,
    /// Packets dropped: shorter than an Ethernet header.
    rx_drop_too_short,
    /// Packets dropped: sizes that contradict each other.
    rx_drop_size_mismatch,
    /// GSO packets without csum_blank, repaired.
    rx_gso_checksum_fixup,
    /// Packets received that stand for several TCPv4 segments.
    rx_gso_tcpv4,
    /// Packets received that stand for several TCPv6 segments.
    rx_gso_tcpv6,
    /// Packets received with a blank checksum.
    rx_csum_blank,
    /// Packets that came with a hash by the backend.
    rx_hashed,
    /// Packets sent.
    tx_packets,
    /// Bytes of those packets.
    tx_bytes,
    /// Ring slots that sent packets took.
    tx_slots,
    /// Packets sent that stand for several TCPv4 segments.
    tx_gso_tcpv4,
    /// Packets sent that stand for several TCPv6 segments.
    tx_gso_tcpv6,
    /// Packets sent with a blank checksum.
    tx_csum_blank,
    /// Bytes copied into granted pages.
    tx_copied_bytes,
    /// Transmit requests (slots) that the backend answered with ERROR.
    tx_errors,
    /// Transmit requests (slots) that the backend answered with DROPPED.
    tx_dropped,
    /// Packets not sent: longer than 65535 bytes or than 18 slots hold.
    tx_drop_too_long,
    /// Packets not sent: no Ethernet header, or segments of no size. The backend would close the vif for one.
    tx_drop_refused,
    /// Times that the transmit ring was full and the source was left waiting.
    tx_stopped,
    /// Events sent to the backend.
    notify_sent,
    /// Batches that were published without an event, since the backend did not ask.
    notify_suppressed,
    /// Times that the ports were unmasked late, since events came that found nothing.
    events_delayed,
    /// Events received.
    events,
    /// Events that found nothing new.
    events_spurious,
    /// Times that the queue's thread slept and woke.
    wakeups,
    /// Calls of poll and reads of the waker. What the event channels take, the hypervisor's counters say.
    polls,
    /// Rounds of the receive engine: batches of at most 64 packets each way.
    engine_rounds,
    /// Activations: runs of rounds, after which the thread sees to everything else.
    engine_activations,
    /// Rounds that ended for their budget of packets, with packets left.
    engine_budget_squeezes,
    /// Activations that ended for their time (2 ms), with packets left.
    engine_time_squeezes,
    /// Activations that ended with packets left, whatever the reason.
    engine_hand_overs,
    /// Times that packets were left in the receive ring, since their consumer was behind. A TAP never is.
    engine_held,
    /// Packets dropped, since their consumer was behind: for longer than they may be held, or while others had room. A TAP never is.
    engine_dropped,
    /// Times that the thread slept for a short time without asking the backend for an event.
    engine_looks,
    /// Times that the domain was found to have been restored or migrated.
    restores,
    /// Grants made after the start.
    grants,
    /// Grants ended after the start.
    revokes,
    /// Pages granted inline, because none was left.
    pool_grown_inline,
    /// Pages granted to the driver domain now, both directions.
    pool_granted,
    /// Pages in the free lists now.
    pool_free,
    /// Pages out with the queue now: in the rings or being worked on.
    pool_posted,
    /// Pages leased to consumers now.
    pool_leased,
    /// Pages withdrawn because the backend may still hold them.
    pool_quarantined,
    /// Pages granted beyond the start now, both directions.
    pool_grown,
    /// Pages that both pools may have at most.
    pool_limit,
    /// Slots of the receive ring that hold a page for the backend to fill, of 256.
    ring_rx_posted,
    /// Slots of the transmit ring that the backend has not answered, of 256.
    ring_tx_unanswered,
    /// Pages that the backend keeps mapped now, since they were announced over the control ring.
    gref_mapped,
    /// Rounds that the next activation may do.
    engine_limit,
    /// 1 if the backend hashes now what it sends, as it was asked to over the control ring.
    hash_active,
    /// Multicast addresses whose packets the backend is asked for now.
    multicast_groups,
    /// Requests about multicast addresses that the backend refused.
    multicast_refused,
    ;
    /// The limits that `engine_limit` had lately.
    limits: crate::engine::LimitTrace
}

/// The names of what is a level, which rises and falls. All others count events and only rise.
pub const LEVELS: [&str; 13] = [
    "pool_granted",
    "pool_free",
    "pool_posted",
    "pool_leased",
    "pool_quarantined",
    "pool_grown",
    "pool_limit",
    "ring_rx_posted",
    "ring_tx_unanswered",
    "gref_mapped",
    "engine_limit",
    "hash_active",
    "multicast_groups",
];

impl QueueStats {
    /// Sets all levels to 0: the queue is not there any more. What was counted stays.
    pub(crate) fn clear_levels(&self) {
        for level in [
            &self.pool_granted,
            &self.pool_free,
            &self.pool_posted,
            &self.pool_leased,
            &self.pool_quarantined,
            &self.pool_grown,
            &self.pool_limit,
            &self.ring_rx_posted,
            &self.ring_tx_unanswered,
            &self.gref_mapped,
            &self.engine_limit,
            &self.hash_active,
            &self.multicast_groups,
        ] {
            level.set(0);
        }
        self.limits.clear();
    }

    /// Counts what a received packet says of itself, as the backend wrote it: before anything is repaired.
    #[inline]
    pub(crate) fn count_received(&self, offload: &Offload) {
        match offload.gso.map(|gso| gso.kind) {
            None => {}
            Some(GsoKind::TcpV4) => self.rx_gso_tcpv4.add(1),
            Some(GsoKind::TcpV6) => self.rx_gso_tcpv6.add(1),
        }
        let is_blank = offload.checksum == Checksum::Blank;
        self.rx_csum_blank.add(is_blank.into());
        self.rx_hashed.add(offload.hash.is_some().into());
    }

    /// Counts what a sent packet says of itself.
    #[inline]
    pub(crate) fn count_sent(&self, offload: &Offload) {
        match offload.gso.map(|gso| gso.kind) {
            None => {}
            Some(GsoKind::TcpV4) => self.tx_gso_tcpv4.add(1),
            Some(GsoKind::TcpV6) => self.tx_gso_tcpv6.add(1),
        }
        let is_blank = offload.checksum == Checksum::Blank;
        self.tx_csum_blank.add(is_blank.into());
    }

    /// The counter of a packet that was dropped for this reason.
    pub fn dropped(&self, fault: PacketFault) -> &Counter {
        match fault {
            PacketFault::NegativeStatus => &self.rx_drop_negative_status,
            PacketFault::BeyondPage => &self.rx_drop_beyond_page,
            PacketFault::TooManySlots => &self.rx_drop_too_many_slots,
            PacketFault::ChainCut => &self.rx_drop_chain_cut,
            PacketFault::BadGso => &self.rx_drop_bad_gso,
            PacketFault::UnknownExtra => &self.rx_drop_unknown_extra,
            PacketFault::UnexpectedExtra => &self.rx_drop_unexpected_extra,
            PacketFault::ExtraLoop => &self.rx_drop_extra_loop,
            PacketFault::TooShort => &self.rx_drop_too_short,
            PacketFault::SizeMismatch => &self.rx_drop_size_mismatch,
            // A reason that the ring's contract may get later.
            _ => &self.rx_drop_unexpected_extra,
        }
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot(pub Vec<(&'static str, u64)>);

impl Snapshot {
    /// One counter by name; 0 for a name that there is not.
    pub fn get(&self, name: &str) -> u64 {
        self.0
            .iter()
            .find(|(key, _)| *key == name)
            .map_or(0, |(_, value)| *value)
    }

    /// Adds what another one has, counter by counter: the sum over several queues. Of `engine_limit` it is the highest.
    pub fn add(&mut self, other: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&other.0);
            return;
        }
        for (name, value) in &mut self.0 {
            *value = match *name {
                "engine_limit" => other.get(name).max(*value),
                _ => value.wrapping_add(other.get(name)),
            };
        }
    }

    /// What was counted since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        Self(
            self.0
                .iter()
                .map(|&(name, value)| (name, value.saturating_sub(earlier.get(name))))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use xen_ring::Gso;

    use super::*;

    #[test]
    fn a_snapshot_tells_counters_by_name_and_what_was_added_since() {
        let stats = QueueStats::default();
        stats.rx_packets.add(3);
        let before = stats.snapshot();
        stats.rx_packets.add(4);
        stats.pool_free.set(9);
        let now = stats.snapshot();
        assert_eq!((before.get("rx_packets"), now.get("rx_packets")), (3, 7));
        assert_eq!(now.since(&before).get("rx_packets"), 4);
        assert_eq!(now.since(&before).get("pool_free"), 9);
        assert_eq!(now.get("no such counter"), 0);
        // A level can fall; that is no number of events.
        stats.pool_free.set(2);
        assert_eq!(stats.snapshot().since(&now).get("pool_free"), 0);
    }

    #[test]
    fn every_counter_has_a_name_of_its_own_and_says_what_it_means() {
        let table = QueueStats::default().table();
        let names: BTreeSet<_> = table.iter().map(|(name, _, _)| name).collect();
        assert_eq!(names.len(), table.len());
        assert!(table.iter().all(|(_, _, meaning)| meaning.ends_with('.')));
    }

    #[test]
    fn a_queue_that_is_gone_has_no_levels_and_keeps_what_it_counted() {
        let stats = QueueStats::default();
        for name in LEVELS {
            let level = stats.table().iter().position(|&(known, ..)| known == name);
            assert!(level.is_some(), "{name}");
        }
        stats.rx_packets.add(3);
        stats.pool_free.set(9);
        stats.gref_mapped.set(9);
        stats.limits.record(10);
        stats.clear_levels();
        let now = stats.snapshot();
        assert!(LEVELS.iter().all(|name| now.get(name) == 0), "{now:?}");
        assert_eq!(now.get("rx_packets"), 3);
        assert!(stats.limits.recent().is_empty());
    }

    #[test]
    fn a_sum_has_every_counter_of_all_queues() {
        let (one, two) = (QueueStats::default(), QueueStats::default());
        one.rx_packets.add(3);
        two.rx_packets.add(4);
        two.tx_stopped.add(1);
        let mut sum = Snapshot::default();
        sum.add(&one.snapshot());
        sum.add(&two.snapshot());
        assert_eq!((sum.get("rx_packets"), sum.get("tx_stopped")), (7, 1));
        assert_eq!(sum.0.len(), one.snapshot().0.len());
    }

    #[test]
    fn what_a_packet_says_of_itself_is_counted_by_its_direction_and_kind() {
        let stats = QueueStats::default();
        for kind in [GsoKind::TcpV4, GsoKind::TcpV6, GsoKind::TcpV6] {
            let segments = Offload {
                checksum: Checksum::Blank,
                gso: Some(Gso { size: 1448, kind }),
                ..Offload::default()
            };
            stats.count_received(&segments);
            stats.count_sent(&segments);
        }
        let validated = Offload {
            checksum: Checksum::Validated,
            ..Offload::default()
        };
        for plain in [Offload::default(), validated] {
            stats.count_received(&plain);
            stats.count_sent(&plain);
        }
        let now = stats.snapshot();
        for way in ["rx", "tx"] {
            let of = |what: &str| now.get(&format!("{way}_{what}"));
            let counted = (of("gso_tcpv4"), of("gso_tcpv6"), of("csum_blank"));
            assert_eq!(counted, (1, 2, 3), "{way}");
        }
        assert_eq!(now.get("rx_hashed"), 0);
    }

    #[test]
    fn every_level_is_in_the_table() {
        let table = QueueStats::default().table();
        for level in LEVELS {
            assert!(table.iter().any(|&(name, ..)| name == level), "{level}");
        }
    }

    #[test]
    fn every_fault_has_a_counter_of_its_own_name() {
        for fault in PacketFault::ALL {
            let stats = QueueStats::default();
            stats.dropped(fault).add(1);
            let name = format!("rx_drop_{}", fault.name());
            assert_eq!(stats.snapshot().get(&name), 1, "{name}");
        }
    }
}
