//! `netfront stats`, and the socket of a running driver that answers it.
//!
//! One line of JSON asks, one line of JSON answers: `{"command":"stats"}`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::time::Duration;

use netfront::consumer::TapCounters;
use netfront::engine::Service;
use netfront::hypervisor::Domain;
use rustix::fs::{flock, FlockOperation};
use rustix::io::Errno;
use serde_json::{json, Value};

use crate::args::Stats;
use crate::failure::Failure;
use crate::ground::control_socket;
use crate::output::{say, table};

/// What the answers are made of.
pub struct Subject {
    pub vif: u32,
    pub domain: Domain,
    pub service: Arc<Service>,
    pub tap: Option<Arc<TapCounters>>,
}

impl Subject {
    /// The counters and the state of the vif, as they are now.
    pub fn report(&self) -> Value {
        let counters: serde_json::Map<String, Value> = self
            .service
            .stats()
            .snapshot()
            .0
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect();
        let counts = self.domain.counters();
        let mut report = json!({
            "schema": 1,
            "vif": self.vif,
            "pid": std::process::id(),
            "connected": self.service.link().is_some(),
            "restores": self.domain.restores(),
            "connections": self.service.connections.load(Ordering::Relaxed),
            // Also at the top, since scripts ask for it most: grants made for packets after the start.
            "grants": counters.get("grants").cloned(),
            "counters": counters,
            "hypervisor": {
                "hypercalls": counts.hypercalls,
                "notifications": counts.notifications,
                "grants": counts.grants,
                "revokes": counts.revokes,
                "system_calls": counts.system_calls,
            },
        });
        if let Some(link) = self.service.link() {
            let features: serde_json::Map<String, Value> = link
                .features
                .table()
                .map(|(name, on)| (name.to_owned(), on.into()))
                .into_iter()
                .collect();
            report["link"] = json!({
                "mac": mac_text(link.mac),
                "mtu": link.mtu,
                "carrier": link.carrier,
                "split_event_channels": link.split_event_channels,
                "untrusted": link.untrusted,
                "backend_features": features,
            });
        }
        if let Some(tap) = &self.tap {
            report["tap"] = json!({
                "written": tap.written.get(),
                "read": tap.read.get(),
                "drop_refused": tap.drop_refused.get(),
                "drop_full": tap.drop_full.get(),
                "drop_checksum": tap.drop_checksum.get(),
                "drop_segments": tap.drop_segments.get(),
                "checksums_filled": tap.checksums_filled.get(),
                "system_calls": tap.system_calls.get(),
            });
        }
        report
    }
}

/// `00:16:3e:01:02:03`
pub fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// The socket's file, removed at the end.
#[derive(Debug)]
pub struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Makes sure that no other driver answers at `path`, and clears away what one that was killed left there.
pub fn claim(path: &Path) -> Result<(), Failure> {
    if UnixStream::connect(path).is_ok() {
        let text = format!(
            "another netfront answers at {}: two drivers of one vif would fight; end it first",
            path.display()
        );
        return Err(Failure::NotHere(text));
    }
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {
            fs::remove_file(path).map_err(Failure::io(format!("removing {}", path.display())))
        }
        Ok(_) => Err(Failure::NotHere(format!(
            "{} is there and is no socket: give another path",
            path.display()
        ))),
        Err(_) => Ok(()),
    }
}

/// Holds a vif of the real Xen against other netfronts, whatever their control sockets, until the value is dropped
/// or the process ends.
pub fn hold(vif: u32) -> Result<fs::File, Failure> {
    let path = PathBuf::from(format!("/run/netfront/vif{vif}.lock"));
    let failed = |what: &str| Failure::io(format!("{what} {}", path.display()));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed("creating the directory of"))?;
    }
    // Another user's `netfront give` may have made it: to lock it, reading is enough.
    let file = fs::File::open(&path)
        .or_else(|_| fs::File::create(&path))
        .map_err(failed("creating"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(Failure::NotHere(format!(
            "another netfront drives vif {vif} ({} is locked): two drivers of one vif would fight; end it first",
            path.display()
        ))),
        Err(error) => Err(failed("locking")(error.into())),
    }
}

/// Answers at `path` from a thread of its own.
pub fn serve(path: &Path, subject: Arc<Subject>) -> Result<Socket, Failure> {
    let failed = |what: &str| Failure::io(format!("{what} {}", path.display()));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed("creating the directory of"))?;
    }
    let listener = UnixListener::bind(path).map_err(failed("listening at"))?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660)).map_err(failed("protecting"))?;
    std::thread::Builder::new()
        .name("nfstats".into())
        .spawn(move || {
            for client in listener.incoming().flatten() {
                // A client that has gone, or asks nonsense, is its own problem.
                let _ = answer(client, &subject);
            }
        })
        .map_err(Failure::io("starting the control socket's thread"))?;
    Ok(Socket(path.to_owned()))
}

fn answer(client: UnixStream, subject: &Subject) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(1)))?;
    client.set_write_timeout(Some(Duration::from_secs(1)))?;
    let mut line = String::new();
    BufReader::new(std::io::Read::take(&client, 4096)).read_line(&mut line)?;
    let command = serde_json::from_str::<Value>(&line).ok();
    let reply = match command.as_ref().and_then(|value| value["command"].as_str()) {
        Some("stats") => subject.report(),
        _ => json!({ "error": "wanted one line {\"command\":\"stats\"}", "found": line.trim() }),
    };
    writeln!(&client, "{reply}")
}

/// `netfront stats`.
pub fn show(args: &Stats) -> Result<(), Failure> {
    let path = args
        .control
        .clone()
        .unwrap_or_else(|| control_socket(args.sim.as_deref(), args.vif));
    let what = format!(
        "asking at {} (is `netfront run --vif {}` up?)",
        path.display(),
        args.vif
    );
    let reply = ask(&path).map_err(Failure::io(what))?;
    if args.json {
        say!("{reply:#}");
        return Ok(());
    }
    let mut rows = Vec::new();
    for section in ["counters", "tap", "hypervisor"] {
        let prefix = if section == "counters" {
            String::new()
        } else {
            format!("{section}_")
        };
        for (name, value) in reply[section].as_object().into_iter().flatten() {
            rows.push(vec![format!("{prefix}{name}"), value.to_string()]);
        }
    }
    say!(
        "vif {}, {}",
        args.vif,
        if reply["connected"] == true {
            "connected"
        } else {
            "not connected"
        }
    );
    say!("{}", table(&["counter", "value"], &rows));
    Ok(())
}

/// Asks a running driver for its counters.
pub fn ask(path: &Path) -> std::io::Result<Value> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    writeln!(stream, "{}", json!({ "command": "stats" }))?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}
