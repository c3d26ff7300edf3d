//! What can be judged of a command line of `netfront run` before anything is touched: a take-over that fails for a
//! misspelt argument has cut off whoever uses the interface, for as long as it takes to give it back.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::Path;

use netfront::engine::cores::usable_cpus;
use rustix::fs::{access, Access};

use crate::args::Run;
use crate::failure::{code, Failure};
use crate::recording;
use crate::sysfs::Vif;

/// Refuses what would be refused later. It changes nothing.
///
/// # Errors
/// Which argument is wrong, and what to change.
pub fn judge(args: &Run) -> Result<(), Failure> {
    mapping(args)?;
    cpus(args)?;
    tap(args)?;
    if let Some(words) = &args.capture {
        let (path, _) = recording::parse(words);
        writable(Path::new(path), "--capture")?;
    }
    if let Some(path) = &args.metrics.metrics_file {
        // It is replaced, not written to: whose it was does not matter, unless it is a folder.
        match path.is_dir() {
            true => writable(path, "--metrics-file")?,
            false => folder(folder_of(path), "--metrics-file")?,
        }
    }
    if let Some(path) = &args.control {
        // Folders that are not there are made.
        let mut folders = folder_of(path).ancestors();
        let there = folders.find(|folder| folder.exists());
        folder(there.unwrap_or(Path::new(".")), "--control")?;
    }
    if let Some(address) = args.metrics.metrics {
        // Given up again at once, and free then: nobody has connected to it.
        TcpListener::bind(address)
            .map_err(Failure::io(format!("listening at {address} for --metrics")))?;
    }
    Ok(())
}

/// A mapping of the hashes that names a queue which there cannot be: the backend would refuse all of it.
fn mapping(args: &Run) -> Result<(), Failure> {
    let queues = args.queue.count();
    match args.hash_mapping.iter().max() {
        Some(&highest) if highest as usize >= queues => Err(Failure::Class {
            code: code::SETTING,
            text: format!(
                "--hash-mapping names queue {highest}, and there are {queues} (0 to {}): raise --queues or change the mapping",
                queues - 1
            ),
        }),
        _ => Ok(()),
    }
}

/// CPUs that this process may not use.
fn cpus(args: &Run) -> Result<(), Failure> {
    let usable = usable_cpus();
    let mut named = args.cpus.iter().flat_map(|cpus| &cpus.list);
    match named.find(|cpu| !usable.contains(cpu)) {
        Some(cpu) => Err(Failure::Class {
            code: code::SETTING,
            text: format!(
                "--cpus names CPU {cpu}, and this process may use {usable:?}: name some of these"
            ),
        }),
        None => Ok(()),
    }
}

/// A name that no interface can have, or that one has which is no TAP.
fn tap(args: &Run) -> Result<(), Failure> {
    let Some(name) = &args.tap else {
        return Ok(());
    };
    netfront_tap::check_name(name).map_err(netfront::Error::from)?;
    // In another namespace a name is nobody's here.
    let folder = Path::new("/sys/class/net").join(name);
    if args.netns.is_some() || name.is_empty() || !folder.exists() {
        return Ok(());
    }
    // That of the vif itself goes when it is taken over.
    let interface = Vif::new(args.vif)
        .interface()
        .filter(|_| args.take_over)
        .map(|interface| interface.name);
    match folder.join("tun_flags").exists() || interface.as_ref() == Some(name) {
        true => Ok(()),
        false => Err(Failure::NotHere(format!(
            "--tap {name}: there is an interface of this name, and it is no TAP; give another name"
        ))),
    }
}

/// A file that can be made or written to. What is in it stays.
fn writable(path: &Path, flag: &str) -> Result<(), Failure> {
    match fs::metadata(path) {
        // A pipe would wait for its reader.
        Ok(found) if !found.is_file() && !found.is_dir() => Ok(()),
        Ok(_) => File::options()
            .append(true)
            .open(path)
            .map(drop)
            .map_err(Failure::io(format!("{flag}: opening {}", path.display()))),
        Err(_) => folder(folder_of(path), flag),
    }
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| *folder != Path::new(""));
    folder.unwrap_or(Path::new("."))
}

/// A folder in which a file can be made; one that may not be listed will do.
fn folder(folder: &Path, flag: &str) -> Result<(), Failure> {
    // By its own entry: a file in its place has none.
    access(folder.join("."), Access::WRITE_OK | Access::EXEC_OK)
        .map_err(io::Error::from)
        .map_err(Failure::io(format!(
            "{flag}: the folder {}",
            folder.display()
        )))
}
