//! The page itself.
#![cfg(not(loom))]

use std::sync::atomic::Ordering::Relaxed;

use xen_ring::{Page, PAGE_SIZE};

#[test]
fn a_heap_page_is_aligned_and_zero() {
    let page = Page::zeroed();
    assert_eq!(page.as_ptr() as usize % PAGE_SIZE, 0);
    let mut bytes = [1; PAGE_SIZE];
    page.copy_out(0, &mut bytes);
    assert!(bytes.iter().all(|byte| *byte == 0));
}

#[test]
fn clones_see_the_same_bytes() {
    let page = Page::zeroed();
    let other = page.clone();
    page.copy_in(5, b"packet");
    let mut bytes = [0; 6];
    other.copy_out(5, &mut bytes);
    assert_eq!(&bytes, b"packet");
    other.write(8, &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(page.read::<8>(8), [1, 2, 3, 4, 5, 6, 7, 8]);
    page.store(4092, 0x0403_0201, Relaxed);
    assert_eq!(other.read::<4>(4092), [1, 2, 3, 4]);
    other.fill(4093, 2, 0xff);
    assert_eq!(page.load(4092, Relaxed), 0x04ff_ff01);
}

#[test]
fn a_prefetch_of_any_range_is_harmless() {
    let page = Page::zeroed();
    for (offset, len) in [
        (0, 0),
        (0, 1),
        (63, 2),
        (4095, 1),
        (4096, 64),
        (usize::MAX, usize::MAX),
    ] {
        page.prefetch_read(offset, len);
        page.prefetch_write(offset, len);
    }
}

#[test]
#[should_panic(expected = "beyond a shared page")]
fn a_copy_out_of_range_is_our_bug_and_panics() {
    Page::zeroed().copy_out(4090, &mut [0; 7]);
}

#[test]
#[should_panic(expected = "beyond a shared page")]
fn an_offset_that_overflows_is_caught_too() {
    Page::zeroed().copy_in(usize::MAX, &[0]);
}

#[test]
#[should_panic(expected = "across words")]
fn a_word_across_words_is_our_bug_and_panics() {
    let _ = Page::zeroed().load(2, Relaxed);
}
