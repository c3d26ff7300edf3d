//! Telling the neighbours where an address is now: after a migration or a reconnect the switches know another way to it.
//!
//! For IPv4 a gratuitous ARP request (RFC 5227, section 3: an announcement), for IPv6 an unsolicited neighbour advertisement
//! (RFC 4861, section 7.2.6). Both go to everybody, once, as the kernel's netfront has them sent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use arrayvec::ArrayVec;

use crate::offload::{fold, sum};
use crate::queue::Queue;
use crate::{Offload, SendError};

/// The longer of the two: Ethernet, IPv6, the advertisement and one option.
const LONGEST: usize = 14 + 40 + 24 + 8;
/// A frame on a wire has at least so many bytes before its check sequence.
const SHORTEST: usize = 60;

/// A frame that announces an address.
pub type Announcement = ArrayVec<u8, LONGEST>;

/// The frame that says that `mac` has this address. `None` for one that nobody can have: unspecified, loopback, multicast.
pub fn frame(mac: [u8; 6], address: IpAddr) -> Option<Announcement> {
    if address.is_unspecified() || address.is_loopback() || address.is_multicast() {
        return None;
    }
    Some(match address {
        IpAddr::V4(address) => request(mac, address),
        IpAddr::V6(address) => advertisement(mac, address),
    })
}

fn put(frame: &mut Announcement, parts: &[&[u8]]) {
    frame.extend(parts.iter().copied().flatten().copied().take(LONGEST));
}

/// The sender's and the target's address are the same.
fn request(mac: [u8; 6], address: Ipv4Addr) -> Announcement {
    /// Ethernet, IPv4, their lengths, a request.
    const ARP: [u8; 10] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1];
    let mut frame = Announcement::new();
    let own = address.octets();
    put(
        &mut frame,
        &[&[0xff; 6], &mac, &ARP, &mac, &own, &[0; 6], &own],
    );
    while frame.len() < SHORTEST {
        frame.push(0);
    }
    frame
}

fn advertisement(mac: [u8; 6], address: Ipv6Addr) -> Announcement {
    /// All nodes of the link, and how its packets are addressed on Ethernet.
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
    const PAYLOAD: u8 = 24 + 8;
    const ICMPV6: u8 = 58;
    /// Nobody accepts one that may have crossed a router.
    const HOPS: u8 = 255;
    /// Of ICMPv6: neighbour advertisement, with the flag that an older address is to be overridden.
    const ADVERTISEMENT: u8 = 136;
    const OVERRIDE: u8 = 0x20;
    /// The option with the target's own Ethernet address, of one unit of 8 bytes.
    const TARGET_MAC: [u8; 2] = [2, 1];
    let (own, all) = (address.octets(), ALL_NODES.octets());
    let mut frame = Announcement::new();
    put(
        &mut frame,
        &[
            &ALL_NODES_MAC,
            &mac,
            &[0x86, 0xdd],
            &[0x60, 0, 0, 0, 0, PAYLOAD, ICMPV6, HOPS],
            &own,
            &all,
            &[ADVERTISEMENT, 0, 0, 0, OVERRIDE, 0, 0, 0],
            &own,
            &TARGET_MAC,
            &mac,
        ],
    );
    let pseudo = u64::from(PAYLOAD) + u64::from(ICMPV6) + sum(&own, false) + sum(&all, false);
    let checksum = !fold(pseudo + sum(&frame[54..], false));
    frame[56..58].copy_from_slice(&checksum.to_be_bytes());
    frame
}

/// Sends the announcements of all addresses, as far as the ring has room. Returns how many; [`Queue::flush`] shows them to
/// the backend.
///
/// # Errors
/// [`SendError::Full`] if the ring has no room even for the first.
pub fn send(queue: &mut Queue, mac: [u8; 6], addresses: &[IpAddr]) -> Result<usize, SendError> {
    let mut sent = 0;
    for frame in addresses.iter().filter_map(|address| frame(mac, *address)) {
        match queue.send(&[&frame], Offload::default()) {
            Ok(()) => sent += 1,
            Err(SendError::Full) if sent > 0 => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0, 0x16, 0x3e, 1, 2, 3];

    #[test]
    fn a_gratuitous_arp_request_asks_everybody_for_its_own_address() {
        let frame = frame(MAC, "10.0.0.7".parse().expect("an address")).expect("a frame");
        assert_eq!(frame.len(), 60);
        assert_eq!(frame[..6], [0xff; 6]);
        assert_eq!(frame[6..12], MAC);
        assert_eq!(frame[12..22], [8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[22..28], MAC);
        assert_eq!(frame[28..32], [10, 0, 0, 7]);
        assert_eq!(frame[38..42], [10, 0, 0, 7]);
    }

    #[test]
    fn an_unsolicited_advertisement_goes_to_all_nodes_with_a_sum_that_is_right() {
        let address: Ipv6Addr = "fe80::216:3eff:fe01:203".parse().expect("an address");
        let frame = frame(MAC, address.into()).expect("a frame");
        assert_eq!(frame.len(), LONGEST);
        assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
        assert_eq!((frame[20], frame[21], frame[54]), (58, 255, 136));
        assert_eq!(frame[62..78], address.octets());
        assert_eq!(frame[80..86], MAC);
        let pseudo = 32 + 58 + sum(&frame[22..54], false);
        assert_eq!(fold(pseudo + sum(&frame[54..], false)), 0xffff);
    }

    #[test]
    fn what_nobody_can_have_is_not_announced() {
        for address in ["0.0.0.0", "127.0.0.1", "224.0.0.1", "::", "::1", "ff02::1"] {
            assert_eq!(frame(MAC, address.parse().expect("an address")), None);
        }
    }
}
