//! Which CPU a thread and an interrupt are on, and which node a CPU is of.
//!
//! An interrupt of an event channel carries the name of the thread that opened the channel's handle: `evtchn:nf0q0`. Its
//! CPUs are in `/proc/irq/N/smp_affinity_list`, which root may write. Where that is refused all works as before, only
//! that events may come to cores that work: it is told once, with what helps.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use rustix::thread::{sched_getaffinity, sched_getcpu, sched_setaffinity, CpuSet, Pid};

/// The CPUs that this thread may run on, those of its own NUMA node first: its pages are there, and what crosses to
/// another node costs more.
pub fn usable_cpus() -> Vec<usize> {
    cpus_for(1)
}

/// The same, for so many threads that work on the same pages: if one node has CPUs enough for all of them, those come first.
pub fn cpus_for(threads: usize) -> Vec<usize> {
    let nodes = nodes(Path::new(NODES));
    by_node(&allowed_cpus(None), &nodes, sched_getcpu(), threads)
}

/// The CPUs that a thread of this process, or the calling one, may run on, in their order; none if the kernel does not tell.
pub fn allowed_cpus(thread: Option<Pid>) -> Vec<usize> {
    let allowed = sched_getaffinity(thread).map(|set| members(&set));
    allowed.unwrap_or_default()
}

fn members(set: &CpuSet) -> Vec<usize> {
    (0..CpuSet::MAX_CPU)
        .filter(|&cpu| set.is_set(cpu))
        .collect()
}

/// Where the kernel tells of NUMA nodes.
const NODES: &str = "/sys/devices/system/node";

/// The CPUs of each NUMA node, in the order of their numbers; none where /sys tells nothing.
fn nodes(directory: &Path) -> Vec<Vec<usize>> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let lists = entries.flatten().filter_map(|entry| {
        let name = entry.file_name();
        let number: u32 = name.to_str()?.strip_prefix("node")?.parse().ok()?;
        let list = fs::read_to_string(entry.path().join("cpulist")).ok()?;
        Some((number, cpu_list(&list)?))
    });
    // The directory has an order of its own.
    lists.collect::<BTreeMap<_, _>>().into_values().collect()
}

/// `allowed`, node by node: first that of `here` if it has as many as `wanted`, else one that has, the smallest of them; then the
/// others, those with most CPUs first. Within a node the order stays; what is on no node comes last.
fn by_node(allowed: &[usize], nodes: &[Vec<usize>], here: usize, wanted: usize) -> Vec<usize> {
    let mut order: Vec<(bool, Vec<usize>)> = Vec::with_capacity(nodes.len() + 1);
    let mut homeless = allowed.to_vec();
    for node in nodes {
        let own = allowed.iter().copied().filter(|cpu| node.contains(cpu));
        homeless.retain(|cpu| !node.contains(cpu));
        order.push((node.contains(&here), own.collect()));
    }
    order.sort_by_key(|(is_own, cpus)| {
        let is_enough = cpus.len() >= wanted;
        let rank = match (is_own, is_enough) {
            (true, true) => 0,
            (false, true) => 1,
            (true, false) => 2,
            (false, false) => 3,
        };
        // Of those with room the smallest is taken; where none has, as few nodes as can be.
        let size = if is_enough {
            cpus.len()
        } else {
            usize::MAX - cpus.len()
        };
        (rank, size)
    });
    let cpus = order.into_iter().flat_map(|(_, cpus)| cpus);
    cpus.chain(homeless).collect()
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
        pin_thread(None, &[cpu])?;
        Ok(Self { before })
    }
}

