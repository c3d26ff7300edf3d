//! The checksum's three states from a virtio-net header through the rings to a virtio-net header: each direction, IPv4 and
//! IPv6, TCP and UDP, small and large, with a backend that takes blank ones of both families, of one, or of none.

use netfront::offload::{fill_checksum, from_vnet, takes_blank, to_vnet};
use netfront::packet::HEADER_LIMIT;
use netfront::{Checksum, Features, Offload, Queue, QueueConfig};
use netfront_tap::{header, VnetHeader};
use netfront_tests::packets::whole;

use crate::common::{frame, Back, World};

const STATES: [Checksum; 3] = [Checksum::Blank, Checksum::Validated, Checksum::None];
/// Bytes of payload: copied whole, lent in its page, over several pages, an odd number each.
const PAYLOADS: [usize; 4] = [1, 201, 1401, 9001];

/// What a frame is.
#[derive(Debug, Clone, Copy)]
struct Kind {
    ipv6: bool,
    tcp: bool,
    /// Tagged for a VLAN.
    tagged: bool,
}

impl Kind {
    fn all() -> impl Iterator<Item = Kind> {
        (0..8).map(|bits| Kind {
            ipv6: bits & 1 != 0,
            tcp: bits & 2 != 0,
            tagged: bits & 4 != 0,
        })
    }

    fn network(self) -> usize {
        14 + 4 * usize::from(self.tagged)
    }

    fn transport(self) -> usize {
        self.network() + if self.ipv6 { 40 } else { 20 }
    }

    /// Where the checksum is, from the transport header on.
    fn offset(self) -> usize {
        if self.tcp {
            16
        } else {
            6
        }
    }

    fn field(self) -> usize {
        self.transport() + self.offset()
    }

    /// A whole frame whose checksum field is 0.
    fn frame(self, payload: usize) -> Vec<u8> {
        whole(self.ipv6, self.tcp, self.tagged, &frame(payload, payload))
    }

    /// The sum over pseudo header and transport, which is 0xffff for a frame whose checksum is right. The test's own, not
    /// the driver's.
    fn sum(self, frame: &[u8]) -> u16 {
        let at = self.network();
        let addresses = if self.ipv6 {
            at + 8..at + 40
        } else {
            at + 12..at + 20
        };
        let transport = &frame[self.transport()..];
        let protocol = if self.tcp { 6 } else { 17 };
        let mut sum = protocol + transport.len() as u64 + words(&frame[addresses]);
        sum += words(transport);
        fold(sum)
    }

    /// The same frame with the field as the state has it: the pseudo header's sum, or the whole.
    fn with(self, state: Checksum, mut frame: Vec<u8>) -> Vec<u8> {
        let at = self.network();
        let addresses = if self.ipv6 {
            at + 8..at + 40
        } else {
            at + 12..at + 20
        };
        let protocol = if self.tcp { 6 } else { 17 };
        let transport = (frame.len() - self.transport()) as u64;
        let value = match state {
            Checksum::Blank => fold(protocol + transport + words(&frame[addresses])),
            _ => !self.sum(&frame),
        };
        frame[self.field()..self.field() + 2].copy_from_slice(&value.to_be_bytes());
        frame
    }

    /// What a TAP says of a frame in this state.
    fn vnet(self, state: Checksum) -> VnetHeader {
        match state {
            Checksum::None => VnetHeader::default(),
            Checksum::Validated => VnetHeader {
                flags: header::FLAG_DATA_VALID,
                ..VnetHeader::default()
            },
            Checksum::Blank => VnetHeader {
                flags: header::FLAG_NEEDS_CSUM,
                csum_start: self.transport() as u16,
                csum_offset: self.offset() as u16,
                ..VnetHeader::default()
            },
        }
    }
}

