//! The TAP consumer: the guest's own stack uses the vif through a TAP device.
//!
//! A packet in granted pages crosses by one `writev`, uncopied by us; a packet of the kernel's comes by one
//! `readv` straight into granted pages. Large segments and blank checksums cross as they are, as far
//! as both sides can.
//!
//! The kernel's stack works on a frame within the call that writes it, up to a socket, a bridge or the queue of another interface.
//! So no frame waits here, and nothing is held for it: while the stack is busy the thread receives nothing. `EAGAIN`, for which
//! [`TapCounters::drop_full`] is counted, comes only from a kernel that was told to bound what is on its way (`TUNSETSNDBUF`); by
//! default it does not. What the stack cannot keep it drops and counts itself.
//!
//! Of several queues each has a consumer with a queue of the TAP of its own. The kernel chooses by the flow which of them a
//! frame is read from, and so the queue that it is sent by; which one a received packet comes by is the backend's choice.

use std::io::IoSlice;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use netfront_tap::{Offloads, Sent, VnetHeader, HEADER_SIZE};

use super::cut::Cut;
use super::groups::{Groups, Hint};
use super::Consumer;
use crate::announce;
use crate::connection::Features;
use crate::device::Link;
use crate::offload::{fill_checksum, from_vnet, takes_blank, takes_segments, to_vnet};
use crate::packet::{Packet, MAX_FRAGMENTS};
use crate::queue::Queue;
use crate::stats::counters;
use crate::Error;
use xen_ring::Checksum;

counters! {
    /// What the TAP side counts.
    TapCounters:
    /// Frames that the kernel took.
    written,
    /// Frames read from the kernel.
    read,
    /// Frames dropped: the kernel refused them (the interface is down, or the header makes no sense).
    drop_refused,
    /// Frames dropped: the kernel had as many on their way as somebody allowed the TAP (TUNSETSNDBUF); by default there is no bound.
    drop_full,
    /// Frames dropped: a blank checksum without a TCP or UDP header.
    drop_checksum,
    /// Large segments dropped, since the backend cannot cut them, and they are not what their header says.
    drop_segments,
    /// Large segments cut by software, since the backend cannot.
    segments_cut,
    /// Addresses announced to the neighbours after a reconnect.
    announced,
    /// Checksums filled in by software, since the backend cannot, or would not find them.
    checksums_filled,
    /// Calls of readv and writev.
    system_calls,
}

/// Connects a queue with a TAP device.
#[derive(Debug)]
pub struct Tap {
    device: netfront_tap::Tap,
    features: Features,
    counters: Arc<TapCounters>,
    /// Address and MTU that hold whatever the vif says.
    kept: Option<([u8; 6], u32)>,
    /// What the interface was last told to be.
    applied: Applied,
    cut: Cut,
    groups: Option<Groups>,
    /// Tells the first queue of multicast frames, if it follows groups and this is another.
    hint: Option<Arc<Hint>>,
    addresses: Addresses,
    /// One of the other queues: the interface is set up by the first.
    follows: bool,
}

/// What the interface was last told, so that only a new word of the store's is told again: what an administrator has set
/// since is his, also when the backend comes anew.
#[derive(Debug, Default)]
struct Applied {
    mac: Option<[u8; 6]>,
    mtu: Option<u32>,
    /// In bits a second.
    speed: Option<u64>,
    /// It was taken up once. Who takes it down wants it down.
    up: bool,
}

/// Tells the interface's addresses.
struct Addresses(Box<dyn FnMut() -> Vec<IpAddr> + Send>);

impl std::fmt::Debug for Addresses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Addresses")
    }
}

impl Tap {
    /// Uses this device. Address, MTU, speed, offloads and carrier follow the vif from now on; address, MTU and speed when the
    /// vif's change, so that others may set their own meanwhile. It is taken up once, with the first carrier.
    pub fn new(device: netfront_tap::Tap) -> Self {
        Self {
            device,
            features: Features::default(),
            counters: Arc::default(),
            kept: None,
            applied: Applied::default(),
            cut: Cut::default(),
            groups: None,
            hint: None,
            addresses: Addresses(Box::new(Vec::new)),
            follows: false,
        }
    }

