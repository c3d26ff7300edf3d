//! Hashes for the guest, by Toeplitz, and the queue that each leads to: what the guest asks for over the control ring, judged
//! as netback judges it (`xenvif_set_hash_*`), and applied to each frame that is sent to it.

use xen_ring::{
    ControlMessage, ControlStatus, Hash, HashAlgorithm, HashFlags, HashKind, PAGE_SIZE,
};

use super::control::Answer;
use super::memory::Memory;
use crate::packet;

/// Bytes of a key (`XEN_NETBK_MAX_HASH_KEY_SIZE`).
const KEY: usize = 40;
/// Entries of a mapping (`XEN_NETBK_MAX_HASH_MAPPING_SIZE`).
const MAPPING: usize = 128;
/// Entries that fit into a page.
const PAGE_ENTRIES: u32 = (PAGE_SIZE / 4) as u32;

const DONE: Answer = (ControlStatus::Success, 0);
const INVALID: Answer = (ControlStatus::InvalidParameter, 0);
const UNSUPPORTED: Answer = (ControlStatus::NotSupported, 0);

/// What the guest has asked for.
#[derive(Debug)]
pub(super) struct Hashing {
    on: bool,
    flags: HashFlags,
    key: [u8; KEY],
    /// How many entries of the mapping are in use; 0: the hash is taken modulo the number of queues.
    size: usize,
    mapping: [u32; MAPPING],
}

impl Default for Hashing {
    fn default() -> Self {
        Hashing {
            on: false,
            flags: HashFlags(0),
            key: [0; KEY],
            size: 0,
            mapping: [0; MAPPING],
        }
    }
}

impl Hashing {
    /// Answers a message about hashes; None if it is about something else.
    pub(super) fn answer(
        &mut self,
        message: &ControlMessage,
        memory: &mut Memory,
        queues: usize,
    ) -> Option<Answer> {
        Some(match *message {
            ControlMessage::SetHashAlgorithm(raw) => {
                match u8::try_from(raw).ok().and_then(HashAlgorithm::from_raw) {
                    Some(algorithm) => {
                        self.on = algorithm == HashAlgorithm::Toeplitz;
                        DONE
                    }
                    None => INVALID,
                }
            }
            ControlMessage::GetHashFlags if self.on => (ControlStatus::Success, HashFlags::ALL.0),
            ControlMessage::GetHashFlags => UNSUPPORTED,
            ControlMessage::SetHashFlags(flags) => {
                if !self.on || !HashFlags::ALL.contains(flags) {
                    return Some(INVALID);
                }
                self.flags = flags;
                DONE
            }
            ControlMessage::SetHashKey { gref, len } => {
                self.set_key(memory, gref, len).unwrap_or(INVALID)
            }
            ControlMessage::GetHashMappingSize => (ControlStatus::Success, MAPPING as u32),
            ControlMessage::SetHashMappingSize(size) => match usize::try_from(size) {
                Ok(size @ ..=MAPPING) => {
                    self.size = size;
                    self.mapping = [0; MAPPING];
                    DONE
                }
                _ => INVALID,
            },
            ControlMessage::SetHashMapping {
                gref,
                entries,
                offset,
            } => self
                .set_mapping(memory, queues, (gref, entries, offset))
                .unwrap_or(INVALID),
            _ => return None,
        })
    }

    /// None: the page cannot be read.
    fn set_key(&mut self, memory: &mut Memory, gref: u32, len: u32) -> Option<Answer> {
        let len = usize::try_from(len).ok()?;
        if len > KEY {
            return Some((ControlStatus::BufferOverflow, 0));
        }
        let mut key = [0; KEY];
        if len > 0 {
            key[..len].copy_from_slice(memory.read_bytes(gref, len)?);
        }
        self.key = key;
        Some(DONE)
    }

