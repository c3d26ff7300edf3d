//! What a running driver may be asked.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use netfront::engine::moderation::Mode;
use netfront::watch::{Limits, Running, TraceFormat, Watch, WHOLE};
use serde_json::{json, Value};

use super::{affinity, Subject};
use crate::takeover::confirm;

/// The version of every answer's form: fields may be added to it, none is removed or changes its meaning.
pub const SCHEMA: u32 = 1;

/// A question, and who asks.
pub struct Asked {
    pub line: String,
    /// What came with it.
    pub file: Option<OwnedFd>,
    pub client: UnixStream,
}

/// What is answered: a line now, or, if the connection was handed on, a line later.
type Reply = Option<(UnixStream, Value)>;

/// How a question is answered.
enum Answer {
    /// With what is.
    Report(fn(&Subject) -> Value),
    /// With `ok`, when it is done.
    Order(fn(&Subject)),
    /// With what is after what the question says was done.
    Setting(fn(&Subject, &Value) -> Value),
    /// When the recording is over that the question starts.
    Recording(fn(&Arc<Watch>, &Value, Limits) -> Result<Running, netfront::Error>),
}
use Answer::{Order, Recording, Report, Setting};

/// Everything that may be asked: its name, what it is for, its answer.
const REQUESTS: [(&str, &str, Answer); 11] = [
    ("stats", "the counters", Report(Subject::report)),
    (
        "status",
        "the counters, both ends' states, what was negotiated",
        Report(Subject::status),
    ),
    (
        "kick",
        "notify the backend and look at the rings, whatever was asked for; without a connection, try to connect now",
        Order(|subject| subject.service.kick()),
    ),
    (
        "pause",
        "leave packets in the rings, both ways",
        Order(|subject| subject.service.pause()),
    ),
    ("resume", "end a pause", Order(|subject| subject.service.resume())),
    (
        "mode",
        "how packets are waited for; mode: from now on interrupt, adaptive or poll",
        Setting(mode),
    ),
    (
        "affinity",
        "the CPUs of packet threads; cpus: from now on these, for the thread and the interrupts of queue, or of all queues",
        Setting(affinity::affinity),
    ),
    (
        "capture",
        "write packets as pcap to the file that is sent along, until the client closes; \
         snaplen, count, seconds; truncate: empty the file first",
        Recording(|watch, _, limits| watch.capture(limits)),
    ),
    (
        "trace",
        "write a line for each request, response and notification of the rings to the file that is sent along, until \
         the client closes; count, seconds, json; truncate: empty the file first",
        Recording(|watch, value, limits| watch.trace(trace_format(value), limits)),
    ),
    (
        "confirm",
        "the machine can still be reached: what was taken over stays",
        Report(confirmed),
    ),
    (
        "stop",
        "say goodbye to the backend and end",
        Order(Subject::stop),
    ),
];

/// Answers, unless the answer will come later.
pub fn answer(asked: Asked, subject: &Arc<Subject>) -> Reply {
    let value: Value = serde_json::from_str(&asked.line).unwrap_or_default();
    let found = value["command"]
        .as_str()
        .and_then(|wanted| REQUESTS.iter().find(|(name, ..)| *name == wanted));
    match found {
        Some((.., Report(report))) => now(asked, report(subject)),
        Some((.., Setting(set))) => {
            let reply = set(subject, &value);
            now(asked, reply)
        }
        Some((.., Order(order))) => {
            order(subject);
            now(asked, done(subject))
        }
        Some((.., Recording(start))) => record(&value, asked, subject, |limits| {
            start(&subject.watch, &value, limits)
        }),
        None => {
            let known: serde_json::Map<String, Value> = REQUESTS
                .iter()
                .map(|&(name, what, _)| (name.to_owned(), what.into()))
                .collect();
            let reply = json!({
                "schema": SCHEMA,
                "error": "wanted one line {\"command\":NAME} with a name that is known here",
                "found": asked.line.trim(),
                "known": known,
            });
            now(asked, reply)
        }
    }
}

