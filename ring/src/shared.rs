//! The one way to touch memory that another domain can write.
//!
//! UNSAFETY: a page that another domain can change at any moment cannot be behind `&[u8]`, whose
//! bytes the compiler takes as constant. All access goes through the raw pointer in [`Page`], and
//! only copies come out, so that no caller can read a byte twice and find it changed in between.
//!
//! Invariants:
//! - indices are atomics; slots are copied by volatile 32-bit words, each word once, which no
//!   compiler repeats or splits;
//! - bulk copies use plain `memcpy`, for its speed. If the peer writes at the same time, that is
//!   formally a data race. We accept it as every driver of shared memory does: the peer is
//!   outside the program that the compiler sees, the bytes may come out torn, and nothing read so
//!   is trusted: a copy is judged after it is made, never the page;
//! - `Page` is `Send` and `Sync` for the same reason: it gives out no reference, another thread
//!   of ours that writes is no worse than another domain that writes, and torn bytes are the worst
//!   that can come of it.
//!
//! Under `cfg(loom)` the same type stands on loom's atomics and checked cells; see the end.

pub use imp::Page;

/// The size of a Xen page, which is the unit of sharing.
pub const PAGE_SIZE: usize = 4096;

/// A full memory barrier, where ring.h says `mb`.
#[inline(always)]
pub(crate) fn full_fence() {
    #[cfg(not(loom))]
    core::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
    #[cfg(loom)]
    loom::sync::atomic::fence(core::sync::atomic::Ordering::SeqCst);
}

/// Panics unless the range is inside the page: a range outside is an error of this program, never
/// of the peer, whose offsets are judged before they get here.
#[inline(always)]
fn check(offset: usize, len: usize) {
    assert!(
        len <= PAGE_SIZE && offset <= PAGE_SIZE - len,
        "access beyond a shared page"
    );
}

/// Panics unless `offset` is that of a whole 32-bit word inside the page.
#[inline(always)]
fn check_words(offset: usize, len: usize) {
    check(offset, len);
    assert!(
        offset.is_multiple_of(4),
        "access to a shared page across words"
    );
}

#[cfg(not(loom))]
mod imp {
    use alloc::sync::Arc;
    use core::any::Any;
    use core::fmt;
    use core::ptr::NonNull;
    use core::sync::atomic::{AtomicU32, Ordering};

    use super::{check, check_words, PAGE_SIZE};

    /// One page of memory shared with another domain. Cloning it is cheap; the memory stays mapped
    /// while any clone lives.
    #[derive(Clone)]
    pub struct Page {
        base: NonNull<u8>,
        /// Never read: it is there to be dropped last.
        _keep: Arc<dyn Any + Send + Sync>,
    }

    // SAFETY: `base` points to memory that `_keep` holds, whichever thread drops it last. See the
    // module's invariants for why access from many threads is no worse than access by the peer.
    unsafe impl Send for Page {}
    // SAFETY: as above; no method gives out a reference into the page.
    unsafe impl Sync for Page {}

    /// A page on the heap; atomics, since both ends write it through shared references.
    #[repr(C, align(4096))]
    struct HeapPage([AtomicU32; PAGE_SIZE / 4]);

    impl Page {
        /// A page at `base`, which lives as long as `keep`.
        ///
        /// # Safety
        ///
        /// `base` is aligned to 4096 bytes, and 4096 bytes from there can be read (and written, if
        /// any writing method is called) until `keep` is dropped. Nobody holds a Rust reference to
        /// them meanwhile.
        pub unsafe fn from_raw(base: NonNull<u8>, keep: Arc<dyn Any + Send + Sync>) -> Page {
            Page { base, _keep: keep }
        }

        /// A page of zeros on the heap, for two ends in one process.
        pub fn zeroed() -> Page {
            let heap = Arc::new(HeapPage([const { AtomicU32::new(0) }; PAGE_SIZE / 4]));
            let base = NonNull::from(&*heap).cast::<u8>();
            // SAFETY: HeapPage is 4096 bytes, so aligned, all inside atomics, which may be written
            // through a shared reference; the Arc keeps it.
            unsafe { Page::from_raw(base, heap) }
        }

        /// Loads the 32-bit word at `offset`.
        ///
        /// # Panics
        /// If `offset` is no multiple of 4, or outside the page; so do all methods here.
        #[inline(always)]
        pub fn load(&self, offset: usize, order: Ordering) -> u32 {
            self.word(offset).load(order)
        }

        /// Stores the 32-bit word at `offset`.
        #[inline(always)]
        pub fn store(&self, offset: usize, value: u32, order: Ordering) {
            self.word(offset).store(value, order);
        }

