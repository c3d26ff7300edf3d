//! Which CPU a thread and an interrupt are on.
//!
//! An interrupt of an event channel carries the name of the thread that opened the channel's handle: `evtchn:nf0q0`. Its
//! CPUs are in `/proc/irq/N/smp_affinity_list`, which root may write. Where that is refused all works as before, only
//! that events may come to cores that work: it is told once, with what helps.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity, CpuSet};

/// The CPUs that this thread may run on, those of its own NUMA node first: its pages are there, and what crosses to
/// another node costs more.
pub fn usable_cpus() -> Vec<usize> {
    let allowed = sched_getaffinity(None).map(|set| members(&set));
    near_first(&allowed.unwrap_or_default(), &nodes(), sched_getcpu())
}

fn members(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect()
}

/// The CPUs of each NUMA node, as /sys tells; none where it tells nothing.
fn nodes() -> Vec<Vec<usize>> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/node") else {
        return Vec::new();
    };
    let lists = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let number = name.to_str()?.strip_prefix("node")?;
        number.parse::<u32>().ok()?;
        let list = fs::read_to_string(entry.path().join("cpulist")).ok()?;
        cpu_list(&list)
    });
    lists.collect()
}

/// `allowed`, with those that are on the node of `here` first.
fn near_first(allowed: &[usize], nodes: &[Vec<usize>], here: usize) -> Vec<usize> {
    let own = nodes.iter().find(|node| node.contains(&here));
    let is_far = |cpu: &usize| own.is_some_and(|node| !node.contains(cpu));
    let (far, mut order): (Vec<usize>, Vec<usize>) = allowed.iter().copied().partition(is_far);
    order.extend(far);
    order
}

/// A list as the kernel writes it: `0-3,8`. `None` if it is none.
pub fn cpu_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last >= CpuSet::MAX_CPU || first > last {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Keeps the calling thread on one CPU, until this is dropped: then it may go where it might before.
#[derive(Debug)]
pub struct Pinned {
    before: CpuSet,
}

impl Pinned {
    /// # Errors
    /// If the process may not run on that CPU.
    pub fn to(cpu: usize) -> io::Result<Self> {
        let before = sched_getaffinity(None)?;
        let mut only = CpuSet::new();
        if cpu >= CpuSet::MAX_CPU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        only.set(cpu);
        sched_setaffinity(None, &only)?;
        Ok(Self { before })
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.before);
    }
}

/// Has the interrupts of this name come to these CPUs only. Returns how many there are: none on the simulated Xen.
///
/// # Errors
/// What was refused, and what helps, for people.
pub fn pin_interrupts(name: &str, cpus: &[usize]) -> Result<usize, String> {
    let Ok(text) = fs::read_to_string("/proc/interrupts") else {
        return Ok(0);
    };
    let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
    let list = list.join(",");
    let found = interrupts(&text, name);
    for irq in found.keys() {
        let path = format!("/proc/irq/{irq}/smp_affinity_list");
        fs::write(&path, &list).map_err(|error| {
            format!(
                "events of {name} may come to any core: writing {list} to {path}: {error}. As root: \
                 echo {list} > {path}; and keep irqbalance off it (--banirq={irq})"
            )
        })?;
    }
    Ok(found.len())
}

/// How often interrupts of these names came to these CPUs since the machine started.
pub fn interrupts_on(names: &[String], cpus: &[usize]) -> u64 {
    let text = fs::read_to_string("/proc/interrupts").unwrap_or_default();
    let all = names.iter().flat_map(|name| interrupts(&text, name));
    let counts = all.flat_map(|(_, counts)| counts);
    counts
        .filter(|(cpu, _)| cpus.contains(cpu))
        .map(|(_, count)| count)
        .sum()
}

/// The event channel interrupts of a name in the text of /proc/interrupts, with their counts by CPU.
fn interrupts(text: &str, name: &str) -> BTreeMap<u32, Vec<(usize, u64)>> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default().split_whitespace();
    let cpus: Vec<usize> = header
        .filter_map(|word| word.strip_prefix("CPU")?.parse().ok())
        .collect();
    let wanted = format!("evtchn:{name}");
    let found = lines.filter_map(|line| {
        let (number, rest) = line.split_once(':')?;
        let irq: u32 = number.trim().parse().ok()?;
        if rest.split_whitespace().next_back() != Some(wanted.as_str()) {
            return None;
        }
        let counts = rest
            .split_whitespace()
            .map_while(|word| word.parse::<u64>().ok());
        Some((irq, cpus.iter().copied().zip(counts).collect::<Vec<_>>()))
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERRUPTS: &str = "            CPU0       CPU2       \n  \
 8:          1          0   IO-APIC   8-edge      rtc0\n \
72:        123          7  xen-dyn    -event     evtchn:nf0q0\n \
73:          0          9  xen-dyn    -event     evtchn:nf0q0\n \
74:          5          5  xen-dyn    -event     evtchn:nf0q01\n\
LOC:         10         20   Local timer interrupts\n";

    #[test]
    fn interrupts_are_found_by_the_name_of_the_thread_that_opened_them() {
        let found = interrupts(INTERRUPTS, "nf0q0");
        assert_eq!(found.len(), 2);
        assert_eq!(found[&72], [(0, 123), (2, 7)]);
        assert!(interrupts(INTERRUPTS, "nf1q0").is_empty());
        assert!(interrupts("", "nf0q0").is_empty());
    }

    #[test]
    fn a_list_of_cpus_is_read_as_the_kernel_writes_it() {
        assert_eq!(cpu_list("0-3,8\n"), Some(vec![0, 1, 2, 3, 8]));
        assert_eq!(cpu_list("\n"), Some(vec![]));
        for wrong in ["a", "3-1", "0-99999999", "1-", "-1"] {
            assert_eq!(cpu_list(wrong), None, "{wrong}");
        }
    }

    /// K-11: on a machine of several nodes those of the own one come first, and all that may be used are used.
    #[test]
    fn cores_of_the_own_node_come_first() {
        let nodes = [vec![0, 1, 2, 3], vec![4, 5, 6, 7]];
        assert_eq!(near_first(&[1, 2, 5, 6], &nodes, 5), [5, 6, 1, 2]);
        assert_eq!(near_first(&[1, 2, 5, 6], &nodes, 1), [1, 2, 5, 6]);
        assert_eq!(near_first(&[3, 1], &[], 1), [3, 1]);
        assert_eq!(near_first(&[3, 1], &nodes, 99), [3, 1]);
    }

    #[test]
    fn a_thread_is_pinned_until_it_is_let_go() {
        std::thread::spawn(|| {
            let before = usable_cpus();
            let Some(&cpu) = before.last() else { return };
            let pinned = Pinned::to(cpu).expect("a CPU that may be used");
            assert_eq!(usable_cpus(), [cpu]);
            drop(pinned);
            let mut after = usable_cpus();
            let mut before = before;
            before.sort_unstable();
            after.sort_unstable();
            assert_eq!(after, before);
            assert!(Pinned::to(CpuSet::MAX_CPU).is_err());
        })
        .join()
        .expect("a thread");
    }
}
