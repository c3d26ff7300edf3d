//! Raw bindings to Xen's userspace libraries, loaded at run time.
//!
//! A program that uses this crate starts on any machine: the libraries are looked for when a
//! [`load`](Library::load) function is called, and on a machine without them the error names the
//! package to install.
//!
//! * [`gnttab`]: libxengnttab, sharing own pages (`xengntshr_`) and using those of others (`xengnttab_`)
//! * [`evtchn`]: libxenevtchn, event channels
//! * [`ctrl`]: libxenctrl, only the list of domains, for comparisons made in dom0
//! * [`toollog`]: the logger that all three take
//!
//! The files in `bindings/` are bindgen's output for Xen 4.17 on x86-64, committed. The program
//! `regenerate` (feature `bindgen`) makes them anew, or compares them with the headers installed.
//! The headers' `IOCTL_` macros are not among them (bindgen cannot express them) and are not needed:
//! every ioctl is made by the libraries.

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!(
    "the committed bindings are for Linux on x86-64; for another machine run the program \
     `regenerate` there (feature `bindgen`) and review the layouts"
);

mod load;

pub use load::{Library, LoadError};

/// bindgen's output is taken as it comes: names are C's, and what it lacks in docs stands in Xen's
/// headers, whose comments are not copied.
macro_rules! bindings {
    ($($(#[$doc:meta])* $name:ident = $path:literal;)*) => {$(
        $(#[$doc])*
        #[allow(
            missing_docs,
            non_camel_case_types,
            non_upper_case_globals,
            clippy::all,
            clippy::missing_safety_doc,
            clippy::undocumented_unsafe_blocks
        )]
        #[rustfmt::skip]
        #[path = $path]
        pub mod $name;
    )*};
}

bindings! {
    /// `xengnttab.h`: grants, of own pages and of others'.
    gnttab = "bindings/gnttab.rs";
    /// `xenevtchn.h`: event channels.
    evtchn = "bindings/evtchn.rs";
    /// `xenctrl.h`: opening the interface and listing domains; nothing else.
    ctrl = "bindings/ctrl.rs";
    /// `xentoollog.h`: the logger that the libraries take. Without one they print to stderr.
    toollog = "bindings/toollog.rs";
}
