//! The bytes of every structure, against the tables of netif.h.
#![cfg(not(loom))]

use xen_ring::*;

#[test]
fn a_transmit_request_is_twelve_bytes_in_the_order_of_netif_h() {
    let request = TxRequest {
        gref: 0x0403_0201,
        offset: 0x0605,
        flags: TxFlags(0x0807),
        id: 0x0a09,
        size: 0x0c0b,
    };
    assert_eq!(request.encode(), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(TxRequest::decode(&request.encode()), request);
}

#[test]
fn a_transmit_response_is_an_id_and_a_status_and_zeros() {
    for (status, bytes) in [
        (Status::Okay, [0, 0]),
        (Status::Error, [0xff, 0xff]),
        (Status::Dropped, [0xfe, 0xff]),
        (Status::Null, [1, 0]),
        (Status::Other(-300), (-300i16).to_le_bytes()),
    ] {
        let response = TxResponse { id: 0x0201, status };
        let [low, high] = bytes;
        assert_eq!(response.encode(), [1, 2, low, high, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(TxResponse::decode(&response.encode()), response);
    }
}

#[test]
fn a_receive_request_has_a_zero_pad_between_id_and_reference() {
    let request = RxRequest {
        id: 0x0201,
        gref: 0x0807_0605,
    };
    assert_eq!(request.encode(), [1, 2, 0, 0, 5, 6, 7, 8]);
    assert_eq!(RxRequest::decode(&request.encode()), request);
}

#[test]
fn a_receive_response_is_id_offset_flags_status() {
    let response = RxResponse {
        id: 0x0201,
        offset: 0x0403,
        flags: RxFlags(0x0605),
        status: -2,
    };
    assert_eq!(response.encode(), [1, 2, 3, 4, 5, 6, 0xfe, 0xff]);
    assert_eq!(RxResponse::decode(&response.encode()), response);
}

#[test]
fn extra_infos_have_their_exact_bytes_and_zero_pads() {
    let address = [0x33, 0x33, 1, 2, 3, 4];
    let table: [(ExtraInfo, [u8; 8]); 7] = [
        (
            ExtraInfo::Gso {
                size: 0x05a8,
                kind: GsoKind::TcpV4,
            },
            [1, 0, 0xa8, 0x05, 1, 0, 0, 0],
        ),
        (
            ExtraInfo::Gso {
                size: 1,
                kind: GsoKind::TcpV6,
            },
            [1, 0, 1, 0, 2, 0, 0, 0],
        ),
        (ExtraInfo::McastAdd(address), [2, 0, 0x33, 0x33, 1, 2, 3, 4]),
        (ExtraInfo::McastDel(address), [3, 0, 0x33, 0x33, 1, 2, 3, 4]),
        (
            ExtraInfo::Hash {
                kind: HashKind::Ipv4Tcp.to_raw(),
                algorithm: HashAlgorithm::Toeplitz.to_raw(),
                value: 0x51cc_c178,
            },
            [4, 0, 1, 1, 0x78, 0xc1, 0xcc, 0x51],
        ),
        (
            ExtraInfo::Xdp { headroom: 0x0100 },
            [5, 0, 0, 1, 0, 0, 0, 0],
        ),
        (
            ExtraInfo::Xdp { headroom: 0x7fff },
            [5, 0, 0xff, 0x7f, 0, 0, 0, 0],
        ),
    ];
    for (extra, bytes) in table {
        assert_eq!(extra.encode(false), bytes, "{extra:?}");
        let mut with_more = bytes;
        with_more[1] = 1;
        assert_eq!(extra.encode(true), with_more, "{extra:?}");
        for more in [false, true] {
            let decoded = ExtraInfo::decode(&extra.encode(more));
            assert_eq!(decoded.info, Ok(extra));
            assert_eq!(decoded.more, more);
        }
    }
}

#[test]
fn an_extra_info_that_cannot_be_still_tells_whether_one_follows() {
    let unknown = ExtraInfo::decode(&[6, 0xff, 0, 0, 0, 0, 0, 0]);
    assert_eq!(unknown.info, Err(ExtraError::UnknownType(6)));
    assert!(unknown.more);
    let size_zero = ExtraInfo::decode(&[1, 0xfe, 0, 0, 1, 0, 0, 0]);
    assert_eq!(size_zero.info, Err(ExtraError::BadGso { size: 0, kind: 1 }));
    assert!(!size_zero.more);
    let kind_zero = ExtraInfo::decode(&[1, 0, 9, 0, 0, 0, 0, 0]);
    assert_eq!(kind_zero.info, Err(ExtraError::BadGso { size: 9, kind: 0 }));
}

#[test]
fn the_two_checksum_bits_are_swapped_between_the_directions() {
    assert_eq!(TxFlags::CSUM_BLANK.0, 1);
    assert_eq!(TxFlags::DATA_VALIDATED.0, 2);
    assert_eq!(RxFlags::DATA_VALIDATED.0, 1);
    assert_eq!(RxFlags::CSUM_BLANK.0, 2);
    assert_eq!((TxFlags::MORE_DATA.0, RxFlags::MORE_DATA.0), (4, 4));
    assert_eq!((TxFlags::EXTRA_INFO.0, RxFlags::EXTRA_INFO.0), (8, 8));
    assert_eq!(RxFlags::GSO_PREFIX.0, 16);
}

#[test]
fn checksum_facts_become_flags_and_back_in_both_directions() {
    let table = [
        (Checksum::None, 0, 0),
        (Checksum::Blank, 3, 3),
        (Checksum::Validated, 2, 1),
    ];
    for (checksum, tx, rx) in table {
        assert_eq!(TxFlags::of_checksum(checksum).0, tx);
        assert_eq!(RxFlags::of_checksum(checksum).0, rx);
        assert_eq!(TxFlags(tx).checksum(), checksum);
        assert_eq!(RxFlags(rx).checksum(), checksum);
    }
    // A peer that sets the blank bit alone means the same.
    assert_eq!(TxFlags(1).checksum(), Checksum::Blank);
    assert_eq!(RxFlags(2).checksum(), Checksum::Blank);
}

#[test]
fn every_control_message_has_its_number_and_its_words() {
    use ControlMessage::*;
    let table: [(ControlMessage, u16, [u32; 3]); 11] = [
        (GetHashFlags, 1, [0; 3]),
        (SetHashFlags(HashFlags::ALL), 2, [15, 0, 0]),
        (SetHashKey { gref: 7, len: 40 }, 3, [7, 40, 0]),
        (GetHashMappingSize, 4, [0; 3]),
        (SetHashMappingSize(128), 5, [128, 0, 0]),
        (
            SetHashMapping {
                gref: 7,
                entries: 8,
                offset: 9,
            },
            6,
            [7, 8, 9],
        ),
        (SetHashAlgorithm(1), 7, [1, 0, 0]),
        (GetGrefMappingSize { queue: 3 }, 8, [3, 0, 0]),
        (
            AddGrefMapping {
                queue: 3,
                gref: 4,
                entries: 512,
            },
            9,
            [3, 4, 512],
        ),
        (
            DelGrefMapping {
                queue: 3,
                gref: 4,
                entries: 512,
            },
            10,
            [3, 4, 512],
        ),
        (
            Unknown {
                kind: 11,
                data: [1, 2, 3],
            },
            11,
            [1, 2, 3],
        ),
    ];
    for (message, kind, data) in table {
        let request = ControlRequest {
            id: 0x0201,
            message,
        };
        let mut bytes = vec![1, 2];
        bytes.extend(kind.to_le_bytes());
        bytes.extend(data.iter().flat_map(|word| word.to_le_bytes()));
        assert_eq!(request.encode().as_slice(), bytes, "{message:?}");
        assert_eq!(ControlRequest::decode(&request.encode()), request);
    }
}

#[test]
fn a_control_response_is_twelve_bytes_and_four_zeros() {
    for (status, raw) in [
        (ControlStatus::Success, 0),
        (ControlStatus::NotSupported, 1),
        (ControlStatus::InvalidParameter, 2),
        (ControlStatus::BufferOverflow, 3),
        (ControlStatus::Other(77), 77),
    ] {
        let request = ControlRequest {
            id: 0x0201,
            message: ControlMessage::SetHashKey { gref: 1, len: 41 },
        };
        let response = ControlResponse::to(&request, status, 0x0807_0605);
        assert_eq!(
            response.encode(),
            [1, 2, 3, 0, raw, 0, 0, 0, 5, 6, 7, 8, 0, 0, 0, 0]
        );
        assert_eq!(ControlResponse::decode(&response.encode()), response);
    }
}

#[test]
fn a_list_entry_is_eight_bytes_and_a_page_holds_512() {
    let entry = GrefEntry {
        gref: 0x0403_0201,
        read_only: true,
        status: 0x0807,
    };
    assert_eq!(entry.encode(), [1, 2, 3, 4, 1, 0, 7, 8]);
    assert_eq!(GrefEntry::decode(&entry.encode()), entry);
    assert_eq!(GREF_ENTRIES, 512);
    // Flags that are not defined are passed over.
    assert!(!GrefEntry::decode(&[0, 0, 0, 0, 0xfe, 0xff, 0, 0]).read_only);
}

#[test]
fn hash_kinds_are_the_bit_numbers_of_the_hash_flags() {
    let table = [
        (HashKind::Ipv4, HashFlags::IPV4),
        (HashKind::Ipv4Tcp, HashFlags::IPV4_TCP),
        (HashKind::Ipv6, HashFlags::IPV6),
        (HashKind::Ipv6Tcp, HashFlags::IPV6_TCP),
    ];
    for (kind, flags) in table {
        assert_eq!(1 << kind.to_raw(), flags.0);
        assert_eq!(HashKind::from_raw(kind.to_raw()), Some(kind));
        assert!(HashFlags::ALL.contains(flags));
    }
    assert_eq!(HashKind::from_raw(4), None);
    assert_eq!(HashAlgorithm::from_raw(2), None);
}

#[test]
fn flags_print_their_names() {
    let flags = TxFlags::CSUM_BLANK | TxFlags::MORE_DATA;
    assert_eq!(format!("{flags:?}"), "TxFlags(0x5 CSUM_BLANK MORE_DATA)");
}
