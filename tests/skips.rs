//! What is skipped is seen, counted, and fails CI where an installation would have brought what is missing.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use netfront_tests::skipped;

/// What `ci/test` prints and its exit code, with these parts in place of its own.
fn ci(parts: &str, no_skips: bool) -> (String, Option<i32>) {
    let logs = tempfile::tempdir().unwrap();
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new("bash");
    command
        .args([
            "-c",
            &format!("set -u\n. ci/lib/parts.sh\n{parts}\nfinish\n"),
        ])
        .current_dir(repository)
        .env("CI_LOGS", logs.path())
        .env_remove("CI_NO_SKIPS");
    if no_skips {
        command.env("CI_NO_SKIPS", "1");
    }
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    (said, output.status.code())
}

const PARTS: &str = "\
part one 1 sh -c 'echo SKIPPED: not on this machine: no tun; echo test a ... SKIPPED: not on this machine: no tun'
part two 1 sh -c 'echo SKIPPED: not installed: the program warp >&2'
part three 1 true";

#[test]
fn skips_are_counted_with_their_reasons() {
    let (said, code) = ci(PARTS, false);
    assert_eq!(code, Some(0), "{said}");
    for wanted in [
        "one: 2 x not on this machine: no tun\n",
        "two: 1 x not installed: the program warp\n",
    ] {
        assert!(said.contains(wanted), "{wanted}\n{said}");
    }
    assert!(
        said.ends_with("\n3 passed, 0 failed, 3 skipped\n"),
        "{said}"
    );
}

#[test]
fn where_everything_was_installed_a_missing_program_is_a_failure_and_a_missing_device_is_none() {
    let (said, code) = ci(PARTS, true);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FAILED: not installed"), "{said}");
    assert!(
        said.ends_with("\n2 passed, 1 failed, 3 skipped\n"),
        "{said}"
    );
}

#[test]
fn skips_of_a_run_inside_of_a_run_are_counted_once() {
    let inner = format!("part inner 1 bash -c '. ci/lib/parts.sh\n{}\nfinish'", {
        PARTS.replace('\'', "\"")
    });
    let (said, code) = ci(&inner, false);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.ends_with("\n1 passed, 0 failed, 3 skipped\n"),
        "{said}"
    );
}

#[test]
fn a_test_that_passes_because_it_was_skipped_is_seen_all_the_same() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "skips_itself"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        said.contains("SKIPPED: not on this machine: it has no warp drive\n"),
        "{said}"
    );
    assert!(
        said.contains("SKIPPED: not installed: the program no-such-program\n"),
        "{said}"
    );
}

#[test]
#[ignore = "another test runs it"]
fn skips_itself() {
    skipped::not_on_this_machine("it has no warp drive");
    assert!(!skipped::there_is("no-such-program"));
    assert!(skipped::there_is("bash"));
}
