//! Transmitted packets: good ones in all shapes, and every way in which a frontend can get them
//! wrong.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

mod common;

use common::Pair;
use xen_ring::*;

const NONE: TxFlags = TxFlags::NONE;
const MORE: TxFlags = TxFlags::MORE_DATA;
const EXTRA: TxFlags = TxFlags::EXTRA_INFO;

fn slot(id: u16, offset: u16, flags: TxFlags, size: u16) -> [u8; 12] {
    TxRequest {
        gref: u32::from(id) + 100,
        offset,
        flags,
        id,
        size,
    }
    .encode()
}

fn extra(bytes: [u8; 8]) -> [u8; 12] {
    let mut raw = [0; 12];
    raw[..8].copy_from_slice(&bytes);
    raw
}

fn fragment(id: u16, offset: u16, len: u16) -> TxFragment {
    TxFragment {
        id,
        gref: u32::from(id) + 100,
        offset,
        len,
    }
}

/// Takes one packet of these slots, answers it, and checks that each slot got one response.
fn take(slots: &[[u8; 12]], status: Status) -> (TxPacket, Vec<TxResponse>) {
    let mut pair = Pair::<Tx>::requested(slots);
    let mut packet = TxPacket::new();
    assert_eq!(transmit::next(&mut pair.back, &mut packet), Ok(true));
    transmit::answer(&mut pair.back, &packet, status).unwrap();
    let _ = pair.back.publish();
    let mut responses = Vec::new();
    while let Some(slot) = pair.front.pop().unwrap() {
        responses.push(slot.response());
    }
    assert_eq!(responses.len(), slots.len(), "one response for each slot");
    (packet, responses)
}

fn fault(slots: &[[u8; 12]]) -> PacketFault {
    let (packet, responses) = take(slots, Status::Error);
    for response in responses {
        assert!(matches!(response.status, Status::Error | Status::Null));
    }
    packet.fault.unwrap()
}

fn corruption(slots: &[[u8; 12]]) -> CorruptReason {
    let mut pair = Pair::<Tx>::requested(slots);
    let error = transmit::next(&mut pair.back, &mut TxPacket::new()).unwrap_err();
    assert_eq!(error.ring, "tx");
    error.reason
}

#[test]
fn an_empty_ring_has_no_packet() {
    let mut pair = Pair::<Tx>::new();
    assert_eq!(
        transmit::next(&mut pair.back, &mut TxPacket::new()),
        Ok(false)
    );
}

#[test]
fn packets_of_1_to_18_slots_with_all_extras_cross_the_ring() {
    let gso = Gso {
        size: 1448,
        kind: GsoKind::TcpV4,
    };
    let hash = Hash {
        kind: HashKind::Ipv4,
        algorithm: HashAlgorithm::Toeplitz,
        value: 0x323e_8fc2,
    };
    for count in 1..=18u16 {
        for (gso, hash) in [
            (None, None),
            (Some(gso), None),
            (None, Some(hash)),
            (Some(gso), Some(hash)),
        ] {
            let offload = Offload {
                checksum: Checksum::Validated,
                gso,
                hash,
            };
            let fragments: Vec<TxFragment> = (0..count)
                .map(|index| fragment(index, 64 * index, 200 + index))
                .collect();
            let mut pair = Pair::<Tx>::new();
            let taken = transmit::push(&mut pair.front, &fragments, &offload).unwrap();
            assert_eq!(taken, u32::from(count) + offload.extra_slots());
            assert_eq!(pair.front.in_flight(), taken);
            let _ = pair.front.publish();
            let mut packet = TxPacket::new();
            assert_eq!(transmit::next(&mut pair.back, &mut packet), Ok(true));
            assert_eq!(packet.fragments.as_slice(), fragments);
            assert_eq!(packet.extras, offload.extra_slots());
            assert_eq!((packet.offload, packet.fault), (offload, None));
            let sum: u32 = fragments.iter().map(|each| u32::from(each.len)).sum();
            assert_eq!(packet.len, sum);
            transmit::answer(&mut pair.back, &packet, Status::Okay).unwrap();
            assert_eq!(pair.back.free_responses(), 0);
            let answered_twice = transmit::answer(&mut pair.back, &packet, Status::Okay);
            assert_eq!(answered_twice, Err(Full { ring: "tx" }));
        }
    }
}

#[test]
fn the_first_slot_tells_the_size_of_the_whole_packet() {
    let mut pair = Pair::<Tx>::new();
    let fragments = [fragment(0, 10, 100), fragment(1, 0, 50)];
    transmit::push(&mut pair.front, &fragments, &Offload::default()).unwrap();
    let _ = pair.front.publish();
    let first = pair.back.pop().unwrap().unwrap().request();
    assert_eq!((first.size, first.flags), (150, MORE));
    let second = pair.back.pop().unwrap().unwrap().request();
    assert_eq!((second.size, second.flags), (50, NONE));
}

