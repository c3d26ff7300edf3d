//! What a TAP is opened with, and which offloads its reader can take.

/// How to open a TAP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapOptions {
    /// Name of the interface, up to 15 bytes. Empty: the kernel picks one (`tap0`, `tap1`, ...). A
    /// `%d` in it is replaced by the first free number. An existing persistent TAP of that name is
    /// attached.
    pub name: String,
    /// Number of queues that will be attached: more than one makes the TAP a multi-queue one, and
    /// [`Tap::add_queue`](crate::Tap::add_queue) gives the others. All of them must be read. A TAP
    /// that is there already stays what it was made.
    pub queues: u16,
    /// A [`VnetHeader`](crate::VnetHeader) precedes every frame. Without it there are no offloads.
    pub vnet_header: bool,
}

impl Default for TapOptions {
    fn default() -> Self {
        TapOptions {
            name: String::new(),
            queues: 1,
            vnet_header: true,
        }
    }
}

/// What the reader of a TAP can take: the kernel leaves just this work undone in frames that are
/// read. (Frames that are written may ask for any of it at any time.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// Frames whose TCP or UDP checksum is not filled in yet. The others need it.
    pub checksum: bool,
    /// TCP over IPv4 segments of up to 64 KiB.
    pub tso4: bool,
    /// TCP over IPv6 segments of up to 64 KiB.
    pub tso6: bool,
}

impl Offloads {
    /// Nothing: every frame arrives finished.
    pub const fn none() -> Self {
        Offloads {
            checksum: false,
            tso4: false,
            tso6: false,
        }
    }

    /// Everything that netif can carry too.
    pub const fn all() -> Self {
        Offloads {
            checksum: true,
            tso4: true,
            tso6: true,
        }
    }

    /// The kernel's flags. It refuses segmentation without checksum offload, as a segment's
    /// checksum can only be filled in after the cut: then segmentation is left out here.
    pub(crate) fn bits(self) -> u32 {
        let mut bits = 0;
        if self.checksum {
            bits |= libc::TUN_F_CSUM;
            if self.tso4 {
                bits |= libc::TUN_F_TSO4;
            }
            if self.tso6 {
                bits |= libc::TUN_F_TSO6;
            }
        }
        bits
    }

    /// What to try, best first. An old kernel refuses a set with one unknown bit as a whole.
    pub(crate) fn ladder(self) -> [Offloads; 4] {
        let wanted = Offloads {
            tso4: self.tso4 && self.checksum,
            tso6: self.tso6 && self.checksum,
            ..self
        };
        [
            wanted,
            Offloads {
                tso6: false,
                ..wanted
            },
            Offloads {
                tso4: false,
                tso6: false,
                ..wanted
            },
            Offloads::none(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segmentation_is_never_asked_for_without_checksums() {
        let wanted = Offloads {
            checksum: false,
            tso4: true,
            tso6: true,
        };
        assert_eq!(wanted.bits(), 0);
        assert!(wanted.ladder().iter().all(|step| *step == Offloads::none()));
    }

    #[test]
    fn each_step_of_the_ladder_asks_for_less() {
        let bits = Offloads::all().ladder().map(Offloads::bits);
        assert_eq!(bits, [7, 3, 1, 0]);
    }
}
