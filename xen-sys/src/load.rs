//! Finding the libraries: by the name under which the dynamic linker knows them, never by a path.

use std::error::Error;
use std::fmt;

/// A table of functions that lives in a shared library.
pub trait Library: Sized {
    /// The library's name, with the version of its interface.
    const SONAME: &'static str;
    /// The Debian package that brings it.
    const PACKAGE: &'static str;

    /// Looks the functions up in an open library.
    #[doc(hidden)]
    fn table(library: libloading::Library) -> Result<Self, libloading::Error>;

    /// Loads the library and finds all its functions. The library stays loaded while the table lives.
    ///
    /// # Errors
    ///
    /// When the library is not installed, or lacks a function that this crate was built for.
    fn load() -> Result<Self, LoadError> {
        // SAFETY: loading runs the library's constructors. Xen's libraries have none that do
        // anything, and the name has no directory, so it is found in the system's own folders.
        let library = unsafe { libloading::Library::new(Self::SONAME) }.map_err(|source| {
            LoadError::Missing {
                soname: Self::SONAME,
                package: Self::PACKAGE,
                source,
            }
        })?;
        Self::table(library).map_err(|source| LoadError::TooOld {
            soname: Self::SONAME,
            package: Self::PACKAGE,
            source,
        })
    }
}

/// Why a library could not be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum LoadError {
    /// It is not there, or one that it needs itself is not.
    Missing {
        /// The library's name.
        soname: &'static str,
        /// The Debian package that brings it.
        package: &'static str,
        /// What the dynamic linker said.
        source: libloading::Error,
    },
    /// It is there but lacks a function.
    TooOld {
        /// The library's name.
        soname: &'static str,
        /// The Debian package that brings it.
        package: &'static str,
        /// What the dynamic linker said; it names the function.
        source: libloading::Error,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing {
                soname, package, ..
            } => write!(
                f,
                "cannot load {soname}: install the Debian package {package}, \
                 or what your distribution calls it"
            ),
            Self::TooOld {
                soname, package, ..
            } => write!(
                f,
                "{soname} lacks a function that is needed here: \
                 install a newer {package}; 4.17 is known to do"
            ),
        }
    }
}

impl Error for LoadError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Missing { source, .. } | Self::TooOld { source, .. } => Some(source),
        }
    }
}

macro_rules! libraries {
    ($($table:path: $soname:literal, $package:literal;)*) => {$(
        impl Library for $table {
            const SONAME: &'static str = $soname;
            const PACKAGE: &'static str = $package;

            fn table(library: libloading::Library) -> Result<Self, libloading::Error> {
                // SAFETY: the types of the functions come from the header of this very soname.
                unsafe { Self::from_library(library) }
            }
        }
    )*};
}

// libxengnttab and libxenevtchn keep their interface: any 1.x will do. libxenctrl changes with every
// release of Xen, so only the release of the headers is accepted; another would read other structures.
libraries! {
    crate::gnttab::GrantTable: "libxengnttab.so.1", "libxengnttab1";
    crate::evtchn::EventChannel: "libxenevtchn.so.1", "libxenevtchn1";
    crate::ctrl::Control: "libxenctrl.so.4.17", "libxenmisc4.17";
}
