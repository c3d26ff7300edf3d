//! Facts about a packet that are not in its bytes, the same for both directions.

use arrayvec::ArrayVec;

use crate::wire::extra::{ExtraInfo, GsoKind, HashAlgorithm, HashKind};

/// What is known about the TCP or UDP checksum.
///
/// Three states, not a boolean: taking "blank" for "good" sends broken packets, taking "good" for
/// "unknown" has every one checked again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Checksum {
    /// Nothing: the field is said to be complete, and nobody has checked.
    #[default]
    None,
    /// The field holds the sum of the pseudo header only; it must be filled in before the packet
    /// goes out on a wire.
    Blank,
    /// It was checked, or needs no check.
    Validated,
}

/// The packet stands for several segments.
///
/// Some backends send such a packet without [`Checksum::Blank`]; the consumer must then fill in the
/// pseudo header's sum itself (Linux counts these as `rx_gso_checksum_fixup`).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Gso {
    /// Payload bytes of a segment, never 0 when it comes from a ring.
    pub size: u16,
    /// Which protocol.
    pub kind: GsoKind,
}

/// A hash over addresses and ports, computed by the sender. A hint, never proof of anything.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Hash {
    /// Over what.
    pub kind: HashKind,
    /// By which algorithm.
    pub algorithm: HashAlgorithm,
    /// The hash.
    pub value: u32,
}

/// All facts about one packet.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Offload {
    /// About its checksum.
    pub checksum: Checksum,
    /// About its segments.
    pub gso: Option<Gso>,
    /// About its flow.
    pub hash: Option<Hash>,
}

impl Offload {
    /// How many slots the extra infos take.
    #[inline]
    pub fn extra_slots(&self) -> u32 {
        u32::from(self.gso.is_some()) + u32::from(self.hash.is_some())
    }

    /// The extra infos that carry these facts, in the order of their slots.
    #[inline]
    pub fn extras(&self) -> ArrayVec<ExtraInfo, 2> {
        let mut extras = ArrayVec::new();
        if let Some(Gso { size, kind }) = self.gso {
            extras.push(ExtraInfo::Gso { size, kind });
        }
        if let Some(hash) = self.hash {
            extras.push(ExtraInfo::Hash {
                kind: hash.kind.to_raw(),
                algorithm: hash.algorithm.to_raw(),
                value: hash.value,
            });
        }
        extras
    }

    /// Takes over what an extra info says; false if it says nothing about a packet.
    ///
    /// A hash of a kind or by an algorithm that is not known is passed over: it is a hint, and
    /// a packet without a hash is a good packet.
    #[inline]
    pub(crate) fn accept(&mut self, extra: &ExtraInfo) -> bool {
        match *extra {
            ExtraInfo::Gso { size, kind } => self.gso = Some(Gso { size, kind }),
            ExtraInfo::Hash {
                kind,
                algorithm,
                value,
            } => {
                self.hash = HashKind::from_raw(kind)
                    .zip(HashAlgorithm::from_raw(algorithm))
                    .map(|(kind, algorithm)| Hash {
                        kind,
                        algorithm,
                        value,
                    });
            }
            ExtraInfo::McastAdd(_) | ExtraInfo::McastDel(_) | ExtraInfo::Xdp { .. } => {
                return false
            }
        }
        true
    }
}
