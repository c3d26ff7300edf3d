//! Plain memory views of granted pages, and the lease that carries one away.
//!
//! This is the only file of the driver that makes slices out of granted memory. What makes it sound
//! is ownership: a [`PoolPage`] or a [`Lease`] is the only holder of its page on our side, is neither
//! `Copy` nor `Clone`, and a page that has one is not in the ring.
//!
//! What ownership cannot promise is the *other* side. The grant never ends, so a backend that breaks
//! the contract can write to a page after its response: the bytes of a view may change while they
//! are looked at, which formally is a data race. Nothing in the driver decides anything by looking at
//! such bytes (lengths, flags and headers are judged on copies); under `--untrusted` no view of a
//! receive page is made at all.

use std::sync::Arc;

use xen_ring::{Page, PAGE_SIZE};

use super::{PoolPage, Returns};

/// The bytes of a received fragment, in place.
///
/// `_held` proves that the page is out of the pool and out of the ring.
///
/// # Panics
/// If the range leaves the page: ranges are validated when the response is read.
pub(crate) fn view<'a>(page: &'a Page, _held: &'a PoolPage, offset: usize, len: usize) -> &'a [u8] {
    slice(page, offset, len)
}

/// The writable bytes of a page that will be sent.
///
/// The backend was granted the page read-only, and `_held` (borrowed mutably) proves that nobody else
/// on our side has it, so this is the only writer.
///
/// # Panics
/// If `offset` is beyond the page.
pub(crate) fn view_mut<'a>(page: &'a Page, _held: &'a mut PoolPage, offset: usize) -> &'a mut [u8] {
    assert!(offset <= PAGE_SIZE, "offset {offset} is beyond the page");
    // SAFETY: the page is mapped as long as `page` lives and the range stays inside it; the
    // exclusive borrow of the page's only token makes this the only reference on our side, and the
    // backend holds a read-only grant.
    unsafe { std::slice::from_raw_parts_mut(page.as_ptr().add(offset), PAGE_SIZE - offset) }
}

fn slice(page: &Page, offset: usize, len: usize) -> &[u8] {
    assert!(
        offset + len <= PAGE_SIZE,
        "{len} bytes at {offset} leave the page"
    );
    // SAFETY: the page is mapped as long as `page` lives and the range stays inside it. Nobody on our
    // side writes to a page that is held. A backend that writes after its response breaks the
    // contract; the module's documentation says what that means.
    unsafe { std::slice::from_raw_parts(page.as_ptr().add(offset), len) }
}

/// A received fragment that left the queue: a granted page, lent until this is dropped.
///
/// Read-only. Dropping it gives the page back to its pool, from any thread, without a lock. While a
/// lease lives its page is in no ring, and the mapping stays even if the device is gone.
#[derive(Debug)]
pub struct Lease {
    page: Page,
    /// `None` only while it is being dropped.
    held: Option<PoolPage>,
    offset: u16,
    len: u16,
    home: Arc<Returns>,
}

impl Lease {
    pub(crate) fn new(
        page: Page,
        held: PoolPage,
        offset: u16,
        len: u16,
        home: Arc<Returns>,
    ) -> Self {
        Self {
            page,
            held: Some(held),
            offset,
            len,
            home,
        }
    }

    /// The fragment's bytes, in the granted page.
    pub fn as_slice(&self) -> &[u8] {
        slice(&self.page, usize::from(self.offset), usize::from(self.len))
    }
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.home.give(held);
        }
    }
}
