//! The shape of every table and of every JSON report: names and kinds, without the numbers. Scripts depend on them.
//!
//! They are kept in `tests/shapes`. After a change: `UPDATE=1 cargo test -p netfront --test shapes`, and read the
//! difference: a name that goes or changes its kind needs another `schema`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hypervisor::sim::server::{self, Options};
use hypervisor::{DomId, Domain};
use netback_sim::{peer, Backend, Config};
use serde_json::Value;

const NETFRONT: &str = env!("CARGO_BIN_EXE_netfront");

fn netfront(words: &[&str]) -> String {
    let output = Command::new(NETFRONT).args(words).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// One line for each value, by its path.
fn shape(path: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                shape(&format!("{path}.{key}"), value, lines);
            }
        }
        Value::Array(values) => match values.first() {
            Some(first) => shape(&format!("{path}[]"), first, lines),
            None => lines.push(format!("{path}: empty list")),
        },
        // On a busy machine a short bench may see not one packet cross the bare ring; by that nothing can be divided.
        Value::Null | Value::Number(_) if path == ".rows[].ratio" => {
            lines.push(format!("{path}: number or null"));
        }
        Value::Null => lines.push(format!("{path}: null")),
        Value::Bool(_) => lines.push(format!("{path}: bool")),
        Value::Number(number) if path == ".schema" => lines.push(format!("{path}: {number}")),
        Value::Number(_) => lines.push(format!("{path}: number")),
        Value::String(_) => lines.push(format!("{path}: string")),
    }
}

fn json(words: &[&str]) -> String {
    let text = netfront(words);
    let value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?}: {error}\n{text}"));
    let mut lines = Vec::new();
    shape("", &value, &mut lines);
    lines.join("\n") + "\n"
}

/// A table without its numbers and widths.
fn table(words: &[&str]) -> String {
    let word = |word: &str| match word.chars().next() {
        Some('0'..='9') => "N".to_owned(),
        Some('-') => "-".to_owned(),
        _ if word == "n/a" => "N".to_owned(),
        _ => word.to_owned(),
    };
    let line = |line: &str| {
        line.split_whitespace()
            .map(word)
            .collect::<Vec<_>>()
            .join(" ")
    };
    netfront(words)
        .lines()
        .map(line)
        .collect::<Vec<_>>()
        .join("\n")
        + "\n"
}

fn keep(name: &str, now: &str, wrong: &mut Vec<String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/shapes")
        .join(name);
    if std::env::var_os("UPDATE").is_some() {
        fs::write(path, now).unwrap();
    } else if fs::read_to_string(path).ok().as_deref() != Some(now) {
        wrong.push(format!("{name}:\n{now}"));
    }
}

struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tables_and_reports_have_the_names_that_scripts_know() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("xen");
    let sim = socket.to_str().unwrap();
    let _server = server::spawn(&socket, Options::new()).unwrap();
    let back = Domain::simulated(&socket, DomId(0)).unwrap();
    let _backend = Backend::start(&back, Config::new(DomId(1), peer::Sink::default())).unwrap();
    let mut command = Command::new(NETFRONT);
    command
        .args(["run", "--echo", "--sim", sim])
        .stderr(Stdio::null());
    let _driver = Driver(command.spawn().unwrap());
    let start = Instant::now();
    while !netfront(&["stats", "--sim", sim]).contains(", connected") {
        assert!(
            start.elapsed() < Duration::from_secs(20),
            "it does not connect"
        );
        std::thread::sleep(Duration::from_millis(50));
    }

    let mut wrong = Vec::new();
    keep("stats.table", &table(&["stats", "--sim", sim]), &mut wrong);
    keep(
        "stats.json",
        &json(&["stats", "--sim", sim, "--json"]),
        &mut wrong,
    );
    keep(
        "probe.json",
        &json(&["probe", "--sim", sim, "--json"]),
        &mut wrong,
    );
    let demo = ["demo", "--seconds", "2", "--policy", "pool"];
    keep("demo.table", &table(&demo), &mut wrong);
    keep(
        "demo.json",
        &json(&[&demo[..], &["--json"]].concat()),
        &mut wrong,
    );
    let bench = [
        "bench",
        "--seconds",
        "0.05",
        "--sizes",
        "64",
        "--policies",
        "pool",
    ];
    keep("bench.table", &table(&bench), &mut wrong);
    keep(
        "bench.json",
        &json(&[&bench[..], &["--json"]].concat()),
        &mut wrong,
    );
    let how = "if it is meant: UPDATE=1 cargo test -p netfront --test shapes";
    assert!(wrong.is_empty(), "{how}\n\n{}", wrong.join("\n"));
}
