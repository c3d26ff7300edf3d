//! Flags of a slot. The two checksum bits are **swapped** between the directions (`NETTXF_*` and
//! `NETRXF_*` in netif.h), so that each direction has a type of its own and they cannot be mixed.

use crate::offload::Checksum;

macro_rules! flags {
    ($(#[$doc:meta])* $name:ident { $($(#[$flag_doc:meta])* $flag:ident = $value:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
        pub struct $name(pub u16);

        impl $name {
            $($(#[$flag_doc])* pub const $flag: $name = $name($value);)+

            /// No flag.
            pub const NONE: $name = $name(0);

            /// True if all flags of `other` are set.
            #[inline(always)]
            pub const fn contains(self, other: $name) -> bool {
                self.0 & other.0 == other.0
            }

            /// The flags of both.
            #[inline(always)]
            #[must_use]
            pub const fn with(self, other: $name) -> $name {
                $name(self.0 | other.0)
            }

            /// The flags of `other` too, if `condition` holds.
            #[inline(always)]
            #[must_use]
            pub const fn with_if(self, other: $name, condition: bool) -> $name {
                if condition { self.with(other) } else { self }
            }

            /// What the flags say about the checksum. A blank checksum is blank, even if the
            /// payload is said to be good: it must be filled in before it goes further.
            #[inline(always)]
            pub const fn checksum(self) -> Checksum {
                if self.contains(Self::CSUM_BLANK) {
                    Checksum::Blank
                } else if self.contains(Self::DATA_VALIDATED) {
                    Checksum::Validated
                } else {
                    Checksum::None
                }
            }

            /// The flags that say this about the checksum. A blank one is also validated: that is
            /// what Linux and Windows send, and some guests check every segment without it.
            #[inline(always)]
            pub const fn of_checksum(checksum: Checksum) -> $name {
                match checksum {
                    Checksum::None => Self::NONE,
                    Checksum::Blank => Self::CSUM_BLANK.with(Self::DATA_VALIDATED),
                    Checksum::Validated => Self::DATA_VALIDATED,
                }
            }
        }

        impl core::ops::BitOr for $name {
            type Output = $name;
            #[inline(always)]
            fn bitor(self, other: $name) -> $name {
                self.with(other)
            }
        }

        impl core::fmt::Debug for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                write!(f, "{}({:#x}", stringify!($name), self.0)?;
                $(if self.contains(Self::$flag) {
                    write!(f, " {}", stringify!($flag))?;
                })+
                write!(f, ")")
            }
        }
    };
}

flags! {
    /// Flags of a transmit request.
    TxFlags {
        /// The TCP or UDP checksum field holds only the sum of the pseudo header.
        CSUM_BLANK = 1,
        /// The payload is known to be good.
        DATA_VALIDATED = 2,
        /// Another slot of this packet follows.
        MORE_DATA = 4,
        /// An extra info follows in the next slot.
        EXTRA_INFO = 8,
    }
}

flags! {
    /// Flags of a receive response.
    RxFlags {
        /// The payload is known to be good.
        DATA_VALIDATED = 1,
        /// The TCP or UDP checksum field holds only the sum of the pseudo header.
        CSUM_BLANK = 2,
        /// Another slot of this packet follows.
        MORE_DATA = 4,
        /// An extra info follows in the next slot.
        EXTRA_INFO = 8,
        /// An old way to tell the segment size; nobody offers it any more.
        GSO_PREFIX = 16,
    }
}
