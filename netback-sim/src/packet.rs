//! Headers, as far as a backend must know them: where a checksum stands, and to which flow a frame
//! belongs. Every length is checked; a frame that makes no sense has no layers.

/// Where the transport header of a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Layers {
    /// Start of the IP header.
    pub(crate) network: usize,
    /// Start of the TCP or UDP header.
    pub(crate) transport: usize,
    /// End of the IP packet; a frame can have padding behind it.
    pub(crate) end: usize,
    /// Where in the TCP or UDP header the checksum is.
    pub(crate) checksum: usize,
    pub(crate) tcp: bool,
    pub(crate) ipv6: bool,
}

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;
const TCP: u8 = 6;
const UDP: u8 = 17;

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    let pair = bytes.get(at..at + 2)?;
    Some(u16::from_be_bytes([pair[0], pair[1]]))
}

/// The type of what the frame carries, and where that begins; VLAN tags are passed over.
fn network_layer(frame: &[u8]) -> Option<(u16, usize)> {
    let mut at = 12;
    // Two tags are what 802.1ad allows.
    for _ in 0..3 {
        match half(frame, at)? {
            VLAN | SERVICE_VLAN => at += 4,
            kind => return Some((kind, at + 2)),
        }
    }
    None
}

/// The frame carries IPv6.
pub(crate) fn is_ipv6(frame: &[u8]) -> bool {
    matches!(network_layer(frame), Some((IPV6, _)))
}

/// Finds the TCP or UDP header. None for anything else, and for fragments of IP packets.
pub(crate) fn layers(frame: &[u8]) -> Option<Layers> {
    let (kind, network) = network_layer(frame)?;
    let (protocol, transport, end) = match kind {
        IPV4 => ipv4(frame, network)?,
        IPV6 => ipv6(frame, network)?,
        _ => return None,
    };
    let (tcp, checksum, least) = match protocol {
        TCP => (true, 16, 20),
        UDP => (false, 6, 8),
        _ => return None,
    };
    let whole = end <= frame.len() && transport + least <= end;
    whole.then_some(Layers {
        network,
        transport,
        end,
        checksum,
        tcp,
        ipv6: kind == IPV6,
    })
}

fn ipv4(frame: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let header = frame.get(at..at + 20)?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let fragment = half(header, 6)? & 0x3fff;
    if header[0] >> 4 != 4 || length < 20 || fragment != 0 {
        return None;
    }
    let total = usize::from(half(header, 2)?);
    Some((header[9], at + length, at + total))
}

fn ipv6(frame: &[u8], at: usize) -> Option<(u8, usize, usize)> {
    let header = frame.get(at..at + 40)?;
    if header[0] >> 4 != 6 {
        return None;
    }
    let end = at + 40 + usize::from(half(header, 4)?);
    let (mut next, mut place) = (header[6], at + 40);
    // Hop-by-hop, routing and destination options; more of them than this is no honest packet.
    for _ in 0..8 {
        if !matches!(next, 0 | 43 | 60) {
            break;
        }
        let option = frame.get(place..place + 2)?;
        next = option[0];
        place += (usize::from(option[1]) + 1) * 8;
    }
    Some((next, place, end))
}

