//! Metrics in a file, replaced as a whole, so that no reader finds half of them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::control::Subject;
use crate::failure::Failure;

/// Between two files.
const PAUSE: Duration = Duration::from_secs(15);

/// A file that is written again and again until this is dropped; then it is removed, since what it says would
/// be taken for the present.
pub struct MetricsFile {
    path: PathBuf,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MetricsFile {
    /// Writes the first file now, so that a wrong path is told at once.
    pub fn start(path: &Path, subject: Arc<Subject>) -> Result<Self, Failure> {
        let text = move || super::text(&subject.report());
        Self::keep_writing(path, PAUSE, text)
    }

    fn keep_writing(
        path: &Path,
        pause: Duration,
        text: impl Fn() -> String + Send + 'static,
    ) -> Result<Self, Failure> {
        let what = format!("writing metrics to {}", path.display());
        write(path, &text()).map_err(Failure::io(what.clone()))?;
        let (stop, stopped) = mpsc::channel();
        let target = path.to_owned();
        let thread = std::thread::Builder::new()
            .name("nfmetricsfile".into())
            .spawn(move || {
                let mut said = false;
                while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    match write(&target, &text()) {
                        Ok(()) => said = false,
                        Err(error) => {
                            if !std::mem::replace(&mut said, true) {
                                tracing::warn!("{what}, trying on: {error}");
                            }
                        }
                    }
                }
            })
            .map_err(Failure::io("starting the thread for metrics"))?;
        Ok(Self {
            path: path.to_owned(),
            stop: Some(stop),
            thread: Some(thread),
        })
    }
}

impl Drop for MetricsFile {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that has panicked has said so itself.
            let _ = thread.join();
        }
        let _ = fs::remove_file(&self.path);
    }
}

/// Writes a file beside `path` and gives it that name. Not in its place a piece at a time: the collector may
/// read at any moment.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut file = NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    // The collector is another user.
    file.as_file()
        .set_permissions(fs::Permissions::from_mode(0o644))?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn the_file_is_there_at_once_is_renewed_and_goes_in_the_end() {
        static ROUND: AtomicU32 = AtomicU32::new(0);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("netfront.prom");
        let text = || format!("round {}\n", ROUND.fetch_add(1, Ordering::Relaxed));
        let pause = Duration::from_millis(5);
        let metrics = MetricsFile::keep_writing(&path, pause, text).unwrap();
        assert!(fs::read_to_string(&path).unwrap().starts_with("round "));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o644);
        let mut renewed = false;
        for _ in 0..2000 {
            // At every moment there is a whole one.
            let found = fs::read_to_string(&path).unwrap();
            assert!(found.ends_with('\n'), "{found:?}");
            renewed = renewed || found == "round 3\n";
            std::thread::sleep(Duration::from_millis(1));
            if renewed {
                break;
            }
        }
        assert!(ROUND.load(Ordering::Relaxed) > 3);
        drop(metrics);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_told_at_the_start() {
        let path = Path::new("/nonexistent/netfront.prom");
        let started = MetricsFile::keep_writing(path, PAUSE, String::new);
        let error = started.err().map(|failure| failure.to_string());
        assert!(error.is_some_and(|text| text.contains("/nonexistent/netfront.prom")));
    }
}
