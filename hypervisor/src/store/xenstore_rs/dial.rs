//! How a connection is made.
//!
//! The crate takes its socket from the environment variable `XENSTORED_PATH` only, and when it
//! cannot connect there it opens the real store, silently. A wrong socket must never lead to writing
//! there, so:
//!
//! 1. a path that the crate could not read as text is refused: it would be taken for no path at all;
//! 2. we connect ourselves first, and say what is wrong when that fails;
//! 3. afterwards we look whether the crate has opened the device nevertheless, since the listener
//!    may have died in between. Nothing has been written at that time.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::SocketType;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use xenstore_rs::tokio::XsTokio;

use crate::{unix, Error, Lack};

const VARIABLE: &str = "XENSTORED_PATH";
const DEVICE: &str = "/dev/xen/xenbus";

/// Held while a connection is made. The environment belongs to the whole process: within this crate
/// only the holder reads or writes the variable, and what stood there before is put back before the
/// lock is given up.
static ENVIRONMENT: Mutex<()> = Mutex::new(());

/// Connects to the store that listens on `socket`; without one, to what the variable names, as the
/// tools of Xen do; else to the store of this machine.
pub(super) fn dial(
    runtime: &Runtime,
    socket: Option<PathBuf>,
    deadline: Duration,
) -> Result<XsTokio, Error> {
    let _lock = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(socket) = socket.or_else(|| env::var_os(VARIABLE).map(PathBuf::from)) else {
        return connect(runtime, deadline)?.map_err(|source| Error::Unavailable {
            lack: match source.kind() {
                io::ErrorKind::PermissionDenied => Lack::Rights,
                _ => Lack::Setting,
            },
            wanted: "The store of Xen".into(),
            found: format!("no store listens on /run/xenstored/socket, and {DEVICE}: {source}"),
            hint: format!("run inside a Xen domain, with the right to read and write {DEVICE}"),
        });
    };
    if socket.to_str().is_none() {
        return Err(Error::Invalid {
            what: format!(
                "The client xenstore-rs cannot use the socket {socket:?}, whose name is no text; \
                 choose another name or use the native client"
            ),
        });
    }
    drop(unix::connect(&socket, SocketType::STREAM)?);
    let before = open_files_named(Path::new(DEVICE))?;
    let _setting = Setting::new(socket.as_os_str());
    let store = connect(runtime, deadline)?
        .map_err(|source| Error::system(format!("connect to {}", socket.display()), source))?;
    if open_files_named(Path::new(DEVICE))? > before {
        return Err(Error::Unavailable {
            lack: Lack::Here,
            wanted: format!("The store at {}", socket.display()),
            found: "it went away while it was connected to, and the real one was opened".into(),
            hint: "nothing was written; start the service at that socket again".into(),
        });
    }
    Ok(store)
}

/// The crate's own way, under a deadline.
fn connect(runtime: &Runtime, deadline: Duration) -> Result<io::Result<XsTokio>, Error> {
    runtime
        .block_on(async { timeout(deadline, XsTokio::new()).await })
        .map_err(|_| Error::TimedOut {
            waiting_for: "a connection to the store".into(),
            after: deadline,
        })
}

/// The variable, set for as long as this lives.
///
/// Why that is acceptable: Rust's own readers and writers of the environment are serialised by the
/// standard library. C code that reads it meanwhile would be a race; libc does so for time zones and
/// names of hosts, which nothing here asks for, and libxenstore does, which nothing here loads.
struct Setting {
    before: Option<OsString>,
}

impl Setting {
    fn new(value: &OsStr) -> Self {
        let before = env::var_os(VARIABLE);
        env::set_var(VARIABLE, value);
        Setting { before }
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        match self.before.take() {
            Some(before) => env::set_var(VARIABLE, before),
            None => env::remove_var(VARIABLE),
        }
    }
}

/// How many descriptors of this process stand for the file `path`.
fn open_files_named(path: &Path) -> Result<usize, Error> {
    if !path.exists() {
        return Ok(0);
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").map_err(|source| {
        Error::system(
            "see in /proc whether the real store was opened by mistake",
            source,
        )
    })?;
    let open = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    Ok(open.filter(|target| target == path).count())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_file_is_found_among_the_descriptors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("device");
        assert_eq!(open_files_named(&path).unwrap(), 0);
        let first = std::fs::File::create(&path).unwrap();
        assert_eq!(open_files_named(&path).unwrap(), 1);
        let second = std::fs::File::open(&path).unwrap();
        assert_eq!(open_files_named(&path).unwrap(), 2);
        drop((first, second));
        assert_eq!(open_files_named(&path).unwrap(), 0);
    }

    #[test]
    fn the_variable_is_put_back() {
        let _lock = ENVIRONMENT.lock().unwrap_or_else(PoisonError::into_inner);
        let before = env::var_os(VARIABLE);
        {
            let _setting = Setting::new(OsStr::new("/somewhere"));
            assert_eq!(
                env::var_os(VARIABLE).as_deref(),
                Some(OsStr::new("/somewhere"))
            );
        }
        assert_eq!(env::var_os(VARIABLE), before);
    }
}
