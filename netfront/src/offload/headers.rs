//! Finding the TCP or UDP header of a frame: Ethernet, VLAN tags, IPv4, IPv6 with its extension headers.

const VLAN_TAGS: [u16; 2] = [0x8100, 0x88a8];
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The transport protocols whose checksum can be offloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Transport {
    /// Where the checksum is, from the start of the transport header.
    pub fn checksum_offset(self) -> u16 {
        match self {
            Self::Tcp => 16,
            Self::Udp => 6,
        }
    }

    fn number(self) -> u8 {
        match self {
            Self::Tcp => TCP,
            Self::Udp => UDP,
        }
    }
}

/// Where the headers of a frame are. Offsets are bytes from the start of the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    /// True for IPv6, false for IPv4.
    pub is_ipv6: bool,
    /// Start of the IP header.
    pub network_at: u16,
    /// TCP or UDP.
    pub transport: Transport,
    /// Start of the TCP or UDP header.
    pub transport_at: u16,
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

impl Headers {
    /// Finds the transport header, which must be whole within `head`. `None` for anything that is no TCP or
    /// UDP over IP, for a fragment, or for headers that are cut off.
    pub fn parse(head: &[u8]) -> Option<Self> {
        let mut at = 12;
        let mut ethertype = half(head, at)?;
        at += 2;
        // Two tags are what a provider bridge adds; more is nobody's.
        for _ in 0..2 {
            if VLAN_TAGS.contains(&ethertype) {
                ethertype = half(head, at + 2)?;
                at += 4;
            }
        }
        let network_at = at;
        let (protocol, transport_at) = match ethertype {
            IPV4 => parse_ipv4(head, at)?,
            IPV6 => parse_ipv6(head, at)?,
            _ => return None,
        };
        let transport = match protocol {
            TCP => Transport::Tcp,
            UDP => Transport::Udp,
            _ => return None,
        };
        let end = transport_at + usize::from(transport.checksum_offset()) + 2;
        if head.len() < end {
            return None;
        }
        Some(Self {
            is_ipv6: ethertype == IPV6,
            network_at: u16::try_from(network_at).ok()?,
            transport,
            transport_at: u16::try_from(transport_at).ok()?,
        })
    }

    /// Where the payload starts: the length of all headers.
    pub fn payload_at(&self, head: &[u8]) -> u16 {
        let len = match self.transport {
            Transport::Udp => 8,
            // The data offset of TCP, in words of 4 bytes; less than 5 is nonsense and read as 5.
            Transport::Tcp => {
                let words = head
                    .get(usize::from(self.transport_at) + 12)
                    .map_or(5, |b| b >> 4);
                u16::from(words.max(5)) * 4
            }
        };
        self.transport_at.saturating_add(len)
    }

    /// Writes the pseudo header's sum into the checksum field, as a blank checksum must have it.
    ///
    /// `head` are the frame's first bytes, `len` the length of the whole frame.
    pub fn write_pseudo_checksum(&self, head: &mut [u8], len: usize) {
        let addresses = if self.is_ipv6 { 8..40 } else { 12..20 };
        let at = usize::from(self.network_at);
        let Some(addresses) = head.get(at + addresses.start..at + addresses.end) else {
            return;
        };
        let payload = len.saturating_sub(usize::from(self.transport_at)) as u64;
        let total = sum(addresses, false) + u64::from(self.transport.number()) + payload;
        let field = usize::from(self.transport_at) + usize::from(self.transport.checksum_offset());
        if let Some(field) = head.get_mut(field..field + 2) {
            field.copy_from_slice(&fold(total).to_be_bytes());
        }
    }
}

fn parse_ipv4(head: &[u8], at: usize) -> Option<(u8, usize)> {
    let words = head.get(at)? & 0x0f;
    let fragment = half(head, at + 6)? & 0x3fff;
    if words < 5 || fragment != 0 {
        return None;
    }
    Some((*head.get(at + 9)?, at + usize::from(words) * 4))
}

fn parse_ipv6(head: &[u8], at: usize) -> Option<(u8, usize)> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const DESTINATION: u8 = 60;
    let mut next = *head.get(at + 6)?;
    let mut at = at + 40;
    // A chain of extension headers ends with the head that was copied, at the latest.
    while [HOP_BY_HOP, ROUTING, DESTINATION].contains(&next) {
        next = *head.get(at)?;
        at += (usize::from(*head.get(at + 1)?) + 1) * 8;
    }
    Some((next, at))
}

/// The ones' complement sum of RFC 1071, unfolded. `odd`: the first byte is the second of its pair.
pub(crate) fn sum(bytes: &[u8], odd: bool) -> u64 {
    let (lead, rest) = bytes.split_at(usize::from(odd && !bytes.is_empty()));
    let mut total: u64 = lead.iter().map(|&byte| u64::from(byte)).sum();
    let mut pairs = rest.chunks_exact(2);
    total += pairs
        .by_ref()
        .map(|p| u64::from(u16::from_be_bytes([p[0], p[1]])))
        .sum::<u64>();
    total
        + pairs
            .remainder()
            .iter()
            .map(|&byte| u64::from(byte) << 8)
            .sum::<u64>()
}

/// Folds a sum to 16 bits.
pub(crate) fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A TCP/IPv4 frame of `len` bytes.
    pub fn tcp_v4(len: usize) -> Vec<u8> {
        let mut frame: Vec<u8> = (0..len).map(|i| (i * 7) as u8).collect();
        frame[12..14].copy_from_slice(&IPV4.to_be_bytes());
        frame[14] = 0x45;
        frame[20..22].copy_from_slice(&[0, 0]);
        frame[23] = TCP;
        frame[46] = 5 << 4;
        frame
    }

    #[test]
    fn a_tcp_header_is_found_behind_ipv4_and_two_vlan_tags() {
        let plain = tcp_v4(100);
        let parsed = Headers::parse(&plain).expect("TCP");
        assert_eq!((parsed.network_at, parsed.transport_at), (14, 34));
        assert_eq!(parsed.payload_at(&plain), 54);
        let mut tagged = plain[..12].to_vec();
        tagged.extend([0x88, 0xa8, 0, 1, 0x81, 0, 0, 2]);
        tagged.extend(&plain[12..]);
        assert_eq!(Headers::parse(&tagged).expect("TCP").transport_at, 42);
    }

    #[test]
    fn a_udp_header_is_found_behind_ipv6_extension_headers() {
        let mut frame = vec![0u8; 120];
        frame[12..14].copy_from_slice(&IPV6.to_be_bytes());
        frame[20] = 0;
        frame[54] = 60;
        frame[55] = 1;
        frame[70] = UDP;
        let parsed = Headers::parse(&frame).expect("UDP");
        assert_eq!((parsed.is_ipv6, parsed.transport_at), (true, 78));
    }

    #[test]
    fn fragments_and_cut_off_headers_have_no_transport_header() {
        let mut fragment = tcp_v4(100);
        fragment[21] = 1;
        assert_eq!(Headers::parse(&fragment), None);
        let whole = tcp_v4(100);
        for len in 0..52 {
            assert_eq!(Headers::parse(&whole[..len]), None, "{len} bytes");
        }
    }
}
