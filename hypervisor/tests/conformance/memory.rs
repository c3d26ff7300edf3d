//! Shared and foreign pages.

use hypervisor::{
    Access, Copy, CopyStatus, Direction, DomId, Error, ForeignMemory, GrantRef, LocalBuffer,
    SharedPages, PAGE_SIZE,
};

use super::{eventually, Ground};

fn references(pages: &SharedPages) -> Vec<GrantRef> {
    (0..pages.len())
        .map(|index| pages.reference(index))
        .collect()
}

fn foreign(ground: &Ground) -> ForeignMemory {
    ground.back.foreign(ground.front_id).unwrap()
}

fn share(ground: &Ground, pages: usize, access: Access) -> SharedPages {
    ground.front.share(ground.back_id, pages, access).unwrap()
}

fn copy(gref: GrantRef, direction: Direction, len: u16) -> Copy {
    Copy {
        gref,
        offset: 0,
        len,
        local: 0,
        direction,
        status: CopyStatus::Other(99),
    }
}

/// The status of one copy.
fn status(foreign: &mut ForeignMemory, gref: GrantRef, direction: Direction) -> CopyStatus {
    let mut local = LocalBuffer::new(PAGE_SIZE).unwrap();
    let mut operations = [copy(gref, direction, 16)];
    foreign.copy(&mut local, &mut operations).unwrap();
    operations[0].status
}

pub(super) fn pages_are_zero_when_they_are_shared(ground: &Ground) {
    let shared = share(ground, 4, Access::ReadOnly);
    let mapped = foreign(ground)
        .map(&references(&shared), Access::ReadOnly)
        .unwrap();
    assert_eq!((shared.len(), mapped.len()), (4, 4));
    let mut bytes = [1; PAGE_SIZE];
    for index in 0..4 {
        shared.page(index).copy_out(0, &mut bytes);
        assert_eq!(bytes, [0; PAGE_SIZE]);
        bytes.fill(1);
        mapped.page(index).copy_out(0, &mut bytes);
        assert_eq!(bytes, [0; PAGE_SIZE]);
    }
}

pub(super) fn pages_are_zero_again_when_they_are_shared_again(ground: &Ground) {
    // More in sum than a domain may share, so that some are used twice.
    for _ in 0..40 {
        let shared = share(ground, 500, Access::ReadWrite);
        for index in [0, 250, 499] {
            let mut bytes = [1; PAGE_SIZE];
            shared.page(index).copy_out(0, &mut bytes);
            assert_eq!(bytes, [0; PAGE_SIZE]);
            shared.page(index).fill(0, PAGE_SIZE, 0xa5);
        }
    }
}

pub(super) fn each_side_sees_what_the_other_writes(ground: &Ground) {
    let shared = share(ground, 3, Access::ReadWrite);
    let mapped = foreign(ground)
        .map(&references(&shared), Access::ReadWrite)
        .unwrap();
    for index in 0..3u8 {
        let (own, far) = (shared.page(index.into()), mapped.page(index.into()));
        own.copy_in(100, &[index + 1; 8]);
        let mut bytes = [0; 8];
        far.copy_out(100, &mut bytes);
        assert_eq!(bytes, [index + 1; 8]);
        far.copy_in(4088, &[index + 11; 8]);
        own.copy_out(4088, &mut bytes);
        assert_eq!(bytes, [index + 11; 8]);
    }
}

pub(super) fn a_read_only_page_is_not_mapped_for_writing(ground: &Ground) {
    let shared = share(ground, 1, Access::ReadOnly);
    let mut foreign = foreign(ground);
    assert!(foreign
        .map(&references(&shared), Access::ReadWrite)
        .is_err());
    let mapped = foreign.map(&references(&shared), Access::ReadOnly).unwrap();
    shared.page(0).copy_in(0, b"look");
    let mut bytes = [0; 4];
    mapped.page(0).copy_out(0, &mut bytes);
    assert_eq!(&bytes, b"look");
}