fn words(bytes: &[u8]) -> u64 {
    let word =
        |pair: &[u8]| (u64::from(pair[0]) << 8) | pair.get(1).map_or(0, |low| u64::from(*low));
    bytes.chunks(2).map(word).sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

fn features(ipv4: bool, ipv6: bool) -> Features {
    Features {
        csum_offload: ipv4,
        ipv6_csum_offload: ipv6,
        ..Features::default()
    }
}

/// Every kind of frame with every state.
fn table() -> impl Iterator<Item = (Kind, Checksum, Vec<u8>)> {
    Kind::all().flat_map(|kind| {
        STATES.into_iter().flat_map(move |state| {
            PAYLOADS
                .into_iter()
                .map(move |payload| (kind, state, kind.with(state, kind.frame(payload))))
        })
    })
}

/// Sends a frame as the TAP consumer does, and gives what the backend finds.
fn send(
    (queue, back): (&mut Queue, &mut Back),
    features: &Features,
    vnet: &VnetHeader,
    frame: &[u8],
) -> (Vec<u8>, Offload) {
    let mut offload = from_vnet(vnet);
    let mut bytes = frame.to_vec();
    if offload.checksum == Checksum::Blank && !takes_blank(features, vnet, frame) {
        let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
        let len = bytes.len();
        let mut pieces: Vec<&mut [u8]> = bytes.chunks_mut(4001).collect();
        fill_checksum(&mut pieces, len, start, offset);
        offload.checksum = Checksum::None;
    }
    queue.send(&[&bytes], offload).unwrap();
    queue.flush().unwrap();
    let sent = back.fetch().expect("a packet");
    back.publish();
    queue.reclaim().unwrap();
    sent
}

#[test]
fn each_state_of_a_sent_packet_reaches_the_backend_and_a_blank_one_that_it_does_not_take_is_filled_in(
) {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    for (kind, state, given) in table() {
        for (ipv4, ipv6) in [(true, true), (true, false), (false, false)] {
            let what = format!("{kind:?} {state:?} {} bytes, {ipv4} {ipv6}", given.len());
            let ends = (&mut queue, &mut back);
            let vnet = kind.vnet(state);
            let (sent, offload) = send(ends, &features(ipv4, ipv6), &vnet, &given);
            let able = !kind.tagged && if kind.ipv6 { ipv6 } else { ipv4 };
            if state == Checksum::Blank && !able {
                assert_eq!(offload, Offload::default(), "{what}");
                assert_eq!(kind.sum(&sent), 0xffff, "{what}");
                let field = kind.field()..kind.field() + 2;
                assert_eq!(sent[..field.start], given[..field.start], "{what}");
                assert!(sent[field.end..] == given[field.end..], "{what}");
            } else {
                assert_eq!(offload.checksum, state, "{what}");
                assert!(sent == given, "{what}");
            }
        }
    }
}

#[test]
fn each_state_of_a_received_packet_reaches_the_vnet_header_with_the_checksums_place() {
    for untrusted in [false, true] {
        let world = World::new();
        let (mut queue, mut back) = world.pair(&QueueConfig {
            untrusted,
            ..QueueConfig::default()
        });
        for (kind, state, given) in table() {
            let what = format!("{kind:?} {state:?} {} bytes", given.len());
            let offload = Offload {
                checksum: state,
                ..Offload::default()
            };
            let pieces: Vec<&[u8]> = given.chunks(4096).collect();
            back.deliver_pieces(&pieces, &offload);
            let mut received = Vec::new();
            queue
                .receive(64, |packet| {
                    assert!(
                        packet.head().len() >= given.len().min(HEADER_LIMIT),
                        "{what}"
                    );
                    let vnet = to_vnet(&packet.offload(), packet.head()).expect("headers");
                    received.push((vnet, packet.slices().collect::<Vec<_>>().concat()));
                })
                .unwrap();
            queue.flush().unwrap();
            let (vnet, mut bytes) = received.pop().expect("a packet");
            assert_eq!(vnet, kind.vnet(state), "{what}");
            assert!(bytes == given, "{what}");
            // What the kernel does with such a header makes the checksum right.
            if state == Checksum::Blank {
                let (start, offset) = (usize::from(vnet.csum_start), usize::from(vnet.csum_offset));
                let len = bytes.len();
                fill_checksum(&mut [&mut bytes[..]], len, start, offset);
            }
            assert_eq!(kind.sum(&bytes), 0xffff, "{what}");
        }
    }
}

/// netif has no words for where a checksum is: one that is not the outermost TCP's or UDP's would stay blank.
#[test]
fn a_blank_checksum_in_a_tunnel_is_filled_in_although_the_backend_takes_blank_ones() {
    let world = World::new();
    let (mut queue, mut back) = world.pair(&QueueConfig::default());
    let (outer, inner) = (
        Kind {
            ipv6: false,
            tcp: false,
            tagged: false,
        },
        Kind {
            ipv6: true,
            tcp: true,
            tagged: false,
        },
    );
    let carried = inner.with(Checksum::Blank, inner.frame(301));
    let mut whole = outer.frame(carried.len());
    let at = whole.len() - carried.len();
    whole[at..].copy_from_slice(&carried);
    let vnet = VnetHeader {
        csum_start: (at + inner.transport()) as u16,
        ..inner.vnet(Checksum::Blank)
    };
    let ends = (&mut queue, &mut back);
    let (sent, offload) = send(ends, &features(true, true), &vnet, &whole);
    assert_eq!(offload, Offload::default());
    assert_eq!(inner.sum(&sent[at..]), 0xffff);
    assert_eq!(sent[..at], whole[..at]);
}
