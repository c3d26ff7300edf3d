//! Gives the shared library the name that a program looks for when it starts. The number is raised when a
//! program that was built before no longer works with it.

fn main() {
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnetfront_c.so.0");
    println!("cargo:rerun-if-changed=build.rs");
}
