//! What the backend counts. Written by its one thread, read by anybody at any time.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// The counters as they stood at one moment. `tx` is from the guest, `rx` to the guest, as
        /// the guest sees it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
        pub struct Snapshot { $($(#[doc = $doc])+ pub $name: u64,)* }

        impl Snapshot {
            /// All names and values, in order.
            pub fn fields(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)*]
            }

            /// All names and what they mean, in the same order.
            pub fn meanings() -> Vec<(&'static str, &'static str)> {
                vec![$((stringify!($name), concat!($($doc),+).trim_ascii()),)*]
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters { $(pub(crate) $name: Counter,)* }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Snapshot {
                Snapshot { $($name: self.$name.get(),)* }
            }
        }
    };
}

counters! {
    /// Frames taken from the guest.
    tx_packets,
    /// Bytes of those frames.
    tx_bytes,
    /// Slots that those frames took, extra infos left out.
    tx_slots,
    /// Frames from the guest that were refused: malformed, or of a kind that was not offered.
    tx_refused,
    /// Frames from the guest that could not be copied: a reference that is not granted.
    tx_copy_failed,
    /// Frames put into the guest's pages.
    rx_packets,
    /// Bytes of those frames.
    rx_bytes,
    /// Slots that those frames took, extra infos left out.
    rx_slots,
    /// Frames that went with a hash, since the guest asked for it.
    rx_hashed,
    /// Frames that could not be copied into the guest's pages.
    rx_copy_failed,
    /// Frames dropped because the guest cannot take their kind or size.
    rx_unsupported,
    /// Multicast frames that the guest has not asked for.
    rx_filtered,
    /// Requests of the guest about multicast addresses, those refused included.
    multicast_requests,
    /// How often frames had to wait because the guest had not posted enough pages.
    rx_waits,
    /// Frames dropped because the guest posted no pages for them for too long.
    rx_expired,
    /// How often the carrier went off, since the guest posted no pages for too long.
    rx_stalls,
    /// 1 while it is off for that.
    rx_stalled,
    /// Frames dropped while it was off.
    rx_no_carrier,
    /// Checksums filled in for a guest that does not do it.
    checksums_filled,
    /// Control messages answered.
    control_messages,
    /// Pages of the guest that stay mapped now, since it has announced them.
    gref_mapped,
    /// Pieces of frames copied through a mapping that is kept: no call was needed.
    copies_kept,
    /// Pieces of frames copied by the hypervisor (grant copy).
    copies_granted,
    /// Pieces of frames copied through a mapping made for their batch only.
    copies_mapped,
    /// Grant copy calls of the data path.
    copy_calls,
    /// Copy calls that failed as a whole.
    copy_calls_failed,
    /// Calls of the data path that map the pages of a batch, or unmap them.
    map_calls,
    /// Batches that could not be mapped as a whole, and were copied by the hypervisor instead.
    maps_refused,
    /// Notifications sent.
    notifications,
    /// Batches published without a notification, since the guest was awake.
    notifications_saved,
    /// Notifications that could not be sent.
    notifications_failed,
    /// Events received.
    events,
    /// How often the thread slept.
    sleeps,
    /// Times that the vif was connected.
    connects,
    /// Times that the vif was disconnected.
    disconnects,
    /// Times that the guest broke the protocol, so that the vif was taken down or asked to close.
    faults,
}

/// A number with one writer.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// There is one writer, so a load and a store do; a locked instruction would cost more than
    /// some packets.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        let old = self.0.load(Ordering::Relaxed);
        self.0.store(old.wrapping_add(n), Ordering::Relaxed);
    }

    /// For what is a level, not a count.
    #[inline]
    pub(crate) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