        #[inline(always)]
        fn word(&self, offset: usize) -> &AtomicU32 {
            check_words(offset, 4);
            // SAFETY: aligned and inside the page, which lives as long as `self`. The reference is
            // to an atomic, which others may change, and it does not leave this module.
            unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(offset).cast()) }
        }

        /// Copies `N` bytes out, each 32-bit word exactly once. `N` and `offset` are multiples
        /// of 4.
        #[inline(always)]
        pub fn read<const N: usize>(&self, offset: usize) -> [u8; N] {
            const { assert!(N.is_multiple_of(4)) };
            check_words(offset, N);
            let mut bytes = [0; N];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                // SAFETY: aligned and inside the page, as checked above.
                let word = unsafe {
                    let from = self.base.as_ptr().add(offset + index * 4).cast::<u32>();
                    from.read_volatile()
                };
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            bytes
        }

        /// Copies `N` bytes in, each 32-bit word exactly once. `N` and `offset` are multiples
        /// of 4.
        #[inline(always)]
        pub fn write<const N: usize>(&self, offset: usize, bytes: &[u8; N]) {
            const { assert!(N.is_multiple_of(4)) };
            check_words(offset, N);
            for (index, chunk) in bytes.chunks_exact(4).enumerate() {
                let mut word = [0; 4];
                word.copy_from_slice(chunk);
                // SAFETY: aligned and inside the page, as checked above.
                unsafe {
                    let to = self.base.as_ptr().add(offset + index * 4).cast::<u32>();
                    to.write_volatile(u32::from_ne_bytes(word));
                }
            }
        }

        /// Copies bytes out in bulk: payload, which may come out torn if the peer writes.
        #[inline]
        pub fn copy_out(&self, offset: usize, into: &mut [u8]) {
            check(offset, into.len());
            // SAFETY: inside the page, as checked; `into` is ours alone, so they do not overlap.
            unsafe {
                let from = self.base.as_ptr().add(offset);
                core::ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len());
            }
        }

        /// Copies bytes in, in bulk.
        #[inline]
        pub fn copy_in(&self, offset: usize, from: &[u8]) {
            check(offset, from.len());
            // SAFETY: inside the page, as checked; nobody holds a reference into the page, so
            // `from` does not overlap it.
            unsafe {
                let to = self.base.as_ptr().add(offset);
                core::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len());
            }
        }

        /// Sets `len` bytes to `byte`.
        #[inline]
        pub fn fill(&self, offset: usize, len: usize, byte: u8) {
            check(offset, len);
            // SAFETY: inside the page, as checked.
            unsafe { self.base.as_ptr().add(offset).write_bytes(byte, len) };
        }

        /// Starts to bring bytes into the cache, to be read soon.
        #[inline(always)]
        pub fn prefetch_read(&self, offset: usize, len: usize) {
            self.each_line(offset, len, |line| {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a prefetch is a hint: it never faults, whatever the address.
                unsafe {
                    use core::arch::x86_64::{_mm_prefetch, _MM_HINT_T0};
                    _mm_prefetch::<_MM_HINT_T0>(line.cast());
                }
                #[cfg(not(target_arch = "x86_64"))]
                let _ = line;
            });
        }

        /// Starts to bring bytes into the cache, to be written soon.
        #[inline(always)]
        pub fn prefetch_write(&self, offset: usize, len: usize) {
            self.each_line(offset, len, |line| {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: a prefetch is a hint: it never faults, whatever the address.
                unsafe {
                    use core::arch::x86_64::{_mm_prefetch, _MM_HINT_ET0};
                    _mm_prefetch::<_MM_HINT_ET0>(line.cast());
                }
                #[cfg(not(target_arch = "x86_64"))]
                let _ = line;
            });
        }

        /// The cache lines that hold the range, as far as it is inside the page.
        #[inline(always)]
        fn each_line(&self, offset: usize, len: usize, mut each: impl FnMut(*const u8)) {
            let end = offset.saturating_add(len).min(PAGE_SIZE);
            let mut line = offset & !63;
            while line < end {
                each(self.base.as_ptr().wrapping_add(line));
                line += 64;
            }
        }

        /// Where the page is mapped. It is for system calls; use the other methods to access it.
        #[inline(always)]
        pub fn as_ptr(&self) -> *mut u8 {
            self.base.as_ptr()
        }
    }

    impl fmt::Debug for Page {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "Page({:p})", self.base)
        }
    }
}

/// The same page for the model checker: the four indices are loom's atomics, every other word is a
/// checked cell. A word that is read while the other end writes it, or before, fails the model.
#[cfg(loom)]
mod imp {
    use alloc::sync::Arc;
    use alloc::vec::Vec;
    use core::fmt;
    use core::sync::atomic::Ordering;

    use loom::cell::UnsafeCell;
    use loom::sync::atomic::AtomicU32;

    use super::{check, check_words, PAGE_SIZE};

    const INDICES: usize = 4;

