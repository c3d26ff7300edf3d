//! A child process of the demo: it says what happens in lines of JSON, and is told what to do in lines of text.

use std::io::{BufRead, BufReader, Lines, Write};
use std::process::{ChildStdin, ChildStdout, Stdio};

use serde_json::Value;

use crate::failure::Failure;
use crate::ground::{respawn, Guarded};

/// A child process and its two pipes. It is ended when this is dropped.
pub struct Child {
    name: &'static str,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    _process: Guarded,
}

impl Child {
    /// Starts this program again with other arguments.
    pub fn start(name: &'static str, args: &[&str]) -> Result<Self, Failure> {
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let mut process = respawn(&args, Stdio::piped(), Stdio::piped())?;
        match (process.0.stdin.take(), process.0.stdout.take()) {
            (Some(stdin), Some(stdout)) => Ok(Self {
                name,
                stdin,
                lines: BufReader::new(stdout).lines(),
                _process: process,
            }),
            _ => Err(Failure::Verdict(format!("the {name} has no pipes"))),
        }
    }

    /// Reads lines until this event comes; others go to `other`.
    pub fn wait_for(
        &mut self,
        event: &str,
        mut other: impl FnMut(&Value),
    ) -> Result<Value, Failure> {
        for line in self.lines.by_ref() {
            let line = line.map_err(Failure::io(format!("reading from the {}", self.name)))?;
            let Ok(value) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            if value["event"] == event {
                return Ok(value);
            }
            if value["event"] == "progress" {
                other(&value);
            }
        }
        Err(Failure::Verdict(format!(
            "the {} ended before it said {event:?}: see above",
            self.name
        )))
    }

    /// Tells the child something.
    pub fn send(&mut self, line: &str) -> Result<(), Failure> {
        writeln!(self.stdin, "{line}").map_err(Failure::io(format!("telling the {}", self.name)))
    }
}
