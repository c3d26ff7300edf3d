//! Whole TCP and UDP packets of both families, for tests of checksums.

/// A frame that carries `payload`, with a VLAN tag if it is `tagged`. Its transport checksum is 0, its addresses and ports are always
/// the same: port 12345 to 80.
///
/// # Panics
/// If the payload is too long for a packet.
pub fn whole(ipv6: bool, tcp: bool, tagged: bool, payload: &[u8]) -> Vec<u8> {
    let (protocol, header) = if tcp { (6, 20) } else { (17, 8) };
    let len = u16::try_from(header + payload.len()).expect("a payload that a packet can carry");
    let mut frame = vec![2; 12];
    if tagged {
        frame.extend([0x81, 0, 0, 5]);
    }
    if ipv6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([protocol, 64]);
        frame.extend(1..33);
    } else {
        frame.extend([8, 0, 0x45, 0]);
        frame.extend((len + 20).to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    }
    frame.extend([0x30, 0x39, 0, 80]);
    if tcp {
        frame.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 1, 0, 0, 0, 0, 0]);
    } else {
        frame.extend(len.to_be_bytes());
        frame.extend([0, 0]);
    }
    frame.extend(payload);
    frame
}
