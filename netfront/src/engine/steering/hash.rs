//! The Toeplitz hash, by which network cards spread connections over queues, and a symmetric form of it.
//!
//! Each bit of the input that is set adds (exclusive or) the 32 bits of the key that begin at its place. The sums of
//! all values of each half byte are made once, so that a packet's hash is one look-up for every four bits.

use super::connection::{Connection, Endpoint};

/// Bytes of input: two IPv6 addresses and two ports.
const INPUT: usize = 36;

/// Bytes of the key: the input, and 32 bits more for its last bit.
pub const KEY: usize = INPUT + 4;

/// The key of Microsoft's verification suite, which most drivers and cards have as their default. Everybody knows it, so whoever
/// can choose his ports can choose his worker: take a random one where that matters.
pub const COMMON_KEY: [u8; KEY] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// A Toeplitz hash with a key.
#[derive(Clone)]
pub struct Toeplitz {
    /// The sum of each value of each half byte of the input.
    sums: Box<[[u32; 16]; INPUT * 2]>,
}

impl std::fmt::Debug for Toeplitz {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Toeplitz")
    }
}

impl Toeplitz {
    /// With this key.
    pub fn new(key: &[u8; KEY]) -> Self {
        let mut sums = Box::new([[0; 16]; INPUT * 2]);
        for (place, sums) in sums.iter_mut().enumerate() {
            for (value, sum) in sums.iter_mut().enumerate() {
                for bit in 0..4 {
                    if value & (8 >> bit) != 0 {
                        *sum ^= window(key, place * 4 + bit);
                    }
                }
            }
        }
        Self { sums }
    }

    /// The hash of bytes; of the first 36, if there are more.
    pub fn bytes(&self, input: &[u8]) -> u32 {
        let mut hash = 0;
        for (byte, sums) in input.iter().zip(self.sums.chunks_exact(2)) {
            hash ^= sums[0][usize::from(byte >> 4)] ^ sums[1][usize::from(byte & 15)];
        }
        hash
    }

    /// The hash of a connection as cards make it: source and destination address, and the ports if it has some.
    pub fn of(&self, connection: &Connection) -> u32 {
        self.of_ends(connection, &connection.source, &connection.destination)
    }

    /// The same hash for both directions of a connection: of its two ends in an order of their own, not of who sent.
    /// The ends keep all their bits, where a key that repeats itself (which is symmetric too) gives a hash
    /// of 16 bits only.
    pub fn symmetric(&self, connection: &Connection) -> u32 {
        let (a, b) = (&connection.source, &connection.destination);
        let (low, high) = if a <= b { (a, b) } else { (b, a) };
        self.of_ends(connection, low, high)
    }

    fn of_ends(&self, connection: &Connection, from: &Endpoint, to: &Endpoint) -> u32 {
        let address = connection.address_len();
        let mut input = [0; INPUT];
        input[..address].copy_from_slice(&from.address[..address]);
        input[address..2 * address].copy_from_slice(&to.address[..address]);
        let mut len = 2 * address;
        if connection.has_ports() {
            input[len..len + 2].copy_from_slice(&from.port.to_be_bytes());
            input[len + 2..len + 4].copy_from_slice(&to.port.to_be_bytes());
            len += 4;
        }
        self.bytes(&input[..len])
    }
}

