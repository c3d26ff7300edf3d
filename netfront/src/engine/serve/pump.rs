//! One thread with its queue: activations as long as there are packets, sleep when there are none.

use std::sync::Arc;

use super::Service;
use crate::consumer::Consumer;
use crate::engine::calm::Calm;
use crate::engine::receiver::{Receiver, Turn};
use crate::engine::rest;
use crate::engine::silence::Silence;
use crate::queue::{Queue, Wake};
use crate::waker::Waker;
use crate::Error;

/// Activations with packets between two looks at what others have to say.
const LOOK_UP: u32 = 64;

/// What a thread remembers between two activations.
pub(super) struct Pump {
    /// Activations that moved packets.
    busy: u32,
    calm: Calm,
    silence: Silence,
    receiver: Receiver,
    /// Kicks that were seen.
    kicks: u64,
    /// Has the control thread look at the store.
    control: Arc<Waker>,
}

impl Pump {
    pub fn new(service: &Service, control: Arc<Waker>) -> Self {
        Self {
            busy: 0,
            calm: Calm::default(),
            silence: Silence::default(),
            receiver: Receiver::new(service.shared_tuning()),
            kicks: service.kicks(),
            control,
        }
    }

    /// Does an activation, and sleeps if it found nothing. True if there may be something to hear from others.
    pub fn turn(
        &mut self,
        queue: &mut Queue,
        consumer: &mut dyn Consumer,
        service: &Service,
    ) -> Result<bool, Error> {
        let paused = service.is_paused();
        let Turn { moved, rests } = match paused {
            true => Turn {
                moved: 0,
                rests: true,
            },
            false => self.receiver.turn(queue, consumer)?,
        };
        if moved > 0 {
            self.calm.end();
            self.busy = self.busy.wrapping_add(1);
        }
        // Never idle, the thread never sleeps: a detach must be seen all the same.
        let looks_up = moved > 0 && self.busy.is_multiple_of(LOOK_UP);
        if !looks_up && !rests {
            return Ok(false);
        }
        if !looks_up {
            // While it is paused the answers are left in the ring.
            if !paused && self.silence.is_long(queue) {
                self.control.wake();
            }
            let time = self.calm.time(queue);
            let within = consumer.offers_within().filter(|_| !paused);
            let woken = match (paused, within) {
                (true, _) => rest(queue, time)?,
                // Its end is a reason to work, and says nothing of the calm.
                (false, Some(short)) if short < time => {
                    match self.receiver.sleep(queue, consumer, short)? {
                        Wake::Timeout => Wake::Work,
                        wake => wake,
                    }
                }
                (false, _) => self.receiver.sleep(queue, consumer, time)?,
            };
            match woken {
                Wake::Work => return Ok(false),
                Wake::Timeout => {
                    self.calm.pass(queue);
                    return Ok(false);
                }
                Wake::Called if self.calm.is_deep() => self.calm.pass(queue),
                Wake::Called => {}
            }
        }
        // Under load nobody else does.
        queue.export();
        let kicks = service.kicks();
        if std::mem::replace(&mut self.kicks, kicks) != kicks {
            queue.kick()?;
        }
        Ok(true)
    }
}
