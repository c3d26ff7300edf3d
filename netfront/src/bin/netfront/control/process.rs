//! What this process takes of the machine: memory, processor time, wake-ups.

use std::fs;
use std::sync::OnceLock;
use std::time::Instant;

use rustix::time::{clock_gettime, ClockId};
use serde_json::{json, Value};

/// When the process began: at the first call.
pub fn started() -> Instant {
    static STARTED: OnceLock<Instant> = OnceLock::new();
    *STARTED.get_or_init(Instant::now)
}

/// The figures as they are now. What the system does not tell is `null`.
pub fn report() -> Value {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    json!({
        "pid": std::process::id(),
        "up_seconds": round(started().elapsed().as_secs_f64()),
        "cpu_seconds": round(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9),
        "resident_bytes": number(&status, "VmRSS:").map(|kib| kib << 10),
        "threads": number(&status, "Threads:"),
        "wakeups": wakeups(),
    })
}

/// Milliseconds are enough.
fn round(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// How often the threads that there are went to sleep of their own will, and so were woken.
fn wakeups() -> Option<u64> {
    let mut sum = 0;
    for thread in fs::read_dir("/proc/self/task").ok()?.flatten() {
        let status = fs::read_to_string(thread.path().join("status")).unwrap_or_default();
        sum += number(&status, "voluntary_ctxt_switches:").unwrap_or(0);
    }
    Some(sum)
}

/// The number in the line of /proc/PID/status that begins with `name`.
fn number(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_by_the_name_of_their_line() {
        let status = "Name:\tx\nVmRSS:\t    9216 kB\nvoluntary_ctxt_switches:\t17\nnonvoluntary_ctxt_switches:\t3\n";
        assert_eq!(number(status, "VmRSS:"), Some(9216));
        assert_eq!(number(status, "voluntary_ctxt_switches:"), Some(17));
        assert_eq!(number(status, "VmSwap:"), None);
    }

    #[test]
    fn this_process_has_memory_threads_and_time() {
        let report = report();
        for name in ["resident_bytes", "threads"] {
            assert!(report[name].as_u64() > Some(0), "{report}");
        }
        assert!(report["cpu_seconds"].as_f64() > Some(0.0), "{report}");
    }
}