pub(super) fn a_read_only_page_is_not_written_by_a_copy(ground: &Ground) {
    let shared = share(ground, 1, Access::ReadOnly);
    let mut foreign = foreign(ground);
    let gref = shared.reference(0);
    assert_eq!(
        status(&mut foreign, gref, Direction::ToDomain),
        CopyStatus::NotGranted
    );
    assert_eq!(
        status(&mut foreign, gref, Direction::FromDomain),
        CopyStatus::Okay
    );
}

pub(super) fn a_stale_reference_is_refused(ground: &Ground) {
    let shared = share(ground, 1, Access::ReadWrite);
    let gref = shared.reference(0);
    let mut foreign = foreign(ground);
    assert_eq!(
        status(&mut foreign, gref, Direction::FromDomain),
        CopyStatus::Okay
    );
    drop(shared);
    assert_eq!(
        status(&mut foreign, gref, Direction::FromDomain),
        CopyStatus::NotGranted
    );
    assert_refused(foreign.map(&[gref], Access::ReadOnly).map(drop), gref);
}

pub(super) fn a_page_shared_with_somebody_else_is_refused(ground: &Ground) {
    let somebody = DomId(ground.back_id.0 + 77);
    let shared = ground.front.share(somebody, 1, Access::ReadWrite).unwrap();
    let gref = shared.reference(0);
    let mut foreign = foreign(ground);
    assert_eq!(
        status(&mut foreign, gref, Direction::FromDomain),
        CopyStatus::NotGranted
    );
    assert_refused(foreign.map(&[gref], Access::ReadOnly).map(drop), gref);
}

pub(super) fn a_reference_beyond_the_table_is_refused(ground: &Ground) {
    let mut foreign = foreign(ground);
    let gref = GrantRef(0x7fff_fff0);
    assert_eq!(
        status(&mut foreign, gref, Direction::ToDomain),
        CopyStatus::BadReference
    );
    assert_refused(foreign.map(&[gref], Access::ReadOnly).map(drop), gref);
}

fn assert_refused(result: Result<(), Error>, refused: GrantRef) {
    match result {
        Err(Error::BadReference { gref, .. }) => assert_eq!(gref, refused),
        other => panic!("the reference was not refused by its name: {other:?}"),
    }
}

pub(super) fn a_mapping_is_all_or_none(ground: &Ground) {
    let shared = share(ground, 2, Access::ReadWrite);
    let mut foreign = foreign(ground);
    let before = ground.back.counters();
    let refs = [
        shared.reference(0),
        GrantRef(0x7fff_fff0),
        shared.reference(1),
    ];
    assert_refused(foreign.map(&refs, Access::ReadWrite).map(drop), refs[1]);
    assert_eq!(ground.back.counters().maps, before.maps);
    let gref = shared.reference(0);
    drop(shared);
    assert_eq!(
        status(&mut foreign, gref, Direction::FromDomain),
        CopyStatus::NotGranted
    );
}

pub(super) fn a_page_stays_shared_as_long_as_somebody_has_it(ground: &Ground) {
    let shared = share(ground, 2, Access::ReadWrite);
    let gref = shared.reference(0);
    let page = shared.page(1);
    drop(shared);
    let mut foreign = foreign(ground);
    assert_eq!(
        status(&mut foreign, gref, Direction::FromDomain),
        CopyStatus::Okay
    );
    drop(page);
    assert_eq!(
        status(&mut foreign, gref, Direction::FromDomain),
        CopyStatus::NotGranted
    );
}

