//! Received packets: good ones in all shapes, and every way in which a backend can get them wrong.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

mod common;

use common::Pair;
use xen_ring::*;

/// The bytes of a response; `status` is the length.
fn slot(id: u16, offset: u16, flags: RxFlags, status: i16) -> [u8; 8] {
    RxResponse {
        id,
        offset,
        flags,
        status,
    }
    .encode()
}

const NONE: RxFlags = RxFlags::NONE;
const MORE: RxFlags = RxFlags::MORE_DATA;
const EXTRA: RxFlags = RxFlags::EXTRA_INFO;

/// Answers 64 posted pages with these slots, takes one packet, and checks that each slot it took is
/// reported exactly once.
fn receive(slots: &[[u8; 8]]) -> RxPacket {
    let mut pair = Pair::<Rx>::posted(64);
    pair.respond(slots);
    let mut packet = RxPacket::new();
    assert_eq!(receive::next(&mut pair.front, &mut packet), Ok(true));
    let mut reported: Vec<u16> = packet.slots().collect();
    reported.sort_unstable();
    let taken = 64 - u16::try_from(pair.front.in_flight()).unwrap();
    assert_eq!(reported, (0..taken).collect::<Vec<_>>());
    packet
}

/// As `receive`, for a packet that must be dropped with all slots taken.
fn fault(slots: &[[u8; 8]]) -> PacketFault {
    let packet = receive(slots);
    assert_eq!(packet.slots().count(), slots.len());
    packet.fault.unwrap()
}

fn corruption(slots: &[[u8; 8]]) -> CorruptReason {
    let mut pair = Pair::<Rx>::posted(64);
    pair.respond(slots);
    let error = receive::next(&mut pair.front, &mut RxPacket::new()).unwrap_err();
    assert_eq!(error.ring, "rx");
    error.reason
}

#[test]
fn an_empty_ring_has_no_packet() {
    let mut pair = Pair::<Rx>::posted(64);
    assert_eq!(
        receive::next(&mut pair.front, &mut RxPacket::new()),
        Ok(false)
    );
}

#[test]
fn a_packet_in_one_page() {
    let packet = receive(&[slot(0, 64, RxFlags::DATA_VALIDATED, 60)]);
    let fragment = RxFragment {
        slot: 0,
        offset: 64,
        len: 60,
    };
    assert_eq!(packet.fragments.as_slice(), &[fragment]);
    assert!(packet.unused.is_empty());
    assert_eq!((packet.len, packet.fault), (60, None));
    assert_eq!(packet.offload.checksum, Checksum::Validated);
}

#[test]
fn packets_of_1_to_18_slots_with_all_extras_cross_the_ring() {
    let gso = Gso {
        size: 1448,
        kind: GsoKind::TcpV6,
    };
    let hash = Hash {
        kind: HashKind::Ipv6Tcp,
        algorithm: HashAlgorithm::Toeplitz,
        value: 0xdead_beef,
    };
    for count in 1..=18u16 {
        for (gso, hash) in [
            (None, None),
            (Some(gso), None),
            (None, Some(hash)),
            (Some(gso), Some(hash)),
        ] {
            let offload = Offload {
                checksum: Checksum::Blank,
                gso,
                hash,
            };
            let mut pair = Pair::<Rx>::posted(32);
            // The extras take the slots behind the first.
            let extras = u16::try_from(offload.extra_slots()).unwrap();
            let fragments: Vec<RxFragment> = (0..count)
                .map(|index| RxFragment {
                    slot: if index == 0 { 0 } else { index + extras },
                    offset: index,
                    len: 300 + index,
                })
                .collect();
            receive::push(&mut pair.back, &fragments, &offload).unwrap();
            let _ = pair.back.publish();
            let mut packet = RxPacket::new();
            assert_eq!(receive::next(&mut pair.front, &mut packet), Ok(true));
            assert_eq!(packet.fragments.as_slice(), fragments);
            assert_eq!(
                packet.unused.as_slice(),
                (1..=extras).collect::<Vec<_>>().as_slice()
            );
            assert_eq!((packet.offload, packet.fault), (offload, None));
            let sum: u32 = fragments.iter().map(|each| u32::from(each.len)).sum();
            assert_eq!(packet.len, sum);
            assert_eq!(receive::next(&mut pair.front, &mut packet), Ok(false));
        }
    }
}

#[test]
fn a_packet_is_answered_as_a_whole_or_not_at_all() {
    let mut pair = Pair::<Rx>::posted(2);
    let fragment = RxFragment {
        slot: 0,
        offset: 0,
        len: 100,
    };
    let offload = Offload::default();
    let refused = receive::push(&mut pair.back, &[fragment; 3], &offload);
    assert_eq!(refused, Err(Full { ring: "rx" }));
    assert_eq!(pair.back.free_responses(), 2);
    assert_eq!(receive::push(&mut pair.back, &[], &offload), Ok(()));
    assert_eq!(pair.back.free_responses(), 2);
}

