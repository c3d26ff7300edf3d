//! The committed bindings are what the headers say, and what they say is what the code relies on.

use std::mem::{align_of, offset_of, size_of};

use netfront_tests::skipped;
use xen_sys::{ctrl, gnttab, toollog};

#[path = "../src/generate.rs"]
mod generate;

#[test]
fn the_committed_bindings_match_the_installed_headers() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bindings");
    for binding in generate::BINDINGS {
        if !binding.header_is_installed() {
            let file = binding.file;
            skipped::not_installed(format_args!(
                "libxen-dev, with whose headers {file} is compared"
            ));
            continue;
        }
        let made = match binding.generate() {
            Ok(made) => made,
            Err(error) if error.contains("libclang") => {
                let file = binding.file;
                skipped::not_installed(format_args!(
                    "libclang, with which {file} is compared: {error}"
                ));
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        let committed = std::fs::read_to_string(folder.join(binding.file)).unwrap();
        assert!(
            committed == made,
            "{} differs from the header installed here",
            binding.file
        );
    }
}

#[test]
fn a_copy_segment_has_the_layout_of_the_kernel_interface() {
    use gnttab::{xengnttab_grant_copy_segment as Segment, GNTCOPY_dest_gref, GNTCOPY_source_gref};
    assert_eq!((size_of::<Segment>(), align_of::<Segment>()), (24, 8));
    assert_eq!(
        (offset_of!(Segment, source), offset_of!(Segment, dest)),
        (0, 8)
    );
    assert_eq!(
        (offset_of!(Segment, len), offset_of!(Segment, flags)),
        (16, 18)
    );
    assert_eq!(offset_of!(Segment, status), 20);
    assert_eq!((GNTCOPY_source_gref, GNTCOPY_dest_gref), (1, 2));
}

#[test]
fn a_foreign_pointer_packs_reference_offset_and_domain_into_eight_bytes() {
    use gnttab::xengnttab_grant_copy_segment_xengnttab_copy_ptr as Pointer;
    assert_eq!(size_of::<Pointer>(), 8);
}

#[test]
fn the_domain_list_is_that_of_the_release_the_library_is_loaded_for() {
    use ctrl::xc_domaininfo_t as Info;
    assert_eq!(ctrl::XEN_DOMCTL_INTERFACE_VERSION, 0x15);
    assert_eq!(size_of::<Info>(), 112);
    assert_eq!(
        (offset_of!(Info, tot_pages), offset_of!(Info, cpu_time)),
        (8, 56)
    );
}

#[test]
fn a_logger_is_three_function_pointers() {
    assert_eq!(size_of::<toollog::xentoollog_logger>(), 24);
}
