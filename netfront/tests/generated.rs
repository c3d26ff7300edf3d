//! What is made from the definitions of the command line: `--help`, man pages, completions.
//!
//! The texts of `--help` are kept in `tests/help`, the table of counters in `docs/operating.md`. After a change: `UPDATE=1 cargo test -p netfront --test generated`,
//! and read the difference.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use netfront_tests::skipped::there_is;
use tempfile::TempDir;

fn netfront(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_netfront"))
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The commands that `--help` names.
fn commands() -> Vec<String> {
    netfront_tests::commands(&netfront(&["--help"]))
}

fn generated(what: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    netfront(&["generate", what, "--out", &dir.path().to_string_lossy()]);
    dir
}

/// What a shell answers; one that waits for what does not come is ended.
fn shell(program: &str, script: &str) -> Output {
    let mut command = Command::new("timeout");
    command
        .args(["180", program, "-c", script])
        .output()
        .unwrap()
}

#[test]
fn every_help_is_as_it_was_when_somebody_last_read_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let update = std::env::var_os("UPDATE").is_some();
    let names: Vec<String> = std::iter::once("netfront".into())
        .chain(commands())
        .collect();
    let mut wrong = Vec::new();
    for name in &names {
        let help = match name.as_str() {
            "netfront" => netfront(&["--help"]),
            command => netfront(&[command, "--help"]),
        };
        let path = folder.join(format!("{name}.txt"));
        if update {
            fs::write(&path, &help).unwrap();
        } else if fs::read_to_string(&path).ok().as_ref() != Some(&help) {
            wrong.push(format!("{name}:\n{help}"));
        }
    }
    let kept: BTreeSet<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    let wanted: BTreeSet<PathBuf> = names
        .iter()
        .map(|name| folder.join(format!("{name}.txt")))
        .collect();
    for left_over in kept.difference(&wanted) {
        if update {
            fs::remove_file(left_over).unwrap();
        } else {
            wrong.push(format!("{} is of no command", left_over.display()));
        }
    }
    let how = "if it is meant: UPDATE=1 cargo test -p netfront --test generated";
    assert!(wrong.is_empty(), "{how}\n\n{}", wrong.join("\n"));
}

#[test]
fn there_is_a_man_page_for_each_command_and_man_has_nothing_to_say_against_it() {
    let pages = generated("man");
    let mut names: Vec<String> = commands()
        .iter()
        .map(|name| format!("netfront-{name}.1"))
        .collect();
    names.extend(["netfront.1".into(), "netfront.toml.5".into()]);
    for name in &names {
        let path = pages.path().join(name);
        assert!(path.is_file(), "{name} is missing");
        let script = format!(
            "MANWIDTH=100 man --warnings -E UTF-8 -l {} | cat",
            path.display()
        );
        if !there_is("man") {
            continue;
        }
        let output = shell("sh", &script);
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            text.contains("NAME") && text.contains("DESCRIPTION"),
            "{name}: {text}{errors}"
        );
        assert_eq!(errors, "", "{name}");
    }
    assert_eq!(fs::read_dir(pages.path()).unwrap().count(), names.len());
}

#[test]
fn bash_completes_commands_and_flags_and_hides_what_is_not_for_users() {
    let dir = generated("completions");
    let script = format!(
        "source {}; COMP_WORDS=(netfront ''); COMP_CWORD=1; _netfront netfront '' netfront; \
         echo \"${{COMPREPLY[@]}}\"; COMP_WORDS=(netfront run --t); COMP_CWORD=2; _netfront netfront --t run; \
         echo \"${{COMPREPLY[@]}}\"",
        dir.path().join("netfront.bash").display()
    );
    if !there_is("bash") {
        return;
    }
    let output = shell("bash", &script);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (first, second) = text.split_once('\n').unwrap();
    let offered: Vec<&str> = first.split(' ').collect();
    for command in commands() {
        assert!(offered.contains(&command.as_str()), "{command}: {first}");
    }
    for hidden in ["generate", "simulated-xen", "demo-front"] {
        assert!(!offered.contains(&hidden), "{hidden}: {first}");
    }
    assert!(second.contains("--tap"), "{second}");
}

#[test]
fn zsh_completes_commands_and_flags() {
    let dir = generated("completions");
    // A terminal of zsh's own, since completion works in an interactive shell only. The second line is typed after the first
    // is thrown away (^U). Several flags begin with --t, so that they are listed; --tx-pages is the last.
    let script = format!(
        "zmodload zsh/zpty || exit 9; zpty z 'PS1=; TERM=dumb zsh -f -i'; \
         zpty -w z 'fpath=({} $fpath); autoload -U compinit; compinit -u -D; bindkey \"^I\" complete-word; \
         zstyle \":completion:*\" list-prompt \"\"; LISTMAX=0; echo RE''ADY'; \
         zpty -r -m z x '*READY*'; zpty -w -n z $'netfront pro\\t'; \
         zpty -r -m z y '*netfront probe*'; print -r -- \"$y\"; \
         zpty -w -n z $'\\C-unetfront run --t\\t'; \
         zpty -r -m z w '*--tx-pages*'; print -r -- \"$w\"; zpty -d z",
        dir.path().display()
    );
    if !there_is("zsh") {
        return;
    }
    let output = shell("zsh", &script);
    let text = String::from_utf8_lossy(&output.stdout);
    for completed in ["netfront probe", "--tap", "--tx-pages"] {
        assert!(text.contains(completed), "{completed}: {output:?}");
    }
}

#[test]
fn a_command_line_can_be_checked_without_being_run() {
    netfront(&[
        "generate", "check", "--", "netfront", "run", "--vif", "1", "--tap", "xn1",
    ]);
    let output = Command::new(env!("CARGO_BIN_EXE_netfront"))
        .args(["generate", "check", "--", "netfront", "run", "--vif", "1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn the_documentation_has_every_counter_with_its_meaning() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating.md");
    let page = fs::read_to_string(&path).unwrap();
    let [begin, end] = ["begin", "end"]
        .map(|word| format!("<!-- made by `netfront generate counters`: {word} -->"));
    let (before, rest) = page.split_once(&begin).unwrap();
    let (_, after) = rest.split_once(&end).unwrap();
    let table = netfront(&["generate", "counters"]);
    let wanted = format!("{before}{begin}\n{table}{end}{after}");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, wanted).unwrap();
    } else {
        assert_eq!(
            page, wanted,
            "UPDATE=1 cargo test -p netfront --test generated"
        );
    }
}
