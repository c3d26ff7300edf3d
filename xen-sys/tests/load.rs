//! Loading: what is found works, what is missing is named with its package.

use netfront_tests::skipped;
use xen_sys::{ctrl::Control, evtchn::EventChannel, gnttab::GrantTable, Library, LoadError};

/// Loads a library; when it is not installed, the error must say what to install.
fn load<L: Library>() -> Option<L> {
    match L::load() {
        Ok(table) => Some(table),
        Err(error) => {
            assert!(matches!(error, LoadError::Missing { .. }), "{error}");
            let text = error.to_string();
            assert!(
                text.contains(L::SONAME) && text.contains(L::PACKAGE),
                "{text}"
            );
            skipped::not_installed(text);
            None
        }
    }
}

#[test]
fn every_library_that_is_installed_has_every_function() {
    load::<GrantTable>();
    load::<EventChannel>();
    load::<Control>();
}

#[test]
fn opening_event_channels_off_xen_fails_without_harm() {
    let Some(library) = load::<EventChannel>() else {
        return;
    };
    if std::path::Path::new("/dev/xen/evtchn").exists() {
        return skipped::not_on_this_machine(
            "it is a domain of Xen, so opening event channels works",
        );
    }
    // SAFETY: a null logger is allowed; the handle is not used.
    let handle = unsafe { library.xenevtchn_open(std::ptr::null_mut(), 0) };
    assert!(handle.is_null());
}

#[test]
fn a_missing_library_is_named_with_its_package() {
    struct Absent;
    impl Library for Absent {
        const SONAME: &'static str = "libxennothing.so.1";
        const PACKAGE: &'static str = "libxennothing1";
        fn table(_: libloading::Library) -> Result<Self, libloading::Error> {
            Ok(Self)
        }
    }
    let Err(error) = Absent::load() else {
        panic!("loaded a library that does not exist")
    };
    let text = error.to_string();
    assert!(
        text.contains("libxennothing.so.1") && text.contains("package libxennothing1"),
        "{text}"
    );
    assert!(std::error::Error::source(&error).is_some());
}

#[test]
fn an_old_library_is_told_from_a_missing_one() {
    #[derive(Debug)]
    struct Lacking;
    impl Library for Lacking {
        const SONAME: &'static str = "libc.so.6";
        const PACKAGE: &'static str = "libc6";
        fn table(library: libloading::Library) -> Result<Self, libloading::Error> {
            // SAFETY: the symbol is only looked up.
            unsafe { library.get::<extern "C" fn()>(b"xengntshr_nothing\0") }.map(|_| Self)
        }
    }
    assert!(matches!(
        Lacking::load(),
        Err(LoadError::TooOld {
            soname: "libc.so.6",
            ..
        })
    ));
}
