//! One driver a vif of the real Xen: a locked file, which the kernel unlocks when its holder dies, however it dies.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{fchown, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{flock, FlockOperation, OFlags};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::failure::Failure;

/// Whoever may open the file may lock it, and keep drivers away: root, and the service's user and group.
const MODE: u32 = 0o660;
/// How long a lock is tried: [`holder`] has it for an instant when it looks.
const PATIENCE: Duration = Duration::from_millis(500);
/// Between two attempts.
const TICK: Duration = Duration::from_millis(10);

/// Who has a vif, as far as this user can see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// No netfront.
    Nobody,
    /// One that runs.
    Somebody,
    /// This user may not look.
    Unknown,
}

/// Holds a vif of the real Xen against other netfronts, whatever their control sockets, until the value is dropped
/// or the process ends.
///
/// # Errors
/// When another has it, or the file cannot be made.
pub fn hold(vif: u32) -> Result<File, Failure> {
    hold_at(&path(vif), vif, PATIENCE)
}

/// Whether another netfront drives this vif of the real Xen.
pub fn holder(vif: u32) -> Holder {
    holder_at(&path(vif))
}

fn path(vif: u32) -> PathBuf {
    format!("/run/netfront/vif{vif}.lock").into()
}

fn hold_at(path: &Path, vif: u32, patience: Duration) -> Result<File, Failure> {
    let failed = |what: &str| Failure::io(format!("{what} {}", path.display()));
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed("creating the directory of"))?;
    }
    let file = open(path).map_err(failed("opening"))?;
    let start = Instant::now();
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(Errno::WOULDBLOCK) if start.elapsed() < patience => std::thread::sleep(TICK),
            Err(Errno::WOULDBLOCK) => {
                return Err(Failure::NotHere(format!(
                    "another netfront drives vif {vif} ({} is locked): two drivers of one vif would fight; end it first",
                    path.display()
                )))
            }
            Err(error) => return Err(failed("locking")(error.into())),
        }
    }
}

fn holder_at(path: &Path) -> Holder {
    let file = match reader().open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => return Holder::Unknown,
        Err(_) => return Holder::Nobody,
    };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Err(Errno::WOULDBLOCK) => Holder::Somebody,
        _ => Holder::Nobody,
    }
}

/// The service's user may put anything at that place, and root opens it: what is there is not followed elsewhere, and
/// no pipe holds us up.
fn reader() -> OpenOptions {
    let mut options = OpenOptions::new();
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    options
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default());
    options
}

/// The file, made if need be. To lock it, reading is enough.
fn open(path: &Path) -> io::Result<File> {
    let made = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(MODE)
        .open(path);
    let file = match made {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => reader().open(path)?,
        other => other?,
    };
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "this is no plain file: remove it",
        ));
    }
    protect(&file, path)?;
    Ok(file)
}

/// Root and the service share the lock, and nobody else: earlier versions made it readable, and so lockable, for all.
/// It belongs to who has its directory, root's own or the service's.
fn protect(file: &File, path: &Path) -> io::Result<()> {
    let found = file.metadata()?;
    let we = geteuid().as_raw();
    // What has a second name, or something in it, is no lock, and may be what root guards.
    if found.nlink() != 1 || found.len() != 0 || (we != 0 && we != found.uid()) {
        return Ok(());
    }
    if let Some(directory) = path.parent().filter(|_| we == 0) {
        let owner = fs::metadata(directory)?;
        if (found.uid(), found.gid()) != (owner.uid(), owner.gid()) {
            fchown(file, Some(owner.uid()), Some(owner.gid()))?;
        }
    }
    match found.mode() & 0o777 {
        MODE => Ok(()),
        _ => file.set_permissions(Permissions::from_mode(MODE)),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("deeper/vif0.lock");
        (folder, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("a file").mode() & 0o777
    }

    #[test]
    fn a_vif_is_held_once_until_its_holder_lets_go() {
        let (_folder, path) = folder();
        assert_eq!(holder_at(&path), Holder::Nobody);
        let held = hold_at(&path, 0, Duration::ZERO).expect("held");
        assert_eq!(holder_at(&path), Holder::Somebody);
        let refused = hold_at(&path, 0, Duration::ZERO).unwrap_err();
        assert_eq!(refused.code(), 69);
        assert!(refused.to_string().contains("vif0.lock"), "{refused}");
        drop(held);
        assert_eq!(holder_at(&path), Holder::Nobody);
        hold_at(&path, 0, Duration::ZERO).expect("held again");
    }

    #[test]
    fn who_only_looks_keeps_no_driver_away() {
        let (_folder, path) = folder();
        drop(hold_at(&path, 0, Duration::ZERO).expect("held"));
        let look = reader().open(&path).expect("a file");
        flock(&look, FlockOperation::NonBlockingLockShared).expect("looked");
        std::thread::scope(|scope| {
            let holding = scope.spawn(|| hold_at(&path, 0, LONG).map(drop));
            std::thread::sleep(Duration::from_millis(50));
            drop(look);
            holding.join().expect("no panic").expect("held");
        });
    }

    #[test]
    fn others_cannot_open_the_lock_and_so_cannot_take_it() {
        let (_folder, path) = folder();
        drop(hold_at(&path, 0, Duration::ZERO).expect("held"));
        assert_eq!(mode(&path), MODE);
        // As earlier versions left it.
        fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("as before");
        drop(hold_at(&path, 0, Duration::ZERO).expect("held"));
        assert_eq!(mode(&path), MODE);
    }

    #[test]
    fn the_lock_belongs_to_the_owner_of_its_directory_so_that_root_does_not_lock_the_service_out() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED: to give files away needs root");
            return;
        }
        const SERVICE: u32 = 54_321;
        let (folder, path) = folder();
        let path = folder.path().join(path.file_name().expect("a name"));
        std::os::unix::fs::chown(folder.path(), Some(SERVICE), Some(SERVICE)).expect("given");
        drop(hold_at(&path, 0, Duration::ZERO).expect("held"));
        let found = fs::metadata(&path).expect("a file");
        assert_eq!((found.uid(), found.gid()), (SERVICE, SERVICE));
        assert_eq!(mode(&path), MODE);
    }

    #[test]
    fn what_is_no_lock_is_not_followed_not_waited_for_and_not_given_away() {
        let (_folder, path) = folder();
        let directory = path.parent().expect("a parent");
        fs::create_dir_all(directory).expect("a folder");
        let secret = directory.join("secret");
        fs::write(&secret, "for root alone").expect("a file");
        fs::set_permissions(&secret, Permissions::from_mode(0o600)).expect("private");
        symlink(&secret, &path).expect("a link");
        assert!(hold_at(&path, 0, Duration::ZERO).is_err());
        fs::remove_file(&path).expect("removed");
        fs::hard_link(&secret, &path).expect("a second name");
        drop(hold_at(&path, 0, Duration::ZERO));
        assert_eq!(mode(&secret), 0o600);
        fs::remove_file(&path).expect("removed");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("a pipe");
        let refused = hold_at(&path, 0, Duration::ZERO).unwrap_err().to_string();
        assert!(refused.contains("no plain file"), "{refused}");
    }
}