#[test]
fn extras_are_answered_with_null_directly_behind_the_first() {
    let slots = [
        slot(7, 0, EXTRA | MORE, 100),
        extra([1, 0, 0, 1, 1, 0, 0, 0]),
        slot(8, 0, NONE, 50),
    ];
    let (_, responses) = take(&slots, Status::Okay);
    let expected = [(7, Status::Okay), (0, Status::Null), (8, Status::Okay)];
    for (response, (id, status)) in responses.iter().zip(expected) {
        assert_eq!((response.id, response.status), (id, status));
    }
}

#[test]
fn any_number_of_slots_with_any_small_total_is_counted_right() {
    // Packets of up to 128 bytes in up to 18 pieces overran a buffer in netback (XSA-432).
    for count in 1..=18u16 {
        for total in 14.max(count + 13)..=200 {
            let first = total - (count - 1);
            let slots: Vec<_> = (0..count)
                .map(|id| {
                    let flags = NONE.with_if(MORE, id + 1 < count);
                    slot(id, 0, flags, if id == 0 { total } else { 1 })
                })
                .collect();
            let (packet, _) = take(&slots, Status::Okay);
            assert_eq!(packet.fault, None);
            assert_eq!(packet.fragments.len(), usize::from(count));
            assert_eq!(packet.fragments[0].len, first);
            let sum: u16 = packet.fragments.iter().map(|each| each.len).sum();
            assert_eq!(sum, total);
        }
    }
}

#[test]
fn slots_without_bytes_are_answered_at_once() {
    let slots = [
        slot(0, 0, MORE, 60),
        slot(1, 0, MORE, 0),
        slot(2, 4096, MORE, 0),
        slot(3, 0, NONE, 20),
    ];
    let (packet, responses) = take(&slots, Status::Dropped);
    assert_eq!(
        packet.fragments.as_slice(),
        &[fragment(0, 0, 40), fragment(3, 0, 20)]
    );
    let ids: Vec<_> = responses
        .iter()
        .map(|response| (response.id, response.status))
        .collect();
    let expected = [
        (1, Status::Okay),
        (2, Status::Okay),
        (0, Status::Dropped),
        (3, Status::Dropped),
    ];
    assert_eq!(ids, expected);
}

#[test]
fn a_packet_whose_tail_is_empty_stands() {
    let mut slots: Vec<_> = (0..18).map(|id| slot(id, 0, MORE, 0)).collect();
    slots[0] = slot(0, 0, MORE, 60);
    slots[17] = slot(17, 0, NONE, 0);
    let (packet, _) = take(&slots, Status::Okay);
    assert_eq!((packet.fragments.len(), packet.fault), (1, None));
}

#[test]
fn a_multicast_wish_is_no_packet() {
    for wish in [
        Multicast::Add([1, 0, 0x5e, 0, 0, 1]),
        Multicast::Del([0x33, 0x33, 0, 0, 0, 1]),
    ] {
        let mut pair = Pair::<Tx>::new();
        assert_eq!(transmit::push_multicast(&mut pair.front, 9, wish), Ok(2));
        let _ = pair.front.publish();
        let mut packet = TxPacket::new();
        assert_eq!(transmit::next(&mut pair.back, &mut packet), Ok(true));
        assert_eq!((packet.multicast, packet.fault), (Some(wish), None));
        transmit::answer(&mut pair.back, &packet, Status::Okay).unwrap();
        let _ = pair.back.publish();
        let first = pair.front.pop().unwrap().unwrap().response();
        assert_eq!((first.id, first.status), (9, Status::Okay));
        let second = pair.front.pop().unwrap().unwrap().response();
        assert_eq!(second.status, Status::Null);
    }
}

#[test]
fn nineteen_slots_are_an_error_and_twenty_are_fatal() {
    let chain = |count: u16| -> Vec<[u8; 12]> {
        (0..count)
            .map(|id| {
                let flags = NONE.with_if(MORE, id + 1 < count);
                slot(id, 0, flags, if id == 0 { 1000 } else { 1 })
            })
            .collect()
    };
    assert_eq!(take(&chain(18), Status::Okay).0.fault, None);
    assert_eq!(fault(&chain(19)), PacketFault::TooManySlots);
    let fatal = CorruptReason::TooManySlots { slots: 20 };
    assert_eq!(corruption(&chain(20)), fatal);
    assert_eq!(corruption(&chain(256)), fatal);
}

#[test]
fn less_than_an_ethernet_header_is_an_error_also_in_the_first_slot() {
    for size in [0, 13] {
        assert_eq!(fault(&[slot(0, 0, NONE, size)]), PacketFault::TooShort);
    }
    assert_eq!(take(&[slot(0, 0, NONE, 14)], Status::Okay).0.fault, None);
    let short_first = [slot(0, 0, MORE, 113), slot(1, 0, NONE, 100)];
    assert_eq!(fault(&short_first), PacketFault::TooShort);
}

#[test]
fn slots_that_hold_more_than_the_whole_are_an_error() {
    let slots = [slot(0, 0, MORE, 100), slot(1, 0, NONE, 101)];
    assert_eq!(fault(&slots), PacketFault::SizeMismatch);
    // The sum of all may exceed it too, with no slot alone doing so.
    let slots = [
        slot(0, 0, MORE, 100),
        slot(1, 0, MORE, 60),
        slot(2, 0, NONE, 60),
    ];
    assert_eq!(fault(&slots), PacketFault::SizeMismatch);
}

