//! The socket of a running driver: one line of JSON asks, one line of JSON answers.
//!
//! ```text
//! {"command":"status"}   asked
//! {"schema":1,"vif":0,"connected":true,...}   answered
//! ```
//!
//! | file | what is in it |
//! | --- | --- |
//! | `requests` | what may be asked: a table |
//! | `report` | the answers to `stats` and `status` |
//! | `affinity` | the CPUs of packet threads, and of their interrupts |
//! | `process` | what this process takes of the machine |
//! | `message` | a line, and a file that comes with it |
//! | `find` | the drivers that run here |
//! | `lock` | one driver a vif, whatever their sockets |

mod affinity;
mod find;
mod lock;
mod message;
mod process;
mod report;
mod requests;

use std::fs;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value};

use crate::failure::Failure;
use crate::ground::control_socket;

pub use find::Which;
pub use lock::{hold, holder, Holder};
pub use message::{read_line, send_line};
pub use process::started;
pub use report::{mac_text, Subject};
pub use requests::SCHEMA;

/// How long a driver may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may take to ask, and to take the answer.
const CLIENT: Duration = Duration::from_secs(1);

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

/// No driver but one's own: a simulated Xen has no locks, but a driver on it answers at its socket.
pub fn alone(sim: Option<&Path>, vif: u32) -> Result<Option<fs::File>, Failure> {
    match sim {
        Some(_) => claim(&control_socket(sim, vif)).map(|()| None),
        None => hold(vif).map(Some),
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
            for client in listener.incoming() {
                match client {
                    // A client that has gone, or asks nonsense, is its own problem.
                    Ok(client) => {
                        let _ = answer(client, &subject);
                    }
                    // Out of descriptors: not asked again at once, and for ever.
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        })
        .map_err(Failure::io("starting the control socket's thread"))?;
    Ok(Socket(path.to_owned()))
}

fn answer(client: UnixStream, subject: &Arc<Subject>) -> std::io::Result<()> {
    client.set_write_timeout(Some(CLIENT))?;
    let (line, file) = read_line(&client, CLIENT)?;
    let asked = requests::Asked { line, file, client };
    match requests::answer(asked, subject) {
        Some((client, reply)) => writeln!(&client, "{reply}"),
        None => Ok(()),
    }
}

/// Asks the driver that answers at `path`.
pub fn ask(path: &Path, request: &Value) -> std::io::Result<Value> {
    let stream = UnixStream::connect(path)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    send_line(&stream, &request.to_string(), None)?;
    let (line, _) = read_line(&stream, PATIENCE)?;
    Ok(serde_json::from_str(&line)?)
}

/// Asks a driver, and takes an answer that says `error` for a failure.
pub fn order(path: &Path, command: &str) -> Result<Value, Failure> {
    tell(path, &json!({ "command": command }))
}

/// The same with a question that has more to say than its command.
pub fn tell(path: &Path, question: &Value) -> Result<Value, Failure> {
    let reply = ask(path, question).map_err(unanswered(path, "netfront run"))?;
    accepted(reply)
}

/// For `map_err`: nobody answers at `path`, whom the command `starts` would start. That nobody is there is no failure of anything.
pub fn unanswered(path: &Path, starts: &str) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.display().to_string();
    let absent = format!(
        "no netfront runs here that answers at {path}: `{starts}` starts one, `netfront status` shows those that run"
    );
    move |error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => Failure::NotHere(absent),
        _ => Failure::io(format!("asking at {path}"))(error),
    }
}

/// An answer that says `error` is a failure.
pub fn accepted(reply: Value) -> Result<Value, Failure> {
    match reply["error"].as_str() {
        Some(error) => Err(Failure::Verdict(format!("the driver says: {error}"))),
        None => Ok(reply),
    }
}
