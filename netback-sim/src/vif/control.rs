//! The control ring. The grant mapping messages are answered here, those about hashes in [`super::hash`]; a message of a
//! feature that is switched off is not supported, as netif.h provides for, and a frontend then does without.

use xen_ring::{ControlMessage, ControlResponse, ControlStatus, GrefEntry, GREF_ENTRIES};

use super::mappings::PER_QUEUE;
use super::{Fault, Vif};

/// What is answered: the status, and data if there is any to tell.
pub(super) type Answer = (ControlStatus, u32);

const INVALID: Answer = (ControlStatus::InvalidParameter, 0);

impl Vif {
    /// Answers what is in the control ring. True when there was something.
    pub(super) fn serve_control(&mut self) -> Result<bool, Fault> {
        // Out of its place meanwhile, so that an answer can use the rest of the vif.
        let Some((mut ring, port)) = self.control.take() else {
            return Ok(false);
        };
        // One a round: a list may be 512 pages to map, and a guest that asks without end must not keep the data
        // waiting.
        let popped = ring.pop();
        let answered = match popped {
            Ok(Some(raw)) => {
                let request = raw.request();
                let (status, data) = self.answer(&request.message);
                let response = ControlResponse::to(&request, status, data);
                ring.push(&response).map(|_| Some(ring.publish()))
            }
            Ok(None) => Ok(None),
            Err(corrupt) => return Err(corrupt.into()),
        };
        self.control = Some((ring, port));
        let Some(notify) = answered? else {
            return Ok(false);
        };
        self.counters.control_messages.add(1);
        self.counters.gref_mapped.set(self.memory.kept.len() as u64);
        self.ring(port, notify);
        Ok(true)
    }

    /// The frontend closes, and what it asked before that is answered, whichever of the two is noticed first: at its goodbye it does
    /// not wait for long.
    pub(crate) fn answer_last_question(&mut self) {
        // The rings go in any case, so a broken one needs no remark.
        if let Err(fault) = self.serve_control() {
            tracing::debug!("a broken control ring at the end: {fault}");
        }
    }

    fn answer(&mut self, message: &ControlMessage) -> Answer {
        if self.offered.hash {
            let queues = self.queues.len();
            let answer = self.hashing.answer(message, &mut self.memory, queues);
            if let Some(answer) = answer {
                return answer;
            }
        }
        if !self.offered.gref_mapping {
            return (ControlStatus::NotSupported, 0);
        }
        match *message {
            ControlMessage::GetGrefMappingSize { queue } => match self.queue_number(queue) {
                Some(_) => (ControlStatus::Success, PER_QUEUE as u32),
                None => INVALID,
            },
            ControlMessage::AddGrefMapping {
                queue,
                gref,
                entries,
            } => self.add_mappings(queue, gref, entries).unwrap_or(INVALID),
            ControlMessage::DelGrefMapping {
                queue,
                gref,
                entries,
            } => self.del_mappings(queue, gref, entries).unwrap_or(INVALID),
            _ => (ControlStatus::NotSupported, 0),
        }
    }

    fn queue_number(&self, queue: u32) -> Option<usize> {
        let queue = usize::try_from(queue).ok()?;
        (queue < self.memory.kept.queues()).then_some(queue)
    }

    /// All pages of the list, or none. None: the message itself makes no sense.
    fn add_mappings(&mut self, queue: u32, gref: u32, entries: u32) -> Option<Answer> {
        // Before the guest has seen us Connected it cannot know that the rings are ours.
        if !self.connected {
            return None;
        }
        let (queue, mut list) = self.list(queue, gref, entries)?;
        let memory = &mut self.memory;
        let prepared = memory.kept.prepare(&mut memory.foreign, queue, &mut list);
        // netif.h has no statuses in this answer. Ours tell which entry is bad, if the list can be written.
        let _ = memory.write_list(gref, &list);
        memory.kept.keep(prepared?);
        tracing::debug!(
            queue,
            added = list.len(),
            kept = memory.kept.len(),
            "pages stay mapped"
        );
        Some((ControlStatus::Success, 0))
    }

    /// Those of the list that are kept; the others are told by their statuses.
    fn del_mappings(&mut self, queue: u32, gref: u32, entries: u32) -> Option<Answer> {
        let (queue, mut list) = self.list(queue, gref, entries)?;
        let memory = &mut self.memory;
        let removed = memory.kept.remove(&mut memory.foreign, queue, &mut list);
        tracing::debug!(
            queue,
            removed,
            kept = memory.kept.len(),
            "pages are unmapped"
        );
        let status = match memory.write_list(gref, &list) {
            Some(()) => ControlStatus::Success,
            None => ControlStatus::InvalidParameter,
        };
        Some((status, removed as u32))
    }

    /// A list out of the guest's page: copied once, and only the copy is judged.
    fn list(&mut self, queue: u32, gref: u32, entries: u32) -> Option<(usize, Vec<GrefEntry>)> {
        let queue = self.queue_number(queue)?;
        let entries = usize::try_from(entries).ok()?;
        if !(1..=GREF_ENTRIES).contains(&entries) {
            return None;
        }
        Some((queue, self.memory.read_list(gref, entries)?))
    }
}