#[test]
fn an_extra_that_was_not_negotiated_is_an_error() {
    let xdp = ExtraInfo::Xdp { headroom: 256 }.encode(false);
    let slots = [slot(0, 0, EXTRA, 60), extra(xdp)];
    assert_eq!(fault(&slots), PacketFault::UnexpectedExtra);
}

#[test]
fn a_request_beyond_its_page_is_fatal() {
    for (offset, size) in [(0, 4097), (4096, 14), (4083, 14), (u16::MAX, u16::MAX)] {
        assert_eq!(
            corruption(&[slot(3, offset, NONE, size)]),
            CorruptReason::BeyondPage {
                id: 3,
                offset,
                size: u32::from(size)
            }
        );
    }
    assert_eq!(take(&[slot(0, 4082, NONE, 14)], Status::Okay).0.fault, None);
    let second = [slot(0, 0, MORE, 100), slot(1, 4090, NONE, 7)];
    assert_eq!(corruption(&second).name(), "beyond_page");
    // What the others leave for the first is more than a page.
    let first = [slot(0, 0, MORE, 5000), slot(1, 0, NONE, 100)];
    assert_eq!(
        corruption(&first),
        CorruptReason::BeyondPage {
            id: 0,
            offset: 0,
            size: 4900
        }
    );
}

#[test]
fn a_packet_that_is_cut_off_is_fatal() {
    let in_chain = [slot(0, 0, MORE, 100), slot(1, 0, MORE, 1)];
    assert_eq!(corruption(&in_chain), CorruptReason::ChainCut { slots: 2 });
    let before_extra = [slot(0, 0, EXTRA, 100)];
    assert_eq!(
        corruption(&before_extra),
        CorruptReason::ChainCut { slots: 1 }
    );
    let in_extras = [slot(0, 0, EXTRA, 100), extra([4, 1, 0, 0, 0, 0, 0, 0])];
    assert_eq!(corruption(&in_extras), CorruptReason::ChainCut { slots: 2 });
}

#[test]
fn segmentation_that_cannot_be_is_fatal() {
    for (size, kind) in [(0, 1), (100, 0), (100, 3)] {
        let slots = [
            slot(0, 0, EXTRA, 100),
            extra([1, 0, size, 0, kind, 0, 0, 0]),
        ];
        let size = u16::from(size);
        assert_eq!(corruption(&slots), CorruptReason::BadGso { size, kind });
    }
}

#[test]
fn an_unknown_extra_is_fatal() {
    for kind in [0, 6, 255] {
        let slots = [slot(0, 0, EXTRA, 100), extra([kind, 0, 0, 0, 0, 0, 0, 0])];
        assert_eq!(corruption(&slots), CorruptReason::UnknownExtra { kind });
    }
}

#[test]
fn a_loop_of_extras_is_fatal() {
    let mut slots = vec![slot(0, 0, EXTRA, 100)];
    slots.extend([extra([4, 1, 0, 0, 0, 0, 0, 0]); 200]);
    assert_eq!(corruption(&slots), CorruptReason::ExtraLoop { count: 5 });
}

#[test]
fn what_a_backend_would_refuse_is_not_even_pushed() {
    let mut pair = Pair::<Tx>::new();
    let offload = Offload::default();
    let mut push = |fragments: &[TxFragment]| {
        let result = transmit::push(&mut pair.front, fragments, &offload);
        assert_eq!(pair.front.in_flight(), 0);
        result
    };
    assert_eq!(push(&[]), Err(PushError::Empty));
    assert_eq!(
        push(&[fragment(0, 0, 60), fragment(1, 0, 0)]),
        Err(PushError::Empty)
    );
    assert_eq!(
        push(&[fragment(0, 1, 4096)]),
        Err(PushError::BeyondPage {
            offset: 1,
            len: 4096
        })
    );
    assert_eq!(
        push(&[fragment(0, 0, 10); 19]),
        Err(PushError::TooManySlots { slots: 19 })
    );
    assert_eq!(
        push(&[fragment(0, 0, 4096); 16]),
        Err(PushError::TooLong { len: 65536 })
    );
}

#[test]
fn a_packet_is_pushed_as_a_whole_or_not_at_all() {
    let mut pair = Pair::<Tx>::new();
    let one = [fragment(0, 0, 60)];
    for _ in 0..254 {
        transmit::push(&mut pair.front, &one, &Offload::default()).unwrap();
    }
    let three = [fragment(0, 0, 60); 3];
    let refused = transmit::push(&mut pair.front, &three, &Offload::default());
    assert_eq!(refused, Err(PushError::Full { needed: 3, free: 2 }));
    assert_eq!(pair.front.free_requests(), 2);
    transmit::push(&mut pair.front, &one, &Offload::default()).unwrap();
    let wish = transmit::push_multicast(&mut pair.front, 0, Multicast::Add([0; 6]));
    assert_eq!(wish, Err(PushError::Full { needed: 2, free: 1 }));
}
