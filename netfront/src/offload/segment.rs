//! Cutting a large TCP segment in software: for a backend or a consumer that cannot.
//!
//! What a network card does: each piece gets the headers of the whole, with its own length, sequence number and, in IPv4,
//! identification; only the last keeps FIN and PSH, only the first CWR. The checksums are filled in.

use super::headers::{fold, sum, Headers, Transport};
use xen_ring::{Gso, GsoKind};

/// The longest headers that are cut: Ethernet, two VLAN tags, IPv6 with some extension headers, TCP with all options.
pub const HEADERS_MAX: usize = 256;

/// Of TCP's flags: those of the last piece, and that of the first.
const FIN_PSH: u8 = 0x09;
const CWR: u8 = 0x80;

/// Why a packet cannot be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the packet is to be cut into TCP segments, but it is no whole TCP packet of the kind that it is said to be")]
pub struct NotSegments;

/// Cuts a large segment, piece by piece, and keeps nothing but where it is.
#[derive(Debug, Clone)]
pub struct Segments {
    headers: Headers,
    /// Where the payload starts, how far it is cut, and where it ends.
    payload_at: usize,
    at: usize,
    end: usize,
    size: usize,
    /// Pieces so far.
    index: u16,
}

/// The headers of a piece, with its checksums; its payload is where it was.
#[derive(Debug, Clone)]
pub struct Piece {
    headers: [u8; HEADERS_MAX],
    len: usize,
    /// Where its payload is in the whole packet.
    pub payload: std::ops::Range<usize>,
}

impl Piece {
    /// All headers, from Ethernet's on.
    pub fn headers(&self) -> &[u8] {
        &self.headers[..self.len]
    }
}