fn trace_format(question: &Value) -> TraceFormat {
    match question["json"] == true {
        true => TraceFormat::Json,
        false => TraceFormat::Text,
    }
}

/// Changes the mode if the question names one.
fn mode(subject: &Subject, question: &Value) -> Value {
    let service = &subject.service;
    match &question["mode"] {
        Value::Null => {}
        Value::String(word) => match word.parse::<Mode>() {
            Ok(mode) => service.set_mode(mode),
            Err(why) => return refused(&format!("mode: {why}, found {word:?}")),
        },
        other => return refused(&format!("mode: wanted a word, found {other}")),
    }
    let mut reply = done(subject);
    reply["mode"] = service.mode().to_string().into();
    reply
}

fn confirmed(subject: &Subject) -> Value {
    match &subject.confirmation {
        Some(confirmation) => confirmation.reply(subject.vif),
        None => confirm::nothing_to_confirm(),
    }
}

fn now(asked: Asked, reply: Value) -> Reply {
    Some((asked.client, reply))
}

pub(super) fn done(subject: &Subject) -> Value {
    let service = &subject.service;
    json!({
        "schema": SCHEMA,
        "vif": subject.vif,
        "ok": true,
        "paused": service.is_paused(),
        "connected": service.link().is_some(),
    })
}

pub(super) fn refused(why: &str) -> Value {
    json!({ "schema": SCHEMA, "error": why })
}

/// Starts a recording. Its own thread answers when it is over.
fn record(
    value: &Value,
    mut asked: Asked,
    subject: &Subject,
    start: impl FnOnce(Limits) -> Result<Running, netfront::Error>,
) -> Reply {
    let Some(file) = asked.file.take() else {
        return now(
            asked,
            refused("wanted a file, sent along with the question"),
        );
    };
    let number = |name: &str| value[name].as_u64();
    let limits = Limits {
        snaplen: number("snaplen").map_or(WHOLE, |bytes| bytes.min(WHOLE as u64) as usize),
        count: number("count"),
        time: value["seconds"]
            .as_f64()
            .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
    };
    // Before it starts: the driver's end must not find nobody to wait for.
    let writing = subject.writers.enter();
    let running = match start(limits) {
        Ok(running) => running,
        Err(error) => return now(asked, refused(&error.to_string())),
    };
    let file = File::from(file);
    if value["truncate"] == true {
        // Only now: what is refused leaves the file as it was.
        if let Err(error) = empty(&file) {
            return now(asked, refused(&format!("emptying the file: {error}")));
        }
    }
    let (vif, client) = (subject.vif, asked.client);
    let watch = Arc::clone(&subject.watch);
    let spawned = std::thread::Builder::new()
        .name("nfrecord".into())
        .spawn(move || {
            // The driver's end waits for it: until the client has its answer.
            let _writing = writing;
            let reply = follow(vif, &watch, running, &file, &client);
            // A client that has gone does not want to know.
            let _ = writeln!(&client, "{reply}");
        });
    if let Err(error) = spawned {
        tracing::warn!("nothing is recorded: its thread cannot be started: {error}");
    }
    None
}

/// A pipe or a device has nothing to be emptied of.
fn empty(file: &File) -> std::io::Result<()> {
    match file.metadata()?.is_file() {
        true => file.set_len(0),
        false => Ok(()),
    }
}

fn follow(vif: u32, watch: &Watch, running: Running, file: &File, client: &UnixStream) -> Value {
    match running.write_to(file, Some(client.as_fd())) {
        Ok(totals) => json!({
            "schema": SCHEMA,
            "vif": vif,
            "recorded": totals.recorded,
            "dropped": totals.dropped,
            "driver_stopped": watch.is_closed(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            json!({ "schema": SCHEMA, "vif": vif, "reader_gone": true })
        }
        Err(error) => refused(&format!("the recording ended: {error}")),
    }
}
