//! The texts of `--help`, kept in `tests/help`. After a change: `UPDATE=1 cargo test -p netback-sim --test help`, and read
//! the difference.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

fn help(command: Option<&str>) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_netback-sim"))
        .args(command)
        .arg("--help")
        .output()
        .unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn every_help_is_as_it_was_when_somebody_last_read_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help");
    let update = std::env::var_os("UPDATE").is_some();
    let of_all = help(None);
    let commands = netfront_tests::commands(&of_all);
    assert!(!commands.is_empty(), "{of_all}");
    let mut texts = vec![("netback-sim.txt".to_owned(), of_all)];
    texts.extend(
        commands
            .iter()
            .map(|name| (format!("{name}.txt"), help(Some(name)))),
    );
    let mut wrong = Vec::new();
    for (name, text) in &texts {
        let path = folder.join(name);
        if update {
            fs::write(&path, text).unwrap();
        } else if fs::read_to_string(&path).ok().as_ref() != Some(text) {
            wrong.push(format!("{name}:\n{text}"));
        }
    }
    let wanted: BTreeSet<&str> = texts.iter().map(|(name, _)| name.as_str()).collect();
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match wanted.contains(name.as_str()) {
            true => {}
            false if update => fs::remove_file(&path).unwrap(),
            false => wrong.push(format!("{name} is of no command")),
        }
    }
    let how = "if it is meant: UPDATE=1 cargo test -p netback-sim --test help";
    assert!(wrong.is_empty(), "{how}\n\n{}", wrong.join("\n"));
}
