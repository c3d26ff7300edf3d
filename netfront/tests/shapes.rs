//! The shape of every table and of every JSON report: names and kinds, without the numbers. Scripts depend on them.
//!
//! They are kept in `tests/shapes`. After a change: `UPDATE=1 cargo test -p netfront --test shapes`, and read the
//! difference: a name that goes or changes its kind needs another `schema`. What `take`, `give` and `confirm` report,
//! which need a vif of the kernel's, is kept beside their code.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "common/driver.rs"]
mod driver;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde_json::Value;

use driver::{netfront, World};

fn run(words: &[&str]) -> String {
    let output = netfront().args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// One line for each path, with every kind of value that is found there: the elements of a list need not be alike.
fn shape(path: &str, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    kinds(path, value, &mut found);
    let mut paths: Vec<&str> = Vec::new();
    let mut by_path: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (path, kind) in &found {
        if !by_path.contains_key(path.as_str()) {
            paths.push(path);
        }
        by_path.entry(path).or_default().insert(kind);
    }
    let line = |path: &&str| {
        let kinds: Vec<&str> = by_path[path].iter().copied().collect();
        format!("{path}: {}", kinds.join(" or "))
    };
    paths.iter().map(line).collect()
}

/// The path of each value and its kind.
fn kinds(path: &str, value: &Value, found: &mut Vec<(String, String)>) {
    let kind = match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                kinds(&format!("{path}.{key}"), value, found);
            }
            return;
        }
        Value::Array(values) if values.is_empty() => "empty list".to_owned(),
        Value::Array(values) => {
            for value in values {
                kinds(&format!("{path}[]"), value, found);
            }
            return;
        }
        // On a busy machine a short bench may see not one packet cross the bare ring; by that nothing can be divided.
        Value::Null | Value::Number(_) if path == ".rows[].ratio" => "number or null".to_owned(),
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if path.ends_with(".schema") => number.to_string(),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
    };
    found.push((path.to_owned(), kind));
}

/// A line without its numbers, widths and units.
fn masked(line: &str) -> String {
    let mut words = Vec::new();
    let mut after_number = false;
    for word in line.split_whitespace() {
        let bare = word.trim_start_matches('(');
        let before = &word[..word.len() - bare.len()];
        let number = word == "n/a" || bare.starts_with(|first: char| first.is_ascii_digit());
        let unit = word.trim_end_matches([')', ',', ':', ';']);
        words.push(match word.chars().next() {
            _ if number => format!("{before}N"),
            // How many there are decides over the unit.
            _ if after_number && ["B", "KiB", "MiB", "GiB"].contains(&unit) => "bytes".to_owned(),
            Some('-') => "-".to_owned(),
            // A pool as a bar.
            Some('[') => "[bar".to_owned(),
            _ => word.to_owned(),
        });
        after_number = number;
    }
    words.join(" ")
}

/// What was found, and how it differs from what is kept.
#[derive(Default)]
struct Kept {
    wrong: Vec<String>,
}

impl Kept {
    fn keep(&mut self, name: &str, lines: &[String]) {
        let now = lines.join("\n") + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/shapes")
            .join(name);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(path, now).unwrap();
        } else if fs::read_to_string(path).ok().as_ref() != Some(&now) {
            self.wrong.push(format!("{name}:\n{now}"));
        }
    }

    fn table(&mut self, name: &str, text: &str) {
        let lines: Vec<String> = text.lines().map(masked).collect();
        self.keep(&format!("{name}.table"), &lines);
    }

    fn json(&mut self, name: &str, text: &str) {
        let value: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}\n{text}"));
        self.keep(&format!("{name}.json"), &shape("", &value));
    }

    /// Both forms of what a command says that finds a driver.
    fn both(&mut self, world: &World, name: &str, words: &[&str]) {
        self.table(name, &world.text(words));
        self.json(name, &world.text(&[words, &["--json"]].concat()));
    }

    /// Both forms of what a command says without a driver.
    fn alone(&mut self, name: &str, words: &[&str]) {
        self.table(name, &run(words));
        self.json(name, &run(&[words, &["--json"]].concat()));
    }

    fn end(self) {
        let how = "if it is meant: UPDATE=1 cargo test -p netfront --test shapes";
        assert!(self.wrong.is_empty(), "{how}\n\n{}", self.wrong.join("\n"));
    }
}

