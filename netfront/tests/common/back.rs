//! A backend in the test's hands: it takes, copies and answers only when it is told to.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::time::Duration;

use hypervisor::{
    Access, Copy, CopyStatus, Direction, DomId, Domain, EventChannels, ForeignMemory, GrantRef,
    LocalBuffer, MappedPages, Port,
};
use netfront::queue::{Ports, QueueKeys};
use netfront::Offload;
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use xen_ring::{
    receive, transmit, BackRing, Notify, Rx, RxFragment, RxResponse, Status, Tx, TxPacket,
};

/// A page that the frontend has posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    pub id: u16,
    pub gref: GrantRef,
}

/// The other end of a queue.
pub struct Back {
    pub rx: BackRing<Rx>,
    pub tx: BackRing<Tx>,
    pub events: EventChannels,
    pub rx_port: Port,
    pub tx_port: Port,
    pub memory: ForeignMemory,
    /// Posted pages that are not answered, the oldest first.
    pub posted: VecDeque<Posted>,
    /// What the last publish of each ring said.
    pub notify: [Notify; 2],
    outstanding: BTreeSet<GrantRef>,
    local: LocalBuffer,
    packet: TxPacket,
    _rings: MappedPages,
}

impl Back {
    pub fn attach(domain: &Domain, front: DomId, keys: &QueueKeys) -> Self {
        let mut memory = domain.foreign(front).expect("the guest's memory");
        let rings = memory
            .map(&[keys.tx_ring, keys.rx_ring], Access::ReadWrite)
            .expect("rings");
        let mut events = domain.events().expect("event channels");
        let mut bind = |port| events.bind_interdomain(front, port).expect("a channel");
        let (rx_port, tx_port) = match keys.ports {
            Ports::Shared(port) => {
                let port = bind(port);
                (port, port)
            }
            Ports::Split { rx, tx } => (bind(rx), bind(tx)),
        };
        Self {
            tx: BackRing::attach(rings.page(0)),
            rx: BackRing::attach(rings.page(1)),
            events,
            rx_port,
            tx_port,
            memory,
            posted: VecDeque::new(),
            notify: [Notify::NotNeeded; 2],
            outstanding: BTreeSet::new(),
            local: LocalBuffer::new(128 * 1024).expect("a buffer"),
            packet: TxPacket::new(),
            _rings: rings,
        }
    }

    /// Takes all posted requests off the ring and tells how many wait for an answer.
    ///
    /// This is where H-6 is watched in every test: a reference that is posted while it is posted
    /// already, or an id that is not its slot, fails here.
    pub fn take_posted(&mut self) -> usize {
        while let Some(raw) = self.rx.pop().expect("a sound rx ring") {
            let request = raw.request();
            assert_eq!(request.id, raw.slot(), "the id of a request is its slot");
            let gref = GrantRef(request.gref);
            assert!(
                self.outstanding.insert(gref),
                "page {gref} is posted twice at once"
            );
            self.posted.push_back(Posted {
                id: request.id,
                gref,
            });
        }
        self.posted.len()
    }

    /// The oldest posted page, which is answered next: the caller must push a response.
    pub fn next_posted(&mut self) -> Posted {
        if self.posted.is_empty() {
            self.take_posted();
        }
        let posted = self.posted.pop_front().expect("a posted page");
        self.outstanding.remove(&posted.gref);
        posted
    }

    fn copy(&mut self, gref: GrantRef, offset: u16, len: u16, to: Direction) -> CopyStatus {
        let status = CopyStatus::Okay;
        let mut operation = [Copy {
            gref,
            offset,
            len,
            local: 0,
            direction: to,
            status,
        }];
        self.memory
            .copy(&mut self.local, &mut operation)
            .expect("a copy");
        operation[0].status
    }

    /// Writes into a page of the guest, at any time, and says what the hypervisor says.
    pub fn write(&mut self, gref: GrantRef, offset: u16, bytes: &[u8]) -> CopyStatus {
        self.local.as_mut_slice()[..bytes.len()].copy_from_slice(bytes);
        self.copy(gref, offset, bytes.len() as u16, Direction::ToDomain)
    }

    /// Reads a page of the guest, at any time.
    pub fn read(&mut self, gref: GrantRef, offset: u16, len: u16) -> Result<Vec<u8>, CopyStatus> {
        match self.copy(gref, offset, len, Direction::FromDomain) {
            CopyStatus::Okay => Ok(self.local.as_slice()[..usize::from(len)].to_vec()),
            refused => Err(refused),
        }
    }

