//! `include/netfront.h` is what the crate's source says, and compilers take it without a word.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn generated() -> String {
    let config = cbindgen::Config::from_file(here().join("cbindgen.toml")).unwrap();
    let mut header = Vec::new();
    cbindgen::Builder::new()
        .with_config(config)
        .with_src(here().join("src/types.rs"))
        .with_src(here().join("src/handle.rs"))
        .with_src(here().join("src/abi.rs"))
        .generate()
        .expect("a header")
        .write(&mut header);
    String::from_utf8(header).unwrap()
}

/// With the variable `WRITE_HEADER` set the header is written instead.
#[test]
fn the_header_that_is_kept_is_the_one_that_the_source_makes() {
    let path: PathBuf = here().join("include/netfront.h");
    let wanted = generated();
    if std::env::var_os("WRITE_HEADER").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == wanted,
        "include/netfront.h is old: WRITE_HEADER=1 cargo test -p netfront-c --test header"
    );
}