#[test]
fn what_a_running_driver_shows_has_the_names_that_scripts_know() {
    let world = World::new(&[]);
    let mut kept = Kept::default();
    kept.both(&world, "stats", &["stats"]);
    let explained = world.text(&["stats", "--explain", "--json"]);
    kept.json("stats-explain", &explained);
    kept.both(&world, "status", &["status"]);
    kept.both(&world, "top", &["top", "--interval", "0.2", "--count", "1"]);
    let engine = ["top", "--engine", "--interval", "0.2", "--count", "1"];
    kept.both(&world, "top-engine", &engine);
    // Its exit code says whether the vif can be used, on a machine that may have no /dev/net/tun.
    let probe = |words: &[&str]| String::from_utf8(world.command(words).stdout).unwrap();
    kept.json("probe", &probe(&["probe", "--json"]));
    let text = probe(&["probe"]);
    // What comes before is about the machine.
    let vif = text.find("ok       vif: ").expect(&text);
    kept.table("probe", &text[vif..]);
    kept.end();
}

#[test]
fn what_a_driver_answers_that_is_told_something_has_the_names_that_scripts_know() {
    let world = World::new(&[]);
    let mut kept = Kept::default();
    let file = world.path("out.pcap");
    let capture = [
        "capture",
        "--count",
        "20",
        "--write",
        file.to_str().unwrap(),
    ];
    kept.both(&world, "capture", &capture);
    for order in ["kick", "pause", "resume", "mode", "affinity"] {
        kept.both(&world, order, &[order]);
    }
    kept.json("stop", &world.text(&["stop", "--json"]));
    let world = World::new(&[]);
    kept.table("stop", &world.text(&["stop"]));

    let mut world = World::new(&[]);
    world.driver.0.kill().unwrap();
    world.driver.0.wait().unwrap();
    kept.both(&world, "reset", &["reset"]);
    kept.end();
}

#[test]
fn a_trace_has_the_names_that_scripts_know() {
    let world = World::new(&[]);
    let mut kept = Kept::default();
    let trace = ["trace", "--count", "1000"];
    let text = world.text(&trace);
    let json = world.text(&[&trace[..], &["--json"]].concat());
    let objects: Vec<Value> = json
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let (mut lines, mut shapes) = (Vec::new(), Vec::new());
    // Whether there are events and notifications among these is chance.
    for (ring, what) in [
        ("rx", "request"),
        ("rx", "response"),
        ("tx", "request"),
        ("tx", "response"),
    ] {
        let start = format!("N {ring} {what} ");
        let mut found = text.lines().map(masked);
        lines.extend(found.find(|line| line.starts_with(&start)));
        let mut found = objects.iter();
        let found = found.find(|line| line["ring"] == ring && line["what"] == what);
        shapes.extend(shape(&format!("{ring} {what} "), found.unwrap()));
    }
    kept.keep("trace.table", &lines);
    kept.keep("trace.json", &shapes);
    kept.end();
}

#[test]
fn metrics_have_the_names_that_dashboards_know() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("vif0.prom");
    let _world = World::new(&["--metrics-file", file.to_str().unwrap()]);
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<String> = text
        .lines()
        .filter(|line| !line.starts_with("# HELP"))
        .map(|line| match line.rsplit_once(' ') {
            Some((name, _)) if !line.starts_with('#') => format!("{name} N"),
            _ => line.to_owned(),
        })
        .collect();
    let mut kept = Kept::default();
    kept.keep("metrics.text", &lines);
    kept.end();
}

#[test]
fn demo_and_bench_have_the_names_that_scripts_know() {
    let mut kept = Kept::default();
    kept.alone("demo", &["demo", "--seconds", "2", "--policy", "pool"]);
    let bench = "bench --seconds 0.05 --sizes 64 --policies pool";
    let bench: Vec<&str> = bench.split(' ').collect();
    kept.alone("bench", &bench);
    kept.end();
}

#[test]
fn a_value_of_another_kind_further_down_a_list_is_seen_too() {
    let value = serde_json::json!({"rows": [{"a": 1, "b": null}, {"a": 2, "b": "text", "c": []}]});
    let wanted = [
        ".rows[].a: number",
        ".rows[].b: null or string",
        ".rows[].c: empty list",
    ];
    assert_eq!(shape("", &value), wanted);
}

#[test]
fn every_command_that_reports_has_json_and_every_json_that_is_kept_names_its_schema() {
    let help = run(&["--help"]);
    let list = help.split("Commands:\n").nth(1).unwrap();
    let commands = list
        .lines()
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next());
    for command in commands.filter(|name| *name != "help") {
        let help = run(&[command, "--help"]);
        assert!(help.contains("--json"), "{command}: {help}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shapes");
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|end| end == "json") {
            let shape = fs::read_to_string(&path).unwrap();
            assert!(shape.contains(".schema: 1\n"), "{}", path.display());
        }
    }
}
