//! From the guest: packets out of a transmit ring, copied once, handed to the peer.

use arrayvec::ArrayVec;
use hypervisor::{Copy, CopyStatus, Direction, GrantRef, LocalBuffer};
use xen_ring::{transmit, Gso, GsoKind, Status, TxPacket};

use super::{Fault, Vif};
use crate::frame::{Frame, BATCH, BUFFER_SIZE, FRAME_ROOM, LINE};
use crate::peer::Peer;
use crate::vif::Buffers;

/// Copies in one call, as netback makes them.
pub(super) const COPIES: usize = 64;
/// The most copies that one packet can need.
const COPIES_OF_ONE: usize = xen_ring::SLOTS_FATAL;

/// The room in which a batch is put together.
pub(crate) struct Fetch {
    buffer: LocalBuffer,
    packets: Vec<TxPacket>,
    operations: Vec<Copy>,
}

/// A packet of the batch: where its bytes are, and which copies bring them.
#[derive(Clone, Copy)]
struct Place {
    at: usize,
    first: usize,
    count: usize,
    /// It is to be handed to the peer if all of its copies succeed.
    wanted: bool,
}

impl Fetch {
    pub(crate) fn new() -> Result<Self, hypervisor::Error> {
        Ok(Fetch {
            buffer: LocalBuffer::new(BUFFER_SIZE)?,
            packets: (0..BATCH).map(|_| TxPacket::new()).collect(),
            operations: Vec::with_capacity(COPIES),
        })
    }
}

impl Vif {
    /// One batch out of the transmit ring of a queue. True when there was something.
    pub(super) fn fetch(
        &mut self,
        index: usize,
        peer: &mut dyn Peer,
        buffers: &mut Buffers,
    ) -> Result<bool, Fault> {
        let Buffers { fetch, burst, .. } = buffers;
        let mut places: ArrayVec<Place, BATCH> = ArrayVec::new();
        let mut used = 0;
        fetch.operations.clear();
        while places.len() < BATCH
            && fetch.operations.len() + COPIES_OF_ONE <= COPIES
            && used + FRAME_ROOM <= BUFFER_SIZE
        {
            let packet = &mut fetch.packets[places.len()];
            if !transmit::next(&mut self.queues[index].tx, packet)? {
                break;
            }
            let wanted = packet.fault.is_none()
                && packet.multicast.is_none()
                && self.offers(packet)
                && !packet.fragments.is_empty();
            let first = fetch.operations.len();
            let mut end = used;
            if wanted {
                for fragment in &packet.fragments {
                    fetch.operations.push(Copy {
                        gref: GrantRef(fragment.gref),
                        offset: fragment.offset,
                        len: fragment.len,
                        local: end,
                        direction: Direction::FromDomain,
                        status: CopyStatus::Okay,
                    });
                    end += usize::from(fragment.len);
                }
            }
            places.push(Place {
                at: used,
                first,
                count: fetch.operations.len() - first,
                wanted,
            });
            used = end.next_multiple_of(LINE);
        }
        if places.is_empty() {
            return Ok(false);
        }
        self.copy(&mut fetch.buffer, &mut fetch.operations);

        let mut frames: ArrayVec<Frame<'_>, BATCH> = ArrayVec::new();
        let (mut bytes, mut slots, mut refused, mut failed) = (0, 0, 0, 0);
        let mut rest = fetch.buffer.as_mut_slice();
        let mut cut = 0;
        for (place, packet) in places.iter().zip(&fetch.packets) {
            let copies = &fetch.operations[place.first..place.first + place.count];
            let copied = copies.iter().all(|copy| copy.status.is_okay());
            let status = match packet.multicast {
                Some(wish) => self.multicast.carry_out(wish),
                None if place.wanted && copied => Status::Okay,
                None => Status::Error,
            };
            transmit::answer(&mut self.queues[index].tx, packet, status)?;
            if packet.multicast.is_some() {
                self.counters.multicast_requests.add(1);
                continue;
            }
            if !place.wanted {
                refused += 1;
                continue;
            }
            if !copied {
                failed += 1;
                continue;
            }
            let (_, from) = std::mem::take(&mut rest).split_at_mut(place.at - cut);
            let (frame, behind) = from.split_at_mut(packet.len as usize);
            (rest, cut) = (behind, place.at + frame.len());
            bytes += frame.len() as u64;
            slots += place.count as u64;
            frames.push(Frame {
                bytes: frame,
                offload: packet.offload,
            });
        }
        // Answered before the peer works on them: the guest gets its pages back sooner.
        let notify = self.queues[index].tx.publish();
        self.ring(self.queues[index].tx_port, notify);

        let counters = &self.counters;
        counters.tx_packets.add(frames.len() as u64);
        counters.tx_bytes.add(bytes);
        counters.tx_slots.add(slots);
        counters.tx_refused.add(refused);
        counters.tx_copy_failed.add(failed);
        if failed > 0 {
            self.say_gone("copying from the guest's pages failed");
        }
        if !frames.is_empty() {
            peer.receive(&mut frames, burst);
        }
        Ok(true)
    }

    /// The packet uses nothing that was not offered.
    fn offers(&self, packet: &TxPacket) -> bool {
        let segments = match packet.offload.gso {
            None => true,
            Some(Gso { kind, .. }) => match kind {
                GsoKind::TcpV4 => self.offered.gso_tcpv4,
                GsoKind::TcpV6 => self.offered.gso_tcpv6,
            },
        };
        segments && (self.offered.sg || packet.fragments.len() <= 1)
    }

    /// The copies of a batch. A call that fails as a whole fails each of its copies.
    pub(super) fn copy(&mut self, buffer: &mut LocalBuffer, operations: &mut [Copy]) {
        if let Err(error) = self.memory.carry(buffer, operations) {
            self.say_gone(&format!("a copy call failed: {error}"));
        }
    }
}

impl super::Multicast {
    fn carry_out(&mut self, wish: transmit::Multicast) -> Status {
        match wish {
            transmit::Multicast::Add(address) => {
                if self.wanted.contains(&address) || self.wanted.try_push(address).is_ok() {
                    Status::Okay
                } else {
                    Status::Error
                }
            }
            transmit::Multicast::Del(address) => {
                self.wanted.retain(|wanted| *wanted != address);
                Status::Okay
            }
        }
    }

    /// The guest does not want this frame.
    pub(super) fn filters(&self, frame: &[u8]) -> bool {
        let Some(destination) = frame.first_chunk::<6>() else {
            return false;
        };
        let group = destination[0] & 1 != 0 && *destination != [0xff; 6];
        self.filtering && group && !self.wanted.contains(destination)
    }
}
