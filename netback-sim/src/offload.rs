//! What netif says about a frame, in the words of a TAP's virtio-net header, and back.

use netfront_tap::{header, VnetHeader};
use xen_ring::{Checksum, Gso, GsoKind, Offload};

use crate::packet;

/// The header for a frame from the guest. None when the frame cannot be what the guest says: a
/// checksum to fill in where there is none, a TCP segment that is no TCP.
pub(crate) fn to_tap(frame: &mut [u8], offload: &Offload) -> Option<VnetHeader> {
    let mut result = VnetHeader::default();
    if offload.checksum == Checksum::None && offload.gso.is_none() {
        return Some(result);
    }
    if offload.checksum == Checksum::Validated && offload.gso.is_none() {
        result.flags = header::FLAG_DATA_VALID;
        return Some(result);
    }
    let layers = packet::layers(frame)?;
    result.flags = header::FLAG_NEEDS_CSUM;
    // A frame has at most 65535 bytes, so every place in it fits.
    result.csum_start = layers.transport as u16;
    result.csum_offset = layers.checksum as u16;
    if let Some(Gso { size, kind }) = offload.gso {
        let ipv6 = kind == GsoKind::TcpV6;
        if !layers.tcp || layers.ipv6 != ipv6 {
            return None;
        }
        let words = frame.get(layers.transport + 12)? >> 4;
        let end = layers.transport + usize::from(words) * 4;
        if words < 5 || end > layers.end {
            return None;
        }
        result.gso_type = if ipv6 {
            header::GSO_TCPV6
        } else {
            header::GSO_TCPV4
        };
        result.gso_size = size;
        result.hdr_len = end as u16;
        // Some guests send a segment without saying that its checksum is blank, and then it may be
        // anything (Linux counts these as rx_gso_checksum_fixup).
        if offload.checksum != Checksum::Blank {
            packet::blank_checksum(frame, &layers)?;
        }
    }
    Some(result)
}

/// What to tell the guest about a frame from a TAP. None when netif has no words for it.
pub(crate) fn from_tap(frame: &mut [u8], header: &VnetHeader) -> Option<Offload> {
    let mut offload = Offload::default();
    if header.data_valid() {
        offload.checksum = Checksum::Validated;
    }
    offload.gso = match header.gso_kind() {
        header::GSO_NONE => None,
        _ if header.gso_size == 0 => return None,
        header::GSO_TCPV4 => Some(GsoKind::TcpV4),
        header::GSO_TCPV6 => Some(GsoKind::TcpV6),
        _ => return None,
    }
    .map(|kind| Gso {
        size: header.gso_size,
        kind,
    });
    if header.needs_checksum() {
        let (start, field) = (usize::from(header.csum_start), header.csum_offset);
        // netif does not say where the checksum is: the guest looks for it, and knows TCP and UDP.
        let known = packet::layers(frame)
            .is_some_and(|l| l.transport == start && l.checksum == usize::from(field));
        if known {
            offload.checksum = Checksum::Blank;
        } else if offload.gso.is_none() {
            let end = frame.len();
            packet::fill_checksum_at(frame, start, start + usize::from(field), end)?;
            offload.checksum = Checksum::Validated;
        } else {
            return None;
        }
    } else if offload.gso.is_some() {
        // A segment's checksum is always blank to netif.
        let layers = packet::layers(frame)?;
        packet::blank_checksum(frame, &layers)?;
        offload.checksum = Checksum::Blank;
    }
    Some(offload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// TCP over IPv4 with `payload` bytes.
    fn tcp(payload: usize) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0];
        frame.extend((40 + payload as u16).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([
            0, 80, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0,
        ]);
        frame.extend(vec![7; payload]);
        frame
    }

    #[test]
    fn every_fact_survives_the_way_to_a_tap_and_back() {
        for (ipv6, is_tcp) in [(false, false), (false, true), (true, false), (true, true)] {
            let kind = match ipv6 {
                true => GsoKind::TcpV6,
                false => GsoKind::TcpV4,
            };
            let segments = is_tcp.then_some((Checksum::Blank, Some(Gso { size: 1448, kind })));
            let states = [Checksum::None, Checksum::Validated, Checksum::Blank];
            for (checksum, gso) in states
                .map(|state| (state, None))
                .into_iter()
                .chain(segments)
            {
                let offload = Offload {
                    checksum,
                    gso,
                    hash: None,
                };
                let what = format!("{offload:?}, IPv6 {ipv6}, TCP {is_tcp}");
                let given = netfront_tests::packets::whole(ipv6, is_tcp, false, &[7; 4000]);
                let mut frame = given.clone();
                let header = to_tap(&mut frame, &offload).expect("a header");
                if checksum == Checksum::Blank {
                    let start = if ipv6 { 54 } else { 34 };
                    let field = if is_tcp { 16 } else { 6 };
                    assert_eq!(
                        (header.csum_start, header.csum_offset),
                        (start, field),
                        "{what}"
                    );
                }
                assert_eq!(from_tap(&mut frame, &header), Some(offload), "{what}");
                assert!(frame == given, "{what}: no byte is touched");
            }
        }
    }

    #[test]
    fn a_segment_without_a_blank_checksum_gets_one() {
        let offload = Offload {
            checksum: Checksum::Validated,
            gso: Some(Gso {
                size: 1000,
                kind: GsoKind::TcpV4,
            }),
            hash: None,
        };
        let mut frame = tcp(3000);
        let header = to_tap(&mut frame, &offload).expect("a header");
        assert!(header.needs_checksum());
        assert_eq!(
            (header.csum_start, header.csum_offset, header.hdr_len),
            (34, 16, 54)
        );
        assert_ne!(frame[50..52], [0, 0]);
    }

    #[test]
    fn segments_that_cannot_be_are_refused() {
        let wrong = |kind, frame: &mut Vec<u8>| {
            let offload = Offload {
                checksum: Checksum::Blank,
                gso: Some(Gso { size: 1000, kind }),
                hash: None,
            };
            to_tap(frame, &offload)
        };
        assert_eq!(wrong(GsoKind::TcpV6, &mut tcp(3000)), None);
        let mut udp = tcp(3000);
        udp[23] = 17;
        assert_eq!(wrong(GsoKind::TcpV4, &mut udp), None);
        let zero = VnetHeader {
            gso_type: header::GSO_TCPV4,
            ..VnetHeader::default()
        };
        assert_eq!(from_tap(&mut tcp(10), &zero), None);
    }

    #[test]
    fn a_checksum_at_an_unknown_place_is_filled_in() {
        let mut frame = tcp(100);
        frame[23] = 132; // SCTP
        let header = VnetHeader {
            flags: header::FLAG_NEEDS_CSUM,
            csum_start: 34,
            csum_offset: 8,
            ..VnetHeader::default()
        };
        let offload = from_tap(&mut frame, &header).expect("an offload");
        assert_eq!(offload.checksum, Checksum::Validated);
    }
}