    /// All entries, or none. None: the page cannot be read, or an entry makes no sense.
    fn set_mapping(
        &mut self,
        memory: &mut Memory,
        queues: usize,
        (gref, entries, offset): (u32, u32, u32),
    ) -> Option<Answer> {
        let end = offset.checked_add(entries)?;
        if entries > PAGE_ENTRIES || end as usize > self.size {
            return None;
        }
        if entries == 0 {
            return Some(DONE);
        }
        let mut mapping = self.mapping;
        let raw = memory.read_bytes(gref, entries as usize * 4)?;
        for (entry, raw) in mapping[offset as usize..]
            .iter_mut()
            .zip(raw.chunks_exact(4))
        {
            *entry = u32::from_le_bytes(*raw.first_chunk()?);
            if *entry as usize >= queues {
                return None;
            }
        }
        self.mapping = mapping;
        Some(DONE)
    }

    /// The hash of a frame, if the guest wants one of its kind.
    pub(super) fn of(&self, frame: &[u8]) -> Option<Hash> {
        if !self.on {
            return None;
        }
        let input = packet::hash_input(frame)?;
        let wanted = |kind: HashKind| self.flags.contains(HashFlags(1 << kind.to_raw()));
        let (with_ports, without) = match input.ipv6 {
            true => (HashKind::Ipv6Tcp, HashKind::Ipv6),
            false => (HashKind::Ipv4Tcp, HashKind::Ipv4),
        };
        let (kind, bytes) = if input.tcp && wanted(with_ports) {
            (with_ports, input.all())
        } else if wanted(without) {
            (without, input.addresses())
        } else {
            return None;
        };
        Some(Hash {
            kind,
            algorithm: HashAlgorithm::Toeplitz,
            value: toeplitz(&self.key, bytes),
        })
    }

    /// The queue that a hash leads to, of so many. None: the guest does not say.
    pub(super) fn queue(&self, hash: Option<Hash>, queues: usize) -> Option<usize> {
        if !self.on {
            return None;
        }
        // netback gives a frame without a hash the hash 0.
        let hash = hash.map_or(0, |hash| hash.value) as usize;
        match self.size {
            0 => Some(hash % queues.max(1)),
            size => Some(self.mapping[hash % size] as usize),
        }
    }
}

/// Each bit of the input that is set adds (exclusive or) the 32 bits of the key that begin at its place.
fn toeplitz(key: &[u8; KEY], input: &[u8]) -> u32 {
    let mut hash = 0;
    let mut window = u32::from_be_bytes([key[0], key[1], key[2], key[3]]);
    for (at, byte) in input.iter().enumerate() {
        let next = key.get(at + 4).copied().unwrap_or(0);
        for bit in (0..8).rev() {
            if (byte >> bit) & 1 != 0 {
                hash ^= window;
            }
            window = (window << 1) | u32::from((next >> bit) & 1);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: [u8; KEY] = [
        0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f,
        0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
        0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
    ];

    /// From 66.9.149.187:2794 to 161.142.100.80:1766, the first vector of Microsoft's verification suite.
    fn vector() -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0]);
        frame.extend([66, 9, 149, 187, 161, 142, 100, 80]);
        frame.extend(2794u16.to_be_bytes());
        frame.extend(1766u16.to_be_bytes());
        frame.extend([0; 16]);
        frame
    }

    fn hashing(flags: HashFlags) -> Hashing {
        Hashing {
            on: true,
            flags,
            key: COMMON,
            ..Hashing::default()
        }
    }

    #[test]
    fn the_hash_is_that_of_the_verification_suite() {
        let of = |flags| {
            hashing(flags)
                .of(&vector())
                .map(|hash| (hash.kind, hash.value))
        };
        assert_eq!(of(HashFlags::ALL), Some((HashKind::Ipv4Tcp, 0x51cc_c178)));
        assert_eq!(of(HashFlags::IPV4), Some((HashKind::Ipv4, 0x323e_8fc2)));
        assert_eq!(of(HashFlags::IPV6), None);
        assert_eq!(Hashing::default().of(&vector()), None);
    }

    #[test]
    fn a_mapping_decides_the_queue_and_without_one_the_remainder_does() {
        let mut hashing = hashing(HashFlags::ALL);
        let hash = hashing.of(&vector());
        assert_eq!(hashing.queue(hash, 3), Some(0x51cc_c178 % 3));
        hashing.size = 2;
        hashing.mapping[0] = 1;
        assert_eq!(hashing.queue(hash, 3), Some(1));
        assert_eq!(Hashing::default().queue(hash, 3), None);
    }
}
