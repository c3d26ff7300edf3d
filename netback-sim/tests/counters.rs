//! What the backend counts is what its documentation says that it counts.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use netback_sim::Snapshot;

/// How the table is made anew.
const UPDATE: &str = "UPDATE=1 cargo test -p netback-sim --test counters";

#[test]
fn the_documentation_has_every_counter_with_its_meaning() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operating.md");
    let page = fs::read_to_string(&path).unwrap();
    let [begin, end] = ["begin", "end"].map(|word| format!("<!-- made by `{UPDATE}`: {word} -->"));
    let (before, rest) = page.split_once(&begin).unwrap();
    let (_, after) = rest.split_once(&end).unwrap();
    let mut table = "| counter | meaning |\n| --- | --- |\n".to_owned();
    for (name, meaning) in Snapshot::meanings() {
        assert!(meaning.ends_with('.'), "{name}: {meaning}");
        table.push_str(&format!("| `{name}` | {meaning} |\n"));
    }
    let wanted = format!("{before}{begin}\n{table}{end}{after}");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, wanted).unwrap();
    } else {
        assert_eq!(page, wanted, "{UPDATE}");
    }
}

#[test]
fn values_and_meanings_have_the_same_names_in_the_same_order() {
    let values = Snapshot::default().fields().into_iter();
    let names: Vec<_> = values.map(|(name, _)| name).collect();
    let meanings: Vec<_> = Snapshot::meanings().iter().map(|&(name, _)| name).collect();
    assert_eq!(names, meanings);
}
