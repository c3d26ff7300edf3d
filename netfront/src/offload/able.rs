//! What a backend can be given as it is: the rest is finished by software, since a backend drops it or sends it out broken.

use netfront_tap::VnetHeader;
use xen_ring::GsoKind;

use super::Headers;
use crate::connection::Features;

/// Where the IP header of a frame without a VLAN tag is.
const UNTAGGED: u16 = 14;

/// True if the backend cuts large segments of this kind.
pub fn takes_segments(features: &Features, kind: GsoKind) -> bool {
    match kind {
        GsoKind::TcpV4 => features.gso_tcpv4,
        GsoKind::TcpV6 => features.gso_tcpv6,
    }
}

/// True if the backend fills in the blank checksum that `vnet` tells of, in a packet that begins with `head`.
///
/// It may be able to for IPv4 only. And netif does not say where a blank checksum is: the backend looks for the outermost TCP or UDP
/// header. A checksum anywhere else, of a packet in a tunnel or of another protocol, would stay blank, and the wrong field be filled in.
/// Behind a VLAN tag netback does not look (`skb_checksum_setup` goes by the type of the frame), and drops the packet.
pub fn takes_blank(features: &Features, vnet: &VnetHeader, head: &[u8]) -> bool {
    Headers::parse(head).is_some_and(|headers| {
        let able = match headers.is_ipv6 {
            true => features.ipv6_csum_offload,
            false => features.csum_offload,
        };
        able && headers.network_at == UNTAGGED
            && headers.transport_at == vnet.csum_start
            && headers.transport.checksum_offset() == vnet.csum_offset
    })
}
