//! How the files in `bindings/` are made from Xen's headers.
//!
//! Shared by the program `regenerate` and the drift test; it is no part of the library, so that users
//! need neither bindgen nor libclang. Header comments are not copied, since the headers are under
//! another licence. Only what is used is bound: a function that an older library lacks would
//! otherwise make the whole library fail to load.

use std::panic::{catch_unwind, AssertUnwindSafe};

/// One file of `bindings/`.
pub struct Binding {
    /// File name in `src/bindings/`.
    pub file: &'static str,
    /// The header it comes from, as C includes it.
    header: &'static str,
    /// Name of the function table; none for a file of types only.
    table: Option<&'static str>,
    functions: &'static [&'static str],
    types: &'static [&'static str],
    constants: &'static [&'static str],
}

/// All files, in the order in which they are written.
pub const BINDINGS: &[Binding] = &[
    Binding {
        file: "toollog.rs",
        header: "xentoollog.h",
        table: None,
        functions: &[],
        types: &["xentoollog_logger"],
        constants: &[],
    },
    Binding {
        file: "gnttab.rs",
        header: "xengnttab.h",
        table: Some("GrantTable"),
        functions: &[
            "xengnttab_open",
            "xengnttab_close",
            "xengnttab_map_domain_grant_refs",
            "xengnttab_unmap",
            "xengnttab_grant_copy",
            "xengntshr_open",
            "xengntshr_close",
            "xengntshr_fd",
            "xengntshr_share_pages",
            "xengntshr_share_page_notify",
            "xengntshr_unshare",
        ],
        types: &["xengnttab_grant_copy_segment_t"],
        constants: &["GNTCOPY_.*", "GNTST_.*"],
    },
    Binding {
        file: "evtchn.rs",
        header: "xenevtchn.h",
        table: Some("EventChannel"),
        functions: &[
            "xenevtchn_open",
            "xenevtchn_close",
            "xenevtchn_fd",
            "xenevtchn_notify",
            "xenevtchn_bind_unbound_port",
            "xenevtchn_bind_interdomain",
            "xenevtchn_unbind",
            "xenevtchn_pending",
            "xenevtchn_unmask",
        ],
        types: &[],
        constants: &[],
    },
    Binding {
        file: "ctrl.rs",
        header: "xenctrl.h",
        table: Some("Control"),
        functions: &[
            "xc_interface_open",
            "xc_interface_close",
            "xc_domain_getinfolist",
        ],
        types: &["xc_domaininfo_t"],
        // The hypervisor refuses a domctl of another release: a change here means that the soname
        // in lib.rs has to change too.
        constants: &["XEN_DOMCTL_INTERFACE_VERSION"],
    },
];

impl Binding {
    /// Whether the header is on this machine.
    pub fn header_is_installed(&self) -> bool {
        std::path::Path::new("/usr/include")
            .join(self.header)
            .exists()
    }

    /// The text of the file, from the headers installed here.
    pub fn generate(&self) -> Result<String, String> {
        let wrapper = format!("#include <{}>\n", self.header);
        let mut builder = bindgen::Builder::default()
            .header_contents("wrapper.h", &wrapper)
            .generate_comments(false)
            .wrap_unsafe_ops(true)
            .merge_extern_blocks(true)
            .rust_edition(bindgen::RustEdition::Edition2021)
            .rust_target(bindgen::RustTarget::stable(88, 0).map_err(|error| error.to_string())?)
            // Not rustfmt: its version would then be part of the drift.
            .formatter(bindgen::Formatter::Prettyplease);
        match self.table {
            Some(name) => {
                builder = builder
                    .dynamic_library_name(name)
                    .dynamic_link_require_all(true)
                    // One logger type for the three libraries.
                    .blocklist_type("xentoollog_.*|va_list|__builtin_va_list|__va_list_tag")
                    .raw_line("use super::toollog::xentoollog_logger;");
            }
            None => builder = builder.ignore_functions(),
        }
        for function in self.functions {
            builder = builder.allowlist_function(function);
        }
        for kind in self.types {
            builder = builder.allowlist_type(kind);
        }
        for constant in self.constants {
            builder = builder.allowlist_var(constant);
        }
        // bindgen panics when it cannot load libclang, and says nothing about packages.
        match catch_unwind(AssertUnwindSafe(|| builder.generate())) {
            Ok(Ok(bindings)) => Ok(bindings.to_string()),
            Ok(Err(error)) => Err(format!(
                "{}: {error}; Xen's headers are in the Debian package libxen-dev",
                self.header
            )),
            Err(_) => Err(format!(
                "{}: bindgen gave up; if it says above that libclang is missing, install the Debian package libclang-dev",
                self.header
            )),
        }
    }
}