pub(super) fn a_page_that_the_peer_has_mapped_is_not_used_again(ground: &Ground) {
    let shared = share(ground, 1, Access::ReadWrite);
    let gref = shared.reference(0);
    shared.page(0).fill(0, PAGE_SIZE, 7);
    let mut foreign = foreign(ground);
    let mapped = foreign.map(&[gref], Access::ReadWrite).unwrap();
    drop(shared);
    // Enough to come around to the page, if it were free.
    for _ in 0..40 {
        let others = share(ground, 500, Access::ReadWrite);
        mapped.page(0).fill(0, PAGE_SIZE, 8);
        for index in 0..others.len() {
            assert_eq!(others.page(index).read::<4>(0), [0; 4], "page {index}");
            others.page(index).fill(0, 8, 9);
        }
        assert_eq!(mapped.page(0).read::<4>(0), [8; 4]);
    }
    drop(mapped);
    eventually("the end of the grant", || {
        // The owner ends what it had to put off, at the latest with its next share.
        drop(share(ground, 1, Access::ReadWrite));
        (status(&mut foreign, gref, Direction::FromDomain) == CopyStatus::NotGranted).then_some(())
    });
}

pub(super) fn a_page_that_the_peer_lets_go_late_is_zero_when_it_is_shared_again(ground: &Ground) {
    let shared = share(ground, 1, Access::ReadWrite);
    let mapped = foreign(ground)
        .map(&references(&shared), Access::ReadWrite)
        .unwrap();
    drop(shared);
    mapped.page(0).fill(0, PAGE_SIZE, 0xa5);
    drop(mapped);
    // Enough to come around to the page.
    for _ in 0..40 {
        let others = share(ground, 500, Access::ReadWrite);
        for index in 0..others.len() {
            assert_eq!(others.page(index).read::<4>(64), [0; 4], "page {index}");
        }
    }
}

pub(super) fn pages_are_unmapped_when_the_last_of_them_goes(ground: &Ground) {
    let shared = share(ground, 2, Access::ReadWrite);
    let before = ground.back.counters();
    let mapped = foreign(ground)
        .map(&references(&shared), Access::ReadWrite)
        .unwrap();
    let page = mapped.page(1);
    drop(mapped);
    page.copy_in(0, b"still");
    let now = ground.back.counters();
    assert_eq!((now.maps - before.maps, now.unmaps - before.unmaps), (2, 0));
    drop(page);
    assert_eq!(ground.back.counters().unmaps - before.unmaps, 2);
}

pub(super) fn a_batch_copies_both_ways(ground: &Ground) {
    let shared = share(ground, 2, Access::ReadWrite);
    shared.page(0).copy_in(1000, b"from the front");
    let mut local = LocalBuffer::new(3 * PAGE_SIZE).unwrap();
    local.as_mut_slice()[5000..5012].copy_from_slice(b"to the front");
    let mut operations = [
        Copy {
            offset: 1000,
            local: 10,
            ..copy(shared.reference(0), Direction::FromDomain, 14)
        },
        Copy {
            offset: 4084,
            local: 5000,
            ..copy(shared.reference(1), Direction::ToDomain, 12)
        },
        copy(shared.reference(1), Direction::ToDomain, 0),
    ];
    let before = ground.back.counters();
    foreign(ground).copy(&mut local, &mut operations).unwrap();
    let now = ground.back.counters();
    assert_eq!(operations.map(|one| one.status), [CopyStatus::Okay; 3]);
    assert_eq!(&local.as_slice()[10..24], b"from the front");
    let mut bytes = [0; 12];
    shared.page(1).copy_out(4084, &mut bytes);
    assert_eq!(&bytes, b"to the front");
    assert_eq!(
        (
            now.copies - before.copies,
            now.hypercalls - before.hypercalls
        ),
        (3, 1)
    );
}

pub(super) fn each_copy_of_a_batch_has_its_own_status(ground: &Ground) {
    let shared = share(ground, 1, Access::ReadWrite);
    let good = shared.reference(0);
    let mut local = LocalBuffer::new(2 * PAGE_SIZE).unwrap();
    let mut operations = [
        copy(good, Direction::ToDomain, 8),
        Copy {
            offset: 4090,
            ..copy(good, Direction::ToDomain, 7)
        },
        copy(GrantRef(0x7fff_fff0), Direction::ToDomain, 8),
        copy(good, Direction::FromDomain, 4096),
    ];
    foreign(ground).copy(&mut local, &mut operations).unwrap();
    assert_eq!(
        operations.map(|one| one.status),
        [
            CopyStatus::Okay,
            CopyStatus::BadArgument,
            CopyStatus::BadReference,
            CopyStatus::Okay
        ]
    );
}

