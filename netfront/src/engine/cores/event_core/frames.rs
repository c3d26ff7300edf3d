//! What workers send: only the event core of a queue touches its ring.

use std::sync::Arc;

use super::EventCore;
use crate::engine::cores::floor::send;
use crate::engine::cores::kinds::{FRAMES, MAIL};
use crate::engine::cores::running::Parcel;
use crate::engine::cores::work::{Frame, Work};
use crate::engine::pending::Kinds;
use crate::engine::WEIGHT;
use crate::Error;

impl<W: Work> EventCore<'_, '_, W> {
    /// Sends what workers have handed back, a weight of each in a pass.
    pub(super) fn frames(&mut self) -> Result<Kinds, Error> {
        let mut kinds = Kinds::NONE;
        for at in 0..self.back.len() {
            let Some(lane) = self.back.get_mut(at).filter(|lane| !lane.is_empty()) else {
                continue;
            };
            let mut taken = std::mem::take(&mut self.taken);
            taken.extend(std::iter::from_fn(|| lane.take()).take(WEIGHT));
            if !lane.is_empty() {
                kinds = kinds.and(FRAMES);
            }
            // Only now: what an old core of a queue has sent on was posted before a worker could send these.
            if self.signal.pending.take_kind(MAIL) {
                kinds = kinds.union(self.mail()?);
            }
            for seat in self.floor.seats.iter_mut().flatten() {
                seat.queue.reclaim()?;
            }
            let frames = taken.len() as u64;
            taken.drain(..).for_each(|frame| self.dispatch(frame));
            self.taken = taken;
            if let Some(lane) = self.back.get_mut(at) {
                lane.finish(frames);
            }
        }
        if std::mem::take(&mut self.sent) {
            for seat in self.floor.seats.iter_mut().flatten() {
                seat.queue.flush()?;
            }
        }
        Ok(kinds)
    }

    /// To its queue, here or where that has gone.
    pub(super) fn dispatch(&mut self, frame: Frame) {
        let number = frame.queue;
        let owner = self.owners.get(number).copied().unwrap_or(self.place);
        let stats = Arc::clone(&self.floor.stats);
        match self.floor.seat(number) {
            Some(seat) => {
                send(seat, &frame, &stats);
                self.sent = true;
                self.floor.running.buffers.give(frame.bytes);
            }
            None if owner != self.place => self.floor.running.post(owner, Parcel::Frame(frame)),
            None if number < self.owners.len() => self.early.push(frame),
            None => stats.frames_dropped.add(1),
        }
    }
}
