//! Which multicast groups an interface listens to, by what the kernel shows of it in /proc and /sys.
//!
//! Linux tells nobody when a group is joined (before 6.13, and then of IP's groups only). But a join sends a report, which
//! comes out of the TAP; so the list is read soon after a multicast frame came by, and once a second while
//! there is anything to do. An interface that is promiscuous, or that asks for all multicast, wants everything.
//!
//! A look at the clock is a system call on some guests, so there is none with each visit: with the first after a sleep, after
//! a frame that may be a report, and with every 64th. A report that came too soon after the last look ends the next sleep
//! when its look is due ([`Groups::rests`]): else the group would wait for whatever wakes the thread.
//!
//! Of several queues any may be given the report, and the first alone asks the backend: the others give it a [`Hint`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::queue::Group;
use crate::waker::Waker;

/// After a frame that may be a report.
const SOON: Duration = Duration::from_millis(20);
/// Otherwise.
const CALM: Duration = Duration::from_secs(1);
/// Visits without a sleep between two looks at the clock: a few thousand packets.
const VISITS: u32 = 64;

/// Another queue has read a multicast frame from its part of the TAP.
#[derive(Debug, Default)]
pub(super) struct Hint {
    given: AtomicBool,
    /// Of the first queue: without packets of its own it sleeps, and the report would wait for as long.
    first: Mutex<Option<Arc<Waker>>>,
}

impl Hint {
    /// A frame with this destination was read.
    pub fn sees(&self, destination: Option<u8>) {
        // Woken once until it has seen that: no system call per packet.
        if is_group(destination) && !self.given.swap(true, Ordering::AcqRel) {
            if let Some(first) = self.first.lock().ok().as_deref().and_then(Option::as_ref) {
                first.wake();
            }
        }
    }

    fn take(&self) -> bool {
        self.given.load(Ordering::Relaxed) && self.given.swap(false, Ordering::AcqRel)
    }
}

/// The first byte of an address that is of more than one receiver.
fn is_group(destination: Option<u8>) -> bool {
    destination.is_some_and(|first| first & 1 != 0)
}

/// What is known of an interface's groups.
#[derive(Debug)]
pub(super) struct Groups {
    interface: String,
    looked: Option<Instant>,
    /// Since the last sleep or report.
    visits: u32,
    /// A multicast frame was read from the TAP.
    hinted: bool,
    /// Of the other queues.
    hint: Arc<Hint>,
    list: Vec<Group>,
    /// What was asked for last time could not be asked for in full.
    unfinished: bool,
}

impl Groups {
    pub fn of(interface: &str) -> Self {
        Self {
            interface: interface.to_owned(),
            looked: None,
            visits: 0,
            hinted: false,
            hint: Arc::default(),
            list: Vec::new(),
            unfinished: false,
        }
    }

    /// A frame with this destination was read from the TAP.
    pub fn sees(&mut self, destination: Option<u8>) {
        if is_group(destination) {
            self.hint_once();
        }
    }

    /// The next visit looks at the clock; without end multicast frames would have each do so.
    fn hint_once(&mut self) {
        if !std::mem::replace(&mut self.hinted, true) {
            self.visits = 0;
        }
    }

    /// Before a sleep: when it has to end, since a report came that was not followed yet, or not in full.
    pub fn rests(&mut self, clock: impl FnOnce() -> Instant) -> Option<Duration> {
        self.visits = 0;
        let looked = self.looked.filter(|_| self.hinted || self.unfinished)?;
        Some(SOON.saturating_sub(clock().saturating_duration_since(looked)))
    }

    /// For the other queues of the same interface.
    pub fn hint(&self) -> Arc<Hint> {
        Arc::clone(&self.hint)
    }

    /// The list is to be read now, whenever it was read last.
    pub fn look(&mut self) {
        self.looked = None;
    }

    /// True if that was so: then a connection begins, and [`Self::attend`] is due.
    pub fn begins(&self) -> bool {
        self.looked.is_none()
    }

    /// The thread that this belongs to is woken by this.
    pub fn attend(&self, waker: Arc<Waker>) {
        if let Ok(mut first) = self.hint.first.lock() {
            *first = Some(waker);
        }
    }

    /// What was asked for could not be, in full.
    pub fn unfinished(&mut self, is: bool) {
        self.unfinished = is;
    }

    /// The groups, if it is time to look at them: `Some(None)` stands for all that there are.
    pub fn due(&mut self, clock: impl FnOnce() -> Instant) -> Option<Option<&[Group]>> {
        if self.hint.take() {
            self.hint_once();
        }
        let visit = self.visits;
        self.visits = visit.wrapping_add(1);
        if self.looked.is_some() && !visit.is_multiple_of(VISITS) {
            return None;
        }
        let now = clock();
        let pause = match self.hinted || self.unfinished {
            true => SOON,
            false => CALM,
        };
        let early = |at: Instant| now.saturating_duration_since(at) < pause;
        if self.looked.is_some_and(early) {
            return None;
        }
        self.looked = Some(now);
        self.hinted = false;
        let flags = std::fs::read_to_string(format!("/sys/class/net/{}/flags", self.interface));
        // What cannot be read is taken for an interface that wants everything: to filter too little loses nothing.
        let all = flags.map_or(true, |text| wants_all(&text));
        // By the thread: a service with ProcSubset=pid has no /proc/net.
        let Ok(table) = std::fs::read_to_string("/proc/thread-self/net/dev_mcast") else {
            return Some(None);
        };
        if all {
            return Some(None);
        }
        self.list.clear();
        self.list.extend(groups(&table, &self.interface));
        self.list.sort_unstable();
        self.list.dedup();
        Some(Some(self.list.as_slice()))
    }
}