    /// The consumer of the vif's next queue, with a queue of the TAP of its own: for a TAP that was opened with several.
    /// Address, MTU, offloads and carrier are left to this one.
    ///
    /// # Errors
    /// When the TAP has as many queues as it may have, or was opened with one.
    pub fn next_queue(&self) -> Result<Self, Error> {
        Ok(Self {
            follows: true,
            hint: self.groups.as_ref().map(Groups::hint),
            ..Self::new(self.device.add_queue()?)
        })
    }

    /// Keeps this address and this MTU, in bytes, whatever the vif says: those of an interface whose place the TAP
    /// takes, whose owner may have changed them.
    pub fn keep(&mut self, mac: [u8; 6], mtu: u32) {
        self.kept = Some((mac, mtu));
    }

    /// After each reconnect the neighbours are told that the addresses which this finds are here. It is called by the queue's
    /// thread.
    pub fn announce_by(&mut self, addresses: impl FnMut() -> Vec<IpAddr> + Send + 'static) {
        self.addresses = Addresses(Box::new(addresses));
    }

    /// Has the backend send only the multicast packets that the interface listens to, all of them while it is promiscuous.
    /// For a device with [`crate::Wants::multicast_filter`]. The interface must be in the network namespace of the queue's
    /// thread: elsewhere its groups are not seen, and nothing is filtered. Before [`Self::next_queue`]: the other queues tell this
    /// one of reports that they send.
    pub fn filter_multicast(&mut self) {
        self.groups = Some(Groups::of(self.device.name()));
    }

    /// Tells the backend which groups the interface listens to, if it is time to look.
    fn follow(&mut self, queue: &mut Queue) -> Result<(), Error> {
        let Some(groups) = self
            .groups
            .as_mut()
            .filter(|_| self.features.multicast_control)
        else {
            return Ok(());
        };
        if groups.begins() {
            groups.attend(queue.waker());
        }
        let Some(wanted) = groups.due(Instant::now) else {
            return Ok(());
        };
        let complete = queue.follow_multicast(wanted)?;
        groups.unfinished(!complete);
        Ok(())
    }

    /// What was counted, readable from any thread.
    pub fn counters(&self) -> Arc<TapCounters> {
        Arc::clone(&self.counters)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        self.device.name()
    }

    /// Gives the interface the vif's address and MTU, or those that are kept, if they are not what it was given before.
    fn say_mac_and_mtu(&mut self, link: &Link) -> Result<(), Error> {
        let (mac, mtu) = self.kept.unwrap_or((link.mac, link.mtu));
        if self.applied.mac != Some(mac) {
            if self.device.mac()? != mac {
                // The kernel refuses a new address while the interface is up only on some kernels.
                self.device.set_mac(mac)?;
            }
            self.applied.mac = Some(mac);
        }
        if self.applied.mtu != Some(mtu) {
            if self.device.mtu()? != mtu {
                self.device.set_mtu(mtu)?;
            }
            self.applied.mtu = Some(mtu);
        }
        Ok(())
    }

    /// Has the interface say how fast the network is. What the store says nothing of is left to the kernel, unless it said
    /// something before.
    fn say_speed(&mut self, speed: Option<u64>) {
        if self.applied.speed == speed {
            return;
        }
        self.applied.speed = speed;
        // It is for people and programs that ask; packets pass all the same.
        if let Err(error) = self.device.set_speed(speed) {
            tracing::info!("the TAP does not say how fast the network is: {error}");
        }
    }

    /// Reads one frame into granted pages. Says whether there was one.
    fn read_one(&mut self, queue: &mut Queue) -> Result<bool, Error> {
        let Self {
            device,
            features,
            counters,
            cut,
            groups,
            hint,
            ..
        } = self;
        queue.send_filled(|pages| {
            counters.system_calls.add(1);
            let mut bytes = [0; HEADER_SIZE];
            let Some(len) = device.receive(&mut bytes, pages)? else {
                return Ok(None);
            };
            counters.read.add(1);
            let destination = pages.first().and_then(|page| page.first().copied());
            if let Some(groups) = groups {
                groups.sees(destination);
            }
            if let Some(hint) = hint {
                hint.sees(destination);
            }
            let vnet = VnetHeader::decode(&bytes);
            let mut offload = from_vnet(&vnet);
            let head = pages
                .first()
                .map_or(&[][..], |page| &page[..len.min(page.len())]);
            let finds = offload.checksum != Checksum::Blank || takes_blank(features, &vnet, head);
            if offload
                .gso
                .is_some_and(|gso| !finds || !takes_segments(features, gso.kind))
            {
                // Queued in the TAP for an earlier backend that could cut it.
                let pages = pages.iter().map(|page| &page[..]);
                match offload.gso.map(|gso| cut.take(pages, len, gso)) {
                    Some(Ok(())) => counters.segments_cut.add(1),
                    _ => counters.drop_segments.add(1),
                }
                return Ok(None);
            }
            if !finds {
                let (start, offset) = (vnet.csum_start, vnet.csum_offset);
                fill_checksum(pages, len, usize::from(start), usize::from(offset));
                offload.checksum = Checksum::None;
                counters.checksums_filled.add(1);
            }
            Ok(Some((len, offload)))
        })
    }
}