impl Segments {
    /// Will cut this packet, given in one piece.
    ///
    /// # Errors
    /// [`NotSegments`] if it is not what `gso` says.
    pub fn new(packet: &[u8], gso: Gso) -> Result<Self, NotSegments> {
        let headers = Headers::parse(packet).ok_or(NotSegments)?;
        let payload_at = usize::from(headers.payload_at(packet));
        let is_kind = headers.is_ipv6 == (gso.kind == GsoKind::TcpV6);
        let network = usize::from(headers.network_at);
        // What stands behind the IP packet is padding.
        let half = |at: usize| {
            let bytes = packet.get(at..at + 2)?;
            Some(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
        };
        let told = match headers.is_ipv6 {
            true => half(network + 4).map(|len| network + 40 + len),
            false => half(network + 2).map(|len| network + len),
        };
        // A length of 0 is that of a packet that is too long to tell.
        let untold = match headers.is_ipv6 {
            true => network + 40,
            false => network,
        };
        let end = told
            .filter(|&end| end != untold)
            .unwrap_or(packet.len())
            .min(packet.len());
        let piece = end.saturating_sub(payload_at).min(gso.size.into());
        let sound = headers.transport == Transport::Tcp
            && is_kind
            && gso.size > 0
            && payload_at <= HEADERS_MAX
            && payload_at < end
            && payload_at - network + piece <= usize::from(u16::MAX);
        sound
            .then_some(Self {
                headers,
                payload_at,
                at: payload_at,
                end,
                size: gso.size.into(),
                index: 0,
            })
            .ok_or(NotSegments)
    }

    /// The next piece of the packet, which must be the same. `None` when all of it is cut.
    pub fn next(&mut self, packet: &[u8]) -> Option<Piece> {
        let payload = self.at..self.end.min(self.at + self.size);
        if payload.is_empty() {
            return None;
        }
        let mut piece = Piece {
            headers: [0; HEADERS_MAX],
            len: self.payload_at,
            payload: payload.clone(),
        };
        let bytes = packet.get(payload.clone())?;
        let headers = &mut piece.headers[..self.payload_at];
        headers.copy_from_slice(packet.get(..self.payload_at)?);
        self.network(headers, payload.len());
        self.tcp(headers, &payload, bytes);
        self.at = payload.end;
        self.index = self.index.wrapping_add(1);
        Some(piece)
    }

    /// Length, and in IPv4 identification and checksum.
    fn network(&self, headers: &mut [u8], payload: usize) {
        let at = usize::from(self.headers.network_at);
        let total = headers.len() - at + payload;
        if self.headers.is_ipv6 {
            return write(headers, at + 4, (total - 40) as u16);
        }
        write(headers, at + 2, total as u16);
        let identification = read(headers, at + 4).wrapping_add(self.index);
        write(headers, at + 4, identification);
        write(headers, at + 10, 0);
        let checksum = !fold(sum(
            &headers[at..usize::from(self.headers.transport_at)],
            false,
        ));
        write(headers, at + 10, checksum);
    }

    /// Sequence number, flags and checksum.
    fn tcp(&self, headers: &mut [u8], payload: &std::ops::Range<usize>, bytes: &[u8]) {
        let at = usize::from(self.headers.transport_at);
        let sequence = u32::from_be_bytes([
            headers[at + 4],
            headers[at + 5],
            headers[at + 6],
            headers[at + 7],
        ]);
        let sequence = sequence.wrapping_add((payload.start - self.payload_at) as u32);
        headers[at + 4..at + 8].copy_from_slice(&sequence.to_be_bytes());
        if payload.end < self.end {
            headers[at + 13] &= !FIN_PSH;
        }
        if self.index > 0 {
            headers[at + 13] &= !CWR;
        }
        let len = headers.len() + bytes.len();
        self.headers.write_pseudo_checksum(headers, len);
        let pieces = sum(&headers[at..], false) + sum(bytes, (headers.len() - at) % 2 == 1);
        write(headers, at + 16, !fold(pieces));
    }
}

fn read(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn write(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A whole TCP packet with a payload of this length.
    fn packet(ipv6: bool, payload: usize) -> Vec<u8> {
        let mut packet = vec![2; 12];
        let len = 20 + payload;
        if ipv6 {
            packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            packet.extend((len as u16).to_be_bytes());
            packet.extend([6, 64]);
            packet.extend(0..32);
        } else {
            packet.extend([8, 0, 0x45, 0]);
            packet.extend((len as u16 + 20).to_be_bytes());
            packet.extend([0xff, 0xff, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        // FIN, PSH, ACK and CWR.
        packet.extend([0, 80, 1, 0, 0xff, 0xff, 0xff, 0xf0, 0, 0, 0, 0, 0x50, 0x99]);
        packet.extend([1, 0, 0, 0, 0, 0]);
        packet.extend((0..payload).map(|at| (at * 31) as u8));
        packet
    }

    fn gso(ipv6: bool, size: u16) -> Gso {
        let kind = match ipv6 {
            true => GsoKind::TcpV6,
            false => GsoKind::TcpV4,
        };
        Gso { size, kind }
    }

    fn cut(packet: &[u8], gso: Gso) -> Vec<Vec<u8>> {
        let mut segments = Segments::new(packet, gso).expect("TCP");
        let mut pieces = Vec::new();
        while let Some(piece) = segments.next(packet) {
            pieces.push([piece.headers(), &packet[piece.payload.clone()]].concat());
        }
        pieces
    }

    /// The sum over TCP and its pseudo header.
    fn verify(piece: &[u8], ipv6: bool) -> u16 {
        let (addresses, transport) = if ipv6 { (22..54, 54) } else { (26..34, 34) };
        let len = (piece.len() - transport) as u64;
        fold(sum(&piece[addresses], false) + 6 + len + sum(&piece[transport..], false))
    }

    #[test]
    fn a_length_that_ends_before_the_payload_or_pieces_too_long_for_one_are_refused() {
        for ipv6 in [false, true] {
            let mut whole = packet(ipv6, 3000);
            let at = if ipv6 { 18 } else { 16 };
            write(&mut whole, at, 19);
            assert!(Segments::new(&whole, gso(ipv6, 1448)).is_err());
            // Too long to tell.
            write(&mut whole, at, 0);
            assert_eq!(cut(&whole, gso(ipv6, 1448)).len(), 3);
            whole.resize(70_000, 0);
            assert!(Segments::new(&whole, gso(ipv6, u16::MAX)).is_err());
            assert!(Segments::new(&whole, gso(ipv6, 60_000)).is_ok());
        }
    }

    #[test]
    fn every_piece_is_a_whole_packet_with_right_checksums_and_together_they_are_the_payload() {
        for ipv6 in [false, true] {
            for (payload, size) in [(1, 1), (2, 1), (2896, 1448), (3000, 1448), (4001, 999)] {
                let whole = packet(ipv6, payload);
                let headers = whole.len() - payload;
                let pieces = cut(&whole, gso(ipv6, size));
                assert_eq!(pieces.len(), payload.div_ceil(size.into()));
                let mut together = Vec::<u8>::new();
                for (index, piece) in pieces.iter().enumerate() {
                    assert_eq!(
                        verify(piece, ipv6),
                        0xffff,
                        "{ipv6} {payload} {size} {index}"
                    );
                    let told = if ipv6 {
                        54 + usize::from(read(piece, 18))
                    } else {
                        assert_eq!(fold(sum(&piece[14..34], false)), 0xffff);
                        assert_eq!(read(piece, 18), 0xffff_u16.wrapping_add(index as u16));
                        14 + usize::from(read(piece, 16))
                    };
                    assert_eq!(told, piece.len());
                    let tcp = headers - 20;
                    let sequence = u32::from_be_bytes(*piece[tcp + 4..].first_chunk().expect("4"));
                    let wanted = 0xffff_fff0_u32.wrapping_add(together.len() as u32);
                    assert_eq!(sequence, wanted);
                    let last = index + 1 == pieces.len();
                    assert_eq!(piece[tcp + 13] & FIN_PSH != 0, last);
                    assert_eq!(piece[tcp + 13] & CWR != 0, index == 0);
                    together.extend(&piece[headers..]);
                }
                assert_eq!(together, whole[headers..]);
            }
        }
    }

    #[test]
    fn padding_behind_the_packet_is_not_sent() {
        let mut whole = packet(false, 100);
        whole.extend([0xaa; 30]);
        let pieces = cut(&whole, gso(false, 64));
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [118, 90]);
    }

    #[test]
    fn what_is_no_tcp_packet_of_that_kind_is_not_cut() {
        let whole = packet(false, 100);
        assert!(Segments::new(&whole, gso(true, 64)).is_err());
        assert!(Segments::new(&whole, gso(false, 0)).is_err());
        for len in 0..=54 {
            assert!(
                Segments::new(&whole[..len], gso(false, 64)).is_err(),
                "{len}"
            );
        }
        let mut udp = whole.clone();
        udp[23] = 17;
        assert!(Segments::new(&udp, gso(false, 64)).is_err());
    }
}
