//! The virtio-net header that precedes every frame of a TAP.
//!
//! Layout and meaning: Virtual I/O Device (VIRTIO) 1.2, section 5.1.6 "Device Operation",
//! `struct virtio_net_hdr`, 12 bytes with `num_buffers`, all little endian (set by TUNSETVNETLE, so
//! that it holds on any host). A frame read from a TAP carries what the kernel left undone; a frame
//! written to a TAP says what the kernel still has to do.

/// Size of the header in front of every frame.
pub const HEADER_SIZE: usize = 12;

/// The checksum at `csum_start + csum_offset` holds only the sum of the pseudo header; who sends
/// the frame on a wire sums from `csum_start` to the end and puts the result there (5.1.6.2).
pub const FLAG_NEEDS_CSUM: u8 = 1;
/// The checksum has been checked (5.1.6.4).
pub const FLAG_DATA_VALID: u8 = 2;

/// An ordinary frame.
pub const GSO_NONE: u8 = 0;
/// A large TCP over IPv4 segment, to be cut into pieces of `gso_size` bytes of payload.
pub const GSO_TCPV4: u8 = 1;
/// The same over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// Set on top of a TCP type when the segment has ECN's CWR bit set.
pub const GSO_ECN: u8 = 0x80;

/// One virtio-net header, as fields in host order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VnetHeader {
    /// [`FLAG_NEEDS_CSUM`], [`FLAG_DATA_VALID`].
    pub flags: u8,
    /// [`GSO_NONE`], [`GSO_TCPV4`] or [`GSO_TCPV6`], with or without [`GSO_ECN`].
    pub gso_type: u8,
    /// Length of all headers of a large segment (a hint: the kernel reads its own when it parses).
    pub hdr_len: u16,
    /// Payload bytes in each piece of a large segment.
    pub gso_size: u16,
    /// Where the checksummed part begins, counted from the first byte of the frame.
    pub csum_start: u16,
    /// Where the checksum is, counted from `csum_start`.
    pub csum_offset: u16,
    /// Number of merged buffers; TAPs leave it 0.
    pub num_buffers: u16,
}

impl VnetHeader {
    /// Reads the header's 12 bytes. Every pattern of bits is some header: judge it before use.
    pub fn decode(bytes: &[u8; HEADER_SIZE]) -> Self {
        let half = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        VnetHeader {
            flags: bytes[0],
            gso_type: bytes[1],
            hdr_len: half(2),
            gso_size: half(4),
            csum_start: half(6),
            csum_offset: half(8),
            num_buffers: half(10),
        }
    }

    /// Writes the header's 12 bytes.
    pub fn encode(&self) -> [u8; HEADER_SIZE] {
        let mut bytes = [0; HEADER_SIZE];
        bytes[0] = self.flags;
        bytes[1] = self.gso_type;
        let halves = [
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        ];
        for (i, half) in halves.iter().enumerate() {
            bytes[2 + 2 * i..4 + 2 * i].copy_from_slice(&half.to_le_bytes());
        }
        bytes
    }

    /// The checksum still has to be filled in.
    pub fn needs_checksum(&self) -> bool {
        self.flags & FLAG_NEEDS_CSUM != 0
    }

    /// The checksum has been checked.
    pub fn data_valid(&self) -> bool {
        self.flags & FLAG_DATA_VALID != 0
    }

    /// The kind of large segment without the ECN bit; [`GSO_NONE`] for an ordinary frame.
    pub fn gso_kind(&self) -> u8 {
        self.gso_type & !GSO_ECN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_stands_at_the_place_that_virtio_gives_it() {
        let header = VnetHeader {
            flags: FLAG_NEEDS_CSUM,
            gso_type: GSO_TCPV6 | GSO_ECN,
            hdr_len: 0x0102,
            gso_size: 0x0304,
            csum_start: 0x0506,
            csum_offset: 0x0708,
            num_buffers: 0x090a,
        };
        let bytes = header.encode();
        assert_eq!(bytes, [1, 0x84, 2, 1, 4, 3, 6, 5, 8, 7, 0x0a, 9]);
        assert_eq!(VnetHeader::decode(&bytes), header);
        assert_eq!(header.gso_kind(), GSO_TCPV6);
        assert!(header.needs_checksum() && !header.data_valid());
    }
}