    struct Words {
        indices: [AtomicU32; INDICES],
        rest: Vec<UnsafeCell<u32>>,
    }

    // SAFETY: loom checks every access to the cells, and fails the model when two collide.
    unsafe impl Send for Words {}
    // SAFETY: as above.
    unsafe impl Sync for Words {}

    /// One page of memory shared with another domain, as the model checker sees it.
    #[derive(Clone)]
    pub struct Page(Arc<Words>);

    impl Page {
        /// A page of zeros. It lives only inside one run of a model.
        pub fn zeroed() -> Page {
            Page(Arc::new(Words {
                indices: core::array::from_fn(|_| AtomicU32::new(0)),
                rest: (INDICES..PAGE_SIZE / 4)
                    .map(|_| UnsafeCell::new(0))
                    .collect(),
            }))
        }

        /// Loads the 32-bit word at `offset`.
        pub fn load(&self, offset: usize, order: Ordering) -> u32 {
            check_words(offset, 4);
            match self.0.indices.get(offset / 4) {
                Some(index) => index.load(order),
                None => self.word(offset / 4),
            }
        }

        /// Stores the 32-bit word at `offset`.
        pub fn store(&self, offset: usize, value: u32, order: Ordering) {
            check_words(offset, 4);
            match self.0.indices.get(offset / 4) {
                Some(index) => index.store(value, order),
                None => self.set_word(offset / 4, value),
            }
        }

        fn word(&self, word: usize) -> u32 {
            // SAFETY: loom has checked that nobody writes this cell now.
            self.0.rest[word - INDICES].with(|cell| unsafe { *cell })
        }

        fn set_word(&self, word: usize, value: u32) {
            // SAFETY: loom has checked that nobody reads or writes this cell now.
            self.0.rest[word - INDICES].with_mut(|cell| unsafe { *cell = value });
        }

        /// Copies `N` bytes out.
        pub fn read<const N: usize>(&self, offset: usize) -> [u8; N] {
            check_words(offset, N);
            let mut bytes = [0; N];
            for (index, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                let word = self.load(offset + index * 4, Ordering::Relaxed);
                chunk.copy_from_slice(&word.to_ne_bytes());
            }
            bytes
        }

        /// Copies `N` bytes in.
        pub fn write<const N: usize>(&self, offset: usize, bytes: &[u8; N]) {
            check_words(offset, N);
            for (index, chunk) in bytes.chunks_exact(4).enumerate() {
                let mut word = [0; 4];
                word.copy_from_slice(chunk);
                let word = u32::from_ne_bytes(word);
                self.store(offset + index * 4, word, Ordering::Relaxed);
            }
        }

        /// Copies bytes out in bulk.
        pub fn copy_out(&self, offset: usize, into: &mut [u8]) {
            check(offset, into.len());
            for (index, byte) in into.iter_mut().enumerate() {
                let at = offset + index;
                *byte = self.load(at & !3, Ordering::Relaxed).to_ne_bytes()[at & 3];
            }
        }

        /// Copies bytes in, in bulk.
        pub fn copy_in(&self, offset: usize, from: &[u8]) {
            check(offset, from.len());
            for (index, byte) in from.iter().enumerate() {
                let at = offset + index;
                let mut word = self.load(at & !3, Ordering::Relaxed).to_ne_bytes();
                word[at & 3] = *byte;
                self.store(at & !3, u32::from_ne_bytes(word), Ordering::Relaxed);
            }
        }

        /// Sets `len` bytes to `byte`; whole words.
        pub fn fill(&self, offset: usize, len: usize, byte: u8) {
            check_words(offset, len);
            for at in (offset..offset + len).step_by(4) {
                self.store(at, u32::from_ne_bytes([byte; 4]), Ordering::Relaxed);
            }
        }

        /// Nothing: the model has no cache.
        pub fn prefetch_read(&self, _offset: usize, _len: usize) {}

        /// Nothing: the model has no cache.
        pub fn prefetch_write(&self, _offset: usize, _len: usize) {}
    }

    impl fmt::Debug for Page {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Page(loom)")
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::sync::Arc;
    use core::ptr::NonNull;

    use super::{Page, PAGE_SIZE};

    #[test]
    fn the_mapping_lives_as_long_as_a_clone_and_no_longer() {
        let backing = Page::zeroed();
        let keep: Arc<dyn core::any::Any + Send + Sync> = Arc::new(backing.clone());
        let weak = Arc::downgrade(&keep);
        let base = NonNull::new(backing.as_ptr()).unwrap();
        // SAFETY: a whole page, kept by `keep`.
        let page = unsafe { Page::from_raw(base, keep) };
        let clone = page.clone();
        drop(page);
        assert!(weak.upgrade().is_some());
        clone.fill(0, PAGE_SIZE, 1);
        drop(clone);
        assert!(weak.upgrade().is_none());
    }
}