/// The flags of an interface, as hexadecimal text, say that it wants all multicast packets.
fn wants_all(text: &str) -> bool {
    /// `IFF_PROMISC` and `IFF_ALLMULTI` of linux/if.h.
    const EVERYTHING: u32 = 0x100 | 0x200;
    let digits = text.trim().trim_start_matches("0x");
    u32::from_str_radix(digits, 16).map_or(true, |flags| flags & EVERYTHING != 0)
}

/// The groups of an interface in /proc/net/dev_mcast: number, name, users, global users, address.
fn groups<'t>(table: &'t str, interface: &'t str) -> impl Iterator<Item = Group> + 't {
    table.lines().filter_map(move |line| {
        let mut fields = line.split_whitespace();
        let name = fields.nth(1)?;
        let address = fields.nth(2)?;
        (name == interface).then(|| parse(address)).flatten()
    })
}

fn parse(address: &str) -> Option<Group> {
    let mut group = [0; 6];
    if address.len() != 12 || !address.is_ascii() {
        return None;
    }
    for (at, byte) in group.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&address[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_by_another_queue_wakes_the_first_once_and_has_it_look_soon() {
        let mut groups = Groups::of("no such interface");
        let waker = Arc::new(Waker::new().expect("a waker"));
        let is_awake = || {
            use std::os::fd::AsFd;
            let fd = waker.as_fd();
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(
                fd,
                rustix::event::PollFlags::IN,
            )];
            let now = rustix::event::Timespec::default();
            rustix::event::poll(&mut fds, Some(&now)).expect("a poll") > 0
        };
        assert!(groups.begins());
        groups.attend(Arc::clone(&waker));
        let begun = Instant::now();
        assert!(groups.due(|| begun).is_some());
        let (hint, later) = (groups.hint(), begun + 2 * SOON);
        hint.sees(Some(2));
        assert!(
            !is_awake() && groups.due(|| later).is_none(),
            "one receiver"
        );
        hint.sees(Some(0x33));
        assert!(is_awake());
        waker.clear();
        hint.sees(Some(0x33));
        assert!(!is_awake(), "it has not looked yet");
        assert!(groups.due(|| later).is_some());
        hint.sees(Some(1));
        assert!(is_awake());
    }

    #[test]
    fn the_groups_are_those_of_the_interface_and_no_other() {
        let table = "2    eth0            1     0     01005e000001\n\
                     3    xn0             1     0     01005e000001\n\
                     3    xn0             1     0     333300000001\n\
                     3    xn0             1     0     3333\n\
                     4    xn01            1     0     33330000abcd\n";
        let found: Vec<_> = groups(table, "xn0").collect();
        assert_eq!(found, [[1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]]);
        assert_eq!(groups("nonsense\n\n", "xn0").count(), 0);
    }

    #[test]
    fn a_promiscuous_interface_one_with_all_multicast_and_one_that_cannot_be_read_want_everything()
    {
        assert!(!wants_all("0x1003\n"));
        for all in ["0x1103\n", "0x1203\n", "", "what"] {
            assert!(wants_all(all), "{all:?}");
        }
        let mut none = Groups::of("no interface has this name");
        assert_eq!(none.due(Instant::now), Some(None));
    }

    #[test]
    fn the_list_is_read_once_a_second_and_soon_after_a_multicast_frame() {
        let mut groups = Groups::of("lo");
        let start = Instant::now();
        let after = |groups: &mut Groups, time: Duration| {
            let _ = groups.rests(|| start + time);
            groups.due(|| start + time).is_some()
        };
        assert!(after(&mut groups, Duration::ZERO));
        assert!(!after(&mut groups, SOON));
        assert!(after(&mut groups, CALM));
        groups.sees(Some(0x02));
        assert!(!after(&mut groups, CALM + SOON));
        groups.sees(Some(0x33));
        assert!(after(&mut groups, CALM + SOON));
    }

    #[test]
    fn a_report_that_comes_soon_after_a_look_ends_the_sleep_when_the_next_look_is_due() {
        let mut groups = Groups::of("lo");
        let start = Instant::now();
        assert!(groups.due(|| start).is_some());
        assert_eq!(groups.rests(|| start), None, "nothing is asked for");
        groups.sees(Some(0x33));
        let later = start + SOON / 4;
        assert!(groups.due(|| later).is_none(), "so soon there is no look");
        assert_eq!(groups.rests(|| later), Some(SOON - SOON / 4));
        assert!(groups.due(|| start + SOON).is_some());
        assert_eq!(groups.rests(|| start + SOON), None, "it was followed");
        groups.unfinished(true);
        let rest = groups.rests(|| start + SOON);
        assert_eq!(rest, Some(SOON), "the ring was full: asked for again");
    }

    #[test]
    fn a_thread_that_does_not_sleep_looks_at_the_clock_with_every_64th_visit() {
        let mut groups = Groups::of("lo");
        let start = Instant::now();
        let mut looks = 0;
        for visit in 0..10 * VISITS {
            // A report by each visit is no reason for more.
            if visit > 0 {
                groups.sees(Some(0x33));
            }
            let _ = groups.due(|| {
                looks += 1;
                start
            });
        }
        assert!((10..=12).contains(&looks), "{looks}");
    }
}