/// Keeps a thread of this process, or the calling one, on these CPUs.
///
/// # Errors
/// If it may run on none of them, or there is no such thread.
pub fn pin_thread(thread: Option<Pid>, cpus: &[usize]) -> io::Result<()> {
    let mut only = CpuSet::new();
    for &cpu in cpus {
        if cpu >= CpuSet::MAX_CPU {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        only.set(cpu);
    }
    Ok(sched_setaffinity(thread, &only)?)
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
    pin_interrupts_in(Path::new("/proc"), name, cpus)
}

fn pin_interrupts_in(proc: &Path, name: &str, cpus: &[usize]) -> Result<usize, String> {
    let Ok(text) = fs::read_to_string(proc.join("interrupts")) else {
        return Ok(0);
    };
    let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
    let list = list.join(",");
    let found = interrupts(&text, name);
    for irq in found.keys() {
        let path = proc.join(format!("irq/{irq}/smp_affinity_list"));
        fs::write(&path, &list).map_err(|error| {
            let path = path.display();
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
        assert_eq!(by_node(&[1, 2, 5, 6], &nodes, 5, 1), [5, 6, 1, 2]);
        assert_eq!(by_node(&[1, 2, 5, 6], &nodes, 1, 2), [1, 2, 5, 6]);
        assert_eq!(by_node(&[3, 1], &[], 1, 2), [3, 1]);
        assert_eq!(by_node(&[3, 1], &nodes, 99, 2), [3, 1]);
        assert_eq!(by_node(&[9, 3, 1], &nodes, 1, 2), [3, 1, 9], "of no node");
    }

    /// K-11: cores that share the queues' pages are of one node if one has enough of them, else of as few as can be.
    #[test]
    fn cores_that_work_together_are_of_one_node_if_one_has_room_for_all() {
        let nodes = [vec![0, 1], vec![2, 3, 4, 5, 6], vec![7, 8, 9, 10]];
        let all: Vec<usize> = (0..11).collect();
        let first = |here, wanted: usize| by_node(&all, &nodes, here, wanted)[..wanted].to_vec();
        assert_eq!(first(0, 2), [0, 1]);
        assert_eq!(first(0, 4), [7, 8, 9, 10], "its own has two");
        assert_eq!(first(0, 5), [2, 3, 4, 5, 6]);
        assert_eq!(first(8, 7), [7, 8, 9, 10, 2, 3, 4], "none has so many");
    }

    /// K-11: as /sys tells them.
    #[test]
    fn nodes_are_read_in_the_order_of_their_numbers() {
        let sys = tempfile::tempdir().expect("a directory");
        for (name, list) in [
            ("node10", "8-9\n"),
            ("node2", "4-7\n"),
            ("node0", "0-3\n"),
            ("node1", "\n"),
            ("power", "99\n"),
            ("nodes", "99\n"),
            ("node3", "what?\n"),
        ] {
            let node = sys.path().join(name);
            fs::create_dir(&node).expect("made");
            fs::write(node.join("cpulist"), list).expect("written");
        }
        fs::write(sys.path().join("online"), "0-2").expect("written");
        let found = nodes(sys.path());
        let wanted: [&[usize]; 4] = [&[0, 1, 2, 3], &[], &[4, 5, 6, 7], &[8, 9]];
        assert_eq!(found, wanted);
        assert!(nodes(&sys.path().join("nothing")).is_empty());
    }

    /// L-15: the CPUs of the interrupts of one name are set, and of no other.
    #[test]
    fn interrupts_of_a_name_are_moved_and_no_others() {
        let proc = tempfile::tempdir().expect("a directory");
        fs::write(proc.path().join("interrupts"), INTERRUPTS).expect("written");
        let list = |irq: u32| proc.path().join(format!("irq/{irq}/smp_affinity_list"));
        for irq in [8, 72, 73, 74] {
            fs::create_dir_all(proc.path().join(format!("irq/{irq}"))).expect("made");
            fs::write(list(irq), "0-7").expect("written");
        }
        assert_eq!(pin_interrupts_in(proc.path(), "nf0q0", &[2, 3]), Ok(2));
        let now = [8, 72, 73, 74].map(|irq| fs::read_to_string(list(irq)).expect("read"));
        assert_eq!(now, ["0-7", "2,3", "2,3", "0-7"]);
        assert_eq!(pin_interrupts_in(proc.path(), "nf9q0", &[2]), Ok(0));
        // What the kernel refuses is told with what helps.
        fs::remove_dir_all(proc.path().join("irq/73")).expect("gone");
        let why = pin_interrupts_in(proc.path(), "nf0q0", &[1]).expect_err("refused");
        assert!(
            why.contains("irq/73/smp_affinity_list") && why.contains("As root: echo 1"),
            "{why}"
        );
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