impl Consumer for Tap {
    fn link(&mut self, link: &Link) -> Result<(), Error> {
        self.features = link.features;
        if let Some(groups) = &mut self.groups {
            // A new connection has been told of none.
            groups.look();
        }
        if self.follows {
            return Ok(());
        }
        if !link.carrier {
            self.device.set_carrier(false)?;
        }
        // With the cable out too: who looks for the interface by its address finds it from the start.
        self.say_mac_and_mtu(link)?;
        self.say_speed(link.speed);
        if !link.carrier {
            return Ok(());
        }
        // Set every time, also to nothing: the flags belong to the device and outlive whoever set them.
        // A segment longer than a page needs several slots.
        let features = link.features;
        let wanted = Offloads {
            checksum: features.csum_offload,
            tso4: features.csum_offload && features.sg && features.gso_tcpv4,
            tso6: features.ipv6_csum_offload && features.sg && features.gso_tcpv6,
        };
        let have = self.device.set_offloads(wanted)?;
        if have != wanted {
            tracing::info!(?wanted, ?have, "the TAP has fewer offloads than the vif");
        }
        if !self.applied.up {
            self.device.set_up(true)?;
            self.applied.up = true;
        }
        Ok(self.device.set_carrier(true)?)
    }

    /// The kernel spreads frames over all queues of the TAP that are attached: one that nobody reads would swallow its share.
    fn attend(&mut self, has_queue: bool) -> Result<(), Error> {
        Ok(self.device.set_attached(has_queue)?)
    }

    fn deliver(&mut self, packet: &mut Packet<'_>) {
        let Ok(vnet) = to_vnet(&packet.offload(), packet.head()) else {
            return self.counters.drop_checksum.add(1);
        };
        let header = vnet.encode();
        let mut slices = ArrayVec::<IoSlice<'_>, { MAX_FRAGMENTS + 2 }>::new();
        slices.push(IoSlice::new(&header));
        slices.extend(packet.slices().map(IoSlice::new));
        self.counters.system_calls.add(1);
        match self.device.send(&slices) {
            Ok(Sent::Taken) => self.counters.written.add(1),
            // Not held: where it would be taken later nobody can tell, since what fills the bound may lie in a queue for ever.
            Ok(Sent::Full) => self.counters.drop_full.add(1),
            Ok(Sent::Refused(_)) | Err(_) => self.counters.drop_refused.add(1),
        }
    }

    fn offer(&mut self, queue: &mut Queue, budget: usize) -> Result<usize, Error> {
        self.follow(queue)?;
        let mut sent = self.cut.send(queue, budget);
        while sent < budget && queue.can_send() && self.cut.is_done() {
            if self.read_one(queue)? {
                sent += 1;
            } else if self.cut.is_done() {
                break;
            } else {
                sent += self.cut.send(queue, budget - sent);
            }
        }
        Ok(sent)
    }

    fn offers_within(&mut self) -> Option<Duration> {
        let filters = self.features.multicast_control;
        let groups = self.groups.as_mut().filter(|_| filters)?;
        groups.rests(Instant::now)
    }

    fn announce(&mut self, queue: &mut Queue) {
        let Ok(mac) = self.device.mac() else {
            return;
        };
        match announce::send(queue, mac, &(self.addresses.0)()) {
            Ok(sent) => self.counters.announced.add(sent as u64),
            Err(error) => tracing::warn!("the addresses cannot be announced: {error}"),
        }
        if let Err(error) = queue.flush() {
            tracing::debug!("announcing: {error}");
        }
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.device.as_fd())
    }
}
