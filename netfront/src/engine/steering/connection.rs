//! Which connection a packet belongs to, by its copied headers.

use crate::offload::{Headers, Transport};

const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// One end of a connection. An IPv4 address is in the first four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Endpoint {
    /// The address, in the order of the wire.
    pub address: [u8; 16],
    /// The port; 0 if the packet shows none.
    pub port: u16,
}

/// What a connection is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// TCP over IPv4.
    TcpV4,
    /// UDP over IPv4.
    UdpV4,
    /// IPv4 without ports: another protocol, or a fragment.
    V4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP over IPv6.
    UdpV6,
    /// IPv6 without ports: another protocol, or a fragment.
    V6,
}

/// The identifier of a connection: its two ends and what runs between them.
///
/// All fragments of a datagram have the same one, without ports: only the first has them, and order would be lost
/// if it went another way. So a sender that sends some datagrams whole and some in fragments has two connections here,
/// each in order; UDP promises no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Connection {
    /// Protocols.
    pub kind: Kind,
    /// Who sent the packet.
    pub source: Endpoint,
    /// For whom it is.
    pub destination: Endpoint,
}

impl Connection {
    /// The connection of a packet whose first bytes are `head`. `None` if it is no whole IP header.
    pub fn of(head: &[u8]) -> Option<Self> {
        let headers = Headers::parse(head);
        let (is_ipv6, at) = match headers {
            Some(found) => (found.is_ipv6, usize::from(found.network_at)),
            None => network(head)?,
        };
        let (from, len) = if is_ipv6 { (at + 8, 16) } else { (at + 12, 4) };
        let mut connection = Self {
            kind: match (is_ipv6, headers.map(|found| found.transport)) {
                (false, Some(Transport::Tcp)) => Kind::TcpV4,
                (false, Some(Transport::Udp)) => Kind::UdpV4,
                (false, None) => Kind::V4,
                (true, Some(Transport::Tcp)) => Kind::TcpV6,
                (true, Some(Transport::Udp)) => Kind::UdpV6,
                (true, None) => Kind::V6,
            },
            source: Endpoint::default(),
            destination: Endpoint::default(),
        };
        connection.source.address[..len].copy_from_slice(head.get(from..from + len)?);
        connection.destination.address[..len]
            .copy_from_slice(head.get(from + len..from + 2 * len)?);
        if let Some(found) = headers {
            let ports = usize::from(found.transport_at);
            connection.source.port = half(head, ports)?;
            connection.destination.port = half(head, ports + 2)?;
        }
        Some(connection)
    }

    /// The same connection as its other end sees it.
    pub fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            ..self
        }
    }

    /// Bytes of each address.
    pub fn address_len(&self) -> usize {
        match self.kind {
            Kind::TcpV4 | Kind::UdpV4 | Kind::V4 => 4,
            Kind::TcpV6 | Kind::UdpV6 | Kind::V6 => 16,
        }
    }

    /// True if the ends are told apart by ports too.
    pub fn has_ports(&self) -> bool {
        !matches!(self.kind, Kind::V4 | Kind::V6)
    }
}

/// Where the IP header is: with IPv6 or not.
fn network(head: &[u8]) -> Option<(bool, usize)> {
    let mut at = 12;
    let mut ethertype = half(head, at)?;
    // As many tags as `Headers::parse` looks behind.
    for _ in 0..2 {
        if VLAN_TAGS.contains(&ethertype) {
            at += 4;
            ethertype = half(head, at)?;
        }
    }
    match ethertype {
        IPV4 => Some((false, at + 2)),
        IPV6 => Some((true, at + 2)),
        _ => None,
    }
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(fragment: u16) -> Vec<u8> {
        let mut head = vec![0; 60];
        head[12..14].copy_from_slice(&IPV4.to_be_bytes());
        head[14] = 0x45;
        head[20..22].copy_from_slice(&fragment.to_be_bytes());
        head[23] = 17;
        head[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        head[34..38].copy_from_slice(&[0x12, 0x34, 0, 53]);
        head
    }

    /// K-7: a packet tells by its headers which connection it belongs to.
    #[test]
    fn a_datagram_has_its_addresses_and_ports() {
        let found = Connection::of(&udp(0)).expect("UDP");
        assert_eq!(found.kind, Kind::UdpV4);
        assert_eq!(found.source.address[..4], [10, 0, 0, 1]);
        assert_eq!(found.destination.address[..4], [10, 0, 0, 2]);
        assert_eq!((found.source.port, found.destination.port), (0x1234, 53));
        assert_eq!(found.reversed().reversed(), found);
    }

    #[test]
    fn all_fragments_of_a_datagram_are_one_connection() {
        let [first, middle, last] = [0x2000, 0x2010, 0x0020].map(|f| Connection::of(&udp(f)));
        assert_eq!(first.expect("IPv4").kind, Kind::V4);
        assert_eq!(first, middle);
        assert_eq!(first, last);
    }

    #[test]
    fn a_tag_changes_nothing_and_what_is_no_ip_has_no_connection() {
        let plain = udp(0);
        let mut tagged = plain[..12].to_vec();
        tagged.extend([0x81, 0, 0, 7]);
        tagged.extend(&plain[12..]);
        assert_eq!(Connection::of(&tagged), Connection::of(&plain));
        let mut arp = plain.clone();
        arp[12..14].copy_from_slice(&[8, 6]);
        assert_eq!(Connection::of(&arp), None);
        for len in 0..34 {
            assert_eq!(Connection::of(&plain[..len]), None, "{len} bytes");
        }
    }
}
