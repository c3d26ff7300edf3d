//! Waiting for udev, which looks at each new network interface: it may give it another name, and one whose address was made
//! up another address, after somebody has set the one that is wanted.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How often is looked.
const TICK: Duration = Duration::from_millis(10);
/// How long udev may take for a TAP. Of one in another network namespace than its own it never hears.
const TAP: Duration = Duration::from_secs(1);

/// Waits until udev's rules are through for the network interface with this number, which is asked for again and again: it
/// may not be there yet, and its name may change meanwhile. Without udev, at once; late, it goes on. `root` stands for `/`.
pub fn settle(root: &Path, index: impl Fn() -> Option<String>, patience: Duration) {
    let udev = root.join("run/udev");
    let start = Instant::now();
    while start.elapsed() < patience && udev.join("control").exists() {
        // What udev knows of an interface it keeps under its number, when its rules are through.
        let known = index().map(|index| udev.join("data").join(format!("n{}", index.trim())));
        if known.is_some_and(|file| file.exists()) {
            return;
        }
        std::thread::sleep(TICK);
    }
}

/// The same for a TAP that was just opened.
pub fn settle_tap(name: &str) {
    let file = format!("/sys/class/net/{name}/ifindex");
    settle(Path::new("/"), || fs::read_to_string(&file).ok(), TAP);
}
