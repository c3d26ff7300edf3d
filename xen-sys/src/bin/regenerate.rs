//! Writes `src/bindings/*.rs` from the headers installed here, or, with `--check`, compares and
//! fails when they differ.
//!
//! `cargo run -p xen-sys --features bindgen --bin regenerate [-- --check]`

#[path = "../generate.rs"]
mod generate;

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let check = match std::env::args().skip(1).collect::<Vec<_>>().as_slice() {
        [] => false,
        [flag] if flag == "--check" => true,
        _ => {
            eprintln!("usage: regenerate [--check]");
            return ExitCode::from(2);
        }
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bindings");
    let mut good = true;
    for binding in generate::BINDINGS {
        if let Err(error) = one(binding, &folder.join(binding.file), check) {
            eprintln!("{error}");
            good = false;
        }
    }
    if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn one(binding: &generate::Binding, path: &Path, check: bool) -> Result<(), String> {
    if !binding.header_is_installed() {
        return Err(format!(
            "{}: its header is not installed: install the Debian package libxen-dev",
            binding.file
        ));
    }
    let made = binding.generate()?;
    if !check {
        return std::fs::write(path, made).map_err(|error| format!("{}: {error}", path.display()));
    }
    let committed =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if committed == made {
        return Ok(());
    }
    let line = committed
        .lines()
        .zip(made.lines())
        .position(|(a, b)| a != b)
        .unwrap_or_else(|| committed.lines().count().min(made.lines().count()))
        + 1;
    Err(format!(
        "{} differs from the headers installed here, first in line {line}; \
         if the headers are of the intended release, run regenerate and review the change",
        path.display()
    ))
}