/// The 32 bits of the key that begin at this bit. The last is that of the input's last bit, whose fifth byte is the
/// key's last.
fn window(key: &[u8; KEY], bit: usize) -> u32 {
    let mut bits = 0u64;
    for &byte in &key[bit / 8..bit / 8 + 5] {
        bits = (bits << 8) | u64::from(byte);
    }
    (bits >> (8 - bit % 8)) as u32
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::super::connection::Kind;
    use super::*;

    fn end(address: &str, port: u16) -> Endpoint {
        let mut end = Endpoint {
            port,
            ..Endpoint::default()
        };
        match address.parse().expect("an address") {
            IpAddr::V4(address) => end.address[..4].copy_from_slice(&address.octets()),
            IpAddr::V6(address) => end.address = address.octets(),
        }
        end
    }

    type Vector = ((&'static str, u16), (&'static str, u16), u32, u32);

    /// The vectors of "Verifying the RSS Hash Calculation" in Microsoft's documentation of Windows drivers: source,
    /// destination, the hash without ports, the hash with TCP's ports.
    const VECTORS: [Vector; 8] = [
        (
            ("66.9.149.187", 2794),
            ("161.142.100.80", 1766),
            0x323e_8fc2,
            0x51cc_c178,
        ),
        (
            ("199.92.111.2", 14230),
            ("65.69.140.83", 4739),
            0xd718_262a,
            0xc626_b0ea,
        ),
        (
            ("24.19.198.95", 12898),
            ("12.22.207.184", 38024),
            0xd2d0_a5de,
            0x5c2b_394a,
        ),
        (
            ("38.27.205.30", 48228),
            ("209.142.163.6", 2217),
            0x8298_9176,
            0xafc7_327f,
        ),
        (
            ("153.39.163.191", 44251),
            ("202.188.127.2", 1303),
            0x5d18_09c5,
            0x10e8_28a2,
        ),
        (
            ("3ffe:2501:200:1fff::7", 2794),
            ("3ffe:2501:200:3::1", 1766),
            0x2cc1_8cd5,
            0x4020_7d3d,
        ),
        (
            ("3ffe:501:8::260:97ff:fe40:efab", 14230),
            ("ff02::1", 4739),
            0x0f0c_461c,
            0xdde5_1bbf,
        ),
        (
            ("3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251),
            ("fe80::200:f8ff:fe21:67cf", 38024),
            0x4b61_e985,
            0x02d1_feef,
        ),
    ];

    /// K-7: the hash is the one that cards and netback know by the same name.
    #[test]
    fn the_hash_is_that_of_microsofts_verification_suite() {
        let hash = Toeplitz::new(&COMMON_KEY);
        for (source, destination, addresses, ports) in VECTORS {
            let (plain, tcp) = match source.0.contains(':') {
                false => (Kind::V4, Kind::TcpV4),
                true => (Kind::V6, Kind::TcpV6),
            };
            let of = |kind| {
                hash.of(&Connection {
                    kind,
                    source: end(source.0, source.1),
                    destination: end(destination.0, destination.1),
                })
            };
            assert_eq!(of(plain), addresses, "{source:?} to {destination:?}");
            assert_eq!(of(tcp), ports, "{source:?} to {destination:?}");
        }
    }

    /// The definition, bit by bit.
    fn by_definition(key: &[u8; KEY], input: &[u8]) -> u32 {
        let bit = |bytes: &[u8], at: usize| u32::from(bytes[at / 8] >> (7 - at % 8) & 1);
        let mut hash = 0;
        for at in 0..input.len() * 8 {
            if bit(input, at) == 1 {
                hash ^= (0..32).fold(0, |word, next| (word << 1) | bit(key, at + next));
            }
        }
        hash
    }

    fn connection() -> impl Strategy<Value = Connection> {
        let end = || (any::<[u8; 16]>(), any::<u16>());
        let kind = prop::sample::select(vec![
            Kind::TcpV4,
            Kind::UdpV4,
            Kind::V4,
            Kind::TcpV6,
            Kind::UdpV6,
            Kind::V6,
        ]);
        (kind, end(), end()).prop_map(|(kind, source, destination)| {
            let end = |(address, port)| Endpoint { address, port };
            let (source, destination) = (end(source), end(destination));
            let mut made = Connection {
                kind,
                source,
                destination,
            };
            if made.address_len() == 4 {
                made.source.address[4..].fill(0);
                made.destination.address[4..].fill(0);
            }
            if !made.has_ports() {
                (made.source.port, made.destination.port) = (0, 0);
            }
            made
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_table_gives_what_the_definition_gives(
            key in prop::collection::vec(any::<u8>(), KEY),
            input in prop::collection::vec(any::<u8>(), 0..=INPUT),
        ) {
            let key: [u8; KEY] = key.try_into().expect("as long as a key");
            prop_assert_eq!(Toeplitz::new(&key).bytes(&input), by_definition(&key, &input));
        }

        /// N-6: both directions of a connection go to one core.
        #[test]
        fn the_symmetric_hash_is_the_same_for_both_directions(connection in connection()) {
            let hash = Toeplitz::new(&COMMON_KEY);
            prop_assert_eq!(hash.symmetric(&connection), hash.symmetric(&connection.reversed()));
            let forth = hash.symmetric(&connection);
            prop_assert!([hash.of(&connection), hash.of(&connection.reversed())].contains(&forth));
        }
    }

    /// A key that repeats itself every 16 bits would give halves that are equal.
    #[test]
    fn the_symmetric_hash_has_all_its_bits() {
        let hash = Toeplitz::new(&COMMON_KEY);
        let mut seen = [0u32; 2];
        for port in 0..1000 {
            let value = hash.symmetric(&Connection {
                kind: Kind::UdpV4,
                source: end("10.0.0.1", port),
                destination: end("10.0.0.2", 53),
            });
            assert_ne!(value >> 16, value & 0xffff);
            seen[0] |= value;
            seen[1] |= !value;
        }
        assert_eq!(
            seen,
            [u32::MAX; 2],
            "each bit is set in some and clear in others"
        );
    }
}