    /// Puts a packet given in pieces, one a page, into posted pages at `offset`, without publishing.
    /// Returns the pages that it took, those of extra infos left out.
    pub fn put_pieces(&mut self, pieces: &[&[u8]], offset: u16, offload: &Offload) -> Vec<Posted> {
        let extras = offload.extra_slots() as usize;
        let mut pages = Vec::new();
        let mut fragments = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            let posted = self.next_posted();
            let status = self.write(posted.gref, offset, piece);
            assert_eq!(
                status,
                CopyStatus::Okay,
                "a posted page is granted, and writable"
            );
            fragments.push(RxFragment {
                slot: posted.id,
                offset,
                len: piece.len() as u16,
            });
            pages.push(posted);
            if index == 0 {
                for _ in 0..extras {
                    let _ = self.next_posted();
                }
            }
        }
        receive::push(&mut self.rx, &fragments, offload).expect("room for responses");
        pages
    }

    /// Puts a packet in one piece into as many pages as it needs, and publishes.
    pub fn deliver(&mut self, frame: &[u8]) -> Vec<Posted> {
        let pieces: Vec<&[u8]> = frame.chunks(4096).collect();
        self.deliver_pieces(&pieces, &Offload::default())
    }

    pub fn deliver_pieces(&mut self, pieces: &[&[u8]], offload: &Offload) -> Vec<Posted> {
        let pages = self.put_pieces(pieces, 0, offload);
        self.publish();
        pages
    }

    /// Answers the oldest posted page with whatever the test likes, without publishing.
    pub fn respond(&mut self, change: impl FnOnce(&mut RxResponse)) -> Posted {
        let posted = self.next_posted();
        let mut response = RxResponse {
            id: posted.id,
            status: 60,
            ..RxResponse::default()
        };
        change(&mut response);
        self.rx
            .push(&response)
            .expect("a request that waits for this response");
        posted
    }

    /// Publishes both rings, and rings where the frontend asked for it.
    pub fn publish(&mut self) {
        self.notify = [self.rx.publish(), self.tx.publish()];
        for (notify, port) in self.notify.into_iter().zip([self.rx_port, self.tx_port]) {
            if notify == Notify::Needed {
                self.events.notify(port).expect("a bound channel");
            }
        }
    }

    /// The next packet that the guest sent, which is not answered yet.
    pub fn peek(&mut self) -> Option<&TxPacket> {
        transmit::next(&mut self.tx, &mut self.packet)
            .expect("a sound tx ring")
            .then_some(&self.packet)
    }

    /// Copies the packet that [`Self::peek`] found.
    pub fn bytes(&mut self) -> Vec<u8> {
        let fragments = self.packet.fragments.clone();
        let mut bytes = Vec::new();
        for fragment in fragments {
            let piece = self.read(GrantRef(fragment.gref), fragment.offset, fragment.len);
            bytes.extend(piece.expect("a page of a sent packet can be read"));
        }
        bytes
    }

    /// Answers the packet that [`Self::peek`] found, without publishing.
    pub fn answer(&mut self, status: Status) {
        transmit::answer(&mut self.tx, &self.packet, status).expect("room for responses");
    }

    /// The next packet that the guest sent, answered but not published.
    pub fn fetch(&mut self) -> Option<(Vec<u8>, Offload)> {
        let offload = self.peek()?.offload;
        assert_eq!(self.packet.fault, None, "the driver sends no faulty packet");
        let bytes = self.bytes();
        self.answer(Status::Okay);
        Some((bytes, offload))
    }

    /// Ports that rang since the last call.
    pub fn rung(&mut self) -> Vec<Port> {
        let mut ports = Vec::new();
        self.events.pending(&mut ports).expect("events");
        for port in &ports {
            self.events.unmask(*port).expect("unmasked");
        }
        ports
    }

    /// Sleeps until a port rings. False when none did in time.
    pub fn sleep(&mut self, timeout: Duration) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.events.as_fd(), PollFlags::IN)];
        let timeout = Timespec::try_from(timeout).expect("a timeout");
        let ready = poll(&mut fds, Some(&timeout)).expect("poll") > 0;
        self.rung();
        ready
    }
}
