//! Pages of a peer: mapped for as long as they are used, or copied in batches.

use std::fmt;

use memmap2::MmapMut;
use xen_ring::Page;

use crate::{xen, Access, DomId, Error, GrantRef, PAGE_SIZE};

/// The memory of one other domain, as far as it has shared it with this one.
#[derive(Debug)]
pub struct ForeignMemory(pub(crate) Ground);

#[derive(Debug)]
pub(crate) enum Ground {
    Xen(xen::memory::Foreign),
    #[cfg(feature = "sim")]
    Sim(crate::sim::foreign::Foreign),
}

impl ForeignMemory {
    /// The domain whose memory this is.
    pub fn owner(&self) -> DomId {
        match &self.0 {
            Ground::Xen(foreign) => foreign.owner(),
            #[cfg(feature = "sim")]
            Ground::Sim(foreign) => foreign.owner(),
        }
    }

    /// Maps the pages behind these references, all or none.
    ///
    /// A page mapped read-only must not be written: the processor stops the program.
    ///
    /// # Errors
    ///
    /// [`Error::BadReference`] names the first reference that was refused, where the hypervisor
    /// tells it.
    pub fn map(&mut self, refs: &[GrantRef], access: Access) -> Result<MappedPages, Error> {
        if refs.is_empty() {
            return Err(Error::Invalid {
                what: "Wanted to map no page at all; give at least one reference".into(),
            });
        }
        match &mut self.0 {
            Ground::Xen(foreign) => foreign.map(refs, access),
            #[cfg(feature = "sim")]
            Ground::Sim(foreign) => foreign.map(refs, access),
        }
    }

    /// Does a batch of copies with one call. Each operation gets its own status; one that fails
    /// does not stop the others.
    ///
    /// # Errors
    ///
    /// When the call as a whole could not be made, or an operation leaves `local`.
    pub fn copy(&mut self, local: &mut LocalBuffer, operations: &mut [Copy]) -> Result<(), Error> {
        for operation in operations.iter() {
            let end = operation.local.checked_add(usize::from(operation.len));
            if end.is_none_or(|end| end > local.len()) {
                return Err(Error::Invalid {
                    what: format!(
                        "A copy of {} bytes at offset {} leaves the local buffer of {} bytes",
                        operation.len,
                        operation.local,
                        local.len()
                    ),
                });
            }
        }
        match &mut self.0 {
            Ground::Xen(foreign) => foreign.copy(local, operations),
            #[cfg(feature = "sim")]
            Ground::Sim(foreign) => {
                foreign.copy(local, operations);
                Ok(())
            }
        }
    }
}

/// Pages of a peer, mapped here. They are unmapped together, when this value and the last [`Page`]
/// of it are gone.
#[derive(Debug, Clone)]
pub struct MappedPages {
    pages: Vec<Page>,
}

impl MappedPages {
    pub(crate) fn new(pages: Vec<Page>) -> Self {
        MappedPages { pages }
    }

    /// How many pages were mapped.
    #[allow(clippy::len_without_is_empty)] // a mapping of no pages cannot be made
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// The page behind the reference with this index.
    ///
    /// # Panics
    ///
    /// When there were fewer references.
    pub fn page(&self, index: usize) -> Page {
        self.pages[index].clone()
    }
}

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the local buffer into the page of the other domain.
    ToDomain,
    /// From the page of the other domain into the local buffer.
    FromDomain,
}

/// One copy of a batch.
#[derive(Clone, Debug)]
pub struct Copy {
    /// The page of the other domain.
    pub gref: GrantRef,
    /// Where in that page.
    pub offset: u16,
    /// How many bytes. They may not leave the page.
    pub len: u16,
    /// Where in the local buffer.
    pub local: usize,
    /// Which way.
    pub direction: Direction,
    /// What became of it; written by [`ForeignMemory::copy`].
    pub status: CopyStatus,
}

/// What became of one copy, as the hypervisor says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CopyStatus {
    /// Done.
    Okay,
    /// The reference is not shared with this domain, or not for this access (`GNTST_general_error`).
    NotGranted,
    /// The reference lies beyond the owner's grant table (`GNTST_bad_gntref`).
    BadReference,
    /// The hypervisor's policy forbids it (`GNTST_permission_denied`).
    PermissionDenied,
    /// Offset and length leave the page (`GNTST_bad_copy_arg`).
    BadArgument,
    /// Another `GNTST` number.
    Other(i16),
}

impl CopyStatus {
    /// The status behind a number of the hypervisor.
    pub fn from_raw(status: i16) -> Self {
        match status {
            0 => CopyStatus::Okay,
            -1 => CopyStatus::NotGranted,
            -3 => CopyStatus::BadReference,
            -8 => CopyStatus::PermissionDenied,
            -10 => CopyStatus::BadArgument,
            other => CopyStatus::Other(other),
        }
    }

    /// Whether the copy was done.
    pub fn is_okay(self) -> bool {
        self == CopyStatus::Okay
    }
}

impl fmt::Display for CopyStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CopyStatus::Okay => f.write_str("okay"),
            CopyStatus::NotGranted => f.write_str("not granted to this domain for this access"),
            CopyStatus::BadReference => f.write_str("no such reference"),
            CopyStatus::PermissionDenied => f.write_str("permission denied"),
            CopyStatus::BadArgument => f.write_str("beyond the page"),
            CopyStatus::Other(number) => write!(f, "grant status {number}"),
        }
    }
}

/// Own bytes to copy from and into: page aligned, as the hypervisor wants them, and used again
/// and again.
#[derive(Debug)]
pub struct LocalBuffer {
    bytes: MmapMut,
    len: usize,
}

impl LocalBuffer {
    /// A buffer of this many zero bytes.
    ///
    /// # Errors
    ///
    /// When the system has no memory for it.
    pub fn new(len: usize) -> Result<Self, Error> {
        let size = len.max(1).next_multiple_of(PAGE_SIZE);
        let bytes = MmapMut::map_anon(size).map_err(|source| {
            Error::system(format!("get {size} bytes for a copy buffer"), source)
        })?;
        Ok(LocalBuffer { bytes, len })
    }

    /// How many bytes it has.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The bytes, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.len]
    }
}