#[test]
fn a_hash_of_an_unknown_kind_is_passed_over() {
    for (kind, algorithm) in [(4, 1), (0, 2)] {
        let hash = ExtraInfo::Hash {
            kind,
            algorithm,
            value: 1,
        };
        let packet = receive(&[slot(0, 0, EXTRA, 60), hash.encode(false)]);
        assert_eq!((packet.fault, packet.offload.hash), (None, None));
    }
}

#[test]
fn a_slot_without_bytes_in_a_good_packet_is_unused() {
    let packet = receive(&[
        slot(0, 0, MORE, 60),
        slot(1, 0, MORE, 0),
        slot(2, 0, NONE, 7),
    ]);
    assert_eq!((packet.fragments.len(), packet.fault), (2, None));
    assert_eq!(packet.unused.as_slice(), &[1]);
    assert_eq!(packet.len, 67);
}

#[test]
fn a_whole_page_is_accepted_and_one_byte_more_is_not() {
    assert_eq!(receive(&[slot(0, 0, NONE, 4096)]).fault, None);
    assert_eq!(receive(&[slot(0, 4036, NONE, 60)]).fault, None);
    for (offset, len) in [
        (0, 4097),
        (1, 4096),
        (4037, 60),
        (u16::MAX, 60),
        (0, i16::MAX),
    ] {
        let found = fault(&[slot(0, offset, NONE, len)]);
        assert_eq!(found, PacketFault::BeyondPage, "{offset} {len}");
    }
    let second = [slot(0, 0, MORE, 60), slot(1, 4096, NONE, 1)];
    assert_eq!(fault(&second), PacketFault::BeyondPage);
}

#[test]
fn a_negative_status_drops_the_packet() {
    for status in [-1, -2, i16::MIN] {
        let found = fault(&[slot(0, 0, NONE, status)]);
        assert_eq!(found, PacketFault::NegativeStatus);
    }
    let second = [
        slot(0, 0, MORE, 60),
        slot(1, 0, MORE, -1),
        slot(2, 0, NONE, 60),
    ];
    assert_eq!(fault(&second), PacketFault::NegativeStatus);
}

#[test]
fn a_chain_of_18_slots_is_accepted_and_19_only_after_a_small_first() {
    let chain = |count: u16, first: i16| -> Vec<[u8; 8]> {
        (0..count)
            .map(|id| {
                let flags = NONE.with_if(MORE, id + 1 < count);
                slot(id, 0, flags, if id == 0 { first } else { 1 })
            })
            .collect()
    };
    assert_eq!(receive(&chain(18, 4096)).fault, None);
    assert_eq!(fault(&chain(19, 257)), PacketFault::TooManySlots);
    assert_eq!(receive(&chain(19, 256)).fault, None);
    assert_eq!(fault(&chain(20, 256)), PacketFault::TooManySlots);
    assert_eq!(fault(&chain(64, 256)), PacketFault::TooManySlots);
}

#[test]
fn slots_without_bytes_count_too() {
    let mut slots: Vec<_> = (0..30).map(|id| slot(id, 0, MORE, 0)).collect();
    slots[0] = slot(0, 0, MORE, 60);
    slots.push(slot(30, 0, NONE, 0));
    assert_eq!(fault(&slots), PacketFault::TooManySlots);
}

#[test]
fn a_chain_cut_off_by_the_producer_index_is_dropped_and_not_waited_for() {
    let found = fault(&[slot(0, 0, MORE, 60), slot(1, 0, MORE, 60)]);
    assert_eq!(found, PacketFault::ChainCut);
    assert_eq!(fault(&[slot(0, 0, EXTRA, 60)]), PacketFault::ChainCut);
    let gso = ExtraInfo::Gso {
        size: 1,
        kind: GsoKind::TcpV4,
    };
    let in_extras = [slot(0, 0, EXTRA, 60), gso.encode(true)];
    assert_eq!(fault(&in_extras), PacketFault::ChainCut);
    let behind_extras = [slot(0, 0, EXTRA | MORE, 60), gso.encode(false)];
    assert_eq!(fault(&behind_extras), PacketFault::ChainCut);
}

#[test]
fn segmentation_that_cannot_be_drops_the_packet() {
    for extra in [
        [1, 0, 0, 0, 1, 0, 0, 0],
        [1, 0, 0, 1, 0, 0, 0, 0],
        [1, 0, 0, 1, 3, 0, 0, 0],
    ] {
        assert_eq!(fault(&[slot(0, 0, EXTRA, 60), extra]), PacketFault::BadGso);
    }
}

