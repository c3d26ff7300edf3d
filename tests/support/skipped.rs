//! A test that cannot run here says so in a line that `ci/test` counts, and passes.
//!
//! ```text
//! SKIPPED: not on this machine: there is no /dev/net/tun
//! SKIPPED: not installed: the program zsh
//! ```
//!
//! The second kind fails CI (`CI_NO_SKIPS=1`), since `ci/lib/install.sh` installs what is missing.

use std::fmt::Display;
use std::io::Write;
use std::process::{Command, Stdio};

/// The test needs what no installation brings: rights, a device, a namespace, or no Xen.
pub fn not_on_this_machine(why: impl Display) {
    say(&format!("not on this machine: {why}"));
}

/// The test needs what `ci/lib/install.sh` installs.
pub fn not_installed(what: impl Display) {
    say(&format!("not installed: {what}"));
}

/// True if there is a program of this name. Whoever asks for one that is missing is skipped.
pub fn there_is(program: &str) -> bool {
    let found = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .output()
        .is_ok();
    if !found {
        not_installed(format_args!("the program {program}"));
    }
    found
}

/// Not by `eprintln!`, whose output libtest swallows when a test passes; in one piece, since other tests write too.
fn say(text: &str) {
    let line = format!("SKIPPED: {text}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
