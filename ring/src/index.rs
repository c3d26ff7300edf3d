//! Free-running ring indices, and the question whether the peer wants to be woken.

/// Position in a ring: counts up for ever and wraps at 2^32.
///
/// There is no order on purpose: `a < b` is wrong as soon as one of them wrapped. Ask for the
/// [`distance`](RingIndex::distance) instead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RingIndex(pub u32);

impl RingIndex {
    /// How many slots lie from `earlier` to `self`.
    #[inline(always)]
    pub const fn distance(self, earlier: RingIndex) -> u32 {
        self.0.wrapping_sub(earlier.0)
    }

    /// The index `count` slots further on.
    #[inline(always)]
    #[must_use]
    pub const fn advance(self, count: u32) -> RingIndex {
        RingIndex(self.0.wrapping_add(count))
    }

    /// The slot in a ring of `slots` slots; a power of two, at most 65536.
    #[inline(always)]
    pub(crate) const fn slot(self, slots: u32) -> u16 {
        low_half(self.0 & (slots - 1))
    }

    /// Whether a peer that asked to be woken at `event` must be, when a producer went from `old` to
    /// `self`: true if and only if `event` lies in `old + 1 ..= self` (ring.h,
    /// `RING_PUSH_REQUESTS_AND_CHECK_NOTIFY`).
    #[inline(always)]
    pub const fn passes(self, old: RingIndex, event: RingIndex) -> Notify {
        if self.distance(event) < self.distance(old) {
            Notify::Needed
        } else {
            Notify::NotNeeded
        }
    }
}

/// The low 16 bits: a truncation that is meant.
#[inline(always)]
pub(crate) const fn low_half(value: u32) -> u16 {
    let [first, second, _, _] = value.to_le_bytes();
    u16::from_le_bytes([first, second])
}

/// Whether the peer asked to be woken for what was just published.
#[must_use = "a peer that is not notified sleeps for ever"]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Notify {
    /// Send an event.
    Needed,
    /// The peer is still at work and will look by itself.
    NotNeeded,
}

impl Notify {
    /// True if an event must be sent.
    #[inline(always)]
    pub const fn is_needed(self) -> bool {
        matches!(self, Notify::Needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_cross_the_wrap() {
        let before = RingIndex(u32::MAX - 1);
        assert_eq!(before.advance(5), RingIndex(3));
        assert_eq!(RingIndex(3).distance(before), 5);
        assert_eq!(before.slot(256), 254);
        assert_eq!(RingIndex(3).slot(256), 3);
        assert_eq!(RingIndex(128).slot(128), 0);
    }

    #[test]
    fn an_event_is_passed_only_between_old_and_new() {
        for start in [0, 1000, u32::MAX - 2, u32::MAX] {
            let old = RingIndex(start);
            let new = old.advance(4);
            for (event, expected) in [
                (0, Notify::NotNeeded),
                (1, Notify::Needed),
                (4, Notify::Needed),
                (5, Notify::NotNeeded),
                (u32::MAX, Notify::NotNeeded),
            ] {
                assert_eq!(new.passes(old, old.advance(event)), expected, "{event}");
            }
        }
    }
}
