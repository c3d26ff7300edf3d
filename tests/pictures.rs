//! The pictures of terminals in README.md, which `ci/pictures` makes, are there and still true.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use netfront_tests::program;
use roxmltree::Document;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Name and text of each picture that the README shows, with the words for whoever does not see it.
fn shown() -> Vec<(String, PathBuf)> {
    let readme = fs::read_to_string(repository().join("README.md")).unwrap();
    let mut shown = Vec::new();
    for part in readme.split("![").skip(1) {
        let (words, rest) = part.split_once("](").unwrap();
        let link = rest.split(')').next().unwrap();
        if link.starts_with("docs/pictures/") {
            shown.push((words.to_owned(), repository().join(link)));
        }
    }
    shown
}

/// The lines of the terminal. The texts of one line stand at one height.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let document =
        Document::parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let screen = document
        .descendants()
        .find(|node| {
            node.attribute("class")
                .is_some_and(|class| class.ends_with("-matrix"))
        })
        .unwrap_or_else(|| panic!("{}: no screen", path.display()));
    let mut lines: BTreeMap<u64, String> = BTreeMap::new();
    for text in screen.children().filter(|node| node.is_element()) {
        let height: f64 = text.attribute("y").unwrap().parse().unwrap();
        let line = lines.entry((height * 10.0) as u64).or_default();
        line.push_str(text.text().unwrap_or_default());
    }
    // A blank that must not be lost is one that does not break.
    let plain = |line: String| line.replace('\u{a0}', " ");
    lines.into_values().map(plain).collect()
}

fn picture(name: &str) -> Vec<String> {
    lines(&repository().join(format!("docs/pictures/{name}.svg")))
}

/// The words of the lines of a table that is kept, those with figures left out.
fn kept(name: &str) -> Vec<String> {
    let path = format!("netfront/tests/shapes/{name}.table");
    let text = fs::read_to_string(repository().join(path)).unwrap();
    let words = |line: &&str| line.starts_with(|first: char| first.is_ascii_lowercase());
    text.lines().filter(words).map(str::to_owned).collect()
}

#[test]
fn the_readme_shows_every_picture_and_says_what_it_is() {
    let shown = shown();
    for (words, path) in &shown {
        assert!(words.split(' ').count() > 5, "{}: {words}", path.display());
    }
    let mut named: Vec<PathBuf> = shown.into_iter().map(|(_, path)| path).collect();
    named.sort();
    let folder = fs::read_dir(repository().join("docs/pictures")).unwrap();
    let mut there: Vec<PathBuf> = folder.map(|file| file.unwrap().path()).collect();
    there.sort();
    assert_eq!(named, there);
    assert_eq!(there.len(), 3);
}

#[test]
fn each_begins_with_a_command_that_there_is_and_names_no_machine() {
    for (_, path) in shown() {
        let lines = lines(&path);
        let command = lines[0].strip_prefix("$ ").unwrap();
        let check = Command::new(program("netfront"))
            .args(["generate", "check", "--"])
            .args(command.split(' '))
            .output()
            .unwrap();
        assert!(check.status.success(), "{command}: {check:?}");
        assert!(lines.len() > 1, "{command}: it said nothing");
        let text = lines.join("\n");
        for place in ["/home/", "/root/", "/tmp/", "/target/"] {
            assert!(!text.contains(place), "{command}: {place}: {text}");
        }
        let bytes = fs::metadata(&path).unwrap().len();
        assert!(bytes < 20_000, "{command}: {bytes} bytes");
    }
}

#[test]
fn what_they_show_is_what_the_program_shows_today() {
    let how = "ci/pictures makes them anew";
    let top = picture("top");
    let words = |line: &String| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let header = &kept("top")[0];
    assert!(
        top.iter().any(|line| words(line) == *header),
        "{header}: {top:#?}; {how}"
    );
    let status = picture("status");
    for line in kept("status") {
        let first = line.split(' ').next().unwrap();
        let has = |line: &String| line.split_whitespace().next() == Some(first);
        assert!(status.iter().any(has), "{first}: {status:#?}; {how}");
    }
}
