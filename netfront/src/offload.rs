//! netif flags and extras to virtio-net headers and back, and what the peer forgot.
//!
//! The checksum of a packet is in one of three states, in both languages:
//!
//! | state | netif | virtio-net |
//! | --- | --- | --- |
//! | blank: holds the pseudo header's sum only | `csum_blank` | `NEEDS_CSUM`, with start and offset |
//! | validated: known to be good | `data_validated` | `DATA_VALID` |
//! | none: nothing is known | - | - |
//!
//! netif does not say *where* a blank checksum is: the receiver finds it by parsing. That is done on the copied
//! head, never on shared memory.

mod able;
mod headers;
mod segment;

use std::ops::DerefMut;

use netfront_tap::{header, VnetHeader};
use xen_ring::{Checksum, Gso, GsoKind, Offload};

pub use able::{takes_blank, takes_segments};
pub(crate) use headers::{fold, sum};
pub use headers::{Headers, Transport};
pub use segment::{NotSegments, Piece, Segments, HEADERS_MAX};

/// What a packet that must be finished by software lacks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the packet's checksum is to be filled in, but it has no TCP or UDP header in its first bytes"
)]
pub struct NoTransportHeader;

/// A GSO packet has a blank checksum by its nature; some backends forget the flag (mirage, and 86 % of
/// frames in one report). Without the repair every segment cut from it would be thrown away.
/// Returns true if it was repaired; then [`Headers::write_pseudo_checksum`] is due.
pub(crate) fn repair(offload: &mut Offload) -> bool {
    let forgotten = offload.gso.is_some() && offload.checksum != Checksum::Blank;
    if forgotten {
        offload.checksum = Checksum::Blank;
    }
    forgotten
}

/// The virtio-net header of a received packet, whose first bytes are `head`.
///
/// # Errors
/// If the checksum is blank and there is no TCP or UDP header to hold it.
pub fn to_vnet(offload: &Offload, head: &[u8]) -> Result<VnetHeader, NoTransportHeader> {
    let mut vnet = VnetHeader::default();
    match offload.checksum {
        Checksum::None => {}
        Checksum::Validated => vnet.flags = header::FLAG_DATA_VALID,
        Checksum::Blank => {
            let headers = Headers::parse(head).ok_or(NoTransportHeader)?;
            vnet.flags = header::FLAG_NEEDS_CSUM;
            vnet.csum_start = headers.transport_at;
            vnet.csum_offset = headers.transport.checksum_offset();
            if let Some(gso) = offload.gso {
                vnet.gso_type = match gso.kind {
                    GsoKind::TcpV4 => header::GSO_TCPV4,
                    GsoKind::TcpV6 => header::GSO_TCPV6,
                };
                vnet.gso_size = gso.size;
                vnet.hdr_len = headers.payload_at(head);
            }
        }
    }
    Ok(vnet)
}

/// The offloads of a packet that was read from a TAP with its header.
pub fn from_vnet(vnet: &VnetHeader) -> Offload {
    let checksum = if vnet.needs_checksum() {
        Checksum::Blank
    } else if vnet.data_valid() {
        Checksum::Validated
    } else {
        Checksum::None
    };
    let kind = match vnet.gso_kind() {
        header::GSO_TCPV4 => Some(GsoKind::TcpV4),
        header::GSO_TCPV6 => Some(GsoKind::TcpV6),
        _ => None,
    };
    let gso = kind.map(|kind| Gso {
        size: vnet.gso_size,
        kind,
    });
    Offload {
        checksum,
        gso,
        ..Offload::default()
    }
}

/// Fills in a blank checksum: for a backend that cannot.
///
/// `slices` hold the packet, `start` and `offset` are those of the virtio-net header.
pub fn fill_checksum(
    slices: &mut [impl DerefMut<Target = [u8]>],
    len: usize,
    start: usize,
    offset: usize,
) {
    let mut sum = 0u64;
    let mut at = 0;
    for slice in slices.iter() {
        let end = (at + slice.len()).min(len);
        if end > start {
            let from = start.max(at);
            sum += headers::sum(&slice[from - at..end - at], (from - start) % 2 == 1);
        }
        at = end;
    }
    let folded = headers::fold(sum);
    // A UDP checksum of zero would mean that there is none (RFC 768); 0xffff is the same number.
    let checksum = if folded == 0xffff { 0xffff } else { !folded };
    if let Some(field) = slices
        .first_mut()
        .and_then(|s| s.get_mut(start + offset..start + offset + 2))
    {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blank(gso: Option<Gso>) -> Offload {
        Offload {
            checksum: Checksum::Blank,
            gso,
            ..Offload::default()
        }
    }

    #[test]
    fn a_gso_packet_without_csum_blank_is_repaired_and_others_are_left_alone() {
        let gso = Some(Gso {
            size: 1448,
            kind: GsoKind::TcpV4,
        });
        let mut forgotten = Offload {
            checksum: Checksum::Validated,
            gso,
            ..Offload::default()
        };
        assert!(repair(&mut forgotten));
        assert_eq!(forgotten.checksum, Checksum::Blank);
        assert!(!repair(&mut forgotten));
        assert!(!repair(&mut Offload::default()));
    }

    #[test]
    fn each_checksum_state_survives_the_way_to_a_vnet_header_and_back() {
        let head = headers::tests::tcp_v4(1000);
        let gso = Some(Gso {
            size: 1448,
            kind: GsoKind::TcpV4,
        });
        for offload in [
            Offload::default(),
            Offload {
                checksum: Checksum::Validated,
                ..Offload::default()
            },
            blank(None),
            blank(gso),
        ] {
            let vnet = to_vnet(&offload, &head).expect("has a TCP header");
            assert_eq!(from_vnet(&vnet), offload);
        }
    }

    #[test]
    fn a_blank_checksum_in_a_packet_that_is_no_tcp_or_udp_is_refused() {
        assert_eq!(to_vnet(&blank(None), &[0; 60]), Err(NoTransportHeader));
        assert_eq!(to_vnet(&blank(None), &[]), Err(NoTransportHeader));
    }

    #[test]
    fn a_checksum_filled_in_over_odd_pieces_is_the_same_as_in_one_piece() {
        let mut whole = headers::tests::tcp_v4(333);
        let parsed = Headers::parse(&whole).expect("TCP");
        parsed.write_pseudo_checksum(&mut whole, 333);
        let (start, offset) = (usize::from(parsed.transport_at), 16);
        let mut pieces = whole.clone();
        let len = whole.len();
        fill_checksum(&mut [&mut whole[..]], len, start, offset);
        let (first, rest) = pieces.split_at_mut(77);
        let (second, third) = rest.split_at_mut(101);
        fill_checksum(&mut [first, second, third], len, start, offset);
        assert_eq!(whole, pieces);
    }
}