#[test]
fn an_unknown_extra_drops_the_packet_and_its_chain_is_walked_to_the_end() {
    for kind in [0, 6, 255] {
        let slots = [
            slot(0, 0, EXTRA | MORE, 60),
            [kind, 1, 0, 0, 0, 0, 0, 0],
            [4, 0, 0, 0, 0, 0, 0, 0],
            slot(3, 0, NONE, 60),
        ];
        assert_eq!(fault(&slots), PacketFault::UnknownExtra, "{kind}");
    }
}

#[test]
fn extras_without_a_place_on_the_receive_ring_drop_the_packet() {
    for extra in [
        ExtraInfo::McastAdd([0; 6]),
        ExtraInfo::McastDel([0; 6]),
        ExtraInfo::Xdp { headroom: 256 },
    ] {
        let slots = [slot(0, 0, EXTRA, 60), extra.encode(false)];
        assert_eq!(fault(&slots), PacketFault::UnexpectedExtra);
    }
}

#[test]
fn a_loop_of_extras_ends_with_the_ring() {
    let hash = ExtraInfo::Hash {
        kind: 0,
        algorithm: 1,
        value: 0,
    };
    let mut slots = vec![slot(0, 0, EXTRA, 60)];
    slots.extend([hash.encode(true); 63]);
    assert_eq!(fault(&slots), PacketFault::ExtraLoop);
    // As many as there are types is no loop.
    let mut slots = vec![slot(0, 0, EXTRA, 60)];
    slots.extend([hash.encode(true); 4]);
    slots.push(hash.encode(false));
    assert_eq!(receive(&slots).fault, None);
}

#[test]
fn a_whole_ring_of_extras_comes_back_whole() {
    let mut pair = Pair::<Rx>::posted(256);
    let mut slots = vec![slot(0, 0, EXTRA, 60)];
    slots.extend([[4, 1, 0, 0, 0, 0, 0, 0]; 255]);
    pair.respond(&slots);
    let mut packet = RxPacket::new();
    assert_eq!(receive::next(&mut pair.front, &mut packet), Ok(true));
    assert_eq!(packet.slots().count(), 256);
    assert_eq!(packet.fault, Some(PacketFault::ExtraLoop));
}

#[test]
fn less_than_an_ethernet_header_is_no_packet() {
    assert_eq!(fault(&[slot(0, 0, NONE, 13)]), PacketFault::TooShort);
    assert_eq!(fault(&[slot(0, 0, NONE, 0)]), PacketFault::TooShort);
    assert_eq!(receive(&[slot(0, 0, NONE, 14)]).fault, None);
    let in_two = [slot(0, 0, MORE, 7), slot(1, 0, NONE, 7)];
    assert_eq!(receive(&in_two).fault, None);
}

#[test]
fn an_id_that_was_not_posted_in_its_slot_breaks_the_device() {
    assert_eq!(
        corruption(&[slot(1, 0, NONE, 60)]),
        CorruptReason::ForeignId { slot: 0, id: 1 }
    );
    assert_eq!(
        corruption(&[slot(0, 0, MORE, 60), slot(0, 0, NONE, 60)]),
        CorruptReason::ForeignId { slot: 1, id: 0 }
    );
    assert_eq!(
        corruption(&[slot(u16::MAX, 0, NONE, 60)]).name(),
        "foreign_id"
    );
}

#[test]
fn the_first_fault_of_a_packet_counts() {
    let slots = [
        slot(0, 0, MORE, -1),
        slot(1, 4096, MORE, 60),
        slot(2, 0, MORE, 60),
    ];
    assert_eq!(fault(&slots), PacketFault::NegativeStatus);
}

#[test]
fn a_packet_used_again_forgets_the_one_before() {
    let mut pair = Pair::<Rx>::posted(64);
    let gso = [1, 0, 0, 1, 1, 0, 0, 0];
    pair.respond(&[
        slot(0, 0, EXTRA | RxFlags::CSUM_BLANK, -1),
        gso,
        slot(2, 0, NONE, 60),
    ]);
    let mut packet = RxPacket::new();
    assert_eq!(receive::next(&mut pair.front, &mut packet), Ok(true));
    assert!(packet.fault.is_some() && packet.offload.gso.is_some());
    assert_eq!(receive::next(&mut pair.front, &mut packet), Ok(true));
    assert_eq!(packet.offload, Offload::default());
    assert_eq!((packet.fault, packet.len), (None, 60));
    assert_eq!(packet.slots().collect::<Vec<_>>(), [2]);
}

#[test]
fn every_fault_has_its_own_name_and_index() {
    let mut names: Vec<_> = PacketFault::ALL.iter().map(|fault| fault.name()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), PacketFault::ALL.len());
    for (index, fault) in PacketFault::ALL.iter().enumerate() {
        assert_eq!(fault.index(), index);
    }
}