/// Adds 16-bit words to a one's complement sum; an odd last byte counts as the high half.
fn add_words(mut sum: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(2);
    for word in &mut words {
        sum += u64::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u64::from(*last) << 8;
    }
    sum
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// Completes a checksum field that holds the sum of the pseudo header. None when the frame is
/// neither TCP nor UDP.
pub(crate) fn fill_checksum(frame: &mut [u8]) -> Option<()> {
    let layers = layers(frame)?;
    let field = layers.transport + layers.checksum;
    fill_checksum_at(frame, layers.transport, field, layers.end)?;
    // A UDP checksum of 0 means that there is none (RFC 768); its other form is all ones.
    if !layers.tcp && half(frame, field)? == 0 {
        frame.get_mut(field..field + 2)?.fill(0xff);
    }
    Some(())
}

/// The same where the place is known: sums from `start` to `end` and writes the result to `field`.
pub(crate) fn fill_checksum_at(
    frame: &mut [u8],
    start: usize,
    field: usize,
    end: usize,
) -> Option<()> {
    let sum = !fold(add_words(0, frame.get(start..end)?));
    if field < start || field + 2 > end {
        return None;
    }
    frame
        .get_mut(field..field + 2)?
        .copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// Writes the sum of the pseudo header into the checksum field, as whoever cuts a large segment
/// wants it. (RFC 9293, RFC 8200 section 8.1; of a length only TCP's is needed.)
pub(crate) fn blank_checksum(frame: &mut [u8], layers: &Layers) -> Option<()> {
    let addresses = match layers.ipv6 {
        true => frame.get(layers.network + 8..layers.network + 40)?,
        false => frame.get(layers.network + 12..layers.network + 20)?,
    };
    let protocol = if layers.tcp { TCP } else { UDP };
    let length = (layers.end - layers.transport) as u64;
    let sum = fold(add_words(u64::from(protocol) + length, addresses));
    let field = layers.transport + layers.checksum;
    frame
        .get_mut(field..field + 2)?
        .copy_from_slice(&sum.to_be_bytes());
    Some(())
}

/// What a hash is taken over: source and destination address, and the ports.
pub(crate) struct HashInput {
    bytes: [u8; 36],
    addresses: usize,
    pub(crate) ipv6: bool,
    /// There are ports, of TCP.
    pub(crate) tcp: bool,
}

impl HashInput {
    /// The two addresses.
    pub(crate) fn addresses(&self) -> &[u8] {
        &self.bytes[..self.addresses]
    }

    /// And the two ports.
    pub(crate) fn all(&self) -> &[u8] {
        &self.bytes[..self.addresses + 4]
    }
}

/// The input of a frame's hash. None if it is not IP.
pub(crate) fn hash_input(frame: &[u8]) -> Option<HashInput> {
    let (kind, network) = network_layer(frame)?;
    let (from, addresses) = match kind {
        IPV4 => (12, 8),
        IPV6 => (8, 32),
        _ => return None,
    };
    let mut input = HashInput {
        bytes: [0; 36],
        addresses,
        ipv6: kind == IPV6,
        tcp: false,
    };
    let start = network + from;
    input.bytes[..addresses].copy_from_slice(frame.get(start..start + addresses)?);
    if let Some(layers) = layers(frame).filter(|layers| layers.tcp) {
        let ports = frame.get(layers.transport..layers.transport + 4)?;
        input.bytes[addresses..addresses + 4].copy_from_slice(ports);
        input.tcp = true;
    }
    Some(input)
}

/// The same number for all frames of a flow: addresses, and ports where there are any.
pub(crate) fn flow_hash(frame: &[u8]) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    let mut mix = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    match layers(frame) {
        Some(l) => {
            let (from, to) = if l.ipv6 { (8, 40) } else { (12, 20) };
            mix(&frame[l.network + from..l.network + to]);
            mix(&frame[l.transport..l.transport + 4]);
        }
        // Fragments of one packet, and what is not IP at all, go by their MAC addresses.
        None => mix(frame.get(..12).unwrap_or(frame)),
    }
    // The low bits choose the queue; the last bytes alone would decide them.
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An Ethernet frame with an IPv4 or IPv6 header and the given transport part.
    fn frame(ipv6: bool, vlan: bool, protocol: u8, transport: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        if vlan {
            frame.extend([0x81, 0x00, 0x00, 0x05]);
        }
        let len = transport.len() as u16;
        if ipv6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(len.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
            frame.extend([0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        } else {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.extend((len + 20).to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
        }
        frame.extend(transport);
        frame
    }

    fn verify(frame: &[u8]) -> u16 {
        let l = layers(frame).unwrap();
        let addresses = if l.ipv6 {
            &frame[l.network + 8..l.network + 40]
        } else {
            &frame[l.network + 12..l.network + 20]
        };
        let protocol = if l.tcp { 6 } else { 17 };
        let pseudo = add_words(protocol + (l.end - l.transport) as u64, addresses);
        fold(add_words(pseudo, &frame[l.transport..l.end]))
    }

    #[test]
    fn a_blank_checksum_is_completed_for_each_protocol() {
        for (ipv6, vlan, protocol) in [
            (false, false, 6),
            (false, true, 17),
            (true, false, 17),
            (true, true, 6),
        ] {
            let transport: Vec<u8> = (0..41).collect();
            let mut frame = frame(ipv6, vlan, protocol, &transport);
            let found = layers(&frame).expect("layers");
            blank_checksum(&mut frame, &found).unwrap();
            frame.extend([0xaa; 5]); // padding is not part of the sum
            fill_checksum(&mut frame).unwrap();
            assert_eq!(verify(&frame), 0xffff, "{ipv6} {vlan} {protocol}");
        }
    }

    #[test]
    fn cut_off_frames_have_no_layers_and_never_panic() {
        let transport: Vec<u8> = (0..40).collect();
        for ipv6 in [false, true] {
            let whole = frame(ipv6, true, 6, &transport);
            for len in 0..whole.len() {
                let mut cut = whole[..len].to_vec();
                assert_eq!(layers(&cut), None, "{len}");
                assert!(fill_checksum(&mut cut).is_none());
                flow_hash(&cut);
            }
        }
    }

    #[test]
    fn fragments_have_no_transport_layer() {
        let mut frame = frame(false, false, 17, &[0; 40]);
        frame[20] = 0x20; // more fragments
        assert_eq!(layers(&frame), None);
    }

    #[test]
    fn flows_with_different_ports_are_told_apart_and_directions_stay_stable() {
        let a = frame(false, false, 17, &[1, 2, 3, 4, 0, 20, 0, 0, 9, 9]);
        let b = frame(false, false, 17, &[1, 3, 3, 4, 0, 20, 0, 0, 9, 9]);
        assert_ne!(flow_hash(&a), flow_hash(&b));
        assert_eq!(flow_hash(&a), flow_hash(&a.clone()));
    }
}