pub(super) fn a_copy_that_leaves_the_local_buffer_is_never_made(ground: &Ground) {
    let shared = share(ground, 1, Access::ReadWrite);
    let mut local = LocalBuffer::new(100).unwrap();
    for (at, len) in [(90, 11), (101, 0), (usize::MAX, 1)] {
        let mut operations = [Copy {
            local: at,
            ..copy(shared.reference(0), Direction::FromDomain, len)
        }];
        let result = foreign(ground).copy(&mut local, &mut operations);
        assert!(
            matches!(result, Err(Error::Invalid { .. })),
            "{at} {len}: {result:?}"
        );
    }
}

pub(super) fn a_page_may_be_mapped_twice(ground: &Ground) {
    let shared = share(ground, 1, Access::ReadWrite);
    let gref = shared.reference(0);
    let mut foreign = foreign(ground);
    let one = foreign.map(&[gref], Access::ReadWrite).unwrap();
    let other = foreign.map(&[gref], Access::ReadOnly).unwrap();
    one.page(0).copy_in(0, b"both");
    drop(one);
    assert_eq!(&other.page(0).read::<4>(0), b"both");
    assert_eq!(
        status(&mut foreign, gref, Direction::ToDomain),
        CopyStatus::Okay
    );
    assert_eq!(
        status(&mut foreign, gref, Direction::FromDomain),
        CopyStatus::Okay
    );
}

pub(super) fn sharing_nothing_is_refused(ground: &Ground) {
    let result = ground.front.share(ground.back_id, 0, Access::ReadWrite);
    assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
    let result = foreign(ground).map(&[], Access::ReadOnly);
    assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
}

pub(super) fn a_close_notice_clears_its_byte_and_rings(ground: &Ground) {
    let mut front = ground.front.events().unwrap();
    let mut back = ground.back.events().unwrap();
    let near = front.bind_unbound(ground.back_id).unwrap();
    let far = back.bind_interdomain(ground.front_id, near).unwrap();

    let shared = share(ground, 1, Access::ReadWrite);
    shared.clear_byte_on_close(77).unwrap();
    shared.notify_on_close(near).unwrap();
    let mapped = foreign(ground)
        .map(&[shared.reference(0)], Access::ReadWrite)
        .unwrap();
    shared.page(0).fill(0, PAGE_SIZE, 1);

    // What was pending from the binding, and from asking for the notice, is not what is looked for.
    let mut ports = Vec::new();
    back.pending(&mut ports).unwrap();
    if ports.contains(&far) {
        back.unmask(far).unwrap();
    }
    ports.clear();
    drop(shared);
    eventually("the notice", || {
        back.pending(&mut ports).unwrap();
        ports.contains(&far).then_some(())
    });
    let mut bytes = [9; 3];
    mapped.page(0).copy_out(76, &mut bytes);
    assert_eq!(bytes, [1, 0, 1]);
}

pub(super) fn a_close_notice_comes_too_late_for_a_page_that_is_known(ground: &Ground) {
    let shared = share(ground, 1, Access::ReadWrite);
    shared.reference(0);
    assert!(matches!(
        shared.clear_byte_on_close(0),
        Err(Error::Unsupported { .. })
    ));
    let several = share(ground, 2, Access::ReadWrite);
    assert!(matches!(
        several.clear_byte_on_close(0),
        Err(Error::Unsupported { .. })
    ));
    let beyond = share(ground, 1, Access::ReadWrite);
    assert!(matches!(
        beyond.clear_byte_on_close(PAGE_SIZE),
        Err(Error::Invalid { .. })
    ));
}
